"""What the server really sent: the oracle of whoever tests a recorder.

One JSON line for every market frame that was handed to the transport of a connection, in the order of each connection:

    {"conn":3,"time_ns":1795330800123456789,"text":"{\\"action\\":\\"update\\",…}"}

`conn` is the server's number of the connection (`GET /_control/sockets` tells its client's port), `time_ns` is market
time. Acks, pongs, errors and private pushes are not in it. A frame that misbehaviour tore stands there as it left,
bytes that are no UTF-8 replaced.

The file is written without a buffer of our own, once a pass of the pump: what is noted survives when this process is
killed. It is synchronised with the disk at the end; a power cut may lose seconds.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from shared.errors import SettingsError

_MARKET = re.compile(rb'\{"action":"[a-z]+","arg":\{[^{}]*"channel":"(?:ticker|trade|books|candle)')
_HEAD_BYTES = 120
"""Where the channel of a push stands: after the frame's header, the action and the instType."""


class SentLog:
    """A file of the market frames that left.

    Args:
        path: is created; what it held is kept, and continued.
        now_ns: market time.

    Raises:
        SettingsError: it cannot be opened.
    """

    def __init__(self, path: Path, now_ns: Callable[[], int]) -> None:
        self._path, self._now_ns = path, now_ns
        self._lines: list[bytes] = []
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise SettingsError(
                f"--sent must be a file that can be written, found {path}: {error.strerror}: choose another"
            ) from None

    def note(self, conn: int, frames: Iterable[bytes]) -> None:
        """Remember what has just been handed to the transport of a connection."""
        head = f'{{"conn":{conn},"time_ns":{self._now_ns()},"text":'.encode()
        for frame in frames:
            if _MARKET.search(frame, 0, _HEAD_BYTES):
                text = frame[_header_bytes(frame) :].decode("utf-8", "replace")
                self._lines.append(head + msgspec.json.encode(text) + b"}\n")

    def write(self) -> None:
        """Hand what was noted to the operating system.

        Raises:
            SettingsError: it takes no more; an oracle with holes is none.
        """
        if not self._lines:
            return
        rest = memoryview(b"".join(self._lines))
        self._lines.clear()
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            raise SettingsError(
                f"--sent must take every frame, found {self._path} full or gone: {error.strerror}: make room"
            ) from None

    def close(self) -> None:
        """Write what is left and close the file; a second time does nothing."""
        if self._file < 0:
            return
        try:
            self.write()
            os.fsync(self._file)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a pipe or a device has nothing to be synchronised with
                raise
        finally:
            os.close(self._file)
            self._file = -1


def _header_bytes(frame: bytes) -> int:
    length = frame[1] if len(frame) > 1 else 0
    return 2 if length < 126 else 4 if length == 126 else 10
