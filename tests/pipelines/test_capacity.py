"""Capacity: the same orders, larger, through the books that they met."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.capacity import capacity_of, walked_value
from pipelines.trades import Execution
from shared.types import Floats

BIDS = np.array([[99.0, 10.0], [98.0, 10.0], [97.0, 10.0], [96.0, 10.0], [95.0, 10.0]])
ASKS = np.array([[101.0, 10.0], [102.0, 10.0], [103.0, 10.0], [104.0, 10.0], [105.0, 10.0]])


def execution(sign: int, price: float, size: float, at: int, *, fee: float = 0.0, is_maker: bool = False) -> Execution:
    return Execution(
        symbol="A", sign=sign, time_ns=at, price=price, size=size, fee_usdt=fee, is_maker=is_maker, bids=BIDS, asks=ASKS
    )


def test_visible_levels_are_walked_one_after_the_other() -> None:
    """Fifteen coins are ten of the first level and five of the second."""
    assert walked_value(ASKS, 15.0, 1, 2.0) == 10 * 101.0 + 5 * 102.0
    assert walked_value(BIDS, 15.0, -1, 2.0) == 10 * 99.0 + 5 * 98.0


def test_beyond_the_visible_the_book_goes_on_at_its_density() -> None:
    """Fifty coins lie within 4: the next 25 reach 2 further and cost 1 more on average than the last level."""
    assert walked_value(ASKS, 75.0, 1, 2.0) == pytest.approx(5150.0 + 25 * 106.0)
    assert walked_value(ASKS[:1], 20.0, 1, 2.0) == pytest.approx(1010.0 + 10 * (101.0 + 1.0))


@given(st.floats(0.01, 1e6), st.floats(1.01, 100.0), st.sampled_from([1, -1]))
def test_more_never_costs_less_a_coin(size: float, multiple: float, sign: int) -> None:
    """A larger order pays at least as much a coin, gets at most as much, and never less than nothing."""
    levels = ASKS if sign > 0 else BIDS
    small, large = (walked_value(levels, n, sign, 2.0) / n for n in (size, size * multiple))

    assert sign * large >= sign * small - 1e-9 * small
    assert large > 0


def test_size_one_is_what_was_traded() -> None:
    """At 1x the curve gives the result of the run itself, fees and funding included; larger sizes pay for their walk."""
    fills = [execution(1, 101.0, 10.0, 1, fee=0.6), execution(-1, 99.0, 10.0, 2, fee=0.5)]

    found = capacity_of(fills, funding_usdt=-0.25, multiples=(1.0, 2.0))

    assert found.points[0].net_usdt == pytest.approx(-20.0 - 1.1 - 0.25)
    assert found.points[0].opened_usdt == 1010.0
    # twice: bought 10 at 101 and 10 at 102, sold at 99 and 98
    fees = 0.6 * 2030 / 1010 + 0.5 * 1970 / 990
    assert found.points[1].net_usdt == pytest.approx(1970.0 - 2030.0 - fees - 0.5)


def test_makers_keep_their_price_and_what_was_open_is_not_judged() -> None:
    """A maker's fill grows at its own price (an upper bound); an open position has no result to scale."""
    fills = [execution(1, 99.0, 5.0, 1, is_maker=True), execution(-1, 99.0, 5.0, 2)]

    assert capacity_of(fills, 0.0, (1.0, 2.0)).points[1].net_usdt == pytest.approx(0.0)
    assert capacity_of(fills[:1], 0.0).why == "positions were open at the end"
    assert capacity_of([], 0.0).points == ()


def test_a_fill_without_a_book_keeps_its_price() -> None:
    """Where no book was seen, nothing is made up about its depth."""
    nothing: Floats = np.full((5, 2), np.nan)
    fills = [
        Execution(symbol="A", sign=sign, time_ns=sign, price=100.0, size=1.0, fee_usdt=0.0, is_maker=False,
                  bids=nothing, asks=nothing)
        for sign in (1, -1)
    ]  # fmt: skip

    assert capacity_of(fills, 0.0, (3.0,)).points[0].net_usdt == pytest.approx(0.0)
