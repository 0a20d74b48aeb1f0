"""The generated market has the stylised facts of real books: measured on what it shows, held to recorded bands.

Bands are those of public recordings of 2022 to 2026 (Binance USD-M, Hyperliquid, Aster, StandX, Bitget); short windows
give ranges, so a band spans what different venues and days showed. `market_facts` measures the same way on both.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shared.simulator.markets.blocks import BLOCK_S
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator.markets.tape import funding_rate
from shared.simulator.markets.temper import Temper
from tests.shared.simulator.market_facts import (
    Series,
    autocorrelation,
    cross_facts,
    facts_of,
    recorded_series,
    volatility_facts,
)

START_S = 1_795_330_800  # 2026-11-22 07:00 UTC
LARGE_S = START_S + 6 * 3600

# (fact, least, most) by tier; sd, jumps in bps, rates per second or hour, the rest [1].
BOOKS = [
    ("imb_sd", 0.58, 0.82), ("imb_extreme", 0.26, 0.64), ("imb_ac1", 0.37, 0.82), ("imb_ac5", 0.05, 0.35),
    ("imb_ac10", -0.08, 0.28), ("ofi_r2", 0.08, 0.45), ("imb1_r2_1", 0.06, 0.13), ("trade_lnsd", 1.5, 3.0),
    ("hill", 1.05, 2.45), ("tfi_next", 0.0, 0.02), ("gap_cv", 0.94, 2.45),
]  # fmt: skip
BANDS: dict[str, list[tuple[str, float, float]]] = {
    "major": [
        *BOOKS, ("sd1_bps", 0.37, 1.25), ("sd10_bps", 1.1, 3.6), ("zero1", 0.40, 0.77), ("kurt1", 6.0, 45.0),
        ("kurt10", -0.1, 11.2), ("ac1", -0.04, 0.22), ("vr10", 0.84, 2.03), ("beyond12", 0.0, 0.007),
        ("spread_bps", 0.0, 0.05), ("one_tick", 0.93, 1.0), ("occupied", 0.25, 0.76), ("touch_usd", 5e4, 8e5),
        ("touch_lnsd", 1.3, 1.8), ("level5_rel", 0.0, 0.07), ("imb1_r2_5", 0.0, 0.10), ("imb1_r2_10", 0.0, 0.05),
        ("jumps_h", 13.0, 192.0), ("jump_bps", 1.0, 3.5), ("fano", 12.0, 103.0), ("sign_ac1", 0.09, 0.40),
        ("sign_ac10", 0.04, 0.20), ("tfi_r2", 0.08, 0.42),
    ],
    "large": [
        *BOOKS, ("sd1_bps", 0.5, 1.5), ("sd10_bps", 1.7, 4.6), ("zero1", 0.40, 0.88), ("kurt1", 6.0, 45.0),
        ("kurt10", -0.1, 11.2), ("ac1", -0.04, 0.22), ("vr10", 0.84, 2.0), ("beyond12", 0.0, 0.02),
        ("one_tick", 0.93, 1.0), ("occupied", 0.90, 1.0), ("touch_usd", 9e3, 2.1e5), ("level5_rel", 1.0, 2.8),
        ("level10_rel", 1.5, 3.8), ("imb1_r2_10", 0.0, 0.05), ("jumps_h", 13.0, 192.0), ("jump_bps", 1.8, 6.0),
        ("fano", 12.0, 72.0), ("tfi_r2", 0.02, 0.42),
    ],
    "small": [
        *BOOKS, ("sd1_bps", 2.4, 4.7), ("sd10_bps", 9.6, 17.1), ("zero1", 0.08, 0.25), ("kurt1", 4.0, 30.0),
        ("kurt10", -0.1, 8.0), ("ac1", 0.10, 0.32), ("vr10", 1.2, 2.2), ("beyond12", 0.25, 0.40),
        ("spread_bps", 0.5, 5.0), ("spread_ticks", 1.0, 8.0), ("occupied", 0.4, 0.8), ("touch_usd", 1.4e3, 1.1e4),
        ("level5_rel", 1.0, 2.0), ("imb5_r2_10", 0.0, 0.13), ("jumps_h", 13.0, 182.0), ("jump_bps", 9.0, 24.0),
        ("fano", 8.0, 72.0),
    ],
}  # fmt: skip


def medians(series: Series, rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return the median of every fact over the symbols of each tier."""
    found: dict[str, dict[str, float]] = {}
    for tier in dict.fromkeys(series.tiers.tolist()):
        of_tier = [rows[n] for n in np.flatnonzero(series.tiers == tier)]
        names = {name for row in of_tier for name in row}
        found[tier] = {name: float(np.nanmedian([row.get(name, np.nan) for row in of_tier])) for name in names}
    return found


@pytest.fixture(scope="module")
def hour() -> Series:
    """Return an hour of forty symbols."""
    market = GeneratedMarket(7, 40)
    return Series(market, [market.block(START_S + BLOCK_S * k) for k in range(12)])


@pytest.fixture(scope="module")
def rows(hour: Series) -> list[dict[str, float]]:
    return [facts_of(hour, n) for n in range(len(hour.symbols))]


@pytest.fixture(scope="module")
def facts(hour: Series, rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    return medians(hour, rows)


@pytest.mark.parametrize("tier", list(BANDS))
def test_books_returns_and_trades_lie_in_recorded_bands(tier: str, facts: dict[str, dict[str, float]]) -> None:
    """The median symbol of a tier lies in the band of its class, fact by fact."""
    outside = {
        name: (facts[tier][name], low, high) for name, low, high in BANDS[tier] if not low <= facts[tier][name] <= high
    }

    assert outside == {}


def test_activity_follows_the_notional_as_recorded(rows: list[dict[str, float]]) -> None:
    """Trades, taker orders and the touch scale with U as in recordings of 30 venue-symbols (residual ln-sd 0.8)."""
    for name, factor, power in (("trades_s", 0.027, 0.56), ("parents_s", 0.0156, 0.53), ("touch_usd", 80.0, 0.71)):
        ratio = np.log([row[name] / (factor * row["usd_s"] ** power) for row in rows if name in row])

        assert abs(np.median(ratio)) < 0.5, name
        assert ratio.std() < 0.8, name


def test_symbols_move_together_as_recorded(hour: Series) -> None:
    """Correlation grows with the horizon (Epps) and lies where BTC-ETH and four Hyperliquid symbols had it."""
    majors, four = cross_facts(hour, [0, 1]), cross_facts(hour, [0, 1, 2, 12])

    assert 0.44 <= majors["rho_1"] <= 0.66
    assert 0.65 <= majors["rho_5"] <= 0.82
    assert 0.70 <= majors["rho_10"] <= 0.88
    assert 0.15 <= four["rho_1"] <= 0.40
    assert 0.35 <= four["rho_10"] <= 0.60
    assert 0.40 <= four["pc1_1"] <= 0.60
    assert 0.55 <= four["pc1_10"] <= 0.72


def test_real_recordings_pass_through_the_same_ruler(outside: Path) -> None:
    """The bands are no invention: a recorded major lies in most of them, measured by the same code."""
    pytest.importorskip("pyarrow")
    from shared.simulator.markets.recorded import RecordedMarket

    recorded = recorded_series(RecordedMarket(outside / "market/recordings/binance_usdm_20240718", START_S * 10**9))
    found = facts_of(recorded, 0)
    inside = [low <= found[name] <= high for name, low, high in BANDS["major"]]

    assert np.mean(inside) >= 0.85


# ------------------------------------------------------------------------------------ the whole exchange


@pytest.fixture(scope="module")
def exchange() -> GeneratedMarket:
    return GeneratedMarket(7, 400, listings_per_day=0.0)


def test_activity_falls_with_the_rank(exchange: GeneratedMarket) -> None:
    """24 h notional falls with an exponent between 1.2 and 1.5; a few symbols hold most of it."""
    volume = np.sort(exchange.block(LARGE_S).quote_volume[0])[::-1]
    ranks = np.arange(1, 301)
    slope = np.polyfit(np.log(ranks), np.log(volume[:300]), 1)[0]

    assert -1.55 <= slope <= -1.15
    assert 0.5 <= volume[:10].sum() / volume.sum() <= 0.95


def test_spreads_scatter_between_symbols_as_recorded(exchange: GeneratedMarket) -> None:
    """Quartiles and scatter of the spread over symbols are those of a perpetuals exchange."""
    block = exchange.block(LARGE_S)
    mid = (block.bid_ticks + block.ask_ticks)[:, :, 0] / 2.0
    ticks = np.median(block.ask_ticks[:, :, 0] - block.bid_ticks[:, :, 0], axis=0)
    bps = ((block.ask_ticks - block.bid_ticks)[:, :, 0] / mid).mean(0) * 1e4
    tick_bps = 1e4 / mid[0]

    assert 2.9 <= np.median(bps) <= 9.2
    assert 0.5 <= np.log(bps).std() <= 1.6
    assert 0.03 <= (ticks == 1).mean() <= 0.25
    assert 4.0 <= np.median(ticks) <= 20.0
    assert 0.25 <= np.median(tick_bps) <= 0.7


def test_funding_is_distributed_as_recorded(exchange: GeneratedMarket) -> None:
    """Two contracts in three pay exactly the interest, the rest a few bps, a few a lot; stocks have no interest."""
    temper = Temper(exchange.listings, 0.2)
    rates = np.concatenate([exchange.block(LARGE_S + 3600 * k).funding_rate[0] for k in (0, 24)]) * 1e4
    is_stock = np.tile(temper.is_stock, 2)
    interest = np.tile(temper.funding_interval_h / 8.0, 2)
    crypto, q = rates[~is_stock], np.quantile(rates[~is_stock], [0.01, 0.05, 0.5, 0.95, 0.99])

    assert 0.5 <= np.isclose(crypto, interest[~is_stock], atol=0.011).mean() <= 0.8
    assert np.median(rates[is_stock]) == 0.0
    assert -20.0 <= q[0] <= -3.0
    assert 0.4 <= q[2] <= 1.0
    assert 1.0 <= q[3] <= 8.0
    assert q[4] <= 16.0


def test_funding_follows_bitgets_formula() -> None:
    """F = (P + clamp(I - P, +-5 bp)) / (8 / interval), by hand."""
    temper = Temper(GeneratedMarket(7, 60).listings, 0.2)
    premium = np.zeros(60)
    premium[:4] = 3.0, 6.5, -4.5, -12.0

    rate = funding_rate(temper, premium) * 1e4
    scale = temper.funding_interval_h[:4] / 8.0

    assert rate[:4] == pytest.approx(np.array([1.0, 1.5, 0.5, -7.0]) * scale, abs=0.011)


def test_mark_and_index_scatter_as_recorded(exchange: GeneratedMarket) -> None:
    """Mark over index scatters by some 10 bps between symbols; BTC's moves by half a bp and remembers seconds."""
    block = exchange.block(LARGE_S)
    over = (block.mark / block.index - 1.0) * 1e4
    mean = over.mean(0)
    btc = over[:, 0]
    mid = (block.bid_ticks + block.ask_ticks)[:, :, 0] / 2.0 / exchange.price_scale
    gap = ((mid / block.mark - 1.0) * 1e4).std(0)

    assert -6.0 <= mean.mean() <= 8.0
    assert 3.0 <= mean.std() <= 18.0
    assert 0.2 <= (btc - np.linspace(btc[:60].mean(), btc[-60:].mean(), len(btc))).std() <= 0.9
    assert 0.6 <= autocorrelation(btc, 1) <= 0.95
    assert gap[0] <= 0.12
    assert 0.3 <= np.median(gap) <= 1.5


def test_figures_of_24_hours_hold_what_was(exchange: GeneratedMarket) -> None:
    """High and low hold the block so far, never what comes later in it; the open lies between them."""
    block = exchange.block(LARGE_S)
    mid = (block.bid_ticks + block.ask_ticks)[:, :, 0] / 2.0 / exchange.price_scale
    later = np.maximum.accumulate(mid[::-1], axis=0)[::-1]
    grown = np.diff(block.high_24h, axis=0) > 0

    assert (block.high_24h >= np.maximum.accumulate(mid, axis=0) - 1e-12).all()
    assert (block.low_24h <= np.minimum.accumulate(mid, axis=0) + 1e-12).all()
    assert (np.diff(block.high_24h, axis=0) >= 0).all()
    assert (block.open_24h <= block.high_24h + 1.0 / exchange.price_scale).all()
    assert (block.open_24h >= block.low_24h - 1.0 / exchange.price_scale).all()
    # A high that grows does so to the price of that second, not to one that comes.
    assert grown.any()
    assert (
        block.high_24h[1:][grown] <= mid[1:][grown] + 1.0 / np.broadcast_to(exchange.price_scale, mid.shape)[1:][grown]
    ).all()
    assert (later[:-1] > block.high_24h[:-1]).any()


def test_a_newcomers_24_hours_begin_with_its_launch() -> None:
    """The volume of a symbol that trades for minutes is that of minutes."""
    market = GeneratedMarket(7, 16, listings_per_day=86_400 * 2 / 7200.0)
    newcomer = next(n for n, listing in enumerate(market.listings) if listing.life is not None)
    life = market.listings[newcomer].life
    assert life is not None
    launch = life.launch_s(START_S)
    launch += life.period_s if launch < START_S else 0
    volumes = []
    for age_s in (30, 600, 1800):
        block = market.block(launch + age_s)
        volumes.append(block.quote_volume[launch + age_s - block.first_second, newcomer])

    day = market.listings[newcomer].usd_per_s * 86_400
    assert volumes[0] < volumes[1] < volumes[2] < 0.05 * day


# ------------------------------------------------------------------------------------------- nightly


@pytest.fixture(scope="module")
def days() -> Series:
    """Return three days of four symbols, every block."""
    market = GeneratedMarket(11, 4)
    return Series(market, [market.block(START_S + BLOCK_S * k) for k in range(3 * 288)])


@pytest.mark.nightly
def test_volatility_clusters_as_recorded(days: Series) -> None:
    """ln volatility of five minutes scatters by 0.68 and keeps half to the next, a third for an hour, little for six."""
    rows = [volatility_facts(days, n) for n in range(len(days.symbols))]

    def median(name: str) -> float:
        return float(np.median([row[name] for row in rows]))

    assert 0.5 <= median("vol5_lnsd") <= 0.85
    assert 0.4 <= median("vol5_ac") <= 0.75
    assert 0.15 <= median("vol1h_ac") <= 0.5


@pytest.mark.nightly
def test_the_day_has_its_pattern(days: Series) -> None:
    """Volatility of the busiest hour is some three times that of the calmest, trades more; the peak is afternoon UTC."""
    at = (days.first_second + np.arange(len(days.mid))) % 86_400 // 3600
    r = days.moved(1)[:, 0]
    vol = np.array([np.nanstd(r[at == hour]) for hour in range(24)])
    trades = np.array([days.count[at == hour].mean() for hour in range(24)])

    assert 2.0 <= vol.max() / vol.min() <= 5.0
    assert 4.0 <= trades.max() / trades.min() <= 16.0
    assert 11 <= np.argmax(trades) <= 19


@pytest.mark.nightly
def test_bands_hold_for_other_seeds_and_hours() -> None:
    """Nine facts of ten lie in their bands over seeds and hours; an hour twice as volatile as usual leaves a few more.

    Seed 1 has such an hour: its volatility is outside the bands, as that of August 2024 was in the recordings.
    """
    shares = []
    for seed, hour_of_day in ((1, 0), (1, 9), (2, 9), (3, 0)):
        market = GeneratedMarket(seed, 40)
        blocks = [market.block(START_S + 3600 * hour_of_day + BLOCK_S * k) for k in range(12)]
        series = Series(market, blocks)
        found = medians(series, [facts_of(series, n) for n in range(40)])
        inside = [low <= found[tier][name] <= high for tier, band in BANDS.items() for name, low, high in band]
        shares.append(np.mean(inside))

    assert min(shares) >= 0.75
    assert np.mean(shares) >= 0.9
