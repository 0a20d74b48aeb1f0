"""A venue without a socket: accounts, positions, matching and cash, in Decimal.

The market's book comes in from outside (`set_book`, `set_mark`, `trade`); orders come in through `place`; what happened
goes out through `drain`. The server puts Bitget's protocol in front of it, the backtester drives it directly. Nothing
here reads a clock: every call carries `now_ns`.

What is modelled
  * Price-time priority: takers walk the visible levels of the market's book and the resting orders of every account,
    best price first, the market before us at the same price. What was taken stays taken until the next book.
  * Resting orders fill as maker at their own price when the opposite touch reaches them, or when public trades do
    after the size that was visible ahead of them at their price has traded (or vanished from the book).
  * One-way positions, cross margin, one leverage a symbol. Protective stop and target ride on an entry, belong to the
    position, trigger on the mark and close at market.
  * Fee = price x size x rate, cut to 8 decimals (Bitget v2, measured). Funding = -size x mark x rate at each symbol's
    interval on the UTC grid. Liquidation: everything is closed once equity falls to the maintenance margin.
What is not: market impact beyond the visible book, hidden orders, hedge mode, isolated margin (accepted as a setting,
counted as cross), insurance fund, tiers of maintenance margin (one rate a symbol), latency (the server adds it).

The invariant, exactly, after every event: equity = deposits + realised - fees + funding + unrealised. To keep it
exact a position carries its *cost* (sum of signed size x price), not an average price, and a partial close releases
cost by the ledger's own rule (`share_of`): the split of realised and unrealised is a convention, and ours is one.

To extend: a new kind of order is a case in `_match`; a new rule is a line in `_refusal`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from decimal import ROUND_DOWN, Decimal
from typing import Any

import msgspec

from shared.simulator.orders import (
    ZERO,
    Accepted,
    Bill,
    ClosedPosition,
    Fill,
    FundingReport,
    Order,
    OrderReport,
    OrderRequest,
    PositionSide,
    Refusal,
    Tier,
    VenueEvent,
    VenuePosition,
)
from shared.simulator.plans import Plans
from shared.strategy.exact import share_of
from shared.types import Contract, OrderKind, OrderStatus, Side

SNOWFLAKE_EPOCH_MS = 1_435_725_920_677
LEVERAGE_DEFAULT = 10
ORDERS_PER_SYMBOL_MAX = 200
ORDERS_MAX = 1000
FUNDING_BILL = "contract_settle_fee"
HISTORY_MAX = 5_000
"""Final orders, fills and bills that an account remembers; Bitget keeps 90 days, we keep a bound."""

_FEE_STEP = Decimal("1e-8")
_HOUR_NS = 3_600_000_000_000

Levels = Iterable[Any]
"""Rows (price, size), best first: floats, strings, Decimals or a numpy array (L, 2); read more than once."""


class _Account:
    def __init__(self, deposit: Decimal) -> None:
        self.deposit = self.balance = deposit
        self.realised = self.fees = self.funding = ZERO
        self.positions: dict[str, VenuePosition] = {}
        self.pending: dict[str, Order] = {}  # order_id -> order, oldest first
        self.client_oids: dict[str, str] = {}  # of pending orders only, as at Bitget -> order_id
        self.closed: OrderedDict[str, Order] = OrderedDict()
        self.closed_oids: dict[str, str] = {}
        self.fills: deque[Fill] = deque(maxlen=HISTORY_MAX)
        self.bills: deque[Bill] = deque(maxlen=HISTORY_MAX)
        self.leverage: dict[str, int] = {}
        self.margin_mode: dict[str, str] = {}
        self.position_mode = "one_way_mode"


class _Book:
    """The market's book of one symbol; turned into Decimal only when somebody wants to match against it."""

    __slots__ = ("_asks", "_bids", "_middle", "_raw_asks", "_raw_bids")

    def __init__(self, bids: Levels, asks: Levels, middle_before: Decimal | None = None) -> None:
        self._raw_bids, self._raw_asks = bids, asks
        self._bids: list[list[Decimal]] | None = None
        self._asks: list[list[Decimal]] | None = None
        self._middle = middle_before

    @property
    def bids(self) -> list[list[Decimal]]:
        if self._bids is None:
            self._bids = _levels(self._raw_bids)
        return self._bids

    @property
    def asks(self) -> list[list[Decimal]]:
        if self._asks is None:
            self._asks = _levels(self._raw_asks)
        return self._asks

    def middle(self) -> Decimal | None:
        """Return the middle as the market sent it, whatever was taken since; the one before where a side is empty."""
        bids, asks = _levels(self._raw_bids), _levels(self._raw_asks)
        return (bids[0][0] + asks[0][0]) / 2 if bids and asks else self._middle

    def value_at(self, price: Decimal) -> None:
        """Value the symbol at a price while one side is empty."""
        self._middle = price

    def opposite(self, side: Side) -> list[list[Decimal]]:
        """Return what an order of `side` takes from; rows [price, size left], best first, emptied rows removed."""
        return self.asks if side is Side.BUY else self.bids

    def own(self, side: Side) -> list[list[Decimal]]:
        return self.bids if side is Side.BUY else self.asks


class Venue:
    """Accounts, orders and positions against books that come from outside.

    Args:
        contracts: the trading rules; an order of any other symbol is refused with 40034.
    """

    def __init__(self, contracts: Iterable[Contract]) -> None:
        self.contracts = {contract.symbol: contract for contract in contracts}
        self._accounts: dict[str, _Account] = {}
        self._books: dict[str, _Book] = {}
        self._marks: dict[str, Any] = {}
        self._rates: dict[str, Any] = {}
        self._indices: dict[str, Any] = {}
        self._resting: dict[str, list[Order]] = {}  # oldest first
        self._holders: dict[str, set[str]] = {}
        self._events: list[VenueEvent] = []
        self._sequence = 0
        self._funded_hour: int | None = None
        self._tiers: dict[str, tuple[Tier, ...]] = {}
        self._last: dict[str, Any] = {}
        self.plans = Plans(self)
        self.is_stop_broken = False
        """A stop that never triggers: one of the misbehaviours."""

    # ------------------------------------------------------------------------------------ accounts

    def open_account(self, account: str, deposit_usdt: Decimal) -> None:
        assert account not in self._accounts, account
        self._accounts[account] = _Account(deposit_usdt)

    @property
    def accounts(self) -> tuple[str, ...]:
        return tuple(self._accounts)

    def deposit(self, account: str, amount_usdt: Decimal) -> None:
        """Add money; a negative amount withdraws it."""
        self._accounts[account].deposit += amount_usdt
        self._accounts[account].balance += amount_usdt

    def set_contract(self, contract: Contract) -> None:
        """Replace the trading rules of a symbol, or list a new one."""
        self.contracts[contract.symbol] = contract

    def set_tiers(self, symbol: str, tiers: tuple[Tier, ...]) -> None:
        self._tiers[symbol] = tiers

    def tiers(self, symbol: str) -> tuple[Tier, ...]:
        """Return the risk ladder of a symbol, the smallest notional first."""
        contract = self.contracts[symbol]
        whole = Tier(
            level=1, start_usdt=ZERO, end_usdt=Decimal(10_000_000), leverage_max=contract.leverage_max,
            maintenance_rate=maintenance_rate(contract),
        )  # fmt: skip
        return self._tiers.get(symbol, (whole,))

    def set_margin(
        self, account: str, symbol: str, hold_side: str, amount_usdt: Decimal, now_ns: int
    ) -> Refusal | None:
        """Add margin to an isolated position, or take some away (< 0); None means done."""
        return Refusal("22002", "No position to close")

    def set_leverage(self, account: str, symbol: str, leverage: int, hold_side: str | None = None) -> int | Refusal:
        """Set the leverage of one symbol and return the obtained one."""
        contract = self.contracts.get(symbol)
        if contract is None:
            return _unknown(symbol)
        if not contract.leverage_min <= leverage <= contract.leverage_max:
            return Refusal("40797", f"Exceeded the maximum settable leverage {contract.leverage_max}")
        held = self._accounts[account]
        before = held.leverage.get(symbol)
        held.leverage[symbol] = leverage
        if self.available(account) < 0:
            held.leverage[symbol] = before if before is not None else LEVERAGE_DEFAULT
            return Refusal("40754", "balance not enough")
        return leverage

    def leverage(self, account: str, symbol: str, hold_side: str = "long") -> int:
        contract = self.contracts[symbol]
        return self._accounts[account].leverage.get(symbol, min(LEVERAGE_DEFAULT, contract.leverage_max))

    def set_margin_mode(self, account: str, symbol: str, mode: str) -> Refusal | None:
        """Set "crossed" or "isolated"; None means done."""
        if symbol not in self.contracts:
            return _unknown(symbol)
        held = self._accounts[account]
        if mode != held.margin_mode.get(symbol, "crossed"):
            if symbol in held.positions or any(order.symbol == symbol for order in held.pending.values()):
                return Refusal("45117", "Currently holding positions or orders, the margin mode cannot be adjusted")
            held.margin_mode[symbol] = mode
        return None

    def margin_mode(self, account: str, symbol: str) -> str:
        return self._accounts[account].margin_mode.get(symbol, "crossed")

    def set_position_mode(self, account: str, mode: str) -> Refusal | None:
        """Set "one_way_mode" or "hedge_mode"; None means done. Orders are taken in one-way mode only."""
        held = self._accounts[account]
        if mode != held.position_mode:
            if held.positions or held.pending:
                return Refusal("40920", "Position or order exists, the position mode cannot be switched")
            held.position_mode = mode
        return None

    def position_mode(self, account: str) -> str:
        return self._accounts[account].position_mode

    # ----------------------------------------------------------------------------------- questions

    def balance(self, account: str) -> Decimal:
        """Return deposits + realised - fees + funding."""
        return self._accounts[account].balance

    def unrealised(self, account: str, symbol: str | None = None) -> Decimal:
        """Return sum of size x mark - cost, of one symbol or of all."""
        total = ZERO
        for position in self._accounts[account].positions.values():
            if symbol is None or position.symbol == symbol:
                total += position.size * self.mark(position.symbol) - position.cost
        return total

    def equity(self, account: str) -> Decimal:
        return self.balance(account) + self.unrealised(account)

    def totals(self, account: str) -> tuple[Decimal, Decimal, Decimal, Decimal]:
        """Return (deposits, realised, fees, funding) since the account was opened."""
        held = self._accounts[account]
        return held.deposit, held.realised, held.fees, held.funding

    def margin_used(self, account: str) -> Decimal:
        """Return the initial margin of positions and of pending orders that could open."""
        held, used = self._accounts[account], ZERO
        for position in held.positions.values():
            used += abs(position.size) * self.mark(position.symbol) / self.leverage(account, position.symbol)
        for order in held.pending.values():
            if not order.reduce_only and order.price is not None:
                used += order.remaining * order.price / order.leverage
        return used

    def available(self, account: str) -> Decimal:
        return self.equity(account) - self.margin_used(account)

    def mark(self, symbol: str) -> Decimal:
        """Return the last mark, the middle of the market's book before the first one.

        Raises:
            KeyError: the symbol has neither: `has_price` tells.
        """
        mark = self._marks.get(symbol)
        if mark is None:
            middle = self._books[symbol].middle()
            if middle is None:
                raise KeyError(symbol)
            return middle
        if type(mark) is not Decimal:
            mark = self._marks[symbol] = _decimal(mark)
        return mark

    def has_price(self, symbol: str) -> bool:
        if symbol in self._marks:
            return True
        book = self._books.get(symbol)
        return book is not None and book.middle() is not None

    def positions(self, account: str) -> list[VenuePosition]:
        return list(self._accounts[account].positions.values())

    def isolated_margin(self, account: str) -> Decimal:
        """Return what is set aside for isolated positions."""
        return sum((p.margin_usdt for p in self.positions(account)), ZERO)

    def cross_equity(self, account: str) -> Decimal:
        """Return the equity without isolated positions: their margin and their profit are their own."""
        return self.equity(account) - self.isolated_margin(account)

    def closed_positions(self, account: str) -> list[ClosedPosition]:
        """Return the remembered closed positions, oldest first."""
        return []

    def last_price(self, symbol: str) -> Decimal | None:
        """Return the price of the last trade, public or of an account; None before the first."""
        last = self._last.get(symbol)
        return None if last is None else _decimal(last)

    def max_open(self, account: str, symbol: str, side: Side, price: Decimal) -> Decimal:
        """Return the largest size that could be opened at a price."""
        contract = self.contracts[symbol]
        cost = price * (1 / Decimal(self.leverage(account, symbol)) + contract.taker_fee)
        return max(ZERO, self.available(account) / cost // contract.size_step * contract.size_step)

    def liquidation_price(self, account: str, position: VenuePosition) -> Decimal | None:
        """Return the mark at which a position is liquidated, as it comes out of the formula; None where none."""
        contract, size = self.contracts[position.symbol], abs(position.size)
        distance = size * (maintenance_rate(contract) + contract.taker_fee) - position.size
        if not distance:
            return None
        return (self.equity(account) - position.size * self.mark(position.symbol)) / distance

    def position(self, account: str, symbol: str, position_side: PositionSide = "net") -> VenuePosition | None:
        """Return the position of a symbol, None where flat."""
        return self._accounts[account].positions.get(symbol)

    def order(self, account: str, *, order_id: str | None = None, client_oid: str | None = None) -> Order | None:
        """Return an order, pending or final (the newest with that client_oid), or None."""
        held = self._accounts[account]
        if not order_id:
            order_id = held.client_oids.get(client_oid or "") or held.closed_oids.get(client_oid or "")
        return held.pending.get(order_id or "") or held.closed.get(order_id or "")

    def pending(self, account: str) -> list[Order]:
        """Return the working orders, oldest first."""
        return list(self._accounts[account].pending.values())

    def closed(self, account: str) -> list[Order]:
        """Return the remembered final orders, oldest first."""
        return list(self._accounts[account].closed.values())

    def resting_symbols(self) -> list[str]:
        """Return the symbols in which somebody's order rests in the book."""
        return [symbol for symbol, orders in self._resting.items() if orders]

    def fills(self, account: str) -> list[Fill]:
        """Return the remembered fills, oldest first."""
        return list(self._accounts[account].fills)

    def bills(self, account: str) -> list[Bill]:
        """Return the remembered movements of the wallet by trading and funding, oldest first."""
        return list(self._accounts[account].bills)

    def drain(self) -> list[VenueEvent]:
        """Return what happened since the last call, in order: per order live, then each fill with its report."""
        events, self._events = self._events, []
        return events

    def emit(self, event: VenueEvent) -> None:
        """Add to what happened."""
        self._events.append(event)

    def new_id(self, now_ns: int) -> str:
        """Return a snowflake of the venue's sequence."""
        return self._id(now_ns)

    # -------------------------------------------------------------------------------------- market

    def set_book(self, symbol: str, bids: Levels, asks: Levels, now_ns: int) -> None:
        """Replace the market's book of one symbol; resting orders that it reaches are filled.

        Args:
            bids, asks: rows (price, size), best first. Kept by reference until the next call: do not write to them.
                Rows with a NaN price or no size are absent levels.
        """
        is_valued_by_books = symbol not in self._marks and bool(self._holders.get(symbol))
        middle_before = self._books[symbol].middle() if is_valued_by_books and symbol in self._books else None
        self._books[symbol] = _Book(bids, asks, middle_before)
        if self._resting.get(symbol):
            self._reach_resting(symbol, now_ns)

    def set_mark(self, symbol: str, mark: Any, index: Any, funding_rate: Any, now_ns: int) -> None:
        """Set the mark (and index and running funding rate); stops and liquidation follow from it.

        Args:
            mark, index, funding_rate: floats or Decimals; NaN where unknown (a NaN mark leaves the last one).
        """
        if mark == mark:
            self._marks[symbol] = mark
        if index == index:
            self._indices[symbol] = index
        if funding_rate == funding_rate:
            self._rates[symbol] = funding_rate
        if self._holders.get(symbol):
            self._watch(symbol, now_ns)

    def trade(self, symbol: str, price: Any, size: Any, taker_side: Side, now_ns: int) -> None:
        """Tell of a public trade: it fills resting orders at a worse price, and at its price after those ahead."""
        resting = self._resting.get(symbol)
        if not resting:
            return
        traded, left = _decimal(price), _decimal(size)
        for order in _by_priority(resting, taker_side.opposite):
            assert order.price is not None
            is_beyond = order.price > traded if order.side is Side.BUY else order.price < traded
            if not is_beyond and order.price != traded:
                break
            if order.price == traded:
                ahead = min(order.queue_ahead, left)
                order.queue_ahead -= ahead
                left -= ahead
            filled = self._fill_resting(order, left, now_ns)
            left -= filled
            if left <= 0:
                break

    def settle_funding(self, now_ns: int) -> None:
        """Pay the funding that has become due since the last call, each symbol on its own UTC grid."""
        hour = now_ns // _HOUR_NS
        if self._funded_hour is None or hour <= self._funded_hour:
            self._funded_hour = hour if self._funded_hour is None else self._funded_hour
            return
        since, self._funded_hour = self._funded_hour, hour
        for symbol in list(self._holders):
            interval = self.contracts[symbol].funding_interval_h
            if hour // interval > since // interval:
                self._settle(symbol, now_ns)

    def settle_funding_now(self, now_ns: int) -> list[FundingReport]:
        """Pay funding in every symbol that is held, whatever the time, and return what was paid."""
        n_before = len(self._events)
        for symbol in list(self._holders):
            self._settle(symbol, now_ns)
        return [event for event in self._events[n_before:] if isinstance(event, FundingReport)]

    def _settle(self, symbol: str, now_ns: int) -> None:
        rate = self._rates.get(symbol)
        if rate is not None:
            for account in sorted(self._holders[symbol]):
                self._pay_funding(account, symbol, _decimal(rate), now_ns)

    # -------------------------------------------------------------------------------------- orders

    def place(self, account: str, request: OrderRequest, now_ns: int) -> Accepted | Refusal:
        """Accept an order and match it at once; `accept` and `match` do it in two steps."""
        answer = self.accept(account, request, now_ns)
        if isinstance(answer, Accepted):
            self.match(account, answer.order_id, now_ns)
        return answer

    def accept(self, account: str, request: OrderRequest, now_ns: int) -> Accepted | Refusal:
        """Check an order and make it live without matching it. A refusal changes nothing."""
        refusal = self._refusal(account, request)
        if refusal is not None:
            return refusal
        order = self._create(account, request, now_ns, source="api")
        return Accepted(order.order_id, order.client_oid)

    def match(self, account: str, order_id: str, now_ns: int) -> None:
        """Match an accepted order; nothing happens if it has been cancelled meanwhile."""
        order = self._accounts[account].pending.get(order_id)
        if order is not None:
            self._match(order, now_ns)

    def cancel(
        self, account: str, symbol: str, now_ns: int, *, order_id: str | None = None, client_oid: str | None = None
    ) -> Accepted | Refusal:
        """Cancel a pending order; the order id wins over the client's."""
        found = self.order(account, order_id=order_id, client_oid=client_oid)
        if found is None or found.symbol != symbol:
            return Refusal("40768", "Order does not exist")
        if found.status.is_final:
            return Refusal("22001", "No order to cancel")
        self._close(found, OrderStatus.CANCELED, "normal_cancel", now_ns)
        return Accepted(found.order_id, found.client_oid)

    def modify(
        self,
        account: str,
        symbol: str,
        now_ns: int,
        *,
        order_id: str | None = None,
        client_oid: str | None = None,
        new_client_oid: str,
        new_size: Decimal | None = None,
        new_price: Decimal | None = None,
        new_stop_loss: Decimal | None = None,
        new_take_profit: Decimal | None = None,
        matches: bool = True,
    ) -> Accepted | Refusal:
        """Change a live limit order.

        Another size or price (both are needed) is a cancel and a new order; other presets keep the order, and a preset
        of 0 removes it.

        Args:
            matches: False leaves the new order to `match`, as `accept` does.
        """
        return Refusal("40725", "service return an error")

    def close_at_market(
        self, account: str, now_ns: int, symbol: str | None = None, hold_side: str | None = None, *,
        matches: bool = True,
    ) -> tuple[list[Accepted], list[tuple[str, Refusal]]]:  # fmt: skip
        """Flash close: send a market order against each position; return (acks, (symbol, refusal))."""
        return [], []

    def reverse(
        self, account: str, symbol: str, now_ns: int, *, size: Decimal | None = None, hold_side: str | None = None,
        client_oid: str = "", matches: bool = True,
    ) -> Accepted | Refusal:  # fmt: skip
        """Close a position and open the opposite one (Bitget: click-backhand)."""
        return Refusal("22002", "No position to close")

    def accept_triggered(self, account: str, request: OrderRequest, now_ns: int, source: str) -> Order | Refusal:
        """Accept and match an order that a plan sends; return it, working or final."""
        refusal = self._refusal(account, request)
        if refusal is not None:
            return refusal
        order = self._create(account, request, now_ns, source)
        self._match(order, now_ns)
        return order

    # ----------------------------------------------------------------------------- checks of orders

    def _refusal(self, account: str, request: OrderRequest) -> Refusal | None:
        """Return why Bitget would not take it, None where it would. Codes: Bitget v2, Error codes."""
        contract = self.contracts.get(request.symbol)
        if contract is None:
            return _unknown(request.symbol)
        held = self._accounts[account]
        if held.position_mode != "one_way_mode":
            return Refusal("40774", _MODE_MESSAGE)
        position = held.positions.get(request.symbol)
        closes = position is not None and position.size * request.side.sign < 0
        if contract.status != "normal" and not (contract.status == "limit_open" and request.reduce_only and closes):
            return Refusal("45043", f"The symbol is {contract.status} and cannot be traded")
        is_market = request.kind is OrderKind.MARKET
        if request.client_oid:
            if not set(request.client_oid) <= _CLIENT_OID_ALPHABET or len(request.client_oid) > 50:
                return Refusal("40304", "clientOid or orderId must be 1 to 50 characters of 0-9A-Za-z-+_#:")
            if request.client_oid in held.client_oids:
                return Refusal("40786", "Duplicate clientOid")
        if not is_market and request.price is None:
            return Refusal("40019", "Parameter price cannot be empty")
        return (
            _size_refusal(contract, request)
            or (None if is_market else self._price_refusal(contract, request))
            or self._stop_refusal(contract, request)
            or self._exposure_refusal(account, contract, request, position)
        )

    def _price_refusal(self, contract: Contract, request: OrderRequest) -> Refusal | None:
        price = request.price
        assert price is not None
        if price <= 0:
            return Refusal("40020", "Parameter price error")
        refusal = _step_refusal(
            "price", price, contract.tick, "45115", "The price you enter should be a multiple of {}"
        )
        if refusal is not None:
            return refusal
        if self.has_price(contract.symbol):
            mark = self.mark(contract.symbol)
            if request.side is Side.BUY and price > mark * (1 + contract.price_band_buy):
                return Refusal("22006", "Limit price > risk price")
            if request.side is Side.SELL and price < mark * (1 - contract.price_band_sell):
                return Refusal("22007", "Limit price < risk price")
        return None

    def _stop_refusal(self, contract: Contract, request: OrderRequest) -> Refusal | None:
        for price, name in (
            (request.stop_loss, "presetStopLossPrice"),
            (request.take_profit, "presetStopSurplusPrice"),
        ):
            if price is not None:
                refusal = _step_refusal(
                    name, price, contract.tick, "45115", "The price you enter should be a multiple of {}"
                )
                if refusal is not None:
                    return refusal
        if not self.has_price(contract.symbol):
            return None
        mark = self.mark(contract.symbol)
        side, sign = ("long", 1) if request.side is Side.BUY else ("short", -1)
        if request.stop_loss is not None and (mark - request.stop_loss) * sign <= 0:
            return Refusal(
                "40917", f"Stop price for {side} positions please {'<' if sign > 0 else '>'} mark price {mark}"
            )
        if request.take_profit is not None and (request.take_profit - mark) * sign <= 0:
            return Refusal(
                "40915", f"Take profit price for {side} positions please {'>' if sign > 0 else '<'} mark price {mark}"
            )
        return None

    def _exposure_refusal(
        self, account: str, contract: Contract, request: OrderRequest, position: VenuePosition | None
    ) -> Refusal | None:
        held, symbol = self._accounts[account], contract.symbol
        if sum(order.symbol == symbol for order in held.pending.values()) >= ORDERS_PER_SYMBOL_MAX:
            return Refusal("45118", f"The number of orders of the symbol reached the maximum {ORDERS_PER_SYMBOL_MAX}")
        if len(held.pending) >= ORDERS_MAX:
            return Refusal("43005", f"The number of orders reached the maximum {ORDERS_MAX}")
        against = abs(position.size) if position is not None and position.size * request.side.sign < 0 else ZERO
        if request.reduce_only:
            return None if against else Refusal("22002", "No position to close")
        price = request.price
        if price is None:
            levels = self._books[symbol].opposite(request.side) if symbol in self._books else []
            if levels:
                price = levels[0][0]
            elif self.has_price(symbol):
                price = self.mark(symbol)
            else:
                return Refusal("40725", "service return an error")
        if request.size * price < contract.notional_min_usdt and request.size > against:
            return Refusal("45110", f"less than the minimum amount {contract.notional_min_usdt.normalize():f} USDT")
        opening = max(ZERO, request.size - against)
        needed = opening * price * (1 / Decimal(self.leverage(account, symbol)) + contract.taker_fee)
        if opening and needed > self.available(account):
            return Refusal("40762", "The order amount exceeds the balance")
        return None

    # ----------------------------------------------------------------------------------- life cycle

    def _create(self, account: str, request: OrderRequest, now_ns: int, source: str) -> Order:
        held = self._accounts[account]
        size = request.size
        if request.reduce_only:
            size = self._make_room(account, request, now_ns)
        order_id = self._id(now_ns)
        order = Order(
            account=account, order_id=order_id,
            client_oid=request.client_oid or ("" if source != "api" else self._id(now_ns)),
            symbol=request.symbol, side=request.side, kind=request.kind, size=size, price=request.price,
            reduce_only=request.reduce_only, stop_loss=request.stop_loss, take_profit=request.take_profit,
            stp=request.stp, source=source, leverage=self.leverage(account, request.symbol),
            created_ns=now_ns, updated_ns=now_ns,
        )  # fmt: skip
        held.pending[order_id] = order
        if order.client_oid:
            held.client_oids[order.client_oid] = order_id
        self._report(order, now_ns)
        return order

    def _make_room(self, account: str, request: OrderRequest, now_ns: int) -> Decimal:
        """Cancel the oldest reduce-only orders that would close more than there is; return the size that is left.

        Bitget v2, close-size rules, one-way: if new + existing reduce-only > position, the oldest go first.
        """
        position = self._accounts[account].positions[request.symbol]
        size = min(request.size, abs(position.size))
        rivals = [
            o for o in self.pending(account) if o.symbol == request.symbol and o.reduce_only and o.side is request.side
        ]
        excess = size + sum((o.remaining for o in rivals), ZERO) - abs(position.size)
        for rival in rivals:
            if excess <= 0:
                break
            excess -= rival.remaining
            self._close(rival, OrderStatus.CANCELED, "normal_cancel", now_ns)
        return size

    def _match(self, order: Order, now_ns: int) -> None:
        taken = self._takeable(order)
        if order.kind is OrderKind.POST_ONLY and taken > 0:
            self._close(order, OrderStatus.CANCELED, "post_only_cancel", now_ns)
            return
        if order.kind is OrderKind.FOK and taken < order.remaining:
            self._close(order, OrderStatus.CANCELED, "fok_cancel", now_ns)
            return
        self._take(order, now_ns)
        if order.status.is_final:
            return
        if order.kind in (OrderKind.LIMIT, OrderKind.POST_ONLY):
            self._rest(order)
        else:
            self._close(order, OrderStatus.CANCELED, f"{order.kind.value}_cancel", now_ns)

    def _takeable(self, order: Order) -> Decimal:
        """Return how much an order would take at once, up to its size."""
        total = ZERO
        for price, size, _ in self._offers(order):
            if not _is_acceptable(order, price):
                break
            total += size
            if total >= order.remaining:
                return order.remaining
        return total

    def _offers(self, order: Order) -> list[tuple[Decimal, Decimal, Order | None]]:
        """Return what could be taken, best first: (price, size, resting order or None for the market's book)."""
        book = self._books.get(order.symbol)
        offers: list[tuple[Decimal, Decimal, Order | None]] = []
        if book is not None:
            offers = [(price, size, None) for price, size in book.opposite(order.side)]
        resting = self._resting.get(order.symbol)
        if resting:
            offers += [
                (o.price, o.remaining, o) for o in _by_priority(resting, order.side.opposite) if o.price is not None
            ]
            offers.sort(key=lambda offer: offer[0] * order.side.sign)  # stable: the market first at the same price
        return offers

    def _take(self, order: Order, now_ns: int) -> None:
        book = self._books.get(order.symbol)
        for price, offered, maker in self._offers(order):
            if order.status.is_final or not _is_acceptable(order, price):
                break
            if maker is not None and maker.account == order.account and order.stp != "none":
                if order.stp in ("cancel_maker", "cancel_both"):
                    self._close(maker, OrderStatus.CANCELED, "stp_cancel", now_ns)
                if order.stp in ("cancel_taker", "cancel_both"):
                    self._close(order, OrderStatus.CANCELED, "stp_cancel", now_ns)
                continue
            size = min(offered, self._fillable(order))
            if maker is not None:
                size = min(size, self._fillable(maker))
            if size <= 0:
                if maker is None:
                    break
                continue
            if maker is None:
                assert book is not None
                _consume(book.opposite(order.side), price, size)
            else:
                self._fill(maker, price, size, is_maker=True, now_ns=now_ns)
            self._fill(order, price, size, is_maker=False, now_ns=now_ns)
            if order.reduce_only and not order.status.is_final and self._fillable(order) <= 0:
                self._close(order, OrderStatus.CANCELED, "reduce_only_cancel", now_ns)

    def _rest(self, order: Order) -> None:
        book = self._books.get(order.symbol)
        if book is not None:
            order.queue_ahead = next((size for price, size in book.own(order.side) if price == order.price), ZERO)
        self._resting.setdefault(order.symbol, []).append(order)

    def _reach_resting(self, symbol: str, now_ns: int) -> None:
        book = self._books[symbol]
        for side in (Side.BUY, Side.SELL):
            for order in _by_priority(self._resting[symbol], side):
                assert order.price is not None
                own = book.own(side)
                at_price = next((size for price, size in own if price == order.price), ZERO)
                # What vanished from our level was ahead of us or behind us; the kinder half is not assumed: only
                # a level that has become smaller than our queue proves that we moved up.
                order.queue_ahead = min(order.queue_ahead, at_price)
                levels = book.opposite(side)
                while levels and not order.status.is_final and _is_acceptable(order, levels[0][0]):
                    price, offered = levels[0]
                    size = self._fill_resting(order, offered, now_ns)
                    if size <= 0:
                        break
                    _consume(levels, price, size)

    def _fill_resting(self, order: Order, offered: Decimal, now_ns: int) -> Decimal:
        """Fill a resting order as maker at its own price, up to `offered`; return how much."""
        size = min(offered, self._fillable(order))
        if size > 0:
            assert order.price is not None
            self._fill(order, order.price, size, is_maker=True, now_ns=now_ns)
        if not order.status.is_final and self._fillable(order) <= 0:
            self._close(order, OrderStatus.CANCELED, "reduce_only_cancel", now_ns)
        return max(size, ZERO)

    def _fillable(self, order: Order) -> Decimal:
        """Return how much of an order may still trade: a reduce-only one never more than the position."""
        if not order.reduce_only:
            return order.remaining
        position = self._accounts[order.account].positions.get(order.symbol)
        if position is None or position.size * order.side.sign > 0:
            return ZERO
        return min(order.remaining, abs(position.size))

    def _close(self, order: Order, status: OrderStatus, reason: str, now_ns: int) -> None:
        order.cancel_reason = reason
        self._finish(order, status, now_ns)
        self._report(order, now_ns)

    def _finish(self, order: Order, status: OrderStatus, now_ns: int) -> None:
        order.status, order.updated_ns = status, now_ns
        held = self._accounts[order.account]
        del held.pending[order.order_id]
        if held.client_oids.get(order.client_oid) == order.order_id:
            del held.client_oids[order.client_oid]
        held.closed[order.order_id] = order
        if order.client_oid:
            held.closed_oids[order.client_oid] = order.order_id
        while len(held.closed) > HISTORY_MAX:
            _, old = held.closed.popitem(last=False)
            if held.closed_oids.get(old.client_oid) == old.order_id:
                del held.closed_oids[old.client_oid]
        resting = self._resting.get(order.symbol)
        if resting:
            self._resting[order.symbol] = [other for other in resting if other is not order]

    def _report(self, order: Order, now_ns: int, fill: Fill | None = None) -> None:
        copy = msgspec.structs.replace(order)
        self._events.append(OrderReport(account=order.account, time_ns=now_ns, order=copy, fill=fill))

    # ---------------------------------------------------------------------------------------- cash

    def _fill(self, order: Order, price: Decimal, size: Decimal, *, is_maker: bool, now_ns: int) -> None:
        """Book one trade: position, realised profit, fee, order state, events."""
        held, contract = self._accounts[order.account], self.contracts[order.symbol]
        rate = contract.maker_fee if is_maker else contract.taker_fee
        exact_fee = price * size * rate
        fee = exact_fee.quantize(_FEE_STEP, rounding=ROUND_DOWN)
        realised = self._move_position(held, order, price, size, exact_fee, now_ns)
        held.realised += realised
        held.fees += fee
        held.balance += realised - fee
        order.filled += size
        order.quote += price * size
        order.fee_usdt += fee
        order.realised_usdt += realised
        order.updated_ns = now_ns
        fill = Fill(
            account=order.account, time_ns=now_ns, order_id=order.order_id, client_oid=order.client_oid,
            trade_id=self._id(now_ns), symbol=order.symbol, side=order.side, kind=order.kind, price=price, size=size,
            fee_usdt=fee, is_maker=is_maker, realised_usdt=realised,
        )  # fmt: skip
        held.fills.append(fill)
        self._bill(held, now_ns, order.side.value, order.symbol, realised, fee)
        if not self.has_price(order.symbol):
            self._books.setdefault(order.symbol, _Book((), ())).value_at(price)
        if order.remaining > 0:
            order.status = OrderStatus.PARTIALLY_FILLED
        else:
            self._finish(order, OrderStatus.FILLED, now_ns)
        self._events.append(fill)
        self._report(order, now_ns, fill)
        if order.symbol not in held.positions:
            self._drop_reducers(order.account, order.symbol, now_ns)

    def _move_position(
        self, held: _Account, order: Order, price: Decimal, size: Decimal, fee: Decimal, now_ns: int
    ) -> Decimal:
        """Apply a trade to the position and return the realised profit."""
        position = held.positions.get(order.symbol)
        signed, realised = size * order.side.sign, ZERO
        if position is not None and position.size * signed < 0:
            closing = min(size, abs(position.size))
            released = share_of(position.cost, closing, abs(position.size))
            realised = closing * price * (1 if position.size > 0 else -1) - released
            position.cost -= released
            position.size += closing * order.side.sign
            position.realised_usdt += realised
            position.fees_usdt += fee
            position.updated_ns = now_ns
            signed -= closing * order.side.sign
            if position.size == 0:
                del held.positions[order.symbol]
                self._holders[order.symbol].discard(order.account)
                position = None
        if signed:
            if position is None:
                position = VenuePosition(
                    symbol=order.symbol,
                    position_id=self._id(now_ns),
                    size=ZERO,
                    cost=ZERO,
                    opened_ns=now_ns,
                    updated_ns=now_ns,
                )
                held.positions[order.symbol] = position
                self._holders.setdefault(order.symbol, set()).add(order.account)
            position.size += signed
            position.cost += signed * price
            position.fees_usdt += fee
            position.updated_ns = now_ns
            position.stop_loss = order.stop_loss if order.stop_loss is not None else position.stop_loss
            position.take_profit = order.take_profit if order.take_profit is not None else position.take_profit
        return realised

    def _drop_reducers(self, account: str, symbol: str, now_ns: int) -> None:
        for order in self.pending(account):
            if order.symbol == symbol and order.reduce_only:
                self._close(order, OrderStatus.CANCELED, "reduce_only_cancel", now_ns)

    def _pay_funding(self, account: str, symbol: str, rate: Decimal, now_ns: int) -> None:
        held = self._accounts[account]
        position, mark = held.positions[symbol], self.mark(symbol)
        amount = (-position.size * mark * rate).quantize(_FEE_STEP, rounding=ROUND_DOWN)
        held.balance += amount
        held.funding += amount
        position.funding_usdt += amount
        position.is_funded = True
        bill = self._bill(held, now_ns, FUNDING_BILL, symbol, amount, ZERO)
        self._events.append(
            FundingReport(
                account=account,
                time_ns=now_ns,
                bill_id=bill.bill_id,
                symbol=symbol,
                amount_usdt=amount,
                rate=rate,
                mark=mark,
                size=position.size,
            )
        )

    def _bill(self, held: _Account, now_ns: int, kind: str, symbol: str, amount: Decimal, fee: Decimal) -> Bill:
        bill = Bill(
            time_ns=now_ns, bill_id=self._id(now_ns), kind=kind, symbol=symbol, amount_usdt=amount, fee_usdt=fee,
            balance_usdt=held.balance,
        )  # fmt: skip
        held.bills.append(bill)
        return bill

    # ---------------------------------------------------------------------------- the venue's own orders

    def _watch(self, symbol: str, now_ns: int) -> None:
        """Trigger stops, targets and liquidation after a new mark."""
        mark = self.mark(symbol)
        for account in sorted(self._holders[symbol]):
            position = self._accounts[account].positions.get(symbol)
            if position is None:
                continue  # the account before closed against this one's resting order
            is_long = position.size > 0
            if not self.is_stop_broken:
                hit = _reached(position.stop_loss, mark, is_long), _reached(position.take_profit, mark, not is_long)
                if any(hit):
                    self._close_position(account, symbol, "stop_loss" if hit[0] else "take_profit", now_ns)
            if self._accounts[account].positions and self.equity(account) <= self.maintenance(account):
                self._liquidate(account, now_ns)

    def maintenance(self, account: str) -> Decimal:
        """Return the margin below which everything is closed: notional x (maintenance rate + taker fee)."""
        total = ZERO
        for position in self._accounts[account].positions.values():
            contract = self.contracts[position.symbol]
            total += abs(position.size) * self.mark(position.symbol) * (maintenance_rate(contract) + contract.taker_fee)
        return total

    def _liquidate(self, account: str, now_ns: int) -> None:
        for order in self.pending(account):
            self._close(order, OrderStatus.CANCELED, "liquidation_cancel", now_ns)
        for symbol in list(self._accounts[account].positions):
            self._close_position(account, symbol, "liquidation", now_ns)
            position = self._accounts[account].positions.get(symbol)
            if position is not None:
                # The visible book was too thin: the venue takes the rest over at the mark.
                order = self._create(account, _closing(position), now_ns, "liquidation")
                self._fill(order, self.mark(symbol), order.remaining, is_maker=False, now_ns=now_ns)

    def _close_position(self, account: str, symbol: str, source: str, now_ns: int) -> None:
        """Close a position at market; what the visible book cannot take stays open and stays protected."""
        position = self._accounts[account].positions[symbol]
        order = self._create(account, _closing(position), now_ns, source)
        self._match(order, now_ns)

    def _id(self, now_ns: int) -> str:
        self._sequence += 1
        return str(((now_ns // 1_000_000 - SNOWFLAKE_EPOCH_MS) << 22) | (self._sequence & 0x3FFFFF))


_CLIENT_OID_ALPHABET = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-+_#:")
_ABSURD = Decimal("1e15")  # beyond it, Decimal's 28 digits would not hold price x size
_MODE_MESSAGE = "The order type for unilateral position must also be the unilateral position type."


def maintenance_rate(contract: Contract) -> Decimal:
    """Return the maintenance margin rate [1]; 0.6 / maximum leverage gives BTC's recorded 0.0040 at 150x."""
    return (Decimal("0.6") / contract.leverage_max).quantize(Decimal("0.0001"))


def _unknown(symbol: str) -> Refusal:
    return Refusal("40034", f"Parameter {symbol} does not exist")


def _size_refusal(contract: Contract, request: OrderRequest) -> Refusal | None:
    size = request.size
    if size <= 0:
        return Refusal("40020", "Parameter size error")
    refusal = _step_refusal(
        "size", size, contract.size_step, "22038", "Please enter the quantity as an integral multiple of {}"
    )
    if refusal is not None:
        return refusal
    if size < contract.size_min:
        return Refusal("45111", "less than the minimum order quantity")
    most = contract.size_max_market if request.kind is OrderKind.MARKET else contract.size_max_limit
    if most is not None and size > most:
        return Refusal("45112", "more than the maximum order quantity")
    return None


def _step_refusal(name: str, value: Decimal, step: Decimal, code: str, message: str) -> Refusal | None:
    if abs(value) >= _ABSURD:
        return Refusal("40020", f"Parameter {name} error")
    if value % step == 0:
        return None
    places = max(0, -int(step.normalize().as_tuple().exponent))
    if -int(value.normalize().as_tuple().exponent) > places:
        return Refusal(
            "40808", f"Parameter verification exception {name} checkBDScale error value={value} checkScale={places}"
        )
    return Refusal(code, message.format(f"{step.normalize():f}"))


def _is_acceptable(order: Order, price: Decimal) -> bool:
    return order.price is None or (price - order.price) * order.side.sign <= 0


def _reached(trigger: Decimal | None, mark: Decimal, is_below: bool) -> bool:
    return trigger is not None and (mark <= trigger if is_below else mark >= trigger)


def _closing(position: VenuePosition) -> OrderRequest:
    side = Side.SELL if position.size > 0 else Side.BUY
    return OrderRequest(
        symbol=position.symbol, side=side, kind=OrderKind.MARKET, size=abs(position.size), reduce_only=True
    )


def _by_priority(resting: list[Order], side: Side) -> list[Order]:
    """Return the resting orders of one side, best price first, the oldest first at the same price."""

    def price(order: Order) -> Decimal:
        assert order.price is not None
        return -order.price * side.sign

    key: Callable[[Order], Decimal] = price
    return sorted((order for order in resting if order.side is side), key=key)


def _consume(levels: list[list[Decimal]], price: Decimal, size: Decimal) -> None:
    for at, level in enumerate(levels):
        if level[0] == price:
            level[1] -= size
            if level[1] <= 0:
                del levels[at]
            return
    raise AssertionError((price, levels))


def _levels(rows: Levels) -> list[list[Decimal]]:
    plain = rows.tolist() if hasattr(rows, "tolist") else rows
    return [[_decimal(price), _decimal(size)] for price, size in plain if price == price and size > 0]


def _decimal(value: Any) -> Decimal:
    # repr gives the shortest decimal that means the same float: the digits that the exchange printed.
    if isinstance(value, Decimal):
        return value
    return Decimal(value) if isinstance(value, int | str) else Decimal(repr(float(value)))
