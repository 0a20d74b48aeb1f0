"""What scores said against what followed: against ranks made one by one, and the rank IC of `pipelines.validation`."""

from __future__ import annotations

import math
from bisect import bisect_right

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.scoring import Outcomes
from pipelines.skill import DECILES, NO_SKILL, PROBABILITIES, Skill, SkillMeter, ranks
from pipelines.validation import IC_SYMBOLS_MIN, ic_by_second, mean_ic
from shared.labels import LONG, SHORT
from shared.strategy.scores import Scores, _scores
from shared.types import Floats

START = 1_760_000_400


def world(rows: int, symbols: int, seed: int, *, step: float, unknown: float) -> tuple[Scores, Outcomes]:
    """Return scores and outcomes, rounded so that some are equal, some of either not known."""
    rng = np.random.default_rng(seed)
    x = np.round(rng.normal(size=(rows, symbols)) / step) * step
    p = np.clip(0.5 + 0.2 * x, 0.0, 1.0)
    scores = _scores(p, 1.0 - p, np.where(rng.random(x.shape) < unknown, np.nan, 0.0), 3.0 * x)
    mid_bps = np.round((x + rng.normal(size=x.shape)) / step) * step
    mid_bps[rng.random(x.shape) < unknown] = np.nan
    label = rng.integers(0, 3, x.shape).astype(np.float64)
    label[rng.random(x.shape) < unknown] = np.nan
    return scores, Outcomes(mid_bps, label)


worlds = st.builds(
    world, st.integers(1, 130), st.integers(1, 40), st.integers(0, 999), step=st.sampled_from((1.0, 0.3, 1e-6)),
    unknown=st.sampled_from((0.0, 0.1, 0.9)),
)  # fmt: skip


def measured(scores: Scores, outcomes: Outcomes, cuts: list[int]) -> Skill:
    meter = SkillMeter(START, START + len(scores.is_valid))
    for begin, end in zip([0, *cuts], [*cuts, len(scores.is_valid)], strict=True):
        some = slice(begin, end)
        meter.add(START + begin, scores.row(some), Outcomes(outcomes.mid_bps[some], outcomes.label[some]))
    return meter.found()


@settings(max_examples=60, deadline=None)
@given(worlds)
def test_ranks_are_those_of_counting(made: tuple[Scores, Outcomes]) -> None:
    """A rank is how many are less and half of those that are equal; the order is Python's own stable one."""
    values, known = made[1].mid_bps, np.isfinite(made[1].mid_bps)
    found, order = ranks(values, known, is_stable=True)

    for t, row in enumerate(values):
        at = np.flatnonzero(known[t])
        counted = {
            n: sum(row[m] < row[n] for m in at) + (sum(row[m] == row[n] for m in at) - 1) / 2 - (len(at) - 1) / 2
            for n in at
        }
        assert {n: found[t, n] / 2 for n in at} == counted
        assert not found[t, ~known[t]].any()
        assert order[t, : len(at)].tolist() == sorted(at.tolist(), key=lambda n: (row[n], n))
        assert set(order[t].tolist()) == set(range(values.shape[1]))


@settings(max_examples=60, deadline=None)
@given(worlds, st.lists(st.integers(1, 129), max_size=3))
def test_skill_is_what_one_row_after_the_other_says(made: tuple[Scores, Outcomes], cuts: list[int]) -> None:
    """Rank IC as the reports of models have it, deciles and bins counted in Python, however the window is cut."""
    scores, outcomes = made
    rows = len(scores.is_valid)
    found = measured(scores, outcomes, sorted({cut for cut in cuts if cut < rows}))

    known = scores.is_valid & np.isfinite(outcomes.mid_bps)
    t, _ = np.nonzero(known)
    when, ic = ic_by_second(START + t, scores.edge_bps[known], outcomes.mid_bps[known])
    expected = mean_ic(when, ic)
    assert found.ic.seconds == expected.seconds
    np.testing.assert_allclose(found.ic.mean, expected.mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.ic.standard_error, expected.standard_error, rtol=1e-9)

    said, came = deciles(known, scores.edge_bps, outcomes.mid_bps)
    np.testing.assert_allclose(found.decile_said_bps, said, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.decile_came_bps, came, rtol=1e-9, atol=1e-12)

    labelled = scores.is_valid & np.isfinite(outcomes.label)
    assert found.rows.sum() == 2 * labelled.sum()
    inner = PROBABILITIES[1:-1]
    long = [0] * (len(PROBABILITIES) - 1)
    short = list(long)
    hits = 0
    for n, p_long, p_short in zip(
        outcomes.label[labelled], scores.p_long[labelled], scores.p_short[labelled], strict=True
    ):
        long[bisect_right(inner, p_long)] += 1
        short[bisect_right(inner, p_short)] += 1
        hits += int(n) in (LONG, SHORT)
    assert found.rows.tolist() == [a + b for a, b in zip(long, short, strict=True) if a + b]
    np.testing.assert_allclose((found.frequency * found.rows).sum(), hits, rtol=1e-12)


def deciles(known: np.ndarray, said: Floats, came: Floats) -> tuple[list[float], list[float]]:
    """Return the mean of both by tenth of what was said, seconds pooled."""
    pooled: list[list[tuple[float, float]]] = [[] for _ in range(DECILES)]
    for t in range(len(known)):
        at = np.flatnonzero(known[t]).tolist()
        if len(at) < IC_SYMBOLS_MIN:
            continue
        for place, n in enumerate(sorted(at, key=lambda n: (said[t, n], n))):
            pooled[place * DECILES // len(at)].append((said[t, n], came[t, n]))
    means = [[sum(pair[k] for pair in some) / len(some) if some else math.nan for some in pooled] for k in (0, 1)]
    return means[0], means[1]


def test_scores_that_know_the_order_have_a_rank_ic_of_one() -> None:
    """Exactly one, not nearly: sums of ranks are whole numbers."""
    scores, outcomes = world(120, 37, 1, step=0.3, unknown=0.1)
    known = Outcomes(np.where(scores.is_valid, scores.edge_bps**3, np.nan), outcomes.label)
    found = measured(scores, known, [50])

    assert found.ic.mean == 1.0
    assert found.ic.seconds == 120
    assert (np.diff(found.decile_came_bps) > 0).all()


def test_nothing_known_is_no_skill() -> None:
    """Unscored seconds, and seconds of which nothing is known, leave NaN and no rows, as if they were not there."""
    scores, outcomes = world(70, 5, 2, step=0.3, unknown=0.0)
    nothing = Outcomes(np.full_like(outcomes.mid_bps, np.nan), np.full_like(outcomes.label, np.nan))
    found = measured(scores, nothing, [])

    assert math.isnan(found.ic.mean)
    assert np.isnan(found.decile_came_bps).all()
    assert len(found.rows) == len(NO_SKILL.rows)
