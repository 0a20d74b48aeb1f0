"""A window of the lake as blocks of seconds with their scores: computed once, for as many engines as there are.

Features and scores come from the graph and the scorer that live runs, block by block; cut invariance makes them the
bits that an engine would have computed second by second. A block lies in memory once, as (C, T, N): a column is a
view of it, and so is the second that an engine is handed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from pipelines.seconds import stored
from shared.errors import TableEmpty
from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph, Features
from shared.features.sampler import COLUMNS
from shared.lake import read
from shared.strategy.scores import Scorer, Scores
from shared.types import Floats, Universe

BLOCK_S = 900
"""Rows computed at once; also the length that shuffled scores are turned in."""


class Block(msgspec.Struct, frozen=True):
    """Some seconds of all symbols."""

    first_second: int
    values: Floats  # (C, T, N) in the order of `sampler.COLUMNS`
    scores: Scores  # (T, N)
    others: Mapping[str, Scores] = {}  # of the further variants that some engine chooses among, by name

    @property
    def n_seconds(self) -> int:
        return int(self.values.shape[1])

    @property
    def columns(self) -> dict[str, Floats]:
        """Return name -> (T, N), views."""
        return dict(zip(COLUMNS, self.values, strict=True))

    def row(self, t: int) -> Floats:
        """Return second t as an engine takes it, (C, N), a view."""
        row: Floats = self.values[:, t]
        return row


class Stacked(msgspec.Struct, frozen=True):
    """Scores of a block by several scorers, the configured one first; what a second brings is a tuple."""

    each: tuple[Scores, ...]

    def row(self, t: int) -> tuple[Scores, ...]:
        return tuple(scores.row(t) for scores in self.each)


def stacked(block: Block, variants: Sequence[str]) -> Scores | Stacked:
    """Return what an engine that chooses among these further variants reads of a block."""
    return Stacked((block.scores, *(block.others[name] for name in variants))) if variants else block.scores


def block_of(
    columns: Mapping[str, Floats],
    first_second: int,
    scores: Scores,
    others: Mapping[str, Scores] | None = None,
    *,
    into: Floats | None = None,
) -> Block:
    """Return columns of their own as a block.

    Args:
        into: (C, at least T, N) to put them in; fresh memory costs more than the copy.
    """
    n_seconds = len(scores.is_valid)
    found = [columns[name] for name in COLUMNS]
    if into is None:
        return Block(first_second, np.stack(found), scores, others or {})
    values = into[:, :n_seconds]
    return Block(first_second, np.stack(found, out=values), scores, others or {})


def scored_blocks(
    lake: Path,
    source: str,
    universe: Universe,
    scorer: Scorer,
    start_s: int,
    end_s: int,
    *,
    others: Mapping[str, Scorer] | None = None,
    look: Callable[[int, Features | None], None] | None = None,
    block_s: int | None = None,
) -> Iterator[Block]:
    """Yield the window in blocks of about `BLOCK_S` rows with their scores; the graph carries its state across.

    A block's values are overwritten by the second one after it: an engine still reads the last second of the block
    before, nobody anything older.

    Args:
        others: further scorers by name, for engines that choose among several.
        look: is shown each block's first second and features, (T, N, F), before its scores; None: nobody looks.
    """
    symbols, others = universe.symbols, others or {}
    needs_features = any(one.needs_features for one in (scorer, *others.values()))
    graph = FeatureGraph(FEATURES, symbols) if needs_features else None
    if graph is not None:
        graph.step(stored(lake, source, start_s - graph.lookback, start_s, symbols).columns, start_s - graph.lookback)
    n_blocks = max(1, round((end_s - start_s) / (block_s or BLOCK_S)))
    bounds = [start_s + round((end_s - start_s) * k / n_blocks) for k in range(n_blocks + 1)]
    longest = max(end - begin for begin, end in pairwise(bounds))
    memory = [np.empty((len(COLUMNS), longest, len(symbols))) for _ in range(min(2, n_blocks))]
    for k, (begin, end) in enumerate(pairwise(bounds)):
        columns = dict(stored(lake, source, begin, end, symbols).columns)
        features = graph.step(columns, begin) if graph is not None else None
        if look is not None:
            look(begin, features)
        said = {name: other.score(features, columns, begin) for name, other in others.items()}
        yield block_of(columns, begin, scorer.score(features, columns, begin), said, into=memory[k % 2])


def turned(scores: Scores) -> Scores:
    """Return the scores of half a block earlier or later, valid where both are."""
    half = len(scores.is_valid) // 2
    rolled = {name: np.roll(getattr(scores, name), half, axis=0) for name in scores.__struct_fields__}
    rolled["is_valid"] = rolled["is_valid"] & scores.is_valid
    return Scores(**rolled)


class Outcomes(msgspec.Struct, frozen=True):
    """What followed the seconds of a block; NaN where it is not known."""

    mid_bps: Floats  # (T, N) move of the mid over the horizon of the labels
    label: Floats  # (T, N) class that acting on it would have had (`shared.labels`)


def outcomes_of(lake: Path, source: str, symbols: tuple[str, ...], first_second: int, n_seconds: int) -> Outcomes:
    """Return the labels that the lake holds of a block."""
    end_s = first_second + n_seconds
    try:
        frame = read.collect(
            read.scan(
                lake, "labels", source, start_s=first_second, end_s=end_s, symbols=symbols, is_sorted=False
            ).select("second", "symbol", "mid_bps", "label")
        )
    except TableEmpty:
        nothing = np.full((n_seconds, len(symbols)), np.nan)
        return Outcomes(nothing, nothing)
    return outcomes_in(frame, first_second, end_s, symbols)


def outcomes_in(frame: pl.DataFrame, start_s: int, end_s: int, symbols: tuple[str, ...]) -> Outcomes:
    """Return labels in rows as arrays."""
    filled = frame.select("second", "symbol", pl.col("mid_bps", "label").cast(pl.Float64).fill_null(np.nan))
    arrays = read.to_arrays(filled, start_s, end_s, symbols)
    return Outcomes(arrays["mid_bps"], arrays["label"])
