"""The pooled model: one LightGBM for all symbols, judged beside its baselines and its nulls.

`fit_and_judge` takes a `Dataset` (arrays, no files) and returns a `Trained` (numbers and a booster's text, no files);
`pipelines.dataset` reads, `pipelines.boosting` fits, `pipelines.findings` looks closer at the holdout,
`pipelines.tracking` logs.

    fold by fold, in time order, symbols held out of everything but the judgement
        trees on `fit`, as many as `stop` likes        weights: how much of an outcome is a row's own x class balance
        calibration on `calibrate`                      multiclass only
        judged on `test`: rank IC of all symbols, of those seen and of those never seen; spread of deciles; log loss
    the last fold's model is the one that is registered; its test block is the holdout
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipelines import baselines
from pipelines.boosting import Fitted, Objective, Params, deviation_bps, fit, params_of, predict, scale_bps, text_of
from pipelines.calibrating import calibrate
from pipelines.evidence import calibration, effective_trials
from pipelines.rows import Dataset
from pipelines.validation import (
    UNKNOWN_IC,
    Fold,
    RankIC,
    Spread,
    check_gap,
    decile_spread,
    log_loss,
    rank_ic,
    walk_forward,
)
from shared.errors import NotEnoughData
from shared.model import CLASSES, FLAT, LONG, SHORT, Calibration
from shared.types import Floats, Ints

POSITIVES_PER_FEATURE, POSITIVES_MIN = 5, 100
"""Labels other than flat that the fit needs: so many for each *independent* feature that is there, never fewer than the
second.

Five events per parameter is the bound below which even a linear classifier's coefficients are mostly bias
(Vittinghoff & McCulloch 2007, relaxing the ten of Peduzzi et al. 1996). Parameters are counted as independent ones, the
participation ratio of the eigenvalues of the features' correlation matrix: of a hundred features many are near copies
(an imbalance of one, three and five levels), which a regularised model cannot set one against the other. The floor is
less than half an hour of four recorded real books has. Ten overlapping labels are about one outcome, so all of this is
necessary, not sufficient: the standard error of the rank IC, beside its nulls, says the rest.
"""

_CORRELATED_ROWS = 4_000


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What one signal did on one block of seconds that it had not seen. NaN: not defined for it."""

    ic: RankIC
    ic_seen: RankIC = UNKNOWN_IC  # across the symbols that were learnt from
    ic_unseen: RankIC = UNKNOWN_IC  # across those that were held out
    spread: Spread
    r2: float = math.nan  # of the signal as a prediction of the return in bps, against predicting 0
    log_loss: float = math.nan  # of the calibrated probabilities
    log_loss_raw: float = math.nan  # of the booster's own
    log_loss_prior: float = math.nan  # of always saying the class shares of the fit
    calibration_error: float = math.nan  # mean over long and short
    calibration_error_raw: float = math.nan
    rows: int


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """A model and all that was found out about it. `folds[-1].test` is the holdout."""

    objective: Objective
    booster: str
    rounds: int
    calibration: Calibration | None  # None: not multiclass
    class_edge_bps: tuple[float, float, float]  # mean gross mid return per class, over the rows of the fit
    folds: tuple[Fold, ...]  # those with enough labels to be fitted
    walk_forward: tuple[Judgement, ...]  # LightGBM, one per fold
    beside: dict[str, Judgement]  # baselines and nulls on the holdout: ols, ridge, shuffled, shifted
    label_counts: tuple[int, int, int]  # of the fit, in the order of CLASSES
    gain: dict[str, float]  # feature -> share of the total gain [1]
    params: Params
    fitted: Fitted  # the last fold's
    signal: Floats  # on the rows of the holdout
    probability: Floats | None  # (R, 3) calibrated, on the rows of the holdout; None: not multiclass

    @property
    def holdout(self) -> Judgement:
        return self.walk_forward[-1]


class _Model(msgspec.Struct, frozen=True):
    """What a fold ends in."""

    fitted: Fitted
    edge: tuple[float, float, float]
    calibration: Calibration | None
    scale: float | None


def fit_and_judge(
    dataset: Dataset,
    *,
    seed: int,
    threads: int,
    objective: Objective = "multiclass",
    changes: Mapping[str, str | int | float | bool] | None = None,
) -> Trained:
    """Fit the folds in time order, judge each on seconds it has not seen, keep the last model.

    Args:
        changes: of LightGBM's parameters (`pipelines.search` finds some).

    Raises:
        NotEnoughData: too few labels other than flat to learn from, or a block without rows.
        LeakySplit: never, unless the folds are wrong.
    """
    params = params_of(objective, seed=seed, threads=threads) | dict(changes or {})
    folds = walk_forward(np.unique(dataset.second), reach_s=dataset.rule.reach_s, lookback_s=dataset.lookback_s)
    final = folds[-1]
    require_labels(dataset, final)
    kept, judgements = [], []
    for fold in folds:
        if fold is not final and not is_enough(dataset, fold):
            continue
        model = fit_fold(dataset, fold, params, objective)
        kept.append(fold)
        judgements.append(judge(dataset, fold, model))

    null = fit_fold(dataset, final, params, objective, baselines.shuffled(dataset, final, seed))
    signal, _, probability = said_by(dataset, final, model)
    beside = {"ridge": judge_signal(dataset, final, baselines.ridge(dataset, final), is_bps=True)}
    if (simple := baselines.ols(dataset, final)) is not None:
        beside["ols"] = judge_signal(dataset, final, simple, is_bps=True)
    beside["shuffled"] = judge(dataset, final, null)
    beside["shifted"] = judge_signal(dataset, final, baselines.shifted(dataset, final, signal))
    gain = model.fitted.booster.feature_importance("gain", iteration=model.fitted.rounds)
    return Trained(
        objective=objective,
        booster=text_of(model.fitted),
        rounds=model.fitted.rounds,
        calibration=model.calibration,
        class_edge_bps=model.edge,
        folds=tuple(kept),
        walk_forward=tuple(judgements),
        beside=beside,
        label_counts=_counts(dataset, final),
        gain=dict(zip(dataset.feature_names, (gain / max(gain.sum(), 1e-300)).tolist(), strict=True)),
        params=params,
        fitted=model.fitted,
        signal=signal,
        probability=probability,
    )


def fit_fold(
    dataset: Dataset, fold: Fold, params: Params, objective: Objective, shuffled: Ints | None = None
) -> _Model:
    """Return the model of one fold; with `shuffled` outcomes, its null.

    Raises:
        LeakySplit: what is learnt from lies too close to what is judged on.
    """
    for learnt in fold.learnt:
        check_gap(
            dataset.second[dataset.of(learnt)],
            dataset.second[dataset.of(fold.test)],
            reach_s=dataset.rule.reach_s,
            lookback_s=dataset.lookback_s,
        )
    rows = dataset.learnable(fold.fit)
    if clocks := dataset.unlearnable(fold.fit):
        gains = ("0" if name in clocks else "1" for name in dataset.feature_names)
        params = params | {"feature_contri": ",".join(gains)}
    fitted = fit(dataset, rows, dataset.learnable(fold.stop), params, objective=objective, shuffled=shuffled)
    found = None
    if objective == "multiclass":
        block = dataset.learnable(fold.calibrate)
        label = dataset.label[block if shuffled is None else shuffled[block]]
        counts = np.asarray(_counts(dataset, fold), np.float64)
        found = calibrate(predict(fitted, dataset, block), label, counts / counts.sum())
    edge = class_edge_bps(dataset, rows, None if shuffled is None else shuffled)
    return _Model(fitted, edge, found, scale_bps(dataset, rows))


def said_by(dataset: Dataset, fold: Fold, model: _Model) -> tuple[Floats, Floats | None, Floats | None]:
    """Return (signal, the booster's probabilities, the calibrated ones) on the test rows; None: no probabilities."""
    rows = np.arange(*dataset.of(fold.test).indices(dataset.rows))
    said = predict(model.fitted, dataset, rows)
    if model.fitted.objective == "multiclass":
        calibrated = said if model.calibration is None else model.calibration.apply(said)
        return expected_edge_bps(calibrated, model.edge), said, calibrated
    if model.fitted.objective == "regression":
        return said * deviation_bps(dataset, rows, model.scale), None, None
    return said, None, None


def judge(dataset: Dataset, fold: Fold, model: _Model) -> Judgement:
    """Return what a fold's model did on its test block."""
    signal, raw, probability = said_by(dataset, fold, model)
    found = judge_signal(dataset, fold, signal, is_bps=model.fitted.objective != "lambdarank")
    if raw is None or probability is None:
        return found
    label = dataset.label[dataset.of(fold.test)]
    counts = np.asarray(_counts(dataset, fold), np.float64)
    return msgspec.structs.replace(
        found,
        log_loss=log_loss(label, probability),
        log_loss_raw=log_loss(label, raw),
        log_loss_prior=log_loss(label, np.broadcast_to(counts / counts.sum(), probability.shape)),
        calibration_error=calibration_error(probability, label),
        calibration_error_raw=calibration_error(raw, label),
    )


def judge_signal(dataset: Dataset, fold: Fold, signal: Floats, *, is_bps: bool = False) -> Judgement:
    """Return what a signal on the test rows was worth.

    Args:
        is_bps: the signal is a prediction of the return in bps, so that it has an R².
    """
    rows = dataset.of(fold.test)
    second, moved = dataset.second[rows], dataset.mid_bps[rows]
    is_unseen = np.isin(dataset.symbols, dataset.held_out)[dataset.symbol[rows]]
    known = np.isfinite(signal) & np.isfinite(moved)
    power = float((moved[known] ** 2).sum())
    return Judgement(
        ic=rank_ic(second, signal, moved),
        ic_seen=rank_ic(second[~is_unseen], signal[~is_unseen], moved[~is_unseen]),
        ic_unseen=rank_ic(second[is_unseen], signal[is_unseen], moved[is_unseen]),
        spread=decile_spread(second, signal, moved),
        r2=1.0 - float(((moved - signal)[known] ** 2).sum()) / power if is_bps and power > 0 else math.nan,
        rows=len(second),
    )


def calibration_error(probability: Floats, label: NDArray[np.int8]) -> float:
    """Return the expected calibration error, mean of long and short: what positions are opened by."""
    return float(np.mean([calibration(probability[:, k], label == k).error for k in (LONG, SHORT)]))


def require_labels(dataset: Dataset, fold: Fold) -> None:
    """Refuse to train where the outcome would be noise.

    Raises:
        NotEnoughData: an honest end, in the words of the issue.
    """
    n_features = independent_features(dataset, fold)
    needed = max(POSITIVES_MIN, math.ceil(POSITIVES_PER_FEATURE * n_features))
    _, longs, shorts = _counts(dataset, fold)
    seconds = len(np.unique(dataset.second[dataset.of(fold.fit)]))
    if longs + shorts < needed or not longs or not shorts:
        both = " with some of both sides" if longs + shorts >= needed else ""
        raise NotEnoughData(
            f"{longs + shorts} positive labels ({longs} long, {shorts} short), needs {needed}{both}: not trained "
            f"({POSITIVES_PER_FEATURE} for each of {n_features:.0f} independent features, {POSITIVES_MIN} at least, "
            f"in the {seconds} s to learn from): collect a longer or livelier window of {dataset.source}"
        )
    blocks = (("early stopping", fold.stop), ("calibration", fold.calibrate))
    for name, span, rows in (
        *((name, span, len(dataset.learnable(span))) for name, span in blocks),
        ("the holdout", fold.test, len(dataset.second[dataset.of(fold.test)])),
    ):
        if not rows:
            raise NotEnoughData(
                f"no labelled row for {name} ([{span.start_s}, {span.end_s})), "
                f"needs one at least: not trained: collect a longer window of {dataset.source}"
            )


def independent_features(dataset: Dataset, fold: Fold) -> float:
    """Return how many independent features those that are there are worth, on evenly spaced rows of the fit."""
    rows = dataset.learnable(fold.fit)
    rows = rows[:: max(1, len(rows) // _CORRELATED_ROWS)]
    barred = (*dataset.absent, *dataset.unlearnable(fold.fit))
    is_there = ~np.isin(dataset.feature_names, barred)
    if len(rows) < 2:
        return float(is_there.sum())
    values = np.asarray(dataset.features[rows])[:, is_there]
    values = values[:, values.min(axis=0) < values.max(axis=0)]  # what never varies is no parameter
    if not values.shape[1]:
        return 0.0
    # By rank: one wild value must not make two features look alike.
    return effective_trials(pl.DataFrame(values).select(pl.all().rank("average")).to_numpy())


def class_edge_bps(dataset: Dataset, rows: Ints, shuffled: Ints | None = None) -> tuple[float, float, float]:
    """Return the mean gross mid return of each class over rows of the fit; 0 for a class without rows."""
    outcome = rows if shuffled is None else shuffled[rows]
    label, moved = dataset.label[outcome], dataset.mid_bps[outcome]
    means = [float(moved[label == k].mean()) if (label == k).any() else 0.0 for k in range(len(CLASSES))]
    return means[0], means[1], means[2]


def expected_edge_bps(probability: Floats, edge: Sequence[float]) -> Floats:
    """Return the signed expected gross mid return, sum over classes of p x mean return of the class."""
    return probability[:, FLAT] * edge[FLAT] + probability[:, LONG] * edge[LONG] + probability[:, SHORT] * edge[SHORT]


def is_enough(dataset: Dataset, fold: Fold) -> bool:
    """Tell whether a fold can be learnt from and judged on."""
    try:
        require_labels(dataset, fold)
    except NotEnoughData:
        return False
    return True


def _counts(dataset: Dataset, fold: Fold) -> tuple[int, int, int]:
    counts = np.bincount(dataset.label[dataset.learnable(fold.fit)], minlength=len(CLASSES))
    return int(counts[FLAT]), int(counts[LONG]), int(counts[SHORT])


def figures_of(trained: Trained) -> dict[str, float]:
    """Return what is logged: holdout first, then the walk-forward, the baselines and the nulls; NaN is left out."""
    values: dict[str, float] = {
        "rounds": trained.rounds,
        **_figures("", trained.holdout),
        "rank_ic_seconds": trained.holdout.ic.seconds,
        "rank_ic_unseen": trained.holdout.ic_unseen.mean,
        "rank_ic_unseen_se": trained.holdout.ic_unseen.standard_error,
        "rank_ic_seen": trained.holdout.ic_seen.mean,
        "rank_ic_seen_se": trained.holdout.ic_seen.standard_error,
        "log_loss_raw": trained.holdout.log_loss_raw,
        "log_loss_prior": trained.holdout.log_loss_prior,
        "calibration_error": trained.holdout.calibration_error,
        "calibration_error_raw": trained.holdout.calibration_error_raw,
        "rows_holdout": trained.holdout.rows,
        "labels_flat": trained.label_counts[FLAT],
        "labels_long": trained.label_counts[LONG],
        "labels_short": trained.label_counts[SHORT],
    }
    for name, judgement in trained.beside.items():
        values |= _figures(f"{name}_", judgement)
    for n, judgement in enumerate(trained.walk_forward, start=1):
        values |= _figures(f"fold_{n}_", judgement)
    return {name: float(value) for name, value in values.items() if not math.isnan(value)}


def _figures(prefix: str, judged: Judgement) -> dict[str, float]:
    return {
        f"{prefix}rank_ic": judged.ic.mean,
        f"{prefix}rank_ic_se": judged.ic.standard_error,
        f"{prefix}spread_bps": judged.spread.mean,
        f"{prefix}spread_bps_se": judged.spread.standard_error,
        f"{prefix}r2": judged.r2,
        f"{prefix}log_loss": judged.log_loss,
    }
