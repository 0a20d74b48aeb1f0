"""Whole sessions over real sockets against the real simulator: traded, broken, killed, restarted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable
from decimal import ROUND_UP, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from live import flatten as live_flatten
from live import replay
from live.executor import MeteredClient
from live.run import SIMULATOR_KEYS
from live.truth import read_truth
from pipelines.session_report import page_of
from shared import journal
from shared.bitget.transport import ReceiveClock
from shared.simulator_process import SimulatorProcess
from shared.types import Adopted, Cause, Filled, FundingPaid, OrderKind, PlaceOrder, Side

WAIT_S = 30.0


def start_live(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "live.run",
        "--model",
        "coin",
        "--session-dir",
        str(folder / "session"),
        *arguments,
    ]
    folder.mkdir()  # no .env there
    return subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def control(simulator: SimulatorProcess, name: str, **body: Any) -> Any:
    request = urllib.request.Request(  # noqa: S310 - our own loopback
        f"{simulator.rest}/_control/{name}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        assert answer.status == 200
        return json.load(answer)


def change_conditions(simulator: SimulatorProcess, **conditions: Any) -> None:
    control(simulator, "conditions", **conditions)


async def buy_ten_usdt(client: MeteredClient, source: str) -> None:
    """Open a position that a session does not know, in XRPUSDT."""
    universe = await client.contracts(source)
    contract = universe.contracts[universe.index()["XRPUSDT"]]
    ask = Decimal(str((await client.merge_depth("XRPUSDT")).asks[0][0]))
    size = (10 / ask / contract.size_step).to_integral_value(ROUND_UP) * contract.size_step
    await client.place(
        PlaceOrder(
            client_oid="one", symbol="XRPUSDT", side=Side.BUY, kind=OrderKind.MARKET, size=size, price=None,
            reduce_only=False, stop_price=None, cause=Cause.ENTRY,
        )
    )  # fmt: skip


def at_venue(simulator: SimulatorProcess, ask: Callable[[MeteredClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with MeteredClient(simulator.rest, SIMULATOR_KEYS) as client:
            return await ask(client)

    return asyncio.run(run())


def truth(simulator: SimulatorProcess) -> Adopted:
    found: Adopted = at_venue(simulator, lambda client: read_truth(client, "BTCUSDT", {}, ReceiveClock()))
    return found


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_S} s for {what}"
        time.sleep(0.4)  # Bitget's budget for positions is five a second, and the session spends of it, too


def orders_and_fills(folder: Path) -> tuple[list[PlaceOrder], list[Filled]]:
    orders: list[PlaceOrder] = []
    fills: list[Filled] = []
    for record in journal.JournalReader(folder / journal.FILE_NAME):
        if record.kind == journal.DECISION:
            orders += [a for a in journal.decode_actions(record.value.actions) if isinstance(a, PlaceOrder)]
        elif isinstance(record.value, Filled):
            fills.append(record.value)
        elif isinstance(record.value, Adopted):
            fills += record.value.fills
    return orders, fills


def test_session_trades_ends_flat_and_replays(
    tmp_path: Path, environment: dict[str, str], simulator: SimulatorProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    """A coin trades over sockets, one placement is never answered, the socket drops, SIGTERM ends it flat; the ledger
    equals the venue, no order reached the exchange twice, and the replay is identical."""
    change_conditions(simulator, timeout_next_place=1)
    live = start_live(environment, tmp_path / "a")
    try:
        wait_for(lambda: len(at_venue(simulator, lambda client: client.fills())) >= 4, "fills")
        change_conditions(simulator, drop_sockets="private")
        n_fills = len(at_venue(simulator, lambda client: client.fills()))
        wait_for(lambda: len(at_venue(simulator, lambda client: client.fills())) >= n_fills + 4, "fills after the loss")
        live.send_signal(signal.SIGTERM)
        out, err = live.communicate(timeout=WAIT_S)
    finally:
        live.kill()

    folder = tmp_path / "a" / "session"
    summary = json.loads((folder / "session.json").read_text())
    assert live.returncode == 0, err
    assert summary["flat_at_end"]
    assert summary["pnl_usdt"]["ledger_equals_venue"]
    assert summary["ended_by"] == "stopped by SIGTERM"
    assert "flat at the end: yes" in out
    at_end = truth(simulator)
    assert (at_end.positions, at_end.orders) == ((), ())

    venue_fills = at_venue(simulator, lambda client: client.fills())
    orders, fills = orders_and_fills(folder)
    assert len({order.client_oid for order in orders}) == len(orders)
    order_ids: dict[str, set[str]] = {}
    for fill in fills:
        if not fill.client_oid:
            continue  # listed with the account: Bitget leaves our name out there
        order_ids.setdefault(fill.client_oid, set()).add(fill.order_id)
    assert all(len(ids) == 1 for ids in order_ids.values())
    assert {fill.trade_id for fill in fills} == {fill.trade_id for fill in venue_fills}
    assert summary["fills"] == len(venue_fills)

    assert replay.main([str(folder)]) == 0
    assert capsys.readouterr().out.startswith("identical")

    page, _ = page_of(folder)  # the same orders before the backtest's venue: the gap is explained to the last digit
    assert page.gap is not None
    assert page.gap.intents_identical
    assert page.gap.orders == len(orders) == page.main.orders
    assert page.gap.residual_usdt == 0
    assert page.gap.session_usdt == Fraction(summary["pnl_usdt"]["net"])
    assert f"{page.main.metrics['net_pnl_usdt']:.8f}" == f"{float(summary['trades']['net_usdt']):.8f}"


def test_funding_reaches_the_ledger(tmp_path: Path, environment: dict[str, str], simulator: SimulatorProcess) -> None:
    """Funding is settled twice while positions are held, and its bills come late: the ledger equals the venue without
    an adjustment, each bill is booked once, and the replay is identical."""
    change_conditions(simulator, bill_delay_ms=300)
    live = start_live(environment, tmp_path / "a")
    paid: list[dict[str, str]] = []
    try:
        for _ in range(2):
            wait_for(lambda: bool(truth(simulator).positions), "a position")
            paid += control(simulator, "funding")["paid"]
            change_conditions(simulator, drop_sockets="private")  # a stream that comes back asks for the account
        wait_for(lambda: len(at_venue(simulator, lambda client: client.funding(0))) >= len(paid), "the bills")
        live.send_signal(signal.SIGTERM)
        _, err = live.communicate(timeout=WAIT_S)
    finally:
        live.kill()

    folder = tmp_path / "a" / "session"
    money = json.loads((folder / "session.json").read_text())["pnl_usdt"]
    booked = [
        record.value.bill_id
        for record in journal.JournalReader(folder / journal.FILE_NAME)
        if isinstance(record.value, FundingPaid)
    ]
    assert live.returncode == 0, err
    assert money["ledger_equals_venue"]
    assert sorted(booked) == sorted(bill["billId"] for bill in paid)
    assert Decimal(money["funding"]) == sum(Decimal(bill["amount"]) for bill in paid) != 0
    assert Decimal(money["adjustments"]) == 0
    assert replay.replay(folder).difference is None


def test_killed_session_is_adopted_and_flattened_by_the_next(
    tmp_path: Path, environment: dict[str, str], simulator: SimulatorProcess
) -> None:
    """kill -9 with positions open: the next session adopts them, trades on, and ends flat; the torn journal replays."""
    live = start_live(environment, tmp_path / "a")
    try:
        wait_for(lambda: bool(truth(simulator).positions), "a position")
    finally:
        live.kill()
        live.communicate()
    left = truth(simulator).positions
    assert left

    again = start_live(environment, tmp_path / "b", "--seconds", "2")
    _, err = again.communicate(timeout=WAIT_S)

    assert again.returncode == 0, err
    assert "account.adopted_open" in err
    assert left[0].symbol in err
    assert truth(simulator).positions == ()
    summary = json.loads((tmp_path / "b" / "session" / "session.json").read_text())
    assert summary["flat_at_end"]
    assert replay.replay(tmp_path / "a" / "session").difference is None
    assert not (tmp_path / "a" / "session" / "session.json").exists()


def test_killed_simulator_ends_the_session_and_names_what_is_open(tmp_path: Path, environment: dict[str, str]) -> None:
    """When the exchange dies in mid-session, the session ends with one sentence that names every open position."""
    del environment["BITGET_REST_URL"], environment["BITGET_WS_URL"]
    live = start_live(environment, tmp_path / "a", "--simulator", "--symbols 8 --seed 7")
    children = Path(f"/proc/{live.pid}/task/{live.pid}/children")
    if not children.exists():
        pytest.skip("this system does not list the children of a process")
    path = tmp_path / "a" / "session" / journal.FILE_NAME
    try:
        wait_for(lambda: path.exists() and bool(orders_and_fills(path.parent)[1]), "a fill")
        os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
        _, err = live.communicate(timeout=WAIT_S)
    finally:
        live.kill()

    last = err.strip().splitlines()[-1]
    summary = json.loads((path.parent / "session.json").read_text())
    assert live.returncode == 6
    assert "simulator that this session started" in last
    assert "open at the end: " in last
    assert "the paper account ended with its simulator: start again" in last
    assert not summary["flat_at_end"]
    assert summary["open_at_end"] in last
    assert replay.replay(path.parent).difference is None


def test_flatten_closes_positions_and_cancels_orders(
    simulator: SimulatorProcess,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """`live.flatten` needs nothing of a session: it reads the exchange and closes; the dry run touches nothing, and a
    second run finds nothing."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    async def open_some(client: MeteredClient) -> None:
        universe = await client.contracts(simulator.source)
        for contract in universe.contracts[:3]:
            book = await client.merge_depth(contract.symbol)
            size = (10 / Decimal(str(book.asks[0][0])) / contract.size_step).to_integral_value(
                ROUND_UP
            ) * contract.size_step
            far = (Decimal(str(book.bids[0][0])) * Decimal("0.99") / contract.tick).to_integral_value() * contract.tick
            for kind, price in ((OrderKind.MARKET, None), (OrderKind.POST_ONLY, far)):
                await client.place(
                    PlaceOrder(
                        client_oid=f"{contract.base.encode().hex()}-{kind}",
                        symbol=contract.symbol,
                        side=Side.BUY,
                        kind=kind,
                        size=max(size, contract.size_min),
                        price=price,
                        reduce_only=False,
                        stop_price=None,
                        cause=Cause.ENTRY,
                    )
                )

    at_venue(simulator, open_some)
    wait_for(lambda: len(truth(simulator).positions) == 3, "positions")

    said = []
    for arguments in (["--dry-run"], [], []):
        code = live_flatten.main(arguments)
        said.append((code, capsys.readouterr().out.split(",")[0]))

    left = truth(simulator)
    assert (left.positions, left.orders) == ((), ())
    assert said[0][1].startswith("open: ")
    assert said[1:] == [(0, "flat"), (0, "flat")]
