"""Hedge mode and isolated margin: two sides a symbol, what closes what, and margin that stands for itself."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from shared.simulator.venue.orders import Accepted, ClosedPosition, FundingReport, PlanRequest, Refusal
from shared.simulator.venue.venue import Venue
from shared.types import OrderKind, OrderStatus, Side
from tests.shared.simulator.venue_made import (
    HOUR,
    NOW,
    ONE_STEP,
    D,
    accept,
    contract,
    deep,
    made,
    mark,
    order,
    refuse,
    size,
)

LONG, SHORT = {"position_side": "long"}, {"position_side": "short"}


@pytest.fixture
def hedged() -> Venue:
    venue = made(hedged=True)
    deep(venue)
    return venue


@pytest.fixture
def isolated() -> Venue:
    venue = made(isolated=True)
    deep(venue)
    return venue


# -------------------------------------------------------------------------------------------- hedge mode


def test_both_sides_of_a_symbol_live_beside_each_other(hedged: Venue) -> None:
    """A short does not close the long: each has its own entry, profit and history."""
    accept(hedged, order(Side.BUY, "5", **LONG))
    accept(hedged, order(Side.SELL, "3", **SHORT))

    assert (size(hedged, side="long"), size(hedged, side="short")) == (D(5), D(-3))
    assert [position.hold_side for position in hedged.positions("a")] == ["long", "short"]
    assert hedged.position("a", "AUSDT") is None  # nothing is net here
    mark(hedged, 102.0)
    assert hedged.unrealised("a") == 5 * D("1.99") - 3 * D("2.01")


def test_each_side_closes_by_an_order_against_it(hedged: Venue) -> None:
    """Selling "long" closes it, buying "short" closes that one; the other side stays as it was."""
    accept(hedged, order(Side.BUY, "5", **LONG))
    accept(hedged, order(Side.SELL, "3", **SHORT))

    sold = accept(hedged, order(Side.SELL, "5", **LONG))
    bought = accept(hedged, order(Side.BUY, "1", **SHORT))

    assert (size(hedged, side="long"), size(hedged, side="short")) == (D(0), D(-2))
    assert (sold.realised_usdt, bought.realised_usdt) == (D("-0.1"), D("-0.02"))
    assert sold.reduce_only


@pytest.mark.parametrize("position_side", ["long", "short"])
def test_one_way_accounts_know_no_sides(position_side: str) -> None:
    """The mode and the order must agree, in both directions (recorded: 40774)."""
    assert refuse(made(), order(Side.BUY, "1", position_side=position_side)) == "40774"
    assert refuse(made(hedged=True), order(Side.BUY, "1")) == "40774"


def test_reduce_only_is_ignored_in_hedge_mode(hedged: Venue) -> None:
    """An open with reduceOnly opens (recorded)."""
    opened = accept(hedged, order(Side.BUY, "2", reduce_only=True, **LONG))

    assert size(hedged, side="long") == D(2)
    assert not opened.reduce_only


def test_close_without_a_position_is_refused(hedged: Venue) -> None:
    """There is no short to close beside a long."""
    accept(hedged, order(Side.BUY, "5", **LONG))

    assert refuse(hedged, order(Side.BUY, "1", **SHORT)) == "22002"


def test_market_close_gets_what_limit_closes_leave(hedged: Venue) -> None:
    """Position 100, limit close 70, market close 50: closes 30 (Bitget v2, Place Order)."""
    accept(hedged, order(Side.BUY, "100", **LONG))
    limit = accept(hedged, order(Side.SELL, "70", "105", **LONG))

    closed = accept(hedged, order(Side.SELL, "50", **LONG))

    assert (closed.size, closed.filled) == (D(30), D(30))
    assert size(hedged, side="long") == D(70)
    assert limit.status is OrderStatus.LIVE


def test_limit_closes_that_cover_everything_go_for_a_new_close(hedged: Venue) -> None:
    """Position 100, limit closes 70 and 30: a market close of 50 cancels both and closes 50."""
    accept(hedged, order(Side.BUY, "100", **LONG))
    limits = [accept(hedged, order(Side.SELL, lots, "105", **LONG)) for lots in ("70", "30")]

    closed = accept(hedged, order(Side.SELL, "50", **LONG))

    assert [limit.status for limit in limits] == [OrderStatus.CANCELED] * 2
    assert (closed.filled, size(hedged, side="long")) == (D(50), D(50))


def test_closes_of_the_other_side_occupy_nothing(hedged: Venue) -> None:
    """A limit close of the short is no rival of a close of the long, though both accounts are one."""
    accept(hedged, order(Side.BUY, "10", **LONG))
    accept(hedged, order(Side.SELL, "10", **SHORT))
    waiting = accept(hedged, order(Side.BUY, "10", "95", **SHORT))

    closed = accept(hedged, order(Side.SELL, "10", **LONG))

    assert closed.filled == D(10)
    assert waiting.status is OrderStatus.LIVE


def test_closed_side_takes_only_its_own_closes_with_it(hedged: Venue) -> None:
    """With the long its limit close ends; the short's stays, and so do orders that open."""
    accept(hedged, order(Side.BUY, "10", **LONG))
    accept(hedged, order(Side.SELL, "10", **SHORT))
    of_long = accept(hedged, order(Side.SELL, "4", "105", **LONG))
    of_short = accept(hedged, order(Side.BUY, "10", "95", **SHORT))
    opening = accept(hedged, order(Side.BUY, "1", "95", **LONG))

    hedged.close_at_market("a", NOW, "AUSDT", "long")

    assert (of_long.status, of_long.cancel_reason) == (OrderStatus.CANCELED, "normal_cancel")
    assert of_short.status is opening.status is OrderStatus.LIVE


def test_one_account_may_trade_its_long_against_its_short(hedged: Venue) -> None:
    """Without self-trade prevention its own resting order is as good as anybody's."""
    accept(hedged, order(Side.SELL, "3", "100.00", **SHORT))

    accept(hedged, order(Side.BUY, "3", "100.00", **LONG))

    assert (size(hedged, side="long"), size(hedged, side="short")) == (D(3), D(-3))
    assert hedged.unrealised("a") == 0


def test_both_sides_pay_and_receive_funding(hedged: Venue) -> None:
    """The long pays and the short receives, each on its own size and bill."""
    accept(hedged, order(Side.BUY, "5", **LONG))
    accept(hedged, order(Side.SELL, "3", **SHORT))
    hedged.drain()

    hedged.settle_funding(NOW + HOUR)

    reports = [event for event in hedged.drain() if isinstance(event, FundingReport)]
    assert [(report.size, report.amount_usdt) for report in reports] == [(D(5), D("-0.05")), (D(-3), D("0.03"))]
    assert len({bill.bill_id for bill in hedged.bills("a")}) == len(hedged.bills("a"))


def test_maintenance_counts_the_larger_side_of_a_crossed_hedge(hedged: Venue) -> None:
    """Longs of 5 and shorts of 3 need what 5 need (recorded: max(L, S))."""
    accept(hedged, order(Side.BUY, "5", **LONG))
    accept(hedged, order(Side.SELL, "3", **SHORT))
    assert hedged.maintenance("a") == 500 * D("0.0106")

    accept(hedged, order(Side.SELL, "2", **SHORT))

    assert hedged.maintenance("a") == 500 * D("0.0106")  # even: one side, not none and not two


def test_trades_of_a_hedge_are_billed_by_what_they_do(hedged: Venue) -> None:
    """open_long, close_long, open_short, close_short; one-way trades are buy and sell."""
    for side, position in ((Side.BUY, LONG), (Side.SELL, LONG), (Side.SELL, SHORT), (Side.BUY, SHORT)):
        accept(hedged, order(side, "1", **position))

    assert [bill.kind for bill in hedged.bills("a")] == ["open_long", "close_long", "open_short", "close_short"]


def test_mode_stays_while_anything_is_there() -> None:
    """A position, an order or a plan keeps the position mode (40920) and the margin mode of its symbol (45117)."""
    for used in ("position", "order", "plan"):
        venue = made()
        if used == "position":
            accept(venue, order(Side.BUY, "1"))
        elif used == "order":
            accept(venue, order(Side.BUY, "1", "99"))
        else:
            plan = PlanRequest(
                symbol="AUSDT", plan_type="normal_plan", side=Side.BUY, size=D(1), trigger_price=D(99)
            )  # fmt: skip
            assert isinstance(venue.plans.place("a", plan, NOW), Accepted)

        refusals = venue.set_position_mode("a", "hedge_mode"), venue.set_margin_mode("a", "AUSDT", "isolated")

        assert [refusal.code for refusal in refusals if refusal is not None] == ["40920", "45117"], used
        assert venue.set_position_mode("a", "one_way_mode") is None
        assert venue.set_margin_mode("a", "BUSDT", "isolated") is None


# --------------------------------------------------------------------------------------- isolated margin


def test_margin_is_set_aside_at_the_fill(isolated: Venue) -> None:
    """10 at 100.01 with leverage 10 sets 100.01 aside: equity has it, available has not, the mark does not move it."""
    accept(isolated, order(Side.BUY, "10"))
    mark(isolated, 103.0)

    position = isolated.positions("a")[0]
    assert position.margin_usdt == isolated.isolated_margin("a") == D("100.01")
    assert isolated.equity("a") == D(10_000) - D("0.60006") + D("29.9")
    assert isolated.available("a") == isolated.cross_equity("a") == D(10_000) - D("0.60006") - D("100.01")
    assert isolated.margin_used("a") == D("100.01")


def test_closing_releases_its_share_of_the_margin(isolated: Venue) -> None:
    """Three of ten give three tenths back; the profit goes to the wallet."""
    accept(isolated, order(Side.BUY, "10"))
    deep(isolated, bid=102.01, ask=102.03)

    accept(isolated, order(Side.SELL, "3", reduce_only=True))

    assert isolated.isolated_margin("a") == D("70.007")
    assert isolated.totals("a")[1] == D(6)


def test_turning_sets_aside_for_the_new_position_only(isolated: Venue) -> None:
    """Selling 15 of 10 long leaves 5 short with a tenth of their price as margin."""
    accept(isolated, order(Side.BUY, "10"))

    accept(isolated, order(Side.SELL, "15"))

    assert size(isolated) == D(-5)
    assert isolated.isolated_margin("a") == D("49.995")


def test_funding_comes_out_of_the_position(isolated: Venue) -> None:
    """Its own margin pays, not what is available."""
    accept(isolated, order(Side.BUY, "10"))
    free = isolated.available("a")

    isolated.settle_funding(NOW + HOUR)

    assert isolated.isolated_margin("a") == D("100.01") - D("0.1")
    assert isolated.available("a") == free


def test_margin_can_be_added_and_taken_back(isolated: Venue) -> None:
    """It moves between the position and what is available, shows in the bills, and never touches the balance."""
    accept(isolated, order(Side.BUY, "10"))
    free, balance = isolated.available("a"), isolated.balance("a")

    assert isolated.set_margin("a", "AUSDT", "long", D("50.5"), NOW) is None
    assert (isolated.isolated_margin("a"), isolated.available("a")) == (D("150.51"), free - D("50.5"))
    assert isolated.set_margin("a", "AUSDT", "long", D(-20), NOW) is None

    assert (isolated.isolated_margin("a"), isolated.available("a")) == (D("130.51"), free - D("30.5"))
    assert isolated.balance("a") == balance
    assert [(bill.kind, bill.amount_usdt) for bill in isolated.bills("a")[1:]] == [
        ("append_margin", D("50.5")),
        ("reduce_margin", D(-20)),
    ]


@pytest.mark.parametrize(
    ("symbol", "hold_side", "amount", "code"),
    [
        ("AUSDT", "long", "9900", "40754"),  # more than is available
        ("AUSDT", "long", "-0.02", "40754"),  # below what the leverage needs: 100.01 against 100
        ("AUSDT", "short", "1", "22002"),
        ("BUSDT", "long", "1", "22002"),
        ("NOPEUSDT", "long", "1", "40034"),
        ("AUSDT", "long", "0", "40020"),
        ("AUSDT", "long", "NaN", "40020"),
        ("AUSDT", "long", "1e30", "40020"),
        ("AUSDT", "long", "-Infinity", "40020"),
        ("AUSDT", "long", "0.000000001", "40020"),
    ],
)
def test_margin_that_cannot_move_is_refused(
    isolated: Venue, symbol: str, hold_side: str, amount: str, code: str
) -> None:
    """Each reason has its code and changes nothing."""
    accept(isolated, order(Side.BUY, "10"))
    before = isolated.isolated_margin("a"), isolated.bills("a")

    refusal = isolated.set_margin("a", symbol, hold_side, D(amount), NOW)

    assert isinstance(refusal, Refusal)
    assert refusal.code == code
    assert (isolated.isolated_margin("a"), isolated.bills("a")) == before


def test_crossed_positions_have_no_margin_of_their_own() -> None:
    """set_margin finds nothing to add to."""
    venue = made()
    accept(venue, order(Side.BUY, "10"))

    refusal = venue.set_margin("a", "AUSDT", "long", D(1), NOW)

    assert refusal is not None
    assert refusal.code == "22002"


def test_sides_of_an_isolated_hedge_have_their_own_leverage() -> None:
    """holdSide sets one side, none sets both, and crossed leverage is a third number (recorded: 3, 5, 5)."""
    venue = made(hedged=True, isolated=True, leverage=10)

    assert venue.set_leverage("a", "AUSDT", 20, "short") == 20
    assert (venue.leverage("a", "AUSDT", "long"), venue.leverage("a", "AUSDT", "short")) == (10, 20)
    assert venue.leverage("a", "AUSDT", mode="crossed") == 10
    accept(venue, order(Side.BUY, "2", "100.01", **LONG))
    accept(venue, order(Side.SELL, "2", "99.99", **SHORT))
    assert [position.margin_usdt for position in venue.positions("a")] == [D("20.002"), D("9.999")]
    assert venue.set_leverage("a", "AUSDT", 40) == 40
    assert (venue.leverage("a", "AUSDT", "long"), venue.leverage("a", "AUSDT", "short")) == (40, 40)


def test_leverage_of_an_isolated_position_moves_its_margin(isolated: Venue) -> None:
    """Halving the leverage doubles the margin, and what was added by hand stays on top."""
    accept(isolated, order(Side.BUY, "10"))
    isolated.set_margin("a", "AUSDT", "long", D(7), NOW)

    assert isolated.set_leverage("a", "AUSDT", 5) == 5

    assert isolated.isolated_margin("a") == D("200.02") + 7


def test_leverage_that_would_lose_an_isolated_position_is_refused(isolated: Venue) -> None:
    """At 50x two per cent of margin do not carry a loss of three."""
    accept(isolated, order(Side.BUY, "10"))
    mark(isolated, 97.0)
    free = isolated.available("a")

    refused = isolated.set_leverage("a", "AUSDT", 50)

    assert isinstance(refused, Refusal)
    assert refused.code == "40754"
    assert (isolated.leverage("a", "AUSDT"), isolated.isolated_margin("a")) == (10, D("100.01"))
    assert isolated.available("a") == isolated.cross_equity("a") == free


def test_new_rules_hold_for_what_is_held_already() -> None:
    """Another ladder, or another fee of closing, is what a position must be carried by from now on."""
    venue = made()
    accept(venue, order(Side.BUY, "5"))
    assert venue.maintenance("a") == 500 * (D("0.01") + D("0.0006"))

    venue.set_tiers("AUSDT", (msgspec.structs.replace(ONE_STEP[0], maintenance_rate=D("0.02")),))
    assert venue.maintenance("a") == 500 * (D("0.02") + D("0.0006"))
    venue.set_contract(contract(taker_fee=D("0.001")))
    assert venue.maintenance("a") == 500 * (D("0.02") + D("0.001"))


def test_leverage_helps_an_account_in_need() -> None:
    """A higher one is taken even where it does not free enough; a lower one needs what it takes."""
    venue = made(leverage=10)
    deep(venue)
    accept(venue, order(Side.BUY, "900"))
    mark(venue, 98.0)
    venue.deposit("a", -venue.available("a") - 8_000)
    assert venue.available("a") == -8_000

    lower, higher = venue.set_leverage("a", "AUSDT", 9), venue.set_leverage("a", "AUSDT", 20)

    assert isinstance(lower, Refusal)
    assert (lower.code, higher) == ("40754", 20)
    assert venue.available("a") == -8_000 + 98 * 900 / D(20)


def test_leverage_beyond_the_step_of_the_notional_is_refused() -> None:
    """A position of 250,000 USDT stands on BTC's second step: 100x at most."""
    venue = made()
    ladder = venue.tiers("AUSDT")
    high = ladder[0].__class__(
        level=2, start_usdt=D(500), end_usdt=D(10**6), leverage_max=20, maintenance_rate=D("0.03")
    )
    low = ladder[0].__class__(level=1, start_usdt=D(0), end_usdt=D(500), leverage_max=50, maintenance_rate=D("0.01"))
    venue.set_tiers("AUSDT", (low, high))
    accept(venue, order(Side.BUY, "10"))

    refused = venue.set_leverage("a", "AUSDT", 25)

    assert isinstance(refused, Refusal)
    assert (refused.code, refused.message) == ("40797", "Exceeded the maximum settable leverage 20")
    assert venue.set_leverage("a", "AUSDT", 20) == 20


def test_order_brings_its_margin_mode(isolated: Venue) -> None:
    """Where nothing is in use an order's mode becomes the symbol's; where something is, another one is refused."""
    accept(isolated, order(Side.BUY, "1", margin_mode="crossed"))

    assert isolated.margin_mode("a", "AUSDT") == "crossed"
    assert isolated.isolated_margin("a") == 0
    assert refuse(isolated, order(Side.BUY, "1", margin_mode="isolated")) == "45117"
    assert refuse(isolated, order(Side.SELL, "1", reduce_only=True, margin_mode="isolated")) == "45117"


def test_isolated_close_never_trades_beyond_bankruptcy(isolated: Venue) -> None:
    """With a margin of a tenth, a market close takes bids above 90.06 and leaves the rest to the liquidation."""
    accept(isolated, order(Side.BUY, "10"))
    isolated.set_book("AUSDT", [(95.0, 4.0), (89.0, 50.0)], [(96.0, 1.0)], NOW)

    closed = accept(isolated, order(Side.SELL, "10", reduce_only=True))

    assert (closed.filled, closed.status) == (D(4), OrderStatus.CANCELED)
    resting = accept(isolated, order(Side.SELL, "6", "90.05", reduce_only=True))
    assert (resting.status, resting.cancel_reason) == (OrderStatus.CANCELED, "risk_cancel")


def test_loss_of_a_part_beyond_its_share_eats_the_rest(isolated: Venue) -> None:
    """What a crossing order loses beyond the released margin comes out of the margin that stays."""
    accept(isolated, order(Side.BUY, "10"))
    isolated.set_book("AUSDT", [(80.0, 4.0)], [(96.0, 1.0)], NOW)
    free = isolated.available("a")

    sold = accept(isolated, order(Side.SELL, "4", "90"))  # no close by its own word: rests where it crosses nothing
    isolated.set_book("AUSDT", [(90.0, 4.0)], [(96.0, 1.0)], NOW)

    assert sold.realised_usdt == D("-40.04")
    assert isolated.isolated_margin("a") == D("100.01") - D("40.04")
    assert isolated.available("a") == free - sold.fee_usdt


# --------------------------------------------------------------------------------------------- histories


def test_closed_position_tells_its_whole_life(hedged: Venue) -> None:
    """Opened in two, closed in two, funded once: averages, sizes, fees of both kinds, and the moments."""
    accept(hedged, order(Side.BUY, "2", **LONG))
    deep(hedged, bid=101.99, ask=102.01)
    accept(hedged, order(Side.BUY, "3", **LONG))
    hedged.settle_funding(NOW + HOUR)
    accept(hedged, order(Side.SELL, "1", **LONG))
    hedged.drain()

    accept(hedged, order(Side.SELL, "4", **LONG))

    (told,) = (event for event in hedged.drain() if isinstance(event, ClosedPosition))
    assert hedged.closed_positions("a") == [told]
    assert (told.hold_side, told.is_hedged, told.margin_mode) == ("long", True, "crossed")
    assert (told.opened_size, told.closed_size) == (D(5), D(5))
    assert told.open_average == (2 * D("100.01") + 3 * D("102.01")) / 5
    assert told.close_average == D("101.99")
    assert told.realised_usdt == 5 * D("101.99") - 2 * D("100.01") - 3 * D("102.01")
    assert told.funding_usdt == D("-0.05")
    assert told.open_fee_usdt == (2 * D("100.01") + 3 * D("102.01")) * D("0.0006")
    assert told.close_fee_usdt == 5 * D("101.99") * D("0.0006")


def test_turning_ends_one_position_and_begins_another() -> None:
    """In one-way mode the fee of a turning trade is split between the two, and reduce-only orders end with the old one."""
    venue = made()
    deep(venue)
    accept(venue, order(Side.BUY, "3"))
    reducer = accept(venue, order(Side.SELL, "3", "105", reduce_only=True))
    old = venue.positions("a")[0].position_id

    accept(venue, order(Side.SELL, "5"))

    (closed,) = venue.closed_positions("a")
    position = venue.positions("a")[0]
    assert (closed.position_id, closed.close_fee_usdt) == (old, 3 * D("99.99") * D("0.0006"))
    assert position.position_id != old
    assert position.fees_usdt == 2 * D("99.99") * D("0.0006")
    assert (reducer.status, reducer.cancel_reason) == (OrderStatus.CANCELED, "reduce_only_cancel")


def test_dead_reducer_does_not_stand_in_the_book() -> None:
    """What was to reduce a position that has turned is gone, so nobody rests across it."""
    venue = made()
    venue.set_book("AUSDT", [], [], NOW)
    accept(venue, order(Side.SELL, "3", "100"), "b")
    accept(venue, order(Side.BUY, "3", "100"))
    accept(venue, order(Side.SELL, "3", "100.5", reduce_only=True))
    accept(venue, order(Side.BUY, "5", "99"), "b")
    accept(venue, order(Side.SELL, "5", "99"))  # turns it

    bid = accept(venue, order(Side.BUY, "1", "101", kind=OrderKind.POST_ONLY), "b")

    assert bid.status is OrderStatus.LIVE


def test_available_counts_what_orders_would_open(hedged: Venue) -> None:
    """A close holds no margin; in one-way mode an order against the position holds it for what goes beyond."""
    free = hedged.available("a")
    accept(hedged, order(Side.BUY, "10", "99", **LONG))
    assert hedged.available("a") == free - 99
    one_way = made()
    deep(one_way)
    accept(one_way, order(Side.BUY, "10"))
    held = one_way.available("a")

    first = accept(one_way, order(Side.SELL, "6", "105"))
    second = accept(one_way, order(Side.SELL, "6", "110"))

    assert held - one_way.available("a") == Decimal(2) * 110 / 10
    one_way.cancel("a", "AUSDT", NOW, order_id=first.order_id)
    assert one_way.available("a") == held
    assert second.status is OrderStatus.LIVE
