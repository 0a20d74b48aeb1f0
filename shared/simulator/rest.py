"""Bitget's REST v2 for USDT-M futures: the door. Envelope, statuses, rate limits and signatures of every endpoint.

The endpoints themselves stand in groups (`rest_market`, `rest_account`, `rest_orders`). To extend: write a handler and
add its row to its group's `ENDPOINTS`. Errors are HTTP 400 with Bitget's code.

Source of paths, rates, fields and quirks: Bitget v2, REST, and payloads recorded in September and October 2026.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from shared.simulator.gate import Gate, RateLimit, Refused
from shared.simulator.rest_account import AccountRest
from shared.simulator.rest_common import Context, Group, JsonNumber, Params
from shared.simulator.rest_market import MarketRest
from shared.simulator.rest_orders import OrderRest

_GROUPS: tuple[type[Group], ...] = (MarketRest, AccountRest, OrderRest)


class Rest:
    """Answers REST requests from a feed (public) and a desk (private)."""

    def __init__(self, context: Context, gate: Gate) -> None:
        self._context, self._gate, self._conditions = context, gate, context.conditions
        self._limits = RateLimit()
        groups = [group(context) for group in _GROUPS]
        self._endpoints = {path: endpoint for group in groups for path, endpoint in group.ENDPOINTS.items()}
        self._handlers = {
            path: getattr(group, endpoint.handler) for group in groups for path, endpoint in group.ENDPOINTS.items()
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request in Bitget's envelope, whatever it is."""
        headers: dict[str, str] = {}
        try:
            endpoint = self._endpoints.get(request.path)
            if endpoint is None or endpoint.method != request.method:
                raise Refused("40404", "Request URL NOT FOUND", 404)
            body = (await request.read()).decode("utf-8", "replace") if request.method == "POST" else ""
            key = ""
            if endpoint.is_private:
                if self._conditions.latency_ms > 0:
                    await asyncio.sleep(self._conditions.latency_ms / 1000)
                stamps_ms = self._context.clock.clocks_ms()
                key = self._gate.check(request.method, request.raw_path, request.headers, body, *stamps_ms)
            caller = key or request.remote or ""
            remaining = self._limits.take(caller, request.path, endpoint.per_s, self._context.clock.monotonic_s())
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
                self._context.desk.advance(self._context.now_ns())
                data = self._handlers[request.path](params, key)
                self._context.after_ms(0.0, self._context.push)
            else:
                data = self._handlers[request.path](params, "")
            if is_silent:
                return await _never()
        except Refused as refused:
            return self._answer(refused.code, refused.message, None, refused.status, headers)
        return self._answer("00000", "success", data, 200, headers)

    def _answer(self, code: str, message: str, data: Any, status: int, headers: dict[str, str]) -> web.Response:
        body = {"code": code, "msg": message, "requestTime": self._context.clock.now_ms(), "data": data}
        return web.Response(text=_dump(body), status=status, content_type="application/json", headers=headers)

    def _strike(self, path: str) -> None:
        for strike in self._conditions.refuse_next:
            if path.endswith(strike.path):
                self._conditions.refuse_next.remove(strike)
                raise Refused(strike.code, strike.msg, strike.status)


def _decode(body: str) -> Params:
    try:
        # Numbers keep their digits: ccxt sends some prices as JSON numbers.
        decoded = json.loads(body or "{}", parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        raise Refused("40017", "Parameter verification failed") from None
    if not isinstance(decoded, dict):
        raise Refused("40017", "Parameter verification failed")
    return decoded


async def _never() -> web.StreamResponse:
    """Keep a client waiting until it or the server gives up."""
    await asyncio.sleep(3600)
    return web.Response(status=504)


def _dump(value: Any) -> str:
    if isinstance(value, JsonNumber):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{_dump(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_dump(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
