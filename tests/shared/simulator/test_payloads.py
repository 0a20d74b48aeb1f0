"""Arithmetic and shape of private payloads, against what Bitget itself answered in the same situation."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.simulator import payloads
from shared.simulator.desk import contract_of
from shared.simulator.venue.orders import Accepted, Order, OrderRequest, PositionSide
from shared.simulator.venue.venue import Venue
from shared.types import OrderKind, Side

NAN = float("nan")


@pytest.fixture
def recorded(outside: Path) -> Path:
    return outside / "bitget" / "fixtures"


def data(path: Path) -> Any:
    return json.loads(path.read_text())["data"]


def shape(row: dict[str, Any]) -> dict[str, type]:
    return {key: type(value) for key, value in row.items()}


@pytest.fixture
def venue(recorded: Path) -> Venue:
    """Return the recorded account and contract, BTC at leverage 3; its equity follows from a liquidation price."""
    contracts = data(recorded / "recorded_live_202609" / "rest_contracts_3rows.json")
    made = Venue(contract_of(row) for row in contracts)
    made.open_account("a", Decimal("27857.7702394531257244"))
    made.set_leverage("a", "BTCUSDT", 3)
    return made


def trade(venue: Venue, side: Side, price: float, now_ns: int, **more: Any) -> None:
    venue.set_book("BTCUSDT", [(price, 1.0)], [(price, 1.0)], now_ns)
    size = Decimal("0.0001")
    venue.place("a", OrderRequest(symbol="BTCUSDT", side=side, kind=OrderKind.MARKET, size=size, **more), now_ns)


def test_position_row_equals_the_recorded_one(venue: Venue, recorded: Path) -> None:
    """Margin, ratio, profit, break-even, liquidation, fee and prices of a recorded one-way long, digit for digit."""
    theirs = data(recorded / "recorded_demo_202610" / "oneway_positions.json")[0]
    trade(venue, Side.BUY, 83343.3, 1_791_388_585_219_000_000, stop_loss=Decimal(75000), take_profit=Decimal(92000))
    venue.set_mark("BTCUSDT", 83344.1, NAN, NAN, 1_791_388_588_000_000_000)

    ours = payloads.position_row(venue, "a", venue.positions("a")[0])

    assert list(ours) == list(theirs)
    free = {"takeProfitId", "stopLossId"}
    assert {k: v for k, v in ours.items() if k not in free} == {k: v for k, v in theirs.items() if k not in free}


def test_both_sides_of_a_hedge_equal_the_recorded_ones(venue: Venue, recorded: Path) -> None:
    """Two rows of one symbol share their liquidation price and margin ratio; every field digit for digit."""
    theirs = data(recorded / "recorded_demo_202610" / "hedge_positions.json")
    venue.open_account("hedged", Decimal("27852.8633551671257244"))
    venue.set_position_mode("hedged", "hedge_mode")
    venue.set_leverage("hedged", "BTCUSDT", 3)
    for row, side in zip(theirs, (Side.BUY, Side.SELL), strict=True):
        now_ns = int(row["cTime"]) * 1_000_000
        venue.set_book("BTCUSDT", [(float(row["openPriceAvg"]), 1.0)], [(float(row["openPriceAvg"]), 1.0)], now_ns)
        request = OrderRequest(
            symbol="BTCUSDT", side=side, kind=OrderKind.MARKET, size=Decimal(row["total"]), position_side=row["holdSide"]
        )  # fmt: skip
        assert isinstance(venue.place("hedged", request, now_ns), Accepted)
    venue.set_mark("BTCUSDT", float(theirs[0]["markPrice"]), NAN, NAN, 1_791_392_694_000_000_000)

    assert [payloads.position_row(venue, "hedged", position) for position in venue.positions("hedged")] == theirs


def test_history_of_positions_equals_the_recorded_one(venue: Venue, recorded: Path) -> None:
    """Round trips of both modes and sides, replayed: fees, profit and net profit to the last digit."""
    theirs = data(recorded / "recorded_demo_202610" / "hedge_history_position.json")["list"]
    btc = [row for row in theirs if row["symbol"] == "BTCUSDT" and row["closeTotalPos"] == row["openTotalPos"]]
    for row in btc:
        venue.set_position_mode("a", row["posMode"])
        is_long, is_hedged = row["holdSide"] == "long", row["posMode"] == "hedge_mode"
        for price, side, at in (
            (row["openAvgPrice"], Side.BUY if is_long else Side.SELL, row["ctime"]),
            (row["closeAvgPrice"], Side.SELL if is_long else Side.BUY, row["utime"]),
        ):
            now_ns = int(at) * 1_000_000
            venue.set_book("BTCUSDT", [(float(price), 1.0)], [(float(price), 1.0)], now_ns)
            request = OrderRequest(
                symbol="BTCUSDT", side=side, kind=OrderKind.MARKET, size=Decimal(row["openTotalPos"]),
                position_side=row["holdSide"] if is_hedged else "net",
            )  # fmt: skip
            assert isinstance(venue.place("a", request, now_ns), Accepted)

    ours = [payloads.closed_row(position) for position in venue.closed_positions("a")]

    assert len(btc) > 5
    assert [row | {"positionId": ""} for row in ours] == [row | {"positionId": ""} for row in btc]


def test_fee_quote_and_profit_equal_the_recorded_ones(venue: Venue, recorded: Path) -> None:
    """A recorded round trip, replayed: fee cut to 8 decimals, quote volume to 4, profit exact."""
    sold, bought = data(recorded / "recorded_demo_202610" / "oneway_fills.json")["fillList"][:2]
    for side, theirs in ((Side.BUY, bought), (Side.SELL, sold)):
        trade(venue, side, float(theirs["price"]), int(theirs["cTime"]) * 1_000_000)

    for ours, theirs in zip(map(payloads.fill_row, venue.fills("a")), (bought, sold), strict=True):
        assert list(ours) == list(theirs)
        assert {k: v for k, v in ours.items() if not k.endswith("Id")} == {
            k: v for k, v in theirs.items() if not k.endswith("Id")
        }


def test_detail_equals_the_recorded_one(venue: Venue, recorded: Path) -> None:
    """`detail` says state, and everything else as Bitget does."""
    theirs = data(recorded / "recorded_demo_202610" / "oneway_order_detail_close.json")
    bought = data(recorded / "recorded_demo_202610" / "oneway_fills.json")["fillList"][1]
    trade(venue, Side.BUY, float(bought["price"]), 1)
    trade(venue, Side.SELL, float(theirs["priceAvg"]), int(theirs["cTime"]) * 1_000_000, reduce_only=True)

    ours = payloads.detail_row(venue.closed("a")[-1])

    assert list(ours) == list(theirs)
    free = {"orderId", "clientOid", "uTime"}
    assert {k: v for k, v in ours.items() if k not in free} == {k: v for k, v in theirs.items() if k not in free}


def test_account_has_the_recorded_shape(venue: Venue, recorded: Path) -> None:
    """Leverage is an integer here and isolated margins are null."""
    theirs = data(recorded / "recorded_demo_202610" / "account_detail_one_way.json")

    ours = payloads.account_row(venue, "a", "BTCUSDT")

    assert list(ours) == list(theirs)
    assert shape(ours) == shape(theirs)


def test_pending_row_has_the_recorded_shape(venue: Venue, recorded: Path) -> None:
    """Keys, order and types of `orders-pending`."""
    theirs = data(recorded / "recorded_demo_202610" / "hedge_orders_pending_with_close.json")["entrustedList"][0]
    venue.set_book("BTCUSDT", [(83000.0, 1.0)], [(83000.1, 1.0)], 1)
    request = OrderRequest(
        symbol="BTCUSDT", side=Side.BUY, kind=OrderKind.LIMIT, size=Decimal("0.001"), price=Decimal("82000")
    )
    venue.place("a", request, 1)

    ours = payloads.order_row(venue.pending("a")[0])

    assert list(ours) == list(theirs)
    assert shape(ours) == shape(theirs)


def test_order_push_has_every_recorded_key(venue: Venue, recorded: Path) -> None:
    """The live push of a market order has all keys of a recorded one, with its types; we add the preset prices."""
    theirs = data(recorded / "recorded_live_202609" / "ws_v2_orders_oneway_live_20250321.json")[0]
    venue.set_book("BTCUSDT", [(83000.0, 1.0)], [(83000.1, 1.0)], 1)
    venue.place("a", OrderRequest(symbol="BTCUSDT", side=Side.BUY, kind=OrderKind.MARKET, size=Decimal("0.001")), 1)
    report = venue.drain()[0]

    ours = payloads.order_push(report.order, None)  # type: ignore[union-attr]

    assert set(theirs) <= set(ours)
    assert set(ours) - set(theirs) == {"presetStopLossPrice", "presetStopSurplusPrice"}
    assert {key: type(ours[key]) for key in theirs} == shape(theirs)


def test_position_that_is_no_more_still_has_a_row(venue: Venue) -> None:
    """A close may be seen late: until then the row is made from a copy that the venue no longer holds."""
    trade(venue, Side.BUY, 83343.3, 1)
    venue.set_mark("BTCUSDT", 83344.1, NAN, NAN, 2)
    before, seen = payloads.position_row(venue, "a", venue.positions("a")[0]), venue.positions("a")[0]
    copy = msgspec.structs.replace(seen)
    trade(venue, Side.SELL, 83343.3, 3, reduce_only=True)

    after = payloads.position_row(venue, "a", copy)

    assert venue.positions("a") == []
    assert {key for key in after if after[key] != before[key]} <= {"liquidationPrice", "marginRatio"}


def test_absurd_liquidation_price_has_a_row(venue: Venue) -> None:
    """Ten million USDT behind the smallest hedge: eleven digits before the point at Bitget, fourteen here."""
    venue.open_account("rich", Decimal(10**12))
    venue.set_position_mode("rich", "hedge_mode")
    venue.set_book("BTCUSDT", [(83000.0, 1.0)], [(83000.1, 1.0)], 1)
    for side, name in ((Side.BUY, "long"), (Side.SELL, "short")):
        request = OrderRequest(
            symbol="BTCUSDT", side=side, kind=OrderKind.MARKET, size=Decimal("0.0001"), position_side=name,  # type: ignore[arg-type]
        )  # fmt: skip
        assert isinstance(venue.place("rich", request, 1), Accepted)

    rows = [payloads.position_row(venue, "rich", position) for position in venue.positions("rich")]

    assert [len(row["liquidationPrice"].split(".")[0]) > 14 for row in rows] == [True, True]


# (position side, economic side, who sent it) -> tradeSide, orderSource (Bitget v2, Get Order Detail)
TRADE_SIDES = [
    ("net", Side.BUY, "api", "buy_single", "market"), ("net", Side.SELL, "api", "sell_single", "market"),
    ("long", Side.BUY, "api", "open", "market"), ("long", Side.SELL, "api", "close", "market"),
    ("short", Side.SELL, "api", "open", "market"), ("short", Side.BUY, "api", "close", "market"),
    ("net", Side.SELL, "stop_loss", "sell_single", "pos_loss_market"),
    ("long", Side.SELL, "take_profit", "close", "pos_profit_market"),
    ("long", Side.BUY, "plan", "open", "plan_market"), ("net", Side.BUY, "trailing", "buy_single", "tracking_market"),
    ("net", Side.SELL, "liquidation", "burst_sell_single", "liquidation"),
    ("long", Side.SELL, "liquidation", "burst_close_long", "liquidation"),
    ("short", Side.BUY, "liquidation", "burst_close_short", "liquidation"),
    ("net", Side.BUY, "reduction", "reduce_buy_single", "liquidation"),
    ("short", Side.BUY, "reduction", "reduce_close_short", "liquidation"),
    ("long", Side.SELL, "offset", "offset_close_long", "reduce_offset"),
    ("net", Side.SELL, "delivery", "delivery_sell_single", "market"),
    ("short", Side.BUY, "delivery", "delivery_close_short", "market"),
    ("long", Side.SELL, "adl", "dte_sys_adl_close_long", "market"),
    ("net", Side.BUY, "adl", "dte_sys_adl_buy_in_single_side_mode", "market"),
]  # fmt: skip


@pytest.mark.parametrize(("position_side", "side", "source", "trade_side", "order_source"), TRADE_SIDES)
def test_trade_side_tells_who_closed_what(
    position_side: PositionSide, side: Side, source: str, trade_side: str, order_source: str
) -> None:
    """Every enumeration of `tradeSide`; what nobody of the account asked for comes from SYS, sys in lists."""
    order = Order(
        account="a", order_id="1", client_oid="", symbol="BTCUSDT", side=side, kind=OrderKind.MARKET, size=Decimal(1),
        price=None, reduce_only=trade_side not in ("open", "buy_single"), stop_loss=None, take_profit=None, stp="none",
        source=source, leverage=3, created_ns=1, updated_ns=1, position_side=position_side,
    )  # fmt: skip

    rows = payloads.order_row(order), payloads.detail_row(order), payloads.order_push(order, None)

    entered = "SYS" if source in ("liquidation", "reduction", "offset", "delivery", "adl") else "API"
    assert [row["tradeSide"] for row in rows] == [trade_side] * 3
    assert [row["orderSource"] for row in rows[:2]] == [order_source] * 2
    assert [row["enterPointSource"] for row in rows] == [entered.lower(), entered, entered]
    assert {row["side"] for row in rows} == {
        side.value if position_side == "net" else "buy" if position_side == "long" else "sell"
    }


@pytest.mark.parametrize("is_hedged", [False, True])
def test_liquidated_position_is_told_as_burst(venue: Venue, is_hedged: bool) -> None:
    """A long that the mark ruins: its order, fill and bill say who closed it."""
    venue.open_account("poor", Decimal(1000))
    if is_hedged:
        venue.set_position_mode("poor", "hedge_mode")
    venue.set_leverage("poor", "BTCUSDT", 100)
    venue.set_book("BTCUSDT", [(83000.0, 50.0)], [(83000.0, 50.0)], 1)
    side: PositionSide = "long" if is_hedged else "net"
    request = OrderRequest(
        symbol="BTCUSDT", side=Side.BUY, kind=OrderKind.MARKET, size=Decimal("0.9"), position_side=side
    )  # fmt: skip
    assert isinstance(venue.place("poor", request, 1), Accepted)

    venue.set_mark("BTCUSDT", 82000.0, NAN, NAN, 2)

    expected = "burst_close_long" if is_hedged else "burst_sell_single"
    assert venue.positions("poor") == []
    row, fill = payloads.history_row(venue.closed("poor")[-1]), payloads.fill_row(venue.fills("poor")[-1])
    assert (row["tradeSide"], row["enterPointSource"], row["orderSource"]) == (expected, "sys", "liquidation")
    assert (fill["tradeSide"], fill["enterPointSource"]) == (expected, "sys")
    assert fill["side"] == ("buy" if is_hedged else "sell")
