"""Bitget's REST v2 for USDT-M futures: orders and fills.

Source: Bitget v2, REST -> Order; payloads recorded in September and October 2026.
"""

from __future__ import annotations

from typing import Any, ClassVar

from shared.simulator import payloads
from shared.simulator.conditions import MESSAGES
from shared.simulator.gate import Refused
from shared.simulator.orders import Accepted, Order, OrderRequest
from shared.simulator.rest_common import (
    MIX,
    Endpoint,
    Group,
    Params,
    in_time,
    limit,
    number,
    one_of,
    optional,
    required,
    unless_refused,
)
from shared.types import OrderKind, Side

_STP_MODES = ("none", "cancel_taker", "cancel_maker", "cancel_both")


class OrderRest(Group):
    """`/api/v2/mix/order/*` but for plan orders."""

    ENDPOINTS: ClassVar[dict[str, Endpoint]] = {
        MIX + "order/place-order": Endpoint("POST", 10, True, "place_order"),
        MIX + "order/cancel-order": Endpoint("POST", 10, True, "cancel_order"),
        MIX + "order/batch-cancel-orders": Endpoint("POST", 10, True, "batch_cancel_orders"),
        MIX + "order/cancel-all-orders": Endpoint("POST", 10, True, "cancel_all_orders"),
        MIX + "order/detail": Endpoint("GET", 10, True, "detail"),
        MIX + "order/orders-pending": Endpoint("GET", 10, True, "orders_pending"),
        MIX + "order/orders-history": Endpoint("GET", 10, True, "orders_history"),
        MIX + "order/fills": Endpoint("GET", 10, True, "fills"),
    }

    def place_order(self, params: Params, key: str) -> Any:
        request = self._order_request(params)
        # One-way accounts refuse tradeSide, hedge accounts refuse its absence, with the same words (recorded).
        if (self.venue.position_mode(key) == "one_way_mode") == bool(params.get("tradeSide")):
            raise Refused("40774", "The order type for unilateral position must also be the unilateral position type.")
        if request.closes and not self.desk.shows_position(key, request, self.context.now_ns()):
            raise Refused("43023", MESSAGES["43023"])
        accepted = unless_refused(self.venue.accept(key, request, self.context.now_ns()))
        assert isinstance(accepted, Accepted)

        def match() -> None:
            now_ns = self.context.now_ns()
            self.desk.advance(now_ns)
            fault = self.context.faults.order(request.symbol)
            if fault is None:
                self.venue.match(key, accepted.order_id, now_ns)
            else:
                self.desk.reject(key, request.symbol, accepted.order_id, now_ns, is_told=fault.is_pushed)
            self.context.push()

        self.context.after_ms(self.context.conditions.match_ms, match)
        return {"clientOid": accepted.client_oid, "orderId": accepted.order_id}

    def cancel_order(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        return self._cancel(key, symbol, params)

    def batch_cancel_orders(self, params: Params, key: str) -> Any:
        if not self._is_ours(params):
            return {"successList": [], "failureList": []}
        wanted = params.get("orderIdList")
        symbol = self._symbol(params) if params.get("symbol") else None
        if not wanted:
            return self._cancel_all(key, symbol)
        if not isinstance(wanted, list) or len(wanted) > 50 or symbol is None:
            raise Refused("40912", "The maximum number of orders to cancel at once is 50, all of one symbol")
        done, failed = [], []
        for one in wanted:
            ids = {name: one[name] for name in ("orderId", "clientOid") if isinstance(one, dict) and one.get(name)}
            try:
                done.append(self._cancel(key, symbol, ids))
            except Refused as refused:
                blank = {"orderId": "", "clientOid": ""}
                failed.append(blank | ids | {"errorMsg": refused.message, "errorCode": refused.code})
        return {"successList": done, "failureList": failed}

    def cancel_all_orders(self, params: Params, key: str) -> Any:
        return self._cancel_all(key, None) if self._is_ours(params) else {"successList": [], "failureList": []}

    def detail(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        order = self._find(key, params)
        if order is None or order.symbol != symbol:
            raise Refused("40768", "Order does not exist")
        return payloads.detail_row(order)

    def orders_pending(self, params: Params, key: str) -> Any:
        return self._page(params, self.venue.pending(key), "entrustedList")

    def orders_history(self, params: Params, key: str) -> Any:
        return self._page(params, self.venue.closed(key), "entrustedList")

    def fills(self, params: Params, key: str) -> Any:
        self._is_ours(params)
        order_id, symbol = params.get("orderId"), params.get("symbol")
        found = [
            fill
            for fill in reversed(self.venue.fills(key))
            if order_id in (None, "", fill.order_id)
            and symbol in (None, "", fill.symbol)
            and in_time(params, fill.time_ns)
        ]
        before = params.get("idLessThan")
        if before:
            found = [fill for fill in found if int(fill.trade_id) < int(number(before, "idLessThan"))]
        found = found[: limit(params)]
        # Empty lists in paged answers are null, and so is endId (recorded).
        return {
            "fillList": [payloads.fill_row(fill) for fill in found] or None,
            "endId": found[-1].trade_id if found else None,
        }

    # ------------------------------------------------------------------------------------ helpers

    def _order_request(self, params: Params) -> OrderRequest:
        symbol = self._symbol(params)
        one_of(params, "marginMode", ("crossed", "isolated"))
        if str(required(params, "marginCoin")).upper() != "USDT":
            raise Refused("40020", "Parameter marginCoin error")
        side = Side(one_of(params, "side", ("buy", "sell")))
        is_market = one_of(params, "orderType", ("limit", "market")) == "market"
        force = one_of({"force": params.get("force") or "gtc"}, "force", ("gtc", "ioc", "fok", "post_only"))
        kinds = {"gtc": OrderKind.LIMIT, "ioc": OrderKind.IOC, "fok": OrderKind.FOK, "post_only": OrderKind.POST_ONLY}
        price = params.get("price")
        return OrderRequest(
            symbol=symbol,
            side=side,
            kind=OrderKind.MARKET if is_market else kinds[force],
            size=number(required(params, "size"), "size"),
            price=None if is_market or price in (None, "") else number(price, "price"),
            reduce_only=one_of({"reduceOnly": params.get("reduceOnly") or "no"}, "reduceOnly", ("yes", "no")) == "yes",
            client_oid=str(params.get("clientOid") or ""),
            stop_loss=optional(params, "presetStopLossPrice"),
            take_profit=optional(params, "presetStopSurplusPrice"),
            stp=one_of({"stpMode": params.get("stpMode") or "none"}, "stpMode", _STP_MODES),
        )

    def _find(self, key: str, params: Params) -> Order | None:
        order_id, client_oid = params.get("orderId"), params.get("clientOid")
        if not order_id and not client_oid:
            raise Refused("40019", "Parameter orderId or clientOid cannot be empty")
        return self.venue.order(key, order_id=str(order_id or ""), client_oid=str(client_oid or ""))

    def _cancel(self, key: str, symbol: str, params: Params) -> Any:
        order = self._find(key, params)
        if order is None:
            raise Refused("40768", "Order does not exist")
        cancelled = unless_refused(self.venue.cancel(key, symbol, self.context.now_ns(), order_id=order.order_id))
        assert isinstance(cancelled, Accepted)
        return {"orderId": cancelled.order_id, "clientOid": cancelled.client_oid}

    def _cancel_all(self, key: str, symbol: str | None) -> Any:
        orders = [order for order in self.venue.pending(key) if symbol in (None, order.symbol)]
        done = [self._cancel(key, order.symbol, {"orderId": order.order_id}) for order in orders]
        return {"successList": done, "failureList": []}

    def _page(self, params: Params, orders: list[Order], name: str) -> Any:
        """Return one page, newest first, filtered as Bitget filters."""
        self._is_ours(params)
        wanted = {
            field: params.get(field) for field in ("symbol", "orderId", "clientOid", "status") if params.get(field)
        }
        rows = [
            row
            for order in reversed(orders)
            if in_time(params, order.created_ns)
            for row in [payloads.order_row(order)]
            if all(row[field] == value for field, value in wanted.items())
        ]
        before = params.get("idLessThan")
        if before:
            rows = [row for row in rows if int(row["orderId"]) < int(number(before, "idLessThan"))]
        rows = rows[: limit(params)]
        return {name: rows or None, "endId": rows[-1]["orderId"] if rows else None}
