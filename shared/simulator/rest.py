"""Bitget's REST v2 for USDT-M futures: a table of endpoints, one handler each.

An endpoint returns its `data`; the envelope, statuses, rate limits and signatures are common (`Rest.handle`).
To extend: write a method and add its row to `_ENDPOINTS`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from shared.simulator.feed import MS, NS, PublicFeed
from shared.simulator.gate import RateLimit, Refused

Params = Mapping[str, Any]
PRODUCT_TYPES = ("USDT-FUTURES", "COIN-FUTURES", "USDC-FUTURES", "SUSDT-FUTURES", "SCOIN-FUTURES", "SUSDC-FUTURES")
MARKET = "/api/v2/mix/market/"


class Endpoint(msgspec.Struct, frozen=True):
    method: str
    per_s: int
    is_private: bool
    handler: str  # name of the method of Rest


_ENDPOINTS = {
    "/api/v2/public/time": Endpoint("GET", 20, False, "server_time"),
    MARKET + "contracts": Endpoint("GET", 20, False, "contracts"),
    MARKET + "ticker": Endpoint("GET", 20, False, "ticker"),
    MARKET + "tickers": Endpoint("GET", 20, False, "tickers"),
    MARKET + "merge-depth": Endpoint("GET", 20, False, "merge_depth"),
    MARKET + "fills": Endpoint("GET", 20, False, "fills"),
    MARKET + "fills-history": Endpoint("GET", 10, False, "fills"),
    MARKET + "current-fund-rate": Endpoint("GET", 20, False, "current_fund_rate"),
}


class Rest:
    """Answers REST requests from a feed (public) and a venue (private)."""

    def __init__(self, feed: PublicFeed) -> None:
        self.feed, self.market = feed, feed.market
        self._contracts = feed.market.contracts()
        self._limits = RateLimit()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request in Bitget's envelope, whatever happens."""
        headers: dict[str, str] = {}
        try:
            endpoint = _ENDPOINTS.get(request.path)
            if endpoint is None or endpoint.method != request.method:
                raise Refused("40404", "Request URL NOT FOUND", 404)
            caller = request.remote or ""
            remaining = self._limits.take(caller, request.path, endpoint.per_s, time.monotonic())
            headers["x-mbx-used-remain-limit"] = str(remaining)
            data = getattr(self, endpoint.handler)(dict(request.query))
        except Refused as refused:
            return _answer(refused.code, refused.message, None, refused.status, headers)
        return _answer("00000", "success", data, 200, headers)

    # ------------------------------------------------------------------------------------ public

    def server_time(self, params: Params) -> Any:
        return {"serverTime": str(time.time_ns() // MS)}

    def contracts(self, params: Params) -> Any:
        if not self._is_ours(params):
            return []
        if "symbol" in params:
            symbol = self._symbol(params)
            return [row for row in self._contracts if row["symbol"] == symbol]
        return self._contracts

    def ticker(self, params: Params) -> Any:
        return [self._ticker_row(self._symbol(params))]

    def tickers(self, params: Params) -> Any:
        return [self._ticker_row(symbol) for symbol in self.market.symbols] if self._is_ours(params) else []

    def merge_depth(self, params: Params) -> Any:
        symbol = self._symbol(params)
        limit = str(params.get("limit", "100"))
        depth = 100 if not limit.isdigit() else int(limit)
        now_ns = time.time_ns()
        asks, bids = self.feed.book_rows(now_ns, symbol, depth)
        place = self.market.price_places[self.market.symbols.index(symbol)]
        # JSON numbers here and only here, with the digits of the strings.
        return {
            "asks": [[_Number(p), _Number(s)] for p, s in asks],
            "bids": [[_Number(p), _Number(s)] for p, s in bids],
            "ts": str(now_ns // MS),
            "scale": f"{10.0**-place:.{place}f}",
            "precision": "scale0",
            "isMaxPrecision": "NO",
        }

    def fills(self, params: Params) -> Any:
        symbol = self._symbol(params)
        limit = min(100, int(params.get("limit", 100) or 100))
        rows = self.feed.recent_trades(time.time_ns(), symbol, limit)
        keys = ("tradeId", "price", "size", "side", "ts")
        return [{key: row[key] for key in keys} | {"symbol": symbol} for row in rows]

    def current_fund_rate(self, params: Params) -> Any:
        symbols = [self._symbol(params)] if "symbol" in params else list(self.market.symbols)
        rows = []
        for symbol in symbols:
            fields = self._fields(symbol)
            contract = next(row for row in self._contracts if row["symbol"] == symbol)
            rows.append(
                {
                    "symbol": symbol,
                    "fundingRate": fields["fundingRate"],
                    "fundingRateInterval": contract["fundInterval"],
                    "nextUpdate": fields["nextFundingTime"],
                    "minFundingRate": "-0.003",
                    "maxFundingRate": "0.003",
                }
            )
        return rows

    # ----------------------------------------------------------------------------------- helpers

    def _is_ours(self, params: Params) -> bool:
        product = str(params.get("productType", ""))
        if product.upper() not in PRODUCT_TYPES:
            raise Refused("40019", f"Parameter {product or 'productType'} cannot be empty")
        return product.upper() == "USDT-FUTURES"

    def _symbol(self, params: Params) -> str:
        self._is_ours(params)
        symbol = params.get("symbol")
        if not symbol:
            raise Refused("40019", "Parameter symbol cannot be empty")
        if not self.feed.knows(str(symbol)):
            raise Refused("40034", f"Parameter {symbol} does not exist")
        return str(symbol)

    def _fields(self, symbol: str) -> dict[str, str]:
        fields = self.feed.ticker_fields(time.time_ns(), symbol)
        if fields is None:
            raise Refused("40015", "System is abnormal, please try again later")
        return fields

    def _ticker_row(self, symbol: str) -> dict[str, Any]:
        f = self._fields(symbol)
        return {
            "symbol": symbol, "lastPr": f["lastPr"], "askPr": f["askPr"], "bidPr": f["bidPr"], "bidSz": f["bidSz"],
            "askSz": f["askSz"], "high24h": f["high24h"], "low24h": f["low24h"], "ts": str(time.time_ns() // MS),
            "change24h": f["change24h"], "baseVolume": f["baseVolume"], "quoteVolume": f["quoteVolume"],
            "usdtVolume": f["quoteVolume"], "openUtc": f["openUtc"], "changeUtc24h": f["change24h"],
            "indexPrice": f["indexPrice"], "fundingRate": f["fundingRate"], "holdingAmount": f["holdingAmount"],
            "deliveryStartTime": None, "deliveryTime": None, "deliveryStatus": "", "open24h": f["open24h"],
            "markPrice": f["markPrice"],
        }  # fmt: skip


class _Number(str):
    """A decimal that is written into JSON as a number, digit for digit."""

    __slots__ = ()


def _answer(code: str, message: str, data: Any, status: int, headers: dict[str, str]) -> web.Response:
    body = {"code": code, "msg": message, "requestTime": time.time_ns() // MS, "data": data}
    return web.Response(text=_dump(body), status=status, content_type="application/json", headers=headers)


def _dump(value: Any) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{_dump(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_dump(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


assert NS == 1_000_000_000
