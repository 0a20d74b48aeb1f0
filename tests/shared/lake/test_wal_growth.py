"""The write-ahead log while its symbols grow: what was written before and after is read on one axis."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.errors import TableCorrupt
from shared.lake import read, wal, write
from shared.settings import ROOT
from shared.types import NS, TickEvent, Ticks
from tests.shared.lake import receipts as r

START_NS = r.HOUR * r.HOUR_NS
SUBSCRIBED, DISCONNECTED, DATA = TickEvent.SUBSCRIBED, TickEvent.DISCONNECTED, TickEvent.DATA
SECONDS = 12


def open_log(root: Path, symbols: tuple[str, ...], session: str = "s") -> wal.WriteAheadLog:
    return wal.WriteAheadLog(root, r.SOURCE, session, r.universe(tuple(sorted(symbols))))


def everything(root: Path) -> Ticks:
    return read.read_ticks(root, r.SOURCE, 0, 2**62, r.SYMBOLS)


def grown(seed: int, start_ns: int, since_s: list[int]) -> Ticks:
    """Return receipts of symbols that are linked, and then push, from one second each on."""

    def of(ticks: Ticks, which: NDArray[np.bool_]) -> Ticks:
        return r.map_tables(ticks, lambda rows: r.take(rows, which[rows.symbol]))

    since, parts = np.array(since_s), []
    for second in range(SECONDS):
        at_ns = start_ns + second * NS
        parts.append(of(r.links(SUBSCRIBED, at_ns), since == second))
        parts.append(of(r.receipts(seed, at_ns + 1, at_ns + NS, per_s=1.0), since <= second))
    return r.concat(parts)


@settings(max_examples=6)
@given(
    seed=st.integers(0, 10**6),
    n_first=st.integers(0, len(r.SYMBOLS)),
    later=st.lists(st.integers(0, SECONDS - 1), min_size=len(r.SYMBOLS), max_size=len(r.SYMBOLS)),
    before_s=st.integers(0, SECONDS),
    flushes=st.lists(st.booleans(), min_size=SECONDS, max_size=SECONDS),
)
def test_axis_that_grows_gives_the_rows_of_one_that_was_known(
    seed: int, n_first: int, later: list[int], before_s: int, flushes: list[bool],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    """Symbols that come at any second, before or after an hour's border, leave the rows of a log that knew them all.

    Both while the log is open and when the hours are sealed, bit for bit, the links carried over the border included.
    """
    since_s = [0] * n_first + sorted(later[n_first:])
    start_ns = START_NS + r.HOUR_NS - before_s * NS
    ticks = grown(seed, start_ns, since_s)
    end_ns = start_ns + SECONDS * NS
    known, growing = (tmp_path_factory.mktemp(name) for name in ("known", "growing"))
    log = open_log(known, r.SYMBOLS)
    log.append(ticks)
    log.flush(end_ns - 1)

    other = open_log(growing, r.SYMBOLS[:n_first])
    for second, is_flushed in enumerate(flushes):
        at_ns = start_ns + second * NS
        other.grow(r.SYMBOLS[: sum(since <= second for since in since_s)])
        other.append(r.between(ticks, at_ns, at_ns + NS))
        if is_flushed:
            other.flush(at_ns + NS - 1)
    other.flush(end_ns - 1)

    if r.n_rows(ticks):
        assert r.same(everything(growing), everything(known), ignore=())
    log.close(end_ns)
    other.close(end_ns)
    assert write.seal_all(growing, r.SOURCE) != []
    write.seal_all(known, r.SOURCE)
    assert r.same(everything(growing), everything(known), ignore=())


_VICTIM = """
import os, signal, sys
from pathlib import Path
from shared.lake import wal
from shared.types import NS, TickEvent
from tests.shared.lake import receipts as r
start_ns = r.HOUR * r.HOUR_NS
log = wal.WriteAheadLog(Path(sys.argv[1]), r.SOURCE, "victim", r.universe(r.SYMBOLS[:2]))
log.append(r.links(TickEvent.SUBSCRIBED, start_ns, 2))
log.append(r.receipts(1, start_ns + 1, start_ns + 2 * NS, 2))
log.flush()
log.grow(r.SYMBOLS)
log.append(r.links(TickEvent.SUBSCRIBED, start_ns + 2 * NS))
log.append(r.receipts(1, start_ns + 2 * NS + 1, start_ns + 4 * NS))
if sys.argv[2] == "flushed":
    log.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("last", ["flushed", "not flushed"])
def test_killed_after_growth_loses_nothing_flushed(last: str, tmp_path: Path) -> None:
    """SIGKILL between the growth and its flush leaves what was flushed before; after the flush, the new symbols too."""
    victim = subprocess.run(
        [sys.executable, "-c", _VICTIM, str(tmp_path), last], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=False
    )
    assert victim.returncode == -signal.SIGKILL
    old = r.receipts(1, START_NS + 1, START_NS + 2 * NS, 2)
    new = r.receipts(1, START_NS + 2 * NS + 1, START_NS + 4 * NS)

    before = everything(tmp_path)
    (report,) = write.seal_all(tmp_path, r.SOURCE)

    stored = r.only(everything(tmp_path), DATA)
    assert r.same(stored, r.concat([old, new]) if last == "flushed" else old)
    assert r.same(before, everything(tmp_path), ignore=())
    assert report.dead_sessions == ("victim",)
    ended = r.only(everything(tmp_path), DISCONNECTED).books.symbol.tolist()
    assert ended == list(range(4 if last == "flushed" else 2))


def dead_log(root: Path) -> Ticks:
    """Leave a log whose axis grew once, as a killed process leaves it, and return its rows."""
    log = open_log(root, r.SYMBOLS[:2])
    parts = [r.links(SUBSCRIBED, START_NS, 2), r.receipts(5, START_NS + 1, START_NS + NS, 2)]
    for part in parts:
        log.append(part)
    log.flush()
    log.grow(r.SYMBOLS)
    parts += [r.links(SUBSCRIBED, START_NS + NS), r.receipts(5, START_NS + NS + 1, START_NS + 2 * NS)]
    for part in parts[2:]:
        log.append(part)
    log.flush()
    log.abandon()
    return r.concat(parts)


@settings(max_examples=15)
@given(data=st.data())
def test_torn_in_or_around_the_growth_a_log_gives_a_prefix(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Cut at any byte, no row is read under another symbol than it was written with."""
    root = tmp_path_factory.mktemp("lake")
    rows = dead_log(root).trades
    path = next(root.rglob("trade.arrow"))
    whole = path.read_bytes()
    names = whole.index("龙虾USDT".encode())
    at = data.draw(st.integers(1200, len(whole) - 1) | st.integers(names - 400, names + 400))
    path.write_bytes(whole[:at])

    stored = everything(root).trades

    told = r.take(stored, stored.event != DISCONNECTED)
    assert r.same_rows(told, r.take(rows, slice(0, len(told.recv_ns))))


def test_damaged_names_are_noticed(tmp_path: Path) -> None:
    """A flipped bit in the name of a symbol that came later ends a dead log there, and condemns an ended one."""
    rows = dead_log(tmp_path).trades
    path = next(tmp_path.rglob("trade.arrow"))
    content = path.read_bytes()
    assert content.count(b"SOLUSDT") == 1
    path.write_bytes(content.replace(b"SOLUSDT", b"SOLUSDU"))

    told = r.only(everything(tmp_path), DATA).trades
    (path.parent / "ended").touch()

    assert 0 < len(told.recv_ns) < len(rows.recv_ns)
    assert set(told.symbol.tolist()) <= {0, 1}
    with pytest.raises(TableCorrupt, match=r"trade\.arrow must be readable to its end"):
        everything(tmp_path)


@pytest.mark.parametrize(
    "symbols", [("ETHUSDT", "BTCUSDT"), ("BTCUSDT",), ("BTCUSDT", "ETHUSDT", "BTCUSDT")], ids=["order", "less", "twice"]
)
def test_axis_that_would_move_rows_is_refused(symbols: tuple[str, ...], tmp_path: Path) -> None:
    """A position means one symbol for ever: another order, fewer symbols or one twice are no growth."""
    log = open_log(tmp_path, r.SYMBOLS[:2])

    with pytest.raises(AssertionError, match=r"axis grows|one position"):
        log.grow(symbols)
