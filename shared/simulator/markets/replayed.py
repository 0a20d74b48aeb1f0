"""What was received once, shown again: receipts of each symbol onto the grid of seconds, shifted to another time.

`ReplayedMarket` is the market; `recorded.RecordedMarket` (a folder of Parquet files) and `lake_market.LakeMarket` (our
own lake) say where the receipts come from. The rules are the same for both:

* The book of a second is the last one received before it began, so nothing is shown before it was received; a second
  before which nothing was received is silent. Trades keep their offset within their second.
* The ticker's quotes come from the `quotes` where there are some, from the book elsewhere; what was never received is
  unknown ("" on the wire), never invented; the mark is the mid where there is none.
* Time: second `begin + k` of the receipts becomes `anchor - past_s + k`. The first `past_s` seconds lie before the
  anchor; the rest is live and plays again and again, with ids and clocks that go on. At such a seam prices jump back:
  `seam_after` tells, and the server closes every socket.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.errors import SettingsError
from shared.simulator.ids import snowflake
from shared.simulator.markets.blocks import BLOCK_S, LEVELS, Block, Floats, Ints, Outline, Trades
from shared.types import NS

SECONDS_MIN = 60
"""What is shorter is no market worth the name."""

BLOCKS_KEPT = 4
SERIES = ("last", "mark", "index", "funding_rate", "open_interest", "base_volume", "quote_volume")
SIDES = ("bid_price", "bid_size", "ask_price", "ask_size")

Columns = dict[str, NDArray[Any]]


class Tape(msgspec.Struct, frozen=True):
    """What was received of one symbol, each table sorted by `recv_ns`; a table without rows is {}."""

    book: Columns  # recv_ns, and SIDES as (R, LEVELS), an absent level has size 0; is_push where not every row is one
    quotes: Columns  # recv_ns, and SIDES as (R,)
    trades: Columns  # recv_ns, price, size, side (> 0: the taker bought)
    series: dict[str, Columns]  # a name of SERIES -> recv_ns, value


class Grid(msgspec.Struct, frozen=True):
    """Seconds of N symbols; the shapes and units of `Block`."""

    levels: dict[str, Ints]  # SIDES -> (T, N, LEVELS)
    quotes: dict[str, Ints]  # SIDES -> (T, N)
    is_fresh: NDArray[np.bool_]
    series: dict[str, Floats]  # SERIES -> (T, N)
    trade_ns: Ints  # (R,) since the begin, oldest first; what follows is aligned with it
    trade_symbol: Ints
    trade_ticks: Ints
    trade_steps: Ints
    trade_side: Ints


class ReplayedMarket:
    """The base of the two; `_tapes` is what they have to bring.

    Args:
        source, kind, note: see `market.Market`.
        symbols: with the decimals of their prices and sizes.
        begin_s, length_s: seconds of the receipts that are replayed.
        past_s: how many of them lie before the anchor.
        anchor_s: when the live part begins.
        expire_ns: a state that is older is unknown; None: it lasts.
    """

    def __init__(
        self,
        *,
        source: str,
        kind: str,
        note: str,
        symbols: Sequence[str],
        price_places: Sequence[int],
        size_places: Sequence[int],
        begin_s: int,
        length_s: int,
        past_s: int,
        anchor_s: int,
        expire_ns: int | None = None,
    ) -> None:
        assert 0 < past_s < length_s, (past_s, length_s)
        self.source, self.kind, self.note = source, kind, note
        self.symbols = tuple(symbols)
        self.price_places, self.size_places = tuple(price_places), tuple(size_places)
        self.price_scale: Floats = np.array([10.0**place for place in price_places])
        self.size_scale: Floats = np.array([10.0**place for place in size_places])
        self.first_second = anchor_s - past_s
        """Nothing is shown before it."""
        self.length_s = length_s
        """Seconds from there to where the live part begins again."""
        self.history_end_ns: int | None = anchor_s * NS
        self._begin, self._past_s, self._live_s = begin_s, past_s, length_s - past_s
        self._anchor, self._expire_ns = anchor_s, expire_ns
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._lock = threading.Lock()

    def contracts(self, second: int | None = None) -> list[dict[str, Any]]:
        raise NotImplementedError

    def is_listed(self, second: int) -> NDArray[np.bool_]:
        return np.ones(len(self.symbols), dtype=np.bool_)

    def funding_hours(self) -> Ints:
        """Return the funding interval of every symbol, 0 where unknown; shape (N,)."""
        return np.zeros(len(self.symbols), dtype=np.int64)

    def seam_after(self, second: int) -> int | None:
        loops = max(0, (second - self._anchor) // self._live_s) + 1
        return self._anchor + loops * self._live_s

    def received_second(self, second: int) -> int:
        """Return the second of the receipts that is shown at `second`.

        Raises:
            SettingsError: it lies before the first.
        """
        first, at, _ = self._part(second)
        return self._begin + at + second - first

    def block(self, second: int) -> Block:
        first, at, length = self._part(second)
        # Blocks are cut within a part, so that none crosses a seam.
        skip = (second - first) // BLOCK_S * BLOCK_S
        first, at, length = first + skip, at + skip, min(BLOCK_S, length - skip)
        with self._lock:
            block = self._blocks.get(first)
        if block is None:
            block = self._cut(first, at, length)
        with self._lock:  # a server computes ahead in a thread
            self._blocks[first] = block
            self._blocks.move_to_end(first)
            while len(self._blocks) > BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        return block

    def outline(self, second: int) -> Outline:
        block = self.block(second)
        return Outline(**{name: getattr(block, name) for name in Outline.__struct_fields__})

    def _part(self, second: int) -> tuple[int, int, int]:
        """Return the first second, the offset and the length of the part that holds `second`: past, or a loop."""
        if second < self.first_second:
            raise SettingsError(
                f"the recording begins at second {self.first_second}, found {second}: ask for a later one"
            )
        if second < self._anchor:
            return self.first_second, 0, self._past_s
        loop = (second - self._anchor) // self._live_s
        return self._anchor + loop * self._live_s, self._past_s, self._live_s

    def _tapes(self, begin_s: int, length: int) -> list[Tape]:
        """Return what is needed to show these seconds, a tape a symbol."""
        raise NotImplementedError

    def _cut(self, first_second: int, at: int, length: int) -> Block:
        begin = self._begin + at
        scales = list(zip(self.price_scale.tolist(), self.size_scale.tolist(), strict=True))
        grid = lay(self._tapes(begin, length), scales, begin, length, self._expire_ns)
        ms = first_second * 1000 + grid.trade_ns // 1_000_000
        unknown = np.full((length, len(self.symbols)), np.nan)
        return Block(
            first_second=first_second,
            bid_ticks=grid.levels["bid_price"], bid_steps=grid.levels["bid_size"],
            ask_ticks=grid.levels["ask_price"], ask_steps=grid.levels["ask_size"],
            quote_bid_ticks=grid.quotes["bid_price"], quote_bid_steps=grid.quotes["bid_size"],
            quote_ask_ticks=grid.quotes["ask_price"], quote_ask_steps=grid.quotes["ask_size"],
            is_fresh=grid.is_fresh, next_funding_ms=self._next_funding_ms(first_second, length),
            open_24h=unknown, high_24h=unknown, low_24h=unknown, **grid.series,
            trades=Trades(
                start=np.searchsorted(grid.trade_ns, np.arange(length + 1) * NS),
                symbol=grid.trade_symbol, offset_ns=grid.trade_ns % NS, price_ticks=grid.trade_ticks,
                size_steps=grid.trade_steps, side=grid.trade_side,
                trade_id=snowflake(ms, np.arange(len(ms))),
            ),
        )  # fmt: skip

    def _next_funding_ms(self, first_second: int, length: int) -> Ints:
        """Return the next instant of each symbol's interval, on the clock of the replay, as the venue settles."""
        interval_s = self.funding_hours() * 3600
        seconds = first_second + np.arange(length)[:, None]
        return np.where(interval_s > 0, (seconds // np.maximum(interval_s, 1) + 1) * interval_s * 1000, 0)


def lay(
    tapes: Sequence[Tape],
    scales: Sequence[tuple[float, float]],
    begin_s: int,
    length: int,
    expire_ns: int | None = None,
) -> Grid:
    """Bring receipts onto the seconds [begin_s, begin_s + length).

    Args:
        scales: ticks per USDT and size steps per coin, a pair a symbol.
        expire_ns: a state that is older when a second begins is unknown; None: it lasts.
    """
    shape = length, len(tapes)
    starts_ns = (begin_s + np.arange(length)) * NS
    levels = {name: np.zeros((*shape, LEVELS), dtype=np.int64) for name in SIDES}
    quotes = {name: np.zeros(shape, dtype=np.int64) for name in SIDES}
    series = {name: np.full(shape, np.nan) for name in SERIES}
    is_fresh = np.zeros(shape, dtype=np.bool_)
    rows: list[tuple[Ints, ...]] = []
    for n, (tape, scale) in enumerate(zip(tapes, scales, strict=True)):
        book, by_side = tape.book, {name: scale[name.endswith("size")] for name in SIDES}
        if book:
            at, is_known = _as_of(book["recv_ns"], starts_ns, expire_ns)
            for name in SIDES:
                levels[name][:, n] = np.where(is_known[:, None], whole(book[name][at], by_side[name]), 0)
            pushed_ns = book["recv_ns"][book["is_push"]] if "is_push" in book else book["recv_ns"]
            is_fresh[:, n] = _as_of(pushed_ns, starts_ns, NS)[1]
        if tape.quotes:
            at, is_known = _as_of(tape.quotes["recv_ns"], starts_ns, expire_ns)
            for name in SIDES:
                quotes[name][:, n] = np.where(is_known, whole(tape.quotes[name][at], by_side[name]), 0)
        else:
            for name in SIDES:
                quotes[name][:, n] = levels[name][:, n, 0]
        for name, column in tape.series.items():
            at, is_known = _as_of(column["recv_ns"], starts_ns, expire_ns)
            series[name][:, n] = np.where(is_known, column["value"][at] if len(column["value"]) else np.nan, np.nan)
        touches = [(levels[f"{side}_price"][:, n, 0], levels[f"{side}_size"][:, n, 0]) for side in ("bid", "ask")]
        has_both = (touches[0][1] > 0) & (touches[1][1] > 0)
        mid = np.where(has_both, (touches[0][0] + touches[1][0]) / 2.0 / scale[0], np.nan)
        mark = np.where(np.isnan(series["mark"][:, n]), mid, series["mark"][:, n])
        # The venue and the ticker must know the same mark: whole ticks, as Bitget prints it.
        series["mark"][:, n] = np.rint(mark * scale[0]) / scale[0]
        if tape.trades:
            rows.append(_trade_rows(n, tape.trades, scale, begin_s, length))
    merged = [np.concatenate(columns) for columns in zip(*rows, strict=True)] if rows else [np.zeros(0, np.int64)] * 5
    # Oldest first; the order of receipt where it is the same instant.
    order = np.argsort(merged[0], kind="stable")
    trade_ns, symbol, ticks, steps, side = (column[order] for column in merged)
    return Grid(levels, quotes, is_fresh, series, trade_ns, symbol, ticks, steps, side)


def _as_of(recv_ns: Ints, starts_ns: Ints, expire_ns: int | None) -> tuple[Ints, NDArray[np.bool_]]:
    """Return the row of the last receipt before each second began, and whether there is one that still counts."""
    if not len(recv_ns):
        return np.zeros(len(starts_ns), np.int64), np.zeros(len(starts_ns), np.bool_)
    at = np.searchsorted(recv_ns, starts_ns, side="left") - 1
    is_known = at >= 0
    at = np.maximum(at, 0)
    if expire_ns is not None:
        is_known &= recv_ns[at] >= starts_ns - expire_ns
    return at, is_known


def _trade_rows(n: int, trades: Columns, scale: tuple[float, float], begin_s: int, length: int) -> tuple[Ints, ...]:
    offset = trades["recv_ns"] - begin_s * NS
    low, high = np.searchsorted(offset, (0, length * NS))
    rows = slice(int(low), int(high))
    ticks, steps = whole(trades["price"][rows], scale[0]), whole(trades["size"][rows], scale[1])
    side = np.where(trades["side"][rows] > 0, 1, -1).astype(np.int64)
    return offset[rows], np.full(len(ticks), n, dtype=np.int64), ticks, np.maximum(steps, 1), side


def whole(values: NDArray[Any], scale: float) -> Ints:
    """Return values as whole numbers of 1 / scale; 0 where absent."""
    result: Ints = np.rint(np.nan_to_num(values, nan=0.0) * scale).astype(np.int64)
    return result
