"""The pooled model: one LightGBM for all symbols, judged beside a linear baseline and its own shuffled labels.

`fit_and_judge` takes a `Dataset` (arrays, no files) and returns a `Trained` (numbers and a booster's text, no files);
`pipelines.dataset` reads, `pipelines.tracking` logs. Everything is a function of the data and one seed: LightGBM
runs with row-wise histograms and `deterministic`, so the same rows give the same text, whatever the number of threads.

Size. Live predicts every symbol every second on one thread: `ROUNDS_MAX` x 3 classes x 15 leaves costs about 2.5 ms for
600 symbols. Twice the leaves or bins gave the same log loss on two hours of 40 symbols, for twice the time.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipelines.validation import Fold, RankIC, check_gap, log_loss, rank_ic, walk_forward
from shared.errors import NotEnoughData
from shared.model import CLASSES, FLAT, LONG, SHORT
from shared.types import Floats, Ints

ROUNDS_MAX = 40
ROUNDS_PATIENCE = 8

POSITIVES_PER_FEATURE = 5
"""Labels other than flat that the fit needs for each feature that is there.

Five events per parameter is the bound below which even a linear classifier's coefficients are mostly bias
(Vittinghoff & McCulloch 2007, relaxing the ten of Peduzzi et al. 1996). Labels of neighbouring seconds overlap, so this
is necessary, not sufficient: the standard error of the rank IC says the rest.
"""


class Dataset(msgspec.Struct, frozen=True):
    """Every labelled row of a window, sorted by (second, symbol)."""

    source: str
    symbols: tuple[str, ...]
    feature_names: tuple[str, ...]
    absent: tuple[str, ...]  # features that the source never had before the holdout: NaN, and not required
    definition_hash: str
    horizon_s: int
    lookback_s: int
    second: Ints  # (R,)
    symbol: NDArray[np.int32]  # (R,) position in `symbols`
    features: NDArray[np.float32]  # (R, F); NaN in the columns of `absent` alone
    label: NDArray[np.int8]  # (R,) position in CLASSES
    mid_bps: Floats  # (R,) gross return of the mid over the horizon
    start_s: int  # the window asked for, [start_s, end_s)
    end_s: int
    content_hash: str  # of the lake's files that it was read from

    @property
    def rows(self) -> int:
        return len(self.second)


class Judgement(msgspec.Struct, frozen=True):
    """What one model did on one block of seconds that it had not seen."""

    log_loss: float
    log_loss_prior: float  # of always saying the class shares of the fit
    ic: RankIC
    rows: int


class Trained(msgspec.Struct, frozen=True):
    """A model and all that was found out about it. `folds[-1].test` is the holdout."""

    booster: str
    rounds: int
    class_edge_bps: tuple[float, float, float]  # mean gross mid return per class, over the rows of the fit
    folds: tuple[Fold, ...]  # those with enough labels to be fitted
    walk_forward: tuple[Judgement, ...]  # LightGBM, one per fold
    baseline: Judgement  # logistic regression on the holdout
    shuffled: Judgement  # LightGBM with shuffled labels, judged on the holdout's true ones
    label_counts: tuple[int, int, int]  # of the fit, in the order of CLASSES
    gain: dict[str, float]  # feature -> share of the total gain [1]
    params: dict[str, str | int | float | bool]

    @property
    def holdout(self) -> Judgement:
        return self.walk_forward[-1]


def lightgbm_params(*, seed: int, threads: int) -> dict[str, str | int | float | bool]:
    """Return what LightGBM is called with; the last five make it repeatable."""
    return {
        "objective": "multiclass",
        "num_class": len(CLASSES),
        "metric": "multi_logloss",
        "learning_rate": 0.12,
        "num_leaves": 15,
        "min_data_in_leaf": 200,  # neighbouring seconds overlap: about 20 separate outcomes
        "feature_fraction": 0.7,
        "lambda_l2": 5.0,
        "max_bin": 63,
        "verbosity": -1,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": threads,
        "feature_pre_filter": False,
    }


def threads_of(wanted: int) -> int:
    """Return NUM_THREADS capped at the cores of this machine."""
    return max(1, min(wanted, os.cpu_count() or 1))


def fit_and_judge(dataset: Dataset, *, seed: int, threads: int) -> Trained:
    """Fit the folds in time order, judge each on seconds it has not seen, keep the last model.

    Raises:
        NotEnoughData: too few labels other than flat to learn from, or a holdout without rows.
        LeakySplit: never, unless the folds are wrong.
    """
    params = lightgbm_params(seed=seed, threads=threads)
    folds = walk_forward(np.unique(dataset.second), horizon_s=dataset.horizon_s, lookback_s=dataset.lookback_s)
    final = folds[-1]
    require_labels(dataset, final)
    kept, judgements = [], []
    for fold in folds:
        if fold is not final and not _is_enough(dataset, fold):
            continue
        for learnt in (fold.fit, fold.stop):
            check_gap(
                dataset.second[learnt.of(dataset.second)],
                dataset.second[fold.test.of(dataset.second)],
                horizon_s=dataset.horizon_s,
                lookback_s=dataset.lookback_s,
            )
        booster, rounds = _fit(dataset, fold, dataset.label, params)
        edge = class_edge_bps(dataset, fold)
        probability = _predict(booster, dataset.features[fold.test.of(dataset.second)], rounds)
        kept.append(fold)
        judgements.append(_judge(dataset, fold, probability, edge))

    linear = _judge(dataset, final, _baseline(dataset, final, seed), edge)
    null_booster, null_rounds = _fit(dataset, final, _shuffled(dataset, final, seed), params)
    null_probability = _predict(null_booster, dataset.features[final.test.of(dataset.second)], null_rounds)
    gain = booster.feature_importance("gain")
    return Trained(
        booster=_text(booster, rounds),
        rounds=rounds,
        class_edge_bps=edge,
        folds=tuple(kept),
        walk_forward=tuple(judgements),
        baseline=linear,
        shuffled=_judge(dataset, final, null_probability, edge),
        label_counts=_counts(dataset, final),
        gain=dict(zip(dataset.feature_names, (gain / max(gain.sum(), 1e-300)).tolist(), strict=True)),
        params=params,
    )


def require_labels(dataset: Dataset, fold: Fold) -> None:
    """Refuse to train where the outcome would be noise.

    Raises:
        NotEnoughData: an honest end, in the words of the issue.
    """
    n_features = len(dataset.feature_names) - len(dataset.absent)
    needed = POSITIVES_PER_FEATURE * n_features
    _, longs, shorts = _counts(dataset, fold)
    seconds = len(np.unique(dataset.second[fold.fit.of(dataset.second)]))
    if longs + shorts < needed or not longs or not shorts:
        both = " with some of both sides" if longs + shorts >= needed else ""
        raise NotEnoughData(
            f"{longs + shorts} positive labels ({longs} long, {shorts} short), needs {needed}{both}: not trained "
            f"({POSITIVES_PER_FEATURE} for each of {n_features} features, "
            f"in the {seconds} s to learn from): collect a longer or livelier window of {dataset.source}"
        )
    for name, span in (("early stopping", fold.stop), ("the holdout", fold.test)):
        if not span.of(dataset.second).any():
            raise NotEnoughData(
                f"no labelled row for {name} ([{span.start_s}, {span.end_s})), "
                f"needs one at least: not trained: collect a longer window of {dataset.source}"
            )


def class_edge_bps(dataset: Dataset, fold: Fold) -> tuple[float, float, float]:
    """Return the mean gross mid return of each class over the rows of the fit; 0 for a class without rows."""
    inside = fold.fit.of(dataset.second)
    label, moved = dataset.label[inside], dataset.mid_bps[inside]
    means = [float(moved[label == k].mean()) if (label == k).any() else 0.0 for k in range(len(CLASSES))]
    return means[0], means[1], means[2]


def expected_edge_bps(probability: Floats, edge: Sequence[float]) -> Floats:
    """Return the signed expected gross mid return, sum over classes of p x mean return of the class."""
    return probability[:, FLAT] * edge[FLAT] + probability[:, LONG] * edge[LONG] + probability[:, SHORT] * edge[SHORT]


def _is_enough(dataset: Dataset, fold: Fold) -> bool:
    try:
        require_labels(dataset, fold)
    except NotEnoughData:
        return False
    return True


def _counts(dataset: Dataset, fold: Fold) -> tuple[int, int, int]:
    counts = np.bincount(dataset.label[fold.fit.of(dataset.second)], minlength=len(CLASSES))
    return int(counts[FLAT]), int(counts[LONG]), int(counts[SHORT])


def _fit(dataset: Dataset, fold: Fold, label: NDArray[np.int8], params: dict[str, Any]) -> tuple[Any, int]:
    """Return (booster, rounds kept): early stopping looks at `fold.stop` alone."""
    lgb = _lightgbm()
    names = list(dataset.feature_names)
    fit, stop = fold.fit.of(dataset.second), fold.stop.of(dataset.second)
    train = lgb.Dataset(dataset.features[fit], label[fit], feature_name=names, params=params)
    valid = lgb.Dataset(dataset.features[stop], label[stop], reference=train, params=params)
    booster = lgb.train(
        params,
        train,
        num_boost_round=ROUNDS_MAX,
        valid_sets=[valid],
        callbacks=[lgb.early_stopping(ROUNDS_PATIENCE, verbose=False)],
    )
    return booster, max(1, booster.best_iteration or ROUNDS_MAX)


def _text(booster: Any, rounds: int) -> str:
    """Return the model's text, the same on every machine: trees do not depend on the number of threads, but LightGBM
    notes that number at the end."""
    text: str = booster.model_to_string(num_iteration=rounds)
    return re.sub(r"(?m)^\[num_threads: \d+\]$", "[num_threads: 0]", text)


def _lightgbm() -> Any:
    """Return LightGBM, imported so that its threads sleep instead of spin while they wait for each other.

    Where another process wants the cores too, spinning made one fit take 19 s instead of 2; passive waiting 3.7.
    OpenMP reads the variable when it is loaded, hence before the import.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import lightgbm

    return lightgbm


def _predict(booster: Any, features: NDArray[np.float32], rounds: int) -> Floats:
    return np.asarray(booster.predict(features, num_iteration=rounds), np.float64)


def _shuffled(dataset: Dataset, fold: Fold, seed: int) -> NDArray[np.int8]:
    """Return the labels, those before the test block permuted within each symbol.

    Each symbol keeps its class shares: that a lively symbol moves more is no skill and must not look like one.
    """
    label = dataset.label.copy()
    generator = np.random.Generator(np.random.Philox(seed))
    for n in range(len(dataset.symbols)):
        rows = np.flatnonzero((dataset.symbol == n) & (dataset.second < fold.test.start_s))
        label[rows] = label[generator.permutation(rows)]
    return label


def _baseline(dataset: Dataset, fold: Fold, seed: int) -> Floats:
    """Return the class probabilities on the test rows of a logistic regression.

    Medians stand in for what is missing, in the baseline only (a linear model has no other way); a column the fit
    has never seen is left out. Every horizon-th second is enough: labels in between overlap.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import RobustScaler

    fit = fold.fit.of(dataset.second) & (dataset.second % max(1, dataset.horizon_s) == 0)
    if len(np.unique(dataset.label[fit])) < 2:
        fit = fold.fit.of(dataset.second)
    is_seen = np.isfinite(dataset.features[fit]).any(axis=0)
    model = make_pipeline(
        SimpleImputer(strategy="median"),
        RobustScaler(),
        LogisticRegression(C=0.1, max_iter=300, random_state=seed),
    )
    test = fold.test.of(dataset.second)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(_clipped(dataset.features[fit][:, is_seen]), dataset.label[fit])
        found = model.predict_proba(_clipped(dataset.features[test][:, is_seen]))
    probability = np.zeros((int(test.sum()), len(CLASSES)))
    probability[:, model[-1].classes_] = found
    return probability


def _clipped(features: NDArray[np.float32]) -> Floats:
    return np.clip(features.astype(np.float64), -1e12, 1e12)


def _judge(dataset: Dataset, fold: Fold, probability: Floats, edge: Sequence[float]) -> Judgement:
    test = fold.test.of(dataset.second)
    counts = np.asarray(_counts(dataset, fold), np.float64)
    prior = np.broadcast_to(counts / counts.sum(), probability.shape)
    return Judgement(
        log_loss=log_loss(dataset.label[test], probability),
        log_loss_prior=log_loss(dataset.label[test], prior),
        ic=rank_ic(dataset.second[test], expected_edge_bps(probability, edge), dataset.mid_bps[test]),
        rows=int(test.sum()),
    )


def figures_of(trained: Trained) -> dict[str, float]:
    """Return what is logged: holdout first, then the walk-forward, the baseline and the null; NaN is left out."""
    values: dict[str, float] = {
        "rounds": trained.rounds,
        "rank_ic": trained.holdout.ic.mean,
        "rank_ic_se": trained.holdout.ic.standard_error,
        "rank_ic_seconds": trained.holdout.ic.seconds,
        "log_loss": trained.holdout.log_loss,
        "log_loss_prior": trained.holdout.log_loss_prior,
        "baseline_rank_ic": trained.baseline.ic.mean,
        "baseline_rank_ic_se": trained.baseline.ic.standard_error,
        "baseline_log_loss": trained.baseline.log_loss,
        "shuffled_rank_ic": trained.shuffled.ic.mean,
        "shuffled_rank_ic_se": trained.shuffled.ic.standard_error,
        "shuffled_log_loss": trained.shuffled.log_loss,
        "rows_holdout": trained.holdout.rows,
        "labels_flat": trained.label_counts[FLAT],
        "labels_long": trained.label_counts[LONG],
        "labels_short": trained.label_counts[SHORT],
    }
    for n, judgement in enumerate(trained.walk_forward, start=1):
        values[f"fold_{n}_rank_ic"] = judgement.ic.mean
        values[f"fold_{n}_log_loss"] = judgement.log_loss
    return {name: float(value) for name, value in values.items() if not math.isnan(value)}
