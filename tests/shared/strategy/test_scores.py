"""Scorers: symmetric by construction, pure functions of rows, NaN never becomes an opinion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.features.catalog import FEATURES
from shared.strategy.scores import CoinScorer, RulesScorer, Scores

NAMES = tuple(FEATURES)
SIGNED = ("return_10s", "imbalance_mean_10s", "flow_10s")


def random_features(seed: int, seconds: int = 8, symbols: int = 5) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    block = rng.normal(0, 1, (seconds, symbols, len(NAMES)))
    block[..., NAMES.index("return_10s")] *= 1e-3
    block[..., NAMES.index("volatility_30s")] = rng.uniform(0, 5e-4, (seconds, symbols)).round(4)  # some exactly 0
    block[rng.random(block.shape) < 0.01] = np.nan
    return block.astype(np.float32)


def same(a: Scores, b: Scores) -> bool:
    return all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=True) for n in a.__struct_fields__)


@given(st.integers(0, 10_000))
def test_rules_negate_exactly_in_a_mirrored_market(seed: int) -> None:
    """Features of the mirrored market give the exact negation: the two sides are one formula."""
    features = random_features(seed)
    mirrored = features.copy()
    for name in SIGNED:
        mirrored[..., NAMES.index(name)] *= -1
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
    """A NaN in one of the four inputs makes a score invalid; a NaN elsewhere does not matter."""
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
def test_margin_of_one_symbol_is_the_margin_of_all(seed: int) -> None:
    """The margin of one symbol is, bit for bit, its element of the margins."""
    scores = RulesScorer(NAMES).score(random_features(seed, seconds=1), {}, 0).row(0)

    for n in np.flatnonzero(scores.is_valid).tolist():
        assert scores.margin_of(n) == scores.margin[n]
