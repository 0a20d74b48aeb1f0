"""The market, second by second, and the account's own stream.

Ticks are taken from the buffer in small batches within the second, so that little is left to do when it closes: at
s + 1.0 the sampler gives row s, and the engine gets it at once. A stall that covers several seconds gives several
rows, each with its own second; the engine knows what is too late to trade on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from shared.bitget.account import PrivateSession
from shared.bitget.rest import Keys
from shared.bitget.session import PublicSession, shards
from shared.bitget.states import Channel, Link
from shared.bitget.streams import stream
from shared.bitget.ticks import TickBuffer
from shared.features.sampler import COLUMNS, Sampler
from shared.types import BOOKS5, NS, BookChannels, Event, LinkChanged, Note, SecondClosed

BATCH_S: Final = 0.1
"""How often the sampler takes what has come; ten batches a second cost less than one large one at its end."""

LAST_BATCH_S: Final = 0.01
"""The last batch before the close: what it leaves to the close is what comes within this time."""


class Market:
    """Public streams of a whole universe -> `SecondClosed` and `LinkChanged`.

    Args:
        url: WebSocket base, without /public.
        symbols: of the universe, the N axis.
        clock: ns, strictly increasing, shared by all streams.
        books: the book channel of each symbol; that of the recorder whose rows a model learned from.
    """

    def __init__(
        self,
        url: str,
        symbols: tuple[str, ...],
        tell: Callable[[Event], None],
        clock: Callable[[], int],
        log: Callable[[Note], None],
        books: BookChannels = BOOKS5,
    ) -> None:
        self._url, self._tell, self._clock, self._log = url, tell, clock, log
        self._buffer = TickBuffer(symbols)  # of full books the best levels alone: changes are for the lake
        self._sessions = [
            PublicSession(part, books.channels_of, conn=conn, buffer=self._buffer)
            for conn, part in enumerate(shards(symbols))
        ]
        self._sampler = Sampler(len(symbols), clock() // NS)
        self._is_up = False

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the streams connected and close the seconds until `stop` is set."""
        async with asyncio.TaskGroup() as group:
            for session in self._sessions:
                group.create_task(
                    stream(f"{self._url}/public", session, clock=self._clock, stop=stop, on_notes=self._take_notes)
                )
            group.create_task(self._close_seconds(stop))

    def _take_notes(self, notes: Sequence[Note]) -> None:
        for note in notes:
            self._log(note)
        self._look_at_links()

    def _look_at_links(self) -> None:
        """Tell when the first connection is lost, and when all are up and have been answered."""
        is_up = all(
            session.link is Link.UP and Channel.LINKED in session.channels.values() for session in self._sessions
        )
        if is_up is not self._is_up:
            self._is_up = is_up
            self._tell(LinkChanged(recv_ns=self._clock(), link="public", is_up=is_up))

    async def _close_seconds(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._look_at_links()
            now_ns = self._clock()
            self._take(now_ns // NS)
            left_s = (now_ns // NS + 1) - self._clock() / NS
            await asyncio.sleep(min(BATCH_S, left_s - LAST_BATCH_S if left_s > 2 * LAST_BATCH_S else max(left_s, 0.0)))

    def _take(self, until: int) -> None:
        """Sample what the buffer holds; tell every second before `until` that is new."""
        block = self._sampler.step(self._buffer.take(), until)
        n_seconds = until - block.first_second
        if n_seconds == 0:
            return
        rows = np.stack([block.columns[name] for name in COLUMNS])  # (C, T, N)
        for t in range(n_seconds):
            columns = np.ascontiguousarray(rows[:, t])
            self._tell(SecondClosed(recv_ns=self._clock(), second=block.first_second + t, columns=columns))


class AccountStream:
    """The private stream -> events of our orders.

    Raises (from `run`):
        ExchangeRefused: the login was refused.
    """

    def __init__(
        self,
        url: str,
        keys: Keys,
        tell: Callable[[Event], None],
        clock: Callable[[], int],
        log: Callable[[Note], None],
    ) -> None:
        self._url, self._tell, self._clock, self._log = url, tell, clock, log
        self._session = PrivateSession(keys)
        self.linked = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the stream connected until `stop` is set."""
        await stream(
            f"{self._url}/private",
            self._session,
            clock=self._clock,
            stop=stop,
            on_events=self._take_events,
            on_notes=self._take_notes,
        )

    def _take_events(self, events: Sequence[Event]) -> None:
        for event in events:
            self._tell(event)
        if self._session.is_linked:
            self.linked.set()
        else:
            self.linked.clear()

    def _take_notes(self, notes: Sequence[Note]) -> None:
        for note in notes:
            self._log(note)
