"""Bitget's REST v2 for USDT-M futures: a table of endpoints, one handler each.

A handler gets the parameters (query of a GET, JSON body of a POST) and who asks, and returns the `data` of the answer;
envelope, statuses, rate limits and signatures are common (`Rest.handle`). Errors are HTTP 400 with Bitget's code.
To extend: write a method and add its row to `_ENDPOINTS`.

Source of paths, rates, fields and quirks: Bitget v2, REST, and payloads recorded in September and October 2026.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
from aiohttp import web

from shared.simulator import payloads
from shared.simulator.conditions import Conditions
from shared.simulator.desk import Desk
from shared.simulator.feed import PublicFeed
from shared.simulator.gate import Gate, RateLimit, Refused
from shared.simulator.venue import Accepted, Order, OrderRequest, Refusal
from shared.types import OrderKind, Side

MS = 1_000_000
DAY_MS = 86_400_000
BILL_WINDOW_DAYS = 30
Params = Mapping[str, Any]
PRODUCT_TYPES = ("USDT-FUTURES", "COIN-FUTURES", "USDC-FUTURES", "SUSDT-FUTURES", "SCOIN-FUTURES", "SUSDC-FUTURES")
_STP_MODES = ("none", "cancel_taker", "cancel_maker", "cancel_both")
_MIX = "/api/v2/mix/"


class Endpoint(msgspec.Struct, frozen=True):
    method: str
    per_s: int  # per IP where public, per account where private
    is_private: bool
    handler: str  # name of the method of Rest


_ENDPOINTS = {
    "/api/v2/public/time": Endpoint("GET", 20, False, "server_time"),
    _MIX + "market/contracts": Endpoint("GET", 20, False, "contracts"),
    _MIX + "market/ticker": Endpoint("GET", 20, False, "ticker"),
    _MIX + "market/tickers": Endpoint("GET", 20, False, "tickers"),
    _MIX + "market/merge-depth": Endpoint("GET", 20, False, "merge_depth"),
    _MIX + "market/fills": Endpoint("GET", 20, False, "public_fills"),
    _MIX + "market/fills-history": Endpoint("GET", 10, False, "public_fills"),
    _MIX + "market/current-fund-rate": Endpoint("GET", 20, False, "current_fund_rate"),
    _MIX + "account/account": Endpoint("GET", 10, True, "account"),
    _MIX + "account/accounts": Endpoint("GET", 10, True, "accounts"),
    _MIX + "account/bill": Endpoint("GET", 10, True, "bill"),
    _MIX + "account/set-leverage": Endpoint("POST", 5, True, "set_leverage"),
    _MIX + "account/set-margin-mode": Endpoint("POST", 5, True, "set_margin_mode"),
    _MIX + "account/set-position-mode": Endpoint("POST", 5, True, "set_position_mode"),
    _MIX + "order/place-order": Endpoint("POST", 10, True, "place_order"),
    _MIX + "order/cancel-order": Endpoint("POST", 10, True, "cancel_order"),
    _MIX + "order/batch-cancel-orders": Endpoint("POST", 10, True, "batch_cancel_orders"),
    _MIX + "order/cancel-all-orders": Endpoint("POST", 10, True, "cancel_all_orders"),
    _MIX + "order/detail": Endpoint("GET", 10, True, "detail"),
    _MIX + "order/orders-pending": Endpoint("GET", 10, True, "orders_pending"),
    _MIX + "order/orders-history": Endpoint("GET", 10, True, "orders_history"),
    _MIX + "order/fills": Endpoint("GET", 10, True, "fills"),
    _MIX + "position/all-position": Endpoint("GET", 5, True, "all_position"),
    _MIX + "position/single-position": Endpoint("GET", 10, True, "single_position"),
}


class Rest:
    """Answers REST requests from a feed (public) and a desk (private).

    Args:
        after_ms: calls a function so many milliseconds later: matching and pushes follow the ack.
    """

    def __init__(
        self,
        feed: PublicFeed,
        desk: Desk,
        gate: Gate,
        conditions: Conditions,
        after_ms: Callable[[float, Callable[[], None]], None],
        push: Callable[[], None],
    ) -> None:
        self.feed, self.market, self.desk, self.venue = feed, feed.market, desk, desk.venue
        self._gate, self._conditions = gate, conditions
        self._after_ms, self._push = after_ms, push
        self._contracts = {row["symbol"]: row for row in feed.market.contracts()}
        self._limits = RateLimit()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request in Bitget's envelope, whatever it is."""
        headers: dict[str, str] = {}
        try:
            endpoint = _ENDPOINTS.get(request.path)
            if endpoint is None or endpoint.method != request.method:
                raise Refused("40404", "Request URL NOT FOUND", 404)
            body = (await request.read()).decode("utf-8", "replace") if request.method == "POST" else ""
            key = ""
            if endpoint.is_private:
                if self._conditions.latency_ms > 0:
                    await asyncio.sleep(self._conditions.latency_ms / 1000)
                key = self._gate.check(request.method, request.raw_path, request.headers, body, time.time_ns() // MS)
            caller = key or request.remote or ""
            remaining = self._limits.take(caller, request.path, endpoint.per_s, time.monotonic())
            headers["x-mbx-used-remain-limit"] = str(remaining)
            self._strike(request.path)
            params = dict(request.query) if request.method == "GET" else _decode(body)
            is_silent = False
            if endpoint.handler == "place_order":
                if self._conditions.lose_next_place > 0:
                    self._conditions.lose_next_place -= 1
                    return await _never()
                is_silent = self._conditions.timeout_next_place > 0
                self._conditions.timeout_next_place -= is_silent
            if endpoint.is_private:
                self.desk.advance(time.time_ns())
                data = getattr(self, endpoint.handler)(params, key)
                self._after_ms(0.0, self._push)
            else:
                data = getattr(self, endpoint.handler)(params)
            if is_silent:
                return await _never()
        except Refused as refused:
            return _answer(refused.code, refused.message, None, refused.status, headers)
        return _answer("00000", "success", data, 200, headers)

    def _strike(self, path: str) -> None:
        for strike in self._conditions.refuse_next:
            if path.endswith(strike.path):
                self._conditions.refuse_next.remove(strike)
                raise Refused(strike.code, strike.msg, strike.status)

    # ------------------------------------------------------------------------------------- public

    def server_time(self, params: Params) -> Any:
        return {"serverTime": str(time.time_ns() // MS)}

    def contracts(self, params: Params) -> Any:
        if not self._is_ours(params):
            return []
        return [self._contracts[self._symbol(params)]] if "symbol" in params else list(self._contracts.values())

    def ticker(self, params: Params) -> Any:
        return [self._ticker_row(self._symbol(params))]

    def tickers(self, params: Params) -> Any:
        return [self._ticker_row(symbol) for symbol in self.market.symbols] if self._is_ours(params) else []

    def merge_depth(self, params: Params) -> Any:
        symbol = self._symbol(params)
        limit = str(params.get("limit", "100"))
        now_ns = time.time_ns()
        asks, bids = self.feed.book_rows(now_ns, symbol, int(limit) if limit.isdigit() else 100)
        return {
            "asks": [[_Number(p), _Number(s)] for p, s in asks],
            "bids": [[_Number(p), _Number(s)] for p, s in bids],
            "ts": str(now_ns // MS),
            "scale": payloads.plain(self.venue.contracts[symbol].tick),
            "precision": "scale0",
            "isMaxPrecision": "NO",
        }

    def public_fills(self, params: Params) -> Any:
        symbol = self._symbol(params)
        rows = self.feed.recent_trades(time.time_ns(), symbol, _limit(params))
        keys = ("tradeId", "price", "size", "side", "ts")
        return [{key: row[key] for key in keys} | {"symbol": symbol} for row in rows]

    def current_fund_rate(self, params: Params) -> Any:
        symbols = [self._symbol(params)] if "symbol" in params else list(self.market.symbols)
        return [self._fund_rate_row(symbol) for symbol in symbols]

    def _fund_rate_row(self, symbol: str) -> Any:
        fields = self._fields(symbol)
        return {
            "symbol": symbol, "fundingRate": fields["fundingRate"],
            "fundingRateInterval": self._contracts[symbol]["fundInterval"], "nextUpdate": fields["nextFundingTime"],
            "minFundingRate": "-0.003", "maxFundingRate": "0.003",
        }  # fmt: skip

    def _ticker_row(self, symbol: str) -> Any:
        f = self._fields(symbol)
        return {
            "symbol": symbol, "lastPr": f["lastPr"], "askPr": f["askPr"], "bidPr": f["bidPr"], "bidSz": f["bidSz"],
            "askSz": f["askSz"], "high24h": f["high24h"], "low24h": f["low24h"], "ts": str(time.time_ns() // MS),
            "change24h": f["change24h"], "baseVolume": f["baseVolume"], "quoteVolume": f["quoteVolume"],
            "usdtVolume": f["quoteVolume"], "openUtc": f["openUtc"], "changeUtc24h": f["change24h"],
            "indexPrice": f["indexPrice"], "fundingRate": f["fundingRate"], "holdingAmount": f["holdingAmount"],
            "deliveryStartTime": None, "deliveryTime": None, "deliveryStatus": "", "open24h": f["open24h"],
            "markPrice": f["markPrice"],
        }  # fmt: skip

    # ------------------------------------------------------------------------------------ account

    def account(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        _required(params, "marginCoin")
        return payloads.account_row(self.venue, key, symbol)

    def accounts(self, params: Params, key: str) -> Any:
        return [payloads.account_row(self.venue, key, None)] if self._is_ours(params) else []

    def bill(self, params: Params, key: str) -> Any:
        if not self._is_ours(params):
            return {"bills": None, "endId": None}
        start, end = params.get("startTime"), params.get("endTime")
        if start and end and _number(end, "endTime") - _number(start, "startTime") > BILL_WINDOW_DAYS * DAY_MS:
            raise Refused("00001", f"startTime and endTime interval cannot be greater than {BILL_WINDOW_DAYS} days")
        listed_ns = time.time_ns() - int(self._conditions.bill_delay_ms * MS)
        found = [
            bill
            for bill in reversed(self.venue.bills(key))
            if bill.time_ns <= listed_ns
            and params.get("businessType") in (None, "", bill.kind)
            and params.get("symbol") in (None, "", bill.symbol)
            and str(params.get("coin") or "USDT").upper() == "USDT"
            and _in_time(params, bill.time_ns)
        ]
        before = params.get("idLessThan")
        if before:
            found = [bill for bill in found if int(bill.bill_id) < int(_number(before, "idLessThan"))]
        found = found[: _limit(params, default=20)]
        return {
            "bills": [payloads.bill_row(bill) for bill in found] or None,
            "endId": found[-1].bill_id if found else None,
        }

    def set_leverage(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        # Cross: one value a symbol; longLeverage wins where both are sent.
        text = params.get("longLeverage") or params.get("leverage") or params.get("shortLeverage")
        wanted = _number(text, "leverage")
        if wanted != wanted.to_integral_value():
            raise Refused("40020", "Parameter leverage error")
        obtained = str(_unless_refused(self.venue.set_leverage(key, symbol, int(wanted))))
        is_crossed = self.venue.margin_mode(key, symbol) == "crossed"
        return {
            "symbol": symbol, "marginCoin": "USDT", "longLeverage": obtained, "shortLeverage": obtained,
            "crossMarginLeverage": obtained if is_crossed else "", "marginMode": self.venue.margin_mode(key, symbol),
        }  # fmt: skip

    def set_margin_mode(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        _unless_refused(self.venue.set_margin_mode(key, symbol, _one_of(params, "marginMode", ("isolated", "crossed"))))
        leverage = str(self.venue.leverage(key, symbol))
        return {
            "symbol": symbol, "marginCoin": "USDT", "longLeverage": leverage, "shortLeverage": leverage,
            "marginMode": self.venue.margin_mode(key, symbol),
        }  # fmt: skip

    def set_position_mode(self, params: Params, key: str) -> Any:
        self._is_ours(params)
        mode = _one_of(params, "posMode", ("one_way_mode", "hedge_mode"))
        _unless_refused(self.venue.set_position_mode(key, mode))
        return {"posMode": mode}

    # ------------------------------------------------------------------------------------- orders

    def place_order(self, params: Params, key: str) -> Any:
        request = self._order_request(params)
        # One-way accounts refuse tradeSide, hedge accounts refuse its absence, with the same words (recorded).
        if (self.venue.position_mode(key) == "one_way_mode") == bool(params.get("tradeSide")):
            raise Refused("40774", "The order type for unilateral position must also be the unilateral position type.")
        accepted = _unless_refused(self.venue.accept(key, request, time.time_ns()))
        assert isinstance(accepted, Accepted)

        def match() -> None:
            now_ns = time.time_ns()
            self.desk.advance(now_ns)
            self.venue.match(key, accepted.order_id, now_ns)
            self._push()

        self._after_ms(self._conditions.match_ms, match)
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
            and _in_time(params, fill.time_ns)
        ]
        before = params.get("idLessThan")
        if before:
            found = [fill for fill in found if int(fill.trade_id) < int(_number(before, "idLessThan"))]
        found = found[: _limit(params)]
        # Empty lists in paged answers are null, and so is endId (recorded).
        return {
            "fillList": [payloads.fill_row(fill) for fill in found] or None,
            "endId": found[-1].trade_id if found else None,
        }

    # ---------------------------------------------------------------------------------- positions

    def all_position(self, params: Params, key: str) -> Any:
        if not self._is_ours(params):
            return []
        return [payloads.position_row(self.venue, key, p) for p in self.venue.positions(key)]

    def single_position(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        _required(params, "marginCoin")
        position = self.venue.position(key, symbol)
        return [payloads.position_row(self.venue, key, position)] if position is not None else []

    # ------------------------------------------------------------------------------------ helpers

    def _is_ours(self, params: Params) -> bool:
        product = str(params.get("productType", ""))
        if product.upper() not in PRODUCT_TYPES:
            raise Refused("40019", f"Parameter {product or 'productType'} cannot be empty")
        return product.upper() == "USDT-FUTURES"

    def _symbol(self, params: Params) -> str:
        self._is_ours(params)
        symbol = params.get("symbol")
        if not symbol:
            raise Refused("40019", "Parameter symbol cannot be empty")
        if not self.feed.knows(str(symbol)):
            raise Refused("40034", f"Parameter {symbol} does not exist")
        return str(symbol)

    def _fields(self, symbol: str) -> dict[str, str]:
        fields = self.feed.ticker_fields(time.time_ns(), symbol)
        if fields is None:
            raise Refused("40015", "System is abnormal, please try again later")
        return fields

    def _order_request(self, params: Params) -> OrderRequest:
        symbol = self._symbol(params)
        _one_of(params, "marginMode", ("crossed", "isolated"))
        if str(_required(params, "marginCoin")).upper() != "USDT":
            raise Refused("40020", "Parameter marginCoin error")
        side = Side(_one_of(params, "side", ("buy", "sell")))
        is_market = _one_of(params, "orderType", ("limit", "market")) == "market"
        force = _one_of({"force": params.get("force") or "gtc"}, "force", ("gtc", "ioc", "fok", "post_only"))
        kinds = {"gtc": OrderKind.LIMIT, "ioc": OrderKind.IOC, "fok": OrderKind.FOK, "post_only": OrderKind.POST_ONLY}
        price = params.get("price")
        return OrderRequest(
            symbol=symbol,
            side=side,
            kind=OrderKind.MARKET if is_market else kinds[force],
            size=_number(_required(params, "size"), "size"),
            price=None if is_market or price in (None, "") else _number(price, "price"),
            reduce_only=_one_of({"reduceOnly": params.get("reduceOnly") or "no"}, "reduceOnly", ("yes", "no")) == "yes",
            client_oid=str(params.get("clientOid") or ""),
            stop_loss=_optional(params, "presetStopLossPrice"),
            take_profit=_optional(params, "presetStopSurplusPrice"),
            stp=_one_of({"stpMode": params.get("stpMode") or "none"}, "stpMode", _STP_MODES),
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
        cancelled = _unless_refused(self.venue.cancel(key, symbol, time.time_ns(), order_id=order.order_id))
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
            if _in_time(params, order.created_ns)
            for row in [payloads.order_row(order)]
            if all(row[field] == value for field, value in wanted.items())
        ]
        before = params.get("idLessThan")
        if before:
            rows = [row for row in rows if int(row["orderId"]) < int(_number(before, "idLessThan"))]
        rows = rows[: _limit(params)]
        return {name: rows or None, "endId": rows[-1]["orderId"] if rows else None}


def _decode(body: str) -> Params:
    try:
        # Numbers keep their digits: ccxt sends some prices as JSON numbers.
        decoded = json.loads(body or "{}", parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        raise Refused("40017", "Parameter verification failed") from None
    if not isinstance(decoded, dict):
        raise Refused("40017", "Parameter verification failed")
    return decoded


def _required(params: Params, name: str) -> Any:
    value = params.get(name)
    if value in (None, ""):
        raise Refused("40019", f"Parameter {name} cannot be empty")
    return value


def _one_of(params: Params, name: str, allowed: tuple[str, ...]) -> str:
    """Return an enumerated parameter in lower case; Bitget does not mind the case."""
    value = str(_required(params, name)).lower()
    if value not in allowed:
        raise Refused("40020", f"Parameter {name} error")
    return value


def _number(value: Any, name: str) -> Decimal:
    if not isinstance(value, str) or len(value) > 40:
        raise Refused("40020", f"Parameter {name} error")
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise Refused("40020", f"Parameter {name} error") from None
    if not number.is_finite():
        raise Refused("40020", f"Parameter {name} error")
    return number


def _optional(params: Params, name: str) -> Decimal | None:
    value = params.get(name)
    return None if value in (None, "", "0") else _number(value, name)


def _limit(params: Params, default: int = 100) -> int:
    """Return the page size, 100 at most: more is silently cut."""
    value = str(params.get("limit") or default)
    if not value.isdigit() or int(value) == 0:
        raise Refused("40020", "Parameter limit error")
    return min(100, int(value))


def _in_time(params: Params, time_ns: int) -> bool:
    start, end = params.get("startTime"), params.get("endTime")
    at_ms = time_ns // MS
    return (not start or at_ms >= _number(start, "startTime")) and (not end or at_ms <= _number(end, "endTime"))


def _unless_refused(answer: Accepted | Refusal | int | None) -> Accepted | int | None:
    if isinstance(answer, Refusal):
        raise Refused(answer.code, answer.message)
    return answer


async def _never() -> web.StreamResponse:
    """Keep a client waiting until it or the server gives up."""
    await asyncio.sleep(3600)
    return web.Response(status=504)


class _Number(str):
    """A decimal that is written into JSON as a number, digit for digit (`merge-depth` alone does that)."""

    __slots__ = ()


def _answer(code: str, message: str, data: Any, status: int, headers: dict[str, str]) -> web.Response:
    body = {"code": code, "msg": message, "requestTime": time.time_ns() // MS, "data": data}
    return web.Response(text=_dump(body), status=status, content_type="application/json", headers=headers)


def _dump(value: Any) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{_dump(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_dump(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
