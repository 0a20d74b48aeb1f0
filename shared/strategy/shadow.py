"""A second scorer beside the engine: what it says of the same seconds, and what it would enter. It sends nothing.

What would be entered is asked of the gates that know no account: a book, a score, spread, depth, confidence, margin,
and an expected move beyond the round trip's cost now; of those the best K on each side. Positions, cooldown, size, risk
and the bandit take no part, because a shadow has none of its own: compare it with the champion's scores asked the same
way (`wanted`), not with the champion's orders.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph
from shared.strategy.config import EngineConfig
from shared.strategy.market import Market
from shared.strategy.pricing import Pricing, View
from shared.strategy.scores import Scorer
from shared.types import Floats, Universe


class Said(msgspec.Struct, frozen=True, eq=False):
    """What a scorer said of one second."""

    second: int
    edge_bps: NDArray[np.float32]  # (N,) signed expected move of the mid; NaN: no score
    wanted: NDArray[np.int8]  # (N,) +1 would enter long, −1 short, 0 not


def wanted(view: View, config: EngineConfig, *, is_null: bool) -> NDArray[np.int8]:
    """Return what a decision would enter if it had no position, no order and no limit: +1, −1 or 0, (N,).

    Ties go to the symbol that comes first.
    """
    direction = view.scores.direction
    stands = view.scores.is_valid & (direction != 0) & np.isfinite(view.spread_bps)
    stands &= (view.spread_bps <= config.spread_bps_max) & (view.depth_usdt >= config.depth_usdt_min)
    if not is_null:
        stands &= ~(view.is_unsure | view.is_narrow | view.is_dear)
    chosen = np.zeros(len(direction), np.int8)
    for sign in (1, -1):
        candidates = np.flatnonzero(stands & (direction == sign))
        best = candidates[np.argsort(-view.net_bps[candidates], kind="stable")[: config.top_k]]
        chosen[best] = sign
    return chosen


class Shadow:
    """Looks at every second in order; holds no state but the market's last second and, where needed, its windows.

    Args:
        config: of the session; its horizon becomes the scorer's own.
    """

    def __init__(self, config: EngineConfig, universe: Universe, scorer: Scorer) -> None:
        own_s = scorer.horizon_s if scorer.horizon_s is not None else config.horizon_s
        self.config = msgspec.structs.replace(config, horizon_s=own_s)
        self.scorer = scorer
        self._symbols = universe.symbols
        self._market = Market(universe)
        self._pricing = Pricing(self.config, universe)
        self._graph: FeatureGraph | None = None

    def see(self, second: int, columns: Floats, features: NDArray[np.float32] | None) -> Said | None:
        """Take the next second; return what is said of it, None where no decision is due.

        Args:
            columns: (C, N), as sampled.
            features: (1, N, F) that the engine computed of it; None: it computes none, so the shadow does.
        """
        self._market.take(second, columns)
        rows = self._market.rows()
        if features is None and self.scorer.needs_features:
            if self._graph is None:
                self._graph = FeatureGraph(FEATURES, self._symbols)
            features = self._graph.step(rows, second)
        if second % self.config.decision_seconds:
            return None
        scores = self.scorer.score(features, rows, second).row(0)
        view = self._pricing.look(second, scores, self._market)
        edge_bps = np.where(scores.is_valid, scores.edge_bps, np.nan).astype(np.float32)
        return Said(second, edge_bps, wanted(view, self.config, is_null=self.scorer.is_null))
