"""How fast seconds and features are: a live second and history, beside polars on the same formulas in the same run.

    python -m benchmarks.features [--day]

A symbol-second is one row with all features. Figures are the best of some repetitions (history) or percentiles
(live); other work on the machine makes them worse, never better, so compare what one run says. The polars formulations
(`in_polars.py`) compute the same formulas with polars' own rolling functions; how far their results are from
ours is printed. Features that look at other symbols are left out of the comparison and measured by themselves.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from benchmarks import in_polars
from shared.features.across import ACROSS
from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph, Features
from shared.features.ops import Node
from shared.features.plan import in_order, is_across
from shared.features.sampler import COLUMNS, Sampler
from shared.types import BOOK_LEVELS, NS, BookTicks, Floats, Ints, TickerTicks, TickEvent, Ticks, TradeTicks

N_SYMBOLS = 600
HISTORY_S = 600
POLARS_SYMBOLS, POLARS_S = 120, 2400
START = 1_700_000_000 // 3600 * 3600


def market(seconds: int, n_symbols: int) -> dict[str, Floats]:
    """Return complete columns of a random market, (seconds, n_symbols)."""
    rng = np.random.default_rng(0)
    shape = (seconds, n_symbols)
    mid = rng.lognormal(0, 3, n_symbols) * np.cumprod(1.0 + rng.normal(0, 1e-4, shape), axis=0)
    columns = {name: rng.lognormal(8, 1, shape) for name in COLUMNS}
    half_spread = rng.uniform(0.5e-4, 2e-4, shape)
    for level in range(1, 6):
        columns[f"bid_price_{level}"] = mid * (1.0 - half_spread * level)
        columns[f"ask_price_{level}"] = mid * (1.0 + half_spread * level)
    columns |= {"mark": mid * 1.0001, "index": mid * 0.9999, "last": mid * 1.00005}
    columns["funding_rate"] = np.full(shape, 1e-4)
    for side in ("buy", "sell"):
        columns[f"{side}_count"] = rng.poisson(1.0, shape).astype(np.float64)
        columns[f"{side}_volume_usdt"] *= columns[f"{side}_count"] > 0
    return columns


def best_s(work: Callable[[], object], repetitions: int) -> tuple[float, float]:
    """Return the least seconds of CPU, over all threads, and on the clock."""
    cpu_s, wall_s = [], []
    for _ in range(repetitions):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        cpu_s.append(time.process_time() - cpu)
        wall_s.append(time.perf_counter() - wall)
    return min(cpu_s), min(wall_s)


def percentiles_ms(durations_s: list[float]) -> str:
    p50, p99 = np.percentile(np.array(durations_s) * 1e3, [50, 99])
    return f"p50 {p50:7.2f} ms  p99 {p99:7.2f} ms"


def apart(ours: Features, theirs: Floats, names: list[str]) -> str:
    """Say how many features agree after the warm-up to 1e-5 of their scale, and which is furthest away."""
    ours64, theirs = ours[60:].astype(np.float64), theirs[60:]
    scale = np.maximum(np.abs(ours64).max(axis=(0, 1)), 1e-300)
    distance = np.nanmax(np.abs(ours64 - theirs), axis=(0, 1)) / scale
    worst = int(distance.argmax())
    return f"{int((distance < 1e-5).sum())} features agree, {names[worst]} is {distance[worst]:.0e} apart"


# ------------------------------------------------------------------------------------------------ sampling


def receipts(n_symbols: int, seconds: int, books_hz: float, tickers_hz: float, trades_hz: float) -> Ticks:
    """Return linked channels and random pushes in order of receipt."""
    rng = np.random.default_rng(1)

    def keys(rate_hz: float) -> dict[str, Ints]:
        rows = int(n_symbols * seconds * rate_hz)
        recv_ns = START * NS + np.sort(rng.integers(1, seconds * NS, rows))
        events = np.repeat([TickEvent.SUBSCRIBED, TickEvent.DATA], [n_symbols, rows])
        symbols = np.concatenate([np.arange(n_symbols), rng.integers(0, n_symbols, rows)])
        recv_ns = np.concatenate([np.full(n_symbols, START * NS), recv_ns])
        return {"symbol": symbols, "recv_ns": recv_ns, "event": events}

    def common(key: dict[str, Ints]) -> dict[str, Any]:
        return {
            "symbol": key["symbol"].astype(np.int32),
            "recv_ns": key["recv_ns"],
            "exch_ns": key["recv_ns"],
            "event": key["event"].astype(np.uint8),
            "conn": np.zeros(len(key["symbol"]), np.int32),
        }

    key = keys(books_hz)
    rows = len(key["symbol"])
    level = np.arange(1, BOOK_LEVELS + 1)
    mid = 100.0 * (1.0 + rng.normal(0, 1e-3, (rows, 1)))
    size = rng.lognormal(size=(rows, BOOK_LEVELS))
    books = BookTicks(
        **common(key),
        seq=np.arange(rows),
        bid_price=mid * (1 - 1e-4 * level),
        bid_size=size,
        ask_price=mid * (1 + 1e-4 * level),
        ask_size=size[:, ::-1].copy(),
    )
    key = keys(trades_hz)
    rows = len(key["symbol"])
    side = rng.choice([-1, 1], rows).astype(np.int8)
    price, amount = rng.lognormal(size=rows), rng.lognormal(size=rows)
    trades = TradeTicks(**common(key), trade_id=np.arange(rows), price=price, size=amount, side=side)
    key = keys(tickers_hz)
    rows = len(key["symbol"])
    known: dict[str, Any] = {field: rng.lognormal(size=rows) for field in TickerTicks.__struct_fields__[5:]}
    tickers = TickerTicks(**common(key), **known | {"next_funding_ms": np.zeros(rows, np.int64)})
    return Ticks(books, trades, tickers)


def between(ticks: Ticks, start_ns: int, end_ns: int) -> Ticks:
    def cut(table: BookTicks | TradeTicks | TickerTicks) -> Any:
        some = slice(*np.searchsorted(table.recv_ns, [start_ns, end_ns]))
        return type(table)(*[getattr(table, field)[some] for field in table.__struct_fields__])

    return Ticks(cut(ticks.books), cut(ticks.trades), cut(ticks.tickers))


def bench_sampler() -> None:
    hour = receipts(40, 3600, books_hz=5, tickers_hz=2, trades_hz=3)
    rows = sum(len(table.recv_ns) for table in (hour.books, hour.trades, hour.tickers))
    _, took = best_s(lambda: Sampler(40, START).step(hour, START + 3600), 2)
    print(f"sampler   an hour of 40 symbols      {took:8.2f} s       {rows / took / 1e6:5.2f} M ticks/s, 15 levels")

    minute = receipts(N_SYMBOLS, 60, books_hz=7, tickers_hz=7, trades_hz=3)
    sampler, durations = Sampler(N_SYMBOLS, START), []
    for second in range(START, START + 60):
        batch = between(minute, second * NS, (second + 1) * NS)
        start = time.perf_counter()
        sampler.step(batch, second + 1)
        durations.append(time.perf_counter() - start)
    print(f"sampler   a live second, {N_SYMBOLS} symbols  {percentiles_ms(durations[1:])}   17 ticks a symbol")


SYMBOLS = ("BTCUSDT", *(f"S{n:03}USDT" for n in range(1, N_SYMBOLS)))


def is_own(node: Node) -> bool:
    """Tell whether a formula looks at one symbol alone, and at more than the clock."""
    nodes = in_order([node])
    return any(n.operator == "column" for n in nodes) and not any(is_across(n) for n in nodes)


def bench_history(title: str, features: dict[str, Node], columns: dict[str, Floats], threads: int = 1) -> Features:
    """Print how long a block takes, in seconds of a core and on the clock; return its features."""
    rows, n_symbols = columns["last"].shape
    graph = FeatureGraph(features, SYMBOLS[:n_symbols], threads=threads)
    out = np.empty((rows, n_symbols, len(features)), np.float32)

    def work() -> None:
        graph.reset()
        graph.step(columns, 0, out)

    work()
    print_history(f"features  {title}", rows * n_symbols, *best_s(work, 7))
    return out


def print_history(title: str, size: int, cpu_s: float, wall_s: float) -> None:
    print(f"{title:48} {size / cpu_s / 1e6:6.2f} M symbol-seconds a core second {size / wall_s / 1e6:6.2f} M/s")


def bench_live(title: str, features: dict[str, Node], columns: dict[str, Floats]) -> None:
    graph, durations = FeatureGraph(features, SYMBOLS), []
    for t in range(HISTORY_S):
        second = {name: columns[name][t : t + 1] for name in graph.inputs}
        durations.append(best_s(partial(graph.step, second, t), 1))
    print_live(f"features  {title}", durations[40:])


def print_live(title: str, durations: list[tuple[float, float]]) -> None:
    cpu_s, wall_s = ([duration[k] for duration in durations] for k in (0, 1))
    print(f"{title:48} cpu {percentiles_ms(cpu_s)}   clock {percentiles_ms(wall_s)}")


def bench_features() -> None:
    columns = market(HISTORY_S, N_SYMBOLS)
    own = {name: node for name, node in FEATURES.items() if is_own(node)}
    print(
        f"{N_SYMBOLS} symbols, {HISTORY_S} s; {len(own)} features of one symbol, {len(FEATURES)} with cross-sections; "
        f"polars: {pl.thread_pool_size()} threads"
    )
    bench_live(f"a live second, {len(own)} features", own, columns)
    bench_live(f"a live second, {len(FEATURES)} features", dict(FEATURES), columns)
    bench_history(f"history, {len(own)} features", own, columns)
    bench_history(f"history, {len(own)} features, 2 threads", own, columns, threads=2)
    bench_history(f"history, {len(FEATURES)} features", dict(FEATURES), columns)
    bench_history(f"history, {len(FEATURES)} features, 2 threads", dict(FEATURES), columns, threads=2)
    bench_across(columns)

    bench_polars(own)


def bench_polars(own: dict[str, Node]) -> None:
    """Print what polars takes for the same formulas, and we, on a block that suits its wide frames: fewer columns."""
    formulas = in_polars.formulas()
    assert list(formulas) == list(own)
    columns = market(POLARS_S, POLARS_SYMBOLS)
    needed = {name: columns[name] for name in FeatureGraph(own, ()).inputs}
    print(f"{POLARS_SYMBOLS} symbols, {POLARS_S} s, the {len(own)} features of one symbol")
    ours = bench_history("history, one thread", own, columns)

    wide = in_polars.wide_frames(needed)
    cpu_s, wall_s = best_s(lambda: in_polars.wide_features(wide, formulas), 3)
    print_history("polars    history, wide frames", POLARS_S * POLARS_SYMBOLS, cpu_s, wall_s)
    theirs = np.stack([frame.to_numpy() for frame in in_polars.wide_features(wide, formulas).values()], axis=-1)
    print(f"polars    {apart(ours, theirs, list(own))}")

    long = in_polars.long_frame(needed).lazy()
    cpu_s, wall_s = best_s(lambda: in_polars.long_features(long, formulas).collect(), 3)
    print_history('polars    history, .over("symbol")', POLARS_S * POLARS_SYMBOLS, cpu_s, wall_s)
    result = in_polars.long_features(long, formulas).collect()
    theirs = np.stack([result[name].to_numpy().reshape(POLARS_SYMBOLS, POLARS_S).T for name in own], axis=-1)
    print(f"polars    {apart(ours, theirs, list(own))}")

    columns = market(62, N_SYMBOLS)
    window = {name: columns[name] for name in needed}
    frames, frame = in_polars.wide_frames(window), in_polars.long_frame(window).lazy()
    durations = [best_s(lambda: in_polars.wide_features(frames, formulas), 1) for _ in range(5)]
    print_live("polars    a live second, wide, 62 s window", durations)
    durations = [best_s(lambda: in_polars.long_features(frame, formulas).collect(), 1) for _ in range(5)]
    print_live("polars    a live second, .over, 62 s window", durations)


def bench_across(columns: dict[str, Floats]) -> None:
    """Print what one operator across symbols costs, for a live second and in slabs."""
    returns = columns["last"][1:] / columns["last"][:-1] - 1.0
    for name, operation in ACROSS.items():
        extra = [np.zeros((len(returns), 1))] if name == "std_across" else []
        for title, rows in (("second", 1), ("slab", 120)):
            x, more = returns[:rows], [column[:rows] for column in extra]
            out = np.empty((rows, N_SYMBOLS if name == "rank" else 1))
            cpu_s, _ = best_s(partial(operation, x, *more, out), 50)
            print(f"across    {name:12} a {title:6} {cpu_s * 1e6 / rows:8.1f} us cpu a second")


def bench_day() -> None:
    """Print how long a day takes on two cores, hour by hour, without reading and writing."""
    hour = market(HISTORY_S, N_SYMBOLS)
    graph = FeatureGraph(FEATURES, SYMBOLS, threads=2)
    out = np.empty((HISTORY_S, N_SYMBOLS, len(FEATURES)), np.float32)
    start = time.perf_counter()
    for first in range(0, 86400, HISTORY_S):
        graph.step(hour, first, out)
    print(
        f"features  a day of {N_SYMBOLS} symbols x {len(FEATURES)} features, two threads: "
        f"{time.perf_counter() - start:.0f} s, {time.process_time():.0f} s of CPU, peak memory "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--day", action="store_true", help="a day of 600 symbols on two cores, and nothing else")
    if parser.parse_args().day:
        bench_day()
    else:
        bench_features()
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB, inputs included")
        bench_sampler()
