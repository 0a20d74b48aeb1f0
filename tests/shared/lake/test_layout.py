"""Paths, hashes and the way of a batch of receipts into a frame and back."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SettingsError
from shared.features.sampler import COLUMNS
from shared.lake import layout
from shared.types import NS, TickEvent
from tests.shared.lake import receipts as r


def test_partition_path_is_utc_and_hive() -> None:
    """An epoch hour becomes the date and hour of UTC, the last part of the table's name the file."""
    path = layout.partition_path(Path("lake"), "raw/book", "bitget", 489_000 + 25)

    assert path == Path("lake/raw/book/source=bitget/date=2025-10-15/hour=01/book.parquet")


@given(hour=st.integers(0, 1_000_000))
def test_hours_below_inverts_partition_path(hour: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every epoch hour is found again in its folder."""
    root = tmp_path_factory.mktemp("lake")
    layout.partition_path(root, "seconds", r.SOURCE, hour).parent.mkdir(parents=True)
    (root / "seconds" / f"source={r.SOURCE}" / "date=yesterday" / "hour=xx").mkdir(parents=True)

    assert layout.hours_below(root / "seconds" / f"source={r.SOURCE}") == [hour]


@pytest.mark.parametrize("name", ["", "..", "a/b", "source=x", "龙", "a b", ".wal"])
def test_check_name_refuses_what_is_no_folder_name(name: str) -> None:
    """A source, session or part that would leave its folder is refused."""
    with pytest.raises(SettingsError, match="rename"):
        layout.check_name(name, "source")


def test_every_table_has_its_key_and_time_among_its_columns() -> None:
    """A table's key and time are columns of it, and the leaf names of tables are unique."""
    for table in layout.TABLES.values():
        assert set(table.key) | {table.time} <= set(table.columns)
    assert len({table.leaf for table in layout.TABLES.values()}) == len(layout.TABLES)
    assert list(layout.TABLES["seconds"].columns) == ["second", "symbol", *COLUMNS]


@given(seed=st.integers(0, 50), seconds=st.integers(0, 3))
def test_rows_survive_the_way_into_a_frame_and_back(seed: int, seconds: int) -> None:
    """A batch stored as a frame comes back bit for bit, absent levels and unknown fields included."""
    start_ns = r.HOUR * r.HOUR_NS
    ticks = r.concat(
        [r.links(TickEvent.SUBSCRIBED, start_ns), r.receipts(seed, start_ns, start_ns + seconds * NS, per_s=2.0)]
    )

    for table, rows in (("raw/book", ticks.books), ("raw/trade", ticks.trades), ("raw/ticker", ticks.tickers)):
        frame = layout.rows_to_frame(table, rows, r.SYMBOLS)
        back = layout.frame_to_rows(table, frame, r.SYMBOLS)

        assert dict(frame.schema) == dict(layout.TABLES[table].columns)
        assert r.same_rows(rows, back, ignore=())


def test_frame_to_rows_leaves_other_symbols_out() -> None:
    """Rows of symbols that are not on the axis are left out, the others keep their order."""
    ticks = r.receipts(1, r.HOUR * r.HOUR_NS, r.HOUR * r.HOUR_NS + 3 * NS)
    frame = layout.rows_to_frame("raw/trade", ticks.trades, r.SYMBOLS)

    some = layout.frame_to_rows("raw/trade", frame, r.SYMBOLS[1:3])

    assert r.same_rows(some, r.take(ticks.trades, (ticks.trades.symbol == 1) | (ticks.trades.symbol == 2)), ("symbol",))


def test_digest_depends_on_content_alone() -> None:
    """Chunking does not change the hash; one bit, the order of rows, a null and a name do."""
    frame = pl.DataFrame(
        {
            "s": ["a", "b", None, "a"],
            "x": [1.0, float("nan"), -0.0, None],
            "p": [b"", b"\0", None, b"\0\0"],
            "n": [1, 2, 3, 4],
        }
    )
    chunked = pl.concat([frame[:1], frame[1:3], frame[3:]], rechunk=False)
    others = [
        frame.reverse(),
        frame.rename({"x": "y"}),
        frame.with_columns(x=pl.Series([1.0, float("nan"), 0.0, None])),
        frame.with_columns(x=pl.Series([1.0, float("nan"), -0.0, 0.0])),
        frame.with_columns(s=pl.Series(["a", "b", None, "b"])),
        frame.with_columns(s=pl.Series(["a", "b", "", "a"])),
        frame.with_columns(p=pl.Series([b"\0", b"", None, b"\0\0"])),
        frame.with_columns(n=pl.Series([1, 2, 3, 4], dtype=pl.Int32)),
    ]

    assert layout.digest(chunked) == layout.digest(frame)
    assert len({layout.digest(other) for other in [frame, *others]}) == len(others) + 1


def test_conn_name_differs_by_session() -> None:
    """Connection 0 of one session is not connection 0 of another."""
    names = {layout.conn_name(session, conn) for session in ("a", "b", "c") for conn in range(100)}

    assert len(names) == 300
    assert all(0 <= name < 2**31 for name in names)


def test_folders_that_go_while_they_are_listed_are_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that lists hours while some of them are removed finds those that are left, not a missing folder."""
    for hour in ("00", "01", "02"):
        path = tmp_path / "date=2026-11-22" / f"hour={hour}" / "book.parquet"
        path.parent.mkdir(parents=True)
        path.touch()
    scan, went = os.scandir, set[str]()

    def removed_under_us(path: str) -> object:
        if str(path).endswith("hour=01") and not went:
            went.add(str(path))
            shutil.rmtree(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", removed_under_us)

    found = layout.paths_below(tmp_path, "date=*/hour=*/*.parquet")

    assert went
    assert [path.parent.name for path in found] == ["hour=00", "hour=02"]
    assert layout.paths_below(tmp_path / "nothing", "*") == []
