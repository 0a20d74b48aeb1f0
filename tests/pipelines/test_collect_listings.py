"""The recorder while symbols come and go, over real sockets: a newcomer is recorded, nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from pipelines import collect, collector
from pipelines.discovery import Every
from shared.errors import CrosscutError
from shared.lake import read, write
from shared.lake.tiers import tiers_at
from shared.simulator.clock import Clock
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator.server import Server
from shared.types import NS, Note, TickEvent, Ticks, Universe
from tests.pipelines.test_collect import silences
from tests.shared.lake import receipts as r

MARKET = GeneratedMarket(7, 4, listings_per_day=720.0)  # one newcomer, a life of two minutes
(LIFE,) = [(listing.symbol, listing.life) for listing in MARKET.listings if listing.life is not None]
NEWCOMER = LIFE[0]
OTHERS = tuple(symbol for symbol in MARKET.symbols if symbol != NEWCOMER)
SOON = Every(tickers_s=0.1, contracts_s=0.2, confirm_s=0.1, wait_s_max=0.2)


class Recording:
    """A recorder that runs, what it has told, and the market's time, which jumps when a test says so."""

    def __init__(self, server: Server, lake: Path, jumped_s: list[float], **options: Any) -> None:
        self.server, self.lake, self._jumped_s = server, lake, jumped_s
        self.lines: list[str] = []
        self.notes: list[Note] = []
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(
            collect.collect(
                server.rest_url, server.ws_url, lake, MARKET.source, stop=self.stop, every=SOON,
                progress=self.lines.append, on_notes=self._note, **options,
            )
        )  # fmt: skip

    def _note(self, notes: Sequence[Note]) -> None:
        self.notes += notes

    def told(self, event: str) -> list[Note]:
        return [note for note in self.notes if note.event == event]

    def jump(self, seconds: float) -> None:
        self._jumped_s[0] += seconds

    def ticks(self) -> Ticks:
        """Return what is durable, on the axis of the market."""
        try:
            return read.read_ticks(self.lake, MARKET.source, 0, 2**62, MARKET.symbols)
        except CrosscutError:
            return r.links(TickEvent.SUBSCRIBED, 0, 0)

    def events(self, symbol: str, event: TickEvent) -> int:
        """Return how many rows of one event a symbol has, over all tables."""
        n = MARKET.symbols.index(symbol)
        return r.n_rows(r.map_tables(r.only(self.ticks(), event), lambda rows: r.take(rows, rows.symbol == n)))

    def universe(self) -> Universe:
        return read.universe_at(self.lake, MARKET.source, time.time_ns())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition on the lake, which nothing announces; a recorder that has ended raises."""
        async with asyncio.timeout(60):
            while not condition():
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def recording(lake: Path, phase_s: int, **options: Any) -> AsyncIterator[Recording]:
    """Record a market that begins so many seconds into a life of the newcomer, while the block runs."""
    assert LIFE[1] is not None
    jumped_s = [0.0]
    begin_s = LIFE[1].begin_s + 1_795_330_800 // 120 * 120 + phase_s
    clock = Clock(start_ns=begin_s * NS, monotonic_ns=lambda: time.monotonic_ns() + int(jumped_s[0] * NS))
    server = Server(MARKET, clock=clock)
    await server.start()
    try:
        recorder = Recording(server, lake, jumped_s, **options)
        try:
            yield recorder
        finally:
            recorder.stop.set()
            await recorder.task
    finally:
        await server.stop()


async def change(server: Server, **conditions: Any) -> None:
    url = f"{server.rest_url}/_control/conditions"
    async with aiohttp.ClientSession() as http, http.post(url, json=conditions) as answer:
        assert answer.status == 200, await answer.text()


def undisturbed(ticks: Ticks) -> None:
    """Check that the symbols that were there had one link a channel, up from the beginning to the end."""
    for rows in (ticks.books, ticks.trades, ticks.tickers):
        for n in (MARKET.symbols.index(symbol) for symbol in OTHERS):
            events = rows.event[(rows.symbol == n) & (rows.event >= TickEvent.SUBSCRIBED)].tolist()
            assert events == [TickEvent.SUBSCRIBED, TickEvent.DISCONNECTED]


@pytest.mark.parametrize(
    ("copies", "channels_max"), [(1, 500), (2, 500), (1, 9)], ids=["with room", "two copies", "full"]
)
async def test_new_listing_is_recorded_while_running(
    tmp_path: Path, copies: int, channels_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A symbol that is launched in mid-run is subscribed, recorded, in the universe with its tiers; nobody else notices."""
    monkeypatch.setattr(collector, "CHANNELS_MAX", channels_max)  # 9: the three that are there fill a connection
    began_ns = time.time_ns()
    async with recording(tmp_path, 112, copies=copies) as recorder:  # absent until 120, launched at 126
        await recorder.until(lambda: recorder.events(OTHERS[0], TickEvent.DATA) > 0)
        (before,) = read.universes_between(tmp_path, MARKET.source, 0, 2**62)
        recorder.jump(14.0)
        await recorder.until(lambda: recorder.events(NEWCOMER, TickEvent.DATA) > 5)
        after = recorder.universe()
        await recorder.until(
            lambda: set(tiers_at(tmp_path, MARKET.source, time.time_ns(), MARKET.symbols)) == set(MARKET.symbols)
        )

    ticks = recorder.ticks()
    assert before.symbols == tuple(sorted(OTHERS))
    assert [contract.status for contract in after.contracts if contract.symbol == NEWCOMER] == ["normal"]
    assert read.universe_at(tmp_path, MARKET.source, before.as_of_ns) == before
    assert NEWCOMER in read.universe_between(tmp_path, MARKET.source, began_ns, time.time_ns()).symbols
    assert recorder.events(NEWCOMER, TickEvent.SUBSCRIBED) == recorder.events(NEWCOMER, TickEvent.DISCONNECTED)
    assert recorder.events(NEWCOMER, TickEvent.SUBSCRIBED) == 3 * copies
    books = r.only(ticks, TickEvent.DATA).books
    assert (books.symbol == MARKET.symbols.index(NEWCOMER)).any()
    assert len(np.unique(books.recv_ns)) == len(books.recv_ns)
    if copies == 1:
        undisturbed(ticks)
        assert len(np.unique(ticks.books.conn)) == (2 if channels_max == 9 else 1)
    assert silences(ticks) == 0
    assert recorder.told("channel.refused") == []
    assert any(f"1 new ({NEWCOMER})" in line for line in recorder.lines)
    assert any(line.endswith("1 new, 0 gone") for line in recorder.lines)
    assert write.unsealed(tmp_path, MARKET.source) == []


async def test_delisted_symbol_is_left_and_recorded_when_it_returns(tmp_path: Path) -> None:
    """A symbol that is taken off is unsubscribed without a refusal, its links end; listed again, it is recorded again."""
    async with recording(tmp_path, 98) as recorder:  # off at 108, no row from 111 to 120, launched at 126
        await recorder.until(lambda: recorder.events(NEWCOMER, TickEvent.DATA) > 0)
        recorder.jump(9.0)
        await recorder.until(lambda: recorder.events(NEWCOMER, TickEvent.DISCONNECTED) == 3)
        await recorder.until(lambda: NEWCOMER not in recorder.universe().symbols)
        gone = recorder.universe()
        recorder.jump(7.0)
        await recorder.until(lambda: NEWCOMER in recorder.universe().symbols)
        recorder.jump(5.0)
        await recorder.until(lambda: recorder.events(NEWCOMER, TickEvent.SUBSCRIBED) == 6)
        await recorder.until(lambda: recorder.ticks().books.recv_ns[-1] > recorder.universe().as_of_ns)

    ticks = recorder.ticks()
    undisturbed(ticks)
    statuses = [
        next((c.status for c in universe.contracts if c.symbol == NEWCOMER), "no row")
        for universe in read.universes_between(tmp_path, MARKET.source, 0, 2**62)
    ]
    assert [status for k, status in enumerate(statuses) if k == 0 or status != statuses[k - 1]] == [
        "limit_open", "off", "no row", "listed", "normal",
    ]  # fmt: skip
    assert read.universe_at(tmp_path, MARKET.source, gone.as_of_ns).symbols == tuple(sorted(OTHERS))
    assert recorder.told("channel.refused") == []
    assert any(f"1 gone ({NEWCOMER})" in line for line in recorder.lines)


async def test_changed_rules_are_a_new_snapshot(tmp_path: Path) -> None:
    """A tick that changes is in the universe soon, dated; a status of no market ends the recording of that symbol."""
    symbol = OTHERS[0]
    async with recording(tmp_path, 30) as recorder:
        await recorder.until(lambda: recorder.events(symbol, TickEvent.DATA) > 0)
        before = recorder.universe()
        await change(recorder.server, contracts={symbol: {"pricePlace": "0"}})
        await recorder.until(lambda: recorder.universe().contracts != before.contracts)
        finer = recorder.universe()
        await change(recorder.server, contracts={symbol: {"symbolStatus": "off"}})
        await recorder.until(lambda: recorder.events(symbol, TickEvent.DISCONNECTED) == 3)
        await change(recorder.server, contracts={symbol: {}})
        await recorder.until(lambda: recorder.events(symbol, TickEvent.SUBSCRIBED) == 6)

    ticks = {contract.symbol: contract.tick for contract in finer.contracts}
    assert ticks[symbol] == 1
    assert {contract.symbol: contract.tick for contract in before.contracts} | {symbol: ticks[symbol]} == ticks
    assert read.universe_at(tmp_path, MARKET.source, finer.as_of_ns - 1) == before
    assert recorder.universe().contracts == before.contracts


async def test_failing_reads_stop_nothing(tmp_path: Path) -> None:
    """While the exchange's REST is down the streams are recorded; when it is back, what it says now is followed."""
    symbol = OTHERS[0]
    async with recording(tmp_path, 30) as recorder:
        await recorder.until(lambda: recorder.events(symbol, TickEvent.DATA) > 0)
        before = recorder.universe()
        fault = {"what": "gateway", "path": "market/*"}
        await change(recorder.server, requests=[fault], contracts={symbol: {"pricePlace": "0"}})
        await recorder.until(lambda: len(recorder.told("universe.unseen")) > 0)
        rows = recorder.events(symbol, TickEvent.DATA)
        await recorder.until(lambda: recorder.events(symbol, TickEvent.DATA) > rows)
        assert recorder.universe() == before
        await change(recorder.server, requests=[fault | {"what": "torn", "when": "after", "count": 2}])
        await recorder.until(lambda: recorder.universe().contracts != before.contracts)

    undisturbed(recorder.ticks())


async def test_symbols_that_were_asked_for_are_all_that_is_recorded(tmp_path: Path) -> None:
    """With names given, a new listing is in the universe and not in the rows."""
    async with recording(tmp_path, 112, symbols=OTHERS[:2]) as recorder:
        await recorder.until(lambda: recorder.events(OTHERS[0], TickEvent.DATA) > 0)
        recorder.jump(14.0)
        await recorder.until(lambda: any(c.symbol == NEWCOMER and c.has_market for c in recorder.universe().contracts))
        rows = recorder.events(OTHERS[0], TickEvent.DATA)
        await recorder.until(lambda: recorder.events(OTHERS[0], TickEvent.DATA) > rows)

    recorded = {MARKET.symbols[n] for n in np.unique(recorder.ticks().books.symbol).tolist()}
    assert recorded == set(OTHERS[:2])
