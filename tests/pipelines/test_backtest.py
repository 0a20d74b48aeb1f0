"""The commands train and backtest: what they leave behind, and the sentence each wrong input ends in."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import lightgbm
import mlflow.models
import msgspec
import polars as pl
import pytest

from pipelines import backtest, train
from pipelines.backtest import candidate
from pipelines.dataset import build_dataset
from pipelines.features import write_features
from pipelines.moments import when
from pipelines.tracking import ALIAS, EXPERIMENT, EXPERIMENT_BACKTESTS, Tracking
from pipelines.trades import METRICS
from shared.errors import ModelMismatch, ModelMissing
from shared.lake import layout, read, write
from shared.lake.layout import TABLES
from shared.model import read_bundle
from tests.pipelines.conftest import DrivenWorld
from tests.pipelines.markets import SOURCE, write_lake


@pytest.fixture(scope="module")
def of_its_own(driven_world: DrivenWorld, tmp_path_factory: pytest.TempPathFactory) -> DrivenWorld:
    """Return the driven world with a copy of its database: what is registered here, nobody else's `latest` sees."""
    database = tmp_path_factory.mktemp("copied") / "mlflow.db"
    with (
        closing(sqlite3.connect(driven_world.tracking_uri.removeprefix("sqlite:///"))) as there,
        closing(sqlite3.connect(database)) as here,
    ):
        there.backup(here)
    return msgspec.structs.replace(driven_world, tracking_uri=f"sqlite:///{database}")


@pytest.fixture
def at(of_its_own: DrivenWorld, monkeypatch: pytest.MonkeyPatch) -> DrivenWorld:
    """Point the settings at the driven world, as a person's environment would."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", of_its_own.tracking_uri)
    monkeypatch.setenv("LAKE_URI", str(of_its_own.world.lake))
    return of_its_own


def _coin(at: DrivenWorld, output: Path) -> list[str]:
    """Return the arguments of a coin's backtest over the last three minutes of the world."""
    begin = str(at.world.end_s - 180)
    return ["--model", "coin", "--from", begin, "--output", str(output), "--source", at.world.source]


def test_backtest_leaves_trades_metrics_and_a_report(
    at: DrivenWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DIR holds the four files, metrics.csv has the issue's keys and no others, the words begin with net after costs."""
    code = backtest.main(_coin(at, tmp_path))

    said = capsys.readouterr().out
    header, values = list(csv.reader((tmp_path / "metrics.csv").open()))
    trades = pl.read_parquet(tmp_path / "trades.parquet")
    assert code == 0
    assert said.startswith("net -")
    assert tuple(header) == METRICS
    assert float(values[0]) == len(trades) == len(pl.read_csv(tmp_path / "trades.csv")) > 20
    assert dict(trades.schema) == dict(TABLES["backtests"].columns)
    assert "USDT net after costs" in (tmp_path / "report.html").read_text()


def test_backtests_are_runs_with_the_same_keys(at: DrivenWorld) -> None:
    """The model and both nulls are runs of MLflow with every metric key, also where a value is not defined."""
    tracking = Tracking(at.tracking_uri)
    experiment = tracking.client.get_experiment_by_name(EXPERIMENT_BACKTESTS)
    group = at.driven.metadata["backtest"]["mlflow_run_id"]

    children = f"tags.`mlflow.parentRunId` = '{group}'"
    runs = [tracking.client.get_run(group), *tracking.client.search_runs([experiment.experiment_id], children)]

    assert sorted(run.data.tags["kind"] for run in runs) == ["coin", "model", "shuffled"]
    for run in runs:
        assert set(METRICS) | {"net_bps"} <= set(run.data.metrics)
        assert run.data.tags["market"] == "generated"
        assert {"sharpe_minute", "skew_minute", "kurtosis_minute", "minutes"} <= set(run.data.metrics)
    assert {"trials_effective", "deflated_sharpe", "overfitting_probability"} <= set(runs[0].data.metrics)
    artifacts = {item.path for item in tracking.client.list_artifacts(group, "backtest")}
    names = {"report.html", "trades.parquet", "metrics.csv", "minutes.csv"}
    assert {f"backtest/{name}" for name in names} <= artifacts


def test_trades_are_rows_of_the_lake(at: DrivenWorld, tmp_path: Path) -> None:
    """Trades of a backtest can be queried under the id of their run."""
    assert backtest.main(_coin(at, tmp_path)) == 0

    frame = read.collect(read.scan(at.world.lake, "backtests", at.world.source))

    assert frame["run"].n_unique() >= 1
    assert len(frame) > 20


def test_registered_version_is_all_that_live_needs(at: DrivenWorld) -> None:
    """Version, alias and tags say which bundle it is; the bundle says where it comes from."""
    tracking = Tracking(at.tracking_uri)
    version = tracking.resolve("latest")
    bundle = read_bundle(tracking.bundle_folder(version))
    run = tracking.client.get_run(version.run_id)

    assert tracking.resolve(ALIAS).version == version.version
    assert version.tags["source"] == bundle.source == at.world.source
    assert version.tags["sha256"] == bundle.booster_sha256
    assert bundle.gate == version.tags["validation"] == "refused"  # the gate says no of so short a window
    assert bundle.lineage.run_id == version.run_id
    assert bundle.lineage.trained_to_s < int(version.tags["holdout_from_s"])
    assert {"rank_ic", "ols_rank_ic", "ridge_rank_ic", "shuffled_spread_bps", "log_loss"} <= set(run.data.metrics)
    assert {"lock_sha256", "lake_hash", "commit", "source"} <= set(run.data.tags)
    assert tracking.count_runs(EXPERIMENT) >= 1
    artifacts = {
        item.path
        for folder in ("pictures", "findings")
        for item in tracking.client.list_artifacts(run.info.run_id, folder)
    }
    assert {
        "pictures/skill.png",
        "findings/features.csv",
        "findings/minutes.csv",
        "findings/universe.json",
    } <= artifacts
    booster = lightgbm.Booster(model_file=str(tracking.bundle_folder(version) / "model.lgb"))
    described = mlflow.models.Model.load(str(tracking.artifact(run.info.run_id, "MLmodel")))
    assert [column.name for column in described.signature.inputs] == list(bundle.features) == booster.feature_name()


def test_training_again_gives_the_next_version_with_the_same_bytes(
    at: DrivenWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same lake and seed make the same booster, registered as a new version."""
    before = Tracking(at.tracking_uri).resolve("latest")

    code = train.main(["--source", at.world.source, *_window(at)])

    after = Tracking(at.tracking_uri).resolve("latest")
    assert code == 0
    assert "(generated market)" in capsys.readouterr().out
    assert int(after.version) == int(before.version) + 1
    assert after.tags["sha256"] == before.tags["sha256"]


def _window(at: DrivenWorld) -> list[str]:
    hours = at.world.hours
    return ["--from", str(hours[0] * 3600), "--to", str((hours[1] + 1) * 3600)]


def test_what_only_the_holdout_has_is_absent(tmp_path: Path) -> None:
    """Which features a model needs is decided on what it may learn from: one that begins in the holdout is absent."""
    start, end = write_lake(tmp_path)
    begins = start + (end - start) * 9 // 10
    late = pl.when(pl.col("second") >= begins).then("funding_rate").otherwise(float("nan"))
    for hour in read.hours(tmp_path, "seconds", SOURCE):
        rows = pl.read_parquet(layout.partition_path(tmp_path, "seconds", SOURCE, hour))
        write.write_table(tmp_path, "seconds", SOURCE, hour, rows.with_columns(late.alias("funding_rate")), {})
    for hour in read.hours(tmp_path, "seconds", SOURCE):
        write_features(tmp_path, SOURCE, hour)

    dataset = build_dataset(tmp_path, SOURCE)

    assert "funding_rate" in dataset.absent
    assert dataset.second[0] < begins


def test_window_before_the_holdout_is_refused(at: DrivenWorld, capsys: pytest.CaptureFixture[str]) -> None:
    """A backtest on what the model has learnt from is an error that names the boundary."""
    boundary = int(Tracking(at.tracking_uri).resolve("1").tags["holdout_from_s"])

    code = backtest.main(["--model", "1", "--from", str(boundary - 1)])

    said = capsys.readouterr().err
    assert code == 1
    assert said.count("\n") == 1
    assert when(boundary) in said


@pytest.mark.parametrize("wanted", ["99", "champion"])
def test_unknown_model_is_one_sentence(at: DrivenWorld, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown version or alias names what there is."""
    code = backtest.main(["--model", wanted])

    said = capsys.readouterr().err
    assert code == ModelMissing.exit_code
    assert said.count("\n") == 1
    assert wanted in said
    assert "latest versions: 1" in said


def test_altered_booster_is_refused(at: DrivenWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A model whose text is not that of its digest is not judged."""
    tracking = Tracking(at.tracking_uri)
    folder = tracking.bundle_folder(tracking.resolve("latest"))
    for name in ("bundle.json", "model.lgb"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "model.lgb").write_text((folder / "model.lgb").read_text().replace("tree", "Tree", 1))
    monkeypatch.setattr(Tracking, "bundle_folder", lambda self, version: tmp_path)

    with pytest.raises(ModelMismatch, match="digest"):
        candidate("latest", tracking, seed=1)


def test_model_of_other_features_is_refused(at: DrivenWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A bundle whose definition hash is not this code's says so and what to do."""
    tracking = Tracking(at.tracking_uri)
    folder = tracking.bundle_folder(tracking.resolve("latest"))
    bundle = json.loads((folder / "bundle.json").read_text())
    (tmp_path / "bundle.json").write_text(json.dumps(bundle | {"definition_hash": "0" * 64}))
    (tmp_path / "model.lgb").write_bytes((folder / "model.lgb").read_bytes())
    monkeypatch.setattr(Tracking, "bundle_folder", lambda self, version: tmp_path)

    with pytest.raises(ModelMismatch, match="feature definitions"):
        candidate("latest", tracking, seed=1)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (train.main, []),
        (train.main, ["--source", "bitget"]),
        (train.main, ["--from", "yesterday"]),
        (backtest.main, ["--model", "coin"]),
        (backtest.main, ["--model", "coin", "--source", "nope"]),
    ],
)
def test_empty_lake_is_one_sentence(
    at: DrivenWorld,
    command: object,
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing to read, or a time that is none: one sentence on stderr, nothing on stdout, exit code not 0."""
    code = command([*arguments, "--lake", str(tmp_path / "empty")])  # type: ignore[operator]

    said = capsys.readouterr()
    assert code != 0
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "found" in said.err


def test_window_without_data_is_one_sentence(at: DrivenWorld, capsys: pytest.CaptureFixture[str]) -> None:
    """A window in which nothing was recorded is refused by both commands."""
    for command, name in ((train.main, "features"), (backtest.main, "window")):
        assert command(["--source", at.world.source, "--from", "2031-01-01"]) != 0
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert name in said


def test_corrupt_features_name_their_file(at: DrivenWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A broken Parquet file is named, with what to do; nothing is registered."""
    write_lake(tmp_path, rows=400, n_symbols=3)
    path = next(tmp_path.glob("features/source=*/date=*/hour=*/features.parquet"))
    path.write_bytes(path.read_bytes()[:-40])

    code = train.main(["--lake", str(tmp_path), "--source", SOURCE])

    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 3
    assert "features.parquet" in said


def test_output_that_cannot_be_written_is_told_before_anything_is_computed(
    at: DrivenWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An --output that is a file is one sentence, and no run of MLflow is begun for it."""
    (tmp_path / "file").write_text("")

    code = backtest.main(["--model", "coin", "--source", at.world.source, "--output", str(tmp_path / "file")])

    assert code == 2
    assert "files must be writable in" in capsys.readouterr().err


@pytest.mark.parametrize("uri", ["nonsense:///x", "sqlite:///{folder}/garbage.db"])
def test_unusable_tracking_is_one_sentence(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An address that MLflow does not know, and a file that is no database, are one sentence each."""
    (tmp_path / "garbage.db").write_text("this is no database, whatever its name says" * 9)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(folder=tmp_path))

    code = backtest.main(["--model", "latest", "--lake", str(tmp_path)])

    assert code == 4
    assert "MLflow must be able to read and write" in capsys.readouterr().err.strip().splitlines()[-1]
