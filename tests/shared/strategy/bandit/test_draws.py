"""Normals made of exact operations, against the standard library and scipy."""

from __future__ import annotations

import hashlib
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from shared.strategy.bandit.draws import VARIANTS, Draws, chi_square_of, normal_of, uniforms_of


def test_quantiles_are_those_of_the_normal_distribution() -> None:
    """Centre and both tails agree with the standard library's inverse, another algorithm of sixteen digits."""
    uniform = np.concatenate([np.linspace(1e-6, 1 - 1e-6, 5001), [1e-300, 1e-16, 1e-11, 1e-9, 1 - 1e-12]])

    expected = np.array([NormalDist().inv_cdf(u) for u in uniform])

    assert np.abs(normal_of(uniform) / np.where(expected == 0, 1, expected) - 1)[expected != 0].max() < 2e-7


def test_quantiles_are_odd() -> None:
    """u and 1 − u give opposite normals: nothing is drawn to one side."""
    uniform = np.arange(1, 512) / 1024

    assert (normal_of(uniform) == -normal_of(1 - uniform)).all()


def test_uniforms_never_reach_zero_or_one() -> None:
    """The smallest and the largest bits that Philox can give have a finite quantile."""
    uniform = uniforms_of(np.array([0, 2**64 - 1, 2**63, 2**63 - 1], np.uint64))

    assert (uniform > 0).all()
    assert (uniform < 1).all()
    assert np.isfinite(normal_of(uniform)).all()


def test_normals_are_normal() -> None:
    """Fifty thousand draws pass Kolmogorov and Smirnov's test, and have the tails that a sum of twelve has not."""
    z = Draws(1, 2).normals(50_000)

    assert stats.kstest(z, "norm").pvalue > 0.01
    assert abs((np.abs(z) > 3).mean() - 0.0027) < 3 * (0.0027 / 50_000) ** 0.5


@pytest.mark.parametrize("dof", [10.0, 25.0, 400.0])
def test_chi_squares_have_their_quantiles(dof: float) -> None:
    """Wilson and Hilferty's cube is within two percent of the exact quantiles where it is used."""
    p = np.array([0.01, 0.1, 0.5, 0.9, 0.99])

    found = chi_square_of(np.array([NormalDist().inv_cdf(q) for q in p]), np.full(5, dof))

    assert np.abs(found / stats.chi2.ppf(p, dof) - 1).max() < 0.02
    assert (chi_square_of(np.array([-40.0]), np.array([10.0])) > 0).all()


def test_draws_are_a_function_of_seed_decision_and_level() -> None:
    """The same three give the same bits, any other gives others, and the engine's own stream is a third one."""
    first = Draws(7, 1_760_000_000).uniforms(4)

    assert (first == Draws(7, 1_760_000_000).uniforms(4)).all()
    others = [Draws(8, 1_760_000_000), Draws(7, 1_760_000_001), Draws(7, 1_760_000_000, VARIANTS)]
    assert all((other.uniforms(4) != first).all() for other in others)
    assert (np.random.Generator(np.random.Philox(key=[7, 1_760_000_000])).random(4) != first).all()


def test_bits_are_the_ones_of_every_other_machine() -> None:
    """A digest of draws, the same on every CPU: SIMD or not, this numpy or the next."""
    digest = hashlib.blake2b(Draws(3, 5).normals(1000).tobytes(), digest_size=8).hexdigest()

    assert digest == "8db9c4ef9af94daa"
