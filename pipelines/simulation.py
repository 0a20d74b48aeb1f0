"""The live engine against the simulated venue over seconds of the lake, and its nulls beside it.

1. Features and scores are computed block by block with the graph and the scorer that live runs; cut invariance
   makes them the bits that the engine would have computed second by second.
2. Each second: the venue shows the row, executes what was decided on the row before (five visible levels), its fills go
   back to the engine as events, then the engine decides. At the end everything is closed and must be flat.
3. Beside the model run its nulls, through the same engine and venue: a *coin* (minimum size, no gate for
   edge or confidence) and *shuffled* scores (the model's own, turned in time by half a block: as confident, as
   correlated, and about another moment).

What is not simulated: latency other than one second, market impact beyond the visible levels, queue positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from pipelines.moments import when
from pipelines.seconds import stored
from pipelines.trades import MINUTE_S, metrics_of, net_bps
from pipelines.validation import RankIC, rank_ic
from pipelines.venue_side import Tape, VenueSide, end_of
from shared.errors import CrosscutError, NotEnoughData, TableEmpty
from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph
from shared.features.sampler import COLUMNS
from shared.lake import read
from shared.strategy.config import EngineConfig
from shared.strategy.engine import Engine
from shared.strategy.portfolio import Trade
from shared.strategy.scores import CoinScorer, Scorer, Scores
from shared.types import (
    NS,
    Action,
    Event,
    Floats,
    LinkChanged,
    Note,
    QueryAccount,
    QueryOrder,
    SecondClosed,
    Seconds,
    StopRequested,
    Universe,
)

EQUITY_USDT = Decimal(10_000)

BLOCK_S = 900
"""Rows computed at once; also the length that shuffled scores are turned in."""

FLATTEN_S = 15
"""Seconds before the end at which the engine is asked to stop."""

OVERTIME_S = 60
"""Rows the last one is repeated for, while something is still open."""

WINDOW_S_MIN = 120


class Outcome(msgspec.Struct, frozen=True):
    """What one engine did."""

    name: str  # of the scorer, or "shuffled"
    trades: tuple[Trade, ...]
    equity_usdt: Floats  # (1 + T,): at the start and at the end of every second
    start_usdt: Decimal
    orders: int
    refusals: dict[str, int]  # of the venue, "code message" -> how often
    gates: dict[str, int]  # why not -> symbol-seconds
    metrics: dict[str, float]
    net_bps: float  # of the notional opened; NaN without a trade


class Backtest(msgspec.Struct, frozen=True):
    """A judgement: the model's outcome, its nulls, and what they were judged on."""

    source: str
    start_s: int
    end_s: int
    holdout_from_s: int | None  # None: nothing was learnt, every second is out of sample
    style: str
    seed: int
    symbols: int
    main: Outcome
    nulls: tuple[Outcome, ...]
    ic: RankIC  # of the scores with what followed; NaN where there are no labels
    ic_by_minute: Floats  # (minutes,)

    @property
    def is_generated(self) -> bool:
        return self.source.startswith("simulator-g")


class Simulation:
    """One engine and its venue, fed row by row."""

    def __init__(
        self, name: str, universe: Universe, config: EngineConfig, scorer: Scorer, *, seed: int, equity_usdt: Decimal
    ) -> None:
        self.name, self.scorer = name, scorer
        self.side = VenueSide(universe, equity_usdt, config.leverage)
        self.engine = Engine(config, universe, scorer, session=f"backtest-{name}", seed=seed)
        self.start_usdt = equity_usdt
        self.equity = [float(equity_usdt)]
        self.trades: list[Trade] = []
        self.gates: dict[str, int] = {}
        self._wanted: list[Action] = []

    def start(self, second: int) -> None:
        """Adopt the fresh account and open the links, just before the first row."""
        now_ns = second * NS
        self._tell([self.side.adopted(now_ns)])
        self._tell([LinkChanged(recv_ns=now_ns, link=link, is_up=True) for link in ("public", "private")])

    def step(self, tape: Tape, t: int, second: int, row: Floats, scores: Scores) -> None:
        """Live through one second."""
        now_ns = end_of(second)
        self._execute(tape, t, now_ns)
        self._tell([SecondClosed(recv_ns=now_ns, second=second, columns=row, scores=scores)])
        self.equity.append(float(self.side.equity_usdt))

    def stop(self, second: int) -> None:
        self._tell([StopRequested(recv_ns=second * NS, reason="the window ends")])

    def overtime(self, tape: Tape, second: int, row: Floats, scores: Scores) -> None:
        """Repeat the last row until everything is closed."""
        for later in range(1, OVERTIME_S + 1):
            if self.side.is_flat and self.engine.is_flat_and_quiet:
                break
            now_ns = end_of(second + later)
            self._execute(tape, -1, now_ns, keep_books=True)
            self._tell([SecondClosed(recv_ns=now_ns, second=second + later, columns=row, scores=scores)])
        if not self.side.is_flat:
            left = ", ".join(f"{p.size} {p.symbol}" for p in self.side.venue.positions("backtest"))
            raise CrosscutError(
                f"a backtest must end flat within {OVERTIME_S} s, found {left} still open: "
                "its last book is too thin; end the window earlier (--to)"
            )
        self.equity[-1] = float(self.side.equity_usdt)

    def outcome(self) -> Outcome:
        ours, theirs = self.engine.portfolio.equity_usdt, self.side.equity_usdt
        assert ours == theirs, f"the ledger has {ours}, the venue {theirs}"
        equity = np.array(self.equity)
        return Outcome(
            name=self.name,
            trades=tuple(self.trades),
            equity_usdt=equity,
            start_usdt=self.start_usdt,
            orders=self.side.orders,
            refusals=self.side.refusals,
            gates=self.gates,
            metrics=metrics_of(self.trades, equity, self.start_usdt),
            net_bps=net_bps(self.trades),
        )

    def _execute(self, tape: Tape, t: int, now_ns: int, *, keep_books: bool = False) -> None:
        wanted, self._wanted = self._wanted, []
        self._tell(self.side.row(tape, t, wanted, now_ns, keep_books=keep_books))
        self.trades += self.engine.take_trades()

    def _tell(self, events: Sequence[Event]) -> None:
        """Hand over events in order; questions are answered at once, orders wait for the next row."""
        queue = list(events)
        while queue:
            event = queue.pop(0)
            for action in self.engine.on_event(event):
                if isinstance(action, Note):
                    self._count(action)
                elif isinstance(action, QueryOrder | QueryAccount):
                    queue += self.side.execute(action, event.recv_ns)
                else:
                    self._wanted.append(action)

    def _count(self, note: Note) -> None:
        if note.event == "decision.made":
            for name, value in note.fields.items():
                if name.startswith("no_") and isinstance(value, int):
                    self.gates[name[3:]] = self.gates.get(name[3:], 0) + value


def run_backtest(
    lake: Path,
    source: str,
    *,
    scorer: Scorer,
    config: EngineConfig,
    start_s: int,
    end_s: int,
    seed: int,
    holdout_from_s: int | None = None,
    equity_usdt: Decimal = EQUITY_USDT,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Backtest:
    """Run the scorer and its nulls over [start_s, end_s) of the lake's seconds.

    Raises:
        NotEnoughData: the window is shorter than two minutes.
        TableEmpty: the lake holds no seconds in it.
    """
    if end_s - start_s < WINDOW_S_MIN:
        raise NotEnoughData(
            f"a window of {WINDOW_S_MIN} s at least is needed, found {max(0, end_s - start_s)} s of {source} "
            f"from {when(start_s)}: record more, or train on less (--to)"
        )
    universe = read.universe_between(lake, source, start_s * NS, end_s * NS, rules="first")
    simulations = [Simulation(scorer.name, universe, config, scorer, seed=seed, equity_usdt=equity_usdt)]
    if not scorer.is_null:
        coin = CoinScorer(seed)
        simulations += [
            Simulation("coin", universe, config, coin, seed=seed, equity_usdt=equity_usdt),
            Simulation("shuffled", universe, config, scorer, seed=seed, equity_usdt=equity_usdt),
        ]
    for simulation in simulations:
        simulation.start(start_s)
    edges: list[Floats] = []
    for seconds, scores in scored_blocks(lake, source, universe, scorer, start_s, end_s):
        stacks = [scores]
        if not scorer.is_null:
            stacks += [coin.score(None, seconds.columns, seconds.first_second), turned(scores)]
        rows = np.stack([seconds.columns[name] for name in COLUMNS], axis=1)  # (T, C, N)
        tape = Tape(dict(seconds.columns))
        for t in range(len(rows)):
            second = seconds.first_second + t
            for simulation, stack in zip(simulations, stacks, strict=True):
                if second == end_s - FLATTEN_S:
                    simulation.stop(second)
                simulation.step(tape, t, second, rows[t], stack.row(t))
        edges.append(np.where(scores.is_valid, scores.edge_bps, math.nan))
        on_progress((seconds.first_second + len(rows) - start_s) / (end_s - start_s))
    for simulation, stack in zip(simulations, stacks, strict=True):
        simulation.overtime(tape, end_s - 1, rows[-1], stack.row(len(rows) - 1))
    outcomes = [simulation.outcome() for simulation in simulations]
    ic, by_minute = _ic(lake, source, universe.symbols, np.concatenate(edges), start_s, end_s)
    return Backtest(
        source=source,
        start_s=start_s,
        end_s=end_s,
        holdout_from_s=holdout_from_s,
        style=config.entry_kind.value,
        seed=seed,
        symbols=len(universe.symbols),
        main=outcomes[0],
        nulls=tuple(outcomes[1:]),
        ic=ic,
        ic_by_minute=by_minute,
    )


def scored_blocks(
    lake: Path, source: str, universe: Universe, scorer: Scorer, start_s: int, end_s: int
) -> Iterator[tuple[Seconds, Scores]]:
    """Yield the window in blocks of about `BLOCK_S` rows with their scores; the graph carries its state across."""
    symbols = universe.symbols
    graph = FeatureGraph(FEATURES, symbols) if scorer.needs_features else None
    if graph is not None:
        graph.step(stored(lake, source, start_s - graph.lookback, start_s, symbols).columns, start_s - graph.lookback)
    n_blocks = max(1, round((end_s - start_s) / BLOCK_S))
    bounds = [start_s + round((end_s - start_s) * k / n_blocks) for k in range(n_blocks + 1)]
    for begin, end in pairwise(bounds):
        seconds = stored(lake, source, begin, end, symbols)
        features = graph.step(seconds.columns, begin) if graph is not None else None
        yield seconds, scorer.score(features, seconds.columns, begin)


def turned(scores: Scores) -> Scores:
    """Return the scores of half a block earlier or later, valid where both are."""
    half = len(scores.is_valid) // 2
    rolled = {name: np.roll(getattr(scores, name), half, axis=0) for name in scores.__struct_fields__}
    rolled["is_valid"] = rolled["is_valid"] & scores.is_valid
    return Scores(**rolled)


def _ic(
    lake: Path, source: str, symbols: tuple[str, ...], edge_bps: Floats, start_s: int, end_s: int
) -> tuple[RankIC, Floats]:
    """Return the rank IC of the scores with what followed, over all and by minute; NaN without labels."""
    n_minutes = -(-(end_s - start_s) // MINUTE_S)
    try:
        frame = read.collect(
            read.scan(lake, "labels", source, start_s=start_s, end_s=end_s, symbols=symbols, is_sorted=False)
            .select("second", "symbol", "mid_bps")
            .with_columns(pl.col("mid_bps").fill_null(math.nan))
        )
    except TableEmpty:
        return RankIC(math.nan, math.nan, 0), np.full(n_minutes, math.nan)
    moved = read.to_arrays(frame, start_s, end_s, symbols)["mid_bps"]
    second = np.repeat(np.arange(start_s, end_s), len(symbols))
    minutes = np.array(
        [
            rank_ic(
                second[m * MINUTE_S * len(symbols) : (m + 1) * MINUTE_S * len(symbols)],
                edge_bps[m * MINUTE_S : (m + 1) * MINUTE_S].ravel(),
                moved[m * MINUTE_S : (m + 1) * MINUTE_S].ravel(),
            ).mean
            for m in range(n_minutes)
        ]
    )
    return rank_ic(second, edge_bps.ravel(), moved.ravel()), minutes
