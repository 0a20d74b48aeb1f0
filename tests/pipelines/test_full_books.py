"""Full books over real sockets into the lake, judged by plain dictionaries that follow what the server really sent."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from pipelines import collect
from shared.bitget import session, transport
from shared.errors import SettingsError
from shared.lake import read
from shared.lake.depth import books_at
from shared.lake.layout import DEPTH
from shared.simulator.clock import Clock
from shared.simulator.faults.conditions import Script
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator.pushes.feed import Cadence
from shared.simulator.pushes.sent import SentLog
from shared.simulator.server import Server
from shared.types import BOOK_LEVELS, FULL_BOOKS, NS, BookChannels, TickEvent

N_SYMBOLS = 24
POLITE: dict[str, Any] = {"seed": 6, "conditions": {}}
STORM: dict[str, Any] = {
    "seed": 6,
    "conditions": {
        "pushes": [
            {"what": "lose", "channel": "books", "p": 0.06},
            {"what": "gap", "channel": "books", "p": 0.02},
            {"what": "duplicate", "channel": "books", "p": 0.1},
            {"what": "reorder", "channel": "books", "p": 0.02},
            {"what": "tear", "channel": "books", "p": 0.01},
        ],
        "disconnects": [{"every_s": 3.0, "how": "abort"}],
    },
}

Side = dict[float, float]


class Chain:
    """What one connection was sent of one symbol: the book after each push, while every push follows the one before."""

    def __init__(self) -> None:
        self.books: dict[int, tuple[Side, Side]] = {}  # seq -> asks, bids
        self.breaks = 0
        self._asks: Side = {}
        self._bids: Side = {}
        self._seq: int | None = None
        self._last = ""

    def take(self, push: dict[str, Any], text: str) -> None:
        row = push["data"][0]
        is_repeat, self._last = text == self._last, text
        if is_repeat:
            return
        if push["action"] == "snapshot":
            self._asks, self._bids = {}, {}
        elif row["pseq"] != self._seq:
            self.breaks += self._seq is not None
            self._seq = None
            return
        for side, levels in ((self._asks, row["asks"]), (self._bids, row["bids"])):
            for price, size in levels:
                side[float(price)] = float(size)
                if float(size) == 0:
                    del side[float(price)]
        self._seq = row["seq"]
        self.books[self._seq] = (dict(self._asks), dict(self._bids))


def sent_chains(path: Path) -> dict[tuple[int, str], Chain]:
    """Return, per connection and symbol, what was sent of full books and could be read."""
    chains: dict[tuple[int, str], Chain] = defaultdict(Chain)
    for line in path.read_text().splitlines():
        told = json.loads(line)
        try:
            push = json.loads(told["text"])
        except json.JSONDecodeError:
            continue
        if push["arg"]["channel"] == FULL_BOOKS:
            chains[told["conn"], push["arg"]["instId"]].take(push, told["text"])
    return chains


@pytest.mark.parametrize("script", [POLITE, STORM], ids=["polite", "storm"])
async def test_lake_holds_every_book_or_says_that_it_does_not(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With lost, doubled, overtaken, altered and torn changes and connections that end: every break in what was sent is
    a GAP, every book between the marks is the oracle's, level by level, and without any of it there is no mark."""
    monkeypatch.setattr(transport, "backoff_s", lambda failures, draw: 0.05)
    monkeypatch.setattr(session, "MENDS_APART_NS", NS // 10)
    clock = Clock()
    market = GeneratedMarket(3, N_SYMBOLS)
    other = market.symbols[-1]
    sent = SentLog(tmp_path / "sent.jsonl", clock.now_ns)
    server = Server(market, clock=clock, cadence=Cadence(book_ms=100, ticker_ms=500), sent=sent)
    await server.start()
    server.faults.begin(msgspec.convert(script, Script), clock.real_ns())
    struck, stop = server.faults.struck, asyncio.Event()
    lake = tmp_path / "lake"
    books = BookChannels(FULL_BOOKS, {other: "books5"})
    awaited = {"lose books", "gap books", "duplicate books", "reorder books", "tear books", "disconnect public abort"}
    recording = asyncio.create_task(
        collect.collect(server.rest_url, server.ws_url, lake, market.source, stop=stop, books=books)
    )

    def n_sent() -> int:
        path = tmp_path / "sent.jsonl"
        return path.read_text().count("books") if path.exists() else 0

    async with asyncio.timeout(60):
        while not (awaited <= struck.keys() if script is STORM else n_sent() > 5 * N_SYMBOLS):
            assert not recording.done(), recording.result()
            await asyncio.sleep(0.05)
        server.faults.begin(Script(), clock.real_ns())  # what breaks last is seen, too
        await asyncio.sleep(1.5)
        stop.set()
        done = await recording
    await server.stop()

    chains = sent_chains(tmp_path / "sent.jsonl")
    truth: dict[str, dict[int, tuple[Side, Side]]] = defaultdict(dict)
    for (_, symbol), chain in chains.items():
        truth[symbol] |= chain.books
    breaks = sum(chain.breaks for chain in chains.values())
    depth = read.collect(read.scan(lake, DEPTH, market.source))
    gaps = depth.filter(pl.col("event") == int(TickEvent.GAP)).height
    assert set(depth["symbol"]) == set(market.symbols) - {other}
    if script is POLITE:
        assert breaks == gaps == 0
    else:
        assert gaps >= breaks > 10
    n_pushes = 0
    for symbol in truth:
        mine = depth.filter(pl.col("symbol") == symbol).unique(["recv_ns", "conn", "event"], maintain_order=True)
        data = mine.filter(pl.col("event") == int(TickEvent.DATA))
        known = books_at(lake, market.source, symbol, data["recv_ns"].to_list())
        for seq, book in zip(data["seq"], known, strict=True):
            if book is None:
                continue
            assert book.seq == seq
            asks, bids = truth[symbol][seq]
            assert dict(zip(book.ask_price.tolist(), book.ask_size.tolist(), strict=True)) == asks
            assert dict(zip(book.bid_price.tolist(), book.bid_size.tolist(), strict=True)) == bids
            n_pushes += 1
        if script is POLITE:
            assert set(data["seq"]) >= set(list(truth[symbol])[:-3])
    assert n_pushes > 100
    check_best(lake, market, truth)
    assert done.rows[DEPTH] == depth.height


def check_best(lake: Path, market: GeneratedMarket, truth: dict[str, dict[int, tuple[Side, Side]]]) -> None:
    """Compare raw/book, the best levels of each push, with the oracle's."""
    ticks = read.read_ticks(lake, market.source, 0, 2**62, market.symbols)
    books, n_checked = ticks.books, 0
    for row in np.flatnonzero(books.event == TickEvent.DATA).tolist():
        symbol = market.symbols[int(books.symbol[row])]
        if symbol not in truth:
            assert not np.nan_to_num(books.ask_price[row, 5:]).any(), "five levels where nothing else was asked for"
            continue
        asks, bids = truth[symbol][int(books.seq[row])]
        for found, side, is_bid in ((books.ask_price[row], asks, False), (books.bid_price[row], bids, True)):
            best = sorted(side, reverse=is_bid)[:BOOK_LEVELS]
            assert found[: len(best)].tolist() == best
        n_checked += 1
    assert n_checked > 100


async def test_unknown_symbol_of_books_is_a_sentence(tmp_path: Path) -> None:
    """A symbol with a channel of its own that is not listed is refused before anything is recorded."""
    market = GeneratedMarket(3, 4)
    server = Server(market, clock=Clock())
    await server.start()
    books = BookChannels("books5", {"NOPEUSDT": FULL_BOOKS})

    with pytest.raises(SettingsError, match=r"every symbol of BOOKS must be listed .* found NOPEUSDT"):
        await collect.collect(
            server.rest_url, server.ws_url, tmp_path, market.source, stop=asyncio.Event(), books=books
        )

    await server.stop()
    assert not list(tmp_path.rglob("*.arrow"))
