"""A window of the lake as blocks of seconds with their scores: computed once, for as many engines as there are.

Features and scores come from the graph and the scorer that live runs, block by block; cut invariance makes them the
bits that an engine would have computed second by second. A block lies in memory once, as (C, T, N): a column is a
view of it, and so is the second that an engine is handed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from pipelines.kept_scores import KeptScores
from shared.errors import TableEmpty
from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph, Features
from shared.features.sampler import COLUMNS
from shared.lake import read
from shared.lake.layout import HOUR_S
from shared.strategy.scores import Scorer, Scores
from shared.types import Floats, Universe

BLOCK_S = 900
"""Rows computed at once; also the length that shuffled scores are turned in."""

SYMBOLS_AT_ONCE = 80
"""Symbols of an hour decoded at once: 90 MB. Eight lie in one piece of a file, which this divides into."""

LABELLED_AT_ONCE = 152
"""The same of labels, whose two columns are small beside a file's footer, which is read each time."""


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
    kept: KeptScores | None = None,
) -> Iterator[Block]:
    """Yield the window in blocks of about `BLOCK_S` rows with their scores; the graph carries its state across.

    A block's values are overwritten by the second one after it: an engine still reads the last second of the block
    before, nobody anything older.

    Args:
        others: further scorers by name, for engines that choose among several.
        look: is shown each block's first second and features, (T, N, F), before its scores, and keeps none of
            them, for the next block's lie in the same place; None: nobody looks.
        kept: gives the scores if it holds them, else keeps them for the next pass; None: this is the only one.
    """
    symbols, others = universe.symbols, others or {}
    scorers = (scorer, *others.values())
    names = ("", *others)  # the configured one may be called like one of the others
    n_blocks = max(1, round((end_s - start_s) / (block_s or BLOCK_S)))
    bounds = [start_s + round((end_s - start_s) * k / n_blocks) for k in range(n_blocks + 1)]
    known = kept if kept is not None and look is None and kept.holds(bounds, names) else None
    keeping = kept if known is None else None
    needs_features = known is None and any(one.needs_features for one in scorers)
    graph = FeatureGraph(FEATURES, symbols) if needs_features else None
    if keeping is not None:
        keeping.begin(bounds, names, len(symbols))

    def decode(first_s: int, end_s: int, some: tuple[str, ...], into: Mapping[str, Floats]) -> None:
        read.read_seconds(lake, source, first_s, end_s, some, into=into)

    rows = _Rows(decode, COLUMNS, symbols, end_s, SYMBOLS_AT_ONCE)
    if graph is not None:
        begin = start_s - graph.lookback
        graph.step(_columns(rows.read(begin, np.empty((len(COLUMNS), graph.lookback, len(symbols))))), begin)
    longest = max(end - begin for begin, end in pairwise(bounds))
    memory = [np.empty((len(COLUMNS), longest, len(symbols))) for _ in range(min(2, n_blocks))]
    # Used again: fresh memory costs a tenth of computing features.
    room = np.empty((longest, len(symbols), len(FEATURES)), np.float32) if graph is not None else None
    for k, (begin, end) in enumerate(pairwise(bounds)):
        values = rows.read(begin, memory[k % 2][:, : end - begin])
        if known is not None:
            said = known.read(begin, len(scorers))
        else:
            columns = _columns(values)
            out = room[: end - begin] if room is not None else None
            features = graph.step(columns, begin, out) if graph is not None else None
            if look is not None:
                look(begin, features)
            said = [one.score(features, columns, begin) for one in scorers]
            if keeping is not None:
                keeping.write(begin, said)
        yield Block(begin, values, said[0], dict(zip(others, said[1:], strict=True)))
    if keeping is not None:
        keeping.end(bounds, names)


def _columns(values: Floats) -> dict[str, Floats]:
    return dict(zip(COLUMNS, values, strict=True))


class _Rows:
    """Columns of the lake up to `end_s`, read forwards, every hour decoded once: its file lies by symbol, so that the
    quarter of it that is a block costs all of it.

    Args:
        decode: puts the columns of some symbols between two seconds into memory, column -> (N, T); raises TableEmpty
            where there are none.
        at_once: symbols that it is asked for: fewer take less memory, more read the file's footer less often.
    """

    def __init__(
        self,
        decode: Callable[[int, int, tuple[str, ...], Mapping[str, Floats]], None],
        columns: tuple[str, ...],
        symbols: tuple[str, ...],
        end_s: int,
        at_once: int,
    ) -> None:
        self._decode_some, self._columns, self._symbols, self._end_s = decode, columns, symbols, end_s
        self._at_once = at_once
        self._first_s = 0
        # From `_first_s` on, (C, N, T) as its file lies: to turn a block costs a third of turning symbols as they come.
        self._hour: Floats = np.empty((len(columns), len(symbols), 0))
        self._memory: Floats = np.empty(0)  # used again: the first touch of fresh memory costs half of decoding into it

    def read(self, begin_s: int, into: Floats) -> Floats:
        """Put the seconds from `begin_s` on into (C, T, N), NaN where none were recorded; return it."""
        at, end_s = begin_s, begin_s + into.shape[1]
        while at < end_s:
            if not self._first_s <= at < self._first_s + self._hour.shape[2]:
                self._decode(at)
            until = min(end_s, self._first_s + self._hour.shape[2])
            rows = self._hour[:, :, at - self._first_s : until - self._first_s]
            into[:, at - begin_s : until - begin_s] = rows.transpose(0, 2, 1)
            at = until
        return into

    def _decode(self, first_s: int) -> None:
        """Read the rest of an hour, some symbols at a time."""
        end_s = min((first_s // HOUR_S + 1) * HOUR_S, self._end_s)
        shape = (len(self._columns), len(self._symbols), end_s - first_s)
        if self._memory.size < math.prod(shape):
            self._memory = np.empty(math.prod(shape))
        self._first_s, self._hour = first_s, self._memory[: math.prod(shape)].reshape(shape)
        for n in range(0, len(self._symbols), self._at_once):
            some = slice(n, n + self._at_once)
            into = {name: self._hour[c, some] for c, name in enumerate(self._columns)}
            try:
                self._decode_some(first_s, end_s, self._symbols[some], into)
            except TableEmpty:
                for array in into.values():
                    array.fill(np.nan)


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


class Labelled:
    """The labels that the lake holds of a window, read forwards up to `end_s`."""

    def __init__(self, lake: Path, source: str, symbols: tuple[str, ...], end_s: int) -> None:
        self._lake, self._source, self._n_symbols = lake, source, len(symbols)
        self._rows = _Rows(self._decode, ("mid_bps", "label"), symbols, end_s, LABELLED_AT_ONCE)

    def of(self, first_second: int, n_seconds: int) -> Outcomes:
        """Return what followed the seconds of a block."""
        return Outcomes(*self._rows.read(first_second, np.empty((2, n_seconds, self._n_symbols))))

    def _decode(self, first_s: int, end_s: int, symbols: tuple[str, ...], into: Mapping[str, Floats]) -> None:
        frame = read.collect(
            read.scan(
                self._lake, "labels", self._source, start_s=first_s, end_s=end_s, symbols=symbols, is_sorted=False
            ).select("second", "symbol", "mid_bps", "label")
        )
        read.to_arrays(_filled(frame), first_s, end_s, symbols, into=into)


def outcomes_in(frame: pl.DataFrame, start_s: int, end_s: int, symbols: tuple[str, ...]) -> Outcomes:
    """Return labels in rows as arrays."""
    arrays = read.to_arrays(_filled(frame), start_s, end_s, symbols)
    return Outcomes(arrays["mid_bps"], arrays["label"])


def _filled(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select("second", "symbol", pl.col("mid_bps", "label").cast(pl.Float64).fill_null(np.nan))
