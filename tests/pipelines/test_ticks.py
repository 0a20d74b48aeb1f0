"""An hour of raw rows: sealed, recorded, or refused; by a recorder that is a process of its own, whatever is killed."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import ticks
from pipelines.collect import SERVICE, hour_session
from pipelines.ticks import (
    CONNECT_S,
    HourTaken,
    RecorderFailed,
    record,
    recorder_at_work,
    recording_lock,
    seal_or_record,
    wait_for_labels,
)
from shared import simulator_process
from shared.errors import CrosscutError, TableEmpty
from shared.labels import HORIZONS_S
from shared.lake import read, wal, wal_reading, write
from shared.settings import ROOT
from shared.types import NS, TickEvent
from tests.pipelines.conftest import World
from tests.shared.lake import receipts as r

BEGIN_S = r.HOUR * 3600


class Clock:
    """Wall clock and sleep of a test."""

    def __init__(self, second: float, wakes: Callable[[], None] = lambda: None) -> None:
        self.second, self.slept, self._wakes = second, list[float](), wakes

    def now(self) -> float:
        return self.second

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.second += seconds
        self._wakes()


class Recorder:
    """Stands for `record`: notes what it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[int, float | None]] = []
        monkeypatch.setattr(ticks, "record", self)

    def __call__(self, lake: Path, source: str, hour: int, seconds: float | None, on_progress: object) -> object:
        self.asked.append((hour, seconds))
        return {"seconds": 1.0}


def log_of(lake: Path, session: str, *, closed: bool = True) -> wal.WriteAheadLog:
    """Return the log of a session that has recorded a minute."""
    log = wal.WriteAheadLog(lake, r.SOURCE, session, r.universe())
    begin_ns = BEGIN_S * NS
    log.append(r.concat([r.links(TickEvent.SUBSCRIBED, begin_ns), r.receipts(1, begin_ns, begin_ns + 60 * NS)]))
    log.flush()
    if closed:
        log.close(begin_ns + 61 * NS)
    return log


def test_recorded_hour_is_sealed_and_not_recorded_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour that is over is sealed, and nothing is recorded."""
    recorder, clock = Recorder(monkeypatch), Clock((world.hours[0] + 1) * 3600.0)

    hour = seal_or_record(world.lake, world.source, world.hours[0], now_s=clock.now, sleep=clock.sleep)

    assert hour.recorded_s == 0
    assert recorder.asked == []
    assert all(rows > 0 for rows in hour.rows.values())


@pytest.mark.parametrize(("at_s", "words"), [(3600, "it is over"), (-3601, "begins in more")])
def test_hour_that_cannot_be_recorded_is_refused(tmp_path: Path, at_s: int, words: str) -> None:
    """The past cannot be recorded any more, and the far future not yet."""
    with pytest.raises(TableEmpty, match=words):
        seal_or_record(tmp_path, "bitget", r.HOUR, now_s=Clock(BEGIN_S + at_s).now)


@pytest.mark.parametrize(
    ("at_s", "seconds_max", "slept_s", "length_s"),
    [
        (-60, None, 60 - CONNECT_S, None),
        (600, None, 0, None),
        (-60, 40.0, 60 - CONNECT_S, CONNECT_S + 40),
        (9, 5.0, 0, 5),
    ],
    ids=["before", "in mid-hour", "before, for a while", "in mid-hour, for a while"],
)
def test_recorder_connects_before_its_hour(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at_s: int,
    seconds_max: float | None,
    slept_s: int,
    length_s: float | None,
) -> None:
    """It starts shortly before the hour, at once where the hour runs, and knows itself when the hour is over."""
    recorder, clock = Recorder(monkeypatch), Clock(BEGIN_S + at_s)

    with pytest.raises(TableEmpty, match="found none"):
        seal_or_record(tmp_path, "bitget", r.HOUR, seconds_max=seconds_max, now_s=clock.now, sleep=clock.sleep)

    assert recorder.asked == [(r.HOUR, length_s)]
    assert clock.slept == [slept_s]


def test_hour_whose_recorder_died_is_recorded_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the hour are there, nobody is at work, and it is not over: the retry goes on with it."""
    log_of(tmp_path, f"{hour_session(r.HOUR)}-1-1", closed=False).abandon()
    recorder, clock = Recorder(monkeypatch), Clock(BEGIN_S + 90)

    hour = seal_or_record(tmp_path, r.SOURCE, r.HOUR, now_s=clock.now, sleep=clock.sleep)

    assert recorder.asked == [(r.HOUR, None)]
    assert hour.died == (f"{hour_session(r.HOUR)}-1-1",)
    assert hour.rows["raw/book"] > 200


def test_hour_that_runs_is_left_alone_where_only_sealing_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sealing what is there starts no recorder, whatever the clock says."""
    log_of(tmp_path, "generate-1-2")
    recorder, clock = Recorder(monkeypatch), Clock(BEGIN_S + 90)

    hour = seal_or_record(tmp_path, r.SOURCE, r.HOUR, only_seal=True, now_s=clock.now, sleep=clock.sleep)

    assert recorder.asked == []
    assert hour.rows["raw/book"] > 200


@pytest.mark.parametrize("session", [f"{SERVICE}-1-1", f"{hour_session(r.HOUR)}-1-1"], ids=["service", "lost recorder"])
def test_run_waits_beside_a_living_recorder_and_takes_over_when_it_dies(
    session: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service, or the recorder of a run that was killed, is at work: nothing is recorded twice, nothing left out."""
    log = log_of(tmp_path, session, closed=False)
    recorder = Recorder(monkeypatch)
    heard: list[str] = []
    clock = Clock(BEGIN_S + 90, wakes=lambda: log.abandon() if clock.second > BEGIN_S + 97 else None)

    seal_or_record(tmp_path, r.SOURCE, r.HOUR, on_progress=heard.append, now_s=clock.now, sleep=clock.sleep)

    assert recorder.asked == [(r.HOUR, None)]
    assert BEGIN_S + 97 < clock.second < BEGIN_S + 101
    assert [line for line in heard if line.startswith(f"{session} records")] == heard


def test_living_recorder_that_stays_to_the_end_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hour is sealed when it has left it."""
    log = log_of(tmp_path, f"{SERVICE}-1-1", closed=False)
    recorder = Recorder(monkeypatch)
    clock = Clock(
        BEGIN_S + 90, wakes=lambda: log.flush(int(clock.second * NS)) if clock.second > BEGIN_S + 3600 else None
    )

    hour = seal_or_record(tmp_path, r.SOURCE, r.HOUR, now_s=clock.now, sleep=clock.sleep)
    log.abandon()

    assert recorder.asked == []
    assert hour.rows["raw/book"] > 200
    assert hour.died == ()


def test_hour_that_is_being_recorded_is_not_sealed_yet(tmp_path: Path) -> None:
    """Asked to seal what a living recorder still writes, and nothing else is there: not now."""
    log = log_of(tmp_path, f"{SERVICE}-1-1", closed=False)

    with pytest.raises(TableEmpty, match="still being recorded by collect-1-1"):
        seal_or_record(tmp_path, r.SOURCE, r.HOUR, only_seal=True, now_s=Clock(BEGIN_S + 90).now)
    log.abandon()


def test_service_of_the_hour_before_will_record_this_one(tmp_path: Path) -> None:
    """Before the hour begins, a service counts as at work; the recorder of the hour before ends with it."""
    service, relay = (
        log_of(tmp_path / "a", f"{SERVICE}-1-1", closed=False),
        log_of(tmp_path / "b", f"{hour_session(r.HOUR)}-1-1", closed=False),
    )

    before_s = BEGIN_S + 3600 - 20.0
    assert recorder_at_work(tmp_path / "a", r.SOURCE, r.HOUR + 1, before_s) == f"{SERVICE}-1-1"
    assert recorder_at_work(tmp_path / "b", r.SOURCE, r.HOUR + 1, before_s) is None
    assert recorder_at_work(tmp_path / "a", r.SOURCE, r.HOUR + 1, before_s + 30) is None, "its log is not here"
    service.abandon()
    relay.abandon()


def test_two_runs_do_not_record_one_hour(tmp_path: Path) -> None:
    """The second one is told at once, and the hours beside it are free."""
    clock = Clock(BEGIN_S + 90)

    with recording_lock(tmp_path, r.SOURCE, r.HOUR):
        with pytest.raises(HourTaken, match="must be recorded by one run"):
            seal_or_record(tmp_path, r.SOURCE, r.HOUR, now_s=clock.now, sleep=clock.sleep)
        with recording_lock(tmp_path, r.SOURCE, r.HOUR + 1):
            pass


def test_labels_wait_for_the_minutes_that_decide_them(tmp_path: Path) -> None:
    """While the next hour is recorded, until it has come so far; not where nobody records it, nor long after."""
    waited = Clock(BEGIN_S + 7.0)
    log = log_of(tmp_path, f"{hour_session(r.HOUR)}-1-1", closed=False)
    wait_for_labels(tmp_path, r.SOURCE, r.HOUR - 1, now_s=waited.now, sleep=waited.sleep)
    later = Clock(BEGIN_S + 900.0)
    wait_for_labels(tmp_path, r.SOURCE, r.HOUR - 1, now_s=later.now, sleep=later.sleep)
    log.abandon()
    alone = Clock(BEGIN_S + 7.0)
    wait_for_labels(tmp_path, r.SOURCE, r.HOUR - 1, now_s=alone.now, sleep=alone.sleep)

    assert waited.second >= BEGIN_S + max(HORIZONS_S)
    assert later.slept == alone.slept == []


def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put a shell script in the place of Python."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


@pytest.mark.parametrize(
    ("ending", "is_transient"), [("exit 6", True), ("exit 1", True), ("exit 2", False), ("exit 3", False)]
)
def test_failed_recorder_is_told_in_its_own_words(
    ending: str, is_transient: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last line of its stderr is the message; settings and a refusing disk are not tried again."""
    script(
        tmp_path, monkeypatch, f"echo progress >&2; echo 'the exchange must answer, found silence: wait' >&2; {ending}"
    )
    heard: list[str] = []

    with pytest.raises(RecorderFailed, match="the exchange must answer") as failure:
        record(tmp_path, "bitget", r.HOUR, 1.0, heard.append)

    assert heard[0] == "progress"
    assert failure.value.is_transient == is_transient


def test_killed_recorder_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last line was progress, not a reason."""
    script(tmp_path, monkeypatch, "echo 'all is well' >&2; kill -9 $$")

    with pytest.raises(RecorderFailed, match="found it ended with -9") as failure:
        record(tmp_path, "bitget", r.HOUR, 1.0, lambda line: None)

    assert failure.value.is_transient


def test_other_source_than_asked_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks of one market are never taken for those of another."""
    script(tmp_path, monkeypatch, 'echo \'{"source": "simulator-g7-40", "seconds": 1}\'')

    with pytest.raises(RecorderFailed, match="ticks of bitget were asked for, found simulator-g7-40"):
        record(tmp_path, "bitget", r.HOUR, 1.0, lambda line: None)


def test_interrupted_run_stops_its_recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told to stop, and waited for: it seals."""
    script(
        tmp_path,
        monkeypatch,
        f"trap 'echo sealed > {tmp_path}/sealed; exit 0' TERM; echo on >&2; while :; do sleep 0.05; done",
    )

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(tmp_path, "bitget", r.HOUR, 60.0, interrupt)

    assert (tmp_path / "sealed").exists()


def rows_flushed(lake: Path, source: str) -> int:
    """Return how many books of the lake a reader sees."""
    try:
        return read.collect(read.scan(lake, "raw/book", source, is_sorted=False)).height
    except CrosscutError:
        return 0


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition on the lake, which nothing announces."""
    deadline_s = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_nothing_flushed_is_lost_when_the_run_and_its_recorder_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 of the run: its recorder goes on, the retry waits beside it; kill -9 of that: the retry records on."""
    hour = (int(dt.datetime.now(dt.UTC).timestamp()) + 30) // 3600  # the next one, if this is about to end
    with simulator_process.start(["--symbols", "3", "--seed", "3"]) as simulator:
        monkeypatch.setenv("BITGET_REST_URL", simulator.rest)
        monkeypatch.setenv("BITGET_WS_URL", simulator.ws)
        work = (
            "import sys, pathlib; from pipelines.ticks import seal_or_record; "
            "seal_or_record(pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))"
        )
        run = subprocess.Popen([sys.executable, "-c", work, str(tmp_path), simulator.source, str(hour)], cwd=ROOT)
        until(lambda: rows_flushed(tmp_path, simulator.source) > 10)
        run.kill()
        run.wait()
        (log,) = wal_reading.find_logs(tmp_path, simulator.source, hour)
        assert log.state == "alive", "the recorder outlives its run"
        with recording_lock(tmp_path, simulator.source, hour):
            pass  # and the run's lock is free
        before = 0

        def kill(line: str) -> None:
            nonlocal before
            if "waiting beside it" in line:
                before = rows_flushed(tmp_path, simulator.source)
                os.kill(int(log.session_id.rsplit("-", 1)[1]), signal.SIGKILL)

        sealed = seal_or_record(tmp_path, simulator.source, hour, seconds_max=6.0, on_progress=kill)

    assert sealed.died == (log.session_id,)
    assert sealed.recorded_s > 0
    assert before > 10
    rows = read.collect(read.scan(tmp_path, "raw/book", simulator.source))
    assert rows["conn"].n_unique() == 2
    of_the_first = rows.filter(rows["conn"] == rows["conn"][0])
    assert of_the_first.height >= before
    assert of_the_first["event"][-1] == TickEvent.DISCONNECTED
    assert write.unsealed(tmp_path, simulator.source) == []
