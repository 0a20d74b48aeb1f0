"""Market time runs X times as fast as real time; signatures may follow either clock."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SettingsError
from shared.simulator.clock import SPEED_MAX, SPEED_MIN, Clock
from shared.types import NS

START_NS = 1_795_330_800 * NS


class Machine:
    """The clocks of a machine that a test moves."""

    def __init__(self) -> None:
        self.wall_ns, self.monotonic_ns = START_NS, 77 * NS

    def clock(self, speed: float, start_ns: int | None = None) -> Clock:
        return Clock(speed, start_ns, wall_ns=lambda: self.wall_ns, monotonic_ns=lambda: self.monotonic_ns)

    def passes(self, ns: int) -> None:
        self.wall_ns, self.monotonic_ns = self.wall_ns + ns, self.monotonic_ns + ns


@given(st.floats(SPEED_MIN, SPEED_MAX), st.lists(st.integers(0, 3600 * NS), max_size=10))
def test_market_time_is_speed_times_elapsed(speed: float, steps: list[int]) -> None:
    """However the wall clock is read in between, market time is start + speed x elapsed, to the nanosecond."""
    machine = Machine()
    clock, began_s = machine.clock(speed), machine.monotonic_ns / NS
    last_ns = clock.now_ns()

    for step in steps:
        machine.passes(step)
        assert clock.now_ns() >= last_ns
        last_ns = clock.now_ns()

    assert last_ns == START_NS + int(sum(steps) * speed)
    assert clock.monotonic_s() - began_s == pytest.approx(sum(steps) / NS)
    assert clock.real_s(speed) == 1.0


def test_real_clock_is_the_machines() -> None:
    """At speed 1 market time is the very wall clock, so that it follows when that is set."""
    before_ns = time.time_ns()
    assert before_ns <= Clock().now_ns() <= time.time_ns()

    machine = Machine()
    clock = machine.clock(1.0)
    machine.wall_ns += 5 * NS  # somebody sets the clock; no time passes

    assert clock.now_ns() == START_NS + 5 * NS


@pytest.mark.parametrize(("speed", "start_ns"), [(50.0, None), (1.0, START_NS - 86_400 * NS)])
def test_client_may_follow_market_or_wall_clock(speed: float, start_ns: int | None) -> None:
    """Where the two differ both are told; where they are one, one."""
    machine = Machine()
    clock = machine.clock(speed, start_ns)
    machine.passes(60 * NS)

    assert clock.clocks_ms() == (clock.now_ms(), machine.wall_ns // 1_000_000)
    assert len(set(clock.clocks_ms())) == 2
    assert machine.clock(1.0).clocks_ms() == (machine.wall_ns // 1_000_000,)


@pytest.mark.parametrize("speed", [0.0, -1.0, SPEED_MAX * 1.01, float("nan"), float("inf")])
def test_impossible_speed_is_one_sentence(speed: float) -> None:
    """Expected, found, what to do."""
    with pytest.raises(SettingsError, match=r"the speed must be in .*, found .*: choose --speed"):
        Clock(speed)
