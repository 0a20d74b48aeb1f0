"""How each symbol of the generated market behaves, as arrays over the symbols: all the figures that were calibrated.

Sources: public recordings of 2022 to 2026 of Binance USD-M (BTC, ETH), Hyperliquid (BTC, ETH, SOL, WLFI), and Bitget's
own perpetuals (ETH 2026; DASH, UNI 2022). tests/shared/simulator/test_market_facts.py measures what comes out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import msgspec
import numpy as np

from shared.simulator.markets.blocks import LEVELS, Floats
from shared.simulator.markets.listing import Listing

DEFAULT_PREDICTABILITY = 0.20
PREDICTABILITY_MAX = 0.30

FACTOR_EVENTS = 0.24
"""[1] of seconds in which the market as a whole moves."""

FACTOR_BURSTS = 0.9
FACTOR_SIGMA = 0.6e-4


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """What the symbols of a tier have in common."""

    own_events: float  # [1] of seconds with a shock of its own
    bursts: float  # how strongly bursts of activity change the odds of one [ln]
    release: float  # [1] probability that a large gap moves the quotes in a second
    lean: float  # how strongly the gap that the next move closes shows in sizes [ln]
    lean_slow: float  # and the followers' gap
    after: float  # how strongly the last move shows in sizes [ln]
    swing: float  # standing imbalance that tells nothing [ln]
    size_sd: float  # of the touch [ln], beyond the three above
    deep_sd: float  # of the levels behind [ln]
    stays: float  # [1] of seconds in which a size rests, while the price rests
    one_tick: float  # [1] of spreads that are one tick (where the typical spread is below one)
    spread_sd: float  # [ln]
    driven: float  # share [1] of trading that comes with moves of the price
    forced: float  # [1] of moves that a trade must accompany
    basis_sd_bps: float  # of mark - index from second to second
    mark_sd_bps: float  # of mark - mid


MANNERS = {
    "major": Manner(
        own_events=0.15, bursts=0.9, release=0.85, lean=1.8, lean_slow=0.0, after=0.9, swing=0.15, size_sd=0.85,
        deep_sd=2.1, stays=0.03, one_tick=0.985, spread_sd=0.5, driven=0.48, forced=0.95, basis_sd_bps=0.45,
        mark_sd_bps=0.07,
    ),
    "large": Manner(
        own_events=0.16, bursts=0.9, release=0.85, lean=1.8, lean_slow=0.0, after=0.9, swing=0.15, size_sd=0.95,
        deep_sd=1.4, stays=0.10, one_tick=0.965, spread_sd=0.5, driven=0.50, forced=0.60, basis_sd_bps=0.6,
        mark_sd_bps=0.5,
    ),
    "small": Manner(
        own_events=0.97, bursts=0.15, release=0.50, lean=1.15, lean_slow=0.88, after=0.25, swing=0.35, size_sd=1.2,
        deep_sd=1.3, stays=0.60, one_tick=0.90, spread_sd=0.60, driven=0.25, forced=0.05, basis_sd_bps=1.5,
        mark_sd_bps=0.9,
    ),
    "stock": Manner(
        own_events=0.65, bursts=0.4, release=0.50, lean=1.15, lean_slow=0.88, after=0.25, swing=0.35, size_sd=1.2,
        deep_sd=1.3, stays=0.65, one_tick=0.90, spread_sd=0.50, driven=0.25, forced=0.05, basis_sd_bps=1.0,
        mark_sd_bps=0.9,
    ),
}  # fmt: skip

LATE_FAST_LEADER, LATE_FAST_FOLLOWER = 0.65, 0.12
"""Share of the variance that shows in the book before the price moves, at the default predictability."""

FAST_LEFT = 0.10
"""What is left of that gap after a move."""

FOLLOWS_S = 8.0
"""Time constant with which followers close their gap, in seconds in which they move."""

SEEN = 0.70
"""[1] of what the gap tells about ten seconds that all public features together recover."""

CHILDREN_MEAN = 2.5  # fills of a taker order (22 trades / 7.6 parents, 28 / 7.2, 3.2 / 1.1 a second)
PARENT_SD = 1.65  # ln of a taker order's notional


class Temper:
    """The listings as arrays, and what predictability makes of them; N symbols, where said N + 1 with the market."""

    def __init__(self, rows: Sequence[Listing], predictability: float) -> None:
        def array(name: str) -> Floats:
            return np.array([getattr(row, name) for row in rows], dtype=np.float64)

        def manner(name: str) -> Floats:
            return np.array([getattr(MANNERS[row.tier], name) for row in rows], dtype=np.float64)

        self.n = len(rows)
        self.rank = np.arange(self.n)
        self.is_follower = np.array([row.tier in ("small", "stock") for row in rows])
        self.is_stock = np.array([row.tier == "stock" for row in rows])
        self.has_gap = predictability > 0.0
        self.price, self.usd_per_s = array("price"), array("usd_per_s")
        self.price_scale = 10.0 ** array("price_place")
        self.size_scale = 10.0 ** array("volume_place")
        self.size_step = array("size_step").astype(np.float32)[:, None, None]
        self.funding_interval_h = np.array([row.funding_interval_h for row in rows])

        # Prices.
        known = min(1.0, predictability / DEFAULT_PREDICTABILITY)
        self.late_fast = np.where(self.is_follower, LATE_FAST_FOLLOWER, LATE_FAST_LEADER) * known
        self.late_slow = np.where(self.is_follower, late_share(predictability), 0.0)
        self.closes, self.release = math.exp(-1.0 / FOLLOWS_S), manner("release")
        ten = 1.0 - self.late_slow * (1.0 - _ten_seconds(self.closes) / 10.0)
        efficient = array("vol10_bps") * 1e-4 / np.sqrt(10.0 * ten)
        share = array("factor_share")
        self.beta = np.sqrt(share) * efficient / FACTOR_SIGMA
        self.sigma = np.append(np.sqrt(1.0 - share) * efficient, FACTOR_SIGMA)
        self.events = np.append(manner("own_events"), FACTOR_EVENTS)
        self.bursts = np.append(manner("bursts"), FACTOR_BURSTS)
        self.move_sd = efficient  # of a second
        self.move_ticks = efficient * self.price * self.price_scale
        self.rest_ticks = 0.50 + 0.40 * np.exp(-self.move_ticks / 2.0)  # coarse ticks: quotes must not bounce
        self.slow_sd = efficient * np.sqrt(np.maximum(self.late_slow, 1e-6) / (1.0 - self.closes**2))

        # Books.
        tick_bps = 1e4 / self.price_scale / self.price
        self.spread_ticks = array("spread_bps") / tick_bps
        self.is_one_tick = self.spread_ticks < 1.3
        self.one_tick = np.array([NormalDist().inv_cdf(p) for p in manner("one_tick").tolist()])
        self.spread_sd = manner("spread_sd")
        self.lean, self.lean_slow = manner("lean"), manner("lean_slow")
        self.after, self.swing = manner("after"), manner("swing")
        self.stays = manner("stays").astype(np.float32)[:, None, None]
        level = np.arange(LEVELS)
        is_major = np.array([row.tier == "major" for row in rows])[:, None]
        is_large = np.array([row.tier == "large" for row in rows])[:, None]
        profile = np.where(
            is_major, np.where(level == 0, 0.0, -3.6 - 0.02 * level),
            np.where(is_large, np.log1p(0.16 * level), np.minimum(0.3, 0.12 * level)),
        )  # fmt: skip
        touch = np.log(array("touch_usd"))
        log_step_usd = np.log(self.price / self.size_scale)
        self.log_size_steps = (touch[:, None] + profile - log_step_usd[:, None])[:, None, :].astype(np.float32)
        deep = np.where(is_large, np.maximum(0.6, 1.7 - 0.12 * level), manner("deep_sd")[:, None])
        self.size_sd = np.where(level == 0, manner("size_sd")[:, None], deep)[:, None, :].astype(np.float32)
        # Distance from level k to k + 1 beyond one tick; wider next to the touch.
        near = np.exp(-0.8 * np.arange(LEVELS - 1))
        self.level_gap = (
            array("level_gap")[:, None]
            - 1.0
            + np.where(is_major, 0.2, np.where(is_large, 0.3 * near, 0.2 + 0.9 * near))
        )  # (N, LEVELS - 1)

        # Trades.
        trades_per_s = array("trades_per_s")
        self.parents_per_s = trades_per_s / CHILDREN_MEAN
        self.parent_usd = self.usd_per_s / self.parents_per_s
        self.driven, self.forced = manner("driven"), manner("forced")
        self.usual_move = np.where(self.is_follower, 0.6, 0.36)  # mean |move| of a second, deviations
        self.basis_sd_bps, self.mark_sd_bps = manner("basis_sd_bps"), manner("mark_sd_bps")


def _ten_seconds(phi: float) -> float:
    """Return the 10 s variance of a mid all of whose unit shocks arrive late: what the gap brings, what comes anew."""
    brought = (1.0 - phi**10) ** 2 / (1.0 - phi**2)
    anew = sum((1.0 - phi**k) ** 2 for k in range(10))
    return brought + anew


def late_share(predictability: float) -> float:
    """Return which share of a follower's variance is late, so that 10 s R2 comes out as wanted.

    R2 = brought s / (10 (1 - s) + (brought + anew) s), solved for s; what features miss of it is in SEEN.
    """
    if predictability == 0.0:
        return 0.0
    phi = math.exp(-1.0 / FOLLOWS_S)
    target = predictability / SEEN
    brought = (1.0 - phi**10) ** 2 / (1.0 - phi**2)
    share = 10.0 * target / (brought + target * (10.0 - _ten_seconds(phi)))
    return min(share, 1.0 - LATE_FAST_FOLLOWER)
