"""A second simulator, relayed: frames as they came, paper fills, loss that nobody is lied about, storms."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
import websockets.asyncio.client
from websockets.exceptions import ConnectionClosed

from shared.simulator.faults.conditions import Change, Disconnect, PushFault, RequestFault, Script
from shared.simulator.relay import upstream as upstream_module
from tests.shared.simulator.relay_world import (
    MARKET,
    WITHIN_S,
    Client,
    argument,
    pushes,
    read_on,
    relaying,
    sign,
    simulator,
    until,
)


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
