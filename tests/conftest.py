"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile(
    "crosscut",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("crosscut")


@pytest.fixture(scope="session")
def outside() -> Path:
    """Return the folder of recorded payloads and books beside the checkout; skip where there is none."""
    folder = Path(os.environ.get("CROSSCUT_SHARED", ROOT.parent / "shared"))
    if not (folder / "bitget" / "fixtures" / "MANIFEST.json").exists():
        pytest.skip("recorded payloads are not here: set CROSSCUT_SHARED to a folder that holds bitget/ and market/")
    return folder
