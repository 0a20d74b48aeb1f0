"""The outline of a block: the same trades and prices as the block, without the cost of its sizes."""

from __future__ import annotations

import numpy as np
import pytest

from shared.simulator.markets.market import BLOCK_S, GeneratedMarket

SECOND = 1_795_330_800


@pytest.mark.parametrize("listings_per_day", [0.0, 700.0], ids=["nobody comes", "newcomers"])
def test_outline_has_the_trades_and_prices_of_the_block(listings_per_day: float) -> None:
    """Candles made from outlines are those of the trades that were pushed: bit for bit."""
    market = GeneratedMarket(3, 24, listings_per_day=listings_per_day)
    for second in range(SECOND, SECOND + 4 * BLOCK_S, BLOCK_S):
        outline, block = market.outline(second + 17), market.block(second)

        assert outline.first_second == block.first_second
        for name in block.trades.__struct_fields__:
            np.testing.assert_array_equal(getattr(outline.trades, name), getattr(block.trades, name), err_msg=name)
        for name in ("is_fresh", "mark", "index", "funding_rate"):
            np.testing.assert_array_equal(getattr(outline, name), getattr(block, name), err_msg=name)
    assert listings_per_day == 0.0 or np.isnan(outline.mark).any(), "no symbol was absent: the test tests nothing"


@pytest.mark.parametrize("listings_per_day", [0.0, 700.0], ids=["nobody comes", "newcomers"])
def test_funding_rate_is_that_of_the_block(listings_per_day: float) -> None:
    """What a settlement is looked up by later is the rate that was running then: bit for bit, in any second."""
    market = GeneratedMarket(3, 24, listings_per_day=listings_per_day)
    block = market.block(SECOND)
    for t in (0, 1, 59, 60, 61, 119, 170, 299):
        np.testing.assert_array_equal(market.funding_rate(SECOND + t), block.funding_rate[t])
