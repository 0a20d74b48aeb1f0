"""Paper trading on somebody else's feed: MARKET=bitget with the simulated venue, a second simulator in Bitget's place."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from live import doctor, replay, run
from shared import simulator_process
from shared.simulator_process import SimulatorProcess
from tests.live.test_run import SETTINGS
from tests.live.test_session import at_venue, orders_and_fills


@pytest.fixture(scope="module")
def upstream() -> Iterator[SimulatorProcess]:
    with simulator_process.start(["--symbols", "12", "--seed", "7"]) as running:
        yield running


@pytest.fixture(autouse=True)
def _on_relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upstream: SimulatorProcess) -> Iterator[None]:
    """Read the upstream as if it were Bitget, trade on paper, and leave no trace."""
    monkeypatch.chdir(tmp_path)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MARKET", "bitget")
    monkeypatch.setenv("MARKET_REST_URL", upstream.rest)
    monkeypatch.setenv("MARKET_WS_URL", upstream.ws)
    monkeypatch.setenv("LAKE_URI", str(tmp_path / "lake"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    yield
    structlog.reset_defaults()


def test_session_trades_on_paper_against_the_feed(
    tmp_path: Path, upstream: SimulatorProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    """A coin's orders fill on the relay's own venue; the ledger equals it, the end is flat, the replay is identical,
    the ticks are said to be the upstream's, and the upstream's venue never heard of any of it."""
    folder = tmp_path / "session"

    code = run.main(["--model", "coin", "--seconds", "6", "--session-dir", str(folder)])
    said = capsys.readouterr()

    summary = json.loads((folder / "session.json").read_text())
    orders, fills = orders_and_fills(folder)
    assert code == 0, said.err
    assert summary["source"] == upstream.source
    assert orders
    assert summary["fills"] > 0
    assert fills
    assert summary["flat_at_end"]
    assert summary["pnl_usdt"]["ledger_equals_venue"]
    assert at_venue(upstream, lambda client: client.fills()) == ()
    assert replay.main([str(folder)]) == 0


def test_session_on_a_running_relay_checks_that_it_is_one(
    upstream: SimulatorProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A simulator with a market of its own is not Bitget's feed, and a relay is no market of our own."""
    monkeypatch.setenv("BITGET_REST_URL", upstream.rest)
    monkeypatch.setenv("BITGET_WS_URL", upstream.ws)

    code = run.main(["--model", "coin", "--seconds", "1"])
    said = capsys.readouterr().err.strip().splitlines()[-1]

    assert code == 2
    assert "must be of MARKET=bitget, found that its market is generated: set MARKET=simulator" in said


def test_upstream_that_is_not_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the relay cannot reach ends the session before it begins, in the relay's words."""
    monkeypatch.setenv("MARKET_REST_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("MARKET_WS_URL", "ws://127.0.0.1:9/v2/ws")

    code = run.main(["--model", "coin", "--seconds", "1"])
    said = capsys.readouterr().err.strip().splitlines()[-1]

    assert code == 6
    assert "an upstream on this machine must be a running simulator, found" in said


def test_doctor_looks_at_the_relay(upstream: SimulatorProcess) -> None:
    """The doctor starts the same relay as a session and counts what the upstream lists."""
    with urllib.request.urlopen(f"{upstream.rest}/_control/market", timeout=10) as answer:  # noqa: S310 - our own loopback
        listed = json.load(answer)["symbols"]

    findings = list(doctor.findings_of("coin"))

    assert f"{listed} perpetuals of {upstream.source}" in " ".join(finding.sentence for finding in findings)
    assert [finding for finding in findings if finding.state == "FAIL"] == []
