"""The executor against a scripted venue: what it sends, how often, and what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from itertools import count
from typing import Any

import pytest

from live import executor as executors
from live.executor import EXPIRED, Executor
from shared.bitget.transport import ExchangeUnreachable
from shared.bitget.wire import Account, OrderState
from shared.errors import ExchangeError, ExchangeRefused, ExchangeSilent, ProtocolBroken
from shared.types import (
    Action,
    Adopted,
    CancelOrder,
    CancelRefused,
    Cause,
    Event,
    Filled,
    FundingPaid,
    OrderAbsent,
    OrderAccepted,
    OrderKind,
    OrderRefused,
    OrderReported,
    OrderStatus,
    OrderTimedOut,
    PendingOrder,
    PlaceOrder,
    Position,
    QueryAccount,
    QueryOrder,
    Side,
)

D = Decimal


def place(name: str = "a", *, reduce_only: bool = False) -> PlaceOrder:
    return PlaceOrder(
        client_oid=name,
        symbol="AAAUSDT",
        side=Side.BUY,
        kind=OrderKind.MARKET,
        size=D(1),
        price=None,
        reduce_only=reduce_only,
        stop_price=None,
        cause=Cause.ENTRY,
    )


class Scripted:
    """A venue that answers as told and counts what reaches it."""

    def __init__(self) -> None:
        self.placed: list[str] = []
        self.answer: Callable[[], str] = lambda: "7"
        self.sends = True  # False: the request never gets as far as the socket
        self.hold: asyncio.Event | None = None  # not None: answers wait for it
        self.order: OrderState | None = None
        self.error: ExchangeError | None = None  # of everything but place
        self.truths = 0
        self.fills_asked = ("", 0)  # order_id, start_ms
        self.bills: list[FundingPaid] = []
        self.bills_error: ExchangeError | None = None
        self.bills_from: list[int] = []

    async def funding(self, start_ms: int) -> tuple[FundingPaid, ...]:
        self.bills_from.append(start_ms)
        if self.bills_error is not None:
            raise self.bills_error
        return tuple(bill for bill in self.bills if bill.exch_ns >= start_ms * 1_000_000)

    async def place(self, order: PlaceOrder) -> str:
        if not self.sends:
            await asyncio.Event().wait()
        executors.tell_begun()
        executors.tell_sent()
        self.placed.append(order.client_oid)
        if self.hold is not None:
            await self.hold.wait()
        return self.answer()

    async def cancel(self, order: CancelOrder) -> None:
        executors.tell_sent()
        self._fail()

    async def detail(self, symbol: str, client_oid: str, order_id: str = "") -> OrderState | None:
        self._fail()
        return self.order

    async def fills(
        self, *, symbol: str = "", order_id: str = "", client_oid: str = "", start_ms: int = 0
    ) -> tuple[Filled, ...]:
        self.fills_asked = (order_id, start_ms)
        return (
            Filled(
                recv_ns=1,
                client_oid=client_oid,
                order_id=order_id,
                trade_id="t",
                symbol=symbol,
                side=Side.BUY,
                price=D(1),
                size=D(1),
                fee_usdt=D(0),
                is_maker=False,
                exch_ns=1,
            ),
        )

    async def account(self, symbol: str) -> Account:
        return Account(
            equity_usdt=D(10),
            available_usdt=D(9),
            unrealized_usdt=D(0),
            leverage=5,
            margin_mode="crossed",
            position_mode="one_way_mode",
        )

    async def positions(self) -> tuple[Position, ...]:
        return (Position(symbol="AAAUSDT", size=D(-1), entry_price=D(2)),)

    async def pending(self) -> tuple[PendingOrder, ...]:
        self.truths += 1
        self._fail()
        return ()

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


def raising(error: Exception) -> Callable[[], str]:
    def answer() -> str:
        raise error

    return answer


async def do(venue: Scripted, *actions: Action, **kwargs: Any) -> list[Event]:
    """Have the actions done, return what is told."""
    told: list[Event] = []
    executor = Executor(venue, "AAAUSDT", {"AAAUSDT": 5}, told.append, count(1).__next__, **kwargs)
    executor.submit(actions)
    await executor.drain()
    return told


async def test_place_tells_the_order_id() -> None:
    """An accepted placement becomes OrderAccepted with Bitget's order id."""
    (event,) = await do(Scripted(), place())
    assert isinstance(event, OrderAccepted)
    assert (event.client_oid, event.order_id) == ("a", "7")


async def test_place_refused_tells_code_and_message() -> None:
    """A refusal keeps Bitget's own code and words."""
    venue = Scripted()
    venue.answer = raising(ExchangeRefused("40762", "The order amount exceeds the balance"))
    (event,) = await do(venue, place())
    assert isinstance(event, OrderRefused)
    assert (event.code, event.message) == ("40762", "The order amount exceeds the balance")


@pytest.mark.parametrize(
    "error",
    [ExchangeSilent("late"), ExchangeUnreachable("refused"), ProtocolBroken("garbage")],
    ids=lambda e: type(e).__name__,
)
async def test_place_without_answer_is_timed_out_and_never_sent_again(error: ExchangeError) -> None:
    """Whatever hides the answer, the order is sent once, and told as unknown once."""
    venue = Scripted()
    venue.answer = raising(error)
    (event,) = await do(venue, place())
    assert isinstance(event, OrderTimedOut)
    assert venue.placed == ["a"]


async def test_place_that_is_not_sent_in_time_is_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A placement that never reached the socket is a refusal of our own, and is not sent later."""
    monkeypatch.setattr(executors, "SEND_WITHIN_S", 0.01)
    venue = Scripted()
    venue.sends = False
    (event,) = await do(venue, place())
    assert isinstance(event, OrderRefused)
    assert event.code == EXPIRED
    assert venue.placed == []


async def test_place_that_was_sent_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is at the socket, only the exchange can say what became of it: patience for sending ends there."""
    monkeypatch.setattr(executors, "SEND_WITHIN_S", 0.01)
    venue = Scripted()
    venue.hold = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, venue.hold.set)
    (event,) = await do(venue, place())
    assert isinstance(event, OrderAccepted)


async def test_submit_tells_when_each_order_is_sent() -> None:
    """Every placement and cancellation is stamped as it is handed to the socket."""
    stamps: list[int] = []
    told: list[Event] = []
    executor = Executor(Scripted(), "AAAUSDT", {}, told.append, count(1).__next__)
    executor.submit(
        [place("a"), place("b"), CancelOrder(client_oid="c", order_id="9", symbol="AAAUSDT")], stamps.append
    )
    await executor.drain()
    assert len(stamps) == 3


async def test_too_many_requests_under_way_refuse_placements() -> None:
    """A stall does not pile up orders: beyond the bound a placement is refused unsent."""
    venue = Scripted()
    venue.hold = asyncio.Event()
    told: list[Event] = []
    executor = Executor(venue, "AAAUSDT", {}, told.append, count(1).__next__)
    executor.submit([place(str(n)) for n in range(executors.REQUESTS_MAX + 3)])
    refused = [event.client_oid for event in told if isinstance(event, OrderRefused)]
    venue.hold.set()
    await executor.drain()
    assert len(refused) == 3
    assert len(venue.placed) == executors.REQUESTS_MAX


async def test_query_tells_fills_before_the_report() -> None:
    """The engine learns what was filled before it learns that the order ended."""
    venue = Scripted()
    venue.order = OrderState(
        client_oid="a",
        order_id="7",
        symbol="AAAUSDT",
        side=Side.BUY,
        kind=OrderKind.MARKET,
        size=D(1),
        filled=D(1),
        price=None,
        reduce_only=False,
        status=OrderStatus.FILLED,
        reason="",
    )
    told = await do(venue, QueryOrder(client_oid="a", symbol="AAAUSDT"))
    assert [type(event) for event in told] == [Filled, OrderReported]


async def test_query_of_an_unknown_order_tells_absence_and_no_more() -> None:
    """What the exchange does not know is told; whether that proves anything is the engine's to judge."""
    (event,) = await do(Scripted(), QueryOrder(client_oid="a", symbol="AAAUSDT"))
    assert isinstance(event, OrderAbsent)


@pytest.mark.parametrize("error", [ExchangeSilent("late"), ExchangeRefused("429", "Too Many Requests")])
async def test_query_without_answer_tells_nothing(error: ExchangeError) -> None:
    """A question that got no answer is no news: absence is not concluded from it."""
    venue = Scripted()
    venue.error = error
    assert await do(venue, QueryOrder(client_oid="a", symbol="AAAUSDT")) == []


async def test_cancel_tells_refusals_only() -> None:
    """That a cancellation worked is reported by the order itself."""
    venue = Scripted()
    cancel = CancelOrder(client_oid="a", order_id="7", symbol="AAAUSDT")
    assert await do(venue, cancel) == []
    venue.error = ExchangeRefused("22001", "No order to cancel")
    (event,) = await do(venue, cancel)
    assert isinstance(event, CancelRefused)


async def test_account_is_read_once_at_a_time() -> None:
    """Two questions for the account while one is under way are one reading."""
    venue = Scripted()
    (event,) = await do(venue, *[QueryAccount(reason=why, fills_since_ns=5_000_000) for why in "xy"])
    assert isinstance(event, Adopted)
    assert (event.equity_usdt, event.leverage, event.positions[0].size) == (D(10), {"AAAUSDT": 5}, D(-1))
    assert venue.truths == 1


async def test_account_brings_the_fills_that_could_be_missing() -> None:
    """The truth comes with the fills of every order since the time that the engine names."""
    venue = Scripted()
    (event,) = await do(venue, QueryAccount(reason="x", fills_since_ns=5_999_999))
    assert isinstance(event, Adopted)
    assert [fill.trade_id for fill in event.fills] == ["t"]
    assert venue.fills_asked == ("", 5)


def bill(name: str, at_s: int) -> FundingPaid:
    return FundingPaid(recv_ns=1, symbol="AAAUSDT", amount_usdt=D(1), bill_id=name, exch_ns=at_s * 10**9)


async def test_bills_come_once_and_before_the_account_that_holds_them() -> None:
    """Every reading tells the bills that are new, also one that is listed after younger ones, and looks no further back
    than a bill can be late."""
    venue, now_s = Scripted(), 1_760_000_000
    told: list[Event] = []
    executor = Executor(venue, "AAAUSDT", {}, told.append, count(now_s * 10**9).__next__)
    readings = (["a"], ["a", "b"], ["c", "a", "b"], ["c", "a", "b"])
    times = {"a": now_s + 10, "b": now_s + 4000, "c": now_s + 4000 - executors.BILLS_LATE_MS // 1000}
    for names in readings:
        venue.bills = [bill(name, times[name]) for name in names]
        executor.submit([QueryAccount(reason="x", fills_since_ns=5_000_000)])
        await executor.drain()

    assert [event.bill_id if isinstance(event, FundingPaid) else "account" for event in told] == [
        "a", "account", "b", "account", "c", "account", "account",
    ]  # fmt: skip
    assert venue.bills_from[0] == now_s * 1000 - executors.BILLS_FROM_BEFORE_MS
    assert venue.bills_from[-1] == (now_s + 4000) * 1000 - executors.BILLS_LATE_MS


async def test_account_is_read_when_placements_are_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading does not cross the orders of its own second: it waits for their answers, though not for ever."""
    monkeypatch.setattr(executors, "PUSHED_WITHIN_S", 0.01)
    venue = Scripted()
    venue.hold = asyncio.Event()
    told: list[Event] = []
    executor = Executor(venue, "AAAUSDT", {}, told.append, count(1).__next__)
    executor.submit([QueryAccount(reason="x", fills_since_ns=0), place()])
    asyncio.get_running_loop().call_later(0.05, venue.hold.set)
    await executor.drain()
    assert [type(event) for event in told] == [OrderAccepted, Adopted]

    monkeypatch.setattr(executors, "AT_REST_WITHIN_S", 0.01)
    venue.hold.clear()
    executor.submit([QueryAccount(reason="x", fills_since_ns=0), place("b")])
    while len(told) < 3:
        await asyncio.sleep(0)
    venue.hold.set()
    await executor.drain()
    assert [type(event) for event in told[2:]] == [Adopted, OrderAccepted]


async def test_bills_that_are_refused_leave_the_account_readable() -> None:
    """Without the right to read bills the truth is told all the same; without an answer nothing is, and is asked again."""
    venue = Scripted()
    venue.bills_error = ExchangeRefused("40014", "Incorrect permissions")
    (event,) = await do(venue, QueryAccount(reason="x", fills_since_ns=5_000_000))
    assert isinstance(event, Adopted)
    venue.bills_error = ExchangeSilent("late")
    assert await do(venue, QueryAccount(reason="x", fills_since_ns=5_000_000)) == []


async def test_account_without_answer_is_read_again_when_asked() -> None:
    """A failed reading leaves nothing behind that would stop the next one."""
    venue = Scripted()
    venue.error = ExchangeSilent("late")
    told: list[Event] = []
    executor = Executor(venue, "AAAUSDT", {}, told.append, count(1).__next__)
    for _ in range(2):
        executor.submit([QueryAccount(reason="x", fills_since_ns=5_000_000)])
        await executor.drain()
    assert told == []
    assert venue.truths == 2
