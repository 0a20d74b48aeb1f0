"""A relay and what it stands between: clients, a second simulator, or an upstream that does what a test says."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import aiohttp
import websockets.asyncio.client
from aiohttp import web

from shared.simulator.gate import Credentials
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator.relay.desk import RelayDesk
from shared.simulator.relay.feed import RelayFeed, relay
from shared.simulator.relay.server import RelayServer
from shared.simulator.server import Server

MARKET = GeneratedMarket(7, 6)
KEYS = Credentials("key", "secret", "pass", Decimal(1_000_000))
MIX = "/api/v2/mix/"
ORDER = {
    "symbol": "BTCUSDT", "productType": "USDT-FUTURES", "marginMode": "crossed", "marginCoin": "USDT", "side": "buy",
    "orderType": "market", "size": "0.01",
}  # fmt: skip
WITHIN_S = 15.0

Frame = dict[str, Any]


def sign(text: str) -> str:
    return base64.b64encode(hmac.new(b"secret", text.encode(), hashlib.sha256).digest()).decode()


def argument(channel: str, symbol: str) -> dict[str, str]:
    return {"instType": "USDT-FUTURES", "channel": channel, "instId": symbol}


async def until(claim: Callable[[], Awaitable[bool]] | Callable[[], bool]) -> None:
    """Return once a claim is true."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            held = claim()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.02)


class Client:
    """A client of one server, of either kind."""

    def __init__(self, server: Server, http: aiohttp.ClientSession) -> None:
        self.server, self.http = server, http

    async def get(self, path: str, **params: str) -> Any:
        async with self.http.get(f"{self.server.rest_url}{MIX}{path}", params=params) as answer:
            return await answer.json()

    async def private(self, method: str, path: str, body: Frame | None = None) -> Any:
        stamp, text = str(time.time_ns() // 1_000_000), "" if body is None else json.dumps(body)
        headers = {
            "ACCESS-KEY": "key", "ACCESS-PASSPHRASE": "pass", "ACCESS-TIMESTAMP": stamp,
            "ACCESS-SIGN": sign(f"{stamp}{method}{MIX}{path}{text}"), "Content-Type": "application/json",
        }  # fmt: skip
        url = f"{self.server.rest_url}{MIX}{path}"
        async with self.http.request(method, url, headers=headers, data=text or None) as answer:
            return await answer.json()

    async def place(self, **change: str) -> Any:
        return await self.private("POST", "order/place-order", ORDER | change)

    async def fills(self, order: Any) -> list[tuple[Decimal, Decimal]]:
        """Return (price, size) of an order that was accepted, once all of it is filled."""
        path = f"order/detail?symbol=BTCUSDT&productType=USDT-FUTURES&orderId={order['data']['orderId']}"

        async def is_filled() -> bool:
            return bool((await self.private("GET", path))["data"]["state"] == "filled")

        await until(is_filled)
        path = f"order/fills?productType=USDT-FUTURES&symbol=BTCUSDT&orderId={order['data']['orderId']}"
        rows = (await self.private("GET", path))["data"]["fillList"]
        return [(Decimal(row["price"]), Decimal(row["baseVolume"])) for row in reversed(rows)]

    @asynccontextmanager
    async def stream(self, *topics: tuple[str, str]) -> AsyncIterator[Any]:
        url = f"{self.server.ws_url}/public"
        # Without a bound on what waits to be read: a client that has read enough could not even read the close frame.
        async with websockets.asyncio.client.connect(url, max_size=None, max_queue=None) as socket:
            args = [argument(*topic) for topic in topics]
            await socket.send(json.dumps({"op": "subscribe", "args": args}))
            yield socket


async def pushes(
    socket: Any, enough: Callable[[dict[tuple[str, str], list[str]]], bool]
) -> dict[tuple[str, str], list[str]]:
    """Return the texts of every topic until there are enough."""
    found: dict[tuple[str, str], list[str]] = {}
    async with asyncio.timeout(WITHIN_S):
        while not enough(found):
            text = await socket.recv()
            frame = json.loads(text)
            if "action" in frame:
                found.setdefault((frame["arg"]["channel"], frame["arg"]["instId"]), []).append(text)
    return found


async def read_on(socket: Any) -> None:
    while True:
        await socket.recv()


@asynccontextmanager
async def relaying(
    upstream: Any, *, fails: bool = False, **options: Any
) -> AsyncIterator[tuple[Client, RelayFeed, RelayDesk]]:
    async with (
        relay(upstream.rest_url, upstream.ws_url, [KEYS], **options) as (feed, desk),
        aiohttp.ClientSession() as http,
    ):
        server = RelayServer(feed, desk, accounts=[KEYS])
        await server.start()
        stopped = asyncio.Event()
        running = asyncio.create_task(server.run_until(stopped))
        try:
            yield Client(server, http), feed, desk
            assert running.done() is fails, running
        finally:
            stopped.set()
            await asyncio.gather(running, return_exceptions=True)
            await server.stop()


@asynccontextmanager
async def simulator(port: int = 0) -> AsyncIterator[Server]:
    server = Server(MARKET, accounts=[KEYS], port=port)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Scripted:
    """An upstream that does exactly what a test says."""

    def __init__(self) -> None:
        self.rows = MARKET.contracts()[:2]
        self.mark = 80_000.0
        self.answer: tuple[int, str] | None = None  # to every REST request in place of its own
        self.asked: list[str] = []  # paths
        self.topics: set[tuple[str, str]] = set()
        self.requests: list[tuple[str, str]] = []  # (op, channel)
        self.unknown: set[str] = set()  # symbols that the sockets refuse
        self.sockets: list[web.WebSocketResponse] = []
        self.rest_url = self.ws_url = ""

    async def rest(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        if self.answer is not None:
            return web.Response(status=self.answer[0], text=self.answer[1])
        if request.path == "/_control/market":
            return web.json_response({"source": "simulator-scripted"})
        data: Any = self.rows
        if request.path.endswith("/tickers"):
            data = [{"symbol": row["symbol"], "markPrice": str(self.mark)} for row in self.rows]
        if request.path.endswith("/query-position-lever"):
            steps = (("1", "0", "50000", "125", "0.0040"), ("2", "50000", "900000", "40", "0.0110"))
            names = ("level", "startUnit", "endUnit", "leverage", "keepMarginRate")
            data = [dict(zip(names, step, strict=True)) for step in steps]
        if request.path.endswith("/merge-depth"):
            text = '{"code":"00000","msg":"success","requestTime":1,"data":{"asks":[[0.00001042,100.0]],"ts":"1"}}'
            return web.Response(text=text)
        return web.json_response({"code": "00000", "msg": "success", "requestTime": 1, "data": data})

    async def stream(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        async for message in socket:
            if message.data == "ping":
                await socket.send_str("pong")
                continue
            told = json.loads(message.data)
            for arg in told["args"]:
                topic = arg["channel"], arg["instId"]
                self.requests.append((told["op"], arg["channel"]))
                if arg["instId"] in self.unknown:
                    await socket.send_json({"event": "error", "arg": arg, "code": 30001, "msg": "doesn't exist"})
                    continue
                (self.topics.add if told["op"] == "subscribe" else self.topics.discard)(topic)
                await socket.send_json({"event": told["op"], "arg": arg})
        self.sockets.remove(socket)
        self.topics.clear()
        return socket

    async def push(self, channel: str, *rows: Any, symbol: str = "BTCUSDT", action: str = "snapshot") -> str:
        text = json.dumps({"action": action, "arg": argument(channel, symbol), "data": rows, "ts": 1})
        await self.say(text)
        return text

    async def say(self, text: str) -> None:
        for socket in self.sockets:
            await socket.send_str(text)

    async def book(self, *asks: tuple[str, str], symbol: str = "BTCUSDT") -> None:
        bids = [["79990", "5"], ["79980", "5"]]
        await self.push("books15", {"asks": asks, "bids": bids, "ts": "1", "seq": 1, "pseq": 0}, symbol=symbol)


@asynccontextmanager
async def scripted() -> AsyncIterator[Scripted]:
    upstream = Scripted()
    app = web.Application()
    app.router.add_get("/v2/ws/public", upstream.stream)
    app.router.add_route("*", "/{path:.*}", upstream.rest)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    upstream.rest_url, upstream.ws_url = f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}/v2/ws"
    try:
        yield upstream
    finally:
        await runner.cleanup()


def has(upstream: Scripted, *topics: tuple[str, str]) -> Callable[[], bool]:
    return lambda: upstream.topics >= set(topics)


VENUE = tuple((channel, "BTCUSDT") for channel in ("books15", "ticker", "trade"))
