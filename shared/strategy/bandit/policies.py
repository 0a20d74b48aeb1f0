"""How optimistic to be about what is not known: UCB and Thompson, as functions of the evidence.

    UCB       index = mean + √(2 · variance · ln(1 + n)),   n = Σ weight over all arms

With no shrinkage the variance is σ² / N_i and this is σ √(2 ln n / N_i): the radius of UCB1 for noise of scale σ
(Auer, Cesa-Bianchi & Fischer 2002), and with discounted or windowed N and n those of D-UCB and SW-UCB (Garivier &
Moulines 2008/2011, ξ = 1/2), whose rewards in [0, B] have σ <= B / 2.

    Thompson  index = a joint draw: the mean of everything, each cluster's given it, each arm's given its cluster's

The noise of an arm is drawn too, from its scaled inverse χ², so that an arm with few trades draws from a Student t and
not from a normal that trusts its three trades (Honda & Takemura 2014 show what trusting costs). The ancestors use the
noise's estimate; only the leaf, which decides between two arms, has its own draw.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared.strategy.bandit.arms import Belief, Prior
from shared.strategy.bandit.draws import chi_square_of, log
from shared.types import Floats


def optimism_bps(belief: Belief, weight: Floats, pending: Floats | float = 0.0) -> Floats:
    """Return the upper confidence bounds, (…, N) bps.

    Args:
        weight: (…, N) of the evidence the belief came from.
        pending: (…, N) trades under way. Their rewards are not known, but that they will come is: they narrow the
            bound as if they had brought the mean, or every decision until they close would ask the same arm (Desautels,
            Krause & Burdick 2014).
    """
    n = np.cumsum(weight + pending, axis=-1)[..., -1:]
    variance = belief.variance / (1.0 + pending * belief.variance / belief.noise)
    index: Floats = belief.mean_bps + np.sqrt(2.0 * variance * log(1.0 + n))
    return index


def thompson_bps(
    belief: Belief,
    weight: Floats,
    total_bps: Floats,
    cluster: NDArray[np.intp],
    prior: Prior,
    *,
    z_all: Floats,
    z_cluster: Floats,
    z_arm: Floats,
    z_noise: Floats,
) -> Floats:
    """Return joint draws of the means of some arms, (…, A) bps.

    Args:
        belief: of A arms (`noise` and `noise_dof` are used), and of all K clusters.
        weight, total_bps, cluster: of the A arms.
        z_all, z_cluster, z_arm, z_noise: standard normals, (…, 1), (…, K), (…, A) and (…, A).
    """
    symbol_2, cluster_2 = prior.symbol_bps * prior.symbol_bps, prior.cluster_bps * prior.cluster_bps
    top = belief.all_mean_bps + z_all * np.sqrt(belief.all_variance)
    precision = 1.0 / cluster_2 + belief.cluster_precision
    middle = (top / cluster_2 + belief.cluster_sum) / precision + z_cluster / np.sqrt(precision)
    noise = belief.noise_dof * belief.noise / chi_square_of(z_noise, belief.noise_dof)
    precision = 1.0 / symbol_2 + weight / noise
    mean = (middle[..., cluster] / symbol_2 + total_bps / noise) / precision
    drawn: Floats = mean + z_arm / np.sqrt(precision)
    return drawn
