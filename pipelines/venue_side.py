"""The exchange as the backtest's engine meets it: actions in, events out, one row of the market at a time.

An action decided on row s (known at s + 1) meets the book of row s + 1, which is what a label assumes and what a second
of latency does. Five levels a side are visible; what is taken stays taken until the symbol's next row. A resting order
fills at its price when the opposite touch reaches it; its place in a queue is not simulated from seconds, and neither
is what trades between two rows: a post-only entry fills later and worse here than a patient one would.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from pipelines.trades import Execution
from shared.features.sampler import COLUMNS
from shared.simulator.venue.orders import (
    Accepted,
    Fill,
    FundingReport,
    Order,
    OrderReport,
    OrderRequest,
    Refusal,
    VenueEvent,
)
from shared.simulator.venue.venue import Venue
from shared.strategy.exact import decimal_of
from shared.types import (
    NS,
    Action,
    Adopted,
    CancelOrder,
    CancelRefused,
    Event,
    Filled,
    Floats,
    FundingPaid,
    OrderAbsent,
    OrderAccepted,
    OrderRefused,
    OrderReported,
    PendingOrder,
    PlaceOrder,
    Position,
    QueryAccount,
    QueryOrder,
    Universe,
)

ACCOUNT = "backtest"
LEVELS = 5


_AT = {name: c for c, name in enumerate(COLUMNS)}


def _cells(side: str) -> NDArray[np.intp]:
    levels = range(1, LEVELS + 1)
    return np.array([[_AT[f"{side}_price_{k}"], _AT[f"{side}_size_{k}"]] for k in levels], np.intp)


BIDS, ASKS = _cells("bid"), _cells("ask")
_BID_COLUMNS, _ASK_COLUMNS = (slice(int(cells[0, 0]), int(cells[0, 0]) + 2 * LEVELS) for cells in (BIDS, ASKS))
_MARK, _INDEX, _RATE = (_AT[name] for name in ("mark", "index", "funding_rate"))


class Tape:
    """A block of seconds as the venue reads it: books and marks by row and symbol.

    Args:
        values: (C, T, N) in the order of `sampler.COLUMNS`.
    """

    def __init__(self, values: Floats) -> None:
        assert len(values) == len(COLUMNS), f"a block has {len(COLUMNS)} columns, found {len(values)}"
        self._values = values

    def bids(self, t: int, n: int) -> Floats:
        """Return the visible bids, (LEVELS, 2): price, size."""
        # A slice and a copy of ten numbers (the block is overwritten, a book is kept): picking cells by BIDS takes
        # three times as long, and each row asks for every holding.
        return self._values[_BID_COLUMNS, t, n].copy().reshape(2, LEVELS).T

    def asks(self, t: int, n: int) -> Floats:
        return self._values[_ASK_COLUMNS, t, n].copy().reshape(2, LEVELS).T

    def mark(self, t: int, n: int) -> tuple[float, float, float]:
        """Return mark, index and running funding rate."""
        values = self._values
        return values.item(_MARK, t, n), values.item(_INDEX, t, n), values.item(_RATE, t, n)


class VenueSide:
    """One account at a venue of its own."""

    def __init__(
        self, universe: Universe, equity_usdt: Decimal, leverage: int, *, keeps_executions: bool = False
    ) -> None:
        self.venue = Venue(universe.contracts)
        self.venue.open_account(ACCOUNT, equity_usdt)
        self._at = universe.index()
        self._leverage: dict[str, int] = {}
        for contract in universe.contracts:
            obtained = self.venue.set_leverage(ACCOUNT, contract.symbol, min(leverage, contract.leverage_max))
            if isinstance(obtained, int):
                self._leverage[contract.symbol] = obtained
        self._last_book: dict[str, tuple[Floats, Floats]] = {}  # that the venue was shown
        self._whole_book: dict[str, tuple[Floats, Floats]] = {}  # the last one of both sides
        self.refusals: dict[str, int] = {}  # "code message" -> how often
        self.exits_refused: dict[str, str] = {}  # symbol -> why the last exit of it was, "code message"
        self.orders = 0
        self.executions: list[Execution] = []  # every fill with its book; [] unless they are kept
        self._keeps_executions = keeps_executions

    @property
    def equity_usdt(self) -> Decimal:
        return self.venue.equity(ACCOUNT)

    @property
    def is_flat(self) -> bool:
        return not self.venue.positions(ACCOUNT) and not self.venue.pending(ACCOUNT)

    def adopted(self, now_ns: int) -> Adopted:
        """Return the account's truth, as live reads it at its start."""
        positions = tuple(
            Position(symbol=held.symbol, size=held.size, entry_price=held.entry_price)
            for held in self.venue.positions(ACCOUNT)
        )
        orders = tuple(
            PendingOrder(
                client_oid=order.client_oid,
                order_id=order.order_id,
                symbol=order.symbol,
                side=order.side,
                kind=order.kind,
                size=order.size,
                filled=order.filled,
                price=order.price,
                reduce_only=order.reduce_only,
            )
            for order in self.venue.pending(ACCOUNT)
        )
        return Adopted(
            recv_ns=now_ns,
            equity_usdt=self.equity_usdt,
            available_usdt=self.venue.available(ACCOUNT),
            positions=positions,
            orders=orders,
            leverage=dict(self._leverage),
        )

    def row(
        self, tape: Tape, t: int, actions: Sequence[Action], now_ns: int, *, keep_books: bool = False
    ) -> list[Event]:
        """Show row t to what is held, working or wanted, then do what was decided on the row before.

        Args:
            actions: in the order the engine gave them.
            now_ns: end of the row's second.
            keep_books: a symbol without a book, however long it has had none, is shown the last one that it had (the
                end of a window, where all must be closed).
        """
        touched = {a.symbol for a in actions if isinstance(a, PlaceOrder)}
        touched |= {held.symbol for held in self.venue.positions(ACCOUNT)}
        touched |= {order.symbol for order in self.venue.pending(ACCOUNT)}
        marks: list[tuple[str, float | Decimal, float, float]] = []
        for symbol in sorted(touched):
            n = self._at[symbol]
            bids, asks = tape.bids(t, n), tape.asks(t, n)
            mark: float | Decimal
            mark, index, rate = tape.mark(t, n)
            if math.isfinite(bids.item(0)) and math.isfinite(asks.item(0)):
                self._whole_book[symbol] = bids, asks
                if mark != mark:  # NaN: valued as the engine values it, by the mid, not by a mark of long ago
                    mark = (decimal_of(bids.item(0)) + decimal_of(asks.item(0))) / 2
            elif keep_books:
                bids, asks = self._whole_book.get(symbol, (bids, asks))
            self._last_book[symbol] = bids, asks
            self.venue.set_book(symbol, bids, asks, now_ns)
            marks.append((symbol, mark, index, rate))
        self.venue.set_marks(marks, now_ns)
        self.venue.settle_funding(now_ns)
        events = self._drained()
        for action in actions:
            events += self.execute(action, now_ns)
        return events

    def execute(self, action: Action, now_ns: int) -> list[Event]:
        """Do one action and return its answer and all that followed from it."""
        answers: list[Event] = []
        if isinstance(action, PlaceOrder):
            self.orders += 1
            answer = self._placed(action, now_ns, matches=True)
            if isinstance(answer, Refusal):
                answers.append(
                    OrderRefused(recv_ns=now_ns, client_oid=action.client_oid, code=answer.code, message=answer.message)
                )
            else:
                answers.append(OrderAccepted(recv_ns=now_ns, client_oid=action.client_oid, order_id=answer.order_id))
        elif isinstance(action, CancelOrder):
            refused = self._canceled(action, now_ns, answered_ns=now_ns)
            answers += [] if refused is None else [refused]
        elif isinstance(action, QueryOrder):
            order = self._asked_for(action)
            if order is None:
                answers.append(OrderAbsent(recv_ns=now_ns, client_oid=action.client_oid))
            else:
                answers.append(reported(order, now_ns))
        elif isinstance(action, QueryAccount):
            answers.append(self.adopted(now_ns))
        return answers + self._drained()

    def _placed(self, action: PlaceOrder, now_ns: int, *, matches: bool) -> Accepted | Refusal:
        """Bring an order to the venue; what it is to close itself bears no name of ours there."""
        if action.is_flash:
            done, failed = self.venue.close_at_market(ACCOUNT, now_ns, action.symbol, matches=matches)
            answer = done[0] if done else failed[0][1]
        elif matches:
            answer = self.venue.place(ACCOUNT, request_of(action), now_ns)
        else:
            answer = self.venue.accept(ACCOUNT, request_of(action), now_ns)
        if isinstance(answer, Refusal):
            self._count(answer)
        if action.reduce_only:
            self._note_exit(action.symbol, answer)
        return answer

    def _note_exit(self, symbol: str, answer: Accepted | Refusal) -> None:
        if isinstance(answer, Refusal):
            self.exits_refused[symbol] = f"{answer.code} {answer.message}"
        else:
            self.exits_refused.pop(symbol, None)

    def _asked_for(self, query: QueryOrder) -> Order | None:
        """Return the order that a question is about, None where the venue does not know it."""
        return self.venue.order(ACCOUNT, order_id=query.order_id or None, client_oid=query.client_oid)

    def _canceled(self, action: CancelOrder, now_ns: int, *, answered_ns: int) -> CancelRefused | None:
        """Cancel an order; return the refusal, None where there is none."""
        outcome = self.venue.cancel(
            ACCOUNT, action.symbol, now_ns, order_id=action.order_id or None, client_oid=action.client_oid or None
        )
        if isinstance(outcome, Accepted):
            return None
        self._count(outcome)
        return CancelRefused(
            recv_ns=answered_ns, client_oid=action.client_oid, code=outcome.code, message=outcome.message
        )

    def _drained(self) -> list[Event]:
        return self._events_of(self.venue.drain())

    def _events_of(self, drained: Iterable[VenueEvent]) -> list[Event]:
        events: list[Event] = []
        for told in drained:
            if isinstance(told, Fill):
                if self._keeps_executions:
                    self._keep(told)
                events.append(
                    Filled(
                        recv_ns=told.time_ns,
                        client_oid=told.client_oid,
                        order_id=told.order_id,
                        trade_id=told.trade_id,
                        symbol=told.symbol,
                        side=told.side,
                        price=told.price,
                        size=told.size,
                        fee_usdt=told.fee_usdt,
                        is_maker=told.is_maker,
                        exch_ns=told.time_ns,
                    )
                )
            elif isinstance(told, FundingReport):
                events.append(
                    FundingPaid(
                        recv_ns=told.time_ns,
                        symbol=told.symbol,
                        amount_usdt=told.amount_usdt,
                        bill_id=told.bill_id,
                        exch_ns=told.time_ns,
                    )
                )
            elif isinstance(told, OrderReport):
                events.append(reported(told.order, told.time_ns))
        return events

    def _keep(self, fill: Fill) -> None:
        bids, asks = self._last_book[fill.symbol]
        self.executions.append(
            Execution(
                symbol=fill.symbol,
                sign=fill.side.sign,
                time_ns=fill.time_ns,
                price=float(fill.price),
                size=float(fill.size),
                fee_usdt=float(fill.fee_usdt),
                is_maker=fill.is_maker,
                bids=bids,
                asks=asks,
            )
        )

    def _count(self, refusal: Refusal) -> None:
        name = f"{refusal.code} {refusal.message}"
        self.refusals[name] = self.refusals.get(name, 0) + 1


def request_of(action: PlaceOrder) -> OrderRequest:
    """Return a placement as the venue takes it."""
    return OrderRequest(
        symbol=action.symbol,
        side=action.side,
        kind=action.kind,
        size=action.size,
        price=action.price,
        reduce_only=action.reduce_only,
        client_oid=action.client_oid,
        stop_loss=action.stop_price,
    )


def reported(order: Order, now_ns: int) -> OrderReported:
    """Return what the venue knows of an order as the event that tells it."""
    return OrderReported(
        recv_ns=now_ns,
        client_oid=order.client_oid,
        order_id=order.order_id,
        status=order.status,
        filled=order.filled,
        reason=order.cancel_reason,
    )


def end_of(second: int) -> int:
    """Return when a second's row is known, ns."""
    return (second + 1) * NS
