"""The rows that a model learns from, and which of them: arrays, no files.

Rows are sorted by (second, symbol), so that a span of time is a slice. Features may be an array in memory or a mapped
file (`pipelines.dataset`): whoever reads many of them takes them piece by piece.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipelines.evidence import held_out_symbols
from pipelines.validation import Span
from shared.labels import Rule
from shared.types import Floats, Ints

PIECE_ROWS = 65_536
"""Rows read at once: 30 MB of a hundred features."""


CLOCKS_S = {"day_sin": 86_400, "day_cos": 86_400, "funding_clock_8h": 28_800}
"""Features that tell the time -> their period. Until they have come round twice, a value of theirs is the name of one
stretch of the window: what was learnt at it is about that stretch, and comes back in none."""


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """Every labelled row of a window, sorted by (second, symbol)."""

    source: str
    symbols: tuple[str, ...]
    feature_names: tuple[str, ...]
    absent: tuple[str, ...]  # features that the source never had before the holdout: NaN, and not required
    definition_hash: str
    rule: Rule  # of the labels
    lookback_s: int
    second: Ints  # (R,)
    symbol: NDArray[np.int32]  # (R,) position in `symbols`
    features: NDArray[np.float32]  # (R, F); NaN in the columns of `absent` alone
    label: NDArray[np.int8]  # (R,) position in CLASSES
    mid_bps: Floats  # (R,) gross return of the mid over the horizon
    moves_bps: NDArray[np.float32]  # (R, H) the same over each of labels.HORIZONS_S; NaN where it is not known
    start_s: int  # the window asked for, [start_s, end_s)
    end_s: int
    content_hash: str  # of the lake's files that it was read from
    missing: tuple[float, ...] = ()  # (F,) share of the labelled rows before the holdout without it; (): not known

    @property
    def rows(self) -> int:
        return len(self.second)

    @property
    def horizon_s(self) -> int:
        return self.rule.horizon_s

    @property
    def held_out(self) -> tuple[str, ...]:
        """Return the symbols that nothing is learnt from."""
        return tuple(sorted(held_out_symbols(self.symbols)))

    def of(self, span: Span) -> slice:
        """Return the rows of a span."""
        begin, end = np.searchsorted(self.second, [span.start_s, max(span.start_s, span.end_s)])
        return slice(int(begin), int(end))

    def learnable(self, span: Span) -> Ints:
        """Return the positions of a span's rows that a model may learn from: held-out symbols are not among them."""
        rows = self.of(span)
        held = np.isin(self.symbols, self.held_out)
        return np.asarray(rows.start + np.flatnonzero(~held[self.symbol[rows]]))

    def unlearnable(self, span: Span) -> tuple[str, ...]:
        """Return the features that a fit on a span must not look at: clocks that it has not seen come round twice."""
        return tuple(name for name in self.feature_names if name in CLOCKS_S and span.seconds < 2 * CLOCKS_S[name])

    def column(self, name: str, rows: slice | Ints) -> Floats:
        """Return one feature of some rows."""
        return np.asarray(self.features[rows, self.feature_names.index(name)], np.float64)


def pieces(rows: Ints) -> Iterator[Ints]:
    """Yield positions in pieces that fit in memory."""
    for start in range(0, len(rows), PIECE_ROWS):
        yield rows[start : start + PIECE_ROWS]


def positions(rows: slice) -> Ints:
    """Return a slice as positions."""
    return np.arange(rows.start, rows.stop)
