"""A WebSocket without the socket: text in, text out, the clock is an argument.

The shell connects and calls `connected`, passes every message to `received`, sends what `connected` and `tick`
return, calls `tick` when `due_ns` has come, closes when `is_dead`, and calls `lost` when the connection is gone,
for whatever reason. Nothing here raises because of what the market sends: what cannot be read is kept in
`quarantine`, told in `take_notes()`, and marked in the data as a gap.

Two tables are the theory of operation. `LINKS`: what a connection is (a public one needs no login). `CHANNELS`:
what one subscription is. An event that the table does not list for a state is refused and changes nothing.

Bitget's limits a connection (v2, WebSocket -> Introduction; PROTOCOL §7.1) and what we use of them, half or less,
because a server counts when messages arrive, not when we send them:

    10 messages/s, pings included   5          240 subscribe requests/h   120 (unsubscribe requests included)
    1000 channels                   500        4096 bytes a frame         4096 (it is exact)
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from decimal import Decimal

import msgspec

from shared.bitget import wire
from shared.bitget.rest import Keys, sign
from shared.bitget.ticks import CHANNEL_TABLE, TickBuffer
from shared.errors import ExchangeRefused, ProtocolBroken
from shared.pace import Pace
from shared.types import NS, Event, LinkChanged, Note, Position, TickEvent

MESSAGES_PER_S = 5
SUBSCRIBES_PER_H = 120
CHANNELS_MAX = 500
FRAME_BYTES_MAX = 4096
PING_NS = 20 * NS  # Bitget wants one every 30 s and closes after about two minutes without
PONGS_MISSED_MAX = 2
ACK_NS = 15 * NS  # an ack takes well under a second; the wait is long because asking again costs a request
RETRY_NS = 600 * NS  # a refused channel is asked for again this late at the latest: a symbol may be listed meanwhile
RETRY_NS_MIN = 15 * NS  # and this late at first, doubled each time: what is listed may be pushed a little later
FROZEN_NS = 10 * NS  # so long without any push, and so many due at the connection's own pace: the feed stands still
FROZEN_PUSHES = 100  # Poisson: none of 100 is a chance of e^-100; at a tenth of the usual pace, as by night, e^-10
_PACE_NS_MIN = 60 * NS  # a pace is not judged by less: a connection begins with a burst of snapshots
_STRANGERS_MAX = 100
_NEVER = 2**63 - 1


class Link(enum.Enum):
    DOWN = "down"
    LOGIN = "login"  # private only: connected, login sent
    UP = "up"  # subscriptions may be sent
    REFUSED = "refused"  # the server does not want us: close, and do not come back with the same keys


class LinkEvent(enum.Enum):
    CONNECTED = "connected"
    LOGIN_ACKED = "login acked"
    LOGIN_REFUSED = "login refused"
    LOST = "lost"


LINKS: dict[tuple[Link, LinkEvent], Link] = {
    (Link.LOGIN, LinkEvent.LOGIN_ACKED): Link.UP,
    (Link.LOGIN, LinkEvent.LOGIN_REFUSED): Link.REFUSED,
    (Link.LOGIN, LinkEvent.LOST): Link.DOWN,
    (Link.UP, LinkEvent.LOST): Link.DOWN,
    (Link.REFUSED, LinkEvent.LOST): Link.DOWN,
    (Link.DOWN, LinkEvent.LOST): Link.DOWN,  # a connection that was never made is lost too
}
PUBLIC_LINKS = LINKS | {(Link.DOWN, LinkEvent.CONNECTED): Link.UP}
PRIVATE_LINKS = LINKS | {(Link.DOWN, LinkEvent.CONNECTED): Link.LOGIN}


class Channel(enum.Enum):
    WANTED = "wanted"
    ASKED = "asked"
    LINKED = "linked"
    REFUSED = "refused"
    LEAVING = "leaving"  # linked, and not wanted any more: pushed until the server has said so
    GONE = "gone"  # no longer a channel of this connection


class ChannelEvent(enum.Enum):
    SENT = "sent"
    ACKED = "acked"
    REFUSED = "refused"
    OVERDUE = "overdue"  # no answer for ACK_NS, or refused RETRY_NS ago
    ENDED = "ended"  # the server says that the subscription is over
    LOST = "lost"
    DROPPED = "dropped"  # we do not want it any more


CHANNELS: dict[tuple[Channel, ChannelEvent], Channel] = {
    (Channel.WANTED, ChannelEvent.SENT): Channel.ASKED,
    (Channel.WANTED, ChannelEvent.ACKED): Channel.LINKED,  # the answer to a request that was overdue
    (Channel.WANTED, ChannelEvent.REFUSED): Channel.REFUSED,  # likewise
    (Channel.WANTED, ChannelEvent.LOST): Channel.WANTED,
    (Channel.ASKED, ChannelEvent.ACKED): Channel.LINKED,
    (Channel.ASKED, ChannelEvent.REFUSED): Channel.REFUSED,
    (Channel.ASKED, ChannelEvent.OVERDUE): Channel.WANTED,
    (Channel.ASKED, ChannelEvent.LOST): Channel.WANTED,
    (Channel.LINKED, ChannelEvent.ACKED): Channel.LINKED,  # a request that was overdue, answered twice
    (Channel.LINKED, ChannelEvent.REFUSED): Channel.LINKED,  # likewise: it runs
    (Channel.LINKED, ChannelEvent.ENDED): Channel.WANTED,
    (Channel.LINKED, ChannelEvent.LOST): Channel.WANTED,
    (Channel.REFUSED, ChannelEvent.ACKED): Channel.LINKED,
    (Channel.REFUSED, ChannelEvent.OVERDUE): Channel.WANTED,
    (Channel.REFUSED, ChannelEvent.LOST): Channel.WANTED,
    (Channel.WANTED, ChannelEvent.DROPPED): Channel.GONE,
    (Channel.ASKED, ChannelEvent.DROPPED): Channel.GONE,
    (Channel.REFUSED, ChannelEvent.DROPPED): Channel.GONE,
    (Channel.LINKED, ChannelEvent.DROPPED): Channel.LEAVING,
    (Channel.LEAVING, ChannelEvent.ACKED): Channel.LEAVING,  # a request that was overdue, answered twice
    (Channel.LEAVING, ChannelEvent.REFUSED): Channel.GONE,  # the server does not know it any more either
    (Channel.LEAVING, ChannelEvent.OVERDUE): Channel.GONE,
    (Channel.LEAVING, ChannelEvent.ENDED): Channel.GONE,
    (Channel.LEAVING, ChannelEvent.LOST): Channel.GONE,
}
UP = frozenset({Channel.LINKED, Channel.LEAVING})
"""States in which silence of a channel means that nothing happened."""

# Errors of a login (PROTOCOL §7.2) that the same keys will get again.
_LOGIN_REFUSALS = frozenset({"30005", "30011", "30012", "30013", "30014", "30015"})
# Errors after which the server closes, or should: too many requests, over a limit, not logged in.
_CLOSING = frozenset({"30004", "30006", "30007"})

Subscription = tuple[str, str]  # (channel, instId)


class Session:
    """What a public and a private connection have in common: pings, pacing, subscriptions, doubt."""

    TABLE: dict[tuple[Link, LinkEvent], Link]
    NAME: str
    NEEDS_ALL: bool  # False: a refused symbol is one symbol less, and the rest is worth having

    def __init__(self, subscriptions: Iterable[Subscription], conn: int = 0) -> None:
        self.conn = conn
        self.link = Link.DOWN
        self.channels: dict[Subscription, Channel] = dict.fromkeys(subscriptions, Channel.WANTED)
        assert len(self.channels) <= CHANNELS_MAX, f"{len(self.channels)} channels on one connection: use shards()"
        self.quarantine = wire.Quarantine()
        self._due_again_ns: dict[Subscription, int] = {}  # asked, refused or left: when nothing has come
        self._refused: dict[Subscription, int] = {}  # how often on this connection
        self._to_leave: dict[Subscription, None] = {}  # LEAVING, and the server was not told yet
        self._again: set[Subscription] = set()  # LEAVING, and wanted again by now
        self._gone: set[Subscription] = set()  # of this connection: what is still answered about them is no surprise
        self._messages = Pace(MESSAGES_PER_S)
        self._subscribes = Pace(SUBSCRIBES_PER_H, 3600 * NS)
        self._ping_ns = _NEVER
        self._login_due_ns = _NEVER  # an answer to the login must have come by then
        self._pings_unanswered = 0
        self._dead_because = ""
        self._notes: list[Note] = []

    # -- for the shell

    @property
    def is_linked(self) -> bool:
        """Claim that every subscription was answered, and acked where the session cannot do without it."""
        return self.link is Link.UP and all(
            state in UP or (subscription in self._refused and not self.NEEDS_ALL)
            for subscription, state in self.channels.items()
        )

    @property
    def is_dead(self) -> bool:
        """Claim that the connection must be closed: pongs are missing, or the server has given us up."""
        return bool(self._dead_because)

    @property
    def dead_because(self) -> str:
        return self._dead_because

    @property
    def due_ns(self) -> int:
        """Return when `tick` next has something to do; never later than the next ping."""
        if self.link not in (Link.UP, Link.LOGIN):
            return _NEVER
        due = min(self._ping_ns, self._login_due_ns) if self.link is Link.LOGIN else self._ping_ns
        if self.link is Link.UP and (self._to_leave or Channel.WANTED in self.channels.values()):
            due = min(due, self._subscribes.ready_ns())
        if self._due_again_ns:
            due = min(due, min(self._due_again_ns.values()))
        return max(due, self._messages.ready_ns())

    def connected(self, now_ns: int) -> list[str]:
        """Return the first frames of a new connection."""
        self._step(LinkEvent.CONNECTED)
        # Pings, messages and subscribes are counted a connection, and this is a new one.
        self._messages, self._subscribes = Pace(MESSAGES_PER_S), Pace(SUBSCRIBES_PER_H, 3600 * NS)
        self._pings_unanswered, self._dead_because = 0, ""
        self._ping_ns = now_ns + PING_NS
        return self._opening(now_ns) + self.tick(now_ns)

    def tick(self, now_ns: int) -> list[str]:
        """Return the frames that are due, within the limits; call it when `due_ns` has come, more often is fine."""
        frames: list[str] = []
        if self.link not in (Link.UP, Link.LOGIN) or self.is_dead:
            return frames
        if self.link is Link.LOGIN and now_ns >= self._login_due_ns:
            self._die(f"the login was not answered within {ACK_NS // NS} s")
            return frames
        self._expire(now_ns)
        if now_ns >= self._ping_ns and self._messages.ready_ns() <= now_ns:
            if self._pings_unanswered >= PONGS_MISSED_MAX:
                self._die(f"{self._pings_unanswered} pings of {PING_NS // NS} s each went unanswered")
                return frames
            self._messages.note(now_ns)
            self._pings_unanswered += 1
            self._ping_ns = now_ns + PING_NS
            frames.append("ping")
        if self.link is Link.UP:
            wanted = [sub for sub, state in self.channels.items() if state is Channel.WANTED]
            while wanted and self._may_ask(now_ns):
                frame, asked = subscribe_frame(wanted)
                wanted = wanted[len(asked) :]
                for sub in asked:
                    self._step_channel(sub, ChannelEvent.SENT)
                    self._due_again_ns[sub] = now_ns + ACK_NS
                frames.append(frame)
            while self._to_leave and self._may_ask(now_ns):
                frame, left = subscribe_frame(list(self._to_leave), "unsubscribe")
                for sub in left:
                    del self._to_leave[sub]
                    self._due_again_ns[sub] = now_ns + ACK_NS
                frames.append(frame)
        return frames

    def add(self, subscriptions: Iterable[Subscription]) -> None:
        """Want more channels; they are asked for by the next ticks, within the limits."""
        for subscription in subscriptions:
            if self.channels.get(subscription) is Channel.LEAVING:
                self._again.add(subscription)
            else:
                self.channels.setdefault(subscription, Channel.WANTED)
        assert len(self.channels) <= CHANNELS_MAX, f"{len(self.channels)} channels on one connection: use another"

    def drop(self, subscriptions: Iterable[Subscription]) -> None:
        """Want these channels no longer; one that is linked stays so until the server has confirmed its end."""
        for subscription in subscriptions:
            state = self.channels.get(subscription)
            if state is Channel.LEAVING:
                self._again.discard(subscription)
            elif state is not None:
                self._step_channel(subscription, ChannelEvent.DROPPED)
                if state is Channel.LINKED:
                    self._to_leave[subscription] = None

    def _may_ask(self, now_ns: int) -> bool:
        """Tell whether one more request may be sent, and count it."""
        if max(self._messages.ready_ns(), self._subscribes.ready_ns()) > now_ns:
            return False
        self._messages.note(now_ns)
        self._subscribes.note(now_ns)
        return True

    def take_notes(self) -> list[Note]:
        """Return what a person should read, since the last call."""
        notes, self._notes = self._notes, []
        return notes

    # -- for the two kinds of session

    def _opening(self, now_ns: int) -> list[str]:
        return []

    def _on_channel(self, subscription: Subscription, before: Channel, after: Channel, recv_ns: int) -> None:
        """React to a subscription that came up or went down."""

    def _note(self, event: str, **fields: str | int | float | bool | None) -> None:
        self._notes.append(Note(event=event, fields={"link": self.NAME, "conn": self.conn, **fields}))

    def _die(self, reason: str) -> None:
        self._dead_because = reason
        self._note("link.died", reason=reason)

    def _step(self, event: LinkEvent) -> None:
        after = self.TABLE.get((self.link, event))
        assert after is not None, f"{self.NAME} link: {event.value} is not possible while {self.link.value}"
        self.link = after

    def _step_channel(self, subscription: Subscription, event: ChannelEvent, recv_ns: int = 0) -> None:
        before = self.channels[subscription]
        after = CHANNELS.get((before, event))
        if after is None:
            self._note(
                "channel.misled", channel=subscription[0], symbol=subscription[1], state=before.value, told=event.value
            )
            return
        self.channels[subscription] = after
        if after in (Channel.LINKED, Channel.WANTED, Channel.GONE):
            self._due_again_ns.pop(subscription, None)
        self._on_channel(subscription, before, after, recv_ns)
        if after is Channel.GONE:
            del self.channels[subscription]
            self._to_leave.pop(subscription, None)
            self._gone.add(subscription)
            if subscription in self._again:
                self._again.discard(subscription)
                self.channels[subscription] = Channel.WANTED

    def _expire(self, now_ns: int) -> None:
        for subscription, due_ns in list(self._due_again_ns.items()):
            if due_ns <= now_ns:
                if self.channels[subscription] is Channel.ASKED:
                    self._note("channel.unanswered", channel=subscription[0], symbol=subscription[1])
                self._step_channel(subscription, ChannelEvent.OVERDUE, now_ns)

    def _take_answer(self, frame: wire.Ack | wire.ErrorFrame, raw: str | bytes, recv_ns: int) -> None:
        subscription = (frame.channel, frame.symbol)
        if subscription not in self.channels:
            what = f"error {frame.code}" if isinstance(frame, wire.ErrorFrame) else f"{frame.event} of {subscription}"
            if subscription not in self._gone:
                self._keep(f"{self.NAME} answer", what, raw, recv_ns)
        elif isinstance(frame, wire.ErrorFrame):
            is_asked = self.channels[subscription] is not Channel.LEAVING
            self._note(
                "channel.refused" if is_asked else "channel.ended",
                channel=frame.channel,
                symbol=frame.symbol,
                code=frame.code,
                message=frame.message,
            )
            self._step_channel(subscription, ChannelEvent.REFUSED, recv_ns)
            if self.channels.get(subscription) is Channel.REFUSED:
                n = self._refused[subscription] = self._refused.get(subscription, 0) + 1
                self._due_again_ns[subscription] = recv_ns + min(RETRY_NS, RETRY_NS_MIN << min(n - 1, 30))
        elif frame.event == "subscribe":
            self._step_channel(subscription, ChannelEvent.ACKED, recv_ns)
        else:
            self._note("channel.ended", channel=frame.channel, symbol=frame.symbol)
            self._step_channel(subscription, ChannelEvent.ENDED, recv_ns)
        if isinstance(frame, wire.ErrorFrame) and frame.code in _CLOSING:
            self._die(f"{frame.code} {frame.message}")

    def _keep(self, where: str, what: str, raw: str | bytes, recv_ns: int) -> None:
        note = self.quarantine.keep(where, what, raw, recv_ns)
        if note is not None:
            self._notes.append(note)

    def _keep_unknown(self, frame: wire.Push, raw: str | bytes, recv_ns: int) -> None:
        for name in frame.unknown:
            self._keep(f"{frame.channel} push", f"unknown field {name}", raw, recv_ns)

    def _lose(self, recv_ns: int) -> None:
        self._step(LinkEvent.LOST)
        self._due_again_ns.clear()
        self._refused.clear()
        self._ping_ns = _NEVER
        for subscription in list(self.channels):
            self._step_channel(subscription, ChannelEvent.LOST, recv_ns)
        self._to_leave.clear()
        self._gone.clear()


class PublicSession(Session):
    """Market data of some symbols into a `TickBuffer`.

    Args:
        symbols: those of this connection; each must be on the buffer's axis.
        conn: number of this connection within the collector's session, stored in every row.
    """

    TABLE = PUBLIC_LINKS
    NAME = "public"
    NEEDS_ALL = False

    def __init__(
        self,
        symbols: Iterable[str],
        channels: tuple[str, ...] = ("books15", "trade", "ticker"),
        *,
        conn: int,
        buffer: TickBuffer,
    ) -> None:
        symbols = tuple(symbols)
        assert set(channels) <= set(CHANNEL_TABLE), channels
        assert set(symbols) <= set(buffer.index), set(symbols) - set(buffer.index)
        super().__init__(((channel, symbol) for symbol in symbols for channel in channels), conn)
        self.buffer = buffer
        self._names = channels
        self._axis = {symbol: buffer.index[symbol] for symbol in symbols}
        self.strangers: set[str] = set()  # symbols that were pushed and are on no axis of ours: whoever reads, clears
        self._trades_seen: set[str] = set()  # symbols whose subscribe snapshot of trades has come
        self._pushes, self._pushed_ns = 0, _NEVER  # of this connection; when the last one came
        self._opened_ns = self._doubted_ns = _NEVER  # when it was opened; first tick that found the feed frozen

    def connected(self, now_ns: int) -> list[str]:
        self._pushes, self._opened_ns, self._pushed_ns, self._doubted_ns = 0, now_ns, now_ns, _NEVER
        return super().connected(now_ns)

    def tick(self, now_ns: int) -> list[str]:
        self._look_for_life(now_ns)
        return super().tick(now_ns)

    def received(self, raw: str | bytes, recv_ns: int) -> None:
        """Put a push into the buffer, or take note of an answer."""
        try:
            frame = wire.decode_push(raw)
        except ProtocolBroken as error:
            self._keep("public frame", str(error)[:120], raw, recv_ns)
            self._doubt(None, recv_ns)
            return
        if isinstance(frame, (wire.BookPush, wire.TickerPush, wire.TradePush)):
            self._pushes += 1
            self._pushed_ns = recv_ns
            n = self._axis.get(frame.symbol)
            if n is None:
                self._keep(f"{frame.channel} push", f"symbol {frame.symbol} was not asked for", raw, recv_ns)
                if frame.symbol not in self.buffer.index and len(self.strangers) < _STRANGERS_MAX:
                    self.strangers.add(frame.symbol)
                return
            if frame.unknown:
                self._keep_unknown(frame, raw, recv_ns)
            if isinstance(frame, wire.BookPush):
                for book in frame.rows:
                    self.buffer.append_book(n, book, self.conn, recv_ns)
            elif isinstance(frame, wire.TickerPush):
                for ticker in frame.rows:
                    self.buffer.append_ticker(n, ticker, self.conn, recv_ns)
            else:
                self._take_trades(n, frame, recv_ns)
        elif isinstance(frame, wire.Pong):
            self._pings_unanswered = 0
        elif isinstance(frame, (wire.Ack, wire.ErrorFrame)):
            self._take_answer(frame, raw, recv_ns)
        else:
            self._keep("public frame", f"private channel {frame.channel}", raw, recv_ns)

    def lost(self, recv_ns: int) -> None:
        """End every subscription in the data: from here on, silence means nothing."""
        self._lose(recv_ns)
        self._trades_seen.clear()

    def _look_for_life(self, now_ns: int) -> None:
        """Give up a connection that answers pings and pushes nothing any more.

        The snapshots that a subscription begins with are no pace. A second tick must find the same: after our own
        process has stood still, what came meanwhile has to be read first.
        """
        silent_ns = now_ns - self._pushed_ns
        if self.link is not Link.UP or self.is_dead or silent_ns < FROZEN_NS:
            return
        paced_ns = max(self._pushed_ns - self._opened_ns, _PACE_NS_MIN)
        if (self._pushes - len(self.channels)) * silent_ns < FROZEN_PUSHES * paced_ns:
            return
        if self._doubted_ns <= self._pushed_ns or self._doubted_ns == _NEVER:
            self._doubted_ns = now_ns
        elif now_ns - self._doubted_ns >= NS // 2:
            self._die(f"nothing was pushed for {silent_ns / NS:.0f} s, after {self._pushes} pushes")

    def _take_trades(self, n: int, frame: wire.TradePush, recv_ns: int) -> None:
        if frame.is_snapshot:
            if frame.symbol in self._trades_seen:
                # Bitget sends one snapshot a subscription. Another one says that the server began anew: what
                # happened since its last update is in these rows or nowhere, so the flow of this second is unknown.
                self._note("trades.restarted", symbol=frame.symbol)
                self._doubt((frame.channel, frame.symbol), recv_ns)
            self._trades_seen.add(frame.symbol)
        self.buffer.append_trades(n, frame.rows, self.conn, recv_ns, is_repeated=frame.is_snapshot)

    def follow(self, symbols: Iterable[str]) -> None:
        """Carry these symbols, too; each must be on the buffer's axis by now."""
        for symbol in symbols:
            self._axis[symbol] = self.buffer.index[symbol]
            self.add((channel, symbol) for channel in self._names)

    def leave(self, symbols: Iterable[str]) -> None:
        """Carry these symbols no longer; what is pushed until the server stops is still kept."""
        gone = set(symbols)
        self._trades_seen -= gone
        self.drop([subscription for subscription in self.channels if subscription[1] in gone])

    def _doubt(self, subscription: Subscription | None, recv_ns: int) -> None:
        """Break and mend a link in the data (None: every link), so that the second is not taken for complete."""
        for channel, symbol in [subscription] if subscription else self.channels:
            if self.channels.get((channel, symbol)) in UP:
                self.buffer.append_link(channel, symbol, TickEvent.GAP, self.conn, recv_ns)
                self.buffer.append_link(channel, symbol, TickEvent.SUBSCRIBED, self.conn, recv_ns)

    def _on_channel(self, subscription: Subscription, before: Channel, after: Channel, recv_ns: int) -> None:
        if (before in UP) == (after in UP):
            return
        event = TickEvent.SUBSCRIBED if after in UP else TickEvent.DISCONNECTED
        self.buffer.append_link(*subscription, event, self.conn, recv_ns)


class AccountSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The account as last pushed. A hint between reconciliations: the ledger is folded from fills."""

    recv_ns: int
    equity_usdt: Decimal
    available_usdt: Decimal


class PrivateSession(Session):
    """Orders and fills of the account, as the engine's events.

    A fill is told twice, by `orders` and by `fill`; both become `Filled`, with the same trade_id. In a push that
    ends an order, its fill comes before the final `OrderReported`. Whatever cannot be read kills the connection:
    it may have been a fill, so the link goes down, and coming up again makes the owner ask for the whole truth.
    """

    TABLE = PRIVATE_LINKS
    NAME = "private"
    NEEDS_ALL = True

    def __init__(self, keys: Keys, conn: int = 0) -> None:
        super().__init__(
            [("orders", "default"), ("fill", "default"), ("positions", "default"), ("account", "default")], conn
        )
        self._keys = keys
        self.account: AccountSeen | None = None  # None: nothing pushed yet
        self.positions: dict[str, Position] = {}
        self._was_linked = False

    def received(self, raw: str | bytes, recv_ns: int) -> list[Event]:
        """Return what happened to us.

        Raises:
            ExchangeRefused: the login was refused, and would be again.
        """
        try:
            frame = wire.decode_push(raw)
            events = self._take(frame, raw, recv_ns)
        except ProtocolBroken as error:
            self._keep("private frame", str(error)[:120], raw, recv_ns)
            self._die(f"unreadable: {error}")
            return []
        if self.is_linked != self._was_linked:
            self._was_linked = self.is_linked
            events.append(LinkChanged(recv_ns=recv_ns, link="private", is_up=self.is_linked))
        return events

    def lost(self, recv_ns: int) -> list[Event]:
        """Return the end of the link, where it was up."""
        self._lose(recv_ns)
        self.account, self.positions = None, {}
        was_linked, self._was_linked = self._was_linked, False
        return [LinkChanged(recv_ns=recv_ns, link="private", is_up=False)] if was_linked else []

    def _opening(self, now_ns: int) -> list[str]:
        self._messages.note(now_ns)
        self._login_due_ns = now_ns + ACK_NS
        return [login_frame(self._keys, now_ns)]

    def _take(self, frame: wire.Frame, raw: str | bytes, recv_ns: int) -> list[Event]:
        events: list[Event] = []
        if isinstance(frame, wire.Pong):
            self._pings_unanswered = 0
        elif isinstance(frame, wire.Ack) and frame.event == "login":
            self._step(LinkEvent.LOGIN_ACKED)
        elif isinstance(frame, wire.ErrorFrame) and self.link is Link.LOGIN:
            if frame.code in _LOGIN_REFUSALS:
                self._step(LinkEvent.LOGIN_REFUSED)
                raise ExchangeRefused(frame.code, f"{frame.message} (private stream's login: check the three keys)")
            self._die(f"{frame.code} {frame.message}")
        elif isinstance(frame, (wire.Ack, wire.ErrorFrame)):
            self._take_answer(frame, raw, recv_ns)
        else:
            self._keep_unknown(frame, raw, recv_ns)
            if isinstance(frame, wire.OrderPush):
                for order in frame.rows:
                    fill = wire.filled_of_order(order, recv_ns)
                    if fill is not None:
                        events.append(fill)
                    events.append(wire.order_state(order).reported(recv_ns))
            elif isinstance(frame, wire.FillPush):
                events.extend(wire.filled(row, recv_ns) for row in reversed(frame.rows))  # newest first, as over REST
            elif isinstance(frame, wire.PositionPush):
                held = [wire.position(row) for row in frame.rows if row.total]
                self.positions = {position.symbol: position for position in held}
            elif isinstance(frame, wire.AccountPush):
                for row in frame.rows:
                    if row.margin_coin == wire.MARGIN_COIN:
                        self.account = AccountSeen(
                            recv_ns=recv_ns, equity_usdt=row.equity, available_usdt=row.available
                        )
            else:
                raise ProtocolBroken(f"expected a private channel, found {frame.channel}")
        return events


# ------------------------------------------------------------------------------------------------ frames and shards


def subscribe_frame(wanted: list[Subscription], op: str = "subscribe") -> tuple[str, list[Subscription]]:
    """Return a frame that asks for (or ends) as many of the first subscriptions as fit into it, and those."""
    args: list[str] = []
    size = len(f'{{"op":"{op}","args":[]}}')
    for subscription in wanted:
        arg = msgspec.json.encode(_arg(subscription)).decode()
        size += len(arg.encode()) + bool(args)
        if size > FRAME_BYTES_MAX:
            break
        args.append(arg)
    assert args, wanted[:1]
    return f'{{"op":"{op}","args":[' + ",".join(args) + "]}", wanted[: len(args)]


def _arg(subscription: Subscription) -> dict[str, str]:
    channel, symbol = subscription
    name = "coin" if channel == "account" else "instId"  # PROTOCOL §7.4: account has a coin and no instId
    return {"instType": wire.PRODUCT_TYPE, "channel": channel, name: symbol}


def login_frame(keys: Keys, now_ns: int) -> str:
    """Return the login; its timestamp is in seconds (milliseconds, as the prose of the docs says, get no answer)."""
    seconds = now_ns // NS
    signature = sign(keys.secret, seconds, "GET", "/user/verify", "", "")
    arg = {"apiKey": keys.key, "passphrase": keys.passphrase, "timestamp": str(seconds), "sign": signature}
    return msgspec.json.encode({"op": "login", "args": [arg]}).decode()


def shards(symbols: tuple[str, ...], n_channels: int = 3, channels_max: int = CHANNELS_MAX) -> list[tuple[str, ...]]:
    """Return the symbols of each connection: as few connections as the limit allows, evenly filled."""
    n_connections = max(1, -(-len(symbols) * n_channels // (channels_max // n_channels * n_channels)))
    return [symbols[part::n_connections] for part in range(n_connections)]
