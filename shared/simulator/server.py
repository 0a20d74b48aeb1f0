"""Bitget on localhost: REST and WebSocket on one port, in front of a market and a venue.

The clock is real time. Twice a hundred milliseconds the pump takes from the feed what has become due and fans it out;
the generated market is evaluated ahead of time in a thread, five minutes at once, so the event loop never waits for it.

Nothing here is shared with the client side (`shared.bitget`): the two meet only in Bitget's documents and in captured
payloads, so a mistake on one side is not repeated on the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from shared.simulator import payloads
from shared.simulator.conditions import Change
from shared.simulator.desk import Desk
from shared.simulator.faults import Faults
from shared.simulator.feed import Cadence, PublicFeed
from shared.simulator.gate import DEFAULT_ACCOUNT, Credentials, Gate
from shared.simulator.market import NS, Market
from shared.simulator.rest import Rest
from shared.simulator.rest_common import Context
from shared.simulator.sockets import (
    FRAME_BYTES_MAX,
    PING_TIMEOUT_S,
    Hub,
    Socket,
    error_text,
)

PUMP_S = 0.025
PREFETCH_S = 90
BEHIND_S_MAX = 5.0
"""A stall longer than this is skipped, not replayed: no client waits for old frames."""


class Server:
    """A running simulator.

    Args:
        market: what happens.
        host, port: where to listen; port 0 lets the system choose.
        accounts: who may log in, and with how much money.
        cadence: how often a second is pushed.
    """

    def __init__(
        self,
        market: Market,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        accounts: Iterable[Credentials] = (DEFAULT_ACCOUNT,),
        cadence: Cadence | None = None,
    ) -> None:
        accounts = tuple(accounts)
        self.market, self.host, self.port = market, host, port
        self.faults = Faults(0, self._act)
        self.conditions = self.faults.conditions
        self.feed = PublicFeed(market, cadence or Cadence())
        self.hub = Hub(self.feed)
        self.desk = Desk(market, accounts)
        self.gate = Gate(accounts)
        context = Context(self.feed, self.desk, self.faults, self._after_ms, self._push)
        self.rest = Rest(context, self.gate)
        self._numbers = 0
        self._runner: web.AppRunner | None = None
        self._pumping: asyncio.Task[None] | None = None
        self._prefetched: set[asyncio.Future[Any]] = set()

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
        await self._prefetch(time.time_ns() // NS)
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
            with contextlib.suppress(asyncio.CancelledError):
                await self._pumping
        self.close_sockets()
        if self._runner:
            await self._runner.cleanup()

    def close_sockets(self, which: str = "all") -> None:
        """Drop clients ("all", "public" or "private") without a close frame, as a broken network does."""
        for socket in list(self.hub.sockets):
            if which == "all" or socket.is_private == (which == "private"):
                socket.transport.abort()

    def describe(self) -> dict[str, Any]:
        """Return what runs here: the ready line and `/_control/market`."""
        end_ns = self.market.history_end_ns
        return {
            "source": self.market.source,
            "kind": self.market.kind,
            "symbols": len(self.market.symbols),
            "seed": getattr(self.market, "seed", None),
            "predictability": getattr(self.market, "predictability", None),
            "history_end_ns": time.time_ns() // NS * NS if end_ns is None else end_ns,
            "note": self.market.note,
        }

    # ------------------------------------------------------------------------------------- clock

    async def _pump(self) -> None:
        done_ns = time.time_ns()
        while True:
            await asyncio.sleep(PUMP_S)
            now_ns = time.time_ns()
            if now_ns - done_ns > BEHIND_S_MAX * NS:
                done_ns = now_ns - NS
            self._ahead(now_ns // NS)
            self.desk.advance(now_ns)
            self._push()
            seam = self.market.seam_after(done_ns // NS)
            if seam is not None and seam * NS <= now_ns:
                self.close_sockets()
            if not self.conditions.is_frozen:
                for _, channel, symbol, text in self.feed.frames(done_ns, now_ns, self.hub.wanted):
                    self.hub.publish(channel, symbol, text)
            self.hub.flush()
            done_ns = max(done_ns, now_ns)

    def _push(self) -> None:
        """Tell private sockets what has happened at the venue."""
        for account, channel, text in self.desk.pushes():
            if not self.conditions.is_private_mute:
                for socket in self.hub.private(account, channel):
                    socket.send(text)

    def _after_ms(self, delay_ms: float, function: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay_ms / 1000, function)

    async def _prefetch(self, second: int) -> None:
        loop = asyncio.get_running_loop()
        for at in (second - 60, second, second + PREFETCH_S):
            await loop.run_in_executor(None, self.market.block, at)

    def _ahead(self, second: int) -> None:
        """Have the block of `second + PREFETCH_S` computed in a thread; asked for every pass, done once."""
        if second % 30 == 0 and not self._prefetched:
            future = asyncio.get_running_loop().run_in_executor(None, self.market.block, second + PREFETCH_S)
            self._prefetched.add(future)
            future.add_done_callback(self._prefetched.discard)

    # ----------------------------------------------------------------------------------- sockets

    async def _public(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, is_private=False)

    async def _private(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, is_private=True)

    async def _serve(self, request: web.Request, *, is_private: bool) -> web.StreamResponse:
        response = web.WebSocketResponse(compress=False, autoping=True, max_msg_size=1 << 20)
        await response.prepare(request)
        transport = request.transport
        if transport is None:
            return response
        self._numbers += 1
        socket = Socket(self._numbers, transport, is_private=is_private, now_s=time.monotonic())
        self.hub.add(socket)
        try:
            while True:
                try:
                    message = await response.receive(timeout=PING_TIMEOUT_S)
                except TimeoutError:
                    transport.abort()  # measured: no ping for two minutes, closed without a close frame (1006)
                    break
                if message.type is WSMsgType.TEXT:
                    if not self._heard(socket, message.data):
                        await response.close()
                        break
                elif message.type is WSMsgType.BINARY:
                    socket.send(error_text(30002, "Illegal request"))
                else:
                    break
        finally:
            self.hub.remove(socket)
        return response

    def _heard(self, socket: Socket, text: str) -> bool:
        """Answer one client message; False ends the connection."""
        now_s = time.monotonic()
        socket.heard_s = now_s
        if socket.is_over_rate(now_s):
            socket.send(error_text(30006, "request too many"))
            return False
        if text == "ping":
            socket.send("pong")
            return True
        if len(text.encode()) > FRAME_BYTES_MAX:
            socket.send(error_text(30016, "Param error"))
            return True
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            socket.send(error_text(30002, "Illegal request"))
            return True
        if not isinstance(message, dict):
            socket.send(error_text(30002, "Illegal request"))
            return True
        op, args = message.get("op"), message.get("args")
        if op not in ("subscribe", "unsubscribe", "login"):
            socket.send(error_text(30003, "Invalid op"))
            return True
        if not isinstance(args, list) or not args:
            socket.send(error_text(30016, "Param error", op=op))
            return True
        now_ns = time.time_ns()
        if op == "subscribe":
            for arg in args:
                if self.hub.subscribe(socket, arg, now_ns) and arg["channel"] in ("positions", "account"):
                    assert socket.account is not None
                    self.desk.advance(now_ns)
                    socket.send(self.desk.state(socket.account, arg["channel"]))
        elif op == "unsubscribe":
            for arg in args:
                self.hub.unsubscribe(socket, arg)
        else:
            return self._login(socket, args[0])
        return True

    def _login(self, socket: Socket, arg: Any) -> bool:
        """Log in, or say why not and close (recorded: a failed login is an error frame, then the end)."""
        known = self.gate.check_login(arg, time.time_ns() // NS) if isinstance(arg, dict) else (30005, "error")
        if isinstance(known, tuple):
            socket.send(error_text(*known))
            return False
        if not socket.is_private:
            socket.send(error_text(30005, "error"))
            return False
        socket.account = known
        socket.send('{"event":"login","code":0}')
        return True

    # ----------------------------------------------------------------------------------- control

    def _settle_funding_now(self) -> list[dict[str, str]]:
        """Settle at the running rates without waiting for the hour; return what was paid, a row a position."""
        now_ns = time.time_ns()
        self.desk.advance(now_ns)
        paid = self.desk.venue.settle_funding_now(now_ns)
        self._push()
        return [
            {"account": p.account, "symbol": p.symbol, "amount": payloads.plain(p.amount_usdt), "billId": p.bill_id}
            for p in paid
        ]

    def _act(self, change: Change) -> None:
        """Do the deeds of a change, and tell its states to those who keep copies."""
        told = self.conditions
        self.desk.venue.is_stop_broken = told.stop_never_triggers
        self.desk.show_positions_late(int(told.position_delay_ms * 1_000_000))
        self.desk.overlay(told.contracts)
        self.rest.clock.skew_ms = int(told.clock_skew_ms)
        if change.drop_sockets:
            self.close_sockets(change.drop_sockets if isinstance(change.drop_sockets, str) else "all")

    async def _control(self, request: web.Request) -> web.Response:
        """Serve `/_control/market`, `/_control/conditions` and `/_control/funding`, to this machine only."""
        if request.remote not in ("127.0.0.1", "::1"):
            return web.json_response({"error": "expected a client on this machine"}, status=403)
        name = request.match_info["name"]
        if name == "market" and request.method == "GET":
            return web.json_response(self.describe() | {"pid": os.getpid(), "sockets": len(self.hub.sockets)})
        if name == "funding" and request.method == "POST":
            return web.json_response({"paid": self._settle_funding_now()})
        if name != "conditions":
            expected = "expected GET market, POST funding, GET or POST conditions below /_control"
            return web.json_response({"error": expected}, status=404)
        if request.method == "POST":
            try:
                change = msgspec.json.decode(await request.read(), type=Change)
            except msgspec.ValidationError as error:
                return web.json_response({"error": f"expected fields of Change, found: {error}"}, status=400)
            self.faults.change(change)
        return web.json_response(msgspec.to_builtins(self.conditions))
