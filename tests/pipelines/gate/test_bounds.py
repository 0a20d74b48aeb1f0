"""The bound of a mean: it holds as often as it says, also where trades come in clusters, and knows what it cannot say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.gate import bounds
from pipelines.gate.bounds import blocked, lower_bound
from shared.types import Floats, Ints

WINDOW_S = 2700


def clustered(seed: int, *, together: int, mean: float = 0.0) -> tuple[Ints, Floats]:
    """Return values of which so many at a time share their second and half of their variance."""
    rng = np.random.Generator(np.random.Philox(seed))
    n = 600 // together
    second = np.repeat(np.sort(rng.integers(0, WINDOW_S, n)), together)
    shared = np.repeat(rng.standard_t(5, n), together) if together > 1 else 0.0
    value = mean + 10.0 * (shared + rng.standard_t(5, n * together)) / math.sqrt(2.0)
    return second, np.asarray(value)


@pytest.mark.parametrize("together", [1, 10])
def test_the_bound_is_wrong_as_seldom_as_it_says(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of worthless trades at most about 5 % have a bound above 0 at 95 %, whether each is news of its own or ten ride on
    one move; taken one by one, as if they were independent, clusters fool an ordinary t-test five times as often."""
    monkeypatch.setattr(bounds, "RESAMPLES", 999)
    worlds = 150
    wrong = naive = 0
    for seed in range(worlds):
        second, value = clustered(seed, together=together)
        wrong += lower_bound(second, value, 0, WINDOW_S, confidence=0.95).lower > 0
        naive += scipy.stats.ttest_1samp(value, 0.0, alternative="greater").pvalue < 0.05

    assert wrong <= scipy.stats.binom.ppf(0.999, worlds, 0.05)
    if together > 1:
        assert naive > 0.12 * worlds


def test_an_edge_is_found() -> None:
    """A mean of six of its errors is above 0 with 99 % confidence, and the error is the ordinary one where trades are
    independent."""
    second, value = clustered(3, together=1, mean=3.0)

    found = lower_bound(second, value, 0, WINDOW_S, confidence=0.99)

    assert found.mean == pytest.approx(value.mean())
    assert found.lower > 0
    assert 0.7 < found.standard_error / (value.std() / math.sqrt(len(value))) < 2.0


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100.0), shift=st.floats(-50.0, 50.0))
def test_the_bound_moves_with_its_values(seed: int, scale: float, shift: float) -> None:
    """Other units and another origin give the same bound in them: nothing of it is about bps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounds, "RESAMPLES", 99)
        second, value = clustered(seed, together=5)
        one = lower_bound(second, value, 0, WINDOW_S, confidence=0.9)
        other = lower_bound(second, value * scale + shift, 0, WINDOW_S, confidence=0.9)

    assert other.lower == pytest.approx(one.lower * scale + shift, rel=1e-6, abs=1e-6)


def test_more_confidence_is_a_lower_bound() -> None:
    """And the same trades give the same bound every time."""
    second, value = clustered(1, together=5, mean=1.0)

    lowers = [lower_bound(second, value, 0, WINDOW_S, confidence=c).lower for c in (0.9, 0.95, 0.99, 0.999)]

    assert lowers == sorted(lowers, reverse=True)
    assert lower_bound(second, value, 0, WINDOW_S, confidence=0.9).lower == lowers[0]


@pytest.mark.parametrize(
    ("second", "value", "end_s"),
    [
        ([], [], WINDOW_S),
        ([5], [1.0], WINDOW_S),
        (list(range(600)), [1.0, -1.0] * 300, 600),
        (list(range(0, WINDOW_S, 30)), [2.0] * 90, WINDOW_S),
        (list(range(0, WINDOW_S, 30)), [math.nan, *[1.0] * 89], WINDOW_S),
        (list(range(0, WINDOW_S, 30)), [math.inf, *[1.0] * 89], WINDOW_S),
        ([7] * 500, list(range(500)), WINDOW_S),
    ],
    ids=["none", "one", "ten minutes", "constant", "NaN", "infinite", "one second"],
)
def test_what_cannot_be_bounded_is_not(second: list[int], value: list[float], end_s: int) -> None:
    """Too few blocks, nothing that varies, figures that are none: minus infinity, which passes no gate."""
    found = lower_bound(np.array(second, np.int64), np.array(value, np.float64), 0, end_s, confidence=0.95)

    assert found.lower == -math.inf
    assert not found.is_known


def test_blocks_lose_nothing() -> None:
    """The end that is no whole block joins the last one: sums and counts are those of all values."""
    second, value = clustered(2, together=3)

    sums, counts = blocked(second, value, 0, WINDOW_S, 240)

    assert len(sums) == WINDOW_S // 240
    assert sums.sum() == pytest.approx(value.sum())
    assert counts.sum() == len(value)
