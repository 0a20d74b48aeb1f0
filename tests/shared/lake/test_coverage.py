"""Coverage against a second implementation that walks through every moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.lake import coverage, read, write
from shared.lake.layout import CHANNELS
from shared.types import NS, TickEvent, Ticks
from tests.shared.lake import receipts as r
from tests.shared.lake.test_wal import START_NS, open_log

SUBSCRIBED, DISCONNECTED, GAP = TickEvent.SUBSCRIBED, TickEvent.DISCONNECTED, TickEvent.GAP


def states(frame: pl.DataFrame, symbol: str, channel: str) -> list[str]:
    """Return the 60 states of one symbol and channel."""
    return frame.filter((pl.col("symbol") == symbol) & (pl.col("channel") == channel)).sort("minute")["state"].to_list()


def pushes(symbol: int, seconds: list[int]) -> Ticks:
    """Return one ticker at each of these seconds of the hour."""
    parts = [r.links(SUBSCRIBED, 0, 0)]
    for second in seconds:
        some = r.receipts(1, START_NS, START_NS + 2 * NS, per_s=3.0).tickers
        row = r.take(some, slice(0, 1))
        row.symbol[0], row.recv_ns[0] = symbol, START_NS + second * NS
        parts.append(Ticks(parts[0].books, parts[0].trades, row))
    return r.concat(parts)


def by_walking(ticks: Ticks, symbol: int, channel: str) -> list[str]:
    """Return what coverage must say, second by second; every event of these tests is on a whole second."""
    table: Any = {"book": ticks.books, "trade": ticks.trades, "ticker": ticks.tickers}[channel]
    events: dict[int, list[tuple[int, int]]] = {}
    for row in np.flatnonzero(table.symbol == symbol).tolist():
        if table.event[row] >= SUBSCRIBED:
            second = (int(table.recv_ns[row]) - START_NS) // NS
            events.setdefault(second, []).append((int(table.event[row]), int(table.conn[row])))
    pushed = {
        (int(recv_ns) - START_NS) // NS
        for rows in (ticks.books, ticks.trades, ticks.tickers)
        for recv_ns in rows.recv_ns[(rows.symbol == symbol) & np.isin(rows.event, [TickEvent.DATA, SUBSCRIBED])]
    }
    up: set[int] = set()
    last_push, seen = -30, []
    for second in range(3600):
        was_gap = False
        for event, conn in events.get(second, []):
            if event == SUBSCRIBED:
                up.add(conn)
            else:
                was_gap |= event == GAP
                up.discard(conn)
        # A moment within [second, second + 1) is stale where more than 30 s have passed: from the 30th on.
        last_push = second if second in pushed else last_push
        seen.append("gap" if not up or was_gap else "stale" if second - last_push >= 30 else "complete")
    return [max(seen[m * 60 : m * 60 + 60], key=["complete", "stale", "gap"].index) for m in range(60)]


@settings(max_examples=10)
@given(data=st.data())
def test_coverage_equals_a_walk_through_every_second(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Links that come and go on two connections, gaps and silences: every minute's state is the walk's."""
    root = tmp_path_factory.mktemp("lake")
    parts = [pushes(0, sorted(data.draw(st.sets(st.integers(0, 3599), max_size=150), "pushes")))]
    seconds = data.draw(st.lists(st.integers(0, 3599), max_size=12), "links")
    for second in seconds:
        event = data.draw(st.sampled_from([SUBSCRIBED, SUBSCRIBED, DISCONNECTED, GAP]))
        parts.append(r.links(event, START_NS + second * NS, 1, (data.draw(st.integers(0, 1)),)))
    ticks = r.concat(parts)
    ticks = r.map_tables(ticks, lambda rows: r.take(rows, np.argsort(rows.recv_ns, kind="stable")))
    log = open_log(root)
    log.append(r.concat([ticks, r.links(DISCONNECTED, START_NS + r.HOUR_NS - 1, 1, (2,))]))
    log.flush(START_NS + r.HOUR_NS - 1)
    write.write_universe(root, r.universe())

    frame = coverage.compute(root, r.SOURCE, r.HOUR)

    for channel in CHANNELS:
        assert states(frame, "BTCUSDT", channel) == by_walking(ticks, 0, channel), channel
    assert set(states(frame, "ETHUSDT", "book")) == {"gap"}


def test_carried_links_cover_the_next_hour(tmp_path: Path) -> None:
    """An hour that begins with CARRIED rows is covered from its first instant, silence from the hour before counted."""
    log = open_log(tmp_path)
    log.append(r.links(SUBSCRIBED, START_NS))
    log.append(pushes(0, [3590]))
    log.append(pushes(0, list(range(3610, 7200, 10))))
    log.flush(START_NS + 7200 * NS - 1)
    write.write_universe(tmp_path, r.universe())

    frame = coverage.compute(tmp_path, r.SOURCE, r.HOUR + 1)

    assert states(frame, "BTCUSDT", "trade") == ["complete"] * 60
    assert states(frame, "ETHUSDT", "trade") == ["stale"] * 60


def test_first_minute_of_a_link_is_not_stale(tmp_path: Path) -> None:
    """A symbol that pushes right after its link came up on the full minute was never silent."""
    log = open_log(tmp_path)
    log.append(r.links(SUBSCRIBED, START_NS + 600 * NS))
    log.append(pushes(0, list(range(601, 3600, 10))))
    log.flush(START_NS + r.HOUR_NS - 1)
    write.write_universe(tmp_path, r.universe())

    frame = coverage.compute(tmp_path, r.SOURCE, r.HOUR)

    assert states(frame, "BTCUSDT", "book") == ["gap"] * 10 + ["complete"] * 50


def test_unlisted_minutes_are_told(tmp_path: Path) -> None:
    """Before its snapshot and after the one that says off, a symbol is not listed."""
    log = open_log(tmp_path)
    log.append(r.links(SUBSCRIBED, START_NS))
    log.append(pushes(0, list(range(0, 3600, 20))))
    log.flush(START_NS + r.HOUR_NS - 1)
    write.write_universe(tmp_path, r.universe(r.SYMBOLS[:1]))
    write.write_universe(tmp_path, r.universe(r.SYMBOLS[:2], START_NS + 120 * NS))

    frame = coverage.compute(tmp_path, r.SOURCE, r.HOUR)

    assert states(frame, "ETHUSDT", "book")[:3] == ["not_listed", "stale", "stale"]
    assert states(frame, "BTCUSDT", "book") == ["complete"] * 60
    assert set(frame["symbol"]) == set(r.SYMBOLS[:2])


def test_coverage_is_stored(tmp_path: Path) -> None:
    """The table is written with three rows a symbol and minute."""
    log = open_log(tmp_path)
    log.append(r.links(SUBSCRIBED, START_NS))
    log.close(START_NS + r.HOUR_NS)
    write.write_universe(tmp_path, r.universe())

    written = coverage.write_coverage(tmp_path, r.SOURCE, r.HOUR)

    stored = read.scan(tmp_path, "coverage", r.SOURCE).collect()
    assert written.rows == stored.height == 3 * 60 * len(r.SYMBOLS)
    assert set(stored["state"]) == {"stale"}
