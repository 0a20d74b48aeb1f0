"""Write the lake: seal raw hours, write derived tables and universes. Nothing else writes below its tables.

A file is written under `.tmp`, fsynced and renamed: a reader sees the old one or the new one, never half of one. It
carries its footer (`layout.Footer`). Whoever writes an hour of a source holds that hour's lock.

Sealing in steps:

1. read the logs of the hour (a dead one up to its last whole batch, its links then DISCONNECTED) and the file that
   an earlier seal left, merge them symbols after symbols (`merge.raw_parts`: sorted, duplicates removed);
2. check what must hold: every row in its hour, of a known event, of a symbol;
3. write one file a table; when all are whole and durable, give them their names, all before anything is removed;
4. remove the logs that are ended or dead. Those of living writers stay: a later seal merges the rest.

A crash between any two steps leaves either the logs or the files, or both; sealing again gives the same rows.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import filelock
import msgspec
import polars as pl

from shared.errors import LakeError, SchemaMismatch, TableCorrupt
from shared.lake import layout, merge, read, removal, sealed, wal_reading
from shared.lake.layout import DEPTH, HOUR_NS, RAW, RECEIPTS, TABLES
from shared.lake.remote import remote_of
from shared.replaced import sync_folder
from shared.types import TickEvent, Universe

LOCK_S_MAX = 120.0
"""A seal of 40 symbols takes a second; whoever waits this long waits for a process that hangs."""

TICKER_COLUMNS = ("last", "mark", "index", "funding_rate", "open_interest", "quote_volume_24h")
"""Columns of the universe that come from tickers, not from contracts."""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """One file that was written."""

    path: Path
    rows: int
    bytes: int
    content_hash: str


class Added(msgspec.Struct, frozen=True, kw_only=True):
    """What adding rows to one hour did."""

    rows: int  # that were not there, or were completed where they said null
    conflicts: pl.DataFrame  # of the rows given: those whose key is there with other values; what is there stays


_SEALED = ".sealed-"
"""How the folder of a log begins whose rows are all in sealed files; no reader looks there."""


class SealReport(msgspec.Struct, frozen=True, kw_only=True):
    """What sealing one hour did."""

    source: str
    hour: int
    files: dict[str, Written]  # raw table -> file
    sessions: tuple[str, ...]  # whose logs were merged and removed
    dead_sessions: tuple[str, ...]  # of those: whose writer died; their links end at their last flush
    living_sessions: tuple[str, ...]  # merged so far, their logs stay
    torn_bytes: int  # behind the last whole batch of dead logs: received, never flushed, lost
    duplicates: int  # rows that were there twice
    quarantined: int  # payloads that were not understood

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files.values())

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())


def seal(root: Path, source: str, hour: int) -> SealReport:
    """Turn the logs of an hour into one Parquet file a raw table; sealing again changes nothing.

    Raises:
        TableEmpty: the hour has neither logs nor files.
        TableCorrupt: a row is not what it must be; nothing was replaced or removed.
        LakeError: the disk refuses, or another process holds the hour.
    """
    with hour_lock(root, source, hour):
        found = wal_reading.find_logs(root, source, hour)
        logs = [log for log in found if log.state != "alive"]
        tables = _tables(root, source, hour, logs) if logs or not found else []
        with contextlib.ExitStack() as unfinished:
            hours = {table: _seal_table(root, table, source, hour, logs, unfinished) for table in tables}
            files = {table: _publish(root, rows.file) for table, rows in hours.items()}
        quarantined = sum(_seal_aside(root, source, hour, log) for log in logs)
        for log in logs:
            # At once: half a log would stop every reader, and a seal that is killed right here would leave it for ever.
            log.folder.rename(log.folder.with_name(f"{_SEALED}{log.folder.name}"))
        for sealed_log in layout.log_folder(root, source, hour).glob(f"{_SEALED}*"):
            shutil.rmtree(sealed_log)
        _remove_empty_folders(layout.log_folder(root, source, hour), root)
    return SealReport(
        source=source,
        hour=hour,
        files=files,
        sessions=tuple(log.session_id for log in logs),
        dead_sessions=tuple(log.session_id for log in logs if log.state == "dead"),
        living_sessions=tuple(log.session_id for log in found if log.state == "alive"),
        torn_bytes=sum(rows.torn_bytes for rows in hours.values()),
        duplicates=sum(rows.duplicates for rows in hours.values()),
        quarantined=quarantined,
    )


def seal_all(root: Path, source: str) -> list[SealReport]:
    """Seal every hour that has an ended or dead log: at a clean stop, and at a start after whatever happened."""
    return [seal(root, source, hour) for hour in unsealed(root, source)]


def unsealed(root: Path, source: str) -> list[int]:
    """Return the epoch hours that `seal` would change, sorted."""
    layout.check_name(source, "source")
    hours = layout.hours_below(root / ".wal" / f"source={source}")
    return [hour for hour in hours if any(log.state != "alive" for log in wal_reading.find_logs(root, source, hour))]


def write_table(
    root: Path,
    table: str,
    source: str,
    hour: int,
    frame: pl.DataFrame,
    provenance: Mapping[str, Any],
    part: str | None = None,
) -> Written:
    """Write the rows of one hour, in place of what was there; columns may come in any order, rows too.

    Args:
        hour: epoch hour that every row lies in.
        provenance: what the rows were made from, JSON: code, parameters, content hashes of inputs.
        part: names the writer where a table has several an hour (journal: the session, backtests: the run).

    Raises:
        SchemaMismatch: the frame's columns are not the table's.
        LakeError: the disk refuses.
    """
    assert table not in RECEIPTS, f"{table} is written by WriteAheadLog and seal"
    frame = _by_key(table, frame.select(_checked_columns(table, frame)))
    _check_hour(table, frame, hour)
    with hour_lock(root, source, hour):
        return _write(
            root, layout.partition_path(root, table, source, hour, part), table, source, hour, frame, provenance
        )


def write_parts(
    root: Path,
    table: str,
    source: str,
    hour: int,
    parts: Iterable[pl.DataFrame],
    provenance: Mapping[str, Any],
) -> Written:
    """Write the rows of one hour, given symbols after symbols, in place of what was there; memory holds a part.

    Args:
        parts: at least one, in the order of the table's key, which is by symbol; each whole in its symbols.

    Raises:
        SchemaMismatch: the columns are not the table's.
        LakeError: the disk refuses.
    """
    assert TABLES[table].key[0] == "symbol", f"{table} is not ordered by symbol"
    path = layout.partition_path(root, table, source, hour)
    with hour_lock(root, source, hour), contextlib.ExitStack() as unfinished:
        checked = _in_order(table, parts, hour)
        return _publish(root, _prepare(root, path, table, source, hour, checked, provenance, unfinished))


def _in_order(table: str, parts: Iterable[pl.DataFrame], hour: int) -> Iterator[pl.DataFrame]:
    last = ""
    for given in parts:
        part = _by_key(table, given.select(_checked_columns(table, given)))
        _check_hour(table, part, hour)
        if part.height:
            assert part["symbol"][0] > last, f"{table}: {part['symbol'][0]} came behind {last}"
            last = part["symbol"][-1]
        yield part


def _by_key(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows in the order of the table's key, which no two may share where it is one."""
    about = TABLES[table]
    if _increases(frame, about.key):  # as most that is written does: a quarter of the time of sorting it again
        return frame
    frame = frame.sort(about.key, maintain_order=True)
    # Sorted by it, so equal ones are neighbours: a tenth of the time of hashing every key.
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in about.key).any()
    assert not about.is_keyed or not frame.select(same).item(), f"{table}: {about.key} must be unique, found twice"
    return frame


def _increases(frame: pl.DataFrame, key: Sequence[str]) -> bool:
    """Tell whether every row's key is known and greater than the one before it."""
    is_greater = pl.lit(value=False)
    for name in reversed(key):
        value, before = pl.col(name), pl.col(name).shift()
        is_greater = (value > before) | ((value == before) & is_greater)
    # The first row has none before it, which is null, as is what a null is compared with.
    return frame.select(is_greater.slice(1).all(ignore_nulls=False)).item() is True


def _checked_columns(table: str, frame: pl.DataFrame) -> list[str]:
    about = TABLES[table]
    columns = dict(about.columns)
    extra = {name: about.others for name in frame.columns if name not in columns and about.others is not None}
    expected = columns | extra
    found = dict(frame.schema)
    if found != expected:
        wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise SchemaMismatch(
            f"{table} must have {', '.join(f'{name} {expected.get(name, chr(45))}' for name in wrong[:5])}, "
            f"found {', '.join(f'{name} {found.get(name, chr(45))}' for name in wrong[:5])}: correct what writes it"
        )
    return list(expected)


def add_rows(
    root: Path, table: str, source: str, hour: int, frame: pl.DataFrame, provenance: Mapping[str, Any]
) -> Added:
    """Add rows to one hour of a table that grows; rows that are there already change nothing.

    A null that is there is completed by a value. A value that is there is never replaced: the row is returned as a
    conflict, for a person to look at.

    Raises:
        SchemaMismatch: the frame's columns are not the table's.
        TableCorrupt: what is there cannot be read.
        LakeError: the disk refuses, or another process holds the hour.
    """
    about = TABLES[table]
    assert about.is_grown, f"{table} is rewritten, not added to"
    if dict(frame.schema) != dict(about.columns):
        raise SchemaMismatch(f"{table} must have {dict(about.columns)}, found {dict(frame.schema)}: correct what adds")
    _check_hour(table, frame, hour)
    key = list(about.key)
    assert not frame.select(key).is_duplicated().any(), f"{table}: {key} must be unique among what is added"
    path = layout.partition_path(root, table, source, hour)
    with hour_lock(root, source, hour):
        is_there = read.sealed_file(root, table, source, hour) is not None
        old = read.rows_of(path) if is_there else frame.clear()
        values = [name for name in about.columns if name not in key]
        both = frame.join(old, on=key, how="inner", suffix="_old", maintain_order="left")
        differs = pl.any_horizontal(
            pl.col(name).ne_missing(pl.col(f"{name}_old"))
            & pl.col(name).is_not_null()
            & pl.col(f"{name}_old").is_not_null()
            for name in values
        )
        completes = pl.any_horizontal(pl.col(name).is_not_null() & pl.col(f"{name}_old").is_null() for name in values)
        conflicts = frame.join(both.filter(differs), on=key, how="semi", maintain_order="left")
        completed = both.filter(completes & ~differs).select(
            *key, *(pl.coalesce(f"{name}_old", name).alias(name) for name in values)
        )
        new = frame.join(old, on=key, how="anti", maintain_order="left")
        added = new.height + completed.height
        if not added:
            return Added(rows=0, conflicts=conflicts)
        kept = old.join(completed, on=key, how="anti", maintain_order="left")
        rows = pl.concat(part.select(list(about.columns)) for part in (kept, completed, new)).sort(key)
        _write(root, path, table, source, hour, rows, provenance)
    return Added(rows=added, conflicts=conflicts)


def write_universe(root: Path, universe: Universe, tickers: pl.DataFrame | None = None) -> Written:
    """Add a snapshot to the dated universe table; the same snapshot again changes nothing.

    Args:
        tickers: symbol and the ticker columns of the table at that time; None: they are not known.
    """
    about = TABLES["universe"]
    rows = []
    for contract in universe.contracts:
        row: dict[str, Any] = {"as_of_ns": universe.as_of_ns}
        for name, value in msgspec.structs.asdict(contract).items():
            row[name] = f"{value:f}" if isinstance(value, Decimal) else value
        rows.append(row)
    contract_columns = {name: dtype for name, dtype in about.columns.items() if name not in TICKER_COLUMNS}
    frame = pl.DataFrame(rows, schema=contract_columns)
    if tickers is None:
        tickers = pl.DataFrame(schema={"symbol": pl.String} | dict.fromkeys(TICKER_COLUMNS, pl.Float64))
    frame = frame.join(tickers.select("symbol", *TICKER_COLUMNS), on="symbol", how="left", maintain_order="left")
    frame = frame.select(list(about.columns))
    hour = universe.as_of_ns // HOUR_NS
    path = layout.partition_path(root, "universe", universe.source, hour)
    with hour_lock(root, universe.source, hour):
        if read.sealed_file(root, "universe", universe.source, hour) is not None:
            older = read.rows_of(path)
            frame = pl.concat([older.filter(pl.col("as_of_ns") != universe.as_of_ns), frame])
        frame = frame.sort(about.key)
        return _write(root, path, "universe", universe.source, hour, frame, {"snapshots": frame["as_of_ns"].n_unique()})


@contextlib.contextmanager
def hour_lock(root: Path, source: str, hour: int) -> Iterator[None]:
    """Hold one hour of a source against other writers; a removal of it that was begun is finished first."""
    # One file an hour of the day, not of the calendar: locks are never removed, and their number is bounded.
    path = root / ".lock" / f"{layout.check_name(source, 'source')}-{hour % 24:02}.lock"
    with _disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, timeout=LOCK_S_MAX)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise LakeError(
                f"{layout.hour_name(hour)} of {source} must be free to write within {LOCK_S_MAX:.0f} s, "
                f"found {path} held by another process: let it finish or end it"
            ) from None
    try:
        removal.finish(root, source, hour)
        yield
    finally:
        lock.release()


# ---------------------------------------------------------------------------------------------------- inside


def _tables(root: Path, source: str, hour: int, logs: list[wal_reading.Log]) -> list[str]:
    """Return the raw tables of an hour: full books only where somebody has recorded them."""
    has_depth = any(wal_reading.has_table(log, DEPTH) for log in logs)
    if not logs:
        has_depth = read.sealed_file(root, DEPTH, source, hour) is not None
    return [*RAW, DEPTH] if has_depth else [*RAW]


class _Unpublished(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is written and durable, and that nobody sees."""

    unfinished: Path | None  # None: it is there already, with just this content
    path: Path
    table: str
    footer: layout.Footer


class _Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """One table of an hour that is being sealed."""

    file: _Unpublished
    torn_bytes: int
    duplicates: int


def _seal_table(
    root: Path, table: str, source: str, hour: int, logs: list[wal_reading.Log], unfinished: contextlib.ExitStack
) -> _Sealed:
    """Merge and check a table of an hour, symbols after symbols, into a file that nobody sees."""
    path = layout.partition_path(root, table, source, hour)
    sessions = {log.session_id for log in logs}
    if read.sealed_file(root, table, source, hour) is not None:
        before = read.footer(path)
        if not logs:
            is_there = _Unpublished(unfinished=None, path=path, table=table, footer=before)
            return _Sealed(file=is_there, torn_bytes=0, duplicates=0)
        sessions |= set(before.provenance.get("sessions", ()))
    torn_bytes = duplicates = 0

    def parts() -> Iterator[pl.DataFrame]:
        nonlocal torn_bytes, duplicates
        for part in merge.raw_parts(root, table, source, hour, logs):
            _check_raw(table, part.frame, source, hour)
            torn_bytes += part.torn_bytes
            duplicates += part.duplicates
            yield part.frame

    file = _prepare(root, path, table, source, hour, parts(), {"sessions": sorted(sessions)}, unfinished)
    return _Sealed(file=file, torn_bytes=torn_bytes, duplicates=duplicates)


def _seal_aside(root: Path, source: str, hour: int, log: wal_reading.Log) -> int:
    """Write what a session did not understand as a file of its own, and return how much that is."""
    aside = wal_reading.read_aside(log)
    if aside:
        columns = TABLES["quarantine"].columns
        rows = [(row[0], log.session_id, *row[1:]) for row in aside]
        frame = pl.DataFrame(rows, schema=dict(columns), orient="row").sort("recv_ns", maintain_order=True)
        path = layout.partition_path(root, "quarantine", source, hour, log.session_id)
        _write(root, path, "quarantine", source, hour, frame, {"session": log.session_id})
    return sum(row[-1] for row in aside)


def _check_raw(table: str, frame: pl.DataFrame, source: str, hour: int) -> None:
    where = f"{table} of {source} at {layout.hour_name(hour)}"
    outside = frame.filter(pl.col("recv_ns") // HOUR_NS != hour).height
    unknown = frame.filter(~pl.col("event").is_in([int(event) for event in TickEvent])).height
    nameless = frame["symbol"].null_count()
    if outside or unknown or nameless:
        raise TableCorrupt(
            f"{where} must hold rows of that hour, of known events and symbols, found {outside} of other hours, "
            f"{unknown} of unknown events, {nameless} without symbol: keep its logs and look at what wrote them"
        )


def _check_hour(table: str, frame: pl.DataFrame, hour: int) -> None:
    about = TABLES[table]
    per_hour = HOUR_NS // about.unit_ns
    outside = frame.filter(pl.col(about.time) // per_hour != hour).height
    assert not outside, f"{table}: {outside} of {frame.height} rows are not in {layout.hour_name(hour)}"


def _write(
    root: Path, path: Path, table: str, source: str, hour: int, frame: pl.DataFrame, provenance: Mapping[str, Any]
) -> Written:
    """Write, fsync, rename; the caller holds the hour."""
    with contextlib.ExitStack() as unfinished:
        return _publish(root, _prepare(root, path, table, source, hour, [frame], provenance, unfinished))


def _prepare(
    root: Path,
    path: Path,
    table: str,
    source: str,
    hour: int,
    parts: Iterable[pl.DataFrame],
    provenance: Mapping[str, Any],
    unfinished: contextlib.ExitStack,
) -> _Unpublished:
    """Write and fsync a file under another name, which `unfinished` removes if it is still there at its end."""
    # The hour's lock makes the name ours.
    at = root / ".tmp" / f"{table.replace('/', '-')}-{source}-{hour}-{path.name}"
    writer: sealed.Writer | None = None
    with _disk(path), contextlib.ExitStack() as files:
        at.parent.mkdir(parents=True, exist_ok=True)
        unfinished.callback(at.unlink, missing_ok=True)
        for part in parts:
            if writer is None:
                writer = files.enter_context(sealed.Writer(at, table, part.schema))
            writer.append(part)
        assert writer is not None, f"{table}: no part, not even an empty one"
        footer = writer.finish(source, hour, provenance)
        with at.open("rb") as file:
            os.fsync(file.fileno())
    return _Unpublished(unfinished=at, path=path, table=table, footer=footer)


def _publish(root: Path, made: _Unpublished) -> Written:
    """Give a file its name: readers see it from here on."""
    path, about = made.path, TABLES[made.table]
    with _disk(path):
        if made.unfinished is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            remote = remote_of(root)
            if remote is None:
                made.unfinished.rename(path)
            else:
                is_merged = about.name in RECEIPTS or about.name == "universe" or about.is_grown
                remote.publish(made.unfinished, path, is_merged=is_merged)
            sync_folder(path.parent)
        size = path.stat().st_size
    return Written(path=path, rows=made.footer.rows, bytes=size, content_hash=made.footer.content_hash)


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn what the disk says into one sentence."""
    try:
        yield
    except (OSError, pl.exceptions.ComputeError) as error:
        raise LakeError(
            f"{path} cannot be written: {error}; what was there before is untouched: "
            "make room or restore the permission, then run it again"
        ) from error


def _remove_empty_folders(folder: Path, root: Path) -> None:
    """Remove a folder and those above it, up to the lake's, as far as they are empty."""
    while folder != root:
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return  # not empty: another session or hour lies there
        folder = folder.parent
