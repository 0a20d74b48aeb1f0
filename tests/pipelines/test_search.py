"""The search: it sees nothing of what is reported, every trial is counted, and it repeats."""

from __future__ import annotations

import logging

import msgspec
import numpy as np
import pytest

from pipelines import search
from pipelines.tracking import EXPERIMENT, Tracking
from pipelines.validation import check_gap, walk_forward
from shared.model import SHORT
from tests.pipelines.test_training import planted


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    return Tracking(f"sqlite:///{tmp_path_factory.mktemp('mlruns')}/mlflow.db")


def test_trials_are_runs_and_repeat_whatever_the_future_holds(tracking: Tracking) -> None:
    """Two searches with one seed try the same and find the same, though everything behind the fit block is scrambled;
    each trial is a finished run of the source; the first has the parameters that training uses."""
    dataset = planted(seconds=2400)
    final = walk_forward(np.unique(dataset.second), reach_s=11, lookback_s=30)[-1]
    behind = dataset.second >= final.stop.start_s
    features, label, moved = dataset.features.copy(), dataset.label.copy(), dataset.mid_bps.copy()
    features[behind], label[behind], moved[behind] = 1e3, SHORT, -1e3
    scrambled = msgspec.structs.replace(
        dataset, features=features, label=label, mid_bps=moved, source="simulator-scrambled"
    )

    found = search.search(dataset, tracking, trials=2, seed=7, threads=1)
    again = search.search(scrambled, tracking, trials=2, seed=7, threads=2)

    assert [(one.number, one.params, one.ic) for one in found.tried] == [
        (one.number, one.params, one.ic) for one in again.tried
    ]
    runs = tracking.finished(EXPERIMENT, f"tags.source = '{dataset.source}'")
    assert {run.info.run_id for run in runs} == {one.run_id for one in found.tried}
    assert {run.data.tags["kind"] for run in runs} == {"search"}
    usual = next(one for one in found.tried if one.number == 0)
    assert usual.params["num_leaves"] == 15
    assert found.tried[0].ic.mean >= usual.ic.mean > 0.5
    assert "2 trials, judged on" in search.words(found)


def test_judged_rows_lie_inside_the_fit_block() -> None:
    """The split of a search ends before early stopping of the real training begins, a gap apart on every side."""
    dataset = planted(seconds=2400)
    final = walk_forward(np.unique(dataset.second), reach_s=11, lookback_s=30)[-1]

    inner = search.inner_fold(dataset)

    assert final.fit.start_s <= inner.fit.start_s < inner.test.end_s <= final.fit.end_s
    for later in (final.stop, final.calibrate, final.test):
        check_gap(
            dataset.second[inner.test.of(dataset.second)],
            dataset.second[later.of(dataset.second)],
            reach_s=11,
            lookback_s=30,
        )


def test_an_interrupt_is_no_traceback(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C within a trial goes on to whoever called, and Optuna says nothing of it."""
    said: list[logging.LogRecord] = []
    listener = logging.Handler()
    monkeypatch.setattr(listener, "emit", said.append)
    monkeypatch.setattr(search, "fit_fold", interrupt)
    logging.getLogger("optuna").addHandler(listener)
    try:
        with pytest.raises(KeyboardInterrupt):
            search.search(planted(seconds=2400), tracking, trials=1, seed=7, threads=1)
    finally:
        logging.getLogger("optuna").removeHandler(listener)
    assert said == []


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("wanted", ["0", "-3"])
def test_no_trials_are_one_sentence(wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A number of trials that is none ends before anything is read."""
    assert search.main(["--trials", wanted]) == 2
    assert f"--trials must be 1 at least, found {wanted}" in capsys.readouterr().err
