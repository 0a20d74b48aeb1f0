"""A WebSocket without the socket: text in, text out, the clock is an argument.

The shell connects and calls `connected`, passes every message to `received`, sends what `connected` and `tick`
return, calls `tick` when `due_ns` has come, closes when `is_dead`, and calls `lost` when the connection is gone,
for whatever reason. Nothing here raises because of what the market sends: what cannot be read is kept in
`quarantine`, told in `take_notes()`, and marked in the data as a gap.

What a connection and a subscription are, and what may become of them, is in the tables of `shared.bitget.states`.

Bitget's limits a connection (v2, WebSocket -> Introduction; PROTOCOL §7.1) and what we use of them, half or less,
because a server counts when messages arrive, not when we send them:

    10 messages/s, pings included   5          240 subscribe requests/h   120 (unsubscribe requests included)
    1000 channels                   500        4096 bytes a frame         4096 (it is exact)

A broken channel is mended by an unsubscribe and a subscribe request. Mending may take two thirds of the requests of an
hour and comes in bursts of 20; many channels go into one request; and a channel that breaks again and again is asked
for later each time. So neither one bad symbol nor a bad hour keeps the others waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from shared.bitget import wire
from shared.bitget.chain import ChainBroken
from shared.bitget.chains import Chains
from shared.bitget.states import CHANNELS, PUBLIC_LINKS, UP, Channel, ChannelEvent, Link, LinkEvent
from shared.bitget.ticks import CHANNEL_TABLE, TickBuffer
from shared.errors import ProtocolBroken
from shared.pace import Bucket, Pace
from shared.types import BOOKS5, FULL_BOOKS, NS, Note, TickEvent

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
MENDS_AT_ONCE, MEND_NS = 20, 60 * NS  # requests that mend: 20 at once and one a minute, 80 in an hour
MENDS_APART_NS = NS  # so that channels that break together are mended together
MEND_LATER_NS = 2 * NS  # a chain that breaks again is asked for this late, doubled each time up to RETRY_NS
WHOLE_NS = RETRY_NS  # a chain that has held for so long has paid for one break
_NEVER = 2**63 - 1


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
        self._mends = Bucket(MENDS_AT_ONCE, MEND_NS)
        self._mended_ns = 0  # when the last unsubscribe request of a broken channel was sent
        self._to_mend: dict[Subscription, int] = {}  # BROKEN, and the server was not told yet -> when it is asked again
        self._to_ask: dict[Subscription, int] = {}  # likewise, told
        self._later_ns: dict[Subscription, int] = {}  # WANTED after a break: when it is asked for
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
        if self.link is Link.UP and (self._to_leave or self._fresh()):
            due = min(due, self._subscribes.ready_ns())
        if self._to_mend or self._later_ns:
            due = min(due, max(self._mend_due_ns(), self._mends.ready_ns(), self._subscribes.ready_ns()))
        if self._due_again_ns:
            due = min(due, min(self._due_again_ns.values()))
        return max(due, self._messages.ready_ns())

    def connected(self, now_ns: int) -> list[str]:
        """Return the first frames of a new connection."""
        self._step(LinkEvent.CONNECTED)
        # Pings, messages and subscribes are counted a connection, and this is a new one.
        self._messages, self._subscribes = Pace(MESSAGES_PER_S), Pace(SUBSCRIBES_PER_H, 3600 * NS)
        self._mends, self._mended_ns = Bucket(MENDS_AT_ONCE, MEND_NS), 0
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
            wanted = self._fresh()
            while wanted and self._may_ask(now_ns):
                frames.append(self._ask(wanted, now_ns))
                wanted = [sub for sub in wanted if self.channels[sub] is Channel.WANTED]
            while self._to_leave and self._may_ask(now_ns):
                frame, left = subscribe_frame(list(self._to_leave), "unsubscribe")
                for sub in left:
                    del self._to_leave[sub]
                    self._due_again_ns[sub] = now_ns + ACK_NS
                frames.append(frame)
            frames += self._mend(now_ns)
        return frames

    def carries(self, subscription: Subscription) -> bool:
        """Claim that silence of this channel means that nothing happened."""
        return self.channels.get(subscription) in UP

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

    def _fresh(self) -> list[Subscription]:
        """Return what is wanted and did not break."""
        return [sub for sub, state in self.channels.items() if state is Channel.WANTED and sub not in self._later_ns]

    def _ask(self, wanted: list[Subscription], now_ns: int) -> str:
        frame, asked = subscribe_frame(wanted)
        for sub in asked:
            self._later_ns.pop(sub, None)
            self._step_channel(sub, ChannelEvent.SENT)
            self._due_again_ns[sub] = now_ns + ACK_NS
        return frame

    def _mend_due_ns(self) -> int:
        due = min(self._later_ns.values(), default=_NEVER)
        return min(due, self._mended_ns + MENDS_APART_NS) if self._to_mend else due

    def _mend(self, now_ns: int) -> list[str]:
        """Return the requests that end broken channels and ask for them again, as far as they are due."""
        frames: list[str] = []
        while self._mends.ready_ns() <= now_ns:
            again = [sub for sub, due_ns in self._later_ns.items() if due_ns <= now_ns]
            is_due = self._to_mend and self._mended_ns + MENDS_APART_NS <= now_ns
            if not (again or is_due) or not self._may_ask(now_ns):
                break
            self._mends.note(now_ns)
            if again:
                frames.append(self._ask(again, now_ns))
                continue
            frame, told = subscribe_frame(list(self._to_mend), "unsubscribe")
            self._mended_ns = now_ns
            for sub in told:
                later_ns = self._to_mend.pop(sub)
                if sub in self.channels:
                    self._to_ask[sub] = later_ns
                    self._due_again_ns[sub] = now_ns + ACK_NS
            frames.append(frame)
        return frames

    def _break(self, subscription: Subscription, later_ns: int, recv_ns: int) -> None:
        """Let a channel begin anew, not before `later_ns`."""
        self._step_channel(subscription, ChannelEvent.BROKE, recv_ns)
        self._due_again_ns.pop(subscription, None)
        self._later_ns.pop(subscription, None)
        self._to_mend[subscription] = later_ns

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
        if before is Channel.BROKEN and after is Channel.WANTED:
            later_ns = self._to_mend.pop(subscription, 0)  # ended by the server, before it was told to
            self._later_ns[subscription] = max(later_ns, self._to_ask.pop(subscription, 0))
        self._on_channel(subscription, before, after, recv_ns)
        if after is Channel.GONE:
            for waiting in (self._later_ns, self._to_ask, self._to_mend):
                waiting.pop(subscription, None)
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
            is_asked = self.channels[subscription] not in (Channel.LEAVING, Channel.BROKEN)
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
            if self.channels[subscription] is not Channel.BROKEN:
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
        for waiting in (self._to_leave, self._to_mend, self._to_ask, self._later_ns):
            waiting.clear()
        self._gone.clear()


class PublicSession(Session):
    """Market data of some symbols into a `TickBuffer`.

    Args:
        symbols: those of this connection; each must be on the buffer's axis.
        channels: of every symbol, or a function that gives those of one.
        conn: number of this connection within the collector's session, stored in every row.
    """

    TABLE = PUBLIC_LINKS
    NAME = "public"
    NEEDS_ALL = False

    def __init__(
        self,
        symbols: Iterable[str],
        channels: tuple[str, ...] | Callable[[str], tuple[str, ...]] = BOOKS5.channels_of,
        *,
        conn: int,
        buffer: TickBuffer,
    ) -> None:
        symbols = tuple(symbols)
        assert set(symbols) <= set(buffer.index), set(symbols) - set(buffer.index)
        self._channels_of = channels if callable(channels) else lambda _: channels
        super().__init__(((channel, symbol) for symbol in symbols for channel in self._channels_of(symbol)), conn)
        unknown = {channel for channel, _ in self.channels} - set(CHANNEL_TABLE)
        assert not unknown, unknown
        self.buffer = buffer
        self._chains = Chains(buffer, conn)
        self._breaks: dict[str, int] = {}  # symbol -> breaks of its chain that were not paid for
        self._broke_ns: dict[str, int] = {}  # symbol -> when its chain broke, until it is whole
        self._whole_ns: dict[str, int] = {}  # symbol -> since when its chain has held
        self._axis = {symbol: buffer.index[symbol] for symbol in symbols}
        self.strangers: set[str] = set()  # symbols that were pushed and are on no axis of ours: whoever reads, clears
        self._trades_seen: dict[str, int] = {}  # symbols whose subscribe snapshot of trades has come -> newest id
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
        if isinstance(frame, (wire.BookPush, wire.TickerPush, wire.TradePush, wire.DepthPush)):
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
            elif isinstance(frame, wire.TradePush):
                self._take_trades(n, frame, recv_ns)
            else:
                self._take_depth(n, frame, raw, recv_ns)
        elif isinstance(frame, wire.Pong):
            self._pings_unanswered = 0
        elif isinstance(frame, (wire.Ack, wire.ErrorFrame)):
            self._take_answer(frame, raw, recv_ns)
        else:
            self._keep("public frame", f"private channel {frame.channel}", raw, recv_ns)

    def lost(self, recv_ns: int) -> None:
        """End every subscription in the data: from here on, silence means nothing."""
        self._chains.end_all(recv_ns)
        self._lose(recv_ns)
        self._trades_seen.clear()
        for told in (self._breaks, self._broke_ns, self._whole_ns):
            told.clear()

    def carries(self, subscription: Subscription) -> bool:
        channel, symbol = subscription
        return super().carries(subscription) and (channel != FULL_BOOKS or self._chains.is_open(symbol))

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
        newest = max((row.trade_id for row in frame.rows), default=0)
        seen = self._trades_seen.get(frame.symbol)
        if seen is not None and frame.is_snapshot and newest > seen:
            # Bitget sends one snapshot a subscription. Another one with news says that the server began anew: what
            # happened since its last update is in these rows or nowhere, so the flow of this second is unknown.
            self._note("trades.restarted", symbol=frame.symbol)
            self._doubt((frame.channel, frame.symbol), recv_ns)
        if seen is not None or frame.is_snapshot:
            self._trades_seen[frame.symbol] = max(newest, seen or 0)
        self.buffer.append_trades(n, frame.rows, self.conn, recv_ns, is_repeated=frame.is_snapshot)

    def _take_depth(self, n: int, frame: wire.DepthPush, raw: str | bytes, recv_ns: int) -> None:
        symbol = frame.symbol
        subscription = (FULL_BOOKS, symbol)
        state = self.channels.get(subscription, Channel.GONE)
        is_due = frame.is_snapshot or state in (Channel.ASKED, Channel.LINKED) or self._chains.is_known(symbol)
        if state in (Channel.BROKEN, Channel.GONE) or not is_due:
            return  # it was on its way before the server was told to end it
        for row in frame.rows:
            try:
                is_opening = self._chains.take(
                    n, symbol, row, recv_ns, is_snapshot=frame.is_snapshot, is_linked=state in UP
                )
            except ChainBroken as broken:
                if broken.is_malformed:
                    self._keep(f"{FULL_BOOKS} push", str(broken), raw, recv_ns)
                self._break_chain(symbol, str(broken), recv_ns)
                return
            if is_opening:
                self._due_again_ns.pop(subscription, None)
                self._whole_ns[symbol] = recv_ns
                if (broke_ns := self._broke_ns.pop(symbol, None)) is not None:
                    self._note("book.mended", symbol=symbol, after_s=(recv_ns - broke_ns) / NS)

    def _break_chain(self, symbol: str, why: str, recv_ns: int) -> None:
        """Mark that the book is not known from here on, and let it begin anew, later each time that it breaks again."""
        self._note("book.broke", symbol=symbol, why=why)
        self._chains.fail(symbol, recv_ns)
        self._broke_ns.setdefault(symbol, recv_ns)
        held_ns = recv_ns - self._whole_ns.pop(symbol, recv_ns)
        breaks = self._breaks[symbol] = max(0, self._breaks.get(symbol, 0) - held_ns // WHOLE_NS) + 1
        wait_ns = min(RETRY_NS, MEND_LATER_NS << min(breaks - 2, 30)) if breaks > 1 else 0
        if self.channels[FULL_BOOKS, symbol] is not Channel.LEAVING:
            self._break((FULL_BOOKS, symbol), recv_ns + wait_ns, recv_ns)

    def _expire(self, now_ns: int) -> None:
        for subscription, due_ns in list(self._due_again_ns.items()):
            if due_ns > now_ns or self.channels[subscription] is not Channel.LINKED:
                continue
            del self._due_again_ns[subscription]
            if not self._chains.is_known(subscription[1]):  # acked, and nothing has come since
                self._break_chain(subscription[1], f"expected a snapshot within {ACK_NS // NS} s, found none", now_ns)
        super()._expire(now_ns)

    def follow(self, symbols: Iterable[str]) -> None:
        """Carry these symbols, too; each must be on the buffer's axis by now."""
        for symbol in symbols:
            self._axis[symbol] = self.buffer.index[symbol]
            self.add((channel, symbol) for channel in self._channels_of(symbol))

    def leave(self, symbols: Iterable[str]) -> None:
        """Carry these symbols no longer; what is pushed until the server stops is still kept."""
        gone = set(symbols)
        for symbol in gone:
            self._trades_seen.pop(symbol, None)
        self.drop([subscription for subscription in self.channels if subscription[1] in gone])

    def _doubt(self, subscription: Subscription | None, recv_ns: int) -> None:
        """Break and mend a link in the data (None: every link), so that the second is not taken for complete."""
        for channel, symbol in [subscription] if subscription else self.channels:
            if channel == FULL_BOOKS:
                self._chains.doubt(symbol, recv_ns)
            elif self.channels.get((channel, symbol)) in UP:
                self.buffer.append_link(channel, symbol, TickEvent.GAP, self.conn, recv_ns)
                self.buffer.append_link(channel, symbol, TickEvent.SUBSCRIBED, self.conn, recv_ns)

    def _on_channel(self, subscription: Subscription, before: Channel, after: Channel, recv_ns: int) -> None:
        if subscription[0] == FULL_BOOKS:
            self._on_full_book(subscription, before, after, recv_ns)
            return
        if (before in UP) == (after in UP):
            return
        event = TickEvent.SUBSCRIBED if after in UP else TickEvent.DISCONNECTED
        self.buffer.append_link(*subscription, event, self.conn, recv_ns)

    def _on_full_book(self, subscription: Subscription, before: Channel, after: Channel, recv_ns: int) -> None:
        """In the data its link comes up with the snapshot, not with the ack; a break has been marked already."""
        symbol = subscription[1]
        if after is Channel.LINKED and not self._chains.is_open(symbol):
            self._due_again_ns[subscription] = recv_ns + ACK_NS  # a book that came before the ack opens with an update
        elif after in (Channel.WANTED, Channel.GONE) and (before in UP or before is Channel.BROKEN):
            self._chains.end(symbol, recv_ns)


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


def shards(symbols: tuple[str, ...], n_channels: int = 3, channels_max: int = CHANNELS_MAX) -> list[tuple[str, ...]]:
    """Return the symbols of each connection: as few connections as the limit allows, evenly filled."""
    n_connections = max(1, -(-len(symbols) * n_channels // (channels_max // n_channels * n_channels)))
    return [symbols[part::n_connections] for part in range(n_connections)]
