"""Tables of the lake: columns, keys, paths, footers and digests; whoever adds a table or a column does it here.

    <root>/<table>/source=<source>/date=YYYY-MM-DD/hour=HH/<leaf>[-<part>].parquet     sealed, UTC
    <root>/.wal/source=<source>/date=YYYY-MM-DD/hour=HH/session=<id>/<leaf>.arrow      what is not sealed yet
    <root>/.wal/source=<source>/date=YYYY-MM-DD/hour=HH/session=<id>/quarantine.jsonl  what was not understood
    <root>/.tmp/…                                                                      files that are being written
    <root>/.removing/source=<source>/date=YYYY-MM-DD/hour=HH/<table>+<table>…          what is being removed

The trees stand beside each other on one file system: a glob over a table never meets a half file, and a
rename from `.tmp` is atomic. Symbol is a column, never a partition (800 symbols x 8,760 hours are 7 M partitions).

Every file says in its footer, under the key `crosscut`, what it is: schema version, table, source, hour, rows,
time range, content hash and provenance. A column that is added, removed or changes its meaning raises
`shared.types.SCHEMA_VERSION`; not so of a table that can be made again and that nothing else stands on (decisions,
backtests): there `read.scan` refuses older files by name, and raw hours of months stay readable.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from shared import labels
from shared.errors import SettingsError
from shared.features.sampler import COLUMNS
from shared.types import BOOK_LEVELS, NS, BookTicks, DepthTicks, TickerTicks, TradeTicks

HOUR_S = 3600
HOUR_NS = HOUR_S * NS
MINUTE_S = 60

FOOTER_KEY = "crosscut"

Schema = Mapping[str, pl.DataType | type[pl.DataType]]


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """What one table holds."""

    name: str
    columns: Schema
    others: pl.DataType | type[pl.DataType] | None = None  # type of columns beyond `columns`; None: there are none
    key: tuple[str, ...]  # rows are sorted by it; unique where `is_keyed`
    is_keyed: bool = True
    time: str  # the column that says when
    unit_ns: int  # of `time`
    made_by: str  # what a person runs to fill it
    group_rows: int = 100_000  # that are read together (see `shared.lake.sealed`)
    is_grown: bool = False  # an hour's rows come at several times (`write.add_rows`); a row never changes its values

    @property
    def leaf(self) -> str:
        return self.name.rsplit("/", 1)[-1]


class Footer(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says about itself."""

    schema_version: int
    table: str
    source: str
    hour: int  # epoch hour
    rows: int
    first: int | None  # least value of the table's time column; None: no rows
    last: int | None
    content_hash: str
    provenance: dict[str, Any]


# ------------------------------------------------------------------------------------------------ raw tables

Rows = BookTicks | TradeTicks | TickerTicks | DepthTicks

RAW: dict[str, type[Rows]] = {
    "raw/book": BookTicks,
    "raw/trade": TradeTicks,
    "raw/ticker": TickerTicks,
}
"""Raw table -> the batch of receipts it stores, column by column; `symbol` becomes a string. An hour has all three."""

DEPTH = "raw/depth"

RECEIPTS: dict[str, type[Rows]] = RAW | {DEPTH: DepthTicks}
"""What comes through the log: the raw tables, and what exists only where full books are recorded (`BOOKS`)."""

CHANNELS = tuple(name.removeprefix("raw/") for name in RAW)

_INTS: dict[str, type[pl.DataType]] = {
    "symbol": pl.String,
    "recv_ns": pl.Int64,
    "exch_ns": pl.Int64,
    "event": pl.UInt8,
    "conn": pl.Int32,
    "seq": pl.Int64,
    "trade_id": pl.Int64,
    "pseq": pl.Int64,
    "is_snapshot": pl.Boolean,
    "side": pl.Int8,
    "next_funding_ms": pl.Int64,
}


def levels(field: str) -> list[str]:
    """Return the columns that store one (R, BOOK_LEVELS) array of a book, best level first."""
    return [f"{field}_{k}" for k in range(1, BOOK_LEVELS + 1)]


def is_matrix(table: str, field: str) -> bool:
    """Tell whether a field of a raw batch is an (R, BOOK_LEVELS) array."""
    return table == "raw/book" and field.startswith(("bid_", "ask_"))


def _raw(name: str) -> Table:
    columns: dict[str, type[pl.DataType]] = {}
    for field in RECEIPTS[name].__struct_fields__:
        for column in levels(field) if is_matrix(name, field) else [field]:
            columns[column] = _INTS.get(field, pl.Float64)
    return Table(
        name=name,
        columns=columns,
        key=("symbol", "recv_ns", "conn"),
        is_keyed=False,  # a frame holds several trades
        time="recv_ns",
        unit_ns=1,
        made_by="python -m pipelines.collect with BOOKS naming symbols whose channel is books"
        if name == DEPTH
        else "python -m pipelines.generate (generated or recorded) or python -m pipelines.collect",
    )


# -------------------------------------------------------------------------------------------------- all tables

_PER_SECOND: dict[str, type[pl.DataType]] = {"second": pl.Int64, "symbol": pl.String}
_DAGSTER = "the hour's assets in the Dagster UI (make ui), after python -m pipelines.generate"
_TRAIN = f"python -m pipelines.train, or {_DAGSTER}"  # train builds what is missing on its way
_HISTORY = "python -m pipelines.history"

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        *(_raw(name) for name in RECEIPTS),
        # One snapshot of everything that is listed per `as_of_ns`. Decimals are stored as the exchange's own
        # digits (String): a tick of 0.1 must not become 0.1000000000000000055.
        Table(
            name="universe",
            columns={
                "as_of_ns": pl.Int64,
                "symbol": pl.String,
                "base": pl.String,
                "quote": pl.String,
                "status": pl.String,
                "tick": pl.String,
                "size_step": pl.String,
                "size_min": pl.String,
                "notional_min_usdt": pl.String,
                "size_max_limit": pl.String,
                "size_max_market": pl.String,
                "price_band_buy": pl.String,
                "price_band_sell": pl.String,
                "maker_fee": pl.String,
                "taker_fee": pl.String,
                "leverage_min": pl.Int64,
                "leverage_max": pl.Int64,
                "funding_interval_h": pl.Int64,
                "is_rwa": pl.Boolean,
                "launch_ms": pl.Int64,
                "off_ms": pl.Int64,
                "last": pl.Float64,  # from here on: the ticker at that time; null where none was asked for
                "mark": pl.Float64,
                "index": pl.Float64,
                "funding_rate": pl.Float64,
                "open_interest": pl.Float64,
                "quote_volume_24h": pl.Float64,
            },
            key=("as_of_ns", "symbol"),
            time="as_of_ns",
            unit_ns=1,
            made_by="python -m pipelines.generate or python -m pipelines.collect",
        ),
        # What Bitget tells over REST alone. Prices and volumes as it says them; no row is made up for a quiet minute.
        Table(
            name="candles",
            columns={
                "minute": pl.Int64,  # epoch minute of [minute, minute + 1); the running one is never stored
                "symbol": pl.String,
                "open": pl.Float64,
                "high": pl.Float64,
                "low": pl.Float64,
                "close": pl.Float64,
                "base_volume": pl.Float64,
                "quote_volume": pl.Float64,
            },
            key=("symbol", "minute"),
            time="minute",
            unit_ns=MINUTE_S * NS,
            made_by=_HISTORY,
            is_grown=True,
        ),
        Table(
            name="funding",
            columns={
                "settled_ms": pl.Int64,
                "symbol": pl.String,
                "rate": pl.Float64,  # [1] of notional; longs paid shorts where it is > 0
                "interval_h": pl.Float64,  # since the settlement before; null where none is known
            },
            key=("symbol", "settled_ms"),
            time="settled_ms",
            unit_ns=1_000_000,
            made_by=_HISTORY,
            is_grown=True,
        ),
        Table(
            name="open_interest",
            columns={
                "as_of_ms": pl.Int64,  # the exchange's clock
                "symbol": pl.String,
                "open_interest": pl.Float64,  # base coin
                "mark": pl.Float64,  # at that time, so that their product is in USDT
            },
            key=("symbol", "as_of_ms"),
            time="as_of_ms",
            unit_ns=1_000_000,
            made_by=_HISTORY + ": Bitget keeps no history of it, so it begins when this begins",
            is_grown=True,
        ),
        # Bitget's answer about one symbol at one time: its tiers are those of its latest `as_of_ns`, all of them.
        Table(
            name="universe_tiers",
            columns={
                "as_of_ns": pl.Int64,
                "symbol": pl.String,
                "level": pl.Int64,  # from 1
                "start_usdt": pl.String,  # notional of the position; digits as in `universe`
                "end_usdt": pl.String,
                "leverage_max": pl.Int64,
                "maintenance_rate": pl.String,  # [1] of notional
            },
            key=("as_of_ns", "symbol", "level"),
            time="as_of_ns",
            unit_ns=1,
            made_by="python -m pipelines.collect",
            is_grown=True,
        ),
        Table(
            name="quarantine",
            columns={
                "recv_ns": pl.Int64,
                "session": pl.String,
                "where": pl.String,  # of what arrived: "books15 push", "public frame", …
                "what": pl.String,  # was not understood about it: "unknown field …", or why it cannot be read
                "raw": pl.String,  # as it came; "" where only counted
                "count": pl.Int64,  # 1; of what was too much to keep, how many
            },
            key=("recv_ns", "session"),
            is_keyed=False,
            time="recv_ns",
            unit_ns=1,
            made_by="python -m pipelines.collect: it is empty while Bitget sends what this version knows",
        ),
        Table(
            name="seconds",
            columns=_PER_SECOND | dict.fromkeys(COLUMNS, pl.Float64),
            key=("symbol", "second"),
            time="second",
            unit_ns=NS,
            group_rows=8 * HOUR_S,
            made_by=_TRAIN,
        ),
        Table(
            name="features",
            columns=_PER_SECOND,
            others=pl.Float32(),  # one column a feature, in the order of FeatureGraph.names
            key=("symbol", "second"),
            time="second",
            unit_ns=NS,
            group_rows=8 * HOUR_S,
            made_by=_TRAIN,
        ),
        Table(
            name="labels",
            columns=labels.SCHEMA,
            key=("symbol", "second"),
            time="second",
            unit_ns=NS,
            group_rows=8 * HOUR_S,
            made_by=_TRAIN,
        ),
        Table(
            name="coverage",
            columns={
                "minute": pl.Int64,
                "symbol": pl.String,
                "channel": pl.String,  # book, trade, ticker; depth where full books were recorded
                "state": pl.String,  # complete, stale, gap, not_listed
                "reason": pl.String,  # of a stale or gap: see shared.lake.coverage
            },
            key=("symbol", "channel", "minute"),
            time="minute",  # epoch minute
            unit_ns=MINUTE_S * NS,
            made_by=_DAGSTER,
        ),
        Table(
            name="journal",
            columns={
                "session": pl.String,
                "sequence": pl.Int64,  # what was told and wanted, in order, from 0
                "recv_ns": pl.Int64,
                "kind": pl.String,  # event: the engine was told; action: the engine wanted
                "name": pl.String,  # of the event or action; of a note its own, like decision.made
                "symbol": pl.String,  # "" where it concerns none
                "payload": pl.String,  # JSON
            },
            key=("session", "sequence"),
            time="recv_ns",
            unit_ns=1,
            made_by="python -m live.run, then python -m pipelines.sessions",
        ),
        Table(
            name="decisions",
            columns={
                "run": pl.String,  # of a backtest, or the session
                "second": pl.Int64,
                "symbol": pl.String,
                "gate": pl.String,  # first that said no (shared.strategy.ranking.Gate), "chosen" where none did
                "direction": pl.Int8,  # of the score: +1 long, -1 short, 0 no opinion
                "confidence": pl.Float32,  # [1]; NaN without a score
                "edge_bps": pl.Float32,  # expected move in the score's direction; NaN without a score
                "cost_bps": pl.Float32,  # of a round trip then; NaN without a book
                "net_bps": pl.Float32,  # edge less cost
            },
            key=("run", "symbol", "second"),
            time="second",
            unit_ns=NS,
            made_by="python -m pipelines.backtest; of live sessions: python -m pipelines.why",
        ),
        Table(
            name="backtests",
            columns={
                "run": pl.String,
                "trade": pl.Int64,  # number within the run, from 0
                "symbol": pl.String,
                "side": pl.Int8,  # +1 long, -1 short
                "entry_ns": pl.Int64,
                "exit_ns": pl.Int64,
                "entry_price": pl.Float64,
                "exit_price": pl.Float64,
                "size": pl.Float64,  # base coin
                "notional_usdt": pl.Float64,  # at entry
                "gross_usdt": pl.Float64,  # from fills, before everything below
                "fee_usdt": pl.Float64,  # both sides, >= 0 is a cost
                "funding_usdt": pl.Float64,  # > 0 received
                "entry_spread_usdt": pl.Float64,  # part of gross: the half spread on the way in
                "exit_spread_usdt": pl.Float64,  # part of gross: the half spread on the way out
                "slippage_usdt": pl.Float64,  # part of gross: beyond the touch
                "net_usdt": pl.Float64,  # gross - fees + funding
                "net_bps": pl.Float64,  # of size x mid at the entry's decision
                "cause": pl.String,  # why it was closed
            },
            key=("run", "trade"),
            time="exit_ns",
            unit_ns=1,
            made_by="python -m pipelines.backtest",
        ),
    )
}


# --------------------------------------------------------------------------------------------------- paths

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


def check_name(name: str, what: str) -> str:
    """Return a source, session or part that can be a folder name, or refuse it."""
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"a {what} must consist of letters, digits, '_', '.' and '-' and start with one of the first two, "
            f"found {name!r}: rename it"
        )
    return name


def hour_folder(source: str, hour: int) -> str:
    """Return the folders of an hour: source=…/date=…/hour=…, in every tree of the lake."""
    at = dt.datetime.fromtimestamp(hour * HOUR_S, dt.UTC)
    return f"source={check_name(source, 'source')}/date={at:%Y-%m-%d}/hour={at:%H}"


def partition_path(root: Path, table: str, source: str, hour: int, part: str | None = None) -> Path:
    """Return where the rows of one hour lie.

    Args:
        hour: epoch hour.
        part: who wrote it, for tables with several writers an hour (journal: a session, backtests: a run).
    """
    leaf = TABLES[table].leaf + (f"-{check_name(part, 'part')}" if part else "")
    return root / table / hour_folder(source, hour) / f"{leaf}.parquet"


def log_folder(root: Path, source: str, hour: int) -> Path:
    """Return where the write-ahead logs of one hour lie, one folder a session."""
    return root / ".wal" / hour_folder(source, hour)


def paths_below(folder: Path, pattern: str) -> list[Path]:
    """Return what matches a glob below a folder, sorted; where folders go while we look, we look again.

    `Path.glob` raises when a folder that it is about to enter has been removed: by retention, or by a seal.
    """
    while True:
        try:
            return sorted(folder.glob(pattern))
        except FileNotFoundError:
            continue  # each time because one more folder has gone


def hours_below(folder: Path) -> list[int]:
    """Return the epoch hours that have a folder below `…/source=…`, sorted."""
    return hours_of((path.parent.name, path.name) for path in paths_below(folder, "date=*/hour=*"))


def hours_of(folders: Iterable[tuple[str, str]]) -> list[int]:
    """Return the epoch hours that pairs of folder names (date=…, hour=…) mean, sorted."""
    found = set()
    for date, hour in folders:
        try:
            at = dt.datetime.strptime(f"{date} {hour}", "date=%Y-%m-%d hour=%H").replace(tzinfo=dt.UTC)
        except ValueError:
            continue  # not ours: people put things into folders
        found.add(int(at.timestamp()) // HOUR_S)
    return sorted(found)


def hour_name(hour: int) -> str:
    """Return an epoch hour as a person writes it."""
    return f"{dt.datetime.fromtimestamp(hour * HOUR_S, dt.UTC):%Y-%m-%d %H}:00Z"


def hours_between(start: int, end: int, unit_ns: int) -> range:
    """Return the epoch hours that [start, end) touches, in units of `unit_ns`."""
    return range(start * unit_ns // HOUR_NS, -(-end * unit_ns // HOUR_NS))


# ---------------------------------------------------------------------------------------------------- rows


def conn_name(session: str, conn: int) -> int:
    """Return what a connection is called in the lake: 31 bits of a hash over session and number.

    Every session numbers its connections from 0. Stored under that number, the end of one session's
    connection 0 would end another's. (Chance of two among 100 open connections to share a name: 2e-6.)
    """
    return int.from_bytes(hashlib.blake2b(f"{session}/{conn}".encode(), digest_size=4).digest(), "big") & 0x7FFFFFFF


_BLOCK_ROWS = 2048


def rows_to_frame(table: str, rows: Rows, symbols: Sequence[str]) -> pl.DataFrame:
    """Return one raw batch as the lake stores it."""
    columns: dict[str, pl.Series] = {}
    for field in rows.__struct_fields__:
        values = getattr(rows, field)
        if field == "symbol":
            columns[field] = pl.Series(field, symbols, dtype=pl.String).gather(values.astype(np.uint32))
        elif is_matrix(table, field):
            for column, of_level in zip(levels(field), _by_level(values), strict=True):
                columns[column] = pl.Series(column, of_level)
        else:
            columns[field] = pl.Series(field, values)
    return pl.DataFrame(columns, schema=dict(TABLES[table].columns))


def _by_level(values: Any) -> Any:
    """Return (R, L) as a contiguous (L, R); in blocks that fit into the cache it takes a quarter of the time."""
    turned = np.empty(values.shape[::-1])
    for begin in range(0, len(values), _BLOCK_ROWS):
        turned[:, begin : begin + _BLOCK_ROWS] = values[begin : begin + _BLOCK_ROWS].T
    return turned


def frame_to_rows(table: str, frame: pl.DataFrame, symbols: Sequence[str]) -> Rows:
    """Return raw rows of the lake, in the order given, on a symbol axis; rows of other symbols are left out."""
    positions = frame["symbol"].cast(pl.Enum(list(symbols)), strict=False).to_physical().cast(pl.Int32)
    if positions.null_count():
        is_on_axis = positions.is_not_null()
        frame, positions = frame.filter(is_on_axis), positions.drop_nulls()
    fields: dict[str, Any] = {}
    for field in RECEIPTS[table].__struct_fields__:
        if field == "symbol":
            fields[field] = positions.to_numpy(writable=True)
        elif is_matrix(table, field):
            # Level by level in memory: written by rows, an hour of books costs a cache line a value.
            matrix = np.empty((frame.height, BOOK_LEVELS), order="F")
            for k, column in enumerate(levels(field)):
                matrix[:, k] = frame[column].to_numpy()
            fields[field] = matrix
        else:
            fields[field] = frame[field].to_numpy(writable=True)
    return RECEIPTS[table](**fields)


class Digest:
    """A hash of names, types and every bit of the values, in row order, that is fed by pieces of rows.

    It depends on neither the polars version, nor compression, nor how the rows are cut. Every column has a state of its
    own, so that pieces of rows and single columns both do: an hour of 800 symbols' books does not fit in memory.
    """

    def __init__(self, schema: Mapping[str, pl.DataType]) -> None:
        self._columns = {name: _ColumnDigest(f"{name}\0{dtype}") for name, dtype in schema.items()}

    def update(self, rows: pl.DataFrame) -> None:
        """Add rows behind those before, in some columns or in all."""
        for series in rows:
            self._columns[series.name].update(series)

    def hexdigest(self) -> str:
        """Return the hash so far: 32 digits."""
        rows = {column.rows for column in self._columns.values()}
        assert len(rows) <= 1, f"columns were given {sorted(rows)} rows"
        whole: str = _sha("\n".join(column.hexdigest() for column in self._columns.values()).encode()).hexdigest()
        return whole[:32]


class _ColumnDigest:
    """Values, lengths (of words) and places of nulls are hashed apart: each is a stream whatever the pieces."""

    def __init__(self, name: str) -> None:
        self.name, self.rows = name, 0
        self._values, self._lengths, self._nulls = _sha(), _sha(), _sha()

    def update(self, series: pl.Series) -> None:
        if series.null_count():
            self._nulls.update((np.flatnonzero(series.is_null().to_numpy()) + self.rows).astype("<i8").tobytes())
        if series.dtype in (pl.String, pl.Binary):
            words: Any = series.fill_null("" if series.dtype == pl.String else b"").rechunk()
            words = words.to_arrow(compat_level=pl.CompatLevel.oldest())
            if len(words):
                _, ends, letters = words.buffers()
                ends = np.frombuffer(ends, "<i8")[words.offset : words.offset + len(words) + 1]
                self._lengths.update(np.ascontiguousarray(np.diff(ends)))
                if letters is not None:
                    self._values.update(memoryview(letters)[int(ends[0]) : int(ends[-1])])
        else:
            filled = series.fill_null(False if series.dtype == pl.Boolean else 0) if series.null_count() else series
            values = filled.to_physical().to_numpy()
            values = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
            self._values.update(values.view(np.uint8))  # hashlib takes the bytes in place
        self.rows += series.len()

    def hexdigest(self) -> str:
        parts = [self.name, str(self.rows), *(s.hexdigest() for s in (self._values, self._lengths, self._nulls))]
        return "\0".join(parts)


def _sha(content: bytes = b"") -> Any:
    """SHA-256: most processors have instructions for it, 1.8 GB/s against 0.8 of BLAKE2b."""
    return hashlib.sha256(content)


def digest(rows: pl.DataFrame) -> str:
    """Return a hash of names, types and every bit of the values, in row order."""
    state = Digest(rows.schema)
    state.update(rows)
    return state.hexdigest()


def combine(hashes: Iterable[str]) -> str:
    """Return one hash for a sequence of content hashes."""
    return hashlib.blake2b("\n".join(hashes).encode(), digest_size=16).hexdigest()
