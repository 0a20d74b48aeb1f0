"""What ends a recorder in mid-sentence: SIGKILL at random moments, a disk that is full, a permission that is gone.

Real processes, real files. A reader looks on all the while: what it has once seen stays, and it never meets half of
anything.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import simulator_process
from shared.errors import TableEmpty
from shared.lake import read, wal_reading, write
from shared.settings import ROOT
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator_process import SimulatorProcess
from shared.types import TickEvent

SYMBOLS = GeneratedMarket(3, 4).symbols

Book = tuple[str, int, float, float]
"""(symbol, seq, best bid, best ask)"""


class Watcher:
    """A reader of the lake that polls; it believes what it has seen."""

    def __init__(self, lake: Path, source: str) -> None:
        self.lake, self.source = lake, source
        self.seen: set[Book] = set()
        self.polls = 0

    def look(self) -> Counter[Book]:
        """Read every row and verify every file; return the books, of which none that was seen may be missing."""
        try:
            books = read.read_ticks(self.lake, self.source, 0, 2**62, SYMBOLS).books
        except TableEmpty:
            assert not self.seen, "what was there has gone"
            return Counter()
        for path in self.lake.glob("[!.]*/**/*.parquet"):
            read.verify(path)
        pushed = books.event == TickEvent.DATA
        columns = (books.seq[pushed], books.bid_price[pushed, 0], books.ask_price[pushed, 0])
        names = [SYMBOLS[n] for n in books.symbol[pushed].tolist()]
        found = Counter(zip(names, *(column.tolist() for column in columns), strict=True))
        missing = self.seen - found.keys()
        assert not missing, f"{len(missing)} rows that were readable have gone"
        self.seen |= found.keys()
        self.polls += 1
        return found


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SimulatorProcess, Path]]:
    path = tmp_path_factory.mktemp("sent") / "sent.jsonl"
    with simulator_process.start(["--symbols", "4", "--seed", "3", "--sent", str(path)]) as process:
        yield process, path


def sent_books(path: Path) -> set[Book]:
    found = set()
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            continue  # it is still being written
        push = json.loads(json.loads(line)["text"])
        if push["arg"]["channel"].startswith("books"):
            for row in push["data"]:
                best = (float(row[side][0][0]) if row[side] else float("nan") for side in ("bids", "asks"))
                found.add((push["arg"]["instId"], row["seq"], *best))
    return found


def recorder(simulator: SimulatorProcess, lake: Path) -> subprocess.Popen[str]:
    urls = {"BITGET_REST_URL": simulator.rest, "BITGET_WS_URL": simulator.ws, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.collect", "--lake", str(lake)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=lake, env=os.environ | urls,
    )  # fmt: skip


async def kill_again_and_again(simulator: SimulatorProcess, sent_path: Path, lake: Path, seed: int, kills: int) -> None:
    rng = random.Random(seed)
    watcher = Watcher(lake, simulator.source)
    for _ in range(kills):
        victim = recorder(simulator, lake)
        before = len(watcher.seen)
        loop = asyncio.get_running_loop()
        # A moment anywhere in a short life: while it starts and seals what the one before left, or while it records.
        dies_at = loop.time() + rng.uniform(0.2, 1.5) if rng.random() < 0.3 else None
        while dies_at is None or loop.time() < dies_at:
            watcher.look()
            if dies_at is None and len(watcher.seen) > before + 4:
                dies_at = loop.time() + rng.uniform(0.0, 1.2)
            assert victim.poll() is None, victim.communicate()
            await asyncio.sleep(0.02)
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
        watcher.look()

    last = recorder(simulator, lake)
    before = len(watcher.seen)
    async with asyncio.timeout(60):
        while len(watcher.seen) <= before + 4:
            assert last.poll() is None, last.communicate()
            await asyncio.sleep(0.05)
            watcher.look()
    last.send_signal(signal.SIGTERM)
    out, err = await asyncio.to_thread(last.communicate)

    assert last.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["hours"]
    assert write.unsealed(lake, simulator.source) == []
    found = watcher.look()
    assert set(found) <= sent_books(sent_path), "a row that was never sent"
    assert watcher.polls > kills


@pytest.mark.parametrize("seed", [1])
async def test_killed_recorder_loses_nothing_that_could_be_read(
    seed: int, sent: tuple[SimulatorProcess, Path], tmp_path: Path
) -> None:
    """SIGKILL at a random moment: whatever a reader has seen is still there, every file is whole at every look, every
    row was sent, and the next start continues the hour and seals it."""
    await kill_again_and_again(*sent, tmp_path, seed, kills=1)


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(10, 14))
async def test_recorder_that_is_killed_all_the_time(
    seed: int, sent: tuple[SimulatorProcess, Path], tmp_path: Path
) -> None:
    """The same, fifteen times over in one lake."""
    await kill_again_and_again(*sent, tmp_path, seed, kills=15)


# ------------------------------------------------------------------------------------- what the disk refuses

_WRITER = """
import os, sys
from pathlib import Path
from shared.errors import LakeError
from shared.lake import write
from shared.types import NS, TickEvent
from tests.shared.lake import receipts as r
from tests.shared.lake.test_wal import START_NS, everything, open_log

lake, ballast = Path(sys.argv[1]), Path(sys.argv[1]) / "ballast"
refuse, allow = {refuse}, {allow}

def record(session, seconds, log=None):
    log = log or open_log(lake, session)
    log.append(r.links(TickEvent.SUBSCRIBED, START_NS + seconds.start * NS))
    flushed = seconds.start
    try:
        for second in seconds:
            log.append(r.receipts(1, START_NS + second * NS, START_NS + (second + 1) * NS, per_s=40.0))
            log.flush()
            flushed = second + 1
            if second == seconds.start + 20:
                refuse()
        log.close()
    except LakeError as error:
        print(error, flush=True)
    return flushed

def refused(what):
    try:
        what()
    except LakeError as error:
        print(error, flush=True)
        return
    raise SystemExit("the disk did not refuse")

flushed = record("first", {seconds})
assert flushed < {seconds}.stop, "the disk did not refuse"
allow()
before = r.only(everything(lake), TickEvent.DATA)
refuse()
refused(lambda: record_or_seal())
allow()
assert r.same(before, r.only(everything(lake), TickEvent.DATA), ignore=()), "rows were lost by trying"
refuse = lambda: None
again = range(flushed + 5, flushed + 10)
assert record("second", again) == again.stop
reports = write.seal_all(lake, r.SOURCE)
assert "first" in reports[0].dead_sessions, reports
rows = r.only(everything(lake), TickEvent.DATA)
# Of the second in which the disk refused, some of it may be there.
torn = START_NS + flushed * NS, START_NS + (flushed + 1) * NS
rows = r.map_tables(rows, lambda table: r.take(table, (table.recv_ns < torn[0]) | (table.recv_ns >= torn[1])))
durable = (*range({seconds}.start, flushed), *again)
kept = r.concat([r.receipts(1, START_NS + s * NS, START_NS + (s + 1) * NS, per_s=40.0) for s in durable])
assert r.same(rows, kept), "not what was flushed"
assert not list(lake.rglob(".tmp/*"))
print("whole", flushed, flush=True)
"""


def run_writer(lake: Path, *, refuse: str, allow: str, seconds: str, tried: str, before: tuple[str, ...] = ()) -> str:
    script = _WRITER.replace("record_or_seal()", tried)
    for name, text in (("refuse", refuse), ("allow", allow), ("seconds", seconds)):
        script = script.replace("{" + name + "}", text)
    done = subprocess.run(
        [*before, sys.executable, "-c", script, str(lake)],
        capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_full_disk_keeps_what_was_flushed_and_goes_on_with_room(tmp_path: Path) -> None:
    """On a file system of 6 MB that is full (ENOSPC, not a limit of ours): one sentence for the recorder, one for who
    seals; nothing flushed is lost; with room again the next recorder continues the hour, and it is sealed whole."""
    mount = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
    command = 'mount -t tmpfs -o size=6m tmpfs "$0" && exec "$@"'
    if shutil.which("unshare") is None or subprocess.run([*mount, command, tmp_path, "true"], check=False).returncode:
        pytest.skip("a file system of our own needs user namespaces, which this machine does not allow")

    said = run_writer(
        tmp_path,
        refuse="lambda: ballast.write_bytes(bytes(os.statvfs(lake).f_bavail * os.statvfs(lake).f_bsize - 60_000))",
        allow="ballast.unlink",
        seconds="range(0, 60)",
        tried="write.seal_all(lake, r.SOURCE)",
        before=(*mount, command, str(tmp_path)),
    )

    recording, sealing, whole = said.splitlines()
    assert "No space left on device" in recording
    assert "what was flushed is safe: make room" in recording
    assert "untouched: make room" in sealing
    assert whole.startswith("whole")


def test_lost_permission_keeps_what_was_flushed_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    """A recorder that may no longer write where it did: what is open it still writes, at the next hour it stops with
    one sentence; nothing flushed is lost, and with the permission back the next one continues."""
    is_root = os.geteuid() == 0
    said = run_writer(
        tmp_path,
        refuse="lambda: os.seteuid(65534)"
        if is_root
        else "lambda: [f.chmod(0o500) for f in (lake, *lake.rglob('*/'))]",
        allow="lambda: os.seteuid(0)" if is_root else "lambda: [f.chmod(0o700) for f in (lake, *lake.rglob('*/'))]",
        seconds="range(3560, 3620)",
        tried="open_log(lake, 'other').append(r.links(TickEvent.SUBSCRIBED, START_NS + 3600 * NS))",
    )

    recording, other, whole = said.splitlines()
    for sentence in (recording, other):
        assert "Permission denied" in sentence
        assert "restore the permission" in sentence
    assert whole == "whole 3600"
    assert wal_reading.find_logs(tmp_path, "simulator-g1-4", 489_000) == []
