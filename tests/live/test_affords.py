"""A small account gets its answer at the start: how much it could trade, or why it cannot trade at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from live import doctor, run
from shared import simulator_process


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in a folder without .env, against a simulator of forty symbols that each session starts for itself."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "MARKET",
        "BITGET_VENUE",
        "BITGET_REST_URL",
        "BITGET_WS_URL",
        "SYMBOL",
        "SYMBOLS",
        "TOP_K",
        "LEVERAGE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LAKE_URI", str(tmp_path / "lake"))
    yield
    structlog.reset_defaults()


def funded(usdt: int) -> list[str]:
    return ["--symbols", "40", "--seed", "7", "--account", f"simulator:simulator:simulator:{usdt}"]


def test_doctor_says_what_fifty_eight_dollars_could_trade(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """58 USDT in twenty slots are 7.25 an order: most symbols, not those whose smallest order is dearer; a warning."""
    with simulator_process.start(funded(58)) as running:
        monkeypatch.setenv("BITGET_REST_URL", running.rest)
        monkeypatch.setenv("BITGET_WS_URL", running.ws)

        assert doctor.main(["--model", "rules"]) == 0

    said = capsys.readouterr().out
    found = re.search(
        r"warn  equity: 58\.00 USDT could trade (\d+) of (\d+) symbols \(the smallest order costs 5\.5", said
    )
    assert found is not None, said
    assert 0 < int(found[1]) < int(found[2]) == 40
    assert "all of them" in said


def test_doctor_tells_a_contradiction_before_a_session_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Spreads of 150 bps are wider than the stop of 100: the sentence with both numbers, and exit code 1."""
    monkeypatch.setenv("KILL_SPREAD_BPS_MAX", "150")
    with simulator_process.start(funded(58)) as running:
        monkeypatch.setenv("BITGET_REST_URL", running.rest)
        monkeypatch.setenv("BITGET_WS_URL", running.ws)

        assert doctor.main(["--model", "coin"]) == 1

    said = capsys.readouterr().out
    assert "FAIL  listing: stop_bps must exceed KILL_SPREAD_BPS_MAX, found 100 against 150" in said


def test_an_account_that_affords_nothing_ends_before_it_begins(capsys: pytest.CaptureFixture[str]) -> None:
    """One dollar: a clear sentence with the arithmetic, exit code 2, no order."""
    code = run.main(["--model", "coin", "--seconds", "5", "--simulator", " ".join(funded(1))])

    assert code == 2
    said = capsys.readouterr()
    assert "found 1.00 USDT x 5 (LEVERAGE) x 0.5 (margin_use_max), 0.25 a symbol: 0.62 USDT against 5.50" in said.err
    assert ", 0 orders, 0 fills" in said.out
