"""Checks of an hour, on lakes that are made for them: what turns red, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import checks
from shared.lake import coverage, write
from shared.types import NS, TickEvent
from tests.shared.lake import receipts as r
from tests.shared.lake.test_wal import open_log

START_NS = r.HOUR * r.HOUR_NS + 5 * NS


def recorded(lake: Path, seconds: int, silence: tuple[int, int] | None = None) -> None:
    """Record and seal some seconds from the beginning of the hour; none of a silence, in which the link is down."""
    write.write_universe(lake, r.universe())
    log = open_log(lake, "a")
    end_ns = START_NS + seconds * NS
    parts = [r.links(TickEvent.SUBSCRIBED, START_NS)]
    spans = [(START_NS, end_ns)]
    if silence is not None:
        down_ns, up_ns = (START_NS + s * NS for s in silence)
        parts += [r.links(TickEvent.DISCONNECTED, down_ns), r.links(TickEvent.SUBSCRIBED, up_ns)]
        spans = [(START_NS, down_ns), (up_ns, end_ns)]
    parts += [r.receipts(1, begin_ns, until_ns, per_s=1.0) for begin_ns, until_ns in spans]
    log.append(r.concat(parts))
    log.set_aside([(START_NS, "ticker push", "unknown field rpi", "{}", 1)] if silence else [])
    log.close(end_ns)
    write.seal(lake, r.SOURCE, r.HOUR)
    coverage.write_coverage(lake, r.SOURCE, r.HOUR)


@pytest.mark.parametrize(
    ("seconds", "silence", "passes"),
    [(600, None, True), (600, (130, 400), False), (40, None, True), (90, None, True)],
    ids=["whole", "gap", "begun", "two minutes"],
)
def test_coverage_is_judged_by_whole_minutes(
    seconds: int, silence: tuple[int, int] | None, passes: bool, tmp_path: Path
) -> None:
    """A gap of minutes turns red; an hour of which only the border was recorded is not judged."""
    recorded(tmp_path, seconds, silence)

    passed, metadata = checks.coverage_share(tmp_path, r.SOURCE, r.HOUR)

    assert passed == passes, metadata


def test_what_was_not_understood_turns_red(tmp_path: Path) -> None:
    """One payload with an unknown field is enough, and the check says what it was; an hour without passes."""
    recorded(tmp_path / "clean", 60)
    assert checks.unknown_payloads(tmp_path / "clean", r.SOURCE, r.HOUR) == (True, {"payloads": 0})

    recorded(tmp_path / "strange", 60, (10, 20))
    passed, metadata = checks.unknown_payloads(tmp_path / "strange", r.SOURCE, r.HOUR)
    assert not passed
    assert metadata == {"payloads": 1, "kinds": 1, "most": "ticker push: unknown field rpi"}
