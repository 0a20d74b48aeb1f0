"""Does the recorder grow? `python -m benchmarks.memory [--frames 1e8]`: its RSS over that many frames, without sockets.

Frames of a generated market (ticker, books15 and trade of 800 symbols at Bitget's measured cadence, as
`benchmarks.sockets` renders them) go through the recorder's own sessions, buffer and write-ahead log, as fast as they
are taken, with pings answered and a flush for every second of the market. Hours that are over are sealed by another
process; here their logs are removed. Ten million frames are ten minutes of market.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.sockets import CADENCE, CHANNELS, FIRST_S, LOOP_S, Block, rss_mb
from pipelines.collector import Collector
from shared.lake import layout
from shared.simulator import desk
from shared.simulator.markets.market import NS, GeneratedMarket
from shared.simulator.pushes.feed import PublicFeed
from shared.types import BookChannels


class Second:
    """The frames of one second of market: their bytes, where each ends, and whose each is."""

    def __init__(self, frames: list[tuple[str, str]], conn_of: dict[str, int]) -> None:
        texts = [text.encode() for _, text in frames]
        self.block = Block(texts)
        self.conns = [conn_of[symbol] for symbol, _ in frames]
        self.ends: list[int] = []
        for text in texts:
            self.ends.append((self.ends[-1] if self.ends else 0) + len(text))

    def give(self, collector: Collector, later_ms: int, start_ns: int) -> None:
        """Let the sessions receive these frames, evenly over the second from `start_ns` on."""
        data, begin, step_ns = self.block.at(later_ms), 0, NS // (len(self.ends) + 1)
        for n, (end, conn) in enumerate(zip(self.ends, self.conns, strict=True)):
            collector.sessions[conn].received(data[begin:end].decode(), start_ns + n * step_ns)
            begin = end


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--symbols", type=int, default=800)
    p.add_argument("--frames", type=float, default=1e8)
    args = p.parse_args()
    market = GeneratedMarket(7, args.symbols)
    folder = Path(tempfile.mkdtemp(prefix="memory-"))
    try:
        collector = Collector(folder, desk.universe_of(market, 0), "bench", books=BookChannels("books15"))
        follow(collector, market, int(args.frames))
    finally:
        shutil.rmtree(folder)


def follow(collector: Collector, market: GeneratedMarket, n_frames: int) -> None:
    conn_of = {symbol: n for n, session in enumerate(collector.sessions) for _, symbol in session.channels}
    for session in collector.sessions:
        session.connected(FIRST_S * NS)
        for channel, symbol in session.channels:
            arg = f'{{"instType":"USDT-FUTURES","channel":"{channel}","instId":"{symbol}"}}'
            session.received(f'{{"event":"subscribe","arg":{arg}}}', FIRST_S * NS)
    wanted = dict.fromkeys(CHANNELS, frozenset(conn_of))
    feed = PublicFeed(market, CADENCE)
    loop = []
    for begin_s in range(FIRST_S, FIRST_S + LOOP_S):
        frames = [(symbol, text) for _, _, symbol, text in feed.frames(begin_s * NS, (begin_s + 1) * NS, wanted)]
        loop.append(Second(frames, conn_of))
    given = number = 0
    told = [(0, 0.0)]
    began_s = time.process_time()
    while given < n_frames:
        second = loop[number % LOOP_S]
        now_ns = (FIRST_S + 1 + number) * NS
        second.give(collector, number // LOOP_S * LOOP_S * 1000, now_ns)
        for session in collector.sessions:
            if "ping" in session.tick(now_ns + NS - 2):
                session.received("pong", now_ns + NS - 2)
            assert not session.is_dead, session.dead_because
        collector.write(collector.buffer.take(), now_ns + NS - 1)
        collector.take_notes()
        given, number = given + len(second.ends), number + 1
        for hour in collector.log.hours[:-1]:
            shutil.rmtree(layout.log_folder(collector.log.root, market.source, hour), ignore_errors=True)
        if given >= told[-1][0] + n_frames / 20:
            told.append((given, rss_mb("self")))
            us = (time.process_time() - began_s) / given * 1e6
            print(f"{given:>13,} frames, RSS {told[-1][1]:.1f} MB, {us:.1f} us a frame", flush=True)
    warm = next(rss for frames, rss in told if frames >= n_frames / 10)
    print(
        f"RSS {warm:.1f} MB after a tenth of {given:,} frames, {told[-1][1]:.1f} MB at the end: "
        f"{told[-1][1] - warm:+.1f} MB; highest {max(rss for _, rss in told):.1f} MB; "
        f"{collector.buffer.repeats} repeats"
    )


if __name__ == "__main__":
    main()
