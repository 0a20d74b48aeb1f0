"""What a client may say, and what it hears back: acks, errors, limits, and nonsense of every kind."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.simulator.clock import Clock
from shared.simulator.desk import Desk
from shared.simulator.gate import Credentials, Gate
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator.pushes.feed import CHANNELS, PublicFeed
from shared.simulator.pushes.sessions import PRIVATE_CHANNELS, Sessions
from shared.simulator.pushes.sockets import Hub, Limits, Socket
from shared.types import NS

MARKET = GeneratedMarket(7, 12)
FEED = PublicFeed(MARKET)
KEYS = Credentials("key", "secret", "pass", Decimal(10_000))
DESK = Desk(MARKET, [KEYS])  # nobody trades here
START_NS = 1_795_330_800 * NS + NS // 2


class Transport:
    """A client that keeps what it hears."""

    def __init__(self) -> None:
        self.written = b""

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.written += data


class Client:
    """A connection to `Sessions` whose clock a test moves."""

    def __init__(self, *, is_private: bool = False, speed: float = 1.0, **limits: int) -> None:
        self.passed_ns = 0
        self.clock = Clock(
            speed, START_NS, wall_ns=lambda: START_NS + self.passed_ns, monotonic_ns=lambda: self.passed_ns
        )
        self.hub = Hub()
        self.sessions = Sessions(self.hub, FEED, DESK, Gate([KEYS]), self.clock)
        self.transport = transport = cast("Any", Transport())
        self.socket = Socket(1, transport, is_private=is_private, now_s=0.0, limits=Limits(**limits))
        self.hub.add(self.socket)
        self.goes_on = True

    def says(self, message: Any) -> list[Any]:
        """Return the frames that answer a message, decoded; "pong" stays text."""
        text = message if isinstance(message, str) else json.dumps(message)
        self.transport.written = b""
        self.goes_on = self.sessions.heard(self.socket, text)
        return [frame if frame == "pong" else json.loads(frame) for frame in texts(self.transport.written)]

    def asks(self, *pairs: tuple[str, Any], op: str = "subscribe", inst: Any = "USDT-FUTURES") -> list[Any]:
        return self.says({"op": op, "args": [arg(channel, symbol, inst) for channel, symbol in pairs]})

    def login(self, stamp_s: int | None = None, **changed: str) -> list[Any]:
        stamp = str(START_NS // NS if stamp_s is None else stamp_s)
        sign = base64.b64encode(hmac.new(b"secret", f"{stamp}GET/user/verify".encode(), hashlib.sha256).digest())
        told = {"apiKey": "key", "passphrase": "pass", "timestamp": stamp, "sign": sign.decode()} | changed
        return self.says({"op": "login", "args": [told], "url": "ccxt adds this"})


def arg(channel: str, symbol: Any, inst: Any = "USDT-FUTURES") -> dict[str, Any]:
    return {"instType": inst, "channel": channel, "instId": symbol}


def texts(written: bytes) -> Iterator[str]:
    """Read unmasked final text frames (RFC 6455 §5.2), and nothing else."""
    while written:
        assert written[0] == 0x81
        size, at = written[1], 2
        if size >= 126:
            at = 4 if size == 126 else 10
            size = int.from_bytes(written[2:at], "big")
        assert len(written) >= at + size
        yield written[at : at + size].decode()
        written = written[at + size :]


def test_each_argument_is_acked_and_a_duplicate_acked_again() -> None:
    """One ack per argument and then its snapshot; subscribed twice, it is acked twice and told once."""
    client = Client()

    first = client.asks(("books15", "BTCUSDT"), ("ticker", "ETHUSDT"))
    again = client.asks(("ticker", "ETHUSDT"))

    assert [(frame.get("event"), frame.get("action")) for frame in first] == [
        ("subscribe", None),
        (None, "snapshot"),
    ] * 2
    assert [frame["arg"]["channel"] for frame in first] == ["books15", "books15", "ticker", "ticker"]
    assert again == [{"event": "subscribe", "arg": arg("ticker", "ETHUSDT")}]


def test_each_unsubscription_is_acked_and_ends_its_topic() -> None:
    """Per argument, whether it was subscribed or not; others go on."""
    client = Client()
    client.asks(("ticker", "BTCUSDT"), ("trade", "BTCUSDT"))

    answers = client.asks(("ticker", "BTCUSDT"), ("books", "ETHUSDT"), op="unsubscribe")

    assert answers == [
        {"event": "unsubscribe", "arg": arg("ticker", "BTCUSDT")},
        {"event": "unsubscribe", "arg": arg("books", "ETHUSDT")},
    ]
    assert {channel for channel, symbols in client.hub.wanted.items() if symbols} == {"trade"}


@pytest.mark.parametrize("inst", ["SPOT", "COIN-FUTURES", "usdt-futures"])
def test_wrong_inst_type_is_acked_and_nothing_stands(inst: str) -> None:
    """Measured: a real symbol under another instType gets its ack and then silence; unsubscribing it ends no other."""
    client = Client()
    client.asks(("ticker", "BTCUSDT"))

    assert client.asks(("ticker", "BTCUSDT"), inst=inst) == [
        {"event": "subscribe", "arg": arg("ticker", "BTCUSDT", inst)}
    ]
    client.asks(("ticker", "BTCUSDT"), op="unsubscribe", inst=inst)

    assert client.hub.wanted == {"ticker": {"BTCUSDT"}}


@pytest.mark.parametrize("channel", PRIVATE_CHANNELS)
def test_private_channel_needs_a_login(channel: str) -> None:
    """30004 before, an ack after; `positions` and `account` begin with their state, the others with nothing."""
    client = Client(is_private=True)
    wanted = {"instType": "USDT-FUTURES", "channel": channel}
    wanted |= {"coin": "default"} if channel == "account" else {"instId": "default"}
    request = {"op": "subscribe", "args": [wanted]}

    (refused,) = client.says(request)
    assert client.login() == [{"event": "login", "code": 0}]
    ack, *state = client.says(request)

    assert refused == {
        "event": "error", "arg": wanted, "code": 30004, "msg": "User needs to log in", "op": "subscribe",
    }  # fmt: skip
    assert ack == {"event": "subscribe", "arg": wanted}
    if channel in ("positions", "account"):
        assert [(frame["action"], frame["arg"]) for frame in state] == [("snapshot", wanted)]
    else:
        assert state == []


@pytest.mark.parametrize("channel", ["positions", "orders", "orders-algo", "positions-history"])
def test_private_channel_of_one_symbol_does_not_exist(channel: str) -> None:
    """Observed: only "default" is taken, but for `fill`."""
    client = Client(is_private=True)
    client.login()

    (answer,) = client.asks((channel, "BTCUSDT"))
    (ack,) = client.asks(("fill", "BTCUSDT"))

    assert (answer["code"], answer["op"]) == (30001, "subscribe")
    assert ack["event"] == "subscribe"
    assert list(client.socket.topics) == [("fill", "BTCUSDT")]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"apiKey": "nobody"}, 30011),
        ({"passphrase": "wrong"}, 30012),
        ({"timestamp": "soon"}, 30013),
        ({"timestamp": str(START_NS // 1_000_000)}, 30014),  # milliseconds, as Bitget's prose has it
        ({"sign": "wrong"}, 30015),
    ],
)
def test_failed_login_is_an_error_and_the_end(changed: dict[str, str], code: int) -> None:
    """Each mistake has its code; the connection closes after it."""
    client = Client(is_private=True)

    (answer,) = client.login(None, **changed)

    assert (answer["event"], answer["code"]) == ("error", code)
    assert not client.goes_on
    assert (client.socket.end_reason, client.socket.account) == ("login_failed", None)


def test_login_may_follow_market_time_or_the_wall_clock() -> None:
    """At twenty times real time, a client with either clock gets in, and one with neither does not."""
    codes = []
    for shift_s in (600, 600 * 20, 600 * 10):
        client = Client(is_private=True, speed=20.0)
        client.passed_ns = 600 * NS
        (answer,) = client.login(START_NS // NS + shift_s)
        codes.append(answer["code"])

    assert codes == [0, 0, 30014]


def test_two_hundred_and_forty_subscribe_requests_an_hour() -> None:
    """However many arguments; the next is refused without harm, and an hour later it is taken."""
    client = Client()
    for _ in range(240):
        assert client.asks(("ticker", "BTCUSDT"), ("ticker", "ETHUSDT"))[0]["event"] == "subscribe"
        client.passed_ns += NS

    (refused,) = client.asks(("trade", "BTCUSDT"))
    assert client.asks(("ticker", "BTCUSDT"), op="unsubscribe")[0]["event"] == "unsubscribe"
    client.passed_ns = 3600 * NS

    assert (refused["code"], refused["op"], client.goes_on) == (30006, "subscribe", True)
    assert client.asks(("trade", "BTCUSDT"))[0]["event"] == "subscribe"


def test_a_channel_too_many_ends_the_connection() -> None:
    """30007 says so itself; what stands already does not count twice."""
    client = Client(channels=3)

    assert client.asks(("ticker", "BTCUSDT"), ("trade", "BTCUSDT"), ("books", "BTCUSDT"))[0]["event"] == "subscribe"
    assert client.asks(("ticker", "BTCUSDT")) == [{"event": "subscribe", "arg": arg("ticker", "BTCUSDT")}]
    (answer,) = client.asks(("ticker", "ETHUSDT"))

    assert (answer["code"], answer["msg"]) == (30007, "request over limit, connection close")
    assert (client.goes_on, client.socket.end_reason) == (False, "too_many_channels")


@pytest.mark.parametrize(("n_bytes", "is_taken"), [(4096, True), (4097, False)])
@pytest.mark.parametrize("padding", ["x", "é"])
def test_request_of_4096_bytes_is_the_longest(n_bytes: int, is_taken: bool, padding: str) -> None:
    """Counted in bytes, not in characters."""
    request = {"op": "subscribe", "args": [arg("ticker", "BTCUSDT")], "note": ""}
    text = json.dumps(request, ensure_ascii=False)
    room = n_bytes - len(text)
    text = text[:-2] + padding * (room // len(padding.encode())) + " " * (room % len(padding.encode())) + '"}'
    assert len(text.encode()) == n_bytes

    answers = Client().says(text)

    assert answers[0].get("event") == ("subscribe" if is_taken else "error")
    assert is_taken or answers[0]["code"] == 30016


def test_ping_alone_keeps_the_connection() -> None:
    """Only the text ping counts as one: requests do not."""
    client = Client()
    client.passed_ns = 50 * NS
    client.asks(("ticker", "BTCUSDT"))
    assert client.socket.pinged_s == 0.0

    assert client.says("ping") == ["pong"]

    assert client.socket.pinged_s == 50.0


def test_snapshot_continues_where_the_pump_stands() -> None:
    """A subscriber between two passes of the pump gets the chain from where the next pass goes on."""
    client = Client()
    told_ns = START_NS // NS * NS  # nothing of this second has been told, though half of it is over
    client.hub.told_ns = told_ns
    _, snapshot = client.asks(("books", "BTCUSDT"))

    first = next(json.loads(text) for *_, text in FEED.frames(told_ns, told_ns + NS, {"books": ["BTCUSDT"]}))

    assert first["data"][0]["pseq"] == snapshot["data"][0]["seq"]


@pytest.mark.parametrize(
    "text",
    [
        '{"op":"subscribe","args":[{"instType":"USDT-FUTURES","channel":"\\ud800","instId":"BTCUSDT"}]}',
        '{"op":"subscribe","args":[{"instType":"USDT-FUTURES","channel":"ticker","instId":NaN}]}',
        '{"op":"subscribe","args":[{"instType":"USDT-FUTURES","channel":"ticker","instId":1e999}]}',
        '{"op":"subscribe","args":[{"instType":"USDT-FUTURES","channel":"ticker","instId":' + "9" * 3900 + "}]}",
        '{"op":"subscribe","args":' + "[" * 2000 + "]" * 2000 + "}",
        '{"op":"subscribe","op":"login","args":[[]]}',
        "\x00",
        "",
    ],
)
def test_json_at_its_edges_is_an_error_frame(text: str) -> None:
    """Lone surrogates, NaN, infinities, numbers of thousands of digits, deep nests: nothing of them is echoed badly."""
    client = Client()

    answers = client.says(text)

    assert [answer["event"] for answer in answers] == ["error"]
    assert client.hub.wanted == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
odd_args = st.fixed_dictionaries(
    {},
    optional={
        "instType": st.sampled_from(["USDT-FUTURES", "SPOT"]) | json_values,
        "channel": st.sampled_from([*CHANNELS, *PRIVATE_CHANNELS]) | json_values,
        "instId": st.sampled_from(["BTCUSDT", "default", "NOPEUSDT"]) | json_values,
        "coin": json_values,
        "apiKey": json_values,
        "passphrase": json_values,
        "timestamp": json_values,
        "sign": json_values,
    },
)
odd_requests = st.fixed_dictionaries(
    {},
    optional={
        "op": st.sampled_from(["subscribe", "unsubscribe", "login", "trade"]) | json_values,
        "args": st.lists(odd_args | json_values, max_size=5) | json_values,
    },
).map(json.dumps)


@settings(max_examples=300)
@given(st.lists(odd_requests | st.text(max_size=60) | json_values.map(json.dumps), max_size=5), st.booleans())
def test_nonsense_is_answered_and_changes_nothing(messages: list[str], is_private: bool) -> None:
    """Every message is answered in valid JSON, none raises, and only real topics ever stand."""
    client = Client(is_private=is_private)

    for message in messages:
        for answer in client.says(message):
            if answer == "pong" or "action" in answer:
                continue
            assert answer["event"] in ("subscribe", "unsubscribe", "error")
            assert answer["event"] != "error" or type(answer["code"]) is int
        if not client.goes_on:
            assert client.socket.end_reason == "login_failed"
            break

    assert client.socket.account is None
    for channel, symbol in client.socket.topics:
        assert channel in CHANNELS
        assert FEED.knows(symbol)
