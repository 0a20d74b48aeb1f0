"""The public endpoints over a real socket: structure, bounds, what is listed, and agreement with what was pushed."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import pytest_asyncio

from shared.simulator.clock import Clock
from shared.simulator.desk import Desk
from shared.simulator.gate import DEFAULT_ACCOUNT
from shared.simulator.markets.blocks import Outline
from shared.simulator.markets.market import GeneratedMarket, Market
from shared.simulator.markets.recorded import RecordedMarket
from shared.simulator.pushes.feed import HISTORY, PublicFeed
from shared.simulator.rest import market as rest_market
from shared.simulator.server import Server
from shared.simulator.venue.orders import FundingReport, OrderRequest
from shared.types import NS, OrderKind, Side
from tests.shared.simulator.structure import differences

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "bitget_public.json").read_text())
MARKET = GeneratedMarket(13, 9, listings_per_day=60.0)  # one of nine comes and goes within 24 minutes
NEWCOMER, LIFE = next((row.symbol, row.life) for row in MARKET.listings if row.life is not None)
BEGIN_S = LIFE.begin_s + (1_795_300_000 // LIFE.period_s) * LIFE.period_s
START_S = BEGIN_S + LIFE.period_s // 2  # trading, in the middle of a life
BTC = {"productType": "USDT-FUTURES", "symbol": "BTCUSDT"}
PUBLIC = "/api/v2/mix/market/"
MIN = 60_000


class World:
    """A server whose clock starts where the test wants and can be put forward, and a client."""

    def __init__(self, server: Server, http: aiohttp.ClientSession, jumped_ns: list[int]) -> None:
        self.server, self.http, self._jumped_ns = server, http, jumped_ns

    def jump(self, seconds: float) -> None:
        self._jumped_ns[0] += int(seconds * NS)

    async def ask(self, path: str, **params: Any) -> tuple[int, Any]:
        url = self.server.rest_url + (path if path.startswith("/") else PUBLIC + path)
        async with self.http.get(url, params={name: str(value) for name, value in params.items()}) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str, **params: Any) -> Any:
        status, body = await self.ask(path, **params)
        assert (status, body["code"], body["msg"]) == (200, "00000", "success"), body
        return body["data"]

    async def refused(self, path: str, **params: Any) -> tuple[str, str]:
        status, body = await self.ask(path, **params)
        assert (status, body["data"]) == (400, None), body
        return body["code"], body["msg"]


@asynccontextmanager
async def serving(second: int = START_S, market: Market = MARKET, history_s: int | None = None) -> AsyncIterator[World]:
    jumped_ns = [0]
    clock = Clock(start_ns=second * NS, monotonic_ns=lambda: time.monotonic_ns() + jumped_ns[0])
    server = Server(market, clock=clock, history_s=history_s)
    server.conditions.rate_limit_scale = 1e6
    await server.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield World(server, http, jumped_ns)
    finally:
        await server.stop()


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    async with serving() as world:
        yield world


def request_of(endpoint: str) -> dict[str, Any]:
    more = {"granularity": "1m"} if "candles" in endpoint else {}
    return {} if endpoint in ("vip-fee-rate", "/api/v2/public/time") else BTC | more


# ------------------------------------------------------------------------------------------------ structure


@pytest.mark.parametrize("endpoint", GOLDEN)
async def test_answer_has_the_structure_of_our_own_payload(world: World, endpoint: str) -> None:
    """Keys, types, nulls, numbers in text and numbers as numbers."""
    answer = await world.get(endpoint, **request_of(endpoint))
    if endpoint == "merge-depth":  # a JSON number has no trailing zeros: 60000 and 60000.1 are one type
        answer |= {side: [[float(number) for number in level] for level in answer[side]] for side in ("asks", "bids")}
    assert differences(answer, GOLDEN[endpoint]) == []


def test_every_endpoint_has_its_payload() -> None:
    """An endpoint without a payload would be compared with nothing."""
    served = {path.removeprefix(PUBLIC) for path in rest_market.MarketRest.ENDPOINTS}

    assert served - {"tickers"} == set(GOLDEN)


async def test_answers_have_the_structure_of_recorded_ones(world: World, outside: Path) -> None:
    """What Bitget itself answered in July and September 2026, names of coins aside."""
    folder = outside / "bitget" / "fixtures"
    live = folder / "recorded_live_202609"

    def recorded(name: str) -> Any:
        return json.loads((live / f"rest_{name}_BTCUSDT.json").read_text())["data"]

    candles = await world.get("history-candles", **BTC, granularity="1m", limit=5)
    assert differences(candles, recorded("history_candles_1m")) == []
    rates = await world.get("history-fund-rate", **BTC, pageSize=5)
    assert differences(rates, recorded("history_fund_rate")) == []
    tiers = await world.get("query-position-lever", **BTC)
    assert differences(tiers, recorded("query_position_lever")) == []
    rows = [json.loads(line) for line in (live / "rest_rows_tickers_fundrate_20260915.jsonl").read_text().splitlines()]
    ticker = (await world.get("tickers", productType="USDT-FUTURES"))[0]
    assert differences({name: ticker[name] for name in rows[0]}, rows[0]) == []
    assert differences(await world.get("current-fund-rate", **BTC), [rows[1]]) == []
    contracts = await world.get("contracts", productType="USDT-FUTURES")
    sample = json.loads((folder / "rest_contracts_usdt_futures_119rows_20260702.json").read_text())
    theirs = sample["data"] if isinstance(sample, dict) else sample
    theirs += json.loads((live / "rest_contracts_3rows.json").read_text())["data"]
    names = {"symbol": "S", "baseCoin": "C", "symbolStatus": "s"}
    contracts = [row for row in contracts if row["symbol"] != NEWCOMER]  # none of the recorded ones was to be removed
    assert differences([row | names for row in contracts], [row | names for row in theirs]) == []


async def test_errors_are_the_recorded_ones(world: World, outside: Path) -> None:
    """An unknown symbol and an unknown product type, word for word."""
    lines = (outside / "bitget/fixtures/recorded_live_202609/rest_errors.jsonl").read_text().splitlines()
    unknown_symbol, unknown_product = (json.loads(line) for line in lines[:2])

    assert differences((await world.ask("ticker", **BTC | {"symbol": "NOPEUSDT"}))[1], unknown_symbol) == []
    assert differences((await world.ask("tickers", productType="NOPE-FUTURES"))[1], unknown_product) == []


# ------------------------------------------------------------------------------------------------ who is asked about


async def test_unknown_product_types_and_symbols_are_refused(world: World) -> None:
    """40019 for the type, 40034 for the symbol, and 40019 where it is missing."""
    expected = ("40019", "Parameter NOPE-FUTURES cannot be empty")
    for endpoint in ("tickers", "ticker", "contracts", "current-fund-rate", "oi-limit", "candles", "fills"):
        assert await world.refused(endpoint, productType="NOPE-FUTURES", symbol="BTCUSDT") == expected
    for endpoint in set(GOLDEN) - {"/api/v2/public/time", "vip-fee-rate"}:
        request = request_of(endpoint) | {"symbol": "NOPEUSDT"}
        assert await world.refused(endpoint, **request) == ("40034", "Parameter NOPEUSDT does not exist"), endpoint
        if endpoint not in ("contracts", "current-fund-rate", "oi-limit"):
            del request["symbol"]
            assert await world.refused(endpoint, **request) == ("40019", "Parameter symbol cannot be empty"), endpoint


@pytest.mark.parametrize("product", ["COIN-FUTURES", "usdc-futures", "SUSDT-FUTURES", "SCOIN-FUTURES", "SUSDC-FUTURES"])
async def test_other_products_list_nothing_and_serve_our_symbols(world: World, product: str) -> None:
    """Their lists are empty; a valid symbol with the wrong product type is served anyway (measured)."""
    for endpoint in ("contracts", "tickers", "current-fund-rate", "oi-limit"):
        assert await world.get(endpoint, productType=product) == []
    for endpoint in ("ticker", "contracts", "funding-time", "merge-depth"):
        assert await world.get(endpoint, productType=product, symbol="BTCUSDT")


async def test_lists_have_every_symbol_that_trades_once(world: World) -> None:
    """No duplicates, no stranger, in any list."""
    for endpoint in ("contracts", "tickers", "current-fund-rate", "oi-limit"):
        rows = await world.get(endpoint, productType="usdt-futures")
        assert [row["symbol"] for row in rows] == list(MARKET.symbols)


async def test_symbol_before_its_launch_has_a_contract_and_no_market() -> None:
    """It is listed as such, has a funding row without bounds, and is in no list of prices."""
    async with serving(BEGIN_S + 5) as world:
        (row,) = await world.get("contracts", **BTC | {"symbol": NEWCOMER})
        assert row["symbolStatus"] == "listed"
        (rate,) = await world.get("current-fund-rate", **BTC | {"symbol": NEWCOMER})
        assert (rate["minFundingRate"], rate["maxFundingRate"]) == (None, None)
        assert NEWCOMER not in {row["symbol"] for row in await world.get("tickers", productType="USDT-FUTURES")}
        code, _ = await world.refused("ticker", **BTC | {"symbol": NEWCOMER})
        assert code == "40015"
        assert await world.get("history-fund-rate", **BTC | {"symbol": NEWCOMER}) == []


async def test_removed_symbol_is_told_as_removed() -> None:
    """40309, whatever is asked, also while its row is still shown as off."""
    absent = BEGIN_S + LIFE.period_s - 5
    off = BEGIN_S + LIFE.period_s * 9 // 10 + 5
    for second, is_shown in ((off, True), (absent, False)):
        async with serving(second) as world:
            rows = {row["symbol"]: row for row in await world.get("contracts", productType="USDT-FUTURES")}
            assert (NEWCOMER in rows) is is_shown
            for endpoint in set(GOLDEN) - {"/api/v2/public/time", "vip-fee-rate"}:
                request = request_of(endpoint) | {"symbol": NEWCOMER}
                assert await world.refused(endpoint, **request) == ("40309", "The symbol has been removed"), endpoint


async def test_changed_rules_are_told_by_contracts(world: World) -> None:
    """What somebody changes while the server runs is in the next answer."""
    before = (await world.get("contracts", **BTC))[0]
    world.server.desk.overlay({"BTCUSDT": {"fundInterval": "4", "minTradeNum": "0.01"}})

    assert (await world.get("contracts", **BTC))[0] == before | {"fundInterval": "4", "minTradeNum": "0.01"}
    assert (await world.get("funding-time", **BTC))[0]["ratePeriod"] == "4"


# ------------------------------------------------------------------------------------------------ prices and books


async def test_prices_are_those_of_the_pushes(world: World) -> None:
    """Tickers, symbol-price and open interest repeat the ticker channel of the same second."""
    for symbol in MARKET.symbols[:3]:
        where = BTC | {"symbol": symbol}
        (row,) = await world.get("ticker", **where)
        pushed = world.server.feed.ticker_fields(int(row["ts"]) * 1_000_000, symbol)
        assert pushed is not None
        assert {name: value for name, value in row.items() if name in pushed and name != "ts"} == {
            name: value for name, value in pushed.items() if name in row and name != "ts"
        }
        change = Decimal(row["lastPr"]) / Decimal(row["openUtc"]) - 1
        assert abs(Decimal(row["changeUtc24h"]) - change) <= Decimal("0.000005")
        (price,) = await world.get("symbol-price", **where)
        pushed = world.server.feed.ticker_fields(int(price["ts"]) * 1_000_000, symbol)
        assert pushed is not None
        assert [price["price"], price["markPrice"], price["indexPrice"]] == [
            pushed["lastPr"], pushed["markPrice"], pushed["indexPrice"],
        ]  # fmt: skip


@pytest.mark.parametrize("scale", [0, 1, 2, 3])
async def test_depth_is_merged_into_steps_of_ten_ticks(world: World, scale: int) -> None:
    """Bids fall into the step below, asks into the step above; no size is lost; the order stays best first."""
    for n, symbol in enumerate(MARKET.symbols[:4]):
        request = BTC | {"symbol": symbol, "precision": f"scale{scale}", "limit": "max"}
        answer = await world.get("merge-depth", **request)
        step = Decimal(1).scaleb(scale - MARKET.price_places[n])
        asks, bids = world.server.feed.book_rows(int(answer["ts"]) * 1_000_000, symbol, 100)
        assert Decimal(answer["scale"]) == step
        for side, rows, rounding in (("asks", asks, ROUND_CEILING), ("bids", bids, ROUND_FLOOR)):
            expected: dict[Decimal, Decimal] = {}
            for price, size in rows:
                at = (Decimal(price) / step).to_integral_value(rounding) * step
                expected[at] = expected.get(at, Decimal(0)) + Decimal(size)
            found = [(Decimal(str(price)), Decimal(str(size))) for price, size in answer[side]]
            # The answer has JSON numbers: compared as the decimals that they print.
            assert found == [(at.normalize(), size) for at, size in expected.items()]
            assert found == sorted(found, reverse=side == "bids")


async def test_depth_has_as_many_levels_as_asked_for(world: World) -> None:
    """1, 5, 15, 50 and max; what is no number is refused."""
    for limit in (1, 5, 15):
        answer = await world.get("merge-depth", **BTC, limit=limit)
        assert (len(answer["asks"]), len(answer["bids"])) == (limit, limit)
    deepest = await world.get("merge-depth", **BTC, limit="max")
    assert len(deepest["asks"]) >= 15
    for bad in ("0", "-1", "x", "1.5"):
        assert (await world.refused("merge-depth", **BTC, limit=bad))[0] == "40020"
    assert (await world.refused("merge-depth", **BTC, precision="scale9"))[0] == "40020"


async def test_depth_numbers_keep_their_digits(world: World) -> None:
    """They are written as the book has them, not through a float."""
    url = world.server.rest_url + PUBLIC + "merge-depth"
    async with world.http.get(url, params=BTC) as answer:
        raw = await answer.text()
    assert "e-" not in raw.lower().replace("merge-depth", "")
    decoded = json.loads(raw, parse_float=str, parse_int=str)["data"]["asks"]
    asks, _ = world.server.feed.book_rows(int(json.loads(raw)["data"]["ts"]) * 1_000_000, "BTCUSDT", 100)
    assert decoded == asks


# ------------------------------------------------------------------------------------------------ candles


async def test_candle_limits_are_clipped_silently(world: World) -> None:
    """100 by default, 1000 at most of `candles`, 200 of the history; 0 and words are refused."""
    hour = 3_600_000
    request = BTC | {"granularity": "1m"}
    assert len(await world.get("candles", **request)) == 100
    assert len(await world.get("history-candles", **request)) == 100
    assert len(await world.get("history-candles", **request, limit=5000)) == 200
    assert len(await world.get("candles", **request, limit=250)) == 250
    now_ms = START_S * 1000
    rows = await world.get("candles", **request, limit=5000, startTime=now_ms - hour, endTime=now_ms)
    assert len(rows) == 60
    for bad in ("0", "-5", "many"):
        assert (await world.refused("candles", **request, limit=bad))[0] == "40020"


async def test_history_candles_are_closed_and_ignore_the_start(world: World) -> None:
    """endTime bounds the opening time exclusively; startTime changes nothing (measured)."""
    request = BTC | {"granularity": "1m", "limit": 5}
    running = (await world.get("candles", **request))[-1][0]
    rows = await world.get("history-candles", **request)
    assert int(rows[-1][0]) == int(running) - MIN
    assert [int(b[0]) - int(a[0]) for a, b in pairwise(rows)] == [MIN] * 4
    last = rows[-2][0]
    assert (await world.get("history-candles", **request, endTime=last))[-1][0] == rows[-3][0]
    bounded = await world.get("history-candles", **request, endTime=int(last) + 1)
    assert bounded[-1][0] == last
    assert await world.get("history-candles", **request, endTime=int(last) + 1, startTime=last) == bounded


async def test_candles_of_a_window(world: World) -> None:
    """startTime is included, endTime is not, and a window of more than 90 days is refused."""
    request = BTC | {"granularity": "5m"}
    begin = START_S // 300 * 300_000 - 10 * 5 * MIN

    rows = await world.get("candles", **request, startTime=begin, endTime=begin + 20 * MIN)

    assert [int(row[0]) for row in rows] == [begin + k * 5 * MIN for k in range(4)]
    days = 86_400_000
    assert await world.refused("candles", **request, startTime=begin - 91 * days, endTime=begin) == (
        "00001", "startTime and endTime interval cannot be greater than 90 days",
    )  # fmt: skip
    assert await world.get("candles", **request, startTime=begin - 60 * days, endTime=begin - 59 * days) == []
    assert (await world.refused("candles", **request, startTime=begin, endTime=begin - 1))[0] == "40707"
    for granularity in ("1h", "2m", "1Mutc ", ""):
        code, _ = await world.refused("candles", **BTC, granularity=granularity)
        assert code == ("40020" if granularity else "40019")


async def test_kinds_of_candles_agree(world: World) -> None:
    """`kLineType` and the endpoints of mark and index give the same rows; MARKET is the default."""
    request = BTC | {"granularity": "1m", "limit": 3, "endTime": START_S // 60 * MIN}
    market = await world.get("history-candles", **request)
    assert market == await world.get("candles", **request, kLineType="market")
    for kind in ("MARK", "INDEX"):
        rows = await world.get("candles", **request, kLineType=kind)
        assert rows == await world.get(f"history-{kind.lower()}-candles", **request)
        assert rows != market
        assert {(row[5], row[6]) for row in rows} == {("0", "0")}
    assert (await world.refused("candles", **request, kLineType="SPOT"))[0] == "40020"


class HeldMarket(GeneratedMarket):
    """A market whose history is not computed until it is let go."""

    def __init__(self, seed: int, n_symbols: int) -> None:
        super().__init__(seed, n_symbols)
        self.going = threading.Event()
        self.outlined: list[int] = []

    def outline(self, second: int) -> Outline:
        assert self.going.wait(30.0)
        self.outlined.append(second)
        return super().outline(second)


async def test_long_history_does_not_stop_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a block is computed others are served; who waited too long is told to try again, and then succeeds."""
    monkeypatch.setattr(rest_market, "ANSWER_S", 0.1)
    market = HeldMarket(3, 2)
    async with serving(market=market) as world:
        request = BTC | {"granularity": "1m", "limit": 30}
        asking = asyncio.create_task(world.refused("candles", **request))
        for _ in range(3):
            assert await world.get("ticker", **BTC)
        assert await asking == ("40725", "service return an error")
        assert market.outlined == []
        market.going.set()
        while len(market.outlined) < 6:  # goes on without being asked again
            await asyncio.sleep(0.005)
        while (answer := await world.ask("candles", **request))[0] != 200:
            assert answer[1]["code"] == "40725"
        assert len(answer[1]["data"]) == 30
        assert len(market.outlined) <= 7


async def test_late_requests_are_bounded_and_end_with_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask, a few are computed on; after the server has stopped nobody computes."""
    monkeypatch.setattr(rest_market, "ANSWER_S", 0.01)
    market = HeldMarket(3, 2)
    async with serving(market=market) as world:
        asked = [world.refused("candles", **BTC, granularity="1m", limit=100 + k) for k in range(20)]
        assert {code for code, _ in await asyncio.gather(*asked)} == {"40725"}
        computing = [task for task in asyncio.all_tasks() if "Candles.rows" in repr(task)]
        assert len(computing) == rest_market.LATE_MAX
    market.going.set()
    await asyncio.gather(*computing, return_exceptions=True)
    assert len(market.outlined) <= 1


# ------------------------------------------------------------------------------------------------ trades


def pushed_trades(symbol: str, begin_ns: int, end_ns: int) -> list[dict[str, str]]:
    """Return the trades that were pushed, newest first, in the fields of REST."""
    rows: list[dict[str, str]] = []
    for _, _, _, frame in PublicFeed(MARKET, HISTORY).frames(begin_ns, end_ns, {"trade": [symbol]}):
        rows += reversed(json.loads(frame)["data"])
    return [{"symbol": symbol} | row for row in reversed(rows)]


async def test_fills_history_pages_through_what_was_pushed(world: World) -> None:
    """By idLessThan every trade comes once, newest first, as on the trade channel."""
    symbol, end_ms = MARKET.symbols[4], START_S * 1000
    expected = pushed_trades(symbol, (START_S - 900) * NS, START_S * NS)
    request = BTC | {"symbol": symbol, "limit": 37, "endTime": end_ms - 1, "startTime": end_ms - 900_000}
    found: list[dict[str, str]] = []
    while page := await world.get("fills-history", **request):
        assert len(page) <= 37
        found += page
        assert len(found) <= len(expected), "a page came again"
        request["idLessThan"] = page[-1]["tradeId"]

    assert found == expected
    assert len(found) > 100


async def test_fills_are_the_newest_hundred(world: World) -> None:
    """More than 100 is silently 100, also where the last minutes have fewer (measured)."""
    for symbol in MARKET.symbols[:8]:
        rows = await world.get("fills", **BTC | {"symbol": symbol}, limit=500)
        assert len(rows) == 100
        assert [row["tradeId"] for row in rows] == sorted((row["tradeId"] for row in rows), key=int, reverse=True)
        assert int(rows[0]["ts"]) * 1_000_000 <= world.server.clock.now_ns()
    assert len(await world.get("fills", **BTC, limit=3)) == 3


async def test_fills_history_has_bounds(world: World) -> None:
    """Seven days between start and end, 1000 rows, nothing from before 90 days."""
    day = 86_400_000
    now_ms = START_S * 1000
    assert await world.refused("fills-history", **BTC, startTime=now_ms - 8 * day, endTime=now_ms) == (
        "00001", "startTime and endTime interval cannot be greater than 7 days",
    )  # fmt: skip
    old = {"startTime": now_ms - 100 * day, "endTime": now_ms - 95 * day}
    assert await world.get("fills-history", **BTC, **old) == []
    assert len(await world.get("fills-history", **BTC, limit=5000)) == 1000
    assert len(await world.get("fills-history", **BTC)) == 500


# ------------------------------------------------------------------------------------------------ funding


async def test_settled_rate_is_the_one_that_was_paid() -> None:
    """The newest row of the history is the rate of the venue's own settlement, at the same instant."""
    hours = {row["symbol"]: int(row["fundInterval"]) for row in MARKET.contracts()}
    at_s = START_S // 28_800 * 28_800
    desk = Desk(MARKET, [DEFAULT_ACCOUNT])
    desk.advance((at_s - 2) * NS)
    symbols = MARKET.symbols[:6]
    for n, symbol in enumerate(symbols):
        size = Decimal(10).scaleb(-MARKET.size_places[n]) + Decimal(desk.venue.contracts[symbol].size_min)
        size += (Decimal(20) / desk.venue.mark(symbol)).quantize(Decimal(desk.venue.contracts[symbol].size_step))
        request = OrderRequest(symbol=symbol, side=Side.BUY, kind=OrderKind.MARKET, size=size)
        desk.venue.place(DEFAULT_ACCOUNT.key, request, (at_s - 2) * NS)
    desk.venue.drain()
    desk.advance(at_s * NS + 1)
    paid = {event.symbol: event.rate for event in desk.venue.drain() if isinstance(event, FundingReport)}
    assert set(paid) == set(symbols)

    async with serving(at_s + 1) as world:
        for symbol in symbols:
            rows = await world.get("history-fund-rate", **BTC | {"symbol": symbol}, pageSize=3)
            assert [int(row["fundingTime"]) for row in rows] == [
                (at_s - k * hours[symbol] * 3600) * 1000 for k in range(3)
            ]
            assert Decimal(rows[0]["fundingRate"]) == paid[symbol]
            (current,) = await world.get("current-fund-rate", **BTC | {"symbol": symbol})
            assert int(current["nextUpdate"]) == (at_s + hours[symbol] * 3600) * 1000
            assert abs(Decimal(current["fundingRate"])) <= Decimal(current["maxFundingRate"])


async def test_funding_history_is_paged(world: World) -> None:
    """Pages follow each other; a size above 100 is silently 100; page 0 is refused."""
    both = await world.get("history-fund-rate", **BTC, pageSize=10)
    assert both == [
        row for page in (1, 2) for row in await world.get("history-fund-rate", **BTC, pageSize=5, pageNo=page)
    ]
    assert len(await world.get("history-fund-rate", **BTC)) == 20
    assert await world.get("history-fund-rate", **BTC, pageNo=1000) == []
    for bad in ({"pageNo": "0"}, {"pageSize": "0"}, {"pageSize": "x"}, {"pageNo": "-1"}):
        assert (await world.refused("history-fund-rate", **BTC, **bad))[0] == "40020"


async def test_tiers_are_the_venues(world: World) -> None:
    """The ladder that is told is the one that margins are computed with."""
    for symbol in MARKET.symbols:
        rows = await world.get("query-position-lever", **BTC | {"symbol": symbol})
        tiers = world.server.desk.venue.tiers(symbol)
        assert [Decimal(row["keepMarginRate"]) for row in rows] == [tier.maintenance_rate for tier in tiers]
        assert [int(row["leverage"]) for row in rows] == [tier.leverage_max for tier in tiers]
        assert [row["startUnit"] for row in rows[1:]] == [row["endUnit"] for row in rows[:-1]]
        assert int(rows[0]["leverage"]) == world.server.desk.venue.contracts[symbol].leverage_max


@pytest.mark.parametrize("endpoint", [path for path in GOLDEN if path != "/api/v2/public/time"])
async def test_absurd_numbers_get_an_answer_or_a_code(endpoint: str) -> None:
    """Nothing overflows, nothing hangs: Bitget's envelope, whatever time, id, page or size is asked for."""
    async with serving(history_s=1200) as world:
        now_ms = START_S * 1000
        values = [
            "0",
            "1",
            "-1",
            "1.5",
            "x",
            str(now_ms),
            str(now_ms + 10**9),
            "9" * 13,
            "9" * 18,
            "9" * 19,
            "9" * 20,
            "9" * 21,
        ]
        for name in ("startTime", "endTime", "idLessThan", "limit", "pageSize", "pageNo"):
            for value in values:
                request = request_of(endpoint) | {"limit": 3, name: value}
                for granularity in ("1m", "1M") if "candles" in endpoint else ("1m",):
                    status, body = await world.ask(endpoint, **request | {"granularity": granularity})
                    assert set(body) == {"code", "msg", "requestTime", "data"}
                    assert (status, body["data"] is None) in ((200, False), (400, True)), (name, value, body)


async def test_recording_without_trades_or_funding_says_so(tmp_path: Path) -> None:
    """What was not recorded is "" or an empty list, never invented; every endpoint answers with its keys."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    recv_ns = (1_700_000_000 + np.arange(400)) * NS + NS // 5
    columns: dict[str, Any] = {"recv_ns": recv_ns, "exch_ns": recv_ns}
    for k in range(1, 21):
        columns |= {f"bid_price_{k}": 100.0 - k / 10, f"bid_size_{k}": 1.5}
        columns |= {f"ask_price_{k}": 100.0 + k / 10, f"ask_size_{k}": 2.5}
    columns = {name: np.broadcast_to(np.asarray(values), (400,)).copy() for name, values in columns.items()}
    parquet.write_table(pyarrow.table(columns), tmp_path / "BTC.book.parquet")

    async with serving(START_S, RecordedMarket(tmp_path, START_S * NS)) as world:
        (ticker,) = await world.get("tickers", productType="USDT-FUTURES")
        assert (ticker["bidPr"], ticker["askPr"], ticker["markPrice"]) == ("99.9", "100.1", "100")
        assert {ticker[name] for name in ("lastPr", "fundingRate", "indexPrice", "changeUtc24h", "openUtc")} == {""}
        for endpoint in ("candles", "fills", "fills-history", "history-fund-rate", "history-index-candles"):
            assert await world.get(endpoint, **request_of(endpoint)) == []
        marks = await world.get("history-mark-candles", **BTC, granularity="1m")
        assert {tuple(row[1:5]) for row in marks} == {("100", "100", "100", "100")}
        (rate,) = await world.get("current-fund-rate", **BTC)
        assert (rate["fundingRate"], rate["nextUpdate"]) == ("", "")
        for endpoint in ("ticker", "contracts", "symbol-price", "funding-time", "oi-limit", "query-position-lever"):
            rows = await world.get(endpoint, **BTC)
            assert set(rows[0]) == set(GOLDEN[endpoint][0])
