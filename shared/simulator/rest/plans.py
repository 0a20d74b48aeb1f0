"""Bitget's REST v2 for USDT-M futures: trigger orders, stops and targets.

`holdSide` names the position in words of its own: long/short in hedge mode, buy/sell (buy: the long) in one-way mode;
the other style is refused with 43011, in two wordings (recorded). `side` and `tradeSide` of plan orders are as in
`rest_orders`.

`cancel-plan-order` cancels plans of the kind that it names and of no other. Without `planType` these are trigger orders
only; `profit_loss`, the kind under which the lists group stops and targets, cancels nothing and succeeds (recorded).

Source: Bitget v2, REST -> Trigger orders; payloads recorded in October 2026.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, ClassVar, cast

from shared.simulator import payloads
from shared.simulator.faults.conditions import MESSAGES
from shared.simulator.gate import Refused
from shared.simulator.rest.common import (
    HISTORY_DAYS,
    MIX,
    Endpoint,
    Group,
    Params,
    margin_coin,
    number,
    one_of,
    optional,
    paged,
    required,
    text,
    unless_refused,
    window,
)
from shared.simulator.rest.orders import BATCH_MAX, STP_MODES, failure
from shared.simulator.venue.orders import (
    ZERO,
    Accepted,
    OrderRequest,
    Plan,
    PlanChange,
    PlanRequest,
    PlanType,
    PositionSide,
    Refusal,
    TriggerType,
)
from shared.simulator.venue.plan_rules import PROTECTIONS, WHOLE
from shared.types import OrderKind, Side

TRIGGERS: frozenset[PlanType] = frozenset({"normal_plan", "track_plan"})

_LISTED: dict[str, frozenset[PlanType]] = {
    "normal_plan": frozenset({"normal_plan"}),
    "track_plan": frozenset({"track_plan"}),
    "profit_loss": PROTECTIONS,
}
"""What `planType` means in lists."""

_TRIGGER_TYPES = ("fill_price", "mark_price")
_ENDS = ("executed", "fail_execute", "cancelled")


class PlanRest(Group):
    """`/api/v2/mix/order/*` of plan orders."""

    ENDPOINTS: ClassVar[dict[str, Endpoint]] = {
        MIX + "order/place-tpsl-order": Endpoint("POST", 10, True, "place_tpsl_order"),
        MIX + "order/place-pos-tpsl": Endpoint("POST", 10, True, "place_pos_tpsl"),
        MIX + "order/place-plan-order": Endpoint("POST", 10, True, "place_plan_order"),
        MIX + "order/modify-tpsl-order": Endpoint("POST", 10, True, "modify_tpsl_order"),
        MIX + "order/modify-plan-order": Endpoint("POST", 10, True, "modify_plan_order"),
        MIX + "order/cancel-plan-order": Endpoint("POST", 10, True, "cancel_plan_order"),
        MIX + "order/orders-plan-pending": Endpoint("GET", 10, True, "orders_plan_pending"),
        MIX + "order/orders-plan-history": Endpoint("GET", 10, True, "orders_plan_history"),
        MIX + "order/plan-sub-order": Endpoint("GET", 10, True, "plan_sub_order"),
    }

    # ------------------------------------------------------------------------------------- new plans

    def place_plan_order(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        plan_type = cast(PlanType, one_of(params, "planType", ("normal_plan", "track_plan")))
        is_isolated = one_of(params, "marginMode", ("crossed", "isolated")) == "isolated"
        margin_coin(params)
        side, position_side = self._sides(params, key)
        is_market = one_of(params, "orderType", ("limit", "market")) == "market"
        is_track = plan_type == "track_plan"
        if is_track and (text(params, "price") or not is_market):
            raise Refused("40020", f"Parameter {'price' if is_market else 'orderType'} error")
        request = PlanRequest(
            symbol=symbol,
            plan_type=plan_type,
            side=side,
            size=number(required(params, "size"), "size"),
            trigger_price=number(required(params, "triggerPrice"), "triggerPrice"),
            trigger_type=_trigger_type(params, "triggerType", is_required=True),
            execute_price=None if is_market else number(required(params, "price"), "price"),
            callback_ratio=number(required(params, "callbackRatio"), "callbackRatio") if is_track else None,
            position_side=position_side,
            reduce_only=position_side == "net" and one_of(params, "reduceOnly", ("yes", "no"), default="no") == "yes",
            margin_mode="isolated" if is_isolated else "crossed",
            client_oid=text(params, "clientOid"),
            stop_loss=optional(params, "stopLossTriggerPrice"),
            take_profit=optional(params, "stopSurplusTriggerPrice"),
            stop_loss_execute=optional(params, "stopLossExecutePrice"),
            take_profit_execute=optional(params, "stopSurplusExecutePrice"),
            stop_loss_type=_trigger_type(params, "stopLossTriggerType"),
            take_profit_type=_trigger_type(params, "stopSurplusTriggerType"),
            stp=one_of(params, "stpMode", STP_MODES, default="none"),
        )
        return _ack(self._place(key, request))

    def place_tpsl_order(self, params: Params, key: str) -> Any:
        symbol, (side, position_side) = self._symbol(params), self._protected(params, key)
        kinds = tuple(sorted(PROTECTIONS))
        plan_type = cast(PlanType, one_of(params, "planType", kinds))
        is_moving = plan_type == "moving_plan"
        request = PlanRequest(
            symbol=symbol,
            plan_type=plan_type,
            side=side,
            # Clients send the position's size along with pos_* plans, which have none of their own.
            size=ZERO if plan_type in WHOLE else number(required(params, "size"), "size"),
            trigger_price=number(required(params, "triggerPrice"), "triggerPrice"),
            trigger_type=_trigger_type(params, "triggerType"),
            execute_price=optional(params, "executePrice"),
            callback_ratio=number(required(params, "rangeRate"), "rangeRate") if is_moving else None,
            position_side=position_side,
            client_oid=text(params, "clientOid"),
            stp=one_of(params, "stpMode", STP_MODES, default="none"),
        )
        return _ack(self._place(key, request))

    def place_pos_tpsl(self, params: Params, key: str) -> Any:
        symbol, (side, position_side) = self._symbol(params), self._protected(params, key)
        stp = one_of(params, "stpMode", STP_MODES, default="none")
        requests: list[PlanRequest] = []
        for leg, sized, whole in (
            ("stopSurplus", "profit_plan", "pos_profit"),
            ("stopLoss", "loss_plan", "pos_loss"),
        ):
            trigger = optional(params, leg + "TriggerPrice")
            if trigger is None:
                continue
            size = optional(params, leg + "Size")
            requests.append(
                PlanRequest(
                    symbol=symbol,
                    plan_type=cast(PlanType, whole if size is None else sized),
                    side=side,
                    size=ZERO if size is None else size,
                    trigger_price=trigger,
                    trigger_type=_trigger_type(params, leg + "TriggerType"),
                    execute_price=optional(params, leg + "ExecutePrice"),
                    position_side=position_side,
                    client_oid=text(params, leg + "ClientOid"),
                    stp=stp,
                )
            )
        if not requests:
            raise Refused("40019", "Parameter stopSurplusTriggerPrice cannot be empty")
        oids = [request.client_oid for request in requests if request.client_oid]
        if len(set(oids)) < len(oids):
            raise Refused("40786", "Duplicate clientOid")
        self._prepare(key, requests[0])
        for request in requests:  # both or none
            refusal = self.venue.plans.refusal(key, request)
            if refusal is not None:
                raise Refused(refusal.code, refusal.message)
        done = [(request, self._place(key, request)) for request in requests]
        names = {
            "stopSurplusClientOid" if request.plan_type in ("profit_plan", "pos_profit") else "stopLossClientOid": one
            for request, one in done
        }
        given = {
            name: names[name].client_oid if name in names else ""
            for name in ("stopSurplusClientOid", "stopLossClientOid")
        }
        return [{"orderId": accepted.order_id} | given for _, accepted in done]

    # --------------------------------------------------------------------------------------- changes

    def modify_tpsl_order(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        margin_coin(params)
        change = PlanChange(
            size=_given(params, "size"),
            trigger_price=number(required(params, "triggerPrice"), "triggerPrice"),
            trigger_type=_given_type(params, "triggerType"),
            execute_price=_given(params, "executePrice") or ZERO,  # not filled in means market (documented)
            callback_ratio=_given(params, "rangeRate"),
        )
        return _ack(self._modify(params, key, symbol, change, PROTECTIONS))

    def modify_plan_order(self, params: Params, key: str) -> Any:
        self._is_ours(params)
        symbol = self._symbol(params) if text(params, "symbol") else None
        trigger_type = _given_type(params, "newTriggerType")
        trigger, price = _given(params, "newTriggerPrice"), _given(params, "newPrice")
        plan = self._find(params, key)
        if price is not None and (price == 0 or (plan is not None and plan.request.execute_price is None)):
            raise Refused("40020", "Parameter newPrice error")  # a limit order stays one, a market order has none
        if trigger_type is not None and trigger is None:
            raise Refused("40019", "Parameter newTriggerPrice cannot be empty")
        change = PlanChange(
            size=_given(params, "newSize"),
            trigger_price=trigger,
            trigger_type=trigger_type,
            execute_price=price,
            callback_ratio=_given(params, "newCallbackRatio"),
            stop_loss=_given(params, "newStopLossTriggerPrice"),
            take_profit=_given(params, "newStopSurplusTriggerPrice"),
            stop_loss_execute=_given(params, "newStopLossExecutePrice"),
            take_profit_execute=_given(params, "newStopSurplusExecutePrice"),
            stop_loss_type=_given_type(params, "newStopLossTriggerType"),
            take_profit_type=_given_type(params, "newStopSurplusTriggerType"),
        )
        return _ack(self._modify(params, key, symbol, change, TRIGGERS))

    def cancel_plan_order(self, params: Params, key: str) -> Any:
        done: list[dict[str, Any]] = []
        failed: list[dict[str, str]] = []
        kinds = (*sorted(TRIGGERS), *sorted(PROTECTIONS), "profit_loss")
        named = one_of(params, "planType", kinds) if text(params, "planType") else ""
        plan_types = TRIGGERS if not named else frozenset({cast(PlanType, named)})
        wanted = params.get("orderIdList")
        is_ours = self._is_ours(params)
        symbol = self._symbol(params) if wanted or text(params, "symbol") else None
        if wanted and not isinstance(wanted, list):
            raise Refused("40020", "Parameter orderIdList error")
        if wanted and len(wanted) > BATCH_MAX:
            raise Refused("40912", "single cancel cannot exceed 50")
        if not is_ours or named == "profit_loss":
            return {"successList": done, "failureList": failed}
        now_ns = self.context.now_ns()
        for one in wanted or ({"orderId": p.order_id} for p in self.venue.plans.pending(key, symbol, plan_types)):
            try:
                if not isinstance(one, dict):
                    raise Refused("40020", "Parameter orderIdList error")
                plan = self._find(one, key)
                if plan is not None and plan.request.plan_type not in plan_types:
                    continue  # of another kind than named: not even a failure (recorded for profit_loss)
                order_id = plan.order_id if plan is not None else text(one, "orderId")
                answer = self.venue.plans.cancel(key, now_ns, order_id=order_id, symbol=symbol, plan_types=plan_types)
                done.append(_ack(unless_refused(answer)))
            except Refused as refused:
                failed.append(failure(one, refused))
        return {"successList": done, "failureList": failed}

    # ------------------------------------------------------------------------------------ questions

    def orders_plan_pending(self, params: Params, key: str) -> Any:
        plan_types = _LISTED[one_of(params, "planType", tuple(_LISTED))]
        plans = self.venue.plans.pending(key, text(params, "symbol") or None, plan_types)
        return self._page(params, plans, is_history=False)

    def orders_plan_history(self, params: Params, key: str) -> Any:
        plan_types = _LISTED[one_of(params, "planType", tuple(_LISTED))]
        status = one_of(params, "planStatus", _ENDS) if text(params, "planStatus") else None
        plans = self.venue.plans.history(key, text(params, "symbol") or None, plan_types)
        return self._page(params, [plan for plan in plans if status in (None, plan.status)], is_history=True)

    def plan_sub_order(self, params: Params, key: str) -> Any:
        plan_type = one_of(params, "planType", tuple(sorted(TRIGGERS)))
        order_id = required(params, "planOrderId")
        plan = self.venue.plans.plan(key, order_id=order_id) if self._is_ours(params) else None
        if plan is None or plan.request.plan_type != plan_type:
            raise Refused("43025", "Plan order does not exist")
        return [payloads.plan_sub_row(plan)] if plan.triggered_ns is not None else []

    # -------------------------------------------------------------------------------------- helpers

    def _protected(self, params: Params, key: str) -> tuple[Side, PositionSide]:
        """Return (economic side of the close, position side) of the position that `holdSide` names."""
        margin_coin(params)
        hold_side = required(params, "holdSide").lower()
        if self.venue.position_mode(key) == "hedge_mode":
            if hold_side == "long":
                return Side.SELL, "long"
            if hold_side == "short":
                return Side.BUY, "short"
            raise Refused("43011", "The parameter does not meet the specification d delegateType is error")
        if hold_side not in ("buy", "sell"):
            raise Refused("43011", "The parameter does not meet the specification holdSide error")
        return Side(hold_side).opposite, "net"

    def _prepare(self, key: str, request: PlanRequest) -> None:
        """Bring the venue's last price up to what clients see, and refuse what protects a position they do not."""
        self._know_last(request.symbol)
        closing = OrderRequest(
            symbol=request.symbol, side=request.side, kind=OrderKind.MARKET, size=request.size,
            position_side=request.position_side,
        )  # fmt: skip
        if request.plan_type in PROTECTIONS and not self.desk.shows_position(key, closing, self.context.now_ns()):
            raise Refused("43023", MESSAGES["43023"])

    def _know_last(self, symbol: str) -> None:
        # The venue is told trades only where somebody waits for them; which way a new trigger lies, it must know now.
        fields = self.feed.ticker_fields(self.context.now_ns(), symbol)
        if fields is not None and fields.get("lastPr"):
            self.venue.set_last(symbol, Decimal(fields["lastPr"]))

    def _place(self, key: str, request: PlanRequest) -> Accepted:
        self._prepare(key, request)
        return _accepted(self.venue.plans.place(key, request, self.context.now_ns()))

    def _find(self, params: Params, key: str) -> Plan | None:
        order_id, client_oid = text(params, "orderId"), text(params, "clientOid")
        if not order_id and not client_oid:
            raise Refused("40924", "orderId and clientOid must have one")
        return self.venue.plans.plan(key, order_id=order_id, client_oid=client_oid)

    def _modify(
        self, params: Params, key: str, symbol: str | None, change: PlanChange, plan_types: frozenset[PlanType]
    ) -> Accepted:
        plan = self._find(params, key)
        if plan is not None:
            self._know_last(plan.request.symbol)
        return _accepted(
            self.venue.plans.modify(
                key,
                change,
                self.context.now_ns(),
                order_id=plan.order_id if plan is not None else text(params, "orderId"),
                symbol=symbol,
                plan_types=plan_types,
            )
        )

    def _page(self, params: Params, plans: Iterable[Plan], *, is_history: bool) -> Any:
        window(params, HISTORY_DAYS)
        order_id, client_oid = text(params, "orderId"), text(params, "clientOid")
        meant = [
            plan
            for plan in (plans if self._is_ours(params) else ())
            if (plan.order_id == order_id if order_id else client_oid in ("", plan.client_oid))
        ]

        def row(plan: Plan) -> payloads.Row:
            return payloads.plan_history_row(self.venue, plan) if is_history else payloads.plan_row(self.venue, plan)

        return paged(
            params,
            meant,
            name="entrustedList",
            id_of=lambda plan: plan.order_id,
            time_ns_of=lambda plan: plan.created_ns,
            row=row,
        )


def _ack(accepted: Accepted) -> dict[str, Any]:
    return {"clientOid": accepted.client_oid, "orderId": accepted.order_id}


def _accepted(answer: Accepted | Refusal) -> Accepted:
    accepted = unless_refused(answer)
    assert isinstance(accepted, Accepted)
    return accepted


def _trigger_type(params: Params, name: str, *, is_required: bool = False) -> TriggerType:
    return cast(TriggerType, one_of(params, name, _TRIGGER_TYPES, default="" if is_required else "fill_price"))


def _given_type(params: Params, name: str) -> TriggerType | None:
    return _trigger_type(params, name) if text(params, name) else None


def _given(params: Params, name: str) -> Decimal | None:
    """Return a new value, None where it is absent or empty: as before. 0 is a value."""
    value = text(params, name)
    return number(value, name) if value else None
