"""Sessions: whatever the server does, limits are kept, links are told truly, and nothing is lost silently."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.bitget import session as s
from shared.bitget.account import AccountSeen, PrivateSession
from shared.bitget.rest import Keys
from shared.bitget.session import PublicSession
from shared.bitget.states import CHANNELS, LINKS, PRIVATE_LINKS, PUBLIC_LINKS, Channel, ChannelEvent, Link, LinkEvent
from shared.bitget.ticks import TickBuffer
from shared.errors import ExchangeRefused
from shared.types import (
    FULL_BOOKS,
    NS,
    BookChannels,
    Event,
    Filled,
    LinkChanged,
    OrderReported,
    OrderStatus,
    TickEvent,
    Ticks,
)
from tests.shared.bitget.payloads import FRAMES, SIGNATURES, ack, book, compact, frame, refusal, trades

T0 = 1_760_000_000 * NS
KEYS = Keys(SIGNATURES["key"], SIGNATURES["secret"], SIGNATURES["passphrase"])
MANY = (*sorted(f"S{i}USDT" for i in range(165)), "龙虾USDT")


def public(
    symbols: tuple[str, ...] = ("BTCUSDT",), channels: tuple[str, ...] = ("books15", "trade", "ticker")
) -> PublicSession:
    return PublicSession(symbols, channels, conn=2, buffer=TickBuffer(symbols))


def args_of(frames: list[str]) -> list[tuple[str, str]]:
    """Return the subscriptions that the frames ask for."""
    asked = [json.loads(text) for text in frames if text.startswith('{"op":"subscribe"')]
    return [(arg["channel"], arg.get("instId") or arg["coin"]) for request in asked for arg in request["args"]]


def linked(session: PublicSession, at_ns: int = T0) -> PublicSession:
    """Connect and ack everything."""
    for channel, symbol in args_of(session.connected(at_ns)):
        session.received(ack(channel, symbol), at_ns)
    assert session.is_linked
    return session


def links(ticks: Ticks) -> list[tuple[str, int, TickEvent]]:
    """Return the link rows as (table, receipt, event)."""
    return [
        (name, int(recv_ns), TickEvent(int(event)))
        for name, table in (("book", ticks.books), ("trade", ticks.trades), ("ticker", ticks.tickers))
        for recv_ns, event in zip(table.recv_ns, table.event, strict=True)
        if event in (TickEvent.SUBSCRIBED, TickEvent.DISCONNECTED, TickEvent.GAP)
    ]


# ------------------------------------------------------------------------------------------------------- the tables


@pytest.mark.parametrize("table", [PUBLIC_LINKS, PRIVATE_LINKS], ids=["public", "private"])
@pytest.mark.parametrize("state", list(Link))
@pytest.mark.parametrize("event", list(LinkEvent))
def test_impossible_step_of_a_link_changes_nothing(table: dict[Any, Link], state: Link, event: LinkEvent) -> None:
    """A step that the table lists is taken; any other is refused and leaves the link as it was."""
    session: s.Session = public() if table is PUBLIC_LINKS else PrivateSession(KEYS)
    session.link = state

    if (state, event) in table:
        session._step(event)
        assert session.link is table[state, event]
    else:
        with pytest.raises(AssertionError):
            session._step(event)
        assert session.link is state


@pytest.mark.parametrize("state", list(Channel))
@pytest.mark.parametrize("event", list(ChannelEvent))
def test_impossible_step_of_a_channel_changes_nothing_and_is_told(state: Channel, event: ChannelEvent) -> None:
    """The server may mislead us about a channel: a step that the table does not list is noted and changes nothing."""
    session = public(channels=("trade",))
    session.channels["trade", "BTCUSDT"] = state

    session._step_channel(("trade", "BTCUSDT"), event, T0)

    assert session.channels.get(("trade", "BTCUSDT"), Channel.GONE) is CHANNELS.get((state, event), state)
    assert [note.event for note in session.take_notes()] == ([] if (state, event) in CHANNELS else ["channel.misled"])


def test_every_loss_leads_back_to_wanted() -> None:
    """From every state of a channel that is wanted a loss leads to WANTED, and from every state of a link to DOWN."""
    wanted = set(Channel) - {Channel.LEAVING, Channel.GONE}
    assert {CHANNELS[state, ChannelEvent.LOST] for state in wanted} == {Channel.WANTED}
    assert {LINKS[state, LinkEvent.LOST] for state in Link} == {Link.DOWN}


# --------------------------------------------------------------------------------------------------- subscriptions


def test_subscribing_fits_frames_and_pace() -> None:
    """498 channels are asked for in frames of at most 4096 bytes, five in the first second, each channel once."""
    session = PublicSession(MANY, conn=0, buffer=TickBuffer(MANY))
    now, sent = T0, list(session.connected(T0))
    times = [T0] * len(sent)

    while len(args_of(sent)) < 3 * len(MANY):
        assert session.due_ns > now
        now = session.due_ns
        frames = session.tick(now)
        sent += frames
        times += [now] * len(frames)

    assert max(sum(at <= other < at + NS for other in times) for at in times) == 5
    assert max(len(text.encode()) for text in sent) <= 4096
    assert Counter(args_of(sent)) == Counter(session.channels.keys())
    assert now - T0 <= 3 * NS


def test_too_many_channels_are_our_mistake() -> None:
    """A connection with more than 500 channels is refused before it is opened, and `shards` never makes one."""
    symbols = tuple(f"S{i:03d}" for i in range(167))

    with pytest.raises(AssertionError, match="use shards"):
        PublicSession(symbols, conn=0, buffer=TickBuffer(symbols))


@given(st.integers(0, 900), st.integers(1, 4))
def test_shards_cover_every_symbol_once(n_symbols: int, n_channels: int) -> None:
    """Shards hold every symbol once, none too many, and no more connections than needed."""
    symbols = tuple(f"S{i:03d}" for i in range(n_symbols))

    parts = s.shards(symbols, n_channels)

    assert sorted(symbol for part in parts for symbol in part) == sorted(symbols)
    assert all(len(part) * n_channels <= s.CHANNELS_MAX for part in parts)
    assert len(parts) == max(1, -(-n_symbols // (s.CHANNELS_MAX // n_channels)))


def test_refused_channel_is_told_and_the_rest_lives() -> None:
    """A symbol that Bitget does not know is noted; the others make the link, and it is asked for again soon, then later.

    Ten requests in the first hour, six in each that follows: a symbol that never comes costs next to nothing.
    """
    session = public(("BTCUSDT", "NOPEUSDT"), ("ticker",))
    session.connected(T0)
    session.received(ack("ticker", "BTCUSDT"), T0 + 1)

    session.received(refusal("ticker", "NOPEUSDT"), T0 + 2)

    assert session.is_linked
    assert [note.event for note in session.take_notes()] == ["channel.refused"]
    asked_s = []
    for second in range(1, 7200):
        now_ns = T0 + 2 + second * NS
        frames = session.tick(now_ns)
        if "ping" in frames:
            session.received("pong", now_ns)
        for channel, symbol in args_of(frames):
            asked_s.append(second)
            session.received(refusal(channel, symbol), now_ns)
    assert [b - a for a, b in pairwise([0, *asked_s])] == [15, 30, 60, 120, 240, 480] + [600] * 10


def test_unanswered_subscription_is_asked_for_again() -> None:
    """A subscription whose ack does not come is noted and asked for again."""
    session = public(channels=("ticker",))
    session.connected(T0)

    again = session.tick(T0 + s.ACK_NS)

    assert args_of(again) == [("ticker", "BTCUSDT")]
    assert [note.event for note in session.take_notes()] == ["channel.unanswered"]


def test_silent_server_is_not_flooded() -> None:
    """A server that never acks hears at most 120 subscribe requests in any hour, and still gets its pings."""
    session = public(channels=("ticker",))
    now, sent = T0, [(T0, text) for text in session.connected(T0)]
    while now < T0 + 3 * 3600 * NS:
        now = session.due_ns
        for text in session.tick(now):
            sent.append((now, text))
            if text == "ping":
                session.received("pong", now)

    asked = [at for at, text in sent if text != "ping"]
    pings = [at for at, text in sent if text == "ping"]

    assert max(sum(at <= other < at + 3600 * NS for other in asked) for at in asked) == 120
    assert max(after - before for before, after in pairwise(pings)) <= 21 * NS


def test_answer_to_nothing_is_kept() -> None:
    """An ack or error for what was never asked is kept in quarantine."""
    session = linked(public())

    session.received(ack("ticker", "ETHUSDT"), T0 + 1)
    session.received(frame("login_failed"), T0 + 1)

    assert sum(session.quarantine.counts.values()) == 2
    assert session.is_linked


@pytest.mark.parametrize("code", [30006, 30007])
def test_being_over_a_limit_ends_the_connection(code: int) -> None:
    """When Bitget says that we sent too much, the session asks to be closed rather than to go on."""
    session = linked(public())

    session.received(compact({"event": "error", "code": code, "msg": "too many requests"}), T0 + 1)

    assert session.is_dead
    assert session.tick(T0 + 60 * NS) == []


# ------------------------------------------------------------------------------------------------------- heartbeat


def test_pings_go_out_every_twenty_seconds() -> None:
    """With pongs coming back, a ping goes out every 20 s and the session lives."""
    session = linked(public())
    pings = []
    for _ in range(10):
        now = session.due_ns
        assert session.tick(now) == ["ping"]
        pings.append((now - T0) // NS)
        session.received("pong", now + NS)

    assert pings == [20 * (i + 1) for i in range(10)]
    assert not session.is_dead


def test_two_missed_pongs_are_death() -> None:
    """Two pings without a pong end the connection; data alone does not prove that we are heard."""
    session = linked(public())
    for _ in range(2):
        session.tick(session.due_ns)
        session.received(book("BTCUSDT", [(1.0, 1.0)], [(2.0, 1.0)]), session.due_ns - 1)
        assert not session.is_dead

    assert session.tick(session.due_ns) == []

    assert session.is_dead
    assert "unanswered" in session.dead_because


def dies_at(session: PublicSession, pushes: Any, end_ns: int) -> int | None:
    """Tick every half second, answer pings, push books at these times; return when the session dies, if it does."""
    times, now = iter(sorted(pushes)), T0
    due = next(times, 2 * end_ns)
    while now < end_ns:
        now += NS // 2
        while due <= now:
            session.received(book("BTCUSDT", [(1.0, 1.0)], [(2.0, 1.0)], due // 10**6, due // 10**6), due)
            due = next(times, 2 * end_ns)
        if "ping" in session.tick(now):
            session.received("pong", now)
        if session.is_dead:
            return now
    return None


@pytest.mark.parametrize("frozen_s", [70, 900])
def test_feed_that_stands_still_is_death_although_pongs_come(frozen_s: int) -> None:
    """A connection that has pushed ten times a second and pushes nothing for ten seconds is given up, in 11 s."""
    session = linked(public())

    died_ns = dies_at(session, range(T0 + 1, T0 + frozen_s * NS, NS // 10), T0 + 2 * frozen_s * NS)

    assert died_ns is not None
    assert 10 * NS <= died_ns - (T0 + frozen_s * NS) <= 11 * NS
    assert "nothing was pushed" in session.dead_because


@pytest.mark.parametrize("per_s", [0.003, 0.05, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_quiet_market_is_no_frozen_feed(seed: int, per_s: float) -> None:
    """Pushes that come at random, however seldom, after a burst of snapshots: the connection lives for two hours."""
    rng = np.random.default_rng(seed)
    times = T0 + NS + np.cumsum(rng.exponential(NS / per_s, int(9000 * per_s) + 9)).astype(np.int64)

    assert dies_at(linked(public()), [T0 + 1, T0 + 2, T0 + 3, *times.tolist()], T0 + 7200 * NS) is None


def test_our_own_standstill_is_no_frozen_feed() -> None:
    """After our process has stood still the first tick comes before what waits in the socket: that is read first."""
    session = linked(public())
    assert dies_at(session, range(T0 + 1, T0 + 100 * NS, NS // 10), T0 + 100 * NS) is None

    session.tick(T0 + 115 * NS)
    session.received(book("BTCUSDT", [(1.0, 1.0)], [(2.0, 1.0)]), T0 + 115 * NS + 1)
    session.tick(T0 + 116 * NS)

    assert not session.is_dead


# ------------------------------------------------------------------------------------------------- links as rows


def test_link_rows_frame_the_data() -> None:
    """SUBSCRIBED comes with the ack, DISCONNECTED with the loss, each once per channel."""
    session = linked(public(), T0)
    session.received(book("BTCUSDT", [(1.0, 1.0)], [(2.0, 1.0)]), T0 + 5)

    session.lost(T0 + 9)

    assert links(session.buffer.take()) == [
        (table, at, event)
        for table in ("book", "trade", "ticker")
        for at, event in ((T0, TickEvent.SUBSCRIBED), (T0 + 9, TickEvent.DISCONNECTED))
    ]
    session.lost(T0 + 10)
    assert len(session.buffer) == 0


def test_server_ending_a_channel_is_a_disconnection() -> None:
    """When the server unsubscribes us, the data says so, and the channel is asked for again."""
    session = linked(public(channels=("ticker",)))

    session.received(ack("ticker", "BTCUSDT", "unsubscribe"), T0 + 1)

    assert [event for *_, event in links(session.buffer.take())] == [TickEvent.SUBSCRIBED, TickEvent.DISCONNECTED]
    assert args_of(session.tick(T0 + NS)) == [("ticker", "BTCUSDT")]


def test_snapshot_trades_are_repeated_and_updates_are_not() -> None:
    """The trades of the subscribe snapshot are flagged REPEATED, those of updates are DATA."""
    session = linked(public())
    session.received(frame("trade_snapshot"), T0 + 1)
    session.received(frame("trade_update"), T0 + 2)

    events = session.buffer.take().trades.event.tolist()

    assert events == [TickEvent.SUBSCRIBED, *[TickEvent.REPEATED] * 2, *[TickEvent.DATA] * 2]


def test_second_snapshot_of_trades_leaves_a_gap() -> None:
    """A snapshot that nobody asked for hides what was traded before it, so the link is broken and mended there."""
    session = linked(public())
    session.received(frame("trade_snapshot"), T0 + 1)
    session.buffer.take()

    session.received(with_newer_trades(frame("trade_snapshot")), T0 + 2)

    ticks = session.buffer.take()
    assert ticks.trades.event.tolist() == [TickEvent.GAP, TickEvent.SUBSCRIBED, *[TickEvent.REPEATED] * 2]
    assert [note.event for note in session.take_notes()] == ["trades.restarted"]


def test_second_snapshot_without_news_hides_nothing() -> None:
    """A snapshot that came twice, or late, and knows no trade that was not told: nothing can be missing before it."""
    session = linked(public())
    session.received(frame("trade_snapshot"), T0 + 1)
    session.received(frame("trade_update"), T0 + 2)
    session.buffer.take()

    session.received(frame("trade_snapshot"), T0 + 3)

    assert set(session.buffer.take().trades.event.tolist()) == {TickEvent.REPEATED}
    assert session.take_notes() == []


def with_newer_trades(text: str) -> str:
    payload = json.loads(text)
    for row in payload["data"]:
        row["tradeId"] = str(int(row["tradeId"]) + 10**12)
    return json.dumps(payload)


def test_snapshot_after_a_reconnect_is_no_gap() -> None:
    """Each connection has its own subscribe snapshot."""
    session = linked(public())
    session.received(frame("trade_snapshot"), T0 + 1)
    session.lost(T0 + 2)
    linked(session, T0 + 3)
    session.buffer.take()

    session.received(frame("trade_snapshot"), T0 + 4)

    assert set(session.buffer.take().trades.event.tolist()) == {TickEvent.REPEATED}


@given(name=st.sampled_from(["books15", "trade_update", "ticker"]), cut=st.integers(1, 80), noise=st.text(max_size=5))
def test_damaged_frame_leaves_a_gap_and_is_kept(name: str, cut: int, noise: str) -> None:
    """A frame that cannot be read is kept, and every link is broken and mended, because it may have been of any."""
    session = linked(public())
    session.buffer.take()
    raw = frame(name)[:-cut] + noise

    session.received(raw, T0 + 7)

    assert sum(session.quarantine.counts.values()) == 1
    assert list(session.quarantine.samples.values()) == [raw]
    assert links(session.buffer.take()) == [
        (table, T0 + 7, event)
        for table in ("book", "trade", "ticker")
        for event in (TickEvent.GAP, TickEvent.SUBSCRIBED)
    ]


def test_unknown_field_and_unasked_symbol_are_kept() -> None:
    """An unknown field is counted while its row counts; a symbol that was not asked for is counted and left out."""
    session = linked(public())
    session.buffer.take()

    session.received(frame("ticker_with_blanks", brandNew="1"), T0 + 1)
    session.received(book("ETHUSDT", [(1.0, 1.0)], [(2.0, 1.0)]), T0 + 2)

    ticks = session.buffer.take()
    assert (len(ticks.tickers.last), len(ticks.books.seq)) == (1, 0)
    assert session.quarantine.counts == {
        ("ticker push", "unknown field brandNew"): 1,
        ("books15 push", "symbol ETHUSDT was not asked for"): 1,
    }
    assert [note.event for note in session.take_notes()] == ["payload.quarantined"] * 2


# --------------------------------------------------------------------------------------- any server, any network


class Server:
    """A server that acks, refuses, repeats, falls silent and drops, as drawn."""

    def __init__(self, session: PublicSession, data: st.DataObject) -> None:
        self.session, self.data = session, data
        self.now = T0
        self.is_open = False
        self.sent: list[tuple[int, str]] = []  # on this connection
        self.all_sent: list[list[tuple[int, str]]] = []
        self.ids = 0
        self.wanted = set(session.buffer.symbols)

    def answer(self, frames: list[str]) -> None:
        for text in frames:
            self.sent.append((self.now, text))
            if text == "ping":
                if self.data.draw(st.integers(0, 9)):
                    self.receive("pong")
                continue
            request = json.loads(text)
            for channel, symbol in ((arg["channel"], arg["instId"]) for arg in request["args"]):
                how = self.data.draw(st.integers(0, 20))
                if how == 0:
                    continue
                self.receive(refusal(channel, symbol) if how == 1 else ack(channel, symbol, request["op"]))
                if how == 2:
                    self.receive(ack(channel, symbol, request["op"]))

    def receive(self, text: str) -> None:
        self.now += 1
        self.session.received(text, self.now)

    def step(self) -> None:
        data, session = self.data, self.session
        self.now += data.draw(st.sampled_from([1, NS // 10, NS, 7 * NS, 400 * NS]))
        if not self.is_open:
            self.sent = []
            self.all_sent.append(self.sent)
            self.is_open = True
            self.answer(session.connected(self.now))
        elif session.is_dead or data.draw(st.integers(0, 15)) == 0:
            self.is_open = False
            session.lost(self.now)
        else:
            self.answer(session.tick(self.now))
            kind = data.draw(st.integers(0, 6))
            symbol = data.draw(st.sampled_from(session.buffer.symbols))
            if kind == 0 and (FULL_BOOKS, symbol) in session.channels:
                action, pseq = data.draw(st.sampled_from([("snapshot", 0), ("update", 1), ("update", 2)]))
                seq = data.draw(st.integers(1, 3))
                row = {"asks": [["2", "1"]], "bids": [["1", "1"]], "ts": "1", "seq": seq, "pseq": pseq}
                arg = {"instType": "USDT-FUTURES", "channel": FULL_BOOKS, "instId": symbol}
                self.receive(compact({"action": action, "arg": arg, "data": [row], "ts": 1}))
            elif kind == 0:
                self.receive(book(symbol, [(1.0, 1.0)], [(2.0, 1.0)]))
            elif kind == 1:
                self.ids += 1
                self.receive(trades(symbol, [(self.ids, 1.0, 1.0, "buy")]))
            elif kind == 2:
                self.receive("{broken")
            elif kind == 3:
                session.leave([symbol])
                self.wanted.discard(symbol)
            elif kind == 4:
                session.follow([symbol])
                self.wanted.add(symbol)


@settings(max_examples=40)
@given(st.data())
def test_limits_and_links_hold_against_any_server(data: st.DataObject) -> None:
    """With losses, refusals, silence and damage as drawn, no limit is ever passed and link rows always alternate."""
    symbols = tuple(f"S{i:02d}USDT" for i in range(data.draw(st.integers(1, 60))))
    buffer = TickBuffer(symbols)
    channel = data.draw(st.sampled_from(["books5", FULL_BOOKS]))
    server = Server(PublicSession(symbols, BookChannels(channel).channels_of, conn=1, buffer=buffer), data)
    for _ in range(data.draw(st.integers(1, 40))):
        server.step()
    if server.is_open:
        server.session.lost(server.now + 1)

    for sent in server.all_sent:
        times = [at for at, _ in sent]
        subscribes = [at for at, text in sent if text != "ping"]
        assert all(sum(at <= other < at + NS for other in times) <= 5 for at in times)
        assert all(sum(at <= other < at + 3600 * NS for other in subscribes) <= 120 for at in subscribes)
        assert all(len(text.encode()) <= 4096 for _, text in sent)
    ticks = buffer.take()
    for table in (ticks.books, ticks.trades, ticks.tickers):
        assert (table.recv_ns[1:] >= table.recv_ns[:-1]).all()
        for n in range(len(symbols)):
            is_up = False
            for event in table.event[table.symbol == n].tolist():
                if event == TickEvent.SUBSCRIBED:
                    assert not is_up
                    is_up = True
                elif event in (TickEvent.DISCONNECTED, TickEvent.GAP):
                    # What breaks before it is whole, and the end of what is broken, are marked all the same.
                    assert is_up or (channel == FULL_BOOKS and table is ticks.books)
                    is_up = False
            assert not is_up, "every link that came up went down at the end"


@settings(max_examples=20)
@given(st.data())
def test_every_channel_comes_up_in_the_end(data: st.DataObject) -> None:
    """Whatever happened before, a server that behaves from here on has every channel linked within 20 s."""
    symbols = tuple(f"S{i:02d}USDT" for i in range(20))
    server = Server(PublicSession(symbols, conn=1, buffer=TickBuffer(symbols)), data)
    for _ in range(data.draw(st.integers(0, 20))):
        server.step()
    session, now = server.session, server.now + 1
    if server.is_open:
        session.lost(now)
    frames = session.connected(now)
    end = now + 20 * NS
    while now < end:
        for channel, symbol in args_of(frames):
            session.received(ack(channel, symbol), now)
        now = max(now + 1, min(session.due_ns, end))
        frames = session.tick(now)

    assert session.is_linked
    names = ("books5", "trade", "ticker")
    assert set(session.channels) == {(name, symbol) for symbol in server.wanted for name in names}


# ---------------------------------------------------------------------------------------------------- private


def private_up(at_ns: int = T0) -> tuple[PrivateSession, list[Event]]:
    session = PrivateSession(KEYS)
    session.connected(at_ns)
    events = session.received(frame("logged_in"), at_ns + 1)
    for channel, symbol in args_of(session.tick(at_ns + 2)):
        events += session.received(ack(channel, symbol), at_ns + 3)
    return session, events


def test_login_is_signed_in_seconds() -> None:
    """The login frame carries seconds and the signature that ccxt computes too; nothing is subscribed before its ack."""
    session = PrivateSession(KEYS)

    frames = session.connected(1_700_000_000 * NS)

    assert [json.loads(text) for text in frames] == [
        {
            "op": "login",
            "args": [
                {
                    "apiKey": "bg_test_key",
                    "passphrase": "test_pass",
                    "timestamp": "1700000000",
                    "sign": "JP6L5exvJ+wJgx61sIfUAYQzFFqHStdUH3evAvhQOe8=",
                }
            ],
        }
    ]
    assert session.tick(1_700_000_001 * NS) == []


def test_login_without_an_answer_is_given_up() -> None:
    """A login whose answer is lost kills the connection in time, though the pings are answered; an answered one not."""
    silent, answered = PrivateSession(KEYS), PrivateSession(KEYS)
    for session in (silent, answered):
        session.connected(T0)
    answered.received(frame("logged_in"), T0 + 1)

    for session in (silent, answered):
        assert session.due_ns <= T0 + s.ACK_NS
        session.tick(T0 + s.ACK_NS - 1)
        assert not session.is_dead
        session.received("pong", T0 + s.ACK_NS - 1)
        session.tick(T0 + s.ACK_NS)

    assert silent.dead_because.startswith("the login was not answered")
    assert not answered.is_dead
    silent.lost(T0 + s.ACK_NS)
    silent.connected(T0 + 2 * s.ACK_NS)
    silent.tick(T0 + 2 * s.ACK_NS)
    assert not silent.is_dead


def test_link_is_up_when_every_channel_is_acked() -> None:
    """The engine hears that the private link is up once, after the last of the four acks, and that it is lost."""
    session, events = private_up()

    assert [type(event) for event in events] == [LinkChanged]
    assert events[0] == LinkChanged(recv_ns=T0 + 3, link="private", is_up=True)
    assert session.lost(T0 + 9) == [LinkChanged(recv_ns=T0 + 9, link="private", is_up=False)]
    assert session.lost(T0 + 10) == []


@pytest.mark.parametrize("code", [30005, 30011, 30012, 30013, 30015])
def test_refused_login_is_final(code: int) -> None:
    """Wrong keys would be refused again: the session raises instead of coming back."""
    session = PrivateSession(KEYS)
    session.connected(T0)

    with pytest.raises(ExchangeRefused, match="check the three keys"):
        session.received(compact({"event": "error", "code": code, "msg": "Invalid sign"}), T0 + 1)

    assert session.link is Link.REFUSED


def test_busy_server_at_login_is_not_final() -> None:
    """Too many requests at the login end the connection, and the next may work."""
    session = PrivateSession(KEYS)
    session.connected(T0)

    assert session.received(compact({"event": "error", "code": 30006, "msg": "too many"}), T0 + 1) == []

    assert session.is_dead
    session.lost(T0 + 2)
    assert len(session.connected(T0 + 3)) == 1


def test_order_push_gives_the_fill_before_the_end_of_the_order() -> None:
    """The fill that ends an order comes before the report that it ended: a position is never behind its order."""
    session, _ = private_up()

    live = session.received(frame("order_live"), T0 + 10)
    ended = session.received(frame("order_filled"), T0 + 11)
    repeated = session.received(frame("fill"), T0 + 12)

    assert [type(event) for event in (*live, *ended, *repeated)] == [OrderReported, Filled, OrderReported, Filled]
    assert isinstance(ended[0], Filled)
    assert isinstance(repeated[0], Filled)
    assert isinstance(ended[1], OrderReported)
    assert ended[1].status is OrderStatus.FILLED
    assert repeated[0].trade_id == ended[0].trade_id


def test_account_and_positions_are_kept_as_last_seen() -> None:
    """Pushes of account and positions are the last word until the next, and are forgotten with the connection."""
    session, _ = private_up()

    session.received(frame("account"), T0 + 10)
    session.received(frame("positions"), T0 + 11)

    assert session.account == AccountSeen(
        recv_ns=T0 + 10, equity_usdt=Decimal("9999.97"), available_usdt=Decimal("9987.9")
    )
    assert session.positions["BTCUSDT"].size == Decimal("-0.001")
    session.received(compact(FRAMES["positions_flat"]), T0 + 12)
    assert session.positions == {}
    session.lost(T0 + 13)
    assert session.account is None


def test_unreadable_private_frame_ends_the_connection() -> None:
    """It may have been a fill: the link goes down, so that the owner asks for the whole truth."""
    session, _ = private_up()

    assert session.received(frame("order_filled", status="half_done"), T0 + 10) == []

    assert session.is_dead
    assert sum(session.quarantine.counts.values()) == 1
    assert session.lost(T0 + 11) == [LinkChanged(recv_ns=T0 + 11, link="private", is_up=False)]


def test_unknown_field_of_an_order_is_told_and_the_order_counts() -> None:
    """A new field does not cost us the fill beside it."""
    session, _ = private_up()

    events = session.received(frame("order_filled", rebate="0"), T0 + 10)

    assert [type(event) for event in events] == [Filled, OrderReported]
    assert session.quarantine.counts == {("orders push", "unknown field rebate"): 1}


def test_keys_stay_out_of_notes_and_repr() -> None:
    """Neither the session's words nor the printed keys hold a secret."""
    session, _ = private_up()
    session.received("{broken", T0 + 10)

    told = repr(KEYS) + str(KEYS) + f"{KEYS}" + repr(list(KEYS.__rich_repr__())) + repr(session.take_notes())

    for secret in (KEYS.key, KEYS.secret, KEYS.passphrase):
        assert secret not in told
