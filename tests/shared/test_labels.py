"""Labels against a second implementation in plain Python, and the ways in which they must be null."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import labels

FEE, SLIPPAGE_BPS = 0.0006, 2.0
COST_BPS = 2 * 6.0 + 2 * SLIPPAGE_BPS

Quote = tuple[float | None, float | None]
Quotes = dict[tuple[int, str], Quote]


def label(quotes: Quotes, horizon_s: int = 10) -> dict[tuple[int, str], tuple[object, ...]]:
    keys = list(quotes)
    frame = pl.LazyFrame(
        {
            "second": [second for second, _ in keys],
            "symbol": [symbol for _, symbol in keys],
            "bid_price_1": [quotes[key][0] for key in keys],
            "ask_price_1": [quotes[key][1] for key in keys],
        },
        schema={"second": pl.Int64, "symbol": pl.String, "bid_price_1": pl.Float64, "ask_price_1": pl.Float64},
    )
    result = labels.label_seconds(frame, horizon_s=horizon_s, taker_fee=FEE, slippage_bps=SLIPPAGE_BPS).collect()
    assert result.schema == labels.SCHEMA
    assert result.rows() == sorted(result.rows(), key=lambda row: row[:2])
    return {(row[0], row[1]): row[2:] for row in result.rows()}


def expect(quotes: Quotes, second: int, symbol: str, horizon_s: int) -> tuple[object, ...]:
    entry, leave = quotes.get((second + 1, symbol)), quotes.get((second + 1 + horizon_s, symbol))
    prices = [*(entry or (None, None)), *(leave or (None, None))]
    if any(price is None or math.isnan(price) for price in prices):
        return (None,) * 4
    bid_entry, ask_entry, bid_exit, ask_exit = (float(price) for price in prices if price is not None)
    if bid_entry >= ask_entry or bid_exit >= ask_exit:
        return (None,) * 4
    long_bps = (bid_exit - ask_entry) / ask_entry * 1e4 - COST_BPS
    short_bps = (bid_entry - ask_exit) / bid_entry * 1e4 - COST_BPS
    mid_bps = ((bid_exit + ask_exit) / (bid_entry + ask_entry) - 1) * 1e4
    return (1 if long_bps > 0 else 2 if short_bps > 0 else 0), long_bps, short_bps, mid_bps


price = st.one_of(st.none(), st.just(math.nan), st.floats(95, 105))
quote = st.one_of(
    st.tuples(price, price),
    st.tuples(st.floats(95, 105), st.floats(0.001, 0.2)).map(lambda bid_spread: (bid_spread[0], sum(bid_spread))),
)


@given(st.dictionaries(st.tuples(st.integers(0, 12), st.sampled_from("AB")), quote), st.integers(1, 5))
def test_labels_equal_a_plain_loop_over_seconds(quotes: Quotes, horizon_s: int) -> None:
    """Whatever rows are missing, in whatever order they come, labels are those of a loop that looks seconds up."""
    result = label(quotes, horizon_s)

    assert result.keys() == quotes.keys()
    for second, symbol in quotes:
        expected = expect(quotes, second, symbol, horizon_s)
        if expected[0] is None:
            assert result[second, symbol] == expected
        else:
            assert result[second, symbol] == pytest.approx(expected, rel=1e-12, abs=1e-9)


def flat_market(bid: float, ask: float, until: int = 40) -> Quotes:
    return {(second, "A"): (bid, ask) for second in range(until)}


def test_a_market_that_stands_still_is_flat_and_costs_the_round_trip() -> None:
    """Doing nothing for ten seconds loses the spread, both fees and the slippage."""
    result = label(flat_market(99.99, 100.01))

    cls, long_bps, short_bps, mid_bps = result[0, "A"]
    assert (cls, mid_bps) == (labels.FLAT, 0.0)
    assert long_bps == pytest.approx(-COST_BPS - 2.0, abs=1e-3)
    assert short_bps == pytest.approx(-COST_BPS - 2.0, abs=1e-3)


@pytest.mark.parametrize(
    ("move_bps", "expected"), [(19, labels.LONG), (17, labels.FLAT), (-17, labels.FLAT), (-19, labels.SHORT)]
)
def test_a_class_other_than_flat_must_clear_the_round_trip(move_bps: int, expected: int) -> None:
    """A move of 17 bps does not pay 16 bps of costs and 2 bps of spread; one of 19 bps does."""
    quotes = flat_market(99.99, 100.01)
    for second in range(11, 40):
        quotes[second, "A"] = (99.99 * (1 + move_bps / 1e4), 100.01 * (1 + move_bps / 1e4))

    assert label(quotes)[0, "A"][0] == expected


def test_the_entry_is_the_second_after_the_decision() -> None:
    """A jump that is already in row s + 1 cannot be earned by a decision on row s."""
    quotes = flat_market(99.99, 100.01)
    for second in range(6, 40):
        quotes[second, "A"] = (109.99, 110.01)

    result = label(quotes)

    assert result[4, "A"][0] == labels.LONG
    assert result[5, "A"][0] == labels.FLAT


def test_the_end_of_the_frame_is_null_and_never_filled() -> None:
    """The last 1 + horizon seconds have no exit, so they have no label."""
    result = label(flat_market(99.99, 100.01, until=40))

    complete = [second for (second, _), row in result.items() if row[0] is not None]
    assert complete == list(range(29))


def test_a_missing_second_is_null_and_not_the_row_after_it() -> None:
    """This catches a shift by rows: with second 15 absent, nothing may enter or leave there."""
    quotes = flat_market(99.99, 100.01)
    del quotes[15, "A"]

    result = label(quotes)

    missing = [second for (second, _), row in result.items() if row[0] is None and second < 29]
    assert missing == [4, 14]


def test_symbols_do_not_see_each_other() -> None:
    """Adding a symbol changes no label of another: the pooled frame has borders."""
    alone = flat_market(99.99, 100.01)
    other: Quotes = {(second, "AA"): (50.0 + second, 50.1 + second) for second in range(3, 40)}

    result = label({**alone, **other})

    assert {key: row for key, row in result.items() if key[1] == "A"} == label(alone)


def test_a_mirrored_market_mirrors_the_labels() -> None:
    """Turned upside down (p → 1 / p), long and short change places."""
    rng = np.random.default_rng(5)
    mids = 100 * np.exp(rng.normal(0, 8e-4, 300).cumsum())
    market: Quotes = {(s, "A"): (float(m) * (1 - 1e-5), float(m) * (1 + 1e-5)) for s, m in enumerate(mids)}
    mirrored: Quotes = {key: (1 / (ask or 1), 1 / (bid or 1)) for key, (bid, ask) in market.items()}

    result, reflection = label(market), label(mirrored)

    swap = {labels.LONG: labels.SHORT, labels.SHORT: labels.LONG, labels.FLAT: labels.FLAT, None: None}
    near = [key for key, row in result.items() if row[0] is not None and min(abs(row[1]), abs(row[2])) > 1.0]  # type: ignore[arg-type]
    assert {row[0] for row in result.values()} == {None, 0, 1, 2}
    assert [reflection[key][0] for key in near] == [swap[result[key][0]] for key in near]  # type: ignore[index]
