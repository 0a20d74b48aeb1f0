"""Candles, funding and open interest, as Bitget tells them over REST, into the tables that grow.

    candles         one minute, closed ones only. `candles` gives 1000 a request and about a month back, older ones
                    come from `history-candles`, 200 a request. Both are asked by their end alone (a start is ignored).
    funding         every settlement. `history-fund-rate` knows no window of time: pages are turned until it is covered.
    open_interest   of all symbols, from `tickers`: one request in place of one a symbol, and all of one instant.
                    Bitget keeps no history of it.

Candles are fetched by pieces of 16 hours, the newest first, all symbols of a piece at once: memory does not grow with
what is asked for, every hour is written once a piece, and where a symbol's history begins is met once. What is stored
is not asked for again, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from shared.bitget import public
from shared.bitget.public import MINUTE_MS, CandleRow, FundingRow
from shared.bitget.transport import RestClient
from shared.errors import ExchangeRefused, ProtocolBroken
from shared.lake import layout, read, write
from shared.lake.layout import HOUR_S, TABLES
from shared.types import Contract

AT_ONCE = 8
"""Requests under way: at 10 a second they may take 0.8 s each before they slow us down."""

PIECE_H = 16
"""Hours of candles that are fetched together: 960 minutes, which one page of 1000 holds. 800 symbols are 50 MB."""

CANDLES_KEPT_MS = 30 * 86_400_000
"""How far back `candles` is asked (PROTOCOL §4: about a month); beyond it, and where it has nothing, the other one."""

SETTLED_S = 10
"""A candle is asked for so long after its minute: late trades may still come into it."""

HOUR_MS = HOUR_S * 1000
HOUR_MIN = HOUR_S // 60
_DAY_MS = 24 * HOUR_MS
_GONE = frozenset({"40309", "40845", "40034"})  # removed, or never there: a symbol may go while we ask

Bools = NDArray[np.bool_]
T = TypeVar("T")


class Filled(msgspec.Struct, kw_only=True):
    """What a run found for one table."""

    table: str
    symbols: int = 0
    rows: int = 0  # that are new in the lake
    requests: int = 0
    missing: dict[str, int] = {}  # symbol -> minutes or settlements of the window that Bitget does not tell
    since_ms: dict[str, int] = {}  # symbol -> when its history begins, where that is within the window
    conflicts: list[str] = []  # rows that Bitget now tells otherwise than it did; what is stored stays


Say = Callable[[str], None]
"""Progress, a line at a time."""


# ------------------------------------------------------------------------------------------------------- candles


async def fill_candles(
    rest: RestClient,
    lake: Path,
    source: str,
    contracts: Sequence[Contract],
    start: int,
    end: int,
    say: Say = lambda line: None,
) -> Filled:
    """Store the candles of the epoch minutes [start, end) that are not stored; later ones than the last closed are not.

    Raises:
        ExchangeError: Bitget does not answer; what came before is stored.
        LakeError: the disk refuses.
    """
    done = Filled(table="candles", symbols=len(contracts))
    now_ms = await rest.server_time()
    end = min(end, (now_ms - SETTLED_S * 1000) // MINUTE_MS)
    by_symbol = {contract.symbol: contract for contract in contracts}
    missing = dict.fromkeys(by_symbol, 0)
    begins: dict[str, int] = {}  # symbol -> first minute that Bitget has
    before = dict.fromkeys(by_symbol, 0)  # symbol -> minutes of `missing` that lie before it
    for hour in range((end - 1) // HOUR_MIN // PIECE_H * PIECE_H, start // HOUR_MIN - PIECE_H, -PIECE_H):
        first, last = max(start, hour * HOUR_MIN), min(end, (hour + PIECE_H) * HOUR_MIN)
        if first >= last:
            continue
        piece = _Piece(rest, lake, source, first, last, now_ms, begins)
        try:
            await _each(missing, piece.fetch)
        finally:  # also where it is cancelled: what was fetched is worth keeping
            _store(lake, source, piece.frames, done)
        done.requests += piece.requests
        for symbol in piece.gone:
            del missing[symbol]
            say(f"{symbol} has been removed by Bitget while it was asked for")
        for symbol in missing:
            holes = piece.holes(symbol)
            missing[symbol] += len(holes)
            before[symbol] += int((holes < begins.get(symbol, 0)).sum())
        say(
            f"candles of {layout.hour_name(first // HOUR_MIN)} to {layout.hour_name((last - 1) // HOUR_MIN)}: "
            f"{done.rows:,} new rows and {done.requests:,} requests so far"
        )
    for symbol, minute in begins.items():
        done.since_ms[symbol] = minute * MINUTE_MS
        if before.get(symbol) and not await _was_listed(rest, by_symbol[symbol], minute * MINUTE_MS):
            missing[symbol] -= before[symbol]
    done.missing = {symbol: n for symbol, n in missing.items() if n > 0}
    return done


class _Piece:
    """The candles of the epoch minutes [first, last), which lie in some consecutive hours, of all symbols.

    Args:
        begins: symbol -> first minute of its history; nothing is asked before it, and what is found is added.
    """

    def __init__(
        self,
        rest: RestClient,
        lake: Path,
        source: str,
        first: int,
        last: int,
        now_ms: int,
        begins: dict[str, int],
    ) -> None:
        self._rest, self._now_ms, self._begins = rest, now_ms, begins
        self._first, self._last = first, last
        self._there: dict[str, Bools] = {}
        for hour in range(first // HOUR_MIN, -(-last // HOUR_MIN)):
            if (path := read.sealed_file(lake, "candles", source, hour)) is not None:
                rows = read.rows_of(path).filter(pl.col("minute").is_between(first, last, closed="left"))
                for (symbol,), mine in rows.select("symbol", "minute").group_by("symbol"):
                    self._known(str(symbol))[mine["minute"].to_numpy() - first] = True
        self.frames: list[pl.DataFrame] = []
        self.gone: list[str] = []
        self.requests = 0

    def holes(self, symbol: str) -> NDArray[np.int64]:
        """Return the minutes that no candle tells of."""
        return self._first + np.flatnonzero(~self._known(symbol))

    async def fetch(self, symbol: str) -> None:
        """Ask for what is not there, from the newest minute back."""
        holes = self.holes(symbol)
        holes = holes[holes >= self._begins.get(symbol, 0)]
        if not len(holes):
            return
        lowest, end = int(holes[0]), int(holes[-1]) + 1
        found: list[CandleRow] = []
        while end > lowest:
            try:
                page = await self._page(symbol, end, end - lowest)
            except ExchangeRefused as refusal:
                if refusal.code not in _GONE:
                    raise
                self.gone.append(symbol)
                break
            if not page:
                self._begins[symbol] = end
                break
            found += page
            end = public.minute(page[0])
        self._take(symbol, found)

    async def _page(self, symbol: str, end: int, limit: int) -> list[CandleRow]:
        """Return the newest candles before minute `end`; none means that there are none."""
        end_ms = end * MINUTE_MS
        if end_ms > self._now_ms - CANDLES_KEPT_MS:
            self.requests += 1
            if page := await self._rest.candles(symbol, end_ms, limit=limit):
                return page
        self.requests += 1
        return await self._rest.history_candles(symbol, end_ms, limit=limit)

    def _take(self, symbol: str, rows: Iterable[CandleRow]) -> None:
        mine = [row for row in rows if self._first <= public.minute(row) < self._last]
        if not mine:
            return
        minutes = np.array([public.minute(row) for row in mine], np.int64)
        self._known(symbol)[minutes - self._first] = True
        values = np.array([msgspec.structs.astuple(row)[1:] for row in mine])
        names = list(TABLES["candles"].columns)[2:]
        self.frames.append(
            pl.DataFrame(
                {"minute": minutes, "symbol": [symbol] * len(mine)}
                | {name: values[:, k] for k, name in enumerate(names)},
                schema=dict(TABLES["candles"].columns),
            )
        )

    def _known(self, symbol: str) -> Bools:
        return self._there.setdefault(symbol, np.zeros(self._last - self._first, np.bool_))


async def _was_listed(rest: RestClient, contract: Contract, at_ms: int) -> bool:
    """Tell whether a symbol traded before `at_ms`, although nothing older can be had in minutes.

    Bitget leaves launchTime blank on most contracts; what it settled, and the days that it shows, tell as well.
    """
    if contract.launch_ms is not None:
        return contract.launch_ms + HOUR_MS < at_ms  # the first trade may be a while after the launch
    for page in range(1, 100):
        rows = await rest.funding_history(contract.symbol, page)
        if any(row.funding_time < at_ms for row in rows):
            return True
        if len(rows) < public.FUNDING_MAX:
            break
    days = await rest.history_candles(contract.symbol, at_ms // _DAY_MS * _DAY_MS, "1Dutc", 1)
    return bool(days)


# ------------------------------------------------------------------------------------------------------- funding


async def fill_funding(
    rest: RestClient,
    lake: Path,
    source: str,
    contracts: Sequence[Contract],
    start_ms: int,
    say: Say = lambda line: None,
) -> Filled:
    """Store the settlements since `start_ms` that are not stored, of every symbol.

    Raises:
        ExchangeError: Bitget does not answer; what came before is stored.
        LakeError: the disk refuses.
    """
    done = Filled(table="funding", symbols=len(contracts))
    stored = _settlements(lake, source, start_ms)
    last_ms = {}  # symbol -> its last settlement, by what Bitget says of the next one
    for now in await rest.funding_now():
        if now.next_update and now.funding_rate_interval:
            last_ms[now.symbol] = now.next_update - now.funding_rate_interval * HOUR_MS
    frames: list[pl.DataFrame] = []

    async def fetch(contract: Contract) -> None:
        symbol = contract.symbol
        if _is_covered(stored.get(symbol, []), start_ms, last_ms.get(symbol)):
            return
        rows: dict[int, FundingRow] = {}
        is_whole = False
        for page in range(1, 1000):
            done.requests += 1
            try:
                got = await rest.funding_history(symbol, page)
            except ExchangeRefused as refusal:
                if refusal.code in _GONE:
                    say(f"{symbol} has been removed by Bitget while it was asked for")
                    return
                raise
            for row in got:
                if rows.setdefault(row.funding_time, row) != row:
                    raise ProtocolBroken(f"expected one settlement of {symbol} at {row.funding_time}, found two: {row}")
            if is_whole := len(got) < public.FUNDING_MAX:
                break
            if min(row.funding_time for row in got) < start_ms:
                break
        times = sorted(rows)
        if is_whole and (not times or times[0] >= start_ms):
            begin_ms = times[0] if times else await rest.server_time()
            done.since_ms[symbol] = begin_ms
            interval_ms = contract.funding_interval_h * HOUR_MS
            if await _traded_days_before(rest, contract, begin_ms - interval_ms):
                done.missing[symbol] = max(1, (begin_ms - start_ms) // interval_ms)
        frames.append(_funding_frame(symbol, rows, start_ms))

    try:
        await _each(contracts, fetch)
    finally:
        _store(lake, source, frames, done)
    say(f"funding: {done.rows:,} new rows, {done.requests:,} requests")
    return done


async def _traded_days_before(rest: RestClient, contract: Contract, at_ms: int) -> bool:
    if contract.launch_ms is not None:
        return contract.launch_ms < at_ms
    return bool(await rest.history_candles(contract.symbol, at_ms // _DAY_MS * _DAY_MS, "1Dutc", 1))


def _funding_frame(symbol: str, rows: dict[int, FundingRow], start_ms: int) -> pl.DataFrame:
    times = sorted(rows)
    before: list[int | None] = [None, *times]
    columns = [
        (at_ms, symbol, rows[at_ms].funding_rate, None if prior is None else (at_ms - prior) / HOUR_MS)
        for at_ms, prior in zip(times, before, strict=False)
        if at_ms >= start_ms
    ]
    return pl.DataFrame(columns, schema=dict(TABLES["funding"].columns), orient="row")


def _settlements(lake: Path, source: str, start_ms: int) -> dict[str, list[tuple[int, float | None]]]:
    """Return (settled_ms, interval_h) of what is stored since, by symbol, oldest first."""
    found: dict[str, list[tuple[int, float | None]]] = {}
    for hour in read.hours(lake, "funding", source):
        path = read.sealed_file(lake, "funding", source, hour) if hour >= start_ms // HOUR_MS else None
        if path is not None:
            rows = read.rows_of(path).select("symbol", "settled_ms", "interval_h")
            for symbol, at_ms, interval_h in rows.iter_rows():
                if at_ms >= start_ms:
                    found.setdefault(symbol, []).append((at_ms, interval_h))
    return found


def _is_covered(stored: list[tuple[int, float | None]], start_ms: int, last_ms: int | None) -> bool:
    """Tell whether what is stored reaches from the last settlement back to the start, each joined to the one before."""
    if last_ms is not None and last_ms < start_ms:
        return True  # nothing has been settled since
    if not stored or last_ms is None or stored[-1][0] < last_ms:
        return False
    times = {at_ms for at_ms, _ in stored}
    for at_ms, interval_h in stored:
        if interval_h is None:
            return False
        prior_ms = at_ms - round(interval_h * HOUR_MS)
        if prior_ms >= start_ms and prior_ms not in times:
            return False
    return True


# ------------------------------------------------------------------------------------------------- open interest


async def note_open_interest(rest: RestClient, lake: Path, source: str) -> Filled:
    """Store the open interest of every symbol as it is now."""
    done = Filled(table="open_interest", requests=1)
    rows = [(row.ts, row.symbol, row.open_interest, row.mark) for row in await rest.tickers() if row.ts]
    frame = pl.DataFrame(rows, schema=dict(TABLES["open_interest"].columns), orient="row")
    frame = frame.fill_nan(None).drop_nulls("open_interest").unique(["symbol", "as_of_ms"], keep="last")
    done.symbols = frame["symbol"].n_unique()
    _store(lake, source, [frame], done)
    return done


# ------------------------------------------------------------------------------------------------------- shared


def _store(lake: Path, source: str, frames: Sequence[pl.DataFrame], done: Filled) -> None:
    """Add rows to the hours that they lie in, and account for it."""
    if not any(frame.height for frame in frames):
        return
    rows = pl.concat(frames)
    about = TABLES[done.table]
    per_hour = layout.HOUR_NS // about.unit_ns
    for (hour,), mine in rows.group_by(pl.col(about.time) // per_hour):
        added = write.add_rows(lake, done.table, source, int(hour), mine, {"made_by": "pipelines.history"})
        done.rows += added.rows
        done.conflicts += [str(row) for row in added.conflicts.iter_rows(named=True)]


async def _each(items: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do the work for every item, `AT_ONCE` at a time; the first failure ends it and is raised as it is."""
    waiting = iter(list(items))

    async def run() -> None:
        for item in waiting:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(run())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
