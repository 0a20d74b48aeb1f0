"""Nonsense at the door: whatever is asked gets Bitget's envelope and a code, and the server goes on.

Requests go over a real socket to a server in a thread of its own, so that hypothesis can drive it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.simulator.clock import Clock
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator.rest import door as rest
from tests.shared.simulator.rest_world import ACCOUNT, MIX, ORDER, PRODUCT, WHERE, RestClient, serving

RICH = msgspec.structs.replace(ACCOUNT, deposit_usdt=Decimal(10_000_000))
HEDGED = msgspec.structs.replace(RICH, key="hedged")


class Served:
    """A server in a thread, and blocking clients of it."""

    def __init__(self) -> None:
        self.clients: list[RestClient] = []
        self._ready, self._over = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),))
        self._thread.start()
        assert self._ready.wait(60)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with serving(RICH, HEDGED) as self.clients:
            for client, more in zip(self.clients, ({}, {"tradeSide": "open"}), strict=True):
                if more:
                    await client.post("account/set-position-mode", **PRODUCT, posMode="hedge_mode")
                await client.tell("order/place-order", **ORDER, **more, side="buy")
                price = await client.price(0.97)
                await client.tell(
                    "order/place-order", **ORDER | more | {"orderType": "limit", "price": price}, side="buy"
                )
            self._ready.set()
            await self._over.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def send(
        self, which: int, method: str, target: str, body: bytes = b"", content_type: str | None = "application/json"
    ) -> tuple[int, Any]:
        client = self.clients[which]
        headers = client.headers(method, target, body)
        if content_type is None:
            del headers["Content-Type"]
        else:
            headers["Content-Type"] = content_type
        connection = http.client.HTTPConnection("127.0.0.1", client.server.port, timeout=30)
        try:
            connection.request(method, target, body or None, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def is_alive(self) -> bool:
        status, body = self.send(0, "GET", "/api/v2/public/time")
        return (status, body["code"]) == (200, "00000")


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    made = Served()
    yield made
    assert made.is_alive()
    made.stop()


def is_bitgets(status: int, body: Any) -> bool:
    """Tell whether an answer is the envelope: four keys, a code in text, an integer time, data only with success."""
    assert isinstance(body, dict), body
    assert list(body) == ["code", "msg", "requestTime", "data"]
    assert (type(body["code"]), type(body["msg"]), type(body["requestTime"])) == (str, str, int)
    if status == 200:
        return bool(body["code"] == "00000" and body["msg"] == "success")
    return (
        status in (400, 404, 429) and body["data"] is None and body["code"] not in ("", "00000") and body["msg"] != ""
    )


NUMBERS = st.sampled_from(
    [
        "0", "-1", "1e999", "1e-999", "-0.0", "9" * 39, "9" * 5000, "NaN", "Infinity", "-Infinity", "1_000", "１", " 1 ",
        "0x10", "1e24", "1e25", "0." + "0" * 30 + "1", "1.5", "²", "1,5", "+3", ".", "", "1E5", "٣", "0.01", "90000",
    ]
)  # fmt: skip
WORDS = st.sampled_from(
    [
        "BTCUSDT", "ETHUSDT", "NOPEUSDT", "btcusdt", "buy", "sell", "BUY", "open", "close", "long", "short", "crossed",
        "isolated", "limit", "market", "gtc", "ioc", "fok", "post_only", "yes", "NO", "USDT", "usdt-futures",
        "COIN-FUTURES", "one_way_mode", "hedge_mode", "single", "union", "cancel_both", "profit_loss", "pos_loss",
        "normal_plan", "track_plan", "moving_plan", "profit_plan", "mark_price", "fill_price", "龙虾USDT", "\x00", "a" * 300,
    ]
)  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | NUMBERS | WORDS | st.text(max_size=8)
)  # floats hold NaN and infinities
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "symbol", "productType", "marginCoin", "marginMode", "size", "side", "tradeSide", "orderType", "price", "force",
    "clientOid", "reduceOnly", "orderId", "newClientOid", "newSize", "newPrice", "newPresetStopLossPrice", "holdSide",
    "leverage", "longLeverage", "posMode", "assetMode", "amount", "orderIdList", "orderList", "stpMode", "triggerPrice",
    "presetStopLossPrice", "presetStopSurplusPrice", "presetStopLossExecutePrice", "planType", "triggerType", "rangeRate",
    "callbackRatio", "executePrice", "stopSurplusTriggerPrice", "stopLossTriggerPrice", "limit", "idLessThan",
    "startTime", "endTime", "openAmount", "openPrice", "posSide", "businessType", "coin", "onlyFunding", "status",
    "granularity", "precision", "pageSize", "pageNo", "kLineType", "planStatus", "planOrderId", "businessType",
)  # fmt: skip
GOOD = WHERE | {
    "marginMode": "crossed", "size": "0.01", "side": "buy", "orderType": "limit", "price": "80000", "holdSide": "long",
    "leverage": "5", "posMode": "one_way_mode", "assetMode": "single", "amount": "1", "planType": "pos_loss",
    "triggerPrice": "70000", "openAmount": "50", "openPrice": "80000", "posSide": "long", "businessType": "mix",
    "granularity": "1m", "newClientOid": "n", "clientOid": "c",
}  # fmt: skip
KNOWN = sorted((endpoint.method, path) for group in rest.GROUPS for path, endpoint in group.ENDPOINTS.items())
POSTS = [path for method, path in KNOWN if method == "POST"]
GETS = [path for method, path in KNOWN if method == "GET"]

CHANGES = st.dictionaries(st.sampled_from(FIELDS), JUNK, max_size=3)
DROPPED = st.sets(st.sampled_from(sorted(GOOD)), max_size=2)


@settings(max_examples=150)
@given(which=st.integers(0, 1), path=st.sampled_from(POSTS), changes=CHANGES, dropped=DROPPED, data=st.data())
def test_wrong_fields_get_a_code(
    served: Served, which: int, path: str, changes: dict[str, Any], dropped: set[str], data: st.DataObject
) -> None:
    """Any value of any type in any field of any POST, in either position mode."""
    trade_side = {"tradeSide": data.draw(st.sampled_from(["open", "close"]))} if which else {}
    body = {name: value for name, value in (GOOD | trade_side).items() if name not in dropped} | changes
    if "batch" in path and data.draw(st.booleans()):
        name = "orderList" if "place" in path else "orderIdList"
        body[name] = data.draw(st.lists(JUNK | st.just(GOOD | trade_side), max_size=4))

    assert is_bitgets(*served.send(which, "POST", path, json.dumps(body).encode()))


@pytest.mark.nightly
@settings(max_examples=5_000)
@given(which=st.integers(0, 1), path=st.sampled_from(POSTS), changes=CHANGES, dropped=DROPPED, data=st.data())
def test_wrong_fields_get_a_code_all_night(
    served: Served, which: int, path: str, changes: dict[str, Any], dropped: set[str], data: st.DataObject
) -> None:
    """The same with more patience."""
    test_wrong_fields_get_a_code.hypothesis.inner_test(served, which, path, changes, dropped, data)  # type: ignore[attr-defined]


@settings(max_examples=80)
@given(which=st.integers(0, 1), path=st.sampled_from(GETS), changes=CHANGES, dropped=DROPPED, is_twice=st.booleans())
def test_wrong_queries_get_a_code(
    served: Served, which: int, path: str, changes: dict[str, Any], dropped: set[str], is_twice: bool
) -> None:
    """Any text in any parameter of any GET, repeated or not."""
    query = {name: value for name, value in GOOD.items() if name not in dropped} | changes
    # Beyond 8190 bytes of URL it is the HTTP server that refuses, as Bitget's front does.
    texts = {name: str(value)[:100].encode("utf-8", "surrogatepass") for name, value in query.items()}
    pairs = [f"{name}={quote(value, safe='')}" for name, value in texts.items()]

    assert is_bitgets(*served.send(which, "GET", path + "?" + "&".join(pairs * (1 + is_twice))))


BODIES = (
    st.binary(max_size=60)
    | st.text(max_size=40).map(str.encode)
    | st.integers(1, 100_000).map(lambda depth: b"[" * depth)
    | st.integers(1, 3_000).map(lambda depth: b'{"symbol":' * depth + b"1" + b"}" * depth)
    | st.sampled_from(
        [
            b"null", b"[]", b"1", b'"x"', b"{}", b"NaN", b'{"size":NaN}', b'{"size":Infinity}', b'{"symbol":"\\ud800"}',
            b'{"symbol":"BTCUSDT","symbol":"ETHUSDT"}', b'{"symbol":"\xff"}', b"\xef\xbb\xbf{}", b"{'a':1}",
            b'{"productType":"USDT-FUTURES","symbol":"\\ud800","marginCoin":"USDT"}', b'{"size":' + b"9" * 5000 + b"}",
        ]
    )
)  # fmt: skip


@settings(max_examples=120)
@given(
    path=st.sampled_from(POSTS),
    body=BODIES,
    kind=st.sampled_from(["application/json", "application/json; charset=utf-8", "text/plain", "", None]),
)
def test_bodies_that_are_no_orders_get_a_code(served: Served, path: str, body: bytes, kind: str | None) -> None:
    """Bytes, depths, duplicates and other content types are refused, never obeyed."""
    status, answer = served.send(0, "POST", path, body, kind)

    assert is_bitgets(status, answer)
    # What an empty body asks of these two is possible with any product type, and none is given.
    assert status != 200


COMING_AND_GOING = GeneratedMarket(13, 9, listings_per_day=60.0)


@pytest.mark.parametrize(
    ("share", "leverage_code"), [(0.01, "00000"), (0.5, "00000"), (0.85, "00000"), (0.92, "40309"), (0.99, "40309")]
)
async def test_no_state_of_a_symbol_breaks_an_endpoint(share: float, leverage_code: str) -> None:
    """Announced without a price, trading, closing only, removed, gone: every private endpoint has an answer."""
    symbol, life = next((row.symbol, row.life) for row in COMING_AND_GOING.listings if row.life is not None)
    second = life.begin_s + 1_795_300_000 // life.period_s * life.period_s + int(life.period_s * share)
    wanted = GOOD | {"symbol": symbol, "size": "10", "price": "1"}
    query = "&".join(f"{name}={value}" for name, value in wanted.items())

    async with serving(RICH, market=COMING_AND_GOING, clock=Clock(start_ns=second * 1_000_000_000)) as (client,):
        for path in POSTS:
            assert is_bitgets(*await client.send("POST", path, json.dumps(wanted).encode())), path
        for path in GETS:
            if "/mix/market/" not in path:
                assert is_bitgets(*await client.send("GET", f"{path}?{query}")), path
        answer = await client.tell("account/set-leverage", **WHERE | {"symbol": symbol}, leverage="5")

    assert answer["code"] == leverage_code


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_pythons_own_json_is_none(served: Served, word: str) -> None:
    """A body that is an order but for a constant that JSON does not have is no JSON, wherever the constant stands."""
    body = json.dumps(ORDER | {"side": "buy", "tag": "?"}).replace('"?"', word).encode()

    status, answer = served.send(0, "POST", MIX + "order/place-order", body)

    assert (status, answer["code"]) == (400, "40017")


@pytest.mark.parametrize("size", [1 << 20, 3 << 20])
def test_body_of_megabytes_is_refused(served: Served, size: int) -> None:
    """Below the server's bound it is no JSON, above it is not read."""
    status, answer = served.send(0, "POST", MIX + "order/place-order", b"x" * size)

    assert (status, answer["code"]) == (400, "40017")


def test_header_that_is_no_text_is_a_wrong_signature(served: Served) -> None:
    """Bytes beyond UTF-8 in a header are compared, not decoded."""
    client = served.clients[0]
    target = MIX + "account/accounts?productType=USDT-FUTURES"
    headers = client.headers("GET", target) | {"ACCESS-SIGN": "\udcff\udcfe"}
    lines = [f"GET {target} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection(("127.0.0.1", client.server.port), timeout=30) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape"))
        raw = b"".join(iter(lambda: connection.recv(65536), b""))

    status, body = int(raw.split()[1]), json.loads(raw.split(b"\r\n\r\n", 1)[1])
    assert (status, body["code"]) == (400, "40009")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "POST"])
def test_other_methods_find_no_url(served: Served, method: str) -> None:
    """An endpoint exists for its own method only."""
    status, body = served.send(0, method, MIX + "account/accounts", b"{}")

    assert (status, body["code"], body["msg"]) == (404, "40404", "Request URL NOT FOUND")


async def test_a_thousand_a_second_are_refused_with_429_and_harm_nobody() -> None:
    """One client's flood is its own: another account is served meanwhile."""
    async with serving(RICH, HEDGED) as (greedy, modest):
        greedy.server.conditions.rate_limit_scale = 1.0
        flood = [greedy.send("GET", MIX + "account/accounts?productType=USDT-FUTURES") for _ in range(100)]

        answers = await asyncio.gather(*flood, return_exceptions=False)
        status, _ = await modest.send("GET", MIX + "account/accounts?productType=USDT-FUTURES")

    codes = [(status, body["code"]) for status, body in answers]
    assert set(codes) == {(200, "00000"), (429, "429")}
    assert status == 200
