"""From settings to the engine's limits, once: the backtest judges with the very limits that live trades with."""

from __future__ import annotations

from shared.settings import Settings
from shared.strategy.bandit.state import Mode
from shared.strategy.config import EngineConfig
from shared.types import OrderKind

ORDERS_PER_SECOND = 5
"""Decisions come in bursts a second apart, and Bitget counts ten placements in any second: with a few ms of jitter two
bursts fall into one of its seconds, so that twice this many must be allowed there."""

HORIZON_S = 10
"""Seconds that a model looks ahead, as the original did; and that a coin, which names no horizon, holds a position."""


def config_of(
    chosen: Settings,
    *,
    horizon_s: int | None,
    symbols: tuple[str, ...] = (),
    entry_kind: OrderKind = OrderKind.MARKET,
) -> EngineConfig:
    """Return the limits that the settings mean.

    Args:
        horizon_s: of the scores; None: they name none.
        symbols: what to trade; (): what SYMBOLS says.
    """
    return EngineConfig(
        symbols=symbols or chosen.wanted_symbols,
        decision_seconds=chosen.decision_seconds,
        horizon_s=horizon_s if horizon_s is not None else HORIZON_S,
        entry_kind=entry_kind,
        top_k=chosen.top_k,
        confidence_min=chosen.confidence_min,
        confidence_margin_min=chosen.confidence_margin_min,
        spread_bps_max=chosen.kill_spread_bps_max,
        depth_usdt_min=chosen.kill_depth_usdt_min,
        slippage_bps=chosen.slippage_bps,
        leverage=chosen.leverage,
        daily_loss_limit=chosen.daily_loss_limit,
        drawdown_max=chosen.max_drawdown_pct,
        orders_per_second_max=ORDERS_PER_SECOND,
        bandit_mode=Mode(chosen.bandit_mode),
        explore_bps_per_day=chosen.explore_bps_per_day,
    )


def by_default() -> EngineConfig:
    """Return the limits of whoever sets none: the environment and `.env` are not asked."""
    return config_of(Settings.model_construct(), horizon_s=None)
