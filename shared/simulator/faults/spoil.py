"""What a `RequestFault` looks like over HTTP: the only place where misbehaviour meets aiohttp.

Everything is done to the answer or to its connection; whether the request was acted on is the caller's business.
"""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from shared.simulator.faults.conditions import RequestFault

NEVER_S = 100.0
"""A proxy gives up so late (Cloudflare's limit, HTTP 524): no client of ours is that patient."""


def gateway_page(status: int) -> str:
    """Return what a proxy in front of Bitget says when Bitget does not."""
    title = f"{status} {_REASONS.get(status, 'Error')}"
    return (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        "<hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n"
    )


async def spoiled(
    request: web.Request, fault: RequestFault, now_ms: int, answer: web.Response | None = None
) -> web.StreamResponse:
    """Give a request what the fault says instead of its answer.

    Args:
        now_ms: what `requestTime` says.
        answer: the true one; None where the request was not acted on.
    """
    if fault.what == "silence":
        await asyncio.sleep(NEVER_S)
        return web.Response(text=gateway_page(524), status=524, content_type="text/html", charset="utf-8")
    if fault.what == "reset":
        return await _reset(request, answer)
    if fault.what == "gateway":
        return web.Response(
            text=gateway_page(fault.http_status), status=fault.http_status, content_type="text/html", charset="utf-8"
        )
    if fault.what == "refuse":
        body = {"code": fault.code, "msg": fault.message, "requestTime": now_ms, "data": None}
        return web.Response(text=json.dumps(body), status=fault.http_status, content_type="application/json")
    if fault.what == "torn":
        assert answer is not None, "only an answer can be torn"
        assert isinstance(answer.text, str)
        return web.Response(text=answer.text[: len(answer.text) // 2], content_type="application/json")
    text = "upstream connect error or disconnect/reset before headers" if fault.what == "not_json" else ""
    return web.Response(text=text, content_type="text/plain")


async def _reset(request: web.Request, answer: web.Response | None) -> web.StreamResponse:
    """End the connection: at once, or with half of the answer sent."""
    transport = request.transport
    response = web.StreamResponse(status=200)
    if answer is not None and answer.body is not None:
        assert isinstance(answer.body, bytes)
        response.content_type = "application/json"
        response.content_length = len(answer.body)
        await response.prepare(request)
        await response.write(answer.body[: len(answer.body) // 2])
        if transport is not None:
            transport.close()  # what was written is flushed first
    elif transport is not None:
        transport.abort()
    return response


_REASONS = {
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
    524: "A timeout occurred",
}
