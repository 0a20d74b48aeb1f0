"""Merging symbol range by symbol range, with runs on disk, gives the rows of merging everything at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import TableCorrupt
from shared.lake import merge, read, spill, write
from shared.lake.layout import RAW
from shared.types import NS, TickEvent
from tests.shared.lake import receipts as r
from tests.shared.lake.test_wal import START_NS
from tests.shared.lake.test_write import contents, equal, record


@settings(max_examples=4, deadline=None)
@given(run_bytes=st.sampled_from([1, 3_000, 20_000]), is_dead=st.booleans())
def test_bounded_merge_equals_merge_in_memory(
    run_bytes: int, is_dead: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """However little is in memory at once, an hour of overlapping sessions seals to the same bytes."""
    roots = [tmp_path_factory.mktemp(name) for name in ("at_once", "by_ranges")]
    for root in roots:
        record(root, "a", START_NS, START_NS + 6 * NS)
        write.seal(root, r.SOURCE, r.HOUR)
        record(root, "b", START_NS + 3 * NS, START_NS + 9 * NS, is_closed=not is_dead).abandon()
        record(root, "c", START_NS + 5 * NS, START_NS + 12 * NS)

    whole = write.seal(roots[0], r.SOURCE, r.HOUR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spill, "RUN_BYTES", run_bytes)
        parts = list(merge.raw_parts(roots[1], "raw/book", r.SOURCE, r.HOUR))
        ranged = write.seal(roots[1], r.SOURCE, r.HOUR)

    assert len(parts) == (1 if run_bytes > 100_000 else len(r.SYMBOLS))
    assert [file.content_hash for file in ranged.files.values()] == [file.content_hash for file in whole.files.values()]
    assert (ranged.duplicates, ranged.torn_bytes) == (whole.duplicates, whole.torn_bytes)
    assert equal(contents(roots[0]), contents(roots[1]))
    assert not list((roots[1] / ".tmp").iterdir())


def test_some_symbols_of_an_open_hour_are_those_of_all(tmp_path: Path) -> None:
    """Rows of other symbols are left where they are, those asked for are the same."""
    record(tmp_path, "a", START_NS, START_NS + 6 * NS)
    write.seal(tmp_path, r.SOURCE, r.HOUR)
    record(tmp_path, "b", START_NS + 3 * NS, START_NS + 9 * NS)
    some = ["ETHUSDT", "NEWUSDT", r.SYMBOLS[3]]

    for table in RAW:
        whole = read.raw_hour(tmp_path, table, r.SOURCE, r.HOUR).frame
        (part,) = merge.raw_parts(tmp_path, table, r.SOURCE, r.HOUR, symbols=some)

        assert part.frame.equals(whole.filter(whole["symbol"].is_in(some)), null_equal=True)


def test_runs_that_a_dead_process_left_are_removed(tmp_path: Path) -> None:
    """A merge removes runs that are hours old, and none that somebody may still be reading."""
    import os

    old, new = (tmp_path / ".tmp" / f"runs-{name}" for name in ("old", "new"))
    for left in (old, new):
        left.mkdir(parents=True)
        (left / "0.arrow").write_bytes(b"x")
    long_ago = new.stat().st_mtime - 7 * 3600
    os.utime(old, (long_ago, long_ago))

    record(tmp_path, "a", START_NS, START_NS + NS)
    write.seal(tmp_path, r.SOURCE, r.HOUR)

    assert not old.exists()
    assert new.exists()


def test_bad_row_leaves_logs_and_files_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is refused in the last part of the last table leaves nothing half done: no table is replaced."""
    record(tmp_path, "a", START_NS, START_NS + 3 * NS)
    write.seal(tmp_path, r.SOURCE, r.HOUR)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    record(tmp_path, "b", START_NS + 3 * NS, START_NS + 6 * NS)
    monkeypatch.setattr(write, "TickEvent", [event for event in TickEvent if event != TickEvent.SUBSCRIBED])
    monkeypatch.setattr(spill, "RUN_BYTES", 1)

    with pytest.raises(TableCorrupt, match="of unknown events"):
        write.seal(tmp_path, r.SOURCE, r.HOUR)

    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == before
    assert not list((tmp_path / ".tmp").iterdir())
    assert any((tmp_path / ".wal").rglob("book.arrow"))
