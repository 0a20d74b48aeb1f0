"""Receipts of other people's files into the lake: hour by hour through the write-ahead log, then sealed.

A symbol is a session of its own, whose name is that of the symbol and the format: the same rows imported again carry
the same connection, and sealing leaves one of each. Memory holds an hour of one symbol; what is finished is sealed
when the logs have grown to `SEAL_BYTES`.

Links. Files do not say when somebody was listening. A channel counts as linked from the first of its rows to the
last, and not across a hole: 30 s without a book, five minutes without a ticker (Tardis writes one only when something
has changed), an hour without a trade. What was silent for longer is a gap, as in a recording. So coverage is honest on
the side of doubt; days that follow one another should be imported in one run, or the border is a gap of its own.

Rules. A file of ticks has no contracts. They are taken from a source of this lake that has them (`rules`), or made
up from what is seen: the finest decimals of prices and sizes become tick and step, fees are those of VIP 0, and status
is "normal". A universe of an import holds every symbol that was ever imported into the source: what was listed when is
not known, and coverage calls a gap what was not imported.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import polars as pl

from pipelines.imports.files import Part, Rows, refuse
from shared.errors import SettingsError, TableEmpty
from shared.lake import layout, read, receipts, wal, wal_reading, write
from shared.lake.layout import HOUR_NS
from shared.types import NS, Contract, Floats, TickEvent, Ticks, Universe

SEAL_BYTES = 2_000_000_000
"""Of logs that are not sealed: about five days of one symbol's books, ten times a second."""

CHANNELS = ("book", "trade", "ticker")

HOLE_NS = {"book": 30 * NS, "ticker": 300 * NS, "trade": 3600 * NS}
"""Silence after which nobody may have listened."""

_DECIMALS_MAX = 12

Say = Callable[[str], None]
Source = Callable[[Part], Iterator[Rows]]


class Landed(msgspec.Struct, kw_only=True):
    """What an import wrote."""

    source: str
    symbols: list[str] = []
    rows: dict[str, int] = {}  # table -> rows of the files
    hours: set[int] = set()
    sealed: dict[str, int] = {}  # raw table -> rows in the hours that were sealed


def land(
    lake: Path, source: str, parts: Sequence[Part], receipts: Source, *, rules: str = "", say: Say = lambda line: None
) -> Landed:
    """Write the parts of a feed (books, trades, tickers) and seal the hours that they touch.

    Raises:
        SettingsError: a file is not what it must be; whole hours before it are sealed.
        LakeError: the disk refuses.
    """
    _clear(lake, source)
    done = Landed(source=source)
    known = _rules(lake, rules) if rules else {}
    contracts: list[Contract] = []
    first_hour = 2**62
    for symbol in sorted({part.symbol for part in parts}):
        mine = [part for part in parts if part.symbol == symbol]
        _check_order(mine)
        one = _Symbol(lake, source, symbol, mine, receipts)
        try:
            for hour in one.hours():
                first_hour = min(first_hour, hour)
                done.hours.add(hour)
                if _log_bytes(lake, source) > SEAL_BYTES:
                    _seal(lake, source, done, say)
            one.close()
        except BaseException:
            one.drop()
            _write_universe(lake, source, [*contracts, *one.contracts(known)], first_hour)
            _seal(lake, source, done, say)
            raise
        contracts += one.contracts(known)
        done.symbols.append(symbol)
        for table, n in one.rows.items():
            done.rows[table] = done.rows.get(table, 0) + n
        say(f"{symbol}: " + ", ".join(f"{n:,} of {table}" for table, n in one.rows.items()))
    _write_universe(lake, source, contracts, first_hour)
    _seal(lake, source, done, say)
    return done


def land_candles(lake: Path, source: str, frames: Iterator[pl.DataFrame], say: Say = lambda line: None) -> Landed:
    """Add candles to their table.

    Raises:
        SettingsError: what is there says otherwise; it stays.
    """
    done = Landed(source=source)
    conflicts: list[str] = []
    for frame in frames:
        for (hour,), rows in frame.group_by(pl.col("minute") // 60):
            added = write.add_rows(lake, "candles", source, int(hour), rows.unique(), {"made_by": "pipelines.imports"})
            done.rows["candles"] = done.rows.get("candles", 0) + added.rows
            done.hours.add(int(hour))
            conflicts += [str(row) for row in added.conflicts.iter_rows(named=True)]
        done.symbols += sorted(set(frame["symbol"].unique()) - set(done.symbols))
    if conflicts:
        raise SettingsError(
            f"candles of {source} must be what they were, found {len(conflicts)} that differ, first {conflicts[0]}: "
            "what was stored first is kept; import into another source (--source) to compare"
        )
    say(f"candles: {done.rows.get('candles', 0):,} new rows in {len(done.hours)} hours")
    return done


class _Symbol:
    """One symbol's channels, cut by the hour, on their way into its log."""

    def __init__(self, lake: Path, source: str, symbol: str, parts: Sequence[Part], receipts: Source) -> None:
        self.symbol = symbol
        self.rows: dict[str, int] = {}
        self._lake, self._source = lake, source
        self._channels = {
            channel: _Channel(channel, [part for part in parts if part.kind.channel == channel], receipts)
            for channel in CHANNELS
        }
        name = hashlib.blake2b(f"{source}/{symbol}".encode(), digest_size=8).hexdigest()
        self._session = f"import-{name}"
        self._log: wal.WriteAheadLog | None = None
        self._last_hour = -2
        self._places = {"price": 0, "size": 0}

    def hours(self) -> Iterator[int]:
        """Write the hours one after the other; yield each when it is in the log."""
        while True:
            starts = [at for channel in self._channels.values() if (at := channel.next_ns) is not None]
            if not starts:
                return
            hour = min(starts) // HOUR_NS
            if hour != self._last_hour + 1:
                self.close()  # hours without rows are no hours of an import
            tables: dict[str, Rows] = {}
            for channel in self._channels.values():
                self._check_origin(channel, hour)
                rows, n = channel.take(hour)
                self.rows[channel.table] = self.rows.get(channel.table, 0) + n
                self._look(rows)
                tables[channel.channel] = rows
            if self._log is None:
                self._log = wal.WriteAheadLog(self._lake, self._source, self._session, self._universe())
            self._log.append(Ticks(tables["book"], tables["trade"], tables["ticker"]))  # type: ignore[arg-type]
            self._last_hour = hour
            yield hour

    def _check_origin(self, channel: _Channel, hour: int) -> None:
        """Refuse rows of another kind of file than those of this hour that an earlier import has stored."""
        path = read.sealed_file(self._lake, channel.table, self._source, hour)
        if channel.kind is None or path is None:
            return
        start_s = hour * layout.HOUR_S
        rows = read.scan(
            self._lake, channel.table, self._source, start_s=start_s, end_s=start_s + layout.HOUR_S,
            symbols=[self.symbol], is_sorted=False,
        )  # fmt: skip
        ours = layout.conn_name(self._session, channel.kind.number)
        if set(read.collect(rows.select("conn").unique())["conn"].to_list()) - {ours}:
            refuse(
                str(path),
                f"hold {channel.kind.name} of {self.symbol} where it holds any {channel.channel}",
                "rows of another kind of file",
                "import this kind into a source of its own (--source)",
            )

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def drop(self) -> None:
        """Give up the hour that is open, as if it had not been read."""
        if self._log is not None:
            self._log.abandon()
            self._log = None
            shutil.rmtree(
                layout.log_folder(self._lake, self._source, self._last_hour) / f"session={self._session}",
                ignore_errors=True,
            )

    def contracts(self, known: Mapping[str, Contract]) -> list[Contract]:
        """Return the rules of the symbol, where anything of it was seen."""
        if self._last_hour < 0:
            return []
        return [known.get(self.symbol) or _contract(self.symbol, self._places["price"], self._places["size"])]

    def _universe(self) -> Universe:
        return Universe(source=self._source, as_of_ns=0, contracts=(_contract(self.symbol, 0, 0),))

    def _look(self, rows: Rows) -> None:
        names = {"price": ("bid_price", "ask_price", "price", "last"), "size": ("bid_size", "ask_size", "size")}
        for what, fields in names.items():
            for field in fields:
                if field in rows.__struct_fields__:
                    self._places[what] = max(self._places[what], _decimals(getattr(rows, field)))


class _Channel:
    """Rows of one symbol and channel in order, file after file, with links where there were none."""

    def __init__(self, channel: str, parts: Sequence[Part], receipts: Source) -> None:
        self.channel, self.table = channel, f"raw/{channel}"
        self._parts = sorted(parts, key=lambda part: part.first)
        self.kind = self._parts[0].kind if parts else None  # all are of one
        self._pieces = self._read(receipts)
        self._nothing = _links(self.table, [], TickEvent.SUBSCRIBED, 0)
        self._held = self._nothing
        self._is_up = False
        self._last_ns = 0
        self._advance()

    @property
    def next_ns(self) -> int | None:
        """Return when the next row was received, None where there is none."""
        return int(self._held.recv_ns[0]) if len(self._held.recv_ns) else None

    def take(self, hour: int) -> tuple[Rows, int]:
        """Return the rows of an hour with their links, and how many of them are the files'."""
        found: list[Rows] = []
        n, end_ns = 0, (hour + 1) * HOUR_NS
        while self.next_ns is not None and self.next_ns < end_ns:
            cut = int(np.searchsorted(self._held.recv_ns, end_ns))
            found.append(self._linked(_cut(self._held, 0, cut)))
            n += cut
            self._held = _cut(self._held, cut, len(self._held.recv_ns))
            if not len(self._held.recv_ns):
                self._advance()
        if self._is_up and (self.next_ns is None or self.next_ns - self._last_ns > HOLE_NS[self.channel]):
            found.append(self._link(TickEvent.DISCONNECTED, min(self._last_ns + 1, end_ns - 1)))
            self._is_up = False
        return _join(found, self._nothing), n

    def _linked(self, rows: Rows) -> Rows:
        """Return the rows with what is to be said about the link before and between them."""
        found: list[Rows] = []
        at = rows.recv_ns
        holes = np.flatnonzero(np.diff(at) > HOLE_NS[self.channel]) + 1
        if self._is_up and at[0] - self._last_ns > HOLE_NS[self.channel]:
            found.append(self._link(TickEvent.DISCONNECTED, self._last_ns + 1))
            self._is_up = False
        for start, end in zip([0, *holes.tolist()], [*holes.tolist(), len(at)], strict=True):
            if not self._is_up:
                found.append(self._link(TickEvent.SUBSCRIBED, int(at[start])))
            found.append(_cut(rows, start, end))
            self._is_up = end == len(at)
            if not self._is_up:
                found.append(self._link(TickEvent.DISCONNECTED, int(at[end - 1]) + 1))
        self._last_ns = int(at[-1])
        return _join(found, self._nothing)

    def _link(self, event: TickEvent, at_ns: int) -> Rows:
        return _links(self.table, [(0, self._parts[0].kind.number)], event, at_ns)

    def _advance(self) -> None:
        self._held = next((rows for rows in self._pieces if len(rows.recv_ns)), self._nothing)

    def _read(self, receipts: Source) -> Iterator[Rows]:
        last_ns, before = -1, ""
        for part in self._parts:
            for rows in receipts(part):
                if len(rows.recv_ns) and rows.recv_ns[0] < last_ns:
                    refuse(part.name, f"begin where {before} ends", "rows of the same time", "import each day once")
                yield rows
                last_ns = max(last_ns, int(rows.recv_ns[-1])) if len(rows.recv_ns) else last_ns
            before = part.name


def _check_order(parts: Sequence[Part]) -> None:
    """Refuse a symbol whose books are told by several kinds of files: one book has one origin."""
    for channel in CHANNELS:
        kinds = {part.kind.name: part for part in parts if part.kind.channel == channel}
        if len(kinds) > 1:
            (one, first), (other, second) = list(kinds.items())[:2]
            refuse(
                second.name,
                f"be {one}, as {first.name} is: a {channel} of {first.symbol} has one origin",
                other,
                "import one of them, or each into a source of its own (--source)",
            )


def _links(table: str, links: Sequence[tuple[int, int]], event: TickEvent, at_ns: int) -> Rows:
    return cast(Rows, receipts.link_rows(table, links, event, at_ns))


def _cut(rows: Rows, start: int, end: int) -> Rows:
    return type(rows)(**{field: getattr(rows, field)[start:end] for field in rows.__struct_fields__})


def _join(parts: Sequence[Rows], nothing: Rows) -> Rows:
    if not parts:
        return nothing
    return type(nothing)(
        **{name: np.concatenate([getattr(rows, name) for rows in parts]) for name in nothing.__struct_fields__}
    )


# ------------------------------------------------------------------------------------------------------- rules


def _decimals(values: Floats) -> int:
    """Return how many decimals the finest of the values has."""
    finite = np.unique(values[np.isfinite(values)])
    for places in range(_DECIMALS_MAX):
        scaled = finite * 10.0**places
        if np.all(np.abs(scaled - np.rint(scaled)) <= 1e-9 * np.maximum(1.0, np.abs(scaled))):
            return places
    return _DECIMALS_MAX


def _contract(symbol: str, price_places: int, size_places: int) -> Contract:
    """Return rules as far as ticks tell them; the rest is what most of Bitget's contracts have (September 2026)."""
    step = Decimal(1).scaleb(-size_places)
    return Contract(
        symbol=symbol,
        base=symbol.removesuffix("USDT"),
        quote="USDT",
        status="normal",
        tick=Decimal(1).scaleb(-price_places),
        size_step=step,
        size_min=step,
        notional_min_usdt=Decimal(5),
        size_max_limit=None,
        size_max_market=None,
        price_band_buy=Decimal("0.05"),
        price_band_sell=Decimal("0.05"),
        maker_fee=Decimal("0.0002"),
        taker_fee=Decimal("0.0006"),
        leverage_min=1,
        leverage_max=20,
        funding_interval_h=8,
        is_rwa=False,
        launch_ms=None,
        off_ms=None,
    )


def _rules(lake: Path, source: str) -> dict[str, Contract]:
    found = read.universe_at(lake, source, 2**62)
    return {contract.symbol: contract for contract in found.contracts}


def _write_universe(lake: Path, source: str, contracts: Sequence[Contract], first_hour: int) -> None:
    """Write one universe at every time that the source has one, and at the first hour of this import."""
    if not contracts:
        return
    try:
        snapshots = read.universes_between(lake, source, 0, 2**62)
    except TableEmpty:
        snapshots = []
    by_symbol = {contract.symbol: contract for snapshot in snapshots for contract in snapshot.contracts}
    for contract in contracts:
        older = by_symbol.get(contract.symbol)
        if older is not None:
            finer = {name: min(getattr(older, name), getattr(contract, name)) for name in ("tick", "size_step")}
            contract = msgspec.structs.replace(contract, **finer)
        by_symbol[contract.symbol] = contract
    everything = tuple(by_symbol[symbol] for symbol in sorted(by_symbol))
    times = {snapshot.as_of_ns for snapshot in snapshots}
    if not times or min(times) > first_hour * HOUR_NS:
        times.add(first_hour * HOUR_NS)
    for as_of_ns in sorted(times):
        write.write_universe(lake, Universe(source=source, as_of_ns=as_of_ns, contracts=everything))


# ------------------------------------------------------------------------------------------------------- logs


def _clear(lake: Path, source: str) -> None:
    """Seal the hours that an import which was killed had finished, and remove the one that it had not."""
    for hour in layout.hours_below(lake / ".wal" / f"source={source}"):
        for log in wal_reading.find_logs(lake, source, hour):
            if log.state == "dead" and log.session_id.startswith("import-"):
                shutil.rmtree(log.folder)
    write.seal_all(lake, source)


def _log_bytes(lake: Path, source: str) -> int:
    return sum(path.stat().st_size for path in (lake / ".wal" / f"source={source}").rglob("*.arrow"))


def _seal(lake: Path, source: str, done: Landed, say: Say) -> None:
    for report in write.seal_all(lake, source):
        for table, file in report.files.items():
            done.sealed[table] = done.sealed.get(table, 0) + file.rows
        say(f"sealed {layout.hour_name(report.hour)}: {report.rows:,} rows, {report.bytes / 1e6:.1f} MB")
