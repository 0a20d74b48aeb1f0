"""`python -m pipelines.collect`: record the public feed of every listed symbol into the lake, until told to stop.

The long-lived service. One loop receives; once a second what was received is appended to the write-ahead log and
fsynced in a thread, so that the disk does not hold up the sockets. Hours are sealed when they are over, by a child
process beside the recording (`pipelines.seal`), and so is, from the start on, what a killed predecessor left behind.
What is listed is followed (`pipelines.discovery`): a new symbol is recorded within a minute, one that is gone is left.
On SIGINT or SIGTERM, or after --seconds, links are written as ended and the rest is sealed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipelines.collector import Collector
from pipelines.discovery import Discovery, Every
from pipelines.meter import Meter, free_bytes, projection
from pipelines.moments import second_of
from pipelines.seal import seal_beside, told
from pipelines.universe import discover, source_at
from shared import allocator, entry, log, settings, simulator_process
from shared.bitget.streams import ROTATE_S, rotate
from shared.bitget.transport import ReceiveClock, RestClient
from shared.errors import CrosscutError, ExchangeSilent, LakeError, SettingsError
from shared.lake import layout, write
from shared.lake.layout import HOUR_NS, HOUR_S
from shared.types import BOOKS5, NS, BookChannels, Note, Universe

WRITE_S = 1.0
"""What a crash loses at most, and how far a reader of the open hour is behind."""

OVERLAP_S = 5.0
"""How long recorders that relieve one another listen both. A push that takes longer, or longer less what our clock is
wrong by, is lost at the border."""

SERVICE = "collect"
"""How names of sessions begin that go on until they are told to stop; see `hour_session`."""

FREE_BYTES_MIN = 1e9

_REPORT_S = 10.0


def hour_session(hour: int) -> str:
    """Return how names of sessions begin that record one hour and end with it."""
    return f"hour{hour}"


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """What a run recorded."""

    source: str
    session: str
    seconds: float
    symbols: int
    rows: dict[str, int]  # raw table -> rows received in this run, link rows included
    seals: tuple[write.SealReport, ...]


async def collect(
    rest_url: str,
    ws_url: str,
    lake: Path,
    source: str,
    *,
    stop: asyncio.Event,
    symbols: Sequence[str] = (),
    hour: int | None = None,
    books: BookChannels = BOOKS5,
    copies: int = 1,
    rotate_s: float = ROTATE_S,
    free_bytes_min: float = FREE_BYTES_MIN,
    gauges: Meter | None = None,
    clock: ReceiveClock | None = None,
    every: Every | None = None,
    progress: Callable[[str], None] = lambda line: None,
    on_notes: Callable[[Sequence[Note]], None] = lambda notes: None,
) -> Collected:
    """Record until `stop` is set, then seal.

    Args:
        symbols: () is everything that is listed, then and later.
        hour: epoch hour whose pushes are recorded, those of the hours beside it are not; be there `OVERLAP_S` before
            it and after it. None: everything until the stop.
        books: the book channel of each symbol.
        copies: connections that carry each channel.
        rotate_s: age at which a connection is replaced by a new one.
        free_bytes_min: with less room on the lake's disk recording ends, while there is enough to seal.
        gauges: is told every second how it goes.
        clock: stamps every receipt; None: the wall clock.
        every: how often what is listed is looked at.

    Raises:
        ExchangeError: what is listed cannot be found out at the start; a stream that is lost later is not an error.
        SettingsError: a wanted symbol is not listed.
        LakeError: the disk refuses, or is nearly full. What was flushed is sealed, by the next start at the latest.
    """
    clock = clock or ReceiveClock()
    async with RestClient(rest_url, None, clock=clock) as rest:
        universe = await discover(rest, lake, source)
        began_ns = clock()
        collector = Collector(
            lake,
            universe,
            f"{SERVICE if hour is None else hour_session(hour)}-{began_ns // NS}-{os.getpid()}",
            symbols=symbols,
            from_ns=0 if hour is None else hour * HOUR_NS - round(OVERLAP_S * NS),
            owned_ns=None if hour is None else (hour * HOUR_NS, (hour + 1) * HOUR_NS),
            books=books,
            copies=copies,
        )
        collector.follow(universe)
        progress(f"recording {len(collector.symbols)} symbols of {source} over {len(collector.sessions)} connections")
        progress(projection([books.of(symbol) for symbol in collector.symbols], free_bytes(lake)))
        streams = _Streams(f"{ws_url}/public", collector, clock, rotate_s, progress, on_notes)
        discovery = Discovery(
            rest,
            lake,
            universe,
            clock=clock,
            on_universe=streams.follow,
            progress=progress,
            on_notes=on_notes,
            every=every,
        )
        watching = _watch(discovery, stop, progress)
        sealer = _Sealer(lake, source, progress)
        if hour is None:  # who records an hour seals what a predecessor left in it with the rest, when it is over
            sealer.start(" of an earlier run")
        try:
            free = await _write_until(
                stop, collector, clock, streams.tasks, sealer, progress, free_bytes_min, gauges, discovery
            )
        except BaseException:
            collector.log.abandon()
            raise
        finally:
            for task in watching:
                task.cancel()
            watched = await asyncio.gather(*watching, return_exceptions=True)
            await streams.end()
        # The streams have noted in the buffer that their links are down.
        now_ns = clock()
        collector.write(collector.buffer.take(), now_ns, collector.take_aside(now_ns, rest.quarantine))
        collector.log.close(clock())
    if not collector.log.hours and free >= free_bytes_min:
        raise ExchangeSilent(
            f"{ws_url}/public must accept subscriptions, found none of {collector.n_links[1]} channels linked in the "
            f"{(clock() - began_ns) / NS:.1f} s until the stop: let it run longer, or see the log lines above"
        )
    progress(f"stopped after {(clock() - began_ns) / NS:.0f} s: sealing")
    seals = (*await sealer.finish(), *write.seal_all(lake, source))
    if free < free_bytes_min:
        raise LakeError(
            f"{lake} must have {free_bytes_min / 1e9:g} GB free, found {free / 1e9:.2g}: recording has ended and what "
            "was received is sealed; make room (or lower --free-gb-min), then run it again"
        )
    for outcome in watched:
        if isinstance(outcome, Exception):
            raise outcome  # a mistake of ours; told when it happened, and not worth an hour of data
    return Collected(
        source=source,
        session=collector.log.session_id,
        seconds=round((clock() - began_ns) / NS, 3),
        symbols=len(collector.symbols),
        rows=dict(collector.log.rows),
        seals=seals,
    )


class _Streams:
    """One stream for each part of a collector, more when it opens more."""

    def __init__(
        self,
        url: str,
        collector: Collector,
        clock: ReceiveClock,
        rotate_s: float,
        progress: Callable[[str], None],
        on_notes: Callable[[Sequence[Note]], None],
    ) -> None:
        self._collector, self._progress = collector, progress
        self._gone = asyncio.Event()
        self._rotate = functools.partial(rotate, url, clock=clock, stop=self._gone, every_s=rotate_s, on_notes=on_notes)
        self.tasks: list[asyncio.Task[None]] = []
        self._open(range(len(collector.sessions)))

    def follow(self, universe: Universe) -> None:
        """Record what has a market now: new symbols on the connections that run, or on new ones."""
        followed = self._collector.follow(universe)
        self._open(followed.parts)
        if followed.new or followed.gone:
            self._progress(
                f"recording {len(self._collector.symbols)} symbols over {len(self._collector.sessions)} connections: "
                f"{len(followed.new)} new, {len(followed.gone)} gone"
            )

    async def end(self) -> None:
        """Close every connection; the buffer then says that the links are down."""
        self._gone.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def _open(self, parts: Iterable[int]) -> None:
        for part in parts:
            renew = functools.partial(self._collector.new_session, part)
            self.tasks.append(asyncio.create_task(self._rotate(self._collector.sessions[part], renew)))


def _watch(
    discovery: Discovery, stop: asyncio.Event, progress: Callable[[str], None]
) -> tuple[asyncio.Task[None], ...]:
    """Follow what is listed beside the recording, which goes on whatever becomes of it."""

    def told(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            progress(f"what is listed is not followed any more, recording goes on: {type(error).__name__} {error}")

    tasks = tuple(asyncio.create_task(follow(stop)) for follow in (discovery.follow, discovery.follow_tiers))
    for task in tasks:
        task.add_done_callback(told)
    return tasks


class _Sealer:
    """Seal the hours that are over, in a child process; recording goes on whatever becomes of it."""

    def __init__(self, lake: Path, source: str, progress: Callable[[str], None]) -> None:
        self._lake, self._source, self._progress = lake, source, progress
        self._task: asyncio.Task[None] | None = None
        self._is_wanted = False
        self._reports: list[write.SealReport] = []

    def start(self, whose: str = "") -> None:
        """Seal what can be sealed by now; while that goes on, it is done again afterwards."""
        self._is_wanted = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._seal(whose))

    async def finish(self) -> list[write.SealReport]:
        """Return what was sealed, when the last seal has ended."""
        if self._task is not None:
            await self._task
        return self._reports

    async def _seal(self, whose: str) -> None:
        while self._is_wanted:
            self._is_wanted = False
            if not write.unsealed(self._lake, self._source):
                continue
            try:
                reports = await seal_beside(self._lake, self._source)
            except CrosscutError as error:
                self._progress(f"not sealed, and tried again at the end: {error}")
                continue
            self._reports += () if whose else reports
            for report in reports:
                self._progress(told(report, whose))
            whose = ""


async def _write_until(
    stop: asyncio.Event,
    collector: Collector,
    clock: ReceiveClock,
    streams: Sequence[asyncio.Task[None]],
    sealer: _Sealer,
    progress: Callable[[str], None],
    free_bytes_min: float,
    gauges: Meter | None,
    discovery: Discovery,
) -> int:
    """Append and flush once a second until `stop` is set or the room runs out; return the room there is."""
    free = free_bytes(collector.log.root)
    reported_s, rows_then = time.monotonic(), 0
    while not stop.is_set() and free >= free_bytes_min:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WRITE_S):
                await stop.wait()
        # Taken and stamped in one turn of the loop: nothing received before `until_ns` is missing.
        ticks, until_ns = collector.buffer.take(), clock()
        aside = collector.take_aside(until_ns, discovery.quarantine)
        discovery.call(collector.take_strangers())
        n_hours = len(collector.log.hours)
        await asyncio.to_thread(collector.write, ticks, until_ns, aside)
        free = free_bytes(collector.log.root)
        if gauges is not None:
            gauges.note(collector, sum(row[-1] for row in aside), free, discovery.universe.as_of_ns)
        if n_hours and len(collector.log.hours) > n_hours:
            sealer.start()
        for task in streams:
            if task.done():
                task.result()  # a stream ends only by an error: raise it here
        if (elapsed_s := time.monotonic() - reported_s) >= _REPORT_S:
            rows, (up, wanted) = sum(collector.log.rows.values()), collector.n_links
            progress(f"{rows:,} rows, {(rows - rows_then) / elapsed_s:,.0f} a second, {up} of {wanted} channels linked")
            reported_s, rows_then = time.monotonic(), rows
    return free


# ------------------------------------------------------------------------------------------------ command line


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m pipelines.collect",
        description="Record order books, trades and tickers of every listed symbol into the lake, until SIGINT or "
        "SIGTERM. MARKET=bitget records Bitget's public feed (no keys needed); MARKET=simulator, the default, the "
        "simulator at BITGET_REST_URL and BITGET_WS_URL or, where these are unset, one that is started for this run. "
        "Progress goes to stderr, the last line on stdout is a JSON summary.",
    )
    p.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    p.add_argument("--seconds", type=float, help="stop after so many seconds (default: when told to)")
    p.add_argument(
        "--hour",
        help="record exactly the hour that begins then, like 2026-11-22T08:00 (UTC): connect now, stop when it is "
        "over. Whoever records the next hour starts half a minute before it, and nothing is lost between them",
    )
    p.add_argument(
        "--copies", type=int, default=1, help="connections that carry each channel; 2 outlives the loss of one"
    )
    p.add_argument(
        "--free-gb-min", type=float, default=FREE_BYTES_MIN / 1e9, help="end with less room than this (default: 1)"
    )
    p.add_argument(
        "--metrics-port", type=int, help="answer Prometheus at this port of loopback; 0: a free one (default: none)"
    )
    p.add_argument(
        "--symbols", help="comma separated (default: SYMBOLS, which is everything that is listed, then and later)"
    )
    p.add_argument(
        "--books",
        help="book channel of all symbols, and of some of them another: books15, or books5,BTCUSDT=books "
        "(default: BOOKS, which is books5). live.run must have the same setting",
    )
    return p


async def run(args: argparse.Namespace) -> Collected:
    """Do what the command line asks, with a simulator of our own where that is needed."""
    config = settings.load(lake_uri=args.lake, symbols=args.symbols, books=args.books)
    lake = config.lake
    if args.seconds is not None and not args.seconds > 0:
        raise SettingsError(f"--seconds must be above 0, found {args.seconds:g}")
    begin_s = _begin_of(args.hour)
    if not 1 <= args.copies <= 3:
        raise SettingsError(
            f"--copies must be 1 to 3, found {args.copies}: every copy is another full set of connections"
        )
    if not args.free_gb_min >= 0:
        raise SettingsError(f"--free-gb-min must not be negative, found {args.free_gb_min:g}")
    if args.metrics_port is not None and not 0 <= args.metrics_port < 65536:
        raise SettingsError(f"--metrics-port must be a port, 0 to 65535, found {args.metrics_port}")
    gauges = Meter(args.metrics_port)
    if gauges.port is not None:
        _say(f"metrics at http://127.0.0.1:{gauges.port}/metrics")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    logger = log.get("collect")

    def on_notes(notes: Sequence[Note]) -> None:
        for note in notes:
            logger.info(note.event, **note.fields)

    symbols = config.symbols if args.symbols else config.wanted_symbols
    with contextlib.ExitStack() as stack:
        urls, simulator = config.market_urls(), None
        if urls is None:
            simulator = stack.enter_context(simulator_process.start())
            urls, source = (simulator.rest, simulator.ws), simulator.source
            _say(f"started a simulator: {simulator.ready.get('note', source)}")
        else:
            source = await source_at(urls[0])
        if begin_s is not None:  # by the clock of now: starting took its time
            left_s = begin_s + HOUR_S + OVERLAP_S - time.time()
            args.seconds = left_s if args.seconds is None else min(args.seconds, left_s)
        async with _stopping_after(args.seconds, simulator, stop):
            done = await collect(
                *urls,
                lake,
                source,
                stop=stop,
                symbols=symbols,
                hour=None if begin_s is None else begin_s // HOUR_S,
                books=config.books,
                copies=args.copies,
                free_bytes_min=args.free_gb_min * 1e9,
                gauges=gauges,
                progress=_say,
                on_notes=on_notes,
            )
        if simulator is not None and (code := simulator.process.poll()) is not None:
            raise ExchangeSilent(
                f"the simulator must run until it is stopped, found it ended with {code} after {done.seconds:.0f} s: "
                f"what came before is sealed in {lake}, run it again"
            )
    return done


def _begin_of(hour: str | None) -> int | None:
    """Return the second at which the hour to record begins, None where none is asked for."""
    begin_s = second_of(hour)
    if begin_s is None:
        return None
    if begin_s % HOUR_S:
        raise SettingsError(f"--hour must be the beginning of an hour, like 2026-11-22T08:00, found {hour}: round it")
    if time.time() >= begin_s + HOUR_S:
        raise SettingsError(f"--hour must not be over, found {hour}: record a later one")
    return begin_s


@contextlib.asynccontextmanager
async def _stopping_after(
    seconds: float | None, simulator: simulator_process.SimulatorProcess | None, stop: asyncio.Event
) -> AsyncIterator[None]:
    """Set `stop` after so many seconds, or when the simulator that we started has died."""

    async def watch() -> None:
        deadline_s = None if seconds is None else time.monotonic() + seconds
        while deadline_s is None or time.monotonic() < deadline_s:
            if simulator is not None and simulator.process.poll() is not None:
                break
            left_s = WRITE_S if deadline_s is None else min(WRITE_S, deadline_s - time.monotonic())
            await asyncio.sleep(max(0.0, left_s))
        stop.set()

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    log.configure()
    allocator.give_back_large()
    try:
        import uvloop

        done = uvloop.run(run(args))
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(summary(done), ensure_ascii=False))
    return 0


def summary(done: Collected) -> dict[str, Any]:
    """Return what a program that calls us wants to know."""
    return {
        "command": "collect",
        "source": done.source,
        "session": done.session,
        "seconds": done.seconds,
        "symbols": done.symbols,
        "rows": done.rows,
        "hours": [layout.hour_name(seal.hour) for seal in done.seals],
        "sealed": {
            table: sum(seal.files[table].rows for seal in done.seals if table in seal.files) for table in done.rows
        },
        "bytes": sum(seal.bytes for seal in done.seals),
        "duplicates": sum(seal.duplicates for seal in done.seals),
        "died": sorted(session for seal in done.seals for session in seal.dead_sessions),  # whose rows were sealed too
        "torn_bytes": sum(seal.torn_bytes for seal in done.seals),
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    entry.run(main)
