"""Bitget's REST v2 for USDT-M futures: orders and fills.

Sides: in one-way mode `side` is economic and `tradeSide` must be absent. In hedge mode `tradeSide` is needed, and
`side` is the *position's*: closing a long is `side: buy, tradeSide: close`. The venue speaks economically;
`Group._sides` translates requests, `payloads` translates answers.

An answer says that an order was accepted; matching follows `match_ms` later, as pushes and `detail` show.

Source: Bitget v2, REST -> Order; payloads recorded in September and October 2026.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

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
from shared.simulator.venue.orders import Accepted, Fill, Order, OrderRequest
from shared.types import OrderKind

BATCH_MAX = 50
FILL_HISTORY_DAYS = 7
STP_MODES = ("none", "cancel_taker", "cancel_maker", "cancel_both")

_SHARED = ("symbol", "productType", "marginMode", "marginCoin")
_KINDS = {"gtc": OrderKind.LIMIT, "ioc": OrderKind.IOC, "fok": OrderKind.FOK, "post_only": OrderKind.POST_ONLY}


class OrderRest(Group):
    """`/api/v2/mix/order/*` but for plan orders."""

    ENDPOINTS: ClassVar[dict[str, Endpoint]] = {
        MIX + "order/place-order": Endpoint("POST", 10, True, "place_order"),
        MIX + "order/batch-place-order": Endpoint("POST", 5, True, "batch_place_order"),
        MIX + "order/modify-order": Endpoint("POST", 10, True, "modify_order"),
        MIX + "order/cancel-order": Endpoint("POST", 10, True, "cancel_order"),
        MIX + "order/batch-cancel-orders": Endpoint("POST", 10, True, "batch_cancel_orders"),
        MIX + "order/cancel-all-orders": Endpoint("POST", 10, True, "cancel_all_orders"),
        MIX + "order/close-positions": Endpoint("POST", 1, True, "close_positions"),
        MIX + "order/click-backhand": Endpoint("POST", 10, True, "click_backhand"),
        MIX + "order/detail": Endpoint("GET", 10, True, "detail"),
        MIX + "order/orders-pending": Endpoint("GET", 10, True, "orders_pending"),
        MIX + "order/orders-history": Endpoint("GET", 10, True, "orders_history"),
        MIX + "order/fills": Endpoint("GET", 10, True, "fills"),
        MIX + "order/fill-history": Endpoint("GET", 10, True, "fill_history", is_in_demo=False),
    }

    # --------------------------------------------------------------------------------- new orders

    def place_order(self, params: Params, key: str) -> Any:
        accepted = self._accept(params, key)
        self._match_later(key, [accepted])
        return _ack(accepted)

    def batch_place_order(self, params: Params, key: str) -> Any:
        self._symbol(params)
        wanted = params.get("orderList")
        if not wanted:
            raise Refused("40019", "Parameter orderList cannot be empty")
        if not isinstance(wanted, list):
            raise Refused("40020", "Parameter orderList error")
        if len(wanted) > BATCH_MAX:
            raise Refused("40306", f"Batch processing orders can only process up to {BATCH_MAX}")
        shared = {name: params[name] for name in _SHARED if name in params}
        done: list[Accepted] = []
        failed = []
        for one in wanted:
            try:
                if not isinstance(one, dict):
                    raise Refused("40020", "Parameter orderList error")
                done.append(self._accept(one | shared, key))
            except Refused as refused:
                failed.append(failure(one, refused))
        self._match_later(key, done)
        return {"successList": [_ack(accepted) for accepted in done], "failureList": failed}

    def modify_order(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        order = self._find(key, params, "40924", "orderId and clientOid must have one")
        size, price = text(params, "newSize"), text(params, "newPrice")
        new_client_oid = text(params, "newClientOid")
        if (size or price) and not new_client_oid:
            raise Refused("22003", "modify price and size, please pass in newClientOid")
        if order is None:
            raise Refused("40768", "Order does not exist")
        stop, target = text(params, "newPresetStopLossPrice"), text(params, "newPresetStopSurplusPrice")
        accepted = unless_refused(
            self.venue.modify(
                key,
                symbol,
                self.context.now_ns(),
                order_id=order.order_id,
                new_client_oid=new_client_oid,
                new_size=number(size, "newSize") if size else None,
                new_price=number(price, "newPrice") if price else None,
                new_stop_loss=number(stop, "newPresetStopLossPrice") if stop else None,
                new_take_profit=number(target, "newPresetStopSurplusPrice") if target else None,
                matches=False,
            )
        )
        assert isinstance(accepted, Accepted)
        if accepted.order_id == order.order_id:
            return _ack(accepted)
        self._match_later(key, [accepted])
        # The new order comes into being asynchronously there: its id is asked for by newClientOid.
        return {"clientOid": accepted.client_oid, "orderId": None}

    def close_positions(self, params: Params, key: str) -> Any:
        if not self._is_ours(params):
            raise Refused("22002", "No position to close")
        symbol = self._symbol(params) if text(params, "symbol") else None
        is_hedged = self.venue.position_mode(key) == "hedge_mode"
        side = one_of(params, "holdSide", ("long", "short")) if is_hedged and text(params, "holdSide") else None
        done, refused = self.venue.close_at_market(key, self.context.now_ns(), symbol, side, matches=False)
        if not done and all(refusal.code == "22002" for _, refusal in refused):
            raise Refused("22002", "No position to close")
        symbols = {accepted.order_id: self._symbol_of(key, accepted) for accepted in done}
        self._match_later(key, done)
        return {
            "successList": [_ack(accepted) | {"symbol": symbols[accepted.order_id]} for accepted in done],
            "failureList": [
                {
                    "orderId": "", "clientOid": "", "symbol": where,
                    "errorMsg": refusal.message, "errorCode": refusal.code,
                }
                for where, refusal in refused
            ],
        }  # fmt: skip

    def click_backhand(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        margin_coin(params)
        side = one_of(params, "side", ("buy", "sell"))
        is_hedged = self._mode_is_hedged(params, key)
        size = text(params, "size")
        accepted = unless_refused(
            self.venue.reverse(
                key,
                symbol,
                self.context.now_ns(),
                size=number(size, "size") if size else None,
                hold_side=("long" if side == "buy" else "short") if is_hedged else None,
                client_oid=text(params, "clientOid"),
                matches=False,
            )
        )
        assert isinstance(accepted, Accepted)
        self._match_later(key, [accepted])
        return _ack(accepted)

    # -------------------------------------------------------------------------------------- cancels

    def cancel_order(self, params: Params, key: str) -> Any:
        return self._cancel(key, self._symbol(params), params)

    def batch_cancel_orders(self, params: Params, key: str) -> Any:
        if not self._is_ours(params):
            return {"successList": [], "failureList": []}
        wanted = params.get("orderIdList")
        symbol = self._symbol(params) if text(params, "symbol") else None
        if not wanted:
            return self._cancel_all(key, symbol)
        if not isinstance(wanted, list):
            raise Refused("40020", "Parameter orderIdList error")
        if len(wanted) > BATCH_MAX:
            raise Refused("40912", "single cancel cannot exceed 50")
        done, failed = [], []
        for one in wanted:
            try:
                if not isinstance(one, dict):
                    raise Refused("40020", "Parameter orderIdList error")
                done.append(self._cancel(key, symbol, one))
            except Refused as refused:
                failed.append(failure(one, refused))
        return {"successList": done, "failureList": failed}

    def cancel_all_orders(self, params: Params, key: str) -> Any:
        return self._cancel_all(key, None) if self._is_ours(params) else {"successList": [], "failureList": []}

    # ------------------------------------------------------------------------------------ questions

    def detail(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        order = self._find(key, params)
        if order is None or order.symbol != symbol:
            raise Refused("40768", "Order does not exist")
        return payloads.detail_row(order)

    def orders_pending(self, params: Params, key: str) -> Any:
        return self._orders(params, self.venue.pending(key), is_history=False)

    def orders_history(self, params: Params, key: str) -> Any:
        return self._orders(params, self.venue.closed(key), is_history=True)

    def fills(self, params: Params, key: str) -> Any:
        return self._fills(params, key, HISTORY_DAYS)

    def fill_history(self, params: Params, key: str) -> Any:
        return self._fills(params, key, FILL_HISTORY_DAYS)

    # ------------------------------------------------------------------------------------ helpers

    def _accept(self, params: Params, key: str) -> Accepted:
        request = self._order_request(params, key)
        if request.closes and not self.desk.shows_position(key, request, self.context.now_ns()):
            raise Refused("43023", MESSAGES["43023"])
        accepted = unless_refused(self.venue.accept(key, request, self.context.now_ns()))
        assert isinstance(accepted, Accepted)
        return accepted

    def _match_later(self, key: str, accepted: list[Accepted]) -> None:
        """Match accepted orders once their ack is on its way."""
        symbols = [self._symbol_of(key, one) for one in accepted]

        def match() -> None:
            now_ns = self.context.now_ns()
            self.desk.advance(now_ns)
            for one, symbol in zip(accepted, symbols, strict=True):
                fault = self.context.faults.order(symbol)
                if fault is None:
                    self.venue.match(key, one.order_id, now_ns)
                else:
                    self.desk.reject(key, symbol, one.order_id, now_ns, is_told=fault.is_pushed)
            self.context.push()

        self.context.after_ms(self.context.conditions.match_ms, match)

    def _symbol_of(self, key: str, accepted: Accepted) -> str:
        order = self.venue.order(key, order_id=accepted.order_id)
        assert order is not None, accepted
        return order.symbol

    def _order_request(self, params: Params, key: str) -> OrderRequest:
        symbol = self._symbol(params)
        is_isolated = one_of(params, "marginMode", ("crossed", "isolated")) == "isolated"
        margin_coin(params)
        side, position_side = self._sides(params, key)
        is_market = one_of(params, "orderType", ("limit", "market")) == "market"
        force = one_of(params, "force", tuple(_KINDS), default="gtc")
        size, price = number(required(params, "size"), "size"), text(params, "price")
        return OrderRequest(
            symbol=symbol,
            side=side,
            kind=OrderKind.MARKET if is_market else _KINDS[force],
            size=size,
            price=None if is_market or not price else number(price, "price"),
            reduce_only=one_of(params, "reduceOnly", ("yes", "no"), default="no") == "yes",
            client_oid=text(params, "clientOid"),
            stop_loss=optional(params, "presetStopLossPrice"),
            take_profit=optional(params, "presetStopSurplusPrice"),
            stop_loss_execute=optional(params, "presetStopLossExecutePrice"),
            take_profit_execute=optional(params, "presetStopSurplusExecutePrice"),
            stp=one_of(params, "stpMode", STP_MODES, default="none"),
            position_side=position_side,
            margin_mode="isolated" if is_isolated else "crossed",
        )

    def _find(
        self,
        key: str,
        params: Params,
        code: str = "40019",
        message: str = "Parameter orderId or clientOid cannot be empty",
    ) -> Order | None:
        """Return the order that is meant; orderId wins."""
        order_id, client_oid = text(params, "orderId"), text(params, "clientOid")
        if not order_id and not client_oid:
            raise Refused(code, message)
        return self.venue.order(key, order_id=order_id, client_oid=client_oid)

    def _cancel(self, key: str, symbol: str | None, params: Params) -> Any:
        order = self._find(key, params)
        if order is None:
            raise Refused("40768", "Order does not exist")
        cancelled = unless_refused(
            self.venue.cancel(key, symbol or order.symbol, self.context.now_ns(), order_id=order.order_id)
        )
        assert isinstance(cancelled, Accepted)
        return {"orderId": cancelled.order_id, "clientOid": cancelled.client_oid}

    def _cancel_all(self, key: str, symbol: str | None) -> Any:
        orders = [order for order in self.venue.pending(key) if symbol in (None, order.symbol)]
        done = [self._cancel(key, order.symbol, {"orderId": order.order_id}) for order in orders]
        return {"successList": done, "failureList": []}

    def _orders(self, params: Params, orders: Iterable[Order], *, is_history: bool) -> Any:
        window(params, HISTORY_DAYS)
        names = ("symbol", "orderId", "clientOid", "orderSource" if is_history else "status")
        wanted = {name: text(params, name) for name in names if text(params, name)}

        def row(order: Order) -> payloads.Row:
            return payloads.history_row(order) if is_history else payloads.order_row(order)

        meant = (o for o in orders if not wanted or wanted.items() <= payloads.order_row(o).items())
        return paged(
            params,
            meant if self._is_ours(params) else (),
            name="entrustedList",
            id_of=lambda order: order.order_id,
            time_ns_of=lambda order: order.created_ns,
            row=row,
        )

    def _fills(self, params: Params, key: str, days_max: int) -> Any:
        window(params, days_max)
        order_id, symbol = text(params, "orderId"), text(params, "symbol")
        meant: list[Fill] = [
            fill
            for fill in (self.venue.fills(key) if self._is_ours(params) else ())
            if order_id in ("", fill.order_id) and symbol in ("", fill.symbol)
        ]
        return paged(
            params,
            meant,
            name="fillList",
            id_of=lambda fill: fill.trade_id,
            time_ns_of=lambda fill: fill.time_ns,
            row=payloads.fill_row,
        )


def _ack(accepted: Accepted) -> dict[str, Any]:
    return {"clientOid": accepted.client_oid, "orderId": accepted.order_id}


def failure(one: Any, refused: Refused) -> dict[str, str]:
    given = one if isinstance(one, dict) else {}
    ids = {name: str(given.get(name) or "") for name in ("orderId", "clientOid")}
    return ids | {"errorMsg": refused.message, "errorCode": refused.code}
