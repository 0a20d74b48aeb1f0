"""How a model is judged: purged walk-forward folds, the rank IC, and the errors a leaky split ends in.

Time is the only axis that is split, for all symbols at once: a label of row s looks as far as row s + reach
(`Rule.reach_s`), a feature of row t has seen (t - lookback, t]. Two rows whose label and feature windows touch share an
outcome, whatever their symbols are (López de Prado 2018, §7.4: purging and embargo). So between what a model has seen
and what it is judged on lie at least reach + lookback seconds, and `check_gap` refuses anything closer.

    fit  [----------------]  gap  [stop]  gap  [calibrate]  gap  [ test ]
         trees                    when to      probabilities       reported, never
                                  stop                             used to choose anything

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

STOP_SHARE, CALIBRATE_SHARE = 0.12, 0.08
"""The last parts of what lies before a test block: one says when to stop adding trees, the other what their
probabilities mean. Not one for both: at the round that looked best on a block, the block looks better than it is."""

IC_SYMBOLS_MIN = 3
"""A rank correlation of two symbols is ±1 and says nothing."""

IC_BLOCK_S = 60
"""Seconds of the shortest block of the standard error: longer than the horizon, so that overlapping labels do not
count as independent observations."""

IC_BLOCKS_MIN = 8
"""Blocks are doubled as long as so many remain: scores that change slowly are right or wrong for minutes on end."""


class LeakySplit(CrosscutError):
    """Rows to learn from and rows to judge on are closer than reach + lookback."""


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
    """What is fitted on, what stops the fitting, what probabilities are calibrated on, what is reported."""

    fit: Span
    stop: Span
    calibrate: Span
    test: Span

    @property
    def learnt(self) -> tuple[Span, Span, Span]:
        """Return everything that had a part in the model."""
        return self.fit, self.stop, self.calibrate


def gap_s(reach_s: int, lookback_s: int) -> int:
    """Return the least distance in seconds between the last row learnt from and the first row judged on.

    The label of row s looks at row s + reach; a feature of row t reaches back over `lookback` rows. One more second,
    because both ends are inclusive.
    """
    return reach_s + lookback_s + 1


def walk_forward(known: Ints, *, reach_s: int, lookback_s: int) -> tuple[Fold, ...]:
    """Return the folds of the seconds that have rows, in time order; the last one's test block is the holdout.

    Shares count recorded seconds, so that a night without a recorder moves no border into itself; gaps count time. Too
    few seconds for their gaps give folds with empty spans; training then says so in terms of labels.

    Args:
        known: seconds that have rows, sorted, each once, at least one.
    """
    gap = gap_s(reach_s, lookback_s)
    first, end_s = int(known[0]), int(known[-1]) + 1

    def at(share: float, among: Ints) -> int:
        place = round(share * len(among))
        return int(among[place]) if place < len(among) else (int(among[-1]) + 1 if len(among) else first)

    folds = []
    for begin, end in TEST_SHARES:
        test = Span(at(begin, known), at(end, known) if end < 1.0 else end_s)
        before = known[known < test.start_s - gap]
        begin_s = at(1.0 - CALIBRATE_SHARE, before)
        calibrate = Span(begin_s, max(begin_s, test.start_s - gap))
        begin_s = min(at(1.0 - CALIBRATE_SHARE - STOP_SHARE, before), calibrate.start_s)
        stop = Span(begin_s, max(begin_s, calibrate.start_s - gap))
        folds.append(Fold(Span(first, max(first, stop.start_s - gap)), stop, calibrate, test))
    return tuple(folds)


def check_gap(learnt: Ints, judged: Ints, *, reach_s: int, lookback_s: int) -> None:
    """Refuse a split whose two sides share an outcome.

    Args:
        learnt, judged: seconds of the rows on each side, any order.

    Raises:
        LeakySplit: our caller split by row, or forgot the embargo.
    """
    if not len(learnt) or not len(judged):
        return
    gap = gap_s(reach_s, lookback_s)
    ordered = np.unique(learnt)
    right = np.searchsorted(ordered, judged)
    before = judged - ordered[np.maximum(right - 1, 0)]
    after = ordered[np.minimum(right, len(ordered) - 1)] - judged
    before, after = np.abs(before), np.abs(after)
    closest = int(min(before.min(), after.min()))
    if closest < gap:
        raise LeakySplit(
            f"rows to learn from and rows to judge on must lie {gap} s apart "
            f"(labels look {reach_s} s ahead, features {lookback_s} s back), found {closest} s: "
            "split by time, with an embargo"
        )


class RankIC(msgspec.Struct, frozen=True):
    """Spearman's correlation across symbols of a signal with what followed, averaged over seconds."""

    mean: float  # NaN where no second had enough symbols
    standard_error: float  # of the mean, from block means; NaN below two blocks
    seconds: int


class Spread(msgspec.Struct, frozen=True):
    """What followed the tenth of the symbols with the highest signal, less what followed the lowest, bps a second."""

    mean: float  # NaN where no second had enough symbols
    standard_error: float
    by_decile: tuple[float, ...]  # mean outcome of each tenth by signal, lowest first


UNKNOWN_IC = RankIC(math.nan, math.nan, 0)
UNKNOWN_SPREAD = Spread(math.nan, math.nan, ())


def rank_ic(second: Ints, signal: Floats, outcome: Floats, *, block_s: int = IC_BLOCK_S) -> RankIC:
    """Return the mean rank IC; rows where either side is NaN do not take part.

    Args:
        block_s: shortest block of the standard error; longer than the outcome's horizon.
    """
    when, ic = ic_by_second(second, signal, outcome)
    return mean_ic(when, ic, block_s=block_s)


def mean_ic(when: Ints, ic: Floats, *, block_s: int = IC_BLOCK_S) -> RankIC:
    """Return the mean of the rank ICs of these seconds, with its standard error."""
    if not len(when):
        return UNKNOWN_IC
    return RankIC(float(ic.mean()), _standard_error(when, ic, max(block_s, IC_BLOCK_S)), len(when))


def ic_by_second(second: Ints, signal: Floats, outcome: Floats) -> tuple[Ints, Floats]:
    """Return the seconds that have a rank IC, in order, and the rank IC of each."""
    per_second = (
        _known(second, signal, outcome)
        .with_columns(pl.col("signal", "outcome").rank("average").over("second"))
        .group_by("second")
        .agg(pl.corr("signal", "outcome").alias("ic"), pl.len().alias("n"))
        .filter((pl.col("n") >= IC_SYMBOLS_MIN) & pl.col("ic").is_finite())
        .sort("second")
    )
    return per_second["second"].to_numpy(), per_second["ic"].to_numpy()


def decile_spread(second: Ints, signal: Floats, outcome: Floats) -> Spread:
    """Return what the signal's extremes earned before costs; of fewer than ten symbols the extremes are one each.

    Equal signals are ordered by where they stand in the input, which is by symbol: a constant earns what an arbitrary
    choice of symbols earns.
    """
    ranked = (
        _known(second, signal, outcome)
        .with_columns(at=pl.col("signal").rank("ordinal").over("second") - 1, n=pl.len().over("second"))
        .filter(pl.col("n") >= IC_SYMBOLS_MIN)
        .with_columns(size=pl.max_horizontal(pl.col("n") // 10, 1), decile=pl.col("at") * 10 // pl.col("n"))
    )
    if ranked.is_empty():
        return UNKNOWN_SPREAD
    is_top, is_bottom = pl.col("at") >= pl.col("n") - pl.col("size"), pl.col("at") < pl.col("size")
    earned = (
        ranked.group_by("second")
        .agg(
            (pl.col("outcome").filter(is_top).mean() - pl.col("outcome").filter(is_bottom).mean()).alias("bps"),
        )
        .sort("second")
    )
    deciles = dict(ranked.group_by("decile").agg(pl.col("outcome").mean()).iter_rows())
    bps = earned["bps"].to_numpy()
    return Spread(
        mean=float(bps.mean()),
        standard_error=_standard_error(earned["second"].to_numpy(), bps),
        by_decile=tuple(float(deciles.get(k, math.nan)) for k in range(10)),
    )


def _known(second: Ints, signal: Floats, outcome: Floats) -> pl.DataFrame:
    is_known = np.isfinite(signal) & np.isfinite(outcome)
    return pl.DataFrame({"second": second[is_known], "signal": signal[is_known], "outcome": outcome[is_known]})


def _standard_error(second: Ints, values: Floats, block_s: int = IC_BLOCK_S) -> float:
    """Return the standard error of the mean by block means, the largest over block lengths (batch means).

    Minutes alone understate it: on a generated market it grew by a third to a half when blocks were four minutes long.
    """
    largest = math.nan
    while True:
        _, block = np.unique(second // block_s, return_inverse=True)
        means = np.bincount(block, weights=values) / np.bincount(block)
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
