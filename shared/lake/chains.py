"""Full books from rows of `raw/depth`: what the write-ahead log carries into an hour, and what a reader rebuilds.

Every connection has a chain of its own: a snapshot (or, at the first instant of an hour, a CARRIED one), then updates
of which each names the one before it. So a book is a fold over the rows of one symbol and connection:

    SUBSCRIBED, CARRIED    the link is up: the book is what the exchange shows, also while nothing comes
    snapshot               the levels begin anew
    update                 applies where it follows the last push; where it does not, the book is unknown
    GAP                    in doubt: the levels stay, because an update that follows them proves that nothing was lost
    DISCONNECTED           the book is unknown

A book counts while its link is up and its chain holds. Nothing but numpy and dictionaries: this runs in the recorder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.types import DepthTicks, Floats, TickEvent

_DELETED_MAX = 4096  # levels that may lie in a book with size 0 before it is cleaned


class FullBook:
    """All levels of one symbol as one connection tells them."""

    __slots__ = ("_levels", "_n_clean", "conn", "exch_ns", "is_up", "recv_ns", "seq")

    def __init__(self, conn: int) -> None:
        self.conn = conn
        self.is_up = False
        self.recv_ns = self.exch_ns = 0  # of the last push
        self.seq = -1  # -1: the levels are not known
        self._levels: dict[float, float] = {}  # side * price -> size, 0 where deleted
        self._n_clean = 0

    @property
    def is_known(self) -> bool:
        """Claim that the levels follow from a snapshot without a break."""
        return self.seq >= 0

    def forget(self) -> None:
        self.seq = -1
        self._levels = {}

    def begin(self) -> None:
        self._levels = {}
        self._n_clean = 0

    def put(self, keys: list[float], sizes: list[float]) -> None:
        """Set levels in the order given; keys are side * price."""
        self._levels.update(zip(keys, sizes, strict=True))
        if len(self._levels) > self._n_clean + _DELETED_MAX:
            self._levels = {key: size for key, size in self._levels.items() if size}
            self._n_clean = len(self._levels)

    def asks(self) -> tuple[Floats, Floats]:
        """Return prices and sizes, best first."""
        return self._side(-1)

    def bids(self) -> tuple[Floats, Floats]:
        """Return prices and sizes, best first."""
        return self._side(1)

    def _side(self, sign: int) -> tuple[Floats, Floats]:
        found = sorted((-key, size) for key, size in self._levels.items() if size and key * sign > 0)
        prices, sizes = np.array([abs(key) for key, _ in found]), np.array([size for _, size in found])
        return prices, sizes


class FullBooks:
    """The books of any number of symbols and connections; `take` batches in order of receipt."""

    def __init__(self) -> None:
        self._books: dict[int, dict[int, FullBook]] = {}  # symbol -> connection -> its book

    def of(self, symbol: int) -> list[FullBook]:
        """Return the books of a symbol that count, the one that was pushed last first."""
        books = [book for book in self._books.get(symbol, {}).values() if book.is_up and book.is_known]
        return sorted(books, key=lambda book: (-book.recv_ns, book.conn))

    def take(self, rows: DepthTicks) -> None:
        """Fold the next rows in."""
        if not len(rows.recv_ns):
            return
        order = np.lexsort((rows.conn, rows.symbol))  # stable: the rows of a chain stay in order
        symbol, conn = rows.symbol[order], rows.conn[order]
        columns = [getattr(rows, name)[order] for name in ("recv_ns", "seq", "event", "side")]
        recv_ns, seq, event, side = columns
        is_first = np.ones(len(order), np.bool_)
        is_first[1:] = (
            (symbol[1:] != symbol[:-1])
            | (conn[1:] != conn[:-1])
            | (recv_ns[1:] != recv_ns[:-1])
            | (seq[1:] != seq[:-1])
            | (event[1:] != event[:-1])
        )
        starts = np.flatnonzero(is_first)
        has_level = side != 0
        # Frames have no rows without a level but where they have no level at all.
        ends = np.where(has_level[starts], np.append(starts[1:], len(order)), starts)
        keys = (side * rows.price[order]).tolist()
        sizes = rows.size[order].tolist()
        heads = order[starts]
        for at, end, n, c, ns, what, number, before, is_snapshot, exch_ns in zip(
            starts.tolist(),
            ends.tolist(),
            symbol[starts].tolist(),
            conn[starts].tolist(),
            recv_ns[starts].tolist(),
            event[starts].tolist(),
            seq[starts].tolist(),
            rows.pseq[heads].tolist(),
            rows.is_snapshot[heads].tolist(),
            rows.exch_ns[heads].tolist(),
            strict=True,
        ):
            books = self._books.setdefault(n, {})
            book = books.get(c)
            if book is None:
                book = books[c] = FullBook(c)
            if what == TickEvent.DISCONNECTED:
                del books[c]
                continue
            if what == TickEvent.GAP:
                book.is_up = False
                continue
            if what in (TickEvent.SUBSCRIBED, TickEvent.CARRIED):
                book.is_up = True
            if what == TickEvent.SUBSCRIBED or (what == TickEvent.CARRIED and not is_snapshot):
                continue
            if is_snapshot:
                book.begin()
            elif not book.is_known or before != book.seq:
                book.forget()
                continue
            book.put(keys[at:end], sizes[at:end])
            book.seq, book.recv_ns, book.exch_ns = number, ns, exch_ns

    def carried(self, at_ns: int) -> DepthTicks:
        """Return every book as a CARRIED snapshot, followed by a GAP where it is in doubt; a link without one, too."""
        frames = []
        for n, books in sorted(self._books.items()):
            for conn, book in sorted(books.items()):
                if book.is_up or book.is_known:
                    frames.append(_frame(n, conn, TickEvent.CARRIED, at_ns, book if book.is_known else None))
                if book.is_known and not book.is_up:
                    frames.append(_frame(n, conn, TickEvent.GAP, at_ns, None))
        return DepthTicks(
            **{
                name: np.concatenate([_NO_ROWS[name], *(frame[name] for frame in frames)])
                for name in DepthTicks.__struct_fields__
            }
        )


def _frame(symbol: int, conn: int, event: TickEvent, at_ns: int, book: FullBook | None) -> dict[str, NDArray[Any]]:
    """Return the rows that tell a book, or a link alone where there is none."""
    sides = [(-1, book.asks()), (1, book.bids())] if book is not None else []
    n = max(1, sum(len(prices) for _, (prices, _) in sides))
    side, price, size = np.zeros(n, np.int8), np.full(n, np.nan), np.zeros(n)
    at = 0
    for sign, (prices, sizes) in sides:
        to = at + len(prices)
        side[at:to], price[at:to], size[at:to] = sign, prices, sizes
        at = to
    head = {
        "symbol": symbol,
        "recv_ns": at_ns,
        "exch_ns": 0 if book is None else book.exch_ns,
        "event": int(event),
        "conn": conn,
        "seq": -1 if book is None else book.seq,
        "pseq": -1 if book is None else 0,
        "is_snapshot": book is not None,
    }
    columns = {name: np.full(n, value, _NO_ROWS[name].dtype) for name, value in head.items()}
    return columns | {"side": side, "price": price, "size": size}


_NO_ROWS: dict[str, NDArray[Any]] = {
    "symbol": np.zeros(0, np.int32),
    "recv_ns": np.zeros(0, np.int64),
    "exch_ns": np.zeros(0, np.int64),
    "event": np.zeros(0, np.uint8),
    "conn": np.zeros(0, np.int32),
    "seq": np.zeros(0, np.int64),
    "pseq": np.zeros(0, np.int64),
    "is_snapshot": np.zeros(0, np.bool_),
    "side": np.zeros(0, np.int8),
    "price": np.zeros(0),
    "size": np.zeros(0),
}
