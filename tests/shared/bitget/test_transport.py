"""Sockets against a real server on loopback that misbehaves: every outcome of an order is told exactly."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from aiohttp import WSMsgType, web

from shared.bitget import transport
from shared.bitget.account import PrivateSession
from shared.bitget.rest import Keys
from shared.bitget.session import PublicSession
from shared.bitget.streams import stream
from shared.bitget.ticks import TickBuffer
from shared.bitget.transport import ExchangeUnreachable, ReceiveClock, RestClient, backoff_s, check_url
from shared.errors import ExchangeRefused, ExchangeSilent, ProtocolBroken, SettingsError
from shared.pace import Pace
from shared.types import (
    NS,
    CancelOrder,
    Cause,
    Event,
    Filled,
    LinkChanged,
    Note,
    OrderKind,
    PlaceOrder,
    Side,
    TickEvent,
)
from tests.shared.bitget.payloads import ERRORS, REST, SIGNATURES, ack, book, compact, envelope, frame

KEYS = (SIGNATURES["key"], SIGNATURES["secret"], SIGNATURES["passphrase"])
PLACE = "/api/v2/mix/order/place-order"
ORDER = PlaceOrder(
    client_oid="c1",
    symbol="BTCUSDT",
    side=Side.BUY,
    kind=OrderKind.MARKET,
    size=Decimal("0.001"),
    price=None,
    reduce_only=False,
    stop_price=None,
    cause=Cause.ENTRY,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """A tiny Bitget: answers by path, counts what it was asked, and holds requests until it is released."""

    def __init__(self) -> None:
        self.answers: dict[str, Handler] = {}
        self.seen: Counter[str] = Counter()
        self.requests: list[web.Request] = []
        self.release = asyncio.Event()
        self.url = ""

    def reply(self, path: str, data: Any, status: int = 200, body: Any = None) -> None:
        text = compact(envelope(data) if body is None else body)

        async def handler(request: web.Request) -> web.StreamResponse:
            return web.Response(text=text, status=status, content_type="application/json")

        self.answers[path] = handler

    def fail(self, path: str, name: str) -> None:
        self.reply(path, None, ERRORS[name]["status"], ERRORS[name]["body"])

    async def never(self, request: web.Request) -> web.StreamResponse:
        await self.release.wait()
        return web.Response()

    async def hang_up(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def dispatch(self, request: web.Request) -> web.StreamResponse:
        self.seen[request.path] += 1
        self.requests.append(request)
        await request.read()
        handler = self.answers.get(request.path)
        if handler is None:
            return web.Response(text=compact(ERRORS["no_such_url"]["body"]), status=404)
        return await handler(request)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    bitget = Server()
    async with serving(bitget.dispatch) as address:
        bitget.url = "http://" + address
        yield bitget
        bitget.release.set()


@pytest.fixture
async def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RestClient]:
    monkeypatch.setattr(transport, "backoff_s", lambda failures, draw: 0.0)
    async with RestClient(server.url, KEYS, timeout_s=5.0) as client:
        yield client


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ------------------------------------------------------------------------------------------------ what orders meet


async def test_placed_order_gives_its_id(server: Server, client: RestClient) -> None:
    """An accepted order answers with its orderId, and was sent with its clientOid, signed."""
    server.reply(PLACE, REST["placed"])

    assert await client.place(ORDER) == "1360000000000000100"

    request = server.requests[0]
    body = json.loads(await request.read())
    assert body["clientOid"] == "c1"
    assert request.headers["ACCESS-KEY"] == KEYS[0]
    assert request.headers["Content-Type"] == "application/json"


async def test_order_without_an_answer_is_silent_and_sent_once(server: Server) -> None:
    """A placement that is not answered in time is unknown, not refused, and is not sent again."""
    server.answers[PLACE] = server.never
    async with RestClient(server.url, KEYS, timeout_s=0.2) as client:
        with pytest.raises(ExchangeSilent, match="it may have happened") as caught:
            await client.place(ORDER)

    assert not isinstance(caught.value, ExchangeUnreachable)
    assert server.seen[PLACE] == 1


@pytest.mark.parametrize("is_reused", [False, True])
async def test_connection_lost_after_sending_is_silent_and_sent_once(
    server: Server, client: RestClient, is_reused: bool
) -> None:
    """A connection that breaks after the order was sent leaves it unknown, also on a kept connection."""
    server.answers[PLACE] = server.hang_up
    if is_reused:
        server.reply("/api/v2/public/time", REST["time"])
        await client.server_time()

    with pytest.raises(ExchangeSilent, match="it may have happened") as caught:
        await client.place(ORDER)

    assert not isinstance(caught.value, ExchangeUnreachable)
    assert server.seen[PLACE] == 1


async def test_order_that_could_not_be_sent_is_unreachable() -> None:
    """Where no connection could be opened nothing was sent; who does not care still sees ExchangeSilent."""
    async with RestClient(f"http://127.0.0.1:{unused_port()}", KEYS) as client:
        with pytest.raises(ExchangeUnreachable, match="nothing was sent") as caught:
            await client.place(ORDER)

    assert isinstance(caught.value, ExchangeSilent)


async def test_plain_server_behind_https_is_unreachable(server: Server) -> None:
    """A server without TLS behind an https address gets nothing: the order was not sent, and the keys neither."""
    async with RestClient(server.url.replace("http://", "https://"), KEYS) as client:
        with pytest.raises(ExchangeUnreachable, match="nothing was sent"):
            await client.place(ORDER)

    assert not server.seen


@pytest.mark.parametrize("name", ["too_small", "too_many", "unified_account"])
async def test_refused_order_is_refused_once(server: Server, client: RestClient, name: str) -> None:
    """An order that Bitget refuses does not exist; it is not tried again, not even after 429."""
    server.fail(PLACE, name)

    with pytest.raises(ExchangeRefused) as caught:
        await client.place(ORDER)

    assert caught.value.code == ERRORS[name]["body"]["code"]
    assert server.seen[PLACE] == 1


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (502, "<html>bad gateway</html>"),
        (200, "<html>login to the hotel's network</html>"),
        (302, ""),
        (200, compact(envelope(None))),
        (400, compact(ERRORS["unknown_error"]["body"])),
    ],
)
async def test_order_with_an_unreadable_answer_is_silent(
    server: Server, client: RestClient, status: int, text: str
) -> None:
    """An answer to an order that does not tell what happened leaves it unknown, and nothing is followed."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=status, headers={"Location": "/elsewhere"} if status == 302 else {})

    server.answers[PLACE] = handler

    with pytest.raises(ExchangeSilent):
        await client.place(ORDER)

    assert server.seen == {PLACE: 1}


async def test_cancellation_is_sent_once(server: Server, client: RestClient) -> None:
    """A cancellation without an answer is unknown as well."""
    server.answers["/api/v2/mix/order/cancel-order"] = server.hang_up

    with pytest.raises(ExchangeSilent):
        await client.cancel(CancelOrder(client_oid="c1", order_id="", symbol="BTCUSDT"))

    assert sum(server.seen.values()) == 1


# ------------------------------------------------------------------------------------------------- what reads meet


async def test_read_is_tried_again(server: Server, client: RestClient) -> None:
    """A read meets 429, a broken connection, and is answered at the third try."""
    path = "/api/v2/public/time"

    async def handler(request: web.Request) -> web.StreamResponse:
        if server.seen[path] == 1:
            return web.Response(text=compact(ERRORS["too_many"]["body"]), status=429)
        if server.seen[path] == 2:
            return await server.hang_up(request)
        return web.Response(text=compact(envelope(REST["time"])))

    server.answers[path] = handler

    assert await client.server_time() == 1760000000000

    assert server.seen[path] >= 3


async def test_read_gives_up_after_three_tries(server: Server, client: RestClient) -> None:
    """A read that is always refused for now ends with that refusal."""
    server.fail("/api/v2/public/time", "too_many")

    with pytest.raises(ExchangeRefused, match="429"):
        await client.server_time()

    assert server.seen["/api/v2/public/time"] == transport.ATTEMPTS


async def test_refused_read_is_not_tried_again(server: Server, client: RestClient) -> None:
    """What Bitget refuses for good is not asked twice, and 40085 says what to do."""
    server.fail("/api/v2/mix/position/all-position", "unified_account")

    with pytest.raises(ExchangeRefused, match="create a classic sub-account"):
        await client.positions()

    assert sum(server.seen.values()) == 1


async def test_unknown_order_is_none(server: Server, client: RestClient) -> None:
    """`detail` answers None where Bitget does not know the order, and raises for every other refusal."""
    server.fail("/api/v2/mix/order/detail", "no_such_order")
    assert await client.detail("BTCUSDT", "c1") is None

    server.fail("/api/v2/mix/order/detail", "no_such_symbol")
    with pytest.raises(ExchangeRefused, match="NOPEUSDT"):
        await client.detail("BTCUSDT", "c1")


async def test_flash_close_that_names_nothing_is_no_answer(server: Server, client: RestClient) -> None:
    """A flash close's order id comes from the list of what it closes; a refusal in the other list is one, and an answer
    with two empty lists leaves it open."""
    path = "/api/v2/mix/order/close-positions"
    closed = {"orderId": "77", "clientOid": "1360", "symbol": "BTCUSDT"}
    server.reply(path, {"successList": [closed], "failureList": []})
    order = msgspec.structs.replace(ORDER, reduce_only=True, is_flash=True)
    assert await client.place(order) == "77"

    failed = {"orderId": "", "clientOid": "", "symbol": "BTCUSDT", "errorMsg": "no", "errorCode": "45043"}
    server.reply(path, {"successList": [], "failureList": [failed]})
    with pytest.raises(ExchangeRefused, match="45043"):
        await client.place(order)

    server.reply(path, {"successList": [], "failureList": []})
    with pytest.raises(ExchangeSilent, match="it may have happened"):
        await client.place(order)
    assert server.seen[path] == 3
    assert server.seen[PLACE] == 0


async def test_reads_give_our_types(server: Server, client: RestClient) -> None:
    """Each call gives its golden payload in our own types."""
    mix = "/api/v2/mix/"
    for path, name in (
        ("market/contracts", "contracts"),
        ("market/tickers", "tickers"),
        ("market/merge-depth", "merge_depth"),
        ("account/account", "account"),
        ("position/all-position", "positions"),
        ("order/orders-pending", "pending"),
        ("order/detail", "detail"),
        ("order/fills", "fills"),
        ("account/bill", "bills"),
        ("account/set-leverage", "leverage"),
        ("account/set-margin-mode", "margin_mode"),
        ("account/set-position-mode", "position_mode"),
    ):
        server.reply(mix + path, REST[name])

    universe = await client.contracts("simulator-test")
    account = await client.account("BTCUSDT")
    (position,) = await client.positions()
    (pending,) = await client.pending()
    detail = await client.detail("BTCUSDT", "a1")
    older, newer = await client.fills(order_id="1360000000000000100", client_oid="a1")

    assert (universe.source, universe.symbols) == ("simulator-test", ("BTCUSDT", "龙虾USDT"))
    assert (await client.tickers())[0].index == 60010.5
    assert (await client.merge_depth("BTCUSDT")).bids == [(60000.1, 2.0), (60000.0, 0.001)]
    assert (account.equity_usdt, account.leverage, account.position_mode) == (Decimal("9999.97"), 5, "one_way_mode")
    assert (position.symbol, position.size) == ("BTCUSDT", Decimal("-0.001"))
    assert (pending.client_oid, pending.filled, pending.kind) == ("a2", Decimal("0.0004"), OrderKind.POST_ONLY)
    assert detail is not None
    assert detail.client_oid == "a1"
    assert (older.trade_id, newer.trade_id) == ("1360000000000000200", "1360000000000000201")
    assert (older.fee_usdt, newer.is_maker, newer.client_oid) == (Decimal("0.03600012"), True, "a1")
    bills = await client.bills()
    assert [(bill.business_type, bill.amount + bill.fee) for bill in bills] == [
        ("trans_from_exchange", Decimal(10_000)),
        ("sell", Decimal("-0.036")),
        ("contract_settle_fee", Decimal("0.006")),
    ]
    assert await client.set_leverage("BTCUSDT", 5) == 5
    assert await client.set_margin_mode("BTCUSDT") == "crossed"
    assert await client.set_position_mode() == "one_way_mode"
    assert client.take_notes() == []


async def test_leverage_is_read_back_where_the_answer_leaves_it_out(server: Server, client: RestClient) -> None:
    """Leverage obtained is what the exchange says, never what was asked for."""
    server.reply("/api/v2/mix/account/set-leverage", REST["leverage_isolated"])
    server.reply("/api/v2/mix/account/account", REST["account"])

    assert await client.set_leverage("BTCUSDT", 20) == 5


async def test_unknown_field_of_an_answer_is_noted(server: Server, client: RestClient) -> None:
    """A field that Bitget adds to an answer is counted, kept and noted; the answer counts."""
    server.reply("/api/v2/mix/account/account", REST["account"] | {"brandNew": "1"})

    assert (await client.account("BTCUSDT")).leverage == 5

    (note,) = client.take_notes()
    assert note.fields["what"] == "unknown field brandNew"
    assert client.quarantine.counts == {("/api/v2/mix/account/account", "unknown field brandNew"): 1}


async def test_payload_of_another_shape_is_an_error(server: Server, client: RestClient) -> None:
    """An answer without the fields it must have is refused, and a default stands in for none."""
    server.reply("/api/v2/mix/account/account", {"marginCoin": "USDT"})
    with pytest.raises(ProtocolBroken, match="missing required field"):
        await client.account("BTCUSDT")

    server.reply("/api/v2/mix/account/account", [])
    with pytest.raises(ProtocolBroken, match="expected an object"):
        await client.account("BTCUSDT")


def paged(row: dict[str, Any], key: str, name: str, total: int) -> Handler:
    """Return a handler that has so many rows like `row`, newest first, a page at a time."""
    rows = [row | {key: str(10_000 + i), "cTime": str(1760000000000 + i)} for i in range(total)]

    async def handler(request: web.Request) -> web.StreamResponse:
        before = int(request.query.get("idLessThan", "99999999"))
        page = [row for row in reversed(rows) if int(row[key]) < before][: int(request.query["limit"])]
        end_id = page[-1][key] if page else None
        return web.Response(text=compact(envelope({name: page or None, "endId": end_id})))

    return handler


@pytest.mark.parametrize("total", [0, 99, 100, 101, 250])
async def test_every_page_is_read(server: Server, client: RestClient, total: int) -> None:
    """N fills or bills asked for are N returned, oldest first, over as many pages as it takes."""
    fill, bill = REST["fills"]["fillList"][0], REST["bills"]["bills"][0]
    server.answers["/api/v2/mix/order/fills"] = paged(fill, "tradeId", "fillList", total)
    server.answers["/api/v2/mix/account/bill"] = paged(bill, "billId", "bills", total)

    fills, paid = await client.fills(symbol="BTCUSDT"), await client.funding(1760000000000)

    expected = [str(10_000 + i) for i in range(total)]
    assert [fill.trade_id for fill in fills] == expected
    assert [bill.bill_id for bill in paid] == expected
    query = server.requests[-1].query
    assert (query["businessType"], query["startTime"]) == ("contract_settle_fee", "1760000000000")


async def test_clock_is_synchronised(server: Server) -> None:
    """Requests are signed with the exchange's clock, however wrong ours is."""
    server.reply("/api/v2/public/time", {"serverTime": "1760000000000"})
    server.reply("/api/v2/mix/position/all-position", [])
    async with RestClient(server.url, KEYS, clock=lambda: 1_000 * NS) as client:
        assert await client.sync_clock() >= 1760000000000 - 1_000_000
        assert await client.positions() == ()

    assert abs(int(server.requests[-1].headers["ACCESS-TIMESTAMP"]) - 1760000000000) < 5_000


async def test_endpoint_is_paced_below_its_limit(
    server: Server, client: RestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No second holds more than four fifths of an endpoint's documented requests, however many are wanted at once."""
    sent_ns: list[int] = []

    class Recorded(Pace):
        def note(self, at_ns: int) -> None:
            super().note(at_ns)
            sent_ns.append(at_ns)

    monkeypatch.setattr(transport, "Pace", Recorded)
    server.reply(PLACE, REST["placed"])

    await asyncio.gather(*(client.place(ORDER) for _ in range(9)))

    assert len(sent_ns) == server.seen[PLACE] == 9
    assert max(sum(at <= other < at + NS for other in sent_ns) for at in sent_ns) == 8


async def test_client_keeps_to_its_share_of_the_limits(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who leaves half to others sends no more than ten requests in any second to an endpoint of twenty."""
    sent_ns: list[int] = []

    class Recorded(Pace):
        def note(self, at_ns: int) -> None:
            super().note(at_ns)
            if self.period_ns == NS:
                sent_ns.append(at_ns)

    monkeypatch.setattr(transport, "Pace", Recorded)
    server.reply("/api/v2/mix/market/tickers", REST["tickers"])

    async with RestClient(server.url, None, share=0.5) as client:
        await asyncio.gather(*(client.tickers() for _ in range(11)))

    assert len(sent_ns) == 11
    assert max(sum(at <= other < at + NS for other in sent_ns) for at in sent_ns) == 10


async def test_symbols_travel_as_utf8(server: Server, client: RestClient) -> None:
    """A Chinese symbol arrives as it was sent, in a query and in a body."""
    server.reply("/api/v2/mix/market/merge-depth", REST["merge_depth"])
    server.reply("/api/v2/mix/account/set-leverage", REST["leverage"])

    await client.merge_depth("龙虾USDT")
    await client.set_leverage("龙虾USDT", 5)

    assert server.requests[0].query["symbol"] == "龙虾USDT"
    assert json.loads(await server.requests[1].read())["symbol"] == "龙虾USDT"


async def test_errors_hold_no_secret(server: Server, client: RestClient) -> None:
    """No error, at any depth, shows a key, a passphrase or a signature."""
    server.fail(PLACE, "too_small")
    server.answers["/api/v2/mix/order/cancel-order"] = server.hang_up
    told = ""
    for call in (client.place(ORDER), client.cancel(CancelOrder(client_oid="c1", order_id="", symbol="BTCUSDT"))):
        with pytest.raises((ExchangeRefused, ExchangeSilent)) as caught:
            await call
        told += repr(caught.value) + repr(caught.value.__cause__)

    sent = [request.headers["ACCESS-SIGN"] for request in server.requests]

    assert len(sent) == 2
    assert not [secret for secret in (*KEYS, *sent) if secret in told]


@pytest.mark.parametrize(
    "url", ["http://api.bitget.com", "ws://api.bitget.com", "ftp://127.0.0.1", "api.bitget.com", ""]
)
def test_unencrypted_address_is_refused(url: str) -> None:
    """Keys leave this machine encrypted or not at all."""
    with pytest.raises(SettingsError, match=r"https?://"):
        RestClient(url, KEYS)


def test_address_loses_its_trailing_slash() -> None:
    """An address is used as given, without a trailing slash; loopback needs no encryption."""
    assert check_url("https://api.bitget.com/", "http") == "https://api.bitget.com"
    assert check_url("http://127.0.0.1:18080", "http") == "http://127.0.0.1:18080"
    assert check_url("ws://localhost:1/v2/ws/public", "ws") == "ws://localhost:1/v2/ws/public"


def test_receive_clock_strictly_increases() -> None:
    """Receipts are strictly ordered, also when the wall clock stands still or goes back."""
    wall = iter([5, 5, 3, 9, 9])
    clock = ReceiveClock(lambda: next(wall))

    assert [clock() for _ in range(5)] == [5, 6, 7, 9, 10]


def test_backoff_grows_and_is_bounded() -> None:
    """Waiting doubles with every failure, never under 0.2 s, never over 30 s."""
    assert [backoff_s(failures, 0.999999) for failures in (0, 1, 2, 3)] == pytest.approx([1, 2, 4, 8], abs=1e-4)
    assert backoff_s(1000, 0.999999) <= 30
    assert backoff_s(5, 0.0) == 0.2


# ---------------------------------------------------------------------------------------------------- streams


class Socket:
    """A WebSocket server that acks what it is asked, and does what the test says for each connection."""

    def __init__(self, scenes: list[str]) -> None:
        self.scenes = scenes  # one for each connection; the last one stays
        self.connections = 0
        self.frames: list[str] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        scene = self.scenes[min(self.connections, len(self.scenes) - 1)]
        self.connections += 1
        if scene == "no upgrade":
            return web.Response(status=503)
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        if scene == "abort":
            assert request.transport is not None
            request.transport.abort()
            return ws
        async for message in ws:
            if message.type is not WSMsgType.TEXT:
                break
            self.frames.append(message.data)
            if message.data == "ping":
                if scene != "deaf":
                    await ws.send_str("pong")
                continue
            request_body = json.loads(message.data)
            if request_body["op"] == "login":
                await ws.send_str(frame("login_failed" if scene == "refuse login" else "logged_in"))
                continue
            for arg in request_body["args"]:
                symbol = arg.get("instId") or arg["coin"]
                await ws.send_str(ack(arg["channel"], symbol))
                if arg["channel"] == "books5":
                    await ws.send_str(book(symbol, [(1.0, 1.0)], [(2.0, 1.0)]))
                if arg["channel"] == "account":
                    await ws.send_str(frame("order_filled"))
            if scene == "close":
                await ws.close()
        return ws


class Owner:
    """What the shell of a stream would be: keeps events and notes, and lets a test wait for a condition."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.notes: list[Note] = []
        self.stop = asyncio.Event()
        self.clock: Callable[[], int] = ReceiveClock()

    async def run(self, url: str, session: PublicSession | PrivateSession, until: Callable[[], bool]) -> None:
        """Run the stream until the condition holds, then stop it cleanly."""
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(
                stream(
                    url,
                    session,
                    clock=self.clock,
                    stop=self.stop,
                    on_events=self.events.extend,
                    on_notes=self.notes.extend,
                )
            )
            while not until() and not task.done():
                await asyncio.sleep(0.005)
            self.stop.set()

    @property
    def lost(self) -> list[str]:
        return [str(note.fields["reason"]) for note in self.notes if note.event == "link.lost"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "backoff_s", lambda failures, draw: 0.01)


def public() -> PublicSession:
    return PublicSession(("BTCUSDT",), conn=1, buffer=TickBuffer(("BTCUSDT",)))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("scene", ["close", "abort", "no upgrade"])
async def test_stream_comes_back_after_a_loss(scene: str) -> None:
    """Closed, aborted or never opened: the stream connects again, and the data says when it was not linked."""
    server, session, owner = Socket([scene, "stay"]), public(), Owner()
    async with serving(server.handle) as address:
        await owner.run(f"ws://{address}/v2/ws/public", session, lambda: session.is_linked and server.connections > 1)

    events = session.buffer.take().books.event.tolist()

    assert owner.lost[-1] == "stopped"
    assert len(owner.lost) == 2
    assert events[-1] == TickEvent.DISCONNECTED
    assert events.count(TickEvent.SUBSCRIBED) == events.count(TickEvent.DISCONNECTED) >= 1


@pytest.mark.usefixtures("quick")
async def test_stream_leaves_a_deaf_server() -> None:
    """A server that never answers a ping is left after two of them, however alive its socket is."""
    server, session, owner = Socket(["deaf", "stay"]), public(), Owner()
    began = time.monotonic()
    owner.clock = ReceiveClock(lambda: int((time.monotonic() - began) * 1000 * NS) + NS)  # a thousand times as fast

    async with serving(server.handle) as address:
        await owner.run(f"ws://{address}/v2/ws/public", session, lambda: server.connections > 1)

    assert "unanswered" in owner.lost[0]
    assert server.frames.count("ping") >= 2


@pytest.mark.usefixtures("quick")
async def test_private_stream_gives_events_in_order() -> None:
    """Login, link up, a fill before the report of its order, link down: in this order, over the other library."""
    server, owner = Socket(["stay"]), Owner()
    session = PrivateSession(Keys(*KEYS))
    async with serving(server.handle) as address:
        await owner.run(
            f"ws://{address}/v2/ws/private", session, lambda: any(isinstance(event, Filled) for event in owner.events)
        )

    kinds = [type(event).__name__ for event in owner.events]

    assert kinds == ["LinkChanged", "Filled", "OrderReported", "LinkChanged"]
    assert [event.is_up for event in owner.events if isinstance(event, LinkChanged)] == [True, False]
    assert [event.recv_ns for event in owner.events] == sorted(event.recv_ns for event in owner.events)
    assert json.loads(server.frames[0])["op"] == "login"


@pytest.mark.usefixtures("quick")
async def test_private_stream_ends_with_refused_keys() -> None:
    """Refused keys end the stream with one clear error instead of a hundred logins."""
    server, owner = Socket(["refuse login"]), Owner()
    async with serving(server.handle) as address:
        with pytest.raises(ExceptionGroup) as caught:
            await owner.run(f"ws://{address}/v2/ws/private", PrivateSession(Keys(*KEYS)), lambda: False)

    assert caught.group_contains(ExchangeRefused, match="check the three keys")
    assert server.connections == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("is_public", [True, False])
async def test_stream_waits_for_a_server_that_is_not_there(is_public: bool) -> None:
    """A refused connection is tried again until stop, and each failure is told."""
    owner = Owner()
    session = public() if is_public else PrivateSession(Keys(*KEYS))

    await owner.run(f"ws://127.0.0.1:{unused_port()}/v2/ws/public", session, lambda: len(owner.lost) >= 3)

    assert all("Connect" in reason or "refused" in reason for reason in owner.lost[:3])


@pytest.mark.usefixtures("quick")
async def test_cancelled_stream_still_tells_the_loss() -> None:
    """A stream that is cancelled ends its links in the data, so that nobody takes silence for quiet."""
    server, session, owner = Socket(["stay"]), public(), Owner()
    async with serving(server.handle) as address:
        url = f"ws://{address}/v2/ws/public"
        task = asyncio.create_task(stream(url, session, clock=owner.clock, stop=owner.stop))
        async with asyncio.timeout(10):
            while not session.is_linked:
                await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert session.buffer.take().trades.event.tolist()[-1] == TickEvent.DISCONNECTED


async def test_mistake_of_ours_is_no_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """An assertion that fails in a tick ends the stream instead of reconnecting for ever."""
    server, session, owner = Socket(["stay"]), public(), Owner()

    def broken(now_ns: int) -> list[str]:
        raise AssertionError("made up")

    async with serving(server.handle) as address:
        monkeypatch.setattr(session, "connected", lambda now_ns: [])
        monkeypatch.setattr(session, "tick", broken)
        with pytest.raises(AssertionError, match="made up"):
            async with asyncio.timeout(10):
                await stream(f"ws://{address}/", session, clock=owner.clock, stop=owner.stop)

    assert server.connections == 1
