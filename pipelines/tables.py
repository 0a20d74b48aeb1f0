"""Small tables for a person to read, as Markdown: in Dagster's metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import polars as pl


class Table(NamedTuple):
    """A few rows; `pipelines.assets.shown` makes Dagster's metadata of it."""

    markdown: str


def table_of(rows: pl.DataFrame | Iterable[Mapping[str, Any]]) -> Table:
    """Return rows as a table in Markdown; "none" where there are none."""
    listed = list(rows.iter_rows(named=True) if isinstance(rows, pl.DataFrame) else rows)
    if not listed:
        return Table("none")
    lines = ["| " + " | ".join(name.replace("_", " ") for name in listed[0]) + " |", "|" + " --- |" * len(listed[0])]
    lines += ["| " + " | ".join(_cell(value) for value in row.values()) + " |" for row in listed]
    return Table("\n".join(lines))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")
