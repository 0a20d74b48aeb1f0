"""The server's answers have the structure of Bitget's in the same situations, driven over a real socket.

Two references: payloads recorded by others, read in place where they lie beside the checkout, and payloads of our own
with made-up values, which say the same without them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from tests.shared.simulator.rest_world import ACCOUNT, ORDER, PRODUCT, WHERE, RestClient, serving
from tests.shared.simulator.situations import DOCUMENTED, RECORDED
from tests.shared.simulator.structure import differences

PUSHES = json.loads((Path(__file__).parents[2] / "golden" / "bitget_private_pushes.json").read_text())
GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "bitget_private.json").read_text())
SITUATIONS = RECORDED | DOCUMENTED
DEMO = msgspec.structs.replace(ACCOUNT, is_demo=True)


@pytest.fixture
def recordings(outside: Path) -> Path:
    return outside / "bitget" / "fixtures" / "recorded_demo_202610"


_answers: dict[str, Any] = {}  # each situation is driven once, and compared with both references


async def answer_in(situation: str) -> Any:
    if situation not in _answers:
        async with serving(DEMO) as (client,):
            _answers[situation] = await SITUATIONS[situation](client)
    return _answers[situation]


@pytest.mark.parametrize("situation", SITUATIONS)
async def test_answer_has_the_structure_of_our_own_payload(situation: str) -> None:
    """Keys, types, codes, words, nulls and empty strings, without anything from outside."""
    assert differences(await answer_in(situation), GOLDEN[situation]) == []


@pytest.mark.parametrize("situation", RECORDED)
async def test_answer_has_the_structure_of_the_recording(situation: str, recordings: Path) -> None:
    """The same against what Bitget itself answered."""
    theirs = json.loads((recordings / f"{situation}.json").read_text())

    assert differences(await answer_in(situation), theirs) == []


def test_every_recording_has_its_situation(recordings: Path) -> None:
    """No recorded answer is left out, and none of ours is without one."""
    assert {path.stem for path in recordings.glob("*.json")} == set(RECORDED)


def test_every_payload_of_ours_has_its_situation() -> None:
    """None is left over from a situation that is no longer driven."""
    assert set(GOLDEN) == set(SITUATIONS)


@pytest.mark.parametrize("situation", RECORDED)
def test_our_own_payloads_have_the_structure_of_the_recordings(situation: str, recordings: Path) -> None:
    """Who checks the checker: the made-up payload of each situation against the recorded one."""
    theirs = json.loads((recordings / f"{situation}.json").read_text())

    assert differences(GOLDEN[situation], theirs) == []


# ------------------------------------------------------------------------------------------------- pushes


async def pushed(socket: Any, channel: str, **wanted: Any) -> Any:
    """Return the next push of a channel whose first row has the wanted fields."""
    while True:
        frame = json.loads(await socket.recv())
        is_push = frame.get("action") and frame["arg"]["channel"] == channel and frame["data"]
        if is_push and wanted.items() <= frame["data"][0].items():
            return frame


async def login(client: RestClient, socket: Any, *channels: str) -> None:
    """Log in as the client and subscribe."""
    await socket.send(json.dumps({"op": "login", "args": [client.login()]}))
    args = [
        {"instType": "USDT-FUTURES", "channel": channel} | {"coin" if channel == "account" else "instId": "default"}
        for channel in channels
    ]
    await socket.send(json.dumps({"op": "subscribe", "args": args}))
    for expected in ("login", *("subscribe" for _ in channels)):
        event = None
        while event is None:  # snapshots come between the acks
            event = json.loads(await socket.recv()).get("event")
        assert event == expected


@pytest_asyncio.fixture
async def watched() -> AsyncIterator[tuple[RestClient, Any]]:
    """Return a client and its private socket, subscribed to everything but plans."""
    channels = ("orders", "fill", "positions", "account", "positions-history")
    async with serving() as (client,), connect(client.server.ws_url + "/private") as socket:
        await login(client, socket, *channels)
        yield client, socket


def agrees(frame: Any, name: str) -> bool:
    found = differences(frame, PUSHES[name])
    assert found == [], (name, frame)
    return True


async def test_pushes_of_a_market_order_have_the_structure_of_our_own(watched: tuple[RestClient, Any]) -> None:
    """Live, then filled with the fill's fields, then the fill itself, the position and the account."""
    client, socket = watched
    await client.post("order/place-order", **ORDER, side="buy")

    assert agrees(await pushed(socket, "orders", status="live"), "orders live")
    assert agrees(await pushed(socket, "fill"), "fill")
    assert agrees(await pushed(socket, "orders", status="filled"), "orders filled")
    assert agrees(await pushed(socket, "positions"), "positions")
    assert agrees(await pushed(socket, "account"), "account")


async def test_pushes_of_a_hedged_close_have_the_structure_of_our_own(watched: tuple[RestClient, Any]) -> None:
    """The order keeps the position's side, its fill has the economic one, and the position goes into the history."""
    client, socket = watched
    await client.post("account/set-position-mode", **PRODUCT, posMode="hedge_mode")
    await client.post("order/place-order", **ORDER, side="buy", tradeSide="open")
    await client.post("order/place-order", **ORDER, side="buy", tradeSide="close")

    assert agrees(await pushed(socket, "fill", tradeSide="close"), "fill close of a hedged long")
    filled = await pushed(socket, "orders", status="filled", tradeSide="close")
    assert agrees(filled, "orders filled close of a hedged long")
    assert agrees(await pushed(socket, "positions-history"), "positions-history")


async def test_pushes_of_a_cancelled_order_have_the_structure_of_our_own(watched: tuple[RestClient, Any]) -> None:
    """Presets ride along, and the cancel says why."""
    client, socket = watched
    prices = {
        "price": await client.price(0.97), "presetStopLossPrice": await client.price(0.9),
        "presetStopSurplusPrice": await client.price(1.1), "presetStopLossExecutePrice": await client.price(0.89),
    }  # fmt: skip
    order = ORDER | prices | {"orderType": "limit", "force": "post_only", "clientOid": "mine1"}
    ack = await client.post("order/place-order", **order, side="buy")
    await client.post("order/cancel-order", **WHERE, orderId=ack["orderId"])

    assert agrees(await pushed(socket, "orders", status="live"), "orders live limit with presets")
    assert agrees(await pushed(socket, "orders", status="canceled"), "orders canceled")


def test_our_own_order_push_has_the_structure_of_the_recorded_one(outside: Path) -> None:
    """A market sell of March 2025; the preset prices are documented since, and no longer missing."""
    theirs = json.loads(
        (outside / "bitget/fixtures/recorded_live_202609/ws_v2_orders_oneway_live_20250321.json").read_text()
    )
    ours = json.loads(json.dumps(PUSHES["orders live"]))
    (row,) = ours["data"]

    assert (row.pop("presetStopLossPrice"), row.pop("presetStopSurplusPrice")) == ("", "")
    row |= {"side": "sell", "tradeSide": "sell_single", "instId": "LTCUSDT"}
    assert differences(ours, theirs) == []
