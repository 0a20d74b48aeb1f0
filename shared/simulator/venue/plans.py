"""Trigger orders of a venue: plan orders, stops and targets, trailing ones. No I/O, no clock.

A plan waits outside the book, holds no margin, and sends one order when its condition holds. Its life:

    live -> executing -> executed | fail_execute       the order was taken | refused (`fail_reason` says why)
    live -> cancelled                                  by its owner, or with the position it protects

    1. The venue calls `watch` after every mark and every trade of a symbol.
    2. Every live plan of that symbol sees the price of its kind (`plan_rules.follow`); those whose condition holds wait
       in a queue, so that a price which an order of the queue itself makes is seen, too, but by everybody.
    3. The queue sends one order after the other through `Venue.accept_triggered`, which may refuse.

What rides on an entry (`OrderRequest.stop_loss`, `take_profit`) becomes the `pos_loss` and `pos_profit` of its position
with the first fill that opens something. A position has one of each: placing it again changes it in place (recorded:
same ids, new uTime). They end with the position.

Where the visible book was too thin for a whole-position market close, the rest is protected again by a new plan of the
same trigger: the exchange's book is deeper than what it shows, ours is not.

Source of behaviour: Bitget v2, REST -> Trigger orders, and payloads recorded in October 2026 (demo trading).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING

import msgspec

from shared.simulator.venue import checks, plan_rules
from shared.simulator.venue.orders import (
    ZERO,
    Accepted,
    Fill,
    Order,
    OrderRequest,
    Plan,
    PlanChange,
    PlanReport,
    PlanRequest,
    PlanStatus,
    PlanType,
    PositionSide,
    Refusal,
    TriggerType,
    VenuePosition,
)
from shared.types import OrderKind

if TYPE_CHECKING:
    from shared.simulator.venue.venue import Venue

REMEMBERED_MAX = 1_000
"""Final plans that an account remembers; Bitget keeps 90 days, we keep a bound."""

_SOURCES: dict[PlanType, str] = {
    "normal_plan": "plan",
    "track_plan": "trailing",
    "moving_plan": "trailing",
    "profit_plan": "take_profit",
    "pos_profit": "take_profit",
    "loss_plan": "stop_loss",
    "pos_loss": "stop_loss",
}


class Plans:
    """The trigger orders of every account of one venue.

    Args:
        venue: where prices come from and where triggered orders go.
    """

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._live: dict[str, dict[str, Plan]] = {}  # account -> order_id -> plan, oldest first
        self._client_oids: dict[str, dict[str, str]] = {}  # of live plans only, as those of orders
        self._final: dict[str, deque[Plan]] = {}
        self._watched: dict[str, list[Plan]] = {}  # symbol -> live plans of all accounts, oldest first
        self._due: deque[tuple[Plan, Decimal]] = deque()  # condition holds, with the price at which it did
        self.is_broken = False
        """Stops that never trigger: one of the misbehaviours. A condition that held meanwhile is forgotten."""

    # ----------------------------------------------------------------------------------- questions

    def symbols(self) -> Collection[str]:
        """Return the symbols with live plans: others need not be watched."""
        return self._watched.keys()

    def pending(
        self, account: str, symbol: str | None = None, plan_types: Collection[PlanType] | None = None
    ) -> list[Plan]:
        """Return the live plans, oldest first."""
        if symbol is not None:  # an account may have a hundred of them, in as many symbols
            watched = [plan for plan in self._watched.get(symbol, ()) if plan.account == account]
            return watched if plan_types is None else _filtered(watched, symbol, plan_types)
        return _filtered(self._live.get(account, {}).values(), symbol, plan_types)

    def history(
        self, account: str, symbol: str | None = None, plan_types: Collection[PlanType] | None = None
    ) -> list[Plan]:
        """Return the remembered plans that are no longer live, in the order in which they ended."""
        return _filtered(self._final.get(account, ()), symbol, plan_types)

    def plan(self, account: str, *, order_id: str | None = None, client_oid: str | None = None) -> Plan | None:
        """Return a plan, live or final (the newest with that client_oid), or None; the order id wins."""
        live = self._live.get(account, {})
        found = live.get(order_id or self._client_oids.get(account, {}).get(client_oid or "", ""))
        if found is not None or not (order_id or client_oid):
            return found
        for plan in reversed(self._final.get(account, ())):
            if plan.order_id == order_id or (not order_id and plan.client_oid == client_oid):
                return plan
        return None

    def pending_count(self, account: str, symbol: str | None = None) -> int:
        return len(self.pending(account, symbol))

    def protection(self, account: str, symbol: str, position_side: PositionSide) -> tuple[Plan | None, Plan | None]:
        """Return (stop loss, take profit) of the whole position, None where there is none."""
        return (
            self._whole(account, symbol, position_side, "pos_loss"),
            self._whole(account, symbol, position_side, "pos_profit"),
        )

    def refusal(self, account: str, request: PlanRequest) -> Refusal | None:
        """Return why `place` would not take it, None where it would."""
        return self._refusal(account, request, self._replaced(account, request))

    # -------------------------------------------------------------------------------------- orders

    def place(self, account: str, request: PlanRequest, now_ns: int) -> Accepted | Refusal:
        """Take a trigger order; a whole-position one changes the one that is there and answers with its ids."""
        found = self._replaced(account, request)
        refusal = self._refusal(account, request, found)
        if refusal is not None:
            return refusal
        if found is None:
            found = self._add(account, request, now_ns)
        else:
            self._change(found, request, now_ns)
        return Accepted(found.order_id, found.client_oid)

    def modify(
        self,
        account: str,
        change: PlanChange,
        now_ns: int,
        *,
        order_id: str | None = None,
        client_oid: str | None = None,
        symbol: str | None = None,
        plan_types: Collection[PlanType] | None = None,
    ) -> Accepted | Refusal:
        """Change a live plan; a refusal leaves it as it was. A new trigger starts a trailing plan anew."""
        found = self._find(account, order_id, client_oid, symbol, plan_types)
        if isinstance(found, Refusal):
            return found
        request = _changed(found.request, change)
        refusal = self._refusal(account, request, found)
        if refusal is not None:
            return refusal
        self._change(found, request, now_ns)
        return Accepted(found.order_id, found.client_oid)

    def cancel(
        self,
        account: str,
        now_ns: int,
        *,
        order_id: str | None = None,
        client_oid: str | None = None,
        symbol: str | None = None,
        plan_types: Collection[PlanType] | None = None,
    ) -> Accepted | Refusal:
        """Cancel a live plan; one of another symbol or kind than given is not found."""
        found = self._find(account, order_id, client_oid, symbol, plan_types)
        if isinstance(found, Refusal):
            return found
        self._end(found, "cancelled", now_ns)
        return Accepted(found.order_id, found.client_oid)

    # ------------------------------------------------------------------------- what the venue tells

    def look(self, symbol: str, moved: TriggerType | None = None) -> None:
        """See the mark and the last price of a symbol: trail, and remember what is reached for the next `watch`.

        For the midst of a match, where no other order may be sent.

        Args:
            moved: which of the two may be another one now; None: both. The other one's plans are left alone.
        """
        watched = self._watched.get(symbol)
        if watched is None or self.is_broken:
            return
        has_last = self._venue.has_last(symbol)
        reached: list[tuple[Plan, Decimal]] = []
        prices: dict[TriggerType, Decimal | None] = {}
        for plan in watched:
            trigger_type = plan.request.trigger_type
            if moved is not None and moved != (trigger_type if has_last else "mark_price"):
                continue
            if trigger_type not in prices:
                prices[trigger_type] = self._price(symbol, trigger_type)
            price = prices[trigger_type]
            if price is not None and plan_rules.follow(plan, price):
                reached.append((plan, price))
        if reached:
            # Where one price reaches a position's stop and its target, the worse is assumed.
            self._due.extend(sorted(reached, key=_is_target))

    def watch(self, symbol: str, now_ns: int, moved: TriggerType | None = None) -> None:
        """Look, and execute what is reached, here or in a `look` before; the venue is between two orders.

        What the orders of this turn trade at is looked at, too, and has its turn after them.
        """
        self.look(symbol, moved)
        while self._due:
            plan, price = self._due.popleft()
            if plan.status == "live":
                self._execute(plan, price, now_ns)

    def position_closed(self, account: str, symbol: str, position_side: PositionSide, now_ns: int) -> None:
        """Cancel the stops and targets of a position that is no more."""
        for plan in self.pending(account, symbol, plan_rules.PROTECTIONS):
            if plan.request.position_side == position_side:
                self._end(plan, "cancelled", now_ns)

    def order_filled(self, order: Order, fill: Fill, now_ns: int) -> None:
        """Make the presets of an entry the stop and the target of its position, by its first fill that opens."""
        if order.stop_loss is None and order.take_profit is None:
            return
        position = self._venue.position(order.account, order.symbol, order.position_side)
        if position is None or position.size * order.side.sign < 0:
            return  # it has only closed so far
        legs: tuple[tuple[PlanType, Decimal | None, Decimal | None, TriggerType], ...] = (
            ("pos_loss", order.stop_loss, order.stop_loss_execute, order.stop_loss_type),
            ("pos_profit", order.take_profit, order.take_profit_execute, order.take_profit_type),
        )
        for plan_type, trigger, execute, trigger_type in legs:
            if trigger is None:
                continue
            request = PlanRequest(
                symbol=order.symbol, plan_type=plan_type, side=order.side.opposite, size=ZERO, trigger_price=trigger,
                trigger_type=trigger_type, execute_price=execute, position_side=order.position_side,
            )  # fmt: skip
            found = self._replaced(order.account, request)
            if found is None:
                self._add(order.account, request, now_ns)
            elif found.request != request:
                self._change(found, request, now_ns)

    def liquidated(self, account: str, now_ns: int) -> None:
        """Cancel every plan of an account that is being liquidated."""
        for plan in self.pending(account):
            self._end(plan, "cancelled", now_ns)

    # ------------------------------------------------------------------------------------ execution

    def _execute(self, plan: Plan, price: Decimal, now_ns: int) -> None:
        """Send the order of a plan whose condition held at `price`."""
        self._forget(plan)
        plan.status, plan.triggered_ns, plan.updated_ns = "executing", now_ns, now_ns
        self._report(plan, now_ns)
        request = self._order_request(plan, price)
        answer = self._venue.accept_triggered(plan.account, request, now_ns, _SOURCES[plan.request.plan_type])
        if isinstance(answer, Refusal):
            plan.fail_reason = f"{answer.code} {answer.message}"
            self._conclude(plan, "fail_execute", now_ns)
            return
        plan.execute_order_id = answer.order_id
        self._conclude(plan, "executed", now_ns)
        position = self._protected(plan.account, plan.request)
        is_cut = position is not None and request.kind is OrderKind.MARKET
        if is_cut and plan.request.plan_type in plan_rules.WHOLE and self._replaced(plan.account, plan.request) is None:
            self._add(plan.account, msgspec.structs.replace(plan.request, client_oid=""), now_ns)

    def _order_request(self, plan: Plan, price: Decimal) -> OrderRequest:
        request, size, reduce_only = plan.request, plan.request.size, plan.request.reduce_only
        stop, target = request.stop_loss, request.take_profit
        if request.plan_type in plan_rules.PROTECTIONS:
            position = self._protected(plan.account, request)
            assert position is not None, plan  # it would have ended with it
            held = abs(position.size)
            size = held if request.plan_type in plan_rules.WHOLE else min(size, held)
            reduce_only = request.position_side == "net"
        elif request.plan_type == "track_plan":
            stop = self._away(request, price, stop, -1)
            target = self._away(request, price, target, 1)
        return OrderRequest(
            symbol=request.symbol, side=request.side, size=size, price=request.execute_price,
            kind=OrderKind.MARKET if request.execute_price is None else OrderKind.LIMIT,
            reduce_only=reduce_only, position_side=request.position_side, margin_mode=request.margin_mode,
            stop_loss=stop, take_profit=target, stop_loss_execute=request.stop_loss_execute,
            take_profit_execute=request.take_profit_execute, stop_loss_type=request.stop_loss_type,
            take_profit_type=request.take_profit_type, stp=request.stp,
        )  # fmt: skip

    def _away(self, request: PlanRequest, price: Decimal, share: Decimal | None, sign: int) -> Decimal | None:
        """Return the price that lies `share` per cent from where a trailing plan was triggered, on the tick."""
        if share is None:
            return None
        tick = self._venue.contracts[request.symbol].tick
        wanted = price * (1 + sign * request.side.sign * share / 100)
        return max(tick, (wanted / tick).quantize(Decimal(1), rounding=ROUND_HALF_EVEN) * tick)

    # --------------------------------------------------------------------------------------- checks

    def _refusal(self, account: str, request: PlanRequest, replaced: Plan | None) -> Refusal | None:
        """Return why Bitget would not take it in the place of `replaced` (None: as a new one)."""
        contract = self._venue.contracts.get(request.symbol)
        if contract is None:
            return Refusal("40034", f"Parameter {request.symbol} does not exist")
        if (self._venue.position_mode(account) == "one_way_mode") is not (request.position_side == "net"):
            return checks.MODE_REFUSAL
        refusal = plan_rules.form_refusal(contract, request)
        if refusal is not None:
            return refusal
        if replaced is None:
            oid = request.client_oid
            refusal = checks.client_oid_refusal(oid, self._venue.rules.client_oid_length_max) if oid else None
            if refusal is not None:
                return refusal
            if oid in self._client_oids.get(account, {}):
                return Refusal("40786", "Duplicate clientOid")
            refusal = self._count_refusal(account, request)
            if refusal is not None:
                return refusal
        price = self._price(request.symbol, request.trigger_type)
        if price is None:
            return Refusal("40823", "The transaction or reasonable marked price does not exist")
        if request.plan_type in plan_rules.PROTECTIONS:
            position = self._protected(account, request)
            if position is None or request.size > abs(position.size):
                return Refusal("43023", "Insufficient position, can not set profit or stop loss")
        is_started = replaced is not None and _trigger(replaced.request) == _trigger(request)
        return None if is_started else plan_rules.start_refusal(request, price)

    def _count_refusal(self, account: str, request: PlanRequest) -> Refusal | None:
        plans = self.pending(account, request.symbol)
        n_protections = sum(plan.request.plan_type in plan_rules.PROTECTIONS for plan in plans)
        if request.plan_type in plan_rules.PROTECTIONS:
            if n_protections >= plan_rules.PROTECTIONS_PER_SYMBOL_MAX:
                return Refusal(
                    "40890", "The order of stop-profit and stop-loss for this contract has reached the upper limit"
                )
        elif len(plans) - n_protections >= plan_rules.PLANS_PER_SYMBOL_MAX:
            return Refusal("40889", "The plan order of this contract has reached the upper limit")
        if len(plans) >= plan_rules.TRIGGERS_PER_SYMBOL_MAX:
            return Refusal(
                "43071", f"Trigger order limit for a single trading pair is {plan_rules.TRIGGERS_PER_SYMBOL_MAX}"
            )
        return None

    def _price(self, symbol: str, trigger_type: TriggerType) -> Decimal | None:
        """Return what a plan watches; the mark stands in for a last price before the first trade."""
        last = self._venue.last_price(symbol) if trigger_type == "fill_price" else None
        if last is not None:
            return last
        return self._venue.mark(symbol) if self._venue.has_price(symbol) else None

    def _protected(self, account: str, request: PlanRequest) -> VenuePosition | None:
        """Return the position that an order of this plan would close, None where there is none on that side."""
        position = self._venue.position(account, request.symbol, request.position_side)
        return position if position is not None and position.size * request.side.sign < 0 else None

    # ------------------------------------------------------------------------------------- the shelf

    def _find(
        self,
        account: str,
        order_id: str | None,
        client_oid: str | None,
        symbol: str | None,
        plan_types: Collection[PlanType] | None,
    ) -> Plan | Refusal:
        found = self.plan(account, order_id=order_id, client_oid=client_oid)
        is_protection = plan_types is not None and set(plan_types) <= plan_rules.PROTECTIONS
        if found is None or symbol not in (None, found.request.symbol) or not _is_of(found, plan_types):
            if is_protection:
                return Refusal("43020", "Stop profit and stop loss order does not exist")
            return Refusal("43025", "Plan order does not exist")
        if found.status != "live":
            if found.request.plan_type in plan_rules.PROTECTIONS:
                return Refusal("43021", "The stop-profit and stop-loss order has been closed")
            return Refusal("43026", "The planned order has been closed")
        return found

    def _whole(self, account: str, symbol: str, position_side: PositionSide, plan_type: PlanType) -> Plan | None:
        for plan in self._watched.get(symbol, ()):
            request = plan.request
            if plan.account == account and request.plan_type == plan_type and request.position_side == position_side:
                return plan
        return None

    def _replaced(self, account: str, request: PlanRequest) -> Plan | None:
        """Return the live plan that a new one changes in place, None where it stands for itself."""
        if request.plan_type not in plan_rules.WHOLE:
            return None
        return self._whole(account, request.symbol, request.position_side, request.plan_type)

    def _add(self, account: str, request: PlanRequest, now_ns: int) -> Plan:
        client_oid = request.client_oid or self._venue.new_id(now_ns)
        plan = Plan(
            account=account, order_id=self._venue.new_id(now_ns), client_oid=client_oid, request=request,
            created_ns=now_ns, updated_ns=now_ns,
        )  # fmt: skip
        self._start(plan)
        self._live.setdefault(account, {})[plan.order_id] = plan
        self._client_oids.setdefault(account, {})[client_oid] = plan.order_id
        self._watched.setdefault(request.symbol, []).append(plan)
        self._show(plan)
        self._report(plan, now_ns)
        return plan

    def _start(self, plan: Plan) -> None:
        """Note where the price stands: which way it must go, and whether a trailing plan has reached its start."""
        request = plan.request
        price = self._price(request.symbol, request.trigger_type)
        assert price is not None, plan
        plan.direction, plan.peak = plan_rules.direction(request, price), None
        if request.plan_type in plan_rules.TRAILING:
            plan_rules.follow(plan, price)

    def _change(self, plan: Plan, request: PlanRequest, now_ns: int) -> None:
        before, plan.request = plan.request, request
        if _trigger(before) != _trigger(request):
            self._start(plan)
        self._due = deque((other, price) for other, price in self._due if other is not plan)
        plan.updated_ns = now_ns
        self._show(plan)
        self._report(plan, now_ns)

    def _end(self, plan: Plan, status: PlanStatus, now_ns: int) -> None:
        self._forget(plan)
        plan.updated_ns = now_ns
        self._conclude(plan, status, now_ns)

    def _forget(self, plan: Plan) -> None:
        """Take a plan off the live ones."""
        del self._live[plan.account][plan.order_id]
        del self._client_oids[plan.account][plan.client_oid]
        left = [other for other in self._watched[plan.request.symbol] if other is not plan]
        if left:
            self._watched[plan.request.symbol] = left
        else:
            del self._watched[plan.request.symbol]
        self._show(plan)

    def _conclude(self, plan: Plan, status: PlanStatus, now_ns: int) -> None:
        plan.status = status
        self._final.setdefault(plan.account, deque(maxlen=REMEMBERED_MAX)).append(plan)
        self._report(plan, now_ns)

    def _show(self, plan: Plan) -> None:
        """Keep the position's own words about its protection true."""
        request = plan.request
        if request.plan_type in plan_rules.WHOLE:
            position = self._venue.position(plan.account, request.symbol, request.position_side)
            if position is not None:
                stop, target = self.protection(plan.account, request.symbol, request.position_side)
                position.stop_loss = None if stop is None else stop.request.trigger_price
                position.take_profit = None if target is None else target.request.trigger_price

    def _report(self, plan: Plan, now_ns: int) -> None:
        self._venue.emit(PlanReport(account=plan.account, time_ns=now_ns, plan=msgspec.structs.replace(plan)))


def _is_target(reached: tuple[Plan, Decimal]) -> bool:
    return reached[0].request.plan_type in ("profit_plan", "pos_profit")


def _trigger(request: PlanRequest) -> tuple[Decimal, TriggerType]:
    return request.trigger_price, request.trigger_type


def _is_of(plan: Plan, plan_types: Collection[PlanType] | None) -> bool:
    return plan_types is None or plan.request.plan_type in plan_types


def _filtered(plans: Collection[Plan], symbol: str | None, plan_types: Collection[PlanType] | None) -> list[Plan]:
    return [plan for plan in plans if symbol in (None, plan.request.symbol) and _is_of(plan, plan_types)]


def _changed(request: PlanRequest, change: PlanChange) -> PlanRequest:
    """Return the request with the new values; a 0 takes an optional one away, a whole plan has no size of its own."""
    values = {name: value for name in change.__struct_fields__ if (value := getattr(change, name)) is not None}
    if request.plan_type in plan_rules.WHOLE:
        values.pop("size", None)
    for name in ("execute_price", "stop_loss", "take_profit", "stop_loss_execute", "take_profit_execute"):
        if values.get(name) == 0:
            values[name] = None
    return msgspec.structs.replace(request, **values)
