"""How a model is judged: purged walk-forward folds, the rank IC, and the errors a leaky split ends in.

Time is the only axis that is split, for all symbols at once: a label of row s is known at s + 1 + horizon, a feature
of row t has seen (t - lookback, t]. Two rows whose label and feature windows touch share an outcome, whatever
their symbols are (López de Prado 2018, §7.4: purging and embargo). So between what a model has seen and what it is
judged on lie at least horizon + lookback seconds, and `check_gap` refuses anything closer.

    fit  [----------------]  gap  [stop]  gap  [ test ]
                                  early         reported, never
                                  stopping      used to choose anything

Folds expand: each later test has everything before it to learn from. The last test block is the *holdout*: the model
that was fitted before it is the one that is registered, so that the backtest on it is out of sample.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from shared.errors import CrosscutError
from shared.types import Floats, Ints

TEST_SHARES = ((0.500, 0.625), (0.625, 0.750), (0.750, 1.000))
"""Test blocks as shares of the window. The first half is never tested on, the last quarter is the holdout."""

STOP_SHARE = 0.15
"""The last part of what lies before a test block; it only says when to stop adding trees."""

IC_SYMBOLS_MIN = 3
"""A rank correlation of two symbols is ±1 and says nothing."""

IC_BLOCK_S = 60
"""Seconds of the shortest block of the standard error: longer than any horizon here, so that overlapping labels do not
count as independent observations."""

IC_BLOCKS_MIN = 8
"""Blocks are doubled as long as so many remain: scores that change slowly are right or wrong for minutes on end."""


class LeakySplit(CrosscutError):
    """Rows to learn from and rows to judge on are closer than horizon + lookback."""


class Span(msgspec.Struct, frozen=True):
    """The seconds [start_s, end_s)."""

    start_s: int
    end_s: int

    @property
    def seconds(self) -> int:
        return max(0, self.end_s - self.start_s)

    def of(self, second: Ints) -> NDArray[np.bool_]:
        """Return which of the given seconds lie inside."""
        return (second >= self.start_s) & (second < self.end_s)


class Fold(msgspec.Struct, frozen=True):
    """What is fitted on, what stops the fitting, what is reported."""

    fit: Span
    stop: Span
    test: Span


def gap_s(horizon_s: int, lookback_s: int) -> int:
    """Return the least distance in seconds between the last row learnt from and the first row judged on.

    The label of row s is known at the end of row s + 1 + horizon; a feature of row t reaches back over
    `lookback` rows. One more second, because both ends are inclusive.
    """
    return 1 + horizon_s + lookback_s + 1


def walk_forward(known: Ints, *, horizon_s: int, lookback_s: int) -> tuple[Fold, ...]:
    """Return the folds of the seconds that have rows, in time order; the last one's test block is the holdout.

    Shares count recorded seconds, so that a night without a recorder moves no border into itself; gaps count time. Too
    few seconds for their gaps give folds with empty spans; training then says so in terms of labels.

    Args:
        known: seconds that have rows, sorted, each once, at least one.
    """
    gap = gap_s(horizon_s, lookback_s)
    first, end_s = int(known[0]), int(known[-1]) + 1

    def at(share: float, among: Ints) -> int:
        place = round(share * len(among))
        return int(among[place]) if place < len(among) else (int(among[-1]) + 1 if len(among) else first)

    folds = []
    for begin, end in TEST_SHARES:
        test = Span(at(begin, known), at(end, known) if end < 1.0 else end_s)
        before = known[known < test.start_s - gap]
        stop_start_s = at(1.0 - STOP_SHARE, before)
        stop = Span(stop_start_s, max(stop_start_s, test.start_s - gap))
        folds.append(Fold(Span(first, max(first, stop.start_s - gap)), stop, test))
    return tuple(folds)


def check_gap(learnt: Ints, judged: Ints, *, horizon_s: int, lookback_s: int) -> None:
    """Refuse a split whose two sides share an outcome.

    Args:
        learnt, judged: seconds of the rows on each side, any order.

    Raises:
        LeakySplit: our caller split by row, or forgot the embargo.
    """
    if not len(learnt) or not len(judged):
        return
    gap = gap_s(horizon_s, lookback_s)
    ordered = np.unique(learnt)
    right = np.searchsorted(ordered, judged)
    before = judged - ordered[np.maximum(right - 1, 0)]
    after = ordered[np.minimum(right, len(ordered) - 1)] - judged
    before, after = np.abs(before), np.abs(after)
    closest = int(min(before.min(), after.min()))
    if closest < gap:
        raise LeakySplit(
            f"rows to learn from and rows to judge on must lie {gap} s apart "
            f"(horizon {horizon_s} s + lookback {lookback_s} s), found {closest} s: split by time, with an embargo"
        )


class RankIC(msgspec.Struct, frozen=True):
    """Spearman's correlation across symbols of a signal with what followed, averaged over seconds."""

    mean: float  # NaN where no second had enough symbols
    standard_error: float  # of the mean, from block means; NaN below two blocks
    seconds: int


def rank_ic(second: Ints, signal: Floats, outcome: Floats) -> RankIC:
    """Return the mean rank IC; rows where either side is NaN do not take part."""
    is_known = np.isfinite(signal) & np.isfinite(outcome)
    per_second = (
        pl.DataFrame({"second": second[is_known], "signal": signal[is_known], "outcome": outcome[is_known]})
        .with_columns(pl.col("signal", "outcome").rank("average").over("second"))
        .group_by("second")
        .agg(pl.corr("signal", "outcome").alias("ic"), pl.len().alias("n"))
        .filter((pl.col("n") >= IC_SYMBOLS_MIN) & pl.col("ic").is_finite())
        .sort("second")
    )
    if per_second.is_empty():
        return RankIC(math.nan, math.nan, 0)
    error = _standard_error(per_second["second"].to_numpy(), per_second["ic"].to_numpy())
    return RankIC(float(per_second["ic"].to_numpy().mean()), error, len(per_second))


def _standard_error(second: Ints, ic: Floats) -> float:
    """Return the standard error of the mean by block means, the largest over block lengths (batch means).

    Minutes alone understate it: on a generated market it grew by a third to a half when blocks were four minutes long.
    """
    block_s, largest = IC_BLOCK_S, math.nan
    while True:
        _, block = np.unique(second // block_s, return_inverse=True)
        means = np.bincount(block, weights=ic) / np.bincount(block)
        if len(means) < (2 if math.isnan(largest) else IC_BLOCKS_MIN):
            return largest
        error = float(means.std(ddof=1) / math.sqrt(len(means)))
        largest = error if math.isnan(largest) else max(largest, error)
        block_s *= 2


def log_loss(label: NDArray[np.int8], probability: Floats) -> float:
    """Return the mean of -log p(label), natural logarithm; NaN for no rows."""
    if not len(label):
        return math.nan
    chosen = probability[np.arange(len(label)), label]
    return float(-np.log(np.clip(chosen, 1e-15, 1.0)).mean())
