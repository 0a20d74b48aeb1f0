"""Positions that no order may close, in a whole session over real sockets: foreseen and learnt, left and replayed."""

from __future__ import annotations

import json
import signal
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from live import replay
from pipelines.session_report import page_of
from shared import journal
from shared.simulator_process import SimulatorProcess
from shared.types import OrderRefused
from tests.live.test_session import (
    WAIT_S,
    at_venue,
    buy_ten_usdt,
    control,
    orders_and_fills,
    start_live,
    truth,
    wait_for,
)

HUGE = {"minTradeNum": "1000000"}


def refusals(folder: Path) -> list[OrderRefused]:
    records = journal.JournalReader(folder / journal.FILE_NAME)
    return [record.value for record in records if isinstance(record.value, OrderRefused)]


def test_dust_is_left_and_the_session_replays(
    tmp_path: Path, environment: dict[str, str], simulator: SimulatorProcess
) -> None:
    """A position below its minimum is found at the start, another one comes to lie below in mid-session: both leave by
    the exchange's flash close, once each, the ledger equals the venue, and the replay is identical."""

    at_venue(simulator, lambda client: buy_ten_usdt(client, simulator.source))
    wait_for(lambda: bool(truth(simulator).positions), "a position")
    control(simulator, "conditions", contracts={"XRPUSDT": HUGE})
    folder = tmp_path / "a" / "session"
    live = start_live(environment, tmp_path / "a")

    def flashed() -> set[str]:
        if not (folder / journal.FILE_NAME).exists():
            return set()
        return {order.symbol for order in orders_and_fills(folder)[0] if order.is_flash}

    def others() -> list[str]:
        return [held.symbol for held in truth(simulator).positions if held.symbol != "XRPUSDT"]

    try:
        wait_for(lambda: bool(others()), "a position of the session's own")
        grown = others()[-1]
        control(simulator, "conditions", contracts={grown: HUGE})
        wait_for(lambda: flashed() >= {"XRPUSDT", grown}, "both flash closes")
        live.send_signal(signal.SIGTERM)
        _, err = live.communicate(timeout=WAIT_S)
    finally:
        live.kill()

    summary = json.loads((folder / "session.json").read_text())
    assert live.returncode == 0, err
    assert summary["flat_at_end"]
    assert summary["pnl_usdt"]["ledger_equals_venue"]
    # What is found open is read in two answers, and its mark may move between them: taken over once flat.
    assert abs(Decimal(summary["pnl_usdt"]["adjustments"])) < Decimal("0.05")
    at_end = truth(simulator)
    assert (at_end.positions, at_end.orders) == ((), ())

    orders, _ = orders_and_fills(folder)
    too_small = {refusal.client_oid for refusal in refusals(folder) if refusal.code == "45111"}
    refused_exits = [order for order in orders if order.reduce_only and order.client_oid in too_small]
    assert "XRPUSDT" not in {order.symbol for order in refused_exits}  # its contract said so
    assert [order.symbol for order in refused_exits] == [grown]  # once
    assert len([order for order in orders if order.is_flash]) == len(flashed())

    assert replay.replay(folder).difference is None
    page, _ = page_of(folder)
    assert page.gap is not None
    assert page.gap.orders == len(orders) == page.main.orders
    assert page.gap.residual_usdt == 0
    assert page.gap.session_usdt == Fraction(summary["pnl_usdt"]["net"])
