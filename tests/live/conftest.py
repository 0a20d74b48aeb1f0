"""What a live process of its own needs: a simulator, and an environment that knows nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import simulator_process
from shared.settings import ROOT
from shared.simulator_process import SimulatorProcess


@pytest.fixture
def simulator() -> Iterator[SimulatorProcess]:
    with simulator_process.start(["--symbols", "12", "--seed", "7"]) as running:
        yield running


@pytest.fixture
def environment(tmp_path: Path, simulator: SimulatorProcess) -> dict[str, str]:
    """Return the environment of a live process on the simulator, its lake in a folder of its own."""
    names = {"BITGET_REST_URL": simulator.rest, "BITGET_WS_URL": simulator.ws, "LAKE_URI": str(tmp_path / "lake")}
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | names | {"PYTHONPATH": str(ROOT)}
