"""`python -m pipelines.backtest --tier exact`: what it leaves, and that a report of it can be computed again."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import polars as pl
import pytest

from pipelines import backtest, verify
from pipelines.generate import generate
from pipelines.seconds import write_seconds
from pipelines.tracking import EXPERIMENT_BACKTESTS, Tracking
from pipelines.trades import METRICS
from shared.lake.layout import HOUR_S
from shared.simulator.markets.market import GeneratedMarket
from tests.pipelines.markets import HOUR


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the arguments of a coin's exact backtest, as a person gives them, in an environment of its own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("LAKE_URI", str(tmp_path / "lake"))
    return ["--tier", "exact", "--model", "coin"]


def test_exact_tier_leaves_the_same_files_and_is_verified(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The files, metrics and runs of any backtest, the assumptions on the page; computed again it is equal."""
    start_s = HOUR * HOUR_S + 600
    source = generate(GeneratedMarket(7, 6), tmp_path / "lake", start_s, start_s + 240).source
    write_seconds(tmp_path / "lake", source, HOUR)
    arguments += ["--source", source, "--from", str(start_s + 60)]
    told = tmp_path / "assumptions.json"
    told.write_text('{"queue": {"type": "power", "n": 2}, "impact_half_life_s": 30}')

    code = backtest.main([*arguments, "--assumptions", str(told), "--out", str(tmp_path / "out")])

    assert code == 0, capsys.readouterr().err
    header, _ = list(csv.reader((tmp_path / "out" / "metrics.csv").open()))
    assert tuple(header) == METRICS
    assert len(pl.read_parquet(tmp_path / "out" / "trades.parquet")) > 5
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Exact tier: raw ticks" in page
    assert "queue power (n 2); impact half-life 30 s" in page
    tracking = Tracking(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = tracking.client.get_experiment_by_name(EXPERIMENT_BACKTESTS)
    assert [run.data.tags["tier"] for run in tracking.client.search_runs([experiment.experiment_id])] == ["exact"]
    capsys.readouterr()
    assert verify.main([str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("equal")
    report = tmp_path / "out" / "report.json"
    provenance = json.loads(report.read_text())
    provenance["ticks"] = dict.fromkeys(provenance["ticks"], "0" * 64)
    report.write_text(json.dumps(provenance))
    assert verify.main([str(report)]) == 3  # it reads raw rows, and these are others
    assert "raw rows of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--tier", "screen", "--assumptions", "x.json"], "add --tier exact"),
        (["--assumptions", "nowhere.json"], "nowhere.json"),
    ],
)
def test_assumptions_that_cannot_be_meant_are_refused(
    arguments: list[str], more: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is computed, with what to do."""
    assert backtest.main([*arguments, *more]) == 2
    assert sentence in capsys.readouterr().err
