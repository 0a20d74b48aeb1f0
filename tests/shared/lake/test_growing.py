"""Tables that grow: whatever comes, in whatever order and however often, a row keeps the values it first had."""

from __future__ import annotations

import uuid
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import SchemaMismatch, TableCorrupt
from shared.lake import layout, read, write
from tests.shared.lake.conftest import stand_for

HOUR, SOURCE = 494_000, "simulator-growing"
ROWS = [(HOUR * 3_600_000 + k * 900_000, symbol) for k in range(4) for symbol in ("AAAUSDT", "龙虾USDT")]


def frame(rows: list[tuple[int, str]], value: float = 1.0, interval_h: float | None = 8.0) -> pl.DataFrame:
    columns = [(ms, symbol, value * (ms % 7 + len(symbol)), interval_h) for ms, symbol in rows]
    return pl.DataFrame(columns, schema=dict(layout.TABLES["funding"].columns), orient="row")


def add(root: Path, rows: pl.DataFrame) -> write.Added:
    return write.add_rows(root, "funding", SOURCE, HOUR, rows, {"made_by": "test"})


def stored(root: Path) -> pl.DataFrame:
    return read.rows_of(layout.partition_path(root, "funding", SOURCE, HOUR))


@settings(max_examples=25)
@given(st.lists(st.lists(st.sampled_from(ROWS), unique=True), max_size=5))
def test_any_order_of_additions_gives_the_same_file(parts: list[list[tuple[int, str]]]) -> None:
    """However the rows of an hour come, once or often, the file holds each once, sorted, with one content hash."""
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        added = sum(add(Path(one), frame(part)).rows for part in parts)
        union = sorted({row for part in parts for row in part})
        add(Path(other), frame(union))

        assert added == len(union)
        if union:
            assert stored(Path(one)).equals(stored(Path(other)))
            hashes = {read.content_hash(Path(root), "funding", SOURCE, [HOUR]) for root in (one, other)}
            assert len(hashes) == 1
        else:
            assert read.hours(Path(one), "funding", SOURCE) == []


def test_another_value_is_a_conflict_and_changes_nothing(tmp_path: Path) -> None:
    """What is there stays: a row with the same key and other values comes back to be reported."""
    add(tmp_path, frame(ROWS[:4]))
    before = stored(tmp_path)

    done = add(tmp_path, frame(ROWS[2:6], value=2.0))

    assert done.rows == 2
    assert sorted(done.conflicts.select("settled_ms", "symbol").rows()) == sorted(ROWS[2:4])
    assert stored(tmp_path).join(before, on=["settled_ms", "symbol"], how="semi").equals(before)


def test_null_is_completed_once(tmp_path: Path) -> None:
    """A value that was not known is filled in, is not lost again, and may not change afterwards."""
    add(tmp_path, frame(ROWS[:1], interval_h=None))

    filled = add(tmp_path, frame(ROWS[:1], interval_h=4.0))
    unknown = add(tmp_path, frame(ROWS[:1], interval_h=None))
    other = add(tmp_path, frame(ROWS[:1], interval_h=8.0))

    assert (filled.rows, unknown.rows, other.rows) == (1, 0, 0)
    assert (filled.conflicts.height, unknown.conflicts.height, other.conflicts.height) == (0, 0, 1)
    assert stored(tmp_path)["interval_h"].to_list() == [4.0]


def test_unchanged_hour_is_not_written_again(tmp_path: Path) -> None:
    """Adding what is there touches no file."""
    add(tmp_path, frame(ROWS))
    path = layout.partition_path(tmp_path, "funding", SOURCE, HOUR)
    before = path.stat().st_mtime_ns

    assert add(tmp_path, frame(ROWS)).rows == 0
    assert path.stat().st_mtime_ns == before


def test_damaged_hour_is_not_added_to(tmp_path: Path) -> None:
    """A file whose bits have changed is named instead of being merged and hashed anew."""
    add(tmp_path, frame(ROWS))
    path = layout.partition_path(tmp_path, "funding", SOURCE, HOUR)
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)

    with pytest.raises(TableCorrupt):
        add(tmp_path, frame(ROWS[:1], value=3.0))


def test_other_columns_are_refused(tmp_path: Path) -> None:
    """Columns that are not the table's are an error, and leave no file."""
    with pytest.raises(SchemaMismatch):
        add(tmp_path, frame(ROWS).drop("rate"))

    assert not list(tmp_path.rglob("*.parquet"))


def test_two_machines_add_to_one_hour(tmp_path: Path, s3: str) -> None:
    """What one machine has added to a lake in a store, another one that never read it adds to."""
    uri = f"{s3}/{uuid.uuid4()}"
    here, there = stand_for(tmp_path / "here", uri), stand_for(tmp_path / "there", uri)
    add(here, frame(ROWS[:3]))
    add(there, frame(ROWS[3:5]))

    assert add(here, frame(ROWS)).rows == 3
    assert add(there, frame(ROWS)).rows == 0

    assert stored(there).height == len(ROWS)
    assert stored(there).equals(stored(here))
