"""The promises of a second (ARCHITECTURE, "Seconds"): laws on seeded worlds, a second implementation as oracle."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shared.features import sampler
from shared.features.sampler import COLUMNS, Sampler
from shared.types import NS, BookTicks, Floats, TickerTicks, TickEvent, Ticks, TradeTicks
from tests.shared.features import worlds
from tests.shared.features.worlds import Row

SECONDS = 110
BORDER = (worlds.HOUR + 1) * 3600
FIRST = BORDER - 70
N = 4

seeds = st.integers(0, 10**6)


def at(seconds: float) -> int:
    """Return the instant that lies `seconds` after the start of the stream."""
    return FIRST * NS + round(seconds * NS)


def push(seconds: float, kind: type[Any], values: dict[str, Any] | None = None, conn: int = 0, symbol: int = 0) -> Row:
    return Row(at(seconds), kind, symbol, TickEvent.DATA, conn, values or {})


def link(seconds: float, kind: type[Any], event: TickEvent = TickEvent.SUBSCRIBED, conn: int = 0) -> Row:
    return Row(at(seconds), kind, 0, event, conn, {})


def trade(seconds: float, trade_id: int, side: int = 1, event: TickEvent = TickEvent.DATA, conn: int = 0) -> Row:
    values = {"trade_id": trade_id, "price": 100.0, "size": 2.0, "side": side}
    return Row(at(seconds), TradeTicks, 0, event, conn, values)


def whole(rows: Sequence[Row], seconds: int = SECONDS, n_symbols: int = N) -> dict[str, Floats]:
    return worlds.sample(n_symbols, FIRST, [(worlds.ticks(rows), FIRST + seconds)])


def one(rows: Sequence[Row], seconds: int) -> dict[str, list[float]]:
    """Return the columns of a single symbol as lists."""
    ordered = sorted(rows, key=lambda row: row.recv_ns)
    return {name: column[:, 0].tolist() for name, column in whole(ordered, seconds, 1).items()}


BOOK = worlds.book(100.0, 0.02, [1.0])


# ------------------------------------------------------------------------------------------------- the laws


@hypothesis_settings(max_examples=25)
@given(seeds, st.integers(1, 60))
def test_seconds_do_not_depend_on_cuts(seed: int, cuts: int) -> None:
    """However the stream is cut, also within a second and within a frame, the seconds are the same bits."""
    rows = worlds.world(seed, N, FIRST, SECONDS)
    rng = np.random.default_rng(seed)

    steps = worlds.cut(rows, FIRST, SECONDS, rng, cuts)

    assert worlds.same_bits(worlds.sample(N, FIRST, steps), whole(rows))


@hypothesis_settings(max_examples=15)
@given(seeds)
def test_seconds_equal_a_loop_over_single_ticks(seed: int) -> None:
    """Vectorised sampling says what a second implementation says that looks at one tick after the other."""
    rows = worlds.with_carried(worlds.world(seed, N, FIRST, SECONDS), BORDER)

    expected = reference(rows, N, FIRST, SECONDS)

    result = whole(rows)
    for name in COLUMNS:
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-12, atol=1e-9, err_msg=name)


@hypothesis_settings(max_examples=25)
@given(seeds, st.booleans())
def test_an_hour_restarted_from_its_own_rows_equals_the_uninterrupted_stream(seed: int, of_channel: bool) -> None:
    """The raw rows of the hour, its CARRIED rows among them, and those of the 30 s before are all there is to know."""
    rows = worlds.with_carried(worlds.world(seed, N, FIRST, SECONDS), BORDER, of_channel)
    first = BORDER - sampler.MEMORY_S
    known = [row for row in rows if row.recv_ns >= first * NS]

    restarted = worlds.sample(N, first, [(worlds.ticks(known), FIRST + SECONDS)])

    hour = {name: column[sampler.MEMORY_S :] for name, column in restarted.items()}
    assert worlds.same_bits(hour, {name: column[BORDER - FIRST :] for name, column in whole(rows).items()})


@hypothesis_settings(max_examples=15)
@given(seeds)
def test_carried_rows_change_nothing_of_an_uninterrupted_stream(seed: int) -> None:
    """Live has no CARRIED rows and the lake has them: their seconds agree."""
    rows = worlds.world(seed, N, FIRST, SECONDS)

    assert worlds.same_bits(whole(worlds.with_carried(rows, BORDER)), whole(rows))


@hypothesis_settings(max_examples=10)
@given(seeds)
def test_symbols_do_not_touch_each_other(seed: int) -> None:
    """Prepending symbols, and sorting the rows by symbol as the lake does, changes no other symbol's seconds."""
    rows = worlds.world(seed, N, FIRST, SECONDS)
    alone = whole(worlds.select(rows, [2, 3]), n_symbols=2)

    together = whole(sorted(rows, key=lambda row: row.symbol))

    assert worlds.same_bits(alone, {name: np.ascontiguousarray(column[:, 2:]) for name, column in together.items()})


@hypothesis_settings(max_examples=10)
@given(seeds, st.integers(1, SECONDS - 1))
def test_the_future_changes_nothing(seed: int, until: int) -> None:
    """Ticks received after a second, given early or replaced by others, leave it alone."""
    rows = worlds.world(seed, N, FIRST, SECONDS)
    past = [row for row in rows if row.recv_ns < at(until)]
    other_future = [row for row in worlds.world(seed + 1, N, FIRST, SECONDS) if row.recv_ns >= at(until)]
    other_future = [row._replace(conn=row.conn + 100) for row in other_future]

    with_future = worlds.sample(N, FIRST, [(worlds.ticks([*past, *other_future]), FIRST + until)])

    assert worlds.same_bits(with_future, {name: column[:until] for name, column in whole(rows).items()})


@pytest.mark.parametrize("power", [-7, 3, 20])
def test_prices_scaled_by_a_power_of_two_scale_the_seconds(power: int) -> None:
    """With prices x 2^k and sizes x 2^-k, prices scale exactly and everything in USDT, bps and counts stays."""
    rows = worlds.world(11, N, FIRST, SECONDS)
    factor = 2.0**power

    def scaled(values: dict[str, Any]) -> dict[str, Any]:
        prices = {"bid_price", "ask_price", "price", "last", "mark", "index"}
        sizes = {"bid_size", "ask_size", "size", "open_interest"}
        by = dict.fromkeys(prices, factor) | dict.fromkeys(sizes, 1 / factor)
        return {k: (np.asarray(v) * by[k]).tolist() if k in by else v for k, v in values.items()}

    result = whole([row._replace(values=scaled(row.values)) for row in rows])

    for name, column in whole(rows).items():
        is_price = "price" in name or name in ("last", "mark", "index", "mid_high", "mid_low")
        is_size = "size" in name or name == "open_interest"
        by = factor if is_price else 1 / factor if is_size else 1.0
        assert np.array_equal(result[name], column * by, equal_nan=True), name


@hypothesis_settings(max_examples=10)
@given(seeds)
def test_a_missing_field_is_never_zero(seed: int) -> None:
    """What no row brought is NaN: before the first push, after silence, and field by field."""
    rows = worlds.world(seed, N, FIRST, SECONDS)
    no_tickers = [row for row in rows if row.channel is not TickerTicks]
    no_values = [row._replace(values={}) if row.channel is TickerTicks else row for row in rows]

    for some in (no_tickers, no_values):
        result = whole(some)
        for name in ("last", "mark", "index", "funding_rate", "open_interest", "quote_volume_24h_usdt"):
            assert np.isnan(result[name]).all(), name
    nothing = whole([])
    assert all(np.isnan(column).all() for column in nothing.values())


# ----------------------------------------------------------------------------------------- one rule at a time


def test_state_is_carried_and_expires_after_thirty_seconds_of_silence() -> None:
    """A book pushed at 0.5 s is known until 30 s have passed, and no longer."""
    result = one([link(0, BookTicks), push(0.5, BookTicks, BOOK)], 40)

    assert result["bid_price_1"][:30] == [99.99] * 30
    assert all(math.isnan(price) for price in result["bid_price_1"][30:])
    assert result["book_updates"] == [1.0] + [0.0] * 39


def test_any_channel_keeps_the_state_of_a_linked_channel_alive() -> None:
    """Where the book's link is up and a ticker comes, a silent book is an unchanged book."""
    rows = [link(0, BookTicks), push(0.5, BookTicks, BOOK), push(25.0, TickerTicks, {"last": 1.0})]

    result = one(rows, 60)

    assert result["bid_price_1"][54] == 99.99
    assert math.isnan(result["bid_price_1"][55])


def test_the_state_of_a_dead_link_expires_although_other_channels_push() -> None:
    """Once its link is gone, silence of the book says nothing: it is known for 30 s after its own last push."""
    rows = [link(0, BookTicks), push(0.5, BookTicks, BOOK), link(10, BookTicks, TickEvent.DISCONNECTED)]
    rows += [push(float(second), TickerTicks, {"last": 1.0}) for second in range(60)]

    result = one(rows, 60)

    assert result["bid_price_1"][29] == 99.99
    assert all(math.isnan(price) for price in result["bid_price_1"][30:])
    assert result["last"] == [1.0] * 60


@pytest.mark.parametrize(("other_pushed", "is_known"), [(True, True), (False, False)])
def test_a_state_outlives_its_connection_only_if_another_has_pushed_too(other_pushed: bool, is_known: bool) -> None:
    """The silence of a connection that never pushed does not say that a book is unchanged."""
    rows = [link(0, BookTicks), push(0.5, BookTicks, BOOK), link(1, BookTicks, conn=1)]
    rows += [push(1.5, BookTicks, BOOK, conn=1)] if other_pushed else []
    rows += [link(2, BookTicks, TickEvent.DISCONNECTED)]
    rows += [push(float(second), TickerTicks, {"last": 1.0}) for second in range(40)]

    assert math.isnan(one(rows, 40)["bid_price_1"][39]) is not is_known


def test_flow_is_zero_where_the_second_was_covered_and_missing_where_not() -> None:
    """The seconds of the subscription and of the break are not whole, so their flow is not known."""
    rows = [link(0.5, TradeTicks), trade(2.5, 7), link(4.2, TradeTicks, TickEvent.DISCONNECTED), link(6.0, TradeTicks)]

    result = one(rows, 8)

    nan = math.nan
    assert result["buy_volume_usdt"] == pytest.approx([nan, 0.0, 200.0, 0.0, nan, nan, 0.0, 0.0], nan_ok=True)
    assert result["sell_count"] == pytest.approx([nan, 0.0, 0.0, 0.0, nan, nan, 0.0, 0.0], nan_ok=True)


def test_make_before_break_leaves_no_hole() -> None:
    """While one of two connections is up, the second is covered."""
    rows = [link(0, TradeTicks, conn=0), link(2.1, TradeTicks, conn=1)]
    rows += [link(2.7, TradeTicks, TickEvent.DISCONNECTED, conn=0)]

    assert one(rows, 5)["buy_count"] == [0.0] * 5


def test_trades_repeated_by_a_snapshot_are_not_flow() -> None:
    """What a subscribe snapshot repeats is counted neither now nor when the trade itself comes."""
    rows = [link(0, TradeTicks), trade(1.1, 5, event=TickEvent.REPEATED), trade(2.2, 6)]

    assert one(rows, 3)["buy_count"] == [0.0, 0.0, 1.0]


def test_a_trade_id_counts_once_within_thirty_seconds() -> None:
    """The same id by another connection is the same trade; every receipt renews the memory."""
    rows = [link(0, TradeTicks), link(0, TradeTicks, conn=1)]
    rows += [trade(1.0, 5), trade(1.2, 5, conn=1), trade(25.0, 5), trade(50.0, 5), trade(81.0, 5), trade(82.0, 4)]

    counts = one(rows, 90)["buy_count"]

    assert [second for second, count in enumerate(counts) if count] == [1, 81, 82]


def test_a_crossed_or_locked_book_is_no_book_until_the_next_good_one() -> None:
    """With bid >= ask nothing of the book is known, not even the side that might be right."""
    locked = BOOK | {"ask_price": BOOK["bid_price"]}
    rows = [link(0, BookTicks), push(0.5, BookTicks, BOOK), push(1.5, BookTicks, locked), push(3.5, BookTicks, BOOK)]

    result = one(rows, 5)

    for name in ("bid_price_1", "ask_size_3", "bid_depth_5bps_usdt", "book_reach_bps"):
        assert [math.isnan(value) for value in result[name]] == [False, True, True, False, False], name
    assert result["mid_high"] == pytest.approx([100, 100, math.nan, 100, 100], nan_ok=True)


def test_an_absent_level_has_no_price_and_no_size() -> None:
    """Level 3 of a book with two levels: price NaN, size 0; the depth is that of the two."""
    thin = worlds.book(100.0, 0.02, [1.0, 2.0], levels=2)

    result = one([link(0, BookTicks), push(0.5, BookTicks, thin)], 1)

    assert math.isnan(result["bid_price_3"][0])
    assert result["bid_size_3"] == [0.0]
    assert result["bid_depth_10bps_usdt"] == pytest.approx([99.99 * 1 + 99.98 * 2])
    assert result["book_reach_bps"] == pytest.approx([2.0])


def test_depth_is_what_lies_within_the_distance() -> None:
    """Of levels 1 bps apart, five lie within 5 bps and ten within 10 bps; the reach is that of the fifteenth."""
    steps = worlds.book(100.0, 0.0199, [3.0])

    result = one([link(0, BookTicks), push(0.5, BookTicks, steps)], 1)

    assert result["ask_depth_5bps_usdt"] == pytest.approx([3 * sum(100 + 0.00995 * k for k in range(1, 6))])
    assert result["ask_depth_10bps_usdt"] == pytest.approx([3 * sum(100 + 0.00995 * k for k in range(1, 11))])
    assert result["book_reach_bps"] == pytest.approx([15 * 0.995])


def test_the_range_of_the_mid_includes_the_mid_carried_into_the_second() -> None:
    """A second that sees one push at 101 was at 100 before: it ranges from 100 to 101."""
    higher = worlds.book(101.0, 0.02, [1.0])

    result = one([link(0, BookTicks), push(0.5, BookTicks, BOOK), push(1.5, BookTicks, higher)], 3)

    assert result["mid_low"] == [100.0, 100.0, 101.0]
    assert result["mid_high"] == [100.0, 101.0, 101.0]


def test_carried_rows_set_the_state_and_open_the_link_but_are_no_pushes() -> None:
    """An hour's first rows let a ticker bring an old book to life; by themselves they do not."""
    carried = [Row(at(0), kind, 0, TickEvent.CARRIED, 0, v) for kind, v in ((BookTicks, BOOK), (TradeTicks, {}))]

    result = one([*carried, push(5.5, TickerTicks, {"last": 1.0})], 8)

    assert [math.isnan(price) for price in result["bid_price_1"]] == [True] * 5 + [False] * 3
    assert result["book_updates"] == [0.0] * 8
    assert result["sell_volume_usdt"] == [0.0] * 8


def test_a_tick_after_its_second_closed_is_a_bug() -> None:
    """A row may not come after its second was returned, and a second may not be asked for twice."""
    own = Sampler(1, FIRST)
    own.step(worlds.ticks([]), FIRST + 5)

    with pytest.raises(AssertionError, match="came after its second closed"):
        own.step(worlds.ticks([push(3.0, BookTicks, BOOK)]), FIRST + 6)
    with pytest.raises(AssertionError, match="already returned"):
        own.step(worlds.ticks([]), FIRST + 4)


def test_a_block_of_no_seconds_has_all_columns() -> None:
    """A cut inside a second returns T = 0 rows of every column, C-contiguous like all blocks."""
    own = Sampler(3, FIRST)

    empty, block = own.step(worlds.ticks([]), FIRST), own.step(worlds.ticks([]), FIRST + 2)

    assert tuple(empty.columns) == COLUMNS
    assert {column.shape for column in empty.columns.values()} == {(0, 3)}
    assert {column.shape for column in block.columns.values()} == {(2, 3)}
    assert all(column.flags.c_contiguous and column.dtype == np.float64 for column in block.columns.values())


# -------------------------------------------------------------------------------------------- the oracle


def reference(rows: Sequence[Row], n_symbols: int, first: int, seconds: int) -> dict[str, Floats]:
    """Sample one tick after the other, second by second, as the docstring of sampler.py reads."""
    result = {name: np.full((seconds, n_symbols), math.nan) for name in COLUMNS}
    for symbol in range(n_symbols):
        by_second: dict[int, list[Row]] = defaultdict(list)
        for row in rows:
            if row.symbol == symbol:
                by_second[row.recv_ns // NS].append(row)
        state: dict[type[Any], dict[str, Any]] = {BookTicks: {}, TickerTicks: {}, TradeTicks: {}}
        is_backed: dict[type[Any], bool] = dict.fromkeys(state, True)
        synced: dict[type[Any], set[int]] = {kind: set() for kind in state}
        conns: dict[type[Any], set[int]] = {kind: set() for kind in state}
        pushed: dict[type[Any], float] = dict.fromkeys(state, -math.inf)
        seen: dict[int, int] = {}
        for t in range(seconds):
            end = (first + t + 1) * NS
            was_in_force = is_backed[BookTicks] or end - NS - pushed[BookTicks] <= 30 * NS
            mids = [mid_of(state[BookTicks])] if was_in_force else []
            is_covered = {kind: bool(conns[kind]) for kind in state}
            flow: dict[str, float] = defaultdict(float)
            updates: dict[type[Any], float] = defaultdict(float)
            for row in by_second[first + t]:
                kind = row.channel
                if row.event in (TickEvent.SUBSCRIBED, TickEvent.CARRIED):
                    if not conns[kind] and row.recv_ns == end - NS:
                        is_covered[kind] = True
                    conns[kind].add(row.conn)
                    if row.event is TickEvent.CARRIED and row.values and is_a_state(kind, row.values):
                        state[kind], is_backed[kind] = row.values, True
                        synced[kind].add(row.conn)
                        if kind is BookTicks:
                            mids = [mid_of(row.values)]
                elif row.event in (TickEvent.DISCONNECTED, TickEvent.GAP):
                    conns[kind].discard(row.conn)
                    synced[kind].discard(row.conn)
                    is_backed[kind] = is_backed[kind] and bool(synced[kind])
                    is_covered[kind] = is_covered[kind] and bool(conns[kind])
                elif row.event is TickEvent.DATA:
                    pushed[kind], state[kind] = row.recv_ns, row.values
                    is_backed[kind] = True
                    synced[kind].add(row.conn)
                    updates[kind] += 1
                    if kind is BookTicks:
                        mids.append(mid_of(row.values))
                    if kind is TradeTicks:
                        is_new = row.recv_ns - seen.get(row.values["trade_id"], -(10**20)) >= 30 * NS
                        seen[row.values["trade_id"]] = row.recv_ns
                        if is_new:
                            side = "buy" if row.values["side"] > 0 else "sell"
                            flow[f"{side}_volume_usdt"] += row.values["price"] * row.values["size"]
                            flow[f"{side}_count"] += 1
            is_alive = end - max(pushed.values()) <= 30 * NS
            is_in_force = {kind: is_backed[kind] or end - pushed[kind] <= 30 * NS for kind in state}
            values: dict[str, float] = {}
            if is_alive and is_in_force[BookTicks]:
                values |= book_columns(state[BookTicks])
                known = [mid for mid in mids if not math.isnan(mid)]
                if known:
                    values |= {"mid_high": max(known), "mid_low": min(known)}
            if is_alive and is_in_force[TickerTicks]:
                ticker = state[TickerTicks]
                names = ("last", "mark", "index", "funding_rate", "open_interest")
                values |= {name: ticker.get(name, math.nan) for name in names}
                values["quote_volume_24h_usdt"] = ticker.get("quote_volume_24h", math.nan)
            if is_covered[TradeTicks]:
                for name in ("buy_volume_usdt", "sell_volume_usdt", "buy_count", "sell_count"):
                    values[name] = flow[name]
            for kind, name in ((BookTicks, "book_updates"), (TickerTicks, "ticker_updates")):
                if is_covered[kind]:
                    values[name] = updates[kind]
            for name, value in values.items():
                result[name][t, symbol] = value
    return result


def is_a_state(kind: type[Any], values: dict[str, Any]) -> bool:
    if kind is BookTicks:
        return not (math.isnan(values["bid_price"][0]) and math.isnan(values["ask_price"][0]))
    names = ("last", "mark", "index", "funding_rate", "open_interest", "quote_volume_24h")
    return kind is TickerTicks and not all(math.isnan(values[name]) for name in names)


def mid_of(values: dict[str, Any]) -> float:
    if not values or not values["bid_price"][0] < values["ask_price"][0]:
        return math.nan
    return float((values["bid_price"][0] + values["ask_price"][0]) / 2)


def book_columns(values: dict[str, Any]) -> dict[str, float]:
    if not values or values["bid_price"][0] >= values["ask_price"][0] or not is_a_state(BookTicks, values):
        return {}
    result = {
        f"{side}_{what}_{level}": values[f"{side}_{what}"][level - 1]
        for side in ("bid", "ask")
        for what in ("price", "size")
        for level in range(1, 6)
    }
    mid = mid_of(values)
    if math.isnan(mid):
        return result
    farthest = []
    for side in ("bid", "ask"):
        levels = [
            (abs(price - mid) / mid * 1e4, price * size)
            for price, size in zip(values[f"{side}_price"], values[f"{side}_size"], strict=True)
            if not math.isnan(price)
        ]
        farthest.append(max(distance for distance, _ in levels))
        for bps in (5, 10):
            # A level at exactly the distance may fall to either side by rounding: worlds keep clear of it.
            result[f"{side}_depth_{bps}bps_usdt"] = sum(usdt for distance, usdt in levels if distance <= bps + 1e-9)
    result["book_reach_bps"] = min(farthest)
    return result


def test_worlds_contain_what_the_laws_are_about() -> None:
    """The seeded worlds are not empty of trouble: breaks, gaps, repeats, duplicates, crossed and thin books."""
    rows = [row for seed in range(5) for row in worlds.world(seed, N, FIRST, SECONDS)]
    batch: Ticks = worlds.ticks(rows)

    assert {TickEvent(event) for event in np.unique(batch.trades.event)} >= {
        TickEvent.DATA, TickEvent.REPEATED, TickEvent.SUBSCRIBED, TickEvent.DISCONNECTED, TickEvent.GAP,
    }  # fmt: skip
    data = batch.books.event == TickEvent.DATA
    assert (batch.books.bid_price[data, 0] > batch.books.ask_price[data, 0]).any()
    assert (batch.books.bid_size[data, 4] == 0).any()
    ids = batch.trades.trade_id[batch.trades.event == TickEvent.DATA]
    assert len(np.unique(ids)) < len(ids)
