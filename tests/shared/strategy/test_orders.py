"""The order's table, held to a reader's expectations whatever order the news come in."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.strategy.orders import (
    KEEP_DONE_NS,
    TRANSITIONS,
    Order,
    Orders,
    State,
    Told,
    client_oid,
    is_query_due,
    told_of,
)
from shared.types import NS, Cause, OrderKind, OrderStatus, PlaceOrder, Side

EVIDENCE = (Told.LIVE, Told.PARTIALLY_FILLED, Told.FILLED, Told.CANCELED)
NEWS = st.lists(st.tuples(st.sampled_from(Told), st.integers(0, 3)), max_size=20)


def made(kind: OrderKind = OrderKind.MARKET, oid: str = "a") -> Order:
    place = PlaceOrder(
        client_oid=oid, symbol="AAAUSDT", side=Side.BUY, kind=kind, size=Decimal(4), price=None, reduce_only=False,
        stop_price=None, cause=Cause.ENTRY,
    )  # fmt: skip
    return Order(place, sent_ns=NS, decision=1, mid=Decimal(100), half_spread=Decimal("0.01"))


@given(NEWS)
def test_what_the_table_does_not_list_changes_nothing(news: list[tuple[Told, int]]) -> None:
    """An illegal step leaves every part of the order as it was, and says so."""
    orders, order = Orders(), made()
    orders.add(order)
    for told, _ in news:
        before = {name: getattr(order, name) for name in Order.__slots__}

        moved = orders.tell(order, told, 2 * NS)

        assert moved == ((before["state"], told) in TRANSITIONS)
        if not moved:
            assert {name: getattr(order, name) for name in Order.__slots__} == before


@given(NEWS)
def test_final_states_are_left_only_by_evidence(news: list[tuple[Told, int]]) -> None:
    """Filled stays filled, canceled becomes at most filled, and only a report of life revives a dead order."""
    orders, order = Orders(), made()
    orders.add(order)
    for told, _ in news:
        before = order.state
        orders.tell(order, told, 2 * NS)
        if before is State.FILLED:
            assert order.state is State.FILLED
        if before is State.CANCELED:
            assert order.state in (State.CANCELED, State.FILLED)
        if before.is_final and order.state is not before:
            assert told in EVIDENCE or (before is State.ABSENT and told is Told.ACCEPTED)


@given(NEWS)
def test_working_orders_are_those_that_are_not_done(news: list[tuple[Told, int]]) -> None:
    """The index of working orders follows the states, whatever happens, and a done order holds no exposure."""
    orders, order = Orders(), made()
    orders.add(order)
    for told, size in news:
        if size:
            orders.fill(order, Decimal(size), 2 * NS)
        else:
            orders.tell(order, told, 2 * NS)
        assert (order in list(orders.working)) == (not order.is_done)
        assert orders.n_unknown == (order.state is State.UNKNOWN)
        if order.is_done:
            assert order.remaining == 0


@pytest.mark.parametrize("state", [State.SENT, State.UNKNOWN])
@pytest.mark.parametrize("told", list(Told))
def test_news_about_an_unanswered_order_are_always_understood(state: State, told: Told) -> None:
    """Everything that can be said about a placement without an answer is in the table."""
    assert (state, told) in TRANSITIONS


def test_every_status_of_bitget_is_told() -> None:
    """Each of Bitget's four words for an order has its entry."""
    assert {told_of(status) for status in OrderStatus} == set(EVIDENCE)


def test_fills_alone_complete_an_order() -> None:
    """An order whose fills add up to its size is filled and done, also without any report."""
    orders, order = Orders(), made()
    orders.add(order)
    orders.fill(order, Decimal(1), NS)
    assert (order.state, order.remaining) == (State.PARTIALLY_FILLED, Decimal(3))
    orders.fill(order, Decimal(3), NS)
    assert (order.state, order.is_done, orders.n_working) == (State.FILLED, True, 0)


def test_canceled_order_waits_for_the_fills_that_its_report_counts() -> None:
    """A report of 3 filled of 4 keeps exposure 3 until the fills have come."""
    orders, order = Orders(), made()
    orders.add(order)
    order.reported_filled = Decimal(3)
    orders.tell(order, Told.CANCELED, NS)
    assert (order.is_done, order.remaining) == (False, Decimal(3))
    orders.fill(order, Decimal(3), NS)
    assert order.is_done


def test_orders_are_queried_by_their_state() -> None:
    """Unknown orders every two seconds, resting ones rarely, a quiet market order soon, a fresh one not at all."""
    orders, unknown, resting, market = Orders(), made(oid="u"), made(OrderKind.POST_ONLY, "r"), made(oid="m")
    for order in (unknown, resting, market):
        orders.add(order)
    orders.tell(unknown, Told.TIMED_OUT, NS)
    orders.tell(resting, Told.ACCEPTED, NS)
    orders.tell(market, Told.ACCEPTED, NS)
    due = {t: [o.client_oid for o in (unknown, resting, market) if is_query_due(o, t * NS)] for t in (2, 3, 31)}

    assert due == {2: [], 3: ["u", "m"], 31: ["u", "r", "m"]}


def test_done_orders_are_forgotten_after_a_while() -> None:
    """Memory is bounded: a done order is dropped once reports can no longer repeat, a working one never."""
    orders, done, working = Orders(), made(oid="done"), made(oid="working")
    orders.add(done)
    orders.add(working)
    orders.tell(done, Told.REFUSED, NS)
    orders.forget(NS + KEEP_DONE_NS - 1)
    assert "done" in orders
    orders.forget(NS + KEEP_DONE_NS)
    assert "done" not in orders
    assert "working" in orders


@given(st.text(max_size=40), st.integers(0, 2**40), st.text(min_size=1, max_size=20), st.text(max_size=10))
def test_client_oid_is_in_bitgets_alphabet(session: str, decision: int, symbol: str, leg: str) -> None:
    """Whatever the session and symbol are made of, the order's name is 32 characters that Bitget takes."""
    assert re.fullmatch(r"[0-9A-Za-z]{1,32}", client_oid(session, decision, symbol, leg))


def test_client_oid_separates_its_parts() -> None:
    """Session, decision, symbol and leg cannot run into one another."""
    names = {
        client_oid("a", 1, "BUSDT", "exit"),
        client_oid("a", 11, "USDT", "exit"),
        client_oid("a1", 1, "USDT", "exit"),
        client_oid("a", 1, "BUSDT", "entry"),
        client_oid("a", 1, "龙虾USDT", "entry"),
    }
    assert len(names) == 5
