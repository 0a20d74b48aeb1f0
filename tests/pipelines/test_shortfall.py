"""The gap between a session and its backtest: parts that add up to it exactly, each with its own cause."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.shortfall import PARTS, Fill, Gap, decompose

D = Decimal
MARK = D("101.37")

prices = st.integers(9_000, 11_000).map(lambda ticks: D(ticks) / 100)
sizes = st.integers(1, 3_000).map(lambda steps: D(steps) / 1000)
fees = st.integers(-1000, 100_000).map(lambda steps: D(steps) / 10**8)
fills = st.lists(
    st.builds(
        Fill, order=st.sampled_from(["a", "b", "c"]), symbol=st.just("AUSDT"), sign=st.sampled_from([1, -1]),
        price=prices, size=sizes, fee_usdt=fees, time_ns=st.integers(0, 5_000_000_000),
    ),
    max_size=8,
)  # fmt: skip


def fill(order: str, sign: int, price: str, size: str, *, fee: str = "0", at: int = 0) -> Fill:
    return Fill(order, "AUSDT", sign, D(price), D(size), D(fee), at)


def result(some: list[Fill], funding: Decimal) -> Decimal:
    """Return what a ledger would say of fills: cash that moved, and the rest at the mark."""
    cash = sum((-f.sign * f.price * f.size - f.fee_usdt for f in some), D(0))
    return cash + sum((f.sign * f.size for f in some), D(0)) * MARK + funding


def gap(session: list[Fill], backtest: list[Fill], *, funding: tuple[str, str] = ("0", "0")) -> Gap:
    paid = D(funding[0]), D(funding[1])
    return decompose(
        session, backtest, marks={"AUSDT": MARK}, touch=lambda symbol, sign, ns: 100.0 + sign + ns / 1e9,
        session_usdt=result(session, paid[0]), funding_usdt=paid, adopted_usdt=D(0), adjustments_usdt=D(0),
        orders=3, intents_identical=True,
    )  # fmt: skip


@given(fills, fills, st.tuples(fees, fees))
def test_parts_add_up_to_the_last_digit(session: list[Fill], backtest: list[Fill], paid: tuple[D, D]) -> None:
    """Whatever two executions of the same orders look like, nothing is left over, and both results are the ledgers'."""
    found = gap(session, backtest, funding=(str(paid[0]), str(paid[1])))

    assert found.residual_usdt == 0
    assert found.backtest_usdt == Fraction(result(backtest, paid[1]))
    assert tuple(found.parts) == PARTS


@given(fills)
def test_the_same_execution_has_no_gap_in_any_part(some: list[Fill]) -> None:
    """An execution beside itself: every part is 0, not only their sum."""
    assert set(gap(some, some).parts.values()) == {Fraction(0)}


def test_each_cause_has_its_own_part() -> None:
    """A dearer fill is price, one of another second latency, a smaller one unfilled, a higher fee fees."""
    same = [fill("b", -1, "99", "1")]
    dearer = gap([fill("a", 1, "101.50", "1"), *same], [fill("a", 1, "101", "1"), *same])
    later = gap([fill("a", 1, "102", "1", at=1_000_000_000), *same], [fill("a", 1, "101", "1"), *same])
    smaller = gap([fill("a", 1, "101", "0.25"), *same], [fill("a", 1, "101", "1"), *same])
    fee = gap([fill("a", 1, "101", "1", fee="0.07"), *same], [fill("a", 1, "101", "1", fee="0.06"), *same])

    for found, name, value in (
        (dearer, "price", "-0.50"),
        (later, "latency", "-1"),
        (smaller, "unfilled", str(-(MARK - 101) * D("0.75"))),
        (fee, "fees", "-0.01"),
    ):
        assert {part: v for part, v in found.parts.items() if v} == {name: Fraction(value)}


def test_orders_that_one_side_alone_filled_are_counted() -> None:
    """A missed entry and its missed exit are unfilled, and together what the trade made."""
    trade = [fill("a", 1, "100", "2"), fill("b", -1, "103", "2")]

    found = gap(trade, [])

    assert (found.only_session, found.only_backtest) == (2, 0)
    assert found.parts["unfilled"] == found.total_usdt == 6


def test_without_a_book_nothing_is_called_latency() -> None:
    """Where a touch is not known, all of a price's difference is price."""
    found = decompose(
        [fill("a", 1, "102", "1")], [fill("a", 1, "101", "1")], marks={"AUSDT": MARK},
        touch=lambda symbol, sign, ns: None, session_usdt=MARK - 102, funding_usdt=(D(0), D(0)), adopted_usdt=D(0),
        adjustments_usdt=D(0), orders=1, intents_identical=True,
    )  # fmt: skip

    assert found.parts["latency"] == 0
    assert float(found.parts["price"]) == pytest.approx(-1.0)
    assert found.residual_usdt == 0
