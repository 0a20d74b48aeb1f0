"""What we send: bodies of requests that place and cancel orders."""

from __future__ import annotations

from decimal import Decimal

from shared.bitget.wire.meanings import FORCES
from shared.bitget.wire.rows import CROSSED, MARGIN_COIN, PRODUCT_TYPE
from shared.types import CancelOrder, OrderKind, PlaceOrder


def plain(value: Decimal) -> str:
    """Return the number as Bitget reads it: no exponent, no trailing zeros (checkBDScale counts them, 40808)."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def place_body(order: PlaceOrder) -> dict[str, str]:
    """Return the body of place-order for a one-way, crossed account: no tradeSide there (40774)."""
    is_market = order.kind is OrderKind.MARKET
    assert (order.price is None) == is_market, (order.kind, order.price)
    body = {
        "symbol": order.symbol,
        "productType": PRODUCT_TYPE,
        "marginMode": CROSSED,
        "marginCoin": MARGIN_COIN,
        "size": plain(order.size),
        "side": order.side.value,
        "orderType": "market" if is_market else "limit",
        "clientOid": order.client_oid,
        "reduceOnly": "YES" if order.reduce_only else "NO",
    }
    if order.price is not None:
        body |= {"price": plain(order.price), "force": FORCES[order.kind]}
    if order.stop_price is not None:
        body["presetStopLossPrice"] = plain(order.stop_price)
    return body


def cancel_body(order: CancelOrder) -> dict[str, str]:
    """Return the body of cancel-order; by clientOid while the ack, and so the orderId, is missing."""
    name, value = ("orderId", order.order_id) if order.order_id else ("clientOid", order.client_oid)
    return {"symbol": order.symbol, "productType": PRODUCT_TYPE, "marginCoin": MARGIN_COIN, name: value}
