"""A public session whose symbols come and go while it is connected."""

from __future__ import annotations

import json

import pytest

from shared.bitget import session as s
from shared.bitget.session import PublicSession
from shared.bitget.states import Channel
from shared.bitget.ticks import TickBuffer
from shared.types import NS, TickEvent
from tests.shared.bitget.payloads import ack, book, refusal

T0 = 1_760_000_000 * NS
SUBSCRIBED, DISCONNECTED, DATA = TickEvent.SUBSCRIBED, TickEvent.DISCONNECTED, TickEvent.DATA


def connected(symbols: tuple[str, ...] = ("BTCUSDT", "龙虾USDT")) -> PublicSession:
    """Return a session of books that is linked."""
    session = PublicSession(symbols, ("books15",), conn=0, buffer=TickBuffer(symbols))
    session.connected(T0)
    for symbol in symbols:
        session.received(ack("books15", symbol), T0)
    return session


def asked(frames: list[str], op: str) -> list[str]:
    """Return the symbols that the frames ask for, or end."""
    requests = [json.loads(text) for text in frames if text != "ping"]
    return [arg["instId"] for request in requests if request["op"] == op for arg in request["args"]]


def events(session: PublicSession, symbol: str) -> list[tuple[int, TickEvent]]:
    books = session.buffer.take().books
    mine = books.symbol == session.buffer.index[symbol]
    return [(int(at) - T0, TickEvent(event)) for at, event in zip(books.recv_ns[mine], books.event[mine], strict=True)]


def test_symbol_that_is_added_is_asked_for_and_carried() -> None:
    """A new symbol is subscribed by the next tick; the others are not touched, and its pushes are kept."""
    session = connected()
    session.buffer.grow(["NEWUSDT"])

    session.follow(["NEWUSDT"])
    frames = session.tick(T0 + NS)
    session.received(ack("books15", "NEWUSDT"), T0 + 2 * NS)
    session.received(book("NEWUSDT", [(1.0, 1.0)], [(2.0, 1.0)]), T0 + 3 * NS)

    assert asked(frames, "subscribe") == ["NEWUSDT"]
    assert session.is_linked
    assert events(session, "NEWUSDT") == [(2 * NS, SUBSCRIBED), (3 * NS, DATA)]
    assert session.quarantine.counts == {}


def test_symbol_that_is_left_is_kept_until_the_server_says_so() -> None:
    """What is pushed before the server confirms is data of a link that is up; then the link ends, once."""
    session = connected()

    session.leave(["龙虾USDT"])
    frames = session.tick(T0 + NS)
    session.received(book("龙虾USDT", [(1.0, 1.0)], [(2.0, 1.0)]), T0 + 2 * NS)
    session.received(ack("books15", "龙虾USDT", "unsubscribe"), T0 + 3 * NS)
    session.received(ack("books15", "龙虾USDT", "unsubscribe"), T0 + 4 * NS)

    assert asked(frames, "unsubscribe") == ["龙虾USDT"]
    assert events(session, "龙虾USDT") == [(0, SUBSCRIBED), (2 * NS, DATA), (3 * NS, DISCONNECTED)]
    assert list(session.channels) == [("books15", "BTCUSDT")]
    assert session.quarantine.counts == {}, "an answer that comes twice is no riddle"
    assert session.tick(T0 + 10 * NS) == []


def test_silent_server_does_not_keep_a_symbol() -> None:
    """When nobody confirms, the link ends after the wait for an answer; when the connection breaks, at once."""
    session, other = connected(), connected()
    session.leave(["BTCUSDT"])
    session.tick(T0 + NS)
    session.tick(T0 + NS + s.ACK_NS)
    other.leave(["BTCUSDT"])
    other.lost(T0 + 2 * NS)

    assert events(session, "BTCUSDT") == [(0, SUBSCRIBED), (NS + s.ACK_NS, DISCONNECTED)]
    assert events(other, "BTCUSDT") == [(0, SUBSCRIBED), (2 * NS, DISCONNECTED)]
    assert asked(other.connected(T0 + 3 * NS), "subscribe") == ["龙虾USDT"]


def test_refused_symbol_that_is_left_is_never_asked_for_again() -> None:
    """A symbol that the exchange does not push, and that is not wanted any more, costs no further request."""
    session = connected()
    session.buffer.grow(["OLDUSDT"])
    session.follow(["OLDUSDT"])
    session.tick(T0 + NS)
    session.received(refusal("books15", "OLDUSDT"), T0 + 2 * NS)

    session.leave(["OLDUSDT"])

    sent = []
    for second in range(3, 3600):
        sent += session.tick(T0 + second * NS)
        session.received("pong", T0 + second * NS)
    assert set(sent) == {"ping"}


@pytest.mark.parametrize("is_told", [False, True], ids=["before the request", "after the request"])
def test_symbol_that_returns_while_it_leaves_is_carried(is_told: bool) -> None:
    """Wanted again before its end is confirmed, a symbol is subscribed anew and its links alternate."""
    session = connected()
    session.leave(["BTCUSDT"])
    if is_told:
        session.tick(T0 + NS)

    session.follow(["BTCUSDT"])
    session.tick(T0 + 2 * NS)
    session.received(ack("books15", "BTCUSDT", "unsubscribe"), T0 + 3 * NS)
    frames = session.tick(T0 + 4 * NS)
    session.received(ack("books15", "BTCUSDT"), T0 + 5 * NS)

    assert asked(frames, "subscribe") == ["BTCUSDT"]
    assert session.channels["books15", "BTCUSDT"] is Channel.LINKED
    assert events(session, "BTCUSDT") == [(0, SUBSCRIBED), (3 * NS, DISCONNECTED), (5 * NS, SUBSCRIBED)]


def test_many_that_leave_at_once_stay_within_the_limits() -> None:
    """500 channels are ended in frames of at most 4096 bytes, five requests in the first second."""
    symbols = tuple(f"LONGNAME{i:03d}USDT" for i in range(500))
    session = PublicSession(symbols, ("books15",), conn=0, buffer=TickBuffer(symbols))
    now_ns = T0
    frames = session.connected(now_ns)
    while asked(frames, "subscribe"):
        for symbol in asked(frames, "subscribe"):
            session.received(ack("books15", symbol), now_ns)
        now_ns += NS
        frames = session.tick(now_ns)

    session.leave(symbols)
    sent: list[tuple[int, str]] = []
    while session._to_leave:
        now_ns = max(now_ns + 1, session.due_ns)
        sent += [(now_ns, text) for text in session.tick(now_ns)]

    assert sorted(asked([text for _, text in sent], "unsubscribe")) == sorted(symbols)
    assert max(len(text.encode()) for _, text in sent) <= 4096
    assert max(sum(at <= other < at + NS for other, _ in sent) for at, _ in sent) == 5


def test_push_of_a_symbol_nobody_knows_is_told() -> None:
    """A symbol on no axis is named for discovery; one that another connection carries is not; both are kept."""
    session = PublicSession(("BTCUSDT",), ("books15",), conn=0, buffer=TickBuffer(("BTCUSDT", "ETHUSDT")))
    session.connected(T0)

    for symbol in ("ETHUSDT", "NEWUSDT", "NEWUSDT", "BTCUSDT"):
        session.received(book(symbol, [(1.0, 1.0)], [(2.0, 1.0)]), T0 + NS)

    assert session.strangers == {"NEWUSDT"}
    assert sum(session.quarantine.counts.values()) == 3
