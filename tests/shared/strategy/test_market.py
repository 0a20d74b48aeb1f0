"""The last second: quotes in ticks, marks with their fallback, silence counted."""

from __future__ import annotations

from decimal import Context, localcontext

import numpy as np
import pytest

from shared.strategy.market import Market
from shared.strategy.portfolio import Quote
from tests.shared.strategy.made import AT, D, columns, universe


def test_quotes_are_exact_whatever_the_floats() -> None:
    """0.1 + 0.2 as a price is the tick 0.3, and the mid between ticks is exact."""
    market, block = Market(universe(1, tick=D("0.1"))), columns(1)
    block[AT["bid_price_1"]], block[AT["ask_price_1"]] = 0.1 + 0.2, 0.4

    market.take(1, block)

    assert market.quote(0) == Quote(mid=D("0.35"), half_spread=D("0.05"))


@pytest.mark.parametrize("side", ["bid", "ask"])
def test_half_a_book_is_no_quote(side: str) -> None:
    """One missing touch leaves no mid, no mark in its place, and a spread that is not a number."""
    market, block = Market(universe(1)), columns(1)
    block[AT[f"{side}_price_1"]] = block[AT["mark"]] = np.nan

    market.take(1, block)

    assert market.quote(0) is None
    assert market.mark(0) is None
    assert np.isnan(market.spread_bps()).all()


def test_mark_is_the_exchanges_and_else_the_mid() -> None:
    """The mark column values positions; where the exchange sends none, the mid does, in a recording for example."""
    market, block = Market(universe(2)), columns(2)
    block[AT["mark"]] = [100.0037, np.nan]

    market.take(1, block)

    assert (market.mark(0), market.mark(1)) == (D("100.0037"), D("100.00"))
    assert market.mark(None) is None


def test_silence_counts_from_the_last_update_of_any_channel() -> None:
    """A NaN count is no update; a symbol that was never heard is silent for longer than any limit."""
    market, block = Market(universe(3)), columns(3)
    block[AT["book_updates"]] = [1, 0, np.nan]
    block[AT["ticker_updates"]] = [0, 2, 0]
    market.take(10, block)
    block[AT["book_updates"]] = block[AT["ticker_updates"]] = 0
    market.take(14, block)

    assert [market.silence_s(n, 14) for n in (0, 1)] == [4, 4]
    assert market.silence_s(2, 14) > 10**9
    for longest_s in (3, 4, 5):
        assert market.is_stale(14, longest_s).tolist()[:3] == [longest_s < 4, longest_s < 4, True]


def test_depth_is_that_of_the_thinner_side() -> None:
    """A deep side does not make up for a thin or unknown one."""
    market, block = Market(universe(2)), columns(2)
    block[AT["bid_depth_10bps_usdt"]] = [7_000, 9_000]
    block[AT["ask_depth_10bps_usdt"]] = [8_000, np.nan]

    market.take(1, block)

    assert market.depth_usdt()[0] == 7_000
    assert np.isnan(market.depth_usdt()[1])


def test_quotes_ignore_the_callers_context() -> None:
    """Prices of nine digits survive a context of three inside the engine's own, as `on_event` sets it."""
    from shared.strategy.exact import exactly

    market, block = Market(universe(1)), columns(1, 1234567.89)
    market.take(1, block)

    with localcontext(Context(prec=3)):
        quote = exactly(market.quote)(0)

    assert quote == Quote(mid=D("1234567.89"), half_spread=D("0.01"))
