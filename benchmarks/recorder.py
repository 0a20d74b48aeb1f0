"""What a frame costs the recorder from text to disk: `python -m benchmarks.recorder [--symbols 800] [--books books]`.

Frames of a generated market are rendered beforehand, at Bitget's measured cadence (8 books15 and 9 tickers a second
and symbol, trades as they happen), then given to the recorder's own sessions, buffer and write-ahead log as its
service does: decoded as they come, appended and fsynced once a second of the market. CPU time of the whole process and
of the two parts; sockets not included (`benchmarks.pushes` has both ends of them). With `--books books` the generated
market tells a change of the book once a second and symbol, of about twenty levels: rows and bytes say what that is.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

from pipelines.collector import Collector
from shared.lake import write
from shared.settings import parse_books
from shared.simulator import desk
from shared.simulator.markets.market import NS, GeneratedMarket
from shared.simulator.pushes.feed import Cadence, PublicFeed
from shared.types import FULL_BOOKS

CADENCE = Cadence(book_ms=125, ticker_ms=125)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--symbols", type=int, default=800)
    p.add_argument("--seconds", type=int, default=20)
    p.add_argument("--books", default="books15", help="as the setting BOOKS")
    args = p.parse_args()
    market = GeneratedMarket(7, args.symbols)
    universe = desk.universe_of(market, 0)
    first = 1_790_000_100
    folder = Path(tempfile.mkdtemp(prefix="recorder-"))
    try:
        books = parse_books(args.books)
        collector = Collector(folder, universe, "bench", books=books)
        wanted: dict[str, set[str]] = {}
        for session in collector.sessions:
            for channel, symbol in session.channels:
                wanted.setdefault(channel, set()).add(symbol)
        conn_of = {symbol: n for n, s in enumerate(collector.sessions) for symbol in s._axis}
        feed = PublicFeed(market, CADENCE)
        for session in collector.sessions:
            session.connected(first * NS)
            for channel, symbol in session.channels:
                session.received(
                    f'{{"event":"subscribe","arg":{{"instType":"USDT-FUTURES","channel":"{channel}","instId":"{symbol}"}}}}',
                    first * NS,
                )
                if channel == FULL_BOOKS and (snapshot := feed.snapshot(first * NS, channel, symbol)) is not None:
                    session.received(snapshot, first * NS)
        decode_s = write_s = 0.0
        n = n_bytes = 0
        for second in range(first, first + args.seconds):
            frames = [(t, conn_of[s], text) for t, _, s, text in feed.frames(second * NS, (second + 1) * NS, wanted)]
            sessions = collector.sessions
            began_s = time.process_time()
            for t, conn, text in frames:
                sessions[conn].received(text, t)
            decoded_s = time.process_time()
            ticks = collector.buffer.take()
            collector.write(ticks, (second + 1) * NS - 1)
            written_s = time.process_time()
            decode_s += decoded_s - began_s
            write_s += written_s - decoded_s
            n += len(frames)
            n_bytes += sum(len(text) for _, _, text in frames)
        rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # sealing is another process's
        rows = collector.log.rows
        logged = {path.stem: path.stat().st_size for path in folder.rglob("*.arrow")}
        collector.log.close()
        sealed = {table: file for seal in write.seal_all(folder, market.source) for table, file in seal.files.items()}
    finally:
        shutil.rmtree(folder)
    assert n, wanted
    print(
        f"{n / args.seconds:,.0f} frames a second of market, {n_bytes / args.seconds / 1e6:.1f} MB/s: "
        f"{decode_s / n * 1e6:.2f} us a frame to decode + {write_s / n * 1e6:.2f} us to make durable = "
        f"{(decode_s + write_s) / args.seconds:.2f} of a core; peak RSS {rss_mb:.0f} MB"
    )
    for table, file in sealed.items():
        leaf = table.removeprefix("raw/")
        print(
            f"{table:10} {rows[table] / args.seconds:9,.0f} rows a second of market, {logged[leaf] / rows[table]:6.1f} "
            f"bytes a row in the log, {file.bytes / file.rows:6.1f} sealed"
        )


if __name__ == "__main__":
    main()
