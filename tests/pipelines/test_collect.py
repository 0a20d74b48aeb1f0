"""The recorder against a real simulator over real sockets: what was sent is stored, whatever ends first."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from pipelines import collect
from pipelines.meter import Meter, projection
from shared import simulator_process
from shared.bitget.transport import ReceiveClock
from shared.errors import CrosscutError, ExchangeSilent, LakeError, SettingsError
from shared.lake import layout, read, wal_reading, write
from shared.lake.layout import RAW
from shared.settings import ROOT
from shared.simulator.markets.market import GeneratedMarket, depth_at
from shared.simulator_process import SimulatorProcess
from shared.types import NS, BookChannels, TickEvent, Ticks
from tests.shared.lake import receipts as r
from tests.shared.lake.test_wal import small_disk

SIMULATOR = ["--symbols", "4", "--seed", "3"]
BOOK = ("bid_price", "bid_size", "ask_price", "ask_size")
TOLD_WITHIN_NS = 60_000_000


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with simulator_process.start(SIMULATOR) as process:
        yield process


@contextlib.asynccontextmanager
async def recording(simulator: SimulatorProcess, lake: Path, **options: Any) -> AsyncIterator[list[collect.Collected]]:
    """Record while the block runs; the list then holds the result."""
    stop, done = asyncio.Event(), list[collect.Collected]()
    task = asyncio.create_task(
        collect.collect(simulator.rest, simulator.ws, lake, simulator.source, stop=stop, **options)
    )
    yield done
    stop.set()
    done.append(await task)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition on the lake, which nothing announces."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.05)


def stored(lake: Path, source: str, symbols: tuple[str, ...]) -> Ticks:
    try:
        return read.read_ticks(lake, source, 0, 2**62, symbols)
    except CrosscutError:
        return r.links(TickEvent.SUBSCRIBED, 0, 0)


def n_data(lake: Path, source: str, symbols: tuple[str, ...]) -> int:
    return len(r.only(stored(lake, source, symbols), TickEvent.DATA).books.recv_ns)


async def test_what_the_simulator_sends_is_stored(simulator: SimulatorProcess, tmp_path: Path) -> None:
    """Every stored book is the market's of its second, every channel is linked, and the stop is clean and sealed."""
    market = GeneratedMarket(3, 4)
    async with recording(simulator, tmp_path, books=BookChannels("books15")) as done:
        await until(lambda: n_data(tmp_path, simulator.source, market.symbols) > 40)

    ticks = stored(tmp_path, simulator.source, market.symbols)
    books = r.only(ticks, TickEvent.DATA).books
    for row, (exch_ns, n) in enumerate(zip(books.exch_ns.tolist(), books.symbol.tolist(), strict=True)):
        # A second begins to be told some milliseconds late; a snapshot before that is the second before.
        seconds = [exch_ns // NS] + [exch_ns // NS - 1] * (exch_ns % NS < TOLD_WITHIN_NS)
        stored_book = [getattr(books, field)[row] for field in BOOK]
        shown = [[getattr(depth_at(market, second), field)[n] for field in BOOK] for second in seconds]
        assert any(np.array_equal(stored_book, book, equal_nan=True) for book in shown)
    assert r.n_rows(r.only(ticks, TickEvent.SUBSCRIBED)) == r.n_rows(r.only(ticks, TickEvent.DISCONNECTED)) == 12
    assert (np.diff(books.recv_ns) > 0).all()
    assert done[0].rows["raw/book"] == len(ticks.books.recv_ns)
    assert write.unsealed(tmp_path, simulator.source) == []
    assert read.universe_between(tmp_path, simulator.source, 0, 2**62).symbols == market.symbols


async def test_dropped_socket_is_marked_and_mended(simulator: SimulatorProcess, tmp_path: Path) -> None:
    """When the server drops the connection, the rows say from when to when nothing was heard."""
    symbols = GeneratedMarket(3, 4).symbols

    def told(event: TickEvent) -> int:
        return r.n_rows(r.only(stored(tmp_path, simulator.source, symbols), event))

    async with recording(simulator, tmp_path, symbols=symbols[:2]):
        await until(lambda: n_data(tmp_path, simulator.source, symbols) > 4)
        async with aiohttp.ClientSession() as http:
            await http.post(f"{simulator.rest}/_control/conditions", json={"drop_sockets": True})
        await until(lambda: told(TickEvent.SUBSCRIBED) == 12)

    trades = stored(tmp_path, simulator.source, symbols).trades
    links = r.take(trades, (trades.event >= TickEvent.SUBSCRIBED) & (trades.symbol == 0))
    expected = [TickEvent.SUBSCRIBED, TickEvent.DISCONNECTED] * 2
    assert links.event.tolist() == expected
    cut_ns, back_ns = links.recv_ns.tolist()[1:3]
    between = (trades.recv_ns > cut_ns) & (trades.recv_ns < back_ns) & (trades.event == TickEvent.DATA)
    assert not (between & (trades.symbol == 0)).any()


def n_seconds(lake: Path, source: str, market: GeneratedMarket) -> int:
    return len(np.unique(stored(lake, source, market.symbols).books.recv_ns // NS))


def missed_and_doubled(ticks: Ticks, market: GeneratedMarket) -> tuple[set[int], int]:
    """Return the trades of the whole seconds recorded that are not stored, and the books that are stored twice."""
    trades, books = r.only(ticks, TickEvent.DATA).trades, r.only(ticks, TickEvent.DATA).books
    repeated = r.only(ticks, TickEvent.REPEATED).trades
    links = r.only(ticks, TickEvent.SUBSCRIBED).trades.recv_ns
    first, last = int(links[: len(market.symbols)].max()) // NS + 1, int(trades.recv_ns.max()) // NS - 1
    sent: set[int] = set()
    for second in range(first, last):
        found = market.block(second).trades
        at = second - market.block(second).first_second
        sent |= set(found.trade_id[found.start[at] : found.start[at + 1]].tolist())
    known = set(trades.trade_id.tolist()) | set(repeated.trade_id.tolist())
    pushes = list(zip(books.symbol.tolist(), books.seq.tolist(), books.exch_ns.tolist(), strict=True))
    assert sent, "nobody traded"
    return sent - known, len(pushes) - len(set(pushes))


def silences(ticks: Ticks) -> int:
    """Return how often a channel of a symbol was carried by no connection between its first and its last link."""
    n = 0
    for rows in (ticks.books, ticks.trades, ticks.tickers):
        for symbol in np.unique(rows.symbol).tolist():
            up: set[int] = set()
            was_down = False
            mine = (rows.symbol == symbol) & (rows.event >= TickEvent.SUBSCRIBED)
            for event, conn in zip(rows.event[mine].tolist(), rows.conn[mine].tolist(), strict=True):
                if event == TickEvent.SUBSCRIBED:
                    n += was_down
                    up.add(conn)
                else:
                    up.discard(conn)
                was_down = not up
    return n


async def test_rotation_loses_and_doubles_nothing(simulator: SimulatorProcess, tmp_path: Path) -> None:
    """Connections replaced every second carry every trade and every book once, and no channel is ever without one."""
    market = GeneratedMarket(3, 4)

    def told(event: TickEvent) -> int:
        return r.n_rows(r.only(stored(tmp_path, simulator.source, market.symbols), event))

    async with recording(simulator, tmp_path, rotate_s=1.0):
        await until(lambda: told(TickEvent.SUBSCRIBED) >= 12 * 4 and n_seconds(tmp_path, simulator.source, market) > 4)

    ticks = stored(tmp_path, simulator.source, market.symbols)
    assert silences(ticks) == 0
    assert missed_and_doubled(ticks, market) == (set(), 0)


class Proxy:
    """A wire between client and simulator that can be cut, connection by connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v2/ws"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    def cut(self, connection: int) -> None:
        for writer in self._writers[2 * connection : 2 * connection + 2]:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, back]

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    sink.write(data)
            sink.transport.abort()

        with contextlib.suppress(asyncio.CancelledError):  # the server's end cancels what is open, and would log it
            await asyncio.gather(pass_on(reader, back), pass_on(there, writer))


async def test_second_copy_outlives_the_loss_of_the_first(simulator: SimulatorProcess, tmp_path: Path) -> None:
    """With two connections a channel, one that breaks leaves no gap; every push is stored once."""
    market = GeneratedMarket(3, 4)

    def told(event: TickEvent) -> int:
        return r.n_rows(r.only(stored(tmp_path, simulator.source, market.symbols), event))

    async with Proxy(int(simulator.rest.rsplit(":", 1)[1])) as proxy:
        through = SimulatorProcess(simulator.process, simulator.ready | {"ws": proxy.url})
        async with recording(through, tmp_path, copies=2):
            await until(lambda: told(TickEvent.SUBSCRIBED) == 24)
            proxy.cut(0)
            await until(lambda: told(TickEvent.SUBSCRIBED) == 36 and n_seconds(tmp_path, simulator.source, market) > 4)

    ticks = stored(tmp_path, simulator.source, market.symbols)
    assert told(TickEvent.DISCONNECTED) == 36
    assert silences(ticks) == 0
    assert missed_and_doubled(ticks, market) == (set(), 0)


async def test_hour_is_sealed_while_recording_goes_on(simulator: SimulatorProcess, tmp_path: Path) -> None:
    """When an hour is over it is sealed beside the recording, and the next one begins with every link carried."""
    symbols = GeneratedMarket(3, 4).symbols
    now_ns = time.time_ns()
    ahead_ns = r.HOUR_NS - now_ns % r.HOUR_NS - 4 * NS  # our clock says: four seconds to the hour
    hour = (now_ns + ahead_ns) // r.HOUR_NS
    clock = ReceiveClock(lambda: time.time_ns() + ahead_ns)

    async with recording(simulator, tmp_path, clock=clock) as done:
        await until(lambda: layout.partition_path(tmp_path, "raw/ticker", simulator.source, hour).exists())
        await until(lambda: hour + 1 in read.hours(tmp_path, "raw/book", simulator.source))
        still = n_data(tmp_path, simulator.source, symbols)
        await until(lambda: n_data(tmp_path, simulator.source, symbols) > still)

    ticks = stored(tmp_path, simulator.source, symbols)
    carried = r.only(ticks, TickEvent.CARRIED)
    assert [seal.hour for seal in done[0].seals] == [hour, hour + 1]
    assert r.n_rows(carried) == 12
    assert set(carried.trades.recv_ns.tolist()) == {(hour + 1) * r.HOUR_NS}
    assert r.n_rows(r.only(ticks, TickEvent.DISCONNECTED)) == 12


async def test_full_disk_stops_recording_with_one_sentence(simulator: SimulatorProcess, tmp_path: Path) -> None:
    """When the disk refuses, recording ends with an error, and what was flushed is sealed by the next start."""
    symbols = GeneratedMarket(3, 4).symbols
    with small_disk(25_000), pytest.raises(LakeError, match="cannot be written"):
        await collect.collect(simulator.rest, simulator.ws, tmp_path, simulator.source, stop=asyncio.Event())
    before = n_data(tmp_path, simulator.source, symbols)

    reports = write.seal_all(tmp_path, simulator.source)

    assert len(reports) >= 1
    assert n_data(tmp_path, simulator.source, symbols) == before


# -------------------------------------------------------------------------------------------- as a service


def service(simulator: SimulatorProcess, lake: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start `python -m pipelines.collect` against a running simulator."""
    urls = {"BITGET_REST_URL": simulator.rest, "BITGET_WS_URL": simulator.ws, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.collect", "--lake", str(lake), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=lake, env=os.environ | urls,
    )  # fmt: skip


async def test_recording_ends_and_is_sealed_before_the_disk_is_full(
    simulator: SimulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With less room than asked for the run ends by itself, with one sentence; every row received is sealed."""
    symbols = GeneratedMarket(3, 4).symbols
    monkeypatch.setattr(
        collect, "free_bytes", lambda lake: 10**9 if n_data(lake, simulator.source, symbols) > 4 else 10**12
    )

    with pytest.raises(LakeError, match=r"must have 50 GB free, found 1: recording has ended"):
        await collect.collect(
            simulator.rest, simulator.ws, tmp_path, simulator.source, stop=asyncio.Event(), free_bytes_min=50e9
        )

    assert write.unsealed(tmp_path, simulator.source) == []
    assert n_data(tmp_path, simulator.source, symbols) > 4


async def test_a_disk_that_is_full_from_the_start_is_told_as_that(
    simulator: SimulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was recorded since nothing could be: it is not the exchange that was silent."""
    monkeypatch.setattr(collect, "free_bytes", lambda lake: 10**9)

    with pytest.raises(LakeError, match=r"must have 50 GB free, found 1: .*lower --free-gb-min"):
        await collect.collect(
            simulator.rest, simulator.ws, tmp_path, simulator.source, stop=asyncio.Event(), free_bytes_min=50e9
        )


async def test_metrics_tell_how_it_goes(simulator: SimulatorProcess, tmp_path: Path) -> None:
    """Prometheus finds the rows by table, the channels that are linked and wanted, and how fresh the disk is."""
    meter = Meter(0)

    async def told() -> dict[str, float]:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{meter.port}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    async with recording(simulator, tmp_path, gauges=meter) as done:
        async with asyncio.timeout(30):
            while (await told()).get('crosscut_collect_rows_total{table="raw/book"}', 0) < 20:
                await asyncio.sleep(0.05)
        figures = await told()

    assert figures["crosscut_collect_channels_linked"] == figures["crosscut_collect_channels_wanted"] == 12
    assert abs(figures["crosscut_collect_durable_timestamp_seconds"] - time.time()) < 60
    assert figures["crosscut_collect_quarantined_total"] == 0
    assert figures['crosscut_collect_rows_total{table="raw/book"}'] <= done[0].rows["raw/book"]
    assert figures["crosscut_collect_free_bytes"] > 0


def test_projection_says_how_long_the_room_lasts() -> None:
    """800 symbols at full pace take tens of GB a day, and the hour that is open and sealed has room, too."""
    said = projection(["books15"] * 800, 200_000_000_000)

    assert said.startswith("at Bitget's full pace 800 symbols take about 87 GB a day, and 11 GB while an hour is open")
    assert said.endswith("200 GB are free: 2.2 days")
    assert "take about 56 GB a day" in projection(["books5"] * 800, 200_000_000_000)
    assert "810 symbols take about 58 GB a day" in projection(["books5"] * 800 + ["books"] * 10, 200_000_000_000)


async def test_killed_service_is_continued_by_the_next(simulator: SimulatorProcess, tmp_path: Path) -> None:
    """After SIGKILL every flushed row is there; the next start seals it, and SIGTERM ends that one cleanly."""
    symbols = GeneratedMarket(3, 4).symbols
    first = service(simulator, tmp_path)
    await until(lambda: n_data(tmp_path, simulator.source, symbols) > 20)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    left = n_data(tmp_path, simulator.source, symbols)
    hours = read.hours(tmp_path, "raw/book", simulator.source)
    assert "dead" in {log.state for hour in hours for log in wal_reading.find_logs(tmp_path, simulator.source, hour)}

    second = service(simulator, tmp_path)
    await until(lambda: n_data(tmp_path, simulator.source, symbols) > left + 8)
    second.send_signal(signal.SIGTERM)
    out, err = second.communicate()

    summary = json.loads(out)
    assert second.returncode == 0, err
    assert "of an earlier run" in err
    assert summary["source"] == simulator.source
    assert n_data(tmp_path, simulator.source, symbols) >= left + 8
    ticks = stored(tmp_path, simulator.source, symbols)
    assert r.n_rows(r.only(ticks, TickEvent.DISCONNECTED)) == 2 * 12
    assert write.unsealed(tmp_path, simulator.source) == []


async def test_killed_simulator_ends_the_run_with_what_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the simulator that we started dies, the run stops, seals, and says so."""
    symbols = GeneratedMarket(3, 4).symbols
    started: list[SimulatorProcess] = []

    start = simulator_process.start

    @contextlib.contextmanager
    def start_small() -> Iterator[SimulatorProcess]:
        with start(SIMULATOR) as process:
            started.append(process)
            yield process

    monkeypatch.setattr(simulator_process, "start", start_small)
    monkeypatch.delenv("BITGET_REST_URL", raising=False)
    monkeypatch.delenv("BITGET_WS_URL", raising=False)
    monkeypatch.setenv("MARKET", "simulator")
    task = asyncio.create_task(collect.run(collect.parser().parse_args(["--lake", str(tmp_path)])))
    await until(lambda: bool(started) and n_data(tmp_path, started[0].source, symbols) > 8)

    started[0].process.kill()
    with pytest.raises(ExchangeSilent, match="the simulator must run until it is stopped"):
        await task

    assert n_data(tmp_path, started[0].source, symbols) > 8
    assert write.unsealed(tmp_path, started[0].source) == []


# ----------------------------------------------------------------------------------------------- bad input


async def test_unlisted_symbol_is_refused(simulator: SimulatorProcess, tmp_path: Path) -> None:
    """A symbol that is not listed ends the run before anything is recorded."""
    with pytest.raises(SettingsError, match="NOPEUSDT"):
        await collect.collect(
            simulator.rest, simulator.ws, tmp_path, simulator.source, stop=asyncio.Event(), symbols=["NOPEUSDT"]
        )
    assert not any((tmp_path / table).exists() for table in RAW)


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["--seconds", "0"], {}, "--seconds must be above 0"),
        (
            [],
            {"BITGET_REST_URL": "http://127.0.0.1:9", "BITGET_WS_URL": "ws://127.0.0.1:9"},
            "start `python -m shared.simulator`",
        ),
        ([], {"BITGET_REST_URL": "http://127.0.0.1:9"}, "set together or not at all"),
        ([], {"BITGET_REST_URL": "https://example.com", "BITGET_WS_URL": "wss://example.com"}, "bitget.com"),
        (["--lake", "s3://"], {}, "LAKE_URI must be a folder"),
        (["--copies", "9"], {}, "--copies must be 1 to 3"),
        (["--metrics-port", "70000"], {}, "--metrics-port must be a port"),
        (["--free-gb-min", "-1"], {}, "--free-gb-min must not be negative"),
    ],
    ids=["seconds", "nobody", "half", "elsewhere", "s3", "copies", "metrics", "room"],
)
def test_wrong_input_is_one_sentence(
    arguments: list[str], environment: dict[str, str], says: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What a person got wrong is told in one line on stderr, and the exit code is not 0."""
    for name in ("BITGET_REST_URL", "BITGET_WS_URL", "MARKET", "BITGET_VENUE", "SYMBOLS", "SYMBOL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    code = collect.main(["--lake", str(tmp_path), *arguments])

    told = capsys.readouterr()
    assert code != 0
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert says in told.err
