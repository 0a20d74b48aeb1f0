"""The venue's objects in Bitget's words: rows of private REST answers and private pushes.

Key order, types and quirks as recorded in October 2026 (Bitget v2, demo trading) and March 2025 (live `orders` push):
`detail` says `state` where the lists say `status`; `reduceOnly` is upper case in REST and lower case on the socket;
`tradeScope` is taker/maker in `fill` and T/M in `orders`; leverage is a string in rows, an integer in the account and
in pushed positions; empty strings stand for what is missing.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from typing import Any

from shared.simulator.orders import Bill, Fill, Order, VenuePosition
from shared.simulator.venue import Venue, maintenance_rate
from shared.types import OrderKind, OrderStatus, Side

MS = 1_000_000
_FORCE = {OrderKind.POST_ONLY: "post_only", OrderKind.IOC: "ioc", OrderKind.FOK: "fok"}
_STEP_16 = Decimal("1e-16")
Row = dict[str, Any]


def plain(value: Decimal | None) -> str:
    """Return a decimal without exponent or trailing zeros; "" for None."""
    if value is None:
        return ""
    return f"{value.normalize():f}" if value else "0"


def _ms(time_ns: int) -> str:
    return str(time_ns // MS)


def _trade_side(side: Side, source: str) -> str:
    return ("burst_" if source == "liquidation" else "") + f"{side.value}_single"


def _order_type(kind: OrderKind) -> str:
    return "market" if kind is OrderKind.MARKET else "limit"


def _average(order: Order) -> str:
    average = order.price_average
    return "" if average is None else plain(average.quantize(_STEP_16, rounding=ROUND_HALF_EVEN))


def _signed_fee(order_or_fill: Order | Fill) -> str:
    return plain(-order_or_fill.fee_usdt)


def _quote(value: Decimal) -> str:
    return plain(value.quantize(Decimal("1e-4"), rounding=ROUND_DOWN))


# --------------------------------------------------------------------------------------------------- REST


def order_row(order: Order) -> Row:
    """Return a row of `orders-pending` and `orders-history`."""
    return {
        "symbol": order.symbol, "size": plain(order.size), "orderId": order.order_id, "clientOid": order.client_oid,
        "baseVolume": plain(order.filled), "fee": _signed_fee(order), "price": plain(order.price),
        "priceAvg": _average(order), "status": order.status.value, "side": order.side.value,
        "force": _FORCE.get(order.kind, "gtc"), "totalProfits": plain(order.realised_usdt), "posSide": "net",
        "marginCoin": "USDT", "quoteVolume": _quote(order.quote), "leverage": str(order.leverage),
        "marginMode": "crossed", "enterPointSource": "api" if order.source == "api" else "sys",
        "tradeSide": _trade_side(order.side, order.source), "posMode": "one_way_mode",
        "orderType": _order_type(order.kind), "orderSource": _order_source(order),
        "presetStopSurplusPrice": plain(order.take_profit), "presetStopSurplusExecutePrice": "",
        "presetStopSurplusTriggerType": "mark_price" if order.take_profit is not None else "",
        "presetStopLossPrice": plain(order.stop_loss), "presetStopLossExecutePrice": "",
        "presetStopLossTriggerType": "mark_price" if order.stop_loss is not None else "",
        "reduceOnly": "YES" if order.reduce_only else "NO",
        "cTime": _ms(order.created_ns), "uTime": _ms(order.updated_ns),
    }  # fmt: skip


def detail_row(order: Order) -> Row:
    """Return the answer of `order/detail`, which says `state`."""
    return {
        "symbol": order.symbol, "size": plain(order.size), "orderId": order.order_id, "clientOid": order.client_oid,
        "baseVolume": plain(order.filled), "fee": _signed_fee(order), "price": plain(order.price),
        "priceAvg": _average(order), "state": order.status.value, "side": order.side.value,
        "force": _FORCE.get(order.kind, "gtc"), "totalProfits": plain(order.realised_usdt), "posSide": "net",
        "marginCoin": "USDT", "presetStopSurplusPrice": plain(order.take_profit),
        "presetStopSurplusType": "mark_price" if order.take_profit is not None else "",
        "presetStopSurplusExecutePrice": "", "presetStopLossPrice": plain(order.stop_loss),
        "presetStopLossExecutePrice": "", "presetStopLossType": "mark_price" if order.stop_loss is not None else "",
        "quoteVolume": _quote(order.quote), "orderType": _order_type(order.kind), "leverage": str(order.leverage),
        "marginMode": "crossed", "reduceOnly": "YES" if order.reduce_only else "NO",
        "enterPointSource": "API" if order.source == "api" else "SYS",
        "tradeSide": _trade_side(order.side, order.source), "posMode": "one_way_mode",
        "orderSource": _order_source(order), "newTradeSide": None,
        "cancelReason": order.cancel_reason if order.status is OrderStatus.CANCELED else "",
        "cTime": _ms(order.created_ns), "uTime": _ms(order.updated_ns),
    }  # fmt: skip


def _order_source(order: Order) -> str:
    if order.source == "stop_loss":
        return "pos_loss_market"
    if order.source == "take_profit":
        return "pos_profit_market"
    return "market" if order.kind is OrderKind.MARKET else "normal"


def fill_row(fill: Fill) -> Row:
    """Return a row of `order/fills`."""
    return {
        "tradeId": fill.trade_id, "symbol": fill.symbol, "orderId": fill.order_id, "price": plain(fill.price),
        "baseVolume": plain(fill.size), "feeDetail": [_fee_detail(fill)], "side": fill.side.value,
        "quoteVolume": _quote(fill.price * fill.size), "profit": plain(fill.realised_usdt), "enterPointSource": "api",
        "tradeSide": _trade_side(fill.side, "api"), "posMode": "one_way_mode",
        "tradeScope": "maker" if fill.is_maker else "taker", "cTime": _ms(fill.time_ns),
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
    """Return a row of `all-position`. Arithmetic: PROTOCOL-derived, e.g. break-even = open (1 + f) / (1 - f)."""
    symbol, mark = position.symbol, venue.mark(position.symbol)
    contract, size = venue.contracts[symbol], abs(position.size)
    leverage, rate = venue.leverage(account, symbol), maintenance_rate(contract)
    entry, taker = position.entry_price, contract.taker_fee
    is_long = position.size > 0
    equity = venue.equity(account)
    up, down = (entry, Decimal(1)) if is_long else (entry, Decimal(-1))
    ratio = mark * size * (rate + taker) / equity if equity > 0 else Decimal(1)
    # Cross, one symbol: (E - q mark) / (|q| (mmr + fee) - q), q signed.
    distance = size * (rate + taker) - position.size
    liquidation = (equity - position.size * mark) / distance if distance else Decimal(0)
    locked = sum((o.remaining for o in venue.pending(account) if o.symbol == symbol and o.reduce_only), Decimal(0))
    return {
        "marginCoin": "USDT", "symbol": symbol, "holdSide": "long" if is_long else "short",
        "openDelegateSize": "0",
        "marginSize": plain((mark * size / leverage).quantize(_STEP_16, rounding=ROUND_CEILING)),
        "available": plain(max(Decimal(0), size - locked)), "locked": plain(min(size, locked)), "total": plain(size),
        "leverage": str(leverage), "achievedProfits": plain(position.realised_usdt),
        "openPriceAvg": plain(entry.quantize(_STEP_16)), "marginMode": venue.margin_mode(account, symbol),
        "posMode": "one_way_mode", "unrealizedPL": plain(position.size * mark - position.cost),
        "liquidationPrice": plain(liquidation.quantize(_STEP_16)), "keepMarginRate": plain(rate),
        "markPrice": plain(mark), "marginRatio": plain(ratio.quantize(_STEP_16)),
        "breakEvenPrice": plain((up * (1 + taker * down) / (1 - taker * down)).quantize(_STEP_16)),
        "totalFee": plain(position.funding_usdt) if position.is_funded else "",
        "deductedFee": plain(position.fees_usdt), "grant": "", "assetMode": "single", "autoMargin": "off",
        "takeProfit": plain(position.take_profit), "stopLoss": plain(position.stop_loss),
        "takeProfitId": _plan_id(position, 1) if position.take_profit is not None else "",
        "stopLossId": _plan_id(position, 2) if position.stop_loss is not None else "", "cashDividend": "",
        "cTime": _ms(position.opened_ns), "uTime": _ms(position.updated_ns),
    }  # fmt: skip


def _plan_id(position: VenuePosition, leg: int) -> str:
    return str(int(position.position_id) + leg)


def account_row(venue: Venue, account: str, symbol: str | None) -> Row:
    """Return `account/account` (with a symbol) or a row of `account/accounts` (without)."""
    equity, available = venue.equity(account), max(Decimal(0), venue.available(account))
    unrealised, free = venue.unrealised(account), _cut8(available)
    risk = venue.maintenance(account) / equity if equity > 0 else Decimal(1)
    pending_margin = sum(
        (
            o.remaining * o.price / o.leverage
            for o in venue.pending(account)
            if o.price is not None and not o.reduce_only
        ),
        Decimal(0),
    )
    head = {
        "marginCoin": "USDT", "locked": _cut8(pending_margin), "available": free, "crossedMaxAvailable": free,
        "isolatedMaxAvailable": free, "maxTransferOut": free, "accountEquity": _cut8(equity),
        "usdtEquity": plain(equity), "btcEquity": "0", "crossedRiskRate": plain(risk.quantize(Decimal("1e-4"))),
    }  # fmt: skip
    tail = {
        "unrealizedPL": plain(unrealised), "coupon": "0", "crossedUnrealizedPL": plain(unrealised),
        "isolatedUnrealizedPL": "", "grant": "", "assetMode": "single", "isolatedMargin": None, "crossedMargin": None,
    }  # fmt: skip
    if symbol is None:
        used = plain(venue.margin_used(account))
        return head | tail | {
            "unionTotalMargin": used, "unionAvailable": free, "unionMm": plain(venue.maintenance(account)),
            "assetList": [{"coin": "USDT", "balance": plain(venue.balance(account)), "available": free}],
        }  # fmt: skip
    leverage = venue.leverage(account, symbol)
    middle = {
        "crossedMarginLeverage": leverage, "isolatedLongLever": leverage, "isolatedShortLever": leverage,
        "marginMode": venue.margin_mode(account, symbol), "posMode": venue.position_mode(account),
    }  # fmt: skip
    return head | middle | tail


def _cut8(value: Decimal) -> str:
    return plain(value.quantize(Decimal("1e-8"), rounding=ROUND_DOWN))


# ------------------------------------------------------------------------------------------------- pushes


def order_push(order: Order, fill: Fill | None) -> Row:
    """Return a row of the `orders` channel; a fill adds what was traded."""
    price = order.price if order.price is not None else Decimal(0)
    reference = price or (fill.price if fill is not None else Decimal(0))
    row: Row = {
        "accBaseVolume": plain(order.filled), "cTime": _ms(order.created_ns),
        "cancelReason": order.cancel_reason if order.status is OrderStatus.CANCELED else "",
        "clientOid": order.client_oid, "enterPointSource": "API" if order.source == "api" else "SYS",
        "feeDetail": [{"feeCoin": "USDT", "fee": f"{-order.fee_usdt if order.fee_usdt else 0:.8f}"}],
        "force": _FORCE.get(order.kind, "gtc"), "instId": order.symbol, "leverage": str(order.leverage),
        "marginCoin": "USDT", "marginMode": "crossed", "notionalUsd": plain(order.size * reference),
        "orderId": order.order_id, "orderType": _order_type(order.kind), "posMode": "one_way_mode", "posSide": "net",
        "presetStopLossExecutePrice": "", "presetStopLossPrice": plain(order.stop_loss),
        "presetStopLossType": "mark_price" if order.stop_loss is not None else "",
        "presetStopSurplusExecutePrice": "", "presetStopSurplusPrice": plain(order.take_profit),
        "presetStopSurplusType": "mark_price" if order.take_profit is not None else "",
        "price": plain(price), "reduceOnly": "yes" if order.reduce_only else "no", "side": order.side.value,
        "size": plain(order.size), "status": order.status.value, "stpMode": order.stp,
        "totalProfits": plain(order.realised_usdt), "tradeSide": _trade_side(order.side, order.source),
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
    """Return a row of the `fill` channel."""
    return {
        "orderId": fill.order_id, "clientOid": fill.client_oid, "tradeId": fill.trade_id, "symbol": fill.symbol,
        "side": fill.side.value, "orderType": _order_type(fill.kind), "posMode": "one_way_mode",
        "price": plain(fill.price), "baseVolume": plain(fill.size), "quoteVolume": _quote(fill.price * fill.size),
        "profit": plain(fill.realised_usdt), "tradeSide": _trade_side(fill.side, "api"),
        "tradeScope": "maker" if fill.is_maker else "taker", "feeDetail": [_fee_detail(fill)],
        "cTime": _ms(fill.time_ns), "uTime": _ms(fill.time_ns),
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
        "unrealizedPLR": plain((Decimal(row["unrealizedPL"]) / margin).quantize(_STEP_16)) if margin else "0",
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
