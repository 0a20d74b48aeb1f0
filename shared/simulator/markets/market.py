"""The port of every market, and how to look at one: blocks of whole seconds on a 1 Hz grid.

Row t of a block is what the market shows *from* second `first_second + t` on; the trades of row t happen within that
second, against the book of that row. Implementations: `generated.GeneratedMarket` (re-exported here),
`recorded.RecordedMarket`.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.simulator.markets.blocks import BLOCK_S, LEVELS, Block, Floats, Ints, Trades
from shared.simulator.markets.generated import GeneratedMarket
from shared.simulator.markets.temper import DEFAULT_PREDICTABILITY, PREDICTABILITY_MAX
from shared.types import NS

__all__ = [
    "BLOCK_S", "DEFAULT_PREDICTABILITY", "LEVELS", "NS", "PREDICTABILITY_MAX",
    "Block", "Depth", "GeneratedMarket", "Market", "Trades", "depth_at",
]  # fmt: skip


class Market(Protocol):
    """A market on a 1 Hz grid. Symbols keep their position; prices are ticks / price_scale."""

    source: str  # as in the lake: "simulator-…"
    kind: str  # "generated" or "recorded"
    note: str  # one sentence for the reader of a report
    symbols: tuple[str, ...]
    price_scale: Floats  # (N,) ticks per USDT
    size_scale: Floats  # (N,) size steps per base coin
    price_places: tuple[int, ...]
    size_places: tuple[int, ...]
    history_end_ns: int | None  # where a recording's history ends and its live part begins; None: it never ends

    def contracts(self, second: int | None = None) -> list[dict[str, Any]]:
        """Return the rows of `GET /api/v2/mix/market/contracts` as they stand at `second`; not to be changed.

        None: every row that there ever is, one for each of `symbols` and in their order, as of a trading symbol.
        While nothing changes, the same list is returned: `is` tells whether the rules are still those of before.
        """

    def is_listed(self, second: int) -> NDArray[np.bool_]:
        """Return which symbols have a market at `second`, shape (N,): the others have no book and no trades.

        A symbol before its launch and one that was just removed may still have a contract row.
        """

    def block(self, second: int) -> Block:
        """Return the block that holds `second`; blocks are aligned and cached.

        Raises:
            SettingsError: a recording has nothing for that second.
        """

    def seam_after(self, second: int) -> int | None:
        """Return the first second > `second` before which every socket must be closed; None: there is none."""


class Depth(msgspec.Struct, frozen=True):
    """The visible book of one second as floats; an absent level has price NaN and size 0."""

    bid_price: Floats  # (N, LEVELS)
    bid_size: Floats
    ask_price: Floats
    ask_size: Floats


def depth_at(market: Market, second: int) -> Depth:
    """Return every symbol's visible book of `second`, shape (N, LEVELS), in USDT and base coin."""
    block = market.block(second)
    t = second - block.first_second
    price, size = market.price_scale[:, None], market.size_scale[:, None]

    def side(ticks: Ints, steps: Ints) -> tuple[Floats, Floats]:
        # Ticks over a power of ten round to the float nearest to the printed decimal; ticks x 0.1 would not.
        return np.where(steps > 0, ticks / price, np.nan), steps / size

    return Depth(*side(block.bid_ticks[t], block.bid_steps[t]), *side(block.ask_ticks[t], block.ask_steps[t]))
