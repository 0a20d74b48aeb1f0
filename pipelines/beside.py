"""Live's seconds beside the recorder's: other sockets, other receipts. Counted and told, never asserted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pipelines.journaled import Block
from pipelines.seconds import says_something
from shared.errors import TableEmpty
from shared.features.sampler import COLUMNS
from shared.lake import read
from shared.lake.layout import HOUR_S
from shared.types import Floats, Ints

_WORST = 3


class Beside(msgspec.Struct, frozen=True):
    """One column of live's seconds beside the recorder's, in cells (symbol-seconds)."""

    column: str
    cells: int  # known to one of them at least
    mismatched: int  # known to both, and not the same bits
    missing: int  # known to live alone
    extra: int  # known to the recorder alone
    worst: tuple[str, ...]  # symbols with the most of these, most first

    @property
    def share(self) -> float:
        """Return the share of cells that differ in some way [1]."""
        return (self.mismatched + self.missing + self.extra) / self.cells if self.cells else 0.0


class Recorder:
    """Counts how the recorder's seconds differ from live's."""

    def __init__(self, lake: Path, source: str, symbols: tuple[str, ...]) -> None:
        self._lake, self._source, self._symbols = lake, source, symbols
        shape = (len(COLUMNS), len(symbols))
        self._cells, self._mismatched, self._missing, self._extra = (np.zeros(shape, np.int64) for _ in range(4))
        self._has_any = False

    def take(self, block: Block) -> None:
        first, n_seconds = block.first_second, block.values.shape[1]
        # By the hour: of one that was never sampled nothing is said, which is not the same as nothing being there.
        for hour in range(first // HOUR_S, (first + n_seconds - 1) // HOUR_S + 1):
            begin, end = max(first, hour * HOUR_S), min(first + n_seconds, (hour + 1) * HOUR_S)
            if hour not in read.hours(self._lake, "seconds", self._source):
                continue
            try:
                theirs = read.read_seconds(self._lake, self._source, begin, end, self._symbols).columns
            except TableEmpty:
                continue
            self._has_any = True
            for c, name in enumerate(COLUMNS):
                self._count(c, block.values[c, begin - first : end - first], theirs[name])

    def _count(self, c: int, ours: Floats, theirs: Floats) -> None:
        knows, they_know = (says_something(COLUMNS[c], values) for values in (ours, theirs))
        self._cells[c] += (knows | they_know).sum(axis=0)
        self._mismatched[c] += (knows & they_know & (ours != theirs)).sum(axis=0)
        self._missing[c] += (knows & ~they_know).sum(axis=0)
        self._extra[c] += (~knows & they_know).sum(axis=0)

    def found(self) -> tuple[Beside, ...] | None:
        if not self._has_any:
            return None
        return tuple(
            Beside(
                name,
                cells=int(self._cells[c].sum()),
                mismatched=int(self._mismatched[c].sum()),
                missing=int(self._missing[c].sum()),
                extra=int(self._extra[c].sum()),
                worst=self._worst(self._mismatched[c] + self._missing[c] + self._extra[c]),
            )
            for c, name in enumerate(COLUMNS)
        )

    def _worst(self, differing: Ints) -> tuple[str, ...]:
        order = np.argsort(-differing, kind="stable")[:_WORST]
        return tuple(self._symbols[n] for n in order if differing[n])


def beside_rows(found: Sequence[Beside]) -> list[dict[str, Any]]:
    """Return the columns in which the recorder differs, most first, for a table."""
    differing = sorted((one for one in found if one.share), key=lambda one: (-one.share, one.column))
    return [
        {
            "column": one.column,
            "cells": one.cells,
            "mismatched": one.mismatched,
            "missing": one.missing,
            "extra": one.extra,
            "share": one.share,
            "worst": " ".join(one.worst),
        }
        for one in differing
    ]
