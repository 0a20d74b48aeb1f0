"""Seconds of an hour -> its features, by the graph that live runs; and its labels."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from pipelines.room import room
from pipelines.seconds import inputs_of, sample, to_frame
from shared.errors import TableEmpty
from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph, Features, definition_hash
from shared.labels import HORIZONS_S, Rule, label_seconds
from shared.lake import read, write
from shared.lake.layout import HOUR_S, hour_name
from shared.limits import HORIZON_S
from shared.types import NS, Floats, Seconds

RULE = Rule(horizon_s=HORIZON_S)
"""What is labelled where nobody asks for another: a taker, in and out, over live's horizon."""

BLOCK_S = 240
"""Seconds whose features are held at once: 67 MB for 600 symbols."""

COLUMNS_AT_ONCE = 8

MEMORY_BYTES = 256 * 1024**2
"""Of an hour's features; those of 600 symbols take a gigabyte and lie in a file."""

PART_SYMBOLS = 50
"""Symbols that are written at once."""

THREADS_MAX = 2
"""More threads wait for one another at every cross-section."""


def write_features(lake: Path, source: str, hour: int) -> pl.DataFrame:
    """Compute one hour of features and store it; return what was stored.

    The graph starts `lookback` seconds earlier on an empty state: nothing older can change a bit.

    Raises:
        TableEmpty: the hour holds no seconds.
    """
    start_s, end_s = hour * HOUR_S, (hour + 1) * HOUR_S
    symbols = read.universe_between(lake, source, start_s * NS, end_s * NS).symbols
    rows = read.collect(
        read.scan(lake, "seconds", source, start_s=start_s, end_s=end_s, is_sorted=False)
        .select("second", "symbol")
        .sort("symbol", "second")
    )
    if rows.is_empty():
        raise TableEmpty(f"seconds of {source} are needed for {hour_name(hour)}, found none: materialise seconds first")
    graph = FeatureGraph(FEATURES, symbols, threads=min(THREADS_MAX, os.cpu_count() or 1))
    values = _features_of(lake, graph, _seconds_of(lake, source, start_s - graph.lookback, end_s, graph), rows)
    # By way of Arrow, which takes an array as it is: polars would copy a gigabyte of 600 symbols.
    found = pl.from_arrow(pa.table(dict(zip(graph.names, map(pa.array, values), strict=True))))
    assert isinstance(found, pl.DataFrame), f"a table became {type(found)}"
    frame = pl.concat([rows, found], how="horizontal")
    provenance = {
        "inputs": inputs_of_features(lake, source, hour),
        "definition_hash": definition_hash(FEATURES),
        "lookback_s": graph.lookback,
    }
    of_symbol = rows["symbol"].rle_id().to_numpy()
    cuts = [*np.searchsorted(of_symbol, np.arange(0, int(of_symbol[-1]) + 1, PART_SYMBOLS)), len(rows)]
    write.write_parts(lake, "features", source, hour, (frame[a:b] for a, b in pairwise(cuts)), provenance)
    return frame


def _seconds_of(lake: Path, source: str, start_s: int, end_s: int, graph: FeatureGraph) -> Seconds:
    """Return the columns that the graph reads, a few at a time: as rows and as arrays at once they take a gigabyte."""
    columns: dict[str, Floats] = {}
    for k in range(0, len(graph.inputs), COLUMNS_AT_ONCE):
        some = graph.inputs[k : k + COLUMNS_AT_ONCE]
        columns |= read.read_seconds(lake, source, start_s, end_s, graph.symbols, some).columns
    return Seconds(start_s, columns)


def _features_of(lake: Path, graph: FeatureGraph, seconds: Seconds, rows: pl.DataFrame) -> Features:
    """Return the features of these rows, (F, R), worked block by block: an hour as the graph returns it would be
    another gigabyte for 600 symbols.

    Args:
        seconds: from `lookback` seconds before the first row.
        rows: `second` and `symbol`, sorted by symbol.
    """
    position = {symbol: n for n, symbol in enumerate(graph.symbols)}
    t = rows["second"].to_numpy() - seconds.first_second
    n = rows["symbol"].replace_strict(position, return_dtype=pl.Int32).to_numpy()
    by_second = np.argsort(t, kind="stable")
    n_seconds = len(next(iter(seconds.columns.values())))
    values: Features = room(lake, (len(graph.names), len(rows)), MEMORY_BYTES)
    for begin in range(0, n_seconds, BLOCK_S):
        end = min(begin + BLOCK_S, n_seconds)
        block = graph.step(
            {name: seconds.columns[name][begin:end] for name in graph.inputs}, seconds.first_second + begin
        )
        first, last = np.searchsorted(t, [begin, end], sorter=by_second)
        at = by_second[first:last]
        values[:, at] = block[t[at] - begin, n[at]].T
    return values


def write_labels(lake: Path, source: str, hour: int, *, slippage_bps: float, rule: Rule = RULE) -> pl.DataFrame:
    """Compute one hour of labels and store it; return what was stored.

    Its last rows are decided in the next hour. Where that has no seconds yet, the few that are needed are sampled
    from its raw rows, the open hour's log included; where it has none either, they stay null.

    Raises:
        TableEmpty: the hour holds no seconds.
    """
    start_s, end_s = hour * HOUR_S, (hour + 1) * HOUR_S
    needed_s = end_s + max(rule.reach_s, rule.delay_s + max(HORIZONS_S))
    columns = ("second", "symbol", "bid_price_1", "ask_price_1")
    seconds = read.collect(
        read.scan(lake, "seconds", source, start_s=start_s, end_s=end_s, is_sorted=False).select(columns)
    )
    if seconds.is_empty():
        raise TableEmpty(f"seconds of {source} are needed for {hour_name(hour)}, found none: materialise seconds first")
    following = _seconds_after(lake, source, end_s, needed_s)
    universe = read.universe_between(lake, source, start_s * NS, end_s * NS)
    if following is not None:
        seconds = pl.concat([seconds, following.select(columns).filter(pl.col("symbol").is_in(universe.symbols))])
    fees = universe.contracts
    frame = label_seconds(
        seconds,
        rule,
        taker_fee={contract.symbol: float(contract.taker_fee) for contract in fees},
        maker_fee={contract.symbol: float(contract.maker_fee) for contract in fees},
        slippage_bps=slippage_bps,
    ).filter(pl.col("second") < end_s)
    provenance = {
        "inputs": inputs_of_labels(lake, source, hour, slippage_bps=slippage_bps, rule=rule),
        "rule": msgspec.to_builtins(rule),
        "slippage_bps": slippage_bps,
    }
    write.write_table(lake, "labels", source, hour, frame, provenance)
    return frame


def inputs_of_features(lake: Path, source: str, hour: int) -> dict[str, str] | None:
    """Return what an hour of features is made from, formulas included."""
    rows = inputs_of(lake, source, [("seconds", hour - 1), ("seconds", hour)])
    return None if rows is None else rows | {"definition": definition_hash(FEATURES)}


def inputs_of_labels(
    lake: Path, source: str, hour: int, *, slippage_bps: float, rule: Rule = RULE
) -> dict[str, str] | None:
    """Return what an hour of labels is made from, costs included; None while the next hour is open."""
    following = "seconds" if hour + 1 in read.hours(lake, "seconds", source) else "raw/book"
    rows = inputs_of(lake, source, [("seconds", hour), (following, hour + 1)])
    return None if rows is None else rows | {"rule": str(rule), "slippage_bps": f"{slippage_bps:g}"}


def _seconds_after(lake: Path, source: str, start_s: int, end_s: int) -> pl.DataFrame | None:
    """Return the seconds of [start_s, end_s), None where nothing was recorded."""
    hour = start_s // HOUR_S
    if hour in read.hours(lake, "seconds", source):
        return read.collect(read.scan(lake, "seconds", source, start_s=start_s, end_s=end_s, is_sorted=False))
    if hour in read.hours(lake, "raw/book", source):
        return to_frame(*sample(lake, source, start_s, end_s))
    return None
