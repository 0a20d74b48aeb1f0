"""Bitget's public pushes, as frames, without a socket: a market and a clock in, frames out.

`PublicFeed.wire(start_ns, end_ns, wanted)` gives every push of [start, end) in time order as whole WebSocket frames,
exactly as Bitget's JSON has it (Bitget v2, WebSocket -> Public; key order and quirks as recorded in September 2026:
numbers are strings, `seq` and the outer `ts` are integers, trades newest first, trailing zeros stripped, no
`checksum`). `frames` gives the same as text. The server calls one with its clock, the history generator the other with
a virtual one: there is one way from a market to the wire.

The market's truth is a 1 Hz grid. A cadence above 1 Hz repeats the state of the second with a new `ts` and `seq`;
only `books`, which tells changes, is pushed once a second, and not where nothing changed. Its chain is a function of
the market too: the seconds in which a symbol's book is *told* are the first fresh one of every block (a compensating
push, as Bitget's timers send) and every fresh one that differs from the fresh one before it; `pseq` is the `seq` of the
last told second.

To extend: a new channel is an entry in `CHANNELS`, a stem and a case in `wire` and `snapshot`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from typing import Any, Protocol

import msgspec
import numpy as np

from shared.simulator.clock import MS
from shared.simulator.markets.market import LEVELS, NS, Block, Market
from shared.simulator.pushes.frames import frame, payload
from shared.simulator.pushes.rendering import BOOK, CANDLE, TICKER, TRADE, Schedule, Second, Texts, sides

GRANULARITIES = (
    "1m", "5m", "15m", "30m", "1H", "4H", "6H", "12H", "1D", "3D", "1W", "1M",
    "6Hutc", "12Hutc", "1Dutc", "3Dutc", "1Wutc", "1Mutc",
)  # fmt: skip
CANDLE_CHANNELS = tuple(f"candle{granularity}" for granularity in GRANULARITIES)
CHANNELS = ("ticker", "books1", "books5", "books15", "books", "trade", *CANDLE_CHANNELS)
"""What can be subscribed; everything else is Bitget's error 30016."""

_BOOK_DEPTH = {"books1": 1, "books5": 5, "books15": 15}
_SNAPSHOT_TRADES = 50
_SNAPSHOT_SECONDS = 60
SNAPSHOT_CANDLES = 100
_QUIET_BLOCKS_MAX = 3
"""A book that has not been told for so many blocks is told anew, with a snapshot."""

_SECONDS_KEPT = 3
"""The one that is pushed, and those before it that a new subscriber may continue from."""

_NOBODY: frozenset[str] = frozenset()

Frame = tuple[int, str, str, str]
"""(time_ns, channel, symbol, text)"""
WireFrame = tuple[int, str, str, bytes]
"""(time_ns, channel, symbol, WebSocket frame)"""


class Cadence(msgspec.Struct, frozen=True, kw_only=True):
    """How often the same second is pushed."""

    book_ms: int = 250
    ticker_ms: int = 500
    trade_ms: int = 20  # trades of one symbol within this window share a frame


CALM = Cadence()
"""A third of the frames: for a machine that has to do without."""

BITGET = Cadence(book_ms=125, ticker_ms=110)
"""As measured in September 2026: about 8 books and 9 tickers a second and symbol."""

LIVE = BITGET
HISTORY = Cadence(book_ms=1000, ticker_ms=1000, trade_ms=1000)
"""Once a second: what two hours of history are written at."""


class CandleSource(Protocol):
    """Where candles come from: rows of eight strings, [open ms, open, high, low, close, base, quote, USDT]."""

    def forming(self, symbol: str, granularity: str, now_ns: int) -> list[str] | None:
        """Return the candle that is open at `now_ns`; None: not all of it is known."""

    def recent(self, symbol: str, granularity: str, now_ns: int, limit: int) -> list[list[str]]:
        """Return the last `limit` candles that are known, up to the forming one, oldest first."""


class PublicFeed:
    """Every public push of one market.

    Args:
        market: what happens.
        cadence: how often it is told; CALM, BITGET or HISTORY.
        candles: where the candle channels come from; None: nothing is told on them.
        has_checksum: add the `checksum` to books that Bitget sent until May 2026 (0 but in updates of `books`).
    """

    def __init__(
        self,
        market: Market,
        cadence: Cadence = LIVE,
        *,
        candles: CandleSource | None = None,
        has_checksum: bool = False,
    ) -> None:
        self.market, self.cadence, self.candles, self._has_checksum = market, cadence, candles, has_checksum
        self.texts = Texts(market)
        self._position = {symbol: n for n, symbol in enumerate(market.symbols)}
        self._open_ns = [n * 7 % 50 * MS for n in range(len(market.symbols))]
        self._standing = self._standing_schedule()
        self._rows: list[dict[str, Any]] | None = None
        self._listed: set[str] = set()
        self._seconds: dict[int, Second] = {}  # oldest first
        self._told: dict[int, dict[int, list[int]]] = {}  # first second of a block -> symbol -> told seconds

    def knows(self, symbol: str, now_ns: int | None = None) -> bool:
        """Tell whether there is such a contract at `now_ns`; None: at any time."""
        if symbol not in self._position or now_ns is None:
            return symbol in self._position
        rows = self.market.contracts(now_ns // NS)
        if rows is not self._rows:  # the same list is returned while nothing changes
            self._rows, self._listed = rows, {row["symbol"] for row in rows}
        return symbol in self._listed

    def frames(
        self, start_ns: int, end_ns: int, wanted: Mapping[str, Collection[str]] | None = None
    ) -> Iterator[Frame]:
        """Yield the pushes of [start_ns, end_ns) as text; see `wire`."""
        for time_ns, channel, symbol, whole in self.wire(start_ns, end_ns, wanted):
            yield time_ns, channel, symbol, payload(whole)

    def wire(
        self, start_ns: int, end_ns: int, wanted: Mapping[str, Collection[str]] | None = None
    ) -> Iterator[WireFrame]:
        """Yield the pushes of [start_ns, end_ns) in time order; the end is exclusive.

        Args:
            wanted: channel -> symbols; None: ticker, books15 and trade of every symbol.
        """
        if wanted is None:
            wanted = dict.fromkeys(("ticker", "books15", "trade"), self._position.keys())
        chosen = {c: symbols if isinstance(symbols, Set) else set(symbols) for c, symbols in wanted.items() if symbols}
        tickers, trades = chosen.get("ticker", _NOBODY), chosen.get("trade", _NOBODY)
        changes = chosen.get("books", _NOBODY)
        books = [(channel, depth, chosen[channel]) for channel, depth in _BOOK_DEPTH.items() if channel in chosen]
        candles = [(channel, chosen[channel]) for channel in CANDLE_CHANNELS if channel in chosen]
        symbols = self.market.symbols
        for second in range(start_ns // NS, -(-end_ns // NS)):
            if not self._has(second):
                continue
            now = self._at(second)
            base_ns = second * NS
            schedule, is_fresh = now.schedule, now.is_fresh
            # A one-tuple sorts before every entry of its instant.
            first = bisect_left(schedule, (start_ns - base_ns,)) if start_ns > base_ns else 0
            end = bisect_left(schedule, (end_ns - base_ns,)) if end_ns < base_ns + NS else len(schedule)
            for offset_ns, kind, n, detail in schedule[first:end]:
                symbol, time_ns = symbols[n], base_ns + offset_ns
                if kind == TRADE:
                    if symbol in trades:
                        yield time_ns, "trade", symbol, self._trades(now, n, detail, time_ns)
                elif not is_fresh[n]:
                    continue
                elif kind == TICKER:
                    if symbol in tickers:
                        yield time_ns, "ticker", symbol, self._ticker(now, n, time_ns)
                elif kind == BOOK:
                    for channel, depth, some in books:
                        if symbol in some:
                            yield time_ns, channel, symbol, self._book(now, n, channel, depth, time_ns)
                    if detail == 0 and symbol in changes:
                        update = self._book_update(now, n, time_ns)
                        if update is not None:
                            yield time_ns, "books", symbol, update
                else:
                    for channel, some in candles:
                        if symbol in some:
                            bars = self._candles(n, channel, time_ns)
                            if bars is not None:
                                yield time_ns, channel, symbol, bars

    def snapshot(self, now_ns: int, channel: str, symbol: str) -> str | None:
        """Return what a new subscriber of `channel` gets first, or None where the market shows nothing yet.

        It continues exactly where `wire` stood at `now_ns`: nothing is missing and nothing of `books` is told twice.
        """
        n, second = self._position[symbol], now_ns // NS
        if channel == "trade":
            return self._recent_trades(n, now_ns)
        if channel in CANDLE_CHANNELS:
            if self.candles is None:
                return None
            bars = self.candles.recent(symbol, channel.removeprefix("candle"), now_ns, SNAPSHOT_CANDLES)
            return _frame_text("snapshot", channel, symbol, _json(bars)[1:-1], now_ns) if bars else None
        if channel == "books":
            told = self._last_told(now_ns, n) if self._shows(n, second) else None
            if told is None or (told < second and not self._shows(n, second - 1)):
                return None  # not listed, or only just listed again
            now = self._at(told)
            ask_texts, bid_texts = now.book(n)
            asks, bids = ",".join(ask_texts), ",".join(bid_texts)
            return self._book_text("snapshot", symbol, asks, bids, now_ns, _chain(told), 0, 0)
        if now_ns - second * NS <= self._open_ns[n]:
            second -= 1  # the state of this second has not been told yet
        if not self._shows(n, second):
            return None
        now = self._at(second)
        if channel == "ticker":
            return payload(self._ticker(now, n, now_ns))
        return payload(self._book(now, n, channel, _BOOK_DEPTH[channel], now_ns))

    def ticker_fields(self, now_ns: int, symbol: str) -> dict[str, str] | None:
        """Return the fields of the ticker as strings, "" where unknown, or None where nothing is shown."""
        n, second = self._position[symbol], now_ns // NS
        if not self._shows(n, second):
            return None
        body = self._at(second).ticker(n)
        fields: dict[str, str] = msgspec.json.decode(body[:-1] + "}")
        return fields

    def book_rows(self, now_ns: int, symbol: str, depth: int) -> tuple[list[list[str]], list[list[str]]]:
        """Return (asks, bids) as [price, size] strings, best first."""
        n, second = self._position[symbol], now_ns // NS
        if not self._shows(n, second):
            return [], []
        asks, bids = self._at(second).book(n)

        def rows(levels: list[str]) -> list[list[str]]:
            decoded: list[list[str]] = msgspec.json.decode(f"[{','.join(levels[:depth])}]")
            return decoded

        return rows(asks), rows(bids)

    def recent_trades(self, now_ns: int, symbol: str, limit: int) -> list[dict[str, str]]:
        """Return the last trades before `now_ns`, newest first, in the fields of the trade channel."""
        n, second = self._position[symbol], now_ns // NS
        price, size = self.texts.price[n], self.texts.size[n]
        first = second - _SNAPSHOT_SECONDS + 1
        found: list[dict[str, str]] = []
        while second >= first and len(found) < limit and self._has(second):
            block = self.market.block(second)
            trades, begin = block.trades, max(first, block.first_second)
            starts = trades.start[begin - block.first_second : second + 2 - block.first_second]
            rows = slice(int(starts[0]), int(starts[-1]))
            seconds = np.repeat(np.arange(begin, second + 1), np.diff(starts))
            times_ns = seconds * NS + trades.offset_ns[rows]
            for i in np.flatnonzero((trades.symbol[rows] == n) & (times_ns < now_ns))[::-1][: limit - len(found)]:
                at = rows.start + int(i)
                found.append(
                    {
                        "ts": str(int(times_ns[i]) // MS),
                        "price": price[int(trades.price_ticks[at])],
                        "size": size[int(trades.size_steps[at])],
                        "side": "buy" if trades.side[at] > 0 else "sell",
                        "tradeId": str(int(trades.trade_id[at])),
                    }
                )
            second = begin - 1
        return found

    # --------------------------------------------------------------------------------- schedule

    def _standing_schedule(self) -> Schedule:
        """Return what is pushed in every second: (offset_ns, kind, symbol, repetition) in time order."""
        schedule: Schedule = []
        for n, open_ns in enumerate(self._open_ns):
            schedule += [(open_ns + k * MS, BOOK, n, k) for k in range(0, 1000 - 50, self.cadence.book_ms)]
            schedule += [(open_ns + (20 + k) * MS, TICKER, n, k) for k in range(0, 1000 - 70, self.cadence.ticker_ms)]
            schedule.append((open_ns + 40 * MS, CANDLE, n, 0))
        return sorted(schedule)

    def _has(self, second: int) -> bool:
        """Tell whether the market has that second at all (a recording begins somewhere)."""
        first = getattr(self.market, "first_second", None)
        return first is None or second >= first

    def _shows(self, n: int, second: int) -> bool:
        """Tell whether symbol n has a market in that second."""
        return self._has(second) and bool(self.market.is_listed(second)[n])

    def _at(self, second: int) -> Second:
        found = self._seconds.get(second)
        if found is None:
            while len(self._seconds) >= _SECONDS_KEPT:
                del self._seconds[next(iter(self._seconds))]
            found = Second(second, self.market.block(second), self.texts, self._standing, self.cadence.trade_ms)
            self._seconds[second] = found
        return found

    # ---------------------------------------------------------------------------- the chain of books

    def _told_in(self, block: Block, n: int) -> list[int]:
        """Return the seconds of a block in which the book of a symbol is told."""
        by_symbol = self._told.get(block.first_second)
        if by_symbol is None:
            while len(self._told) > _QUIET_BLOCKS_MAX:
                del self._told[min(self._told)]
            by_symbol = self._told[block.first_second] = {}
        found = by_symbol.get(n)
        if found is None:
            fresh = np.flatnonzero(block.is_fresh[:, n])
            tables = (block.ask_ticks, block.ask_steps, block.bid_ticks, block.bid_steps)
            levels = np.concatenate([table[fresh, n] for table in tables], axis=1)
            differs = (levels[1:] != levels[:-1]).any(axis=1)
            told = fresh[:1].tolist() + fresh[1:][differs].tolist()
            found = by_symbol[n] = [block.first_second + t for t in told]
        return found

    def _last_told_from(self, second: int, n: int) -> int | None:
        """Return the last second <= `second` in which a book was told; None: not for a long time."""
        for _ in range(_QUIET_BLOCKS_MAX):
            if not self._has(second):
                return None
            block = self.market.block(second)
            told = self._told_in(block, n)
            at = bisect_right(told, second)
            if at:
                return told[at - 1]
            if not self._shows(n, block.first_second):
                return None  # just listed: no need to compute what was before
            second = block.first_second - 1
        return None

    def _last_told(self, now_ns: int, n: int) -> int | None:
        second = now_ns // NS
        return self._last_told_from(second if now_ns - second * NS > self._open_ns[n] else second - 1, n)

    def _book_update(self, now: Second, n: int, time_ns: int) -> bytes | None:
        """Return the change of the `books` channel since it was last told, or None where nothing changed."""
        told = self._told_in(now.block, n)
        at = bisect_left(told, now.second)
        if at == len(told) or told[at] != now.second:
            return None
        symbol, asks_bids = self.market.symbols[n], sides(now.block, now.t, n)
        before = self._last_told_from(now.second - 1, n)
        if before is not None and before < now.second - 1 and not self._shows(n, now.second - 1):
            before = None  # it was not listed in between: who subscribed meanwhile was told nothing
        if before is None:  # nothing that a change could refer to
            ask_texts, bid_texts = now.book(n)
            asks, bids = ",".join(ask_texts), ",".join(bid_texts)
            text = self._book_text("snapshot", symbol, asks, bids, time_ns, _chain(now.second), 0, 0)
            return frame(text.encode())
        block = self.market.block(before)
        old_asks, old_bids = sides(block, before - block.first_second, n)
        asks = self.texts.change(n, old_asks, asks_bids[0], is_bid=False)
        bids = self.texts.change(n, old_bids, asks_bids[1], is_bid=True)
        crc = self.texts.checksum(n, asks_bids[1], asks_bids[0]) if self._has_checksum else 0
        text = self._book_text("update", symbol, asks, bids, time_ns, _chain(now.second), _chain(before), crc)
        return frame(text.encode())

    # -------------------------------------------------------------------------------- rendering

    def _book_text(
        self, action: str, symbol: str, asks: str, bids: str, time_ns: int, seq: int, pseq: int, crc: int
    ) -> str:
        checksum = f'"checksum":{crc},' if self._has_checksum else ""
        row = f'{{"asks":[{asks}],"bids":[{bids}],{checksum}"ts":"{time_ns // MS}","seq":{seq},"pseq":{pseq}}}'
        return _frame_text(action, "books", symbol, row, time_ns, 2)

    def _book(self, now: Second, n: int, channel: str, depth: int, time_ns: int) -> bytes:
        stem = now.stems.get((n, depth))
        if stem is None:
            asks, bids = now.book(n)
            checksum = '"checksum":0,' if self._has_checksum else ""
            text = (
                f"{_head('snapshot', channel, self.market.symbols[n])}"
                f'{{"asks":[{",".join(asks[:depth])}],"bids":[{",".join(bids[:depth])}],{checksum}'
            )
            stem = now.stems[n, depth] = text.encode()
        ts = time_ns // MS
        tail = now.book_tails.get(ts)
        if tail is None:
            seq = _chain(now.second) + ts % 1000
            tail = now.book_tails[ts] = f'"ts":"{ts}","seq":{seq},"pseq":0}}],"ts":{ts + 2}}}'.encode()
        return frame(stem, tail)

    def _ticker(self, now: Second, n: int, time_ns: int) -> bytes:
        stem = now.stems.get((n, 0))
        if stem is None:
            text = _head("snapshot", "ticker", self.market.symbols[n]) + now.ticker(n)
            stem = now.stems[n, 0] = text.encode()
        ts = time_ns // MS
        tail = now.ticker_tails.get(ts)
        if tail is None:
            tail = now.ticker_tails[ts] = f'"ts":"{ts}"}}],"ts":{ts + 3}}}'.encode()
        return frame(stem, tail)

    def _trades(self, now: Second, n: int, group: int, time_ns: int) -> bytes:
        rows = ",".join([now.trade(n, i) for i in reversed(now.groups[group])])
        return frame(_frame_text("update", "trade", self.market.symbols[n], rows, time_ns, 1).encode())

    def _recent_trades(self, n: int, now_ns: int) -> str | None:
        symbol = self.market.symbols[n]
        rows = self.recent_trades(now_ns, symbol, _SNAPSHOT_TRADES)
        return _frame_text("snapshot", "trade", symbol, _json(rows)[1:-1], now_ns, 1) if rows else None

    def _candles(self, n: int, channel: str, time_ns: int) -> bytes | None:
        """Return the forming candle once a second while there is trading, and with it the one that has just closed."""
        second = time_ns // NS
        if self.candles is None or not self._has(second - 1) or not self._has_traded(second - 1, n):
            return None
        symbol, granularity = self.market.symbols[n], channel.removeprefix("candle")
        forming = self.candles.forming(symbol, granularity, time_ns)
        if forming is None:
            return None
        bars = [forming]
        if int(forming[0]) > (second - 1) * 1000:  # the trades of the second before belong to the candle before
            bars = self.candles.recent(symbol, granularity, time_ns, 2)
        return frame(_frame_text("update", channel, symbol, _json(bars)[1:-1], time_ns, 1).encode())

    def _has_traded(self, second: int, n: int) -> bool:
        block = self.market.block(second)
        t, trades = second - block.first_second, block.trades
        return bool((trades.symbol[trades.start[t] : trades.start[t + 1]] == n).any())


def _chain(second: int) -> int:
    # Magnitude as recorded (4e11 .. 1e12), arbitrary steps, increasing; leaves room for 1000 pushes a second.
    return (second - 1_300_000_000) * 1000


def _head(action: str, channel: str, symbol: str) -> str:
    return (
        f'{{"action":"{action}","arg":{{"instType":"USDT-FUTURES","channel":"{channel}","instId":"{symbol}"}},"data":['
    )


def _frame_text(action: str, channel: str, symbol: str, rows: str, time_ns: int, late_ms: int = 1) -> str:
    return f'{_head(action, channel, symbol)}{rows}],"ts":{time_ns // MS + late_ms}}}'


def _json(rows: Sequence[object]) -> str:
    return msgspec.json.encode(rows).decode()


assert max(_BOOK_DEPTH.values()) == LEVELS
