"""What the generated market's ticker tells beside the touch: last, mark, index, funding, and the figures of 24 hours.

Nothing here looks ahead: highs and lows of 24 hours hold what was until that second.
"""

from __future__ import annotations

import math

import numpy as np

from shared.simulator.markets import noise as streams
from shared.simulator.markets.blocks import BLOCK_S, Block, Floats, Ints, Trades
from shared.simulator.markets.noise import Noise
from shared.simulator.markets.path import Path, remember
from shared.simulator.markets.temper import Temper

_DAY_BLOCKS = 86_400 // BLOCK_S
_PER_HOUR = 3600 // BLOCK_S
_BASIS_MEMORY = 0.84
_WARM_UP_S = 40
_PREMIUM_WEIGHTS = [math.exp(-lag / 7.0) * math.sqrt(1.0 - math.exp(-2.0 / 7.0)) for lag in range(36)]


def premium_bps(noise: Noise, temper: Temper, b: int) -> Floats:
    """Return mark over index, bps, at the begin of block b and of the next, (2, N): a mean of its own, and a drift.

    Most lie within a few bps, one in twelve far outside; hour to hour it keeps nine tenths.
    """
    hour, part = divmod(b, _PER_HOUR)
    drift = noise.smooth(streams.BASIS, hour, hour + 2, _PREMIUM_WEIGHTS)[:, :-1]
    # A number in [-1, 1) for each symbol, the same for ever: who has a premium keeps it.
    place = 2.0 * (0.7548776662 * (temper.rank + 1) % 1.0) - 1.0
    is_odd = temper.rank % 12 == 7
    mean = np.where(temper.rank < 2, 0.0, np.where(is_odd, 22.0 * place - 4.0, 1.5 + 5.0 * place))
    sd = np.where(temper.rank < 2, 1.0, np.where(is_odd, 6.0, 2.6))
    weights = np.array([[part / _PER_HOUR], [(part + 1) / _PER_HOUR]])
    found: Floats = mean + sd * (drift[0] + weights * (drift[1] - drift[0]))
    return found


def funding_rate(temper: Temper, premium: Floats) -> Floats:
    """Return the rate of an interval [1] from the premium in bps; Bitget's formula, interest 1 bp in 8 hours.

    F = (P + clamp(I - P, +-5 bp)) / (8 / interval); stocks have no interest.
    """
    interest = np.where(temper.is_stock, 0.0, 1.0)
    eight = premium + np.clip(interest - premium, -5.0, 5.0)
    rate: Floats = np.rint(eight * (temper.funding_interval_h / 8.0) * 1e-4 * 1e6) / 1e6
    return rate


def funding_rate_at(noise: Noise, temper: Temper, second: int) -> Floats:
    """Return the rates that run in `second`, (N,), bit for bit those of its block, without computing one."""
    b, t = divmod(second, BLOCK_S)
    slow = premium_bps(noise, temper, b)
    return funding_rate(temper, slow[0] + t // 60 * 60 / BLOCK_S * (slow[1] - slow[0]))


def block_of(
    noise: Noise,
    temper: Temper,
    path: Path,
    age_s: Floats,
    b: int,
    book: tuple[Ints, Ints, Ints, Ints],
    trades: Trades,
) -> Block:
    """Return the whole block of book (bid ticks, bid steps, ask ticks, ask steps) and trades.

    Args:
        age_s: since the launch of each symbol at the block's begin; infinite where it was always there.
    """
    bid_ticks, bid_steps, ask_ticks, ask_steps = book
    shape = bid_ticks.shape[:2]
    scale, size_scale = temper.price_scale, temper.size_scale
    middle = (bid_ticks[:, :, 0] + ask_ticks[:, :, 0]) / 2.0 / scale
    weight = (np.arange(BLOCK_S) / BLOCK_S)[:, None]

    # Mark and index wander about the middle and about each other for seconds.
    white = noise.normal(streams.MARKS, b, (2, temper.n), _WARM_UP_S)
    wander = remember(white, _BASIS_MEMORY)[_WARM_UP_S:]
    mark = middle * (1.0 + 1e-4 * temper.mark_sd_bps * wander[:, 0])
    slow = premium_bps(noise, temper, b)
    premium = slow[0] + weight * (slow[1] - slow[0])
    index = mark * (1.0 - 1e-4 * (premium + temper.basis_sd_bps * wander[:, 1]))
    rate = np.repeat(funding_rate(temper, premium[::60]), 60, axis=0)  # recalculated once a minute

    # Volumes move twice a minute, as the sum over a day does: by next to nothing.
    knots = noise.knots(streams.VOLUME, b, b + 2)[:, :-1]
    wobble = knots[0] + weight[::30] * (knots[1] - knots[0])
    whole = temper.usd_per_s * 86_400.0 * np.repeat(np.exp(0.15 * wobble), 30, axis=0)
    volume = whole * np.minimum(1.0, (age_s + np.arange(BLOCK_S)[:, None]) / 86_400.0)

    high, low, opened = _day(temper, path, age_s, b, middle)
    interval_s = temper.funding_interval_h * 3600
    seconds = b * BLOCK_S + np.arange(BLOCK_S)
    next_funding = (seconds[:, None] // interval_s + 1) * interval_s * 1000
    return Block(
        first_second=b * BLOCK_S,
        bid_ticks=bid_ticks, bid_steps=bid_steps, ask_ticks=ask_ticks, ask_steps=ask_steps,
        quote_bid_ticks=bid_ticks[:, :, 0], quote_bid_steps=bid_steps[:, :, 0],
        quote_ask_ticks=ask_ticks[:, :, 0], quote_ask_steps=ask_steps[:, :, 0],
        is_fresh=np.ones(shape, dtype=np.bool_),
        last=_last_ticks(bid_ticks, trades) / scale,
        mark=np.rint(mark * scale) / scale,
        index=index,
        funding_rate=rate,
        next_funding_ms=next_funding.astype(np.int64),
        open_interest=np.rint(whole * 0.4 / temper.price * size_scale) / size_scale,
        base_volume=np.rint(volume / middle[0] * size_scale) / size_scale,
        quote_volume=np.rint(volume),
        open_24h=np.broadcast_to(np.rint(opened * scale) / scale, shape),
        high_24h=np.ceil(high * scale - 1e-6) / scale,
        low_24h=np.floor(low * scale + 1e-6) / scale,
        trades=trades,
    )  # fmt: skip


def _last_ticks(bid_ticks: Ints, trades: Trades) -> Floats:
    """Return the price of the newest trade before each second; the bid until the block has seen one."""
    last = np.zeros(bid_ticks.shape[:2], dtype=np.int64)
    t_of = np.repeat(np.arange(BLOCK_S), np.diff(trades.start))
    within = t_of < BLOCK_S - 1
    last[t_of[within] + 1, trades.symbol[within]] = trades.price_ticks[within]
    seen = np.maximum.accumulate(np.where(last > 0, np.arange(BLOCK_S)[:, None], 0), axis=0)
    last = np.take_along_axis(last, seen, axis=0)
    return np.where(last > 0, last, bid_ticks[:, :, 0]).astype(np.float64)


def _day(temper: Temper, path: Path, age_s: Floats, b: int, middle: Floats) -> tuple[Floats, Floats, Floats]:
    """Return (high, low) of the 24 hours before each second (BLOCK_S, N), and the price 24 hours ago (N,).

    Before this block they are taken from the prices of every fifth minute; a symbol younger than a day begins with
    its launch.
    """
    log_price = path.levels(b, _DAY_BLOCKS + 1)
    back = np.minimum(np.ceil(np.minimum(age_s, 86_400.0) / BLOCK_S), _DAY_BLOCKS).astype(np.int64)
    first = _DAY_BLOCKS - back
    is_in = np.arange(_DAY_BLOCKS + 1)[:, None] >= first
    high = temper.price * np.exp(np.where(is_in, log_price, -np.inf).max(0))
    low = temper.price * np.exp(np.where(is_in, log_price, np.inf).min(0))
    opened = temper.price * np.exp(np.take_along_axis(log_price, first[None], axis=0)[0])
    so_far = np.maximum.accumulate(middle, axis=0), np.minimum.accumulate(middle, axis=0)
    return np.maximum(high, so_far[0]), np.minimum(low, so_far[1]), opened
