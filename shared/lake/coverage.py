"""Coverage: for every symbol, channel and minute of an hour, whether silence can be trusted.

    complete     the channel was linked for the whole minute, and the symbol never silent for 30 s
    stale        linked, but no channel of the symbol pushed anything for more than 30 s (or since it was linked)
    gap          not linked for a part of the minute: what happened then is unknown
    not_listed   the symbol was not listed in that minute

Computed from the rows alone: links are rows, so nothing here is guessed. 30 s is the sampler's memory: where coverage
says stale, its states are NaN. Link breaks under 1 ms do not count (a session that is closed on the stroke of an hour
ends its links one ns before it).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shared.features.sampler import MEMORY_S
from shared.lake import read, write
from shared.lake.layout import CHANNELS, HOUR_NS, HOUR_S, MINUTE_S, TABLES
from shared.types import NS, TickEvent, Universe

COMPLETE, STALE, GAP, NOT_LISTED = "complete", "stale", "gap", "not_listed"

MINUTES = HOUR_S // MINUTE_S
_MINUTE_NS = MINUTE_S * NS
_BREAK_NS_MIN = 1_000_000

_SIGNS = (TickEvent.DATA, TickEvent.SUBSCRIBED, TickEvent.CARRIED)
"""Rows after which a symbol has 30 s to push; a link that has just come up is not silent yet."""

_UNLISTED = frozenset({"listed", "off"})
"""Bitget's symbolStatus before a listing and after its end; everything else is on the wire."""

Flags = NDArray[np.bool_]
Span = tuple[int, int]  # [start, end), ns


def compute(root: Path, source: str, hour: int) -> pl.DataFrame:
    """Return the coverage table of one hour.

    Raises:
        TableEmpty: the hour has no raw rows, or its universe is not known.
    """
    start_ns, end_ns = hour * HOUR_NS, (hour + 1) * HOUR_NS
    universes = read.universes_between(root, source, start_ns, end_ns)
    symbols = read.universe_between(root, source, start_ns, end_ns).symbols
    pushed = _Pushes(symbols, hour)
    gaps = {channel: np.zeros((len(symbols), MINUTES), np.bool_) for channel in CHANNELS}
    for channel in CHANNELS:
        rows = read.collect(
            read.scan(
                root, f"raw/{channel}", source, start_s=start_ns // NS - MEMORY_S, end_s=end_ns // NS, is_sorted=False
            )
            .select("symbol", "recv_ns", "event", "conn")
            .with_row_index()
            .sort("recv_ns", "index")
        )
        pushed.add(rows.filter(pl.col("event").is_in([int(event) for event in _SIGNS])))
        links = rows.filter((pl.col("event") >= int(TickEvent.SUBSCRIBED)) & (pl.col("recv_ns") >= start_ns))
        by_symbol = links.partition_by("symbol", as_dict=True)
        for n, symbol in enumerate(symbols):
            breaks = _breaks(by_symbol.get((symbol,), links.clear()), start_ns, end_ns)
            _mark(gaps[channel][n], [span for span in breaks if span[1] - span[0] >= _BREAK_NS_MIN], start_ns)
    return _table(symbols, hour, _listed(universes, symbols, hour), gaps, pushed.stale())


def write_coverage(root: Path, source: str, hour: int) -> write.Written:
    """Compute the coverage of one hour and store it."""
    return write.write_table(root, "coverage", source, hour, compute(root, source, hour), {"made_from": "raw"})


def _breaks(links: pl.DataFrame, start_ns: int, end_ns: int) -> Iterator[Span]:
    """Yield when no connection of a channel was up; the hour begins with nothing, until a row says otherwise."""
    up: set[int] = set()
    since_ns: int | None = start_ns
    for recv_ns, event, conn in links.select("recv_ns", "event", "conn").iter_rows():
        if event in (TickEvent.SUBSCRIBED, TickEvent.CARRIED):
            if since_ns is not None:
                yield since_ns, recv_ns
                since_ns = None
            up.add(conn)
        else:
            up.discard(conn)
            if event == TickEvent.GAP:
                yield recv_ns, recv_ns + _BREAK_NS_MIN  # something was lost here, however soon the link is mended
            if not up and since_ns is None:
                since_ns = recv_ns
    if since_ns is not None:
        yield since_ns, end_ns


class _Pushes:
    """When each symbol last gave a sign of life, on any channel."""

    def __init__(self, symbols: tuple[str, ...], hour: int) -> None:
        self._symbols, self._start_ns = symbols, hour * HOUR_NS
        self._frames: list[pl.DataFrame] = []

    def add(self, rows: pl.DataFrame) -> None:
        self._frames.append(rows.select("symbol", "recv_ns"))

    def stale(self) -> Flags:
        """Return which minutes (N, MINUTES) hold a moment more than MEMORY_S after the last sign."""
        stale = np.zeros((len(self._symbols), MINUTES), np.bool_)
        pushes = pl.concat(self._frames).sort("symbol", "recv_ns").partition_by("symbol", as_dict=True)
        end_ns = self._start_ns + HOUR_NS
        for n, symbol in enumerate(self._symbols):
            mine = pushes.get((symbol,))
            times = np.empty(0, np.int64) if mine is None else mine["recv_ns"].to_numpy()
            # Before the rows that were read, at least MEMORY_S ahead of the hour, lies nothing that counts.
            ends = np.append(times, end_ns)
            starts = np.append(self._start_ns - MEMORY_S * NS, times) + MEMORY_S * NS
            late = np.flatnonzero(ends > starts)
            _mark(stale[n], [(max(int(starts[i]), self._start_ns), int(ends[i])) for i in late], self._start_ns)
        return stale


def _mark(minutes: Flags, spans: list[Span], start_ns: int) -> None:
    """Set the minutes that any span touches."""
    for first_ns, end_ns in spans:
        if end_ns > max(first_ns, start_ns):
            minutes[max(0, first_ns - start_ns) // _MINUTE_NS : -((start_ns - end_ns) // _MINUTE_NS)] = True


def _listed(universes: list[Universe], symbols: tuple[str, ...], hour: int) -> Flags:
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
            if contract.status not in _UNLISTED:
                listed[index[contract.symbol], in_force == k] = True
    return listed


def _table(symbols: tuple[str, ...], hour: int, listed: Flags, gaps: dict[str, Flags], stale: Flags) -> pl.DataFrame:
    minutes = np.tile(hour * MINUTES + np.arange(MINUTES), len(symbols))
    names = pl.Series("symbol", symbols, dtype=pl.String).gather(np.repeat(np.arange(len(symbols)), MINUTES))
    parts = []
    for channel in CHANNELS:
        state = np.where(stale, STALE, COMPLETE)
        state = np.where(gaps[channel], GAP, state)
        state = np.where(listed, state, NOT_LISTED)
        parts.append(
            pl.DataFrame({"minute": minutes, "symbol": names, "state": state.reshape(-1)}).with_columns(
                channel=pl.lit(channel)
            )
        )
    return pl.concat(parts).select(list(TABLES["coverage"].columns)).sort(TABLES["coverage"].key)
