"""Find a registered model without importing MLflow: once, before the loop starts.

MLflow's own client costs 4 s and 290 MB; what live needs is one row: version -> folder of artifacts. Two readers
stand behind `resolve`: the embedded SQLite database, opened read-only, and the REST API of a tracking server. Both
are held to `MlflowClient` by a contract test (tests/live/test_registry.py), because MLflow's schema may move.

Selectors, as MLflow has them: `latest` is the highest READY version, digits are a version, all else is an alias.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlencode, urlsplit

import msgspec

from shared.errors import ModelMissing, SettingsError

MODEL_NAME = "crosscut"
BUNDLE_FILES = ("bundle.json", "model.lgb")

_TIMEOUT_S = 10.0
_HOW_TO_TRAIN = "run `python -m pipelines.train` (or `make demo`), or trade without a model: --model rules | coin"


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One registered version, where its bundle lies, and what its tags say."""

    name: str
    version: int
    run_id: str
    status: str
    folder: Path  # holds model.lgb and bundle.json
    tags: dict[str, str]


class _Row(msgspec.Struct, frozen=True):
    version: int
    run_id: str
    status: str
    location: str  # URI of the artifacts
    tags: dict[str, str]


class _Registry(Protocol):
    def versions(self, name: str) -> list[_Row]: ...

    def aliases(self, name: str) -> dict[str, int]: ...


def resolve(tracking_uri: str, selector: str, *, name: str = MODEL_NAME) -> ModelVersion:
    """Return the registered version that `selector` names, its bundle readable in a local folder.

    Raises:
        ModelMissing: no such model, version or alias, it is not READY, or its files are gone.
        SettingsError: the tracking URI is of a kind that is not understood.
    """
    registry: _Registry = _open(tracking_uri)
    rows = {row.version: row for row in registry.versions(name)}
    if not rows:
        raise ModelMissing(
            f"model {name!r} must be registered at {tracking_uri}, found no version of it: {_HOW_TO_TRAIN}"
        )
    row = _select(rows, registry, name, selector)
    if row.status != "READY":
        raise ModelMissing(
            f"version {row.version} of model {name!r} must be READY, found {row.status}: choose one of {_known(rows)}"
        )
    return ModelVersion(
        name=name,
        version=row.version,
        run_id=row.run_id,
        status=row.status,
        folder=_bundle_folder(row, tracking_uri),
        tags=row.tags,
    )


def _select(rows: dict[int, _Row], registry: _Registry, name: str, selector: str) -> _Row:
    if selector == "latest":
        ready = [version for version, row in rows.items() if row.status == "READY"]
        if not ready:
            raise ModelMissing(
                f"model {name!r} must have a READY version, found none among {_known(rows)}: {_HOW_TO_TRAIN}"
            )
        return rows[max(ready)]
    if selector.isdecimal():
        version = int(selector)
    else:
        aliases = registry.aliases(name)
        if selector not in aliases:
            known = ", ".join(sorted(aliases)) or "none"
            raise ModelMissing(
                f"--model must be latest, a version, an alias, rules or coin, found {selector!r}, "
                f"which is no alias of model {name!r} (known aliases: {known}): correct it"
            )
        version = aliases[selector]
    if version not in rows:
        raise ModelMissing(f"version {version} of model {name!r} must exist, found {_known(rows)}: choose one of these")
    return rows[version]


def _known(rows: dict[int, _Row]) -> str:
    return "version" + ("s " if len(rows) > 1 else " ") + ", ".join(str(version) for version in sorted(rows))


def _open(tracking_uri: str) -> _Registry:
    scheme = urlsplit(tracking_uri).scheme
    if scheme == "sqlite":
        return _Database(Path(unquote(tracking_uri.removeprefix("sqlite:///"))))
    if scheme in ("http", "https"):
        return _Server(tracking_uri.rstrip("/"))
    raise SettingsError(
        f"MLFLOW_TRACKING_URI must be sqlite:///…, http://… or https://… to resolve a model, found {tracking_uri!r}"
    )


class _Database:
    """MLflow's SQLite file: tables model_versions, model_version_tags, registered_model_aliases."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def _rows(self, query: str, name: str) -> Iterator[list[tuple[Any, ...]]]:
        if not self.path.is_file():
            raise ModelMissing(f"the model registry must be at {self.path}, found no such file: {_HOW_TO_TRAIN}")
        try:
            with contextlib.closing(sqlite3.connect(f"file:{quote(str(self.path))}?mode=ro", uri=True)) as database:
                yield database.execute(query, (name,)).fetchall()
        except sqlite3.Error as error:
            raise ModelMissing(
                f"{self.path} must be MLflow's database, found: {error}; "
                f"if it is newer or older than this code, run `mlflow db upgrade sqlite:///{self.path}`"
            ) from None

    def versions(self, name: str) -> list[_Row]:
        tags: dict[int, dict[str, str]] = {}
        with self._rows("SELECT version, key, value FROM model_version_tags WHERE name = ?", name) as rows:
            for version, key, value in rows:
                tags.setdefault(version, {})[key] = value or ""
        query = (  # MLflow keeps deleted versions as rows of an internal stage
            "SELECT version, COALESCE(run_id, ''), status, COALESCE(storage_location, source, '') "
            "FROM model_versions WHERE name = ? AND COALESCE(current_stage, '') <> 'Deleted_Internal'"
        )
        with self._rows(query, name) as rows:
            return [
                _Row(version, run_id, status, location, tags.get(version, {}))
                for version, run_id, status, location in rows
            ]

    def aliases(self, name: str) -> dict[str, int]:
        with self._rows("SELECT alias, version FROM registered_model_aliases WHERE name = ?", name) as rows:
            return {alias: int(version) for alias, version in rows}


class _Server:
    """MLflow's REST API 2.0 (Model Registry; MLflow Artifacts for servers that proxy them)."""

    def __init__(self, base: str) -> None:
        self.base = base

    def get(self, path: str, **query: str) -> bytes:
        url = f"{self.base}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - scheme checked in _open
                body: bytes = answer.read()
                return body
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return b"{}"
            raise ModelMissing(
                f"the tracking server {self.base} must answer, found HTTP {error.code} for {path}"
            ) from None
        except OSError as error:
            raise ModelMissing(
                f"the tracking server {self.base} must be reachable, found: {error}: "
                "start it or unset MLFLOW_TRACKING_URI"
            ) from None

    def versions(self, name: str) -> list[_Row]:
        rows: list[_Row] = []
        token = ""
        while True:
            page = {"page_token": token} if token else {}
            body = self.get("/api/2.0/mlflow/model-versions/search", filter=f"name='{name}'", **page)
            answer = msgspec.json.decode(body, type=dict[str, Any])
            for found in answer.get("model_versions", []):
                where = self.get("/api/2.0/mlflow/model-versions/get-download-uri", name=name, version=found["version"])
                location = msgspec.json.decode(where, type=dict[str, Any]).get("artifact_uri", "")
                tags = {tag["key"]: tag.get("value", "") for tag in found.get("tags", [])}
                rows.append(_Row(int(found["version"]), found.get("run_id", ""), found["status"], location, tags))
            token = answer.get("next_page_token", "")
            if not token:
                return rows

    def aliases(self, name: str) -> dict[str, int]:
        answer = msgspec.json.decode(self.get("/api/2.0/mlflow/registered-models/get", name=name), type=dict[str, Any])
        found = answer.get("registered_model", {}).get("aliases", [])
        return {alias["alias"]: int(alias["version"]) for alias in found}


def _bundle_folder(row: _Row, tracking_uri: str) -> Path:
    """Return the local folder of the bundle; artifacts behind a server are copied to a temporary one."""
    parts = urlsplit(row.location)
    if parts.scheme == "mlflow-artifacts":
        return _download(row, tracking_uri)
    if parts.scheme not in ("", "file"):
        raise ModelMissing(
            f"artifacts of version {row.version} must be local or behind the server, found {row.location}"
        )
    root = Path(unquote(parts.path))
    for folder in (root / "bundle", root):
        if all((folder / name).is_file() for name in BUNDLE_FILES):
            return folder
    raise ModelMissing(
        f"version {row.version} must have {' and '.join(BUNDLE_FILES)} under {root}, found them missing: "
        "train again, or move the artifacts back (MLflow stores their path absolutely)"
    )


def _download(row: _Row, tracking_uri: str) -> Path:
    server = _Server(tracking_uri.rstrip("/"))
    root = urlsplit(row.location).path.strip("/")
    folder = Path(tempfile.mkdtemp(prefix="crosscut-bundle-"))
    for name in BUNDLE_FILES:
        prefix = root if root.endswith("/bundle") else f"{root}/bundle"
        body = server.get(f"/api/2.0/mlflow-artifacts/artifacts/{quote(prefix)}/{name}")
        if body == b"{}":
            raise ModelMissing(
                f"version {row.version} must have bundle/{name} at {row.location}, found nothing: train again"
            )
        (folder / name).write_bytes(body)
    return folder
