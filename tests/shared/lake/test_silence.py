"""What is a hole and what is a quiet market: against counted chances, and against real recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.lake import silence
from shared.types import NS

MS = 10**6
MINUTE_NS = 60 * NS


def marked_share(seed: int, arrivals: Any, hours: int = 40) -> float:
    """Return the share of clean minutes that hold a hole, over hours of arrivals `arrivals(rng) -> times`."""
    rng = np.random.default_rng(seed)
    marked = 0
    for _ in range(hours):
        times = arrivals(rng)
        found = silence.holes(times, silence.limit_ns(times))
        marked += len(np.unique(times[found] // MINUTE_NS))
    return marked / (60 * hours)


@pytest.mark.parametrize("interval_s", [0.3, 1.0, 6.0, 20.0])
def test_random_arrivals_have_no_holes(interval_s: float) -> None:
    """A market that pushes when something happens, at whatever rate: at most one clean minute in 1,000 is marked."""

    def arrivals(rng: np.random.Generator) -> Any:
        return np.cumsum(rng.exponential(interval_s * NS, int(3600 / interval_s))).astype(np.int64)

    assert marked_share(1, arrivals) <= 0.001


@pytest.mark.parametrize("unchanged", [0.0, 0.02, 0.04, 0.08, 0.3, 0.7])
def test_ticks_without_news_are_no_holes(unchanged: float) -> None:
    """A channel that looks every 100 ms and pushes what has changed: at most one clean minute in 1,000 is marked."""

    def arrivals(rng: np.random.Generator) -> Any:
        ticks = np.flatnonzero(rng.random(36_000) >= unchanged) * 100 * MS
        return np.sort(ticks + rng.normal(0, 8 * MS, len(ticks)).astype(np.int64))

    assert marked_share(2, arrivals, hours=20) <= 0.001


@given(
    cadence_ms=st.integers(20, 2000),
    n_lost=st.integers(0, 30),
    at=st.integers(1, 800),
    singles=st.sets(st.integers(1, 900), max_size=20),
)
def test_steady_channel_is_held_to_five_cadences(cadence_ms: int, n_lost: int, at: int, singles: set[int]) -> None:
    """Of a steady channel that also loses single pushes, five in a row missing are a hole where they were, four are
    none (unless more went beside them)."""
    times = np.arange(1000) * cadence_ms * MS
    kept = np.array([i for i in range(1000) if not at <= i < at + n_lost and i not in singles])

    found = silence.holes(times[kept], silence.limit_ns(times[kept]))

    expected = [int(i) for i in np.flatnonzero(np.diff(kept) > 5)]
    usual = np.quantile([np.diff(kept)[part].max() for part in _minutes(times[kept])], 0.25)
    if usual * 1.5 <= 5:  # else its minutes have pauses as a rule
        assert found.tolist() == expected


def _minutes(times: Any) -> list[Any]:
    minutes = times[1:] // MINUTE_NS
    return [minutes == minute for minute in np.unique(minutes)]


def test_links_that_end_are_no_habit() -> None:
    """Intervals in which a link ended do not count: a channel that is cut off in every minute is held to its cadence."""
    times = np.concatenate([np.arange(100) * 100 * MS + minute * MINUTE_NS for minute in range(5)])
    is_broken = np.diff(times) > NS

    assert silence.limit_ns(times, is_broken) == 500 * MS
    assert silence.limit_ns(times) > 50 * NS


def test_too_few_pushes_are_not_judged() -> None:
    """Nineteen intervals are no habit; nor are pushes of one instant."""
    assert silence.limit_ns(np.arange(20) * NS) == np.inf
    assert silence.limit_ns(np.arange(21) * NS) == 5 * NS
    assert silence.limit_ns(np.zeros(100, np.int64)) == np.inf
    assert silence.limit_ns(np.empty(0, np.int64)) == np.inf


def test_real_books_show_their_real_hole_and_no_other(outside: Path) -> None:
    """36 minutes of four symbols hold one hole of 17.5 s in all of them: it is found in each and in all at once, and
    of the other 35 minutes none is marked, in books pushed twice a second and in quotes pushed when they change."""
    folder = outside / "market" / "recordings" / "hyperliquid_20250904"
    every = []
    for kind in ("book", "bbo"):
        for symbol in ("BTC", "ETH", "SOL", "WLFI"):
            times = np.sort(pl.read_parquet(folder / f"{symbol}.{kind}.parquet")["exch_ns"].to_numpy())
            found = silence.holes(times, silence.limit_ns(times))
            assert len(found) == 1, (symbol, kind)
            assert 17 * NS < times[found[0] + 1] - times[found[0]] < 18.5 * NS
            every.append(times)
    heard = silence.Heard(min(int(t[0]) for t in every), max(int(t[-1]) for t in every) + 1)
    for times in every:
        heard.note(times)

    [(begin_ns, end_ns)] = heard.holes()

    assert 17 * NS < end_ns - begin_ns < 18.5 * NS


@given(st.lists(st.integers(-100, 4000), max_size=200))
def test_heard_is_what_any_part_heard(at_ms: list[int]) -> None:
    """However pushes are shared among symbols: together they heard the same, what is outside the time left out."""
    whole, one, two = (silence.Heard(0, 3 * NS) for _ in range(3))
    times = np.array(at_ms, np.int64) * MS
    whole.note(times)
    one.note(times[::2])
    two.note(times[1::2][::-1])

    joined = silence.Heard.joined([one, two])

    assert joined.holes() == whole.holes()
    assert joined.limit_ns == whole.limit_ns
    inside = np.unique(times[(times >= 0) & (times < 3 * NS)] // silence.BUCKET_NS)
    assert len(joined.holes()) == int((np.diff(inside) * silence.BUCKET_NS > whole.limit_ns).sum())
