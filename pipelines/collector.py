"""The one collector: public sessions -> tick buffer -> write-ahead log, with the clock given from outside.

`Collector` has no socket. `pipelines.collect` puts sockets and the wall clock around it, `pipelines.generate` a
simulated market and a virtual clock: history is written by the very code that records the real feed.

Every receipt is stamped by one `shared.bitget.transport.ReceiveClock`, which increases strictly: the order of rows
is a fact of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shared.bitget.session import Channel, Link, PublicSession, shards
from shared.bitget.ticks import TickBuffer
from shared.errors import SettingsError
from shared.lake.wal import Aside, WriteAheadLog
from shared.types import Note, Ticks, Universe

CHANNELS = ("books15", "trade", "ticker")


class Collector:
    """Record some symbols of a universe.

    Args:
        session_id: names the log and its connections.
        symbols: what to record; () is everything that is listed.
        from_ns: earlier receipts are not recorded (see `WriteAheadLog`).
        owned_ns: [start, end) of the pushes to record, by the exchange's clock (see there); None: all of them.
        copies: connections that carry each channel; 2 survives the loss of one without a gap, and is recorded once.

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
        owned_ns: tuple[int, int] | None = None,
        copies: int = 1,
    ) -> None:
        self.universe = universe
        self.symbols = wanted_symbols(universe, symbols)
        self.log = WriteAheadLog(lake, universe.source, session_id, universe, from_ns=from_ns, owned_ns=owned_ns)
        self.buffer = TickBuffer(universe.symbols)
        self._channels = channels
        self.parts = shards(self.symbols, len(channels)) * copies
        self.sessions: list[PublicSession] = []  # a part's newest stands at its position
        self._older: list[PublicSession] = []  # that may still carry what their successors do not yet
        self._n_conns = 0
        for part in range(len(self.parts)):
            self.new_session(part)

    def new_session(self, part: int) -> PublicSession:
        """Return a session of a part's channels under a connection number of its own; it is the part's from now on."""
        session = PublicSession(self.parts[part], self._channels, conn=self._n_conns, buffer=self.buffer)
        self._n_conns += 1
        self._older = [older for older in self._older if older.link is not Link.DOWN]
        self._older += self.sessions[part : part + 1]
        self.sessions[part : part + 1] = [session]
        return session

    @property
    def n_links(self) -> tuple[int, int]:
        """Return how many channels are linked by some connection, and how many are wanted."""
        wanted = {channel for session in self.sessions for channel in session.channels}
        linked = {
            channel
            for session in (*self.sessions, *self._older)
            for channel, state in session.channels.items()
            if state is Channel.LINKED
        }
        return len(linked), len(wanted)

    def write(self, ticks: Ticks, until_ns: int, aside: Sequence[Aside] = (), *, is_durable: bool = True) -> None:
        """Append what `buffer.take()` and `take_aside` gave at `until_ns`; flush it unless told otherwise."""
        self.log.set_aside(aside)
        self.log.append(ticks)
        if is_durable:
            self.log.flush(until_ns)

    def take_aside(self, now_ns: int) -> list[Aside]:
        """Return what the sessions did not understand since the last call, as rows of the table `quarantine`."""
        rows: list[Aside] = []
        for session in (*self.sessions, *self._older):
            kept, more = session.quarantine.take()
            rows += [(row.recv_ns, row.where, row.what, row.raw, 1) for row in kept]
            if more:
                rows.append((now_ns, "other", "more of what is kept above", "", more))
        return rows

    def take_notes(self) -> list[Note]:
        """Return what a person should read, since the last call."""
        return [note for session in (*self.sessions, *self._older) for note in session.take_notes()]


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
