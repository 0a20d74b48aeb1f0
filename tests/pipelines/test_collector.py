"""The collector without sockets: frames in, rows of the lake out."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.collector import Collector, wanted_symbols
from shared.bitget.transport import ReceiveClock
from shared.errors import SettingsError
from shared.lake import read, write
from shared.types import NS, TickEvent
from tests.shared.lake import receipts as r

START_NS = r.HOUR * r.HOUR_NS


def ack(channel: str, symbol: str) -> str:
    return f'{{"event":"subscribe","arg":{{"instType":"USDT-FUTURES","channel":"{channel}","instId":"{symbol}"}}}}'


def ticker(symbol: str, last: str) -> str:
    return (
        f'{{"action":"snapshot","arg":{{"instType":"USDT-FUTURES","channel":"ticker","instId":"{symbol}"}},'
        f'"data":[{{"instId":"{symbol}","lastPr":"{last}","markPrice":"","symbol":"{symbol}","ts":"1760400000000"}}],'
        '"ts":1760400000003}'
    )


def test_what_is_received_is_stored_with_its_links(tmp_path: Path) -> None:
    """Acks become SUBSCRIBED rows, pushes DATA rows with our clock, and the end of the session DISCONNECTED ones."""
    collector = Collector(tmp_path, r.universe(), "s", symbols=["龙虾USDT"], channels=("ticker",))
    (session,) = collector.sessions
    session.connected(START_NS)
    session.received(ack("ticker", "龙虾USDT"), START_NS + 1)
    session.received(ticker("龙虾USDT", "0.1234"), START_NS + 2)
    assert collector.n_links == (1, 1)

    collector.write(collector.buffer.take(), START_NS + 3)
    collector.log.close(START_NS + 9)
    write.seal(tmp_path, r.SOURCE, r.HOUR)

    rows = read.read_ticks(tmp_path, r.SOURCE, START_NS, START_NS + NS, r.SYMBOLS).tickers
    assert rows.event.tolist() == [TickEvent.SUBSCRIBED, TickEvent.DATA, TickEvent.DISCONNECTED]
    assert rows.recv_ns.tolist() == [START_NS + 1, START_NS + 2, START_NS + 9]
    assert rows.symbol.tolist() == [3, 3, 3]
    assert rows.last[1] == 0.1234
    assert rows.mark[1] != rows.mark[1]


def test_sessions_share_all_wanted_channels() -> None:
    """Every symbol of a large universe is on exactly one connection, each within its limit."""
    symbols = tuple(f"S{n:03d}USDT" for n in range(400))

    collector = Collector(Path("unused"), r.universe(symbols), "s")

    wanted = [channel for session in collector.sessions for channel in session.channels]
    assert sorted(wanted) == sorted(
        (channel, symbol) for symbol in symbols for channel in ("books15", "trade", "ticker")
    )
    assert len(collector.sessions) == 3


def test_unlisted_symbol_is_refused() -> None:
    """A symbol that is not listed is refused by name, with some that are."""
    with pytest.raises(SettingsError, match=r"found NOPEUSDT that is not.*BTCUSDT"):
        wanted_symbols(r.universe(), ["BTCUSDT", "NOPEUSDT"])
    assert wanted_symbols(r.universe(), []) == r.SYMBOLS


def test_receipts_of_two_sessions_are_ordered_by_one_clock(tmp_path: Path) -> None:
    """One clock stamps every session: receipts increase strictly, though the wall clock stands still."""
    clock = ReceiveClock(lambda: START_NS)
    symbols = tuple(f"S{n:03d}USDT" for n in range(334))
    collector = Collector(tmp_path, r.universe(symbols), "s", channels=("ticker", "trade"))
    assert len(collector.sessions) == 2
    for session in collector.sessions:
        session.connected(clock())
    for symbol in ("S000USDT", "S001USDT"):
        session = next(s for s in collector.sessions if ("ticker", symbol) in s.channels)
        session.received(ack("ticker", symbol), clock())
        session.received(ticker(symbol, "1"), clock())

    collector.write(collector.buffer.take(), clock())

    rows = read.read_ticks(tmp_path, r.SOURCE, START_NS, START_NS + NS, symbols).tickers
    assert len(set(rows.recv_ns.tolist())) == 4
    assert len(set(rows.conn.tolist())) == 2
