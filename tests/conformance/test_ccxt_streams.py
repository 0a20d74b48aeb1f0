"""ccxt.pro watches the simulator's sockets, public and private."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import ccxt
import msgspec
import pytest
import pytest_asyncio

from tests.conformance.exchange import ACCOUNT, BTC, ETH, World, pointed_at, trading


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    async with trading() as world:
        yield world


class Watched:
    """What ccxt keeps of a private channel while one of its `watch_…` is called again and again.

    ccxt wakes whoever waits at that moment: of two pushes at once the second wakes nobody. What it keeps has both.
    """

    def __init__(
        self, world: World, channel: str, watch: Callable[[], Awaitable[Any]], kept: Callable[[], Iterable[Any] | None]
    ) -> None:
        self._world, self._channel, self._watch, self._kept = world, channel, watch, kept
        self._task: asyncio.Task[None] | None = None

    @property
    def seen(self) -> list[Any]:
        """Return what is kept, oldest first; ccxt goes on writing into it."""
        return list(self._kept() or ())

    async def __aenter__(self) -> Watched:
        self._task = asyncio.create_task(self._collect())
        await self.until(lambda: self._world.server.hub.listeners(self._channel, "default"))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until something holds; what the watcher raises is raised here."""
        assert self._task is not None
        while not holds():
            if self._task.done():
                await self._task
            await asyncio.sleep(0.002)

    async def _collect(self) -> None:
        while True:
            await self._watch()


def orders_of(world: World) -> Watched:
    exchange = world.exchange
    return Watched(world, "orders", exchange.watch_orders, lambda: exchange.orders)


def positions_of(world: World) -> Watched:
    exchange = world.exchange
    return Watched(
        world, "positions", exchange.watch_positions,
        lambda: [held for cache in (exchange.positions or {}).values() for held in cache],
    )  # fmt: skip


async def test_tickers_come_again_and_again(world: World) -> None:
    """One symbol, several, and best bids and asks: the fields of the second they were told in."""
    exchange = world.exchange
    first = await exchange.watch_ticker(BTC)
    second = await exchange.watch_ticker(BTC)
    assert second["timestamp"] > first["timestamp"]
    fields = world.server.feed.ticker_fields(second["timestamp"] * 1_000_000, "BTCUSDT")
    assert fields is not None
    keys = {"bid": "bidPr", "ask": "askPr", "last": "lastPr", "high": "high24h", "bidVolume": "bidSz"}
    assert {ours: second[ours] for ours in keys} == {ours: float(fields[theirs]) for ours, theirs in keys.items()}
    assert second["info"]["markPrice"] == fields["markPrice"]

    symbols = world.exchange.symbols[:3]
    seen: set[str] = set()
    while seen != set(symbols):
        seen |= set(await exchange.watch_tickers(symbols))
    quotes = await exchange.watch_bids_asks([ETH])
    assert quotes[ETH]["bid"] < quotes[ETH]["ask"]


async def test_order_book_follows_the_market(world: World) -> None:
    """Snapshot and updates together are the market's book at the time of the last update, level by level."""
    for _ in range(4):
        book = await world.exchange.watch_order_book(ETH)
        asks, bids = world.server.feed.book_rows(book["timestamp"] * 1_000_000, "ETHUSDT", 500)
        assert [level[:2] for level in book["bids"]] == [[float(price), float(size)] for price, size in bids]
        assert [level[:2] for level in book["asks"]] == [[float(price), float(size)] for price, size in asks]


@pytest.mark.parametrize("limit", [1, 5, 15])
async def test_shallow_books_have_their_depth(world: World, limit: int) -> None:
    """`books1`, `books5` and `books15` replace the whole book each time."""
    for _ in range(3):
        book = await world.exchange.watch_order_book(BTC, limit)
        assert (len(book["bids"]), len(book["asks"])) == (limit, limit)
        assert book["bids"][0][0] < book["asks"][0][0]


async def test_unwatched_book_is_silent_and_can_be_watched_again(world: World) -> None:
    """The server confirms the end of a subscription, keeps it, and begins anew with a snapshot."""
    exchange = world.exchange
    await exchange.watch_order_book(BTC)
    assert ("books", "BTCUSDT") in {topic for socket in world.server.hub.sockets for topic in socket.topics}
    await exchange.un_watch_order_book(BTC)
    assert ("books", "BTCUSDT") not in {topic for socket in world.server.hub.sockets for topic in socket.topics}
    assert BTC not in exchange.orderbooks
    book = await exchange.watch_order_book(BTC)
    assert book["bids"][0][0] < book["asks"][0][0]


async def test_trades_and_candles_can_be_unwatched(world: World) -> None:
    """The server confirms the end of each and tells no more of it."""
    exchange = world.exchange

    def topics() -> set[tuple[str, str]]:
        return {topic for socket in world.server.hub.sockets for topic in socket.topics}

    await exchange.watch_trades(BTC)
    await exchange.watch_ohlcv(BTC, "1m")
    assert topics() == {("trade", "BTCUSDT"), ("candle1m", "BTCUSDT")}
    await exchange.un_watch_trades(BTC)
    assert topics() == {("candle1m", "BTCUSDT")}
    await exchange.un_watch_ohlcv(BTC, "1m")
    assert topics() == set()


async def test_trades_are_those_of_rest(world: World) -> None:
    """What is pushed is found again, by id, with the same price, size, side and time."""
    exchange = world.exchange
    pushed: dict[str, Any] = {}
    while len(pushed) < 25:
        pushed |= {trade["id"]: trade for trade in await exchange.watch_trades(BTC)}
    kept = {trade["id"]: trade for trade in await exchange.fetch_trades(BTC, limit=1000)}
    for trade_id, trade in pushed.items():
        for name in ("price", "amount", "side", "timestamp", "symbol"):
            assert kept[trade_id][name] == trade[name]


@pytest.mark.parametrize("timeframe", ["1m", "1h"])
async def test_candles_are_those_of_rest(world: World, timeframe: str) -> None:
    """Closed ones are equal; the running one has begun equally and grows."""
    exchange = world.exchange
    first = (await exchange.watch_ohlcv(BTC, timeframe, limit=3))[-1]
    running = (await exchange.watch_ohlcv(BTC, timeframe, limit=3))[-1]
    asked = {candle[0]: candle for candle in await exchange.fetch_ohlcv(BTC, timeframe, limit=5)}
    assert running[0] in asked
    if running[0] == first[0]:
        assert running[5] >= first[5]
    now = asked[running[0]]
    assert now[1] == running[1]
    assert now[2] >= running[2]
    assert now[3] <= running[3]
    assert now[5] >= running[5]
    for candle in exchange.ohlcvs[BTC][timeframe]:
        if candle[0] < running[0] and candle[0] in asked:
            assert list(candle) == asked[candle[0]]


async def test_life_of_a_market_order_is_pushed(world: World) -> None:
    """Orders, trades, positions and balance agree with each other and with REST."""
    exchange, amount = world.exchange, world.amount(BTC, 3000.0)
    async with (
        Watched(world, "account", exchange.watch_balance, lambda: [exchange.balance]) as balances,
        orders_of(world) as orders,
        Watched(world, "fill", exchange.watch_my_trades, lambda: exchange.myTrades) as trades,
        positions_of(world) as positions,
    ):
        await balances.until(lambda: "USDT" in balances.seen[-1])
        assert balances.seen[0]["USDT"]["total"] == 100_000.0
        placed = await exchange.create_order(BTC, "market", "buy", amount)
        await orders.until(lambda: orders.seen and orders.seen[-1]["status"] == "closed")
        await trades.until(lambda: sum(trade["amount"] for trade in trades.seen) > amount * (1 - 1e-9))
        await positions.until(lambda: positions.seen and positions.seen[-1]["contracts"] == amount)
        await balances.until(lambda: balances.seen[-1]["USDT"]["free"] < 99_900.0)

    last, held = orders.seen[-1], positions.seen[-1]
    assert (last["id"], last["side"], last["filled"], last["remaining"]) == (placed["id"], "buy", amount, 0.0)
    assert {trade["order"] for trade in trades.seen} == {placed["id"]}
    assert {trade["id"] for trade in trades.seen} == {trade["id"] for trade in await exchange.fetch_my_trades(BTC)}
    cost = sum(trade["price"] * trade["amount"] for trade in trades.seen)
    assert last["average"] == pytest.approx(cost / amount)
    fee = sum(float(trade["fee"]["cost"]) for trade in trades.seen)
    assert fee == pytest.approx(0.0006 * cost, abs=1e-6)
    assert (held["symbol"], held["side"], held["hedged"]) == (BTC, "long", False)
    assert held["entryPrice"] == pytest.approx(last["average"])
    balance = balances.seen[-1]
    unrealised = float(balance["info"]["data"][0]["unrealizedPL"])
    assert balance["USDT"]["total"] == pytest.approx(100_000.0 - fee + unrealised, abs=1e-4)


async def test_closed_position_leaves_the_snapshot(world: World) -> None:
    """The push after the close has no row for it."""
    exchange = world.exchange
    await exchange.create_order(BTC, "market", "buy", 0.03)
    async with positions_of(world) as positions:
        await positions.until(lambda: positions.seen and positions.seen[-1]["contracts"] == 0.03)
        await exchange.close_position(BTC)
        await positions.until(lambda: not positions.seen)


async def test_life_of_a_resting_order_is_pushed(world: World) -> None:
    """Open, then canceled; the same orders as REST has."""
    exchange = world.exchange
    async with orders_of(world) as orders:
        price = world.price(BTC, 0.97)
        placed = await exchange.create_order(BTC, "limit", "buy", 0.02, price, {"clientOrderId": "w-1"})
        await orders.until(lambda: orders.seen)
        resting = orders.seen[-1]
        assert (resting["id"], resting["clientOrderId"], resting["status"]) == (placed["id"], "w-1", "open")
        assert (resting["price"], resting["amount"], resting["filled"]) == (price, 0.02, 0.0)
        await exchange.cancel_order(placed["id"], BTC)
        await orders.until(lambda: orders.seen[-1]["status"] == "canceled")
    assert {order["id"] for order in orders.seen} == {placed["id"]}


async def test_trigger_orders_are_pushed(world: World) -> None:
    """Watched with `trigger`: open when placed, canceled when canceled."""
    exchange, trigger = world.exchange, world.price(BTC, 1.05)

    def watch() -> Awaitable[Any]:
        found: Awaitable[Any] = exchange.watch_orders(BTC, None, None, {"trigger": True})
        return found

    async with Watched(world, "orders-algo", watch, lambda: exchange.triggerOrders) as plans:
        placed = await exchange.create_order(BTC, "market", "buy", 0.01, None, {"triggerPrice": trigger})
        await plans.until(lambda: plans.seen)
        waiting = plans.seen[-1]
        assert (waiting["id"], waiting["status"], waiting["triggerPrice"]) == (placed["id"], "open", trigger)
        await exchange.cancel_order(placed["id"], BTC, {"trigger": True})
        await plans.until(lambda: plans.seen[-1]["status"] == "canceled")
    assert {plan["id"] for plan in plans.seen} == {placed["id"]}


async def test_wrong_secret_does_not_log_in(world: World) -> None:
    """The refused login is an authentication error for whoever watches."""
    client = pointed_at(world.server, uta=False)
    client.secret = "wrong"
    client.set_markets(world.exchange.markets)
    try:
        with pytest.raises(ccxt.AuthenticationError):
            await client.watch_balance()
    finally:
        await client.close()


async def test_demo_key_watches_in_the_sandbox() -> None:
    """Public and private, at the demo addresses."""
    async with trading(msgspec.structs.replace(ACCOUNT, is_demo=True)) as world:
        world.exchange.set_sandbox_mode(True)
        ticker = await world.exchange.watch_ticker(BTC)
        assert ticker["bid"] < ticker["ask"]
        assert (await world.exchange.watch_balance())["USDT"]["total"] == 100_000.0
