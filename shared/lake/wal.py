"""The write-ahead log: what was received and is not sealed yet, one folder an hour and session.

A log is three Arrow IPC *streams* (book, trade, ticker), and a fourth (depth) where full books are recorded. A stream
needs no footer, so whatever was flushed can be read, whenever the writer dies. Each batch carries, as metadata, the CRC
of its buffers and the receipt up to which its table is complete (`until_ns`). Rows hold positions on an axis of symbols
that only ever grows at its end: a stream begins with the names known so far, and a batch without rows carries those
that came later, ahead of their rows.

    ended     a file `ended` lies beside the streams: the hour was over, or the session was closed (links written as
              DISCONNECTED); every byte must be readable
    alive     the writer holds a lock (flock) on `book.arrow`, which the kernel drops when it dies, however it dies;
              what follows the last whole batch is still being written
    dead      neither: what follows the last whole batch is lost, and every link counts as DISCONNECTED one ns after
              `until_ns`, because nobody was listening from there

An hour stands alone (see `shared.features.sampler`): at its first instant every link that is up writes a CARRIED
row with the last state of its symbol since that symbol's links were last all down, NaN where this very connection has
pushed nothing: its silence does not mean "unchanged". Full books are carried whole, each connection's own. The new
hour is on disk before the old one is ended, and a folder appears under its name only when it is locked and whole.

Here it is written. What a batch is made of stands in `wal_records`, what is up and carried in `links`; `wal_reading`
reads a log back, whatever became of its writer.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from shared.errors import LakeError
from shared.lake import layout
from shared.lake.layout import DEPTH, HOUR_NS, RAW, RECEIPTS, Rows
from shared.lake.links import links_of
from shared.lake.receipts import between, link_rows
from shared.lake.wal_records import ASIDE, ENDED, Aside, Stream, stream_path
from shared.replaced import sync_folder
from shared.types import TickEvent, Ticks, Universe


class WriteAheadLog:
    """Append receipts of one session; the hour in which a row was received decides where it goes.

    Args:
        root: the lake's folder (local).
        session_id: unique among the logs that are not sealed; part of the name of every connection.
        universe: its symbols are the axis that the ticks refer to, until it grows.
        from_ns: rows received earlier only tell which links are up and what was last seen; the first hour begins
            with them CARRIED at this time. Whoever connects a little early covers [from_ns, …) without a seam.
        owned_ns: [start, end) by the exchange's clock; other pushes of book, trade and ticker only tell what was last
            seen. Recorders that relieve one another overlap, and each push reaches them at different times: what
            both see in it is the exchange's. So each push is recorded by one of them, and none by neither. (A full
            book is a chain of changes, a connection's own: it is recorded as it comes.) None: everything.
        has_depth: full books are recorded, too: the ticks bring `depth`.

    Raises:
        LakeError: the log cannot be written (disk full, permission lost): stop, what was flushed is safe.
    """

    def __init__(
        self,
        root: Path,
        source: str,
        session_id: str,
        universe: Universe,
        *,
        from_ns: int = 0,
        owned_ns: tuple[int, int] | None = None,
        has_depth: bool = False,
    ) -> None:
        self.root, self.source = root, layout.check_name(source, "source")
        self.session_id = layout.check_name(session_id, "session")
        self.symbols = universe.symbols
        self.from_ns, self.owned_ns = from_ns, owned_ns
        self.tables = tuple(RECEIPTS if has_depth else RAW)
        self.rows = dict.fromkeys(self.tables, 0)  # appended by the caller
        self.hours: list[int] = []  # that were written to
        self.until_ns = 0  # everything received up to here was appended
        self._streams: dict[str, Stream] = {}
        self._hour: int | None = None  # None: nothing was received yet, or closed
        self._conns: dict[int, int] = {}  # the session's number -> name in the lake
        self._links = {table: links_of(table, len(self.symbols)) for table in self.tables}
        self._broken_by: OSError | None = None
        self._aside: list[Aside] = []  # not written yet

    def set_aside(self, rows: Sequence[Aside]) -> None:
        """Keep what was not understood beside the rows; durable after the next `flush`.

        It lies in the hour that is open when it is flushed, or in that of its receipt where this one is later.
        """
        self._aside += rows

    def grow(self, symbols: tuple[str, ...]) -> None:
        """Let the axis be these symbols, which begin with those of before; the rows of new ones may follow."""
        added = symbols[len(self.symbols) :]
        assert symbols[: len(self.symbols)] == self.symbols, "the axis grows at its end: rows hold positions on it"
        assert len(set(symbols)) == len(symbols), "a symbol has one position"
        if not added:
            return
        with self._writing():
            for stream in self._streams.values():
                stream.grow(added)
        self.symbols = symbols
        for links in self._links.values():
            links.grow(len(symbols))

    def append(self, ticks: Ticks) -> None:
        """Write rows in order of receipt; they are durable after the next `flush`."""
        self._check()
        tables: dict[str, Rows] = {"raw/book": ticks.books, "raw/trade": ticks.trades, "raw/ticker": ticks.tickers}
        if ticks.depth is not None:
            assert DEPTH in self.tables, "a log takes full books where it was told so"
            tables[DEPTH] = ticks.depth
        received = [rows.recv_ns for rows in tables.values() if len(rows.recv_ns)]
        if not received:
            return
        first_ns, last_ns = min(int(r[0]) for r in received), max(int(r[-1]) for r in received)
        assert self._hour is None or first_ns >= self._hour * HOUR_NS, f"{first_ns} is before open hour {self._hour}"
        tables = {table: self._name_conns(rows) for table, rows in tables.items()}
        if first_ns < self.from_ns:
            assert self._hour is None, f"receipt {first_ns} came after the session's first hour was begun"
            tables = {table: self._only_note(table, rows) for table, rows in tables.items()}
        if last_ns < self.from_ns:
            return
        if self._hour is None:
            self._open(max(first_ns, self.from_ns) // HOUR_NS)
        assert self._hour is not None
        while True:
            end_ns = (self._hour + 1) * HOUR_NS
            until_ns = min(last_ns, end_ns - 1)
            for table, rows in tables.items():
                n = int(np.searchsorted(rows.recv_ns, end_ns))
                self.rows[table] += self._write(table, between(rows, 0, n), until_ns)
                tables[table] = between(rows, n, len(rows.recv_ns))
            self.until_ns = max(self.until_ns, until_ns)
            if last_ns < end_ns:
                return
            self._rotate()

    def flush(self, until_ns: int | None = None) -> None:
        """Make durable what was appended.

        Args:
            until_ns: everything received up to here was appended, also where that was nothing; None: up to the
                last row. Hours that are over by then are ended.
        """
        until_ns = max(self.until_ns, until_ns or 0)
        if self._hour is None:
            if until_ns < self.from_ns or not any(links.up() for links in self._links.values()):
                return
            self._open(max(until_ns, self.from_ns) // HOUR_NS)  # connected early, and nothing has come since
        assert self._hour is not None
        while until_ns >= (self._hour + 1) * HOUR_NS:
            self._rotate()
        self.until_ns = until_ns
        with self._writing():
            for stream in self._streams.values():
                if stream.until_ns < until_ns:
                    stream.mark(until_ns)
                stream.sync()
            if self._aside:
                self._write_aside()

    def close(self, now_ns: int | None = None) -> None:
        """End the session cleanly: every link becomes DISCONNECTED, now or one ns after the last receipt.

        Closed on the stroke of an hour, the links end one ns before it: an hour is not begun to say that it is empty.
        """
        now_ns = max(self.until_ns + 1, now_ns or 0)
        self.flush(now_ns - 1)
        if self._hour is None:
            return
        at_ns = min(now_ns, (self._hour + 1) * HOUR_NS - 1)
        for table, links in self._links.items():
            self._write(table, link_rows(table, links.up(), TickEvent.DISCONNECTED, at_ns), at_ns)
        self.until_ns = at_ns
        self._end(hour=self._hour, streams=self._streams)
        self._streams, self._hour = {}, None

    def abandon(self) -> None:
        """Let go of the log as a killed process does: nothing more is written, what was flushed can be sealed."""
        for stream in self._streams.values():
            stream.file.raw.close()  # not `file.close()`, which would write what is buffered
        self._streams, self._hour = {}, None

    def _write_aside(self) -> None:
        assert self._hour is not None
        begin_ns, end_ns = self._hour * HOUR_NS, (self._hour + 1) * HOUR_NS - 1
        rows, self._aside = self._aside, []
        with (self._folder(self._hour) / ASIDE).open("ab") as file:
            for recv_ns, where, what, raw, count in rows:
                at_ns = min(max(recv_ns, begin_ns), end_ns)
                file.write(msgspec.json.encode((at_ns, where, what, raw, count)) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _write(self, table: str, rows: Rows, until_ns: int) -> int:
        """Write what is ours of these rows, take note of them all, and return how many were written."""
        if not len(rows.recv_ns):
            return 0
        ours = rows
        if self.owned_ns is not None and table in RAW:
            begin_ns, end_ns = self.owned_ns
            is_ours = (rows.event >= TickEvent.SUBSCRIBED) | ((rows.exch_ns >= begin_ns) & (rows.exch_ns < end_ns))
            if not is_ours.all():
                ours = type(rows)(**{field: getattr(rows, field)[is_ours] for field in rows.__struct_fields__})
        if len(ours.recv_ns):
            with self._writing():
                self._streams[table].write(ours, until_ns)
        self._links[table].note(rows)
        return len(ours.recv_ns)

    def _only_note(self, table: str, rows: Rows) -> Rows:
        """Take note of the rows before `from_ns`, return the others."""
        n = int(np.searchsorted(rows.recv_ns, self.from_ns))
        self._links[table].note(between(rows, 0, n))
        return between(rows, n, len(rows.recv_ns))

    def _name_conns(self, rows: Rows) -> Rows:
        named = np.empty_like(rows.conn)
        for conn in np.unique(rows.conn).tolist():
            name = self._conns.setdefault(conn, layout.conn_name(self.session_id, conn))
            named[rows.conn == conn] = name
        return msgspec.structs.replace(rows, conn=named)

    def _open(self, hour: int) -> None:
        """Begin an hour; what is up is carried into it before anyone can see its folder."""
        folder = self._folder(hour)
        with self._writing():
            is_taken = folder.exists()
        if is_taken:
            raise LakeError(
                f"session {self.session_id} must be new, found its log for {layout.hour_name(hour)}: "
                "wait for the process that writes it, or seal the hour if that is gone"
            )
        unborn = folder.with_name(f".{folder.name}")
        with self._writing():
            if unborn.exists():  # its process died right here, before anything in it counted as flushed
                shutil.rmtree(unborn)
            unborn.mkdir(parents=True)
            streams = {table: Stream(stream_path(unborn, table), table, self.symbols) for table in self.tables}
            at_ns = max(hour * HOUR_NS, self.from_ns)
            for table, stream in streams.items():
                stream.write(self._links[table].carried(at_ns), at_ns)
                stream.sync()
            unborn.rename(folder)
            sync_folder(folder.parent)
        self._streams, self._hour = streams, hour
        self.hours.append(hour)

    def _rotate(self) -> None:
        assert self._hour is not None
        hour, streams = self._hour, self._streams
        self.until_ns = (hour + 1) * HOUR_NS - 1
        self._open(hour + 1)
        self._end(hour, streams)

    def _folder(self, hour: int) -> Path:
        return layout.log_folder(self.root, self.source, hour) / f"session={self.session_id}"

    def _end(self, hour: int, streams: dict[str, Stream]) -> None:
        with self._writing():
            for stream in streams.values():
                stream.sync()
            (self._folder(hour) / ENDED).touch()
            sync_folder(self._folder(hour))
            for stream in streams.values():
                stream.file.close()  # and so its lock

    def _check(self) -> None:
        if self._broken_by is not None:
            raise LakeError(f"the log of session {self.session_id} was given up after {self._broken_by}: restart")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what the disk says into one sentence; after it nothing is appended behind a torn batch."""
        self._check()
        try:
            yield
        except OSError as error:
            self._broken_by = error
            self.abandon()
            raise LakeError(
                f"the log of session {self.session_id} below {self.root} cannot be written: {error}; "
                "what was flushed is safe: make room or restore the permission, then restart"
            ) from error
