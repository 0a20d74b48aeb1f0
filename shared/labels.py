"""What a model predicts: the executable return of acting on a second, in three classes.

Row s is known at s + 1, so the first price that an order can meet is that of row s + 1: it enters at the touch of
row s + 1 and leaves at the touch of row s + 1 + horizon, crossing the spread both ways. In bps of the entry price:

    long_bps  = (bid_exit − ask_entry) / ask_entry × 1e4 − cost
    short_bps = (bid_entry − ask_exit) / bid_entry × 1e4 − cost
    mid_bps   = (mid_exit / mid_entry − 1) × 1e4                     (gross; what the classes are about)
    cost      = both taker fees + slippage twice (`costs.taker_round_trip_bps` without the spread, already crossed)

    label = 1 where long_bps > 0, 2 where short_bps > 0, else 0      (both cannot be: the spread is positive)

Rows are joined by second, never by position: where the row of the entry or of the exit does not exist, or its touch
is missing (NaN or null) or crossed, everything is null. Nothing is filled. The rows of the last 1 + horizon seconds
of a frame are null unless the frame goes on: the labels of an hour need the hour after it.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from shared import costs

FLAT, LONG, SHORT = 0, 1, 2
"""The classes, in the order of a model's outputs."""

ENTRY_DELAY_S: Final = 1
"""Row s + 1 is the first that an order decided on row s can meet."""

SCHEMA: Final = pl.Schema(
    {
        "second": pl.Int64,
        "symbol": pl.String,
        "label": pl.Int8,
        "long_bps": pl.Float64,
        "short_bps": pl.Float64,
        "mid_bps": pl.Float64,
    }
)


def label_seconds(seconds: pl.LazyFrame, *, horizon_s: int, taker_fee: float, slippage_bps: float) -> pl.LazyFrame:
    """Return the labels of every row of `seconds`, sorted by (second, symbol), columns as in SCHEMA.

    Args:
        seconds: at least second, symbol, bid_price_1, ask_price_1; each (second, symbol) at most once, any order.
        horizon_s: seconds from entry to exit.
        taker_fee: [1] of notional a side.
        slippage_bps: beyond the touch, a side.
    """
    assert horizon_s > 0, f"horizon of {horizon_s} s: must be positive"
    bid, ask = (pl.col(name).cast(pl.Float64).fill_nan(None) for name in ("bid_price_1", "ask_price_1"))
    is_open = bid < ask
    touch = seconds.select(
        pl.col("second").cast(pl.Int64),
        pl.col("symbol").cast(pl.String),
        bid=pl.when(is_open).then(bid),
        ask=pl.when(is_open).then(ask),
    )

    def at(delay_s: int, suffix: str) -> pl.LazyFrame:
        return touch.select(
            pl.col("second") - delay_s, "symbol", **{f"bid_{suffix}": "bid", f"ask_{suffix}": "ask"}
        )  # fmt: skip

    cost_bps = costs.taker_round_trip_bps(0.0, taker_fee, slippage_bps)
    bid_entry, ask_entry, bid_exit, ask_exit = (
        pl.col(name) for name in ("bid_entry", "ask_entry", "bid_exit", "ask_exit")
    )
    long_bps = (bid_exit - ask_entry) / ask_entry * costs.BPS - cost_bps
    short_bps = (bid_entry - ask_exit) / bid_entry * costs.BPS - cost_bps
    mid_bps = ((bid_exit + ask_exit) / (bid_entry + ask_entry) - 1.0) * costs.BPS
    label = (
        pl.when(long_bps.is_null() | short_bps.is_null())
        .then(None)
        .when(long_bps > 0.0)
        .then(LONG)
        .when(short_bps > 0.0)
        .then(SHORT)
        .otherwise(FLAT)
    )
    return (
        touch.select("second", "symbol")
        .join(at(ENTRY_DELAY_S, "entry"), on=["second", "symbol"], how="left")
        .join(at(ENTRY_DELAY_S + horizon_s, "exit"), on=["second", "symbol"], how="left")
        .select(
            "second",
            "symbol",
            label=label.cast(pl.Int8),
            long_bps=long_bps,
            short_bps=short_bps,
            mid_bps=mid_bps,
        )
        .sort("second", "symbol")  # the streaming engine keeps no order through a join
    )
