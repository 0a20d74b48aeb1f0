"""How fast seconds and features are: a live second and history, beside polars on the same formulas in the same run.

    python benchmarks/features.py

A symbol-second is one row with all features. Figures are the best of some repetitions (history) or percentiles
(live); other work on the machine makes them worse, never better. The polars formulations compute the features of the
catalog with polars' own rolling functions; how far their results are from ours is printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from shared import costs
from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph, Features
from shared.features.sampler import COLUMNS, Sampler
from shared.types import BOOK_LEVELS, NS, BookTicks, Floats, Ints, TickerTicks, TickEvent, Ticks, TradeTicks

N_SYMBOLS = 560
HISTORY_S = 600
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


def best_s(work: Callable[[], object], repetitions: int) -> float:
    durations = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return min(durations)


def percentiles_ms(durations_s: list[float]) -> str:
    p50, p99 = np.percentile(np.array(durations_s) * 1e3, [50, 99])
    return f"p50 {p50:7.2f} ms  p99 {p99:7.2f} ms"


# ---------------------------------------------------------------------------------- the same, said in polars


def long_features(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Compute the catalog on a long frame sorted by (symbol, second), windows by `.over("symbol")`."""

    def over(expression: pl.Expr) -> pl.Expr:
        return expression.over("symbol")

    def column(name: str) -> pl.Expr:
        return pl.col(name)

    def total(sizes: list[str]) -> pl.Expr:
        result = pl.col(sizes[0])
        for size in sizes[1:]:
            result = result + pl.col(size)
        return result

    frame = frame.with_columns(
        mid=(column("bid_price_1") + column("ask_price_1")) * 0.5,
        spread_bps=costs.spread_bps(column("bid_price_1"), column("ask_price_1")),
        **{
            f"imbalance_{k}": (
                total([f"bid_size_{i}" for i in range(1, k + 1)]) - total([f"ask_size_{i}" for i in range(1, k + 1)])
            )
            / (total([f"bid_size_{i}" for i in range(1, k + 1)]) + total([f"ask_size_{i}" for i in range(1, k + 1)]))
            for k in (1, 3, 5)
        },
        **{
            f"{side}_depth": pl.sum_horizontal(
                [column(f"{side}_price_{k}") * column(f"{side}_size_{k}") for k in range(1, 6)]
            )
            for side in ("bid", "ask")
        },
        trades=column("buy_count") + column("sell_count"),
        volume=column("buy_volume_usdt") + column("sell_volume_usdt"),
        signed_volume=column("buy_volume_usdt") - column("sell_volume_usdt"),
    ).with_columns(
        **{f"return_{w}s": column("mid") / over(column("mid").shift(w)) - 1.0 for w in (1, 5, 10, 20, 30)},
    )
    daily = column("quote_volume_24h_usdt")

    def flow(w: int) -> pl.Expr:
        volume = over(column("volume").rolling_sum(w))
        signed = over(column("signed_volume").rolling_sum(w))
        return pl.when(volume > 0.0).then(signed / volume).otherwise(0.0)

    return frame.select(
        "spread_bps",
        spread_mean_10s=over(column("spread_bps").rolling_mean(10)),
        spread_std_10s=over(column("spread_bps").rolling_std(10)),
        imbalance_1="imbalance_1",
        imbalance_3="imbalance_3",
        imbalance_5="imbalance_5",
        imbalance_mean_10s=over(column("imbalance_5").rolling_mean(10)),
        imbalance_std_10s=over(column("imbalance_5").rolling_std(10)),
        depth_total_bid=column("bid_depth") / daily,
        depth_total_ask=column("ask_depth") / daily,
        depth_5bps_bid=column("bid_depth_5bps_usdt") / daily,
        depth_5bps_ask=column("ask_depth_5bps_usdt") / daily,
        depth_10bps_bid=column("bid_depth_10bps_usdt") / daily,
        depth_10bps_ask=column("ask_depth_10bps_usdt") / daily,
        depth_ratio=(column("bid_depth") - column("ask_depth")) / (column("bid_depth") + column("ask_depth")),
        **{f"return_{w}s": column(f"return_{w}s") for w in (1, 5, 10, 20, 30)},
        **{f"volatility_{w}s": over(column("return_1s").rolling_std(w)) for w in (10, 20, 30)},
        momentum_10_20=over(column("mid").rolling_mean(10)) / over(column("mid").rolling_mean(20)) - 1.0,
        funding_rate="funding_rate",
        mark_index_spread_bps=(column("mark") - column("index")) / column("index") * 1e4,
        quote_volume_24h=daily.log(),
        flow_10s=flow(10),
        flow_30s=flow(30),
        trade_intensity_10s=over(column("trades").rolling_mean(10)),
    )


def wide_features(columns: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Compute the catalog on wide frames, one per column, one column a symbol: nothing has to be grouped."""
    every = pl.all()

    def chain(frames: list[pl.DataFrame]) -> pl.DataFrame:
        result = frames[0]
        for frame in frames[1:]:
            result = result + frame
        return result

    bid, ask = columns["bid_price_1"], columns["ask_price_1"]
    mid, spread = (bid + ask) * 0.5, (ask - bid) / (ask + bid) * 2e4
    result = {
        "spread_bps": spread,
        "spread_mean_10s": spread.select(every.rolling_mean(10)),
        "spread_std_10s": spread.select(every.rolling_std(10)),
    }
    for levels in (1, 3, 5):
        bids = chain([columns[f"bid_size_{k}"] for k in range(1, levels + 1)])
        asks = chain([columns[f"ask_size_{k}"] for k in range(1, levels + 1)])
        result[f"imbalance_{levels}"] = (bids - asks) / (bids + asks)
    result["imbalance_mean_10s"] = result["imbalance_5"].select(every.rolling_mean(10))
    result["imbalance_std_10s"] = result["imbalance_5"].select(every.rolling_std(10))
    daily = columns["quote_volume_24h_usdt"]
    depth = {
        side: chain([columns[f"{side}_price_{k}"] * columns[f"{side}_size_{k}"] for k in range(1, 6)])
        for side in ("bid", "ask")
    }
    for side in ("bid", "ask"):
        result[f"depth_total_{side}"] = depth[side] / daily
        for bps in (5, 10):
            result[f"depth_{bps}bps_{side}"] = columns[f"{side}_depth_{bps}bps_usdt"] / daily
    result["depth_ratio"] = (depth["bid"] - depth["ask"]) / (depth["bid"] + depth["ask"])
    for w in (1, 5, 10, 20, 30):
        result[f"return_{w}s"] = mid / mid.select(every.shift(w)) - 1.0
    for w in (10, 20, 30):
        result[f"volatility_{w}s"] = result["return_1s"].select(every.rolling_std(w))
    result["momentum_10_20"] = mid.select(every.rolling_mean(10)) / mid.select(every.rolling_mean(20)) - 1.0
    result["funding_rate"] = columns["funding_rate"]
    result["mark_index_spread_bps"] = (columns["mark"] - columns["index"]) / columns["index"] * 1e4
    result["quote_volume_24h"] = daily.select(every.log())
    buys, sells = columns["buy_volume_usdt"], columns["sell_volume_usdt"]
    for w in (10, 30):
        volume, signed = (buys + sells).select(every.rolling_sum(w)), (buys - sells).select(every.rolling_sum(w))
        result[f"flow_{w}s"] = (signed / volume).select(every.fill_nan(0.0))
    trades = columns["buy_count"] + columns["sell_count"]
    result["trade_intensity_10s"] = trades.select(every.rolling_mean(10))
    return {name: result[name] for name in FEATURES}


def long_frame(columns: dict[str, Floats]) -> pl.DataFrame:
    seconds, n_symbols = next(iter(columns.values())).shape
    keys = {"symbol": np.repeat(np.arange(n_symbols), seconds), "second": np.tile(np.arange(seconds), n_symbols)}
    return pl.DataFrame(keys | {name: column.T.ravel() for name, column in columns.items()})


def wide_frames(columns: dict[str, Floats]) -> dict[str, pl.DataFrame]:
    return {name: pl.DataFrame(dict(enumerate_names(column))) for name, column in columns.items()}


def enumerate_names(column: Floats) -> list[tuple[str, Floats]]:
    return [(str(n), np.ascontiguousarray(column[:, n])) for n in range(column.shape[1])]


def deviation(ours: Features, theirs: Floats) -> float:
    """Return the largest difference after the warm-up, relative to the feature's scale."""
    ours64, theirs = ours[60:].astype(np.float64), theirs[60:]
    scale = np.abs(ours64).max(axis=(0, 1))
    return float(np.nanmax(np.abs(ours64 - theirs).max(axis=(0, 1)) / scale))


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
    took = best_s(lambda: Sampler(40, START).step(hour, START + 3600), 2)
    print(f"sampler   an hour of 40 symbols      {took:8.2f} s       {rows / took / 1e6:5.2f} M ticks/s, 15 levels")

    minute = receipts(N_SYMBOLS, 60, books_hz=7, tickers_hz=7, trades_hz=3)
    sampler, durations = Sampler(N_SYMBOLS, START), []
    for second in range(START, START + 60):
        batch = between(minute, second * NS, (second + 1) * NS)
        start = time.perf_counter()
        sampler.step(batch, second + 1)
        durations.append(time.perf_counter() - start)
    print(f"sampler   a live second, {N_SYMBOLS} symbols  {percentiles_ms(durations[1:])}   17 ticks a symbol")


def bench_features() -> None:
    n_features = len(FEATURES)
    columns = market(HISTORY_S, N_SYMBOLS)
    size = HISTORY_S * N_SYMBOLS
    print(
        f"{N_SYMBOLS} symbols x {n_features} features, {HISTORY_S} s; polars: {pl.thread_pool_size()} threads, we: one"
    )

    took = best_s(lambda: FeatureGraph(FEATURES, N_SYMBOLS).step(columns), 6)
    ours = FeatureGraph(FEATURES, N_SYMBOLS).step(columns)
    print(f"features  history, one core          {size / took / 1e6:8.2f} M symbol-seconds/s")

    graph, durations = FeatureGraph(FEATURES, N_SYMBOLS), []
    for t in range(HISTORY_S):
        second = {name: columns[name][t : t + 1] for name in graph.inputs}
        start = time.perf_counter()
        graph.step(second)
        durations.append(time.perf_counter() - start)
    print(f"features  a live second              {percentiles_ms(durations[graph.lookback :])}")

    wide = wide_frames({name: columns[name] for name in graph.inputs})
    took = best_s(lambda: wide_features(wide), 3)
    theirs = np.stack([frame.to_numpy() for frame in wide_features(wide).values()], axis=-1)
    apart = deviation(ours, theirs)
    print(f"polars    history, wide frames       {size / took / 1e6:8.2f} M symbol-seconds/s, {apart:.0e} apart")

    long = long_frame({name: columns[name] for name in graph.inputs}).lazy()
    took = best_s(lambda: long_features(long).collect(), 3)
    result = long_features(long).collect()
    theirs = np.stack([result[name].to_numpy().reshape(N_SYMBOLS, HISTORY_S).T for name in FEATURES], axis=-1)
    apart = deviation(ours, theirs)
    print(f'polars    history, .over("symbol")   {size / took / 1e6:8.2f} M symbol-seconds/s, {apart:.0e} apart')

    window = {name: columns[name][: graph.lookback + 31] for name in graph.inputs}
    frames, frame = wide_frames(window), long_frame(window).lazy()
    durations = [best_s(lambda: wide_features(frames), 1) for _ in range(20)]
    print(f"polars    a live second, wide        {percentiles_ms(durations)}   {graph.lookback + 31} s window")
    durations = [best_s(lambda: long_features(frame).collect(), 1) for _ in range(20)]
    print(f"polars    a live second, .over       {percentiles_ms(durations)}   {graph.lookback + 31} s window")


if __name__ == "__main__":
    bench_features()
    bench_sampler()
