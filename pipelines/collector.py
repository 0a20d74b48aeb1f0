"""The one collector: public sessions -> tick buffer -> write-ahead log, with the clock given from outside.

`Collector` has no socket. `pipelines.collect` puts sockets and the wall clock around it, `pipelines.generate` a
simulated market and a virtual clock: history is written by the very code that records the real feed.

Every receipt is stamped by one `shared.bitget.transport.ReceiveClock`, which increases strictly: the order of rows
is a fact of the data.

Symbols come and go while it runs (`follow`). A new one is put on the connection that carries the fewest, on a new one
where all are full; what runs is not touched. Its position on the axis is behind those of before, for ever: one that is
gone keeps its own, and has it again when it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from shared.bitget.session import CHANNELS_MAX, PublicSession, shards
from shared.bitget.states import Channel, Link
from shared.bitget.ticks import TickBuffer
from shared.bitget.wire import Quarantine
from shared.errors import SettingsError
from shared.lake.wal import WriteAheadLog
from shared.lake.wal_records import Aside
from shared.settings import check_books
from shared.types import BOOKS5, BookChannels, Note, Ticks, Universe


class Followed(msgspec.Struct, frozen=True):
    """What a new universe changed."""

    new: tuple[str, ...]  # recorded from here on
    gone: tuple[str, ...]  # no longer recorded
    parts: tuple[int, ...]  # that were opened for the new ones: each needs a stream


class Collector:
    """Record some symbols of a universe.

    Args:
        session_id: names the log and its connections.
        symbols: what to record; () is everything that is listed, then and later.
        from_ns: earlier receipts are not recorded (see `WriteAheadLog`).
        owned_ns: [start, end) of the pushes to record, by the exchange's clock (see there); None: all of them.
        books: the book channel of each symbol; full books are kept change by change as well (`raw/depth`).
        channels: of every symbol; None: its book channel, trades and tickers.
        copies: connections that carry each channel; 2 survives the loss of one without a gap, and is recorded once.

    Raises:
        SettingsError: a wanted symbol, or one with a book channel of its own, is not listed.
    """

    def __init__(
        self,
        lake: Path,
        universe: Universe,
        session_id: str,
        *,
        symbols: Sequence[str] = (),
        books: BookChannels = BOOKS5,
        channels: tuple[str, ...] | None = None,
        from_ns: int = 0,
        owned_ns: tuple[int, int] | None = None,
        copies: int = 1,
    ) -> None:
        self.universe = universe
        self.symbols = wanted_symbols(universe, symbols)
        self._named = frozenset(symbols)
        check_books(books, universe.symbols, universe.source)
        self.books = books
        self._channels = channels or books.channels_of
        self._n_channels = len(channels or books.channels_of(""))
        self.log = WriteAheadLog(
            lake,
            universe.source,
            session_id,
            universe,
            from_ns=from_ns,
            owned_ns=owned_ns,
            has_depth=books.has_full,
        )
        self.buffer = TickBuffer(universe.symbols, has_depth=books.has_full)
        parts = shards(self.symbols, self._n_channels)
        self.parts = parts * copies
        self._copies = [copy for copy in range(copies) for _ in parts]  # which copy each part belongs to
        self.sessions: list[PublicSession] = []  # a part's newest stands at its position
        self._older: list[tuple[int, PublicSession]] = []  # of a part; may carry what their successors do not yet
        self._n_conns = 0
        for part in range(len(self.parts)):
            self.new_session(part)

    def new_session(self, part: int) -> PublicSession:
        """Return a session of a part's channels under a connection number of its own; it is the part's from now on."""
        session = PublicSession(self.parts[part], self._channels, conn=self._n_conns, buffer=self.buffer)
        self._n_conns += 1
        self._older = [(of, older) for of, older in self._older if older.link is not Link.DOWN]
        self._older += [(part, older) for older in self.sessions[part : part + 1]]
        self.sessions[part : part + 1] = [session]
        return session

    def follow(self, universe: Universe) -> Followed:
        """Record what has a market now, and what has none no longer; whose rows were received stays as it is."""
        self.buffer.grow(universe.symbols)
        wanted = {
            contract.symbol
            for contract in universe.contracts
            if contract.has_market and (not self._named or contract.symbol in self._named)
        }
        new, gone = tuple(sorted(wanted.difference(self.symbols))), tuple(sorted(set(self.symbols) - wanted))
        self.universe, self.symbols = universe, tuple(sorted(wanted))
        for part, symbols in enumerate(self.parts):
            if not wanted.issuperset(symbols):
                self.parts[part] = tuple(symbol for symbol in symbols if symbol in wanted)
                for session in self._sessions_of(part):
                    session.leave(gone)
        parts = [part for copy in sorted(set(self._copies)) for part in self._put(new, copy)]
        return Followed(new, gone, tuple(parts))

    def _put(self, symbols: Sequence[str], copy: int) -> list[int]:
        """Give symbols to the connections of one copy, the emptiest first; return the parts that were opened."""
        mine = [part for part, of in enumerate(self._copies) if of == copy]
        room = {part: min(self._room(session) for session in self._sessions_of(part)) for part in mine}
        given: dict[int, list[str]] = {}
        left: list[str] = []
        for symbol in symbols:
            part = max(mine, key=room.__getitem__)
            if room[part] > 0:
                given.setdefault(part, []).append(symbol)
                room[part] -= 1
            else:
                left.append(symbol)
        for part, more in given.items():
            self.parts[part] += tuple(more)
            for session in self._sessions_of(part):
                session.follow(more)
        opened = []
        for shard in shards(tuple(left), self._n_channels) if left else ():
            opened.append(len(self.parts))
            self.parts.append(shard)
            self._copies.append(copy)
            self.new_session(opened[-1])
        return opened

    def _room(self, session: PublicSession) -> int:
        """Return how many symbols more a connection can carry."""
        return (CHANNELS_MAX - len(session.channels)) // self._n_channels

    def _sessions_of(self, part: int) -> list[PublicSession]:
        """Return the sessions of a part, any of which may be the one that goes on."""
        return [self.sessions[part], *(older for of, older in self._older if of == part)]

    def _all_sessions(self) -> list[PublicSession]:
        return [*self.sessions, *(older for _, older in self._older)]

    @property
    def n_links(self) -> tuple[int, int]:
        """Return how many channels are linked by some connection, and how many are wanted."""
        states = [item for session in self.sessions for item in session.channels.items()]
        wanted = {channel for channel, state in states if state is not Channel.LEAVING}
        linked = {
            channel
            for session in self._all_sessions()
            for channel, state in session.channels.items()
            if state is Channel.LINKED and session.carries(channel)
        }
        return len(linked), len(wanted)

    def take_strangers(self) -> set[str]:
        """Return the symbols that were pushed since the last call and that no universe has named so far."""
        found: set[str] = set()
        for session in self._all_sessions():
            found |= session.strangers
            session.strangers.clear()
        return found - self.buffer.index.keys()

    def write(self, ticks: Ticks, until_ns: int, aside: Sequence[Aside] = (), *, is_durable: bool = True) -> None:
        """Append what `buffer.take()` and `take_aside` gave at `until_ns`; flush it unless told otherwise."""
        self.log.grow(self.buffer.symbols)  # read after `take`: the axis may be longer than the rows need, not shorter
        self.log.set_aside(aside)
        self.log.append(ticks)
        if is_durable:
            self.log.flush(until_ns)

    def take_aside(self, now_ns: int, *others: Quarantine) -> list[Aside]:
        """Return what the sessions (and others) did not understand since the last call, as rows of `quarantine`."""
        rows: list[Aside] = []
        for quarantine in (*(session.quarantine for session in self._all_sessions()), *others):
            kept, more = quarantine.take()
            rows += [(row.recv_ns or now_ns, row.where, row.what, row.raw, 1) for row in kept]
            if more:
                rows.append((now_ns, "other", "more of what is kept above", "", more))
        return rows

    def take_notes(self) -> list[Note]:
        """Return what a person should read, since the last call."""
        return [note for session in self._all_sessions() for note in session.take_notes()]


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
