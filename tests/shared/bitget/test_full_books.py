"""Sessions that follow full books: a break is marked where it is seen and mended within the limits; else all is true.

The oracle is `tests.shared.bitget.depths.Exchange`, which keeps plain dictionaries of what it sends.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.bitget import session as s
from shared.bitget.session import PublicSession
from shared.bitget.states import Channel
from shared.bitget.ticks import TickBuffer
from shared.lake.chains import FullBooks
from shared.types import BOOK_LEVELS, FULL_BOOKS, NS, BookChannels, DepthTicks, TickEvent, Ticks
from tests.shared.bitget.depths import Exchange, Sent, Side
from tests.shared.bitget.payloads import ack, compact

T0 = 1_790_000_000 * NS
SYMBOLS = ("BTCUSDT", "龙虾USDT")
SUBSCRIBED, DISCONNECTED, GAP, DATA = TickEvent.SUBSCRIBED, TickEvent.DISCONNECTED, TickEvent.GAP, TickEvent.DATA


class Bitget:
    """A server of full books, one session at it, and a network that does to each push what it is told."""

    def __init__(self, seed: int, symbols: tuple[str, ...] = SYMBOLS, channels: str = FULL_BOOKS) -> None:
        self.exchange = Exchange(seed, symbols)
        self.buffer = TickBuffer(symbols, has_depth=True)
        names = BookChannels(channels).channels_of
        self.session = PublicSession(symbols, lambda symbol: names(symbol)[:1], conn=1, buffer=self.buffer)
        self.now_ns = T0
        self.topics: set[str] = set()
        self.requests: list[tuple[int, str]] = []
        self.told: list[tuple[int, Sent]] = []  # every push that was delivered: when, what
        self.sent: dict[tuple[str, int], Sent] = {}  # what left the exchange, delivered or not
        self.fate: Callable[[int], str] = lambda n: "deliver"
        self._n = 0
        self._late: list[Sent] = []

    def connect(self) -> None:
        self._serve(self.session.connected(self._tick()))

    def lose(self) -> None:
        self.topics.clear()
        self.session.lost(self._tick())

    def tick(self, ns: int = 0) -> None:
        """Let time pass and give the session its turn."""
        self.now_ns += ns
        self._serve(self.session.tick(self._tick()))

    def update(self, symbol: str) -> Sent:
        sent = self.exchange.update(symbol)
        if symbol in self.topics:
            self._push(sent)
        return sent

    def deliver(self, text: str) -> int:
        recv_ns = self._tick()
        self.session.received(text, recv_ns)
        return recv_ns

    def _serve(self, frames: list[str]) -> None:
        for text in frames:
            self.requests.append((self.now_ns, text))
            if text == "ping":
                self.deliver("pong")
                continue
            request = json.loads(text)
            for arg in request["args"]:
                channel, symbol = arg["channel"], arg["instId"]
                is_new = channel == FULL_BOOKS and request["op"] == "subscribe" and symbol not in self.topics
                if request["op"] == "unsubscribe":
                    self.topics.discard(symbol)
                self.deliver(ack(channel, symbol, request["op"]))
                if is_new:
                    self.topics.add(symbol)
                    self._push(self.exchange.snapshot(symbol))

    def _push(self, sent: Sent) -> None:
        self.sent[sent.symbol, sent.seq] = sent
        fate = self.fate(self._n)
        self._n += 1
        if fate == "hold":
            self._late.append(sent)
            return
        if fate == "drop":
            return
        for _ in range(2 if fate == "double" else 1):
            self.told.append((self.deliver(sent.text), sent))
        while self._late and fate != "hold":
            late = self._late.pop(0)
            self.told.append((self.deliver(late.text), late))

    def _tick(self) -> int:
        self.now_ns += 1000
        return self.now_ns


def marks(ticks: Ticks, n: int = 0, table: str = "books") -> list[tuple[int, TickEvent]]:
    rows: Any = getattr(ticks, table)
    return [
        (int(ns), TickEvent(int(event)))
        for ns, event, symbol in zip(rows.recv_ns, rows.event, rows.symbol, strict=True)
        if symbol == n and event != DATA
    ]


def best(levels: Side, *, is_bid: bool) -> list[tuple[float, float]]:
    found = sorted(levels.items(), reverse=is_bid)[:BOOK_LEVELS]
    return found + [(math.nan, 0.0)] * (BOOK_LEVELS - len(found))


def check_books(ticks: Ticks, sent: dict[tuple[str, int], Sent]) -> int:
    """Compare every row of raw/book that was received on a link that is up with the exchange; return how many."""
    books, up, n_checked = ticks.books, set(), 0
    for row in range(len(books.recv_ns)):
        n, event = int(books.symbol[row]), books.event[row]
        if event == SUBSCRIBED:
            assert n not in up
            up.add(n)
        elif event in (GAP, DISCONNECTED):
            up.discard(n)
        elif n in up:
            truth = sent[SYMBOLS[n], int(books.seq[row])]
            for price, size, side, is_bid in (
                (books.ask_price[row], books.ask_size[row], truth.asks, False),
                (books.bid_price[row], books.bid_size[row], truth.bids, True),
            ):
                assert repr(list(zip(price.tolist(), size.tolist(), strict=True))) == repr(best(side, is_bid=is_bid))
            n_checked += 1
    return n_checked


def check_depth(depth: DepthTicks, told: list[tuple[int, Sent]]) -> int:
    """Compare the book that the rows rebuild after each push with the exchange, where one counts; return how often."""
    books, done, n_checked = FullBooks(), 0, 0
    before: dict[str, str] = {}
    for recv_ns, sent in told:
        is_repeat = before.get(sent.symbol) == sent.text
        before[sent.symbol] = sent.text
        until = int(depth.recv_ns.searchsorted(recv_ns, "right"))
        names = depth.__struct_fields__
        books.take(DepthTicks(**{name: getattr(depth, name)[done:until] for name in names}))
        done = until
        known = books.of(SYMBOLS.index(sent.symbol))
        if known and known[0].seq == sent.seq:
            for (prices, sizes), side in ((known[0].asks(), sent.asks), (known[0].bids(), sent.bids)):
                assert dict(zip(prices.tolist(), sizes.tolist(), strict=True)) == side
            n_checked += not is_repeat
        else:
            assert not known or known[0].seq > sent.seq, "what was told last is what is known, or nothing"
    return n_checked


FATES = st.dictionaries(st.integers(0, 80), st.sampled_from(["drop", "drop", "hold", "double"]), max_size=20)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), fates=FATES)
def test_break_is_marked_and_what_is_not_marked_is_true(seed: int, fates: dict[int, str]) -> None:
    """Any pushes dropped, doubled, overtaken: each break in what arrives is a GAP at that receipt, and a book whose link
    is up is the exchange's, level by level, in raw/book and as rebuilt from raw/depth."""
    bitget, draw = Bitget(seed), random.Random(seed)
    bitget.fate = lambda n: fates.get(n, "deliver")
    bitget.connect()
    for _ in range(70):
        bitget.update(draw.choice(SYMBOLS))
        bitget.tick(draw.choice((NS // 20, NS // 10, NS)))
    ticks = bitget.buffer.take()

    assert ticks.depth is not None
    n_checked = check_books(ticks, bitget.sent)
    assert check_depth(ticks.depth, bitget.told) == n_checked
    for n, symbol in enumerate(SYMBOLS):
        found = marks(ticks, n)
        assert marks(ticks, n, "depth") == found
        expected = breaks([(ns, sent) for ns, sent in bitget.told if sent.symbol == symbol], found)
        assert expected <= {ns for ns, event in found if event == GAP}
        if not fates:
            assert [event for _, event in found] == [SUBSCRIBED]
    if not fates:
        assert n_checked == len(bitget.told)


def breaks(told: list[tuple[int, Sent]], found: list[tuple[int, TickEvent]]) -> set[int]:
    """Return the receipts of updates that do not follow the push before, while the link was said to be up."""
    result: set[int] = set()
    for (_, before), (recv_ns, sent) in itertools.pairwise(told):
        row = json.loads(sent.text)["data"][0]
        is_up = [event for ns, event in found if ns < recv_ns][-1:] == [SUBSCRIBED]
        is_repeat = sent.text == before.text
        if is_up and not is_repeat and not sent.is_snapshot and row["pseq"] != before.seq:
            result.add(recv_ns)
    return result


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), dropped=st.sets(st.integers(1, 60), min_size=1, max_size=20))
def test_mended_book_is_whole_again(seed: int, dropped: set[int]) -> None:
    """However many pushes were dropped: a minute of a network that drops none, and every link is up and true."""
    bitget = Bitget(seed)
    bitget.fate = lambda n: "drop" if n in dropped else "deliver"
    bitget.connect()
    for _ in range(30):
        for symbol in SYMBOLS:
            bitget.update(symbol)
        bitget.tick(NS // 10)
    bitget.fate = lambda n: "deliver"
    for _ in range(60):
        bitget.tick(NS)
        last = [bitget.update(symbol) for symbol in SYMBOLS]

    assert all(bitget.session.carries((FULL_BOOKS, symbol)) for symbol in SYMBOLS)
    depth = bitget.buffer.take().depth
    assert depth is not None
    books = FullBooks()
    books.take(depth)
    for n, sent in enumerate(last):
        assert [book.seq for book in books.of(n)] == [sent.seq]
    assert {note.event for note in bitget.session.take_notes()} <= {"book.broke", "book.mended"}


def test_break_is_mended_by_two_requests() -> None:
    """The first break is mended at once: unsubscribe, ack, subscribe, ack, snapshot; nothing else is asked for."""
    bitget = Bitget(1, SYMBOLS[:1])
    bitget.connect()
    bitget.fate = lambda n: "drop" if n == 2 else "deliver"
    for _ in range(5):
        bitget.update("BTCUSDT")
        bitget.tick(NS // 10)

    requests = [json.loads(text) for _, text in bitget.requests]
    assert [request["op"] for request in requests] == ["subscribe", "unsubscribe", "subscribe"]
    assert [arg["channel"] for request in requests for arg in request["args"]] == [FULL_BOOKS] * 3
    events = [event for _, event in marks(bitget.buffer.take())]
    assert events == [SUBSCRIBED, GAP, DISCONNECTED, SUBSCRIBED]
    notes = bitget.session.take_notes()
    assert [note.event for note in notes] == ["book.broke", "book.mended"]
    assert "expected an update of" in str(notes[0].fields["why"])


def test_push_that_is_told_twice_breaks_nothing() -> None:
    """Every push of the chain doubled, the snapshot too: one row each, no mark, no request."""
    bitget = Bitget(12, SYMBOLS[:1])
    bitget.fate = lambda n: "double"
    bitget.connect()
    for _ in range(10):
        bitget.update("BTCUSDT")
        bitget.tick(NS // 10)

    ticks = bitget.buffer.take()
    assert [event for _, event in marks(ticks)] == [SUBSCRIBED]
    assert (ticks.books.event == DATA).sum() == 11
    assert len(bitget.requests) == 1
    assert bitget.buffer.repeats == 11


def test_breaks_one_after_another_are_mended_in_groups() -> None:
    """Forty books that break one after another within four seconds cost a pair of requests a second."""
    symbols = tuple(f"S{i:02d}USDT" for i in range(40))
    bitget = Bitget(13, symbols)
    bitget.connect()
    n_before = len(bitget.requests)
    for symbol in symbols:
        bitget.fate = lambda n: "drop"
        bitget.update(symbol)
        bitget.fate = lambda n: "deliver"
        bitget.update(symbol)
        bitget.tick(NS // 10)
    for _ in range(100):
        bitget.tick(NS // 20)

    assert all(bitget.session.carries((FULL_BOOKS, symbol)) for symbol in symbols)
    assert len(bitget.requests) - n_before <= 12


def test_channels_that_break_together_are_mended_together() -> None:
    """Forty books that break within a second cost a handful of requests."""
    symbols = tuple(f"S{i:02d}USDT" for i in range(40))
    bitget = Bitget(2, symbols)
    bitget.connect()
    bitget.fate = lambda n: "drop" if 40 <= n < 80 else "deliver"
    for _ in range(2):
        for symbol in symbols:
            bitget.update(symbol)
    bitget.fate = lambda n: "deliver"
    n_before = len(bitget.requests)
    for _ in range(100):
        bitget.tick(NS // 20)

    assert all(bitget.session.carries((FULL_BOOKS, symbol)) for symbol in symbols)
    assert len(bitget.requests) - n_before <= 4


def test_broken_symbol_does_not_eat_the_budget() -> None:
    """One symbol whose chain never holds: in three hours it costs a part of what may be asked for, and others that come
    meanwhile are asked for at once."""
    symbols = ("ABADUSDT", *(f"S{i:02d}USDT" for i in range(20)))
    bitget = Bitget(3, symbols)
    bitget.session.leave(symbols[1:])
    bitget.connect()
    bitget.fate = lambda n: "drop" if n % 3 == 1 else "deliver"
    waits = []
    for second in range(3 * 3600):
        bitget.update("ABADUSDT")
        bitget.tick(NS)
        if second % 600 == 599:
            symbol = symbols[1 + second // 600]
            bitget.session.follow([symbol])
            began_ns = bitget.now_ns
            bitget.fate = lambda n: "deliver" if n % 3 else "drop"
            while not bitget.session.carries((FULL_BOOKS, symbol)) and bitget.now_ns < began_ns + 60 * NS:
                bitget.fate = lambda n: "deliver"
                bitget.tick(NS // 10)
            waits.append(bitget.now_ns - began_ns)
            bitget.fate = lambda n: "drop" if n % 3 == 1 else "deliver"

    assert len(waits) == 18
    assert max(waits) < NS
    asked = [at for at, text in bitget.requests if text != "ping"]
    most = max(sum(at <= other < at + 3600 * NS for other in asked) for at in asked)
    assert most <= 45, most
    assert bitget.session.channels[FULL_BOOKS, "ABADUSDT"] in (Channel.LINKED, Channel.WANTED, Channel.BROKEN)


def test_limits_hold_while_everything_breaks() -> None:
    """A network that drops every fourth push of forty books: never more than half of what Bitget allows is asked for."""
    symbols = tuple(f"S{i:02d}USDT" for i in range(40))
    bitget, draw = Bitget(4, symbols), random.Random(4)
    bitget.fate = lambda n: "drop" if draw.random() < 0.25 else "deliver"
    bitget.connect()
    for _ in range(3600 + 200):
        for symbol in draw.sample(symbols, 4):
            bitget.update(symbol)
        bitget.tick(NS)

    times = [at for at, _ in bitget.requests]
    asked = [at for at, text in bitget.requests if text != "ping"]
    for at in asked:
        assert sum(at <= other < at + 3600 * NS for other in asked) <= s.MENDS_AT_ONCE + 3600 * NS // s.MEND_NS + 12
    assert all(sum(at <= other < at + NS for other in times) <= s.MESSAGES_PER_S for at in times)


def test_unreadable_frame_is_doubt_until_an_update_follows() -> None:
    """What could not be read may have been a change: GAP there, SUBSCRIBED with the next update that follows; where it
    was one, the next update breaks the chain. Neither costs a request before it is needed."""
    bitget = Bitget(5, SYMBOLS[:1])
    bitget.connect()
    bitget.update("BTCUSDT")
    n_before = len(bitget.requests)

    garbage_ns = bitget.deliver('{"action":"upd')
    bitget.tick(NS)
    assert not bitget.session.carries((FULL_BOOKS, "BTCUSDT"))
    bitget.update("BTCUSDT")
    assert bitget.session.carries((FULL_BOOKS, "BTCUSDT"))
    assert len(bitget.requests) == n_before
    assert marks(bitget.buffer.take())[-2:] == [(garbage_ns, GAP), (bitget.told[-1][0], SUBSCRIBED)]

    lost = bitget.exchange.update("BTCUSDT")
    bitget.deliver(lost.text[:40])
    bitget.update("BTCUSDT")
    bitget.tick()
    assert [json.loads(text)["op"] for _, text in bitget.requests[n_before:]] == ["unsubscribe"]
    assert [event for _, event in marks(bitget.buffer.take())] == [GAP, GAP, DISCONNECTED]


def test_snapshot_that_nobody_asked_for_is_a_new_beginning() -> None:
    """The server began anew: what happened since its last update is unknown, from the snapshot on all is known."""
    bitget = Bitget(6, SYMBOLS[:1])
    bitget.connect()
    bitget.exchange.update("BTCUSDT")
    snapshot = bitget.exchange.snapshot("BTCUSDT")

    at_ns = bitget.deliver(snapshot.text)

    ticks = bitget.buffer.take()
    assert marks(ticks)[-2:] == [(at_ns, GAP), (at_ns, SUBSCRIBED)]
    assert ticks.books.seq[-1] == snapshot.seq
    bitget.deliver(bitget.exchange.update("BTCUSDT").text)
    assert marks(bitget.buffer.take()) == []


def old_snapshot(bitget: Bitget) -> str:
    text = bitget.exchange.snapshot("BTCUSDT").text
    bitget.update("BTCUSDT")
    return text


def of(row: dict[str, Any], action: str = "update") -> str:
    arg = {"instType": "USDT-FUTURES", "channel": FULL_BOOKS, "instId": "BTCUSDT"}
    return compact({"action": action, "arg": arg, "data": [{"asks": [], "bids": [], "ts": "1", **row}], "ts": 1})


def following(bitget: Bitget, row: dict[str, Any]) -> str:
    return of({"seq": 2 * 10**12, "pseq": bitget.told[-1][1].seq, **row})


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (old_snapshot, None),
        (lambda b: of({"seq": 2 * 10**12, "pseq": 7}), None),
        (lambda b: of({"seq": 2 * 10**12, "pseq": 0}), None),
        (lambda b: following(b, {"bids": [["5000", "1"]]}), "crossed"),
        (lambda b: following(b, {"asks": [["5000", "-1"]]}), "sizes from 0"),
        (lambda b: following(b, {"asks": [["0", "1"]]}), "prices above 0"),
        (lambda b: of({"pseq": b.told[-1][1].seq}), "seq above 0"),
    ],
)
def test_what_breaks_a_chain_is_marked_and_mended(make: Any, where: str | None) -> None:
    """An older snapshot, a missing link, a crossed book, a number that is none: GAP at that receipt, then a new
    subscription; what Bitget does not send is kept in quarantine, too, what was lost on the way is not."""
    bitget = Bitget(7, SYMBOLS[:1])
    bitget.connect()
    bitget.update("BTCUSDT")
    text = make(bitget)
    bitget.buffer.take()

    at_ns = bitget.deliver(text)

    ticks = bitget.buffer.take()
    assert marks(ticks) == [(at_ns, GAP)]
    assert len(ticks.books.recv_ns) == 1, "the push itself is no book"
    bitget.tick()
    bitget.tick()
    assert bitget.session.carries((FULL_BOOKS, "BTCUSDT"))
    kept = [what for (_, what) in bitget.session.quarantine.counts]
    assert [where in what for what in kept if where] == [True] * len(kept)
    assert len(kept) == (where is not None)


def test_update_before_the_snapshot_is_a_gap() -> None:
    """A subscription that begins with an update has lost its snapshot: it is asked for again."""
    bitget = Bitget(8, SYMBOLS[:1])
    bitget.fate = lambda n: "drop" if n == 0 else "deliver"
    bitget.connect()

    bitget.update("BTCUSDT")
    bitget.tick()
    bitget.tick()

    events = [event for _, event in marks(bitget.buffer.take())]
    assert events == [GAP, DISCONNECTED, SUBSCRIBED]


def test_snapshot_that_does_not_come_is_asked_for_again() -> None:
    """An ack alone claims nothing: no link in the data, and after a while the channel begins anew."""
    bitget = Bitget(9, SYMBOLS[:1])
    bitget.fate = lambda n: "drop" if n == 0 else "deliver"
    bitget.connect()
    assert bitget.session.channels[FULL_BOOKS, "BTCUSDT"] is Channel.LINKED
    assert not bitget.session.carries((FULL_BOOKS, "BTCUSDT"))
    assert marks(bitget.buffer.take()) == []

    assert bitget.session.due_ns <= bitget.now_ns + s.ACK_NS
    bitget.tick(s.ACK_NS)
    bitget.tick()

    assert bitget.session.carries((FULL_BOOKS, "BTCUSDT"))


def test_lost_connection_ends_the_book() -> None:
    """After a loss nothing of the old chain is left: the new connection begins with its own snapshot."""
    bitget = Bitget(10, SYMBOLS[:1])
    bitget.connect()
    bitget.update("BTCUSDT")
    bitget.lose()
    bitget.connect()
    bitget.update("BTCUSDT")

    ticks = bitget.buffer.take()
    assert [event for _, event in marks(ticks)] == [SUBSCRIBED, DISCONNECTED, SUBSCRIBED]
    assert ticks.depth is not None
    assert [event for _, event in marks(ticks, table="depth")] == [SUBSCRIBED, DISCONNECTED, SUBSCRIBED]
    assert check_depth(ticks.depth, bitget.told) == 4


def test_without_room_for_depth_the_best_levels_are_kept_alone() -> None:
    """Whoever only samples (a live session) keeps no changes; its books are the same."""
    with_depth, without = Bitget(11, SYMBOLS[:1]), Bitget(11, SYMBOLS[:1])
    without.buffer = TickBuffer(SYMBOLS[:1])
    without.session = PublicSession(SYMBOLS[:1], (FULL_BOOKS,), conn=1, buffer=without.buffer)
    for bitget in (with_depth, without):
        bitget.connect()
        for _ in range(10):
            bitget.update("BTCUSDT")

    kept, alone = with_depth.buffer.take(), without.buffer.take()

    assert alone.depth is None
    assert kept.depth is not None
    np.testing.assert_array_equal(kept.books.ask_price, alone.books.ask_price)
    assert (kept.books.event == alone.books.event).all()


def test_recorded_chain_is_followed(outside: Path) -> None:
    """Bitget's own snapshot and updates of September 2026 make one chain without a break."""
    path = outside / "bitget" / "fixtures" / "recorded_live_202609" / "ws_v2_books_MAVUSDT_seq_chain.jsonl"
    lines = path.read_text("utf-8").splitlines()
    symbols = ("BTCUSDT", "MAVUSDT")
    buffer = TickBuffer(symbols, has_depth=True)
    session = PublicSession(symbols, (FULL_BOOKS,), conn=1, buffer=buffer)
    session.connected(T0)
    session.received(ack(FULL_BOOKS, "MAVUSDT"), T0 + 1)
    for i, line in enumerate(lines):
        session.received(line, T0 + 2 + i)

    ticks = buffer.take()
    pushes = [row for line in lines for row in json.loads(line).get("data", [])]
    assert len(pushes) > 2
    assert [event for _, event in marks(ticks, 1)] == [SUBSCRIBED]
    assert ticks.books.seq[ticks.books.event == DATA].tolist() == [row["seq"] for row in pushes]
    levels: dict[str, Side] = {"asks": {}, "bids": {}}
    for row in pushes:
        for side, known in levels.items():
            known |= {float(p): float(size) for p, size in row[side]}
    books = FullBooks()
    assert ticks.depth is not None
    books.take(ticks.depth)
    book = books.of(1)[0]
    for (prices, sizes), side in ((book.asks(), "asks"), (book.bids(), "bids")):
        found = dict(zip(prices.tolist(), sizes.tolist(), strict=True))
        assert found == {p: size for p, size in levels[side].items() if size}
    assert session.take_notes() == []
