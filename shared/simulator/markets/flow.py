"""Trades of the generated market: taker orders that come in bursts, each of several fills.

A taker order's rate follows volatility, bursts of activity and the move that the second brings; its sign follows that
move, a tide that lasts for seconds, and (a little) the gap. Its size is lognormal; large ones take more fills.
"""

from __future__ import annotations

import math

import numpy as np

from shared.simulator.ids import snowflake
from shared.simulator.markets import noise as streams
from shared.simulator.markets.blocks import BLOCK_S, Floats, Ints, Trades
from shared.simulator.markets.noise import Noise
from shared.simulator.markets.path import WARM_UP_S, Quotes, Shocks, remember
from shared.simulator.markets.temper import CHILDREN_MEAN, PARENT_SD, Temper

_TIDE_MEMORY = 0.85
_BURST, _BUSY = 0.45, 0.45  # how activity changes the rate [ln]
_VOLUME_DAY = 0.55  # extra half-range of ln activity over a day, beyond volatility's
_PARENTS_MAX, _CHILDREN_MAX = 60, 120
_CHILD_SD = 1.4


def trades(
    noise: Noise, temper: Temper, b: int, quotes: Quotes, shocks: Shocks, bid_ticks: Ints, ask_ticks: Ints
) -> Trades:
    """Return the trades of block b, at the two best levels of the side that they take."""
    rng = noise.at(streams.TRADES, b)
    rows = slice(WARM_UP_S, WARM_UP_S + BLOCK_S)
    middle = (quotes.bid + quotes.ask)[WARM_UP_S:] / 2.0
    vol = quotes.volatility[rows]
    move = np.diff(middle, axis=0) / (temper.move_ticks * vol)
    size_of_move = np.minimum(np.abs(move), 5.0)
    hour = (b * BLOCK_S % 86_400) / 3600.0
    day = _VOLUME_DAY * math.cos((hour - 15.0) / 24.0 * 2.0 * math.pi) - 0.25 * _VOLUME_DAY**2
    usual = _BURST * shocks.burst + _BUSY * shocks.busy - 0.5 * (_BURST**2 + _BUSY**2) + day
    rate = (
        temper.parents_per_s
        * vol
        * np.exp(usual)
        * (1.0 - temper.driven + temper.driven / temper.usual_move * size_of_move)
    )
    parents = np.minimum(rng.poisson(rate), _PARENTS_MAX)
    forced = (move != 0.0) & (rng.random(parents.shape, dtype=np.float32) < temper.forced)
    parents = np.where(forced, np.maximum(parents, 1), parents)

    t_of, n_of = (np.repeat(index.ravel(), parents.ravel()) for index in np.indices(parents.shape, dtype=np.int32))
    tide = _tide(noise, temper, b)
    pressure = 1.2 * np.clip(move, -2.5, 2.5) + 0.8 * quotes.slow[rows] + 0.5 * tide
    is_buy = rng.random(len(t_of)) < 1.0 / (1.0 + np.exp(-pressure[t_of, n_of]))
    # A quarter of a second's orders follow one another within milliseconds, the rest comes when it comes.
    burst_at = rng.random(parents.shape, dtype=np.float32)
    alone = rng.random(len(t_of)) < 0.75
    place = np.where(alone, rng.random(len(t_of)), burst_at[t_of, n_of] + 0.03 * rng.exponential(size=len(t_of)))
    offset_ms = (np.minimum(place, 0.9985) * 1000.0).astype(np.int64)

    large = rng.standard_normal(len(t_of))
    usd = temper.parent_usd[n_of] * np.exp(PARENT_SD * large - PARENT_SD**2 / 2.0)
    fills = 1.5 * (0.5 * large + 0.866 * rng.standard_normal(len(t_of)))
    children = np.minimum(1 + np.floor(0.37 * (CHILDREN_MEAN - 0.6) * np.exp(fills)), _CHILDREN_MAX).astype(np.int64)

    row = np.repeat(np.arange(len(t_of)), children)
    first = np.cumsum(children) - children
    child = np.arange(len(row)) - first[row]
    part = np.exp(_CHILD_SD * rng.standard_normal(len(row)))
    part /= np.add.reduceat(part, first)[row] if len(row) else 1.0
    t_row, n_row, side = t_of[row], n_of[row], np.where(is_buy[row], 1, -1)
    level = np.where((child >= 2) & (rng.random(len(row)) < 0.3), 1, 0)
    price = np.where(side > 0, ask_ticks[t_row, n_row, level], bid_ticks[t_row, n_row, level])
    step = temper.size_step[n_row, 0, 0].astype(np.float64)
    wanted = usd[row] * part * temper.price_scale[n_row] * temper.size_scale[n_row] / price
    steps = (np.maximum(1.0, np.rint(wanted / step)) * step).astype(np.int64)
    offset_ns = offset_ms[row] * 1_000_000 + 500_000
    order = np.lexsort((child, row, offset_ns, t_row))
    t_row, offset_ns = t_row[order], offset_ns[order]
    ms = (b * BLOCK_S + t_row.astype(np.int64)) * 1000 + offset_ns // 1_000_000
    return Trades(
        start=np.searchsorted(t_row, np.arange(BLOCK_S + 1)),
        symbol=n_row[order].astype(np.int64),
        offset_ns=offset_ns,
        price_ticks=price[order],
        size_steps=steps[order],
        side=side[order],
        # The low bits count the block's trades, so ids increase with time and never repeat (40 symbols: ~20,000).
        trade_id=snowflake(ms, np.arange(len(order))),
    )


def _tide(noise: Noise, temper: Temper, b: int) -> Floats:
    """Return the sign's tide: standard normal, remembered for some seconds, (BLOCK_S, N)."""
    white = noise.normal(streams.TIDE, b, (temper.n,), WARM_UP_S)
    return remember(white, _TIDE_MEMORY)[WARM_UP_S:]
