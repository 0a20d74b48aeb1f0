"""An engine that lives through the seconds of a window against the exact exchange.

The seconds are those that live would have closed: sampled by time of receipt, from the same raw rows that the tape
shows to the exchange on the market's clock. The engine hears of its orders between them, at the instants at which it
would have heard, and is asked about a second `decide` after its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path

import msgspec

from pipelines import simulation
from pipelines.backtest_journal import JournalPlan
from pipelines.exact.exchange import Assumptions, Change, Exchange
from pipelines.exact.latency import Draws
from pipelines.exact.tape import LakeTape, Tape
from pipelines.simulation import Backtest, Simulation
from pipelines.venue_side import Tape as Rows
from pipelines.venue_side import end_of
from shared.lake import read
from shared.lake.tiers import Ladder, tiers_at
from shared.strategy.config import EngineConfig
from shared.strategy.scores import Scorer
from shared.types import NS, Event, Note, SecondClosed, StopRequested, Universe

DECIDE_NS_MAX = 9 * NS // 10
"""A second is decided about before the next one ends."""


NOT_EXACT = (
    "Exact tier: raw ticks, latencies, queues and impact. Not simulated: what others would do because of our orders, "
    "queues of levels out of sight, orders of others before ours in the exchange's own gateway. Assumed:"
)
"""What the report says of this tier, before the assumptions."""


class Market(msgspec.Struct, frozen=True):
    """What all engines of a run meet."""

    tape: Tape
    assumptions: Assumptions
    changes: tuple[Change, ...] = ()
    ladders: dict[str, Ladder] = {}
    unlisted: frozenset[str] = frozenset()  # symbols of the universe that are listed later than the run begins


class ExactSimulation(Simulation):
    """One engine and its exact exchange, fed second by second."""

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
        market: Market,
        start_s: int,
    ) -> None:
        self.exchange = Exchange(
            _as_listed(universe, market.unlisted),
            equity_usdt,
            config.leverage,
            tape=market.tape,
            assumptions=market.assumptions,
            seed=seed,
            start_ns=start_s * NS,
            changes=market.changes,
            ladders=market.ladders,
            keeps_executions=keeps_executions,
        )
        super().__init__(name, universe, config, scorer, seed=seed, equity_usdt=equity_usdt, side=self.exchange)
        self._draws = Draws(market.assumptions.latencies, seed)
        self._now_ns = start_s * NS

    def _decided_ns(self, second: int) -> int:
        return end_of(second) + min(self._draws.decide_ns(second), DECIDE_NS_MAX)

    def stop(self, second: int) -> None:
        self._tell([StopRequested(recv_ns=max(second * NS, self._now_ns), reason="the window ends")])

    def _execute(self, tape: Rows, t: int, now_ns: int, *, keep_books: bool = False) -> None:
        """Hear everything that comes up to and including a time."""
        while (event := self.exchange.next_event(now_ns)) is not None:
            self._hear(event)
        self.trades += self.engine.take_trades()

    def _tell(self, events: Sequence[Event]) -> None:
        for event in events:
            self._hear(event)

    def _hear(self, event: Event) -> None:
        assert event.recv_ns >= self._now_ns, f"heard at {event.recv_ns} after {self._now_ns}"
        self._now_ns = event.recv_ns
        for action in self._think(event):
            if isinstance(action, Note):
                self._count(action)
            else:
                self.exchange.send(action, event.recv_ns)
        if self.decisions is not None and isinstance(event, SecondClosed):
            self.decisions.look(self.engine)


def market_of(lake: Path, source: str, start_s: int, end_s: int, assumptions: Assumptions, *, seed: int) -> Market:
    """Return a window of the lake as the exchange needs it: ticks, listings and rules as they were, maintenance tiers.

    Raises:
        TableEmpty: no universe is known, or nothing was recorded.
    """
    snapshots = read.universes_between(lake, source, start_s * NS, end_s * NS)
    symbols = read.universe_between(lake, source, start_s * NS, end_s * NS).symbols
    tape = LakeTape(lake, source, start_s, end_s, symbols=symbols, feed=assumptions.latencies.feed, seed=seed)
    return Market(
        tape=tape,
        assumptions=assumptions,
        changes=tuple(changes_of(snapshots)),
        ladders=tiers_at(lake, source, start_s * NS, symbols),
        unlisted=frozenset(symbols) - frozenset(snapshots[0].symbols if snapshots else ()),
    )


def changes_of(snapshots: Sequence[Universe]) -> list[Change]:
    """Return what later snapshots of a universe say that the ones before did not."""
    if not snapshots:
        return []
    known = {contract.symbol: contract for contract in snapshots[0].contracts}
    gone: set[str] = set()
    changes: list[Change] = []
    for snapshot in snapshots[1:]:
        now = {contract.symbol: contract for contract in snapshot.contracts}
        for symbol in sorted({*known, *now}):
            contract = now.get(symbol) or msgspec.structs.replace(known[symbol], status="off")
            is_gone = contract.status == "off"
            if contract == known.get(symbol) or (is_gone and symbol in gone):
                continue
            gone = gone | {symbol} if is_gone else gone - {symbol}
            known[symbol] = contract
            changes.append(Change(snapshot.as_of_ns, contract, is_gone))
    return changes


def _as_listed(universe: Universe, unlisted: frozenset[str]) -> Universe:
    """Return the universe in which what comes later cannot be traded yet."""
    contracts = tuple(
        msgspec.structs.replace(contract, status="listed") if contract.symbol in unlisted else contract
        for contract in universe.contracts
    )
    return msgspec.structs.replace(universe, contracts=contracts)


def run_exact(
    lake: Path,
    source: str,
    *,
    scorer: Scorer,
    config: EngineConfig,
    start_s: int,
    end_s: int,
    seed: int,
    assumptions: Assumptions | None = None,
    holdout_from_s: int | None = None,
    equity_usdt: Decimal = simulation.EQUITY_USDT,
    with_nulls: bool = True,
    keeps_decisions: bool = False,
    journaled: JournalPlan | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Backtest:
    """Run the scorer and its nulls over [start_s, end_s) of the lake's raw ticks; as `simulation.run_backtest`.

    Args:
        assumptions: None: those that `Assumptions` begins with.

    Raises:
        NotEnoughData: the window is shorter than two minutes.
        TableEmpty: the lake holds no seconds or no ticks in it.
    """
    simulation.check_window(source, start_s, end_s)
    assumptions = assumptions if assumptions is not None else Assumptions()
    market = market_of(lake, source, start_s, end_s, assumptions, seed=seed)
    backtest = simulation.run_backtest(
        lake, source, scorer=scorer, config=config, start_s=start_s, end_s=end_s, seed=seed,
        holdout_from_s=holdout_from_s, equity_usdt=equity_usdt, with_nulls=with_nulls, keeps_decisions=keeps_decisions,
        journaled=journaled, on_progress=on_progress, make=partial(ExactSimulation, market=market, start_s=start_s),
    )  # fmt: skip
    return msgspec.structs.replace(backtest, tier="exact", assumptions=assumptions.words())
