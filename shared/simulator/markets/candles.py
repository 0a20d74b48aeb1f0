"""Candles: exact aggregates of the market's public trades, by minute and everything longer.

A minute is aggregated once, for all symbols, from `Market.outline` (0.03 s for five minutes of 20 symbols, 0.2 s of
600), and kept as whole numbers: ticks, size steps, and their products, so that no sum depends on its order. Longer
candles are put together from minutes when asked for. MARK and INDEX candles are made of the values that the ticker
tells once a second; they have no volume.

What is kept: `retained_s` back from now; beyond that there is nothing, as beyond Bitget's own retention. A generated
market has to compute what it is asked for, so it keeps 25 hours by default: the running day is always whole, a thousand
minutes are there, and all of it takes 8 s of 20 symbols and a minute of 600. A candle whose beginning is not retained
is not shown at all: half a week is no week. A recorded market shows what the recording holds; there, its beginning is
the listing of its symbols, and the first candle may be short.

The event loop never computes a block: `learn` fills what a request needs in a thread, five minutes at a time and the
newest first. `forming` and `recent`, which the pushes are made of, tell only what is known.

A minute without trades has the close before it four times and volume 0 (inferred: Bitget's lists have no holes), unless
the symbol was not listed then: in that case it has no row, nor has any minute before the first trade that is known.

Where candles begin (Bitget v2, Get Candle Data): multiples of the length, and from 6H on of the day of UTC+8, or of UTC
where the name ends in "utc". Weeks begin on Monday, and three days are counted from 1 January 1970 (both inferred).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.simulator.markets.blocks import Block, Floats, Ints, Outline
from shared.simulator.markets.market import Market
from shared.types import NS

Kind = Literal["MARKET", "MARK", "INDEX"]

RETAINED_S = 25 * 3600
"""Of a market that must be computed: longer than a day, whose beginning depends on who calls it a day."""

RECORDED_S_MAX = 90 * 86_400
SYMBOL_DAYS = 720
"""Days kept times symbols, at most: 50 MB. 17 hours of 1,000 symbols are a thousand minutes."""

PAGE_MIN = 5
"""Minutes that are learnt at once: a block of the generated market."""

LOOK_BACK_MIN = 60
"""How far a quiet beginning is searched for the close before it."""

INDEX_PLACES = 3
"""Decimals that the index price has more than the contract's."""

SNAPSHOT_MAX = 100
SNAPSHOT_MIN = 600
"""Minutes that the snapshot of a subscription may need: 120 blocks, about a second for small markets."""

_SLACK_MIN = 120
_WIDE_PLACES = 11
"""Price and size decimals above which a minute's turnover may not fit 64 bits, at 90 million USDT."""


class Granularity(msgspec.Struct, frozen=True):
    """A length of candles as a partition of the minutes since 1970 into buckets with consecutive numbers.

    `minutes` 0 stands for calendar months.
    """

    minutes: int
    shift: int = 0  # minutes from the beginning of a bucket to 1970

    def bucket(self, minute: int) -> int:
        """Return the number of the bucket that holds `minute`."""
        return int(self.buckets(np.array([minute], dtype=np.int64))[0])

    def buckets(self, minutes: Ints) -> Ints:
        shifted = minutes + self.shift
        if self.minutes:
            return shifted // self.minutes
        months: Ints = shifted.astype("datetime64[m]").astype("datetime64[M]").astype(np.int64)
        return months

    def begin(self, bucket: int) -> int:
        """Return the first minute of a bucket."""
        if self.minutes:
            return bucket * self.minutes - self.shift
        return int(np.datetime64(bucket, "M").astype("datetime64[m]").astype(np.int64)) - self.shift


_DAY, _UTC8, _MONDAY = 1440, 480, 3 * 1440  # 1 January 1970 was a Thursday
_INTRADAY = {"1m": 1, "3m": 3, "5m": 5, "15m": 15, "30m": 30, "1H": 60, "2H": 120, "4H": 240}
_DAILY = {
    "6H": (360, 0),
    "12H": (720, 0),
    "1D": (_DAY, 0),
    "3D": (3 * _DAY, 0),
    "1W": (7 * _DAY, _MONDAY),
    "1M": (0, 0),
}

GRANULARITIES: dict[str, Granularity] = {
    **{name: Granularity(minutes) for name, minutes in _INTRADAY.items()},
    **{name: Granularity(minutes, shift + _UTC8) for name, (minutes, shift) in _DAILY.items()},
    **{f"{name}utc": Granularity(minutes, shift) for name, (minutes, shift) in _DAILY.items()},
}
"""Bitget's names; case matters ("1m" is a minute, "1M" a month)."""


class Candles:
    """The candles of one market.

    Args:
        market: whose trades.
        retained_s: how far back; None: see the module's docstring.
    """

    def __init__(self, market: Market, retained_s: int | None = None) -> None:
        self._market = market
        self._position = {symbol: n for n, symbol in enumerate(market.symbols)}
        self._first_second: int | None = getattr(market, "first_second", None)  # of a recording; else it never began
        usual = RETAINED_S if self._first_second is None else RECORDED_S_MAX
        by_size = SYMBOL_DAYS * 86_400 // max(1, len(market.symbols))
        self.retained_s = min(usual if retained_s is None else retained_s, by_size)
        self._begin = None if self._first_second is None else self._first_second // 60
        self._minutes: dict[str, _Minutes] = {}
        self._forming: dict[str, tuple[int, int, _Rows]] = {}
        self._running: dict[tuple[str, int], tuple[int, int, list[int] | None]] = {}
        self._learning = asyncio.Lock()
        self._is_stopped = False

    # -------------------------------------------------------------------------------------- what is known

    def forming(self, symbol: str, granularity: str, now_ns: int) -> list[str] | None:
        """Return the running candle in the eight columns of the pushes, all trades before `now_ns` in it.

        None: not all of it is known yet (`learn` changes that), or nothing has been traded in it and the close before
        it is not known.
        """
        n, step, minute = self._position[symbol], GRANULARITIES[granularity], now_ns // NS // 60
        known = self._keep_up("MARKET", minute)
        bucket = step.bucket(minute)
        begin, until, candle = self._running.get((granularity, n), (-1, -1, None))
        first = max(step.begin(bucket), self._first(minute))
        if begin != first or until > minute:
            until, candle = first, None
        if known.known_from(until, minute) != until or self._is_cut(step.begin(bucket), minute):
            return None
        if until < minute:
            candle = _joined(candle, known.candle(n, until, minute))
        self._running[granularity, n] = first, minute, candle
        candle = _joined(candle, self._partial("MARKET", n, now_ns))
        if candle is None:
            close = known.close_before(n, minute, known.known_from(self._first(minute), minute))
            if close is None or not self._market.is_listed(now_ns // NS)[n]:
                return None
            candle = [close, close, close, close, 0, 0]
        return self._text(n, step.begin(bucket), candle, "MARKET", 8)

    def recent(self, symbol: str, granularity: str, now_ns: int, limit: int) -> list[list[str]]:
        """Return the newest candles that are known, oldest first, the last one running; eight columns."""
        step, minute = GRANULARITIES[granularity], now_ns // NS // 60
        known = self._keep_up("MARKET", minute)
        last = step.bucket(minute)
        oldest = known.known_from(self._first(minute), minute)
        first = max(last - limit + 1, step.bucket(oldest))
        if step.begin(first) < oldest and oldest != self._begin:
            first += 1  # only its end is known
        return self._rows("MARKET", symbol, step, first, last, now_ns, 8)

    def snapshot_size(self, granularity: str) -> int:
        """Return how many candles a new subscriber is told: 100, less where they are long and must be computed."""
        minutes = GRANULARITIES[granularity].minutes
        return max(1, min(SNAPSHOT_MAX, SNAPSHOT_MIN // minutes)) if minutes else 1

    def is_known(self, granularity: str, now_ns: int, limit: int, kind: Kind = "MARKET") -> bool:
        """Tell whether `recent` would leave nothing out, for any symbol."""
        step, minute = GRANULARITIES[granularity], now_ns // NS // 60
        first = self._needed(step, step.bucket(minute) - limit + 1, minute)
        return self._keep_up(kind, minute).known_from(first, minute) == first

    # --------------------------------------------------------------------------------------------- learning

    async def learn(self, granularity: str, now_ns: int, limit: int, kind: Kind = "MARKET") -> None:
        """Have the newest `limit` candles of every symbol known. Cancelled, it keeps what it has learnt."""
        step, minute = GRANULARITIES[granularity], now_ns // NS // 60
        await self._learn(kind, self._needed(step, step.bucket(minute) - limit + 1, minute), minute, minute)

    def stop(self) -> None:
        """Let nobody learn any more: who is at it is cancelled."""
        self._is_stopped = True

    async def rows(
        self,
        symbol: str,
        granularity: str,
        now_ns: int,
        *,
        limit: int,
        begin_ms: int | None = None,
        end_ms: int | None = None,
        with_running: bool = True,
        kind: Kind = "MARKET",
    ) -> list[list[str]]:
        """Return the newest `limit` candles that open in [begin_ms, end_ms), oldest first, in REST's seven columns.

        Computes what is missing, in a thread; cancelled, it keeps what it has learnt.
        """
        step, minute = GRANULARITIES[granularity], now_ns // NS // 60
        last = step.bucket(minute) - (not with_running)
        if end_ms is not None:
            last = min(last, step.bucket(-(-end_ms // 60_000) - 1))  # of the last minute that begins before it
        first = last - limit + 1
        if begin_ms is not None:
            at = step.bucket(-(-begin_ms // 60_000) - 1) + 1  # the first that begins at or after it
            first = max(first, at)
        first = max(first, step.bucket(self._first(minute)))
        if self._is_cut(step.begin(first), minute):
            first += 1
        if last < first:
            return []
        begin, end = max(step.begin(first), self._first(minute)), min(step.begin(last + 1), minute)
        await self._learn(kind, begin, end, minute)
        rows = self._rows(kind, symbol, step, first, last, now_ns, 7)
        if not rows or rows[0][0] != str(step.begin(first) * 60_000):
            await self._learn(kind, max(begin - LOOK_BACK_MIN, self._first(minute)), begin, minute)
            rows = self._rows(kind, symbol, step, first, last, now_ns, 7)
        return rows

    async def _learn(self, kind: Kind, begin: int, end: int, minute: int) -> None:
        """Have the minutes [begin, end) known, the newest first; `minute` is the running one."""
        known = self._of(kind)
        for page in range((end - 1) // PAGE_MIN, begin // PAGE_MIN - 1, -1):
            first, until = page * PAGE_MIN, min((page + 1) * PAGE_MIN, minute)
            if self._begin is not None:
                first = max(first, self._begin)
            async with self._learning:
                if self._is_stopped:
                    raise asyncio.CancelledError
                if known.known_from(max(first, begin), min(until, end)) > max(first, begin):
                    known.put(first, await asyncio.to_thread(self._aggregate, kind, first, until))

    def _needed(self, step: Granularity, bucket: int, minute: int) -> int:
        """Return the first minute that the candles from `bucket` on need."""
        first = self._first(minute)
        bucket = max(bucket, step.bucket(first))
        return max(step.begin(bucket + self._is_cut(step.begin(bucket), minute)), first)

    def _first(self, minute: int) -> int:
        """Return the first minute of which anything can be known."""
        retained = minute - self.retained_s // 60
        return retained if self._begin is None else max(retained, self._begin)

    def _is_cut(self, begin: int, minute: int) -> bool:
        """Tell whether a candle that begins at `begin` lacks its beginning."""
        first = self._first(minute)
        return begin < first and first != self._begin

    # ------------------------------------------------------------------------------------------ aggregation

    def _of(self, kind: Kind) -> _Minutes:
        found = self._minutes.get(kind)
        if found is None:
            market = self._market
            places = max((p + s for p, s in zip(market.price_places, market.size_places, strict=True)), default=0)
            shape = (self.retained_s // 60 + _SLACK_MIN, len(market.symbols))
            found = self._minutes[kind] = _Minutes(shape, places > _WIDE_PLACES)
        return found

    def _keep_up(self, kind: Kind, minute: int) -> _Minutes:
        """Know the two minutes before `minute`: their blocks are at hand."""
        known = self._of(kind)
        first = max(minute - 2, self._first(minute))
        if known.known_from(first, minute) != first:
            known.put(first, self._aggregate(kind, first, minute, is_near=True))
        return known

    def _aggregate(self, kind: Kind, begin: int, end: int, *, is_near: bool = False) -> _Rows:
        """Return the minutes [begin, end) of all symbols."""
        rows = _Rows.of(end - begin, len(self._market.symbols), self._of(kind).is_wide)
        for at in range(begin, end):
            listed = self._market.is_listed(at * 60) | self._market.is_listed(at * 60 + 59)
            rows.size[at - begin] = np.where(listed, 0, -1)
        for part, first, until in self._parts(begin * 60, end * 60, is_near):
            self._add(kind, rows, begin, part, first, until)
        return rows

    def _parts(self, begin: int, end: int, is_near: bool) -> Iterator[tuple[Block | Outline, int, int]]:
        """Yield (outline or block, first second, end second) that together are the seconds [begin, end)."""
        outline = self._market.block if is_near else getattr(self._market, "outline", self._market.block)
        second = begin if self._first_second is None else max(begin, self._first_second)
        while second < end:
            part = outline(second)
            until = min(end, part.first_second + len(part.trades.start) - 1)
            yield part, second, until
            second = until

    def _add(self, kind: Kind, rows: _Rows, begin: int, part: Block | Outline, first: int, until: int) -> None:
        """Put the seconds [first, until) of a part into `rows`, which begin with minute `begin`."""
        if kind == "MARKET":
            trades = part.trades
            a, b = (int(trades.start[s - part.first_second]) for s in (first, until))
            counts = np.diff(trades.start[first - part.first_second : until - part.first_second + 1])
            second = np.repeat(np.arange(first, until), counts)
            rows.add_trades(second // 60 - begin, trades.symbol[a:b], trades.price_ticks[a:b], trades.size_steps[a:b])
            return
        scale = self._market.price_scale * (10.0**INDEX_PLACES if kind == "INDEX" else 1.0)
        values = part.index if kind == "INDEX" else part.mark
        for at in range(first // 60, (until - 1) // 60 + 1):
            seconds = slice(max(first, at * 60) - part.first_second, min(until, at * 60 + 60) - part.first_second)
            rows.add_values(at - begin, values[seconds], part.is_fresh[seconds], scale)

    def _partial(self, kind: Kind, n: int, now_ns: int) -> list[int] | None:
        """Return the running minute of one symbol, None where nothing has happened in it."""
        second = now_ns // NS
        minute = second // 60
        until = second if kind == "MARKET" else second + 1  # a mark is told at the beginning of its second
        kept, upto, rows = self._forming.get(kind, (-1, -1, None))
        if kept != minute or upto > until or rows is None:
            upto, rows = minute * 60, _Rows.of(1, len(self._market.symbols), self._of(kind).is_wide)
            rows.size[:] = 0
        for part, first, end in self._parts(upto, until, True):
            self._add(kind, rows, minute, part, first, end)
        self._forming[kind] = minute, max(upto, until), rows
        candle = rows.candle(0, n)
        if kind != "MARKET" or (self._first_second is not None and second < self._first_second):
            return candle
        block = self._market.block(second)
        trades, t = block.trades, second - block.first_second
        a, b = int(trades.start[t]), int(trades.start[t + 1])
        own = (trades.symbol[a:b] == n) & (trades.offset_ns[a:b] < now_ns - second * NS)
        for ticks, steps in zip(
            trades.price_ticks[a:b][own].tolist(), trades.size_steps[a:b][own].tolist(), strict=True
        ):
            candle = _joined(candle, [ticks, ticks, ticks, ticks, steps, ticks * steps])
        return candle

    # ------------------------------------------------------------------------------------------------- rows

    def _rows(
        self, kind: Kind, symbol: str, step: Granularity, first: int, last: int, now_ns: int, columns: int
    ) -> list[list[str]]:
        """Return the rows of the buckets [first, last] from what is known."""
        if last < first:
            return []
        n, minute = self._position[symbol], now_ns // NS // 60
        begin, end = max(step.begin(first), self._first(minute)), min(step.begin(last + 1), minute)
        known = self._keep_up(kind, minute)
        column = known.column(n, begin, max(begin, end))
        candles = column.candles(step.buckets(np.arange(begin, max(begin, end))))
        if step.begin(last) <= minute < step.begin(last + 1):
            partial = _joined(candles.pop(last, None), self._partial(kind, n, now_ns))
            is_listed = bool(self._market.is_listed(now_ns // NS)[n]) or partial is not None
            candles[last] = partial or [0, 0, 0, 0, 0 if is_listed else -1, 0]
        close = known.close_before(n, begin, max(known.known_from(self._first(minute), begin), begin - LOOK_BACK_MIN))
        rows: list[list[str]] = []
        for bucket in sorted(candles):
            candle = candles[bucket]
            if candle[4] < 0:
                close = None  # not listed: what it cost before says nothing about afterwards
                continue
            if candle[4] == 0:
                if close is None:
                    continue
                candle = [close, close, close, close, 0, 0]
            close = candle[3]
            rows.append(self._text(n, step.begin(bucket), candle, kind, columns))
        return rows

    def _text(self, n: int, minute: int, candle: list[int], kind: Kind, columns: int) -> list[str]:
        place = self._market.price_places[n] + (INDEX_PLACES if kind == "INDEX" else 0)
        size_place = self._market.size_places[n]
        prices = [decimal_text(ticks, place) for ticks in candle[:4]]
        if kind != "MARKET":
            return [str(minute * 60_000), *prices, "0", "0", "0"][:columns]
        quote = decimal_text(candle[5], place + size_place)
        return [str(minute * 60_000), *prices, decimal_text(candle[4], size_place), quote, quote][:columns]


class _Rows:
    """Candles as arrays of shape (K, N): K consecutive buckets or minutes, N symbols.

    `size` is in steps (of MARK and INDEX: how many values were told); 0: nothing happened, -1: not listed. Prices are
    meaningful where it is above 0.
    """

    __slots__ = ("close", "high", "low", "open", "quote", "size")

    def __init__(self, columns: list[NDArray[Any]]) -> None:
        self.open, self.high, self.low, self.close, self.size, self.quote = columns

    @classmethod
    def of(cls, k: int, n_symbols: int, is_wide: bool) -> _Rows:
        columns: list[NDArray[Any]] = [np.zeros((k, n_symbols), dtype=np.int64) for _ in range(5)]
        # Turnover in ticks x steps: Python's whole numbers where 64 bits may not hold a minute of it.
        return cls([*columns, np.zeros((k, n_symbols), dtype=object if is_wide else np.int64)])

    def columns(self) -> tuple[NDArray[Any], ...]:
        return self.open, self.high, self.low, self.close, self.size, self.quote

    def add_trades(self, at: Ints, symbol: Ints, ticks: Ints, steps: Ints) -> None:
        """Add trades, oldest first; `at` is the row of each."""
        if not len(at):
            return
        key = at * self.size.shape[1] + symbol
        order = np.argsort(key, kind="stable")
        key, ticks, steps = key[order], ticks[order], steps[order]
        starts = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
        ends = np.append(starts[1:], len(key)) - 1
        quote = ticks.astype(self.quote.dtype) * steps
        self._join(
            np.divmod(key[starts], self.size.shape[1]),
            ticks[starts],
            np.maximum.reduceat(ticks, starts),
            np.minimum.reduceat(ticks, starts),
            ticks[ends],
            np.add.reduceat(steps, starts),
            np.add.reduceat(quote, starts),
        )

    def add_values(self, at: int, values: Floats, is_told: NDArray[np.bool_], scale: Floats) -> None:
        """Add one value a second and symbol, (T, N), where it was told and known."""
        is_told = is_told & ~np.isnan(values)
        n = np.flatnonzero(is_told.any(axis=0))
        if not len(n):
            return
        is_told, whole = is_told[:, n], np.rint(np.nan_to_num(values[:, n]) * scale[n]).astype(np.int64)
        first = is_told.argmax(axis=0)
        last = len(is_told) - 1 - is_told[::-1].argmax(axis=0)
        k = np.arange(len(n))
        bound = np.iinfo(np.int64)
        self._join(
            (np.full(len(n), at), n),
            whole[first, k],
            np.where(is_told, whole, bound.min).max(axis=0),
            np.where(is_told, whole, bound.max).min(axis=0),
            whole[last, k],
            is_told.sum(axis=0),
            np.zeros(len(n), dtype=np.int64),
        )

    def _join(self, where: Any, opened: Ints, high: Ints, low: Ints, close: Ints, size: Ints, quote: Any) -> None:
        """Let what happened at `where` follow what is there."""
        is_new = self.size[where] <= 0
        self.open[where] = np.where(is_new, opened, self.open[where])
        self.high[where] = np.where(is_new, high, np.maximum(high, self.high[where]))
        self.low[where] = np.where(is_new, low, np.minimum(low, self.low[where]))
        self.close[where] = close
        self.quote[where] = np.where(is_new, quote, self.quote[where] + quote)
        self.size[where] = np.where(is_new, size, self.size[where] + size)

    def candle(self, k: int, n: int) -> list[int] | None:
        """Return one candle [open, high, low, close, size, quote], None where nothing happened."""
        return [int(column[k, n]) for column in self.columns()] if self.size[k, n] > 0 else None

    def candles(self, buckets: Ints) -> dict[int, list[int]]:
        """Return bucket -> candle of the first symbol, row k being in `buckets[k]` (ascending).

        Size 0: listed and nothing happened; -1: not listed.
        """
        if not len(buckets):
            return {}
        starts = np.flatnonzero(np.append(True, buckets[1:] != buckets[:-1]))
        listed = np.maximum.reduceat(self.size[:, 0], starts)
        found = {
            bucket: [0, 0, 0, 0, size, 0]
            for bucket, size in zip(buckets[starts].tolist(), np.minimum(listed, 0).tolist(), strict=True)
        }
        happened = np.flatnonzero(self.size[:, 0] > 0)
        if len(happened):
            buckets = buckets[happened]
            opened, high, low, close, size, quote = (column[happened, 0] for column in self.columns())
            starts = np.flatnonzero(np.append(True, buckets[1:] != buckets[:-1]))
            ends = np.append(starts[1:], len(buckets))
            quotes = quote.tolist()  # summed as Python's: a month of turnover needs more than 64 bits
            columns = zip(
                buckets[starts].tolist(),
                opened[starts].tolist(),
                np.maximum.reduceat(high, starts).tolist(),
                np.minimum.reduceat(low, starts).tolist(),
                close[ends - 1].tolist(),
                np.add.reduceat(size, starts).tolist(),
                [sum(quotes[a:b]) for a, b in zip(starts, ends, strict=True)],
                strict=True,
            )
            found |= {bucket: list(candle) for bucket, *candle in columns}
        return found


class _Minutes:
    """The minutes that are known, in a ring: minute m of all symbols in row m mod M."""

    def __init__(self, shape: tuple[int, int], is_wide: bool) -> None:
        self.is_wide = is_wide
        self._m = shape[0]
        self._rows = _Rows.of(*shape, is_wide)
        self._minute_of = np.full(shape[0], -1, dtype=np.int64)

    def put(self, first: int, rows: _Rows) -> None:
        minutes = np.arange(first, first + len(rows.size))
        for kept, new in zip(self._rows.columns(), rows.columns(), strict=True):
            kept[minutes % self._m] = new
        self._minute_of[minutes % self._m] = minutes

    def known_from(self, begin: int, end: int) -> int:
        """Return the first minute m >= begin from which on all of [m, end) are known."""
        minutes = np.arange(begin, end)
        unknown = np.flatnonzero(self._minute_of[minutes % self._m] != minutes)
        return int(minutes[unknown[-1]]) + 1 if len(unknown) else begin

    def column(self, n: int, begin: int, end: int) -> _Rows:
        """Return the minutes [begin, end) of one symbol, shape (end - begin, 1)."""
        at = np.arange(begin, end) % self._m
        return _Rows([column[at, n][:, None] for column in self._rows.columns()])

    def candle(self, n: int, begin: int, end: int) -> list[int] | None:
        """Return the minutes [begin, end) of one symbol as one candle, None where nothing happened."""
        candle = self.column(n, begin, end).candles(np.zeros(end - begin, dtype=np.int64))[0]
        return candle if candle[4] > 0 else None

    def close_before(self, n: int, minute: int, begin: int) -> int | None:
        """Return the close before `minute` found in the known minutes [begin, minute); None: nothing, or not listed."""
        at = np.arange(begin, minute) % self._m
        size = self._rows.size[at, n]
        marked = np.flatnonzero(size != 0)
        if not len(marked) or size[marked[-1]] < 0:
            return None
        return int(self._rows.close[at[marked[-1]], n])


def _joined(first: list[int] | None, then: list[int] | None) -> list[int] | None:
    """Return two candles as one; None, or size 0 and less, stands for one in which nothing happened."""
    if first is None or first[4] <= 0:
        return then
    if then is None or then[4] <= 0:
        return first
    high, low = max(first[1], then[1]), min(first[2], then[2])
    return [first[0], high, low, then[3], first[4] + then[4], first[5] + then[5]]


def decimal_text(n: int, place: int) -> str:
    """Return n x 10^-place without trailing zeros, n >= 0."""
    if place == 0:
        return str(n)
    digits = str(n).rjust(place + 1, "0")
    return f"{digits[:-place]}.{digits[-place:]}".rstrip("0").rstrip(".")
