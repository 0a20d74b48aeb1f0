"""One task owns the engine: events in order, journal before send, nothing awaited between an event and its actions.

    inbox --> [journal event] --> engine --> [journal actions] --> fsync --> executor
                                                                         └-> log (Notes)

Everything that waits is taken at once (`step`): one write and at most one fsync for the whole batch, before its first
order leaves. The inbox is bounded; what does not fit is dropped, and since a dropped event may have been a fill, the
session stops and reads the exchange's truth again.

If the journal cannot be written, orders that add risk are refused instead of sent and the engine is told to stop;
what closes, cancels or asks still goes out: an unjournaled exit is better than an unwatched position.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable
from decimal import Decimal
from typing import Final, Protocol

import msgspec

from live.shadow import SHADOW_AFTER_S, Beside
from shared.errors import JournalError
from shared.journal import JournalWriter
from shared.strategy.engine import Engine
from shared.types import (
    NS,
    Action,
    Adopted,
    CancelOrder,
    Event,
    Filled,
    Note,
    OrderRefused,
    PlaceOrder,
    SecondClosed,
    StopRequested,
)

INBOX_MAX: Final = 10_000  # a minute of the busiest account; normally it holds a handful
LOG_AFTER_S: Final = 0.05
SECONDS_MEASURED: Final = 100_000  # latencies of the last day; older ones leave the summary
FILLS_REMEMBERED: Final = 10_000  # a fill is told twice (orders, fill), within seconds


class Executes(Protocol):
    def submit(self, actions: list[Action], on_sent: Callable[[int], None]) -> None: ...

    def read_account(self) -> None: ...


class Latency(msgspec.Struct):
    """Milliseconds from the close of a second (wall time s + 1.0): what was computed, what was sent."""

    computed: deque[float]  # actions journaled, about to be sent; every second
    sent: deque[float]  # last order handed to the socket; seconds with orders, but for the final flattening,
    # where Bitget's rate and not this process decides
    engine: deque[float]  # engine and journal alone, from the event on; every second

    @classmethod
    def empty(cls) -> Latency:
        return cls(*(deque(maxlen=SECONDS_MEASURED) for _ in cls.__struct_fields__))

    def summary(self) -> dict[str, dict[str, float] | None]:
        return {
            "second_closed_to_orders_sent": _quantiles(self.sent),
            "second_closed_to_decided": _quantiles(self.computed),
            "engine_and_journal": _quantiles(self.engine),
        }


def _quantiles(values: deque[float]) -> dict[str, float] | None:
    """Return p50, p99 and max; None where nothing was measured."""
    if not values:
        return None
    ordered = sorted(values)

    def at(q: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 3)

    return {"p50": at(0.50), "p99": at(0.99), "max": at(1.0), "n": len(ordered)}


class Tally(msgspec.Struct):
    """What a session did, counted as it happens."""

    seconds: int = 0
    events: int = 0  # others than seconds
    decisions: int = 0
    placed: int = 0  # handed to the executor
    refused: Counter[str] = msgspec.field(default_factory=Counter)  # by Bitget's code, or ours
    timed_out: int = 0
    cancels: int = 0
    fills: int = 0
    trades: int = 0  # round trips, flat to flat
    trades_won: int = 0  # net of everything
    trades_net_usdt: Decimal = Decimal(0)
    trades_opened_usdt: Decimal = Decimal(0)
    why_not: Counter[str] = msgspec.field(default_factory=Counter)  # symbol-decisions by gate

    @property
    def net_bps(self) -> float | None:
        """Return the net result of the round trips in bps of what they opened, as a backtest's; None without one."""
        return float(self.trades_net_usdt / self.trades_opened_usdt * 10_000) if self.trades_opened_usdt else None


class Runner:
    """Own the engine and its inbox.

    Args:
        log: takes every Note of the engine.
        clock: ns, strictly increasing; shared with whoever stamps events.
        later: the loop's `call_later`; None writes log lines at once.
        remember: saves what outlives the session; called before an order leaves that exploration was charged for.
        beside: scores the seconds that the engine has decided on, once their orders are gone; None: nobody does.
    """

    def __init__(
        self,
        engine: Engine,
        journal: JournalWriter,
        executor: Executes,
        *,
        clock: Callable[[], int],
        log: Callable[[Note], None] = lambda note: None,
        later: Callable[[float, Callable[[], None]], object] | None = None,
        remember: Callable[[], None] = lambda: None,
        beside: Beside | None = None,
    ) -> None:
        self.engine, self.journal, self._executor = engine, journal, executor
        self._clock, self._log = clock, log
        self._later = later or (lambda _delay_s, call: call())
        self._beside = beside
        self._inbox: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._remember = remember
        self._spent = engine.bandit.spent
        self._last_ns = 0
        self._fills_seen: dict[tuple[str, str, str], None] = {}
        self.dropped = 0  # events that found the inbox full
        self._is_truth_owed = False
        self.journal_error: JournalError | None = None  # None: everything is on record
        self.latency = Latency.empty()
        self.tally = Tally()

    def tell(self, event: Event) -> None:
        """Put an event into the inbox."""
        if len(self._inbox) >= INBOX_MAX:
            self.dropped += 1
            self._is_truth_owed = True
        else:
            self._inbox.append(event)
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                self.step()
            except BaseException:
                # Our own bug: the event that showed it is what the replay needs.
                with contextlib.suppress(JournalError):
                    self.journal.commit(is_durable=True)
                raise

    def step(self) -> None:
        """Take everything that waits, and do what follows from it."""
        batch = list(self._inbox)
        self._inbox.clear()
        if self.dropped and not self.engine.is_stopping:
            batch.append(StopRequested(recv_ns=self._clock(), reason=f"inbox full, {self.dropped} events dropped"))
        begun_ns = time.perf_counter_ns()
        actions: list[Action] = []
        closed: int | None = None
        for event in batch:
            actions += self._take(event)
            if isinstance(event, SecondClosed):
                closed = event.second
        actions = self._commit(actions)
        self._save_spent()
        if closed is not None:
            self._measure(closed, begun_ns)
        self._send(actions, closed)
        if self._beside is not None and closed is not None:
            self._later(SHADOW_AFTER_S, self._beside.work)
        if self._is_truth_owed and not self._inbox:
            self._is_truth_owed = False
            self._executor.read_account()

    def _take(self, event: Event) -> list[Action]:
        if event.recv_ns <= self._last_ns:
            event = msgspec.structs.replace(event, recv_ns=self._last_ns + 1)
        self._last_ns = event.recv_ns
        is_recorded = self.journal_error is None
        if is_recorded:
            self.journal.add_event(event)
        actions = self.engine.on_event(event)
        is_second = isinstance(event, SecondClosed)
        if is_recorded and (is_second or actions):
            self.journal.add_decision(actions, self.engine.digests if is_second else {})
        self._count(event, actions)
        if self._beside is not None and isinstance(event, SecondClosed):
            self._beside.add(event.second, event.columns, self.engine.features)
        return actions

    def _save_spent(self) -> None:
        """Save what exploration cost before its orders leave: a crash is no way around a budget."""
        if self.engine.bandit.spent == self._spent:
            return
        self._spent = self.engine.bandit.spent
        try:
            self._remember()
        except JournalError as error:
            self.tell(StopRequested(recv_ns=self._clock(), reason=f"what was spent cannot be saved: {error}"))

    def _commit(self, actions: list[Action]) -> list[Action]:
        """Make the record durable where something will be sent; return what may be sent."""
        needs_fsync = any(not isinstance(action, Note) for action in actions)
        if self.journal_error is None:
            try:
                self.journal.commit(is_durable=needs_fsync)
                return actions
            except JournalError as error:
                self.journal_error = error
                self.tell(StopRequested(recv_ns=self._clock(), reason="the journal cannot be written"))
        allowed: list[Action] = []
        for action in actions:
            if isinstance(action, PlaceOrder) and not action.reduce_only:
                message = "not sent: the journal cannot be written"
                self.tell(
                    OrderRefused(
                        recv_ns=self._clock(), client_oid=action.client_oid, code="unjournaled", message=message
                    )
                )
            else:
                allowed.append(action)
        return allowed

    def _measure(self, second: int, begun_ns: int) -> None:
        self.latency.engine.append((time.perf_counter_ns() - begun_ns) / 1e6)
        self.latency.computed.append((self._clock() - (second + 1) * NS) / 1e6)

    def _send(self, actions: list[Action], closed: int | None) -> None:
        n_orders = sum(isinstance(action, PlaceOrder | CancelOrder) for action in actions)
        sent_at: list[int] = []

        is_measured = closed is not None and not self.engine.is_stopping

        def on_sent(sent_ns: int) -> None:
            sent_at.append(sent_ns)
            if is_measured and closed is not None and len(sent_at) == n_orders:
                self.latency.sent.append((sent_ns - (closed + 1) * NS) / 1e6)

        self._executor.submit([action for action in actions if not isinstance(action, Note)], on_sent)
        notes = [action for action in actions if isinstance(action, Note)]
        if notes:
            # Lines are written when the orders are gone; the executor's tasks have not run yet.
            self._later(LOG_AFTER_S, lambda: self._write(notes))

    def _write(self, notes: list[Note]) -> None:
        for note in notes:
            self._log(note)

    def _count_fill(self, fill: Filled) -> None:
        key = (fill.symbol, fill.order_id, fill.trade_id)
        if key not in self._fills_seen:
            self._fills_seen[key] = None
            self.tally.fills += 1
            if len(self._fills_seen) > FILLS_REMEMBERED:
                del self._fills_seen[next(iter(self._fills_seen))]

    def _count(self, event: Event, actions: list[Action]) -> None:
        tally = self.tally
        if isinstance(event, SecondClosed):
            tally.seconds += 1
        else:
            tally.events += 1
        if isinstance(event, Filled):
            self._count_fill(event)
        elif isinstance(event, Adopted):
            missed = {a.fields["trade_id"] for a in actions if isinstance(a, Note) and a.event == "fill.missed"}
            for fill in event.fills:
                if fill.trade_id in missed:
                    self._count_fill(fill)
        elif isinstance(event, OrderRefused):
            tally.refused[event.code] += 1
        for trade in self.engine.take_trades():
            tally.trades += 1
            tally.trades_won += trade.net_usdt > 0
            tally.trades_net_usdt += trade.net_usdt
            tally.trades_opened_usdt += trade.opened_usdt
        for action in actions:
            if isinstance(action, PlaceOrder):
                tally.placed += 1
            elif isinstance(action, CancelOrder):
                tally.cancels += 1
            elif isinstance(action, Note):
                self._count_note(action)

    def _count_note(self, note: Note) -> None:
        if note.event == "decision.made":
            self.tally.decisions += 1
            for name, value in note.fields.items():
                if name.startswith("no_") and isinstance(value, int):
                    self.tally.why_not[name.removeprefix("no_")] += value
        elif note.event == "order.timed_out":
            self.tally.timed_out += 1
