"""Which links are up, and what each symbol showed last: what an hour of the log begins with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.lake.chains import FullBooks
from shared.lake.layout import DEPTH, Rows
from shared.lake.receipts import join, link_rows
from shared.types import DepthTicks, TickEvent

_OPENS = (TickEvent.SUBSCRIBED, TickEvent.CARRIED)
# The others that are no push end a link: after a GAP too, silence means nothing until the next SUBSCRIBED.
_LINK_FIELDS = ("symbol", "recv_ns", "event", "conn")


class Links:
    """What is up in one table, the last push of each symbol since its links were last all down, and who has pushed."""

    def __init__(self, table: str, n_symbols: int) -> None:
        self.table = table
        self._conns: dict[int, set[int]] = {}  # symbol -> connections that are up
        self._has_pushed: set[tuple[int, int]] = set()  # (symbol, connection), since the link came up
        self._states = link_rows(table, [(n, 0) for n in range(n_symbols)], TickEvent.CARRIED, 0)

    def grow(self, n_symbols: int) -> None:
        more = [(n, 0) for n in range(len(self._states.symbol), n_symbols)]
        self._states = join(self.table, [self._states, link_rows(self.table, more, TickEvent.CARRIED, 0)])

    def up(self) -> list[tuple[int, int]]:
        """Return (symbol, connection) of every open link, sorted."""
        return sorted((symbol, conn) for symbol, conns in self._conns.items() for conn in conns)

    def note(self, rows: Rows) -> None:
        cuts = np.full(len(self._states.symbol), -1)  # row at which the last link of a symbol went
        went: dict[tuple[int, int], int] = {}  # link -> row at which it went
        for row in np.flatnonzero(rows.event >= TickEvent.SUBSCRIBED).tolist():
            symbol, conn = int(rows.symbol[row]), int(rows.conn[row])
            if rows.event[row] in _OPENS:
                self._conns.setdefault(symbol, set()).add(conn)
            else:
                conns = self._conns.get(symbol, set())
                conns.discard(conn)
                went[symbol, conn] = row
                if not conns:
                    cuts[symbol] = row
        if self.table in ("raw/trade", DEPTH):
            return  # a trade is no state, and that of a full book is not one row (`DepthLinks`)
        cut = np.flatnonzero(cuts >= 0)
        if len(cut):
            self._put(cut, link_rows(self.table, [(n, 0) for n in cut.tolist()], TickEvent.CARRIED, 0), slice(None))
        pushes = np.flatnonzero(rows.event == TickEvent.DATA)
        symbols, back = np.unique(rows.symbol[pushes][::-1], return_index=True)
        last = pushes[len(pushes) - 1 - back]
        is_since = last > cuts[symbols]
        self._put(symbols[is_since], rows, last[is_since])
        self._has_pushed.difference_update(went)
        links, back = np.unique(
            (rows.symbol[pushes].astype(np.int64) << 32 | rows.conn[pushes])[::-1], return_index=True
        )
        for link, row in zip(links.tolist(), pushes[len(pushes) - 1 - back].tolist(), strict=True):
            pair = divmod(link, 1 << 32)
            if row > went.get(pair, -1):
                self._has_pushed.add(pair)

    def carried(self, at_ns: int) -> Rows:
        """Return one CARRIED row for each open link; it holds no state where the link has pushed none."""
        links = self.up()
        rows = link_rows(self.table, links, TickEvent.CARRIED, at_ns)
        spoke = np.array([link in self._has_pushed for link in links], np.bool_)
        for field in rows.__struct_fields__:
            if field not in _LINK_FIELDS:
                getattr(rows, field)[spoke] = getattr(self._states, field)[rows.symbol[spoke]]
        return rows

    def _put(self, symbols: NDArray[Any], rows: Rows, which: Any) -> None:
        for field in rows.__struct_fields__:
            if field not in _LINK_FIELDS:
                getattr(self._states, field)[symbols] = getattr(rows, field)[which]


class DepthLinks(Links):
    """The links of full books, which are carried whole."""

    def __init__(self, n_symbols: int) -> None:
        super().__init__(DEPTH, n_symbols)
        self._books = FullBooks()

    def note(self, rows: Rows) -> None:
        assert isinstance(rows, DepthTicks), type(rows)
        super().note(rows)
        self._books.take(rows)

    def carried(self, at_ns: int) -> Rows:
        return self._books.carried(at_ns)


def links_of(table: str, n_symbols: int) -> Links:
    return DepthLinks(n_symbols) if table == DEPTH else Links(table, n_symbols)
