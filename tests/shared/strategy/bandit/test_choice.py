"""Lots: who gets a slot, with which probability, at which cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.strategy.bandit.budget import FLOOR_BPS, Budget
from shared.strategy.bandit.choice import Lottery, Mask, best_of, lottery
from shared.strategy.bandit.state import Spent
from shared.types import NS
from tests.shared.strategy.made import best_of_sides

DAY_NS = 86_400 * NS


@st.composite
def lotteries(draw: st.DrawFn) -> tuple[Lottery, float, float]:
    """Return a lottery, the share and the budget that it was made for."""
    n = draw(st.integers(2, 9))
    slots = draw(st.integers(1, n - 1))
    m = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    grid = draw(st.sampled_from([0.5, 1e-3]))  # a coarse one makes ties
    worth = np.round(rng.normal(0, 3, n) / grid) * grid
    values = np.round((worth + rng.normal(0, 3, (m, n))) / grid) * grid
    share, left = draw(st.floats(0.01, 1.0)), draw(st.floats(0.0, 20.0))
    epsilon = draw(st.sampled_from([0.0, 0.05, 0.3]))
    ties = rng.random(n)
    return lottery(values, worth, ties, slots, epsilon=epsilon, share_max=share, left_bps=left), share, left


def outcomes(lots: Lottery, n: int) -> list[tuple[float, Mask]]:
    """Return every (probability, chosen) that the dice can give."""
    found = []
    for r in range(len(lots.chosen)):
        u = (r + 0.5) / len(lots.chosen)
        one = 1.0 / len(lots.chosen)
        found.append((one * (1.0 - lots.epsilon), lots.draw(u, 0.999999, np.zeros(n))[0]))
        at = np.flatnonzero(lots.eligible[r])
        for picked in at:
            u_pick = np.ones(n)
            u_pick[picked] = 0.5
            if lots.epsilon:
                found.append((one * lots.epsilon / len(at), lots.draw(u, 0.0, u_pick)[0]))
    return found


@settings(max_examples=150)
@given(lotteries())
def test_the_probability_is_exact(made: tuple[Lottery, float, float]) -> None:
    """Summed over every way the dice can fall, each candidate is chosen as often as its stated probability says."""
    lots, _, _ = made
    n = len(lots.worth_bps)

    found = outcomes(lots, n)

    assert sum(p for p, _ in found) == pytest.approx(1.0)
    assert sum(p * chosen for p, chosen in found) == pytest.approx(lots.probability, abs=1e-12)
    assert lots.probability.sum() == pytest.approx(lots.exploiting.sum())
    assert (lots.probability <= 1.0).all()
    for _, chosen in found:
        assert chosen.sum() == lots.exploiting.sum()


def test_dice_fall_as_often_as_they_should() -> None:
    """With uniform dice, too: frequencies over 20,000 throws agree with the probabilities."""
    rng = np.random.default_rng(1)
    values = rng.normal(0, 3, (5, 8))
    lots = lottery(values, values.mean(axis=0), rng.random(8), 3, epsilon=0.3, share_max=0.1, left_bps=5.0)
    n = 20_000

    times = sum(lots.draw(rng.random(), rng.random(), rng.random(8))[0].astype(float) for _ in range(n))

    p = lots.probability
    assert (np.abs(times / n - p) <= 4.5 * np.sqrt(p * (1 - p) / n) + 1e-12).all()


@settings(max_examples=150)
@given(lotteries())
def test_no_outcome_costs_more_than_is_left(made: tuple[Lottery, float, float]) -> None:
    """Whatever the dice say, at the largest notional the bill of a decision is within the budget."""
    lots, share, left = made

    for _, chosen in outcomes(lots, len(lots.worth_bps)):
        bill = sum((short + FLOOR_BPS) * share for _, short in lots.shortfalls(chosen))
        assert bill <= left * (1 + 1e-12) + 1e-12


@given(lotteries())
def test_every_affordable_candidate_has_a_chance(made: tuple[Lottery, float, float]) -> None:
    """With ε above 0 nobody is left without support who could be paid for; without a budget nobody explores."""
    lots, share, left = made
    worst = lots.worth_bps[lots.exploiting].max() - lots.worth_bps.min() + FLOOR_BPS
    if lots.epsilon and worst * share * lots.exploiting.sum() * 2 < left:
        assert (lots.probability > 0).all()
    if left == 0.0:
        assert (lots.probability == lots.exploiting).all()


@settings(max_examples=100)
@given(lotteries(), st.integers(0, 1000))
def test_ranking_chooses_what_was_drawn(made: tuple[Lottery, float, float], seed: int) -> None:
    """The values that come with a draw make the engine's own ranking choose exactly it, ties included."""
    lots, _, _ = made
    rng = np.random.default_rng(seed)
    n, slots = len(lots.worth_bps), int(lots.exploiting.sum())
    ties = np.arange(n)[::-1] / n  # unlike the ties of the lottery: only strict order may matter for a swap
    again = lottery(lots.values, lots.worth_bps, ties, slots, epsilon=lots.epsilon, share_max=0.01, left_bps=100.0)

    chosen, values = again.draw(rng.random(), rng.random() * 0.4, rng.random(n))
    best = best_of_sides(range(n), np.ones(n, np.int8), values, ties, (slots, 0))

    assert sorted(best) == np.flatnonzero(chosen).tolist()


@given(
    st.lists(
        st.tuples(st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 2.0, np.nan]), st.sampled_from([0.1, 0.2])),
        min_size=1, max_size=12,
    ),
    st.data(),
)  # fmt: skip
def test_one_row_alone_is_ordered_as_among_others(row: list[tuple[float, float]], data: st.DataObject) -> None:
    """A single proposal is not sorted whole; whoever ties, is infinite or not known has the same place all the same."""
    values, ties = (np.array(column) for column in zip(*row, strict=True))
    slots = data.draw(st.integers(1, len(row)))

    alone, among = best_of(values[None], ties, slots), best_of(np.stack([values, values]), ties, slots)

    for one, both in zip(alone, among, strict=True):
        assert one[0].tolist() == both[0].tolist()


def test_a_hand_made_lottery() -> None:
    """Three proposals for one slot, ε = 0.3, two candidates affordable: the arithmetic on paper."""
    values = np.array([[9.0, 1.0, 0.0], [1.0, 9.0, 0.0], [9.0, 2.0, 0.0]])
    worth = np.array([3.0, 2.0, -90.0])

    lots = lottery(values, worth, np.array([0.1, 0.2, 0.3]), 1, epsilon=0.3, share_max=0.5, left_bps=1.0)

    # Cost of the second: 0.5 · (1 + 0.5) = 0.75 <= 1. Of the third: 0.5 · 93.5 > 1: never.
    assert lots.probability == pytest.approx([2 / 3 * 0.85 + 1 / 3 * 0.15, 1 / 3 * 0.85 + 2 / 3 * 0.15, 0.0])


def test_a_proposal_that_is_too_dear_becomes_the_exploiting_choice() -> None:
    """With less left than it costs, the dream of an arm is not followed, and the probability says so."""
    values, worth = np.array([[0.0, 9.0]]), np.array([5.0, 0.0])
    left = (5.0 + FLOOR_BPS) * 0.5

    for budget, expected in ((left, [0.0, 1.0]), (left - 1e-9, [1.0, 0.0])):
        lots = lottery(values, worth, np.array([0.1, 0.2]), 1, epsilon=0.0, share_max=0.5, left_bps=budget)
        assert lots.probability.tolist() == expected


# ------------------------------------------------------------------------------------------------- budget


@given(
    st.floats(0, 10),
    st.lists(st.tuples(st.integers(-DAY_NS, 3 * DAY_NS), st.floats(0, 4), st.booleans()), max_size=80),
)
def test_no_sequence_spends_more_than_a_day_allows(limit: float, requests: list[tuple[int, float, bool]]) -> None:
    """Any charges at any times, clocks that jump back, restarts in between: per day never more than the budget."""
    budget, now_ns = Budget(limit), 20_000 * DAY_NS
    spent: dict[int, float] = {}
    for step_ns, cost, restarts in requests:
        now_ns = max(0, now_ns + step_ns)
        left = budget.left_bps(now_ns)
        if budget.charge(now_ns, cost):
            assert cost <= left + 1e-12
            day = budget.state().day
            spent[day] = spent.get(day, 0.0) + cost
        if restarts:
            budget = Budget(limit, budget.state())

    assert all(total <= limit for total in spent.values())
    if spent:
        assert budget.state().bps == pytest.approx(spent[budget.state().day])


def test_a_new_day_has_its_own_budget_and_an_old_one_none() -> None:
    """What is left is of the UTC day at hand; a clock that goes back finds the later day's rest."""
    budget = Budget(3.0)

    assert budget.charge(5 * DAY_NS, 3.0)
    assert not budget.charge(6 * DAY_NS - 1, 1e-9)
    assert budget.charge(6 * DAY_NS, 2.0)
    assert budget.left_bps(5 * DAY_NS) == 1.0
    assert not budget.charge(5 * DAY_NS, 2.0)


def test_a_budget_that_was_lowered_leaves_nothing() -> None:
    """A restart with a smaller budget than was spent explores no more that day."""
    assert Budget(1.0, Spent(day=5, bps=2.0)).left_bps(5 * DAY_NS) == 0.0
