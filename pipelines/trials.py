"""How many were tried, found in MLflow and never told by hand: what the best of them is worth.

A trial is a finished run on the same source that could have been chosen: a training, a trial of a search, a backtest of
a model or of rules. Nulls are none. From them:

    effective   independent trials: backtests over the very minutes of this one count by how little they resemble each
                other (`evidence.effective_trials`); whatever was trained or backtested otherwise counts as one each
    variance    of the Sharpe ratios of one minute: what worthless trials show by chance, 1 / (n − 1), or that among the
                other backtests where it is larger. Losers count as 0, as not trading: nobody would have chosen them, so
                how much they paid in costs says nothing about how good the best of many looks by luck
    DSR         probability that this Sharpe ratio is above 0 though it is the best of so many
    PBO         probability that the best of those backtests in one half of the minutes is below the median in the other
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from pipelines.evidence import (
    Moments,
    Overfitting,
    deflated_sharpe,
    effective_trials,
    moments,
    overfitting,
    probabilistic_sharpe,
)
from pipelines.tracking import EXPERIMENT, EXPERIMENT_BACKTESTS, MINUTES_FILE, Tracking
from pipelines.trades import MINUTE_S
from shared.types import Floats, Ints

MINUTES_MIN = 30
"""Returns below which nothing is said: sixteen blocks of two minutes are the least that CSCV can turn over."""

SHARPES_MIN = 3
BLOCKS = 16


class Returns(msgspec.Struct, frozen=True):
    """What equity did, minute by minute of a window."""

    second: Ints  # first second of each minute
    value: Floats  # fraction of equity


class Trials(msgspec.Struct, frozen=True, kw_only=True):
    """What was tried before a result was looked at, this result included."""

    trainings: int  # finished, searches included
    backtests: int
    effective: float
    found: Moments
    deflated_sharpe: float  # probability; NaN: not defined
    sharpe_probability: float  # the same for a single trial
    overfitting: Overfitting


def returns_of(equity_usdt: Floats, start_s: int) -> Returns:
    """Return the returns of whole minutes from equity at the start and at the end of every second."""
    minutes = equity_usdt[::MINUTE_S]
    value = np.diff(minutes) / minutes[:-1]
    return Returns(start_s + MINUTE_S * np.arange(len(value)), value)


def write_returns(folder: Path, returns: Returns) -> None:
    """Write the artifact that later judgements read."""
    pl.DataFrame({"second": returns.second, "return": returns.value}).write_csv(folder / MINUTES_FILE)


def figures_of(returns: Returns) -> dict[str, float]:
    """Return what is logged of every backtest: per minute, never annualised; NaN where it is not defined."""
    found = moments(returns.value)
    return {
        "sharpe_minute": found.sharpe,
        "skew_minute": found.skew,
        "kurtosis_minute": found.kurtosis,
        "minutes": float(found.n),
    }


class Tried(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What MLflow holds of a source, before anything is made of it."""

    performance: Floats  # (T, N) returns of the same minutes; the first column is what is judged
    sharpes: list[float]  # of every backtest, NaN where it has none
    trainings: int
    backtests: int  # with the one that is judged
    apart: int  # trials that cannot be compared minute by minute


def collect(tracking: Tracking, source: str, own: Returns, *, training_run: str | None, own_run: str = "") -> Tried:
    """Return everything that was tried on a source beside these returns.

    Args:
        training_run: of the model that was judged; None: nothing was learnt.
        own_run: where these returns are logged, so that they are not found again; "": nowhere yet.
    """
    trainings = {run.info.run_id for run in tracking.finished(EXPERIMENT, f"tags.source = '{source}'")}
    found = tracking.finished(EXPERIMENT_BACKTESTS, f"tags.source = '{source}' and tags.null = 'false'")
    backtests = [run for run in found if run.info.run_id != own_run]
    judged = {run.data.tags.get("training_run") for run in backtests} | {training_run}
    columns, apart, sharpes = [own.value], 0, [moments(own.value).sharpe]
    for run in backtests:
        sharpes.append(run.data.metrics.get("sharpe_minute", math.nan))
        theirs = stored_returns(tracking, run.info.run_id)
        if theirs is None or not np.isin(own.second, theirs.second).all():
            apart += 1
            continue
        columns.append(theirs.value[np.searchsorted(theirs.second, own.second)])
    return Tried(
        performance=np.stack(columns, axis=1),
        sharpes=sharpes,
        trainings=len(trainings),
        backtests=len(backtests) + 1,
        apart=apart + len(trainings - judged),
    )


def find(tracking: Tracking, source: str, own: Returns, *, training_run: str | None) -> Trials:
    """Return how a backtest that is about to be logged stands among what MLflow holds of its source.

    Args:
        training_run: of the model that was judged; None: nothing was learnt.
    """
    return judge_tried(collect(tracking, source, own, training_run=training_run))


def judge_tried(tried: Tried) -> Trials:
    """Return the statistics of what was collected."""
    return judge(
        tried.performance,
        tried.sharpes,
        trainings=tried.trainings,
        backtests=tried.backtests,
        apart=tried.apart,
    )


def judge(performance: Floats, sharpes: list[float], *, trainings: int, backtests: int, apart: int) -> Trials:
    """Return the statistics of the first column among all trials.

    Args:
        performance: (T, N) returns of the same minutes; the first column is what is judged.
        sharpes: of every backtest, the judged one first, NaN where it has none.
        apart: trials that cannot be compared minute by minute.
    """
    found = moments(performance[:, 0])
    effective = effective_trials(performance) + apart
    variance = max(1.0 / max(1, found.n - 1), _variance(sharpes[1:]))
    is_enough = found.n >= MINUTES_MIN
    distinct = np.unique(performance, axis=1)
    return Trials(
        trainings=trainings,
        backtests=backtests,
        effective=effective,
        found=found,
        deflated_sharpe=deflated_sharpe(found, effective, variance) if is_enough else math.nan,
        sharpe_probability=probabilistic_sharpe(found) if is_enough else math.nan,
        overfitting=overfitting(distinct, n_blocks=BLOCKS),
    )


def _variance(others: list[float]) -> float:
    """Return the variance among the Sharpe ratios of the other backtests; 0 of fewer than `SHARPES_MIN`."""
    different = np.unique([sharpe for sharpe in others if math.isfinite(sharpe)])
    return float(np.maximum(different, 0.0).var(ddof=1)) if len(different) >= SHARPES_MIN else 0.0


def words(trials: Trials) -> list[str]:
    """Return what a person reads, and why where a figure is not defined."""
    tried = (
        f"{trials.trainings} model{'' if trials.trainings == 1 else 's'} trained, {trials.backtests} "
        f"backtest{'' if trials.backtests == 1 else 's'} on this source so far, worth {trials.effective:.1f} "
        "independent trials: the best of many looks good by chance"
    )
    if math.isnan(trials.deflated_sharpe):
        why = f"{trials.found.n} minutes, needs {MINUTES_MIN}" if trials.found.n < MINUTES_MIN else "equity never moved"
        deflated = f"deflated Sharpe undefined ({why})"
    else:
        deflated = (
            f"probability of a Sharpe above 0: {trials.deflated_sharpe:.3f} deflated by the trials "
            f"({trials.sharpe_probability:.3f} had it been the only one)"
        )
    if math.isnan(trials.overfitting.probability):
        n = trials.overfitting.n_trials
        why = "no other trial over the same minutes" if n < 2 else f"{trials.found.n} minutes, needs {2 * BLOCKS}"
        chosen = f"probability of backtest overfitting undefined ({why})"
    else:
        chosen = (
            f"probability of backtest overfitting {trials.overfitting.probability:.3f} "
            f"among {trials.overfitting.n_trials} trials over the same minutes"
        )
    return [tried, deflated, chosen]


def metrics_of(trials: Trials) -> dict[str, float]:
    """Return what is logged with the judged run."""
    return {
        "trials_trained": float(trials.trainings),
        "trials_backtested": float(trials.backtests),
        "trials_effective": trials.effective,
        "deflated_sharpe": trials.deflated_sharpe,
        "overfitting_probability": trials.overfitting.probability,
    }


def stored_returns(tracking: Tracking, run_id: str) -> Returns | None:
    """Return the returns that a backtest has logged; None where it has none."""
    path = tracking.artifact(run_id, f"backtest/{MINUTES_FILE}")
    if path is None:
        return None
    frame = pl.read_csv(path, schema={"second": pl.Int64, "return": pl.Float64})
    return Returns(frame["second"].to_numpy(), frame["return"].to_numpy())
