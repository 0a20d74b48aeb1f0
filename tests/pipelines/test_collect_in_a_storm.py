"""The recorder while the exchange misbehaves, judged by what the server really sent."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from pipelines import collect
from shared.bitget import transport
from shared.lake import read
from shared.simulator.clock import Clock
from shared.simulator.faults.conditions import Script
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator.pushes.feed import Cadence
from shared.simulator.pushes.sent import SentLog
from shared.simulator.server import Server
from shared.types import BookChannels, BookTicks, TickEvent, Ticks, TradeTicks
from tests.shared.lake import receipts as r

SCRIPT = {
    "seed": 6,
    "conditions": {
        "pushes": [
            {"what": "tear", "p": 0.05},
            {"what": "not_json", "p": 0.05},
            {"what": "unknown_channel", "p": 0.05},
            {"what": "unknown_field", "p": 0.05},
            {"what": "lose", "p": 0.05},
            {"what": "binary", "p": 0.05},
            {"what": "duplicate", "channel": "trade", "p": 0.2},
            {"what": "reorder", "channel": "ticker", "p": 0.1},
            {"what": "cut", "p": 0.0005},
        ],
        "disconnects": [{"every_s": 0.8, "how": "abort"}, {"every_s": 0.8, "how": "close"}],
        "requests": [{"what": "gateway", "path": "ws/public", "p": 0.2}],
    },
}

BOOKS = BookChannels().default
AWAITED = (f"tear {BOOKS}", f"not_json {BOOKS}", "disconnect public abort", "disconnect public close", f"lose {BOOKS}")

Row = tuple[Any, ...]
"""Everything that a row says: symbol, exchange time, and its values."""

TICKER = {
    "last": "lastPr", "bid": "bidPr", "ask": "askPr", "bid_size": "bidSz", "ask_size": "askSz", "mark": "markPrice",
    "index": "indexPrice", "funding_rate": "fundingRate", "next_funding_ms": "nextFundingTime",
    "open_interest": "holdingAmount", "base_volume_24h": "baseVolume", "quote_volume_24h": "quoteVolume",
}  # fmt: skip


def number(text: str) -> float | None:
    return float(text) if text else None


def sent_rows(path: Path) -> dict[str, dict[int, list[Row]]]:
    """Return, per table and connection, the rows that left whole and say whose they are, in order."""
    sent: dict[str, dict[int, list[Row]]] = {name: defaultdict(list) for name in ("books", "trades", "tickers")}
    for line in path.read_text().splitlines():
        told = json.loads(line)
        try:
            push = json.loads(told["text"])
        except json.JSONDecodeError:
            continue
        channel, symbol = push["arg"]["channel"], push["arg"]["instId"]
        for row in push["data"][:: -1 if channel == "trade" else 1]:
            head = symbol, int(row["ts"]) * 10**6
            if channel == BOOKS:
                levels = [tuple((float(p), float(s)) for p, s in row[side]) for side in ("asks", "bids")]
                sent["books"][told["conn"]].append((*head, row["seq"], *levels))
            elif channel == "trade":
                size = float(row["price"]), float(row["size"])
                sent["trades"][told["conn"]].append((*head, int(row["tradeId"]), *size, row["side"]))
            elif channel == "ticker":
                values = [number(row[name]) for name in TICKER.values()]
                sent["tickers"][told["conn"]].append((*head, *values))
    return sent


def stored_rows(ticks: Ticks, symbols: tuple[str, ...]) -> dict[str, Counter[Row]]:
    """Return the rows of the lake that were pushed, links left out, as `sent_rows` has them."""
    found: dict[str, Counter[Row]] = {name: Counter() for name in ("books", "trades", "tickers")}
    for table in (ticks.books, ticks.trades, ticks.tickers):
        for i in np.flatnonzero(table.event <= TickEvent.REPEATED).tolist():
            head = symbols[table.symbol[i]], int(table.exch_ns[i])
            if isinstance(table, BookTicks):
                sides = ((table.ask_price, table.ask_size), (table.bid_price, table.bid_size))
                levels = [
                    tuple((float(p), float(s)) for p, s in zip(prices[i], sizes[i], strict=True) if p == p)
                    for prices, sizes in sides
                ]
                found["books"][(*head, int(table.seq[i]), *levels)] += 1
            elif isinstance(table, TradeTicks):
                side = "buy" if table.side[i] > 0 else "sell"
                row = int(table.trade_id[i]), float(table.price[i]), float(table.size[i]), side
                found["trades"][(*head, *row)] += 1
            else:
                values = [float(getattr(table, name)[i]) for name in TICKER]
                found["tickers"][(*head, *(None if value != value else value for value in values))] += 1
    return found


async def test_recorder_stores_what_came_and_marks_what_did_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under torn, strange, doubled and lost frames and connections that end: every stored row was sent, whole and not
    more often, every book that was sent whole is stored but for the last ones of a connection that ended, and what
    could not be read is marked as a gap."""
    monkeypatch.setattr(transport, "backoff_s", lambda failures, draw: 0.05)
    clock = Clock()
    market = GeneratedMarket(3, 20)
    sent = SentLog(tmp_path / "sent.jsonl", clock.now_ns)
    server = Server(market, clock=clock, cadence=Cadence(book_ms=100, ticker_ms=100), sent=sent)
    await server.start()
    server.faults.begin(msgspec.convert(SCRIPT, Script), clock.real_ns())
    struck, stop = server.faults.struck, asyncio.Event()
    recording = asyncio.create_task(
        collect.collect(server.rest_url, server.ws_url, tmp_path / "lake", market.source, stop=stop)
    )
    async with asyncio.timeout(60):
        while min(sum(n for name, n in struck.items() if name.startswith(what)) for what in AWAITED) < 1:
            assert not recording.done(), recording.result()
            await asyncio.sleep(0.05)
        stop.set()
        await recording
    await server.stop()

    ticks = read.read_ticks(tmp_path / "lake", market.source, 0, 2**62, market.symbols)
    sent_of, stored_of = sent_rows(tmp_path / "sent.jsonl"), stored_rows(ticks, market.symbols)
    for table in ("tickers", "trades"):
        told = Counter(row for rows in sent_of[table].values() for row in rows)
        assert stored_of[table].total() > 50
        assert not stored_of[table] - told, f"{table} stored and never sent, or not so often"
    left = stored_of["books"]
    n_stored = left.total()
    for conn, whole in sent_of["books"].items():
        is_there = []
        for book in whole:
            is_there.append(left[book] > 0)
            left[book] -= is_there[-1]
        assert is_there == sorted(is_there, reverse=True), f"connection {conn} has holes"
    assert not +left, "stored and never sent"
    assert n_stored > 100
    gaps = r.n_rows(r.only(ticks, TickEvent.GAP))
    # A frame that cannot be read may have been of any subscription of its connection that was up.
    assert gaps >= sum(n for what, n in struck.items() if what.split()[0] in ("tear", "not_json", "unknown_channel"))
