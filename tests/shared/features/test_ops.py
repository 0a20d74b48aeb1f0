"""Each operator against an outside oracle: polars' rolling functions, numpy, and arithmetic in 50 digits."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from shared.features import ops
from shared.features.graph import FeatureGraph
from shared.features.ops import OPERATORS, Column, Lag, Node, equal, less, maximum, minimum, nonzero, notional, share
from shared.features.plan import Call
from shared.types import Floats
from tests.shared.features import worlds

X, Y, Z = Column("x"), Column("y"), Column("z")

values = st.one_of(st.floats(-1e6, 1e6), st.just(math.nan), st.just(0.0))
column = arrays.arrays(np.float64, st.tuples(st.integers(1, 40), st.just(2)), elements=values)
triple = st.integers(1, 20).flatmap(lambda rows: arrays.arrays(np.float64, (3, rows, 2), elements=values))


def evaluate(node: Node, **columns: Floats) -> Floats:
    """Return the value in float64 (a graph rounds to float32)."""
    rows, n = next(iter(columns.values())).shape
    columns = columns | {"one": np.ones((rows, n))}  # a value that all share becomes one of each symbol
    graph = FeatureGraph({"f": node * Column("one"), **{name: Column(name) for name in columns}}, worlds.names(n))
    seen: list[Floats] = []
    calls = graph.plan.cells[-1]  # the value is read where the graph rounds it
    for at, (operation, args, result, features, window) in enumerate(calls):
        if 0 in features and operation is not None:

            def tap(*arguments: Floats, operation: ops.Operation = operation) -> None:
                operation(*arguments)
                seen.append(arguments[-1].copy())

            calls[at] = Call(tap, args, result, features, window)
    rounded = graph.step(columns, 0)[:, :, 0]
    value = np.concatenate(seen)
    np.testing.assert_array_equal(value.astype(np.float32), rounded)
    assert value.shape == (rows, n)
    return value


def rolling(x: Floats, function: Callable[[pl.Expr], pl.Expr]) -> Floats:
    """Return a polars expression of every column of x; NaN rows are nulls, which poison a window of polars."""
    frame = pl.DataFrame({str(n): x[:, n] for n in range(x.shape[1])}).fill_nan(None)
    result = frame.select(function(pl.all())).fill_null(math.nan)
    return np.column_stack([result[str(n)].cast(pl.Float64).to_numpy() for n in range(x.shape[1])])


def nan_equal(left: Floats, right: Floats) -> bool:
    return np.array_equal(left, right, equal_nan=True)


# ------------------------------------------------------------------------------------------------ windows


@given(column, st.integers(1, 33))
def test_total_and_mean_are_those_of_polars(x: Floats, w: int) -> None:
    """A sum by doubling is the rolling sum; a NaN is in exactly the windows that contain it."""
    total, mean = evaluate(ops.total(X, w), x=x), evaluate(ops.mean(X, w), x=x)

    expected = np.array(
        [[math.fsum(x[t - w + 1 : t + 1, n]) if t >= w - 1 else math.nan for n in (0, 1)] for t in range(len(x))]
    )
    np.testing.assert_allclose(total, expected, rtol=1e-12, atol=1e-8)
    np.testing.assert_allclose(mean, rolling(x, lambda e: e.rolling_mean(w)), rtol=1e-9, atol=1e-7)


@given(column, st.integers(2, 33))
def test_std_is_that_of_numpy(x: Floats, w: int) -> None:
    """Merged in pairs, the sample deviation of every window is the two-pass one."""
    result = evaluate(ops.std(X, w), x=x)

    for t in range(len(x)):
        expected = np.std(x[t - w + 1 : t + 1], axis=0, ddof=1) if t >= w - 1 else np.full(2, math.nan)
        np.testing.assert_allclose(result[t], expected, rtol=1e-9, atol=1e-9)


def test_std_does_not_cancel() -> None:
    """This catches E[x²] − E[x]²: tiny moves around a large price, and exactly 0 for a constant."""
    x = 1e6 + np.random.default_rng(3).normal(0, 1.0, (200, 1))

    result = evaluate(ops.std(X, 30), x=x)[29:]

    windows = np.lib.stride_tricks.sliding_window_view(x[:, 0] - 1e6, 30)
    np.testing.assert_allclose(result[:, 0], stats.tstd(windows, axis=1), rtol=1e-9)
    assert (evaluate(ops.std(X, 7), x=np.full((20, 1), 0.1))[6:] == 0.0).all()


@given(column, st.integers(1, 33))
def test_highest_and_lowest_are_those_of_polars(x: Floats, w: int) -> None:
    """Extremes by doubling are the rolling extremes."""
    assert nan_equal(evaluate(ops.highest(X, w), x=x), rolling(x, lambda e: e.rolling_max(w)))
    assert nan_equal(evaluate(ops.lowest(X, w), x=x), rolling(x, lambda e: e.rolling_min(w)))


@given(column, st.integers(1, 45))
def test_lag_is_a_shift(x: Floats, seconds: int) -> None:
    """The value some seconds ago is polars' shift, NaN before the stream began; lags of lags add up."""
    expected = np.full_like(x, np.nan)
    expected[seconds:] = x[: len(x) - seconds] if seconds < len(x) else expected[seconds:]

    assert nan_equal(evaluate(Lag(X, seconds), x=x), expected)
    assert Lag(Lag(X, seconds), 2).identity == Lag(X, seconds + 2).identity


@pytest.mark.parametrize("window", [ops.total, ops.mean, ops.std, ops.highest, ops.lowest])
@pytest.mark.parametrize("w", [2, 7, 10, 30])
def test_one_missing_value_poisons_exactly_its_windows(window: Callable[[Node, int], Node], w: int) -> None:
    """A NaN at second 50 is in the windows that end at 50 … 50 + w − 1 and in no other."""
    x = np.random.default_rng(1).normal(size=(120, 1))
    x[50] = np.nan

    result = evaluate(window(X, w), x=x)[:, 0]

    missing = [*range(w - 1), *range(50, 50 + w)]
    assert np.flatnonzero(np.isnan(result)).tolist() == missing


# -------------------------------------------------------------------------------------------- elementwise


@given(triple)
def test_arithmetic_is_numpys(xyz: Floats) -> None:
    """+ − × ÷ sqrt are IEEE 754's, with constants on either side."""
    x, y, _ = xyz
    with np.errstate(all="ignore"):
        for node, expected in (
            (X + Y, x + y), (X - Y, x - y), (X * Y, x * y), (X / Y, x / y), (ops.sqrt(X), np.sqrt(x)),
            (1.0 + X, 1.0 + x), (1.0 - X, 1.0 - x), (2.0 * X, 2.0 * x), (1.0 / X, 1.0 / x), (-X, 0.0 - x),
        ):  # fmt: skip
            assert nan_equal(evaluate(node, x=x, y=y), expected), node


@given(triple)
def test_selection_is_missing_if_any_input_is(xyz: Floats) -> None:
    """Comparison, minimum, maximum and where never hide a NaN, not even in the branch that is not taken."""
    x, y, z = xyz
    hole = np.isnan(x) | np.isnan(y)

    def with_holes(value: Floats, holes: Floats) -> Floats:
        return np.where(holes, np.nan, value)

    columns = {"x": x, "y": y, "z": z}
    assert nan_equal(evaluate(less(X, Y), **columns), with_holes(np.less(x, y), hole))
    assert nan_equal(evaluate(equal(X, Y), **columns), with_holes(np.equal(x, y), hole))
    assert nan_equal(evaluate(minimum(X, Y), **columns), with_holes(np.fmin(x, y), hole))
    assert nan_equal(evaluate(maximum(X, Y), **columns), with_holes(np.fmax(x, y), hole))
    chosen = with_holes(np.where(x != 0, y, z), hole | np.isnan(z))
    assert nan_equal(evaluate(ops.where(X, Y, Z), **columns), chosen)


def test_selection_of_zeros_has_one_sign() -> None:
    """Which zero wins in min(−0, 0) is the processor's choice; here it is always +0."""
    zeros = np.array([[-0.0, 0.0, -0.0]])
    others = np.array([[0.0, -0.0, -0.0]])

    for node in (minimum(X, Y), maximum(X, Y)):
        assert not np.signbit(evaluate(node, x=zeros, y=others)).any()


def test_an_absent_level_is_worth_nothing_and_a_missing_size_is_missing() -> None:
    """Size 0 makes notional 0 although its price is NaN; a NaN size stays NaN."""
    price, size = np.array([[np.nan, 2.0, np.nan, 2.0]]), np.array([[0.0, 3.0, 1.0, np.nan]])

    result = evaluate(notional(X, Y), x=price, y=size)

    assert nan_equal(result, np.array([[0.0, 6.0, np.nan, np.nan]]))


def test_nothing_of_nothing_is_zero_and_something_missing_is_missing() -> None:
    """0 / 0 of flows is 0 (nobody traded is a fact); NaN in either stays NaN."""
    part = np.array([[0.0, -1.0, np.nan, 0.0, np.nan]])
    whole = np.array([[0.0, 4.0, 0.0, np.nan, 2.0]])

    assert nan_equal(evaluate(share(X, Y), x=part, y=whole), np.array([[0.0, -0.25, np.nan, np.nan, np.nan]]))


@given(triple, st.integers(2, 20))
def test_covariance_is_that_of_numpy(xyz: Floats, w: int) -> None:
    """Merged in pairs, the sample covariance of every window is the two-pass one."""
    x, y, _ = xyz

    result = evaluate(ops.covariance(X, Y, w), x=x, y=y)

    for t in range(len(x)):
        for n in (0, 1):
            window = slice(t - w + 1, t + 1)
            expected = np.cov(x[window, n], y[window, n])[0, 1] if t >= w - 1 else math.nan
            np.testing.assert_allclose(result[t, n], expected, rtol=1e-7, atol=1e-2)  # 1e-14 of 1e12


@given(arrays.arrays(np.float64, (40, 2), elements=st.sampled_from([0.0, 0.0, 0.0, 1.0, -2.0])), st.integers(1, 30))
def test_since_counts_seconds_from_the_last_event(x: Floats, w: int) -> None:
    """0 for this second, `w` for none in the window; a value unknown in the window leaves it unknown."""
    result = evaluate(ops.since(X, w), x=x)

    for t in range(w - 1, 40):
        for n in (0, 1):
            events = np.flatnonzero(x[: t + 1, n])
            assert result[t, n] == (min(w, t - events[-1]) if len(events) else w)
    assert np.isnan(result[: w - 1]).all()


def test_floor_absolute_and_sign_are_numpys() -> None:
    """Whole numbers, magnitudes and signs, NaN for NaN."""
    x = np.array([[-1.5, -0.0, 0.0, 0.5, 3.0, np.nan, -np.inf]])

    assert nan_equal(evaluate(ops.floor(X), x=x), np.floor(x))
    assert nan_equal(evaluate(ops.absolute(X), x=x), np.abs(x))
    assert nan_equal(evaluate(ops.sign(X), x=x), np.sign(x))


@given(arrays.arrays(np.float64, (1, 50), elements=st.floats(-3.0, 3.0)))
def test_sin_turn_is_the_sine(x: Floats) -> None:
    """Within 1e-15 of numpy's sine on both sides of every turn, odd to the bit, 0 at whole and half turns."""
    result = evaluate(ops.sin_turn(X), x=x)

    np.testing.assert_allclose(result, np.sin(np.remainder(x, 1.0) * 2 * np.pi), atol=2e-15)
    assert (evaluate(ops.sin_turn(X), x=np.array([[0.0, 0.5, 1.0, -0.5]])) == 0.0).all()
    np.testing.assert_allclose(evaluate(ops.sin_turn(X), x=np.array([[0.25, -0.25]])), [[1.0, -1.0]], rtol=1e-15)


def test_an_absent_level_has_the_price_that_is_asked_for() -> None:
    """Size 0 gives the substitute whatever the price; a missing size gives nothing."""
    price, size = np.array([[np.nan, 2.0, 2.0, np.nan]]), np.array([[0.0, 3.0, np.nan, 1.0]])

    result = evaluate(ops.level_price(X, Y, math.inf), x=price, y=size)

    assert nan_equal(result, np.array([[np.inf, 2.0, np.nan, np.nan]]))


def test_nonzero_makes_a_zero_denominator_missing() -> None:
    """x / nonzero(0) is missing, not infinite."""
    y = np.array([[0.0, -0.0, 2.0, np.nan, np.inf]])

    assert nan_equal(evaluate(1.0 / nonzero(X), x=y), np.array([[np.nan, np.nan, 0.5, np.nan, 0.0]]))


# ---------------------------------------------------------------------------------------------------- log


def own_log(x: Floats) -> Floats:
    out = np.empty_like(x)
    OPERATORS["log"](x, out)
    return out


@given(arrays.arrays(np.float64, 50, elements=st.floats(min_value=5e-324, allow_infinity=False)))
def test_log_is_numpys_to_1e_15(x: Floats) -> None:
    """For every positive double, subnormals included, the portable logarithm is within 1e-15 of numpy's."""
    np.testing.assert_allclose(own_log(x), np.log(x), rtol=1e-15, atol=0.0)


def test_log_is_the_logarithm_to_one_unit_in_the_last_place() -> None:
    """Against 40 digits: near 1, at powers of two, across the whole range."""
    rng = np.random.default_rng(2)
    x = np.concatenate(
        [
            np.exp(rng.uniform(-700, 700, 300)),
            1 + rng.normal(0, 1e-6, 300),
            2.0 ** np.arange(-1070, 1023, 17),
            rng.uniform(0.6, 1.5, 300),
        ]
    )

    result = own_log(x)

    with localcontext() as context:
        context.prec = 40
        exact = [Decimal(float(value)).ln() for value in x]
        for own, truth in zip(result, exact, strict=True):
            assert abs(Decimal(float(own)) - truth) <= Decimal(float(np.spacing(abs(float(truth)) or 5e-324))), truth


def test_log_outside_its_domain_is_missing() -> None:
    """The log of nothing, or of less, is NaN; of infinity, infinity."""
    x = np.array([0.0, -0.0, -1.0, -np.inf, np.nan, np.inf, 1.0])

    assert nan_equal(own_log(x), np.array([np.nan] * 5 + [np.inf, 0.0]))


@given(arrays.arrays(np.float64, 64, elements=st.floats(1e-300, 1e300)), st.integers(1, 63))
def test_log_does_not_depend_on_the_shape(x: Floats, cut: int) -> None:
    """Cut anywhere, and written over its own input, the bits are the same (numpy's log with a stride: not)."""
    whole = own_log(x)

    pieces = np.concatenate([own_log(x[:cut].copy()), own_log(x[cut:].copy())])
    in_place = x.copy()
    OPERATORS["log"](in_place, in_place)

    assert pieces.tobytes() == whole.tobytes() == in_place.tobytes()


ARITY = {
    "sqrt": 1, "log": 1, "nonzero": 1, "absolute": 1, "floor": 1, "where": 3, "level_price": 3, "zscore": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_operators_may_write_over_any_input(name: str) -> None:
    """The graph lets a result take the place of an input that dies: whichever it is, the result is the same."""
    operation = OPERATORS[name]
    arity = ARITY.get(name, 2)
    rng = np.random.default_rng(7)
    inputs = [rng.choice([0.0, 1.0, 2.5, np.nan, -3.0], 200) for _ in range(arity)]
    expected = np.empty(200)
    with np.errstate(all="ignore"):
        operation(*inputs, expected)

        for over in range(arity):
            copies = [x.copy() for x in inputs]
            operation(*copies, copies[over])
            assert nan_equal(copies[over], expected)


# ------------------------------------------------------------------------------------------------ formulas


def test_equal_formulas_are_one() -> None:
    """Identity is what a formula says, not where it was written; every part of it counts."""
    assert ops.std(X + 1.0, 10).identity == ops.std(Column("x") + 1.0, 10).identity
    different = [X + 1.0, 1.0 + X, X + 1.5, X - 1.0, Y + 1.0, Lag(X, 1), Lag(X, 2), ops.total(X, 3), ops.mean(X, 3)]
    assert len({node.identity for node in different}) == len(different)


def test_lookback_adds_up_along_the_longest_path() -> None:
    """A window over w seconds needs w − 1 more, on top of what its input needs."""
    assert ops.total(X, 10).lookback == 9
    assert ops.std(X / Lag(X, 1), 30).lookback == 30
    assert (X + ops.mean(Lag(X, 5), 20)).lookback == 24


def test_the_future_and_too_long_a_past_cannot_be_asked_for() -> None:
    """Lags are positive, and at most an hour of lookback is kept."""
    with pytest.raises(AssertionError, match="the future has not arrived"):
        Lag(X, 0)
    with pytest.raises(AssertionError, match="at most 3600 s"):
        ops.total(X, 3602)


def test_a_window_takes_logarithmically_many_operations() -> None:
    """An hour's sum is a dozen doublings, not 3600 additions."""
    graph = FeatureGraph({"f": ops.total(X, 3600)}, ["A"])

    assert sum(len(calls) for calls in graph.plan.cells) < 20
