"""Pricing: what a round trip costs in each symbol now, in the configured kind of entry."""

from __future__ import annotations

import numpy as np

from shared.strategy.config import EngineConfig
from shared.types import Floats, OrderKind, Universe


class Pricing:
    """What a round trip costs in each symbol, in the configured kind of entry: fees and slippage, and the spread."""

    def __init__(self, config: EngineConfig, universe: Universe) -> None:
        self._fixed_bps = np.array(
            [config.round_trip_bps(float(c.maker_fee), float(c.taker_fee)) for c in universe.contracts]
        )
        # A post-only entry earns the half spread that the exit pays.
        self._spread_share = 0.0 if config.entry_kind is OrderKind.POST_ONLY else 1.0

    def round_trip_bps(self, spread_bps: Floats) -> Floats:
        """Return the cost of every symbol at its spread now, (N,), NaN where there is none."""
        cost: Floats = self._fixed_bps + self._spread_share * spread_bps
        return cost

    def round_trip_bps_of(self, n: int, spread_bps: float) -> float:
        return float(self._fixed_bps[n]) + self._spread_share * spread_bps
