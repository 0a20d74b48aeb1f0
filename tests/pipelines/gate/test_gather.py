"""Evidence of a whole small pipeline, and what is missing told as a reason: never an error, never a pass."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from pipelines.gate import gather as gathering
from pipelines.gate import promotion
from pipelines.gate.__main__ import main
from pipelines.gate.criteria import Verdict, judge
from pipelines.gate.gather import gather
from pipelines.gate.unseen import Recomputed
from pipelines.tracking import EXPERIMENT, Tracking
from shared.errors import ModelError, ModelMissing
from shared.features.catalog import FEATURES
from shared.lake import read, write
from shared.lake.layout import HOUR_S
from shared.model import Bundle, BundleCosts, Lineage, read_bundle
from tests.pipelines.conftest import DrivenWorld
from tests.pipelines.gate.registered import (
    FAST,
    LEARNT_TO_S,
    START_S,
    Made,
    backtest,
    minutes,
    register,
    trades,
    train,
)
from tests.pipelines.markets import HOUR, write_lake
from tests.pipelines.markets import SOURCE as LAKE_SOURCE


def no(verdict: Verdict) -> dict[str, str]:
    """Return the criteria that fail, and what was found."""
    return {criterion.name: criterion.found for criterion in verdict.criteria if not criterion.passed}


@pytest.fixture
def tracking(made_database: Callable[[Path], str], tmp_path: Path) -> Tracking:
    return Tracking(made_database(tmp_path))


@pytest.fixture(autouse=True)
def _sound_features(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A lake is not what these tests are about: its check has its own (test_leaks, and one below)."""
    if "driven_world" not in request.fixturenames and "lake" not in request.fixturenames:
        monkeypatch.setattr(gathering._Found, "_recomputed", lambda self, holdout: Recomputed(rows=9, leak=""))


def verdict_of(tracking: Tracking, made: Made, venue: str = "bitget") -> Verdict:
    evidence, _ = gather(tracking, Path("nowhere"), str(made.version), speed=lambda folder: FAST)
    return judge(evidence, venue)  # type: ignore[arg-type]


@pytest.mark.timeout(1200)  # whoever comes first drives the world
def test_a_driven_world_is_judged_in_dagster(driven_world: DrivenWorld) -> None:
    """After the backtest the asset has judged the model: a table with every criterion, a run of MLflow, tags and the
    bundle's field; ten minutes of a generated market are no reason to promote anything."""
    told = driven_world.driven.metadata["gate"]
    tracking = Tracking(driven_world.tracking_uri)
    version = tracking.resolve("latest")
    run = tracking.client.get_run(told["mlflow_run_id"])
    stored = tracking.artifact(run.info.run_id, "gate/verdict.json")

    assert told["passed"] is False
    assert "did not pass for the venue simulator" in told["verdict"]
    assert "| **no** | window |" in told["criteria"]
    assert version.tags["validation"] == "refused"
    assert version.tags["gate_run"] == run.info.run_id
    assert read_bundle(tracking.bundle_folder(version)).gate == "refused"
    assert stored is not None
    verdict = json.loads(stored.read_bytes())
    known = {criterion["name"]: criterion for criterion in verdict["criteria"]}
    assert len(known) == 15
    for name in ("source", "features", "scored twice"):
        assert known[name]["passed"], known[name]
    assert known["features"]["value"] > 0
    assert known["speed"]["value"] > 0
    assert "trades: too few to tell" in known["null: coin"]["found"]
    assert told["model_version"] == int(version.version)


@pytest.mark.timeout(1200)
def test_the_command_says_no_with_reasons(
    driven_world: DrivenWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table on stdout, exit code 1, nothing promoted; for the real market the source is a reason of its own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", driven_world.tracking_uri)
    monkeypatch.setattr("pipelines.gate.gather.measure", lambda folder: FAST)
    before = Tracking(driven_world.tracking_uri).count_runs("crosscut-gate")

    code = main(["--lake", str(driven_world.world.lake), "--venue", "bitget", "--promote"])

    said = capsys.readouterr()
    assert code == 1
    assert re.search(rf"^NO   source +trained on {driven_world.world.source}$", said.out, re.MULTILINE)
    assert "trained and backtested on bitget for the venue bitget" in said.out
    assert said.err.startswith("not promoted: model version 1")
    tracking = Tracking(driven_world.tracking_uri)
    assert promotion.alias_version(tracking, "champion") is None
    assert tracking.count_runs("crosscut-gate") == before + 1


# ------------------------------------------------------------------------------------------ what is missing or bad


def test_a_model_that_has_everything_passes(tracking: Tracking) -> None:
    """Good figures, a backtest of the whole holdout with its nulls, nothing else tried: every criterion holds."""
    verdict = verdict_of(tracking, register(tracking))

    assert no(verdict) == {}
    assert verdict.passed


def test_what_is_not_there_is_a_reason(tracking: Tracking) -> None:
    """No backtest, no nulls, no figures, a training that was deleted: each criterion that needs them says what to do."""
    bare = train(tracking)
    without_nulls = backtest(tracking, train(tracking), nulls=False)
    silent = backtest(tracking, train(tracking, figures={}))
    untold = backtest(tracking, train(tracking, tags={}))
    gone = register(tracking)
    tracking.client.delete_run(gone.training_run)

    needs = "run python -m pipelines.backtest --model {}"
    for name in ("window", "trades", "net edge", "deflated Sharpe", "overfitting", "null: coin", "scored twice"):
        assert needs.format(bare.version) in no(verdict_of(tracking, bare))[name]
    assert set(no(verdict_of(tracking, without_nulls))) >= {"null: coin", "null: shuffled scores"}
    assert "has no null coin and shuffled" in no(verdict_of(tracking, without_nulls))["null: coin"]
    assert set(no(verdict_of(tracking, silent))) >= {
        "calibration", "unseen symbols", "null: shuffled labels", "null: shifted in time", "scored twice",
    }  # fmt: skip
    assert "do not say where its holdout lies" in no(verdict_of(tracking, untold))["window"]
    assert "must be finished and kept, found deleted" in no(verdict_of(tracking, gone))["calibration"]


def test_a_backtest_of_another_source_is_none(tracking: Tracking) -> None:
    """What earned on a generated market has earned from its generator; and a model of one is never for the real one."""
    elsewhere = backtest(tracking, train(tracking), source="simulator-g7-40")
    generated = register(tracking, source="simulator-g7-40")

    assert "backtested on simulator-g7-40" in no(verdict_of(tracking, elsewhere))["source"]
    assert list(no(verdict_of(tracking, generated, "bitget"))) == ["source"]
    assert no(verdict_of(tracking, generated, "simulator")) == {}


def test_a_window_that_touches_training_has_no_figures(tracking: Tracking) -> None:
    """A backtest that begins before the model had learnt, or a holdout less than a gap behind it, gives no number to
    judge: not a better one, none."""
    early = backtest(tracking, train(tracking), start_s=LEARNT_TO_S - 600)
    touching = backtest(tracking, train(tracking, learnt_to_s=START_S - 5))

    found = no(verdict_of(tracking, early))
    assert "must begin 42 s after the last second learnt from" in found["net edge"]
    assert set(found) >= {
        "window",
        "trades",
        "net edge",
        "deflated Sharpe",
        "overfitting",
        "null: coin",
        "scored twice",
    }
    found = no(verdict_of(tracking, touching))
    assert set(found) >= {"window", "net edge", "calibration", "unseen symbols", "null: shuffled labels"}


def test_trades_that_cannot_be_read_are_none(tracking: Tracking) -> None:
    """Entries before the window, and files without a column: no figure, and the sentence says which file."""
    early = backtest(tracking, train(tracking), frame=trades(1, 4.0).with_columns(pl.col("entry_ns") - 3600 * 10**9))
    other = backtest(tracking, train(tracking), frame=trades(1, 4.0).drop("net_bps"))

    assert "must have begun in" in no(verdict_of(tracking, early))["trades"]
    assert "must be trades of a backtest" in no(verdict_of(tracking, other))["trades"]


def test_what_was_tried_meanwhile_counts(tracking: Tracking) -> None:
    """The same backtest passes alone; after twenty other trainings the same figures do not."""
    made = backtest(tracking, train(tracking), returns=minutes(3, mean=0.3))
    assert no(verdict_of(tracking, made)) == {}

    for _ in range(20):
        with tracking.run(EXPERIMENT, "tried", {"source": "bitget"}):
            pass

    assert "21 trained" in no(verdict_of(tracking, made))["deflated Sharpe"]


def test_what_was_learnt_from_has_no_name_here(tracking: Tracking) -> None:
    """Figures of rows learnt from, however splendid, change nothing of the evidence."""
    made = register(tracking)
    before, _ = gather(tracking, Path("nowhere"), str(made.version), speed=lambda folder: FAST)
    for name in ("learning_fit", "in_sample_rank_ic", "fold_1_rank_ic", "rank_ic_fit", "net_bps", "gain_imbalance_1"):
        tracking.client.log_metric(made.training_run, name, 99.0)

    after, _ = gather(tracking, Path("nowhere"), str(made.version), speed=lambda folder: FAST)

    assert judge(after, "bitget") == judge(before, "bitget")


LEAKS = {
    "one second ahead": lambda name: pl.col(name).shift(-1).over("symbol"),
    "across symbols of a pooled frame": lambda name: pl.col(name).fill_nan(None).rolling_mean(10, min_samples=1),
    "scaled by the whole window": lambda name: (pl.col(name) - pl.col(name).fill_nan(None).mean()).over("symbol"),
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    write_lake(folder, rows=240, n_symbols=3)
    return folder


def recomputed(lake: Path) -> tuple[Recomputed | None, str]:
    """Return what the gate finds of the features of the whole lake, and why where it finds nothing."""
    bundle = Bundle(
        features=tuple(FEATURES), definition_hash="", horizon_s=10, class_edge_bps=(0.0, 0.0, 0.0), source=LAKE_SOURCE,
        costs=BundleCosts(taker_fee=0.0006, slippage_bps=2.0),
        lineage=Lineage(trained_from_s=HOUR * HOUR_S, trained_to_s=(HOUR + 2) * HOUR_S),
    )  # fmt: skip
    version = SimpleNamespace(version="1", run_id="r", tags={})
    found = gathering._Found(Tracking("sqlite:///nowhere.db"), lake, version, bundle)
    return found._try("recomputed", lambda: found._recomputed(None)), found.absent.get("recomputed", "")


def test_sound_features_are_computed_again(lake: Path, tmp_path: Path) -> None:
    """What the graph wrote is what it gives again; a lake that has forgotten the window cannot be asked."""
    assert recomputed(lake) == (Recomputed(rows=18, leak=""), "")
    assert recomputed(tmp_path)[0] is None
    assert "holds no features of simulator-test any more" in recomputed(tmp_path)[1]


@pytest.mark.parametrize("leak", LEAKS)
def test_planted_leaks_are_refused(lake: Path, tmp_path: Path, leak: str) -> None:
    """A feature that looks one second ahead, a pooled indicator, a scale of the whole window: named, and no verdict but
    no, whatever else the evidence shows."""
    shutil.copytree(lake, tmp_path, dirs_exist_ok=True)
    for hour in (HOUR, HOUR + 1):
        rows = read.collect(
            read.scan(tmp_path, "features", LAKE_SOURCE, start_s=hour * HOUR_S, end_s=(hour + 1) * HOUR_S)
        ).sort("symbol", "second")
        changed = rows.with_columns(LEAKS[leak]("return_1s").cast(pl.Float32).fill_null(math.nan).alias("return_1s"))
        write.write_table(tmp_path, "features", LAKE_SOURCE, hour, changed, {})

    found, _ = recomputed(tmp_path)

    assert found is not None
    assert "found return_1s = " in found.leak


def test_a_database_that_is_away_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No database, one that is none, nothing registered: a sentence, and exit code 4."""
    (tmp_path / "garbage.db").write_text("this is no database, whatever its name says" * 9)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/garbage.db")

    for command in ("judge", "rollback", "status"):
        assert main([command, "--lake", str(tmp_path)]) == ModelError.exit_code
        assert "MLflow must be able to read and write" in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_version_without_files_is_one_sentence(tracking: Tracking) -> None:
    """A bundle that was removed cannot be judged, and says where it was looked for."""
    made = register(tracking)
    folder = tracking.bundle_folder(tracking.resolve(str(made.version)))
    (folder / "bundle.json").unlink()

    with pytest.raises(ModelMissing, match="must lie in"):
        gather(tracking, Path("nowhere"), str(made.version), speed=lambda folder: FAST)
