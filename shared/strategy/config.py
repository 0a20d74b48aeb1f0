"""What a person may choose about trading, with bounds; a contradiction refuses to start.

Fractions have no suffix. Values that come from the environment have the setting's name beside them.
"""

from __future__ import annotations

import msgspec

from shared.costs import BPS, maker_round_trip_bps, taker_round_trip_bps
from shared.errors import SettingsError
from shared.strategy.bandit.state import Mode, Policy
from shared.types import Contract, OrderKind, Universe


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and choices of one session; journaled whole, so that a replay has the same."""

    # what is traded, and when
    symbols: tuple[str, ...] = ()  # SYMBOLS; () = every tradable one of the universe
    decision_seconds: int = 1  # DECISION_SECONDS: decisions at seconds divisible by it
    horizon_s: int = 10  # a position is held this long unless something else ends it, or the scores renew it
    horizons_max: int = 6  # so many horizons in a row at most; 1: nothing is renewed
    entry_kind: OrderKind = OrderKind.MARKET  # MARKET or POST_ONLY; exits are always market
    entry_wait_s: int = 3  # a post-only entry that has not filled by then ends, chases included
    chases_max: int = 2  # how often a post-only entry follows the touch that moved away from it
    entry_fallback: bool = True  # what a post-only entry left is taken, if the edge still pays for a taker
    cooldown_s: int = 3  # after a position closed, or an entry was refused, the symbol rests this long
    top_k: int = 10  # TOP_K: at most so many longs and so many shorts

    # ranking
    rank_buffer: float = 0.5  # [1] a holder stays while it ranks within top_k x (1 + this) of its side
    newcomer_margin_bps: float = 2.0  # a newcomer ranks before a holder only if it is better by this
    turnover_penalty_bps: float = 1.0  # off the net edge for each entry into the symbol in the last minute or so
    side_band: float = 0.25  # [1] of the gross limit: longs and shorts may differ by so much when one is opened
    beta_band: float = 0.25  # [1] likewise, each position weighted by its beta to the market

    # gates
    confidence_min: float = 0.60  # CONFIDENCE_MIN [1]
    confidence_margin_min: float = 0.10  # CONFIDENCE_MARGIN_MIN [1]
    spread_bps_max: float = 20.0  # KILL_SPREAD_BPS_MAX
    depth_usdt_min: float = 5000.0  # KILL_DEPTH_USDT_MIN, thinner side within 10 bps of the mid
    stale_s_max: int = 5  # neither book nor ticker for longer than this: stale
    lag_s_max: int = 5  # a second handed over later than this is history, not a market
    slippage_bps: float = 2.0  # SLIPPAGE_BPS a side, beyond the touch, taker only

    # exits
    stop_bps: float = 100.0  # protective stop that rides on every entry
    stop_grace_s: int = 2  # how long the exchange's own stop may take before ours closes the position
    target_bps: float | None = None  # None: no target, the horizon ends a winner too
    stay_edge_bps: float = 0.0  # a position is renewed above this edge (less funding due), and decays below it
    decay_decisions: int = 3  # so many decisions in a row below it; 0: positions do not decay

    # size and risk
    leverage: int = 5  # LEVERAGE, at most what the exchange granted per symbol
    margin_use_max: float = 0.5  # [1] of equity that may be margin: gross <= equity x leverage x this
    symbol_share_max: float = 0.25  # [1] of that gross in one symbol
    net_share_max: float = 0.40  # [1] of that gross, longs less shorts either way
    cluster_share_max: float = 0.30  # [1] of that gross, longs less shorts either way within a cluster
    depth_share_max: float = 0.10  # [1] of the thinner side's visible depth within 10 bps
    position_risk_bps: float = 3.0  # bps of equity that one deviation over the horizon may move one position by
    kelly_share: float = 0.10  # [1] of edge / variance: an edge is an estimate, and all of it would be too much
    daily_loss_limit: float = 0.10  # DAILY_LOSS_LIMIT [1] of the UTC day's first equity
    drawdown_max: float = 0.15  # MAX_DRAWDOWN_PCT [1] of peak equity
    orders_per_second_max: int = 8  # Bitget: 10 placements a second and account; two are left for a person
    clock_skew_ms_max: int = 2000  # our clock and the exchange's may differ by this; beyond it: no new risk
    unknown_orders_max: int = 2  # more unresolved placements than this: no new risk
    refusals_per_minute_max: int = 30  # more than this: latched, something is wrong with us

    # what the bandit may do, see docs/bandit.md
    bandit_mode: Mode = Mode.SHADOW  # BANDIT_MODE: act only with a permit of pipelines.bandit
    bandit_policy: Policy = Policy.THOMPSON
    variants: tuple[str, ...] = ()  # --variant: further scorers among which the bandit chooses, "rules" or "rules/30s"
    bandit_weight: float = 1.0  # [1] of what an arm's past says that is added to net edge; 0: nothing
    bandit_discount: float = 0.9999  # [1] an older trade's weight, per later trade of any arm: about 10,000 count
    bandit_window: int = 2000  # trades that the sliding window and the records look back on
    bandit_epsilon: float = 0.05  # [1] of decisions give their last slot to a candidate picked evenly
    explore_bps_per_day: float = 0.0  # EXPLORE_BPS_PER_DAY: of equity, expected cost of all exploration in a UTC day

    def __post_init__(self) -> None:
        whole = {
            "decision_seconds": (self.decision_seconds, 1, 60),
            "bandit_weight": (self.bandit_weight, 0.0, 1.0),
            "bandit_discount": (self.bandit_discount, 0.5, 1.0),
            "bandit_window": (self.bandit_window, 10, 100_000),
            "bandit_epsilon": (self.bandit_epsilon, 0.0, 0.5),
            "explore_bps_per_day": (self.explore_bps_per_day, 0.0, 100.0),
            "horizon_s": (self.horizon_s, 1, 3600),
            "entry_wait_s": (self.entry_wait_s, 1, 3600),
            "horizons_max": (self.horizons_max, 1, 1000),
            "chases_max": (self.chases_max, 0, 100),
            "cooldown_s": (self.cooldown_s, 0, 86_400),
            "rank_buffer": (self.rank_buffer, 0.0, 10.0),
            "newcomer_margin_bps": (self.newcomer_margin_bps, 0.0, 1000.0),
            "turnover_penalty_bps": (self.turnover_penalty_bps, 0.0, 1000.0),
            "side_band": (self.side_band, 0.0, 1.0),
            "beta_band": (self.beta_band, 0.0, 10.0),
            "stay_edge_bps": (self.stay_edge_bps, -1000.0, 1000.0),
            "decay_decisions": (self.decay_decisions, 0, 3600),
            "top_k": (self.top_k, 1, 1000),
            "leverage": (self.leverage, 1, 150),
            "stale_s_max": (self.stale_s_max, 1, 30),
            "orders_per_second_max": (self.orders_per_second_max, 1, 10),
            "confidence_min": (self.confidence_min, 0.0, 1.0),
            "confidence_margin_min": (self.confidence_margin_min, 0.0, 1.0),
            "margin_use_max": (self.margin_use_max, 1e-6, 1.0),
            "symbol_share_max": (self.symbol_share_max, 1e-6, 1.0),
            "net_share_max": (self.net_share_max, 1e-6, 1.0),
            "cluster_share_max": (self.cluster_share_max, 1e-6, 1.0),
            "depth_share_max": (self.depth_share_max, 1e-6, 1.0),
            "position_risk_bps": (self.position_risk_bps, 1e-3, 1e4),
            "kelly_share": (self.kelly_share, 1e-6, 1.0),
            "clock_skew_ms_max": (self.clock_skew_ms_max, 1, 2000),
            "unknown_orders_max": (self.unknown_orders_max, 0, 100),
            "refusals_per_minute_max": (self.refusals_per_minute_max, 1, 600),
            "spread_bps_max": (self.spread_bps_max, 0.0, 5000.0),
            "depth_usdt_min": (self.depth_usdt_min, 0.0, 1e12),
            "lag_s_max": (self.lag_s_max, 1, 3600),
            "stop_grace_s": (self.stop_grace_s, 0, 3600),
            "daily_loss_limit": (self.daily_loss_limit, 1e-6, 1.0),
            "drawdown_max": (self.drawdown_max, 1e-6, 1.0),
            "stop_bps": (self.stop_bps, 1.0, 5000.0),
            "slippage_bps": (self.slippage_bps, 0.0, 1000.0),
        }
        for name, (value, low, high) in whole.items():
            if not low <= value <= high:  # NaN fails too
                raise SettingsError(f"{name} must lie in [{low}, {high}], found {value}: correct it")
        if self.entry_kind not in (OrderKind.MARKET, OrderKind.POST_ONLY):
            raise SettingsError(f"entry_kind must be market or post_only, found {self.entry_kind}: choose one of them")

    def round_trip_bps(self, maker_fee: float, taker_fee: float, spread_bps: float = 0.0) -> float:
        """Return what an entry of the configured kind and a taker exit cost."""
        if self.entry_kind is OrderKind.POST_ONLY:
            return maker_round_trip_bps(maker_fee, taker_fee, spread_bps) + self.slippage_bps
        return self.taker_bps(taker_fee, spread_bps)

    def taker_bps(self, taker_fee: float, spread_bps: float = 0.0) -> float:
        """Return what an entry and an exit cost that both take."""
        return taker_round_trip_bps(spread_bps, taker_fee, self.slippage_bps)

    def check(self, universe: Universe) -> None:
        """Refuse what cannot earn or cannot mean anything in this universe.

        Raises:
            SettingsError: with the arithmetic: a target below a round trip that may be made, a stop within the widest
                spread or beyond all equity, a leverage that no symbol has, a slot above a limit; or no symbol is left.
        """
        unlisted = sorted(set(self.symbols) - set(universe.symbols))
        if unlisted:
            raise SettingsError(
                f"SYMBOLS must be listed perpetuals, found {', '.join(unlisted)} which "
                f"{universe.source} does not list: correct the spelling or remove them"
            )
        self._check_stop()
        self._check_shares()
        if not universe.contracts:
            return
        traded = [c for c in universe.contracts if not self.symbols or c.symbol in self.symbols]
        self._check_leverage(traded)
        self._check_target(traded)

    def _check_stop(self) -> None:
        if not self.stop_bps > self.spread_bps_max:
            raise SettingsError(
                f"stop_bps must exceed KILL_SPREAD_BPS_MAX, found {self.stop_bps:g} against {self.spread_bps_max:g} "
                "(an entry at such a spread is stopped by the spread alone): lower the latter or widen the stop"
            )
        lost = self.leverage * self.margin_use_max * self.stop_bps / BPS
        if not lost < 1.0:
            raise SettingsError(
                f"what all stops lose together must be less than equity, found LEVERAGE {self.leverage} x "
                f"{self.margin_use_max:g} (margin_use_max) x {self.stop_bps:g} bps (stop_bps) = {lost:.2f} of it, so "
                "that the exchange liquidates first: lower one of them"
            )

    def _check_shares(self) -> None:
        slot = min(1.0 / (2 * self.top_k), self.symbol_share_max)
        for name, most in (("net_share_max", self.net_share_max), ("cluster_share_max", self.cluster_share_max)):
            if most < slot:
                raise SettingsError(
                    f"{name} must hold one full order, found {most:g} of gross against the smaller of 1 / (2 x "
                    f"{self.top_k} TOP_K) and {self.symbol_share_max:g} (symbol_share_max) = {slot:g}: raise {name} or "
                    "TOP_K"
                )

    def _check_leverage(self, traded: list[Contract]) -> None:
        most = max(traded, key=lambda c: (c.leverage_max, c.symbol))
        if self.leverage > most.leverage_max:
            raise SettingsError(
                f"LEVERAGE must be one that a traded symbol has, found {self.leverage} against {most.leverage_max} of "
                f"{most.symbol}, the most of {len(traded)}: lower it"
            )

    def _check_target(self, traded: list[Contract]) -> None:
        if self.target_bps is None:
            return
        dearest = max(traded, key=lambda c: (self._dearest_bps(c), c.symbol))
        cost = self._dearest_bps(dearest)
        if not self.target_bps > cost:
            is_maker = self.entry_kind is OrderKind.POST_ONLY and not self.entry_fallback
            entry_fee = float(dearest.maker_fee if is_maker else dearest.taker_fee) * BPS
            exit_fee = float(dearest.taker_fee) * BPS
            way = "a post-only entry"
            if not is_maker:
                way = "an entry" if self.entry_kind is OrderKind.MARKET else "an entry that falls back to taking"
            raise SettingsError(
                f"target_bps must exceed the round trip's cost, found {self.target_bps:g} against {entry_fee:g} "
                f"(fee of {way} in {dearest.symbol}) + {exit_fee:g} (exit fee) + "
                f"{0.0 if is_maker else self.slippage_bps:g} + {self.slippage_bps:g} (slippage) = {cost:g} bps before "
                "any spread: raise the target or trade cheaper"
            )

    def _dearest_bps(self, contract: Contract) -> float:
        """Return what the dearest round trip costs that this configuration may make in a contract, without spread."""
        maker_fee, taker_fee = float(contract.maker_fee), float(contract.taker_fee)
        cost = self.round_trip_bps(maker_fee, taker_fee)
        if self.entry_kind is OrderKind.POST_ONLY and self.entry_fallback:
            return max(cost, self.taker_bps(taker_fee))
        return cost
