"""The exploration budget: so many bps of equity a UTC day, in expectation, and not one more.

An entry that was chosen for what it teaches costs, in expectation, what the entry that it displaced was believed to
earn more, on its own notional:

    cost [bps of equity] = (shortfall_bps + FLOOR_BPS) · notional / equity

FLOOR_BPS is charged on top, because a belief that two arms are equal is no proof of it, and without it equal beliefs
would make exploring free. A decision asks beforehand with the largest notional it could have (`affords`), and is
charged with the one that was sent (`charge`), so the sum of a day never exceeds the budget, whatever happens in which
order. What was spent is part of the state. A clock that goes back does not give the day back.
"""

from __future__ import annotations

from typing import Final

from shared.strategy.bandit.state import Spent
from shared.types import NS

FLOOR_BPS: Final = 0.5
_DAY_NS: Final = 86_400 * NS


class Budget:
    def __init__(self, bps_per_day: float, spent: Spent | None = None) -> None:
        self._bps_per_day = bps_per_day
        self._day = spent.day if spent is not None else -1
        self._spent_bps = spent.bps if spent is not None else 0.0

    def state(self) -> Spent:
        return Spent(day=self._day, bps=self._spent_bps)

    def left_bps(self, now_ns: int) -> float:
        """Return what the day of `now_ns` has left, >= 0; a new day begins with all of it."""
        day = now_ns // _DAY_NS
        if day > self._day:
            return self._bps_per_day
        return max(self._bps_per_day - self._spent_bps, 0.0)

    def charge(self, now_ns: int, cost_bps: float) -> bool:
        """Spend; False: the day has not so much left, and nothing was spent."""
        assert cost_bps >= 0.0, f"exploration never earns its own budget, found {cost_bps}"
        day = now_ns // _DAY_NS
        spent = 0.0 if day > self._day else self._spent_bps
        if not spent + cost_bps <= self._bps_per_day:
            return False
        self._day, self._spent_bps = max(day, self._day), spent + cost_bps
        return True
