"""What a model predicts: what acting on a second would have earned, in bps after that symbol's own costs.

Row s is known at s + 1, so the first price that an order can meet is that of row s + delay, delay 1 or more: it enters
there and has left at row s + delay + horizon at the latest. Three rules say how:

    taker     crosses the spread both ways
                long_bps  = (bid_exit − ask_entry) / ask_entry × 1e4 − cost
                short_bps = (bid_entry − ask_exit) / bid_entry × 1e4 − cost
    maker     rests at its own touch of row s + delay for at most `rest_s`; filled where the other touch comes to that
              price (no queue is assumed to be short enough for less), leaves as a taker. Not filled earns 0.
    barrier   a taker who leaves at the first row where it has earned `target_bps`, or lost `stop_bps`, after costs;
              else at the horizon (López de Prado 2018, §3.4: triple barrier)

    label = 1 where long_bps > 0, 2 where short_bps > 0, else 0; the larger one where both are (maker alone can)
    mid_bps = (mid_exit / mid_entry − 1) × 1e4 over the whole horizon, gross: what the classes are about

Rows are seconds, never positions: where a row that is needed does not exist, or its touch is missing or crossed,
everything that needs it is null. Nothing is filled. So the labels of an hour need the first rows of the hour after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from shared import costs
from shared.types import Floats, Ints

FLAT, LONG, SHORT = 0, 1, 2
"""The classes, in the order of a model's outputs."""

NONE: Final = -1
"""In arrays: there is no label."""

ENTRY_DELAY_S: Final = 1
"""Row s + 1 is the first that an order decided on row s can meet."""

HORIZONS_S: Final = (1, 5, 10, 30, 60, 300)
"""Of the gross returns that stand beside every label: how fast a signal decays is read from them."""

SCHEMA: Final = pl.Schema(
    {
        "second": pl.Int64,
        "symbol": pl.String,
        "label": pl.Int8,
        "long_bps": pl.Float64,
        "short_bps": pl.Float64,
        "mid_bps": pl.Float64,
        **{f"mid_bps_{horizon_s}s": pl.Float64 for horizon_s in HORIZONS_S},
    }
)


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """How a second would have been acted on."""

    kind: Literal["taker", "maker", "barrier"] = "taker"
    horizon_s: int = 10  # from entry (maker: from the order) to the latest exit
    delay_s: int = ENTRY_DELAY_S
    rest_s: int = 5  # maker: how long the order rests
    target_bps: float = 20.0  # barrier: after costs
    stop_bps: float = 40.0  # barrier: > 0, after costs

    def __post_init__(self) -> None:
        assert self.horizon_s > 0, f"horizon of {self.horizon_s} s: must be positive"
        assert self.delay_s >= ENTRY_DELAY_S, f"delay of {self.delay_s} s: row s is known at s + 1"
        assert self.kind != "maker" or 0 < self.rest_s <= self.horizon_s, (self.rest_s, self.horizon_s)
        assert self.kind != "barrier" or (self.target_bps > 0 and self.stop_bps > 0), self

    @property
    def reach_s(self) -> int:
        """Return how many rows after its own a label looks at."""
        return self.delay_s + self.horizon_s


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What trading costs beyond the touch, by symbol."""

    taker_fee: Floats  # (N,), [1] of notional a side
    maker_fee: Floats  # (N,)
    slippage_bps: float  # beyond the touch, of every crossing

    @property
    def taker_bps(self) -> Floats:
        """Return the cost of crossing in and out, spread not included. Shape (N,)."""
        return costs.taker_round_trip_bps(np.zeros(len(self.taker_fee)), self.taker_fee, self.slippage_bps)

    @property
    def maker_bps(self) -> Floats:
        """Return the cost of resting in and crossing out. Shape (N,)."""
        return costs.maker_round_trip_bps(self.maker_fee, self.taker_fee, np.zeros(len(self.taker_fee))) + (
            self.slippage_bps
        )


class Labels(msgspec.Struct, frozen=True, kw_only=True):
    """Labels on a grid of T seconds x N symbols; NaN, and label NONE, where they are not known."""

    label: NDArray[np.int8]
    long_bps: Floats
    short_bps: Floats
    mid_bps: Floats


def label_grid(bid: Floats, ask: Floats, rule: Rule, cost: Costs) -> Labels:
    """Return the labels of every second of a grid.

    Args:
        bid, ask: best prices, (T, N) in consecutive seconds; NaN where a row or a side is missing.
    """
    bid, ask = _touch(bid, ask)
    entry_bid, entry_ask = _ahead(bid, rule.delay_s), _ahead(ask, rule.delay_s)
    # An order that sells is one that buys in the market upside down: prices are compared, and divided by the entry's.
    if rule.kind == "taker":
        long_bps = _crossed(entry_ask, _ahead(bid, rule.reach_s), 1.0) - cost.taker_bps
        short_bps = _crossed(entry_bid, _ahead(ask, rule.reach_s), -1.0) - cost.taker_bps
    elif rule.kind == "maker":
        long_bps = _rested(entry_bid, bid, ask, rule, cost, 1.0)
        short_bps = _rested(entry_ask, ask, bid, rule, cost, -1.0)
    else:
        long_bps = _barred(entry_ask, bid, rule, cost, 1.0)
        short_bps = _barred(entry_bid, ask, rule, cost, -1.0)
    is_known = ~(np.isnan(long_bps) | np.isnan(short_bps))
    label = np.where(long_bps > np.maximum(short_bps, 0.0), LONG, np.where(short_bps > 0.0, SHORT, FLAT))
    return Labels(
        label=np.where(is_known, label, NONE).astype(np.int8),
        long_bps=np.where(is_known, long_bps, np.nan),
        short_bps=np.where(is_known, short_bps, np.nan),
        mid_bps=mid_bps(bid, ask, rule.horizon_s, rule.delay_s),
    )


def mid_bps(bid: Floats, ask: Floats, horizon_s: int, delay_s: int = ENTRY_DELAY_S) -> Floats:
    """Return the gross return of the mid from row s + delay over the horizon, (T, N); NaN where it is not known."""
    total = quoted(bid, ask)
    return moved_bps(_ahead(total, delay_s), _ahead(total, delay_s + horizon_s))


def quoted(bid: Floats, ask: Floats) -> Floats:
    """Return twice the mid, (T, N); NaN where a side is missing or they cross."""
    bid, ask = _touch(bid, ask)
    return bid + ask


def moved_bps(before: Floats, after: Floats) -> Floats:
    """Return the gross return from one mid to another; from what `quoted` returns of both."""
    return (after / before - 1.0) * costs.BPS


def label_seconds(
    seconds: pl.DataFrame,
    rule: Rule,
    *,
    taker_fee: Mapping[str, float],
    maker_fee: Mapping[str, float],
    slippage_bps: float,
) -> pl.DataFrame:
    """Return the labels of every row of `seconds`, sorted by (symbol, second), columns as in SCHEMA.

    Args:
        seconds: at least second, symbol, bid_price_1, ask_price_1; each (second, symbol) at most once, any order.
        taker_fee, maker_fee: symbol -> [1] of notional a side.
        slippage_bps: beyond the touch, a crossing.
    """
    rows = seconds.select("second", "symbol", "bid_price_1", "ask_price_1").sort("symbol", "second")
    if rows.is_empty():
        return pl.DataFrame(schema=SCHEMA)
    symbols = rows["symbol"].unique().sort().to_list()
    second = rows["second"].to_numpy()
    first_s, end_s = int(second.min()), int(second.max()) + 1
    n = rows["symbol"].replace_strict(symbols, range(len(symbols)), return_dtype=pl.Int64).to_numpy()
    t = second - first_s
    shape = (end_s - first_s, len(symbols))
    bid, ask = np.full(shape, np.nan), np.full(shape, np.nan)
    bid[t, n] = rows["bid_price_1"].cast(pl.Float64).to_numpy()
    ask[t, n] = rows["ask_price_1"].cast(pl.Float64).to_numpy()
    cost = Costs(
        taker_fee=np.array([taker_fee[symbol] for symbol in symbols]),
        maker_fee=np.array([maker_fee[symbol] for symbol in symbols]),
        slippage_bps=slippage_bps,
    )
    found = label_grid(bid, ask, rule, cost)
    columns = {name: getattr(found, name)[t, n] for name in ("label", "long_bps", "short_bps", "mid_bps")}
    for horizon_s in HORIZONS_S:
        columns[f"mid_bps_{horizon_s}s"] = mid_bps(bid, ask, horizon_s, rule.delay_s)[t, n]
    return rows.select("second", "symbol").with_columns(
        pl.when(pl.lit(columns["label"]) != NONE).then(pl.lit(columns["label"])).alias("label"),
        *(pl.Series(name, values).fill_nan(None) for name, values in columns.items() if name != "label"),
    )


# ------------------------------------------------------------------------------------------------------ weights


def uniqueness(second: Ints, symbol: NDArray[np.int32], rule: Rule) -> Floats:
    """Return how much of each label is its own, (0, 1]: the mean over its seconds of 1 / labels that share them.

    Labels of neighbouring seconds are mostly the same outcome; ten of them, each of ten seconds, are worth little more
    than one. (López de Prado 2018, §4.4: average uniqueness.) Of every symbol by itself.

    Args:
        second, symbol: of each labelled row, (R,), any order, each pair once.
    """
    if not len(second):
        return np.empty(0)
    # All symbols on one line of seconds, too far apart to share any: row s spends the seconds (s + delay, s + reach].
    first = int(second.min())
    stride = int(second.max()) - first + rule.reach_s + 2
    begin = symbol.astype(np.int64) * stride + (second - first) + rule.delay_s
    end = begin + rule.horizon_s
    steps = np.zeros((int(symbol.max()) + 1) * stride + 1, np.int64)
    np.add.at(steps, begin, 1)
    np.add.at(steps, end, -1)
    sharing = steps.cumsum()
    own = np.concatenate([[0.0], np.divide(1.0, sharing, out=np.zeros(len(sharing)), where=sharing > 0).cumsum()])
    weights: Floats = (own[end] - own[begin]) / rule.horizon_s
    return weights


def class_weights(label: NDArray[np.int8], weight: Floats, n_classes: int = 3) -> Floats:
    """Return the weights (R,), scaled so that every class that occurs weighs the same and their mean is 1."""
    total = np.bincount(label, weights=weight, minlength=n_classes)
    share = np.divide(total.sum() / max(1, int((total > 0).sum())), total, out=np.zeros(n_classes), where=total > 0)
    balanced = weight * share[label]
    return np.asarray(balanced * (len(label) / max(balanced.sum(), 1e-300)))


# ------------------------------------------------------------------------------------------------------- inside


def _touch(bid: Floats, ask: Floats) -> tuple[Floats, Floats]:
    """Return both sides, NaN where either is missing or they cross."""
    is_open = bid < ask
    return np.where(is_open, bid, np.nan), np.where(is_open, ask, np.nan)


def _ahead(values: Floats, by: int) -> Floats:
    """Return for each second the row `by` seconds later; NaN where the grid ends."""
    later = np.full(values.shape, np.nan)
    if by < len(values):
        later[: len(values) - by] = values[by:]
    return later


def _crossed(entry: Floats, leave: Floats, sign: float) -> Floats:
    return sign * (leave - entry) / entry * costs.BPS


def _rested(entry: Floats, own: Floats, other: Floats, rule: Rule, cost: Costs, sign: float) -> Floats:
    """Return what resting at `entry` earns: 0 where nobody came to it, NaN where that cannot be told.

    Args:
        own, other: the touch of our side and of the other one; a buyer's are bid and ask.
    """
    is_filled = np.zeros(entry.shape, np.bool_)
    is_known = ~np.isnan(entry)
    for delay_s in range(rule.delay_s + 1, rule.delay_s + rule.rest_s + 1):
        came = _ahead(other, delay_s)
        is_known &= is_filled | ~np.isnan(came)
        is_filled |= is_known & (sign * (came - entry) <= 0.0)
    leave = _ahead(own, rule.reach_s)
    earned = np.where(is_filled, _crossed(entry, leave, sign) - cost.maker_bps, 0.0)
    return np.where(is_known, earned, np.nan)


def _barred(entry: Floats, leaving: Floats, rule: Rule, cost: Costs, sign: float) -> Floats:
    """Return what a taker earns who leaves at the first barrier.

    Args:
        leaving: the touch that an exit crosses to; a buyer's is the bid.
    """
    earned = np.full(entry.shape, np.nan)
    is_open = ~np.isnan(entry)
    for delay_s in range(rule.delay_s + 1, rule.reach_s + 1):
        now = _crossed(entry, _ahead(leaving, delay_s), sign) - cost.taker_bps
        is_open &= ~np.isnan(now)  # a second nobody saw may have held the barrier
        is_end = delay_s == rule.reach_s
        leaves = is_open & (is_end | (now >= rule.target_bps) | (now <= -rule.stop_bps))
        earned[leaves] = now[leaves]
        is_open &= ~leaves
    return earned
