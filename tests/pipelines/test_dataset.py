"""What a model may learn from: rows outside the gaps of coverage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipelines import features
from pipelines.dataset import build_dataset
from shared.errors import SchemaMismatch
from shared.labels import Rule
from shared.lake import read, write
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

    touched = range(minute * MINUTE_S - whole.rule.reach_s, (minute + 1) * MINUTE_S + whole.lookback_s)
    assert seen(whole) - seen(left) == {(symbol, s) for symbol, s in seen(whole) if symbol == gone and s in touched}
    assert seen(left) <= seen(whole)
    assert len(seen(whole) - seen(left)) > 60
    assert left.content_hash != whole.content_hash


def test_a_window_asked_for_by_its_ends_is_the_same_dataset(tmp_path: Path) -> None:
    """What lies outside the first and last row, gaps included, is no part of the hash that pins a dataset."""
    start, _ = write_lake(tmp_path)
    before = start // MINUTE_S - 5
    rows = [(before, "S00USDT", "book", "gap", "not_linked")]
    frame = pl.DataFrame(rows, schema=dict(TABLES["coverage"].columns), orient="row")
    write.write_table(tmp_path, "coverage", SOURCE, before // 60, frame, {})
    whole = build_dataset(tmp_path, SOURCE)

    again = build_dataset(tmp_path, SOURCE, start_s=whole.start_s, end_s=whole.end_s)

    assert again.content_hash == whole.content_hash
    assert np.array_equal(again.features, whole.features, equal_nan=True)


def test_features_in_a_file_are_the_features_in_memory(tmp_path: Path) -> None:
    """A dataset larger than its share of memory lies in a mapped file, row for row the same."""
    write_lake(tmp_path)
    whole = build_dataset(tmp_path, SOURCE)

    mapped = build_dataset(tmp_path, SOURCE, memory_bytes=1000)

    assert isinstance(mapped.features.base, np.memmap) or isinstance(mapped.features, np.memmap)
    assert not isinstance(whole.features, np.memmap)
    assert np.array_equal(mapped.features, whole.features, equal_nan=True)
    assert np.array_equal(mapped.label, whole.label)
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_features_are_the_same_bytes_wherever_they_lay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour of features that was worked in a file is stored as the one that was worked in memory."""
    write_lake(tmp_path)
    hour = read.hours(tmp_path, "features", SOURCE)[0]
    before = read.content_hash(tmp_path, "features", SOURCE, [hour])
    monkeypatch.setattr(features, "MEMORY_BYTES", 1000)

    features.write_features(tmp_path, SOURCE, hour)

    assert read.content_hash(tmp_path, "features", SOURCE, [hour]) == before
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_labels_of_another_rule_are_refused(tmp_path: Path) -> None:
    """Labels that look further than the split knows would leak: the rule they were made by must be the one asked for."""
    write_lake(tmp_path)

    with pytest.raises(SchemaMismatch, match=r"must be made by .*'horizon_s': 30.*found .*'horizon_s': 10"):
        build_dataset(tmp_path, SOURCE, rule=Rule(horizon_s=30))
