"""Sizes that the exchange takes and that we can afford, or a reason."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.strategy.config import EngineConfig
from shared.strategy.ranking import Gate
from shared.strategy.sizing import Refusal, entry_size, stop_price
from tests.shared.strategy.made import D, contract

STEPS = st.sampled_from([D("0.0001"), D("0.1"), D(1), D(100)])


@given(
    st.decimals(min_value=1, max_value=10**7, places=4),
    st.decimals(min_value=D("0.0001"), max_value=10**5, places=4),
    STEPS,
    st.decimals(min_value=D("0.0001"), max_value=1000, places=4),
    st.floats(0, 1e7),
    st.integers(1, 50),
    st.booleans(),
)
def test_a_size_is_a_multiple_above_the_minimum_within_its_share(
    equity: Decimal, price: Decimal, step: Decimal, smallest: Decimal, depth: float, leverage: int, is_minimum: bool
) -> None:
    """A size is a multiple of the step, not below size and notional minimum, and its notional keeps every share."""
    config, rules = EngineConfig(), contract(size_step=step, size_min=smallest)

    size = entry_size(
        config, rules, equity=equity, leverage=leverage, price=price, depth_usdt=depth, is_minimum=is_minimum
    )

    if isinstance(size, Refusal):
        assert size.gate is Gate.SIZE
        assert not is_minimum
        return
    assert Fraction(size) % Fraction(step) == 0
    assert size >= rules.size_min
    assert size * price >= rules.notional_min_usdt
    if not is_minimum:
        gross = equity * min(leverage, config.leverage) * D("0.5")
        assert Fraction(size) * Fraction(price) <= min(Fraction(gross) / 20, Fraction(depth) / 10)


def test_a_small_account_is_told_so() -> None:
    """58 USDT over twenty slots at 5x is 7.25 USDT an order: enough for 5.5, not for a contract of 10."""
    config = EngineConfig()
    asked = {"equity": D(58), "leverage": 5, "price": D(10), "depth_usdt": 1e6, "is_minimum": False}

    assert entry_size(config, contract(), **asked) == D("0.72")  # type: ignore[arg-type]
    refused = entry_size(config, contract(size_min=D(1)), **asked)  # type: ignore[arg-type]
    assert isinstance(refused, Refusal)
    assert refused.reason == "the smallest order is 10.00 USDT, 7.25 USDT may be used"


def test_largest_market_order_of_the_contract_is_kept() -> None:
    """A size above maxMarketOrderQty is cut to it."""
    size = entry_size(
        EngineConfig(), contract(size_max_market=D("1.005")), equity=D(10**6), leverage=5, price=D(10), depth_usdt=1e9,
        is_minimum=False,
    )  # fmt: skip
    assert size == D("1.00")


@given(
    st.decimals(min_value=D("0.01"), max_value=10**5, places=6),
    st.sampled_from([D("0.01"), D("0.5"), D("0.0001"), D("0.03")]),
    st.floats(1, 5000),
)
def test_stops_are_ticks_and_never_nearer_than_asked(reference: Decimal, tick: Decimal, bps: float) -> None:
    """A stop is a multiple of the tick, at least as far as asked and less than a tick further, and above zero."""
    rules = contract(tick=tick)
    distance = Fraction(reference) * Fraction(Decimal(repr(bps))) / 10_000

    for is_long in (True, False):
        stop = stop_price(rules, is_long=is_long, reference=reference, stop_bps=bps)
        assert Fraction(stop) % Fraction(tick) == 0
        assert stop > 0
        away = (Fraction(reference) - Fraction(stop)) * (1 if is_long else -1)
        if stop > tick:
            assert distance <= away < distance + Fraction(tick)


@pytest.mark.parametrize("leverage", [1, 3, 20])
def test_leverage_is_what_was_obtained(leverage: int) -> None:
    """A symbol that grants less leverage than asked gets a smaller order; one that grants more does not get a larger."""
    size = entry_size(
        EngineConfig(leverage=5), contract(), equity=D(10_000), leverage=leverage, price=D(10), depth_usdt=1e9,
        is_minimum=False,
    )  # fmt: skip
    assert size == D(10_000) * min(5, leverage) / 2 / 20 / 10
