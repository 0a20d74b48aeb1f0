"""Figures as a person reads them: a minus, no hyphen; no more digits than are known; a dash for what is undefined."""

from __future__ import annotations

import math

NOT_DEFINED = "–"


def figure(value: float | None) -> str:
    """Return a number as a person reads it; what is not defined is a dash, never 0."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NOT_DEFINED
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}".replace("-", "−")
    return (f"{value:,.4f}" if abs(value) < 1 else f"{value:,.2f}").replace("-", "−")


def signed(value: float | None) -> str:
    """Return money or bps with its sign, cents with two digits more; what is not defined is a dash."""
    if value is None or not math.isfinite(value):
        return NOT_DEFINED
    digits = 4 if 0 < abs(value) < 0.1 else 2
    return f"{value + 0.0:+,.{digits}f}".replace("-", "−")  # + 0.0: a cost of nothing is no −0


def percent(value: float | None) -> str:
    """Return a share [1] as a percentage; what is not defined is a dash."""
    return NOT_DEFINED if value is None or not math.isfinite(value) else f"{value * 100:.1f} %".replace("-", "−")


def of_equity(value: float) -> str:
    """Return a part of the equity [1] as a percentage, to a hundredth of a basis point where it is small."""
    digits = 4 if 0 < abs(value) < 1e-4 else 3 if 0 < abs(value) < 1e-2 else 1
    return f"{value * 100:.{digits}f} %".replace("-", "−")


def money(value: float | None, *, digits: int) -> str:
    """Return USDT with its sign and so many digits, the same for all of a page; what is not defined is a dash."""
    if value is None or not math.isfinite(value):
        return NOT_DEFINED
    return f"{round(value, digits) + 0.0:+,.{digits}f}".replace("-", "−")  # + 0.0: nothing is no −0


def plus_minus(value: float | None, error: float | None, *, is_signed: bool = False) -> str:
    """Return a value with its standard error, both to the second digit of the error: more is noise.

    Args:
        is_signed: a + before what is above 0.
    """
    if value is None or not math.isfinite(value):
        return NOT_DEFINED
    if error is None or not math.isfinite(error) or error <= 0:
        return signed(value) if is_signed else figure(value)
    digits = min(6, max(0, 1 - math.floor(math.log10(float(f"{error:.1e}")))))
    sign = "+" if is_signed else ""
    return f"{round(value, digits) + 0.0:{sign},.{digits}f} ± {error:,.{digits}f}".replace("-", "−")
