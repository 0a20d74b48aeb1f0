"""The runner: journal before send, a bounded inbox, and what happens when the journal fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from live import runner as runners
from shared import journal
from shared.strategy.bandit.budget import Budget
from shared.strategy.config import EngineConfig
from shared.types import Action, LinkChanged, PlaceOrder, StopRequested
from tests.live.sessions import Rig


def recorded(folder: Path) -> list[journal.Record]:
    return list(journal.JournalReader(folder / journal.FILE_NAME))


def test_actions_are_on_disk_before_they_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the executor gets an order, the journal file already holds it, and was fsynced after it did."""
    rig = Rig(tmp_path)
    synced: list[int] = []
    real = os.fsync

    def fsync(file: int) -> None:
        real(file)
        synced.append(os.fstat(file).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    checked = 0

    def look(actions: list[Action]) -> None:
        nonlocal checked
        decisions = [record.value for record in recorded(tmp_path) if record.kind == journal.DECISION]
        on_record = [action for decision in decisions for action in journal.decode_actions(decision.actions)]
        assert all(action in on_record for action in actions)
        if actions:
            assert synced[-1] == (tmp_path / journal.FILE_NAME).stat().st_size
        checked += len(actions)

    rig.venue.on_submit = look
    rig.adopt()
    rig.trade(20)

    assert checked == len(rig.venue.sent) > 8


def test_what_exploring_costs_is_saved_before_its_order_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash right after an order was sent does not give the day's budget back."""
    rig = Rig(tmp_path, config=EngineConfig(explore_bps_per_day=90.0))
    bandit, n_looks = rig.engine.bandit, 0
    budget = Budget(90.0)
    # A coin explores nothing: let every entry of its cost something.
    monkeypatch.setattr(bandit, "_budget", budget)
    monkeypatch.setattr(bandit, "explores", lambda n: True)
    monkeypatch.setattr(bandit, "pay", lambda n, now_ns, share: budget.charge(now_ns, 0.01))

    def look(actions: list[Action]) -> None:
        nonlocal n_looks
        spent = rig.engine.bandit.spent
        if any(isinstance(action, PlaceOrder) for action in actions) and spent.bps > 0.0:
            assert rig.remembered[-1].bandit.spent == spent
            n_looks += 1

    rig.venue.on_submit = look
    rig.adopt()
    rig.trade(20)

    assert n_looks >= 3
    assert len({memory.bandit.spent.bps for memory in rig.remembered}) == len(rig.remembered)


def test_events_reach_the_engine_in_strictly_increasing_time(tmp_path: Path) -> None:
    """Stamps that repeat or go back are moved forward, and the journal holds what the engine saw."""
    rig = Rig(tmp_path)
    for recv_ns in (50, 50, 7, 60):
        rig.runner.tell(LinkChanged(recv_ns=recv_ns, link="public", is_up=True))

    rig.runner.step()

    assert [record.value.recv_ns for record in recorded(tmp_path)[1:] if record.kind == journal.EVENT] == [
        50,
        51,
        52,
        60,
    ]


def test_journal_that_fails_stops_entries_and_lets_exits_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a full disk no order that adds risk is sent any more, and what is open is closed."""
    rig = Rig(tmp_path)
    rig.adopt()
    rig.trade(2)
    assert rig.engine.portfolio.holdings
    n_before = len(rig.venue.sent)

    def full(_file: int, _bytes: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    rig.trade(20)

    sent = [action for action in rig.venue.sent[n_before:] if isinstance(action, PlaceOrder)]
    assert sent
    assert all(order.reduce_only for order in sent)
    assert rig.engine.is_stopping
    assert rig.engine.is_flat_and_quiet
    assert "No space left" in str(rig.runner.journal_error)


def test_full_inbox_stops_the_session_and_reads_the_truth_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dropped event may have been a fill: trading stops, and the exchange is asked."""
    monkeypatch.setattr(runners, "INBOX_MAX", 5)
    rig = Rig(tmp_path)
    rig.adopt()
    for _ in range(9):
        rig.runner.tell(LinkChanged(recv_ns=0, link="public", is_up=True))

    rig.runner.step()
    rig.runner.step()  # the stop's own reading of the account is answered first

    assert rig.runner.dropped == 4
    assert rig.engine.is_stopping
    assert rig.venue.truths == 1
    stops = [record.value for record in recorded(tmp_path) if isinstance(record.value, StopRequested)]
    assert [stop.reason for stop in stops] == ["inbox full, 4 events dropped"]


async def test_event_that_breaks_the_engine_is_on_record(tmp_path: Path) -> None:
    """A bug in the engine leaves the event that showed it as the journal's last record."""
    rig = Rig(tmp_path)
    rig.runner.tell(LinkChanged(recv_ns=5, link="nonsense", is_up=True))

    with pytest.raises(AssertionError, match="nonsense"):
        await rig.runner.run()

    assert recorded(tmp_path)[-1].value.link == "nonsense"


def test_fills_told_twice_count_once(tmp_path: Path) -> None:
    """The tally counts fills as the ledger does: by symbol, order and trade."""
    rig = Rig(tmp_path)
    rig.adopt()
    rig.trade(30)
    assert rig.runner.tally.fills == rig.runner.tally.placed > 8
    assert rig.runner.tally.trades > 0


def test_latency_is_kept_for_seconds_with_orders_while_trading(tmp_path: Path) -> None:
    """Flattening at the end is paced by the exchange's rate and does not count as latency."""
    rig = Rig(tmp_path)
    rig.adopt()
    rig.trade(3)
    n_measured = len(rig.runner.latency.sent)
    rig.runner.tell(StopRequested(recv_ns=rig.clock(), reason="test"))
    rig.trade(3)

    assert n_measured > 0
    assert len(rig.runner.latency.sent) == n_measured
    assert rig.runner.latency.summary()["second_closed_to_decided"] is not None
