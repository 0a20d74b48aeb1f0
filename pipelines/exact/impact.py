"""What we took is gone for us, until others have put it back.

A recording does not know that we were there: the books that follow still show what our taker orders took. So for every
symbol and side a *debt* is kept, the size we took, and the books that our orders meet begin after it: the first
`debt` of what is visible, from the touch on, is not ours to take again. The debt decays with a half-life: liquidity
comes back exponentially (Bouchaud et al. 2009, "How markets slowly digest changes in supply and demand", measure a
relaxation of that kind; the half-life is an assumption, and stated in every report).

Between two half-lives it falls in a straight line, so that it is the same on every machine.

It is a size, not a price: where the price has moved, what is gone moves with the touch. Resting orders are not
affected, and neither is what others do.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from shared.simulator.venue.levels import decimal_of
from shared.strategy.exact import ZERO, floor_to
from shared.types import NS, Floats, Side

_FORGOTTEN_HALVES = 60
"""Half-lives after which less than a 10^-18th is left."""


class Impact:
    """The debts of one account.

    Args:
        half_life_s: 0: nothing is remembered, every order meets the whole recorded book.
    """

    def __init__(self, half_life_s: float) -> None:
        assert half_life_s >= 0, half_life_s
        self._half_life_ns = round(half_life_s * NS)
        self._debts: dict[tuple[str, Side], tuple[Decimal, int]] = {}  # (symbol, side of the book) -> size, since

    def took(self, symbol: str, taker: Side, size: Decimal, now_ns: int) -> None:
        """Note what a taker of ours got."""
        if self._half_life_ns:
            key = (symbol, taker.opposite)
            self._debts[key] = (self._left(key, now_ns) + size, now_ns)

    def owed(self, symbol: str, side: Side, step: Decimal, now_ns: int) -> Decimal:
        """Return how much of a side of the book is still gone for us, in whole steps of size."""
        left = self._left((symbol, side), now_ns)
        return floor_to(left, step) if left >= step else ZERO

    def _left(self, key: tuple[str, Side], now_ns: int) -> Decimal:
        debt = self._debts.get(key)
        if debt is None:
            return ZERO
        size, since_ns = debt
        halves, rest_ns = divmod(now_ns - since_ns, self._half_life_ns)
        if halves > _FORGOTTEN_HALVES:
            del self._debts[key]
            return ZERO
        return size * (2 * self._half_life_ns - rest_ns) / (self._half_life_ns << (halves + 1))


def beyond(levels: Floats, owed: Decimal) -> Floats | list[Sequence[float | Decimal]]:
    """Return what is left of one side of a book after its first `owed`.

    Args:
        levels: (K, 2) price and size, best first; NaN where there is no level.
    """
    if not owed:
        return levels
    rows: list[Sequence[float | Decimal]] = levels.tolist()
    for k, (price, size) in enumerate(rows):
        if price != price or not size > 0:
            continue
        exact = decimal_of(size)
        if exact > owed:
            return [(price, exact - owed), *rows[k + 1 :]]
        owed -= exact
    return []
