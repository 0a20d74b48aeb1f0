"""The session's journal: everything the engine was told and everything it wanted, in one append-only file.

    file     = MAGIC frame*
    frame    = length u32 | crc32 of payload u32 | payload        (little endian)
    payload  = kind u8 (bit 7: body is zlib) | body

    HEADER    once, first: configuration, universe, seed, model digest (`Header`)
    SECOND    a sampled second: recv_ns, second, shape, block
    EVENT     any other event, msgpack
    DECISION  after every second, and after an event that led to actions: actions and stage digests (`Decision`)
    CLOSED    once, last: the session ended on purpose

A block (C, N) is stored as its bits XOR the bits of the block before it, bytes of equal significance side by side:
what did not change is a run of zeros, which zlib level 1 shrinks to nothing. The first block is XORed with zeros, so
the file reads from its start, which replay does anyway.

`Decision.inputs` is a running hash over the header and all events and seconds so far: whoever alters an input
afterwards, checksum included, is told so by replay before any feature is compared.

Frames collect in memory until `commit`, which writes them with one `write` (a killed process loses nothing that was
committed), and with `is_durable` an fsync (a lost machine neither). Reading stops at a torn tail and says where.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from shared.errors import JournalError, SchemaMismatch
from shared.strategy.engine import EngineConfig, Memory
from shared.types import (
    SCHEMA_VERSION,
    Action,
    Adopted,
    CancelOrder,
    CancelRefused,
    Event,
    Filled,
    Floats,
    FundingPaid,
    LinkChanged,
    Note,
    OrderAbsent,
    OrderAccepted,
    OrderRefused,
    OrderReported,
    OrderTimedOut,
    PlaceOrder,
    QueryAccount,
    QueryOrder,
    SecondClosed,
    StopRequested,
    Universe,
)

MAGIC: Final = b"CROSSCUT"
FILE_NAME: Final = "journal.bin"

HEADER, SECOND, EVENT, DECISION, CLOSED = range(1, 6)
_NAMES: Final = {HEADER: "header", SECOND: "second", EVENT: "event", DECISION: "decision", CLOSED: "end"}
_COMPRESSED: Final = 0x80
_COMPRESS_FROM_BYTES: Final = 512  # below, zlib's own header eats what it saves
_FRAME: Final = struct.Struct("<II")
_SECOND: Final = struct.Struct("<qqII")  # recv_ns, second, C, N
_FRAME_BYTES_MAX: Final = 1 << 28  # a longer length is damage, not a frame: 800 symbols x 50 columns are 320 kB

AnyEvent = (
    Adopted
    | OrderAccepted
    | OrderRefused
    | OrderTimedOut
    | OrderReported
    | OrderAbsent
    | CancelRefused
    | Filled
    | FundingPaid
    | LinkChanged
    | StopRequested
)
"""Every event but `SecondClosed`, which has a frame of its own."""

AnyAction = PlaceOrder | CancelOrder | QueryOrder | QueryAccount | Note


def _plain(value: object) -> object:
    # numpy scalars in a Note's fields
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(type(value))


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=_plain)
_decode_event: Final = msgspec.msgpack.Decoder(AnyEvent).decode
_decode_actions: Final = msgspec.msgpack.Decoder(list[AnyAction]).decode


class ModelNote(msgspec.Struct, frozen=True, kw_only=True):
    """The model that a session trades; its bundle lies in the session's own folder, so that it replays forever."""

    name: str
    version: int
    run_id: str
    digest: str  # sha256 of the booster text
    folder: str  # relative to the journal


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay needs besides the events, and what a reader wants to know first."""

    schema_version: int
    session: str
    source: str
    started_ns: int
    model: str  # as asked for: latest, 7, champion, rules, coin
    bundle: ModelNote | None  # None: rules and coin need none
    seed: int
    config: EngineConfig
    memory: Memory  # what the engine began with
    universe: Universe
    columns: tuple[str, ...]
    definition_hash: str
    commit: str  # "" outside of a checkout
    numpy: str


class Decision(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What came out of one event, and the digests of the stages on the way."""

    inputs: bytes
    stages: dict[str, str]  # Engine.digests, first stage first; {} where the event was no second
    actions: bytes  # msgpack of list[Action]


def encode_actions(actions: list[Action]) -> bytes:
    """Return the bytes that a replay has to meet."""
    return _encoder.encode(actions)


def decode_actions(encoded: bytes) -> list[AnyAction]:
    return _decode_actions(encoded)


class InputDigest:
    """The running hash over header, events and seconds."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, kind: int, body: bytes) -> None:
        self._hash.update(_FRAME.pack(kind, len(body)))
        self._hash.update(body)

    def value(self) -> bytes:
        return self._hash.copy().digest()


class _BlockBits:
    """XOR with the block before, bytes regrouped by significance; and back."""

    def __init__(self) -> None:
        self._last: np.ndarray[Any, np.dtype[np.uint64]] | None = None

    def pack(self, block: Floats) -> bytes:
        bits = np.ascontiguousarray(block, dtype=np.float64).view(np.uint64)
        changed = bits if self._last is None or self._last.shape != bits.shape else bits ^ self._last
        self._last = bits.copy()
        return np.ascontiguousarray(changed.reshape(-1).view(np.uint8).reshape(-1, 8).T).tobytes()

    def unpack(self, packed: bytes, shape: tuple[int, int]) -> Floats:
        planes = np.frombuffer(packed, dtype=np.uint8).reshape(8, -1)
        bits = np.ascontiguousarray(planes.T).reshape(-1).view(np.uint64).reshape(shape)
        if self._last is not None and self._last.shape == bits.shape:
            bits = bits ^ self._last
        self._last = bits
        return bits.view(np.float64).copy()


class JournalWriter:
    """Append to a new journal. Any failure to write raises JournalError, and every later call raises it again."""

    def __init__(self, folder: Path, header: Header) -> None:
        self.path = folder / FILE_NAME
        self.records = 0
        self.inputs = InputDigest()
        self._bits = _BlockBits()
        self._buffer = bytearray(MAGIC)
        self._broken: str | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        except OSError as error:
            raise JournalError(
                f"the journal must be writable at {self.path}, found: {error}: free it or set LAKE_URI"
            ) from None
        self._add_input(HEADER, _encoder.encode(header))
        self.commit(is_durable=True)

    def add_event(self, event: Event) -> None:
        """Note an event before the engine sees it."""
        if isinstance(event, SecondClosed):
            block = event.columns
            head = _SECOND.pack(event.recv_ns, event.second, *block.shape)
            self._add_input(SECOND, head + self._bits.pack(block))
        else:
            self._add_input(EVENT, _encoder.encode(event))

    def add_decision(self, actions: list[Action], stages: dict[str, str]) -> None:
        """Note what the engine made of the last event."""
        decision = Decision(inputs=self.inputs.value(), stages=stages, actions=encode_actions(actions))
        self._add(DECISION, _encoder.encode(decision))

    def commit(self, *, is_durable: bool) -> None:
        """Hand everything noted to the file; durable means that it survives the machine, too.

        Raises:
            JournalError: the file cannot be written (disk full, removed, read-only).
        """
        if self._broken:
            raise JournalError(self._broken)
        try:
            view = memoryview(bytes(self._buffer))
            self._buffer.clear()
            while view:
                view = view[os.write(self._file, view) :]
            if is_durable:
                os.fsync(self._file)
        except OSError as error:
            self._broken = f"the journal must be writable, found: {error} at {self.path}: make room, then start again"
            raise JournalError(self._broken) from None

    def close(self) -> None:
        """Write the end mark: what follows a journal without one is a crash."""
        self._add(CLOSED, b"")
        try:
            self.commit(is_durable=True)
        finally:
            os.close(self._file)

    def _add_input(self, kind: int, body: bytes) -> None:
        self.inputs.add(kind, body)
        self._add(kind, body)

    def _add(self, kind: int, body: bytes) -> None:
        if len(body) >= _COMPRESS_FROM_BYTES:
            payload = bytes((kind | _COMPRESSED,)) + zlib.compress(body, 1)
        else:
            payload = bytes((kind,)) + body
        self._buffer += _FRAME.pack(len(payload), zlib.crc32(payload))
        self._buffer += payload
        self.records += 1


class Record(msgspec.Struct, frozen=True):
    """One frame, read and understood."""

    number: int
    offset: int
    kind: int
    body: bytes
    value: Any  # Header, SecondClosed, an event, Decision, or None for the end mark


class JournalReader:
    """Iterate over the records of a journal.

    After the iteration: `is_closed` tells whether the end mark was read, `torn_bytes` how much of an unfinished
    write follows the last whole record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_closed = False
        self.torn_bytes = 0

    def __iter__(self) -> Iterator[Record]:
        try:
            raw = self.path.read_bytes()
        except OSError as error:
            raise JournalError(
                f"a journal must be readable at {self.path}, found: {error}: give the session's folder"
            ) from None
        if not raw.startswith(MAGIC):
            raise JournalError(
                f"{self.path} must begin with {MAGIC!r}, found {raw[:8]!r}: it is no journal of Crosscut"
            )
        bits = _BlockBits()
        offset, number = len(MAGIC), 0
        while offset < len(raw):
            payload = self._payload(raw, offset, number)
            if payload is None:
                self.torn_bytes = len(raw) - offset
                break
            record = self._record(payload, offset, number, bits)
            yield record
            self.is_closed = record.kind == CLOSED
            offset += _FRAME.size + len(payload)
            number += 1
        if number == 0:
            raise JournalError(f"{self.path} must hold a header, found none: the session ended before it began")

    def _payload(self, raw: bytes, offset: int, number: int) -> bytes | None:
        """Return the frame's payload, None where the file ends within it."""
        if offset + _FRAME.size > len(raw):
            return None
        length, checksum = _FRAME.unpack_from(raw, offset)
        start = offset + _FRAME.size
        payload = raw[start : start + length]
        if len(payload) < length <= _FRAME_BYTES_MAX:
            return None
        if length == 0 or length > _FRAME_BYTES_MAX or zlib.crc32(payload) != checksum:
            raise JournalError(
                f"inputs differ: record {number} at byte {offset} of {self.path} must match its checksum, "
                "found other bytes: the file was damaged or altered"
            )
        return payload

    def _record(self, payload: bytes, offset: int, number: int, bits: _BlockBits) -> Record:
        kind = payload[0] & ~_COMPRESSED
        body = payload[1:]
        try:
            if payload[0] & _COMPRESSED:
                body = zlib.decompress(body)
            return Record(number, offset, kind, body, self._value(kind, body, number, bits))
        except (zlib.error, msgspec.DecodeError, struct.error, ValueError) as error:
            raise JournalError(
                f"inputs differ: record {number} at byte {offset} of {self.path} must be a "
                f"{_NAMES.get(kind, 'known kind')}, found: {error}: the file was altered, or written by other code"
            ) from None

    def _value(self, kind: int, body: bytes, number: int, bits: _BlockBits) -> Any:
        if (kind == HEADER) != (number == 0):
            raise ValueError(f"a {_NAMES.get(kind, kind)} as record {number}")
        if kind == HEADER:
            version = msgspec.msgpack.decode(body, type=dict[str, Any]).get("schema_version")
            if version != SCHEMA_VERSION:
                raise SchemaMismatch(
                    f"journal {self.path} must be of schema version {SCHEMA_VERSION}, found {version}: "
                    "check out the commit that wrote it"
                )
            return msgspec.msgpack.decode(body, type=Header)
        if kind == SECOND:
            recv_ns, second, c, n = _SECOND.unpack_from(body)
            columns = bits.unpack(body[_SECOND.size :], (c, n))
            return SecondClosed(recv_ns=recv_ns, second=second, columns=columns)
        if kind == EVENT:
            return _decode_event(body)
        if kind == DECISION:
            return msgspec.msgpack.decode(body, type=Decision)
        if kind == CLOSED:
            return None
        raise ValueError(f"kind {kind}")


def find(lake: Path, session: str) -> Path:
    """Return the folder of a session, given as a path, as its name, or as `last`.

    Raises:
        JournalError: there is none.
    """
    folder = Path(session)
    if folder.name == FILE_NAME:
        folder = folder.parent
    if (folder / FILE_NAME).is_file():
        return folder
    sessions = sorted((lake / "journal").glob(f"source=*/session=*/{FILE_NAME}"), key=lambda path: path.parent.name)
    if session == "last" and sessions:
        return sessions[-1].parent
    for path in sessions:
        if path.parent.name == f"session={session}":
            return path.parent
    known = ", ".join(path.parent.name.removeprefix("session=") for path in sessions[-5:]) or "none"
    raise JournalError(
        f"a session must be a folder with {FILE_NAME}, a name under {lake / 'journal'}, or `last`, found {session!r}: "
        f"the latest known are {known}"
    )
