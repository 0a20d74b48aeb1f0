"""The chained book against plain dictionaries: what is applied, what breaks it, what the best levels are."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.bitget.chain import LEVELS_MAX, ChainBroken, ChainedBook
from shared.bitget.wire import DepthRow
from shared.types import BOOK_LEVELS

# Bids lie below 100, asks above: what is drawn is never crossed.
bid_prices = st.integers(1, 99).map(float)
ask_prices = st.integers(101, 200).map(float)
amounts = st.sampled_from([0.0, 0.0, 1.0, 2.5, 1e9])
changes = st.tuples(
    st.lists(st.tuples(ask_prices, amounts), max_size=30), st.lists(st.tuples(bid_prices, amounts), max_size=30)
)


def row(
    asks: list[tuple[float, float]], bids: list[tuple[float, float]], seq: int, pseq: int = 0, ts: int = 1
) -> DepthRow:
    return DepthRow(asks=asks, bids=bids, ts=ts, seq=seq, pseq=pseq)


def expected_top(levels: dict[float, float], *, is_bid: bool) -> list[float]:
    best = sorted(((p, s) for p, s in levels.items() if s), reverse=is_bid)[:BOOK_LEVELS]
    return [value for level in best for value in level] + [math.nan, 0.0] * (BOOK_LEVELS - len(best))


@settings(max_examples=40)
@given(st.lists(changes, min_size=1, max_size=8))
def test_book_is_what_dictionaries_say(pushes: list[Any]) -> None:
    """After each push of a whole chain: every level last set and not deleted, the best fifteen of each side first."""
    asks: dict[float, float] = {}
    bids: dict[float, float] = {}
    book = ChainedBook(row([], [], 1))
    for i, (new_asks, new_bids) in enumerate(pushes):
        asks |= dict(new_asks)
        bids |= dict(new_bids)

        book.update(row(new_asks, new_bids, 2 + i, 1 + i))

        assert book.seq == 2 + i
        assert dict(zip(book.ask_prices, book.ask_sizes, strict=True)) == {p: s for p, s in asks.items() if s}
        assert dict(zip(book.bid_prices, book.bid_sizes, strict=True)) == {p: s for p, s in bids.items() if s}
        top = expected_top(asks, is_bid=False) + expected_top(bids, is_bid=True)
        assert [repr(value) for value in book.top()] == [repr(value) for value in top]


def test_last_push_again_is_a_repeat() -> None:
    """A push that says number, predecessor and time of the last one is that one again; any other is not."""
    book = ChainedBook(row([(101.0, 1.0)], [(99.0, 1.0)], 5, 0, ts=7))

    assert book.repeats(row([], [], 5, 0, ts=7))
    assert not book.repeats(row([], [], 5, 0, ts=8))
    assert not book.repeats(row([], [], 6, 5, ts=7))


@pytest.mark.parametrize(
    ("asks", "bids", "seq", "pseq", "why"),
    [
        ([], [], 9, 4, "update of 5, found one of 4"),
        ([], [], 9, 0, "update of 5, found one of 0"),
        ([], [], -1, 5, "seq above 0"),
        ([(100.0, 1.0)], [], 9, 5, "crossed or locked"),
        ([], [(102.0, 1.0)], 9, 5, "crossed or locked"),
        ([(103.0, -1.0)], [], 9, 5, "sizes from 0"),
        ([(103.0, math.nan)], [], 9, 5, "sizes from 0"),
        ([(103.0, math.inf)], [], 9, 5, "sizes from 0"),
        ([(0.0, 1.0)], [], 9, 5, "prices above 0"),
        ([], [(math.nan, 1.0)], 9, 5, "prices above 0"),
    ],
)
def test_what_breaks_a_chain_says_why(
    asks: list[tuple[float, float]], bids: list[tuple[float, float]], seq: int, pseq: int, why: str
) -> None:
    """A missing link, a book that cannot be and a number that is none each break the chain, in words."""
    book = ChainedBook(row([(101.0, 1.0)], [(100.0, 1.0)], 5))

    with pytest.raises(ChainBroken, match=why) as caught:
        book.update(row(asks, bids, seq, pseq))

    assert caught.value.is_malformed is (pseq == 5)


def test_book_is_bounded() -> None:
    """Levels that nobody ever deletes do not fill the memory: beyond a bound the book must begin anew."""
    levels = [(101.0 + i, 1.0) for i in range(LEVELS_MAX)]
    book = ChainedBook(row(levels, [], 1))

    with pytest.raises(ChainBroken, match="at most 10000 asks"):
        book.update(row([(100.5, 1.0)], [], 2, 1))


def test_crossed_snapshot_is_none() -> None:
    """A snapshot is checked like an update."""
    with pytest.raises(ChainBroken, match="crossed"):
        ChainedBook(row([(100.0, 1.0)], [(100.0, 1.0)], 1))
