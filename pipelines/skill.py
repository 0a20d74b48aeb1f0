"""What scores said against what followed, gathered block by block: rank IC, deciles, calibration.

A day of 600 symbols is 52 million scores; none of them is kept. Definitions are those of `pipelines.validation`
(rank IC by second, deciles by second) and `pipelines.evidence` (calibration error), in sums.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import polars as pl
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
        for probability, happened in ((scores.p_long, LONG), (scores.p_short, SHORT)):
            p, came = probability[known], outcomes.label[known] == happened
            at = np.clip(np.searchsorted(PROBABILITIES, p, side="right") - 1, 0, len(self._rows) - 1)
            self._rows += np.bincount(at, minlength=len(self._rows))
            self._p += np.bincount(at, weights=p, minlength=len(self._rows))
            self._hits += np.bincount(at, weights=came.astype(np.float64), minlength=len(self._rows))

    def _add_ranks(self, first_second: int, known: NDArray[np.bool_], said: Floats, came: Floats) -> None:
        t, _ = np.nonzero(known)
        frame = pl.DataFrame({"second": first_second + t, "said": said[known], "came": came[known]})
        ranked = frame.with_columns(n=pl.len().over("second")).filter(pl.col("n") >= IC_SYMBOLS_MIN)
        if ranked.is_empty():
            return
        ranked = ranked.with_columns(
            said_rank=pl.col("said").rank("average").over("second"),
            came_rank=pl.col("came").rank("average").over("second"),
            decile=(pl.col("said").rank("ordinal").over("second") - 1) * DECILES // pl.col("n"),
        )
        by_second = (
            ranked.group_by("second")
            .agg(ic=pl.corr("said_rank", "came_rank"))
            .filter(pl.col("ic").is_finite())
            .sort("second")
        )
        self._when.append(by_second["second"].to_numpy())
        self._ic.append(by_second["ic"].to_numpy())
        sums = (
            ranked.group_by(minute=(pl.col("second") - self._start_s) // MINUTE_S, decile="decile")
            .agg(pl.len().alias("n"), pl.col("said").sum(), pl.col("came").sum())
            .sort("minute", "decile")
        )
        at = sums["minute"].to_numpy(), sums["decile"].to_numpy()
        self._n[at] += sums["n"].to_numpy()
        self._said[at] += sums["said"].to_numpy()
        self._came[at] += sums["came"].to_numpy()

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
        )


def _error(means: Floats) -> float:
    known = means[np.isfinite(means)]
    return float(known.std(ddof=1) / math.sqrt(len(known))) if len(known) > 1 else math.nan
