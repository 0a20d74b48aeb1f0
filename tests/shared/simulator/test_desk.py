"""The venue follows the market that clients see."""

from __future__ import annotations

from decimal import Decimal

import pytest

from shared.simulator.desk import Desk
from shared.simulator.gate import Credentials
from shared.simulator.markets.market import NS, GeneratedMarket
from shared.simulator.pushes.feed import PublicFeed
from shared.simulator.venue.orders import Accepted, FundingReport, OrderRequest, PlanRequest
from shared.types import OrderKind, Side

MARKET = GeneratedMarket(7, 4)
ACCOUNTS = [Credentials("a", "s", "p", Decimal(10_000)), Credentials("b", "s", "p", Decimal(10_000))]
START_NS = 1_795_330_795 * NS


@pytest.fixture
def desk() -> Desk:
    made = Desk(MARKET, ACCOUNTS)
    made.advance(START_NS)
    return made


def market_order(side: Side, symbol: str = "BTCUSDT", size: str = "0.01") -> OrderRequest:
    return OrderRequest(symbol=symbol, side=side, kind=OrderKind.MARKET, size=Decimal(size))


def test_orders_fill_at_the_quotes_that_are_served(desk: Desk) -> None:
    """A taker gets the touch that the feed shows in the same second, also right after the second has turned."""
    feed = PublicFeed(MARKET)
    for second in range(8):
        now_ns = START_NS + second * NS
        desk.advance(now_ns)
        asks, _ = feed.book_rows(now_ns, "BTCUSDT", 1)
        desk.venue.place("a", market_order(Side.BUY, size="0.001"), now_ns)

        assert desk.venue.fills("a")[-1].price == Decimal(asks[0][0])


def test_mark_of_the_venue_is_the_mark_of_the_ticker(desk: Desk) -> None:
    """A client's ledger marked with the ticker equals the venue's: they know the same mark, digit for digit."""
    feed = PublicFeed(MARKET)
    for symbol in MARKET.symbols:
        fields = feed.ticker_fields(START_NS, symbol)

        assert fields is not None
        assert desk.venue.mark(symbol) == Decimal(fields["markPrice"])


def test_public_trades_reach_resting_orders(desk: Desk) -> None:
    """A post-only order at the touch of a busy symbol fills within minutes, from trades or from moving quotes."""
    asks, bids = PublicFeed(MARKET).book_rows(START_NS, "BTCUSDT", 1)
    request = OrderRequest(
        symbol="BTCUSDT", side=Side.BUY, kind=OrderKind.POST_ONLY, size=Decimal("0.001"), price=Decimal(bids[0][0])
    )
    answer = desk.venue.place("a", request, START_NS)
    assert isinstance(answer, Accepted)

    for step in range(1, 2400):
        desk.advance(START_NS + step * NS // 4)

    assert [fill.is_maker for fill in desk.venue.fills("a")] == [True]
    assert Decimal(asks[0][0]) > Decimal(bids[0][0])


def test_public_trades_reach_plans(desk: Desk) -> None:
    """A plan that waits for the last price sees the market's trades, also where nobody's order rests."""
    assert desk.venue.last_price("BTCUSDT") is None
    near = desk.venue.mark("BTCUSDT").quantize(Decimal("0.1"))
    plan = PlanRequest(
        symbol="BTCUSDT", plan_type="normal_plan", side=Side.BUY, size=Decimal("0.001"), trigger_price=near * 2
    )
    assert isinstance(desk.venue.plans.place("a", plan, START_NS), Accepted)

    for second in range(1, 30):
        desk.advance(START_NS + second * NS)

    last = desk.venue.last_price("BTCUSDT")
    assert last is not None
    assert abs(last / near - 1) < Decimal("0.05")


def test_pushes_go_to_the_account_they_belong_to(desk: Desk) -> None:
    """Nobody hears of another account's orders."""
    desk.venue.place("a", market_order(Side.BUY), START_NS)

    frames = desk.pushes()

    assert {account for account, *_ in frames} == {"a"}
    assert [channel for _, channel, _ in frames] == ["orders", "fill", "orders", "positions", "account"]
    assert desk.pushes() == []


def test_funding_comes_with_the_hour(desk: Desk) -> None:
    """A position that is open when its interval ends is paid for once (08:00 UTC for every interval but odd ones)."""
    eight = 1_795_334_400 * NS
    desk.advance(eight - NS)
    desk.venue.place("a", market_order(Side.BUY), eight - NS)
    desk.venue.drain()
    desk.advance(eight)
    desk.advance(eight + NS)

    reports = [event for event in desk.venue.drain() if isinstance(event, FundingReport)]
    assert [report.symbol for report in reports] == ["BTCUSDT"]
    assert reports[0].amount_usdt == (-reports[0].size * reports[0].mark * reports[0].rate).quantize(
        Decimal("1e-8"), "ROUND_DOWN"
    )


def test_long_stall_jumps_to_now(desk: Desk) -> None:
    """After a pause longer than anybody could have traded in, the venue stands at the new second at once."""
    later_ns = START_NS + 3600 * NS

    desk.advance(later_ns)

    fields = PublicFeed(MARKET).ticker_fields(later_ns, "BTCUSDT")
    assert fields is not None
    assert desk.venue.mark("BTCUSDT") == Decimal(fields["markPrice"])
