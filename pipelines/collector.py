"""The one collector: public sessions -> tick buffer -> write-ahead log, with the clock given from outside.

`Collector` has no socket. `pipelines.collect` puts sockets and the wall clock around it, `pipelines.generate` a
simulated market and a virtual clock: history is written by the very code that records the real feed.

Every receipt is stamped by one `shared.bitget.transport.ReceiveClock`, which increases strictly: the order of rows
is a fact of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shared.bitget.session import PublicSession, shards
from shared.bitget.ticks import TickBuffer
from shared.errors import SettingsError
from shared.lake.wal import WriteAheadLog
from shared.types import Note, Ticks, Universe

CHANNELS = ("books15", "trade", "ticker")


class Collector:
    """Record some symbols of a universe.

    Args:
        session_id: names the log and its connections.
        symbols: what to record; () is everything that is listed.
        from_ns: earlier receipts are not recorded (see `WriteAheadLog`).

    Raises:
        SettingsError: a wanted symbol is not listed.
    """

    def __init__(
        self,
        lake: Path,
        universe: Universe,
        session_id: str,
        *,
        symbols: Sequence[str] = (),
        channels: tuple[str, ...] = CHANNELS,
        from_ns: int = 0,
    ) -> None:
        self.universe = universe
        self.symbols = wanted_symbols(universe, symbols)
        self.log = WriteAheadLog(lake, universe.source, session_id, universe, from_ns=from_ns)
        self.buffer = TickBuffer(universe.symbols)
        self.sessions = [
            PublicSession(part, channels, conn=conn, buffer=self.buffer)
            for conn, part in enumerate(shards(self.symbols, len(channels)))
        ]

    @property
    def n_links(self) -> tuple[int, int]:
        """Return how many channels are linked, and how many are wanted."""
        states = [state.value for session in self.sessions for state in session.channels.values()]
        return states.count("linked"), len(states)

    def write(self, ticks: Ticks, until_ns: int, *, is_durable: bool = True) -> None:
        """Append what `buffer.take()` gave when the clock said `until_ns`; flush it unless told otherwise."""
        self.log.append(ticks)
        if is_durable:
            self.log.flush(until_ns)

    def take_notes(self) -> list[Note]:
        """Return what a person should read, since the last call."""
        return [note for session in self.sessions for note in session.take_notes()]


def wanted_symbols(universe: Universe, symbols: Sequence[str]) -> tuple[str, ...]:
    """Return the symbols to record, sorted: the given ones, or all that are listed.

    Raises:
        SettingsError: one of them is not listed.
    """
    missing = sorted(set(symbols) - set(universe.symbols))
    if missing:
        raise SettingsError(
            f"every symbol must be listed at {universe.source}, found {', '.join(missing[:5])} that is not: "
            f"correct --symbols or SYMBOLS ({len(universe.symbols)} are listed: {', '.join(universe.symbols[:3])} …)"
        )
    return tuple(sorted(set(symbols))) or universe.symbols
