"""Labels against a second implementation in plain Python, and the ways in which they must be null."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import labels

FEE, MAKER_FEE, SLIPPAGE_BPS = 0.0006, 0.0002, 2.0
COST_BPS = 2 * 6.0 + 2 * SLIPPAGE_BPS

Quote = tuple[float | None, float | None]
Quotes = dict[tuple[int, str], Quote]


RULE = labels.Rule()


def label(quotes: Quotes, rule: labels.Rule = RULE) -> dict[tuple[int, str], tuple[Any, ...]]:
    """Return (label, long_bps, short_bps, mid_bps) of every row."""
    keys = list(quotes)
    frame = pl.DataFrame(
        {
            "second": [second for second, _ in keys],
            "symbol": [symbol for _, symbol in keys],
            "bid_price_1": [quotes[key][0] for key in keys],
            "ask_price_1": [quotes[key][1] for key in keys],
        },
        schema={"second": pl.Int64, "symbol": pl.String, "bid_price_1": pl.Float64, "ask_price_1": pl.Float64},
    )
    symbols = {symbol for _, symbol in keys}
    result = labels.label_seconds(
        frame,
        rule,
        taker_fee=dict.fromkeys(symbols, FEE),
        maker_fee=dict.fromkeys(symbols, MAKER_FEE),
        slippage_bps=SLIPPAGE_BPS,
    )
    assert result.schema == labels.SCHEMA
    assert result.rows() == sorted(result.rows(), key=lambda row: (row[1], row[0]))
    return {(row[0], row[1]): row[2:6] for row in result.rows()}


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
    result = label(quotes, labels.Rule(horizon_s=horizon_s))

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
    near = [key for key, row in result.items() if row[0] is not None and min(abs(row[1]), abs(row[2])) > 1.0]
    assert {row[0] for row in result.values()} == {None, 0, 1, 2}
    assert [reflection[key][0] for key in near] == [swap[result[key][0]] for key in near]


# ------------------------------------------------------------------------------------------- maker and barrier


def touch(quotes: Quotes, second: int) -> tuple[float, float] | None:
    """Return the touch of symbol A, None where it is missing or crossed."""
    bid, ask = quotes.get((second, "A")) or (None, None)
    if bid is None or ask is None or not bid < ask:
        return None
    return bid, ask


def expect_maker(quotes: Quotes, second: int, rule: labels.Rule) -> tuple[float | None, float | None]:
    """Return (long_bps, short_bps) of a loop that waits second by second."""
    entry = touch(quotes, second + rule.delay_s)
    if entry is None:
        return None, None
    earned: list[float | None] = []
    for price, sign in ((entry[0], 1), (entry[1], -1)):
        outcome: float | None = 0.0
        for later in range(second + rule.delay_s + 1, second + rule.delay_s + rule.rest_s + 1):
            now = touch(quotes, later)
            if now is None:
                outcome = None
                break
            if (now[1] <= price) if sign > 0 else (now[0] >= price):
                leave = touch(quotes, second + rule.reach_s)
                if leave is None:
                    outcome = None
                else:
                    out = leave[0] if sign > 0 else leave[1]
                    outcome = sign * (out - price) / price * 1e4 - (MAKER_FEE + FEE) * 1e4 - SLIPPAGE_BPS
                break
        earned.append(outcome)
    return (None, None) if None in earned else (earned[0], earned[1])


def expect_barrier(quotes: Quotes, second: int, rule: labels.Rule) -> tuple[float | None, float | None]:
    entry = touch(quotes, second + rule.delay_s)
    if entry is None:
        return None, None
    earned: list[float | None] = []
    for price, sign in ((entry[1], 1), (entry[0], -1)):
        outcome: float | None = None
        for later in range(second + rule.delay_s + 1, second + rule.reach_s + 1):
            now = touch(quotes, later)
            if now is None:
                break
            value = sign * ((now[0] if sign > 0 else now[1]) - price) / price * 1e4 - COST_BPS
            if value >= rule.target_bps or value <= -rule.stop_bps or later == second + rule.reach_s:
                outcome = value
                break
        earned.append(outcome)
    return (None, None) if None in earned else (earned[0], earned[1])


walk = st.lists(st.tuples(st.integers(-3, 3), st.integers(1, 3), st.booleans()), min_size=3, max_size=25)


def walked(steps: list[tuple[int, int, bool]]) -> Quotes:
    """Return a walk of ticks of 10 bps with spreads of one to three; some seconds are missing."""
    quotes: Quotes = {}
    tick = 1000
    for second, (step, spread, is_there) in enumerate(steps):
        tick += step
        if is_there or second % 5:
            quotes[second, "A"] = (tick * 0.1, (tick + spread) * 0.1)
    return quotes


@given(walk, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_a_maker_equals_a_loop_that_waits(
    steps: list[tuple[int, int, bool]], rest_s: int, more_s: int, delay_s: int
) -> None:
    """Resting orders are filled where the other side comes to their price, and earn nothing where it does not."""
    quotes, rule = walked(steps), labels.Rule(kind="maker", horizon_s=rest_s + more_s, rest_s=rest_s, delay_s=delay_s)

    for (second, _), row in label(quotes, rule).items():
        long_bps, short_bps = expect_maker(quotes, second, rule)
        assert row[1:3] == (pytest.approx(long_bps), pytest.approx(short_bps))
        if long_bps is None or short_bps is None:
            assert row[0] is None
        else:
            assert row[0] == (0 if max(long_bps, short_bps) <= 0 else 1 if long_bps > short_bps else 2)


@given(walk, st.integers(1, 6), st.sampled_from([5.0, 20.0, 60.0]), st.sampled_from([18.0, 30.0, 90.0]))
def test_a_barrier_equals_a_loop_that_leaves(
    steps: list[tuple[int, int, bool]], horizon_s: int, target_bps: float, stop_bps: float
) -> None:
    """The first barrier ends the trade, at the price that was there; a second that is missing before it ends knowledge."""
    rule = labels.Rule(kind="barrier", horizon_s=horizon_s, target_bps=target_bps, stop_bps=stop_bps)
    quotes = walked(steps)

    for (second, _), row in label(quotes, rule).items():
        assert row[1:3] == tuple(pytest.approx(value) for value in expect_barrier(quotes, second, rule))


def test_barriers_that_are_never_met_leave_the_taker() -> None:
    rng = np.random.default_rng(6)
    mids = 100 * np.exp(rng.normal(0, 8e-4, 200).cumsum())
    market: Quotes = {(s, "A"): (float(m) * (1 - 1e-5), float(m) * (1 + 1e-5)) for s, m in enumerate(mids)}

    assert label(market, labels.Rule(kind="barrier", target_bps=1e6, stop_bps=1e6)) == label(market)


@pytest.mark.parametrize("delay_s", [1, 2, 5])
def test_a_delay_moves_the_first_price_that_can_be_met(delay_s: int) -> None:
    """Who is late by d seconds enters at row s + d: a jump at second 20 is earned from seconds before 20 - d alone."""
    quotes = flat_market(99.99, 100.01, until=60)
    for second in range(20, 60):
        quotes[second, "A"] = (109.99, 110.01)

    result = label(quotes, labels.Rule(delay_s=delay_s))

    longs = [second for (second, _), row in result.items() if row[0] == labels.LONG]
    assert max(longs) == 20 - delay_s - 1
    assert len(longs) == RULE.horizon_s


def test_gross_returns_stand_beside_for_every_horizon() -> None:
    seconds = np.arange(400)
    frame = pl.DataFrame(
        {"second": seconds, "symbol": "A", "bid_price_1": 100.0 + seconds, "ask_price_1": 100.5 + seconds}
    )

    found = labels.label_seconds(frame, RULE, taker_fee={"A": FEE}, maker_fee={"A": FEE}, slippage_bps=0.0)

    for horizon_s in labels.HORIZONS_S:
        mid = 100.25 + seconds
        expected = (mid[1 + horizon_s :] / mid[1:-horizon_s] - 1) * 1e4
        assert found[f"mid_bps_{horizon_s}s"].drop_nulls().to_list() == pytest.approx(expected.tolist())


def test_each_symbol_pays_its_own_fees() -> None:
    quotes = flat_market(99.99, 100.01) | {(second, "B"): (99.99, 100.01) for second in range(40)}
    frame = pl.DataFrame(
        [(second, symbol, bid, ask) for (second, symbol), (bid, ask) in quotes.items()],
        schema=["second", "symbol", "bid_price_1", "ask_price_1"],
        orient="row",
    )

    found = labels.label_seconds(
        frame, RULE, taker_fee={"A": 0.0006, "B": 0.0}, maker_fee={"A": 0.0, "B": 0.0}, slippage_bps=0.0
    )

    first = {symbol: found.filter(pl.col("symbol") == symbol)["long_bps"][0] for symbol in "AB"}
    assert first["B"] - first["A"] == pytest.approx(12.0)


# ----------------------------------------------------------------------------------------------------- weights


@given(
    st.sets(st.tuples(st.integers(0, 40), st.integers(0, 2)), min_size=1, max_size=60),
    st.integers(1, 7),
    st.integers(1, 3),
)
def test_uniqueness_equals_counting(rows: set[tuple[int, int]], horizon_s: int, delay_s: int) -> None:
    """The mean over a label's seconds of one over the labels of its symbol that share them, counted one by one."""
    keys = sorted(rows, key=lambda row: hash(row))
    rule = labels.Rule(horizon_s=horizon_s, delay_s=delay_s)

    found = labels.uniqueness(np.array([s for s, _ in keys]), np.array([n for _, n in keys], np.int32), rule)

    for (second, n), weight in zip(keys, found, strict=True):
        spent = range(second + delay_s, second + delay_s + horizon_s)
        shares = [sum(1 for s, m in keys if m == n and s + delay_s <= at < s + delay_s + horizon_s) for at in spent]
        assert weight == pytest.approx(sum(1 / share for share in shares) / horizon_s)


def test_lonely_labels_weigh_one_and_steady_ones_a_share() -> None:
    """A label every second of a horizon of ten is a tenth of its own; one a minute is all of it."""
    steady = labels.uniqueness(np.arange(1000), np.zeros(1000, np.int32), RULE)
    lonely = labels.uniqueness(np.arange(0, 1000, 60), np.zeros(17, np.int32), RULE)

    assert steady[100:900] == pytest.approx(np.full(800, 0.1))
    assert lonely == pytest.approx(np.ones(17))


def test_classes_weigh_the_same() -> None:
    label = np.array([0] * 90 + [1] * 6 + [2] * 4, np.int8)
    weight = labels.class_weights(label, np.linspace(0.1, 1.0, 100))

    assert np.bincount(label, weights=weight) == pytest.approx(np.full(3, 100 / 3))
    assert labels.class_weights(np.zeros(5, np.int8), np.ones(5)) == pytest.approx(np.ones(5))
