"""A database of MLflow takes seconds to make: one is made, and copied for every test that writes to it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.tracking import EXPERIMENT, EXPERIMENT_BACKTESTS, Tracking


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow")
    tracking = Tracking(f"sqlite:///{folder}/mlflow.db")
    assert tracking.finished(EXPERIMENT) == tracking.finished(EXPERIMENT_BACKTESTS) == []
    tracking.client._tracking_client.store._dispose_engine()
    return folder / "mlflow.db"


@pytest.fixture
def made_database(empty_database: Path) -> Callable[[Path], str]:
    """Return how to make a database in a folder; its address."""

    def make(folder: Path) -> str:
        shutil.copyfile(empty_database, folder / "mlflow.db")
        return f"sqlite:///{folder}/mlflow.db"

    return make
