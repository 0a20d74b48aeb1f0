"""Sealed files: whatever is cut, asked for or damaged, rows are those that were written or the file is named."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from shared.errors import LakeError
from shared.lake import layout, read, sealed, write
from shared.lake.layout import TABLES
from shared.lake.remote import MARKER
from tests.shared.lake import receipts as r

START_S = r.HOUR * layout.HOUR_S
SYMBOLS = tuple(f"{name}USDT" for name in ("AAA", "BBB", "CCC", "DDD", "EEE", "FFF", "龙虾"))


def seconds_frame(rows_of: list[int]) -> pl.DataFrame:
    """Return rows of `seconds`, so many a symbol, every value another one."""
    keys = [(START_S + s, symbol) for symbol, n in zip(SYMBOLS, rows_of, strict=False) for s in range(n)]
    frame = pl.DataFrame(keys, schema={"second": pl.Int64, "symbol": pl.String}, orient="row")
    noise = np.random.default_rng(1).normal(size=(len(TABLES["seconds"].columns), frame.height))
    return frame.with_columns(
        pl.Series(name, noise[c]) for c, name in enumerate(list(TABLES["seconds"].columns)[2:])
    ).select(list(TABLES["seconds"].columns))


def small_groups(monkeypatch: pytest.MonkeyPatch, table: str, rows: int) -> None:
    about = TABLES[table]
    changed = {name: getattr(about, name) for name in about.__struct_fields__} | {"group_rows": rows}
    monkeypatch.setitem(TABLES, table, layout.Table(**changed))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.DataFrame, bytes]:
    """Return a lake with one file of several row groups, its rows and its bytes."""
    root = tmp_path_factory.mktemp("sealed")
    frame = seconds_frame([9, 9, 9, 3, 20, 1, 9])
    with pytest.MonkeyPatch.context() as patch:
        small_groups(patch, "seconds", 9)
        path = write.write_table(root, "seconds", r.SOURCE, r.HOUR, frame, {"made": "here"}).path
    return root, frame, path.read_bytes()


def on_this_disk(root: Path) -> Path:
    """Return a folder that stands for no store: what is damaged here are bytes of a file."""
    (root / MARKER).unlink(missing_ok=True)
    return root


QUERIES = st.tuples(
    st.one_of(st.none(), st.lists(st.sampled_from([*SYMBOLS, "ZZZUSDT"]), min_size=1, max_size=3, unique=True)),
    st.lists(st.sampled_from(["second", "symbol", "mark", "mid_low", "bid_price_1"]), min_size=1, unique=True),
    st.one_of(st.none(), st.integers(-2, 21)),
    st.one_of(st.none(), st.integers(-2, 21)),
)


def expected(
    frame: pl.DataFrame, symbols: list[str] | None, columns: list[str], start: int | None, end: int | None
) -> pl.DataFrame:
    """Return what a query must give, by polars alone."""
    rows = frame.lazy()
    if symbols is not None:
        rows = rows.filter(pl.col("symbol").is_in(symbols))
    if start is not None:
        rows = rows.filter(pl.col("second") >= START_S + start)
    if end is not None:
        rows = rows.filter(pl.col("second") < START_S + end)
    return rows.sort("second", "symbol").select(columns).collect()


def asked(
    root: Path, symbols: list[str] | None, columns: list[str], start: int | None, end: int | None
) -> pl.DataFrame:
    return read.collect(
        read.scan(
            root,
            "seconds",
            r.SOURCE,
            start_s=START_S if start is None else START_S + max(start, 0),
            end_s=None if end is None else START_S + max(end, 1),
            symbols=symbols,
        ).select(columns)
    )


@settings(max_examples=60, deadline=None)
@given(query=QUERIES)
def test_scan_gives_what_polars_gives_of_all_rows(small: tuple[Path, pl.DataFrame, bytes], query: tuple) -> None:  # type: ignore[type-arg]
    """Whatever symbols, columns and seconds are asked for, row groups left out held nothing of them."""
    root, frame, _ = small
    symbols, columns, start, end = query
    start, end = (None if start is None else max(start, 0)), (None if end is None else max(end, 1))

    assert_frame_equal(asked(root, *query), expected(frame, symbols, columns, start, end))


@settings(max_examples=150, deadline=None)
@given(data=st.data(), query=QUERIES)
@pytest.mark.filterwarnings("ignore")
def test_flipped_bit_is_named_or_harmless(
    small: tuple[Path, pl.DataFrame, bytes],
    data: st.DataObject,
    query: tuple,  # type: ignore[type-arg]
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whichever bit of a file is flipped, a query names the file or gives the rows that were written; so does verify.

    `verify` finds every bit but those of what other tools alone read.
    """
    _, frame, whole = small
    root = on_this_disk(tmp_path_factory.mktemp("flipped"))
    path = layout.partition_path(root, "seconds", r.SOURCE, r.HOUR)
    path.parent.mkdir(parents=True)
    at = data.draw(st.integers(0, len(whole) - 1), label="byte")
    content = bytearray(whole)
    content[at] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    path.write_bytes(bytes(content))
    symbols, columns, start, end = query
    start, end = (None if start is None else max(start, 0)), (None if end is None else max(end, 1))

    try:
        rows = asked(root, *query)
    except LakeError as error:
        assert path.name in str(error)  # noqa: PT017 - either this or rows
    else:
        assert_frame_equal(rows, expected(frame, symbols, columns, start, end))
    with pytest.raises(LakeError, match=path.name):
        read.verify(path)


def test_damage_between_two_stretches_costs_nothing(small: tuple[Path, pl.DataFrame, bytes], tmp_path: Path) -> None:
    """Two stretches of one file are read by themselves: polars would like to read the file once, unchecked parts too."""
    _, frame, whole = small
    path = layout.partition_path(on_this_disk(tmp_path), "seconds", r.SOURCE, r.HOUR)
    path.parent.mkdir(parents=True)
    content = bytearray(whole)
    content[5] ^= 1  # the first page's header, in a row group that the query leaves out
    path.write_bytes(bytes(content))
    symbols, columns = ["EEEUSDT", "龙虾USDT"], ["second", "symbol", "mark"]

    rows = asked(tmp_path, symbols, columns, None, 3)

    assert_frame_equal(rows, expected(frame, symbols, columns, None, 3))


def test_damage_elsewhere_costs_nothing(small: tuple[Path, pl.DataFrame, bytes], tmp_path: Path) -> None:
    """What is not read is not looked at: other columns and other symbols of a damaged file can be had."""
    _, frame, whole = small
    path = layout.partition_path(on_this_disk(tmp_path), "seconds", r.SOURCE, r.HOUR)
    path.parent.mkdir(parents=True)
    path.write_bytes(whole)
    found = sealed.index(path)
    content = bytearray(whole)
    content[found.offsets[0, found.columns.index("mark")] + 20] ^= 1
    path.write_bytes(bytes(content))

    assert asked(tmp_path, None, ["symbol", "last"], None, None).height == frame.height
    assert asked(tmp_path, ["EEEUSDT"], ["mark"], None, None).height == 20
    with pytest.raises(LakeError, match="in column mark of row group 0"):
        asked(tmp_path, ["AAAUSDT"], ["mark"], None, None)


@settings(max_examples=25, deadline=None)
@given(
    rows_of=st.lists(st.integers(0, 30), min_size=1, max_size=7),
    cuts=st.lists(st.integers(0, 120), max_size=5),
    size=st.integers(3, 40),
)
def test_file_does_not_depend_on_how_its_rows_came(
    rows_of: list[int], cuts: list[int], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Rows given in any pieces make the same row groups and hash, and no small symbol is parted."""
    frame = seconds_frame(rows_of).select(
        "second", "symbol", pl.lit(0, pl.Int8).alias("label"), long_bps="mark", short_bps="index", mid_bps="last"
    )
    folder = tmp_path_factory.mktemp("pieces")
    at = [0, *sorted(min(cut, frame.height) for cut in cuts), frame.height]
    with pytest.MonkeyPatch.context() as patch:
        small_groups(patch, "labels", size)
        hashes = []
        for name, borders in (("whole", [0, frame.height]), ("pieces", at)):
            with sealed.Writer(folder / name, "labels", frame.schema) as writer:
                for begin, end in pairwise(borders):
                    writer.append(frame[begin:end])
                hashes.append(writer.finish(r.SOURCE, r.HOUR, {}).content_hash)

    whole, pieces = sealed.index(folder / "whole"), sealed.index(folder / "pieces")
    assert (folder / "whole").read_bytes() == (folder / "pieces").read_bytes()
    assert hashes[0] == hashes[1] == layout.digest(frame)
    assert sealed.verify(folder / "whole") == whole.footer
    assert_frame_equal(sealed.read(pieces), frame)
    assert (pieces.rows <= 2 * size).all()
    assert pieces.symbols is not None
    parted = {low[1] for low, high in pairwise(pieces.symbols) if low[1] == high[0]}
    assert all(rows_of[SYMBOLS.index(symbol)] > size for symbol in parted)


def test_any_parquet_reader_reads_it(small: tuple[Path, pl.DataFrame, bytes]) -> None:
    """The index in front of the footer does not disturb polars, Arrow or DuckDB, and our words are in the metadata."""
    from pyarrow import parquet

    duckdb = pytest.importorskip("duckdb")
    root, frame, _ = small
    path = layout.partition_path(root, "seconds", r.SOURCE, r.HOUR)

    assert_frame_equal(pl.read_parquet(path, hive_partitioning=False), frame)
    assert parquet.read_table(path).num_rows == frame.height
    assert duckdb.read_parquet(str(path)).sum("mark").fetchall()[0][0] == pytest.approx(frame["mark"].sum())
    assert '"made":"here"' in pl.read_parquet_metadata(path)[layout.FOOTER_KEY]
