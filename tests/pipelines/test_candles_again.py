"""Candles that come late: the coverage of their hour is asked for again, once, and then knows better."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from pipelines.definitions import defs, follow_candles
from pipelines.partitions import key_of
from pipelines.resources import LakeResource
from shared.lake import coverage, read, write
from shared.lake.layout import TABLES
from shared.types import NS, TickEvent
from tests.shared.lake import receipts as r
from tests.shared.lake.test_coverage import candles, covered, in_order
from tests.shared.lake.test_wal import START_NS


def looked(lake: Path) -> list[dg.RunRequest]:
    """Evaluate the sensor as the daemon does."""
    resources = {"lake": LakeResource(uri=str(lake), source=r.SOURCE)}
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance, resources=resources, repository_def=defs.get_repository_def())
        return list(follow_candles.evaluate_tick(context).run_requests or [])


def test_hour_is_judged_again_when_its_candles_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_URI", str(tmp_path))
    ticks = in_order(r.concat([r.links(TickEvent.SUBSCRIBED, START_NS), r.receipts(3, START_NS, START_NS + 301 * NS)]))
    covered(tmp_path, ticks, 301)
    coverage.write_coverage(tmp_path, r.SOURCE, r.HOUR)
    assert looked(tmp_path) == []

    candles(tmp_path, ticks, range(1, 5), {(0, 2): 50.0})
    (asked,) = looked(tmp_path)
    assert asked.partition_key == key_of(r.HOUR)
    assert looked(tmp_path)[0].run_key == asked.run_key  # the daemon starts a key once

    done = defs.resolve_job_def("judge").execute_in_process(
        partition_key=asked.partition_key,
        resources={"lake": LakeResource(uri=str(tmp_path), source=r.SOURCE)},
        raise_on_error=False,
    )
    (red,) = [check for check in done.get_asset_check_evaluations() if check.blocking and not check.passed]
    assert red.check_name == "coverage_share"  # a minute of five is missing: the hour is no clean one any more
    marked = read.collect(read.scan(tmp_path, "coverage", r.SOURCE).filter(pl.col("reason") == "volume"))
    assert marked.select("symbol", "channel", "minute").rows() == [(r.SYMBOLS[0], "trade", r.HOUR * 60 + 2)]
    assert looked(tmp_path) == []

    # More candles of the same hour are another reason.
    row = (r.HOUR * 60 + 30, r.SYMBOLS[0], 1.0, 1.0, 1.0, 1.0, 0.0, 0.0)
    frame = pl.DataFrame([row], schema=dict(TABLES["candles"].columns), orient="row")
    write.add_rows(tmp_path, "candles", r.SOURCE, r.HOUR, frame, {})
    (again,) = looked(tmp_path)
    assert again.run_key != asked.run_key
