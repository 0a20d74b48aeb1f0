"""Seeded worlds for the laws of sampling and features: streams of ticks with everything that may happen to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from shared.features import sampler
from shared.types import BOOK_LEVELS, NS, BookTicks, Floats, TickerTicks, TickEvent, Ticks, TradeTicks

HOUR = 472_222
"""An hour of 2023; worlds start near its end, so that an hour border lies inside."""

Table = TypeVar("Table", BookTicks, TradeTicks, TickerTicks)

_FLOATS = {
    BookTicks: ("bid_price", "bid_size", "ask_price", "ask_size"),
    TradeTicks: ("price", "size"),
    TickerTicks: (
        "last", "bid", "ask", "bid_size", "ask_size", "mark", "index",
        "funding_rate", "open_interest", "base_volume_24h", "quote_volume_24h",
    ),
}  # fmt: skip
_DTYPES = {"symbol": np.int32, "conn": np.int32, "event": np.uint8, "side": np.int8}


class Row(NamedTuple):
    """One row of one table; `values` holds what differs from a link row."""

    recv_ns: int
    channel: type[Any]
    symbol: int
    event: TickEvent
    conn: int
    values: dict[str, Any]


def table(kind: type[Table], rows: Iterable[Row]) -> Table:
    """Return the rows of one channel as columns."""
    own = [row for row in rows if row.channel is kind]
    columns: dict[str, Any] = {}
    for field in kind.__struct_fields__:
        if field in ("recv_ns", "symbol", "event", "conn"):
            values: Any = [int(getattr(row, field)) for row in own]
        elif field in ("exch_ns", "next_funding_ms", "side"):
            values = [row.values.get(field, 0) for row in own]
        elif field in ("seq", "trade_id"):
            values = [row.values.get(field, -1) for row in own]
        else:
            is_level = kind is BookTicks
            absent = 0.0 if field.endswith("size") and is_level else np.nan
            blank: Any = [absent] * BOOK_LEVELS if is_level else absent
            values = [row.values.get(field, blank) for row in own]
            columns[field] = np.array(values, np.float64).reshape((-1, BOOK_LEVELS) if is_level else -1)
            continue
        columns[field] = np.array(values, _DTYPES.get(field, np.int64))
    return kind(**columns)


def ticks(rows: Iterable[Row]) -> Ticks:
    rows = list(rows)
    return Ticks(table(BookTicks, rows), table(TradeTicks, rows), table(TickerTicks, rows))


def book(mid: float, spread: float, sizes: Sequence[float], levels: int = BOOK_LEVELS) -> dict[str, Any]:
    """Return a book with `levels` levels a side, half a spread apart."""
    steps = spread * (np.arange(BOOK_LEVELS) + 1) / 2
    is_absent = np.arange(BOOK_LEVELS) >= levels
    size = np.where(is_absent, 0.0, np.resize(sizes, BOOK_LEVELS))
    return {
        "bid_price": np.where(is_absent, np.nan, mid - steps).tolist(),
        "ask_price": np.where(is_absent, np.nan, mid + steps).tolist(),
        "bid_size": size.tolist(),
        "ask_size": size[::-1].tolist() if levels == BOOK_LEVELS else size.tolist(),
    }


def world(seed: int, n_symbols: int, first_second: int, seconds: int) -> list[Row]:
    """Return rows in order of receipt: links that come and go, silence, repeats, crossed and thin books."""
    rng = np.random.default_rng([seed, n_symbols])
    rows: list[Row] = []
    end_ns = (first_second + seconds) * NS
    for symbol in range(n_symbols):
        for kind in (BookTicks, TradeTicks, TickerTicks):
            mean_gap_s = float(rng.choice([0.3, 0.8, 3.0, 20.0]))
            now = first_second * NS + int(rng.integers(0, 3 * NS)) * int(rng.integers(0, 2))
            up: list[int] = []
            next_conn, next_id, mid = 0, int(rng.integers(1, 10**18)), 100.0 * 2.0 ** int(rng.integers(-3, 4))
            recent: list[dict[str, Any]] = []
            while now < end_ns:
                kind_of_row = rng.random()
                if not up or (kind_of_row < 0.02 and len(up) < 2):
                    up.append(next_conn)
                    rows.append(Row(now, kind, symbol, TickEvent.SUBSCRIBED, next_conn, {}))
                    if kind is TradeTicks:
                        rows += [Row(now + 1, kind, symbol, TickEvent.REPEATED, next_conn, v) for v in recent[-2:]]
                    next_conn += 1
                elif kind_of_row < 0.05:
                    gone = up.pop(int(rng.integers(len(up))))
                    event = TickEvent.GAP if rng.random() < 0.3 else TickEvent.DISCONNECTED
                    rows.append(Row(now, kind, symbol, event, gone, {}))
                    if rng.random() < 0.4:
                        now += int(rng.integers(0, 50 * NS))  # longer than silence is forgiven
                elif kind is TradeTicks:
                    frame = []
                    for _ in range(int(rng.integers(1, 4))):
                        next_id += int(rng.integers(1, 1000))
                        trade = {
                            "trade_id": next_id, "price": mid * (1 + rng.normal(0, 1e-3)),
                            "size": float(rng.lognormal()), "side": int(rng.choice([-1, 1])),
                        }  # fmt: skip
                        frame.append(trade)
                    recent = [*recent, *frame][-20:]
                    for conn in up:  # with two connections, every trade comes twice
                        rows += [Row(now + conn % 2, kind, symbol, TickEvent.DATA, conn, trade) for trade in frame]
                    if rng.random() < 0.1:
                        old = recent[int(rng.integers(len(recent)))]
                        rows.append(Row(now + 2, kind, symbol, TickEvent.DATA, up[-1], old))
                elif kind is BookTicks:
                    mid *= 1 + rng.normal(0, 1e-4)
                    spread = mid * float(rng.choice([1.07e-4, 3.1e-4, 0.0, -1e-4], p=[0.5, 0.4, 0.05, 0.05]))
                    state = book(mid, spread, rng.lognormal(size=7).tolist(), int(rng.choice([15, 15, 15, 7, 3, 0])))
                    rows += [Row(now + conn % 2, kind, symbol, TickEvent.DATA, conn, state) for conn in up]
                else:
                    state = {name: float(rng.lognormal()) for name in _FLOATS[kind]}
                    state |= {name: np.nan for name in _FLOATS[kind] if rng.random() < 0.05}
                    rows += [Row(now + conn % 2, kind, symbol, TickEvent.DATA, conn, state) for conn in up]
                now += 3 + int(rng.exponential(mean_gap_s) * NS)
                if rng.random() < 0.05:
                    now = (now // NS + 1) * NS  # exactly at the start of a second
    return sorted((row for row in rows if row.recv_ns < end_ns), key=lambda row: row.recv_ns)


def with_carried(rows: Sequence[Row], second: int, of_channel: bool = False) -> list[Row]:
    """Return the rows with what a writer puts before the first row of an hour: links that are up, and their state.

    The state is the last push of the connection, or, `of_channel`, of any since the channel was last all down.
    """
    at_ns = second * NS
    up: dict[tuple[int, str, int], Row | None] = {}
    last: dict[tuple[int, str], Row | None] = {}
    for row in rows:
        key = (row.symbol, row.channel.__name__, row.conn)
        if row.recv_ns >= at_ns:
            break
        if row.event is TickEvent.SUBSCRIBED:
            up[key] = None
        elif row.event in (TickEvent.DISCONNECTED, TickEvent.GAP):
            up.pop(key, None)
            if not any(other[:2] == key[:2] for other in up):
                last[key[:2]] = None
        elif row.event is TickEvent.DATA:
            up.pop(key)
            up[key] = row  # moves to the end: the order of last receipt
            last[key[:2]] = row
    kinds = {kind.__name__: kind for kind in (BookTicks, TradeTicks, TickerTicks)}
    never = [key for key, row in up.items() if row is None]
    pushed = [key for key, row in up.items() if row is not None]
    carried = [
        Row(at_ns, kinds[channel], symbol, TickEvent.CARRIED, conn, row.values if row else {})
        for symbol, channel, conn in [*never, *pushed]
        for row in [last.get((symbol, channel)) if of_channel else up[symbol, channel, conn]]
    ]
    before = [row for row in rows if row.recv_ns < at_ns]
    return [*before, *carried, *rows[len(before) :]]


def select(rows: Sequence[Row], symbols: Sequence[int]) -> list[Row]:
    """Return the rows of these symbols, renumbered in the order given."""
    position = {symbol: n for n, symbol in enumerate(symbols)}
    return [row._replace(symbol=position[row.symbol]) for row in rows if row.symbol in position]


def cut(
    rows: Sequence[Row], first_second: int, seconds: int, rng: np.random.Generator, cuts: int
) -> list[tuple[Ticks, int]]:
    """Return `step` arguments that cut the stream at random instants and emit what is complete by then."""
    at = np.sort(rng.integers(0, seconds * NS + 1, cuts)) + first_second * NS
    at = np.where(rng.random(cuts) < 0.3, at // NS * NS, at)  # some exactly between two seconds
    at = np.sort(np.append(at, (first_second + seconds) * NS))
    steps, start = [], 0
    for instant in at:
        stop = start
        while stop < len(rows) and rows[stop].recv_ns < instant:
            stop += 1
        if stop < len(rows) and rng.random() < 0.3 and rows[stop].recv_ns // NS == instant // NS:
            stop += 1  # a cut within a frame: rows of one instant
        steps.append((ticks(rows[start:stop]), int(instant) // NS))
        start = stop
    return steps


def sample(n_symbols: int, first_second: int, steps: Iterable[tuple[Ticks, int]]) -> dict[str, Floats]:
    """Return all rows that a sampler emits over these steps."""
    own = sampler.Sampler(n_symbols, first_second)
    blocks = [own.step(batch, until) for batch, until in steps]
    return {name: np.concatenate([block.columns[name] for block in blocks]) for name in sampler.COLUMNS}


def names(n_symbols: int) -> tuple[str, ...]:
    """Return names of symbols, the reference of the catalog first."""
    return ("BTCUSDT", *(f"S{n}USDT" for n in range(1, n_symbols)))


def seconds(seed: int, n_symbols: int, rows: int, holes: bool = True) -> dict[str, Floats]:
    """Return columns of a market, (rows, n_symbols), as a sampler could have made them; with `holes`, some missing."""
    rng = np.random.default_rng([seed, n_symbols, rows])
    shape = (rows, n_symbols)
    scale = 100.0 * 2.0 ** rng.integers(-6, 7, n_symbols)
    mid = scale * np.cumprod(1.0 + rng.normal(0, 2e-4, shape), axis=0)
    half = mid * rng.choice([2e-5, 5e-5, 2e-4], shape)
    columns: dict[str, Floats] = {}
    for level in range(1, sampler.LEVELS + 1):
        for side, sign in (("bid", -1.0), ("ask", 1.0)):
            columns[f"{side}_price_{level}"] = mid + sign * half * level
            columns[f"{side}_size_{level}"] = rng.lognormal(0, 1.5, shape)
    for side in ("bid", "ask"):
        columns[f"{side}_depth_5bps_usdt"] = rng.lognormal(8, 1, shape)
        columns[f"{side}_depth_10bps_usdt"] = columns[f"{side}_depth_5bps_usdt"] * rng.uniform(1, 2, shape)
    columns["book_reach_bps"] = rng.uniform(5, 50, shape)
    columns["last"] = mid * (1 + rng.normal(0, 1e-5, shape))
    columns["mark"] = mid * (1 + rng.normal(0, 1e-5, shape))
    columns["index"] = mid * (1 + rng.normal(0, 1e-4, shape))
    columns["funding_rate"] = np.broadcast_to(rng.normal(0, 1e-4, n_symbols), shape).copy()
    columns["open_interest"] = rng.lognormal(10, 1, shape)
    columns["quote_volume_24h_usdt"] = rng.lognormal(15, 2, shape)
    for side in ("buy", "sell"):
        columns[f"{side}_count"] = rng.poisson(0.3, shape).astype(np.float64)
        columns[f"{side}_volume_usdt"] = columns[f"{side}_count"] * rng.lognormal(4, 1, shape)
    columns["mid_high"], columns["mid_low"] = mid + half, mid - half
    columns["book_updates"] = rng.poisson(3.0, shape).astype(np.float64)
    columns["ticker_updates"] = rng.poisson(2.0, shape).astype(np.float64)
    assert set(columns) == set(sampler.COLUMNS)
    if holes:
        for level in (4, 5):  # thin books
            is_absent = rng.random(shape) < 0.05
            for side in ("bid", "ask"):
                columns[f"{side}_price_{level}"][is_absent] = np.nan
                columns[f"{side}_size_{level}"][is_absent] = 0.0
        for column in columns.values():
            column[rng.random(shape) < 0.002] = np.nan
        gone = rng.random(shape) < 0.003  # a dead symbol
        for column in columns.values():
            column[gone] = np.nan
    return columns


def same_bits(left: dict[str, Floats], right: dict[str, Floats]) -> bool:
    return all(np.array_equal(left[name], right[name], equal_nan=True) for name in left) and left.keys() == right.keys()
