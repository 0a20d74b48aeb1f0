"""What random runs have found, each made as small as it goes."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import numpy as np
import pytest

from shared.features.sampler import COLUMNS
from shared.strategy.config import EngineConfig
from shared.types import NS, OrderKind, Universe
from tests.fuzz.draws import AT, LEVELS, MadeMarket, Ways
from tests.fuzz.drives import Case, lived, screen_of
from tests.shared.strategy.made import columns, contract, scores

CALM = Ways(
    n_symbols=1, seconds=60, begin_s=1_760_000_000, sigma_bps=0.0, jump=0.0, jump_bps=0.0, hole=0.0, hole_s=0,
    one_sided=0.0, crossed=0.0, no_mark=0.0, is_rate_known=True, spread_ticks_max=1, trades=0.0,
)  # fmt: skip
TRADING = EngineConfig(depth_usdt_min=0.0, position_risk_bps=100.0, kelly_share=1.0, side_band=1.0, beta_band=1.0)


def case(config: EngineConfig = TRADING, *, seconds: int = 60, direction: int = 1, **rules: object) -> Case:
    """Return a calm market of one symbol, whose scores never change their mind."""
    listed = Universe(source="simulator-made", as_of_ns=0, contracts=(contract("AAAUSDT", **rules),))
    values = np.stack([columns(1)] * seconds, axis=1)
    assert values.shape == (len(COLUMNS), seconds, 1)
    said = scores([direction])
    always = type(said)(*(np.repeat(getattr(said, name)[None], seconds, axis=0) for name in said.__struct_fields__))
    ways = msgspec.structs.replace(CALM, seconds=seconds)
    return Case(config, MadeMarket(ways, listed, values), always, Decimal(10_000), False, 1)


def without_books(made: Case, begin: int, end: int) -> None:
    """Make a hole into a market: nothing was heard of it from one row to another."""
    made.market.values[:, begin:end] = np.nan
    for name in ("book_updates", "ticker_updates"):
        made.market.values[AT[name], begin:end] = 0.0


def test_what_is_held_where_the_last_books_are_missing_is_closed_at_the_last_one_there_was() -> None:
    """A symbol that falls silent half a minute before the end (a hole, a delisting) does not fail the whole window."""
    made = case(msgspec.structs.replace(TRADING, horizon_s=20, decay_decisions=0))
    without_books(made, 30, 60)

    found = lived(made, screen_of(made))

    assert found.outcome is not None, found.refusal
    assert [trade.exit_ns > (CALM.begin_s + 60) * NS for trade in found.outcome.trades[-1:]] == [True]
    assert float(found.outcome.trades[-1].exit_price) == made.market.values[AT["bid_price_1"], 29, 0]


def test_exit_in_a_crossed_book_has_paid_no_negative_spread() -> None:
    """A bid above the ask for a second is no spread that an exit earns: the half spread is never below zero."""
    made = case(msgspec.structs.replace(TRADING, horizon_s=5, horizons_max=1))
    for k in range(1, LEVELS + 1):
        for what in ("price", "size"):
            bid, ask = AT[f"bid_{what}_{k}"], AT[f"ask_{what}_{k}"]
            made.market.values[[bid, ask], 5:] = made.market.values[[ask, bid], 5:]

    found = lived(made, screen_of(made))

    assert found.outcome is not None, found.refusal
    (trade,) = found.outcome.trades
    assert trade.entry_spread_usdt > 0
    assert trade.exit_spread_usdt == 0


def test_position_without_a_mark_is_worth_the_mid_to_both_sides() -> None:
    """A ticker that falls silent while the book goes on: the venue does not value, stop or liquidate by an old mark."""
    made = case(msgspec.structs.replace(TRADING, horizon_s=50, decay_decisions=0, stop_grace_s=30))
    made.market.values[AT["mark"], 10:] = np.nan
    for t in range(10, 60):  # down by 2 %: the stop lies one per cent away
        for name in (f"{side}_price_{k}" for side in ("bid", "ask") for k in range(1, LEVELS + 1)):
            made.market.values[AT[name], t] = round(made.market.values.item(AT[name], 9, 0) - 0.2 * min(t - 9, 10), 2)

    found = lived(made, screen_of(made))

    assert found.outcome is not None, found.refusal
    assert [str(trade.exit_cause) for trade in found.outcome.trades[:1]] == ["stop"]
    assert float(found.outcome.trades[0].exit_price) == pytest.approx(98.9, abs=0.25)


@pytest.mark.parametrize("is_null", [True, False])
def test_who_has_no_opinion_enters_nowhere(is_null: bool) -> None:
    """No direction was a short for a null, and for a score where a maker's rebate pays for the round trip."""
    rebates = msgspec.structs.replace(
        TRADING, entry_kind=OrderKind.POST_ONLY, slippage_bps=0.0, confidence_min=0.0, confidence_margin_min=0.0
    )
    made = case(rebates, direction=0, maker_fee=Decimal("-0.001"), taker_fee=Decimal("0.0002"))
    torn = msgspec.structs.replace(made.scores, p_long=made.scores.p_long + 0.4, p_short=made.scores.p_short + 0.4)
    torn = msgspec.structs.replace(torn, p_flat=torn.p_flat * 0.0, confidence=torn.p_long)
    made = msgspec.structs.replace(made, scores=torn, is_null=is_null)

    found = lived(made, screen_of(made))

    assert found.outcome is not None, found.refusal
    assert found.outcome.orders == 0
