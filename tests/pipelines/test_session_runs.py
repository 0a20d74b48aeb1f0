"""Sessions in MLflow and Dagster: one run and one partition each, however often they are reported."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from pipelines import report
from pipelines.definitions import REPORTED_AT_ONCE, defs, report_sessions
from pipelines.partitions import SESSIONS
from pipelines.provenance import journal_digest
from pipelines.resources import LakeResource
from pipelines.session_report import Reported, page_of
from pipelines.session_runs import EXPERIMENT_SESSIONS, log_session, report_and_log
from pipelines.sessions import SILENT_S, ended, name_of
from pipelines.tracking import EXPERIMENT_BACKTESTS, Tracking
from pipelines.trades import METRICS
from shared.types import NS, StopRequested
from tests.live.sessions import Rig
from tests.shared.strategy.made import START_S

SOURCE = "simulator-made"


def trade(lake: Path, name: str, seconds: int = 20, *, ends: bool = True) -> tuple[Path, Rig]:
    """Trade a session into a lake, and leave it open unless it ends."""
    folder = lake / "journal" / f"source={SOURCE}" / f"session={name}"
    rig = Rig(folder, commit="c0ffee", started_ns=START_S * NS)
    rig.adopt()
    rig.trade(seconds)
    if ends:
        rig.runner.tell(StopRequested(recv_ns=rig.clock(), reason="test"))
        rig.trade(3)
        rig.journal.close()
        lived = {"seconds": rig.runner.tally.seconds, "events": rig.runner.tally.events}
        (folder / "session.json").write_text(json.dumps({"journal": lived}))
    return folder, rig


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty database of MLflow, made once: that takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Tracking(f"sqlite:///{path}").client.search_experiments()
    return path


@pytest.fixture
def tracking(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    shutil.copy(database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return Tracking(uri)


def test_a_session_is_one_run_however_often_it_is_reported(
    tmp_path: Path, tracking: Tracking, capsys: pytest.CaptureFixture[str]
) -> None:
    """Page, trades and metrics are artifacts; tags say which journal, model and code; the second time nothing is added;
    of a session that went on only the whole one is left."""
    lake = tmp_path / "lake"
    folder, rig = trade(lake, "s", ends=False)

    _, begun = report_and_log(lake, folder, tracking)
    rig.runner.tell(StopRequested(recv_ns=rig.clock(), reason="test"))
    rig.trade(3)
    rig.journal.close()
    arguments = ["--session", "s", "--lake", str(lake), "--mlflow"]
    assert report.main(arguments) == 0
    first = capsys.readouterr().out
    page, replayed = page_of(folder, lake)
    again = log_session(tracking, folder, Reported(page, folder / "report", replayed))

    runs = tracking.finished(EXPERIMENT_SESSIONS)
    assert len(runs) == 1
    [run] = runs
    assert begun.is_new
    assert begun.run_id != run.info.run_id
    assert run.info.run_id in first
    assert "(logged before)" not in first
    assert (again.run_id, again.is_new) == (run.info.run_id, False)
    wanted = {"kind": "session", "session": "s", "source": SOURCE, "model": "coin", "model_digest": "",
              "commit": "c0ffee", "journal": journal_digest(folder), "parity": "identical"}  # fmt: skip
    assert {name: run.data.tags[name] for name in wanted} == wanted
    assert set(METRICS) | {"net_bps", "gap_usdt", "gap_latency_usdt", "parity_mismatches"} <= set(run.data.metrics)
    assert run.data.metrics["total_trades"] > 0
    assert run.data.metrics["parity_mismatches"] == 0
    assert run.data.params["seed"] == "7"
    kept = {item.path for item in tracking.client.list_artifacts(run.info.run_id, "report")}
    names = ("report.html", "report.json", "trades.parquet", "trades.csv", "metrics.csv")
    assert kept == {f"report/{name}" for name in names}
    assert tracking.count_runs(EXPERIMENT_BACKTESTS) == 0, "what was traded forward is no trial"
    stored = tracking.artifact(run.info.run_id, "report/report.html")
    assert stored is not None
    assert stored.read_bytes() == (folder / "report" / "report.html").read_bytes()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Return an instance with files: a sensor finds partitions in no other."""
    home = tmp_path / "dagster"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        yield instance


def evaluate(instance: dg.DagsterInstance, lake: Path) -> list[str]:
    """Let the sensor tick as the daemon does; return the partitions that it asks for, which then exist."""
    resources = {"lake": LakeResource(uri=str(lake), source=SOURCE)}
    instance_ref = instance.get_ref()
    with dg.build_sensor_context(instance, instance_ref=instance_ref, resources=resources, definitions=defs) as context:
        asked = report_sessions.evaluate_tick(context)
    for request in asked.dynamic_partitions_requests or []:
        instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
    assert bool(asked.run_requests) != bool(asked.skip_message)
    return [str(one.partition_key) for one in asked.run_requests or []]


def materialise(instance: dg.DagsterInstance, lake: Path, name: str, uri: str) -> dict[str, Any]:
    result = defs.resolve_job_def("report_session").execute_in_process(
        instance=instance,
        partition_key=name,
        run_config={
            "resources": {
                "lake": {"config": {"uri": str(lake), "source": SOURCE}},
                "tracking": {"config": {"uri": uri}},
            },
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        raise_on_error=False,
    )
    if not result.success:
        return {"failed": str(next(event for event in result.all_events if event.is_step_failure).step_failure_data)}
    [made] = result.get_asset_materialization_events()
    return {key: value.value for key, value in made.materialization.metadata.items()}


def test_sensor_asks_for_sessions_that_have_ended_once_and_the_asset_reports_them(
    instance: dg.DagsterInstance, tmp_path: Path, tracking: Tracking
) -> None:
    """A session becomes a partition when it has ended, is asked for once, and its materialisation shows the report."""
    lake = tmp_path / "lake"
    assert evaluate(instance, lake) == [], "an empty lake asks for nothing"
    trade(lake, "20260101T000000-coin-a")
    trade(lake, "20260101T000001-coin-b", ends=False)[1].journal.commit(is_durable=False)

    assert evaluate(instance, lake) == ["20260101T000000-coin-a"]
    assert evaluate(instance, lake) == []
    assert instance.get_dynamic_partitions(SESSIONS.name or "") == ["20260101T000000-coin-a"]

    made = materialise(instance, lake, "20260101T000000-coin-a", tracking.uri)

    [run] = tracking.finished(EXPERIMENT_SESSIONS)
    assert (made["logged"], made["mlflow_run_id"]) == ("now", run.info.run_id)
    assert made["total_trades"] > 0
    assert made["plot"].startswith("![equity](data:image/png;base64,")
    assert made["waterfall"].startswith("![where the money went](data:image/png;base64,")
    assert "0 mismatches" in made["parity"]
    assert Path(made["path"]).is_file()


def test_a_session_that_cannot_be_read_fails_in_one_sentence(
    instance: dg.DagsterInstance, tmp_path: Path, tracking: Tracking
) -> None:
    """What is no journal is a failure with the reason, and leaves no run in MLflow."""
    lake = tmp_path / "lake"
    folder, _ = trade(lake, "s")
    (folder / "journal.bin").write_bytes(b"no journal")
    instance.add_dynamic_partitions(SESSIONS.name or "", ["s"])

    found = materialise(instance, lake, "s", tracking.uri)

    assert "journal" in found["failed"]
    assert tracking.finished(EXPERIMENT_SESSIONS) == []


def test_a_session_has_ended_when_it_says_so_or_has_been_silent(tmp_path: Path) -> None:
    """One with session.json, and one whose journal has not grown for minutes: it was killed. One that trades has not."""
    root = tmp_path / "journal" / f"source={SOURCE}"
    for name in ("a-said", "b-killed", "c-trades"):
        (root / f"session={name}").mkdir(parents=True)
        (root / f"session={name}" / "journal.bin").write_bytes(b"")
    (root / "session=a-said" / "session.json").write_text("{}")
    path = root / "session=b-killed" / "journal.bin"
    then = path.stat().st_mtime - SILENT_S - 1
    os.utime(path, (then, then))

    assert [name_of(folder) for folder in ended(tmp_path, SOURCE)] == ["a-said", "b-killed"]
    assert ended(tmp_path, "another") == []


def test_many_sessions_are_asked_for_a_few_at_a_time(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """A lake with a year of sessions does not become a thousand runs at once."""
    for n in range(REPORTED_AT_ONCE + 3):
        folder = tmp_path / "journal" / f"source={SOURCE}" / f"session={n:02}"
        folder.mkdir(parents=True)
        for name in ("journal.bin", "session.json"):
            (folder / name).write_bytes(b"")

    assert [len(evaluate(instance, tmp_path)) for _ in range(3)] == [REPORTED_AT_ONCE, 3, 0]
