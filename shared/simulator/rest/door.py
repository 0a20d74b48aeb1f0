"""Bitget's REST v2 for USDT-M futures: the door. Envelope, statuses, rate limits and signatures of every endpoint.

The endpoints themselves stand in groups (`rest_market`, `rest_account`, `rest_positions`, `rest_orders`, …). To extend:
write a handler and add its row to its group's `ENDPOINTS`. Errors are HTTP 400 with Bitget's code.

Source of paths, rates, fields and quirks: Bitget v2, REST, and payloads recorded in September and October 2026.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from typing import Any

from aiohttp import web

from shared.simulator.faults.faults import POLITE
from shared.simulator.faults.spoil import spoiled
from shared.simulator.gate import Gate, RateLimit, Refused
from shared.simulator.rest.account import AccountRest
from shared.simulator.rest.common import Context, Endpoint, Group, JsonNumber, Params
from shared.simulator.rest.foreign import ForeignRest
from shared.simulator.rest.market import MarketRest
from shared.simulator.rest.orders import OrderRest
from shared.simulator.rest.plans import PlanRest
from shared.simulator.rest.positions import PositionRest

JSON = "application/json"
GROUPS: tuple[type[Group], ...] = (MarketRest, AccountRest, PositionRest, OrderRest, PlanRest, ForeignRest)


class Rest:
    """Answers REST requests from a feed (public) and a desk (private)."""

    def __init__(self, context: Context, gate: Gate, limits: RateLimit | None = None) -> None:
        self._context, self._gate, self._faults = context, gate, context.faults
        self._limits = limits or RateLimit()
        self.clock = context.clock
        groups = [group(context) for group in GROUPS]
        self._endpoints = {path: endpoint for group in groups for path, endpoint in group.ENDPOINTS.items()}
        self._handlers = {
            path: getattr(group, endpoint.handler) for group in groups for path, endpoint in group.ENDPOINTS.items()
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request in Bitget's envelope, whatever it is."""
        headers: dict[str, str] = {}
        fate = POLITE
        try:
            remote = request.remote or ""
            scale = self._faults.conditions.rate_limit_scale
            self._limits.admit(remote, self._context.clock.monotonic_s(), scale)
            endpoint = self._endpoints.get(request.path)
            if endpoint is None or endpoint.method != request.method:
                raise not_found()
            body = await _body(request) if request.method == "POST" else ""
            fate = self._faults.request(request.path)
            wait_ms = fate.wait_before_ms + (self._faults.conditions.latency_ms if endpoint.is_private else 0.0)
            if wait_ms > 0:
                await asyncio.sleep(wait_ms / 1000)
            key = ""
            if endpoint.is_private:
                key = self._enter(request, endpoint, body, remote)
            per_s = max(1, int(endpoint.per_s * scale))
            remaining = self._limits.take(key or remote, request.path, per_s, self._context.clock.monotonic_s())
            headers["x-mbx-used-remain-limit"] = str(remaining)
            if fate.before is not None:
                if fate.before.what != "refuse":
                    return await spoiled(request, fate.before, self._context.clock.told_ms())
                raise Refused(fate.before.code, fate.before.message, fate.before.http_status)
            params = dict(request.query) if request.method == "GET" else _decode(request, body)
            if endpoint.is_private:
                await self._context.desk.ready(request.path, params, key)
                self._context.desk.advance(self._context.now_ns())
                data = self._handlers[request.path](params, key)
                self._context.after_ms(0.0, self._context.push)
            else:
                data = self._handlers[request.path](params, "")
                if inspect.isawaitable(data):  # long history is computed in a thread
                    data = await data
            answer = self._answer("00000", "success", data, 200, headers)
        except Refused as refused:
            answer = self._answer(refused.code, refused.message, None, refused.status, headers)
        if fate is not POLITE:
            if fate.wait_after_ms > 0:
                await asyncio.sleep(fate.wait_after_ms / 1000)
            if fate.after is not None:
                return await spoiled(request, fate.after, self._context.clock.told_ms(), answer)
        return answer

    def _enter(self, request: web.Request, endpoint: Endpoint, body: str, remote: str) -> str:
        """Return the key of who asks a private endpoint, if it may."""
        clocks_ms = self._context.clock.clocks_ms()
        key = self._gate.check(request.method, request.raw_path, request.headers, body, *clocks_ms, remote=remote)
        permission = "read" if endpoint.method == "GET" else "trade"
        self._gate.permit(key, permission, is_classic=endpoint.is_classic)
        if self._gate.account(key).is_demo and not endpoint.is_in_demo:
            raise not_found()
        return key

    def _answer(self, code: str, message: str, data: Any, status: int, headers: dict[str, str]) -> web.Response:
        body = {"code": code, "msg": message, "requestTime": self._context.clock.told_ms(), "data": data}
        # A lone surrogate of the client's (JSON may escape one) comes back as "?".
        raw = _dump(body).encode("utf-8", "replace")
        return web.Response(body=raw, status=status, content_type="application/json", charset="utf-8", headers=headers)


def not_found() -> Refused:
    return Refused("40404", "Request URL NOT FOUND", 404)


async def _body(request: web.Request) -> str:
    try:
        return (await request.read()).decode("utf-8", "replace")
    except web.HTTPRequestEntityTooLarge:
        raise Refused("40017", "Parameter verification failed") from None


def _decode(request: web.Request, body: str) -> Params:
    if body and request.headers.get("Content-Type", JSON).split(";")[0].strip().lower() != JSON:
        raise Refused("40007", "Invalid Content_Type")
    try:
        # Numbers keep their digits: ccxt sends some prices as JSON numbers.
        decoded = json.loads(body or "{}", parse_float=str, parse_int=str, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refused("40017", "Parameter verification failed") from None
    if not isinstance(decoded, dict):
        raise Refused("40017", "Parameter verification failed")
    return decoded


def _no_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are Python's JSON, not JSON


def _dump(value: Any) -> str:
    if isinstance(value, JsonNumber):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{_dump(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_dump(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
