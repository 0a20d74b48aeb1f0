"""All that is asked of LightGBM: which trees, on which rows, towards what; and their text.

Three objectives share rows, folds, features and judgement; what they predict becomes one signal, in the order of which
symbols are bought and sold:

    multiclass    flat, long, short; signal = expected gross return. The only one that live can trade.
    regression    gross return over its own volatility, clipped at ±5; signal = prediction x volatility
    lambdarank    the order of symbols within each second (tenths of the gross return); signal = score

Everything is a function of rows and one seed: LightGBM runs with row-wise histograms and `deterministic`, bins come
from a sample that the seed draws, so the same rows give the same text, whatever the number of threads and whether the
features lie in memory or in a file. Rows are pushed piece by piece: beside the binned copy (one byte a value) memory
holds one piece.

Size. Live predicts every symbol every second on one thread: see benchmarks/training.py for what a size costs. Twice the
leaves or bins gave the same log loss on two hours of 40 symbols, for twice the time.
"""

from __future__ import annotations

import math
import os
import re
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipelines.rows import PIECE_ROWS, Dataset, pieces
from shared.labels import class_weights, uniqueness
from shared.model import CLASSES
from shared.types import Floats, Ints

Objective: TypeAlias = Literal["multiclass", "regression", "lambdarank"]
OBJECTIVES: tuple[Objective, ...] = ("multiclass", "regression", "lambdarank")
Params: TypeAlias = dict[str, str | int | float | bool]

ROUNDS_MAX = 20
"""Of three trees of 15 leaves each: 800 symbols are predicted in 2.1 ms (p99), within the 3 ms that a second has for
them. 30 rounds took 3.3 ms, 38 3.5 to 5.4, and found no more."""

ROUNDS_PATIENCE = 8

BIN_SAMPLE_ROWS = 50_000
"""Rows that the borders of 63 bins are drawn from: 800 a bin."""

SCORE_MAX = 5.0
"""Returns beyond five of their own deviations teach a regression no more than five do."""

BALANCE = 0.5
"""Power of the class weights: 0 leaves classes as rare as they are, 1 makes them weigh the same.

Half way: on 45 minutes of 40 generated symbols equal ones stopped the trees at 10 rounds, not 32 (log loss 0.390, not
0.362; R² .027, not .057); classes as they are were as good as half way there, and the worst of the three on the
smaller fold before it.
"""

SCALE_BPS_MIN = 1.0

_VOLATILITY = "volatility_30s"  # [1] a second


class Fitted(msgspec.Struct, frozen=True):
    """A booster and how it came to its size."""

    booster: Any
    objective: Objective
    rounds: int
    loss_fit: tuple[float, ...]  # after each round, weighted as in the fit
    loss_stop: tuple[float, ...]


def params_of(objective: Objective, *, seed: int, threads: int) -> Params:
    """Return what LightGBM is called with; the last seven make it repeatable."""
    aims: dict[Objective, Params] = {
        "multiclass": {"objective": "multiclass", "num_class": len(CLASSES), "metric": "multi_logloss"},
        "regression": {"objective": "regression", "metric": "l2"},
        "lambdarank": {
            "objective": "lambdarank",
            "metric": "ndcg",
            "eval_at": "5",
            "label_gain": ",".join(str(k) for k in range(10)),
        },
    }
    return aims[objective] | {
        "learning_rate": 0.2,
        "num_leaves": 15,
        "min_data_in_leaf": 200,  # neighbouring seconds overlap: about 20 separate outcomes
        "feature_fraction": 0.7,
        "lambda_l2": 5.0,
        "max_bin": 63,
        "bin_construct_sample_cnt": BIN_SAMPLE_ROWS,
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


def fit(
    dataset: Dataset,
    rows: Ints,
    stop_rows: Ints,
    params: Params,
    *,
    objective: Objective = "multiclass",
    shuffled: Ints | None = None,
    rounds_max: int = ROUNDS_MAX,
    patience: int = ROUNDS_PATIENCE,
) -> Fitted:
    """Fit trees on `rows`; `stop_rows` alone say when there are enough.

    Args:
        rows, stop_rows: positions, ascending.
        shuffled: for each row of the dataset, the row whose outcome it is given (the null); None: its own.
    """
    lgb = _lightgbm()
    names = list(dataset.feature_names)
    scale = scale_bps(dataset, rows)

    def data(chosen: Ints, reference: Any = None) -> Any:
        outcome = chosen if shuffled is None else shuffled[chosen]
        target, group = _target(dataset, chosen, outcome, objective, scale)
        return lgb.Dataset(
            _sequence(dataset.features, chosen),
            target,
            weight=weights(dataset, chosen, dataset.label[outcome], objective),
            group=group,
            feature_name=names,
            params=params,
            reference=reference,
        )

    train = data(rows)
    losses: dict[str, Any] = {}
    booster = lgb.train(
        params,
        train,
        num_boost_round=rounds_max,
        valid_sets=[train, data(stop_rows, train)],
        valid_names=["fit", "stop"],
        callbacks=[lgb.early_stopping(patience, verbose=False), lgb.record_evaluation(losses)],
    )
    [in_fit], [in_stop] = losses["fit"].values(), losses["stop"].values()
    return Fitted(booster, objective, max(1, booster.best_iteration or rounds_max), tuple(in_fit), tuple(in_stop))


def weights(dataset: Dataset, rows: Ints, label: NDArray[np.int8], objective: Objective = "multiclass") -> Floats:
    """Return what each row weighs, mean 1: how much of its outcome is its own, and (multiclass) how rare its class."""
    own = uniqueness(dataset.second[rows], dataset.symbol[rows], dataset.rule)
    own = np.asarray(own / max(float(own.mean()), 1e-300) if len(own) else own)
    if objective != "multiclass" or not len(own):
        return own
    balanced = own * (class_weights(label, own, len(CLASSES)) / own) ** BALANCE
    return np.asarray(balanced / balanced.mean())


def predict(fitted: Fitted, dataset: Dataset, rows: Ints) -> Floats:
    """Return what the booster says of some rows: (R, 3) probabilities, or (R,) predictions or scores."""
    width = (len(CLASSES),) if fitted.objective == "multiclass" else ()
    said = np.empty((len(rows), *width))
    for start, piece in zip(range(0, len(rows), PIECE_ROWS), pieces(rows), strict=True):
        said[start : start + len(piece)] = fitted.booster.predict(
            np.asarray(dataset.features[piece]), num_iteration=fitted.rounds
        )
    return said


def contributions(fitted: Fitted, dataset: Dataset, rows: Ints) -> Floats:
    """Return the mean absolute contribution of each feature to what the booster says of some rows (TreeSHAP)."""
    found = fitted.booster.predict(np.asarray(dataset.features[rows]), num_iteration=fitted.rounds, pred_contrib=True)
    per_output = np.asarray(found).reshape(len(rows), -1, len(dataset.feature_names) + 1)[..., :-1]
    total: Floats = np.abs(per_output).sum(axis=1).mean(axis=0)
    return total


def scale_bps(dataset: Dataset, rows: Ints) -> float | None:
    """Return None where rows have a volatility of their own, else one deviation for all, from `rows`."""
    if _VOLATILITY in dataset.feature_names and _VOLATILITY not in dataset.absent:
        return None
    return max(SCALE_BPS_MIN, float(np.nanstd(dataset.mid_bps[rows])) if len(rows) else SCALE_BPS_MIN)


def deviation_bps(dataset: Dataset, rows: Ints, scale: float | None) -> Floats:
    """Return how far the mid of each row usually moves over the horizon."""
    if scale is not None:
        return np.full(len(rows), scale)
    usual = dataset.column(_VOLATILITY, rows) * (math.sqrt(dataset.horizon_s) * 1e4)
    return np.maximum(np.where(np.isfinite(usual), usual, 0.0), SCALE_BPS_MIN)


def text_of(fitted: Fitted) -> str:
    """Return the model's text, the same on every machine: trees do not depend on the number of threads, but LightGBM
    notes that number at the end."""
    text: str = fitted.booster.model_to_string(num_iteration=fitted.rounds)
    return re.sub(r"(?m)^\[num_threads: \d+\]$", "[num_threads: 0]", text)


def _target(
    dataset: Dataset, rows: Ints, outcome: Ints, objective: Objective, scale: float | None
) -> tuple[NDArray[Any], Ints | None]:
    """Return (what is learnt, rows of each second or None)."""
    if objective == "multiclass":
        return dataset.label[outcome], None
    moved = np.nan_to_num(dataset.mid_bps[outcome])
    if objective == "regression":
        return np.clip(moved / deviation_bps(dataset, rows, scale), -SCORE_MAX, SCORE_MAX), None
    second = dataset.second[rows]
    begins = np.flatnonzero(np.diff(second, prepend=second[0] - 1)) if len(second) else np.empty(0, np.int64)
    group = np.diff(np.append(begins, len(second)))
    ranked = np.lexsort((moved, second))  # by second, within it by what followed
    place = np.empty(len(second), np.int64)
    place[ranked] = np.arange(len(second)) - np.repeat(begins, group)
    return place * 10 // np.repeat(group, group), group


def _sequence(features: NDArray[np.float32], rows: Ints) -> Any:
    class Rows(_lightgbm().Sequence):  # type: ignore[misc]
        batch_size = PIECE_ROWS

        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, at: Any) -> NDArray[Any]:
            # Single rows are what bins are drawn from, in doubles; slices are what is pushed.
            return np.asarray(features[rows[at]], np.float32 if isinstance(at, slice) else np.float64)

    return Rows()


def _lightgbm() -> Any:
    """Return LightGBM, imported so that its threads sleep instead of spin while they wait for each other.

    Where another process wants the cores too, spinning made one fit take 19 s instead of 2; passive waiting 3.7.
    OpenMP reads the variable when it is loaded, hence before the import.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import lightgbm

    return lightgbm
