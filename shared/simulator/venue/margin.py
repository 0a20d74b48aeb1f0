"""Account arithmetic of Bitget v2, as pure functions: fees, margin, break-even, bankruptcy, risk ladders.

Re-derived from demo recordings of October 2026; each function is tested against the recorded strings. Where money is
divided the rounding is stated, everything else is exact.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, Decimal
from functools import lru_cache

from shared.simulator.venue.orders import ZERO, ClosedPosition
from shared.strategy.exact import exactly
from shared.types import Contract, Tier

FEE_STEP = Decimal("1e-8")
QUOTE_STEP = Decimal("1e-4")
SHOWN_STEP = Decimal("1e-16")
MARGIN_STEP = Decimal("1e-12")
"""Margin that is set aside is cut to this, upwards, so that every later sum of it is exact."""


# ---------------------------------------------------------------------------------------------- fees and profit


def fee(exact_fee: Decimal) -> Decimal:
    """Return what a fee costs: the exact one cut to 8 decimals."""
    return exact_fee.quantize(FEE_STEP, rounding=ROUND_DOWN)


def quote_volume(quote: Decimal) -> Decimal:
    """Return sum of price x size as shown: cut to 4 decimals."""
    return quote.quantize(QUOTE_STEP, rounding=ROUND_DOWN)


def net_profit(closed: ClosedPosition) -> Decimal:
    """Return realised - exact fees + funding of a closed position, cut to 8 decimals."""
    net = closed.realised_usdt - closed.open_fee_usdt - closed.close_fee_usdt + closed.funding_usdt
    return net.quantize(FEE_STEP, rounding=ROUND_DOWN)


@exactly
def break_even(entry: Decimal, is_long: bool, taker_fee: Decimal) -> Decimal:
    """Return the price at which closing pays both fees: entry (1 + f) / (1 - f) for a long, inverse for a short.

    The last of 16 decimals is rounded so that it does pay them: up for a long, down for a short (recorded).
    """
    up, down = 1 + taker_fee, 1 - taker_fee
    if is_long:
        return (entry * up / down).quantize(SHOWN_STEP, rounding=ROUND_CEILING)
    return (entry * down / up).quantize(SHOWN_STEP, rounding=ROUND_FLOOR)


# ------------------------------------------------------------------------------------------------------- margin


@exactly
def margin_shown(mark: Decimal, size: Decimal, leverage: int) -> Decimal:
    """Return the margin of a crossed position: mark x size / leverage, rounded up at 16 decimals."""
    return (mark * size / leverage).quantize(SHOWN_STEP, rounding=ROUND_CEILING)


@exactly
def ratio_shown(ratio: Decimal) -> Decimal:
    """Return a margin ratio as shown: 16 decimals, rounded up (two recorded values, which half-up fits as well)."""
    return ratio.quantize(SHOWN_STEP, rounding=ROUND_CEILING)


@exactly
def liquidation_shown(price: Decimal) -> Decimal:
    """Return a liquidation price as shown: 16 decimals, rounded down, also below zero (recorded)."""
    return price.quantize(SHOWN_STEP, rounding=ROUND_FLOOR)


def margin_set_aside(price: Decimal, size: Decimal, leverage: int) -> Decimal:
    """Return the margin that a fill of an isolated position needs, rounded up at 12 decimals."""
    return (price * size / leverage).quantize(MARGIN_STEP, rounding=ROUND_CEILING)


@exactly
def bankruptcy_price(worth: Decimal, size: Decimal, is_long: bool, fee_rate: Decimal, tick: Decimal) -> Decimal:
    """Return the price that leaves nothing of a position after the fee of closing it.

    Long: worth / (size (1 - f)), short: worth / (size (1 + f)); Bitget, "Announcement on liquidation risk management",
    July 2024. Rounded to a ten-thousandth of a tick so that never less than nothing is left, and at least one tick.

    Args:
        worth: what closing has to bring (long) or may cost (short): for an isolated position its cost -+ its margin,
            for a crossed one its value -+ its share of the equity.
        size: > 0.
    """
    step = tick.scaleb(-4)
    exact = worth / (size * (1 - fee_rate if is_long else 1 + fee_rate))
    price = (exact / step).to_integral_value(ROUND_CEILING if is_long else ROUND_FLOOR) * step
    return max(price, tick)


# ------------------------------------------------------------------------------------------------ risk ladders

_STEPS_USDT = (
    200_000, 1_000_000, 5_000_000, 15_000_000, 50_000_000, 100_000_000, 150_000_000, 300_000_000, 500_000_000,
    700_000_000, 900_000_000, 1_200_000_000,
)  # fmt: skip
_LEVERAGES = (100, 75, 50, 25, 20, 10, 5, 4, 3, 2, 1)
# Share of BTC's steps that a contract gets by its maximum leverage: ours, in the proportion in which Bitget allows
# less size where it allows less leverage. Only BTC's ladder is known from a recording, and this gives that one.
_SHARES = ((150, Decimal(1)), (50, Decimal("0.5")), (25, Decimal("0.25")), (0, Decimal("0.1")))


def tiers_of(contract: Contract) -> tuple[Tier, ...]:
    """Return a plausible risk ladder of a contract; at 150x it is the one recorded for BTC in September 2026."""
    return _ladder(contract.leverage_max)


@lru_cache(maxsize=256)
def _ladder(leverage_max: int) -> tuple[Tier, ...]:
    share = next(share for least, share in _SHARES if leverage_max >= least)
    leverages = (leverage_max, *(step for step in _LEVERAGES if step < leverage_max))
    ends = [step * share for step in _STEPS_USDT[: len(leverages)]]
    return tuple(
        Tier(
            level=k + 1, start_usdt=ends[k - 1] if k else ZERO, end_usdt=ends[k], leverage_max=leverage,
            maintenance_rate=_rate_at(leverage),
        )
        for k, leverage in enumerate(leverages)
    )  # fmt: skip


def _rate_at(leverage: int) -> Decimal:
    # Half the initial margin, up to whole tenths of a per cent, above 20x; 60 % of it below: as recorded for BTC.
    if leverage > 20:
        return (Decimal("0.5") / leverage).quantize(Decimal("0.001"), rounding=ROUND_CEILING).quantize(QUOTE_STEP)
    return (Decimal("0.6") / leverage).quantize(QUOTE_STEP, rounding=ROUND_CEILING)


def maintenance_rate(contract: Contract) -> Decimal:
    """Return the maintenance margin rate of a contract's smallest positions [1]."""
    return tiers_of(contract)[0].maintenance_rate


def tier_at(tiers: tuple[Tier, ...], notional_usdt: Decimal) -> Tier:
    """Return the step of a ladder that a notional stands on; the last one above its end."""
    for tier in tiers:
        if notional_usdt <= tier.end_usdt:
            return tier
    return tiers[-1]


def notional_max(tiers: tuple[Tier, ...], leverage: int) -> Decimal:
    """Return the largest notional that a ladder allows at a leverage, USDT."""
    return max((tier.end_usdt for tier in tiers if tier.leverage_max >= leverage), default=ZERO)
