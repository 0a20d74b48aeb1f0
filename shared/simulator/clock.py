"""The simulator's time: real, or faster or slower than real.

*Market time* (`now_ns`) is what the exchange lives in: seconds of the market, `serverTime`, time stamps of pushes,
orders and funding. At speed X it passes X times as fast as the wall clock, from `start_ns` on.

*Real time* (`monotonic_s`) is what clients live in, and what the rules of a connection are measured in at any speed:
calls and messages per second, connects per five minutes, the cut after two minutes without a ping. A client that sends
ten messages a second and pings every half minute by its own clock keeps those rules, however fast the market runs.

A signature is in time when its stamp is near either of the two clocks (`clocks_ms`): our own clients and ccxt sign with
the wall clock, a client that asks `serverTime` first signs with market time, and both must be able to log in.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from shared.errors import SettingsError
from shared.types import NS

MS = 1_000_000

SPEED_MIN, SPEED_MAX = 0.01, 100.0
"""A block of five minutes of 600 symbols takes seconds to compute: at 100 it is consumed in three."""


class Clock:
    """Market time and real time.

    Args:
        speed: market seconds per real second, in [SPEED_MIN, SPEED_MAX].
        start_ns: market time at construction; None: the wall clock's.
        wall_ns, monotonic_ns: where real time comes from; a test gives its own.

    Raises:
        SettingsError: the speed is out of bounds.
    """

    def __init__(
        self,
        speed: float = 1.0,
        start_ns: int | None = None,
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if not (math.isfinite(speed) and SPEED_MIN <= speed <= SPEED_MAX):
            raise SettingsError(
                f"the speed must be in [{SPEED_MIN:g}, {SPEED_MAX:g}], found {speed:g}: choose --speed in between"
            )
        self.speed = speed
        self._wall_ns, self._monotonic_ns = wall_ns, monotonic_ns
        self._is_wall = speed == 1.0 and start_ns is None
        self._start_ns = wall_ns() if start_ns is None else start_ns
        self._begin_ns = monotonic_ns()
        self.skew_ms = 0
        """The exchange's clock is ahead of market time by so much; it tells, and judges signatures, by its clock."""

    def now_ns(self) -> int:
        """Return market time."""
        if self._is_wall:  # not start + elapsed: the two clocks of a machine drift, and clients read this one
            return self._wall_ns()
        elapsed_ns = self._monotonic_ns() - self._begin_ns
        return self._start_ns + int(elapsed_ns * self.speed)

    def now_ms(self) -> int:
        return self.now_ns() // MS

    def told_ms(self) -> int:
        """Return what the exchange says the time is."""
        return self.now_ms() + self.skew_ms

    def monotonic_s(self) -> float:
        """Return real seconds since an arbitrary instant; never goes back."""
        return self._monotonic_ns() / NS

    def real_ns(self) -> int:
        """Return the same in nanoseconds."""
        return self._monotonic_ns()

    def real_s(self, market_s: float) -> float:
        """Return how many real seconds so much market time takes."""
        return market_s / self.speed

    def clocks_ms(self) -> tuple[int, ...]:
        """Return what a client may think the time is: market time and, where that differs, the wall clock's."""
        return (self.told_ms(),) if self._is_wall else (self.told_ms(), self._wall_ns() // MS + self.skew_ms)
