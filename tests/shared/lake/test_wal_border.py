"""The border of two recorders: one ends with its hour, the other begins with the next, and no reader sees where."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.lake import layout, read, wal, write
from shared.lake.layout import RAW
from shared.types import NS, TickEvent, Ticks
from tests.shared.lake import receipts as r

BORDER_NS = (r.HOUR + 1) * r.HOUR_NS
OVERLAP_S = 6


def record(root: Path, session: str, ticks: Ticks, *, from_ns: int = 0, end_ns: int | None = None) -> None:
    """Write a session as a recorder does, a batch a second, then close it two seconds after its last receipt."""
    log = wal.WriteAheadLog(root, r.SOURCE, session, r.universe(), from_ns=from_ns, end_ns=end_ns)
    first_s, last_s = BORDER_NS // NS - 20, BORDER_NS // NS + 20
    for second in range(first_s, last_s):
        log.append(r.between(ticks, second * NS, (second + 1) * NS))
        log.flush((second + 1) * NS - 1)
    log.close(last_s * NS + 2 * NS)


def rows_of(root: Path, table: str, hour: int) -> pl.DataFrame:
    """Return a raw hour without the names of its connections."""
    write.seal_all(root, r.SOURCE)
    start_s = hour * layout.HOUR_S
    rows = read.collect(read.scan(root, table, r.SOURCE, start_s=start_s, end_s=start_s + layout.HOUR_S))
    return rows.drop("conn").sort("symbol", "recv_ns", maintain_order=True)


@settings(max_examples=5)
@given(seed=st.integers(0, 10**6))
def test_two_recorders_that_relieve_one_another_are_one(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The rows of an hour written by each equal those of one uninterrupted recorder, CARRIED rows included."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    ticks = r.receipts(seed, BORDER_NS - 18 * NS, BORDER_NS + 18 * NS)
    overlap_ns = BORDER_NS - OVERLAP_S * NS
    uninterrupted = r.concat([r.links(TickEvent.SUBSCRIBED, BORDER_NS - 18 * NS), ticks])
    later = r.concat([r.links(TickEvent.SUBSCRIBED, overlap_ns), r.between(ticks, overlap_ns, 2**62)])

    record(one, "a", uninterrupted)
    record(two, "a", uninterrupted, end_ns=BORDER_NS)
    record(two, "b", later, from_ns=BORDER_NS)

    for table in RAW:
        for hour in (r.HOUR, r.HOUR + 1):
            assert rows_of(two, table, hour).equals(rows_of(one, table, hour)), (table, hour)


def test_recorder_of_an_hour_leaves_nothing_in_the_next(tmp_path: Path) -> None:
    """It goes on receiving for a moment after its end; none of that is a row, and its links do not end in the hour."""
    ticks = r.concat(
        [r.links(TickEvent.SUBSCRIBED, BORDER_NS - 9 * NS), r.receipts(1, BORDER_NS - 9 * NS, BORDER_NS + 9 * NS)]
    )

    record(tmp_path, "a", ticks, end_ns=BORDER_NS)

    assert read.hours(tmp_path, "raw/book", r.SOURCE) == [r.HOUR]
    for table in RAW:
        rows = rows_of(tmp_path, table, r.HOUR)
        assert rows.filter(pl.col("event") == int(TickEvent.DISCONNECTED)).is_empty()


def test_recorder_that_is_stopped_before_its_end_says_so(tmp_path: Path) -> None:
    """Closed before the hour is over, links are DISCONNECTED: nobody was listening from there."""
    log = wal.WriteAheadLog(tmp_path, r.SOURCE, "a", r.universe(), end_ns=BORDER_NS)
    log.append(r.links(TickEvent.SUBSCRIBED, BORDER_NS - 9 * NS))
    log.close(BORDER_NS - 3 * NS)

    ends = rows_of(tmp_path, "raw/book", r.HOUR).filter(pl.col("event") == int(TickEvent.DISCONNECTED))
    assert ends["recv_ns"].to_list() == [BORDER_NS - 3 * NS] * len(r.SYMBOLS)


def test_recorder_whose_hour_never_began_leaves_no_log(tmp_path: Path) -> None:
    """What was connected early and stopped early has recorded nothing."""
    log = wal.WriteAheadLog(tmp_path, r.SOURCE, "a", r.universe(), from_ns=BORDER_NS, end_ns=BORDER_NS + r.HOUR_NS)
    log.append(r.links(TickEvent.SUBSCRIBED, BORDER_NS - 9 * NS))
    log.flush(BORDER_NS - 5 * NS)
    log.close(BORDER_NS - 3 * NS)

    assert read.hours(tmp_path, "raw/book", r.SOURCE) == []
