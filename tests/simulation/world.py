"""Seeded worlds: the engine against the venue, over wires that delay, lose, repeat and never answer.

Discrete events on one virtual clock: the market moves, requests arrive, pushes come back, each at its time. Everything
random comes from one generator, so a failure is a seed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from decimal import Decimal

import msgspec
import numpy as np

from shared.simulator.venue.orders import Accepted, Fill, FundingReport, Order, OrderReport, OrderRequest, Refusal
from shared.simulator.venue.venue import Venue
from shared.strategy.engine import Engine, EngineConfig
from shared.strategy.scores import CoinScorer, Scorer, Scores
from shared.types import (
    NS,
    Action,
    Adopted,
    CancelOrder,
    CancelRefused,
    Event,
    Filled,
    FundingPaid,
    LinkChanged,
    OrderAbsent,
    OrderAccepted,
    OrderRefused,
    OrderReported,
    OrderTimedOut,
    PendingOrder,
    PlaceOrder,
    Position,
    QueryAccount,
    QueryOrder,
    SecondClosed,
    StopRequested,
    Universe,
)
from tests.shared.strategy.made import AT, columns, universe

MS = 1_000_000
START_S = 1_760_000_000 // 28_800 * 28_800 - 30  # half a minute before a funding time
US = "us"


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """How the wires misbehave; fractions are probabilities per message [1]."""

    lost_answer: float = 0.0  # the placement arrives, its answer does not
    lost_request: float = 0.0  # the placement never arrives
    late_request: float = 0.0  # the placement arrives up to 30 s later
    refused: float = 0.0
    lost_push: float = 0.0
    repeated_push: float = 0.0
    silent_query: float = 0.0
    latency_ms_max: int = 50
    bill_delay_s_max: int = 0  # between a settlement and the bill that tells of it
    private_drops: float = 0.0  # per second: the private stream goes down for up to 5 s


BAD_WIRES = Faults(
    lost_answer=0.1,
    lost_request=0.05,
    late_request=0.05,
    refused=0.05,
    lost_push=0.1,
    repeated_push=0.2,
    silent_query=0.2,
    latency_ms_max=800,
    bill_delay_s_max=30,
    private_drops=0.02,
)


class World:
    """One engine, one venue, one clock."""

    def __init__(
        self,
        seed: int,
        *,
        n_symbols: int = 6,
        listed: Universe | None = None,
        config: EngineConfig | None = None,
        faults: Faults | None = None,
        is_coin: bool = True,
        volatility: float = 5e-4,
        level_size_max: float = 5.0,
    ) -> None:
        self.random = np.random.default_rng(seed)
        self.faults = faults if faults is not None else Faults()
        self.volatility = volatility
        self.level_size_max = level_size_max
        self.universe: Universe = listed if listed is not None else universe(n_symbols)
        n_symbols = len(self.universe.symbols)
        self.symbols = self.universe.symbols
        self.venue = Venue(self.universe.contracts)
        self.venue.open_account(US, Decimal(10_000))
        for symbol in self.symbols:
            self.venue.set_leverage(US, symbol, 5)
        config = config if config is not None else EngineConfig(horizon_s=5, cooldown_s=1)
        self.is_coin = is_coin
        self.at_rest: Callable[[World], None] | None = None  # called whenever nothing is under way
        scorer: Scorer = CoinScorer(seed) if is_coin else _Opinions()
        self.engine = Engine(config, self.universe, scorer, session=f"world-{seed}", seed=seed)
        self.mid = np.round(self.random.uniform(5, 500, n_symbols), 2)
        self.now_ns = START_S * NS
        self.second = START_S
        self.block = columns(n_symbols, self.mid)
        self.actions: list[Action] = []
        self.placed: dict[str, PlaceOrder] = {}
        self.events: list[Event] = []  # what the engine was told, in order
        self.in_flight = 0  # private pushes and answers that have not arrived
        self.is_private_up = True
        self.filled: dict[str, Decimal] = {}  # client_oid -> size at the venue
        self.flashed: dict[str, str] = {}  # order id of a flash close -> its client_oid with the engine
        self._bills: list[tuple[int, FundingReport]] = []  # when it is listed, what was paid; nobody pushes them
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._move_market()
        self.venue.settle_funding(self.now_ns)
        self.tell(self._truth())
        for link in ("public", "private"):
            self.tell(LinkChanged(recv_ns=self.now_ns, link=link, is_up=True))

    # ------------------------------------------------------------------------------------------------- the clock

    def at(self, time_ns: int, do: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (time_ns, self._sequence, do))

    def run(self, seconds: int, check: Callable[[World], None] | None = None) -> None:
        """Let so many seconds pass; `check` is called before each closes, and must find the ledger at rest or not."""
        for _ in range(seconds):
            close_ns = (self.second + 1) * NS
            self._until(close_ns - 1)
            if check is not None:
                check(self)
            self.now_ns = close_ns
            self.venue.settle_funding(self.now_ns)  # before what fills at this very instant
            self._move_market()
            said = None if self.is_coin else self._opinions()
            self.tell(SecondClosed(recv_ns=close_ns, second=self.second, columns=self.block, scores=said))
            self.second += 1
            if self.random.random() < self.faults.private_drops and self.is_private_up:
                self._drop_private()

    def stop(self, patience_s: int = 120) -> None:
        """Ask for a clean stop and wait until the engine is flat and quiet."""
        self.tell(StopRequested(recv_ns=self.now_ns, reason="the world ends"))
        for _ in range(patience_s):
            if self.engine.is_flat_and_quiet:
                break
            self.run(1)
        self._until(self.now_ns + 40 * NS)  # whatever is still under way arrives

    def _until(self, end_ns: int) -> None:
        while self._heap and self._heap[0][0] <= end_ns:
            time_ns, _, do = heapq.heappop(self._heap)
            self.now_ns = max(self.now_ns, time_ns)
            do()

    def _latency_ns(self) -> int:
        return int(self.random.integers(1, self.faults.latency_ms_max + 1)) * MS

    def _happens(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    # ------------------------------------------------------------------------------------------------ the market

    def _move_market(self) -> None:
        n = len(self.symbols)
        self.mid = np.maximum(np.round(self.mid * (1 + self.random.normal(0, self.volatility, n)), 2), 1.0)
        self.block = columns(n, self.mid)
        self.block[AT["mark"]] = np.round(self.mid * (1 + self.random.normal(0, 1e-5, n)), 4)
        self.block[AT["funding_rate"]] = np.round(self.random.normal(0, 1e-4, n), 6)
        sizes = self.random.uniform(0.05, self.level_size_max, (2, 5, n)).round(2)
        for level in range(1, 6):
            self.block[AT[f"bid_size_{level}"]] = sizes[0, level - 1]
            self.block[AT[f"ask_size_{level}"]] = sizes[1, level - 1]
        for k, symbol in enumerate(self.symbols):
            sides: list[list[tuple[float, float]]] = []
            for side in ("bid", "ask"):
                rows = [
                    (float(self._value(f"{side}_price_{i}", k)), float(self._value(f"{side}_size_{i}", k)))
                    for i in range(1, 6)
                ]
                sides.append(rows)
            self.venue.set_book(symbol, sides[0], sides[1], self.now_ns)
            mark = float(self._value("mark", k))
            self.venue.set_mark(symbol, mark, mark, float(self._value("funding_rate", k)), self.now_ns)
        self._push_all()

    def _value(self, name: str, n: int) -> float:
        return float(self.block[AT[name], n])

    def _opinions(self) -> Scores:
        """Return opinions that are sure, and often wrong."""
        n = len(self.symbols)
        sign = self.random.integers(-1, 2, n).astype(np.int8)
        p_long = np.where(sign > 0, 0.9, 0.05)
        p_short = np.where(sign < 0, 0.9, 0.05)
        edge = sign * self.random.uniform(10, 60, n)
        return Scores(
            p_long, p_short, 1 - p_long - p_short, edge, sign, np.maximum(p_long, p_short), np.ones(n, np.bool_)
        )

    # ------------------------------------------------------------------------------------------------- the wires

    def tell(self, event: Event) -> None:
        """Give the engine an event and carry out what it wants."""
        self.events.append(event)
        actions = self.engine.on_event(event)
        self.actions += actions
        for action in actions:
            if isinstance(action, PlaceOrder):
                self._send(action)
            elif isinstance(action, CancelOrder):
                self.at(self.now_ns + self._latency_ns(), lambda a=action: self._cancel(a))  # type: ignore[misc]
            elif isinstance(action, QueryOrder):
                self.at(self.now_ns + self._latency_ns(), lambda a=action: self._query(a))  # type: ignore[misc]
            elif isinstance(action, QueryAccount):
                self.at(self.now_ns + self._latency_ns(), lambda a=action: self._query_account(a))  # type: ignore[misc]
        if self.at_rest is not None and not self.in_flight:
            self.at_rest(self)

    def _deliver(self, event_at: Callable[[int], Event], delay_ns: int | None = None) -> None:
        self.in_flight += 1

        def arrive() -> None:
            self.in_flight -= 1
            self.tell(event_at(self.now_ns))

        self.at(self.now_ns + (self._latency_ns() if delay_ns is None else delay_ns), arrive)

    def _send(self, order: PlaceOrder) -> None:
        assert order.client_oid not in self.placed, f"{order.client_oid} was sent twice"
        self.placed[order.client_oid] = order
        oid = order.client_oid
        if self._happens(self.faults.lost_request):
            self._deliver(lambda t: OrderTimedOut(recv_ns=t, client_oid=oid), 3 * NS)
            return
        if self._happens(self.faults.late_request):
            self._deliver(lambda t: OrderTimedOut(recv_ns=t, client_oid=oid), 3 * NS)
            late_ns = int(self.random.integers(1, 30_000)) * MS
            self.at(self.now_ns + late_ns, lambda: self._arrive(order, is_answered=False))
            return
        is_answered = not self._happens(self.faults.lost_answer)
        if not is_answered:
            self._deliver(lambda t: OrderTimedOut(recv_ns=t, client_oid=oid), 3 * NS)
        self.in_flight += 1

        def arrive() -> None:
            self.in_flight -= 1
            self._arrive(order, is_answered=is_answered)

        self.at(self.now_ns + self._latency_ns(), arrive)

    def _arrive(self, order: PlaceOrder, *, is_answered: bool) -> None:
        oid = order.client_oid
        if self._happens(self.faults.refused):
            if is_answered:
                self._deliver(
                    lambda t: OrderRefused(recv_ns=t, client_oid=oid, code="40015", message="system abnormal")
                )
            return
        request = OrderRequest(
            symbol=order.symbol,
            side=order.side,
            kind=order.kind,
            size=order.size,
            price=order.price,
            reduce_only=order.reduce_only,
            client_oid=oid,
            stop_loss=order.stop_price,
        )
        answer: Accepted | Refusal
        if order.is_flash:
            done, failed = self.venue.close_at_market(US, self.now_ns, order.symbol)
            answer = done[0] if done else failed[0][1]
            if isinstance(answer, Accepted):
                self.flashed[answer.order_id] = oid
        else:
            answer = self.venue.place(US, request, self.now_ns)
        if is_answered:
            if isinstance(answer, Accepted):
                name = answer.order_id
                self._deliver(lambda t: OrderAccepted(recv_ns=t, client_oid=oid, order_id=name))
            else:
                code, message = answer.code, answer.message
                self._deliver(lambda t: OrderRefused(recv_ns=t, client_oid=oid, code=code, message=message))
        self._push_all()

    def _cancel(self, action: CancelOrder) -> None:
        answer = self.venue.cancel(
            US, action.symbol, self.now_ns, order_id=action.order_id or None, client_oid=action.client_oid
        )
        if not isinstance(answer, Accepted):
            code = answer.code
            self._deliver(lambda t: CancelRefused(recv_ns=t, client_oid=action.client_oid, code=code, message=""))
        self._push_all()

    def _query(self, action: QueryOrder) -> None:
        if self._happens(self.faults.silent_query):
            return
        found = self.venue.order(US, order_id=action.order_id or None, client_oid=action.client_oid)
        delay_ns = self._latency_ns()
        if found is None:
            self._deliver(lambda t: OrderAbsent(recv_ns=t, client_oid=action.client_oid), delay_ns)
            return
        for fill in self.venue.fills(US):
            if fill.order_id == found.order_id:
                self._deliver(lambda t, f=fill: _filled(f, t, client_oid=""), delay_ns)  # type: ignore[misc]
        report = msgspec.structs.replace(found)
        self._deliver(lambda t: _reported(report, t), delay_ns)

    def _query_account(self, action: QueryAccount) -> None:
        if self._happens(self.faults.silent_query):
            return
        fills = tuple(
            _filled(fill, self.now_ns, client_oid="")
            for fill in self.venue.fills(US)
            if fill.time_ns >= action.fills_since_ns
        )
        truth, delay_ns = msgspec.structs.replace(self._truth(), fills=fills), self._latency_ns()
        for listed_ns, paid in self._bills:
            if listed_ns <= self.now_ns:
                self._deliver(lambda t, p=paid: _paid(p, t), delay_ns)  # type: ignore[misc]
        self._deliver(lambda t: msgspec.structs.replace(truth, recv_ns=t), delay_ns)

    def _bill_delay_ns(self) -> int:
        return (
            int(self.random.integers(0, self.faults.bill_delay_s_max + 1)) * NS if self.faults.bill_delay_s_max else 0
        )

    @property
    def is_billed(self) -> bool:
        """Say whether the engine was told of every settlement."""
        told = {event.bill_id for event in self.events if isinstance(event, FundingPaid)}
        return all(paid.bill_id in told for _, paid in self._bills)

    def _truth(self) -> Adopted:
        positions = tuple(
            Position(symbol=p.symbol, size=p.size, entry_price=p.entry_price) for p in self.venue.positions(US)
        )
        orders = tuple(
            PendingOrder(
                client_oid=o.client_oid, order_id=o.order_id, symbol=o.symbol, side=o.side, kind=o.kind, size=o.size,
                filled=o.filled, price=o.price, reduce_only=o.reduce_only,
            )
            for o in self.venue.pending(US)
        )  # fmt: skip
        return Adopted(
            recv_ns=self.now_ns,
            equity_usdt=self.venue.equity(US),
            available_usdt=self.venue.available(US),
            positions=positions,
            orders=orders,
            leverage=dict.fromkeys(self.symbols, 5),
        )

    def _push_all(self) -> None:
        for event in self.venue.drain():
            oid = self.flashed.get(event.order_id, event.client_oid) if isinstance(event, Fill) else ""
            if isinstance(event, Fill) and oid in self.placed:
                self.filled[oid] = self.filled.get(oid, Decimal(0)) + event.size
            if isinstance(event, FundingReport):
                self._bills.append((self.now_ns + self._bill_delay_ns(), event))
                continue
            if not self.is_private_up:
                continue
            copies = 0 if self._happens(self.faults.lost_push) else 1 + self._happens(self.faults.repeated_push)
            for _ in range(copies):
                if isinstance(event, Fill):
                    self._deliver(lambda t, f=event: _filled(f, t))  # type: ignore[misc]
                elif isinstance(event, OrderReport):
                    self._deliver(lambda t, o=event.order: _reported(o, t))  # type: ignore[misc]

    def _drop_private(self) -> None:
        self.is_private_up = False
        self.tell(LinkChanged(recv_ns=self.now_ns, link="private", is_up=False))

        def back() -> None:
            self.is_private_up = True
            self.tell(LinkChanged(recv_ns=self.now_ns, link="private", is_up=True))

        self.at(self.now_ns + int(self.random.integers(100, 5000)) * MS, back)


class _Opinions:
    name = "opinions"
    horizon_s: int | None = None
    needs_features = False
    is_null = False

    def score(self, features: object, columns: object, first_second: int) -> Scores:
        raise AssertionError("the world brings its opinions")


def _paid(paid: FundingReport, recv_ns: int) -> FundingPaid:
    return FundingPaid(
        recv_ns=recv_ns, symbol=paid.symbol, amount_usdt=paid.amount_usdt, bill_id=paid.bill_id, exch_ns=paid.time_ns
    )


def _filled(fill: Fill, recv_ns: int, client_oid: str | None = None) -> Filled:
    return Filled(
        recv_ns=recv_ns, client_oid=fill.client_oid if client_oid is None else client_oid, order_id=fill.order_id,
        trade_id=fill.trade_id, symbol=fill.symbol, side=fill.side, price=fill.price, size=fill.size,
        fee_usdt=fill.fee_usdt, is_maker=fill.is_maker, exch_ns=fill.time_ns,
    )  # fmt: skip


def _reported(order: Order, recv_ns: int) -> OrderReported:
    return OrderReported(
        recv_ns=recv_ns,
        client_oid=order.client_oid,
        order_id=order.order_id,
        status=order.status,
        filled=order.filled,
        reason=order.cancel_reason,
    )
