"""How many frames a second the simulator pushes, and what they cost: `python -m benchmarks.pushes`.

A generated market pushes ticker, books15 and trade of every symbol to real sockets at Bitget's measured cadence (about
nine tickers and eight books a second and symbol, trades as they happen). The server runs in this process, as
`python -m shared.simulator` runs it (uvloop, market computed ahead in a thread, venue on the clock); a child process
reads: it counts frames by their headers, in order, and answers nothing but what the protocol wants.

    sans-IO    frames rendered a second of CPU time, no sockets
    sockets    frames and bytes received, wall time; share of one core that the server's process used (user and system,
               all its threads), and the time from the moment of a push to its arrival in the transport

Figures of machines differ; ratios within one run are what counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import uvloop

from shared.simulator.markets.market import NS, GeneratedMarket
from shared.simulator.pushes.feed import BITGET, CALM, Cadence, PublicFeed
from shared.simulator.pushes.frames import text_frame
from shared.simulator.server import Server

CHANNELS = ("ticker", "books15", "trade")
ARGS_PER_REQUEST = 45
WARM_UP_S = 5.0


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--symbols", type=int, default=800)
    p.add_argument("--connections", type=int, default=48)
    p.add_argument("--seconds", type=float, default=30.0)
    p.add_argument("--cadence", choices=("bitget", "calm"), default="bitget")
    p.add_argument("--read", help=argparse.SUPPRESS)  # the child: URL of the server
    args = p.parse_args()
    if args.read:
        uvloop.run(read(args.read, args.connections))
        return
    cadence = {"bitget": BITGET, "calm": CALM}[args.cadence]
    market = GeneratedMarket(7, args.symbols)
    rate = rendered(market, cadence)
    print(f"sans-IO   {rate:>9,.0f} frames/s of CPU time, {1e6 / rate:.1f} us a frame", flush=True)
    uvloop.run(sockets(market, cadence, args))


def rendered(market: GeneratedMarket, cadence: Cadence, seconds: int = 10) -> float:
    """Return how many frames a second of CPU time renders, in passes of 25 ms as the server makes them."""
    feed = PublicFeed(market, cadence)
    start_ns = time.time_ns() // NS * NS
    market.block(start_ns // NS), market.block(start_ns // NS + seconds)
    everything = frozenset(market.symbols)
    wanted = dict.fromkeys(CHANNELS, everything)
    frames, began_s = 0, time.process_time()
    for at_ns in range(start_ns, start_ns + seconds * NS, NS // 40):
        for _ in feed.wire(at_ns, at_ns + NS // 40, wanted):
            frames += 1
    return frames / (time.process_time() - began_s)


async def sockets(market: GeneratedMarket, cadence: Cadence, args: argparse.Namespace) -> None:
    server = Server(market, cadence=cadence)
    await server.start()
    command = [sys.executable, "-m", "benchmarks.pushes", "--read", server.ws_url + "/public"]
    command += ["--connections", str(args.connections)]
    reader = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).resolve().parent.parent
    )
    assert reader.stdin is not None
    assert reader.stdout is not None
    # Each connection gets its share of every channel, as a client that spreads 2,400 topics would.
    listed = [row["symbol"] for row in market.contracts(server.clock.now_ns() // NS)]
    topics = [(channel, symbol) for symbol in listed for channel in CHANNELS]
    share = -(-len(topics) // args.connections)
    reader.stdin.write(json.dumps([topics[i : i + share] for i in range(0, len(topics), share)]).encode() + b"\n")
    while sum(len(socket.topics) for socket in server.hub.sockets) < len(topics):
        await asyncio.sleep(0.1)
    await asyncio.sleep(WARM_UP_S)

    async def counted() -> tuple[int, int, float, float]:
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdin.write(b"count\n")
        frames, n_bytes = json.loads(await reader.stdout.readline())
        used = resource.getrusage(resource.RUSAGE_SELF)
        return frames, n_bytes, used.ru_utime + used.ru_stime, time.monotonic()

    lags_ms: list[float] = []
    publish = server.hub.flush

    def flush() -> None:
        publish()
        assert server.hub.told_ns is not None
        # The oldest frame of this pass was due when the pass before it ended.
        lags_ms.append((server.clock.now_ns() - server.hub.told_ns) / 1e6)

    server.hub.flush = flush  # type: ignore[method-assign]
    before = await counted()
    await asyncio.sleep(args.seconds)
    after = await counted()
    frames, n_bytes, cpu_s, wall_s = (b - a for a, b in zip(before, after, strict=True))
    lags_ms.sort()
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    p50_ms, p99_ms = lags_ms[len(lags_ms) // 2], lags_ms[len(lags_ms) * 99 // 100]
    print(
        f"sockets   {frames / wall_s:>9,.0f} frames/s, {n_bytes / wall_s / 1e6:.1f} MB/s to {args.connections} "
        f"connections of {len(listed)} symbols; server {cpu_s / wall_s:.2f} of a core, "
        f"{cpu_s / frames * 1e6:.1f} us a frame; oldest frame of a pass p50 {p50_ms:.0f} ms, "
        f"p99 {p99_ms:.0f} ms late; {memory_mb:.0f} MB",
        flush=True,
    )
    reader.stdin.close()
    await reader.wait()
    await server.stop()


class Counter(asyncio.Protocol):
    """One connection that counts frames by their headers (RFC 6455 §5.2) and looks at nothing else."""

    def __init__(self) -> None:
        self.frames = self.n_bytes = 0
        self._rest = b""
        self._is_open = False
        self._skip = 0

    def data_received(self, data: bytes) -> None:
        if not self._is_open:
            head, found, data = (self._rest + data).partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return
            assert b" 101 " in head.splitlines()[0], head
            self._is_open, self._rest = True, b""
        self.n_bytes += len(data)
        if self._skip >= len(data):
            self._skip -= len(data)
            return
        data, at = self._rest + data, 0
        at += self._skip
        self._skip, end = 0, len(data)
        while at < end:
            if at + 2 > end:
                break
            length = data[at + 1]
            size = 2 if length < 126 else 4 if length == 126 else 10
            if at + size > end:
                break
            if length >= 126:
                length = int.from_bytes(data[at + 2 : at + size], "big")
            assert data[at] == 0x81, hex(data[at])
            self.frames += 1
            at += size + length
        self._rest = data[at:]
        self._skip = max(0, at - end)

    def connection_lost(self, error: Exception | None) -> None:
        assert self._is_closing, f"the server cut a connection: {error}"

    _is_closing = False


async def read(url: str, n_connections: int) -> None:
    """Subscribe as told on stdin, then answer each line with [frames, bytes] so far."""
    loop = asyncio.get_running_loop()
    shares = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    host, port = url.removeprefix("ws://").partition("/")[0].split(":")
    path = "/" + url.removeprefix("ws://").partition("/")[2]
    connections: list[tuple[asyncio.Transport, Counter]] = []
    for _ in range(n_connections):
        transport, protocol = await loop.create_connection(Counter, host, int(port))
        transport.write(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        connections.append((transport, protocol))
    for i in range(0, len(shares[0]), ARGS_PER_REQUEST):
        for (transport, _), topics in zip(connections, shares, strict=False):
            args = [
                {"instType": "USDT-FUTURES", "channel": channel, "instId": symbol}
                for channel, symbol in topics[i : i + ARGS_PER_REQUEST]
            ]
            if args:
                transport.write(masked(json.dumps({"op": "subscribe", "args": args}, separators=(",", ":"))))
        await asyncio.sleep(0.2)

    async def ping() -> None:
        while True:
            await asyncio.sleep(25)
            for transport, _ in connections:
                transport.write(masked("ping"))

    pinging = asyncio.create_task(ping())
    while await loop.run_in_executor(None, sys.stdin.readline):
        counts = [sum(counter.frames for _, counter in connections), sum(counter.n_bytes for _, counter in connections)]
        print(json.dumps(counts), flush=True)
    pinging.cancel()
    Counter._is_closing = True
    for transport, _ in connections:
        transport.abort()


def masked(text: str) -> bytes:
    """Return a client's text frame with an all-zero mask."""
    whole = text_frame(text)
    at = 2 if whole[1] < 126 else 4 if whole[1] == 126 else 10
    return bytes((whole[0], whole[1] | 0x80)) + whole[2:at] + bytes(4) + whole[at:]


if __name__ == "__main__":
    main()
