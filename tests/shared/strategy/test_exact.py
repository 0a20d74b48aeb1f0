"""Decimal arithmetic that the caller's context cannot change."""

from __future__ import annotations

from decimal import Context, Decimal, localcontext
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from shared.strategy.exact import ceil_to, decimal_of, exactly, floor_to, nearest_to, share_of

STEPS = st.sampled_from([Decimal(s) for s in ("1", "0.1", "0.5", "0.01", "0.0001", "0.00000001", "5", "0.3")])
VALUES = st.decimals(min_value=0, max_value=10**9, places=10, allow_nan=False)


@given(VALUES, STEPS)
def test_rounding_to_a_step_brackets_the_value(value: Decimal, step: Decimal) -> None:
    """Floor and ceiling are multiples of the step around the value, less than a step apart; nearest is one of them."""
    low, high, near = floor_to(value, step), ceil_to(value, step), nearest_to(value, step)

    assert low <= value <= high
    assert high - low in (0, step)
    assert near in (low, high)
    assert Fraction(low) % Fraction(step) == 0
    assert abs(Fraction(near) - Fraction(value)) * 2 <= Fraction(step)


@given(VALUES, STEPS)
def test_rounding_ignores_the_callers_context(value: Decimal, step: Decimal) -> None:
    """A library that sets two digits of precision changes nothing here, not even the number of zeros written."""
    with localcontext(Context(prec=2)):
        poor = floor_to(value, step), ceil_to(value, step), nearest_to(value, step)

    assert [str(x) for x in poor] == [str(f(value, step)) for f in (floor_to, ceil_to, nearest_to)]


@given(st.floats(min_value=1e-8, max_value=1e9))
def test_decimal_of_a_float_reads_back_as_it(value: float) -> None:
    """The decimal is the shortest that means the same float."""
    assert float(decimal_of(value)) == value


@given(VALUES, VALUES, VALUES)
def test_share_of_everything_is_everything(whole: Decimal, part: Decimal, more: Decimal) -> None:
    """A quotient is cut to 1e-12, and the whole stays the whole."""
    total = part + more
    if total == 0:
        return

    assert share_of(whole, total, total) == whole
    assert abs(Fraction(share_of(whole, part, total)) - Fraction(whole) * Fraction(part) / Fraction(total)) <= Fraction(
        1, 10**12
    )


def test_exactly_runs_under_sixty_digits() -> None:
    """A decorated function multiplies without rounding whatever its caller has set."""

    @exactly
    def square(x: Decimal) -> Decimal:
        return x * x

    with localcontext(Context(prec=3)):
        assert square(Decimal("1.23456789")) == Decimal("1.5241578750190521")
