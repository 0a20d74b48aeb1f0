"""The write-ahead log: what was received and is not sealed yet, one folder an hour and session.

A log is three Arrow IPC *streams* (book, trade, ticker), and a fourth (depth) where full books are recorded. A stream
needs no footer, so whatever was flushed can be read, whenever the writer dies. Each batch carries, as metadata, the CRC
of its buffers and the receipt up to which its table is complete (`until_ns`). Rows hold positions on an axis of symbols
that only ever grows at its end: a stream begins with the names known so far, and a batch without rows carries those
that came later, ahead of their rows.

    ended     a file `ended` lies beside the streams: the hour was over, or the session was closed (links written as
              DISCONNECTED); every byte must be readable
    alive     the writer holds a lock (flock) on `book.arrow`, which the kernel drops when it dies, however it dies;
              what follows the last whole batch is still being written
    dead      neither: what follows the last whole batch is lost, and every link counts as DISCONNECTED one ns after
              `until_ns`, because nobody was listening from there

An hour stands alone (see `shared.features.sampler`): at its first instant every link that is up writes a CARRIED
row with the last state of its symbol since that symbol's links were last all down, NaN where this very connection has
pushed nothing: its silence does not mean "unchanged". Full books are carried whole, each connection's own. The new
hour is on disk before the old one is ended, and a folder appears under its name only when it is locked and whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from shared.errors import LakeError, SchemaMismatch, TableCorrupt
from shared.lake import layout
from shared.lake.chains import FullBooks
from shared.lake.layout import DEPTH, HOUR_NS, RAW, RECEIPTS, Rows
from shared.types import BOOK_LEVELS, SCHEMA_VERSION, DepthTicks, TickEvent, Ticks, Universe

_OPENS = (TickEvent.SUBSCRIBED, TickEvent.CARRIED)
# The others that are no push end a link: after a GAP too, silence means nothing until the next SUBSCRIBED.
_LINK_FIELDS = ("symbol", "recv_ns", "event", "conn")

_ENDED = "ended"
ASIDE = "quarantine.jsonl"

Aside = tuple[int, str, str, str, int]
"""(recv_ns, where, what, raw, count), as in the table `quarantine`."""

_ARROW: dict[pl.DataType | type[pl.DataType], Any] = {
    pl.String: pa.int32(),  # symbols are positions in the log, their names are in the stream's metadata
    pl.Int64: pa.int64(),
    pl.Int32: pa.int32(),
    pl.UInt8: pa.uint8(),
    pl.Int8: pa.int8(),
    pl.Boolean: pa.uint8(),  # Arrow packs bits, numpy does not
    pl.Float64: pa.float64(),
}


_PACKED = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=1), use_threads=False)
"""A log at Bitget's full cadence is 3.7 GB an hour instead of 16, for 0.01 of a core: 68 bytes a row and 1.1 us against
302 and 0.3; lz4 164 and 0.7. (benchmarks.lake)"""


# ------------------------------------------------------------------------------------------------- writing


class WriteAheadLog:
    """Append receipts of one session; the hour in which a row was received decides where it goes.

    Args:
        root: the lake's folder (local).
        session_id: unique among the logs that are not sealed; part of the name of every connection.
        universe: its symbols are the axis that the ticks refer to, until it grows.
        from_ns: rows received earlier only tell which links are up and what was last seen; the first hour begins
            with them CARRIED at this time. Whoever connects a little early covers [from_ns, …) without a seam.
        owned_ns: [start, end) by the exchange's clock; other pushes of book, trade and ticker only tell what was last
            seen. Recorders that relieve one another overlap, and each push reaches them at different times: what
            both see in it is the exchange's. So each push is recorded by one of them, and none by neither. (A full
            book is a chain of changes, a connection's own: it is recorded as it comes.) None: everything.
        has_depth: full books are recorded, too: the ticks bring `depth`.

    Raises:
        LakeError: the log cannot be written (disk full, permission lost): stop, what was flushed is safe.
    """

    def __init__(
        self,
        root: Path,
        source: str,
        session_id: str,
        universe: Universe,
        *,
        from_ns: int = 0,
        owned_ns: tuple[int, int] | None = None,
        has_depth: bool = False,
    ) -> None:
        self.root, self.source = root, layout.check_name(source, "source")
        self.session_id = layout.check_name(session_id, "session")
        self.symbols = universe.symbols
        self.from_ns, self.owned_ns = from_ns, owned_ns
        self.tables = tuple(RECEIPTS if has_depth else RAW)
        self.rows = dict.fromkeys(self.tables, 0)  # appended by the caller
        self.hours: list[int] = []  # that were written to
        self.until_ns = 0  # everything received up to here was appended
        self._streams: dict[str, _Stream] = {}
        self._hour: int | None = None  # None: nothing was received yet, or closed
        self._conns: dict[int, int] = {}  # the session's number -> name in the lake
        self._links = {table: _links(table, len(self.symbols)) for table in self.tables}
        self._broken_by: OSError | None = None
        self._aside: list[Aside] = []  # not written yet

    def set_aside(self, rows: Sequence[Aside]) -> None:
        """Keep what was not understood beside the rows; durable after the next `flush`.

        It lies in the hour that is open when it is flushed, or in that of its receipt where this one is later.
        """
        self._aside += rows

    def grow(self, symbols: tuple[str, ...]) -> None:
        """Let the axis be these symbols, which begin with those of before; the rows of new ones may follow."""
        added = symbols[len(self.symbols) :]
        assert symbols[: len(self.symbols)] == self.symbols, "the axis grows at its end: rows hold positions on it"
        assert len(set(symbols)) == len(symbols), "a symbol has one position"
        if not added:
            return
        with self._writing():
            for stream in self._streams.values():
                stream.grow(added)
        self.symbols = symbols
        for links in self._links.values():
            links.grow(len(symbols))

    def append(self, ticks: Ticks) -> None:
        """Write rows in order of receipt; they are durable after the next `flush`."""
        self._check()
        tables: dict[str, Rows] = {"raw/book": ticks.books, "raw/trade": ticks.trades, "raw/ticker": ticks.tickers}
        if ticks.depth is not None:
            assert DEPTH in self.tables, "a log takes full books where it was told so"
            tables[DEPTH] = ticks.depth
        received = [rows.recv_ns for rows in tables.values() if len(rows.recv_ns)]
        if not received:
            return
        first_ns, last_ns = min(int(r[0]) for r in received), max(int(r[-1]) for r in received)
        assert self._hour is None or first_ns >= self._hour * HOUR_NS, f"{first_ns} is before open hour {self._hour}"
        tables = {table: self._name_conns(rows) for table, rows in tables.items()}
        if first_ns < self.from_ns:
            assert self._hour is None, f"receipt {first_ns} came after the session's first hour was begun"
            tables = {table: self._only_note(table, rows) for table, rows in tables.items()}
        if last_ns < self.from_ns:
            return
        if self._hour is None:
            self._open(max(first_ns, self.from_ns) // HOUR_NS)
        assert self._hour is not None
        while True:
            end_ns = (self._hour + 1) * HOUR_NS
            until_ns = min(last_ns, end_ns - 1)
            for table, rows in tables.items():
                n = int(np.searchsorted(rows.recv_ns, end_ns))
                self.rows[table] += self._write(table, _slice(rows, 0, n), until_ns)
                tables[table] = _slice(rows, n, len(rows.recv_ns))
            self.until_ns = max(self.until_ns, until_ns)
            if last_ns < end_ns:
                return
            self._rotate()

    def flush(self, until_ns: int | None = None) -> None:
        """Make durable what was appended.

        Args:
            until_ns: everything received up to here was appended, also where that was nothing; None: up to the
                last row. Hours that are over by then are ended.
        """
        until_ns = max(self.until_ns, until_ns or 0)
        if self._hour is None:
            if until_ns < self.from_ns or not any(links.up() for links in self._links.values()):
                return
            self._open(max(until_ns, self.from_ns) // HOUR_NS)  # connected early, and nothing has come since
        assert self._hour is not None
        while until_ns >= (self._hour + 1) * HOUR_NS:
            self._rotate()
        self.until_ns = until_ns
        with self._writing():
            for stream in self._streams.values():
                if stream.until_ns < until_ns:
                    stream.mark(until_ns)
                stream.sync()
            if self._aside:
                self._write_aside()

    def close(self, now_ns: int | None = None) -> None:
        """End the session cleanly: every link becomes DISCONNECTED, now or one ns after the last receipt.

        Closed on the stroke of an hour, the links end one ns before it: an hour is not begun to say that it is empty.
        """
        now_ns = max(self.until_ns + 1, now_ns or 0)
        self.flush(now_ns - 1)
        if self._hour is None:
            return
        at_ns = min(now_ns, (self._hour + 1) * HOUR_NS - 1)
        for table, links in self._links.items():
            self._write(table, link_rows(table, links.up(), TickEvent.DISCONNECTED, at_ns), at_ns)
        self.until_ns = at_ns
        self._end(hour=self._hour, streams=self._streams)
        self._streams, self._hour = {}, None

    def abandon(self) -> None:
        """Let go of the log as a killed process does: nothing more is written, what was flushed can be sealed."""
        for stream in self._streams.values():
            stream.file.raw.close()  # not `file.close()`, which would write what is buffered
        self._streams, self._hour = {}, None

    def _write_aside(self) -> None:
        assert self._hour is not None
        begin_ns, end_ns = self._hour * HOUR_NS, (self._hour + 1) * HOUR_NS - 1
        rows, self._aside = self._aside, []
        with (self._folder(self._hour) / ASIDE).open("ab") as file:
            for recv_ns, where, what, raw, count in rows:
                at_ns = min(max(recv_ns, begin_ns), end_ns)
                file.write(msgspec.json.encode((at_ns, where, what, raw, count)) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _write(self, table: str, rows: Rows, until_ns: int) -> int:
        """Write what is ours of these rows, take note of them all, and return how many were written."""
        if not len(rows.recv_ns):
            return 0
        ours = rows
        if self.owned_ns is not None and table in RAW:
            begin_ns, end_ns = self.owned_ns
            is_ours = (rows.event >= TickEvent.SUBSCRIBED) | ((rows.exch_ns >= begin_ns) & (rows.exch_ns < end_ns))
            if not is_ours.all():
                ours = type(rows)(**{field: getattr(rows, field)[is_ours] for field in rows.__struct_fields__})
        if len(ours.recv_ns):
            with self._writing():
                self._streams[table].write(ours, until_ns)
        self._links[table].note(rows)
        return len(ours.recv_ns)

    def _only_note(self, table: str, rows: Rows) -> Rows:
        """Take note of the rows before `from_ns`, return the others."""
        n = int(np.searchsorted(rows.recv_ns, self.from_ns))
        self._links[table].note(_slice(rows, 0, n))
        return _slice(rows, n, len(rows.recv_ns))

    def _name_conns(self, rows: Rows) -> Rows:
        named = np.empty_like(rows.conn)
        for conn in np.unique(rows.conn).tolist():
            name = self._conns.setdefault(conn, layout.conn_name(self.session_id, conn))
            named[rows.conn == conn] = name
        return msgspec.structs.replace(rows, conn=named)

    def _open(self, hour: int) -> None:
        """Begin an hour; what is up is carried into it before anyone can see its folder."""
        folder = self._folder(hour)
        with self._writing():
            is_taken = folder.exists()
        if is_taken:
            raise LakeError(
                f"session {self.session_id} must be new, found its log for {layout.hour_name(hour)}: "
                "wait for the process that writes it, or seal the hour if that is gone"
            )
        unborn = folder.with_name(f".{folder.name}")
        with self._writing():
            if unborn.exists():  # its process died right here, before anything in it counted as flushed
                shutil.rmtree(unborn)
            unborn.mkdir(parents=True)
            streams = {table: _Stream(unborn / f"{_leaf(table)}.arrow", table, self.symbols) for table in self.tables}
            at_ns = max(hour * HOUR_NS, self.from_ns)
            for table, stream in streams.items():
                stream.write(self._links[table].carried(at_ns), at_ns)
                stream.sync()
            unborn.rename(folder)
            sync_folder(folder.parent)
        self._streams, self._hour = streams, hour
        self.hours.append(hour)

    def _rotate(self) -> None:
        assert self._hour is not None
        hour, streams = self._hour, self._streams
        self.until_ns = (hour + 1) * HOUR_NS - 1
        self._open(hour + 1)
        self._end(hour, streams)

    def _folder(self, hour: int) -> Path:
        return layout.log_folder(self.root, self.source, hour) / f"session={self.session_id}"

    def _end(self, hour: int, streams: dict[str, _Stream]) -> None:
        with self._writing():
            for stream in streams.values():
                stream.sync()
            (self._folder(hour) / _ENDED).touch()
            sync_folder(self._folder(hour))
            for stream in streams.values():
                stream.file.close()  # and so its lock

    def _check(self) -> None:
        if self._broken_by is not None:
            raise LakeError(f"the log of session {self.session_id} was given up after {self._broken_by}: restart")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what the disk says into one sentence; after it nothing is appended behind a torn batch."""
        self._check()
        try:
            yield
        except OSError as error:
            self._broken_by = error
            self.abandon()
            raise LakeError(
                f"the log of session {self.session_id} below {self.root} cannot be written: {error}; "
                "what was flushed is safe: make room or restore the permission, then restart"
            ) from error


class _Links:
    """What is up in one table, the last push of each symbol since its links were last all down, and who has pushed."""

    def __init__(self, table: str, n_symbols: int) -> None:
        self.table = table
        self._conns: dict[int, set[int]] = {}  # symbol -> connections that are up
        self._has_pushed: set[tuple[int, int]] = set()  # (symbol, connection), since the link came up
        self._states = link_rows(table, [(n, 0) for n in range(n_symbols)], TickEvent.CARRIED, 0)

    def grow(self, n_symbols: int) -> None:
        more = [(n, 0) for n in range(len(self._states.symbol), n_symbols)]
        self._states = join(self.table, [self._states, link_rows(self.table, more, TickEvent.CARRIED, 0)])

    def up(self) -> list[tuple[int, int]]:
        """Return (symbol, connection) of every open link, sorted."""
        return sorted((symbol, conn) for symbol, conns in self._conns.items() for conn in conns)

    def note(self, rows: Rows) -> None:
        cuts = np.full(len(self._states.symbol), -1)  # row at which the last link of a symbol went
        went: dict[tuple[int, int], int] = {}  # link -> row at which it went
        for row in np.flatnonzero(rows.event >= TickEvent.SUBSCRIBED).tolist():
            symbol, conn = int(rows.symbol[row]), int(rows.conn[row])
            if rows.event[row] in _OPENS:
                self._conns.setdefault(symbol, set()).add(conn)
            else:
                conns = self._conns.get(symbol, set())
                conns.discard(conn)
                went[symbol, conn] = row
                if not conns:
                    cuts[symbol] = row
        if self.table in ("raw/trade", DEPTH):
            return  # a trade is no state, and that of a full book is not one row (`_DepthLinks`)
        cut = np.flatnonzero(cuts >= 0)
        if len(cut):
            self._put(cut, link_rows(self.table, [(n, 0) for n in cut.tolist()], TickEvent.CARRIED, 0), slice(None))
        pushes = np.flatnonzero(rows.event == TickEvent.DATA)
        symbols, back = np.unique(rows.symbol[pushes][::-1], return_index=True)
        last = pushes[len(pushes) - 1 - back]
        is_since = last > cuts[symbols]
        self._put(symbols[is_since], rows, last[is_since])
        self._has_pushed.difference_update(went)
        links, back = np.unique(
            (rows.symbol[pushes].astype(np.int64) << 32 | rows.conn[pushes])[::-1], return_index=True
        )
        for link, row in zip(links.tolist(), pushes[len(pushes) - 1 - back].tolist(), strict=True):
            pair = divmod(link, 1 << 32)
            if row > went.get(pair, -1):
                self._has_pushed.add(pair)

    def carried(self, at_ns: int) -> Rows:
        """Return one CARRIED row for each open link; it holds no state where the link has pushed none."""
        links = self.up()
        rows = link_rows(self.table, links, TickEvent.CARRIED, at_ns)
        spoke = np.array([link in self._has_pushed for link in links], np.bool_)
        for field in rows.__struct_fields__:
            if field not in _LINK_FIELDS:
                getattr(rows, field)[spoke] = getattr(self._states, field)[rows.symbol[spoke]]
        return rows

    def _put(self, symbols: NDArray[Any], rows: Rows, which: Any) -> None:
        for field in rows.__struct_fields__:
            if field not in _LINK_FIELDS:
                getattr(self._states, field)[symbols] = getattr(rows, field)[which]


class _DepthLinks(_Links):
    """The links of full books, which are carried whole."""

    def __init__(self, n_symbols: int) -> None:
        super().__init__(DEPTH, n_symbols)
        self._books = FullBooks()

    def note(self, rows: Rows) -> None:
        assert isinstance(rows, DepthTicks), type(rows)
        super().note(rows)
        self._books.take(rows)

    def carried(self, at_ns: int) -> Rows:
        return self._books.carried(at_ns)


def _links(table: str, n_symbols: int) -> _Links:
    return _DepthLinks(n_symbols) if table == DEPTH else _Links(table, n_symbols)


class _Stream:
    """One table of a log."""

    def __init__(self, path: Path, table: str, symbols: tuple[str, ...]) -> None:
        self.file = io.BufferedWriter(path.open("xb", buffering=0), 1 << 20)
        fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        names = msgspec.json.encode(symbols)
        about = {"schema_version": str(SCHEMA_VERSION), "symbols": names, "crc": str(zlib.crc32(names))}
        self._schema = log_schema(table)
        self._writer = pa.ipc.new_stream(self.file, self._schema.with_metadata(about), options=_PACKED)
        self._table = table
        self.until_ns = 0

    def write(self, rows: Rows, until_ns: int) -> None:
        batch = pa.record_batch([_arrow(getattr(rows, name)) for name in rows.__struct_fields__], schema=self._schema)
        self._writer.write_batch(batch, custom_metadata=_about(batch, until_ns))
        self.until_ns = until_ns

    def mark(self, until_ns: int, names: bytes = b"") -> None:
        """Say how far the table is complete, without rows."""
        nothing = pa.RecordBatch.from_pylist([], schema=self._schema)
        self._writer.write_batch(nothing, custom_metadata=_about(nothing, until_ns, names))
        self.until_ns = until_ns

    def grow(self, symbols: tuple[str, ...]) -> None:
        """Say which symbols rows refer to from here on, behind those of before."""
        self.mark(self.until_ns, msgspec.json.encode(symbols))

    def sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())


def _arrow(values: NDArray[Any]) -> Any:
    """Return the values as Arrow sees them in place (`pa.array` would import pandas, where there is one: 0.5 s)."""
    if values.dtype == np.bool_:
        values = values.view(np.uint8)
    flat = np.ascontiguousarray(values).reshape(-1)
    array = pa.Array.from_buffers(pa.from_numpy_dtype(flat.dtype), len(flat), [None, pa.py_buffer(flat)])
    return array if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(array, values.shape[1])


def log_schema(table: str) -> Any:
    """Return the Arrow schema of a log's stream: the fields of the batch, one column each."""
    columns = layout.TABLES[table].columns
    fields = []
    for field in RECEIPTS[table].__struct_fields__:
        if layout.is_matrix(table, field):
            fields.append(pa.field(field, pa.list_(pa.float64(), BOOK_LEVELS)))
        else:
            fields.append(pa.field(field, _ARROW[columns[field]]))
    return pa.schema(fields)


def link_rows(table: str, links: Sequence[tuple[int, int]], event: TickEvent, recv_ns: int) -> Rows:
    """Return rows that tell of links (symbol, connection) and nothing else: NaN prices, 0 sizes."""
    n = len(links)
    given: dict[str, Any] = {
        "symbol": np.array([symbol for symbol, _ in links], np.int32),
        "recv_ns": np.full(n, recv_ns),
        "event": np.full(n, event, np.uint8),
        "conn": np.array([conn for _, conn in links], np.int32),
        "seq": np.full(n, -1),
        "pseq": np.full(n, -1),
        "is_snapshot": np.zeros(n, np.bool_),
        "trade_id": np.full(n, -1),
        "side": np.zeros(n, np.int8),
        "exch_ns": np.zeros(n, np.int64),
        "next_funding_ms": np.zeros(n, np.int64),
    }
    fields: dict[str, Any] = {}
    for field in RECEIPTS[table].__struct_fields__:
        if layout.is_matrix(table, field):
            fields[field] = np.full((n, BOOK_LEVELS), 0.0 if field.endswith("size") else np.nan)
        elif field in given:
            fields[field] = given[field]
        else:
            is_amount = field == "size"  # of a trade or a level; what a ticker did not say is unknown, not 0
            fields[field] = np.full(n, 0.0 if is_amount else np.nan)
    return RECEIPTS[table](**fields)


def sync_folder(folder: Path) -> None:
    """Make durable which names a folder holds."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _leaf(table: str) -> str:
    return layout.TABLES[table].leaf


def _slice(rows: Rows, start: int, end: int) -> Rows:
    if start == 0 and end == len(rows.recv_ns):
        return rows
    return type(rows)(**{field: getattr(rows, field)[start:end] for field in rows.__struct_fields__})


def _about(batch: Any, until_ns: int, names: bytes = b"") -> dict[bytes, bytes]:
    """Return what a batch says about itself; its CRC covers every word of it."""
    about = {b"until_ns": str(until_ns).encode()} | ({b"symbols": names} if names else {})
    crc = zlib.crc32(b"%d " % batch.num_rows)
    for word in about.values():
        crc = zlib.crc32(word, crc)
    for column in batch.columns:
        for buffer in column.buffers():
            if buffer is not None:
                crc = zlib.crc32(buffer, crc)
    return about | {b"crc": str(crc).encode()}


# ------------------------------------------------------------------------------------------------- reading


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """The log of one session and hour, as it was found."""

    folder: Path
    session_id: str
    state: str  # "ended", "alive" or "dead"


def find_logs(root: Path, source: str, hour: int) -> list[Log]:
    """Return the logs of one hour by session. One that was found ended or dead does not change any more."""
    logs = []
    for folder in layout.paths_below(layout.log_folder(root, source, hour), "session=*"):
        try:
            is_locked = _is_locked(folder / "book.arrow")  # asked first: whoever ends a log marks it, then unlocks
        except FileNotFoundError:
            continue  # sealed while we looked
        state = "ended" if (folder / _ENDED).exists() else "alive" if is_locked else "dead"
        logs.append(Log(folder=folder, session_id=folder.name.removeprefix("session="), state=state))
    return logs


class LogReader:
    """The rows of one table of a log, batch by batch; opened, they can be read whatever becomes of the files.

    What follows the first torn batch does not exist.

    Raises:
        FileNotFoundError: it was sealed since it was found.
        TableCorrupt: it does not begin as a log does.
        SchemaMismatch: it was written by another version of the schemas.
    """

    def __init__(self, log: Log, table: str) -> None:
        self.log, self.table = log, table
        self.path = log.folder / f"{_leaf(table)}.arrow"
        self.torn_bytes = 0  # behind the last whole batch; known when the rows were read
        self._bytes = self.path.stat().st_size
        try:
            self._file = pa.OSFile(str(self.path))  # batch by batch: an hour of a log may be larger than the memory
            self._stream = pa.ipc.open_stream(self._file)
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
            raise TableCorrupt(
                f"{self.path} must begin with an Arrow schema, found {(str(error).splitlines() or [''])[0]}: "
                "move the folder out of the lake and keep it; the rest of the hour can be sealed without it"
            ) from error
        about = self._stream.schema.metadata or {}
        version = about.get(b"schema_version", b"0").decode(errors="replace")
        if version != str(SCHEMA_VERSION):
            raise SchemaMismatch(
                f"{self.path} must have schema version {SCHEMA_VERSION}, found {version}: "
                "seal it with the code that wrote it"
            )
        names = about.get(b"symbols", b"")
        if about.get(b"crc") != str(zlib.crc32(names)).encode() or not self._stream.schema.equals(log_schema(table)):
            raise TableCorrupt(
                f"{self.path} must begin with the columns of {table} and names of symbols, found others: "
                "move the folder out of the lake and keep it; the rest of the hour can be sealed without it"
            )
        self.symbols = msgspec.json.decode(names, type=tuple[str, ...])  # grows while rows are read

    def rows(self) -> Iterator[Rows]:
        """Return the rows in order of receipt; a dead log's links end where it ends.

        Raises:
            TableCorrupt: an ended log has bytes that cannot be read.
        """
        links = _Links(self.table, len(self.symbols)) if self.log.state == "dead" else None
        until_ns, whole_bytes, n_rows = 0, self._file.tell(), 0
        while True:
            try:
                batch, metadata = self._stream.read_next_batch_with_custom_metadata()
            except (StopIteration, pa.ArrowException, OSError, MemoryError):  # the last: a length that is nonsense
                break
            told = dict(metadata or {})
            until = told.get(b"until_ns", b"")
            if not until.isdigit() or told != _about(batch, int(until), told.get(b"symbols", b"")):
                break
            if names := told.get(b"symbols"):
                self.symbols += msgspec.json.decode(names, type=tuple[str, ...])
            until_ns, whole_bytes = int(until), self._file.tell()
            if batch.num_rows:
                rows = _rows(self.table, batch)
                n_rows += batch.num_rows
                if links is not None:
                    links.grow(len(self.symbols))
                    links.note(rows)
                yield rows
        self.torn_bytes = self._bytes - whole_bytes if self.log.state != "alive" else 0
        if self.log.state == "ended" and self.torn_bytes:
            raise TableCorrupt(
                f"{self.path} must be readable to its end, found {self.torn_bytes} bytes that are not: "
                "move the folder out of the lake and keep it; the rest of the hour can be sealed without it"
            )
        if links is not None and n_rows:
            hour_end_ns = (until_ns // HOUR_NS + 1) * HOUR_NS
            at_ns = min(until_ns + 1, hour_end_ns - 1)
            yield link_rows(self.table, links.up(), TickEvent.DISCONNECTED, at_ns)


def read_log(log: Log, table: str) -> tuple[pl.DataFrame, int]:
    """Return the rows of one table of a log in order of receipt, and the bytes that were torn off a dead one.

    Raises:
        FileNotFoundError: it was sealed since it was found.
        TableCorrupt: an ended log has bytes that cannot be read.
    """
    reader = LogReader(log, table)
    rows = join(table, list(reader.rows()))
    return layout.rows_to_frame(table, rows, reader.symbols), reader.torn_bytes


def has_table(log: Log, table: str) -> bool:
    """Tell whether a log has a stream of this table."""
    return (log.folder / f"{_leaf(table)}.arrow").exists()


def read_aside(log: Log) -> list[Aside]:
    """Return what a log has set aside; a line that its writer did not finish is left out."""
    try:
        lines = (log.folder / ASIDE).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [msgspec.json.decode(line, type=Aside) for line in lines[:-1]]


def _rows(table: str, batch: Any) -> Rows:
    nothing = link_rows(table, [], TickEvent.CARRIED, 0)
    fields: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        # In place, for the same reason as in `_arrow`; a stream's batches begin at offset 0 and hold no nulls.
        like = getattr(nothing, name)
        fields[name] = np.frombuffer(column.buffers()[-1], like.dtype).reshape(-1, *like.shape[1:])
    return RECEIPTS[table](**fields)


def join(table: str, parts: Sequence[Rows]) -> Rows:
    """Return batches as one."""
    parts = [link_rows(table, [], TickEvent.CARRIED, 0), *parts]
    return RECEIPTS[table](
        **{name: np.concatenate([getattr(rows, name) for rows in parts]) for name in parts[0].__struct_fields__}
    )


def take(rows: Rows, which: NDArray[np.intp]) -> Rows:
    """Return rows by position."""
    return type(rows)(**{field: getattr(rows, field)[which] for field in rows.__struct_fields__})


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two readers do not take each other for a writer
        except BlockingIOError:
            return True
        return False
