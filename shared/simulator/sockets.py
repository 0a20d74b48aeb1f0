"""Bitget's WebSocket sessions on the server's side: subscriptions, acks, errors, and the fan-out of frames.

A market frame is rendered once, framed once (RFC 6455 §5.2: servers do not mask, and Bitget negotiates no compression)
and the same bytes go to every subscriber, joined into one write per connection and pass. aiohttp does the handshake,
reads, and answers protocol pings; only text frames that we originate take the short cut through the transport.

Rules and codes: Bitget v2, WebSocket; limits as measured in September 2026.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterable
from typing import Any

from shared.simulator.feed import CHANNELS, PublicFeed

PRIVATE_CHANNELS = ("orders", "fill", "positions", "account", "orders-algo", "positions-history")
ARG_KEYS = ("instType", "channel", "instId", "coin")
MESSAGES_PER_S_MAX = 10
CHANNELS_MAX = 1000
FRAME_BYTES_MAX = 4096
PING_TIMEOUT_S = 120.0
BACKLOG_BYTES_MAX = 16_000_000
"""A consumer that is this far behind is cut off: about ten seconds of 600 symbols."""

Arg = dict[str, Any]
Topic = tuple[str, str]
"""(channel, symbol); private channels have the symbol "default"."""


class Socket:
    """One client connection; knows what it subscribed to and who it is."""

    def __init__(self, number: int, transport: asyncio.Transport, *, is_private: bool, now_s: float) -> None:
        self.number, self.transport, self.is_private = number, transport, is_private
        self.account: str | None = None  # key of the logged-in account; None: not logged in
        self.topics: dict[Topic, Arg] = {}
        self.heard_s = now_s  # when the client last said anything
        self.frames_sent = 0
        self._recent: deque[float] = deque(maxlen=MESSAGES_PER_S_MAX)
        self._pending: list[bytes] = []

    def is_over_rate(self, now_s: float) -> bool:
        """Count a client message; tell whether it is the eleventh within one second (code 30006 and disconnect)."""
        full = len(self._recent) == MESSAGES_PER_S_MAX and now_s - self._recent[0] < 1.0
        self._recent.append(now_s)
        return full

    def queue(self, frame: bytes) -> None:
        self._pending.append(frame)

    def flush(self) -> None:
        """Write what was queued in one piece; cut the connection if the client does not read."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        if self.transport.is_closing():
            return
        if self.transport.get_write_buffer_size() > BACKLOG_BYTES_MAX:
            self.transport.abort()
            return
        self.frames_sent += len(pending)
        self.transport.write(b"".join(pending))

    def send(self, text: str) -> None:
        self.queue(text_frame(text))
        self.flush()


class Hub:
    """Who listens to what; pushes go through here."""

    def __init__(self, feed: PublicFeed) -> None:
        self._feed = feed
        self.sockets: set[Socket] = set()
        self._listeners: dict[Topic, set[Socket]] = {}
        self.wanted: dict[str, set[str]] = {}  # public channel -> symbols with at least one listener

    def add(self, socket: Socket) -> None:
        self.sockets.add(socket)

    def remove(self, socket: Socket) -> None:
        self.sockets.discard(socket)
        for topic in list(socket.topics):
            self._forget(socket, topic)

    def publish(self, channel: str, symbol: str, text: str) -> None:
        """Queue one public frame for everybody who listens."""
        listeners = self._listeners.get((channel, symbol))
        if listeners:
            frame = text_frame(text)
            for socket in listeners:
                socket.queue(frame)

    def flush(self) -> None:
        for socket in self.sockets:
            socket.flush()

    def private(self, account: str, channel: str) -> Iterable[Socket]:
        """Return the sockets of one account that listen to a private channel."""
        return [s for s in self._listeners.get((channel, "default"), ()) if s.account == account]

    # -------------------------------------------------------------------------------- requests

    def subscribe(self, socket: Socket, arg: Any, now_ns: int) -> bool:
        """Ack or refuse one subscription; a public one is followed by its snapshot. Tell whether it stands."""
        refusal = self._refusal(socket, arg)
        if refusal:
            socket.send(error_text(*refusal, arg=arg, op="subscribe"))
            return False
        channel = arg["channel"]
        symbol = "default" if channel in PRIVATE_CHANNELS else arg["instId"]
        is_silent = arg.get("instType") != "USDT-FUTURES"  # measured: a wrong instType is acked, then nothing comes
        socket.send(_json({"event": "subscribe", "arg": _known(arg)}))
        if is_silent:
            return False
        topic = (channel, symbol)
        if topic in socket.topics:
            return False
        socket.topics[topic] = _known(arg)
        self._listeners.setdefault(topic, set()).add(socket)
        if channel in CHANNELS:
            self.wanted.setdefault(channel, set()).add(symbol)
            text = self._feed.snapshot(now_ns, channel, symbol)
            if text is not None:
                socket.send(text)
        return True

    def unsubscribe(self, socket: Socket, arg: Any) -> None:
        if isinstance(arg, dict):
            channel = str(arg.get("channel"))
            self._forget(socket, (channel, "default" if channel in PRIVATE_CHANNELS else str(arg.get("instId"))))
            socket.send(_json({"event": "unsubscribe", "arg": _known(arg)}))

    def _refusal(self, socket: Socket, arg: Any) -> tuple[int, str] | None:
        if not isinstance(arg, dict):
            return 30016, "Param error"
        channel, inst_id = arg.get("channel"), arg.get("instId")
        if channel in PRIVATE_CHANNELS:
            if socket.account is None:
                return 30004, "User needs to log in"
            if inst_id not in (None, "default") and channel != "fill":
                return 30001, _missing(arg)
        elif channel not in CHANNELS:
            return 30016, "Param error"
        elif not isinstance(inst_id, str) or not self._feed.knows(inst_id):
            return 30001, _missing(arg)
        if len(socket.topics) >= CHANNELS_MAX:
            return 30007, "request over limit, connection close"
        return None

    def _forget(self, socket: Socket, topic: Topic) -> None:
        socket.topics.pop(topic, None)
        listeners = self._listeners.get(topic)
        if listeners is None:
            return
        listeners.discard(socket)
        if not listeners:
            del self._listeners[topic]
            self.wanted.get(topic[0], set()).discard(topic[1])


def text_frame(text: str) -> bytes:
    """Return one unmasked, final WebSocket text frame."""
    payload = text.encode()
    n = len(payload)
    if n < 126:
        return bytes((0x81, n)) + payload
    if n < 65536:
        return b"\x81\x7e" + n.to_bytes(2, "big") + payload
    return b"\x81\x7f" + n.to_bytes(8, "big") + payload


def error_text(code: int, message: str, *, arg: Any = None, op: str | None = None) -> str:
    """Return an error frame; the code is an int here, a string in REST."""
    body: dict[str, Any] = {"event": "error"}
    if arg is not None:
        body["arg"] = _known(arg) if isinstance(arg, dict) else arg
    body |= {"code": code, "msg": message}
    if op is not None:
        body["op"] = op
    return _json(body)


def _missing(arg: Arg) -> str:
    where = ",".join(f"{key}:{arg.get(key)}" for key in ("instType", "channel", "instId"))
    return f"{where},precision:null doesn't exist"


def _known(arg: Arg) -> Arg:
    return {key: arg[key] for key in ARG_KEYS if key in arg}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
