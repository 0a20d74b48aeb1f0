"""Generated history: what the market did, through the wire, into the lake; overlaps agree; bad input is one sentence."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipelines import generate
from shared.lake import coverage, read, write
from shared.lake.depth import books_at
from shared.lake.layout import HOUR_S, RAW
from shared.simulator.markets.market import GeneratedMarket, Market, depth_at
from shared.simulator.markets.recorded import RecordedMarket
from shared.types import NS, BookChannels, TickEvent, Ticks
from tests.shared.lake import receipts as r

BORDER_S = 489_000 * HOUR_S
N_SYMBOLS = 5
SOURCE = f"simulator-g3-{N_SYMBOLS}"
BOOKS15 = BookChannels("books15")


def run(lake: Path, start_s: int, end_s: int, books: BookChannels = BOOKS15) -> generate.Generated:
    return generate.generate(GeneratedMarket(3, N_SYMBOLS), lake, start_s, end_s, books=books)


def data(lake: Path, source: str = SOURCE, symbols: tuple[str, ...] = ()) -> Ticks:
    """Return every DATA row of a lake, on the axis of its universe."""
    symbols = symbols or read.universe_between(lake, source, 0, 2**62).symbols
    return r.only(read.read_ticks(lake, source, 0, 2**62, symbols), TickEvent.DATA)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a lake with 70 seconds across the border of an hour."""
    root = tmp_path_factory.mktemp("lake")
    run(root, BORDER_S - 40, BORDER_S + 30)
    return root


def test_history_is_what_the_market_did(lake: Path) -> None:
    """Every book and trade in the lake is the market's own, bit for bit, once a second and symbol, none is missing."""
    market = GeneratedMarket(3, N_SYMBOLS)
    ticks = data(lake, symbols=market.symbols)
    books, trades = ticks.books, ticks.trades

    assert len(books.recv_ns) == len(ticks.tickers.recv_ns) == 70 * N_SYMBOLS
    for row, (recv_ns, n) in enumerate(zip(books.recv_ns.tolist(), books.symbol.tolist(), strict=True)):
        depth = depth_at(market, recv_ns // NS)
        for field in ("bid_price", "bid_size", "ask_price", "ask_size"):
            assert np.array_equal(getattr(books, field)[row], getattr(depth, field)[n], equal_nan=True)
    told = []
    for second in range(BORDER_S - 40, BORDER_S + 30):
        block = market.block(second)
        t = second - block.first_second
        for i in range(int(block.trades.start[t]), int(block.trades.start[t + 1])):
            n = int(block.trades.symbol[i])
            price = block.trades.price_ticks[i] / market.price_scale[n]
            told.append((int(block.trades.trade_id[i]), n, price, second))
    stored = zip(
        trades.trade_id.tolist(),
        trades.symbol.tolist(),
        trades.price.tolist(),
        (trades.recv_ns // NS).tolist(),
        strict=True,
    )
    assert sorted(stored) == sorted(told)


def test_history_follows_each_symbol_on_its_own_book_channel(tmp_path: Path) -> None:
    """Five levels by default, fifteen or the full book where it is asked for; full books are kept change by change."""
    market = GeneratedMarket(3, N_SYMBOLS)
    five, fifteen, full = market.symbols[:3]
    done = run(tmp_path, BORDER_S - 20, BORDER_S + 20, BookChannels("books5", {fifteen: "books15", full: "books"}))
    ticks = data(tmp_path, symbols=market.symbols)

    assert done.rows["raw/depth"] > 0
    for symbol, n_levels in ((five, 5), (fifteen, 15), (full, 15)):
        n = market.symbols.index(symbol)
        rows = np.flatnonzero(ticks.books.symbol == n)
        assert len(rows) == 40 or symbol == full
        for row in rows.tolist():
            depth = depth_at(market, int(ticks.books.recv_ns[row]) // NS)
            for field in ("bid_price", "ask_size"):
                found, expected = getattr(ticks.books, field)[row], getattr(depth, field)[n]
                assert np.array_equal(found[:n_levels], expected[:n_levels], equal_nan=True)
                assert not np.nan_to_num(found[n_levels:]).any()
    times = [second * NS + NS - 1 for second in range(BORDER_S - 20, BORDER_S + 20)]
    for at_ns, book in zip(times, books_at(tmp_path, SOURCE, full, times), strict=True):
        depth, n = depth_at(market, at_ns // NS), market.symbols.index(full)
        assert book is not None
        for field in ("bid_price", "bid_size", "ask_price", "ask_size"):
            expected = getattr(depth, field)[n]
            n_there = int(np.isfinite(getattr(depth, field[:4] + "price")[n]).sum())
            assert np.array_equal(getattr(book, field), expected[:n_there])
    assert {row["symbol"] for row in rows_of_depth(tmp_path)} == {full}


def rows_of_depth(lake: Path) -> list[dict[str, Any]]:
    return read.collect(read.scan(lake, "raw/depth", SOURCE)).to_dicts()


def test_history_is_covered_from_its_first_instant(lake: Path) -> None:
    """Every channel is linked when the history begins: the sampler sees whole seconds from the first to the last."""
    from shared.features.sampler import Sampler

    symbols = read.universe_between(lake, SOURCE, 0, 2**62).symbols
    ticks = read.read_ticks(lake, SOURCE, 0, 2**62, symbols)

    seconds = Sampler(len(symbols), BORDER_S - 40).step(ticks, BORDER_S + 30)

    for name in ("buy_count", "book_updates", "ticker_updates", "bid_price_1", "mark"):
        assert np.isfinite(seconds.columns[name]).all(), name
    assert coverage.compute(lake, SOURCE, 489_000).filter(pl.col("state") == "complete").is_empty()  # 30 s of it


def test_universe_is_dated_at_start_and_border(lake: Path) -> None:
    """What is listed is known at the start and at every full hour, with tickers, and has the market's rules."""
    snapshots = read.universes_between(lake, SOURCE, 0, 2**62)
    table = read.scan(lake, "universe", SOURCE).collect()

    assert [universe.as_of_ns for universe in snapshots] == [(BORDER_S - 40) * NS, BORDER_S * NS]
    assert len(snapshots[0].contracts) == N_SYMBOLS
    assert all(contract.taker_fee == Decimal("0.0006") for contract in snapshots[0].contracts)
    assert table["mark"].is_not_null().all()
    assert table["mark"].is_finite().all()


def test_generating_again_changes_nothing(lake: Path, tmp_path: Path) -> None:
    """The same command on the same lake, or on another, leaves the same content."""
    hours = [488_999, 489_000]
    before = [read.content_hash(lake, table, SOURCE, hours) for table in RAW]

    again = run(lake, BORDER_S - 40, BORDER_S + 30)
    run(tmp_path, BORDER_S - 40, BORDER_S + 30)

    assert [read.content_hash(lake, table, SOURCE, hours) for table in RAW] == before
    assert [read.content_hash(tmp_path, table, SOURCE, hours) for table in RAW] == before
    assert sum(seal.duplicates for seal in again.seals) == sum(seal.rows for seal in again.seals)


def test_overlapping_histories_are_one(lake: Path, tmp_path: Path) -> None:
    """Two histories that overlap hold exactly the rows of one: in the overlap they agree to the nanosecond."""
    run(tmp_path, BORDER_S - 5, BORDER_S + 30)
    run(tmp_path, BORDER_S - 40, BORDER_S + 10)

    assert r.same(data(tmp_path), data(lake))


def test_killed_run_is_sealed_by_the_next(tmp_path: Path) -> None:
    """What a dead run left is sealed by the next one, and completed."""
    from pipelines.collector import Collector
    from shared.lake import wal_reading
    from shared.simulator.pushes.feed import HISTORY, PublicFeed

    market = GeneratedMarket(3, N_SYMBOLS)
    feed = PublicFeed(market, HISTORY)
    start_s, end_s = BORDER_S, BORDER_S + 20
    universe = generate.discover_virtually(market, feed, tmp_path, start_s, end_s)
    collector = Collector(tmp_path, universe, f"generate-{start_s}-{end_s}", from_ns=start_s * NS, books=BOOKS15)
    playback = generate.Playback(feed, collector)
    playback.connect(start_s - 5)
    for second in range(start_s - 5, start_s + 8):
        playback.tell(second)
    collector.write(collector.buffer.take(), (start_s + 8) * NS - 1)
    collector.log.abandon()  # as the kernel does for a killed process
    assert [log.state for log in wal_reading.find_logs(tmp_path, SOURCE, 489_000)] == ["dead"]

    done = run(tmp_path, start_s, end_s)

    assert len(data(tmp_path).books.recv_ns) == 20 * N_SYMBOLS
    assert write.unsealed(tmp_path, SOURCE) == []
    assert done.rows["raw/book"] == 20 * N_SYMBOLS


# -------------------------------------------------------------------------------------------- command line


def test_command_line_ends_with_a_json_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Progress goes to stderr; stdout is one line of JSON that a program can read."""
    arguments = ["--hours", "0.005", "--symbols", "2", "--lake", str(tmp_path), "--end", str(BORDER_S * NS)]

    code = generate.main(arguments)

    told = capsys.readouterr()
    (line,) = told.out.splitlines()
    found = json.loads(line)
    assert code == 0
    assert found["source"] == "simulator-g7-2"
    assert (found["start_s"], found["end_s"], found["hours"]) == (BORDER_S - 18, BORDER_S, ["2025-10-13 23:00Z"])
    assert found["rows"]["raw/book"] == 36
    assert "generated market" in found["note"]
    assert "sealed 2025-10-13 23:00Z" in told.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--hours", "0"], "--hours must be above 0"),
        (["--hours", "nan"], "--hours must be above 0"),
        (["--symbols", "0"], "found 0"),
        (["--predictability", "2"], "found 2"),
        (["--end", "yesterday"], "--end must be now or a time in epoch ns"),
        (["--end", "1760400000"], "--end must be now or a time in epoch ns"),
        (["--recording", "no/such/folder"], "recording"),
        (["--lake", "ftp://bucket/lake"], "LAKE_URI must be a folder"),
    ],
)
def test_wrong_input_is_one_sentence(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person got wrong is told in one line on stderr, and the exit code is not 0."""
    monkeypatch.setenv("LAKE_URI", str(tmp_path / "lake"))

    code = generate.main(arguments)

    told = capsys.readouterr()
    assert code != 0
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert says in told.err
    assert not (tmp_path / "lake").exists()


def test_lake_that_is_a_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A lake that is no folder is told in one line, before anything is generated."""
    (tmp_path / "lake").touch()

    code = generate.main(["--hours", "0.001", "--symbols", "1", "--lake", str(tmp_path / "lake")])

    told = capsys.readouterr()
    assert code == 2
    assert len(told.err.splitlines()) == 1
    assert "must be a folder" in told.err


# ---------------------------------------------------------------------------------------------- recordings


def recording(outside: Path) -> Path:
    return outside / "market" / "recordings" / "binance_usdm_20240718"


def test_recording_becomes_history(outside: Path, tmp_path: Path) -> None:
    """Three quarters of a recording end at the time asked for; what it does not know is NaN, not 0."""
    end_s = BORDER_S + 1800
    market: Market = RecordedMarket(recording(outside), end_s * NS)

    done = generate.generate(market, tmp_path, end_s - 120, end_s)

    ticks = data(tmp_path, done.source)
    assert done.source.startswith("simulator-binance_usdm_20240718-")
    assert 0.9 * 120 * 2 <= len(ticks.books.recv_ns) <= 120 * 2
    assert len(ticks.trades.recv_ns) > 100
    assert np.isnan(ticks.tickers.funding_rate).all()
    assert np.isfinite(ticks.tickers.mark).all()


def test_recording_at_another_time_is_another_source(outside: Path, tmp_path: Path) -> None:
    """A minute under two dates would be tested on what it was trained on: shifted to another time it is apart."""
    ends = (BORDER_S + 600, BORDER_S + 600, BORDER_S + 1200)
    sources = []
    for end_s in ends:
        market: Any = RecordedMarket(recording(outside), end_s * NS)
        sources.append(generate.generate(market, tmp_path, end_s - 60, end_s).source)

    assert sources[0] == sources[1] != sources[2]
    for source, end_s in zip(sources, ends, strict=True):
        seconds = data(tmp_path, source).books.recv_ns // NS
        assert seconds.min() >= end_s - 60
        assert seconds.max() < end_s
