"""Planted leaks are caught every time; and what really can be predicted is found, no more and no less."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dataset import build_dataset
from pipelines.leaks import LeakyFeatures, check_features
from pipelines.training import figures_of, fit_and_judge
from pipelines.validation import LeakySplit, check_gap
from shared.features.catalog import FEATURES
from shared.lake import read, write
from shared.lake.layout import HOUR_S
from tests.pipelines.markets import HOUR, SOURCE, write_lake
from tests.pipelines.test_training import planted

LEAKS = {
    "one second ahead": lambda name: pl.col(name).shift(-1).over("symbol"),
    "one second ahead, filled": lambda name: pl.col(name).shift(-1).over("symbol").fill_null(0.0).fill_nan(0.0),
    "ten rows of a pooled frame": lambda name: pl.col(name).fill_nan(None).rolling_mean(10, min_samples=1),
    "scaled by the whole window": lambda name: (pl.col(name) - pl.col(name).fill_nan(None).mean()).over("symbol"),
    "filled where missing": lambda name: pl.col(name).fill_nan(0.0),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake whose features are right: two hours of it, 600 s, four symbols."""
    lake = tmp_path_factory.mktemp("sound")
    write_lake(lake, rows=600, n_symbols=4)
    return lake


def test_sound_features_pass(sound: Path) -> None:
    """What the graph wrote is what the check computes, at the first second of the window too."""
    assert check_features(sound, SOURCE, [HOUR, HOUR + 1]) >= 16
    assert check_features(sound, SOURCE, [HOUR]) == 20
    assert check_features(sound, SOURCE, []) == 0


NAMES = ("return_1s", "imbalance_5", "volatility_30s", "rank_return_10s")


@pytest.mark.parametrize(
    ("leak", "name"),
    [(leak, name) for leak in LEAKS for name in NAMES if (leak, name) != ("filled where missing", "imbalance_5")],
)
def test_planted_leaks_are_caught_before_training(sound: Path, tmp_path: Path, leak: str, name: str) -> None:
    """A feature that looks ahead, was rolled across symbols, scaled by its future, or filled, is named; nothing is
    learnt from it. (The imbalance of this market is never missing.)"""
    _copy(sound, tmp_path)
    for hour in (HOUR, HOUR + 1):
        rows = read.collect(_rows(sound, "features", hour)).sort("symbol", "second")
        changed = rows.with_columns(LEAKS[leak](name).cast(pl.Float32).fill_null(math.nan).alias(name))
        write.write_table(tmp_path, "features", SOURCE, hour, changed, {})

    with pytest.raises(LeakyFeatures, match=f"found {name} = .* at .*, where its formula gives"):
        build_dataset(tmp_path, SOURCE)


@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.05, 0.95), rows=st.integers(50, 2000))
def test_random_splits_are_refused(seed: int, share: float, rows: int) -> None:
    """Whatever a random split by row puts on either side, it is too close."""
    rng = np.random.Generator(np.random.Philox(seed))
    is_learnt = rng.random(rows) < share
    is_learnt[:2] = [True, False]

    with pytest.raises(LeakySplit, match="split by time, with an embargo"):
        check_gap(np.flatnonzero(is_learnt), np.flatnonzero(~is_learnt), reach_s=11, lookback_s=30)


@pytest.mark.parametrize("signal", [0.15, 0.6])
def test_planted_predictability_is_measured_within_its_error(signal: float) -> None:
    """The rank IC found out of sample is the one that was planted: 6 / π · asin(ρ / 2) of a Gaussian pair."""
    found = figures_of(fit_and_judge(planted(seconds=3000, symbols=12, signal=signal), seed=7, threads=1))

    rho = signal / math.sqrt(1.0 + signal**2)
    true = 6.0 / math.pi * math.asin(rho / 2.0)
    assert found["ridge_rank_ic"] == pytest.approx(true, abs=0.03)
    assert true - 4 * found["rank_ic_se"] - 0.04 < found["rank_ic"] < true + 4 * found["rank_ic_se"]
    assert abs(found["shuffled_rank_ic"]) < found["rank_ic"] / 2
    assert abs(found["shifted_rank_ic"]) < found["rank_ic"] / 2


def _rows(lake: Path, table: str, hour: int) -> pl.LazyFrame:
    return read.scan(lake, table, SOURCE, start_s=hour * HOUR_S, end_s=(hour + 1) * HOUR_S)


def _copy(lake: Path, into: Path) -> None:
    for path in lake.rglob("*"):
        if path.is_file():
            target = into / path.relative_to(lake)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


def test_names_of_the_leaks_are_features() -> None:
    """The features that leaks are planted in, and the clocks that training knows, are in the catalog."""
    from pipelines.baselines import OLS_FEATURE
    from pipelines.boosting import _VOLATILITY
    from pipelines.rows import CLOCKS_S

    assert {*CLOCKS_S, OLS_FEATURE, _VOLATILITY} <= set(FEATURES)
