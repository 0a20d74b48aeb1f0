"""Was it choosing or knowing: the probability of backtest overfitting, over ideas and not over copies.

CSCV asks where the best trial of one half of the minutes stands in the other half. Twenty trials of a search are nearly
one and the same strategy: among them the best is anybody, its rank in the other half is a coin, and a good model would
be refused for having been looked for. And with one trial alone nothing could be said. So

1. trials whose minutes correlate by `SAME` or more with one before them are one idea. The judged one stands for its
   own, the best of each other idea for that: a bad variant that somebody tried says nothing against a good one, and the
   comparison is with the best of what else there is;
2. not trading is an idea of its own. Whoever is not better than that in the other half has lost.

How many were tried is not forgotten by this: the deflated Sharpe counts them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pipelines.evidence import Overfitting, overfitting
from pipelines.trials import BLOCKS
from shared.types import Floats

SAME: Final = 0.5


def ideas(performance: Floats) -> Floats:
    """Return (T, ideas): the first is that of the first column; a column that never varies is not trading, no idea."""
    varies = performance[:, performance.std(axis=0) > 0]
    left = list(range(varies.shape[1]))
    if not left:
        return varies
    sharpes = varies.mean(axis=0) / varies.std(axis=0)
    correlation = np.atleast_2d(np.corrcoef(varies, rowvar=False))
    # The judged one first, then the best of what is left: each takes those that resemble it along.
    left = [left[0], *sorted(left[1:], key=lambda k: -sharpes[k])]
    found = []
    while left:
        best = left[0]
        found.append(best)
        left = [k for k in left[1:] if correlation[best, k] < SAME]
    return varies[:, found]


def choosing(performance: Floats, *, n_blocks: int = BLOCKS) -> Overfitting:
    """Return the probability of backtest overfitting among the ideas of all trials and not trading.

    Args:
        performance: (T, N) returns of one period, a column a trial.

    `n_trials` of what is returned counts ideas, without not trading.
    """
    different = ideas(performance)
    idle = np.zeros((len(performance), 1))
    found = overfitting(np.concatenate([different, idle], axis=1), n_blocks=n_blocks)
    return Overfitting(found.probability, found.logits, found.loss, found.slope, different.shape[1])
