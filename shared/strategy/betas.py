"""Betas: how much of the market's move each symbol takes, from the seconds that the engine itself has seen.

Least squares of 5 s returns of the mid on their mean over all symbols, over the last 300 s, then two thirds of it and
one third of 1 (Blume 1975: estimates regress to one), between 0 and 3. Where less than a minute is known beta is 1.

Why 5 s: over one second most alts have not yet moved with the leaders (Epps 1979), and beta would be too small. Sums
are kept by blocks of 25 s and added anew when a block is full: nothing runs on for ever, so nothing drifts, and what
happened more than 325 s ago is forgotten. Returns are added up as integers: no order of symbols changes a bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared.types import Floats

STEP_S = 5
BLOCK_STEPS = 5
BLOCKS = 12
STEPS_MIN = 12
BETA_MAX = 3.0
_MOVE_MAX = 1.0  # a move of more than 100 % in 5 s is a broken price
_SCALE = 2.0**40  # 800 symbols x _MOVE_MAX x this stay far below 2^63


class Betas:
    """Fed every second, right at any time."""

    def __init__(self, n_symbols: int) -> None:
        self.hundredths: NDArray[np.int64] = np.full(n_symbols, 100)
        """(N,) beta x 100, whole: what it weighs in money is then exact."""
        self._mid = np.full(n_symbols, np.nan)
        self._blocks = np.zeros((BLOCKS, 3, n_symbols))  # sums of (move x market, market², 1)
        self._block = np.zeros((3, n_symbols))
        self._n_steps = 0

    def take(self, second: int, bid: Floats, ask: Floats) -> None:
        """Learn from a second's touch, (N,) each, NaN where there is no book."""
        if second % STEP_S:
            return
        mid = (bid + ask) * 0.5
        with np.errstate(invalid="ignore", divide="ignore"):
            move = mid / self._mid - 1.0
        self._mid = mid
        is_known = np.isfinite(move)
        n_known = int(np.count_nonzero(is_known))
        if n_known < 2:
            return
        move = np.where(is_known, move, 0.0).clip(-_MOVE_MAX, _MOVE_MAX)
        market = int(np.rint(move * _SCALE).astype(np.int64).sum()) / _SCALE / n_known
        self._block[0] += move * market
        self._block[1] += is_known * (market * market)
        self._block[2] += is_known
        self._n_steps += 1
        if self._n_steps % BLOCK_STEPS == 0:
            self._blocks[self._n_steps // BLOCK_STEPS % BLOCKS] = self._block
            self._block[:] = 0.0
            self._estimate()

    def _estimate(self) -> None:
        total = self._blocks[0].copy()
        for block in self._blocks[1:]:
            total += block
        together, alone, steps = total
        is_known = (steps >= STEPS_MIN) & (alone > 0.0)
        beta = np.where(is_known, together / np.where(is_known, alone, 1.0), 1.0)
        beta = ((2.0 * beta + 1.0) / 3.0).clip(0.0, BETA_MAX)
        self.hundredths = np.rint(beta * 100.0).astype(np.int64)
