"""How sure the mean of trades is, when trades come in clusters.

A hundred trades are not a hundred observations: ten symbols are entered in one second and ride on one move of the
market, positions overlap for a horizon, and a signal is right or wrong for minutes on end. Drawing trades one by one
would take each as news of its own, and its interval would be several times too short. So time is drawn, in blocks:
whatever happened together stays together.

1. The window is cut into blocks of 60, 120, 240 … s as long as `BLOCKS_MIN` remain (a block outlasts the horizon). Each
   block has a sum and a count; the mean is Σ sums / Σ counts, so that a block without a trade has its part in how much
   the number of trades varies.
2. The standard error of that ratio comes from the blocks' residuals. The longest error over block lengths counts:
   too short a block takes one long cluster for many (batch means).
3. Blocks are drawn with replacement, `RESAMPLES` times; each draw has a mean and an error of its own, and the quantile
   of (mean* − mean) / error* stands in for the normal one (bootstrap-t: it knows of few blocks, skew and fat tails).

Sources: Künsch 1989 (blocks); Efron & Tibshirani 1993, §12.5 (bootstrap-t); Hall 1988 (why t: its bound's error falls
with 1/n, a percentile's with 1/√n). Everything is drawn from Philox(seed): the same trades give the same bound.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

import msgspec
import numpy as np

from shared.types import Floats, Ints

BLOCK_S: Final = 60
BLOCKS_MIN: Final = 16
RESAMPLES: Final = 9_999
SEED: Final = 7

_DRAWN_AT_ONCE: Final = 1_000  # a day of minutes is 12 MB then


class Bound(msgspec.Struct, frozen=True):
    """A mean, and what it is at least with a confidence."""

    mean: float  # NaN without an observation
    lower: float  # −inf where too few blocks have one
    standard_error: float
    n: int
    blocks: int  # that have observations
    block_s: int

    @property
    def is_known(self) -> bool:
        return math.isfinite(self.lower)


def lower_bound(second: Ints, value: Floats, start_s: int, end_s: int, *, confidence: float, seed: int = SEED) -> Bound:
    """Return the mean of values that happened at seconds of [start_s, end_s), with its lower confidence bound.

    Args:
        second: (n,) of each value, inside the window.
        value: (n,). One that is not finite makes the bound unknown: nothing is left out to look better.
        confidence: one-sided [1].
    """
    assert 0.5 < confidence < 1.0, confidence
    n = len(value)
    if not n or not np.isfinite(value).all():
        return Bound(math.nan, -math.inf, math.nan, n, 0, BLOCK_S)
    mean = float(value.mean())
    chosen: tuple[float, int, Floats, Floats] | None = None
    block_s = BLOCK_S
    while (end_s - start_s) // block_s >= BLOCKS_MIN:
        sums, counts = blocked(second, value, start_s, end_s, block_s)
        if (counts > 0).sum() < BLOCKS_MIN:
            break
        error = float(_errors(sums[None], counts[None], np.array([mean]))[0])
        if chosen is None or error > chosen[0]:
            chosen = error, block_s, sums, counts
        block_s *= 2
    if chosen is None:
        return Bound(mean, -math.inf, math.nan, n, 0, BLOCK_S)
    error, block_s, sums, counts = chosen
    n_blocks = int((counts > 0).sum())
    if not error > 0.0:  # every block says the same to the bit: nothing to be unsure of, and nothing to learn it from
        return Bound(mean, -math.inf, 0.0, n, n_blocks, block_s)
    quantile = _quantile(sums, counts, mean, confidence, seed)
    return Bound(mean, mean - quantile * error, error, n, n_blocks, block_s)


def blocked(second: Ints, value: Floats, start_s: int, end_s: int, block_s: int) -> tuple[Floats, Floats]:
    """Return (sums, counts) of whole blocks; what is left at the end joins the last one."""
    n_blocks = (end_s - start_s) // block_s
    at = np.minimum((second - start_s) // block_s, n_blocks - 1)
    return np.bincount(at, value, n_blocks).astype(np.float64), np.bincount(at, minlength=n_blocks).astype(np.float64)


def _errors(sums: Floats, counts: Floats, mean: Floats) -> Floats:
    """Return the standard error of Σ sums / Σ counts of each row (ratio estimator, Cochran 1977, §2.11)."""
    n_blocks = sums.shape[1]
    residual = sums - mean[:, None] * counts
    total = counts.sum(axis=1)
    return np.asarray(np.sqrt(n_blocks / (n_blocks - 1.0) * (residual**2).sum(axis=1)) / total)


def _quantile(sums: Floats, counts: Floats, mean: float, confidence: float, seed: int) -> float:
    """Return the quantile of the studentised mean of drawn blocks, never below the normal one."""
    generator = np.random.Generator(np.random.Philox(seed))
    n_blocks = len(sums)
    studentised = []
    for begin in range(0, RESAMPLES, _DRAWN_AT_ONCE):
        drawn = generator.integers(0, n_blocks, (min(_DRAWN_AT_ONCE, RESAMPLES - begin), n_blocks))
        sums_drawn, counts_drawn = sums[drawn], counts[drawn]
        total = counts_drawn.sum(axis=1)
        usable = total > 0
        means = sums_drawn[usable].sum(axis=1) / total[usable]
        errors = _errors(sums_drawn[usable], counts_drawn[usable], means)
        studentised.append(((means - mean)[errors > 0]) / errors[errors > 0])
    ordered = np.sort(np.concatenate(studentised))
    place = min(len(ordered) - 1, math.ceil(confidence * (len(ordered) + 1)) - 1)
    return max(float(ordered[place]), NormalDist().inv_cdf(confidence))
