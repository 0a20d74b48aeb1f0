"""`python -m shared.simulator` as other processes see it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import websockets.sync.client

from shared.simulator import __main__ as simulator

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "shared.simulator"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_ready_line_serves_until_its_parent_is_gone() -> None:
    """One JSON line tells where it listens and what it serves; closing its stdin ends it with 0."""
    child = subprocess.Popen(
        [*COMMAND, "--port", "0", "--symbols", "3", "--seed", "5", "--with-parent"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    ready: dict[str, Any] = json.loads(child.stdout.readline())
    with urllib.request.urlopen(ready["rest"] + "/api/v2/public/time") as answer:  # noqa: S310 - our own loopback URL
        body = json.load(answer)
    child.stdin.close()

    assert child.wait(30) == 0
    child.stdout.close()
    assert body["code"] == "00000"
    assert (ready["ready"], ready["source"], ready["market"], ready["symbols"]) == (
        True,
        "simulator-g5-3",
        "generated",
        3,
    )
    assert ready["ws"].startswith("ws://127.0.0.1:")
    assert ready["ws"].endswith("/v2/ws")


def test_taken_port_is_one_sentence_and_exit_2() -> None:
    """Expected, found, what to do; no traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        ended = run("--port", str(port), "--symbols", "1")

    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert f"port {port}" in ended.stderr
    assert "choose another --port" in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--account", "a:b"],
        ["--symbols", "0"],
        ["--predictability", "2"],
        ["--recording", "/nowhere"],
        ["--seed", "-1"],
        ["--port", "99999"],
        ["--host", "192.0.2.1"],
        ["--speed", "0"],
        ["--speed", "nan"],
        ["--speed", "1000"],
        ["--history-hours", "0"],
        ["--history-hours", "nan"],
        ["--sent", "/nowhere/sent.jsonl"],
    ],
)
def test_bad_argument_is_one_sentence_and_exit_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person got wrong is said in one line."""
    monkeypatch.setattr("shared.log.configure", lambda level: None)  # the one of this process stays
    try:
        code = simulator.main(["--port", "0", *arguments])
    except SystemExit as ended:  # argparse's own way
        code = int(ended.code or 0)

    told = capsys.readouterr()
    assert (code, told.out) == (2, "")
    assert "found" in told.err.splitlines()[-1]
    assert "Traceback" not in told.err


@pytest.mark.parametrize("is_child", [False, True])
def test_stderr_tells_of_clients_unless_started_as_a_child(is_child: bool, tmp_path: Path) -> None:
    """A person reads JSON lines of who came and went; a parent process has its own log. --sent and --speed work."""
    sent = tmp_path / "sent.jsonl"
    child = subprocess.Popen(
        [*COMMAND, "--port", "0", "--symbols", "3", "--speed", "3", "--cadence", "bitget", "--sent", str(sent)]
        + ["--with-parent"] * is_child,
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    ready: dict[str, Any] = json.loads(child.stdout.readline())
    with websockets.sync.client.connect(ready["ws"] + "/public") as client:
        arg = {"instType": "USDT-FUTURES", "channel": "books15", "instId": "BTCUSDT"}
        client.send(json.dumps({"op": "subscribe", "args": [arg]}))
        received = [client.recv(10) for _ in range(12)]
    child.terminate()
    _, told = child.communicate(timeout=30)

    lines = [json.loads(line) for line in told.splitlines()]
    assert child.returncode == 0
    assert ready["speed"] == 3.0
    if is_child:
        assert lines == []
    else:
        assert [line["event"] for line in lines] == ["client.connected", "client.subscribed", "client.disconnected"]
        assert {line["logger"] for line in lines} == {"simulator"}
    recorded = [json.loads(line)["text"] for line in sent.read_text().splitlines()]
    assert received[1:] == recorded[:11]


def test_generated_market_needs_no_table_library() -> None:
    """The lean live environment starts the simulator: no polars, pyarrow, pandas or sklearn is imported."""
    code = (
        "import sys, shared.simulator.__main__ as main\n"
        "main.markets.market_of(main.parser().parse_args(['--symbols', '3'])).block(1_795_330_800)\n"
        "print([name for name in ('polars', 'pyarrow', 'pandas', 'sklearn', 'scipy', 'mlflow') if name in sys.modules])"
    )

    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == "[]"
