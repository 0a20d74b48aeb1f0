"""One sealed file: Parquet that says of every piece of itself what its bytes must be.

    PAR1 │ column chunks, group after group │ index │ its SHA-256 │ its length, "XCUT" │ Parquet's footer │ PAR1

The index stands where Parquet's own page indexes stand, in front of the footer, so any Parquet reader reads the file.
It holds, a row group: rows, least and greatest time and symbol; a column chunk: length and CRC-32 of the bytes as they
lie on the disk; and the SHA-256 of Parquet's footer. So whoever reads some columns of some row groups checks just
those, at 3 GB/s of compressed bytes, before they are decoded; which row groups these are is decided by bytes that were
checked. A flipped bit in what is returned is named; one elsewhere costs nobody anything until `verify` looks.

Rows lie in the order of the table's key. Row groups end where a symbol ends, `Table.group_rows` long or a little more:
one symbol's day is a group of a few symbols in each of its hours. Numbers that grow are stored as differences, most
others as places in a dictionary while that is small, all of it then compressed by zstd.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from shared.errors import SchemaMismatch, TableCorrupt, TableEmpty
from shared.lake import layout
from shared.lake.layout import TABLES, Digest, Footer
from shared.types import BOOK_LEVELS, SCHEMA_VERSION

COMPRESSION_LEVEL = 3
"""Of zstd. Level 6 makes books 6 % smaller at twice the time, level 9 8 % at three times."""

_MAGIC = b"XCUT"
_SHA_BYTES = 16
_TRAILER_BYTES = _SHA_BYTES + 4 + len(_MAGIC)
_END_BYTES = 8  # length of Parquet's footer, PAR1
_TAIL_BYTES = 1 << 18  # read at once: index and footer of most files
_REPLACED_MAX = 20  # a file that grows is replaced every few seconds; reading it takes milliseconds
_RUNS_MAX = 8
"""Stretches of row groups that a query reads of one file; more are joined, and what lies between is read, too."""

# What polars raises over damaged bytes: one flipped bit in 200 makes its Parquet reader panic.
UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)

_GROWING = frozenset({"second", "minute", "recv_ns", "seq", "trade_id", "as_of_ns", "as_of_ms", "sequence"})
"""Stored as differences: they grow within a symbol. (Exchange times do too, but by round steps that zstd sees.)"""

_PLAIN = frozenset({"exch_ns", *(f"{side}_{what}_{k}" for side in ("bid", "ask") for what in ("price", "size")
                                 for k in range(1, BOOK_LEVELS + 1))})  # fmt: skip
"""Stored as they are in raw tables: the levels of a book repeat what another row said, which zstd finds in the values
and not in numbers of a dictionary. 143 bytes a row of 15 levels against 187, of recorded books."""

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class _Index(msgspec.Struct, frozen=True, array_like=True):
    """As it is stored (MessagePack); arrays are little-endian bytes."""

    footer: bytes  # JSON, the same as under the key `crosscut` of Parquet's metadata
    columns: list[str]
    rows: bytes  # <i8 a group
    firsts: bytes  # <i8 a group: least value of the table's time column
    lasts: bytes
    symbols: list[tuple[str, str]] | None  # least and greatest a group; None: the table has no symbols
    lengths: bytes  # <u4 a group and column
    checksums: bytes  # <u4 a group and column
    parquet: bytes  # SHA-256 of Parquet's footer


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says about itself and its pieces; G row groups, C columns."""

    path: Path
    footer: Footer
    columns: tuple[str, ...]
    rows: Ints  # shape (G,)
    firsts: Ints  # shape (G,)
    lasts: Ints  # shape (G,)
    symbols: list[tuple[str, str]] | None
    lengths: Ints  # shape (G, C), bytes
    offsets: Ints  # shape (G, C), bytes from the file's begin
    checksums: Ints  # shape (G, C)

    @property
    def schema(self) -> dict[str, pl.DataType | type[pl.DataType]]:
        about = TABLES[self.footer.table]
        return {name: about.columns.get(name, about.others or pl.Null) for name in self.columns}

    def groups(self, first: int | None, end: int | None, symbols: Sequence[str] | None) -> Bools:
        """Tell of each row group whether it may hold rows of these symbols in [first, end) of the time column."""
        may: Bools = np.ones(len(self.rows), np.bool_)
        if first is not None:
            may &= self.lasts >= first
        if end is not None:
            may &= self.firsts < end
        if symbols is not None and self.symbols is not None:
            wanted = sorted(set(symbols))
            places = np.searchsorted(np.array(wanted, object), np.array([low for low, _ in self.symbols], object))
            for group, (place, (_, high)) in enumerate(zip(places.tolist(), self.symbols, strict=True)):
                may[group] &= place < len(wanted) and wanted[place] <= high
        return may


# ------------------------------------------------------------------------------------------------- writing


class Writer:
    """Write one sealed file, piece by piece; memory is bounded by the pieces.

    Args:
        path: where it is written; the caller gives it its name when it is whole.
        names: its columns, in order.
    """

    def __init__(self, path: Path, table: str, schema: layout.Schema) -> None:
        from pyarrow import parquet  # here: readers of the lake need no writer, and it takes 50 ms

        self.path, self.table = path, TABLES[table]
        self.rows = 0
        self._empty = pl.DataFrame(schema=dict(schema))
        self._waiting = self._empty
        self._digest = Digest(self._empty.schema)
        self._groups: list[tuple[int, int, int]] = []
        self._symbols: list[tuple[str, str]] | None = [] if "symbol" in schema else None
        is_raw = table in layout.RECEIPTS
        growing = [name for name in schema if name in _GROWING and schema[name] == pl.Int64]
        self._file = parquet.ParquetWriter(
            path,
            self._empty.to_arrow(compat_level=pl.CompatLevel.oldest()).schema,
            compression="zstd",
            compression_level=COMPRESSION_LEVEL,
            use_dictionary=[name for name in schema if name not in growing and not (is_raw and name in _PLAIN)],
            column_encoding=dict.fromkeys(growing, "DELTA_BINARY_PACKED"),
            write_statistics=[name for name in ("symbol", self.table.time) if name in schema],
            store_schema=False,
        )

    def append(self, rows: pl.DataFrame) -> None:
        """Add rows, which come behind those before in the order of the table's key."""
        self._digest.update(rows)
        self.rows += rows.height
        self._waiting = pl.concat([self._waiting, rows]) if self._waiting.height else rows
        self._write_groups(is_end=False)

    def finish(self, source: str, hour: int, provenance: Mapping[str, Any]) -> Footer:
        """Write the rest, the index and the footer; the file is whole and not yet synced."""
        self._write_groups(is_end=True)
        footer = Footer(
            schema_version=SCHEMA_VERSION,
            table=self.table.name,
            source=source,
            hour=hour,
            rows=self.rows,
            first=min((first for _, first, _ in self._groups), default=None),
            last=max((last for _, _, last in self._groups), default=None),
            content_hash=self._digest.hexdigest(),
            provenance=dict(provenance),
        )
        words = msgspec.json.encode(footer)
        self._file.add_key_value_metadata({layout.FOOTER_KEY: words.decode()})
        self._file.close()
        self._insert_index(words)
        return footer

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):  # of a file that was given up already
            self._file.close()

    def _write_groups(self, *, is_end: bool) -> None:
        begin = 0
        for end in _group_ends(self._waiting, self.table, is_end=is_end):
            group = self._waiting[begin:end]
            time = group[self.table.time]
            self._groups.append((group.height, cast(int, time.min()), cast(int, time.max())))
            if self._symbols is not None:
                self._symbols.append((cast(str, group["symbol"].min()), cast(str, group["symbol"].max())))
            self._file.write_table(group.to_arrow(compat_level=pl.CompatLevel.oldest()), row_group_size=group.height)
            begin = end
        self._waiting = self._waiting[begin:]

    def _insert_index(self, words: bytes) -> None:
        from pyarrow import parquet

        about = parquet.read_metadata(self.path)
        n_groups, n_columns = about.num_row_groups, about.num_columns
        assert n_groups == len(self._groups), (n_groups, len(self._groups))
        lengths = np.zeros((n_groups, n_columns), np.int64)
        at = 4
        for g in range(n_groups):
            group = about.row_group(g)
            for c in range(n_columns):
                chunk = group.column(c)
                begin = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
                assert begin == at, f"chunk ({g}, {c}) begins at {begin}, not behind the one before, {at}"
                lengths[g, c] = chunk.total_compressed_size
                at += chunk.total_compressed_size
        with self.path.open("r+b") as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                parquet_footer = content[at:]
                assert int.from_bytes(parquet_footer[-8:-4], "little") == len(parquet_footer) - _END_BYTES
                checksums = _checksums(content, _offsets(lengths), lengths)
            groups = np.array(self._groups, "<i8").reshape(-1, 3)
            index = msgspec.msgpack.encode(
                _Index(
                    footer=words,
                    columns=self._empty.columns,
                    rows=groups[:, 0].tobytes(),
                    firsts=groups[:, 1].tobytes(),
                    lasts=groups[:, 2].tobytes(),
                    symbols=self._symbols,
                    lengths=lengths.astype("<u4").tobytes(),
                    checksums=checksums.astype("<u4").tobytes(),
                    parquet=_sha(parquet_footer),
                )
            )
            file.seek(at)
            file.write(index + _sha(index) + len(index).to_bytes(4, "little") + _MAGIC + parquet_footer)


def _group_ends(rows: pl.DataFrame, table: layout.Table, *, is_end: bool) -> list[int]:
    """Return where row groups end: at the end of a symbol where that is near, what is left waits for more rows."""
    size = table.group_rows
    borders: Ints = np.empty(0, np.int64)
    if table.key[0] == "symbol" and rows.height:
        symbol = rows["symbol"]
        borders = (symbol != symbol.shift()).arg_true().to_numpy().astype(np.int64)
    ends: list[int] = []
    begin = 0
    while rows.height - begin > 2 * size or (rows.height - begin > size and len(borders)):
        place = int(np.searchsorted(borders, begin + size))
        border = int(borders[place]) if place < len(borders) else None
        if border is not None and border - begin <= 2 * size:
            begin = border
        elif rows.height - begin > 2 * size:
            begin += size
        else:
            break
        ends.append(begin)
    if is_end and begin < rows.height:
        ends.append(rows.height)
    return ends


# ------------------------------------------------------------------------------------------------- reading


def index(path: Path) -> Index:
    """Return what a file says about itself and its pieces.

    Raises:
        TableEmpty: it is gone.
        TableCorrupt: it cannot be read, or is none of ours.
        SchemaMismatch: it was written by another version of the schemas.
    """
    for _ in range(_REPLACED_MAX):
        try:
            stat = path.stat()
            return _index(path, stat.st_mtime_ns, stat.st_size)
        except FileNotFoundError:
            raise removed(path) from None
        except TableCorrupt:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(stat, path.stat()):
                    raise  # else it was replaced between the look at its size and the look into it
    raise corrupt(path, f"it replaced {_REPLACED_MAX} times while it was read")


@lru_cache(maxsize=4096)
def _index(path: Path, mtime_ns: int, size: int) -> Index:
    with path.open("rb") as file:
        tail = _tail(file.fileno(), size, _TAIL_BYTES)
        parquet_bytes = int.from_bytes(tail[-8:-4], "little") + _END_BYTES
        if tail[-4:] != b"PAR1" or parquet_bytes + _TRAILER_BYTES > size:
            raise corrupt(path, "no end of a Parquet file")
        if len(tail) < parquet_bytes + _TRAILER_BYTES:
            tail = _tail(file.fileno(), size, parquet_bytes + _TRAILER_BYTES)
        trailer = tail[len(tail) - parquet_bytes - _TRAILER_BYTES : len(tail) - parquet_bytes]
        if trailer[-4:] != _MAGIC:
            raise corrupt(path, "no index of ours in front of its footer")
        index_bytes = int.from_bytes(trailer[_SHA_BYTES : _SHA_BYTES + 4], "little")
        end_bytes = index_bytes + _TRAILER_BYTES + parquet_bytes
        if end_bytes > size:
            raise corrupt(path, f"an index of {index_bytes} bytes in {size}")
        if len(tail) < end_bytes:
            tail = _tail(file.fileno(), size, end_bytes)
    content = tail[len(tail) - end_bytes : len(tail) - end_bytes + index_bytes]
    if _sha(content) != trailer[:_SHA_BYTES]:
        raise corrupt(path, f"an index with hash {_sha(content).hex()}, not {trailer[:_SHA_BYTES].hex()}")
    try:
        raw = msgspec.msgpack.decode(content, type=_Index)
        footer = msgspec.json.decode(raw.footer, type=Footer)
    except msgspec.MsgspecError as error:  # whole, so written by a version that says other things
        raise SchemaMismatch(
            f"{path} must have an index as schema version {SCHEMA_VERSION} writes it, found {error}: rebuild it, "
            "or read it with the code that wrote it"
        ) from error
    if footer.schema_version != SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{path} must have schema version {SCHEMA_VERSION}, found {footer.schema_version}: "
            "rebuild it, or read it with the code that wrote it"
        )
    if _sha(tail[len(tail) - parquet_bytes :]) != raw.parquet:
        raise corrupt(path, "a Parquet footer that is not the one written")
    lengths = np.frombuffer(raw.lengths, "<u4").astype(np.int64).reshape(-1, len(raw.columns))
    return Index(
        path=path,
        footer=footer,
        columns=tuple(raw.columns),
        rows=np.frombuffer(raw.rows, "<i8"),
        firsts=np.frombuffer(raw.firsts, "<i8"),
        lasts=np.frombuffer(raw.lasts, "<i8"),
        symbols=raw.symbols,
        lengths=lengths,
        offsets=_offsets(lengths),
        checksums=np.frombuffer(raw.checksums, "<u4").astype(np.int64).reshape(lengths.shape),
    )


def check(found: Index, groups: Bools, columns: Iterable[str]) -> None:
    """Compare the bytes of these column chunks with what was written.

    Raises:
        TableCorrupt: a bit is not what was written; the message says where.
    """
    which = np.flatnonzero(groups)
    places = sorted(found.columns.index(name) for name in set(columns))
    if not len(which) or not places:
        return
    grid = np.ix_(which, np.array(places))
    with _named(found), found.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        actual = _checksums(content, found.offsets[grid], found.lengths[grid])
    wrong = np.argwhere(actual != found.checksums[grid])
    if len(wrong):
        g, c = (int(k) for k in wrong[0])
        raise corrupt(
            found.path,
            f"other bytes than were written in {len(wrong)} of {actual.size} pieces, first in column "
            f"{found.columns[places[c]]} of row group {which[g]}",
        )


class Replaced(TableEmpty):
    """A file was replaced while it was read: nothing is wrong with either, but rows of one may not meet the other's."""


@contextlib.contextmanager
def unchanged(files: Sequence[Index]) -> Iterator[None]:
    """Hold that these files are at the end of a read what they were when their index was read.

    Raises:
        Replaced: one of them is not.
    """

    def check_all() -> None:
        for found in files:
            if index(found.path).footer != found.footer:
                raise Replaced(f"{found.path} must stay while it is read, found it replaced: ask again")

    try:
        yield
    except TableCorrupt:  # two files in one read look like a damaged one
        check_all()
        raise
    check_all()


def lazy(found: Index, groups: Bools, columns: Sequence[str]) -> pl.LazyFrame:
    """Return these columns of these row groups (and of some between them), in order, checked.

    Raises:
        TableCorrupt: a bit is not what was written.
    """
    runs = _runs(groups)
    for begin, end in runs:
        groups[begin:end] = True
    check(found, groups, columns)
    ends = np.concatenate([[0], np.cumsum(found.rows)])
    rows = pl.scan_parquet(found.path, glob=False, hive_partitioning=False, use_statistics=False)
    parts = [
        rows.slice(int(ends[begin]), int(ends[end] - ends[begin])).select(columns)
        if (begin, end) != (0, len(found.rows))
        else rows.select(columns)
        for begin, end in runs
    ]
    if not parts:
        return pl.LazyFrame(schema={name: found.schema[name] for name in columns})
    return parts[0] if len(parts) == 1 else pl.concat(parts)


def read(found: Index, groups: Bools | None = None, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Return rows of one file, checked; None: all of them.

    Raises:
        TableCorrupt: a bit is not what was written.
    """
    groups = np.ones(len(found.rows), np.bool_) if groups is None else groups
    rows = lazy(found, groups, found.columns if columns is None else columns)
    with _named(found):
        return rows.collect()


def read_all(path: Path) -> pl.DataFrame:
    """Return all rows of one file, checked; of one that is replaced meanwhile those of before or after, never a mix.

    Raises:
        TableCorrupt: a bit is not what was written.
    """
    for _ in range(_REPLACED_MAX):
        found = index(path)
        try:
            rows = read(found)
        except TableCorrupt:
            if index(path).footer == found.footer:
                raise
        else:
            if index(path).footer == found.footer:
                return rows
    raise corrupt(path, f"it replaced {_REPLACED_MAX} times while it was read")


def verify(path: Path) -> Footer:
    """Compare every byte with its checksum and every value with the content hash in the footer.

    One that is replaced meanwhile is verified anew.

    Raises:
        TableCorrupt: a bit is not what was written.
    """
    for _ in range(_REPLACED_MAX):
        with contextlib.suppress(Replaced):
            return _verified(index(path))
    raise corrupt(path, f"it replaced {_REPLACED_MAX} times while it was read")


def _verified(found: Index) -> Footer:
    path = found.path
    everything = np.ones(len(found.rows), np.bool_)
    digest = Digest(pl.Schema(found.schema))
    with unchanged([found]):
        check(found, everything, found.columns)
        with path.open("rb") as file:
            head = file.read(4)
        if head != b"PAR1":
            raise corrupt(path, f"{head!r} at its begin")
    for name in found.columns:
        with unchanged([found]):
            rows = read(found, everything, [name])
        digest.update(rows)
    actual = digest.hexdigest()
    if actual != found.footer.content_hash:
        raise TableCorrupt(
            f"{path} must have content {found.footer.content_hash}, found {actual}: {remedy(found.footer.table)}"
        )
    return found.footer


def removed(path: Path) -> TableEmpty:
    """Return the error that says that a file went."""
    return TableEmpty(
        f"{path} must stay while it is read, found it removed (python -m pipelines.retention, or a person): "
        "ask again for what is left"
    )


def corrupt(path: Path, what: object) -> TableCorrupt:
    """Return the error that names a file."""
    table = next((name for name in TABLES if f"/{name}/source=" in path.as_posix()), None)
    return TableCorrupt(f"{path} must be a Parquet file of the lake, found {what}: {remedy(table)}")


def remedy(table: str | None) -> str:
    """Return what to do with a file that is no good."""
    if table is None or table.startswith("raw/") or table == "universe" or TABLES[table].is_grown:
        return "move it out of the lake; its rows are lost unless a copy or a log has them"
    return f"delete it and build it again ({TABLES[table].made_by})"


def first_line(error: BaseException) -> str:
    """Return what an error says, short."""
    words = f"no key {error}" if isinstance(error, KeyError) else str(error)
    return words.strip().splitlines()[0][:200] if words.strip() else type(error).__name__


# -------------------------------------------------------------------------------------------------- inside


@contextlib.contextmanager
def _named(found: Index) -> Iterator[None]:
    """Turn what the file system or polars says about a file into one sentence."""
    try:
        yield
    except FileNotFoundError:
        raise removed(found.path) from None
    except (*UNREADABLE, ValueError) as error:  # mmap says ValueError of an empty file
        raise corrupt(found.path, first_line(error)) from error


def _tail(fd: int, size: int, wanted: int) -> bytes:
    wanted = min(size, wanted)
    return os.pread(fd, wanted, size - wanted)


def _sha(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_SHA_BYTES]


def _offsets(lengths: Ints) -> Ints:
    """Return where the chunks begin: behind one another, from behind PAR1 on."""
    ends = 4 + np.cumsum(lengths.reshape(-1))
    return (ends - lengths.reshape(-1)).reshape(lengths.shape)


def _checksums(content: mmap.mmap, offsets: Ints, lengths: Ints) -> Ints:
    found = np.zeros(lengths.size, np.int64)
    with memoryview(content) as view:
        for k, (at, n) in enumerate(zip(offsets.reshape(-1).tolist(), lengths.reshape(-1).tolist(), strict=True)):
            found[k] = zlib.crc32(view[at : at + n])
    return found.reshape(lengths.shape)


def _runs(groups: Bools) -> list[tuple[int, int]]:
    """Return the stretches of true groups as [begin, end); the nearest are joined while there are too many."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], groups, [False]]).astype(np.int8)))
    begins, ends = edges[::2], edges[1::2]
    if len(begins) > _RUNS_MAX:
        gaps = begins[1:] - ends[:-1]
        kept = np.sort(np.argsort(gaps, kind="stable")[len(gaps) - (_RUNS_MAX - 1) :])
        begins = np.concatenate([begins[:1], begins[kept + 1]])
        ends = np.concatenate([ends[kept], ends[-1:]])
    return list(zip(begins.tolist(), ends.tolist(), strict=True))
