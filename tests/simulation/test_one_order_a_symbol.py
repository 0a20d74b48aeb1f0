"""Seeded worlds of entries that are chased and positions that are renewed, decay and reverse: one order a symbol, one
cause an exit, whatever the wires do."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from shared.strategy.engine import EngineConfig
from shared.strategy.orders import EXIT_CAUSES
from shared.strategy.scores import Scores
from shared.types import CancelOrder, Cause, Note, OrderKind, PlaceOrder
from tests.simulation.world import BAD_WIRES, US, Faults, World

CHASE = EngineConfig(
    horizon_s=8, horizons_max=3, cooldown_s=0, entry_kind=OrderKind.POST_ONLY, entry_wait_s=6, chases_max=3, top_k=3,
    decay_decisions=2, side_band=1.0, beta_band=10.0, turnover_penalty_bps=0.0,
)  # fmt: skip


class Swinging(World):
    """A world whose opinions stay for some seconds, and whose every placement is looked at where it arrives."""

    def __init__(self, seed: int, *, config: EngineConfig, faults: Faults | None) -> None:
        self.sign = np.zeros(6, np.int8)
        self.met: list[str] = []  # what an arriving order met in its symbol: must stay empty
        super().__init__(seed, config=config, faults=faults, is_coin=False, volatility=1e-3)

    def _opinions(self) -> Scores:
        n = len(self.symbols)
        turns = self.random.random(n) < 0.15
        self.sign[turns] = self.random.integers(-1, 2, n)[turns]
        sign = self.sign.copy()
        p_long, p_short = np.where(sign > 0, 0.9, 0.05), np.where(sign < 0, 0.9, 0.05)
        edge = sign * self.random.uniform(-5, 60, n)
        return Scores(
            p_long, p_short, 1 - p_long - p_short, edge, sign, np.maximum(p_long, p_short), np.ones(n, np.bool_)
        )

    def _arrive(self, order: PlaceOrder, *, is_answered: bool) -> None:
        resting = [o for o in self.venue.pending(US) if o.symbol == order.symbol]
        self.met += [f"{order.symbol}: {order.client_oid} met {o.client_oid}" for o in resting]
        held = {p.symbol: p.size for p in self.venue.positions(US)}
        if not order.reduce_only and held.get(order.symbol, 0) * order.side.sign < 0:
            self.met.append(f"{order.symbol}: an entry met a position of the other side")
        super()._arrive(order, is_answered=is_answered)


def story(world: Swinging) -> Counter[str]:
    """Return how often what happened, by name."""
    told = Counter(a.event for a in world.actions if isinstance(a, Note))
    told.update(a.cause.value for a in world.actions if isinstance(a, PlaceOrder) and a.reduce_only)
    told["taken"] = sum(
        a.kind is OrderKind.MARKET and not a.reduce_only for a in world.actions if isinstance(a, PlaceOrder)
    )
    return told


@pytest.mark.parametrize("kind", [OrderKind.POST_ONLY, OrderKind.MARKET])
@pytest.mark.parametrize("seed", range(4))
def test_no_symbol_has_two_orders_or_two_causes(seed: int, kind: OrderKind) -> None:
    """Over wires that lose, delay and repeat: when an order arrives nothing of ours works in its symbol, in the engine
    no symbol has two orders that are not done, every exit has one cause, and a trade's is that of its closing fill."""
    hold_to_one_order(seed, kind)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", [OrderKind.POST_ONLY, OrderKind.MARKET])
def test_no_symbol_has_two_orders_in_many_worlds(kind: OrderKind) -> None:
    """The same law over many more worlds."""
    for seed in range(100, 140):
        hold_to_one_order(seed, kind)


def hold_to_one_order(seed: int, kind: OrderKind) -> None:
    config = EngineConfig(**{f: getattr(CHASE, f) for f in CHASE.__struct_fields__} | {"entry_kind": kind})
    world = Swinging(seed, config=config, faults=BAD_WIRES if seed % 2 else None)

    def check(now: World) -> None:
        working = Counter(order.symbol for order in now.engine.orders.working)
        assert not [symbol for symbol, n in working.items() if n > 1], f"seed {seed}: {working}"
        assert set(now.engine._desk.chases) <= set(now.symbols)

    world.run(150, check)
    world.stop()

    told = story(world)
    assert world.met == [], f"seed {seed}"
    assert world.engine.is_flat_and_quiet, f"seed {seed}"
    assert not world.venue.positions(US), f"seed {seed}"
    assert world.engine.portfolio.equity_usdt == world.venue.equity(US), f"seed {seed}"
    causes = {a.client_oid: a.cause for a in world.actions if isinstance(a, PlaceOrder)}
    assert {c for c in causes.values() if c is not Cause.ENTRY} <= EXIT_CAUSES
    assert {trade.exit_cause for trade in world.engine.trades} <= EXIT_CAUSES
    assert len(world.engine.trades) > 10, f"seed {seed}: {told}"


def test_these_worlds_hold_every_ordinary_cause() -> None:
    """The law above is not vacuous: horizon, reversal and decay all end positions in them, some are renewed, entries are
    chased, and some of them taken in the end."""
    told: Counter[str] = Counter()
    longest = 0.0
    for seed in range(3):
        world = Swinging(seed, config=CHASE, faults=None)
        world.run(150)
        told += story(world)
        longest = max(longest, *(trade.duration_s for trade in world.engine.trades))

    assert all(told[cause.value] > 0 for cause in (Cause.HORIZON, Cause.REVERSAL, Cause.DECAY)), told
    assert longest > CHASE.horizon_s + 2
    assert told["order.chased"] > 30, told
    assert told["taken"] > 5, told


def test_cancels_are_not_repeated_without_news() -> None:
    """Between two cancels of one order something was heard of it: an unknown cancel is asked about, not doubled."""
    world = Swinging(5, config=CHASE, faults=BAD_WIRES)
    world.run(200)
    cancels = Counter(a.client_oid for a in world.actions if isinstance(a, CancelOrder))

    assert len(cancels) > 10
    for oid, n in cancels.items():
        heard = sum(getattr(event, "client_oid", "") == oid for event in world.events)
        assert n <= 1 + heard
