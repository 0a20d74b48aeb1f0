"""Limits that no sequence of events gets past, latched by arithmetic on our own clock."""

from __future__ import annotations

import math
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.strategy.config import EngineConfig
from shared.strategy.exact import exactly
from shared.strategy.exposure import Exposure
from shared.strategy.ranking import Gate
from shared.strategy.risk import DAY_NS, Approved, Conditions, Latch, Risk, RiskState
from shared.types import NS, Cause, ClockRead, Filled, OrderKind, PlaceOrder, Side
from tests.shared.strategy.made import D, Script, notes, places, scores, universe

ONE, NEAR_STOP = D(1), D(99)


def order(size: Decimal = ONE, *, is_exit: bool = False) -> PlaceOrder:
    return PlaceOrder(
        client_oid="a", symbol="AAAUSDT", side=Side.BUY, kind=OrderKind.MARKET, size=size, price=None,
        reduce_only=is_exit, stop_price=None, cause=Cause.HORIZON if is_exit else Cause.ENTRY,
    )  # fmt: skip


LOOKS = st.lists(st.tuples(st.integers(0, DAY_NS), st.integers(1, 20_000)), max_size=40)


@given(LOOKS)
def test_latches_are_what_the_definition_says(looks: list[tuple[int, int]]) -> None:
    """Drawdown from the peak latches for good; a loss of the day's first equity latches until the next UTC day."""
    risk = Risk(EngineConfig(daily_loss_limit=0.10, drawdown_max=0.15))
    now_ns, day, first, peak, latch = 0, -1, D(0), D(0), None
    for wait_ns, amount in looks:
        now_ns += wait_ns
        equity = D(amount)
        if now_ns // DAY_NS != day:
            day, first = now_ns // DAY_NS, equity
            latch = None if latch is Latch.DAILY_LOSS else latch
        peak = max(peak, equity)
        if latch is None and equity <= peak * D("0.85"):
            latch = Latch.DRAWDOWN
        elif latch is None and equity <= first * D("0.90"):
            latch = Latch.DAILY_LOSS

        risk.look(now_ns, equity)

        assert risk.latch is latch


@given(LOOKS, LOOKS)
def test_a_restart_is_no_way_around_a_limit(before: list[tuple[int, int]], after: list[tuple[int, int]]) -> None:
    """Risk rebuilt from its journaled state latches exactly when the old one would have."""
    config = EngineConfig()
    risk, now_ns = Risk(config), 0
    for wait_ns, equity in before:
        now_ns += wait_ns
        risk.look(now_ns, D(equity))
    stored = msgspec.json.decode(msgspec.json.encode(risk.state()), type=RiskState | None)
    again = Risk(config, stored)
    for wait_ns, equity in after:
        now_ns += wait_ns
        assert again.look(now_ns, D(equity)) == risk.look(now_ns, D(equity))
    assert again.state() == risk.state()


FINE = Conditions(
    is_linked=True, lag_ns=0, unknown_orders=0, silence_s=0, spread_bps=2.0, depth_usdt=50_000.0,
    half_spread=D("0.01"), tick=D("0.01"),
)  # fmt: skip
EMPTY = Exposure(
    equity_usdt=D(10_000), gross_usdt=D(0), margin_usdt=D(0), symbol_usdt=D(0), net_usdt=D(0), cluster_usdt=D(0)
)


def opened(config: EngineConfig | None = None) -> Risk:
    """Return a risk that has seen an equity of 10 000."""
    risk = Risk(config if config is not None else EngineConfig())
    risk.look(0, D(10_000))
    return risk


@exactly
def ask(
    risk: Risk, conditions: Conditions = FINE, exposure: Exposure = EMPTY, *, size: Decimal = ONE, now_ns: int = 0,
    stop: Decimal | None = NEAR_STOP, side: Side = Side.BUY, leverage: int = 5,
) -> Gate | None:  # fmt: skip
    """Return the gate that refuses an entry at 100, None where it passes."""
    asked = msgspec.structs.replace(order(size), stop_price=stop, side=side)
    verdict = risk.approve_entry(
        asked, now_ns, price=D(100), leverage=leverage, exposure=exposure, conditions=conditions
    )
    if isinstance(verdict, Approved):
        assert verdict.order is asked
        return None
    assert verdict.reason
    return verdict.gate


@given(st.lists(st.tuples(st.integers(0, NS), st.integers(1, 400), st.integers(0, 30_000)), max_size=60))
def test_no_approved_entry_passes_a_limit(asked: list[tuple[int, int, int]]) -> None:
    """Whatever is asked in whatever order: gross, symbol share and placements per second are kept by what is approved."""
    risk, now_ns, per_second = opened(), 0, dict[int, int]()
    for wait_ns, size, gross in asked:
        now_ns += wait_ns
        exposure = msgspec.structs.replace(EMPTY, gross_usdt=D(gross))
        if ask(risk, exposure=exposure, size=D(size), now_ns=now_ns, leverage=3) is None:
            per_second[now_ns // NS] = per_second.get(now_ns // NS, 0) + 1
            assert gross + size * 100 <= 15_000
            assert size * 100 <= 15_000 / 4
    assert max(per_second.values(), default=0) <= EngineConfig().orders_per_second_max


@pytest.mark.parametrize(
    ("changes", "gate"),
    [
        ({}, None),
        ({"is_linked": False}, Gate.LINK_DOWN),
        ({"lag_ns": 5 * NS}, None),
        ({"lag_ns": 5 * NS + 1}, Gate.LATE),
        ({"unknown_orders": 2}, None),
        ({"unknown_orders": 3}, Gate.UNKNOWN_ORDERS),
        ({"silence_s": 5}, None),
        ({"silence_s": 6}, Gate.STALE_BOOK),
        ({"spread_bps": 20.0}, None),
        ({"spread_bps": 20.01}, Gate.SPREAD),
        ({"spread_bps": math.nan}, Gate.SPREAD),
        ({"depth_usdt": 5000.0}, None),
        ({"depth_usdt": 4999.0}, Gate.DEPTH),
        ({"depth_usdt": math.nan}, Gate.DEPTH),
        ({"half_spread": D("0.5")}, Gate.SPREAD),  # the stop is 1 away, spread and tick are 1.01
        ({"tick": D("0.98")}, Gate.SPREAD),  # the stop is 1 away, spread and tick are 1.00
        ({"tick": D("0.97")}, None),
    ],
)
def test_risk_looks_at_the_world_itself(changes: dict[str, object], gate: Gate | None) -> None:
    """Each bound passes at its value and refuses beyond it, and what is not a number never passes, whatever the gates of
    the strategy have said before."""
    assert ask(opened(), msgspec.structs.replace(FINE, **changes)) is gate


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        # Gross may be 10 000 x 5 x 0.5 = 25 000; the order is worth 100 x size.
        ({"gross_usdt": D(20_000)}, 50),
        ({"symbol_usdt": D(2_000)}, D("42.5")),  # a quarter of gross is 6 250
        ({"margin_usdt": D("4_200")}, 40),  # half of equity is 5 000, a size of 40 needs 800 at 5x
        ({"net_usdt": D(8_000)}, 20),  # 0.4 of gross is 10 000
        ({"net_usdt": D(-3_000), "cluster_usdt": D(4_000)}, 35),  # 0.3 of gross is 7 500
        ({"cluster_usdt": D(-7_500)}, D("62.5")),  # hedges its cluster: the symbol's share holds
    ],
)
def test_each_limit_passes_at_its_value_and_not_beyond(changes: dict[str, Decimal], most: Decimal) -> None:
    """By hand, at 10 000 of equity and 5x: the largest size that still passes, and a hundredth more that does not."""
    exposure = msgspec.structs.replace(EMPTY, **changes)

    assert ask(opened(), exposure=exposure, size=D(most)) is None
    refused = ask(opened(), exposure=exposure, size=D(most) + D("0.01"))
    assert refused in (Gate.EXPOSURE, Gate.MARGIN_USE, Gate.NET, Gate.CLUSTER)


def test_a_symbol_of_less_leverage_takes_more_margin() -> None:
    """At 1x, 3 000 USDT are 3 000 of margin: beside 2 100 of others they are more than half of 10 000."""
    others = msgspec.structs.replace(EMPTY, margin_usdt=D(2_100), gross_usdt=D(10))

    assert ask(opened(EngineConfig(symbol_share_max=1.0, net_share_max=1.0, cluster_share_max=1.0)),
               exposure=others, size=D(30), leverage=1) is Gate.MARGIN_USE  # fmt: skip


def test_an_order_that_nobody_can_value_lets_nothing_in_beside_it() -> None:
    """A stranger's market order in a symbol without a price could be anything."""
    assert ask(opened(), exposure=msgspec.structs.replace(EMPTY, unpriced="XUSDT")) is Gate.EXPOSURE


@pytest.mark.parametrize(("side", "stop"), [(Side.BUY, None), (Side.BUY, D(101)), (Side.SELL, D(99))])
def test_an_entry_without_a_stop_on_its_losing_side_is_refused(side: Side, stop: Decimal | None) -> None:
    """No stop, or one that the market has already passed, protects nothing."""
    assert ask(opened(), side=side, stop=stop) is Gate.SPREAD


def test_nothing_is_approved_before_equity_was_seen_or_while_latched() -> None:
    """No equity, no order; latched, no order; exits pass in both cases."""
    risk = Risk(EngineConfig())

    assert ask(risk) is Gate.NOT_ADOPTED
    risk.look(0, D(10_000))
    assert ask(risk) is None
    assert risk.look(1, D(8_000)) is Latch.DRAWDOWN
    assert risk.look(2, D(8_000)) is None
    assert ask(risk) is Gate.RISK_LATCHED
    assert isinstance(risk.approve_exit(order(is_exit=True), 0), Approved)


def test_clocks_that_differ_let_nothing_in_until_a_reading_says_otherwise() -> None:
    """A reading beyond two seconds either way refuses; so does a stamp from our future; one from our past may be delay."""
    risk = opened()
    risk.heard(exch_ns=0, recv_ns=30 * NS)
    assert not risk.is_clock_off
    for offset_ns, is_off in ((-2 * NS, False), (2 * NS + 1, True), (-2 * NS - 1, True), (2 * NS, False)):
        risk.read_clock(offset_ns)
        assert risk.is_clock_off is is_off
        assert ask(risk) is (Gate.CLOCK_SKEW if is_off else None)

    risk.heard(exch_ns=102 * NS + 1, recv_ns=100 * NS)
    assert ask(risk) is Gate.CLOCK_SKEW
    risk.heard(exch_ns=101 * NS, recv_ns=102 * NS)
    assert ask(risk) is Gate.CLOCK_SKEW
    risk.read_clock(0)
    assert ask(risk) is None


def test_a_restart_within_the_second_or_the_minute_forgets_neither_placements_nor_refusals() -> None:
    """Thirty refusals, a crash and one more are a storm; eight placements, a crash and one more are nine in a second."""
    risk = opened()
    for k in range(30):
        assert risk.note_refusal(k) is None
    for _ in range(EngineConfig().orders_per_second_max):
        assert ask(risk) is None
    again = Risk(EngineConfig(), msgspec.msgpack.decode(msgspec.msgpack.encode(risk.state()), type=RiskState))

    assert ask(again) is Gate.ORDER_RATE
    assert ask(again, now_ns=NS) is None
    assert again.note_refusal(31) is Latch.REFUSALS


def test_refusals_latch_only_when_they_come_in_a_storm() -> None:
    """Thirty refusals spread over an hour are a bad day; thirty-one within a minute are a fault."""
    config = EngineConfig(refusals_per_minute_max=30)
    calm, storm = Risk(config), Risk(config)
    calm.look(0, D(1)), storm.look(0, D(1))

    assert not any(calm.note_refusal(k * 60 * NS) for k in range(60))
    assert [k for k in range(31) if storm.note_refusal(k * NS)] == [30]
    assert storm.latch is Latch.REFUSALS


def test_the_engine_enters_nothing_while_the_clocks_differ() -> None:
    """A reading of three seconds names the gate and says so once; a fill that bears a stamp from our future, too."""
    script = Script(1)
    script.tell(ClockRead(recv_ns=script.wait(), offset_ns=-3 * NS))
    actions = script.close_second(scores([1]))

    assert not places(actions)
    assert script.reasons == ["clock_skew"]
    assert len(notes(script.log, "clock.judged")) == 1

    script.tell(ClockRead(recv_ns=script.wait(), offset_ns=0))
    [entry] = places(script.close_second(scores([1])))
    script.now_ns -= 3 * NS  # the next fill is heard three seconds before it happened
    script.accept(entry)
    script.engine.on_event(
        Filled(
            recv_ns=script.now_ns, client_oid=entry.client_oid, order_id="1", trade_id="1", symbol=entry.symbol,
            side=entry.side, price=D("100.01"), size=entry.size, fee_usdt=D(0), is_maker=False,
            exch_ns=script.now_ns + 3 * NS,
        )
    )  # fmt: skip
    script.now_ns += 3 * NS
    script.close_second()
    assert script.reasons == ["clock_skew"]
    assert script.engine.portfolio.size(entry.symbol) == entry.size


def test_a_refusal_is_told_with_its_arithmetic_once_a_minute() -> None:
    """An operator reads why nothing is traded, and is not flooded: one note a gate and minute."""
    script = Script(2, EngineConfig(cooldown_s=0), listed=universe(2, size_min=D(20)))
    for _ in range(61):
        script.close_second(scores([1, -1]))

    said = notes(script.log, "entry.refused")
    assert script.reasons == ["size", "size"]
    assert len(said) == 2
    assert str(said[0].fields["reason"]).startswith("the smallest order is 2000.00 USDT, ")
    assert "of equity would be enough" in str(said[0].fields["reason"])
