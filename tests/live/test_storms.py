"""Whole sessions in bad weather: whatever exchange and network do, a session trades on, ends flat and knows what it has.

A storm that fails prints its seed, its script and the command that repeats it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from live import flatten as live_flatten
from live import replay
from shared import journal
from shared.simulator_process import SimulatorProcess
from tests.live import storms
from tests.live.test_session import at_venue, buy_ten_usdt, control, orders_and_fills, truth, wait_for

STORM_S = 20.0
STOP_S = 90.0
"""An unknown placement takes 35 s to be proven absent."""

SEEDS = [int(seed) for seed in os.environ.get("STORM_SEEDS", "1 2 3 5 7 8 11 13").split()]


def start(environment: dict[str, str], folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a session of the coin; return it and its folder. What it says goes to the file "err"."""
    command = [sys.executable, "-m", "live.run", "--model", "coin", "--session-dir", str(folder / "session")]
    with (folder / "err").open("w") as err:
        live = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=err, text=True)
    return live, folder / "session"


def state(simulator: SimulatorProcess) -> dict[str, Any]:
    with urllib.request.urlopen(f"{simulator.rest}/_control/conditions", timeout=10) as answer:  # noqa: S310 - ours
        found: dict[str, Any] = json.load(answer)
    return found


def assert_ended_well(simulator: SimulatorProcess, folder: Path, code: int) -> dict[str, Any]:
    """Assert flat, known to the last digit, sent once, and replayable; return the summary."""
    summary: dict[str, Any] = json.loads((folder / "session.json").read_text())
    assert code == 0
    assert summary["flat_at_end"]
    assert summary["pnl_usdt"]["ledger_equals_venue"]
    assert Decimal(summary["pnl_usdt"]["adjustments"]) == 0  # every difference was explained by a fill or a bill
    at_end = truth(simulator)
    assert (at_end.positions, at_end.orders) == ((), ())
    orders, fills = orders_and_fills(folder)
    assert len({order.client_oid for order in orders}) == len(orders)
    venue_fills = at_venue(simulator, lambda client: client.fills())
    assert {fill.trade_id for fill in fills} == {fill.trade_id for fill in venue_fills}
    assert summary["fills"] == len(venue_fills)
    assert replay.replay(folder).difference is None
    return summary


def test_session_begins_in_bad_weather(
    tmp_path: Path, environment: dict[str, str], simulator: SimulatorProcess
) -> None:
    """Settings that are not answered are asked for again: every symbol is traded in the end, the login that gets no
    answer is repeated, and the session ends flat."""
    control(
        simulator,
        "script",
        conditions={
            "requests": [
                {"what": "gateway", "path": "market/tickers", "count": 9},
                {"what": "reset", "when": "after", "path": "account/set-leverage", "count": 10},
                {"what": "torn", "when": "after", "path": "position/*|account/account|order/fills", "p": 0.2},
                {"what": "silence", "when": "after", "path": "order/place-order", "p": 0.1},
            ],
            "pushes": [{"what": "lose", "stream": "private", "p": 0.2}, {"what": "duplicate", "p": 0.1}],
        },
    )
    live, folder = start(environment, tmp_path)
    try:
        wait_for(lambda: '"leverage.set"' in (tmp_path / "err").read_text(), "all leverages")
        control(simulator, "conditions", requests=[], pushes=[])
        live.send_signal(signal.SIGTERM)
        live.wait(STOP_S)
    finally:
        live.kill()

    summary = assert_ended_well(simulator, folder, live.returncode)
    assert summary["symbols_tradable"] == 12


@pytest.mark.parametrize("is_foreseen", [True, False])
def test_flatten_closes_what_no_order_may(
    is_foreseen: bool,
    tmp_path: Path,
    environment: dict[str, str],
    simulator: SimulatorProcess,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A contract's step grows above what is held, which its rules say, or an order is refused, which they do not: the
    exchange's own flash close ends it."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    at_venue(simulator, lambda client: buy_ten_usdt(client, simulator.source))
    wait_for(lambda: bool(truth(simulator).positions), "a position")
    if is_foreseen:
        control(simulator, "conditions", contracts={"XRPUSDT": {"sizeMultiplier": "1000", "minTradeNum": "1000"}})
    else:
        no = {"path": "order/place-order", "code": "45111", "msg": "less than the minimum order quantity"}
        control(simulator, "conditions", refuse_next=[no])

    code = live_flatten.main([])

    assert code == 0
    assert truth(simulator).positions == ()
    told = capsys.readouterr()
    assert ("close.refused" in told.err) is not is_foreseen
    assert "position.flash_closing" in told.err


@pytest.mark.nightly
@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", SEEDS)
def test_session_outlives_a_storm(
    tmp_path: Path, environment: dict[str, str], simulator: SimulatorProcess, seed: int
) -> None:
    """A random script of everything that may go wrong, twenty seconds long: the session ends as if nothing had been."""
    script = storms.storm(seed, STORM_S)
    print(f"STORM_SEEDS={seed} pytest -m nightly tests/live/test_storms.py; its script: {json.dumps(script)}")
    live, folder = start(environment, tmp_path)
    try:
        wait_for(lambda: (folder / journal.FILE_NAME).exists() and bool(orders_and_fills(folder)[1]), "a fill")
        told = control(simulator, "script", **script)
        print(told["reproduce"])
        while state(simulator)["steps_left"]:
            time.sleep(0.5)
        time.sleep(storms.CALM_S)  # a session is not stopped in the eye of the storm, but after it
        live.send_signal(signal.SIGTERM)
        live.wait(STOP_S)
    finally:
        live.kill()

    print((tmp_path / "err").read_text())
    assert_ended_well(simulator, folder, live.returncode)


def test_storms_are_scripts_and_repeat() -> None:
    """Every storm is a script that the simulator takes, and a seed has one storm."""
    for seed in range(200):
        script = storms.storm(seed, STORM_S)

        assert len(storms.check(script).steps) == 11
        assert script == storms.storm(seed, STORM_S)
