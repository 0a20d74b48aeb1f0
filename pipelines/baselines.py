"""What a model has to beat, and what it must not resemble.

    ols       gross return on one feature, the imbalance of the touch: what everybody knows
    ridge     gross return on all features; the penalty is chosen where trees choose their number
    shuffled  trees on labels permuted within each symbol: what the machinery finds in nothing
    shifted   the model's own signal of half a holdout earlier or later: what it owes to which symbol it is, not to when

Linear regressions of the return, not a logistic one: they say in bps what every objective's signal is judged by (rank
IC, spread of deciles, R²), they are solved exactly, so that they are the same everywhere, and the log loss has a
baseline of its own in the shares of the classes.
"""

from __future__ import annotations

import numpy as np

from pipelines.rows import Dataset, pieces, positions
from pipelines.validation import Fold
from shared.types import Floats, Ints

OLS_FEATURE = "imbalance_1"

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of ridge, times the number of rows: relative to features of variance 1."""

CLIP = 5.0
"""Deviations at which a linear model's inputs end: one wild value must not turn its plane."""

_QUANTILE_ROWS = 50_000


def ols(dataset: Dataset, fold: Fold, feature: str = OLS_FEATURE) -> Floats | None:
    """Return the signal on the test rows, bps; None where the source has no such feature."""
    if feature not in dataset.feature_names or feature in dataset.absent:
        return None
    rows = _known(dataset, dataset.learnable(fold.fit))
    x, y = dataset.column(feature, rows), dataset.mid_bps[rows]
    centred = x - x.mean()
    variance = float((centred**2).sum())
    slope = float((centred * y).sum()) / variance if variance > 0 else 0.0
    return float(y.mean()) + slope * (dataset.column(feature, dataset.of(fold.test)) - float(x.mean()))


def ridge(dataset: Dataset, fold: Fold) -> Floats:
    """Return the signal on the test rows, bps.

    Missing values, of absent features alone, are the median; features are centred on it and divided by their deviation.
    """
    rows, stop = _known(dataset, dataset.learnable(fold.fit)), _known(dataset, dataset.learnable(fold.stop))
    sample = rows[:: max(1, len(rows) // _QUANTILE_ROWS)]
    values = np.asarray(dataset.features[sample], np.float64)
    is_there = np.isfinite(values).any(axis=0)
    low, centre, high = np.zeros((3, values.shape[1]))
    low[is_there], centre[is_there], high[is_there] = np.nanpercentile(
        values[:, is_there], [15.87, 50.0, 84.13], axis=0
    )
    is_there &= ~np.isin(dataset.feature_names, dataset.unlearnable(fold.fit))
    width = (high - low) / 2.0
    width = np.where(width > 0, width, 1.0)

    def design(chosen: Ints) -> Floats:
        scaled = (np.asarray(dataset.features[chosen], np.float64) - centre) / width
        return np.clip(np.nan_to_num(scaled, posinf=CLIP, neginf=-CLIP), -CLIP, CLIP) * is_there

    n = values.shape[1]
    gram, sums, moment = np.zeros((n, n)), np.zeros(n), np.zeros(n)
    y_mean = float(dataset.mid_bps[rows].mean())
    for piece in pieces(rows):
        x = design(piece)
        gram += x.T @ x
        sums += x.sum(axis=0)
        moment += x.T @ (dataset.mid_bps[piece] - y_mean)
    mean = sums / len(rows)
    gram -= np.outer(sums, mean)
    values_of, vectors = np.linalg.eigh(gram)
    projected = vectors.T @ moment

    def coefficients(penalty: float) -> Floats:
        return np.asarray(vectors @ (projected / (np.maximum(values_of, 0.0) + penalty * len(rows))))

    def signal(chosen: Ints, beta: Floats) -> Floats:
        said = [y_mean + (design(piece) - mean) @ beta for piece in pieces(chosen)]
        return np.concatenate(said) if said else np.empty((0, *beta.shape[1:]))

    betas = np.stack([coefficients(penalty) for penalty in PENALTIES], axis=1)
    errors = ((signal(stop, betas) - dataset.mid_bps[stop, None]) ** 2).sum(axis=0)
    return signal(positions(dataset.of(fold.test)), betas[:, int(np.argmin(errors))])


def shuffled(dataset: Dataset, fold: Fold, seed: int) -> Ints:
    """Return for each row the row whose outcome it is given: before the test block permuted within each symbol.

    Each symbol keeps its class shares: that a lively symbol moves more is no skill and must not look like one.
    """
    given = np.arange(dataset.rows)
    generator = np.random.Generator(np.random.Philox(seed))
    before = int(np.searchsorted(dataset.second, fold.test.start_s))
    order = np.argsort(dataset.symbol[:before], kind="stable")
    ends = np.searchsorted(dataset.symbol[:before][order], np.arange(1, len(dataset.symbols)))
    for rows in np.split(order, ends):
        given[rows] = rows[generator.permutation(len(rows))]
    return given


def shifted(dataset: Dataset, fold: Fold, signal: Floats) -> Floats:
    """Return for each test row the signal of the same symbol half a test block away; NaN where there was none."""
    rows = dataset.of(fold.test)
    second, symbol = dataset.second[rows], dataset.symbol[rows].astype(np.int64)
    length = fold.test.seconds
    here = symbol * length + (second - fold.test.start_s)
    there = symbol * length + (second - fold.test.start_s + length // 2) % length
    order = np.argsort(here)
    at = np.minimum(np.searchsorted(here[order], there), max(0, len(order) - 1))
    found = order[at] if len(order) else order
    return np.where(here[found] == there, signal[found], np.nan)


def _known(dataset: Dataset, rows: Ints) -> Ints:
    return rows[np.isfinite(dataset.mid_bps[rows])]
