"""Regret of the bandit's policies in ten worlds made like markets, beside those that know less.

Run it: python -m benchmarks.bandit [--rounds 20000] [--seeds 8] [--arms 200]

A world has hundreds of arms in clusters, means of a few bps, noise of 15 bps a trade and rewards that come 10 to 60
rounds after they were asked for. Five stand still, five drift. A round chooses one arm; four rounds are one decision,
made on the same knowledge. Regret is against the best *fixed* arm, Σ μ_best(t) − Σ μ_chosen(t), in bps per round; where
the world drifts it can be negative, since following beats standing. ± is the standard error over seeds.

The policies are the engine's own functions (`arms.believe`, `optimism_bps`, `thompson_bps`); all seeds run at once.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.strategy.bandit.arms import Evidence, Prior, believe
from shared.strategy.bandit.policies import optimism_bps, thompson_bps
from shared.types import Floats

NOISE_BPS = 15.0
DELAYS = (10, 60)  # rounds until a reward comes
AT_ONCE = 4  # rounds of one decision
CLUSTERS = 10
STRANGERS = Prior(symbol_bps=1e4, cluster_bps=1e4, all_bps=1e4)
"""No arm speaks for another: the bandits of the textbooks."""


class World(msgspec.Struct, frozen=True):
    """Means over time for S seeds and N arms."""

    name: str
    is_drifting: bool
    means: Callable[[np.random.Generator, int, int, int], Iterator[Floats]]
    """(rng, S, N, T) -> T arrays (S, N); the same array twice means that nothing moved."""

    noise: Callable[[np.random.Generator, tuple[int, ...]], Floats] = lambda rng, shape: rng.normal(0, NOISE_BPS, shape)
    uneven: bool = False  # arms' noise from 5 to 40 bps


def cluster_of(n_arms: int) -> NDArray[np.intp]:
    return np.arange(n_arms) % CLUSTERS


def _tree(rng: np.random.Generator, s: int, n: int, cluster_bps: float, symbol_bps: float) -> Floats:
    tops = rng.normal(0, cluster_bps, (s, CLUSTERS))
    means: Floats = tops[:, cluster_of(n)] + rng.normal(0, symbol_bps, (s, n))
    return means


def _still(make: Callable[[np.random.Generator, int, int], Floats]) -> Callable[..., Iterator[Floats]]:
    def means(rng: np.random.Generator, s: int, n: int, t: int) -> Iterator[Floats]:
        fixed = make(rng, s, n)
        for _ in range(t):
            yield fixed

    return means


def _one_symbol(rng: np.random.Generator, s: int, n: int) -> Floats:
    means = np.zeros((s, n))
    means[np.arange(s), rng.integers(0, n, s)] = 8.0
    return means


def _one_cluster(rng: np.random.Generator, s: int, n: int) -> Floats:
    means = rng.normal(0, 1, (s, n))
    means += 5.0 * (cluster_of(n) == rng.integers(0, CLUSTERS, (s, 1)))
    return means


def _breaks(rng: np.random.Generator, s: int, n: int, t: int) -> Iterator[Floats]:
    means = _tree(rng, s, n, 2.0, 2.0)
    for now in range(t):
        if now in (t // 3, 2 * t // 3):
            means = _tree(rng, s, n, 2.0, 2.0)
        yield means


def _wandering(rng: np.random.Generator, s: int, n: int, t: int) -> Iterator[Floats]:
    own, tops = rng.normal(0, 1, (s, n)), rng.normal(0, 3, (s, CLUSTERS))
    keep = math.exp(-4.0 / t)  # a quarter of the time to forget by e
    means = own + tops[:, cluster_of(n)]
    for now in range(t):
        if now % 20 == 19:
            far = keep**20
            tops = far * tops + rng.normal(0, 3 * math.sqrt(1 - far * far), tops.shape)
            means = own + tops[:, cluster_of(n)]
        yield means


def _seasons(rng: np.random.Generator, s: int, n: int, t: int) -> Iterator[Floats]:
    own, phase = rng.normal(0, 1, (s, n)), rng.random((s, CLUSTERS))
    means = own
    for now in range(t):
        if now % 20 == 0:
            means = own + (4 * np.sin(2 * np.pi * (4 * now / t + phase)))[:, cluster_of(n)]
        yield means


def _fading(rng: np.random.Generator, s: int, n: int, t: int) -> Iterator[Floats]:
    """Edges are found by others, and go: half-life of an eighth of the time; a new cluster has one every quarter."""
    base = rng.normal(0, 1, (s, n))
    order = rng.permuted(np.tile(np.arange(CLUSTERS), (s, 1)), axis=1)
    means = base
    for now in range(t):
        if now % 20 == 0:
            quarter, since = divmod(now, t // 4)
            edge = 6.0 * 0.5 ** (8 * since / t)
            means = base + edge * (cluster_of(n) == order[:, [quarter % CLUSTERS]])
        yield means


def _swaps(rng: np.random.Generator, s: int, n: int, t: int) -> Iterator[Floats]:
    """Two symbols take turns at being good and bad, eight times; the rest is worth nothing."""
    pair = rng.permuted(np.tile(np.arange(n), (s, 1)), axis=1)[:, :2]
    one = np.zeros((s, n))
    one[np.arange(s)[:, None], pair] = 8.0, -8.0
    for now in range(t):
        yield one if (now // (t // 8)) % 2 == 0 else -one


WORLDS = (
    World("one good symbol", False, _still(_one_symbol)),
    World("one good cluster", False, _still(_one_cluster)),
    World("a tree of means", False, _still(lambda rng, s, n: _tree(rng, s, n, 2.0, 2.0))),
    World(
        "fat tails (t3)",
        False,
        _still(lambda rng, s, n: _tree(rng, s, n, 2.0, 2.0)),
        lambda rng, shape: rng.standard_t(3, shape) * (NOISE_BPS / math.sqrt(3.0)),
    ),
    World("uneven noise", False, _still(lambda rng, s, n: _tree(rng, s, n, 2.0, 2.0)), uneven=True),
    World("breaks", True, _breaks),
    World("wandering clusters", True, _wandering),
    World("seasons", True, _seasons),
    World("fading edges", True, _fading),
    World("two take turns", True, _swaps),
)


class Rule(msgspec.Struct, frozen=True):
    """A policy and its memory."""

    name: str
    kind: str  # ucb, thompson, greedy or uniform
    prior: Prior = Prior()
    discount: float = 1.0
    window: int | None = None  # rewards; None: all of them
    epsilon: float = 0.1  # of greedy [1]


RULES = (
    Rule("uniform", "uniform"),
    Rule("epsilon-greedy", "greedy", STRANGERS),
    Rule("UCB1", "ucb", STRANGERS),
    Rule("discounted UCB", "ucb", discount=0.9999),
    Rule("sliding UCB", "ucb", window=2000),
    Rule("Thompson", "thompson", discount=0.9999),
    Rule("Thompson, forgets nothing", "thompson"),
)


class Played(msgspec.Struct, frozen=True):
    """What a rule earned in a world, (S, T) means of the chosen arms, and what the best fixed arm would have."""

    chosen: Floats  # (S, T)
    fixed: Floats  # (S, T) of the arm with the best sum
    moving: Floats  # (S, T) of the best arm at each moment

    @property
    def regret(self) -> Floats:
        """Return bps per round against the best fixed arm, (S,)."""
        regret: Floats = (self.fixed - self.chosen).mean(axis=1)
        return regret

    @property
    def moving_regret(self) -> Floats:
        regret: Floats = (self.moving - self.chosen).mean(axis=1)
        return regret


class _Memory:
    """Evidence of S seeds, discounted, or of the last rewards."""

    def __init__(self, rule: Rule, s: int, n: int) -> None:
        self._rule, self._rows = rule, np.arange(s)
        self.evidence = Evidence.empty(s, n)
        self._squares = np.zeros((s, n))
        self._kept: list[tuple[NDArray[np.intp], Floats]] = []

    def learn(self, arm: NDArray[np.intp], reward: Floats) -> None:
        at = (self._rows, arm)
        if self._rule.window is None:
            self.evidence.discount(self._rule.discount)
            self.evidence.add(at, reward)
            return
        self._kept.append((arm, reward))
        self._count(at, reward, 1.0)
        if len(self._kept) > self._rule.window:
            old_arm, old_reward = self._kept.pop(0)
            self._count((self._rows, old_arm), old_reward, -1.0)

    def _count(self, at: tuple[NDArray[np.intp], ...], reward: Floats, sign: float) -> None:
        evidence = self.evidence
        evidence.weight[at] += sign
        evidence.total_bps[at] += sign * reward
        self._squares[at] += sign * reward * reward
        weight = np.maximum(evidence.weight[at], 1.0)
        evidence.scatter[at] = np.maximum(self._squares[at] - evidence.total_bps[at] ** 2 / weight, 0.0)
        evidence.scatter_dof[at] = np.maximum(evidence.weight[at] - 1.0, 0.0)


def play(rule: Rule, world: World, *, rounds: int, seeds: int, arms: int, seed: int = 1) -> Played:
    """Let a rule play a world; every rule meets the same means and noise."""
    about, luck = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
    own = np.random.default_rng([seed, 3])
    cluster, rows = cluster_of(arms), np.arange(seeds)
    scale = about.uniform(5, 40, (seeds, arms)) / NOISE_BPS if world.uneven else np.ones((seeds, arms))
    delays = luck.integers(DELAYS[0], DELAYS[1] + 1, rounds)
    memory, pending = _Memory(rule, seeds, arms), np.zeros((seeds, arms))
    due: dict[int, list[tuple[NDArray[np.intp], Floats]]] = {}
    chosen, moving, total = np.zeros((seeds, rounds)), np.zeros((seeds, rounds)), np.zeros((seeds, arms))
    history: list[Floats] = []
    belief, drawn = None, np.zeros(0)
    for t, means in enumerate(world.means(about, seeds, arms, rounds)):
        for arm, reward in due.pop(t, []):
            if rule.kind != "uniform":  # it asks nobody
                memory.learn(arm, reward)
            pending[rows, arm] -= 1.0
        evidence = memory.evidence
        if rule.kind != "uniform" and t % AT_ONCE == 0:
            belief = believe(evidence, cluster, CLUSTERS, rule.prior)
            if rule.kind == "thompson":
                drawn = thompson_bps(
                    belief,
                    evidence.weight,
                    evidence.total_bps,
                    cluster,
                    rule.prior,
                    z_all=own.normal(size=(AT_ONCE, seeds, 1)),
                    z_cluster=own.normal(size=(AT_ONCE, seeds, CLUSTERS)),
                    z_arm=own.normal(size=(AT_ONCE, seeds, arms)),
                    z_noise=own.normal(size=(seeds, arms)),
                )
        if rule.kind == "uniform":
            arm = own.integers(0, arms, seeds)
        elif rule.kind == "thompson":
            arm = np.argmax(drawn[t % AT_ONCE], axis=1)
        else:
            assert belief is not None
            if rule.kind == "ucb":
                index = optimism_bps(belief, evidence.weight, pending)
                arm = np.argmax(index + own.random((seeds, arms)) * 1e-9, axis=1)
            else:
                guess = np.argmax(belief.mean_bps + own.random((seeds, arms)) * 1e-9, axis=1)
                arm = np.where(own.random(seeds) < rule.epsilon, own.integers(0, arms, seeds), guess)
        pending[rows, arm] += 1.0
        noise = world.noise(luck, (seeds,)) * scale[rows, arm]
        due.setdefault(t + int(delays[t]), []).append((arm, means[rows, arm] + noise))
        chosen[:, t] = means[rows, arm]
        moving[:, t] = means.max(axis=1)
        total += means
        history.append(means)
    best = np.argmax(total, axis=1)
    fixed = np.stack([means[rows, best] for means in history], axis=1)
    return Played(chosen, fixed, moving)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--arms", type=int, default=200)
    asked = parser.parse_args()
    began = time.process_time()
    print(
        f"regret against the best fixed arm, bps per round, {asked.arms} arms, {asked.rounds} rounds, ± standard error"
    )
    print(f"{'':20}" + "".join(f"{rule.name:>26}" for rule in RULES) + f"{'best fixed earns':>18}{'best moving':>13}")
    for world in WORLDS:
        cells, last = [], None
        for rule in RULES:
            last = play(rule, world, rounds=asked.rounds, seeds=asked.seeds, arms=asked.arms)
            regret = last.regret
            cells.append(f"{regret.mean():+.2f} ± {regret.std(ddof=1) / math.sqrt(asked.seeds):.2f}")
        assert last is not None
        print(
            f"{world.name:20}" + "".join(f"{cell:>26}" for cell in cells)
            + f"{last.fixed.mean():>18.2f}{last.moving.mean():>13.2f}",
            flush=True,
        )  # fmt: skip
    print(f"{time.process_time() - began:.0f} s of CPU")


if __name__ == "__main__":
    main()
