"""A made market of full books: what an exchange sends on `books`, and an oracle that keeps plain dictionaries."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from tests.shared.bitget.payloads import compact

Side = dict[float, float]


class Sent(msgspec.Struct, frozen=True):
    """One push, and the whole book after it as the exchange knows it."""

    symbol: str
    text: str
    is_snapshot: bool
    seq: int
    asks: Side
    bids: Side


class Exchange:
    """Full books of some symbols: `update` changes one, `snapshot` tells one whole, as a new subscriber gets it."""

    def __init__(self, seed: int, symbols: tuple[str, ...], n_levels: int = 17) -> None:
        self._draw = random.Random(seed)
        self._n_levels = n_levels
        self._asks: dict[str, Side] = {}
        self._bids: dict[str, Side] = {}
        self._seq: dict[str, int] = {}
        self._mid: dict[str, int] = {}
        self._ts = 1_790_000_000_000
        for n, symbol in enumerate(symbols):
            self._mid[symbol], self._seq[symbol] = 1000 + 100 * n, 10**12 + n
            self._asks[symbol] = {self._mid[symbol] + k: self._size() for k in range(1, n_levels + 1)}
            self._bids[symbol] = {self._mid[symbol] - k: self._size() for k in range(1, n_levels + 1)}

    def snapshot(self, symbol: str) -> Sent:
        return self._sent(symbol, self._asks[symbol], self._bids[symbol], is_snapshot=True, pseq=0)

    def update(self, symbol: str) -> Sent:
        """Move the middle or not, change some levels, now and then none, and delete what is crossed or far away."""
        draw, before = self._draw, self._seq[symbol]
        self._seq[symbol] += draw.randrange(1, 2000)
        mid = self._mid[symbol] = self._mid[symbol] + draw.choice((-2, -1, 0, 0, 0, 1, 2))
        told: tuple[Side, Side] = ({}, {})
        for side, changed, sign in ((self._asks[symbol], told[0], 1), (self._bids[symbol], told[1], -1)):
            for price in [p for p in side if not 0 < (p - mid) * sign <= 2 * self._n_levels]:
                changed[price] = 0.0
                del side[price]
            for _ in range(draw.choice((0, 1, 2, 5))):
                price = mid + sign * draw.randrange(1, self._n_levels + 1)
                size = draw.choice((0.0, self._size()))
                if size:
                    side[price] = size
                elif side.pop(price, None) is None:
                    continue
                changed[price] = size
        return self._sent(symbol, *told, is_snapshot=False, pseq=before)

    def _size(self) -> float:
        return self._draw.randrange(1, 10**6) / 1000

    def _sent(self, symbol: str, asks: Side, bids: Side, *, is_snapshot: bool, pseq: int) -> Sent:
        self._ts += 100
        rows: dict[str, Any] = {
            name: [[str(p / 10), str(s)] for p, s in sorted(side.items(), reverse=name == "bids")]
            for name, side in (("asks", asks), ("bids", bids))
        }
        rows |= {"ts": str(self._ts), "seq": self._seq[symbol], "pseq": pseq}
        text = compact(
            {
                "action": "snapshot" if is_snapshot else "update",
                "arg": {"instType": "USDT-FUTURES", "channel": "books", "instId": symbol},
                "data": [rows],
                "ts": self._ts + 1,
            }
        )
        whole = (
            {float(str(price / 10)): size for price, size in side.items()}
            for side in (self._asks[symbol], self._bids[symbol])
        )
        return Sent(symbol, text, is_snapshot, self._seq[symbol], *whole)
