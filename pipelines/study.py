"""Does a formula say anything? Its rank IC at every horizon, from the seconds of the lake alone.

    from pipelines.study import study
    from shared.features.catalog import imbalance, microprice, mid

    study({"mine": (microprice - mid) / mid * imbalance(3)}, lake, source, start_s, end_s)

A formula that is not in the catalog is worked by the same graph as if it were, over the whole recorded universe. What
followed is the gross return of the mid from the first price that could be had (`shared.labels`); nothing is traded and
no cost is in it. An IC that is looked at is an IC that was tried: a model's gate counts trials, this does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from pipelines.validation import IC_SYMBOLS_MIN, mean_ic
from shared.errors import TableEmpty
from shared.features.across import ACROSS
from shared.features.graph import FeatureGraph, Features
from shared.features.ops import Node
from shared.labels import ENTRY_DELAY_S, HORIZONS_S, mid_bps
from shared.lake import read
from shared.lake.layout import HOUR_S
from shared.types import NS, Floats, Seconds

SLICE_ROWS = 128
"""Seconds that are ranked at once, so that they stay in cache."""

_QUOTES = ("bid_price_1", "ask_price_1")


def study(
    features: Mapping[str, Node],
    lake: Path,
    source: str,
    start_s: int,
    end_s: int,
    horizons_s: Sequence[int] = HORIZONS_S,
) -> pl.DataFrame:
    """Return the rank IC of every formula at every horizon, over the seconds [start_s, end_s).

    Returns: `feature`, `horizon_s`, `rank_ic` [1], `standard_error` (of blocks longer than the horizon), `seconds`.

    Raises:
        TableEmpty: no hour of the window was sampled.
    """
    symbols = read.universe_between(lake, source, start_s * NS, end_s * NS).symbols
    threads = os.cpu_count() or 1
    graph = FeatureGraph(features, symbols, threads=min(2, threads))
    ahead_s = ENTRY_DELAY_S + max(horizons_s)
    found = np.full((len(features), len(horizons_s), end_s - start_s), np.nan)
    with ThreadPoolExecutor(threads) as pool:
        for seconds in _blocks(lake, source, start_s - graph.lookback, end_s, ahead_s, symbols, graph.inputs):
            rows = min(HOUR_S, end_s - seconds.first_second, len(seconds.columns[_QUOTES[0]]))
            own = {name: seconds.columns[name][:rows] for name in graph.inputs}
            values = graph.step(own, seconds.first_second)
            begin = max(0, start_s - seconds.first_second)
            at = slice(seconds.first_second + begin - start_s, seconds.first_second + rows - start_s)
            bid, ask = (seconds.columns[name] for name in _QUOTES)
            for h, horizon_s in enumerate(horizons_s):
                moved = mid_bps(bid, ask, horizon_s)[begin:rows]
                for f in range(len(features)):
                    found[f, h, at] = _ic(values[begin:, :, f], moved, pool)
    when = np.arange(start_s, end_s)
    table = []
    for f, name in enumerate(features):
        for h, horizon_s in enumerate(horizons_s):
            is_known = np.isfinite(found[f, h])
            ic = mean_ic(when[is_known], found[f, h, is_known], block_s=2 * horizon_s)
            table.append((name, horizon_s, ic.mean, ic.standard_error, ic.seconds))
    columns = ("feature", "horizon_s", "rank_ic", "standard_error", "seconds")
    return pl.DataFrame(table, schema=columns, orient="row")


def _blocks(
    lake: Path, source: str, start_s: int, end_s: int, ahead_s: int, symbols: Sequence[str], inputs: Sequence[str]
) -> Iterator[Seconds]:
    """Yield the window an hour at a time, each with `ahead_s` seconds after it, every hour of the lake read once."""
    columns = list(dict.fromkeys([*inputs, *_QUOTES]))
    hours = set(read.hours(lake, "seconds", source))
    if not any(start_s < (hour + 1) * HOUR_S and hour * HOUR_S < end_s for hour in hours):
        raise TableEmpty(
            f"seconds of {source} are needed in [{start_s}, {end_s}), found no hour of them: materialise seconds first"
        )

    def hour_of(first: int) -> dict[str, Floats]:
        touched = {first // HOUR_S, (first + HOUR_S - 1) // HOUR_S}
        if not touched & hours:  # nobody recorded: nothing is known
            return {name: np.full((HOUR_S, len(symbols)), np.nan) for name in columns}
        return dict(read.read_seconds(lake, source, first, first + HOUR_S, symbols, columns).columns)

    held = hour_of(start_s)
    for first in range(start_s, end_s, HOUR_S):
        following = hour_of(first + HOUR_S)
        yield Seconds(first, {name: np.concatenate([held[name], following[name][:ahead_s]]) for name in columns})
        held = following


def _ic(signal: Features, moved: Floats, pool: ThreadPoolExecutor) -> Floats:
    """Return Spearman's correlation over symbols of each second, (T,); NaN where too few have both."""
    parts = [slice(a, a + SLICE_ROWS) for a in range(0, len(moved), SLICE_ROWS)]
    return np.concatenate(list(pool.map(partial(_ic_of, signal, moved), parts)))


def _ic_of(signal: Features, moved: Floats, rows: slice) -> Floats:
    is_known = np.isfinite(signal[rows]) & np.isfinite(moved[rows])
    ranks = []
    with np.errstate(all="ignore"):
        for values in (signal[rows], moved[rows]):
            rank = np.empty(is_known.shape)
            ACROSS["rank"](np.where(is_known, values, np.nan).astype(np.float64, copy=False), rank)
            ranks.append(np.where(is_known, rank, 0.0))  # ranks are centred: 0 adds nothing
        one, other = ranks
        ic: Floats = (one * other).sum(axis=1) / np.sqrt((one * one).sum(axis=1) * (other * other).sum(axis=1))
    ic[is_known.sum(axis=1) < IC_SYMBOLS_MIN] = np.nan
    return ic
