"""How an arm has done over its last trades: win rate and Sharpe ratio, and how little is known of both.

    win rate     k of n, with the 95 % interval of Wilson (1927):
                 (k + z²/2 ± z √(k (n − k)/n + z²/4)) / (n + z²)
    Sharpe       mean / deviation of net bps, per trade, never annualised; its standard error by Mertens (2002), which
                 is Lo's (2002) for independent returns where skew is 0 and kurtosis 3:
                 √((1 − skew · SR + (kurtosis − 1)/4 · SR²) / n)

Trades of one decision move together, so that both intervals are on the narrow side.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from shared.types import Floats

Z_95: Final = 1.959963984540054


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One arm's last trades; None where a figure is not defined."""

    arm: str
    trades: int
    mean_bps: float
    win_rate: float  # share of trades that earned more than nothing after costs [1]
    win_rate_low: float
    win_rate_high: float
    sharpe: float | None  # per trade; None: fewer than three trades, or all the same
    sharpe_se: float | None

    @property
    def mean_se(self) -> float | None:
        """Return the standard error of the mean, in bps, as if trades were independent; None without a Sharpe."""
        return abs(self.mean_bps / self.sharpe) / math.sqrt(self.trades) if self.sharpe else None


def record_of(arm: str, net_bps: Floats) -> Record:
    """Return the record of at least one trade."""
    n = len(net_bps)
    assert n > 0, f"{arm} has no trade"
    wins = int((net_bps > 0.0).sum())
    low, high = wilson(wins, n)
    sharpe, error = sharpe_of(net_bps)
    return Record(
        arm=arm,
        trades=n,
        mean_bps=math.fsum(net_bps) / n,
        win_rate=wins / n,
        win_rate_low=low,
        win_rate_high=high,
        sharpe=sharpe,
        sharpe_se=error,
    )


def wilson(wins: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Return the interval of a share; it lies in [0, 1] and is never a point."""
    square = z * z
    middle = (wins + square / 2.0) / (n + square)
    half = z * math.sqrt(wins * (n - wins) / n + square / 4.0) / (n + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def sharpe_of(net_bps: Floats) -> tuple[float | None, float | None]:
    """Return the Sharpe ratio per trade and its standard error."""
    n = len(net_bps)
    if n < 3 or net_bps.min() == net_bps.max():
        return None, None
    mean = math.fsum(net_bps) / n
    apart = net_bps - mean
    square, cube, fourth = (math.fsum(apart**k) / n for k in (2, 3, 4))
    sharpe = mean / math.sqrt(square * n / (n - 1))
    skew, kurtosis = cube / (square * math.sqrt(square)), fourth / (square * square)
    spread = 1.0 - skew * sharpe + (kurtosis - 1.0) / 4.0 * sharpe * sharpe
    return sharpe, math.sqrt(max(spread, 0.0) / n)
