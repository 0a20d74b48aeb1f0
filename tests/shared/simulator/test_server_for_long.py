"""A quarter of an hour of pushes over a real socket, in a minute: what a client rebuilds is whole and exact."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest
import websockets.asyncio.client

from shared.simulator.clock import Clock
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator.pushes.feed import CALM
from shared.simulator.pushes.rendering import checksum
from shared.simulator.server import Server

MARKET_S = 900  # three borders of the generated market's blocks
SPEED = 20.0


class Client:
    """Rebuilds books, counts trades, and compares candles with them."""

    def __init__(self) -> None:
        self.books: dict[str, dict[str, dict[str, str]]] = {}
        self.seq: dict[str, int] = {}
        self.last_id: dict[str, int] = {}
        self.volume: dict[tuple[str, int], Decimal] = {}
        self.begin_ms: dict[str, int] = {}
        self.updates = self.trades = self.candles = self.last_ms = 0

    def book(self, symbol: str, action: str, row: dict[str, Any]) -> None:
        if action == "snapshot":
            self.books[symbol] = {side: dict(row[side]) for side in ("asks", "bids")}
        else:
            assert row["pseq"] == self.seq[symbol]
            for side, levels in self.books[symbol].items():
                levels.update(row[side])
                self.books[symbol][side] = {price: size for price, size in levels.items() if size != "0"}
            bids = sorted(self.books[symbol]["bids"].items(), key=lambda level: -Decimal(level[0]))
            asks = sorted(self.books[symbol]["asks"].items(), key=lambda level: Decimal(level[0]))
            assert row["checksum"] == checksum(bids, asks)
            assert Decimal(bids[0][0]) < Decimal(asks[0][0])
            self.updates += 1
        assert row["seq"] > self.seq.get(symbol, 0)
        self.seq[symbol] = row["seq"]

    def trade(self, symbol: str, action: str, rows: list[dict[str, str]], ts: int) -> None:
        if action == "snapshot":
            self.last_id[symbol], self.begin_ms[symbol] = int(rows[0]["tradeId"]), ts
            return
        for row in reversed(rows):
            assert int(row["tradeId"]) > self.last_id.get(symbol, 0)  # none twice, none out of order
            self.last_id[symbol], self.last_ms = int(row["tradeId"]), int(row["ts"])
            minute = symbol, self.last_ms // 60_000
            self.volume[minute] = self.volume.get(minute, Decimal(0)) + Decimal(row["size"])
            self.trades += 1

    def candle(self, symbol: str, action: str, bars: list[list[str]]) -> None:
        if action == "update" and len(bars) == 2 and int(bars[0][0]) > self.begin_ms.get(symbol, 2**62):
            assert Decimal(bars[0][5]) == self.volume.get((symbol, int(bars[0][0]) // 60_000), Decimal(0))
            self.candles += 1


@pytest.mark.nightly
async def test_quarter_of_an_hour_is_whole_and_exact() -> None:
    """Over block borders, listings and removals: no gap, no crossed book, no trade twice, candles to the last digit."""
    market = GeneratedMarket(7, 20, listings_per_day=1440.0)
    server = Server(market, clock=Clock(SPEED), cadence=CALM, has_checksum=True)
    await server.start()
    client = Client()
    async with websockets.asyncio.client.connect(server.ws_url + "/public", max_size=None) as socket:
        rows = market.contracts(server.clock.now_ns() // 1_000_000_000)
        for channel in ("trade", "books", "candle1m"):
            args = [{"instType": "USDT-FUTURES", "channel": channel, "instId": row["symbol"]} for row in rows]
            await socket.send(json.dumps({"op": "subscribe", "args": args}, ensure_ascii=False))
        begin_ms = server.clock.now_ms()
        while client.last_ms < begin_ms + MARKET_S * 1000:
            text = await asyncio.wait_for(socket.recv(), 10)
            frame = json.loads(text)
            if "action" not in frame:
                assert frame["event"] == "subscribe"
                continue
            symbol, channel, data = frame["arg"]["instId"], frame["arg"]["channel"], frame["data"]
            if channel == "books":
                client.book(symbol, frame["action"], data[0])
            elif channel == "trade":
                client.trade(symbol, frame["action"], data, frame["ts"])
            else:
                client.candle(symbol, frame["action"], data)
    await server.stop()

    assert client.updates > 0.8 * len(rows) * MARKET_S
    assert client.trades > 10_000
    assert client.candles > 50
