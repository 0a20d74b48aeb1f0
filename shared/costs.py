"""One cost model for labels, ranking, venue and reports.

Operators only (+ - * /), so that floats, numpy arrays and polars expressions all pass through it. Everything in
bps of price. Bitget, VIP 0: taker 6 bps, maker 2 bps a side on every contract (contracts list, September 2026).
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

BPS = 1e4


class Arithmetic(Protocol):
    """A float, an array or a polars expression."""

    def __add__(self, other: Any, /) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...
    def __mul__(self, other: Any, /) -> Any: ...
    def __truediv__(self, other: Any, /) -> Any: ...


X = TypeVar("X", bound=Arithmetic)

Rate = float | NDArray[np.float64]
"""Of one symbol, or of many: (N,)."""


def spread_bps(bid: X, ask: X) -> X:
    """Return the quoted spread in bps of the mid."""
    result: X = (ask - bid) / (ask + bid) * (2.0 * BPS)
    return result


def taker_round_trip_bps(spread: X, taker_fee: Rate, slippage: float = 0.0) -> X:
    """Return what opening and closing at the touch costs: both half spreads, both fees, slippage twice.

    Args:
        spread: quoted spread, bps, any of float, array, polars expression.
        taker_fee: fraction of notional a side [1].
        slippage: bps a side beyond the touch.
    """
    result: X = spread + (2.0 * BPS * taker_fee + 2.0 * slippage)
    return result


def maker_round_trip_bps(maker_fee: Rate, taker_fee: Rate, spread: X) -> X:
    """Return the cost of a post-only entry and a taker exit: one half spread earned, one paid, both fees."""
    result: X = spread * 0.0 + BPS * (maker_fee + taker_fee)
    return result
