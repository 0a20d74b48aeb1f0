"""Rows of an hour, symbol range by symbol range, in bounded memory.

Logs hold rows in order of receipt, sealed files by symbol. 800 symbols at Bitget's full cadence are 58 million rows an
hour and 15 GB as columns, so an hour that is merged is never in memory as a whole: a log is read once, batch by batch;
whenever `RUN_BYTES` are together they are sorted by symbol and put aside as a run, and a range of symbols is then a
slice of each run. What fits into one run stays in memory and touches no disk.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import polars as pl

from shared.lake import layout, receipts, sealed, wal_reading
from shared.lake.layout import TABLES

RUN_BYTES = 256 << 20
"""Of rows that are sorted at once, and of symbols' rows that are merged at once; about six times that is used."""

_BATCH_ROWS = 8192
"""Of a run that are decompressed together: a slice of a symbol or some reads little more than itself."""

_LEFT_S = 6 * 3600
"""A run that is older was left by a process that died: no merge takes so long."""


class Origin(Protocol):
    """Where rows of an hour come from."""

    counts: Counter[str]  # rows of each symbol

    def take(self, first: str, last: str) -> pl.DataFrame:
        """Return the rows of the symbols first … last, by symbol, then in the order in which they were written."""


class SealedOrigin:
    """The rows of a sealed file.

    Raises:
        Replaced: another seal has replaced it meanwhile, in each of its methods.
    """

    def __init__(self, path: Path, symbols: frozenset[str] | None) -> None:
        self._index = sealed.index(path)
        self._symbols = symbols
        self.counts: Counter[str] = Counter()
        for group in np.flatnonzero(self._index.groups(None, None, None if symbols is None else sorted(symbols))):
            only = np.arange(len(self._index.rows)) == group
            with sealed.unchanged([self._index]):
                names = sealed.read(self._index, only, ["symbol"])["symbol"].value_counts()
            self.counts.update({name: n for name, n in names.iter_rows() if symbols is None or name in symbols})

    def take(self, first: str, last: str) -> pl.DataFrame:
        ranges = self._index.symbols
        assert ranges is not None, self._index.path
        groups = np.array([low <= last and high >= first for low, high in ranges], np.bool_)
        with sealed.unchanged([self._index]):
            rows = sealed.read(self._index, groups).filter(pl.col("symbol").is_between(pl.lit(first), pl.lit(last)))
        return rows if self._symbols is None else rows.filter(pl.col("symbol").is_in(list(self._symbols)))


class LogOrigin:
    """The rows of one log.

    Args:
        folder: where runs are put aside.
        symbols: None: all of them.
    """

    def __init__(self, reader: wal_reading.LogReader, folder: Path, symbols: frozenset[str] | None) -> None:
        self.counts: Counter[str] = Counter()
        self._runs: list[_Run] = []
        self._table, self._folder, self._symbols = reader.table, folder, symbols
        width = row_bytes(reader.table)
        waiting: list[layout.Rows] = []
        n_rows = 0
        for rows in reader.rows():
            some = rows if symbols is None else self._only(rows, reader.symbols)
            waiting.append(some)
            n_rows += len(some.recv_ns)
            if n_rows * width >= RUN_BYTES:
                self._sort(waiting, reader.symbols, is_last=False)
                waiting, n_rows = [], 0
        self.torn_bytes = reader.torn_bytes
        self._sort(waiting, reader.symbols, is_last=True)

    def take(self, first: str, last: str) -> pl.DataFrame:
        parts = [run.take(first, last) for run in self._runs]
        return pl.concat(parts).sort("symbol", maintain_order=True) if len(parts) > 1 else parts[0]

    def _only(self, rows: layout.Rows, names: Sequence[str]) -> layout.Rows:
        assert self._symbols is not None
        is_wanted = np.array([name in self._symbols for name in names], np.bool_)
        return receipts.take(rows, np.flatnonzero(is_wanted[rows.symbol]))

    def _sort(self, waiting: list[layout.Rows], names: Sequence[str], *, is_last: bool) -> None:
        rows = receipts.join(self._table, waiting)
        waiting.clear()
        order = sorted(range(len(names)), key=names.__getitem__)
        rank = np.empty(len(names), np.int32)
        rank[order] = np.arange(len(names), dtype=np.int32)
        ranks = rank[rows.symbol]
        frame = layout.rows_to_frame(self._table, receipts.take(rows, np.argsort(ranks, kind="stable")), names)
        n_of = np.bincount(ranks, minlength=len(names)).tolist()
        sizes = {names[n]: size for n, size in zip(order, n_of, strict=True) if size}
        self.counts.update(sizes)
        path = None
        if not is_last or self._runs:
            path = self._folder / f"{len(self._runs)}-{id(self)}.arrow"
            frame.write_ipc(path, compression="lz4", record_batch_size=_BATCH_ROWS)
        self._runs.append(_Run(sizes=sizes, frame=frame if path is None else None, path=path))


class _Run(msgspec.Struct, frozen=True, kw_only=True):
    """Rows sorted by symbol, in memory or on disk."""

    sizes: dict[str, int]  # rows of each symbol, in order
    frame: pl.DataFrame | None
    path: Path | None

    def take(self, first: str, last: str) -> pl.DataFrame:
        before = sum(size for name, size in self.sizes.items() if name < first)
        inside = sum(size for name, size in self.sizes.items() if first <= name <= last)
        if self.frame is not None:
            return self.frame[before : before + inside]
        assert self.path is not None
        return pl.scan_ipc(self.path).slice(before, inside).collect()


def row_bytes(table: str) -> int:
    """Return what a row takes in memory."""
    return sum(16 if dtype == pl.String else 8 for dtype in TABLES[table].columns.values())


def ranges(table: str, origins: Sequence[Origin]) -> list[tuple[str, str]]:
    """Return the ranges of symbols (first, last) to merge one after another; none where there are no rows."""
    found = []
    counts: Counter[str] = sum((origin.counts for origin in origins), Counter())
    first, n_bytes, width = None, 0, row_bytes(table)
    names = sorted(counts)
    for name, following in zip_longest(names, names[1:]):
        first = name if first is None else first
        n_bytes += counts[name] * width
        if following is None or n_bytes + counts[following] * width > RUN_BYTES:
            found.append((first, name))
            first, n_bytes = None, 0
    return found


@contextlib.contextmanager
def folder(root: Path) -> Iterator[Path]:
    """Give a folder for runs, on the lake's disk; those that dead processes have left are removed."""
    parent = root / ".tmp"
    parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="runs-", dir=parent))
    for left in parent.glob("runs-*"):
        with contextlib.suppress(FileNotFoundError):  # somebody else was quicker
            if left.stat().st_mtime < made.stat().st_mtime - _LEFT_S:
                shutil.rmtree(left, ignore_errors=True)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
