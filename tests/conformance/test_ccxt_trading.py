"""ccxt trades over REST, in one-way and in hedge mode: orders, fills, positions, plans, money.

Amounts, prices, states and sums are those that the calls mean; nothing is said of how they look on the wire.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import ccxt
import pytest
import pytest_asyncio

from tests.conformance.exchange import BTC, ETH, TAKER, World, trading

START = 100_000.0
CENT = 1e-6  # USDT; ccxt computes with floats


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    async with trading() as world:
        yield world


@pytest_asyncio.fixture
async def hedged() -> AsyncIterator[World]:
    async with trading() as world:
        await world.exchange.set_position_mode(True, BTC)
        yield world


async def position(world: World, symbol: str = BTC, side: str | None = None) -> Any:
    """Return the one position of a symbol (and side), None where it is flat."""
    found = [p for p in await world.exchange.fetch_positions([symbol]) if side is None or p["side"] == side]
    assert len(found) < 2, found
    return found[0] if found else None


def protection(held: Any) -> tuple[float | None, float | None]:
    """Return (stop, target) of a position; ccxt passes Bitget's fields on, unread."""
    stop, target = held["info"]["stopLoss"], held["info"]["takeProfit"]
    return float(stop) if stop else None, float(target) if target else None


async def long(world: World, usdt: float = 2000.0, symbol: str = BTC, **params: Any) -> Any:
    """Buy at the market and return the filled order."""
    amount = world.amount(symbol, usdt)
    return await world.filled(await world.exchange.create_order(symbol, "market", "buy", amount, None, params))


# --------------------------------------------------------------------------------------------- settings


async def test_fresh_account_has_its_deposit_and_nothing_else(world: World) -> None:
    """Everything is free, there is no position, order or trade."""
    balance = await world.exchange.fetch_balance()
    assert (balance["USDT"]["total"], balance["USDT"]["free"], balance["USDT"]["used"]) == (START, START, 0.0)
    assert await world.exchange.fetch_positions() == []
    assert await world.exchange.fetch_open_orders(BTC) == []
    assert await world.exchange.fetch_closed_orders(BTC) == []
    assert await world.exchange.fetch_my_trades(BTC) == []


async def test_leverage_is_set_and_read_back(world: World) -> None:
    """One value for both sides of a crossed symbol; more than the contract allows is refused."""
    await world.exchange.set_leverage(7, BTC)
    leverage = await world.exchange.fetch_leverage(BTC)
    assert (leverage["longLeverage"], leverage["shortLeverage"], leverage["marginMode"]) == (7, 7, "cross")
    await long(world)
    assert (await position(world))["leverage"] == 7.0
    with pytest.raises(ccxt.ExchangeError):
        await world.exchange.set_leverage(126 * 5, BTC)


async def test_leverage_of_each_side_of_an_isolated_hedge(hedged: World) -> None:
    """In isolated hedge mode long and short have their own."""
    exchange = hedged.exchange
    await exchange.set_margin_mode("isolated", BTC)
    await exchange.set_leverage(5, BTC, {"holdSide": "long"})
    await exchange.set_leverage(9, BTC, {"holdSide": "short"})
    leverage = await exchange.fetch_leverage(BTC)
    assert (leverage["longLeverage"], leverage["shortLeverage"], leverage["marginMode"]) == (5, 9, "isolated")


async def test_margin_mode_is_set_and_kept_while_there_is_a_position(world: World) -> None:
    """Isolated and back to cross; not with a position open."""
    for mode in ("isolated", "cross"):
        await world.exchange.set_margin_mode(mode, BTC)
        assert (await world.exchange.fetch_margin_mode(BTC))["marginMode"] == mode
    await long(world)
    with pytest.raises(ccxt.ExchangeError, match="45117"):
        await world.exchange.set_margin_mode("isolated", BTC)


async def test_position_mode_is_kept_while_there_is_a_position(world: World) -> None:
    """40920 with a position; orders of the other mode are 40774."""
    await world.exchange.set_position_mode(True, BTC)
    await world.exchange.set_position_mode(False, BTC)
    await long(world)
    with pytest.raises(ccxt.ExchangeError, match="40920"):
        await world.exchange.set_position_mode(True, BTC)
    with pytest.raises(ccxt.InvalidOrder, match="40774"):
        await world.exchange.create_order(BTC, "market", "buy", 0.01, None, {"hedged": True})


async def test_hedge_mode_refuses_an_order_without_a_trade_side(hedged: World) -> None:
    """The most common failure of integrations: 40774."""
    with pytest.raises(ccxt.InvalidOrder, match="40774"):
        await hedged.exchange.create_order(BTC, "market", "buy", 0.01)


# --------------------------------------------------------------------------------------------- one-way orders


async def test_market_order_fills_and_pays(world: World) -> None:
    """Order, trades, position, balance and ledger tell one story."""
    exchange, amount = world.exchange, world.amount(BTC, 3000.0)
    order = await world.filled(await exchange.create_order(BTC, "market", "buy", amount))
    assert (order["type"], order["side"], order["filled"], order["remaining"]) == ("market", "buy", amount, 0.0)
    assert order["reduceOnly"] is False

    trades = await exchange.fetch_my_trades(BTC)
    assert {trade["order"] for trade in trades} == {order["id"]}
    assert sum(trade["amount"] for trade in trades) == pytest.approx(amount)
    cost = sum(trade["price"] * trade["amount"] for trade in trades)
    assert order["average"] == pytest.approx(cost / amount)
    assert {trade["takerOrMaker"] for trade in trades} == {"taker"}
    fee = sum(float(trade["fee"]["cost"]) for trade in trades)
    assert fee == pytest.approx(TAKER * cost, abs=CENT)
    assert order["fee"]["cost"] == pytest.approx(fee, abs=CENT)

    held = await position(world)
    assert (held["side"], held["contracts"], held["hedged"], held["marginMode"]) == ("long", amount, False, "cross")
    assert held["entryPrice"] == pytest.approx(order["average"])
    assert held["unrealizedPnl"] == pytest.approx((held["markPrice"] - held["entryPrice"]) * amount, abs=1e-4)
    assert (await exchange.fetch_position(BTC))["contracts"] == amount

    balance = await exchange.fetch_balance()
    unrealised = float(balance["info"][0]["unrealizedPL"])
    assert balance["USDT"]["total"] == pytest.approx(START - fee + unrealised, abs=CENT)
    assert 0 < balance["USDT"]["used"] < 3000.0
    entries = [entry for entry in await exchange.fetch_ledger("USDT") if float(entry["fee"]["cost"] or 0) > 0]
    assert sum(entry["fee"]["cost"] for entry in entries) == pytest.approx(fee, abs=CENT)


async def test_round_trip_costs_spread_and_fees(world: World) -> None:
    """After closing, the money that is gone is what the trades say, and the history has the position."""
    exchange = world.exchange
    order = await long(world)
    closing = await world.filled(
        await exchange.create_order(BTC, "market", "sell", order["amount"], None, {"reduceOnly": True})
    )
    assert closing["reduceOnly"] is True
    assert await position(world) is None

    trades = await exchange.fetch_my_trades(BTC)
    signs = {"buy": -1.0, "sell": 1.0}
    flow = sum(signs[t["side"]] * t["price"] * t["amount"] - float(t["fee"]["cost"]) for t in trades)
    balance = await exchange.fetch_balance()
    assert balance["USDT"]["total"] == pytest.approx(START + flow, abs=CENT)
    assert balance["USDT"]["free"] == balance["USDT"]["total"]
    (past,) = await exchange.fetch_positions_history([BTC])
    assert (past["side"], past["contracts"]) == ("long", order["amount"])
    assert past["entryPrice"] == pytest.approx(order["average"])
    assert float(past["info"]["netProfit"]) == pytest.approx(flow, abs=CENT)
    assert past["realizedPnl"] == pytest.approx((closing["average"] - order["average"]) * order["amount"], abs=1e-4)


async def test_resting_limit_order_is_open_then_canceled(world: World) -> None:
    """Open with all of it remaining; canceled with nothing filled; a second cancel has nothing to do."""
    exchange, price = world.exchange, world.price(BTC, 0.97)
    order = await exchange.create_order(BTC, "limit", "buy", 0.05, price, {"clientOrderId": "ours-1"})
    assert order["clientOrderId"] == "ours-1"
    (resting,) = await exchange.fetch_open_orders(BTC)
    assert (resting["id"], resting["clientOrderId"], resting["status"]) == (order["id"], "ours-1", "open")
    assert (resting["price"], resting["amount"], resting["filled"]) == (price, 0.05, 0.0)
    assert [found["id"] for found in await exchange.fetch_open_orders()] == [order["id"]]
    assert (await exchange.fetch_balance())["USDT"]["used"] > 0

    await exchange.cancel_order(order["id"], BTC)

    assert await exchange.fetch_open_orders(BTC) == []
    assert (await exchange.fetch_order(order["id"], BTC))["status"] == "canceled"
    assert [found["id"] for found in await exchange.fetch_canceled_orders(BTC)] == [order["id"]]
    assert (await exchange.fetch_balance())["USDT"]["used"] == 0
    with pytest.raises(ccxt.ExchangeError, match="22001"):
        await exchange.cancel_order(order["id"], BTC)
    with pytest.raises(ccxt.OrderNotFound, match="40768"):
        await exchange.cancel_order("1234567890123456789", BTC)


async def test_limit_order_through_the_touch_fills_at_the_book(world: World) -> None:
    """Never worse than its limit."""
    price = world.price(ETH, 1.01)
    order = await world.filled(await world.exchange.create_order(ETH, "limit", "buy", 0.5, price))
    assert order["average"] <= price
    assert [found["id"] for found in await world.exchange.fetch_closed_orders(ETH)] == [order["id"]]


async def test_post_only_order_never_takes(world: World) -> None:
    """One that would cross is accepted and canceled; one that would not rests."""
    exchange = world.exchange
    crossing = await exchange.create_order(BTC, "limit", "buy", 0.01, world.price(BTC, 1.01), {"postOnly": True})
    found = await exchange.fetch_order(crossing["id"], BTC)
    assert (found["status"], found["filled"], found["postOnly"]) == ("canceled", 0.0, True)
    resting = await exchange.create_order(BTC, "limit", "buy", 0.01, world.price(BTC, 0.97), {"postOnly": True})
    assert (await exchange.fetch_order(resting["id"], BTC))["status"] == "open"
    assert await position(world) is None


async def test_ioc_and_fok_orders_leave_nothing_resting(world: World) -> None:
    """Filled as far as the book goes, or not at all; the rest is gone."""
    exchange = world.exchange
    for force in ("IOC", "FOK"):
        away = await exchange.create_order(BTC, "limit", "buy", 0.01, world.price(BTC, 0.97), {"timeInForce": force})
        found = await exchange.fetch_order(away["id"], BTC)
        assert (found["status"], found["filled"], found["timeInForce"]) == ("canceled", 0.0, force)
        through = await exchange.create_order(BTC, "limit", "buy", 0.01, world.price(BTC, 1.01), {"timeInForce": force})
        assert (await exchange.fetch_order(through["id"], BTC))["filled"] == 0.01
    assert await exchange.fetch_open_orders(BTC) == []


async def test_reduce_only_order_cannot_open(world: World) -> None:
    """Without a position there is nothing to close."""
    with pytest.raises(ccxt.ExchangeError, match="22002"):
        await world.exchange.create_order(BTC, "market", "sell", 0.01, None, {"reduceOnly": True})
    order = await long(world)
    larger = await world.exchange.create_order(BTC, "market", "sell", order["amount"] * 3, None, {"reduceOnly": True})
    assert (await world.exchange.fetch_order(larger["id"], BTC))["filled"] == pytest.approx(order["amount"])
    assert await position(world) is None


async def test_refusals_are_the_errors_that_ccxt_knows(world: World) -> None:
    """Too much money, too little, too many decimals, a duplicate."""
    exchange = world.exchange
    with pytest.raises(ccxt.InsufficientFunds):
        await exchange.create_order(BTC, "limit", "buy", 200, world.price(BTC, 0.99))
    with pytest.raises(ccxt.InvalidOrder, match="45110"):
        await exchange.create_order("DOGE/USDT:USDT", "market", "buy", 2)
    raw = {
        "symbol": "BTCUSDT",
        "productType": "USDT-FUTURES",
        "marginMode": "crossed",
        "marginCoin": "USDT",
        "side": "buy",
        "orderType": "market",
        "size": "0.0100001",
    }  # ccxt itself would cut the size
    with pytest.raises(ccxt.InvalidOrder, match="40808"):
        await exchange.privateMixPostV2MixOrderPlaceOrder(raw)
    resting = {"clientOrderId": "twice"}
    await exchange.create_order(BTC, "limit", "buy", 0.01, world.price(BTC, 0.97), resting)
    with pytest.raises(ccxt.ExchangeError, match=r"40786|45034|43118"):
        await exchange.create_order(BTC, "limit", "buy", 0.01, world.price(BTC, 0.97), resting)
    with pytest.raises(ccxt.OrderNotFound):
        await exchange.fetch_order("1234567890123456789", BTC)
    assert len(await exchange.fetch_open_orders(BTC)) == 1


async def test_edited_order_is_a_new_one_at_the_new_price(world: World) -> None:
    """Price and size change; the old id is canceled."""
    exchange = world.exchange
    order = await exchange.create_order(BTC, "limit", "buy", 0.02, world.price(BTC, 0.97))
    lower = world.price(BTC, 0.96)
    await exchange.edit_order(order["id"], BTC, "limit", "buy", 0.03, lower)
    (resting,) = await exchange.fetch_open_orders(BTC)
    assert resting["id"] != order["id"]
    assert (resting["amount"], resting["price"]) == (0.03, lower)
    assert (await exchange.fetch_order(order["id"], BTC))["status"] == "canceled"


async def test_batches_are_placed_and_canceled(world: World) -> None:
    """Good and bad orders of one batch go their own ways (ccxt leaves out the refused); cancel some, then all."""
    exchange = world.exchange
    prices = [world.price(BTC, times) for times in (0.97, 0.965, 0.96, 0.955)]
    orders: list[dict[str, Any]] = [
        {"symbol": BTC, "type": "limit", "side": "buy", "amount": 0.01, "price": price} for price in prices
    ]
    orders.append({"symbol": BTC, "type": "limit", "side": "buy", "amount": 500, "price": prices[0]})
    placed = await exchange.create_orders(orders)
    assert len({order["id"] for order in placed}) == 4
    assert {order["price"] for order in await exchange.fetch_open_orders(BTC)} == set(prices)

    canceled = await exchange.cancel_orders([order["id"] for order in placed[:2]], BTC)
    assert {order["id"] for order in canceled} == {order["id"] for order in placed[:2]}
    assert {order["price"] for order in await exchange.fetch_open_orders(BTC)} == set(prices[2:])
    other = await exchange.create_order(ETH, "limit", "buy", 0.1, world.price(ETH, 0.97))
    await exchange.cancel_all_orders(BTC)
    assert [order["id"] for order in await exchange.fetch_open_orders()] == [other["id"]]


async def test_positions_are_closed_at_once(world: World) -> None:
    """`close_position` closes one symbol, `close_all_positions` the rest."""
    exchange = world.exchange
    await long(world)
    await long(world, symbol=ETH)
    await exchange.close_position(BTC)
    assert [held["symbol"] for held in await exchange.fetch_positions()] == [ETH]
    await exchange.close_all_positions()
    assert await exchange.fetch_positions() == []
    with pytest.raises(ccxt.ExchangeError, match="22002"):
        await exchange.close_position(BTC)


async def test_funding_is_in_history_and_ledger(world: World) -> None:
    """What was paid is mark x size x rate, and the balance moved by it."""
    exchange = world.exchange
    order = await long(world)
    before = (await exchange.fetch_balance())["USDT"]["total"] - (await position(world))["unrealizedPnl"]
    async with exchange.session.post(f"{world.server.rest_url}/_control/funding") as answer:
        (paid,) = (await answer.json())["paid"]
    (settled,) = await exchange.fetch_funding_history(BTC)
    assert settled["id"] == paid["billId"]
    assert settled["amount"] == float(paid["amount"])
    rate = (await exchange.fetch_funding_rate(BTC))["fundingRate"]
    mark = float(world.venue.mark("BTCUSDT"))
    assert settled["amount"] == pytest.approx(-rate * mark * order["amount"], rel=0.01)
    balance = await exchange.fetch_balance()
    wallet = balance["USDT"]["total"] - float(balance["info"][0]["unrealizedPL"])
    assert wallet == pytest.approx(before + settled["amount"], abs=0.5)
    ledger = await exchange.fetch_ledger("USDT")
    assert paid["billId"] in {entry["id"] for entry in ledger}


# --------------------------------------------------------------------------------------------- hedge mode


async def test_hedge_holds_both_sides_and_closes_each(hedged: World) -> None:
    """Long and short of one symbol at once; a close goes against its own side only."""
    exchange, amount = hedged.exchange, hedged.amount(BTC, 3000.0)
    half = float(exchange.amount_to_precision(BTC, amount / 2))
    for side in ("buy", "sell"):
        order = await hedged.filled(await exchange.create_order(BTC, "market", side, amount, None, {"hedged": True}))
        assert order["side"] == side
    held = {p["side"]: p for p in await exchange.fetch_positions([BTC])}
    assert {side: p["contracts"] for side, p in held.items()} == {"long": amount, "short": amount}
    assert all(p["hedged"] for p in held.values())

    closing = await hedged.filled(
        await exchange.create_order(BTC, "market", "sell", half, None, {"hedged": True, "reduceOnly": True})
    )
    assert closing["side"] == "sell"  # ccxt turns Bitget's position side back into the economic one
    held = {p["side"]: p for p in await exchange.fetch_positions([BTC])}
    assert held["long"]["contracts"] == pytest.approx(amount - half)
    assert held["short"]["contracts"] == amount
    await exchange.create_order(BTC, "market", "buy", amount, None, {"hedged": True, "reduceOnly": True})
    assert [p["side"] for p in await exchange.fetch_positions([BTC])] == ["long"]
    await exchange.close_position(BTC, None, {"holdSide": "long"})
    assert await exchange.fetch_positions([BTC]) == []
    assert len(await exchange.fetch_positions_history([BTC])) == 2


async def test_hedge_limit_orders_rest_on_their_side(hedged: World) -> None:
    """Open a short above the market, take profit of a long above it: both sell, both rest."""
    exchange = hedged.exchange
    order = await hedged.filled(
        await exchange.create_order(BTC, "market", "buy", hedged.amount(BTC, 3000.0), None, {"hedged": True})
    )
    price = hedged.price(BTC, 1.03)
    opening = await exchange.create_order(BTC, "limit", "sell", 0.01, price, {"hedged": True})
    closing = await exchange.create_order(
        BTC, "limit", "sell", order["amount"], price, {"hedged": True, "reduceOnly": True}
    )
    resting = {found["id"]: found for found in await exchange.fetch_open_orders(BTC)}
    assert set(resting) == {opening["id"], closing["id"]}
    assert {found["side"] for found in resting.values()} == {"sell"}
    assert [resting[o["id"]]["reduceOnly"] for o in (opening, closing)] == [False, True]
    await exchange.cancel_all_orders(BTC)
    assert await exchange.fetch_open_orders(BTC) == []
    with pytest.raises(ccxt.ExchangeError, match="22002"):
        await exchange.create_order(BTC, "market", "buy", 0.01, None, {"hedged": True, "reduceOnly": True})


# --------------------------------------------------------------------------------------------- plans


async def test_attached_stop_and_target_become_the_positions(world: World) -> None:
    """They ride on the entry, show on the position, and go with it."""
    exchange = world.exchange
    stop, target = world.price(BTC, 0.95), world.price(BTC, 1.05)
    attached = {"stopLoss": {"triggerPrice": stop}, "takeProfit": {"triggerPrice": target}}
    await world.filled(await exchange.create_order(BTC, "market", "buy", 0.03, None, attached))
    held = await position(world)
    assert protection(held) == (stop, target)
    plans = await exchange.fetch_open_orders(BTC, None, None, {"trigger": True, "planType": "profit_loss"})
    assert {plan["triggerPrice"] for plan in plans} == {stop, target}
    assert {plan["side"] for plan in plans} == {"sell"}

    await exchange.close_position(BTC)
    assert await exchange.fetch_open_orders(BTC, None, None, {"trigger": True, "planType": "profit_loss"}) == []


async def test_separate_stop_and_target_protect_a_position(world: World) -> None:
    """`stopLossPrice` and `takeProfitPrice` orders; on the wrong side of the mark they are refused; canceled by id."""
    exchange = world.exchange
    order = await long(world)
    stop, target = world.price(BTC, 0.96), world.price(BTC, 1.04)
    amount = order["amount"]
    placed = await exchange.create_order(BTC, "market", "sell", amount, None, {"stopLossPrice": stop})
    await exchange.create_order(BTC, "market", "sell", amount, None, {"takeProfitPrice": target})
    held = await position(world)
    assert protection(held) == (stop, target)
    with pytest.raises(ccxt.InvalidOrder, match="40917"):
        await exchange.create_order(BTC, "market", "sell", amount, None, {"stopLossPrice": target})
    await exchange.cancel_order(placed["id"], BTC, {"trigger": True, "planType": "pos_loss"})
    held = await position(world)
    assert protection(held) == (None, target)


async def test_protection_of_each_side_of_a_hedge(hedged: World) -> None:
    """A stop names the side that it protects."""
    exchange, amount = hedged.exchange, hedged.amount(BTC, 3000.0)
    for side in ("buy", "sell"):
        await exchange.create_order(BTC, "market", side, amount, None, {"hedged": True})
    below, above = hedged.price(BTC, 0.96), hedged.price(BTC, 1.04)
    await exchange.create_order(BTC, "market", "sell", amount, None, {"stopLossPrice": below, "holdSide": "long"})
    await exchange.create_order(BTC, "market", "buy", amount, None, {"stopLossPrice": above, "holdSide": "short"})
    assert protection(await position(hedged, side="long")) == (below, None)
    assert protection(await position(hedged, side="short")) == (above, None)


async def test_trigger_order_waits_and_is_canceled(world: World) -> None:
    """It is listed among trigger orders only, reserves nothing, and cancels by id."""
    exchange, trigger = world.exchange, world.price(BTC, 1.05)
    placed = await exchange.create_order(BTC, "market", "buy", 0.01, None, {"triggerPrice": trigger})
    assert await exchange.fetch_open_orders(BTC) == []
    (waiting,) = await exchange.fetch_open_orders(BTC, None, None, {"trigger": True})
    assert (waiting["id"], waiting["triggerPrice"], waiting["amount"]) == (placed["id"], trigger, 0.01)
    assert waiting["status"] == "open"
    assert (await exchange.fetch_balance())["USDT"]["used"] == 0.0
    await exchange.cancel_order(placed["id"], BTC, {"trigger": True})
    assert await exchange.fetch_open_orders(BTC, None, None, {"trigger": True}) == []
    (past,) = await exchange.fetch_canceled_orders(BTC, None, None, {"trigger": True})
    assert (past["id"], past["status"]) == (placed["id"], "canceled")


async def test_trigger_order_fires_when_the_mark_gets_there(world: World) -> None:
    """The order that it sends is filled, and the plan's history is done with."""
    exchange = world.exchange
    placed = await exchange.create_order(BTC, "market", "buy", 0.01, None, {"triggerPrice": world.price(BTC, 1.02)})
    now_ns = world.server.clock.now_ns()
    mark = float(world.venue.mark("BTCUSDT")) * 1.03
    world.venue.set_mark("BTCUSDT", mark, mark, 0.0001, now_ns)
    held = await position(world)
    assert (held["side"], held["contracts"]) == ("long", 0.01)
    assert await exchange.fetch_open_orders(BTC, None, None, {"trigger": True}) == []
    done = await exchange.fetch_closed_orders(BTC, None, None, {"trigger": True})
    assert [plan["id"] for plan in done] == [placed["id"]]
    assert len(await exchange.fetch_my_trades(BTC)) >= 1


async def test_trailing_order_waits(world: World) -> None:
    """Per cent below the peak, once its trigger was reached; listed among trailing orders; cancelable."""
    exchange = world.exchange
    order = await long(world)
    trigger = world.price(BTC, 1.03)
    params = {"trailingPercent": 1, "trailingTriggerPrice": trigger, "reduceOnly": True}
    placed = await exchange.create_order(BTC, "market", "sell", order["amount"], None, params)
    (waiting,) = await exchange.fetch_open_orders(BTC, None, None, {"trailing": True})
    assert (waiting["id"], waiting["triggerPrice"], waiting["amount"]) == (placed["id"], trigger, order["amount"])
    await exchange.cancel_order(placed["id"], BTC, {"trailing": True})
    assert await exchange.fetch_open_orders(BTC, None, None, {"trailing": True}) == []


async def test_sandbox_is_the_demo_environment(world: World) -> None:
    """A live key with ccxt's sandbox header is in the wrong environment (40099)."""
    world.exchange.set_sandbox_mode(True)
    with pytest.raises(ccxt.ExchangeError, match="40099"):
        await world.exchange.fetch_balance()
