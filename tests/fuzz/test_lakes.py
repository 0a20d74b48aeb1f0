"""From a lake of a random market to the page of its report: features, scores, nulls, decisions, journal."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pipelines.backtest_journal import JournalPlan
from pipelines.features import write_features, write_labels
from pipelines.page import of_backtest
from pipelines.parity import check
from pipelines.report import render
from pipelines.seconds import to_frame
from pipelines.simulation import run_backtest
from pipelines.told import Told
from shared.errors import CrosscutError, SettingsError
from shared.features.catalog import FEATURES
from shared.features.sampler import COLUMNS
from shared.lake import write
from shared.lake.layout import HOUR_S
from shared.strategy.scores import RulesScorer
from shared.types import NS, Seconds
from tests.fuzz.draws import MadeMarket, config_of, dice_of, equity_of, market_of, one_of, ways_of
from tests.fuzz.test_backtests import seeds

SOURCE = "simulator-made"


def written(lake: Path, market: MadeMarket) -> None:
    """Write a market as a recorder would have left it."""
    first = market.first_second
    write.write_universe(lake, msgspec.structs.replace(market.universe, as_of_ns=first * NS))
    columns = {name: np.ascontiguousarray(market.values[c]) for c, name in enumerate(COLUMNS)}
    frame = to_frame(market.universe.symbols, Seconds(first, columns))
    hours = sorted(set((frame["second"] // HOUR_S).to_list()))
    for hour in hours:
        write.write_table(lake, "seconds", SOURCE, hour, frame.filter(frame["second"] // HOUR_S == hour), {})
    for hour in hours:
        write_features(lake, SOURCE, hour)
        write_labels(lake, SOURCE, hour, slippage_bps=2.0)


@pytest.mark.parametrize("seed", seeds([], 40))
def test_backtest_of_a_lake(seed: int, tmp_path: Path) -> None:
    """Rules over what a lake holds: every run ends with its figures or one sentence, and live would have done the same."""
    dice = dice_of(seed, 4)
    ways = msgspec.structs.replace(
        ways_of(dice, seconds=int(one_of(dice, 200, 260))), n_symbols=int(one_of(dice, 1, 4, 8))
    )
    market = market_of(dice, ways)
    free = (msgspec.structs.replace(c, maker_fee=Decimal(0), taker_fee=Decimal(0)) for c in market.universe.contracts)
    market = msgspec.structs.replace(market, universe=msgspec.structs.replace(market.universe, contracts=tuple(free)))
    config = msgspec.structs.replace(config_of(dice, market.universe), horizon_s=10, slippage_bps=0.0)
    config = msgspec.structs.replace(config, variants=one_of(dice, (), (), ("rules/30s",)))
    written(tmp_path / "lake", market)
    plan = JournalPlan(folder=tmp_path / "compared", seconds=150, model="rules", commit="")

    try:
        found = run_backtest(
            tmp_path / "lake", SOURCE, scorer=RulesScorer(tuple(FEATURES)), config=config,
            start_s=market.first_second + 60, end_s=market.first_second + market.seconds, seed=seed,
            equity_usdt=equity_of(dice), keeps_decisions=True, journaled=plan,
        )  # fmt: skip
    except CrosscutError as error:
        assert isinstance(error, SettingsError) or "still open" in str(error), error  # noqa: PT017 - which refusal
        return

    assert found.decisions is not None
    found.decisions.close()
    checked = check(plan.folder)
    assert checked.is_identical, checked.sentence()
    text = render(of_backtest(found, Told(run="run")))
    assert "net after costs" in text
