"""What a recorder tells while it runs: figures for Prometheus, and how much room a day takes.

The figures are those somebody would be woken for: is every channel linked, are rows coming, how old is what is
durable, is there room, did anything arrive that was not understood.
"""

from __future__ import annotations

import collections
import shutil
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from pipelines.collector import Collector
from shared.errors import SettingsError
from shared.lake.layout import HOUR_S
from shared.types import FULL_BOOKS, NS

DAY_S = 86_400
ROWS_PER_S = {"book": 8.0, "ticker": 9.0, "trade": 1.0, "depth": 80.0}
"""Of one symbol, as measured of Bitget in September 2026: a book every 125 ms, a ticker every 105; trades vary. A
push of `books` has 430 bytes (150 symbols, September 2026), which is about ten levels; a row of depth is a level."""

SEALED_BYTES = {"book": 110.0, "ticker": 40.0, "trade": 12.0, "depth": 6.0}
"""A row in a sealed hour (`python -m benchmarks.sizes`, `benchmarks.recorder`); of a book with 15 levels."""

BOOK_BYTES = {"books1": 25.0, "books5": 55.0}
"""A row of a book of fewer levels in a sealed hour."""

LOG_BYTES = {"book": 350.0, "ticker": 110.0, "trade": 40.0, "depth": 40.0}
"""A row in the write-ahead log and, while its hour is sealed, in the runs beside it: of recorded books with 15 levels
140 and 206, of trades 12 and 17."""


class Meter:
    """The figures of one recorder.

    Args:
        port: of this machine, where `/metrics` is answered; None: nowhere, 0: a free one.

    Raises:
        SettingsError: the port is taken.
    """

    def __init__(self, port: int | None = None) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"crosscut_collect_{name}", text, labels, registry=self.registry)

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"crosscut_collect_{name}", text, labels, registry=self.registry)

        self._rows = counter("rows", "Rows appended to the log, link rows included", ("table",))
        self._repeats = counter("repeats", "Pushes left out because they had been brought before")
        self._quarantined = counter("quarantined", "Payloads that were not understood")
        self._linked = gauge("channels_linked", "Channels that some connection carries")
        self._wanted = gauge("channels_wanted", "Channels that should be carried")
        self._durable = gauge("durable_timestamp_seconds", "Everything received up to this time is on disk")
        self._free = gauge("free_bytes", "Room on the disk of the lake")
        self._symbols = gauge("symbols", "Symbols that are recorded")
        self._listed = gauge("universe_timestamp_seconds", "What is listed is known as of this time")
        self._told = dict.fromkeys(("repeats", "quarantined"), 0)
        self._told_rows: dict[str, int] = {}
        self.port: int | None = None
        if port is not None:
            try:
                server, _ = start_http_server(port, "127.0.0.1", self.registry)
            except OSError as error:
                raise SettingsError(
                    f"--metrics-port {port} must be free on this machine, found: {error.strerror}: choose another, or 0"
                ) from None
            self.port = server.server_port

    def note(self, collector: Collector, n_aside: int, free_bytes: int, listed_ns: int) -> None:
        """Take down what stands after a second."""
        for table, rows in collector.log.rows.items():
            self._rows.labels(table=table).inc(rows - self._told_rows.get(table, 0))
            self._told_rows[table] = rows
        self._repeats.inc(collector.buffer.repeats - self._told["repeats"])
        self._told["repeats"] = collector.buffer.repeats
        self._quarantined.inc(n_aside)
        linked, wanted = collector.n_links
        self._linked.set(linked)
        self._wanted.set(wanted)
        self._durable.set(collector.log.until_ns / NS)
        self._free.set(free_bytes)
        self._symbols.set(len(collector.symbols))
        self._listed.set(listed_ns / NS)


def free_bytes(lake: Path) -> int:
    """Return the room on the disk that a lake's folder is on, or will be."""
    while not lake.exists():
        lake = lake.parent
    return shutil.disk_usage(lake).free


def projection(books: Sequence[str], free: int) -> str:
    """Say what recording takes at Bitget's full pace.

    Args:
        books: the book channel of every symbol.
    """
    day = hour = 0.0
    for channel, n_symbols in collections.Counter(books).items():
        tables = [table for table in ROWS_PER_S if table != "depth" or channel == FULL_BOOKS]
        sealed = SEALED_BYTES | {"book": BOOK_BYTES.get(channel, SEALED_BYTES["book"])}
        day += n_symbols * DAY_S * sum(ROWS_PER_S[table] * sealed[table] for table in tables)
        hour += n_symbols * HOUR_S * sum(ROWS_PER_S[table] * LOG_BYTES[table] for table in tables)
    days = max(0.0, free - hour) / day
    return (
        f"at Bitget's full pace {len(books)} symbols take about {day / 1e9:.2g} GB a day, and {hour / 1e9:.2g} GB "
        f"while an hour is open; {free / 1e9:.0f} GB are free: {days:.1f} days"
    )
