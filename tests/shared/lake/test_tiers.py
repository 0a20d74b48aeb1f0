"""Position tiers by time: each symbol's latest answer, whole, and nothing of the future."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import TableEmpty
from shared.lake import read, write
from shared.lake.tiers import TABLE, Ladder, tiers_at, write_ladders
from shared.types import Tier
from tests.shared.lake import receipts as r

START_NS = r.HOUR * r.HOUR_NS


def ladder(as_of_ns: int, n_levels: int, rate: str = "0.0040") -> Ladder:
    return Ladder(
        as_of_ns,
        tuple(
            Tier(
                level=k + 1, start_usdt=Decimal(k * 200_000), end_usdt=Decimal((k + 1) * 200_000),
                leverage_max=150 // (k + 1), maintenance_rate=Decimal(rate),
            )
            for k in range(n_levels)
        ),
    )  # fmt: skip


@settings(max_examples=15)
@given(
    told=st.lists(
        st.tuples(st.sampled_from(r.SYMBOLS), st.integers(0, 3 * r.HOUR_NS), st.integers(1, 12)),
        max_size=12, unique_by=lambda item: item[:2],
    ),
    asked_ns=st.integers(-1, 4 * r.HOUR_NS),
)  # fmt: skip
def test_latest_answer_not_after_a_time_is_found(
    told: list[tuple[str, int, int]], asked_ns: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against a plain search of what was told: for each symbol the newest ladder up to then, with all its levels."""
    root = tmp_path_factory.mktemp("lake")
    for symbol, at_ns, n_levels in told:
        write_ladders(root, r.SOURCE, {symbol: ladder(START_NS + at_ns, n_levels)})

    found = tiers_at(root, r.SOURCE, START_NS + asked_ns, r.SYMBOLS)

    expected = {}
    for symbol, at_ns, n_levels in sorted(told, key=lambda item: item[1]):
        if at_ns <= asked_ns:
            expected[symbol] = ladder(START_NS + at_ns, n_levels)
    assert found == expected


def test_tiers_of_what_was_listed(tmp_path: Path) -> None:
    """Without symbols, those of the universe in force are meant: digits come back as they were told."""
    write.write_universe(tmp_path, r.universe(r.SYMBOLS[:2]))
    write_ladders(tmp_path, r.SOURCE, {symbol: ladder(START_NS, 2, "0.0005") for symbol in r.SYMBOLS})

    found = tiers_at(tmp_path, r.SOURCE, START_NS)

    assert list(found) == list(r.SYMBOLS[:2])
    assert [f"{tier.maintenance_rate}" for tier in found["BTCUSDT"].tiers] == ["0.0005"] * 2
    with pytest.raises(TableEmpty, match="universe"):
        tiers_at(tmp_path, r.SOURCE, START_NS - 1)


def test_written_twice_is_there_once(tmp_path: Path) -> None:
    """The same answers again add nothing and change no byte; answers of two hours lie in two files."""
    told = {"BTCUSDT": ladder(START_NS, 3), "龙虾USDT": ladder(START_NS + r.HOUR_NS, 4)}
    assert write_ladders(tmp_path, r.SOURCE, told) == 7
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}

    assert write_ladders(tmp_path, r.SOURCE, told) == 0
    assert write_ladders(tmp_path, r.SOURCE, {}) == 0

    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == before
    assert read.hours(tmp_path, TABLE, r.SOURCE) == [r.HOUR, r.HOUR + 1]
