"""The exact tier beside hftbacktest on the same events: quotes that rest, orders that take, and a whole engine.

Run it: python -m benchmarks.exact [--recording DIR SYMBOL]  (two minutes; CPU time, the best of three)

Events are rows of the market: a trade, a book, a mark. hftbacktest is given books as changed levels, two and a half a
row; its figures count rows as well, so that both columns are the same market. It is asked once a second what became of
its orders, as a strategy in its own language would. Without its environment (`make oracles`) its column stays empty.

* quotes    one order always rests: a new one at the best bid every second, the one before cancelled
* takes     a market order every second
* engine    coin flips on a generated lake of forty symbols: rows of all of them, of which the tape reads what concerns
            somebody
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from pipelines.exact.exchange import Assumptions
from pipelines.exact.queues import PowerProbability, QueueModel, RiskAverse
from pipelines.exact.session import run_exact
from pipelines.generate import generate
from pipelines.seconds import write_seconds
from pipelines.simulation import run_backtest
from shared.lake import read
from shared.lake.layout import HOUR_S
from shared.limits import config_of
from shared.settings import Settings
from shared.simulator.markets.market import GeneratedMarket
from shared.strategy.scores import CoinScorer
from shared.types import NS, OrderKind
from tests.oracles.both import PYTHON, Market, Outcome, Request, contract, quotes, takes, through_ours, through_theirs
from tests.oracles.markets import made, recorded

ROUNDS = 3
START_S = 1_795_330_800 // HOUR_S * HOUR_S


def rates(market: Market, requests: list[Request]) -> tuple[float, float | None, Outcome]:
    """Return events a second of ours and of hftbacktest (None: it is not here), and our outcome."""
    ours = [through_ours(market, requests) for _ in range(ROUNDS)]
    best = max(outcome.n_events / outcome.cpu_s for outcome in ours)
    if not PYTHON.exists():
        return best, None, ours[0]
    with tempfile.TemporaryDirectory() as folder:
        theirs = through_theirs([(market, requests)] * ROUNDS, Path(folder), looks_at_responses=False)
    return best, max(market.block.n_events / outcome.cpu_s for outcome in theirs), ours[0]


def matching(name: str, market: Market) -> None:
    models: tuple[tuple[str, QueueModel], ...] = (("risk averse", RiskAverse()), ("power 3", PowerProbability(3.0)))
    work = [
        (f"quotes, {queue}", msgspec.structs.replace(market, queue=model), quotes(market, "0.01"))
        for queue, model in models
    ]
    work.append(("takes", market, takes(market, seed=5, every_ns=NS)))
    for what, at, requests in work:
        ours, theirs, outcome = rates(at, requests)
        beside = "  not here: make oracles" if theirs is None else f"{theirs / 1e6:8.2f} M/s"
        print(
            f"{name:22s} {what:22s} {market.block.n_events:9,} rows {len(outcome.fills):6,} fills"
            f" {ours / 1e6:8.2f} M/s {beside}"
        )


def engine(minutes: int = 10, n_symbols: int = 40) -> None:
    """Run a coin through both tiers over a generated lake."""
    with tempfile.TemporaryDirectory() as folder:
        lake, end_s = Path(folder), START_S + minutes * 60
        source = generate(GeneratedMarket(7, n_symbols), lake, START_S, end_s).source
        write_seconds(lake, source, START_S // HOUR_S)
        rows = sum(
            read.collect(read.scan(lake, table, source, is_sorted=False).select("recv_ns")).height
            for table in ("raw/book", "raw/trade", "raw/ticker")
        )
        settings = Settings(_env_file=None)
        for style in (OrderKind.MARKET, OrderKind.POST_ONLY):
            took_s = []
            config = config_of(settings, horizon_s=10, entry_kind=style)
            for run in (run_backtest, run_exact):
                began_s = time.process_time()
                found = run(
                    lake, source, scorer=CoinScorer(7), config=config, start_s=START_S + 60, end_s=end_s, seed=7
                )
                took_s.append(time.process_time() - began_s)
            print(
                f"generated {n_symbols} symbols   engine, {style.value:13s} {rows:9,} rows"
                f" {found.main.orders:6,} orders {rows / took_s[1] / 1e6:6.3f} M/s"
                f"   screen {took_s[0]:.1f} s, exact {took_s[1]:.1f} s, of which beyond the engine and features"
                f" {took_s[1] - took_s[0]:.1f} s = {rows / max(took_s[1] - took_s[0], 1e-9) / 1e6:.2f} M/s"
            )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exact")
    parser.add_argument("--recording", nargs=2, metavar=("DIR", "SYMBOL"), help="docs/recordings.md")
    args = parser.parse_args()
    print(f"{'':22s} {'':22s} {'':14s} {'':12s}  exact tier   hftbacktest   (CPU, one core; {Assumptions().words()})")
    slow = Market(made(seed=1, seconds=300), contract("AUSDT", "0.1", "0.001"))
    fast = Market(made(seed=1, seconds=300, books_per_s=100, trades_per_s=60.0), contract("AUSDT", "0.1", "0.001"))
    matching("generated 10 books/s", slow)
    matching("generated 100 books/s", fast)
    if args.recording is not None:
        folder, symbol = Path(args.recording[0]), args.recording[1]
        matching(f"{symbol} books", Market(recorded(folder, symbol), contract(symbol, "0.1", "0.001")))
        quoted = Market(recorded(folder, symbol, quotes=True), contract(symbol, "0.1", "0.001"))
        matching(f"{symbol} best quotes", quoted)
    np.seterr(all="ignore")
    engine()


if __name__ == "__main__":
    main()
