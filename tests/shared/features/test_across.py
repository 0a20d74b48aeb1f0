"""Operators across symbols: order, ties, missing values; against exact sums, scipy and polars."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from shared.features import across
from shared.features.ops import Column, Constant, Second
from shared.types import Floats
from tests.shared.features.test_ops import evaluate

X = Column("x")

finite = st.floats(-1e150, 1e150, allow_subnormal=True)
cells = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, 0.0, -0.0, 1.0, 2.5]))
rows = st.integers(1, 30).flatmap(lambda n: arrays.arrays(np.float64, (3, n), elements=cells))


def known(row: Floats) -> Floats:
    return row[np.isfinite(row)]


# ---------------------------------------------------------------------------------------------- sums


def summed(x: Floats) -> float:
    row = x[None, :]
    return float(across.order_free_sum(row, np.abs(row).max(axis=1, keepdims=True))[0, 0])


@given(arrays.arrays(np.float64, st.integers(1, 200), elements=finite), st.randoms(use_true_random=False))
def test_a_sum_does_not_depend_on_its_order(x: Floats, random: object) -> None:
    """Any permutation of any doubles, tiny beside huge, gives the same bits; so do zeros among them."""
    order = list(range(len(x)))
    random.shuffle(order)  # type: ignore[attr-defined]

    expected = summed(x)

    assert summed(x[order]).hex() == expected.hex()
    assert summed(np.concatenate([[0.0], x[order], [0.0, 0.0]])).hex() == expected.hex()
    assert summed(-x) == -expected


@given(arrays.arrays(np.float64, st.integers(1, 200), elements=finite))
def test_a_sum_is_exact_to_a_part_in_2_to_the_80(x: Floats) -> None:
    """Against rational arithmetic: no further off than 2^-80 of the largest summand each, and one rounding."""
    exact = sum((Fraction(float(value)) for value in x), Fraction(0))

    found = Fraction(summed(x))

    largest = Fraction(float(np.abs(x).max()))
    assert abs(found - exact) <= len(x) * largest / 2**80 + abs(exact) / 2**52 + len(x) * Fraction(5e-324)


def test_a_plain_sum_does_depend_on_its_order() -> None:
    """The law above is not vacuous: numpy's own sum of returns changes with the order of symbols."""
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1e-4, (50, 600))
    order = rng.permutation(600)

    assert (x.sum(axis=1) != x[:, order].sum(axis=1)).any()
    largest = np.abs(x).max(axis=1, keepdims=True)
    shuffled = np.ascontiguousarray(x[:, order])
    assert np.array_equal(across.order_free_sum(x, largest), across.order_free_sum(shuffled, largest))


@pytest.mark.parametrize("n", [1, 2, 800, across.SYMBOLS_MAX])
def test_as_many_equal_numbers_as_there_may_be_symbols(n: int) -> None:
    """The bound is tight enough: the largest allowed row of the worst case sums exactly."""
    x = np.full(n, np.nextafter(2.0, 0.0))

    assert summed(x) == math.fsum(x)


# ------------------------------------------------------------------------------------------ operators


@given(rows)
def test_mean_and_deviation_are_those_of_the_known_values(x: Floats) -> None:
    """Missing symbols take no part; a mean of none and a deviation of one are missing."""
    mean, deviation = evaluate(across.mean_across(X), x=x), evaluate(across.std_across(X), x=x)

    for t, row in enumerate(x):
        values = known(row)
        expected_mean = math.fsum(values) / len(values) if len(values) else math.nan
        expected = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        np.testing.assert_allclose(mean[t], expected_mean, rtol=1e-14, atol=1e-16)
        np.testing.assert_allclose(deviation[t], expected, rtol=1e-9, atol=1e-9)


@given(rows)
def test_zscore_is_that_of_scipy(x: Floats) -> None:
    """(x − mean) / deviation, 0 where all are equal; a symbol's own NaN stays."""
    score, less_mean = evaluate(across.zscore(X), x=x), evaluate(across.demean(X), x=x)

    for t, row in enumerate(x):
        values = known(row)
        if len(values) > 1 and np.ptp(values) > 1e-9 * np.abs(values).max():
            expected = stats.zscore(row, ddof=1, nan_policy="omit")
            np.testing.assert_allclose(score[t], expected, rtol=1e-6, atol=1e-9)
        elif len(values) > 1 and np.ptp(values) == 0.0:
            assert (score[t][np.isfinite(row)] == 0.0).all()
        elif len(values) < 2:
            assert np.isnan(score[t]).all()
        np.testing.assert_array_equal(np.isnan(less_mean[t]), np.isnan(row))


@given(rows)
def test_rank_is_that_of_scipy(x: Floats) -> None:
    """Ties share their mean rank, −0 and 0 are a tie, missing symbols are not counted."""
    rank = evaluate(across.rank(X), x=x)

    for t, row in enumerate(x):
        n = len(known(row))
        ranks = stats.rankdata(row + 0.0, method="average", nan_policy="omit")
        expected = (ranks - (n + 1) / 2) / (n - 1) if n > 1 else np.full(len(row), math.nan)
        np.testing.assert_array_equal(rank[t], expected)


@given(rows, st.randoms(use_true_random=False))
def test_permuted_symbols_permute_values(x: Floats, random: object) -> None:
    """Bit for bit, for every operator across symbols."""
    order = list(range(x.shape[1]))
    random.shuffle(order)  # type: ignore[attr-defined]
    permuted = np.ascontiguousarray(x[:, order])
    for node in (across.mean_across(X), across.std_across(X), across.demean(X), across.zscore(X), across.rank(X)):
        left, right = evaluate(node, x=permuted), evaluate(node, x=x)
        np.testing.assert_array_equal(left, right[:, order], err_msg=repr(node))


def test_infinite_values_take_no_part_in_a_cross_section() -> None:
    """An infinity is no observation: others are ranked and averaged without it."""
    x = np.array([[1.0, np.inf, 3.0, -np.inf]])

    np.testing.assert_array_equal(evaluate(across.rank(X), x=x), [[-0.5, np.nan, 0.5, np.nan]])
    assert (evaluate(across.mean_across(X), x=x) == 2.0).all()


def test_the_value_of_a_symbol_is_everybodys() -> None:
    """A reference is read where it stands; one that is not listed is missing."""
    x = np.array([[1.0, 2.0, 3.0], [np.nan, 5.0, 6.0]])

    found = evaluate(across.value_of("BTCUSDT", X) + 0.0 * X, x=x)
    absent = evaluate(across.value_of("NOBODY", X) + 0.0 * X, x=x)

    np.testing.assert_array_equal(found, [[1.0, 1.0, 1.0], [np.nan] * 3])
    assert np.isnan(absent).all()


def test_a_cross_section_of_what_all_share_is_refused() -> None:
    """Ranking the clock, or a mean, is a formula written wrong."""
    for node in (Second(), Constant(1.0), across.mean_across(X)):
        with pytest.raises(AssertionError, match="no cross-section"):
            across.rank(node)
