"""Holes in the numbers of full books: which changes no connection brought, and that coverage marks when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bitget import wire
from shared.bitget.chains import Chains
from shared.bitget.ticks import TickBuffer
from shared.lake import coverage, numbers, write
from shared.lake.wal import WriteAheadLog
from shared.types import NS, Ticks
from tests.shared.bitget.depths import Exchange
from tests.shared.lake import receipts as r
from tests.shared.lake.test_wal import START_NS

MS = 10**6
Push = tuple[int, int, int, int, bool]  # recv_ns, exch_ns, seq, pseq, is_snapshot


def holes(pushes: list[Push]) -> list[tuple[int, int]]:
    recv_ns, exch_ns, seq, pseq, is_snapshot = np.array(pushes, np.int64).reshape(-1, 5).T
    return numbers.holes(recv_ns, exch_ns, seq, pseq, is_snapshot.astype(np.bool_))


@given(st.data())
def test_holes_are_the_numbers_that_nobody_brought(data: st.DataObject) -> None:
    """Connections come and go, each with some delay and some losses: every number is looked for one by one."""
    steps = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=25), "steps")
    seqs = np.cumsum([100, *steps]).tolist()
    pushes: list[Push] = []
    for conn in range(data.draw(st.integers(1, 3), "connections")):
        first = data.draw(st.integers(0, len(steps)), "first")
        last = data.draw(st.integers(first, len(steps)), "last")
        delay = 10 * conn + data.draw(st.integers(0, 2_000), "delay")
        pushes.append((1000 * first + delay + 1, 1000 * first, seqs[first], 0, True))
        for k in range(first + 1, last + 1):
            if data.draw(st.integers(0, 5), "lost"):
                pushes.append((1000 * k + delay, 1000 * k, seqs[k], seqs[k - 1], False))
    known = sorted(
        {number for *_, seq, pseq, is_snapshot in pushes for number in ([seq] if is_snapshot else [seq, pseq])}
    )
    brought = {
        number for *_, seq, pseq, is_snapshot in pushes if not is_snapshot for number in range(pseq + 1, seq + 1)
    }
    expected = set()
    for number in set(range(known[0] + 1, known[-1] + 1)) - brought:
        # A number before the first update of all may be older than any push that came.
        reached = max((seq for *_, seq, _, _ in pushes if seq < number), default=None)
        if reached is not None:
            since = min(recv for recv, _, seq, _, _ in pushes if seq == reached)
            expected.add((since, min(recv for recv, _, seq, _, _ in pushes if seq > reached)))

    assert set(holes(data.draw(st.permutations(pushes), "order"))) == expected


def test_numbers_that_are_given_anew_are_no_hole() -> None:
    """A server that begins anew counts from wherever it likes; what was lost then is told by other rows."""
    before: list[Push] = [(10 * k, 10 * k, 500 + k, 499 + k, False) for k in range(1, 5)]
    after: list[Push] = [(100, 90, 3, 0, True), (110, 100, 7, 3, False), (130, 120, 12, 9, False)]

    assert holes([*before, *after]) == [(110, 130)]
    assert holes([]) == []


def recorded(root: Path, lost: int, border_s: int, *, copies: bool) -> list[pl.DataFrame]:
    """Record a quiet full book whose third change is lost (to 0: nobody, 1: the old connection, 2: both) at `border_s`
    while a new connection takes over, and return the coverage of its hour and the next."""
    exchange, buffer = Exchange(3, (r.SYMBOLS[0],)), TickBuffer(r.SYMBOLS, has_depth=True)
    old, new, third = (Chains(buffer, conn) for conn in range(3))
    takers = [old, *([third] if copies else [])]

    def push(chains: Chains, at_ms: int, text: str, *, is_snapshot: bool) -> None:
        told = wire.decode_push(text)
        assert isinstance(told, wire.DepthPush)
        chains.take(0, r.SYMBOLS[0], told.rows[0], START_NS + at_ms * MS, is_snapshot=is_snapshot, is_linked=True)

    for k, chains in enumerate(takers):
        push(chains, 1000 + k, exchange.snapshot(r.SYMBOLS[0]).text, is_snapshot=True)
    for at_s in (border_s - 100, border_s - 50):
        text = exchange.update(r.SYMBOLS[0]).text
        for k, chains in enumerate(takers):
            push(chains, at_s * 1000 + k, text, is_snapshot=False)
    text = exchange.update(r.SYMBOLS[0]).text
    for k, chains in enumerate(takers):
        if lost < 2 and not (lost == 1 and k == 0):
            push(chains, border_s * 1000 + k, text, is_snapshot=False)
    push(new, border_s * 1000 + 300, exchange.snapshot(r.SYMBOLS[0]).text, is_snapshot=True)
    for chains in takers:
        chains.end_all(START_NS + (border_s * 1000 + 800) * MS)
    for k in range(1, 6):
        push(new, (border_s + 40 * k) * 1000, exchange.update(r.SYMBOLS[0]).text, is_snapshot=False)
    ticks = buffer.take()
    for rows in (ticks.books, ticks.depth):
        assert rows is not None
        rows.exch_ns[rows.exch_ns > 0] = rows.recv_ns[rows.exch_ns > 0] - MS
    log = WriteAheadLog(root, r.SOURCE, "full", r.universe(), has_depth=True)
    log.append(Ticks(ticks.books, ticks.trades, ticks.tickers, ticks.depth))
    log.flush(START_NS + (border_s + 300) * NS)
    write.write_universe(root, r.universe())
    return [coverage.compute(root, r.SOURCE, hour) for hour in {r.HOUR, r.HOUR + (border_s + 300) // 3600}]


@pytest.mark.parametrize("border_s", [600, 3599])
@pytest.mark.parametrize(("lost", "copies"), [(0, False), (1, False), (1, True), (2, True)])
def test_change_lost_while_another_connection_takes_over_is_marked(
    tmp_path: Path, lost: int, border_s: int, copies: bool
) -> None:
    """Each chain is whole, and the new snapshot knows more than anybody was told: from the last change on, to it."""
    is_missed = lost == 2 or (lost == 1 and not copies)

    frame = pl.concat(recorded(tmp_path, lost, border_s, copies=copies))

    for channel in ("book", "depth"):
        broken = frame.filter(
            (pl.col("symbol") == r.SYMBOLS[0]) & (pl.col("channel") == channel) & (pl.col("reason") == "broken")
        )
        span = range((border_s - 50) // 60, (border_s * 1000 + 300) // 60_000 + 1)
        assert [minute - r.HOUR * 60 for minute in sorted(broken["minute"])] == (list(span) if is_missed else [])
