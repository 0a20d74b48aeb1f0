"""Statistics of promotion: the worked examples of the papers, and second implementations that share no line."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from pipelines.evidence import (
    Moments,
    calibration,
    deflated_sharpe,
    effective_trials,
    expected_max_sharpe,
    held_out_symbols,
    moments,
    overfitting,
    probabilistic_sharpe,
    track_record_min,
)
from shared.types import Floats


def noise(seed: int, *shape: int) -> Floats:
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape)


# ------------------------------------------------------------------------------------------------ Sharpe ratios


def test_probabilistic_sharpe_of_the_published_hedge_fund() -> None:
    """24 monthly returns, Sharpe 0.458, skew -2.448, kurtosis 10.164: 0.982 if normal, 0.913 as it is (2012, §5)."""
    assert probabilistic_sharpe(Moments(0.458, 0.0, 3.0, 24)) == pytest.approx(0.982, abs=5e-4)
    assert probabilistic_sharpe(Moments(0.458, -2.448, 10.164, 24)) == pytest.approx(0.913, abs=5e-4)


@pytest.mark.parametrize(("periods", "years"), [(250, 2.73), (52, 2.83), (12, 3.24)])
def test_track_record_of_the_published_table(periods: int, years: float) -> None:
    """Annual Sharpe 2 against 1, normal, 95 %: years needed of daily, weekly and monthly returns (2012, §6)."""
    found = Moments(2 / math.sqrt(periods), 0.0, 3.0, 0)

    assert track_record_min(found, 1 / math.sqrt(periods)) / periods == pytest.approx(years, abs=5e-3)


def test_deflated_sharpe_of_the_published_example() -> None:
    """Annual Sharpe 2.5 over 1250 days, variance 1/2 among the trials: 0.1132 and 0.9004 at N = 100 (2014)."""
    fat = Moments(2.5 / math.sqrt(250), -3.0, 10.0, 1250)
    normal = Moments(2.5 / math.sqrt(250), 0.0, 3.0, 1250)
    variance = 0.5 / 250

    assert expected_max_sharpe(100, variance) == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe(fat, 100, variance) == pytest.approx(0.9004, abs=5e-5)
    assert deflated_sharpe(fat, 46, variance) == pytest.approx(0.9505, abs=5e-5)
    assert deflated_sharpe(normal, 88, variance) == pytest.approx(0.9505, abs=5e-5)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(5, 300))
def test_moments_are_scipys(seed: int, n: int) -> None:
    returns = noise(seed, n) ** 3 + 0.1

    found = moments(returns)

    assert found.sharpe == pytest.approx(returns.mean() / scipy.stats.tstd(returns), rel=1e-9)
    assert found.skew == pytest.approx(scipy.stats.skew(returns), rel=1e-6, abs=1e-9)
    assert found.kurtosis == pytest.approx(scipy.stats.kurtosis(returns, fisher=False), rel=1e-6)


def test_expected_max_is_what_the_best_of_many_shows() -> None:
    """The formula against 20,000 drawn maxima: within 1 % for 10 to 1000 trials."""
    for n_trials in (10, 100, 1000):
        drawn = scipy.stats.norm.ppf(np.random.Generator(np.random.Philox(n_trials)).random(20_000) ** (1 / n_trials))

        assert expected_max_sharpe(n_trials, 1.0) == pytest.approx(drawn.mean(), rel=0.025)


def test_one_trial_is_not_deflated_and_more_trials_deflate_more() -> None:
    found = Moments(0.1, 0.0, 3.0, 500)

    by_trials = [deflated_sharpe(found, n, 0.01) for n in (1, 2, 10, 100, 1000)]

    assert by_trials[0] == probabilistic_sharpe(found)
    assert by_trials == sorted(by_trials, reverse=True)


@pytest.mark.parametrize("returns", [np.zeros(0), np.ones(2), np.full(50, 0.1)])
def test_what_cannot_be_told_is_nan(returns: Floats) -> None:
    assert math.isnan(probabilistic_sharpe(moments(returns)))
    assert math.isnan(deflated_sharpe(moments(returns), 10, 0.1))
    assert math.isinf(track_record_min(moments(returns)))


def test_copies_of_one_trial_count_once() -> None:
    """20 copies are one trial, 20 independent ones are about 20, ten pairs about ten."""
    base = noise(3, 5000, 20)

    assert effective_trials(np.repeat(base[:, :1], 20, axis=1)) == pytest.approx(1.0)
    assert effective_trials(base) == pytest.approx(20.0, rel=0.05)
    assert effective_trials(np.repeat(base[:, :10], 2, axis=1)) == pytest.approx(10.0, rel=0.05)


# ------------------------------------------------------------------------------------------------- overfitting


def slow_overfitting(performance: Floats, n_blocks: int) -> tuple[float, list[float]]:
    """CSCV word for word, with loops and scipy's ranks."""
    size = len(performance) // n_blocks
    blocks = [performance[k * size : (k + 1) * size] for k in range(n_blocks)]
    logits = []
    for half in combinations(range(n_blocks), n_blocks // 2):
        sample = np.concatenate([blocks[k] for k in half])
        rest = np.concatenate([blocks[k] for k in range(n_blocks) if k not in half])
        best = int(np.argmax(sample.mean(axis=0) / sample.std(axis=0)))
        rank = scipy.stats.rankdata(rest.mean(axis=0) / rest.std(axis=0))[best]
        relative = rank / (performance.shape[1] + 1)
        logits.append(math.log(relative / (1 - relative)))
    return float(np.mean(np.array(logits) <= 0)), logits


@given(
    seed=st.integers(0, 2**32 - 1),
    n_trials=st.integers(2, 9),
    n_blocks=st.sampled_from([2, 4, 6]),
    size=st.integers(2, 9),
)
def test_overfitting_is_the_slow_one(seed: int, n_trials: int, n_blocks: int, size: int) -> None:
    performance = noise(seed, n_blocks * size + 1, n_trials)

    found = overfitting(performance, n_blocks=n_blocks)
    probability, logits = slow_overfitting(performance, n_blocks)

    assert found.probability == pytest.approx(probability, abs=1e-12)
    assert np.allclose(found.logits, logits, atol=1e-9)


def test_overfitting_knows_skill_from_luck() -> None:
    """One trial with skill among 50: chosen and kept. 50 worthless ones: the choice is worth nothing, about half."""
    performance = noise(11, 1600, 50)
    skilled = performance.copy()
    skilled[:, 7] += 0.25

    assert overfitting(skilled).probability < 0.01
    by_luck = [overfitting(noise(seed, 800, 20), n_blocks=8).probability for seed in range(40)]
    assert np.mean(by_luck) == pytest.approx(0.5, abs=0.08)


def test_overfitting_of_one_trial_or_too_few_rows_is_nan() -> None:
    assert math.isnan(overfitting(noise(1, 100, 1)).probability)
    assert math.isnan(overfitting(noise(1, 20, 5)).probability)


def test_trial_that_never_traded_is_no_error() -> None:
    performance = noise(5, 200, 3)
    performance[:, 1] = 0.0

    assert 0.0 <= overfitting(performance, n_blocks=4).probability <= 1.0


# ------------------------------------------------------------------------------------------------- calibration


@given(seed=st.integers(0, 2**32 - 1))
def test_calibration_curve_is_sklearns(seed: int) -> None:
    probability = np.random.Generator(np.random.Philox(seed)).random(1000)
    happened = noise(seed + 1, 1000) > 0.3

    found = calibration(probability, happened)
    frequency, said = calibration_curve(happened, probability, n_bins=10, strategy="quantile")

    assert np.allclose(found.probability, said)
    assert np.allclose(found.frequency, frequency)


def test_calibration_error_of_honest_and_of_bold_probabilities() -> None:
    generator = np.random.Generator(np.random.Philox(2))
    true = generator.random(100_000) * 0.2
    happened = generator.random(100_000) < true

    assert calibration(true, happened).error < 0.005
    assert calibration(np.minimum(1.0, true * 2), happened).error == pytest.approx(0.1, abs=0.01)


@given(st.lists(st.sampled_from([0.1, 0.1, 0.2, 0.9]), min_size=1, max_size=50), st.integers(0, 2**32 - 1))
def test_calibration_does_not_depend_on_the_order_of_rows(probability: list[float], seed: int) -> None:
    said = np.array(probability)
    happened = noise(seed, len(said)) > 0
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(said))

    a, b = calibration(said, happened), calibration(said[order], happened[order])

    assert a.rows == b.rows
    assert a.frequency == pytest.approx(b.frequency)
    assert a.error == pytest.approx(b.error)


# -------------------------------------------------------------------------------------------- held-out symbols


@given(st.sets(st.text("ABCDEFGHIJ", min_size=1), max_size=30), st.sets(st.text("ABCDEFGHIJ", min_size=1), max_size=30))
def test_what_is_held_out_does_not_depend_on_what_else_is_listed(some: set[str], others: set[str]) -> None:
    assert held_out_symbols(sorted(some | others)) & some == held_out_symbols(sorted(some))


def test_a_tenth_of_many_symbols_is_held_out() -> None:
    symbols = [f"COIN{n}USDT" for n in range(5000)]

    assert len(held_out_symbols(symbols)) == pytest.approx(500, rel=0.1)
    assert len(held_out_symbols(symbols, 0.3)) == pytest.approx(1500, rel=0.1)
