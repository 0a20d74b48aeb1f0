"""What a market did before now: its public trades and its settled funding rates, newest first.

Trades are read from the market when asked for, a block at a time and in a thread, so the event loop never computes one.
Trades reach back as far as candles do (`candles.Candles.retained_s`), funding rates `FUNDING_DAYS` or to the launch.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.simulator.ids import ms_of
from shared.simulator.markets.blocks import Floats, Trades
from shared.simulator.markets.candles import decimal_text
from shared.simulator.markets.market import Market
from shared.types import NS

FUNDING_DAYS = 90
BLOCKS_KEPT = 16
"""Trades of so many blocks: 20 MB of 600 symbols, and the pages of one client walking back."""

_HOUR_MS = 3_600_000


class _Piece(msgspec.Struct, frozen=True):
    """The trades of some seconds."""

    first_second: int
    end_second: int
    trades: Trades


class Past:
    """Trades and funding rates of one market.

    Args:
        retained_s: how far trades reach back.
    """

    def __init__(self, market: Market, retained_s: int) -> None:
        self._market, self._retained_s = market, retained_s
        self._position = {symbol: n for n, symbol in enumerate(market.symbols)}
        self._first_second: int | None = getattr(market, "first_second", None)  # of a recording
        self._pieces: OrderedDict[int, _Piece] = OrderedDict()

    async def trades(
        self,
        symbol: str,
        now_ns: int,
        limit: int,
        *,
        before_id: int | None = None,
        begin_ms: int | None = None,
        end_ms: int | None = None,
    ) -> list[dict[str, str]]:
        """Return the newest `limit` trades before `now_ns`, newest first, in the fields of `fills`.

        Args:
            before_id: only ids below it.
            begin_ms, end_ms: only times in [begin_ms, end_ms].
        """
        n, now_s = self._position[symbol], now_ns // NS
        oldest = now_s - self._retained_s
        if begin_ms is not None:
            oldest = max(oldest, begin_ms // 1000)
        if self._first_second is not None:
            oldest = max(oldest, self._first_second)
        newest_ms = now_ns // 1_000_000
        if end_ms is not None:
            newest_ms = min(newest_ms, end_ms)
        if before_id is not None:
            newest_ms = min(newest_ms, ms_of(before_id))
        found: list[dict[str, str]] = []
        second = min(newest_ms // 1000, now_s)
        while second >= oldest and len(found) < limit:
            piece = await self._piece(second, is_near=second >= now_s - 1)
            times_ns, rows = _of(piece, n)
            keep = times_ns < now_ns
            if begin_ms is not None:
                keep &= times_ns >= begin_ms * 1_000_000
            if end_ms is not None:
                keep &= times_ns // 1_000_000 <= end_ms
            if before_id is not None:
                keep &= piece.trades.trade_id[rows] < before_id
            times_ns, rows = times_ns[keep][::-1], rows[keep][::-1]
            found += self._texts(symbol, n, piece.trades, times_ns[: limit - len(found)], rows[: limit - len(found)])
            second = piece.first_second - 1
        return found

    async def funding_rates(
        self, symbol: str, now_ns: int, interval_h: int, skip: int, count: int, launch_ms: int = 0
    ) -> list[tuple[int, float]]:
        """Return (settlement ms, rate [1]) of `count` settlements after the newest `skip`, newest first.

        What the venue has paid at an instant is the last rate before it.

        Args:
            launch_ms: when the symbol was listed; there was nothing to settle before.
        """
        n, step_ms = self._position[symbol], interval_h * _HOUR_MS
        now_ms = now_ns // 1_000_000
        oldest_ms = max(now_ms - FUNDING_DAYS * 24 * _HOUR_MS, launch_ms + 1)
        if self._first_second is not None:
            oldest_ms = max(oldest_ms, (self._first_second + 1) * 1000)
        found: list[tuple[int, float]] = []
        at_ms = now_ms // step_ms * step_ms - skip * step_ms
        while at_ms >= oldest_ms and len(found) < count:
            rate = float((await self._rates_at(at_ms // 1000 - 1))[n])
            if math.isnan(rate):
                break  # not known further back
            found.append((at_ms, rate))
            at_ms -= step_ms
        return found

    async def _piece(self, second: int, *, is_near: bool) -> _Piece:
        """Return the seconds around `second`; where they are near, the block is at hand and needs no thread."""
        for piece in self._pieces.values():
            if piece.first_second <= second < piece.end_second:
                return piece
        outline = getattr(self._market, "outline", self._market.block)
        part = self._market.block(second) if is_near else await asyncio.to_thread(outline, second)
        piece = _Piece(part.first_second, part.first_second + len(part.trades.start) - 1, part.trades)
        self._pieces[piece.first_second] = piece
        while len(self._pieces) > BLOCKS_KEPT:
            self._pieces.popitem(last=False)
        return piece

    async def _rates_at(self, second: int) -> Floats:
        """Return the funding rates that were running in `second`, (N,)."""
        cheap: Callable[[int], Floats] | None = getattr(self._market, "funding_rate", None)
        if cheap is not None:
            return cheap(second)
        part = await asyncio.to_thread(self._market.block, second)  # of a recording: it is there
        rates: Floats = part.funding_rate[second - part.first_second]
        return rates

    def _texts(
        self, symbol: str, n: int, trades: Trades, times_ns: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> list[dict[str, str]]:
        price_place, size_place = self._market.price_places[n], self._market.size_places[n]
        columns: Sequence[list[int]] = [
            column.tolist()
            for column in (
                trades.trade_id[rows], trades.price_ticks[rows], trades.size_steps[rows], trades.side[rows],
                times_ns // 1_000_000,
            )
        ]  # fmt: skip
        return [
            {
                "tradeId": str(trade_id), "price": decimal_text(ticks, price_place),
                "size": decimal_text(steps, size_place), "side": "buy" if side > 0 else "sell", "ts": str(ms),
                "symbol": symbol,
            }
            for trade_id, ticks, steps, side, ms in zip(*columns, strict=True)
        ]  # fmt: skip


def _of(piece: _Piece, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (time in ns, row) of one symbol's trades, oldest first."""
    trades = piece.trades
    rows = np.flatnonzero(trades.symbol == n)
    seconds = piece.first_second + np.searchsorted(trades.start, rows, side="right") - 1
    return seconds * NS + trades.offset_ns[rows], rows
