"""Volatility: how far the mid of a symbol moves over the horizon, from its last two minutes and nothing older.

    sigma_1s = sqrt(mean of squared one-second returns of the mid)      over the returns of `WINDOW_S` that exist
    sigma_h  = sigma_1s * sqrt(h)                                       independent returns; bps

Simple returns, no mean taken off (over two minutes it is noise). The sum is `math.fsum`, which has no order, and a
return lies where its second says: the value depends on the seconds of the window alone, not on when the engine began.
A second without a book has no return, and neither has the one after it.
"""

from __future__ import annotations

import math

import numpy as np

from shared.types import Floats

WINDOW_S = 120
RETURNS_MIN = 30
"""With fewer, nothing is said: the error of an estimate from 30 returns is 1 / sqrt(60) = 13 %."""


class Volatility:
    """Remembers the squared returns of a window, (WINDOW_S, N): all are written every second, few are asked for."""

    def __init__(self, n_symbols: int) -> None:
        self._squares = np.full((WINDOW_S, n_symbols), np.nan)
        self._mid = np.full(n_symbols, np.nan)
        self._second = -1

    def take(self, second: int, bid: Floats, ask: Floats) -> None:
        """Take the best prices of a second, (N,), NaN where there is no book; seconds that were left out have none."""
        if self._second >= 0:
            for missed in range(max(self._second + 1, second - WINDOW_S + 1), second):
                self._squares[missed % WINDOW_S] = np.nan
            if second > self._second + 1:
                self._mid = np.full_like(self._mid, np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            mid = (bid + ask) / 2.0
            moved = mid / self._mid - 1.0
            np.multiply(moved, moved, out=self._squares[second % WINDOW_S])
        self._mid, self._second = mid, second

    def bps(self, n: int, horizon_s: int) -> float | None:
        """Return one standard deviation of a symbol's move over the horizon; None: too few returns to say."""
        found = self._squares[:, n].tolist()
        total = math.fsum(found)
        if not math.isfinite(total):  # a second without a return; most symbols have none
            found = [square for square in found if math.isfinite(square)]
            total = math.fsum(found)
        if len(found) < RETURNS_MIN:
            return None
        return math.sqrt(total / len(found) * horizon_s) * 10_000.0
