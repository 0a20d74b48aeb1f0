"""Our own client against a venue that misbehaves: it survives, or says what its contract says it says.

One server and one client share a loop; what goes wrong is set on the server directly. Seeds are fixed: a failure is
repeated by running the test again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import ROUND_UP, Decimal
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import msgspec
import pytest
import pytest_asyncio

from shared.bitget import session, transport
from shared.bitget.account import PrivateSession
from shared.bitget.rest import Keys
from shared.bitget.session import PublicSession
from shared.bitget.streams import stream
from shared.bitget.ticks import TickBuffer
from shared.bitget.transport import ReceiveClock, RestClient
from shared.errors import ExchangeRefused, ExchangeSilent, ProtocolBroken
from shared.simulator.faults.conditions import Change, PushFault, RequestFault
from shared.simulator.gate import Credentials
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator.pushes.feed import Cadence
from shared.simulator.server import Server
from shared.types import (
    NS,
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
    Universe,
)

KEYS = Keys("key", "secret", "pass")
MARKET = GeneratedMarket(7, 4)
SYMBOL = "BTCUSDT"
TIMEOUT_S = 0.4
"""Of a request: a venue on this machine answers in a hundredth of it."""


class World:
    """A venue, a client of it, and what the client was told."""

    def __init__(self, server: Server, client: RestClient, universe: Universe) -> None:
        self.server, self.client, self.universe = server, client, universe
        self.clock, self.stop = ReceiveClock(), asyncio.Event()
        self.events: list[Event] = []
        self.notes: list[Note] = []
        self.buffer = TickBuffer(universe.symbols)
        self.public = PublicSession(universe.symbols, conn=1, buffer=self.buffer)
        self.private = PrivateSession(KEYS)
        self.streams: list[asyncio.Task[None]] = []
        self._names = count(1)

    def change(self, **change: Any) -> None:
        self.server.faults.change(msgspec.convert(change, Change))

    def listen(self, *paths: str) -> None:
        for path in paths:
            one: PublicSession | PrivateSession = self.public if path == "public" else self.private
            self.streams.append(
                asyncio.create_task(
                    stream(
                        f"{self.server.ws_url}/{path}", one, clock=self.clock, stop=self.stop,
                        on_events=self.events.extend, on_notes=self.notes.extend,
                    )
                )
            )  # fmt: skip

    async def until(self, claim: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not claim():
                for task in self.streams:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.005)

    async def linked(self, *paths: str) -> None:
        self.listen(*paths)
        await self.until(lambda: all(self.session(path).is_linked for path in paths))

    def session(self, path: str) -> PublicSession | PrivateSession:
        return self.public if path == "public" else self.private

    def noted(self, event: str) -> list[Note]:
        return [note for note in self.notes if note.event == event]

    async def order(self, **changes: Any) -> PlaceOrder:
        """Return a market order of about 20 USDT."""
        contract = self.universe.contracts[self.universe.index()[SYMBOL]]
        ask = Decimal(str((await self.client.merge_depth(SYMBOL)).asks[0][0]))
        size = (max(contract.size_min, 20 / ask) / contract.size_step).to_integral(ROUND_UP) * contract.size_step
        order = PlaceOrder(
            client_oid=f"order{next(self._names)}", symbol=SYMBOL, side=Side.BUY, kind=OrderKind.MARKET, size=size,
            price=None, reduce_only=False, stop_price=None, cause=Cause.ENTRY,
        )  # fmt: skip
        return msgspec.structs.replace(order, **changes)


@pytest_asyncio.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(transport, "backoff_s", lambda failures, draw: 0.02)
    accounts = [Credentials("key", "secret", "pass", Decimal(10_000))]
    server = Server(MARKET, accounts=accounts, cadence=Cadence(book_ms=20, ticker_ms=20))
    server.faults.seed = 7
    await server.start()
    async with RestClient(server.rest_url, KEYS, timeout_s=TIMEOUT_S) as client:
        made = World(server, client, await client.contracts("simulator"))
        try:
            yield made
        finally:
            made.stop.set()
            await asyncio.gather(*made.streams, return_exceptions=True)
            await server.stop()


# ---------------------------------------------------------------------------------------------------------- REST

SPOILT = ("silence", "reset", "gateway", "torn", "not_json", "empty")
When = Literal["before", "after"]


@pytest.mark.parametrize("what", SPOILT)
async def test_reads_are_asked_again(world: World, what: Any) -> None:
    """A read whose answer is lost or spoilt twice is answered at the third time, and the caller notices nothing."""
    world.change(requests=[{"what": what, "when": "after", "path": "market/tickers", "count": 2}])

    rows = await world.client.tickers()

    assert {row.symbol for row in rows} == set(world.universe.symbols)
    assert world.server.faults.conditions.requests[0].count == 0


@pytest.mark.parametrize("code", ["429", "40200", "40010", "40015", "40725", "45001"])
async def test_reads_outlive_maintenance(world: World, code: str) -> None:
    """Codes by which Bitget says that it is busy, and that it does not know, are asked again."""
    world.change(requests=[{"what": "refuse", "path": "position/all-position", "code": code, "count": 2}])

    assert await world.client.positions() == ()


async def test_reads_end_with_the_reason(world: World) -> None:
    """What stays broken is said after three times, as what it is."""
    for what, error in (("gateway", ExchangeSilent), ("silence", ExchangeSilent), ("not_json", ProtocolBroken)):
        world.change(requests=[{"what": what, "path": "public/time"}])
        with pytest.raises(error):
            await world.client.server_time()
    world.change(requests=[{"what": "refuse", "path": "public/time", "code": "40808"}])
    with pytest.raises(ExchangeRefused, match="40808"):
        await world.client.server_time()

    assert world.server.faults.struck["gateway before public/time"] == transport.ATTEMPTS
    assert world.server.faults.struck["refuse before public/time"] == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", [*SPOILT, "refuse"])
async def test_placement_is_sent_once_and_never_misjudged(world: World, what: Any, when: When) -> None:
    """Whatever happens to a placement: it is sent once, an order that exists is never said to be refused, and asking
    for it tells the truth."""
    if (what, when) == ("torn", "before"):
        pytest.skip("an answer that does not exist cannot be torn")
    order = await world.order()
    world.change(requests=[{"what": what, "when": when, "path": "order/place-order", "count": 9}])

    with pytest.raises(ExchangeSilent):
        await world.client.place(order)

    found = await world.client.detail(SYMBOL, order.client_oid)
    assert world.server.faults.conditions.requests[0].count == 8
    assert (found is not None) is (when == "after")
    assert len(world.server.desk.venue.pending("key")) + len(world.server.desk.venue.closed("key")) == (when == "after")


@pytest.mark.parametrize("code", ["429", "40200", "40774", "40808"])
async def test_refused_placement_does_not_exist(world: World, code: str) -> None:
    """A refusal is final: nothing was done, nothing is sent again."""
    order = await world.order()
    world.change(requests=[{"what": "refuse", "path": "order/place-order", "code": code, "count": 2}])

    with pytest.raises(ExchangeRefused, match=code):
        await world.client.place(order)

    assert await world.client.detail(SYMBOL, order.client_oid) is None
    assert world.server.faults.conditions.requests[0].count == 1


async def test_absent_order_may_still_come(world: World) -> None:
    """A request that is held up on its way is accepted after the client gave up and was told that there is no order:
    absence is proven by time only."""
    order = await world.order()
    late = {"kind": "constant", "ms": TIMEOUT_S * 1000 + 400}
    world.change(requests=[{"what": "delay", "path": "order/place-order", "delay": late}])

    with pytest.raises(ExchangeSilent):
        await world.client.place(order)

    assert await world.client.detail(SYMBOL, order.client_oid) is None
    async with asyncio.timeout(10):
        while (found := await world.client.detail(SYMBOL, order.client_oid)) is None:
            pass
    assert found.client_oid == order.client_oid


async def test_flash_close_is_sent_once_and_never_misjudged(world: World) -> None:
    """Nothing to close is a refusal, an answer that is lost leaves it open, and the position is closed once."""
    with pytest.raises(ExchangeRefused, match="22002"):
        await world.client.flash_close(SYMBOL)
    await world.client.place(await world.order())
    await world.until(lambda: world.server.desk.venue.positions("key"))
    world.change(requests=[{"what": "torn", "when": "after", "path": "close-positions", "count": 9}])

    with pytest.raises(ExchangeSilent):
        await world.client.flash_close(SYMBOL)

    await world.until(lambda: not world.server.desk.venue.positions("key"))
    assert world.server.faults.conditions.requests[0].count == 8


async def test_flash_close_is_placed_and_found_by_the_exchanges_name(world: World) -> None:
    """An exit of the exchange's own is an order like any other, but for its name: ours says nothing there."""
    entry = await world.order()
    await world.client.place(entry)
    await world.until(lambda: world.server.desk.venue.positions("key"))
    tiny = Decimal("0.000000001")  # no order may be so small: it has no size

    order = msgspec.structs.replace(
        entry, client_oid="exit", side=Side.SELL, size=tiny, reduce_only=True, cause=Cause.HORIZON, is_flash=True
    )
    order_id = await world.client.place(order)

    await world.until(lambda: not world.server.desk.venue.positions("key"))
    assert await world.client.detail(SYMBOL, order.client_oid) is None
    found = await world.client.detail(SYMBOL, order.client_oid, order_id)
    assert found is not None
    assert (found.order_id, found.filled, found.status) == (order_id, entry.size, OrderStatus.FILLED)
    assert found.client_oid not in ("", "exit")


async def test_slow_answers_are_waited_for(world: World) -> None:
    """Latency within patience costs time only, also a heavy-tailed one on every path."""
    world.change(requests=[{"what": "delay", "delay": {"kind": "lognormal", "p50_ms": 2, "p99_ms": 20}}])

    await world.client.place(await world.order())
    await world.until(lambda: world.server.desk.venue.positions("key"))  # an ack is no fill

    assert len(await world.client.positions()) == 1
    assert sum(n for what, n in world.server.faults.struck.items() if what.startswith("delay")) >= 3


@pytest.mark.parametrize("skew_ms", [-45_000, 45_000])
async def test_clock_that_was_set_is_followed(world: World, skew_ms: int) -> None:
    """A signature of another time is refused with 40008: reads ask for the time and go on, an order is not sent again,
    the next one is signed by the new time."""
    order = await world.order()
    world.change(clock_skew_ms=skew_ms)
    with pytest.raises(ExchangeRefused, match="40008"):
        await world.client.place(order)
    await world.client.place(msgspec.structs.replace(order, client_oid="again"))
    world.change(clock_skew_ms=0)

    await world.client.positions()

    moved = [note.fields["moved_ms"] for note in world.client.take_notes() if note.event == "clock.followed"]
    assert [round(float(str(ms)) / skew_ms) for ms in moved] == [1, -1]
    assert await world.client.detail(SYMBOL, order.client_oid) is None


async def test_clock_that_is_right_is_not_followed(world: World) -> None:
    """40008 for any other reason is a refusal: no request is repeated for it."""
    world.change(requests=[{"what": "refuse", "path": "all-position", "code": "40008"}])

    with pytest.raises(ExchangeRefused, match="40008"):
        await world.client.positions()

    assert world.server.faults.struck["refuse before position/all-position"] == 1


async def test_position_mode_switched_behind_our_back(world: World) -> None:
    """In hedge mode an order without a side is refused with 40774, and nothing was done."""
    world.change(position_mode={"mode": "hedge_mode"})
    order = await world.order()

    with pytest.raises(ExchangeRefused, match=r"40774.*one-way"):
        await world.client.place(order)

    assert (await world.client.account(SYMBOL)).position_mode == "hedge_mode"
    assert await world.client.set_position_mode() == "one_way_mode"
    await world.client.place(order)


async def test_contract_rules_change_between_two_requests(world: World) -> None:
    """An order by the rules of yesterday is refused with the rule's own code; whoever reads them anew may trade."""
    order = await world.order()
    before = world.universe.contracts[world.universe.index()[SYMBOL]]
    world.change(contracts={SYMBOL: {"minTradeNum": str(order.size * 2), "maxLever": "3"}})

    with pytest.raises(ExchangeRefused, match="45111"):
        await world.client.place(order)
    universe = await world.client.contracts("simulator")
    after = universe.contracts[universe.index()[SYMBOL]]
    await world.client.place(await world.order(size=order.size * 2))

    assert (after.size_min, after.leverage_max) == (order.size * 2, 3)
    world.change(contracts={SYMBOL: {}})
    universe = await world.client.contracts("simulator")
    assert universe.contracts[universe.index()[SYMBOL]] == before


async def test_halved_rate_limits_refuse_and_reads_recover(world: World) -> None:
    """A client that keeps to the old limits is told 429, waits, and gets its answer."""
    world.change(rate_limit_scale=0.1)  # one call a second

    answers = await asyncio.gather(*(world.client.detail(SYMBOL, "nobody") for _ in range(3)), return_exceptions=True)

    assert all(answer is None or (isinstance(answer, ExchangeRefused) and answer.code == "429") for answer in answers)
    assert None in answers


async def test_position_that_is_seen_late_cannot_be_closed_early(world: World) -> None:
    """The fill is there, the position is not: closing it is refused with 43023 until it is seen."""
    world.change(position_delay_ms=600)
    order = await world.order()
    await world.client.place(order)
    close = msgspec.structs.replace(order, client_oid="close", side=Side.SELL, reduce_only=True)
    await world.until(lambda: world.server.desk.venue.fills("key"))

    assert await world.client.positions() == ()
    with pytest.raises(ExchangeRefused, match="43023"):
        await world.client.place(close)
    while not (held := await world.client.positions()):
        pass
    await world.client.place(close)

    assert held[0].size == order.size
    while await world.client.positions():
        pass


@pytest.mark.parametrize("is_pushed", [True, False])
async def test_order_rejected_after_its_ack(world: World, is_pushed: bool) -> None:
    """An ack is not a fill: the order ends unfilled, with or without a push, and asking tells."""
    await world.linked("private")
    world.change(orders=[{"count": 1, "is_pushed": is_pushed}])
    order = await world.order()

    await world.client.place(order)
    await world.until(lambda: world.server.faults.struck)

    found = await world.client.detail(SYMBOL, order.client_oid)
    assert found is not None
    assert (found.status, found.filled) == (OrderStatus.CANCELED, Decimal(0))
    after = await world.order()
    await world.client.place(after)
    await world.until(lambda: [e for e in world.events if isinstance(e, Filled) and e.client_oid == after.client_oid])
    ends = [e for e in world.events if isinstance(e, OrderReported) and e.client_oid == order.client_oid]
    assert [e.status for e in ends] == [OrderStatus.LIVE, *[OrderStatus.CANCELED] * is_pushed]


# -------------------------------------------------------------------------------------------------- public stream


def gaps(world: World) -> tuple[int, int]:
    """Return how many rows of data and of gaps were received since the last call."""
    ticks = world.buffer.take()
    events = [int(event) for table in (ticks.books, ticks.trades, ticks.tickers) for event in table.event]
    return events.count(TickEvent.DATA), events.count(TickEvent.GAP)


@pytest.mark.parametrize("what", ["tear", "not_json", "unknown_channel"])
async def test_unreadable_pushes_are_kept_and_doubted(world: World, what: Any) -> None:
    """A push that cannot be read is kept in quarantine and breaks the seconds it might have belonged to; the stream
    goes on."""
    await world.linked("public")
    gaps(world)
    world.change(pushes=[{"what": what, "p": 0.2, "channel": "books5|trade|ticker"}])

    await world.until(lambda: sum(world.server.faults.struck.values()) >= 5)
    world.change(pushes=[])
    await world.until(lambda: sum(world.public.quarantine.counts.values()) >= 5)

    assert gaps(world)[1] > 0
    assert world.public.is_linked
    assert not world.noted("link.lost")


@pytest.mark.parametrize("what", ["cut", "not_utf8", "oversize"])
async def test_broken_connection_is_opened_again(world: World, what: Any) -> None:
    """What breaks the WebSocket itself costs the connection: the loss stands in the data, and a new one comes up."""
    await world.linked("public")
    gaps(world)
    world.change(pushes=[{"what": what, "count": 1, "channel": "ticker"}])

    await world.until(lambda: world.noted("link.lost"))
    ticks = world.buffer.take()
    await world.until(lambda: world.public.is_linked and len(world.buffer) > 20)

    assert TickEvent.DISCONNECTED in ticks.books.event
    assert len(world.noted("link.opened")) == 2


async def test_strange_symbols_are_kept_apart(world: World) -> None:
    """A push of a symbol nobody asked for is no data of any symbol."""
    await world.linked("public")
    world.change(pushes=[{"what": "wrong_symbol", "count": 20}])

    await world.until(lambda: sum(world.public.quarantine.counts.values()) >= 20)

    assert all("NOPEUSDT" in name for _, name in world.public.quarantine.counts)


async def test_new_fields_are_named_and_the_row_is_used(world: World) -> None:
    """A field that Bitget adds is reported once, and its push is as good as before."""
    await world.linked("public")
    gaps(world)
    world.change(pushes=[{"what": "unknown_field", "channel": "ticker"}])
    await world.until(lambda: world.server.faults.struck["unknown_field ticker"] > 20)
    world.change(pushes=[])

    await world.until(lambda: world.public.quarantine.counts)

    data, doubts = gaps(world)
    assert data > 20
    assert doubts == 0
    assert {what for _, what in world.public.quarantine.counts} == {"unknown field newField"}


async def test_binary_frames_and_gaps_change_nothing(world: World) -> None:
    """JSON in a binary frame is JSON, and our channels send whole snapshots: without a chain nothing can be missing."""
    await world.linked("public")
    gaps(world)
    world.change(pushes=[{"what": "gap"}, {"what": "binary", "p": 0.5}])

    await world.until(lambda: world.server.faults.struck["binary books5"] > 20)

    data, doubts = gaps(world)
    assert data > 20
    assert doubts == 0
    assert world.public.quarantine.counts == {}
    assert not [what for what in world.server.faults.struck if what.startswith("gap")]


async def test_blank_fields_never_become_numbers(world: World) -> None:
    """A blank price is NaN in a ticker and breaks a trade; no zero ever stands in for it."""
    await world.linked("public")
    world.buffer.take()
    world.change(pushes=[{"what": "blank_field", "channel": "ticker|trade", "p": 0.5}])

    await world.until(lambda: sum(world.server.faults.struck.values()) >= 40)
    ticks = world.buffer.take()

    data = ticks.tickers.event == TickEvent.DATA
    for name in ("last", "mark", "index"):
        assert not (getattr(ticks.tickers, name)[data] == 0).any()
    assert not (ticks.trades.price[ticks.trades.event == TickEvent.DATA] == 0).any()


async def test_error_frames_end_or_are_kept(world: World) -> None:
    """An error that closes costs the connection, another one is kept; both come back to full links."""
    await world.linked("public")
    world.change(pushes=[{"what": "error", "code": 30001, "msg": "nothing", "count": 1}])
    await world.until(lambda: world.public.quarantine.counts)
    assert not world.noted("link.lost")

    world.change(pushes=[{"what": "error", "code": 30006, "msg": "request too many", "count": 1}])
    await world.until(lambda: world.noted("link.lost"))
    await world.until(lambda: world.public.is_linked)


async def test_lost_acks_are_asked_for_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscription without an answer is asked for again, within the limits, until it is answered."""
    monkeypatch.setattr(session, "ACK_NS", NS // 5)
    world.change(pushes=[{"what": "lose", "channel": "ack", "count": 8}])

    await world.linked("public")

    assert world.server.faults.struck == {"lose ack": 8}
    assert len(world.noted("channel.unanswered")) >= 8


async def test_unanswered_pings_end_the_connection(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends and does not answer is not trusted: the connection is given up, and another one opened."""
    monkeypatch.setattr(session, "PING_NS", NS // 5)
    await world.linked("public")
    world.change(pushes=[{"what": "lose", "channel": "pong", "count": 5}])

    await world.until(lambda: world.noted("link.lost"))
    await world.until(lambda: world.public.is_linked)

    assert "pings" in str(world.noted("link.died")[0].fields["reason"])


@pytest.mark.parametrize("path", ["public", "private"])
@pytest.mark.parametrize("how", ["abort", "close"])
async def test_connections_that_end_are_opened_again(world: World, path: str, how: Any) -> None:
    """With and without a close frame, again and again: the stream comes back and tells each loss."""
    await world.linked(path)
    world.change(disconnects=[{"every_s": 0.2, "how": how, "stream": path}])

    await world.until(lambda: len(world.noted("link.lost")) >= 3)
    world.change(disconnects=[])
    await world.until(lambda: world.session(path).is_linked)

    assert world.server.faults.struck[f"disconnect {path} {how}"] >= 3


async def test_refused_handshakes_are_tried_again(world: World) -> None:
    """A gateway in front of the stream that says 503, resets or never answers: the client comes back."""
    world.change(
        requests=[
            {"what": "gateway", "path": "ws/public", "status": 503, "count": 1},
            {"what": "reset", "path": "ws/public", "count": 1},
            {"what": "refuse", "path": "ws/public", "code": "429", "count": 1},
        ]
    )

    await world.linked("public")

    # aiohttp itself asks once more where a connection is reset before the answer.
    assert len(world.noted("link.lost")) >= 2
    assert sum(world.server.faults.struck.values()) == 3


async def test_slow_and_shuffled_feed_is_received_in_order_of_receipt(world: World) -> None:
    """Late, doubled and reordered pushes: every row is stamped as it comes, no row is lost or made up."""
    world.change(
        pushes=[
            {"what": "late", "p": 0.1, "delay": {"kind": "uniform", "ms_min": 0, "ms_max": 300}},
            {"what": "reorder", "p": 0.1},
            {"what": "duplicate", "p": 0.1},
        ]
    )
    await world.linked("public")
    await world.until(lambda: sum(world.server.faults.struck.values()) > 60)

    ticks = world.buffer.take()

    for table in (ticks.books, ticks.trades, ticks.tickers):
        assert (table.recv_ns[1:] >= table.recv_ns[:-1]).all()
    assert (ticks.books.seq[1:] < ticks.books.seq[:-1]).any()  # they really came shuffled
    assert world.public.quarantine.counts == {}


async def test_slow_feed_comes_late_and_whole(world: World) -> None:
    """What does not pass waits: rows come in order, later than they were said, and none is missing or in doubt."""
    world.change(slow=[{"bytes_per_s": 60_000, "stream": "public"}])
    await world.linked("public")
    gaps(world)

    await world.until(lambda: len(world.buffer) > 150 and any(line._held for line in world.server.faults._lines))
    ticks = world.buffer.take()

    for n in range(len(world.universe.symbols)):
        seq = ticks.books.seq[(ticks.books.symbol == n) & (ticks.books.event == TickEvent.DATA)]
        assert (seq[1:] > seq[:-1]).all()
    assert TickEvent.GAP not in ticks.books.event


@pytest.mark.parametrize("symbol", ["*", SYMBOL])
async def test_frozen_feed_is_silence_on_a_living_link(world: World, symbol: str) -> None:
    """A feed that stands still, or one symbol of it, looks like a quiet market: the link is up, pings are answered, and
    only the age of the rows tells."""
    await world.linked("public")
    world.change(pushes=[{"what": "lose", "stream": "public", "symbol": symbol}])
    await world.until(lambda: world.server.faults.struck["lose ticker"] > 0)
    world.buffer.take()
    await world.until(lambda: world.server.faults.struck["lose ticker"] > 100)

    ticks = world.buffer.take()

    frozen = world.universe.index()[SYMBOL]
    assert not (ticks.tickers.symbol == frozen).any()
    assert (len(ticks.tickers.symbol) > 0) is (symbol != "*")
    assert world.public.is_linked


# ------------------------------------------------------------------------------------------------- private stream


async def test_login_that_is_never_answered_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A private stream whose login gets no answer would wait for ever: it is opened again."""
    monkeypatch.setattr(session, "ACK_NS", NS // 5)
    world.change(pushes=[{"what": "lose", "channel": "login", "count": 1}])

    await world.linked("private")

    assert len(world.noted("link.lost")) == 1


@pytest.mark.parametrize(("code", "is_final"), [(30005, True), (30011, True), (30006, False), (30007, False)])
async def test_login_refused(world: World, code: int, is_final: bool) -> None:
    """Keys that are refused end the stream with a refusal, a busy server does not."""
    world.change(refuse_logins=1, refuse_login_code=code)
    if is_final:
        world.listen("private")
        with pytest.raises(ExchangeRefused, match=str(code)):
            await world.streams[0]
    else:
        await world.linked("private")
        assert len(world.noted("link.lost")) == 1


@pytest.mark.parametrize("what", ["tear", "not_json", "unknown_channel", "cut", "not_utf8"])
async def test_unreadable_private_push_costs_the_link(world: World, what: Any) -> None:
    """It may have been a fill: the link goes down and comes up again, so that the owner asks for the truth."""
    await world.linked("private")
    world.change(pushes=[{"what": what, "channel": "orders|fill", "count": 1}])

    await world.client.place(await world.order())
    await world.until(lambda: world.noted("link.lost"))
    await world.until(lambda: world.private.is_linked)

    links = [event.is_up for event in world.events if isinstance(event, LinkChanged)]
    assert links == [True, False, True]
    (held,) = await world.client.positions()
    assert held.symbol == SYMBOL


async def test_doubled_and_shuffled_private_pushes_tell_every_fill(world: World) -> None:
    """Fills may be told many times and late: their trade ids are those of the exchange, none missing, none made up."""
    await world.linked("private")
    world.change(
        pushes=[
            {"what": "duplicate", "stream": "private"},
            {"what": "reorder", "stream": "private", "p": 0.5},
            {"what": "late", "stream": "private", "p": 0.5, "delay": {"kind": "constant", "ms": 100}},
        ]
    )

    for side in (Side.BUY, Side.SELL, Side.BUY, Side.SELL):
        await world.client.place(await world.order(side=side))
    venue = world.server.desk.venue
    await world.until(lambda: not venue.pending("key"))
    fills = {fill.trade_id for fill in venue.fills("key")}
    await world.until(lambda: {e.trade_id for e in world.events if isinstance(e, Filled)} == fills)

    assert len(fills) >= 4
    assert not world.noted("link.lost")


async def test_lost_private_pushes_are_found_by_asking(world: World) -> None:
    """Fills that no push ever told stand in the answers of REST."""
    await world.linked("private")
    world.change(pushes=[{"what": "lose", "channel": "orders|fill"}])
    order = await world.order()

    order_id = await world.client.place(order)
    await world.until(lambda: world.server.faults.struck["lose fill"])

    assert not [event for event in world.events if isinstance(event, Filled)]
    found = await world.client.detail(SYMBOL, order.client_oid)
    assert found is not None
    assert found.status is OrderStatus.FILLED
    assert sum(fill.size for fill in await world.client.fills(order_id=order_id)) == order.size


def test_every_fault_is_tried_on_our_client() -> None:
    """A kind of fault that no test here names would be one that our client never met."""
    said = Path(__file__).read_text()

    kinds = [kind for rule in (PushFault, RequestFault) for kind in get_args(get_type_hints(rule)["what"])]

    assert len(kinds) > 20
    assert [kind for kind in kinds if f'"{kind}"' not in said] == []
