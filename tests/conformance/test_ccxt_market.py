"""ccxt reads the market over REST: what it understands is what the simulator's market did."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import ccxt
import pytest
import pytest_asyncio

from tests.conformance.exchange import BTC, ETH, MARKET, TAKER, World, pointed_at, serving, trading


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    async with trading() as world:
        yield world


async def test_markets_have_the_rules_of_their_contracts(world: World) -> None:
    """Every perpetual, its tick, step, minimum, leverage and fees."""
    markets = await world.exchange.load_markets(True)
    rows = {row["symbol"]: row for row in MARKET.contracts(time.time_ns() // 10**9)}
    assert {market["id"] for market in markets.values()} == set(rows)

    for market in markets.values():
        row = rows[market["id"]]
        assert (market["type"], market["linear"], market["settle"], market["active"]) == ("swap", True, "USDT", True)
        assert market["precision"]["price"] == pytest.approx(10.0 ** -int(row["pricePlace"]))
        assert market["precision"]["amount"] == float(row["sizeMultiplier"])
        assert market["limits"]["amount"]["min"] == float(row["minTradeNum"])
        assert market["limits"]["cost"]["min"] == 5.0
        assert market["limits"]["leverage"]["max"] == float(row["maxLever"])
        assert (market["maker"], market["taker"]) == (0.0002, TAKER)


async def test_defaults_find_a_classic_account_by_themselves() -> None:
    """Without a hint ccxt loads every product and asks the unified API first; 40084 sends it to the classic one."""
    async with serving() as server:
        exchange = pointed_at(server)
        try:
            await exchange.load_markets()
            balance = await exchange.fetch_balance()
            assert exchange.options["uta"] is False
            assert balance["USDT"]["total"] == 100_000.0
            assert BTC in exchange.markets
        finally:
            await exchange.close()


async def test_time_is_the_servers(world: World) -> None:
    """Milliseconds, near ours."""
    assert abs(await world.exchange.fetch_time() - time.time() * 1000) < 5000


async def test_tickers_are_the_pushed_ones(world: World) -> None:
    """One, some and all; quotes that do not cross; last, mark and index of the second."""
    one = await world.exchange.fetch_ticker(BTC)
    fields = world.server.feed.ticker_fields(one["timestamp"] * 1_000_000, "BTCUSDT")
    assert fields is not None
    keys = {"bid": "bidPr", "ask": "askPr", "last": "lastPr", "high": "high24h", "low": "low24h",
            "bidVolume": "bidSz", "askVolume": "askSz", "baseVolume": "baseVolume", "open": "open24h"}  # fmt: skip
    assert {ours: one[ours] for ours in keys} == {ours: float(fields[theirs]) for ours, theirs in keys.items()}
    assert one["percentage"] == pytest.approx(100.0 * float(fields["change24h"]))

    every = await world.exchange.fetch_tickers()
    assert set(every) == set(world.exchange.symbols)
    assert all(ticker["low"] <= ticker["bid"] < ticker["ask"] <= ticker["high"] for ticker in every.values())
    assert set(await world.exchange.fetch_tickers([BTC, ETH])) == {BTC, ETH}


async def test_order_book_is_the_markets(world: World) -> None:
    """Best first, not crossed, with the sizes of the book; as deep as asked for."""
    book = await world.exchange.fetch_order_book(BTC)
    asks, bids = world.server.feed.book_rows(book["timestamp"] * 1_000_000, "BTCUSDT", 100)
    assert book["bids"] == [[float(price), float(size)] for price, size in bids]
    assert book["asks"] == [[float(price), float(size)] for price, size in asks]
    assert book["bids"][0][0] < book["asks"][0][0]
    assert len((await world.exchange.fetch_order_book(BTC, 5))["bids"]) == 5


async def test_candles_add_up_the_trades(world: World) -> None:
    """The last closed minute has the volume, extremes and ends of the trades of that minute, as ccxt reads both."""
    exchange = world.exchange
    now = await exchange.fetch_time()
    begin = now // 60_000 * 60_000 - 60_000
    trades: list[Any] = []
    while not trades or trades[0]["timestamp"] >= begin:
        before = {"idLessThan": trades[0]["id"]} if trades else {}
        trades = await exchange.fetch_trades(ETH, limit=1000, params=before) + trades
    trades = [trade for trade in trades if begin <= trade["timestamp"] < begin + 60_000]
    assert len({trade["id"] for trade in trades}) == len(trades)
    assert {trade["side"] for trade in trades} == {"buy", "sell"}

    candles = await exchange.fetch_ohlcv(ETH, "1m", limit=5)
    assert [b[0] - a[0] for a, b in pairwise(candles)] == [60_000] * 4
    (candle,) = [candle for candle in candles if candle[0] == begin]
    prices = [trade["price"] for trade in trades]
    assert candle[1:5] == [prices[0], max(prices), min(prices), prices[-1]]
    assert candle[5] == pytest.approx(sum(trade["amount"] for trade in trades))


async def test_candles_since_a_time_and_of_the_past(world: World) -> None:
    """`since` begins there; five minutes are the five minutes; the history endpoint and mark candles agree in time."""
    exchange = world.exchange
    since = (await exchange.fetch_time()) // 300_000 * 300_000 - 1_200_000
    minutes = await exchange.fetch_ohlcv(BTC, "1m", since, 10)
    assert [candle[0] for candle in minutes] == [since + k * 60_000 for k in range(10)]
    (five,) = await exchange.fetch_ohlcv(BTC, "5m", since, 1)
    assert five[0] == since
    assert [five[1], five[4]] == [minutes[0][1], minutes[4][4]]
    assert [five[2], five[3]] == [max(c[2] for c in minutes[:5]), min(c[3] for c in minutes[:5])]
    assert five[5] == pytest.approx(sum(c[5] for c in minutes[:5]))
    past = await exchange.fetch_ohlcv(BTC, "1m", since, 10, {"useHistoryEndpoint": True})
    assert past == minutes[: len(past)]
    assert past
    marks = await exchange.fetch_ohlcv(BTC, "1m", since, 10, {"price": "mark"})
    assert [candle[0] for candle in marks] == [candle[0] for candle in minutes]
    assert all(abs(m[4] / c[4] - 1) < 0.01 for m, c in zip(marks, minutes, strict=True))


async def test_funding_is_told_for_one_for_all_and_in_the_past(world: World) -> None:
    """The running rate, its time and interval; settled rates on the grid of the interval."""
    exchange = world.exchange
    one = await exchange.fetch_funding_rate(BTC)
    hours = int(MARKET.contracts()[0]["fundInterval"])
    step = hours * 3_600_000
    now = await exchange.fetch_time()
    assert one["interval"] == f"{hours}h"
    assert one["fundingTimestamp"] == now // step * step + step
    every = await exchange.fetch_funding_rates()
    assert every[BTC]["fundingRate"] == pytest.approx(one["fundingRate"], abs=2e-4)
    assert set(every) == set(exchange.symbols)
    past = await exchange.fetch_funding_rate_history(BTC, limit=5)
    assert [rate["timestamp"] for rate in past] == [now // step * step - k * step for k in range(4, -1, -1)]
    assert all(abs(rate["fundingRate"]) <= 0.003 for rate in past)


async def test_open_interest_and_mark_price(world: World) -> None:
    """In base coin, and the mark that positions are valued at."""
    interest = await world.exchange.fetch_open_interest(BTC)
    fields = world.server.feed.ticker_fields(interest["timestamp"] * 1_000_000, "BTCUSDT")
    assert fields is not None
    assert interest["openInterestAmount"] == float(fields["holdingAmount"]) > 0
    mark = await world.exchange.fetch_mark_price(BTC)
    fields = world.server.feed.ticker_fields(mark["timestamp"] * 1_000_000, "BTCUSDT")
    assert fields is not None
    assert (mark["markPrice"], mark["indexPrice"]) == (float(fields["markPrice"]), float(fields["indexPrice"]))


async def test_leverage_tiers_and_fee(world: World) -> None:
    """A ladder without gaps that gets stricter, and the taker fee that fills pay."""
    tiers = await world.exchange.fetch_market_leverage_tiers(BTC)
    assert tiers[0]["minNotional"] == 0.0
    assert tiers[0]["maxLeverage"] == float(MARKET.contracts()[0]["maxLever"])
    for low, high in pairwise(tiers):
        assert low["maxNotional"] == high["minNotional"]
        assert low["maxLeverage"] > high["maxLeverage"]
        assert low["maintenanceMarginRate"] < high["maintenanceMarginRate"]
    fee = await world.exchange.fetch_trading_fee(BTC)
    assert (fee["maker"], fee["taker"]) == (0.0002, TAKER)


async def test_wrong_credentials_are_what_ccxt_calls_them(world: World) -> None:
    """The kind of error ccxt raises is the one it raises at Bitget."""
    for changed, expected in (
        ({"apiKey": "nobody"}, ccxt.AuthenticationError),
        ({"secret": "wrong"}, ccxt.AuthenticationError),
        ({"password": "wrong"}, ccxt.AuthenticationError),
    ):
        client = pointed_at(world.server, uta=False)
        for name, value in changed.items():
            setattr(client, name, value)
        client.set_markets(world.exchange.markets)
        try:
            with pytest.raises(expected):
                await client.fetch_balance()
        finally:
            await client.close()
    world.exchange.options["timeDifference"] = 60_000
    with pytest.raises(ccxt.InvalidNonce):
        await world.exchange.fetch_balance()


async def test_unknown_symbols_and_urls_are_bitgets_errors(world: World) -> None:
    """40034 and 40404, through ccxt's raw calls."""
    call = world.exchange.publicMixGetV2MixMarketTicker
    with pytest.raises(ccxt.ExchangeError, match="40034"):
        await call({"symbol": "NOPEUSDT", "productType": "USDT-FUTURES"})
    with pytest.raises(ccxt.BadRequest, match="40404"):
        await world.exchange.publicMixGetV2MixMarketExchangeRate({})
