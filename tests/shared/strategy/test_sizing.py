"""Sizes that the exchange takes and that we can afford, or a reason with its arithmetic."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.errors import SettingsError
from shared.strategy.config import EngineConfig
from shared.strategy.exact import exactly
from shared.strategy.ranking import Gate
from shared.strategy.sizing import (
    Refusal,
    affordable,
    caps,
    check_affordable,
    entry_size,
    sigma_bps,
    smallest_size,
    stop_price,
)
from shared.types import Contract, OrderKind, Universe
from tests.shared.strategy.made import D, contract

STEPS = st.sampled_from([D("0.00001"), D("0.0003"), D("0.1"), D(1), D(7), D(10), D(1000), D(7000)])
PRICES = st.one_of(
    st.decimals(min_value=D("1e-9"), max_value=D("1e-6"), places=12),
    st.decimals(min_value=D("0.0001"), max_value=10**5, places=7),
    st.sampled_from([D("97123.4"), D("0.000000001"), D("3.333333333333"), D(10**6)]),
)
EQUITIES = st.decimals(min_value=D("0.01"), max_value=10**8, places=8)


class Asked(msgspec.Struct, frozen=True):
    """One question to the sizing, and every bound on its answer in exact fractions, by its definition."""

    config: EngineConfig
    rules: Contract
    equity: Decimal
    price: Decimal
    leverage: int
    depth_usdt: float
    sigma: Decimal
    edge_bps: float

    @exactly
    def size(self, equity: Decimal | None = None) -> Decimal | Refusal:
        bounds = caps(
            self.config, equity=self.equity if equity is None else equity, leverage=self.leverage,
            depth_usdt=self.depth_usdt, sigma_bps=self.sigma, edge_bps=self.edge_bps,
        )  # fmt: skip
        return entry_size(self.config, self.rules, price=self.price, bounds=bounds)

    @property
    def limits(self) -> dict[str, Fraction]:
        def said(value: float) -> Fraction:
            return Fraction(repr(float(value)))

        def seen(value: float) -> Fraction:
            return math.floor(said(value) * 10**6) / Fraction(10**6)

        equity, sigma, config = Fraction(self.equity), Fraction(self.sigma) / 10_000, self.config
        gross = equity * min(self.leverage, config.leverage) * said(config.margin_use_max)
        return {
            "slot": gross / (2 * config.top_k),
            "symbol": gross * said(config.symbol_share_max),
            "volatility": equity * said(config.position_risk_bps) / 10_000 / sigma,
            "kelly": equity * said(config.kelly_share) * seen(self.edge_bps) / 10_000 / sigma**2,
            "depth": seen(self.depth_usdt) * said(config.depth_share_max),
        }


@st.composite
def questions(draw: st.DrawFn) -> Asked:
    shares = st.floats(0.01, 1.0)
    config = EngineConfig(
        leverage=draw(st.integers(1, 150)), top_k=draw(st.integers(1, 100)), margin_use_max=draw(shares),
        symbol_share_max=draw(shares), depth_share_max=draw(shares), position_risk_bps=draw(st.floats(0.1, 1000)),
        kelly_share=draw(shares), entry_kind=draw(st.sampled_from([OrderKind.MARKET, OrderKind.POST_ONLY])), entry_fallback=draw(st.booleans()),
    )  # fmt: skip
    bound = st.none() | st.decimals(min_value=D("0.001"), max_value=10**7, places=5)
    rules = contract(
        size_step=draw(STEPS), size_min=draw(st.decimals(min_value=0, max_value=2000, places=5)),
        notional_min_usdt=draw(st.sampled_from([D(0), D(1), D(5), D("5.01")])),
        size_max_market=draw(bound), size_max_limit=draw(bound),
    )  # fmt: skip
    return Asked(
        config, rules, draw(EQUITIES), draw(PRICES), draw(st.integers(1, 150)), draw(st.floats(0, 1e8)),
        draw(st.decimals(min_value=D("0.01"), max_value=5000, places=6)), draw(st.floats(0, 500)),
    )  # fmt: skip


@given(questions())
def test_a_size_keeps_every_bound_and_every_rule_of_the_exchange(asked: Asked) -> None:
    """A size is a multiple of the step, within [minimum, maximum] of the contract, at least the minimum notional, and
    its notional is above none of the five caps; and a size is refused only where no multiple could do that."""
    limits, step, price = asked.limits, Fraction(asked.rules.size_step), Fraction(asked.price)
    least = max(Fraction(asked.rules.size_min), Fraction(asked.rules.notional_min_usdt) * Fraction(11, 10) / price)
    of_kind = {OrderKind.MARKET: asked.rules.size_max_market, OrderKind.POST_ONLY: asked.rules.size_max_limit}
    kinds = {asked.config.entry_kind} | ({OrderKind.MARKET} if asked.config.entry_fallback else set())
    largest = min([size for size in (of_kind[kind] for kind in kinds) if size is not None], default=None)

    size = asked.size()

    may = min(limits.values()) / price // step * step
    if largest is not None:
        may = min(may, Fraction(largest) // step * step)
    if isinstance(size, Refusal):
        assert size.gate is Gate.SIZE
        assert may < least, size.reason
        return
    assert Fraction(size) % step == 0
    assert Fraction(size) >= least
    assert Fraction(size) == may, f"not the largest: {size} of {float(may)}"
    assert all(Fraction(size) * price <= limit for limit in limits.values())


@given(questions(), st.decimals(min_value=1, max_value=1000, places=3))
def test_more_equity_never_gives_a_smaller_size(asked: Asked, factor: Decimal) -> None:
    """Size is monotone in equity; and what was refused with less is never refused less with more."""
    poor, rich = asked.size(), asked.size(asked.equity * factor)

    if isinstance(rich, Refusal):
        assert isinstance(poor, Refusal)
    elif not isinstance(poor, Refusal):
        assert rich >= poor


@given(questions())
def test_the_equity_that_a_refusal_names_is_enough_and_a_cent_less_is_not(asked: Asked) -> None:
    """ "… USDT of equity would be enough" is true to the cent; "no equity would be enough" is true at a billion."""
    refused = asked.size()
    assume(isinstance(refused, Refusal) and "may be used" in refused.reason)
    assert isinstance(refused, Refusal)

    named = re.search(r"([0-9.]+) USDT of equity would be enough", refused.reason)

    if named is None:
        assert "no equity would be enough" in refused.reason
        assert isinstance(asked.size(D(10) ** 12), Refusal)
    else:
        assert not isinstance(asked.size(D(named[1])), Refusal), refused.reason
        assert isinstance(asked.size(D(named[1]) - D("0.01")), Refusal), refused.reason


@given(PRICES, STEPS, st.decimals(min_value=D("0.00001"), max_value=2000, places=5))
def test_a_null_gets_the_smallest_order_that_the_exchange_takes(price: Decimal, step: Decimal, least: Decimal) -> None:
    """Of every multiple of the step that clears both minima, with a tenth above the notional one, it is the first."""
    rules = contract(size_step=step, size_min=least)

    size = entry_size(EngineConfig(), rules, price=price, bounds=None)

    assert isinstance(size, Decimal)
    needed = max(Fraction(least), Fraction(rules.notional_min_usdt) * Fraction(11, 10) / Fraction(price))
    assert Fraction(size) % Fraction(step) == 0
    assert needed <= Fraction(size) < needed + Fraction(step) + Fraction(1, 10**40)


def asked(rules: Contract, equity: int = 58, **changes: object) -> Decimal | Refusal:
    fields = {
        "config": EngineConfig(), "rules": rules, "equity": D(equity), "price": D(10), "leverage": 5,
        "depth_usdt": 1e6, "sigma": D(5), "edge_bps": 20.0,
    }  # fmt: skip
    return Asked(**{**fields, **changes}).size()  # type: ignore[arg-type]


def test_a_small_account_is_told_so_with_the_arithmetic() -> None:
    """58 USDT over twenty slots at 5x is 58 x 5 x 0.5 / 20 = 7.25 USDT an order: enough for 5.5, not for a contract whose
    smallest order is 10; 10 x 20 / 2.5 = 80 USDT would be."""
    refused = asked(contract(size_min=D(1)))

    assert asked(contract()) == D("0.72")
    assert isinstance(refused, Refusal)
    assert refused.reason == (
        "the smallest order is 10.00 USDT, 7.25 USDT may be used (slot: 58.00 x 5 x 0.5 / 20 slots): "
        "80.00 USDT of equity would be enough"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sigma": D(60)}, "2.90 USDT may be used (volatility: 58.00 x 3.0 bps of risk / 60.00 bps of volatility)"),
        ({"sigma": D(20), "edge_bps": 0.02},
         "2.90 USDT may be used (kelly: 58.00 x 0.1 x 0.02 bps of edge / (20.00 bps of volatility)²)"),
        ({"depth_usdt": 30.0}, "3.00 USDT may be used (depth: 30.00 visible x 0.1): no equity would be enough"),
        ({"edge_bps": 0.0}, "0.00 USDT may be used"),
        ({"edge_bps": 1e-300}, "0.00 USDT may be used"),
        ({"edge_bps": math.inf}, "no equity would be enough while kelly allows 0.00"),
        ({"depth_usdt": math.nan}, "no equity would be enough while depth allows 0.00"),
    ],
)  # fmt: skip
def test_a_refusal_says_which_bound_held(changes: dict[str, object], reason: str) -> None:
    """58 x 3 / 60 = 2.90; 58 x 0.1 x 0.02e-4 / (20e-4)² = 2.90; 30 x 0.1 = 3.00; no edge, no size: all below 5.50."""
    refused = asked(contract(), 58, **changes)

    assert isinstance(refused, Refusal)
    assert reason in refused.reason


def test_an_order_is_cut_to_the_largest_of_its_kind_and_never_below_the_smallest() -> None:
    """maxMarketOrderQty cuts a market order and a post-only one that may be taken in the end, maxOrderQty one that may
    not; a maximum below the minimum is a refusal."""
    rules = contract(size_max_market=D("1.005"), size_max_limit=D("2.009"))
    resting = EngineConfig(entry_kind=OrderKind.POST_ONLY)

    assert asked(rules, equity=10**6) == D("1.00")
    assert asked(rules, equity=10**6, config=resting) == D("1.00")
    patient = msgspec.structs.replace(resting, entry_fallback=False)
    assert asked(rules, equity=10**6, config=patient) == D("2.00")
    for bounds in (contract(size_max_market=D("0.3")), contract(size_max_market=D("0.005"))):
        refused = asked(bounds, equity=10**6)
        assert isinstance(refused, Refusal)
        assert "the largest that may be sent is" in refused.reason
        assert isinstance(entry_size(EngineConfig(), bounds, price=D(10), bounds=None), Refusal)


@pytest.mark.parametrize("leverage", [1, 3, 20])
def test_leverage_is_what_was_obtained(leverage: int) -> None:
    """A symbol that grants less leverage than asked gets a smaller order; one that grants more does not get a larger."""
    size = asked(contract(), equity=10_000, leverage=leverage, depth_usdt=1e9, sigma=D(1))

    assert size == D(10_000) * min(5, leverage) / 2 / 20 / 10


def test_sigma_is_a_tick_at_least_and_the_stop_where_nothing_is_known() -> None:
    """A price that has not moved can move by a tick or half its spread; one that nobody has watched, by its stop."""
    config, rules = EngineConfig(stop_bps=150.0), contract(tick=D("0.01"))

    def sigma(found: float | None, half: str) -> Decimal:
        return sigma_bps(config, rules, price=D(100), half_spread=D(half), volatility_bps=found)

    assert sigma(0.0, "0.005") == 1
    assert sigma(0.0, "0.05") == 5
    assert sigma(8.7, "0.05") == D("8.7")
    assert sigma(None, "0.05") == 150


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


# ------------------------------------------------------------------------------------- what an account can trade


LISTED = Universe(
    source="simulator-made",
    as_of_ns=0,
    contracts=(
        contract("AUSDT", size_min=D(1), size_step=D(1)),
        contract("BUSDT", size_min=D("0.001"), size_step=D("0.001")),
        contract("CUSDT", leverage_max=2),
        contract("DUSDT", status="maintain"),
        contract("EUSDT"),
    ),
)
LAST = {"AUSDT": D(20), "BUSDT": D(100_000), "CUSDT": D(1), "DUSDT": D(1)}


def test_an_account_is_told_what_it_could_trade() -> None:
    """A costs 20 (1 x 20) and needs 20 x 20 / 2.5 = 160; B costs 100 and needs 800; C costs 5.50 and needs, at 2x,
    5.5 x 20 / 1 = 110; D is not tradable and E has no price."""
    found = affordable(EngineConfig(), LISTED, LAST, equity=D(150))

    assert (found.priced, found.tradable, found.smallest_order_usdt) == (3, 1, D("5.50"))
    assert (found.equity_for_one_usdt, found.equity_for_half_usdt, found.equity_for_all_usdt) == (
        D(110),
        D(160),
        D(800),
    )
    assert str(found) == (
        "150.00 USDT could trade 1 of 3 symbols (the smallest order costs 5.50 USDT; one symbol needs 110.00 USDT of "
        "equity, half of them 160.00, all of them 800.00)"
    )
    assert "no symbol has a price" in str(affordable(EngineConfig(), LISTED, {}, equity=D(150)))


@given(EQUITIES, st.integers(1, 50), st.booleans())
def test_what_an_account_is_told_is_what_sizing_says(equity: Decimal, top_k: int, is_null: bool) -> None:
    """The count is that of the symbols whose slot holds their smallest order; with the equity it names for all, all."""
    config = EngineConfig(top_k=top_k)
    found = affordable(config, LISTED, LAST, equity=equity, is_null=is_null)

    def fits(rules: Contract, owned: Decimal) -> bool:
        gross = owned * min(5, rules.leverage_max) / 2
        share = gross / 4 if is_null else min(gross / (2 * top_k), gross / 4)
        return smallest_size(rules, LAST[rules.symbol]) * LAST[rules.symbol] <= share

    assert found.tradable == sum(fits(rules, equity) for rules in LISTED.contracts[:3])
    assert found.equity_for_all_usdt is not None
    assert all(fits(rules, found.equity_for_all_usdt) for rules in LISTED.contracts[:3])


def test_an_account_that_can_trade_nothing_is_refused_with_the_arithmetic() -> None:
    """20 USDT x 5 x 0.5 / 20 is 2.50 a slot, the cheapest order costs 5.50: 4 slots a side would do, as 44 USDT would."""
    cheap = Universe(source="simulator-made", as_of_ns=0, contracts=(contract("AUSDT"), contract("BUSDT")))
    last = {"AUSDT": D(1), "BUSDT": D(1000)}

    with pytest.raises(SettingsError) as refused:
        check_affordable(EngineConfig(), cheap, last, equity=D(20))

    assert str(refused.value) == (
        "the account must afford one order, found 20.00 USDT x 5 (LEVERAGE) x 0.5 (margin_use_max), 2 x 10 TOP_K: "
        "2.50 USDT against 5.50 of the cheapest of 2 symbols: set TOP_K=4 or less, raise LEVERAGE, or have 44.00 USDT"
    )
    assert check_affordable(EngineConfig(top_k=4), cheap, last, equity=D(20)).tradable == 1
    assert check_affordable(EngineConfig(), cheap, last, equity=D(44)).tradable == 1
    assert check_affordable(EngineConfig(), cheap, last, equity=D(20), is_null=True).tradable == 2
    with pytest.raises(SettingsError, match=r"0\.25 a symbol: 0\.62 USDT against 5\.50"):
        check_affordable(EngineConfig(), cheap, last, equity=D(1), is_null=True)
