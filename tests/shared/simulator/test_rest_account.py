"""Account, settings, estimates, bills and positions over a real socket: Bitget's rules, codes and quirks."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from shared.simulator.desk import contract_of
from shared.simulator.rest.door import GROUPS
from shared.simulator.rest.positions import PositionRest
from shared.simulator.venue.orders import Accepted, OrderRequest
from shared.simulator.venue.venue import Venue
from shared.types import OrderKind, Side
from tests.shared.simulator.rest_world import ACCOUNT, MARKET, MIX, ORDER, PRODUCT, WHERE, RestClient, serving

PRIVATE = sorted(
    (endpoint.method, path)
    for group in GROUPS
    for path, endpoint in group.ENDPOINTS.items()
    if endpoint.is_private and endpoint.is_classic
)
ETH = PRODUCT | {"symbol": "ETHUSDT", "marginCoin": "USDT"}


@pytest_asyncio.fixture
async def client() -> AsyncIterator[RestClient]:
    async with serving() as (made,):
        yield made


async def hedge_isolated(client: RestClient) -> None:
    await client.post("account/set-position-mode", **PRODUCT, posMode="hedge_mode")
    await client.post("account/set-margin-mode", **WHERE, marginMode="isolated")


async def leverages(client: RestClient) -> tuple[int, int, int]:
    row = await client.get("account/account", **WHERE)
    return row["crossedMarginLeverage"], row["isolatedLongLever"], row["isolatedShortLever"]


# -------------------------------------------------------------------------------------------------- gate


async def test_unified_account_meets_40085_everywhere() -> None:
    """No classic private endpoint serves a unified account, whatever else is wrong with the request."""
    async with serving(msgspec.structs.replace(ACCOUNT, is_unified=True)) as (client,):
        answers = [await client.send(method, path, b"{}" if method == "POST" else b"") for method, path in PRIVATE]

    assert len(answers) > 25
    assert {(status, body["code"], body["data"]) for status, body in answers} == {(400, "40085", None)}


async def test_account_settings_tell_the_generation() -> None:
    """ccxt asks the v3 API first: a classic account is 40084, a unified one has settings."""
    unified = msgspec.structs.replace(ACCOUNT, key="unified", is_unified=True)
    async with serving(ACCOUNT, unified) as (classic, modern):
        assert (await classic.ask("/api/v3/account/settings"))["code"] == "40084"
        assert (await modern.get("/api/v3/account/settings"))["accountMode"] == "unified"


async def test_read_only_key_reads_and_changes_nothing() -> None:
    """Every POST is 40014 with Bitget's words, every GET is served."""
    async with serving(msgspec.structs.replace(ACCOUNT, permissions=frozenset({"read"}))) as (client,):
        for method, path in PRIVATE:
            status, body = await client.send(method, path, b"{}" if method == "POST" else b"")
            if method == "POST":
                assert (status, body["msg"]) == (400, "Incorrect permissions, need future order write permissions")
            else:
                assert body["code"] != "40014"


async def test_demo_key_needs_its_header_and_live_key_none() -> None:
    """40099 either way; the header's name is compared without case, as HTTP does."""
    demo = msgspec.structs.replace(ACCOUNT, key="demo", is_demo=True)
    target = MIX + "account/accounts?productType=USDT-FUTURES"
    async with serving(ACCOUNT, demo) as (live, paper):
        assert (await paper.send("GET", target, paptrading="0"))[1]["code"] == "40099"
        assert (await live.send("GET", target, PAPTRADING="1"))[1]["code"] == "40099"
        assert (await paper.send("GET", target))[1]["code"] == (await live.send("GET", target))[1]["code"] == "00000"


async def test_key_of_another_address_is_refused() -> None:
    """The whitelist holds on the socket's own address."""
    far = msgspec.structs.replace(ACCOUNT, key="far", addresses=("10.0.0.0/8",))
    near = msgspec.structs.replace(ACCOUNT, key="near", addresses=("127.0.0.1",))
    async with serving(far, near) as (refused, served):
        assert (await refused.ask("account/accounts", **PRODUCT))["code"] == "40038"
        assert len(await served.get("account/accounts", **PRODUCT)) == 1
        for client, expected in ((refused, ("error", 30005)), (served, ("login", 0))):
            async with connect(client.server.ws_url + "/private") as socket:
                await socket.send(json.dumps({"op": "login", "args": [client.login()]}))
                frame = json.loads(await socket.recv())
            assert (frame["event"], frame["code"]) == expected


# ---------------------------------------------------------------------------------------------- settings


async def test_crossed_leverage_is_one_value_and_leaves_isolated_ones_alone(client: RestClient) -> None:
    """Bitget keeps leverages of crossed and isolated margin side by side."""
    answer = await client.post("account/set-leverage", **WHERE, leverage="3")
    assert answer["crossMarginLeverage"] == answer["longLeverage"] == answer["shortLeverage"] == "3"
    assert await leverages(client) == (3, 10, 10)

    answer = await client.post("account/set-leverage", **WHERE, longLeverage="4", leverage="5", shortLeverage="6")
    assert answer["crossMarginLeverage"] == "4"


async def test_isolated_leverage_in_hedge_mode_is_set_by_side(client: RestClient) -> None:
    """holdSide picks one, none sets both (recorded), and long and short values come together."""
    await hedge_isolated(client)

    for body, expected in (
        ({"leverage": "6"}, ("6", "6")),
        ({"leverage": "7", "holdSide": "long"}, ("7", "6")),
        ({"leverage": "8", "holdSide": "SHORT"}, ("7", "8")),
        ({"longLeverage": "2", "shortLeverage": "3"}, ("2", "3")),
        ({"shortLeverage": "4"}, ("2", "4")),
    ):
        answer = await client.post("account/set-leverage", **WHERE, **body)
        assert (answer["longLeverage"], answer["shortLeverage"], answer["crossMarginLeverage"]) == (*expected, "")
    assert await leverages(client) == (10, 2, 4)
    assert await client.code("account/set-leverage", **WHERE, longLeverage="5", shortLeverage="151") == "40797"
    assert await leverages(client) == (10, 2, 4)  # both or none


WRONG_LEVERAGES: list[tuple[dict[str, Any], str]] = [
    ({}, "40019"), ({"leverage": ""}, "40019"), ({"leverage": "2.5"}, "40020"), ({"leverage": "x"}, "40020"),
    ({"leverage": "0"}, "40020"), ({"leverage": "-3"}, "40020"), ({"leverage": "151"}, "40797"),
    ({"leverage": "1e9"}, "40020"), ({"leverage": "5", "holdSide": "up"}, "40020"),
    ({"leverage": "5", "marginCoin": "BTC"}, "40020"), ({"leverage": "5", "marginCoin": ""}, "40019"),
    ({"leverage": "5", "symbol": "NOPEUSDT"}, "40034"), ({"leverage": "5", "productType": "X"}, "40019"),
]  # fmt: skip


async def test_wrong_leverage_is_refused(client: RestClient) -> None:
    """Nothing is set."""
    codes = await client.codes("account/set-leverage", WHERE, (change for change, _ in WRONG_LEVERAGES))

    assert list(zip((change for change, _ in WRONG_LEVERAGES), codes, strict=True)) == WRONG_LEVERAGES
    assert await leverages(client) == (10, 10, 10)


async def test_leverage_of_all_is_that_of_what_is_held(client: RestClient) -> None:
    """Only symbols with positions are changed (documented)."""
    await client.post("order/place-order", **ORDER, side="buy")

    assert await client.post("account/set-all-leverage", **PRODUCT, leverage="4") == "success"

    assert (await leverages(client))[0] == 4
    assert (await client.get("account/account", **ETH))["crossedMarginLeverage"] == 10


async def test_margin_mode_is_bound_by_positions(client: RestClient) -> None:
    """45117 while something is held; the same mode again is no change."""
    answer = await client.post("account/set-margin-mode", **WHERE, marginMode="ISOLATED")
    assert (answer["marginMode"], set(answer)) == (
        "isolated", {"symbol", "marginCoin", "longLeverage", "shortLeverage", "marginMode"},
    )  # fmt: skip

    await client.post("order/place-order", **ORDER | {"marginMode": "isolated"}, side="buy")
    assert await client.code("account/set-margin-mode", **WHERE, marginMode="crossed") == "45117"
    await client.post("account/set-margin-mode", **WHERE, marginMode="isolated")


async def test_margin_of_an_isolated_position_moves_both_ways(client: RestClient) -> None:
    """The answer's data is an empty string; margin and the account's isolated margin follow; bills tell of it."""
    await hedge_isolated(client)
    order = ORDER | {"marginMode": "isolated", "tradeSide": "open"}
    await client.post("order/place-order", **order, side="sell")

    async def margin() -> tuple[Decimal, Decimal]:
        (row,) = await client.get("position/single-position", **WHERE)
        return Decimal(row["marginSize"]), Decimal((await client.get("account/account", **WHERE))["isolatedMargin"])

    before = await margin()
    assert await client.post("account/set-margin", **WHERE, holdSide="short", amount="50") == ""
    more = await margin()
    assert await client.post("account/set-margin", **WHERE, holdSide="short", amount="-20.5") == ""
    less = await margin()

    assert more[0] - before[0] == 50
    assert less[0] - before[0] == Decimal("29.5")
    assert abs(less[1] - less[0]) < Decimal("1e-7")
    bills = (await client.get("account/bill", **PRODUCT))["bills"]
    assert [(row["businessType"], row["amount"]) for row in bills[:2]] == [
        ("reduce_margin", "-20.5"), ("append_margin", "50"),
    ]  # fmt: skip
    funding = (await client.get("account/bill", **PRODUCT, onlyFunding="yes"))["bills"]
    assert {row["businessType"] for row in funding} == {"open_short"}


WRONG_MARGINS: list[tuple[dict[str, Any], str]] = [
    ({"amount": "0"}, "40020"), ({"amount": "x"}, "40020"), ({"amount": ""}, "40019"), ({"holdSide": "buy"}, "40020"),
    ({"amount": "5"}, "22002"), ({"symbol": "NOPEUSDT"}, "40034"),
]  # fmt: skip


async def test_wrong_margin_is_refused(client: RestClient) -> None:
    """Also where there is nothing that could have margin."""
    body = WHERE | {"holdSide": "long", "amount": "5"}

    codes = await client.codes("account/set-margin", body, (change for change, _ in WRONG_MARGINS))

    assert list(zip((change for change, _ in WRONG_MARGINS), codes, strict=True)) == WRONG_MARGINS


async def test_asset_mode_is_single(client: RestClient) -> None:
    """There is one coin here: the mode of several is an unsupported operation, not a lie."""
    assert await client.post("account/set-asset-mode", **PRODUCT, assetMode="single") == "success"
    assert await client.code("account/set-asset-mode", **PRODUCT, assetMode="union") == "40805"
    assert await client.code("account/set-asset-mode", **PRODUCT, assetMode="both") == "40020"


async def test_other_product_types_hold_nothing(client: RestClient) -> None:
    """COIN-FUTURES and its like are valid and empty; what is none of Bitget's is not (recorded message)."""
    for path in ("account/accounts", "position/all-position", "position/adlRank"):
        assert await client.get(path, productType="coin-futures") == []
    for path, name in (
        ("order/fills", "fillList"),
        ("order/orders-pending", "entrustedList"),
        ("account/bill", "bills"),
    ):
        assert await client.get(path, productType="USDC-FUTURES") == {name: None, "endId": None}
    answer = await client.ask("account/accounts", productType="NOPE-FUTURES")
    assert (answer["code"], answer["msg"]) == ("40019", "Parameter NOPE-FUTURES cannot be empty")


# --------------------------------------------------------------------------------------------- estimates


@pytest.mark.parametrize("leverage", ["3", "20"])
async def test_max_open_is_the_largest_order_that_is_taken(client: RestClient, leverage: str) -> None:
    """An order of that size is accepted, one step more exceeds the balance."""
    await client.post("account/set-leverage", **WHERE, leverage=leverage)
    price = await client.price(0.98)
    query = {"posSide": "long", "orderType": "limit", "openPrice": price}

    most = Decimal((await client.get("account/max-open", **WHERE, **query))["maxOpen"])

    order = ORDER | {"orderType": "limit", "price": price, "side": "buy"}
    assert await client.code("order/place-order", **order | {"size": str(most + Decimal("0.0001"))}) == "40762"
    await client.post("order/place-order", **order | {"size": str(most)})
    # What is left is what the fee was counted with: it is paid by fills, not held by orders.
    assert Decimal((await client.get("account/max-open", **WHERE, **query))["maxOpen"]) < most * 2 / 100


async def test_open_count_divides_an_amount_by_what_a_unit_costs(client: RestClient) -> None:
    """amount / (price (1 / leverage + fee)), cut to the step; leverage is 20 unless said (documented)."""
    query = WHERE | {"openAmount": "1000", "openPrice": "50000"}

    assert await client.get("account/open-count", **query) == {"size": "0.3952"}
    assert await client.get("account/open-count", **query, leverage="1") == {"size": "0.0199"}
    assert await client.get_code("account/open-count", **query | {"openPrice": "0"}) == "40020"


@pytest.mark.parametrize("mode", ["crossed", "isolated"])
@pytest.mark.parametrize("side", ["long", "short"])
async def test_estimated_liquidation_price_is_that_of_the_position(client: RestClient, side: str, mode: str) -> None:
    """Opened for real, the position shows nearly the price that was foretold (the market moves meanwhile)."""
    await client.post("account/set-margin-mode", **WHERE, marginMode=mode)
    amount = "4000" if mode == "crossed" else "100"
    query = {"posSide": side, "orderType": "market", "openAmount": amount}

    foretold = Decimal((await client.get("account/liq-price", **WHERE, **query))["liqPrice"])

    size = (
        await client.get(
            "account/open-count", **WHERE, openAmount=amount, openPrice=await client.price(), leverage="10"
        )
    )["size"]
    order = ORDER | {"size": size, "marginMode": mode, "side": "buy" if side == "long" else "sell"}
    await client.post("order/place-order", **order)
    (row,) = await client.get("position/single-position", **WHERE)
    assert float(foretold) == pytest.approx(float(row["liquidationPrice"]), rel=5e-3)
    assert (foretold < Decimal(row["markPrice"])) == (side == "long")


async def test_trade_rate_is_the_contracts(client: RestClient) -> None:
    """Signed, and for futures only; the documentation's misspelt parameter is understood."""
    path = "/api/v2/common/trade-rate"

    for name in ("businessType", "business"):
        rates = await client.get(path, symbol="BTCUSDT", **{name: "mix"})
        assert rates == {"makerFeeRate": "0.0002", "takerFeeRate": "0.0006"}
    assert await client.get_code(path, symbol="NOPEUSDT", businessType="mix") == "40034"
    assert await client.get_code(path, symbol="BTCUSDT", businessType="spot") == "40020"
    assert await client.get_code(path, symbol="BTCUSDT") == "40019"


@pytest.mark.parametrize("path", ["spot/public/coins", "spot/public/symbols", "margin/currencies"])
async def test_other_products_list_nothing(client: RestClient, path: str) -> None:
    """ccxt loads them all before it trades."""
    async with client.http.get(f"{client.server.rest_url}/api/v2/{path}") as answer:
        assert (answer.status, (await answer.json())["data"]) == (200, [])


# --------------------------------------------------------------------------------------------- positions


async def test_positions_of_a_symbol_and_of_all(client: RestClient) -> None:
    """single-position lists both sides of a hedge, all-position everything, another margin coin nothing."""
    await client.post("account/set-position-mode", **PRODUCT, posMode="hedge_mode")
    for symbol, side in (("BTCUSDT", "buy"), ("BTCUSDT", "sell"), ("ETHUSDT", "buy")):
        await client.post("order/place-order", **ORDER | {"symbol": symbol, "size": "0.1"}, side=side, tradeSide="open")

    single = await client.get("position/single-position", **WHERE)
    everything = await client.get("position/all-position", **PRODUCT)

    assert [row["holdSide"] for row in single] == ["long", "short"]
    assert [(row["symbol"], row["holdSide"]) for row in everything] == [
        ("BTCUSDT", "long"), ("BTCUSDT", "short"), ("ETHUSDT", "long"),
    ]  # fmt: skip
    assert await client.get("position/all-position", **PRODUCT, marginCoin="USDC") == []


async def test_pending_orders_lock_and_delegate(client: RestClient) -> None:
    """`locked` is what waits to close, `openDelegateSize` what waits to open in the same direction."""
    await client.post("order/place-order", **ORDER | {"size": "0.02"}, side="buy")
    limit = ORDER | {"orderType": "limit"}
    await client.post(
        "order/place-order", **limit | {"size": "0.005"}, side="sell", price=await client.price(1.04), reduceOnly="YES"
    )
    await client.post("order/place-order", **limit | {"size": "0.001"}, side="buy", price=await client.price(0.97))

    (row,) = await client.get("position/single-position", **WHERE)

    assert (row["total"], row["locked"], row["available"], row["openDelegateSize"]) == (
        "0.02",
        "0.005",
        "0.015",
        "0.001",
    )


@pytest.mark.parametrize(("mark", "ranks"), [(110.0, ["0.5", "1"]), (90.0, ["1", "0.5"]), (100.0, ["1", "1"])])
def test_adl_rank_orders_positions_by_profit_and_leverage(mark: float, ranks: list[str]) -> None:
    """Of two longs the one with more leverage is nearer to 1 in profit, further away in loss; equals share a rank."""
    contract = msgspec.structs.replace(contract_of(MARKET.contracts()[0]), symbol="BTCUSDT")
    venue = Venue([contract])
    for account, leverage in (("low", 2), ("high", 50)):
        venue.open_account(account, Decimal(10_000))
        venue.set_leverage(account, "BTCUSDT", leverage)
        venue.set_book("BTCUSDT", [(100.0, 9.0)], [(100.0, 9.0)], 1)
        request = OrderRequest(symbol="BTCUSDT", side=Side.BUY, kind=OrderKind.MARKET, size=Decimal(1))
        assert isinstance(venue.place(account, request, 1), Accepted)
    venue.set_mark("BTCUSDT", mark, math.nan, math.nan, 2)
    desk = SimpleNamespace(positions=lambda account, now_ns: venue.positions(account))
    context = SimpleNamespace(feed=None, market=None, desk=desk, venue=venue, now_ns=lambda: 2)

    group = PositionRest(context)  # type: ignore[arg-type]
    rows = [group.adl_rank(PRODUCT, account)[0] for account in ("low", "high")]

    assert [row["rank"] for row in rows] == ranks
    assert all(Decimal(row["rank"]) + Decimal(row["adlRank"]) == 1 for row in rows)


async def test_history_of_positions_adds_up(client: RestClient) -> None:
    """netProfit = pnl + fees + funding to the last digit but one, and the wallet moved by as much."""
    await client.post("order/place-order", **ORDER | {"size": "0.02"}, side="buy")
    await client.post("order/place-order", **ORDER | {"size": "0.005"}, side="sell", reduceOnly="YES")
    assert await client.get("position/history-position", **PRODUCT) == {"list": None, "endId": None}
    await client.post("order/place-order", **ORDER | {"size": "0.015"}, side="sell", reduceOnly="YES")

    (row,) = (await client.get("position/history-position", symbol="BTCUSDT"))["list"]
    account: Any = await client.get("account/account", **WHERE)

    parts = sum(Decimal(row[name]) for name in ("pnl", "openFee", "closeFee", "totalFunding"))
    assert abs(Decimal(row["netProfit"]) - parts) <= Decimal("3e-8")
    assert abs(Decimal(account["accountEquity"]) - 10_000 - Decimal(row["netProfit"])) <= Decimal("3e-8")
    assert (row["openTotalPos"], row["closeTotalPos"]) == ("0.02", "0.02")


# -------------------------------------------------------------------------------------------------- bills


async def test_bills_are_paged_by_their_ids(client: RestClient) -> None:
    """Each bill appears exactly once, newest first, and the last page is null."""
    for _ in range(7):
        await client.post("order/place-order", **ORDER | {"size": "0.0001"}, side="buy")  # one fill, so one bill
    whole = (await client.get("account/bill", **PRODUCT))["bills"]

    walked: list[str] = []
    before: dict[str, str] = {}
    while (page := await client.get("account/bill", **PRODUCT, limit="3", **before))["bills"]:
        assert page["endId"] == page["bills"][-1]["billId"]
        walked += [row["billId"] for row in page["bills"]]
        before = {"idLessThan": page["endId"]}

    assert page == {"bills": None, "endId": None}
    assert walked == [row["billId"] for row in whole] == sorted(walked, key=int, reverse=True)
    assert len(set(walked)) == 7


WRONG_PAGES: list[tuple[dict[str, str], str]] = [
    ({"limit": "0"}, "40020"), ({"limit": "x"}, "40020"), ({"limit": "²"}, "40020"), ({"idLessThan": "x"}, "40020"),
    ({"startTime": "-1"}, "40020"), ({"startTime": "2", "endTime": "1"}, "40707"),
    ({"startTime": "0", "endTime": str(30 * 86_400_000 + 1)}, "00001"), ({"onlyFunding": "maybe"}, "40020"),
]  # fmt: skip


async def test_wrong_pages_of_bills_are_refused(client: RestClient) -> None:
    """Windows longer than 30 days are said in Bitget's words."""
    codes = [await client.get_code("account/bill", **PRODUCT, **query) for query, _ in WRONG_PAGES]

    assert list(zip((query for query, _ in WRONG_PAGES), codes, strict=True)) == WRONG_PAGES
