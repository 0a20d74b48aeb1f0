"""The write-ahead log: hours stand alone, nothing flushed is lost, whatever dies and whenever."""

from __future__ import annotations

import itertools
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import LakeError, SchemaMismatch, TableCorrupt
from shared.features.sampler import MEMORY_S, Sampler
from shared.lake import layout, read, wal, wal_reading, write
from shared.lake.layout import RAW
from shared.settings import ROOT
from shared.types import NS, TickEvent, Ticks
from tests.shared.lake import receipts as r

START_NS = r.HOUR * r.HOUR_NS
SUBSCRIBED, DISCONNECTED, GAP, CARRIED, DATA = (
    TickEvent.SUBSCRIBED,
    TickEvent.DISCONNECTED,
    TickEvent.GAP,
    TickEvent.CARRIED,
    TickEvent.DATA,
)


def open_log(root: Path, session: str = "s", from_ns: int = 0) -> wal.WriteAheadLog:
    return wal.WriteAheadLog(root, r.SOURCE, session, r.universe(), from_ns=from_ns)


def everything(root: Path) -> Ticks:
    return read.read_ticks(root, r.SOURCE, 0, 2**62, r.SYMBOLS)


def cut(ticks: Ticks, at_ns: list[int]) -> Iterator[Ticks]:
    """Cut a batch into consecutive ones at these receipts."""
    edges = [0, *sorted(at_ns), 2**62]
    for start_ns, end_ns in itertools.pairwise(edges):
        yield r.between(ticks, start_ns, end_ns)


def test_log_gives_back_what_was_flushed(tmp_path: Path) -> None:
    """Rows of every kind are read back in order of receipt, bit for bit, while the log is open."""
    ticks = r.concat([r.links(SUBSCRIBED, START_NS), r.receipts(3, START_NS, START_NS + 5 * NS)])
    log = open_log(tmp_path)

    log.append(ticks)
    log.flush()

    assert r.same(everything(tmp_path), ticks)
    assert sum(log.rows.values()) == r.n_rows(ticks)


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), n_cuts=st.integers(0, 12))
def test_log_does_not_depend_on_how_receipts_are_batched(
    seed: int, n_cuts: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Appended at once or in any batches, across the border of an hour too, a log holds the same rows."""
    border_ns = START_NS + r.HOUR_NS
    ticks = r.concat(
        [
            r.links(SUBSCRIBED, border_ns - 4 * NS, conns=(0, 1)),
            r.receipts(seed, border_ns - 4 * NS, border_ns, per_s=1.0, conns=(0, 1)),
            r.links(DISCONNECTED, border_ns, conns=(1,), tables="bt") if seed % 2 else r.links(GAP, border_ns, 0),
            r.receipts(seed, border_ns, border_ns + 3 * NS, per_s=1.0),
        ]
    )
    cuts = np.random.default_rng(seed).integers(border_ns - 4 * NS, border_ns + 3 * NS, n_cuts).tolist()
    results = []
    for k, parts in enumerate(([ticks], list(cut(ticks, cuts)))):
        root = tmp_path_factory.mktemp(f"lake{k}")
        log = open_log(root)
        for part in parts:
            log.append(part)
        log.close()
        results.append([read.raw_hour(root, table, r.SOURCE, r.HOUR + h).frame for table in RAW for h in (0, 1)])

    for one, other in zip(*results, strict=True):
        assert one.equals(other, null_equal=True)


# ------------------------------------------------------------------------------------------------ hours alone


def story(seed: int, border_ns: int, before_s: int, after_s: int) -> Ticks:
    """Return receipts around a border: two connections whose links come and go, silences, gaps.

    A connection pushes only what it is linked to.
    """
    rng = np.random.default_rng(seed)
    start_ns = border_ns - before_s * NS
    parts = [r.links(SUBSCRIBED, start_ns, conns=(0,))]
    up = {(table, n, 0) for table in "btk" for n in range(len(r.SYMBOLS))}
    for second in range(-before_s, after_s):
        at_ns = border_ns + second * NS
        if rng.random() < 0.10:
            event = (SUBSCRIBED, DISCONNECTED, GAP)[rng.integers(3)]
            tables, n_symbols, conn = "btk"[: rng.integers(1, 4)][::-1], int(rng.integers(1, 5)), int(rng.integers(2))
            parts.append(r.links(event, at_ns, n_symbols, (conn,), tables))
            told = {(table, n, conn) for table in tables for n in range(n_symbols)}
            up = up | told if event is SUBSCRIBED else up - told
        if rng.random() < 0.6:
            pushed = r.receipts(seed, at_ns, at_ns + NS, n_symbols=int(rng.integers(1, 5)), per_s=0.7, conns=(0, 1))
            tables_of: dict[str, Any] = {"b": pushed.books, "t": pushed.trades, "k": pushed.tickers}
            linked = {
                table: r.take(rows, [(table, n, c) in up for n, c in zip(rows.symbol, rows.conn, strict=True)])
                for table, rows in tables_of.items()
            }
            parts.append(Ticks(linked["b"], linked["t"], linked["k"]))
    return r.concat(parts)


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_an_hour_stands_alone(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Sampled from its own rows and the 30 s before, an hour equals the stream that was never cut, bit for bit."""
    root = tmp_path_factory.mktemp("lake")
    border_ns = START_NS + r.HOUR_NS
    border_s, before_s, after_s = border_ns // NS, 70, 45
    ticks = story(seed, border_ns, before_s, after_s)
    log = open_log(root)
    log.append(ticks)
    log.flush(border_ns + after_s * NS - 1)

    uncut = Sampler(len(r.SYMBOLS), border_s - before_s).step(ticks, border_s + after_s)
    sampler = Sampler(len(r.SYMBOLS), border_s - MEMORY_S)
    stored = read.read_ticks(root, r.SOURCE, border_ns - MEMORY_S * NS, border_ns + after_s * NS, r.SYMBOLS)
    alone = sampler.step(stored, border_s + after_s)

    for name, values in uncut.columns.items():
        assert np.array_equal(values[before_s:], alone.columns[name][MEMORY_S:], equal_nan=True), (name, seed)


def test_a_connection_that_has_pushed_nothing_carries_nothing(tmp_path: Path) -> None:
    """A silent second connection does not keep the book of a lost one alive over the border: no hour sees it, as live."""
    border_ns = START_NS + r.HOUR_NS
    border_s = border_ns // NS
    story = [
        r.links(SUBSCRIBED, border_ns - 90 * NS, 1, conns=(0,)),
        r.receipts(1, border_ns - 80 * NS, border_ns - 40 * NS, n_symbols=1),
        r.links(SUBSCRIBED, border_ns - 35 * NS, 1, conns=(1,), tables="b"),
        r.links(DISCONNECTED, border_ns - 34 * NS, 1, conns=(0,), tables="b"),
    ]
    tickers = r.receipts(2, border_ns - 30 * NS, border_ns + 20 * NS, n_symbols=1)  # the symbol itself is alive
    ticks = r.concat([*story, msgspec.structs.replace(r.links(SUBSCRIBED, 0, 0), tickers=tickers.tickers)])
    log = open_log(tmp_path)
    log.append(ticks)
    log.flush(border_ns + 20 * NS - 1)

    uncut = Sampler(len(r.SYMBOLS), border_s - 90).step(ticks, border_s + 20).columns["bid_price_1"][90:, 0]
    stored = read.read_ticks(tmp_path, r.SOURCE, border_ns - MEMORY_S * NS, border_ns + 20 * NS, r.SYMBOLS)
    alone = Sampler(len(r.SYMBOLS), border_s - MEMORY_S).step(stored, border_s + 20).columns["bid_price_1"]

    assert np.isnan(uncut).all()
    assert np.isnan(alone[MEMORY_S:, 0]).all()


def test_quiet_hours_are_carried_too(tmp_path: Path) -> None:
    """A flush with the clock begins each hour that passes without a receipt, with every link and state."""
    log = open_log(tmp_path)
    ticks = r.concat([r.links(SUBSCRIBED, START_NS + 5), r.receipts(1, START_NS + NS, START_NS + 9 * NS)])
    log.append(ticks)

    log.flush(START_NS + 2 * r.HOUR_NS + 7)

    assert log.hours == [r.HOUR, r.HOUR + 1, r.HOUR + 2]
    for hour in (r.HOUR + 1, r.HOUR + 2):
        rows = read.read_ticks(tmp_path, r.SOURCE, hour * r.HOUR_NS, (hour + 1) * r.HOUR_NS, r.SYMBOLS)
        assert r.n_rows(rows) == r.n_rows(r.only(rows, CARRIED)) == 3 * len(r.SYMBOLS)
        assert set(rows.books.recv_ns.tolist()) == {hour * r.HOUR_NS}
        last = {int(n): row for row, n in enumerate(ticks.books.symbol) if ticks.books.event[row] == DATA}
        for row, n in enumerate(rows.books.symbol.tolist()):
            assert np.array_equal(rows.books.bid_price[row], ticks.books.bid_price[last[n]], equal_nan=True)


def test_rows_before_from_ns_are_carried_not_stored(tmp_path: Path) -> None:
    """A session that connects early begins with what it has seen, CARRIED at the very time it was asked to cover."""
    from_ns = START_NS + 10 * NS
    ticks = r.concat([r.links(SUBSCRIBED, START_NS + 1), r.receipts(1, START_NS + NS, START_NS + 20 * NS)])
    log = open_log(tmp_path, from_ns=from_ns)
    for part in cut(ticks, [START_NS + 3 * NS, START_NS + 11 * NS]):
        log.append(part)
    log.close(START_NS + 20 * NS)

    stored = everything(tmp_path)

    assert r.same(r.only(stored, DATA), r.between(ticks, from_ns, 2**62))
    carried = r.only(stored, CARRIED)
    assert set(carried.trades.recv_ns.tolist()) == {from_ns}
    assert r.n_rows(carried) == r.n_rows(r.only(stored, DISCONNECTED)) == 3 * len(r.SYMBOLS)


# --------------------------------------------------------------------------------------------------- endings


def test_close_ends_every_link_once(tmp_path: Path) -> None:
    """A clean stop writes DISCONNECTED for the links that are up, and for no others."""
    log = open_log(tmp_path)
    log.append(r.links(SUBSCRIBED, START_NS, conns=(0, 1)))
    log.append(r.links(DISCONNECTED, START_NS + 1, conns=(1,)))

    log.close(START_NS + 5 * NS)

    ends = r.only(everything(tmp_path), DISCONNECTED)
    assert sorted(set(ends.books.recv_ns.tolist())) == [START_NS + 1, START_NS + 5 * NS]
    assert r.n_rows(ends) == 2 * 3 * len(r.SYMBOLS)
    assert wal_reading.find_logs(tmp_path, r.SOURCE, r.HOUR)[0].state == "ended"


def test_close_on_the_stroke_begins_no_hour(tmp_path: Path) -> None:
    """A session that is closed when an hour is over leaves nothing in the next one."""
    log = open_log(tmp_path)
    log.append(r.links(SUBSCRIBED, START_NS))

    log.close(START_NS + r.HOUR_NS)

    assert read.hours(tmp_path, "raw/book", r.SOURCE) == [r.HOUR]
    assert set(everything(tmp_path).books.recv_ns.tolist()) == {START_NS, START_NS + r.HOUR_NS - 1}


def test_close_without_a_receipt_leaves_nothing(tmp_path: Path) -> None:
    """A session that never received anything writes no file."""
    open_log(tmp_path).close(START_NS)

    assert list(tmp_path.rglob("*.arrow")) == []


def test_a_session_must_be_new(tmp_path: Path) -> None:
    """Two writers of one session are refused, by name."""
    log = open_log(tmp_path)
    log.append(r.links(SUBSCRIBED, START_NS))

    with pytest.raises(LakeError, match="session s must be new"):
        open_log(tmp_path).append(r.links(SUBSCRIBED, START_NS))


# ---------------------------------------------------------------------------------------------------- damage


def dead_log(root: Path, n_flushes: int = 6) -> list[Ticks]:
    """Leave a log as a killed process leaves it; return the batches, one flush each."""
    log = open_log(root)
    first = r.links(SUBSCRIBED, START_NS)
    batches = [first] + [r.receipts(5, START_NS + s * NS, START_NS + (s + 1) * NS, per_s=1.0) for s in range(n_flushes)]
    for batch in batches:
        log.append(batch)
        log.flush()
    log.abandon()
    return batches


@settings(max_examples=15)
@given(data=st.data())
def test_torn_tail_ends_the_log_at_the_last_whole_batch(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Cut at any byte, a dead log gives a prefix of its rows, then its links as DISCONNECTED one ns later."""
    root = tmp_path_factory.mktemp("lake")
    rows = r.concat(dead_log(root)).trades
    path = next(root.rglob("trade.arrow"))
    whole = path.read_bytes()
    (log,) = wal_reading.find_logs(root, r.SOURCE, r.HOUR)
    assert wal_reading.read_log(log, "raw/trade")[1] == 0  # the log is whole
    path.write_bytes(whole[: data.draw(st.integers(1200, len(whole) - 1))])

    stored = everything(root).trades

    told = r.take(stored, stored.event != DISCONNECTED)
    n = len(told.recv_ns)
    assert r.same_rows(told, r.take(rows, slice(0, n)))
    if n:
        ends = r.take(stored, stored.event == DISCONNECTED)
        assert len(ends.recv_ns) == len(r.SYMBOLS)
        assert int(ends.recv_ns[0]) > int(told.recv_ns[-1])
        assert n == len(rows.recv_ns) or int(ends.recv_ns[0]) <= int(rows.recv_ns[n]) + NS


def test_damaged_batch_ends_a_dead_log_and_condemns_an_ended_one(tmp_path: Path) -> None:
    """A flipped bit fails the CRC: rows before it count; where the log claims to be whole, the file is named."""
    rows = r.concat(dead_log(tmp_path)).trades
    path = next(tmp_path.rglob("trade.arrow"))
    content = bytearray(path.read_bytes())
    at = content.rindex(int(rows.trade_id[-1]).to_bytes(8, "little"))
    content[at] ^= 1
    path.write_bytes(bytes(content))

    told = r.only(everything(tmp_path), DATA).trades
    (path.parent / "ended").touch()

    assert 0 < len(told.recv_ns) < len(rows.recv_ns)
    with pytest.raises(TableCorrupt, match=r"trade\.arrow must be readable to its end"):
        everything(tmp_path)


def test_dead_log_is_told_from_a_living_one(tmp_path: Path) -> None:
    """A log whose writer holds it is alive; the same bytes without a writer are dead, and say when."""
    log = open_log(tmp_path, "alive")
    log.append(r.links(SUBSCRIBED, START_NS))
    log.flush()
    dead_log(tmp_path)

    states = {found.session_id: found.state for found in wal_reading.find_logs(tmp_path, r.SOURCE, r.HOUR)}

    assert states == {"alive": "alive", "s": "dead"}


@contextmanager
def small_disk(n_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: the nearest to a full disk that needs no mount."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_stops_the_log_and_keeps_what_was_flushed(tmp_path: Path) -> None:
    """When the disk refuses, the writer is told in one sentence, may not go on, and flushed rows are there."""
    log = open_log(tmp_path)
    kept = r.concat([r.links(SUBSCRIBED, START_NS), r.receipts(1, START_NS, START_NS + 2 * NS)])
    log.append(kept)
    log.flush()

    def go_on() -> None:
        for second in range(2, 200):
            log.append(r.receipts(1, START_NS + second * NS, START_NS + (second + 1) * NS))
            log.flush()

    with small_disk(100_000), pytest.raises(LakeError, match=r"cannot be written.*safe.*make room"):
        go_on()

    with pytest.raises(LakeError, match="given up"):
        log.append(r.receipts(1, START_NS + 300 * NS, START_NS + 301 * NS))
    stored = r.only(everything(tmp_path), DATA)
    assert r.same(r.between(stored, 0, START_NS + 2 * NS), r.only(kept, DATA))


def test_log_that_cannot_be_created_says_so(tmp_path: Path) -> None:
    """A lake that is a file, or may not be written, is one sentence."""
    (tmp_path / "lake").touch()

    with pytest.raises(LakeError, match="cannot be written"):
        open_log(tmp_path / "lake").append(r.links(SUBSCRIBED, START_NS))


# ---------------------------------------------------------------------------------------------------- kill -9

_VICTIM = """
import sys
from pathlib import Path
from shared.lake import wal
from shared.types import NS, TickEvent
from tests.shared.lake import receipts as r
log = wal.WriteAheadLog(Path(sys.argv[1]), r.SOURCE, "victim", r.universe())
start_ns = r.HOUR * r.HOUR_NS + 3590 * NS
log.append(r.links(TickEvent.SUBSCRIBED, start_ns))
for second in range(100_000):
    at_ns = start_ns + second * NS // 2
    log.append(r.receipts(1, at_ns, at_ns + NS // 2))
    log.flush(at_ns + NS // 2 - 1)
    print(log.until_ns, flush=True)
"""


@pytest.mark.parametrize("seed", range(3))
def test_killed_writer_loses_nothing_flushed(seed: int, tmp_path: Path) -> None:
    """Killed with SIGKILL at a random moment, a writer leaves every flushed row, and sealing recovers the hours."""
    rng = random.Random(seed)
    victim = subprocess.Popen(
        [sys.executable, "-c", _VICTIM, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    )
    assert victim.stdout is not None
    for _ in range(rng.randrange(5, 60)):
        flushed_ns = int(victim.stdout.readline())
    for _ in range(rng.randrange(20_000)):  # some instants later, wherever it is by then
        pass
    victim.kill()
    flushed_ns = max([flushed_ns, *map(int, victim.stdout.read().split()[:-1])])
    victim.wait()
    victim.stdout.close()
    start_ns = START_NS + 3590 * NS
    expected = r.concat([r.receipts(1, at, at + NS // 2) for at in range(start_ns, flushed_ns, NS // 2)])

    before = everything(tmp_path)
    reports = write.seal_all(tmp_path, r.SOURCE)
    after = everything(tmp_path)

    stored = r.only(after, DATA)
    assert r.same(r.between(stored, 0, flushed_ns + 1), expected), f"seed {seed}"
    assert r.same(before, after, ignore=())
    assert reports[-1].dead_sessions == ("victim",)
    ends = r.only(after, DISCONNECTED)
    assert r.n_rows(ends) == 3 * len(r.SYMBOLS)
    assert int(ends.books.recv_ns[0]) >= flushed_ns
    assert not list(tmp_path.rglob("*.arrow"))
    for path in tmp_path.rglob("*.parquet"):
        read.verify(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_flipped_bit_of_a_log_gives_a_prefix_or_is_named(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whichever bit of a dead log is flipped, its rows are a prefix of those written: none is invented."""
    root = tmp_path_factory.mktemp("lake")
    rows = r.concat(dead_log(root)).trades
    (log,) = wal_reading.find_logs(root, r.SOURCE, r.HOUR)
    assert log.state == "dead"
    path = log.folder / "trade.arrow"
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1), label="byte")] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)

    try:
        stored, _ = wal_reading.read_log(log, "raw/trade")
    except (TableCorrupt, SchemaMismatch):
        return

    told = layout.frame_to_rows("raw/trade", stored.filter(stored["event"] != int(DISCONNECTED)), r.SYMBOLS)
    assert r.same_rows(told, r.take(rows, slice(0, len(told.recv_ns))))


def test_raw_tables_of_a_log_and_of_the_lake_agree(tmp_path: Path) -> None:
    """A log's stream holds the fields of the batch, and its rows have the schema of the table."""
    dead_log(tmp_path)
    (log,) = wal_reading.find_logs(tmp_path, r.SOURCE, r.HOUR)

    for table in RAW:
        frame, torn_bytes = wal_reading.read_log(log, table)
        assert dict(frame.schema) == dict(layout.TABLES[table].columns)
        assert torn_bytes == 0
        assert frame["symbol"].is_in(list(r.SYMBOLS)).all()
        assert isinstance(frame, pl.DataFrame)
