"""Who trades before a resting order: models of its place in the queue, which nobody publishes.

Level 2 data says how much rests at a price, not whose it is. A model keeps the size *ahead* of ours: all of the level
when we join, less with every trade at our price, and less with what leaves the level otherwise. Of that last part
nobody knows whether it stood before or behind us, and there the models differ:

* `RiskAverse`: it stood behind us, as long as that is possible. Only trades advance us, and a level that has become
  smaller than our queue. Fills come late and rarely: a lower bound.
* `PowerProbability` (Rigtorp 2013; hftbacktest's `ProbQueueModel` with `PowerProbQueueFunc`): a share f(behind) /
  (f(behind) + f(ahead)) of it stood behind us, f(x) = xⁿ. With n = 1 every piece of the queue is as likely to leave as
  any other: a level that shrinks shrinks before us and behind us pro rata. A larger n lets more leave where more
  stands: kinder to who has just joined, harsher to who is nearly first.
* `LogProbability` (Rigtorp 2013; hftbacktest's `LogProbQueueFunc`): the same with f(x) = ln(1 + x), the base coin being
  the unit. The share moves towards one half: who stands far behind moves up more slowly than pro rata, as where market
  by order data shows who leaves, mostly the back of a queue does.

With a probability, what trades have taken is not counted twice: the volume traded since the last change of the level is
subtracted from the next change.

All assume price-time priority, that nobody joins before us, that cancels are not aimed at us, and that our order does
not change what others do. Floats: a queue is an estimate, not money.

To extend: a model is a Struct whose `join` returns a `Place`; another probability is a function f of a size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Protocol

import msgspec


class Place(Protocol):
    """One order's place in the queue of its price."""

    ahead: float

    def traded(self, size: float) -> None:
        """Count a trade at our price that hit our side."""
        ...

    def changed(self, before: float, after: float) -> None:
        """Count that the level has another size now."""
        ...


class RiskAverse(msgspec.Struct, frozen=True, tag="risk_averse", forbid_unknown_fields=True):
    """What leaves the level stood behind us."""

    def join(self, ahead: float) -> Place:
        return _RiskAverse(ahead)

    def words(self) -> str:
        return "risk_averse"


class PowerProbability(msgspec.Struct, frozen=True, tag="power", forbid_unknown_fields=True):
    """What leaves the level stood behind us with a probability that grows with the share behind us."""

    n: Annotated[float, msgspec.Meta(gt=0.0, le=10.0)] = 3.0

    def join(self, ahead: float) -> Place:
        return _Probable(ahead, self._weight)

    def words(self) -> str:
        return f"power (n {self.n:g})"

    def _weight(self, size: float) -> float:
        weight: float = size**self.n
        return weight


class LogProbability(msgspec.Struct, frozen=True, tag="log", forbid_unknown_fields=True):
    """As `PowerProbability`, by the logarithm of a size in base coin: the same size weighs less where much stands."""

    def join(self, ahead: float) -> Place:
        return _Probable(ahead, math.log1p)

    def words(self) -> str:
        return "log"


QueueModel = RiskAverse | PowerProbability | LogProbability
"""`words` names it for a report."""


class _RiskAverse:
    __slots__ = ("ahead",)

    def __init__(self, ahead: float) -> None:
        self.ahead = ahead

    def traded(self, size: float) -> None:
        self.ahead -= size

    def changed(self, before: float, after: float) -> None:
        self.ahead = min(self.ahead, after)


class _Probable:
    """A place that moves up by a share of what leaves the level.

    Args:
        weight: f; what leaves stood behind us with probability f(behind) / (f(behind) + f(ahead)).
    """

    __slots__ = ("_traded", "_weight", "ahead")

    def __init__(self, ahead: float, weight: Callable[[float], float]) -> None:
        self.ahead, self._weight = ahead, weight
        self._traded = 0.0  # since the level last changed: its next change contains it

    def traded(self, size: float) -> None:
        self.ahead -= size
        self._traded += size

    def changed(self, before: float, after: float) -> None:
        left = before - after - self._traded
        self._traded = 0.0
        if left < 0.0:  # the level has grown: whoever came stands behind us
            self.ahead = min(self.ahead, after)
            return
        behind = before - self.ahead
        share = self._share_behind(behind)
        # What would be taken from behind us and is not there was ahead of us.
        self.ahead = min(self.ahead - (1.0 - share) * left + min(behind - share * left, 0.0), after)

    def _share_behind(self, behind: float) -> float:
        """Return f(behind) / (f(behind) + f(ahead)), 1 where the level is empty; a negative size is none."""
        weight_behind, weight_ahead = self._weight(max(behind, 0.0)), self._weight(max(self.ahead, 0.0))
        total = weight_behind + weight_ahead
        return weight_behind / total if total > 0.0 else 1.0
