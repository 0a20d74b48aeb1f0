"""What a backtest costs, stage by stage: CPU seconds for a made stretch of 600 symbols, scaled to a day.

    python -m benchmarks.backtest [--symbols 600] [--seconds 3600] [--sigma-bps 12] [--sweep] [--profile]

The market is a random walk on ticks with five levels a side whose imbalance drifts the mid; it lies in a lake of its
own with its labels, so that reading is in the figures. The scorer is `rules`; nulls are the usual two; why not is kept
and stored, as a backtest does. Stages add up to the whole run; `engine and venue` is one configuration over given
scores: what a sweep pays for each. `--sweep` measures that: passes of one and two configurations, with scores computed
and with those that the pass before has kept. CPU seconds, not the clock's: other work on the machine makes them
somewhat worse, never better. The first touch of fresh memory, once a run, is a good part of a short stretch.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np

from pipelines import decisions, scoring, simulation, skill, sweep
from pipelines.backtest import Candidate
from pipelines.features import write_labels
from pipelines.kept_scores import KeptScores
from pipelines.seconds import to_frame
from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph
from shared.features.sampler import COLUMNS
from shared.lake import read, write
from shared.lake.layout import HOUR_S
from shared.strategy.config import EngineConfig
from shared.strategy.scores import RulesScorer
from shared.types import NS, Contract, Floats, Seconds, Universe

SOURCE = "simulator-bench"
START = 1_760_000_400 // HOUR_S * HOUR_S
DAY_S = 24 * HOUR_S


def universe(n_symbols: int) -> Universe:
    contracts = tuple(
        Contract(
            symbol=f"S{n:04d}USDT", base=f"S{n:04d}", quote="USDT", status="normal", tick=Decimal("0.01"),
            size_step=Decimal("0.001"), size_min=Decimal("0.001"), notional_min_usdt=Decimal(5), size_max_limit=None,
            size_max_market=None, price_band_buy=Decimal("0.05"), price_band_sell=Decimal("0.05"),
            maker_fee=Decimal("0.0002"), taker_fee=Decimal("0.0006"), leverage_min=1, leverage_max=50,
            funding_interval_h=8, is_rwa=False, launch_ms=None, off_ms=None,
        )
        for n in range(n_symbols)
    )  # fmt: skip
    return Universe(source=SOURCE, as_of_ns=START * NS, contracts=contracts)


def market(rows: int, n_symbols: int, *, sigma_bps: float) -> dict[str, Floats]:
    """Return complete columns of a walk whose volatility differs from symbol to symbol."""
    rng = np.random.default_rng(1)
    shape = (rows, n_symbols)
    stretch = np.repeat(rng.choice([-0.8, 0.0, 0.8], (-(-rows // 20), n_symbols)), 20, axis=0)[:rows]
    sigma = sigma_bps * 1e-4 * rng.lognormal(0, 0.5, n_symbols)
    mid = 100.0 * np.exp(np.cumsum(rng.standard_normal(shape) * sigma + np.sign(stretch) * sigma * 0.1, axis=0))
    bid = np.floor(mid / 0.01) * 0.01
    columns: dict[str, Floats] = {name: np.zeros(shape) for name in COLUMNS}
    for level in range(1, 6):
        columns[f"bid_price_{level}"] = np.round(bid - (level - 1) * 0.01, 2)
        columns[f"ask_price_{level}"] = np.round(bid + level * 0.01, 2)
        columns[f"bid_size_{level}"] = np.round(200.0 * (1 + stretch) + 10 * rng.random(shape), 3)
        columns[f"ask_size_{level}"] = np.round(200.0 * (1 - stretch) + 10 * rng.random(shape), 3)
    for side in ("bid", "ask"):
        depth = sum(columns[f"{side}_price_{k}"] * columns[f"{side}_size_{k}"] for k in range(1, 6))
        columns[f"{side}_depth_5bps_usdt"] = columns[f"{side}_depth_10bps_usdt"] = np.asarray(depth)
    columns["book_reach_bps"][:] = 5.0
    columns["last"] = columns["mark"] = columns["index"] = np.round(mid, 4)
    columns["funding_rate"][:] = 1e-4
    columns["open_interest"][:] = 1e5
    columns["quote_volume_24h_usdt"][:] = 1e8
    for name in ("buy_volume_usdt", "sell_volume_usdt"):
        columns[name] = np.round(1000 * rng.random(shape), 2)
    columns["buy_count"] = columns["sell_count"] = rng.integers(0, 4, shape).astype(np.float64)
    columns["mid_high"], columns["mid_low"] = mid + 0.01, mid - 0.01
    columns["book_updates"][:] = columns["ticker_updates"][:] = 1.0
    return columns


def write_lake(lake: Path, rows: int, n_symbols: int, *, sigma_bps: float) -> None:
    listed = universe(n_symbols)
    write.write_universe(lake, listed)
    columns = market(rows, n_symbols, sigma_bps=sigma_bps)
    for hour in range(START // HOUR_S, (START + rows - 1) // HOUR_S + 1):
        begin, end = hour * HOUR_S - START, min((hour + 1) * HOUR_S - START, rows)
        cut = {name: values[begin:end] for name, values in columns.items()}

        def parts(cut: dict[str, Floats] = cut, begin: int = begin) -> Any:
            for n in range(0, n_symbols, 50):
                some = {name: values[:, n : n + 50] for name, values in cut.items()}
                yield to_frame(listed.symbols[n : n + 50], Seconds(START + begin, some))

        write.write_parts(lake, "seconds", SOURCE, hour, parts(), {})
    for hour in read.hours(lake, "seconds", SOURCE):
        write_labels(lake, SOURCE, hour, slippage_bps=0.0)


class Clock:
    """CPU seconds by stage, each without the stages inside of it."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._inside = [0.0]

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **named: Any) -> Any:
            self._inside.append(0.0)
            start = time.process_time()
            try:
                return work(*arguments, **named)
            finally:
                took = time.process_time() - start
                self.spent[stage] = self.spent.get(stage, 0.0) + took - self._inside.pop()
                self._inside[-1] += took

        return wrapper


def measure(lake: Path, rows: int, config: EngineConfig, *, nulls: bool) -> tuple[Clock, float, Any]:
    """Return the stages, the whole, and the backtest."""
    clock = Clock()
    scorer = RulesScorer(tuple(FEATURES))
    patches = [
        mock.patch.object(scoring._Rows, "read", clock.timed("read seconds", scoring._Rows.read)),
        mock.patch.object(FeatureGraph, "step", clock.timed("features", FeatureGraph.step)),
        mock.patch.object(RulesScorer, "score", clock.timed("scores", RulesScorer.score)),
        mock.patch.object(simulation.Simulation, "step", clock.timed("engine and venue", simulation.Simulation.step)),
        mock.patch.object(scoring.Labelled, "of", clock.timed("read labels", scoring.Labelled.of)),
        mock.patch.object(scoring.Labelled, "_decode", clock.timed("read labels", scoring.Labelled._decode)),
        mock.patch.object(skill.SkillMeter, "add", clock.timed("skill of scores", skill.SkillMeter.add)),
        *(
            mock.patch.object(decisions.DecisionLog, name, clock.timed("why not", getattr(decisions.DecisionLog, name)))
            for name in ("look", "_spill", "store")
        ),
    ]
    for patch in patches:
        patch.start()
    start = time.process_time()
    try:
        found = simulation.run_backtest(
            lake, SOURCE, scorer=scorer, config=config, start_s=START, end_s=START + rows, seed=1, with_nulls=nulls,
            keeps_decisions=True,
        )  # fmt: skip
        assert found.decisions is not None, "they were asked for"
        found.decisions.store(lake, SOURCE, "benchmark")
        found.decisions.close()
    finally:
        whole = time.process_time() - start
        for patch in patches:
            patch.stop()
    return clock, whole, found


def measure_sweep(lake: Path, rows: int, config: EngineConfig) -> None:
    """Print what passes of one and two configurations cost, scores computed or kept."""
    judged = Candidate(RulesScorer(tuple(FEATURES)), "rules", None, None, {}, {})
    window = sweep.Window(lake, SOURCE, START, START + rows, seed=1)
    with KeptScores() as kept:
        for title, n, by in (
            ("one configuration, scores computed and kept", 1, kept),
            ("one configuration, kept scores", 1, kept),
            ("two configurations, kept scores", 2, kept),
            ("one configuration, scores computed", 1, None),
            ("two configurations, scores computed", 2, None),
        ):
            start = time.process_time()
            tried = sweep.run_together(window, judged, config, [{"top_k": 10 + k} for k in range(n)], by)
            spent = time.process_time() - start
            orders = ", ".join(str(one.outcome.orders) for one in tried if one.outcome is not None)
            print(f"  {title:44} {spent:7.2f} CPU s  {spent / rows * DAY_S:7.0f} CPU s a day  {orders} orders")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--symbols", type=int, default=600)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--sigma-bps", type=float, default=12.0, help="volatility of a second: more of it, more trades")
    parser.add_argument("--sweep", action="store_true", help="what a further configuration costs, and nothing else")
    parser.add_argument("--profile", action="store_true", help="where the time goes, by function")
    asked = parser.parse_args()
    config = EngineConfig(confidence_min=0.5, confidence_margin_min=0.0, daily_loss_limit=1.0, drawdown_max=1.0)
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder)
        write_lake(lake, asked.seconds, asked.symbols, sigma_bps=asked.sigma_bps)
        if asked.sweep:
            for title, chosen in (("calm", msgspec.structs.replace(config, confidence_min=0.999)), ("busy", config)):
                print(f"{asked.symbols} symbols, {asked.seconds} s, {title}:")
                measure_sweep(lake, asked.seconds, chosen)
            return
        for title, chosen, nulls in (
            ("calm: nothing clears its cost", msgspec.structs.replace(config, confidence_min=0.999), False),
            ("as configured", config, False),
            ("as configured, with nulls", config, True),
        ):
            clock, whole, found = measure(lake, asked.seconds, chosen, nulls=nulls)
            trades = len(found.main.trades)
            print(f"{asked.symbols} symbols, {asked.seconds} s, {title}: {trades} trades, {found.main.orders} orders")
            rest = whole - sum(clock.spent.values())
            for stage, spent in {**clock.spent, "the rest": rest, "whole": whole}.items():
                print(
                    f"  {stage:18} {spent:7.2f} CPU s  {spent / asked.seconds * 1e3:7.3f} ms a second  "
                    f"{spent / asked.seconds * DAY_S:7.0f} CPU s a day  "
                    f"{asked.seconds / max(spent, 1e-9):7.0f} x real time"
                )
        if asked.profile:
            profiler = cProfile.Profile()
            profiler.enable()
            measure(lake, asked.seconds, config, nulls=False)
            profiler.disable()
            pstats.Stats(profiler).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
