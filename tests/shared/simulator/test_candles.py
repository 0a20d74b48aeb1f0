"""Candles are what a plain aggregation of the pushed trades gives, whatever the granularity and the moment."""

from __future__ import annotations

import asyncio
import json
import threading
from bisect import bisect_left
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.simulator.markets.blocks import BLOCK_S, Block, Outline, Trades
from shared.simulator.markets.candles import GRANULARITIES, Candles, decimal_text
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator.pushes.feed import HISTORY, PublicFeed
from shared.types import NS


class Remembered(GeneratedMarket):
    """A market whose blocks are computed once, one of whose symbols is quiet and one begins its lives quietly."""

    def __init__(self) -> None:
        super().__init__(11, 9, listings_per_day=60.0)  # one of nine comes and goes: away for 3.6 of 24 minutes
        self._outlines: dict[int, Outline] = {}
        self._whole: dict[int, Block] = {}

    def outline(self, second: int) -> Outline:
        b = second // BLOCK_S
        if b not in self._outlines:
            found = super().outline(second)
            self._outlines[b] = msgspec.structs.replace(found, trades=self._thinned(found.first_second, found.trades))
        return self._outlines[b]

    def block(self, second: int) -> Block:
        b = second // BLOCK_S
        if b not in self._whole:
            found = super().block(second)
            self._whole[b] = msgspec.structs.replace(found, trades=self._thinned(found.first_second, found.trades))
        return self._whole[b]

    def _thinned(self, first_second: int, trades: Trades) -> Trades:
        second = first_second + np.repeat(np.arange(BLOCK_S), np.diff(trades.start))
        life = self.listings[8].life
        assert life is not None
        keep = (trades.symbol != 7) | (second // 60 % 7 == 3) | (second // 60 % 7 == 4)
        keep &= (trades.symbol != 8) | ((second - life.begin_s) % life.period_s > QUIET_S)
        columns = {name: getattr(trades, name)[keep] for name in trades.__struct_fields__ if name != "start"}
        return Trades(start=np.append(0, np.cumsum(keep))[trades.start], **columns)


QUIET_S = 400  # of each life of the newcomer, from its pre-listing on
MARKET = Remembered()
NEWCOMER = next(row.symbol for row in MARKET.listings if row.life is not None)
BUSY, QUIET = MARKET.symbols[4], MARKET.symbols[7]
END_S = 1_795_276_800 + 47  # shortly after 16:00 UTC: midnight of UTC+8, in a running minute
SPAN_S = 3600
MIN = 60_000

Trade = tuple[int, int, int]
"""(ms, price in ticks, size in steps)"""


@cache
def pushed() -> dict[str, list[Trade]]:
    """Return the trades of SPAN_S before END_S as they were pushed, oldest first, read from the frames."""
    trades: dict[str, list[Trade]] = {symbol: [] for symbol in (BUSY, QUIET, NEWCOMER)}
    feed = PublicFeed(MARKET, HISTORY)
    for _, _, symbol, text in feed.frames((END_S - SPAN_S) * NS, END_S * NS, {"trade": list(trades)}):
        n = MARKET.symbols.index(symbol)
        for row in reversed(json.loads(text)["data"]):
            ticks = int(Decimal(row["price"]).scaleb(MARKET.price_places[n]))
            trades[symbol].append((int(row["ts"]), ticks, int(Decimal(row["size"]).scaleb(MARKET.size_places[n]))))
    return trades


def aggregated(symbol: str, begin_ms: int, end_ms: int) -> list[str] | None:
    """Return open, high, low, close, base and quote of the pushed trades of [begin, end), with exact decimals."""
    n = MARKET.symbols.index(symbol)
    trades = pushed()[symbol]
    rows = trades[bisect_left(trades, (begin_ms,)) : bisect_left(trades, (end_ms,))]
    if not rows:
        return None
    price, size = Decimal(1).scaleb(-MARKET.price_places[n]), Decimal(1).scaleb(-MARKET.size_places[n])
    ticks = [row[1] for row in rows]
    prices = [Decimal(t) * price for t in (ticks[0], max(ticks), min(ticks), ticks[-1])]
    base = sum(row[2] for row in rows) * size
    quote = sum(row[1] * row[2] for row in rows) * price * size
    return [f"{value.normalize():f}" for value in (*prices, base, quote)]


def asked(granularity: str, now_ns: int, symbol: str = BUSY, limit: int = 100, **bounds: Any) -> list[list[str]]:
    return asyncio.run(Candles(MARKET).rows(symbol, granularity, now_ns, limit=limit, **bounds))


@given(
    symbol=st.sampled_from([BUSY, QUIET, NEWCOMER]),
    granularity=st.sampled_from(["1m", "3m", "5m", "15m", "30m"]),
    back_ms=st.integers(0, 20 * MIN),
    limit=st.integers(1, 30),
)
@settings(max_examples=30)
def test_candles_equal_the_aggregated_pushes(symbol: str, granularity: str, back_ms: int, limit: int) -> None:
    """Every row with volume is the plain aggregate of its bucket's trades before now; a row without has no trades."""
    now_ms = END_S * 1000 - back_ms
    length_ms = GRANULARITIES[granularity].minutes * MIN
    begin_ms = max(END_S * 1000 - SPAN_S * 1000, now_ms // length_ms * length_ms - (limit - 1) * length_ms)

    rows = asked(granularity, now_ms * 1_000_000, symbol, limit, begin_ms=begin_ms)

    shown = {int(row[0]): row for row in rows}
    assert list(shown) == sorted(shown)
    for at in range(-(-begin_ms // length_ms) * length_ms, now_ms + 1, length_ms):
        expected = aggregated(symbol, at, min(at + length_ms, now_ms))
        if expected is None:
            assert at not in shown or shown[at][5:] == ["0", "0"]
        else:
            assert shown[at][1:] == expected


@given(symbol=st.sampled_from([BUSY, QUIET, NEWCOMER]), steps=st.lists(st.integers(1, 400), min_size=1, max_size=8))
@settings(max_examples=12)
def test_running_candle_of_the_pushes_agrees_with_that_of_rest(symbol: str, steps: list[int]) -> None:
    """However often it was asked before, `forming` is the last row of the list, with the turnover twice."""
    candles, now_ns = Candles(MARKET), (END_S - 1500) * NS
    for step in steps:
        now_ns += step * NS // 4
        for granularity in ("1m", "5m", "1H"):
            asyncio.run(candles.learn(granularity, now_ns, 1))
            running = candles.forming(symbol, granularity, now_ns)
            rows = asyncio.run(Candles(MARKET).rows(symbol, granularity, now_ns, limit=1))
            if running is None:  # nothing traded so far, and the close before is further back than what was learnt
                assert [row[5] for row in rows] in ([], ["0"])
            else:
                assert running == [*rows[0], rows[0][6]]
                assert candles.recent(symbol, granularity, now_ns, 1) == [running]


def test_minutes_without_trades_are_flat_at_the_close_before() -> None:
    """A list has no holes: price four times the last close, volume 0."""
    rows = asked("1m", END_S * NS, QUIET, 50)

    assert [int(row[0]) // MIN for row in rows] == list(range(END_S // 60 - 49, END_S // 60 + 1))
    quiet = [(before, row) for before, row in pairwise(rows) if row[5] == "0"]
    assert 20 < len(quiet) < 45
    for before, row in quiet:
        assert row[1:] == [before[4]] * 4 + ["0", "0"]


def test_quiet_beginning_has_the_close_before_it() -> None:
    """The first row does not depend on how many were asked for: its close is looked for before it."""
    rows = asked("1m", END_S * NS, QUIET, 20)
    assert "0" in {row[5] for row in rows}

    for k in range(1, 20):
        assert asked("1m", END_S * NS, QUIET, k) == rows[-k:]


def test_symbol_that_is_not_listed_has_no_candles() -> None:
    """Each life of a newcomer begins with its first trade and ends with its last second; in between there is no hole."""
    life = MARKET.listings[8].life
    assert life is not None
    expected = set()
    for second in range(END_S - 3600, END_S):
        phase = (second - life.begin_s) % life.period_s
        if MARKET.is_listed(second)[8] and phase > QUIET_S:
            expected.add(second // 60)
    traded = {ms // MIN for ms, _, _ in pushed()[NEWCOMER]}
    waiting = {m for m in range(END_S // 60 - 59, END_S // 60) if MARKET.is_listed(m * 60)[8]} - expected
    assert len(waiting) > 3, "no listed minute is before its first trade: the test tests nothing"

    rows = {int(row[0]) // MIN for row in asked("1m", END_S * NS, NEWCOMER, 59)}

    assert {minute for minute in expected if minute >= min(rows)} == rows
    assert traded - {END_S // 60 - 60} <= rows


@pytest.mark.parametrize(
    ("granularity", "opens"),
    [
        ("1m", "2026-11-21T16:00"), ("3m", "2026-11-21T16:00"), ("4H", "2026-11-21T16:00"),
        ("6H", "2026-11-21T16:00"), ("6Hutc", "2026-11-21T12:00"), ("12H", "2026-11-21T16:00"),
        ("12Hutc", "2026-11-21T12:00"), ("1D", "2026-11-21T16:00"), ("1Dutc", "2026-11-21T00:00"),
        ("1W", "2026-11-15T16:00"), ("1Wutc", "2026-11-16T00:00"), ("1M", "2026-10-31T16:00"),
        ("1Mutc", "2026-11-01T00:00"), ("3Dutc", "2026-11-21T00:00"), ("3D", "2026-11-20T16:00"),
    ],
)  # fmt: skip
def test_candles_open_where_bitgets_do(granularity: str, opens: str) -> None:
    """From 6H on in the day of UTC+8, or of UTC where the name says so; weeks on Monday, months on the first."""
    step = GRANULARITIES[granularity]
    minute = int(np.datetime64("2026-11-21T16:00", "m").astype(np.int64))

    begin = step.begin(step.bucket(minute))

    assert str(np.datetime64(begin, "m")) == opens
    assert step.begin(step.bucket(minute) + 1) > minute


@given(st.sampled_from(sorted(GRANULARITIES)), st.integers(20_000_000, 40_000_000))
def test_buckets_are_a_partition(granularity: str, minute: int) -> None:
    """Every minute lies in one bucket, and the buckets follow each other without a gap."""
    step = GRANULARITIES[granularity]
    bucket = step.bucket(minute)

    assert step.begin(bucket) <= minute < step.begin(bucket + 1)
    assert step.bucket(step.begin(bucket)) == bucket
    assert step.bucket(step.begin(bucket) - 1) == bucket - 1


def test_bounds_are_those_of_the_opening_time() -> None:
    """The beginning is included, the end is not, and the newest are given where there are more than asked for."""
    minute = END_S // 60 * MIN
    bounds = {"begin_ms": minute - 9 * MIN, "end_ms": minute - 2 * MIN}

    assert [int(row[0]) for row in asked("1m", END_S * NS, BUSY, 100, **bounds)] == [
        minute - k * MIN for k in range(9, 2, -1)
    ]
    assert [int(row[0]) for row in asked("1m", END_S * NS, BUSY, 2, **bounds)] == [minute - 4 * MIN, minute - 3 * MIN]
    assert int(asked("1m", END_S * NS, limit=1, end_ms=minute - 2 * MIN + 1)[0][0]) == minute - 2 * MIN
    assert asked("1m", END_S * NS, begin_ms=minute + MIN) == []
    assert asked("1m", END_S * NS, begin_ms=minute, end_ms=minute) == []


def test_longer_candles_are_put_together_from_minutes() -> None:
    """An hour across the day of UTC+8 has the open of its first minute, the extremes and sums of all."""
    minutes = asked("1m", END_S * NS, QUIET, 240)
    begin = END_S // 3600 * 3600 * 1000 - 3 * 3_600_000
    (hour,) = asked("1H", END_S * NS, QUIET, 1, end_ms=begin + 1)
    rows = [row for row in minutes if begin <= int(row[0]) < begin + 3_600_000]

    assert len(rows) == 60
    assert hour[0] == str(begin)
    traded = [row for row in rows if row[5] != "0"]
    assert hour[1] == traded[0][1]
    assert hour[4] == traded[-1][4]
    for column, choose in ((2, max), (3, min)):
        assert Decimal(hour[column]) == choose(Decimal(row[column]) for row in traded)
    for column in (5, 6):
        assert Decimal(hour[column]) == sum(Decimal(row[column]) for row in rows)


def test_nothing_is_told_beyond_retention() -> None:
    """What is not kept is an empty list, and a candle without its beginning is not shown."""
    candles = Candles(MARKET, retained_s=3540)
    minute = END_S // 60

    rows = asyncio.run(candles.rows(BUSY, "1m", END_S * NS, limit=1000))
    hours = asyncio.run(candles.rows(BUSY, "1H", END_S * NS, limit=1000))

    assert [int(rows[0][0]) // MIN, len(rows)] == [minute - 59, 60]
    assert [int(row[0]) for row in hours] == [END_S // 3600 * 3_600_000]
    assert asyncio.run(candles.rows(BUSY, "1D", END_S * NS, limit=5, end_ms=(minute - 59) * MIN)) == []
    assert candles.recent(BUSY, "1Dutc", END_S * NS, 5) == []
    assert candles.forming(BUSY, "1Dutc", END_S * NS) is None


@pytest.mark.parametrize(("n_symbols", "hours"), [(20, 25.0), (600, 25.0), (1000, 17.28)])
def test_retention_holds_a_day_or_what_memory_allows(n_symbols: int, hours: float) -> None:
    """The running day is whole up to 691 symbols; a thousand minutes are there for a thousand."""
    market = GeneratedMarket(1, n_symbols)
    assert Candles(market).retained_s == round(hours * 3600)
    assert Candles(market, 3600).retained_s == 3600
    assert Candles(market, 10**9).retained_s == 720 * 86_400 // n_symbols


def test_snapshots_need_no_more_than_a_day() -> None:
    """A hundred rows of the short ones; of the long ones the running candle at least."""
    sizes = {name: Candles(MARKET).snapshot_size(name) for name in GRANULARITIES}
    assert [sizes[name] for name in ("1m", "5m", "15m", "1H", "4H", "6Hutc", "1W", "1M")] == [
        100,
        100,
        40,
        10,
        2,
        1,
        1,
        1,
    ]


def test_what_is_known_is_told_without_computing() -> None:
    """Before anything was learnt the pushes have the last minutes; afterwards all of it, and learning is done once."""
    outlined: list[str] = []

    class Watched(GeneratedMarket):
        def outline(self, second: int) -> Outline:
            outlined.append(threading.current_thread().name)
            return super().outline(second)

    market = Watched(5, 3)  # of the same first symbols
    candles, now_ns = Candles(market), END_S * NS

    assert not candles.is_known("1m", now_ns, 100)
    assert len(candles.recent(MARKET.symbols[0], "1m", now_ns, 100)) == 3
    assert candles.forming(MARKET.symbols[0], "4H", (END_S + 1800) * NS) is None
    assert outlined == []
    asyncio.run(candles.learn("1m", now_ns, 100))
    assert candles.is_known("1m", now_ns, 100)
    assert len(candles.recent(MARKET.symbols[0], "1m", now_ns, 100)) == 100
    assert 20 <= len(outlined) <= 21
    assert "MainThread" not in outlined, "the event loop computed a block"
    asyncio.run(candles.learn("5m", now_ns, 19))
    assert 20 <= len(outlined) <= 21


def test_cancelled_request_keeps_what_it_has_learnt() -> None:
    """A client that gives up early finds more the next time."""

    async def given_up() -> int:
        candles = Candles(MARKET)
        asking = asyncio.create_task(candles.rows(BUSY, "1m", END_S * NS, limit=1000))
        while len(candles.recent(BUSY, "1m", END_S * NS, 1000)) < 20:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        return len(candles.recent(BUSY, "1m", END_S * NS, 1000))

    assert 20 <= asyncio.run(given_up()) < 1000


@pytest.mark.parametrize("kind", ["MARK", "INDEX"])
def test_mark_and_index_candles_are_made_of_what_the_ticker_tells(kind: Any) -> None:
    """Open, high, low and close of the values of each second; no volume."""
    feed, now_ns = PublicFeed(MARKET, HISTORY), END_S * NS + NS // 2
    name = {"MARK": "markPrice", "INDEX": "indexPrice"}[kind]
    rows = asked("1m", now_ns, BUSY, 4, kind=kind)

    for at, row in zip(range(END_S // 60 * 60 - 180, END_S, 60), rows, strict=True):
        values = []
        for second in range(at, min(at + 60, END_S + 1)):
            fields = feed.ticker_fields(second * NS + NS // 2, BUSY)
            assert fields is not None
            values.append(Decimal(fields[name]))
        expected = [values[0], max(values), min(values), values[-1]]
        assert row == [str(at * 1000), *(f"{value.normalize():f}" for value in expected), "0", "0"]


def test_recorded_market_shows_what_there_is(tmp_path: Path) -> None:
    """The first candle begins with the recording, and what was never recorded (the index) has no candles."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    from shared.simulator.markets.recorded import RecordedMarket

    recv_ns = (1_700_000_000 + np.arange(400)) * NS + NS // 5
    columns: dict[str, Any] = {"recv_ns": recv_ns, "exch_ns": recv_ns}
    for k in range(1, 21):
        columns |= {f"bid_price_{k}": 100.0 - k / 100, f"bid_size_{k}": 1.0}
        columns |= {f"ask_price_{k}": 100.0 + k / 100, f"ask_size_{k}": 1.0}
    columns = {name: np.broadcast_to(np.asarray(values), (400,)).copy() for name, values in columns.items()}
    parquet.write_table(pyarrow.table(columns), tmp_path / "AAA.book.parquet")
    price = np.round(100.0 + np.arange(400) % 7 / 100, 2)
    trades = {"recv_ns": recv_ns, "exch_ns": recv_ns, "price": price, "size": np.full(400, 0.5), "side": np.ones(400)}
    parquet.write_table(pyarrow.table(trades), tmp_path / "AAA.trades.parquet")
    market = RecordedMarket(tmp_path, END_S * NS)

    rows = asyncio.run(Candles(market).rows("AAAUSDT", "5m", END_S * NS, limit=10))
    begin = market.first_second
    total = sum(Decimal(row[5]) for row in rows)
    assert int(rows[0][0]) == begin // 300 * 300_000
    assert total == (END_S - begin) * Decimal("0.5")
    assert asyncio.run(Candles(market).rows("AAAUSDT", "1m", END_S * NS, limit=10, kind="INDEX")) == []


def test_turnover_that_does_not_fit_64_bits_is_exact() -> None:
    """A recording with ten decimals in price and size overflows 64 bits at nine cents: whole numbers of any size."""

    class Fine(GeneratedMarket):
        """The same prices and sizes as those of GeneratedMarket(5, 1), told in nine and six more decimals."""

        def __init__(self) -> None:
            super().__init__(5, 1)
            self.price_places, self.size_places = (1 + 9,), (4 + 6,)

        def outline(self, second: int) -> Outline:
            found = super().outline(second)
            return msgspec.structs.replace(found, trades=self._finer(found.trades))

        def block(self, second: int) -> Block:
            found = super().block(second)
            return msgspec.structs.replace(found, trades=self._finer(found.trades))

        @staticmethod
        def _finer(trades: Trades) -> Trades:
            ticks, steps = trades.price_ticks * 10**9, trades.size_steps * 10**6
            return msgspec.structs.replace(trades, price_ticks=ticks, size_steps=steps)

    rows = asyncio.run(Candles(Fine()).rows("BTCUSDT", "5m", END_S * NS, limit=3))

    assert rows == asyncio.run(Candles(GeneratedMarket(5, 1)).rows("BTCUSDT", "5m", END_S * NS, limit=3))


@given(st.integers(0, 10**30), st.integers(0, 25))
def test_decimal_text_is_the_shortest_exact_decimal(n: int, place: int) -> None:
    """No exponent, no trailing zero, and the value itself."""
    text = decimal_text(n, place)

    assert Decimal(text) == Decimal((0, [int(digit) for digit in str(n)], -place))
    assert "E" not in text
    assert "." not in text or text[-1] not in "0."


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("asyncio")]
