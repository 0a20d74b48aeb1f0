"""Reading: ranges, axes and order; and what is said when there is nothing, or nothing good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import SchemaMismatch, TableCorrupt, TableEmpty
from shared.lake import layout, read, sealed, write
from shared.lake.layout import TABLES
from shared.types import NS, TickEvent
from tests.shared.lake import receipts as r
from tests.shared.lake.test_wal import START_NS, everything
from tests.shared.lake.test_write import record, seconds_frame

START_S = START_NS // NS


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a lake with one sealed hour, the same hour's later log, and an open next hour."""
    root = tmp_path_factory.mktemp("lake")
    border_ns = START_NS + r.HOUR_NS
    record(root, "sealed", border_ns - 20 * NS, border_ns - 10 * NS)
    write.seal(root, r.SOURCE, r.HOUR)
    record(root, "open", border_ns - 10 * NS, border_ns + 10 * NS, is_closed=False)
    for hour in (r.HOUR, r.HOUR + 1):
        write.write_table(root, "seconds", r.SOURCE, hour, seconds_frame(hour, value=float(hour)), {})
    return root


@settings(max_examples=20)
@given(begin=st.integers(-25, 12), length=st.integers(1, 30), first=st.integers(0, 3), count=st.integers(1, 4))
def test_read_ticks_gives_what_was_received_in_the_range(
    lake: Path, begin: int, length: int, first: int, count: int
) -> None:
    """Any range over sealed, unsealed and open hours gives the receipts of that range, on the axis asked for."""
    border_ns = START_NS + r.HOUR_NS
    start_ns, end_ns = border_ns + begin * NS, border_ns + (begin + length) * NS
    truth = r.between(r.receipts(1, border_ns - 20 * NS, border_ns + 10 * NS, per_s=1.0), start_ns, end_ns)
    wanted = r.SYMBOLS[first : first + count]

    got = r.only(read.read_ticks(lake, r.SOURCE, start_ns, end_ns, wanted), TickEvent.DATA)

    on_axis = r.map_tables(
        truth, lambda rows: r.take(rows, (rows.symbol >= first) & (rows.symbol < first + len(wanted)))
    )
    moved = r.map_tables(on_axis, lambda rows: msgspec.structs.replace(rows, symbol=rows.symbol - np.int32(first)))
    assert r.same(got, moved)


def test_scan_is_sorted_by_time_then_symbol(lake: Path) -> None:
    """Rows of every table come by time, then by the rest of the key."""
    for table in ("raw/book", "raw/trade", "seconds"):
        rows = read.scan(lake, table, r.SOURCE).collect()
        time = TABLES[table].time
        assert rows[time].is_sorted()
        assert rows.select(time, "symbol").equals(rows.select(time, "symbol").sort(time, "symbol"))


def test_scan_limits_time_and_symbols(lake: Path) -> None:
    """start_s is inclusive, end_s exclusive, and only the named symbols come."""
    rows = read.scan(
        lake, "seconds", r.SOURCE, start_s=START_S + 2, end_s=START_S + 3601, symbols=["ETHUSDT", "龙虾USDT"]
    ).collect()

    assert sorted(set(rows["second"])) == [START_S + 2, START_S + 3, START_S + 4, START_S + 3600]
    assert set(rows["symbol"]) == {"ETHUSDT", "龙虾USDT"}


def test_read_seconds_is_dense_on_the_axis(lake: Path) -> None:
    """Seconds and symbols without a row are NaN, the others stand where they belong."""
    seconds = read.read_seconds(lake, r.SOURCE, START_S + 3, START_S + 3602, ("NEWUSDT", "SOLUSDT"), ("mark",))

    mark = seconds.columns["mark"]
    assert mark.shape == (3599, 2)
    assert seconds.first_second == START_S + 3
    assert np.isnan(mark[:, 0]).all()
    assert np.flatnonzero(~np.isnan(mark[:, 1])).tolist() == [0, 1, 3597, 3598]
    assert mark[0, 1] == r.HOUR
    assert mark[-1, 1] == r.HOUR + 1


@settings(max_examples=40, deadline=None)
@given(
    n_seconds=st.integers(1, 6), n_symbols=st.integers(1, 4), absent=st.sets(st.integers(0, 23)),
    seed=st.integers(0, 9), is_in_order=st.booleans(), is_whole_number=st.booleans(),
)  # fmt: skip
def test_arrays_are_the_same_however_they_lie_in_memory(
    n_seconds: int, n_symbols: int, absent: set[int], seed: int, is_in_order: bool, is_whole_number: bool
) -> None:
    """Any rows, whole or not, in the file's order or in none, among symbols that nobody asked for: each in its cell."""
    symbols = tuple(f"{chr(65 + n)}USDT" for n in range(n_symbols))
    expected = np.arange(n_seconds * n_symbols, dtype=np.float64).reshape(n_seconds, n_symbols)
    expected.reshape(-1)[[cell for cell in absent if cell < expected.size]] = np.nan
    rows = [
        (10 + t, symbol, int(expected[t, n]) if is_whole_number else expected[t, n])
        for n, symbol in enumerate(symbols)
        for t in range(n_seconds)
        if np.isfinite(expected[t, n])
    ] + [(10, "ZUSDT", 7)]
    schema = {"second": pl.Int64, "symbol": pl.String, "value": pl.Int8 if is_whole_number else pl.Float64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    frame = frame if is_in_order else frame.sample(fraction=1.0, shuffle=True, seed=seed)

    memory = np.full((n_symbols, n_seconds), 99.0)
    found = read.to_arrays(frame, 10, 10 + n_seconds, symbols)["value"]
    placed = read.to_arrays(frame, 10, 10 + n_seconds, symbols, into={"value": memory})["value"]

    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(placed, expected)
    assert placed.base is memory


def test_symbols_of_tells_who_has_rows(lake: Path) -> None:
    """The symbols of a range are those that have rows in it."""
    assert read.symbols_of(lake, "seconds", r.SOURCE, start_s=START_S, end_s=START_S + 9) == r.SYMBOLS


def test_hours_and_sources_tell_what_is_there(lake: Path) -> None:
    """Sealed and open hours are listed, and folders that hold nothing are not."""
    (lake / "raw/book/source=empty/date=2025-01-01/hour=00").mkdir(parents=True, exist_ok=True)

    assert read.hours(lake, "raw/book", r.SOURCE) == [r.HOUR, r.HOUR + 1]
    assert read.hours(lake, "raw/book", "empty") == []
    assert read.hours(lake, "labels", r.SOURCE) == []
    assert r.SOURCE in read.sources(lake)


def test_empty_lake_says_what_to_run(tmp_path: Path) -> None:
    """Nothing where something was asked for is one sentence: what was expected, what is there, what to do."""
    with pytest.raises(TableEmpty, match=r"raw/trade of bitget.*sources here: none.*python -m pipelines\.generate"):
        read.scan(tmp_path, "raw/trade", "bitget")
    with pytest.raises(TableEmpty, match=r"pipelines\.collect"):
        read.read_ticks(tmp_path, "bitget", 0, NS, r.SYMBOLS)
    with pytest.raises(TableEmpty, match="Dagster"):
        read.read_seconds(tmp_path, "bitget", 0, 1, r.SYMBOLS)
    with pytest.raises(TableEmpty, match="universe"):
        read.universe_at(tmp_path, "bitget", 0)


def test_missing_range_names_it(lake: Path) -> None:
    """A range without an hour is named."""
    with pytest.raises(TableEmpty, match="hours from 2025-10-15 00:00Z to 2025-10-15 01:00Z"):
        read.scan(lake, "seconds", r.SOURCE, start_s=START_S + 86_400, end_s=START_S + 90_000)


# ------------------------------------------------------------------------------------------------- damage


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Return the one file of a small lake, for damaging."""
    return write.write_table(tmp_path, "seconds", r.SOURCE, r.HOUR, seconds_frame(r.HOUR, 200), {}).path


@pytest.mark.parametrize("keep", [0, 3, 1000, -1, -50])
def test_cut_file_is_named(keep: int, damaged: Path, tmp_path: Path) -> None:
    """A file that was cut anywhere is named, with what to do, before a query runs."""
    damaged.write_bytes(damaged.read_bytes()[:keep])

    for ask in (
        lambda: read.scan(tmp_path, "seconds", r.SOURCE),
        lambda: read.content_hash(tmp_path, "seconds", r.SOURCE, [r.HOUR]),
    ):
        with pytest.raises(
            TableCorrupt, match=r"seconds\.parquet must be a Parquet file.*delete it and build it again"
        ):
            ask()


@pytest.mark.parametrize("table", ["seconds", "raw/book", "raw/trade", "universe"])
def test_flipped_bits_reach_no_reader(table: str, tmp_path: Path) -> None:
    """A file whose values are others than were written is named by every way to read them, and no seal takes it over.

    It would catch reading without a check: of bits flipped in a page, most give wrong rows and no error.
    """
    record(tmp_path, "first", START_NS, START_NS + 20 * NS)
    write.seal(tmp_path, r.SOURCE, r.HOUR)
    write.write_table(tmp_path, "seconds", r.SOURCE, r.HOUR, seconds_frame(r.HOUR, 200), {})
    write.write_universe(tmp_path, r.universe(as_of_ns=START_NS))
    path = layout.partition_path(tmp_path, table, r.SOURCE, r.HOUR)
    damage = bytearray(path.read_bytes())
    last_chunk = sealed.index(path).offsets[0, -1]
    damage[last_chunk + sealed.index(path).lengths[0, -1] - 1] ^= 1
    path.write_bytes(damage)
    record(tmp_path, "second", START_NS + 20 * NS, START_NS + 30 * NS)
    end_s = START_S + 60
    ways: dict[str, list[Callable[[], object]]] = {
        "seconds": [
            lambda: read.scan(tmp_path, "seconds", r.SOURCE).collect(),
            lambda: read.read_seconds(tmp_path, r.SOURCE, START_S, end_s, r.SYMBOLS),
        ],
        "universe": [
            lambda: read.universe_at(tmp_path, r.SOURCE, START_NS),
            lambda: write.write_universe(tmp_path, r.universe(as_of_ns=START_NS + NS)),
        ],
    }
    of_raw: list[Callable[[], object]] = [
        lambda: read.scan(tmp_path, table, r.SOURCE).collect(),
        lambda: read.read_ticks(tmp_path, r.SOURCE, START_NS, end_s * NS, r.SYMBOLS),
        lambda: write.seal(tmp_path, r.SOURCE, r.HOUR),
    ]

    asked: list[Callable[[], object]] = [*ways.get(table, of_raw), lambda: read.verify(path)]
    for ask in asked:
        with pytest.raises(TableCorrupt, match=f"{path.name} must be .*, found other bytes than were written in 1 of"):
            ask()

    assert path.read_bytes() == damage
    assert table == "universe" or any(layout.log_folder(tmp_path, r.SOURCE, r.HOUR).iterdir())


def test_unreadable_page_is_one_sentence(damaged: Path, tmp_path: Path) -> None:
    """Where the footer is whole and the pages are not, the file is named too."""
    content = damaged.read_bytes()
    footer_bytes = int.from_bytes(content[-8:-4], "little") + 8
    damaged.write_bytes(b"PAR1" + b"\xff" * (len(content) - footer_bytes - 4) + content[-footer_bytes:])

    with pytest.raises(TableCorrupt, match=r"seconds\.parquet must be a Parquet file"):
        read.read_seconds(tmp_path, r.SOURCE, START_S, START_S + 9, r.SYMBOLS)


def test_strange_parquet_is_refused(damaged: Path, tmp_path: Path) -> None:
    """A Parquet file that this lake did not write is named, not read."""
    pl.DataFrame({"second": [1]}).write_parquet(damaged)

    with pytest.raises(TableCorrupt, match="no index of ours"):
        read.scan(tmp_path, "seconds", r.SOURCE)


def test_other_schema_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of another schema version is refused with both versions."""
    monkeypatch.setattr(sealed, "SCHEMA_VERSION", 99)
    write.write_table(tmp_path, "seconds", r.SOURCE, r.HOUR, seconds_frame(r.HOUR, 200), {})
    monkeypatch.undo()

    with pytest.raises(SchemaMismatch, match="version 2, found 99"):
        read.scan(tmp_path, "seconds", r.SOURCE)


def test_hours_of_other_features_are_refused_together(tmp_path: Path) -> None:
    """A query over hours whose feature columns differ names the hour and says what to rebuild."""
    for hour, name in ((r.HOUR, "a"), (r.HOUR + 1, "b")):
        frame = seconds_frame(hour).select("second", "symbol", pl.lit(1.0, pl.Float32).alias(name))
        write.write_table(tmp_path, "features", r.SOURCE, hour, frame, {})

    with pytest.raises(SchemaMismatch, match="same columns in every hour"):
        read.scan(tmp_path, "features", r.SOURCE)


def test_columns_of_an_earlier_version_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trades that were stored when their table had other columns are named with what to do, never read half."""
    now = layout.TABLES["backtests"]
    columns = dict(now.columns)
    before = {name: kind for name, kind in columns.items() if not name.endswith("_spread_usdt")}
    monkeypatch.setitem(
        layout.TABLES, "backtests", msgspec.structs.replace(now, columns=before | {"spread_usdt": pl.Float64})
    )
    write.write_table(
        tmp_path, "backtests", r.SOURCE, r.HOUR, pl.DataFrame(schema=dict(layout.TABLES["backtests"].columns)), {}
    )
    assert read.collect(read.scan(tmp_path, "backtests", r.SOURCE)).height == 0
    monkeypatch.undo()

    with pytest.raises(
        SchemaMismatch,
        match=r"backtests\.parquet, which has spread_usdt and lacks entry_spread_usdt, exit_spread_usdt: remove the "
        r"older files, or make them again \(python -m pipelines\.backtest\)",
    ):
        read.scan(tmp_path, "backtests", r.SOURCE)


def test_content_hash_follows_content(tmp_path: Path) -> None:
    """The same rows have the same hash wherever they lie; another value or hour has another; a gap is refused."""
    hashes = set()
    for root, value in ((tmp_path / "a", 1.0), (tmp_path / "b", 1.0), (tmp_path / "c", 2.0)):
        for hour in (r.HOUR, r.HOUR + 1):
            write.write_table(root, "seconds", r.SOURCE, hour, seconds_frame(hour, value=value), {"at": str(root)})
        hashes.add(read.content_hash(root, "seconds", r.SOURCE, [r.HOUR + 1, r.HOUR]))

    assert len(hashes) == 2
    assert read.content_hash(tmp_path / "a", "seconds", r.SOURCE, [r.HOUR]) not in hashes
    with pytest.raises(TableEmpty, match="02:00Z"):
        read.content_hash(tmp_path / "a", "seconds", r.SOURCE, [r.HOUR, r.HOUR + 2])


def test_everything_reads_both_hours(lake: Path) -> None:
    """The lake of these tests holds what they think it holds."""
    assert r.n_rows(r.only(everything(lake), TickEvent.CARRIED)) == 3 * len(r.SYMBOLS)
