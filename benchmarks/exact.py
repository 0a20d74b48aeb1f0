"""The exact tier beside hftbacktest on the same events: quotes that rest, orders that take, many symbols, an engine.

Run it: python -m benchmarks.exact [--recording DIR SYMBOL]  (a minute; CPU time, the best of three)

Events are rows of the market: a trade, a book, a mark. hftbacktest is given books as changed levels, two and a half a
row; its figures count rows as well, so that both columns are the same market. It is asked once a second what became of
its orders, as a strategy in its own language would. Without its environment (`make oracles`) its column stays empty.

* quotes    one order always rests: a new one at the best bid every second, the one before cancelled
* takes     a market order every second
* many      hundreds of symbols of few rows, one account, ten requests a second over all of them; hftbacktest runs each
            symbol by itself, for an account of its own
* engine    coin flips on generated lakes: rows of all symbols, of which the tape reads what concerns somebody; what the
            engine and its features take is told apart from what the exchange does. Lakes as they are generated for a
            demo, once a second, and at the cadence that Bitget pushes at, which is what a recorder's lake holds
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np

from pipelines.exact.exchange import Assumptions, Exchange
from pipelines.exact.queues import LogProbability, PowerProbability, QueueModel, RiskAverse
from pipelines.exact.session import run_exact
from pipelines.generate import generate
from pipelines.seconds import write_seconds
from shared.lake import read
from shared.lake.layout import HOUR_S
from shared.limits import config_of
from shared.settings import Settings
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator.pushes.feed import BITGET, HISTORY, Cadence
from shared.strategy.scores import CoinScorer
from shared.types import NS, Filled, OrderKind
from tests.oracles.both import (
    PYTHON,
    Market,
    Outcome,
    Request,
    action_of,
    contract,
    exchange_of,
    quotes,
    takes,
    through_ours,
    through_theirs,
)
from tests.oracles.markets import made, recorded

ROUNDS = 3
START_S = 1_795_330_800 // HOUR_S * HOUR_S
LAKES = ((40, 5, HISTORY), (300, 3, HISTORY), (300, 3, BITGET))
"""Symbols, minutes and cadence of the generated lakes."""


def rates(market: Market, requests: list[Request]) -> tuple[float, float | None, Outcome]:
    """Return events a second of ours and of hftbacktest (None: it is not here), and our outcome."""
    ours = [through_ours(market, requests) for _ in range(ROUNDS)]
    best = max(outcome.n_events / outcome.cpu_s for outcome in ours)
    if not PYTHON.exists():
        return best, None, ours[0]
    with tempfile.TemporaryDirectory() as folder:
        theirs = through_theirs([(market, requests)] * ROUNDS, Path(folder), looks_at_responses=False)
    return best, max(market.block.n_events / outcome.cpu_s for outcome in theirs), ours[0]


def tell(name: str, what: str, rows: int, n_requests: int, n_fills: int, ours: float, theirs: float | None) -> None:
    beside = "  not here: make oracles" if theirs is None else f"{theirs / 1e6:8.2f} M/s"
    print(
        f"{name:22s} {what:22s} {rows:9,} rows {n_requests:6,} requests {n_fills:6,} fills"
        f" {ours / 1e6:8.2f} M/s {1e6 * rows / ours / n_requests:6.0f} us a request {beside}",
        flush=True,
    )


def matching(name: str, market: Market) -> None:
    models: tuple[tuple[str, QueueModel], ...] = (
        ("risk averse", RiskAverse()), ("power 3", PowerProbability(3.0)), ("log", LogProbability()),
    )  # fmt: skip
    work = [
        (f"quotes, {queue}", msgspec.structs.replace(market, queue=model), quotes(market, "0.01"))
        for queue, model in models
    ]
    work.append(("takes", market, takes(market, seed=5, every_ns=NS)))
    for what, at, requests in work:
        ours, theirs, outcome = rates(at, requests)
        tell(name, what, market.block.n_events, len(requests), len(outcome.fills), ours, theirs)


# ------------------------------------------------------------------------------------------------ many symbols


def many(n_symbols: int, seconds: int = 120, every_ns: int = 10 * NS) -> None:
    """Quote at every bid for ten seconds, the symbols one after another, of markets of three rows a second each."""
    blocks = [made(seed=k, seconds=seconds, books_per_s=2, trades_per_s=1.0) for k in range(8)]
    markets = [Market(blocks[k % 8], contract(f"S{k:03d}USDT", "0.1", "0.001")) for k in range(n_symbols)]
    runs: list[tuple[Market, list[Request]]] = []
    for k, market in enumerate(markets):
        later_ns = every_ns * k // n_symbols
        moved = [
            msgspec.structs.replace(request, at_ns=request.at_ns + later_ns, oid=request.oid + 1_000_000 * k)
            for request in quotes(market, "0.05", every_ns=every_ns)
            if request.at_ns + later_ns < market.end_ns
        ]
        runs.append((market, moved))
    rows = sum(market.block.n_events for market in markets)
    best_s, n_fills = float("inf"), 0
    for _ in range(ROUNDS):
        began_s = time.process_time()
        n_fills = together(runs)
        best_s = min(best_s, time.process_time() - began_s)
    theirs = None
    if PYTHON.exists():
        with tempfile.TemporaryDirectory() as folder:
            outcomes = through_theirs(runs, Path(folder), looks_at_responses=False)
        theirs = rows / sum(outcome.cpu_s for outcome in outcomes)
    n_requests = sum(len(requests) for _, requests in runs)
    tell(f"{n_symbols} symbols", "quotes, risk averse", rows, n_requests, n_fills, rows / best_s, theirs)


def together(runs: list[tuple[Market, list[Request]]]) -> int:
    """Send what several markets are asked for to one exchange, for one account; return how many fills that makes."""
    exchange = exchange_of([market for market, _ in runs])
    sent = sorted(
        ((request, market.contract.symbol) for market, requests in runs for request in requests),
        key=lambda item: (item[0].at_ns, not item[0].is_cancel),
    )
    n_fills = 0
    end_ns = min(market.end_ns for market, _ in runs)

    def until(at_ns: int) -> None:
        nonlocal n_fills
        while (event := exchange.next_event(at_ns)) is not None:
            n_fills += isinstance(event, Filled)

    for request, symbol in sent:
        until(request.at_ns)
        exchange.send(action_of(request, symbol), request.at_ns)
    until(max(end_ns, sent[-1][0].at_ns))
    return n_fills


# -------------------------------------------------------------------------------------------------- an engine


class Clock:
    """CPU seconds within some calls."""

    def __init__(self) -> None:
        self.took_s = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **more: Any) -> Any:
            began_s = time.process_time()
            try:
                return function(*args, **more)
            finally:
                self.took_s += time.process_time() - began_s

        return timed


def engine(n_symbols: int, minutes: int, cadence: Cadence = HISTORY) -> None:
    """Run a coin through the exact tier over a generated lake."""
    with tempfile.TemporaryDirectory() as folder:
        lake, end_s = Path(folder), START_S + minutes * 60
        source = generate(GeneratedMarket(7, n_symbols), lake, START_S, end_s, cadence=cadence).source
        write_seconds(lake, source, START_S // HOUR_S)
        rows = sum(
            read.collect(read.scan(lake, table, source, is_sorted=False).select("recv_ns")).height
            for table in ("raw/book", "raw/trade", "raw/ticker")
        )
        settings = Settings(_env_file=None)
        for style in (OrderKind.MARKET, OrderKind.POST_ONLY):
            config = config_of(settings, horizon_s=10, entry_kind=style)
            exchange, lake_reads = Clock(), Clock()
            began_s = time.process_time()
            with (
                mock.patch.object(Exchange, "next_event", exchange.around(Exchange.next_event)),
                mock.patch.object(Exchange, "send", exchange.around(Exchange.send)),
                mock.patch("pipelines.exact.tape.read.read_ticks", lake_reads.around(read.read_ticks)),
            ):
                found = run_exact(
                    lake, source, scorer=CoinScorer(7), config=config, start_s=START_S + 60, end_s=end_s, seed=7
                )
            took_s = time.process_time() - began_s
            matched_s, orders = exchange.took_s - lake_reads.took_s, found.main.orders
            print(
                f"engine, {n_symbols} symbols, {1000 / cadence.book_ms:.0f} Hz {style.value:19s}"
                f" {rows:9,} rows {orders:6,} orders"
                f" {rows / took_s / 1e6:8.3f} M/s in all ({took_s:.2f} s: exchange {matched_s:.2f} s ="
                f" {rows / matched_s / 1e6:.2f} M/s, {1e6 * matched_s / max(orders, 1):.0f} us an order; reads of the"
                f" lake {lake_reads.took_s:.2f} s; engine and features {took_s - exchange.took_s:.2f} s)",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exact")
    parser.add_argument("--recording", nargs=2, metavar=("DIR", "SYMBOL"), help="docs/recordings.md")
    args = parser.parse_args()
    np.seterr(all="ignore")
    print(f"exact tier, then hftbacktest, rows a second of CPU, one core ({Assumptions().words()})")
    slow = Market(made(seed=1, seconds=300), contract("AUSDT", "0.1", "0.001"))
    fast = Market(made(seed=1, seconds=120, books_per_s=100, trades_per_s=60.0), contract("AUSDT", "0.1", "0.001"))
    matching("generated 10 books/s", slow)
    matching("generated 100 books/s", fast)
    if args.recording is not None:
        folder, symbol = Path(args.recording[0]), args.recording[1]
        matching(f"{symbol} books", Market(recorded(folder, symbol), contract(symbol, "0.1", "0.001")))
        quoted = Market(recorded(folder, symbol, quotes=True), contract(symbol, "0.1", "0.001"))
        matching(f"{symbol} best quotes", quoted)
    many(100)
    many(300)
    for n_symbols, minutes, cadence in LAKES:
        engine(n_symbols, minutes, cadence)


if __name__ == "__main__":
    main()
