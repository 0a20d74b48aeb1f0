"""How long the engine thinks about a second: 600 symbols, features and scores given.

Run it: python -m benchmarks.engine [--symbols 600] [--seconds 1200] [--rounds 3] [--profile]

A step is `Engine.on_event(SecondClosed)` with up to 20 positions open and 8 orders a second; the exchange fills at the
touch at once, outside the clock. Three lines: every place is changed every few seconds, at as many orders a second as
the exchange takes; positions that are held for their horizon, an order every few seconds; and scores that never clear
their cost. Every round has the same events; the CPU's time is each step's best round, so that other work on the machine
does not count, the wall's clock that of all rounds.

Where orders are sent, a second line tells what one costs: least squares of the steps' CPU time on what they sent, the
longest hundredth left out. An entry there includes those that were sized and then refused, a second what is asked of
every symbol and of every position.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import time
from decimal import Decimal
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.features.sampler import COLUMNS
from shared.strategy.engine import Engine, EngineConfig
from shared.strategy.scores import Scores
from shared.types import (
    NS,
    Adopted,
    Contract,
    Filled,
    Floats,
    LinkChanged,
    OrderAccepted,
    OrderReported,
    OrderStatus,
    PlaceOrder,
    SecondClosed,
    Side,
    Universe,
)

AT = {name: c for c, name in enumerate(COLUMNS)}
START_S = 1_760_000_000


class _Given:
    name = "given"
    horizon_s: int | None = 10
    needs_features = False
    is_null = False

    def score(self, features: object, columns: object, first_second: int) -> Scores:
        raise AssertionError("scores are given")


def _universe(n_symbols: int) -> Universe:
    rules = {
        "quote": "USDT", "status": "normal", "tick": Decimal("0.01"), "size_step": Decimal("0.01"),
        "size_min": Decimal("0.01"), "notional_min_usdt": Decimal(5), "size_max_limit": None, "size_max_market": None,
        "price_band_buy": Decimal("0.05"), "price_band_sell": Decimal("0.05"), "maker_fee": Decimal("0.0002"),
        "taker_fee": Decimal("0.0006"), "leverage_min": 1, "leverage_max": 50, "funding_interval_h": 8,
        "is_rwa": False, "launch_ms": None, "off_ms": None,
    }  # fmt: skip
    contracts = tuple(Contract(symbol=f"S{n:04}USDT", base=f"S{n:04}", **rules) for n in range(n_symbols))  # type: ignore[arg-type]
    return Universe(source="simulator-bench", as_of_ns=0, contracts=contracts)


def _market(mids: Floats) -> Floats:
    block = np.zeros((len(COLUMNS), len(mids)))
    for level in range(1, 6):
        block[AT[f"bid_price_{level}"]] = np.round(mids - 0.01 * level, 2)
        block[AT[f"ask_price_{level}"]] = np.round(mids + 0.01 * level, 2)
        block[AT[f"bid_size_{level}"]] = block[AT[f"ask_size_{level}"]] = 100.0
    block[AT["bid_depth_10bps_usdt"]] = block[AT["ask_depth_10bps_usdt"]] = 50_000.0
    block[AT["mark"]] = mids
    block[AT["book_updates"]] = 1.0
    return block


def _scores(rng: np.random.Generator, sign: NDArray[np.int8], edge_bps: float) -> Scores:
    n = len(sign)
    p_long, p_short = np.where(sign > 0, 0.8, 0.1), np.where(sign < 0, 0.8, 0.1)
    edge = sign.astype(np.float64) * np.abs(rng.normal(0, edge_bps, n))
    return Scores(p_long, p_short, 1 - p_long - p_short, edge, sign, np.maximum(p_long, p_short), np.ones(n, np.bool_))


class Steps(NamedTuple):
    """What was measured, a row for each second."""

    took_us: Floats  # (T, 2) by the wall's clock and the CPU's
    sent: Floats  # (T, 2) exits and entries


def measure(
    n_symbols: int, seconds: int, edge_bps: float, turns: float = 1.0, profiler: cProfile.Profile | None = None
) -> Steps:
    """Return what the steps of one load took.

    Args:
        turns: share of symbols whose score takes a new side each second [1].
        profiler: told of every step.
    """
    rng, ids = np.random.default_rng(0), count(1)
    universe = _universe(n_symbols)
    engine = Engine(EngineConfig(drawdown_max=1.0, daily_loss_limit=1.0), universe, _Given(), session="bench", seed=1)
    at = universe.index()
    now_ns = START_S * NS
    money = Decimal(1_000_000)
    leverage = dict.fromkeys(universe.symbols, 5)
    engine.on_event(
        Adopted(recv_ns=now_ns, equity_usdt=money, available_usdt=money, positions=(), orders=(), leverage=leverage)
    )
    for link in ("public", "private"):
        engine.on_event(LinkChanged(recv_ns=now_ns, link=link, is_up=True))
    mids = rng.uniform(50, 150, n_symbols).round(2)
    sign = rng.integers(-1, 2, n_symbols).astype(np.int8)
    took: list[tuple[float, float]] = []
    sent: list[tuple[int, int]] = []
    gc.collect()
    gc.freeze()  # as a session does
    for second in range(START_S, START_S + seconds):
        mids = np.round(mids * (1 + rng.normal(0, 3e-4, n_symbols)), 2)
        block = _market(mids)
        now_ns = (second + 1) * NS
        sign = np.where(rng.random(n_symbols) < turns, rng.integers(-1, 2, n_symbols), sign).astype(np.int8)
        event = SecondClosed(recv_ns=now_ns, second=second, columns=block, scores=_scores(rng, sign, edge_bps))
        if profiler is not None:
            profiler.enable()
        wall, cpu = time.perf_counter(), time.thread_time()
        actions = engine.on_event(event)
        took.append(((time.perf_counter() - wall) * 1e6, (time.thread_time() - cpu) * 1e6))
        if profiler is not None:
            profiler.disable()
        orders = [a for a in actions if isinstance(a, PlaceOrder)]
        n_exits = sum(order.reduce_only for order in orders)
        sent.append((n_exits, len(orders) - n_exits))
        for order in orders:
            name, touch = str(next(ids)), "ask_price_1" if order.side is Side.BUY else "bid_price_1"
            price = Decimal(repr(float(block[AT[touch], at[order.symbol]])))
            engine.on_event(OrderAccepted(recv_ns=now_ns, client_oid=order.client_oid, order_id=name))
            engine.on_event(
                Filled(
                    recv_ns=now_ns, client_oid=order.client_oid, order_id=name, trade_id=name, symbol=order.symbol,
                    side=order.side, price=price, size=order.size, fee_usdt=Decimal("0.01"), is_maker=False, exch_ns=0,
                )
            )  # fmt: skip
            engine.on_event(
                OrderReported(
                    recv_ns=now_ns, client_oid=order.client_oid, order_id=name, status=OrderStatus.FILLED,
                    filled=order.size, reason="",
                )
            )  # fmt: skip
        engine.take_trades()
    gc.unfreeze()
    return Steps(np.array(took), np.array(sent, np.float64))


def costs(cpu: Floats, sent: Floats) -> Floats:
    """Return what a second costs by itself, and each exit and each entry on top of it, CPU µs."""
    usual = cpu <= np.percentile(cpu, 99)
    terms = np.column_stack([np.ones(len(cpu)), sent])[usual]
    found: Floats = np.linalg.lstsq(terms, cpu[usual], rcond=None)[0].astype(np.float64)
    return found


def _told(took_us: Floats) -> str:
    p50, p99 = np.percentile(took_us, (50, 99))
    return f"p50 {p50:.0f} us, p99 {p99:.0f} us"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--symbols", type=int, default=600)
    parser.add_argument("--seconds", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="where the time of the busy load goes, by function")
    asked = parser.parse_args()
    for name, edge_bps, turns in (("busy", 30.0, 1.0), ("usual", 6.0, 0.02), ("calm", 4.0, 1.0)):
        rounds = [measure(asked.symbols, asked.seconds, edge_bps, turns) for _ in range(asked.rounds)]
        wall = np.concatenate([steps.took_us[:, 0] for steps in rounds])
        cpu: Floats = np.min([steps.took_us[:, 1] for steps in rounds], axis=0)
        sent = rounds[0].sent
        print(
            f"engine step, {asked.symbols} symbols, scores given, {name} "
            f"({sent.sum() / asked.seconds:.1f} placements/s): {_told(wall)}; of CPU {_told(cpu)}"
        )
        if sent.sum() > asked.seconds / 10:
            second, an_exit, entry = costs(cpu, sent)
            print(f"  {second:.0f} us a second, {an_exit:.0f} us an exit, {entry:.0f} us an entry")
    if asked.profile:
        profiler = cProfile.Profile()
        measure(asked.symbols, asked.seconds, 30.0, profiler=profiler)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    main()
