"""The report of a session, from its journal alone: the same page and the same files as a backtest's.

The journal drives a fresh engine (`shared.replay`), which makes the session's decisions again and says whether they are
the same, byte for byte. What the page shows is read off that engine: trades, equity, exposure, scores and why not.

While it runs, the very orders are put before the venue of the backtest, fed with the seconds that the session saw, an
order meeting the row after its decision as in `pipelines.simulation`. What the two executions differ by is the gap, in
parts that add up to it (`pipelines.shortfall`).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from pipelines import parity, provenance
from pipelines.moments import when
from pipelines.page import Kind, Page, verdict
from pipelines.provenance import Provenance
from pipelines.report import write_outputs, write_report
from pipelines.scoring import outcomes_in
from pipelines.shortfall import Fill, Gap, decompose
from pipelines.simulation import ExposureMeter, Outcome
from pipelines.skill import Skill, SkillMeter
from pipelines.told import ChannelCoverage, Told
from pipelines.tracking import code_commit, lock_hash
from pipelines.trades import Execution, metrics_of, net_bps
from pipelines.venue_side import ASKS, BIDS, Tape, VenueSide, end_of
from shared import journal
from shared.errors import JournalError
from shared.features.sampler import COLUMNS
from shared.labels import Rule, label_seconds
from shared.replay import Replayed, replay
from shared.strategy.engine import Engine
from shared.strategy.portfolio import Trade
from shared.strategy.scores import Scores
from shared.types import (
    NS,
    Action,
    Adopted,
    CancelOrder,
    Event,
    Filled,
    Floats,
    FundingPaid,
    Note,
    OrderAccepted,
    OrderRefused,
    PlaceOrder,
    SecondClosed,
)

_BID, _ASK = COLUMNS.index("bid_price_1"), COLUMNS.index("ask_price_1")

_CHANNELS = {"book": _BID, "ticker": COLUMNS.index("mark"), "trade": COLUMNS.index("buy_count")}
"""Channel -> a column that is NaN where a second knew nothing of it (`shared.features.sampler`)."""

AFTER_S = 3
"""Rows that the last one is repeated for, so that the last orders meet the backtest's venue, too."""

EXCHANGE = "the exchange's own in "
"""Begins the name of fills that no order of the session's asked for: stops, liquidations, a person's."""

REMEMBERED_S = 600
"""Seconds for which touches of a symbol are kept after its last order: a fill comes sooner."""


class Reported(msgspec.Struct, frozen=True):
    """A session's report."""

    page: Page
    folder: Path
    replayed: Replayed

    def summary(self) -> str:
        """Return what a person reads, net after costs first."""
        page, gap = self.page, self.page.gap
        mark = " (generated market)" if page.is_generated else ""
        lines = [
            f"net {page.main.metrics['net_pnl_usdt']:+,.2f} USDT after all costs{mark}",
            verdict(page),
            f"{page.source}, {when(page.start_s)} to {when(page.end_s)}",
            page.told.parity.sentence,
        ]
        if gap is not None:
            parts = ", ".join(f"{name} {float(value):+.4f}" for name, value in gap.parts.items() if value)
            lines.append(
                f"gap to its backtest {float(gap.total_usdt):+.4f} USDT"
                + (f" = {parts}" if parts else "")
                + f"; residual {gap.residual_usdt}"
            )
        return "\n".join([*lines, f"report: {self.folder / 'report.html'}"])


def report_session(lake: Path, folder: Path, output: Path) -> Reported:
    """Write page and files of a session.

    Args:
        folder: of the session, with its journal.

    Raises:
        JournalError: the journal cannot be read, or holds no second.
        ModelMismatch: the model in the session's folder is not the one that traded.
    """
    page, replayed = page_of(folder, lake)
    output.mkdir(parents=True, exist_ok=True)
    write_outputs(output, page.main, replayed.session)
    write_report(output / "report.html", page)
    return Reported(page, output, replayed)


def page_of(folder: Path, lake: Path | None = None) -> tuple[Page, Replayed]:
    """Return what a session's report shows.

    Args:
        lake: whose recorder's seconds are looked at beside the session's; None: nobody's.
    """
    watch = SessionWatch()
    replayed = replay(folder, watch)
    header = watch.header
    if header is None or not watch.seconds:
        raise JournalError(
            f"a session must have lived a second to be reported, found none in {folder}: it ended before it began"
        )
    main = watch.outcome()
    model = header.model if header.bundle is None else f"model {header.bundle.version}"
    start_s, end_s = watch.seconds[0], watch.seconds[-1] + 1
    digest = provenance.journal_digest(folder)
    skill = watch.skill(start_s, end_s)
    checked = parity.check(folder, lake=lake, replayed=replayed)
    found = parity.parity_of(checked, command=f"python -m pipelines.parity --session {header.session}")
    if replayed.difference is not None:
        found = msgspec.structs.replace(found, sentence=f"{found.sentence} This page ends where they part.")
    told = Told(
        run=header.session,
        lineage=lineage_of(header, digest),
        coverage=watch.coverage(),
        coverage_unit="symbol-seconds",
        parity=found,
        not_simulated="The gap compares with the screen tier of the backtest: an order meets the row a second after "
        "its decision, five visible levels, no place in a queue.",
    )
    return (
        Page(
            kind=Kind.SESSION,
            title=f"Session of {model} on {header.source}",
            source=header.source,
            start_s=start_s,
            end_s=end_s,
            symbols=len(header.universe.symbols),
            style=header.config.entry_kind.value,
            seed=header.seed,
            main=main,
            skill=skill,
            sample=(
                "Traded forward in time:",
                "every fill on this page came from the venue while nobody knew what would follow; fees, funding and "
                "slippage are those that were paid.",
            ),
            told=told,
            gap=watch.gap(intents_identical=replayed.difference is None),
            provenance=Provenance(
                kind="session",
                source=header.source,
                start_s=start_s,
                end_s=end_s,
                seed=header.seed,
                model=header.model,
                model_digest=None if header.bundle is None else header.bundle.digest,
                config=header.config,
                equity_usdt=str(main.start_usdt),
                holdout_from_s=None,
                commit=code_commit(),
                packages=lock_hash(),
                session=header.session,
                journal=digest,
                told=told,
                results=(provenance.result_of(main),),
                rank_ic=provenance.defined(skill.ic.mean),
            ),
        ),
        replayed,
    )


def lineage_of(header: journal.Header, digest: str) -> dict[str, str]:
    bundle = header.bundle
    return {
        "session": header.session,
        "begun": when(header.started_ns // NS),
        "model": header.model if bundle is None else f"{bundle.name} version {bundle.version}, run {bundle.run_id}",
        **({} if bundle is None else {"booster, SHA-256": bundle.digest}),
        "code of the session": header.commit or "outside of a checkout",
        "journal, SHA-256": digest,
        "feature definitions": header.definition_hash,
    }


class SessionWatch:
    """Looks on while a session happens again, and puts its orders before the backtest's venue."""

    def __init__(self) -> None:
        self.header: journal.Header | None = None
        self.seconds: list[int] = []
        self._engine: Engine | None = None
        self._model: VenueSide | None = None  # None: nothing was adopted yet
        self._equity: list[float] = []
        self._trades: list[Trade] = []
        self._gates: dict[str, int] = {}
        self._refusals: dict[str, int] = {}
        self._orders = 0
        self._exposure = ExposureMeter()
        self._executions: list[Execution] = []
        self._fills: list[Fill] = []
        self._model_fills: list[Fill] = []
        self._model_funding = Decimal(0)
        self._sent: set[str] = set()
        self._wanted: list[Action] = []
        self._block: Floats | None = None  # (C, N) of the last second
        self._touches: dict[int, dict[int, tuple[float, float]]] = {}  # second -> n -> bid, ask at its end
        self._followed: dict[int, int] = {}  # n -> second until which its touches are kept
        self._scores: list[tuple[int, Scores]] = []
        self._quotes: list[tuple[int, Floats, Floats]] = []  # second, bids, asks
        self._adopted: dict[str, tuple[Decimal, Decimal]] = {}  # symbol -> size, entry price found at the start
        self._known = dict.fromkeys(_CHANNELS, 0)  # symbol-seconds in which a channel was known

    # ------------------------------------------------------------------------------------------ while it runs

    def begin(self, header: journal.Header, engine: Engine) -> None:
        self.header, self._engine = header, engine
        self._at = header.universe.index()
        book = engine.portfolio.fill

        def fill(event: Filled, **named: Any) -> list[Trade]:
            # What the ledger books, once each: events alone do not say which of them were repeats.
            self._note_fill(event)
            return book(event, **named)

        engine.portfolio.fill = fill  # type: ignore[assignment,method-assign]

    def see(self, event: Event, actions: list[Action]) -> None:
        engine = self._engine
        assert engine is not None, "a header comes first"
        assert self.header is not None, "a header comes first"
        if isinstance(event, Adopted) and self._model is None:
            self._model = VenueSide(self.header.universe, event.equity_usdt, self.header.config.leverage)
            self._equity = [float(engine.portfolio.start_usdt)]
            self._adopted = {p.symbol: (p.size, p.entry_price) for p in event.positions if p.size}
        if isinstance(event, OrderRefused):
            name = f"{event.code} {event.message}"
            self._refusals[name] = self._refusals.get(name, 0) + 1
        if isinstance(event, SecondClosed):
            self._close_second(event)
        for action in actions:
            if isinstance(action, PlaceOrder):
                self._orders += 1
                self._sent.add(action.client_oid)
                self._follow(action.symbol)
            if isinstance(action, PlaceOrder | CancelOrder):
                self._wanted.append(action)
            elif isinstance(action, Note) and action.event == "decision.made":
                for name, value in action.fields.items():
                    if name.startswith("no_") and isinstance(value, int):
                        self._gates[name[3:]] = self._gates.get(name[3:], 0) + value
        self._trades += engine.take_trades()

    def _close_second(self, event: SecondClosed) -> None:
        engine = self._engine
        assert engine is not None, "a header comes first"
        block = self._block = event.columns
        self._touches[event.second] = {n: (block.item(_BID, n), block.item(_ASK, n)) for n in self._followed}
        for n in [n for n, until in self._followed.items() if until < event.second]:
            del self._followed[n]
        if self._model is None:
            return
        self.seconds.append(event.second)
        self._meet(event.second, end_of(event.second))
        self._equity.append(float(engine.portfolio.equity_usdt))
        self._exposure.look(event.second, engine.portfolio)
        self._quotes.append((event.second, block[_BID].copy(), block[_ASK].copy()))
        for channel, column in _CHANNELS.items():
            self._known[channel] += int(np.isfinite(block[column]).sum())
        if engine.view is not None and engine.why_second == event.second and engine.view.second == event.second:
            self._scores.append((event.second, engine.view.scores))

    def _meet(self, second: int, now_ns: int, *, keep_books: bool = False) -> None:
        """Show the backtest's venue a row, and what was decided on the row before."""
        assert self._model is not None, "an account was adopted"
        assert self._block is not None, "a second was closed"
        wanted, self._wanted = self._wanted, []
        tape = Tape(self._block[:, None, :])
        names: dict[str, str] = {}  # order id -> client_oid: what the venue closes itself bears no name of ours there
        for told in self._model.row(tape, 0, wanted, now_ns, keep_books=keep_books):
            if isinstance(told, OrderAccepted):
                names[told.order_id] = told.client_oid
            elif isinstance(told, Filled):
                ours = msgspec.structs.replace(told, client_oid=names.get(told.order_id, told.client_oid))
                self._model_fills.append(self._fill_of(ours, now_ns - 1))  # within its second
            elif isinstance(told, FundingPaid):
                self._model_funding += told.amount_usdt

    def _follow(self, symbol: str) -> None:
        n = self._at.get(symbol)
        if n is None or self._block is None or not self.seconds:
            return
        self._followed[n] = self.seconds[-1] + REMEMBERED_S
        self._touches[self.seconds[-1]][n] = self._block.item(_BID, n), self._block.item(_ASK, n)

    def _fill_of(self, event: Filled, time_ns: int) -> Fill:
        order = event.client_oid if event.client_oid in self._sent else EXCHANGE + event.symbol
        return Fill(order, event.symbol, event.side.sign, event.price, event.size, event.fee_usdt, time_ns)

    def _note_fill(self, event: Filled) -> None:
        engine = self._engine
        assert engine is not None, "a header comes first"
        known = engine.orders.get(event.client_oid, event.order_id)
        if known is None:
            known = engine.orders.flash_waiting(event.symbol, event.side)
        named = msgspec.structs.replace(event, client_oid=known.client_oid) if known is not None else event
        self._fills.append(self._fill_of(named, event.exch_ns or event.recv_ns))
        n = self._at.get(event.symbol)
        nothing = np.full((len(BIDS), 2), np.nan)
        has_book = n is not None and self._block is not None
        self._executions.append(
            Execution(
                symbol=event.symbol,
                sign=event.side.sign,
                time_ns=event.exch_ns or event.recv_ns,
                price=float(event.price),
                size=float(event.size),
                fee_usdt=float(event.fee_usdt),
                is_maker=event.is_maker,
                bids=self._block[BIDS, n] if has_book and self._block is not None else nothing,
                asks=self._block[ASKS, n] if has_book and self._block is not None else nothing,
            )
        )

    # ------------------------------------------------------------------------------------------- what it was

    def outcome(self) -> Outcome:
        """Return what the session did, as a backtest's engine is judged."""
        engine = self._engine
        assert engine is not None, "a header comes first"
        equity = np.array(self._equity)
        # What came after the last second (its orders' fills) belongs to it.
        equity[-1] = float(engine.portfolio.equity_usdt)
        start = engine.portfolio.start_usdt
        return Outcome(
            name=engine.scorer.name,
            trades=tuple(self._trades),
            equity_usdt=equity,
            start_usdt=start,
            orders=self._orders,
            refusals=self._refusals,
            gates=self._gates,
            metrics=metrics_of(self._trades, equity, start),
            net_bps=net_bps(self._trades),
            exposure=self._exposure.found(),
            executions=tuple(self._executions),
        )

    def gap(self, *, intents_identical: bool) -> Gap:
        """Return what separates the session from the backtest of its orders."""
        engine = self._engine
        assert engine is not None, "a header comes first"
        for later in range(1, AFTER_S + 1):
            second = self.seconds[-1] + later
            self._touches[second] = dict(self._touches[self.seconds[-1]])
            self._meet(second, end_of(second), keep_books=True)
        ledger = engine.portfolio
        symbols = {fill.symbol for fill in (*self._fills, *self._model_fills)} | set(self._adopted)
        marks = {symbol: self._mark(symbol) for symbol in symbols}
        adopted = sum((size * (marks[symbol] - price) for symbol, (size, price) in self._adopted.items()), Decimal(0))
        return decompose(
            self._fills,
            self._model_fills,
            marks=marks,
            touch=self._touch,
            session_usdt=ledger.equity_usdt - ledger.start_usdt,
            funding_usdt=(ledger.funding_usdt, self._model_funding),
            adopted_usdt=adopted,
            adjustments_usdt=ledger.adjustments_usdt,
            orders=self._orders,
            intents_identical=intents_identical,
        )

    def _mark(self, symbol: str) -> Decimal:
        """Return what values an open position in the end: the ledger's mark where it holds one, else the last."""
        engine = self._engine
        assert engine is not None, "a header comes first"
        holding = engine.portfolio.holdings.get(symbol)
        if holding is not None and holding.mark is not None:
            return holding.mark
        mark = engine.market.mark(self._at.get(symbol))
        if mark is not None:
            return mark
        fills = [fill for fill in (*self._fills, *self._model_fills) if fill.symbol == symbol]
        return fills[-1].price if fills else self._adopted[symbol][1]

    def _touch(self, symbol: str, sign: int, time_ns: int) -> float | None:
        """Return what a taker would have paid at the end of the second that holds a time."""
        n = self._at.get(symbol)
        quote = self._touches.get(time_ns // NS, {}).get(n if n is not None else -1)
        touch = None if quote is None else quote[1 if sign > 0 else 0]
        return touch if touch is not None and np.isfinite(touch) else None

    def coverage(self) -> tuple[ChannelCoverage, ...]:
        """Return in how many symbol-seconds each channel was known to the engine."""
        assert self.header is not None, "a header comes first"
        total = len(self.seconds) * len(self.header.universe.symbols)
        # Trades are counted where their link stood for the whole second: what is missing is a gap, and no silence.
        return tuple(
            ChannelCoverage(name, n, total - n if name == "trade" else 0, 0 if name == "trade" else total - n)
            for name, n in self._known.items()
        )

    def skill(self, start_s: int, end_s: int) -> Skill:
        """Return what the scores knew, judged by the session's own seconds."""
        meter = SkillMeter(start_s, end_s)
        claims = self._engine is not None and not self._engine.scorer.is_null
        if claims and self._scores:
            for first, scores, outcomes in self._judged(start_s, end_s):
                meter.add(first, scores, outcomes)
        return meter.found()

    def _judged(self, start_s: int, end_s: int) -> Any:
        assert self.header is not None, "a header comes first"
        universe, config = self.header.universe, self.header.config
        rule = Rule(horizon_s=config.horizon_s)
        second_of = np.array([second for second, _, _ in self._quotes])
        for begin in range(start_s, end_s, REMEMBERED_S):
            end = min(begin + REMEMBERED_S, end_s)
            some = [scored for scored in self._scores if begin <= scored[0] < end]
            if not some:
                continue
            quotes = [self._quotes[k] for k in np.flatnonzero((second_of >= begin) & (second_of < end + rule.reach_s))]
            frame = pl.DataFrame(
                {
                    "second": np.repeat([second for second, _, _ in quotes], len(universe.symbols)),
                    "symbol": list(universe.symbols) * len(quotes),
                    "bid_price_1": np.concatenate([bids for _, bids, _ in quotes]),
                    "ask_price_1": np.concatenate([asks for _, _, asks in quotes]),
                }
            )
            labels = label_seconds(
                frame,
                rule,
                taker_fee={contract.symbol: float(contract.taker_fee) for contract in universe.contracts},
                maker_fee={contract.symbol: float(contract.maker_fee) for contract in universe.contracts},
                slippage_bps=config.slippage_bps,
            )
            yield begin, stacked(some, begin, end), outcomes_in(labels, begin, end, universe.symbols)


def stacked(some: Sequence[tuple[int, Scores]], begin: int, end: int) -> Scores:
    """Return the scores of single seconds as a block; seconds without a decision are not valid."""
    n_symbols = len(some[0][1].is_valid)
    fields: dict[str, Any] = {
        name: np.zeros((end - begin, n_symbols), getattr(some[0][1], name).dtype) for name in Scores.__struct_fields__
    }
    for second, scores in some:
        for name, values in fields.items():
            values[second - begin] = getattr(scores, name)
    return Scores(**fields)
