"""Staying and leaving: renewal, decay, the buffer against churn, and one cause for each exit."""

from __future__ import annotations

import numpy as np
import pytest

from shared.strategy.engine import EngineConfig
from shared.strategy.scores import Scores
from shared.types import Cause, PlaceOrder
from tests.shared.strategy.made import AT, START_S, Fixed, Script, columns, places, scores


def config(**changes: object) -> EngineConfig:
    fields: dict[str, object] = {"cooldown_s": 0, "horizon_s": 5, "side_band": 1.0, "beta_band": 10.0}
    return EngineConfig(**{**fields, **changes})  # type: ignore[arg-type]


def edges(*bps: float) -> Scores:
    """Return sure scores with a signed edge per symbol, bps."""
    said = scores([int(np.sign(edge)) for edge in bps])
    return Scores(
        said.p_long, said.p_short, said.p_flat, np.array(bps, float), said.direction, said.confidence, said.is_valid
    )


def held(script: Script, *bps: float) -> list[PlaceOrder]:
    """Enter by these edges and return the entries, filled."""
    placed = places(script.close_second(edges(*bps)))
    for order in placed:
        script.complete(order)
    return placed


def leaves(script: Script, *bps: float, seconds: int) -> list[tuple[int, Cause]]:
    """Close seconds with these edges; return when something was left and why, completing it."""
    found = []
    for t in range(seconds):
        for order in places(script.close_second(edges(*bps))):
            if order.reduce_only:
                found.append((t, order.cause))
                script.complete(order)
    return found


@pytest.mark.parametrize("sign", [1, -1])
def test_edge_that_pays_for_staying_renews(sign: int) -> None:
    """An edge far below the round trip's 18 bps opens nothing, and is reason enough to keep what is open."""
    script = Script(1, config())
    assert not held(script, 3.0 * sign)
    held(script, 40.0 * sign)

    assert not leaves(script, 3.0 * sign, seconds=18)


def test_nothing_is_renewed_for_ever() -> None:
    """`horizons_max` horizons in a row, then the position is left whatever the scores say."""
    script = Script(1, config(horizons_max=3))
    held(script, 40.0)

    assert leaves(script, 40.0, seconds=16)[:1] == [(14, Cause.HORIZON)]


def test_one_horizon_at_most_renews_nothing() -> None:
    """With `horizons_max` = 1 every position is left when its horizon ends."""
    script = Script(1, config(horizons_max=1))
    held(script, 40.0)

    assert leaves(script, 40.0, seconds=6)[:1] == [(4, Cause.HORIZON)]


def test_no_opinion_does_not_renew_and_does_not_decay() -> None:
    """An edge of nothing pays for nothing: the position is held to its horizon and no longer."""
    script = Script(1, config(decay_decisions=1))
    held(script, 40.0)

    assert leaves(script, 0.0, seconds=6) == [(4, Cause.HORIZON)]


def test_score_that_is_gone_decays_after_some_decisions_in_a_row() -> None:
    """Two bad decisions, a good one, three bad ones: the third in a row ends it."""
    script = Script(1, config(horizon_s=60, decay_decisions=3))
    held(script, 40.0)

    assert not leaves(script, -1.0, seconds=2)
    assert not leaves(script, 1.0, seconds=1)
    assert leaves(script, -1.0, seconds=5) == [(2, Cause.DECAY)]


def test_staying_can_be_asked_to_earn_more() -> None:
    """`stay_edge_bps` lies between staying and leaving, in both directions of time."""
    script = Script(1, config(horizon_s=60, decay_decisions=1, stay_edge_bps=5.0))
    held(script, 40.0)

    assert not leaves(script, 6.0, seconds=3)
    assert leaves(script, 4.0, seconds=3) == [(0, Cause.DECAY)]


def test_decay_can_be_switched_off() -> None:
    """With `decay_decisions` = 0 an edge that is gone waits for the horizon."""
    script = Script(1, config(horizon_s=8, decay_decisions=0))
    held(script, 40.0)

    assert leaves(script, -10.0, seconds=10) == [(7, Cause.HORIZON)]


def test_funding_that_falls_due_is_a_cost_of_staying_and_of_entering() -> None:
    """10 bps are paid by a long in some seconds: its edge of 8 decays, and 25 do not pay 18 + 10; a short is paid."""
    script = Script(1, config(horizon_s=600, decay_decisions=1))
    script.second = START_S // 28_800 * 28_800 + 28_800 - 300
    script.now_ns = script.second * 1_000_000_000
    script.market = columns(1)
    held(script, 40.0)
    assert not leaves(script, 8.0, seconds=3)

    script.market[AT["funding_rate"]] = 0.0010
    assert leaves(script, 8.0, seconds=1) == [(0, Cause.DECAY)]
    assert not places(script.close_second(edges(25.0)))
    assert script.reasons == ["net_edge"]
    assert places(script.close_second(edges(-10.0)))


def test_holder_is_displaced_only_by_enough_that_are_better_by_the_margin() -> None:
    """top_k 2, buffer 0.5: of its side's three best a holder may be the third, where better means by the margin."""
    script = Script(6, config(top_k=2, rank_buffer=0.5, newcomer_margin_bps=2.0, horizon_s=3))
    first = held(script, 40.0, 39.0, 0.0, 0.0, 0.0, 0.0)
    assert [order.symbol for order in first] == list(script.symbols[:2])

    # Newcomers net 18 bps: 28 is worth 10. Holders are worth what they are expected to move.
    kept = edges(9.0, 12.0, 28.0, 28.0, 28.0, 28.0)  # better, though not by the margin
    for _ in range(7):
        assert not [o for o in places(script.close_second(kept)) if o.reduce_only]

    beaten = edges(7.0, 12.0, 28.0, 28.0, 0.0, 0.0)  # the first is the fourth of its side
    left = [o for _ in range(3) for o in places(script.close_second(beaten)) if o.reduce_only]
    assert [(o.symbol, o.cause) for o in left] == [(script.symbols[0], Cause.HORIZON)]


def test_null_scorer_is_neither_renewed_nor_decays() -> None:
    """A coin says nothing about staying: it holds for its horizon, as the null of every report assumes."""
    script = Script(1, config(decay_decisions=1), scorer=Fixed(is_null=True))
    held(script, 40.0)

    assert leaves(script, 40.0, seconds=6)[:1] == [(4, Cause.HORIZON)]


def test_missing_score_is_no_reason_to_decay_and_none_to_stay() -> None:
    """NaN is no opinion: the position is held to its horizon."""
    script = Script(1, config(decay_decisions=1))
    held(script, 40.0)
    said = edges(40.0)
    blind = Scores(
        said.p_long, said.p_short, said.p_flat, said.edge_bps * np.nan, said.direction, said.confidence, ~said.is_valid
    )

    causes = [[o.cause for o in places(script.close_second(blind))] for _ in range(5)]

    assert causes == [[], [], [], [], [Cause.HORIZON]]


def test_turnover_makes_the_next_entry_dearer_for_a_minute() -> None:
    """Each entry of the last minute takes its penalty off the net edge, and the reason has a name."""
    script = Script(1, config(turnover_penalty_bps=2.0, horizons_max=1, horizon_s=1))
    net_three = 18.0 + 3.0
    n_entries = 0
    for _ in range(20):
        for order in places(script.close_second(edges(net_three))):
            n_entries += not order.reduce_only
            script.complete(order)

    assert n_entries == 2  # 3 bps, then 1 bps, then -1
    assert script.reasons == ["turnover"]
    script.pass_seconds(60)
    assert places(script.close_second(edges(net_three)))
