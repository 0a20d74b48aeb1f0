"""The verdict: every criterion can say no alone, nothing undefined passes, and no in-sample number has a type."""

from __future__ import annotations

import inspect
import math
import types
import typing

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.gate import tables, unseen
from pipelines.gate.choices import choosing, ideas
from pipelines.gate.criteria import Limits, Verdict, judge
from pipelines.gate.unseen import (
    Evidence,
    Identity,
    Nulls,
    Recomputed,
    Speed,
    TradesSeen,
    Unseen,
    gap_of,
    trades_seen,
)
from pipelines.validation import LeakySplit, RankIC, gap_s
from shared.errors import NotEnoughData
from shared.features.catalog import FEATURES
from shared.features.graph import lookback_of
from shared.labels import Rule
from shared.types import NS
from tests.pipelines.gate.registered import END_S, LEARNT_TO_S, START_S, evidence, seen, trades


def no(verdict: Verdict) -> list[str]:
    """Return the criteria that fail."""
    return [criterion.name for criterion in verdict.criteria if not criterion.passed]


def with_(field: str, **changes: object) -> Evidence:
    """Return good evidence with changes in one field."""
    good = evidence()
    return msgspec.structs.replace(good, **{field: msgspec.structs.replace(getattr(good, field), **changes)})


# ----------------------------------------------------------------------------------------- what can be evidence


@given(start_s=st.integers(-100, 200), length_s=st.integers(1, 10_000), horizon_s=st.sampled_from([5, 10, 60, 300]))
def test_a_window_near_what_was_learnt_from_cannot_be_made(start_s: int, length_s: int, horizon_s: int) -> None:
    """The distance comes from labels and features, never from the caller; a second closer is an error."""
    gap = gap_s(1 + horizon_s, lookback_of(FEATURES))
    assert gap == gap_of(horizon_s) == Rule(horizon_s=horizon_s).reach_s + lookback_of(FEATURES) + 1
    begin = 1_000_000 + start_s

    if begin - (1_000_000 - 1) < gap:
        with pytest.raises(LeakySplit, match=f"must begin {gap} s after the last second learnt from"):
            Unseen(learnt_to_s=1_000_000, horizon_s=horizon_s, start_s=begin, end_s=begin + length_s)
    else:
        made = Unseen(learnt_to_s=1_000_000, horizon_s=horizon_s, start_s=begin, end_s=begin + length_s)
        assert made.seconds == length_s


def test_no_way_around_the_window() -> None:
    """Neither a change of a good window nor one that was stored makes one that overlaps; an empty one is none."""
    good = evidence().holdout
    assert good is not None
    told = msgspec.json.encode(good).replace(str(START_S).encode(), str(LEARNT_TO_S).encode())

    with pytest.raises(LeakySplit):
        msgspec.structs.replace(good, start_s=LEARNT_TO_S)
    with pytest.raises((LeakySplit, msgspec.ValidationError)):
        msgspec.json.decode(told, type=Unseen)
    with pytest.raises(NotEnoughData):
        msgspec.structs.replace(good, end_s=START_S)
    with pytest.raises(LeakySplit, match="must have begun in"):
        trades_seen(good, np.array([START_S - 1]), np.ones(1), np.ones(1))


def test_every_figure_has_its_window() -> None:
    """Whatever `Evidence` holds is a type with a field `where: Unseen`, but who is judged, how fast it is, and whether
    features are what they should be: none of these is a result of rows."""
    no_results = {Identity, Speed, Recomputed, Unseen}
    hints = typing.get_type_hints(Evidence)
    held = {
        kind
        for name, hint in hints.items()
        if name != "absent"
        for kind in (typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,))
        if kind is not type(None)
    }

    assert no_results < held
    assert len(held - no_results) == 5
    for kind in held - no_results:
        assert typing.get_type_hints(kind)["where"] is Unseen, kind
    assert typing.get_type_hints(Nulls)["coin"] is TradesSeen
    every = {kind for _, kind in inspect.getmembers(unseen, inspect.isclass) if kind.__module__ == unseen.__name__}
    assert held | {Evidence, TradesSeen} == every


# ------------------------------------------------------------------------------------------------- the criteria


def test_good_evidence_passes_and_a_verdict_repeats() -> None:
    """All criteria hold, and the bootstrap draws the same every time."""
    verdict = judge(evidence(), "bitget")

    assert no(verdict) == []
    assert verdict.passed
    assert verdict.reasons == ()
    assert judge(evidence(), "bitget") == verdict
    assert len(verdict.criteria) == len({criterion.name for criterion in verdict.criteria}) == 15


@pytest.mark.parametrize("field", ["holdout", "trades", "track", "scored", "replayed", "nulls", "recomputed", "speed"])
def test_what_is_absent_does_not_pass(field: str) -> None:
    """Any piece of evidence that is missing is a no, with the sentence that was given for it."""
    less = msgspec.structs.replace(evidence(), **{field: None}, absent={field: "it was taken away"})

    verdict = judge(less, "bitget")

    assert not verdict.passed
    assert any("it was taken away" in reason for reason in verdict.reasons)
    assert not judge(Evidence(identity=evidence().identity), "bitget").passed


@pytest.mark.parametrize(
    ("field", "changes", "name"),
    [
        ("identity", {"source": "simulator-g7-40", "backtest_source": "simulator-g7-40"}, "source"),
        ("identity", {"source": ""}, "source"),
        ("identity", {"backtest_source": "import-tardis"}, "source"),
        ("recomputed", {"leak": "features must be …, found return_1s = …"}, "features"),
        ("recomputed", {"rows": 0}, "features"),
        ("track", {"deflated_sharpe": 0.94}, "deflated Sharpe"),
        ("track", {"deflated_sharpe": math.nan}, "deflated Sharpe"),
        ("scored", {"calibration_error": 0.051}, "calibration"),
        ("scored", {"calibration_error": math.nan}, "calibration"),
        ("scored", {"calibration_error": -1.0}, "calibration"),
        ("scored", {"ic_unseen": RankIC(0.03, 0.02, 60)}, "unseen symbols"),
        ("scored", {"ic_unseen": RankIC(0.03, math.nan, 60)}, "unseen symbols"),
        ("scored", {"ic_unseen": RankIC(math.nan, math.nan, 0)}, "unseen symbols"),
        ("scored", {"ic_shuffled": RankIC(0.05, 0.01, 60)}, "null: shuffled labels"),
        ("scored", {"ic_shuffled": RankIC(math.nan, 0.01, 60)}, "null: shuffled labels"),
        ("scored", {"ic_shifted": RankIC(-0.05, 0.01, 60)}, "null: shifted in time"),
        ("scored", {"ic_shifted": RankIC(0.0, math.nan, 60)}, "null: shifted in time"),
        ("replayed", {"ic": RankIC(0.05, 0.01, 60)}, "scored twice"),
        ("replayed", {"ic": RankIC(math.nan, math.nan, 60)}, "scored twice"),
        ("speed", {"cpu_p99_ms": 3.1}, "speed"),
        ("speed", {"cpu_p99_ms": math.nan}, "speed"),
        ("speed", {"symbols": 100}, "speed"),
    ],
)
def test_one_bad_figure_is_enough(field: str, changes: dict[str, object], name: str) -> None:
    """Each criterion says no alone, and to what is not defined."""
    assert no(judge(with_(field, **changes), "bitget")) == [name]


def test_a_generated_market_is_for_paper_alone() -> None:
    """The same evidence of a generated market passes for the simulator and never for the real venue; a backtest of
    another source than the training's for neither."""
    generated = with_("identity", source="simulator-g7-40", backtest_source="simulator-g7-40")
    mixed = with_("identity", source="simulator-g7-40", backtest_source="bitget")

    assert no(judge(generated, "simulator")) == []
    assert no(judge(generated, "bitget")) == ["source"]
    assert no(judge(mixed, "simulator")) == no(judge(mixed, "bitget")) == ["source"]


@pytest.mark.parametrize(
    ("net_bps", "n", "names"),
    [
        (4.0, 0, ["trades", "net edge"]),
        (4.0, 1, ["trades", "net edge"]),
        (4.0, 99, ["trades"]),
        (-1.0, 1200, ["net edge"]),
        (0.5, 1200, ["net edge"]),
        (math.nan, 1200, ["net edge"]),
        (math.inf, 1200, ["net edge"]),
    ],
)
def test_trades_that_prove_nothing_do_not_pass(net_bps: float, n: int, names: list[str]) -> None:
    """No trade, one, a loss, less than its error, figures that are none: refused."""
    good = evidence()
    assert good.holdout is not None
    few = trades(1, net_bps, n=n)

    verdict = judge(msgspec.structs.replace(good, trades=seen(good.holdout, few)), "bitget")
    assert no(verdict) == names
    (found,) = [criterion.found for criterion in verdict.criteria if criterion.name == "net edge"]
    assert "nan" not in found
    assert ("no trade" in found) == (n == 0)


def test_constant_trades_have_no_error_to_be_sure_by() -> None:
    """A hundred trades of exactly the same result are a mistake somewhere, not an edge that is certain."""
    good = evidence()
    assert good.trades is not None
    same = msgspec.structs.replace(good.trades, net_bps=np.full(len(good.trades), 4.0))

    assert no(judge(msgspec.structs.replace(good, trades=same), "bitget")) == ["net edge"]


def test_a_null_that_earns_before_costs_tells_of_a_leak() -> None:
    """A coin that loses 10 bps where a round trip costs 13 knows something: net alone would have hidden it."""
    good = evidence()
    assert good.nulls is not None
    assert good.holdout is not None
    knowing = msgspec.structs.replace(good.nulls, coin=seen(good.holdout, trades(4, -10.0)))

    assert no(judge(msgspec.structs.replace(good, nulls=knowing), "bitget")) == ["null: coin"]


@pytest.mark.parametrize(
    ("start", "end", "is_whole"), [(300, 0, False), (0, -300, False), (0, 900, True), (0, 0, True)]
)
def test_a_slice_of_the_holdout_is_refused(start: int, end: int, is_whole: bool) -> None:
    """Who judges on the best part of the holdout has chosen it; who goes on behind it has not."""
    good = evidence()
    assert good.holdout is not None
    where = msgspec.structs.replace(good.holdout, start_s=START_S + start, end_s=END_S + end)
    inside = (pl.col("entry_ns") >= where.start_s * NS) & (pl.col("entry_ns") < where.end_s * NS)
    frame = trades(1, 4.0).filter(inside)

    found = no(judge(msgspec.structs.replace(good, trades=seen(where, frame)), "bitget"))

    assert found == ([] if is_whole else ["window"])


def test_limits_are_arguments_and_no_setting() -> None:
    """Other thresholds can be asked for in code; the environment has no name for any."""
    strict = judge(evidence(), "bitget", Limits(predict_p99_ms_max=0.5))

    assert no(strict) == ["speed"]


# ------------------------------------------------------------------------------------------------------ choices


def test_copies_are_one_idea_and_not_trading_is_another() -> None:
    """Forty trials of one search are one idea: a good one is not refused for having been looked for."""
    rng = np.random.Generator(np.random.Philox(3))
    good = 1e-4 * (0.8 + rng.standard_normal(60))
    searched = good[:, None] + 3e-5 * rng.standard_normal((60, 40))
    worthless = 1e-4 * rng.standard_normal((60, 3))
    performance = np.concatenate([searched, worthless, np.zeros((60, 2))], axis=1)

    found = choosing(performance)

    assert ideas(performance).shape == (60, 4)
    assert found.n_trials == 4
    assert found.probability < 0.05
    assert found.loss < 0.05


def test_choosing_among_nothing_is_overfitting() -> None:
    """One worthless strategy, or ten: the best of one half is in the other half no better than not trading."""
    alone, among = [], []
    for seed in range(5):
        rng = np.random.Generator(np.random.Philox(seed))
        returns = 1e-4 * rng.standard_normal((64, 10))
        alone.append(choosing(returns[:, :1]).probability)
        among.append(choosing(returns).probability)

    assert 0.2 < np.mean(alone) < 0.9
    assert 0.2 < np.mean(among) < 0.9
    assert math.isnan(choosing(np.zeros((10, 1))).probability)


# ------------------------------------------------------------------------------------------------------- tables


def test_a_verdict_is_told_three_ways() -> None:
    """Text for a terminal, Markdown for Dagster, JSON for programs: the same criteria, and no NaN in JSON."""
    verdict = judge(with_("scored", ic_unseen=RankIC(math.nan, math.nan, 0)), "bitget")

    text, page, told = tables.as_text(verdict, colours=False), tables.as_markdown(verdict), tables.as_json(verdict)

    assert "NO   unseen symbols" in text
    assert "\x1b" not in text
    assert "\x1b[31mNO " in tables.as_text(verdict, colours=True)
    assert "| **no** | unseen symbols |" in page
    plain = msgspec.json.decode(told)
    assert plain["passed"] is False
    assert plain["reasons"] == list(verdict.reasons)
    assert [c["name"] for c in plain["criteria"] if c["value"] is None and not c["passed"]] == ["unseen symbols"]
