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
from typing import Any, Final

import msgspec
import numpy as np

from live import memory
from live.account import check_clock, choose_account_symbol, require_one_way, set_leverages, warm
from live.affords import say_affordable
from live.executor import Executor, MeteredClient
from live.plan import Outcome, Plan
from live.runner import Runner
from live.shadow import Beside, open_beside
from live.streams import AccountStream, Market
from live.summary import left_open, summarise, with_open
from live.truth import read_truth, say_open
from shared import journal, log
from shared.bitget.transport import ExchangeUnreachable, ReceiveClock
from shared.errors import CrosscutError, ExchangeError, ExchangeSilent, SettingsError
from shared.features.catalog import FEATURES
from shared.features.graph import definition_hash, formulas_of
from shared.features.sampler import COLUMNS
from shared.model import copy_bundle
from shared.permits import load_permit, model_key, permit_path
from shared.replaced import replace_file
from shared.replay import alternatives_of, make_scorer
from shared.settings import check_books
from shared.strategy.bandit.state import Mode
from shared.strategy.engine import Engine
from shared.strategy.truth import FILLS_BEFORE_ADOPTION_NS
from shared.types import SCHEMA_VERSION, Adopted, ClockRead, Note, StopRequested, Universe

REQUEST_TIMEOUT_S: Final = 5.0  # Bitget answers within 0.3 s; what takes longer is asked for, not waited for
PRIVATE_UP_WITHIN_S: Final = 20.0
STOP_WITHIN_S: Final = 60.0  # an unknown placement takes 35 s to be proven absent; closing a position takes one
LAST_TRUTH_WITHIN_S: Final = 10.0
WARM_EVERY_S: Final = 20.0  # the client drops a connection that was idle for 60 s
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


def session_name(model: str) -> str:
    """Return a name that sorts by time and never repeats: it is part of every clientOid."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + f"-{model}-{secrets.token_hex(3)}"


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
                await require_one_way(client, symbol)
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
                    tasks.append(self._watch(self._set_leverages(client, universe), "leverage"))
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

    async def _set_leverages(self, client: MeteredClient, universe: Universe) -> None:
        told, config = self._executor.read_account, self._plan.config
        await set_leverages(client, config, universe, self._leverage, told=told, logger=self._logger)

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
        left = left_open(engine, adopted)
        if left.said:
            error = with_open(error, left, is_account_gone=plan.is_child_venue and not self._is_venue_alive())
        summary = summarise(
            plan,
            engine,
            runner,
            adopted,
            left,
            session=self.name,
            folder=self.folder,
            ended_by=self._end.result() if self._end.done() else f"{plan.seconds:g} seconds are over",
            error=error,
            has_begun=self._has_begun,
            n_tradable=len(self._leverage),
            shadow=self._beside.summary() if self._beside is not None else None,
        )
        path = self.folder / "session.json"
        try:
            told = msgspec.json.format(msgspec.json.encode(summary, enc_hook=str), indent=2)
            replace_file(path, told, is_durable=True)
        except OSError as failure:
            error = error or CrosscutError(f"session.json must be writable at {path}, found: {failure}: make room")
        return Outcome(folder=self.folder, summary=summary, error=error)

    def _log(self, note: Note) -> None:
        is_warning = note.event in _WARN and note.fields.get("reason") != "stopped"
        write = self._logger.warning if is_warning else self._logger.info
        write(note.event, **note.fields)
