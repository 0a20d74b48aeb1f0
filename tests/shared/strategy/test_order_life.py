"""Every state of an order met by every piece of news, as events of the exchange told to a whole engine."""

from __future__ import annotations

import pytest

from shared.strategy.engine import EngineConfig
from shared.strategy.orders import ABSENT_AFTER_NS, TRANSITIONS, State, Told
from shared.types import (
    OrderAbsent,
    OrderAccepted,
    OrderKind,
    OrderRefused,
    OrderReported,
    OrderStatus,
    OrderTimedOut,
    PlaceOrder,
)
from tests.shared.strategy.made import D, Script, cancels, notes, places, queries, scores

PATHS: dict[State, tuple[Told, ...]] = {
    State.SENT: (),
    State.UNKNOWN: (Told.TIMED_OUT,),
    State.LIVE: (Told.ACCEPTED,),
    State.PARTIALLY_FILLED: (Told.ACCEPTED, Told.PARTIALLY_FILLED),
    State.FILLED: (Told.ACCEPTED, Told.FILLED),
    State.CANCELED: (Told.ACCEPTED, Told.CANCELED),
    State.REFUSED: (Told.REFUSED,),
    State.ABSENT: (Told.TIMED_OUT, Told.ABSENT),
}

UNHEARD_OF = {
    (State.LIVE, Told.REFUSED),  # what lives was not refused
    (State.PARTIALLY_FILLED, Told.REFUSED),
    (State.FILLED, Told.REFUSED),
    (State.CANCELED, Told.REFUSED),
    (State.ABSENT, Told.REFUSED),  # its answer would have to be older than the signature window
    (State.ABSENT, Told.TIMED_OUT),
    (State.REFUSED, Told.TIMED_OUT),  # an order has one answer
    (State.REFUSED, Told.ACCEPTED),
    (State.LIVE, Told.ABSENT),  # what was seen cannot be absent: the ledger is doubted instead
    (State.PARTIALLY_FILLED, Told.ABSENT),
    (State.FILLED, Told.ABSENT),
    (State.CANCELED, Told.ABSENT),
}
"""What the table does not list, and why nobody should tell it."""


def tell(script: Script, order: PlaceOrder, told: Told) -> None:
    """Tell the engine a piece of news the way the shell would."""
    oid = order.client_oid
    if told is Told.ACCEPTED:
        script.tell(OrderAccepted(recv_ns=script.wait(), client_oid=oid, order_id="77"))
    elif told is Told.REFUSED:
        script.tell(OrderRefused(recv_ns=script.wait(), client_oid=oid, code="45110", message="less than the minimum"))
    elif told is Told.TIMED_OUT:
        script.tell(OrderTimedOut(recv_ns=script.wait(), client_oid=oid))
    elif told is Told.ABSENT:
        script.now_ns += ABSENT_AFTER_NS
        script.tell(OrderAbsent(recv_ns=script.wait(), client_oid=oid))
    else:
        filled = {Told.PARTIALLY_FILLED: order.size / 2, Told.FILLED: order.size}.get(told, D(0))
        status = OrderStatus(told.value)
        script.tell(
            OrderReported(recv_ns=script.wait(), client_oid=oid, order_id="77", status=status, filled=filled, reason="")
        )


@pytest.mark.parametrize("told", Told)
@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", [OrderKind.MARKET, OrderKind.POST_ONLY])
def test_every_news_in_every_state_does_what_the_table_says(state: State, told: Told, kind: OrderKind) -> None:
    """All 64 pairs: the table's step, or nothing and a word about it; and never a second order in the symbol while this
    one is not done."""
    script = Script(1, EngineConfig(entry_kind=kind, cooldown_s=0, entry_wait_s=60))
    [place] = places(script.close_second(scores([1])))
    for step in PATHS[state]:
        tell(script, place, step)
    order = script.engine.orders.get(place.client_oid)
    assert order is not None
    assert order.state is state
    was_done = order.is_done
    script.log.clear()

    tell(script, place, told)

    is_listed = (state, told) in TRANSITIONS
    assert is_listed != ((state, told) in UNHEARD_OF)
    if is_listed:
        assert order.state is TRANSITIONS[state, told]
        assert not notes(script.log, "order.surprised")
    else:
        assert order.state is state
        is_said = bool(notes(script.log, "order.surprised") or notes(script.log, "ledger.doubted"))
        assert is_said or (was_done and told is Told.ABSENT)  # nobody asked about what is done
        if notes(script.log, "order.surprised"):
            assert [q.client_oid for q in queries(script.log)] == [place.client_oid]
    if state in (State.REFUSED, State.ABSENT) and order.state not in (State.REFUSED, State.ABSENT):
        assert notes(script.log, "order.revived")
        if order.state in (State.LIVE, State.PARTIALLY_FILLED) and order.rests:
            assert [c.client_oid for c in cancels(script.log)] == [place.client_oid]
    assert not places(script.log)
    for _ in range(3):
        if not order.is_done:
            assert not places(script.close_second(scores([1]))), "one order at a time"
