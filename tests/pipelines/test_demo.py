"""The demo: fails where it would have shown nothing, and goes the whole road."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines import demo
from shared.settings import ROOT

SESSION: dict[str, Any] = {
    "folder": "somewhere",
    "fills": demo.COIN_FILLS_MIN,
    "orders": {"placed": 20},
    "flat_at_end": True,
    "pnl_usdt": {"net": "-0.5", "ledger_equals_venue": True},
    "latency_ms": {"second_closed_to_orders_sent": {"p50": 5.0, "p99": 9.0}},
    "replay": "identical",
}


def test_demo_passes_what_was_shown_on_something() -> None:
    """A flat coin with enough fills and an agreeing ledger is what the demo wants."""
    assert demo.verdict({"live": {"coin": SESSION}}) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"fills": demo.COIN_FILLS_MIN - 1}, "found 19"),
        ({"flat_at_end": False}, "must end flat"),
        ({"pnl_usdt": {"net": "0", "ledger_equals_venue": False}}, "venue's equity"),
    ],
)
def test_demo_fails_on_a_vacuous_or_wrong_session(change: dict[str, Any], why: str) -> None:
    """Too few fills, an open position and a ledger that differs each fail the demo, whatever else went well."""
    problem = demo.verdict({"live": {"coin": copy.deepcopy(SESSION) | change}})

    assert problem is not None
    assert why in problem


def test_unknown_recording_is_one_sentence(tmp_path: Path) -> None:
    """A folder that is no recording ends the demo before anything is written, without a traceback."""
    ended = subprocess.run(
        [sys.executable, "-m", "pipelines.demo", "--recording", str(tmp_path)],
        cwd=ROOT, env=os.environ | {"LAKE_URI": str(tmp_path / "lake")}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ended.returncode != 0
    assert "book.parquet" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "lake").exists()


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_demo_goes_the_whole_road(tmp_path: Path) -> None:
    """A short demo ends with its summary, and every figure in it is marked as a generated market's."""
    environment = os.environ | {
        "LAKE_URI": str(tmp_path / "lake"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "DAGSTER_HOME": str(tmp_path / "dagster"),
    }

    ended = subprocess.run(
        [sys.executable, "-m", "pipelines.demo", "--hours", "0.3", "--seconds", "20"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert "every figure is from a generated market" in ended.stdout
    assert ended.stdout.count("identical: session") >= 2


@pytest.mark.nightly
def test_interrupted_demo_leaves_no_process(tmp_path: Path) -> None:
    """Ctrl-C while it generates ends the demo and everything that it started."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.demo", "--hours", "1"],
        cwd=ROOT, env=os.environ | {"LAKE_URI": str(tmp_path / "lake")}, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().startswith("generated"):
            break
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)

    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False).stdout
    group = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, text=True, check=False).stdout
    assert process.returncode == 130
    assert (left, group) == ("", "")
