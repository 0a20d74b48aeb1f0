"""The demo: fails where it would have shown nothing, and goes the whole road."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines import demo
from shared import journal, simulator_process
from shared.errors import JournalError
from shared.settings import ROOT
from shared.types import Filled

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


LIVE_STEP = """
import signal, sys
from pathlib import Path
from pipelines.demo import Demo

# As demo.main does: a process that a shell starts in the background is born deaf to SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
road = Demo(Path(sys.argv[1]), 60)
road.environment |= {"BITGET_REST_URL": sys.argv[2], "BITGET_WS_URL": sys.argv[3]}
try:
    road.side_by_side(
        lambda: road.run("live.run", "--model", "coin", "--session-dir", sys.argv[4], quiet=True),
        lambda: road.run("live.doctor", "--model", "coin", quiet=True),
    )
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_interrupt_waits_until_a_session_is_flat(tmp_path: Path) -> None:
    """Ctrl-C during the live step stops each session once and waits for it: it ends flat while its venue stands.

    It would catch a simulator that is stopped before the sessions on it: positions open, and nobody to ask.
    """
    folder = tmp_path / "session"

    def is_trading() -> bool:
        with contextlib.suppress(JournalError):  # no file yet, or no header in it
            return any(isinstance(r.value, Filled) for r in journal.JournalReader(folder / journal.FILE_NAME))
        return False

    with simulator_process.start(["--symbols", "4"]) as simulator, subprocess.Popen(
        [sys.executable, "-c", LIVE_STEP, str(tmp_path / "lake"), simulator.rest, simulator.ws, str(folder)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as step:  # fmt: skip
        try:
            while step.poll() is None and not is_trading():
                time.sleep(0.2)  # a file that another process writes cannot be awaited
            step.send_signal(signal.SIGINT)
            said, _ = step.communicate(timeout=60)
        finally:
            step.kill()

    told = json.loads((folder / "session.json").read_text())
    assert step.returncode == 130, said
    assert told["ended_by"] == "stopped by SIGTERM"
    assert told["fills"] > 0
    assert told["flat_at_end"]
    assert told["pnl_usdt"]["ledger_equals_venue"]
    assert "stopping when the sessions are flat" in said


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
