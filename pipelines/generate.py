"""`python -m pipelines.generate`: history of a simulated market, ending now, as if it had been recorded.

The market's pushes are rendered as Bitget's JSON, once a second and symbol, and received by the collector that
records the real feed: subscribe frames are answered, acks open links, every frame is decoded. Only the socket and
the clock are virtual. The virtual connection is made a few seconds early, so that every channel is linked, and every
stamp settled, when the history begins: two histories that overlap agree in every row of the overlap.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pipelines.collector import Collector
from pipelines.universe import tickers_frame
from shared import entry, settings
from shared.bitget import wire
from shared.bitget.session import PublicSession
from shared.bitget.transport import ReceiveClock
from shared.errors import CrosscutError, SettingsError
from shared.lake import layout, write
from shared.simulator.markets import generated
from shared.simulator.markets.market import Market
from shared.simulator.markets.recorded import RecordedMarket
from shared.simulator.pushes.feed import HISTORY, Cadence, PublicFeed
from shared.types import BOOKS5, NS, BookChannels, Universe

EARLY_S = 30
"""How long before the history the virtual connection is made. A thousand symbols need 3 s for their subscriptions;
30 s also let every channel of the sampler's memory fill."""

HOURS_MAX = 24 * 365

_WRITE_S = 30  # virtual seconds between two batches of the log: 40 symbols are 2,400 book rows in it
_FLUSH_S = 600  # virtual; what a killed run loses it can generate again
_REPORT_S = 5.0

_CALM_NS = 10_000_000
"""Pings and acks come this long before a second begins, where no market pushes anything (the feed's offsets end at
0.95 s): so they move no push by a nanosecond, and stamps do not depend on when the connection was made."""


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """What a run wrote."""

    source: str
    start_s: int
    end_s: int
    symbols: int
    rows: dict[str, int]  # raw table -> rows received in this run
    frames: int
    seals: tuple[write.SealReport, ...]
    took_s: dict[str, float]  # market and rendering, decoding, log, seal


class VirtualSocket:
    """The server's end of a public socket: acks, snapshots and pongs, and which pushes it would send."""

    def __init__(self, feed: PublicFeed, session: PublicSession) -> None:
        self._feed, self.session = feed, session
        self.topics: set[tuple[str, str]] = set()

    def answers(self, text: str, now_ns: int) -> list[str]:
        """Return the frames that answer one frame of the client."""
        if text == "ping":
            return ["pong"]
        request = msgspec.json.decode(text)
        frames = []
        for arg in request["args"]:
            topic = (arg["channel"], arg["instId"])
            frames.append(msgspec.json.encode({"event": request["op"], "arg": arg}).decode())
            if request["op"] == "unsubscribe":  # a full book whose chain the market itself has broken
                self.topics.discard(topic)
                continue
            snapshot = self._feed.snapshot(now_ns, *topic)
            if snapshot is not None:
                frames.append(snapshot)
            self.topics.add(topic)
        return frames


class Playback:
    """A market told to a collector second by second, over virtual sockets, by a virtual clock."""

    def __init__(self, feed: PublicFeed, collector: Collector) -> None:
        self.frames = 0
        self.took_s = {"market": 0.0, "decode": 0.0}
        self._feed = feed
        self._now_ns = 0
        self._clock = ReceiveClock(lambda: self._now_ns)
        self._sockets = [VirtualSocket(feed, session) for session in collector.sessions]
        self.is_linked = False
        self._by_symbol = {symbol: socket for socket in self._sockets for _, symbol in socket.session.channels}
        self._wanted: dict[str, set[str]] = {}  # channel -> symbols
        for socket in self._sockets:
            for channel, symbol in socket.session.channels:
                self._wanted.setdefault(channel, set()).add(symbol)

    def connect(self, second: int) -> None:
        self._now_ns = second * NS - _CALM_NS
        for socket in self._sockets:
            self._serve(socket, socket.session.connected(self._clock()))

    def tell(self, second: int) -> None:
        """Deliver what the market pushes in a second."""
        began_s = time.perf_counter()
        pushes = list(self._feed.frames(second * NS, (second + 1) * NS, self._wanted))
        rendered_s = time.perf_counter()
        self._now_ns = second * NS - _CALM_NS
        for socket in self._sockets:
            self._serve(socket, socket.session.tick(self._clock()))
        # A virtual link that is up stays up.
        self.is_linked = is_linked = self.is_linked or all(socket.session.is_linked for socket in self._sockets)
        by_symbol, clock = self._by_symbol, self._clock
        for self._now_ns, channel, symbol, text in pushes:
            socket = by_symbol[symbol]
            if is_linked or (channel, symbol) in socket.topics:
                socket.session.received(text, clock())
        self.frames += len(pushes)
        self.took_s["market"] += rendered_s - began_s
        self.took_s["decode"] += time.perf_counter() - rendered_s

    def _serve(self, socket: VirtualSocket, requests: list[str]) -> None:
        for request in requests:
            for answer in socket.answers(request, self._now_ns):
                socket.session.received(answer, self._clock())


def generate(
    market: Market,
    lake: Path,
    start_s: int,
    end_s: int,
    progress: Callable[[str], None] = lambda line: None,
    books: BookChannels = BOOKS5,
    cadence: Cadence = HISTORY,
) -> Generated:
    """Write the history [start_s, end_s) of a market into the lake, sealed.

    Args:
        books: the book channel of each symbol.
        cadence: how often the same second is told; at `BITGET` a lake is as dense as a recorder's (7 times the rows).

    Raises:
        LakeError: the disk refuses, or another process writes the same history.
        SettingsError: a symbol with a book channel of its own is not listed.
    """
    write.seal_all(lake, market.source)  # what a run that was killed left behind
    feed = PublicFeed(market, cadence)
    universe = discover_virtually(market, feed, lake, start_s, end_s)
    collector = Collector(lake, universe, f"generate-{start_s}-{end_s}", from_ns=start_s * NS, books=books)
    playback = Playback(feed, collector)
    log_s, began_s = 0.0, time.perf_counter()
    reported_s = began_s

    playback.connect(start_s - EARLY_S)
    for second in range(start_s - EARLY_S, end_s):
        assert playback.is_linked or second < start_s, "channels must be linked when the history begins"
        playback.tell(second)
        done_s = second + 1 - start_s
        if done_s % _WRITE_S and second + 1 < end_s:
            continue
        mark_s = time.perf_counter()
        collector.write(collector.buffer.take(), (second + 1) * NS - 1, is_durable=done_s % _FLUSH_S == 0)
        log_s += (now_s := time.perf_counter()) - mark_s
        if now_s - reported_s >= _REPORT_S:
            reported_s = now_s
            rows, of_h = sum(collector.log.rows.values()), (end_s - start_s) / layout.HOUR_S
            progress(
                f"generated {done_s / layout.HOUR_S:.2f} of {of_h:.2f} h: {rows:,} rows in {now_s - began_s:.0f} s"
            )
    mark_s = time.perf_counter()
    collector.log.close(end_s * NS)
    log_s += (now_s := time.perf_counter()) - mark_s
    seals = []
    for hour in write.unsealed(lake, market.source):
        seals.append(write.seal(lake, market.source, hour))
        progress(f"sealed {layout.hour_name(hour)}: {seals[-1].rows:,} rows, {seals[-1].bytes / 1e6:.1f} MB")
    took = playback.took_s | {"log": log_s, "seal": time.perf_counter() - now_s}
    return Generated(
        source=market.source,
        start_s=start_s,
        end_s=end_s,
        symbols=len(universe.contracts),
        rows=dict(collector.log.rows),
        frames=playback.frames,
        seals=tuple(seals),
        took_s={name: round(seconds, 2) for name, seconds in took.items()},
    )


def discover_virtually(market: Market, feed: PublicFeed, lake: Path, start_s: int, end_s: int) -> Universe:
    """Write what is listed at the start and at every full hour; return the axis of the whole history: all of them."""
    hours = layout.hours_between(start_s, end_s, NS)
    found: dict[str, wire.ContractRow] = {}
    for second in sorted({start_s, *(hour * layout.HOUR_S for hour in hours if hour * layout.HOUR_S > start_s)}):
        rows, _ = wire.parse_rows(market.contracts(second), wire.ContractRow, "contracts of the simulated market")
        found |= {row.symbol: row for row in rows if row.symbol not in found}
        tickers = [feed.ticker_fields(second * NS, symbol) for symbol in market.symbols]
        known, _ = wire.parse_rows([row for row in tickers if row], wire.TickerRow, "tickers of the simulated market")
        write.write_universe(lake, wire.universe(rows, market.source, second * NS), tickers_frame(known))
    return wire.universe(list(found.values()), market.source, start_s * NS)


# ------------------------------------------------------------------------------------------------ command line


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m pipelines.generate",
        description="Write history of a simulated market into the lake, as if it had been recorded from Bitget: "
        "the market's pushes go through the decoder and the writer that real sockets use. Progress goes to stderr, "
        "the last line on stdout is a JSON summary. Writing the same history twice changes nothing.",
    )
    p.add_argument("--hours", type=float, default=2.0, help="length of the history (default: 2)")
    generated.add_arguments(p)
    p.add_argument(
        "--recording",
        type=Path,
        help="a folder of recorded books, replayed in place of a generated market; "
        "its history ends at --end and takes the place of an earlier replay",
    )
    p.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    p.add_argument("--books", help="book channel of all symbols, and of some of them another (default: BOOKS)")
    p.add_argument("--end", default="now", help="when the history ends: now, or epoch ns (default: now)")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        config = settings.load(lake_uri=args.lake, books=args.books)
        lake = config.lake
        end_s = _end_s(args.end)
        if not 0 < args.hours <= HOURS_MAX:
            raise SettingsError(f"--hours must be above 0 and at most {HOURS_MAX}, found {args.hours:g}")
        start_s = end_s - max(1, round(args.hours * layout.HOUR_S))
        market: Market
        if args.recording is None:
            market = generated.from_arguments(args)
        else:
            market = recording = RecordedMarket(args.recording, end_s * NS)
            start_s = max(start_s, recording.first_second)  # a recording is as long as it is
        done = generate(market, lake, start_s, end_s, _say, config.books)
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        _say("stopped: run the same command again to seal what was written and to complete it")
        return 130
    print(json.dumps(summary(done, market, lake), ensure_ascii=False))
    return 0


def summary(done: Generated, market: Market, lake: Path) -> dict[str, Any]:
    """Return what a program that calls us wants to know."""
    tables = {
        table: {
            "rows": sum(seal.files[table].rows for seal in done.seals if table in seal.files),
            "bytes": sum(seal.files[table].bytes for seal in done.seals if table in seal.files),
        }
        for table in done.rows
    }
    return {
        "command": "generate",
        "source": done.source,
        "market": market.kind,
        "note": market.note,
        "lake": str(lake),
        "start_s": done.start_s,
        "end_s": done.end_s,
        "hours": [layout.hour_name(seal.hour) for seal in done.seals],
        "symbols": done.symbols,
        "frames": done.frames,
        "rows": done.rows,
        "sealed": tables,
        "bytes_per_row": {name: round(t["bytes"] / max(1, t["rows"]), 1) for name, t in tables.items()},
        "took_s": done.took_s,
    }


def _end_s(text: str) -> int:
    if text == "now":
        return time.time_ns() // NS
    if not text.isdigit() or not 10**18 <= int(text) < 2**63:
        raise SettingsError(f"--end must be now or a time in epoch ns (19 digits), found {text!r}")
    return int(text) // NS


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    entry.run(main)
