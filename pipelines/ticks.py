"""An hour of raw rows: sealed where it was recorded, recorded where it is not over yet.

The recorder is a process of its own (`python -m pipelines.collect`): it survives nothing of ours, seals when it is told
to stop, and its words are passed on. Two hourly runs overlap at the border, because a run may begin before its
hour: it connects `CONNECT_S` seconds early and stays `LEAVE_S` longer, so that nothing is lost between them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from shared.errors import CrosscutError, TableEmpty
from shared.lake import read, write
from shared.lake.layout import HOUR_S, hour_name
from shared.settings import ROOT

CONNECT_S = 15
LEAVE_S = 2
STOP_S_MAX = 120


class Hour(msgspec.Struct, frozen=True):
    """What one raw hour holds after sealing."""

    rows: dict[str, int]  # raw table -> rows
    bytes: int
    duplicates: int  # removed by this seal
    recorded_s: float  # by this call; 0: it was only sealed


class RecorderFailed(CrosscutError):
    """`python -m pipelines.collect` ended badly; its last words are the message."""


def seal_or_record(
    lake: Path,
    source: str,
    hour: int,
    *,
    seconds_max: float | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
    now_s: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Hour:
    """Leave one raw hour sealed and say what it holds.

    Args:
        seconds_max: record no longer than this; None: to the end of the hour.

    Raises:
        TableEmpty: nobody recorded it and it is over, or it is too far ahead.
        RecorderFailed: the recorder could not.
    """
    recorded_s = 0.0
    if hour not in read.hours(lake, "raw/book", source):
        now = now_s()
        if now >= (hour + 1) * HOUR_S:
            raise TableEmpty(
                f"raw rows of {source} are needed for {hour_name(hour)}, found none, and it is over: "
                "only python -m pipelines.generate can still fill it, on a simulated market"
            )
        if now < hour * HOUR_S - HOUR_S:
            raise TableEmpty(f"{hour_name(hour)} begins in more than an hour: materialise it when it is near")
        sleep(max(0.0, hour * HOUR_S - CONNECT_S - now))
        length_s = (hour + 1) * HOUR_S + LEAVE_S - now_s()
        if seconds_max is not None:
            length_s = min(length_s, max(0.0, hour * HOUR_S - now_s()) + seconds_max)
        told = record(lake, source, length_s, on_progress)
        recorded_s = float(told["seconds"])
    reports = [write.seal(lake, source, hour)] if hour in read.hours(lake, "raw/book", source) else []
    if not reports:
        raise TableEmpty(f"raw rows of {source} are needed for {hour_name(hour)}, found none after recording")
    return Hour(
        rows={table: file.rows for table, file in reports[0].files.items()},
        bytes=reports[0].bytes,
        duplicates=reports[0].duplicates,
        recorded_s=recorded_s,
    )


def record(lake: Path, source: str, seconds: float, on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Run the recorder for so long and return its summary; an interrupted run stops it cleanly.

    Raises:
        RecorderFailed: it ended with an error, or recorded another source than was asked for.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.collect", "--lake", str(lake), "--seconds", f"{max(1.0, seconds):.3f}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    words: list[str] = []
    try:
        for line in process.stderr:
            words.append(line.rstrip())
            on_progress(line.rstrip())
        answer = process.stdout.read()
        code = process.wait()
    except BaseException:
        process.terminate()  # it seals
        process.wait(STOP_S_MAX)
        raise
    if code != 0:
        raise RecorderFailed(words[-1] if words else f"python -m pipelines.collect ended with {code} and no word")
    told: dict[str, Any] = json.loads(answer.strip().splitlines()[-1])
    if told["source"] != source:
        raise RecorderFailed(
            f"ticks of {source} were asked for, found {told['source']} (MARKET and the simulator's settings decide): "
            f"set the resource's source to {told['source']}, or change MARKET"
        )
    return told
