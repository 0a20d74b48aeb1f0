"""Raw receipts of an hour -> its seconds, by the sampler that live runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shared.errors import TableEmpty
from shared.features.sampler import COLUMNS, MEMORY_S, Sampler
from shared.lake import read, write
from shared.lake.layout import HOUR_S, RAW, TABLES, hour_name, log_folder, paths_below
from shared.types import NS, Floats, Seconds

SYMBOL_SECONDS = 24 * 3600
"""Symbols x seconds whose raw rows are read at once: 1.5 million rows at Bitget's full cadence, 1.5 GB of memory."""

_UPDATES = ("book_updates", "ticker_updates")
"""Counts that are 0 where nothing was heard; like the size of an absent level, a 0 says nothing."""


def sample(
    lake: Path, source: str, start_s: int, end_s: int, symbols: tuple[str, ...] | None = None
) -> tuple[tuple[str, ...], Seconds]:
    """Return (symbols, seconds) of [start_s, end_s), from raw rows alone.

    The sampler remembers at most `MEMORY_S`, so it starts that much earlier on nothing; the CARRIED rows at the first
    instant of every hour tell it what was in force.
    """
    if symbols is None:  # all that were listed
        symbols = read.universe_between(lake, source, start_s * NS, end_s * NS).symbols
    columns = {name: np.empty((end_s - start_s, len(symbols))) for name in COLUMNS}
    begin = 0
    for some, seconds in _sampled(lake, source, start_s, end_s, symbols):
        for name, values in seconds.columns.items():
            columns[name][:, begin : begin + len(some)] = values
        begin += len(some)
    return symbols, Seconds(start_s, columns)


def _sampled(
    lake: Path, source: str, start_s: int, end_s: int, symbols: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Seconds]]:
    """Return the seconds of some symbols after others: a symbol's depend on no other's, and rows lie by symbol."""
    first = start_s - MEMORY_S
    n_at_once = max(1, SYMBOL_SECONDS // (end_s - first))
    for begin in range(0, max(1, len(symbols)), n_at_once):
        some = symbols[begin : begin + n_at_once]
        sampler = Sampler(len(some), first)
        ticks = read.read_ticks(lake, source, first * NS, end_s * NS, some, is_sorted=False)
        yield some, drop_before(sampler.step(ticks, end_s), start_s)


def drop_before(seconds: Seconds, second: int) -> Seconds:
    """Return the rows from `second` on."""
    skip = max(0, second - seconds.first_second)
    return Seconds(seconds.first_second + skip, {name: values[skip:] for name, values in seconds.columns.items()})


def stored(lake: Path, source: str, start_s: int, end_s: int, symbols: tuple[str, ...]) -> Seconds:
    """Return the lake's seconds of [start_s, end_s), all NaN where none were recorded."""
    try:
        return read.read_seconds(lake, source, start_s, end_s, symbols)
    except TableEmpty:
        nothing = np.full((end_s - start_s, len(symbols)), np.nan)
        return Seconds(start_s, dict.fromkeys(COLUMNS, nothing))


def to_frame(symbols: tuple[str, ...], seconds: Seconds) -> pl.DataFrame:
    """Return seconds as the lake stores them, sorted by (symbol, second).

    A row that says nothing (no state, no coverage, no update) is left out: absent and unknown are one thing.
    """
    says = np.zeros(next(iter(seconds.columns.values())).shape, np.bool_)
    for name, values in seconds.columns.items():
        says |= says_something(name, values)
    n, t = np.nonzero(says.T)
    columns: dict[str, pl.Series] = {
        "second": pl.Series(seconds.first_second + t, dtype=pl.Int64),
        "symbol": pl.Series(list(symbols), dtype=pl.String).gather(n),
    }
    columns |= {name: pl.Series(values[t, n]) for name, values in seconds.columns.items()}
    return pl.DataFrame(columns, schema=dict(TABLES["seconds"].columns)).sort("symbol", "second")


def says_something(column: str, values: Floats) -> NDArray[np.bool_]:
    """Tell of each value of a column whether it is more than absent."""
    return values > 0 if column in _UPDATES or "_size_" in column else np.isfinite(values)


def write_seconds(lake: Path, source: str, hour: int) -> pl.DataFrame:
    """Sample one hour and store it; return what was stored.

    Raises:
        TableEmpty: the hour holds no raw rows.
    """
    _check_inputs(lake, source, hour)
    start_s, end_s = hour * HOUR_S, (hour + 1) * HOUR_S
    symbols = read.universe_between(lake, source, start_s * NS, end_s * NS).symbols
    frames: list[pl.DataFrame] = []

    def parts() -> Iterator[pl.DataFrame]:
        for some, seconds in _sampled(lake, source, start_s, end_s, tuple(sorted(symbols))):
            frames.append(to_frame(some, seconds))
            yield frames[-1]
        if not any(frame.height for frame in frames):
            raise TableEmpty(
                f"raw rows of {source} are needed for {hour_name(hour)}, found none in {lake}: "
                f"{TABLES['raw/book'].made_by}, or choose another hour"
            )

    write.write_parts(lake, "seconds", source, hour, parts(), {"inputs": inputs_of_seconds(lake, source, hour)})
    return pl.concat(frames)


def _check_inputs(lake: Path, source: str, hour: int) -> None:
    """Refuse to build an hour anew from less than it was made from, or from the last states of the hour before."""
    there = {f"{table} {hour}" for table in RAW if hour in read.hours(lake, table, source)}
    path = read.sealed_file(lake, "seconds", source, hour)
    known = {} if path is None else read.footer(path).provenance.get("inputs") or {}
    gone = sorted(name.rsplit(" ", 1)[0] for name in known if name.endswith(f" {hour}") and name not in there)
    if gone:
        raise TableEmpty(
            f"{', '.join(gone)} of {source} must be there to build the seconds of {hour_name(hour)} anew, found them "
            f"removed from {lake}: the seconds that are stored stay as they are; remove {path} if you want those of "
            "what is left"
        )
    if not there:
        raise TableEmpty(
            f"raw rows of {source} are needed for {hour_name(hour)}, found none in {lake}: "
            f"{TABLES['raw/book'].made_by}, or choose another hour"
        )


def inputs_of_seconds(lake: Path, source: str, hour: int) -> dict[str, str] | None:
    """Return what an hour of seconds is made from, as input -> content hash; None while its log is open."""
    return inputs_of(lake, source, [(table, h) for table in RAW for h in (hour - 1, hour)])


def inputs_of(lake: Path, source: str, wanted: Iterable[tuple[str, int]]) -> dict[str, str] | None:
    """Return the content hash of those hours of tables that exist; None where one of them is not sealed."""
    found = {}
    for table, hour in wanted:
        if hour not in read.hours(lake, table, source):
            continue
        if table in RAW and paths_below(log_folder(lake, source, hour), "session=*"):
            return None
        found[f"{table} {hour}"] = read.content_hash(lake, table, source, [hour])
    return found


def is_current(lake: Path, table: str, source: str, hour: int, inputs: dict[str, str] | None) -> bool:
    """Tell whether a derived hour exists and was made from everything that there is now, as it is now.

    An input that is gone (`pipelines.retention`) makes nothing stale: less could only be made from what is left.
    """
    path = read.sealed_file(lake, table, source, hour)
    if inputs is None or path is None:
        return False
    known = read.footer(path).provenance.get("inputs")
    return isinstance(known, dict) and all(known.get(name) == value for name, value in inputs.items())
