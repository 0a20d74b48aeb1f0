"""An engine against the exact exchange: where it must agree with the screen tier, and that a run repeats."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from pipelines.exact.exchange import Assumptions
from pipelines.exact.latency import Constant, Latencies, Lognormal
from pipelines.exact.queues import PowerProbability
from pipelines.exact.session import ExactSimulation, Market, changes_of, market_of, run_exact
from pipelines.exact.tape import NEVER_NS, ArraysTape, Block
from pipelines.generate import generate
from pipelines.seconds import write_seconds
from pipelines.simulation import EQUITY_USDT, Backtest, Simulation, run_backtest
from pipelines.venue_side import Tape
from shared.features.sampler import COLUMNS
from shared.lake.layout import HOUR_S
from shared.limits import config_of
from shared.settings import Settings
from shared.simulator.markets.market import GeneratedMarket
from shared.strategy.portfolio import Trade
from shared.strategy.scores import CoinScorer
from shared.types import NS, Contract, Floats, OrderKind, Universe
from tests.pipelines.exact.made import FOREVER_NS, INSTANT, START_NS
from tests.pipelines.markets import HOUR
from tests.shared.simulator.venue_made import contract

SYMBOLS = tuple(f"S{n}USDT" for n in range(6))
SECONDS = 240
SETTINGS = Settings(_env_file=None)


def _constant_world() -> tuple[Universe, Floats, dict[str, Block]]:
    """Return contracts, seconds (C, T, N) and ticks of symbols whose books never change."""
    values = np.zeros((len(COLUMNS), SECONDS, len(SYMBOLS)))
    columns = dict(zip(COLUMNS, values, strict=True))
    blocks = {}
    for n, symbol in enumerate(SYMBOLS):
        mid = 50.0 * (n + 1)
        sides = []
        for side, sign in (("bid", -1), ("ask", 1)):
            prices = [round(mid + sign * (0.01 + 0.01 * k), 2) for k in range(5)]
            sizes = [3.0 + k for k in range(5)]
            for k in range(5):
                columns[f"{side}_price_{k + 1}"][:, n] = prices[k]
                columns[f"{side}_size_{k + 1}"][:, n] = sizes[k]
            sides.append(np.array([list(zip(prices, sizes, strict=True))]))
            for width in (5, 10):
                columns[f"{side}_depth_{width}bps_usdt"][:, n] = 1e6
        for name in ("last", "mark", "index", "mid_high", "mid_low"):
            columns[name][:, n] = mid
        columns["funding_rate"][:, n] = 0.0001
        columns["book_updates"][:, n] = 1.0
        nothing, one = np.empty(0), np.array([START_NS - 1], np.int64)
        blocks[symbol] = Block(
            begin_ns=0, end_ns=FOREVER_NS, book_ns=one, bids=sides[0], asks=sides[1],
            trade_ns=np.empty(0, np.int64), trade_price=nothing, trade_size=nothing, trade_side=np.empty(0, np.int8),
            mark_ns=one, mark=np.array([mid]), index=np.array([mid]), rate=np.array([0.0001]),
        )  # fmt: skip
    contracts = tuple(contract(symbol, notional_min_usdt=0, size_step=contract().size_step) for symbol in SYMBOLS)
    return Universe(source="simulator-test", as_of_ns=0, contracts=contracts), values, blocks


def _lived(simulation: Simulation, values: Floats) -> list[Trade]:
    first, tape = START_NS // NS, Tape(values)
    scores = CoinScorer(3).score(None, dict(zip(COLUMNS, values, strict=True)), first)
    simulation.start(first)
    for t in range(SECONDS):
        if t == SECONDS - 20:
            simulation.stop(first + t)
        simulation.step(tape, t, first + t, values[:, t], scores.row(t))
    simulation.overtime(tape, first + SECONDS - 1, values[:, -1], scores.row(SECONDS - 1))
    return list(simulation.outcome().trades)


def _both(latencies: Latencies) -> tuple[list[Trade], list[Trade], bool]:
    """Return (exact trades, screen trades, whether the accounts are equal in the end) of a coin in that world."""
    universe, values, blocks = _constant_world()
    config = config_of(SETTINGS, horizon_s=10, entry_kind=OrderKind.MARKET)
    market = Market(ArraysTape(blocks), Assumptions(latencies=latencies, impact_half_life_s=0.0))
    coin, start_s = CoinScorer(3), START_NS // NS
    screen = Simulation("coin", universe, config, coin, seed=5, equity_usdt=EQUITY_USDT)
    exact = ExactSimulation(
        "coin", universe, config, coin, seed=5, equity_usdt=EQUITY_USDT, market=market, start_s=start_s
    )
    return _lived(exact, values), _lived(screen, values), exact.side.equity_usdt == screen.side.equity_usdt


def test_tiers_agree_where_books_stand_still_and_an_order_takes_a_second() -> None:
    """The screen tier is the exact one with a second of latency: every trade is the same, to the last digit."""
    a_second = Latencies(decide=Constant(0), entry=Constant(1_000), answer=Constant(1_000), push=Constant(0))

    ours, theirs, is_equal = _both(a_second)

    assert len(theirs) > 30
    assert ours == theirs
    assert is_equal


def test_tiers_agree_on_every_cost_where_nothing_takes_time() -> None:
    """Without latency a symbol rests a second less between trades; what a trade pays and earns is the same."""

    def costs(trades: list[Trade]) -> set[tuple[object, ...]]:
        return {
            (t.symbol, t.side, t.size, t.entry_price, t.exit_price, t.fees_usdt, t.spread_usdt, t.slippage_usdt, t.net_usdt)
            for t in trades
        }  # fmt: skip

    ours, theirs, _ = _both(INSTANT)

    assert len(ours) > len(theirs) > 30
    assert costs(ours) == costs(theirs)
    assert all(trade.entry_ns == (trade.entry_second + 1) * NS for trade in ours)


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, int, int]:
    """Return a lake with raw ticks and seconds, its source, and three minutes of it."""
    lake, start_s = tmp_path_factory.mktemp("exact"), HOUR * HOUR_S + 600
    made = generate(GeneratedMarket(7, 6), lake, start_s, start_s + 300)
    write_seconds(lake, made.source, HOUR)
    return lake, made.source, start_s + 90, start_s + 300


def _run(window: tuple[Path, str, int, int], assumptions: Assumptions, style: str = "market") -> Backtest:
    lake, source, start_s, end_s = window
    config = config_of(SETTINGS, horizon_s=10, entry_kind=OrderKind(style))
    return run_exact(
        lake, source, scorer=CoinScorer(7), config=config, start_s=start_s, end_s=end_s, seed=7, assumptions=assumptions
    )


@pytest.mark.parametrize("style", ["market", "post_only"])
def test_run_on_the_lake_ends_flat_reconciled_and_repeats(window: tuple[Path, str, int, int], style: str) -> None:
    """Raw ticks of a generated lake: trades, the ledger equals the venue's equity, and again gives the same bits."""
    assumptions = Assumptions(queue=PowerProbability())

    one, other = _run(window, assumptions, style), _run(window, assumptions, style)

    assert len(one.main.trades) > 5
    assert one.tier == "exact"
    assert "queue power" in one.assumptions
    assert one.main.trades == other.main.trades
    assert (one.main.equity_usdt == other.main.equity_usdt).all()
    net = sum(float(trade.net_usdt) for trade in one.main.trades)
    assert net == pytest.approx(one.main.equity_usdt[-1] - one.main.equity_usdt[0], abs=1e-9)


def test_latency_is_paid_for(window: tuple[Path, str, int, int]) -> None:
    """Fills come later with longer latencies, and never before their decision's second is over."""
    slow = Latencies(entry=Lognormal(900, 1_500))

    for latencies in (Latencies(), slow):
        trades = _run(window, Assumptions(latencies=latencies)).main.trades
        waits = [trade.entry_ns - (trade.entry_second + 1) * NS for trade in trades]
        assert min(waits) > 0
        assert bool(np.median(waits) > 800e6) is (latencies is slow)


def test_lost_answers_do_not_lose_money(window: tuple[Path, str, int, int]) -> None:
    """Where one answer in five never comes, orders are asked for, and the ledger still equals the venue's."""
    found = _run(window, Assumptions(latencies=Latencies(lost_share=0.2)))

    assert len(found.main.trades) > 5


def test_tape_shows_what_the_seconds_were_made_of(window: tuple[Path, str, int, int]) -> None:
    """The book in force at a second's end, read on the market's clock, lies at most the feed's latency away from it."""
    lake, source, start_s, end_s = window
    market = market_of(lake, source, start_s, end_s, Assumptions(), seed=7)
    screen = run_backtest(
        lake, source, scorer=CoinScorer(7), config=config_of(SETTINGS, horizon_s=10, entry_kind=OrderKind.MARKET),
        start_s=start_s, end_s=end_s, seed=7,
    )  # fmt: skip
    symbols = {trade.symbol for trade in screen.main.trades}

    assert symbols
    for symbol in symbols:
        found = market.tape.block(symbol, start_s * NS)
        assert found.n_events > 100
        for times in (found.book_ns, found.trade_ns, found.mark_ns):
            assert (np.diff(times) >= 0).all()
        assert (found.trade_ns >= start_s * NS).all()
        assert (found.bids[:, 0, 0] < found.asks[:, 0, 0]).all()


def test_changes_are_what_snapshots_say_anew() -> None:
    """Listed, changed, taken off by status or by absence, and listed again: each once."""

    def snapshot(at_ns: int, *contracts: Contract) -> Universe:
        return Universe(source="bitget", as_of_ns=at_ns, contracts=contracts)

    a, b = contract("AUSDT"), contract("BUSDT")
    tighter, off = msgspec.structs.replace(a, leverage_max=20), msgspec.structs.replace(b, status="off")

    changes = changes_of([snapshot(1, a), snapshot(2, a, b), snapshot(3, tighter, b), snapshot(4, tighter, off),
                          snapshot(5, tighter), snapshot(6, tighter, b)])  # fmt: skip

    assert [(change.at_ns, change.contract, change.is_gone) for change in changes] == [
        (2, b, False), (3, tighter, False), (4, off, True), (6, b, False),
    ]  # fmt: skip
    assert NEVER_NS > FOREVER_NS
