"""The border of two recorders that relieve one another: each push reaches both, at different times, and is stored once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shared.lake import coverage, layout, read, wal, write
from shared.lake.layout import RAW
from shared.types import NS, TickEvent, Ticks
from tests.shared.lake import receipts as r

BORDER_NS = (r.HOUR + 1) * r.HOUR_NS
BEGIN_NS, END_NS = BORDER_NS - 8 * NS, BORDER_NS + 7 * NS
OVERLAP_NS = 5 * NS
LAG_NS = 20_000_000  # that `receipts` are made with
MS = 1_000_000

FIRST = (r.HOUR * r.HOUR_NS, BORDER_NS)
SECOND = (BORDER_NS, BORDER_NS + r.HOUR_NS)


def later(ticks: Ticks, by_ns: int) -> Ticks:
    """Return the same pushes as another connection receives them."""

    def shift(rows: r.R) -> r.R:
        fields = {field: getattr(rows, field) for field in rows.__struct_fields__}
        return type(rows)(**fields | {"recv_ns": rows.recv_ns + by_ns})

    return r.map_tables(ticks, shift)


def record(
    root: Path, session: str, ticks: Ticks, *, from_ns: int = 0, owned_ns: tuple[int, int] | None, close_ns: int
) -> None:
    """Write a session as a recorder does: connected when the first of these come, a batch a second."""
    log = wal.WriteAheadLog(root, r.SOURCE, session, r.universe(), from_ns=from_ns, owned_ns=owned_ns)
    begin_ns = int(ticks.books.recv_ns[0]) - MS
    log.append(r.links(TickEvent.SUBSCRIBED, begin_ns))
    for start_ns in range(begin_ns, close_ns, NS):
        end_ns = min(start_ns + NS, close_ns)
        log.append(r.between(ticks, start_ns, end_ns))
        log.flush(end_ns - 1)
    log.close(close_ns)
    write.seal_all(root, r.SOURCE)


def pushes(root: Path, table: str) -> pl.DataFrame:
    """Return every push that is stored, by what the exchange said alone, in an order of its own.

    One that a newer push has overtaken is REPEATED: it is stored, too.
    """
    is_push = pl.col("event").is_in([int(TickEvent.DATA), int(TickEvent.REPEATED)])
    rows = read.collect(read.scan(root, table, r.SOURCE)).filter(is_push)
    said = rows.drop("conn", "recv_ns", "event")
    return said.sort(said.columns)


@pytest.mark.parametrize(("by_ms", "skew_ms"), [(15, 0), (-15, 0), (400, -900), (-400, 900)])
def test_recorders_that_relieve_one_another_are_one(by_ms: int, skew_ms: int, tmp_path: Path) -> None:
    """Whoever hears faster, and wherever our clock stands: every push of an uninterrupted recorder, each once."""
    one, two = tmp_path / "one", tmp_path / "two"
    seed = 1000 + by_ms
    heard = later(r.receipts(seed, BEGIN_NS, END_NS, per_s=20.0), skew_ms * MS)
    heard_too = r.between(later(heard, by_ms * MS), BORDER_NS - OVERLAP_NS - NS, 2**62)

    record(one, "a", heard, owned_ns=None, close_ns=END_NS + 2 * NS)
    record(two, "a", heard, owned_ns=FIRST, close_ns=BORDER_NS + OVERLAP_NS)
    record(two, "b", heard_too, from_ns=BORDER_NS - OVERLAP_NS, owned_ns=SECOND, close_ns=END_NS + 2 * NS)

    for table in RAW:
        expected = pushes(one, table)
        assert expected.height > 500
        assert pushes(two, table).equals(expected), table


def test_hour_begins_with_what_both_have_seen(tmp_path: Path) -> None:
    """The pushes that another records still tell what was last seen: the successor's CARRIED rows hold it."""
    heard = r.receipts(5, BORDER_NS - 9 * NS, END_NS, per_s=30.0)

    record(tmp_path, "b", heard, from_ns=BORDER_NS - OVERLAP_NS, owned_ns=SECOND, close_ns=END_NS)

    rows = read.collect(read.scan(tmp_path, "raw/book", r.SOURCE, start_s=BORDER_NS // NS))
    carried = rows.filter((pl.col("event") == int(TickEvent.CARRIED)) & (pl.col("recv_ns") == BORDER_NS))
    last = r.between(heard, 0, BORDER_NS).books
    for n, symbol in enumerate(r.SYMBOLS):
        row = np.flatnonzero(last.symbol == n)[-1]
        assert carried.filter(pl.col("symbol") == symbol)["exch_ns"].to_list() == [last.exch_ns[row]]
    early = read.collect(read.scan(tmp_path, "raw/book", r.SOURCE, end_s=BORDER_NS // NS))
    assert early.filter(pl.col("event") == int(TickEvent.DATA)).is_empty()


def test_what_is_counted_is_what_is_written(tmp_path: Path) -> None:
    """Rows that another recorder writes are not in the count of this one."""
    heard = r.receipts(5, BORDER_NS - 3 * NS, BORDER_NS + 3 * NS)
    log = wal.WriteAheadLog(tmp_path, r.SOURCE, "a", r.universe(), owned_ns=FIRST)

    log.append(heard)
    log.close(BORDER_NS + 4 * NS)
    write.seal_all(tmp_path, r.SOURCE)

    for table in RAW:
        assert log.rows[table] == pushes(tmp_path, table).height
    assert layout.hours_below(tmp_path / "raw/book" / f"source={r.SOURCE}") == [r.HOUR, r.HOUR + 1]


def test_border_is_covered_without_a_seam(tmp_path: Path) -> None:
    """Coverage of both hours finds no gap and no doubt where one recorder relieves the other."""
    write.write_universe(tmp_path, r.universe())
    begin_ns, end_ns = BORDER_NS - 70 * NS, BORDER_NS + 70 * NS
    heard = r.receipts(3, begin_ns, end_ns, per_s=2.0)
    heard_too = r.between(later(heard, 7 * MS), BORDER_NS - 30 * NS, 2**62)
    record(tmp_path, "a", heard, owned_ns=FIRST, close_ns=BORDER_NS + OVERLAP_NS)
    record(tmp_path, "b", heard_too, from_ns=BORDER_NS - OVERLAP_NS, owned_ns=SECOND, close_ns=end_ns)

    beside = [(r.HOUR, 59), (r.HOUR + 1, 0)]
    for hour, minute in beside:
        states = coverage.compute(tmp_path, r.SOURCE, hour).filter(pl.col("minute") == hour * 60 + minute)
        assert set(states["state"]) == {"complete"}, (minute, states)
