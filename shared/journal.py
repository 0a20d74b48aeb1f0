"""The session's journal: everything the engine was told and everything it wanted, in one append-only file.

    file     = MAGIC frame*
    frame    = length u32 | crc32 of payload u32 | payload        (little endian)
    payload  = kind u8 (bit 7: body is zlib) | body

    HEADER    once, first: configuration, universe, seed, model digest (`Header`)
    SECOND    a sampled second: recv_ns, second, shape, block
    EVENT     any other event, msgpack
    DECISION  after every second, and after an event that led to actions: actions and stage digests (`Decision`)
    CLOSED    once, last: the session ended on purpose

A block (C, N) is stored against the block before it (`BlockCode`), the first against zeros: what did not change
costs a bit, prices and sizes are small integers. So the file reads from its start, which replay does anyway.

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
from numpy.typing import NDArray

from shared.errors import JournalError, SchemaMismatch
from shared.strategy.engine import EngineConfig, Memory
from shared.types import (
    SCHEMA_VERSION,
    Action,
    Adopted,
    CancelOrder,
    CancelRefused,
    ClockRead,
    Event,
    Filled,
    Floats,
    FundingPaid,
    Ints,
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
    | ClockRead
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


class JournalDamaged(JournalError):
    """A record is not what was written: as a replay's result, the first stage that differs is the inputs."""

    exit_code = 1


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
    formulas: dict[str, str] = {}  # feature -> identity of its formula, shortened; {}: an older journal
    warmed_until_s: int = 0  # seconds before it only fill the features' memory, the engine is not told of them
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


class BlockCode:
    """A block against the one before it, exact to the bit; and back. Writer and reader hold the same state.

    1. Cells whose bits did not change cost one bit.
    2. A changed cell is a decimal where it can be: v = q / 10^k with an integer q, as prices, sizes and mids are. What
       is stored is q minus that of the value before, zigzag; k belongs to the cell, and is stored where it moves.
    3. Everything else (NaN, sums) is stored as bits XOR the bits before.

    Integers lie with bytes of equal significance side by side, which zlib level 1 shrinks well.
    """

    def __init__(self) -> None:
        self._last = np.zeros((0, 0))
        self._exponent = np.zeros(0, np.int8)
        self._n_packed = 0

    def _fit(self, shape: tuple[int, int]) -> None:
        if self._last.shape != shape:
            self._last, self._exponent = np.zeros(shape), np.zeros(shape[0] * shape[1], np.int8)

    def pack(self, block: Floats) -> bytes:
        values = np.ascontiguousarray(block, dtype=np.float64)
        self._fit(values.shape)
        bits, before = values.reshape(-1).view(np.uint64), self._last.reshape(-1).view(np.uint64)
        is_changed = bits != before
        at = np.flatnonzero(is_changed)
        value = values.reshape(-1)[at]
        exponent = self._exponent[at].copy()
        scaled, is_decimal = _as_decimal(value, exponent)
        # What was a sum a second ago is one now: search it again only now and then, or where nothing was known.
        is_due = self._n_packed % _SEARCH_EVERY == 0
        self._n_packed += 1
        was_known = np.isfinite(self._last.reshape(-1)[at])
        unfit = np.flatnonzero(~is_decimal & (is_due | (exponent != _RAW) | ~was_known))
        exponent[~is_decimal] = _RAW
        for k in range(_EXPONENT_MAX + 1):
            if not len(unfit):
                break
            q, fits = _as_decimal(value[unfit], np.full(len(unfit), k, np.int8))
            found = unfit[fits]
            scaled[found], exponent[found] = q[fits], k
            unfit = unfit[~fits]
        has_moved = exponent != self._exponent[at]
        self._exponent[at] = exponent
        is_raw = exponent == _RAW
        decimal_at, raw_at = at[~is_raw], at[is_raw]
        deltas = scaled[~is_raw] - _scaled_before(self._last.reshape(-1)[decimal_at], exponent[~is_raw])
        packed = b"".join(
            (
                np.packbits(is_changed).tobytes(),
                np.packbits(has_moved).tobytes(),
                exponent[has_moved].tobytes(),
                _planes((deltas << 1) ^ (deltas >> 63)),
                _planes(bits[raw_at] ^ before[raw_at]),
            )
        )
        self._last = values.copy()
        return packed

    def unpack(self, packed: bytes, shape: tuple[int, int]) -> Floats:
        self._fit(shape)
        values = self._last.copy().reshape(-1)
        rest = memoryview(packed)
        n_cells = shape[0] * shape[1]
        is_changed, rest = np.unpackbits(_bytes(rest, -(-n_cells // 8)), count=n_cells), rest[-(-n_cells // 8) :]
        at = np.flatnonzero(is_changed)
        has_moved, rest = np.unpackbits(_bytes(rest, -(-len(at) // 8)), count=len(at)), rest[-(-len(at) // 8) :]
        moved = at[has_moved.astype(np.bool_)]
        self._exponent[moved], rest = _bytes(rest, len(moved)).view(np.int8), rest[len(moved) :]
        exponent = self._exponent[at]
        is_raw = exponent == _RAW
        decimal_at, raw_at = at[~is_raw], at[is_raw]
        zigzag = _unplanes(_bytes(rest, 8 * len(decimal_at)))
        deltas = (zigzag >> np.uint64(1)).view(np.int64) ^ -(zigzag & np.uint64(1)).view(np.int64)
        scaled = deltas + _scaled_before(values[decimal_at], exponent[~is_raw])
        values[decimal_at] = scaled.astype(np.float64) / _POWERS[exponent[~is_raw]]
        values.view(np.uint64)[raw_at] ^= _unplanes(_bytes(rest[8 * len(decimal_at) :], 8 * len(raw_at)))
        self._last = values.reshape(shape)
        return self._last.copy()


_EXPONENT_MAX: Final = 12
_POWERS: Final = 10.0 ** np.arange(_EXPONENT_MAX + 1)  # exact: 10^22 is the last power that is a double
_RAW: Final = -1
_SEARCH_EVERY: Final = 64
_EXACT: Final = 2.0**53  # below, every integer is a double


def _as_decimal(value: Floats, exponent: NDArray[np.int8]) -> tuple[Ints, NDArray[np.bool_]]:
    """Return q and whether q / 10^k gives exactly these bits (so -0.0 does not)."""
    power = _POWERS[np.maximum(exponent, 0)]
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(value * power)
        is_small = np.abs(scaled) < _EXACT  # False for NaN
    integers = np.where(is_small, scaled, 0.0).astype(np.int64)
    is_exact = (integers.astype(np.float64) / power).view(np.uint64) == value.view(np.uint64)
    return integers, is_small & is_exact & (exponent != _RAW)


def _scaled_before(value: Floats, exponent: NDArray[np.int8]) -> Ints:
    """Return the nearest integer to v 10^k, 0 where there is none: what a delta counts from."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(value * _POWERS[exponent])
        return np.where(np.abs(scaled) < _EXACT, scaled, 0.0).astype(np.int64)


def _planes(integers: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(integers.view(np.uint8).reshape(-1, 8).T).tobytes()


def _unplanes(planes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(planes.reshape(8, -1).T).reshape(-1).view(np.uint64)


def _bytes(view: memoryview, n_bytes: int) -> NDArray[np.uint8]:
    if len(view) < n_bytes:
        raise ValueError(f"a block that ends {n_bytes - len(view)} bytes early")
    return np.frombuffer(view[:n_bytes], np.uint8)


class JournalWriter:
    """Append to a new journal. Any failure to write raises JournalError, and every later call raises it again."""

    def __init__(self, folder: Path, header: Header) -> None:
        self.path = folder / FILE_NAME
        self.records = 0
        self.inputs = InputDigest()
        self._code = BlockCode()
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
            self._add_input(SECOND, head + self._code.pack(block))
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
        code = BlockCode()
        offset, number = len(MAGIC), 0
        while offset < len(raw):
            payload = self._payload(raw, offset, number)
            if payload is None:
                self.torn_bytes = len(raw) - offset
                break
            record = self._record(payload, offset, number, code)
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
            raise JournalDamaged(
                f"differs at stage 'inputs': record {number} at byte {offset} of {self.path} must match its checksum, "
                "found other bytes: the file was damaged or altered"
            )
        return payload

    def _record(self, payload: bytes, offset: int, number: int, code: BlockCode) -> Record:
        kind = payload[0] & ~_COMPRESSED
        body = payload[1:]
        try:
            if payload[0] & _COMPRESSED:
                body = zlib.decompress(body)
            return Record(number, offset, kind, body, self._value(kind, body, number, code))
        except (zlib.error, msgspec.DecodeError, struct.error, ValueError, IndexError) as error:
            raise JournalDamaged(
                f"differs at stage 'inputs': record {number} at byte {offset} of {self.path} must be a "
                f"{_NAMES.get(kind, 'known kind')}, found: {error}: the file was altered, or written by other code"
            ) from None

    def _value(self, kind: int, body: bytes, number: int, code: BlockCode) -> Any:
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
            columns = code.unpack(body[_SECOND.size :], (c, n))
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
    known = ", ".join(path.parent.name.removeprefix("session=") for path in sessions[-5:])
    raise JournalError(
        f"a session must be a folder with {FILE_NAME}, a name under {lake / 'journal'}, or `last`, found {session!r}"
        + (
            f": the latest known are {known}"
            if known
            else " and no session yet: python -m live.run --model coin --seconds 60 makes one"
        )
    )
