"""From numbers to the text on the wire: decimals, levels, the rows of tickers and trades, one second at a time.

A number's text is looked up, not formatted: most ticks and sizes come again. What a push repeats within a second (head
and levels of a book, a ticker's row) is its *stem*, rendered once a second and symbol; what differs is the *tail* with
the time, the same for every symbol of a millisecond. A push is one concatenation of the two.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import lru_cache
from operator import add
from typing import Any

from shared.simulator.clock import MS
from shared.simulator.markets.market import Block, Market

Schedule = list[tuple[int, int, int, int]]
"""(offset_ns, kind, symbol, detail), in time order; detail is the repetition or, of a trade, the group."""

BOOK, TICKER, TRADE, CANDLE = range(4)
CHECKSUM_LEVELS = 25

_SLOW = ("funding_rate", "next_funding_ms", "open_interest", "base_volume", "quote_volume")
_TICKER_COLUMNS = (
    *_SLOW, "last", "mark", "index", "open_24h", "high_24h", "low_24h",
    "quote_bid_ticks", "quote_bid_steps", "quote_ask_ticks", "quote_ask_steps",
)  # fmt: skip


class Texts:
    """The texts of one market's numbers, by position of the symbol."""

    def __init__(self, market: Market) -> None:
        self.market = market
        # A text depends on the number and its decimals alone, so that symbols share tables: a dozen, not thousands.
        self.price = _tables(market.price_places)
        self.size = _tables(market.size_places)
        # '["83346.1","' + '0.5"]' is a level: two look-ups and one concatenation, all inside C loops.
        self.level_head = _tables(market.price_places, '["', '","')
        self.level_tail = _tables(market.size_places, "", '"]')
        self._slow: dict[int, tuple[tuple[float, ...], str, str]] = {}

    def levels(self, n: int, ticks: Sequence[int], steps: Sequence[int]) -> list[str]:
        """Return JSON levels, the absent ones left out."""
        texts = list(map(add, map(self.level_head[n].__getitem__, ticks), map(self.level_tail[n].__getitem__, steps)))
        return [text for text, size in zip(texts, steps, strict=True) if size] if 0 in steps else texts

    def change(self, n: int, old: dict[int, int], new: dict[int, int], *, is_bid: bool) -> str:
        """Return what turns the levels `old` (ticks -> steps) into `new`, best first; size 0 deletes."""
        moved = {ticks: steps for ticks, steps in new.items() if old.get(ticks) != steps}
        moved |= {ticks: 0 for ticks in old if ticks not in new}
        head, tail = self.level_head[n], self.level_tail[n]
        return ",".join([head[ticks] + tail[moved[ticks]] for ticks in sorted(moved, reverse=is_bid)])

    def checksum(self, n: int, bids: dict[int, int], asks: dict[int, int]) -> int:
        """Return the checksum of a book whose sides are ticks -> steps, best first."""
        price, size = self.price[n], self.size[n]
        return checksum(
            *([(price[ticks], size[steps]) for ticks, steps in side.items()][:CHECKSUM_LEVELS] for side in (bids, asks))
        )

    def ticker(self, row: dict[str, list[Any]], n: int) -> str:
        """Return a ticker's row without its end: key order as recorded, "" where unknown."""
        symbol, place = self.market.symbols[n], self.market.price_places[n]
        bid = self._quote(n, row["quote_bid_ticks"][n], row["quote_bid_steps"][n])
        ask = self._quote(n, row["quote_ask_ticks"][n], row["quote_ask_steps"][n])
        last, open_24h = row["last"][n], row["open_24h"][n]
        funding, volumes = self._slow_texts(n, tuple([row[name][n] for name in _SLOW]))
        opened, high, low = plain(open_24h, place), plain(row["high_24h"][n], place), plain(row["low_24h"][n], place)
        mark, index = plain(row["mark"][n], place), plain(row["index"][n], place + 3)
        return (
            f'{{"instId":"{symbol}","lastPr":"{plain(last, place)}","bidPr":"{bid[0]}","askPr":"{ask[0]}",'
            f'"bidSz":"{bid[1]}","askSz":"{ask[1]}","open24h":"{opened}","high24h":"{high}","low24h":"{low}",'
            f'"change24h":"{plain(last / open_24h - 1.0, 5)}",{funding}"markPrice":"{mark}","indexPrice":"{index}",'
            f'{volumes}"openUtc":"{opened}","symbolType":"1","symbol":"{symbol}",'
        )

    def _slow_texts(self, n: int, values: tuple[float, ...]) -> tuple[str, str]:
        """Return the fields of a ticker that stay the same for half a minute; their text is kept until they change."""
        kept = self._slow.get(n)
        # NaN differs from itself, so what is unknown is rendered anew each time: right, and rare.
        if kept is None or kept[0] != values:
            rate, next_ms, open_interest, base, quote = values
            place = self.market.size_places[n]
            funding = f'"fundingRate":"{plain(rate, 6)}","nextFundingTime":"{int(next_ms) if next_ms else ""}",'
            volumes = (
                f'"holdingAmount":"{plain(open_interest, place)}","baseVolume":"{plain(base, place)}",'
                f'"quoteVolume":"{plain(quote, 5)}",'
            )
            kept = self._slow[n] = (values, funding, volumes)
        return kept[1], kept[2]

    def _quote(self, n: int, ticks: int, steps: int) -> tuple[str, str]:
        return (self.price[n][ticks], self.size[n][steps]) if steps else ("", "")


class Second:
    """One second of a market on its way to the wire: what is pushed when, and the stems rendered so far.

    numpy becomes lists once a second: an index into a list is ten times cheaper than one into an array.
    """

    def __init__(self, second: int, block: Block, texts: Texts, standing: Schedule, trade_ms: int) -> None:
        self.second, self.block, self.t, self._texts = second, block, second - block.first_second, texts
        self.stems: dict[tuple[int, int], bytes] = {}  # (symbol, depth); depth 0 is the ticker
        self.book_tails: dict[int, bytes] = {}  # by the millisecond of the push
        self.ticker_tails: dict[int, bytes] = {}
        self._books: dict[int, tuple[list[str], list[str]]] = {}
        self._levels: tuple[list[list[int]], ...] | None = None
        self._ticker: dict[str, list[Any]] | None = None
        trades = block.trades
        rows = slice(int(trades.start[self.t]), int(trades.start[self.t + 1]))
        self.offsets_ns: list[int] = trades.offset_ns[rows].tolist()
        self._price_ticks: list[int] = trades.price_ticks[rows].tolist()
        self._size_steps: list[int] = trades.size_steps[rows].tolist()
        self._sides: list[int] = trades.side[rows].tolist()
        self._trade_ids: list[int] = trades.trade_id[rows].tolist()
        self.is_fresh: list[bool] = block.is_fresh[self.t].tolist()
        self.groups: list[list[int]] = []  # trades that share a frame, oldest first
        self.trade_rows: dict[int, list[int]] = {}  # by symbol: its trades, oldest first
        moments = self._group(trades.symbol[rows].tolist(), trade_ms * MS)
        self.schedule = sorted(standing + moments) if moments else standing

    def _group(self, symbols: list[int], window_ns: int) -> Schedule:
        """Return when each frame of trades leaves: when its last trade has happened."""
        open_group: dict[int, tuple[int, int]] = {}
        moments: Schedule = []
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
            moments[group] = (offset_ns, TRADE, n, group)
        return moments

    def ticker(self, n: int) -> str:
        if self._ticker is None:
            self._ticker = {name: getattr(self.block, name)[self.t].tolist() for name in _TICKER_COLUMNS}
        return self._texts.ticker(self._ticker, n)

    def book(self, n: int) -> tuple[list[str], list[str]]:
        """Return (asks, bids) as JSON levels, best first."""
        found = self._books.get(n)
        if found is None:
            if self._levels is None:
                block, t = self.block, self.t
                tables = (block.ask_ticks, block.ask_steps, block.bid_ticks, block.bid_steps)
                self._levels = tuple(table[t].tolist() for table in tables)
            ask_ticks, ask_steps, bid_ticks, bid_steps = (table[n] for table in self._levels)
            found = self._books[n] = (
                self._texts.levels(n, ask_ticks, ask_steps),
                self._texts.levels(n, bid_ticks, bid_steps),
            )
        return found

    def trade(self, n: int, i: int) -> str:
        """Return one row of the trade channel."""
        ts = self.second * 1000 + self.offsets_ns[i] // MS
        price, size = self._texts.price[n][self._price_ticks[i]], self._texts.size[n][self._size_steps[i]]
        side = "buy" if self._sides[i] > 0 else "sell"
        return f'{{"ts":"{ts}","price":"{price}","size":"{size}","side":"{side}","tradeId":"{self._trade_ids[i]}"}}'


def sides(block: Block, t: int, n: int) -> tuple[dict[int, int], dict[int, int]]:
    """Return (asks, bids) of one row as ticks -> steps, best first, absent levels left out."""
    asks = zip(block.ask_ticks[t, n].tolist(), block.ask_steps[t, n].tolist(), strict=True)
    bids = zip(block.bid_ticks[t, n].tolist(), block.bid_steps[t, n].tolist(), strict=True)
    return {ticks: steps for ticks, steps in asks if steps}, {ticks: steps for ticks, steps in bids if steps}


def checksum(bids: Sequence[tuple[str, str]], asks: Sequence[tuple[str, str]]) -> int:
    """Return Bitget's checksum of a book until May 2026, a signed 32-bit integer.

    CRC-32 of bid1 price:bid1 size:ask1 price:ask1 size:bid2 …, missing levels skipped, the strings as they were sent.
    """
    words: list[str] = []
    for i in range(min(CHECKSUM_LEVELS, max(len(bids), len(asks)))):
        for side in (bids, asks):
            words += side[i] if i < len(side) else ()
    crc = zlib.crc32(":".join(words).encode())
    return crc - (1 << 32) if crc >= 1 << 31 else crc


_REMEMBERED = 1 << 18
"""Texts kept in a table; a thousand symbols show about 200,000 different prices at a time, in a dozen tables."""


class _Decimals(dict[int, str]):
    """The decimal text of n x 10^-place between two affixes, remembered; trailing zeros stripped as Bitget does."""

    def __init__(self, place: int, before: str, after: str) -> None:
        super().__init__()
        self._place, self._before, self._after = place, before, after

    def __missing__(self, n: int) -> str:
        if len(self) >= _REMEMBERED:
            self.clear()
        digits, place = str(n), self._place
        if place:
            digits = digits.rjust(place + 1, "0")
            digits = f"{digits[:-place]}.{digits[-place:]}".rstrip("0").rstrip(".")
        text = self[n] = f"{self._before}{digits}{self._after}"
        return text


def _tables(places: Sequence[int], before: str = "", after: str = "") -> list[_Decimals]:
    by_place = {place: _Decimals(place, before, after) for place in set(places)}
    return [by_place[place] for place in places]


@lru_cache(maxsize=65_536)  # most of a ticker's numbers stay the same from second to second
def plain(value: float, place: int) -> str:
    """Return a decimal without exponent or trailing zeros; "" for NaN, as Bitget sends what it does not know."""
    if math.isnan(value):
        return ""
    text = f"{value:.{place}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
