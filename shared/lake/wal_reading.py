"""Read a write-ahead log back, whatever became of its writer: ended, alive or dead (`shared.lake.wal`)."""

from __future__ import annotations

import fcntl
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import polars as pl
import pyarrow as pa

from shared.errors import SchemaMismatch, TableCorrupt
from shared.lake import layout
from shared.lake.layout import HOUR_NS, Rows
from shared.lake.links import Links
from shared.lake.receipts import join, link_rows
from shared.lake.wal_records import ASIDE, ENDED, LOCKED, Aside, about, log_schema, rows_of, stream_path
from shared.types import SCHEMA_VERSION, TickEvent


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
            # The lock is asked for first: whoever ends a log marks it, then unlocks.
            is_locked = _is_locked(stream_path(folder, LOCKED))
        except FileNotFoundError:
            continue  # sealed while we looked
        state = "ended" if (folder / ENDED).exists() else "alive" if is_locked else "dead"
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
        self.path = stream_path(log.folder, table)
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
        begins = self._stream.schema.metadata or {}
        version = begins.get(b"schema_version", b"0").decode(errors="replace")
        if version != str(SCHEMA_VERSION):
            raise SchemaMismatch(
                f"{self.path} must have schema version {SCHEMA_VERSION}, found {version}: "
                "seal it with the code that wrote it"
            )
        names = begins.get(b"symbols", b"")
        if begins.get(b"crc") != str(zlib.crc32(names)).encode() or not self._stream.schema.equals(log_schema(table)):
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
        links = Links(self.table, len(self.symbols)) if self.log.state == "dead" else None
        until_ns, whole_bytes, n_rows = 0, self._file.tell(), 0
        while True:
            try:
                batch, metadata = self._stream.read_next_batch_with_custom_metadata()
            except (StopIteration, pa.ArrowException, OSError, MemoryError):  # the last: a length that is nonsense
                break
            told = dict(metadata or {})
            until = told.get(b"until_ns", b"")
            if not until.isdigit() or told != about(batch, int(until), told.get(b"symbols", b"")):
                break
            if names := told.get(b"symbols"):
                self.symbols += msgspec.json.decode(names, type=tuple[str, ...])
            until_ns, whole_bytes = int(until), self._file.tell()
            if batch.num_rows:
                rows = rows_of(self.table, batch)
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
    return stream_path(log.folder, table).exists()


def read_aside(log: Log) -> list[Aside]:
    """Return what a log has set aside; a line that its writer did not finish is left out."""
    try:
        lines = (log.folder / ASIDE).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [msgspec.json.decode(line, type=Aside) for line in lines[:-1]]


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two readers do not take each other for a writer
        except BlockingIOError:
            return True
        return False
