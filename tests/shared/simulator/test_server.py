"""Bitget on localhost over real sockets: envelope, quirks, errors, the life of an order, and misbehaviour."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import websockets.asyncio.client
from websockets.exceptions import ConnectionClosed

from shared.simulator.gate import Credentials
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator.server import Server

MARKET = GeneratedMarket(7, 20)
KEYS = Credentials("key", "secret", "pass", Decimal(10_000))
MIX = "/api/v2/mix/"
BASE = {"symbol": "BTCUSDT", "productType": "USDT-FUTURES", "marginMode": "crossed", "marginCoin": "USDT"}
SILENCE_S = 0.3


def sign(text: str) -> str:
    return base64.b64encode(hmac.new(b"secret", text.encode(), hashlib.sha256).digest()).decode()


class Client:
    """What we know of the protocol on the client's side, written down a second time."""

    def __init__(self, server: Server, http: aiohttp.ClientSession) -> None:
        self.server, self.http = server, http

    async def send(self, method: str, path: str, body: Any = None, *, is_signed: bool = True) -> tuple[int, Any]:
        text = "" if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        if is_signed:
            stamp = str(time.time_ns() // 1_000_000)
            headers |= {
                "ACCESS-KEY": "key", "ACCESS-PASSPHRASE": "pass", "ACCESS-TIMESTAMP": stamp,
                "ACCESS-SIGN": sign(stamp + method + path + text),
            }  # fmt: skip
        async with self.http.request(method, self.server.rest_url + path, headers=headers, data=text or None) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str, **params: str) -> Any:
        query = "&".join(f"{key}={value}" for key, value in params.items())
        status, body = await self.send("GET", f"{MIX}{path}?{query}")
        assert status == 200, body
        return body["data"]

    async def post(self, path: str, **body: Any) -> Any:
        status, answer = await self.send("POST", MIX + path, body)
        assert status == 200, answer
        return answer["data"]

    async def refused(self, path: str, **body: Any) -> str:
        status, answer = await self.send("POST", MIX + path, body)
        assert (status, answer["data"]) == (400, None)
        return str(answer["code"])

    async def conditions(self, **change: Any) -> Any:
        async with self.http.post(f"{self.server.rest_url}/_control/conditions", json=change) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def login(self, socket: Any, *channels: str) -> None:
        stamp = str(int(time.time()))
        arg = {"apiKey": "key", "passphrase": "pass", "timestamp": stamp, "sign": sign(stamp + "GET/user/verify")}
        await socket.send(json.dumps({"op": "login", "args": [arg]}))
        assert json.loads(await socket.recv()) == {"event": "login", "code": 0}
        for channel in channels:
            arg = {"instType": "USDT-FUTURES", "channel": channel}
            arg |= {"coin": "default"} if channel == "account" else {"instId": "default"}
            await socket.send(json.dumps({"op": "subscribe", "args": [arg]}))
            assert json.loads(await socket.recv()) == {"event": "subscribe", "arg": arg}

    def public(self) -> Any:
        return websockets.asyncio.client.connect(self.server.ws_url + "/public", max_size=None)

    def private(self) -> Any:
        return websockets.asyncio.client.connect(self.server.ws_url + "/private")


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Client]:
    server = Server(MARKET, accounts=[KEYS])
    await server.start()
    async with aiohttp.ClientSession() as http:
        yield Client(server, http)
    await server.stop()


async def subscribe(socket: Any, *pairs: tuple[str, str], op: str = "subscribe", inst: str = "USDT-FUTURES") -> None:
    args = [{"instType": inst, "channel": channel, "instId": symbol} for channel, symbol in pairs]
    await socket.send(json.dumps({"op": op, "args": args}))


async def receive(socket: Any, **wanted: str) -> Any:
    """Return the next frame whose channel, event or action is the wanted one."""
    while True:
        text = await socket.recv()
        frame = {} if text == "pong" else json.loads(text)
        found = {
            "channel": frame.get("arg", {}).get("channel"),
            "event": frame.get("event"),
            "action": frame.get("action"),
        }
        if wanted.items() <= found.items():
            return frame


async def is_silent(socket: Any, channel: str) -> bool:
    try:
        await asyncio.wait_for(receive(socket, channel=channel), SILENCE_S)
    except TimeoutError:
        return True
    return False


# -------------------------------------------------------------------------------------------- public REST


async def test_envelope_is_bitgets(client: Client) -> None:
    """The code is a string, requestTime an integer, and the remaining calls of this second are in a header."""
    async with client.http.get(client.server.rest_url + "/api/v2/public/time") as answer:
        body = await answer.json()
        remaining = answer.headers["x-mbx-used-remain-limit"]

    assert list(body) == ["code", "msg", "requestTime", "data"]
    assert (body["code"], body["msg"], type(body["requestTime"]), remaining) == ("00000", "success", int, "19")
    assert abs(int(body["data"]["serverTime"]) - body["requestTime"]) < 1000


@pytest.mark.parametrize(
    ("path", "status", "code", "message"),
    [
        (
            MIX + "market/ticker?productType=USDT-FUTURES&symbol=NOPEUSDT",
            400,
            "40034",
            "Parameter NOPEUSDT does not exist",
        ),
        (MIX + "market/tickers?productType=NOPE-FUTURES", 400, "40019", "Parameter NOPE-FUTURES cannot be empty"),
        (MIX + "market/ticker?productType=USDT-FUTURES", 400, "40019", "Parameter symbol cannot be empty"),
        ("/api/v2/nope", 404, "40404", "Request URL NOT FOUND"),
        (MIX + "order/place-order", 404, "40404", "Request URL NOT FOUND"),
        (MIX + "position/all-position?productType=USDT-FUTURES", 400, "40006", "Invalid ACCESS_KEY"),
        ("/%zz/../\x7f", 404, "40404", "Request URL NOT FOUND"),
    ],
)
async def test_bad_request_gets_bitgets_answer(client: Client, path: str, status: int, code: str, message: str) -> None:
    """Errors are HTTP 400 (404 for unknown URLs) in the same envelope, with null data."""
    found, body = await client.send("GET", path, is_signed=False)

    assert (found, body["code"], body["msg"], body["data"]) == (status, code, message, None)


async def test_market_endpoints_tell_one_market(client: Client) -> None:
    """Contracts, tickers, depth, trades and funding agree about symbols and prices; depth is numbers, the rest text."""
    contracts = await client.get("market/contracts", productType="usdt-futures")
    tickers = await client.get("market/tickers", productType="USDT-FUTURES")
    depth = await client.get("market/merge-depth", productType="USDT-FUTURES", symbol="BTCUSDT", limit="5")
    fills = await client.get("market/fills", productType="USDT-FUTURES", symbol="BTCUSDT", limit="3")
    funding = await client.get("market/current-fund-rate", productType="USDT-FUTURES", symbol="BTCUSDT")

    assert [row["symbol"] for row in contracts] == [row["symbol"] for row in tickers] == list(MARKET.symbols)
    assert len(depth["asks"]) == len(depth["bids"]) == 5
    assert depth["bids"][0][0] < depth["asks"][0][0]
    assert depth["asks"] == sorted(depth["asks"])
    assert abs(depth["asks"][0][0] / float(tickers[0]["lastPr"]) - 1) < 0.01
    assert len(fills) == 3
    assert [int(row["tradeId"]) for row in fills] == sorted((int(row["tradeId"]) for row in fills), reverse=True)
    assert funding[0]["fundingRateInterval"] == "8"


async def test_chinese_symbol_works_signed_raw_and_encoded(client: Client) -> None:
    """The symbol travels percent-encoded; ccxt signs it raw, hummingbot encoded."""
    path = f"{MIX}position/single-position?marginCoin=USDT&productType=USDT-FUTURES&symbol=龙虾USDT"

    status, body = await client.send("GET", path)

    assert (status, body["data"]) == (200, [])


async def test_twenty_first_call_of_a_second_is_a_429(client: Client) -> None:
    """Budgets are per endpoint; the refusal has HTTP status 429 and the code 429."""
    answers = await asyncio.gather(*(client.send("GET", "/api/v2/public/time", is_signed=False) for _ in range(60)))

    refused = [body for status, body in answers if status == 429]
    assert refused
    assert {body["code"] for body in refused} == {"429"}
    assert sum(status == 200 for status, _ in answers) >= 20


# ---------------------------------------------------------------------------------------- public sockets


async def test_each_argument_is_acked_and_followed_by_its_snapshot(client: Client) -> None:
    """One ack per argument, then the state, then pushes; an unsubscribed channel falls silent."""
    async with client.public() as socket:
        await subscribe(socket, ("books15", "BTCUSDT"), ("ticker", "龙虾USDT"))
        first = [json.loads(await socket.recv()) for _ in range(4)]
        await receive(socket, channel="books15", action="snapshot")
        await subscribe(socket, ("books15", "BTCUSDT"), op="unsubscribe")
        await receive(socket, event="unsubscribe")
        silent = await is_silent(socket, "books15")

    assert [frame.get("event") for frame in first] == ["subscribe", None, "subscribe", None]
    assert first[3]["data"][0]["instId"] == "龙虾USDT"
    assert silent


async def test_ping_is_answered_with_pong(client: Client) -> None:
    """Keep-alive is a text frame, not a control frame."""
    async with client.public() as socket:
        await socket.send("ping")

        assert await socket.recv() == "pong"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ('{"op":"subscribe","args":[{"instType":"USDT-FUTURES","channel":"books","instId":"NOPEUSDT"}]}', 30001),
        ('{"op":"subscribe","args":[{"instType":"USDT-FUTURES","channel":"books50","instId":"BTCUSDT"}]}', 30016),
        ('{"op":"subscribe","args":[{"instType":"USDT-FUTURES","channel":"orders","instId":"default"}]}', 30004),
        ('{"op":"subscribe","args":["BTCUSDT"]}', 30016),
        ('{"op":"subscribe"}', 30016),
        ('{"op":"dance","args":[{}]}', 30003),
        ("not json", 30002),
        ("[" * 4000, 30002),
        ("[]", 30002),
        ('{"op":"subscribe","args":[' + '{"channel":"books"},' * 400 + "{}]}", 30016),
    ],
)
async def test_bad_frame_gets_an_error_and_the_socket_lives_on(client: Client, sent: str, code: int) -> None:
    """Error codes are integers on the socket; a malformed frame ends nothing."""
    async with client.public() as socket:
        await socket.send(sent)
        error = json.loads(await socket.recv())
        await socket.send("ping")
        answers = [await socket.recv()]

    assert (error["event"], error["code"]) == ("error", code)
    assert answers == ["pong"]


async def test_errors_equal_recorded_ones(client: Client, outside: Path) -> None:
    """The two error frames recorded from Bitget, asked for again."""
    lines = (outside / "bitget/fixtures/recorded_live_202609/ws_v2_errors.jsonl").read_text().splitlines()

    async with client.public() as socket:
        for theirs in map(json.loads, lines):
            await socket.send(json.dumps({"op": "subscribe", "args": [theirs["arg"]]}))

            assert json.loads(await socket.recv()) == theirs


async def test_wrong_inst_type_is_acked_and_then_silent(client: Client) -> None:
    """Measured: a real symbol under the wrong instType gets an ack and nothing more."""
    async with client.public() as socket:
        await subscribe(socket, ("ticker", "BTCUSDT"), inst="COIN-FUTURES")

        assert json.loads(await socket.recv())["event"] == "subscribe"
        assert await is_silent(socket, "ticker")


async def test_eleventh_message_of_a_second_ends_the_connection(client: Client) -> None:
    """Ten client messages a second are allowed, ping included."""
    async with client.public() as socket, asyncio.timeout(5):
        for _ in range(11):
            await socket.send("ping")

        with pytest.raises(ConnectionClosed):
            await receive(socket, event="nothing like it")


async def test_every_listener_gets_the_same_frames(client: Client) -> None:
    """A frame is rendered once; two clients compare equal byte for byte."""
    heard: list[set[str]] = []
    async with client.public() as one, client.public() as two:
        for socket in (one, two):
            await subscribe(socket, ("books15", "BTCUSDT"))
        for socket in (one, two):
            frames = [await socket.recv() for _ in range(8)]
            heard.append({frame for frame in frames if '"action"' in frame})

    # Each got one snapshot of its own on subscribing; the pushes are shared.
    assert len(heard[0] & heard[1]) >= 5


# ----------------------------------------------------------------------------------------------- private


async def test_failed_login_is_an_error_and_the_end(client: Client) -> None:
    """A wrong signature gets 30015, then the connection closes."""
    async with client.private() as socket:
        arg = {"apiKey": "key", "passphrase": "pass", "timestamp": str(int(time.time())), "sign": "wrong"}
        await socket.send(json.dumps({"op": "login", "args": [arg]}))

        assert json.loads(await socket.recv())["code"] == 30015
        with pytest.raises(ConnectionClosed):
            await socket.recv()


async def test_life_of_a_market_order(client: Client) -> None:
    """Ack, live, fill, filled, position, account; detail, fills and positions tell the same story; then flat again."""
    async with client.private() as socket, asyncio.timeout(10):
        await client.login(socket, "orders", "fill")
        ack = await client.post(
            "order/place-order", **BASE, side="buy", orderType="market", size="0.01", clientOid="one"
        )
        live = (await receive(socket, channel="orders"))["data"][0]
        fill = (await receive(socket, channel="fill"))["data"][0]
        filled = (await receive(socket, channel="orders"))["data"][0]
    detail = await client.get("order/detail", symbol="BTCUSDT", productType="USDT-FUTURES", clientOid="one")
    positions = await client.get("position/all-position", productType="USDT-FUTURES")
    fills = await client.get("order/fills", productType="USDT-FUTURES", orderId=ack["orderId"])

    assert (live["status"], filled["status"], detail["state"]) == ("live", "filled", "filled")
    assert live["orderId"] == filled["orderId"] == fill["orderId"] == detail["orderId"] == ack["orderId"]
    assert fill["price"] == filled["fillPrice"] == detail["priceAvg"] == fills["fillList"][0]["price"]
    assert (positions[0]["total"], positions[0]["holdSide"], positions[0]["openPriceAvg"]) == (
        "0.01",
        "long",
        fill["price"],
    )
    notional = Decimal(fill["price"]) * Decimal("0.01")
    assert Decimal(fill["feeDetail"][0]["totalFee"]) == -(notional * Decimal("0.0006")).quantize(Decimal("1e-8"))


async def test_equity_is_what_fills_and_marks_say(client: Client) -> None:
    """The account's equity equals deposit + profit - fees + unrealised, from the answers alone."""
    await client.conditions(match_ms=0)  # matched before the next request is read
    for side in ("buy", "sell"):
        for symbol in ("BTCUSDT", "ETHUSDT"):
            await client.post(
                "order/place-order", **BASE | {"symbol": symbol}, side=side, orderType="market", size="0.03"
            )
    await client.post("order/place-order", **BASE, side="sell", orderType="market", size="0.02")

    account = await client.get("account/account", symbol="BTCUSDT", productType="USDT-FUTURES", marginCoin="USDT")
    fills = (await client.get("order/fills", productType="USDT-FUTURES"))["fillList"]

    earned = sum(Decimal(fill["profit"]) + Decimal(fill["feeDetail"][0]["totalFee"]) for fill in fills)
    assert len(fills) >= 5
    assert Decimal(account["usdtEquity"]) == 10_000 + earned + Decimal(account["unrealizedPL"])


async def settle_funding(client: Client) -> Any:
    async with client.http.post(f"{client.server.rest_url}/_control/funding") as answer:
        assert answer.status == 200, await answer.text()
        return (await answer.json())["paid"]


async def test_bills_tell_every_movement_of_the_wallet(client: Client) -> None:
    """Trades with their fees, funding without one, newest first in pages of snowflakes; null where there is none."""
    where = {"productType": "USDT-FUTURES"}
    assert await client.get("account/bill", **where) == {"bills": None, "endId": None}
    assert await settle_funding(client) == []
    for side in ("buy", "sell"):
        await client.post("order/place-order", **BASE, side=side, orderType="market", size="0.01")
        if side == "buy":
            while not await client.get("position/all-position", **where):
                await asyncio.sleep(0.2)
            [paid] = await settle_funding(client)
    while await client.get("position/all-position", **where):
        await asyncio.sleep(0.2)

    rows = (await client.get("account/bill", **where))["bills"]
    [funding] = (await client.get("account/bill", **where, businessType="contract_settle_fee"))["bills"]
    first = await client.get("account/bill", **where, limit="1")
    second = await client.get("account/bill", **where, limit="1", idLessThan=first["endId"])
    equity = Decimal((await client.get("account/account", **where, symbol="BTCUSDT", marginCoin="USDT"))["usdtEquity"])

    assert list(rows[0]) == [
        "billId", "symbol", "amount", "fee", "feeByCoupon", "businessType", "coin", "balance", "cTime",
    ]  # fmt: skip
    assert [row["businessType"] for row in rows] == ["sell", "contract_settle_fee", "buy"]
    assert (funding["billId"], funding["symbol"], funding["fee"]) == (paid["billId"], "BTCUSDT", "0")
    assert (funding["amount"], paid["account"]) == (paid["amount"], "key")
    assert [row["billId"] for row in (*first["bills"], *second["bills"])] == [row["billId"] for row in rows[:2]]
    assert equity == 10_000 + sum(Decimal(row["amount"]) + Decimal(row["fee"]) for row in rows)
    assert Decimal(rows[0]["balance"]) == equity
    for row in rows:
        assert (int(row["billId"]) >> 22) + 1_435_725_920_677 == int(row["cTime"])


async def test_bill_may_be_late_and_its_window_is_bounded(client: Client) -> None:
    """The wallet moves before the bill is listed; a window of more than 30 days is refused."""
    await client.conditions(bill_delay_ms=60_000)
    await client.post("order/place-order", **BASE, side="buy", orderType="market", size="0.01")
    while not (await client.get("order/fills", productType="USDT-FUTURES"))["fillList"]:
        await asyncio.sleep(0.2)

    assert (await client.get("account/bill", productType="USDT-FUTURES"))["bills"] is None
    await client.conditions(bill_delay_ms=0)
    assert (await client.get("account/bill", productType="USDT-FUTURES"))["bills"]
    window = f"startTime=1&endTime={31 * 86_400_000}"
    status, answer = await client.send("GET", f"{MIX}account/bill?productType=USDT-FUTURES&{window}")
    assert (status, answer["code"]) == (400, "00001")


async def test_resting_order_is_listed_cancelled_and_gone(client: Client) -> None:
    """A post-only order rests; empty lists are null before and after."""
    place = BASE | {"side": "buy", "orderType": "limit", "price": "81000.5", "force": "post_only", "size": "0.01"}
    empty = await client.get("order/orders-pending", productType="USDT-FUTURES")
    ack = await client.post("order/place-order", **place, clientOid="rest")
    listed = await client.get("order/orders-pending", productType="USDT-FUTURES", symbol="BTCUSDT")
    duplicate = await client.refused("order/place-order", **place, clientOid="rest")
    cancelled = await client.post("order/cancel-order", symbol="BTCUSDT", productType="USDT-FUTURES", clientOid="rest")
    history = await client.get("order/orders-history", productType="USDT-FUTURES")

    assert empty == {"entrustedList": None, "endId": None}
    assert [row["orderId"] for row in listed["entrustedList"]] == [ack["orderId"]] == [listed["endId"]]
    assert duplicate == "40786"
    assert cancelled == {"orderId": ack["orderId"], "clientOid": "rest"}
    assert history["entrustedList"][0]["status"] == "canceled"
    assert await client.get("order/orders-pending", productType="USDT-FUTURES") == empty


async def test_batch_cancel_tells_success_and_failure(client: Client) -> None:
    """A batch is HTTP 200 even where parts fail; without a list it cancels everything of the symbol."""
    place = BASE | {"side": "buy", "orderType": "limit", "price": "81000", "size": "0.01"}
    acks = [await client.post("order/place-order", **place) for _ in range(3)]
    wanted = [{"orderId": acks[0]["orderId"]}, {"clientOid": "nope"}]
    where = {"symbol": "BTCUSDT", "productType": "USDT-FUTURES"}

    some = await client.post("order/batch-cancel-orders", **where, orderIdList=wanted)
    rest = await client.post("order/batch-cancel-orders", **where)

    assert [row["orderId"] for row in some["successList"]] == [acks[0]["orderId"]]
    assert [(row["clientOid"], row["errorCode"]) for row in some["failureList"]] == [("nope", "40768")]
    assert {row["orderId"] for row in rest["successList"]} == {ack["orderId"] for ack in acks[1:]}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"tradeSide": "open"}, "40774"), ({"size": "abc"}, "40020"), ({"size": None}, "40019"), ({"side": "up"}, "40020"),
        ({"symbol": "NOPEUSDT"}, "40034"), ({"reduceOnly": "YES"}, "22002"), ({"size": "0.00001"}, "40808"),
        ({"orderType": "limit"}, "40019"), ({"size": "9" * 60}, "40020"), ({"size": {"a": 1}}, "40020"),
        ({"size": "5"}, "40762"), ({"size": "100"}, "45112"),
    ],
)  # fmt: skip
async def test_bad_order_is_refused(client: Client, change: dict[str, Any], code: str) -> None:
    """Every malformed or impossible order gets a code; nothing is pending afterwards."""
    order = BASE | {"side": "buy", "orderType": "market", "size": "0.01"} | change

    assert await client.refused("order/place-order", **order) == code
    assert (await client.get("order/orders-pending", productType="USDT-FUTURES"))["entrustedList"] is None


async def test_modes_and_leverage_are_read_back(client: Client) -> None:
    """What was set is what the account says; beyond the contract's maximum it is refused."""
    where = {"symbol": "BTCUSDT", "productType": "USDT-FUTURES", "marginCoin": "USDT"}
    leverage = await client.post("account/set-leverage", **where, leverage="7")
    mode = await client.post("account/set-position-mode", productType="USDT-FUTURES", posMode="one_way_mode")
    margin = await client.post("account/set-margin-mode", **where, marginMode="crossed")
    account = await client.get("account/account", **where)

    assert (leverage["crossMarginLeverage"], mode["posMode"], margin["marginMode"]) == ("7", "one_way_mode", "crossed")
    assert (account["crossedMarginLeverage"], account["posMode"]) == (7, "one_way_mode")
    assert await client.refused("account/set-leverage", **where, leverage="151") == "40797"


async def test_malformed_body_is_refused(client: Client) -> None:
    """A body that is not a JSON object is 40017, however deep."""
    for text in ("{", "[1]", "[" * 20_000):
        path, stamp = MIX + "order/place-order", str(time.time_ns() // 1_000_000)
        headers = {"ACCESS-KEY": "key", "ACCESS-PASSPHRASE": "pass", "ACCESS-TIMESTAMP": stamp}
        headers |= {"ACCESS-SIGN": sign(stamp + "POST" + path + text), "Content-Type": "application/json"}
        async with client.http.post(client.server.rest_url + path, headers=headers, data=text) as answer:
            assert (answer.status, (await answer.json())["code"]) == (400, "40017")


# ----------------------------------------------------------------------------------------- misbehaviour


async def test_placement_that_times_out_has_happened(client: Client) -> None:
    """No answer comes, yet the order exists: only `detail` tells."""
    await client.conditions(timeout_next_place=True)
    order = BASE | {"side": "buy", "orderType": "market", "size": "0.01", "clientOid": "lost"}

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(client.post("order/place-order", **order), SILENCE_S)

    detail = await client.get("order/detail", symbol="BTCUSDT", productType="USDT-FUTURES", clientOid="lost")
    assert detail["state"] == "filled"
    await client.post("order/place-order", **order | {"clientOid": "next"})


async def test_placement_that_is_lost_has_not_happened(client: Client) -> None:
    """No answer comes and the order never existed: the other half of not knowing."""
    await client.conditions(lose_next_place=1)
    order = BASE | {"side": "buy", "orderType": "market", "size": "0.01", "clientOid": "gone"}

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(client.post("order/place-order", **order), SILENCE_S)

    path = f"{MIX}order/detail?symbol=BTCUSDT&productType=USDT-FUTURES&clientOid=gone"
    status, body = await client.send("GET", path)
    assert (status, body["code"]) == (400, "40768")


@pytest.mark.parametrize(
    ("which", "falls"), [(True, (True, True)), ("public", (True, False)), ("private", (False, True))]
)
async def test_dropped_sockets_end_without_a_close_frame(client: Client, which: Any, falls: tuple[bool, bool]) -> None:
    """The network breaks for the sockets that were asked for, and for no others."""
    async with client.public() as public, client.private() as private, asyncio.timeout(10):
        await client.conditions(drop_sockets=which)

        for socket, is_down in zip((public, private), falls, strict=True):
            if is_down:
                with pytest.raises(ConnectionClosed) as closed:
                    await socket.recv()
                assert closed.value.rcvd is None
            else:
                await socket.send("ping")
                assert await socket.recv() == "pong"


async def test_frozen_feed_keeps_the_socket(client: Client) -> None:
    """Pushes stop while ping still gets its pong: stale data on a live connection."""
    async with client.public() as socket:
        await subscribe(socket, ("books15", "BTCUSDT"))
        await receive(socket, channel="books15", action="snapshot")
        await client.conditions(is_frozen=True)
        await socket.send("ping")
        while await socket.recv() != "pong":
            pass
        assert await is_silent(socket, "books15")
        await client.conditions(is_frozen=False)

        await receive(socket, channel="books15", action="snapshot")


async def test_scripted_refusal_strikes_once(client: Client) -> None:
    """The next request to a path gets a given code and status, the one after that its own answer."""
    strike = {"path": "order/place-order", "code": "40725", "msg": "service return an error", "status": 503}
    await client.conditions(refuse_next=[strike])
    order = BASE | {"side": "buy", "orderType": "market", "size": "0.01"}

    status, body = await client.send("POST", MIX + "order/place-order", order)

    assert (status, body["code"]) == (503, "40725")
    await client.post("order/place-order", **order)


async def test_muted_private_stream_loses_pushes_not_orders(client: Client) -> None:
    """A lost private push is lost; REST still tells the truth."""
    async with client.private() as socket:
        await client.login(socket, "orders")
        await client.conditions(is_private_mute=True)
        await client.post("order/place-order", **BASE, side="buy", orderType="market", size="0.01")

        assert await is_silent(socket, "orders")
    assert await client.get("position/all-position", productType="USDT-FUTURES")


async def test_unknown_condition_is_refused(client: Client) -> None:
    """A misspelt condition is an error, not a test that passes for nothing."""
    async with client.http.post(
        f"{client.server.rest_url}/_control/conditions", json={"timeout_next_plaice": 1}
    ) as answer:
        assert answer.status == 400


async def test_control_describes_the_market(client: Client) -> None:
    """Source, seed and predictability are there for whoever labels figures with them."""
    async with client.http.get(f"{client.server.rest_url}/_control/market") as answer:
        found = await answer.json()

    assert (found["source"], found["kind"], found["seed"], found["predictability"]) == (
        "simulator-g7-20",
        "generated",
        7,
        0.2,
    )
    assert abs(found["history_end_ns"] - time.time_ns()) < 5e9
