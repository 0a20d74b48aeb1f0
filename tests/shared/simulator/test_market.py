"""The generated market: a pure function of time, calibrated, and as predictable as it says."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.errors import SettingsError
from shared.simulator.market import BLOCK_S, Block, GeneratedMarket, depth_at

START_S = 1_795_330_800  # 2026-11-22 07:00 UTC, the begin of a block and of an hour
ROOT = Path(__file__).resolve().parents[3]


def digest(block: Block) -> str:
    arrays = [getattr(block, name) for name in block.__struct_fields__ if name not in ("first_second", "trades")]
    arrays += [getattr(block.trades, name) for name in block.trades.__struct_fields__]
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


class Series:
    """Two hours of the generated market as (T, N) arrays."""

    def __init__(self, market: GeneratedMarket, blocks: int = 24) -> None:
        parts = [market.block(START_S + BLOCK_S * k) for k in range(blocks)]

        def join(name: str) -> Any:
            return np.concatenate([getattr(part, name) for part in parts])

        self.tiers = np.array([listing.tier for listing in market.listings])
        self.bid, self.bid_size, self.ask, self.ask_size = map(
            join, ("bid_ticks", "bid_steps", "ask_ticks", "ask_steps")
        )
        self.mid = (self.bid[:, :, 0] + self.ask[:, :, 0]) / 2.0
        self.flow, self.traded, self.count = (np.zeros(self.mid.shape) for _ in range(3))
        for k, part in enumerate(parts):
            trades = part.trades
            at = np.repeat(np.arange(BLOCK_S), np.diff(trades.start)) + k * BLOCK_S, trades.symbol
            np.add.at(self.flow, at, trades.size_steps * trades.side)
            np.add.at(self.traded, at, trades.size_steps)
            np.add.at(self.count, at, 1)

    def imbalance(self, levels: int) -> Any:
        bid, ask = (side[:, :, :levels].sum(2).astype(float) for side in (self.bid_size, self.ask_size))
        return (bid - ask) / (bid + ask)

    def moved(self, seconds: int, later: int = 0) -> Any:
        """Return mid[t + later + seconds] / mid[t + later] - 1, NaN where that is outside."""
        out = np.full(self.mid.shape, np.nan)
        end = len(self.mid) - seconds - later
        out[:end] = self.mid[later + seconds :] / self.mid[later : later + end] - 1.0
        return out

    def features(self) -> list[Any]:
        """Return what is public at the end of row t: imbalances, past returns, flows."""
        one, five = self.imbalance(1), self.imbalance(5)
        past = [_lagged(self.moved(w), w) for w in (1, 5, 10, 20, 30)]
        flows = [_mean(self.flow, w) / (_mean(self.traded, w) + 1.0) for w in (10, 30)]
        return [one, self.imbalance(3), five, _mean(one, 10), _mean(five, 10), *past, *flows]


def _lagged(values: Any, by: int) -> Any:
    out = np.full(values.shape, np.nan)
    out[by:] = values[:-by]
    return out


def _mean(values: Any, window: int) -> Any:
    total = np.cumsum(np.vstack([np.zeros((1, values.shape[1])), values]), axis=0)
    out = np.full(values.shape, np.nan)
    out[window - 1 :] = (total[window:] - total[:-window]) / window
    return out


def r2(features: list[Any], target: Any, columns: Any) -> float:
    """Return the R2 of one pooled OLS over `columns`, fitted on the first half of time and judged on the second."""
    n = len(target)
    halves = slice(40, n // 2), slice(n // 2 + 60, n - 14)

    def rows(half: slice) -> tuple[Any, Any]:
        x = np.column_stack([feature[half][:, columns].ravel() for feature in features])
        return np.column_stack([x, np.ones(len(x))]), target[half][:, columns].ravel()

    (x, y), (x_test, y_test) = map(rows, halves)
    beta = np.linalg.lstsq(x, y, rcond=None)[0]
    residual = y_test - x_test @ beta
    return float(1.0 - residual @ residual / ((y_test - y.mean()) @ (y_test - y.mean())))


@pytest.fixture(scope="module")
def predictable() -> Series:
    return Series(GeneratedMarket(7, 40))


@pytest.fixture(scope="module")
def martingale() -> Series:
    return Series(GeneratedMarket(7, 40, predictability=0.0))


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
        "from shared.simulator.market import GeneratedMarket\n"
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


def test_books_are_sound(predictable: Series) -> None:
    """Every book has 15 positive levels a side, best first, and never crosses or locks."""
    assert (predictable.ask[:, :, 0] > predictable.bid[:, :, 0]).all()
    assert (np.diff(predictable.bid, axis=2) < 0).all()
    assert (np.diff(predictable.ask, axis=2) > 0).all()
    assert (predictable.bid > 0).all()
    assert (predictable.bid_size > 0).all()
    assert (predictable.ask_size > 0).all()


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
def test_followers_are_as_predictable_as_the_knob_says(knob: float, predictable: Series) -> None:
    """Ten-second R2 of a pooled OLS on small alts, out of sample, is within 0.07 of the knob."""
    series = predictable if knob == 0.2 else Series(GeneratedMarket(7, 40, knob))

    found = r2(series.features(), series.moved(10), series.tiers == "small")

    assert found == pytest.approx(knob, abs=0.07)


def test_followers_can_be_predicted_from_the_row_after(predictable: Series) -> None:
    """The gap outlives the second that a label waits for its entry."""
    found = r2(predictable.features(), predictable.moved(10, later=1), predictable.tiers == "small")

    assert found == pytest.approx(0.17, abs=0.07)


def test_leaders_are_hard_to_predict(predictable: Series) -> None:
    """Majors and large alts stay at or below R2 0.05 at ten seconds from the entry on."""
    for tier in ("major", "large"):
        assert r2(predictable.features(), predictable.moved(10, later=1), predictable.tiers == tier) <= 0.05


def test_zero_predictability_is_a_martingale(martingale: Series) -> None:
    """With the knob at 0 no tier can be predicted from public features."""
    for tier in ("major", "large", "small"):
        assert r2(martingale.features(), martingale.moved(10, later=1), martingale.tiers == tier) < 0.01


def test_touch_imbalance_predicts_the_next_second(predictable: Series) -> None:
    """One-second R2 of L1 imbalance lies in the band of recorded books, 0.06 to 0.13."""
    for tier in ("major", "large", "small"):
        found = r2([predictable.imbalance(1)], predictable.moved(1), predictable.tiers == tier)
        assert 0.06 <= found <= 0.13, tier


def test_returns_lie_in_the_bands_of_recorded_books(predictable: Series) -> None:
    """Volatility, quiet seconds and moves beyond costs by class are those of real books (2022 to 2026)."""
    r1, r10 = predictable.moved(1)[:-1] * 1e4, predictable.moved(10)[:-10:10] * 1e4
    beyond = (np.abs(r10) > 12.0).mean(axis=0)
    quiet = (r1 == 0.0).mean(axis=0)

    def median(values: Any, tier: str) -> float:
        return float(np.median(values[predictable.tiers == tier]))

    assert 1.1 <= median(r10.std(0), "major") <= 3.6
    assert 1.7 <= median(r10.std(0), "large") <= 4.6
    assert 9.6 <= median(r10.std(0), "small") <= 17.0
    assert median(beyond, "major") <= 0.007
    assert median(beyond, "large") <= 0.02
    assert 0.25 <= median(beyond, "small") <= 0.40
    assert 0.40 <= median(quiet, "major") <= 0.77
    assert 0.08 <= median(quiet, "small") <= 0.22


def test_books_lie_in_the_bands_of_recorded_books(predictable: Series) -> None:
    """Spread, L1 imbalance and its memory are those of real books."""
    imbalance = predictable.imbalance(1)[40:]
    spread_bps = ((predictable.ask - predictable.bid)[:, :, 0] / predictable.mid * 1e4).mean(0)
    memory = np.array([np.corrcoef(column[1:], column[:-1])[0, 1] for column in imbalance.T])

    assert spread_bps[0] < 0.05
    assert 0.5 <= np.median(spread_bps[predictable.tiers == "small"]) <= 5.0
    assert 0.6 <= np.median(imbalance.std(0)) <= 0.8
    assert 0.3 <= np.median((np.abs(imbalance) > 0.8).mean(0)) <= 0.6
    assert 0.37 <= np.median(memory) <= 0.8


def test_activity_is_heavy_tailed(predictable: Series) -> None:
    """The most active symbol trades at least five times as often as the median one."""
    per_second = predictable.count.mean(0)

    assert per_second[0] > 5.0 * np.median(per_second)
    assert (per_second > 0.05).all()


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
