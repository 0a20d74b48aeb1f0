"""The levels that orders meet: one side of a book in any form it comes in, and the priority of resting orders."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.simulator.venue.levels import Book, Ladder, Resting, decimal_of
from shared.simulator.venue.orders import Order
from shared.types import OrderKind, Side

D = Decimal
NAN = float("nan")

rows = st.lists(
    st.tuples(st.integers(1, 10**6).map(lambda cents: cents / 100), st.integers(0, 500).map(lambda lots: lots / 10)),
    max_size=12,
    unique_by=lambda row: row[0],
).map(lambda found: sorted(found, reverse=True))


def levels(ladder: Ladder) -> list[list[Decimal]]:
    found: list[list[Decimal]] = []
    while (level := ladder.level(len(found))) is not None:
        found.append(list(level))
    return found


@given(rows=rows)
def test_side_is_the_same_in_every_form(rows: list[tuple[float, float]]) -> None:
    """Floats, strings, Decimals and an array with absent levels mean the same, digit for digit."""
    expected = [[D(repr(price)), D(repr(size))] for price, size in rows if size]
    padded = np.array([*rows, (NAN, 0.0), (NAN, NAN)])
    forms: list[Any] = [
        rows,
        [(repr(price), repr(size)) for price, size in rows],
        [(D(repr(price)), D(repr(size))) for price, size in rows],
        padded,
    ]

    for form in forms:
        assert levels(Ladder(form)) == expected


@given(
    rows=rows, takes=st.lists(st.integers(1, 600).map(lambda lots: D(lots) / 10), max_size=8), depth=st.integers(0, 12)
)
def test_what_is_taken_is_gone(rows: list[tuple[float, float]], takes: list[Decimal], depth: int) -> None:
    """Taking from the best, a bit at a time, leaves what a plain list leaves, however deep it was looked at before."""
    ladder, left = Ladder(rows), [[D(repr(price)), D(repr(size))] for price, size in rows if size]
    ladder.level(depth)
    best_sent = left[0][0] if left else None
    for wanted in takes:
        best = ladder.level()
        assert best == (left[0] if left else None)
        if best is None:
            break
        size = min(wanted, best[1])
        ladder.take(size)
        left[0][1] -= size
        if not left[0][1]:
            del left[0]

    for price, _ in rows:
        at = D(repr(price))
        assert ladder.size_at(at) == next((size for other, size in left if other == at), D(0))
    assert ladder.size_at(D("0.001")) == 0
    assert levels(ladder) == left
    assert ladder.best_as_sent() == best_sent


def test_more_than_the_best_level_has_cannot_be_taken() -> None:
    """Taking too much is our bug, not a negative size."""
    ladder = Ladder([(100.0, 1.0), (99.0, 5.0)])
    ladder.level()

    with pytest.raises(AssertionError):
        ladder.take(D("1.5"))


def test_middle_is_the_markets_own() -> None:
    """What accounts take does not move it; where a side is empty it is the one before."""
    book = Book([(99.0, 1.0)], [(101.0, 1.0)])
    best = book.asks.level()
    assert best is not None
    book.asks.take(best[1])

    assert book.middle() == 100
    assert Book([(90.0, 1.0)], [], book.middle()).middle() == 100
    assert Book([], []).middle() is None


@pytest.mark.parametrize(("value", "digits"), [(0.1, "0.1"), (np.float64(1e-9), "1E-9"), ("1.50", "1.50"), (3, "3")])
def test_numbers_keep_the_digits_that_were_printed(value: Any, digits: str) -> None:
    """A float is the shortest decimal that reads back as it; strings stay as they are."""
    assert str(decimal_of(value)) == digits


def resting(number: int, side: Side, price: int) -> Order:
    return Order(
        account="a", order_id=str(number), client_oid="", symbol="AUSDT", side=side, kind=OrderKind.LIMIT, size=D(1),
        price=D(price), reduce_only=False, stop_loss=None, take_profit=None, stp="none", source="api", leverage=1,
        created_ns=number, updated_ns=number,
    )  # fmt: skip


@given(
    prices=st.lists(st.tuples(st.sampled_from(Side), st.integers(95, 105)), max_size=30),
    gone=st.sets(st.integers(0, 29)),
)
def test_resting_orders_stand_by_price_then_time(prices: list[tuple[Side, int]], gone: set[int]) -> None:
    """Highest bid and lowest ask first, the older before the younger at one price, with any of them taken out."""
    orders = [resting(number, side, price) for number, (side, price) in enumerate(prices)]
    book = Resting()
    for order in orders:
        book.add(order)
    for number in gone & set(range(len(orders))):
        book.remove(orders[number])
        book.remove(orders[number])  # twice is once

    for side in Side:
        mine = [order for order in orders if order.side is side and int(order.order_id) not in gone]
        expected = sorted(mine, key=lambda order: (-side.sign * (order.price or D(0)), order.created_ns))
        assert [order.order_id for order in book.of(side)] == [order.order_id for order in expected]
    assert bool(book) is bool(set(range(len(orders))) - gone)
