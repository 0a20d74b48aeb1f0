"""Small markets made of seconds, written into a lake without raw rows: for what stands on seconds."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path

import numpy as np

from pipelines.features import write_features, write_labels
from pipelines.seconds import to_frame
from shared.features.sampler import COLUMNS
from shared.lake import write
from shared.lake.layout import HOUR_S
from shared.types import NS, Contract, Floats, Seconds, Universe

SOURCE = "simulator-test"
HOUR = 1_760_000_400 // HOUR_S
TICK = 0.01


def contract(symbol: str) -> Contract:
    return Contract(
        symbol=symbol, base=symbol.removesuffix("USDT"), quote="USDT", status="normal", tick=Decimal("0.01"),
        size_step=Decimal("0.001"), size_min=Decimal("0.001"), notional_min_usdt=Decimal(5), size_max_limit=None,
        size_max_market=None, price_band_buy=Decimal("0.05"), price_band_sell=Decimal("0.05"),
        maker_fee=Decimal("0.0002"), taker_fee=Decimal("0.0006"), leverage_min=1, leverage_max=50,
        funding_interval_h=1, is_rwa=False, launch_ms=None, off_ms=None,
    )  # fmt: skip


def universe(n_symbols: int, as_of_ns: int, source: str = SOURCE) -> Universe:
    symbols = [f"S{n:02d}USDT" for n in range(n_symbols)]
    return Universe(source=source, as_of_ns=as_of_ns, contracts=tuple(contract(symbol) for symbol in symbols))


def market(
    first_second: int,
    rows: int,
    n_symbols: int,
    *,
    seed: int,
    edge_bps: float = 0.0,
    sigma_bps: float = 4.0,
    stretch_s: int = 20,
    tick: float = TICK,
) -> Seconds:
    """Return a random walk whose imbalance, of one sign for a stretch of time, says where it drifts.

    Args:
        edge_bps: drift over ten seconds while the imbalance is up (0: nothing can be predicted).
        sigma_bps: of a second.
        tick: also the spread; prices are about 100.
    """
    places = round(-math.log10(tick))
    rng = np.random.Generator(np.random.Philox(seed))
    stretch = np.repeat(rng.choice([-0.8, 0.0, 0.8], (-(-rows // stretch_s), n_symbols)), stretch_s, axis=0)[:rows]
    moves = rng.standard_normal((rows, n_symbols)) * (sigma_bps * 1e-4) + np.sign(stretch) * edge_bps * 1e-5
    mid = 100.0 * np.exp(np.cumsum(moves, axis=0))
    bid = np.floor(mid / tick) * tick
    columns: dict[str, Floats] = {name: np.full((rows, n_symbols), np.nan) for name in COLUMNS}
    for level in range(1, 6):
        columns[f"bid_price_{level}"] = np.round(bid - (level - 1) * tick, places)
        columns[f"ask_price_{level}"] = np.round(bid + level * tick, places)
        columns[f"bid_size_{level}"] = np.round(200.0 * (1 + stretch) + 10 * rng.random((rows, n_symbols)), 3)
        columns[f"ask_size_{level}"] = np.round(200.0 * (1 - stretch) + 10 * rng.random((rows, n_symbols)), 3)
    for side in ("bid", "ask"):
        depth = sum(columns[f"{side}_price_{k}"] * columns[f"{side}_size_{k}"] for k in range(1, 6))
        columns[f"{side}_depth_5bps_usdt"] = columns[f"{side}_depth_10bps_usdt"] = np.asarray(depth)
    columns["book_reach_bps"][:] = 5.0
    columns["last"] = columns["mark"] = columns["index"] = np.round(mid, 4)
    columns["funding_rate"][:] = 1e-4
    columns["open_interest"][:] = 1e5
    columns["quote_volume_24h_usdt"][:] = 1e8
    for name in ("buy_volume_usdt", "sell_volume_usdt"):
        columns[name] = np.round(1000 * rng.random((rows, n_symbols)), 2)
    columns["buy_count"] = columns["sell_count"] = rng.integers(0, 4, (rows, n_symbols)).astype(float)
    columns["mid_high"], columns["mid_low"] = mid + tick, mid - tick
    columns["book_updates"][:] = columns["ticker_updates"][:] = 1.0
    return Seconds(first_second, columns)


def write_lake(
    lake: Path, *, rows: int = 1500, n_symbols: int = 6, seed: int = 3, edge_bps: float = 60.0, source: str = SOURCE
) -> tuple[int, int]:
    """Write universe, seconds, features and labels that straddle the border of two hours; return [start, end)."""
    start = (HOUR + 1) * HOUR_S - rows // 2
    listed = universe(n_symbols, start * NS, source)
    write.write_universe(lake, listed)
    frame = to_frame(listed.symbols, market(start, rows, n_symbols, seed=seed, edge_bps=edge_bps))
    hours = sorted(set((frame["second"] // HOUR_S).to_list()))
    for hour in hours:
        write.write_table(lake, "seconds", source, hour, frame.filter(frame["second"] // HOUR_S == hour), {})
    for hour in hours:
        write_features(lake, source, hour)
        write_labels(lake, source, hour, slippage_bps=2.0)
    return start, start + rows
