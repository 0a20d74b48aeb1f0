"""News: what the exchange tells about our orders, fills, bills and positions, booked before anything is decided on it.

* answers and reports move an order along its table (orders.py); what the table does not list changes nothing
* fills move the ledger, once each, whoever sent their order; repeats are recognised by the exchange's trade id
* readings of the account begin the ledger, then correct it only where fills cannot explain a difference (truth.py)
"""

from __future__ import annotations

from decimal import Decimal

from shared.strategy import orders as life
from shared.strategy.desk import Desk
from shared.strategy.exact import ZERO
from shared.strategy.exits import Exits
from shared.strategy.orders import Order, State, Told
from shared.strategy.portfolio import Quote, Trade
from shared.types import (
    NS,
    Adopted,
    CancelRefused,
    Cause,
    ClockRead,
    Filled,
    FundingPaid,
    OrderAbsent,
    OrderAccepted,
    OrderRefused,
    OrderReported,
    OrderTimedOut,
    PendingOrder,
    PlaceOrder,
)

FILLS_REMEMBERED_MAX = 50_000  # repeats come within seconds; a day at 8 orders a second is far below
NAMELESS_MAX = 1000
REFUSED_COOLDOWN_S = 30
NO_POSITION_TO_CLOSE = "22002"  # Bitget v2, errors: "No position to close"


class News:
    def __init__(self, desk: Desk, exits: Exits) -> None:
        self._desk, self._exits = desk, exits
        self._adopted_ns = 0
        self._fill_before_adoption = False
        self._seen_fills: dict[tuple[str, str, str], None] = {}
        self._nameless: dict[str, Decimal] = {}  # order_id of unknown orders -> filled

    # --------------------------------------------------------------------------------------- answers and reports

    def _expected(self, told: str, client_oid: str, order_id: str = "") -> Order | None:
        """Return the order that something is told of; say so where it is none of ours."""
        order = self._desk.orders.get(client_oid, order_id)
        if order is None:
            self._desk.note("order.unexpected", client_oid=client_oid, told=told)
        return order

    def accepted(self, event: OrderAccepted) -> None:
        order = self._expected("accepted", event.client_oid, event.order_id)
        if order is None:
            return
        self._name(order, event.order_id)
        self._tell(order, Told.ACCEPTED)
        self._desk.cancel_if_wanted(order)

    def refused(self, event: OrderRefused) -> None:
        desk = self._desk
        order = self._expected("refused", event.client_oid)
        if order is None:
            return
        if not self._tell(order, Told.REFUSED):
            return
        desk.note(
            "order.refused",
            client_oid=order.client_oid,
            symbol=order.symbol,
            cause=str(order.cause),
            code=event.code,
            message=event.message,
        )
        if order.reduce_only and event.code == NO_POSITION_TO_CLOSE:
            desk.truth.doubt(order.symbol, "the exchange has no position to close", desk.now_ns)
            return
        if order.reduce_only and self._exits.misfits(order, event.code):
            return  # understood, and not met again: no storm
        latched = desk.risk.note_refusal(desk.now_ns)
        if latched is not None:
            desk.say_latched(latched)
        if order.reduce_only:
            self._exits.refused(order.symbol)
        else:
            desk.rest(order.symbol, REFUSED_COOLDOWN_S)

    def timed_out(self, event: OrderTimedOut) -> None:
        desk = self._desk
        order = self._expected("timed_out", event.client_oid)
        if order is None:
            return
        desk.note("order.timed_out", client_oid=order.client_oid, symbol=order.symbol, by="shell")
        self._tell(order, Told.TIMED_OUT)
        if order.state is State.UNKNOWN:
            desk.ask_order(order)

    def reported(self, event: OrderReported) -> None:
        desk = self._desk
        order = self._expected(str(event.status), event.client_oid, event.order_id)
        if order is None:
            return  # the exchange's own order (a preset stop), or one that a person sent: its fills tell
        self._name(order, event.order_id)
        order.reported_filled = max(order.reported_filled, event.filled)
        if self._tell(order, life.told_of(event.status)) and order.state is State.CANCELED and not order.filled:
            desk.note("order.canceled", client_oid=order.client_oid, symbol=order.symbol, reason=event.reason)
            if not order.reduce_only and not order.reported_filled:
                desk.rest(order.symbol, desk.config.cooldown_s)
        desk.cancel_if_wanted(order)

    def absent(self, event: OrderAbsent) -> None:
        desk = self._desk
        order = desk.orders.get(event.client_oid)
        if order is None or order.is_done:
            return
        if event.recv_ns < order.sent_ns + life.ABSENT_AFTER_NS:
            return  # proves nothing yet: the signed request may still be accepted
        if (order.state, Told.ABSENT) in life.TRANSITIONS:
            self._tell(order, Told.ABSENT)
            desk.note("order.absent", client_oid=order.client_oid, symbol=order.symbol)
            return
        desk.truth.doubt(order.symbol, "an order that was accepted is not known any more", desk.now_ns)

    def cancel_refused(self, event: CancelRefused) -> None:
        desk = self._desk
        order = desk.orders.get(event.client_oid)
        if order is None or order.is_done:
            return
        desk.note("cancel.refused", client_oid=order.client_oid, symbol=order.symbol, code=event.code)
        desk.ask_order(order)

    def _tell(self, order: Order, told: Told) -> bool:
        """Move an order along its table; say so where the table has no such step, or where the dead came alive."""
        desk = self._desk
        before = order.state
        moved = desk.orders.tell(order, told, desk.now_ns)
        if not moved:
            desk.note(
                "order.surprised", client_oid=order.client_oid, symbol=order.symbol, state=str(before), told=str(told)
            )
            desk.ask_order(order)
        elif before in (State.REFUSED, State.ABSENT) and order.state is not before:
            desk.note(
                "order.revived", client_oid=order.client_oid, symbol=order.symbol, state=str(before), told=str(told)
            )
            order.wants_cancel = order.rests
        if order.is_done and before is not order.state:
            desk.say_done(order)
        return moved

    # -------------------------------------------------------------------------------------------- fills and bills

    def clock_read(self, event: ClockRead) -> None:
        desk = self._desk
        was_off = desk.risk.is_clock_off
        desk.risk.read_clock(event.offset_ns)
        if desk.risk.is_clock_off is not was_off:
            desk.note("clock.judged", is_off=desk.risk.is_clock_off, offset_ms=event.offset_ns / 1e6)

    def _hear(self, fill: Filled) -> None:
        """Let risk see the stamp of a fill: one that lies in our future proves that the clocks differ."""
        desk = self._desk
        was_off = desk.risk.is_clock_off
        desk.risk.heard(fill.exch_ns, fill.recv_ns)
        if desk.risk.is_clock_off and not was_off:
            desk.note("clock.judged", is_off=True, offset_ms=(fill.exch_ns - fill.recv_ns) / 1e6)

    def filled(self, event: Filled) -> None:
        desk = self._desk
        if self._key(event) in self._seen_fills:
            return
        self._see(event)
        self._hear(event)
        if not desk.is_adopted:
            self._fill_before_adoption = True  # the truth that is being read may or may not contain it
            return

        order = desk.orders.get(event.client_oid, event.order_id)
        flash = desk.orders.flash_waiting(event.symbol, event.side) if order is None else None
        n = desk.at.get(event.symbol)
        held = desk.portfolio.size(event.symbol)
        if order is None and flash is None:
            reduces = held * event.side.sign < 0
            cause = Cause.STOP if reduces else Cause.ADOPTED
            quote, second = desk.market.quote(n), desk.now_ns // NS
            self._remember_nameless(event)
            desk.note(
                "fill.unexpected",
                symbol=event.symbol,
                order_id=event.order_id,
                side=str(event.side),
                price=str(event.price),
                size=str(event.size),
                reduces=reduces,
            )
            if not reduces or event.size > abs(held):
                desk.truth.doubt(event.symbol, "a fill that is not ours opened a position", desk.now_ns)
        elif order is None:
            assert flash is not None
            cause, second, quote = flash.cause, flash.decision, _decided(flash)
            self._remember_nameless(event)  # it may be a stop's: the answer says what the flash close has filled
            if event.size > abs(held):
                desk.truth.doubt(event.symbol, "a flash close is larger than the position", desk.now_ns)
        else:
            cause = order.cause
            # The horizon counts from the decision for a taker, from the fill for an order that waited.
            second = order.decision if not order.rests else max(order.decision, desk.now_ns // NS - 1)
            quote = _decided(order)
            self._name(order, event.order_id)
            was_done = order.is_done
            if not desk.orders.fill(order, event.size, desk.now_ns):
                desk.truth.doubt(event.symbol, "fills exceed the order", desk.now_ns)
            if order.is_done and not was_done:
                desk.say_done(order)
        mark = desk.market.mark(n)
        desk.funding.before_fill(event)
        closed = desk.portfolio.fill(event, cause=cause, second=second, quote=quote, mark=mark)
        desk.funding.after_fill(event)
        holding = desk.portfolio.holdings.get(event.symbol)
        if holding is not None and order is not None and order.stop_price is not None and holding.stop_price is None:
            holding.stop_price = order.stop_price
        self._close(closed)
        if holding is not None and (held == 0 or closed):
            if order is not None and order.cause is Cause.ENTRY:
                desk.bandit.opened(event.symbol, order.decision)
            else:
                desk.bandit.disowned(event.symbol)

    @staticmethod
    def _key(fill: Filled) -> tuple[str, str, str]:
        return fill.symbol, fill.order_id, fill.trade_id

    def _see(self, fill: Filled) -> None:
        self._seen_fills[self._key(fill)] = None
        if len(self._seen_fills) > FILLS_REMEMBERED_MAX:
            del self._seen_fills[next(iter(self._seen_fills))]

    def _remember_nameless(self, fill: Filled) -> None:
        """Keep what an unknown order filled: a placement without an answer learns its exchange's name later."""
        filled = self._nameless.pop(fill.order_id, ZERO)
        self._nameless[fill.order_id] = filled + fill.size
        if len(self._nameless) > NAMELESS_MAX:
            del self._nameless[next(iter(self._nameless))]

    def _name(self, order: Order, order_id: str) -> None:
        """Learn the exchange's name of an order, and count what it filled before we knew."""
        desk = self._desk
        if not desk.orders.name(order, order_id) or order_id not in self._nameless:
            return
        desk.orders.fill(order, self._nameless.pop(order_id), desk.now_ns)
        if order.is_done:
            desk.say_done(order)
        holding = desk.portfolio.holdings.get(order.symbol)
        if holding is not None and holding.stop_price is None:
            holding.stop_price = order.stop_price

    def _close(self, trades: list[Trade]) -> None:
        desk = self._desk
        for trade in trades:
            desk.trades.append(trade)
            self._exits.closed(trade.symbol)
            if Cause.ADOPTED in (trade.entry_cause, trade.exit_cause):
                desk.bandit.disowned(trade.symbol)
            learnt = desk.bandit.reward(trade.symbol, trade.net_bps)
            desk.rest(trade.symbol, desk.config.cooldown_s)
            desk.note(
                "trade.closed",
                symbol=trade.symbol,
                side=str(trade.side),
                cause=str(trade.exit_cause),
                duration_s=trade.duration_s,
                net_usdt=float(trade.net_usdt),
                net_bps=trade.net_bps,
                fees_usdt=float(trade.fees_usdt),
                decision=learnt.decision if learnt is not None else None,
            )

    def funding_paid(self, event: FundingPaid) -> None:
        desk = self._desk
        is_new = desk.funding.take(event)
        # What was booked before the account was read for the first time is in the equity that we began with.
        if is_new and desk.is_adopted and event.exch_ns >= self._adopted_ns:
            desk.portfolio.pay_funding(event.symbol, event.amount_usdt)
            desk.note("funding.paid", symbol=event.symbol, amount_usdt=float(event.amount_usdt), bill_id=event.bill_id)

    # ----------------------------------------------------------------------------------------- the whole truth

    def adopted(self, event: Adopted) -> None:
        desk = self._desk
        desk.grant(event.leverage)
        if not desk.is_adopted:
            self._begin(event)
        else:
            self._book_missed(event.fills)
            self._close(desk.truth.compare(event, desk.now_ns, is_funding_owed=desk.funding.is_owed))
        self._adopt_orders(event.orders)

    def _book_missed(self, fills: tuple[Filled, ...]) -> None:
        """Book what the private stream has not brought, before the ledger is compared."""
        desk = self._desk
        for fill in fills:
            if self._key(fill) in self._seen_fills or fill.exch_ns < desk.truth.complete_until_ns:
                continue
            is_named = desk.orders.get(fill.client_oid, fill.order_id) is not None
            is_named = is_named or desk.orders.flash_waiting(fill.symbol, fill.side) is not None
            if not is_named and any(not order.order_id for order in desk.orders.working_in(fill.symbol)):
                continue  # these fills carry no client_oid: it may be the order that waits for its answer
            desk.note("fill.missed", symbol=fill.symbol, order_id=fill.order_id, trade_id=fill.trade_id)
            self.filled(fill)

    def _begin(self, event: Adopted) -> None:
        desk = self._desk
        desk.is_adopted, self._adopted_ns = True, event.recv_ns
        desk.truth.begin(desk.now_ns)
        for fill in event.fills:
            self._see(fill)  # the positions that were read contain it
        positions = tuple(sorted((p for p in event.positions if p.size != 0), key=lambda p: p.symbol))
        desk.portfolio.adopt(event.equity_usdt, positions, desk.now_ns, desk.now_ns // NS)
        for position in positions:
            desk.note(
                "position.adopted",
                symbol=position.symbol,
                size=str(position.size),
                entry_price=str(position.entry_price),
                is_listed=position.symbol in desk.at,
            )
        desk.note(
            "account.adopted",
            equity_usdt=float(event.equity_usdt),
            positions=len(positions),
            orders=len(event.orders),
            leverages=len(event.leverage),
        )
        if self._fill_before_adoption or event.fills:
            desk.truth.ask("a fill came around the first adoption", desk.now_ns)

    def _adopt_orders(self, pending: tuple[PendingOrder, ...]) -> None:
        """Cancel what rests at the exchange and is not ours; ask about ours that does not rest there."""
        desk = self._desk
        names = set()
        for found in pending:
            order = desk.orders.get(found.client_oid, found.order_id)
            if order is None:
                order = self._take_over(found)
            names.add(order.client_oid)
            self._name(order, found.order_id)
            order.reported_filled = max(order.reported_filled, found.filled)
            self._tell(order, Told.PARTIALLY_FILLED if found.filled else Told.LIVE)
            desk.cancel_if_wanted(order)
        for order in list(desk.orders.working):
            is_resting = order.rests and order.state in (State.LIVE, State.PARTIALLY_FILLED)
            if is_resting and order.client_oid not in names and desk.now_ns - order.news_ns >= life.QUERY_EVERY_NS:
                desk.ask_order(order)

    def _take_over(self, found: PendingOrder) -> Order:
        """Own an order that somebody else left resting, in order to cancel it."""
        desk = self._desk
        order = Order(
            PlaceOrder(
                client_oid=found.client_oid or found.order_id,
                symbol=found.symbol,
                side=found.side,
                kind=found.kind,
                size=found.size,
                price=found.price,
                reduce_only=found.reduce_only,
                stop_price=None,
                cause=Cause.ADOPTED,
            ),
            sent_ns=desk.now_ns,
            decision=desk.now_ns // NS,
            mid=found.price,
            half_spread=None,
        )
        order.filled = found.filled
        order.wants_cancel = True
        desk.orders.add(order)
        desk.note("order.adopted", client_oid=order.client_oid, symbol=order.symbol, size=str(order.size))
        return order


def _decided(order: Order) -> Quote | None:
    """Return the market when an order was decided on, None where it had no book."""
    if order.mid is None or order.half_spread is None:
        return None
    return Quote(mid=order.mid, half_spread=order.half_spread)
