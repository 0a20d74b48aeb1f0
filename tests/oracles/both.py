"""The same market events and the same requests through the exact tier and through hftbacktest."""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.exact.exchange import Assumptions, Exchange
from pipelines.exact.latency import Constant, Latencies
from pipelines.exact.queues import LogProbability, Place, PowerProbability, QueueModel, RiskAverse
from pipelines.exact.tape import ArraysTape, Block
from shared.lake.tiers import Ladder
from shared.types import (
    NS,
    CancelOrder,
    Cause,
    Contract,
    Filled,
    Floats,
    Ints,
    OrderKind,
    OrderReported,
    PlaceOrder,
    Side,
    Tier,
    Universe,
)

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-oracles" / "bin" / "python"
SCRIPT = Path(__file__).with_name("hft.py")

EXCH, LOCAL, BUY, SELL = 1 << 31, 1 << 30, 1 << 29, 1 << 28
DEPTH, TRADE = 1, 2
TIFS = {OrderKind.LIMIT: 0, OrderKind.POST_ONLY: 1, OrderKind.IOC: 3, OrderKind.MARKET: 9}
FOREVER_NS = 1 << 62
EQUITY_USDT = Decimal(10**9)
NO_LADDER = Tier(
    level=1, start_usdt=Decimal(0), end_usdt=Decimal(10**12), leverage_max=50, maintenance_rate=Decimal("0.001")
)
"""hftbacktest has no margin."""


class TheirLog(LogProbability, frozen=True, tag="log", forbid_unknown_fields=True):
    """`LogProbability` with hftbacktest's arithmetic where nothing is ahead of us any more.

    What leaves a level can take the size ahead below zero; ours counts that as nothing ahead. Version 2.4.4 takes the
    logarithm of it all the same: the share behind exceeds one, so a shrinking level moves us back, and below -1 there is
    no logarithm, which puts us behind the whole level (queue.rs, `LogProbQueueFunc` and `ProbQueueModel.depth`).
    """

    def join(self, ahead: float) -> Place:
        return _TheirPlace(ahead)


class _TheirPlace:
    def __init__(self, ahead: float) -> None:
        self.ahead = ahead
        self._traded = 0.0

    def traded(self, size: float) -> None:
        self.ahead -= size
        self._traded += size

    def changed(self, before: float, after: float) -> None:
        left = before - after - self._traded
        self._traded = 0.0
        if left < 0.0:
            self.ahead = min(self.ahead, after)
            return
        behind = before - self.ahead
        with np.errstate(all="ignore"):
            weight_behind, weight_ahead = np.log(1.0 + np.array([behind, self.ahead]))
            share = weight_behind / (weight_behind + weight_ahead)
            share = np.float64(1.0) if np.isinf(share) else share
            # Of two numbers Rust's min is the one that is a number, as fmin.
            moved = self.ahead - (1.0 - share) * left + np.fmin(behind - share * left, 0.0)
            self.ahead = float(np.fmin(moved, after))


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """An order to send, or to cancel, at a time of ours."""

    at_ns: int
    oid: int
    is_cancel: bool = False
    side: Side = Side.BUY
    kind: OrderKind = OrderKind.LIMIT
    price: float = 0.0
    size: str = "0"


class Fill(msgspec.Struct, frozen=True):
    oid: int
    exch_ns: int
    price: float
    size: float


class Outcome(msgspec.Struct, frozen=True):
    """What one engine made of the requests."""

    fills: list[Fill]
    statuses: dict[int, str]  # oid -> filled, canceled, live
    last: dict[int, tuple[float, float]]  # oid -> price and size of its last fill
    position: float
    balance: float  # cash from trading, without fees
    fee: float
    mark: float  # at which what is open is valued
    equity: float  # gained since the beginning; theirs without what is open
    cpu_s: float
    n_events: int

    def filled(self) -> dict[int, float]:
        """Return order -> how much of it was filled."""
        return _summed((fill.oid, fill.size) for fill in self.fills)

    def moments(self) -> dict[tuple[int, int], float]:
        """Return (order, exchange's time) -> how much was filled then: the responses of one instant are seen as one."""
        return _summed(((fill.oid, fill.exch_ns), fill.size) for fill in self.fills)


Key = TypeVar("Key")
Events = tuple[NDArray[np.uint64], Ints, Floats, Floats]  # ev, exch_ts, px, qty


def _summed(sizes: Iterable[tuple[Key, float]]) -> dict[Key, float]:
    sums: dict[Key, float] = {}
    for key, size in sizes:
        sums[key] = sums.get(key, 0.0) + size
    return sums


class Market(msgspec.Struct, frozen=True):
    """A market with its rules, and the latencies between it and us."""

    block: Block
    contract: Contract
    entry_ms: float = 20.0
    response_ms: float = 30.0
    queue: QueueModel = RiskAverse()

    @property
    def begin_ns(self) -> int:
        return int(self.block.book_ns[0])

    @property
    def end_ns(self) -> int:
        return int(min(self.block.book_ns[-1], self.block.trade_ns[-1]))


def oracle() -> Path:
    """Return the oracle's interpreter, or skip with the way to get one."""
    if not PYTHON.exists():
        pytest.skip("hftbacktest is not here: make oracles")
    return PYTHON


def contract(symbol: str, tick: str, step: str, *, maker: str = "0.0002", taker: str = "0.0006") -> Contract:
    return Contract(
        symbol=symbol, base=symbol.removesuffix("USDT"), quote="USDT", status="normal", tick=Decimal(tick),
        size_step=Decimal(step), size_min=Decimal(step), notional_min_usdt=Decimal(0), size_max_limit=None,
        size_max_market=None, price_band_buy=Decimal("0.5"), price_band_sell=Decimal("0.5"), maker_fee=Decimal(maker),
        taker_fee=Decimal(taker), leverage_min=1, leverage_max=50, funding_interval_h=8, is_rwa=False, launch_ms=None,
        off_ms=None,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- ours


def exchange_of(markets: Sequence[Market]) -> Exchange:
    """Return the exact tier's exchange for markets of the same latencies and queues."""
    first = markets[0]
    return Exchange(
        Universe(source="import-oracle", as_of_ns=0, contracts=tuple(market.contract for market in markets)),
        EQUITY_USDT,
        50,
        tape=ArraysTape({market.contract.symbol: market.block for market in markets}),
        assumptions=Assumptions(
            latencies=Latencies(
                entry=Constant(first.entry_ms),
                answer=Constant(first.entry_ms + first.response_ms),
                push=Constant(first.response_ms),
            ),
            queue=first.queue,
            impact_half_life_s=0.0,
        ),
        seed=0,
        start_ns=min(market.begin_ns for market in markets),
        ladders={market.contract.symbol: Ladder(0, (NO_LADDER,)) for market in markets},
    )


def action_of(request: Request, symbol: str) -> PlaceOrder | CancelOrder:
    """Return a request as the exchange takes it."""
    oid = str(request.oid)
    if request.is_cancel:
        return CancelOrder(client_oid=oid, order_id="", symbol=symbol)
    return PlaceOrder(
        client_oid=oid, symbol=symbol, side=request.side, kind=request.kind, size=Decimal(request.size),
        price=None if request.kind is OrderKind.MARKET else Decimal(repr(request.price)), reduce_only=False,
        stop_price=None, cause=Cause.ENTRY,
    )  # fmt: skip


def through_ours(market: Market, requests: Sequence[Request]) -> Outcome:
    """Send the requests to the exact tier's exchange and gather what became of them."""
    began_s = time.process_time()
    exchange, symbol = exchange_of([market]), market.contract.symbol
    reports: dict[int, OrderReported] = {}
    fills: list[Filled] = []

    def until(at_ns: int) -> None:
        while (event := exchange.next_event(at_ns)) is not None:
            if isinstance(event, Filled):
                fills.append(event)
            elif isinstance(event, OrderReported):
                reports[int(event.client_oid)] = event

    for request in requests:
        until(request.at_ns)
        known = reports.get(request.oid)
        if request.is_cancel and (known is None or known.status.is_final):
            continue  # hftbacktest cancels nothing that it knows to be over
        exchange.send(action_of(request, symbol), request.at_ns)
    until(market.end_ns)
    took_s = time.process_time() - began_s
    assert not exchange.refusals or set(exchange.refusals) <= {"22001 No order to cancel"}, exchange.refusals
    signed = [(float(fill.size) * fill.side.sign, float(fill.price)) for fill in fills]
    return Outcome(
        fills=[Fill(int(f.client_oid), f.exch_ns, float(f.price), float(f.size)) for f in fills],
        statuses={oid: str(report.status) for oid, report in reports.items()},
        last={int(f.client_oid): (float(f.price), float(f.size)) for f in fills},
        position=sum(size for size, _ in signed),
        balance=-sum(size * price for size, price in signed),
        fee=float(sum((fill.fee_usdt for fill in fills), Decimal(0))),
        mark=float(exchange.venue.mark(symbol)),
        equity=float(exchange.equity_usdt - EQUITY_USDT),
        cpu_s=took_s,
        n_events=market.block.n_events,
    )


# -------------------------------------------------------------------------------------------------------- theirs


def through_theirs(
    runs: Sequence[tuple[Market, Sequence[Request]]], folder: Path, *, looks_at_responses: bool = True
) -> list[Outcome]:
    """Send the same to hftbacktest, in an interpreter of its own: it takes two seconds to start.

    Args:
        looks_at_responses: False looks at the orders with every request alone: fast, and not every fill is seen.
    """
    python = oracle()
    files: list[str] = []
    n_events: list[int] = []
    known: dict[int, Events] = {}  # by block: many runs are over one
    for k, (market, requests) in enumerate(runs):
        source, target = folder / f"in{k}.npz", folder / f"out{k}.npz"
        events = known.get(id(market.block)) or events_of(market.block)
        known[id(market.block)] = events
        n_events.append(_write(market, requests, events, source, looks_at_responses))
        files += [str(source), str(target)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), str(SCRIPT), *files],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [_outcome_of(np.load(folder / f"out{k}.npz"), n) for k, n in enumerate(n_events)]


def _write(market: Market, requests: Sequence[Request], events: Events, path: Path, looks_at_responses: bool) -> int:
    """Write what hftbacktest is to do; return how many events that are."""
    ev, exch_ts, px, qty = events
    settings = {
        "entry_ns": round(market.entry_ms * 1e6),
        "response_ns": round(market.response_ms * 1e6),
        "maker_fee": float(market.contract.maker_fee),
        "taker_fee": float(market.contract.taker_fee),
        "tick": float(market.contract.tick),
        "step": float(market.contract.size_step),
        "queue": market.queue.__struct_config__.tag,
        "power": market.queue.n if isinstance(market.queue, PowerProbability) else 0.0,
        "end_ns": market.end_ns,
        "looks_at_responses": looks_at_responses,
    }
    np.savez(
        path,
        ev=ev, exch_ts=exch_ts, px=px, qty=qty, settings=json.dumps(settings),
        t=np.array([r.at_ns for r in requests], np.int64),
        kind=np.array([r.is_cancel for r in requests], np.uint8),
        id=np.array([r.oid for r in requests], np.uint64),
        side=np.array([r.side.sign for r in requests], np.int8),
        price=np.array([r.price for r in requests]),
        size=np.array([float(r.size) - _sliver(r, market.contract) for r in requests]),
        tif=np.array([TIFS[r.kind] for r in requests], np.uint8),
    )  # fmt: skip
    return len(ev)


def _sliver(request: Request, rules: Contract) -> float:
    """Return what hftbacktest's resting orders are smaller by: a ten-thousandth of a step, which rounds away.

    Version 2.4.4 keeps an order alive whose remainder is *exactly* what a trade has left over (`filled_qty > leaves_qty`
    in partialfillexchange.rs should be >=), and fails with InvalidOrderStatus when it fills it again.
    """
    return float(rules.size_step) / 10_000 if request.kind in (OrderKind.LIMIT, OrderKind.POST_ONLY) else 0.0


def _outcome_of(told: Any, n_events: int) -> Outcome:
    fills: list[Fill] = []
    statuses: dict[int, str] = {}
    last: dict[int, tuple[float, float]] = {}
    names = {1: "live", 2: "canceled", 3: "filled", 4: "canceled", 5: "partially_filled"}
    for k, oid in enumerate(told["id"].astype(int).tolist()):
        statuses[oid] = names[int(told["status"][k])]
        if told["filled"][k] > 1e-12:
            fills.append(Fill(oid, int(told["exch_ts"][k]), float(told["price"][k]), float(told["filled"][k])))
            last[oid] = (float(told["price"][k]), float(told["last"][k]))
    position, balance, fee = told["state"].tolist()
    mark = math.nan  # theirs values nothing by itself
    return Outcome(fills, statuses, last, position, balance, fee, mark, balance - fee, float(told["cpu_s"]), n_events)


def events_of(block: Block) -> Events:
    """Return a block as hftbacktest's events: trades as they are, books as the changes from one to the next.

    What has gone from sight is left as it was last seen, as our own side takes it; what is better than the touch of a
    new book has gone. At one instant trades come first. Levels that go, go before levels come: a book that moved in one
    row would cross itself otherwise.
    """
    rows: list[tuple[int, int, int, float, float]] = []  # time, 0 trade 1 book, flags, price, size
    for ns, price, size, side in zip(
        block.trade_ns.tolist(), block.trade_price.tolist(), block.trade_size.tolist(), block.trade_side.tolist(),
        strict=True,
    ):  # fmt: skip
        rows.append((ns, 0, TRADE | (BUY if side > 0 else SELL), price, size))
    known: dict[int, dict[float, float]] = {BUY: {}, SELL: {}}
    for r, ns in enumerate(block.book_ns.tolist()):
        gone: list[tuple[int, int, int, float, float]] = []
        come: list[tuple[int, int, int, float, float]] = []
        for flag, levels in ((BUY, block.bids), (SELL, block.asks)):
            before = known[flag]
            now = {p: s for p, s in levels[r].tolist() if p == p and s > 0}
            if not now:
                continue
            sign = 1 if flag == BUY else -1
            worst = min(now, key=lambda p: p * sign)
            for price in [p for p in before if (p - worst) * sign >= 0 and p not in now]:
                gone.append((ns, 1, DEPTH | flag, price, 0.0))
                del before[price]
            for price, size in now.items():
                if before.get(price) != size:
                    come.append((ns, 1, DEPTH | flag, price, size))
                    before[price] = size
        rows += gone + come
    rows.sort(key=lambda row: row[:2])
    columns = list(zip(*rows, strict=True))
    ev = np.array(columns[2], np.uint64) | np.uint64(EXCH | LOCAL)
    return ev, np.array(columns[0], np.int64), np.array(columns[3]), np.array(columns[4])


# ------------------------------------------------------------------------------------------------------- requests


def touch_at(block: Block, now_ns: int) -> tuple[float, float]:
    """Return best bid and ask of the book in force."""
    row = block.book_at(now_ns)
    return float(block.bids[row, 0, 0]), float(block.asks[row, 0, 0])


def rests(market: Market, seed: int, n_orders: int = 500) -> list[Request]:
    """Return post-only orders of many sizes on both sides, through the touch to two dozen ticks behind it, for seconds."""
    draw = np.random.Generator(np.random.Philox(key=[seed, 5]))
    requests: list[Request] = []
    first_ns, end_ns = market.begin_ns + NS, market.end_ns - 20 * NS
    tick, step = float(market.contract.tick), market.contract.size_step
    for k in range(1, n_orders + 1):
        at_ns, life_ns = int(draw.integers(first_ns, end_ns)), int(draw.integers(NS // 10, 15 * NS))
        side = Side.BUY if draw.random() < 0.5 else Side.SELL
        bid, ask = touch_at(market.block, at_ns)
        behind = int(draw.integers(-1, 25)) * tick * side.sign
        price = round((bid if side is Side.BUY else ask) - behind, 10)
        size = str((1 + int(draw.lognormal(4.5, 1.5))) * step)
        requests.append(Request(at_ns=at_ns, oid=k, side=side, kind=OrderKind.POST_ONLY, price=price, size=size))
        requests.append(Request(at_ns=at_ns + life_ns, oid=k, is_cancel=True))
    return sorted(requests, key=lambda request: (request.at_ns, request.is_cancel))


def quotes(market: Market, size: str, side: Side = Side.BUY, every_ns: int = NS) -> list[Request]:
    """Return requests that quote a size at the touch every so often, the one before cancelled first."""
    requests: list[Request] = []
    for k, at_ns in enumerate(range(market.begin_ns + NS, market.end_ns - NS, every_ns), start=1):
        if k > 1:
            requests.append(Request(at_ns=at_ns, oid=k - 1, is_cancel=True))
        bid, ask = touch_at(market.block, at_ns)
        price = bid if side is Side.BUY else ask
        requests.append(Request(at_ns=at_ns, oid=k, side=side, kind=OrderKind.POST_ONLY, price=price, size=size))
    return requests


def takes(market: Market, seed: int, *, every_ns: int = NS // 2, size_max: str | None = None) -> list[Request]:
    """Return market and IOC orders of all sizes, some limits behind the touch, some through it."""
    draw = np.random.Generator(np.random.Philox(key=[seed, 11]))
    requests: list[Request] = []
    step, tick = market.contract.size_step, float(market.contract.tick)
    for k, at_ns in enumerate(range(market.begin_ns + NS, market.end_ns - NS, every_ns), start=1):
        bid, ask = touch_at(market.block, at_ns)
        side = Side.BUY if draw.random() < 0.5 else Side.SELL
        steps = 1 + int(draw.lognormal(4.0, 2.0)) if size_max is None else 1 + int(draw.integers(int(size_max)))
        kind = OrderKind.MARKET if draw.random() < 0.3 else OrderKind.IOC
        away = float(draw.integers(-2, 30)) * tick * side.sign
        price = round((ask if side is Side.BUY else bid) + away, 10)
        requests.append(
            Request(at_ns=at_ns, oid=k, side=side, kind=kind, price=price, size=str(min(steps, 5000) * step))
        )
    return requests
