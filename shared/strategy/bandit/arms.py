"""Evidence per arm, and what it says once symbols have borrowed from their cluster and clusters from all.

    net bps of a trade      x  = θ_symbol + noise,          noise  ~ (0, σ²_symbol), unknown
    an arm's mean           θ_symbol  ~ N(μ_cluster, SYMBOL_BPS²)
    a cluster's mean        μ_cluster ~ N(μ_all, CLUSTER_BPS²)
    the mean of everything  μ_all     ~ N(0, ALL_BPS²)

Given the noise this is a Gaussian tree, whose posterior is exact in two passes (belief propagation): up, every arm
tells its cluster what it knows about the cluster's mean, every cluster the root; down, each is told what all *others*
said. With SYMBOL_BPS → ∞ the arms are strangers again: mean total / weight, variance σ² / weight.

Older trades count less: each reward first multiplies every arm's evidence by the discount (Garivier & Moulines 2008,
equation of X̄_t(γ, i): their rounds are our rewards). The scatter within an arm is merged as in West (1979), never as
E[x²] − E[x]².

σ² is not known either. The arms' scatters are pooled, and each arm's own is shrunk to the pool as if that were
NOISE_DOF trades: an arm with three trades does not believe in its three.

Only + − × ÷ sqrt and comparison, sums in the order of the arms (`bincount` adds one after the other): the same bits
on every CPU. Everything takes leading axes, so that a test runs hundreds of worlds at once with this very code.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.types import Floats

NOISE_BPS: Final = 15.0  # σ of one 10 s trade in a small alt, before any was made
NOISE_DOF: Final = 10.0


class Prior(msgspec.Struct, frozen=True, kw_only=True):
    """How far apart means may lie, one standard deviation, bps. Before cost a good signal is worth a few bps."""

    symbol_bps: float = 2.0
    cluster_bps: float = 2.0
    all_bps: float = 5.0


class Evidence(msgspec.Struct):
    """What trades said, shape (…, N) each; see `ArmState`."""

    weight: Floats
    total_bps: Floats
    scatter: Floats
    scatter_dof: Floats

    @classmethod
    def empty(cls, *shape: int) -> Evidence:
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape))

    def discount(self, factor: float) -> None:
        if factor == 1.0:
            return
        for values in (self.weight, self.total_bps, self.scatter, self.scatter_dof):
            values *= factor

    def add(self, at: tuple[NDArray[np.intp], ...], net_bps: Floats) -> None:
        """Count one trade of each of the arms at `at`, an index array an axis."""
        weight = self.weight[at]
        is_known = weight > 0.0
        apart = net_bps - self.total_bps[at] / np.where(is_known, weight, 1.0)
        # West 1979: the sum of squares grows by w/(w+1) (x − mean)², by nothing where nothing was known.
        self.scatter[at] += np.where(is_known, weight / (weight + 1.0) * apart * apart, 0.0)
        self.scatter_dof[at] += np.where(is_known, 1.0, 0.0)
        self.weight[at] += 1.0
        self.total_bps[at] += net_bps

    def add_one(self, n: int, net_bps: float) -> None:
        """Count one trade of arm n, without an array's overhead; the bits are those of `add`."""
        weight, total = self.weight.item(n), self.total_bps.item(n)
        if weight > 0.0:
            apart = net_bps - total / weight
            self.scatter[n] = self.scatter.item(n) + weight / (weight + 1.0) * apart * apart
            self.scatter_dof[n] = self.scatter_dof.item(n) + 1.0
        self.weight[n] = weight + 1.0
        self.total_bps[n] = total + net_bps

    def take(self, n: int) -> Evidence:
        """Return the evidence of the first n arms."""
        return Evidence(self.weight[..., :n], self.total_bps[..., :n], self.scatter[..., :n], self.scatter_dof[..., :n])


def window_evidence(arm: NDArray[np.intp], net_bps: Floats, n_arms: int) -> Evidence:
    """Return the evidence of the last trades, each counted once (Garivier & Moulines 2008, sliding window)."""
    weight = np.bincount(arm, minlength=n_arms).astype(np.float64)
    total = _sums(arm, net_bps, n_arms)
    mean = total / np.maximum(weight, 1.0)
    apart = net_bps - mean[arm]
    return Evidence(weight, total, _sums(arm, apart * apart, n_arms), np.maximum(weight - 1.0, 0.0))


class Belief(msgspec.Struct, frozen=True):
    """The posterior: of every arm, and the messages that a joint draw needs."""

    mean_bps: Floats  # (…, N)
    variance: Floats  # (…, N), of the mean, bps²
    noise: Floats  # (…, N), σ² of a trade, bps²
    noise_dof: Floats  # (…, N), trades that stand behind it
    cluster_precision: Floats  # (…, K), what the arms say about their cluster's mean
    cluster_sum: Floats  # (…, K), that precision times its mean
    all_mean_bps: Floats  # (…, 1)
    all_variance: Floats  # (…, 1)


def believe(evidence: Evidence, cluster: NDArray[np.intp], n_clusters: int, prior: Prior) -> Belief:
    """Return what the evidence says of every arm.

    Args:
        cluster: (N,) each arm's cluster, in [0, n_clusters).
    """
    weight, total = evidence.weight, evidence.total_bps
    symbol_2, cluster_2, all_2 = (s * s for s in (prior.symbol_bps, prior.cluster_bps, prior.all_bps))
    root = np.zeros(n_clusters, np.intp)

    one = np.zeros(len(cluster), np.intp)
    pool = (NOISE_DOF * NOISE_BPS * NOISE_BPS + grouped_sum(evidence.scatter, one, 1)) / (
        NOISE_DOF + grouped_sum(evidence.scatter_dof, one, 1)
    )
    dof = evidence.scatter_dof + NOISE_DOF
    noise = (NOISE_DOF * pool + evidence.scatter) / dof

    # Up. An arm speaks about its cluster's mean with variance symbol² + noise / weight; nothing where weight is 0.
    spread = weight * symbol_2 + noise
    says, says_sum = weight / spread, total / spread
    precision = grouped_sum(says, cluster, n_clusters)
    precision_sum = grouped_sum(says_sum, cluster, n_clusters)
    thin = 1.0 + precision * cluster_2
    up, up_sum = precision / thin, precision_sum / thin
    all_precision = 1.0 / all_2 + grouped_sum(up, root, 1)
    all_sum = grouped_sum(up_sum, root, 1)

    # Down. Each cluster hears what the others said, each arm what its cluster's other arms said.
    others, others_sum = all_precision - up, all_sum - up_sum
    thin = 1.0 + others * cluster_2
    told = others / thin + precision
    told_sum = others_sum / thin + precision_sum
    heard = told[..., cluster] - says
    heard_sum = told_sum[..., cluster] - says_sum
    thin = 1.0 + heard * symbol_2
    final = heard / thin + weight / noise
    final_sum = heard_sum / thin + total / noise
    return Belief(
        mean_bps=final_sum / final,
        variance=1.0 / final,
        noise=noise,
        noise_dof=dof,
        cluster_precision=precision,
        cluster_sum=precision_sum,
        all_mean_bps=all_sum / all_precision,
        all_variance=1.0 / all_precision,
    )


def grouped_sum(values: Floats, group: NDArray[np.intp], n_groups: int) -> Floats:
    """Return sums over the last axis by group, (…, n_groups), added in the order of that axis."""
    flat = values.reshape(-1, values.shape[-1])
    at = group + n_groups * np.arange(len(flat))[:, None]
    return _sums(at.ravel(), flat.ravel(), n_groups * len(flat)).reshape(*values.shape[:-1], n_groups)


def _sums(at: NDArray[np.intp], values: Floats, n: int) -> Floats:
    sums: Floats = np.bincount(at, values, n).astype(np.float64, copy=False)
    return sums
