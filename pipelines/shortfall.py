"""Why a session earned something else than its backtest: the gap, order by order, in parts that add up to it exactly.

The session's orders are put before the venue of the backtest as well (`pipelines.session_report`): the same intents,
two executions. With side s, size q, mean price p, fee f of an order, and one price M a symbol that values what is open
at the end on both sides, each side's result is

    result = sum over orders of s q (M - p) - f, plus funding

Of an order that one side filled by q and the other by r, c = min(q, r) is common to both, and

    latency    -s c (touch of the second of the session's fill - touch of the second of the backtest's)
    price      -s c (the rest of the difference of prices: depth, queue, and what moved within a second)
    unfilled    s ((q - c)(M - p) - (r - c)(M - p of the backtest)): what one side filled and the other did not
    fees       -(f - f of the backtest)

`funding` is the difference of what was paid, `adopted` what positions brought that the session found at its start, and
`adjustments` what its ledger took from the exchange's truth; the backtest has neither. Everything is a fraction of
whole numbers, so `residual` is 0, not nearly 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from fractions import Fraction

import msgspec

from shared.strategy.exact import decimal_of

PARTS = ("latency", "price", "unfilled", "fees", "funding", "adopted", "adjustments")

Touch = Callable[[str, int, int], float | None]
"""(symbol, side, ns) -> what a taker would have paid at the end of that second; None where there was no book."""


class Fill(msgspec.Struct, frozen=True):
    """What one side filled."""

    order: str  # client_oid; of the exchange's own orders a name for all of them in the symbol
    symbol: str
    sign: int
    price: Decimal
    size: Decimal
    fee_usdt: Decimal
    time_ns: int


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """What separates a session from its backtest."""

    session_usdt: Fraction  # by the session's own ledger
    backtest_usdt: Fraction
    parts: dict[str, Fraction]  # PARTS -> USDT, > 0: the session did better
    orders: int  # that were sent
    only_session: int  # orders that the session alone filled
    only_backtest: int
    intents_identical: bool  # the journal's events led to the journal's orders again

    @property
    def total_usdt(self) -> Fraction:
        return self.session_usdt - self.backtest_usdt

    @property
    def residual_usdt(self) -> Fraction:
        """Return what the parts leave: 0."""
        return self.total_usdt - sum(self.parts.values(), Fraction(0))


class _Side:
    """What one side made of one order."""

    def __init__(self) -> None:
        self.size = self.value = self.fee = Fraction(0)
        self.touch_value = Fraction(0)
        self.has_touch = True

    def add(self, fill: Fill, touch: float | None) -> None:
        size = Fraction(fill.size)
        self.size += size
        self.value += size * Fraction(fill.price)
        self.fee += Fraction(fill.fee_usdt)
        if touch is None:
            self.has_touch = False
        else:
            self.touch_value += size * Fraction(decimal_of(touch))  # as the exchange wrote it, as the price is

    @property
    def price(self) -> Fraction:
        return self.value / self.size if self.size else Fraction(0)

    @property
    def touch(self) -> Fraction:
        return self.touch_value / self.size if self.size else Fraction(0)


def decompose(
    session: Iterable[Fill],
    backtest: Iterable[Fill],
    *,
    marks: Mapping[str, Decimal],
    touch: Touch,
    session_usdt: Decimal,
    funding_usdt: tuple[Decimal, Decimal],
    adopted_usdt: Decimal,
    adjustments_usdt: Decimal,
    orders: int,
    intents_identical: bool,
) -> Gap:
    """Return the gap in its parts.

    Args:
        marks: price of every symbol that was traded, which values what is open at the end.
        session_usdt: what the session's ledger says that it earned.
        funding_usdt: received by the session, by the backtest.
        adopted_usdt: what positions that were found at the start made until the end, if nothing had been traded.
    """
    sides: dict[tuple[str, str, int], tuple[_Side, _Side]] = {}
    for which, fills in enumerate((session, backtest)):
        for fill in fills:
            key = (fill.order, fill.symbol, fill.sign)
            pair = sides.setdefault(key, (_Side(), _Side()))
            pair[which].add(fill, touch(fill.symbol, fill.sign, fill.time_ns))
    parts = dict.fromkeys(PARTS, Fraction(0))
    model = Fraction(0)
    for (_, symbol, sign), (ours, theirs) in sides.items():
        mark = Fraction(marks[symbol])
        common = min(ours.size, theirs.size)
        worse = -sign * common * (ours.price - theirs.price)
        latency = Fraction(0)
        if common and ours.has_touch and theirs.has_touch:
            latency = -sign * common * (ours.touch - theirs.touch)
        parts["latency"] += latency
        parts["price"] += worse - latency
        alone = (ours.size - common) * (mark - ours.price) - (theirs.size - common) * (mark - theirs.price)
        parts["unfilled"] += sign * alone
        parts["fees"] -= ours.fee - theirs.fee
        model += sign * theirs.size * (mark - theirs.price) - theirs.fee
    parts["funding"] = Fraction(funding_usdt[0]) - Fraction(funding_usdt[1])
    parts["adopted"], parts["adjustments"] = Fraction(adopted_usdt), Fraction(adjustments_usdt)
    return Gap(
        session_usdt=Fraction(session_usdt),
        backtest_usdt=model + Fraction(funding_usdt[1]),
        parts=parts,
        orders=orders,
        only_session=sum(bool(ours.size) and not theirs.size for ours, theirs in sides.values()),
        only_backtest=sum(bool(theirs.size) and not ours.size for ours, theirs in sides.values()),
        intents_identical=intents_identical,
    )
