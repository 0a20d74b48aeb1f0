"""Evidence and shrinkage, against a dense Gaussian posterior and the formulas of the papers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shared.strategy.bandit.arms import (
    NOISE_BPS,
    NOISE_DOF,
    Belief,
    Evidence,
    Prior,
    believe,
    grouped_sum,
    window_evidence,
)
from shared.strategy.bandit.policies import optimism_bps, thompson_bps
from shared.types import Floats

STRANGERS = Prior(symbol_bps=1e7, cluster_bps=1e7, all_bps=1e7)
"""Means that say nothing about one another."""

TRADES = st.lists(st.tuples(st.integers(0, 6), st.floats(-80, 80)), max_size=60)


def evidence_of(trades: list[tuple[int, float]], n_arms: int = 7, factor: float = 1.0) -> Evidence:
    found = Evidence.empty(n_arms)
    for arm, net_bps in trades:
        found.discount(factor)
        found.add_one(arm, net_bps)
    return found


def dense_posterior(evidence: Evidence, noise: Floats, cluster: list[int], prior: Prior) -> tuple[Floats, Floats]:
    """Return mean and covariance of (arms, clusters, all) by conditioning one big Gaussian."""
    n, k = len(cluster), max(cluster) + 1
    covariance = np.full((n + k + 1, n + k + 1), float(prior.all_bps**2))
    member = np.zeros((n + k + 1, k), bool)
    member[np.arange(n), cluster] = True
    member[n + np.arange(k), np.arange(k)] = True
    covariance += prior.cluster_bps**2 * (member.astype(float) @ member.T.astype(float))
    covariance[:n, :n] += prior.symbol_bps**2 * np.eye(n)
    seen = np.flatnonzero(evidence.weight > 0)
    gain = covariance[:, seen] @ np.linalg.inv(
        covariance[np.ix_(seen, seen)] + np.diag(noise[seen] / evidence.weight[seen])
    )
    mean = gain @ (evidence.total_bps[seen] / evidence.weight[seen])
    return mean, covariance - gain @ covariance[seen]


@settings(max_examples=40)
@given(TRADES, st.sampled_from([1.0, 0.9]), st.lists(st.integers(0, 2), min_size=7, max_size=7))
def test_shrinkage_is_the_exact_posterior(trades: list[tuple[int, float]], factor: float, cluster: list[int]) -> None:
    """Two passes over the tree give the mean and variance that conditioning the whole Gaussian at once gives."""
    evidence = evidence_of(trades, factor=factor)
    prior = Prior(symbol_bps=2.0, cluster_bps=3.0, all_bps=4.0)
    n_clusters = 3

    found = believe(evidence, np.array(cluster), n_clusters, prior)

    mean, covariance = dense_posterior(evidence, found.noise, [*cluster], prior)
    assert found.mean_bps == pytest.approx(mean[:7], abs=1e-9)
    assert found.variance == pytest.approx(np.diag(covariance)[:7], rel=1e-9)
    assert found.all_mean_bps[0] == pytest.approx(mean[-1], abs=1e-9)
    assert found.all_variance[0] == pytest.approx(covariance[-1, -1], rel=1e-9)


def test_an_untried_symbol_is_believed_to_be_like_its_cluster() -> None:
    """Good trades of its neighbours speak for a symbol that never traded, and less for one of another cluster."""
    evidence = evidence_of([(arm, 8.0) for arm in (0, 1, 2) for _ in range(300)])

    belief = believe(evidence, np.array([0, 0, 0, 0, 1, 1, 1]), 2, Prior())

    tried, neighbour, stranger = belief.mean_bps[0], belief.mean_bps[3], belief.mean_bps[4]
    assert 7 < tried < 8.1
    assert 0 < stranger < neighbour < tried
    assert belief.variance[0] < belief.variance[3] < belief.variance[4]


@given(TRADES)
def test_strangers_are_judged_by_their_own_trades_alone(trades: list[tuple[int, float]]) -> None:
    """Without shrinkage the mean is total / weight, its variance noise / weight: the statistics of the papers."""
    evidence = evidence_of(trades)

    belief = believe(evidence, np.zeros(7, np.intp), 1, STRANGERS)

    tried = evidence.weight > 0
    assert belief.mean_bps[tried] == pytest.approx(
        (evidence.total_bps / np.maximum(evidence.weight, 1))[tried], abs=1e-6
    )
    assert belief.variance[tried] == pytest.approx((belief.noise / np.maximum(evidence.weight, 1))[tried], rel=1e-6)


@given(TRADES, st.floats(0.5, 1.0))
def test_discounted_sums_are_those_of_the_definition(trades: list[tuple[int, float]], factor: float) -> None:
    """N(γ, i) = Σ γ^(t−s), and totals and scatter with the same weights (Garivier & Moulines 2008)."""
    found = evidence_of(trades, factor=factor)

    age = np.arange(len(trades))[::-1]
    for arm in range(7):
        mine = np.array([trade[0] == arm for trade in trades], bool)
        weights = factor ** age[mine] if len(trades) else np.zeros(0)
        values = np.array([trade[1] for trade in trades])[mine]
        assert found.weight[arm] == pytest.approx(weights.sum())
        assert found.total_bps[arm] == pytest.approx((weights * values).sum(), abs=1e-6)
        if len(values):
            mean = (weights * values).sum() / weights.sum()
            assert found.scatter[arm] == pytest.approx((weights * (values - mean) ** 2).sum(), rel=1e-6, abs=1e-6)


@given(TRADES)
def test_a_window_is_the_evidence_of_its_trades(trades: list[tuple[int, float]]) -> None:
    """The last trades, counted once each, are what an undiscounted bandit that saw only them would hold."""
    arm, net_bps = np.array([t[0] for t in trades], np.intp), np.array([t[1] for t in trades])

    found, expected = window_evidence(arm, net_bps, 7), evidence_of(trades)

    for name in ("weight", "total_bps", "scatter", "scatter_dof"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-6), name


def test_noise_is_pooled_until_an_arm_has_its_own() -> None:
    """With three trades an arm's noise is the pool's; with thousands it is its own."""
    rng = np.random.default_rng(1)
    few = evidence_of([(0, 0.0), (0, 0.1), (0, -0.1), *((1, x) for x in rng.normal(0, 30, 3000))])

    noise = np.sqrt(believe(few, np.zeros(7, np.intp), 1, Prior()).noise)

    assert 20 < noise[0] < 30  # not 0.1: three equal trades prove no calm
    assert noise[1] == pytest.approx(30, rel=0.05)
    assert 25 < noise[2] < 31


def test_nothing_known_is_the_prior() -> None:
    """Before the first trade every arm has mean 0, the variance of the three levels, and the assumed noise."""
    belief = believe(Evidence.empty(7), np.zeros(7, np.intp), 1, Prior(symbol_bps=2, cluster_bps=3, all_bps=5))

    assert (belief.mean_bps == 0).all()
    assert belief.variance == pytest.approx(4 + 9 + 25)
    assert belief.noise == pytest.approx(NOISE_BPS**2)
    assert belief.noise_dof == pytest.approx(NOISE_DOF)


def test_many_worlds_at_once_are_the_same_as_one_by_one() -> None:
    """Leading axes change nothing: a row of a block has the bits that it has alone."""
    rng = np.random.default_rng(2)
    block = Evidence(*(rng.uniform(1, 9, (4, 7)) for _ in range(4)))
    cluster = np.array([0, 1, 1, 0, 2, 2, 2])

    together = believe(block, cluster, 3, Prior())

    for row in range(4):
        alone = believe(
            Evidence(*(getattr(block, name)[row] for name in Evidence.__struct_fields__)), cluster, 3, Prior()
        )
        for name in Belief.__struct_fields__:
            assert (getattr(together, name)[row] == getattr(alone, name)).all(), name


@given(TRADES, st.floats(0.9, 1.0))
def test_one_trade_or_a_block_of_them_are_the_same_bits(trades: list[tuple[int, float]], factor: float) -> None:
    """What the engine counts one by one, worlds count a row at a time."""
    one_by_one, block = evidence_of(trades, factor=factor), Evidence.empty(1, 7)
    for arm, net_bps in trades:
        block.discount(factor)
        block.add((np.array([0]), np.array([arm])), np.array([net_bps]))

    for name in Evidence.__struct_fields__:
        assert getattr(block, name)[0].tobytes() == getattr(one_by_one, name).tobytes()


def test_sums_by_group_are_added_in_order() -> None:
    """A sum whose value depends on its order comes out as the loop from left to right does."""
    values = np.array([1e16, 1.0, 1.0, -1e16, 3.0])

    assert grouped_sum(values, np.zeros(5, np.intp), 1)[0] == ((((1e16 + 1.0) + 1.0) - 1e16) + 3.0)


# ------------------------------------------------------------------------------------------------- policies


def test_ucb_of_strangers_is_the_formula_of_the_papers() -> None:
    """mean + σ √(2 ln(1 + n) / N), with the discounted N and n of D-UCB."""
    rng = np.random.default_rng(3)
    evidence = evidence_of([(int(rng.integers(7)), float(rng.normal(0, 15))) for _ in range(900)], factor=0.99)
    belief = believe(evidence, np.zeros(7, np.intp), 1, STRANGERS)

    found = optimism_bps(belief, evidence.weight)

    mean, n = evidence.total_bps / evidence.weight, evidence.weight.sum()
    radius = np.sqrt(belief.noise) * np.sqrt(2 * np.log(1 + n) / evidence.weight)
    assert found == pytest.approx(mean + radius, rel=1e-6)


def test_ucb_asks_a_pending_arm_less() -> None:
    """A trade under way narrows its arm's bound as one that had brought the mean, so the next decision asks another."""
    evidence = evidence_of([(0, 5.0)] * 10 + [(1, 5.0)] * 10)
    belief = believe(evidence, np.zeros(7, np.intp), 1, STRANGERS)
    pending = np.zeros(7)
    pending[0] = 10.0

    bound = optimism_bps(belief, evidence.weight, pending)

    assert bound[0] < bound[1]
    assert bound[0] - 5 == pytest.approx((bound[1] - 5) / 2**0.5, rel=1e-6)


def test_thompson_draws_have_the_posterior_mean_and_variance() -> None:
    """Over many joint draws, mean and covariance of the arms are those of the dense posterior (at a known noise)."""
    evidence = evidence_of([(0, 9.0)] * 40 + [(1, -3.0)] * 5 + [(5, 2.0)] * 10)
    evidence.scatter_dof[:] = 1e9  # as if the noise were known
    evidence.scatter[:] = 1e9 * NOISE_BPS**2
    cluster, prior = np.array([0, 0, 0, 0, 1, 1, 1]), Prior(symbol_bps=2, cluster_bps=3, all_bps=4)
    belief = believe(evidence, cluster, 2, prior)
    rng = np.random.default_rng(4)
    n = 40_000

    drawn = thompson_bps(
        belief,
        evidence.weight,
        evidence.total_bps,
        cluster,
        prior,
        z_all=rng.normal(size=(n, 1)),
        z_cluster=rng.normal(size=(n, 2)),
        z_arm=rng.normal(size=(n, 7)),
        z_noise=rng.normal(size=(n, 7)),
    )

    mean, covariance = dense_posterior(evidence, belief.noise, [*cluster.tolist()], prior)
    assert drawn.mean(axis=0) == pytest.approx(mean[:7], abs=5 * (covariance.diagonal()[:7].max() / n) ** 0.5)
    assert np.cov(drawn.T) == pytest.approx(covariance[:7, :7], abs=0.6)


def test_thompson_of_an_unknown_noise_draws_from_a_student_t() -> None:
    """With the noise unknown and no shrinkage, draws are (x̄ + t_ν s/√n)-distributed: fat where trades are few."""
    evidence = evidence_of([(0, x) for x in (3.0, -9.0, 6.0, 1.0)])
    one = np.zeros(7, np.intp)
    belief = believe(evidence, one, 1, STRANGERS)
    rng = np.random.default_rng(5)
    n = 20_000

    drawn = thompson_bps(
        belief,
        evidence.weight,
        evidence.total_bps,
        one,
        STRANGERS,
        z_all=rng.normal(size=(n, 1)),
        z_cluster=rng.normal(size=(n, 1)),
        z_arm=rng.normal(size=(n, 7)),
        z_noise=rng.normal(size=(n, 7)),
    )[:, 0]

    standard = (drawn - 0.25) / np.sqrt(belief.noise[0] / 4)
    assert stats.kstest(standard, "t", args=(belief.noise_dof[0],)).pvalue > 0.01
    assert stats.kstest(standard, "norm").pvalue < 0.01
