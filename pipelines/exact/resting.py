"""One resting order on the tape: when it fills, and by how much.

Of all rows of its symbol only those concern it that trade at its price or beyond, that change its level, or in which
the opposite touch has come to it. They are found with array operations, a few seconds at a time; the rest is a loop
over these few.

An order fills
  * by what a trade at its price has left over after the size ahead of it (`queues`), in whole steps of size;
  * whole, once somebody traded beyond its price, or the opposite touch stands at its price or beyond: whoever did that
    had to trade with us first. For orders that are large against the flow this is too kind.

What happens at one instant is taken in this order: trades, then the book.
A level that is further away than the book is seen (five or fifteen levels) is unknown and taken as unchanged; an order
that joins there stands behind what was last seen at its price, or behind the largest level in sight.
"""

from __future__ import annotations

import math
from operator import itemgetter

import numpy as np

from pipelines.exact.queues import QueueModel
from pipelines.exact.tape import GONE_NS, NEVER_NS, Block
from shared.types import NS, Floats, Side

LOOK_NS = 2 * NS
"""Rows that are looked through at once: array operations cost microseconds, however few they see."""

REMEMBERED_NS = 2 * NS
"""How long a level counts as it was last seen, once it is out of sight."""

_TRADED, _THROUGH, _CHANGED, _CROSSED = range(4)

_WHEN = itemgetter(0, 1)

WHOLE = 1 << 62
"""Steps that an order fills which was traded through: all that it has."""


class Resting:
    """Follow one order from its arrival on.

    Args:
        price: of the order, as the float that the tape has.
        step: of sizes; a fill is a multiple of it.
        block: in which it arrives.
    """

    def __init__(
        self,
        order_id: str,
        symbol: str,
        side: Side,
        price: float,
        *,
        step: float,
        model: QueueModel,
        block: Block,
        now_ns: int,
        rank: int = 0,
    ) -> None:
        self.order_id, self.symbol, self.side, self.price = order_id, symbol, side, price
        self.rank = rank
        self.due_ns = GONE_NS  # kept by who follows it
        self._step = step
        self._level = _level_at(block, side, price, now_ns)
        self.place = model.join(self._level)
        self.seen_ns = now_ns  # up to and including which everything was found
        self._found: list[tuple[int, int, float]] = []  # (ns, what, size), oldest last
        self.next_ns = NEVER_NS  # of the next row that concerns the order, as far as it was looked for

    def wakes_ns(self) -> int:
        """Return when a row concerns the order, or when the next must be looked for."""
        return min(self.next_ns, self.seen_ns + 1)

    def look(self, block: Block) -> None:
        """Find what concerns the order in the next seconds; all that was found before must have been taken.

        Args:
            block: that holds the instant after `seen_ns`.
        """
        assert not self._found, self._found
        after_ns, until_ns = self.seen_ns, min(self.seen_ns + LOOK_NS, block.end_ns - 1)
        self.seen_ns = until_ns
        found = self._trades(block, after_ns, until_ns) + self._books(block, after_ns, until_ns)
        found.sort(key=_WHEN)  # stable: rows of one instant stay in their order
        found.reverse()
        self._found = found
        self.next_ns = found[-1][0] if found else NEVER_NS

    def take(self, until_ns: int) -> tuple[int, int]:
        """Take in what was found up to and including a time, or up to the first fill.

        Returns: (how many steps of size it fills at the most, when).
        """
        found, place = self._found, self.place
        steps, now_ns = 0, self.next_ns
        while not steps and found and found[-1][0] <= until_ns:
            now_ns, what, size = found.pop()
            if what == _CHANGED:
                place.changed(self._level, size)
                self._level = size
            elif what == _TRADED:
                place.traded(size)
                steps = max(round(-place.ahead / self._step), 0)
                if steps:
                    place.ahead = 0.0
            else:
                steps = WHOLE
        self.next_ns = found[-1][0] if found else NEVER_NS
        return steps, now_ns

    def _trades(self, block: Block, after_ns: int, until_ns: int) -> list[tuple[int, int, float]]:
        first, end = block.trade_ns.searchsorted([after_ns, until_ns], side="right").tolist()
        if first == end:
            return []
        price, is_buy = block.trade_price[first:end], self.side is Side.BUY
        hits = block.trade_side[first:end] == (-1 if is_buy else 1)
        hits &= (price <= self.price) if is_buy else (price >= self.price)
        rows = hits.nonzero()[0]
        if not len(rows):
            return []
        what = np.where(price[rows] == self.price, _TRADED, _THROUGH)
        times, sizes = block.trade_ns[first + rows], block.trade_size[first + rows]
        return list(zip(times.tolist(), what.tolist(), sizes.tolist(), strict=True))

    def _books(self, block: Block, after_ns: int, until_ns: int) -> list[tuple[int, int, float]]:
        first, end = block.book_ns.searchsorted([after_ns, until_ns], side="right").tolist()
        if first == end:
            return []
        is_buy = self.side is Side.BUY
        own, opposite = (block.bids, block.asks) if is_buy else (block.asks, block.bids)
        touch = opposite[first:end, 0, 0]
        crossed = ((touch <= self.price) if is_buy else (touch >= self.price)).nonzero()[0]
        found: list[tuple[int, int, float]] = []
        if len(crossed):
            end = first + int(crossed[0])
            found.append((int(block.book_ns[end]), _CROSSED, 0.0))
        size = _sizes_at(own[first:end], self.price, is_buy)
        rows = (size == size).nonzero()[0]
        if len(rows):
            known = size[rows]
            before = np.empty_like(known)
            before[0], before[1:] = self._level, known[:-1]
            changed = rows[known != before]
            times, sizes = block.book_ns[first + changed].tolist(), size[changed].tolist()
            found += [(ns, _CHANGED, after) for ns, after in zip(times, sizes, strict=True)]
        return found


def _sizes_at(levels: Floats, price: float, is_bid: bool) -> Floats:
    """Return the size at a price in each of (R, K, 2) levels: 0 where it is absent, NaN where it is out of sight."""
    prices = levels[:, :, 0]
    sizes = np.where(prices == price, levels[:, :, 1], 0.0).sum(axis=1)
    reaches = (prices <= price) if is_bid else (prices >= price)
    sizes[~reaches.any(axis=1)] = np.nan
    return np.asarray(sizes)


def _size_at(levels: Floats, price: float, is_bid: bool) -> float:
    """Return the same of one book, (K, 2): a few levels are quicker looked at one by one."""
    size, is_in_sight = 0.0, False
    for at, found in levels.tolist():
        if at == price:
            size += found
        if (at <= price) if is_bid else (at >= price):
            is_in_sight = True
    return size if is_in_sight else math.nan


def _level_at(block: Block, side: Side, price: float, now_ns: int) -> float:
    """Return the size at a price now: as it was last in sight, else the largest that is."""
    row = block.book_at(now_ns)
    if row < 0:
        return 0.0
    own = block.bids if side is Side.BUY else block.asks
    size = _size_at(own[row], price, side is Side.BUY)
    if size == size:
        return size
    first = min(int(block.book_ns.searchsorted(now_ns - REMEMBERED_NS)), row)
    levels = own[first : row + 1]
    sizes = _sizes_at(levels, price, side is Side.BUY)
    known = np.flatnonzero(~np.isnan(sizes))
    if len(known):
        return sizes.item(known[-1])
    present = levels[-1, :, 1][np.isfinite(levels[-1, :, 1])]
    return float(present.max()) if len(present) else 0.0
