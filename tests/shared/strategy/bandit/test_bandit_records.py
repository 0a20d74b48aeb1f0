"""Win rates and Sharpe ratios with their uncertainty, against scipy and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from shared.strategy.bandit.records import record_of, sharpe_of, wilson


@given(st.integers(1, 500), st.data())
def test_wilson_is_scipys(n: int, data: st.DataObject) -> None:
    """The interval of the win rate is the one of another implementation."""
    wins = data.draw(st.integers(0, n))

    low, high = wilson(wins, n)

    expected = stats.binomtest(wins, n).proportion_ci(0.95, "wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low < high <= 1


def test_sharpes_error_is_that_of_simulation() -> None:
    """For skewed, fat returns the stated error is the spread that 3,000 samples of 200 trades show; Lo's, for normal
    ones, is its special case."""
    rng = np.random.default_rng(1)
    skewed = rng.gamma(2.0, 1.0, (3000, 200)) - 1.6
    found = [sharpe_of(row) for row in skewed]
    sharpes, errors = (np.array([f[k] for f in found], float) for k in (0, 1))

    assert errors.mean() == pytest.approx(sharpes.std(), rel=0.06)

    normal = rng.normal(0.3, 1.0, 200_000)
    sharpe, error = sharpe_of(normal)
    assert sharpe is not None
    assert error == pytest.approx(((1 + sharpe**2 / 2) / len(normal)) ** 0.5, rel=0.02)


def test_a_record_says_what_is_not_defined() -> None:
    """Two trades, or equal ones, have no Sharpe ratio; a win is more than nothing after costs."""
    record = record_of("A", np.array([4.0, 0.0, -1.0]))

    assert record.win_rate == pytest.approx(1 / 3)
    assert record.mean_bps == pytest.approx(1.0)
    assert record.sharpe is not None
    assert record_of("A", np.array([4.0, 0.0])).sharpe is None
    assert record_of("A", np.array([2.0] * 9)).sharpe_se is None
