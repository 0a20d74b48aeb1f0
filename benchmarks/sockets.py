"""The recorder at full pace over real sockets: `python -m benchmarks.sockets [--rate 16000] [--seconds 60]`.

A child process sends frames that were rendered beforehand: a generated market of 800 symbols (ticker, books15 and trade
at Bitget's measured cadence), whose times, sequence numbers and trade ids go on from loop to loop, so that no push is
another's repeat. It sends as fast as it is told and never drops: who reads too slowly finds it late. This process runs
`pipelines.collect.collect` as its service does, seals the hours and compares what lies in the lake with what was sent.

    frames/s      received, over the whole run
    core          CPU time of the recorder's process per second (user and system, all threads); what seals is a child
    durable       receive to fsynced, of every row: p50, p99 and the worst
    RSS           of the recorder: after a tenth of the frames, at the end, and the difference; and of its children.
                  Its own memory apart from pages of files (libraries), which it shares: touching them is no growth
    late          how far the sender was behind its own clock at the end: what a recorder too slow would show

`--burst 50000:10` sends that many a second for so long in the middle of the run.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import uvloop
from numpy.typing import NDArray

from pipelines.collect import collect
from pipelines.collector import Collector
from pipelines.meter import Meter
from shared import allocator
from shared.lake import read
from shared.simulator.markets.market import NS, GeneratedMarket
from shared.simulator.pushes.feed import Cadence, PublicFeed
from shared.simulator.pushes.frames import text_frame
from shared.simulator.server import Server
from shared.types import BookChannels, TickEvent

CADENCE = Cadence(book_ms=125, ticker_ms=110)
CHANNELS = ("ticker", "books15", "trade")
LOOP_S = 4  # of market are rendered, then sent over and over with later times
PASS_NS = NS // 40
FIRST_S = 1_790_000_100
MB = 1 << 20


# ------------------------------------------------------------------------------------------------- the sender


class Block:
    """The frames of one connection in one pass, and where their numbers stand."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        data = b"".join(frames)
        self.bytes = np.frombuffer(data, np.uint8).copy()
        self.frames = len(frames)
        self.rows = data.count(b'"tradeId"')
        self.fields = [
            field
            for pattern, step in (
                (rb'"ts":"?(\d{13})', 1),
                (rb'"seq":(\d+)', 1),
                (rb'"tradeId":"(\d+)"', 1 << 22),
            )
            for field in _fields(data, pattern, step)
        ]

    def at(self, later_ms: int) -> bytes:
        """Return the frames, so much later."""
        for at, digits, values, step in self.fields:
            left = values + later_ms * step
            for k in range(digits - 1, -1, -1):
                left, digit = np.divmod(left, 10)
                self.bytes[at + k] = digit + 48
        return self.bytes.tobytes()


def _fields(data: bytes, pattern: bytes, step: int) -> list[tuple[NDArray[np.int64], int, NDArray[np.int64], int]]:
    """Return (where, number of digits, values, step a millisecond), one for each number of digits."""
    found: dict[int, tuple[list[int], list[int]]] = {}
    for match in re.finditer(pattern, data):
        where, values = found.setdefault(len(match[1]), ([], []))
        where.append(match.start(1))
        values.append(int(match[1]))
    return [(np.array(where), digits, np.array(values), step) for digits, (where, values) in found.items()]


class Reader(asyncio.Protocol):
    """A connection of the recorder: its subscriptions are acknowledged, its pings answered."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.topics: set[tuple[str, str]] = set()
        self._buffer = b""
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.sender.readers.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.sender.readers.remove(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._is_open:
            head, found, self._buffer = self._buffer.partition(b"\r\n\r\n")
            if not found:
                self._buffer = head
                return
            self._is_open = True
            key = re.search(rb"(?i)sec-websocket-key: (\S+)", head)
            assert key, head
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accepted(key[1]) + b"\r\n\r\n"
            )
        while (text := self._frame()) is not None:
            self._answer(text)

    def _frame(self) -> bytes | None:
        """Return the text of one client's frame (RFC 6455 §5.2: always masked), or None."""
        data = self._buffer
        if len(data) < 2:
            return None
        size, at = data[1] & 127, 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        if len(data) < at + 4 + size:
            return None
        mask, text = data[at : at + 4], data[at + 4 : at + 4 + size]
        self._buffer = data[at + 4 + size :]
        if data[0] & 15 == 8:
            self.transport.close()
            return None
        return bytes(byte ^ mask[k % 4] for k, byte in enumerate(text))

    def _answer(self, text: bytes) -> None:
        if text == b"ping":
            self.transport.write(text_frame("pong"))
            return
        for arg in json.loads(text)["args"]:
            self.topics.add((arg["channel"], arg["instId"]))
            self.transport.write(text_frame(json.dumps({"event": "subscribe", "arg": arg})))


def accepted(key: bytes) -> bytes:
    """Return what proves that the handshake was understood (RFC 6455 §4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest())


class Sender:
    """Frames of every connection, pass by pass."""

    def __init__(self, symbols: int) -> None:
        self.market = GeneratedMarket(7, symbols)
        feed = PublicFeed(self.market, CADENCE)
        wanted = dict.fromkeys(CHANNELS, frozenset(self.market.symbols))
        start_ns, n_passes = FIRST_S * NS, LOOP_S * NS // PASS_NS
        self.rendered: list[list[tuple[str, str, bytes]]] = [[] for _ in range(n_passes)]
        for at_ns, channel, symbol, frame in feed.wire(start_ns, start_ns + LOOP_S * NS, wanted):
            self.rendered[(at_ns - start_ns) // PASS_NS].append((channel, symbol, frame))
        self.natural = sum(map(len, self.rendered)) / LOOP_S
        self.readers: list[Reader] = []
        self.frames = dict.fromkeys(("book", "ticker", "trade"), 0)

    async def send(self, phases: Sequence[tuple[float, float]]) -> float:
        """Send, one (frames a second, seconds) after another; return how late the last pass was, s."""
        readers = list(self.readers)
        blocks: list[list[Block | None]] = []
        counts: list[dict[str, int]] = []
        for frames in self.rendered:
            row, count = [], dict.fromkeys(self.frames, 0)
            for reader in readers:
                mine = [frame for channel, symbol, frame in frames if (channel, symbol) in reader.topics]
                row.append(Block(mine) if mine else None)
            for channel, symbol, frame in frames:
                if any((channel, symbol) in reader.topics for reader in readers):
                    table = "book" if channel.startswith("books") else channel
                    count[table] += frame.count(b'"tradeId"') if table == "trade" else 1
            blocks.append(row)
            counts.append(count)
        begin_ms = time.time_ns() // 1_000_000 - FIRST_S * 1000
        number, late_s = 0, 0.0
        for rate, seconds in phases:
            pass_s = PASS_NS / NS * self.natural / rate
            began_s = time.monotonic()
            for k in range(round(seconds / pass_s)):
                if (wait_s := began_s + k * pass_s - time.monotonic()) > 0:
                    await asyncio.sleep(wait_s)
                else:
                    await asyncio.sleep(0)
                late_s = max(0.0, -wait_s)
                loops, at = divmod(number, len(blocks))
                for reader, block in zip(readers, blocks[at], strict=True):
                    if block is not None:
                        while reader.transport.get_write_buffer_size() > 4 * MB:  # the reader is behind: wait for it
                            await asyncio.sleep(0.002)
                        reader.transport.write(block.at(begin_ms + loops * LOOP_S * 1000))
                for table, n in counts[at].items():
                    self.frames[table] += n
                number += 1
        while any(reader.transport.get_write_buffer_size() for reader in readers):
            await asyncio.sleep(0.01)
        return late_s


async def send(symbols: int) -> None:
    """Be the child: say where it listens, send when told how much, say what was sent."""
    loop = asyncio.get_running_loop()
    sender = Sender(symbols)
    rest = Server(sender.market)
    await rest.start()
    server = await loop.create_server(lambda: Reader(sender), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    contracts = [row["symbol"] for row in sender.market.contracts(time.time_ns() // NS)]
    print(json.dumps({"rest": rest.rest_url, "ws": f"ws://127.0.0.1:{port}", "symbols": contracts}), flush=True)
    phases = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    late_s = await sender.send(phases)
    print(json.dumps({"sent": sender.frames, "late_s": late_s}), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    server.close()
    await rest.stop()


# ----------------------------------------------------------------------------------------------- the recorder


class Watch(Meter):
    """Follows the recorder from within: what it has, how late it was durable, how large it is."""

    def __init__(self) -> None:
        super().__init__()
        self.collector: Collector | None = None
        self.linked = asyncio.Event()
        self.rows: dict[str, int] = {}
        self.lags = np.zeros(100_000, np.int64)  # rows durable within so many tenths of a millisecond
        self.rss: list[tuple[int, float]] = []  # (rows so far, MB)
        self.own: list[tuple[int, float]] = []  # the same without pages of files

    def note(self, collector: Collector, n_aside: int, free_bytes: int, as_of_ns: int) -> None:
        super().note(collector, n_aside, free_bytes, as_of_ns)
        if self.collector is None:
            self.collector = collector
            write = collector.write

            def timed(ticks: Any, *args: Any, **options: Any) -> None:
                write(ticks, *args, **options)
                done_ns = time.time_ns()
                for rows in (ticks.books, ticks.trades, ticks.tickers):
                    late = (done_ns - rows.recv_ns[rows.event == TickEvent.DATA]) // 100_000
                    self.lags += np.bincount(late.clip(0, len(self.lags) - 1), minlength=len(self.lags))

            collector.write = timed  # type: ignore[method-assign]
        up, wanted = collector.n_links
        if up == wanted:
            self.linked.set()
        self.rows = dict(collector.log.rows)
        self.rss.append((sum(self.rows.values()), rss_mb("self")))
        self.own.append((sum(self.rows.values()), own_mb("self")))

    def lag_ms(self, share: float) -> float:
        """Return within how many milliseconds this share of the rows was durable."""
        return float(np.searchsorted(self.lags.cumsum(), share * self.lags.sum()) + 1) / 10


def rss_mb(pid: str) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / MB


def own_mb(pid: str) -> float:
    """Return the resident memory of a process without pages of files, MB."""
    resident, of_files = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    return (int(resident) - int(of_files)) * resource.getpagesize() / MB


async def record(args: argparse.Namespace, folder: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.sockets", "--send", "--symbols", str(args.symbols),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).resolve().parent.parent,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    where = json.loads(await child.stdout.readline())
    stop, watch = asyncio.Event(), Watch()
    recording = asyncio.create_task(
        collect(
            where["rest"], where["ws"], folder, "simulator-bench",
            stop=stop, symbols=where["symbols"], books=BookChannels("books15"), gauges=watch, progress=say,
        )
    )  # fmt: skip
    await asyncio.wait({recording, asyncio.create_task(watch.linked.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if recording.done():
        await recording
    phases = [(args.rate, args.seconds)]
    if args.burst:
        rate, seconds = map(float, args.burst.split(":"))
        phases = [(args.rate, args.seconds / 2), (rate, seconds), (args.rate, args.seconds / 2)]
    begin_rows = sum(watch.rows.values())
    began_s, used = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    child.stdin.write(json.dumps(phases).encode() + b"\n")
    told = asyncio.create_task(child.stdout.readline())
    while not told.done():
        await asyncio.wait({told, recording}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        if recording.done():
            await recording
        if not told.done():
            n_rows, rss = sum(watch.rows.values()) - begin_rows, watch.rss[-1][1]
            say(f"{n_rows:,} rows, RSS {rss:.1f} MB, own {watch.own[-1][1]:.1f}")
    sent = json.loads(told.result())
    expected = sum(sent["sent"].values())
    before = -1
    while sum(watch.rows.values()) - begin_rows < expected and before != sum(watch.rows.values()):
        before = sum(watch.rows.values())
        await asyncio.sleep(3.0)
    wall_s, now = time.monotonic() - began_s, resource.getrusage(resource.RUSAGE_SELF)
    frames_per_s = sum(rate * seconds for rate, seconds in phases) / sum(seconds for _, seconds in phases)
    cpu_s = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    collector = watch.collector
    assert collector is not None
    repeats = collector.buffer.repeats
    stop.set()
    child.stdin.close()
    done = await recording
    await child.wait()
    got = {}
    for table in ("book", "ticker", "trade"):
        rows = read.scan(folder, f"raw/{table}", done.source, is_sorted=False).filter(pl.col("event") == 0)
        got[table] = int(rows.select(pl.len()).collect().item())
    tenth, own = (
        next(mb for rows, mb in seen if rows - begin_rows >= expected / 10) for seen in (watch.rss, watch.own)
    )
    size = sum(seal.bytes for seal in done.seals)
    children_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    verdict = "none lost, none invented" if got == sent["sent"] else f"sent {sent['sent']}, found {got}"
    print(
        f"{expected:,} rows sent at {frames_per_s:,.0f} frames/s over {len(collector.sessions)} connections of "
        f"{len(where['symbols'])} symbols in {wall_s:.0f} s; in the lake {sum(got.values()):,} "
        f"({verdict}; {repeats} repeats)\n"
        f"core {cpu_s / wall_s:.2f}; durable p50 {watch.lag_ms(0.5):.0f} ms, p99 {watch.lag_ms(0.99):.0f} ms, "
        f"worst {watch.lag_ms(1.0):.0f} ms; late {sent['late_s'] * 1e3:.0f} ms\n"
        f"RSS {tenth:.1f} MB after a tenth, {watch.rss[-1][1]:.1f} MB at the end: {watch.rss[-1][1] - tenth:+.1f} MB, "
        f"highest {max(rss for _, rss in watch.rss):.1f} MB; own {own:.1f} -> {watch.own[-1][1]:.1f} MB: "
        f"{watch.own[-1][1] - own:+.1f}, highest {max(mb for _, mb in watch.own):.1f} MB; "
        f"largest child {children_mb:.0f} MB; {size / max(1, sum(got.values())):.0f} bytes a row sealed"
    )


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--symbols", type=int, default=800)
    p.add_argument("--rate", type=float, default=16_000.0, help="frames a second")
    p.add_argument("--seconds", type=float, default=60.0)
    p.add_argument("--burst", help="frames a second : seconds, in the middle")
    p.add_argument("--lake", type=Path, help="where to record (default: a temporary folder, removed at the end)")
    p.add_argument("--send", action="store_true", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.send:
        uvloop.run(send(args.symbols))
        return
    folder = args.lake or Path(tempfile.mkdtemp(prefix="sockets-"))
    allocator.give_back_large()  # as the service's `main` does
    try:
        uvloop.run(record(args, folder))
    finally:
        if args.lake is None:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
