"""Sizing: how much of one symbol, in the exchange's own steps.

    notional = min(gross / (2 · top K),  symbol's share of gross,  share of visible depth)
    gross    = equity · min(leverage wanted, obtained) · share of equity that may be margin

rounded *down* to the size step. A null scorer gets the smallest order that the exchange takes. What comes out below
the exchange's minimum is refused with a reason, never rounded up: a small account gets an honest answer.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from shared.strategy.config import EngineConfig
from shared.strategy.exact import ceil_to, decimal_of, exactly, floor_to
from shared.strategy.ranking import Gate
from shared.types import Contract

MINIMUM_HEADROOM = Decimal("1.1")
"""The smallest order is sized above the minimum notional by this, since the price may move before it arrives."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A decision against, with its reason: a value, not an exception."""

    gate: Gate
    reason: str


def gross_max_usdt(config: EngineConfig, equity: Decimal, leverage: int) -> Decimal:
    """Return the largest sum of notionals that this equity may carry."""
    return equity * min(config.leverage, leverage) * decimal_of(config.margin_use_max)


@exactly
def entry_size(
    config: EngineConfig,
    contract: Contract,
    *,
    equity: Decimal,
    leverage: int,
    price: Decimal,
    depth_usdt: float,
    is_minimum: bool,
) -> Decimal | Refusal:
    """Return the size of an entry in base coin, or why there is none.

    Args:
        leverage: as obtained from the exchange.
        price: mid at the decision: the same for a long and a short, so that a mirrored market mirrors sizes.
        depth_usdt: thinner side's visible depth within 10 bps.
    """
    smallest = ceil_to(
        max(contract.size_min, contract.notional_min_usdt * MINIMUM_HEADROOM / price), contract.size_step
    )
    gross = gross_max_usdt(config, equity, leverage)
    if is_minimum:
        size = smallest
    else:
        notional = min(
            gross / (2 * config.top_k),
            gross * decimal_of(config.symbol_share_max),
            decimal_of(depth_usdt) * decimal_of(config.depth_share_max),
        )
        size = floor_to(notional / price, contract.size_step)
        if size < smallest:
            return Refusal(
                gate=Gate.SIZE,
                reason=f"the smallest order is {smallest * price:.2f} USDT, {notional:.2f} USDT may be used",
            )
    largest = contract.size_max_market
    if largest is not None and size > largest:
        size = floor_to(largest, contract.size_step)
    return size


@exactly
def stop_price(contract: Contract, *, is_long: bool, reference: Decimal, stop_bps: float) -> Decimal:
    """Return the protective stop, rounded away from the market to a tick, at least one tick above zero."""
    distance = reference * decimal_of(stop_bps) / 10_000
    if is_long:
        return max(floor_to(reference - distance, contract.tick), contract.tick)
    return ceil_to(reference + distance, contract.tick)
