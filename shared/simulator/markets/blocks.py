"""The shape of what a market shows: blocks of whole seconds, prices in ticks, sizes in steps."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

BLOCK_S: Final = 300
"""Seconds in a block of the generated market; an hour is a whole number of them."""

LEVELS: Final = 15

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]


class Trades(msgspec.Struct, frozen=True):
    """The public trades of a block, oldest first; R trades."""

    start: Ints  # (T + 1,) rows of second t are start[t]:start[t + 1]
    symbol: Ints  # (R,) position in `Market.symbols`
    offset_ns: Ints  # (R,) since the beginning of its second
    price_ticks: Ints  # (R,)
    size_steps: Ints  # (R,)
    side: Ints  # (R,) +1 the taker bought, -1 the taker sold
    trade_id: Ints  # (R,) increasing, unique over all symbols and blocks


class Block(msgspec.Struct, frozen=True):
    """T whole seconds of N symbols. Prices in ticks, sizes in size steps; an absent level has size 0."""

    first_second: int
    bid_ticks: Ints  # (T, N, LEVELS), best first
    bid_steps: Ints
    ask_ticks: Ints
    ask_steps: Ints
    quote_bid_ticks: Ints  # (T, N) the touch as the ticker tells it
    quote_bid_steps: Ints
    quote_ask_ticks: Ints
    quote_ask_steps: Ints
    is_fresh: NDArray[np.bool_]  # (T, N) False: nothing was published in this second (recordings have gaps)
    last: Floats  # (T, N) USDT; like all below NaN where unknown
    mark: Floats
    index: Floats
    funding_rate: Floats  # [1] per interval
    next_funding_ms: Ints  # (T, N), 0 where unknown
    open_interest: Floats  # base coin
    base_volume: Floats  # 24 h, base coin
    quote_volume: Floats  # 24 h, USDT
    open_24h: Floats
    high_24h: Floats
    low_24h: Floats
    trades: Trades


class Outline(msgspec.Struct, frozen=True):
    """What of a block candles and histories are made of; bit for bit the block's."""

    first_second: int
    trades: Trades
    is_fresh: NDArray[np.bool_]  # (T, N)
    mark: Floats  # (T, N) USDT, NaN where unknown
    index: Floats
    funding_rate: Floats  # [1] per interval
