"""Read the lake: sealed hours and, for raw tables, the open one.

`scan` is for queries (polars), `read_ticks` and `read_seconds` give arrays on a symbol axis. Every file is compared
with the content hash in its footer before it is used, once a process: a corrupt one is named (`TableCorrupt`), nothing
where something was asked for says what to run (`TableEmpty`). Parquet's own compression does not notice a flipped bit
in most pages, and a model learns from a wrong number as gladly as from a right one; the price is reading a file twice.

A raw hour that still has logs is merged in memory, by the very function that seals it: what a reader sees does not
change when the hour is sealed. Logs are read before the sealed file, so that a seal in between hides nothing.

An hour that is being removed (`shared.lake.removal`) is not there; one that is removed while it is read is a
`TableEmpty` that says so, never a part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

import msgspec
import numpy as np
import polars as pl

from shared.errors import SchemaMismatch, TableCorrupt, TableEmpty
from shared.features.sampler import COLUMNS
from shared.lake import layout, removal, wal
from shared.lake.layout import RAW, TABLES, Footer
from shared.lake.remote import remote_of
from shared.types import (
    NS,
    SCHEMA_VERSION,
    BookTicks,
    Contract,
    Floats,
    Seconds,
    TickerTicks,
    TickEvent,
    Ticks,
    TradeTicks,
    Universe,
)

# What polars raises over damaged bytes: one flipped bit in 200 makes its Parquet reader panic.
_UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)

_BOOK_IDENTITY = ["symbol", "exch_ns", "seq", "bid_price_1", "bid_size_1", "ask_price_1", "ask_size_1"]
_TICKER_IDENTITY = [
    name for name in TABLES["raw/ticker"].columns if name not in ("recv_ns", "conn", "event")
]  # it has no number: what says the same at the same exchange time is one push
_LAG_NS_MAX = 5 * NS
"""Two connections bring one push at most this far apart."""

_LISTING_RETRIES = 5  # of an hour that is sealed while it is read; a seal takes seconds, so one is enough


# ------------------------------------------------------------------------------------------- what is there


def sources(root: Path) -> list[str]:
    """Return every source that has rows in any table, sorted."""
    remote = remote_of(root)
    if remote is None:
        found = {
            path.name for table in TABLES for path in (root / table).glob("source=*") if any(path.glob("date=*/hour=*"))
        }
    else:
        found = {name for table in TABLES for name in remote.folders(table) if name.startswith("source=")}
    found |= {path.name for path in (root / ".wal").glob("source=*") if layout.hours_below(path)}
    return sorted(name.removeprefix("source=") for name in found)


def hours(root: Path, table: str, source: str) -> list[int]:
    """Return the epoch hours that have rows, sorted; for raw tables also those that are not sealed."""
    layout.check_name(source, "source")
    gone = removal.marked(root, source)
    sealed = {hour for hour in _sealed_hours(root, table, source) if (table, hour) not in gone}
    logged = layout.hours_below(root / ".wal" / f"source={source}") if table in RAW else []
    return sorted(sealed | {hour for hour in logged if _has_logs(root, table, source, hour)})


def _sealed_hours(root: Path, table: str, source: str) -> set[int]:
    remote = remote_of(root)
    if remote is None:
        found = layout.hours_below(root / table / f"source={source}")
        return {hour for hour in found if _local_parts(root, table, source, hour)}
    keys = [PurePosixPath(key) for key in remote.listing(f"{table}/source={source}")]
    return set(layout.hours_of((key.parents[1].name, key.parent.name) for key in keys if key.suffix == ".parquet"))


def symbols_of(root: Path, table: str, source: str, *, start_s: int, end_s: int) -> tuple[str, ...]:
    """Return the symbols that have rows in [start_s, end_s), sorted."""
    found = scan(root, table, source, start_s=start_s, end_s=end_s, is_sorted=False).select("symbol").unique()
    return tuple(sorted(collect(found)["symbol"].to_list()))


def footer(path: Path) -> Footer:
    """Return what a file says about itself.

    Raises:
        TableCorrupt: it cannot be read, or is none of ours.
        SchemaMismatch: it was written by another version of the schemas.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise _removed(path) from None
    return _footer(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _footer(path: Path, mtime_ns: int, size: int) -> Footer:
    try:
        found = msgspec.json.decode(pl.read_parquet_metadata(path)[layout.FOOTER_KEY], type=Footer)
        rows = pl.scan_parquet(path, glob=False, hive_partitioning=False).select(pl.len()).collect().item()
    except (*_UNREADABLE, KeyError, msgspec.MsgspecError) as error:
        raise _corrupt(path, error) from error
    if found.schema_version != SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{path} must have schema version {SCHEMA_VERSION}, found {found.schema_version}: "
            "rebuild it, or read it with the code that wrote it"
        )
    if rows != found.rows:
        raise TableCorrupt(f"{path} must hold {found.rows} rows by its footer, found {rows}: {_remedy(found.table)}")
    return found


def content_hash(root: Path, table: str, source: str, hours: Iterable[int]) -> str:
    """Return one hash over the sealed rows of these hours: what a model was trained on, what a backtest saw.

    Raises:
        TableEmpty: one of the hours is not sealed.
    """
    hashes = []
    for hour in sorted(hours):
        parts = _parts(root, table, source, hour)
        if not parts:
            raise _empty(root, table, source, f"the hour {layout.hour_name(hour)}")
        hashes += [f"{hour} {footer(path).content_hash}" for path in parts]
    return layout.combine(hashes)


def verify(path: Path) -> Footer:
    """Read every value of a file and compare it with the content hash in its footer.

    Raises:
        TableCorrupt: a bit is not what was written.
    """
    found = footer(path)
    try:
        names = list(pl.read_parquet_schema(path))
        actual = layout.digest(
            pl.read_parquet(path, columns=[name], glob=False, hive_partitioning=False)[name] for name in names
        )
    except _UNREADABLE as error:
        raise _corrupt(path, error) from error
    _check_content(path, found, actual)
    return found


def rows_of(path: Path) -> pl.DataFrame:
    """Return all rows of one file, verified.

    Raises:
        TableCorrupt: a bit is not what was written.
    """
    found = footer(path)
    try:
        frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
    except _UNREADABLE as error:
        raise _corrupt(path, error) from error
    _check_content(path, found, layout.digest(frame))
    return frame


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
        raise _empty(root, table, source, f"hours from {bounds[0] or 'the first'} to {bounds[1] or 'the last'}")
    sealed: list[Path] = []
    frames: list[pl.LazyFrame] = []
    for hour in wanted:
        if _has_logs(root, table, source, hour):
            frames.append(raw_hour(root, table, source, hour).frame.lazy())
        else:
            parts = _parts(root, table, source, hour)
            if not parts:
                raise _removed(layout.partition_path(root, table, source, hour))
            sealed += parts
    if sealed:
        gone = removal.marked(root, source)  # asked last: until here, whatever was found was all of its hour
        for hour in wanted if gone else ():
            if (table, hour) in gone:
                raise _removed(layout.partition_path(root, table, source, hour))
        _check_columns(about, sealed)
        frames.append(pl.scan_parquet(sealed, glob=False, hive_partitioning=False))
    rows = frames[0] if len(frames) == 1 else pl.concat(frames)
    at = pl.col(about.time)
    if start_s is not None:
        rows = rows.filter(at >= -(-start_s * NS // about.unit_ns))
    if end_s is not None:
        rows = rows.filter(at < -(-end_s * NS // about.unit_ns))
    if symbols is not None:
        rows = rows.filter(pl.col("symbol").is_in(list(symbols)))
    if is_sorted:
        rows = rows.sort([about.time, *(key for key in about.key if key != about.time)], maintain_order=True)
    return rows


def collect(rows: pl.LazyFrame) -> pl.DataFrame:
    """Run a query over the lake; a file that breaks under it becomes a `TableCorrupt`.

    Raises:
        TableCorrupt: polars could not read a page that the footer promises; `verify` finds the file.
    """
    try:
        return rows.collect()
    except FileNotFoundError as error:
        raise TableEmpty(
            f"every file of a query must stay while it is read, found one removed ({_first_line(error)}): ask again"
        ) from error
    except (pl.exceptions.ComputeError, pl.exceptions.PanicException, OSError) as error:
        raise TableCorrupt(
            f"every file of a query must be readable, found {_first_line(error)}: "
            "shared.lake.read.verify(path) tells which file it is"
        ) from error


class HourRows(msgspec.Struct, frozen=True, kw_only=True):
    """One raw hour, its sealed rows and logs merged."""

    frame: pl.DataFrame
    duplicates: int  # rows that were there twice
    torn_bytes: int  # of dead logs, behind their last whole batch


def raw_hour(root: Path, table: str, source: str, hour: int, logs: Sequence[wal.Log] | None = None) -> HourRows:
    """Return one raw hour: what is sealed, and the rows of these logs (None: of all that there are).

    The order is (symbol, recv_ns, conn, row of the frame). DATA rows that differ in nothing but their connection are
    one row; so are DATA rows of `trade` with the same id, and, while two connections carry a symbol (recorders that
    relieve one another, or two on purpose), books of the same `seq` and exchange time and tickers that say the same:
    the first receipt counts. Rows of links are one where they are equal. The result does not depend on which of its
    parts were sealed before.
    """
    for _ in range(_LISTING_RETRIES):
        try:
            found = wal.find_logs(root, source, hour) if logs is None else logs
            read = [wal.read_log(log, table) for log in found]
        except FileNotFoundError:
            continue  # a log was sealed while we read: look again
        break
    else:
        raise TableCorrupt(f"the logs of {layout.hour_name(hour)} must stay while they are read, found them removed")
    frames = [frame for frame, _ in read]
    path = sealed_file(root, table, source, hour)
    if path is not None and (table, hour) not in removal.marked(root, source):
        frames.insert(0, rows_of(path))
    if not frames:
        raise _empty(root, table, source, f"the hour {layout.hour_name(hour)}")
    rows = pl.concat(frames)
    frame = _merge(table, rows) if read else rows
    return HourRows(frame=frame, duplicates=rows.height - frame.height, torn_bytes=sum(torn for _, torn in read))


def _merge(table: str, rows: pl.DataFrame) -> pl.DataFrame:
    rows = rows.with_row_index("_row").sort(["symbol", "recv_ns", "conn", "_row"], maintain_order=True)
    is_data = pl.col("event") == int(TickEvent.DATA)
    # Only rows of the same symbol and instant can be the same row; compare those alone, in all columns.
    is_twin = pl.col("symbol").eq(pl.col("symbol").shift()) & pl.col("recv_ns").eq(pl.col("recv_ns").shift())
    is_twin = is_twin.fill_null(value=False)
    twins = rows.filter(is_twin | is_twin.shift(-1, fill_value=False))
    if twins.height:
        identity = [name for name in TABLES[table].columns if name != "conn"]
        kept = twins.with_columns(_conn=pl.when(is_data).then(0).otherwise("conn")).unique(
            [*identity, "_conn"], keep="first", maintain_order=True
        )
        dropped = twins.filter(~pl.col("_row").is_in(kept["_row"].implode()))["_row"]
        rows = rows.filter(~pl.col("_row").is_in(dropped.implode()))
    if table == "raw/trade":
        data = rows.filter(is_data)
        firsts = data.unique(["symbol", "trade_id"], keep="first", maintain_order=True)
        if firsts.height < data.height:
            rows = rows.filter(~is_data | pl.col("_row").is_in(firsts["_row"].implode()))
    else:
        suspects = _carried_twice(rows).filter(is_data)
        if suspects.height:
            identity = _BOOK_IDENTITY if table == "raw/book" else _TICKER_IDENTITY
            firsts = suspects.unique(identity, keep="first", maintain_order=True)
            if firsts.height < suspects.height:
                repeats = suspects.join(firsts.select("_row"), on="_row", how="anti")
                rows = rows.join(repeats.select("_row"), on="_row", how="anti", maintain_order="left")
    return rows.drop("_row")


def _carried_twice(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of each symbol that were received while two of its connections lived, in their order.

    A connection lives from its first row to its last, those of its links included: these stay, whatever is removed.
    """
    lives = rows.group_by("symbol", "conn").agg(begin=pl.col("recv_ns").min(), end=pl.col("recv_ns").max())
    if lives.height == lives["symbol"].n_unique():
        return rows.clear()
    pairs = lives.join(lives, on="symbol", suffix="_other").filter(pl.col("conn") < pl.col("conn_other"))
    shared = (
        pairs.select(
            "symbol",
            begin=pl.max_horizontal("begin", "begin_other"),
            end=pl.min_horizontal("end", "end_other"),
        )
        # Those that only follow one another stay whole: after a time without any, the same state again is news.
        .filter(pl.col("begin") <= pl.col("end"))
        .group_by("symbol")
        .agg(pl.col("begin").min() - _LAG_NS_MAX, pl.col("end").max() + _LAG_NS_MAX)
    )
    found = rows.join(shared, on="symbol", how="inner", maintain_order="left")
    return found.filter(pl.col("recv_ns").is_between("begin", "end")).drop("begin", "end")


# --------------------------------------------------------------------------------------------------- arrays


def read_ticks(root: Path, source: str, start_ns: int, end_ns: int, symbols: Sequence[str]) -> Ticks:
    """Return what was received in [start_ns, end_ns), each table in order of receipt, on this symbol axis.

    Hours that are missing contribute nothing; no hour at all is an error.

    Raises:
        TableEmpty: nothing was recorded in any hour of the range.
    """
    tables = []
    for table, wanted in _raw_hours(root, source, start_ns, end_ns).items():
        frames = []
        for hour in wanted:
            if _has_logs(root, table, source, hour):
                rows = raw_hour(root, table, source, hour).frame.lazy()
            else:
                path = sealed_file(root, table, source, hour) or layout.partition_path(root, table, source, hour)
                _verify_once(path)
                rows = pl.scan_parquet(path, glob=False, hive_partitioning=False)
            at = pl.col("recv_ns")
            frames.append(
                collect(rows.filter((at >= start_ns) & (at < end_ns) & pl.col("symbol").is_in(list(symbols))))
            )
        if not frames:
            span = (
                f"{layout.hour_name(start_ns // layout.HOUR_NS)} to {layout.hour_name((end_ns - 1) // layout.HOUR_NS)}"
            )
            raise _empty(root, table, source, f"hours from {span}")
        # Stable: rows of one symbol and instant keep the file's order (the frame's).
        frame = pl.concat(frames).sort("recv_ns", maintain_order=True)
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
    root: Path, source: str, start_s: int, end_s: int, symbols: Sequence[str], columns: Sequence[str] = COLUMNS
) -> Seconds:
    """Return sampled seconds [start_s, end_s) as (T, N) arrays on this symbol axis; rows that are absent are NaN.

    Raises:
        TableEmpty: no hour of the range was sampled.
    """
    frame = scan(root, "seconds", source, start_s=start_s, end_s=end_s, symbols=symbols, is_sorted=False)
    return Seconds(start_s, to_arrays(collect(frame.select("second", "symbol", *columns)), start_s, end_s, symbols))


def to_arrays(frame: pl.DataFrame, start_s: int, end_s: int, symbols: Sequence[str]) -> dict[str, Floats]:
    """Return the other columns of a frame of (second, symbol) rows as (T, N) float64, NaN where there is no row."""
    axis = pl.DataFrame({"symbol": list(symbols), "_n": np.arange(len(symbols), dtype=np.int64)})
    frame = frame.join(axis, on="symbol", how="inner", maintain_order="left")
    cells = (frame["second"].to_numpy() - start_s) * len(symbols) + frame["_n"].to_numpy()
    arrays: dict[str, Floats] = {}
    for name in frame.columns:
        if name in ("second", "symbol", "_n"):
            continue
        array = np.full((end_s - start_s, len(symbols)), np.nan)
        array.reshape(-1)[cells] = frame[name].to_numpy()
        arrays[name] = array
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
        raise _empty(root, "universe", source, f"a snapshot at or before {layout.hour_name(ns // layout.HOUR_NS)}")
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
        raise _empty(root, "universe", source, f"a snapshot before {layout.hour_name(end_ns // layout.HOUR_NS)}")
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


def _universe(source: str, rows: pl.DataFrame) -> Universe:
    contracts = []
    for row in rows.sort("symbol").iter_rows(named=True):
        fields: dict[str, Any] = {}
        for field in msgspec.structs.fields(Contract):
            value = row[field.name]
            is_decimal = field.type is Decimal or field.type == Decimal | None
            fields[field.name] = Decimal(value) if is_decimal and value is not None else value
        contracts.append(Contract(**fields))
    as_of_ns = cast(int, rows["as_of_ns"].max())
    return Universe(source=source, as_of_ns=as_of_ns, contracts=tuple(contracts))


# ---------------------------------------------------------------------------------------------------- inside


def _parts(root: Path, table: str, source: str, hour: int) -> list[Path]:
    """Return the sealed files of one hour, as local files that are up to date."""
    remote = remote_of(root)
    if remote is None:
        return _local_parts(root, table, source, hour)
    folder = layout.partition_path(root, table, source, hour).parent
    listing = remote.listing(folder.relative_to(root).as_posix())
    return [root / key for key, etag in listing.items() if key.endswith(".parquet") and remote.fetch(root / key, etag)]


def _local_parts(root: Path, table: str, source: str, hour: int) -> list[Path]:
    path = layout.partition_path(root, table, source, hour)
    return sorted(path.parent.glob(f"{path.stem}*.parquet"))


def sealed_file(root: Path, table: str, source: str, hour: int) -> Path | None:
    """Return the file of an hour of a table that has one an hour, as a local file that is up to date, or None."""
    path = layout.partition_path(root, table, source, hour)
    remote = remote_of(root)
    is_there = path.exists() if remote is None else remote.fetch(path)
    return path if is_there else None


def _has_logs(root: Path, table: str, source: str, hour: int) -> bool:
    return table in RAW and any(layout.log_folder(root, source, hour).glob("session=*"))


def _verify_once(path: Path) -> None:
    footer(path)  # names a file that is gone
    stat = path.stat()
    _verified(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _verified(path: Path, mtime_ns: int, size: int) -> None:
    verify(path)


def _check_content(path: Path, found: Footer, actual: str) -> None:
    if actual != found.content_hash:
        raise TableCorrupt(f"{path} must have content {found.content_hash}, found {actual}: {_remedy(found.table)}")


def _check_columns(about: layout.Table, paths: list[Path]) -> None:
    """Check that the files of a query hold what was written and agree in their columns."""
    for path in paths:
        _verify_once(path)
    if about.others is None:
        return
    first, last = (list(pl.read_parquet_schema(path)) for path in (paths[0], paths[-1]))
    for path in paths if first != last else ():
        if list(pl.read_parquet_schema(path)) != first:
            raise SchemaMismatch(
                f"{about.name} must have the same columns in every hour of a query, found others in {path} "
                f"than in {paths[0]}: rebuild the older hours ({about.made_by})"
            )


def _empty(root: Path, table: str, source: str, what: str) -> TableEmpty:
    known = sources(root)
    hint = "" if source in known else f" (sources here: {', '.join(known) or 'none'})"
    return TableEmpty(
        f"{table} of {source} in {root} must hold {what}, found nothing{hint}: run {TABLES[table].made_by}"
    )


def _removed(path: Path) -> TableEmpty:
    return TableEmpty(
        f"{path} must stay while it is read, found it removed (python -m pipelines.retention, or a person): "
        "ask again for what is left"
    )


def _corrupt(path: Path, error: BaseException) -> TableEmpty | TableCorrupt:
    if not path.exists():
        return _removed(path)
    table = next((name for name in TABLES if f"/{name}/source=" in path.as_posix()), None)
    return TableCorrupt(f"{path} must be a Parquet file of the lake, found {_first_line(error)}: {_remedy(table)}")


def _remedy(table: str | None) -> str:
    if table is None or table in RAW or table == "universe":
        return "move it out of the lake; its rows are lost unless a copy or a log has them"
    return f"delete it and build it again ({TABLES[table].made_by})"


def _first_line(error: BaseException) -> str:
    words = f"no key {error}" if isinstance(error, KeyError) else str(error)
    return words.strip().splitlines()[0][:200] if words.strip() else type(error).__name__
