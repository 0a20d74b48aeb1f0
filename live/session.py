"""A trading session, step by step, and what is left of it.

    clock -> contracts -> account -> journal -> private stream -> adopt -> leverage beside warm-up -> trade
          -> stop: cancel, flatten, wait until quiet -> the exchange's truth once more -> session.json

A session ends with its seconds, a signal, or an error; whatever the end, what is still open is read from the exchange
(from our ledger where the exchange cannot be reached), written to session.json and said in the last sentence.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import signal
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from live import memory
from live.affords import say_affordable
from live.executor import Executor, MeteredClient
from live.runner import Runner
from live.shadow import Beside, ShadowPlan, open_beside
from live.streams import AccountStream, Market
from live.truth import read_truth, say_open
from shared import journal, log
from shared.bitget.rest import LATER_CODES, Keys
from shared.bitget.transport import ExchangeUnreachable, ReceiveClock, RestClient
from shared.errors import CrosscutError, ExchangeError, ExchangeRefused, ExchangeSilent, SettingsError
from shared.features.catalog import FEATURES
from shared.features.graph import definition_hash, formulas_of
from shared.features.sampler import COLUMNS
from shared.model import copy_bundle
from shared.permits import load_permit, model_key, permit_path
from shared.replaced import replace_file
from shared.replay import alternatives_of, make_scorer
from shared.settings import check_books
from shared.strategy.bandit.state import Mode
from shared.strategy.engine import Engine, EngineConfig
from shared.strategy.truth import FILLS_BEFORE_ADOPTION_NS
from shared.types import SCHEMA_VERSION, Adopted, BookChannels, ClockRead, Contract, Note, StopRequested, Universe

CLOCK_SKEW_MS_MAX: Final = 2000  # the engine's proof of absence allows clocks to differ by 2 s
REQUEST_TIMEOUT_S: Final = 5.0  # Bitget answers within 0.3 s; what takes longer is asked for, not waited for
PRIVATE_UP_WITHIN_S: Final = 20.0
LEVERAGE_TOLD_EVERY_S: Final = 2.0
LEVERAGE_AGAIN_S: Final = 2.0  # between tries of what was not answered: until then the symbol is not traded
STOP_WITHIN_S: Final = 60.0  # an unknown placement takes 35 s to be proven absent; closing a position takes one
LAST_TRUTH_WITHIN_S: Final = 10.0
CLOCK_READ_WITHIN_S: Final = 1.0  # half a round trip is the error of a reading
WARM_EVERY_S: Final = 20.0  # the client drops a connection that was idle for 60 s
EQUITY_STEP: Final = Decimal("1e-8")  # Bitget cuts the equity it publishes to 8 places
MEMORY_EVERY_S: Final = 10.0
LOST_AFTER_S: Final = {True: 10.0, False: 300.0}
"""How long an exchange may be unreachable before the session gives up: a simulator on this machine, or Bitget."""

_WARN: Final = frozenset(
    {
        "account.unanswered",
        "cancel.unanswered",
        "channel.refused",
        "clock.judged",
        "fill.unexpected",
        "funding.missed",
        "funding.unanswered",
        "ledger.corrected",
        "ledger.doubted",
        "link.died",
        "link.lost",
        "order.absent",
        "order.refused",
        "order.revived",
        "order.surprised",
        "order.timed_out",
        "order.unanswered",
        "query.unanswered",
        "risk.latched",
        "shadow.ended",
    }
)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a session is told; nothing below reads settings."""

    model: str  # as asked for
    bundle_folder: Path | None  # None: rules and coin need none
    bundle_note: journal.ModelNote | None
    config: EngineConfig
    seed: int
    seconds: float | None  # None: until a signal
    source: str
    venue: str  # simulator, demo, live
    rest_url: str
    market_ws_url: str
    books: BookChannels
    venue_ws_url: str
    keys: Keys
    lake: Path
    folder: Path | None  # None: below the lake
    is_child_venue: bool  # the venue is our own child: its account begins and ends with it
    forget_risk: bool
    commit: str
    shadow: ShadowPlan | None = None  # None: nobody is scored beside


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a session ended."""

    folder: Path
    summary: dict[str, Any]
    error: CrosscutError | None  # None: it ended as planned, flat


def session_name(model: str) -> str:
    """Return a name that sorts by time and never repeats: it is part of every clientOid."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + f"-{model}-{secrets.token_hex(3)}"


def market_note(source: str, venue: str) -> str:
    """Return in words what a session's figures are worth."""
    if source.startswith("simulator-g"):
        return "generated market"
    if venue == "simulator":
        return f"{source} relayed, fills simulated" if source == "bitget" else f"{source}, fills simulated"
    return source


def choose_account_symbol(universe: Universe) -> str:
    """Return a symbol that the account can be asked with."""
    if not universe.contracts:
        raise ExchangeError("the exchange must list a perpetual, found none: check BITGET_REST_URL")
    return "BTCUSDT" if "BTCUSDT" in universe.symbols else universe.symbols[0]


async def check_clock(client: MeteredClient) -> int:
    """Return how far our clock is behind the exchange's, ms.

    Raises:
        SettingsError: further than orders in doubt allow.
    """
    skew_ms = await client.sync_clock()
    if abs(skew_ms) > CLOCK_SKEW_MS_MAX:
        raise SettingsError(
            f"this machine's clock must be within {CLOCK_SKEW_MS_MAX} ms of the exchange's, found {-skew_ms:+d} ms: "
            "synchronise it (NTP), then start again"
        )
    return skew_ms


async def warm(client: RestClient, n_connections: int) -> int | None:
    """Use so many connections at once; return by how many ms the exchange is ahead, None where nobody said soon."""
    began_s = time.monotonic()
    asks = (client.server_time() for _ in range(n_connections - 1))
    offset_ms, *_ = await asyncio.gather(client.sync_clock(), *asks, return_exceptions=True)
    is_prompt = time.monotonic() - began_s <= CLOCK_READ_WITHIN_S
    return offset_ms if isinstance(offset_ms, int) and is_prompt else None


class Session:
    """Run one session; `run` is called once.

    Args:
        is_venue_alive: asked twice a second; False ends the session (our own simulator died).
    """

    def __init__(self, plan: Plan, *, is_venue_alive: Callable[[], bool] = lambda: True) -> None:
        self._plan = plan
        self._is_venue_alive = is_venue_alive
        self._clock = ReceiveClock()
        self._logger = log.get("live")
        self.name = session_name(plan.model)
        root = plan.lake / "journal" / f"source={plan.source}"
        self.folder = plan.folder if plan.folder is not None else root / f"session={self.name}"
        # The account of our own child has no name that lasts: its address changes with every start.
        account = "own simulator" if plan.is_child_venue else memory.account_id(plan.rest_url, plan.keys.key)
        self._memory_path = memory.path_of(root, account)
        self._lock = contextlib.nullcontext() if plan.is_child_venue else memory.account_lock(plan.lake, account)
        self._leverage: dict[str, int] = {}
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._error: CrosscutError | None = None
        self._is_unreachable = False
        self._has_begun = False  # the engine was told what the exchange holds
        self._must_hurry = asyncio.Event()  # flattening cannot succeed, or a person does not want to wait for it
        self._streams_stop = asyncio.Event()
        self._beside: Beside | None = None  # None: nobody is scored beside

    # ------------------------------------------------------------------------------------------------- the steps

    async def run(self) -> Outcome:
        """Trade, end, and say how it ended.

        Raises:
            CrosscutError: before the first order was possible; nothing was sent.
        """
        plan = self._plan
        with self._lock:
            async with MeteredClient(
                plan.rest_url,
                plan.keys,
                is_demo=plan.venue == "demo",
                timeout_s=REQUEST_TIMEOUT_S,
                clock=self._clock,
            ) as client:
                skew_ms = await check_clock(client)
                universe = await client.contracts(plan.source)
                check_books(plan.books, universe.symbols, plan.source)
                symbol = choose_account_symbol(universe)
                await self._check_account(client, symbol)
                self._logger.info(
                    "session.started",
                    session=self.name,
                    venue=plan.venue,
                    source=plan.source,
                    model=plan.model,
                    symbols=len(universe.contracts),
                    books=str(plan.books),
                    clock_skew_ms=skew_ms,
                    folder=str(self.folder),
                )
                engine, writer = self._open(universe)
                return await self._trade(client, symbol, universe, engine, writer)

    async def _check_account(self, client: MeteredClient, symbol: str) -> None:
        account = await client.account(symbol)
        if account.position_mode == "one_way_mode":
            return
        try:
            found = await client.set_position_mode()
        except ExchangeRefused as refusal:
            raise SettingsError(
                f"the account must be in one-way mode, found {account.position_mode}, and Bitget refuses to switch "
                f"({refusal.code} {refusal.bitget_message}): close every position and order of this account first"
            ) from None
        if found != "one_way_mode":
            raise SettingsError(
                f"the account must be in one-way mode, found {found} after switching: switch it by hand"
            )

    def _open(self, universe: Universe) -> tuple[Engine, journal.JournalWriter]:
        """Make the session's folder, its engine and its journal."""
        plan = self._plan
        kept = memory.load(self._memory_path)
        began = kept.begin(plan.model, forget_risk=plan.forget_risk or plan.is_child_venue)
        if plan.config.bandit_mode is Mode.ACT:
            key = model_key(plan.model, plan.bundle_note.digest if plan.bundle_note is not None else None)
            permit = load_permit(permit_path(plan.lake, plan.source, key), plan.config)
            began = msgspec.structs.replace(began, permit=permit)
        self._kept = kept
        if plan.bundle_folder is not None and plan.bundle_note is not None:
            copy_bundle(plan.bundle_folder, self.folder / plan.bundle_note.folder)
        scorer = make_scorer(plan.model, plan.seed, universe, self.folder, plan.bundle_note)
        engine = Engine(
            plan.config,
            universe,
            scorer,
            session=self.name,
            seed=plan.seed,
            memory=began,
            alternatives=alternatives_of(plan.config),
        )
        header = journal.Header(
            schema_version=SCHEMA_VERSION,
            session=self.name,
            source=plan.source,
            started_ns=self._clock(),
            model=plan.model,
            bundle=plan.bundle_note,
            seed=plan.seed,
            config=plan.config,
            memory=began,
            universe=universe,
            columns=COLUMNS,
            definition_hash=definition_hash(FEATURES),
            formulas=formulas_of(FEATURES),
            commit=plan.commit,
            numpy=np.__version__,
        )
        writer = journal.JournalWriter(self.folder, header)
        if plan.shadow is not None:
            self._beside = open_beside(
                plan.shadow, self.folder, plan.config, universe, session=self.name, seed=plan.seed, log=self._log
            )
        return engine, writer

    async def _trade(
        self,
        client: MeteredClient,
        symbol: str,
        universe: Universe,
        engine: Engine,
        writer: journal.JournalWriter,
    ) -> Outcome:
        plan, loop = self._plan, asyncio.get_running_loop()
        runner: Runner
        executor = Executor(
            client, symbol, self._leverage, lambda event: runner.tell(event), self._clock, log=self._log
        )
        runner = Runner(
            engine,
            writer,
            executor,
            clock=self._clock,
            log=self._log,
            later=loop.call_later,
            remember=lambda: self._save(engine),
            beside=self._beside,
        )
        self._runner, self._executor = runner, executor
        market = Market(plan.market_ws_url, universe.symbols, runner.tell, self._clock, self._log, plan.books)
        account = AccountStream(plan.venue_ws_url, plan.keys, runner.tell, self._clock, self._log)
        loop.set_exception_handler(self._on_loop_error)
        tasks = [
            self._watch(runner.run(), "engine"),
            self._watch(market.run(self._streams_stop), "market streams"),
            self._watch(account.run(self._streams_stop), "private stream"),
            self._watch(self._guard(client, account), "guard"),
        ]
        with self._signals():
            try:
                if await self._adopt(client, symbol, account, engine):
                    tasks.append(self._watch(self._set_leverage(client, universe), "leverage"))
                    tasks.append(self._watch(self._remember(engine), "memory"))
                    tasks.append(self._watch(self._keep_warm(client), "connections"))
                    gc.collect()
                    gc.freeze()  # what was loaded until here is never garbage: collections stay short
                    reason = await self._until_end()
                    await self._stop(engine, reason)
            finally:
                adopted = await self._last_truth(client, symbol)
                self._streams_stop.set()
                await self._executor.close()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return self._finish(engine, writer, adopted)

    async def _adopt(self, client: MeteredClient, symbol: str, account: AccountStream, engine: Engine) -> bool:
        """Read the exchange's truth once the private stream is up; False where the session ended before."""
        linked: asyncio.Future[Any] = asyncio.ensure_future(account.linked.wait())
        ends: set[asyncio.Future[Any]] = {linked, self._end}
        await asyncio.wait(ends, timeout=PRIVATE_UP_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        linked.cancel()
        if not self._end.done() and not account.linked.is_set():
            self._fail(
                ExchangeSilent(
                    f"the private stream must be up within {PRIVATE_UP_WITHIN_S:.0f} s, found it down: "
                    f"see link.lost above, and check {self._plan.venue_ws_url}"
                )
            )
        if self._end.done():
            return False
        try:
            since_ns = self._clock() - FILLS_BEFORE_ADOPTION_NS
            adopted = await read_truth(client, symbol, self._leverage, self._clock, fills_since_ns=since_ns)
            is_null = engine.scorer.is_null
            await say_affordable(client, self._plan.config, engine.universe, adopted, self._logger, is_null=is_null)
        except (ExchangeError, SettingsError) as error:
            self._fail(error)
            return False
        self._runner.tell(adopted)
        self._has_begun = True
        found = say_open(adopted.positions, adopted.orders)
        if found:
            self._logger.warning("account.adopted_open", found=found)
        return True

    async def _until_end(self) -> str:
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(self._end), self._plan.seconds)
        return f"{self._plan.seconds:g} seconds are over"

    async def _stop(self, engine: Engine, reason: str) -> None:
        """Cancel, flatten and wait until nothing is open, works or is in doubt; bounded."""
        self._runner.tell(StopRequested(recv_ns=self._clock(), reason=reason))
        deadline = time.monotonic() + STOP_WITHIN_S
        while not self._must_hurry.is_set() and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
            if engine.is_stopping and engine.is_flat_and_quiet:
                return

    async def _last_truth(self, client: MeteredClient, symbol: str) -> Adopted | None:
        """Return what the exchange says at the end, None where it does not answer."""
        if self._is_unreachable:
            return None
        with contextlib.suppress(ExchangeError, TimeoutError):
            return await asyncio.wait_for(read_truth(client, symbol, self._leverage, self._clock), LAST_TRUTH_WITHIN_S)
        return None

    # ------------------------------------------------------------------------------------------ beside the trading

    async def _set_leverage(self, client: MeteredClient, universe: Universe) -> None:
        """Set the leverage of every symbol that may be traded, busiest first; tell the engine what was obtained."""
        wanted = set(self._plan.config.symbols) or set(universe.symbols)
        contracts = [c for c in universe.contracts if c.symbol in wanted and c.status == "normal"]
        volumes: dict[str, float] = {}
        with contextlib.suppress(ExchangeError):  # without them all are set all the same, in some order
            volumes = {row.symbol: row.quote_volume_24h for row in await client.tickers()}
        contracts.sort(key=lambda contract: -float(np.nan_to_num(volumes.get(contract.symbol, 0.0))))
        left, told_s = contracts, time.monotonic()
        while left:
            unanswered = []
            for contract in left:
                if not await self._set_leverage_of(client, contract):
                    unanswered.append(contract)
                if time.monotonic() - told_s >= LEVERAGE_TOLD_EVERY_S or contract is left[-1]:
                    told_s = time.monotonic()
                    self._executor.read_account()
            left = unanswered
            if left:
                await asyncio.sleep(LEVERAGE_AGAIN_S)
        self._logger.info("leverage.set", symbols=len(self._leverage), of=len(contracts))

    async def _set_leverage_of(self, client: MeteredClient, contract: Contract) -> bool:
        """Set the leverage of one symbol; False: there was no answer, and another try may get one."""
        wanted = max(contract.leverage_min, min(self._plan.config.leverage, contract.leverage_max))
        try:
            obtained = await client.set_leverage(contract.symbol, wanted)
            if obtained != wanted:  # the symbol's margin may be isolated, which has leverages of its own
                await client.set_margin_mode(contract.symbol)
                obtained = await client.set_leverage(contract.symbol, wanted)
        except ExchangeError as error:
            self._logger.warning("leverage.refused", symbol=contract.symbol, wanted=wanted, error=str(error))
            return isinstance(error, ExchangeRefused) and error.code not in LATER_CODES
        if obtained > wanted:
            self._logger.warning("leverage.differs", symbol=contract.symbol, wanted=wanted, obtained=obtained)
            return True
        self._leverage[contract.symbol] = obtained
        return True

    async def _guard(self, client: MeteredClient, account: AccountStream) -> None:
        """End the session when the exchange is gone for good."""
        is_local = self._plan.venue == "simulator"
        unreachable_s: float | None = None
        while True:
            await asyncio.sleep(0.5)
            if not self._is_venue_alive():
                self._lose("the simulator that this session started must run to its end, found it dead")
                return
            if account.linked.is_set():
                unreachable_s = None
                continue
            try:
                await client.server_time()
            except ExchangeUnreachable:
                unreachable_s = unreachable_s if unreachable_s is not None else time.monotonic()
                if time.monotonic() - unreachable_s > LOST_AFTER_S[is_local]:
                    self._lose(
                        f"the exchange at {self._plan.rest_url} must be reachable, found no connection for "
                        f"{LOST_AFTER_S[is_local]:.0f} s"
                    )
                    return
            except ExchangeError:
                unreachable_s = None  # it answers, somehow

    async def _keep_warm(self, client: MeteredClient) -> None:
        """Hold open as many connections as orders leave at once: a handshake costs more than an order may take.

        One of the answers tells the engine how far the clocks are apart: none adds risk while that is too far.
        """
        while True:
            offset_ms = await warm(client, self._plan.config.orders_per_second_max)
            if offset_ms is not None:
                self._runner.tell(ClockRead(recv_ns=self._clock(), offset_ns=offset_ms * 1_000_000))
            await asyncio.sleep(WARM_EVERY_S)

    async def _remember(self, engine: Engine) -> None:
        """Save limits and what was learned now and then: a crash is no way around a limit."""
        latch = engine.risk.latch
        due_s = 0.0
        while True:
            has_fallen = engine.risk.latch is not latch
            if time.monotonic() >= due_s or has_fallen:
                due_s, latch = time.monotonic() + MEMORY_EVERY_S, engine.risk.latch
                self._save(engine, is_durable=has_fallen)
            await asyncio.sleep(0.5)

    def _save(self, engine: Engine, *, is_durable: bool = False) -> None:
        memory.save(self._memory_path, self._kept.after(self._plan.model, engine.memory), is_durable=is_durable)

    # ------------------------------------------------------------------------------------------------- how it ends

    def _watch(self, work: Any, name: str) -> asyncio.Task[None]:
        """Start a task whose failure ends the session."""

        async def run() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 - every failure ends the session, and is told at its end
                self._on_failure(error, name)

        return asyncio.create_task(run(), name=name)

    def _on_failure(self, error: BaseException, name: str) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, CrosscutError):
            self._fail(error)
            return
        self._logger.error("session.broken", task=name, exc_info=error)
        if name == "engine":
            self._must_hurry.set()  # nobody is left to flatten
        self._fail(CrosscutError(f"{name} must not fail, found {type(error).__name__}: {error}: this is our bug"))

    def _on_loop_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None:
            self._on_failure(error, str(context.get("message")))

    def _fail(self, error: CrosscutError) -> None:
        self._error = self._error or error
        if not self._end.done():
            self._end.set_result(str(error))

    def _lose(self, reason: str) -> None:
        self._is_unreachable = True
        self._must_hurry.set()
        self._fail(ExchangeSilent(reason))

    @contextlib.contextmanager
    def _signals(self) -> Any:
        """SIGINT and SIGTERM end the session; a second one does not wait for it to be flat."""
        loop = asyncio.get_running_loop()

        def ask(name: str) -> None:
            if self._end.done():
                self._must_hurry.set()
            else:
                self._end.set_result(f"stopped by {name}")

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ask, number.name)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _finish(self, engine: Engine, writer: journal.JournalWriter, adopted: Adopted | None) -> Outcome:
        """Close the journal, save what was learned, write session.json."""
        runner, plan = self._runner, self._plan
        error = self._error or runner.journal_error
        if runner.journal_error is None:
            try:
                writer.close()
            except CrosscutError as failure:
                error = error or failure
        if self._beside is not None:
            self._beside.close()
        try:
            memory.save(self._memory_path, self._kept.after(plan.model, engine.memory))
        except CrosscutError as failure:
            error = error or failure
        if adopted is not None:
            is_flat = not adopted.positions and not adopted.orders
            what_is_open = say_open(adopted.positions, adopted.orders)
            known_by = "the exchange"
        else:
            held = engine.portfolio.holdings
            parts = [f"{symbol} {holding.size:+f}" for symbol, holding in sorted(held.items())]
            parts += [f"order {order.client_oid} in {order.symbol}" for order in engine.orders.working]
            is_flat, what_is_open, known_by = not parts, ", ".join(parts), "our ledger, the exchange cannot be asked"
        if what_is_open:
            is_gone = plan.is_child_venue and not self._is_venue_alive()
            error = _with_open(error, what_is_open, known_by, is_account_gone=is_gone)
        summary = self._summary(engine, adopted, is_flat, what_is_open, known_by, error)
        path = self.folder / "session.json"
        try:
            told = msgspec.json.format(msgspec.json.encode(summary, enc_hook=str), indent=2)
            replace_file(path, told, is_durable=True)
        except OSError as failure:
            error = error or CrosscutError(f"session.json must be writable at {path}, found: {failure}: make room")
        return Outcome(folder=self.folder, summary=summary, error=error)

    def _summary(
        self,
        engine: Engine,
        adopted: Adopted | None,
        is_flat: bool,
        what_is_open: str,
        known_by: str,
        error: CrosscutError | None,
    ) -> dict[str, Any]:
        plan, runner, tally, ledger = self._plan, self._runner, self._runner.tally, engine.portfolio
        equity = ledger.equity_usdt
        theirs = adopted.equity_usdt if adopted is not None else None
        return {
            "schema_version": SCHEMA_VERSION,
            "session": self.name,
            "folder": str(self.folder),
            "model": plan.model,
            "model_version": plan.bundle_note.version if plan.bundle_note is not None else None,
            "source": plan.source,
            "market_note": market_note(plan.source, plan.venue),
            "venue": plan.venue,
            "commit": plan.commit,
            "seed": plan.seed,
            "ended_by": self._end.result() if self._end.done() else f"{plan.seconds:g} seconds are over",
            "error": str(error) if error is not None else None,
            "exit_code": error.exit_code if error is not None else 0,
            "seconds": tally.seconds,
            "decisions": tally.decisions,
            "orders": {
                "placed": tally.placed,
                "cancels": tally.cancels,
                "timed_out": tally.timed_out,
                "refused": dict(sorted(tally.refused.items())),
            },
            "fills": tally.fills,
            "trades": {
                "closed": tally.trades,
                "won": tally.trades_won,
                "net_usdt": tally.trades_net_usdt,
                "net_bps": tally.net_bps,  # of what was opened, as in a backtest
            },
            "why_not": dict(sorted(tally.why_not.items())),
            "symbols_tradable": len(self._leverage),
            "pnl_usdt": {
                "equity_start": ledger.start_usdt,
                "equity_end_ledger": equity,
                "equity_end_venue": theirs,
                # None: the exchange was not asked, the session ended before it began, or something is open
                "ledger_equals_venue": abs(theirs - equity) < EQUITY_STEP
                if theirs is not None and is_flat and self._has_begun
                else None,
                "net": equity - ledger.start_usdt,
                "realised": ledger.realised_usdt,
                "fees": ledger.fees_usdt,
                "funding": ledger.funding_usdt,
                "adjustments": ledger.adjustments_usdt,
            },
            "latency_ms": runner.latency.summary(),
            "journal": {
                "path": journal.FILE_NAME,
                "seconds": tally.seconds,
                "events": tally.events,
                "bytes": _size(self.folder / journal.FILE_NAME),
                "is_complete": runner.journal_error is None,
                "events_dropped": runner.dropped,
            },
            "shadow": self._beside.summary() if self._beside is not None else None,
            "risk_latch": str(engine.risk.latch) if engine.risk.latch is not None else None,
            "bandit": engine.bandit.summary(),
            "flat_at_end": is_flat,
            "open_at_end": what_is_open,
            "open_known_by": known_by,
        }

    def _log(self, note: Note) -> None:
        is_warning = note.event in _WARN and note.fields.get("reason") != "stopped"
        write = self._logger.warning if is_warning else self._logger.info
        write(note.event, **note.fields)


def _with_open(
    error: CrosscutError | None, what_is_open: str, known_by: str, *, is_account_gone: bool = False
) -> CrosscutError:
    """Return the error with what is still open in its sentence: an open position is never left unsaid."""
    what_to_do = (
        "the paper account ended with its simulator: start again"
        if is_account_gone
        else "entries carry their protective stop at the exchange: run `python -m live.flatten` to close everything"
    )
    said = f"open at the end: {what_is_open} (by {known_by}); {what_to_do}"
    if error is None:
        return ExchangeError(f"the session must end flat, found {said}")
    told = CrosscutError(f"{error}; {said}")
    told.exit_code = error.exit_code
    return told


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
