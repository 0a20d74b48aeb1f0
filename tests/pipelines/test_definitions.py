"""Dagster: what loads, what runs, what is skipped with a reason, and what fails in one sentence."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from pipelines import verdicts
from pipelines.definitions import defs, hour_at, learn_daily, prepare_hourly, record_hourly
from pipelines.drive import AssetFailed, materialise, summary
from pipelines.partitions import HOURLY, hour_of, key_of
from pipelines.resources import SIMULATOR_SOURCE, LakeResource, prepare_dagster_home
from shared import journal
from shared.errors import SettingsError
from shared.lake import read, write
from shared.lake.layout import HOUR_S
from shared.types import NS
from tests.conftest import ROOT
from tests.live.sessions import Rig, rewrite
from tests.pipelines.conftest import SYMBOLS, DrivenWorld, World
from tests.pipelines.markets import HOUR, SOURCE, write_lake

SCHEDULES = (record_hourly, prepare_hourly, learn_daily)


def test_definitions_load() -> None:
    """Assets, checks, jobs, schedules and resources fit together."""
    dg.Definitions.validate_loadable(defs)


def test_location_is_called_as_the_project() -> None:
    """Switches of schedules hang on the location's name: it is the project's in `dagster dev` as in `dg dev`."""
    workspace = dict(re.findall(r"(\w+): (\S+)$", (ROOT / "workspace.yaml").read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert workspace["location_name"] == project["project"]["name"]
    assert workspace["module_name"] == project["tool"]["dg"]["project"]["code_location_target_module"]


def test_instance_template_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster takes deploy/dagster.yaml, with telemetry off, and it is copied once, never over a person's own."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))

    home = prepare_dagster_home()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert not instance.telemetry_enabled
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")

    assert (prepare_dagster_home() / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"


def test_relative_home_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """DAGSTER_HOME must be absolute, and the sentence says so before Dagster's traceback does."""
    monkeypatch.setenv("DAGSTER_HOME", "somewhere")

    with pytest.raises(SettingsError, match="must be an absolute path"):
        prepare_dagster_home()


def test_partition_keys_are_hours_utc() -> None:
    """Keys and epoch hours are each other's inverse, and the next hour is a partition already."""
    assert hour_of("2026-11-22-08:00") == 498704
    assert key_of(498704) == "2026-11-22-08:00"
    keys = HOURLY.get_partition_keys(current_time=dt.datetime(2026, 11, 22, 8, 30, tzinfo=dt.UTC))
    assert keys[-1] == "2026-11-22-09:00"


def test_schedules_are_stopped_until_switched_on() -> None:
    """A fresh clone does nothing by itself."""
    schedules = defs.get_repository_def().schedule_defs

    assert {schedule.name for schedule in SCHEDULES} | {"history_hourly", "retention_daily"} == {
        schedule.name for schedule in schedules
    }
    assert all(schedule.default_status is dg.DefaultScheduleStatus.STOPPED for schedule in schedules)


def tick(schedule: Any, lake: Path) -> dg.RunRequest | dg.SkipReason:
    """Evaluate a schedule as the daemon does, at minute 3 of the hour after the world's last."""
    at = dt.datetime.fromtimestamp((HOUR + 2) * 3600 + 180, dt.UTC)
    resources = {"lake": LakeResource(uri=str(lake), source=SOURCE)} if schedule.required_resource_keys else {}
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(
            instance, scheduled_execution_time=at, resources=resources, repository_def=defs.get_repository_def()
        )
        assert hour_at(context) == HOUR + 2
        data = schedule.evaluate_tick(context)
        return data.run_requests[0] if data.run_requests else dg.SkipReason(data.skip_message)


def test_all_schedules_tick_over_an_empty_lake(tmp_path: Path) -> None:
    """With nothing recorded, recording is asked for the next hour and the others say why they skip."""
    recording, preparing, learning = (tick(schedule, tmp_path) for schedule in SCHEDULES)

    assert isinstance(recording, dg.RunRequest)
    assert recording.partition_key == key_of(HOUR + 3)
    assert isinstance(preparing, dg.SkipReason)
    assert "nobody recorded" in str(preparing.skip_message)
    assert isinstance(learning, dg.SkipReason)
    assert "no hour" in str(learning.skip_message)


def test_learning_is_asked_for_once_there_are_labels(tmp_path: Path) -> None:
    """With labelled hours in the lake the daily training runs."""
    write_lake(tmp_path, rows=60, n_symbols=2)

    assert isinstance(tick(learn_daily, tmp_path), dg.RunRequest)


def run(
    job: str,
    lake: Path,
    source: str,
    tmp_path: Path,
    *,
    assets: Sequence[str] = (),
    partition_key: str | None = None,
    tags: dict[str, str] | None = None,
    raw_ticks: dict[str, Any] | None = None,
    tracking_uri: str | None = None,
) -> Any:
    tmp_path.mkdir()
    asks_mlflow = job == "learn" or not assets or "features" in assets
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        return defs.resolve_job_def(job).execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(asset) for asset in assets] or None,
            partition_key=partition_key,
            tags=tags,
            run_config={
                "resources": {
                    "lake": {"config": {"uri": str(lake), "source": source}},
                    **(
                        {"tracking": {"config": {"uri": tracking_uri or f"sqlite:///{tmp_path}/mlflow.db"}}}
                        if asks_mlflow
                        else {}
                    ),
                },
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                "ops": {"raw_ticks": {"config": raw_ticks}} if raw_ticks else {},
            },
            raise_on_error=False,
        )


def test_hour_that_nobody_records_is_recorded_from_the_embedded_simulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Materialising the current hour of an empty lake starts a recorder, and its seconds are there afterwards."""
    for name in ("MARKET", "BITGET_REST_URL", "BITGET_WS_URL"):
        monkeypatch.delenv(name, raising=False)
    hour = (int(dt.datetime.now(dt.UTC).timestamp()) + 20) // 3600  # the next one, if this is about to end

    result = run(
        "prepare",
        tmp_path / "lake",
        SIMULATOR_SOURCE,
        tmp_path / "home",
        partition_key=key_of(hour),
        raw_ticks={"seconds_max": 3.0},
    )

    made = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}
    assert result.success
    assert made == {"raw_ticks", "universe", "coverage", "seconds", "features", "labels"}
    checked = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert all(checked[name] for name in ("crossed_books", "duplicate_trades", "unknown_payloads", "clock_skew"))


@pytest.mark.parametrize(
    ("job", "assets", "key"),
    [
        ("prepare", (), key_of(HOUR)),
        ("prepare", ("seconds",), key_of(HOUR)),
        ("prepare", ("features", "labels"), key_of(HOUR)),
        ("learn", (), None),
    ],
)
def test_run_without_data_ends_well(job: str, assets: tuple[str, ...], key: str | None, tmp_path: Path) -> None:
    """Every job over an empty lake succeeds: its first asset is skipped with the reason, and so is all after it."""
    result = run(job, tmp_path / "lake", SOURCE, tmp_path / "home", assets=assets, partition_key=key)

    assert result.success
    assert result.get_asset_materialization_events() == []
    reasons = [
        event.asset_observation_data.asset_observation.metadata["skipped"].value
        for event in result.get_asset_observation_events()
    ]
    assert reasons
    assert all("found none" in reason or "found nothing" in reason for reason in reasons)


def test_too_few_labels_skip_the_model(tmp_path: Path) -> None:
    """`N positive labels, needs M: not trained` is an honest end of a run, not a failure."""
    write_lake(tmp_path / "lake", rows=300, n_symbols=2, edge_bps=0.0)

    result = run("learn", tmp_path / "lake", SOURCE, tmp_path / "home")

    assert result.success
    reasons = [
        event.asset_observation_data.asset_observation.metadata["skipped"].value
        for event in result.get_asset_observation_events()
    ]
    assert any("positive labels" in reason and "not trained" in reason for reason in reasons)


def test_corrupt_file_fails_in_the_sentence_of_the_lake(world: World, tmp_path: Path) -> None:
    """A broken Parquet file fails the run, names the file and says what to do, without a retry."""
    lake = tmp_path / "lake"
    shutil.copytree(world.lake / "raw", lake / "raw")
    shutil.copytree(world.lake / "universe", lake / "universe")
    for path in lake.glob("raw/book/source=*/date=*/hour=*/*.parquet"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    result = run(
        "prepare", lake, world.source, tmp_path / "home", assets=["seconds"], partition_key=key_of(world.hours[0])
    )

    failure = next(event for event in result.all_events if event.is_step_failure)
    described = failure.step_failure_data.user_failure_data.description
    assert not result.success
    assert "book.parquet" in described
    assert described.count("\n") == 0


def test_every_asset_is_materialised_and_recorded(driven_world: DrivenWorld) -> None:
    """The whole DAG in one process: rows, bytes and pictures on every asset, runs in the instance, checks evaluated."""
    driven = driven_world.driven

    with dg.DagsterInstance.from_config(str(driven_world.home)) as instance:
        assert {run.run_id for run in instance.get_runs()} == set(driven.run_ids)

        def metadata(name: str) -> Any:
            event = instance.get_latest_materialization_event(dg.AssetKey(name))
            assert event is not None, name
            materialization = event.asset_materialization
            assert materialization is not None, name
            return materialization.metadata

        for name in ("raw_ticks", "coverage", "seconds", "features", "labels", "dataset", "backtest"):
            assert metadata(name)["rows"].value > 0, name
            assert metadata(name)["bytes"].value > 0, name
        for name in ("seconds", "features", "labels", "model", "backtest"):
            assert "data:image/png;base64," in metadata(name)["plot"].value, name
    assert set(driven.metadata) == {
        "raw_ticks", "universe", "coverage", "seconds", "features", "labels", "dataset", "model", "backtest", "report",
        "gate",
    }  # fmt: skip
    assert driven.skipped == {}
    assert not [check for check in driven.checks_failed if "crossed" in check or "duplicate" in check]


def test_summary_says_what_the_demo_asks(driven_world: DrivenWorld) -> None:
    """The driver's JSON holds the model, the backtest with its nulls, and where the report lies."""
    told = summary(driven_world.driven)

    assert told["model"]["version"] == 1
    assert told["backtest"]["coin_net_bps"] < 0
    assert "sharpe" not in told["backtest"], "what is not defined below a day is left out"
    json.dumps(told, allow_nan=False)
    assert Path(told["report"]).exists()
    assert told["skipped"] == ""
    assert told["market"] == "generated"


def test_hours_that_are_up_to_date_are_left_alone(driven_world: DrivenWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Driving again without anything new starts no run."""
    monkeypatch.setenv("DAGSTER_HOME", str(driven_world.home))
    world = driven_world.world

    again = materialise(world.lake, world.source, world.hours, tracking_uri=driven_world.tracking_uri, learn=False)

    assert again.run_ids == ()


def test_failing_asset_is_one_sentence_for_the_driver(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an asset's function says is what the driver raises."""
    lake = tmp_path / "lake"
    shutil.copytree(world.lake / "raw", lake / "raw")
    shutil.copytree(world.lake / "universe", lake / "universe")
    for path in lake.glob("universe/source=*/date=*/hour=*/*.parquet"):
        path.write_bytes(b"PAR1 not really")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))

    with pytest.raises(AssetFailed, match=r"universe\.parquet"):
        materialise(lake, world.source, world.hours, tracking_uri="sqlite:///nowhere/mlflow.db", learn=False)


def test_feature_from_the_future_fails_its_check(driven_world: DrivenWorld, tmp_path: Path) -> None:
    """Planted leaks: one feature of one second later, or of the symbol before, in a lake that holds otherwise."""
    world, lake = driven_world.world, tmp_path / "lake"
    for table in ("raw", "universe", "seconds", "features"):
        shutil.copytree(world.lake / table, lake / table)
    hour = world.hours[1]
    passed, metadata = verdicts.no_future(lake, world.source, hour)
    assert passed
    assert metadata["rows"] > SYMBOLS
    held = read.collect(read.scan(lake, "features", world.source, start_s=hour * HOUR_S, end_s=(hour + 1) * HOUR_S))

    leaks = [
        pl.col("return_1s").shift(-1).over("symbol", order_by="second").fill_null(float("nan")),
        pl.col("return_5s").shift(1).over("second", order_by="symbol").fill_null(float("nan")),
    ]
    for leak in leaks:
        write.write_table(lake, "features", world.source, hour, held.with_columns(leak), {})
        assert not verdicts.no_future(lake, world.source, hour)[0]


def test_drift_and_lost_parity_turn_red_in_dagster(driven_world: DrivenWorld, tmp_path: Path) -> None:
    """An hour like those of the training passes; where asks have become ten times as large, and a session's journal was
    altered, both checks are red, with severity ERROR, and say what it is.
    """
    world, lake = driven_world.world, tmp_path / "lake"
    for table in ("universe", "seconds"):
        shutil.copytree(world.lake / table, lake / table)
    hour = world.hours[1]

    def checked(home: str) -> dict[str, Any]:
        result = run(
            "prepare", lake, world.source, tmp_path / home, assets=["features"], partition_key=key_of(hour),
            tracking_uri=driven_world.tracking_uri,
        )  # fmt: skip
        assert result.success
        return {check.check_name: check for check in result.get_asset_check_evaluations()}

    before = checked("before")
    held = read.collect(read.scan(lake, "seconds", world.source, start_s=hour * HOUR_S, end_s=(hour + 1) * HOUR_S))
    write.write_table(lake, "seconds", world.source, hour, held.with_columns(pl.col("^ask_size_.*$") * 10.0), {})
    session = lake / "journal" / f"source={world.source}" / "session=s"
    rig = Rig(session, "coin", source=world.source, started_ns=hour * HOUR_S * NS)
    rig.second = hour * HOUR_S
    rig.adopt()
    rig.trade(5)
    rig.journal.close()
    rewrite(session, journal.SECOND, 2, lambda body: bytes([body[0] ^ 1]) + body[1:])
    after = checked("after")

    assert before["feature_drift"].passed
    assert before["feature_drift"].metadata["judged"].value > 50
    assert before["live_parity"].passed
    assert before["live_parity"].metadata["sessions"].value == 0
    for name in ("feature_drift", "live_parity"):
        assert not after[name].passed
        assert after[name].severity is dg.AssetCheckSeverity.ERROR
    assert "imbalance_5" in after["feature_drift"].metadata["features"].value
    assert "stage 'inputs'" in after["live_parity"].metadata["wrong"].value
