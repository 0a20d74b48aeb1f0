"""The lake's tests run on a folder; with CROSSCUT_TEST_LAKE=s3 every temporary folder stands for a bucket's prefix."""

from __future__ import annotations

import os
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from shared.lake.remote import MARKER

BUCKET = "lake"


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Run a local S3 server with a bucket, and let this process's clients find it; the bucket's URI."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    request = urllib.request.Request(f"http://{host}:{port}/{BUCKET}", method="PUT")
    urllib.request.urlopen(request).close()  # noqa: S310
    yield f"s3://{BUCKET}"
    server.stop()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def stand_for(root: Path, uri: str) -> Path:
    """Let a folder stand for a lake in a store, as the settings do."""
    root.mkdir(parents=True, exist_ok=True)
    (root / MARKER).write_text(uri)
    return root


if os.environ.get("CROSSCUT_TEST_LAKE") == "s3":

    @pytest.fixture
    def tmp_path(tmp_path: Path, s3: str) -> Path:
        return stand_for(tmp_path, f"{s3}/{uuid.uuid4()}")

    @pytest.fixture(scope="session")
    def tmp_path_factory(tmp_path_factory: pytest.TempPathFactory, s3: str) -> pytest.TempPathFactory:
        make = tmp_path_factory.mktemp

        def mktemp(basename: str, numbered: bool = True) -> Path:
            return stand_for(make(basename, numbered), f"{s3}/{uuid.uuid4()}")

        tmp_path_factory.mktemp = mktemp  # type: ignore[method-assign]
        return tmp_path_factory
