"""End to end: this client and the simulator, which share no codec, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from decimal import ROUND_UP, Decimal

import msgspec
import numpy as np
import pytest

from shared import simulator_process
from shared.bitget.account import PrivateSession
from shared.bitget.rest import Keys
from shared.bitget.session import PublicSession
from shared.bitget.streams import stream
from shared.bitget.ticks import TickBuffer
from shared.bitget.transport import ReceiveClock, RestClient
from shared.errors import ExchangeRefused, ExchangeSilent
from shared.simulator_process import SimulatorProcess
from shared.types import (
    CancelOrder,
    Cause,
    Event,
    Filled,
    LinkChanged,
    Note,
    OrderKind,
    OrderReported,
    OrderStatus,
    PlaceOrder,
    Side,
    TickEvent,
)

KEYS = Keys("simulator", "simulator", "simulator")
CHINESE = "龙虾USDT"


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    process = simulator_process.launch(["--symbols", "20", "--seed", "7"])
    try:
        yield process
    finally:
        process.stop()


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not claim():
            await asyncio.sleep(0.01)


async def test_day_of_a_client(simulator: SimulatorProcess) -> None:
    """Discover, subscribe, enter with a stop, rest, cancel and leave: streams and REST tell one and the same story."""
    clock, stop = ReceiveClock(), asyncio.Event()
    events: list[Event] = []
    notes: list[Note] = []
    async with asyncio.timeout(60), RestClient(simulator.rest, KEYS, clock=clock) as client:
        await client.sync_clock()
        universe = await client.contracts(simulator.source)
        contract = universe.contracts[universe.index()[CHINESE]]
        assert {row.symbol for row in await client.tickers()} == set(universe.symbols)
        assert await client.set_position_mode() == "one_way_mode"
        assert await client.set_margin_mode(CHINESE) == "crossed"
        assert await client.set_leverage(CHINESE, 5) == 5
        before = await client.account(CHINESE)
        assert (before.leverage, before.margin_mode, before.position_mode) == (5, "crossed", "one_way_mode")

        buffer = TickBuffer(universe.symbols)
        public = PublicSession(universe.symbols, conn=1, buffer=buffer)
        private = PrivateSession(KEYS)
        streams = [
            asyncio.create_task(stream(simulator.ws + path, session, clock=clock, stop=stop, on_events=events.extend, on_notes=notes.extend))
            for path, session in (("/public", public), ("/private", private))
        ]  # fmt: skip
        await until(lambda: public.is_linked and private.is_linked and len(buffer) > 100)

        ask = Decimal(str((await client.merge_depth(CHINESE)).asks[0][0]))
        size = (max(contract.size_min, 20 / ask) / contract.size_step).to_integral(ROUND_UP) * contract.size_step
        entry = PlaceOrder(
            client_oid="entry1", symbol=CHINESE, side=Side.BUY, kind=OrderKind.MARKET, size=size, price=None,
            reduce_only=False, stop_price=ask * Decimal("0.9") // contract.tick * contract.tick, cause=Cause.ENTRY,
        )  # fmt: skip
        order_id = await client.place(entry)
        await until(lambda: any(isinstance(e, OrderReported) and e.status is OrderStatus.FILLED for e in events))
        pushed = {e.trade_id: e for e in events if isinstance(e, Filled)}
        fills = await client.fills(order_id=order_id, client_oid="entry1")
        assert {fill.trade_id: msgspec.structs.replace(fill, recv_ns=0) for fill in fills} == {
            trade_id: msgspec.structs.replace(fill, recv_ns=0) for trade_id, fill in pushed.items()
        }
        (position,) = await client.positions()
        assert (position.symbol, position.size) == (CHINESE, size)
        assert sum(fill.size for fill in fills) == size

        resting = msgspec.structs.replace(
            entry,
            client_oid="rest1",
            kind=OrderKind.POST_ONLY,
            price=ask * Decimal("0.97") // contract.tick * contract.tick,
        )
        await client.place(resting)
        (pending,) = await client.pending()
        assert (pending.client_oid, pending.price, pending.size) == ("rest1", resting.price, size)
        with pytest.raises(ExchangeRefused):  # the clientOid is taken while the order is pending
            await client.place(resting)
        await client.cancel(CancelOrder(client_oid="rest1", order_id="", symbol=CHINESE))
        detail = await client.detail(CHINESE, "rest1")
        assert detail is not None
        assert detail.status is OrderStatus.CANCELED
        assert await client.detail(CHINESE, "neverSent") is None

        leave = msgspec.structs.replace(
            entry, client_oid="leave1", side=Side.SELL, reduce_only=True, stop_price=None, cause=Cause.HORIZON
        )
        await client.place(leave)
        await until(lambda: sum(e.status is OrderStatus.FILLED for e in events if isinstance(e, OrderReported)) == 2)
        assert await client.positions() == ()
        stop.set()
        await asyncio.gather(*streams)

        ticks = buffer.take()
        assert [e.is_up for e in events if isinstance(e, LinkChanged)] == [True, False]
        assert client.quarantine.counts == public.quarantine.counts == private.quarantine.counts == {}
        assert {note.event for note in notes} == {"link.opened", "link.lost"}
        good = ticks.books.event == TickEvent.DATA
        assert (ticks.books.bid_price[good, 0] < ticks.books.ask_price[good, 0]).all()
        assert set(ticks.books.symbol[good].tolist()) == set(range(20))
        assert np.isfinite(ticks.tickers.mark[ticks.tickers.event == TickEvent.DATA]).all()


async def test_wrong_keys_end_with_a_clear_refusal(simulator: SimulatorProcess) -> None:
    """A wrong secret is refused over REST and at the private stream's login, and neither tries for ever."""
    wrong = Keys("simulator", "wrong", "simulator")
    async with asyncio.timeout(20), RestClient(simulator.rest, wrong) as client:
        with pytest.raises(ExchangeRefused, match="40009"):
            await client.positions()

        with pytest.raises(ExchangeRefused, match="check the three keys"):
            await stream(simulator.ws + "/private", PrivateSession(wrong), clock=ReceiveClock(), stop=asyncio.Event())


async def test_order_to_a_killed_simulator_is_silent() -> None:
    """A venue that dies leaves an order unknown or unsent, never refused."""
    process = simulator_process.launch(["--symbols", "3", "--seed", "7"])
    order = PlaceOrder(
        client_oid="c1", symbol="BTCUSDT", side=Side.BUY, kind=OrderKind.MARKET, size=Decimal("0.001"), price=None,
        reduce_only=False, stop_price=None, cause=Cause.ENTRY,
    )  # fmt: skip
    async with asyncio.timeout(30), RestClient(process.rest, KEYS) as client:
        await client.server_time()
        process.stop()

        with pytest.raises(ExchangeSilent):
            await client.place(order)
