"""The command line's choice of a market: each kind serves, each contradiction is one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.generate import generate
from shared import simulator_process
from shared.simulator import __main__ as simulator
from shared.simulator.markets.market import GeneratedMarket

ROOT = Path(__file__).resolve().parents[3]
BEGIN_S = 489_000 * 3600 + 60


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lake")
    generate(GeneratedMarket(3, 2), root, BEGIN_S, BEGIN_S + 150)
    return root


def ends(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Return exit code and what the simulator says instead of a ready line."""
    code = simulator.main([*arguments, "--port", "0"])
    said = capsys.readouterr()
    assert said.out == ""
    return code, said.err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["--market", "bitget", "--recording", "x"], 2, "one market is served, found --recording and --market bitget"),
        (["--lake", "x", "--source", "bitget", "--market", "bitget"], 2, "found --lake and --market bitget"),
        (["--upstream-rest", "http://127.0.0.1:1"], 2, "--upstream-rest belongs to --market bitget, which is missing"),
        (["--source", "bitget"], 2, "--source belongs to --lake, which is missing"),
        (["--from", "2026-11-22T10:00"], 2, "--from belongs to --lake"),
        (["--lake", "x"], 2, "--lake needs --source, which is missing"),
        (["--anchor-ns", "1"], 2, "--anchor-ns belongs to --recording or --lake"),
        (["--lake", "ftp://bucket", "--source", "bitget"], 2, "must be a folder or s3://bucket/prefix"),
        (["--market", "bitget", "--checksum"], 2, "as Bitget sends them, found --checksum"),
        (["--market", "bitget", "--speed", "10"], 2, "runs in real time, found --speed 10"),
        (["--market", "bitget", "--upstream-rest", "https://bitget.com.evil.io"], 2, r"must be on this machine or https"),
        (["--market", "bitget", "--upstream-rest", "http://127.0.0.1:9"], 2, "lead to one exchange"),
        (
            ["--market", "bitget", "--upstream-rest", "http://127.0.0.1:9", "--upstream-ws", "ws://127.0.0.1:9/v2/ws"],
            6, "an upstream on this machine must be a running simulator, found",
        ),
    ],
)  # fmt: skip
def test_contradiction_is_one_sentence(
    arguments: list[str], code: int, why: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What was expected, what was found, what to do; no traceback, no ready line."""
    monkeypatch.chdir(tmp_path)

    found, said = ends(capsys, *arguments)

    assert found == code
    assert why in said


@pytest.mark.parametrize(
    ("change", "code", "why"),
    [
        (["--source", "bitget"], 3, r"sources here: simulator-g3-2"),
        (["--source", "simulator-g3-2", "--from", "2031-01-01"], 3, "found nothing"),
        (["--source", "simulator-g3-2", "--to", str(BEGIN_S + 70)], 2, "must have 120 seconds, found"),
    ],
)
def test_lake_without_such_a_window_is_one_sentence(
    lake: Path, change: list[str], code: int, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A source that is not there, a window without rows, one that is too short."""
    found, said = ends(capsys, "--lake", str(lake), *change)

    assert found == code
    assert why in said


def test_time_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A word is no moment."""
    with pytest.raises(SystemExit):
        simulator.parser().parse_args(["--from", "yesterday"])

    assert "must be a UTC time such as 2026-11-22T10:00" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["2025-10-14T00:01", "2025-10-14T00:01Z", "2025-10-14T02:01+02:00", str(BEGIN_S)])
def test_times_are_utc(text: str) -> None:
    """A time without a zone is UTC, as every time in the lake is."""
    assert simulator.parser().parse_args(["--from", text]).start == BEGIN_S


def test_each_market_says_what_it_is(lake: Path) -> None:
    """A lake is replayed by one simulator and relayed by a second: the ready lines say whose ticks they are."""
    with simulator_process.start(["--lake", str(lake), "--source", "simulator-g3-2"]) as replaying:
        upstream = ["--upstream-rest", replaying.rest, "--upstream-ws", replaying.ws]
        with simulator_process.start(["--market", "bitget", *upstream]) as relaying:
            replayed, relayed = replaying.ready, relaying.ready

    assert (replayed["market"], replayed["symbols"]) == ("replayed", 2)
    assert replayed["source"].startswith("simulator-g3-2-replayed-")
    assert (relayed["market"], relayed["symbols"]) == ("relayed", 2)
    assert relayed["source"] == replayed["source"]
    assert relayed["upstream"] == replayed["rest"]


def test_relay_needs_no_table_library() -> None:
    """The lean live environment relays: nothing of the lake is imported, in no way."""
    code = (
        "import sys, json, shared.simulator.__main__ as main\n"
        "main.main(['--market', 'bitget', '--upstream-rest', 'http://127.0.0.1:9', '--upstream-ws', 'ws://127.0.0.1:9'])\n"
        "print(json.dumps([m for m in ('polars', 'pyarrow', 'pandas', 'sklearn', 'scipy', 'mlflow') if m in sys.modules]))"
    )

    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert json.loads(ended.stdout) == []
