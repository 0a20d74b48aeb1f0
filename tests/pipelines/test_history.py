"""History over REST: all of a window or a sentence about what lacks, never asked twice, never changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import aiohttp
import msgspec
import polars as pl
import pytest
import pytest_asyncio
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import filling, history
from shared.bitget import public, transport, wire
from shared.bitget.public import CandleRow, FundingNowRow, FundingRow
from shared.bitget.transport import RestClient
from shared.errors import ExchangeRefused, ExchangeSilent, NotEnoughData, ProtocolBroken, SettingsError
from shared.lake import layout, read
from shared.simulator.faults.conditions import Change
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator.server import Server
from shared.types import Contract, Note
from tests.pipelines.markets import contract

SOURCE = "simulator-history"
NOW_MS = 1_790_358_274_804
MINUTE = NOW_MS // 60_000
HOUR_MS, DAY_MIN = 3_600_000, 1440
Minutes = set[int]


class Told(msgspec.Struct):
    """What Bitget knows of one symbol."""

    minutes: Minutes  # whose candles it keeps, the running one among them
    settled_ms: list[int] = []  # oldest first
    interval_h: int = 8
    days: set[int] = set()  # epoch days that it shows


class Bitget:
    """The calls of `RestClient` over a history made up here, with Bitget's bounds: pages are cut without a word."""

    def __init__(self, told: dict[str, Told], value: float = 1.0) -> None:
        self.told, self.value = told, value
        self.asked: list[tuple[str, str, int]] = []
        self.fails_after: int | None = None
        self.gone: set[str] = set()
        self.kept_min = 31 * DAY_MIN  # by `candles`
        self.quarantine = wire.Quarantine()

    @property
    def contracts(self) -> tuple[Contract, ...]:
        return tuple(
            msgspec.structs.replace(contract(symbol), funding_interval_h=told.interval_h)
            for symbol, told in sorted(self.told.items())
        )

    def candle(self, symbol: str, minute: int) -> CandleRow:
        price = self.value * (minute % 1000 + len(symbol))
        return CandleRow(minute * 60_000, price, price + 1, price - 1, price, minute % 7, price * (minute % 7))

    async def server_time(self) -> int:
        return NOW_MS

    async def candles(self, symbol: str, end_ms: int, granularity: str = "1m", limit: int = 1000) -> list[CandleRow]:
        self._ask("candles", symbol, end_ms)
        kept = {minute for minute in self.told[symbol].minutes if minute >= MINUTE - self.kept_min}
        return self._page(symbol, kept, end_ms, min(limit, 1000))

    async def history_candles(
        self, symbol: str, end_ms: int, granularity: str = "1m", limit: int = 200
    ) -> list[CandleRow]:
        self._ask("history-candles", symbol, end_ms)
        if granularity == "1Dutc":
            days = {day * DAY_MIN for day in self.told[symbol].days}
            return self._page(symbol, days, end_ms, min(limit, 200))
        return self._page(symbol, self.told[symbol].minutes - {MINUTE}, end_ms, min(limit, 200))

    async def funding_history(self, symbol: str, page: int = 1) -> list[FundingRow]:
        self._ask("funding", symbol, page)
        newest_first = self.told[symbol].settled_ms[::-1]
        n = public.FUNDING_MAX
        return [FundingRow(symbol, self.rate(symbol, ms), ms) for ms in newest_first[(page - 1) * n : page * n]]

    def rate(self, symbol: str, settled_ms: int) -> float:
        return self.value * ((settled_ms // HOUR_MS) % 11 - 5) * 1e-5

    async def funding_now(self) -> list[FundingNowRow]:
        rows = []
        for symbol, told in self.told.items():
            step_ms = told.interval_h * HOUR_MS
            rows.append(FundingNowRow(symbol, 1e-4, told.interval_h, (NOW_MS // step_ms + 1) * step_ms))
        return [*rows, FundingNowRow("NOTYETUSDT")]

    async def tickers(self) -> tuple[wire.TickerRow, ...]:
        return tuple(
            wire.TickerRow(open_interest=float(len(symbol)), mark=self.value, ts=NOW_MS, symbol=symbol)
            for symbol in self.told
        )

    def _page(self, symbol: str, minutes: Minutes, end_ms: int, limit: int) -> list[CandleRow]:
        return [self.candle(symbol, minute) for minute in sorted(m for m in minutes if m * 60_000 < end_ms)[-limit:]]

    def _ask(self, what: str, symbol: str, bound: int) -> None:
        self.asked.append((what, symbol, bound))
        if symbol in self.gone:
            raise ExchangeRefused("40309", "The symbol has been removed")
        if self.fails_after is not None and len(self.asked) > self.fails_after:
            raise ExchangeSilent("no answer")

    def take_notes(self) -> list[Note]:
        return []

    @property
    def rest(self) -> RestClient:
        return cast(RestClient, self)


def settlements(n: int, interval_h: int = 8) -> list[int]:
    """Return the last `n` settlements before now, oldest first."""
    step_ms = interval_h * HOUR_MS
    last_ms = NOW_MS // step_ms * step_ms
    return [last_ms - k * step_ms for k in range(n - 1, -1, -1)]


def since(minutes: int) -> Minutes:
    """Return the last so many whole minutes and the running one."""
    return set(range(MINUTE - minutes, MINUTE + 1))


def stored(lake: Path, table: str = "candles") -> pl.DataFrame:
    hours = read.hours(lake, table, SOURCE)
    frames = [read.rows_of(layout.partition_path(lake, table, SOURCE, hour)) for hour in hours]
    return pl.concat(frames).sort(layout.TABLES[table].key)


def minutes_of(lake: Path, symbol: str) -> Minutes:
    return set(stored(lake).filter(pl.col("symbol") == symbol)["minute"].to_list())


async def backfill(bitget: Bitget, lake: Path, hours: float, only: str = "candles") -> tuple[list[Any], list[str]]:
    lines: list[str] = []
    done = await history.backfill(bitget.rest, lake, SOURCE, bitget.contracts, hours, tables=(only,), say=lines.append)
    return done, lines


# -------------------------------------------------------------------------------------------------------- candles


async def test_asked_for_n_it_stores_n(tmp_path: Path) -> None:
    """The last forty hours of two symbols are 2,400 candles each, with the values told, and none of them running."""
    bitget = Bitget({"AAAUSDT": Told(since(50_000)), "龙虾USDT": Told(since(50_000))})

    await backfill(bitget, tmp_path, 40)

    for symbol in bitget.told:
        rows = stored(tmp_path).filter(pl.col("symbol") == symbol)
        assert rows["minute"].to_list() == list(range(MINUTE - 2400, MINUTE))
        told = [msgspec.structs.astuple(bitget.candle(symbol, minute)) for minute in rows["minute"]]
        assert rows.drop("minute", "symbol").rows() == [row[1:] for row in told]
    assert len(bitget.asked) == 2 * 3  # pieces of sixteen hours, each one page
    assert all(end_ms <= MINUTE * 60_000 for _, _, end_ms in bitget.asked)


async def test_what_is_stored_is_not_asked_for_again(tmp_path: Path) -> None:
    """A second run asks nothing; a longer one asks for what is older alone."""
    bitget = Bitget({"AAAUSDT": Told(since(50_000))})
    await backfill(bitget, tmp_path, 20)
    n_asked = len(bitget.asked)

    await backfill(bitget, tmp_path, 20)
    again = len(bitget.asked) - n_asked
    done, _ = await backfill(bitget, tmp_path, 30)

    assert again == 0
    assert done[0].rows == 10 * 60
    assert max(end_ms for _, _, end_ms in bitget.asked[n_asked:]) == (MINUTE - 20 * 60) * 60_000


async def test_beyond_a_month_the_other_endpoint_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `candles` has forgotten comes from `history-candles`, in pages of 200, without a seam."""
    monkeypatch.setattr(filling, "CANDLES_KEPT_MS", 22 * HOUR_MS)  # in place of 30 days, to write less hours
    bitget = Bitget({"AAAUSDT": Told(since(50_000))})
    bitget.kept_min = 20 * 60

    await backfill(bitget, tmp_path, 30)

    assert minutes_of(tmp_path, "AAAUSDT") == set(range(MINUTE - 30 * 60, MINUTE))
    bounds = {what: [end_ms for name, _, end_ms in bitget.asked if name == what] for what, _, _ in bitget.asked}
    assert max(bounds["history-candles"]) <= (MINUTE - bitget.kept_min) * 60_000
    assert min(bounds["candles"]) > NOW_MS - 22 * HOUR_MS


async def test_shortfall_is_told_and_the_rest_is_stored(tmp_path: Path) -> None:
    """Where Bitget keeps less than was asked for, what it has is stored and the sentence names what lacks."""
    bitget = Bitget(
        {
            "AAAUSDT": Told(since(50_000)),
            "BBBUSDT": Told(since(600), settlements(50)),  # settled for weeks, candles of ten hours
            "CCCUSDT": Told(since(50_000) - set(range(MINUTE - 100, MINUTE - 60))),
        }
    )

    with pytest.raises(NotEnoughData) as caught:
        await backfill(bitget, tmp_path, 20)

    assert "640 minutes missing of 2 of them, most of BBBUSDT 600 (since 2026-09-25T" in str(caught.value)
    assert "CCCUSDT 40" in str(caught.value)
    assert minutes_of(tmp_path, "BBBUSDT") == set(range(MINUTE - 600, MINUTE))
    assert len(minutes_of(tmp_path, "AAAUSDT")) == 1200


@pytest.mark.parametrize("days_before", [0, 3])
async def test_shown_days_tell_retention_from_a_listing(tmp_path: Path, days_before: int) -> None:
    """A symbol whose first day and first minute agree was listed then and lacks nothing; older days are a shortfall."""
    first = (MINUTE // DAY_MIN - 1) * DAY_MIN + 600
    days = {first // DAY_MIN - days_before, first // DAY_MIN, first // DAY_MIN + 1}
    bitget = Bitget({"NEWUSDT": Told(set(range(first, MINUTE + 1)), days=days)})

    if days_before:
        with pytest.raises(NotEnoughData, match="NEWUSDT"):
            await backfill(bitget, tmp_path, 72)
    else:
        _, lines = await backfill(bitget, tmp_path, 72)
        assert any("NEWUSDT are there since" in line and "not listed before" in line for line in lines)
    assert minutes_of(tmp_path, "NEWUSDT") == set(range(first, MINUTE))


async def test_other_values_are_reported_and_not_taken(tmp_path: Path) -> None:
    """History that Bitget tells otherwise the second time is an error that names a row; the first one is kept."""
    told = Told(since(50_000))
    await backfill(Bitget({"AAAUSDT": told}), tmp_path, 1)
    before = stored(tmp_path)
    other = Bitget({"AAAUSDT": told}, value=2.0)
    hole = filling.Filled(table="candles")
    rows = [other.candle("AAAUSDT", minute) for minute in range(MINUTE - 5, MINUTE)]
    piece = filling._Piece(other.rest, tmp_path, SOURCE, MINUTE - 5, MINUTE, NOW_MS, {})
    piece._take("AAAUSDT", rows)

    filling._store(tmp_path, SOURCE, piece.frames, hole)

    assert len(hole.conflicts) == 5
    with pytest.raises(ProtocolBroken, match="5 rows told otherwise, first"):
        history._check([hole], SOURCE, 1)
    assert stored(tmp_path).equals(before)


async def test_stopped_backfill_keeps_what_it_has(tmp_path: Path) -> None:
    """A run that fails half-way has stored its pieces; the next one completes them and asks for no minute twice."""
    symbols = [f"S{n}USDT" for n in range(5)]
    bitget = Bitget({symbol: Told(since(50_000)) for symbol in symbols})
    bitget.fails_after = 8

    with pytest.raises(ExchangeSilent):
        await backfill(bitget, tmp_path, 34)
    had = {symbol: len(minutes_of(tmp_path, symbol)) for symbol in symbols}
    bitget.fails_after = None
    done, _ = await backfill(bitget, tmp_path, 34)

    assert 0 < sum(had.values()) < 5 * 2040
    assert done[0].rows == 5 * 2040 - sum(had.values())
    assert all(len(minutes_of(tmp_path, symbol)) == 2040 for symbol in symbols)


async def test_cancelled_backfill_keeps_what_it_has(tmp_path: Path) -> None:
    """Ctrl-C cancels; what the piece under way has fetched is in the lake."""
    bitget = Bitget({f"S{n}USDT": Told(since(50_000)) for n in range(20)})
    reached = asyncio.Event()
    real = bitget.candles

    async def slow(symbol: str, end_ms: int, granularity: str = "1m", limit: int = 1000) -> list[CandleRow]:
        if len(bitget.asked) >= 15:
            reached.set()
            await asyncio.Event().wait()
        return await real(symbol, end_ms, granularity, limit)

    bitget.candles = slow  # type: ignore[method-assign]
    task = asyncio.create_task(backfill(bitget, tmp_path, 5))
    await reached.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert stored(tmp_path).height > 0


async def test_symbol_that_goes_away_holds_up_nobody(tmp_path: Path) -> None:
    """A symbol that is removed while it is asked for is told, and the others are complete."""
    bitget = Bitget({"AAAUSDT": Told(since(50_000)), "OFFUSDT": Told(since(50_000))})
    bitget.gone = {"OFFUSDT"}

    _, lines = await backfill(bitget, tmp_path, 20)

    assert any("OFFUSDT has been removed" in line for line in lines)
    assert len(minutes_of(tmp_path, "AAAUSDT")) == 1200


@settings(max_examples=20)
@given(
    begin=st.integers(0, 700),
    window=st.integers(1, 600),
    holes=st.sets(st.integers(0, 600), max_size=40),
    had=st.lists(st.tuples(st.integers(0, 600), st.integers(1, 100)), max_size=2),
    is_old=st.booleans(),
)
def test_any_history_is_stored_as_it_is_told(
    begin: int, window: int, holes: set[int], had: list[tuple[int, int]], is_old: bool
) -> None:
    """Wherever history begins, wherever it has holes and whatever was stored: afterwards the lake holds what is told,
    what lacks is counted to the minute, and only what follows the listing counts as lacking."""
    minutes = {MINUTE - k for k in range(begin + 1)} - {MINUTE - 1 - k for k in holes}
    wanted = set(range(MINUTE - window, MINUTE))
    told = Told(minutes, settlements(50) if is_old else [])
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(filling, "PIECE_H", 3)
        lake, bitget = Path(folder), Bitget({"AAAUSDT": told})
        for back, length in had:
            asyncio.run(_fill(bitget, lake, MINUTE - back, MINUTE - back + length))

        filled = asyncio.run(_fill(bitget, lake, MINUTE - window, MINUTE))

        there = minutes_of(lake, "AAAUSDT") if read.hours(lake, "candles", SOURCE) else set()
        assert there & wanted == minutes & wanted
        known = minutes - {MINUTE}
        first = min(known, default=MINUTE)
        lacking = {minute for minute in wanted - minutes if is_old or minute >= first}
        assert filled.missing.get("AAAUSDT", 0) == len(lacking)


async def _fill(bitget: Bitget, lake: Path, start: int, end: int) -> filling.Filled:
    return await filling.fill_candles(bitget.rest, lake, SOURCE, bitget.contracts, start, end)


# -------------------------------------------------------------------------------------------------------- funding


async def test_funding_turns_pages_until_the_window_is_covered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are turned until they reach beyond the window; each settlement knows the time since the one before."""
    monkeypatch.setattr(public, "FUNDING_MAX", 10)  # in place of 100, to write less hours
    bitget = Bitget({"AAAUSDT": Told(set(), settlements(600)), "DDDUSDT": Told(set(), settlements(600, 4), 4)})

    await backfill(bitget, tmp_path, 13 * 8, "funding")
    pages = {symbol: [page for _, s, page in bitget.asked if s == symbol] for symbol in bitget.told}
    n_asked = len(bitget.asked)
    done, _ = await backfill(bitget, tmp_path, 80, "funding")

    rows = stored(tmp_path, "funding").filter(pl.col("symbol") == "AAAUSDT")
    assert rows["settled_ms"].to_list() == settlements(600)[-rows.height :]
    assert rows.height in (13, 14)
    assert set(rows["interval_h"]) == {8.0}
    assert rows["rate"].to_list() == [bitget.rate("AAAUSDT", ms) for ms in rows["settled_ms"]]
    assert pages == {"AAAUSDT": [1, 2], "DDDUSDT": [1, 2, 3]}
    assert (len(bitget.asked) - n_asked, done[0].rows) == (0, 0)


async def test_hole_in_stored_funding_is_asked_for(tmp_path: Path) -> None:
    """Settlements that join one another prove that none lacks; where they do not, the pages are read again."""
    bitget = Bitget({"AAAUSDT": Told(set(), settlements(30))})
    whole = bitget.told["AAAUSDT"].settled_ms
    bitget.told["AAAUSDT"].settled_ms = whole[:20]
    await filling.fill_funding(bitget.rest, tmp_path, SOURCE, bitget.contracts, whole[5])
    bitget.told["AAAUSDT"].settled_ms = whole
    await filling.fill_funding(bitget.rest, tmp_path, SOURCE, bitget.contracts, whole[27])
    assert stored(tmp_path, "funding")["settled_ms"].to_list() == whole[5:20] + whole[27:]

    await backfill(bitget, tmp_path, (NOW_MS - whole[5]) / HOUR_MS, "funding")

    assert stored(tmp_path, "funding")["settled_ms"].to_list() == whole[5:]


async def test_lacking_funding_is_told(tmp_path: Path) -> None:
    """Settlements that Bitget no longer shows are a shortfall where older days prove that the symbol traded."""
    today = MINUTE // DAY_MIN
    bitget = Bitget(
        {
            "OLDUSDT": Told(set(), settlements(30), days=set(range(today - 100, today + 1))),
            "NEWUSDT": Told(set(), settlements(6), days=set(range(today - 1, today + 1))),
        }
    )

    with pytest.raises(NotEnoughData, match="OLDUSDT 60") as caught:
        await backfill(bitget, tmp_path, 90 * 8, "funding")

    assert "NEWUSDT" not in str(caught.value)


# ----------------------------------------------------------------------------------------------------- following


async def test_update_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    """After days in which nobody asked, one update brings all of them."""
    bitget = Bitget({"AAAUSDT": Told(since(5000), settlements(30))})
    start = MINUTE - 30 * 60
    await filling.fill_candles(bitget.rest, tmp_path, SOURCE, bitget.contracts, start, start + 30)

    await history.update(bitget.rest, tmp_path, SOURCE, bitget.contracts)

    assert set(range(start, MINUTE)) <= minutes_of(tmp_path, "AAAUSDT")


async def test_update_asks_for_what_is_due_alone(tmp_path: Path) -> None:
    """Right after an update another one asks for no candle and for no settlement."""
    bitget = Bitget({"AAAUSDT": Told(since(5000), settlements(9)), "DDDUSDT": Told(since(5000), settlements(99, 1), 1)})

    first = await history.update(bitget.rest, tmp_path, SOURCE, bitget.contracts)
    n_asked = len(bitget.asked)
    second = await history.update(bitget.rest, tmp_path, SOURCE, bitget.contracts)

    assert {filled.table: filled.rows > 0 for filled in first} == dict.fromkeys(
        ("open_interest", "candles", "funding"), True
    )
    assert len(bitget.asked) == n_asked
    assert [filled.rows for filled in second] == [0, 0, 0]
    interest = stored(tmp_path, "open_interest")
    assert interest.rows() == [(NOW_MS, "AAAUSDT", 7.0, 1.0), (NOW_MS, "DDDUSDT", 7.0, 1.0)]


async def test_follow_outlives_a_silent_exchange(tmp_path: Path) -> None:
    """An exchange that does not answer is told, asked again, and what it says then is stored."""
    bitget = Bitget({"AAAUSDT": Told(since(5000), settlements(9))})
    bitget.fails_after = 0
    stop = asyncio.Event()
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        bitget.fails_after = None
        if line.startswith("funding"):
            stop.set()

    async def contracts() -> tuple[Contract, ...]:
        return bitget.contracts

    async with asyncio.timeout(20):
        done = await history.follow(bitget.rest, tmp_path, SOURCE, contracts, stop, say=say, interest_s=0.05)

    assert any(line.startswith("asked again in") for line in lines)
    assert stored(tmp_path).height > 0
    assert {filled.table: filled.rows for filled in done} == {
        table: stored(tmp_path, table).height for table in ("candles", "funding", "open_interest")
    }


@pytest.mark.parametrize("arguments", [["--hours", "0"], ["--days", "-1"], ["--hours", "nan"]])
def test_window_must_be_one(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A window of no length is refused before anything is asked."""
    assert history.main([*arguments, "--lake", str(tmp_path)]) == 2
    assert f"{arguments[0]} must be above 0" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- over real sockets


MARKET = GeneratedMarket(7, 4)


@pytest_asyncio.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(transport, "backoff_s", lambda failures, draw: 0.02)
    venue = Server(MARKET)
    venue.faults.seed = 7
    await venue.start()
    try:
        yield venue
    finally:
        await venue.stop()


async def test_simulators_history_under_faults(server: Server, tmp_path: Path) -> None:
    """Whatever goes wrong on the way, the lake holds exactly what the simulator answers to a client of its own."""
    faults = [
        {"what": what, "when": when, "path": "*/market/*", "p": 0.06}
        for what, when in (("gateway", "before"), ("torn", "after"), ("reset", "before"), ("empty", "after"))
    ] + [{"what": "refuse", "code": "429", "path": "*/market/*", "p": 0.06}]
    server.faults.change(msgspec.convert({"requests": faults}, Change))

    async with RestClient(server.rest_url, None, timeout_s=9) as client:
        contracts = history.traded(await client.contracts(SOURCE))
        for _ in range(10):  # three answers in a row may be spoilt: a run that fails goes on where it was
            try:
                await history.backfill(client, tmp_path, SOURCE, contracts, 2)
                break
            except (ExchangeSilent, ExchangeRefused, ProtocolBroken):
                continue

    server.faults.change(msgspec.convert({"requests": []}, Change))
    rows = stored(tmp_path)
    assert rows.group_by("symbol").len().rows() != []
    async with aiohttp.ClientSession() as http:
        for symbol in MARKET.symbols:
            mine = rows.filter(pl.col("symbol") == symbol)
            assert mine["minute"].to_list() == list(range(mine["minute"][0], mine["minute"][0] + mine.height))
            assert mine.height >= 120
            query = {"productType": "USDT-FUTURES", "symbol": symbol, "granularity": "1m", "limit": "200"}
            query["endTime"] = str((mine["minute"][-1] + 1) * 60_000)
            async with http.get(f"{server.rest_url}/api/v2/mix/market/history-candles", params=query) as answer:
                told = {int(row[0]) // 60_000: tuple(map(float, row[1:])) for row in (await answer.json())["data"]}
            assert {row[0]: row[2:] for row in mine.iter_rows()} == {m: told[m] for m in mine["minute"]}


async def test_fetch_is_one_call(server: Server, tmp_path: Path) -> None:
    """An asset or cron needs one call: what is new, and so many hours back, of the symbols that it names."""
    symbol = MARKET.symbols[0]

    new = await history.fetch(server.rest_url, tmp_path, SOURCE, symbols=[symbol])
    back = await history.fetch(server.rest_url, tmp_path, SOURCE, symbols=[symbol], hours=4, tables=["candles"])

    assert {filled.table for filled in new} == {"open_interest", "candles", "funding"}
    assert [filled.table for filled in back] == ["candles"]
    assert stored(tmp_path)["symbol"].unique().to_list() == [symbol]
    assert stored(tmp_path).height >= 240
    assert set(stored(tmp_path, "open_interest")["symbol"]) == set(MARKET.symbols)
    with pytest.raises(SettingsError, match="NOPEUSDT not listed"):
        await history.fetch(server.rest_url, tmp_path, SOURCE, symbols=["NOPEUSDT"])


async def test_what_is_not_understood_is_kept_raw(tmp_path: Path) -> None:
    """A field that nobody knows and a candle that is none lie in the quarantine of the hour, as they came."""

    async def answer(request: web.Request) -> web.Response:
        answers: dict[str, Any] = {
            "time": {"serverTime": str(NOW_MS)},
            "history-fund-rate": [{"symbol": "AAAUSDT", "fundingRate": "1", "fundingTime": "2", "surprise": "yes"}],
            "candles": [["60000", "1", "1", "1", "1", "0", "0"], ["120000", "1", "many", "1", "1", "0", "0"]],
        }
        data = answers[request.path.rsplit("/", 1)[-1]]
        return web.json_response({"code": "00000", "msg": "success", "requestTime": 1, "data": data})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with RestClient(f"http://127.0.0.1:{runner.addresses[0][1]}", None) as client:
            await client.funding_history("AAAUSDT")
            with pytest.raises(ProtocolBroken):
                await client.candles("AAAUSDT", NOW_MS)
            assert history.set_aside(client, tmp_path, SOURCE) == 2
            assert history.set_aside(client, tmp_path, SOURCE) == 0
    finally:
        await runner.cleanup()

    rows = read.collect(read.scan(tmp_path, "quarantine", SOURCE)).sort("where")
    assert [where.rsplit("/", 1)[-1] for where in rows["where"]] == ["candles", "history-fund-rate"]
    assert rows["what"][1] == "unknown field surprise"
    assert "many" in rows["raw"][0]
    assert "surprise" in rows["raw"][1]
