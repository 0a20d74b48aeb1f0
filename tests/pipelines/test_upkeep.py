"""History and retention as assets: what they ask for, what they say, and when they leave well alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import pipelines.history
from pipelines.definitions import defs
from pipelines.filling import Filled
from pipelines.upkeep import HISTORY
from shared.errors import NotEnoughData
from shared.lake import read
from tests.pipelines.markets import HOUR, SOURCE, write_lake


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def run(instance: dg.DagsterInstance, job: str, lake: Path, **ops: Any) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def(job).execute_in_process(
        instance=instance,
        run_config={
            "resources": {"lake": {"config": {"uri": str(lake), "source": SOURCE}}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            "ops": ops,
        },
        raise_on_error=False,
    )


def materializations(result: dg.ExecuteInProcessResult) -> list[dg.AssetMaterialization]:
    return [event.materialization for event in result.get_asset_materialization_events()]


def test_history_of_the_embedded_simulator_is_skipped(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nobody to ask: each recorder starts a simulator of its own."""
    for name in ("MARKET", "BITGET_REST_URL", "BITGET_WS_URL"):
        monkeypatch.delenv(name, raising=False)

    result = run(instance, "history", tmp_path)

    assert result.success
    told = [event.asset_observation_data.asset_observation for event in result.get_asset_observation_events()]
    assert {one.asset_key.to_user_string() for one in told} == set(HISTORY)
    assert all("MARKET=bitget" in str(one.metadata["skipped"].value) for one in told)


def test_history_tells_what_each_table_got(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, requests and what is missing; the launchpad's hours fill back; a shortfall fails in its own words."""
    asked: list[float | None] = []

    async def fetch(rest_url: str, lake: Path, source: str, *, hours: float | None, **_: Any) -> list[Filled]:
        asked.append(hours)
        if hours is not None:
            raise NotEnoughData("24 h of candles of BTCUSDT are needed, found 23: ask for less")
        return [Filled(table=table, rows=n, symbols=2, missing={"BTCUSDT": n}) for n, table in enumerate(HISTORY)]

    monkeypatch.setattr(pipelines.history, "fetch", fetch)
    monkeypatch.setenv("MARKET", "bitget")

    new = run(instance, "history", tmp_path)
    back = run(instance, "history", tmp_path, ask_history={"config": {"hours": 24.0}})

    made = {one.asset_key.to_user_string(): one for one in materializations(new)}
    assert {name: (one.metadata["rows"].value, one.metadata["missing"].value) for name, one in made.items()} == {
        name: (n, n) for n, name in enumerate(HISTORY)
    }
    assert asked == [None, 24.0]
    assert not back.success
    failure = next(event for event in back.all_events if event.is_step_failure)
    assert failure.step_failure_data.user_failure_data is not None
    assert "found 23" in str(failure.step_failure_data.user_failure_data.description)


@pytest.mark.parametrize(("rules", "kept"), [("", [HOUR, HOUR + 1]), ("labels=3h!", [HOUR, HOUR + 1])])
def test_retention_says_what_it_kept(
    rules: str, kept: list[int], instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without rules nothing goes, and the newest hours never do."""
    write_lake(tmp_path, rows=60, n_symbols=2)
    monkeypatch.setenv("RETENTION", rules)

    result = run(instance, "retain", tmp_path)

    (told,) = materializations(result)
    assert told.metadata["bytes_removed"].value == 0
    assert told.metadata["rules"].value == (rules or "none: everything is kept")
    assert read.hours(tmp_path, "labels", SOURCE) == kept
