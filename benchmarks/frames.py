"""What a frame costs from text to columns: `python -m benchmarks.frames`.

One process, CPU time, best of ten rounds; sockets not included (aiohttp adds about 2 us a message). The changes of
`books` follow one another as Bitget's do: ten levels each in a book of 400 a side, kept as rows of depth and, best
levels after each, as a row of book.
"""

from __future__ import annotations

import json
import random
import time

from shared.bitget.session import PublicSession
from shared.bitget.ticks import TickBuffer
from shared.types import FULL_BOOKS

ROUND = 2_000


def frames() -> dict[str, str]:
    """Return one frame of each kind, compact, as long as Bitget's."""
    draw = random.Random(1)

    def push(channel: str, row: object, action: str = "snapshot") -> str:
        arg = {"instType": "USDT-FUTURES", "channel": channel, "instId": "BTCUSDT"}
        payload = {"action": action, "arg": arg, "data": row if isinstance(row, list) else [row], "ts": 1760000000125}
        return json.dumps(payload, separators=(",", ":"))

    side = {
        name: [[f"{60000 + sign * i / 10:.1f}", f"{draw.random():.4f}"] for i in range(15)]
        for name, sign in (("asks", 1), ("bids", -1))
    }
    book = side | {"ts": "1760000000123", "seq": 1234567890123, "pseq": 0}
    trades = [
        {
            "ts": "1760000000020",
            "price": "60000.3",
            "size": "0.01",
            "side": "buy",
            "tradeId": str(1360000000000000004 - i),
        }
        for i in range(2)
    ]
    names = (
        "lastPr bidPr askPr bidSz askSz open24h high24h low24h change24h fundingRate markPrice indexPrice holdingAmount"
        " baseVolume quoteVolume openUtc"
    )
    ticker = {"instId": "BTCUSDT"} | {name: f"{draw.random() * 60000:.4f}" for name in names.split()}
    ticker |= {"nextFundingTime": "1760012800000", "symbolType": "1", "symbol": "BTCUSDT", "ts": "1760000000300"}
    return {
        "books15": push("books15", book),
        "trade, 2 rows": push("trade", trades, "update"),
        "ticker": push("ticker", ticker),
        "ticker with blanks": push("ticker", ticker | {"markPrice": "", "indexPrice": ""}),
        "books15 with an unknown field": push("books15", book | {"rpi": "no"}),
    }


def changes(n: int) -> list[str]:
    """Return a snapshot of a full book and `n` changes that follow it, of ten levels each."""
    draw = random.Random(1)

    def push(action: str, asks: list[int], bids: list[int], seq: int, pseq: int) -> str:
        sides = {
            name: [[f"{60000 + k / 10:.1f}", f"{draw.randrange(1, 10**4) / 1e4:.4f}"] for k in levels]
            for name, levels in (("asks", asks), ("bids", bids))
        }
        arg = {"instType": "USDT-FUTURES", "channel": FULL_BOOKS, "instId": "BTCUSDT"}
        row = sides | {"ts": str(1760000000123 + seq), "seq": 1234567890123 + seq, "pseq": pseq}
        payload = {"action": action, "arg": arg, "data": [row], "ts": 1760000000125 + seq}
        return json.dumps(payload, separators=(",", ":"))

    frames = [push("snapshot", list(range(1, 401)), list(range(0, -400, -1)), 0, 0)]
    for i in range(1, n + 1):
        asks = sorted({1 + int(draw.expovariate(0.05)) for _ in range(5)})
        bids = sorted({-int(draw.expovariate(0.05)) for _ in range(5)}, reverse=True)
        frames.append(push("update", asks, bids, i, 1234567890123 + i - 1))
    return frames


def main() -> None:
    buffer = TickBuffer(("BTCUSDT",))
    session = PublicSession(("BTCUSDT",), conn=0, buffer=buffer)
    for name, text in frames().items():
        best_us = take_us = float("inf")
        for _ in range(10):
            began_s = time.process_time()
            for _ in range(ROUND):
                session.received(text, 1)
            best_us = min(best_us, (time.process_time() - began_s) / ROUND * 1e6)
            began_s = time.process_time()
            buffer.take()
            take_us = min(take_us, (time.process_time() - began_s) / ROUND * 1e6)
        print(f"{name:32} {len(text):4} bytes  {best_us:6.2f} us a frame + {take_us:.2f} us to take it")
    full_books()


def full_books() -> None:
    """Say what a change of a full book costs, and how many rows it is."""
    frames = changes(ROUND)
    best_us = take_us = float("inf")
    rows = 0
    for _ in range(10):
        buffer = TickBuffer(("BTCUSDT",), has_depth=True)
        session = PublicSession(("BTCUSDT",), (FULL_BOOKS,), conn=0, buffer=buffer)
        session.connected(1)
        session.received(frames[0], 1)
        buffer.take()
        began_s = time.process_time()
        for text in frames[1:]:
            session.received(text, 1)
        best_us = min(best_us, (time.process_time() - began_s) / ROUND * 1e6)
        began_s = time.process_time()
        depth = buffer.take().depth
        take_us = min(take_us, (time.process_time() - began_s) / ROUND * 1e6)
        assert depth is not None
        rows = len(depth.recv_ns)
    n_bytes = sum(map(len, frames[1:])) / ROUND
    print(
        f"{'books, a change':32} {n_bytes:4.0f} bytes  {best_us:6.2f} us a frame + {take_us:.2f} us to take it, "
        f"{rows / ROUND:.1f} rows of depth and one of book"
    )


if __name__ == "__main__":
    main()
