"""Account arithmetic, digit for digit: what Bitget answered, recomputed through our venue; and by hand.

The recorded account traded on Bitget's demo in October 2026; the venue is driven with the same fills and marks. One
difference is known: Bitget's wallet pays the exact fee and shows it cut to 8 decimals, ours pays what is shown, so that
fills explain the wallet. Where equity enters, the deposit makes up for that.
"""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from shared.simulator.venue import margin
from shared.simulator.venue.orders import Accepted, ClosedPosition, OrderRequest, PositionSide, VenuePosition
from shared.simulator.venue.venue import Venue
from shared.types import Contract, OrderKind, Side, Tier

D = Decimal
NAN = float("nan")
NOW = 1_791_388_585_219_000_000


def contract(symbol: str, leverage_max: int = 150) -> Contract:
    return Contract(
        symbol=symbol, base=symbol[:-4], quote="USDT", status="normal", tick=D("0.01"), size_step=D("0.0001"),
        size_min=D("0.0001"), notional_min_usdt=D(5), size_max_limit=None, size_max_market=None,
        price_band_buy=D("0.5"), price_band_sell=D("0.5"), maker_fee=D("0.0002"), taker_fee=D("0.0006"),
        leverage_min=1, leverage_max=leverage_max, funding_interval_h=8, is_rwa=False, launch_ms=None, off_ms=None,
    )  # fmt: skip


def opened(deposit: str | int | Decimal, *symbols: str, mode: str = "one_way_mode", leverage: int = 3) -> Venue:
    venue = Venue(contract(symbol) for symbol in symbols)
    venue.open_account("a", D(deposit))
    assert venue.set_position_mode("a", mode) is None
    for symbol in symbols:
        assert venue.set_leverage("a", symbol, leverage) == leverage
    return venue


def trade(
    venue: Venue, symbol: str, side: Side, price: str, size: str, position_side: PositionSide = "net", **more: Any
) -> None:
    """Trade at a price, against a book that is there for this trade alone."""
    venue.set_book(symbol, [(price, size)], [(price, size)], NOW)
    request = OrderRequest(
        symbol=symbol, side=side, kind=OrderKind.MARKET, size=D(size), position_side=position_side, **more
    )
    answer = venue.place("a", request, NOW)
    assert isinstance(answer, Accepted), answer
    venue.set_book(symbol, [], [], NOW)


def plain(value: Decimal) -> str:
    """Return a number as Bitget writes it: no exponent, no trailing zeros."""
    return f"{value.normalize():f}" if value else "0"


def shown(venue: Venue, position: VenuePosition) -> dict[str, str]:
    """Return what a position row computes."""
    symbol = position.symbol
    size, mark, taker = abs(position.size), venue.mark(symbol), venue.contracts[symbol].taker_fee
    liquidation = venue.liquidation_price("a", position)
    assert liquidation is not None
    return {
        "total": plain(size),
        "openPriceAvg": plain(position.entry_price),
        "markPrice": plain(mark),
        "unrealizedPL": plain(position.size * mark - position.cost),
        "marginSize": plain(margin.margin_shown(mark, size, venue.leverage("a", symbol))),
        "keepMarginRate": plain(venue.maintenance_rate("a", position)),
        "marginRatio": plain(margin.ratio_shown(venue.margin_ratio("a", position))),
        "liquidationPrice": plain(margin.liquidation_shown(liquidation)),
        "breakEvenPrice": plain(margin.break_even(position.entry_price, position.size > 0, taker)),
        "deductedFee": plain(position.fees_usdt),
        "achievedProfits": plain(position.realised_usdt),
    }


def cut_off(*fees: Decimal) -> Decimal:
    """Return what Bitget's wallet has paid beyond the fees it shows."""
    return sum((exact - margin.fee(exact) for exact in fees), D(0))


# ------------------------------------------------------------------------------------------------- recorded


@pytest.fixture
def recorded(outside: Path) -> Path:
    return outside / "bitget" / "fixtures"


def data(path: Path) -> Any:
    return json.loads(path.read_text())["data"]


def test_hedge_positions_equal_the_recorded_ones(recorded: Path) -> None:
    """Both sides of a hedge, from the equity recorded nine seconds and three fills before: every computed string."""
    demo = recorded / "recorded_demo_202610"
    long, short = data(demo / "hedge_positions.json")
    before = data(demo / "account_detail_hedge.json")["usdtEquity"]
    closed = next(
        row
        for row in data(demo / "hedge_history_position.json")["list"]
        if row["posMode"] == "hedge_mode" and row["closeAvgPrice"] == "83470.1"
    )
    prices = (closed["openAvgPrice"], closed["closeAvgPrice"], long["openPriceAvg"], short["openPriceAvg"])
    fees = [D(price) * D("0.0001") * D("0.0006") for price in prices]
    venue = opened(D(before) - cut_off(*fees), "BTCUSDT", mode="hedge_mode")
    trade(venue, "BTCUSDT", Side.BUY, closed["openAvgPrice"], "0.0001", "long")
    trade(venue, "BTCUSDT", Side.SELL, closed["closeAvgPrice"], "0.0001", "long")
    trade(venue, "BTCUSDT", Side.BUY, long["openPriceAvg"], "0.0001", "long")
    trade(venue, "BTCUSDT", Side.SELL, short["openPriceAvg"], "0.0001", "short")

    venue.set_mark("BTCUSDT", float(long["markPrice"]), NAN, NAN, NOW)

    for theirs, ours in zip((long, short), venue.positions("a"), strict=True):
        computed = shown(venue, ours)
        assert computed == {key: theirs[key] for key in computed}
        assert ours.hold_side == theirs["holdSide"]


def test_one_way_position_equals_the_recorded_one(recorded: Path) -> None:
    """A long whose equity follows from its liquidation price; the margin ratio, computed from it, is an own witness."""
    theirs = data(recorded / "recorded_demo_202610" / "oneway_positions.json")[0]
    size, mark, price = (D(theirs[key]) for key in ("total", "markPrice", "openPriceAvg"))
    equity = (D(theirs["liquidationPrice"]) * (size * D("0.0046") - size) + size * mark).quantize(margin.SHOWN_STEP)
    fee = margin.fee(price * size * D("0.0006"))
    venue = opened(equity - size * (mark - price) + fee, "BTCUSDT")
    trade(venue, "BTCUSDT", Side.BUY, theirs["openPriceAvg"], theirs["total"])

    venue.set_mark("BTCUSDT", float(mark), NAN, NAN, NOW)

    computed = shown(venue, venue.positions("a")[0])
    assert computed == {key: theirs[key] for key in computed}


def test_closed_positions_equal_the_recorded_ones(recorded: Path) -> None:
    """Nine round trips in three symbols and both modes: averages, profit, both fees and net profit."""
    rows = data(recorded / "recorded_demo_202610" / "hedge_history_position.json")["list"]
    assert len(rows) == 9
    for theirs in rows:
        is_hedged, is_long = theirs["posMode"] == "hedge_mode", theirs["holdSide"] == "long"
        venue = opened("27852", theirs["symbol"], mode=theirs["posMode"])
        side = Side.BUY if is_long else Side.SELL
        position_side: PositionSide = theirs["holdSide"] if is_hedged else "net"
        trade(venue, theirs["symbol"], side, theirs["openAvgPrice"], theirs["openTotalPos"], position_side)
        trade(venue, theirs["symbol"], side.opposite, theirs["closeAvgPrice"], theirs["closeTotalPos"], position_side)

        (ours,) = venue.closed_positions("a")

        computed = summed(ours)
        assert computed == {key: theirs[key] for key in computed}


def summed(closed: ClosedPosition) -> dict[str, str]:
    return {
        "holdSide": closed.hold_side,
        "openAvgPrice": plain(closed.open_average),
        "closeAvgPrice": plain(closed.close_average),
        "openTotalPos": plain(closed.opened_size),
        "closeTotalPos": plain(closed.closed_size),
        "pnl": plain(closed.realised_usdt),
        "netProfit": plain(margin.net_profit(closed)),
        "totalFunding": plain(closed.funding_usdt),
        "openFee": plain(-margin.fee(closed.open_fee_usdt)),
        "closeFee": plain(-margin.fee(closed.close_fee_usdt)),
        "posMode": "hedge_mode" if closed.is_hedged else "one_way_mode",
    }


def test_fills_equal_the_recorded_ones(recorded: Path) -> None:
    """Two recorded round trips: fee, quote volume and profit of each fill; the older ones close a short unseen."""
    fills = data(recorded / "recorded_demo_202610" / "oneway_fills.json")["fillList"]
    one_way = [row for row in reversed(fills) if row["posMode"] == "one_way_mode"]
    venue = opened("27852", "BTCUSDT")
    for theirs in one_way:
        trade(venue, "BTCUSDT", Side(theirs["side"]), theirs["price"], theirs["baseVolume"])

    for ours, theirs in zip(venue.fills("a"), one_way, strict=True):
        assert plain(-ours.fee_usdt) == theirs["feeDetail"][0]["totalFee"]
        assert plain(margin.quote_volume(ours.price * ours.size)) == theirs["quoteVolume"]
        assert plain(ours.realised_usdt) == theirs["profit"]
    for theirs in fills:
        fee = margin.fee(D(theirs["price"]) * D(theirs["baseVolume"]) * D("0.0006"))
        assert plain(-fee) == theirs["feeDetail"][0]["totalFee"]


def test_equity_moves_as_the_recorded_one(recorded: Path) -> None:
    """From one account answer to the next, one round trip later: the difference is its exact net profit."""
    demo = recorded / "recorded_demo_202610"
    before, after = (
        data(demo / f"account_detail_{name}.json")["usdtEquity"] for name in ("one_way", "hedge")
    )  # one-way was asked first
    trip = next(row for row in data(demo / "hedge_history_position.json")["list"] if row["openAvgPrice"] == "83481")
    fees = [D(trip[key]) * D("0.0001") * D("0.0006") for key in ("openAvgPrice", "closeAvgPrice")]
    venue = opened(before, "BTCUSDT")
    trade(venue, "BTCUSDT", Side.BUY, trip["openAvgPrice"], "0.0001")
    trade(venue, "BTCUSDT", Side.SELL, trip["closeAvgPrice"], "0.0001")

    assert venue.equity("a") - cut_off(*fees) == D(after)


def test_ladder_of_btc_equals_the_recorded_one(recorded: Path) -> None:
    """What a maximum leverage of 150 gives is, step by step, what Bitget serves for BTC."""
    rows = data(recorded / "recorded_live_202609" / "rest_query_position_lever_BTCUSDT.json")

    ours = opened("1", "BTCUSDT").tiers("BTCUSDT")

    assert [
        {
            "symbol": "BTCUSDT", "level": str(tier.level), "startUnit": plain(tier.start_usdt),
            "endUnit": plain(tier.end_usdt), "leverage": str(tier.leverage_max),
            "keepMarginRate": f"{tier.maintenance_rate:f}",
        }
        for tier in ours
    ] == rows  # fmt: skip


# ------------------------------------------------------------------------------------------------- by hand


def test_fee_is_cut_not_rounded() -> None:
    """1234.56 x 0.0789 x 0.0006 = 0.0584440704: the wallet pays 0.05844407."""
    venue = opened(1000, "ABCUSDT")

    trade(venue, "ABCUSDT", Side.BUY, "1234.56", "0.0789")

    assert plain(venue.fills("a")[0].fee_usdt) == "0.05844407"
    assert venue.balance("a") == D("999.94155593")
    assert plain(venue.positions("a")[0].fees_usdt) == "0.0584440704"


def test_quote_volume_is_cut_to_four_decimals() -> None:
    """97.406784 is shown as 97.4067."""
    assert plain(margin.quote_volume(D("97.406784"))) == "97.4067"


def test_margin_is_rounded_up_at_the_sixteenth_decimal() -> None:
    """100 / 3 = 33.333…; the last of 16 decimals is a 4."""
    assert plain(margin.margin_shown(D(100), D(1), 3)) == "33.3333333333333334"
    assert plain(margin.margin_shown(D(100), D(1), 4)) == "25"


def test_break_even_pays_both_fees() -> None:
    """Long 100: 100 x 1.0006 / 0.9994; closing there gives exactly the two fees."""
    long, short = (margin.break_even(D(100), is_long, D("0.0006")) for is_long in (True, False))

    assert plain(long) == "100.1200720432259356"
    assert plain(short) == "99.8800719568259044"
    assert abs((long - 100) - (long + 100) * D("0.0006")) < D("1e-13")
    assert abs((100 - short) - (short + 100) * D("0.0006")) < D("1e-13")


def test_absurd_liquidation_prices_are_numbers() -> None:
    """An even hedge of a rich account has one of thirty digits: 9999999999.978 / (0.1 x 0.0046)."""
    venue = opened("9999999999.99", "ABCUSDT", mode="hedge_mode")
    trade(venue, "ABCUSDT", Side.BUY, "100", "0.1", "long")
    trade(venue, "ABCUSDT", Side.SELL, "100", "0.1", "short")
    venue.set_mark("ABCUSDT", 100.0, NAN, NAN, NOW)

    price = venue.liquidation_price("a", venue.positions("a")[0])

    assert price is not None
    assert margin.liquidation_shown(price) == D("21739130434734.7826086956521739")
    assert plain(margin.ratio_shown(venue.margin_ratio("a", venue.positions("a")[0]))) == "0.0000000000046001"


def test_net_profit_is_cut_once() -> None:
    """0.5 - 0.123456789 - 0.100000009 - 0.25 = 0.026543202: fees that are not cut, then one cut."""
    closed = ClosedPosition(
        account="a", time_ns=2, opened_ns=1, position_id="1", symbol="ABCUSDT", hold_side="long", is_hedged=False,
        margin_mode="crossed", open_average=D(1), close_average=D(1), opened_size=D(1), closed_size=D(1),
        realised_usdt=D("0.5"), funding_usdt=D("-0.25"), open_fee_usdt=D("0.123456789"),
        close_fee_usdt=D("0.100000009"),
    )  # fmt: skip

    assert plain(margin.net_profit(closed)) == "0.0265432"


def test_funding_is_cut_and_belongs_to_the_position() -> None:
    """-0.5 x 1000.1 x 0.000123 = -0.06150615; a short of the same size receives it."""
    venue = opened(1000, "ABCUSDT", mode="hedge_mode")
    venue.set_mark("ABCUSDT", 1000.1, NAN, 0.000123, NOW)
    trade(venue, "ABCUSDT", Side.BUY, "1000", "0.5", "long")
    trade(venue, "ABCUSDT", Side.SELL, "1000", "0.3", "short")

    reports = venue.settle_funding_now(NOW)

    assert [plain(report.amount_usdt) for report in reports] == ["-0.06150615", "0.03690369"]
    assert venue.totals("a")[3] == D("-0.02460246")


def test_average_entry_keeps_every_digit_of_the_cost() -> None:
    """3 at 100 and 7 at 101 cost 1007; selling 3 of 10 releases 302.1 of it."""
    venue = opened(10_000, "ABCUSDT")
    trade(venue, "ABCUSDT", Side.BUY, "100", "3")
    trade(venue, "ABCUSDT", Side.BUY, "101", "7")
    trade(venue, "ABCUSDT", Side.SELL, "102", "3")

    position = venue.positions("a")[0]
    assert (position.size, position.cost, position.entry_price) == (D(7), D("704.9"), D("100.7"))
    assert venue.totals("a")[1] == D("3.9")


def test_crossed_liquidation_price_is_where_equity_meets_maintenance() -> None:
    """Long 2 at 100 with 20 USDT at 20x: at the price of the formula, equity is (0.03 + 0.0006) of the value."""
    venue = Venue([contract("ABCUSDT", leverage_max=20)])
    venue.open_account("a", D("20.12"))
    venue.set_leverage("a", "ABCUSDT", 20)
    trade(venue, "ABCUSDT", Side.BUY, "100", "2")
    venue.set_mark("ABCUSDT", 100.0, NAN, NAN, NOW)
    price = venue.liquidation_price("a", venue.positions("a")[0])

    assert price is not None
    assert plain(price.quantize(D("1e-10"))) == "92.8409325356"
    assert abs(20 + 2 * (price - 100) - 2 * price * D("0.0306")) < D("1e-20")


def test_other_symbols_stand_behind_a_crossed_liquidation_price() -> None:
    """The profit and the maintenance margin of another symbol move it, and the mark of neither matters twice."""
    venue = opened(1000, "ABCUSDT", "XYZUSDT", leverage=10)
    trade(venue, "ABCUSDT", Side.BUY, "100", "20")
    venue.set_mark("ABCUSDT", 100.0, NAN, NAN, NOW)
    alone = venue.liquidation_price("a", venue.positions("a")[0])
    trade(venue, "XYZUSDT", Side.SELL, "50", "30")
    venue.set_mark("XYZUSDT", 40.0, NAN, NAN, NOW)  # 300 of profit, less 30 x 40 x 0.0046 of maintenance and 0.9 of fee

    beside = venue.liquidation_price("a", venue.positions("a")[0])

    assert alone is not None
    assert beside is not None
    assert abs((beside - alone) - (300 - D("5.52") - D("0.9")) / (20 * D("0.0046") - 20)) < D("1e-20")


def test_isolated_liquidation_price_needs_no_account() -> None:
    """Short 10 at 100 with margin 100: (1000 + 100) / (10 x (1 + 0.0046))."""
    venue = opened(5000, "ABCUSDT", leverage=10)
    assert venue.set_margin_mode("a", "ABCUSDT", "isolated") is None
    trade(venue, "ABCUSDT", Side.SELL, "100", "10")
    venue.set_mark("ABCUSDT", 100.0, NAN, NAN, NOW)
    price = venue.liquidation_price("a", venue.positions("a")[0])

    assert price is not None
    assert plain(price.quantize(D("1e-10"))) == "109.4963169421"
    venue.deposit("a", D(-2000))
    assert venue.liquidation_price("a", venue.positions("a")[0]) == price


@pytest.mark.parametrize("leverage_max", [10, 20, 25, 50, 75, 100, 125, 150])
def test_ladders_climb(leverage_max: int) -> None:
    """More notional means less leverage and more maintenance, without gaps, and never less than half the margin."""
    tiers = margin.tiers_of(contract("ABCUSDT", leverage_max))

    assert tiers[0].leverage_max == leverage_max
    assert tiers[-1].leverage_max == 1
    assert tiers[0].start_usdt == 0
    for lower, upper in pairwise(tiers):
        assert upper.start_usdt == lower.end_usdt < upper.end_usdt
        assert upper.leverage_max < lower.leverage_max
        assert upper.maintenance_rate > lower.maintenance_rate
    for tier in tiers:
        assert D("0.5") / tier.leverage_max <= tier.maintenance_rate < 1 / D(tier.leverage_max)


def test_step_of_a_ladder_includes_its_end() -> None:
    """A notional of exactly 200,000 stands on the first step, one cent more on the second; the last has no end."""
    tiers = margin.tiers_of(contract("BTCUSDT"))

    found = [margin.tier_at(tiers, D(notional)).level for notional in ("0", "200000", "200000.01", "1e12")]

    assert found == [1, 1, 2, 12]


def test_maintenance_follows_the_ladder() -> None:
    """A position that grows over a step needs the higher rate for all of its value."""
    venue = opened(10_000, "ABCUSDT", leverage=10)
    low = Tier(level=1, start_usdt=D(0), end_usdt=D(1000), leverage_max=150, maintenance_rate=D("0.01"))
    high = Tier(level=2, start_usdt=D(1000), end_usdt=D(9000), leverage_max=10, maintenance_rate=D("0.05"))
    venue.set_tiers("ABCUSDT", (low, high))
    trade(venue, "ABCUSDT", Side.BUY, "100", "10")
    venue.set_mark("ABCUSDT", 100.0, NAN, NAN, NOW)

    assert venue.maintenance("a") == D("10.6")
    venue.set_mark("ABCUSDT", 101.0, NAN, NAN, NOW)
    assert venue.maintenance("a") == 1010 * D("0.0506")
