"""Raw rows on the market's clock."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from pipelines.exact import tape as tape_module
from pipelines.exact.latency import Constant, Lognormal
from pipelines.exact.tape import BEFORE_S, FASTEST_NS, Block, LakeTape, block_of
from pipelines.generate import generate
from shared.lake import read
from shared.lake.layout import HOUR_S
from shared.simulator.markets.market import GeneratedMarket
from shared.types import BOOK_LEVELS, NS, BookTicks, TickerTicks, TickEvent, TradeTicks
from tests.pipelines.markets import HOUR

START_S = HOUR * HOUR_S + 600
LENGTH_S = 150


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("tape")
    return folder, generate(GeneratedMarket(5, 3), folder, START_S, START_S + LENGTH_S).source


def test_blocks_hold_every_push_once_in_order(lake: tuple[Path, str]) -> None:
    """However long blocks are, together they hold the same rows; each begins with the book in force."""
    folder, source = lake
    symbol = read.universe_at(folder, source, START_S * NS).symbols[0]
    counts = []
    for block_s in (50, LENGTH_S):
        tape = LakeTape(folder, source, START_S, START_S + LENGTH_S, block_s=block_s)
        blocks = [tape.block(symbol, (START_S + s) * NS) for s in range(0, LENGTH_S, block_s)]
        owned = [(b.book_ns >= b.begin_ns).sum() + (b.trade_ns >= b.begin_ns).sum() for b in blocks]
        counts.append(int(sum(owned)))
        for block in blocks[1:]:
            assert block.book_ns[0] < block.begin_ns  # what was in force
            assert block.book_at(block.begin_ns) >= 0
        assert tape.block(symbol, START_S * NS) is blocks[0]  # kept, not read again
    assert counts[0] == counts[1] > 200


def test_blocks_that_are_read_together_are_read_as_each_alone(
    lake: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is read first, with a latency that is drawn by row: the same blocks, from fewer reads."""
    folder, source = lake
    symbols = read.universe_at(folder, source, START_S * NS).symbols
    reads: list[Sequence[str]] = []
    real = read.read_ticks

    def counting(*args: Any, **more: Any) -> Any:
        reads.append(args[4])
        return real(*args, **more)

    monkeypatch.setattr(read, "read_ticks", counting)

    def blocks(together: Sequence[str], asked: Sequence[str]) -> tuple[int, dict[tuple[str, int], Block]]:
        reads.clear()
        tape = LakeTape(
            folder, source, START_S, START_S + LENGTH_S, symbols=together, feed=Lognormal(20, 90), seed=3, block_s=30
        )
        found = {
            (symbol, s): tape.block(symbol, (START_S + s) * NS) for s in range(0, LENGTH_S, 30) for symbol in asked
        }
        return len(reads), found

    with monkeypatch.context() as one_by_one:
        one_by_one.setattr(tape_module, "AT_ONCE_BLOCKS", 1)
        n_alone, alone = blocks((), symbols)
    assert n_alone == len(alone) == 3 * 5
    for asked, n_most in ((symbols, 2), (symbols[::-1], 6)):
        n_reads, found = blocks(symbols, asked)
        assert n_reads <= n_most
        for key, block in alone.items():
            for name in block.__struct_fields__:
                np.testing.assert_array_equal(getattr(found[key], name), getattr(block, name), err_msg=name)


def test_blocks_beyond_the_memory_are_read_again(lake: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for no more than one, a block that was let go comes back the same."""
    folder, source = lake
    symbols = read.universe_at(folder, source, START_S * NS).symbols
    monkeypatch.setattr(tape_module, "BYTES_KEPT", 1)
    tape = LakeTape(folder, source, START_S, START_S + LENGTH_S, symbols=symbols)

    first = tape.block(symbols[0], START_S * NS)
    tape.block(symbols[1], START_S * NS)
    again = tape.block(symbols[0], START_S * NS)

    assert again is not first
    assert (again.book_ns == first.book_ns).all()
    assert tape.block(symbols[0], START_S * NS) is again


def test_recorded_latency_is_kept_where_clocks_agree(lake: tuple[Path, str]) -> None:
    """The generated market's clocks agree: nothing is shifted, and matching sees a row at the exchange's time."""
    folder, source = lake
    tape = LakeTape(folder, source, START_S, START_S + LENGTH_S)
    symbol = read.universe_at(folder, source, START_S * NS).symbols[0]
    ticks = read.read_ticks(folder, source, START_S * NS, (START_S + LENGTH_S) * NS, (symbol,))
    pushed = ticks.trades.event == TickEvent.DATA

    assert tape.shift_ns == 0
    stamped = np.maximum.accumulate(ticks.trades.exch_ns[pushed])
    assert (tape.block(symbol, START_S * NS).trade_ns == stamped[stamped >= START_S * NS]).all()


def test_sampled_latency_replaces_the_recorded_one(lake: tuple[Path, str]) -> None:
    """With a constant of 300 ms every row happened 300 ms before its receipt."""
    folder, source = lake
    tape = LakeTape(folder, source, START_S, START_S + LENGTH_S, feed=Constant(300))
    symbol = read.universe_at(folder, source, START_S * NS).symbols[0]
    ticks = read.read_ticks(folder, source, START_S * NS, (START_S + LENGTH_S) * NS, (symbol,))
    received = ticks.trades.recv_ns[ticks.trades.event == TickEvent.DATA] - 300 * 1_000_000

    found = tape.block(symbol, START_S * NS).trade_ns

    assert (found == received[received >= START_S * NS]).all()


def test_clock_that_is_behind_is_shifted_until_the_fastest_row_took_a_millisecond(
    lake: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the least of receipt - stamp is negative, no row may arrive before it was sent."""
    folder, source = lake
    monkeypatch.setattr("pipelines.exact.tape._shift_ns", lambda *_: -1_520_000_000 - FASTEST_NS)
    tape = LakeTape(folder, source, START_S, START_S + LENGTH_S)
    assert tape.shift_ns == -1_521_000_000

    symbol = read.universe_at(folder, source, START_S * NS).symbols[0]
    block = tape.block(symbol, START_S * NS)

    assert (np.diff(block.book_ns) >= 0).all()


def _rows(n: int) -> dict[str, Any]:
    times = (START_S + np.arange(n)) * NS
    return {
        "symbol": np.zeros(n, np.int32), "recv_ns": times, "exch_ns": times, "event": np.zeros(n, np.uint8),
        "conn": np.zeros(n, np.int32),
    }  # fmt: skip


def test_recording_without_marks_is_valued_at_its_mids() -> None:
    """One mark a second, the mid of its last book; rows that say the same again are left out."""
    n = 4
    prices = np.full((n, 15), np.nan)
    bid, ask = prices.copy(), prices.copy()
    bid[:, 0], ask[:, 0] = [99, 99, 100, 100], [101, 101, 102, 102]
    sizes = np.ones((n, 15))
    books = BookTicks(**_rows(n), seq=np.full(n, -1), bid_price=bid, bid_size=sizes, ask_price=ask,
                      ask_size=sizes)  # fmt: skip
    none = np.empty(0)
    trades = TradeTicks(**_rows(0), trade_id=np.empty(0, np.int64), price=none, size=none,
                        side=np.empty(0, np.int8))  # fmt: skip
    tickers = TickerTicks(**_rows(0), last=none, bid=none, ask=none, bid_size=none, ask_size=none,
                          mark=none, index=none, funding_rate=none, next_funding_ms=np.empty(0, np.int64),
                          open_interest=none, base_volume_24h=none, quote_volume_24h=none)  # fmt: skip

    begin_ns = (START_S - BEFORE_S) * NS
    block = block_of(books, trades, tickers, begin_ns, (START_S + 60) * NS, lambda table: table.exch_ns)

    assert block.mark.tolist() == [100.0, 101.0]
    assert (block.mark_ns // NS).tolist() == [START_S, START_S + 2]


def test_block_is_as_deep_as_its_books(lake: tuple[Path, str]) -> None:
    """Levels that nobody has seen take no room; those that are kept are what was recorded."""
    folder, source = lake
    symbol = read.universe_at(folder, source, START_S * NS).symbols[0]
    books = read.read_ticks(folder, source, START_S * NS, (START_S + LENGTH_S) * NS, (symbol,)).books
    shallow = msgspec.structs.replace(
        books,
        bid_price=np.where(np.arange(BOOK_LEVELS) < 5, books.bid_price, np.nan),
        ask_price=np.where(np.arange(BOOK_LEVELS) < 3, books.ask_price, np.nan),
    )
    ticks = read.read_ticks(folder, source, START_S * NS, (START_S + LENGTH_S) * NS, (symbol,))

    found = block_of(shallow, ticks.trades, ticks.tickers, 0, 1 << 62, lambda table: table.recv_ns)

    assert found.bids.shape[1:] == found.asks.shape[1:] == (5, 2)
    tells = np.isin(books.event, (TickEvent.DATA, TickEvent.CARRIED))
    assert (found.bids[:, :, 0] == books.bid_price[tells][:, :5]).all()
    assert np.isnan(found.asks[:, 3:, 0]).all()
