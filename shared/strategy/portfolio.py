"""The ledger: positions, cash and round trips, from fills, fees, funding and marks. Decimal, exact.

    equity = cash + Σ size · mark                                                    (what we compute)
           = start + realised − fees + funding + adjustments + unrealised            (what it is made of)

Cash moves by −side·price·size, −fee and +funding; no quotient enters it, so equity equals the exchange's to the last
digit while both count the same fills, funding and marks. Realised is split from unrealised by the position's average
entry; the quotient is cut to 1e-12, and since what is taken from one is given to the other, the sum stays exact.

`adjustments` is what the exchange's truth differed by when it was adopted in mid-session: 0 unless a fill was lost.

A round trip (`Trade`) runs from flat to flat; a fill that crosses zero closes one and opens the next. Its waterfall:

    gross (mid to mid) − half spreads − slippage beyond the touch − fees + funding = net

Mid and touch are those of the *decision*, so latency is part of slippage; a post-only fill has negative slippage.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import msgspec

from shared.strategy.exact import ZERO, average, exactly, share_of
from shared.types import Cause, Filled, Position, Side


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """The market a decision saw."""

    mid: Decimal
    half_spread: Decimal

    def touch(self, side: Side) -> Decimal:
        """Return the price that a taker of `side` would pay."""
        return self.mid + self.half_spread if side is Side.BUY else self.mid - self.half_spread


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    """One round trip in one symbol, flat to flat."""

    symbol: str
    side: Side  # BUY: it was long
    entry_ns: int  # receipt of the first entry fill
    exit_ns: int  # receipt of the last exit fill
    entry_second: int  # decision of the entry
    size: Decimal  # base coin, everything that was opened
    entry_price: Decimal  # averages over fills
    exit_price: Decimal
    entry_mid: Decimal  # averages of the mids at the decisions
    exit_mid: Decimal
    gross_usdt: Decimal
    spread_usdt: Decimal  # half spread in and out, >= 0
    entry_spread_usdt: Decimal  # of it, on the way in
    slippage_usdt: Decimal  # beyond the touch, > 0 is a cost
    fees_usdt: Decimal
    funding_usdt: Decimal  # > 0 received
    net_usdt: Decimal
    net_bps: float  # of opened_usdt
    entry_cause: Cause
    exit_cause: Cause  # of the fill that closed it
    n_fills: int

    @property
    def duration_s(self) -> float:
        return (self.exit_ns - self.entry_ns) / 1e9

    @property
    def opened_usdt(self) -> Decimal:
        """Return what was opened, at the mid of its decision: what every "net bps" is a share of."""
        return self.size * self.entry_mid

    @property
    @exactly
    def exit_spread_usdt(self) -> Decimal:
        """Return the half spread on the way out; with `entry_spread_usdt` it is `spread_usdt`, to the last digit."""
        return self.spread_usdt - self.entry_spread_usdt


class Holding:
    """An open position and what its round trip has cost so far."""

    __slots__ = (
        "cost",
        "entry_cause",
        "entry_mid_value",
        "entry_ns",
        "entry_second",
        "entry_size",
        "entry_spread",
        "entry_value",
        "exit_mid_value",
        "exit_size",
        "exit_value",
        "faded",
        "fees",
        "funding",
        "mark",
        "n_fills",
        "side",
        "sign",
        "size",
        "slippage",
        "spread",
        "stop_price",
        "stop_second",
        "symbol",
        "until_second",
    )

    def __init__(self, symbol: str, side: Side, *, entry_ns: int, entry_second: int, cause: Cause) -> None:
        self.symbol = symbol
        self.side = side  # BUY: long
        self.sign = side.sign  # +1 long, -1 short
        self.size = ZERO  # signed
        self.cost = ZERO  # signed: price x size of what is open
        self.mark: Decimal | None = None  # None: adopted, and no mark has been seen since
        self.stop_price: Decimal | None = None  # None: adopted, or the entry carried none
        self.stop_second = 0  # since when the mark is beyond the stop; 0: it is not
        self.until_second: int | None = None  # when its horizon ends; None: nobody has asked yet
        self.faded = 0  # decisions in a row at which its edge did not pay for staying
        self.entry_ns = entry_ns
        self.entry_second = entry_second
        self.entry_cause = cause
        self.entry_size = self.entry_value = self.entry_mid_value = ZERO
        self.exit_size = self.exit_value = self.exit_mid_value = ZERO
        self.fees = self.funding = self.spread = self.entry_spread = self.slippage = ZERO
        self.n_fills = 0

    @property
    def entry_price(self) -> Decimal:
        """Return the average price of what is open."""
        return self.cost / self.size

    @property
    def notional_usdt(self) -> Decimal:
        return abs(self.size * self.mark) if self.mark is not None else abs(self.cost)

    @property
    def unrealised(self) -> Decimal:
        return self.size * self.mark - self.cost if self.mark is not None else ZERO


class Portfolio:
    def __init__(self) -> None:
        self.holdings: dict[str, Holding] = {}
        self.start_usdt = ZERO  # equity at the first adoption, without what adopted positions had not realised
        self.realised_usdt = ZERO
        self.fees_usdt = ZERO
        self.funding_usdt = ZERO
        self.adjustments_usdt = ZERO
        self._cash = ZERO
        self._equity: Decimal | None = None  # None: something has changed since it was added up
        self._gross = ZERO  # as of then

    # ------------------------------------------------------------------------------------------- what we have

    @property
    def equity_usdt(self) -> Decimal:
        return self._equity if self._equity is not None else self._add_up()

    @exactly
    def _add_up(self) -> Decimal:
        """Value every position once, for equity and gross together."""
        equity, gross = self._cash, ZERO
        for holding in self.holdings.values():
            if holding.mark is None:
                gross += abs(holding.cost)
            else:
                value = holding.size * holding.mark
                equity += value
                gross += abs(value)
        self._equity, self._gross = equity, gross
        return equity

    @property
    @exactly
    def unrealised_usdt(self) -> Decimal:
        return sum((holding.unrealised for holding in self.holdings.values()), ZERO)

    @property
    @exactly
    def balance_usdt(self) -> Decimal:
        """Return equity without what is unrealised: the wallet."""
        return self.start_usdt + self.realised_usdt - self.fees_usdt + self.funding_usdt + self.adjustments_usdt

    @property
    def gross_usdt(self) -> Decimal:
        if self._equity is None:
            self._add_up()
        return self._gross

    def size(self, symbol: str) -> Decimal:
        """Return the signed size of a position, 0 where there is none."""
        holding = self.holdings.get(symbol)
        return holding.size if holding is not None else ZERO

    # --------------------------------------------------------------------------------------------- what happens

    @exactly
    def adopt(self, equity: Decimal, positions: tuple[Position, ...], now_ns: int, second: int) -> None:
        """Begin with the exchange's truth.

        The exchange's equity includes what its positions had not realised at marks that we have not seen: the first
        mark of each adopted position is taken for the one it was valued at, and equity stays continuous.
        """
        assert not self.holdings, "a ledger is adopted once, corrected afterwards"
        assert not self._cash, "a ledger is adopted once, corrected afterwards"
        self._equity = None
        self._cash = self.start_usdt = equity
        for position in positions:
            self._adopt_position(position.symbol, position.size, position.entry_price, now_ns, second)

    def _adopt_position(self, symbol: str, size: Decimal, entry_price: Decimal, now_ns: int, second: int) -> None:
        holding = Holding(
            symbol, Side.BUY if size > 0 else Side.SELL, entry_ns=now_ns, entry_second=second, cause=Cause.ADOPTED
        )
        holding.size = size
        holding.cost = size * entry_price
        holding.entry_size = abs(size)
        holding.entry_value = holding.entry_mid_value = abs(size) * entry_price
        self.holdings[symbol] = holding

    @exactly
    def mark_all(self, price_of: Callable[[str], Decimal | None]) -> None:
        """Value every position at its mark price; one without keeps its last."""
        self._equity = None
        for symbol, holding in self.holdings.items():
            price = price_of(symbol)
            if price is None:
                continue
            if holding.mark is None:
                self.mark(symbol, price)
            else:
                holding.mark = price

    @exactly
    def mark(self, symbol: str, price: Decimal) -> None:
        """Value a position at the exchange's mark price."""
        holding = self.holdings.get(symbol)
        if holding is None:
            return
        self._equity = None
        if holding.mark is None:
            self._cash -= holding.size * price
            self.start_usdt -= holding.size * price - holding.cost
        holding.mark = price

    @exactly
    def fill(
        self, fill: Filled, *, cause: Cause, second: int, quote: Quote | None, mark: Decimal | None
    ) -> list[Trade]:
        """Book one fill and return the round trip that it closed, if any.

        Args:
            cause: why its order was sent.
            second: decision of its order.
            quote: market at that decision; None: not known, all of the price's difference counts as gross.
            mark: last mark price, values a new position; None: the fill's own price does until a mark comes.
        """
        self._equity = None
        held = self.holdings.get(fill.symbol)
        if held is not None and held.mark is None:
            self.mark(fill.symbol, mark if mark is not None else fill.price)
        sign = fill.side.sign
        self._cash -= sign * fill.price * fill.size + fill.fee_usdt
        self.fees_usdt += fill.fee_usdt
        if quote is None:
            quote = Quote(mid=fill.price, half_spread=ZERO)
        elif quote.half_spread < 0:
            # Nobody pays a spread in a crossed book: what is gained or lost there is slippage.
            quote = Quote(mid=quote.mid, half_spread=ZERO)

        closes = ZERO
        if held is not None and held.size * sign < 0:
            closes = min(abs(held.size), fill.size)
        opens = fill.size - closes
        fee_closing = share_of(fill.fee_usdt, closes, fill.size) if closes else ZERO
        trades: list[Trade] = []
        if closes:
            assert held is not None
            cost_closed = share_of(held.cost, closes, abs(held.size))
            self.realised_usdt += -sign * fill.price * closes - cost_closed
            held.cost -= cost_closed
            held.size += sign * closes
            held.exit_size += closes
            held.exit_value += fill.price * closes
            held.exit_mid_value += quote.mid * closes
            self._count_costs(held, fill, quote, closes, fee_closing)
            if held.size == 0:
                del self.holdings[fill.symbol]
                trades.append(_round_trip(held, fill.recv_ns, cause))
                held = None
        if opens:
            if held is None:
                held = Holding(fill.symbol, fill.side, entry_ns=fill.recv_ns, entry_second=second, cause=cause)
                held.mark = mark if mark is not None else fill.price
                self.holdings[fill.symbol] = held
            held.size += sign * opens
            held.cost += sign * fill.price * opens
            held.entry_size += opens
            held.entry_value += fill.price * opens
            held.entry_mid_value += quote.mid * opens
            held.entry_spread += quote.half_spread * opens
            self._count_costs(held, fill, quote, opens, fill.fee_usdt - fee_closing)
        return trades

    @staticmethod
    def _count_costs(holding: Holding, fill: Filled, quote: Quote, size: Decimal, fee: Decimal) -> None:
        holding.fees += fee
        holding.spread += quote.half_spread * size
        holding.slippage += fill.side.sign * (fill.price - quote.touch(fill.side)) * size
        holding.n_fills += 1

    @exactly
    def pay_funding(self, symbol: str, amount: Decimal) -> None:
        """Book a funding payment, > 0 received."""
        self._equity = None
        self._cash += amount
        self.funding_usdt += amount
        holding = self.holdings.get(symbol)
        if holding is not None:
            holding.funding += amount

    @exactly
    def correct_position(self, position: Position, now_ns: int, second: int) -> list[Trade]:
        """Replace one position by the exchange's, at our last mark; return the round trip that this ended.

        The difference in equity that remains is not known from a position: `correct_equity` takes it when flat.
        """
        self._equity = None
        held = self.holdings.pop(position.symbol, None)
        trades: list[Trade] = []
        mark: Decimal | None = None
        if held is not None:
            mark = held.mark if held.mark is not None else held.entry_price
            self._cash += held.size * mark if held.mark is not None else ZERO
            self.realised_usdt += held.size * mark - held.cost if held.mark is not None else ZERO
            size = abs(held.size)
            held.exit_size += size
            held.exit_value += mark * size
            held.exit_mid_value += mark * size
            trades.append(_round_trip(held, now_ns, Cause.ADOPTED))
        if position.size != 0:
            self._adopt_position(position.symbol, position.size, position.entry_price, now_ns, second)
            if mark is not None:
                self.mark(position.symbol, mark)
        return trades

    @exactly
    def correct_equity(self, equity: Decimal) -> Decimal:
        """Take the exchange's equity while flat; return by how much ours differed."""
        assert not self.holdings, "marks differ: equity is corrected while flat"
        self._equity = None
        difference = equity - self._cash
        self._cash = equity
        self.adjustments_usdt += difference
        return difference


def _round_trip(held: Holding, exit_ns: int, cause: Cause) -> Trade:
    """Close the books of a position that is flat again."""
    sign = held.side.sign
    net = sign * (held.exit_value - held.entry_value) - held.fees + held.funding
    entry_mid_value = held.entry_mid_value
    return Trade(
        symbol=held.symbol,
        side=held.side,
        entry_ns=held.entry_ns,
        exit_ns=exit_ns,
        entry_second=held.entry_second,
        size=held.entry_size,
        entry_price=average(held.entry_value, held.entry_size),
        exit_price=average(held.exit_value, held.exit_size),
        entry_mid=average(entry_mid_value, held.entry_size),
        exit_mid=average(held.exit_mid_value, held.exit_size),
        gross_usdt=sign * (held.exit_mid_value - entry_mid_value),
        spread_usdt=held.spread,
        entry_spread_usdt=held.entry_spread,
        slippage_usdt=held.slippage,
        fees_usdt=held.fees,
        funding_usdt=held.funding,
        net_usdt=net,
        net_bps=float(net / entry_mid_value * 10_000),
        entry_cause=held.entry_cause,
        exit_cause=cause,
        n_fills=held.n_fills,
    )
