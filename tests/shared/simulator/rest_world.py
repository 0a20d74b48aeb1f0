"""A client of the simulator's private REST that shares no line with it, and a server to ask.

What is signed, and how, is written down here a second time, from Bitget's documentation.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import aiohttp

from shared.simulator.clock import Clock
from shared.simulator.gate import Credentials
from shared.simulator.markets.market import GeneratedMarket, Market
from shared.simulator.server import Server

MARKET = GeneratedMarket(7, 4)
ACCOUNT = Credentials("key", "secret", "pass", Decimal(10_000))
MIX = "/api/v2/mix/"
PRODUCT = {"productType": "USDT-FUTURES"}
WHERE = PRODUCT | {"symbol": "BTCUSDT", "marginCoin": "USDT"}
ORDER = WHERE | {"marginMode": "crossed", "orderType": "market", "size": "0.01"}


class RestClient:
    """One account that asks."""

    def __init__(self, server: Server, http: aiohttp.ClientSession, account: Credentials = ACCOUNT) -> None:
        self.server, self.http, self.account = server, http, account

    def headers(self, method: str, target: str, body: bytes = b"") -> dict[str, str]:
        stamp = str(time.time_ns() // 1_000_000)
        prehash = f"{stamp}{method}{target}".encode() + body
        digest = hmac.new(self.account.secret.encode(), prehash, hashlib.sha256).digest()
        headers = {
            "ACCESS-KEY": self.account.key, "ACCESS-PASSPHRASE": self.account.passphrase, "ACCESS-TIMESTAMP": stamp,
            "ACCESS-SIGN": base64.b64encode(digest).decode(), "Content-Type": "application/json",
        }  # fmt: skip
        return headers | ({"paptrading": "1"} if self.account.is_demo else {})

    def login(self) -> dict[str, str]:
        """Return the argument of a WebSocket login: seconds there."""
        stamp = str(int(time.time()))
        prehash = f"{stamp}GET/user/verify".encode()
        digest = hmac.new(self.account.secret.encode(), prehash, hashlib.sha256).digest()
        fields = {"apiKey": self.account.key, "passphrase": self.account.passphrase, "timestamp": stamp}
        return fields | {"sign": base64.b64encode(digest).decode()}

    async def send(self, method: str, target: str, body: bytes = b"", **changed: str) -> tuple[int, Any]:
        """Return HTTP status and whole answer; `changed` replaces headers."""
        headers = self.headers(method, target, body) | changed
        async with self.http.request(method, self.server.rest_url + target, headers=headers, data=body or None) as got:
            return got.status, json.loads(await got.read())

    async def ask(self, path: str, **params: str) -> Any:
        """Return the whole answer of a GET below /api/v2/mix/ (or of any path that begins with a slash)."""
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in params.items())
        target = (path if path.startswith("/") else MIX + path) + ("?" + query if query else "")
        return (await self.send("GET", target))[1]

    async def tell(self, path: str, **body: Any) -> Any:
        """Return the whole answer of a POST."""
        return (await self.send("POST", MIX + path, json.dumps(body).encode()))[1]

    async def get(self, path: str, **params: str) -> Any:
        """Return the data of a GET that succeeds."""
        answer = await self.ask(path, **params)
        assert answer["code"] == "00000", answer
        return answer["data"]

    async def post(self, path: str, **body: Any) -> Any:
        """Return the data of a POST that succeeds."""
        answer = await self.tell(path, **body)
        assert answer["code"] == "00000", answer
        return answer["data"]

    async def code(self, path: str, **body: Any) -> str:
        """Return the code of a POST that is refused as Bitget refuses."""
        status, answer = await self.send("POST", MIX + path, json.dumps(body).encode())
        assert (status, answer["data"]) == (400, None), answer
        return str(answer["code"])

    async def codes(self, path: str, body: dict[str, Any], changes: Iterable[dict[str, Any]]) -> list[str]:
        """Return the codes of POSTs that are refused, each with other changes to the same body."""
        return [await self.code(path, **body | change) for change in changes]

    async def get_code(self, path: str, **params: str) -> str:
        """Return the code of a GET that is refused."""
        answer = await self.ask(path, **params)
        assert answer["data"] is None, answer
        return str(answer["code"])

    async def price(self, times: float = 1.0, symbol: str = "BTCUSDT") -> str:
        """Return a multiple of the mark as a price that the contract takes (tick 0.1)."""
        row = (await self.get("market/ticker", productType="USDT-FUTURES", symbol=symbol))[0]
        return f"{float(row['markPrice']) * times:.1f}".removesuffix(".0")


@asynccontextmanager
async def serving(
    *accounts: Credentials, market: Market = MARKET, clock: Clock | None = None
) -> AsyncIterator[list[RestClient]]:
    """Run a server for these accounts that matches at once and knows no limit of calls per second."""
    accounts = accounts or (ACCOUNT,)
    server = Server(market, accounts=accounts, clock=clock)
    server.conditions.match_ms = 0.0
    server.conditions.rate_limit_scale = 1e6
    await server.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield [RestClient(server, http, account) for account in accounts]
    finally:
        await server.stop()
