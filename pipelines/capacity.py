"""How much more could have been traded: net against size, recomputed from the books that the fills met.

Every order of a run is made m times as large and walks the book again that it met: the visible levels, and beyond them
a book that goes on at the density of the visible ones. Fees follow the value, funding the size. Decisions stay as they
were.

What this is not: a run with more equity, which would size and stop otherwise. Nobody reacts to the larger orders, and
makers are taken to fill in full at their price whatever the size, so for post-only entries it is an upper bound.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from pipelines.trades import Execution
from shared.types import Floats

MULTIPLES = (1.0, 3.0, 10.0, 30.0, 100.0)

SIZE_TOLERANCE = 1e-9
"""Of all that was traded in a symbol: what rounding may leave of a position that is flat."""


class CapacityPoint(msgspec.Struct, frozen=True):
    """What a size would have earned."""

    multiple: float
    opened_usdt: float
    net_usdt: float
    net_bps: float  # of what was opened


class Capacity(msgspec.Struct, frozen=True):
    """The curve, smallest size first; () where there is nothing to recompute, and why."""

    points: tuple[CapacityPoint, ...] = ()
    why: str = ""


def capacity_of(
    executions: Sequence[Execution], funding_usdt: float, multiples: Sequence[float] = MULTIPLES
) -> Capacity:
    """Return net against size.

    Args:
        executions: every fill with its book; positions must be flat after the last.
        funding_usdt: received over all of them.
    """
    if not executions:
        return Capacity(why="no fill was kept with its book")
    left: dict[str, float] = {}
    traded: dict[str, float] = {}
    for fill in executions:
        left[fill.symbol] = left.get(fill.symbol, 0.0) + fill.sign * fill.size
        traded[fill.symbol] = traded.get(fill.symbol, 0.0) + fill.size
    if any(abs(rest) > SIZE_TOLERANCE * traded[symbol] for symbol, rest in left.items()):
        return Capacity(why="positions were open at the end")
    orders = _orders(executions)
    opened = _opened_usdt(executions)
    return Capacity(tuple(_point(orders, opened, funding_usdt, multiple) for multiple in multiples))


class _Order(msgspec.Struct):
    """Fills of one symbol and side at one instant: what one order took from one book."""

    sign: int
    levels: Floats  # (L, 2) that it walked
    gap: float  # distance to the other side's best: how far levels lie apart where there is but one
    size: float = 0.0
    value: float = 0.0
    fee_usdt: float = 0.0
    maker_size: float = 0.0
    maker_value: float = 0.0


def _orders(executions: Sequence[Execution]) -> list[_Order]:
    found: dict[tuple[str, int, int], _Order] = {}
    for fill in executions:
        key = (fill.symbol, fill.time_ns, fill.sign)
        order = found.get(key)
        if order is None:
            own, other = (fill.asks, fill.bids) if fill.sign > 0 else (fill.bids, fill.asks)
            order = found[key] = _Order(fill.sign, own, abs(float(own[0, 0] - other[0, 0])))
        order.fee_usdt += fill.fee_usdt
        if fill.is_maker:
            order.maker_size += fill.size
            order.maker_value += fill.price * fill.size
        else:
            order.size += fill.size
            order.value += fill.price * fill.size
    return list(found.values())


def _opened_usdt(executions: Sequence[Execution]) -> float:
    """Return the value of everything that was opened, at the prices of its fills."""
    held: dict[str, float] = {}
    opened = 0.0
    for fill in executions:
        before = held.get(fill.symbol, 0.0)
        after = before + fill.sign * fill.size
        if abs(after) > abs(before) or before * after < 0:
            opened += (abs(after) if before * after < 0 else abs(after) - abs(before)) * fill.price
        held[fill.symbol] = after
    return opened


def _point(orders: Sequence[_Order], opened_usdt: float, funding_usdt: float, multiple: float) -> CapacityPoint:
    net = multiple * funding_usdt
    for order in orders:
        value = multiple * order.maker_value
        if not np.isfinite(order.levels[:, 0]).any():
            value += multiple * order.value  # no book was seen: nothing is known of its depth
        elif order.size:
            # What the recorded fills paid beside a fresh walk (a book taken from before) stays as it was, per size.
            beside = order.value - walked_value(order.levels, order.size, order.sign, order.gap)
            value += walked_value(order.levels, multiple * order.size, order.sign, order.gap) + multiple * beside
        before = order.value + order.maker_value
        net += -order.sign * value - order.fee_usdt * (value / before)
    return CapacityPoint(multiple, multiple * opened_usdt, net, net / (multiple * opened_usdt) * 1e4)


def walked_value(levels: Floats, size: float, sign: int, gap: float) -> float:
    """Return price x size of a market order; beyond the visible levels the book goes on at their density.

    Args:
        levels: (L, 2) price and size, best first; absent levels have NaN prices or no size.
        gap: distance between best bid and ask, the spacing of a side with one level.
    """
    known = levels[np.isfinite(levels[:, 0]) & (levels[:, 1] > 0)]
    left, value = size, 0.0
    for price, there in known:
        taken = min(left, float(there))
        value += taken * float(price)
        left -= taken
        if left <= 0:
            return value
    reach = abs(float(known[-1, 0] - known[0, 0])) or gap or float(known[0, 0]) * 1e-4
    slope = reach / float(known[:, 1].sum())  # of price, per base coin
    # A sold book cannot go below nothing: half the price is further than any approximation holds.
    last = float(known[-1, 0])
    average = max(last + sign * slope * left / 2, last / 2) if sign < 0 else last + slope * left / 2
    return value + left * average
