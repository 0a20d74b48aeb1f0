"""Clients over real sockets: hostile, slow, silent, too many; what was sent and recorded; time that runs faster."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from socket import AF_INET, SO_LINGER, SO_SNDBUF, SOCK_STREAM, SOL_SOCKET, socket
from typing import Any

import aiohttp
import msgspec
import pytest
import websockets.asyncio.client
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus

from shared.errors import SettingsError
from shared.simulator.clock import Clock
from shared.simulator.faults.conditions import Change
from shared.simulator.gate import Credentials
from shared.simulator.markets.market import NS, GeneratedMarket
from shared.simulator.pushes.feed import BITGET
from shared.simulator.pushes.sent import SentLog
from shared.simulator.pushes.sockets import Limits
from shared.simulator.server import Server

MARKET = GeneratedMarket(7, 20)
KEYS = Credentials("key", "secret", "pass", Decimal(10_000))


class Lines:
    """A log that a test reads."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **facts: Any) -> None:
        self.events.append((event, facts))

    def of(self, name: str) -> list[dict[str, Any]]:
        return [facts for event, facts in self.events if event == name]


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Server]:
    server = Server(MARKET, accounts=[KEYS], **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def connect(server: Server, stream: str = "public", **options: Any) -> Any:
    return websockets.asyncio.client.connect(f"{server.ws_url}/{stream}", max_size=None, compression=None, **options)


async def subscribe(socket: Any, *pairs: tuple[str, str]) -> None:
    args = [{"instType": "USDT-FUTURES", "channel": channel, "instId": symbol} for channel, symbol in pairs]
    await socket.send(json.dumps({"op": "subscribe", "args": args}))


async def read_all(socket: Any) -> None:
    while True:
        await socket.recv()


async def until(is_true: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not is_true():
            await asyncio.sleep(0.005)


HANDSHAKE = (
    "GET /v2/ws/{} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def handshake(server: Server, stream: str = "public") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a WebSocket by hand, so that anything can be written after it."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(HANDSHAKE.format(stream).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in head.splitlines()[0]
    return reader, writer


async def read_to_close(reader: asyncio.StreamReader) -> bytes:
    """Return all up to a close frame: this client is told that it is over."""
    heard = b""
    async with asyncio.timeout(10):
        while b"\x88\x02" not in heard:
            more = await reader.read(4096)
            assert more, heard
            heard += more
    return heard


def masked(opcode: int, payload: bytes, *, is_final: bool = True) -> bytes:
    """Return a client's frame (RFC 6455 §5.2) with an all-zero mask."""
    n = len(payload)
    size = (
        bytes([0x80 | n])
        if n < 126
        else b"\xfe" + n.to_bytes(2, "big")
        if n < 65_536
        else b"\xff" + n.to_bytes(8, "big")
    )
    return bytes([(0x80 if is_final else 0) | opcode]) + size + b"\0\0\0\0" + payload


# ------------------------------------------------------------------------------------------------- hostile


hostile_bytes = st.one_of(
    st.binary(max_size=200),  # no frames at all
    st.builds(masked, st.integers(0, 15), st.binary(max_size=300)),  # any opcode, any payload
    st.builds(masked, st.just(1), st.binary(max_size=300)),  # text that may not be UTF-8
    st.builds(masked, st.just(1), st.text(max_size=80).map(str.encode)),
    st.builds(lambda text: masked(1, text, is_final=False), st.binary(max_size=50)),  # a fragment without an end
    st.just(masked(1, b"x" * 70_000)),
    st.just(b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0"),  # promises nine exabytes
    st.just(masked(1, b'{"op":"subscribe","args":' + b"[" * 4000)),
    st.just(masked(8, b"\x03")),  # a close frame with half a code
    st.just(masked(8, b"")),
)


def test_hostile_bytes_harm_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a client writes, the server serves on: others miss nothing, and newcomers get in."""

    async def attack(server: Server, chunks: list[bytes]) -> None:
        reader, writer = await handshake(server, "private" if len(chunks) % 2 else "public")
        try:
            for chunk in chunks:
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            pass  # cut off already
        finally:
            writer.transport.abort()
        del reader

    async def observe(server: Server, chain: list[tuple[int, int]]) -> None:
        async with connect(server) as socket:
            await subscribe(socket, ("books", "BTCUSDT"))
            async for text in socket:
                frame = json.loads(text)
                if "action" in frame:
                    chain.append((frame["data"][0]["pseq"], frame["data"][0]["seq"]))

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        limits = Limits(connects_per_5_min=100_000)
        server: Server = runner.run(stack.enter_async_context(serving(limits=limits)))
        chain: list[tuple[int, int]] = []
        observer = runner.get_loop().create_task(observe(server, chain))

        @settings(max_examples=100)
        @given(st.lists(hostile_bytes, min_size=1, max_size=6))
        def campaign(chunks: list[bytes]) -> None:
            runner.run(attack(server, chunks))

        campaign()

        async def aftermath() -> None:
            told = len(chain)
            await until(lambda: len(chain) >= max(3, told + 2))
            async with connect(server) as socket:
                await socket.send("ping")
                assert await socket.recv() == "pong"
            await until(lambda: len(server.hub.sockets) == 1)  # nobody is left behind but the observer
            observer.cancel()
            await stack.aclose()

        runner.run(aftermath())
        assert [pseq for pseq, _ in chain[1:]] == [seq for _, seq in chain[:-1]]
        # Nothing was answered by an exception that only the web framework caught.
        assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_binary_and_protocol_pings_are_messages_too() -> None:
    """Ten of any kind a second; the eleventh is told 30006 and ends its own connection."""
    async with serving() as server:
        for opcode in (2, 9):
            reader, writer = await handshake(server)
            writer.write(masked(opcode, b"x") * 11)
            heard = await read_to_close(reader)
            writer.close()

            assert b'"code":30006' in heard
            assert heard.count(b"30002" if opcode == 2 else b"\x8a\x01x") == 10


async def test_flood_that_is_not_read_is_bounded() -> None:
    """A client that subscribes to everything and never reads is cut off alone, at the backlog's bound."""
    lines = Lines()
    limits = Limits(backlog_bytes=200_000)
    async with serving(limits=limits, cadence=BITGET, log=lines) as server, connect(server) as quick:
        _, deaf = await handshake(server)
        wanted = [
            {"instType": "USDT-FUTURES", "channel": channel, "instId": symbol}
            for symbol in MARKET.symbols
            for channel in ("books15", "ticker")
        ]
        for i in range(0, len(wanted), 20):
            text = json.dumps({"op": "subscribe", "args": wanted[i : i + 20]}, ensure_ascii=False)
            deaf.write(masked(1, text.encode()))
        await subscribe(quick, ("books", "BTCUSDT"))
        most = 0

        def is_cut() -> bool:
            nonlocal most
            most = max([most, *(one.transport.get_write_buffer_size() for one in server.hub.sockets)])
            return bool(lines.of("client.disconnected"))

        # Until then the kernel's buffers of both ends fill up: some megabytes at 0.3 MB/s, so they are made small.
        for one in server.hub.sockets:
            raw = one.transport.get_extra_info("socket")
            raw.setsockopt(SOL_SOCKET, SO_SNDBUF, 4096)
        await until(is_cut, 30.0)
        (gone,) = lines.of("client.disconnected")
        frames: list[Any] = []
        while len(frames) < 4:
            frame = json.loads(await asyncio.wait_for(quick.recv(), 5))
            frames += [frame["data"][0]] if "action" in frame else []
        deaf.transport.abort()

    assert gone["reason"] == "too_slow"
    assert most < limits.backlog_bytes + 200_000  # one pass more at most
    assert [row["pseq"] for row in frames[1:]] == [row["seq"] for row in frames[:-1]]


@pytest.mark.parametrize("last", [b"", masked(9, b"x")], ids=["in the handshake", "after a protocol ping"])
async def test_client_that_resets_is_no_error_of_ours(caplog: pytest.LogCaptureFixture, last: bytes) -> None:
    """Gone before the server could answer: no traceback, nothing left behind, others are served."""
    lines = Lines()
    async with serving(log=lines, limits=Limits(connects_per_5_min=1000)) as server:
        for _ in range(30):
            with socket(AF_INET, SOCK_STREAM) as raw:
                raw.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))  # closing it sends a reset
                raw.connect((server.host, server.port))
                raw.sendall(HANDSHAKE.format("public").encode() + last)
        async with connect(server) as client:
            await client.send("ping")
            assert await client.recv() == "pong"
            await until(lambda: len(server.hub.sockets) == 1)

    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


# ---------------------------------------------------------------------------------------------- candles


async def test_candles_begin_with_the_past_and_go_on() -> None:
    """The ack at once, the snapshot when it is computed, then updates; what is unsubscribed meanwhile never comes."""
    async with serving() as server, connect(server) as socket:
        await subscribe(socket, ("candle1m", "BTCUSDT"), ("candle1H", "ETHUSDT"))
        gone = {"instType": "USDT-FUTURES", "channel": "candle1H", "instId": "ETHUSDT"}
        await socket.send(json.dumps({"op": "unsubscribe", "args": [gone]}))
        found: dict[str, list[Any]] = {}
        async with asyncio.timeout(20):
            while len(found.get("candle1m", ())) < 3:
                frame = json.loads(await socket.recv())
                if "action" in frame:
                    found.setdefault(frame["arg"]["channel"], []).append((frame["action"], frame["data"]))

    assert set(found) == {"candle1m"}
    (action, bars), *updates = found["candle1m"]
    begins = [int(bar[0]) for bar in bars]
    assert (action, begins) == ("snapshot", list(range(begins[0], begins[0] + 100 * 60_000, 60_000)))
    assert {action for action, _ in updates} == {"update"}
    assert all(int(rows[-1][0]) >= begins[-1] for _, rows in updates)


# ---------------------------------------------------------------------------------------------- the rules


async def test_client_without_a_ping_is_cut_without_a_close_frame() -> None:
    """Requests and protocol pings do not count; a client that pings stays."""
    lines = Lines()
    limits = Limits(ping_s_max=0.5)
    async with serving(limits=limits, log=lines) as server, connect(server, ping_interval=0.2) as quiet:
        await subscribe(quiet, ("ticker", "BTCUSDT"))
        async with connect(server) as lively:
            while not lines.of("client.disconnected"):
                await lively.send("ping")
                assert await asyncio.wait_for(lively.recv(), 5) == "pong"
                await asyncio.sleep(0.15)
        with pytest.raises(ConnectionClosed) as cut:
            await read_all(quiet)

    assert cut.value.rcvd is None  # 1006: no close frame
    assert lines.of("client.disconnected")[0]["reason"] == "no_ping"


async def test_flooding_address_is_blocked_and_old_connections_end() -> None:
    """After one forgiven flood the second blocks its address; a connection does not outlive its day."""
    lines = Lines()
    async with serving(limits=Limits(floods_per_5_min=1, connection_s_max=0.4), log=lines) as server:
        async with connect(server) as socket:
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(read_all(socket), 10)
        for _ in range(2):
            reader, writer = await handshake(server)
            writer.write(masked(1, b"ping") * 11)
            await read_to_close(reader)
            writer.close()
        await until(lambda: len(lines.of("client.disconnected")) == 3)
        with pytest.raises(InvalidStatus) as blocked:
            await connect(server)

    assert [gone["reason"] for gone in lines.of("client.disconnected")] == ["too_old"] + ["too_many_messages"] * 2
    assert blocked.value.response.status_code == 429
    assert lines.of("client.refused")[0]["reason"] == "blocked"


async def test_connections_and_connects_of_an_address_are_bounded() -> None:
    """The next handshake is refused with HTTP 429; who goes makes room, but the five minutes' count stays."""
    lines = Lines()
    async with serving(limits=Limits(connections_per_ip=2, connects_per_5_min=4), log=lines) as server:
        async with connect(server), connect(server):
            with pytest.raises(InvalidStatus) as full:
                await connect(server)
        await until(lambda: not server.hub.sockets)
        for _ in range(2):
            async with connect(server) as socket:
                await socket.send("ping")
                assert await socket.recv() == "pong"
        with pytest.raises(InvalidStatus) as worn:
            await connect(server)

    assert [error.value.response.status_code for error in (full, worn)] == [429, 429]
    assert [refusal["reason"] for refusal in lines.of("client.refused")] == [
        "too_many_connections",
        "too_many_connects",
    ]


async def test_log_tells_each_client_from_its_coming_to_its_going() -> None:
    """A line when it comes, logs in, subscribes and goes: with the reason and what was sent to it."""
    lines = Lines()
    async with serving(log=lines) as server:
        async with connect(server, "private") as socket:
            stamp = str(int(time.time()))
            sign = hmac.new(b"secret", f"{stamp}GET/user/verify".encode(), hashlib.sha256).digest()
            told = {"apiKey": "key", "passphrase": "pass", "timestamp": stamp, "sign": base64.b64encode(sign).decode()}
            await socket.send(json.dumps({"op": "login", "args": [told]}))
            await subscribe(socket, ("ticker", "BTCUSDT"), ("ticker", "ETHUSDT"), ("orders", "default"))
            received = [await socket.recv() for _ in range(8)]
            port = socket.local_address[1]
            async with aiohttp.ClientSession() as http, http.get(f"{server.rest_url}/_control/sockets") as answer:
                (listed,) = await answer.json()
        await until(lambda: bool(lines.of("client.disconnected")))
        async with connect(server):
            await until(lambda: len(server.hub.sockets) == 1)
            server.close_sockets()
            await until(lambda: len(lines.of("client.disconnected")) == 2)

    assert [event for event, _ in lines.events[:4]] == [
        "client.connected", "client.logged_in", "client.subscribed", "client.disconnected",
    ]  # fmt: skip
    (first, second) = lines.of("client.disconnected")
    assert lines.of("client.connected")[0] == {"conn": 1, "stream": "private", "peer": f"127.0.0.1:{port}"}
    assert lines.of("client.subscribed")[0]["channels"] == {"ticker": 2, "orders": 1}
    assert (first["reason"], first["channels"]) == ("closed_by_client", {"ticker": 2, "orders": 1})
    assert first["frames_sent"] >= len(received)
    assert first["bytes_sent"] > sum(len(text) for text in received)
    assert second["reason"] == "dropped"
    assert (listed["conn"], listed["peer"], listed["channels"]) == (1, f"127.0.0.1:{port}", first["channels"])
    assert not [facts for _, facts in lines.events if "secret" in str(facts) or "pass" in str(facts)]


@pytest.mark.parametrize("name", ["market", "sockets", "conditions", "script", "funding", "nothing"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_control_is_for_this_machine_alone(method: str, name: str) -> None:
    """Somebody elsewhere may trade, but not change the weather, nor see who else is here."""
    async with serving(host="0.0.0.0") as server:
        url = f"http://127.0.0.1:{server.port}"
        connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))  # another address, as far as the server sees
        async with aiohttp.ClientSession(connector=connector) as http:
            async with http.get(f"{url}/api/v2/public/time") as answer:
                assert answer.status == 200
            async with http.request(method, f"{url}/_control/{name}", data=b"{}") as answer:
                assert (answer.status, list(await answer.json())) == (403, ["error"])


# --------------------------------------------------------------------------------------------------- sent


async def test_sent_file_is_what_each_client_received(tmp_path: Path) -> None:
    """Line for line and in order, by connection: every market frame, and nothing else."""
    path = tmp_path / "sent.jsonl"
    clock = Clock()
    received: dict[int, list[str]] = {}

    async def listen(server: Server, n_frames: int, *pairs: tuple[str, str]) -> None:
        async with connect(server) as socket:
            port = socket.local_address[1]
            await until(lambda: any(one.peer.endswith(f":{port}") for one in server.hub.sockets))
            (number,) = [one.number for one in server.hub.sockets if one.peer.endswith(f":{port}")]
            mine = received[number] = []
            await subscribe(socket, *pairs)
            await socket.send("ping")
            while len(mine) < n_frames:
                text = await socket.recv()
                mine += [text] if '"action"' in text else []
            await socket.send(json.dumps({"op": "unsubscribe", "args": [
                {"instType": "USDT-FUTURES", "channel": c, "instId": s} for c, s in pairs
            ]}))  # fmt: skip
            n_acks = 0
            while n_acks < len(pairs):
                text = await socket.recv()
                mine += [text] if '"action"' in text else []
                n_acks += '"unsubscribe"' in text

    before_ns = clock.now_ns()
    async with serving(cadence=BITGET, clock=clock, sent=SentLog(path, clock.now_ns)) as server:
        async with asyncio.timeout(20):
            await asyncio.gather(
                listen(server, 40, ("books15", "BTCUSDT"), ("ticker", "龙虾USDT"), ("trade", "ETHUSDT")),
                listen(server, 25, ("books15", "BTCUSDT"), ("books", "BTCUSDT")),
                listen(server, 3, ("books", "SOLUSDT")),
            )
        # A process that is killed now has left all this behind already.
        written = path.read_text("utf-8")

    lines = [json.loads(line) for line in written.splitlines()]
    sent: dict[int, list[str]] = {}
    for line in lines:
        assert list(line) == ["conn", "time_ns", "text"]
        assert before_ns <= line["time_ns"] <= clock.now_ns()
        sent.setdefault(line["conn"], []).append(line["text"])
    assert len(received) == 3
    assert sent == received
    assert path.read_text("utf-8") == written


async def test_sent_file_tells_what_misbehaviour_let_through(tmp_path: Path) -> None:
    """Lost frames are not in it, doubled ones twice, overtaken ones where they left: as the client received them."""
    path, clock = tmp_path / "sent.jsonl", Clock()
    async with serving(clock=clock, sent=SentLog(path, clock.now_ns)) as server:
        rules = [{"what": "lose", "p": 0.2}, {"what": "duplicate", "p": 0.2}, {"what": "reorder", "p": 0.2}]
        server.faults.change(msgspec.convert({"pushes": rules}, Change))
        async with connect(server) as socket, asyncio.timeout(20):
            await subscribe(socket, *[("books15", symbol) for symbol in MARKET.symbols[:8]])
            received: list[str] = []
            while len(received) < 150:
                text = await socket.recv()
                received += [text] if '"action"' in text else []
    struck = dict(server.faults.struck)

    sent = [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
    assert sent[: len(received)] == received
    assert len(set(received)) < len(received)
    assert {name.split()[0] for name in struck} >= {"lose", "duplicate", "reorder"}


def test_sent_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """When it is opened, and when it takes no more: an oracle with holes is none."""
    with pytest.raises(SettingsError, match="--sent must be a file that can be written, found"):
        SentLog(tmp_path / "nowhere" / "sent.jsonl", time.time_ns)
    if os.path.exists("/dev/full"):
        log = SentLog(Path("/dev/full"), time.time_ns)
        log.note(1, [b'\x81\x7e\x00\x00{"action":"update","arg":{"channel":"trade"}}'])
        with pytest.raises(SettingsError, match="--sent must take every frame"):
            log.write()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
async def test_full_disk_under_the_sent_file_ends_the_server() -> None:
    """It does not go on without its oracle; who runs it hears one sentence, and everything is closed behind it."""
    async with serving(sent=SentLog(Path("/dev/full"), time.time_ns)) as server:
        async with connect(server) as socket:
            await subscribe(socket, ("books15", "BTCUSDT"))
            with pytest.raises(SettingsError, match="--sent must take every frame"):
                await asyncio.wait_for(server.run_until(asyncio.Event()), 10)
        await server.stop()

        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(server.host, server.port)


# -------------------------------------------------------------------------------------------------- speed


async def test_faster_time_is_one_time_everywhere() -> None:
    """At twenty times real time serverTime, pushes, orders and funding time live in market time, at that speed."""
    clock = Clock(20.0)
    async with serving(clock=clock) as server, connect(server) as socket, aiohttp.ClientSession() as http:
        await subscribe(socket, ("books15", "BTCUSDT"))
        stamps: list[int] = []
        while len(stamps) < 60:
            frame = json.loads(await asyncio.wait_for(socket.recv(), 5))
            if "action" in frame:
                stamps.append(int(frame["data"][0]["ts"]))
        async with http.get(f"{server.rest_url}/api/v2/public/time") as answer:
            server_ms = int((await answer.json())["data"]["serverTime"])
        now_ms = clock.now_ms()

    assert stamps == sorted(stamps)
    # Sixty pushes at eight a second are seven and a half seconds of market time, told in less than half a second.
    assert 7_000 <= stamps[-1] - stamps[0] <= 8_000
    assert stamps[-1] <= server_ms <= now_ms


async def test_signed_requests_of_either_clock_are_served() -> None:
    """A client may sign with market time, which serverTime tells, or with its own clock."""
    clock = Clock(50.0, time.time_ns() - 86_400 * NS)
    path = "/api/v2/mix/account/accounts?productType=USDT-FUTURES"
    async with serving(clock=clock) as server, aiohttp.ClientSession() as http:

        async def ask(stamp_ms: int) -> str:
            sign = hmac.new(b"secret", f"{stamp_ms}GET{path}".encode(), hashlib.sha256).digest()
            headers = {
                "ACCESS-KEY": "key", "ACCESS-PASSPHRASE": "pass", "ACCESS-TIMESTAMP": str(stamp_ms),
                "ACCESS-SIGN": base64.b64encode(sign).decode(),
            }  # fmt: skip
            async with http.get(server.rest_url + path, headers=headers) as answer:
                return str((await answer.json())["code"])

        codes = [await ask(stamp_ms) for stamp_ms in (clock.now_ms(), time.time_ns() // 1_000_000, 1_700_000_000_000)]

    assert codes == ["00000", "00000", "40008"]
