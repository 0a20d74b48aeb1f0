"""Files of tables, read a piece at a time: gzip, zip or plain, CSV or sheet, as frames that hold whole messages.

A message is what came at one instant: rows of the same time stamp are never parted between two frames, so that a book
is complete and trades of one push can be put in order.
"""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, NoReturn

import msgspec
import polars as pl

from pipelines.imports import sheet
from shared.errors import SettingsError
from shared.types import BookTicks, TickerTicks, TradeTicks

BLOCK_BYTES = 8_000_000
"""Of text that is decoded at once: about 100,000 trades, or 10,000 books of 25 levels."""

_TORN = (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile)

Rows = BookTicks | TradeTicks | TickerTicks
Schema = Mapping[str, type[pl.DataType]]


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What one sort of file holds."""

    name: str  # as its publisher calls it
    channel: str  # "book", "trade", "ticker", or "candle", which is a table and no feed
    number: int  # names the connection: the same rows imported again are the same rows
    columns: Schema  # that it must have
    time: str  # the column of receipt, ascending
    is_complete: bool = False  # the publisher leaves out nothing, so silence is no doubt


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One table of one symbol in one file."""

    path: Path
    member: str  # of a zip; "" elsewhere
    kind: Kind
    symbol: str
    first: int  # in the unit of the file

    @property
    def name(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)


def refuse(name: str, expected: str, found: str, remedy: str) -> NoReturn:
    raise SettingsError(f"{name} must {expected}, found {found}: {remedy}")


def members(path: Path) -> list[str]:
    """Return the tables in a file: its own, "" , or the names in a zip."""
    if path.suffix.lower() != ".zip":
        return [""]
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except FileNotFoundError:
        refuse(str(path), "be a file", "nothing", "check the path")
    except _TORN as error:
        refuse(str(path), "be a whole zip file", str(error), "download it again")
    return sorted(name for name in names if not name.endswith("/"))


def frames(
    path: Path, member: str, schema: Callable[[list[str]], Schema], time: Callable[[list[str]], str]
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a table in pieces of whole messages, in the order of the file.

    Args:
        schema: the columns that are wanted and their types, given the header.
        time: the column that tells one message from the next.

    Raises:
        SettingsError: the file is torn, is no table, holds something else than the types say, or is not in order.
    """
    name = f"{path}:{member}" if member else str(path)
    held: pl.DataFrame | None = None
    n_rows = 0
    for frame in _raw(path, member, schema, name):
        at = time(frame.columns)
        n_rows += frame.height
        whole = frame if held is None else pl.concat([held, frame])
        if (whole[at].diff() < 0).any():
            wrong = int((whole[at].diff() < 0).arg_max() or 0) + n_rows - whole.height + 2
            refuse(
                name, f"be sorted by {at}", f"line {wrong} before the line above it", "take the publisher's own file"
            )
        is_last = whole[at] == whole[at][-1]
        held = whole.filter(is_last)
        if not is_last.all():
            yield whole.filter(~is_last)
    if held is not None:
        yield held


def header(path: Path, member: str) -> tuple[list[str], list[str]]:
    """Return the names of the columns and the first row, both empty where the file holds nothing.

    Raises:
        SettingsError: the file cannot be read.
    """
    with _reading(f"{path}:{member}" if member else str(path)), _open(path, member) as file:
        if _is_sheet(path, member):
            found = sheet.rows(file)
            return [cell.strip() for cell in next(found, [])], next(found, [])
        names, row = (file.readline(100_000).decode("utf-8-sig").strip() for _ in range(2))
        return names.split(",") if names else [], row.split(",") if row else []


def _raw(path: Path, member: str, schema: Callable[[list[str]], Schema], name: str) -> Iterator[pl.DataFrame]:
    with _reading(name), _open(path, member) as file:
        for text in sheet.texts(file, BLOCK_BYTES) if _is_sheet(path, member) else _blocks(file):
            names = text[: text.index(b"\n")].decode("utf-8-sig").strip().split(",")
            wanted = schema(names)
            yield pl.read_csv(
                io.BytesIO(text),
                new_columns=names,
                schema_overrides=dict(wanted),
                columns=list(wanted),
                infer_schema=False,
            ).select(list(wanted))


def _is_sheet(path: Path, member: str) -> bool:
    return (member or path.name).lower().endswith(".xlsx")


class _reading:
    """Turn what a broken file does into one sentence."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError | IsADirectoryError | PermissionError):
            refuse(self._name, "be a file that can be read", str(error), "check the path")
        if isinstance(error, _TORN):
            refuse(self._name, "be whole", f"{type(error).__name__} {error}".strip(), "download it again")
        if isinstance(error, UnicodeDecodeError):
            refuse(self._name, "be UTF-8 text", "bytes that are not", "take the publisher's own file")
        if isinstance(error, pl.exceptions.PolarsError):
            said = str(error).strip().splitlines()[0][:200]
            refuse(self._name, "hold numbers where its header promises them", said, "take the publisher's own file")


def _open(path: Path, member: str) -> IO[bytes]:
    if member:
        return zipfile.ZipFile(path).open(member)
    if path.suffix.lower() == ".gz":
        return gzip.open(path)  # type: ignore[return-value]
    return path.open("rb")


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield pieces of a CSV text that end with a line, each below the header."""
    head = file.readline(100_000)
    rest = b""
    while block := file.read(BLOCK_BYTES):
        block = rest + block
        cut = block.rfind(b"\n") + 1
        rest = block[cut:]
        if cut:
            yield head + block[:cut]
    if rest.strip():
        yield head + rest + b"\n"
