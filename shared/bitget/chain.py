"""The book of one symbol, kept from the channel `books`: a snapshot of up to 500 levels a side, then changes.

    snapshot   pseq 0             becomes the book
    update     pseq == our seq    is applied: a level with size 0 is deleted, any other is set; our seq is its seq

An update that says once more what the last one said is a repeat and changes nothing. Whatever else comes breaks the
chain (`ChainBroken`): what happened in between is not known, and neither is the book, until a snapshot that was asked
for has come. Nothing here guesses: `seq` has no arithmetic, it may begin anew when a symbol was maintained, and the
checksum that Bitget sent until May 2026 (PROTOCOL §7.3) is not needed where every change is chained to the one before.

Prices and sizes are the floats of the sent digits, so a price is found again by equality: 0.0104 and 0.01040 are one.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import chain

from shared.bitget.wire import DepthRow
from shared.types import BOOK_LEVELS

LEVELS_MAX = 10_000
"""Levels a side. Bitget tells of 500; should it not delete what leaves them, a day must not fill the memory."""

_INF = math.inf
_ABSENT = (math.nan, 0.0) * BOOK_LEVELS
_TOP_VALUES = 2 * BOOK_LEVELS


class ChainBroken(Exception):
    """The next state of a book cannot be known; the message says why."""

    def __init__(self, why: str, *, is_malformed: bool = False) -> None:
        super().__init__(why)
        self.is_malformed = is_malformed  # not what Bitget sends, rather than something that was lost


class ChainedBook:
    """Levels of both sides, sorted by price, and the number that the next update must refer to."""

    __slots__ = ("ask_prices", "ask_sizes", "bid_prices", "bid_sizes", "pseq", "seq", "ts")

    def __init__(self, row: DepthRow) -> None:
        """Begin with a snapshot.

        Raises:
            ChainBroken: it is crossed or malformed.
        """
        _check_number(row)
        self.ask_prices: list[float] = []
        self.ask_sizes: list[float] = []
        self.bid_prices: list[float] = []  # ascending, too: the best is the last, where most changes are
        self.bid_sizes: list[float] = []
        self.seq, self.pseq, self.ts = row.seq, row.pseq, row.ts
        self._apply(row)

    def repeats(self, row: DepthRow) -> bool:
        """Tell whether this is the last push once more."""
        return row.seq == self.seq and row.pseq == self.pseq and row.ts == self.ts

    def update(self, row: DepthRow) -> None:
        """Apply the next update.

        Raises:
            ChainBroken: it does not follow, or its result is no book; the book must not be used any more.
        """
        _check_number(row)
        if row.pseq != self.seq:
            raise ChainBroken(f"expected an update of {self.seq}, found one of {row.pseq}")
        self.seq, self.pseq, self.ts = row.seq, row.pseq, row.ts
        self._apply(row)

    def top(self) -> tuple[float, ...]:
        """Return the best levels as price, size, price, …: asks, then bids; absent ones are price NaN, size 0."""
        asks = chain.from_iterable(zip(self.ask_prices[:BOOK_LEVELS], self.ask_sizes[:BOOK_LEVELS], strict=True))
        bids = chain.from_iterable(
            zip(self.bid_prices[: -BOOK_LEVELS - 1 : -1], self.bid_sizes[: -BOOK_LEVELS - 1 : -1], strict=True)
        )
        if len(self.ask_prices) >= BOOK_LEVELS and len(self.bid_prices) >= BOOK_LEVELS:
            return (*asks, *bids)
        return (*(*asks, *_ABSENT)[:_TOP_VALUES], *(*bids, *_ABSENT)[:_TOP_VALUES])

    def _apply(self, row: DepthRow) -> None:
        for name, levels, prices, sizes in (
            ("asks", row.asks, self.ask_prices, self.ask_sizes),
            ("bids", row.bids, self.bid_prices, self.bid_sizes),
        ):
            for price, size in levels:
                if not (0.0 < price < _INF and 0.0 <= size < _INF):
                    raise ChainBroken(
                        f"expected prices above 0 and sizes from 0 on, found {name} with one that is not",
                        is_malformed=True,
                    )
                at = bisect_left(prices, price)
                is_known = at < len(prices) and prices[at] == price
                if size == 0.0:
                    if is_known:
                        del prices[at], sizes[at]
                elif is_known:
                    sizes[at] = size
                else:
                    prices.insert(at, price)
                    sizes.insert(at, size)
            if len(prices) > LEVELS_MAX:
                raise ChainBroken(f"expected at most {LEVELS_MAX} {name}, found more", is_malformed=True)
        if self.ask_prices and self.bid_prices and self.bid_prices[-1] >= self.ask_prices[0]:
            raise ChainBroken("expected bids below asks, found a crossed or locked book", is_malformed=True)


def _check_number(row: DepthRow) -> None:
    if row.seq <= 0:
        raise ChainBroken("expected a seq above 0, found none", is_malformed=True)
