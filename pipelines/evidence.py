"""How much a result is worth after everything that was tried: the statistics that a promotion is decided with.

Pure functions of numbers; who tried how much is found in MLflow (`pipelines.tracking`), never told by hand.

    probabilistic_sharpe   P(true Sharpe > benchmark), for returns that are skewed and fat-tailed
    expected_max_sharpe    what the best of N worthless trials shows
    deflated_sharpe        the first with the second as its benchmark
    track_record_min       observations until the first is convinced
    overfitting            probability that the best in sample is below the median out of sample (CSCV)
    calibration_error      how far probabilities are from frequencies

Sharpe ratios are those of one period, never annualised: an annualised one hides how many observations there are.

Sources: Bailey & López de Prado, "The Sharpe Ratio Efficient Frontier", Journal of Risk 15(2), 2012; the same, "The
Deflated Sharpe Ratio", Journal of Portfolio Management 40(5), 2014; Bailey, Borwein, López de Prado & Zhu, "The
Probability of Backtest Overfitting", Journal of Computational Finance 20(4), 2017; Naeini, Cooper & Hauskrecht,
"Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015. Their worked examples are tests.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from itertools import combinations
from statistics import NormalDist

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.types import Floats

_NORMAL = NormalDist()
_EULER = 0.577215664901532861


class Moments(msgspec.Struct, frozen=True):
    """What the Sharpe statistics need of a series of returns."""

    sharpe: float  # mean / standard deviation, of one period
    skew: float
    kurtosis: float  # 3 for a normal distribution
    n: int


def moments(returns: Floats) -> Moments:
    """Return the moments of a series of returns; every figure is NaN below three values or without variance."""
    n = len(returns)
    if n < 3 or returns.min() == returns.max():  # not by the deviation: of a constant it is rounding, not 0
        return Moments(math.nan, math.nan, math.nan, n)
    deviation = float(returns.std(ddof=1))
    centred = returns - returns.mean()
    variance = float((centred**2).mean())
    return Moments(
        sharpe=float(returns.mean()) / deviation,
        skew=float((centred**3).mean()) / variance**1.5,
        kurtosis=float((centred**4).mean()) / variance**2,
        n=n,
    )


def probabilistic_sharpe(found: Moments, benchmark: float = 0.0) -> float:
    """Return the probability that the true Sharpe ratio exceeds `benchmark` (per period); NaN where undefined."""
    spread = _spread(found)
    if found.n < 3 or not spread > 0:
        return math.nan
    return _NORMAL.cdf((found.sharpe - benchmark) * math.sqrt((found.n - 1) / spread))


def track_record_min(found: Moments, benchmark: float = 0.0, *, confidence: float = 0.95) -> float:
    """Return how many observations with these moments exceed `benchmark` with `confidence`; inf where none do."""
    if not found.sharpe > benchmark:
        return math.inf
    return 1.0 + _spread(found) * (_NORMAL.inv_cdf(confidence) / (found.sharpe - benchmark)) ** 2


def _spread(found: Moments) -> float:
    """Return the variance of a Sharpe ratio's estimate, times n - 1 (Mertens 2002)."""
    return 1.0 - found.skew * found.sharpe + (found.kurtosis - 1.0) / 4.0 * found.sharpe**2


def expected_max_sharpe(n_trials: float, variance: float) -> float:
    """Return the Sharpe ratio that the best of independent worthless trials is expected to show.

    Args:
        n_trials: how many; correlated ones count as fewer (`effective_trials`).
        variance: of the Sharpe ratios among the trials, per period squared.
    """
    if n_trials <= 1.0 or variance <= 0.0:
        return 0.0
    quantile = _NORMAL.inv_cdf
    best = (1.0 - _EULER) * quantile(1.0 - 1.0 / n_trials) + _EULER * quantile(1.0 - 1.0 / (n_trials * math.e))
    return math.sqrt(variance) * max(0.0, best)


def deflated_sharpe(found: Moments, n_trials: float, variance: float) -> float:
    """Return the probability that the true Sharpe ratio is above zero, though it is the best of `n_trials`."""
    return probabilistic_sharpe(found, expected_max_sharpe(n_trials, variance))


def effective_trials(performance: Floats) -> float:
    """Return how many independent trials as many correlated ones are worth: (Σλ)² / Σλ² of their correlation matrix.

    1 where all are copies of one, N where they are uncorrelated (participation ratio of the eigenvalues).

    Args:
        performance: (T, N), a column a trial. A column that never varies counts for itself.
    """
    n = performance.shape[1]
    varies = performance.std(axis=0) > 0
    if varies.sum() < 2:
        return float(n)
    correlation = np.corrcoef(performance[:, varies], rowvar=False)
    # The sum of a symmetric matrix' squared eigenvalues is that of its squared entries.
    return float(varies.sum() ** 2 / (correlation**2).sum()) + float(n - varies.sum())


class Overfitting(msgspec.Struct, frozen=True):
    """What combinatorially symmetric cross-validation says about choosing the best of several trials."""

    probability: float  # that the best in sample is at or below the median out of sample; NaN: cannot be told
    logits: tuple[float, ...]  # of the relative rank out of sample, one for each combination
    loss: float  # probability that the best in sample loses out of sample
    slope: float  # of performance out of sample on that in sample, over combinations: < 0 is overfitting
    n_trials: int


def overfitting(performance: Floats, *, n_blocks: int = 16) -> Overfitting:
    """Return the probability of backtest overfitting (CSCV).

    Time is cut into `n_blocks` blocks; every half of them in turn is the sample that a trial is chosen on by its Sharpe
    ratio, the other half is what becomes of the choice. Ties share a rank.

    Args:
        performance: (T, N) returns of one period, a column a trial, all over the same periods.
        n_blocks: even; 16 gives 12,870 combinations. Blocks shorter than two rows cannot be judged.
    """
    assert n_blocks >= 2, n_blocks
    assert n_blocks % 2 == 0, n_blocks
    n_rows, n_trials = performance.shape
    size = n_rows // n_blocks
    if n_trials < 2 or size < 2:
        return Overfitting(math.nan, (), math.nan, math.nan, n_trials)
    blocks = performance[: size * n_blocks].reshape(n_blocks, size, n_trials)
    sums, squares = blocks.sum(axis=1), (blocks**2).sum(axis=1)  # (B, N)
    chosen = _halves(n_blocks)
    count = size * n_blocks // 2
    inside = _sharpe(chosen @ sums, chosen @ squares, count)
    outside = _sharpe((1.0 - chosen) @ sums, (1.0 - chosen) @ squares, count)
    best = inside.argmax(axis=1)
    rows = np.arange(len(best))
    theirs = outside[rows, best]
    below = (outside < theirs[:, None]).sum(axis=1) + 0.5 * ((outside == theirs[:, None]).sum(axis=1) - 1)
    relative = (below + 1.0) / (n_trials + 1.0)
    logits = np.log(relative / (1.0 - relative))
    x = inside[rows, best]
    varies = float(x.std()) > 0
    return Overfitting(
        probability=float((logits <= 0.0).mean()),
        logits=tuple(logits.tolist()),
        loss=float((theirs < 0.0).mean()),
        slope=float(np.polyfit(x, theirs, 1)[0]) if varies else math.nan,
        n_trials=n_trials,
    )


@functools.cache
def _halves(n_blocks: int) -> Floats:
    """Return every half of so many blocks, a row of 0 and 1 each, read-only."""
    chosen = np.zeros((math.comb(n_blocks, n_blocks // 2), n_blocks))
    for row, half in enumerate(combinations(range(n_blocks), n_blocks // 2)):
        chosen[row, half] = 1.0
    chosen.flags.writeable = False
    return chosen


def _sharpe(total: Floats, squares: Floats, count: int) -> Floats:
    """Return the Sharpe ratio from sums; 0 where nothing varies (a trial that never traded is no better than none)."""
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 0.0)
    # Sums cancel: what is left of a constant column is rounding, not variance.
    is_flat = variance <= 1e-14 * np.maximum(squares / count, 1e-300)
    return np.where(is_flat, 0.0, mean / np.sqrt(np.where(is_flat, 1.0, variance)))


class Calibration(msgspec.Struct, frozen=True):
    """Predicted probabilities against frequencies."""

    error: float  # expected calibration error [1]: mean |frequency - probability|, weighted by rows
    worst: float  # largest of a bin that holds at least 1 % of the rows
    probability: tuple[float, ...]  # mean of each bin
    frequency: tuple[float, ...]
    rows: tuple[int, ...]


def calibration(probability: Floats, happened: NDArray[np.bool_], *, n_bins: int = 10) -> Calibration:
    """Return the calibration curve in bins of equal numbers of rows (bins of equal width stay empty for rare events).

    Rows of equal probability share a bin, so that the curve does not depend on the order of rows.
    """
    assert len(probability) == len(happened), (len(probability), len(happened))
    if not len(probability):
        return Calibration(math.nan, math.nan, (), (), ())
    edges = np.unique(np.quantile(probability, np.linspace(0.0, 1.0, n_bins + 1)[1:-1]))
    bin_of = np.searchsorted(edges, probability, side="right")
    rows = np.bincount(bin_of, minlength=len(edges) + 1)
    kept = rows > 0
    said = np.bincount(bin_of, weights=probability, minlength=len(rows))[kept] / rows[kept]
    came = np.bincount(bin_of, weights=happened, minlength=len(rows))[kept] / rows[kept]
    share = rows[kept] / len(probability)
    gap = np.abs(came - said)
    return Calibration(
        error=float((gap * share).sum()),
        worst=float(gap[share >= 0.01].max()),
        probability=tuple(said.tolist()),
        frequency=tuple(came.tolist()),
        rows=tuple(rows[kept].tolist()),
    )


def held_out_symbols(symbols: Sequence[str], share: float = 0.1) -> frozenset[str]:
    """Return the symbols that no model learns from, about `share` of them: those whose name hashes below it.

    A function of each name alone: what is held out today is held out tomorrow, whatever is listed beside it then. So of
    few symbols it may be none.
    """
    bound = round(share * 2**32)
    return frozenset(
        symbol
        for symbol in symbols
        if int.from_bytes(hashlib.blake2b(symbol.encode(), digest_size=4).digest(), "big") < bound
    )
