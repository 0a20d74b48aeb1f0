"""One connection to Bitget's public feed, without the socket: text in, text out, the clock is an argument.

The clock is any that never goes back; what a machine's wall clock does, nobody here notices.

The relay is a client of Bitget's WebSocket v2. A `Link` knows which topics it carries, what may be sent now, and what
a text means; `upstream.Upstream` has the sockets. The decoding is the relay's own: the simulator shares no codec
with the client that it is there to test.

Bitget's limits (v2, WebSocket -> Introduction; connections and subscriptions as measured in September 2026) and what
is used of them, half or less, because other programs may share the address:

    10 messages/s a connection       5          300 connects in 5 min   150
    240 subscribe requests/h         120        100 connections         50
    1000 channels a connection       50, up to 500 where there are more than 2,500 topics
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable

import msgspec

from shared.pace import Pace
from shared.simulator.markets.market import NS

MESSAGES_PER_S = 5
SUBSCRIBES_PER_H = 120
TOPICS_MAX = 50
TOPICS_BOUND = 500
FRAME_BYTES_MAX = 4096
PING_NS = 15 * NS
"""Bitget wants one every 30 s."""

SILENT_NS = 35 * NS
"""Without a text for two pings and an answer's time the connection is dead, whatever TCP believes."""

ACK_NS = 15 * NS  # then the request is sent again
FROZEN_NS = 30 * NS
"""A connection that carries a ticker, which comes several times a second, and pushes nothing for so long is dead."""

RETRY_NS = 120 * NS  # a refused topic may be listed meanwhile

Topic = tuple[str, str]
"""(channel, symbol)"""


class Kind(enum.Enum):
    LINKED = "linked"  # from here on, silence of this topic means that nothing happened
    LOST = "lost"  # from here on, it means nothing
    REFUSED = "refused"
    FRAME = "frame"


class Heard(msgspec.Struct, frozen=True):
    """What happened to a topic."""

    kind: Kind
    channel: str
    symbol: str
    recv_ns: int  # of the connection's clock, which is not the wall's
    text: str = ""  # of a FRAME, as it came; of a REFUSED, the exchange's message
    is_update: bool = False  # FRAME: what changed since the frame before
    code: int = 0  # of a REFUSED


class Unreadable(Exception):
    """A text that is no frame: whatever it told is lost."""


class State(enum.Enum):
    WANTED = "wanted"
    ASKED = "asked"
    LINKED = "linked"
    REFUSED = "refused"


class _Arg(msgspec.Struct):
    channel: str = ""
    instId: str = ""


class _Frame(msgspec.Struct):
    event: str = ""
    action: str = ""
    arg: _Arg | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    code: int | str = 0
    msg: str | None = ""


_DECODER = msgspec.json.Decoder(_Frame)
_CLOSING = frozenset({"30004", "30006", "30007"})  # too many requests, over a limit: the server closes, or should


class Link:
    """The topics of one connection.

    Args:
        number: of the connection, for the log.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.states: dict[Topic, State] = {}
        self.is_open = False
        self.dead_because = ""
        self.heard_ns = self.pushed_ns = 0
        self._again_ns: dict[Topic, int] = {}  # asked or refused: when it is asked for again
        self._dropped: list[Topic] = []  # to be unsubscribed
        self._messages = Pace(MESSAGES_PER_S, NS)
        self._subscribes = Pace(SUBSCRIBES_PER_H, 3600 * NS)
        self._ping_ns = 0

    def add(self, topic: Topic) -> None:
        self.states.setdefault(topic, State.WANTED)

    def drop(self, topic: Topic) -> None:
        """Stop carrying a topic; the exchange is told when there is time."""
        state = self.states.pop(topic, None)
        self._again_ns.pop(topic, None)
        if self.is_open and state in (State.ASKED, State.LINKED):
            self._dropped.append(topic)

    def renew(self, topic: Topic) -> None:
        """Subscribe anew: a sequence was broken, and only a new snapshot mends it."""
        if self.states.get(topic) is State.LINKED:
            self.states[topic] = State.WANTED
            self._dropped.append(topic)

    def opened(self, now_ns: int) -> None:
        """Begin a connection: nothing is subscribed, nothing was sent."""
        self.is_open, self.dead_because, self.heard_ns = True, "", now_ns
        self.pushed_ns = now_ns
        self._messages, self._subscribes = Pace(MESSAGES_PER_S, NS), Pace(SUBSCRIBES_PER_H, 3600 * NS)
        self._again_ns.clear()
        self._dropped.clear()
        self._ping_ns = now_ns + PING_NS
        self.states = dict.fromkeys(self.states, State.WANTED)

    def closed(self, now_ns: int) -> list[Heard]:
        """End a connection, for whatever reason; return what was lost by it."""
        self.is_open = False
        lost = [Heard(Kind.LOST, *topic, now_ns) for topic, state in self.states.items() if state is State.LINKED]
        self.states = dict.fromkeys(self.states, State.WANTED)
        return lost

    def due(self, now_ns: int) -> list[str]:
        """Return what is to be sent now, within the limits."""
        texts: list[str] = []
        if not self.is_open:
            return texts
        if now_ns - self.heard_ns > SILENT_NS:
            self.dead_because = f"silent for {(now_ns - self.heard_ns) / NS:.0f} s"
            return texts
        if now_ns - self.pushed_ns > FROZEN_NS and self._has_ticker():
            self.dead_because = f"no push for {(now_ns - self.pushed_ns) / NS:.0f} s"
            return texts
        for topic, again_ns in list(self._again_ns.items()):
            if again_ns <= now_ns:
                del self._again_ns[topic]
                self.states[topic] = State.WANTED
        if now_ns >= self._ping_ns and self._messages.ready_ns() <= now_ns:
            self._messages.note(now_ns)
            self._ping_ns = now_ns + PING_NS
            texts.append("ping")
        while self._dropped and self._may_subscribe(now_ns):
            text, told = request_text("unsubscribe", self._dropped)
            del self._dropped[: len(told)]
            texts.append(text)
        wanted = [topic for topic, state in self.states.items() if state is State.WANTED]
        while wanted and self._may_subscribe(now_ns):
            text, told = request_text("subscribe", wanted)
            del wanted[: len(told)]
            for topic in told:
                self.states[topic] = State.ASKED
                self._again_ns[topic] = now_ns + ACK_NS
            texts.append(text)
        return texts

    def _may_subscribe(self, now_ns: int) -> bool:
        if max(self._messages.ready_ns(), self._subscribes.ready_ns()) > now_ns:
            return False
        self._messages.note(now_ns)
        self._subscribes.note(now_ns)
        return True

    def heard(self, text: str, now_ns: int) -> list[Heard]:
        """Return what a text means for our topics, [] where it means nothing.

        Raises:
            Unreadable: the connection is to be closed: what it told is lost.
        """
        self.heard_ns = now_ns
        if text == "pong":
            return []
        try:
            frame = _DECODER.decode(text)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Unreadable(f"unreadable: {error}") from None
        if frame.arg is None:
            if frame.event == "error":
                self._complain(frame)
                return []
            if not frame.event:
                raise Unreadable("a text without event and arg")
            return []
        topic = frame.arg.channel, frame.arg.instId
        state = self.states.get(topic)
        if frame.event == "error":
            return self._refused(topic, state, frame, now_ns)
        if frame.event == "subscribe":
            return self._linked(topic, state, now_ns)
        if frame.event or state is None:
            return []  # the end of a subscription, and what was still on its way
        if not frame.action:
            raise Unreadable("a push without action")
        is_update = frame.action == "update"
        if is_update and state is not State.LINKED:
            return []  # of the subscription before, which was ended: the new one begins with its snapshot
        self.pushed_ns = now_ns
        heard = Heard(Kind.FRAME, *topic, now_ns, text, is_update)
        return [*self._linked(topic, state, now_ns), heard]

    def _has_ticker(self) -> bool:
        return any(state is State.LINKED and channel == "ticker" for (channel, _), state in self.states.items())

    def _linked(self, topic: Topic, state: State | None, now_ns: int) -> list[Heard]:
        if state is not State.ASKED:
            return []
        if not self._has_ticker():
            self.pushed_ns = now_ns  # before the first ticker, silence was no news
        self.states[topic] = State.LINKED
        self._again_ns.pop(topic, None)
        return [Heard(Kind.LINKED, *topic, now_ns)]

    def _refused(self, topic: Topic, state: State | None, frame: _Frame, now_ns: int) -> list[Heard]:
        self._complain(frame)
        if state is not State.ASKED:
            return []
        self.states[topic] = State.REFUSED
        self._again_ns[topic] = now_ns + RETRY_NS
        code = int(frame.code) if str(frame.code).isdigit() else 30016
        return [Heard(Kind.REFUSED, *topic, now_ns, frame.msg or "", code=code)]

    def _complain(self, frame: _Frame) -> None:
        if str(frame.code) in _CLOSING:
            self.dead_because = f"{frame.code} {frame.msg}"


def request_text(op: str, topics: Iterable[Topic]) -> tuple[str, list[Topic]]:
    """Return one request of at most `FRAME_BYTES_MAX` bytes and the topics it holds, the first ones."""
    args: list[str] = []
    told: list[Topic] = []
    size = len(f'{{"op":"{op}","args":[]}}')
    for channel, symbol in topics:
        arg = json.dumps(
            {"instType": "USDT-FUTURES", "channel": channel, "instId": symbol},
            ensure_ascii=False,
            separators=(",", ":"),
        )
        size += len(arg.encode()) + 1
        if size > FRAME_BYTES_MAX and args:
            break
        args.append(arg)
        told.append((channel, symbol))
    return f'{{"op":"{op}","args":[{",".join(args)}]}}', told
