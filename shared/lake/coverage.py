"""Coverage: for every symbol, channel and minute of an hour, whether silence can be trusted.

    state        reason
    complete                  linked for the whole minute, and no sign of a loss
    stale        silent       linked, but no channel of the symbol pushed anything for more than 30 s
    gap          not_linked   no connection carried the channel for a part of the minute
                 broken       something of it was lost here: the chain of a book broke, a frame could not be read, the
                              server began anew (a GAP row)
                 frozen       all channels of its connections fell silent at once
                 silence      it fell silent beyond its own habit: five cadences of a steady channel (`silence`)
                 volume       (trades) what was recorded is not what the exchange's own candle of the minute says
    not_listed                the symbol was not listed in that minute

Where several hold, the first of not_linked, broken, frozen, silence, volume, silent is told. Computed from rows alone:
links are rows, so nothing here is guessed. 30 s is the sampler's memory: where coverage says stale, its states are NaN.
Link breaks under 1 ms do not count (a session that is closed on the stroke of an hour ends its links one ns before it).

Minutes are of receipt. Silence is measured in exchange time (see `silence`) and up to 30 s into the hours beside, the
chain of a full book up to its next change; where the next hour is not recorded yet, the last minute is judged by what
is there. A minute's volume is that of the trades whose exchange time lies in it. docs/coverage.md: what is seen, what
no client can see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shared.errors import TableEmpty
from shared.features.sampler import MEMORY_S
from shared.lake import numbers, read, silence, write
from shared.lake.layout import CHANNELS, DEPTH, HOUR_NS, HOUR_S, MINUTE_S, RAW, TABLES, hour_name
from shared.types import NS, Ints, TickEvent, Universe

COMPLETE, STALE, GAP, NOT_LISTED = "complete", "stale", "gap", "not_listed"

SILENT, VOLUME, SILENCE, FROZEN, BROKEN, NOT_LINKED = range(1, 7)
"""Codes of reasons, the stronger ones above."""

REASONS = ("", "silent", "volume", "silence", "frozen", "broken", "not_linked", "")
STATES = (COMPLETE, STALE, GAP, GAP, GAP, GAP, GAP, NOT_LISTED)
"""By code; the last one is that of minutes in which the symbol was not listed."""

MINUTES = HOUR_S // MINUTE_S
VOLUME_LAG_NS = 5 * NS
"""A minute's trades are compared with its candle once receipts go on so long after its end."""

_VOLUME_TOLERANCE = 1e-9  # of the volume: what float sums may differ by; above half a size step nothing is lost in it
_MINUTE_NS = MINUTE_S * NS
_MEMORY_NS = MEMORY_S * NS
_BREAK_NS_MIN = 1_000_000
_CHAIN_S = 600
"""A full book says what it lost at its next change, of a quiet symbol a minute later: so long into the next hour is
looked for it, where that is recorded already. Who is quieter still is judged again when the hour's candles come."""

_SYMBOLS_AT_ONCE = 100
"""Symbols whose rows are in memory: an hour of 100 at Bitget's full cadence is 300 MB."""

_DEPTH_CHANNEL = DEPTH.removeprefix("raw/")
_COLUMNS = ("recv_ns", "exch_ns", "event", "conn")
_NUMBERS = ("seq", "pseq", "is_snapshot")
_PUSHES = (TickEvent.DATA, TickEvent.REPEATED)
_SIGNS = (TickEvent.DATA, TickEvent.SUBSCRIBED, TickEvent.CARRIED)
"""Rows after which a symbol has 30 s to push; a link that has just come up is not silent yet."""

Codes = NDArray[np.uint8]
Span = tuple[int, int]  # [start, end), ns of receipt
Key = tuple[str, int]  # channel, position of the symbol


def compute(root: Path, source: str, hour: int) -> pl.DataFrame:
    """Return the coverage table of one hour.

    Raises:
        TableEmpty: the hour has no raw rows, or its universe is not known.
    """
    if not any(hour in read.hours(root, table, source) for table in RAW):  # the hours beside it alone say nothing
        raise TableEmpty(
            f"raw rows of {source} are needed for the coverage of {hour_name(hour)}, found none in {root}: "
            f"{TABLES['raw/book'].made_by}, or choose another hour"
        )
    start_ns, end_ns = hour * HOUR_NS, (hour + 1) * HOUR_NS
    universes = read.universes_between(root, source, start_ns, end_ns)
    universe = read.universe_between(root, source, start_ns, end_ns)
    found = _Hour(universe.symbols, hour)
    has_chains = hour in read.hours(root, DEPTH, source)
    channels = (*CHANNELS, *([_DEPTH_CHANNEL] if has_chains else []))
    chained = ("book", _DEPTH_CHANNEL) if has_chains else ()
    for begin in range(0, len(universe.symbols), _SYMBOLS_AT_ONCE):
        batch = range(begin, min(begin + _SYMBOLS_AT_ONCE, len(universe.symbols)))
        for channel in channels:
            later_s = _CHAIN_S if channel in chained else MEMORY_S
            frame = _read(root, channel, source, hour, universe.symbols, batch, later_s)
            for n, rows in _rows(frame):
                found.take(channel, n, rows)
            if channel == _DEPTH_CHANNEL:
                for n, span in _lost_changes(frame):
                    found.judge_chain(n, span)
        found.judge_life(batch)
    found.judge_connections()
    found.judge_volumes(_volumes(root, source, hour), universe)
    return found.table(_listed(universes, universe.symbols, hour))


def write_coverage(root: Path, source: str, hour: int) -> write.Written:
    """Compute the coverage of one hour and store it."""
    candles = _candles_hash(root, source, hour)  # before: of those that come meanwhile, too little is claimed
    frame = compute(root, source, hour)
    return write.write_table(root, "coverage", source, hour, frame, {"made_from": "raw, candles", "candles": candles})


def outdated(root: Path, source: str) -> dict[int, str]:
    """Return the hours whose coverage was computed without the candles that are there now -> hash of these candles.

    Candles are asked for over REST, and come when they come; until then no minute's trades are compared with anything.
    """
    judged = set(read.hours(root, "coverage", source))
    found = {}
    for hour in sorted(judged & set(read.hours(root, "candles", source))):
        path = read.sealed_file(root, "coverage", source, hour)
        then = "" if path is None else read.footer(path).provenance.get("candles", "")
        if path is not None and (now := _candles_hash(root, source, hour)) != then:
            found[hour] = now
    return found


def _candles_hash(root: Path, source: str, hour: int) -> str:
    """Return what the candles of an hour are, "" where there are none."""
    return read.content_hash(root, "candles", source, [hour]) if hour in read.hours(root, "candles", source) else ""


class _Rows:
    """Rows of one symbol and channel in order of receipt, up to `MEMORY_S` into the hours beside."""

    def __init__(self, recv_ns: Ints, exch_ns: Ints, event: NDArray[np.uint8], conn: NDArray[np.int32]) -> None:
        self.recv_ns, self.exch_ns, self.event, self.conn = recv_ns, exch_ns, event, conn

    def between(self, begin_ns: int, end_ns: int = 2**62) -> _Rows:
        """Return what was received in [begin, end), views."""
        some = slice(*np.searchsorted(self.recv_ns, [begin_ns, end_ns]))
        return _Rows(self.recv_ns[some], self.exch_ns[some], self.event[some], self.conn[some])

    def of(self, which: NDArray[np.bool_]) -> _Rows:
        return _Rows(self.recv_ns[which], self.exch_ns[which], self.event[which], self.conn[which])


class _Hour:
    """What is known of each minute so far: one code for each symbol and channel."""

    def __init__(self, symbols: tuple[str, ...], hour: int) -> None:
        self._symbols, self._hour = symbols, hour
        self._start_ns, self._end_ns = hour * HOUR_NS, (hour + 1) * HOUR_NS
        self._codes: dict[Key, Codes] = {}
        self._breaks: dict[Key, list[Span]] = {}
        self._signs: dict[int, list[Ints]] = {}
        self._last_ns: dict[int, int] = {}  # symbol -> its last receipt that was read
        self._conns: dict[int, set[int]] = {}
        self._heard: dict[int, silence.Heard] = {}  # by symbol; joined by the connections that carry it
        self._lags_ns: list[float] = []

    def take(self, channel: str, n: int, rows: _Rows) -> None:
        """Note the rows of a channel: its links, its signs of life, its silences."""
        codes = self._codes[channel, n] = np.zeros(MINUTES, np.uint8)
        is_broken_later = channel != "trade" and _begins_broken(rows.between(self._end_ns))
        rows = rows.between(0, self._end_ns + _MEMORY_NS)
        is_before_end = rows.recv_ns < self._end_ns
        is_push = np.isin(rows.event, _PUSHES)
        is_link = (rows.event >= TickEvent.SUBSCRIBED) & is_before_end & (rows.recv_ns >= self._start_ns)
        pushes, links = rows.of(is_push), rows.of(is_link)
        breaks = [
            (since_ns, until_ns, code)
            for since_ns, until_ns, code in _breaks(links, self._start_ns, self._end_ns)
            if until_ns - since_ns >= _BREAK_NS_MIN
        ]
        self._breaks[channel, n] = [(since_ns, until_ns) for since_ns, until_ns, _ in breaks]
        self._signs.setdefault(n, []).append(rows.recv_ns[np.isin(rows.event, _SIGNS) & is_before_end])
        self._conns.setdefault(n, set()).update(np.unique(rows.conn[is_before_end]).tolist())
        self._last_ns[n] = max(self._last_ns.get(n, 0), int(rows.recv_ns[-1]) if len(rows.recv_ns) else 0)
        times = np.where(pushes.exch_ns > 0, pushes.exch_ns, pushes.recv_ns)
        if len(times):
            self._lags_ns.append(float(np.median(pushes.recv_ns - times)))
            heard = self._heard.setdefault(n, silence.Heard(self._start_ns - _MEMORY_NS, self._end_ns + _MEMORY_NS))
            # A snapshot of trades tells what happened while nothing was heard.
            heard.note(times if channel != "trade" else times[pushes.event == TickEvent.DATA])
        due_ns = np.inf  # trades come when somebody trades: none is due
        if channel != "trade":
            order = np.argsort(times, kind="stable")
            received_ns = pushes.recv_ns[order]
            n_broken = np.searchsorted(sorted(since_ns for since_ns, _, _ in breaks), received_ns)
            is_broken = n_broken[1:] != n_broken[:-1]
            limit = silence.limit_ns(times[order], is_broken)
            due_ns = silence.due_ns(times[order], is_broken)
            for i in silence.holes(times[order], limit):
                first, then = int(received_ns[i]), int(received_ns[i + 1])
                self._mark_silence(channel, n, (first, max(first + 1, then)), limit, SILENCE)
            # What was carried into the hour says when the last push was, however long before what is read of it.
            carried_ns = rows.exch_ns[(rows.event == TickEvent.CARRIED) & (rows.exch_ns > 0) & is_link].max(initial=0)
            if len(order) and carried_ns and int(times[order[0]]) - carried_ns > limit:
                self._mark_silence(channel, n, (self._start_ns, int(received_ns[0])), limit, SILENCE)
            if len(order) and self._end_ns - int(received_ns[-1]) > limit:
                self._mark_silence(channel, n, (int(received_ns[-1]), self._end_ns), limit, SILENCE)
        for since_ns, until_ns, code in breaks:
            # What broke a chain had lost something since the last push; what ended a link may have, if one was due.
            at = int(np.searchsorted(pushes.recv_ns, since_ns)) if channel != "trade" else 0
            before_ns = int(pushes.recv_ns[at - 1]) if at else since_ns
            if code == BROKEN and channel != "trade":
                self._mark(codes, (before_ns if at else self._start_ns, until_ns), code)
            elif since_ns - before_ns > due_ns:
                self._mark(codes, (max(before_ns, since_ns - _MEMORY_NS), until_ns), code)
            self._mark(codes, (since_ns, until_ns), code)
        if is_broken_later:
            last = int(np.searchsorted(pushes.recv_ns, self._end_ns)) - 1
            self._mark(codes, (int(pushes.recv_ns[last]) if last >= 0 else self._start_ns, self._end_ns), BROKEN)

    def judge_chain(self, n: int, span: Span) -> None:
        """Mark when a change of a full book was pushed that no connection brought: its book and its changes."""
        for channel in ("book", _DEPTH_CHANNEL):
            self._mark(self._codes_of(channel, n), span, BROKEN)

    def judge_life(self, symbols: Sequence[int]) -> None:
        """Mark the minutes that hold a moment more than `MEMORY_S` after the last sign of any channel."""
        for n in symbols:
            times = np.sort(np.concatenate([np.empty(0, np.int64), *self._signs.pop(n, [])]))
            # Before the rows that were read, at least MEMORY_S ahead of the hour, lies nothing that counts.
            ends = np.append(times, self._end_ns)
            starts = np.append(self._start_ns - _MEMORY_NS, times) + _MEMORY_NS
            for i in np.flatnonzero(ends > starts):
                for channel in self._channels_of(n):
                    self._mark(self._codes_of(channel, n), (int(starts[i]), int(ends[i])), SILENT)

    def judge_connections(self) -> None:
        """Mark when all channels of the same connections fell silent at once."""
        together: dict[frozenset[int], list[int]] = {}
        for n in self._heard:
            together.setdefault(frozenset(self._conns[n]), []).append(n)
        lag_ns = int(np.median(self._lags_ns)) if self._lags_ns else 0
        for symbols in together.values():
            heard = silence.Heard.joined([self._heard[n] for n in symbols])
            for begin_ns, until_ns in heard.holes():
                for n in symbols:
                    for channel in self._channels_of(n):
                        span = begin_ns + lag_ns, until_ns + lag_ns
                        self._mark_silence(channel, n, span, heard.limit_ns, FROZEN)

    def judge_volumes(self, volumes: pl.DataFrame, universe: Universe) -> None:
        """Mark the minutes whose trades (`recorded`) are not what the candle says (`base_volume`)."""
        index = universe.index()
        for symbol, minute, recorded, told in volumes.iter_rows():
            n = index.get(symbol)
            if n is None or self._last_ns.get(n, 0) < (minute + 1) * _MINUTE_NS + VOLUME_LAG_NS:
                continue
            step = float(universe.contracts[n].size_step)
            if abs(recorded - told) >= max(step / 2, _VOLUME_TOLERANCE * told):
                self._mark(self._codes_of("trade", n), (minute * _MINUTE_NS, (minute + 1) * _MINUTE_NS), VOLUME)

    def table(self, listed: NDArray[np.bool_]) -> pl.DataFrame:
        """Return the rows of the hour; `listed` is (N, MINUTES)."""
        minutes = self._hour * MINUTES + np.arange(MINUTES)
        parts = []
        for n, symbol in enumerate(self._symbols):
            for channel in self._channels_of(n):
                codes = np.where(listed[n], self._codes_of(channel, n), len(STATES) - 1)
                parts.append((symbol, channel, codes))
        every = np.concatenate([codes for *_, codes in parts]).astype(np.uint32)
        names = {"symbol": [symbol for symbol, *_ in parts], "channel": [channel for _, channel, _ in parts]}
        at = np.repeat(np.arange(len(parts), dtype=np.uint32), MINUTES)
        columns: dict[str, Any] = {
            name: pl.Series(values, dtype=pl.String).gather(at) for name, values in names.items()
        }
        columns |= {
            "minute": np.tile(minutes, len(parts)),
            "state": pl.Series(list(STATES), dtype=pl.String).gather(every),
            "reason": pl.Series(list(REASONS), dtype=pl.String).gather(every),
        }
        return pl.DataFrame(columns).select(list(TABLES["coverage"].columns)).sort(TABLES["coverage"].key)

    # -- inside

    def _channels_of(self, n: int) -> list[str]:
        """Return the channels that a symbol has rows for in the table: full books only where they were recorded."""
        return [*CHANNELS, *([_DEPTH_CHANNEL] if (_DEPTH_CHANNEL, n) in self._codes else [])]

    def _codes_of(self, channel: str, n: int) -> Codes:
        found = self._codes.get((channel, n))
        if found is None:  # nothing was recorded of it
            found = self._codes[channel, n] = np.full(MINUTES, NOT_LINKED, np.uint8)
        return found

    def _mark_silence(self, channel: str, n: int, span: Span, limit: float, code: int) -> None:
        """Mark a silence, the parts of it in which the link was up; where it was not, silence means nothing."""
        parts = _without(span, self._breaks.get((channel, n), [(self._start_ns, self._end_ns)]))
        for part in parts:
            if part == span or part[1] - part[0] > limit:
                self._mark(self._codes_of(channel, n), part, code)

    def _mark(self, codes: Codes, span: Span, code: int) -> None:
        """Set the minutes that a span touches, where nothing stronger is known."""
        begin_ns, until_ns = max(span[0], self._start_ns), min(span[1], self._end_ns)
        if until_ns > begin_ns:
            minutes = slice((begin_ns - self._start_ns) // _MINUTE_NS, -((self._start_ns - until_ns) // _MINUTE_NS))
            np.maximum(codes[minutes], code, out=codes[minutes])


def _breaks(links: _Rows, start_ns: int, end_ns: int) -> Iterator[tuple[int, int, int]]:
    """Yield when no connection of a channel was up, and why; an hour begins with none, until a row says otherwise."""
    up: set[int] = set()
    since_ns: int | None = start_ns
    why = NOT_LINKED
    for recv_ns, event, conn in zip(links.recv_ns.tolist(), links.event.tolist(), links.conn.tolist(), strict=True):
        if event in (TickEvent.SUBSCRIBED, TickEvent.CARRIED):
            if since_ns is not None:
                yield since_ns, recv_ns, why
                since_ns = None
            up.add(conn)
            continue
        up.discard(conn)
        if event == TickEvent.GAP:
            yield recv_ns, recv_ns + _BREAK_NS_MIN, BROKEN  # however soon the link is mended
        if not up and since_ns is None:
            since_ns, why = recv_ns, BROKEN if event == TickEvent.GAP else NOT_LINKED
    if since_ns is not None:
        yield since_ns, end_ns, why


def _begins_broken(later: _Rows) -> bool:
    """Say whether the next that is known of a channel after the hour is that something had been lost before it."""
    known = later.event[later.event != TickEvent.CARRIED]
    return len(known) > 0 and bool(known[0] == TickEvent.GAP)


def _without(span: Span, breaks: list[Span]) -> list[Span]:
    """Return the parts of a span that lie in none of the breaks (sorted by their beginning)."""
    parts, begin_ns = [], span[0]
    for since_ns, until_ns in breaks:
        if until_ns <= begin_ns or since_ns >= span[1]:
            continue
        if since_ns > begin_ns:
            parts.append((begin_ns, since_ns))
        begin_ns = max(begin_ns, until_ns)
    return [*parts, (begin_ns, span[1])] if begin_ns < span[1] else parts


def _read(
    root: Path, channel: str, source: str, hour: int, symbols: tuple[str, ...], batch: range, later_s: int
) -> pl.DataFrame:
    """Return what is asked of the rows of a batch's symbols, up to `later_s` after the hour; `n` is the position."""
    names = [symbols[n] for n in batch]
    about = read.scan(
        root, f"raw/{channel}", source, start_s=hour * HOUR_S - MEMORY_S, end_s=(hour + 1) * HOUR_S + later_s,
        symbols=names, is_sorted=False,
    )  # fmt: skip
    axis = pl.DataFrame({"symbol": names, "n": np.array(batch, np.int32)})
    columns = (*_COLUMNS, *(_NUMBERS if channel == _DEPTH_CHANNEL else ()))
    return read.collect(about.select("symbol", *columns)).join(axis, on="symbol", maintain_order="left")


def _rows(frame: pl.DataFrame) -> Iterator[tuple[int, _Rows]]:
    """Yield (position, rows) of the symbols that have any."""
    n, recv_ns, exch_ns, event, conn = (frame[name].to_numpy() for name in ("n", *_COLUMNS))
    order = np.lexsort((recv_ns, n))  # stable: rows of one instant stay in order
    n, rows = n[order], _Rows(recv_ns[order], exch_ns[order], event[order], conn[order])
    cuts = np.flatnonzero(np.diff(n, prepend=-1, append=-1))
    for begin, end in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        part = slice(begin, end)
        yield int(n[begin]), _Rows(rows.recv_ns[part], rows.exch_ns[part], rows.event[part], rows.conn[part])


def _lost_changes(frame: pl.DataFrame) -> Iterator[tuple[int, Span]]:
    """Yield (position, when) of changes of full books that no connection brought (`numbers`)."""
    columns = ("recv_ns", "exch_ns", *_NUMBERS)
    # Every level of a push is a row; links have no number.
    pushes = frame.filter(pl.col("seq") >= 0).select("n", *columns).unique()
    for (n,), rows in pushes.partition_by("n", as_dict=True).items():
        recv_ns, exch_ns, seq, pseq, is_snapshot = (rows[name].to_numpy() for name in columns)
        for since_ns, until_ns in numbers.holes(recv_ns, exch_ns, seq, pseq, is_snapshot):
            yield int(n), (since_ns, until_ns + 1)


def _volumes(root: Path, source: str, hour: int) -> pl.DataFrame:
    """Return (symbol, minute, recorded, base_volume) of the hour's minutes that have a candle."""
    schema = {"symbol": pl.String, "minute": pl.Int64, "recorded": pl.Float64, "base_volume": pl.Float64}
    if hour not in read.hours(root, "candles", source):
        return pl.DataFrame(schema=schema)
    start_s, end_s = hour * HOUR_S, (hour + 1) * HOUR_S
    candles = read.collect(
        read.scan(root, "candles", source, start_s=start_s, end_s=end_s, is_sorted=False)
        .select("symbol", "minute", "base_volume")
        .drop_nulls()
    )
    trades = read.scan(
        root, "raw/trade", source, start_s=start_s - MEMORY_S, end_s=end_s + MEMORY_S, is_sorted=False
    ).filter(pl.col("event").is_in([int(event) for event in _PUSHES]))
    recorded = read.collect(
        # A trade that a subscribe snapshot repeats was traded all the same: what it brings back is not lost.
        trades.select("symbol", "trade_id", "size", minute=pl.col("exch_ns") // _MINUTE_NS)
        .unique(["symbol", "trade_id"])
        .group_by("symbol", "minute")
        .agg(recorded=pl.col("size").sum())
    )
    joined = candles.join(recorded, on=["symbol", "minute"], how="left").with_columns(pl.col("recorded").fill_null(0.0))
    return joined.select(list(schema)).sort("symbol", "minute")


def _listed(universes: list[Universe], symbols: tuple[str, ...], hour: int) -> NDArray[np.bool_]:
    """Return what was listed in each minute (N, MINUTES): by the snapshot in force when it ended.

    Before the first snapshot of all, the first one counts: that nobody had asked yet is no delisting.
    """
    listed = np.zeros((len(symbols), MINUTES), np.bool_)
    index = {symbol: n for n, symbol in enumerate(symbols)}
    ends_ns = hour * HOUR_NS + np.arange(1, MINUTES + 1) * _MINUTE_NS
    as_of_ns = np.array([universe.as_of_ns for universe in universes])
    in_force = np.maximum(np.searchsorted(as_of_ns, ends_ns, side="right") - 1, 0)
    for k, universe in enumerate(universes):
        for contract in universe.contracts:
            if contract.has_market:
                listed[index[contract.symbol], in_force == k] = True
    return listed
