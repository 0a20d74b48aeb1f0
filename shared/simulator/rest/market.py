"""Bitget's public REST v2 for USDT-M futures. Source: Bitget v2, REST -> Market; recorded in September 2026.

Read by everybody without a signature. An answer about a symbol is that of the current second; what lies further back
(candles, trades, funding rates) is `candles` and `past`, which say how far.

Not from recordings but inferred: which rows come where a window holds more than the limit (the newest); a depth `limit`
beside Bitget's five is served as a number; the numbers of `vip-fee-rate` and `oi-limit`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, ClassVar, TypeVar, cast

from shared.simulator import payloads
from shared.simulator.clock import MS
from shared.simulator.gate import Refused
from shared.simulator.markets.candles import GRANULARITIES, Kind
from shared.simulator.markets.past import Past
from shared.simulator.rest.common import (
    DAY_MS,
    MIX,
    Context,
    Endpoint,
    Group,
    JsonNumber,
    Params,
    limit,
    one_of,
    required,
    text,
    whole,
    window,
)

ANSWER_S = 8.0
"""Real seconds after which a client that asks for long history is told to try again: clients give up at ten."""

LATE_MAX = 4
"""Requests that are computed on after their client was told so; more are dropped, and begin anew when asked again."""

DEPTH_MAX = 100
_SCALES = ("scale0", "scale1", "scale2", "scale3")

RETENTION_DAYS = {
    "1m": 31, "3m": 31, "5m": 31, "15m": 52, "30m": 62, "1H": 83, "2H": 120, "4H": 240, "6H": 360, "6Hutc": 360,
}  # fmt: skip
"""What `candles` reaches back at Bitget; `history-candles` goes on. Ours is less, see `candles`."""

_VIP_LEVELS = (
    # level, 30 d turnover, assets, taker, maker, BTC and USDT withdrawn in a day (made up, in Bitget's fields)
    ("1", "10000000", "50000", "0.0005", "0.00016", "300", "5000000"),
    ("2", "50000000", "200000", "0.00047", "0.00014", "400", "6000000"),
    ("3", "100000000", "500000", "0.00045", "0.00012", "500", "7000000"),
    ("4", "200000000", "1000000", "0.00043", "0.0001", "600", "8000000"),
    ("5", "400000000", "2000000", "0.0004", "0.00008", "800", "10000000"),
    ("6", "800000000", "5000000", "0.00037", "0.00006", "1000", "15000000"),
    ("7", "1500000000", "10000000", "0.00035", "0.00004", "1500", "20000000"),
)
_VIP_KEYS = (
    "level", "dealAmount", "assetAmount", "takerFeeRate", "makerFeeRate", "btcWithdrawAmount", "usdtWithdrawAmount",
)  # fmt: skip

Answer = TypeVar("Answer")


class MarketRest(Group):
    """`/api/v2/public/time` and `/api/v2/mix/market/*`."""

    ENDPOINTS: ClassVar[dict[str, Endpoint]] = {
        "/api/v2/public/time": Endpoint("GET", 20, False, "server_time"),
        MIX + "market/contracts": Endpoint("GET", 20, False, "contracts"),
        MIX + "market/ticker": Endpoint("GET", 20, False, "ticker"),
        MIX + "market/tickers": Endpoint("GET", 20, False, "tickers"),
        MIX + "market/merge-depth": Endpoint("GET", 20, False, "merge_depth"),
        MIX + "market/candles": Endpoint("GET", 20, False, "candles"),
        MIX + "market/history-candles": Endpoint("GET", 20, False, "history_candles"),
        MIX + "market/history-index-candles": Endpoint("GET", 20, False, "history_index_candles"),
        MIX + "market/history-mark-candles": Endpoint("GET", 20, False, "history_mark_candles"),
        MIX + "market/fills": Endpoint("GET", 20, False, "fills"),
        MIX + "market/fills-history": Endpoint("GET", 10, False, "fills_history"),
        MIX + "market/current-fund-rate": Endpoint("GET", 20, False, "current_fund_rate"),
        MIX + "market/history-fund-rate": Endpoint("GET", 20, False, "history_fund_rate"),
        MIX + "market/funding-time": Endpoint("GET", 20, False, "funding_time"),
        MIX + "market/open-interest": Endpoint("GET", 20, False, "open_interest"),
        MIX + "market/symbol-price": Endpoint("GET", 20, False, "symbol_price"),
        MIX + "market/query-position-lever": Endpoint("GET", 10, False, "query_position_lever"),
        MIX + "market/oi-limit": Endpoint("GET", 10, False, "oi_limit"),
        MIX + "market/vip-fee-rate": Endpoint("GET", 10, False, "vip_fee_rate"),
    }

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._candles = context.candles
        self._past = Past(self.market, self._candles.retained_s)
        self._late: set[asyncio.Task[Any]] = set()
        self._rows: list[dict[str, Any]] = []
        self._by_symbol: dict[str, dict[str, Any]] = {}

    def server_time(self, params: Params, key: str) -> Any:
        return {"serverTime": str(self.context.clock.told_ms())}

    def vip_fee_rate(self, params: Params, key: str) -> Any:
        return [dict(zip(_VIP_KEYS, row, strict=True)) for row in _VIP_LEVELS]

    # -------------------------------------------------------------------------------------- symbols

    def contracts(self, params: Params, key: str) -> Any:
        if text(params, "symbol"):
            return [self._contract(self._listed(params))]
        return list(self._contract_rows().values()) if self._is_ours(params) else []

    def query_position_lever(self, params: Params, key: str) -> Any:
        symbol = self._listed(params)
        return [
            {
                "symbol": symbol, "level": str(tier.level), "startUnit": payloads.plain(tier.start_usdt),
                "endUnit": payloads.plain(tier.end_usdt), "leverage": str(tier.leverage_max),
                "keepMarginRate": f"{tier.maintenance_rate:.4f}",
            }
            for tier in self.venue.tiers(symbol)
        ]  # fmt: skip

    def oi_limit(self, params: Params, key: str) -> Any:
        rows = []
        for symbol in self._one_or_all(params):
            fields = self._quoted(symbol)
            # posLimit is the share of the open interest that one user may hold (Bitget v2, Get Contract Config).
            interest = Decimal(fields.get("holdingAmount") or 0) * Decimal(fields.get("markPrice") or 0)
            value = str(round(interest * Decimal(self._contract(symbol)["posLimit"])))
            rows.append({"symbol": symbol, "notionalValue": value, "totalNotionalValue": value})
        return rows

    # --------------------------------------------------------------------------------------- prices

    def ticker(self, params: Params, key: str) -> Any:
        return [self._ticker_row(self._fields(self._listed(params)))]

    def tickers(self, params: Params, key: str) -> Any:
        if not self._is_ours(params):
            return []
        return [self._ticker_row(fields) for symbol in self._contract_rows() if (fields := self._quoted(symbol))]

    def symbol_price(self, params: Params, key: str) -> Any:
        symbol = self._listed(params)
        f = self._fields(symbol)
        return [
            {
                "symbol": symbol, "price": f["lastPr"], "indexPrice": f["indexPrice"], "markPrice": f["markPrice"],
                "ts": str(self.context.now_ns() // MS),
            }
        ]  # fmt: skip

    def open_interest(self, params: Params, key: str) -> Any:
        symbol = self._listed(params)
        rows = [{"symbol": symbol, "size": self._fields(symbol)["holdingAmount"]}]
        return {"openInterestList": rows, "ts": str(self.context.now_ns() // MS)}

    def merge_depth(self, params: Params, key: str) -> Any:
        symbol = self._listed(params)
        precision = one_of(params, "precision", _SCALES, "scale0")
        depth = DEPTH_MAX if text(params, "limit").lower() == "max" else limit(params, DEPTH_MAX, DEPTH_MAX)
        now_ns = self.context.now_ns()
        row = self._contract(symbol)
        tick = Decimal(row["priceEndStep"]).scaleb(-int(row["pricePlace"]))
        scale = tick.scaleb(_SCALES.index(precision))
        asks, bids = self.feed.book_rows(now_ns, symbol, DEPTH_MAX)
        if precision != "scale0":
            asks, bids = _merged(asks, scale, ROUND_CEILING), _merged(bids, scale, ROUND_FLOOR)
        return {
            "asks": [[JsonNumber(price), JsonNumber(size)] for price, size in asks[:depth]],
            "bids": [[JsonNumber(price), JsonNumber(size)] for price, size in bids[:depth]],
            "ts": str(now_ns // MS),
            "scale": payloads.plain(scale),
            "precision": precision,
            "isMaxPrecision": "YES" if precision == _SCALES[-1] else "NO",
        }

    # -------------------------------------------------------------------------------------- candles

    async def candles(self, params: Params, key: str) -> Any:
        symbol, granularity = self._candle(params)
        kind = cast(Kind, one_of(params, "kLineType", ("market", "mark", "index"), "market").upper())
        window(params, 90)
        begin_ms = whole(params, "startTime")
        if granularity in RETENTION_DAYS:
            begin_ms = max(begin_ms or 0, self.context.now_ns() // MS - RETENTION_DAYS[granularity] * DAY_MS)
        return await self._in_time(
            self._candles.rows(
                symbol, granularity, self.context.now_ns(),
                limit=limit(params, most=1000), begin_ms=begin_ms, end_ms=whole(params, "endTime"), kind=kind,
            )
        )  # fmt: skip

    async def history_candles(self, params: Params, key: str) -> Any:
        kind = one_of(params, "kLineType", ("market", "mark", "index"), "market").upper()
        return await self._history(params, cast(Kind, kind))

    async def history_index_candles(self, params: Params, key: str) -> Any:
        return await self._history(params, "INDEX")

    async def history_mark_candles(self, params: Params, key: str) -> Any:
        return await self._history(params, "MARK")

    async def _history(self, params: Params, kind: Kind) -> Any:
        """Return closed candles that open before endTime; startTime is ignored (measured in September 2026)."""
        symbol, granularity = self._candle(params)
        window(params, 90)
        return await self._in_time(
            self._candles.rows(
                symbol, granularity, self.context.now_ns(),
                limit=limit(params, most=200), end_ms=whole(params, "endTime"), with_running=False, kind=kind,
            )
        )  # fmt: skip

    def _candle(self, params: Params) -> tuple[str, str]:
        symbol, granularity = self._listed(params), required(params, "granularity")
        if granularity not in GRANULARITIES:
            raise Refused("40020", "Parameter granularity error")
        return symbol, granularity

    # --------------------------------------------------------------------------------------- trades

    async def fills(self, params: Params, key: str) -> Any:
        symbol = self._listed(params)
        return await self._in_time(self._past.trades(symbol, self.context.now_ns(), limit(params)))

    async def fills_history(self, params: Params, key: str) -> Any:
        symbol = self._listed(params)
        window(params, 7)
        now_ns = self.context.now_ns()
        begin_ms = max(whole(params, "startTime") or 0, now_ns // MS - 90 * DAY_MS)
        return await self._in_time(
            self._past.trades(
                symbol, now_ns, limit(params, 500, 1000),
                before_id=whole(params, "idLessThan"), begin_ms=begin_ms, end_ms=whole(params, "endTime"),
            )
        )  # fmt: skip

    # -------------------------------------------------------------------------------------- funding

    def current_fund_rate(self, params: Params, key: str) -> Any:
        rows = []
        for symbol in self._one_or_all(params):
            fields, interval = self._quoted(symbol), self._contract(symbol)["fundInterval"]
            # A symbol before its launch has a row without bounds (seen in September 2026).
            cap = payloads.plain(self._funding_cap(symbol)) if fields else None
            rows.append(
                {
                    "symbol": symbol, "fundingRate": fields.get("fundingRate", "0"), "fundingRateInterval": interval,
                    "nextUpdate": fields.get("nextFundingTime", ""), "minFundingRate": cap and f"-{cap}",
                    "maxFundingRate": cap,
                }
            )  # fmt: skip
        return rows

    async def history_fund_rate(self, params: Params, key: str) -> Any:
        symbol = self._listed(params)
        size, page = whole(params, "pageSize"), whole(params, "pageNo")
        if size == 0 or page == 0:
            raise Refused("40020", f"Parameter {'pageSize' if size == 0 else 'pageNo'} error")
        size, page = min(100, size or 20), min(page or 1, 10_000)
        row = self._contract(symbol)
        rates = await self._in_time(
            self._past.funding_rates(
                symbol, self.context.now_ns(), int(row["fundInterval"]),
                skip=(page - 1) * size, count=size, launch_ms=int(row["launchTime"] or 0),
            )
        )  # fmt: skip
        return [
            {"symbol": symbol, "fundingRate": payloads.plain(Decimal(f"{rate:.6f}")), "fundingTime": str(at_ms)}
            for at_ms, rate in rates
        ]

    def funding_time(self, params: Params, key: str) -> Any:
        symbol = self._listed(params)
        fields, interval = self._fields(symbol), self._contract(symbol)["fundInterval"]
        return [{"symbol": symbol, "nextFundingTime": fields["nextFundingTime"], "ratePeriod": interval}]

    def _funding_cap(self, symbol: str) -> Decimal:
        """Return the bound of the rate: 0.3 % for the majors, 1 % to 2 % for the others (September 2026)."""
        leverage = int(self._contract(symbol)["maxLever"])
        return Decimal("0.003") if leverage >= 125 else Decimal("0.01") if leverage >= 50 else Decimal("0.02")

    # --------------------------------------------------------------------------------------- shared

    async def _in_time(self, answer: Coroutine[Any, Any, Answer]) -> Answer:
        """Return the answer, or tell the client to try again and go on computing."""
        task = asyncio.create_task(answer)
        done, _ = await asyncio.wait({task}, timeout=ANSWER_S)
        if done:
            return task.result()
        if len(self._late) >= LATE_MAX:
            task.cancel()
        self._late.add(task)
        task.add_done_callback(self._ended)
        raise Refused("40725", "service return an error")

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asks again meets it again

    def _contract_rows(self) -> dict[str, dict[str, Any]]:
        """Return symbol -> contract row of now; not to be changed."""
        rows = self.desk.contract_rows(self.context.now_ns())
        if rows is not self._rows:  # the same list is returned while nothing changes
            self._rows, self._by_symbol = rows, {row["symbol"]: row for row in rows}
        return self._by_symbol

    def _contract(self, symbol: str) -> dict[str, Any]:
        return self._contract_rows()[symbol]

    def _listed(self, params: Params) -> str:
        """Return the symbol that is asked for, which must have a contract; any valid product type will do."""
        symbol = self._symbol(params)
        row = self._contract_rows().get(symbol)
        if row is None or row["symbolStatus"] == "off":
            raise Refused("40309", "The symbol has been removed")
        return symbol

    def _one_or_all(self, params: Params) -> list[str]:
        if text(params, "symbol"):
            return [self._listed(params)]
        return list(self._contract_rows()) if self._is_ours(params) else []

    def _quoted(self, symbol: str) -> dict[str, str]:
        """Return the fields of the ticker, {} of a symbol without a market."""
        return self.feed.ticker_fields(self.context.now_ns(), symbol) or {}

    def _ticker_row(self, f: dict[str, str]) -> Any:
        return {
            "symbol": f["symbol"], "lastPr": f["lastPr"], "askPr": f["askPr"], "bidPr": f["bidPr"],
            "bidSz": f["bidSz"], "askSz": f["askSz"], "high24h": f["high24h"], "low24h": f["low24h"],
            "ts": str(self.context.now_ns() // MS), "change24h": f["change24h"], "baseVolume": f["baseVolume"],
            "quoteVolume": f["quoteVolume"], "usdtVolume": f["quoteVolume"], "openUtc": f["openUtc"],
            "changeUtc24h": _change(f["lastPr"], f["openUtc"]), "indexPrice": f["indexPrice"],
            "fundingRate": f["fundingRate"], "holdingAmount": f["holdingAmount"], "deliveryStartTime": None,
            "deliveryTime": None, "deliveryStatus": "", "open24h": f["open24h"], "markPrice": f["markPrice"],
        }  # fmt: skip


def _merged(rows: list[list[str]], scale: Decimal, rounding: str) -> list[list[str]]:
    """Return levels in steps of `scale`, away from the touch, sizes added up; order stays."""
    sizes: dict[Decimal, Decimal] = {}
    for price, size in rows:
        step = (Decimal(price) / scale).to_integral_value(rounding)
        sizes[step] = sizes.get(step, Decimal(0)) + Decimal(size)
    return [[payloads.plain(step * scale), payloads.plain(size)] for step, size in sizes.items()]


def _change(last: str, opened: str) -> str:
    """Return last / opened - 1 with five decimals, "" where one is unknown."""
    if not last or not opened or not Decimal(opened):
        return ""
    return payloads.plain((Decimal(last) / Decimal(opened) - 1).quantize(Decimal("0.00001")))
