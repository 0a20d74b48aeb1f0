"""Trigger orders: when they fire, how often, what they send, and what ends them."""

from __future__ import annotations

from typing import Any

import pytest

from shared.simulator.venue.orders import (
    Accepted,
    Fill,
    OrderReport,
    OrderRequest,
    PlanReport,
)
from shared.types import OrderKind, OrderStatus, Side
from tests.shared.simulator.plan_world import NAN, D, Market, status, trailing, trigger, whole


@pytest.fixture
def market() -> Market:
    return Market()


# --------------------------------------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("at", "not_yet", "crossing"),
    [("101", ["100.99", "99"], "101"), ("99", ["99.01", "102"], "98.5")],
    ids=["from below", "from above"],
)
@pytest.mark.parametrize("side", list(Side))
def test_normal_plan_fires_when_its_trigger_is_crossed(
    market: Market, side: Side, at: str, not_yet: list[str], crossing: str
) -> None:
    """Either direction: what counts is where the price stood at placement, not which way the order trades."""
    plan = market.place(trigger(side, at))
    for price in not_yet:
        market.price(price)
    assert status(plan) == "live"

    market.price(crossing)

    assert status(plan) == "executed"
    assert market.size() == side.sign


def test_plan_on_the_last_price_does_not_watch_the_mark(market: Market) -> None:
    """fill_price is the last trade, public or own; the mark may be anywhere."""
    market.trade("100")
    plan = market.place(trigger(Side.BUY, "101", trigger_type="fill_price"))
    market.venue.set_mark("AUSDT", 105.0, NAN, NAN, market.now_ns)
    assert status(plan) == "live"

    market.trade("101")

    assert status(plan) == "executed"


def test_print_is_seen_before_what_it_fills(market: Market) -> None:
    """A print through a resting order leaves that order's price as the last one: the print counts all the same."""
    resting = OrderRequest(symbol="AUSDT", side=Side.SELL, kind=OrderKind.LIMIT, size=D(1), price=D("100.5"))
    assert isinstance(market.venue.place("b", resting, market.now_ns), Accepted)
    plan = market.place(trigger(Side.BUY, "101", trigger_type="fill_price"))

    market.trade("101")

    assert market.size("b") == -1
    assert status(plan) == "executed"


def test_plan_on_the_mark_does_not_watch_trades(market: Market) -> None:
    """A print through the trigger leaves a mark_price plan alone: that is what the mark is for."""
    plan = market.place(trigger(Side.BUY, "101"))

    market.trade("105")

    assert status(plan) == "live"


def test_plan_at_the_very_price_fires_at_the_next_look(market: Market) -> None:
    """A trigger where the price stands has nothing to cross."""
    plan = market.place(trigger(Side.BUY, "100"))

    market.price("100.5")

    assert status(plan) == "executed"


def test_trailing_plan_follows_the_best_price_and_fires_on_the_way_back(market: Market) -> None:
    """Sell: it starts at 102, the highest since is 110, and 2 per cent below that is 107.8."""
    plan = market.place(trailing(Side.SELL, "102", "2"))
    for price in ("101", "99", "102", "101.5", "110", "107.81"):
        market.price(price)
        assert status(plan) == "live", price
    assert plan.peak == 110

    market.price("107.8")

    assert status(plan) == "executed"


def test_trailing_plan_that_buys_follows_the_lowest_price(market: Market) -> None:
    """Buy: it starts at 98, the lowest since is 90, and 1 per cent above that is 90.9."""
    plan = market.place(trailing(Side.BUY, "98", "1"))
    for price in ("99", "98", "98.5", "90", "90.89"):
        market.price(price)
        assert status(plan) == "live", price

    market.price("90.9")

    assert status(plan) == "executed"
    assert market.size() == 1


def test_trailing_plan_that_has_not_started_does_not_fire(market: Market) -> None:
    """A fall of any size before the trigger price is nobody's trailing stop."""
    plan = market.place(trailing(Side.SELL, "102", "2"))

    market.price("80")

    assert (status(plan), plan.peak) == ("live", None)


def test_trailing_plan_placed_at_the_very_price_has_started(market: Market) -> None:
    """Its start is reached: a fall from there fires it although the price was never above."""
    plan = market.place(trailing(Side.SELL, "100", "1"))

    market.price("98.9")

    assert status(plan) == "executed"


def test_moving_plan_closes_its_size_of_the_position(market: Market) -> None:
    """The trailing stop of a position: rangeRate per cent below the best price closes what it says."""
    market.enter(Side.BUY, "3")
    plan = market.place(trigger(Side.SELL, "101", "2", plan_type="moving_plan", callback_ratio=D(1)))
    market.price("105")

    market.price("103.95")

    assert status(plan) == "executed"
    assert market.size() == 1


@pytest.mark.parametrize(
    ("side", "stop", "target"), [(Side.BUY, "99", "101"), (Side.SELL, "101", "99")], ids=["long", "short"]
)
def test_sized_stop_and_target_close_a_part(market: Market, side: Side, stop: str, target: str) -> None:
    """loss_plan and profit_plan close their size and leave the rest of the position to itself."""
    market.enter(side, "3")
    loss = market.place(trigger(side.opposite, stop, plan_type="loss_plan"))
    profit = market.place(trigger(side.opposite, target, plan_type="profit_plan"))

    market.price(target)
    assert (status(profit), status(loss)) == ("executed", "live")
    assert market.size() == 2 * side.sign

    market.price(stop)
    assert status(loss) == "executed"
    assert market.size() == 1 * side.sign


def test_sized_stop_never_closes_more_than_there_is(market: Market) -> None:
    """A part of the position was closed meanwhile: the stop closes what is left and opens nothing."""
    market.enter(Side.BUY, "3")
    plan = market.place(trigger(Side.SELL, "99", "3", plan_type="loss_plan"))
    market.enter(Side.SELL, "2", reduce_only=True)

    market.price("98.9")

    assert status(plan) == "executed"
    assert market.size() == 0


# ------------------------------------------------------------------------------ protections of a position


def test_placing_a_whole_stop_again_changes_it_in_place(market: Market) -> None:
    """Recorded: the same ids, whatever client id came with it, and a new update time."""
    market.enter(Side.BUY, "3")
    first = market.place(whole(Side.SELL, "95", "pos_loss", client_oid="mine"))
    created_ns = market.now_ns
    market.price("100")

    again = market.place(whole(Side.SELL, "97", "pos_loss", client_oid="another"))

    assert again is first
    assert (again.client_oid, again.request.trigger_price) == ("mine", D(97))
    assert (again.created_ns, again.updated_ns) == (created_ns, market.now_ns)
    assert market.plans.pending("a") == [first]


def test_whole_stop_closes_what_the_position_is_then(market: Market) -> None:
    """pos_loss has no size: it closes what was added after it, too."""
    market.enter(Side.BUY, "1")
    plan = market.place(whole(Side.SELL, "99", "pos_loss"))
    market.enter(Side.BUY, "2")

    market.price("98.9")

    order = market.venue.order("a", order_id=plan.execute_order_id)
    assert order is not None
    assert (order.size, order.source, order.reduce_only) == (D(3), "stop_loss", True)
    assert market.size() == 0


def test_presets_of_an_entry_become_plans_of_its_position(market: Market) -> None:
    """What rides on an entry is listed as pos_loss and pos_profit, and the position says so."""
    market.enter(Side.BUY, "1", stop_loss=D(95), take_profit=D(110))

    kinds = [(p.request.plan_type, p.request.side, p.request.trigger_price) for p in market.plans.pending("a")]
    assert kinds == [("pos_loss", Side.SELL, 95), ("pos_profit", Side.SELL, 110)]
    position = market.venue.position("a", "AUSDT")
    assert position is not None
    assert (position.stop_loss, position.take_profit) == (D(95), D(110))


def test_presets_of_a_second_entry_move_the_first_ones(market: Market) -> None:
    """The position has one stop: the later entry's, in the plan of the earlier; a leg that it does not name stays."""
    market.enter(Side.BUY, "1", stop_loss=D(95), take_profit=D(110))
    stop, target = market.plans.protection("a", "AUSDT", "net")

    market.enter(Side.BUY, "1", stop_loss=D(96))

    assert market.plans.protection("a", "AUSDT", "net") == (stop, target)
    assert (stop.request.trigger_price, target.request.trigger_price) == (96, 110)


def test_presets_of_an_order_that_only_closes_protect_nothing(market: Market) -> None:
    """A sale out of a long has no position of its own to protect."""
    market.enter(Side.BUY, "2")

    market.enter(Side.SELL, "1", stop_loss=D(105))

    assert market.plans.pending("a") == []


def test_closing_the_position_ends_its_protections_only(market: Market) -> None:
    """Recorded: pos_* plans go with the position; sized ones too; a trigger order has nothing to do with it."""
    market.enter(Side.BUY, "3", stop_loss=D(95), take_profit=D(110))
    market.place(trigger(Side.SELL, "96", plan_type="loss_plan"))
    market.place(trigger(Side.SELL, "104", plan_type="moving_plan", callback_ratio=D(1)))
    order = market.place(trigger(Side.BUY, "120"))

    market.enter(Side.SELL, "3", reduce_only=True)

    assert market.plans.pending("a") == [order]
    assert {p.status for p in market.plans.history("a")} == {"cancelled"}
    assert len(market.plans.history("a")) == 4


def test_turning_a_position_round_ends_the_protections_of_the_old_one(market: Market) -> None:
    """One-way: long 1, sell 3 with a stop above: the long's stop is gone, the short's stands."""
    market.enter(Side.BUY, "1", stop_loss=D(95))
    old, _ = market.plans.protection("a", "AUSDT", "net")

    market.enter(Side.SELL, "3", stop_loss=D(105))

    new, _ = market.plans.protection("a", "AUSDT", "net")
    assert status(old) == "cancelled"
    assert (new.request.side, new.request.trigger_price) == (Side.BUY, 105)
    position = market.venue.position("a", "AUSDT")
    assert position is not None
    assert (position.size, position.stop_loss) == (D(-2), D(105))


def test_closing_one_side_of_a_hedge_leaves_the_other_protected(market: Market) -> None:
    """Long and short of one symbol have each their own stop, and each its own end."""
    market.venue.set_position_mode("a", "hedge_mode")
    for side, position_side in ((Side.BUY, "long"), (Side.SELL, "short")):
        market.enter(side, "1", position_side=position_side, stop_loss=D(100) - side.sign * 5)
    short, _ = market.plans.protection("a", "AUSDT", "short")

    market.price("94.9")

    assert market.plans.pending("a") == [short]
    assert [(p.position_side, p.size) for p in market.venue.positions("a")] == [("short", D(-1))]
    market.price("105.1")
    assert market.venue.positions("a") == market.plans.pending("a") == []


def test_position_forgets_a_cancelled_stop(market: Market) -> None:
    """What the position says of its protection is what is live."""
    market.enter(Side.BUY, "1", stop_loss=D(95))
    stop, _ = market.plans.protection("a", "AUSDT", "net")

    assert isinstance(market.plans.cancel("a", market.now_ns, order_id=stop.order_id), Accepted)

    position = market.venue.position("a", "AUSDT")
    assert position is not None
    assert position.stop_loss is None
    market.price("90")
    assert market.size() == 1


def test_rest_that_the_book_could_not_take_stays_protected(market: Market) -> None:
    """Each plan fires once; the rest is protected by the next one, of the same trigger, and closes with the next book."""
    market.enter(Side.BUY, "3", stop_loss=D(99))
    first, _ = market.plans.protection("a", "AUSDT", "net")
    market.now_ns += 1
    market.venue.set_book("AUSDT", [(98.0, 1.0)], [(99.5, 1.0)], market.now_ns)
    market.venue.set_mark("AUSDT", 98.5, NAN, NAN, market.now_ns)

    second, _ = market.plans.protection("a", "AUSDT", "net")
    assert (market.size(), status(first)) == (D(2), "executed")
    assert second is not first
    assert second.request.trigger_price == 99

    market.trade("98")
    assert status(second) == "live"  # a trade brings no new book
    market.price("98.5")
    assert (market.size(), status(second)) == (D(0), "executed")
    assert market.plans.pending("a") == []


def test_limit_stop_rests_where_it_says(market: Market) -> None:
    """executePrice makes it a limit order: it waits in the book, and nothing is armed twice meanwhile."""
    market.enter(Side.BUY, "3")
    plan = market.place(whole(Side.SELL, "99", "pos_loss", execute_price=D("99.5")))

    market.price("98.9")

    order = market.venue.order("a", order_id=plan.execute_order_id)
    assert order is not None
    assert (order.status, order.price, order.kind) == (OrderStatus.LIVE, D("99.5"), OrderKind.LIMIT)
    assert (status(plan), market.plans.pending("a"), market.size()) == ("executed", [], D(3))
    market.price("99.8")
    assert market.size() == 0


def test_stop_and_target_of_one_jump_close_once(market: Market) -> None:
    """Mark and last price may reach both in one step: the first closes, the other ends with the position."""
    market.trade("100")
    market.enter(Side.BUY, "1")
    stop = market.place(whole(Side.SELL, "99", "pos_loss", trigger_type="fill_price"))
    target = market.place(whole(Side.SELL, "101", "pos_profit"))
    market.book("98.5")

    market.venue.set_mark("AUSDT", 101.0, NAN, NAN, market.now_ns)

    assert (status(target), status(stop)) == ("executed", "cancelled")
    assert market.size() == 0


def test_stop_goes_before_a_target_that_the_same_price_reaches(market: Market) -> None:
    """Two entries of different times fill in one book: the stop of one is above the target of the other."""

    def rest(price: str, **preset: Any) -> None:
        request = OrderRequest(symbol="AUSDT", side=Side.BUY, kind=OrderKind.LIMIT, size=D(1), price=D(price), **preset)
        assert isinstance(market.venue.place("a", request, market.now_ns), Accepted)

    rest("99.9", take_profit=D("100.5"))
    market.price("102")
    rest("101.9", stop_loss=D("101.5"))
    market.book("99.8")
    stop, target = market.plans.protection("a", "AUSDT", "net")

    market.venue.set_mark("AUSDT", 101.0, NAN, NAN, market.now_ns)

    assert (status(stop), status(target), market.size()) == ("executed", "cancelled", D(0))


# ------------------------------------------------------------------------------------- what is sent


def test_reports_tell_the_whole_life(market: Market) -> None:
    """live, executing, then the order's own reports, then executed; each report is a copy."""
    market.place(trigger(Side.BUY, "101"))

    market.price("101")

    events = [e for e in market.venue.drain() if isinstance(e, PlanReport | OrderReport | Fill)]
    told = [e.plan.status if isinstance(e, PlanReport) else type(e).__name__ for e in events]
    assert told == ["live", "executing", "OrderReport", "Fill", "OrderReport", "executed"]
    last = events[-1]
    assert isinstance(last, PlanReport)
    assert last.plan.triggered_ns == market.now_ns
    assert last.plan.execute_order_id == market.venue.closed("a")[-1].order_id


def test_order_that_is_refused_fails_the_plan(market: Market) -> None:
    """A trigger order holds no margin: if there is none when it fires, the refusal is written down and nothing trades."""
    plan = market.place(trigger(Side.BUY, "101", "1000"))
    market.venue.set_leverage("a", "AUSDT", 1)

    market.price("101")

    assert status(plan) == "fail_execute"
    assert plan.fail_reason.startswith("40762 ")
    assert (plan.execute_order_id, market.size()) == ("", D(0))
    assert market.venue.closed("a") == []
    market.price("102")
    assert market.plans.history("a") == [plan]


def test_reduce_only_plan_without_a_position_fails(market: Market) -> None:
    """Nothing to close when it fires: 22002, as for an order."""
    plan = market.place(trigger(Side.SELL, "101", reduce_only=True))

    market.price("101")

    assert (status(plan), plan.fail_reason) == ("fail_execute", "22002 No position to close")


def test_order_of_a_plan_carries_its_presets(market: Market) -> None:
    """Protections that ride on a plan belong to the position that its order opens, and watch what they say."""
    market.place(trigger(Side.BUY, "101", stop_loss=D(98), take_profit=D(106), take_profit_type="fill_price"))

    market.price("101")

    stop, target = market.plans.protection("a", "AUSDT", "net")
    assert (stop.request.trigger_price, stop.request.trigger_type) == (98, "mark_price")
    assert (target.request.trigger_price, target.request.trigger_type) == (106, "fill_price")


def test_presets_of_a_trailing_plan_are_shares_of_the_price_it_fires_at(market: Market) -> None:
    """track_plan: 5 per cent below and 10 above the 90.9 at which it bought, on the tick."""
    market.place(trailing(Side.BUY, "98", "1", stop_loss=D(5), take_profit=D(10)))
    market.price("90")

    market.price("90.9")

    stop, target = market.plans.protection("a", "AUSDT", "net")
    assert (stop.request.trigger_price, target.request.trigger_price) == (D("86.36"), D("99.99"))


def test_price_of_its_own_order_fires_the_next_plan(market: Market) -> None:
    """What a triggered order trades at is a last price: the plan behind it fires in its turn, once."""
    market.trade("100")
    second = market.place(trigger(Side.BUY, "100.51", trigger_type="fill_price"), "b")
    first = market.place(trigger(Side.BUY, "100.5"))
    market.venue.drain()

    market.price("100.5")

    fired = [
        e.plan.order_id for e in market.venue.drain() if isinstance(e, PlanReport) and e.plan.status == "executing"
    ]
    assert fired == [first.order_id, second.order_id]


def test_plans_of_one_price_fire_in_the_order_of_their_placement(market: Market) -> None:
    """Whoever they belong to: as orders of one price would."""
    plans = [market.place(trigger(Side.BUY, "101"), account) for account in ("b", "a", "b")]
    market.venue.drain()

    market.price("101")

    reports = [event.plan for event in market.venue.drain() if isinstance(event, PlanReport)]
    assert [p.order_id for p in reports if p.status == "executing"] == [plan.order_id for plan in plans]


def test_stop_that_moves_within_a_match_forgets_what_reached_it(market: Market) -> None:
    """A print reaches the old trigger, the next fill of the same match brings a preset: the new one counts."""
    market.trade("100")
    market.enter(Side.BUY, "1", stop_loss=D("99.5"), stop_loss_type="fill_price")
    resting = OrderRequest(
        symbol="AUSDT", side=Side.BUY, kind=OrderKind.LIMIT, size=D(1), price=D(99), stop_loss=D(95),
        stop_loss_type="fill_price",
    )  # fmt: skip
    assert isinstance(market.venue.place("a", resting, market.now_ns), Accepted)
    stop, _ = market.plans.protection("a", "AUSDT", "net")

    market.trade("98.9", Side.SELL)

    assert status(stop) == "live"
    assert (market.size(), stop.request.trigger_price) == (D(2), D(95))


def test_broken_stops_never_trigger(market: Market) -> None:
    """A misbehaviour: the condition holds and nothing happens; once mended, what holds then fires."""
    market.enter(Side.BUY, "1", stop_loss=D(99))
    market.plans.is_broken = True
    market.price("95")
    market.price("99.5")
    assert market.size() == 1

    market.plans.is_broken = False
    market.price("99.4")
    assert market.size() == 1

    market.price("98.9")
    assert market.size() == 0
