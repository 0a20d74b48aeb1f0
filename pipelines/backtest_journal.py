"""The journal of a backtest: what its engine was told in the first minutes, in the file that a live session writes.

A backtest computes features and scores in blocks and hands them to its engine. Live has no blocks: its engine is handed
a second and computes them itself. So whether the backtest trades what live would trade is asked of the journal: a fresh
engine is told the same seconds and events as live would be, and must want the same, byte for byte, while research
computes features and scores of these seconds once more in other blocks (`pipelines.parity`, as of a session).

The beginning is written because decisions depend on everything before them. Before it lie the seconds that filled the
features' memory, which the engine was not told of (`Header.warmed_until_s`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from pipelines.seconds import stored
from pipelines.venue_side import end_of
from shared import journal
from shared.features.catalog import FEATURES
from shared.features.graph import Features, definition_hash, formulas_of
from shared.features.sampler import COLUMNS
from shared.model import copy_bundle
from shared.strategy.engine import Engine, digest_of
from shared.types import NS, SCHEMA_VERSION, Action, Event, SecondClosed


class JournalPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Where a backtest notes what its engine is told, and how much of it."""

    folder: Path  # a new one
    seconds: int  # from the first on
    model: str  # a version, rules or coin
    bundle: journal.ModelNote | None = None  # None: rules and coin need none
    bundle_folder: Path | None = None
    commit: str


class BacktestJournal:
    """Notes what an engine of a backtest is told, until its seconds are over.

    Args:
        lake: holds the seconds before the first, which fill the features' memory.

    Raises:
        JournalError: it cannot be written.
    """

    def __init__(self, plan: JournalPlan, engine: Engine, *, lake: Path, source: str, start_s: int) -> None:
        self._engine = engine
        self._until_s = start_s + plan.seconds
        self._features: dict[int, str] = {}  # second -> digest of the features that its scores were made of
        self._is_over = False
        if plan.bundle is not None and plan.bundle_folder is not None:
            copy_bundle(plan.bundle_folder, plan.folder / plan.bundle.folder)
        header = journal.Header(
            schema_version=SCHEMA_VERSION,
            session=engine.session,
            source=source,
            started_ns=start_s * NS,
            model=plan.model,
            bundle=plan.bundle,
            seed=engine.seed,
            config=engine.config,
            memory=engine.memory,
            universe=engine.universe,
            columns=COLUMNS,
            definition_hash=definition_hash(FEATURES),
            formulas=formulas_of(FEATURES),
            warmed_until_s=0 if engine.graph is None else start_s,
            commit=plan.commit,
            numpy=np.__version__,
        )
        self._writer = journal.JournalWriter(plan.folder, header)
        if engine.graph is not None:
            begin_s = start_s - engine.graph.lookback
            before = stored(lake, source, begin_s, start_s, engine.symbols).columns
            values = np.stack([before[name] for name in COLUMNS])
            for t, second in enumerate(range(begin_s, start_s)):
                self._writer.add_event(SecondClosed(recv_ns=end_of(second), second=second, columns=values[:, t]))

    def look(self, first_second: int, features: Features | None) -> None:
        """See the features of a block, (T, N, F), before the engine is handed their scores."""
        if features is None or self._is_over:
            return
        for t in range(min(len(features), self._until_s - first_second)):
            self._features[first_second + t] = digest_of(features[t : t + 1])

    def note(self, event: Event, actions: Sequence[Action]) -> None:
        """Note what the engine was told and what it made of it, as live does."""
        if self._is_over:
            return
        self._writer.add_event(event)
        if not isinstance(event, SecondClosed):
            if actions:
                self._writer.add_decision(list(actions), {})
            return
        stages = self._engine.digests
        if event.second in self._features:
            stages["features"] = self._features.pop(event.second)
        if event.second % self._engine.config.decision_seconds:
            stages.pop("scores", None)  # live scores only the seconds in which it decides
        self._writer.add_decision(list(actions), stages)
        if event.second + 1 >= self._until_s:
            self.close()
        else:
            self._writer.commit(is_durable=False)

    def close(self) -> None:
        """End the journal; whatever comes afterwards is not noted."""
        if not self._is_over:
            self._is_over = True
            self._writer.close()
