"""Whole backtests of random configurations in random markets: what must hold holds in all of them.

A failure is a number: `python -m pytest "tests/fuzz/test_backtests.py" -k "screen and 203"` runs its world again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import msgspec
import pytest

from pipelines.exact.exchange import Assumptions
from pipelines.exact.latency import Constant, Latencies
from pipelines.page import of_backtest
from pipelines.report import render, write_outputs
from pipelines.simulation import Backtest, Outcome
from pipelines.told import Told
from tests.fuzz.draws import calm_of, config_of, dice_of, equity_of, market_of, opinions_of
from tests.fuzz.drives import (
    Case,
    Lived,
    Venue,
    case_of,
    exact_of,
    facts,
    lived,
    mirrored,
    replayed,
    screen_of,
    standing,
    still,
    trades_of,
    venue_of,
)

A_SECOND = Latencies(decide=Constant(0), entry=Constant(1_000), answer=Constant(1_000), push=Constant(0))


def seeds(few: Iterable[int], many: int) -> list[object]:
    """Return the seeds of every day, and as many more for the night."""
    chosen = list(few)
    more = [seed for seed in range(many) if seed not in chosen]
    return [*chosen, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in more)]


def calm_case(seed: int) -> Case:
    """Return a case in which nothing jumps, falls silent or is paid in between."""
    dice = dice_of(seed, 2)
    market = market_of(dice, calm_of(dice))
    config = config_of(dice, market.universe)
    return Case(config, market, opinions_of(dice, market), equity_of(dice), bool(dice.random() < 0.15), seed)


@lru_cache(maxsize=32)
def screened(seed: int) -> tuple[Case, Lived]:
    case = case_of(seed)
    return case, lived(case, screen_of(case))


@pytest.mark.parametrize("seed", seeds(range(16), 400))
def test_screen(seed: int) -> None:
    """At the screen tier the ledger is the venue's after every second, and the engine repeats itself from its events."""
    case, found = screened(seed)

    replayed(case, found.watched)


@pytest.mark.parametrize("seed", seeds(range(100, 106), 300))
def test_exact(seed: int) -> None:
    """At the exact tier, whatever latencies, queues, ladders and listings do."""
    case = case_of(seed)
    venue = venue_of(case)

    found = lived(case, exact_of(case, venue), is_changed=bool(venue.changes))

    replayed(case, found.watched)


@pytest.mark.parametrize("seed", seeds(range(200, 202), 60))
def test_again(seed: int) -> None:
    """A run that is made twice is the same twice, to the last byte, at both tiers."""
    case = case_of(seed)
    venue = venue_of(case)

    for is_exact in (False, True):
        one, other = (
            lived(case, exact_of(case, venue) if is_exact else screen_of(case), is_changed=bool(venue.changes))
            for _ in range(2)
        )
        assert one.watched.answers == other.watched.answers
        assert one.refusal == other.refusal
        if one.outcome is not None and other.outcome is not None:
            assert msgspec.msgpack.encode(one.outcome.trades) == msgspec.msgpack.encode(other.outcome.trades)
            assert one.outcome.equity_usdt.tobytes() == other.outcome.equity_usdt.tobytes()


@pytest.mark.parametrize("seed", seeds(range(3), 100))
def test_tiers_agree(seed: int) -> None:
    """Takers of deep books whose orders take a second meet the same at both tiers: every trade, to the last digit."""
    case = still(calm_case(seed))
    venue = Venue(Assumptions(latencies=A_SECOND, impact_half_life_s=0.0))

    screen, exact = lived(case, screen_of(case)), lived(case, exact_of(case, venue, is_still=True))

    assert screen.refusal == exact.refusal
    assert sorted(map(str, facts(screen.outcome))) == sorted(map(str, facts(exact.outcome)))


@pytest.mark.parametrize("seed", seeds(range(3), 100))
def test_mirror(seed: int) -> None:
    """Where prices stand still, whoever thinks the opposite of everything trades the opposite of everything."""
    case = standing(calm_case(seed))
    other = msgspec.structs.replace(case, scores=case.scores.mirrored())

    found, opposite = lived(case, screen_of(case)), lived(other, screen_of(other))

    assert found.refusal == opposite.refusal
    assert trades_of(found.outcome) == mirrored(opposite.outcome)


@pytest.mark.parametrize("seed", seeds(range(2), 60))
def test_report(seed: int, tmp_path: Path) -> None:
    """A report can be made of every run, and shows no figure that is none."""
    case, found = screened(seed)
    if found.outcome is None:
        pytest.skip(found.refusal)

    text = render(of_backtest(judged(case, found.outcome), Told(run="run")))
    write_outputs(tmp_path, found.outcome, "run")

    assert not re.search(r"[>\s−-](nan|inf|None|NaN)[<\s]", text), re.findall(r".{40}[>\s−-](?:nan|inf)[<\s]", text)[:3]
    assert {path.name for path in tmp_path.iterdir()} >= {"trades.parquet", "trades.csv", "metrics.csv"}


def judged(case: Case, outcome: Outcome) -> Backtest:
    begin_s = case.market.first_second
    return Backtest(
        source="simulator-made", start_s=begin_s, end_s=begin_s + case.market.seconds, holdout_from_s=None,
        style=str(case.config.entry_kind), seed=case.seed, symbols=case.market.ways.n_symbols, main=outcome, nulls=(),
    )  # fmt: skip


def test_draws_are_wide() -> None:
    """What is drawn trades, is refused, and is left for many causes: no test above is empty."""
    causes, n_trades, gates = set(), 0, set()
    for seed in range(16):
        _, found = screened(seed)
        if found.outcome is not None:
            causes |= {str(trade.exit_cause) for trade in found.outcome.trades}
            n_trades += len(found.outcome.trades)
            gates |= set(found.outcome.gates)
    assert causes >= {"horizon", "stop"}, causes
    assert len(causes) > 3, causes
    assert n_trades > 100, n_trades
    assert len(gates) > 12, gates
