"""The exchange as an engine meets it over a network: actions go in, events come out in order of receipt.

Theory of operation

* One agenda, by time: requests on their way in, answers and pushes on their way out, funding, listings. Between two
  items the market moves: `_pass` takes in what the tape shows of the symbols that concern us, in order, and stops
  where something happened to us (its push is on the agenda then, and may come before everything else there).
* At one instant the market comes first, then requests in order of sending, as in hftbacktest.
* Symbols concern us while an order of ours rests there (`resting`) or a position is held there (`marks`), and of their
  rows only those that could do something. All others cost nothing. Whoever is followed says when it must be looked at
  again, and waits in a heap: a hundred holdings cost no more than those that have something to say.
* A request meets the book of its arrival, not of its decision, less what we took before (`impact`).
* Nothing is told that live would not be told: funding comes with a reading of the account alone, a lost answer is a
  time-out after `PATIENCE_NS`, a cancel that comes after the fill is refused.

Money, rules and orders are the venue's (`shared.simulator.venue`): Decimal, Bitget's codes.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Annotated

import msgspec

from pipelines.exact.impact import Impact, beyond
from pipelines.exact.latency import Draws, Latencies
from pipelines.exact.marks import Marks
from pipelines.exact.queues import QueueModel, RiskAverse
from pipelines.exact.resting import WHOLE, Resting
from pipelines.exact.tape import GONE_NS, NEVER_NS, Tape
from pipelines.venue_side import ACCOUNT, VenueSide, reported
from shared.errors import SettingsError
from shared.lake.layout import HOUR_NS
from shared.lake.tiers import Ladder
from shared.simulator.venue.orders import FeeTier, OrderReport, PlanReport, Refusal, VenueEvent
from shared.strategy.exact import ZERO
from shared.types import (
    NS,
    Action,
    CancelOrder,
    Contract,
    Event,
    Filled,
    FundingPaid,
    OrderAbsent,
    OrderAccepted,
    OrderKind,
    OrderRefused,
    OrderTimedOut,
    PlaceOrder,
    QueryAccount,
    QueryOrder,
    Side,
    Universe,
)

DAY_NS = 24 * HOUR_NS

PATIENCE_NS = 5 * NS
"""Live asks for what was not answered by then (`live.session.REQUEST_TIMEOUT_S`)."""

PUSHED_NS = NS // 5
"""Live reads the account no sooner than this after its last placement was answered (`live.executor`)."""

HalfLife = Annotated[float, msgspec.Meta(ge=0.0, le=86_400.0)]

RESTING_KINDS = (OrderKind.LIMIT, OrderKind.POST_ONLY)

MARKS_RANK = 1 << 62

TIGHT = 3
"""Equity of so many times the maintenance margin is not lost between two looks, a second apart at the most."""


class Assumptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the exact tier takes for granted: printed in its report, because no recording says it."""

    latencies: Latencies = Latencies()
    queue: QueueModel = RiskAverse()
    impact_half_life_s: HalfLife = 10.0  # of what our takers took; 0: they leave no trace
    fee_tiers: tuple[FeeTier, ...] = ()  # (): the contracts' own fees
    volume_before_usdt: Decimal = ZERO  # traded by the account in the month before

    def words(self) -> str:
        """Return them in one line."""
        impact = f"half-life {self.impact_half_life_s:g} s" if self.impact_half_life_s else "none"
        medians = ", ".join(
            f"{name} {getattr(self.latencies, name).quantile_ms(0.5):g} ms"
            for name in ("decide", "entry", "answer", "push")
        )
        queue = self.queue.words()
        return f"median latencies {medians}; queue {queue}; impact {impact}; fee tiers {len(self.fee_tiers)}"


def load(path: Path) -> Assumptions:
    """Return the assumptions of a JSON file; what it leaves out is as by default.

    Raises:
        SettingsError: it cannot be read, or says something that means nothing.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Assumptions)
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(
            f"assumptions must be a JSON file as python -m pipelines.exact.measured writes it, found {path}: {error}: "
            "correct it, or leave it out"
        ) from None


class Change(msgspec.Struct, frozen=True):
    """Rules of a symbol from a time on."""

    at_ns: int
    contract: Contract
    is_gone: bool  # taken off the exchange: what is held is settled


class Exchange(VenueSide):
    """One account, its orders and positions, behind the latencies.

    Args:
        universe: every symbol that is listed at some time; who is not yet has status "listed".
        start_ns: of the run; no event and no action lies before it.
        changes: of rules and listings, oldest first.
        ladders: maintenance tiers, where they are known.
    """

    def __init__(
        self,
        universe: Universe,
        equity_usdt: Decimal,
        leverage: int,
        *,
        tape: Tape,
        assumptions: Assumptions,
        seed: int,
        start_ns: int,
        changes: Iterable[Change] = (),
        ladders: dict[str, Ladder] | None = None,
        keeps_executions: bool = False,
    ) -> None:
        super().__init__(universe, equity_usdt, leverage, keeps_executions=keeps_executions)
        for symbol, ladder in (ladders or {}).items():
            self.venue.set_tiers(symbol, ladder.tiers)
        if assumptions.fee_tiers:
            self.venue.rules = msgspec.structs.replace(self.venue.rules, fee_tiers=assumptions.fee_tiers)
            self.venue.note_traded(ACCOUNT, start_ns // DAY_NS - 1, assumptions.volume_before_usdt)
        self._tape, self._assumptions = tape, assumptions
        self._draws = Draws(assumptions.latencies, seed)
        self._impact = Impact(assumptions.impact_half_life_s)
        self._agenda: list[tuple[int, int, Event | Callable[[int], None]]] = []
        self._n_items = 0
        self._now_ns = start_ns  # of the market: everything up to and including it has happened
        self._resting: dict[str, dict[str, Resting]] = {}  # symbol -> order id -> it; no empty ones
        self._unmatched: set[str] = set()
        self._marks: dict[str, Marks] = {}  # of held symbols
        self._news_ns = NEVER_NS  # before which the venue knows what they are worth
        self._waiting: list[tuple[int, int, int, Resting | Marks]] = []  # (due, rank, n, who); stale once due differs
        self._n_waiting = 0
        self._n_followed = 0
        self._is_tight = False
        self._may_be_tight = True  # something has moved since it was looked at
        self._pushed_ns = start_ns
        self._at_rest_ns = start_ns  # when every placement so far has been answered and told
        self._bills: list[FundingPaid] = []  # not told yet
        self.fills: list[Filled] = []  # as they happened, `recv_ns` = when
        self.venue.settle_funding(start_ns)
        self._plan((start_ns // HOUR_NS + 1) * HOUR_NS, self._fund)
        for change in changes:
            self._plan(max(change.at_ns, start_ns), partial(self._change, change))

    # ------------------------------------------------------------------------------------------------- outside

    def send(self, action: Action, now_ns: int) -> None:
        """Take a request that leaves us now."""
        assert now_ns >= self._now_ns, f"sent at {now_ns}, the market is at {self._now_ns}"
        trip = self._draws.trip(_name(action), now_ns)
        answered_ns = now_ns + trip.answered_ns
        if isinstance(action, PlaceOrder):
            self.orders += 1
            is_lost = trip.is_lost or trip.answered_ns > PATIENCE_NS
            if is_lost:
                answered_ns = now_ns + PATIENCE_NS
                self._tell(OrderTimedOut(recv_ns=answered_ns, client_oid=action.client_oid))
            self._at_rest_ns = max(self._at_rest_ns, answered_ns + PUSHED_NS)
            place = partial(self._place, action, None if is_lost else answered_ns, now_ns + trip.matched_ns)
            self._plan(now_ns + trip.accepted_ns, place)
        elif isinstance(action, CancelOrder):
            self._plan(now_ns + trip.matched_ns, partial(self._cancel, action, answered_ns))
        elif isinstance(action, QueryOrder):
            self._plan((now_ns + answered_ns) // 2, partial(self._query, action, answered_ns))
        elif isinstance(action, QueryAccount):
            wait_ns = max(self._at_rest_ns - now_ns, 0)
            read = partial(self._read_account, action.fills_since_ns, answered_ns + wait_ns)
            self._plan((now_ns + answered_ns) // 2 + wait_ns, read)
        else:
            raise TypeError(f"no request: {type(action).__name__}")

    def next_event(self, until_ns: int) -> Event | None:
        """Return what we are told next, None where nothing comes up to and including `until_ns`.

        Then the market is at `until_ns`, and so is the account's equity.
        """
        while True:
            due_ns = min(self._agenda[0][0], until_ns) if self._agenda else until_ns
            if self._pass(due_ns):
                continue
            if not self._agenda or self._agenda[0][0] > until_ns:
                self._look_at_margin()
                if self._value(until_ns):
                    continue
                return None
            now_ns, _, item = heapq.heappop(self._agenda)
            if isinstance(item, Event):
                return item
            item(now_ns)

    # ---------------------------------------------------------------------------------------------- the agenda

    def _plan(self, at_ns: int, item: Event | Callable[[int], None]) -> None:
        self._n_items += 1
        heapq.heappush(self._agenda, (at_ns, self._n_items, item))

    def _tell(self, event: Event) -> None:
        self._plan(event.recv_ns, event)

    def _place(self, action: PlaceOrder, answered_ns: int | None, matched_ns: int, now_ns: int) -> None:
        """An order reaches the exchange: it is taken or refused."""
        self._mark(action.symbol, now_ns)
        if action.price is None or not self.venue.has_mark(action.symbol):
            self._show(action.symbol, now_ns)  # by which it is judged
        self._value(now_ns)
        answer = self._placed(action, now_ns, matches=False)
        oid = action.client_oid
        if isinstance(answer, Refusal):
            if answered_ns is not None:
                self._tell(OrderRefused(recv_ns=answered_ns, client_oid=oid, code=answer.code, message=answer.message))
            return
        if answered_ns is not None:
            self._tell(OrderAccepted(recv_ns=answered_ns, client_oid=oid, order_id=answer.order_id))
        if matched_ns <= now_ns:
            self._match(action.symbol, answer.order_id, now_ns)
            return
        self._unmatched.add(answer.order_id)
        self._happened(now_ns)
        self._plan(matched_ns, partial(self._match, action.symbol, answer.order_id))

    def _match(self, symbol: str, order_id: str, now_ns: int) -> None:
        self._unmatched.discard(order_id)
        self._show(symbol, now_ns)
        self.venue.match(ACCOUNT, order_id, now_ns)
        if not self._happened(now_ns):
            self._follow(symbol, now_ns)  # it has come to rest, of which nobody is told

    def _cancel(self, action: CancelOrder, answered_ns: int, now_ns: int) -> None:
        # The cancel of a fill is answered once matching has seen it.
        refused = self._canceled(action, now_ns, answered_ns=max(answered_ns, now_ns))
        if refused is not None:
            self._tell(refused)
        self._happened(now_ns)

    def _query(self, action: QueryOrder, answered_ns: int, now_ns: int) -> None:
        order = self._asked_for(action)
        if order is None:
            self._tell(OrderAbsent(recv_ns=answered_ns, client_oid=action.client_oid))
            return
        for fill in self._fills_since(order.created_ns):
            if fill.order_id == order.order_id:
                self._tell(msgspec.structs.replace(fill, recv_ns=answered_ns))
        self._tell(reported(order, answered_ns))

    def _read_account(self, fills_since_ns: int, answered_ns: int, now_ns: int) -> None:
        bills, self._bills = self._bills, []
        for bill in bills:
            self._tell(msgspec.structs.replace(bill, recv_ns=answered_ns))
        since = tuple(msgspec.structs.replace(fill, recv_ns=answered_ns) for fill in self._fills_since(fills_since_ns))
        self._tell(msgspec.structs.replace(self.adopted(answered_ns), fills=since))

    def _fills_since(self, at_ns: int) -> list[Filled]:
        """Return the fills from a time on: a day has made a hundred thousand, and an account is read every minute."""
        return self.fills[bisect_left(self.fills, at_ns, key=attrgetter("exch_ns")) :]

    def _fund(self, now_ns: int) -> None:
        self._value(now_ns)
        self.venue.settle_funding(now_ns)
        self._happened(now_ns)
        self._plan(now_ns + HOUR_NS, self._fund)

    def _change(self, change: Change, now_ns: int) -> None:
        self.venue.set_contract(change.contract)
        self._may_be_tight = True
        if change.is_gone:
            self.venue.delist(change.contract.symbol, now_ns)
            self._happened(now_ns)

    # ---------------------------------------------------------------------------------------------- the market

    def _pass(self, until_ns: int) -> bool:
        """Let the market move up to and including a time; True as soon as something has happened to us."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= until_ns:
            at_ns, _, _, first = heapq.heappop(waiting)
            if first.due_ns != at_ns:
                continue  # it waits for something else by now, or for nothing
            first.due_ns = GONE_NS
            if first.next_ns > at_ns:  # nothing is known of it from here on
                first.look(self._tape.block(first.symbol, at_ns))
                self._wait(first)
            elif isinstance(first, Resting):
                # Before the next one is due, the first goes on alone.
                alone_ns = max(waiting[0][0] - 1, at_ns) if waiting else until_ns
                steps, self._now_ns = first.take(min(alone_ns, until_ns))
                self._wait(first)
                if steps and self._fill(first, steps, self._now_ns):
                    return True
            else:
                self._now_ns = at_ns
                first.pass_alarm()
                self._wait(first)
                if self._value(at_ns):
                    return True
        self._now_ns = max(self._now_ns, until_ns)
        return False

    def _wait(self, followed: Resting | Marks) -> None:
        """Put who is followed where its next turn is. At one instant orders come before marks, the oldest first."""
        due_ns = followed.wakes_ns()
        if due_ns == followed.due_ns:
            return
        followed.due_ns = due_ns
        if due_ns < NEVER_NS:
            self._n_waiting += 1
            heapq.heappush(self._waiting, (due_ns, followed.rank, self._n_waiting, followed))

    def _fill(self, resting: Resting, steps: int, now_ns: int) -> bool:
        order = self.venue.order(ACCOUNT, order_id=resting.order_id)
        assert order is not None, resting.order_id
        self._show(resting.symbol, now_ns)
        size = order.remaining
        if steps < WHOLE:
            size = min(size, steps * self.venue.contracts[resting.symbol].size_step)
        self.venue.fill_resting(ACCOUNT, resting.order_id, size, now_ns)
        return self._happened(now_ns)

    def _show(self, symbol: str, now_ns: int) -> None:
        """Show the venue the book of one symbol as it is for us now."""
        block = self._tape.block(symbol, now_ns)
        row = block.book_at(now_ns)
        if row < 0:
            self.venue.show_book(symbol, (), ())
            return
        # Copies: who keeps a book would keep the block of a quarter of an hour with it.
        bids, asks = self._last_book[symbol] = block.bids[row].copy(), block.asks[row].copy()
        step = self.venue.contracts[symbol].size_step
        self.venue.show_book(
            symbol,
            beyond(bids, self._impact.owed(symbol, Side.BUY, step, now_ns)),
            beyond(asks, self._impact.owed(symbol, Side.SELL, step, now_ns)),
        )

    def _value(self, now_ns: int) -> bool:
        """Tell the venue what everything that is held is worth now; True where a stop or a liquidation followed."""
        if now_ns < self._news_ns:
            return False
        news, self._news_ns = [], NEVER_NS
        for symbol, marks in self._marks.items():
            if marks.known_until_ns <= now_ns:
                told = marks.news(self._tape.block(symbol, now_ns), now_ns)
                if told is not None:
                    news.append(told)
                    if not self._is_tight and marks.is_alarm(told[1]):
                        self._show(symbol, now_ns)  # what a stop of it will meet
            self._news_ns = min(self._news_ns, marks.known_until_ns)
        if not news:
            return False
        self._may_be_tight = True
        if self._is_tight:
            for symbol in self._marks:
                self._show(symbol, now_ns)
        self.venue.set_marks(news, now_ns)
        return self._happened(now_ns)

    def _mark(self, symbol: str, now_ns: int) -> None:
        """Tell the venue the mark of a symbol that is not held: what is ordered is checked against it."""
        block = self._tape.block(symbol, now_ns)
        row = block.mark_at(now_ns)
        if row >= 0 and symbol not in self._marks:
            self.venue.set_mark(symbol, block.mark.item(row), block.index.item(row), block.rate.item(row), now_ns)

    def _look_at_margin(self) -> None:
        """See whether liquidation is so near that no mark may be passed over."""
        if not self._may_be_tight:
            return
        self._may_be_tight = is_tight = False
        if self._marks:
            is_tight = self.venue.cross_equity(ACCOUNT) < TIGHT * self.venue.maintenance(ACCOUNT)
        if is_tight is not self._is_tight:
            self._is_tight = is_tight
            for marks in self._marks.values():
                self._guard(marks)

    def _guard(self, marks: Marks) -> None:
        """Let the marks of a held symbol know which of them matter."""
        plans = self.venue.plans.pending(ACCOUNT, marks.symbol)
        marks.guard(plans, is_tight=self._is_tight, now_ns=self._now_ns)
        self._wait(marks)

    # ------------------------------------------------------------------------------------ what happened to us

    def _happened(self, now_ns: int) -> bool:
        """Put what the venue has to tell on its way; True where there is something."""
        drained = self.venue.drain()
        if not drained:
            return False
        told = self._events_of(drained)
        if not told:
            return False
        self._may_be_tight = True
        self._pushed_ns = max(self._pushed_ns, now_ns + self._draws.push_ns(now_ns))
        for event in told:
            if isinstance(event, FundingPaid):
                self._bills.append(event)
                continue
            if isinstance(event, Filled):
                self.fills.append(event)
                if not event.is_maker:
                    self._impact.took(event.symbol, event.side, event.size, now_ns)
            self._tell(msgspec.structs.replace(event, recv_ns=self._pushed_ns))
        for symbol in dict.fromkeys(map(_symbol_of, drained)):
            self._follow(symbol, now_ns)
        return True

    def _follow(self, symbol: str, now_ns: int) -> None:
        """See to it that exactly what rests and what is held of a symbol is followed."""
        rests = {
            order.order_id: order
            for order in self.venue.pending(ACCOUNT, symbol)
            if order.kind in RESTING_KINDS and order.order_id not in self._unmatched
        }
        followed = self._resting.setdefault(symbol, {})
        for order_id in [order_id for order_id in followed if order_id not in rests]:
            followed.pop(order_id).due_ns = GONE_NS
        for order_id, order in rests.items():
            if order_id not in followed:
                assert order.price is not None
                followed[order_id] = Resting(
                    order_id,
                    symbol,
                    order.side,
                    float(order.price),
                    step=float(self.venue.contracts[symbol].size_step),
                    model=self._assumptions.queue,
                    block=self._tape.block(symbol, now_ns),
                    now_ns=now_ns,
                    rank=self._next_rank(),
                )
                self._wait(followed[order_id])
        if not followed:
            del self._resting[symbol]
        marks = self._marks.get(symbol)
        if self.venue.position(ACCOUNT, symbol) is None:
            if marks is not None:
                self._marks.pop(symbol).due_ns = GONE_NS
            return
        if marks is None:
            marks = self._marks[symbol] = Marks(symbol, now_ns, rank=MARKS_RANK + self._next_rank())
            self._news_ns = now_ns
        self._guard(marks)

    def _next_rank(self) -> int:
        self._n_followed += 1
        return self._n_followed


def _symbol_of(event: VenueEvent) -> str:
    if isinstance(event, OrderReport):
        return event.order.symbol
    return event.plan.request.symbol if isinstance(event, PlanReport) else event.symbol


def _name(action: Action) -> str:
    oid = action.client_oid if isinstance(action, PlaceOrder | CancelOrder | QueryOrder) else ""
    return f"{type(action).__name__} {oid}"
