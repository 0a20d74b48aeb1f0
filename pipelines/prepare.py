"""Bring seconds, features and labels of a source up to date with its raw tables, without Dagster.

An hour is computed again where it is missing or where its footer names other inputs than there are now; what is
current is left alone, so that a second call costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipelines.features import inputs_of_features, inputs_of_labels, write_features, write_labels
from pipelines.seconds import inputs_of_seconds, is_current, write_seconds
from shared.errors import TableEmpty
from shared.lake import read
from shared.lake.layout import hour_name


def prepare(
    lake: Path, source: str, *, slippage_bps: float, on_progress: Callable[[str], None] = lambda line: None
) -> list[tuple[str, int]]:
    """Compute what is missing or out of date and return it as (table, epoch hour).

    Raises:
        TableEmpty: the source has neither raw rows nor seconds.
    """
    done: list[tuple[str, int]] = []

    def made(table: str, hour: int, rows: int) -> None:
        done.append((table, hour))
        on_progress(f"{table} {hour_name(hour)}: {rows:,} rows")

    for hour in read.hours(lake, "raw/book", source):
        if not is_current(lake, "seconds", source, hour, inputs_of_seconds(lake, source, hour)):
            made("seconds", hour, len(write_seconds(lake, source, hour)))
    hours = read.hours(lake, "seconds", source)
    if not hours:
        raise TableEmpty(
            f"raw rows of {source} are needed in {lake}, found none: "
            "run python -m pipelines.generate or python -m pipelines.collect first"
        )
    for hour in hours:
        if not is_current(lake, "features", source, hour, inputs_of_features(lake, source, hour)):
            made("features", hour, len(write_features(lake, source, hour)))
    for hour in hours:
        if not is_current(
            lake, "labels", source, hour, inputs_of_labels(lake, source, hour, slippage_bps=slippage_bps)
        ):
            made("labels", hour, len(write_labels(lake, source, hour, slippage_bps=slippage_bps)))
    return done
