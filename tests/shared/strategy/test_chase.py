"""Post-only entries that follow their touch, wait, end, and are taken only where that still pays."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from shared.strategy.engine import EngineConfig
from shared.strategy.orders import ABSENT_AFTER_NS
from shared.types import (
    NS,
    Action,
    CancelRefused,
    Cause,
    LinkChanged,
    OrderAbsent,
    OrderKind,
    OrderRefused,
    OrderStatus,
    OrderTimedOut,
    PlaceOrder,
    StopRequested,
)
from tests.shared.strategy.made import D, Fixed, Script, cancels, columns, notes, places, scores

UP = scores([1], edge_bps=40.0)


def maker(**changes: object) -> EngineConfig:
    fields: dict[str, object] = {"entry_kind": OrderKind.POST_ONLY, "entry_wait_s": 6, "chases_max": 2, "cooldown_s": 0}
    return EngineConfig(**{**fields, **changes})  # type: ignore[arg-type]


def begun(script: Script, direction: int = 1) -> PlaceOrder:
    """Enter and return the order, resting at the exchange."""
    [entry] = places(script.close_second(scores([direction], edge_bps=40.0)))
    script.accept(entry)
    return entry


NOTHING = D(0)


def gone(script: Script, order: PlaceOrder, filled: Decimal = NOTHING) -> list[Action]:
    """Report an order as cancelled."""
    return script.report(order, OrderStatus.CANCELED, filled)


@pytest.mark.parametrize("direction", [1, -1])
def test_entry_follows_the_touch_that_moved_away_one_order_at_a_time(direction: int) -> None:
    """A better bid than ours (ask, for a short) cancels, and only what is gone is followed, under a new name."""
    script = Script(1, maker())
    first = begun(script, direction)
    said = scores([direction], edge_bps=40.0)

    moved = script.close_second(said, market=columns(1, 100.0 + 0.05 * direction))
    assert [c.client_oid for c in cancels(moved)] == [first.client_oid]
    assert not places(moved)
    assert not places(script.close_second(said))  # the cancel is on its way
    gone(script, first)
    [second] = places(script.close_second(said))

    assert second.client_oid != first.client_oid
    assert (second.kind, second.side, second.size) == (OrderKind.POST_ONLY, first.side, first.size)
    assert second.price == (D("100.04") if direction > 0 else D("99.96"))
    assert second.stop_price is not None
    assert second.cause is Cause.ENTRY


def test_touch_that_comes_nearer_is_waited_for() -> None:
    """Where the market comes towards our price there is nothing to follow."""
    script = Script(1, maker())
    begun(script)

    assert not cancels(script.close_second(UP, market=columns(1, 99.95)))


def test_chase_is_bounded_and_then_waits_for_its_time_out() -> None:
    """After `chases_max` moves the last order stays where it is until the time that the entry had is over."""
    script = Script(1, maker(chases_max=1, entry_wait_s=10, entry_fallback=False))
    order, mid, n_orders = begun(script), 100.0, 1
    for _ in range(12):
        mid += 0.05
        actions = script.close_second(UP, market=columns(1, mid))
        for cancelled in cancels(actions):
            assert cancelled.client_oid == order.client_oid
            gone(script, order)
        for place in places(actions):
            order, n_orders = place, n_orders + 1
            script.accept(order)
        if script.reasons == ["chosen"]:
            break

    assert n_orders == 3  # the first, one move; then the entry is over and another one begins
    assert len(notes(script.log, "order.chased")) == 1


def test_time_out_is_that_of_the_whole_entry() -> None:
    """Moves do not buy time: `entry_wait_s` counts from the first order."""
    script = Script(1, maker(entry_wait_s=4, entry_fallback=False))
    first = begun(script)
    script.close_second(UP, market=columns(1, 100.05))
    gone(script, first)
    [second] = places(script.close_second(UP))
    script.accept(second)

    waited = [bool(cancels(script.close_second(UP))) for _ in range(3)]

    assert waited == [False, True, False]


def ended(script: Script, said: object = UP, market: object = None) -> list[PlaceOrder]:
    """Let an entry wait until it is cancelled and gone, then close a second with these scores."""
    entry = begun(script)
    while not cancels(script.close_second(UP)):
        pass
    gone(script, entry)
    return places(script.close_second(said, market=market))  # type: ignore[arg-type]


def test_what_is_left_is_taken_where_the_edge_pays_for_a_taker_now() -> None:
    """40 bps against 12 of fees, 4 of slippage and 2 of spread: the fallback is a market order with its own stop."""
    script = Script(1, maker(entry_wait_s=3))
    [fallback] = ended(script)

    assert (fallback.kind, fallback.price, fallback.cause) == (OrderKind.MARKET, None, Cause.ENTRY)
    assert fallback.stop_price is not None
    script.complete(fallback)
    script.close_second(UP)
    assert not script.engine._desk.chases


@pytest.mark.parametrize(
    ("said", "market", "why"),
    [
        (scores([1], edge_bps=17.0), None, "the edge pays for a maker, not for a taker"),
        (UP, columns(1, 100.0, half_spread=0.09), "18 bps of spread: 40 pays 34"),
        (UP, columns(1, 100.0, half_spread=0.2), "the spread is wider than entries may meet"),
        (scores([-1], edge_bps=40.0), None, "the score has turned"),
        (scores([1], edge_bps=40.0, confidence=0.5), None, "it is not sure any more"),
        (scores([0]), None, "it has no opinion"),
    ],
)
def test_fallback_asks_again_at_that_moment(said: object, market: object, why: str) -> None:
    """What was worth an entry four seconds ago is not taken for granted."""
    script = Script(1, maker(entry_wait_s=3, cooldown_s=30))
    taken = ended(script, said, market)

    assert [order.kind for order in taken] == ([OrderKind.MARKET] if "40 pays 34" in why else [])
    assert not places(script.close_second(UP)) or "40 pays 34" in why


def test_fallback_can_be_switched_off() -> None:
    """Without `entry_fallback` an entry that waited is over."""
    assert not ended(Script(1, maker(entry_wait_s=3, entry_fallback=False, cooldown_s=30)))


def test_null_scorer_follows_and_never_takes() -> None:
    """A coin claims no edge: nothing that it says could pay for a taker."""
    script = Script(1, maker(entry_wait_s=4, cooldown_s=30), scorer=Fixed(is_null=True))
    entry = begun(script)
    script.close_second(UP, market=columns(1, 100.05))
    gone(script, entry)
    [moved] = places(script.close_second(UP))
    script.accept(moved)
    while not cancels(script.close_second(UP)):
        pass
    gone(script, moved)

    assert not places(script.close_second(UP))


def test_partial_fills_are_taken_off_what_is_left() -> None:
    """A move asks for what the order before did not fill, and the position is one trade in the end."""
    script = Script(1, maker())
    first = begun(script)
    part = (first.size / 4).quantize(D("0.01"))
    script.fill(first, size=part)
    script.close_second(UP, market=columns(1, 100.05))
    gone(script, first, part)
    [second] = places(script.close_second(UP))

    assert second.size == first.size - part
    script.complete(second)
    assert script.engine.portfolio.size(first.symbol) == first.size


def test_remainder_below_the_exchanges_minimum_is_left() -> None:
    """Five dollars are the least that an order may ask for: what is left below is no order."""
    script = Script(1, maker())
    first = begun(script)
    script.fill(first, size=first.size - D("0.01"))
    script.close_second(UP, market=columns(1, 100.05))
    gone(script, first, first.size - D("0.01"))

    assert not places(script.close_second(UP))
    assert not script.engine._desk.chases


def test_cancel_that_waits_for_fills_is_not_followed_yet() -> None:
    """A cancelled order whose last fill has not come is not done: nobody knows what is left."""
    script = Script(1, maker())
    first = begun(script)
    script.close_second(UP, market=columns(1, 100.05))
    gone(script, first, D("0.10"))

    assert not places(script.close_second(UP))
    script.fill(first, size=D("0.10"))
    [second] = places(script.close_second(UP))

    assert second.size == first.size - D("0.10")


def test_cancel_that_lost_the_race_ends_the_chase() -> None:
    """Filled is filled: there is nothing left to follow."""
    script = Script(1, maker())
    first = begun(script)
    script.close_second(UP, market=columns(1, 100.05))
    script.tell(CancelRefused(recv_ns=script.wait(), client_oid=first.client_oid, code="22001", message="no order"))
    script.fill(first)
    script.report(first, OrderStatus.FILLED, first.size)

    assert not places(script.close_second(UP))
    assert not script.engine._desk.chases


def test_order_that_would_have_taken_is_placed_anew() -> None:
    """The exchange cancels a post-only order that would cross: that counts as a move, not as an end."""
    script = Script(1, maker())
    first = begun(script)
    gone(script, first)
    [second] = places(script.close_second(UP))

    assert second.kind is OrderKind.POST_ONLY


def test_unknown_placement_is_neither_cancelled_nor_followed() -> None:
    """No answer: the order may be live. Nothing else is sent in its symbol until it is resolved, for ever absent too."""
    script = Script(1, maker())
    [first] = places(script.close_second(UP))
    script.tell(OrderTimedOut(recv_ns=script.wait(), client_oid=first.client_oid))
    mid = 100.0
    for _ in range(20):
        mid += 0.05
        actions = script.close_second(UP, market=columns(1, mid))
        assert not places(actions)
        assert not cancels(actions)

    script.now_ns += ABSENT_AFTER_NS
    script.tell(OrderAbsent(recv_ns=script.wait(), client_oid=first.client_oid))
    assert not script.engine.orders.n_working
    script.engine._desk.rests_until[:] = 0
    script.second = script.now_ns // NS
    script.close_second(UP)
    assert not notes(script.log, "order.chased")


def test_unknown_cancel_is_asked_about_and_not_doubled() -> None:
    """A cancel without an answer is sent again only when something says that the order lives."""
    script = Script(1, maker(entry_wait_s=2, chases_max=0))
    first = begun(script)
    actions = script.pass_seconds(30)
    assert len(cancels(actions)) == 1

    assert len(cancels(script.report(first, OrderStatus.LIVE, D(0)))) == 1


def test_refused_move_ends_the_chase() -> None:
    """A refusal is no price to follow."""
    script = Script(1, maker())
    first = begun(script)
    script.close_second(UP, market=columns(1, 100.05))
    gone(script, first)
    [second] = places(script.close_second(UP))
    script.tell(OrderRefused(recv_ns=script.wait(), client_oid=second.client_oid, code="40762", message="balance"))

    assert not places(script.close_second(UP))
    assert not script.engine._desk.chases


@pytest.mark.parametrize("how", ["stop", "link", "doubt", "latch"])
def test_whatever_ends_trading_ends_a_chase(how: str) -> None:
    """Between two orders of a chase nothing works; what stops entries then stops the next one as well."""
    script = Script(1, maker())
    first = begun(script)
    script.close_second(UP, market=columns(1, 100.05))
    gone(script, first)
    if how == "stop":
        script.tell(StopRequested(recv_ns=script.wait(), reason="test"))
    elif how == "link":
        script.tell(LinkChanged(recv_ns=script.wait(), link="public", is_up=False))
    elif how == "doubt":
        script.engine.truth.doubt(first.symbol, "test", script.now_ns)
    else:
        for _ in range(40):
            script.engine.risk.note_refusal(script.now_ns)
    assert not places(script.close_second(UP))

    if how == "link":
        script.tell(LinkChanged(recv_ns=script.wait(), link="public", is_up=True))
        assert len(places(script.close_second(UP))) == 1  # an entry of its own, not the old one's remainder
        assert not notes(script.log, "order.chased")


def test_exit_ends_the_chase_of_its_own_position() -> None:
    """A position that is left half filled is left: the rest of its entry is not followed any more."""
    script = Script(1, maker(entry_wait_s=60))
    first = begun(script)
    script.fill(first, size=D("0.50"))
    against = scores([-1], edge_bps=60.0)
    assert [c.client_oid for c in cancels(script.close_second(against))] == [first.client_oid]
    gone(script, first, D("0.50"))
    [leave] = places(script.close_second(against))

    assert (leave.reduce_only, leave.size, leave.cause) == (True, D("0.50"), Cause.REVERSAL)
    assert not script.engine._desk.chases


def test_fills_are_measured_against_the_market_that_was_decided_on() -> None:
    """What following costs is slippage of the entry: mid and touch are those of the first decision."""
    script = Script(1, maker())
    first = begun(script)
    script.close_second(UP, market=columns(1, 100.05))
    gone(script, first)
    [second] = places(script.close_second(UP))
    script.fill(second, "100.04")
    holding = script.engine.portfolio.holdings[first.symbol]

    assert holding.entry_mid_value == second.size * D(100)
    assert holding.slippage == second.size * (D("100.04") - D("100.01"))


def test_side_slots_count_an_entry_between_two_orders() -> None:
    """While a chase waits for its cancel, its slot is taken: top_k holds."""
    script = Script(2, maker(top_k=1))
    said = scores([1, 1], edge_bps=40.0)
    [first] = places(script.close_second(said))
    script.accept(first)
    higher = columns(2, np.array([100.05, 100.05]))
    script.close_second(said, market=higher)
    gone(script, first)
    [second] = places(script.close_second(said))

    assert second.symbol == first.symbol
