"""Scorers: symmetric by construction, pure functions of rows, NaN never becomes an opinion."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.features.catalog import CATALOG, FEATURES, SIGN
from shared.model import Model
from shared.strategy.scores import CoinScorer, ModelScorer, RulesScorer, Scores

NAMES = tuple(FEATURES)
SIGNED = ("return_10s", "imbalance_mean_10s", "flow_10s")


def random_features(seed: int, seconds: int = 8, symbols: int = 5) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    block = rng.normal(0, 1, (seconds, symbols, len(NAMES)))
    block[..., NAMES.index("return_10s")] *= 1e-3
    block[..., NAMES.index("spread_bps")] = np.abs(block[..., NAMES.index("spread_bps")]) * 5
    block[..., NAMES.index("volatility_30s")] = rng.uniform(0, 5e-4, (seconds, symbols)).round(4)  # some exactly 0
    block[rng.random(block.shape) < 0.01] = np.nan
    return block.astype(np.float32)


def same(a: Scores, b: Scores) -> bool:
    return all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=True) for n in a.__struct_fields__)


def mirrored_features(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the block of the mirrored market: every feature as the catalog says that a mirror changes it."""
    out = np.empty_like(features)
    for k, name in enumerate(NAMES):
        turned = CATALOG[name].mirror
        source = features[..., NAMES.index(turned) if turned in NAMES else k]
        out[..., k] = -source if turned == SIGN else source
    return out


@given(st.integers(0, 10_000))
def test_rules_negate_exactly_in_a_mirrored_market(seed: int) -> None:
    """The whole block of the mirrored market's features gives the exact negation: the two sides are one formula."""
    features = random_features(seed)
    mirrored = mirrored_features(features)
    assert np.array_equal(mirrored_features(mirrored), features, equal_nan=True)
    assert {name for name in RulesScorer.NEEDS if CATALOG[name].mirror == SIGN} == set(SIGNED)
    rules = RulesScorer(NAMES)

    there, back = rules.score(features, {}, 0), rules.score(mirrored, {}, 0)

    assert same(there.mirrored(), back)


@given(st.integers(0, 10_000))
def test_rules_score_rows_whatever_block_they_come_in(seed: int) -> None:
    """Scores of a block are the scores of its seconds, bit for bit."""
    features, rules = random_features(seed), RulesScorer(NAMES)

    whole = rules.score(features, {}, 100)

    for t in range(len(features)):
        assert same(whole.row(t), rules.score(features[t : t + 1], {}, 100 + t).row(0))


def test_rules_need_their_features_and_only_theirs() -> None:
    """A NaN in one of the five inputs makes a score invalid; a NaN elsewhere does not matter."""
    features = np.nan_to_num(random_features(1), nan=0.1)
    rules = RulesScorer(NAMES)
    for k, name in enumerate(NAMES):
        hurt = features.copy()
        hurt[3, 2, k] = np.nan

        valid = rules.score(hurt, {}, 0).is_valid

        assert valid[3, 2] == (name not in RulesScorer.NEEDS), name
        assert valid.sum() >= valid.size - 1


def test_rules_point_where_everything_points() -> None:
    """Rising, bid-heavy and bought: long, confident, with an edge below the volatility that it is a share of."""
    features = np.zeros((1, 1, len(NAMES)), np.float32)
    for name, value in (("return_10s", 2e-3), ("volatility_30s", 5e-4), ("imbalance_mean_10s", 0.8), ("flow_10s", 0.9)):
        features[0, 0, NAMES.index(name)] = value

    scores = RulesScorer(NAMES).score(features, {}, 0)

    assert scores.direction[0, 0] == 1
    assert scores.confidence[0, 0] > 0.8
    assert 0 < scores.edge_bps[0, 0] < 5e-4 * np.sqrt(10) * 1e4


def test_rules_believe_less_where_the_spread_is_wide() -> None:
    """Of the same signal a wider spread leaves a smaller edge and less confidence, and never turns it around."""
    features = np.zeros((1, 6, len(NAMES)), np.float32)
    for name, value in (("return_10s", 2e-3), ("volatility_30s", 5e-4), ("imbalance_mean_10s", 0.8), ("flow_10s", 0.9)):
        features[..., NAMES.index(name)] = value
    features[0, :, NAMES.index("spread_bps")] = (0.0, 1.0, 4.0, 16.0, 64.0, 1000.0)

    scores = RulesScorer(NAMES).score(features, {}, 0).row(0)

    assert np.all(np.diff(scores.edge_bps) < 0)
    assert np.all(np.diff(scores.confidence) < 0)
    assert np.all(scores.direction == 1)


class FromLogits:
    """A model that says softmax of a linear form of the features, symmetric or not."""

    def __init__(self, weights: NDArray[np.float64], class_edge_bps: tuple[float, float, float]) -> None:
        self.weights = weights
        self.bundle = SimpleNamespace(horizon_s=10, class_edge_bps=class_edge_bps)

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        up = np.nan_to_num(features.astype(np.float64)) @ self.weights
        p = np.stack([np.ones_like(up), np.exp(up), np.exp(-up)], axis=-1)
        normed: NDArray[np.float64] = p / p.sum(axis=-1, keepdims=True)
        return normed


@given(st.integers(0, 10_000))
def test_model_scores_bps_over_its_horizon_and_treats_sides_alike(seed: int) -> None:
    """Edge is probability times mean move, in bps over the bundle's horizon; where the booster mirrors, so do scores."""
    rng = np.random.default_rng(seed)
    weights = np.array([rng.normal() if CATALOG[name].mirror == SIGN else 0.0 for name in NAMES])
    model = FromLogits(weights * 0.1, (0.0, 12.0, -12.0))
    scorer = ModelScorer(cast(Model, model))
    features = random_features(seed)

    there, back = scorer.score(features, {}, 0), scorer.score(mirrored_features(features), {}, 0)

    assert scorer.horizon_s == 10
    assert np.allclose(there.edge_bps, 12.0 * (there.p_long - there.p_short))
    assert np.allclose(there.edge_bps, -back.edge_bps)
    assert np.allclose(there.p_long, back.p_short)
    assert np.array_equal(there.direction, -back.direction)


def test_coin_is_fair_and_independent_of_the_cut() -> None:
    """The coin of a second is the same in every block, falls evenly, and differs between seconds and seeds."""
    block = {"any": np.full((400, 30), np.nan)}
    coin = CoinScorer(5)

    whole = coin.score(None, block, 1_000)
    parts = [coin.score(None, {"any": block["any"][:n]}, 1_000 + t) for t, n in ((0, 7), (7, 1), (8, 392))]

    assert np.array_equal(whole.direction, np.concatenate([p.direction for p in parts]))
    assert whole.is_valid.all()
    assert set(np.unique(whole.direction)) == {-1, 1}
    assert abs(whole.direction.mean()) < 0.03
    assert not np.array_equal(whole.direction, CoinScorer(6).score(None, block, 1_000).direction)
    assert not whole.edge_bps.any()


def test_rules_without_their_features_are_our_bug() -> None:
    """A graph that lacks an input of the rules is noticed when the scorer is made."""
    with pytest.raises(AssertionError, match="flow_10s"):
        RulesScorer(("return_10s", "volatility_30s", "imbalance_mean_10s"))


@given(st.integers(0, 10_000))
def test_margin_is_the_lead_over_the_next_class(seed: int) -> None:
    """The margin is the probability of the direction less the greatest of the other two, long and short alike."""
    scores = RulesScorer(NAMES).score(random_features(seed, seconds=1), {}, 0).row(0)

    for n in np.flatnonzero(scores.is_valid).tolist():
        mine, other = scores.p_long[n], scores.p_short[n]
        if scores.direction[n] < 0:
            mine, other = other, mine
        assert scores.margin[n] == mine - max(other, scores.p_flat[n])
