"""Two judges of a market: how well its next seconds can be predicted, and whether it can be told from a recorded one.

Predictability: a linear model and LightGBM on what is public at the begin of a second, fitted on the first half of
time and judged on the second, with a gap of 60 s. Out of sample, so noise gives zero or less.

Likeness: LightGBM that tells generated seconds from recorded ones by scale-free features of one second. What belongs
to the recording and not to the market (price, decimals, sizes, the venue's own notional) is taken out by relating each
symbol's values to their own median or deviation within a window of the same length; spread and width are in ticks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightgbm
import numpy as np
from sklearn.metrics import roc_auc_score

from tests.shared.simulator.market_facts import Array, Series

PURGE_S = 60


def lagged(values: Array, by: int) -> Array:
    out = np.full(values.shape, np.nan)
    out[by:] = values[:-by]
    return out


def mean_of(values: Array, window: int) -> Array:
    total = np.cumsum(np.vstack([np.zeros((1, values.shape[1])), values]), axis=0)
    out = np.full(values.shape, np.nan)
    out[window - 1 :] = (total[window:] - total[:-window]) / window
    return out


def public(series: Series) -> list[Array]:
    """Return what is known when second t begins, (T, N) each: imbalances, past returns, flows, the leaders' returns."""
    one, three, five = (series.imbalance(levels) for levels in (1, 3, 5))
    past = [lagged(series.moved(window), window) for window in (1, 5, 10, 20, 30)]
    signed, traded = lagged(series.signed, 1), lagged(series.usd, 1)
    signed[0] = traded[0] = 0.0
    flows = [mean_of(signed, window) / (mean_of(traded, window) + 1e-9) for window in (1, 10, 30)]
    leaders = [np.repeat(r[:, :5].mean(1, keepdims=True), r.shape[1], axis=1) for r in past[:3]]
    return [one, three, five, mean_of(one, 10), mean_of(five, 10), *past, *flows, *leaders]


class Split:
    """Rows of chosen columns, to learn from (first half) and to be judged by (second half)."""

    def __init__(self, features: Sequence[Array], target: Array, columns: Array) -> None:
        middle = len(target) // 2
        self.x, self.y = self._rows(features, target, columns, slice(40, middle))
        self.x_test, self.y_test = self._rows(features, target, columns, slice(middle + PURGE_S, len(target)))

    @staticmethod
    def _rows(features: Sequence[Array], target: Array, columns: Array, half: slice) -> tuple[Array, Array]:
        x = np.column_stack([feature[half][:, columns].ravel() for feature in features])
        y = target[half][:, columns].ravel() * 1e4
        known = np.isfinite(x).all(axis=1) & np.isfinite(y)
        return x[known], y[known]

    def _score(self, predicted: Array) -> float:
        residual = self.y_test - predicted
        return float(1.0 - residual @ residual / ((self.y_test - self.y.mean()) @ (self.y_test - self.y.mean())))

    def linear(self) -> float:
        """Return the out-of-sample R2 of ordinary least squares."""
        beta = np.linalg.lstsq(np.column_stack([self.x, np.ones(len(self.x))]), self.y, rcond=None)[0]
        return self._score(self.x_test @ beta[:-1] + beta[-1])

    def trees(self, rounds: int = 60) -> float:
        """Return the out-of-sample R2 of LightGBM."""
        settings: dict[str, Any] = {
            "objective": "l2", "num_leaves": 15, "learning_rate": 0.05, "min_data_in_leaf": 300, "lambda_l2": 10.0,
            "feature_fraction": 0.7, "verbose": -1, "num_threads": 1, "deterministic": True, "seed": 1,
        }  # fmt: skip
        scale = self.y.std()
        booster = lightgbm.train(settings, lightgbm.Dataset(self.x, self.y / scale), rounds)
        return self._score(np.asarray(booster.predict(self.x_test)) * scale)


# ------------------------------------------------------------------------------------------------ likeness


def _log(values: Array) -> Array:
    found: Array = np.log(np.maximum(values.astype(float), 1e-9))
    return found


def seconds_of(series: Series, n: int, rows: slice) -> dict[str, Array]:
    """Return the scale-free features of one symbol's seconds within a window."""
    mid = series.mid[rows, n]
    count = len(mid)
    r1, r10 = np.full(count, np.nan), np.full(count, np.nan)
    r1[1:], r10[10:] = np.diff(mid) / mid[:-1], mid[10:] / mid[:-10] - 1.0
    bid, ask = series.bid_size[rows, n], series.ask_size[rows, n]
    one, five = series.imbalance(1)[rows, n], series.imbalance(5)[rows, n]

    def against_median(levels: slice) -> tuple[Array, Array]:
        both = _log(np.concatenate([bid[:, levels].sum(1), ask[:, levels].sum(1)]))
        both = both - np.median(both)
        return both[:count], both[count:]

    touch, near, far = (against_median(levels) for levels in (slice(0, 1), slice(1, 5), slice(5, 15)))
    spread = series.spread_ticks()[rows, n].astype(float)
    width = (series.bid[rows, n, 0] - series.bid[rows, n, 4]).astype(float)
    trades, usd = lagged(series.count[rows, [n]], 1)[:, 0], lagged(series.usd[rows, [n]], 1)[:, 0]
    signed = lagged(series.signed[rows, [n]], 1)[:, 0]
    traded = np.where(usd > 0, usd, np.nan)
    # Whole counts over a mean would be the symbol's fingerprint.
    spread_out = np.random.Generator(np.random.Philox(n)).random(count)
    return {
        "spread": spread,
        "return": r1 / np.nanstd(r1), "return_size": np.abs(r1) / np.nanstd(r1), "return_10s": r10 / np.nanstd(r10),
        "imbalance_1": one, "imbalance_5": five, "imbalance_change": np.concatenate([[np.nan], np.diff(one)]),
        "touch_thin": np.minimum(*touch), "touch_thick": np.maximum(*touch),
        "touch_change": np.concatenate([[np.nan], np.diff(touch[0])]),
        "near_bid": near[0], "near_ask": near[1], "far_bid": far[0], "far_ask": far[1], "width": width,
        "trades": (trades + spread_out) / np.nanmean(trades), "notional": _log(traded) - np.nanmedian(_log(traded[usd > 0])),
        "flow": signed / np.maximum(usd, 1e-9),
    }  # fmt: skip


def tell_apart(made: dict[str, Array], recorded: dict[str, Array], folds: int = 4) -> tuple[float, dict[str, float]]:
    """Return (AUC, share of gain by feature) of LightGBM over folds of contiguous time."""
    names = list(made)
    x = np.vstack([np.column_stack([part[name] for name in names]) for part in (made, recorded)])
    lengths = len(made[names[0]]), len(recorded[names[0]])
    y = np.repeat([1.0, 0.0], lengths)
    fold = np.concatenate([np.arange(length) * folds // length for length in lengths])
    weight = np.repeat([0.5 / length for length in lengths], lengths)
    settings: dict[str, Any] = {
        "objective": "binary", "num_leaves": 15, "learning_rate": 0.06, "min_data_in_leaf": 100, "verbose": -1,
        "feature_fraction": 0.8, "num_threads": 1, "deterministic": True, "seed": 1,
    }  # fmt: skip
    score, gain = np.zeros(len(y)), np.zeros(len(names))
    for k in range(folds):
        learn = fold != k
        data = lightgbm.Dataset(x[learn], y[learn], weight=weight[learn] * learn.sum())
        booster = lightgbm.train(settings, data, 80)
        score[~learn] = booster.predict(x[~learn])
        gain += booster.feature_importance("gain")
    order = np.argsort(-gain)
    return float(roc_auc_score(y, score)), {names[i]: round(float(gain[i] / gain.sum()), 3) for i in order}


def joined(parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
