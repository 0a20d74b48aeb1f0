"""What the engine wants, done at the exchange; what the exchange says, told to the engine.

One task a request: a slow answer delays nobody. The promises:

* A placement is sent at most once. No answer (time-out, lost connection, an answer that cannot be read) becomes
  `OrderTimedOut`; what became of it is asked by `QueryOrder`, at the engine's order.
* A placement that could not be handed to the socket within `SEND_WITHIN_S` is withdrawn, which is a refusal: the
  engine counts an order as absent 35 s after its decision, and that arithmetic needs this bound.
* At most `REQUESTS_MAX` requests are under way; beyond, placements are refused: a stall must not pile up orders.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any, Final, Protocol, Self

import aiohttp

from live.truth import Truths, read_truth
from shared.bitget.transport import ExchangeUnreachable, RestClient
from shared.bitget.wire import OrderState
from shared.errors import ExchangeError, ExchangeRefused, ExchangeSilent
from shared.strategy.truth import FILLS_RECENT_NS
from shared.types import (
    Action,
    CancelOrder,
    CancelRefused,
    Event,
    Filled,
    FundingPaid,
    Note,
    OrderAbsent,
    OrderAccepted,
    OrderRefused,
    OrderTimedOut,
    PlaceOrder,
    QueryAccount,
    QueryOrder,
)

SEND_WITHIN_S: Final = 2.0  # the engine allows 3
REQUESTS_MAX: Final = 64  # eight seconds of placements at Bitget's rate
AT_REST_WITHIN_S: Final = 1.0  # the account is then read all the same
PUSHED_WITHIN_S: Final = 0.2  # Bitget trades about 60 ms after the answer to a placement, and pushes it
BILLS_FROM_BEFORE_MS: Final = 5_000  # our clock may be 2 s off; the engine knows what it began with
BILLS_LATE_MS: Final = 15 * 60_000  # a bill may be listed so much later than others of its time

EXPIRED: Final = "expired"
"""Code of our own refusals: the order was never sent."""

Sent = Callable[[int], None]

_on_begun: contextvars.ContextVar[Callable[[], None] | None] = contextvars.ContextVar("on_begun", default=None)
_on_sent: contextvars.ContextVar[Callable[[], None] | None] = contextvars.ContextVar("on_sent", default=None)


class Venue(Truths, Protocol):
    """Where orders go and the truth comes from; `MeteredClient` is one, a test's fake another."""

    async def place(self, order: PlaceOrder) -> str: ...

    async def cancel(self, order: CancelOrder) -> None: ...

    async def detail(self, symbol: str, client_oid: str, order_id: str = "") -> OrderState | None: ...

    async def funding(self, start_ms: int) -> tuple[FundingPaid, ...]: ...


class MeteredClient(RestClient):
    """A RestClient that says when a request is handed to the socket: latency is measured there, not at a promise."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        assert self._http is not None
        trace = aiohttp.TraceConfig()
        # aiohttp composes the headers first, and writes them together with the body a moment later.
        trace.on_request_headers_sent.append(_tell_begun)
        trace.on_request_chunk_sent.append(_tell_sent)
        trace.freeze()
        self._http.trace_configs.append(trace)
        return self


async def _tell_begun(_http: aiohttp.ClientSession, _context: SimpleNamespace, _request: Any) -> None:
    tell_begun()


async def _tell_sent(_http: aiohttp.ClientSession, _context: SimpleNamespace, _request: Any) -> None:
    tell_sent()


def tell_begun() -> None:
    """Say that the request of the current task can no longer be withdrawn; called by whoever sends it."""
    on_begun = _on_begun.get()
    if on_begun is not None:
        on_begun()


def tell_sent() -> None:
    """Say that the request of the current task is handed to the socket; called by whoever sends it."""
    on_sent = _on_sent.get()
    if on_sent is not None:
        on_sent()


class Executor:
    """Do actions; every answer comes back through `tell`.

    Args:
        venue: where orders go.
        account_symbol: any listed symbol; Bitget wants one to answer for the account.
        leverage: what was obtained so far, read whenever the truth is.
        tell: takes the events.
        clock: ns, strictly increasing.
    """

    def __init__(
        self,
        venue: Venue,
        account_symbol: str,
        leverage: Mapping[str, int],
        tell: Callable[[Event], None],
        clock: Callable[[], int],
        *,
        log: Callable[[Note], None] = lambda note: None,
    ) -> None:
        self._venue, self._account_symbol, self._leverage = venue, account_symbol, leverage
        self._tell, self._clock, self._log = tell, clock, log
        self._tasks: set[asyncio.Task[None]] = set()
        self._placing: set[asyncio.Task[None]] = set()
        self._answered_s = -math.inf  # the loop's time of the last answer to a placement
        self._is_reading_truth = False
        self._bills_from_ms = max(0, clock() // 1_000_000 - BILLS_FROM_BEFORE_MS)
        self._bills_told: dict[str, int] = {}  # bill id -> its time, ms; those since `_bills_from_ms`
        self.unreachable_since_ns = 0  # 0: the last request reached the exchange

    @property
    def n_under_way(self) -> int:
        return len(self._tasks)

    def submit(self, actions: Iterable[Action], on_sent: Sent = lambda sent_ns: None) -> None:
        """Start every action, in this order; returns at once.

        Args:
            on_sent: called with the clock when a placement or cancellation is handed to the socket.
        """
        for action in actions:
            if isinstance(action, PlaceOrder):
                if self.n_under_way >= REQUESTS_MAX:
                    self._refuse(action, f"{self.n_under_way} requests are under way")
                else:
                    self._placing.add(self._start(self._place(action, on_sent)))
            elif isinstance(action, CancelOrder):
                self._start(self._cancel(action, on_sent))
            elif isinstance(action, QueryOrder):
                self._start(self._query(action))
            elif isinstance(action, QueryAccount):
                self.read_account(action.fills_since_ns)

    def read_account(self, fills_since_ns: int | None = None) -> None:
        """Start reading the whole truth; a reading under way is not doubled.

        Args:
            fills_since_ns: None: the recent ones, which every comparison wants.
        """
        if not self._is_reading_truth:
            self._is_reading_truth = True
            since_ns = fills_since_ns if fills_since_ns is not None else self._clock() - FILLS_RECENT_NS
            self._start(self._read_truth(since_ns))

    async def drain(self) -> None:
        """Wait for the answers to everything under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Give up waiting for answers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task in self._placing:
            self._placing.discard(task)
            self._answered_s = asyncio.get_running_loop().time()
        if not task.cancelled() and task.exception() is not None:
            # Our own bug in one request must not be silent: the loop's handler ends the session.
            asyncio.get_running_loop().call_exception_handler(
                {"message": "executor failed", "exception": task.exception(), "task": task}
            )

    def _refuse(self, order: PlaceOrder, reason: str) -> None:
        self._tell(OrderRefused(recv_ns=self._clock(), client_oid=order.client_oid, code=EXPIRED, message=reason))

    async def _place(self, order: PlaceOrder, on_sent: Sent) -> None:
        try:
            async with asyncio.timeout(SEND_WITHIN_S) as patience:
                # Once it is begun, only the exchange can say what became of it.
                _on_begun.set(lambda: patience.reschedule(None))
                _on_sent.set(lambda: on_sent(self._clock()))
                order_id = await self._venue.place(order)
        except TimeoutError:
            self._refuse(order, f"it could not be sent within {SEND_WITHIN_S:g} s")
        except ExchangeRefused as refusal:
            self._reached()
            self._tell(
                OrderRefused(
                    recv_ns=self._clock(),
                    client_oid=order.client_oid,
                    code=refusal.code,
                    message=refusal.bitget_message,
                )
            )
        except ExchangeError as error:
            # Also where nothing was sent: unknown, asked for and found absent is slow and safe.
            self._note_failure("order.unanswered", error, client_oid=order.client_oid, symbol=order.symbol)
            self._tell(OrderTimedOut(recv_ns=self._clock(), client_oid=order.client_oid))
        else:
            self._reached()
            self._tell(OrderAccepted(recv_ns=self._clock(), client_oid=order.client_oid, order_id=order_id))

    async def _cancel(self, order: CancelOrder, on_sent: Sent) -> None:
        _on_sent.set(lambda: on_sent(self._clock()))
        try:
            await self._venue.cancel(order)
        except ExchangeRefused as refusal:
            self._reached()
            self._tell(
                CancelRefused(
                    recv_ns=self._clock(),
                    client_oid=order.client_oid,
                    code=refusal.code,
                    message=refusal.bitget_message,
                )
            )
        except ExchangeError as error:
            # The engine asks for the order, and cancels again if it still rests.
            self._note_failure("cancel.unanswered", error, client_oid=order.client_oid, symbol=order.symbol)
        else:
            self._reached()

    async def _query(self, query: QueryOrder) -> None:
        try:
            found = await self._venue.detail(query.symbol, query.client_oid, query.order_id)
            fills: tuple[Filled, ...] = ()
            if found is not None and found.filled:
                fills = await self._venue.fills(
                    symbol=query.symbol, order_id=found.order_id, client_oid=query.client_oid
                )
        except ExchangeError as error:
            self._note_failure("query.unanswered", error, client_oid=query.client_oid, symbol=query.symbol)
            return
        self._reached()
        for fill in fills:
            self._tell(fill)
        if found is None:
            self._tell(OrderAbsent(recv_ns=self._clock(), client_oid=query.client_oid))
        else:
            self._tell(found.reported(self._clock()))

    async def _read_truth(self, fills_since_ns: int) -> None:
        try:
            await self._orders_at_rest()
            adopted = await read_truth(
                self._venue, self._account_symbol, self._leverage, self._clock, fills_since_ns=fills_since_ns
            )
            funding = await self._read_funding()
        except ExchangeError as error:
            self._note_failure("account.unanswered", error)
            return
        finally:
            self._is_reading_truth = False
        self._reached()
        for paid in funding:
            self._tell(paid)
        self._tell(adopted)

    async def _orders_at_rest(self) -> None:
        """Wait until placements are answered and what they traded is pushed: a reading that crosses them raises doubts.

        The engine asks when a second closes, which is also when it places.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + AT_REST_WITHIN_S
        while (now_s := loop.time()) < deadline_s:
            if self._placing:
                await asyncio.wait(self._placing, timeout=deadline_s - now_s)
            elif now_s < self._answered_s + PUSHED_WITHIN_S:
                await asyncio.sleep(self._answered_s + PUSHED_WITHIN_S - now_s)
            else:
                return

    async def _read_funding(self) -> list[FundingPaid]:
        """Return the funding that was not told yet: nobody pushes it, its bills come with every reading."""
        try:
            listed = await self._venue.funding(self._bills_from_ms)
        except ExchangeRefused as refusal:
            # Keys that may read the account and not its bills: a truth without them is better than none.
            self._note_failure("funding.unanswered", refusal)
            return []
        new = [paid for paid in listed if paid.bill_id not in self._bills_told]
        self._bills_told |= {paid.bill_id: paid.exch_ns // 1_000_000 for paid in new}
        newest_ms = max(self._bills_told.values(), default=0)
        self._bills_from_ms = max(self._bills_from_ms, newest_ms - BILLS_LATE_MS)
        self._bills_told = {name: ms for name, ms in self._bills_told.items() if ms >= self._bills_from_ms}
        return new

    def _reached(self) -> None:
        self.unreachable_since_ns = 0

    def _note_failure(self, event: str, error: ExchangeError, **fields: str) -> None:
        if not isinstance(error, ExchangeSilent):
            self._reached()
        elif isinstance(error, ExchangeUnreachable) and not self.unreachable_since_ns:
            self.unreachable_since_ns = self._clock()
        self._log(Note(event=event, fields={**fields, "error": str(error)}))
