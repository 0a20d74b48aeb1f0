"""A venue without a socket: accounts, positions, matching and cash, in Decimal.

The market's book comes in from outside (`set_book`, `set_mark`, `trade`); orders come in through `place`; what happened
goes out through `drain`. The server puts Bitget's protocol in front of it, the backtester drives it directly. Nothing
here reads a clock: every call carries `now_ns`.

What is modelled, layer by layer
  * `accounts`: one-way and hedge mode, crossed and isolated margin, leverage a symbol (and a side), risk ladders.
  * `clearing`: fee = price x size x rate, cut to 8 decimals (Bitget v2, measured); funding = -size x mark x rate at
    each symbol's interval on the UTC grid, into an isolated position's own margin.
  * `matching`: price-time priority of the market's book and the orders of all accounts; market, limit, IOC, FOK,
    post-only, reduce-only, self-trade prevention.
  * `checks`: every violation gets its code.
  * `liquidation`: down the risk ladder, then to the insurance fund at the bankruptcy price.
  * `plans`: stops, targets, triggers and trailing orders.
What is not: market impact beyond the visible book, hidden orders, auto-deleveraging of winners, union (multi-asset)
margin, latency (the server adds it).

The invariant, exactly, after every event: equity = deposits + realised - fees + funding + unrealised.

To extend: a new kind of order is a case in `matching._match`; a new rule is a line in `checks._checked`.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from shared.simulator.venue.accounts import unknown
from shared.simulator.venue.checks import ABSURD
from shared.simulator.venue.levels import Levels
from shared.simulator.venue.liquidation import Liquidation, closing_request
from shared.simulator.venue.margin import FEE_STEP, maintenance_rate
from shared.simulator.venue.orders import (
    ZERO,
    Accepted,
    Order,
    OrderRequest,
    Refusal,
    VenueEvent,
    VenuePosition,
    VenueRules,
)
from shared.simulator.venue.plans import Plans
from shared.types import Contract, OrderKind, OrderStatus, Side

__all__ = ["Venue", "maintenance_rate"]

_CHANGEABLE = (OrderKind.LIMIT, OrderKind.POST_ONLY)


class Venue(Liquidation):
    """Accounts, orders and positions against books that come from outside.

    Args:
        contracts: the trading rules; an order of any other symbol is refused with 40034.
        rules: what else the venue allows; None: what Bitget does.
    """

    def __init__(self, contracts: Iterable[Contract], rules: VenueRules | None = None) -> None:
        super().__init__(contracts, rules if rules is not None else VenueRules())
        self.plans = Plans(self)

    @property
    def is_stop_broken(self) -> bool:
        """Stops that never trigger: one of the misbehaviours."""
        return self.plans.is_broken

    @is_stop_broken.setter
    def is_stop_broken(self, is_broken: bool) -> None:
        self.plans.is_broken = is_broken

    def drain(self) -> list[VenueEvent]:
        """Return what happened since the last call, in order: per order live, then each fill with its report."""
        events, self._events = self._events, []
        return events

    # -------------------------------------------------------------------------------------- market

    def set_book(self, symbol: str, bids: Levels, asks: Levels, now_ns: int) -> None:
        """Replace the market's book of one symbol; resting orders that it reaches are filled.

        Args:
            bids, asks: rows (price, size), best first. Kept by reference until the next call: do not write to them.
                Rows with a NaN price or no size are absent levels.
        """
        self._show_book(symbol, bids, asks)
        if self._resting.get(symbol):
            self._reach_resting(symbol, now_ns)
            self._follow(symbol, now_ns)

    def show_book(self, symbol: str, bids: Levels, asks: Levels) -> None:
        """Replace the market's book as `set_book` does, and fill nothing that rests: `fill_resting` does.

        For a caller that keeps the queues of resting orders itself (the exact tier of the backtest).
        """
        self._show_book(symbol, bids, asks)

    def fill_resting(self, account: str, order_id: str, size: Decimal, now_ns: int) -> Decimal:
        """Fill a resting order as maker at its own price, up to `size`; return how much that was."""
        order = self._accounts[account].pending.get(order_id)
        if order is None:
            return ZERO
        filled = self._fill_resting(order, size, now_ns)
        self._follow(order.symbol, now_ns)
        return filled

    def set_mark(self, symbol: str, mark: Any, index: Any, funding_rate: Any, now_ns: int) -> None:
        """Set the mark (and index and running funding rate); stops, then liquidation, follow from it.

        Args:
            mark, index, funding_rate: floats or Decimals; NaN where unknown (a NaN mark leaves the last one).
        """
        self._remember_mark(symbol, mark, index, funding_rate)
        if symbol in self.plans.symbols():
            self.plans.watch(symbol, now_ns, "mark_price")
        if self._holders.get(symbol):
            self._watch(symbol, now_ns)
            self._follow(symbol, now_ns)

    def set_marks(self, marks: Iterable[tuple[str, Any, Any, Any]], now_ns: int) -> None:
        """Set (symbol, mark, index, funding rate) of several symbols as of one instant.

        As `set_mark` for each of them, but that no account is liquidated between two marks of the same instant: stops
        follow symbol by symbol, then each account is looked at once. So it costs positions, not their square.
        """
        symbols = []
        for symbol, mark, index, funding_rate in marks:
            symbols.append(symbol)
            self._remember_mark(symbol, mark, index, funding_rate)
        planned = self.plans.symbols()
        for symbol in symbols:
            if symbol in planned:
                self.plans.watch(symbol, now_ns, "mark_price")
        if self._watch_all(symbols, now_ns):
            for symbol in symbols:
                self._follow(symbol, now_ns)

    def _remember_mark(self, symbol: str, mark: Any, index: Any, funding_rate: Any) -> None:
        """Take what is known; NaN leaves the last one."""
        if mark == mark:
            self._marks[symbol] = mark
            self._moved(symbol)
        if index == index:
            self._indices[symbol] = index
        if funding_rate == funding_rate:
            self._rates[symbol] = funding_rate

    def trade(self, symbol: str, price: Any, size: Any, taker_side: Side, now_ns: int) -> None:
        """Tell of a public trade: it fills resting orders at a worse price, and at its price after those ahead."""
        self._last[symbol] = price
        if symbol in self.plans.symbols():
            self.plans.look(symbol, "fill_price")  # before fills of resting orders make another last price
        if self._resting.get(symbol):
            self._pass_trade(symbol, price, size, taker_side, now_ns)
        if self.plans.symbols():
            self.plans.watch(symbol, now_ns, "fill_price")

    def set_last(self, symbol: str, price: Any) -> None:
        """Set the price of the last public trade where trades are not told one by one: nothing trades at it here."""
        self._last[symbol] = price

    def _follow(self, symbol: str, now_ns: int) -> None:
        """Let plans follow what fills have changed; here no order is half matched."""
        if self.plans.symbols():
            self.plans.watch(symbol, now_ns, "fill_price")

    def delist(self, symbol: str, now_ns: int) -> None:
        """End a symbol: cancel its orders and plans, and settle its positions at the last mark, for the taker's fee.

        Bitget settles at an average of the index (its announcements of delistings); ours is one price, and all of a
        position goes, however thin the last book was. Who is lost at that mark is liquidated first, so that the fund
        bears what a settlement could not collect.
        """
        if self._holders.get(symbol):
            self._watch(symbol, now_ns)
        for account, held in self._accounts.items():
            for order in list(held.pending_of.get(symbol, {}).values()):
                self._close(order, OrderStatus.CANCELED, "delivery_cancel", now_ns)
            for plan in self.plans.pending(account, symbol):
                self.plans.cancel(account, now_ns, order_id=plan.order_id)
            for position in held.of_symbol(symbol):
                request = closing_request(position, abs(position.size))
                order = self._create(account, request, now_ns, "delivery")
                self._fill(order, self.mark(symbol), order.remaining, is_maker=False, now_ns=now_ns, is_public=False)

    # -------------------------------------------------------------------------------------- orders

    def place(self, account: str, request: OrderRequest, now_ns: int) -> Accepted | Refusal:
        """Accept an order and match it at once; `accept` and `match` do it in two steps."""
        answer = self.accept(account, request, now_ns)
        if isinstance(answer, Accepted):
            self.match(account, answer.order_id, now_ns)
        return answer

    def accept(self, account: str, request: OrderRequest, now_ns: int) -> Accepted | Refusal:
        """Check an order and make it live without matching it. A refusal changes nothing."""
        order = self._accept(account, request, now_ns, "api")
        return order if isinstance(order, Refusal) else Accepted(order.order_id, order.client_oid)

    def _accept(self, account: str, request: OrderRequest, now_ns: int, source: str) -> Order | Refusal:
        cost_price = self._checked(account, request, source)
        if isinstance(cost_price, Refusal):
            return cost_price
        return self._create(account, request, now_ns, source, cost_price)

    def accept_triggered(self, account: str, request: OrderRequest, now_ns: int, source: str) -> Order | Refusal:
        """Accept and match an order that a plan sends; return it, working or final."""
        order = self._accept(account, request, now_ns, source)
        if isinstance(order, Order):
            self._match(order, now_ns)
        return order

    def match(self, account: str, order_id: str, now_ns: int) -> None:
        """Match an accepted order; nothing happens if it has been cancelled meanwhile."""
        order = self._accounts[account].pending.get(order_id)
        if order is not None:
            self._match(order, now_ns)
            self._follow(order.symbol, now_ns)

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
        """Change a live limit order; a refusal leaves it as it was.

        Another size or price (both are needed) is a cancel and a new order at the end of the queue; other presets keep
        the order, and a preset of 0 removes it.

        Args:
            matches: False leaves the new order to `match`, as `accept` does.
        """
        if not order_id and not client_oid:
            return Refusal("40924", "orderId or clientOid must have one")
        found = self.order(account, order_id=order_id, client_oid=client_oid)
        if found is None or found.symbol != symbol:
            return Refusal("40768", "Order does not exist")
        if found.status is not OrderStatus.LIVE or found.kind not in _CHANGEABLE:
            return Refusal("40922", "Only work orders can be modified")
        if (new_size is None) is not (new_price is None):
            return Refusal("40925", "The price and size must be passed in together")
        stop_loss = _preset(found.stop_loss, new_stop_loss)
        take_profit = _preset(found.take_profit, new_take_profit)
        is_same = (new_size is None or new_size == found.size) and (new_price is None or new_price == found.price)
        if is_same and (stop_loss, take_profit) == (found.stop_loss, found.take_profit):
            return Refusal("40923", "Order size and price have not changed")
        if not is_same and not new_client_oid:
            return Refusal("22003", "modify price and size, please pass in newClientOid")
        request = OrderRequest(
            symbol=symbol, side=found.side, kind=found.kind, size=found.size if new_size is None else new_size,
            price=found.price if new_price is None else new_price,
            reduce_only=found.reduce_only and found.position_side == "net",
            client_oid="" if is_same else new_client_oid, stop_loss=stop_loss, take_profit=take_profit,
            stop_loss_execute=found.stop_loss_execute, take_profit_execute=found.take_profit_execute,
            stop_loss_type=found.stop_loss_type, take_profit_type=found.take_profit_type,
            stp=found.stp, position_side=found.position_side, margin_mode=found.margin_mode,
        )  # fmt: skip
        if is_same:
            refusal = self._preset_refusal(self.contracts[symbol], request)
            if refusal is not None:
                return refusal
            found.stop_loss, found.take_profit, found.updated_ns = stop_loss, take_profit, now_ns
            self._report(found, now_ns)
            return Accepted(found.order_id, found.client_oid)
        cost_price = self._checked(account, request, without=found)
        if isinstance(cost_price, Refusal):
            return cost_price
        self._close(found, OrderStatus.CANCELED, "normal_cancel", now_ns)
        order = self._create(account, request, now_ns, "api", cost_price)
        if matches:
            self.match(account, order.order_id, now_ns)
        return Accepted(order.order_id, order.client_oid)

    def close_at_market(
        self,
        account: str,
        now_ns: int,
        symbol: str | None = None,
        hold_side: str | None = None,
        *,
        matches: bool = True,
    ) -> tuple[list[Accepted], list[tuple[str, Refusal]]]:
        """Flash close: cancel what already closes and send a market order against each position.

        Args:
            symbol, hold_side: whose positions; None: all.
            matches: False leaves the orders to `match`.

        Returns: (acks, (symbol, refusal) where it failed). Nothing to close in a named symbol is a refusal, too.
        """
        done: list[Accepted] = []
        failed: list[tuple[str, Refusal]] = []
        for position in self.positions(account):
            if symbol not in (None, position.symbol) or hold_side not in (None, position.hold_side):
                continue
            if not position.size:
                continue  # the one before has closed against what was waiting to close this one
            answer = self._close_whole(account, position, now_ns, matches=matches)
            if isinstance(answer, Accepted):
                done.append(answer)
            else:
                failed.append((position.symbol, answer))
        if symbol is not None and not done and not failed:
            no = Refusal("22002", "No position to close") if symbol in self.contracts else unknown(symbol)
            failed.append((symbol, no))
        return done, failed

    def _close_whole(self, account: str, position: VenuePosition, now_ns: int, *, matches: bool) -> Accepted | Refusal:
        request = closing_request(position, abs(position.size))
        refusal = self._checked(account, request, "flash")
        if isinstance(refusal, Refusal):
            return refusal
        for order in list(self._accounts[account].pending_of.get(position.symbol, {}).values()):
            if order.reduce_only and order.position_side == position.position_side:
                self._close(order, OrderStatus.CANCELED, "normal_cancel", now_ns)
        closing = self._create(account, request, now_ns, "api")
        if matches:
            self.match(account, closing.order_id, now_ns)
        return Accepted(closing.order_id, closing.client_oid)

    def reverse(
        self,
        account: str,
        symbol: str,
        now_ns: int,
        *,
        size: Decimal | None = None,
        hold_side: str | None = None,
        client_oid: str = "",
        matches: bool = True,
    ) -> Accepted | Refusal:
        """Close a position at market and open the opposite one (Bitget: click-backhand).

        One market order in one-way mode; in hedge mode one that closes, matched at once, and the answer's, which opens.

        Args:
            size: of the new position; None: of the old one.
            hold_side: of the old one; None where there is one only.
            matches: False leaves the answer's order to `match`.
        """
        if symbol not in self.contracts:
            return unknown(symbol)
        held = self._accounts[account]
        found = [one for one in held.of_symbol(symbol) if hold_side in (None, one.hold_side)]
        if len(found) != 1:
            return Refusal("22002", "No position to close")
        position = found[0]
        wanted, side = abs(position.size) if size is None else size, Side.SELL if position.size > 0 else Side.BUY
        request = OrderRequest(
            symbol=symbol, side=side, kind=OrderKind.MARKET, size=wanted, client_oid=client_oid,
            margin_mode=position.margin_mode,
        )  # fmt: skip
        if held.is_hedged:
            request = msgspec.structs.replace(request, position_side="short" if position.size > 0 else "long")
        else:
            request = msgspec.structs.replace(request, size=wanted + abs(position.size))
        cost_price = self._checked(account, request, credit=self._margin_of(account, position))
        if isinstance(cost_price, Refusal):
            return cost_price
        if held.is_hedged:
            closed = self._close_whole(account, position, now_ns, matches=True)
            if isinstance(closed, Refusal):
                return closed
        order = self._create(account, request, now_ns, "api", cost_price)
        if matches:
            self.match(account, order.order_id, now_ns)
        return Accepted(order.order_id, order.client_oid)

    # -------------------------------------------------------------------------------------- margin

    def _margin_of(self, account: str, position: VenuePosition) -> Decimal:
        if position.margin_mode == "isolated":
            return position.margin_usdt
        return abs(position.size) * self.mark(position.symbol) / self.leverage(account, position.symbol)

    def set_margin(
        self, account: str, symbol: str, hold_side: str, amount_usdt: Decimal, now_ns: int
    ) -> Refusal | None:
        """Add margin to an isolated position, or take some away (< 0); None means done.

        What is left must carry the position at its leverage, at the mark and after its loss.
        """
        if symbol not in self.contracts:
            return unknown(symbol)
        held = self._accounts[account]
        mine = [one for one in held.of_symbol(symbol) if one.hold_side == hold_side and one.margin_mode == "isolated"]
        if not mine:
            return Refusal("22002", "No position to close")
        position, value = mine[0], abs(mine[0].size) * self.mark(symbol)
        is_sane = amount_usdt.is_finite() and 0 < abs(amount_usdt) < ABSURD
        if not is_sane or amount_usdt != amount_usdt.quantize(FEE_STEP):
            return Refusal("40020", "Parameter amount error")
        if amount_usdt > 0 and amount_usdt > self.available(account):
            return Refusal("40754", "balance not enough")
        if amount_usdt < 0:
            loss = min(ZERO, position.size * self.mark(symbol) - position.cost)
            needed = value / self.leverage(account, symbol, hold_side)
            if position.margin_usdt + loss + amount_usdt < needed:
                return Refusal("40754", "balance not enough")
        position.margin_usdt += amount_usdt
        position.updated_ns = now_ns
        held.risk = None
        self._bill(held, now_ns, "append_margin" if amount_usdt > 0 else "reduce_margin", symbol, amount_usdt, ZERO)
        return None


def _preset(before: Decimal | None, new: Decimal | None) -> Decimal | None:
    """Return a preset after a change: None leaves it, 0 removes it."""
    return before if new is None else (new or None)
