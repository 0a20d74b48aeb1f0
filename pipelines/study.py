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
from shared.labels import ENTRY_DELAY_S, HORIZONS_S, moved_bps, quoted
from shared.lake import read
from shared.lake.layout import HOUR_S
from shared.types import NS, Floats, Seconds

SLICE_ROWS = 64
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
            total = quoted(*(seconds.columns[name] for name in _QUOTES))[begin:]
            parts = [slice(a, min(a + SLICE_ROWS, rows - begin)) for a in range(0, rows - begin, SLICE_ROWS)]
            work = partial(_ics, values[begin:], total, tuple(horizons_s))
            found[:, :, at] = np.concatenate(list(pool.map(work, parts)), axis=2)
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


def _ics(values: Features, total: Floats, horizons_s: tuple[int, ...], rows: slice) -> Floats:
    """Return Spearman's correlation over symbols of each formula at each horizon, (F, H, T of `rows`).

    NaN where too few symbols have both. A formula is ranked once for all horizons, and what followed once for all
    formulas; only seconds in which not the same symbols have both are ranked again, among those that do.

    Args:
        values: (T, N, F).
        total: what `labels.quoted` returns, from row 0 to the last row and as far ahead as the horizons reach.
    """
    n_features = values.shape[2]
    found = np.full((n_features, len(horizons_s), rows.stop - rows.start), np.nan)
    begin, end = rows.start + ENTRY_DELAY_S, rows.stop + ENTRY_DELAY_S
    with np.errstate(all="ignore"):
        signals = [np.ascontiguousarray(values[rows, :, f], np.float64) for f in range(n_features)]
        ranked = [_ranked(signal) for signal in signals]
        powers = [_product(rank, rank) for rank in ranked]
        known = [np.isfinite(signal) for signal in signals]
        for h, horizon_s in enumerate(horizons_s):
            moved = moved_bps(total[begin:end], total[begin + horizon_s : end + horizon_s])
            rank_moved = _ranked(moved)
            power_moved = _product(rank_moved, rank_moved)
            has_moved = np.isfinite(moved)
            n_moved = has_moved.sum(axis=1)
            for f, signal in enumerate(signals):
                ic = _product(ranked[f], rank_moved) / np.sqrt(powers[f] * power_moved)
                ic[n_moved < IC_SYMBOLS_MIN] = np.nan
                again = np.flatnonzero((known[f] != has_moved).any(axis=1))
                if len(again):
                    is_known = known[f][again] & has_moved[again]
                    one, other = (_ranked(np.where(is_known, x[again], np.nan)) for x in (signal, moved))
                    ic[again] = _product(one, other) / np.sqrt(_product(one, one) * _product(other, other))
                    ic[again[is_known.sum(axis=1) < IC_SYMBOLS_MIN]] = np.nan
                found[f, h] = ic
    return found


def _ranked(values: Floats) -> Floats:
    """Return the rank among the symbols of each second, centred, 0 where there is no value: it adds nothing."""
    rank = np.empty(values.shape)
    ACROSS["rank"](values, rank)
    return np.where(np.isfinite(values), rank, 0.0)


def _product(one: Floats, other: Floats) -> Floats:
    """Return the sum over symbols of the products, (T,)."""
    product: Floats = np.einsum("tn,tn->t", one, other)
    return product
