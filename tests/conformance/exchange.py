"""ccxt, pointed at a simulator on loopback: the client that we did not write.

Nothing here helps it: URLs are changed, and which kinds of markets it loads; every header, body, signature, frame and
parser is its own.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import ccxt.pro

from shared.simulator.faults.conditions import Change
from shared.simulator.gate import Credentials
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator.server import Server

MARKET = GeneratedMarket(17, 6)
ACCOUNT = Credentials("bg_key", "bg_secret", "bg_pass", Decimal(100_000))
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
TAKER = 0.0006

_GROUPS = ("spot", "mix", "user", "p2p", "broker", "margin", "common", "tax", "convert", "copy", "earn", "uta")
_SOCKETS = {
    "public": "/v2/ws/public", "private": "/v2/ws/private", "utaPublic": "/v3/ws/public", "utaPrivate": "/v3/ws/private",
}  # fmt: skip


class World:
    """A running simulator and ccxt as a client of it."""

    def __init__(self, server: Server, exchange: Any) -> None:
        self.server, self.exchange = server, exchange

    @property
    def venue(self) -> Any:
        return self.server.desk.venue

    def price(self, symbol: str, times: float) -> float:
        """Return a multiple of the mark, on the tick."""
        mark = float(self.venue.mark(self.exchange.market(symbol)["id"]))
        return float(self.exchange.price_to_precision(symbol, mark * times))

    def amount(self, symbol: str, usdt: float) -> float:
        """Return about so much notional, on the size step."""
        mark = float(self.venue.mark(self.exchange.market(symbol)["id"]))
        return float(self.exchange.amount_to_precision(symbol, usdt / mark))

    async def filled(self, order: Any) -> Any:
        """Return a market order as it is after matching."""
        found = await self.exchange.fetch_order(order["id"], order["symbol"])
        assert found["status"] == "closed", found
        return found


def pointed_at(server: Server, account: Credentials | None = ACCOUNT, **options: Any) -> Any:
    """Return ccxt's Bitget with the addresses of `server`."""
    keys = {} if account is None else {"apiKey": account.key, "secret": account.secret, "password": account.passphrase}
    # ccxt's own throttle would only make the tests slower than Bitget's limits do.
    exchange = ccxt.pro.bitget({**keys, "enableRateLimit": False, "options": {"defaultType": "swap"} | options})
    exchange.timeout_on_exit = 0  # ms that it would wait for the network after closing
    for group in _GROUPS:
        exchange.urls["api"][group] = server.rest_url
    base = server.ws_url.removesuffix("/v2/ws")
    for environment in ("ws", "demo"):
        exchange.urls["api"][environment].update({name: base + path for name, path in _SOCKETS.items()})
    return exchange


@asynccontextmanager
async def serving(*accounts: Credentials) -> AsyncIterator[Server]:
    """Run a simulator that matches at once and has no limits of calls."""
    server = Server(MARKET, accounts=accounts or (ACCOUNT,), history_s=3 * 3600)  # more would only take longer
    Change(match_ms=0.0, rate_limit_scale=1000.0).apply(server.conditions)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def trading(account: Credentials | None = ACCOUNT, **options: Any) -> AsyncIterator[World]:
    """Run a simulator with one client that has loaded the markets."""
    async with serving(*([account] if account else [])) as server:
        exchange = pointed_at(server, account, **{"uta": False, "fetchMarkets": {"types": ["swap"]}} | options)
        try:
            if _loaded:
                exchange.set_markets(*_loaded)
            else:
                await exchange.load_markets()
                _loaded.extend((exchange.markets, exchange.currencies))
            server.desk.advance(time.time_ns())
            yield World(server, exchange)
        finally:
            await exchange.close()


_loaded: list[Any] = []  # markets and currencies: the market of all tests is the same
