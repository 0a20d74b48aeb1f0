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


@pytest.mark.parametrize("port", ["99999", "-1", "many"])
def test_port_that_is_none_is_one_sentence(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no port is said before anything is started."""
    with pytest.raises(SystemExit) as ended:
        ui.main(["--mlflow-port", port])

    assert ended.value.code == 2
    assert f"must be a port, 1 to 65535, found '{port}'" in capsys.readouterr().err


def test_one_port_for_both_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Two programs on one port would show one of them under both names."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    code = ui.main(["--dagster-port", str(port), "--mlflow-port", str(port)])

    assert code == 2
    assert f"must differ, found {port} twice" in capsys.readouterr().err
