"""Trials: found in MLflow, counted by how little they resemble each other, and told where nothing can be said."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from pipelines import trials
from pipelines.evidence import deflated_sharpe, effective_trials, moments, overfitting
from pipelines.tracking import EXPERIMENT, EXPERIMENT_BACKTESTS, Tracking
from pipelines.trials import Returns
from shared.errors import ModelMismatch, ModelMissing

START = 1_760_000_400
SOURCE = "simulator-test"


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    """One database for all: making one costs seconds."""
    return Tracking(f"sqlite:///{tmp_path_factory.mktemp('mlruns')}/mlflow.db")


def returns(seed: int, minutes: int = 64, *, mean: float = 0.0, start: int = START) -> Returns:
    rng = np.random.Generator(np.random.Philox(seed))
    return Returns(start + 60 * np.arange(minutes), 1e-4 * (mean + rng.standard_normal(minutes)))


def log_backtest(tracking: Tracking, folder: Path, found: Returns, **tags: str) -> None:
    with tracking.run(EXPERIMENT_BACKTESTS, "a", {"source": SOURCE, "null": "false", **tags}) as run:
        folder.mkdir(exist_ok=True)
        trials.write_returns(folder, found)
        run.log_metrics(trials.figures_of(found))
        run.log_folder(folder, "backtest")


def test_trials_are_what_mlflow_holds(tracking: Tracking, tmp_path: Path) -> None:
    """Trainings and backtests of the source count, also one over other minutes; nulls, other sources and runs that
    failed do not; the statistics are those of `evidence` on these numbers."""
    others = [returns(2, mean=0.1), returns(3, 80, start=START - 60)]
    later = returns(4, start=START + 36_000)
    with pytest.raises(RuntimeError), tracking.run(EXPERIMENT, "failed", {"source": SOURCE}):
        raise RuntimeError
    run_ids = []
    for source in (SOURCE, SOURCE, "elsewhere"):
        with tracking.run(EXPERIMENT, "trained", {"source": source}) as run:
            run_ids.append(run.run_id)
    for n, theirs in enumerate([*others, later]):
        log_backtest(tracking, tmp_path / str(n), theirs)
    log_backtest(tracking, tmp_path / "null", returns(5), null="true")
    log_backtest(tracking, tmp_path / "elsewhere", returns(6), source="elsewhere")
    own = returns(1, mean=0.5)

    found = trials.find(tracking, SOURCE, own, training_run=run_ids[0])

    same = np.stack([own.value, others[1].value[1:65], others[0].value], axis=1)
    effective = effective_trials(same) + 2  # the later window, and the model that was never backtested
    sharpes = [max(0.0, moments(r.value).sharpe) for r in (*others, later)]
    assert (found.trainings, found.backtests) == (2, 4)
    assert found.effective == pytest.approx(effective)
    expected = deflated_sharpe(moments(own.value), effective, max(1 / 63, float(np.var(sharpes, ddof=1))))
    assert found.deflated_sharpe == pytest.approx(expected)
    assert found.overfitting.probability == pytest.approx(overfitting(same, n_blocks=16).probability)
    assert 0 < found.deflated_sharpe < found.sharpe_probability
    assert "2 models trained, 4 backtests" in trials.words(found)[0]


def test_the_first_result_is_deflated_by_nothing(tracking: Tracking) -> None:
    """One trial is its own benchmark: DSR is the plain probability, and overfitting cannot be told."""
    found = trials.find(tracking, "another", returns(1), training_run=None)

    assert found.effective == 1.0
    assert found.deflated_sharpe == found.sharpe_probability
    assert "overfitting undefined (no other trial over the same minutes)" in trials.words(found)[2]


@pytest.mark.parametrize(
    ("value", "why"), [(np.zeros(64), "equity never moved"), (returns(1, 12).value, "12 minutes, needs 30")]
)
def test_what_cannot_be_said_is_said_to_be_undefined(value: np.ndarray, why: str) -> None:
    """No variance, or too few minutes: no probability stands in for the missing one."""
    found = trials.judge(value[:, None], [math.nan], trainings=3, backtests=1, apart=2)

    assert math.isnan(found.deflated_sharpe)
    assert f"undefined ({why})" in trials.words(found)[1]


def test_more_trials_never_raise_the_deflated_sharpe() -> None:
    """Every model trained beside makes the same result worth less, copies of one backtest do not."""
    own = returns(1, mean=0.3).value
    found = [
        trials.judge(own[:, None], [moments(own).sharpe], trainings=n, backtests=1, apart=n).deflated_sharpe
        for n in (0, 1, 5, 50)
    ]
    copies = trials.judge(np.stack([own] * 9, axis=1), [moments(own).sharpe] * 9, trainings=1, backtests=9, apart=0)

    assert found == sorted(found, reverse=True)
    assert found[0] - found[-1] > 0.1
    assert copies.effective == pytest.approx(1.0)
    assert copies.deflated_sharpe == pytest.approx(found[0])


def test_how_badly_others_lost_is_no_reason() -> None:
    """A coin that paid its costs, backtested beside, says nothing about luck: without this rule a few hopeless
    backtests would make the variance among trials so large that nothing could ever pass."""
    own = returns(1, mean=0.5).value
    losers = [returns(k, mean=-m).value for k, m in ((2, 1.0), (3, 2.0), (4, 3.0), (5, 4.0))]
    performance = np.stack([own, *losers], axis=1)
    sharpes = [moments(column).sharpe for column in performance.T]

    found = trials.judge(performance, sharpes, trainings=1, backtests=5, apart=0)

    expected = deflated_sharpe(moments(own), effective_trials(performance), 1 / 63)
    assert found.deflated_sharpe == pytest.approx(expected)
    assert found.deflated_sharpe > 0.9
    assert deflated_sharpe(moments(own), found.effective, float(np.var(sharpes, ddof=1))) < 0.01


def test_only_what_passed_becomes_champion(tracking: Tracking) -> None:
    """The alias moves to a version that the gate has passed, to no other; `latest` is pinned by number."""
    for verdict in ("passed", "not judged"):
        with tracking.run(EXPERIMENT, "trained", {"source": "registered"}) as run:
            tracking.register(run, tags={"validation": verdict, "sha256": verdict})

    assert tracking.promote("1") == 1
    with pytest.raises(ModelMismatch, match=r"version 2 must have passed .* found 'not judged': judge it first"):
        tracking.promote("latest")

    assert int(tracking.resolve("champion").version) == 1
    assert int(tracking.resolve("challenger").version) == 2
    assert tracking.resolve("latest").tags["sha256"] == "not judged"
    with pytest.raises(ModelMissing):
        tracking.promote("9")
