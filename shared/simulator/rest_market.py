"""Bitget's public REST v2 for USDT-M futures. Source: Bitget v2, REST -> Market; recorded in September 2026."""

from __future__ import annotations

from typing import Any, ClassVar

from shared.simulator import payloads
from shared.simulator.rest_common import MIX, MS, Context, Endpoint, Group, JsonNumber, Params, limit


class MarketRest(Group):
    """`/api/v2/public/time` and `/api/v2/mix/market/*`."""

    ENDPOINTS: ClassVar[dict[str, Endpoint]] = {
        "/api/v2/public/time": Endpoint("GET", 20, False, "server_time"),
        MIX + "market/contracts": Endpoint("GET", 20, False, "contracts"),
        MIX + "market/ticker": Endpoint("GET", 20, False, "ticker"),
        MIX + "market/tickers": Endpoint("GET", 20, False, "tickers"),
        MIX + "market/merge-depth": Endpoint("GET", 20, False, "merge_depth"),
        MIX + "market/fills": Endpoint("GET", 20, False, "public_fills"),
        MIX + "market/fills-history": Endpoint("GET", 10, False, "public_fills"),
        MIX + "market/current-fund-rate": Endpoint("GET", 20, False, "current_fund_rate"),
    }

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._rows = {row["symbol"]: row for row in self.market.contracts()}

    def server_time(self, params: Params, key: str) -> Any:
        return {"serverTime": str(self.context.clock.told_ms())}

    def contracts(self, params: Params, key: str) -> Any:
        if not self._is_ours(params):
            return []
        rows = self.desk.contract_rows(self.context.now_ns())
        if "symbol" not in params:
            return rows
        symbol = self._symbol(params)
        return [row for row in rows if row["symbol"] == symbol]

    def ticker(self, params: Params, key: str) -> Any:
        return [self._ticker_row(self._symbol(params))]

    def tickers(self, params: Params, key: str) -> Any:
        return [self._ticker_row(symbol) for symbol in self.market.symbols] if self._is_ours(params) else []

    def merge_depth(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        depth = str(params.get("limit", "100"))
        now_ns = self.context.now_ns()
        asks, bids = self.feed.book_rows(now_ns, symbol, int(depth) if depth.isdigit() else 100)
        return {
            "asks": [[JsonNumber(p), JsonNumber(s)] for p, s in asks],
            "bids": [[JsonNumber(p), JsonNumber(s)] for p, s in bids],
            "ts": str(now_ns // MS),
            "scale": payloads.plain(self.venue.contracts[symbol].tick),
            "precision": "scale0",
            "isMaxPrecision": "NO",
        }

    def public_fills(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        rows = self.feed.recent_trades(self.context.now_ns(), symbol, limit(params))
        keys = ("tradeId", "price", "size", "side", "ts")
        return [{key: row[key] for key in keys} | {"symbol": symbol} for row in rows]

    def current_fund_rate(self, params: Params, key: str) -> Any:
        symbols = [self._symbol(params)] if "symbol" in params else list(self.market.symbols)
        return [self._fund_rate_row(symbol) for symbol in symbols]

    def _fund_rate_row(self, symbol: str) -> Any:
        fields = self._fields(symbol)
        return {
            "symbol": symbol, "fundingRate": fields["fundingRate"],
            "fundingRateInterval": self._rows[symbol]["fundInterval"], "nextUpdate": fields["nextFundingTime"],
            "minFundingRate": "-0.003", "maxFundingRate": "0.003",
        }  # fmt: skip

    def _ticker_row(self, symbol: str) -> Any:
        f = self._fields(symbol)
        return {
            "symbol": symbol, "lastPr": f["lastPr"], "askPr": f["askPr"], "bidPr": f["bidPr"], "bidSz": f["bidSz"],
            "askSz": f["askSz"], "high24h": f["high24h"], "low24h": f["low24h"], "ts": str(self.context.now_ns() // MS),
            "change24h": f["change24h"], "baseVolume": f["baseVolume"], "quoteVolume": f["quoteVolume"],
            "usdtVolume": f["quoteVolume"], "openUtc": f["openUtc"], "changeUtc24h": f["change24h"],
            "indexPrice": f["indexPrice"], "fundingRate": f["fundingRate"], "holdingAmount": f["holdingAmount"],
            "deliveryStartTime": None, "deliveryTime": None, "deliveryStatus": "", "open24h": f["open24h"],
            "markPrice": f["markPrice"],
        }  # fmt: skip
