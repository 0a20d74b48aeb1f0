"""Thin books, contracts of any minimum, both tiers: what no order may close leaves by flash close, and ends flat."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import cast

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.backtest_journal import BacktestJournal
from pipelines.exact.exchange import Assumptions, Change
from pipelines.exact.latency import Latencies, Lognormal
from pipelines.exact.session import ExactSimulation, Market
from pipelines.exact.tape import ArraysTape, Block
from pipelines.simulation import EQUITY_USDT, Simulation
from pipelines.venue_side import Tape
from shared import journal
from shared.errors import CrosscutError
from shared.features.sampler import COLUMNS
from shared.limits import config_of
from shared.settings import Settings
from shared.simulator.venue.orders import Refusal
from shared.strategy.config import EngineConfig
from shared.strategy.engine import Engine
from shared.strategy.scores import CoinScorer
from shared.types import NS, Action, Cause, Contract, Event, Floats, OrderKind, PlaceOrder, Universe
from tests.pipelines.exact.made import FOREVER_NS, START_NS
from tests.shared.simulator.venue_made import contract

SYMBOLS = tuple(f"S{n}USDT" for n in range(4))
SECONDS = 140
STOP_S = 50
"""So long before the end: an answer that is lost takes 35 s, and a flash close meets the best of a thin book only."""

START_S = START_NS // NS
D = Decimal


class Noted:
    """What an engine was told and wanted."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.actions: list[Action] = []
        self.flashed_ns: list[int] = []

    def note(self, event: Event, actions: list[Action]) -> None:
        self.events.append(event)
        self.actions += actions
        self.flashed_ns += [event.recv_ns for a in actions if isinstance(a, PlaceOrder) and a.is_flash]

    @property
    def exits(self) -> list[PlaceOrder]:
        return [a for a in self.actions if isinstance(a, PlaceOrder) and a.reduce_only]


def walk(seed: int, deepest: float) -> tuple[Floats, dict[str, Block]]:
    """Return seconds (C, T, N) and ticks of one market: a book and three trades of each symbol a second."""
    rng = np.random.default_rng(seed)
    values = np.zeros((len(COLUMNS), SECONDS, len(SYMBOLS)))
    columns = dict(zip(COLUMNS, values, strict=True))
    blocks = {}
    times = START_NS + np.arange(SECONDS, dtype=np.int64) * NS
    for n, symbol in enumerate(SYMBOLS):
        mid = np.round(40.0 * (n + 1) * np.exp(np.cumsum(rng.normal(0, 3e-4, SECONDS))), 2)
        sides = []
        for side, sign in (("bid", -1), ("ask", 1)):
            levels = np.empty((SECONDS, 5, 2))
            for k in range(5):
                levels[:, k, 0] = np.round(mid + sign * 0.01 * (k + 1), 2)
                levels[:, k, 1] = np.round(rng.uniform(0.1, deepest, SECONDS), 1)
                columns[f"{side}_price_{k + 1}"][:, n] = levels[:, k, 0]
                columns[f"{side}_size_{k + 1}"][:, n] = levels[:, k, 1]
            sides.append(levels)
            for width in (5, 10):
                columns[f"{side}_depth_{width}bps_usdt"][:, n] = 1e6
        for name in ("last", "mark", "index", "mid_high", "mid_low"):
            columns[name][:, n] = mid
        columns["funding_rate"][:, n] = 0.0001
        columns["book_updates"][:, n] = 1.0
        trade_ns = (times[:, None] + np.array([2, 5, 8]) * (NS // 10)).ravel()
        taker = rng.choice(np.array([-1, 1], np.int8), len(trade_ns))
        touch = np.where(taker > 0, np.repeat(sides[1][:, 0, 0], 3), np.repeat(sides[0][:, 0, 0], 3))
        blocks[symbol] = Block(
            begin_ns=0, end_ns=FOREVER_NS, book_ns=times - 1, bids=sides[0], asks=sides[1],
            trade_ns=trade_ns, trade_price=touch, trade_size=np.round(rng.uniform(0.1, 2 * deepest, len(trade_ns)), 1),
            trade_side=taker, mark_ns=times - 1, mark=mid, index=mid, rate=np.full(SECONDS, 0.0001),
        )  # fmt: skip
    return values, blocks


def rules(size_min: Decimal, notional_min: int) -> Universe:
    contracts = tuple(contract(s, size_min=size_min, notional_min_usdt=D(notional_min)) for s in SYMBOLS)
    return Universe(source="simulator-test", as_of_ns=0, contracts=contracts)


def config() -> EngineConfig:
    found = config_of(Settings(_env_file=None), horizon_s=10, entry_kind=OrderKind.POST_ONLY)
    return msgspec.structs.replace(found, entry_wait_s=3, cooldown_s=1)


def lived(simulation: Simulation, values: Floats) -> Noted:
    """Live through the seconds, stop, end flat; return what happened, after a fresh engine has done the same."""
    noted, tape = Noted(), Tape(values)
    simulation.journal = cast(BacktestJournal, noted)
    engine = simulation.engine
    scores = CoinScorer(engine.seed).score(None, dict(zip(COLUMNS, values, strict=True)), START_S)
    simulation.start(START_S)
    for t in range(SECONDS):
        if t == SECONDS - STOP_S:
            simulation.stop(START_S + t)
        simulation.step(tape, t, START_S + t, values[:, t], scores.row(t))
    simulation.overtime(tape, START_S + SECONDS - 1, values[:, -1], scores.row(SECONDS - 1))
    simulation.outcome()  # the ledger is the venue's

    again = Engine(engine.config, engine.universe, CoinScorer(engine.seed), session=engine.session, seed=engine.seed)
    repeated = [action for event in noted.events for action in again.on_event(event)]
    assert journal.encode_actions(repeated) == journal.encode_actions(noted.actions)
    assert all(b - a >= NS for a, b in itertools.pairwise(noted.flashed_ns)), "close-positions is 1/s"
    return noted


def simulation_of(
    tier: str, seed: int, universe: Universe, blocks: dict[str, Block], changes: tuple[Change, ...] = ()
) -> Simulation:
    coin = CoinScorer(seed)
    if tier == "screen":
        return Simulation("coin", universe, config(), coin, seed=seed, equity_usdt=EQUITY_USDT)
    latencies = Latencies(answer=Lognormal(40, 200), lost_share=0.05)  # answers that a push overtakes, or that are lost
    market = Market(ArraysTape(blocks), Assumptions(latencies=latencies, impact_half_life_s=1.0), changes)
    return ExactSimulation(
        "coin", universe, config(), coin, seed=seed, equity_usdt=EQUITY_USDT, market=market, start_s=START_S
    )


@pytest.mark.parametrize("tier", ["screen", "exact"])
@given(
    seed=st.integers(0, 10_000),
    size_min=st.integers(1, 60).map(lambda tenths: D(tenths) / 10),
    notional_min=st.sampled_from([1, 5, 300]),
    deepest=st.sampled_from([0.4, 1.0, 4.0]),
)
@example(seed=1, size_min=D(5), notional_min=5, deepest=0.4)
@settings(max_examples=5, deadline=None)
def test_every_exit_ends_flat_in_both_tiers(
    tier: str, seed: int, size_min: Decimal, notional_min: int, deepest: float
) -> None:
    """Whatever was filled of an entry or an exit, the next exit is one that the venue takes."""
    values, blocks = walk(seed, deepest)
    simulation = simulation_of(tier, seed, rules(size_min, notional_min), blocks)

    lived(simulation, values)

    assert not [told for told in simulation.side.refusals if told[:5] in ("45110", "45111", "22038", "40808")]
    assert not simulation.side.exits_refused


@pytest.mark.parametrize("tier", ["screen", "exact"])
def test_dust_is_left_with_the_cause_of_its_exit(tier: str) -> None:
    """The worlds above have dust: makers' exits at their horizon that only the exchange may make."""
    values, blocks = walk(1, 0.4)
    simulation = simulation_of(tier, 1, rules(D(5), 5), blocks)

    noted = lived(simulation, values)

    flashed = [order for order in noted.exits if order.is_flash]
    assert {order.cause for order in flashed} >= {Cause.HORIZON}
    causes = {trade.exit_cause for trade in simulation.trades if trade.entry_cause is Cause.ENTRY}
    assert causes <= {Cause.HORIZON, Cause.STOP, Cause.OPERATOR}
    assert all(trade.fees_usdt > 0 for trade in simulation.trades)


@pytest.mark.parametrize("status", ["normal", "limit_open"])
def test_minimum_that_grows_in_a_window_is_learnt(status: str) -> None:
    """Contracts change while positions are held, also to closing only: the first exit is refused, the next is not."""
    values, blocks = walk(3, 4.0)
    universe = rules(D("0.1"), 5)

    def grown(before: Contract) -> Change:
        return Change(START_NS + 60 * NS, msgspec.structs.replace(before, size_min=D(900), status=status), False)

    simulation = simulation_of("exact", 3, universe, blocks, tuple(map(grown, universe.contracts)))
    noted = lived(simulation, values)

    assert noted.flashed_ns
    assert min(noted.flashed_ns) > START_NS + 60 * NS
    assert simulation.engine.risk.latch is None or status == "limit_open"


def test_what_stays_open_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backtest that does not end flat says why: the venue's refusal, or a book that is too thin."""
    values, blocks = walk(1, 0.4)
    simulation = simulation_of("screen", 1, rules(D(5), 5), blocks)
    no = Refusal("40725", "service return an error")
    monkeypatch.setattr(simulation.side.venue, "close_at_market", lambda *_, **__: ([], [("", no)]))
    with pytest.raises(CrosscutError, match=r"still open \(its exit was refused: 40725 service return an error\)"):
        lived(simulation, values)

    values, blocks = walk(1, 0.4)
    simulation = simulation_of("screen", 1, rules(D("0.1"), 1), blocks)
    for side in ("bid", "ask"):
        for k in range(1, 6):
            values[COLUMNS.index(f"{side}_size_{k}"), SECONDS - STOP_S :] = 0.0
    with pytest.raises(CrosscutError, match=r"still open \(its last book is too thin\)"):
        lived(simulation, values)
