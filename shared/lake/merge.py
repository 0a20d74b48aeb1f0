"""One raw hour: what is sealed and what logs hold become one, each push once.

Readers and sealing both merge here: what a reader sees does not change when the hour is sealed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from shared.errors import TableCorrupt
from shared.lake import find, layout, removal, sealed, spill, wal_reading
from shared.lake.layout import DEPTH, TABLES
from shared.types import LATE_NS_MAX, NS, TickEvent

_BOOK_IDENTITY = ["symbol", "exch_ns", "seq", "bid_price_1", "bid_size_1", "ask_price_1", "ask_size_1"]
_TICKER_IDENTITY = [
    name for name in TABLES["raw/ticker"].columns if name not in ("recv_ns", "conn", "event")
]  # it has no number: what says the same at the same exchange time is one push
_LAG_NS_MAX = 5 * NS
"""Two connections bring one push at most this far apart."""

_LISTING_RETRIES = 5  # of an hour that is sealed while it is read; a seal takes seconds, so one is enough


class HourRows(msgspec.Struct, frozen=True, kw_only=True):
    """One raw hour, its sealed rows and logs merged."""

    frame: pl.DataFrame
    duplicates: int  # rows that were there twice
    torn_bytes: int  # of dead logs, behind their last whole batch


def raw_hour(root: Path, table: str, source: str, hour: int, logs: Sequence[wal_reading.Log] | None = None) -> HourRows:
    """Return one raw hour as a whole; see `raw_parts`, which needs less memory."""
    for left in reversed(range(_LISTING_RETRIES)):
        try:
            parts = list(raw_parts(root, table, source, hour, logs))
            break
        except sealed.Replaced:
            if not left:
                raise
    return HourRows(
        frame=pl.concat(part.frame for part in parts),
        duplicates=sum(part.duplicates for part in parts),
        torn_bytes=sum(part.torn_bytes for part in parts),
    )


def raw_parts(
    root: Path,
    table: str,
    source: str,
    hour: int,
    logs: Sequence[wal_reading.Log] | None = None,
    *,
    symbols: Sequence[str] | None = None,
) -> Iterator[HourRows]:
    """Return one raw hour, symbols after symbols: what is sealed, and the rows of these logs (None: of all there are).

    The order is (symbol, recv_ns, conn, row of the frame). DATA rows that differ in nothing but their connection are
    one row; so are DATA rows of `trade` with the same id, and, while two connections carry a symbol (recorders that
    relieve one another, or two on purpose), books of the same `seq` and exchange time and tickers that say the same:
    the first receipt counts. Where one of these comes behind a newer one that only the other connection has brought, it
    becomes REPEATED, as a recorder that hears both does with it (`TickBuffer`). Rows of links are one where they are
    equal. Changes of full books are a connection's own: they are one only where they are the same receipt. The result
    does not depend on which of its parts were sealed before.

    Args:
        symbols: None: all of them.

    Raises:
        TableEmpty: the hour has neither logs nor a file.
        TableCorrupt: something of it cannot be read.
    """
    wanted = None if symbols is None else frozenset(symbols)
    readers = _open_logs(root, table, source, hour, logs)
    path = find.sealed_file(root, table, source, hour)
    if path is not None and (table, hour) in removal.marked(root, source):
        path = None
    if path is None and not readers:
        raise find.empty(root, table, source, f"the hour {layout.hour_name(hour)}")
    with spill.folder(root) as folder:
        origins: list[spill.Origin] = [] if path is None else [spill.SealedOrigin(path, wanted)]
        of_logs = [spill.LogOrigin(reader, folder, wanted) for reader in readers]
        origins += of_logs
        torn_bytes = sum(origin.torn_bytes for origin in of_logs)
        for first, last in spill.ranges(table, origins) or [("", "")]:
            frames = [origin.take(first, last) for origin in origins]
            frame = _merged(table, frames) if readers else pl.concat(frames)
            duplicates = sum(part.height for part in frames) - frame.height
            yield HourRows(frame=frame, duplicates=duplicates, torn_bytes=torn_bytes)
            torn_bytes = 0


def _open_logs(
    root: Path, table: str, source: str, hour: int, logs: Sequence[wal_reading.Log] | None
) -> list[wal_reading.LogReader]:
    for _ in range(_LISTING_RETRIES):
        try:
            found = wal_reading.find_logs(root, source, hour) if logs is None else logs
            if table == DEPTH:  # a log that is being removed was sealed: the file has its rows
                found = [log for log in found if wal_reading.has_table(log, table)]
            return [wal_reading.LogReader(log, table) for log in found]
        except FileNotFoundError:
            continue  # a log was sealed while we looked: look again
    raise TableCorrupt(f"the logs of {layout.hour_name(hour)} must stay while they are opened, found them removed")


def _merged(table: str, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return _merge_depth(frames) if table == DEPTH else _merge(table, pl.concat(frames))


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
        pushes = pl.col("event").is_in([int(TickEvent.DATA), int(TickEvent.REPEATED)])
        suspects = _carried_twice(rows).filter(pushes)
        if suspects.height:
            identity = _BOOK_IDENTITY if table == "raw/book" else _TICKER_IDENTITY
            firsts = suspects.unique(identity, keep="first", maintain_order=True)
            if firsts.height < suspects.height:
                repeats = suspects.join(firsts.select("_row"), on="_row", how="anti")
                rows = rows.join(repeats.select("_row"), on="_row", how="anti", maintain_order="left")
            late = _overtaken(table, firsts)
            if len(late):
                repeated = pl.lit(int(TickEvent.REPEATED), TABLES[table].columns["event"])
                rows = rows.with_columns(event=pl.when(pl.col("_row").is_in(late)).then(repeated).otherwise("event"))
    return rows.drop("_row")


def _overtaken(table: str, rows: pl.DataFrame) -> list[int]:
    """Return the `_row` of those that came behind a newer push of their symbol."""
    number = pl.col("seq") if table == "raw/book" else pl.lit(0)
    told = rows.select("symbol", "_row", exch_ns="exch_ns", number=number)
    is_same = pl.col("symbol") == pl.col("symbol").shift()
    is_older = (pl.col("exch_ns") < pl.col("exch_ns").shift()) | (
        (pl.col("exch_ns") == pl.col("exch_ns").shift()) & (pl.col("number") < pl.col("number").shift())
    )
    suspects = told.filter(is_same & is_older)["symbol"].unique()
    late: list[int] = []
    symbol, newest = "", (0, 0)
    for of, row, exch_ns, seq in told.filter(pl.col("symbol").is_in(suspects.implode())).iter_rows():
        push = exch_ns, seq
        if of != symbol:
            symbol, newest = of, push
        elif push < newest and newest[0] - exch_ns <= LATE_NS_MAX:
            late.append(row)
        else:
            newest = push
    return late


def _merge_depth(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return the rows of all parts; a receipt that several parts hold is one, what one part holds twice stays twice.

    Each connection has a chain of its own, of which no link may go: what two connections bring is never one.
    """
    identity = list(TABLES[DEPTH].columns)
    rows = pl.concat(parts, rechunk=False).with_columns(
        _part=pl.Series(np.repeat(np.arange(len(parts)), [part.height for part in parts]))
    )
    rows = rows.with_row_index("_row").sort(["symbol", "recv_ns", "conn", "_row"], maintain_order=True)
    is_held_twice = pl.col("_part").n_unique().over("symbol", "recv_ns", "conn") > 1
    twins = rows.filter(is_held_twice)
    if twins.height:
        nth = twins.with_columns(_nth=pl.int_range(pl.len()).over("_part", *identity))
        kept = nth.unique([*identity, "_nth"], keep="first", maintain_order=True)
        rows = pl.concat([rows.filter(~is_held_twice), kept.drop("_nth")])
        rows = rows.sort(["symbol", "recv_ns", "conn", "_row"], maintain_order=True)
    return rows.drop("_row", "_part")


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
