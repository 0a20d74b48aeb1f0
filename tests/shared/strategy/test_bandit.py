"""The bandit: what it learns, and that it comes back exactly."""

from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared.strategy.bandit import Bandit, BanditState

SYMBOLS = ("A", "B", "C", "D")
REWARDS = st.lists(st.tuples(st.sampled_from(SYMBOLS), st.floats(-200, 200)), max_size=60)


@given(REWARDS, REWARDS)
def test_state_restores_bit_for_bit(first: list[tuple[str, float]], then: list[tuple[str, float]]) -> None:
    """A bandit rebuilt from its journaled state, also through JSON, continues as if it had never stopped."""
    bandit = Bandit(SYMBOLS)
    for symbol, bps in first:
        bandit.reward(symbol, bps)
    stored = msgspec.json.decode(msgspec.json.encode(bandit.state()), type=BanditState)
    again = Bandit(SYMBOLS, stored)
    for symbol, bps in then:
        bandit.reward(symbol, bps)
        again.reward(symbol, bps)

    assert bandit.bonus_bps().tobytes() == again.bonus_bps().tobytes()
    assert bandit.state() == again.state()


@given(REWARDS)
def test_bonus_is_bounded_and_finite(rewards: list[tuple[str, float]]) -> None:
    """Whatever was earned, the bandit breaks near-ties: it never moves a symbol by more than its bound."""
    bandit = Bandit(SYMBOLS)
    for symbol, bps in rewards:
        bandit.reward(symbol, bps)

    assert np.isfinite(bandit.bonus_bps()).all()
    assert (np.abs(bandit.bonus_bps()) <= Bandit.BONUS_BPS_MAX).all()


def test_a_better_arm_is_found() -> None:
    """Of four arms with equal noise, the one that earns 4 bps more is played most, and every arm is tried."""
    bandit, rng = Bandit(SYMBOLS), np.random.default_rng(1)
    played = np.zeros(4)
    for _ in range(800):
        arm = int(np.argmax(bandit.bonus_bps() + rng.uniform(0, 1e-6, 4)))
        played[arm] += 1
        bandit.reward(SYMBOLS[arm], rng.normal(4.0 if arm == 2 else 0.0, 5.0))

    assert played.argmax() == 2
    assert played[2] > 400
    assert (played > 0).all()


def test_rewards_are_basis_points() -> None:
    """One number in, the same number in the state: no percent, no fraction in between."""
    bandit = Bandit(SYMBOLS)
    bandit.reward("B", -12.5)

    assert bandit.state() == BanditState(count={"B": 1}, total_bps={"B": -12.5})


def test_arms_of_unlisted_symbols_are_kept() -> None:
    """A symbol that leaves the universe keeps what was learned about it until it comes back."""
    known = BanditState(count={"GONE": 3, "A": 1}, total_bps={"GONE": 5.0, "A": 2.0})

    bandit = Bandit(SYMBOLS, known)
    bandit.reward("GONE", 1.0)

    assert bandit.state() == known
