"""A relay between a second simulator and its clients: frames as they came, paper fills, loss that nobody is lied about."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
import websockets.asyncio.client
from aiohttp import web
from websockets.exceptions import ConnectionClosed

from shared.errors import ExchangeSilent, ProtocolBroken
from shared.simulator import relay_desk
from shared.simulator import upstream as upstream_module
from shared.simulator.conditions import Change, Disconnect, PushFault, RequestFault, Script
from shared.simulator.gate import Credentials
from shared.simulator.link import Heard, Kind
from shared.simulator.market import GeneratedMarket
from shared.simulator.relay import PAUSE_NS, RelayFeed, RelayMarket, relay
from shared.simulator.relay_desk import RelayDesk
from shared.simulator.relay_server import RelayServer
from shared.simulator.server import Server
from shared.simulator.upstream import Upstream

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


# ---------------------------------------------------------------------------------- a second simulator, relayed


def rebuilt(texts: list[str]) -> dict[int, tuple[frozenset[tuple[str, str]], frozenset[tuple[str, str]]]]:
    """Return the book after every push of `books`, by seq; the chain must not have a gap."""
    books, asks, bids, last = {}, dict[str, str](), dict[str, str](), 0
    for text in texts:
        (row,) = json.loads(text)["data"]
        assert row["pseq"] in (0, last), "a gap"
        if row["pseq"] == 0:
            asks, bids = {}, {}
        for side, changes in ((asks, row["asks"]), (bids, row["bids"])):
            for price, size in changes:
                side[price] = size
                if size == "0":
                    del side[price]
        last = row["seq"]
        books[last] = frozenset(asks.items()), frozenset(bids.items())
    return books


async def test_frames_are_the_upstreams_byte_for_byte() -> None:
    """A client of the relay and a client of the upstream read the same texts, in the same order, none missing."""
    topics = [
        (channel, s) for s in ("BTCUSDT", "ETHUSDT") for channel in ("ticker", "books15", "books", "books5", "trade")
    ]

    def enough(found: dict[tuple[str, str], list[str]]) -> bool:
        return all(len(found.get(topic, ())) >= (2 if topic[0] == "trade" else 4) for topic in topics)

    async with simulator() as origin, relaying(origin) as (client, _, _), aiohttp.ClientSession() as http:
        async with Client(origin, http).stream(*topics) as direct:
            said = await pushes(direct, lambda found: found.keys() == set(topics))
            async with client.stream(*topics) as relayed:
                told, more = await asyncio.gather(pushes(relayed, enough), pushes(direct, enough))
            for topic in topics:
                said[topic] += more[topic]
            more = await pushes(direct, lambda found: all(told[t][-1] in said[t] + found.get(t, []) for t in topics))
            for topic, texts in more.items():
                said[topic] += texts
        async with client.stream(*topics) as later:
            told_later = await pushes(later, lambda found: all(found.get(topic) for topic in topics))

    for topic in topics:
        start = said[topic].index(told[topic][1])  # the first is the snapshot, at another time than the direct client's
        assert told[topic][1:] == said[topic][start : start + len(told[topic]) - 1]
        first = json.loads(told_later[topic][0])
        assert first["action"] == "snapshot"
        assert first["arg"] == argument(*topic)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        topic = "books", symbol
        mine, theirs = rebuilt(told[topic]), rebuilt(said[topic])
        common = mine.keys() & theirs.keys()
        assert len(common) >= 3
        assert all(mine[seq] == theirs[seq] for seq in common)


async def test_relay_misbehaves_as_it_is_told() -> None:
    """Conditions hold for relayed frames, logins and orders as they do for a market of one's own."""
    topics = [("ticker", "BTCUSDT"), ("ticker", "ETHUSDT")]
    wishes: Any = {
        "pushes": [PushFault(what="lose", symbol="BTCUSDT"), PushFault(what="duplicate", symbol="ETHUSDT")],
        "requests": [RequestFault(what="refuse", code="45001", path="order/place-order", count=1)],
        "refuse_logins": 1,
    }
    async with simulator() as origin, relaying(origin) as (client, _, _):
        client.server.faults.change(Change(**wishes))

        async with client.stream(*topics) as socket:
            told = await pushes(socket, lambda found: len(found.get(topics[1], ())) >= 6)
        refused = await client.place()
        async with websockets.asyncio.client.connect(f"{client.server.ws_url}/private") as socket:
            stamp = str(int(time.time()))
            arg = {"apiKey": "key", "passphrase": "pass", "timestamp": stamp, "sign": sign(f"{stamp}GET/user/verify")}
            await socket.send(json.dumps({"op": "login", "args": [arg]}))
            answer = json.loads(await socket.recv())

    assert list(told) == [topics[1]]
    assert told[topics[1]][0] == told[topics[1]][1]
    assert refused["code"] == "45001"
    assert (answer["event"], answer["code"]) == ("error", 30005)


async def test_rest_is_the_upstreams_and_its_source_is_named() -> None:
    """Market data over REST is what the upstream answers, errors too; the ticks are said to be the upstream's."""
    async with simulator() as origin, relaying(origin) as (client, _, _), aiohttp.ClientSession() as http:
        direct = Client(origin, http)
        asked: tuple[tuple[str, dict[str, str]], ...] = (
            ("market/contracts", {}),
            ("market/fills", {"symbol": "BTCUSDT"}),
            ("market/current-fund-rate", {"symbol": "ETHUSDT"}),
            ("market/ticker", {"symbol": "NOPEUSDT"}),
            ("market/merge-depth", {"symbol": "BTCUSDT", "limit": "5"}),
        )
        for path, params in asked:

            async def agree(path: str = path, params: dict[str, str] = params) -> bool:
                # The market moves: within one second both are asked about the same one.
                both = [await one.get(path, productType="USDT-FUTURES", **params) for one in (direct, client)]
                return all(
                    {k: v for k, v in both[0].items() if k != "requestTime"}[key] == both[1][key]
                    for key in ("code", "msg")
                ) and _timeless(both[0]["data"]) == _timeless(both[1]["data"])

            await until(agree)
        async with http.get(f"{client.server.rest_url}/_control/market") as answer:
            market = await answer.json()

    assert (market["source"], market["kind"], market["symbols"]) == (MARKET.source, "relayed", len(MARKET.symbols))


def _timeless(data: Any) -> Any:
    return {k: v for k, v in data.items() if k != "ts"} if isinstance(data, dict) else data


async def test_paper_order_fills_at_the_upstreams_book() -> None:
    """A market order takes the best ask that the upstream showed; the upstream's own venue never hears of it."""
    async with simulator() as origin, relaying(origin) as (client, _, _):
        async with client.stream(("books15", "BTCUSDT")) as socket:
            before = await pushes(socket, lambda found: bool(found))
            placed = await client.place()
            (price, size), *more = await client.fills(placed)
            after = await pushes(socket, lambda found: len(found.get(("books15", "BTCUSDT"), ())) >= 2)
        touches = {
            Decimal(json.loads(text)["data"][0]["asks"][0][0])
            for found in (before, after)
            for text in found["books15", "BTCUSDT"]
        }

        assert (placed["code"], size, more) == ("00000", Decimal("0.01"), [])
        assert price in touches
        assert origin.desk.venue.fills("key") == []


async def test_upstream_that_is_lost_is_no_silence_and_comes_back() -> None:
    """Clients are cut off, orders and REST are refused as Bitget refuses for a while; afterwards all is as before."""
    topic = "ticker", "ETHUSDT"
    async with simulator() as origin:
        port = origin.port
        async with relaying(origin) as (client, _, _):
            assert (await client.place())["code"] == "00000"
            async with client.stream(topic) as socket:
                await pushes(socket, lambda found: bool(found))
                await origin.stop()
                with pytest.raises(ConnectionClosed):
                    await asyncio.wait_for(read_on(socket), WITHIN_S)
            refused = await client.place()
            quiet = await client.get("market/ticker", productType="USDT-FUTURES", symbol="BTCUSDT")
            held = await client.private("GET", "position/all-position?productType=USDT-FUTURES&marginCoin=USDT")
            async with client.stream(topic) as socket, simulator(port):
                acked = json.loads(await asyncio.wait_for(socket.recv(), WITHIN_S))
                await pushes(socket, lambda found: len(found.get(topic, ())) >= 3)

                async def is_placed() -> bool:
                    return bool((await client.place())["code"] == "00000")

                await until(is_placed)

    assert (refused["code"], refused["msg"]) == ("40725", "service return an error")
    assert quiet["code"] == "40725"
    assert [row["symbol"] for row in held["data"]] == ["BTCUSDT"]
    assert acked == {"event": "subscribe", "arg": argument(*topic)}


# --------------------------------------------------------------------------------------------- a scripted upstream


async def test_taken_liquidity_is_gone_until_the_next_book() -> None:
    """What our own orders took nobody takes again, until the upstream shows a new book."""
    async with scripted() as upstream, relaying(upstream) as (client, _, _):
        asks = ("80000", "0.01"), ("80001", "0.02"), ("80005", "1")

        async def show() -> None:
            await until(has(upstream, *VENUE))
            await upstream.book(*asks)

        showing = asyncio.create_task(show())
        first = await client.fills(await client.place())  # the order waits for the first book
        await showing
        second = await client.fills(await client.place(size="0.015"))
        await upstream.book(*asks)
        third = await client.fills(await client.place(size="0.02"))

    assert first == [(Decimal(80000), Decimal("0.01"))]
    assert second == [(Decimal(80001), Decimal("0.015"))]
    assert third == [(Decimal(80000), Decimal("0.01")), (Decimal(80001), Decimal("0.01"))]


async def test_resting_order_fills_by_trades_and_marks_move_equity() -> None:
    """Public trades fill what rests at their price; the ticker's mark values the position."""
    async with scripted() as upstream, relaying(upstream) as (client, _, desk), client.stream(*VENUE) as socket:
        await until(has(upstream, *VENUE))
        await upstream.book(("80000", "1"))
        await pushes(socket, lambda found: bool(found))
        placed = await client.place(orderType="limit", price="79995", force="gtc")
        rows = [
            {"ts": "2", "price": "79995", "size": "0.004", "side": "sell", "tradeId": "2"},
            {"ts": "1", "price": "79996", "size": "9", "side": "sell", "tradeId": "1"},
        ]
        await until(lambda: bool(desk.venue.resting_symbols()))
        await upstream.push("trade", *rows)  # what a snapshot repeats was before
        await upstream.push("trade", *rows, action="update")
        await upstream.push("trade", {**rows[0], "size": "1", "tradeId": "3"}, action="update")
        fills = await client.fills(placed)
        await upstream.push("ticker", {"markPrice": "80095", "indexPrice": "80094", "fundingRate": "0.0001"})
        await until(lambda: desk.venue.unrealised("key") == Decimal("1.00"))

    assert sum(size for _, size in fills) == Decimal("0.01")
    assert {price for price, _ in fills} == {Decimal(79995)}


async def test_symbol_is_followed_while_something_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks reach what is held however long ago its last order was; a symbol that is flat is left alone, and found
    again, as the exchange shows it now, by its next order."""
    monkeypatch.setattr(relay_desk, "FOLLOW_NS", 0)
    async with scripted() as upstream, relaying(upstream) as (client, _, desk), client.stream(*VENUE) as socket:
        await until(has(upstream, *VENUE))
        await upstream.book(("80000", "1"))
        await pushes(socket, lambda found: bool(found))
        await client.fills(await client.place())
        monkeypatch.undo()
        await until(lambda: "BTCUSDT" in desk._followed_ns)
        await upstream.push("ticker", {"markPrice": "80100"})
        await until(lambda: desk.venue.unrealised("key") == Decimal(1))
        await client.fills(await client.place(side="sell", reduceOnly="YES"))
        desk._followed_ns.clear()
        await upstream.book(("80500", "1"))
        await pushes(socket, lambda found: bool(found))
        found = await client.fills(await client.place())

    assert found == [(Decimal(80500), Decimal("0.01"))]


async def test_risk_ladder_is_the_upstreams() -> None:
    """Maintenance margin of a paper position follows the tiers that the exchange shows its clients."""
    async with scripted() as upstream, relaying(upstream) as (client, _, desk), client.stream(*VENUE) as socket:
        await until(has(upstream, *VENUE))
        await upstream.book(("80000", "1"))
        await pushes(socket, lambda found: bool(found))
        await client.fills(await client.place())
        await until(lambda: len(desk.venue.tiers("BTCUSDT")) == 2)
        asked = [path for path in upstream.asked if "query-position-lever" in path]

    assert [(tier.end_usdt, tier.leverage_max, tier.maintenance_rate) for tier in desk.venue.tiers("BTCUSDT")] == [
        (Decimal(50_000), 125, Decimal("0.0040")),
        (Decimal(900_000), 40, Decimal("0.0110")),
    ]
    assert asked == [f"{MIX}market/query-position-lever?productType=USDT-FUTURES&symbol=BTCUSDT"]


async def test_error_of_our_own_ends_the_relay_loudly() -> None:
    """A relay whose connection died of a bug does not go on in silence."""
    async with scripted() as upstream, relaying(upstream, fails=True) as (client, feed, _):

        def fail(heard: Any) -> None:
            raise ZeroDivisionError

        feed.upstream._on_heard = fail
        async with client.stream(("ticker", "BTCUSDT")):
            with pytest.raises(ZeroDivisionError):
                await asyncio.wait_for(client.server.run_until(asyncio.Event()), WITHIN_S)


async def test_stale_upstream_takes_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that lives and says nothing is no market to trade on; one push makes it one again."""
    async with scripted() as upstream, relaying(upstream) as (client, _, desk), client.stream(*VENUE) as socket:
        await until(has(upstream, *VENUE))
        await upstream.book(("80000", "1"))
        await pushes(socket, lambda found: bool(found))
        taken = await client.place()
        monkeypatch.setattr(relay_desk, "STALE_NS", 100_000_000)
        await until(lambda: not desk.is_fresh("BTCUSDT"))
        refused = [
            await client.place(),
            await client.private("POST", "order/close-positions", {"productType": "USDT-FUTURES"}),
        ]
        monkeypatch.undo()
        await upstream.push("ticker", {"markPrice": "80000"})
        await until(lambda: desk.is_fresh("BTCUSDT"))
        again = await client.place()

    assert [taken["code"], again["code"]] == ["00000", "00000"]
    assert [one["code"] for one in refused] == ["40725", "40725"]


async def test_symbol_that_is_listed_later_becomes_available_and_one_that_goes_trades_no_more() -> None:
    """Who is listed is asked for again and again: sockets, REST and the venue follow."""
    topic = "ticker", "SOLUSDT"
    async with scripted() as upstream, relaying(upstream, listing_s=0.05) as (client, feed, desk):
        async with client.stream(topic) as socket:
            refusal = json.loads(await socket.recv())
        upstream.rows = [MARKET.contracts()[2], MARKET.contracts()[0]]
        await until(lambda: feed.knows("SOLUSDT") and not feed.knows("ETHUSDT"))
        async with client.stream(topic) as socket:
            await until(has(upstream, topic))
            text = await upstream.push(*topic[:1], {"lastPr": "1"}, symbol="SOLUSDT")
            told = await pushes(socket, lambda found: bool(found))
        listed = await client.get("market/contracts", productType="USDT-FUTURES")
        gone = await client.place(symbol="ETHUSDT")

    assert MARKET.contracts()[2]["symbol"] == "SOLUSDT"
    assert (refusal["event"], refusal["code"]) == ("error", 30001)
    assert told[topic] == [text]
    assert [row["symbol"] for row in listed["data"]] == ["SOLUSDT", "BTCUSDT"]
    assert gone["code"] != "00000"
    assert desk.venue.contracts["ETHUSDT"].status == "off"


async def test_ack_waits_for_the_upstreams_and_so_does_its_refusal() -> None:
    """An ack says that from here on silence means nothing happened: only the upstream can make that true."""
    async with scripted() as upstream, relaying(upstream) as (client, _, _):
        upstream.unknown = {"ETHUSDT"}
        async with client.stream(("ticker", "ETHUSDT"), ("ticker", "BTCUSDT")) as socket:
            first, second = [json.loads(await asyncio.wait_for(socket.recv(), WITHIN_S)) for _ in range(2)]

    answers = {frame["arg"]["instId"]: frame for frame in (first, second)}
    assert answers["BTCUSDT"] == {"event": "subscribe", "arg": argument("ticker", "BTCUSDT")}
    assert (answers["ETHUSDT"]["code"], answers["ETHUSDT"]["msg"]) == (30001, "doesn't exist")


@pytest.mark.parametrize("text", ["<html>502 Bad Gateway</html>", '{"action":"snapshot","arg":{"ch'])
async def test_unreadable_text_ends_a_connection_and_nothing_else(text: str) -> None:
    """The relay connects anew; those who listened are cut off, because nobody knows what they missed."""
    async with scripted() as upstream, relaying(upstream) as (client, _, _):
        async with client.stream(("ticker", "BTCUSDT")) as socket:
            await socket.recv()
            await upstream.say(text)
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(socket.recv(), WITHIN_S)
        async with client.stream(("ticker", "BTCUSDT")) as socket:
            await asyncio.wait_for(socket.recv(), WITHIN_S)
            pushed = await upstream.push("ticker", {"lastPr": "1"})
            assert await asyncio.wait_for(socket.recv(), WITHIN_S) == pushed


@pytest.mark.parametrize(
    "row",
    [
        {"asks": [["abc", "1"]], "bids": []},
        {"asks": [["NaN", "1"]], "bids": []},
        {"asks": 7},
        {"markPrice": "?", "price": "1"},
        {"markPrice": {}, "side": None, "price": "1", "size": "1"},
    ],
)
async def test_nonsense_in_a_push_reaches_clients_and_never_the_venue(row: Frame) -> None:
    """What is passed on is passed on as it came; after a book that it cannot read the venue waits for one that it can."""
    async with scripted() as upstream, relaying(upstream) as (client, _, _desk), client.stream(*VENUE) as socket:
        await until(has(upstream, *VENUE))
        await upstream.book(("80000", "1"))
        await pushes(socket, lambda found: bool(found))
        assert (await client.place())["code"] == "00000"
        said = [await upstream.push(channel, row, action="update") for channel, _ in VENUE]
        told = await pushes(socket, lambda found: sum(map(len, found.values())) >= 3)
        refused = await client.place()
        await upstream.book(("80001", "1"))
        await pushes(socket, lambda found: bool(found))
        filled = await client.fills(await client.place())

    assert sorted(said) == sorted(text for texts in told.values() for text in texts)
    assert refused["code"] == "40725"
    assert filled[0][0] == Decimal(80001)


async def test_what_came_is_told_whatever_the_wall_clock_does_and_not_after_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clock that is set back loses nothing; what came while pushes were frozen is not told late, but is known."""
    now_ns = 0
    feed = RelayFeed(
        RelayMarket("bitget", "host"), "http://127.0.0.1:9", "ws://127.0.0.1:9", monotonic_ns=lambda: now_ns
    )
    wanted = {"ticker": {"BTCUSDT"}}

    def hear(text: str) -> None:
        feed._hear(Heard(Kind.FRAME, "ticker", "BTCUSDT", now_ns, text))

    def told() -> list[str]:
        return [text for *_, text in feed.frames(0, 0, wanted)]

    async with feed.upstream:
        hear("first")
        monkeypatch.setattr("time.time_ns", lambda: 0)  # the clock is set back, by half a century
        hear("second")
        both = told()
        hear("frozen")
        now_ns += 2 * PAUSE_NS
        hear("thawed")
        fresh = told()
        hear("frozen again")
        now_ns += 2 * PAUSE_NS
        nothing = told()

    assert (both, fresh, nothing) == (["first", "second"], ["thawed"], [])
    assert feed.snapshot(0, "ticker", "BTCUSDT") == "frozen again"


async def test_candles_are_relayed_and_a_later_subscriber_has_them_all() -> None:
    """Snapshot and update as they came; who comes later gets both in one."""
    topic = "candle1m", "BTCUSDT"
    rows = [[str(60_000 * n), "1", "2", "0.5", "1.50", "3", "4", "4"] for n in range(3)]
    async with scripted() as upstream, relaying(upstream) as (client, _, _), client.stream(topic) as socket:
        await until(has(upstream, topic))
        said = [await upstream.push(topic[0], *rows[:2])]
        told = await pushes(socket, lambda found: bool(found))
        said.append(await upstream.push(topic[0], rows[2], action="update"))
        told[topic] += (await pushes(socket, lambda found: bool(found)))[topic]
        async with client.stream(topic) as other:
            later = await pushes(other, lambda found: bool(found))

    assert told[topic] == said
    assert json.loads(later[topic][0])["data"] == rows


async def test_broken_sequence_is_subscribed_anew() -> None:
    """After a gap in `books` the relay asks for a new snapshot, and later subscribers wait for it."""
    topic = "books", "BTCUSDT"

    def row(seq: int, pseq: int) -> Frame:
        return {"asks": [["80000", str(seq)]], "bids": [], "ts": "1", "seq": seq, "pseq": pseq}

    async with scripted() as upstream, relaying(upstream) as (client, _, _), client.stream(topic) as socket:
        await until(has(upstream, topic))
        await upstream.push("books", row(5, 0))
        await pushes(socket, lambda found: bool(found))
        said = await upstream.push("books", row(9, 8), action="update")
        told = await pushes(socket, lambda found: bool(found))
        await until(lambda: len(upstream.requests) == 3)
        await upstream.push("books", row(12, 0))
        await pushes(socket, lambda found: bool(found))
        async with client.stream(topic) as other:
            later = await pushes(other, lambda found: bool(found))

    assert upstream.requests == [("subscribe", "books"), ("unsubscribe", "books"), ("subscribe", "books")]
    assert told[topic] == [said]
    assert json.loads(later[topic][0])["data"][0]["seq"] == 12


@pytest.mark.parametrize(
    "answer",
    [
        (200, "<html>hello</html>"),
        (502, "Bad Gateway"),
        (200, '{"code":"00000","da'),
        (503, '{"code":"45001","msg":"busy"}'),
        (200, "[" * 100_000 + "]" * 100_000),
    ],
)
async def test_bad_rest_answers_are_bitgets_word_for_later(answer: tuple[int, str]) -> None:
    """HTML, 5xx and torn JSON reach a client as 40725; the next good answer is passed on again."""
    async with scripted() as upstream, relaying(upstream) as (client, _, _):
        upstream.answer = answer
        bad = await client.get("market/tickers", productType="USDT-FUTURES", x="1")
        upstream.answer = None
        good = await client.get("market/tickers", productType="USDT-FUTURES", x="1")

    assert (bad["code"], bad["data"]) == ("40725", None)
    assert good["code"] == "00000"


async def test_rest_numbers_keep_their_digits_and_equal_requests_share_an_answer() -> None:
    """merge-depth has prices as JSON numbers: 0.00001042 stays so; ten clients cost the upstream one request."""
    async with scripted() as upstream, relaying(upstream) as (client, _, _):
        url = f"{client.server.rest_url}{MIX}market/merge-depth?productType=USDT-FUTURES&symbol=BTCUSDT"

        async def ask() -> str:
            async with client.http.get(url) as answer:
                return await answer.text()

        texts = await asyncio.gather(*(ask() for _ in range(10)))
        asked = [path for path in upstream.asked if "merge-depth" in path]

    assert all("[0.00001042,100.0]" in text for text in texts)
    assert len(asked) == 1


async def test_topics_are_spread_over_connections_a_symbols_own_on_one() -> None:
    """120 symbols of three channels are eight connections of at most 50 topics; what is no longer wanted is ended."""
    topics = [(channel, f"S{n}USDT") for n in range(120) for channel in ("books15", "ticker", "trade")]
    heard: list[Heard] = []
    async with scripted() as upstream, Upstream(upstream.rest_url, upstream.ws_url, heard.append) as sockets:
        sockets.want(topics)
        await until(has(upstream, *topics))
        await until(lambda: len(heard) == len(topics))
        shares = [link.states.keys() for link in sockets.links]
        sockets.want(topics[3:])
        await until(lambda: upstream.topics == set(topics[3:]))
        n_sockets, kinds = len(upstream.sockets), {h.kind for h in heard}

    assert kinds == {Kind.LINKED}
    assert n_sockets == len(shares) == 8
    assert max(map(len, shares)) <= 50
    assert all(len({number for number, share in enumerate(shares) if any(s == symbol for _, s in share)}) == 1
               for _, symbol in topics[3:])  # fmt: skip


async def test_upstream_is_asked_within_half_of_its_limits() -> None:
    """Of 60 different requests at once to an endpoint of 10 a second, five a second get through, the others are 429s."""
    async with scripted() as upstream, relaying(upstream) as (_, feed, _):
        async with asyncio.timeout(WITHIN_S):
            answers = await asyncio.gather(
                *(feed.upstream.fetch(f"{MIX}market/oi-limit", f"symbol={n}") for n in range(60))
            )
        asked = [path for path in upstream.asked if "oi-limit" in path]

    codes = [answer.code for answer in answers if answer is not None]
    assert codes.count("00000") == len(asked) <= 5 * 3
    assert codes.count("429") == 60 - len(asked)


# --------------------------------------------------------------------------------------------------- bad beginnings


async def test_upstream_that_cannot_be_relayed_is_one_sentence() -> None:
    """Nobody there, no simulator, no perpetuals, no WebSocket: each is said before anything is served."""
    async with scripted() as upstream:
        nobody = "http://127.0.0.1:9"
        cases: list[tuple[str, str, tuple[int, str] | None, type[Exception], str]] = [
            (nobody, upstream.ws_url, None, ExchangeSilent, "must be a running simulator, found ClientConnectorError"),
            (upstream.rest_url, upstream.ws_url, (200, "<html>"), ProtocolBroken, "names its source, found"),
            (upstream.rest_url, upstream.ws_url, (200, '{"source":"x"}'), ExchangeSilent, "no answer that can be read"),
            (
                upstream.rest_url, upstream.ws_url, (200, '{"source":"x","code":"40404","msg":"","data":null}'),
                ProtocolBroken, "must list perpetuals as Bitget does, found code '40404'",
            ),
            (upstream.rest_url, "ws://127.0.0.1:9/v2/ws", None, ExchangeSilent, "must accept WebSockets"),
        ]  # fmt: skip
        for rest_url, ws_url, answer, error, why in cases:
            upstream.answer = answer
            with pytest.raises(error, match=why) as caught:
                async with relay(rest_url, ws_url, [KEYS]):
                    pass
            assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------- bad weather

STORM = (
    "lose", "duplicate", "reorder", "gap", "tear", "not_json", "not_utf8", "binary", "cut", "wrong_symbol",
    "unknown_channel", "unknown_field", "blank_field", "error", "oversize",
)  # fmt: skip


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_relay_outlives_whatever_the_upstream_sends(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through seconds of every misbehaviour that the simulator knows, over sockets and REST, the relay runs on; when
    the weather is fair again, books, orders and REST are as if nothing had happened."""
    monkeypatch.setattr(upstream_module, "LIVED_S", 0.0)  # every connection ends a series of failures: no long waits
    topics = [(channel, "BTCUSDT") for channel in ("books", "books15", "ticker", "trade")]
    requests = [
        RequestFault(what=what, path="*/market/*", when="after", p=0.2)
        for what in ("gateway", "torn", "not_json", "reset")
    ]
    storm = Change(
        pushes=[PushFault(what=what, p=0.01) for what in STORM],  # type: ignore[arg-type]
        disconnects=[Disconnect(every_s=1.0)],
        requests=requests,
    )
    print(f"seed {seed}: {storm}")
    async with simulator() as origin, relaying(origin, listing_s=0.1) as (client, _, _):
        origin.faults.begin(Script(seed=seed), time.time_ns())
        origin.faults.change(storm)
        ends = time.monotonic() + 6.0
        n_frames = n_losses = 0
        while time.monotonic() < ends:
            with contextlib.suppress(ConnectionClosed, TimeoutError):
                async with client.stream(*topics) as socket, asyncio.timeout(2.0):
                    while time.monotonic() < ends:
                        await socket.recv()
                        n_frames += 1
                    continue
            n_losses += 1
            await client.get("market/tickers", productType="USDT-FUTURES")
        origin.faults.change(Change(pushes=[], disconnects=[], requests=[]))

        async def is_placed() -> bool:
            return bool((await client.place())["code"] == "00000")

        await until(is_placed)
        told: dict[tuple[str, str], list[str]] = {}

        async def is_calm() -> bool:
            with contextlib.suppress(ConnectionClosed):  # what left the upstream before may still be on its way
                async with client.stream(*topics) as socket:
                    told.update(await pushes(socket, lambda found: len(found.get(topics[0], ())) >= 3))
                    return True
            return False

        await until(is_calm)
        async with aiohttp.ClientSession() as http, Client(origin, http).stream(topics[0]) as direct:
            said = await pushes(direct, lambda found: len(found.get(topics[0], ())) >= 1)
            assert client.server._pumping is not None
            assert not client.server._pumping.done()

    assert n_frames > 0
    assert n_losses > 0
    assert rebuilt(told[topics[0]])
    assert rebuilt(said[topics[0]])
