"""Client connections and the fan-out of frames: who listens to what, and what leaves when.

A market frame is rendered and framed once and the same bytes go to every subscriber, joined into one write per
connection and pass. aiohttp does the handshake and reads; what we send takes the short cut through the transport.

**Every frame of a connection enters by `Socket.queue` and leaves by `Socket.flush`, and nowhere else**: what delays,
loses, spoils or records frames stands there. Public pushes enter by `Hub.publish`, private ones by
`Hub.publish_private`, answers to a client by `Socket.send`.

Limits: Bitget v2, WebSocket -> Introduction; as measured in September 2026. What a client may say: `sessions`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from shared.simulator.faults.lines import Line
from shared.simulator.pushes.frames import text_frame
from shared.simulator.pushes.sent import SentLog

Arg = dict[str, Any]
Topic = tuple[str, str]
"""(channel, symbol); private channels have the symbol "default", `fill` may have a real one."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a client may do; Bitget's own numbers by default. All in real time, at any speed of the market."""

    messages_per_s: int = 10  # of any kind, pings included; the next one ends the connection
    subscribes_per_h: int = 240  # requests a connection, however many arguments
    channels: int = 1000  # a connection
    frame_bytes: int = 4096  # of one request
    ping_s_max: float = 120.0  # without a ping; 127 s and 142 s were measured
    connections_per_ip: int = 100
    connects_per_5_min: int = 300  # an IP
    floods_per_5_min: int = 5  # an IP: connections ended for too many messages, then it is blocked (number inferred)
    block_s: float = 300.0  # as long as REST blocks (inferred)
    connection_s_max: float = 86_400.0  # users report a forced disconnect after a day
    backlog_bytes: int = 16_000_000  # unread, then the client is cut off: about ten seconds of 600 symbols


class Window:
    """A sliding window: no `span_s` ever holds more than `count` events."""

    def __init__(self, count: int, span_s: float) -> None:
        self._span_s = span_s
        self._taken_s: deque[float] = deque(maxlen=count)

    def take(self, now_s: float) -> bool:
        """Count one event and tell whether it is allowed; one that is not is not counted."""
        taken_s = self._taken_s
        if len(taken_s) == taken_s.maxlen and now_s - taken_s[0] < self._span_s:
            return False
        taken_s.append(now_s)
        return True


class Doorman:
    """Lets connections in: so many at a time and so many in five minutes from one address."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._inside: Counter[str] = Counter()
        self._connects: dict[str, Window] = {}
        self._floods: dict[str, Window] = {}
        self._blocked_until_s: dict[str, float] = {}

    def admit(self, ip: str, now_s: float) -> str | None:
        """Count a connection in, or return why it may not come in."""
        if now_s < self._blocked_until_s.get(ip, now_s):
            return "blocked"
        if self._inside[ip] >= self._limits.connections_per_ip:
            return "too_many_connections"
        window = self._connects.setdefault(ip, Window(self._limits.connects_per_5_min, 300.0))
        if not window.take(now_s):
            return "too_many_connects"
        self._inside[ip] += 1
        return None

    def leave(self, ip: str) -> None:
        self._inside[ip] -= 1

    def flooded(self, ip: str, now_s: float) -> None:
        """Note that a connection was ended for too many messages; an address that does not stop it is blocked."""
        window = self._floods.setdefault(ip, Window(self._limits.floods_per_5_min, 300.0))
        if not window.take(now_s):
            self._blocked_until_s[ip] = now_s + self._limits.block_s


class Log(Protocol):
    """Where the lines about clients go: a structlog logger, or nowhere."""

    def info(self, event: str, **facts: Any) -> Any: ...


class Silent:
    def info(self, event: str, **facts: Any) -> None:
        """Say nothing."""


class Socket:
    """One client connection; knows what it subscribed to and who it is.

    Args:
        number: counts the connections of this server from 1.
        peer: "ip:port" of the client.
        now_s: real time.
        sent: where market frames are recorded as they leave; None: nowhere.
        line: where frames go wrong on their way; None: nowhere.
        real_ns: real time, for the line.
    """

    def __init__(
        self,
        number: int,
        transport: asyncio.Transport,
        *,
        is_private: bool,
        now_s: float,
        peer: str = "",
        limits: Limits | None = None,
        sent: SentLog | None = None,
        line: Line | None = None,
        real_ns: Callable[[], int] = lambda: 0,
    ) -> None:
        self._line, self._real_ns = line, real_ns
        self.number, self.transport, self.is_private, self.peer = number, transport, is_private, peer
        self.limits, self._sent = limits or Limits(), sent
        self.account: str | None = None  # key of the logged-in account; None: not logged in
        self.topics: dict[Topic, Arg] = {}
        self.opened_s = now_s
        self.pinged_s = now_s  # when the client last sent a ping
        self.frames_sent = self.bytes_sent = 0
        self.end_reason = ""  # why we ended it; "": we did not
        self._messages = Window(self.limits.messages_per_s, 1.0)
        self._subscribes = Window(self.limits.subscribes_per_h, 3600.0)
        self._pending: list[bytes] = []

    def may_speak(self, now_s: float) -> bool:
        """Count a client message; tell whether it is within the limit of a second."""
        return self._messages.take(now_s)

    def may_subscribe(self, now_s: float) -> bool:
        """Count a subscribe request; tell whether it is within the limit of an hour."""
        return self._subscribes.take(now_s)

    def queue(self, frame: bytes) -> None:
        self._pending.append(frame)

    def flush(self) -> None:
        """Write what was queued in one piece; cut the connection if the client does not read."""
        line = self._line
        if line is not None and line.is_on:
            self._spoil(line)
        if not self._pending:
            return
        frames, self._pending = self._pending, []
        if self.transport.is_closing():
            return
        if self.transport.get_write_buffer_size() > self.limits.backlog_bytes:
            self.end("too_slow")
            return
        whole = b"".join(frames)
        self.transport.write(whole)
        self.frames_sent += len(frames)
        self.bytes_sent += len(whole)
        if self._sent is not None:
            self._sent.note(self.number, frames)

    def send(self, text: str) -> None:
        """Send one frame now, after what is queued."""
        self.queue(text_frame(text))
        self.flush()

    def _spoil(self, line: Line) -> None:
        """Let the frames that wait pass the line; end as it says, after what it lets through."""
        self._pending = line.carry(self._pending, self._real_ns())
        if not line.ending:
            return
        ending, self._line = line.ending, None
        self.flush()
        if ending == "abort":
            self.end("fault")
        elif not self.transport.is_closing():
            self.end_reason = self.end_reason or "fault"
            self.transport.close()  # what was written is flushed first

    def end(self, reason: str) -> None:
        """Cut the connection without a close frame, as a broken network does."""
        self.end_reason = self.end_reason or reason
        self.transport.abort()


class Hub:
    """Who listens to what; every push goes through here."""

    def __init__(self, sent: SentLog | None = None) -> None:
        self.sockets: set[Socket] = set()
        self.wanted: dict[str, set[str]] = {}  # public channel -> symbols with at least one listener
        self.told_ns: int | None = None  # market time up to which everything has been published; None: not begun
        self._listeners: dict[Topic, set[Socket]] = {}
        self._sent = sent

    def add(self, socket: Socket) -> None:
        self.sockets.add(socket)

    def remove(self, socket: Socket) -> None:
        self.sockets.discard(socket)
        for topic in list(socket.topics):
            self.forget(socket, topic)

    def listen(self, socket: Socket, topic: Topic, arg: Arg, *, is_public: bool) -> None:
        socket.topics[topic] = arg
        self._listeners.setdefault(topic, set()).add(socket)
        if is_public:
            self.wanted.setdefault(topic[0], set()).add(topic[1])

    def forget(self, socket: Socket, topic: Topic) -> None:
        socket.topics.pop(topic, None)
        listeners = self._listeners.get(topic)
        if listeners is None:
            return
        listeners.discard(socket)
        if not listeners:
            del self._listeners[topic]
            self.wanted.get(topic[0], set()).discard(topic[1])

    def publish(self, channel: str, symbol: str, frame: bytes) -> None:
        """Queue one public frame for everybody who listens."""
        listeners = self._listeners.get((channel, symbol))
        if listeners:
            for socket in listeners:
                socket.queue(frame)

    def publish_private(self, account: str, channel: str, text: str) -> None:
        """Send one private push to the sockets of its account that listen to its channel."""
        for socket in [s for s in self._listeners.get((channel, "default"), ()) if s.account == account]:
            socket.send(text)
        if channel == "fill":  # the one private channel that can be had for a single symbol
            for socket in [s for s in self.sockets if s.account == account and not s.transport.is_closing()]:
                for _, symbol in [topic for topic in socket.topics if topic[0] == "fill" and topic[1] != "default"]:
                    if f'"symbol":"{symbol}"' in text:
                        socket.send(text.replace('"instId":"default"', f'"instId":"{symbol}"', 1))

    def flush(self) -> None:
        """Let what was queued leave: one write a connection."""
        for socket in self.sockets:
            socket.flush()
        if self._sent is not None:
            self._sent.write()

    def listeners(self, channel: str, symbol: str) -> frozenset[Socket]:
        return frozenset(self._listeners.get((channel, symbol), ()))
