"""Trigger orders over REST: what clients send, what they are told, and what their nonsense gets."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from tests.shared.simulator.rest_world import ORDER, PRODUCT, WHERE, RestClient, serving
from tests.shared.simulator.structure import differences
from tests.shared.simulator.test_fidelity import login, pushed

PLAN = WHERE | {"marginMode": "crossed", "orderType": "market", "size": "0.01", "triggerType": "mark_price"}
NAN = float("nan")


@pytest_asyncio.fixture
async def client() -> AsyncIterator[RestClient]:
    async with serving() as (one,):
        yield one


async def place(c: RestClient, **more: Any) -> dict[str, str]:
    """Place a trigger order 2 per cent above the mark, unless told otherwise."""
    body: dict[str, Any] = PLAN | {"planType": "normal_plan", "side": "buy", "triggerPrice": await c.price(1.02)}
    ack: dict[str, str] = await c.post("order/place-plan-order", **body | more)
    return ack


async def protect(c: RestClient, times: float, plan_type: str = "pos_loss", **more: Any) -> dict[str, str]:
    """Protect the long of a one-way account."""
    body = WHERE | {"planType": plan_type, "triggerPrice": await c.price(times), "triggerType": "mark_price"}
    ack: dict[str, str] = await c.post("order/place-tpsl-order", **body | {"holdSide": "buy"} | more)
    return ack


async def buy(c: RestClient, size: str = "0.01") -> None:
    await c.post("order/place-order", **ORDER | {"size": size}, side="buy")


async def hedge(c: RestClient) -> None:
    await c.post("account/set-position-mode", **PRODUCT, posMode="hedge_mode")


async def listed(c: RestClient, plan_type: str = "profit_loss", **more: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] | None = (
        await c.get("order/orders-plan-pending", **PRODUCT, planType=plan_type, **more)
    )["entrustedList"]
    return rows or []


async def ended(c: RestClient, plan_type: str = "profit_loss", **more: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] | None = (
        await c.get("order/orders-plan-history", **PRODUCT, planType=plan_type, **more)
    )["entrustedList"]
    return rows or []


def mark(c: RestClient, price: str) -> None:
    """Move the mark: what it reaches fires at once, before the market's next second moves it back."""
    c.server.desk.venue.set_mark("BTCUSDT", float(price), NAN, NAN, time.time_ns())


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without what differs from run to run."""
    return {name: value for name, value in row.items() if name not in ("orderId", "clientOid", "cTime", "uTime")}


# ------------------------------------------------------------------------------------- as ccxt sends them


async def test_trigger_order_with_a_json_number_is_taken(client: RestClient) -> None:
    """ccxt sends triggerPrice as a number, force GTC, and no tradeSide in one-way mode."""
    trigger = int(float(await client.price(1.02)))
    body = {
        "symbol": "BTCUSDT", "orderType": "market", "force": "GTC", "marginCoin": "USDT", "size": "0.001",
        "productType": "USDT-FUTURES", "triggerType": "mark_price", "planType": "normal_plan",
        "triggerPrice": trigger, "marginMode": "crossed", "side": "buy",
    }  # fmt: skip

    await client.post("order/place-plan-order", **body)

    (row,) = await listed(client, "normal_plan")
    assert (row["triggerPrice"], row["size"]) == (str(trigger), "0.001")


async def test_whole_stop_with_a_size_has_none(client: RestClient) -> None:
    """ccxt sends the size along with pos_loss, an order type and a force: they mean nothing there."""
    await buy(client)
    body = {
        "symbol": "BTCUSDT", "orderType": "market", "force": "GTC", "marginCoin": "USDT", "size": "0.001",
        "productType": "USDT-FUTURES", "triggerType": "mark_price", "holdSide": "buy",
        "triggerPrice": await client.price(0.9), "planType": "pos_loss",
    }  # fmt: skip

    await client.post("order/place-tpsl-order", **body)

    (row,) = await listed(client)
    assert (row["size"], row["side"], row["tradeSide"]) == ("0", "sell", "sell_single")


async def test_trailing_order_is_taken(client: RestClient) -> None:
    """ccxt: planType track_plan, callbackRatio as text, reduceOnly YES."""
    await buy(client)
    trigger = await client.price(1.02)
    body = {
        "symbol": "BTCUSDT", "orderType": "market", "force": "GTC", "marginCoin": "USDT", "size": "0.001",
        "productType": "USDT-FUTURES", "triggerType": "mark_price", "planType": "track_plan", "triggerPrice": trigger,
        "callbackRatio": "1", "marginMode": "crossed", "reduceOnly": "YES", "side": "sell",
    }  # fmt: skip

    await client.post("order/place-plan-order", **body)

    (row,) = await listed(client, "track_plan")
    assert (row["planType"], row["callbackRatio"], row["triggerPrice"]) == ("track_plan", "1", trigger)


async def test_enumerations_do_not_mind_the_case(client: RestClient) -> None:
    """As everywhere at Bitget."""
    await place(client, planType="Normal_Plan", side="BUY", orderType="MARKET", triggerType="Mark_Price")

    assert len(await listed(client, "NORMAL_PLAN")) == 1


# ------------------------------------------------------------------------------------------------- rows


async def test_row_of_a_limit_trigger_order_with_presets(client: RestClient) -> None:
    """A row written by hand: prices where they were given, null where nothing rides on it."""
    trigger, price, stop = [await client.price(times) for times in (1.02, 1.03, 0.95)]
    ack = await place(
        client, triggerPrice=trigger, orderType="limit", price=price, stopLossTriggerPrice=stop,
        stopLossTriggerType="fill_price", clientOid="mine",
    )  # fmt: skip

    (row,) = await listed(client, "normal_plan")

    assert (row["orderId"], row["clientOid"]) == (ack["orderId"], "mine")
    assert shown(row) == {
        "planType": "normal_plan", "symbol": "BTCUSDT", "size": "0.01", "price": _plain(price),
        "executePrice": _plain(price), "callbackRatio": "", "triggerPrice": _plain(trigger),
        "triggerType": "mark_price", "planStatus": "live", "side": "buy", "posSide": "net", "marginCoin": "USDT",
        "marginMode": "crossed", "enterPointSource": "API", "tradeSide": "buy_single", "posMode": "one_way_mode",
        "orderType": "limit", "stopSurplusTriggerPrice": None, "stopSurplusExecutePrice": None,
        "stopSurplusTriggerType": None, "stopLossTriggerPrice": _plain(stop), "stopLossExecutePrice": None,
        "stopLossTriggerType": "fill_price",
    }  # fmt: skip


def _plain(price: str) -> str:
    return f"{Decimal(price).normalize():f}"


async def test_row_of_a_closing_plan_in_hedge_mode(client: RestClient) -> None:
    """side is the position's, tradeSide says close, and the economic side is the opposite."""
    await hedge(client)
    await client.post("order/place-order", **ORDER, side="buy", tradeSide="open")
    trigger = await client.price(1.02)

    await place(client, side="buy", tradeSide="close", triggerPrice=trigger)

    (row,) = await listed(client, "normal_plan")
    assert [row[name] for name in ("side", "tradeSide", "posSide", "posMode")] == ["buy", "close", "long", "hedge_mode"]
    mark(client, trigger)
    assert await client.get("position/all-position", **PRODUCT, marginCoin="USDT") == []


async def test_row_of_an_executed_plan_names_its_order(client: RestClient) -> None:
    """History: executeOrderId leads to the order, the average and the volume are what it came to."""
    trigger = await client.price(1.02)
    ack = await place(client, triggerPrice=trigger)
    mark(client, trigger)

    (row,) = await ended(client, "normal_plan", planStatus="executed")

    order = await client.get("order/detail", **WHERE, orderId=row["executeOrderId"])
    assert (row["orderId"], row["planStatus"], row["baseVolume"]) == (ack["orderId"], "executed", "0.01")
    assert (order["state"], order["priceAvg"]) == ("filled", row["priceAvg"])
    assert (await client.get("order/fills", **PRODUCT))["fillList"][0]["orderId"] == row["executeOrderId"]
    assert await client.get("order/plan-sub-order", **PRODUCT, planType="normal_plan", planOrderId=ack["orderId"]) == [
        {"orderId": row["executeOrderId"], "price": "", "type": "market", "status": "success"}
    ]


async def test_plan_whose_order_is_refused_has_failed(client: RestClient) -> None:
    """A trigger order for more than the balance carries is taken, and fails when it fires."""
    trigger = await client.price(1.02)
    ack = await place(client, triggerPrice=trigger, size="10")
    mark(client, trigger)

    (row,) = await ended(client, "normal_plan", planStatus="fail_execute")

    assert (row["executeOrderId"], row["baseVolume"], row["priceAvg"]) == ("", "0", "")
    assert await client.get("order/plan-sub-order", **PRODUCT, planType="normal_plan", planOrderId=ack["orderId"]) == [
        {"orderId": "", "price": "", "type": "market", "status": "fail"}
    ]
    assert await client.get("position/all-position", **PRODUCT, marginCoin="USDT") == []


async def test_plan_that_waits_has_no_sub_order(client: RestClient) -> None:
    """plan-sub-order lists what a plan has sent: nothing yet."""
    ack = await place(client)

    rows = await client.get("order/plan-sub-order", **PRODUCT, planType="normal_plan", planOrderId=ack["orderId"])

    assert rows == []
    assert await client.get_code("order/plan-sub-order", **PRODUCT, planType="normal_plan", planOrderId="1") == "43025"


async def test_stop_that_fires_ends_the_position_and_its_plans(client: RestClient) -> None:
    """From the stop of a long to the flat account: one executed, its sister cancelled, the position gone."""
    await buy(client)
    stop, target = await protect(client, 0.98), await protect(client, 1.02, "pos_profit")
    (position,) = await client.get("position/all-position", **PRODUCT, marginCoin="USDT")
    assert (position["stopLossId"], position["takeProfitId"]) == (stop["orderId"], target["orderId"])

    mark(client, await client.price(0.97))

    assert await listed(client) == []
    assert {row["orderId"]: row["planStatus"] for row in await ended(client)} == {
        stop["orderId"]: "executed", target["orderId"]: "cancelled",
    }  # fmt: skip
    assert await client.get("position/all-position", **PRODUCT, marginCoin="USDT") == []


async def test_presets_of_an_order_are_listed_as_plans(client: RestClient) -> None:
    """presetStopLossPrice becomes a pos_loss of the position, with an id that can be cancelled."""
    await client.post("order/place-order", **ORDER, side="buy", presetStopLossPrice=await client.price(0.95))

    (row,) = await listed(client)

    assert (row["planType"], row["triggerType"], row["size"]) == ("pos_loss", "mark_price", "0")
    ids = [{"orderId": row["orderId"]}]
    done = await client.post("order/cancel-plan-order", **WHERE, planType="pos_loss", orderIdList=ids)
    assert [one["orderId"] for one in done["successList"]] == [row["orderId"]]
    assert await listed(client) == []


async def test_which_way_a_trigger_lies_is_told_by_the_last_price_that_clients_see(client: RestClient) -> None:
    """The venue hears of trades only where somebody waits: an old own fill is not where the price stands."""
    fields = (await client.get("market/ticker", **PRODUCT, symbol="BTCUSDT"))[0]
    client.server.desk.venue.set_last("BTCUSDT", Decimal(fields["lastPr"]) / 2)
    trigger = f"{float(fields['lastPr']) * 0.9:.1f}"

    ack = await place(client, triggerPrice=trigger, triggerType="fill_price")

    plan = client.server.desk.venue.plans.plan("key", order_id=ack["orderId"])
    assert plan is not None
    assert plan.direction == -1  # from above, although half of it was below


# ---------------------------------------------------------------------------------------- both legs at once


async def test_both_legs_are_placed_at_once(client: RestClient) -> None:
    """place-pos-tpsl: an answer row a leg, each with the client ids of both; with a size it is a partial plan."""
    await buy(client)
    rows = await client.post(
        "order/place-pos-tpsl", **WHERE, holdSide="buy", stopSurplusTriggerPrice=await client.price(1.1),
        stopSurplusTriggerType="mark_price", stopSurplusSize="0.005", stopSurplusClientOid="tp",
        stopLossTriggerPrice=await client.price(0.9), stopLossTriggerType="mark_price", stopLossClientOid="sl",
    )  # fmt: skip

    stop, target = await listed(client)

    assert [(row["planType"], row["size"]) for row in (stop, target)] == [("pos_loss", "0"), ("profit_plan", "0.005")]
    oids = {"stopSurplusClientOid": "tp", "stopLossClientOid": "sl"}
    assert rows == [{"orderId": target["orderId"]} | oids, {"orderId": stop["orderId"]} | oids]


async def test_one_bad_leg_places_neither(client: RestClient) -> None:
    """Nobody is half protected by a request that was refused."""
    await buy(client)
    body = WHERE | {"holdSide": "buy", "stopSurplusTriggerPrice": await client.price(1.1)}

    assert await client.code("order/place-pos-tpsl", **body, stopLossTriggerPrice=await client.price(1.05)) == "40917"
    both = {"stopLossTriggerPrice": await client.price(0.9), "stopLossClientOid": "x", "stopSurplusClientOid": "x"}
    assert await client.code("order/place-pos-tpsl", **body, **both) == "40786"
    assert await client.code("order/place-pos-tpsl", **WHERE, holdSide="buy") == "40019"

    assert await listed(client) == []


# -------------------------------------------------------------------------------------- changes, cancels


async def test_modified_stop_keeps_its_id(client: RestClient) -> None:
    """modify-tpsl-order: another trigger and a limit; without executePrice it is a market order again."""
    await buy(client)
    ack = await protect(client, 0.9)
    trigger, limit = await client.price(0.92), await client.price(0.91)
    ids = {"orderId": ack["orderId"], "size": ""}

    changed = await client.post("order/modify-tpsl-order", **WHERE, **ids, triggerPrice=trigger, executePrice=limit)

    (row,) = await listed(client)
    assert changed == ack
    assert [row[name] for name in ("triggerPrice", "executePrice", "orderType", "orderId")] == [
        _plain(trigger), _plain(limit), "limit", ack["orderId"],
    ]  # fmt: skip
    await client.post("order/modify-tpsl-order", **WHERE, **ids, triggerPrice=trigger)
    assert (await listed(client))[0]["orderType"] == "market"


async def test_modified_trigger_order_takes_new_values_and_keeps_the_rest(client: RestClient) -> None:
    """modify-plan-order: what is absent or empty stays, a preset of 0 is taken away."""
    price, stop = await client.price(1.03), await client.price(0.95)
    ack = await place(client, orderType="limit", price=price, stopLossTriggerPrice=stop, clientOid="one")
    trigger = await client.price(1.025)

    await client.post(
        "order/modify-plan-order", **PRODUCT, clientOid="one", newSize="0.02", newPrice="", newTriggerPrice=trigger,
        newTriggerType="fill_price", newStopLossTriggerPrice="0",
    )  # fmt: skip

    (row,) = await listed(client, "normal_plan", orderId=ack["orderId"])
    assert [row[name] for name in ("size", "price", "triggerPrice", "triggerType", "stopLossTriggerPrice")] == [
        "0.02", _plain(price), _plain(trigger), "fill_price", None,
    ]  # fmt: skip


async def test_cancel_knows_the_kinds_apart(client: RestClient) -> None:
    """Without planType a stop is not meant, not even by its id, and with the umbrella kind nothing is (recorded)."""
    await buy(client)
    stop, order = await protect(client, 0.9), await place(client)
    both = [{"orderId": stop["orderId"]}, {"clientOid": order["clientOid"]}]

    nothing = await client.post("order/cancel-plan-order", **WHERE, planType="profit_loss", orderIdList=both)
    one = await client.post("order/cancel-plan-order", **WHERE, orderIdList=both)
    other = await client.post("order/cancel-plan-order", **PRODUCT, planType="pos_loss")

    assert nothing == {"successList": [], "failureList": []}
    assert one == {"successList": [order], "failureList": []}
    assert other == {"successList": [stop], "failureList": []}


async def test_cancel_lists_what_it_could_not(client: RestClient) -> None:
    """Unknown, over, and nonsense: each is a row of the failures, and the good one is cancelled all the same."""
    gone, good = await place(client), await place(client)
    await client.post("order/cancel-plan-order", **WHERE, orderIdList=[{"orderId": gone["orderId"]}])
    wanted = [{"orderId": "1"}, {"orderId": gone["orderId"]}, {}, "x", {"orderId": good["orderId"]}]

    answer = await client.post("order/cancel-plan-order", **WHERE, orderIdList=wanted)

    assert [one["errorCode"] for one in answer["failureList"]] == ["43025", "43026", "40924", "40020"]
    assert answer["failureList"][0] == {
        "orderId": "1", "clientOid": "", "errorMsg": "Plan order does not exist", "errorCode": "43025",
    }  # fmt: skip
    assert answer["successList"] == [good]


async def test_cancel_without_a_list_takes_all_of_the_symbol(client: RestClient) -> None:
    """Of that symbol only; without a symbol of every one."""
    symbols = [row["symbol"] for row in await client.get("market/contracts", **PRODUCT)][:2]
    for symbol in symbols:
        row = (await client.get("market/ticker", **PRODUCT, symbol=symbol))[0]
        contract = (await client.get("market/contracts", **PRODUCT, symbol=symbol))[0]
        places = int(contract["pricePlace"])
        await place(
            client, symbol=symbol, triggerPrice=f"{float(row['markPrice']) * 1.05:.{places}f}",
            size=contract["minTradeNum"],
        )  # fmt: skip

    first = await client.post("order/cancel-plan-order", **PRODUCT, symbol=symbols[0])
    rest = await client.post("order/cancel-plan-order", **PRODUCT)

    assert [len(answer["successList"]) for answer in (first, rest)] == [1, 1]


async def test_page_is_the_newest_first(client: RestClient) -> None:
    """limit and idLessThan walk through them; empty lists are null."""
    ids = [(await place(client, clientOid=f"p{k}"))["orderId"] for k in range(3)]
    ask = PRODUCT | {"planType": "normal_plan"}

    first = await client.get("order/orders-plan-pending", **ask, limit="2")
    second = await client.get("order/orders-plan-pending", **ask, limit="2", idLessThan=first["endId"])
    third = await client.get("order/orders-plan-pending", **ask, idLessThan=second["endId"])

    assert [row["orderId"] for row in first["entrustedList"] + second["entrustedList"]] == ids[::-1]
    assert third == {"entrustedList": None, "endId": None}
    assert [row["clientOid"] for row in await listed(client, "normal_plan", clientOid="p1")] == ["p1"]
    assert await listed(client, "track_plan") == await ended(client, "normal_plan") == []


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"planType": "profit_plan"}, "40020"),
        ({"planType": ""}, "40019"),
        ({"symbol": "NOPEUSDT"}, "40034"),
        ({"productType": "NOPE"}, "40019"),
        ({"marginMode": None}, "40019"),
        ({"marginCoin": "BTC"}, "40020"),
        ({"triggerPrice": None}, "40019"),
        ({"triggerPrice": "abc"}, "40020"),
        ({"triggerPrice": True}, "40020"),
        ({"triggerPrice": [1]}, "40020"),
        ({"triggerPrice": "-5"}, "40020"),
        ({"triggerPrice": "1e30"}, "40020"),
        ({"triggerType": ""}, "40019"),
        ({"triggerType": "index_price"}, "40020"),
        ({"size": "0"}, "40020"),
        ({"size": ""}, "40019"),
        ({"side": "long"}, "40020"),
        ({"tradeSide": "open"}, "40774"),
        ({"orderType": "limit"}, "40019"),
        ({"orderType": "stop"}, "40020"),
        ({"reduceOnly": "maybe"}, "40020"),
        ({"planType": "track_plan"}, "40019"),
        ({"planType": "track_plan", "callbackRatio": "11"}, "40020"),
        ({"planType": "track_plan", "callbackRatio": "1"}, "43034"),
        ({"planType": "track_plan", "callbackRatio": "1", "price": "5"}, "40020"),
        ({"planType": "track_plan", "callbackRatio": "1", "orderType": "limit", "price": "5"}, "40020"),
        ({"stpMode": "cancel_all"}, "40020"),
        ({"stopLossTriggerPrice": "1000000"}, "45066"),
        ({"clientOid": "no spaces"}, "40304"),
    ],
    ids=str,
)
async def test_bad_plan_order_gets_bitgets_code(client: RestClient, changed: dict[str, Any], code: str) -> None:
    """Every nonsense has its answer, and nothing is placed."""
    body = PLAN | {"planType": "normal_plan", "side": "buy", "triggerPrice": await client.price(1.02)}

    assert await client.code("order/place-plan-order", **body | changed) == code

    assert await listed(client, "normal_plan") == []


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"holdSide": "long"}, "43011"),
        ({"holdSide": "both"}, "43011"),
        ({"holdSide": None}, "40019"),
        ({"holdSide": "sell"}, "43023"),
        ({"planType": "normal_plan"}, "40020"),
        ({"planType": "loss_plan"}, "40019"),
        ({"planType": "loss_plan", "size": "5"}, "43023"),
        ({"planType": "pos_profit"}, "40915"),
        ({"planType": "moving_plan", "size": "0.01"}, "40019"),
        ({"planType": "moving_plan", "size": "0.01", "rangeRate": "0.001"}, "43032"),
        ({"planType": "moving_plan", "size": "0.01", "rangeRate": "1"}, "43035"),
        ({"planType": "moving_plan", "size": "0.01", "rangeRate": "1", "executePrice": "5"}, "40020"),
        ({"triggerPrice": "1.23"}, "40808"),
        ({"executePrice": "-1"}, "40020"),
        ({"marginCoin": None}, "40019"),
    ],
    ids=str,
)
async def test_bad_protection_gets_bitgets_code(client: RestClient, changed: dict[str, Any], code: str) -> None:
    """A long of 0.01 and a stop below it, but for one thing that is wrong."""
    await buy(client)
    body = WHERE | {"planType": "pos_loss", "triggerPrice": await client.price(0.9), "holdSide": "buy"}

    assert await client.code("order/place-tpsl-order", **body | changed) == code

    assert await listed(client) == []


async def test_refused_changes_change_nothing(client: RestClient) -> None:
    """No id, an unknown one, a trigger order by the wrong endpoint, the wrong side: the stop stays as it was."""
    await buy(client)
    stop, order = await protect(client, 0.9), await place(client)
    before = await listed(client), await listed(client, "normal_plan")
    modify, body = "order/modify-tpsl-order", WHERE | {"triggerPrice": await client.price(0.95), "size": ""}

    codes = [
        await client.code(modify, **body),
        await client.code(modify, **body, orderId="1"),
        await client.code(modify, **body, orderId=order["orderId"]),
        await client.code(modify, **body | {"triggerPrice": await client.price(1.05)}, orderId=stop["orderId"]),
        await client.code("order/modify-plan-order", **PRODUCT, newSize="1"),
        await client.code("order/modify-plan-order", **PRODUCT, orderId=stop["orderId"], newSize="1"),
        await client.code("order/modify-plan-order", **PRODUCT, orderId=order["orderId"], newSize="-1"),
        await client.code("order/modify-plan-order", **WHERE, orderId=order["orderId"], newTriggerType="mark_price"),
        await client.code("order/cancel-plan-order", **PRODUCT, orderIdList=[{"orderId": stop["orderId"]}]),
        await client.code("order/cancel-plan-order", **WHERE, orderIdList="all"),
        await client.code("order/cancel-plan-order", **WHERE, orderIdList=[{}] * 51),
        await client.code("order/cancel-plan-order", **WHERE, planType="everything"),
    ]

    assert codes == [
        "40924", "43020", "43020", "40917", "40924", "43025", "40020", "40019", "40019", "40020", "40912", "40020",
    ]  # fmt: skip
    assert (await listed(client), await listed(client, "normal_plan")) == before


@pytest.mark.parametrize("path", ["order/orders-plan-pending", "order/orders-plan-history"])
async def test_lists_need_their_kind(client: RestClient, path: str) -> None:
    """planType is required, and it is one of three."""
    assert await client.get_code(path, **PRODUCT) == "40019"
    assert await client.get_code(path, **PRODUCT, planType="pos_loss") == "40020"
    assert await client.get_code(path, productType="NOPE", planType="normal_plan") == "40019"
    assert (await client.get(path, productType="COIN-FUTURES", planType="normal_plan"))["entrustedList"] is None


async def test_position_that_is_seen_late_cannot_be_protected_yet(client: RestClient) -> None:
    """43023, the race that clients meet right after a fill."""
    client.server.desk.show_positions_late(3_600_000_000_000)
    await buy(client)
    body = WHERE | {"planType": "pos_loss", "triggerPrice": await client.price(0.9), "holdSide": "buy"}

    assert await client.code("order/place-tpsl-order", **body) == "43023"


# ------------------------------------------------------------------------------------------------- pushes

PUSHED = {
    "action": "snapshot",
    "arg": {"instType": "USDT-FUTURES", "channel": "orders-algo", "instId": "default"},
    "data": [
        {
            "instId": "BTCUSDT", "orderId": "1", "clientOid": "2", "triggerPrice": "3", "triggerType": "mark_price",
            "triggerTime": "4", "planType": "psl", "price": "", "executePrice": "", "size": "0", "actualSize": "0",
            "orderType": "market", "side": "sell", "tradeSide": "sell_single", "posSide": "net", "marginCoin": "USDT",
            "status": "live", "posMode": "one_way_mode", "enterPointSource": "API", "stopSurplusPrice": "",
            "stopSurplusTriggerPrice": "", "stopSurplusTriggerType": "", "stopLossPrice": "",
            "stopLossTriggerPrice": "5", "stopLossTriggerType": "mark_price", "stpMode": "none", "cTime": "6",
            "uTime": "7",
        }
    ],
    "ts": 8,
}  # fmt: skip


async def test_private_stream_tells_the_life_of_a_plan() -> None:
    """orders-algo: nothing on subscribing, then live, executing, executed with what was traded; rows as documented."""
    async with serving() as (client,), connect(client.server.ws_url + "/private") as socket:
        await buy(client)
        await protect(client, 0.95)
        await login(client, socket, "orders-algo")
        stop = await protect(client, 0.96)

        live = json.loads(await socket.recv())
        mark(client, await client.price(0.955))
        executing, executed = [json.loads(await socket.recv()) for _ in range(2)]

    assert differences(live, PUSHED) == []
    assert [frame["data"][0]["orderId"] for frame in (live, executing, executed)] == [stop["orderId"]] * 3
    assert [frame["data"][0]["status"] for frame in (executing, executed)] == ["executing", "executed"]
    assert executed["data"][0]["actualSize"] == "0.01"


async def test_private_stream_has_a_word_of_its_own_for_each_kind() -> None:
    """pl, track, mtpsl, tp, sl, ptp, psl."""
    async with serving() as (client,), connect(client.server.ws_url + "/private") as socket:
        await buy(client)
        await login(client, socket, "orders-algo")
        await place(client)
        await place(client, planType="track_plan", callbackRatio="1", side="sell")
        await protect(client, 1.05, "moving_plan", rangeRate="1", size="0.005")
        await protect(client, 1.05, "profit_plan", size="0.005")
        await protect(client, 0.95, "loss_plan", size="0.005")
        await protect(client, 1.05, "pos_profit")
        await protect(client, 0.95, "pos_loss")

        told = [(await pushed(socket, "orders-algo"))["data"][0]["planType"] for _ in range(7)]

    assert told == ["pl", "track", "mtpsl", "tp", "sl", "ptp", "psl"]
