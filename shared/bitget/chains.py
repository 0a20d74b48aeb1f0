"""The full books of one connection: what `books` tells goes into the buffer, and the data say when not to trust it.

A link of `books` is up in the data (SUBSCRIBED … GAP) while its book is known: from the snapshot on, not from the ack,
and until the chain breaks. After a frame that could not be read it is in doubt: the book is kept, and the next update
that follows it proves that nothing of it was lost.
"""

from __future__ import annotations

from shared.bitget.chain import ChainBroken, ChainedBook
from shared.bitget.ticks import TickBuffer
from shared.bitget.wire import DepthRow
from shared.types import FULL_BOOKS, TickEvent


class Chains:
    """Books by symbol; the session decides what follows from a break."""

    def __init__(self, buffer: TickBuffer, conn: int) -> None:
        self._buffer, self._conn = buffer, conn
        self._books: dict[str, ChainedBook] = {}
        self._open: set[str] = set()  # whose link is up in the data
        self._failed: set[str] = set()  # whose chain broke; the server still pushes it

    def is_known(self, symbol: str) -> bool:
        return symbol in self._books

    def is_open(self, symbol: str) -> bool:
        """Claim that the book is what the exchange shows, also while nothing comes."""
        return symbol in self._open

    def take(self, n: int, symbol: str, row: DepthRow, recv_ns: int, *, is_snapshot: bool, is_linked: bool) -> bool:
        """Put one push into the buffer; return whether it opened the link in the data.

        Raises:
            ChainBroken: the book is not known any more: `fail` it.
        """
        book = self._books.get(symbol)
        if book is not None and book.repeats(row):
            self._buffer.repeats += 1
            return False
        if not is_snapshot:
            if book is None:
                raise ChainBroken("expected a snapshot first, found an update")
            book.update(row)
        else:
            if book is not None:
                if row.seq <= book.seq:
                    raise ChainBroken(f"expected a snapshot after {book.seq}, found one of {row.seq}")
                # Nobody asked for it: the server began anew, and what happened since its last update is not known.
                self.doubt(symbol, recv_ns)
            book = self._books[symbol] = ChainedBook(row)
        is_opening = is_linked and symbol not in self._open
        if is_opening:
            self._open.add(symbol)
            self._mark(symbol, TickEvent.SUBSCRIBED, recv_ns)
        self._buffer.append_full_book(n, book, row, self._conn, recv_ns, is_snapshot=is_snapshot)
        return is_opening

    def doubt(self, symbol: str, recv_ns: int) -> None:
        """Mark that something may have been lost; the next push that follows the last one shows that it was not."""
        if symbol in self._open:
            self._open.discard(symbol)
            self._mark(symbol, TickEvent.GAP, recv_ns)

    def fail(self, symbol: str, recv_ns: int) -> None:
        """Mark that the chain is broken and forget the book."""
        self._books.pop(symbol, None)
        self._open.discard(symbol)
        self._failed.add(symbol)
        self._mark(symbol, TickEvent.GAP, recv_ns)

    def end(self, symbol: str, recv_ns: int) -> None:
        """Mark that a subscription that told anything is over, and forget the book."""
        if symbol in self._books or symbol in self._failed:
            self._books.pop(symbol, None)
            self._open.discard(symbol)
            self._failed.discard(symbol)
            self._mark(symbol, TickEvent.DISCONNECTED, recv_ns)

    def end_all(self, recv_ns: int) -> None:
        for symbol in [*self._books, *self._failed]:
            self.end(symbol, recv_ns)

    def _mark(self, symbol: str, event: TickEvent, recv_ns: int) -> None:
        self._buffer.append_link(FULL_BOOKS, symbol, event, self._conn, recv_ns)
