"""What we took is gone for us, until others have put it back.

A recording does not know that we were there: the books that follow still show what our taker orders took. So for every
symbol and side a *debt* is kept, the size we took, and the books that our orders meet begin after it: the first
`debt` of what is visible, from the touch on, is not ours to take again. The debt decays with a half-life: liquidity
comes back exponentially (Bouchaud et al. 2009, "How markets slowly digest changes in supply and demand", measure a
relaxation of that kind; the half-life is an assumption, and stated in every report).

It is a size, not a price: where the price has moved, what is gone moves with the touch. Resting orders are not
affected, and neither is what others do.
"""

from __future__ import annotations

from decimal import Context, Decimal

from shared.simulator.venue.levels import decimal_of
from shared.strategy.exact import ZERO, floor_to
from shared.types import NS, Floats, Side

_CONTEXT = Context(prec=28)
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
        return floor_to(left, step) if left else ZERO

    def _left(self, key: tuple[str, Side], now_ns: int) -> Decimal:
        size, since_ns = self._debts.get(key, (ZERO, now_ns))
        if not size:
            return ZERO
        halves = _CONTEXT.divide(Decimal(now_ns - since_ns), Decimal(self._half_life_ns))
        if halves > _FORGOTTEN_HALVES:
            del self._debts[key]
            return ZERO
        # Decimal's power is the same on every machine, to the last digit; that of a C library is not.
        return _CONTEXT.multiply(size, _CONTEXT.power(Decimal("0.5"), halves))


def beyond(levels: Floats, owed: Decimal) -> Floats | list[tuple[float, Decimal]]:
    """Return what is left of one side of a book after its first `owed`.

    Args:
        levels: (K, 2) price and size, best first; NaN where there is no level.
    """
    if not owed:
        return levels
    left: list[tuple[float, Decimal]] = []
    for price, size in levels.tolist():
        if price != price or not size > 0:
            continue
        exact = decimal_of(size)
        gone = min(exact, owed)
        owed -= gone
        if exact > gone:
            left.append((price, exact - gone))
    return left
