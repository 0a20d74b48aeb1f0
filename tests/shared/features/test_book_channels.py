"""What five levels instead of fifteen change in the seconds: depth beyond what they show, and nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shared.features.sampler import COLUMNS
from shared.types import BOOK_LEVELS
from tests.shared.features import worlds

SECONDS, FIRST, N = 60, (worlds.HOUR + 1) * 3600 - 30, 4
DEPTHS = {
    "bid_depth_5bps_usdt": 5.0, "ask_depth_5bps_usdt": 5.0, "bid_depth_10bps_usdt": 10.0, "ask_depth_10bps_usdt": 10.0,
}  # fmt: skip


@hypothesis_settings(max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([1, 5]))
def test_fewer_levels_show_less_depth_and_change_nothing_else(seed: int, n_levels: int) -> None:
    """Of books cut to their best levels every column but depth, reach and the levels that went is the same bits; depth is
    a lower bound, and exact where the reach covers the distance: `book_reach_bps` says whether it may be compared."""
    rows = worlds.world(seed, N, FIRST, SECONDS)
    full = worlds.ticks(rows)
    best = worlds.ticks(rows)
    for name in ("bid_price", "ask_price"):
        getattr(best.books, name)[:, n_levels:BOOK_LEVELS] = np.nan
    for name in ("bid_size", "ask_size"):
        getattr(best.books, name)[:, n_levels:BOOK_LEVELS] = 0.0

    all_levels = worlds.sample(N, FIRST, [(full, FIRST + SECONDS)])
    few = worlds.sample(N, FIRST, [(best, FIRST + SECONDS)])

    gone = {
        f"{side}_{what}_{k}" for side in ("bid", "ask") for what in ("price", "size") for k in range(n_levels + 1, 6)
    }
    for name in set(COLUMNS) - set(DEPTHS) - {"book_reach_bps"} - gone:
        assert few[name].tobytes() == all_levels[name].tobytes(), name
    reach, known = few["book_reach_bps"], ~np.isnan(few["book_reach_bps"])
    assert known.any()
    assert (reach[known] <= all_levels["book_reach_bps"][known]).all()
    for name, bps in DEPTHS.items():
        assert (np.isnan(few[name]) == np.isnan(all_levels[name])).all()
        assert (few[name][known] <= all_levels[name][known]).all()
        covers = known & (reach > bps * (1 + 1e-9))
        np.testing.assert_array_equal(few[name][covers], all_levels[name][covers])
