"""Removing an hour: all of it at once for a reader, whenever the remover dies; in a folder and in a store."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from shared.errors import LakeError, TableEmpty
from shared.lake import layout, read, removal, write
from shared.lake.layout import RAW
from shared.lake.remote import remote_of
from shared.types import NS
from tests.shared.lake import receipts as r
from tests.shared.lake.conftest import stand_for
from tests.shared.lake.test_wal import START_NS
from tests.shared.lake.test_write import record, seconds_frame

TABLES = (*RAW, "seconds", "quarantine")
HOURS = (r.HOUR, r.HOUR + 1)


class Killed(BaseException):
    """What a kill is in a test: nothing of ours handles it."""


def fill(root: Path, hours: tuple[int, ...] = HOURS) -> None:
    """Write hours of raw rows and seconds, and a quarantine of two parts in the first."""
    for hour in hours:
        start_ns = START_NS + (hour - r.HOUR) * r.HOUR_NS
        record(root, f"s{hour}", start_ns, start_ns + 2 * NS)
        write.seal(root, r.SOURCE, hour)
        write.write_table(root, "seconds", r.SOURCE, hour, seconds_frame(hour), {})
    for part in ("a", "b"):
        frame = pl.DataFrame(
            [(START_NS, part, "books15 push", "unknown field", "{}", 1)],
            schema=dict(layout.TABLES["quarantine"].columns),
            orient="row",
        )
        write.write_table(root, "quarantine", r.SOURCE, r.HOUR, frame, {}, part=part)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("filled") / "lake"
    fill(root)
    return root


@pytest.fixture(params=["folder", "store"])
def lake(request: pytest.FixtureRequest, filled: Path, tmp_path: Path) -> Path:
    """Return a lake of its own with two hours in it."""
    root = tmp_path / "lake"
    if request.param == "folder":
        shutil.copytree(filled, root)
        return root
    s3: str = request.getfixturevalue("s3")
    fill(stand_for(root, f"{s3}/{uuid.uuid4()}/lake"))
    return root


def remove(root: Path, tables: tuple[str, ...] = TABLES) -> int:
    with write.hour_lock(root, r.SOURCE, r.HOUR):
        return removal.remove(root, r.SOURCE, r.HOUR, tables)


def whole(root: Path, hour: int = r.HOUR) -> dict[str, pl.DataFrame]:
    """Return table -> rows of an hour, of the tables that have it."""
    return {
        table: read.collect(read.scan(root, table, r.SOURCE, start_s=hour * 3600, end_s=(hour + 1) * 3600))
        for table in TABLES
        if hour in read.hours(root, table, r.SOURCE)
    }


def left_of(root: Path) -> list[Path]:
    """Return what lies in the places of unfinished work."""
    return [path for name in (".tmp", removal.FOLDER) for path in (root / name).rglob("*")]


def test_hour_is_removed_and_nothing_else(lake: Path) -> None:
    """The tables that were named lose that hour, its bytes are counted, no trace stays, the other rows are the same."""
    other, seconds = whole(lake, HOURS[1]), whole(lake)["seconds"]
    sizes = sum(sum(removal.files(lake, table, r.SOURCE, r.HOUR)[r.HOUR].values()) for table in RAW)

    freed = remove(lake, tuple(RAW))

    assert freed == sizes > 0
    assert [read.hours(lake, table, r.SOURCE) for table in (*RAW, "seconds")] == [[HOURS[1]]] * 3 + [list(HOURS)]
    assert whole(lake)["seconds"].equals(seconds)
    assert all(rows.equals(other[table]) for table, rows in whole(lake, HOURS[1]).items())
    assert left_of(lake) == []
    assert not (lake / layout.partition_path(lake, "raw/book", r.SOURCE, r.HOUR).parent).exists()
    assert remove(lake, tuple(RAW)) == 0
    with pytest.raises(TableEmpty, match="must hold the hour"):
        read.content_hash(lake, "raw/book", r.SOURCE, [r.HOUR])


def test_kill_at_any_step_leaves_all_of_the_hour_or_nothing(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the remover dies, readers find every table of the hour as it was, or none; the next writer finishes."""
    before, other = whole(lake), whole(lake, HOURS[1])
    n_files = sum(len(removal.files(lake, table, r.SOURCE, r.HOUR)[r.HOUR]) for table in TABLES)
    outcomes = []
    steps = range(n_files + 2)  # before the marker, before each file, before the marker's end
    if remote_of(lake) is not None:
        steps = range(0, n_files + 2, 3)  # slow, and there is nothing else between two objects than between two files
    for step in steps:
        with monkeypatch.context() as patch:
            countdown = iter(range(step, -1, -1))

            def dying(act: Callable[..., Any], left: Any = countdown) -> Callable[..., Any]:
                def do(*args: Any, **kwargs: Any) -> Any:
                    if next(left) == 0:
                        raise Killed
                    return act(*args, **kwargs)

                return do

            patch.setattr(removal, "_unlink", dying(removal._unlink))
            patch.setattr(removal, "_publish", dying(removal._publish))
            with pytest.raises(Killed):
                remove(lake)

        found = whole(lake)
        outcomes.append(bool(found))
        if found:
            assert all(rows.equals(before[table]) for table, rows in found.items())
            assert found.keys() == before.keys()
            continue
        assert removal.begun(lake, r.SOURCE) == [r.HOUR]
        with pytest.raises(TableEmpty):
            read.read_ticks(lake, r.SOURCE, START_NS, START_NS + r.HOUR_NS, r.SYMBOLS)
        assert all(rows.equals(other[table]) for table, rows in whole(lake, HOURS[1]).items())
        if step == 3:  # new rows of the hour never meet what is left of the old ones
            write.write_table(lake, "seconds", r.SOURCE, r.HOUR, seconds_frame(r.HOUR, value=2.0), {})
            assert whole(lake).keys() == {"seconds"}
            assert whole(lake)["seconds"]["bid_price_1"][0] == 2.0
        with write.hour_lock(lake, r.SOURCE, r.HOUR):
            pass
        assert not removal.begun(lake, r.SOURCE)
        assert not left_of(lake)
        remove(lake)
        fill(lake, (r.HOUR,))

    assert outcomes == [True] + [False] * (len(steps) - 1)


def test_new_log_of_a_half_removed_hour_is_read_alone(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that come for an hour whose remover died are all that a reader, and then the seal, find."""
    with monkeypatch.context() as patch:
        patch.setattr(removal, "finish", lambda *_: None)
        remove(lake, tuple(RAW))
    log = record(lake, "late", START_NS + 5 * NS, START_NS + 6 * NS, seed=3, is_closed=False)
    expected = [read.raw_hour(lake, table, r.SOURCE, r.HOUR).frame for table in RAW]
    assert all((frame["recv_ns"] >= START_NS + 5 * NS).all() for frame in expected)

    log.abandon()
    write.seal(lake, r.SOURCE, r.HOUR)

    for table, rows in zip(RAW, expected, strict=True):
        sealed = read.raw_hour(lake, table, r.SOURCE, r.HOUR).frame
        assert sealed.filter(pl.col("event") != 3).equals(rows.filter(pl.col("event") != 3))  # the dead log's links end
    assert left_of(lake) == []


@pytest.mark.parametrize("is_killed", [False, True], ids=["done", "begun"])
@pytest.mark.parametrize("at", range(12))
def test_reader_of_several_tables_finds_all_or_an_error(at: int, is_killed: bool, filled: Path, tmp_path: Path) -> None:
    """However a removal falls between the listings and readings of tables, ticks are complete or refused."""
    lake = tmp_path / "lake"
    shutil.copytree(filled, lake)
    end_ns = START_NS + 2 * r.HOUR_NS
    complete = read.read_ticks(lake, r.SOURCE, START_NS, end_ns, r.SYMBOLS)
    rest = read.read_ticks(lake, r.SOURCE, START_NS + r.HOUR_NS, end_ns, r.SYMBOLS)
    calls = iter(range(100))

    def interrupted(act: Callable[..., Any]) -> Callable[..., Any]:
        def do(*args: Any) -> Any:
            if next(calls) == at:
                remove(lake)
            return act(*args)

        return do

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read, "hours", interrupted(read.hours))
        patch.setattr(removal, "marked", interrupted(removal.marked))
        if is_killed:
            patch.setattr(removal, "finish", lambda *_: None)
        try:
            found = read.read_ticks(lake, r.SOURCE, START_NS, end_ns, r.SYMBOLS)
        except TableEmpty as error:
            assert "removed" in str(error)  # noqa: PT017 - both outcomes are right
            return

    assert r.same(found, complete, ignore=()) or r.same(found, rest, ignore=())


def test_query_whose_files_go_says_so(lake: Path) -> None:
    """A lazy query that was made before a removal and is run after it is an error in one sentence."""
    query = read.scan(lake, "seconds", r.SOURCE)
    remove(lake)

    with pytest.raises(TableEmpty, match="removed"):
        read.collect(query)
    assert read.collect(read.scan(lake, "seconds", r.SOURCE))["second"].min() == HOURS[1] * 3600


def test_disk_that_refuses_is_one_sentence(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without permission the hour is gone for readers, the message says what to do, and a later run finishes."""
    lake = tmp_path / "lake"
    shutil.copytree(filled, lake)

    def refused(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(removal, "sync_folder", refused)
        with pytest.raises(LakeError, match="restore the permission"):
            remove(lake)

    with write.hour_lock(lake, r.SOURCE, r.HOUR):
        pass
    assert whole(lake) == {}
    assert left_of(lake) == []
