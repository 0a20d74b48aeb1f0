"""What a report says of a result that does not follow from its figures: who compared, what was recorded and tried.

Computed when the report is made, kept inside it (`pipelines.provenance`), and shown again as it was by `verify`.
"""

from __future__ import annotations

import enum
import math

import msgspec


class ParityVerdict(enum.StrEnum):
    NOT_CHECKED = "not checked"
    IDENTICAL = "identical"
    DIFFERS = "differs"


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """Whether research and trading computed the same, and who says so."""

    verdict: ParityVerdict = ParityVerdict.NOT_CHECKED
    sentence: str = "Nobody has compared yet what live computes with what research computes on the same seconds."
    decisions: int = 0  # that a fresh engine made again, byte for byte
    mismatches: int = 0  # seconds of a stage that differ, or cannot be compared
    command: str = ""  # compares again; "": there is nothing to compare

    @property
    def badge(self) -> str:
        """Return it in few words."""
        if self.verdict is ParityVerdict.NOT_CHECKED:
            return "parity: not checked"
        n = f"{self.mismatches:,} mismatch{'' if self.mismatches == 1 else 'es'}"
        if self.verdict is ParityVerdict.DIFFERS:
            return f"parity: differs, {n}"
        return f"parity: checked, {self.decisions:,} decisions, {n}"


NOT_CHECKED = Parity()


class ChannelCoverage(msgspec.Struct, frozen=True):
    """How much of a channel was recorded in the window, in `Told.coverage_unit`."""

    channel: str
    complete: int
    gap: int
    stale: int

    @property
    def share(self) -> float:
        """Return the complete share of what was listed [1]; NaN where nothing was."""
        total = self.complete + self.gap + self.stale
        return self.complete / total if total else math.nan


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, of one report."""

    run: str  # of MLflow, the name of a session; what trades.csv calls it
    training: dict[str, float | None] = {}  # figures of the model's training run; {}: nothing was learnt
    lineage: dict[str, str] = {}  # where it comes from, in order
    trials: tuple[str, ...] = ()  # what was tried before, and what the result is worth after it
    coverage: tuple[ChannelCoverage, ...] | None = None  # None: nobody judged it
    coverage_unit: str = "symbol-minutes"
    parity: Parity = NOT_CHECKED
    not_simulated: str = ""
