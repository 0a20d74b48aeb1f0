"""Frames on the wire, who gets them, and clients that do not read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.streams import StreamReader

from shared.simulator.pushes.frames import payload, text_frame
from shared.simulator.pushes.sockets import Doorman, Hub, Limits, Socket, Window


class Transport:
    """A connection whose client reads nothing."""

    def __init__(self, backlog: int = 0) -> None:
        self.backlog, self.written, self.writes, self.is_aborted = backlog, b"", 0, False

    def is_closing(self) -> bool:
        return self.is_aborted

    def get_write_buffer_size(self) -> int:
        return self.backlog

    def write(self, data: bytes) -> None:
        self.written += data
        self.writes += 1

    def abort(self) -> None:
        self.is_aborted = True


def socket(transport: Transport, number: int = 1, **options: Any) -> Socket:
    made: Any = transport
    return Socket(number, made, is_private=False, now_s=0.0, **options)


@pytest.mark.parametrize("n", [0, 1, 123, 124, 125, 126, 65_533, 65_534, 65_536, 200_000])
def test_text_frame_is_what_another_library_parses(n: int) -> None:
    """Every length form of RFC 6455 §5.2, read back by `websockets` and by ourselves."""
    text = "é" + "x" * n
    reader = StreamReader()
    reader.feed_data(text_frame(text))
    parsing = Frame.parse(reader.read_exact, mask=False)

    with pytest.raises(StopIteration) as done:
        next(parsing)

    assert done.value.value.data.decode() == text
    assert payload(text_frame(text)) == text


def test_text_that_no_utf8_can_carry_is_sent_all_the_same() -> None:
    """A client's lone surrogate comes back as a question mark instead of ending its connection."""
    assert payload(text_frame("a\ud800b")) == "a?b"


def test_client_that_does_not_read_is_cut_off_alone() -> None:
    """A full backlog ends its own connection and writes on to the others."""
    limits = Limits(backlog_bytes=1000)
    slow, quick = Transport(1001), Transport(1000)
    hub = Hub()
    for transport in (slow, quick):
        one = socket(transport, limits=limits)
        hub.add(one)
        one.queue(text_frame("tick"))

    hub.flush()

    assert (slow.is_aborted, slow.written) == (True, b"")
    assert (quick.is_aborted, quick.written) == (False, text_frame("tick"))
    assert {one.end_reason for one in hub.sockets} == {"too_slow", ""}


def test_frames_of_a_pass_leave_in_one_write_in_their_order() -> None:
    """What is queued waits for the flush; what is sent at once goes after it."""
    hub, transport = Hub(), Transport()
    one = socket(transport)
    hub.add(one)
    hub.listen(one, ("ticker", "BTCUSDT"), {}, is_public=True)

    hub.publish("ticker", "BTCUSDT", text_frame("first"))
    hub.publish("ticker", "ETHUSDT", text_frame("not asked for"))
    hub.publish("ticker", "BTCUSDT", text_frame("second"))
    assert transport.writes == 0
    one.send("third")

    assert transport.writes == 1
    assert transport.written == text_frame("first") + text_frame("second") + text_frame("third")
    assert (one.frames_sent, one.bytes_sent) == (3, len(transport.written))


def test_subscriptions_of_a_gone_client_are_forgotten() -> None:
    """What nobody listens to is not rendered any more, and what somebody still wants is."""
    hub, first, second = Hub(), socket(Transport(), 1), socket(Transport(), 2)
    for one in (first, second):
        hub.add(one)
        hub.listen(one, ("books15", "BTCUSDT"), {}, is_public=True)
    hub.listen(first, ("ticker", "BTCUSDT"), {}, is_public=True)
    assert hub.wanted == {"books15": {"BTCUSDT"}, "ticker": {"BTCUSDT"}}

    hub.remove(first)
    assert hub.wanted == {"books15": {"BTCUSDT"}, "ticker": set()}

    hub.remove(second)
    assert hub.wanted == {"books15": set(), "ticker": set()}


def test_private_push_reaches_its_account_alone() -> None:
    """Another account, another channel and a client that is not logged in hear nothing."""
    hub = Hub()
    transports = {name: Transport() for name in ("mine", "other", "nobody", "elsewhere")}
    for number, (name, account) in enumerate(
        (("mine", "key"), ("other", "key2"), ("nobody", None), ("elsewhere", "key"))
    ):
        one = socket(transports[name], number)
        one.account = account
        hub.add(one)
        hub.listen(one, ("orders" if name != "elsewhere" else "positions", "default"), {}, is_public=False)

    hub.publish_private("key", "orders", "news")

    assert {name: transport.written for name, transport in transports.items() if transport.written} == {
        "mine": text_frame("news")
    }
    assert hub.wanted == {}


def test_fills_may_be_had_for_one_symbol() -> None:
    """A subscription to `fill` of a symbol gets that symbol's fills, addressed as it asked."""
    hub, transport = Hub(), Transport()
    one = socket(transport)
    one.account = "key"
    hub.add(one)
    hub.listen(one, ("fill", "BTCUSDT"), {}, is_public=False)
    push = '{"arg":{"channel":"fill","instId":"default"},"data":[{"symbol":"%s"}]}'

    hub.publish_private("key", "fill", push % "ETHUSDT")
    hub.publish_private("key", "fill", push % "BTCUSDT")

    assert payload(transport.written) == (push % "BTCUSDT").replace('"instId":"default"', '"instId":"BTCUSDT"')


@given(
    st.integers(1, 5), st.floats(0.1, 10.0), st.lists(st.floats(0.0, 20.0, allow_nan=False), max_size=60).map(sorted)
)
def test_no_span_of_a_window_holds_more_than_its_count(count: int, span_s: float, times_s: list[float]) -> None:
    """Whatever comes, allowed events are never too dense; and none is refused without reason."""
    window = Window(count, span_s)
    allowed: list[float] = []

    for now_s in times_s:
        recent = [t for t in allowed if now_s - t < span_s]
        is_allowed = window.take(now_s)
        assert is_allowed == (len(recent) < count)
        if is_allowed:
            allowed.append(now_s)

    for first, last in zip(allowed, allowed[count:], strict=False):
        assert last - first >= span_s


def test_connections_of_an_address_are_counted() -> None:
    """So many at a time, so many in five minutes; other addresses are not concerned, and who leaves makes room."""
    doorman = Doorman(Limits(connections_per_ip=2, connects_per_5_min=3))

    assert [doorman.admit("a", 0.0) for _ in range(3)] == [None, None, "too_many_connections"]
    assert doorman.admit("b", 0.0) is None
    doorman.leave("a")
    assert doorman.admit("a", 1.0) is None
    doorman.leave("a")
    assert doorman.admit("a", 299.9) == "too_many_connects"
    assert doorman.admit("a", 300.0) is None


def test_address_that_keeps_flooding_is_blocked_for_a_while() -> None:
    """The first disconnects are forgiven; one more within five minutes, and nobody of that address comes in."""
    doorman = Doorman(Limits(floods_per_5_min=2, block_s=60.0))
    for now_s in (0.0, 10.0, 310.0):
        doorman.flooded("a", now_s)
    assert doorman.admit("a", 311.0) is None

    doorman.flooded("a", 312.0)
    doorman.flooded("a", 320.0)

    assert [doorman.admit(ip, 330.0) for ip in "ab"] == ["blocked", None]
    assert (doorman.admit("a", 379.9), doorman.admit("a", 380.0)) == ("blocked", None)
