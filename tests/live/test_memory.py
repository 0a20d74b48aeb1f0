"""What outlives a session."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from live import memory
from shared.errors import JournalError, SettingsError
from shared.strategy.bandit.state import ArmState, BanditState, Spent
from shared.strategy.engine import Memory
from shared.strategy.risk import Latch, RiskState

LATCHED = RiskState(
    day=20_000, day_equity_usdt=Decimal("10000.5"), peak_equity_usdt=Decimal("11000"), latch=Latch.DRAWDOWN
)


def test_latch_survives_a_restart_whatever_model_trades_next(tmp_path: Path) -> None:
    """A latched limit belongs to the account: another model does not get round it."""
    path = memory.path_of(tmp_path / "new", "account")
    memory.save(path, memory.Kept().after("coin", Memory(risk=LATCHED)))

    assert memory.load(path).begin("rules", forget_risk=False).risk == LATCHED
    assert memory.load(path).begin("rules", forget_risk=True).risk is None


def test_what_exploration_cost_today_is_of_the_account(tmp_path: Path) -> None:
    """The budget of a day cannot be had twice by changing the model, and each model keeps what it learned."""
    path = memory.path_of(tmp_path, "account")
    arm = ArmState(trades=1, weight=1.0, total_bps=5.0, scatter=0.0, scatter_dof=0.0)
    spent = Memory(bandit=BanditState(arms={"AUSDT": arm}, spent=Spent(day=20_000, bps=3.0)))
    older = Memory(bandit=BanditState(spent=Spent(day=19_999, bps=9.0)))
    memory.save(path, memory.Kept().after("coin", older).after("rules", spent))

    for model in ("coin", "rules", "3"):
        began = memory.load(path).begin(model, forget_risk=False).bandit
        assert began.spent == Spent(day=20_000, bps=3.0)
        assert set(began.arms) == ({"AUSDT"} if model == "rules" else set())


def test_what_the_first_bandit_learned_is_still_read(tmp_path: Path) -> None:
    """A file of before there were discounts: counts and sums are kept; one that makes no sense is refused."""
    path = memory.path_of(tmp_path, "account")
    old = {"risk": None, "bandits": {"rules": {"count": {"AUSDT": 4}, "total_bps": {"AUSDT": -20.0}}}}
    path.write_bytes(msgspec.msgpack.encode(old))

    began = memory.load(path).begin("rules", forget_risk=False)

    assert began.bandit.count == {"AUSDT": 4}
    old["bandits"] = {"rules": {"arms": {"AUSDT": {"trades": "four"}}}}
    path.write_bytes(msgspec.msgpack.encode(old))
    with pytest.raises(JournalError, match="must be readable"):
        memory.load(path)


def test_memory_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    """A damaged file stops the session: a lost limit must not pass for no limit."""
    path = memory.path_of(tmp_path, "account")
    path.write_bytes(b"damage")
    with pytest.raises(JournalError, match="limits of earlier sessions"):
        memory.load(path)


def test_memory_starts_empty(tmp_path: Path) -> None:
    """Without a file nothing is remembered."""
    assert memory.load(memory.path_of(tmp_path, "account")).begin("coin", forget_risk=False) == Memory()


def test_account_lock_is_held_once_and_released(tmp_path: Path) -> None:
    """A second holder is refused while the first lives, and only then."""
    with (
        memory.account_lock(tmp_path, "a"),
        pytest.raises(SettingsError, match="one session at a time"),
        memory.account_lock(tmp_path, "a"),
    ):
        pass
    with memory.account_lock(tmp_path, "a"):
        pass


def test_whether_an_account_is_traded_is_asked_without_a_trace(tmp_path: Path) -> None:
    assert not memory.is_traded(tmp_path, "a")
    assert list(tmp_path.iterdir()) == []
    with memory.account_lock(tmp_path, "a"):
        assert memory.is_traded(tmp_path, "a")
        assert not memory.is_traded(tmp_path, "b")
    assert not memory.is_traded(tmp_path, "a")


def test_account_id_tells_nothing_about_the_key() -> None:
    """The name under which limits lie differs by account, and does not contain the key."""
    ids = {memory.account_id(url, key) for url in ("http://a", "http://b") for key in ("secret1", "secret2")}
    assert len(ids) == 4
    assert all("secret" not in found for found in ids)
