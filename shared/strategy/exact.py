"""Decimal arithmetic that no caller's context can change.

Python's Decimal operators round to the *thread's* context: a library that lowers the precision would change our
ledger. What is called from outside of the engine (the engine itself first of all) therefore runs inside `EXACT`: 60
digits, far more than the 8 + 12 digits that a product of a Bitget price and size has, so that sums and products are
exact and only division rounds. Parts that the engine alone calls (sizes, exposures, risk) do not enter it again: they
are called dozens of times a second, and the laws' tests replay sessions under a context of four digits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from decimal import (
    ROUND_CEILING,
    ROUND_FLOOR,
    ROUND_HALF_EVEN,
    Context,
    Decimal,
    DivisionByZero,
    InvalidOperation,
    Overflow,
    getcontext,
    setcontext,
)
from typing import ParamSpec, TypeVar

EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero, Overflow])

ZERO = Decimal(0)

SHARE_QUANTUM = Decimal("1e-12")
"""Money that is divided is cut to this (USDT), so that every later sum of it is exact: 15 digits before the point
still fit into the 28 of Python's own context, which is the venue's."""

AVERAGE_QUANTUM = Decimal("1e-18")
"""Averages are only shown. Prices have 12 decimals at most."""

P = ParamSpec("P")
R = TypeVar("R")


def exactly(function: Callable[P, R]) -> Callable[P, R]:
    """Run `function` under `EXACT`, whatever context its caller has."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        callers = getcontext()
        if callers is EXACT:
            return function(*args, **kwargs)  # called from inside
        setcontext(EXACT)  # itself, not a copy as localcontext would: so that it is recognised
        try:
            return function(*args, **kwargs)
        finally:
            setcontext(callers)

    return wrapped


def decimal_of(value: float) -> Decimal:
    """Return the shortest decimal that reads back as `value`: what the exchange wrote, up to 15 digits."""
    return Decimal(repr(float(value)))


_DIVIDING = {rounding: Context(prec=60, rounding=rounding) for rounding in (ROUND_FLOOR, ROUND_CEILING)}


def floor_to(value: Decimal, step: Decimal) -> Decimal:
    """Return the largest multiple of `step` that is not above `value`; no quotient is rounded on the way."""
    assert step > 0, step
    multiple = EXACT.multiply(EXACT.divide_int(value, step), step)
    return multiple if multiple <= value else EXACT.subtract(multiple, step)


def ceil_to(value: Decimal, step: Decimal) -> Decimal:
    """Return the smallest multiple of `step` that is not below `value`; no quotient is rounded on the way."""
    assert step > 0, step
    multiple = EXACT.multiply(EXACT.divide_int(value, step), step)
    return multiple if multiple >= value else EXACT.add(multiple, step)


def nearest_to(value: Decimal, step: Decimal) -> Decimal:
    """Return the multiple of `step` nearest to `value`."""
    assert step > 0, step
    return EXACT.multiply(EXACT.divide(value, step).to_integral_value(ROUND_HALF_EVEN), step)


def divided_down(value: Decimal, by: Decimal) -> Decimal:
    """Return a quotient that is never above the exact one: of a limit, not a digit too much."""
    return _DIVIDING[ROUND_FLOOR].divide(value, by)


def divided_up(value: Decimal, by: Decimal) -> Decimal:
    """Return a quotient that is never below the exact one: of a need, not a digit too little."""
    return _DIVIDING[ROUND_CEILING].divide(value, by)


def average(total: Decimal, count: Decimal) -> Decimal:
    """Return total / count, cut to `AVERAGE_QUANTUM` where it does not end before."""
    quotient = EXACT.divide(total, count)
    exponent = quotient.as_tuple().exponent
    assert isinstance(exponent, int), f"{total} / {count} is not a number"
    return EXACT.quantize(quotient, AVERAGE_QUANTUM) if exponent < -18 else quotient


def share_of(whole: Decimal, part: Decimal, total: Decimal) -> Decimal:
    """Return whole x part / total, exactly `whole` where part is all of it, else cut to `SHARE_QUANTUM`."""
    if part == total:
        return whole
    return EXACT.quantize(EXACT.divide(EXACT.multiply(whole, part), total), SHARE_QUANTUM)
