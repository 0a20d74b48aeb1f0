"""`make ui`: ports."""

from __future__ import annotations

import socket

import pytest

from pipelines import ui


def test_taken_port_is_replaced_unless_a_person_asked_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    """The default port gives way to a free one; a port that was asked for is one sentence and exit code 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        other = ui.free_port(port, is_explicit=False, name="--dagster-port")
        code = ui.main(["--dagster-port", str(port)])

    assert other != port
    assert code == 2
    assert f"--dagster-port must be a free port of 127.0.0.1, found {port} taken" in capsys.readouterr().err
