"""The venue's objects in Bitget's words: rows of private REST answers and private pushes.

Key order, types and quirks as recorded in October 2026 (Bitget v2, demo trading) and March 2025 (live `orders` push):
`detail` says `state` where the lists say `status`; `reduceOnly` is upper case in REST and lower case on the socket;
`tradeScope` is taker/maker in `fill` and T/M in `orders`; leverage is a string in rows, an integer in the account and
in pushed positions; empty strings stand for what is missing.

Sides in hedge mode are the *position's* in every order and in REST fills (closing a long is `side: buy`,
`tradeSide: close`); the `fill` channel alone says the economic side (documented; the recordings hold no such push).
"""

from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from typing import Any

from shared.simulator.clock import MS
from shared.simulator.venue.margin import (
    SHOWN_STEP,
    break_even,
    liquidation_shown,
    margin_shown,
    net_profit,
    quote_volume,
    ratio_shown,
)
from shared.simulator.venue.orders import (
    ZERO,
    Bill,
    ClosedPosition,
    Fill,
    Order,
    Plan,
    PlanType,
    PositionSide,
    VenuePosition,
)
from shared.simulator.venue.venue import Venue
from shared.types import OrderKind, OrderStatus, Side

_FORCE = {OrderKind.POST_ONLY: "post_only", OrderKind.IOC: "ioc", OrderKind.FOK: "fok"}
Row = dict[str, Any]

_FORCED = {"liquidation": "burst", "reduction": "reduce", "offset": "offset", "delivery": "delivery"}
"""Who else sends orders, and how `tradeSide` begins then (Bitget v2, Get Order Detail)."""


def plain(value: Decimal | None) -> str:
    """Return a decimal without exponent or trailing zeros; "" for None."""
    if value is None:
        return ""
    if not value:
        return "0"
    text = f"{value:f}"  # exactly: normalize() would round to 28 digits
    return text.rstrip("0").rstrip(".") if "." in text else text


def shown(value: Decimal) -> str:
    """Return an average price as Bitget shows it: 16 decimals at most."""
    return plain(value.quantize(SHOWN_STEP, rounding=ROUND_HALF_EVEN))


def _ms(time_ns: int) -> str:
    return str(time_ns // MS)


def _side(side: Side, position_side: PositionSide) -> str:
    """Return the side as Bitget stores it: in hedge mode that of the position."""
    return side.value if position_side == "net" else "buy" if position_side == "long" else "sell"


def _trade_side(side: Side, position_side: PositionSide, source: str) -> str:
    forced = _FORCED.get(source)
    if position_side == "net":
        if source == "adl":
            return f"dte_sys_adl_{side.value}_in_single_side_mode"
        return (forced + "_" if forced else "") + f"{side.value}_single"
    if source == "adl":
        return f"dte_sys_adl_close_{position_side}"
    if forced:
        return f"{forced}_close_{position_side}"
    return "open" if (side is Side.BUY) == (position_side == "long") else "close"


def _position_mode(position_side: PositionSide) -> str:
    return "one_way_mode" if position_side == "net" else "hedge_mode"


def _entered(source: str) -> str:
    # Plans are our own orders, sent by the venue; SYS is what nobody of the account has asked for.
    return "SYS" if source in _FORCED or source == "adl" else "API"


def _order_type(kind: OrderKind) -> str:
    return "market" if kind is OrderKind.MARKET else "limit"


def _average(order: Order) -> str:
    average = order.price_average
    return "" if average is None else shown(average)


def _signed_fee(order_or_fill: Order | Fill) -> str:
    return plain(-order_or_fill.fee_usdt)


def _quote(value: Decimal) -> str:
    return plain(quote_volume(value))


# --------------------------------------------------------------------------------------------------- REST


def order_row(order: Order) -> Row:
    """Return a row of `orders-pending`."""
    return {
        "symbol": order.symbol, "size": plain(order.size), "orderId": order.order_id, "clientOid": order.client_oid,
        "baseVolume": plain(order.filled), "fee": _signed_fee(order), "price": plain(order.price),
        "priceAvg": _average(order), "status": order.status.value, "side": _side(order.side, order.position_side),
        "force": _FORCE.get(order.kind, "gtc"), "totalProfits": plain(order.realised_usdt),
        "posSide": order.position_side, "marginCoin": "USDT", "quoteVolume": _quote(order.quote),
        "leverage": str(order.leverage), "marginMode": order.margin_mode,
        "enterPointSource": _entered(order.source).lower(),
        "tradeSide": _trade_side(order.side, order.position_side, order.source),
        "posMode": _position_mode(order.position_side), "orderType": _order_type(order.kind),
        "orderSource": _order_source(order), "presetStopSurplusPrice": plain(order.take_profit),
        "presetStopSurplusExecutePrice": plain(order.take_profit_execute),
        "presetStopSurplusTriggerType": order.take_profit_type if order.take_profit is not None else "",
        "presetStopLossPrice": plain(order.stop_loss), "presetStopLossExecutePrice": plain(order.stop_loss_execute),
        "presetStopLossTriggerType": order.stop_loss_type if order.stop_loss is not None else "",
        "reduceOnly": "YES" if order.reduce_only else "NO",
        "cTime": _ms(order.created_ns), "uTime": _ms(order.updated_ns),
    }  # fmt: skip


def history_row(order: Order) -> Row:
    """Return a row of `orders-history`: two documented fields more, never seen with a value."""
    return order_row(order) | {"posAvg": "", "liqPrice": ""}


def detail_row(order: Order) -> Row:
    """Return the answer of `order/detail`, which says `state`."""
    return {
        "symbol": order.symbol, "size": plain(order.size), "orderId": order.order_id, "clientOid": order.client_oid,
        "baseVolume": plain(order.filled), "fee": _signed_fee(order), "price": plain(order.price),
        "priceAvg": _average(order), "state": order.status.value, "side": _side(order.side, order.position_side),
        "force": _FORCE.get(order.kind, "gtc"), "totalProfits": plain(order.realised_usdt),
        "posSide": order.position_side, "marginCoin": "USDT", "presetStopSurplusPrice": plain(order.take_profit),
        "presetStopSurplusType": order.take_profit_type if order.take_profit is not None else "",
        "presetStopSurplusExecutePrice": plain(order.take_profit_execute),
        "presetStopLossPrice": plain(order.stop_loss), "presetStopLossExecutePrice": plain(order.stop_loss_execute),
        "presetStopLossType": order.stop_loss_type if order.stop_loss is not None else "",
        "quoteVolume": _quote(order.quote), "orderType": _order_type(order.kind), "leverage": str(order.leverage),
        "marginMode": order.margin_mode, "reduceOnly": "YES" if order.reduce_only else "NO",
        "enterPointSource": _entered(order.source),
        "tradeSide": _trade_side(order.side, order.position_side, order.source),
        "posMode": _position_mode(order.position_side), "orderSource": _order_source(order), "newTradeSide": None,
        "cancelReason": order.cancel_reason if order.status is OrderStatus.CANCELED else "",
        "cTime": _ms(order.created_ns), "uTime": _ms(order.updated_ns),
    }  # fmt: skip


_ORDER_SOURCES = {
    "stop_loss": "pos_loss", "take_profit": "pos_profit", "plan": "plan", "trailing": "tracking",
}  # fmt: skip


def _order_source(order: Order) -> str:
    is_market = order.kind is OrderKind.MARKET
    begin = _ORDER_SOURCES.get(order.source)
    if begin is not None:
        return f"{begin}_{'market' if is_market else 'limit'}"
    if order.source in ("liquidation", "reduction"):
        return "liquidation"
    if order.source == "offset":
        return "reduce_offset"
    return "market" if is_market else "normal"


def fill_row(fill: Fill) -> Row:
    """Return a row of `order/fills`."""
    return {
        "tradeId": fill.trade_id, "symbol": fill.symbol, "orderId": fill.order_id, "price": plain(fill.price),
        "baseVolume": plain(fill.size), "feeDetail": [_fee_detail(fill)],
        "side": _side(fill.side, fill.position_side), "quoteVolume": _quote(fill.price * fill.size),
        "profit": plain(fill.realised_usdt), "enterPointSource": _entered(fill.source).lower(),
        "tradeSide": _trade_side(fill.side, fill.position_side, fill.source),
        "posMode": _position_mode(fill.position_side), "tradeScope": "maker" if fill.is_maker else "taker",
        "cTime": _ms(fill.time_ns),
    }  # fmt: skip


def _fee_detail(fill: Fill) -> Row:
    return {"deduction": "no", "feeCoin": "USDT", "totalDeductionFee": None, "totalFee": _signed_fee(fill)}


def bill_row(bill: Bill) -> Row:
    """Return a row of `account/bill`; the fee is signed as in fills, and not in the amount."""
    return {
        "billId": bill.bill_id, "symbol": bill.symbol, "amount": plain(bill.amount_usdt), "fee": plain(-bill.fee_usdt),
        "feeByCoupon": "", "businessType": bill.kind, "coin": "USDT", "balance": plain(bill.balance_usdt),
        "cTime": _ms(bill.time_ns),
    }  # fmt: skip


def position_row(venue: Venue, account: str, position: VenuePosition) -> Row:
    """Return a row of `all-position`. Its arithmetic stands in `margin` and `accounts`."""
    symbol, mark, size = position.symbol, venue.mark(position.symbol), abs(position.size)
    leverage, entry = venue.leverage(account, symbol, position.hold_side, position.margin_mode), position.entry_price
    is_crossed = position.margin_mode == "crossed"
    opening, closing = _pending_of(venue, account, position)
    stop, target = venue.plans.protection(account, symbol, position.position_side)
    return {
        "marginCoin": "USDT", "symbol": symbol, "holdSide": position.hold_side, "openDelegateSize": plain(opening),
        "marginSize": plain(margin_shown(mark, size, leverage) if is_crossed else position.margin_usdt),
        "available": plain(max(ZERO, size - closing)), "locked": plain(min(size, closing)), "total": plain(size),
        "leverage": str(leverage), "achievedProfits": plain(position.realised_usdt),
        "openPriceAvg": shown(entry), "marginMode": position.margin_mode,
        "posMode": _position_mode(position.position_side), "unrealizedPL": plain(position.size * mark - position.cost),
        "liquidationPrice": plain(liquidation_shown(venue.liquidation_price(account, position) or ZERO)),
        "keepMarginRate": plain(venue.maintenance_rate(account, position)), "markPrice": plain(mark),
        "marginRatio": plain(ratio_shown(venue.margin_ratio(account, position))),
        "breakEvenPrice": plain(break_even(entry, position.size > 0, venue.contracts[symbol].taker_fee)),
        "totalFee": plain(position.funding_usdt) if position.is_funded else "",
        "deductedFee": plain(position.fees_usdt), "grant": "", "assetMode": "single", "autoMargin": "off",
        "takeProfit": plain(position.take_profit), "stopLoss": plain(position.stop_loss),
        "takeProfitId": target.order_id if target is not None else "",
        "stopLossId": stop.order_id if stop is not None else "", "cashDividend": "",
        "cTime": _ms(position.opened_ns), "uTime": _ms(position.updated_ns),
    }  # fmt: skip


def _pending_of(venue: Venue, account: str, position: VenuePosition) -> tuple[Decimal, Decimal]:
    """Return what pending orders would open in the direction of a position, and what they would close of it."""
    opening = closing = ZERO
    for order in venue.pending(account):
        if order.symbol == position.symbol and order.position_side == position.position_side:
            if order.reduce_only:
                closing += order.remaining
            elif order.side.sign * position.size > 0:
                opening += order.remaining
    return opening, closing


def closed_row(position: ClosedPosition) -> Row:
    """Return a row of `history-position`; times are lower case here (recorded)."""
    return {
        "positionId": position.position_id, "symbol": position.symbol, "marginCoin": "USDT",
        "holdSide": position.hold_side, "openAvgPrice": shown(position.open_average),
        "closeAvgPrice": shown(position.close_average), "marginMode": position.margin_mode,
        "openTotalPos": plain(position.opened_size), "closeTotalPos": plain(position.closed_size),
        "pnl": plain(position.realised_usdt), "netProfit": plain(net_profit(position)),
        "totalFunding": plain(position.funding_usdt), "openFee": _cut8(-position.open_fee_usdt),
        "closeFee": _cut8(-position.close_fee_usdt), "posMode": _closed_mode(position), "cashDividend": "0.00000000",
        "utime": _ms(position.time_ns), "ctime": _ms(position.opened_ns),
    }  # fmt: skip


def _closed_mode(position: ClosedPosition) -> str:
    return "hedge_mode" if position.is_hedged else "one_way_mode"


def account_row(venue: Venue, account: str, symbol: str | None) -> Row:
    """Return `account/account` (with a symbol) or a row of `account/accounts` (without)."""
    equity, available = venue.equity(account), max(ZERO, venue.available(account))
    positions, free = venue.positions(account), _cut8(available)
    by_mode: dict[str, Decimal] = {}
    for position in positions:
        profit = position.size * venue.mark(position.symbol) - position.cost
        by_mode[position.margin_mode] = by_mode.get(position.margin_mode, ZERO) + profit
    pending_margin = venue.order_margin(account)
    isolated = venue.isolated_margin(account)
    crossed = venue.margin_used(account) - isolated - pending_margin
    head = {
        "marginCoin": "USDT", "locked": _cut8(pending_margin), "available": free, "crossedMaxAvailable": free,
        "isolatedMaxAvailable": free, "maxTransferOut": free, "accountEquity": _cut8(equity),
        "usdtEquity": plain(equity), "btcEquity": "0", "crossedRiskRate": _risk(venue, account),
    }  # fmt: skip
    tail = {
        "unrealizedPL": plain(venue.unrealised(account)), "coupon": "0",
        "crossedUnrealizedPL": plain(by_mode.get("crossed", ZERO)),
        "isolatedUnrealizedPL": plain(by_mode.get("isolated")), "grant": "", "assetMode": "single",
        "isolatedMargin": _cut8(isolated) if "isolated" in by_mode else None,
        "crossedMargin": _cut8(crossed) if "crossed" in by_mode else None,
    }  # fmt: skip
    if symbol is None:
        return head | tail | {
            "unionTotalMargin": plain(venue.margin_used(account)), "unionAvailable": free,
            "unionMm": plain(venue.maintenance(account)),
            "assetList": [{"coin": "USDT", "balance": plain(venue.balance(account)), "available": free}],
        }  # fmt: skip
    middle = {
        "crossedMarginLeverage": venue.leverage(account, symbol, mode="crossed"),
        "isolatedLongLever": venue.leverage(account, symbol, "long", "isolated"),
        "isolatedShortLever": venue.leverage(account, symbol, "short", "isolated"),
        "marginMode": venue.margin_mode(account, symbol), "posMode": venue.position_mode(account),
    }  # fmt: skip
    return head | middle | tail


def _risk(venue: Venue, account: str) -> str:
    """Return maintenance margin / equity of what is crossed: liquidation at 1."""
    behind = venue.cross_equity(account)
    risk = venue.maintenance(account) / behind if behind > 0 else Decimal(1)
    return plain(risk.quantize(Decimal("1e-4")))


def _cut8(value: Decimal) -> str:
    return plain(value.quantize(Decimal("1e-8"), rounding=ROUND_DOWN))


def plan_row(venue: Venue, plan: Plan) -> Row:
    """Return a row of `orders-plan-pending`; what a plan has not is "" or, among the legs, null (recorded)."""
    request = plan.request
    stop, target = _legs(plan)
    is_hedged = request.position_side != "net"
    mode = "" if is_hedged else venue.margin_mode(plan.account, request.symbol)  # TP/SL do not say one (recorded)
    return {
        "planType": request.plan_type, "symbol": request.symbol, "size": plain(request.size),
        "orderId": plan.order_id, "clientOid": plan.client_oid, "price": plain(request.execute_price),
        "executePrice": plain(request.execute_price), "callbackRatio": plain(request.callback_ratio),
        "triggerPrice": plain(request.trigger_price), "triggerType": request.trigger_type, "planStatus": plan.status,
        "side": _side(request.side, request.position_side), "posSide": request.position_side, "marginCoin": "USDT",
        "marginMode": request.margin_mode or mode, "enterPointSource": "API",
        "tradeSide": _trade_side(request.side, request.position_side, "plan"),
        "posMode": _position_mode(request.position_side),
        "orderType": "market" if request.execute_price is None else "limit",
        "stopSurplusTriggerPrice": target[0], "stopSurplusExecutePrice": target[1],
        "stopSurplusTriggerType": target[2], "stopLossTriggerPrice": stop[0], "stopLossExecutePrice": stop[1],
        "stopLossTriggerType": stop[2], "cTime": _ms(plan.created_ns), "uTime": _ms(plan.updated_ns),
    }  # fmt: skip


def plan_history_row(venue: Venue, plan: Plan) -> Row:
    """Return a row of `orders-plan-history`: a pending one, and what its order came to (documented)."""
    order = venue.order(plan.account, order_id=plan.execute_order_id) if plan.execute_order_id else None
    return plan_row(venue, plan) | {
        "executeOrderId": plan.execute_order_id, "priceAvg": "" if order is None else _average(order),
        "baseVolume": "0" if order is None else plain(order.filled),
    }  # fmt: skip


def plan_sub_row(plan: Plan) -> Row:
    """Return a row of `plan-sub-order`: the order that a triggered plan has sent, or could not."""
    price = plan.request.execute_price
    return {
        "orderId": plan.execute_order_id, "price": plain(price), "type": "market" if price is None else "limit",
        "status": "fail" if plan.status == "fail_execute" else "success",
    }  # fmt: skip


_Leg = tuple[str | None, str | None, str | None]


def _legs(plan: Plan) -> tuple[_Leg, _Leg]:
    """Return (stop, target) as (trigger price, execute price, trigger type): of the plan itself or riding on it."""
    request, nothing = plan.request, (None, None, None)

    def leg(trigger: Decimal | None, execute: Decimal | None, kind: str) -> _Leg:
        return nothing if trigger is None else (plain(trigger), None if execute is None else plain(execute), kind)

    own = leg(request.trigger_price, request.execute_price, request.trigger_type)
    match request.plan_type:
        case "loss_plan" | "pos_loss":
            return own, nothing
        case "profit_plan" | "pos_profit":
            return nothing, own
        case "moving_plan":
            return nothing, nothing
    stop = leg(request.stop_loss, request.stop_loss_execute, request.stop_loss_type)
    return stop, leg(request.take_profit, request.take_profit_execute, request.take_profit_type)


# ------------------------------------------------------------------------------------------------- pushes


def order_push(order: Order, fill: Fill | None) -> Row:
    """Return a row of the `orders` channel; a fill adds what was traded."""
    price = order.price if order.price is not None else Decimal(0)
    reference = price or (fill.price if fill is not None else Decimal(0))
    row: Row = {
        "accBaseVolume": plain(order.filled), "cTime": _ms(order.created_ns),
        "cancelReason": order.cancel_reason if order.status is OrderStatus.CANCELED else "",
        "clientOid": order.client_oid, "enterPointSource": _entered(order.source),
        "feeDetail": [{"feeCoin": "USDT", "fee": f"{-order.fee_usdt if order.fee_usdt else 0:.8f}"}],
        "force": _FORCE.get(order.kind, "gtc"), "instId": order.symbol, "leverage": str(order.leverage),
        "marginCoin": "USDT", "marginMode": order.margin_mode, "notionalUsd": plain(order.size * reference),
        "orderId": order.order_id, "orderType": _order_type(order.kind),
        "posMode": _position_mode(order.position_side), "posSide": order.position_side,
        "presetStopLossExecutePrice": plain(order.stop_loss_execute), "presetStopLossPrice": plain(order.stop_loss),
        "presetStopLossType": order.stop_loss_type if order.stop_loss is not None else "",
        "presetStopSurplusExecutePrice": plain(order.take_profit_execute),
        "presetStopSurplusPrice": plain(order.take_profit),
        "presetStopSurplusType": order.take_profit_type if order.take_profit is not None else "",
        "price": plain(price), "reduceOnly": "yes" if order.reduce_only else "no",
        "side": _side(order.side, order.position_side), "size": plain(order.size), "status": order.status.value,
        "stpMode": order.stp, "totalProfits": plain(order.realised_usdt),
        "tradeSide": _trade_side(order.side, order.position_side, order.source),
        "uTime": _ms(order.updated_ns),
    }  # fmt: skip
    if fill is not None:
        row |= {
            "fillPrice": plain(fill.price), "tradeId": fill.trade_id, "baseVolume": plain(fill.size),
            "fillTime": _ms(fill.time_ns), "fillFee": _signed_fee(fill), "fillFeeCoin": "USDT",
            "tradeScope": "M" if fill.is_maker else "T", "fillNotionalUsd": plain(fill.price * fill.size),
            "priceAvg": _average(order), "pnl": plain(fill.realised_usdt),
        }  # fmt: skip
    return row


def fill_push(fill: Fill) -> Row:
    """Return a row of the `fill` channel, where a hedged close has its economic side."""
    return {
        "orderId": fill.order_id, "clientOid": fill.client_oid, "tradeId": fill.trade_id, "symbol": fill.symbol,
        "side": fill.side.value, "orderType": _order_type(fill.kind), "posMode": _position_mode(fill.position_side),
        "price": plain(fill.price), "baseVolume": plain(fill.size), "quoteVolume": _quote(fill.price * fill.size),
        "profit": plain(fill.realised_usdt), "tradeSide": _trade_side(fill.side, fill.position_side, fill.source),
        "tradeScope": "maker" if fill.is_maker else "taker", "feeDetail": [_fee_detail(fill)],
        "cTime": _ms(fill.time_ns), "uTime": _ms(fill.time_ns),
    }  # fmt: skip


def closed_push(position: ClosedPosition) -> Row:
    """Return a row of the `positions-history` channel (documented: other names than REST's)."""
    return {
        "posId": position.position_id, "instId": position.symbol, "marginCoin": "USDT",
        "marginMode": position.margin_mode, "holdSide": position.hold_side, "posMode": _closed_mode(position),
        "openPriceAvg": shown(position.open_average), "closePriceAvg": shown(position.close_average),
        "openSize": plain(position.opened_size), "closeSize": plain(position.closed_size),
        "achievedProfits": plain(position.realised_usdt), "settleFee": plain(position.funding_usdt),
        "openFee": _cut8(-position.open_fee_usdt), "closeFee": _cut8(-position.close_fee_usdt),
        "cTime": _ms(position.opened_ns), "uTime": _ms(position.time_ns),
    }  # fmt: skip


_PLAN_TYPES: dict[PlanType, str] = {
    "normal_plan": "pl", "track_plan": "track", "moving_plan": "mtpsl",
    "profit_plan": "tp", "loss_plan": "sl", "pos_profit": "ptp", "pos_loss": "psl",
}  # fmt: skip


def plan_push(venue: Venue, plan: Plan) -> Row:
    """Return a row of the `orders-algo` channel (documented; no recording): other names and plan types than REST."""
    row = plan_row(venue, plan)
    order = venue.order(plan.account, order_id=plan.execute_order_id) if plan.execute_order_id else None
    return {
        "instId": row["symbol"], "orderId": plan.order_id, "clientOid": plan.client_oid,
        "triggerPrice": row["triggerPrice"], "triggerType": row["triggerType"],
        "triggerTime": _ms(plan.created_ns if plan.triggered_ns is None else plan.triggered_ns),
        "planType": _PLAN_TYPES[plan.request.plan_type], "price": row["price"], "executePrice": row["executePrice"],
        "size": row["size"], "actualSize": "0" if order is None else plain(order.filled),
        "orderType": row["orderType"], "side": row["side"], "tradeSide": row["tradeSide"], "posSide": row["posSide"],
        "marginCoin": "USDT", "status": plan.status, "posMode": row["posMode"], "enterPointSource": "API",
        "stopSurplusPrice": row["stopSurplusExecutePrice"] or "",
        "stopSurplusTriggerPrice": row["stopSurplusTriggerPrice"] or "",
        "stopSurplusTriggerType": row["stopSurplusTriggerType"] or "",
        "stopLossPrice": row["stopLossExecutePrice"] or "",
        "stopLossTriggerPrice": row["stopLossTriggerPrice"] or "",
        "stopLossTriggerType": row["stopLossTriggerType"] or "", "stpMode": plan.request.stp,
        "cTime": row["cTime"], "uTime": row["uTime"],
    }  # fmt: skip


def position_push(venue: Venue, account: str, position: VenuePosition) -> Row:
    """Return a row of the `positions` channel: other names than REST, and an integer leverage."""
    row = position_row(venue, account, position)
    margin = Decimal(row["marginSize"])
    return {
        "posId": position.position_id, "instId": row["symbol"], "marginCoin": "USDT", "marginSize": row["marginSize"],
        "marginMode": row["marginMode"], "holdSide": row["holdSide"], "posMode": row["posMode"],
        "total": row["total"], "available": row["available"], "frozen": row["locked"],
        "openPriceAvg": row["openPriceAvg"], "leverage": int(row["leverage"]),
        "achievedProfits": row["achievedProfits"], "unrealizedPL": row["unrealizedPL"],
        "unrealizedPLR": plain((Decimal(row["unrealizedPL"]) / margin).quantize(SHOWN_STEP)) if margin else "0",
        "liquidationPrice": row["liquidationPrice"], "keepMarginRate": row["keepMarginRate"],
        "marginRate": row["marginRatio"], "breakEvenPrice": row["breakEvenPrice"], "totalFee": row["totalFee"],
        "deductedFee": row["deductedFee"], "markPrice": row["markPrice"], "assetMode": "single", "autoMargin": "off",
        "cTime": row["cTime"], "uTime": row["uTime"],
    }  # fmt: skip


def account_push(venue: Venue, account: str) -> Row:
    """Return the row of the `account` channel."""
    row = account_row(venue, account, None)
    return {
        "marginCoin": "USDT", "frozen": row["locked"], "available": row["available"],
        "maxOpenPosAvailable": row["available"], "maxTransferOut": row["maxTransferOut"],
        "equity": row["accountEquity"], "usdtEquity": row["usdtEquity"], "crossedRiskRate": row["crossedRiskRate"],
        "unrealizedPL": row["unrealizedPL"], "unionTotalMargin": row["unionTotalMargin"],
        "unionAvailable": row["unionAvailable"], "unionMm": row["unionMm"], "assetsMode": "single",
    }  # fmt: skip
