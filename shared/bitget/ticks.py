"""Decoded pushes become columns: append row by row, take a batch of `shared.types.Ticks`.

One row is one packed record of a preallocated block of memory (`struct.pack_into`, 3 us for a book of 2 x 15
levels); `take` reads the block as a structured array and copies its fields into contiguous columns. So an append
costs no numpy call and no object stays alive between batches.

A push is one row. What says just what the push before it said (books: `seq` and time; tickers: every field) is
left out: the venue or the network said it twice. So is, where two connections carry one channel (a rotation, or
redundancy on purpose), what the other one has brought. Trades are all kept: their ids tell which are the same.

A book or ticker that comes behind a newer one of its symbol (a rotation's new connection, a network that reorders)
is kept as REPEATED: it was sent, but it is not the state. Decided here, once, so live and lake agree.

The buffer is bounded. A full one raises `TicksOverflow` instead of dropping rows: a dropped row would look like a
quiet market, and a buffer that is not taken for so long means that its owner has stalled.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Hashable, Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.bitget.chain import ChainedBook
from shared.bitget.wire import MS_NS, BookRow, DepthRow, TickerRow, TradeRow
from shared.errors import ExchangeError
from shared.types import (
    BOOK_LEVELS,
    FULL_BOOKS,
    LATE_NS_MAX,
    BookTicks,
    DepthTicks,
    Floats,
    TickerTicks,
    TickEvent,
    Ticks,
    TradeTicks,
)

CHANNEL_TABLE = {
    "books15": "book",
    "books5": "book",
    "books1": "book",
    FULL_BOOKS: "book",  # its best levels; the changes themselves go to the table depth
    "trade": "trade",
    "ticker": "ticker",
}

_SHARED_MAX = 256
"""Pushes of one symbol and channel that are remembered while two connections carry it: at least ten seconds of them."""

_LATE_MS_MAX = LATE_NS_MAX // MS_NS
_NAN = math.nan
_MS_MAX = 9e12  # what fits int64 in ns
_SIDES = {"buy": 1, "sell": -1, "Buy": 1, "Sell": -1}
_LEVEL_VALUES = 2 * BOOK_LEVELS
_Last = tuple[tuple[float, ...], int]
"""The identity of a push, its exchange time first, and the connection that brought it."""
_ABSENT = (_NAN, 0.0) * BOOK_LEVELS  # price, size of the levels that a book does not have

# symbol, conn, recv_ns, exch_ns, event: the head of every record. "<" packs without padding: fields are listed in
# an order that keeps 8-byte values on 8-byte borders.
_BOOK = struct.Struct(f"<iiqqqq{2 * _LEVEL_VALUES}d")
_BOOK_DTYPE = np.dtype(
    [
        ("symbol", "<i4"),
        ("conn", "<i4"),
        ("recv_ns", "<i8"),
        ("exch_ns", "<i8"),
        ("event", "<i8"),
        ("seq", "<i8"),
        ("ask", "<f8", (BOOK_LEVELS, 2)),
        ("bid", "<f8", (BOOK_LEVELS, 2)),
    ]
)
_TRADE = struct.Struct("<iiqqqqddq")
_TRADE_DTYPE = np.dtype(
    [
        ("symbol", "<i4"),
        ("conn", "<i4"),
        ("recv_ns", "<i8"),
        ("exch_ns", "<i8"),
        ("event", "<i8"),
        ("trade_id", "<i8"),
        ("price", "<f8"),
        ("size", "<f8"),
        ("side", "<i8"),
    ]
)
_TICKER_FLOATS = (
    "last", "bid", "ask", "bid_size", "ask_size", "mark", "index",
    "funding_rate", "open_interest", "base_volume_24h", "quote_volume_24h",
)  # fmt: skip
_TICKER = struct.Struct(f"<iiqqqq{len(_TICKER_FLOATS)}d")
_TICKER_DTYPE = np.dtype(
    [
        ("symbol", "<i4"),
        ("conn", "<i4"),
        ("recv_ns", "<i8"),
        ("exch_ns", "<i8"),
        ("event", "<i8"),
        ("next_funding_ms", "<i8"),
        *[(name, "<f8") for name in _TICKER_FLOATS],
    ]
)
_DEPTH = struct.Struct("<iiqqqqqqii")
_DEPTH_DTYPE = np.dtype(
    [
        ("symbol", "<i4"),
        ("conn", "<i4"),
        ("recv_ns", "<i8"),
        ("exch_ns", "<i8"),
        ("event", "<i8"),
        ("is_snapshot", "<i8"),
        ("seq", "<i8"),
        ("pseq", "<i8"),
        ("n_asks", "<i4"),
        ("n_bids", "<i4"),
    ]
)
assert (_BOOK.size, _TRADE.size, _TICKER.size) == (_BOOK_DTYPE.itemsize, _TRADE_DTYPE.itemsize, _TICKER_DTYPE.itemsize)
assert _DEPTH.size == _DEPTH_DTYPE.itemsize

_LEVELS_A_ROW = 8
"""Room for levels of full books, in multiples of `rows_max`: 800 snapshots and 30 s of changes are 3.2 million."""


class TicksOverflow(ExchangeError):
    """The buffer is full: whoever takes from it has stalled, or the market sends more than we can keep."""


class _Block:
    """Records of one table, packed one after another; grows by doubling up to `rows_max`."""

    def __init__(self, table: str, layout: struct.Struct, dtype: np.dtype[Any], rows_max: int) -> None:
        self.table, self.dtype, self.rows_max = table, dtype, rows_max
        self.size = layout.size
        self.pack_into = layout.pack_into
        self.memory = bytearray(self.size * min(rows_max, 256))
        self.end = 0  # in bytes

    def room(self, rows: int) -> int:
        """Return where the next record goes, after making room for `rows` of them."""
        end = self.end
        if end + rows * self.size > len(self.memory):
            self._grow(end // self.size + rows)
        return end

    def _grow(self, rows: int) -> None:
        if rows > self.rows_max:
            raise TicksOverflow(
                f"expected at most {self.rows_max} {self.table} rows between two batches, found one more: "
                "the consumer has stalled, stop and look at its log"
            )
        capacity = min(self.rows_max, max(rows, 2 * len(self.memory) // self.size))
        self.memory.extend(bytes(capacity * self.size - len(self.memory)))

    def take(self) -> NDArray[Any]:
        """Return a view of the records so far and become empty; copy out of it before the next append."""
        records = np.frombuffer(self.memory, self.dtype, self.end // self.size)
        self.end = 0
        return records


class _DepthBlock(_Block):
    """Frames of changed levels: one record a frame, its levels in a line of their own."""

    def __init__(self, rows_max: int) -> None:
        super().__init__("depth", _DEPTH, _DEPTH_DTYPE, rows_max)
        self._levels = array("d")  # price, size, price, … of asks, then bids
        self._values_max = 2 * _LEVELS_A_ROW * rows_max

    @property
    def n_levels(self) -> int:
        return len(self._levels) // 2

    def append(self, row: DepthRow, head: tuple[int, ...], *, is_snapshot: bool) -> None:
        asks, bids = row.asks, row.bids
        if len(self._levels) + 2 * (len(asks) + len(bids)) > self._values_max:
            raise TicksOverflow(
                f"expected at most {self._values_max // 2} depth rows between two batches, found more: "
                "the consumer has stalled, stop and look at its log"
            )
        at = self.room(1)
        self.pack_into(self.memory, at, *head, is_snapshot, row.seq, row.pseq, len(asks), len(bids))
        self._levels.extend(chain.from_iterable(asks))
        self._levels.extend(chain.from_iterable(bids))
        self.end = at + self.size

    def append_link(self, head: tuple[int, ...]) -> None:
        at = self.room(1)
        self.pack_into(self.memory, at, *head, 0, -1, -1, 0, 0)
        self.end = at + self.size

    def take_levels(self) -> Floats:
        """Return (levels, 2) and become empty."""
        levels = np.array(self._levels).reshape(-1, 2)
        self._levels = array("d")
        return levels


class TickBuffer:
    """Collect pushes of any number of sessions; one clock stamps them all, so `recv_ns` never decreases.

    Args:
        symbols: the N axis at first; rows hold positions on it.
        rows_max: bound of each table between two `take`s. The default holds about 30 s of 800 symbols x 20 books/s.
        has_depth: keep the changes of full books, too; their best levels are books like any other either way.
    """

    def __init__(self, symbols: tuple[str, ...], rows_max: int = 500_000, *, has_depth: bool = False) -> None:
        self.symbols = symbols
        self.index = {symbol: n for n, symbol in enumerate(symbols)}
        self.last_recv_ns = 0
        self._books = _Block("book", _BOOK, _BOOK_DTYPE, rows_max)
        self._trades = _Block("trade", _TRADE, _TRADE_DTYPE, rows_max)
        self._tickers = _Block("ticker", _TICKER, _TICKER_DTYPE, rows_max)
        self._depth = _DepthBlock(rows_max) if has_depth else None
        self.repeats = 0  # pushes left out because another connection had brought them
        self._links: dict[tuple[str, int], set[int]] = {}  # (table, symbol) -> connections that carry it
        # A new connection begins with the state that another one may have brought before: the last push is kept.
        # Of its identity alone: rows that stay alive cost the decoder 3 us a frame, because it gets cold memory.
        self._last_books: list[_Last | None] = [None] * len(symbols)
        self._last_tickers: list[_Last | None] = [None] * len(symbols)
        self._shared: dict[tuple[str, int], dict[Hashable, int]] = {}  # of those carried twice: push -> who brought it

    def __len__(self) -> int:
        """Return the rows that wait, of all tables."""
        rows = sum(block.end // block.size for block in (self._books, self._trades, self._tickers))
        return rows if self._depth is None else rows + self._depth.n_levels

    def grow(self, symbols: Iterable[str]) -> None:
        """Put those of the symbols that are new behind the others: what has a position keeps it."""
        added = tuple(symbol for symbol in dict.fromkeys(symbols) if symbol not in self.index)
        # A new tuple: the writer, in a thread of its own, may be reading the old one.
        self.symbols += added
        self.index.update({symbol: n for n, symbol in enumerate(self.symbols)})
        self._last_books += [None] * len(added)
        self._last_tickers += [None] * len(added)

    def append_book(self, n: int, row: BookRow, conn: int, recv_ns: int) -> None:
        """Append a book; levels beyond BOOK_LEVELS are cut, absent ones become price NaN, size 0."""
        assert recv_ns >= self.last_recv_ns, (recv_ns, self.last_recv_ns)
        self.last_recv_ns = recv_ns
        push = row.ts, row.seq
        event = self._event_of("book", self._last_books, n, push, conn) if row.seq >= 0 else 0
        if event is None:
            return
        asks, bids = row.asks, row.bids
        block = self._books
        at = block.room(1)
        if len(asks) == BOOK_LEVELS and len(bids) == BOOK_LEVELS:
            block.pack_into(block.memory, at, n, conn, recv_ns, row.ts * MS_NS, event, row.seq, *chain(*asks, *bids))
        else:
            levels = (*_flat(asks), *_flat(bids))
            block.pack_into(block.memory, at, n, conn, recv_ns, row.ts * MS_NS, event, row.seq, *levels)
        block.end = at + block.size

    def append_full_book(
        self, n: int, book: ChainedBook, row: DepthRow, conn: int, recv_ns: int, *, is_snapshot: bool
    ) -> None:
        """Append what a push of `books` has changed, and the best levels of the book that it made."""
        assert recv_ns >= self.last_recv_ns, (recv_ns, self.last_recv_ns)
        self.last_recv_ns = recv_ns
        exch_ns = row.ts * MS_NS
        if self._depth is not None:  # of every connection: a chain with a link missing is none
            self._depth.append(row, (n, conn, recv_ns, exch_ns, 0), is_snapshot=is_snapshot)
        event = self._event_of("book", self._last_books, n, (row.ts, row.seq), conn)
        if event is None:
            return
        block = self._books
        at = block.room(1)
        block.pack_into(block.memory, at, n, conn, recv_ns, exch_ns, event, row.seq, *book.top())
        block.end = at + block.size

    def append_trades(
        self, n: int, rows: Sequence[TradeRow], conn: int, recv_ns: int, *, is_repeated: bool = False
    ) -> None:
        """Append the trades of one frame, which sends the newest first, oldest first."""
        assert recv_ns >= self.last_recv_ns, (recv_ns, self.last_recv_ns)
        self.last_recv_ns = recv_ns
        block = self._trades
        at = block.room(len(rows))
        event = int(TickEvent.REPEATED) if is_repeated else 0
        for row in reversed(rows):
            block.pack_into(
                block.memory, at, n, conn, recv_ns, row.ts * MS_NS, event,
                row.trade_id, row.price, row.size, _SIDES[row.side],
            )  # fmt: skip
            at += block.size
        block.end = at

    def append_ticker(self, n: int, row: TickerRow, conn: int, recv_ns: int) -> None:
        assert recv_ns >= self.last_recv_ns, (recv_ns, self.last_recv_ns)
        self.last_recv_ns = recv_ns
        push = (
            row.ts, row.last, row.bid, row.ask, row.bid_size, row.ask_size, row.mark, row.index, row.funding_rate,
            row.open_interest, row.base_volume_24h, row.quote_volume_24h,
        )  # fmt: skip
        event = self._event_of("ticker", self._last_tickers, n, push, conn)
        if event is None:
            return
        block = self._tickers
        at = block.room(1)
        next_funding_ms = int(row.next_funding_ms) if 0.0 <= row.next_funding_ms < _MS_MAX else 0
        block.pack_into(
            block.memory, at, n, conn, recv_ns, row.ts * MS_NS, event, next_funding_ms,
            row.last, row.bid, row.ask, row.bid_size, row.ask_size, row.mark, row.index, row.funding_rate,
            row.open_interest, row.base_volume_24h, row.quote_volume_24h,
        )  # fmt: skip
        block.end = at + block.size

    def append_link(self, channel: str, symbol: str, event: TickEvent, conn: int, recv_ns: int) -> None:
        """Append what happened to the subscription itself: SUBSCRIBED, DISCONNECTED or GAP."""
        assert event not in (TickEvent.DATA, TickEvent.REPEATED), event
        assert recv_ns >= self.last_recv_ns, (recv_ns, self.last_recv_ns)
        self.last_recv_ns = recv_ns
        head = (self.index[symbol], conn, recv_ns, 0, int(event))
        table = CHANNEL_TABLE[channel]
        self._note_link(table, head[0], conn, is_up=event in (TickEvent.SUBSCRIBED, TickEvent.CARRIED))
        if channel == FULL_BOOKS and self._depth is not None:
            self._depth.append_link(head)
        if table == "book":
            block, tail = self._books, (-1, *_ABSENT, *_ABSENT)
        elif table == "trade":
            block, tail = self._trades, (-1, _NAN, 0.0, 0)
        else:
            block, tail = self._tickers, (0, *[_NAN] * len(_TICKER_FLOATS))
        at = block.room(1)
        block.pack_into(block.memory, at, *head, *tail)
        block.end = at + block.size

    def _note_link(self, table: str, n: int, conn: int, *, is_up: bool) -> None:
        conns = self._links.setdefault((table, n), set())
        if is_up:
            conns.add(conn)
        else:
            conns.discard(conn)
        if not conns:  # whoever comes next says it for the first time
            self._last_books[n] = self._last_tickers[n] = None
        if len(conns) > 1:
            if (table, n) not in self._shared and table != "trade":
                last = (self._last_books if table == "book" else self._last_tickers)[n]
                self._shared[table, n] = {} if last is None else {last[0]: last[1]}
        else:
            self._shared.pop((table, n), None)

    def _event_of(self, table: str, last: list[_Last | None], n: int, push: tuple[float, ...], conn: int) -> int | None:
        """Return the event of a push (exchange time first), None where it is the last one again or another connection
        has brought it; remember it."""
        before = last[n]
        if before is not None and before[0] == push:
            self.repeats += 1
            return None
        if self._shared and (seen := self._shared.get((table, n))) is not None:
            if seen.setdefault(push, conn) != conn:
                self.repeats += 1
                return None
            if len(seen) > _SHARED_MAX:
                del seen[next(iter(seen))]
        if before is not None and push[0] <= before[0][0] and _is_late(table, push, before[0]):
            return int(TickEvent.REPEATED)
        last[n] = push, conn
        return 0

    def take(self) -> Ticks:
        """Return everything appended since the last call, and become empty."""
        books, trades, tickers = self._books.take(), self._trades.take(), self._tickers.take()
        return Ticks(
            books=_book_ticks(books),
            trades=_trade_ticks(trades),
            tickers=_ticker_ticks(tickers),
            depth=None if self._depth is None else _depth_ticks(self._depth.take(), self._depth.take_levels()),
        )


def _is_late(table: str, push: tuple[float, ...], newest: tuple[float, ...]) -> bool:
    """Tell whether a push is older than the newest one: by exchange time, books of one time by their number."""
    behind_ms = newest[0] - push[0]
    return 0 < behind_ms <= _LATE_MS_MAX or (behind_ms == 0 and table == "book" and push[1] < newest[1])


def _flat(levels: list[tuple[float, float]]) -> tuple[float, ...]:
    return (*chain.from_iterable(levels), *_ABSENT)[:_LEVEL_VALUES]


def _head(records: NDArray[Any]) -> dict[str, Any]:
    return {
        "symbol": records["symbol"].copy(),
        "recv_ns": records["recv_ns"].copy(),
        "exch_ns": records["exch_ns"].copy(),
        "event": records["event"].astype(np.uint8),
        "conn": records["conn"].copy(),
    }


def _book_ticks(records: NDArray[Any]) -> BookTicks:
    return BookTicks(
        **_head(records),
        seq=records["seq"].copy(),
        bid_price=records["bid"][:, :, 0].copy(),
        bid_size=records["bid"][:, :, 1].copy(),
        ask_price=records["ask"][:, :, 0].copy(),
        ask_size=records["ask"][:, :, 1].copy(),
    )


def _depth_ticks(records: NDArray[Any], levels: Floats) -> DepthTicks:
    """Return a row a level; a frame without any is one row."""
    n_levels = records["n_asks"] + records["n_bids"]
    n_rows = np.maximum(n_levels, 1)
    rows = np.repeat(records, n_rows)
    nth = np.arange(len(rows)) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows)  # within its frame
    has_level = np.repeat(n_levels > 0, n_rows)
    side = np.where(nth < rows["n_asks"], -1, 1).astype(np.int8)
    price, size = np.full(len(rows), _NAN), np.zeros(len(rows))
    side[~has_level] = 0
    price[has_level], size[has_level] = levels[:, 0], levels[:, 1]
    return DepthTicks(
        **_head(rows),
        seq=rows["seq"].copy(),
        pseq=rows["pseq"].copy(),
        is_snapshot=rows["is_snapshot"].astype(np.bool_),
        side=side,
        price=price,
        size=size,
    )


def _trade_ticks(records: NDArray[Any]) -> TradeTicks:
    return TradeTicks(
        **_head(records),
        trade_id=records["trade_id"].copy(),
        price=records["price"].copy(),
        size=records["size"].copy(),
        side=records["side"].astype(np.int8),
    )


def _ticker_ticks(records: NDArray[Any]) -> TickerTicks:
    columns = {name: records[name].copy() for name in _TICKER_FLOATS}
    for column in columns.values():
        column[np.isinf(column)] = _NAN  # float() reads "inf": a number that is not finite is a missing one
    return TickerTicks(**_head(records), **columns, next_funding_ms=records["next_funding_ms"].copy())
