"""A verdict for a terminal, for Dagster (Markdown) and for programs (JSON)."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from pipelines.gate.criteria import Verdict
from pipelines.tables import Table, table_of

_GREEN, _RED, _BOLD, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[1m", "\x1b[0m"


def sentence(verdict: Verdict) -> str:
    """Return in one sentence what the gate says."""
    what = f"model version {verdict.version} (trained on {verdict.source})"
    if verdict.passed:
        return f"{what} passed all {len(verdict.criteria)} criteria for the venue {verdict.venue}"
    failed = [criterion.name for criterion in verdict.criteria if not criterion.passed]
    return (
        f"{what} did not pass for the venue {verdict.venue}: {len(failed)} of {len(verdict.criteria)} criteria say no "
        f"({', '.join(failed)})"
    )


def as_text(verdict: Verdict, *, colours: bool) -> str:
    """Return the table for a terminal, a criterion a line, then the sentence."""
    width = max(len(criterion.name) for criterion in verdict.criteria)
    lines = []
    for criterion in verdict.criteria:
        mark = "yes" if criterion.passed else "NO "
        if colours:
            mark = f"{_GREEN if criterion.passed else _RED}{mark}{_PLAIN}"
        lines.append(f"{mark}  {criterion.name:<{width}}  {criterion.found}")
        if not criterion.passed:
            lines.append(f"     {'':<{width}}  must be {criterion.needed}")
    said = sentence(verdict)
    return "\n".join([*lines, f"{_BOLD}{said}{_PLAIN}" if colours else said])


def as_table(verdict: Verdict) -> Table:
    """Return the table in Markdown."""
    return table_of(
        {"": "yes" if c.passed else "**no**", "criterion": c.name, "found": c.found, "must_be": c.needed}
        for c in verdict.criteria
    )


def as_markdown(verdict: Verdict) -> str:
    """Return a page: the sentence, then the table."""
    return f"# {sentence(verdict)}\n\n{as_table(verdict).markdown}\n"


def as_json(verdict: Verdict) -> bytes:
    """Return everything a program may want; a figure that is not defined is null."""
    return msgspec.json.format(msgspec.json.encode(plain(verdict)), indent=2)


def plain(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict as plain values."""
    told: dict[str, Any] = msgspec.to_builtins(verdict)
    for criterion in told["criteria"]:
        if not math.isfinite(criterion["value"]):
            criterion["value"] = None
    return told | {"passed": verdict.passed, "reasons": list(verdict.reasons)}
