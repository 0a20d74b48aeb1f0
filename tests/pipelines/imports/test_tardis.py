"""Tardis' files: what they carry gives the very seconds of a recording, and what is wrong with one is said."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipelines.imports import landing
from pipelines.imports.__main__ import main
from pipelines.prepare import prepare
from pipelines.seconds import drop_before, sample
from shared.features.sampler import COLUMNS
from shared.lake import coverage, layout, read, wal, write
from shared.lake.layout import RAW
from shared.types import NS, TickEvent, Ticks
from tests.pipelines.conftest import World
from tests.pipelines.imports import writers

SOURCE = "import-tardis-bitget-futures"
MARGIN_S = 120
N_SYMBOLS = 3
NOT_TOLD = {"quote_volume_24h_usdt"}


@pytest.fixture(scope="module")
def symbols(world: World) -> tuple[str, ...]:
    """Return the busiest symbols, a Chinese one among them where there is one."""
    rows = read.read_ticks(world.lake, world.source, world.start_s * NS, world.end_s * NS, _all(world)).trades
    counts = np.bincount(rows.symbol, minlength=len(_all(world)))
    return tuple(sorted(_all(world)[n] for n in np.argsort(-counts)[:N_SYMBOLS].tolist()))


def _all(world: World) -> tuple[str, ...]:
    return read.universe_between(world.lake, world.source, world.start_s * NS, world.end_s * NS).symbols


@pytest.fixture(scope="module")
def window(world: World) -> tuple[int, int]:
    """Return eight minutes across the border of an hour."""
    border_s = world.hours[1] * 3600
    return border_s - 240, border_s + 240


@pytest.fixture(scope="module")
def ticks(world: World, symbols: tuple[str, ...], window: tuple[int, int]) -> Ticks:
    return read.read_ticks(world.lake, world.source, window[0] * NS, window[1] * NS, symbols)


def told(result: str) -> dict[str, Any]:
    return json.loads(result.strip().splitlines()[-1])  # type: ignore[no-any-return]


def run(lake: Path, *arguments: object) -> int:
    return main([*map(str, arguments), "--lake", str(lake)])


def hashes(lake: Path, source: str = SOURCE) -> list[str]:
    return [read.content_hash(lake, table, source, read.hours(lake, table, source)) for table in RAW]


@pytest.mark.parametrize("books", list(writers.BOOKS))
def test_seconds_of_an_import_are_those_of_the_recording(
    world: World, symbols: tuple[str, ...], window: tuple[int, int], ticks: Ticks, tmp_path: Path, books: str
) -> None:
    """Generated rows, written as Tardis writes and imported, give the same seconds bit for bit in what is told."""
    lake = tmp_path / "lake"
    files = writers.tardis(tmp_path / "files", ticks, symbols, books)

    assert run(lake, "tardis", *files) == 0

    # Links of an import begin with a channel's first row and end with its last: compare where all of them are up.
    spans = [
        rows.recv_ns[writers.data_of(rows, n)]
        for rows in (ticks.books, ticks.trades, ticks.tickers)
        for n in range(len(symbols))
    ]
    start_s, end_s = max(int(at[0]) for at in spans) // NS + 1, min(int(at[-1]) for at in spans) // NS
    assert start_s < window[0] + MARGIN_S
    assert end_s > window[1] - MARGIN_S
    # From where the links begin: they are told once.
    expected = drop_before(sample(world.lake, world.source, world.start_s, end_s, symbols)[1], start_s)
    found = drop_before(sample(lake, SOURCE, window[0], end_s, symbols)[1], start_s)
    for name in COLUMNS:
        if name not in NOT_TOLD:
            np.testing.assert_array_equal(found.columns[name], expected.columns[name], err_msg=name)
    assert np.isnan(found.columns["quote_volume_24h_usdt"]).all()
    assert np.nansum(found.columns["buy_count"]) > 0


def test_importing_twice_changes_nothing(ticks: Ticks, symbols: tuple[str, ...], tmp_path: Path) -> None:
    """The same files again, and again one by one, leave every content hash, link and universe as they are."""
    lake = tmp_path / "lake"
    files = writers.tardis(tmp_path / "files", ticks, symbols[:2])
    assert run(lake, "tardis", tmp_path / "files") == 0
    before, listed = hashes(lake), read.universe_at(lake, SOURCE, 2**62)

    assert run(lake, "tardis", *files, *files) == 0
    assert run(lake, "tardis", *files[:3]) == 0

    assert hashes(lake) == before
    assert read.universe_at(lake, SOURCE, 2**62) == listed
    assert not list((lake / ".wal").rglob("*.arrow"))


def test_import_can_be_built_on(ticks: Ticks, symbols: tuple[str, ...], tmp_path: Path) -> None:
    """Seconds, features and labels are made of an import as of a recording; coverage knows when nobody listened."""
    lake = tmp_path / "lake"
    writers.tardis(tmp_path / "files", ticks, symbols)
    assert run(lake, "tardis", tmp_path / "files") == 0

    prepare(lake, SOURCE, slippage_bps=2.0)
    hour = read.hours(lake, "raw/book", SOURCE)[0]
    covered = coverage.compute(lake, SOURCE, hour)

    assert read.collect(read.scan(lake, "features", SOURCE)).height > 0
    assert read.collect(read.scan(lake, "labels", SOURCE).filter(pl.col("label").is_not_null())).height > 0
    books = covered.filter((pl.col("channel") == "book") & (pl.col("symbol") == symbols[0])).sort("minute")
    states = books["state"].to_list()
    assert set(states[:55]) == {coverage.GAP}
    assert set(states[57:]) == {coverage.COMPLETE}


def test_rules_are_seen_or_taken_from_a_source(
    world: World, ticks: Ticks, symbols: tuple[str, ...], tmp_path: Path
) -> None:
    """Tick and step are the finest decimals of the rows; with --rules they are those of a source that knows them."""
    lake = tmp_path / "lake"
    files = writers.tardis(tmp_path / "files", ticks, symbols[:1])
    assert run(lake, "tardis", *files) == 0
    seen = read.universe_at(lake, SOURCE, 2**62).contracts[0]
    listed = {contract.symbol: contract for contract in read.universe_at(world.lake, world.source, 2**62).contracts}
    write.write_universe(lake, read.universe_at(world.lake, world.source, 2**62))

    assert run(lake, "tardis", *files, "--source", "import-other", "--rules", world.source) == 0

    true = listed[symbols[0]]
    assert (seen.symbol, seen.tick, seen.status) == (symbols[0], true.tick, "normal")
    assert read.universe_at(lake, "import-other", 2**62).contracts == (true,)


def test_later_import_joins_the_universe(ticks: Ticks, symbols: tuple[str, ...], tmp_path: Path) -> None:
    """A symbol imported later, of an earlier time, is listed beside the ones before at every time."""
    lake = tmp_path / "lake"
    files = writers.tardis(tmp_path / "files", ticks, symbols)
    late = Ticks(
        *(_after(rows, ticks.books.recv_ns[-1] - 60 * NS) for rows in (ticks.books, ticks.trades, ticks.tickers))
    )
    assert run(lake, "tardis", *writers.tardis(tmp_path / "late", late, symbols[:1])) == 0

    assert run(lake, "tardis", *files[3:]) == 0

    hours = read.hours(lake, "raw/book", SOURCE)
    assert len(hours) == 2
    for hour in hours:
        found = read.universe_between(lake, SOURCE, hour * layout.HOUR_NS, (hour + 1) * layout.HOUR_NS)
        assert found.symbols == symbols
        assert all(u.symbols == symbols for u in read.universes_between(lake, SOURCE, 0, 2**62))


def _after(rows: Any, at_ns: int) -> Any:
    later = rows.recv_ns >= at_ns
    return type(rows)(**{field: getattr(rows, field)[later] for field in rows.__struct_fields__})


# ----------------------------------------------------------------------------------------------------- links

HOUR = 494_000
START_US = HOUR * 3_600_000_000


def trade_lines(*at_us: int, symbol: str = "AAAUSDT") -> list[str]:
    lines = [f"bitget-futures,{symbol},{us - 5000},{us},{us},buy,1.5,2" for us in at_us]
    return [f"{writers.HEAD},id,side,price,amount", *lines]


def quote_lines(*at_us: int) -> list[str]:
    lines = [f"bitget-futures,AAAUSDT,{us},{us},1,101,100,2" for us in at_us]
    return [f"{writers.HEAD},ask_amount,ask_price,bid_price,bid_amount", *lines]


def events(lake: Path, table: str) -> list[tuple[int, int]]:
    """Return (µs since the start, event) of every row, hour by hour."""
    found = []
    for hour in read.hours(lake, table, SOURCE):
        rows = read.raw_hour(lake, table, SOURCE, hour).frame
        found += [(at_ns // 1000 - START_US, event) for at_ns, event in rows.select("recv_ns", "event").iter_rows()]
    return found


def test_link_lasts_from_the_first_row_to_the_last_and_not_over_a_hole(tmp_path: Path) -> None:
    """A book that is silent for more than 30 s is a gap; the border of an hour is none; no hour is made of nothing."""
    second, hour_us = 1_000_000, 3_600_000_000
    at = [second, 30 * second, 61 * second, hour_us - second, hour_us + second, 4 * hour_us]
    writers.pack(tmp_path / "quotes.csv.gz", quote_lines(*(START_US + us for us in at)))

    assert run(tmp_path / "lake", "tardis", tmp_path / "quotes.csv.gz") == 0

    up, down, carried, data = (
        int(event) for event in (TickEvent.SUBSCRIBED, TickEvent.DISCONNECTED, TickEvent.CARRIED, TickEvent.DATA)
    )
    assert events(tmp_path / "lake", "raw/book") == [
        (second, up), (second, data), (30 * second, data), (30 * second, down),
        (61 * second, up), (61 * second, data), (61 * second, down),
        (hour_us - second, up), (hour_us - second, data),
        (hour_us, carried), (hour_us + second, data), (hour_us + second, down),
        (4 * hour_us, up), (4 * hour_us, data), (4 * hour_us, down),
    ]  # fmt: skip
    assert read.hours(tmp_path / "lake", "raw/book", SOURCE) == [HOUR, HOUR + 1, HOUR + 4]
    exch = read.raw_hour(tmp_path / "lake", "raw/book", SOURCE, HOUR).frame["exch_ns"].to_list()
    assert set(exch) == {0}  # equal stamps mean that the exchange sent none


def test_days_in_one_run_have_no_seam(tmp_path: Path) -> None:
    """Two files that follow one another are one stretch: the link does not end at midnight."""
    writers.pack(tmp_path / "b.csv.gz", quote_lines(START_US + 10, START_US + 20))
    writers.pack(tmp_path / "a.csv.gz", quote_lines(START_US - 20, START_US - 10))

    assert run(tmp_path / "lake", "tardis", tmp_path) == 0

    downs = [at for at, event in events(tmp_path / "lake", "raw/book") if event == TickEvent.DISCONNECTED]
    assert downs == [20]


def test_message_of_trades_is_put_oldest_first_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trades of one push are ordered by time and id even where the block of text that is read ends among them."""
    monkeypatch.setattr("pipelines.imports.files.BLOCK_BYTES", 150)  # two lines and a bit
    pushes = [range(first, first + 7) for first in range(0, 42, 7)]  # ids of seven trades a push
    lines = [
        f"bitget-futures,AAAUSDT,{START_US + trade_id},{START_US + 1_000_000 + push[0]},{trade_id},buy,1.5,2"
        for push in pushes
        for trade_id in reversed(push)  # newest first, as Bitget sends them
    ]
    writers.pack(tmp_path / "trades.csv.gz", [f"{writers.HEAD},id,side,price,amount", *lines])

    assert run(tmp_path / "lake", "tardis", tmp_path / "trades.csv.gz") == 0

    frame = read.raw_hour(tmp_path / "lake", "raw/trade", SOURCE, HOUR).frame.filter(pl.col("event") == 0)
    assert frame["trade_id"].to_list() == list(range(42))


# ------------------------------------------------------------------------------------------------------ bad files

GOOD = trade_lines(START_US, START_US + 1)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["exchange,symbol,timestamp", "a,b,1"], "must have the header of a kind that is known"),
        ([GOOD[0].replace("amount", "size"), *GOOD[1:]], "must have the header of a kind that is known"),
        (
            [line.replace("bitget-futures", "binance-futures") for line in GOOD],
            "must be of the exchange bitget-futures",
        ),
        ([GOOD[0], GOOD[2], GOOD[1]], "must be sorted by local_timestamp, found line 3"),
        ([*GOOD, GOOD[2].replace("AAAUSDT", "BBBUSDT")], "must hold symbol AAAUSDT in every row"),
        ([*GOOD, GOOD[2].replace("bitget-futures", "bitget")], "must hold exchange bitget-futures in every row"),
        ([*GOOD, GOOD[2].replace("1.5", "")], "must have a value in every cell of price"),
        ([*GOOD, GOOD[2].replace("1.5", "-1.5")], "must hold price above 0"),
        ([*GOOD, GOOD[2].replace("1.5", "many")], "must hold numbers where its header promises them"),
        ([*GOOD, GOOD[2].replace("buy", "bought")], "must name every trade buy or sell"),
        ([GOOD[0], GOOD[1].replace(str(START_US), str(START_US // 1000))], "must tell times in µs"),
    ],
)
def test_bad_file_is_named_and_leaves_nothing(
    lines: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong with a file is one sentence with its name, and none of its hour is in the lake."""
    path = writers.pack(tmp_path / "bad.csv.gz", lines)

    assert run(tmp_path / "lake", "tardis", path) == 2

    words = capsys.readouterr().err
    assert said in words
    assert str(path) in words
    assert read.sources(tmp_path / "lake") == []


def level_lines(*rows: str) -> list[str]:
    """Return incremental_book_L2 of rows "µs of receipt, µs of the exchange, is_snapshot, side, price, amount"."""
    found = []
    for row in rows:
        recv, exch, *cells = row.split()
        found.append(
            ",".join(["bitget-futures", "AAAUSDT", str(START_US + int(exch)), str(START_US + int(recv)), *cells])
        )
    return [f"{writers.HEAD},is_snapshot,side,price,amount", *found]


def test_messages_of_one_microsecond_stay_apart(tmp_path: Path) -> None:
    """A change and a snapshot, or two changes, that arrive together are books of their own, in their order."""
    lines = level_lines(
        "5 1 true bid 100 1", "5 1 true ask 101 1",
        "9 2 false bid 100 2",
        "9 3 false bid 100 0", "9 3 false bid 99 3",
        "9 4 true bid 90 4", "9 4 true ask 91 4",
    )  # fmt: skip
    path = writers.pack(tmp_path / "levels.csv.gz", lines)

    assert run(tmp_path / "lake", "tardis", path) == 0

    rows = read.raw_hour(tmp_path / "lake", "raw/book", SOURCE, HOUR).frame.filter(pl.col("event") == 0)
    tops = rows.select("bid_price_1", "bid_size_1", "ask_price_1", "ask_size_1").rows()
    assert tops == [(100, 1, 101, 1), (100, 2, 101, 1), (99, 3, 101, 1), (90, 4, 91, 4)]
    assert (rows["recv_ns"] // 1000 - START_US).to_list() == [5, 9, 9, 9]


@pytest.mark.parametrize("lines", [level_lines("1 1 true bid 100 -1"), level_lines("1 1 true bid 0 1"),
                                   [line.replace(",101,", ",-101,") for line in quote_lines(START_US)]])  # fmt: skip
def test_impossible_books_are_refused(lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A negative amount or price is no book."""
    assert run(tmp_path / "lake", "tardis", writers.pack(tmp_path / "bad.csv.gz", lines)) == 2
    assert "must hold prices" in capsys.readouterr().err


def test_torn_file_leaves_whole_hours_that_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file that is cut off, finished hours are sealed; the whole file imported later gives the whole lake."""
    monkeypatch.setattr("pipelines.imports.files.BLOCK_BYTES", 20_000)
    rng = np.random.Generator(np.random.Philox(5))
    at = (START_US + np.cumsum(rng.integers(1, 2_000_000, 9000))).tolist()
    whole = writers.pack(tmp_path / "whole.csv.gz", trade_lines(*at))
    torn = tmp_path / "torn.csv.gz"
    torn.write_bytes(whole.read_bytes()[:-2000])
    landing_lake, clean = tmp_path / "lake", tmp_path / "clean"

    assert run(landing_lake, "tardis", torn) == 2
    assert "must be whole, found EOFError" in capsys.readouterr().err
    hours = read.hours(landing_lake, "raw/trade", SOURCE)
    assert run(clean, "tardis", whole) == 0
    assert 0 < len(hours) < len(read.hours(clean, "raw/trade", SOURCE))
    assert run(landing_lake, "tardis", whole) == 0

    assert hashes(landing_lake) == hashes(clean)


def test_plain_empty_and_missing_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text that is not packed is read; a file of a day without data is passed over; one that is not there is said."""
    (tmp_path / "plain.csv").write_text("\n".join(GOOD) + "\n")
    (tmp_path / "empty.csv.gz").write_bytes(gzip.compress(b""))

    assert run(tmp_path / "lake", "tardis", tmp_path / "plain.csv", tmp_path / "empty.csv.gz") == 0
    assert told(capsys.readouterr().out)["rows"]["raw/trade"] == 2
    assert run(tmp_path / "lake", "tardis", tmp_path / "none.csv.gz") == 2
    assert "must be a file that can be read" in capsys.readouterr().err


def test_book_has_one_origin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two kinds of books of one symbol are not mixed, nor is one day given twice under two names."""
    writers.pack(tmp_path / "quotes.csv.gz", quote_lines(START_US))
    levels = [f"bitget-futures,AAAUSDT,{START_US},{START_US},true,bid,1,1"]
    writers.pack(tmp_path / "levels.csv.gz", [f"{writers.HEAD},is_snapshot,side,price,amount", *levels])
    assert run(tmp_path / "lake", "tardis", tmp_path) == 2
    assert "has one origin" in capsys.readouterr().err

    writers.pack(tmp_path / "levels.csv.gz", quote_lines(START_US - 5, START_US + 5))
    writers.pack(tmp_path / "quotes.csv.gz", quote_lines(START_US, START_US + 7))
    assert run(tmp_path / "lake", "tardis", tmp_path) == 2
    assert "import each day once" in capsys.readouterr().err


def test_book_has_one_origin_over_several_imports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Books of another kind are refused in an hour that has some; another symbol, hour or source takes them."""
    levels = [f"bitget-futures,AAAUSDT,{START_US},{START_US + 9},true,bid,1,1"]
    path = writers.pack(tmp_path / "levels.csv.gz", [f"{writers.HEAD},is_snapshot,side,price,amount", *levels])
    other = writers.pack(tmp_path / "other.csv.gz", [line.replace("AAA", "BBB") for line in quote_lines(START_US)])
    quotes = writers.pack(tmp_path / "quotes.csv.gz", quote_lines(START_US))
    assert run(tmp_path / "lake", "tardis", path) == 0
    before = hashes(tmp_path / "lake")

    assert run(tmp_path / "lake", "tardis", quotes) == 2
    assert "rows of another kind of file" in capsys.readouterr().err
    assert hashes(tmp_path / "lake") == before
    assert run(tmp_path / "lake", "tardis", other) == 0
    assert run(tmp_path / "lake", "tardis", quotes, "--source", "import-quotes") == 0


def test_import_is_never_mixed_with_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A source that is none of an import is refused before a file is read."""
    assert run(tmp_path, "tardis", tmp_path / "x.csv.gz", "--source", "bitget") == 2
    assert "must begin with import-" in capsys.readouterr().err


def test_killed_import_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a process that died between its hours the same command gives the lake of an undisturbed one."""
    at = [START_US + k * 20_000_000 for k in range(600)]
    path = writers.pack(tmp_path / "quotes.csv.gz", quote_lines(*at))
    lake, clean = tmp_path / "lake", tmp_path / "clean"
    assert run(clean, "tardis", path) == 0

    class Killed(BaseException):
        pass

    append, calls = wal.WriteAheadLog.append, itertools.count()

    def die(self: wal.WriteAheadLog, ticks: Ticks) -> None:
        append(self, ticks)
        if next(calls) == 2:
            self.flush()
            raise Killed

    def leave(self: landing._Symbol) -> None:
        assert self._log is not None
        self._log.abandon()

    with monkeypatch.context() as patch:
        patch.setattr(wal.WriteAheadLog, "append", die)
        patch.setattr(landing._Symbol, "drop", leave)
        patch.setattr(landing, "_seal", lambda *args: None)
        patch.setattr(landing, "_write_universe", lambda *args: None)
        with pytest.raises(Killed):
            run(lake, "tardis", path)
    assert list((lake / ".wal").rglob("*.arrow"))
    assert run(lake, "tardis", path) == 0

    assert hashes(lake) == hashes(clean)
    assert not list((lake / ".wal").rglob("*.arrow"))
