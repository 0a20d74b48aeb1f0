"""Bitget on localhost: REST and WebSocket on one port, in front of a market and a venue.

The clock is `clock.Clock`: real time, or faster. Forty times a second the pump takes from the feed what has become due
and fans it out; the generated market is evaluated ahead of time in a thread, five minutes at once, so the event loop
never waits for it.

Nothing here is shared with the client side (`shared.bitget`): the two meet only in Bitget's documents and in captured
payloads, so a mistake on one side is not repeated on the other.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import WSMsgType, web

from shared.simulator import payloads
from shared.simulator.clock import Clock
from shared.simulator.desk import Desk
from shared.simulator.faults.control import Control
from shared.simulator.faults.spoil import spoiled
from shared.simulator.gate import DEFAULT_ACCOUNT, Credentials, Gate
from shared.simulator.markets.candles import Candles
from shared.simulator.markets.market import NS, Market
from shared.simulator.ports import Feed
from shared.simulator.pushes.candle_streams import CandleStreams
from shared.simulator.pushes.feed import LIVE, Cadence, PublicFeed
from shared.simulator.pushes.sent import SentLog
from shared.simulator.pushes.sessions import Sessions
from shared.simulator.pushes.sockets import Doorman, Hub, Limits, Log, Silent, Socket
from shared.simulator.rest.common import Context
from shared.simulator.rest.door import Rest

PUMP_S = 0.025
PREFETCH_S = 90
PREFETCH_S_MAX = 600
"""Two blocks: a market keeps four, and the ones behind are still needed."""

PREFETCH_STEP_S = 30
LOOK_BACK_S = 60
"""Recent trades and the chain of books may ask for the block before."""

BEHIND_S_MAX = 5.0
"""A stall longer than this is skipped, not replayed: no client waits for old frames."""

MESSAGE_BYTES_MAX = 65_536
"""A longer message ends its connection (1009); one longer than a request may be is answered with an error."""

CLOSE_S_MAX = 1.0
"""How long a client that we end may take to answer our close frame; then it is cut."""


class Server:
    """A running simulator.

    Args:
        market: what happens.
        host, port: where to listen; port 0 lets the system choose.
        accounts: who may log in, and with how much money.
        cadence: how often a second is pushed.
        clock: market time; None: the wall clock.
        limits: what a client may do on WebSockets; None: Bitget's.
        has_checksum: books carry the checksum of before May 2026.
        history_s: how far candles and public trades reach back; None: a day, see `candles`.
        sent: where every market frame that leaves is recorded; None: nowhere. Closed by `stop`.
        log: hears a line when a client connects, logs in, subscribes and goes; None: silence.
        feed, desk: what stands in for the market's own; None: nothing does.
    """

    def __init__(
        self,
        market: Market,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        accounts: Iterable[Credentials] = (DEFAULT_ACCOUNT,),
        cadence: Cadence | None = None,
        clock: Clock | None = None,
        limits: Limits | None = None,
        has_checksum: bool = False,
        history_s: int | None = None,
        sent: SentLog | None = None,
        log: Log | None = None,
        feed: Feed | None = None,
        desk: Desk | None = None,
    ) -> None:
        accounts = tuple(accounts)
        self.market, self.host, self.port = market, host, port
        self.clock, self.limits = clock or Clock(), limits or Limits()
        self.hub = Hub(sent)
        self.candle_streams: CandleStreams | None = None
        candles = None
        if feed is None:
            candles = Candles(market, history_s)
            feed = PublicFeed(market, cadence or LIVE, candles=candles, has_checksum=has_checksum)
            self.candle_streams = CandleStreams(candles, feed, self.hub, self.clock)
        self.feed = feed
        self.desk = desk or Desk(market, accounts)
        self._sent, self._log = sent, log or Silent()
        self.control = Control(self.desk, self.clock, self.close_sockets, self._log)
        self.faults, self.conditions = self.control.faults, self.control.faults.conditions
        self.gate = Gate(accounts)
        context = Context(self.feed, self.desk, self.faults, self._after_ms, self._push, self.clock, candles)
        self.rest = self._make_rest(context)
        self.sessions = self._make_sessions()
        self._doorman = Doorman(self.limits)
        self._numbers = 0
        self._runner: web.AppRunner | None = None
        self._pumping: asyncio.Task[None] | None = None
        self._prefetched_s = 0  # market second up to which blocks are asked for
        self._prefetching: asyncio.Future[None] | None = None

    def _make_rest(self, context: Context) -> Rest:
        return Rest(context, self.gate)

    def _make_sessions(self) -> Sessions:
        return Sessions(
            self.hub, self.feed, self.desk, self.gate, self.clock, self._log, self.faults, self.candle_streams
        )

    @property
    def rest_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://{self.host}:{self.port}/v2/ws"

    async def start(self) -> None:
        """Listen and begin to push.

        Raises:
            OSError: the port is taken.
        """
        app = web.Application(client_max_size=1 << 20)
        app.router.add_get("/v2/ws/public", self._public)
        app.router.add_get("/v2/ws/private", self._private)
        app.router.add_route("*", "/_control/{name}", self._control)
        app.router.add_route("*", "/{path:.*}", self.rest.handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
        await site.start()
        addresses = self._runner.addresses
        self.port = int(addresses[0][1])
        await self._warm(self.clock.now_ns() // NS)
        self._pumping = asyncio.create_task(self._pump())

    async def run_until(self, stopped: asyncio.Event) -> None:
        """Serve until `stopped` is set; a failure of the pump is raised here instead of freezing the feed."""
        assert self._pumping is not None, "start first"
        waiting = asyncio.create_task(stopped.wait())
        done, _ = await asyncio.wait({waiting, self._pumping}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._pumping in done:
            await self._pumping

    async def stop(self) -> None:
        if self._pumping:
            self._pumping.cancel()
            await asyncio.gather(self._pumping, return_exceptions=True)  # its failure is `run_until`'s to raise
        if self.candle_streams is not None:
            self.candle_streams.stop()
        self.close_sockets(reason="server_stopped")
        if self._runner:
            await self._runner.cleanup()
        if self._sent is not None:
            self._sent.close()

    def close_sockets(self, which: str = "all", reason: str = "dropped") -> None:
        """Drop clients ("all", "public" or "private") without a close frame, as a broken network does."""
        for socket in list(self.hub.sockets):
            if which == "all" or socket.is_private == (which == "private"):
                socket.end(reason)

    def describe(self) -> dict[str, Any]:
        """Return what runs here: the ready line and `/_control/market`."""
        end_ns = self.market.history_end_ns
        return {
            "source": self.market.source,
            "kind": self.market.kind,
            "symbols": len(self.market.symbols),
            "seed": getattr(self.market, "seed", None),
            "predictability": getattr(self.market, "predictability", None),
            "history_end_ns": self.clock.now_ns() // NS * NS if end_ns is None else end_ns,
            "speed": self.clock.speed,
            "note": self.market.note,
        }

    # ------------------------------------------------------------------------------------- clock

    async def _pump(self) -> None:
        done_ns = self.hub.told_ns = self.clock.now_ns()
        while True:
            await asyncio.sleep(PUMP_S)
            now_ns = self.clock.now_ns()
            if now_ns - done_ns > BEHIND_S_MAX * NS * max(1.0, self.clock.speed):
                self._log.info("pushes.skipped", skipped_s=round((now_ns - done_ns) / NS - 1.0, 3))
                done_ns = now_ns - NS
            self.faults.tick(self.clock.real_ns())
            self._ahead(now_ns // NS)
            self.desk.advance(now_ns)
            self._push()
            seam = self.market.seam_after(done_ns // NS)
            if seam is not None and seam * NS <= now_ns:
                self.close_sockets(reason="recording_ended")
            if not self.conditions.is_frozen:
                publish = self.hub.publish
                for _, channel, symbol, frame in self.feed.wire(done_ns, now_ns, self.hub.wanted):
                    publish(channel, symbol, frame)
            self.hub.flush()
            done_ns = self.hub.told_ns = max(done_ns, now_ns)
            self._cut_overdue()
            if self.candle_streams is not None:
                self.candle_streams.keep()

    def _cut_overdue(self) -> None:
        """Cut who has sent no ping for too long (measured: without a close frame, 1006), and connections of a day."""
        now_s = self.clock.monotonic_s()
        silent_s, old_s = now_s - self.limits.ping_s_max, now_s - self.limits.connection_s_max
        for socket in self.hub.sockets:
            if socket.pinged_s < silent_s:
                socket.end("no_ping")
            elif socket.opened_s < old_s:
                socket.end("too_old")

    def _push(self) -> None:
        """Tell private sockets what has happened at the venue."""
        for account, channel, text in self.desk.pushes():
            if not self.conditions.is_private_mute:
                self.hub.publish_private(account, channel, text)

    def _after_ms(self, delay_ms: float, function: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay_ms / 1000, function)

    async def _warm(self, second: int) -> None:
        """Have the block of now, before anybody is told that we are ready; those around it follow in the thread."""
        self._prefetched_s = second - LOOK_BACK_S
        await asyncio.get_running_loop().run_in_executor(None, self.market.block, second)

    def _ahead(self, second: int) -> None:
        """Have the blocks of the next minutes computed in a thread; asked for every pass, done once."""
        end_s = second + int(min(PREFETCH_S * max(1.0, self.clock.speed), PREFETCH_S_MAX))
        is_busy = self._prefetching is not None and not self._prefetching.done()
        if is_busy or end_s - self._prefetched_s < PREFETCH_STEP_S:
            return
        wanted = range(max(second - LOOK_BACK_S, self._prefetched_s), end_s + 1, PREFETCH_STEP_S)

        def compute() -> None:
            for at in wanted:
                self.market.block(at)

        self._prefetched_s = end_s
        self._prefetching = asyncio.get_running_loop().run_in_executor(None, compute)

    # ----------------------------------------------------------------------------------- sockets

    async def _public(self, request: web.Request) -> web.StreamResponse:
        return await self._admit(request, is_private=False)

    async def _private(self, request: web.Request) -> web.StreamResponse:
        return await self._admit(request, is_private=True)

    async def _admit(self, request: web.Request, *, is_private: bool) -> web.StreamResponse:
        ip = request.remote or ""
        refusal = self._doorman.admit(ip, self.clock.monotonic_s())
        if refusal is not None:
            self._log.info("client.refused", peer=ip, reason=refusal)
            body = {"code": "429", "msg": "Too Many Requests", "requestTime": self.clock.now_ms(), "data": None}
            return web.json_response(body, status=429)
        try:
            return await self._serve(request, is_private=is_private)
        finally:
            self._doorman.leave(ip)

    async def _serve(self, request: web.Request, *, is_private: bool) -> web.StreamResponse:
        fate = self.faults.request(request.path)
        await asyncio.sleep(fate.wait_before_ms / 1000)
        if fate.before is not None:
            return await spoiled(request, fate.before, self.clock.told_ms())
        # autoping off: a protocol ping is a message like any other, and is counted.
        response = web.WebSocketResponse(compress=False, autoping=False, max_msg_size=MESSAGE_BYTES_MAX)
        try:
            await response.prepare(request)
        except ConnectionError:
            return response  # gone before the handshake was answered
        transport = request.transport
        if transport is None:
            return response
        self._numbers += 1
        began_s = self.clock.monotonic_s()
        peer = ":".join(map(str, transport.get_extra_info("peername") or ()))
        socket = Socket(
            self._numbers, transport, is_private=is_private, now_s=began_s, peer=peer, limits=self.limits,
            sent=self._sent, line=self.faults.line("private" if is_private else "public"), real_ns=self.clock.real_ns,
        )  # fmt: skip
        self.hub.add(socket)
        self._log.info(
            "client.connected", conn=socket.number, stream="private" if is_private else "public", peer=socket.peer
        )
        reason = "lost"
        try:
            reason = await self._listen(socket, response)
        finally:
            topics = Counter(channel for channel, _ in socket.topics)
            self.hub.remove(socket)
            if socket.end_reason == "too_many_messages":
                self._doorman.flooded(request.remote or "", self.clock.monotonic_s())
            self._log.info(
                "client.disconnected", conn=socket.number, reason=socket.end_reason or reason,
                connected_s=round(self.clock.monotonic_s() - began_s, 3), channels=dict(topics),
                frames_sent=socket.frames_sent, bytes_sent=socket.bytes_sent,
            )  # fmt: skip
        return response

    async def _listen(self, socket: Socket, response: web.WebSocketResponse) -> str:
        """Answer a client until it goes or has to go; return how it went, were it not for us."""
        while True:
            message = await response.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG):
                return "closed_by_client" if message.type is WSMsgType.CLOSE else "lost"
            if not socket.may_speak(self.clock.monotonic_s()):
                self.sessions.too_many(socket)
                break
            if message.type is WSMsgType.TEXT:
                if not self.sessions.heard(socket, message.data):
                    break
            elif message.type is WSMsgType.BINARY:
                self.sessions.unreadable(socket)
            elif message.type is WSMsgType.PING:
                try:
                    await response.pong(message.data)
                except ConnectionError:
                    return "lost"
        self.hub.remove(socket)  # nothing may follow the close frame
        try:
            async with asyncio.timeout(CLOSE_S_MAX):
                await response.close()
        except TimeoutError:  # it reads nothing, so it will not answer either
            socket.end(socket.end_reason)
        return socket.end_reason

    # ----------------------------------------------------------------------------------- control

    def _settle_funding_now(self) -> list[dict[str, str]]:
        """Settle at the running rates without waiting for the hour; return what was paid, a row a position."""
        now_ns = self.clock.now_ns()
        self.desk.advance(now_ns)
        paid = self.desk.venue.settle_funding_now(now_ns)
        self._push()
        return [
            {"account": p.account, "symbol": p.symbol, "amount": payloads.plain(p.amount_usdt), "billId": p.bill_id}
            for p in paid
        ]

    def _describe_sockets(self) -> list[dict[str, Any]]:
        return [
            {
                "conn": socket.number, "stream": "private" if socket.is_private else "public", "peer": socket.peer,
                "connected_s": round(self.clock.monotonic_s() - socket.opened_s, 3),
                "channels": dict(Counter(channel for channel, _ in socket.topics)),
                "frames_sent": socket.frames_sent, "bytes_sent": socket.bytes_sent,
                "backlog_bytes": socket.transport.get_write_buffer_size(),
            }
            for socket in sorted(self.hub.sockets, key=lambda one: one.number)
        ]  # fmt: skip

    async def _control(self, request: web.Request) -> web.Response:
        """Serve `/_control/market`, `sockets`, `funding`, `conditions` and `script`, to this machine only."""
        if request.remote not in ("127.0.0.1", "::1"):
            return web.json_response({"error": "expected a client on this machine"}, status=403)
        name = request.match_info["name"]
        if name == "market" and request.method == "GET":
            return web.json_response(self.describe() | {"pid": os.getpid(), "sockets": len(self.hub.sockets)})
        if name == "sockets" and request.method == "GET":
            return web.json_response(self._describe_sockets())
        if name == "funding" and request.method == "POST":
            return web.json_response({"paid": self._settle_funding_now()})
        if name not in ("conditions", "script"):
            expected = (
                "expected GET market, GET sockets, POST funding, GET or POST conditions or script below /_control"
            )
            return web.json_response({"error": expected}, status=404)
        if request.method != "POST":
            return web.json_response(self.control.state() if name == "conditions" else self.control.script())
        raw = await request.read()
        try:
            return web.json_response(self.control.change(raw) if name == "conditions" else self.control.begin(raw))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
