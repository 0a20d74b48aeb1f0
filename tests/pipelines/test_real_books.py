"""Real order books through the whole road: what the catalog says of them is what others measured on the same hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.real_books import Judged, dataset_of, judged, split

# Facts page, section 2b: R² and rank IC across symbols (with errors) of a second's return on the four-symbol panel.
PUBLISHED_IMBALANCE, PUBLISHED_TREES, PUBLISHED_TREES_ERROR = 0.113, 0.213, 0.028
PUBLISHED_IC, PUBLISHED_IC_ERROR = 0.267, 0.031
PUBLISHED_TEN_SECONDS, PUBLISHED_TEN_SECONDS_ERROR = 0.052, 0.025


@pytest.mark.nightly
def test_predictability_of_a_real_panel_is_the_published_one(outside: Path, tmp_path: Path) -> None:
    """Learnt on two thirds, judged on the rest; from the moment's price as published, and less from one to be had."""
    dataset, mid = dataset_of(outside / "market" / "recordings" / "hyperliquid_20250904", tmp_path)
    found: dict[tuple[int, int, str], Judged] = {
        (j.horizon_s, j.delay_s, j.method): j for j in judged(dataset, mid, split(dataset, 2 / 3))
    }

    simple, trees = found[1, 0, "ols, imbalance_5"], found[1, 0, "trees, all features"]
    assert simple.r2 == pytest.approx(PUBLISHED_IMBALANCE, abs=2 * simple.r2_error)
    assert trees.r2 == pytest.approx(PUBLISHED_TREES, abs=2 * max(trees.r2_error, PUBLISHED_TREES_ERROR))
    assert trees.ic.mean == pytest.approx(PUBLISHED_IC, abs=2 * max(trees.ic.standard_error, PUBLISHED_IC_ERROR))
    ten = found[10, 0, "ols, imbalance_5"]
    assert ten.r2 == pytest.approx(PUBLISHED_TEN_SECONDS, abs=2 * max(ten.r2_error, PUBLISHED_TEN_SECONDS_ERROR))
    for method in ("ols, imbalance_5", "ridge, all features", "trees, all features"):
        assert found[1, 1, method].r2 < 0.5 * found[1, 0, method].r2, "a second later most of it has happened"
    for key, null in found.items():
        if key[2].startswith("null"):
            assert null.r2 < 2 * null.r2_error, key
