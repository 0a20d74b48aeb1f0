"""A market recorded through misbehaviour without sockets, and judged by what the market showed and the venue sent.

    market -> PublicFeed -> Line (faults) -> PublicSession -> TickBuffer -> WriteAheadLog -> seal -> coverage

Time is virtual, so a core records a thousand symbols' seconds in one. The judge shares nothing with the recorder: what
was pushed it takes from the feed before misbehaviour, what left from the line behind it, values of books and trades
from the market's own ticks and steps, of tickers from frames that it reads itself.

What a client can see of what it lost, as the judge counts it (docs/coverage.md):

    not linked, unreadable     always
    books                      always: the next change does not continue the chain
    books5, books15, ticker    five cadences without one that came
    trade                      always: the minute's candle counts it
"""

from __future__ import annotations

import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import polars as pl

from shared.bitget.session import PublicSession
from shared.bitget.states import Channel
from shared.bitget.ticks import TickBuffer
from shared.lake import coverage, read, wal, write
from shared.lake.layout import HOUR_S, TABLES
from shared.simulator import desk
from shared.simulator.faults.conditions import Change, Disconnect, PushFault, Script, Step
from shared.simulator.faults.faults import Faults
from shared.simulator.faults.lines import Line
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator.pushes.feed import Cadence, PublicFeed
from shared.simulator.pushes.frames import text_frame
from shared.types import FULL_BOOKS, NS, TickEvent

MS = 1_000_000
STEP_NS = 50 * MS
CADENCE = Cadence(book_ms=125, ticker_ms=110)  # Bitget's, measured
CADENCES_MAX = 5.0
CANDLE_S = 60
_QUIET_S = 900  # a full book may have been told so long ago
EARLY_S = 2  # the feed is followed so long before anybody connects

BOOK, TICKER, TRADE = 0, 1, 2
NAMES = ("book", "ticker", "trade")
Kind = Literal["clean", "drop", "duplicate", "reorder", "tear", "freeze", "disconnect", "rotate", "mixed"]
KINDS: tuple[Kind, ...] = ("clean", "drop", "duplicate", "reorder", "tear", "freeze", "disconnect", "rotate", "mixed")

Ints = np.ndarray[Any, np.dtype[np.int64]]
_KEY_CHANNEL, _KEY_SYMBOL = 1 << 54, 1 << 42  # a push: channel, symbol, exchange time in ms (41 bits)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One run: everything follows from it."""

    seed: int
    kind: Kind
    symbols: int = 60
    seconds: int = 1200  # across the border of an hour
    channel: str = "books5"
    connections: int = 2


class Judged(msgspec.Struct, kw_only=True):
    """What a run was found to be."""

    case: Case
    frames: int = 0  # received
    pushed: int = 0  # by the market, on the channels that were wanted, in the time that was recorded
    rows: int = 0  # in the lake, links left out
    invented: int = 0  # rows that nobody sent
    missing: int = 0  # pushes that were received and are not in the lake
    lost: dict[str, int] = {}  # pushes that did not arrive, by table
    unmarked: int = 0  # of those: in a minute that coverage takes for complete
    violations: int = 0  # of those: a client could have seen it
    clean_minutes: int = 0  # of a symbol and channel: linked, nothing lost, nothing unreadable
    clean_marked: int = 0  # of those: not complete
    examples: list[str] = []  # of violations
    marks: dict[str, int] = {}  # minutes by reason
    struck: dict[str, int] = {}

    def failures(self) -> list[str]:
        """Return what must not be, in words; [] where the run is as it should be."""
        found = []
        if self.invented or self.missing or self.violations:
            found.append(f"{self.invented} invented, {self.missing} missing, {self.violations} detectable and unmarked")
        if self.clean_marked > max(1, self.clean_minutes * 0.001):
            found.append(f"{self.clean_marked} of {self.clean_minutes} clean minutes are marked")
        return found


def run(case: Case, folder: Path | None = None) -> Judged:
    """Record a case and judge it."""
    with tempfile.TemporaryDirectory(dir=folder) as lake:
        world = World(case, Path(lake))
        world.record()
        return Judge(world).judge()


class Freeze(msgspec.Struct, frozen=True):
    """A time in which nothing of these is pushed, on any connection, though all of them answer."""

    at_s: float  # since the recording began
    long_s: float
    channel: str
    symbol: str


def freezes(case: Case) -> list[Freeze]:
    """Return what stands still in a case, when."""
    rng = np.random.default_rng((case.seed, 5))
    symbols = GeneratedMarket(case.seed, case.symbols).symbols
    found, at_s = [], 70.0
    while at_s < case.seconds - 60:
        long_s = float(rng.choice([0.2, 0.4, 0.8, 1.5, 5.0, 40.0]))
        symbol = symbols[int(rng.integers(case.symbols))] if rng.random() < 0.7 else "*"
        found.append(Freeze(at_s, long_s, str(rng.choice(["*", "ticker", "books*", "trade"])), symbol))
        at_s += long_s + float(rng.exponential(60.0)) + 5.0
    return found


def script(case: Case) -> Script:
    """Return what goes wrong in a case."""
    pushes: list[PushFault] = []
    disconnects: list[Disconnect] = []
    steps: list[Step] = []
    kinds = ("drop", "duplicate", "reorder", "tear", "freeze", "disconnect") if case.kind == "mixed" else (case.kind,)
    for kind in kinds:
        if kind == "drop":
            pushes += [PushFault(what="lose", channel="ticker|books*", p=0.004)]
            pushes += [PushFault(what="lose", channel="trade", p=0.0005)]
        elif kind == "duplicate":
            pushes += [PushFault(what="duplicate", p=0.02)]
        elif kind == "reorder":
            pushes += [PushFault(what="reorder", channel="ticker|trade|books5|books15", p=0.01, window=40)]
        elif kind == "tear":
            p = 4.0 / (18 * case.symbols * case.seconds)  # each costs a minute of all that its connection carries
            pushes += [PushFault(what="tear", p=p), PushFault(what="not_json", p=p)]
        elif kind == "disconnect":
            disconnects += [Disconnect(every_s=240.0), Disconnect(every_s=400.0, how="close")]
            pushes += [PushFault(what="cut", p=2.0 / (18 * case.symbols * case.seconds))]
    for freeze in freezes(case) if "freeze" in kinds else ():
        frozen = PushFault(what="lose", channel=freeze.channel, symbol=freeze.symbol)
        steps.append(Step(at_s=freeze.at_s, change=Change(pushes=[frozen, *pushes])))
        steps.append(Step(at_s=freeze.at_s + freeze.long_s, change=Change(pushes=list(pushes))))
    return Script(seed=case.seed, conditions=Change(pushes=pushes, disconnects=disconnects), steps=steps)


# ------------------------------------------------------------------------------------------------------ recording


class Connection:
    """One connection of a session through a line of its own; nothing is lost between line and session."""

    def __init__(self, world: World, session: PublicSession) -> None:
        self.world, self.session = world, session
        self.topics: set[tuple[str, str]] = set()
        self.line: Line | None = None  # None: not connected
        self.opened_ns = 0
        self.retry_ns = 0
        self.pending: list[bytes] = []
        self._known: tuple[dict[int, tuple[int, bytes]], dict[int, tuple[int, bytes]]] = {}, {}

    def connect(self, now_ns: int) -> None:
        self.line = self.world.faults.line("public")
        self.topics.clear()
        self.opened_ns = now_ns
        self._answer(self.session.connected(self.world.stamp(now_ns)), now_ns)

    def end(self, now_ns: int, retry_s: float | None) -> None:
        self.line, self.pending = None, []
        self.topics.clear()
        self.session.lost(self.world.stamp(now_ns))
        self.retry_ns = now_ns + int(retry_s * NS) if retry_s is not None else 2**62
        if retry_s is not None:
            self.world.cut.append((now_ns // MS, self))

    def queue(self, key: int, frame: bytes) -> None:
        self.pending.append(frame)
        self._known[0][id(frame)] = key, frame

    def deliver(self, now_ns: int) -> None:
        """Let what was queued pass the line, and the session have what is left of it."""
        line, world = self.line, self.world
        if line is None:
            return
        if now_ns % (250 * MS) == 0:
            self._answer(self.session.tick(world.stamp(now_ns)), now_ns)
        frames, self.pending = self.pending, []
        out = line.carry(frames, now_ns) if line.is_on else frames
        received, newer, older = self.session.received, *self._known
        delivered = world.delivered
        at_ns = world.stamp(now_ns)
        for frame in out:
            found = newer.get(id(frame)) or older.get(id(frame))
            if found is not None and found[0] >= 0:
                delivered.append(found[0])
            opcode, text = frame[0] & 0x0F, frame[2 if frame[1] < 126 else 4 if frame[1] == 126 else 10 :]
            if line.ending and frame is out[-1] and found is None:
                break  # half of a frame, and then the end: no client ever sees it
            if found is None:
                world.unreadable.append((now_ns // MS, self))
            at_ns += 1
            received(text.decode("utf-8", "replace") if opcode == 1 else text, at_ns)
        world.last_ns = at_ns
        if now_ns // (2 * NS) != (now_ns - STEP_NS) // (2 * NS):
            self._known = {}, newer
        if line.ending or self.session.is_dead:
            self.end(now_ns, float(world.rng.uniform(0.1, 3.0)))

    def _answer(self, requests: list[str], now_ns: int) -> None:
        world = self.world
        for request in requests:
            if request == "ping":
                self.queue(-1, text_frame("pong"))
                continue
            asked = msgspec.json.decode(request)
            assert asked["op"] in ("subscribe", "unsubscribe"), request
            for arg in asked["args"]:
                topic = arg["channel"], arg["instId"]
                self.queue(-1, text_frame(msgspec.json.encode({"event": asked["op"], "arg": arg}).decode()))
                if asked["op"] == "unsubscribe":
                    self.topics.discard(topic)
                    continue
                text = world.feed.snapshot(now_ns, *topic)
                if text is not None:
                    key = world.key(*topic, now_ns) if topic[0] != "trade" else -1
                    self.queue(key, text_frame(text))
                self.topics.add(topic)


class World:
    """A market, its misbehaving venue, and the recorder."""

    def __init__(self, case: Case, lake: Path) -> None:
        self.case, self.lake = case, lake
        self.rng = np.random.default_rng((case.seed, 77))
        self.market = GeneratedMarket(case.seed, case.symbols)
        self.feed = PublicFeed(self.market, CADENCE)
        self.faults = Faults(case.seed)
        self.end_s = (489_000 + 24 * (case.seed % 100)) * HOUR_S + case.seconds // 2
        self.start_s = self.end_s - case.seconds
        self.universe = desk.universe_of(self.market, (self.start_s - 60) * NS)
        self.position = {symbol: n for n, symbol in enumerate(self.market.symbols)}
        self.channels = (case.channel, "trade", "ticker")
        self.is_full = case.channel == FULL_BOOKS
        self.buffer = TickBuffer(self.universe.symbols, has_depth=self.is_full)
        self.last_ns = 0
        self.connections: list[Connection] = []
        self.pushed, self.delivered = array("q"), array("q")
        self.unreadable: list[tuple[int, Connection]] = []
        self.cut: list[tuple[int, Connection]] = []  # connections that ended, and not because another took over
        self.up_ms: dict[tuple[int, int], list[tuple[int, int]]] = {}  # channel, symbol -> [from, to) while linked
        self.tickers = np.full((case.seconds + EARLY_S + 1, case.symbols, len(_TICKER_FIELDS)), np.nan)
        self._n_conns = 0

    def key(self, channel: str, symbol: str, time_ns: int) -> int:
        return _code(channel) * _KEY_CHANNEL + self.position[symbol] * _KEY_SYMBOL + time_ns // MS

    def stamp(self, now_ns: int) -> int:
        self.last_ns = max(self.last_ns + 1, now_ns)
        return self.last_ns

    def session_of(self, part: int) -> PublicSession:
        symbols = self.universe.symbols[part :: self.case.connections]
        session = PublicSession(symbols, self.channels, conn=self._n_conns, buffer=self.buffer)
        self._n_conns += 1
        return session

    def record(self) -> None:
        case = self.case
        write.write_universe(self.lake, self.universe)
        log = wal.WriteAheadLog(self.lake, self.market.source, "sweep", self.universe, has_depth=self.is_full)
        parts = [[Connection(self, self.session_of(part))] for part in range(case.connections)]
        wanted = dict.fromkeys(self.channels, frozenset(self.market.symbols))
        rotates = case.kind in ("rotate", "mixed")
        by_symbol: dict[str, list[Connection]] = {}
        is_up_since: dict[tuple[int, int], int] = {}
        for second in range(self.start_s - EARLY_S, self.end_s):
            if second == self.start_s:
                self.faults.begin(script(case), second * NS)
            for begin_ns in range(second * NS, (second + 1) * NS, STEP_NS):
                now_ns = begin_ns + STEP_NS
                self.faults.tick(now_ns)
                if second >= self.start_s:
                    for part, connections in enumerate(parts):
                        self._turn(part, connections, begin_ns, rotates=rotates)
                        for symbol in self.universe.symbols[part :: case.connections]:
                            by_symbol[symbol] = connections
                self._push(begin_ns, now_ns, wanted, by_symbol, is_recorded=second >= self.start_s)
                for connections in parts:
                    for connection in connections:
                        connection.deliver(now_ns)
            self._note_links(parts, (second + 1) * 1000, is_up_since)
            if second >= self.start_s and second % 5 == 4:
                log.append(self.buffer.take())
                log.flush()
        for connections in parts:
            for connection in connections:
                if connection.line is not None:
                    connection.end(self.end_s * NS, None)
        self._note_links([], self.end_s * 1000, is_up_since)
        log.append(self.buffer.take())
        log.close()
        self._write_candles()
        for hour in write.unsealed(self.lake, self.market.source):
            write.seal(self.lake, self.market.source, hour)
        for hour in read.hours(self.lake, "raw/book", self.market.source):
            coverage.write_coverage(self.lake, self.market.source, hour)

    def _turn(self, part: int, connections: list[Connection], now_ns: int, *, rotates: bool) -> None:
        """Connect what is due; replace what is old, make before break, and cut what is older still."""
        for connection in list(connections):
            if connection.line is None and connection.retry_ns <= now_ns:
                connection.connect(now_ns)
            age_s = (now_ns - connection.opened_ns) / NS
            if rotates and connection.line is not None and age_s > 150:  # Bitget's cut after 24 hours, shortened
                connection.end(now_ns, 0.5)
        if not rotates:
            return
        newest = connections[-1]
        if len(connections) == 1 and newest.line is not None and now_ns - newest.opened_ns > 120 * NS:
            connections.append(Connection(self, self.session_of(part)))
        elif len(connections) == 2 and all(
            newest.session.channels[channel] is Channel.LINKED
            for channel, state in connections[0].session.channels.items()
            if state is Channel.LINKED
        ):
            if connections[0].line is not None:
                connections[0].end(now_ns, None)
            del connections[0]

    def _push(
        self,
        begin_ns: int,
        end_ns: int,
        wanted: dict[str, frozenset[str]],
        by_symbol: dict[str, list[Connection]],
        *,
        is_recorded: bool,
    ) -> None:
        base_s, tickers, position = self.start_s - EARLY_S, self.tickers, self.position
        codes = {channel: _code(channel) * _KEY_CHANNEL for channel in self.channels}
        for time_ns, channel, symbol, frame in self.feed.wire(begin_ns, end_ns, wanted):
            n = position[symbol]
            if channel == "ticker" and tickers[time_ns // NS - base_s, n, 0] != tickers[time_ns // NS - base_s, n, 0]:
                tickers[time_ns // NS - base_s, n] = _read_ticker(frame)
            if not is_recorded:
                continue
            key = codes[channel] + n * _KEY_SYMBOL + time_ns // MS
            self.pushed.append(key)
            topic = channel, symbol
            for connection in by_symbol[symbol]:
                if topic in connection.topics:
                    connection.queue(key, frame)

    def _note_links(self, parts: list[list[Connection]], now_ms: int, since: dict[tuple[int, int], int]) -> None:
        """Keep when each channel of a symbol was linked on some connection, to the second."""
        up = {
            (_code(channel), self.position[symbol])
            for connections in parts
            for connection in connections
            if connection.line is not None
            for (channel, symbol), state in connection.session.channels.items()
            if state is Channel.LINKED
        }
        for link in up - since.keys():
            since[link] = now_ms
        for link in since.keys() - up:
            self.up_ms.setdefault(link, []).append((since.pop(link), now_ms - 1000))

    def trades(self) -> dict[str, Any]:
        """Return every trade of the time that was recorded: columns, and the key of the push that told it."""
        parts: dict[str, list[Any]] = {name: [] for name in ("n", "ms", "id", "price", "size", "side", "window", "ns")}
        for block, first, last in self.blocks():
            trades = block.trades
            begin, end = first - block.first_second, last - block.first_second
            rows = slice(int(trades.start[begin]), int(trades.start[end]))
            seconds = np.repeat(np.arange(first, last), np.diff(trades.start[begin : end + 1]))
            n = trades.symbol[rows]
            at_ns = seconds * NS + trades.offset_ns[rows]
            values = {
                "n": n, "ms": at_ns // MS, "id": trades.trade_id[rows], "side": trades.side[rows], "ns": at_ns,
                "price": trades.price_ticks[rows] / self.market.price_scale[n],
                "size": trades.size_steps[rows] / self.market.size_scale[n],
                "window": seconds * 1000 + trades.offset_ns[rows] // (CADENCE.trade_ms * MS),
            }  # fmt: skip
            for name, column in values.items():
                parts[name].append(column)
        found: dict[str, Any] = {name: np.concatenate(columns) for name, columns in parts.items()}
        # A push holds the trades of a window, and leaves when the last of them has happened.
        _, group = np.unique(found["window"] * 1024 + found["n"], return_inverse=True)
        leaves_ns = np.zeros(int(group.max()) + 1, np.int64)
        np.maximum.at(leaves_ns, group, found["ns"])
        found["key"] = TRADE * _KEY_CHANNEL + found["n"] * _KEY_SYMBOL + leaves_ns[group] // MS
        return found

    def blocks(self, early_s: int = 0) -> Iterator[tuple[Any, int, int]]:
        """Yield (block, first second, end second) of the time that was recorded."""
        second = self.start_s - early_s
        while second < self.end_s:
            block = self.market.block(second)
            end = min(self.end_s, block.first_second + len(block.is_fresh))
            yield block, second, end
            second = end

    def _write_candles(self) -> None:
        trades = self.trades()
        minutes = np.arange(-(-self.start_s // CANDLE_S), self.end_s // CANDLE_S)
        volumes = np.zeros((len(minutes), self.case.symbols))
        at = trades["ms"] // (CANDLE_S * 1000) - minutes[0]
        inside = (at >= 0) & (at < len(minutes))
        np.add.at(volumes, (at[inside], trades["n"][inside]), trades["size"][inside])
        for hour in np.unique(minutes // 60).tolist():
            own = np.flatnonzero(minutes // 60 == hour)
            frame = pl.DataFrame(
                {
                    "minute": np.repeat(minutes[own], self.case.symbols),
                    "symbol": list(self.market.symbols) * len(own),
                    "base_volume": volumes[own].reshape(-1),
                }
            )
            ones = [pl.lit(1.0).alias(name) for name in ("open", "high", "low", "close", "quote_volume")]
            columns = TABLES["candles"].columns
            write.add_rows(
                self.lake, "candles", self.market.source, hour, frame.with_columns(ones).select(list(columns)), {}
            )


_TICKER_FIELDS = {
    "last": "lastPr", "bid": "bidPr", "ask": "askPr", "bid_size": "bidSz", "ask_size": "askSz", "mark": "markPrice",
    "index": "indexPrice", "funding_rate": "fundingRate", "next_funding_ms": "nextFundingTime",
    "open_interest": "holdingAmount", "base_volume_24h": "baseVolume", "quote_volume_24h": "quoteVolume",
}  # fmt: skip


def _read_ticker(frame: bytes) -> list[float]:
    row = msgspec.json.decode(frame[frame.index(b'{"action"') :])["data"][0]
    blank = {"nextFundingTime": 0.0}
    return [float(row[name]) if row[name] else blank.get(name, np.nan) for name in _TICKER_FIELDS.values()]


def _code(channel: str) -> int:
    return TICKER if channel == "ticker" else TRADE if channel == "trade" else BOOK


# -------------------------------------------------------------------------------------------------------- judging


class Judge:
    """Compare the lake with what was pushed and what was sent."""

    def __init__(self, world: World) -> None:
        self.world, self.case = world, world.case
        self.found = Judged(case=world.case)
        self.trades = world.trades()
        self.order = np.argsort(self.trades["id"])

    def judge(self) -> Judged:
        world, found = self.world, self.found
        pushed, delivered = np.unique(np.array(world.pushed)), np.array(world.delivered)
        found.frames, found.pushed = len(delivered), len(pushed)
        found.struck = dict(world.faults.struck)
        kept = [self._books(delivered), self._tickers(delivered), self._trades(delivered)]
        marks = self._marks()
        affected = np.zeros(marks.shape, np.bool_)
        for code, (keys, is_told) in enumerate(kept):
            own = pushed[pushed // _KEY_CHANNEL == code]
            lost = own[~is_told(own)]
            found.lost[NAMES[code]] = len(lost)
            self._judge_losses(code, lost, keys, delivered, marks, affected)
        self._judge_minutes(marks, affected)
        return found

    # -- rows

    def _rows(self, table: str, batch: tuple[str, ...]) -> pl.DataFrame:
        axis = pl.DataFrame({"symbol": list(self.world.market.symbols), "n": np.arange(self.case.symbols)})
        rows = read.collect(
            read.scan(self.world.lake, f"raw/{table}", self.world.market.source, symbols=batch, is_sorted=False)
        )
        return rows.filter(pl.col("event") <= int(TickEvent.REPEATED)).join(axis, on="symbol", how="left")

    def _batches(self, size: int = 25) -> Iterator[tuple[str, ...]]:
        symbols = self.world.market.symbols
        for begin in range(0, len(symbols), size):
            yield symbols[begin : begin + size]

    def _compare_keys(self, code: int, rows: pl.DataFrame, delivered: Ints) -> Ints:
        """Count rows that were not sent, or not so often; return the keys of all."""
        n, exch_ns = rows["n"].to_numpy(), rows["exch_ns"].to_numpy()
        keys: Ints = code * _KEY_CHANNEL + n * _KEY_SYMBOL + exch_ns // MS
        sent, times = np.unique(delivered[delivered // _KEY_CHANNEL == code], return_counts=True)
        stored, rows_of = np.unique(keys, return_counts=True)
        at = np.minimum(np.searchsorted(sent, stored), max(0, len(sent) - 1))
        allowed = np.where(sent[at] == stored, times[at], 0) if len(sent) else np.zeros(len(stored), np.int64)
        self.found.invented += int(np.maximum(rows_of - allowed, 0).sum())
        self.found.rows += rows.height
        return keys

    def _books(self, delivered: Ints) -> tuple[Ints, Any]:
        depth = {"books1": 1, "books5": 5}.get(self.case.channel, 15)
        every = []
        for batch in self._batches():
            rows = self._rows("book", batch)
            own = np.isin(delivered // _KEY_SYMBOL % 1024, rows["n"].unique().to_numpy())
            every.append(self._compare_keys(BOOK, rows, delivered[own]))
            seconds = rows["seq"].to_numpy() // 1000 + 1_300_000_000  # what the market's clock of the chain counts
            values = {
                side: [rows.select(f"{side}_{what}_{k}" for k in range(1, 16)).to_numpy() for what in ("price", "size")]
                for side in ("bid", "ask")
            }
            n = rows["n"].to_numpy()
            is_seen = np.zeros(rows.height, np.bool_)
            market = self.world.market
            for block, first, last in self.world.blocks(_QUIET_S):
                which = np.flatnonzero((seconds >= first) & (seconds < last))
                is_seen[which] = True
                t, of = seconds[which] - block.first_second, n[which]
                wrong = np.zeros(len(which), np.bool_)
                for side, ticks, steps in (
                    ("bid", block.bid_ticks, block.bid_steps), ("ask", block.ask_ticks, block.ask_steps),
                ):  # fmt: skip
                    size = steps[t, of].astype(float)
                    size[:, depth:] = 0
                    price = np.where(size > 0, ticks[t, of] / market.price_scale[of][:, None], np.nan)
                    size /= market.size_scale[of][:, None]
                    wrong |= ~np.isclose(values[side][0][which], price, rtol=0, atol=0, equal_nan=True).all(axis=1)
                    wrong |= (values[side][1][which] != size).any(axis=1)
                self.found.invented += int(wrong.sum())
            self.found.invented += int((~is_seen).sum())
        return self._kept(BOOK, every, delivered)

    def _tickers(self, delivered: Ints) -> tuple[Ints, Any]:
        world, every = self.world, []
        for batch in self._batches(100):
            rows = self._rows("ticker", batch)
            own = np.isin(delivered // _KEY_SYMBOL % 1024, rows["n"].unique().to_numpy())
            every.append(self._compare_keys(TICKER, rows, delivered[own]))
            n, exch_ns = rows["n"].to_numpy(), rows["exch_ns"].to_numpy()
            # What a new subscriber is told before a second's first push is the second before.
            seconds = exch_ns // NS - (exch_ns % NS <= n * 7 % 50 * MS)
            told = world.tickers[seconds - (world.start_s - EARLY_S), n]
            stored = rows.select(_TICKER_FIELDS.keys()).cast(pl.Float64).to_numpy()
            self.found.invented += int((~np.isclose(told, stored, rtol=0, atol=0, equal_nan=True)).any(axis=1).sum())
        return self._kept(TICKER, every, delivered)

    def _trades(self, delivered: Ints) -> tuple[Ints, Any]:
        trades, order = self.trades, self.order
        ids = trades["id"][order]
        rows = pl.concat([self._rows("trade", batch) for batch in self._batches(1000)])
        self.found.rows += rows.height
        before = self.world.start_s * NS
        rows = rows.filter((pl.col("exch_ns") >= before) | (pl.col("event") == int(TickEvent.DATA)))
        at = np.minimum(np.searchsorted(ids, rows["trade_id"].to_numpy()), len(ids) - 1)
        wrong = ids[at] != rows["trade_id"].to_numpy()
        for name, column in (("n", "n"), ("price", "price"), ("size", "size"), ("side", "side")):
            wrong |= trades[name][order][at] != rows[column].to_numpy()
        wrong |= trades["ms"][order][at] * MS != rows["exch_ns"].to_numpy()
        self.found.invented += int(wrong.sum())
        data = rows.filter(pl.col("event") == int(TickEvent.DATA))
        self.found.invented += data.height - data.select("n", "trade_id").n_unique()
        stored = np.unique(rows["trade_id"].to_numpy())
        keys = trades["key"]
        is_stored = np.isin(trades["id"], stored)
        sent = np.isin(keys, delivered)
        flow = np.isin(trades["id"], data["trade_id"].to_numpy())
        self.found.missing += int((sent & ~flow).sum())
        self.found.invented += int((flow & ~sent).sum())
        lost_keys = np.unique(keys[~is_stored])
        return np.unique(keys[is_stored]), lambda own: ~np.isin(own, lost_keys)

    def _kept(self, code: int, every: list[Ints], delivered: Ints) -> tuple[Ints, Any]:
        keys = np.unique(np.concatenate(every))
        own = np.unique(delivered[delivered // _KEY_CHANNEL == code])
        if code == BOOK and self.world.is_full:  # a change that continues no chain is no state: not stored, but marked
            own = own[:0]
        self.found.missing += int((~np.isin(own, keys)).sum())
        return keys, lambda pushed: np.isin(pushed, keys)

    # -- coverage

    def _marks(self) -> Any:
        """Return (channel, symbol, minute of the run): whether coverage does not take it for complete."""
        world = self.world
        self.first_minute, end_minute = world.start_s // 60, -(-world.end_s // 60) + 1
        frame = read.collect(read.scan(world.lake, "coverage", world.market.source, is_sorted=False))
        marks = np.ones((3, self.case.symbols, end_minute - self.first_minute), np.bool_)
        axis = pl.DataFrame({"symbol": list(world.market.symbols), "n": np.arange(self.case.symbols)})
        codes = pl.DataFrame({"channel": list(NAMES), "code": np.arange(3)})
        frame = frame.join(axis, on="symbol").join(codes, on="channel")
        frame = frame.filter(pl.col("minute").is_between(self.first_minute, end_minute - 1))
        code, n, minute = (frame[name].to_numpy() for name in ("code", "n", "minute"))
        marks[code, n, minute - self.first_minute] = (frame["state"] != "complete").to_numpy()
        self.found.marks = dict(Counter(frame.filter(pl.col("reason") != "")["reason"].to_list()))
        return marks

    def _minute(self, ms: Ints) -> Ints:
        return np.clip(ms // 60_000 - self.first_minute, 0, None)

    def _judge_losses(self, code: int, lost: Ints, kept: Ints, delivered: Ints, marks: Any, affected: Any) -> None:
        """Note which minutes lost something, and count what was lost, seen by nobody and could have been."""
        if not len(lost):
            return
        n, ms = lost // _KEY_SYMBOL % 1024, lost % _KEY_SYMBOL
        at = np.searchsorted(kept, lost)
        padded = np.concatenate([[-1], kept, [2**62]])
        before, after = padded[at], padded[at + 1]
        group = lost // _KEY_SYMBOL
        before_ms = np.where(before // _KEY_SYMBOL == group, before % _KEY_SYMBOL, self.world.start_s * 1000)
        after_ms = np.where(after // _KEY_SYMBOL == group, after % _KEY_SYMBOL, self.world.end_s * 1000)
        for begin, end, of in zip(self._minute(before_ms), self._minute(after_ms + 60), n, strict=True):
            affected[code, of, begin : end + 1] = True
        own = self._minute(ms)
        is_marked = marks[code, n, own] | marks[code, n, self._minute(ms + STEP_NS // MS)]
        cadence_ms = {BOOK: CADENCE.book_ms, TICKER: CADENCE.ticker_ms}.get(code, 0)
        is_seen = np.ones(len(lost), np.bool_)
        if code != TRADE and not (code == BOOK and self.world.is_full):
            is_seen = after_ms - before_ms > CADENCES_MAX * cadence_ms
            for of in np.unique(n).tolist():
                spans = self.world.up_ms.get((code, of), [])
                mine = np.flatnonzero(n == of)
                linked = np.zeros(len(mine), np.bool_)
                for begin, end in spans:
                    # To the second, as links were noted: what lies beside a break may have been lost with the link.
                    linked |= (ms[mine] >= begin - 1000) & (ms[mine] < end + 1000)
                is_seen[mine] |= ~linked
        elif code == TRADE:  # a minute is compared with its candle once receipts go on after its end
            is_seen = ms < (self.world.end_s * NS - coverage.VOLUME_LAG_NS) // (CANDLE_S * NS) * CANDLE_S * 1000
        else:  # a change is missed by the one that follows it
            is_seen = ms < (self.world.end_s - 10) * 1000
        self.found.unmarked += int((~is_marked).sum())
        unseen = np.flatnonzero(~is_marked & is_seen)
        self.found.violations += len(unseen)
        for i in unseen[:5].tolist():
            self.found.examples.append(
                f"{NAMES[code]} of symbol {n[i]} {ms[i] / 1000 - self.world.start_s:.3f} s after the start, between "
                f"{before_ms[i] / 1000 - self.world.start_s:.3f} and {after_ms[i] / 1000 - self.world.start_s:.3f}"
            )

    def _judge_minutes(self, marks: Any, affected: Any) -> None:
        world = self.world
        linked = np.zeros(marks.shape, np.bool_)
        for (code, n), spans in world.up_ms.items():
            for begin, end in spans:
                first, last = -(-begin // 60_000) - self.first_minute, end // 60_000 - self.first_minute
                linked[code, n, max(0, first) : max(0, last)] = True
        for ms, connection in world.cut:  # however soon it came back: links are noted once a second
            of = [world.position[symbol] for _, symbol in connection.session.channels]
            for minute in {(ms - 1000) // 60_000, ms // 60_000, (ms + 1000) // 60_000}:
                linked[:, of, minute - self.first_minute] = False
        unread = np.zeros(marks.shape[1:], np.bool_)
        for ms, connection in world.unreadable:
            for symbol in {symbol for _, symbol in connection.session.channels}:
                n = world.position[symbol]
                minute = ms // 60_000 - self.first_minute
                unread[n, minute] = True
                # What it was may have been lost since the push before it, and that it was not the next one tells:
                # seconds away of a full book, which tells changes.
                aside_ms = 60_000 if world.is_full else 1000
                for beside_ms in (ms - aside_ms, ms + aside_ms):
                    unread[n, min(beside_ms // 60_000 - self.first_minute, unread.shape[1] - 1)] = True
                is_marked = marks[:, n, minute].all()
                self.found.violations += int(not is_marked)
        if self.case.kind in ("freeze", "mixed"):
            for freeze in freezes(self.case):
                begins, ends = (int(world.start_s + s) // 60 for s in (freeze.at_s, freeze.at_s + freeze.long_s + 1))
                span = slice(begins - self.first_minute, ends - self.first_minute + 1)
                which = slice(None) if freeze.symbol == "*" else world.position[freeze.symbol]
                affected[:, which, span] = True
        minutes_s = (self.first_minute + np.arange(marks.shape[2])) * 60
        listed = np.array([world.market.is_listed(s) & world.market.is_listed(s + 59) for s in minutes_s.tolist()]).T
        clean = ~affected & linked & ~unread & listed  # of what is not listed nothing comes, and nothing is complete
        self.found.clean_minutes = int(clean.sum())
        self.found.clean_marked = int((clean & marks).sum())
