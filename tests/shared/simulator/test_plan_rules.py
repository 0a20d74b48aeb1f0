"""Trigger orders: what is refused and by which code, what may be changed and cancelled."""

from __future__ import annotations

import pytest

from shared.simulator.venue import checks, plan_rules
from shared.simulator.venue.orders import (
    Accepted,
    PlanChange,
    PlanRequest,
    Refusal,
)
from shared.types import Side
from tests.shared.simulator.plan_world import D, Market, contract, status, trailing, trigger, whole


@pytest.fixture
def market() -> Market:
    return Market()


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("held", "kind", "at", "code"),
    [
        (Side.BUY, "loss", "100.01", "40917"),
        (Side.BUY, "loss", "100", "40917"),
        (Side.BUY, "profit", "99.99", "40915"),
        (Side.SELL, "loss", "99.99", "45122"),
        (Side.SELL, "profit", "100", "40832"),
    ],
)
@pytest.mark.parametrize("is_whole", [True, False])
def test_protection_on_the_wrong_side_is_refused(
    market: Market, held: Side, kind: str, at: str, code: str, is_whole: bool
) -> None:
    """It would fire at once: each of the four has its own code; a live one of the right side stays as it was."""
    market.enter(held, "1")
    request = (
        whole(held.opposite, at, f"pos_{kind}") if is_whole else trigger(held.opposite, at, plan_type=f"{kind}_plan")
    )

    assert market.refuse(request) == code


def test_wrong_side_says_the_mark() -> None:
    """Recorded words, with the mark as the exchange prints it."""
    long_stop = checks.wrong_side(True, True, D("84000"), D("83478.20"))
    short_stop = checks.wrong_side(False, True, D("100"), D("106.86"))

    assert long_stop == Refusal("40917", "Stop price for long positions please < mark price 83478.2")
    assert short_stop == Refusal("45122", "Short position stop loss price please > mark price 106.86")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (trigger(Side.BUY, "0"), "40020"),
        (trigger(Side.BUY, "-1"), "40020"),
        (trigger(Side.BUY, "101.001"), "40808"),
        (trigger(Side.BUY, "101", execute_price=D("101.005")), "40808"),
        (trigger(Side.BUY, "101", execute_price=D("-1")), "40020"),
        (trigger(Side.BUY, "1e16"), "40020"),
        (trigger(Side.BUY, "101", "0"), "40020"),
        (trigger(Side.BUY, "101", "-1"), "40020"),
        (trigger(Side.BUY, "101", "1.05"), "40808"),
        (trigger(Side.BUY, "101", "1000.1"), "45112"),
        (trigger(Side.BUY, "101", client_oid="not good"), "40304"),
        (trigger(Side.BUY, "101", client_oid="x" * 51), "40304"),
        (trigger(Side.BUY, "101", position_side="long"), "40774"),
        (trigger(Side.BUY, "101", stop_loss=D(102)), "45066"),
        (trigger(Side.BUY, "101", take_profit=D(100)), "45064"),
        (trigger(Side.SELL, "101", stop_loss=D(100)), "45067"),
        (trigger(Side.SELL, "101", take_profit=D(101)), "45065"),
        (trigger(Side.BUY, "101", stop_loss=D("99.999")), "40808"),
        (trailing(Side.SELL, "99", "1"), "43035"),
        (trailing(Side.BUY, "101", "1"), "43034"),
        (trailing(Side.BUY, "99", "10.1"), "40020"),
        (trailing(Side.BUY, "99", "0"), "40020"),
        (trigger(Side.BUY, "99", plan_type="track_plan"), "40019"),
        (trailing(Side.BUY, "99", "1", stop_loss=D(1000)), "40020"),
        (trigger(Side.SELL, "101", plan_type="moving_plan", callback_ratio=D("0.001")), "43032"),
        (trigger(Side.SELL, "99", plan_type="loss_plan"), "43023"),
        (trigger(Side.BUY, "101", callback_ratio=D(1)), "40020"),
        (trailing(Side.BUY, "99", "1", execute_price=D(99)), "40020"),
        (whole(Side.SELL, "99", "pos_loss"), "43023"),
    ],
)
def test_bad_plan_gets_bitgets_code(market: Market, request_: PlanRequest, code: str) -> None:
    """Every violation has its own code, and a refused plan leaves no trace."""
    assert market.refuse(request_) == code


@pytest.mark.parametrize(("status", "code"), [("off", "40309"), ("maintain", "40844"), ("limit_open", None)])
def test_symbol_that_does_not_trade_takes_no_plans(market: Market, status: str, code: str | None) -> None:
    """No new plans where nothing trades; where only opening is stopped, protections are still taken."""
    market.enter(Side.BUY, "1")
    market.venue.set_contract(contract(status=status))

    request = whole(Side.SELL, "99", "pos_loss")

    if code is None:
        assert market.place(request).status == "live"
    else:
        assert market.refuse(request) == code


def test_unknown_symbol_is_refused(market: Market) -> None:
    """40034, as everywhere."""
    request = PlanRequest(symbol="NOPEUSDT", plan_type="normal_plan", side=Side.BUY, size=D(1), trigger_price=D(1))

    assert market.refuse(request) == "40034"


def test_symbol_without_any_price_takes_no_plans(market: Market) -> None:
    """There is nothing to cross yet."""
    request = PlanRequest(symbol="BUSDT", plan_type="normal_plan", side=Side.BUY, size=D(1), trigger_price=D(1))

    assert market.refuse(request) == "40823"


def test_protection_needs_its_position(market: Market) -> None:
    """The wrong side, or more than is held: the position is insufficient."""
    market.enter(Side.BUY, "2")

    assert market.refuse(trigger(Side.BUY, "101", plan_type="loss_plan")) == "43023"
    assert market.refuse(trigger(Side.SELL, "99", "2.1", plan_type="loss_plan")) == "43023"
    assert market.place(trigger(Side.SELL, "99", "2", plan_type="loss_plan")).status == "live"


def test_client_oid_is_unique_among_live_plans(market: Market) -> None:
    """As with orders: taken while live, free again afterwards; another account has its own."""
    plan = market.place(trigger(Side.BUY, "101", client_oid="one"))
    market.place(trigger(Side.BUY, "101", client_oid="one"), "b")
    assert market.refuse(trigger(Side.BUY, "102", client_oid="one")) == "40786"

    market.plans.cancel("a", market.now_ns, order_id=plan.order_id)

    assert market.place(trigger(Side.BUY, "102", client_oid="one")) is not plan


def test_plans_of_a_symbol_are_counted(market: Market) -> None:
    """Trigger orders, protections and both together have a limit of their own, each with its code."""
    market.enter(Side.BUY, "1")
    for _ in range(plan_rules.PLANS_PER_SYMBOL_MAX):
        market.place(trigger(Side.BUY, "101"))
    assert market.refuse(trigger(Side.BUY, "101")) == "40889"
    for _ in range(plan_rules.TRIGGERS_PER_SYMBOL_MAX - plan_rules.PLANS_PER_SYMBOL_MAX):
        market.place(trigger(Side.SELL, "99", plan_type="loss_plan"))
    assert market.refuse(trigger(Side.SELL, "99", plan_type="loss_plan")) == "43071"

    for plan in market.plans.pending("a", None, ["normal_plan"]):
        market.plans.cancel("a", market.now_ns, order_id=plan.order_id)
    while len(market.plans.pending("a")) < plan_rules.PROTECTIONS_PER_SYMBOL_MAX:
        market.place(trigger(Side.SELL, "99", plan_type="loss_plan"))
    assert market.refuse(trigger(Side.SELL, "99", plan_type="loss_plan")) == "40890"


# --------------------------------------------------------------------------------- changing, cancelling


def test_modified_trigger_counts_from_where_the_price_stands_now(market: Market) -> None:
    """The way to the new trigger may lead the other direction."""
    plan = market.place(trigger(Side.BUY, "101"))

    answer = market.plans.modify("a", PlanChange(trigger_price=D(99)), market.now_ns, order_id=plan.order_id)

    assert answer == Accepted(plan.order_id, plan.client_oid)
    market.price("101")
    assert status(plan) == "live"
    market.price("99")
    assert status(plan) == "executed"


def test_modified_trailing_plan_starts_anew_only_with_a_new_trigger(market: Market) -> None:
    """Another ratio keeps the best price; another trigger forgets it."""
    plan = market.place(trailing(Side.SELL, "101", "5"))
    market.price("110")
    market.price("109.5")

    answers = [market.plans.modify("a", PlanChange(callback_ratio=D(1)), market.now_ns, order_id=plan.order_id)]
    kept = plan.peak
    answers += [market.plans.modify("a", PlanChange(trigger_price=D(111)), market.now_ns, order_id=plan.order_id)]
    assert answers == [Accepted(plan.order_id, plan.client_oid)] * 2
    assert (kept, plan.peak) == (D(110), None)

    market.price("108")
    assert status(plan) == "live"


def test_zero_takes_an_optional_value_away(market: Market) -> None:
    """0 as execute price is market, 0 as preset is none; what is not named stays."""
    plan = market.place(trigger(Side.BUY, "101", execute_price=D(102), stop_loss=D(95), take_profit=D(110)))

    change = PlanChange(execute_price=D(0), stop_loss=D(0))
    answer = market.plans.modify("a", change, market.now_ns, order_id=plan.order_id)

    assert isinstance(answer, Accepted)
    request = plan.request
    assert (request.execute_price, request.stop_loss, request.take_profit) == (None, None, D(110))


def test_refused_change_leaves_the_plan_as_it_was(market: Market) -> None:
    """A stop moved to the wrong side stays where it was (recorded)."""
    market.enter(Side.BUY, "1", stop_loss=D(95))
    stop, _ = market.plans.protection("a", "AUSDT", "net")
    before = stop.request

    again = market.refuse(whole(Side.SELL, "101", "pos_loss"))
    answer = market.plans.modify("a", PlanChange(trigger_price=D(101)), market.now_ns, order_id=stop.order_id)

    assert again == "40917"
    assert isinstance(answer, Refusal)
    assert answer.code == "40917"
    assert stop.request is before


def test_plan_that_is_not_there_cannot_be_cancelled_or_changed(market: Market) -> None:
    """Never there, of another symbol or kind, of somebody else, or over: a code, and nothing happens."""
    plan = market.place(trigger(Side.BUY, "101", client_oid="one"))
    cancel, now_ns = market.plans.cancel, market.now_ns
    market.venue.drain()

    answers = [
        cancel("a", now_ns, order_id="1"),
        cancel("a", now_ns),
        cancel("a", now_ns, order_id="1", plan_types=["pos_loss"]),
        cancel("a", now_ns, order_id=plan.order_id, symbol="BUSDT"),
        cancel("a", now_ns, order_id=plan.order_id, plan_types=["track_plan"]),
        cancel("b", now_ns, order_id=plan.order_id),
        cancel("b", now_ns, client_oid="one"),
        market.plans.modify("a", PlanChange(size=D(2)), now_ns, order_id="1"),
    ]

    assert [answer.code for answer in answers] == [
        "43025",
        "43025",
        "43020",
        "43025",
        "43025",
        "43025",
        "43025",
        "43025",
    ]
    assert market.venue.drain() == []
    assert isinstance(cancel("a", now_ns, client_oid="one"), Accepted)
    assert cancel("a", now_ns, client_oid="one").code == "43026"


def test_liquidation_cancels_every_plan_of_the_account(market: Market) -> None:
    """Nothing fires after the account is taken over; another account's plans stay."""
    market.venue.set_leverage("a", "AUSDT", 50)
    market.enter(Side.BUY, "900")
    market.place(trigger(Side.BUY, "80"))
    other = market.place(trigger(Side.BUY, "50"), "b")

    market.price("89")

    assert market.size() == 0
    assert market.plans.pending("a") == []
    assert market.plans.pending("b") == [other]


def test_modes_cannot_be_switched_under_a_live_plan(market: Market) -> None:
    """A plan is for the mode that it was placed in: 40920, and 45117 for the margin, until it is gone."""
    plan = market.place(trigger(Side.BUY, "101"))
    position_mode = market.venue.set_position_mode("a", "hedge_mode")
    margin_mode = market.venue.set_margin_mode("a", "AUSDT", "isolated")
    assert position_mode is not None
    assert margin_mode is not None
    assert (position_mode.code, margin_mode.code) == ("40920", "45117")

    market.plans.cancel("a", market.now_ns, order_id=plan.order_id)

    assert market.venue.set_position_mode("a", "hedge_mode") is None
    assert market.venue.set_margin_mode("a", "AUSDT", "isolated") is None


def test_symbols_are_those_with_live_plans(market: Market) -> None:
    """Where nothing waits, nothing is watched."""
    assert not market.plans.symbols()
    plan = market.place(trigger(Side.BUY, "101"))
    assert list(market.plans.symbols()) == ["AUSDT"]
    assert market.plans.pending_count("a") == market.plans.pending_count("a", "AUSDT") == 1

    market.plans.cancel("a", market.now_ns, order_id=plan.order_id)

    assert not market.plans.symbols()
    assert market.plans.pending_count("a") == 0
