"""The last second, as the engine reads it: quotes and marks in Decimal, spread, depth, freshness as arrays over N."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from shared import costs
from shared.features.sampler import COLUMNS
from shared.strategy.exact import EXACT, decimal_of, nearest_to
from shared.strategy.portfolio import Quote
from shared.strategy.volatility import Volatility
from shared.types import Floats, Universe

_AT = {name: c for c, name in enumerate(COLUMNS)}
_MARK = _AT["mark"]
_NEVER = -(1 << 62)


class Market:
    """Remembers one second, the volatility of two minutes, and since when each symbol has been silent."""

    def __init__(self, universe: Universe) -> None:
        self._ticks = tuple(contract.tick for contract in universe.contracts)
        # A third of the time of nearest_to, where a tick is 1, 0.1, 0.01 …: nearly everywhere.
        self._is_unit_tick = tuple(tick.normalize().as_tuple().digits == (1,) for tick in self._ticks)
        self._shape = (len(COLUMNS), len(universe.contracts))
        self.block: Floats | None = None  # (C, N); None before the first second
        self._heard_second = np.full(len(universe.contracts), _NEVER, np.int64)  # book or ticker
        self._volatility = Volatility(len(universe.contracts))
        self._quotes: dict[int, Quote | None] = {}  # of this second, as far as anybody asked
        self._marks: dict[int, Decimal | None] = {}  # likewise

    def take(self, second: int, block: Floats) -> None:
        """Replace the last second."""
        assert block.shape == self._shape, f"a second is {self._shape}, found {block.shape}"
        self.block = block
        self._quotes.clear()
        self._marks.clear()
        is_heard = (block[_AT["book_updates"]] > 0) | (block[_AT["ticker_updates"]] > 0)
        np.copyto(self._heard_second, second, where=is_heard)
        self._volatility.take(second, block[_AT["bid_price_1"]], block[_AT["ask_price_1"]])

    def rows(self) -> dict[str, Floats]:
        """Return the second as a block of one row per column, as features and scorers take it."""
        assert self.block is not None, "no second has been taken"
        return {name: self.block[c : c + 1] for name, c in _AT.items()}

    def column(self, name: str) -> Floats:
        assert self.block is not None, "no second has been taken"
        row: Floats = self.block[_AT[name]]
        return row

    def value(self, name: str, n: int) -> float:
        assert self.block is not None, "no second has been taken"
        return self.block.item(_AT[name], n)

    def silence_s(self, n: int, second: int) -> int:
        """Return for how long neither book nor ticker of a symbol was heard, seconds."""
        return second - self._heard_second.item(n)

    def is_stale(self, second: int, longest_s: int) -> NDArray[np.bool_]:
        """Say of which symbols neither book nor ticker was heard for longer than this, (N,)."""
        stale: NDArray[np.bool_] = self._heard_second < second - longest_s
        return stale

    def spread_bps(self) -> Floats:
        """Return the quoted spread of every symbol, NaN where there is no book."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return costs.spread_bps(self.column("bid_price_1"), self.column("ask_price_1"))

    def depth_usdt(self) -> Floats:
        """Return the visible notional within 10 bps of the mid on the thinner side, NaN where there is no book."""
        return np.minimum(self.column("bid_depth_10bps_usdt"), self.column("ask_depth_10bps_usdt"))

    def volatility_bps(self, n: int, horizon_s: int) -> float | None:
        """Return one deviation of a symbol's mid over the horizon; None: too little has been seen."""
        return self._volatility.bps(n, horizon_s)

    def quote(self, n: int | None) -> Quote | None:
        """Return mid and half spread in whole ticks; None for an unlisted symbol and where there is no book."""
        if n is None or self.block is None:
            return None
        if n not in self._quotes:
            self._quotes[n] = self._read_quote(n)
        return self._quotes[n]

    def _read_quote(self, n: int) -> Quote | None:
        bid, ask = self.value("bid_price_1", n), self.value("ask_price_1", n)
        if not (math.isfinite(bid) and math.isfinite(ask)):
            return None
        tick, to_tick = self._ticks[n], EXACT.quantize if self._is_unit_tick[n] else nearest_to
        best_bid, best_ask = to_tick(decimal_of(bid), tick), to_tick(decimal_of(ask), tick)
        return Quote(mid=(best_bid + best_ask) / 2, half_spread=(best_ask - best_bid) / 2)

    def mark(self, n: int | None) -> Decimal | None:
        """Return the mark price, the mid where the exchange sends no mark, None where there is neither."""
        if n is None or self.block is None:
            return None
        if n in self._marks:
            return self._marks[n]
        mark, found = self.block.item(_MARK, n), None
        if math.isfinite(mark):
            found = decimal_of(mark)
        elif (quote := self.quote(n)) is not None:
            found = quote.mid
        self._marks[n] = found
        return found
