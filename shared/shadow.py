"""What a challenger said beside a session: a file of its own, next to the journal and no part of it.

    file   = MAGIC frame*
    frame  = length u32 | crc32 of payload u32 | payload, zlib of msgpack        (little endian)

The first frame is the header, every other one a second (`Record`). The journal does not know of it: a challenger that
is slow, wrong or out of disk space cannot harm the champion's record, and the session replays without it. Nothing here
is synced to the disk: what a lost machine takes along is a comparison, not an order.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from shared.errors import JournalError, SchemaMismatch
from shared.journal import JournalDamaged, ModelNote
from shared.strategy.shadow import Said

MAGIC: Final = b"CROSSSHD"
FILE_NAME: Final = "shadow.bin"
FOLDER: Final = "shadow"
"""Below the session's folder: the challenger's bundle, so that it can be computed again."""

VERSION: Final = 1
_FRAME: Final = struct.Struct("<II")
_FRAME_BYTES_MAX: Final = 1 << 24


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """Who spoke."""

    version: int
    session: str
    model: str  # as asked for: challenger, 7, rules
    bundle: ModelNote | None  # None: rules and coin need none
    seed: int
    n_symbols: int


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One second; both parts are empty where it was passed over because the challenger lagged behind."""

    second: int
    edge_bps: bytes  # float32 (N,)
    wanted: bytes  # int8 (N,)


def record_of(said: Said) -> Record:
    """Return what is stored."""
    return Record(said.second, said.edge_bps.astype("<f4").tobytes(), said.wanted.tobytes())


class Told(msgspec.Struct, frozen=True):
    """A file, read."""

    header: Header
    said: dict[int, Said]  # second -> what was said
    passed_over: tuple[int, ...]  # seconds
    torn_bytes: int  # of an unfinished write at the end


class Writer:
    """Append to a new file.

    Raises:
        OSError: as the system says it, here and from `add`; the caller ends the shadow, not the session.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        self.path = folder / FILE_NAME
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        os.write(self._file, MAGIC)
        self._write(msgspec.msgpack.encode(header))

    def add(self, record: Record) -> None:
        self._write(msgspec.msgpack.encode(record))

    def close(self) -> None:
        os.close(self._file)

    def _write(self, body: bytes) -> None:
        payload = zlib.compress(body, 1)
        view = memoryview(_FRAME.pack(len(payload), zlib.crc32(payload)) + payload)
        while view:
            view = view[os.write(self._file, view) :]


def read(folder: Path) -> Told:
    """Read a session's shadow.

    Raises:
        JournalError: there is none, or it is no such file.
        JournalDamaged: a frame is not what was written.
        SchemaMismatch: other code wrote it.
    """
    path = folder / FILE_NAME
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise JournalError(
            f"a session with a shadow must have {path}, found: {error}: run live with --shadow challenger"
        ) from None
    if not raw.startswith(MAGIC):
        raise JournalError(f"{path} must begin with {MAGIC!r}, found {raw[:8]!r}: it is no shadow of Crosscut")
    header: Header | None = None
    said: dict[int, Said] = {}
    passed_over: list[int] = []
    offset = len(MAGIC)
    while offset + _FRAME.size <= len(raw):
        length, checksum = _FRAME.unpack_from(raw, offset)
        payload = raw[offset + _FRAME.size : offset + _FRAME.size + length]
        if len(payload) < length <= _FRAME_BYTES_MAX:
            break
        if length > _FRAME_BYTES_MAX or zlib.crc32(payload) != checksum:
            raise JournalDamaged(f"byte {offset} of {path} must begin a whole frame, found other bytes: it was damaged")
        body = zlib.decompress(payload)
        offset += _FRAME.size + length
        if header is None:
            header = _header(path, body)
            continue
        record = msgspec.msgpack.decode(body, type=Record)
        if record.wanted:
            edge_bps = np.frombuffer(record.edge_bps, "<f4").astype(np.float32)
            said[record.second] = Said(record.second, edge_bps, np.frombuffer(record.wanted, np.int8))
        else:
            passed_over.append(record.second)
    if header is None:
        raise JournalError(f"{path} must hold a header, found none: the session ended before it began")
    return Told(header, said, tuple(passed_over), len(raw) - offset)


def _header(path: Path, body: bytes) -> Header:
    try:
        header = msgspec.msgpack.decode(body, type=Header)
    except msgspec.MsgspecError as error:
        raise JournalDamaged(f"{path} must begin with a header, found: {error}: written by other code") from None
    if header.version != VERSION:
        raise SchemaMismatch(
            f"{path} must be of version {VERSION}, found {header.version}: check out the commit that wrote it"
        )
    return header
