"""Orders and fills over a real socket: sides, batches, changes, closes, pages, and the code of each wrong step."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from tests.shared.simulator.rest_world import MIX, ORDER, PRODUCT, WHERE, RestClient, serving

LIMIT = ORDER | {"orderType": "limit"}


@pytest_asyncio.fixture
async def client() -> AsyncIterator[RestClient]:
    async with serving() as (made,):
        yield made


async def hedge(client: RestClient) -> None:
    await client.post("account/set-position-mode", **PRODUCT, posMode="hedge_mode")


async def rest(client: RestClient, n: int, **more: str) -> list[str]:
    """Leave so many buys in the book; return their ids, oldest first."""
    price = await client.price(0.97)
    acks = [await client.post("order/place-order", **LIMIT | {"price": price, "side": "buy"} | more) for _ in range(n)]
    return [ack["orderId"] for ack in acks]


async def sizes(client: RestClient) -> dict[str, str]:
    rows = await client.get("position/all-position", **PRODUCT)
    return {row["holdSide"]: row["total"] for row in rows}


async def detail(client: RestClient, ack: Any) -> Any:
    return await client.get("order/detail", **WHERE, orderId=ack["orderId"])


# -------------------------------------------------------------------------------------------------- sides

# (mode, request) -> what is stored (recorded in October 2026); 0.01 long and short are open before.
SIDES = [
    ("one_way_mode", {"side": "buy"}, ("buy", "buy_single", "net", "NO"), {"long": "0.02"}),
    ("one_way_mode", {"side": "sell", "reduceOnly": "YES"}, ("sell", "sell_single", "net", "YES"), {}),
    ("one_way_mode", {"side": "sell"}, ("sell", "sell_single", "net", "NO"), {}),
    ("hedge_mode", {"side": "buy", "tradeSide": "open"}, ("buy", "open", "long", "NO"), {"long": "0.02", "short": "0.01"}),
    ("hedge_mode", {"side": "sell", "tradeSide": "Open"}, ("sell", "open", "short", "NO"), {"long": "0.01", "short": "0.02"}),
    ("hedge_mode", {"side": "buy", "tradeSide": "close"}, ("buy", "close", "long", "YES"), {"short": "0.01"}),
    ("hedge_mode", {"side": "sell", "tradeSide": "CLOSE"}, ("sell", "close", "short", "YES"), {"long": "0.01"}),
    # Recorded: an open with reduceOnly opened.
    (
        "hedge_mode", {"side": "buy", "tradeSide": "open", "reduceOnly": "YES"}, ("buy", "open", "long", "NO"),
        {"long": "0.02", "short": "0.01"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "request_", "stored", "held"), SIDES)
async def test_sides_are_stored_as_recorded(
    client: RestClient, mode: str, request_: dict[str, str], stored: tuple[str, ...], held: dict[str, str]
) -> None:
    """In hedge mode a close keeps the position's side: in detail, history and fills alike."""
    if mode == "hedge_mode":
        await hedge(client)
        await client.post("order/place-order", **ORDER, side="buy", tradeSide="open")
        await client.post("order/place-order", **ORDER, side="sell", tradeSide="open")
    else:
        await client.post("order/place-order", **ORDER, side="buy")

    ack = await client.post("order/place-order", **ORDER, **request_)

    row = await detail(client, ack)
    listed = (await client.get("order/orders-history", **PRODUCT, orderId=ack["orderId"]))["entrustedList"][0]
    fill = (await client.get("order/fills", **PRODUCT, orderId=ack["orderId"]))["fillList"][0]
    for order in (row, listed):
        assert (order["side"], order["tradeSide"], order["posSide"], order["reduceOnly"]) == stored
        assert order["posMode"] == fill["posMode"] == mode
    assert (fill["side"], fill["tradeSide"]) == stored[:2]
    assert (row["state"], listed["status"], row["enterPointSource"], listed["enterPointSource"]) == (
        "filled", "filled", "API", "api",
    )  # fmt: skip
    assert await sizes(client) == held


async def test_close_beyond_the_position_closes_what_is_there(client: RestClient) -> None:
    """Never does a close open the other side, in either mode; with nothing left it is 22002."""
    await client.post("order/place-order", **ORDER, side="buy")
    await client.post("order/place-order", **ORDER | {"size": "0.03"}, side="sell", reduceOnly="YES")
    assert await sizes(client) == {}
    assert await client.code("order/place-order", **ORDER, side="sell", reduceOnly="YES") == "22002"

    await hedge(client)
    await client.post("order/place-order", **ORDER, side="sell", tradeSide="open")
    await client.post("order/place-order", **ORDER | {"size": "0.03"}, side="sell", tradeSide="close")
    assert await sizes(client) == {}
    assert await client.code("order/place-order", **ORDER, side="buy", tradeSide="close") == "22002"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"symbol": ""}, "40019"), ({"symbol": "NOPEUSDT"}, "40034"), ({"productType": ""}, "40019"),
    ({"marginMode": "cross"}, "40020"), ({"marginMode": None}, "40019"), ({"marginCoin": "BTC"}, "40020"),
    ({"marginCoin": None}, "40019"), ({"side": "long"}, "40020"), ({"side": None}, "40019"),
    ({"orderType": "stop"}, "40020"), ({"force": "gtd"}, "40020"), ({"size": "0"}, "40020"), ({"size": "-1"}, "40020"),
    ({"size": None}, "40019"), ({"size": "0.00001"}, "40808"), ({"size": "1_0"}, "40020"), ({"size": "１"}, "40020"),
    ({"orderType": "limit"}, "40019"), ({"orderType": "limit", "price": "0.05"}, "40808"),
    ({"orderType": "limit", "price": "1e9"}, "22006"), ({"side": "sell", "orderType": "limit", "price": "100"}, "22007"),
    ({"orderType": "limit", "price": "20000", "size": "0.0001"}, "45110"), ({"size": "221"}, "45112"),
    ({"clientOid": "with space"}, "40304"), ({"clientOid": "x" * 51}, "40304"), ({"clientOid": {"a": 1}}, "40020"),
    ({"reduceOnly": "maybe"}, "40020"), ({"stpMode": "all"}, "40020"), ({"tradeSide": "open"}, "40774"),
    ({"presetStopLossPrice": "1e9"}, "40917"), ({"presetStopLossPrice": "x"}, "40020"), ({"reduceOnly": "YES"}, "22002"),
]  # fmt: skip


async def test_wrong_order_is_refused(client: RestClient) -> None:
    """Each violation has its code, and nothing is left behind."""
    codes = await client.codes("order/place-order", ORDER | {"side": "buy"}, (change for change, _ in WRONG))

    assert list(zip((change for change, _ in WRONG), codes, strict=True)) == WRONG
    assert (await client.get("order/orders-pending", **PRODUCT))["entrustedList"] is None
    assert await sizes(client) == {}


async def test_enums_and_numbers_are_read_as_leniently_as_bitgets(client: RestClient) -> None:
    """Any case of an enumeration, numbers as JSON numbers, unknown keys (ccxt in production)."""
    order = {
        **PRODUCT, "symbol": "BTCUSDT", "marginMode": "CROSSED", "marginCoin": "usdt", "side": "BUY",
        "productType": "usdt-futures", "orderType": "Limit", "force": "GTC", "size": 0.01,
        "price": float(await client.price(0.97)), "reduceOnly": "no", "tag": ["x"],
    }  # fmt: skip

    row = await detail(client, await client.post("order/place-order", **order))

    assert (row["size"], row["orderType"], row["force"]) == ("0.01", "limit", "gtc")
    assert float(row["price"]) == order["price"]


# ------------------------------------------------------------------------------------------------- batches


async def test_batch_places_what_it_can(client: RestClient) -> None:
    """HTTP 200 and 00000 with failures; a failure has its clientOid, no order id, message and code (recorded)."""
    price = await client.price(0.97)
    good = {"side": "buy", "orderType": "limit", "price": price, "size": "0.01", "clientOid": "good"}
    rows = [good, good | {"size": "0.0001", "clientOid": "small", "price": "20000"}, "nonsense", good]

    answer = await client.post("order/batch-place-order", **WHERE, marginMode="crossed", orderList=rows)

    assert [set(row) for row in answer["successList"]] == [{"orderId", "clientOid"}]
    assert answer["successList"][0]["clientOid"] == "good"
    assert answer["failureList"] == [
        {"orderId": "", "clientOid": "small", "errorMsg": "less than the minimum amount 5 USDT", "errorCode": "45110"},
        {"orderId": "", "clientOid": "", "errorMsg": "Parameter orderList error", "errorCode": "40020"},
        {"orderId": "", "clientOid": "good", "errorMsg": "Duplicate clientOid", "errorCode": "40786"},
    ]
    pending = (await client.get("order/orders-pending", **PRODUCT))["entrustedList"]
    assert [row["clientOid"] for row in pending] == ["good"]


async def test_batch_of_fifty_matches_in_order(client: RestClient) -> None:
    """Fifty market orders are fifty fills in the order of the list; fifty-one are refused."""
    rows = [{"side": "buy", "orderType": "market", "size": "0.0001", "clientOid": f"n{k}"} for k in range(51)]
    batch = WHERE | {"marginMode": "crossed"}

    assert await client.code("order/batch-place-order", **batch, orderList=rows) == "40306"
    assert await client.code("order/batch-place-order", **batch, orderList=[]) == "40019"
    assert await client.code("order/batch-place-order", **batch, orderList={"a": 1}) == "40020"
    await client.post("order/batch-place-order", **batch, orderList=rows[:50])

    history = (await client.get("order/orders-history", **PRODUCT))["entrustedList"]
    assert [row["clientOid"] for row in history] == [f"n{k}" for k in reversed(range(50))]
    fills = (await client.get("order/fills", **PRODUCT))["fillList"]
    assert [row["orderId"] for row in fills] == [row["orderId"] for row in history]


async def test_batch_cancel_finds_orders_by_either_id(client: RestClient) -> None:
    """Also without a symbol; without a list everything goes; fifty at most."""
    first, second, *others = await rest(client, 4)
    named = await client.post(
        "order/place-order", **LIMIT, side="buy", price=await client.price(0.97), clientOid="mine"
    )

    answer = await client.post(
        "order/batch-cancel-orders", **PRODUCT,
        orderIdList=[{"orderId": first}, {"clientOid": "mine"}, {"orderId": "1"}, {}, 5],
    )  # fmt: skip

    assert [row["orderId"] for row in answer["successList"]] == [first, named["orderId"]]
    assert [row["errorCode"] for row in answer["failureList"]] == ["40768", "40019", "40020"]
    too_many = [{"orderId": "1"}] * 51
    assert await client.code("order/batch-cancel-orders", **WHERE, orderIdList=too_many) == "40912"
    answer = await client.post("order/batch-cancel-orders", **WHERE)
    assert {row["orderId"] for row in answer["successList"]} == {second, *others}


async def test_cancel_all_takes_every_symbol(client: RestClient) -> None:
    """cancel-all-orders knows no symbol."""
    await rest(client, 2)
    price = await client.price(0.97, "ETHUSDT")
    await client.post(
        "order/place-order", **LIMIT | {"symbol": "ETHUSDT", "size": "0.1", "price": price, "side": "buy"}
    )  # fmt: skip

    answer = await client.post("order/cancel-all-orders", **PRODUCT)

    assert (len(answer["successList"]), answer["failureList"]) == (3, [])
    assert (await client.get("order/orders-pending", **PRODUCT))["entrustedList"] is None


@pytest.mark.parametrize(
    ("ids", "code"),
    [({}, "40019"), ({"orderId": "5"}, "40768"), ({"clientOid": "x"}, "40768"), ({"orderId": {"a": 1}}, "40020")],
)
async def test_cancel_and_detail_of_the_unknown(client: RestClient, ids: dict[str, Any], code: str) -> None:
    """An order that never was, and no order at all."""
    assert await client.code("order/cancel-order", **WHERE, **ids) == code
    if all(isinstance(value, str) for value in ids.values()):
        assert await client.get_code("order/detail", **WHERE, **ids) == code


async def test_order_id_wins_over_client_oid(client: RestClient) -> None:
    """Both given: the exchange's own id is meant."""
    (order_id,) = await rest(client, 1, clientOid="mine")

    assert await client.code("order/cancel-order", **WHERE, orderId="5", clientOid="mine") == "40768"
    answer = await client.post("order/cancel-order", **WHERE, orderId=order_id, clientOid="other")
    assert answer == {"orderId": order_id, "clientOid": "mine"}
    assert await client.code("order/cancel-order", **WHERE, orderId=order_id) == "22001"


# -------------------------------------------------------------------------------------------------- changes


async def test_changed_price_and_size_are_a_new_order(client: RestClient) -> None:
    """The id of the new order is not told, newClientOid finds it; the old one is cancelled."""
    (order_id,) = await rest(client, 1, clientOid="old")
    price = await client.price(0.96)

    answer = await client.post(
        "order/modify-order", **WHERE, orderId=order_id, newClientOid="new", newSize="0.02", newPrice=price
    )

    assert answer == {"clientOid": "new", "orderId": None}
    row = await client.get("order/detail", **WHERE, clientOid="new")
    assert (row["state"], row["size"], row["price"]) == ("live", "0.02", price)
    assert row["orderId"] > order_id
    assert (await client.get("order/detail", **WHERE, clientOid="old"))["state"] == "canceled"


async def test_changed_order_is_matched(client: RestClient) -> None:
    """A price beyond the touch fills it."""
    (order_id,) = await rest(client, 1)

    await client.post(
        "order/modify-order", **WHERE, orderId=order_id, newClientOid="new", newSize="0.01",
        newPrice=await client.price(1.02),
    )  # fmt: skip

    assert (await client.get("order/detail", **WHERE, clientOid="new"))["state"] == "filled"


async def test_changed_presets_keep_the_order(client: RestClient) -> None:
    """Its id stays, an omitted leg stays as it is, and 0 takes one away."""
    (order_id,) = await rest(client, 1, clientOid="mine")
    stop, target = await client.price(0.9), await client.price(1.1)

    answer = await client.post(
        "order/modify-order", **WHERE, orderId=order_id, newClientOid="n",
        newPresetStopLossPrice=stop, newPresetStopSurplusPrice=target,
    )  # fmt: skip
    both = await client.get("order/detail", **WHERE, orderId=order_id)
    await client.post("order/modify-order", **WHERE, clientOid="mine", newClientOid="n", newPresetStopLossPrice="0")
    one = await client.get("order/detail", **WHERE, orderId=order_id)

    assert answer == {"clientOid": "mine", "orderId": order_id}
    assert (both["presetStopLossPrice"], both["presetStopSurplusPrice"], both["state"]) == (stop, target, "live")
    assert (one["presetStopLossPrice"], one["presetStopSurplusPrice"]) == ("", target)


WRONG_CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"orderId": ""}, "40924"), ({"orderId": "5"}, "40768"), ({"newSize": "0.02"}, "40925"),
    ({"newPrice": "80000"}, "40925"), ({}, "40923"), ({"newSize": "x", "newPrice": "80000"}, "40020"),
    ({"newSize": "0.02", "newPrice": "80000", "newClientOid": ""}, "22003"),
    ({"newSize": "0.00001", "newPrice": "80000"}, "40808"), ({"newSize": "0", "newPrice": "80000"}, "40020"),
    ({"symbol": "ETHUSDT", "newSize": "0.02", "newPrice": "80000"}, "40768"),
]  # fmt: skip


async def test_wrong_change_leaves_the_order(client: RestClient) -> None:
    """A refused change is no cancel."""
    (order_id,) = await rest(client, 1)
    body = WHERE | {"orderId": order_id, "newClientOid": "new"}

    codes = await client.codes("order/modify-order", body, (change for change, _ in WRONG_CHANGES))

    assert list(zip((change for change, _ in WRONG_CHANGES), codes, strict=True)) == WRONG_CHANGES
    assert (await client.get("order/detail", **WHERE, orderId=order_id))["state"] == "live"


# --------------------------------------------------------------------------------------------------- closes


async def test_flash_close_closes_by_symbol_side_or_all(client: RestClient) -> None:
    """Rows name their symbol; the working closes of a position make way."""
    await hedge(client)
    for symbol, side in (("BTCUSDT", "buy"), ("BTCUSDT", "sell"), ("ETHUSDT", "buy")):
        await client.post("order/place-order", **ORDER | {"symbol": symbol, "size": "0.1"}, side=side, tradeSide="open")
    target = LIMIT | {"size": "0.1", "price": await client.price(1.04)}
    await client.post("order/place-order", **target, side="buy", tradeSide="close")

    first = await client.post("order/close-positions", **PRODUCT, symbol="BTCUSDT", holdSide="long")
    assert await sizes(client) == {"short": "0.1", "long": "0.1"}  # BTC's short and ETH's long
    rest_ = await client.post("order/close-positions", **PRODUCT)

    assert [set(row) for row in first["successList"]] == [{"orderId", "clientOid", "symbol"}]
    assert (first["failureList"], rest_["failureList"]) == ([], [])
    assert sorted(row["symbol"] for row in rest_["successList"]) == ["BTCUSDT", "ETHUSDT"]
    assert await sizes(client) == {}
    assert (await client.get("order/orders-pending", **PRODUCT))["entrustedList"] is None
    assert await client.codes("order/close-positions", PRODUCT, ({}, {"symbol": "BTCUSDT"})) == ["22002", "22002"]


async def test_hold_side_is_ignored_in_one_way_mode(client: RestClient) -> None:
    """Documented: should be left blank, will be ignored."""
    await client.post("order/place-order", **ORDER, side="buy")

    await client.post("order/close-positions", **PRODUCT, symbol="BTCUSDT", holdSide="short")

    assert await sizes(client) == {}


async def test_flash_close_is_once_a_second(client: RestClient) -> None:
    """1/s a user, as documented, counted down in the header."""
    client.server.conditions.rate_limit_scale = 1.0

    first, second = [await client.tell("order/close-positions", **PRODUCT) for _ in range(2)]

    assert (first["code"], second["code"], second["msg"]) == ("22002", "429", "Too Many Requests")


async def test_reversal_in_one_way_mode_turns_the_whole_position(client: RestClient) -> None:
    """Without a size as much as there was; tradeSide does not belong there."""
    await client.post("order/place-order", **ORDER, side="buy")

    assert await client.code("order/click-backhand", **WHERE, side="buy", tradeSide="open") == "40774"
    ack = await client.post("order/click-backhand", **WHERE, side="buy", clientOid="turn")

    assert (set(ack), ack["clientOid"]) == ({"orderId", "clientOid"}, "turn")
    assert await sizes(client) == {"short": "0.01"}


async def test_reversal_in_hedge_mode_names_its_side(client: RestClient) -> None:
    """side buy turns the long (documented); nothing to turn is 22002, a missing tradeSide 40774."""
    await hedge(client)
    await client.post("order/place-order", **ORDER, side="buy", tradeSide="open")

    assert await client.code("order/click-backhand", **WHERE, side="buy") == "40774"
    assert await client.code("order/click-backhand", **WHERE, side="sell", tradeSide="open") == "22002"
    await client.post("order/click-backhand", **WHERE, side="buy", tradeSide="open")

    assert await sizes(client) == {"short": "0.01"}


# ---------------------------------------------------------------------------------------------------- pages


async def walk(client: RestClient, path: str, name: str, id_name: str, **query: str) -> list[str]:
    """Return the ids of all pages of three, each page asked with the endId of the one before."""
    walked: list[str] = []
    before: dict[str, str] = {}
    while (page := await client.get(path, **PRODUCT, **query, limit="3", **before))[name]:
        assert len(page[name]) <= 3
        assert page["endId"] == page[name][-1][id_name]
        walked += [row[id_name] for row in page[name]]
        before = {"idLessThan": page["endId"]}
    assert page == {name: None, "endId": None}
    return walked


async def test_pages_lose_and_repeat_nothing(client: RestClient) -> None:
    """Newest id first, although orders end in another order than they began."""
    ids = await rest(client, 8)
    assert await walk(client, "order/orders-pending", "entrustedList", "orderId") == ids[::-1]
    for order_id in ids[::2] + ids[1::2][::-1]:
        await client.post("order/cancel-order", **WHERE, orderId=order_id)
    assert await walk(client, "order/orders-history", "entrustedList", "orderId") == ids[::-1]

    for side in ("buy", "sell") * 4:
        await client.post("order/place-order", **ORDER, side=side)
    fills = await walk(client, "order/fills", "fillList", "tradeId")
    assert fills == await walk(client, "order/fill-history", "fillList", "tradeId")
    assert (len(fills), fills) == (8, sorted(set(fills), key=int, reverse=True))
    closed = await walk(client, "position/history-position", "list", "positionId")
    assert (len(closed), closed) == (4, sorted(set(closed), key=int, reverse=True))


async def test_filters_combine(client: RestClient) -> None:
    """Symbol, ids, status, source and time; what nobody has is null."""
    first, second = await rest(client, 2)
    ack = await client.post("order/place-order", **ORDER, side="buy", clientOid="taken")
    row = await detail(client, ack)

    async def pending(**query: str) -> list[str]:
        rows = (await client.get("order/orders-pending", **PRODUCT, **query))["entrustedList"]
        return [row["orderId"] for row in rows or ()]

    assert await pending(symbol="ETHUSDT") == []
    assert await pending(status="live", symbol="BTCUSDT") == [second, first]
    assert await pending(status="partially_filled") == []
    assert await pending(orderId=first) == [first]
    assert await pending(endTime="1") == []
    assert await pending(startTime=str(int(row["cTime"]) - DAY_MS), endTime=row["cTime"]) == [second, first]
    history = await client.get("order/orders-history", **PRODUCT, orderSource="market", clientOid="taken")
    assert [one["orderId"] for one in history["entrustedList"]] == [ack["orderId"]]
    assert (await client.get("order/orders-history", **PRODUCT, orderSource="normal"))["entrustedList"] is None
    for query in ({"symbol": "ETHUSDT"}, {"orderId": first}, {"endTime": "1"}):
        assert (await client.get("order/fills", **PRODUCT, **query))["fillList"] is None


DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("path", "days"),
    [("order/fills", 92), ("order/fill-history", 7), ("order/orders-history", 92), ("position/history-position", 92)],
)
async def test_windows_of_time_are_bounded(client: RestClient, path: str, days: int) -> None:
    """00001 names the days; backwards is 40707."""
    await client.get(path, **PRODUCT, startTime="0", endTime=str(days * DAY_MS))

    answer = await client.ask(path, **PRODUCT, startTime="0", endTime=str(days * DAY_MS + 1))
    assert (answer["code"], answer["msg"]) == (
        "00001", f"startTime and endTime interval cannot be greater than {days} days",
    )  # fmt: skip
    assert await client.get_code(path, **PRODUCT, startTime="5", endTime="4") == "40707"


async def test_limit_above_the_maximum_is_cut_silently(client: RestClient) -> None:
    """A hundred rows are the most a page has."""
    rows = [{"side": "buy", "orderType": "market", "size": "0.0001"} for _ in range(50)]
    for _ in range(3):
        await client.post("order/batch-place-order", **WHERE, marginMode="crossed", orderList=rows)

    for limit in ({"limit": "500"}, {}):
        assert len((await client.get("order/fills", **PRODUCT, **limit))["fillList"]) == 100


async def test_budgets_are_documented_ones(client: RestClient) -> None:
    """The header counts down from one less than the calls of a second."""
    client.server.conditions.rate_limit_scale = 1.0
    for path, per_s in (("account/account", 10), ("position/all-position", 5), ("position/history-position", 20)):
        target = f"{MIX}{path}?productType=USDT-FUTURES&symbol=BTCUSDT&marginCoin=USDT"
        async with client.http.get(client.server.rest_url + target, headers=client.headers("GET", target)) as answer:
            assert answer.headers["x-mbx-used-remain-limit"] == str(per_s - 1)


async def test_fees_of_fills_are_those_of_orders(client: RestClient) -> None:
    """Sum of the fills' fees = the order's fee, and the bills say the same."""
    ack = await client.post("order/place-order", **ORDER | {"size": "0.5"}, side="buy")
    row = await detail(client, ack)
    fills = (await client.get("order/fills", **PRODUCT))["fillList"]
    bills = (await client.get("account/bill", **PRODUCT))["bills"]

    fees = [Decimal(fill["feeDetail"][0]["totalFee"]) for fill in fills]
    assert sum(fees) == Decimal(row["fee"]) == sum(Decimal(bill["fee"]) for bill in bills) < 0
    assert sum(Decimal(fill["baseVolume"]) for fill in fills) == Decimal(row["baseVolume"]) == Decimal("0.5")
