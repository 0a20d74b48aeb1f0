"""Who trades before a resting order: models of its place in the queue, which nobody publishes.

Level 2 data says how much rests at a price, not whose it is. A model keeps the size *ahead* of ours: all of the level
when we join, less with every trade at our price, and less with what leaves the level otherwise. Of that last part
nobody knows whether it stood before or behind us, and there the models differ:

* `RiskAverse`: it stood behind us, as long as that is possible. Only trades advance us, and a level that has become
  smaller than our queue. Fills come late and rarely: a lower bound.
* `PowerProbability` (Rigtorp 2013; hftbacktest's `ProbQueueModel` with `PowerProbQueueFunc`): a share f(behind) /
  (f(behind) + f(ahead)) of it stood behind us, f(x) = xⁿ. What trades have taken is not counted twice: the volume
  traded since the last change of the level is subtracted from the next change.

Both assume that nobody joins before us, that cancels are not aimed at us, and that our order does not change what
others do. Floats: a queue is an estimate, not money.

To extend: a model is a Struct whose `join` returns a `Place`.
"""

from __future__ import annotations

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


class PowerProbability(msgspec.Struct, frozen=True, tag="power", forbid_unknown_fields=True):
    """What leaves the level stood behind us with a probability that grows with the share behind us."""

    n: Annotated[float, msgspec.Meta(gt=0.0, le=10.0)] = 3.0

    def join(self, ahead: float) -> Place:
        return _Power(ahead, self.n)


QueueModel = RiskAverse | PowerProbability


class _RiskAverse:
    __slots__ = ("ahead",)

    def __init__(self, ahead: float) -> None:
        self.ahead = ahead

    def traded(self, size: float) -> None:
        self.ahead -= size

    def changed(self, before: float, after: float) -> None:
        self.ahead = min(self.ahead, after)


class _Power:
    __slots__ = ("_n", "_traded", "ahead")

    def __init__(self, ahead: float, n: float) -> None:
        self.ahead, self._n = ahead, n
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
        share = _share_behind(self.ahead, behind, self._n)
        # What would be taken from behind us and is not there was ahead of us.
        self.ahead = min(self.ahead - (1.0 - share) * left + min(behind - share * left, 0.0), after)


def _share_behind(ahead: float, behind: float, n: float) -> float:
    """Return f(behind) / (f(behind) + f(ahead)), 1 where the level is empty; a negative size is none."""
    behind_n, ahead_n = max(behind, 0.0) ** n, max(ahead, 0.0) ** n
    total = behind_n + ahead_n
    return behind_n / total if total > 0.0 else 1.0
