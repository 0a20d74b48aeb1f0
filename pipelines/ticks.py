"""An hour of raw rows: sealed where it was recorded, recorded where it is not over yet.

The recorder is a process of its own (`python -m pipelines.collect --hour …`). A relay of hourly runs loses nothing:
each connects `CONNECT_S` before its hour, stays `OVERLAP_S` longer, and records the pushes of its hour alone (see
`WriteAheadLog.owned_ns`).

Whatever dies, the hour goes on:

    the recorder dies        its log stays; the retry records the rest of the hour, sealing joins the two
    the run is killed        its recorder goes on to the end of the hour; the retry finds it at work and waits beside it
    both are killed          as the first
    the run is terminated    the recorder is told to stop: it notes that its links are down, and seals

One run holds an hour (`recording_lock`); where a service records already, the run waits beside that one, too, and
takes over within `LOOK_S` should it end.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import msgspec

from pipelines.collect import SERVICE, WRITE_S, hour_session
from pipelines.moments import when
from shared.errors import CrosscutError, TableEmpty
from shared.labels import ENTRY_DELAY_S, HORIZONS_S
from shared.lake import layout, read, wal_reading, write
from shared.lake.layout import HOUR_S, hour_name
from shared.settings import ROOT

CONNECT_S = 30.0
"""How long before its hour a recorder starts: it asks what is listed and subscribes to everything in ten seconds."""

LOOK_S = 2.0
STOP_S_MAX = 120.0
SETTLE_S_MAX = 60.0
"""How long to wait for recorders to leave an hour that is over; they do so with their next flush."""

_PERMANENT = frozenset({2, 3})
"""Exit codes of settings and of the lake: the next try would end the same way."""


class Hour(msgspec.Struct, frozen=True, kw_only=True):
    """What one raw hour holds after sealing."""

    rows: dict[str, int]  # raw table -> rows
    bytes: int
    duplicates: int  # removed while it was sealed
    torn_bytes: int  # of recorders that died: received, never flushed, lost
    died: tuple[str, ...]  # sessions of those
    recorded_s: float  # by this call; 0: it was only sealed


class RecorderFailed(CrosscutError):
    """`python -m pipelines.collect` ended badly; its last words are the message."""

    def __init__(self, message: str, *, is_transient: bool) -> None:
        super().__init__(message)
        self.is_transient = is_transient


class HourTaken(CrosscutError):
    """Another run records the hour: nothing is left to do for this one."""


def seal_or_record(
    lake: Path,
    source: str,
    hour: int,
    *,
    only_seal: bool = False,
    seconds_max: float | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
    now_s: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Hour:
    """Leave one raw hour sealed and say what it holds; where it is not over, see that it is recorded to its end.

    Args:
        only_seal: leave an hour that is not over as it is.
        seconds_max: record no longer than this; None: to the end of the hour.

    Raises:
        TableEmpty: nobody recorded it and it is over, or it is too far ahead.
        HourTaken: another run is at it.
        RecorderFailed: the recorder could not. What it has flushed is safe: trying again goes on with the hour.
    """
    end_s = (hour + 1) * HOUR_S
    told: dict[str, Any] = {}
    if not only_seal and now_s() < end_s:
        if now_s() < (hour - 1) * HOUR_S:
            raise TableEmpty(f"{hour_name(hour)} begins in more than an hour: materialise it when it is near")
        with recording_lock(lake, source, hour):
            sleep(max(0.0, hour * HOUR_S - CONNECT_S - now_s()))
            told = _record_the_rest(lake, source, hour, seconds_max, on_progress, now_s, sleep)
    if hour not in read.hours(lake, "raw/book", source):
        raise TableEmpty(
            f"raw rows of {source} are needed for {hour_name(hour)}, found none"
            + (", and it is over: nobody can record it any more" if now_s() >= end_s else " so far")
            + "; python -m pipelines.generate writes the past of a simulated market, pipelines.imports what was bought"
        )
    if now_s() >= end_s:
        _wait_until_left(lake, source, hour, now_s() + SETTLE_S_MAX, now_s, sleep)
    report = write.seal(lake, source, hour)
    if not report.files:
        raise TableEmpty(
            f"a sealed hour is needed for {hour_name(hour)}, found it still being recorded by "
            f"{', '.join(report.living_sessions)}: it is sealed when it is over"
        )
    return Hour(
        rows={table: file.rows for table, file in report.files.items()},
        bytes=report.bytes,
        duplicates=report.duplicates + told.get("duplicates", 0),
        torn_bytes=report.torn_bytes + told.get("torn_bytes", 0),
        died=tuple(sorted({*report.dead_sessions, *told.get("died", ())})),
        recorded_s=told.get("seconds", 0.0),
    )


def _record_the_rest(
    lake: Path,
    source: str,
    hour: int,
    seconds_max: float | None,
    on_progress: Callable[[str], None],
    now_s: Callable[[], float],
    sleep: Callable[[float], None],
) -> dict[str, Any]:
    """See that somebody records until the hour is over; return what a recorder of our own said, {} without one."""
    until_s = float((hour + 1) * HOUR_S)
    if seconds_max is not None:
        until_s = min(until_s, max(now_s(), hour * HOUR_S) + seconds_max)
    beside: str | None = None
    while (left_s := until_s - now_s()) > 0:
        at_work = recorder_at_work(lake, source, hour, now_s())
        if at_work is None:
            # Without a limit the recorder itself knows when its hour is over.
            return record(lake, source, hour, None if seconds_max is None else left_s, on_progress)
        if at_work != beside:
            on_progress(f"{at_work} records {hour_name(hour)}: waiting beside it until {when(round(until_s))}")
            beside = at_work
        sleep(min(LOOK_S, left_s))
    return {}


def recorder_at_work(lake: Path, source: str, hour: int, now_s: float) -> str | None:
    """Return the living session that records an hour, or will when it begins; None where there is none."""
    ours = f"{hour_session(hour)}-"
    for log in wal_reading.find_logs(lake, source, hour):
        if log.state == "alive" and log.session_id.startswith((ours, f"{SERVICE}-")):
            return log.session_id
    if now_s < hour * HOUR_S:
        for log in wal_reading.find_logs(lake, source, hour - 1):
            if log.state == "alive" and log.session_id.startswith(f"{SERVICE}-"):
                return log.session_id
    return None


def wait_for_labels(
    lake: Path,
    source: str,
    hour: int,
    *,
    now_s: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait for the first minutes of the next hour, which decide the last labels of this one, where they are recorded.

    Five minutes at most: whoever records the hour has a run at its end, and should not need a second one.
    """
    needed_s = (hour + 1) * HOUR_S + ENTRY_DELAY_S + max(HORIZONS_S) + 2 * WRITE_S
    while (left_s := needed_s - now_s()) > 0 and (hour + 1) * HOUR_S <= now_s():
        if recorder_at_work(lake, source, hour + 1, now_s()) is None:
            return  # nobody will ever know
        sleep(min(LOOK_S, left_s))


@contextlib.contextmanager
def recording_lock(lake: Path, source: str, hour: int) -> Iterator[None]:
    """Hold the recording of one hour against other runs; the kernel lets go of it when the process dies.

    Raises:
        HourTaken: another run holds it.
    """
    # Hours of the day, as in `write.hour_lock`: locks are never removed, and their number is bounded.
    path = lake / ".lock" / f"recording-{layout.check_name(source, 'source')}-{hour % 24:02}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise HourTaken(
            f"{hour_name(hour)} of {source} must be recorded by one run, found another one at it: look at that one"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _wait_until_left(
    lake: Path,
    source: str,
    hour: int,
    until_s: float,
    now_s: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Wait until nobody writes to the logs of an hour that is over."""
    while any(log.state == "alive" for log in wal_reading.find_logs(lake, source, hour)) and now_s() < until_s:
        sleep(0.2)


def record(
    lake: Path, source: str, hour: int, seconds: float | None, on_progress: Callable[[str], None]
) -> dict[str, Any]:
    """Run the recorder of an hour and return its summary; an interrupted run stops it cleanly.

    Args:
        seconds: stop after so long; None: when the hour is over.

    Raises:
        RecorderFailed: it ended with an error, or recorded another source than was asked for.
    """
    command = [sys.executable, "-m", "pipelines.collect", "--lake", str(lake), "--hour", str(hour * HOUR_S)]
    if seconds is not None:
        command += ["--seconds", f"{max(1.0, seconds):.3f}"]
    # Files, not pipes: the recorder goes on when nobody listens any more.
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as told:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=answer,
            stderr=told,
        )
        last_words = _listen(process, told.fileno(), on_progress)
        answer.seek(0)
        lines = answer.read().decode().strip().splitlines()
    code = process.returncode
    if code != 0:
        raise RecorderFailed(
            last_words
            if last_words and code > 0
            else f"python -m pipelines.collect must end by itself, found it ended with {code}: what it had flushed is "
            "safe, trying again goes on with the hour",
            is_transient=code not in _PERMANENT,
        )
    summary: dict[str, Any] = json.loads(lines[-1])
    if summary["source"] != source:
        raise RecorderFailed(
            f"ticks of {source} were asked for, found {summary['source']} (MARKET and the simulator's settings decide):"
            f" set the resource's source to {summary['source']}, or change MARKET",
            is_transient=False,
        )
    return summary


def _listen(process: subprocess.Popen[bytes], told: int, on_progress: Callable[[str], None]) -> str:
    """Pass on what a process writes while it runs; return its last line. Whatever interrupts us stops it first.

    Args:
        told: file descriptor that it writes to. It shares our offset in it, so we read at one of our own.
    """
    last, pending, position = "", b"", 0
    try:
        while True:
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                is_over = False
            else:
                is_over = True
            while chunk := os.pread(told, 1 << 16, position):
                position += len(chunk)
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    last = line.decode(errors="replace").rstrip()
                    on_progress(last)
            if is_over:
                return pending.decode(errors="replace").rstrip() or last
    except BaseException:
        process.terminate()  # it seals
        process.wait(STOP_S_MAX)
        raise
