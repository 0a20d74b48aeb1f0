"""The loop that keeps one WebSocket session alive, and the one that replaces connections before they are cut."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import aiohttp
import websockets.asyncio.client
import websockets.exceptions

from shared.bitget.account import PrivateSession
from shared.bitget.session import PublicSession
from shared.bitget.states import Channel
from shared.bitget.transport import backoff_s, check_url, reason_of
from shared.types import NS, Event, Note

_MESSAGE_BYTES_MAX = 16 * 2**20
_CONNECT_S = 10.0
_LIVED_S = 60.0  # a connection that lasted this long ends a series of failures
_TURN_S = 0.05  # how soon a frame is sent that became due by a message (a login's ack) rather than by the clock

ROTATE_S = 23 * 3600.0
OVERLAP_S_MAX = 120.0  # 500 channels are subscribed in seconds; a server that takes longer is not ready

_FAILURES = (aiohttp.ClientError, websockets.exceptions.WebSocketException, OSError, TimeoutError)


class _Socket(Protocol):
    """What the loop needs of a WebSocket library."""

    async def send(self, text: str) -> None: ...

    async def receive(self) -> str | bytes | None:
        """Return the next message, None when the connection is gone."""


class _AiohttpSocket:
    """aiohttp, for the public streams: a third of the CPU a message of `websockets`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.send = socket.send_str

    async def receive(self) -> str | bytes | None:
        message = await self._socket.receive()
        return message.data if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY) else None


class _WebsocketsSocket:
    """websockets, for the private stream: few messages, and the stricter implementation of the two."""

    def __init__(self, socket: websockets.asyncio.client.ClientConnection) -> None:
        self._socket = socket

    async def send(self, text: str) -> None:
        await self._socket.send(text)

    async def receive(self) -> str | bytes | None:
        try:
            return await self._socket.recv()
        except websockets.exceptions.ConnectionClosed:
            return None


@asynccontextmanager
async def _open_aiohttp(url: str) -> AsyncIterator[_Socket]:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        async with asyncio.timeout(_CONNECT_S):
            socket = await http.ws_connect(
                url, compress=0, max_msg_size=_MESSAGE_BYTES_MAX, timeout=aiohttp.ClientWSTimeout(ws_close=2.0)
            )
        async with socket:
            yield _AiohttpSocket(socket)


@asynccontextmanager
async def _open_websockets(url: str) -> AsyncIterator[_Socket]:
    # Bitget's own "ping" text keeps the link alive; it does not negotiate compression. proxy=None: as aiohttp.
    async with websockets.asyncio.client.connect(
        url,
        compression=None,
        ping_interval=None,
        max_size=_MESSAGE_BYTES_MAX,
        open_timeout=_CONNECT_S,
        close_timeout=2.0,
        proxy=None,
    ) as socket:
        yield _WebsocketsSocket(socket)


async def stream(
    url: str,
    session: PublicSession | PrivateSession,
    *,
    clock: Callable[[], int],
    stop: asyncio.Event,
    on_events: Callable[[Sequence[Event]], None] | None = None,
    on_notes: Callable[[Sequence[Note]], None] | None = None,
) -> None:
    """Keep the session connected until `stop` is set: connect, pump, and after a loss try again, later each time.

    A public session fills its buffer, which its owner takes when it likes; a private one hands its events to
    `on_events`, also the `LinkChanged` of every loss.

    Args:
        url: with /public or /private.
        clock: one `ReceiveClock` for every stream of the process.

    Raises:
        ExchangeRefused: the private login was refused, and would be again.
    """
    url = check_url(url, "ws")
    opener = _open_aiohttp if isinstance(session, PublicSession) else _open_websockets
    jitter = random.Random()
    failures = 0
    while not stop.is_set():
        began_s = time.monotonic()
        reason = "closed by the server"
        try:
            async with opener(url) as socket:
                _report(session, [], on_events, on_notes, "link.opened")
                await _pump(socket, session, clock, stop, on_events, on_notes)
        except _FAILURES as error:
            reason = reason_of(error)
        finally:
            # Also on cancellation and on our own errors: what the data says of the link must be true.
            reason = "stopped" if stop.is_set() else session.dead_because or reason
            events = session.lost(clock()) or []
            _report(session, events, on_events, on_notes, "link.lost", reason=reason, url=url)
        failures = 0 if time.monotonic() - began_s >= _LIVED_S else failures + 1
        if not stop.is_set():
            await _wait(stop, backoff_s(failures, jitter.random()))


async def rotate(
    url: str,
    session: PublicSession,
    renew: Callable[[], PublicSession],
    *,
    clock: Callable[[], int],
    stop: asyncio.Event,
    every_s: float = ROTATE_S,
    on_notes: Callable[[Sequence[Note]], None] | None = None,
) -> None:
    """Keep some channels carried until `stop` is set, by one connection after another: make before break.

    Bitget is said to cut a connection after 24 hours. Before that a second one is opened and subscribed; the first is
    closed when the second carries all that the first does, so the data has no seam, and the pushes that both bring are
    one (`TickBuffer`). A second one that does not get there within `OVERLAP_S_MAX` is given up and tried again later;
    the first stays.

    Args:
        session: the first one.
        renew: gives another one of the same channels, with a connection number of its own.
        every_s: age at which a connection is replaced.
    """
    current = _Carried(url, session, clock, on_notes)
    try:
        while not stop.is_set():
            await _first_of(stop, current.task, every_s)
            if stop.is_set() or current.task.done():
                break
            successor = _Carried(url, renew(), clock, on_notes)
            try:
                await _first_of(stop, successor.task, OVERLAP_S_MAX, lambda: successor.carries(current))  # noqa: B023
                if successor.carries(current):
                    current, successor = successor, current
            finally:
                await successor.end()
    finally:
        await current.end()


class _Carried:
    """A stream of its own that can be ended on its own."""

    def __init__(
        self,
        url: str,
        session: PublicSession,
        clock: Callable[[], int],
        on_notes: Callable[[Sequence[Note]], None] | None,
    ) -> None:
        self.session, self._stop = session, asyncio.Event()
        self.task = asyncio.create_task(stream(url, session, clock=clock, stop=self._stop, on_notes=on_notes))

    def carries(self, other: _Carried) -> bool:
        """Claim that every channel that the other one carries is carried here."""
        return all(
            self.session.carries(channel)
            for channel, state in other.session.channels.items()
            if state is Channel.LINKED and other.session.carries(channel)
        )

    async def end(self) -> None:
        self._stop.set()
        await self.task


async def _first_of(
    stop: asyncio.Event, task: asyncio.Task[None], seconds: float, is_done: Callable[[], bool] = lambda: False
) -> None:
    """Return when `stop` is set, the task has ended, the condition holds, or after `seconds`."""
    deadline_s = time.monotonic() + seconds
    while not stop.is_set() and not task.done() and not is_done() and (left_s := deadline_s - time.monotonic()) > 0:
        await _wait(stop, min(left_s, _TURN_S if seconds <= OVERLAP_S_MAX else 1.0))


async def _pump(
    socket: _Socket,
    session: PublicSession | PrivateSession,
    clock: Callable[[], int],
    stop: asyncio.Event,
    on_events: Callable[[Sequence[Event]], None] | None,
    on_notes: Callable[[Sequence[Note]], None] | None,
) -> None:
    """Move messages both ways until the connection is gone, the session is dead, or `stop` is set."""
    for frame in session.connected(clock()):
        await socket.send(frame)

    async def read() -> None:
        while not session.is_dead and (raw := await socket.receive()) is not None:
            events = session.received(raw, clock())
            if events and on_events is not None:
                on_events(events)

    async def send_due() -> None:
        while not stop.is_set() and not session.is_dead:
            for frame in session.tick(clock()):
                await socket.send(frame)
            _report(session, [], on_events, on_notes)
            wait_s = (session.due_ns - clock()) / NS
            await _wait(stop, min(max(wait_s, 0.001), _TURN_S))

    tasks = asyncio.create_task(read()), asyncio.create_task(send_due())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


def _report(
    session: PublicSession | PrivateSession,
    events: Sequence[Event],
    on_events: Callable[[Sequence[Event]], None] | None,
    on_notes: Callable[[Sequence[Note]], None] | None,
    event: str = "",
    **fields: str,
) -> None:
    notes = session.take_notes()
    if event:
        notes.append(Note(event=event, fields={"link": session.NAME, "conn": session.conn, **fields}))
    if events and on_events is not None:
        on_events(events)
    if notes and on_notes is not None:
        on_notes(notes)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    """Return when `stop` is set, or after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
