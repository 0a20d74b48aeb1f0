"""The collector without sockets: frames in, rows of the lake out."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.collector import Collector, wanted_symbols
from shared.bitget.session import CHANNELS_MAX
from shared.bitget.transport import ReceiveClock
from shared.errors import SettingsError
from shared.lake import coverage, read, write
from shared.types import NS, TickEvent, Universe
from tests.shared.lake import receipts as r

START_NS = r.HOUR * r.HOUR_NS


def ack(channel: str, symbol: str, op: str = "subscribe") -> str:
    return f'{{"event":"{op}","arg":{{"instType":"USDT-FUTURES","channel":"{channel}","instId":"{symbol}"}}}}'


def ticker(symbol: str, last: str, second: int = 0) -> str:
    return (
        f'{{"action":"snapshot","arg":{{"instType":"USDT-FUTURES","channel":"ticker","instId":"{symbol}"}},'
        f'"data":[{{"instId":"{symbol}","lastPr":"{last}","markPrice":"","symbol":"{symbol}","ts":"{1760400000000 + second * 1000}"}}],'
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
        (channel, symbol) for symbol in symbols for channel in ("books5", "trade", "ticker")
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


# --------------------------------------------------------------------------------------- symbols that come and go

NAMES = tuple(f"S{n:03d}USDT" for n in range(400))


@settings(max_examples=25)
@given(
    universes=st.lists(st.sets(st.integers(0, 399)), min_size=1, max_size=5),
    copies=st.integers(1, 2),
    named=st.sets(st.integers(0, 399), max_size=3),
)
def test_connections_follow_what_is_listed(universes: list[set[int]], copies: int, named: set[int]) -> None:
    """Whatever is listed next, each copy carries every symbol that is wanted once, and who stays stays where it is."""

    def listed(numbers: set[int]) -> Universe:
        return r.universe(tuple(NAMES[n] for n in sorted(numbers | named)))

    symbols = [NAMES[n] for n in sorted(named)]
    collector = Collector(Path("unused"), listed(universes[0]), "s", symbols=symbols, copies=copies)
    for before, numbers in pairwise([universes[0], *universes]):
        carried = [{symbol for _, symbol in session.channels} for session in collector.sessions]
        axis = collector.buffer.symbols
        n_parts = len(collector.sessions)

        followed = collector.follow(listed(numbers))

        wanted = named or numbers
        was = named or before
        assert collector.symbols == tuple(NAMES[n] for n in sorted(wanted))
        assert followed.new == tuple(NAMES[n] for n in sorted(wanted - was))
        assert followed.gone == tuple(NAMES[n] for n in sorted(was - wanted))
        assert list(followed.parts) == list(range(n_parts, len(collector.sessions)))
        assert collector.buffer.symbols[: len(axis)] == axis
        subscribed = Counter(channel for session in collector.sessions for channel in session.channels)
        channels = ("books5", "trade", "ticker")
        assert subscribed == Counter(
            (channel, symbol) for symbol in collector.symbols for channel in channels
        ) + Counter({(channel, symbol): copies - 1 for symbol in collector.symbols for channel in channels})
        assert all(len(session.channels) <= CHANNELS_MAX for session in collector.sessions)
        for session, symbols_before in zip(collector.sessions, carried, strict=False):
            assert symbols_before & set(collector.symbols) <= {symbol for _, symbol in session.channels}


def test_new_symbol_is_carried_by_both_sessions_of_a_rotation(tmp_path: Path) -> None:
    """While a connection is being relieved either of the two may go on: what is listed then is given to both."""
    collector = Collector(tmp_path, r.universe(r.SYMBOLS[:2]), "s", channels=("ticker",))
    (old,) = collector.sessions
    old.connected(START_NS)
    young = collector.new_session(0)
    young.connected(START_NS + 1)

    collector.follow(r.universe(r.SYMBOLS))

    assert [symbol for _, symbol in old.channels] == [symbol for _, symbol in young.channels] == list(r.SYMBOLS)
    collector.follow(r.universe(r.SYMBOLS[1:]))
    assert [symbol for _, symbol in collector.new_session(0).channels] == list(r.SYMBOLS[1:])


def test_hour_in_which_symbols_come_and_go_is_stored_and_covered(tmp_path: Path) -> None:
    """A symbol listed in mid-hour has rows from then on; one that is gone keeps its rows, and is `not_listed` after."""
    gone, stays, new = "BTCUSDT", "ETHUSDT", "NEWUSDT"
    before, after = r.universe((gone, stays), START_NS - 1), r.universe((stays, new), START_NS + 130 * NS)
    write.write_universe(tmp_path, before)
    collector = Collector(tmp_path, before, "s", channels=("books5", "trade", "ticker"))
    (session,) = collector.sessions
    session.connected(START_NS)
    now_ns = START_NS
    for second in range(300):
        now_ns = START_NS + second * NS
        if second == 130:
            collector.follow(after)
            write.write_universe(tmp_path, after)
        for frame in session.tick(now_ns):
            if frame == "ping":
                session.received("pong", now_ns)
                continue
            request = json.loads(frame)
            for arg in request["args"]:
                session.received(ack(arg["channel"], arg["instId"], request["op"]), now_ns)
        if second == 0:
            for channel, symbol in session.channels:
                session.received(ack(channel, symbol), now_ns)
        for symbol in collector.symbols:
            session.received(ticker(symbol, f"{second + 1}", second), now_ns + 1)
        aside = collector.take_aside(now_ns + 2)
        collector.write(collector.buffer.take(), now_ns + 2, aside, is_durable=second % 60 == 0)
    collector.log.close(now_ns + NS)

    (report,) = write.seal_all(tmp_path, r.SOURCE)
    rows = read.collect(read.scan(tmp_path, "raw/ticker", r.SOURCE)).filter(pl.col("event") == int(TickEvent.DATA))
    states = coverage.compute(tmp_path, r.SOURCE, r.HOUR).filter(pl.col("channel") == "ticker").sort("minute")
    of = {symbol: states.filter(pl.col("symbol") == symbol)["state"].to_list() for symbol in (gone, stays, new)}

    assert report.quarantined == 0
    assert rows.filter(pl.col("symbol") == gone)["last"].to_list() == [float(n) for n in range(1, 131)]
    assert rows.filter(pl.col("symbol") == stays)["last"].to_list() == [float(n) for n in range(1, 301)]
    assert rows.filter(pl.col("symbol") == new)["last"].to_list() == [float(n) for n in range(131, 301)]
    assert of[gone] == ["complete"] * 2 + ["not_listed"] * 58
    assert of[stays][:4] == ["complete"] * 4
    assert of[new][:4] == ["not_listed"] * 2 + ["gap", "complete"]
    links = read.read_ticks(tmp_path, r.SOURCE, START_NS, 2**62, (gone,)).tickers
    ends = links.recv_ns[links.event == TickEvent.DISCONNECTED].tolist()
    assert ends == [START_NS + 130 * NS], "its link ends when it is left, not with the session"


def test_push_of_an_unknown_symbol_is_told_once(tmp_path: Path) -> None:
    """A symbol on no axis is named for discovery, until a universe has it."""
    collector = Collector(tmp_path, r.universe(r.SYMBOLS[:2]), "s", channels=("ticker",))
    (session,) = collector.sessions
    session.connected(START_NS)
    session.received(ticker("NEWUSDT", "1"), START_NS + 1)
    session.received(ticker("SOLUSDT", "1"), START_NS + 2)
    collector.buffer.grow(["SOLUSDT"])

    assert collector.take_strangers() == {"NEWUSDT"}
    assert collector.take_strangers() == set()
