"""Seeded worlds: the ledger equals the venue's equity, nothing is sent twice, a stop ends flat, whatever the wires do."""

from __future__ import annotations

from decimal import Decimal

import pytest

from shared.strategy.engine import EngineConfig
from shared.types import Note, OrderKind
from tests.simulation.world import BAD_WIRES, US, Faults, World

CONFIGS = {
    "market": EngineConfig(horizon_s=5, cooldown_s=1),
    "post_only": EngineConfig(horizon_s=5, cooldown_s=1, entry_kind=OrderKind.POST_ONLY, entry_wait_s=2),
}


def assert_ledger_is_the_venues(world: World) -> None:
    if world.in_flight or not world.is_billed:
        return
    portfolio = world.engine.portfolio
    held = {p.symbol: p.size for p in world.venue.positions(US)}
    assert {s: h.size for s, h in portfolio.holdings.items()} == held
    _, realised, fees, funding = world.venue.totals(US)
    assert (portfolio.fees_usdt, portfolio.funding_usdt) == (fees, funding)
    assert portfolio.equity_usdt == world.venue.equity(US)
    if not held:
        # Before, fills that overtake each other on the wires may leave another 1e-12 of the cost with what is open.
        assert portfolio.realised_usdt == realised


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("is_coin", [True, False])
@pytest.mark.parametrize("seed", [1, 2])
def test_ledger_equals_the_venue_whenever_the_wires_are_empty(seed: int, is_coin: bool, kind: str) -> None:
    """Over good wires, with partial fills, stops and funding, the ledger is the venue's account to the last digit after
    every event that leaves nothing under way."""
    world = World(seed, config=CONFIGS[kind], is_coin=is_coin, volatility=3e-3)
    n_compared = 0

    def compare(now: World) -> None:
        nonlocal n_compared
        assert_ledger_is_the_venues(now)
        n_compared += 1

    world.at_rest = compare
    world.run(90)
    world.stop()

    assert n_compared > 80, f"seed {seed}: {n_compared}"

    portfolio = world.engine.portfolio
    assert len(world.engine.trades) > 10
    assert world.engine.is_flat_and_quiet
    assert not world.in_flight
    assert portfolio.equity_usdt == world.venue.equity(US)
    assert portfolio.equity_usdt == portfolio.balance_usdt + portfolio.unrealised_usdt
    assert portfolio.adjustments_usdt == 0
    # A funding payment that arrives after its position was closed belongs to no trade, but to the ledger all the same.
    orphaned = portfolio.funding_usdt - sum(t.funding_usdt for t in world.engine.trades)
    assert portfolio.equity_usdt == Decimal(10_000) + sum(t.net_usdt for t in world.engine.trades) + orphaned
    deposit, realised, fees, funding = world.venue.totals(US)
    assert (portfolio.realised_usdt, portfolio.fees_usdt, portfolio.funding_usdt) == (realised, fees, funding)
    assert deposit == 10_000


@pytest.mark.parametrize("ends_after_s", [31, 33, 60])
@pytest.mark.parametrize("seed", [3, 4])
def test_late_bills_of_funding_find_the_ledger(seed: int, ends_after_s: int) -> None:
    """Bills that are listed up to 20 s after the settlement, half a minute into the world, are all booked: also those
    of a session that stops before they come, and nothing is adjusted for them."""
    faults = Faults(bill_delay_s_max=20, repeated_push=0.2, latency_ms_max=400)
    world = World(seed, config=CONFIGS["market"], faults=faults, volatility=3e-3)

    world.run(ends_after_s, assert_ledger_is_the_venues)
    world.stop()

    _, _, _, funding = world.venue.totals(US)
    assert funding != 0
    assert world.is_billed
    assert world.engine.is_flat_and_quiet
    assert world.engine.portfolio.funding_usdt == funding
    assert world.engine.portfolio.equity_usdt == world.venue.equity(US)
    assert world.engine.portfolio.adjustments_usdt == 0


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("seed", range(8))
def test_bad_wires_lose_no_money_and_no_order(seed: int, kind: str) -> None:
    """Whatever is lost, late, repeated or never answered: nothing is sent twice, no position is doubled, a stop ends
    flat, and every cent in the ledger comes from a fill or a bill: nothing is corrected, nothing adjusted."""
    world = World(seed, config=CONFIGS[kind], faults=BAD_WIRES, is_coin=bool(seed % 2), volatility=1e-3)
    largest: dict[str, Decimal] = {}

    def check(now: World) -> None:
        for order in now.placed.values():
            largest[order.symbol] = max(largest.get(order.symbol, Decimal(0)), order.size)
        for position in now.venue.positions(US):
            assert abs(position.size) <= largest[position.symbol], f"seed {seed}: {position.symbol} was doubled"
        exits = [o.symbol for o in now.venue.pending(US) if o.reduce_only]
        assert len(exits) == len(set(exits)), f"seed {seed}: two exits work in one symbol"

    world.run(120, check)
    world.stop()

    assert world.engine.is_flat_and_quiet, f"seed {seed}"
    assert not world.venue.positions(US), f"seed {seed}"
    assert not world.venue.pending(US), f"seed {seed}"
    assert world.engine.portfolio.adjustments_usdt == 0, f"seed {seed}"
    assert not [a for a in world.actions if isinstance(a, Note) and a.event == "ledger.corrected"], f"seed {seed}"
    assert_ledger_is_the_venues(world)
    assert all(filled <= world.placed[oid].size for oid, filled in world.filled.items())
