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

from shared.strategy import ranking
from shared.strategy.bandit.budget import FLOOR_BPS
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
    exploiting, best = best_of(worth_bps[None], ties, slots)
    chosen, order = best_of(values, ties, slots)
    exploiting, best = exploiting[0], best[0]
    best_bps = np.cumsum(worth_bps[best])[-1]  # one after the other: the same bits on every CPU
    n_explored = (chosen & ~exploiting).sum(axis=1)
    # Rounding must not make a choice cheaper than free.
    shortfall = np.maximum(best_bps - np.cumsum(worth_bps[order], axis=1)[:, -1], 0.0)
    cost_bps = np.where(n_explored > 0, share_max * (shortfall + FLOOR_BPS * n_explored), 0.0)
    last = order[:, -1]
    is_dear = ~(cost_bps <= left_bps)
    if is_dear.any():
        values = np.where(is_dear[:, None], worth_bps, values)
        chosen = np.where(is_dear[:, None], exploiting, chosen)
        last = np.where(is_dear, best[-1], last)
        cost_bps = np.where(is_dear, 0.0, cost_bps)

    eligible = np.zeros((m, n), np.bool_)
    eligible[np.arange(m), last] = True
    if epsilon > 0.0 and left_bps > 0.0:
        # What a candidate is worth to the books: an explored one has the floor on top.
        price = worth_bps - FLOOR_BPS * ~exploiting
        after = cost_bps[:, None] + share_max * (price[last][:, None] - price)
        eligible |= ~chosen & (after <= left_bps)
    return Lottery(values, chosen, last, eligible, epsilon, exploiting, worth_bps)


def best_of(values: Floats, ties: Floats, slots: int) -> tuple[Mask, NDArray[np.intp]]:
    """Return the best `slots` of each row, as a mask (M, n) and in order (M, slots): by value, then tie, then place."""
    if len(values) == 1:
        order = ranking.first_of(values[0], lambda: ties, slots)[None]
    else:
        first = np.argsort(ties, kind="stable")
        order = first[np.argsort(-values[:, first], axis=1, kind="stable")[:, :slots]]
    chosen = np.zeros(values.shape, np.bool_)
    chosen[np.arange(len(values))[:, None], order] = True
    return chosen, order
