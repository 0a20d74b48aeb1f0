"""Paper sessions of random settings in random markets and storms, killed in mid-air and begun again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from live import replay
from shared import journal, simulator_process
from shared.settings import ROOT
from shared.simulator_process import SimulatorProcess
from tests.fuzz.draws import Dice, dice_of, one_of
from tests.live import storms
from tests.live.test_session import at_venue, control, orders_and_fills, truth, wait_for
from tests.live.test_storms import state

STOP_S = 120.0
"""An unknown placement takes 35 s to be proven absent, and what closes it may be unknown as well."""

SEEDS = [int(seed) for seed in os.environ.get("SESSION_SEEDS", "1 2 3 4 5 6").split()]

SETTINGS: dict[str, tuple[str, ...]] = {
    "TOP_K": ("1", "3", "10", "100"),
    "LEVERAGE": ("1", "5", "20"),
    "DECISION_SECONDS": ("1", "2", "5"),
    "DAILY_LOSS_LIMIT": ("0.0005", "0.1", "1"),
    "MAX_DRAWDOWN_PCT": ("0.0005", "0.15", "1"),
    "KILL_SPREAD_BPS_MAX": ("5", "20", "90"),
    "KILL_DEPTH_USDT_MIN": ("0", "5000"),
    "SLIPPAGE_BPS": ("0", "2"),
    "EXPLORE_BPS_PER_DAY": ("0", "100"),
}
"""What a person may set; the rest is drawn where no process is needed (`test_wires`)."""


def chosen(dice: Dice) -> dict[str, str]:
    return {name: one_of(dice, *values) for name, values in SETTINGS.items() if dice.random() < 0.5}


def begin(environment: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    folder.mkdir()
    command = [sys.executable, "-m", "live.run", "--model", "coin", "--session-dir", str(folder / "session")]
    with (folder / "err").open("w") as err:
        return subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=err, text=True)


def has_begun(folder: Path, live: subprocess.Popen[str]) -> bool:
    """Say whether the session trades, or has said why it does not."""
    path = folder / "session" / journal.FILE_NAME
    return live.poll() is not None or (path.exists() and bool(orders_and_fills(path.parent)[0]))


def trade(environment: dict[str, str], folder: Path, simulator: SimulatorProcess, dice: Dice, *, is_last: bool) -> int:
    """Live through one session, which the last one ends by itself and the others by kill -9; return its exit code."""
    settings = chosen(dice)
    live = begin(environment | settings, folder)
    print(f"{folder.name}: {settings}, {'stopped' if is_last else 'killed'}")
    try:
        wait_for(lambda: has_begun(folder, live), "an order")
        if live.poll() is not None:
            return live.returncode
        script = storms.storm(int(dice.integers(1, 1000)), 10.0)
        print(json.dumps(script))
        control(simulator, "script", **script)
        time.sleep(float(dice.uniform(0.5, 9.0)))  # when the power fails is nobody's condition
        if not is_last:
            live.kill()
            live.wait()
            return -signal.SIGKILL
        wait_for(lambda: not state(simulator)["steps_left"], "the end of the storm")
        time.sleep(storms.CALM_S)
        live.send_signal(signal.SIGTERM)
        return live.wait(STOP_S)
    finally:
        live.kill()
        live.wait()


@pytest.mark.nightly
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_and_begun_again(tmp_path: Path, seed: int) -> None:
    """Two sessions die in storms, the third is told to stop: it ends flat, no order was sent twice by any of them, every
    journal, torn or whole, happens again, and the last one counts as the exchange does."""
    dice = dice_of(seed, 3)
    equity = one_of(dice, "58", "1000", "10000", "1000000")
    listed = ["--symbols", str(one_of(dice, 3, 12, 40)), "--seed", str(seed)]
    listed += ["--listings-per-day", one_of(dice, "0", "720"), "--account", f"simulator:simulator:simulator:{equity}"]
    print(f"SESSION_SEEDS={seed}: {listed}")
    with simulator_process.start(listed) as simulator:
        names = {"BITGET_REST_URL": simulator.rest, "BITGET_WS_URL": simulator.ws, "LAKE_URI": str(tmp_path / "lake")}
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment = kept | names | {"PYTHONPATH": str(ROOT)}
        folders = [tmp_path / name for name in ("a", "b", "c")]
        codes = [trade(environment, folder, simulator, dice, is_last=folder is folders[-1]) for folder in folders]
        said = [(folder / "err").read_text() for folder in folders]
        print(said[-1])
        assert_clean(simulator, folders, codes, said)


def assert_clean(simulator: SimulatorProcess, folders: list[Path], codes: list[int], said: list[str]) -> None:
    sent: list[str] = []
    heard: set[str] = set()
    for folder, code, err in zip(folders, codes, said, strict=True):
        assert "Traceback" not in err, err
        if not (folder / "session" / journal.FILE_NAME).exists():
            assert code not in (0, -signal.SIGKILL), err
            continue
        assert replay.replay(folder / "session").difference is None
        orders, fills = orders_and_fills(folder / "session")
        sent += [order.client_oid for order in orders]
        heard |= {fill.trade_id for fill in fills}
    assert len(set(sent)) == len(sent)
    if codes[-1] != 0:  # it refused to begin, with a sentence
        assert not (folders[-1] / "session" / "session.json").exists() or said[-1].strip(), said[-1]
        pytest.skip(said[-1].strip().splitlines()[-1])
    summary: dict[str, Any] = json.loads((folders[-1] / "session" / "session.json").read_text())
    assert summary["flat_at_end"], summary
    assert summary["pnl_usdt"]["ledger_equals_venue"], summary["pnl_usdt"]
    if "account.adopted_open" not in said[-1]:  # nobody tells the mark at which an adopted position was valued
        assert Decimal(summary["pnl_usdt"]["adjustments"]) == 0, summary["pnl_usdt"]
    at_end = truth(simulator)
    assert (at_end.positions, at_end.orders) == ((), ())
    ids = [fill.client_oid for fill in at_venue(simulator, lambda client: client.fills()) if fill.client_oid]
    assert set(ids) <= set(sent)
