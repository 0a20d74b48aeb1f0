"""Liquidation: what is lost, in which steps, at which price, and who pays for what is beyond."""

from __future__ import annotations

from decimal import Decimal

import pytest

from shared.simulator.venue.orders import Order, OrderReport, VenueRules
from shared.simulator.venue.venue import Venue
from shared.types import OrderStatus, Side, Tier
from tests.shared.simulator.venue_made import NAN, NOW, D, accept, contract, deep, made, mark, order, size

DUST = D("0.001")  # at most a ten-thousandth of a tick a contract is left over


def finals(venue: Venue, account: str = "a") -> list[tuple[str, str]]:
    """Return (source, cancel reason) of the orders that have ended since the last drain."""
    return [
        (event.order.source, event.order.cancel_reason)
        for event in venue.drain()
        if isinstance(event, OrderReport) and event.account == account and event.order.status.is_final
    ]


def last(venue: Venue, account: str = "a") -> Order:
    return venue.closed(account)[-1]


# ---------------------------------------------------------------------------------------------- isolated


@pytest.fixture
def isolated() -> Venue:
    """Return a long and a short of 10 in two symbols, each with a fiftieth as its margin."""
    venue = made(isolated=True, leverage=50)
    for symbol, side in (("AUSDT", Side.BUY), ("BUSDT", Side.SELL)):
        deep(venue, 100.0, 100.0, symbol)
        accept(venue, order(side, "10", symbol=symbol))
        deep(venue, symbol=symbol)
    venue.drain()
    return venue


def test_isolated_position_is_lost_at_its_own_maintenance(isolated: Venue) -> None:
    """20 of margin carry a long of 1000 down to 99.0499…: 20 + 10 (p - 100) = 10 p x 0.0106."""
    price = isolated.liquidation_price("a", isolated.positions("a")[0])
    assert price is not None
    assert abs(price - D(980) / (10 * (1 - D("0.0106")))) < D("1e-18")

    mark(isolated, 99.05)
    assert size(isolated) == 10
    mark(isolated, 99.04)

    assert size(isolated) == 0
    assert last(isolated).source == "liquidation"


@pytest.mark.parametrize("gap", [99.0, 97.0, 50.0])
def test_isolated_position_costs_its_margin_and_no_more(isolated: Venue, gap: float) -> None:
    """Whether the mark slides or falls, what was not set aside is untouched, to a hair in the account's favour."""
    free = isolated.balance("a") - isolated.isolated_margin("a")
    deep(isolated, gap - 0.01, gap + 0.01)

    mark(isolated, gap)

    left = isolated.balance("a") - isolated.isolated_margin("a")
    assert D(0) <= left - free < DUST
    assert size(isolated, symbol="BUSDT") == -10


def test_bankruptcy_price_takes_the_fee_along(isolated: Venue) -> None:
    """(1000 - 20) / (10 x 0.9994) for the long, (1000 + 20) / (10 x 1.0006) for the short, off the tick."""
    mark(isolated, 99.0)
    mark(isolated, 101.5, "BUSDT")

    long, short = isolated.fills("a")[-2:]
    assert (long.price, short.price) == (D("98.058836"), D("101.938836"))
    assert long.fee_usdt == (long.price * 10 * D("0.0006")).quantize(D("1e-8"), rounding="ROUND_DOWN")
    assert [bill.kind for bill in isolated.bills("a")[-2:]] == ["force_sell", "force_buy"]


def test_takeover_is_no_public_price(isolated: Venue) -> None:
    """Bitget does not show it in trades or candles; what the fund then sells in the market is seen."""
    deep(isolated, 98.5, 98.52)

    mark(isolated, 99.0)

    assert isolated.last_price("AUSDT") == 100


def test_only_the_orders_of_a_lost_position_go(isolated: Venue) -> None:
    """The other symbol's orders stay, and so does the other account."""
    mine = [
        accept(isolated, order(Side.SELL, "10", "103", reduce_only=True)),
        accept(isolated, order(Side.BUY, "1", "95")),
    ]
    other = accept(isolated, order(Side.BUY, "1", "95", symbol="BUSDT"))
    theirs = accept(isolated, order(Side.BUY, "1", "94"), "b")

    mark(isolated, 99.0)

    assert [found.cancel_reason for found in mine] == ["liquidation_cancel"] * 2
    assert other.status is theirs.status is OrderStatus.LIVE


def test_added_margin_moves_the_liquidation_away(isolated: Venue) -> None:
    """With 50 more the long survives where it was lost before."""
    assert isolated.set_margin("a", "AUSDT", "long", D(50), NOW) is None

    mark(isolated, 96.0)

    assert size(isolated) == 10


def test_crossed_equity_knows_nothing_of_a_lost_isolated_position(isolated: Venue) -> None:
    """Its gains and losses are not lent to the rest: only what is crossed counts there."""
    before = isolated.cross_equity("a")

    mark(isolated, 99.2)

    assert isolated.cross_equity("a") == before == isolated.available("a")
    assert isolated.maintenance("a") == 0


def test_fund_may_close_the_other_side_of_what_it_took_over() -> None:
    """A lost long is sold into the account's own bid, which was to close its short: nothing is lost twice."""
    venue = made(hedged=True, isolated=True, leverage=50)
    deep(venue, 100.0, 100.0)
    accept(venue, order(Side.BUY, "10", position_side="long"))
    accept(venue, order(Side.SELL, "10", position_side="short"))
    venue.set_book("AUSDT", [], [], NOW)
    accept(venue, order(Side.BUY, "10", "99.5", position_side="short"))

    mark(venue, 98.5)

    assert venue.positions("a") == []
    assert [(fill.position_side, fill.source) for fill in venue.fills("a")[-2:]] == [
        ("long", "liquidation"),
        ("short", "api"),
    ]


# ----------------------------------------------------------------------------------------------- crossed


@pytest.fixture
def crossed() -> Venue:
    """Return a long of 100 with 300 USDT behind it, at 100."""
    venue = made(leverage=50)
    deep(venue, 100.0, 100.0)
    accept(venue, order(Side.BUY, "100"))
    venue.deposit("a", D(300) - venue.balance("a"))
    deep(venue)
    venue.drain()
    return venue


def test_crossed_account_is_left_with_nothing_and_no_debt(crossed: Venue) -> None:
    """It is taken over at its bankruptcy price, (10000 - 300) / (100 x 0.9994), wherever the mark is."""
    for price in (98.1, 98.0):
        deep(crossed, price - 0.01, price + 0.01)
        mark(crossed, price)
        assert bool(crossed.positions("a")) is (price == 98.1)

    assert D(0) <= crossed.equity("a") < DUST
    assert crossed.fills("a")[-1].price == D("97.058235")


def test_loss_beyond_a_bankruptcy_is_the_funds(crossed: Venue) -> None:
    """A fall through the bankruptcy price ends at zero, and the fund pays the rest: all cash is accounted for."""
    crossed.set_book("AUSDT", [(90.0, 1000.0)], [(91.0, 1.0)], NOW)

    mark(crossed, 90.5)

    assert D(0) <= crossed.equity("a") < DUST
    (taken,) = crossed.takeovers
    assert (taken.size, taken.price, taken.proceeds_usdt) == (D(100), D("97.058235"), D(9000))
    assert crossed.insurance_usdt == taken.gain_usdt == 9000 - 100 * D("97.058235")


def test_who_is_lost_when_a_symbol_ends_is_liquidated_before_it_settles() -> None:
    """Bought four above the mark, no mark since: settled at once, the account would owe what its small short lacks."""
    venue = made(leverage=50)
    accept(venue, order(Side.SELL, "0.1", symbol="BUSDT"))
    mark(venue, 96.0)
    deep(venue, 100.0, 100.0)
    accept(venue, order(Side.BUY, "100"))
    venue.deposit("a", D(300) - venue.balance("a"))
    deep(venue, 95.99, 96.01)

    venue.delist("AUSDT", NOW)
    mark(venue, 100.0, "BUSDT")

    assert venue.positions("a") == []
    assert D(0) <= venue.equity("a") < DUST
    assert {fill.source for fill in venue.fills("a")[-2:]} == {"liquidation"}
    assert -108 < venue.insurance_usdt < -100  # what was lost beyond the 300, and the fees of it


def test_fund_gains_what_the_market_pays_above_bankruptcy(crossed: Venue) -> None:
    """Bitget puts what a liquidation leaves over into its fund."""
    crossed.set_book("AUSDT", [(98.0, 1000.0)], [(98.2, 1.0)], NOW)

    mark(crossed, 97.9)

    assert crossed.insurance_usdt == 100 * (98 - D("97.058235"))


def test_fund_takes_from_resting_orders_and_the_rest_at_the_mark(crossed: Venue) -> None:
    """A bid of another account at 97.9 is filled, what is out of the price band is not touched."""
    bid = accept(crossed, order(Side.BUY, "30", "97.9"), "b")
    crossed.set_book("AUSDT", [(97.5, 20.0), (80.0, 500.0)], [(98.2, 1.0)], NOW)

    mark(crossed, 97.8)

    assert bid.status is OrderStatus.FILLED
    (taken,) = crossed.takeovers
    assert taken.proceeds_usdt == 30 * D("97.9") + 20 * D("97.5") + 50 * D("97.8")
    assert crossed.last_price("AUSDT") == D("97.9")


def test_liquidation_cancels_every_order_first(crossed: Venue) -> None:
    """Orders of other symbols, too, and of isolated ones."""
    assert crossed.set_margin_mode("a", "BUSDT", "isolated") is None
    crossed.deposit("a", D(100))
    accept(crossed, order(Side.BUY, "1", "95", symbol="BUSDT"))
    accept(crossed, order(Side.SELL, "5", "105"))
    crossed.drain()

    mark(crossed, 96.9)

    assert finals(crossed) == [("api", "liquidation_cancel")] * 2 + [("liquidation", "")]


def test_isolated_positions_survive_the_crossed_ones(crossed: Venue) -> None:
    """Their margin is theirs."""
    assert crossed.set_margin_mode("a", "BUSDT", "isolated") is None
    crossed.deposit("a", D(100))
    deep(crossed, symbol="BUSDT")
    accept(crossed, order(Side.BUY, "10", symbol="BUSDT"))

    mark(crossed, 90.0)

    assert [position.symbol for position in crossed.positions("a")] == ["BUSDT"]
    assert crossed.isolated_margin("a") == D("100.01")
    assert D(0) <= crossed.balance("a") - D("100.01") < DUST


def test_positions_share_a_bankruptcy_by_value() -> None:
    """Two longs and a short lose the equity in proportion to what they are worth, and nothing is left."""
    venue = Venue([contract(symbol) for symbol in ("AUSDT", "BUSDT", "CUSDT")])
    venue.open_account("a", D(10_000))
    for symbol, side, lots in (("AUSDT", Side.BUY, "60"), ("BUSDT", Side.BUY, "30"), ("CUSDT", Side.SELL, "10")):
        venue.set_mark(symbol, 100.0, NAN, NAN, NOW)
        venue.set_leverage("a", symbol, 50)
        deep(venue, 100.0, 100.0, symbol)
        accept(venue, order(side, lots, symbol=symbol))
    venue.deposit("a", D(100) - venue.equity("a"))

    mark(venue, 100.0)

    assert venue.positions("a") == []
    assert D(0) <= venue.equity("a") < DUST
    prices = {fill.symbol: fill.price for fill in venue.fills("a")[-3:]}
    # One per cent of each value, and the fee on top: 99 / 0.9994 and 101 / 1.0006.
    assert prices["AUSDT"] == prices["BUSDT"] == D("99.059436")
    assert abs(prices["CUSDT"] - D("100.939436")) < D("0.0001")


def test_stop_comes_before_the_liquidation(crossed: Venue) -> None:
    """A mark that passes both closes at the stop: at market, with what is left for the account."""
    crossed.deposit("a", D(100))
    accept(crossed, order(Side.BUY, "1", stop_loss=D(99)))
    crossed.deposit("a", D(-100))
    crossed.set_book("AUSDT", [(98.0, 1000.0)], [(98.2, 1.0)], NOW)

    mark(crossed, 97.9)

    assert last(crossed).source == "stop_loss"
    assert crossed.equity("a") > 80


# ---------------------------------------------------------------------------------------- net and reduce


def test_hedges_are_netted_first() -> None:
    """Both sides close against each other at the mark; where that is enough, the rest lives on."""
    venue = made(hedged=True, leverage=50)
    deep(venue, 100.0, 100.0)
    accept(venue, order(Side.BUY, "100", position_side="long"))
    accept(venue, order(Side.SELL, "90", position_side="short"))
    venue.deposit("a", D(105) - venue.balance("a"))
    venue.drain()

    mark(venue, 99.97)  # 104.7 of equity, and 106 of maintenance for the larger side

    assert (size(venue, side="long"), size(venue, side="short")) == (D(10), D(0))
    assert finals(venue) == [("offset", ""), ("offset", "")]
    assert {fill.price for fill in venue.fills("a")[-2:]} == {D("99.97")}
    assert venue.equity("a") == D("105") - 10 * D("0.03") - 2 * 90 * D("99.97") * D("0.0006")


def steps(*rows: tuple[int, int, int, str]) -> tuple[Tier, ...]:
    return tuple(
        Tier(
            level=k + 1, start_usdt=D(start), end_usdt=D(end), leverage_max=leverage, maintenance_rate=D(rate)
        )
        for k, (start, end, leverage, rate) in enumerate(rows)
    )  # fmt: skip


LADDER = steps((0, 1000, 50, "0.01"), (1000, 2000, 40, "0.02"), (2000, 5000, 30, "0.05"), (5000, 10**6, 20, "0.1"))


def reducible(lots: str, equity: str) -> Venue:
    venue = made(leverage=20)
    venue.set_tiers("AUSDT", LADDER)
    deep(venue, 100.0, 100.0)
    accept(venue, order(Side.BUY, lots))
    venue.deposit("a", D(equity) - venue.balance("a"))
    venue.drain()
    return venue


def test_position_comes_down_two_steps_at_a_time() -> None:
    """From the fourth step to the second, at market, and there the equity suffices."""
    venue = reducible("60", "500")  # 6000 need 603.6, 2000 need 41.2

    mark(venue, 100.0)

    assert size(venue) == 20
    assert finals(venue) == [("reduction", "")]
    assert venue.equity("a") == 500 - 4000 * D("0.0006")


def test_position_comes_down_as_far_as_it_must() -> None:
    """From the third step to the first; then, where even that is too much, the fund takes the rest."""
    reduced = reducible("40", "30")
    mark(reduced, 100.0)
    assert size(reduced) == 10
    assert finals(reduced) == [("reduction", "")]

    lost = reducible("40", "8")
    mark(lost, 100.0)
    assert size(lost) == 0
    assert [source for source, _ in finals(lost)] == ["reduction", "liquidation"]
    assert D(0) <= lost.equity("a") < DUST


def test_reduction_never_sells_below_bankruptcy() -> None:
    """Where the book is too thin or too far away the fund takes over instead."""
    venue = reducible("60", "500")
    venue.set_book("AUSDT", [(91.0, 1000.0)], [(101.0, 1.0)], NOW)

    mark(venue, 100.0)

    assert size(venue) == 0
    assert [source for source, _ in finals(venue)] == ["reduction", "liquidation"]
    assert D(0) <= venue.equity("a") < DUST


def test_liquidation_has_a_fee_of_its_own() -> None:
    """0.06 % by default, whatever the contract's taker fee; a venue may have another."""
    for rules, rate in ((None, D("0.0006")), (VenueRules(liquidation_fee=D("0.002")), D("0.002"))):
        venue = made(rules, leverage=50)
        venue.set_contract(contract(taker_fee=D("0.001")))
        deep(venue, 100.0, 100.0)
        accept(venue, order(Side.BUY, "100"))
        venue.deposit("a", D(100) - venue.balance("a"))

        mark(venue, 100.0)

        fill = venue.fills("a")[-1]
        assert fill.fee_usdt == (fill.price * 100 * rate).quantize(D("1e-8"), rounding="ROUND_DOWN")
        assert D(0) <= venue.balance("a") < DUST


def test_every_cent_of_a_liquidation_is_somewhere() -> None:
    """Two accounts against each other without a market: one is lost, and deposits less fees are what all have."""
    venue = made(leverage=50)
    venue.set_book("AUSDT", [], [], NOW)
    accept(venue, order(Side.BUY, "100", "100"))
    accept(venue, order(Side.SELL, "100", "100"), "b")
    venue.deposit("a", D(150) - venue.balance("a"))
    start = sum(venue.totals(account)[0] for account in ("a", "b"))

    mark(venue, 95.0)  # b has 500 of profit, a had 150
    venue.set_book("AUSDT", [(94.99, 500.0)], [(95.0, 500.0)], NOW)
    accept(venue, order(Side.BUY, "100", reduce_only=True), "b")

    fees = sum(venue.totals(account)[2] for account in ("a", "b"))
    held = venue.balance("a") + venue.balance("b") + venue.insurance_usdt
    assert venue.positions("a") == venue.positions("b") == []
    assert held == Decimal(start) - fees


# ----------------------------------------------------------------------------------- marks of one instant


def test_marks_of_one_instant_liquidate_nobody_between_them(crossed: Venue) -> None:
    """A hedge over two symbols that fall together loses nothing, whichever mark is read first; one that falls alone,
    or an isolated position among them, is lost as by its own mark."""
    crossed.deposit("a", D(200))
    deep(crossed, symbol="BUSDT")
    accept(crossed, order(Side.SELL, "100", symbol="BUSDT"))
    for symbol in ("AUSDT", "BUSDT"):
        deep(crossed, 94.99, 95.01, symbol)

    crossed.set_marks([(symbol, 95.0, NAN, NAN) for symbol in ("AUSDT", "BUSDT")], NOW)
    assert [position.size for position in crossed.positions("a")] == [D(100), D(-100)]

    crossed.set_marks([("AUSDT", 90.0, NAN, NAN), ("BUSDT", NAN, NAN, NAN)], NOW)
    assert crossed.positions("a") == []
    assert crossed.equity("a") >= 0


def test_marks_of_one_instant_take_isolated_positions_each_by_itself(isolated: Venue) -> None:
    """The long that is below its maintenance goes, the short beside it stays."""
    isolated.set_marks([("AUSDT", 99.0, NAN, NAN), ("BUSDT", 99.0, NAN, NAN)], NOW)

    assert size(isolated) == 0
    assert size(isolated, symbol="BUSDT") == -10
