"""Silence that says something: holes in what a channel, or a whole connection, pushes.

A quiet market is silent and right to be; a feed that stands still is silent and wrong. What tells them apart is the
channel's own habit in the hour. Everything here looks at *exchange* time: pushes that a slow network delivers late and
in a heap leave no hole there, pushes that were lost do.

    steady     24 of 25 intervals are at most 1.5 times their median, the cadence (Bitget pushes tickers and shallow
               books every 105 to 150 ms): more than 5 cadences without a push is a hole. At 4 % of ticks without news
               a clean channel shows five in a row once in 10 million ticks.
    unsteady   (pushes on change only, in a market that does not always change): a hole is longer than 6 times the 90 %
               quantile of its intervals and 4 times the usual longest interval of a minute. For arrivals at random,
               at any rate from 0.1 a second up, that marks less than one clean minute in 1,000.
    unknown    fewer than 20 intervals: nothing is judged; after 30 s a symbol is stale anyway.

A single lost push of a steady channel is a hole of two cadences and cannot be told from a tick without news: see
docs/coverage.md for how much that is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shared.types import NS, Ints

INTERVALS_MIN = 20
CADENCES_MAX = 5.0
"""Silence beyond so many cadences of a steady channel is a loss."""

CADENCE_NS_MAX = 150_000_000
"""Bitget's slowest measured cadence; a connection with many channels is judged by it at least."""

BUCKET_NS = 50_000_000
"""How finely a connection's silence is seen: its pushes are thousands a second."""

_STEADY = 1.5
_NOISE = 0.04
_QUANTILE_TIMES = 6.0
_LONGEST_TIMES = 4.0
_LONGEST_TIMES_STEADY = 1.5
"""A steady channel that pauses in three of four minutes is a market that pauses."""

_MINUTE_NS = 60 * NS


def limit_ns(times_ns: Ints, is_broken: NDArray[np.bool_] | None = None) -> float:
    """Return how long the silence between pushes at these (sorted) times may be; inf where there are too few.

    Args:
        is_broken: which of the intervals between them saw a link end: no habit of the channel.
    """
    intervals, ends_ns = _intervals(times_ns, is_broken)
    if len(intervals) < INTERVALS_MIN:
        return np.inf
    cadence = float(np.median(intervals))
    longest = _longest_of_minutes(ends_ns, intervals)
    if float(np.mean(intervals > _STEADY * cadence)) <= _NOISE:
        return max(CADENCES_MAX * cadence, _LONGEST_TIMES_STEADY * float(np.quantile(longest, 0.25)))
    return max(_QUANTILE_TIMES * float(np.quantile(intervals, 0.9)), _LONGEST_TIMES * float(np.median(longest)))


def holes(times_ns: Ints, limit: float) -> NDArray[np.intp]:
    """Return the positions of the pushes that a hole follows: the next (sorted) time is more than `limit` later."""
    return np.flatnonzero(np.diff(times_ns) > limit)


def due_ns(times_ns: Ints, is_broken: NDArray[np.bool_] | None = None) -> float:
    """Return after how long the next push is due, give or take; 0 where nobody can tell."""
    intervals, _ = _intervals(times_ns, is_broken)
    return _STEADY * float(np.median(intervals)) if len(intervals) >= INTERVALS_MIN else 0.0


def _intervals(times_ns: Ints, is_broken: NDArray[np.bool_] | None) -> tuple[Ints, Ints]:
    """Return the intervals that a habit is made of, and when each ended."""
    intervals = np.diff(times_ns)
    is_interval = intervals > 0  # pushes of one instant are one
    if is_broken is not None:
        is_interval &= ~is_broken
    return intervals[is_interval], times_ns[1:][is_interval]


def _longest_of_minutes(ends_ns: Ints, intervals: Ints) -> Ints:
    """Return the longest interval that ends in each minute; of most of them it is the habit, whatever broke in one."""
    minutes = ends_ns // _MINUTE_NS
    starts = np.flatnonzero(np.concatenate([[True], minutes[1:] != minutes[:-1]]))
    longest: Ints = np.maximum.reduceat(intervals, starts)
    return longest


class Heard:
    """When anything of some channels was heard, in buckets of exchange time: the habit of a whole connection.

    Args:
        start_ns: begin of the first bucket.
        end_ns: end of the last one, exclusive; what is outside is left out.
    """

    def __init__(self, start_ns: int, end_ns: int) -> None:
        self.start_ns = start_ns
        self._heard = np.zeros(-(-(end_ns - start_ns) // BUCKET_NS), np.bool_)

    def note(self, times_ns: Ints) -> None:
        """Note pushes, in any order."""
        buckets = (times_ns - self.start_ns) // BUCKET_NS
        self._heard[buckets[(buckets >= 0) & (buckets < len(self._heard))]] = True

    @classmethod
    def joined(cls, parts: Sequence[Heard]) -> Heard:
        """Return what any of the parts, which are of the same time, heard."""
        joined = cls.__new__(cls)
        joined.start_ns, joined._heard = parts[0].start_ns, np.logical_or.reduce([part._heard for part in parts])
        return joined

    @property
    def limit_ns(self) -> float:
        return max(limit_ns(self._times()), CADENCES_MAX * CADENCE_NS_MAX)

    def holes(self) -> list[tuple[int, int]]:
        """Return the holes as [last push, next push), to within a bucket."""
        at = self._times()
        return [(int(at[i]), int(at[i + 1]) + BUCKET_NS) for i in holes(at, self.limit_ns)]

    def _times(self) -> Ints:
        times: Ints = np.flatnonzero(self._heard).astype(np.int64) * BUCKET_NS + self.start_ns
        return times
