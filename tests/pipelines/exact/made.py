"""Small markets for the exact tier: blocks from a few rows, and an exchange on them."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np

from pipelines.exact.exchange import Assumptions, Exchange
from pipelines.exact.latency import Constant, Latencies
from pipelines.exact.tape import ArraysTape, Block
from shared.types import (
    NS,
    Cause,
    Contract,
    Event,
    OrderKind,
    PlaceOrder,
    Side,
    Universe,
)
from tests.shared.simulator.venue_made import contract

START_NS = 1_795_330_800 * NS
MS = 1_000_000
FOREVER_NS = 1 << 62
SYMBOL = "AUSDT"

Side_ = Sequence[tuple[float, float]]

BIDS: Side_ = [(99.99, 5.0), (99.98, 10.0), (99.97, 20.0)]
ASKS: Side_ = [(100.01, 5.0), (100.02, 10.0), (100.03, 20.0)]

LATENCIES = Latencies(decide=Constant(0), entry=Constant(10), answer=Constant(30), push=Constant(20))
INSTANT = Latencies(decide=Constant(0), entry=Constant(0), answer=Constant(0), push=Constant(0))


def block(
    books: Sequence[tuple[int, Side_, Side_]] = ((-1, BIDS, ASKS),),
    trades: Sequence[tuple[int, float, float, int]] = (),
    marks: Sequence[tuple[int, float]] = ((-1, 100.0),),
    rate: float = 0.0001,
) -> Block:
    """Return a block; times are ms after the start, trades (time, price, size, taker's side)."""
    levels = max(max(len(bids), len(asks)) for _, bids, asks in books)

    def side(rows: Sequence[Side_]) -> Any:
        made = np.full((len(rows), levels, 2), np.nan)
        made[:, :, 1] = 0.0
        for r, row in enumerate(rows):
            made[r, : len(row)] = row
        return made

    def times(rows: Sequence[tuple[Any, ...]]) -> Any:
        return np.array([START_NS + row[0] * MS for row in rows], np.int64)

    return Block(
        begin_ns=0,
        end_ns=FOREVER_NS,
        book_ns=times(books),
        bids=side([bids for _, bids, _ in books]),
        asks=side([asks for _, _, asks in books]),
        trade_ns=times(trades),
        trade_price=np.array([price for _, price, _, _ in trades], np.float64),
        trade_size=np.array([size for _, _, size, _ in trades], np.float64),
        trade_side=np.array([taker for _, _, _, taker in trades], np.int8),
        mark_ns=times(marks),
        mark=np.array([mark for _, mark in marks], np.float64),
        index=np.array([mark for _, mark in marks], np.float64),
        rate=np.full(len(marks), rate),
    )


def exchange(
    market: Block,
    *,
    assumptions: Assumptions | None = None,
    equity: str = "10000",
    leverage: int = 10,
    rules: Contract | None = None,
    symbols: Sequence[str] = (SYMBOL,),
    **more: Any,
) -> Exchange:
    """Return an exchange on which every symbol has this market."""
    contracts = (rules,) if rules is not None else tuple(map(contract, symbols))
    return Exchange(
        Universe(source="simulator-test", as_of_ns=0, contracts=contracts),
        Decimal(equity),
        leverage,
        tape=ArraysTape({listed.symbol: market for listed in contracts}),
        assumptions=assumptions or Assumptions(latencies=LATENCIES, impact_half_life_s=0.0),
        seed=7,
        start_ns=START_NS,
        **more,
    )


def place(oid: str, side: Side, size: str, price: str | None = None, **more: Any) -> PlaceOrder:
    order = PlaceOrder(
        client_oid=oid, symbol=SYMBOL, side=side, kind=OrderKind.MARKET if price is None else OrderKind.POST_ONLY,
        size=Decimal(size), price=None if price is None else Decimal(price), reduce_only=False, stop_price=None,
        cause=Cause.ENTRY,
    )  # fmt: skip
    return msgspec.structs.replace(order, **more)


def events(made: Exchange, until_ms: int) -> list[Event]:
    """Return everything that is told up to a time after the start."""
    told = []
    while (event := made.next_event(START_NS + until_ms * MS)) is not None:
        told.append(event)
    return told


def at_ms(event: Event) -> float:
    return (event.recv_ns - START_NS) / MS
