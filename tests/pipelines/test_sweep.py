"""Sweeps: the same results as one run each, scores computed once, every configuration a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines import kept_scores, scoring
from pipelines import sweep as sweeps
from pipelines.backtest import Candidate
from pipelines.choices import Between, changed, choice_of, choices_of, grid_of, one_each, typed
from pipelines.kept_scores import KeptScores
from pipelines.simulation import run_backtest
from pipelines.sweep import Window, main, run_together, search, sweep, table_of, words
from pipelines.tracking import EXPERIMENT_BACKTESTS, Tracking
from shared.errors import SettingsError
from shared.features.catalog import FEATURES
from shared.strategy.config import EngineConfig
from shared.strategy.scores import RulesScorer, Scores
from shared.types import Floats, OrderKind
from tests.pipelines.markets import SOURCE, write_lake

BASE = EngineConfig(confidence_min=0.4, confidence_margin_min=0.0, slippage_bps=0.0)


class CountingScorer(RulesScorer):
    """Rules that think much of themselves, and how often they were asked."""

    SKILL = 3.0

    def __init__(self) -> None:
        super().__init__(tuple(FEATURES))
        self.asked = 0

    def score(self, features: NDArray[np.float32] | None, columns: Mapping[str, Floats], first_second: int) -> Scores:
        self.asked += 1
        return super().score(features, columns, first_second)


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Window:
    lake = tmp_path_factory.mktemp("sweep")
    start, end = write_lake(lake, rows=260, n_symbols=4)
    return Window(lake, SOURCE, start + 60, end, seed=5)


def judged() -> Candidate:
    return Candidate(CountingScorer(), "rules", None, None, {}, {})


def test_each_configuration_does_what_it_would_have_done_alone(window: Window) -> None:
    """Sharing seconds and scores changes no trade, no equity; and scores are computed once for all."""
    candidate = judged()
    some: list[dict[str, Any]] = [{"top_k": 3}, {"top_k": 10, "cooldown_s": 9}, {"entry_kind": OrderKind.POST_ONLY}]

    together = run_together(window, candidate, BASE, some)

    assert candidate.scorer.asked == 1  # type: ignore[attr-defined]
    for one, changes in zip(together, some, strict=True):
        alone = run_backtest(
            window.lake, SOURCE, scorer=CountingScorer(), config=changed(BASE, changes),
            start_s=window.start_s, end_s=window.end_s, seed=5, with_nulls=False,
        ).main  # fmt: skip
        assert one.outcome is not None
        assert one.outcome.trades == alone.trades
        assert (one.outcome.equity_usdt == alone.equity_usdt).all()
    assert together[0].outcome is not None
    assert together[0].outcome.trades


def test_configuration_that_the_account_cannot_afford_is_refused_and_the_others_go_on(window: Window) -> None:
    """With 30 USDT ten slots a side are smaller than the smallest order and two are not."""
    small = msgspec.structs.replace(window, equity_usdt=Decimal(30))

    many, few = run_together(small, judged(), BASE, [{"top_k": 10}, {"top_k": 2}])

    assert many.outcome is None
    assert many.why.startswith("the account must afford one order, found 30.00 USDT x 5 (LEVERAGE)")
    assert few.outcome is not None


def test_every_configuration_is_a_trial_and_the_best_is_deflated_by_all(window: Window, tmp_path: Path) -> None:
    """Each is a run of MLflow that later judgements find; one that contradicts itself is told, not run."""
    tracking = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")

    swept = sweep(window, judged(), tracking, BASE, choices_of(["top_k=3,5", "target_bps=none,4"]))

    runs = tracking.finished(EXPERIMENT_BACKTESTS, f"tags.source = '{SOURCE}' and tags.null = 'false'")
    assert len(runs) == 2
    assert {run.data.params["top_k"] for run in runs} == {"3", "5"}
    assert swept.best is not None
    assert swept.best.backtests == 2
    table = table_of(swept)
    assert table["refused"].drop_nulls().len() == 2
    assert "target_bps must exceed the round trip's cost" in table["refused"].drop_nulls()[0]
    assert table["net_usdt"].null_count() == 2
    said = words(swept, judged(), window)
    assert "4 configurations of rules" in said
    assert "--set top_k=" in said


def test_optuna_asks_for_some_at_a_time_and_repeats_itself(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed tries the same configurations; a pass serves several; every choice lies where it may."""
    monkeypatch.setattr(sweeps, "AT_ONCE", 2)
    choices = choices_of(["confidence_min=0.3..0.6", "top_k=2..6", "entry_kind=market,post_only"])

    tried, passes, _ = search(window, judged(), BASE, choices, n_trials=3)
    again, *_ = search(window, judged(), BASE, choices, n_trials=3)

    assert passes == 2
    assert [one.changes for one in tried] == [one.changes for one in again]
    for one in tried:
        assert 0.3 <= one.changes["confidence_min"] <= 0.6
        assert one.changes["top_k"] in range(2, 7)
        assert isinstance(one.changes["entry_kind"], OrderKind)
        assert math.isfinite(one.worth) or one.worth == -math.inf


def test_search_computes_scores_once_and_no_outcome_knows_the_difference(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three passes read what the first has kept; where the disk has no room each computes anew, to the same bits."""
    monkeypatch.setattr(sweeps, "AT_ONCE", 1)
    monkeypatch.setattr(scoring, "BLOCK_S", 50)  # four blocks
    choices = choices_of(["confidence_min=0.3..0.6", "top_k=2..6"])
    sharing, alone = judged(), judged()

    tried, passes, scored = search(window, sharing, BASE, choices, n_trials=3)
    monkeypatch.setattr(kept_scores, "FREE_SHARE_MAX", 0.0)
    again, _, scored_again = search(window, alone, BASE, choices, n_trials=3)

    assert (passes, scored, scored_again) == (3, 1, 3)
    assert sharing.scorer.asked == 4  # type: ignore[attr-defined]
    assert alone.scorer.asked == 12  # type: ignore[attr-defined]
    for one, other in zip(tried, again, strict=True):
        assert one.changes == other.changes
        assert one.outcome is not None
        assert other.outcome is not None
        assert one.outcome.trades == other.outcome.trades
        assert (one.outcome.equity_usdt == other.outcome.equity_usdt).all()
    assert any(one.outcome is not None and one.outcome.trades for one in tried)


def test_scores_of_other_scorers_or_other_seconds_are_not_taken_for_those_asked_for(window: Window) -> None:
    """A variant more, a window less: what is kept does not answer, and is computed."""
    candidate = judged()
    variants = {"variants": ("rules/30s",)}
    shorter = msgspec.structs.replace(window, end_s=window.end_s - 40)

    with KeptScores() as kept:
        for asked_of, changes in ((window, {}), (window, variants), (shorter, variants)):
            [shared] = run_together(asked_of, candidate, BASE, [changes], kept)
            [alone] = run_together(asked_of, judged(), BASE, [changes])
            assert shared.outcome is not None
            assert alone.outcome is not None
            assert shared.outcome.trades == alone.outcome.trades
        assert kept.computed == 3


@given(
    st.fixed_dictionaries(
        {
            "top_k": st.integers(1, 1000),
            "confidence_min": st.floats(0, 1),
            "entry_kind": st.sampled_from([OrderKind.MARKET, OrderKind.POST_ONLY]),
            "entry_fallback": st.booleans(),
            "target_bps": st.none() | st.floats(100, 200),
        }
    )
)
def test_what_is_printed_can_be_typed_again(changes: dict[str, object]) -> None:
    """The line that looks closer at a configuration means that configuration, to the last digit."""
    words = typed(changes).split()

    assert one_each(choices_of(words[1::2])) == changes


def test_choices_are_typed() -> None:
    """Values have the type of their field; a range is for a search, a list for a grid."""
    assert choice_of("top_k=5, 10,5") == ("top_k", (5, 10))
    assert choice_of("confidence_min=0.3..0.6") == ("confidence_min", Between(0.3, 0.6, is_whole=False))
    assert grid_of(choices_of(["top_k=1,2", "entry_kind=market,post_only"]))[1] == {
        "top_k": 1,
        "entry_kind": OrderKind.POST_ONLY,
    }


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ([], "--grid must be given at least once"),
        (["top_k"], "must be like top_k=5"),
        (["top_k="], "must be like top_k=5"),
        (["top=5"], "found 'top'"),
        (["horizon_s=5"], "found 'horizon_s'"),
        (["top_k=many"], "top_k must be int, found 'many'"),
        (["top_k=1.5"], "top_k must be int, found '1.5'"),
        (["entry_kind=limitless"], "found 'limitless'"),
        (["top_k=5", "top_k=6"], "a field must be chosen once"),
        (["top_k=1..5"], "give --trials"),
        (["top_k=5..1"], "the lower one first"),
        (["entry_kind=market..post_only"], "must be of numbers"),
        (["top_k=" + ",".join(map(str, range(1, 40))), "cooldown_s=" + ",".join(map(str, range(40)))], "found 1560"),
    ],
)
def test_choices_that_mean_nothing_are_one_sentence(
    grid: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told before anything is read."""
    arguments = [part for text in grid for part in ("--grid", text)]

    assert main([*arguments, "--lake", str(tmp_path)]) == SettingsError.exit_code

    found = capsys.readouterr().err
    assert found.count("\n") == 1
    assert said in found
