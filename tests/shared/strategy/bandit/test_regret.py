"""Regret in worlds made like markets: the production policies learn where theory says that they must."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.bandit import RULES, WORLDS, Played, Rule, World, play
from shared.types import Floats

BY_NAME = {rule.name: rule for rule in RULES}
LEARNERS = ("discounted UCB", "sliding UCB", "Thompson")
STILL = [world for world in WORLDS if not world.is_drifting]
DRIFTING = [world for world in WORLDS if world.is_drifting]


def name_of(world: World) -> str:
    return world.name


def regret(played: Played) -> tuple[float, float]:
    """Return the mean over seeds and its standard error."""
    return float(played.regret.mean()), float(played.regret.std(ddof=1)) / len(played.regret) ** 0.5


@pytest.mark.parametrize("world", WORLDS, ids=name_of)
def test_every_policy_beats_choosing_evenly(world: World) -> None:
    """In all ten worlds, after 1,500 trades of sixty symbols with rewards that come late, each of the three earns no
    less than even choice within error, and in the five that stand still clearly more."""
    even = play(BY_NAME["uniform"], world, rounds=1500, seeds=6, arms=60).chosen.mean(axis=1)
    for name in LEARNERS:
        earned = play(BY_NAME[name], world, rounds=1500, seeds=6, arms=60).chosen.mean(axis=1)
        gain = earned - even
        error = gain.std(ddof=1) / len(gain) ** 0.5
        assert gain.mean() > (2 * error if not world.is_drifting else -2 * error), f"{name}: {gain.mean()} ± {error}"


def test_rewards_come_late_and_none_is_lost() -> None:
    """The world itself: every reward is the chosen arm's mean plus noise, and arrives within its delay."""
    world = STILL[0]
    played = play(Rule("greedy", "greedy"), world, rounds=400, seeds=4, arms=20)

    assert played.chosen.shape == (4, 400)
    assert set(np.unique(played.chosen)) <= {0.0, 8.0}
    assert (played.fixed == 8.0).all()
    assert (played.regret >= 0).all()  # nothing beats the best arm of a world that stands still


def growth(played: Played) -> float:
    """Return the exponent of the regret's growth over the last three quarters: 1 is linear, √T is 0.5."""
    total: Floats = np.cumsum((played.fixed - played.chosen).mean(axis=0))
    n = len(total)
    return float(np.log(total[-1] / total[n // 4 - 1]) / np.log(4.0))


@pytest.mark.nightly
@pytest.mark.timeout(900)  # a dozen seconds of CPU
@pytest.mark.parametrize("world", STILL, ids=name_of)
def test_regret_grows_slower_than_time_where_nothing_moves(world: World) -> None:
    """Over 30,000 rounds, what forgets nothing has sub-linear regret in every world that stands still: Thompson, and
    UCB with the same shrinkage. UCB1 without shrinkage has not even tried every arm often enough by then."""
    long = {"rounds": 30_000, "seeds": 6, "arms": 100}
    thompson = play(BY_NAME["Thompson, forgets nothing"], world, **long)
    ucb = play(Rule("UCB, forgets nothing", "ucb"), world, **long)
    even = play(BY_NAME["uniform"], world, **long)

    assert growth(thompson) < 0.85, growth(thompson)
    assert growth(ucb) < 0.9, growth(ucb)
    assert growth(even) == pytest.approx(1.0, abs=0.02)
    assert regret(thompson)[0] < 0.35 * regret(even)[0]


@pytest.mark.nightly
@pytest.mark.timeout(900)  # a dozen seconds of CPU
@pytest.mark.parametrize("world", DRIFTING, ids=name_of)
def test_drift_makes_everybodys_regret_linear_against_the_moving_best(world: World) -> None:
    """A world that moves at a fixed share of the time has a price of learning anew each time: against the best arm of
    each moment regret is linear for all, and forgetting pays less of it than even choice."""
    long = {"rounds": 30_000, "seeds": 6, "arms": 100}
    even = play(BY_NAME["uniform"], world, **long).moving_regret.mean()
    regrets = {name: play(BY_NAME[name], world, **long).moving_regret.mean() for name in LEARNERS}

    for name, found in regrets.items():
        assert 0.02 * even < found < 1.02 * even, name
    assert min(regrets.values()) < 0.8 * even
