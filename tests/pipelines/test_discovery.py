"""What is listed, followed: nobody new is missed, nobody is given up for a torn list, nothing is written twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import discovery
from pipelines.discovery import Discovery, Every, changes
from pipelines.universe import discover
from shared.bitget.public import TierRow
from shared.bitget.transport import RestClient
from shared.bitget.wire import MS_NS, Quarantine, TickerRow
from shared.errors import ExchangeRefused, ExchangeSilent, LakeError, ProtocolBroken
from shared.lake import read, write
from shared.lake.tiers import TABLE, Ladder, tiers_at
from shared.types import NS, Contract, Note, Universe
from tests.shared.lake import receipts as r

START_NS = r.HOUR * r.HOUR_NS
NAMES = ("AUSDT", "BUSDT", "CUSDT", "龙虾USDT")


class Exchange:
    """Answers as it is told to, and counts what it is asked."""

    base_url = "http://exchange"

    def __init__(self, symbols: Sequence[str] = NAMES) -> None:
        self.now_ns = START_NS
        self.listed = r.universe(tuple(sorted(symbols))).contracts
        self.tickers_of: Sequence[str] | None = None  # None: of what is listed
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.leverages: dict[str, int | None] = {}  # None: refused; 0: no tiers; below: those of somebody else
        self.quarantine = Quarantine()

    def clock(self) -> int:
        self.now_ns += 1
        return self.now_ns

    def take_notes(self) -> list[Note]:
        return []

    async def readable_contracts(self, source: str) -> Universe:
        self._ask("contracts")
        return Universe(source=source, as_of_ns=self.clock(), contracts=self.listed)

    async def tickers(self) -> tuple[TickerRow, ...]:
        self._ask("tickers")
        names = [c.symbol for c in self.listed if c.has_market] if self.tickers_of is None else self.tickers_of
        return tuple(TickerRow(symbol=name, last=float(len(name)), ts=1) for name in names)

    async def position_tiers(self, symbol: str) -> list[TierRow]:
        self._ask(symbol)
        leverage = self.leverages.get(symbol, 50)
        if leverage is None:
            raise ExchangeRefused("40309", "The symbol has been removed")
        steps = [Decimal(0), Decimal(50_000), Decimal(200_000)][: abs(leverage) + 1]
        return [
            TierRow(
                symbol=symbol if leverage > 0 else "XUSDT", level=k + 1, start_unit=steps[k], end_unit=steps[k + 1], leverage=leverage,
                keep_margin_rate=Decimal("0.0100"),
            )
            for k in range(len(steps) - 1)
        ]  # fmt: skip

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.error is not None:
            raise self.error


def contract(symbol: str, **changed: Any) -> Contract:
    return msgspec.structs.replace(r.universe((symbol,)).contracts[0], **changed)


class World:
    """A discovery in front of an exchange, and what it has told."""

    def __init__(self, lake: Path, exchange: Exchange, every: Every) -> None:
        self.lake, self.exchange = lake, exchange
        self.told: list[Universe] = []
        self.lines: list[str] = []
        self.notes: list[Note] = []
        self.rest = cast(RestClient, exchange)
        self.every = every

    async def begin(self) -> World:
        self.universe = await discover(self.rest, self.lake, r.SOURCE)
        self.discovery = Discovery(
            self.rest, self.lake, self.universe, clock=self.exchange.clock, on_universe=self.told.append,
            progress=self.lines.append, on_notes=self.notes.extend, every=self.every,
        )  # fmt: skip
        self.exchange.asked.clear()
        return self

    def snapshots(self) -> list[Universe]:
        return read.universes_between(self.lake, r.SOURCE, 0, 2**62)


@contextlib.asynccontextmanager
async def following(lake: Path, exchange: Exchange, **every: float) -> AsyncIterator[World]:
    """Follow the exchange while the block runs."""
    world = await World(lake, exchange, Every(**every)).begin()
    stop = asyncio.Event()
    task = asyncio.create_task(world.discovery.follow(stop))
    try:
        yield world
    finally:
        stop.set()
        await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


ALWAYS = Every(tickers_s=0.0, contracts_s=0.0, confirm_s=0.0)


@settings(max_examples=30)
@given(lists=st.lists(st.sets(st.sampled_from(NAMES), min_size=1), min_size=1, max_size=8))
def test_gone_is_who_was_missing_twice(lists: list[set[str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever lists come, torn ones too: a new name is taken at once, a name goes when two lists in a row lack it.

    Every change is told once and in the lake under its time, and between changes nothing is written.
    """

    async def look() -> None:
        exchange = Exchange()
        world = await World(tmp_path_factory.mktemp("lake"), exchange, ALWAYS).begin()
        believed, last = set(NAMES), set(NAMES)
        expected = [tuple(sorted(NAMES))]
        for names in lists:
            exchange.listed = r.universe(tuple(sorted(names))).contracts
            await world.discovery._look()
            now = names | (believed & last)
            if now != believed:
                expected.append(tuple(sorted(now)))
            believed, last = now, names

        assert [universe.symbols for universe in (world.universe, *world.told)] == expected
        assert [universe.symbols for universe in world.snapshots()] == expected
        assert len(world.lines) == len(expected) - 1

    asyncio.run(look())


async def test_symbol_with_a_ticker_is_not_gone(tmp_path: Path) -> None:
    """A symbol whose row cannot be read, list after list, keeps its rules and is recorded while it has a ticker."""
    exchange = Exchange()
    world = await World(tmp_path, exchange, ALWAYS).begin()
    exchange.tickers_of = NAMES
    exchange.listed = exchange.listed[1:]
    for _ in range(4):
        await world.discovery._look()
    assert world.told == []

    exchange.tickers_of = NAMES[1:]
    await world.discovery._look()

    assert [universe.symbols for universe in world.told] == [NAMES[1:]]


async def test_unknown_ticker_has_the_list_read_once(tmp_path: Path) -> None:
    """A ticker of nobody known asks for `contracts` at once; one that stays a riddle does not ask again and again."""
    exchange = Exchange()
    async with following(tmp_path, exchange, tickers_s=0.01, contracts_s=1e9) as world:
        await until(lambda: exchange.asked.count("tickers") > 5)
        assert exchange.asked.count("contracts") == 0
        exchange.tickers_of = (*NAMES, "DELIVERY_231229")
        await until(lambda: exchange.asked.count("contracts") == 1)
        asked = len(exchange.asked)
        await until(lambda: len(exchange.asked) > asked + 5)
        assert exchange.asked.count("contracts") == 1
        assert world.told == []

        exchange.tickers_of = (*NAMES, "DELIVERY_231229", "NEWUSDT")
        exchange.listed = r.universe(tuple(sorted((*NAMES, "NEWUSDT")))).contracts
        await until(lambda: len(world.told) == 1)

    assert "NEWUSDT" in world.told[0].symbols
    assert world.lines == ["universe: 5 symbols listed, 1 new (NEWUSDT), 0 gone, 0 of other rules"]


async def test_pushed_stranger_has_the_list_read_at_once(tmp_path: Path) -> None:
    """A push of a symbol nobody knows does not wait for the next look, and is looked for once."""
    exchange = Exchange()
    async with following(tmp_path, exchange, tickers_s=1e6, contracts_s=1e6) as world:
        exchange.listed = r.universe(tuple(sorted((*NAMES, "NEWUSDT")))).contracts
        world.discovery.call({"NEWUSDT"})
        await until(lambda: len(world.told) == 1)
        asked = len(exchange.asked)
        for _ in range(3):
            world.discovery.call({"NEWUSDT"})
            world.discovery.call(set())
            await asyncio.sleep(0)
        world.discovery.call({"OTHERUSDT"})
        await until(lambda: len(exchange.asked) > asked)

    assert exchange.asked.count("contracts") == 2


async def test_announced_launch_is_looked_for_when_it_is_due(tmp_path: Path) -> None:
    """A symbol that is listed for a later launch does not wait for the next regular look at the list."""
    launch_ms = START_NS // MS_NS + 5_000
    exchange = Exchange()
    exchange.listed = (contract("AUSDT", status="listed", launch_ms=launch_ms), *exchange.listed[1:])
    async with following(tmp_path, exchange, tickers_s=0.01, contracts_s=1e9, launch_s=0.01) as world:
        await until(lambda: exchange.asked.count("tickers") > 5)
        assert exchange.asked.count("contracts") == 0
        exchange.now_ns = launch_ms * MS_NS
        await until(lambda: exchange.asked.count("contracts") > 2)
        assert world.told == []
        exchange.listed = (contract("AUSDT", launch_ms=launch_ms), *exchange.listed[1:])
        exchange.tickers_of = NAMES[1:]  # which says nothing of it yet
        await until(lambda: len(world.told) == 1)
        asked = exchange.asked.count("contracts")
        tickers = exchange.asked.count("tickers")
        await until(lambda: exchange.asked.count("tickers") > tickers + 5)

    assert exchange.asked.count("contracts") <= asked + 1
    assert world.told[0].contracts[0].status == "normal"


async def test_launch_that_does_not_come_is_not_looked_for_for_ever(tmp_path: Path) -> None:
    """A launch that is long overdue is found as any other change is."""
    exchange = Exchange()
    launch_ms = START_NS // MS_NS - round(discovery.LAUNCH_S_MAX * 1000)
    exchange.listed = (contract("AUSDT", status="listed", launch_ms=launch_ms), *exchange.listed[1:])
    async with following(tmp_path, exchange, tickers_s=0.01, contracts_s=1e9, launch_s=0.01):
        await until(lambda: exchange.asked.count("tickers") > 5)

    assert exchange.asked.count("contracts") == 0


async def test_rules_that_changed_are_dated(tmp_path: Path) -> None:
    """Another tick, another status, an announced end: each is a snapshot of its own time, the rest is not repeated."""
    exchange = Exchange()
    world = await World(tmp_path, exchange, ALWAYS).begin()
    changed: list[dict[str, Any]] = [
        {"tick": Decimal("0.01")},
        {},
        {"status": "limit_open"},
        {"off_ms": 1_800_000_000_000},
        {},
    ]
    rules: dict[str, Any] = {}
    for change in changed:
        rules |= change
        exchange.listed = (contract("AUSDT", **rules), *exchange.listed[1:])
        await world.discovery._look()

    assert [universe.contracts[0].status for universe in world.snapshots()] == ["normal", "normal"] + ["limit_open"] * 2
    assert [universe.contracts[0].tick for universe in world.snapshots()] == [Decimal("0.1")] + [Decimal("0.01")] * 3
    assert [line.rsplit(", ", 1)[1] for line in world.lines] == ["1 of other rules (AUSDT)"] * 3


async def test_hourly_snapshot_is_written_once_an_hour(tmp_path: Path) -> None:
    """Unchanged, a universe is written once an hour, with the prices of then, whoever starts how often in that hour."""
    exchange = Exchange()
    world = await World(tmp_path, exchange, ALWAYS).begin()
    for minute in range(0, 180, 7):
        exchange.now_ns = START_NS + minute * 60 * NS
        await world.discovery._look()
        if minute % 5 == 0:
            await discover(world.rest, tmp_path, r.SOURCE)

    hours = [universe.as_of_ns // r.HOUR_NS - r.HOUR for universe in world.snapshots()]
    assert hours == [0, 1, 2]
    assert world.told == []
    rows = read.collect(read.scan(tmp_path, "universe", r.SOURCE))
    assert rows.filter(pl.col("last").is_null()).height == 0


async def test_failing_exchange_is_asked_less_and_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every failure is told with its reason, waits grow up to the bound, and the first answer ends them."""
    waits: list[float] = []
    wait = Discovery._wait

    async def noted(self: Discovery, stop: asyncio.Event, seconds: float) -> None:
        waits.append(seconds)
        await wait(self, stop, min(seconds, 0.001))

    monkeypatch.setattr(Discovery, "_wait", noted)
    exchange = Exchange()
    async with following(tmp_path, exchange, tickers_s=20.0, wait_s_max=60.0) as world:
        exchange.error = ExchangeSilent("nobody there")
        await until(lambda: len(world.notes) >= 5)
        exchange.error = ProtocolBroken("a page of a proxy")
        await until(lambda: "proxy" in str(world.notes[-1].fields["reason"]))
        exchange.error = None
        exchange.listed = r.universe(tuple(sorted((*NAMES, "NEWUSDT")))).contracts
        await until(lambda: len(world.told) == 1)

    assert {note.event for note in world.notes} == {"universe.unseen"}
    assert waits[:6] == [20.0, 20.0, 40.0, 60.0, 60.0, 60.0]
    assert "NEWUSDT" in world.told[0].symbols
    assert world.discovery.failures == 0


async def test_empty_list_is_not_believed(tmp_path: Path) -> None:
    """A list of nothing is told and changes nothing, however often it comes."""
    exchange = Exchange()
    async with following(tmp_path, exchange, tickers_s=0.01, contracts_s=0.0, wait_s_max=0.01) as world:
        exchange.listed = ()
        await until(lambda: len(world.notes) > 2)

    assert "must list perpetuals, found none" in str(world.notes[0].fields["reason"])
    assert world.told == []
    assert [universe.symbols for universe in world.snapshots()] == [tuple(sorted(NAMES))]


async def test_snapshot_that_could_not_be_written_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk refuses, the recorder follows all the same, and the lake has the change when the disk takes it."""
    exchange = Exchange()
    world = await World(tmp_path, exchange, ALWAYS).begin()
    exchange.listed = r.universe(tuple(sorted((*NAMES, "NEWUSDT")))).contracts

    def refuse(*args: Any) -> None:
        raise LakeError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(write, "write_universe", refuse)
        with pytest.raises(LakeError, match="no room"):
            await world.discovery._look()
    assert len(world.told) == 1
    await world.discovery._look()

    assert len(world.told) == 1
    assert [len(universe.contracts) for universe in world.snapshots()] == [4, 5]


# ----------------------------------------------------------------------------------------------------- tiers


@contextlib.asynccontextmanager
async def reading_tiers(lake: Path, exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Read tiers, a thousand times as fast, while the block runs."""
    monkeypatch.setattr(discovery, "TIERS_PER_S", 5000.0)
    world = await World(lake, exchange, Every(tickers_s=0.01, tiers_write_s=0.001, wait_s_max=0.01)).begin()
    stop = asyncio.Event()
    task = asyncio.create_task(world.discovery.follow_tiers(stop))
    try:
        yield world
    finally:
        stop.set()
        await task


async def test_tiers_of_all_are_read_once_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody's tiers are stored; asked for again are those a day old, those whose leverage changed, and new symbols."""
    exchange = Exchange()
    async with reading_tiers(tmp_path, exchange, monkeypatch) as world:

        def stored() -> dict[str, Ladder]:
            return tiers_at(tmp_path, r.SOURCE, exchange.now_ns, (*NAMES, "NEWUSDT"))

        await until(lambda: set(stored()) == set(NAMES))
        assert sorted(exchange.asked) == sorted(NAMES)
        first = stored()

        exchange.asked.clear()
        rules = (contract("AUSDT", leverage_max=20), *world.universe.contracts[1:3], contract("NEWUSDT"))
        exchange.leverages["AUSDT"] = 20
        world.discovery.universe = msgspec.structs.replace(
            world.universe, contracts=tuple(sorted((*rules, world.universe.contracts[3]), key=lambda c: c.symbol))
        )
        await until(lambda: len(stored()) == 5 and stored()["AUSDT"] != first["AUSDT"])
        assert sorted(exchange.asked) == ["AUSDT", "NEWUSDT"]
        assert stored()["AUSDT"].tiers[0].leverage_max == 20
        assert tiers_at(tmp_path, r.SOURCE, first["AUSDT"].as_of_ns, ["AUSDT"])["AUSDT"] == first["AUSDT"]

        exchange.asked.clear()
        exchange.now_ns += 86_500 * NS
        await until(lambda: all(ladder.as_of_ns > START_NS + 86_400 * NS for ladder in stored().values()))
        assert sorted(exchange.asked) == sorted((*NAMES, "NEWUSDT"))


async def test_tiers_that_the_lake_has_are_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart asks for what is missing alone."""
    exchange = Exchange()
    async with reading_tiers(tmp_path, exchange, monkeypatch):
        await until(lambda: set(tiers_at(tmp_path, r.SOURCE, exchange.now_ns, NAMES)) == set(NAMES))
    exchange.listed = r.universe(tuple(sorted((*NAMES, "NEWUSDT")))).contracts

    async with reading_tiers(tmp_path, exchange, monkeypatch):
        await until(lambda: exchange.asked == ["NEWUSDT"])


async def test_refused_tiers_are_told_and_the_others_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A symbol whose tiers are refused, or empty, is named, asked for again less and less often, and delays nobody."""
    exchange = Exchange()
    exchange.leverages = {"AUSDT": None, "BUSDT": 0, "CUSDT": -1}
    async with reading_tiers(tmp_path, exchange, monkeypatch) as world:
        await until(lambda: len(read.hours(tmp_path, TABLE, r.SOURCE)) == 1 and exchange.asked.count("AUSDT") > 2)
        exchange.leverages = {}
        await until(lambda: set(tiers_at(tmp_path, r.SOURCE, exchange.now_ns, NAMES)) == set(NAMES))

    assert {(note.event, note.fields["symbol"]) for note in world.notes} == {
        ("tiers.unread", "AUSDT"),
        ("tiers.unread", "CUSDT"), ("tiers.unread", "BUSDT"),
    }  # fmt: skip


def test_changes_are_one_line() -> None:
    """What changed is said in one line, with at most five names of each kind."""
    names = tuple(f"N{k}USDT" for k in range(7))
    before, after = r.universe(("AUSDT",)), r.universe(tuple(sorted(("BUSDT", *names))))

    assert changes(before, after) == (
        "universe: 8 symbols listed, 8 new (BUSDT, N0USDT, N1USDT, N2USDT, N3USDT …), 1 gone (AUSDT), 0 of other rules"
    )
