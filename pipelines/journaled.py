"""A session's seconds by the code of research: its journal read again, features and scores in whole blocks.

What live was shown and what it made of it lies in the journal; what research makes of the same seconds is computed
here, for whoever compares (`pipelines.parity`) or looks at live's features (`pipelines.drift`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shared import journal
from shared.errors import JournalError, ModelError, SettingsError
from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph, Features, lookback_of
from shared.features.sampler import COLUMNS
from shared.replay import alternatives_of, make_scorer
from shared.strategy.scores import Scorer, Scores
from shared.types import Floats, SecondClosed

BLOCK_S = 600
"""Seconds that are computed at once: 600 MB of 600 symbols, the recorder's beside them included."""


class Journaled(NamedTuple):
    """One second as the journal has it."""

    second: int
    columns: Floats  # (C, N)
    stages: dict[str, str] | None  # digests of what live made of it; None: the record is not there
    is_as_written: bool | None  # does the running hash agree; None as above


class Block(NamedTuple):
    """Consecutive seconds with what research makes of them."""

    first_second: int
    journaled: list[Journaled]
    values: Floats  # (C, T, N)
    features: Features | None  # (T, N, F); None: the session needed none
    scores: tuple[Scores, ...]  # (T, N) of each variant that live may have scored with; (): there is no scorer


class Recomputing:
    """A session's seconds, block by block, by the code of research.

    Args:
        start_s, end_s: what to return; the blocks begin `lookback` seconds earlier, as every hour of the lake does.
        with_scores: False computes features, whatever the session scored with.

    Raises:
        JournalError: it cannot be read, or has other columns than this code.
    """

    def __init__(
        self, folder: Path, start_s: int | None = None, end_s: int | None = None, *, with_scores: bool = True
    ) -> None:
        self.folder = folder
        self.reader = journal.JournalReader(folder / journal.FILE_NAME)
        self._records = iter(self.reader)
        first = next(self._records)
        self.header: journal.Header = first.value
        if self.header.columns != COLUMNS:
            raise JournalError(
                f"journal of {self.header.session} must have this code's columns, found others: check out commit "
                f"{self.header.commit}"
            )
        self._inputs = journal.InputDigest()
        self._inputs.add(first.kind, first.body)
        self.symbols = self.header.universe.symbols
        self.trouble: str | None = None  # why there are no scores
        self.scorers: tuple[Scorer, ...] = ()
        try:
            self.scorers = self._make_scorers() if with_scores else ()
        except (ModelError, SettingsError) as error:
            self.trouble = f"scores cannot be computed again: {error}"
        needs_features = not self.scorers or any(scorer.needs_features for scorer in self.scorers)
        self.graph = FeatureGraph(FEATURES, self.symbols) if needs_features else None
        # What only fills the features' memory is read, and is no second of the session.
        self.start_s = max(start_s or 0, self.header.warmed_until_s) or None
        self.end_s = end_s
        self.is_at_end = False  # the file was read to its end

    def _make_scorers(self) -> tuple[Scorer, ...]:
        header = self.header
        main = make_scorer(header.model, header.seed, header.universe, self.folder, header.bundle)
        return main, *alternatives_of(header.config)

    def seconds(self) -> Iterator[Journaled]:
        """Yield the seconds, each with the decision that follows it.

        Raises:
            JournalDamaged: a record is not what was written; what came before it was yielded.
        """
        begin_s = None if self.start_s is None else self.start_s - lookback_of(FEATURES)
        waiting: SecondClosed | None = None
        for record in self._records:
            if record.kind in (journal.SECOND, journal.EVENT):
                if waiting is not None:
                    yield Journaled(waiting.second, _block(waiting), None, None)
                    waiting = None
                self._inputs.add(record.kind, record.body)
                if record.kind == journal.SECOND:
                    if self.end_s is not None and record.value.second >= self.end_s:
                        return
                    if begin_s is None or record.value.second >= begin_s:
                        waiting = record.value
            elif record.kind == journal.DECISION and waiting is not None:
                decision = record.value
                is_as_written = decision.inputs == self._inputs.value()
                yield Journaled(waiting.second, _block(waiting), decision.stages, is_as_written)
                waiting = None
        if waiting is not None:
            yield Journaled(waiting.second, _block(waiting), None, None)
        self.is_at_end = True

    def blocks(self) -> Iterator[Block]:
        """Yield the seconds with features and scores.

        Raises:
            JournalDamaged: as `seconds`, after the last whole block.
        """
        held: list[Journaled] = []
        damage: journal.JournalDamaged | None = None
        seconds = self.seconds()
        while True:
            try:
                found = next(seconds, None)
            except journal.JournalDamaged as error:
                found, damage = None, error
            if held and (found is None or found.second != held[-1].second + 1 or len(held) >= BLOCK_S):
                yield self._computed(held)
                held = []
            if found is None:
                break
            held.append(found)
        if damage is not None:
            raise damage

    def _computed(self, held: list[Journaled]) -> Block:
        first = held[0].second
        values = np.stack([one.columns for one in held], axis=1)
        columns = dict(zip(COLUMNS, values, strict=True))
        features = self.graph.step(columns, first) if self.graph is not None else None
        scores = tuple(scorer.score(features, columns, first) for scorer in self.scorers)
        skip = 0 if self.start_s is None else max(0, min(len(held), self.start_s - first))
        if skip:
            values, held = values[:, skip:], held[skip:]
            features = None if features is None else features[skip:]
            scores = tuple(one.row(slice(skip, None)) for one in scores)
        return Block(first + skip, held, values, features, scores)


def _block(event: SecondClosed) -> Floats:
    columns: Floats = event.columns
    return columns


def as_live(work: Recomputing, second: int) -> tuple[Features | None, tuple[Scores, ...]]:
    """Return one second's features and scores, computed as live does: row by row, from `lookback` s before it."""
    again = Recomputing(work.folder, second, second + 1)
    for one in again.seconds():
        row = dict(zip(COLUMNS, one.columns[:, None, :], strict=True))
        features = again.graph.step(row, one.second) if again.graph is not None else None
        if one.second == second:
            scores = tuple(scorer.score(features, row, second).row(0) for scorer in again.scorers)
            return None if features is None else features[0], scores
    raise AssertionError(f"second {second} was read, and is not there")
