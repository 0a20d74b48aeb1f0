"""The live engine against the simulated venue over seconds of the lake, and its nulls beside it.

1. Features and scores come block by block (`pipelines.scoring`), once for all engines that read them.
2. Each second: the venue shows the row, executes what was decided on the row before (five visible levels), its fills go
   back to the engine as events, then the engine decides. At the end everything is closed and must be flat.
3. Beside the model run its nulls, through the same engine and venue: a *coin* (minimum size, no gate for
   edge or confidence) and *shuffled* scores (the model's own, turned in time by half a block: as confident, as
   correlated, and about another moment).

What is not simulated: latency other than one second, market impact beyond the visible levels, queue positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np

from pipelines.backtest_journal import BacktestJournal, JournalPlan
from pipelines.decisions import DecisionLog
from pipelines.kept_scores import KeptScores
from pipelines.moments import when
from pipelines.scoring import Block, Labelled, Stacked, scored_blocks, stacked, turned
from pipelines.skill import NO_SKILL, Skill, SkillMeter
from pipelines.trades import NO_EXPOSURE, Execution, Exposure, metrics_of, net_bps
from pipelines.validation import RankIC
from pipelines.venue_side import ACCOUNT, Tape, VenueSide, end_of
from shared.errors import CrosscutError, NotEnoughData, TableEmpty
from shared.features.graph import Features
from shared.lake import read
from shared.replay import alternatives_of
from shared.strategy.config import EngineConfig
from shared.strategy.engine import Engine
from shared.strategy.exact import decimal_of
from shared.strategy.exits import FLASH_EVERY_S
from shared.strategy.orders import State
from shared.strategy.portfolio import Portfolio, Trade
from shared.strategy.scores import CoinScorer, Scorer, Scores
from shared.strategy.sizing import check_affordable
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
    StopRequested,
    Universe,
)

EQUITY_USDT = Decimal(10_000)

FLATTEN_S = 15
"""Seconds before the end at which the engine is asked to stop."""

OVERTIME_S = 60
"""Rows the last one is repeated for, while something is still open; what only the exchange can close takes longer."""

WINDOW_S_MIN = 120

PRICED_WITHIN_S = 60
"""A symbol without a book for so long from the start has no price when it is asked what the account can afford."""

EXPOSURE_EVERY_S = 10
"""Seconds between two looks at what is held."""


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
    exposure: Exposure = NO_EXPOSURE
    executions: tuple[Execution, ...] = ()  # with the book that each met; () where they were not kept


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
    skill: Skill = NO_SKILL  # of the scores; nothing where there are no labels
    decisions: DecisionLog | None = None  # None: they were not kept
    tier: str = "screen"  # or "exact" (`pipelines.exact`)
    assumptions: str = ""  # of the exact tier, in words

    @property
    def ic(self) -> RankIC:
        return self.skill.ic

    @property
    def is_generated(self) -> bool:
        return self.source.startswith("simulator-g")


class Simulation:
    """One engine and its venue, fed row by row."""

    def __init__(
        self,
        name: str,
        universe: Universe,
        config: EngineConfig,
        scorer: Scorer,
        *,
        seed: int,
        equity_usdt: Decimal,
        keeps_executions: bool = False,
        side: VenueSide | None = None,
    ) -> None:
        self.name, self.scorer = name, scorer
        if side is None:
            side = VenueSide(universe, equity_usdt, config.leverage, keeps_executions=keeps_executions)
        self.side = side
        self.engine = Engine(
            config,
            universe,
            scorer,
            session=f"backtest-{name}",
            seed=seed,
            alternatives=alternatives_of(config),
        )
        self.start_usdt = equity_usdt
        self.equity = [float(equity_usdt)]
        self.trades: list[Trade] = []
        self.gates: dict[str, int] = {}
        self.decisions: DecisionLog | None = None  # None: nobody asks afterwards why not
        self.journal: BacktestJournal | None = None  # None: nobody asks whether live would do the same
        self._exposure = ExposureMeter()
        self._wanted: list[Action] = []

    def start(self, second: int) -> None:
        """Adopt the fresh account and open the links, just before the first row."""
        now_ns = second * NS
        self._tell([self.side.adopted(now_ns)])
        self._tell([LinkChanged(recv_ns=now_ns, link=link, is_up=True) for link in ("public", "private")])

    def step(self, tape: Tape, t: int, second: int, row: Floats, scores: Scores | tuple[Scores, ...]) -> None:
        """Live through one second.

        Args:
            scores: of each variant, where the engine chooses among several.
        """
        now_ns = self._decided_ns(second)
        self._execute(tape, t, now_ns)
        self._tell([SecondClosed(recv_ns=now_ns, second=second, columns=row, scores=scores)])
        self.equity.append(float(self.side.equity_usdt))
        self._exposure.look(second, self.engine.portfolio)

    def _decided_ns(self, second: int) -> int:
        """Return when a second is handed to the engine."""
        return end_of(second)

    def stop(self, second: int) -> None:
        self._tell([StopRequested(recv_ns=second * NS, reason="the window ends")])

    def overtime(self, tape: Tape, second: int, row: Floats, scores: Scores | tuple[Scores, ...]) -> None:
        """Repeat the last row until everything is closed."""
        patience_s = OVERTIME_S + FLASH_EVERY_S * len(self.side.venue.positions(ACCOUNT))
        for later in range(1, patience_s + 1):
            if self.side.is_flat and self.engine.is_flat_and_quiet:
                break
            now_ns = end_of(second + later)
            self._execute(tape, -1, now_ns, keep_books=True)
            self._tell([SecondClosed(recv_ns=now_ns, second=second + later, columns=row, scores=scores)])
        if not self.side.is_flat:
            raise CrosscutError(
                f"a backtest must end flat within {patience_s} s, found {self._left()}: end the window earlier (--to)"
            )
        self.equity[-1] = float(self.side.equity_usdt)

    def _left(self) -> str:
        """Return what is still open, and why, of each."""
        doubts, refused = self.engine.truth.doubts, self.side.exits_refused
        told = []
        for held in self.side.venue.positions(ACCOUNT):
            if held.symbol in refused:
                why = f"its exit was refused: {refused[held.symbol]}"
            elif held.symbol in doubts:
                why = f"the engine doubts it: {doubts[held.symbol]}"
            elif any(order.state is State.UNKNOWN for order in self.engine.orders.working_in(held.symbol)):
                why = "nobody has answered for its exit"
            else:
                why = "its last book is too thin"
            told.append(f"{held.size} {held.symbol} still open ({why})")
        told += [f"an order for {o.remaining} {o.symbol} still resting" for o in self.side.venue.pending(ACCOUNT)]
        return ", ".join(told)

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
            exposure=self._exposure.found(),
            executions=tuple(self.side.executions),
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
            for action in self._think(event):
                if isinstance(action, Note):
                    self._count(action)
                elif isinstance(action, QueryOrder | QueryAccount):
                    queue += self.side.execute(action, event.recv_ns)
                else:
                    self._wanted.append(action)
            if self.decisions is not None and isinstance(event, SecondClosed):
                self.decisions.look(self.engine)

    def _think(self, event: Event) -> list[Action]:
        """Tell the engine and return what it wants."""
        actions = self.engine.on_event(event)
        if self.journal is not None:
            self.journal.note(event, actions)
        return actions

    def _count(self, note: Note) -> None:
        if note.event == "decision.made":
            for name, value in note.fields.items():
                if name.startswith("no_") and isinstance(value, int):
                    self.gates[name[3:]] = self.gates.get(name[3:], 0) + value


class ExposureMeter:
    """Looks at what is held, every `EXPOSURE_EVERY_S`."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, float, float, int]] = []

    def look(self, second: int, portfolio: Portfolio) -> None:
        if second % EXPOSURE_EVERY_S:
            return
        gross = net = 0.0
        for holding in portfolio.holdings.values():
            notional = float(holding.notional_usdt)
            gross += notional
            net += holding.side.sign * notional
        self._rows.append((second, gross, net, len(portfolio.holdings)))

    def found(self) -> Exposure:
        rows = np.array(self._rows, np.float64).reshape(-1, 4)
        return Exposure(rows[:, 0].astype(np.int64), rows[:, 1], rows[:, 2], rows[:, 3].astype(np.int64))


class Run(msgspec.Struct, frozen=True):
    """An engine, and which scores of a block it reads."""

    simulation: Simulation
    scores: Callable[[Block], Scores | Stacked]


def own_scores(config: EngineConfig) -> Callable[[Block], Scores | Stacked]:
    """Return how an engine of this configuration reads a block: the scores of each of its variants."""
    return lambda block: stacked(block, config.variants)


def turned_scores(config: EngineConfig) -> Callable[[Block], Scores | Stacked]:
    def turn(block: Block) -> Scores | Stacked:
        found = stacked(block, config.variants)
        return Stacked(tuple(map(turned, found.each))) if isinstance(found, Stacked) else turned(found)

    return turn


def coin_scores(coin: CoinScorer) -> Callable[[Block], Scores]:
    return lambda block: coin.score(None, block.columns, block.first_second)


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
    with_nulls: bool = True,
    keeps_decisions: bool = False,
    journaled: JournalPlan | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
    make: Callable[..., Simulation] = Simulation,
) -> Backtest:
    """Run the scorer and its nulls over [start_s, end_s) of the lake's seconds.

    Args:
        keeps_decisions: of the scorer, in `Backtest.decisions`; whoever asks stores or closes them.
        journaled: notes what the scorer's engine is told, for a comparison with live; None: nobody compares.
        make: takes what `Simulation` does; another tier's engines live elsewhere.

    Raises:
        NotEnoughData: the window is shorter than two minutes.
        SettingsError: the account could not trade one symbol, as live refuses it at its start.
        TableEmpty: the lake holds no seconds in it.
    """
    check_window(source, start_s, end_s)
    universe = read.universe_between(lake, source, start_s * NS, end_s * NS, rules="first")
    prices = first_prices(lake, source, universe, start_s)
    check_affordable(config, universe, prices, equity=equity_usdt, is_null=scorer.is_null)

    def simulation(name: str, by: Scorer, limits: EngineConfig) -> Simulation:
        return make(
            name, universe, limits, by, seed=seed, equity_usdt=equity_usdt, keeps_executions=name == scorer.name
        )

    runs = [Run(simulation(scorer.name, scorer, config), own_scores(config))]
    decisions = runs[0].simulation.decisions = DecisionLog(universe.symbols) if keeps_decisions else None
    if with_nulls and not scorer.is_null:
        coin, alone = CoinScorer(seed), msgspec.structs.replace(config, variants=())  # a coin has no variants
        runs += [
            Run(simulation("coin", coin, alone), coin_scores(coin)),
            Run(simulation("shuffled", scorer, config), turned_scores(config)),
        ]
    meter = None if scorer.is_null else SkillMeter(start_s, end_s)  # a null claims nothing
    written: BacktestJournal | None = None
    if journaled is not None:
        written = BacktestJournal(journaled, runs[0].simulation.engine, lake=lake, source=source, start_s=start_s)
        runs[0].simulation.journal = written
    outcomes = drive(
        lake, source, universe, scorer, runs, start_s=start_s, end_s=end_s, others=others_of([config]), meter=meter,
        look=None if written is None else written.look, on_progress=on_progress,
    )  # fmt: skip
    if written is not None:
        written.close()  # of a window that is shorter than was planned
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
        skill=NO_SKILL if meter is None else meter.found(),
        decisions=decisions,
    )


def others_of(configs: Iterable[EngineConfig]) -> dict[str, Scorer]:
    """Return the further scorers of some configurations by name, each once.

    Raises:
        SettingsError: one is not known.
    """
    return {
        name: scorer
        for config in configs
        for name, scorer in zip(config.variants, alternatives_of(config), strict=True)
    }


def check_window(source: str, start_s: int, end_s: int) -> None:
    """Refuse a window in which nothing can be judged.

    Raises:
        NotEnoughData: it is too short.
    """
    if end_s - start_s < WINDOW_S_MIN:
        raise NotEnoughData(
            f"a window of {WINDOW_S_MIN} s at least is needed, found {max(0, end_s - start_s)} s of {source} "
            f"from {when(start_s)}: record more, or train on less (--to)"
        )


def first_prices(lake: Path, source: str, universe: Universe, start_s: int) -> dict[str, Decimal]:
    """Return the first mid of every symbol that has one within the first `PRICED_WITHIN_S` seconds of a window."""
    try:
        end_s = start_s + PRICED_WITHIN_S
        touch = ("bid_price_1", "ask_price_1")
        found = read.read_seconds(lake, source, start_s, end_s, universe.symbols, touch).columns
    except TableEmpty:
        return {}
    mids = (found["bid_price_1"] + found["ask_price_1"]) / 2.0
    is_known = np.isfinite(mids)
    first = is_known.argmax(axis=0)
    return {symbol: decimal_of(mids[first[n], n]) for n, symbol in enumerate(universe.symbols) if is_known[first[n], n]}


def drive(
    lake: Path,
    source: str,
    universe: Universe,
    scorer: Scorer,
    runs: Sequence[Run],
    *,
    start_s: int,
    end_s: int,
    others: Mapping[str, Scorer] | None = None,
    meter: SkillMeter | None = None,
    look: Callable[[int, Features | None], None] | None = None,
    kept: KeptScores | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> list[Outcome]:
    """Live through a window with several engines; features and scores are computed once for all of them.

    Args:
        others: the further scorers that some of the engines choose among, by name (`others_of`).
        meter: gathers what the scores knew; None: nobody asks.
        look: as `scored_blocks` says; None: nobody looks.
        kept: as `scored_blocks` says; None: there is no other pass.
    """
    for run in runs:
        run.simulation.start(start_s)
    labels = Labelled(lake, source, universe.symbols, end_s)
    last: tuple[Block, list[Scores | Stacked]] | None = None
    for block in scored_blocks(lake, source, universe, scorer, start_s, end_s, others=others, look=look, kept=kept):
        tape = Tape(block.values)
        stacks = [run.scores(block) for run in runs]
        stop_at = end_s - FLATTEN_S - block.first_second
        # Engine after engine, not second after second: what one of them touches stays in the cache.
        for run, stack in zip(runs, stacks, strict=True):
            simulation = run.simulation
            for t in range(block.n_seconds):
                second = block.first_second + t
                if t == stop_at:
                    simulation.stop(second)
                simulation.step(tape, t, second, block.row(t), stack.row(t))
        if meter is not None:
            meter.add(block.first_second, block.scores, labels.of(block.first_second, block.n_seconds))
        on_progress((block.first_second + block.n_seconds - start_s) / (end_s - start_s))
        last = block, stacks
    assert last is not None, "a window has a block"
    block, stacks = last
    tape = Tape(block.values)
    for run, stack in zip(runs, stacks, strict=True):
        run.simulation.overtime(tape, end_s - 1, block.row(block.n_seconds - 1), stack.row(block.n_seconds - 1))
    return [run.simulation.outcome() for run in runs]
