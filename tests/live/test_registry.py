"""The registry without MLflow, held to MlflowClient."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from live import registry
from shared.errors import ModelMissing, SettingsError

mlflow = pytest.importorskip("mlflow")
NAME = registry.MODEL_NAME


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a database with versions 1 to 4: 2 is champion, 3 was deleted, 4 is not READY."""
    root = tmp_path_factory.mktemp("mlruns")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri, uri)
    client.create_registered_model(NAME)
    for version in range(1, 5):
        folder = root / f"run {version}" / "artifacts"  # a blank, which a URI writes as %20
        (folder / "bundle").mkdir(parents=True)
        for name in registry.BUNDLE_FILES:
            (folder / "bundle" / name).write_text(f"{name} of {version}")
        client.create_model_version(NAME, folder.as_uri(), run_id=None, tags={"source": f"simulator-{version}"})
    client.set_registered_model_alias(NAME, "champion", "2")
    client.delete_model_version(NAME, "3")
    with sqlite3.connect(root / "mlflow.db") as database:
        database.execute("UPDATE model_versions SET status = 'PENDING_REGISTRATION' WHERE version = 4")
    return uri


@pytest.fixture(scope="module")
def server(uri: str) -> Iterator[str]:
    """Serve the same database over MLflow's own HTTP handlers, in a thread."""
    serving = pytest.importorskip("werkzeug.serving")
    patch = pytest.MonkeyPatch()
    for variable in ("_MLFLOW_SERVER_FILE_STORE", "_MLFLOW_SERVER_REGISTRY_STORE"):
        patch.setenv(variable, uri)
    from mlflow.server import app

    http = serving.make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{http.port}"
    http.shutdown()
    thread.join()
    http.server_close()
    patch.undo()


@pytest.fixture(params=["uri", "server"])
def tracking(request: pytest.FixtureRequest) -> str:
    where: str = request.getfixturevalue(request.param)
    return where


def test_resolve_agrees_with_mlflow_client(tracking: str) -> None:
    """Version and alias give the version, the folder and the tags that MlflowClient gives; latest is the highest READY."""
    client = mlflow.MlflowClient(tracking, tracking)
    ready = [int(found.version) for found in client.search_model_versions(f"name='{NAME}'") if found.status == "READY"]
    expected = {
        "2": client.get_model_version(NAME, "2"),
        "champion": client.get_model_version_by_alias(NAME, "champion"),
        "latest": client.get_model_version(NAME, str(max(ready))),
    }

    found = {selector: registry.resolve(tracking, selector) for selector in expected}

    for selector, theirs in expected.items():
        ours = found[selector]
        assert (ours.version, ours.status, ours.tags) == (int(theirs.version), theirs.status, theirs.tags)
        location = client.get_model_version_download_uri(NAME, theirs.version)
        assert ours.folder.parent.as_uri() == location
        assert (ours.folder / "model.lgb").read_text() == f"model.lgb of {theirs.version}"


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("9", "version 9 .* found versions 1, 2, 4"),
        ("3", "version 3 .* must exist"),  # deleted
        ("4", "must be READY, found PENDING_REGISTRATION"),
        ("challenger", "known aliases: champion"),
    ],
)
def test_resolve_what_is_not_there_says_what_is(tracking: str, selector: str, message: str) -> None:
    """An unknown version or alias, a deleted or an unready one is refused with what could be chosen instead."""
    with pytest.raises(ModelMissing, match=message):
        registry.resolve(tracking, selector)


def test_resolve_unknown_model_says_how_to_train(tracking: str) -> None:
    """A registry without the model names the command that makes one."""
    with pytest.raises(ModelMissing, match=r"pipelines\.train"):
        registry.resolve(tracking, "latest", name="nobody")


def test_resolve_without_database_says_how_to_train(tmp_path: Path) -> None:
    """A fresh clone has no registry; nothing is created by asking."""
    with pytest.raises(ModelMissing, match=r"no such file.*pipelines\.train"):
        registry.resolve(f"sqlite:///{tmp_path / 'mlflow.db'}", "latest")
    assert not list(tmp_path.iterdir())


def test_resolve_foreign_database_is_no_traceback(tmp_path: Path) -> None:
    """A file that is not MLflow's database is named, and so is the remedy."""
    (tmp_path / "mlflow.db").write_bytes(b"not a database, by far" * 100)
    with pytest.raises(ModelMissing, match="must be MLflow's database"):
        registry.resolve(f"sqlite:///{tmp_path / 'mlflow.db'}", "latest")


def test_resolve_missing_artifacts_names_their_folder(uri: str) -> None:
    """A registered version whose files were removed is refused with the path that is missing."""
    folder = registry.resolve(uri, "1").folder
    (folder / "model.lgb").rename(folder / "moved.lgb")
    try:
        with pytest.raises(ModelMissing, match=r"version 1 .*model\.lgb"):
            registry.resolve(uri, "1")
    finally:
        (folder / "moved.lgb").rename(folder / "model.lgb")


def test_resolve_other_tracking_uri_is_a_setting() -> None:
    """Postgres and friends are read through a tracking server, and the message says so."""
    with pytest.raises(SettingsError, match="MLFLOW_TRACKING_URI"):
        registry.resolve("postgresql://localhost/mlflow", "latest")
