"""Comings and goings on the grid: which symbols have a market in a second, and a block without those that have none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.simulator.markets.blocks import BLOCK_S, Block, Outline, Trades
from shared.simulator.markets.listing import ALWAYS, Life, Listing, contract_row

Bools = NDArray[np.bool_]


class Comings:
    """The lives of the listed symbols; N of them. Everything is a function of the second asked for."""

    def __init__(self, rows: Sequence[Listing]) -> None:
        self._listings = rows
        self._lives: list[tuple[int, Life]] = [(n, row.life) for n, row in enumerate(rows) if row.life is not None]
        self._known: tuple[int, int, list[dict[str, Any]]] = (0, 0, [])
        self._trading: tuple[int, int, Bools] = (0, 0, np.zeros(0, dtype=np.bool_))

    def contracts(self, second: int | None) -> list[dict[str, Any]]:
        """Return the contract rows of `second`; None: of all symbols, as if they traded. See `Market.contracts`."""
        if second is None:
            return [contract_row(listing, ALWAYS) for listing in self._listings]
        begin, end, rows = self._known
        if not begin <= second < end:
            rows, end = [], 2**62
            for listing in self._listings:
                phase, until = listing.life.at(second) if listing.life is not None else (ALWAYS, 2**62)
                end = min(end, until)
                if phase is not None:
                    rows.append(contract_row(listing, phase))
            self._known = second, end, rows
        return rows

    def is_listed(self, second: int) -> Bools:
        """Return who trades at `second`, (N,), read-only."""
        begin, end, listed = self._trading
        if not begin <= second < end:
            listed, end = np.ones(len(self._listings), dtype=np.bool_), 2**62
            for n, life in self._lives:
                phase, until = life.at(second)
                end = min(end, until)
                listed[n] = phase is not None and phase.is_trading
            listed.flags.writeable = False
            self._trading = second, end, listed
        return listed

    def age_s(self, second: int) -> NDArray[np.float64]:
        """Return for how long each symbol has traded at `second`, (N,); infinite where always."""
        age = np.full(len(self._listings), np.inf)
        for n, life in self._lives:
            age[n] = max(0, second - life.launch_s(second))
        return age

    def without_unlisted(self, block: Block) -> Block:
        """Return the block with nothing in the seconds in which a symbol does not trade."""
        listed = self._listed_in(block.first_second)
        if listed is None:
            return block

        def blank(name: str) -> NDArray[Any]:
            values: NDArray[Any] = getattr(block, name)
            keep = listed[:, :, None] if values.ndim == 3 else listed
            return np.where(keep, values, np.nan if values.dtype.kind == "f" else 0).astype(values.dtype)

        grids = {name: blank(name) for name in block.__struct_fields__ if name not in ("first_second", "trades")}
        return msgspec.structs.replace(block, **grids, trades=_kept(block.trades, listed))

    def outline(self, block: Block) -> Outline:
        """Return the trades and prices of a block, nothing where a symbol does not trade."""
        listed = self._listed_in(block.first_second)
        prices = {name: getattr(block, name) for name in ("mark", "index", "funding_rate")}
        trades, is_fresh = block.trades, block.is_fresh
        if listed is not None:
            prices = {name: np.where(listed, values, np.nan) for name, values in prices.items()}
            trades, is_fresh = _kept(trades, listed), is_fresh & listed
        return Outline(first_second=block.first_second, trades=trades, is_fresh=is_fresh, **prices)

    def _listed_in(self, first: int) -> Bools | None:
        """Return who trades in which second of the block that begins at `first`, (BLOCK_S, N); None: everybody."""
        listed = np.ones((BLOCK_S, len(self._listings)), dtype=np.bool_)
        for n, life in self._lives:
            at = first
            while at < first + BLOCK_S:
                phase, until = life.at(at)
                listed[at - first : until - first, n] = phase is not None and phase.is_trading
                at = until
        return None if listed.all() else listed


def _kept(trades: Trades, listed: Bools) -> Trades:
    """Return the trades of symbols that were trading, `listed` (BLOCK_S, N)."""
    t_of = np.repeat(np.arange(BLOCK_S), np.diff(trades.start))
    keep = listed[t_of, trades.symbol]
    columns = {name: getattr(trades, name)[keep] for name in trades.__struct_fields__ if name != "start"}
    return Trades(start=np.searchsorted(t_of[keep], np.arange(BLOCK_S + 1)), **columns)
