"""Frames on the wire, and clients that do not read."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.frames import Frame
from websockets.streams import StreamReader

from shared.simulator.feed import PublicFeed
from shared.simulator.market import GeneratedMarket
from shared.simulator.sockets import BACKLOG_BYTES_MAX, CHANNELS_MAX, Hub, Socket, text_frame


class Transport:
    """A connection whose client reads nothing."""

    def __init__(self, backlog: int = 0) -> None:
        self.backlog, self.written, self.is_aborted = backlog, b"", False

    def is_closing(self) -> bool:
        return self.is_aborted

    def get_write_buffer_size(self) -> int:
        return self.backlog

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.is_aborted = True


def socket(transport: Transport) -> Socket:
    made: Any = transport
    return Socket(1, made, is_private=False, now_s=0.0)


@pytest.mark.parametrize("n", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_text_frame_is_what_another_library_parses(n: int) -> None:
    """Every length form of RFC 6455 §5.2, read back by `websockets`."""
    reader = StreamReader()
    reader.feed_data(text_frame("é" + "x" * n))
    parsing = Frame.parse(reader.read_exact, mask=False)

    with pytest.raises(StopIteration) as done:
        next(parsing)

    assert done.value.value.data.decode() == "é" + "x" * n


def test_client_that_does_not_read_is_cut_off_alone() -> None:
    """A full backlog ends its own connection and writes on to the others."""
    slow, quick = Transport(BACKLOG_BYTES_MAX + 1), Transport()
    hub = Hub(PublicFeed(GeneratedMarket(7, 3)))
    for transport in (slow, quick):
        one = socket(transport)
        hub.add(one)
        one.queue(text_frame("tick"))

    hub.flush()

    assert (slow.is_aborted, slow.written) == (True, b"")
    assert (quick.is_aborted, quick.written) == (False, text_frame("tick"))


def test_subscriptions_of_a_gone_client_are_forgotten() -> None:
    """What nobody listens to is not rendered any more."""
    hub, one = Hub(PublicFeed(GeneratedMarket(7, 3))), socket(Transport())
    hub.add(one)
    arg = {"instType": "USDT-FUTURES", "channel": "books15", "instId": "BTCUSDT"}
    assert hub.subscribe(one, arg, 1_795_330_800_000_000_000)
    assert hub.wanted == {"books15": {"BTCUSDT"}}

    hub.remove(one)

    assert hub.wanted == {"books15": set()}


def test_channels_of_a_connection_are_bounded() -> None:
    """The thousand-and-first channel is refused with 30007."""
    transport = Transport()
    hub, one = Hub(PublicFeed(GeneratedMarket(7, 3))), socket(transport)
    one.topics = {("ticker", str(n)): {} for n in range(CHANNELS_MAX)}

    stands = hub.subscribe(one, {"instType": "USDT-FUTURES", "channel": "ticker", "instId": "BTCUSDT"}, 0)

    assert not stands
    assert b"30007" in transport.written
