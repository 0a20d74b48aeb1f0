"""The recorder while the exchange misbehaves, judged by what the server really sent."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from pathlib import Path

import msgspec
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
from shared.types import TickEvent
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

AWAITED = ("tear books5", "not_json books5", "disconnect public abort", "disconnect public close", "lose books5")

Book = tuple[int, int]
"""(symbol, seq)"""


def sent_books(path: Path, symbols: tuple[str, ...]) -> dict[int, list[Book]]:
    """Return, per connection, the books that left whole and say whose they are, in order."""
    books: dict[int, list[Book]] = defaultdict(list)
    for line in path.read_text().splitlines():
        told = json.loads(line)
        try:
            push = json.loads(told["text"])
        except json.JSONDecodeError:
            continue
        if push["arg"]["channel"] == "books5":
            books[told["conn"]].append((symbols.index(push["arg"]["instId"]), push["data"][0]["seq"]))
    return books


async def test_recorder_stores_what_came_and_marks_what_did_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under torn, strange, doubled and lost frames and connections that end: every stored book was sent, every book
    that was sent whole is stored but for the last ones of a connection that ended, and what could not be read is
    marked as a gap."""
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
    books = r.only(ticks, TickEvent.DATA).books
    left = Counter(zip(books.symbol.tolist(), books.seq.tolist(), strict=True))
    n_stored = left.total()
    for conn, whole in sent_books(tmp_path / "sent.jsonl", market.symbols).items():
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
