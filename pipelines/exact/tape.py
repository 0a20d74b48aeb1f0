"""Raw rows of the lake on the market's clock: books, trades and marks of one symbol for some minutes.

Two clocks. A row was *received* at `recv_ns`; what it shows happened in the market `feed latency` earlier, and matching
works on that time. The exchange stamps rows with a clock of its own: where that lies behind ours all along, recv - exch
is the latency as recorded; where some row would have arrived before it was sent, the clocks differ, and all of the
window is shifted so that the fastest row took `FASTEST_NS`. Nobody can tell a constant offset from a constant latency,
so this is an assumption, and a kind one.

Blocks are read when somebody is concerned with the symbol, and most symbols of most minutes concern nobody: a run of a
few symbols reads a fraction of the lake. A read costs 30 ms however few rows it brings, and a file is decoded by groups
of neighbouring symbols and whole hours in any case: so blocks are read together, those of the next hour as long as
there is room for everybody's, and those of quiet symbols, as many as make `AT_ONCE_ROWS`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipelines.exact.latency import Distribution, feed_ns
from shared.errors import TableEmpty
from shared.lake import read
from shared.types import NS, BookTicks, Floats, Ints, TickerTicks, TickEvent, TradeTicks

BLOCK_S = 900
"""A symbol's minutes that are read at once: 9,000 books at ten a second are 5 MB."""

BYTES_KEPT = 1 << 30
"""Blocks beyond these, those first that were read or come back to first, are read again."""

AT_ONCE_ROWS = 100_000
"""What the lake stores together (`layout.Table.group_rows`)."""

AT_ONCE_SYMBOLS, AT_ONCE_BLOCKS = 64, 4

NEVER_NS = (1 << 63) - 1
GONE_NS = -1
"""When somebody is due who waits for nothing."""

FASTEST_NS = 1_000_000
BEFORE_S = 30
"""A state that is older is no state (the sampler's rule), so a block's first book is sought no further back."""
AFTER_S = 5
"""A row that was received later than this after it happened belongs to no block."""


Table = TypeVar("Table", BookTicks, TradeTicks, TickerTicks)


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One symbol's rows of [begin_ns, end_ns), market's clock, each table in order. Absent levels are NaN.

    A book and a mark from before `begin_ns` may stand first: what was in force at the beginning.
    """

    begin_ns: int
    end_ns: int
    book_ns: Ints  # (R,)
    bids: Floats  # (R, K, 2): price, size
    asks: Floats
    trade_ns: Ints  # (Q,)
    trade_price: Floats
    trade_size: Floats
    trade_side: NDArray[np.int8]  # +1 the taker bought
    mark_ns: Ints  # (M,)
    mark: Floats
    index: Floats
    rate: Floats  # running funding rate, [1] per interval

    @property
    def n_events(self) -> int:
        return len(self.book_ns) + len(self.trade_ns) + len(self.mark_ns)

    @property
    def n_bytes(self) -> int:
        return sum(getattr(self, name).nbytes for name in self.__struct_fields__[2:])

    def book_at(self, now_ns: int) -> int:
        """Return the row of the book in force, -1 before the first."""
        return int(self.book_ns.searchsorted(now_ns, side="right")) - 1

    def mark_at(self, now_ns: int) -> int:
        return int(self.mark_ns.searchsorted(now_ns, side="right")) - 1


class Tape(Protocol):
    """Where the market comes from."""

    def block(self, symbol: str, now_ns: int) -> Block:
        """Return the block that holds a time; without rows where nothing was recorded."""
        ...


class ArraysTape:
    """A tape of one block a symbol, which must last longer than anybody looks: recordings, tests."""

    def __init__(self, blocks: Mapping[str, Block]) -> None:
        self._blocks = dict(blocks)

    def block(self, symbol: str, now_ns: int) -> Block:
        block = self._blocks[symbol]
        assert now_ns < block.end_ns, f"the block of {symbol} ends before {now_ns}"
        return block


class LakeTape:
    """A window of one source of the lake.

    Args:
        start_s, end_s: the window; blocks lie in it.
        symbols: that may be read together; a symbol that is not among them is read alone.
        feed: None: latencies as recorded.
    """

    def __init__(
        self,
        lake: Path,
        source: str,
        start_s: int,
        end_s: int,
        *,
        symbols: Iterable[str] = (),
        feed: Distribution | None = None,
        seed: int = 0,
        block_s: int = BLOCK_S,
    ) -> None:
        self._lake, self._source = lake, source
        self.start_ns, self.end_ns = start_s * NS, end_s * NS
        self._feed, self._seed = feed, seed
        self._block_ns = block_s * NS
        self._symbols = sorted(symbols)  # as the lake has them
        self._kept: OrderedDict[tuple[str, int], Block] = OrderedDict()
        self._kept_bytes = 0
        self._last: dict[str, Block] = {}  # by symbol, of what is kept: time goes on, and mostly stays in it
        self._rows_read = self._bytes_read = self._blocks_read = 0
        self.shift_ns = 0 if feed is not None else _shift_ns(lake, source, start_s, end_s)

    def block(self, symbol: str, now_ns: int) -> Block:
        last = self._last.get(symbol)
        if last is not None and last.begin_ns <= now_ns < last.end_ns:
            return last
        k = max(now_ns - self.start_ns, 0) // self._block_ns
        found = self._kept.get((symbol, k))
        if found is None:
            for name, at, block in self._read(*self._together(symbol, k)):
                if (name, at) in self._kept:
                    continue
                self._kept[name, at] = block
                self._kept_bytes += block.n_bytes
                self._rows_read += block.n_events
                self._bytes_read += block.n_bytes
                self._blocks_read += 1
            found = self._kept[symbol, k]
            self._kept.move_to_end((symbol, k))
            while self._kept_bytes > BYTES_KEPT and len(self._kept) > 1:
                (name, _), old = self._kept.popitem(last=False)
                self._kept_bytes -= old.n_bytes
                if self._last.get(name) is old:
                    del self._last[name]
        else:
            self._kept.move_to_end((symbol, k))
        self._last[symbol] = found
        return found

    def _together(self, symbol: str, k: int) -> tuple[list[str], range]:
        """Return the symbol with those after it, and the block with those after it, that are best read together.

        What was read so far says how many: blocks as long as all symbols' have room, symbols as long as rows are few.
        """
        place = bisect_left(self._symbols, symbol)
        is_listed = place < len(self._symbols) and self._symbols[place] == symbol
        if not self._blocks_read:
            n_blocks, n_symbols = 1, 8
        else:
            n_bytes = max(self._bytes_read * max(len(self._symbols), 1) // self._blocks_read, 1)
            n_blocks = min(max(BYTES_KEPT // n_bytes, 1), AT_ONCE_BLOCKS)
            rows = max(self._rows_read * n_blocks // self._blocks_read, 1)
            n_symbols = min(max(AT_ONCE_ROWS // rows, 1), AT_ONCE_SYMBOLS)
        n_left = -(-(self.end_ns - self.start_ns) // self._block_ns) - k
        blocks = range(k, k + max(min(n_blocks, n_left), 1))
        if not is_listed:
            return [symbol], blocks
        following = (name for name in self._symbols[place:] if (name, k) not in self._kept)
        return list(islice(following, n_symbols)), blocks

    def _read(self, symbols: Sequence[str], blocks: range) -> Iterator[tuple[str, int, Block]]:
        def spans(first: int, end: int) -> tuple[int, int]:
            """Return when rows of the blocks [first, end) are received."""
            begin_ns, end_ns = (self.start_ns + k * self._block_ns for k in (first, end))
            return begin_ns - BEFORE_S * NS, end_ns + AFTER_S * NS

        n = len(symbols)
        try:
            ticks = read.read_ticks(
                self._lake, self._source, *spans(blocks[0], blocks[-1] + 1), symbols, is_sorted=False
            )
        except TableEmpty:
            ticks = None
        tables: Iterable[tuple[BookTicks, TradeTicks, TickerTicks] | None] = [None] * n
        if ticks is not None:
            tables = zip(
                by_symbol(ticks.books, n), by_symbol(ticks.trades, n), by_symbol(ticks.tickers, n), strict=True
            )
        for symbol, rows in zip(symbols, tables, strict=True):
            for k in blocks:
                begin_ns = self.start_ns + k * self._block_ns
                end_ns = begin_ns + self._block_ns
                if rows is None:
                    yield symbol, k, empty_block(begin_ns, end_ns)
                    continue
                span = spans(k, k + 1)
                books, trades, tickers = _received(rows[0], span), _received(rows[1], span), _received(rows[2], span)
                happened_ns = partial(self._happened_ns, symbol)
                yield symbol, k, block_of(books, trades, tickers, begin_ns, end_ns, happened_ns)

    def _happened_ns(self, symbol: str, table: BookTicks | TradeTicks | TickerTicks) -> Ints:
        """Return when rows happened, never later than the row after them."""
        if self._feed is not None:
            happened = table.recv_ns - feed_ns(self._feed, self._seed, symbol, len(table.recv_ns))
        else:
            stamped = np.where(table.exch_ns > 0, table.exch_ns + self.shift_ns, table.recv_ns - FASTEST_NS)
            happened = np.minimum(stamped, table.recv_ns)
        return np.maximum.accumulate(happened) if len(happened) else happened


def by_symbol(table: Table, n_symbols: int) -> Iterator[Table]:
    """Return the rows of one symbol of the axis after another, in order of receipt."""
    if (table.symbol[1:] < table.symbol[:-1]).any():
        table = _take(table, table.symbol.argsort(kind="stable"))
    ends = table.symbol.searchsorted(np.arange(n_symbols + 1)).tolist()
    for begin, end in pairwise(ends):
        rows = _take(table, slice(begin, end))
        if (rows.recv_ns[1:] < rows.recv_ns[:-1]).any():
            rows = _take(rows, rows.recv_ns.argsort(kind="stable"))
        yield rows


def _received(table: Table, span: tuple[int, int]) -> Table:
    """Return the rows that were received in a span of time; they lie in this order."""
    first, end = table.recv_ns.searchsorted(span).tolist()
    return _take(table, slice(first, end))


class _Clock(Protocol):
    def __call__(self, table: BookTicks | TradeTicks | TickerTicks) -> Ints: ...


def block_of(
    books: BookTicks, trades: TradeTicks, tickers: TickerTicks, begin_ns: int, end_ns: int, happened_ns: _Clock
) -> Block:
    """Return the rows of one symbol's tables as a block: pushes alone, and the state that was carried to its start."""
    book_ns, rows = _window(_pushed(books), happened_ns, begin_ns, end_ns, carries=True)
    depth = _depth(rows)
    bids = np.stack([rows.bid_price[:, :depth], rows.bid_size[:, :depth]], axis=-1)
    asks = np.stack([rows.ask_price[:, :depth], rows.ask_size[:, :depth]], axis=-1)
    trade_ns, traded = _window(_pushed(trades), happened_ns, begin_ns, end_ns, carries=False)
    mark_ns, told = _window(_pushed(tickers), happened_ns, begin_ns, end_ns, carries=True)
    marks = Marked(mark_ns, told.mark, told.index, told.funding_rate)
    if not np.isfinite(told.mark).any():
        marks = mids(book_ns, bids, asks)
    moved = _moves(marks)
    return Block(
        begin_ns=begin_ns,
        end_ns=end_ns,
        book_ns=book_ns,
        bids=np.ascontiguousarray(bids),
        asks=np.ascontiguousarray(asks),
        trade_ns=trade_ns,
        trade_price=traded.price,
        trade_size=traded.size,
        trade_side=traded.side,
        mark_ns=marks.ns[moved],
        mark=marks.mark[moved],
        index=marks.index[moved],
        rate=marks.rate[moved],
    )


def _depth(books: BookTicks) -> int:
    """Return how many levels some of these books have: a channel of five leaves the others empty, 320 bytes a row."""
    is_seen = np.isfinite(books.bid_price).any(axis=0) | np.isfinite(books.ask_price).any(axis=0)
    return int(np.flatnonzero(is_seen).max(initial=0)) + 1


class Marked(msgspec.Struct, frozen=True):
    """What a symbol is valued at, (M,) each."""

    ns: Ints
    mark: Floats
    index: Floats
    rate: Floats


def mids(book_ns: Ints, bids: Floats, asks: Floats) -> Marked:
    """Return the mid of every second's last book: a recording without marks is valued at that."""
    seconds = book_ns // NS
    last = np.flatnonzero(np.append(seconds[1:] != seconds[:-1], True)) if len(seconds) else np.empty(0, np.intp)
    mid = (bids[last, 0, 0] + asks[last, 0, 0]) / 2
    nothing = np.full(len(last), np.nan)
    return Marked(book_ns[last], mid, nothing, nothing)


def _moves(marks: Marked) -> NDArray[np.intp]:
    """Return the rows that say something else than the row before."""
    values = np.stack([marks.mark, marks.index, marks.rate])
    is_same = (values[:, 1:] == values[:, :-1]) | (np.isnan(values[:, 1:]) & np.isnan(values[:, :-1]))
    return np.flatnonzero(np.append(np.True_, ~is_same.all(axis=0))[: values.shape[1]])


def empty_block(begin_ns: int, end_ns: int, levels: int = 1) -> Block:
    """Return a block in which nothing is known."""
    none, times = np.empty(0), np.empty(0, np.int64)
    return Block(
        begin_ns=begin_ns, end_ns=end_ns, book_ns=times, bids=np.empty((0, levels, 2)), asks=np.empty((0, levels, 2)),
        trade_ns=times, trade_price=none, trade_size=none, trade_side=np.empty(0, np.int8), mark_ns=times, mark=none,
        index=none, rate=none,
    )  # fmt: skip


def _pushed(table: Table) -> Table:
    """Return the rows that tell something of the market: pushes, and states carried over an hour's border."""
    tells = table.event == TickEvent.DATA
    if not isinstance(table, TradeTicks):
        # A carried state stands behind the very push that it repeats: it changes nothing there.
        tells |= (table.event == TickEvent.CARRIED) & (table.exch_ns > 0)
    return table if tells.all() else _take(table, np.flatnonzero(tells))


def _window(table: Table, happened_ns: _Clock, begin_ns: int, end_ns: int, *, carries: bool) -> tuple[Ints, Table]:
    """Return (times, rows) of [begin_ns, end_ns), and with `carries` the last row before."""
    times = happened_ns(table)
    first, end = np.searchsorted(times, [begin_ns, end_ns]).tolist()
    first = max(first - 1, 0) if carries else first
    return times[first:end], _take(table, slice(first, end))


def _take(table: Table, rows: slice | NDArray[np.intp]) -> Table:
    return type(table)(*(getattr(table, name)[rows] for name in table.__struct_fields__))


def _shift_ns(lake: Path, source: str, start_s: int, end_s: int) -> int:
    """Return what is added to the exchange's times: 0 where every row was received after it was stamped."""
    fastest: list[int] = []
    for table in ("raw/book", "raw/trade"):
        try:
            rows = read.scan(lake, table, source, start_s=start_s, end_s=end_s, is_sorted=False)
        except TableEmpty:
            continue
        stamped = rows.filter((pl.col("event") == int(TickEvent.DATA)) & (pl.col("exch_ns") > 0))
        took = read.collect(stamped.select((pl.col("recv_ns") - pl.col("exch_ns")).min()))
        if took.item() is not None:
            fastest.append(int(took.item()))
    least = min(fastest, default=0)
    return least - FASTEST_NS if least < 0 else 0
