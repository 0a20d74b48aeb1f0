"""Accounts of a venue: what they hold, how they are set up, what they are worth and what is free.

The first of the layers that make up a venue (`Accounts` - `Clearing` - `Matching` - `Checks` - `Liquidation` -
`Venue`): each knows only those before it.

Money of an account, exactly: equity = deposits + realised - fees + funding + unrealised. What is set aside for isolated
positions is an earmark on the balance: equity includes it, `available` and `cross_equity` do not.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from decimal import Decimal, getcontext
from typing import TYPE_CHECKING, Any, cast, get_args

import msgspec

from shared.simulator.ids import snowflake
from shared.simulator.venue.levels import Book, Resting, decimal_of
from shared.simulator.venue.margin import margin_set_aside, notional_max, tier_at, tiers_of
from shared.simulator.venue.orders import (
    ZERO,
    Bill,
    ClosedPosition,
    Fill,
    MarginMode,
    Order,
    PositionSide,
    Refusal,
    VenueEvent,
    VenuePosition,
    VenueRules,
)
from shared.strategy.exact import exactly
from shared.types import Contract, Side, Tier

if TYPE_CHECKING:
    from shared.simulator.venue.plans import Plans


class Leverages(msgspec.Struct):
    """Bitget keeps one leverage for crossed margin and one a side for isolated margin, side by side."""

    crossed: int
    long: int
    short: int


class Worth:
    """What a position is worth, for as long as its size and its mark are these very objects.

    An account is looked at with every order and every mark, and most of its positions have not changed since.
    """

    __slots__ = ("gain", "leverage", "margin", "mark", "required", "size", "value")

    def __init__(self, position: VenuePosition, mark: Decimal) -> None:
        self.size, self.mark = position.size, mark  # a trade makes another size, and with it another cost
        self.value = position.size * mark
        self.gain = self.value - position.cost
        self.required: Decimal | None = None  # maintenance margin, None: nobody has asked
        self.margin, self.leverage = ZERO, 0  # initial margin at a leverage, 0: nobody has asked


class Risk(msgspec.Struct, frozen=True):
    """What an account's crossed positions are worth, until a mark, a position or the balance moves."""

    equity: Decimal
    required: Decimal  # maintenance margin
    free: Decimal  # equity less the initial margin of positions


class Account:
    """The state of one account; whoever changes it keeps the parts that say the same in step."""

    def __init__(self, deposit_usdt: Decimal, history_max: int) -> None:
        self.deposit = self.balance = deposit_usdt
        self.realised = self.fees = self.funding = ZERO
        self.positions: dict[tuple[str, PositionSide], VenuePosition] = {}
        self.pending: dict[str, Order] = {}  # order_id -> order, oldest first
        self.pending_of: dict[str, dict[str, Order]] = {}  # the same by symbol; no empty ones
        self.client_oids: dict[str, str] = {}  # of pending orders only, as at Bitget -> order_id
        self.closed: OrderedDict[str, Order] = OrderedDict()
        self.closed_oids: dict[str, str] = {}
        self.fills: deque[Fill] = deque(maxlen=history_max)
        self.bills: deque[Bill] = deque(maxlen=history_max)
        self.closed_positions: deque[ClosedPosition] = deque(maxlen=history_max)
        self.leverages: dict[str, Leverages] = {}
        self.margin_modes: dict[str, MarginMode] = {}
        self.position_mode = "one_way_mode"
        self.worths: dict[tuple[str, PositionSide], Worth] = {}  # of positions as they were last looked at
        self.order_margins: dict[str, list[Decimal]] = {}  # by symbol, of its orders as they were last looked at
        self.kept_prec = 0  # digits of the context that these were computed in
        self.risk: Risk | None = None  # None: something has moved since it was last looked at
        self.traded: dict[int, Decimal] = {}  # UTC day since the epoch -> notional, USDT; where fees go by volume

    @property
    def is_hedged(self) -> bool:
        return self.position_mode == "hedge_mode"

    def of_symbol(self, symbol: str) -> list[VenuePosition]:
        """Return the positions of one symbol: one in one-way mode, up to two in hedge mode."""
        sides: tuple[PositionSide, ...] = ("long", "short") if self.is_hedged else ("net",)
        return [held for side in sides if (held := self.positions.get((symbol, side))) is not None]


class Accounts:
    """Accounts, contracts and prices, and every question about them."""

    plans: Plans

    def __init__(self, contracts: Iterable[Contract], rules: VenueRules) -> None:
        self.contracts = {contract.symbol: contract for contract in contracts}
        self.rules = rules
        self._accounts: dict[str, Account] = {}
        self._books: dict[str, Book] = {}
        self._marks: dict[str, Any] = {}
        self._rates: dict[str, Any] = {}
        self._indices: dict[str, Any] = {}
        self._last: dict[str, Any] = {}  # price of the last trade, public or of an account
        self._tiers: dict[str, tuple[Tier, ...]] = {}  # where set; else they follow from the contract
        self._resting: dict[str, Resting] = {}
        self._holders: dict[str, set[str]] = {}
        self._events: list[VenueEvent] = []
        self._sequence = 0

    def emit(self, event: VenueEvent) -> None:
        """Add to what happened."""
        self._events.append(event)

    def new_id(self, now_ns: int) -> str:
        """Return a snowflake of the venue's sequence."""
        self._sequence += 1
        return str(snowflake(now_ns // 1_000_000, self._sequence))

    # ------------------------------------------------------------------------------------ accounts

    def open_account(self, account: str, deposit_usdt: Decimal) -> None:
        assert account not in self._accounts, account
        self._accounts[account] = Account(deposit_usdt, self.rules.history_max)

    @property
    def accounts(self) -> tuple[str, ...]:
        return tuple(self._accounts)

    def deposit(self, account: str, amount_usdt: Decimal) -> None:
        """Add money; a negative amount withdraws it."""
        held = self._accounts[account]
        held.deposit += amount_usdt
        held.balance += amount_usdt
        held.risk = None

    def note_traded(self, account: str, day: int, notional_usdt: Decimal) -> None:
        """Count what an account has traded on a UTC day, here or before it came here: fees may depend on it."""
        traded = self._accounts[account].traded
        traded[day] = traded.get(day, ZERO) + notional_usdt

    # ------------------------------------------------------------------------------------ settings

    def set_contract(self, contract: Contract) -> None:
        """Replace the trading rules of a symbol, or list a new one; working orders keep the rules they came under."""
        self.contracts[contract.symbol] = contract
        self._forget_worths()

    def set_tiers(self, symbol: str, tiers: tuple[Tier, ...]) -> None:
        """Set the risk ladder of a symbol, the smallest notional first."""
        self._tiers[symbol] = tiers
        self._forget_worths()

    def _forget_worths(self) -> None:
        for held in self._accounts.values():
            held.worths.clear()
            held.risk = None

    def _moved(self, symbol: str) -> None:
        """Note that a symbol has another value now."""
        for account in self._holders.get(symbol, ()):
            self._accounts[account].risk = None

    def tiers(self, symbol: str) -> tuple[Tier, ...]:
        """Return the risk ladder of a symbol, the smallest notional first."""
        return self._tiers.get(symbol) or tiers_of(self.contracts[symbol])

    def set_leverage(self, account: str, symbol: str, leverage: int, hold_side: str | None = None) -> int | Refusal:
        """Set the leverage of a symbol in its margin mode and return the obtained one.

        The margin of isolated positions follows; working orders keep theirs.

        Args:
            hold_side: "long" or "short" of an isolated symbol in hedge mode; None: both.
        """
        contract = self.contracts.get(symbol)
        if contract is None:
            return unknown(symbol)
        if not contract.leverage_min <= leverage <= contract.leverage_max:
            return Refusal("40797", f"Exceeded the maximum settable leverage {contract.leverage_max}")
        held, mode = self._accounts[account], self.margin_mode(account, symbol)
        before = held.leverages.get(symbol) or self._leverages(symbol)
        after = msgspec.structs.replace(before)
        if mode == "crossed":
            after.crossed = leverage
        else:
            after.long = leverage if hold_side != "short" or not held.is_hedged else before.long
            after.short = leverage if hold_side != "long" or not held.is_hedged else before.short
        mine = held.of_symbol(symbol)
        for position in mine:
            if abs(position.size) * self.mark(symbol) > notional_max(self.tiers(symbol), leverage) and (
                hold_side in (None, position.hold_side)
            ):
                most = tier_at(self.tiers(symbol), abs(position.size) * self.mark(symbol)).leverage_max
                return Refusal("40797", f"Exceeded the maximum settable leverage {most}")
        margins, free = [position.margin_usdt for position in mine], self.available(account)
        for position in mine if mode == "isolated" else ():
            new, old = getattr(after, position.hold_side), getattr(before, position.hold_side)
            cost = abs(position.cost)
            position.margin_usdt += margin_set_aside(cost, Decimal(1), new) - margin_set_aside(cost, Decimal(1), old)
        held.leverages[symbol] = after
        held.risk = None
        is_too_much = self.available(account) < min(ZERO, free)
        if is_too_much or any(self._is_isolated_lost(position) for position in mine):
            held.leverages[symbol] = before
            for position, margin in zip(mine, margins, strict=True):
                position.margin_usdt = margin
            held.risk = None
            return Refusal("40754", "balance not enough")
        return leverage

    def leverage(self, account: str, symbol: str, hold_side: str = "long", mode: MarginMode | None = None) -> int:
        """Return the leverage of a symbol in a margin mode; None: the one it is set to."""
        return self._leverage(self._accounts[account], symbol, hold_side, mode)

    def _leverage(self, held: Account, symbol: str, hold_side: str = "long", mode: MarginMode | None = None) -> int:
        found = held.leverages.get(symbol)
        if found is None:
            return min(self.rules.leverage_default, self.contracts[symbol].leverage_max)
        if (mode or held.margin_modes.get(symbol, "crossed")) == "crossed":
            return found.crossed
        return found.short if hold_side == "short" else found.long

    def _leverages(self, symbol: str) -> Leverages:
        usual = min(self.rules.leverage_default, self.contracts[symbol].leverage_max)
        return Leverages(usual, usual, usual)

    def set_margin_mode(self, account: str, symbol: str, mode: str) -> Refusal | None:
        """Set "crossed" or "isolated"; None means done."""
        assert mode in get_args(MarginMode), mode
        if symbol not in self.contracts:
            return unknown(symbol)
        if mode != self.margin_mode(account, symbol):
            if self._is_in_use(account, symbol):
                return Refusal("45117", "Currently holding positions or orders, the margin mode cannot be adjusted")
            self._accounts[account].margin_modes[symbol] = cast(MarginMode, mode)
        return None

    def margin_mode(self, account: str, symbol: str) -> MarginMode:
        return self._accounts[account].margin_modes.get(symbol, "crossed")

    def set_position_mode(self, account: str, mode: str) -> Refusal | None:
        """Set "one_way_mode" or "hedge_mode"; None means done."""
        held = self._accounts[account]
        if mode != held.position_mode:
            if held.positions or held.pending or self.plans.pending_count(account):
                return Refusal("40920", "Position or order exists, the position mode cannot be switched")
            held.position_mode = mode
        return None

    def position_mode(self, account: str) -> str:
        return self._accounts[account].position_mode

    def _is_in_use(self, account: str, symbol: str) -> bool:
        held = self._accounts[account]
        return bool(held.of_symbol(symbol) or symbol in held.pending_of or self.plans.pending_count(account, symbol))

    # ----------------------------------------------------------------------------------- questions

    def balance(self, account: str) -> Decimal:
        """Return deposits + realised - fees + funding."""
        return self._accounts[account].balance

    def totals(self, account: str) -> tuple[Decimal, Decimal, Decimal, Decimal]:
        """Return (deposits, realised, fees, funding) since the account was opened."""
        held = self._accounts[account]
        return held.deposit, held.realised, held.fees, held.funding

    def unrealised(self, account: str, symbol: str | None = None) -> Decimal:
        """Return sum of size x mark - cost, of one symbol or of all."""
        total = ZERO
        for position, worth in self._worths(self._accounts[account]):
            if symbol is None or position.symbol == symbol:
                total += worth.gain
        return total

    def equity(self, account: str) -> Decimal:
        return self.balance(account) + self.unrealised(account)

    def isolated_margin(self, account: str) -> Decimal:
        """Return what is set aside for isolated positions."""
        return sum((position.margin_usdt for position in self._accounts[account].positions.values()), ZERO)

    def cross_equity(self, account: str) -> Decimal:
        """Return the equity without isolated positions: their margin and their profit are their own."""
        return self._risk(self._accounts[account]).equity

    def maintenance(self, account: str) -> Decimal:
        """Return the equity at which crossed positions are liquidated: notional x (maintenance rate + taker fee).

        Of the two sides of a hedge the larger one counts (recorded).
        """
        return self._risk(self._accounts[account]).required

    def _risk(self, held: Account) -> Risk:
        """Return what is crossed, looking at every position once."""
        self._keep_digits(held)
        if held.risk is not None:
            return held.risk
        equity, required = held.balance, ZERO
        margins: list[Decimal] = []
        for position, worth in self._worths(held):
            if position.margin_mode == "isolated":
                equity -= position.margin_usdt
                continue
            equity += worth.gain
            leverage = self._leverage(held, position.symbol)
            if worth.leverage != leverage:
                worth.leverage, worth.margin = leverage, abs(worth.size) * worth.mark / leverage
            margins.append(worth.margin)
            side = position.position_side
            if side != "net":
                other = held.positions.get((position.symbol, "short" if side == "long" else "long"))
                if other is not None and (abs(other.size), other.hold_side) > (abs(position.size), side):
                    continue
            if worth.required is None:
                worth.required = self._maintenance(position.symbol, abs(worth.value))
            required += worth.required
        free = equity
        for margin in margins:
            free -= margin
        held.risk = Risk(equity, required, free)
        return held.risk

    def _worths(self, held: Account) -> list[tuple[VenuePosition, Worth]]:
        """Return every position with what it is worth now."""
        self._keep_digits(held)
        kept, marks, worths = held.worths, self._marks, []
        for key, position in held.positions.items():
            found = kept.get(key)
            if found is None or found.mark is not marks.get(key[0]) or found.size is not position.size:
                found = kept[key] = Worth(position, self.mark(key[0]))
            worths.append((position, found))
        return worths

    def _keep_digits(self, held: Account) -> None:
        """Forget what was computed in another number of digits than the context has now."""
        prec = getcontext().prec
        if held.kept_prec != prec:
            held.worths.clear()
            held.order_margins.clear()
            held.risk = None
            held.kept_prec = prec

    def _maintenance(self, symbol: str, notional_usdt: Decimal) -> Decimal:
        return notional_usdt * (self._maintenance_rate(symbol, notional_usdt) + self.contracts[symbol].taker_fee)

    def _maintenance_rate(self, symbol: str, notional_usdt: Decimal) -> Decimal:
        tiers = self._tiers.get(symbol) or tiers_of(self.contracts[symbol])
        first = tiers[0]
        return (first if notional_usdt <= first.end_usdt else tier_at(tiers, notional_usdt)).maintenance_rate

    def _is_isolated_lost(self, position: VenuePosition) -> bool:
        """Tell whether an isolated position has fallen to its own maintenance margin; a closed one has not."""
        if position.margin_mode != "isolated" or not position.size:
            return False
        value = position.size * self.mark(position.symbol)
        return position.margin_usdt + value - position.cost <= self._maintenance(position.symbol, abs(value))

    def maintenance_rate(self, account: str, position: VenuePosition) -> Decimal:
        """Return the maintenance rate [1] of a position's step of the ladder; of a crossed hedge, the larger side's."""
        size, held = abs(position.size), self._accounts[account]
        if position.margin_mode == "crossed":
            size = max((abs(other.size) for other in held.of_symbol(position.symbol)), default=size)
        return self._maintenance_rate(position.symbol, size * self.mark(position.symbol))

    @exactly
    def margin_ratio(self, account: str, position: VenuePosition) -> Decimal:
        """Return maintenance margin / equity behind a position, of its symbol alone: liquidation at 1 [1].

        mark x max(L, S) x (maintenance rate + taker fee) / equity (Bitget v2, recorded).
        """
        held, mark = self._accounts[account], self.mark(position.symbol)
        size, behind = abs(position.size), position.margin_usdt + position.size * mark - position.cost
        if position.margin_mode == "crossed":
            size = max((abs(other.size) for other in held.of_symbol(position.symbol)), default=size)
            behind = self._risk(held).equity
        return self._maintenance(position.symbol, size * mark) / behind if behind > 0 else Decimal(1)

    @exactly
    def liquidation_price(self, account: str, position: VenuePosition) -> Decimal | None:
        """Return the mark at which a position is liquidated, all other marks as they are, as the formula gives it.

        Crossed: (E - M - (L - S) mark) / (max(L, S) (mmr + fee) - (L - S)) with the equity E and the maintenance
        margin M of other symbols; isolated: (cost - margin) / (q - |q| (mmr + fee)) with the signed size q. May be
        negative or absurdly large, as at Bitget; <= 0 means none. None where the formula has no answer.
        """
        held, symbol, mark = self._accounts[account], position.symbol, self.mark(position.symbol)
        if position.margin_mode == "isolated":
            size = abs(position.size)
            rate = self._maintenance_rate(symbol, size * mark) + self.contracts[symbol].taker_fee
            distance = position.size - size * rate
            return (position.cost - position.margin_usdt) / distance if distance else None
        mine = held.of_symbol(symbol) or [position]  # one that is shown late may be no more
        net, size = sum((one.size for one in mine), ZERO), max(abs(one.size) for one in mine)
        rate = self._maintenance_rate(symbol, size * mark) + self.contracts[symbol].taker_fee
        risk = self._risk(held)
        others = risk.required - size * mark * rate
        distance = size * rate - net
        return (risk.equity - others - net * mark) / distance if distance else None

    def margin_used(self, account: str) -> Decimal:
        """Return the margin of positions, isolated ones included, and of pending orders as far as they could open."""
        held, used = self._accounts[account], ZERO
        for (symbol, _), position in held.positions.items():
            if position.margin_mode == "isolated":
                used += position.margin_usdt
            else:
                used += abs(position.size) * self.mark(symbol) / self.leverage(account, symbol)
        return used + self.order_margin(account)

    def order_margin(self, account: str, without: Order | None = None) -> Decimal:
        """Return the margin that pending orders hold: of what they would open, after what they would close first.

        Args:
            without: an order that is not counted (it is about to be replaced).
        """
        held, used = self._accounts[account], ZERO
        self._keep_digits(held)
        for symbol in held.pending_of:
            if without is not None and without.symbol == symbol:
                margins = _order_margins(held, symbol, without)
            else:
                known = held.order_margins.get(symbol)
                margins = known if known is not None else _order_margins(held, symbol)
                held.order_margins[symbol] = margins
            for margin in margins:
                used += margin
        return used

    def available(self, account: str, without: Order | None = None) -> Decimal:
        """Return what new orders may use: crossed equity less the margin of crossed positions and of orders."""
        return self._risk(self._accounts[account]).free - self.order_margin(account, without)

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
            mark = self._marks[symbol] = decimal_of(mark)
        return mark

    def has_mark(self, symbol: str) -> bool:
        return symbol in self._marks

    def has_price(self, symbol: str) -> bool:
        if symbol in self._marks:
            return True
        book = self._books.get(symbol)
        return book is not None and book.middle() is not None

    def has_last(self, symbol: str) -> bool:
        return symbol in self._last

    def last_price(self, symbol: str) -> Decimal | None:
        """Return the price of the last trade, public or of an account; None before the first."""
        last = self._last.get(symbol)
        return None if last is None else decimal_of(last)

    def positions(self, account: str) -> list[VenuePosition]:
        """Return the open positions; in hedge mode a symbol may have two."""
        return list(self._accounts[account].positions.values())

    def position(self, account: str, symbol: str, position_side: PositionSide = "net") -> VenuePosition | None:
        """Return a position, None where flat; "net" exactly in one-way mode."""
        return self._accounts[account].positions.get((symbol, position_side))

    def closed_positions(self, account: str) -> list[ClosedPosition]:
        """Return the remembered closed positions, oldest first."""
        return list(self._accounts[account].closed_positions)

    def order(self, account: str, *, order_id: str | None = None, client_oid: str | None = None) -> Order | None:
        """Return an order, pending or final (the newest with that client_oid), or None."""
        held = self._accounts[account]
        if not order_id:
            order_id = held.client_oids.get(client_oid or "") or held.closed_oids.get(client_oid or "")
        return held.pending.get(order_id or "") or held.closed.get(order_id or "")

    def pending(self, account: str, symbol: str | None = None) -> list[Order]:
        """Return the working orders, of one symbol or of all, oldest first."""
        held = self._accounts[account]
        return list((held.pending if symbol is None else held.pending_of.get(symbol, {})).values())

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
        """Return the remembered movements of the wallet by trading, funding and margin, oldest first."""
        return list(self._accounts[account].bills)


def _order_margins(held: Account, symbol: str, without: Order | None = None) -> list[Decimal]:
    """Return the margin that each pending order of a symbol holds, where it holds some."""
    net = held.positions.get((symbol, "net"))
    covered = ZERO if net is None else abs(net.size)
    margins: list[Decimal] = []
    for order in held.pending_of[symbol].values():
        if order.reduce_only or order is without:
            continue
        opening = order.remaining
        if covered and net is not None and (net.size > 0) is not (order.side is Side.BUY):
            closing = min(opening, covered)
            covered -= closing
            opening -= closing
        if opening:
            margins.append(opening * order.cost_price / order.leverage)
    return margins


def unknown(symbol: str) -> Refusal:
    """Return the answer for a symbol that was never listed."""
    return Refusal("40034", f"Parameter {symbol} does not exist")
