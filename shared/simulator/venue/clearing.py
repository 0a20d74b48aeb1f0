"""What a trade does: position, cash, fee, order state, bill and events; and what funding does.

The second layer of a venue. A position carries its *cost* (sum of signed size x price), not an average price, and a
partial close releases cost by the ledger's own rule (`share_of`): the split of realised and unrealised is a
convention, and ours is one. The margin of an isolated position is released by the same rule.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal

import msgspec

from shared.simulator.venue import margin
from shared.simulator.venue.accounts import Account, Accounts
from shared.simulator.venue.levels import Book, decimal_of
from shared.simulator.venue.orders import (
    ZERO,
    Bill,
    ClosedPosition,
    Fill,
    FundingReport,
    Order,
    OrderReport,
    VenuePosition,
)
from shared.strategy.exact import share_of
from shared.types import OrderStatus, Side

FUNDING_BILL = "contract_settle_fee"
_HOUR_NS = 3_600_000_000_000
_DAY_NS = 24 * _HOUR_NS
_VOLUME_DAYS = 30
_FORCED = {"liquidation": "force_", "reduction": "force_", "offset": "force_", "delivery": "delivery_"}


class Clearing(Accounts):
    """Books trades and funding, and ends orders."""

    _funded_hour: int | None = None

    # ------------------------------------------------------------------------------------------ a trade

    def _fill(
        self,
        order: Order,
        price: Decimal,
        size: Decimal,
        *,
        is_maker: bool,
        now_ns: int,
        fee_rate: Decimal | None = None,
        is_public: bool = True,
    ) -> None:
        """Book one trade of an order.

        Args:
            fee_rate: [1] of notional; None: the account's, as maker or taker.
            is_public: False keeps its price out of the last prices (Bitget does not show takeovers).
        """
        symbol, held = order.symbol, self._accounts[order.account]
        if fee_rate is None:
            fee_rate = self.fee_rate(order.account, symbol, is_maker=is_maker, now_ns=now_ns)
        if self.rules.fee_tiers:
            self.note_traded(order.account, now_ns // _DAY_NS, price * size)
        fee = margin.fee(price * size * fee_rate)
        ended, realised = self._move_position(held, order, price, size, fee_rate, now_ns)
        held.realised += realised
        held.fees += fee
        held.balance += realised - fee
        held.risk = None
        held.order_margins.pop(symbol, None)
        order.filled += size
        order.quote += price * size
        order.fee_usdt += fee
        order.realised_usdt += realised
        order.updated_ns = now_ns
        fill = Fill(
            account=order.account, time_ns=now_ns, order_id=order.order_id, client_oid=order.client_oid,
            trade_id=self.new_id(now_ns), symbol=symbol, side=order.side, kind=order.kind, price=price, size=size,
            fee_usdt=fee, is_maker=is_maker, realised_usdt=realised, position_side=order.position_side,
            closes=order.reduce_only, source=order.source,
        )  # fmt: skip
        held.fills.append(fill)
        self._bill(held, now_ns, _bill_kind(order), symbol, realised, fee)
        if symbol not in self._marks and not self.has_price(symbol):
            self._books.setdefault(symbol, Book((), ())).value_at(price)
        if order.remaining > 0:
            order.status = OrderStatus.PARTIALLY_FILLED
        else:
            self._finish(order, OrderStatus.FILLED, now_ns)
        self._events.append(fill)
        self._report(order, now_ns, fill)
        if ended is not None:
            closed = _closed(ended, order, now_ns)
            held.closed_positions.append(closed)
            self._events.append(closed)
            self._drop_reducers(held, order, now_ns)
            self.plans.position_closed(order.account, symbol, order.position_side, now_ns)
        if order.stop_loss is not None or order.take_profit is not None:
            self.plans.order_filled(order, fill, now_ns)
        if is_public:
            self._last[symbol] = price
            if symbol in self.plans.symbols():
                self.plans.look(symbol, "fill_price")

    def fee_rate(self, account: str, symbol: str, *, is_maker: bool, now_ns: int) -> Decimal:
        """Return the fee that an account pays now, [1] of notional: the contract's, or its tier's by volume.

        Bitget looks at the thirty days before today, so a tier holds from midnight (UTC) to midnight.
        """
        contract = self.contracts[symbol]
        maker, taker = contract.maker_fee, contract.taker_fee
        if self.rules.fee_tiers:
            today = now_ns // _DAY_NS
            traded = self._accounts[account].traded
            volume = sum((usdt for day, usdt in traded.items() if today - _VOLUME_DAYS <= day < today), ZERO)
            for tier in self.rules.fee_tiers:
                if volume >= tier.volume_usdt_min:
                    maker, taker = tier.maker_fee, tier.taker_fee
        return maker if is_maker else taker

    def _move_position(
        self, held: Account, order: Order, price: Decimal, size: Decimal, fee_rate: Decimal, now_ns: int
    ) -> tuple[VenuePosition | None, Decimal]:
        """Apply a trade to the position; return (the position if that ended it, the realised profit)."""
        key, sign = (order.symbol, order.position_side), order.side.sign
        position, opening, realised = held.positions.get(key), size, ZERO
        ended: VenuePosition | None = None
        if position is not None and (position.size > 0) is not (sign > 0):
            before = abs(position.size)
            closing = min(size, before)
            opening = size - closing
            released = share_of(position.cost, closing, before)
            realised = closing * price * -sign - released
            position.cost -= released
            position.size += closing * sign
            position.realised_usdt += realised
            position.closed_quote += closing * price
            position.close_fee_usdt += closing * price * fee_rate
            position.updated_ns = now_ns
            if position.margin_usdt:
                self._release_margin(position, closing, before, realised)
            if not position.size:
                del held.positions[key]
                if not held.of_symbol(order.symbol):
                    self._holders[order.symbol].discard(order.account)
                ended, position = position, None
        if opening:
            if position is None:
                position = VenuePosition(
                    symbol=order.symbol, position_id=self.new_id(now_ns), size=ZERO, cost=ZERO, opened_ns=now_ns,
                    updated_ns=now_ns, position_side=order.position_side, margin_mode=order.margin_mode,
                )  # fmt: skip
                held.positions[key] = position
                self._holders.setdefault(order.symbol, set()).add(order.account)
            quote = opening * price
            position.size += opening * sign
            position.cost += quote * sign
            position.opened_size += opening
            position.opened_quote += quote
            position.open_fee_usdt += quote * fee_rate
            position.updated_ns = now_ns
            if position.margin_mode == "isolated":
                position.margin_usdt += margin.margin_set_aside(price, opening, order.leverage)
        return ended, realised

    def _release_margin(self, position: VenuePosition, closing: Decimal, before: Decimal, realised: Decimal) -> None:
        """Give the closed share of an isolated position's margin back, less what its loss has eaten of the rest."""
        share = share_of(position.margin_usdt, closing, before)
        position.margin_usdt -= share
        beyond = -realised - share
        if beyond > 0:
            position.margin_usdt -= min(beyond, max(ZERO, position.margin_usdt))

    def _drop_reducers(self, held: Account, order: Order, now_ns: int) -> None:
        """Cancel what was to reduce a position that is gone."""
        for other in list(held.pending_of.get(order.symbol, {}).values()):
            if other.reduce_only and other.position_side == order.position_side:
                self._close(other, OrderStatus.CANCELED, "reduce_only_cancel", now_ns)

    # ----------------------------------------------------------------------------------- ends of orders

    def _close(self, order: Order, status: OrderStatus, reason: str, now_ns: int) -> None:
        order.cancel_reason = reason
        self._finish(order, status, now_ns)
        self._report(order, now_ns)

    def _finish(self, order: Order, status: OrderStatus, now_ns: int) -> None:
        order.status, order.updated_ns = status, now_ns
        held = self._accounts[order.account]
        del held.pending[order.order_id]
        held.order_margins.pop(order.symbol, None)
        of_symbol = held.pending_of[order.symbol]
        del of_symbol[order.order_id]
        if not of_symbol:
            del held.pending_of[order.symbol]
        if held.client_oids.get(order.client_oid) == order.order_id:
            del held.client_oids[order.client_oid]
        held.closed[order.order_id] = order
        if order.client_oid:
            held.closed_oids[order.client_oid] = order.order_id
        while len(held.closed) > self.rules.history_max:
            _, old = held.closed.popitem(last=False)
            if held.closed_oids.get(old.client_oid) == old.order_id:
                del held.closed_oids[old.client_oid]
        resting = self._resting.get(order.symbol)
        if resting:
            resting.remove(order)

    def _report(self, order: Order, now_ns: int, fill: Fill | None = None) -> None:
        copy = msgspec.structs.replace(order)
        self._events.append(OrderReport(account=order.account, time_ns=now_ns, order=copy, fill=fill))

    # ------------------------------------------------------------------------------------------ funding

    def settle_funding(self, now_ns: int) -> None:
        """Pay the funding that has become due since the last call, each symbol on its own UTC grid.

        The rate is the last one set before; the first call only sets the clock.
        """
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
        if rate is None:
            return
        for account in sorted(self._holders[symbol]):
            for position in self._accounts[account].of_symbol(symbol):
                self._pay_funding(account, position, decimal_of(rate), now_ns)

    def _pay_funding(self, account: str, position: VenuePosition, rate: Decimal, now_ns: int) -> None:
        held, mark = self._accounts[account], self.mark(position.symbol)
        amount = (-position.size * mark * rate).quantize(margin.FEE_STEP, rounding=ROUND_DOWN)
        held.balance += amount
        held.risk = None
        held.funding += amount
        position.funding_usdt += amount
        position.is_funded = True
        if position.margin_mode == "isolated":
            position.margin_usdt += amount
        bill = self._bill(held, now_ns, FUNDING_BILL, position.symbol, amount, ZERO)
        self._events.append(
            FundingReport(
                account=account, time_ns=now_ns, bill_id=bill.bill_id, symbol=position.symbol, amount_usdt=amount,
                rate=rate, mark=mark, size=position.size,
            )
        )  # fmt: skip

    def _bill(self, held: Account, now_ns: int, kind: str, symbol: str, amount: Decimal, fee: Decimal) -> Bill:
        bill = Bill(
            time_ns=now_ns, bill_id=self.new_id(now_ns), kind=kind, symbol=symbol, amount_usdt=amount, fee_usdt=fee,
            balance_usdt=held.balance,
        )  # fmt: skip
        held.bills.append(bill)
        return bill


def _bill_kind(order: Order) -> str:
    """Return Bitget's businessType of a trade (v2, Get Account Bills)."""
    kind: str = order.side.value
    if order.position_side != "net":
        is_opening = (order.side is Side.BUY) is (order.position_side == "long")
        kind = f"{'open' if is_opening else 'close'}_{order.position_side}"
    return _FORCED.get(order.source, "") + kind


def _closed(position: VenuePosition, order: Order, now_ns: int) -> ClosedPosition:
    """Return what remains of a position that an order has just ended."""
    is_long = order.side is Side.SELL
    return ClosedPosition(
        account=order.account, time_ns=now_ns, opened_ns=position.opened_ns, position_id=position.position_id,
        symbol=position.symbol, hold_side="long" if is_long else "short",
        is_hedged=position.position_side != "net", margin_mode=position.margin_mode,
        open_average=position.opened_quote / position.opened_size,
        close_average=position.closed_quote / position.opened_size, opened_size=position.opened_size,
        closed_size=position.opened_size, realised_usdt=position.realised_usdt, funding_usdt=position.funding_usdt,
        open_fee_usdt=position.open_fee_usdt, close_fee_usdt=position.close_fee_usdt,
    )  # fmt: skip
