"""The generated market: a pure function of time, calibrated, and as predictable as it says."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import SettingsError
from shared.simulator.markets.market import BLOCK_S, Block, GeneratedMarket, depth_at
from tests.shared.simulator.market_facts import Series
from tests.shared.simulator.market_probes import Split, public

START_S = 1_795_330_800  # 2026-11-22 07:00 UTC, the begin of a block and of an hour
ROOT = Path(__file__).resolve().parents[3]


def digest(block: Block) -> str:
    arrays = [getattr(block, name) for name in block.__struct_fields__ if name not in ("first_second", "trades")]
    arrays += [getattr(block.trades, name) for name in block.trades.__struct_fields__]
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


@pytest.fixture(scope="module")
def half_hour() -> Series:
    """Return half an hour of forty symbols."""
    market = GeneratedMarket(7, 40)
    return Series(market, [market.block(START_S + BLOCK_S * k) for k in range(6)])


def test_block_does_not_depend_on_what_was_asked_before() -> None:
    """A block has the same bits whether its neighbours were computed first, later, or never."""
    forward, backward, alone = (GeneratedMarket(7, 5) for _ in range(3))
    seconds = [START_S + BLOCK_S * k for k in range(-3, 4)]

    first = {s: digest(forward.block(s)) for s in seconds}
    second = {s: digest(backward.block(s)) for s in reversed(seconds)}

    assert first == second
    assert digest(alone.block(START_S)) == first[START_S]


def test_another_process_generates_the_same_bits() -> None:
    """History written by one process and a server started later are one market."""
    code = (
        "from tests.shared.simulator.test_market import digest, START_S\n"
        "from shared.simulator.markets.market import GeneratedMarket\n"
        "print(digest(GeneratedMarket(11, 4, 0.1).block(START_S + 7)))"
    )

    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert child.stdout.strip() == digest(GeneratedMarket(11, 4, 0.1).block(START_S))


def test_seed_size_and_predictability_each_make_another_market() -> None:
    """Nothing is shared between differently configured markets."""
    configurations = [(7, 4, 0.2), (8, 4, 0.2), (7, 5, 0.2), (7, 4, 0.1), (7, 4, 0.0)]

    digests = {digest(GeneratedMarket(*configuration).block(START_S)) for configuration in configurations}

    assert len(digests) == len(configurations)


@pytest.mark.parametrize("boundary", [START_S, START_S + BLOCK_S], ids=["hour", "block"])
def test_price_continues_over_boundaries(boundary: int) -> None:
    """The mid moves over a block's or an hour's border as it does inside: there is no seam to see."""
    market = GeneratedMarket(7, 40)
    before, after = market.block(boundary - 1), market.block(boundary)

    inside = np.abs(np.diff(np.log(before.bid_ticks[:, :, 0] + before.ask_ticks[:, :, 0]), axis=0))
    across = np.abs(
        np.log((after.bid_ticks + after.ask_ticks)[0, :, 0] / (before.bid_ticks + before.ask_ticks)[-1, :, 0])
    )

    assert (across <= 2.0 * inside.max(axis=0)).all()


def test_books_are_sound(half_hour: Series) -> None:
    """Every book has 15 positive levels a side, best first, and never crosses or locks."""
    assert (half_hour.ask[:, :, 0] > half_hour.bid[:, :, 0]).all()
    assert (np.diff(half_hour.bid, axis=2) < 0).all()
    assert (np.diff(half_hour.ask, axis=2) > 0).all()
    assert (half_hour.bid > 0).all()
    assert (half_hour.bid_size > 0).all()
    assert (half_hour.ask_size > 0).all()


def test_trades_have_increasing_ids_and_prices_of_their_book() -> None:
    """Ids increase over symbols and blocks, and a taker trades at one of the two best levels of the side it hits."""
    market = GeneratedMarket(7, 40)
    blocks = [market.block(START_S), market.block(START_S + BLOCK_S)]

    assert (np.diff(np.concatenate([block.trades.trade_id for block in blocks])) > 0).all()
    for block in blocks:
        trades = block.trades
        t = np.repeat(np.arange(BLOCK_S), np.diff(trades.start))
        ask, bid = block.ask_ticks[t, trades.symbol, :2], block.bid_ticks[t, trades.symbol, :2]
        hit = np.where(trades.side[:, None] > 0, ask, bid)
        assert (hit == trades.price_ticks[:, None]).any(axis=1).all()
        assert ((trades.offset_ns >= 0) & (trades.offset_ns < 1_000_000_000)).all()


def test_depth_in_floats_prints_as_whole_ticks() -> None:
    """The float of a price is the one nearest to its decimal, so it prints without noise."""
    market = GeneratedMarket(7, 40)

    depth = depth_at(market, START_S)

    for n, place in enumerate(market.price_places):
        assert all(float(f"{price:.{place}f}") == price for price in depth.bid_price[n].tolist())


@pytest.mark.parametrize("knob", [0.1, 0.2, 0.3])
def test_followers_are_as_predictable_as_the_knob_says(knob: float) -> None:
    """Ten-second R2 of a pooled OLS on small alts, out of sample, is within 0.07 of the knob."""
    market = GeneratedMarket(7, 30, knob)
    series = Series(market, [market.block(START_S + BLOCK_S * k) for k in range(18)])
    followers = np.flatnonzero(series.tiers == "small")

    found = Split(public(series), series.moved(10), followers).linear()
    a_second_later = Split(public(series), series.moved(10, later=1), followers).linear()

    assert found == pytest.approx(knob, abs=0.07)
    # The gap outlives the second that a label waits for its entry.
    assert 0.5 * found <= a_second_later <= found


@given(st.integers(0, 40_000), st.integers(0, 2**32 - 1))
@settings(max_examples=8)
def test_any_block_is_sound_whatever_seed_and_time(block: int, seed: int) -> None:
    """Books never cross, sizes are whole size steps, trades are inside their second: from 2024 on, for any seed."""
    market = GeneratedMarket(seed, 12)
    found = market.block(1_704_067_200 + block * 3600)
    steps = np.array([listing.size_step for listing in market.listings])

    assert (found.ask_ticks[:, :, 0] > found.bid_ticks[:, :, 0]).all()
    assert (np.diff(found.bid_ticks, axis=2) < 0).all()
    assert (np.diff(found.ask_ticks, axis=2) > 0).all()
    assert (found.bid_ticks > 0).all()
    for sizes in (found.bid_steps, found.ask_steps):
        assert (sizes > 0).all()
        assert (sizes % steps[:, None] == 0).all()
    assert (found.trades.size_steps % steps[found.trades.symbol] == 0).all()
    assert (found.trades.size_steps > 0).all()
    for name in ("mark", "index", "last", "open_24h", "high_24h", "low_24h", "open_interest", "quote_volume"):
        values = getattr(found, name)
        assert np.isfinite(values).all(), name
        assert (values > 0).all(), name


def test_contract_rows_have_bitgets_keys(outside: Path) -> None:
    """A contract row has the keys and types of Bitget's own, no more and no less."""
    recorded = json.loads((outside / "bitget/fixtures/recorded_live_202609/rest_contracts_3rows.json").read_text())[
        "data"
    ][0]

    for row in GeneratedMarket(7, 60).contracts():
        assert {key: type(value) for key, value in row.items()} == {key: type(value) for key, value in recorded.items()}


def test_symbols_are_unique_and_one_is_chinese() -> None:
    """A thousand symbols have a thousand names; from twenty on, one is not ASCII."""
    assert len(set(GeneratedMarket(7, 1000).symbols)) == 1000
    assert any(not symbol.isascii() for symbol in GeneratedMarket(7, 20).symbols)


def test_source_names_the_configuration() -> None:
    """The lake's source tells seed, size, and the predictability where it is not the default."""
    assert GeneratedMarket(7, 40).source == "simulator-g7-40"
    assert GeneratedMarket(7, 40, 0.1).source == "simulator-g7-40-p0.10"


@pytest.mark.parametrize("arguments", [(7, 0, 0.2), (7, 1001, 0.2), (7, 40, 0.5), (7, 40, -0.1), (-1, 40, 0.2)])
def test_arguments_out_of_bounds_are_refused(arguments: tuple[int, int, float]) -> None:
    """What cannot be generated is refused with a sentence, not generated wrongly."""
    with pytest.raises(SettingsError, match="found"):
        GeneratedMarket(*arguments)
