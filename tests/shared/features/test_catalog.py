"""Laws that every feature of the catalog keeps; each is found by itself, none is listed here."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.features import plan, sampler
from shared.features.catalog import CATALOG, FEATURES, LOOKBACK_S, SAME, SIGN
from shared.features.graph import FeatureGraph, lookback_of
from shared.features.page import page
from shared.settings import ROOT
from shared.types import Floats
from tests.shared.features import worlds

Block = dict[str, Floats]
Features = NDArray[np.float32]

NAMES = tuple(FEATURES)
START_S = 1_763_798_000
seeds = st.integers(0, 10**6)


def compute(columns: Block, first_second: int = START_S, symbols: tuple[str, ...] = ()) -> Features:
    return FeatureGraph(FEATURES, symbols or worlds.names(columns["last"].shape[1])).step(columns, first_second)


def rows(columns: Block, start: int, stop: int) -> Block:
    return {name: column[start:stop] for name, column in columns.items()}


def differing(left: Features, right: Features) -> list[str]:
    """Return the names of the features that differ in any bit."""
    return [name for f, name in enumerate(NAMES) if left[..., f].tobytes() != right[..., f].tobytes()]


def test_the_catalog_has_the_features_of_the_original() -> None:
    """The thirty names of the system that we start from, among eighty or more; prices themselves are not."""
    original = """
        spread_bps spread_mean_10s spread_std_10s imbalance_1 imbalance_3 imbalance_5 imbalance_mean_10s
        imbalance_std_10s depth_total_bid depth_total_ask depth_5bps_bid depth_5bps_ask depth_10bps_bid depth_10bps_ask
        depth_ratio return_1s return_5s return_10s return_20s return_30s volatility_10s volatility_20s volatility_30s
        momentum_10_20 funding_rate mark_index_spread_bps quote_volume_24h flow_10s flow_30s trade_intensity_10s
    """

    assert set(original.split()) <= set(NAMES)
    assert len(NAMES) >= 80


def test_the_lookback_is_what_a_session_waits_for() -> None:
    """A session scores nothing until its windows are full: no feature may need more than half a minute."""
    assert lookback_of(FEATURES) == LOOKBACK_S == 30


def test_every_feature_is_documented() -> None:
    """Formula in words, unit and source are there, windows are in names, and names are nobody else's."""
    for name, feature in CATALOG.items():
        assert feature.unit, name
        assert feature.source, name
        assert len(feature.says) > 5, name
        assert feature.mirror in (SAME, SIGN, *NAMES), name
        assert name.isidentifier(), name
    assert len({node.identity for node in FEATURES.values()}) == len(NAMES), "one formula under two names"


def test_the_page_of_the_catalog_is_in_step() -> None:
    """docs/features.md is what the catalog says: python -m shared.features.page > docs/features.md"""
    assert (ROOT / "docs/features.md").read_text() == page()


def test_every_input_is_a_column_of_the_sampler() -> None:
    """A typing error in a column's name fails here and not in a session."""
    assert set(FeatureGraph(FEATURES, ()).inputs) <= set(sampler.COLUMNS)


@hypothesis_settings(max_examples=8)
@given(seeds, st.lists(st.integers(0, 150), max_size=8))
def test_features_do_not_depend_on_cuts(seed: int, cuts: list[int]) -> None:
    """One block, seconds one by one, or anything between: the same bytes."""
    columns = worlds.seconds(seed, 3, 150)
    graph = FeatureGraph(FEATURES, worlds.names(3))
    bounds = [0, *sorted(cuts), 150]

    parts = [graph.step(rows(columns, a, b), START_S + a) for a, b in itertools.pairwise(bounds)]

    assert differing(np.concatenate(parts), compute(columns)) == []


def test_features_second_by_second_equal_a_block() -> None:
    """Live is T = 1, history is a block."""
    columns = worlds.seconds(1, 5, 120)
    graph = FeatureGraph(FEATURES, worlds.names(5))

    live = np.concatenate([graph.step(rows(columns, t, t + 1), START_S + t) for t in range(120)])

    assert differing(live, compute(columns)) == []


@hypothesis_settings(max_examples=10)
@given(seeds, st.integers(40, 140))
def test_a_partition_with_its_lookback_equals_the_uninterrupted_stream(seed: int, start: int) -> None:
    """`lookback` rows before a partition are enough: nothing else is remembered."""
    columns = worlds.seconds(seed, 3, 150)
    lookback = lookback_of(FEATURES)

    partition = compute(rows(columns, start - lookback, 150), START_S + start - lookback)[lookback:]

    assert differing(partition, compute(columns)[start:]) == []


@hypothesis_settings(max_examples=10)
@given(seeds, st.integers(1, 149))
def test_the_future_changes_nothing(seed: int, now: int) -> None:
    """Other rows after `now` leave every feature up to `now` alone."""
    columns = worlds.seconds(seed, 3, 150)
    other = worlds.seconds(seed + 1, 3, 150)

    changed = {name: np.concatenate([columns[name][:now], other[name][now:]]) for name in columns}

    assert differing(compute(changed)[:now], compute(columns)[:now]) == []


@hypothesis_settings(max_examples=10)
@given(seeds, st.permutations(range(4)))
def test_permuted_symbols_permute_their_features(seed: int, order: list[int]) -> None:
    """The order of the N axis changes no bit, also of what is summed or ranked over symbols."""
    columns = worlds.seconds(seed, 4, 80)
    names = worlds.names(4)

    permuted = compute(
        {name: np.ascontiguousarray(column[:, order]) for name, column in columns.items()},
        symbols=tuple(names[n] for n in order),
    )

    assert differing(permuted, np.ascontiguousarray(compute(columns)[:, order])) == []


@hypothesis_settings(max_examples=5)
@given(seeds)
def test_symbols_see_each_other_in_cross_sections_alone(seed: int) -> None:
    """Without its last symbol, a universe has the same features but those that rank, average or lead."""
    columns = worlds.seconds(seed, 4, 80)
    expected = compute(columns)

    fewer = compute({name: np.ascontiguousarray(column[:, :-1]) for name, column in columns.items()})

    changed = differing(fewer, np.ascontiguousarray(expected[:, :-1]))
    assert set(changed) <= {name for name in NAMES if is_across(name)}


def is_across(name: str) -> bool:
    return any(plan.is_across(node) for node in plan.in_order([FEATURES[name]]))


def reads(name: str) -> set[str]:
    return {str(node.parameter) for node in plan.in_order([FEATURES[name]]) if node.operator == "column"}


@pytest.mark.parametrize("power", [-9, 1, 13])
def test_prices_scaled_by_a_power_of_two_change_nothing(power: int) -> None:
    """Prices x 2^k with sizes x 2^-k is the same market in other units: the same bytes, for every feature."""
    columns = worlds.seconds(2, 3, 120)
    factor = 2.0**power
    scaled = {
        name: column * factor
        if is_price(name)
        else column / factor
        if "size" in name or name == "open_interest"
        else column
        for name, column in columns.items()
    }

    assert differing(compute(scaled), compute(columns)) == []


def is_price(name: str) -> bool:
    return "price" in name or name in ("last", "mark", "index", "mid_high", "mid_low")


def mirror(columns: Block, center: float) -> Block:
    """Return the market upside down: p → 2 center − p, bids are asks, buyers are sellers, funding changes sign."""

    def other_side(name: str) -> str:
        for one, two in (("bid", "ask"), ("ask", "bid"), ("buy", "sell"), ("sell", "buy")):
            if name.startswith(one):
                return name.replace(one, two, 1)
        return {"mid_high": "mid_low", "mid_low": "mid_high"}.get(name, name)

    mirrored = {}
    for name in columns:
        column = columns[other_side(name)]
        if is_price(name):
            column = 2.0 * center - column
        mirrored[name] = -column if name == "funding_rate" else column.copy()
    return mirrored


def test_a_mirrored_market_mirrors_every_feature() -> None:
    """Signed features change sign, bid and ask change places, the others stay, to first order in the moves.

    Neither simple returns (−1 % is undone by +1.01 %) nor notional (a mirrored price is another price) are exactly
    symmetric, so the market moves by about 1e-5 here, and features may differ by such a share of their
    largest value.
    """
    columns = worlds.seconds(3, 3, 150, holes=False)
    center = 128.0
    start = columns["last"][0]
    for name, column in columns.items():
        if is_price(name):
            columns[name] = center * (1.0 + (column - start) / start * 3e-3)

    result, reflection = compute(columns), compute(mirror(columns, center))

    for f, name in enumerate(NAMES):
        turned = CATALOG[name].mirror
        expected = result[..., NAMES.index(name if turned in (SAME, SIGN) else turned)]
        expected = -expected if turned == SIGN else expected
        atol = 2e-4 * float(np.nanmax(np.abs(expected)))
        np.testing.assert_allclose(reflection[..., f], expected, rtol=5e-5, atol=atol, err_msg=name)


def test_every_feature_says_how_it_is_mirrored() -> None:
    """Pairs come in twos, what changes sign has both signs, and what does not is not always 0."""
    block = compute(worlds.seconds(4, 3, 200, holes=False))[60:]
    for name, feature in CATALOG.items():
        values = block[..., NAMES.index(name)]
        if feature.mirror == SIGN and name not in ("funding_rate", "rank_funding_rate"):
            assert values.min() < 0 < values.max(), name
        elif feature.mirror not in (SAME, SIGN):
            assert CATALOG[feature.mirror].mirror == name
        assert values.any(), name


@pytest.mark.parametrize("name", sampler.COLUMNS)
def test_a_missing_column_is_missing_in_every_feature_that_reads_it(name: str) -> None:
    """What a column does not know, no feature makes up: it is NaN, never 0, wherever the formula reads it."""
    columns = worlds.seconds(5, 2, 100, holes=False)
    columns[name] = np.full_like(columns[name], np.nan)

    block = compute(columns)[60:]

    for f, feature in enumerate(NAMES):
        if name in reads(feature):
            assert np.isnan(block[..., f]).all(), feature
        else:
            assert np.isfinite(block[..., f]).all(), feature


@hypothesis_settings(max_examples=10)
@given(seeds)
def test_a_hole_is_over_after_the_lookback(seed: int) -> None:
    """After `lookback` complete rows every feature is finite again, whatever was missing before."""
    columns = worlds.seconds(seed, 3, 120, holes=False)
    holed = {name: np.concatenate([np.full_like(column[:40], np.nan), column[40:]]) for name, column in columns.items()}
    first_whole = 40 + lookback_of(FEATURES)

    block = compute(holed)

    for f, name in enumerate(NAMES):
        assert not reads(name) or np.isnan(block[:40, :, f]).all(), name  # the clock is never missing
        assert np.isfinite(block[first_whole:, :, f]).all(), name


def test_zeros_make_no_infinities() -> None:
    """An empty side, no volume, no trades, no mark: known zeros give numbers or NaN, never infinity."""
    rng = np.random.default_rng(9)
    columns = worlds.seconds(6, 3, 300, holes=False)
    for name, column in columns.items():
        is_zero_possible = not any(part in name for part in ("price", "mid", "last", "mark", "index"))
        if is_zero_possible:
            column[rng.random(column.shape) < 0.3] = 0.0

    block = compute(columns)
    assert [name for f, name in enumerate(NAMES) if np.isinf(block[..., f]).any()] == []


def test_no_trades_in_a_covered_window_is_a_flow_of_zero() -> None:
    """Nobody traded for thirty seconds: flow 0; one uncovered second among them: missing."""
    columns = worlds.seconds(7, 1, 100, holes=False)
    for name in ("buy_volume_usdt", "sell_volume_usdt", "buy_count", "sell_count"):
        columns[name] = np.zeros((100, 1))
    columns["buy_volume_usdt"][60] = np.nan

    flow = compute(columns)[:, 0, NAMES.index("flow_30s")]

    assert (flow[29:60] == 0.0).all()
    assert np.isnan(flow[60:90]).all()
    assert (flow[90:] == 0.0).all()


# ------------------------------------------------------------------------------------- the same on every CPU

DIGEST = """
import hashlib
from tests.shared.features import test_catalog, worlds
print(test_catalog.digest())
"""


def digest() -> str:
    """Return a digest of sampled seconds and of features, over worlds with all kinds of trouble."""
    result = hashlib.sha256()
    for seed in range(3):
        stream = worlds.world(seed, 4, 1_700_000_000, 90)
        for column in worlds.sample(4, 1_700_000_000, [(worlds.ticks(stream), 1_700_000_090)]).values():
            result.update(np.where(np.isnan(column), np.nan, column).tobytes())
    for n in (1, 7, 64):
        result.update(compute(worlds.seconds(n, n, 200)).tobytes())
    return result.hexdigest()


def simd_features() -> list[str]:
    """Return the SIMD extensions that numpy found here and can do without."""
    umath = np._core._multiarray_umath  # type: ignore[attr-defined]
    return [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__.get(name)]


def test_seconds_and_features_are_the_same_bits_without_simd() -> None:
    """With numpy's dispatch disabled, another process computes the same digest: no operator depends on the CPU."""
    root = Path(__file__).resolve().parents[3]
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "NPY_DISABLE_CPU_FEATURES": " ".join(simd_features()),
    }

    run = subprocess.run(
        [sys.executable, "-c", DIGEST], env=environment, cwd=root, capture_output=True, text=True, check=True
    )

    assert run.stdout.strip() == digest()
