"""Pricing: what a round trip costs in each symbol now, and what a decision sees of the market and the scores.

    cost = fees + slippage + what it pays of the quoted spread + funding that falls due within the horizon

of an entry of the configured kind and a taker's exit. A post-only entry earns the half spread that the exit pays.
Funding costs a long the rate and pays it to a short, where its contract settles before the horizon ends.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared import costs
from shared.strategy.config import EngineConfig
from shared.strategy.market import Market
from shared.strategy.scores import Scores
from shared.types import Floats, OrderKind, Universe

HOUR_S = 3600


class View:
    """One decision's sight, arrays over N made once: exits, entries and chases read the same figures."""

    __slots__ = (
        "cost_bps",
        "depth_usdt",
        "edge_bps",
        "funding_bps",
        "is_dear",
        "is_narrow",
        "is_unsure",
        "net_bps",
        "scores",
        "second",
        "spread_bps",
    )

    def __init__(self, second: int, scores: Scores) -> None:
        self.second, self.scores = second, scores
        self.spread_bps: Floats
        self.depth_usdt: Floats  # thinner side within 10 bps of the mid
        self.funding_bps: Floats | None  # what a long pays within the horizon; None: nothing is due
        self.edge_bps: Floats  # expected move in the score's direction
        self.cost_bps: Floats  # of a round trip in that direction
        self.net_bps: Floats
        self.is_unsure: NDArray[np.bool_]  # the gates of a score that claims an edge: confidence,
        self.is_narrow: NDArray[np.bool_]  # margin over the next class,
        self.is_dear: NDArray[np.bool_]  # and net edge

    def is_sure(self, n: int, sign: int) -> bool:
        """Say whether the score would enter on this side, by its own gates."""
        if self.scores.direction.item(n) != sign or not self.scores.is_valid.item(n):
            return False
        return not (self.is_unsure.item(n) or self.is_narrow.item(n) or self.is_dear.item(n))

    def edge_toward(self, n: int, sign: int) -> float:
        """Return the expected move on this side, bps; NaN where it is not known."""
        return self.scores.edge_bps.item(n) * sign if self.scores.is_valid.item(n) else float("nan")

    def funding_toward(self, n: int, sign: int) -> float:
        """Return what holding this side pays in funding within the horizon, bps."""
        return self.funding_bps.item(n) * sign if self.funding_bps is not None else 0.0


class Pricing:
    def __init__(self, config: EngineConfig, universe: Universe) -> None:
        self._config = config
        fees = [(float(c.maker_fee), float(c.taker_fee)) for c in universe.contracts]
        self._fixed_bps = np.array([config.round_trip_bps(maker, taker) for maker, taker in fees])
        self._taker_bps = np.array([config.taker_bps(taker) for _, taker in fees])
        self._pays_spread = config.entry_kind is not OrderKind.POST_ONLY
        interval_s = np.array([c.funding_interval_h * HOUR_S for c in universe.contracts], np.int64)
        self._settles: dict[int, NDArray[np.bool_]] = {
            int(s): interval_s == s for s in np.unique(interval_s) if s >= HOUR_S
        }

    def round_trip_bps(self, spread_bps: Floats) -> Floats:
        """Return the cost of every symbol at its spread now, (N,), NaN where there is none."""
        cost: Floats = self._fixed_bps + (spread_bps if self._pays_spread else spread_bps * 0.0)  # NaN stays NaN
        return cost

    def round_trip_bps_of(self, n: int, spread_bps: float) -> float:
        cost: float = self._fixed_bps.item(n) + (spread_bps if self._pays_spread else spread_bps * 0.0)
        return cost

    def look(self, second: int, scores: Scores, market: Market) -> View:
        """Return what a decision sees; NaN where there is no book or no score."""
        view, config = View(second, scores), self._config
        view.spread_bps, view.depth_usdt = market.spread_bps(), market.depth_usdt()
        view.funding_bps = self._funding_bps(second, market)
        with np.errstate(invalid="ignore"):
            view.cost_bps = self.round_trip_bps(view.spread_bps)
            if view.funding_bps is not None:
                view.cost_bps = view.cost_bps + view.funding_bps * scores.direction
            view.edge_bps = scores.edge_bps * scores.direction
            view.net_bps = view.edge_bps - view.cost_bps
        view.is_unsure = ~(scores.confidence >= config.confidence_min)
        view.is_narrow = ~(scores.margin >= config.confidence_margin_min)
        # No direction is no opinion: it enters nowhere, even where rebates pay for the round trip.
        view.is_dear = ~(view.net_bps > 0.0) | (scores.direction == 0)
        return view

    def taker_net_bps(self, view: View, n: int, sign: int, market: Market) -> float:
        """Return what an entry would be expected to leave if it were taken at the touch now."""
        spread = costs.spread_bps(market.value("bid_price_1", n), market.value("ask_price_1", n))
        cost = float(self._taker_bps[n]) + spread + view.funding_toward(n, sign)
        return view.edge_toward(n, sign) - cost

    def _funding_bps(self, second: int, market: Market) -> Floats | None:
        """Return what a long pays in funding before the horizon ends, (N,); None where nothing settles by then."""
        until = second + 1 + self._config.horizon_s  # the second is known at its end
        due = [mask for s, mask in self._settles.items() if until // s > (second + 1) // s]
        if not due:
            return None
        is_due = due[0]
        for mask in due[1:]:
            is_due = is_due | mask
        rate = market.column("funding_rate")
        # A market without funding (a recording) has no rate, and settles nothing.
        return np.where(is_due & np.isfinite(rate), rate, 0.0) * costs.BPS
