"""What a frame costs from text to columns: `python -m benchmarks.frames`.

One process, CPU time, best of ten rounds; sockets not included (aiohttp adds about 2 us a message).
"""

from __future__ import annotations

import json
import random
import time

from shared.bitget.session import PublicSession
from shared.bitget.ticks import TickBuffer

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


if __name__ == "__main__":
    main()
