"""The book leans to no side, and not towards the market, by more than its bands."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.strategy.betas import BETA_MAX, STEP_S, Betas
from shared.strategy.engine import EngineConfig
from shared.strategy.neutral import Tilt
from tests.shared.strategy.made import START_S, Script, places, scores

ENTRY = st.tuples(st.sampled_from([-1, 1]), st.decimals(1, 1000, places=2), st.integers(0, 300))


@given(st.lists(ENTRY, max_size=12), st.lists(ENTRY, max_size=12), st.integers(1, 2000), st.integers(1, 2000))
def test_no_entry_takes_the_book_beyond_a_band_or_further_out(
    held: list[tuple[int, Decimal, int]], asked: list[tuple[int, Decimal, int]], side_max: int, beta_max: int
) -> None:
    """Whatever is held, what is allowed keeps both sums within their bands or brings them nearer to zero."""
    tilt = Tilt(Decimal(side_max), Decimal(beta_max))
    side = beta = Decimal(0)
    for sign, notional, weight in held:
        tilt.add(sign, notional, weight)
        side, beta = side + sign * notional, beta + sign * notional * weight / 100
    for sign, notional, weight in asked:
        after = side + sign * notional, beta + sign * notional * weight / 100
        expected = (abs(after[0]) <= side_max or abs(after[0]) <= abs(side)) and (
            abs(after[1]) <= beta_max or abs(after[1]) <= abs(beta)
        )
        assert tilt.allows(sign, notional, weight) == expected
        if expected:
            tilt.add(sign, notional, weight)
            side, beta = after


@given(st.lists(ENTRY, min_size=1, max_size=12), st.integers(1, 2000))
def test_a_mirrored_book_is_bound_alike(asked: list[tuple[int, Decimal, int]], limit: int) -> None:
    """Turning every side around changes no verdict."""
    here, there = Tilt(Decimal(limit), Decimal(limit)), Tilt(Decimal(limit), Decimal(limit))
    for sign, notional, weight in asked:
        assert here.allows(sign, notional, weight) == there.allows(-sign, notional, weight)
        here.add(sign, notional, weight)
        there.add(-sign, notional, weight)


def test_one_sided_scores_fill_the_band_and_no_more() -> None:
    """Twenty sure longs and a band of 5 % of 25,000: what fits is opened, and the reason of the others has a name."""
    script = Script(20, EngineConfig(side_band=0.05, beta_band=10.0, orders_per_second_max=10))
    entries = places(script.close_second(scores([1] * 20)))
    leant = sum(order.size for order in entries) * 100

    assert 1250 - entries[0].size * 100 < leant <= 1250
    assert script.reasons.count("neutral") == 10 - len(entries)
    for order in entries:
        script.complete(order)
    assert not places(script.close_second(scores([1] * 20)))
    assert places(script.close_second(scores([1] * 10 + [-1] * 10)))


def test_counterweights_are_waited_for_within_a_decision() -> None:
    """Ranked first, ten longs would not fit; each waits until a short has made room."""
    config = EngineConfig(side_band=0.05, beta_band=10.0, orders_per_second_max=10, top_k=5)
    script = Script(10, config)
    said = scores([1] * 5 + [-1] * 5)
    said.edge_bps[:5] = 60.0
    entries = places(script.close_second(said))

    assert len(entries) == 10
    assert sum(order.size * order.side.sign for order in entries) == 0


def market(betas: list[float], n_steps: int, seed: int, noise: float = 0.0) -> np.ndarray:
    """Return mids (T, N) whose moves are beta times a common one, plus noise."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0, 1e-3, (n_steps, 1))
    moves = common * np.array(betas) + rng.normal(0, 1e-3, (n_steps, len(betas))) * noise
    return 100 * np.cumprod(1 + moves, axis=0)


def learnt(mids: np.ndarray) -> Betas:
    found = Betas(mids.shape[1])
    start = START_S // STEP_S * STEP_S
    for t, row in enumerate(mids):
        found.take(start + STEP_S * t, row - 0.01, row + 0.01)
    return found


def test_beta_is_that_of_least_squares_shrunk_to_one() -> None:
    """On a market of known betas they are found: two thirds of the estimate and one third of one."""
    true = [0.2, 0.6, 1.0, 1.4, 1.8]  # their mean is 1: the market is the mean of these symbols
    mids = market(true, 61, 3, noise=0.2)
    moves = mids[1:] / mids[:-1] - 1
    mean = moves.mean(axis=1)
    ols = (moves * mean[:, None]).sum(axis=0) / (mean * mean).sum()

    found = learnt(mids).hundredths / 100

    assert found == pytest.approx((2 * ols + 1) / 3, abs=0.006)
    assert np.all(np.diff(found) > 0)


def test_beta_is_one_until_a_minute_is_known() -> None:
    """What is not known counts as one: at the start, without a book, without a market that moves."""
    assert set(learnt(market([0.1, 1.9], 10, 1)).hundredths) == {100}
    still = np.full((80, 3), 100.0)
    assert set(learnt(still).hundredths) == {100}
    gone = market([0.1, 1.0, 1.9], 80, 1)
    gone[:, 0] = np.nan
    assert learnt(gone).hundredths[0] == 100


def test_beta_forgets() -> None:
    """Only the last 325 s count: two pasts that end alike say the same, bit for bit."""
    ending = market([0.5, 1.0, 1.5], 70, 9)
    pasts = [market([1.5, 1.0, 0.5], 35, seed, noise=1.0) for seed in (1, 2)]
    found = [learnt(np.concatenate([past, ending * past[-1] / 100])) for past in pasts]

    assert list(found[0].hundredths) == list(found[1].hundredths)


@given(st.permutations(range(6)), st.integers(0, 50))
def test_beta_knows_no_order_of_symbols(order: list[int], seed: int) -> None:
    """Permuting the symbols permutes their betas, to the last digit."""
    mids = market([0.1, 0.5, 0.9, 1.1, 1.5, 1.9], 40, seed, noise=0.5)

    assert list(learnt(mids[:, order]).hundredths) == [learnt(mids).hundredths[n] for n in order]


def test_beta_of_a_broken_price_is_bounded() -> None:
    """A price that jumps a millionfold and back moves no beta beyond its bounds and loses no symbol."""
    mids = market([0.5, 1.0, 1.5], 60, 4)
    mids[30, 0] *= 1e6
    found = learnt(mids).hundredths

    assert np.all((found >= 0) & (found <= BETA_MAX * 100))


def test_beta_band_binds_where_the_side_band_does_not() -> None:
    """A symbol of beta 2 leans twice: with equal notionals fewer of it are opened."""
    config = EngineConfig(side_band=1.0, beta_band=0.05, orders_per_second_max=10)
    calm, wild = Script(20, config), Script(20, config)
    wild.engine._desk.betas.hundredths[:] = 200
    n_calm = len(places(calm.close_second(scores([1] * 20))))
    n_wild = len(places(wild.close_second(scores([1] * 20))))

    assert 0 < n_wild < n_calm < 10
    assert "neutral" in wild.reasons
