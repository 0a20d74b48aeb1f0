"""The full book of a symbol at any recorded time, from `raw/depth`.

    book = book_at(root, source, "BTCUSDT", at_ns)     # None: unknown then (before a snapshot, after a break)
    book.bid_price, book.bid_size, book.ask_price, book.ask_size

Full books are recorded where the setting `BOOKS` gives a symbol the channel `books`. An hour stands alone: it begins
with every book as a whole, so a time is rebuilt from its own hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import polars as pl

from shared.lake import layout, read
from shared.lake.chains import FullBook, FullBooks
from shared.lake.layout import DEPTH, HOUR_NS
from shared.types import NS, DepthTicks, Floats


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """Every level that the exchange told of one symbol; best first."""

    symbol: str
    at_ns: int  # asked for
    recv_ns: int  # of the last push before; of an hour's first instant where it was carried
    exch_ns: int
    seq: int
    conn: int  # whose chain it is
    bid_price: Floats
    bid_size: Floats
    ask_price: Floats
    ask_size: Floats


def book_at(root: Path, source: str, symbol: str, at_ns: int) -> Book | None:
    """Return the full book as it was known at a receipt time, None where no connection's chain held then.

    What was received at `at_ns` itself is part of it. Where several connections carry the symbol, the one that was
    pushed last is returned: the others lag behind it.

    Raises:
        TableEmpty: nobody recorded full books in that hour.
    """
    return books_at(root, source, symbol, [at_ns])[0]


def books_at(root: Path, source: str, symbol: str, times_ns: Sequence[int]) -> list[Book | None]:
    """Return the books of a symbol at several times, in one pass over each hour.

    Raises:
        TableEmpty: nobody recorded full books in one of the hours.
    """
    found: dict[int, Book | None] = {}
    for hour in sorted({at_ns // HOUR_NS for at_ns in times_ns}):
        wanted = sorted({at_ns for at_ns in times_ns if at_ns // HOUR_NS == hour})
        rows = _rows(root, source, symbol, hour, wanted[-1])
        books, done = FullBooks(), 0
        for at_ns in wanted:
            until = int(rows.recv_ns.searchsorted(at_ns, "right"))
            books.take(_slice(rows, done, until))
            done = until
            known = books.of(0)
            found[at_ns] = _book(symbol, at_ns, known[0]) if known else None
    return [found[at_ns] for at_ns in times_ns]


def _rows(root: Path, source: str, symbol: str, hour: int, until_ns: int) -> DepthTicks:
    span = {"start_s": hour * layout.HOUR_S, "end_s": until_ns // NS + 1}
    lazy = read.scan(root, DEPTH, source, symbols=[symbol], is_sorted=False, **span)
    frame = read.collect(lazy.filter(pl.col("recv_ns") <= until_ns))
    # The lake's order within a symbol: by receipt, then connection, then as in the frame.
    rows = layout.frame_to_rows(DEPTH, frame.sort("recv_ns", "conn", maintain_order=True), [symbol])
    assert isinstance(rows, DepthTicks), type(rows)
    return rows


def _slice(rows: DepthTicks, start: int, end: int) -> DepthTicks:
    return DepthTicks(**{name: getattr(rows, name)[start:end] for name in rows.__struct_fields__})


def _book(symbol: str, at_ns: int, book: FullBook) -> Book:
    (ask_price, ask_size), (bid_price, bid_size) = book.asks(), book.bids()
    return Book(
        symbol=symbol,
        at_ns=at_ns,
        recv_ns=book.recv_ns,
        exch_ns=book.exch_ns,
        seq=book.seq,
        conn=book.conn,
        bid_price=bid_price,
        bid_size=bid_size,
        ask_price=ask_price,
        ask_size=ask_size,
    )
