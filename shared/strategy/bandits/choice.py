"""Choose the slots of one side, and say with which probability each candidate was chosen: exactly, not by simulation.

What is random, given everything that was known:

1. A *proposal*: one of M value vectors, each with probability 1/M, and the best `slots` of it. Net edge alone and UCB
   have M = 1. Thompson has M draws, all made before one of them is picked: given these draws, which are part of what
   is known, the share of them that chooses a candidate *is* its probability. No count of simulations, no error.
2. With probability ε the last of them gives its slot to a candidate picked evenly among those that did not make it, so
   that every candidate that the budget can pay for has a chance above 0, and what would have been can be estimated.

A proposal that costs more than the budget has left becomes the *exploiting* choice, and candidates that cost more
are not among those that step 2 picks from: both are known before the dice fall, so the probabilities stay exact.

Costs are what the candidates are worth to somebody who does not explore (`worth_bps`), best choice minus choice.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.strategy.bandits.budget import FLOOR_BPS
from shared.types import Floats

Mask = NDArray[np.bool_]


class Lottery(msgspec.Struct, frozen=True):
    """A side's choice before the dice fall: n candidates, M proposals."""

    values: Floats  # (M, n), what each proposal ranks by; the exploiting values where it was too dear
    chosen: Mask  # (M, n), the best `slots` of each
    last: NDArray[np.intp]  # (M,), the one whose slot may be given away
    eligible: Mask  # (M, n), who may get it, the last itself included
    epsilon: float
    exploiting: Mask  # (n,), what somebody who does not explore would choose
    worth_bps: Floats  # (n,)

    @property
    def probability(self) -> Floats:
        """Return with which probability each candidate gets a slot, (n,)."""
        m = len(self.chosen)
        kept = self.chosen.copy()
        kept[np.arange(m), self.last] = False
        n_eligible = self.eligible.sum(axis=1, keepdims=True)
        given = (1.0 - self.epsilon) * self.chosen + self.epsilon * self.eligible / n_eligible
        given = np.where(kept | (self.chosen & (n_eligible == 1)), 1.0, given)  # sure is 1, not 0.95 + 0.05
        total: Floats = np.cumsum(given, axis=0)[-1] / m
        return total

    def draw(self, u_proposal: float, u_swap: float, u_pick: Floats) -> tuple[Mask, Floats]:
        """Let the dice fall: return who gets a slot, (n,), and values that rank exactly those first.

        Args:
            u_proposal, u_swap: uniform in (0, 1).
            u_pick: (n,), uniform: the smallest of those that are eligible is picked.
        """
        r = min(int(u_proposal * len(self.chosen)), len(self.chosen) - 1)
        chosen, values = self.chosen[r].copy(), self.values[r].copy()
        last = int(self.last[r])
        if u_swap < self.epsilon:
            picked = int(np.argmin(np.where(self.eligible[r], u_pick, 2.0)))
            if picked != last:
                chosen[last], chosen[picked] = False, True
                # Just above the last's old value: whoever tied with the last still loses.
                values[picked] = np.nextafter(values[last], np.inf)
                values[last] = -np.inf
        return chosen, values

    def shortfalls(self, chosen: Mask) -> list[tuple[int, float]]:
        """Return (explored candidate, bps it is worth less than the one it displaced), best with best.

        The sum over a choice is its cost per notional, plus `FLOOR_BPS` each.
        """
        explored = np.flatnonzero(chosen & ~self.exploiting)
        displaced = np.flatnonzero(self.exploiting & ~chosen)
        if not len(explored):
            return []
        explored = explored[np.argsort(-self.worth_bps[explored], kind="stable")]
        displaced = displaced[np.argsort(-self.worth_bps[displaced], kind="stable")]
        short = np.maximum(self.worth_bps[displaced] - self.worth_bps[explored], 0.0)
        return list(zip(explored.tolist(), short.tolist(), strict=True))


def lottery(
    values: Floats, worth_bps: Floats, ties: Floats, slots: int, *, epsilon: float, share_max: float, left_bps: float
) -> Lottery:
    """Return the choice of `slots` candidates out of n > slots >= 1, as lots.

    Args:
        values: (M, n), what the proposals rank by.
        worth_bps: (n,), what somebody who does not explore ranks by.
        ties: (n,), uniform: who is first among equals.
        epsilon: probability of a swap [1].
        share_max: the most that one entry's notional can be [1 of equity].
        left_bps: what exploring may cost here, bps of equity.
    """
    m, n = values.shape
    assert 1 <= slots < n, f"{n} candidates for {slots} slots need no lots"
    exploiting = best_of(worth_bps[None], ties, slots)[0][0]
    chosen, last = best_of(values, ties, slots)
    best_bps = _sum(np.where(exploiting, worth_bps, 0.0)[None])[0]

    def cost_bps(masks: Mask) -> Floats:
        n_explored = (masks & ~exploiting).sum(axis=1)
        worth = _sum(np.where(masks, worth_bps, 0.0))
        # Rounding must not make a choice cheaper than free.
        cost: Floats = share_max * (np.maximum(best_bps - worth, 0.0) + FLOOR_BPS * n_explored)
        return cost

    cost = cost_bps(chosen)
    is_dear = ~(cost <= left_bps)
    if is_dear.any():
        values = np.where(is_dear[:, None], worth_bps, values)
        chosen = np.where(is_dear[:, None], exploiting, chosen)
        last = np.where(is_dear, best_of(worth_bps[None], ties, slots)[1][0], last)
        cost = np.where(is_dear, 0.0, cost)

    rows = np.arange(m)
    eligible = np.zeros((m, n), np.bool_)
    eligible[rows, last] = True
    if epsilon > 0.0 and left_bps > 0.0:
        extra = worth_bps[last][:, None] - worth_bps
        floor = FLOOR_BPS * ((~exploiting)[None].astype(np.float64) - (~exploiting)[last][:, None])
        after = cost[:, None] + share_max * (extra + floor)
        eligible |= ~chosen & (after <= left_bps)
    return Lottery(values, chosen, last, eligible, epsilon, exploiting, worth_bps)


def best_of(values: Floats, ties: Floats, slots: int) -> tuple[Mask, NDArray[np.intp]]:
    """Return the best `slots` of each row, (M, n), and the last of them, (M,): as `ranking.best` orders them."""
    order = np.lexsort((np.broadcast_to(ties, values.shape), -values), axis=-1)
    chosen = np.zeros(values.shape, np.bool_)
    np.put_along_axis(chosen, order[:, :slots], True, axis=1)
    return chosen, order[:, slots - 1]


def _sum(rows: Floats) -> Floats:
    total: Floats = np.cumsum(rows, axis=1)[:, -1]  # one after the other: the same bits on every CPU
    return total
