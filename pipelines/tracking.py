"""What MLflow keeps: runs of training and of backtests, and the registered model with its versions.

The client is used directly, without `mlflow.start_run`'s global state and without autolog. The tracking database is
SQLite under mlruns/ by default, artifacts lie beside it. MLflow is imported inside functions: it costs three seconds.

A registered version's source is the artifact folder of its run; below it lies `bundle/` (model.lgb, bundle.json), which
is all that live reads.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import math
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from shared.errors import ModelError, ModelMismatch, ModelMissing
from shared.model import PASSED, PASSED_ON_PAPER
from shared.settings import ROOT

EXPERIMENT = "crosscut"
EXPERIMENT_BACKTESTS = "crosscut-backtests"
MODEL = "crosscut"
ALIAS, CHAMPION, PAPER_CHAMPION = "challenger", "champion", "champion-paper"

MINUTES_FILE = "minutes.csv"
"""Artifact of a run: what it did minute by minute, so that trials can be compared (`pipelines.trials`)."""

UI = "http://127.0.0.1:5000"
"""Where `make ui` serves MLflow unless told otherwise (pipelines.ui)."""

_BATCH_MAX = 1000
"""Metrics a call, MLflow's own limit (REST API, log-batch)."""


class Run:
    """One open MLflow run; closed by `Tracking.run`."""

    def __init__(self, client: Any, run: Any) -> None:
        self._client = client
        self.run_id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        self.artifact_uri: str = run.info.artifact_uri

    def log_params(self, params: Mapping[str, object]) -> None:
        from mlflow.entities import Param

        self._client.log_batch(self.run_id, params=[Param(name, str(value)) for name, value in params.items()])

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log final values; NaN is logged as NaN, so that every run has the same keys."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        self._client.log_batch(
            self.run_id, metrics=[Metric(name, float(value), now_ms, 0) for name, value in metrics.items()]
        )

    def log_curve(self, name: str, values: list[float]) -> None:
        """Log a series under one key, a step a value; values that are not finite are left out."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        points = [Metric(name, float(v), now_ms, step) for step, v in enumerate(values) if math.isfinite(v)]
        for start in range(0, len(points), _BATCH_MAX):
            self._client.log_batch(self.run_id, metrics=points[start : start + _BATCH_MAX])

    def log_files(self, paths: Sequence[Path], name: str) -> None:
        """Keep files with the run, below a folder of this name."""
        for path in paths:
            self._client.log_artifact(self.run_id, str(path), name)

    def log_folder(self, folder: Path, name: str | None = None) -> None:
        self._client.log_artifacts(self.run_id, str(folder), name)


class Tracking:
    """The tracking database and the model registry at one address.

    Args:
        uri: e.g. sqlite:////…/mlruns/mlflow.db, or http(s)://… of a server.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @functools.cached_property
    def client(self) -> Any:
        """Return MLflow's client, made at its first use: an honest end before it costs no import and no database."""
        for name, value in (
            ("MLFLOW_DISABLE_TELEMETRY", "true"),
            ("MLFLOW_UV_AUTO_DETECT", "false"),
            ("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false"),
            ("GIT_PYTHON_REFRESH", "quiet"),
        ):
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking._model_registry.client"):
            logging.getLogger(name).setLevel(logging.WARNING)
        if (database := database_of(self.uri)) is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Turn what MLflow and its database cannot do within a `with` block into one sentence.

        Raises:
            ModelError: the address is of no kind that MLflow knows, or what is there cannot be read or written.
        """
        try:
            yield
        except Exception as error:
            # By name: importing their exceptions would import them, which costs three seconds.
            if type(error).__module__.partition(".")[0] not in ("mlflow", "sqlalchemy", "alembic"):
                raise
            why = " ".join(str(error).split("[SQL:")[0].split())[:200]
            raise ModelError(
                f"MLflow must be able to read and write {self.uri}, found: {why}: "
                "correct MLFLOW_TRACKING_URI, or restore the database and its permissions"
            ) from error

    @contextlib.contextmanager
    def run(self, experiment: str, name: str, tags: Mapping[str, str]) -> Iterator[Run]:
        """Open a run for the length of a `with` block; an exception marks it FAILED and goes on."""
        run = Run(
            self.client,
            self.client.create_run(
                self._experiment(experiment), run_name=name, tags=dict(tags) | {"mlflow.source.name": "crosscut"}
            ),
        )
        try:
            yield run
        except BaseException:
            self.client.set_terminated(run.run_id, "FAILED")
            raise
        self.client.set_terminated(run.run_id, "FINISHED")

    def link(self, run_id: str) -> str:
        """Return where a browser finds a run: at the server, or where `make ui` shows the database by default."""
        base = self.uri.rstrip("/") if self.uri.startswith("http") else UI
        experiment_id = self.client.get_run(run_id).info.experiment_id
        return f"{base}/#/experiments/{experiment_id}/runs/{run_id}"

    def register(self, run: Run, *, tags: Mapping[str, str], alias: str = ALIAS) -> int:
        """Make the run's artifacts the next version of the model and move the alias to it."""
        from mlflow.exceptions import MlflowException

        with contextlib.suppress(MlflowException):  # it exists from the second training on
            self.client.create_registered_model(MODEL, description="Pooled LightGBM over every symbol; see docs.")
        version = self.client.create_model_version(
            MODEL, source=run.artifact_uri, run_id=run.run_id, tags=dict(tags), await_creation_for=0
        )
        self.client.set_registered_model_alias(MODEL, alias, version.version)
        return int(version.version)

    def promote(self, wanted: str, alias: str = CHAMPION) -> int:
        """Move a champion's alias to a version that the gate has passed; return its number.

        Raises:
            ModelMissing: no such version.
            ModelMismatch: it was not judged, or did not pass.
        """
        version = self.check_passed(wanted, alias)
        self.client.set_registered_model_alias(MODEL, alias, str(version))
        return version

    def check_passed(self, wanted: str, alias: str = CHAMPION) -> int:
        """Return the number of a version that may have a champion's alias.

        Raises:
            ModelMissing: no such version.
            ModelMismatch: it was not judged, did not pass, or passed on paper where the real market is meant.
        """
        version = self.resolve(wanted)
        enough = (PASSED,) if alias == CHAMPION else (PASSED, PASSED_ON_PAPER)
        if (found := version.tags.get("validation")) not in enough:
            raise ModelMismatch(
                f"model version {version.version} must have passed the honest-edge gate to be {alias}, "
                f"found {found!r}: judge it first (python -m pipelines.gate --model {version.version})"
            )
        return int(version.version)

    def resolve(self, wanted: str) -> Any:
        """Return MLflow's ModelVersion for `latest` (the highest READY one), a number or an alias.

        Raises:
            ModelMissing: nothing is registered under that name.
        """
        from mlflow.exceptions import MlflowException

        known = [v for v in self.client.search_model_versions(f"name='{MODEL}'") if v.status == "READY"]
        if not known:
            raise ModelMissing(
                f"a registered version of {MODEL!r} is needed, found none in {self.uri}: run python -m pipelines.train"
            )
        if wanted == "latest":
            return max(known, key=lambda version: int(version.version))
        for version in known:
            if str(version.version) == wanted:
                return version
        with contextlib.suppress(MlflowException):
            return self.client.get_model_version_by_alias(MODEL, wanted)
        numbers = ", ".join(str(number) for number in sorted(int(version.version) for version in known)[-5:])
        raise ModelMissing(
            f"--model must be latest, a version, an alias, rules or coin, found {wanted!r}, which model {MODEL!r} does "
            f"not have (latest versions: {numbers}): choose one of these"
        )

    def latest_of(self, source: str) -> str:
        """Return the highest READY version that was trained on a source.

        Raises:
            ModelMissing: there is none.
        """
        known = [
            int(v.version)
            for v in self.client.search_model_versions(f"name='{MODEL}'")
            if v.status == "READY" and v.tags.get("source") == source
        ]
        if not known:
            raise ModelMissing(
                f"a version of {MODEL!r} trained on {source} is needed, found none in {self.uri}: "
                f"run python -m pipelines.train --source {source}"
            )
        return str(max(known))

    def bundle_folder(self, version: Any) -> Path:
        """Return a local folder holding model.lgb and bundle.json of a version.

        Raises:
            ModelMissing: the database knows the version, its files are gone.
        """
        location = version.source
        parts = urlsplit(location)
        folder = (
            Path(unquote(parts.path)) / "bundle"
            if parts.scheme in ("", "file")
            else Path(self.client.download_artifacts(version.run_id, "bundle"))
        )
        if not (folder / "bundle.json").exists():
            raise ModelMissing(
                f"the bundle of model version {version.version} must lie in {folder}, found nothing: "
                "restore mlruns/ or run python -m pipelines.train"
            )
        return folder

    def count_runs(self, experiment: str) -> int:
        """Return how many runs of an experiment finished."""
        return len(self.finished(experiment))

    def finished(self, experiment: str, where: str = "") -> list[Any]:
        """Return the finished runs of an experiment, newest first; [] where there is none.

        Args:
            where: a condition in MLflow's language.
        """
        found = self.client.get_experiment_by_name(experiment)
        if found is None:
            return []
        condition = "attributes.status = 'FINISHED'" + (f" and {where}" if where else "")
        runs: list[Any] = []
        token = None
        while True:
            page = self.client.search_runs([found.experiment_id], condition, max_results=1000, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def artifact(self, run_id: str, name: str) -> Path | None:
        """Return a local copy of one artifact of a run; None where it has none of that name."""
        from mlflow.exceptions import MlflowException

        parts = urlsplit(self.client.get_run(run_id).info.artifact_uri)
        if parts.scheme in ("", "file"):
            path = Path(unquote(parts.path)) / name
            return path if path.exists() else None
        with contextlib.suppress(MlflowException):
            return Path(self.client.download_artifacts(run_id, name))
        return None

    def latest_backtest(self, kind: str, source: str) -> dict[str, float]:
        """Return the metrics of the newest finished backtest of a kind (model, coin, …) on a source; {} without one."""
        found = self.client.get_experiment_by_name(EXPERIMENT_BACKTESTS)
        if found is None:
            return {}
        runs = self.client.search_runs(
            [found.experiment_id],
            f"attributes.status = 'FINISHED' and tags.kind = '{kind}' and tags.source = '{source}'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        return dict(runs[0].data.metrics) if runs else {}

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        database = database_of(self.uri)
        location = (database.parent / "artifacts").as_uri() if database is not None else None
        return str(self.client.create_experiment(name, artifact_location=location, tags=_SHOWN_AS))


def write_signature(folder: Path, run_id: str, features: Sequence[str]) -> None:
    """Write MLflow's description of a run's artifacts: what goes in, what comes out, where the booster lies.

    MLflow's own loaders find LightGBM's model by it; its probabilities are the booster's, not yet calibrated.
    """
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    signature = ModelSignature(
        inputs=Schema([ColSpec("float", name) for name in features]),
        outputs=Schema([TensorSpec(np.dtype(np.float64), (-1, 3))]),
    )
    model = Model(run_id=run_id, signature=signature)
    model.add_flavor("lightgbm", data="bundle/model.lgb", model_class="lightgbm.basic.Booster")
    model.save(str(folder / "MLmodel"))


# The UI of MLflow 3 opens an experiment of unknown kind on its pages for language models.
_SHOWN_AS = {"mlflow.experimentKind": "custom_model_development"}


def database_of(uri: str) -> Path | None:
    """Return the file of a SQLite address, None for a server."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)).absolute() if uri.startswith(prefix) else None


def code_commit(root: Path = ROOT) -> str:
    """Return the commit checked out, with `-dirty` where tracked files differ; `unknown` without git."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=root, capture_output=True, text=True, check=True, timeout=10,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + ("-dirty" if changed else "")


def lock_hash(root: Path = ROOT) -> str:
    """Return the SHA-256 of requirements.lock: which packages the numbers came from."""
    lock = root / "requirements.lock"
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else "unknown"
