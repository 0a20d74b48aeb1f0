"""The generated market: 1 to 1,000 perpetuals from one seed.

`GeneratedMarket` is a pure function of (seed, n_symbols, predictability, listings per day, absolute second): every
process that asks for a second gets the same bits, whatever it asked for before, so history and live are one market
and a restart continues it. (Same bits on one machine and numpy; another CPU may round a logarithm differently and
move a quote by a tick.) It is built from noise that is keyed by time, never carried from call to call; a recursion
starts at a fixed state before its block and has forgotten it when the block begins.

Where to look: `listing` (who there is), `universe` (who is listed when), `temper` (calibrated figures), `noise`,
`path` (prices and quotes), `book` (levels and sizes), `flow` (trades), `tape` (mark, index, funding, 24 h).

What gives it away: the market moves on whole seconds and pushes repeat it; no order reacts to another, ours least of
all; the levels behind the touch know nothing of where they stood before; a symbol's high of 24 hours is that of every
fifth minute until the current block. A classifier on features of one second (tests/shared/simulator/
test_market_probes.py) tells it from recorded books at AUC 0.74, first by the width of the best five levels, the
notional of trades, and touches that change a little in every second where real ones rest or change a lot.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import SettingsError
from shared.simulator.markets import book, flow, tape
from shared.simulator.markets.blocks import BLOCK_S, LEVELS, Block, Floats, Outline
from shared.simulator.markets.listing import default_listings_per_day, listings, listings_per_day_max
from shared.simulator.markets.noise import Noise, keep
from shared.simulator.markets.path import Path
from shared.simulator.markets.temper import DEFAULT_PREDICTABILITY, PREDICTABILITY_MAX, Temper
from shared.simulator.markets.universe import Comings

_BLOCKS_KEPT = 4


class GeneratedMarket:
    """A market from one seed; see the module's docstring.

    Args:
        seed: any int in [0, 2^32).
        n_symbols: 1 to 1,000.
        predictability: about the share [1] of a small alt's 10 s return variance that a linear model explains from
            what is public; in [0, PREDICTABILITY_MAX]. 0: nothing can be predicted.
        listings_per_day: how many symbols are listed in a day, and how many removed; 0: none. None: Bitget's pace
            of 2026 for as many symbols, none below `listing.STATIC_BELOW`.

    Raises:
        SettingsError: an argument is out of bounds.
    """

    kind = "generated"

    def __init__(
        self,
        seed: int,
        n_symbols: int,
        predictability: float = DEFAULT_PREDICTABILITY,
        listings_per_day: float | None = None,
    ) -> None:
        if not 1 <= n_symbols <= 1000:
            raise SettingsError(
                f"the generated market has 1 to 1000 symbols, found {n_symbols}: choose --symbols in between"
            )
        if not 0.0 <= predictability <= PREDICTABILITY_MAX:
            raise SettingsError(
                f"predictability must be in [0, {PREDICTABILITY_MAX}], found {predictability}: "
                "choose --predictability in between (real books reach about 0.24)"
            )
        if not 0 <= seed < 2**32:
            raise SettingsError(f"the seed must be in [0, 2^32), found {seed}: choose --seed in between")
        usual = default_listings_per_day(n_symbols)
        self.listings_per_day = usual if listings_per_day is None else float(listings_per_day)
        most = listings_per_day_max(n_symbols)
        if not 0.0 <= self.listings_per_day <= most:
            raise SettingsError(
                f"listings a day must be in [0, {most:g}] for {n_symbols} symbols, found {self.listings_per_day:g}: "
                "choose --listings-per-day in between"
            )
        self.seed, self.predictability = seed, predictability
        self.history_end_ns: int | None = None
        self.listings = listings(n_symbols, self.listings_per_day)
        self.symbols = tuple(listing.symbol for listing in self.listings)
        suffix = "" if predictability == DEFAULT_PREDICTABILITY else f"-p{predictability:.2f}"
        if self.listings_per_day != usual:
            suffix += f"-l{self.listings_per_day:g}"
        self.source = f"simulator-g{seed}-{n_symbols}{suffix}"
        n_followers = sum(listing.tier in ("small", "stock") for listing in self.listings)
        self.note = (
            f"generated market: {n_followers} small ones are followers, planted 10 s R2 about {predictability:.2f}"
            if predictability
            else "generated market: nothing can be predicted"
        )
        self.price_places = tuple(listing.price_place for listing in self.listings)
        self.size_places = tuple(listing.volume_place for listing in self.listings)
        self._temper = Temper(self.listings, predictability)
        self.price_scale, self.size_scale = self._temper.price_scale, self._temper.size_scale
        self._comings = Comings(self.listings)
        self._noise = Noise(seed, n_symbols)
        self._path = Path(self._noise, self._temper)
        self._blocks: OrderedDict[int, Block] = OrderedDict()

    def contracts(self, second: int | None = None) -> list[dict[str, Any]]:
        return self._comings.contracts(second)

    def is_listed(self, second: int) -> NDArray[np.bool_]:
        return self._comings.is_listed(second)

    def seam_after(self, second: int) -> int | None:
        return None

    def block(self, second: int) -> Block:
        b = second // BLOCK_S
        # Several readers (event loop, prefetching thread) may ask at once: at worst a block is computed twice.
        found = self._blocks.get(b)
        if found is None:
            found = self._comings.without_unlisted(self._compute(b))
            keep(self._blocks, b, found, _BLOCKS_KEPT)
        return found

    def outline(self, second: int) -> Outline:
        """Return the trades and prices of the block that holds `second`, not cached.

        Sizes of the book are most of what a block costs, and nothing depends on them.
        """
        return self._comings.outline(self._compute(second // BLOCK_S, with_sizes=False))

    def funding_rate(self, second: int) -> Floats:
        """Return the rates [1] that run in `second`, (N,), NaN where a symbol is not listed; cheap."""
        rates = tape.funding_rate_at(self._noise, self._temper, second)
        return np.where(self._comings.is_listed(second), rates, np.nan)

    def hour(self, hour: int) -> list[Block]:
        """Return the blocks of one hour, in order."""
        return [self.block(hour * 3600 + s) for s in range(0, 3600, BLOCK_S)]

    def _compute(self, b: int, *, with_sizes: bool = True) -> Block:
        noise, temper, path = self._noise, self._temper, self._path
        quotes = path.quotes(b)
        # Trades reach no deeper than the second level.
        bid_ticks, ask_ticks = book.levels(noise, temper, b, quotes, LEVELS if with_sizes else 2)
        bid_steps = ask_steps = np.broadcast_to(np.int64(0), bid_ticks.shape)
        if with_sizes:
            bid_steps, ask_steps = book.sizes(noise, temper, b, quotes)
        trades = flow.trades(noise, temper, b, quotes, path.shocks(b), bid_ticks, ask_ticks)
        age_s = self._comings.age_s(b * BLOCK_S)
        return tape.block_of(noise, temper, path, age_s, b, (bid_ticks, bid_steps, ask_ticks, ask_steps), trades)


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Add what describes a generated market on a command line."""
    p.add_argument(
        "--symbols",
        type=int,
        default=40,
        help="how many perpetuals the generated market lists, 1 to 1000 (default: 40)",
    )
    p.add_argument("--seed", type=int, default=7, help="the generated market's seed (default: 7)")
    p.add_argument(
        "--predictability", type=float, default=DEFAULT_PREDICTABILITY,
        help=f"10 s R2 that small alts are given; 0: nothing can be predicted (default: {DEFAULT_PREDICTABILITY})",
    )  # fmt: skip
    p.add_argument(
        "--listings-per-day", type=float,
        help="how many perpetuals are listed in a day, and how many removed: 0 none, 1440 one a minute "
        "(default: Bitget's pace for so many symbols, none below 100)",
    )  # fmt: skip


def from_arguments(args: argparse.Namespace) -> GeneratedMarket:
    """Return the market that a command line describes."""
    return GeneratedMarket(args.seed, args.symbols, args.predictability, args.listings_per_day)
