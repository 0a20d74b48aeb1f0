"""Read the lake: sealed hours and, for raw tables, the open one.

`scan` is for queries (polars), `read_ticks` and `read_seconds` give arrays on a symbol axis. What is read of a file is
compared with its checksums before it is decoded, and only that is (`shared.lake.sealed`): a corrupt file is named
(`TableCorrupt`), nothing where something was asked for says what to run (`TableEmpty`). Parquet's own compression does
not notice a flipped bit in most pages, and a model learns from a wrong number as gladly as from a right one.

A raw hour that still has logs is merged in memory, by the very function that seals it (`shared.lake.merge`).

An hour that is being removed (`shared.lake.removal`) is not there; one that is removed while it is read is a
`TableEmpty` that says so, never a part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal, cast

import msgspec
import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from shared.errors import SchemaMismatch, TableCorrupt, TableEmpty
from shared.features.sampler import COLUMNS
from shared.lake import find, layout, removal, sealed
from shared.lake.find import hours as hours
from shared.lake.find import sealed_file as sealed_file
from shared.lake.find import sources as sources
from shared.lake.layout import RAW, TABLES, Footer
from shared.lake.merge import HourRows as HourRows
from shared.lake.merge import raw_hour as raw_hour
from shared.lake.merge import raw_parts as raw_parts
from shared.types import (
    NS,
    BookTicks,
    Contract,
    Floats,
    Seconds,
    TickerTicks,
    Ticks,
    TradeTicks,
    Universe,
)

Engine = Literal["streaming", "in-memory"]

_CELLS_AT_ONCE = 1 << 26
"""Rows x columns that a query decodes together: 512 MB of numbers."""

_AS_ASKED = pl.QueryOptFlags(comm_subplan_elim=False)
"""Two stretches of a file are two reads: else polars reads all of it once, which nobody has checked."""

_LISTING_RETRIES = 5  # of an hour that is sealed while it is read; a seal takes seconds, so one is enough


# ------------------------------------------------------------------------------------------- what is there


def symbols_of(root: Path, table: str, source: str, *, start_s: int, end_s: int) -> tuple[str, ...]:
    """Return the symbols that have rows in [start_s, end_s), sorted."""
    found = scan(root, table, source, start_s=start_s, end_s=end_s, is_sorted=False).select("symbol").unique()
    return tuple(sorted(collect(found)["symbol"].to_list()))


def footer(path: Path) -> Footer:
    """Return what a file says about itself.

    Raises:
        TableEmpty: it is gone.
        TableCorrupt: it cannot be read, or is none of ours.
        SchemaMismatch: it was written by another version of the schemas.
    """
    return sealed.index(path).footer


def content_hash(root: Path, table: str, source: str, hours: Iterable[int]) -> str:
    """Return one hash over the sealed rows of these hours: what a model was trained on, what a backtest saw.

    Raises:
        TableEmpty: one of the hours is not sealed.
    """
    hashes = []
    for hour in sorted(hours):
        parts = find.parts(root, table, source, hour)
        if not parts:
            raise find.empty(root, table, source, f"the hour {layout.hour_name(hour)}")
        hashes += [f"{hour} {footer(path).content_hash}" for path in parts]
    return layout.combine(hashes)


def verify(path: Path) -> Footer:
    """Compare every byte of a file with its checksum and every value with the content hash in its footer.

    Raises:
        TableCorrupt: a bit is not what was written.
    """
    return sealed.verify(path)


def rows_of(path: Path) -> pl.DataFrame:
    """Return all rows of one file.

    Raises:
        TableCorrupt: a bit is not what was written.
    """
    return sealed.read_all(path)


# -------------------------------------------------------------------------------------------------- queries


def scan(
    root: Path,
    table: str,
    source: str,
    *,
    start_s: int | None = None,
    end_s: int | None = None,
    symbols: Sequence[str] | None = None,
    is_sorted: bool = True,
) -> pl.LazyFrame:
    """Return the rows of [start_s, end_s) as a lazy frame, sorted by time, then symbol.

    Args:
        start_s: epoch second; None: from the first hour on.
        end_s: epoch second, exclusive; None: up to the last row.
        symbols: None: all of them.
        is_sorted: False leaves the order to polars, where the query does not depend on it (cheaper).

    Raises:
        TableEmpty: no hour in the range has rows; the message says what to run.
        TableCorrupt: a file of the range cannot be read.
    """
    about = TABLES[table]
    start_hour = -(2**62) if start_s is None else start_s // layout.HOUR_S
    end_hour = 2**62 if end_s is None else -(-end_s // layout.HOUR_S)
    wanted = [hour for hour in hours(root, table, source) if start_hour <= hour < end_hour]
    if not wanted:
        bounds = [None if s is None else layout.hour_name(s // layout.HOUR_S) for s in (start_s, end_s)]
        raise find.empty(root, table, source, f"hours from {bounds[0] or 'the first'} to {bounds[1] or 'the last'}")
    columns = _check_columns(root, about, source, wanted)
    first = None if start_s is None else -(-start_s * NS // about.unit_ns)
    end = None if end_s is None else -(-end_s * NS // about.unit_ns)

    def frames(
        names: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        return _again_if_replaced(
            lambda: _frames(root, about, source, wanted, first, end, symbols, names or columns, predicate, n_rows)
        )

    schema = {name: about.columns.get(name, about.others or pl.Null) for name in columns}
    rows = register_io_source(frames, schema=cast(Any, schema), is_pure=True, explain_name=f"{table} of {source}")
    if is_sorted:
        # The rows of an hour come by symbol, then time: a stable sort by time leaves them by time, then symbol.
        by = [about.time] if about.key[0] == "symbol" else [about.time, *about.key]
        rows = rows.sort(by, maintain_order=True)
    return rows


def _again_if_replaced(frames: Callable[[], Iterator[pl.DataFrame]]) -> Iterator[pl.DataFrame]:
    """Return these frames; from the start again where a file was replaced before the first of them was there."""
    for left in reversed(range(_LISTING_RETRIES)):
        is_begun = False
        try:
            for frame in frames():
                is_begun = True
                yield frame
        except sealed.Replaced:
            if is_begun or not left:
                raise
        else:
            return


def _frames(
    root: Path,
    about: layout.Table,
    source: str,
    wanted: Sequence[int],
    first: int | None,
    end: int | None,
    symbols: Sequence[str] | None,
    columns: Sequence[str],
    predicate: pl.Expr | None = None,
    n_rows: int | None = None,
) -> Iterator[pl.DataFrame]:
    """Return these columns of the rows of [first, end) and of these symbols, piece by piece, in the files' order."""
    asked = {*columns, *(predicate.meta.root_names() if predicate is not None else ())}
    if symbols is not None:
        asked.add("symbol")
    waiting: list[pl.LazyFrame] = []
    files: list[sealed.Index] = []  # that these are of
    cells, given = 0, 0

    def decoded() -> pl.DataFrame:
        rows = pl.concat(waiting)
        # A little of many files is read quicker at once; for a lot the streaming engine is the quicker one.
        engine: Engine = "in-memory" if cells < _CELLS_AT_ONCE else "streaming"
        with sealed.unchanged(files):
            frame = collect(rows if n_rows is None else rows.head(n_rows - given), engine=engine)
        waiting.clear()
        files.clear()
        return frame

    for rows, n_cells, file in _pieces(root, about, source, wanted, first, end, symbols, asked):
        files += [] if file is None else [file]
        waiting.append((rows if predicate is None else rows.filter(predicate)).select(columns))
        cells += n_cells
        if cells >= _CELLS_AT_ONCE:
            frame, cells = decoded(), 0
            given += frame.height
            yield frame
            if n_rows is not None and given >= n_rows:
                return
    if waiting:
        yield decoded()
    elif not given:
        schema = {name: about.columns.get(name, about.others or pl.Null) for name in columns}
        yield pl.DataFrame(schema=schema)


def _pieces(
    root: Path,
    about: layout.Table,
    source: str,
    wanted: Sequence[int],
    first: int | None,
    end: int | None,
    symbols: Sequence[str] | None,
    columns: set[str],
) -> Iterator[tuple[pl.LazyFrame, int, sealed.Index | None]]:
    """Return the rows of one file or part of an open hour after another, checked; how many values; the file."""
    at = pl.col(about.time)
    of_symbols = [] if symbols is None else [pl.col("symbol").is_in(list(symbols))]
    of_time = ([] if first is None else [at >= first]) + ([] if end is None else [at < end])
    for hour in wanted:
        if find.has_logs(root, about.name, source, hour):
            for part in raw_parts(root, about.name, source, hour, symbols=symbols):
                yield part.frame.lazy().filter(*of_time, *of_symbols), part.frame.height * len(columns), None
            continue
        for path in _sealed_parts(root, about.name, source, hour):
            found = sealed.index(path)
            groups = found.groups(first, end, symbols)
            if not groups.any():
                continue
            is_inside = (first is None or found.firsts[groups].min() >= first) and (
                end is None or found.lasts[groups].max() < end
            )
            conditions = of_symbols if is_inside else [*of_time, *of_symbols]
            read = columns if is_inside else columns | {about.time}
            with sealed.unchanged([found]):
                rows = sealed.lazy(found, groups, [name for name in found.columns if name in read])
            yield rows.filter(*conditions), int(found.rows[groups].sum()) * max(1, len(read)), found


def _sealed_parts(root: Path, table: str, source: str, hour: int) -> list[Path]:
    """Return the sealed files of an hour that has been listed; it may have been removed since."""
    parts = find.parts(root, table, source, hour)
    # The mark is asked for last: until here, whatever was found was all of its hour.
    if not parts or (table, hour) in removal.marked(root, source):
        raise sealed.removed(layout.partition_path(root, table, source, hour))
    return parts


def collect(rows: pl.LazyFrame, *, engine: Engine = "streaming") -> pl.DataFrame:
    """Run a query over the lake; a file that breaks under it becomes a `TableCorrupt`.

    Args:
        engine: of polars.

    Raises:
        TableCorrupt: polars could not read a page that the footer promises; `verify` finds the file.
    """
    try:
        return rows.collect(engine=engine, optimizations=_AS_ASKED)
    except FileNotFoundError as error:
        raise TableEmpty(
            f"every file of a query must stay while it is read, found one removed ({sealed.first_line(error)}): "
            "ask again"
        ) from error
    except (pl.exceptions.ComputeError, pl.exceptions.PanicException, OSError) as error:
        raise TableCorrupt(
            f"every file of a query must be readable, found {sealed.first_line(error)}: "
            "shared.lake.read.verify(path) tells which file it is"
        ) from error


# --------------------------------------------------------------------------------------------------- arrays


def read_ticks(
    root: Path, source: str, start_ns: int, end_ns: int, symbols: Sequence[str], *, is_sorted: bool = True
) -> Ticks:
    """Return what was received in [start_ns, end_ns), each table in order of receipt, on this symbol axis.

    Hours that are missing contribute nothing; no hour at all is an error.

    Args:
        is_sorted: False leaves the rows by symbol, then in order of receipt, an hour after the other (half the time).

    Raises:
        TableEmpty: nothing was recorded in any hour of the range.
    """
    tables = []
    for table, wanted in _raw_hours(root, source, start_ns, end_ns).items():
        about = TABLES[table]
        if not wanted:
            span = (
                f"{layout.hour_name(start_ns // layout.HOUR_NS)} to {layout.hour_name((end_ns - 1) // layout.HOUR_NS)}"
            )
            raise find.empty(root, table, source, f"hours from {span}")
        for left in reversed(range(_LISTING_RETRIES)):
            try:
                frame = pl.concat(_frames(root, about, source, wanted, start_ns, end_ns, symbols, list(about.columns)))
                break
            except sealed.Replaced:
                if not left:
                    raise
        if is_sorted:  # stable: rows of one symbol and instant keep the file's order (the frame's)
            frame = frame.sort("recv_ns", maintain_order=True)
        tables.append(layout.frame_to_rows(table, frame, symbols))
    return Ticks(cast(BookTicks, tables[0]), cast(TradeTicks, tables[1]), cast(TickerTicks, tables[2]))


def _raw_hours(root: Path, source: str, start_ns: int, end_ns: int) -> dict[str, list[int]]:
    """Return the hours of each raw table that [start_ns, end_ns) touches, as they were at one moment.

    Tables are listed one after another, and an hour may be removed in between: where they differ they are listed again
    until they stay, and from then on a file that goes is an error where it is read.
    """

    def listed() -> dict[str, list[int]]:
        return {
            table: [
                hour
                for hour in hours(root, table, source)
                if (hour + 1) * layout.HOUR_NS > start_ns and hour * layout.HOUR_NS < end_ns
            ]
            for table in RAW
        }

    found = listed()
    for _ in range(_LISTING_RETRIES):
        if len({tuple(wanted) for wanted in found.values()}) == 1:
            return found
        before, found = found, listed()
        if before == found:
            return found
    raise TableEmpty(f"raw hours of {source} must stay while they are listed, found them changing: ask again")


def read_seconds(
    root: Path,
    source: str,
    start_s: int,
    end_s: int,
    symbols: Sequence[str],
    columns: Sequence[str] = COLUMNS,
    *,
    into: Mapping[str, Floats] | None = None,
) -> Seconds:
    """Return sampled seconds [start_s, end_s) as (T, N) arrays on this symbol axis; rows that are absent are NaN.

    Args:
        into: as `to_arrays` says.

    Raises:
        TableEmpty: no hour of the range was sampled; `into` is as it was.
    """
    frame = collect(
        scan(root, "seconds", source, start_s=start_s, end_s=end_s, symbols=symbols, is_sorted=False).select(
            "second", "symbol", *columns
        )
    )
    return Seconds(start_s, to_arrays(frame, start_s, end_s, symbols, into=into))


def to_arrays(
    frame: pl.DataFrame, start_s: int, end_s: int, symbols: Sequence[str], *, into: Mapping[str, Floats] | None = None
) -> dict[str, Floats]:
    """Return the other columns of a frame of (second, symbol) rows as (T, N) float64, NaN where there is no row.

    Args:
        into: column -> (N, T), where to put it, a symbol's seconds together as they lie in a file: a third of the
            time, for nothing is turned and no fresh memory touched. What is returned is a view of it, transposed.
    """
    shape = (end_s - start_s, len(symbols))
    # Codes of an Enum are positions on the axis; a join that says the same takes five times as long.
    place = frame["symbol"].cast(pl.Enum(symbols), strict=False).to_physical()
    if place.null_count():
        frame, place = frame.filter(place.is_not_null()), place.drop_nulls()
    t, n = frame["second"].to_numpy() - start_s, place.to_numpy()
    cells = t * shape[1] + n if into is None else n * np.int64(shape[0]) + t
    is_whole = frame.height == shape[0] * shape[1]  # rows are unique: then no cell is left without one
    is_in_order = is_whole and bool((cells == np.arange(len(cells))).all())
    arrays: dict[str, Floats] = {}
    for name in frame.columns:
        if name in ("second", "symbol"):
            continue
        array = np.empty(shape) if into is None else into[name]
        assert array.size == shape[0] * shape[1], f"{name}: {array.shape} for {shape[1]} symbols, {shape[0]} seconds"
        assert array.flags.c_contiguous, f"{name}: its memory must be in one piece"
        if not is_whole:
            array.fill(np.nan)
        array.reshape(-1)[slice(None) if is_in_order else cells] = frame[name].to_numpy()
        arrays[name] = array if into is None else array.T
    return arrays


# ------------------------------------------------------------------------------------------------- universe


def universe_at(root: Path, source: str, ns: int) -> Universe:
    """Return what was listed at a time: the latest snapshot that is not after it.

    Raises:
        TableEmpty: the first snapshot is later, or there is none.
    """
    snapshots = _snapshots(root, source, None, ns + 1)
    latest = snapshots.filter(pl.col("as_of_ns") == pl.col("as_of_ns").max())
    if not latest.height:
        raise find.empty(root, "universe", source, f"a snapshot at or before {layout.hour_name(ns // layout.HOUR_NS)}")
    return _universe(source, latest)


def universe_between(
    root: Path, source: str, start_ns: int, end_ns: int, *, rules: Literal["first", "latest"] = "latest"
) -> Universe:
    """Return everything that was listed at some time in [start_ns, end_ns), each with one of its rules.

    This is the symbol axis of an hour: what was discovered in mid-hour belongs to it. `as_of_ns` is the snapshot's
    that was the latest of those used.

    Args:
        rules: whoever trades the window takes the first: the latest know what was delisted in its course.

    Raises:
        TableEmpty: there is no snapshot before `end_ns`.
    """
    snapshots = _snapshots(root, source, start_ns, end_ns)
    if not snapshots.height:
        raise find.empty(root, "universe", source, f"a snapshot before {layout.hour_name(end_ns // layout.HOUR_NS)}")
    keep: Literal["first", "last"] = "first" if rules == "first" else "last"
    rows = snapshots.sort("as_of_ns", maintain_order=True).unique("symbol", keep=keep, maintain_order=True)
    return _universe(source, rows)


def universes_between(root: Path, source: str, start_ns: int, end_ns: int) -> list[Universe]:
    """Return the snapshots of [start_ns, end_ns) and the one in force at its beginning, oldest first."""
    snapshots = _snapshots(root, source, start_ns, end_ns)
    return [_universe(source, rows) for _, rows in snapshots.sort("as_of_ns").group_by("as_of_ns", maintain_order=True)]


def _snapshots(root: Path, source: str, start_ns: int | None, end_ns: int) -> pl.DataFrame:
    """Return the snapshots of [start_ns, end_ns) and the latest one that is not after start_ns."""
    known = hours(root, "universe", source)
    frames: list[pl.DataFrame] = []
    for hour in reversed([hour for hour in known if hour * layout.HOUR_NS < end_ns]):
        path = sealed_file(root, "universe", source, hour) or layout.partition_path(root, "universe", source, hour)
        frames.append(rows_of(path).filter(pl.col("as_of_ns") < end_ns))
        first = cast("int | None", frames[-1]["as_of_ns"].min())
        if first is not None and (start_ns is None or first <= start_ns):
            break
    if not frames:
        return pl.DataFrame(schema=dict(TABLES["universe"].columns))
    rows = pl.concat(frames)
    before = rows.filter(pl.col("as_of_ns") <= (end_ns if start_ns is None else start_ns))["as_of_ns"].max()
    return rows if before is None else rows.filter(pl.col("as_of_ns") >= before)


_CONTRACT: Final = msgspec.structs.fields(Contract)  # a millisecond's work, and there are hundreds of contracts


def _universe(source: str, rows: pl.DataFrame) -> Universe:
    contracts = []
    for row in rows.sort("symbol").iter_rows(named=True):
        fields: dict[str, Any] = {}
        for field in _CONTRACT:
            value = row[field.name]
            is_decimal = field.type is Decimal or field.type == Decimal | None
            fields[field.name] = Decimal(value) if is_decimal and value is not None else value
        contracts.append(Contract(**fields))
    as_of_ns = cast(int, rows["as_of_ns"].max())
    return Universe(source=source, as_of_ns=as_of_ns, contracts=tuple(contracts))


# ---------------------------------------------------------------------------------------------------- inside


def _check_columns(root: Path, about: layout.Table, source: str, wanted: Sequence[int]) -> list[str]:
    """Return the columns of a query, whose files must be ours and agree in them."""
    paths = [
        path
        for hour in wanted
        if not find.has_logs(root, about.name, source, hour)
        for path in _sealed_parts(root, about.name, source, hour)
    ]
    columns = [sealed.index(path).columns for path in paths]
    for path, of_file in zip(paths, columns, strict=True):
        if of_file != columns[0]:
            raise SchemaMismatch(
                f"{about.name} must have the same columns in every hour of a query, found others in {path} "
                f"than in {paths[0]}: rebuild the older hours ({about.made_by})"
            )
    if columns and about.others is None and set(columns[0]) != set(about.columns):
        was, now = set(columns[0]), set(about.columns)
        changes = [f"{word} {', '.join(sorted(names))}" for word, names in (("has", was - now), ("lacks", now - was))]
        raise SchemaMismatch(
            f"{about.name} must have the columns of this version, found others in {paths[0]}, which "
            f"{' and '.join(change for change in changes if not change.endswith(' '))}: remove the older files, or "
            f"make them again ({about.made_by})"
        )
    return list(columns[0]) if columns else list(about.columns)
