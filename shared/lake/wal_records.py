"""What a stream of the write-ahead log is made of, byte by byte: its schema, its batches, and what each says of itself.

A stream begins with the schema, whose metadata hold the schema version and the names of the symbols, with their CRC.
Each batch carries the receipt up to which its table is complete (`until_ns`), names of symbols that came later
(`symbols`), and the CRC of all of that and of its buffers. Writer (`shared.lake.wal`) and reader
(`shared.lake.wal_reading`) both ask here: a batch that is not, word for word, what `about` says of it was torn or
altered.
"""

from __future__ import annotations

import fcntl
import io
import os
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from shared.lake import layout
from shared.lake.layout import RECEIPTS, Rows
from shared.lake.receipts import link_rows
from shared.types import BOOK_LEVELS, SCHEMA_VERSION, TickEvent

ENDED = "ended"
"""File beside the streams: the hour was over, or the session closed."""

LOCKED = "raw/book"
"""The table whose stream is asked whether the writer lives: every log has it."""

ASIDE = "quarantine.jsonl"
"""File beside the streams: what was not understood, a line each."""

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


def stream_path(folder: Path, table: str) -> Path:
    """Return where the stream of a table lies in a log's folder."""
    return folder / f"{layout.TABLES[table].leaf}.arrow"


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


class Stream:
    """One table of a log that is being written; it holds the lock that tells that its writer lives."""

    def __init__(self, path: Path, table: str, symbols: tuple[str, ...]) -> None:
        self.file = io.BufferedWriter(path.open("xb", buffering=0), 1 << 20)
        fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        names = msgspec.json.encode(symbols)
        begins = {"schema_version": str(SCHEMA_VERSION), "symbols": names, "crc": str(zlib.crc32(names))}
        self._schema = log_schema(table)
        self._writer = pa.ipc.new_stream(self.file, self._schema.with_metadata(begins), options=_PACKED)
        self._table = table
        self.until_ns = 0

    def write(self, rows: Rows, until_ns: int) -> None:
        batch = pa.record_batch([_arrow(getattr(rows, name)) for name in rows.__struct_fields__], schema=self._schema)
        self._writer.write_batch(batch, custom_metadata=about(batch, until_ns))
        self.until_ns = until_ns

    def mark(self, until_ns: int, names: bytes = b"") -> None:
        """Say how far the table is complete, without rows."""
        nothing = pa.RecordBatch.from_pylist([], schema=self._schema)
        self._writer.write_batch(nothing, custom_metadata=about(nothing, until_ns, names))
        self.until_ns = until_ns

    def grow(self, symbols: tuple[str, ...]) -> None:
        """Say which symbols rows refer to from here on, behind those of before."""
        self.mark(self.until_ns, msgspec.json.encode(symbols))

    def sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())


def about(batch: Any, until_ns: int, names: bytes = b"") -> dict[bytes, bytes]:
    """Return what a batch says about itself; its CRC covers every word of it."""
    said = {b"until_ns": str(until_ns).encode()} | ({b"symbols": names} if names else {})
    crc = zlib.crc32(b"%d " % batch.num_rows)
    for word in said.values():
        crc = zlib.crc32(word, crc)
    for column in batch.columns:
        for buffer in column.buffers():
            if buffer is not None:
                crc = zlib.crc32(buffer, crc)
    return said | {b"crc": str(crc).encode()}


def rows_of(table: str, batch: Any) -> Rows:
    """Return the rows of a batch, in place."""
    nothing = link_rows(table, [], TickEvent.CARRIED, 0)
    fields: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        # In place, for the same reason as in `_arrow`; a stream's batches begin at offset 0 and hold no nulls.
        like = getattr(nothing, name)
        fields[name] = np.frombuffer(column.buffers()[-1], like.dtype).reshape(-1, *like.shape[1:])
    return RECEIPTS[table](**fields)


def _arrow(values: NDArray[Any]) -> Any:
    """Return the values as Arrow sees them in place (`pa.array` would import pandas, where there is one: 0.5 s)."""
    if values.dtype == np.bool_:
        values = values.view(np.uint8)
    flat = np.ascontiguousarray(values).reshape(-1)
    array = pa.Array.from_buffers(pa.from_numpy_dtype(flat.dtype), len(flat), [None, pa.py_buffer(flat)])
    return array if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(array, values.shape[1])
