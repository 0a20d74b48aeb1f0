"""What orders meet: the market's book of a symbol, and the orders of accounts that rest beside it.

A book is kept as it came (floats, strings, an array) and turned into Decimal level by level, only as deep as somebody
matches into it: most books of a run are replaced before anybody looks at them.
"""

from __future__ import annotations

from bisect import bisect_left, insort_right
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from shared.simulator.venue.orders import ZERO, Order
from shared.types import Side

Levels = Iterable[Any]
"""Rows (price, size), best first: floats, strings, Decimals or a numpy array (L, 2); read more than once."""


def decimal_of(value: Any) -> Decimal:
    """Return the shortest decimal that means the same float: the digits that the exchange printed."""
    if type(value) is float:
        return Decimal(repr(value))
    if isinstance(value, Decimal):
        return value
    return Decimal(value) if isinstance(value, int | str) else Decimal(repr(float(value)))


class Ladder:
    """One side of the market's book, best first: what is left of it.

    Rows with a NaN price or without size are absent levels.
    """

    __slots__ = ("_levels", "_raw", "_read", "_rows")

    def __init__(self, raw: Levels) -> None:
        self._raw: Levels = raw
        self._rows: list[Any] | None = None  # the raw rows as a list, from the first look on
        self._read = 0  # rows that have become levels
        self._levels: list[list[Decimal]] = []

    def level(self, k: int = 0) -> list[Decimal] | None:
        """Return the k-th best level that is left as [price, size], None beyond the last."""
        while len(self._levels) <= k:
            rows = self._listed()
            if self._read == len(rows):
                return None
            found = _level(rows[self._read])
            self._read += 1
            if found is not None:
                self._levels.append(found)
        return self._levels[k]

    def take(self, size: Decimal) -> None:
        """Take from the best level, which must have it."""
        best = self._levels[0]
        best[1] -= size
        assert best[1] >= 0, best
        if best[1] == 0:
            del self._levels[0]

    def size_at(self, price: Decimal) -> Decimal:
        """Return what is left at a price, 0 where there is no such level."""
        for at, size in self._levels:
            if at == price:
                return size
        wanted, rows = float(price), self._listed()
        for k in range(self._read, len(rows)):
            # Two decimals of at most 15 digits are the same exactly when their floats are.
            if float(rows[k][0]) == wanted:
                found = _level(rows[k])
                return found[1] if found is not None else ZERO
        return ZERO

    def best_as_sent(self) -> Decimal | None:
        """Return the best price that the market sent, whatever was taken since; None for an empty side."""
        for row in self._listed():
            found = _level(row)
            if found is not None:
                return found[0]
        return None

    def _listed(self) -> list[Any]:
        if self._rows is None:
            raw: Any = self._raw
            self._rows = raw.tolist() if hasattr(raw, "tolist") else list(raw)
        return self._rows


def _level(row: Any) -> list[Decimal] | None:
    price, size = row
    if price != price or size != size:
        return None
    exact = decimal_of(size)
    return [decimal_of(price), exact] if exact > 0 else None


class Book:
    """The market's book of one symbol."""

    __slots__ = ("_asks", "_bids", "_middle", "_raw")

    def __init__(self, bids: Levels, asks: Levels, middle_before: Decimal | None = None) -> None:
        self._raw = bids, asks
        self._bids: Ladder | None = None  # None: nobody has looked, as at most books that come
        self._asks: Ladder | None = None
        self._middle = middle_before

    @property
    def bids(self) -> Ladder:
        if self._bids is None:
            self._bids = Ladder(self._raw[0])
        return self._bids

    @property
    def asks(self) -> Ladder:
        if self._asks is None:
            self._asks = Ladder(self._raw[1])
        return self._asks

    def middle(self) -> Decimal | None:
        """Return the middle as the market sent it, whatever was taken since; the one before where a side is empty."""
        bid, ask = self.bids.best_as_sent(), self.asks.best_as_sent()
        return (bid + ask) / 2 if bid is not None and ask is not None else self._middle

    def value_at(self, price: Decimal) -> None:
        """Value the symbol at a price while one side is empty."""
        self._middle = price

    def opposite(self, side: Side) -> Ladder:
        """Return what an order of `side` takes from."""
        return self.asks if side is Side.BUY else self.bids

    def own(self, side: Side) -> Ladder:
        return self.bids if side is Side.BUY else self.asks


class Resting:
    """The resting orders of one symbol, of all accounts, in price-time priority."""

    __slots__ = ("_asks", "_bids")

    def __init__(self) -> None:
        self._bids: list[Order] = []
        self._asks: list[Order] = []

    def __bool__(self) -> bool:
        return bool(self._bids or self._asks)

    def of(self, side: Side) -> list[Order]:
        """Return the orders of one side, best price first, the oldest first at the same price: not to be written to."""
        return self._bids if side is Side.BUY else self._asks

    def add(self, order: Order) -> None:
        """Put an order behind those that came before it at its price."""
        insort_right(self.of(order.side), order, key=_bid_rank if order.side is Side.BUY else _ask_rank)

    def remove(self, order: Order) -> None:
        """Take an order out, where it is in."""
        if order.price is None:
            return
        orders = self.of(order.side)
        rank = _bid_rank if order.side is Side.BUY else _ask_rank
        for k in range(bisect_left(orders, rank(order), key=rank), len(orders)):
            if orders[k] is order:
                del orders[k]
                return
            if orders[k].price != order.price:
                return


def _bid_rank(order: Order) -> Decimal:
    assert order.price is not None
    return -order.price


def _ask_rank(order: Order) -> Decimal:
    assert order.price is not None
    return order.price
