"""Scores: what is expected of every symbol over the horizon, before costs.

Three scorers, one shape: a trained model, fixed rules, and a coin. The coin is the null hypothesis of every report
and the load of every demo: it trades without an edge, at the minimum size.

A scorer is a pure function of rows: how seconds are cut into blocks cannot change a score.
To add one, give it the four attributes of `Scorer` and a `score` that treats long and short alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.model import FLAT, LONG, SHORT, Model
from shared.types import Floats

BPS = 1e4


class Scores(msgspec.Struct, frozen=True, eq=False):
    """Scores of N symbols, or of T seconds x N symbols. Where `is_valid` is False, the rest means nothing."""

    p_long: Floats  # (…, N) [1]
    p_short: Floats
    p_flat: Floats
    edge_bps: Floats  # signed expected gross return of the mid over the horizon
    direction: NDArray[np.int8]  # +1 long, -1 short, 0 no opinion
    confidence: Floats  # probability of `direction` [1]
    is_valid: NDArray[np.bool_]

    def row(self, t: int | slice) -> Scores:
        """Return the scores of second t of a block, shape (N,), or of some seconds of it; views."""
        return Scores(
            self.p_long[t], self.p_short[t], self.p_flat[t], self.edge_bps[t], self.direction[t], self.confidence[t],
            self.is_valid[t],
        )  # fmt: skip

    @property
    def margin(self) -> Floats:
        """Return by how much the likeliest direction leads the next class [1]."""
        return self.confidence - np.maximum(np.minimum(self.p_long, self.p_short), self.p_flat)

    def mirrored(self) -> Scores:
        """Return what a mirrored market would have scored."""
        return Scores(
            self.p_short, self.p_long, self.p_flat, -self.edge_bps, -self.direction, self.confidence, self.is_valid
        )


class Scorer(Protocol):
    """Turns features into scores."""

    @property
    def name(self) -> str: ...
    @property
    def horizon_s(self) -> int | None:
        """Seconds that the scores look ahead; None: as long as the position is held."""

    @property
    def needs_features(self) -> bool: ...
    @property
    def is_null(self) -> bool:
        """True: no edge is claimed, so edge and confidence gates do not apply, and sizes are the minimum."""

    def score(self, features: NDArray[np.float32] | None, columns: Mapping[str, Floats], first_second: int) -> Scores:
        """Score a block.

        Args:
            features: (T, N, F) in the order the scorer was made for; None only where `needs_features` is False.
            columns: name -> (T, N) of `sampler.COLUMNS`.
            first_second: second of row 0.
        """


def _scores(p_long: Floats, p_short: Floats, p_flat: Floats, edge_bps: Floats) -> Scores:
    is_valid = np.isfinite(p_long) & np.isfinite(p_short) & np.isfinite(p_flat) & np.isfinite(edge_bps)
    direction = (p_long > p_short).astype(np.int8) - (p_short > p_long).astype(np.int8)
    return Scores(p_long, p_short, p_flat, edge_bps, direction, np.maximum(p_long, p_short), is_valid)


class ModelScorer:
    """Scores of the trained model: edge = sum over classes of probability x mean move of that class."""

    name = "model"
    needs_features = True
    is_null = False

    def __init__(self, model: Model) -> None:
        self.model = model
        self.horizon_s: int | None = model.bundle.horizon_s

    def score(self, features: NDArray[np.float32] | None, columns: Mapping[str, Floats], first_second: int) -> Scores:
        assert features is not None, "the model scores features"
        p = self.model.predict(features)
        edges = self.model.bundle.class_edge_bps
        p_flat, p_long, p_short = (np.ascontiguousarray(p[..., k]) for k in (FLAT, LONG, SHORT))
        return _scores(p_long, p_short, p_flat, p_flat * edges[FLAT] + p_long * edges[LONG] + p_short * edges[SHORT])


class RulesScorer:
    """Scores without training: momentum, imbalance and flow point, volatility says how far, the spread how much of it
    may be believed; symmetric by construction.

    z = mean of three standard scores, each clipped to ±3: the 10 s return over its own volatility, the mean imbalance
    of the top five levels over 10 s and the signed flow over 10 s, both over their usual size.
    x = z · volatility / (volatility + half spread): a mid that moves within its spread bounces (Roll 1984).
    p(up) = (1 + x / sqrt(1 + x²)) / 2, made of operations that give the same bits on every CPU.
    edge = SKILL · x · volatility of `REACH_S`. Every step maps -x to the exact negation.

    Args:
        horizon_s: how long a position is held for it; None: as long as the rules look ahead. A longer one claims no
            more than these seconds, it only leaves later.
    """

    name = "rules"
    needs_features = True
    is_null = False

    REACH_S = 10
    """Seconds within which what the rules point to comes: that of their features."""

    SKILL = 0.2
    """Correlation of x with the next `REACH_S`, assumed: on real panels a linear signal of imbalance reaches R² of
    about .05 (IC .22), so 0.2 is the optimistic end; with it majors never clear a taker's cost, and should not."""

    IMBALANCE_USUAL = 0.4  # one standard deviation of a 10 s mean of imbalance, roughly [1]
    FLOW_USUAL = 0.5

    NEEDS = ("return_10s", "volatility_30s", "imbalance_mean_10s", "flow_10s", "spread_bps")

    def __init__(self, names: tuple[str, ...], horizon_s: int | None = None) -> None:
        self.horizon_s: int | None = self.REACH_S if horizon_s is None else horizon_s
        missing = [name for name in self.NEEDS if name not in names]
        assert not missing, f"rules need features {missing}, the graph has {names}"
        self._at = {name: names.index(name) for name in self.NEEDS}

    def score(self, features: NDArray[np.float32] | None, columns: Mapping[str, Floats], first_second: int) -> Scores:
        assert features is not None, "rules score features"
        momentum, volatility, imbalance, flow, spread_bps = (
            features[..., self._at[name]].astype(np.float64) for name in self.NEEDS
        )
        horizon_volatility = volatility * np.sqrt(float(self.REACH_S))
        # A flat price has no volatility and no momentum: nothing to divide, nothing to follow.
        moved = horizon_volatility > 0.0
        trend = np.where(moved, momentum / np.where(moved, horizon_volatility, 1.0), momentum * 0.0)
        x = trend.clip(-3.0, 3.0)
        x = x + (imbalance / self.IMBALANCE_USUAL).clip(-3.0, 3.0)
        x = x + (flow / self.FLOW_USUAL).clip(-3.0, 3.0)
        noise = horizon_volatility + spread_bps * (0.5 / BPS)
        believed = horizon_volatility / np.where(noise > 0.0, noise, 1.0)
        # A NaN of volatility or spread is a NaN of the score.
        x = x / 3.0 * believed + noise * 0.0
        u = x / np.sqrt(1.0 + x * x)
        return _scores(0.5 * (1.0 + u), 0.5 * (1.0 - u), x * 0.0, self.SKILL * BPS * (x * horizon_volatility))


class CoinScorer:
    """A fair coin per symbol and second, Philox(seed, second): valid whatever the market shows, claims no edge."""

    name = "coin"
    needs_features = False
    is_null = True
    horizon_s: int | None = None

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def score(self, features: NDArray[np.float32] | None, columns: Mapping[str, Floats], first_second: int) -> Scores:
        n_seconds, n_symbols = next(iter(columns.values())).shape
        heads = np.empty((n_seconds, n_symbols), np.float64)
        for t in range(n_seconds):
            flips = np.random.Generator(np.random.Philox(key=[self.seed, first_second + t]))
            heads[t] = flips.integers(0, 2, n_symbols)
        zero = np.zeros_like(heads)
        return _scores(heads, 1.0 - heads, zero, zero)
