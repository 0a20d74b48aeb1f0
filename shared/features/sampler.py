"""Sampling: ticks in order of receipt become one row per second and symbol.

Row `second = s` holds what was *received* in [s, s + 1) and is known at s + 1. There are two kinds of columns:

* *State* (prices, sizes, depth, ticker fields) carries the last push forward. It is NaN when no channel of the
  symbol pushed anything for 30 s; when every connection that had pushed it is gone and its channel has been silent
  for 30 s (only the silence of a living connection means "unchanged"); and while the last book is crossed, locked
  or empty.
* *Flow* (volumes, counts) is 0 where the channel was linked for the whole second and NaN where it was not.

The output does not depend on how the stream is cut into `step`s, also inside a second: counts, extremes and "the
last row of the second" do not care, and sums are added row by row (`np.add.at`) to accumulators that are carried.
Only the order of rows *within a symbol* matters, so both the order of receipt and the lake's (symbol, recv_ns) do.

An hour stands alone. Its first rows are CARRIED: the link is up, and this was the last state of the channel. They
open links and replace the state at the first instant of their second, but they are no pushes. Together with the raw
rows of the last `MEMORY_S` seconds before it, they make a restarted hour equal the uninterrupted stream, bit for
bit. What the writer owes for that: one CARRIED row for every linked (symbol, channel, connection), with the last
push of the connection (then ordered by it) or of the channel, NaN where the connection has pushed nothing.

To add a column: name it in the tuple of its source below, compute it in `_book_values` (or accumulate it in
`_take_trades`), raise VERSION.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.types import BOOK_LEVELS, NS, BookTicks, Floats, Ints, Seconds, TickerTicks, TickEvent, Ticks, TradeTicks

VERSION = 1
"""Raised when the meaning of a column changes; part of every definition hash."""

MEMORY_S = 30
"""Seconds after which silence is doubt, and for which trade ids are remembered: the sampler's whole past."""

LEVELS = 5
"""Levels per side that become columns; depth uses all `BOOK_LEVELS`."""

_BOOK: Final = (
    *(f"bid_price_{k}" for k in range(1, LEVELS + 1)),
    *(f"bid_size_{k}" for k in range(1, LEVELS + 1)),
    *(f"ask_price_{k}" for k in range(1, LEVELS + 1)),
    *(f"ask_size_{k}" for k in range(1, LEVELS + 1)),
    "bid_depth_5bps_usdt",
    "ask_depth_5bps_usdt",
    "bid_depth_10bps_usdt",
    "ask_depth_10bps_usdt",
    "book_reach_bps",  # how far both sides are visible from the mid: depth beyond it is a lower bound
)
_TICKER: Final = ("last", "mark", "index", "funding_rate", "open_interest", "quote_volume_24h_usdt")
_TRADE: Final = ("buy_volume_usdt", "sell_volume_usdt", "buy_count", "sell_count")

COLUMNS: Final[tuple[str, ...]] = (
    *_BOOK,
    *_TICKER,
    *_TRADE,
    "mid_high",  # of the mids in force during the second, the one carried into it included
    "mid_low",
    "book_updates",
    "ticker_updates",
)
"""The C axis."""

_MEMORY_NS: Final = MEMORY_S * NS
_NEVER: Final = np.iinfo(np.int64).min // 2  # a receipt so long ago that any age test fails, without overflow

Flags = NDArray[np.bool_]
_Table = BookTicks | TradeTicks | TickerTicks


class Sampler:
    """Turn ticks into seconds; the state is what the next second may still depend on.

    Args:
        n_symbols: length of the N axis.
        first_second: epoch second of the first row that `step` returns.
    """

    def __init__(self, n_symbols: int, first_second: int) -> None:
        self.n_symbols = n_symbols
        self.next_second = first_second
        self._n_open = 0  # seconds from next_second on that have accumulators already
        self._books = _Channel(n_symbols, len(_BOOK) + 1)  # + 1: the mid, not a column itself
        self._tickers = _Channel(n_symbols, len(_TICKER))
        self._trades = _Channel(n_symbols, 0)
        self._seen_trades = _SeenTrades(n_symbols)
        self._flow = np.zeros((len(_TRADE), 0, n_symbols))
        self._mid_high = np.empty((0, n_symbols))  # of the pushes; the carried mid joins at the close
        self._mid_low = np.empty((0, n_symbols))
        self._carried_mid: dict[tuple[int, int], float] = {}  # (second, symbol) -> mid that a CARRIED row set
        self._mid_in_force = np.full(n_symbols, np.nan)  # at the end of the last second that was returned

    def step(self, ticks: Ticks, until: int) -> Seconds:
        """Take in the next ticks; return the rows of all seconds before `until` that were not yet returned.

        Every tick received before `until` must have been given; later ones may be, and wait for their second.
        """
        first = self.next_second
        assert until >= first, f"second {until} was already returned, the next is {first}"
        tables = (ticks.books, ticks.trades, ticks.tickers)
        lasts = [int(table.recv_ns.max()) // NS + 1 for table in tables if len(table.recv_ns)]
        self._open(max([until, *lasts]) - first)
        with np.errstate(invalid="ignore"):
            if len(ticks.books.recv_ns):
                self._take_books(ticks.books)
            if len(ticks.trades.recv_ns):
                self._take_trades(ticks.trades)
            if len(ticks.tickers.recv_ns):
                self._take_tickers(ticks.tickers)
            columns = self._close(until)
        return Seconds(first, columns)

    def _open(self, n_open: int) -> None:
        more = n_open - self._n_open
        if more <= 0:
            return
        shape = (more, self.n_symbols)
        self._flow = np.concatenate([self._flow, np.zeros((len(_TRADE), *shape))], axis=1)
        self._mid_high = np.concatenate([self._mid_high, np.full(shape, -np.inf)])
        self._mid_low = np.concatenate([self._mid_low, np.full(shape, np.inf)])
        for channel in (self._books, self._tickers, self._trades):
            channel.open(more)
        self._n_open = n_open

    def _take_books(self, books: BookTicks) -> None:
        cells = self._cells(books.symbol, books.recv_ns)
        bid, ask = books.bid_price[:, 0], books.ask_price[:, 0]
        has_state: Flags = ~(np.isnan(bid) & np.isnan(ask))
        setters = self._books.take(books, cells, self.next_second, has_state)
        mids = _mid(bid[setters], ask[setters])
        is_carried = books.event[setters] == TickEvent.CARRIED
        for row in np.flatnonzero(is_carried):
            second, symbol = divmod(int(cells[setters[row]]), self.n_symbols)
            self._carried_mid[self.next_second + second, symbol] = float(mids[row])
        pushed = np.flatnonzero(~(is_carried | np.isnan(mids)))
        np.maximum.at(self._mid_high.reshape(-1), cells[setters[pushed]], mids[pushed])
        np.minimum.at(self._mid_low.reshape(-1), cells[setters[pushed]], mids[pushed])
        last = self._books.last_of_each_cell(cells, setters)
        self._books.put(cells, last, _book_values(books, last))

    def _take_tickers(self, tickers: TickerTicks) -> None:
        cells = self._cells(tickers.symbol, tickers.recv_ns)
        fields = np.stack(
            [
                tickers.last,
                tickers.mark,
                tickers.index,
                tickers.funding_rate,
                tickers.open_interest,
                tickers.quote_volume_24h,
            ]
        )
        has_state: Flags = ~np.asarray(np.isnan(fields).all(axis=0))
        setters = self._tickers.take(tickers, cells, self.next_second, has_state)
        last = self._tickers.last_of_each_cell(cells, setters)
        self._tickers.put(cells, last, fields[:, last])

    def _take_trades(self, trades: TradeTicks) -> None:
        cells = self._cells(trades.symbol, trades.recv_ns)
        self._trades.take(trades, cells, self.next_second, np.zeros(len(cells), bool))
        data = np.flatnonzero(trades.event == TickEvent.DATA)
        new = data[self._seen_trades.note(trades.symbol[data], trades.trade_id[data], trades.recv_ns[data])]
        volume = trades.price[new] * trades.size[new]
        for side, volume_sum, count in ((1, self._flow[0], self._flow[2]), (-1, self._flow[1], self._flow[3])):
            own = trades.side[new] == side
            np.add.at(volume_sum.reshape(-1), cells[new[own]], volume[own])
            np.add.at(count.reshape(-1), cells[new[own]], 1.0)

    def _cells(self, symbol: NDArray[np.int32], recv_ns: Ints) -> NDArray[np.intp]:
        """Return (second, symbol) of every row as a flat index into the open seconds."""
        seconds = recv_ns // NS - self.next_second
        assert seconds.min() >= 0, f"a row of second {self.next_second + seconds.min()} came after its second closed"
        backwards = (recv_ns[1:] < recv_ns[:-1]) & (symbol[1:] == symbol[:-1])
        assert not backwards.any(), "the rows of a symbol must come in order of receipt"
        cells: NDArray[np.intp] = seconds * self.n_symbols + symbol
        return cells

    def _close(self, until: int) -> dict[str, Floats]:
        first, rows = self.next_second, until - self.next_second
        ends = (np.arange(first + 1, until + 1, dtype=np.int64) * NS)[:, None]
        books, tickers, trades = (c.close(rows, ends) for c in (self._books, self._tickers, self._trades))
        is_alive = ends - np.maximum(np.maximum(books.push_ns, tickers.push_ns), trades.push_ns) <= _MEMORY_NS

        columns: dict[str, Floats] = {}
        for names, channel in ((_BOOK, books), (_TICKER, tickers)):
            unknown = ~(is_alive & channel.is_in_force)
            for c, name in enumerate(names):
                columns[name] = channel.take_value(c, unless=unknown)
        for name, flow in zip(_TRADE, self._flow, strict=True):
            columns[name] = flow[:rows].copy()
            columns[name][~trades.is_linked] = np.nan
        columns["mid_high"], columns["mid_low"] = self._close_range(books, is_alive)
        columns["book_updates"], columns["ticker_updates"] = books.updates, tickers.updates

        self._flow = self._flow[:, rows:].copy()
        self._n_open -= rows
        self.next_second = until
        self._seen_trades.forget(until * NS - _MEMORY_NS)
        return {name: columns[name] for name in COLUMNS}

    def _close_range(self, books: _Closed, is_alive: Flags) -> tuple[Floats, Floats]:
        rows = len(is_alive)
        mids = books.take_value(len(_BOOK), unless=~books.is_in_force)
        before = np.concatenate([self._mid_in_force[None, :], mids])
        self._mid_in_force, before = before[-1].copy(), before[:-1]
        for second, symbol in [key for key in self._carried_mid if key[0] < self.next_second + rows]:
            before[second - self.next_second, symbol] = self._carried_mid.pop((second, symbol))
        high, low = np.fmax(self._mid_high[:rows], before), np.fmin(self._mid_low[:rows], before)
        unknown = ~(is_alive & books.is_in_force & np.isfinite(high))
        high[unknown], low[unknown] = np.nan, np.nan
        self._mid_high, self._mid_low = self._mid_high[rows:].copy(), self._mid_low[rows:].copy()
        return high, low


class _Closed:
    """What a channel says about closed seconds; all (T, N) but the table of states."""

    def __init__(
        self, states: Floats, at: Ints, push_ns: Ints, is_in_force: Flags, is_linked: Flags, updates: Floats
    ) -> None:
        self._states, self._at = states, at
        self.push_ns = push_ns  # last push so far
        self.is_in_force = is_in_force  # silence since the state means "unchanged", or is short
        self.is_linked = is_linked  # for the whole second
        self.updates = updates

    def take_value(self, c: int, unless: Flags) -> Floats:
        value: Floats = self._states[c].take(self._at)
        value[unless] = np.nan
        return value


class _Channel:
    """Links, pushes and states of one channel: the carried ones and those of the open seconds.

    States lie in one table, `_states` (columns, entries): first the N carried ones, then those of open seconds in
    order of receipt, so that "the latest state at the end of second s" is a running maximum of entry numbers.
    """

    def __init__(self, n_symbols: int, n_values: int) -> None:
        n = self.n_symbols = n_symbols
        self._states = np.full((n_values, n), np.nan)
        self._ranks = np.full(n, -1, np.int64)  # of each state: how many rows of the channel came before
        self._is_orphan = np.zeros(n, bool)  # no connection is left that had pushed the carried state
        self._at = np.empty((0, n), np.int64)  # entry that the open second ends with; -1: none came
        self._push_ns = np.empty((0, n), np.int64)
        self._push_ns_carried = np.full(n, _NEVER, np.int64)
        self._updates = np.empty((0, n))
        self._conns: dict[int, set[int]] = {}  # symbol -> connections that are up; absent: none
        self._is_linked = np.empty((0, n), bool)
        self._is_linked_now = np.zeros(n, bool)
        self._synced: dict[int, set[int]] = {}  # symbol -> connections that are up and pushed a state
        self._usual_conn = np.full(n, -1, np.int32)  # one of them, or -1
        self._breaks: list[tuple[int, int, int]] = []  # (second, symbol, rank) where the last of them went
        self._n_rows = 0

    def open(self, more: int) -> None:
        shape = (more, self.n_symbols)
        self._at = np.concatenate([self._at, np.full(shape, -1, np.int64)])
        self._push_ns = np.concatenate([self._push_ns, np.full(shape, _NEVER, np.int64)])
        self._updates = np.concatenate([self._updates, np.zeros(shape)])
        self._is_linked = np.concatenate([self._is_linked, np.broadcast_to(self._is_linked_now, shape)])

    def take(self, table: _Table, cells: NDArray[np.intp], first_second: int, has_state: Flags) -> NDArray[np.intp]:
        """Note links and pushes; return the rows that set a state."""
        is_data = table.event == TickEvent.DATA
        data = np.flatnonzero(is_data)
        np.maximum.at(self._push_ns.reshape(-1), cells[data], table.recv_ns[data])
        np.add.at(self._updates.reshape(-1), cells[data], 1.0)
        setters = np.flatnonzero(is_data | ((table.event == TickEvent.CARRIED) & has_state))
        closed_at = np.full(self.n_symbols, -1, np.intp)  # row of the last connection lost in this batch
        for row in np.flatnonzero(~is_data & (table.event != TickEvent.REPEATED)):
            self._note_link(table, int(row), setters, closed_at, first_second)
        self._note_synced(table, setters, closed_at)
        self._n_rows += len(cells)
        return setters

    def _note_link(
        self,
        table: _Table,
        row: int,
        setters: NDArray[np.intp],
        closed_at: NDArray[np.intp],
        first_second: int,
    ) -> None:
        event, symbol, conn = int(table.event[row]), int(table.symbol[row]), int(table.conn[row])
        second, after_ns = divmod(int(table.recv_ns[row]), NS)
        conns = self._conns.setdefault(symbol, set())
        if event in (TickEvent.SUBSCRIBED, TickEvent.CARRIED):
            if not conns:
                is_whole = after_ns == 0 or event == TickEvent.CARRIED
                self._is_linked[second - first_second + (0 if is_whole else 1) :, symbol] = True
                self._is_linked_now[symbol] = True
            conns.add(conn)
            return
        before = setters[: np.searchsorted(setters, row)]
        self._note_synced(table, before[table.symbol[before] == symbol], closed_at)
        closed_at[symbol] = row
        synced = self._synced.setdefault(symbol, set())
        synced.discard(conn)
        conns.discard(conn)
        self._usual_conn[symbol] = min(synced, default=-1)
        if not synced:
            self._breaks.append((second, symbol, self._n_rows + row))
        if not conns:
            self._is_linked[second - first_second :, symbol] = False
            self._is_linked_now[symbol] = False

    def _note_synced(self, table: _Table, setters: NDArray[np.intp], closed_at: NDArray[np.intp]) -> None:
        """Note which connections these rows came from; rows before `closed_at` were noted then."""
        symbol, conn = table.symbol[setters], table.conn[setters]
        is_news = (conn != self._usual_conn[symbol]) & (setters > closed_at[symbol])
        if is_news.any():
            for pair in np.unique(symbol[is_news].astype(np.int64) << 32 | conn[is_news]).tolist():
                n, c = divmod(pair, 1 << 32)
                self._synced.setdefault(n, set()).add(c)
                self._usual_conn[n] = c

    def last_of_each_cell(self, cells: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return, in order of receipt, those of `rows` after which no other comes in their cell."""
        last = np.full(self._at.size, -1, np.intp)
        np.maximum.at(last, cells[rows], rows)
        return np.sort(last[last >= 0])

    def put(self, cells: NDArray[np.intp], rows: NDArray[np.intp], values: Floats) -> None:
        """Make `values` (columns, rows) the states that the seconds of these rows end with."""
        n_before = self._states.shape[1]
        self._at.reshape(-1)[cells[rows]] = np.arange(n_before, n_before + len(rows))
        self._states = np.concatenate([self._states, values], axis=1)
        self._ranks = np.concatenate([self._ranks, self._n_rows - len(cells) + rows])

    def close(self, rows: int, ends_ns: Ints) -> _Closed:
        n = self.n_symbols
        at = np.maximum.accumulate(np.concatenate([np.arange(n)[None, :], self._at[:rows]]))
        push_ns = np.maximum.accumulate(np.concatenate([self._push_ns_carried[None, :], self._push_ns[:rows]]))
        is_orphan = self._orphans(at[1:], int(ends_ns[0, 0]) // NS - 1) if rows else np.empty((0, n), bool)
        is_in_force = ~is_orphan | (ends_ns - push_ns[1:] <= _MEMORY_NS)
        closed = _Closed(
            self._states, at[1:], push_ns[1:], is_in_force, self._is_linked[:rows].copy(), self._updates[:rows].copy()
        )
        closed.updates[~closed.is_linked] = np.nan

        if rows:
            self._is_orphan = is_orphan[-1].copy()
        self._push_ns_carried = push_ns[-1].copy()
        waiting = self._at[rows:].copy()
        entries = waiting[waiting >= 0]
        order = np.argsort(entries)
        ranks_of_entries = np.empty_like(entries)
        ranks_of_entries[order] = np.arange(n, n + len(entries))
        waiting[waiting >= 0] = ranks_of_entries
        kept = np.concatenate([at[-1], entries[order]])
        self._states, self._ranks, self._at = self._states[:, kept], self._ranks[kept], waiting
        self._push_ns, self._updates = self._push_ns[rows:].copy(), self._updates[rows:].copy()
        self._is_linked = self._is_linked[rows:].copy()
        return closed

    def _orphans(self, at: Ints, first_second: int) -> Flags:
        """Tell of the state that each second ends with whether every connection that had pushed it is gone by then."""
        result: Flags = self._is_orphan & (at == np.arange(self.n_symbols))
        end = first_second + len(at)
        for second, symbol, rank in self._breaks:
            if second < end:
                result[second - first_second :, symbol] |= self._ranks[at[second - first_second :, symbol]] < rank
        self._breaks = [a_break for a_break in self._breaks if a_break[0] >= end]
        return result


class _SeenTrades:
    """Tell new trades from repeats: the same (symbol, id) less than `MEMORY_S` after its last receipt.

    Bitget's ids grow, so a batch whose ids grow within each symbol is new without looking anything up; only the
    symbols where one does not (two connections at once, a resent frame) are compared with what is remembered.
    """

    def __init__(self, n_symbols: int) -> None:
        self._highest = np.full(n_symbols, -1, np.int64)
        self._batches: list[tuple[NDArray[np.int32], Ints, Ints]] = []  # symbol, id, recv_ns

    def note(self, symbol: NDArray[np.int32], trade_id: Ints, recv_ns: Ints) -> Flags:
        """Remember these trades, in order of receipt; return which of them are new. Ids below 0 are always new."""
        is_new = np.ones(len(symbol), bool)
        if not len(symbol):
            return is_new
        order = np.argsort(symbol, kind="stable")
        s, i = symbol[order], trade_id[order]
        before = np.where(np.concatenate([[False], s[1:] == s[:-1]]), np.roll(i, 1), self._highest[s])
        suspects = np.unique(s[(i <= before) & (i >= 0)])
        if len(suspects):
            self._compare(suspects, symbol, trade_id, recv_ns, is_new)
        np.maximum.at(self._highest, symbol, trade_id)
        self._batches.append((symbol.copy(), trade_id.copy(), recv_ns.copy()))
        return is_new

    def _compare(
        self, suspects: NDArray[np.int32], symbol: NDArray[np.int32], trade_id: Ints, recv_ns: Ints, is_new: Flags
    ) -> None:
        batches = [*self._batches, (symbol, trade_id, recv_ns)]
        s, i, r = (np.concatenate([batch[k] for batch in batches]) for k in range(3))
        row = np.arange(len(s)) - (len(s) - len(symbol))  # < 0: remembered
        some = np.flatnonzero(np.isin(s, suspects) & (i >= 0))
        order = some[np.lexsort((row[some], i[some], s[some]))]
        s, i, r, row = s[order], i[order], r[order], row[order]
        is_repeat = (s[1:] == s[:-1]) & (i[1:] == i[:-1]) & (r[1:] - r[:-1] < _MEMORY_NS)
        repeats = row[1:][is_repeat]
        is_new[repeats[repeats >= 0]] = False

    def forget(self, until_ns: int) -> None:
        """Drop batches that no later receipt can repeat."""
        self._batches = [batch for batch in self._batches if int(batch[2].max()) > until_ns]


def _mid(bid: Floats, ask: Floats) -> Floats:
    """Return the middle of the touch; NaN where a side is missing or the book is crossed or locked."""
    return np.where(bid < ask, (bid + ask) * 0.5, np.nan)


def _book_values(books: BookTicks, rows: NDArray[np.intp]) -> Floats:
    """Return the book columns and the mid of these rows, (columns, rows); NaN where it is crossed, locked or empty.

    Sums over levels are chains, best level first: their bits do not depend on numpy's order of reduction.
    """
    # Level by level, whichever way the array lies: live's by rows, the lake's by levels.
    bids, bid_sizes, asks, ask_sizes = (
        np.stack([levels[rows, level] for level in range(BOOK_LEVELS)])
        for levels in (books.bid_price, books.bid_size, books.ask_price, books.ask_size)
    )
    mid = _mid(bids[0], asks[0])
    depths = []
    for bps in (5.0, 10.0):
        lowest, highest = mid * (1.0 - bps / 1e4), mid * (1.0 + bps / 1e4)
        bid_depth, ask_depth = mid * 0.0, mid * 0.0  # NaN without a mid
        for level in range(BOOK_LEVELS):
            bid_depth = bid_depth + np.where(bids[level] >= lowest, bids[level] * bid_sizes[level], 0.0)
            ask_depth = ask_depth + np.where(asks[level] <= highest, asks[level] * ask_sizes[level], 0.0)
        depths += [bid_depth, ask_depth]
    deepest_bid, deepest_ask = bids[0], asks[0]
    for level in range(1, BOOK_LEVELS):
        deepest_bid, deepest_ask = np.fmin(deepest_bid, bids[level]), np.fmax(deepest_ask, asks[level])
    reach = np.minimum(mid - deepest_bid, deepest_ask - mid) / mid * 1e4
    values = np.stack(
        [*bids[:LEVELS], *bid_sizes[:LEVELS], *asks[:LEVELS], *ask_sizes[:LEVELS], *depths, reach, mid],
    )
    values[:, (bids[0] >= asks[0]) | (np.isnan(bids[0]) & np.isnan(asks[0]))] = np.nan
    return values
