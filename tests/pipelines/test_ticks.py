"""An hour of raw rows: sealed, recorded, or refused; by a recorder that is a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipelines import ticks
from pipelines.ticks import CONNECT_S, LEAVE_S, RecorderFailed, record, seal_or_record
from shared.errors import TableEmpty
from tests.pipelines.conftest import World
from tests.pipelines.markets import HOUR


def test_recorded_hour_is_sealed_and_not_recorded_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rows are, nothing is recorded, whatever the clock says."""
    monkeypatch.setattr(ticks, "record", None)

    hour = seal_or_record(world.lake, world.source, world.hours[0], now_s=lambda: world.start_s + 10.0)

    assert hour.recorded_s == 0
    assert all(rows > 0 for rows in hour.rows.values())


@pytest.mark.parametrize(
    ("now_s", "words"), [((HOUR + 1) * 3600, "it is over"), ((HOUR - 1) * 3600 - 1, "begins in more")]
)
def test_hour_that_cannot_be_recorded_is_refused(tmp_path: Path, now_s: int, words: str) -> None:
    """The past cannot be recorded any more, and the far future not yet."""
    with pytest.raises(TableEmpty, match=words):
        seal_or_record(tmp_path, "bitget", HOUR, now_s=lambda: float(now_s))


@pytest.mark.parametrize(
    ("at_s", "slept_s", "length_s"),
    [(-60, 60 - CONNECT_S, 3600 + CONNECT_S + LEAVE_S), (600, 0, 3000 + LEAVE_S)],
)
def test_recorder_overlaps_the_borders_of_its_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_s: int, slept_s: int, length_s: int
) -> None:
    """It connects before the hour and leaves after it; in mid-hour it records what is left."""
    clock, slept, lengths = [float(HOUR * 3600 + at_s)], [], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    def recorder(lake: Path, source: str, seconds: float, on_progress: object) -> dict[str, float]:
        lengths.append(seconds)
        return {"seconds": seconds}

    monkeypatch.setattr(ticks, "record", recorder)

    with pytest.raises(TableEmpty, match="found none after recording"):
        seal_or_record(tmp_path, "bitget", HOUR, now_s=lambda: clock[0], sleep=sleep)

    assert slept == [slept_s]
    assert lengths == [length_s]


def test_failed_recorder_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line of its stderr is the message."""
    script = tmp_path / "python"
    script.write_text(
        "#!/bin/sh\necho progress >&2\necho 'the exchange must answer, found silence: wait' >&2\nexit 6\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    heard: list[str] = []

    with pytest.raises(RecorderFailed, match="the exchange must answer"):
        record(tmp_path, "bitget", 1.0, heard.append)

    assert heard[0] == "progress"


def test_other_source_than_asked_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks of one market are never taken for those of another."""
    script = tmp_path / "python"
    script.write_text('#!/bin/sh\necho \'{"source": "simulator-g7-40", "seconds": 1}\'\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))

    with pytest.raises(RecorderFailed, match="ticks of bitget were asked for, found simulator-g7-40"):
        record(tmp_path, "bitget", 1.0, lambda line: None)
