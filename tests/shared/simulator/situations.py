"""The situations in which Bitget's answers were recorded, driven again: name of the recording -> how to get there.

Each takes a client of a fresh demo account in one-way mode and returns the whole answer of the last request. The names
are those of the recorded files (demo trading, October 2026, BTCUSDT); `DOCUMENTED` are further ones, of which only the
documentation (and here and there a payload in a client's source) tells.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.shared.simulator.rest_world import ORDER, PRODUCT, WHERE, RestClient

Situation = Callable[[RestClient], Awaitable[Any]]

PENDING_PLANS = PRODUCT | {"planType": "profit_loss"}


async def hedged(c: RestClient) -> None:
    await c.post("account/set-position-mode", **PRODUCT, posMode="hedge_mode")


async def open_side(c: RestClient, side: str, **more: str) -> Any:
    """Open a long (buy) or a short (sell) in hedge mode."""
    return await c.tell("order/place-order", **ORDER | more, side=side, tradeSide="open")


async def close_side(c: RestClient, side: str, **more: str) -> Any:
    """Close a long (buy) or a short (sell) in hedge mode."""
    return await c.tell("order/place-order", **ORDER | more, side=side, tradeSide="close")


async def one_way_trip(c: RestClient) -> Any:
    """Open and close a long; return the ack of the close."""
    await c.post("order/place-order", **ORDER, side="buy")
    return await c.post("order/place-order", **ORDER, side="sell", reduceOnly="YES")


async def protect(c: RestClient, plan_type: str, times: float, hold_side: str, **more: str) -> Any:
    price = await c.price(times)
    return await c.tell(
        "order/place-tpsl-order", **WHERE, planType=plan_type, triggerPrice=price, triggerType="mark_price",
        holdSide=hold_side, **more,
    )  # fmt: skip


async def both_sides_protected(c: RestClient) -> None:
    """A long and a short in hedge mode, each with stop and target."""
    await hedged(c)
    await open_side(c, "buy")
    await open_side(c, "sell")
    legs = (("pos_loss", 0.9), ("pos_profit", 1.1), ("pos_loss", 1.1), ("pos_profit", 0.9))
    for k, (plan_type, times) in enumerate(legs):
        side = "long" if k < 2 else "short"
        assert (await protect(c, plan_type, times, side, clientOid=f"probe{k}"))["code"] == "00000"


async def account_detail_one_way(c: RestClient) -> Any:
    return await c.ask("account/account", **WHERE)


async def account_detail_hedge(c: RestClient) -> Any:
    await hedged(c)
    return await c.ask("account/account", **WHERE)


async def err_40404_fill_history_in_demo(c: RestClient) -> Any:
    return await c.ask("order/fill-history", **PRODUCT)


async def err_40774_no_tradeside(c: RestClient) -> Any:
    await hedged(c)
    return await c.tell("order/place-order", **ORDER, side="buy")


async def err_40774_oneway_with_tradeside(c: RestClient) -> Any:
    return await open_side(c, "buy")


async def err_40917_tpsl_wrong_side(c: RestClient) -> Any:
    await hedged(c)
    await open_side(c, "buy")
    return await protect(c, "pos_loss", 1.1, "long")


async def err_40920_switch_with_positions(c: RestClient) -> Any:
    await hedged(c)
    await open_side(c, "buy")
    return await c.tell("account/set-position-mode", **PRODUCT, posMode="one_way_mode")


async def err_43011_oneway_tpsl_holdside_long(c: RestClient) -> Any:
    await c.post("order/place-order", **ORDER, side="buy")
    return await protect(c, "pos_loss", 0.9, "long")


async def err_43011_tpsl_holdside_buy_in_hedge(c: RestClient) -> Any:
    await hedged(c)
    await open_side(c, "buy")
    return await protect(c, "pos_loss", 0.9, "buy")


async def hedge_cancel_plan_poslosstype(c: RestClient) -> Any:
    await hedged(c)
    await open_side(c, "buy")
    plan = await protect(c, "pos_loss", 0.9, "long", clientOid="probe1")
    ids = [{"orderId": plan["data"]["orderId"]}]
    return await c.tell("order/cancel-plan-order", **WHERE, planType="pos_loss", orderIdList=ids)


async def hedge_cancel_plan_profit_loss_noop(c: RestClient) -> Any:
    await hedged(c)
    await open_side(c, "buy")
    await protect(c, "pos_loss", 0.9, "long")
    return await c.tell("order/cancel-plan-order", **WHERE, planType="profit_loss")


async def hedge_history_position(c: RestClient) -> Any:
    await one_way_trip(c)
    await hedged(c)
    for side in ("buy", "sell"):
        await open_side(c, side)
        await close_side(c, side)
    return await c.ask("position/history-position", **PRODUCT)


async def hedge_isolated_leverage_long(c: RestClient) -> Any:
    await hedged(c)
    await c.post("account/set-margin-mode", **WHERE, marginMode="isolated")
    return await c.tell("account/set-leverage", **WHERE, leverage="6")


async def hedge_orders_pending_with_close(c: RestClient) -> Any:
    await hedged(c)
    await open_side(c, "buy")
    await close_side(c, "buy", orderType="limit", price=await c.price(2.0), clientOid="probe1")
    return await c.ask("order/orders-pending", **WHERE)


async def hedge_place_open_long(c: RestClient) -> Any:
    await hedged(c)
    return await open_side(c, "buy", clientOid="probe1")


async def hedge_plan_pending(c: RestClient) -> Any:
    await both_sides_protected(c)
    return await c.ask("order/orders-plan-pending", **PENDING_PLANS)


async def hedge_plan_pending_after_close_long(c: RestClient) -> Any:
    await both_sides_protected(c)
    await close_side(c, "buy")
    return await c.ask("order/orders-plan-pending", **PENDING_PLANS)


async def hedge_plan_pending_after_upsert(c: RestClient) -> Any:
    await both_sides_protected(c)
    await protect(c, "pos_loss", 0.92, "long", clientOid="probe9")
    return await c.ask("order/orders-plan-pending", **PENDING_PLANS)


async def hedge_positions(c: RestClient) -> Any:
    await hedged(c)
    await open_side(c, "buy")
    await open_side(c, "sell")
    return await c.ask("position/all-position", **PRODUCT)


async def hedge_set_leverage(c: RestClient) -> Any:
    await hedged(c)
    return await c.tell("account/set-leverage", **WHERE, leverage="3")


async def hedge_set_position_mode(c: RestClient) -> Any:
    return await c.tell("account/set-position-mode", **PRODUCT, posMode="hedge_mode")


async def hedge_tpsl_sl_long(c: RestClient) -> Any:
    await hedged(c)
    await open_side(c, "buy")
    return await protect(c, "pos_loss", 0.9, "long", clientOid="probe1")


async def oneway_fills(c: RestClient) -> Any:
    await hedged(c)
    for side in ("sell", "buy"):
        await open_side(c, side)
        await close_side(c, side)
    await c.post("account/set-position-mode", **PRODUCT, posMode="one_way_mode")
    await one_way_trip(c)
    # The recording's page begins with the one-way trades and ends with a close of hedge mode.
    return await c.ask("order/fills", **PRODUCT, limit="3")


async def oneway_order_detail_close(c: RestClient) -> Any:
    ack = await one_way_trip(c)
    return await c.ask("order/detail", **WHERE, orderId=ack["orderId"])


async def oneway_place_open_long(c: RestClient) -> Any:
    return await c.tell("order/place-order", **ORDER, side="buy")


async def oneway_plan_pending_long(c: RestClient) -> Any:
    await c.post("order/place-order", **ORDER, side="buy")
    await protect(c, "pos_loss", 0.9, "buy")
    await protect(c, "pos_profit", 1.1, "buy")
    return await c.ask("order/orders-plan-pending", **PENDING_PLANS)


async def oneway_plan_pending_short(c: RestClient) -> Any:
    await c.post("order/place-order", **ORDER, side="sell")
    await protect(c, "pos_loss", 1.1, "sell")
    return await c.ask("order/orders-plan-pending", **PENDING_PLANS)


async def oneway_positions(c: RestClient) -> Any:
    await c.post("order/place-order", **ORDER, side="buy")
    await protect(c, "pos_loss", 0.9, "buy")
    await protect(c, "pos_profit", 1.1, "buy")
    return await c.ask("position/all-position", **PRODUCT)


async def orders_pending_empty(c: RestClient) -> Any:
    return await c.ask("order/orders-pending", **WHERE)


async def plan_pending_empty_after_close(c: RestClient) -> Any:
    await c.post("order/place-order", **ORDER, side="buy")
    await protect(c, "pos_loss", 0.9, "buy")
    await c.post("order/place-order", **ORDER, side="sell", reduceOnly="YES")
    return await c.ask("order/orders-plan-pending", **PENDING_PLANS)


# ---------------------------------------------------------------------------------------------- documented


async def resting(c: RestClient, **more: str) -> Any:
    """Leave a buy in the book and return its ack."""
    order = ORDER | {"orderType": "limit", "price": await c.price(0.97), "side": "buy"} | more
    return await c.post("order/place-order", **order)


async def isolated_short(c: RestClient) -> None:
    """A short of its own margin in hedge mode."""
    await hedged(c)
    await c.post("account/set-margin-mode", **WHERE, marginMode="isolated")
    await open_side(c, "sell", marginMode="isolated")


async def accounts(c: RestClient) -> Any:
    return await c.ask("account/accounts", **PRODUCT)


async def account_with_isolated_position(c: RestClient) -> Any:
    await isolated_short(c)
    return await c.ask("account/account", **WHERE)


async def bill_of_hedged_trades(c: RestClient) -> Any:
    await hedged(c)
    await open_side(c, "buy")
    await close_side(c, "buy")
    return await c.ask("account/bill", **PRODUCT)


async def bill_empty(c: RestClient) -> Any:
    return await c.ask("account/bill", **PRODUCT)


async def set_margin_mode(c: RestClient) -> Any:
    return await c.tell("account/set-margin-mode", **WHERE, marginMode="isolated")


async def set_all_leverage(c: RestClient) -> Any:
    return await c.tell("account/set-all-leverage", **PRODUCT, leverage="3")


async def set_asset_mode(c: RestClient) -> Any:
    return await c.tell("account/set-asset-mode", **PRODUCT, assetMode="single")


async def set_margin(c: RestClient) -> Any:
    await isolated_short(c)
    return await c.tell("account/set-margin", **WHERE, holdSide="short", amount="1")


async def open_count(c: RestClient) -> Any:
    return await c.ask("account/open-count", **WHERE, openAmount="100", openPrice="80000")


async def max_open(c: RestClient) -> Any:
    return await c.ask("account/max-open", **WHERE, posSide="long", orderType="market")


async def liq_price(c: RestClient) -> Any:
    return await c.ask("account/liq-price", **WHERE, posSide="long", orderType="market", openAmount="100")


async def trade_rate(c: RestClient) -> Any:
    return await c.ask("/api/v2/common/trade-rate", symbol="BTCUSDT", businessType="mix")


async def batch_place_order(c: RestClient) -> Any:
    good = {"side": "buy", "orderType": "market", "size": "0.01", "clientOid": "probe1"}
    small = good | {"orderType": "limit", "price": await c.price(0.5), "size": "0.0001", "clientOid": "probe2"}
    return await c.tell("order/batch-place-order", **WHERE, marginMode="crossed", orderList=[good, small])


async def modify_order_price(c: RestClient) -> Any:
    ack = await resting(c)
    change = {"newSize": "0.02", "newPrice": await c.price(0.96), "newClientOid": "probe2"}
    return await c.tell("order/modify-order", **WHERE, orderId=ack["orderId"], **change)


async def modify_order_presets(c: RestClient) -> Any:
    ack = await resting(c, clientOid="probe1")
    change = {"newPresetStopLossPrice": await c.price(0.9), "newClientOid": "probe2"}
    return await c.tell("order/modify-order", **WHERE, orderId=ack["orderId"], **change)


async def cancel_order(c: RestClient) -> Any:
    ack = await resting(c, clientOid="probe1")
    return await c.tell("order/cancel-order", **WHERE, orderId=ack["orderId"])


async def cancel_order_unknown(c: RestClient) -> Any:
    return await c.tell("order/cancel-order", **WHERE, orderId="5")


async def batch_cancel_orders(c: RestClient) -> Any:
    ack = await resting(c, clientOid="probe1")
    ids = [{"orderId": ack["orderId"]}, {"clientOid": "probe9"}]
    return await c.tell("order/batch-cancel-orders", **WHERE, orderIdList=ids)


async def cancel_all_orders(c: RestClient) -> Any:
    await resting(c, clientOid="probe1")
    return await c.tell("order/cancel-all-orders", **PRODUCT, marginCoin="USDT")


async def close_positions(c: RestClient) -> Any:
    await c.post("order/place-order", **ORDER, side="buy")
    return await c.tell("order/close-positions", **PRODUCT, symbol="BTCUSDT")


async def click_backhand(c: RestClient) -> Any:
    await c.post("order/place-order", **ORDER, side="buy")
    return await c.tell("order/click-backhand", **WHERE, side="buy", clientOid="probe1")


async def orders_history_canceled(c: RestClient) -> Any:
    prices = {"presetStopLossPrice": await c.price(0.9), "presetStopSurplusPrice": await c.price(1.1)}
    ack = await resting(c, force="post_only", clientOid="probe1", **prices)
    await c.post("order/cancel-order", **WHERE, orderId=ack["orderId"])
    return await c.ask("order/orders-history", **PRODUCT)


async def detail_canceled(c: RestClient) -> Any:
    ack = await resting(c, clientOid="probe1")
    await c.post("order/cancel-order", **WHERE, orderId=ack["orderId"])
    return await c.ask("order/detail", **WHERE, clientOid="probe1")


async def single_position_isolated(c: RestClient) -> Any:
    await isolated_short(c)
    return await c.ask("position/single-position", **WHERE)


async def positions_empty(c: RestClient) -> Any:
    return await c.ask("position/all-position", **PRODUCT)


async def history_position_empty(c: RestClient) -> Any:
    return await c.ask("position/history-position", **PRODUCT)


async def adl_rank(c: RestClient) -> Any:
    await c.post("order/place-order", **ORDER, side="buy")
    return await c.ask("position/adlRank", **PRODUCT)


async def settings_of_a_classic_account(c: RestClient) -> Any:
    return await c.ask("/api/v3/account/settings")


DOCUMENTED: dict[str, Situation] = {
    situation.__name__: situation
    for situation in (
        accounts, account_with_isolated_position, bill_of_hedged_trades, bill_empty, set_margin_mode, set_all_leverage,
        set_asset_mode, set_margin, open_count, max_open, liq_price, trade_rate, batch_place_order, modify_order_price,
        modify_order_presets, cancel_order, cancel_order_unknown, batch_cancel_orders, cancel_all_orders,
        close_positions, click_backhand, orders_history_canceled, detail_canceled, single_position_isolated,
        positions_empty, history_position_empty, adl_rank, settings_of_a_classic_account,
    )
}  # fmt: skip

RECORDED: dict[str, Situation] = {
    situation.__name__: situation
    for situation in (
        account_detail_hedge, account_detail_one_way, err_40404_fill_history_in_demo, err_40774_no_tradeside,
        err_40774_oneway_with_tradeside, err_40917_tpsl_wrong_side, err_40920_switch_with_positions,
        err_43011_oneway_tpsl_holdside_long, err_43011_tpsl_holdside_buy_in_hedge, hedge_cancel_plan_poslosstype,
        hedge_cancel_plan_profit_loss_noop, hedge_history_position, hedge_isolated_leverage_long,
        hedge_orders_pending_with_close, hedge_place_open_long, hedge_plan_pending,
        hedge_plan_pending_after_close_long, hedge_plan_pending_after_upsert, hedge_positions, hedge_set_leverage,
        hedge_set_position_mode, hedge_tpsl_sl_long, oneway_fills, oneway_order_detail_close, oneway_place_open_long,
        oneway_plan_pending_long, oneway_plan_pending_short, oneway_positions, orders_pending_empty,
        plan_pending_empty_after_close,
    )
}  # fmt: skip
