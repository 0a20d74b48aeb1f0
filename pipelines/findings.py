"""A closer look at a trained model on its holdout: what a person asks before believing a rank IC.

    decay          rank IC by horizon: as good over five minutes as over ten seconds is a symbol's habit, no signal
    minutes        rank IC and spread of deciles minute by minute: one lucky quarter of an hour is seen
    calibration    what was said of long and short against what came
    importance     gain (what trees split on) and SHAP (what moved the predictions), which often disagree
    drift          population stability index of every feature, fit against holdout
    costs          what a round trip costs beside what the best tenth earned

Drift is measured as every hour is afterwards, against the same rows of the fit (`pipelines.drift`).
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import polars as pl

from pipelines.boosting import contributions
from pipelines.drift import drawn, edges_of, shares_of, stability
from pipelines.evidence import Calibration, calibration
from pipelines.rows import Dataset, positions
from pipelines.training import Trained
from pipelines.validation import IC_BLOCK_S, RankIC, Spread, decile_spread, ic_by_second, rank_ic
from shared.labels import HORIZONS_S
from shared.lake.layout import MINUTE_S
from shared.model import CLASSES, LONG, SHORT
from shared.types import Floats, Ints

SHAP_ROWS = 400
DRIFT_ROWS = 20_000
"""Of the fit and of the holdout each: a tenth of them is known to a fiftieth of itself."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen on the holdout."""

    decay: dict[int, RankIC]  # horizon s -> rank IC
    minute: Ints  # (M,) epoch minutes
    ic: Floats  # (M,) mean rank IC of each minute; NaN where there is none
    spread_bps: Floats  # (M,)
    spread: Spread
    curves: dict[str, Calibration]  # class -> calibrated; empty without probabilities
    curves_raw: dict[str, Calibration]
    shap: dict[str, float]  # feature -> share of the mean absolute contribution [1]
    drift: dict[str, float]  # feature -> population stability index


def look(dataset: Dataset, trained: Trained) -> Findings:
    """Return the findings of the last fold's model."""
    fold = trained.folds[-1]
    rows = dataset.of(fold.test)
    second, moved, label = dataset.second[rows], dataset.mid_bps[rows], dataset.label[rows]
    minute, ic, spread = by_minute(second, trained.signal, moved)
    sample = spaced(positions(rows), SHAP_ROWS)
    shap = contributions(trained.fitted, dataset, sample)
    curves = {}
    if trained.probability is not None:
        curves = {CLASSES[k]: calibration(trained.probability[:, k], label == k) for k in (LONG, SHORT)}
    return Findings(
        decay={
            horizon_s: rank_ic(
                second,
                trained.signal,
                dataset.moves_bps[rows, at].astype(np.float64),
                block_s=max(IC_BLOCK_S, 2 * horizon_s),
            )
            for at, horizon_s in enumerate(HORIZONS_S)
        },
        minute=minute,
        ic=ic,
        spread_bps=spread,
        spread=decile_spread(second, trained.signal, moved),
        curves=curves,
        curves_raw={},
        shap=dict(zip(dataset.feature_names, (shap / max(float(shap.sum()), 1e-300)).tolist(), strict=True)),
        drift=drift(dataset, drawn(dataset.learnable(fold.fit), DRIFT_ROWS), drawn(positions(rows), DRIFT_ROWS)),
    )


def by_minute(second: Ints, signal: Floats, moved: Floats) -> tuple[Ints, Floats, Floats]:
    """Return (minutes, mean rank IC, mean spread of deciles) of every minute that has rows."""
    minutes = np.unique(second // MINUTE_S)
    place = {int(minute): at for at, minute in enumerate(minutes)}
    ic, spread = np.full(len(minutes), math.nan), np.full(len(minutes), math.nan)
    when, found = ic_by_second(second, signal, moved)
    frame = pl.DataFrame({"minute": when // MINUTE_S, "ic": found}).group_by("minute").agg(pl.col("ic").mean())
    for minute, mean in frame.iter_rows():
        ic[place[minute]] = mean
    for minute in minutes:
        begin, end = np.searchsorted(second, [minute * MINUTE_S, (minute + 1) * MINUTE_S])
        spread[place[int(minute)]] = decile_spread(second[begin:end], signal[begin:end], moved[begin:end]).mean
    return minutes, ic, spread


def drift(dataset: Dataset, before: Ints, after: Ints) -> dict[str, float]:
    """Return the population stability index of every feature that the source has."""
    old, new = np.asarray(dataset.features[before]), np.asarray(dataset.features[after])
    found = {}
    for at, name in enumerate(dataset.feature_names):
        if name not in dataset.absent:
            edges = edges_of(old[:, at])
            found[name] = stability(shares_of(old[:, at], edges), shares_of(new[:, at], edges))
    return found


def figures_of(found: Findings) -> dict[str, float]:
    """Return what is logged as metrics; NaN is left out."""
    moved = sorted(found.drift.values())
    values = {f"rank_ic_{horizon_s}s": ic.mean for horizon_s, ic in found.decay.items()}
    values |= {f"rank_ic_{horizon_s}s_se": ic.standard_error for horizon_s, ic in found.decay.items()}
    values |= {"drift_max": moved[-1], "drift_median": moved[len(moved) // 2]} if moved else {}
    return {name: value for name, value in values.items() if not math.isnan(value)}


def spaced(rows: Ints, most: int) -> Ints:
    """Return at most so many of the positions, evenly spaced: the same for the same rows."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
