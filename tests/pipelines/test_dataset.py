"""What a model may learn from: rows outside the gaps of coverage."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pipelines.dataset import build_dataset
from shared.lake import write
from shared.lake.layout import MINUTE_S, TABLES
from tests.pipelines.markets import SOURCE, write_lake


def seen(dataset: object) -> set[tuple[str, int]]:
    symbols = dataset.symbols  # type: ignore[attr-defined]
    columns = dataset.symbol.tolist(), dataset.second.tolist()  # type: ignore[attr-defined]
    return {(symbols[n], second) for n, second in zip(*columns, strict=True)}


def test_rows_that_saw_a_gap_or_end_in_one_teach_nothing(tmp_path: Path) -> None:
    """A gap of one channel in one minute takes exactly the rows of its symbol whose past or outcome touches it; other
    states take none; the dataset's hash tells that it is another."""
    start, end = write_lake(tmp_path)
    whole = build_dataset(tmp_path, SOURCE)
    gone, silent = whole.symbols[0], whole.symbols[1]
    minute = (start + end) // 2 // MINUTE_S
    rows = [
        (minute, gone, "book", "gap", "silence"),
        (minute, gone, "trade", "complete", ""),
        (minute, silent, "book", "stale", "silent"),
        (minute + 1, silent, "book", "complete", ""),
    ]
    frame = pl.DataFrame(rows, schema=dict(TABLES["coverage"].columns), orient="row")
    for hour in {minute // 60, (minute + 1) // 60}:
        own = frame.filter(pl.col("minute") // 60 == hour)
        write.write_table(tmp_path, "coverage", SOURCE, hour, own, {})

    left = build_dataset(tmp_path, SOURCE)

    touched = range(minute * MINUTE_S - whole.horizon_s, (minute + 1) * MINUTE_S + whole.lookback_s)
    assert seen(whole) - seen(left) == {(symbol, s) for symbol, s in seen(whole) if symbol == gone and s in touched}
    assert seen(left) <= seen(whole)
    assert len(seen(whole) - seen(left)) > 60
    assert left.content_hash != whole.content_hash
