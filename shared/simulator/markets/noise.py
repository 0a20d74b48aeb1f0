"""Noise that is keyed by time: the same numbers for the same second, whatever was asked before.

Every stream of the generated market has its own number here; (seed, number of symbols, stream, position) name an
independent stretch of a Philox generator, 2^64 draws apart.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from shared.simulator.markets.blocks import BLOCK_S, Floats

_PER_PAGE = 288

(
    VOLATILITY, HOUR_STEPS, BLOCK_STEPS, SHOCKS, BURSTS, BUSY, TIDE, SPREADS, SIZES, RESTS, DISTANCES, PRESSURE,
    TRADES, MARKS, BASIS, VOLUME,
) = range(16)  # fmt: skip


class Noise:
    """Keyed noise for `width` columns."""

    def __init__(self, seed: int, n_symbols: int) -> None:
        self._seed, self._n = seed, n_symbols
        self._pages: OrderedDict[tuple[int, int], Floats] = OrderedDict()

    def at(self, stream: int, position: int) -> np.random.Generator:
        """Return the generator of one stretch of a stream; position: any int from 0 on."""
        bits = np.random.Philox(key=[self._seed, self._n], counter=[0, position, stream, 0])
        return np.random.Generator(bits)

    def normal(self, stream: int, b: int, shape: tuple[int, ...], warm_up: int) -> Floats:
        """Return float32 standard normals of a block's seconds after the last `warm_up` of the block before.

        Args:
            shape: of one second; the result is (warm_up + BLOCK_S, *shape). A stream always has the same warm-up.
        """
        return np.concatenate(
            [part.standard_normal((t, *shape), np.float32) for t, part in self._parts(stream, b, warm_up)]
        )

    def uniform(self, stream: int, b: int, shape: tuple[int, ...], warm_up: int) -> Floats:
        """Return the same of uniform numbers in [0, 1)."""
        return np.concatenate([part.random((t, *shape), np.float32) for t, part in self._parts(stream, b, warm_up)])

    def _parts(self, stream: int, b: int, warm_up: int) -> list[tuple[int, np.random.Generator]]:
        # A block's last seconds have a stretch of their own, so that the next block need not draw all of it again.
        return [
            (warm_up, self.at(stream, 2 * b - 1)),
            (BLOCK_S - warm_up, self.at(stream, 2 * b)),
            (warm_up, self.at(stream, 2 * b + 1)),
        ]

    def knots(self, stream: int, first: int, end: int) -> Floats:
        """Return standard normal noise for knots [first, end), shape (end - first, N + 1); the last is the market's."""
        pages = []
        for page in range(first // _PER_PAGE, (end - 1) // _PER_PAGE + 1):
            noise = self._pages.get((stream, page))
            if noise is None:
                noise = self.at(stream, page).standard_normal((_PER_PAGE, self._n + 1))
                keep(self._pages, (stream, page), noise, 64)
            pages.append(noise)
        start = first - first // _PER_PAGE * _PER_PAGE
        return np.concatenate(pages)[start : start + end - first]

    def smooth(self, stream: int, first: int, end: int, weights: list[float]) -> Floats:
        """Return knots [first, end) of the moving average of keyed noise; `weights` from the newest back."""
        noise = self.knots(stream, first - len(weights) + 1, end)
        total = np.zeros((end - first, noise.shape[1]))
        for lag, weight in enumerate(weights):
            at = len(weights) - 1 - lag
            total += weight * noise[at : at + end - first]
        return total


def keep(cache: OrderedDict[Any, Any], key: Any, value: Any, bound: int) -> None:
    """Put a value into a cache of at most `bound` entries, forgetting the oldest."""
    cache[key] = value
    while len(cache) > bound:
        try:
            cache.popitem(last=False)
        except KeyError:  # another thread was faster
            return
