"""Volatility against its definition, whatever is missing and whenever the engine began."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.strategy.volatility import RETURNS_MIN, WINDOW_S, Volatility
from shared.types import Floats

START_S = 1_760_000_000


def walk(seed: int, seconds: int, n_symbols: int = 3) -> Floats:
    """Return mids (T, N) of a random walk with holes."""
    random = np.random.default_rng(seed)
    mids = np.asarray(100.0 * np.cumprod(1 + random.normal(0, 5e-4, (seconds, n_symbols)), axis=0), np.float64)
    mids[random.random((seconds, n_symbols)) < 0.05] = np.nan
    return mids


def fed(mids: Floats, first_second: int, skipped: set[int] | None = None) -> Volatility:
    found = Volatility(mids.shape[1])
    for t, mid in enumerate(mids):
        if skipped is None or t not in skipped:
            found.take(first_second + t, mid - 0.01, mid + 0.01)
    return found


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 300), st.integers(1, 60))
def test_volatility_is_the_root_mean_square_return_of_two_minutes(seed: int, seconds: int, horizon_s: int) -> None:
    """numpy's definition over the last 120 returns, times the root of the horizon; nothing below thirty returns."""
    mids = walk(seed, seconds)
    found = fed(mids, START_S)
    returns = (mids[1:] / mids[:-1] - 1)[-WINDOW_S:]

    for n in range(mids.shape[1]):
        known = returns[np.isfinite(returns[:, n]), n]
        said = found.bps(n, horizon_s)
        if len(known) < RETURNS_MIN:
            assert said is None
        else:
            assert said == pytest.approx(math.sqrt(float(np.mean(known**2)) * horizon_s) * 1e4, rel=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(0, 400))
def test_volatility_does_not_know_when_the_engine_began(seed: int, earlier: int) -> None:
    """With any past before the window it is the same to the last bit: memory is finite, and a sum without an order."""
    mids = walk(seed, earlier + WINDOW_S + 1)

    long_fed, fresh = fed(mids, START_S), fed(mids[earlier:], START_S + earlier)

    assert [long_fed.bps(n, 10) for n in range(3)] == [fresh.bps(n, 10) for n in range(3)]


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 200), st.integers(1, 200))
def test_seconds_that_are_left_out_have_no_returns(seed: int, before: int, gap: int) -> None:
    """A gap is as if its seconds had no book: what is older than the window is gone, and no return spans it."""
    mids = walk(seed, before + gap + 60)
    dark = mids.copy()
    dark[before : before + gap] = np.nan

    left_out = fed(mids, START_S, skipped=set(range(before, before + gap)))
    silent = fed(dark, START_S)

    assert [left_out.bps(n, 10) for n in range(3)] == [silent.bps(n, 10) for n in range(3)]


def test_a_price_that_stands_still_has_no_volatility_and_one_without_a_book_none_to_tell() -> None:
    """Zero is a finding, None is not; what is done about either is sizing's business."""
    mids = np.full((100, 2), 100.0)
    mids[:, 1] = np.nan
    found = fed(mids, START_S)

    assert (found.bps(0, 10), found.bps(1, 10)) == (0.0, None)
