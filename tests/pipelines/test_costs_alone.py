"""A market in which nothing can be predicted takes the costs from whoever trades it: no more, no less, within error.

The coin trades its smallest orders through the real engine and the real venue. What it should lose is computed from the
market alone: both taker fees, and half of the quoted spread in and out. What it loses beyond that is the mid's own
movement (of a martingale: nothing on average) and what a second of latency brings (likewise).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipelines.generate import generate
from pipelines.scoring import Block
from pipelines.seconds import write_seconds
from pipelines.simulation import FLATTEN_S, Simulation, run_backtest
from pipelines.venue_side import Tape
from shared.features.sampler import COLUMNS
from shared.lake.layout import HOUR_S
from shared.simulator.markets.generated import GeneratedMarket
from shared.strategy.config import EngineConfig
from shared.strategy.portfolio import Trade
from shared.strategy.scores import CoinScorer
from shared.types import NS
from tests.pipelines import markets
from tests.shared.strategy.made import D

START_S = 1_760_000_400 + 60  # a window without a full hour: no funding
FEES_BPS = 2 * 6.0
FREE = EngineConfig(horizon_s=2, cooldown_s=0, daily_loss_limit=1.0, drawdown_max=1.0, orders_per_second_max=10)


def coin_in(seed: int, *, rows: int = 400, n_symbols: int = 24) -> tuple[Trade, ...]:
    """Return the coin's round trips in a random walk of 4 bps a second with a spread of one tick, 1 bp."""
    listed = markets.universe(n_symbols, START_S * NS)
    seconds = markets.market(START_S, rows, n_symbols, seed=seed)
    coin = CoinScorer(seed)
    values = np.stack([seconds.columns[name] for name in COLUMNS])
    block = Block(START_S, values, coin.score(None, seconds.columns, START_S))
    simulation, tape = Simulation("coin", listed, FREE, coin, seed=seed, equity_usdt=D(10_000)), Tape(block.values)
    simulation.start(START_S)
    for t in range(rows):
        if t == rows - FLATTEN_S:
            simulation.stop(START_S + t)
        simulation.step(tape, t, START_S + t, block.row(t), block.scores.row(t))
    simulation.overtime(tape, START_S + rows - 1, block.row(rows - 1), block.scores.row(rows - 1))
    found = simulation.outcome()
    earned = sum((trade.net_usdt for trade in found.trades), D(0))
    assert simulation.engine.portfolio.equity_usdt == D(10_000) + earned, f"seed {seed}"
    return found.trades


def excess_bps(trades: Sequence[Trade], spread_bps: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard error of what trades earned above minus their costs.

    Args:
        spread_bps: quoted, of each trade: half of it was paid in, half out.
    """
    over = np.array([trade.net_bps for trade in trades]) + FEES_BPS + np.array(spread_bps)
    return float(over.mean()), float(over.std(ddof=1) / math.sqrt(len(over)))


def test_a_coin_loses_its_costs_in_random_walks() -> None:
    """In two walks, thousands of trades: net + fees + spread is zero within four standard errors of about 0.2 bps;
    a fee that is counted once (6 bps) or a spread that is not (1 bp) would be seen."""
    trades = [trade for seed in (1, 2) for trade in coin_in(seed)]
    spreads = [float(markets.TICK / float(trade.entry_mid) * 1e4) for trade in trades]

    mean, error = excess_bps(trades, spreads)

    assert len(trades) > 3000
    assert error < 0.25
    assert abs(mean) < 4 * error, f"{mean:+.3f} bps above costs, error {error:.3f}"
    longs = [trade for trade in trades if trade.side.sign > 0]
    assert abs(len(longs) - len(trades) / 2) < 2 * math.sqrt(len(trades))


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_coin_loses_its_costs_in_generated_markets(tmp_path: Path) -> None:
    """The simulator's own market without anything planted, through collector, lake and sampler: books of all widths, ticks
    of all sizes. Net + fees + the half spreads of the decisions is zero within four standard errors."""
    trades: list[Trade] = []
    for seed in (7, 8):
        market = GeneratedMarket(seed, 30, 0.0)
        generate(market, tmp_path / str(seed), START_S, START_S + 1200)
        write_seconds(tmp_path / str(seed), market.source, START_S // HOUR_S)
        found = run_backtest(
            tmp_path / str(seed), market.source, scorer=CoinScorer(seed), config=FREE, start_s=START_S,
            end_s=START_S + 1200, seed=seed,
        )  # fmt: skip
        trades += found.main.trades
    spreads = [float(trade.spread_usdt / trade.opened_usdt) * 1e4 for trade in trades]

    mean, error = excess_bps(trades, spreads)

    assert len(trades) > 3000
    assert error < 0.25
    assert abs(mean) < 4 * error, f"{mean:+.3f} bps above costs, error {error:.3f}, spread {np.mean(spreads):.2f}"
