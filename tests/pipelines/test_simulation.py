"""The backtest: what an order meets, what is paid, and that blocks, seeds and nulls behave."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from pipelines import scoring, simulation
from pipelines.scoring import turned
from pipelines.simulation import Backtest, first_prices, run_backtest
from pipelines.validation import gap_s
from pipelines.venue_side import Tape, VenueSide, end_of
from shared.errors import NotEnoughData, SettingsError
from shared.features.catalog import FEATURES
from shared.features.graph import lookback_of
from shared.features.sampler import COLUMNS
from shared.lake import read, write
from shared.lake.layout import HOUR_S
from shared.limits import HORIZON_S, config_of
from shared.settings import Settings
from shared.strategy.engine import Engine
from shared.strategy.scores import CoinScorer, Scorer, Scores
from shared.strategy.sizing import affordable
from shared.types import NS, Action, Cause, Event, Filled, Floats, OrderKind, PlaceOrder, SecondClosed, Seconds, Side
from tests.pipelines.markets import HOUR, SOURCE, market, universe, write_lake

ROWS = 420


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backtest")
    write_lake(folder, rows=ROWS + 60, n_symbols=5)
    return folder


START = (HOUR + 1) * HOUR_S - (ROWS + 60) // 2 + 60
SETTINGS = Settings(_env_file=None, confidence_min=0.4, confidence_margin_min=0.0, slippage_bps=0.0)


def run(lake: Path, scorer: Scorer, *, style: str = "market", start_s: int = START) -> Backtest:
    config = config_of(SETTINGS, horizon_s=scorer.horizon_s, entry_kind=OrderKind(style))
    return run_backtest(lake, SOURCE, scorer=scorer, config=config, start_s=start_s, end_s=START + ROWS, seed=5)


class PlantedScorer:
    """Knows the planted imbalance: long where bids are many, short where asks are, flat between."""

    name = "planted"
    needs_features = True
    is_null = False
    horizon_s: int | None = 10

    def __init__(self) -> None:
        self._at = list(FEATURES).index("imbalance_1")

    def score(self, features: object, columns: object, first_second: int) -> Scores:
        assert isinstance(features, np.ndarray)
        imbalance = features[..., self._at].astype(np.float64)
        p_long, p_short = (np.where(s * imbalance > 0.5, 0.8, 0.1) for s in (1, -1))
        direction = (np.sign(p_long - p_short)).astype(np.int8)
        edge = 60.0 * (p_long - p_short)
        known = np.isfinite(imbalance)
        return Scores(p_long, p_short, 1 - p_long - p_short, edge, direction, np.maximum(p_long, p_short), known)


@pytest.fixture(scope="module")
def planted(lake: Path) -> Backtest:
    return run(lake, PlantedScorer())


def test_planted_edge_survives_costs_and_its_nulls_do_not(planted: Backtest) -> None:
    """A scorer that knows what was planted earns; the coin and its own scores of another moment lose."""
    assert planted.main.metrics["total_trades"] > 30
    assert planted.main.net_bps > 5
    assert [null.name for null in planted.nulls] == ["coin", "shuffled"]
    assert all(null.net_bps < planted.main.net_bps / 2 for null in planted.nulls)
    assert planted.nulls[0].net_bps < 0
    assert planted.ic.mean > 0.3


def test_a_decision_meets_the_row_after_it(planted: Backtest, lake: Path) -> None:
    """Row s is known at s + 1, so its orders are filled at the book of row s + 1 and of no earlier one."""
    seconds = read.read_seconds(lake, SOURCE, START, START + ROWS, universe(5, 0).symbols).columns

    for trade in planted.main.trades:
        assert trade.entry_ns == end_of(trade.entry_second + 1)
        row, n = trade.entry_second + 1 - START, int(trade.symbol[1:3])
        side, worse = ("ask", 1) if trade.side is Side.BUY else ("bid", -1)
        best, deepest = (seconds[f"{side}_price_{level}"][row, n] for level in (1, 5))
        assert worse * best <= worse * float(trade.entry_price) + 1e-9 <= worse * deepest + 2e-9


def test_net_of_all_trades_is_the_change_of_equity(planted: Backtest) -> None:
    """Every outcome ends flat, and its trades add up to what the account gained or lost, funding included."""
    for outcome in (planted.main, *planted.nulls):
        total = sum((trade.net_usdt for trade in outcome.trades), Decimal(0))
        assert float(total) == pytest.approx(outcome.equity_usdt[-1] - outcome.equity_usdt[0], abs=1e-9)
        assert len(outcome.equity_usdt) == ROWS + 1


def test_funding_is_paid_at_the_border_of_its_hour(planted: Backtest) -> None:
    """The window crosses a funding time of its contracts: what is held then pays or receives."""
    funded = [trade for trade in planted.main.trades if trade.funding_usdt]

    assert all(trade.entry_ns <= (HOUR + 1) * HOUR_S * NS <= trade.exit_ns for trade in funded)
    assert planted.main.metrics["total_funding_usdt"] == pytest.approx(float(sum(t.funding_usdt for t in funded)))
    assert funded


def test_same_window_and_seed_give_the_same_trades_however_it_is_cut(
    lake: Path, planted: Backtest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of 50 rows instead of one of 420: scores, and so trades, do not know the difference."""
    monkeypatch.setattr(scoring, "BLOCK_S", 50)

    again = run(lake, PlantedScorer())

    assert again.main.trades == planted.main.trades
    assert again.nulls[0].trades == planted.nulls[0].trades


def test_every_hour_is_decoded_once_however_many_blocks_it_has(
    lake: Path, planted: Backtest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour's file lies by symbol: whoever reads a part of it decodes it all, so its blocks share one reading."""
    asked: list[tuple[int, tuple[str, ...]]] = []

    read_seconds = read.read_seconds

    def decoded(
        lake: Path, source: str, start_s: int, end_s: int, symbols: tuple[str, ...], *columns: tuple[str, ...],
        into: Mapping[str, Floats] | None = None,
    ) -> Seconds:  # fmt: skip
        if into is not None:  # else it is a few columns of the first prices
            asked.append((start_s // HOUR_S, symbols))
            assert (end_s - 1) // HOUR_S == start_s // HOUR_S
        return read_seconds(lake, source, start_s, end_s, symbols, *columns, into=into)

    monkeypatch.setattr(read, "read_seconds", decoded)
    monkeypatch.setattr(scoring, "SYMBOLS_AT_ONCE", 2)
    monkeypatch.setattr(scoring, "BLOCK_S", 50)

    again = run(lake, PlantedScorer())

    symbols = universe(5, 0).symbols
    parts = [symbols[:2], symbols[2:4], symbols[4:]]
    assert asked == [(hour, part) for hour in (HOUR, HOUR + 1) for part in parts]
    assert again.main.trades == planted.main.trades


def test_block_scores_are_what_the_engine_computes_itself(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is handed no scores computes them second by second and makes the very same trades."""
    begin = START - 60  # where the lake begins: both graphs start on nothing
    blocks = run(lake, PlantedScorer(), start_s=begin)
    original = Engine.on_event

    def without_scores(self: Engine, event: Event) -> list[Action]:
        is_second = isinstance(event, SecondClosed)
        return original(self, msgspec.structs.replace(event, scores=None) if is_second else event)

    monkeypatch.setattr(Engine, "on_event", without_scores)
    seconds = run(lake, PlantedScorer(), start_s=begin)

    assert seconds.main.trades == blocks.main.trades
    assert seconds.main.trades


def test_order_decided_on_a_row_meets_the_touch_of_the_next() -> None:
    """A market buy is filled at the ask of the row it is shown, level after level, never at that of its decision."""
    listed = universe(1, 0)
    seconds = market(1000, 3, 1, seed=1)
    tape = Tape(np.stack([seconds.columns[name] for name in COLUMNS]))
    side = VenueSide(listed, Decimal(1_000_000), 5)
    order = PlaceOrder(
        client_oid="a1", symbol="S00USDT", side=Side.BUY, kind=OrderKind.MARKET, size=Decimal(300), price=None,
        reduce_only=False, stop_price=None, cause=Cause.ENTRY,
    )  # fmt: skip

    fills = [e for e in side.row(tape, 2, [order], end_of(1002)) if isinstance(e, Filled)]

    assert fills[0].price == Decimal(repr(float(seconds.columns["ask_price_1"][2, 0])))
    assert fills[0].size == Decimal(repr(float(seconds.columns["ask_size_1"][2, 0])))
    assert fills[1].price == Decimal(repr(float(seconds.columns["ask_price_2"][2, 0])))
    assert sum(fill.size for fill in fills) == 300
    assert all(fill.fee_usdt > 0 and not fill.is_maker for fill in fills)


def test_a_book_of_the_tape_is_its_levels_and_stays_when_the_block_is_overwritten() -> None:
    """Price and size by level, of that second and symbol; a book that somebody keeps is a copy."""
    columns = market(1000, 3, 2, seed=1).columns
    values = np.stack([columns[name] for name in COLUMNS])
    tape = Tape(values)

    bids, asks = tape.bids(1, 1), tape.asks(2, 0)
    values[:] = 0.0

    for k in range(1, 6):
        assert bids[k - 1].tolist() == [columns[f"bid_price_{k}"][1, 1], columns[f"bid_size_{k}"][1, 1]]
        assert asks[k - 1].tolist() == [columns[f"ask_price_{k}"][2, 0], columns[f"ask_size_{k}"][2, 0]]


def test_post_only_entries_are_makers_and_exits_takers(lake: Path) -> None:
    """Post-only entries pay the maker fee, and a coin that uses them still loses."""
    outcome = run(lake, CoinScorer(5), style="post_only").main

    assert outcome.trades
    fees_bps = [float(t.fees_usdt / (t.entry_price * t.size)) * 1e4 for t in outcome.trades if t.n_fills == 2]
    assert np.median(fees_bps) == pytest.approx(8.0, abs=0.1)
    assert outcome.net_bps < 0


def test_seconds_without_a_book_are_lived_through(tmp_path: Path) -> None:
    """A hole in the recording closes no position at a made-up price: the run ends flat, and the ledger agrees."""
    write_lake(tmp_path, rows=ROWS, n_symbols=3)
    hole = (HOUR + 1) * HOUR_S
    frame = read.collect(read.scan(tmp_path, "seconds", SOURCE, start_s=hole))
    kept = frame.filter(~frame["second"].is_between(hole + 20, hole + 60))
    write.write_table(tmp_path, "seconds", SOURCE, HOUR + 1, kept, {})
    start = hole - 200

    backtest = run_backtest(
        tmp_path, SOURCE, scorer=CoinScorer(1), config=config_of(SETTINGS, horizon_s=None),
        start_s=start, end_s=start + 400, seed=1,
    )  # fmt: skip

    assert backtest.main.trades
    assert max(trade.duration_s for trade in backtest.main.trades) > 40


def test_short_window_is_refused(lake: Path) -> None:
    """A window of a minute judges nothing, and the sentence says what is needed."""
    with pytest.raises(NotEnoughData, match="a window of 120 s at least is needed, found 60 s"):
        run_backtest(
            lake, SOURCE, scorer=CoinScorer(1), config=config_of(SETTINGS, horizon_s=None),
            start_s=START, end_s=START + 60, seed=1,
        )  # fmt: skip


def test_account_that_affords_nothing_is_refused_before_anything_is_computed(lake: Path) -> None:
    """One USDT buys no smallest order: the sentence is live's, with the arithmetic and what would be enough."""
    config = config_of(SETTINGS, horizon_s=10)

    def run_with(equity: Decimal) -> Backtest:
        return run_backtest(
            lake, SOURCE, scorer=PlantedScorer(), config=config, start_s=START, end_s=START + ROWS, seed=5,
            equity_usdt=equity, with_nulls=False,
        )  # fmt: skip

    with pytest.raises(SettingsError, match=r"the account must afford one order, found 1\.00 USDT x 5 \(LEVERAGE\)"):
        run_with(Decimal(1))
    prices = first_prices(lake, SOURCE, universe(5, 0), START)
    needed = affordable(config, universe(5, 0), prices, equity=Decimal(1)).equity_for_one_usdt
    assert needed is not None
    with pytest.raises(SettingsError, match=f"or have {needed} USDT"):
        run_with(needed - Decimal("0.01"))
    assert run_with(needed).main.start_usdt == needed


def test_first_prices_are_the_first_mids_and_leave_out_who_has_none(tmp_path: Path) -> None:
    """A symbol whose book comes later is priced by it; one without a book in the first minute has no price."""
    start, _ = write_lake(tmp_path, rows=200, n_symbols=3)
    hour = start // HOUR_S
    frame = read.collect(read.scan(tmp_path, "seconds", SOURCE, start_s=start, end_s=(hour + 1) * HOUR_S))
    late = (pl.col("symbol") == "S01USDT") & (pl.col("second") < start + 7)
    gone = (pl.col("symbol") == "S02USDT") & (pl.col("second") < start + 60)
    write.write_table(tmp_path, "seconds", SOURCE, hour, frame.filter(~late & ~gone), {})

    prices = first_prices(tmp_path, SOURCE, universe(3, 0), start)

    rows = {(row["symbol"], row["second"]): row for row in frame.iter_rows(named=True)}
    at = {"S00USDT": rows["S00USDT", start], "S01USDT": rows["S01USDT", start + 7]}
    assert prices == {
        symbol: Decimal(repr((row["bid_price_1"] + row["ask_price_1"]) / 2)) for symbol, row in at.items()
    }
    assert first_prices(tmp_path, SOURCE, universe(3, 0), start + 10 * HOUR_S) == {}


def test_what_is_delisted_later_is_traded_until_then(tmp_path: Path) -> None:
    """A backtest that knows at its start what will be delisted has chosen its survivors."""
    start, end = write_lake(tmp_path, rows=300, n_symbols=3)
    listed = universe(3, (end - 10) * NS)
    gone = msgspec.structs.replace(listed.contracts[0], status="off")
    write.write_universe(tmp_path, msgspec.structs.replace(listed, contracts=(gone, *listed.contracts[1:])))

    result = run_backtest(
        tmp_path, SOURCE, scorer=CoinScorer(1), config=config_of(SETTINGS, horizon_s=None),
        start_s=start, end_s=end, seed=1,
    )  # fmt: skip

    assert gone.symbol in {trade.symbol for trade in result.main.trades}


def test_turned_scores_have_not_seen_their_outcome() -> None:
    """Half the shortest block is more than a score looks back and an outcome lies ahead: the null stays a null."""
    windows = range(simulation.WINDOW_S_MIN, 4 * scoring.BLOCK_S)
    shortest = min(window // max(1, round(window / scoring.BLOCK_S)) for window in windows)

    assert shortest // 2 > gap_s(HORIZON_S, lookback_of(FEATURES))


def test_turned_scores_are_the_same_scores_of_other_moments() -> None:
    """Turning keeps every score and its neighbours, and nothing at its own second."""
    rng = np.random.Generator(np.random.Philox(3))
    p_long, p_short, p_flat, edge, confidence = rng.random((5, 40, 3))
    valid = rng.random((40, 3)) < 0.9
    scores = Scores(p_long, p_short, p_flat, edge, np.ones((40, 3), np.int8), confidence, valid)

    found = turned(scores)

    assert sorted(found.edge_bps.ravel()) == sorted(scores.edge_bps.ravel())
    assert not (found.edge_bps == scores.edge_bps).any()
    assert (found.is_valid <= valid).all()
