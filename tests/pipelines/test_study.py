"""The rank IC of a formula by horizon: against the judge of models, and against what was planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.stats

from pipelines.study import _ics, study
from pipelines.validation import rank_ic
from shared.errors import TableEmpty
from shared.features.across import rank
from shared.features.catalog import imbalance, simple_return
from shared.features.graph import FeatureGraph
from shared.features.ops import Column
from shared.labels import mid_bps
from shared.lake import read
from tests.pipelines import markets
from tests.pipelines.markets import SOURCE

FORMULAS = {"imbalance": imbalance(1), "reversal": 0.0 - simple_return(5), "ranked": rank(imbalance(1))}


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, int]:
    """Return a lake of 25 minutes across the border of an hour, where the imbalance says what follows."""
    lake = tmp_path_factory.mktemp("lake")
    start, end = markets.write_lake(lake, rows=1500, n_symbols=6, edge_bps=60.0)
    return lake, start, end


def test_rank_ic_is_that_of_the_judge_of_models(market: tuple[Path, int, int]) -> None:
    """Hour by hour, from features and mids in one piece, by another way of ranking: the same figure."""
    lake, start, end = market
    symbols = read.universe_between(lake, SOURCE, start * 10**9, end * 10**9).symbols
    seconds = read.read_seconds(lake, SOURCE, start, end, symbols)
    values = FeatureGraph(FORMULAS, symbols).step(seconds.columns, start)

    found = study(FORMULAS, lake, SOURCE, start, end, horizons_s=(1, 10))

    assert found["feature"].to_list() == [name for name in FORMULAS for _ in range(2)]
    for f, name in enumerate(FORMULAS):
        for horizon_s in (1, 10):
            moved = mid_bps(seconds.columns["bid_price_1"], seconds.columns["ask_price_1"], horizon_s)
            when = np.repeat(np.arange(start, end), len(symbols))
            expected = rank_ic(when, values[..., f].ravel().astype(float), moved.ravel())
            row = found.row(by_predicate=(pl.col("feature") == name) & (pl.col("horizon_s") == horizon_s), named=True)
            assert row["seconds"] == expected.seconds
            assert row["rank_ic"] == pytest.approx(expected.mean, abs=1e-12)
            assert row["standard_error"] == pytest.approx(expected.standard_error, abs=1e-12)


def test_what_was_planted_is_found_and_noise_is_not(market: tuple[Path, int, int]) -> None:
    """The imbalance that says the drift has an IC far above its error, a formula of noise has none."""
    lake, start, end = market

    found = study(
        FORMULAS | {"noise": Column("buy_volume_usdt") - Column("sell_volume_usdt")}, lake, SOURCE, start, end,
        horizons_s=(10,),
    )  # fmt: skip

    of = {row["feature"]: row for row in found.iter_rows(named=True)}
    assert of["imbalance"]["rank_ic"] > 5 * of["imbalance"]["standard_error"] > 0
    assert of["ranked"]["rank_ic"] == pytest.approx(of["imbalance"]["rank_ic"], abs=0.01)
    assert abs(of["noise"]["rank_ic"]) < 4 * of["noise"]["standard_error"]


def test_a_part_of_the_window_is_the_part_of_the_whole(market: tuple[Path, int, int]) -> None:
    """Seconds before the window are looked back into and not counted; hours that nobody recorded are no seconds."""
    lake, start, end = market

    inside = study(FORMULAS, lake, SOURCE, start + 100, end - 400, horizons_s=(300,))
    beyond = study(FORMULAS, lake, SOURCE, start - 7200, end + 7200, horizons_s=(1,))
    whole = study(FORMULAS, lake, SOURCE, start, end, horizons_s=(1,))

    assert inside["seconds"].to_list() == [end - start - 500] * 3
    assert beyond.equals(whole)


def test_a_window_without_seconds_is_said(market: tuple[Path, int, int]) -> None:
    """Nothing sampled is an honest end and not an IC of nothing."""
    lake, _, end = market

    with pytest.raises(TableEmpty, match="found no hour of them"):
        study(FORMULAS, lake, SOURCE, end + 80_000, end + 90_000)


def test_ic_of_seconds_in_which_some_are_missing_is_scipys() -> None:
    """Values and outcomes that are missing for other symbols each: ranked among those that have both, as scipy does."""
    rng = np.random.default_rng(11)
    seconds, symbols, horizons = 30, 12, (1, 5)
    values = np.round(rng.standard_normal((seconds, symbols, 2)), 1).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    total = np.round(200 + np.cumsum(rng.standard_normal((seconds + 10, symbols)), axis=0), 1)
    total[rng.random(total.shape) < 0.1] = np.nan
    rows = slice(3, 27)

    found = _ics(values, total, horizons, rows)

    for h, horizon_s in enumerate(horizons):
        for t in range(rows.start, rows.stop):
            moved = total[t + 1 + horizon_s] / total[t + 1] - 1.0
            for f in range(2):
                is_known = np.isfinite(values[t, :, f]) & np.isfinite(moved)
                expected = scipy.stats.spearmanr(values[t, is_known, f], moved[is_known]).statistic
                assert found[f, h, t - rows.start] == pytest.approx(expected, abs=1e-12)
