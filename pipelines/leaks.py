"""Before anything is learnt: are the stored features what their formulas give from nothing but the past?

A few seconds of every window are computed again, from the seconds up to them and no later one, by the graph that live
runs, and compared bit for bit. Whatever looks ahead, crosses from one symbol into the next in a pooled frame, or was
computed by other formulas than their names say, differs. Looked at are the first second of the first and the last hour
(where a window that crossed a border would reach into something else) and seconds spread over all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from shared.errors import CrosscutError, TableEmpty
from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph
from shared.lake import read
from shared.lake.layout import HOUR_S
from shared.types import NS

SPREAD = 4
"""Seconds looked at beside the first of the first and of the last hour."""


class LeakyFeatures(CrosscutError):
    """Stored features are not what the past of their second gives."""

    exit_code = 3


def check_features(lake: Path, source: str, hours: Sequence[int]) -> int:
    """Compare stored features with what their formulas give; return how many rows were compared.

    Hours whose seconds were removed cannot be compared and are passed over.

    Raises:
        LeakyFeatures: a value differs.
    """
    known = [hour for hour in hours if hour in set(read.hours(lake, "seconds", source))]
    compared = 0
    for at in _seconds(lake, source, known):
        hour = at // HOUR_S
        symbols = read.universe_between(lake, source, hour * HOUR_S * NS, (hour + 1) * HOUR_S * NS).symbols
        graph = FeatureGraph(FEATURES, symbols)
        try:
            past = read.read_seconds(lake, source, at - graph.lookback, at + 1, symbols)
        except TableEmpty:
            continue  # the hour before was removed, and with it what this second had seen
        given = graph.step(past.columns, past.first_second)[-1]
        found = read.collect(read.scan(lake, "features", source, start_s=at, end_s=at + 1, symbols=symbols))
        stored = found.select(graph.names).to_numpy()
        expected = given[[symbols.index(symbol) for symbol in found["symbol"]]]
        differs = ~((stored == expected) | (np.isnan(stored) & np.isnan(expected)))
        if differs.any():
            row, column = (int(place) for place in np.argwhere(differs)[0])
            names = [graph.names[n] for n in np.flatnonzero(differs.any(axis=0))]
            raise LeakyFeatures(
                f"features must be what the past of their second gives, found {graph.names[column]} = "
                f"{stored[row, column]:g} of {found['symbol'][row]} at {at}, where its formula gives "
                f"{expected[row, column]:g} ({len(names)} of {len(graph.names)} features differ: "
                f"{', '.join(names[:5])}): materialise features again; if they differ again, a formula looks ahead"
            )
        compared += len(stored)
    return compared


def _seconds(lake: Path, source: str, hours: Sequence[int]) -> list[int]:
    """Return which seconds to look at: those that have features."""
    if not hours:
        return []
    chosen = sorted({hours[0], hours[-1], *(hours[len(hours) * k // SPREAD] for k in range(SPREAD))})
    looked_at: set[int] = set()
    for hour in chosen:
        rows = read.scan(lake, "features", source, start_s=hour * HOUR_S, end_s=(hour + 1) * HOUR_S, is_sorted=False)
        seconds = read.collect(rows.select(pl.col("second").unique())).get_column("second").sort().to_list()
        if not seconds:
            continue
        if hour in (hours[0], hours[-1]):
            looked_at.add(seconds[0])
        each = -(-SPREAD // len(chosen))
        looked_at |= {seconds[len(seconds) * (2 * k + 1) // (2 * each)] for k in range(each)}
    return sorted(looked_at)
