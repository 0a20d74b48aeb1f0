"""What scores said against what followed, gathered block by block: rank IC, deciles, calibration.

A day of 600 symbols is 52 million scores; none of them is kept. Definitions are those of `pipelines.validation`
(rank IC by second, deciles by second) and `pipelines.evidence` (calibration error), in sums.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipelines.scoring import Outcomes
from pipelines.validation import IC_SYMBOLS_MIN, UNKNOWN_IC, RankIC, mean_ic
from shared.labels import LONG, SHORT
from shared.strategy.scores import Scores
from shared.types import Floats, Ints

MINUTE_S = 60
DECILES = 10

PROBABILITIES = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Borders of the bins that probabilities are compared with frequencies in; finer where most of them lie."""

Flags = NDArray[np.bool_]


class Skill(msgspec.Struct, frozen=True, kw_only=True):
    """How much the scores knew, before any cost; empty arrays where nothing can be said."""

    ic: RankIC
    ic_by_minute: Floats  # (minutes,), NaN where a minute has none
    decile_said_bps: Floats  # (10,) mean edge that the scores claimed, lowest tenth first
    decile_came_bps: Floats  # (10,) mean move of the mid that followed
    decile_error_bps: Floats  # (10,) standard error of that, from means of minutes
    probability: Floats  # (B,) mean of each bin that has rows, long and short together
    frequency: Floats  # (B,) how often it came true
    rows: Ints  # (B,)

    top_less_bottom_error_bps: float = math.nan  # standard error, from means of minutes

    @property
    def top_less_bottom_bps(self) -> float:
        """Return how much further the mid of the highest tenth moved than that of the lowest, before costs."""
        return float(self.decile_came_bps[-1] - self.decile_came_bps[0])

    @property
    def calibration_error(self) -> float:
        """Return the mean of |frequency - probability| over rows [1]; NaN without rows."""
        n = int(self.rows.sum())
        return float((np.abs(self.frequency - self.probability) * self.rows).sum() / n) if n else math.nan


NO_SKILL = Skill(
    ic=UNKNOWN_IC, ic_by_minute=np.empty(0), decile_said_bps=np.full(DECILES, np.nan),
    decile_came_bps=np.full(DECILES, np.nan), decile_error_bps=np.full(DECILES, np.nan), probability=np.empty(0),
    frequency=np.empty(0), rows=np.empty(0, np.int64),
)  # fmt: skip
"""Nothing was said, or nothing is known of what followed."""


class SkillMeter:
    """Adds up blocks of a window that begins at `start_s`."""

    def __init__(self, start_s: int, end_s: int) -> None:
        self._start_s, self._n_minutes = start_s, -(-(end_s - start_s) // MINUTE_S)
        self._when: list[Ints] = []
        self._ic: list[Floats] = []
        shape = (self._n_minutes, DECILES)
        self._n, self._said, self._came = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        bins = len(PROBABILITIES) - 1
        self._rows, self._p, self._hits = np.zeros(bins), np.zeros(bins), np.zeros(bins)

    def add(self, first_second: int, scores: Scores, outcomes: Outcomes) -> None:
        """Take in a block."""
        known = scores.is_valid & np.isfinite(outcomes.mid_bps)
        if known.any():
            self._add_ranks(first_second, known, scores.edge_bps, outcomes.mid_bps)
        known = scores.is_valid & np.isfinite(outcomes.label)
        label = outcomes.label[known]
        for probability, happened in ((scores.p_long, LONG), (scores.p_short, SHORT)):
            p = probability[known]
            at = _bins(p)
            self._rows += np.bincount(at, minlength=len(self._rows))
            self._p += np.bincount(at, weights=p, minlength=len(self._rows))
            self._hits += np.bincount(at, weights=label == happened, minlength=len(self._rows))

    def _add_ranks(self, first_second: int, known: Flags, said: Floats, came: Floats) -> None:
        """Add the rank IC of every second, and what its deciles said and what came of it."""
        n_known = np.count_nonzero(known, axis=1)
        known = known & (n_known >= IC_SYMBOLS_MIN)[:, None]
        said_ranks, order = ranks(said, known, is_stable=True)
        ic = _correlation(said_ranks, ranks(came, known)[0])
        place = np.arange(known.shape[1], dtype=np.int32)
        decile = np.empty(known.shape, np.int32)
        np.put_along_axis(decile, order, place * DECILES // np.maximum(n_known, 1)[:, None], axis=1)
        second = first_second + np.arange(len(known))
        is_defined = np.isfinite(ic)
        self._when.append(second[is_defined])
        self._ic.append(ic[is_defined])
        at = (((second - self._start_s) // MINUTE_S * DECILES)[:, None] + decile)[known]
        for sums, weights in ((self._n, None), (self._said, said[known]), (self._came, came[known])):
            sums += np.bincount(at, weights=weights, minlength=sums.size).reshape(sums.shape)

    def found(self) -> Skill:
        """Return what all blocks together say."""
        when = np.concatenate(self._when) if self._when else np.empty(0, np.int64)
        ic = np.concatenate(self._ic) if self._ic else np.empty(0)
        minute = (when - self._start_s) // MINUTE_S
        counted = np.bincount(minute, minlength=self._n_minutes)
        with np.errstate(invalid="ignore", divide="ignore"):
            by_minute = np.bincount(minute, weights=ic, minlength=self._n_minutes) / counted
            total = self._n.sum(axis=0)
            said, came = self._said.sum(axis=0) / total, self._came.sum(axis=0) / total
            means = self._came / self._n  # (minutes, 10)
        kept = self._rows > 0
        return Skill(
            ic=mean_ic(when, ic),
            ic_by_minute=by_minute,
            decile_said_bps=said,
            decile_came_bps=came,
            decile_error_bps=np.array([_error(means[:, k]) for k in range(DECILES)]),
            probability=self._p[kept] / self._rows[kept],
            frequency=self._hits[kept] / self._rows[kept],
            rows=self._rows[kept].astype(np.int64),
            top_less_bottom_error_bps=_error(means[:, -1] - means[:, 0]),
        )


def ranks(values: Floats, known: Flags, *, is_stable: bool = False) -> tuple[Floats, Ints]:
    """Rank what is known in every row, the least first; equal ones share the mean of their places.

    Args:
        is_stable: equal values are ordered by where they stand, else anyhow.

    Returns:
        Twice the distance of each rank from the row's mean rank: a whole number, so that sums of them and of their
        products are exact in any order; 0 where nothing is known. (T, N)
        The row's order: where its places stand, what is not known last. (T, N)
    """
    n = values.shape[1]
    place, n_known = np.arange(n, dtype=np.int32), np.count_nonzero(known, axis=1)[:, None].astype(np.int32)
    filled = np.where(known, values, np.inf)  # a NaN costs a sort three times as much
    order = np.argsort(filled, axis=1)
    ordered = np.take_along_axis(filled, order, axis=1)
    is_new = place >= n_known  # every place of what is not known
    is_new[:, 0] = True
    is_new[:, 1:] |= ordered[:, 1:] != ordered[:, :-1]
    twice = np.repeat(2 * place[None, :], len(values), axis=0)
    tied = np.flatnonzero(~is_new.all(axis=1))
    if len(tied):
        if is_stable:
            order[tied] = np.argsort(filled[tied], axis=1, kind="stable")  # twice the time of the one that is not
        begins, ends = is_new[tied], np.ones((len(tied), n), np.bool_)
        ends[:, :-1] = begins[:, 1:]
        first = np.maximum.accumulate(np.where(begins, place, 0), axis=1)
        last = np.minimum.accumulate(np.where(ends, place, n)[:, ::-1], axis=1)[:, ::-1]
        twice[tied] = first + last
    found = np.empty(values.shape)
    np.put_along_axis(found, order, np.where(place < n_known, twice - (n_known - 1), 0), axis=1)
    return found, order


def _correlation(a: Floats, b: Floats) -> Floats:
    """Return Pearson's correlation of each row of two arrays of mean 0; NaN where one of them is constant."""
    with np.errstate(invalid="ignore"):
        found: Floats = (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return found


def _bins(p: Floats) -> NDArray[np.int8]:
    """Return the bin of each probability; for so few borders comparing is a quarter of searching."""
    at = np.zeros(len(p), np.int8)
    for border in PROBABILITIES[1:-1]:
        at += p >= border
    return at


def _error(means: Floats) -> float:
    known = means[np.isfinite(means)]
    return float(known.std(ddof=1) / math.sqrt(len(known))) if len(known) > 1 else math.nan
