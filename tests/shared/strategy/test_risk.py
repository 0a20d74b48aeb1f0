"""Limits that no sequence of events gets past, latched by arithmetic on our own clock."""

from __future__ import annotations

from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shared.strategy.config import EngineConfig
from shared.strategy.ranking import Gate
from shared.strategy.risk import DAY_NS, Approved, Exposure, Latch, Risk, RiskState
from shared.strategy.sizing import Refusal
from shared.types import NS, Cause, OrderKind, PlaceOrder, Side
from tests.shared.strategy.made import D

ONE = D(1)


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


@given(st.lists(st.tuples(st.integers(0, NS), st.integers(1, 400), st.integers(0, 30_000)), max_size=60))
def test_no_approved_entry_passes_a_limit(asked: list[tuple[int, int, int]]) -> None:
    """Whatever is asked in whatever order: gross, symbol share and placements per second are kept by what is approved."""
    config = EngineConfig()
    risk, now_ns, per_second = Risk(config), 0, dict[int, int]()
    risk.look(0, D(10_000))
    for wait_ns, size, gross in asked:
        now_ns += wait_ns
        verdict = risk.approve_entry(
            order(D(size)),
            now_ns,
            price=D(100),
            leverage=3,
            exposure=Exposure(equity_usdt=D(10_000), gross_usdt=D(gross), symbol_usdt=D(0)),
        )
        if isinstance(verdict, Approved):
            per_second[now_ns // NS] = per_second.get(now_ns // NS, 0) + 1
            assert gross + size * 100 <= 15_000
            assert size * 100 <= 15_000 / 4
        else:
            assert verdict.reason
    assert max(per_second.values(), default=0) <= config.orders_per_second_max


def test_nothing_is_approved_before_equity_was_seen_or_while_latched() -> None:
    """No equity, no order; latched, no order; exits pass in both cases."""
    risk = Risk(EngineConfig())
    empty = Exposure(equity_usdt=D(10_000), gross_usdt=D(0), symbol_usdt=D(0))

    def gate() -> Gate | None:
        verdict = risk.approve_entry(order(), 0, price=D(1), leverage=5, exposure=empty)
        return verdict.gate if isinstance(verdict, Refusal) else None

    assert gate() is Gate.NOT_ADOPTED
    risk.look(0, D(10_000))
    assert gate() is None
    assert risk.look(1, D(8_000)) is Latch.DRAWDOWN
    assert risk.look(2, D(8_000)) is None
    assert gate() is Gate.RISK_LATCHED
    assert isinstance(risk.approve_exit(order(is_exit=True), 0), Approved)


def test_refusals_latch_only_when_they_come_in_a_storm() -> None:
    """Thirty refusals spread over an hour are a bad day; thirty-one within a minute are a fault."""
    config = EngineConfig(refusals_per_minute_max=30)
    calm, storm = Risk(config), Risk(config)
    calm.look(0, D(1)), storm.look(0, D(1))

    assert not any(calm.note_refusal(k * 60 * NS) for k in range(60))
    assert [k for k in range(31) if storm.note_refusal(k * NS)] == [30]
    assert storm.latch is Latch.REFUSALS
