"""Partial fills of any size, at contracts of any minimum: every exit ends flat, over good wires and bad ones."""

from __future__ import annotations

import itertools
from decimal import Decimal

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared import journal
from shared.strategy.engine import Engine, EngineConfig
from shared.strategy.scores import CoinScorer
from shared.types import NS, Cause, Note, OrderKind, OrderRefused, PlaceOrder, Universe
from tests.shared.strategy.made import universe
from tests.simulation.world import BAD_WIRES, US, Faults, World

D = Decimal
SIZE_REFUSALS = {"45110", "45111", "22038", "40808"}


def listed(size_min: Decimal, step: str, notional_min: int) -> Universe:
    """Return contracts whose minimum is a multiple of their step, as Bitget's are."""
    steps = max(size_min // D(step), D(1))
    return universe(3, size_step=D(step), size_min=steps * D(step), notional_min_usdt=D(notional_min))


def flashes(world: World) -> list[PlaceOrder]:
    return [a for a in world.actions if isinstance(a, PlaceOrder) and a.is_flash]


def lived(seed: int, rules: Universe, kind: OrderKind, faults: Faults) -> World:
    """Live a minute in books that are thinner than the smallest order, and stop."""
    config = EngineConfig(horizon_s=5, cooldown_s=1, entry_kind=kind, entry_wait_s=2, depth_usdt_min=0.0)
    world = World(seed, config=config, faults=faults, volatility=3e-3, listed=rules, level_size_max=0.6)
    sent: list[tuple[int, str]] = []
    place = world._send

    def noted(order: PlaceOrder) -> None:
        if order.is_flash:
            sent.append((world.now_ns, order.symbol))
        place(order)

    world._send = noted  # type: ignore[method-assign]
    world.run(60)
    world.stop(patience_s=240)
    assert world.engine.is_flat_and_quiet, f"seed {seed}: {world.venue.positions(US)}"
    assert not world.venue.positions(US)
    assert not world.venue.pending(US)
    assert all(b - a >= NS for (a, _), (b, _) in itertools.pairwise(sent)), "close-positions is 1/s"
    return world


@given(
    seed=st.integers(0, 10_000),
    size_min=st.decimals("0.01", "4", places=2),
    step=st.sampled_from(["0.01", "0.1", "1"]),
    notional_min=st.sampled_from([1, 5, 400]),
    kind=st.sampled_from([OrderKind.POST_ONLY, OrderKind.MARKET]),
)
@example(seed=1, size_min=D(4), step="0.01", notional_min=5, kind=OrderKind.POST_ONLY)
@settings(max_examples=12, deadline=None)
def test_every_exit_ends_flat_and_replays(
    seed: int, size_min: Decimal, step: str, notional_min: int, kind: OrderKind
) -> None:
    """No exit is refused for its size, each trade that we ended has one cause, the ledger is the venue's, and the same
    events lead to the same actions, byte for byte."""
    rules = listed(size_min, step, notional_min)
    world = lived(seed, rules, kind, Faults())
    portfolio = world.engine.portfolio

    exits = {o.client_oid for o in world.placed.values() if o.reduce_only}
    refused = [e for e in world.events if isinstance(e, OrderRefused) and e.client_oid in exits]
    assert not [e for e in refused if e.code in SIZE_REFUSALS]
    ours = [t for t in world.engine.trades if t.entry_cause is Cause.ENTRY]  # a stop's fill may overtake the entry's
    assert {t.exit_cause for t in ours} <= {Cause.HORIZON, Cause.STOP, Cause.OPERATOR, Cause.RISK}
    assert portfolio.adjustments_usdt == 0
    assert portfolio.equity_usdt == world.venue.equity(US)

    scorer = CoinScorer(seed)
    again = Engine(world.engine.config, rules, scorer, session=f"world-{seed}", seed=seed)
    actions = [action for event in world.events for action in again.on_event(event)]
    assert journal.encode_actions(actions) == journal.encode_actions(world.actions)


def test_flash_closes_happen() -> None:
    """The worlds above are such worlds: some exits of makers are dust."""
    world = lived(1, listed(D(4), "0.01", 5), OrderKind.POST_ONLY, Faults())
    causes = {order.cause for order in flashes(world)}
    assert Cause.HORIZON in causes
    dust = [t for t in world.engine.trades if t.size < 4 and t.exit_cause is Cause.HORIZON]
    assert dust


@pytest.mark.parametrize("seed", range(4))
def test_bad_wires_double_no_flash_close(seed: int) -> None:
    """Answers lost, late and overtaken: flash closes end flat, nothing of the ledger is corrected."""
    world = lived(seed, listed(D(4), "0.01", 5), OrderKind.POST_ONLY, BAD_WIRES)

    assert flashes(world)
    assert world.engine.portfolio.adjustments_usdt == 0
    assert not [a for a in world.actions if isinstance(a, Note) and a.event == "ledger.corrected"]
    assert all(filled <= world.placed[oid].size for oid, filled in world.filled.items())


@pytest.mark.parametrize("seed", [2, 3])
def test_rules_that_grow_are_learnt(seed: int) -> None:
    """A minimum that grows after the session began is met once by each position, and no latch comes of it."""
    rules = listed(D("0.01"), "0.01", 5)
    config = EngineConfig(horizon_s=5, cooldown_s=1)
    world = World(seed, config=config, volatility=3e-3, is_coin=True, listed=rules)
    world.run(20)
    for contract in rules.contracts:
        world.venue.set_contract(msgspec.structs.replace(contract, size_min=D(10_000)))
    world.stop()

    assert world.engine.is_flat_and_quiet
    assert not world.venue.positions(US)
    assert flashes(world)
    assert world.engine.risk.latch is None
