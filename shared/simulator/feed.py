"""Bitget's public pushes, as text, without a socket: a market and a clock in, frames out.

`PublicFeed.frames(start_ns, end_ns, wanted)` gives every push of [start, end) in time order, exactly as Bitget's
JSON has it (Bitget v2, WebSocket -> Public; key order and quirks as recorded in September 2026: numbers are strings,
`seq` and the outer `ts` are integers, trades newest first, trailing zeros stripped, no `checksum`). The server calls
it with the real clock, the history generator with a virtual one: there is one way from a market to the wire.

The market's truth is a 1 Hz grid. A cadence above 1 Hz repeats the state of the second with a new `ts` and `seq`.
A body is rendered once per second and symbol; a push adds head and tail to it.

To extend: a new channel is a `_render_…` method, an entry in `CHANNELS` and a case in `frames` and `snapshot`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from operator import add
from typing import Any

import msgspec

from shared.simulator.market import LEVELS, NS, Block, Market

MS = 1_000_000

CHANNELS = ("ticker", "books1", "books5", "books15", "books", "trade")
"""What can be subscribed; everything else is Bitget's error 30016."""

_BOOK_DEPTH = {"books1": 1, "books5": 5, "books15": 15}
_SNAPSHOT_TRADES = 50
_SNAPSHOT_SECONDS = 30

Frame = tuple[int, str, str, str]
"""(time_ns, channel, symbol, text)"""


class Cadence(msgspec.Struct, frozen=True, kw_only=True):
    """How often the same second is pushed; each divides 1000 ms."""

    book_ms: int = 250
    ticker_ms: int = 500
    trade_ms: int = 20  # trades of one symbol within this window share a frame


LIVE = Cadence()
HISTORY = Cadence(book_ms=1000, ticker_ms=1000, trade_ms=1000)
"""Once a second: what two hours of history are written at."""


class PublicFeed:
    """Every public push of one market.

    Args:
        market: what happens.
        cadence: how often it is told; LIVE or HISTORY.
    """

    def __init__(self, market: Market, cadence: Cadence = LIVE) -> None:
        self.market, self.cadence = market, cadence
        self._position = {symbol: n for n, symbol in enumerate(market.symbols)}
        self.price_text = [_Decimals(place) for place in market.price_places]
        self.size_text = [_Decimals(place) for place in market.size_places]
        # '["83346.1","' + '0.5"]' is a level: two look-ups and one concatenation, all inside C loops.
        self.level_head = [_Affixed(table, '["', '","') for table in self.price_text]
        self.level_tail = [_Affixed(table, "", '"]') for table in self.size_text]
        self._slow: dict[int, tuple[tuple[float, ...], str, str]] = {}
        self._open_ns = [n * 7 % 50 * MS for n in range(len(market.symbols))]
        self._standing = self._standing_schedule()
        self._second: _Second | None = None

    def knows(self, symbol: str) -> bool:
        return symbol in self._position

    def frames(
        self, start_ns: int, end_ns: int, wanted: Mapping[str, Collection[str]] | None = None
    ) -> Iterator[Frame]:
        """Yield the pushes of [start_ns, end_ns) in time order; the end is exclusive.

        Args:
            wanted: channel -> symbols; None: ticker, books15 and trade of every symbol.
        """
        if wanted is None:
            everything = self.market.symbols
            wanted = {"ticker": everything, "books15": everything, "trade": everything}
        chosen = {channel: {self._position[s] for s in symbols} for channel, symbols in wanted.items() if symbols}
        tickers, trades = chosen.get("ticker", set()), chosen.get("trade", set())
        books = {channel: chosen[channel] for channel in ("books1", "books5", "books15", "books") if channel in chosen}
        for second in range(start_ns // NS, -(-end_ns // NS)):
            if not self._has(second):
                continue
            now = self._at(second)
            base_ns = second * NS
            first = bisect_left(now.schedule, (start_ns - base_ns,))
            for offset_ns, kind, n, detail in now.schedule[first:]:
                time_ns = base_ns + offset_ns
                if time_ns >= end_ns:
                    break
                symbol = self.market.symbols[n]
                if kind == _TRADE:
                    if n in trades:
                        yield time_ns, "trade", symbol, self._render_trades(now, n, detail, time_ns)
                elif not now.is_fresh[n]:
                    continue
                elif kind == _TICKER:
                    if n in tickers:
                        yield time_ns, "ticker", symbol, self._render_ticker(now, n, time_ns)
                else:
                    for channel, positions in books.items():
                        if n not in positions:
                            continue
                        if channel == "books":
                            text = self._render_book_update(now, n, time_ns) if detail == 0 else None
                        else:
                            text = self._render_book(now, n, channel, time_ns)
                        if text is not None:
                            yield time_ns, channel, symbol, text

    def snapshot(self, now_ns: int, channel: str, symbol: str) -> str | None:
        """Return what a new subscriber of `channel` gets first, or None where the market shows nothing yet."""
        n, second = self._position[symbol], now_ns // NS
        if channel == "trade":
            return self._render_recent_trades(n, now_ns)
        if now_ns - second * NS <= self._open_ns[n]:
            second -= 1  # the state of this second has not been told yet: the next update continues from the last one
        if not self._shows(n, second):
            return None
        now = self._at(second)
        if channel == "ticker":
            return self._render_ticker(now, n, now_ns)
        if channel == "books":
            asks, bids = now.book(self, n)
            return _book_frame("snapshot", "books", symbol, ",".join(asks), ",".join(bids), now_ns, _chain(second), 0)
        return self._render_book(now, n, channel, now_ns)

    def ticker_fields(self, now_ns: int, symbol: str) -> dict[str, str] | None:
        """Return the fields of the ticker as strings, "" where unknown, or None where nothing is shown."""
        n, second = self._position[symbol], now_ns // NS
        if not self._shows(n, second):
            return None
        body = self._ticker_body(self._at(second), n)
        fields: dict[str, str] = msgspec.json.decode(body[:-1] + "}")
        return fields

    def book_rows(self, now_ns: int, symbol: str, depth: int) -> tuple[list[list[str]], list[list[str]]]:
        """Return (asks, bids) as [price, size] strings, best first."""
        n, second = self._position[symbol], now_ns // NS
        if not self._shows(n, second):
            return [], []
        asks, bids = self._at(second).book(self, n)

        def rows(levels: list[str]) -> list[list[str]]:
            decoded: list[list[str]] = msgspec.json.decode(f"[{','.join(levels[:depth])}]")
            return decoded

        return rows(asks), rows(bids)

    def recent_trades(self, now_ns: int, symbol: str, limit: int) -> list[dict[str, str]]:
        """Return the last trades before `now_ns`, newest first, in the fields of the trade channel."""
        n = self._position[symbol]
        found: list[dict[str, str]] = []
        for second in range(now_ns // NS, now_ns // NS - _SNAPSHOT_SECONDS, -1):
            if len(found) >= limit or not self._has(second):
                break
            now = self._at(second, keep=False)
            rows = [i for i in now.trade_rows.get(n, ()) if now.second * NS + now.offsets_ns[i] < now_ns]
            found.extend(msgspec.json.decode(self._trade_text(now, n, i)) for i in reversed(rows))
        return found[:limit]

    # --------------------------------------------------------------------------------- schedule

    def _standing_schedule(self) -> list[tuple[int, int, int, int]]:
        """Return the book and ticker pushes of every second: (offset_ns, kind, symbol, repetition)."""
        schedule = []
        for n, open_ns in enumerate(self._open_ns):
            schedule += [(open_ns + k * MS, _BOOK, n, k) for k in range(0, 1000 - 50, self.cadence.book_ms)]
            schedule += [(open_ns + (20 + k) * MS, _TICKER, n, k) for k in range(0, 1000 - 70, self.cadence.ticker_ms)]
        return schedule

    def _has(self, second: int) -> bool:
        """Tell whether the market has that second at all (a recording begins somewhere)."""
        first = getattr(self.market, "first_second", None)
        return first is None or second >= first

    def _shows(self, n: int, second: int) -> bool:
        """Tell whether symbol n has a market in that second."""
        return self._has(second) and bool(self.market.is_listed(second)[n])

    def _at(self, second: int, *, keep: bool = True) -> _Second:
        if self._second is not None and self._second.second == second:
            return self._second
        block = self.market.block(second)
        found = _Second(second, block, self._standing, self.cadence.trade_ms)
        if keep:
            self._second = found
        return found

    # -------------------------------------------------------------------------------- rendering

    def _render_book(self, now: _Second, n: int, channel: str, time_ns: int) -> str:
        depth = _BOOK_DEPTH[channel]
        key = (n, depth)
        body = now.bodies.get(key)
        if body is None:
            asks, bids = now.book(self, n)
            body = now.bodies[key] = (",".join(asks[:depth]), ",".join(bids[:depth]))
        return _book_frame(
            "snapshot", channel, self.market.symbols[n], *body, time_ns, _chain(now.second) + time_ns // MS % 1000, 0
        )

    def _render_book_update(self, now: _Second, n: int, time_ns: int) -> str | None:
        """Return the change of the `books` channel from the second before, or None where nothing changed."""
        asks, bids = now.book(self, n)
        before = (
            _Second(now.second - 1, self.market.block(now.second - 1), [], 1000) if self._has(now.second - 1) else None
        )
        old_asks, old_bids = before.book(self, n) if before else ([], [])

        def change(old: list[str], new: list[str]) -> str:
            # '["83346.1","0.5"]'.split('"')[1] is the price.
            prices, known = {level.split('"')[1] for level in new}, set(old)
            gone = [f'["{price}","0"]' for price in (level.split('"')[1] for level in old) if price not in prices]
            return ",".join(gone + [level for level in new if level not in known])

        ask_text, bid_text = change(old_asks, asks), change(old_bids, bids)
        seq, pseq = _chain(now.second), _chain(now.second - 1)
        return _book_frame("update", "books", self.market.symbols[n], ask_text, bid_text, time_ns, seq, pseq)

    def _render_ticker(self, now: _Second, n: int, time_ns: int) -> str:
        body = now.bodies.get((n, -1))
        if body is None:
            body = now.bodies[n, -1] = (self._ticker_body(now, n), "")
        symbol, ts = self.market.symbols[n], time_ns // MS
        return (
            f'{{"action":"snapshot","arg":{{"instType":"USDT-FUTURES","channel":"ticker","instId":"{symbol}"}},'
            f'"data":[{body[0]}"ts":"{ts}"}}],"ts":{ts + 3}}}'
        )

    def _ticker_body(self, now: _Second, n: int) -> str:
        """Return the ticker's row without its end: key order as recorded, "" where unknown."""
        symbol, place = self.market.symbols[n], self.market.price_places[n]
        row = now.ticker
        bid = self._quote(n, row["quote_bid_ticks"][n], row["quote_bid_steps"][n])
        ask = self._quote(n, row["quote_ask_ticks"][n], row["quote_ask_steps"][n])
        last, open_24h = row["last"][n], row["open_24h"][n]
        funding, volumes = self._slow_texts(n, tuple([row[name][n] for name in _SLOW]))
        opened, high, low = _plain(open_24h, place), _plain(row["high_24h"][n], place), _plain(row["low_24h"][n], place)
        mark, index = _plain(row["mark"][n], place), _plain(row["index"][n], place + 3)
        return (
            f'{{"instId":"{symbol}","lastPr":"{_plain(last, place)}","bidPr":"{bid[0]}","askPr":"{ask[0]}",'
            f'"bidSz":"{bid[1]}","askSz":"{ask[1]}","open24h":"{opened}","high24h":"{high}","low24h":"{low}",'
            f'"change24h":"{_plain(last / open_24h - 1.0, 5)}",{funding}"markPrice":"{mark}","indexPrice":"{index}",'
            f'{volumes}"openUtc":"{opened}","symbolType":"1","symbol":"{symbol}",'
        )

    def _slow_texts(self, n: int, values: tuple[float, ...]) -> tuple[str, str]:
        """Return the fields of a ticker that stay the same for half a minute; their text is kept until they change."""
        kept = self._slow.get(n)
        # NaN differs from itself, so what is unknown is rendered anew each time: right, and rare.
        if kept is None or kept[0] != values:
            rate, next_ms, open_interest, base, quote = values
            place = self.market.size_places[n]
            funding = f'"fundingRate":"{_plain(rate, 6)}","nextFundingTime":"{int(next_ms) if next_ms else ""}",'
            volumes = (
                f'"holdingAmount":"{_plain(open_interest, place)}","baseVolume":"{_plain(base, place)}",'
                f'"quoteVolume":"{_plain(quote, 5)}",'
            )
            kept = self._slow[n] = (values, funding, volumes)
        return kept[1], kept[2]

    def _quote(self, n: int, ticks: int, steps: int) -> tuple[str, str]:
        return (self.price_text[n][ticks], self.size_text[n][steps]) if steps else ("", "")

    def _trade_text(self, now: _Second, n: int, i: int) -> str:
        ts = now.second * 1000 + now.offsets_ns[i] // MS
        price, size = self.price_text[n][now.price_ticks[i]], self.size_text[n][now.size_steps[i]]
        side = "buy" if now.sides[i] > 0 else "sell"
        return f'{{"ts":"{ts}","price":"{price}","size":"{size}","side":"{side}","tradeId":"{now.trade_ids[i]}"}}'

    def _render_trades(self, now: _Second, n: int, group: int, time_ns: int) -> str:
        rows = now.groups[group]
        return _trade_frame(
            "update", self.market.symbols[n], [self._trade_text(now, n, i) for i in reversed(rows)], time_ns
        )

    def _render_recent_trades(self, n: int, now_ns: int) -> str | None:
        symbol = self.market.symbols[n]
        rows = self.recent_trades(now_ns, symbol, _SNAPSHOT_TRADES)
        if not rows:
            return None
        return _trade_frame("snapshot", symbol, [msgspec.json.encode(row).decode() for row in rows], now_ns)


_BOOK, _TICKER, _TRADE = range(3)
_SLOW = ("funding_rate", "next_funding_ms", "open_interest", "base_volume", "quote_volume")
_TICKER_COLUMNS = (
    *_SLOW, "last", "mark", "index", "open_24h", "high_24h", "low_24h",
    "quote_bid_ticks", "quote_bid_steps", "quote_ask_ticks", "quote_ask_steps",
)  # fmt: skip


class _Second:
    """One second of a market on its way to the wire: what is pushed when, and the bodies rendered so far.

    numpy becomes lists once a second: an index into a list is ten times cheaper than one into an array.
    """

    def __init__(self, second: int, block: Block, standing: list[tuple[int, int, int, int]], trade_ms: int) -> None:
        self.second, self.block, self.t = second, block, second - block.first_second
        self.bodies: dict[tuple[int, int], tuple[str, str]] = {}
        self._books: dict[int, tuple[list[str], list[str]]] = {}
        self._levels: tuple[list[list[int]], ...] | None = None
        self._ticker: dict[str, list[Any]] | None = None
        trades = block.trades
        rows = slice(int(trades.start[self.t]), int(trades.start[self.t + 1]))
        self.offsets_ns: list[int] = trades.offset_ns[rows].tolist()
        self.price_ticks: list[int] = trades.price_ticks[rows].tolist()
        self.size_steps: list[int] = trades.size_steps[rows].tolist()
        self.sides: list[int] = trades.side[rows].tolist()
        self.trade_ids: list[int] = trades.trade_id[rows].tolist()
        self.is_fresh: list[bool] = block.is_fresh[self.t].tolist()
        self.groups: list[list[int]] = []  # trades that share a frame, oldest first
        self.trade_rows: dict[int, list[int]] = {}
        moments = self._group(trades.symbol[rows].tolist(), trade_ms * MS)
        self.schedule = sorted(standing + moments) if moments else standing

    def _group(self, symbols: list[int], window_ns: int) -> list[tuple[int, int, int, int]]:
        """Return when each frame of trades leaves: when its last trade has happened."""
        open_group: dict[int, tuple[int, int]] = {}
        moments: list[tuple[int, int, int, int]] = []
        for i, (n, offset_ns) in enumerate(zip(symbols, self.offsets_ns, strict=True)):
            self.trade_rows.setdefault(n, []).append(i)
            window = offset_ns // window_ns
            group, started = open_group.get(n, (-1, -1))
            if started != window:
                group = len(self.groups)
                open_group[n] = group, window
                self.groups.append([])
                moments.append((0, 0, 0, 0))
            self.groups[group].append(i)
            moments[group] = (offset_ns, _TRADE, n, group)
        return moments

    @property
    def ticker(self) -> dict[str, list[Any]]:
        if self._ticker is None:
            self._ticker = {name: getattr(self.block, name)[self.t].tolist() for name in _TICKER_COLUMNS}
        return self._ticker

    def book(self, feed: PublicFeed, n: int) -> tuple[list[str], list[str]]:
        """Return (asks, bids) as JSON levels, best first."""
        found = self._books.get(n)
        if found is None:
            if self._levels is None:
                block, t = self.block, self.t
                tables = (block.ask_ticks, block.ask_steps, block.bid_ticks, block.bid_steps)
                self._levels = tuple(table[t].tolist() for table in tables)
            ask_ticks, ask_steps, bid_ticks, bid_steps = (table[n] for table in self._levels)
            head, tail = feed.level_head[n].__getitem__, feed.level_tail[n].__getitem__
            found = self._books[n] = (
                list(map(add, map(head, ask_ticks), map(tail, ask_steps))),
                list(map(add, map(head, bid_ticks), map(tail, bid_steps))),
            )
            if 0 in ask_steps or 0 in bid_steps:
                found = self._books[n] = (
                    [text for text, steps in zip(found[0], ask_steps, strict=True) if steps],
                    [text for text, steps in zip(found[1], bid_steps, strict=True) if steps],
                )
        return found


class _Decimals(dict[int, str]):
    """The decimal text of n x 10^-place, remembered; trailing zeros stripped as Bitget does."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self._place = place

    def __missing__(self, n: int) -> str:
        if len(self) >= 65_536:
            self.clear()
        digits, place = str(n), self._place
        if place:
            digits = digits.rjust(place + 1, "0")
            digits = f"{digits[:-place]}.{digits[-place:]}".rstrip("0").rstrip(".")
        self[n] = digits
        return digits


class _Affixed(dict[int, str]):
    """The same with something before and after it."""

    def __init__(self, table: _Decimals, before: str, after: str) -> None:
        super().__init__()
        self._table, self._before, self._after = table, before, after

    def __missing__(self, n: int) -> str:
        if len(self) >= 65_536:
            self.clear()
        text = self[n] = f"{self._before}{self._table[n]}{self._after}"
        return text


@lru_cache(maxsize=65_536)  # most of a ticker's numbers stay the same from second to second
def _plain(value: float, place: int) -> str:
    """Return a decimal without exponent or trailing zeros; "" for NaN, as Bitget sends what it does not know."""
    if math.isnan(value):
        return ""
    text = f"{value:.{place}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _chain(second: int) -> int:
    # Magnitude as recorded (4e11 .. 1e12), arbitrary steps, increasing; leaves room for 1000 pushes a second.
    return (second - 1_300_000_000) * 1000 + 7


def _book_frame(action: str, channel: str, symbol: str, asks: str, bids: str, time_ns: int, seq: int, pseq: int) -> str:
    ts = time_ns // MS
    return (
        f'{{"action":"{action}","arg":{{"instType":"USDT-FUTURES","channel":"{channel}","instId":"{symbol}"}},'
        f'"data":[{{"asks":[{asks}],"bids":[{bids}],"ts":"{ts}","seq":{seq},"pseq":{pseq}}}],"ts":{ts + 2}}}'
    )


def _trade_frame(action: str, symbol: str, rows: list[str], time_ns: int) -> str:
    return (
        f'{{"action":"{action}","arg":{{"instType":"USDT-FUTURES","channel":"trade","instId":"{symbol}"}},'
        f'"data":[{",".join(rows)}],"ts":{time_ns // MS + 1}}}'
    )


assert max(_BOOK_DEPTH.values()) == LEVELS
