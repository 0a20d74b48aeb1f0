"""Follow what is listed while a recorder runs: listings and rules within a minute, position tiers once a day.

Two reads, five requests a minute of Bitget's twenty a second:

    tickers     every 20 s: who has a market. Somebody unknown, or somebody known who is missing, has `contracts` read
    contracts   at once then, after a push of a symbol nobody knows, at the full hour, at a launch that was announced,
                and every 40 s anyway: rules (tick, status, leverage) show nowhere else

A snapshot is written when a listing or a rule has changed, and once an hour. The hourly one is not waste: it dates the
prices, volumes and open interest that stand beside the rules, a reader of one hour never goes back further than to the
hour before, and 24 a day of 800 symbols are a thousandth of a per cent of what is recorded. What is unchanged within an
hour is not written again, by a restart neither.

A symbol is taken for gone when two lists in a row lack it and it has no ticker either: half a list would end half of
the recording, and so would rows with a field that cannot be read. These are kept in `quarantine`, the others count.
Whatever fails is told and tried again later, each time later, a minute at most; recording goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from pipelines.universe import tickers_frame
from shared.bitget import public
from shared.bitget.rest import POSITION_TIERS
from shared.bitget.transport import RestClient
from shared.bitget.wire import MS_NS, TickerRow
from shared.errors import CrosscutError, ProtocolBroken
from shared.lake import write
from shared.lake.layout import HOUR_NS
from shared.lake.tiers import Ladder, tiers_at, write_ladders
from shared.types import NS, Contract, Note, Tier, Universe

TIERS_PER_S = POSITION_TIERS.per_s / 2
LAUNCH_S_MAX = 20.0
"""How long an announced launch is looked for more often; a later one is found as any other change is."""

_STRANGERS_MAX = 1000


class Every(msgspec.Struct, frozen=True, kw_only=True):
    """How often what is asked for."""

    tickers_s: float = 20.0
    contracts_s: float = 40.0
    confirm_s: float = 5.0  # after a list that lacks somebody
    launch_s: float = 2.0  # around an announced launch
    wait_s_max: float = 60.0  # after failures
    tiers_s: float = 86_400.0  # how old a ladder may become
    tiers_write_s: float = 30.0  # how many seconds of answers are written at once


class Discovery:
    """What is listed now, by REST.

    Args:
        universe: what was discovered, and written, at the start.
        clock: stamps what is found; the recorder's.
        on_universe: is told of every change, before it is written.
        progress: is told a sentence of every change.
    """

    def __init__(
        self,
        rest: RestClient,
        lake: Path,
        universe: Universe,
        *,
        clock: Callable[[], int],
        on_universe: Callable[[Universe], None],
        progress: Callable[[str], None] = lambda line: None,
        on_notes: Callable[[Sequence[Note]], None] = lambda notes: None,
        every: Every | None = None,
    ) -> None:
        self.universe = universe
        self.failures = 0  # in a row
        self.quarantine = rest.quarantine  # what is not understood about the answers
        self._rest, self._lake, self._clock = rest, lake, clock
        self._on_universe, self._progress, self._on_notes = on_universe, progress, on_notes
        self._every = every or Every()
        self._written = universe
        self._read_s = time.monotonic()  # when `contracts` was
        self._odd: frozenset[str] = frozenset()  # whom tickers and contracts do not agree about, as last compared
        self._missing: frozenset[str] = frozenset()  # whom the last list lacked, and who is kept all the same
        self._is_doubtful = False  # some of them were missing for the first time
        self._strangers: set[str] = set()  # that were pushed
        self._called = asyncio.Event()

    def call(self, strangers: Iterable[str]) -> None:
        """Look at once for symbols that were pushed and are unknown; those that nobody lists are looked for once."""
        new = set(strangers) - self._strangers
        if new and len(self._strangers) < _STRANGERS_MAX:
            self._strangers |= new
            self._called.set()

    async def follow(self, stop: asyncio.Event) -> None:
        """Look until `stop` is set."""
        wait_s = self._every.tickers_s
        while not stop.is_set():
            await self._wait(stop, min(wait_s, max(self._every.launch_s, self._launch_in_s())))
            if stop.is_set():
                return
            try:
                await self._look()
            except CrosscutError as error:
                self.failures += 1
                self._read_s = -math.inf  # whatever asked for the list asks again
                self._on_notes([Note(event="universe.unseen", fields={"reason": str(error), "times": self.failures})])
                longer_s = self._every.tickers_s * 2.0 ** min(self.failures - 1, 10)
                wait_s = max(self._every.tickers_s, min(self._every.wait_s_max, longer_s))
                continue
            self.failures = 0
            wait_s = self._every.confirm_s if self._is_doubtful else self._every.tickers_s

    async def _look(self) -> None:
        tickers: tuple[TickerRow, ...] | None = None
        is_old = time.monotonic() - self._read_s >= self._every.contracts_s
        is_hour_over = self._clock() // HOUR_NS > self._written.as_of_ns // HOUR_NS
        is_launching = self._launch_in_s() <= 0.0
        if not (is_old or is_hour_over or is_launching or self._is_doubtful or self._called.is_set()):
            tickers = await self._rest.tickers()
            if _odd(tickers, self.universe.contracts) <= self._odd:
                return
        self._called.clear()
        found = await self._rest.readable_contracts(self.universe.source)
        self._read_s = time.monotonic()
        if not found.contracts:
            raise ProtocolBroken(f"{self._rest.base_url} must list perpetuals, found none: what was known stands")
        if tickers is None:
            tickers = await self._rest.tickers()
        self._on_notes(self._rest.take_notes())
        self._odd = _odd(tickers, found.contracts)
        names, seen = set(found.symbols), {row.symbol for row in tickers}
        lost = [contract for contract in self.universe.contracts if contract.symbol not in names]
        kept = [contract for contract in lost if contract.symbol not in self._missing or contract.symbol in seen]
        self._is_doubtful = any(contract.symbol not in self._missing for contract in kept)
        self._missing = frozenset(contract.symbol for contract in kept)
        contracts = tuple(sorted((*found.contracts, *kept), key=lambda contract: contract.symbol))
        await self._believe(msgspec.structs.replace(found, contracts=contracts), tickers)

    def _launch_in_s(self) -> float:
        """Return how soon the next announced launch is; <= 0: it is due, and not long since."""
        now_ms = self._clock() / MS_NS
        left_s = (
            (c.launch_ms - now_ms) / 1000 for c in self.universe.contracts if c.status == "listed" and c.launch_ms
        )
        return min((left for left in left_s if left > -LAUNCH_S_MAX), default=math.inf)

    async def _believe(self, universe: Universe, tickers: Sequence[TickerRow]) -> None:
        """Tell of a universe where it is another one, and write it where the lake does not have it in this hour."""
        before, self.universe = self.universe, universe
        if universe.contracts != before.contracts:
            self._progress(changes(before, universe))
            self._on_universe(universe)
        is_hour_over = universe.as_of_ns // HOUR_NS > self._written.as_of_ns // HOUR_NS
        if universe.contracts != self._written.contracts or is_hour_over:
            await asyncio.to_thread(write.write_universe, self._lake, universe, tickers_frame(tickers))
            self._written = universe

    # ---------------------------------------------------------------------------------------------- tiers

    async def follow_tiers(self, stop: asyncio.Event) -> None:
        """Read and write position tiers until `stop` is set: of new symbols, changed leverage, and everybody daily.

        One symbol a request, at half of Bitget's pace: 800 symbols take three minutes.
        """
        source, every = self.universe.source, self._every
        try:
            ladders = await asyncio.to_thread(tiers_at, self._lake, source, self._clock(), self.universe.symbols)
        except CrosscutError as error:
            self._on_notes([Note(event="tiers.unread", fields={"reason": str(error)})])
            ladders = {}
        as_of_ns = {symbol: ladder.as_of_ns for symbol, ladder in ladders.items()}
        leverage = {contract.symbol: contract.leverage_max for contract in self.universe.contracts}
        refused: dict[str, tuple[int, float]] = {}  # symbol -> how often in a row, and when it may be asked for again
        unwritten: dict[str, Ladder] = {}
        while not stop.is_set():
            due = [
                contract
                for contract in self.universe.contracts
                if contract.status != "off"
                and refused.get(contract.symbol, (0, 0.0))[1] <= time.monotonic()
                and (
                    self._clock() - as_of_ns.get(contract.symbol, 0) > every.tiers_s * NS
                    or leverage.get(contract.symbol) != contract.leverage_max
                )
            ]
            batch = due[: max(1, round(every.tiers_write_s * TIERS_PER_S))]
            for contract in batch:
                symbol = contract.symbol
                await _pause(stop, 1.0 / TIERS_PER_S)
                if stop.is_set():
                    break
                try:
                    unwritten[symbol] = await self._ladder(symbol)
                except CrosscutError as error:
                    times = refused.get(symbol, (0, 0.0))[0] + 1
                    refused[symbol] = (
                        times,
                        time.monotonic() + min(3600.0, every.wait_s_max * 2.0 ** min(times - 1, 10)),
                    )
                    self._on_notes([Note(event="tiers.unread", fields={"symbol": symbol, "reason": str(error)})])
                    continue
                refused.pop(symbol, None)
                as_of_ns[symbol], leverage[symbol] = unwritten[symbol].as_of_ns, contract.leverage_max
            if unwritten:
                try:
                    await asyncio.to_thread(write_ladders, self._lake, source, unwritten)
                    unwritten = {}
                except CrosscutError as error:
                    self._on_notes([Note(event="tiers.unwritten", fields={"reason": str(error)})])
                    await _pause(stop, every.wait_s_max)
            if len(batch) == len(due):
                await _pause(stop, every.tickers_s)

    async def _ladder(self, symbol: str) -> Ladder:
        rows = await self._rest.position_tiers(symbol)
        if not rows or [(row.symbol, row.level) for row in rows] != [(symbol, k + 1) for k in range(len(rows))]:
            raise ProtocolBroken(
                f"{POSITION_TIERS.path} must have tiers 1, 2, … of {symbol}, found "
                f"{[(row.symbol, row.level) for row in rows][:3]}: asked for again later"
            )
        return Ladder(self._clock(), tuple(_tier(row) for row in rows))

    async def _wait(self, stop: asyncio.Event, seconds: float) -> None:
        """Return when `stop` is set, when somebody calls, or after `seconds`."""
        waiting = [asyncio.create_task(event.wait()) for event in (stop, self._called)]
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


def changes(before: Universe, after: Universe) -> str:
    """Say what changed between two universes."""
    old, new = ({c.symbol: c for c in universe.contracts} for universe in (before, after))
    parts = [f"{len(new)} symbols listed"]
    for what, symbols in (
        ("new", sorted(new.keys() - old.keys())),
        ("gone", sorted(old.keys() - new.keys())),
        ("of other rules", sorted(symbol for symbol in new.keys() & old.keys() if new[symbol] != old[symbol])),
    ):
        names = f" ({', '.join(symbols[:5])}{' …' if len(symbols) > 5 else ''})" if symbols else ""
        parts.append(f"{len(symbols)} {what}{names}")
    return "universe: " + ", ".join(parts)


def _odd(tickers: Iterable[TickerRow], contracts: Iterable[Contract]) -> frozenset[str]:
    """Return the symbols that have a ticker and should have none, or the other way round."""
    return frozenset({row.symbol for row in tickers} ^ {c.symbol for c in contracts if c.has_market})


def _tier(row: public.TierRow) -> Tier:
    return Tier(
        level=row.level,
        start_usdt=row.start_unit,
        end_usdt=row.end_unit,
        leverage_max=row.leverage,
        maintenance_rate=row.keep_margin_rate,
    )


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    """Return when `stop` is set, or after `seconds`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
