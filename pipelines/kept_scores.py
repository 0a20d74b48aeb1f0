"""Scores of a window, kept in files from one pass over it to the next.

A search over configurations passes over the same window many times, and what it asks for next depends on what came of
the pass before. Features and scores do not: they are written the first time, and later passes read them, bit for bit,
beside the seconds. A day of 600 symbols takes 2.2 GB a scorer in the folder for temporary files (TMPDIR); where half
of what is free there does not hold it, nothing is kept, and every pass computes anew.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from shared.strategy.scores import Scores

BYTES_A_SCORE = 42
"""Five numbers, a sign and a flag."""

FREE_SHARE_MAX = 0.5


class KeptScores:
    """Holds the scores of one window's blocks by one list of scorers; leaving the context removes them."""

    def __init__(self) -> None:
        self.computed = 0  # passes whose scores had to be computed
        self._folder = tempfile.TemporaryDirectory(prefix="crosscut-scores-")
        self._holds: tuple[Sequence[int], Sequence[str]] | None = None
        self._is_kept = False  # what is being computed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def holds(self, bounds: Sequence[int], names: Sequence[str]) -> bool:
        """Tell whether every block between these seconds is there, by each of these scorers in order."""
        return self._holds == (bounds, names)

    def begin(self, bounds: Sequence[int], names: Sequence[str], n_symbols: int) -> None:
        """Make room for a pass that computes; what was held before is given up."""
        self.computed += 1
        self._holds = None
        for path in Path(self._folder.name).iterdir():
            path.unlink()
        needed = (bounds[-1] - bounds[0]) * n_symbols * len(names) * BYTES_A_SCORE
        self._is_kept = needed <= FREE_SHARE_MAX * shutil.disk_usage(self._folder.name).free

    def write(self, first_second: int, each: Sequence[Scores]) -> None:
        """Keep a block of the pass; a disk that refuses ends the keeping, not the pass."""
        if not self._is_kept:
            return
        try:
            with self._path(first_second).open("wb") as file:
                for scores in each:
                    for name in Scores.__struct_fields__:
                        np.save(file, getattr(scores, name))
        except OSError:
            self._is_kept = False

    def end(self, bounds: Sequence[int], names: Sequence[str]) -> None:
        """Hold what was written since `begin`."""
        self._holds = (bounds, names) if self._is_kept else None

    def read(self, first_second: int, n_scorers: int) -> list[Scores]:
        """Return a block by each scorer."""
        with self._path(first_second).open("rb") as file:
            return [Scores(*(np.load(file) for _ in Scores.__struct_fields__)) for _ in range(n_scorers)]

    def _path(self, first_second: int) -> Path:
        return Path(self._folder.name) / str(first_second)
