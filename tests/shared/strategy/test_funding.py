"""Which settlements are owed: who held at the full hour by the exchange's clock, until the bill or patience ends."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.strategy.funding import PATIENCE_NS, Funding
from shared.strategy.market import Market
from shared.strategy.portfolio import Portfolio
from shared.types import NS, Cause, Filled, FundingPaid, Position, QueryAccount, Side, StopRequested, Universe
from tests.shared.strategy.made import AT, START_S, D, Script, account_queries, columns, contract, notes, places, scores

EIGHT_S = START_S // 28_800 * 28_800  # a full hour at which every interval ends
SYMBOL = "AAAUSDT"


class Bench:
    """A ledger and its settlements; times are seconds from the full hour T, by whoever's clock is named."""

    def __init__(self, interval_h: int = 8, rate: float = 1e-4, settled_s: int = EIGHT_S) -> None:
        universe = Universe(source="x", as_of_ns=0, contracts=(contract(SYMBOL, funding_interval_h=interval_h),))
        self.portfolio, market = Portfolio(), Market(universe)
        self.settled_ns = settled_s * NS
        block = columns(1)
        block[AT["funding_rate"]] = rate
        market.take(settled_s - 2, block)
        self.funding = Funding(universe, self.portfolio, market)
        self.portfolio.adopt(D(1000), (), 0, 0)
        self.at(-60.0)
        self._n = 0

    def ns(self, at_s: float) -> int:
        return self.settled_ns + round(at_s * 1e3) * 1_000_000

    def at(self, at_s: float) -> None:
        self.funding.pass_time(self.ns(at_s))

    def fill(self, side: Side, at_s: float, heard_s: float, size: Decimal = D(1)) -> None:  # noqa: B008 - immutable
        self._n += 1
        self.at(heard_s)
        fill = Filled(
            recv_ns=self.ns(heard_s), client_oid="", order_id="o", trade_id=str(self._n), symbol=SYMBOL, side=side,
            price=D(10), size=size, fee_usdt=D(0), is_maker=False, exch_ns=self.ns(at_s),
        )  # fmt: skip
        self.funding.before_fill(fill)
        self.portfolio.fill(fill, cause=Cause.ENTRY, second=0, quote=None, mark=None)
        self.funding.after_fill(fill)

    def bill(self, at_s: float = 0.0, name: str = "1") -> bool:
        return self.funding.take(
            FundingPaid(recv_ns=self.ns(5.0), symbol=SYMBOL, amount_usdt=D(1), bill_id=name, exch_ns=self.ns(at_s))
        )


@given(
    st.lists(st.tuples(st.floats(-3.0, 3.0), st.sampled_from(list(Side))), max_size=8), st.floats(-2.0, 2.0),
    st.floats(0.0, 0.9),
)  # fmt: skip
def test_who_held_at_the_hour_of_the_exchange_is_owed(
    fills: list[tuple[float, Side]], skew_s: float, late_s: float
) -> None:
    """Whatever our clock and the way of the fills make of it: owed is exactly who held at T by the exchange's stamps."""
    bench, held = Bench(), 0
    for at_s, side in sorted(fills):
        bench.fill(side, at_s, at_s + skew_s + late_s)
        held += side.sign if bench.ns(at_s) < bench.settled_ns else 0
    bench.at(10.0)

    assert bench.funding.is_owed == (held != 0)


@pytest.mark.parametrize(("interval_h", "hour", "is_due"), [(1, 3, True), (4, 3, False), (4, 4, True), (8, 4, False)])
def test_each_contract_settles_on_its_own_grid(interval_h: int, hour: int, is_due: bool) -> None:
    """Owed is at the full hours of the contract's own interval, on the UTC grid."""
    bench = Bench(interval_h, settled_s=EIGHT_S // 86_400 * 86_400 + hour * 3600)
    bench.fill(Side.BUY, -30.0, -30.0)
    bench.at(0.0)

    assert bench.funding.is_owed is is_due


def test_market_without_funding_owes_nothing() -> None:
    """A recording knows no rate, and nothing is waited for."""
    bench = Bench(rate=math.nan)
    bench.fill(Side.BUY, -30.0, -30.0)
    bench.at(0.0)

    assert not bench.funding.is_owed


def test_bill_ends_the_waiting_once_and_an_old_one_does_not() -> None:
    """A bill of the settlement before does not count for this one, and no bill counts twice."""
    bench = Bench()
    bench.fill(Side.BUY, -30.0, -30.0)
    bench.at(0.0)

    told = [
        (bench.bill(at_s, name), bench.funding.is_owed) for at_s, name in ((-3600.0, "old"), (0.2, "1"), (0.2, "1"))
    ]

    assert told == [(True, True), (True, False), (False, False)]


def test_fill_that_is_found_after_its_bill_owes_nothing() -> None:
    """A lost fill from before the hour, recovered when its position's funding is already booked, is paid for."""
    bench = Bench()
    bench.at(0.0)
    bench.bill(0.0)

    bench.fill(Side.BUY, -5.0, 20.0)

    assert not bench.funding.is_owed


def test_questions_become_rare_and_end() -> None:
    """Asked a second after the hour, every two seconds for ten, every ten for a minute, then given up and named."""
    bench = Bench()
    bench.fill(Side.BUY, -30.0, -30.0)
    bench.at(0.0)
    asked, lost = [], []
    for second in range(80):
        lost += bench.funding.give_up(bench.ns(second))
        if bench.funding.is_question_due(bench.ns(second)):
            asked.append(second)

    assert asked == [1, 3, 5, 7, 9, 19, 29, 39, 49, 59]
    assert lost == [SYMBOL]
    assert asked[-1] * NS < PATIENCE_NS


# ------------------------------------------------------------------------------------------------ in the engine


def script_before_the_hour() -> Script:
    """Return a script with a position, three seconds before a full hour at which it settles."""
    script = Script(1, is_adopted=False)
    script.second = EIGHT_S - 4
    script.now_ns = script.second * NS
    script.adopt()
    script.links(True)
    script.open_position()
    return script


def paid(script: Script, amount: str, name: str = "1", at_s: float = 0.0) -> None:
    at_ns = EIGHT_S * NS + round(at_s * NS)
    script.tell(
        FundingPaid(recv_ns=script.wait(), symbol=script.symbols[0], amount_usdt=D(amount), bill_id=name, exch_ns=at_ns)
    )


def test_account_is_asked_after_the_hour_and_the_bill_is_booked_once() -> None:
    """The first whole second after the hour asks for the account; the bill moves equity and its trade, once."""
    script = script_before_the_hour()
    before = account_queries(script.pass_seconds(4 - 1))  # up to the second that closes at the hour
    [asked] = account_queries(script.close_second())
    equity = script.engine.portfolio.equity_usdt

    for _ in range(2):
        paid(script, "-0.25")

    assert before == []
    assert isinstance(asked, QueryAccount)
    assert asked.reason == "funding was settled"
    assert script.engine.portfolio.equity_usdt == equity - D("0.25")
    assert len(notes(script.log, "funding.paid")) == 1
    [leave] = places(script.pass_seconds(9))
    script.complete(leave)
    assert script.engine.trades[0].funding_usdt == D("-0.25")


def test_stop_across_the_hour_waits_for_the_bill_and_adjusts_nothing() -> None:
    """Flat and owed is not quiet: equity that already holds the funding is not taken for an error of the ledger."""
    script = script_before_the_hour()
    script.pass_seconds(4)
    [leave] = places(script.tell(StopRequested(recv_ns=script.wait(), reason="test")))
    script.complete(leave)
    theirs = script.engine.portfolio.equity_usdt - D("0.25")
    for _ in range(4):
        script.close_second()
        script.adopt(theirs)
    was_quiet = script.engine.is_flat_and_quiet

    paid(script, "-0.25")
    script.adopt(theirs)

    assert not was_quiet
    assert script.engine.is_flat_and_quiet
    assert script.engine.portfolio.equity_usdt == theirs
    assert script.engine.portfolio.adjustments_usdt == 0


def test_bill_that_never_comes_ends_in_an_adjustment() -> None:
    """After a minute the ledger takes over what the exchange says, aloud, and the session may end."""
    script = script_before_the_hour()
    script.pass_seconds(4)
    [leave] = places(script.tell(StopRequested(recv_ns=script.wait(), reason="test")))
    script.complete(leave)
    theirs = script.engine.portfolio.equity_usdt - D("0.25")
    for _ in range(70):
        if account_queries(script.close_second(scores([0]))):
            script.adopt(theirs)

    assert [note.fields["symbols"] for note in notes(script.log, "funding.missed")] == [SYMBOL]
    assert script.engine.portfolio.adjustments_usdt == D("-0.25")
    assert script.engine.is_flat_and_quiet


def test_funding_from_before_the_adoption_is_in_the_equity_that_we_began_with() -> None:
    """A bill that is older than our first reading of the account changes nothing."""
    script = script_before_the_hour()
    equity = script.engine.portfolio.equity_usdt

    paid(script, "-7", at_s=-10.0)

    assert script.engine.portfolio.equity_usdt == equity


def test_a_position_adopted_just_before_a_full_hour_is_asked_about() -> None:
    """No second has been seen when the hour strikes, so nobody knows whether the market has funding: it is asked for."""
    script = Script(1, is_adopted=False)
    script.second, script.now_ns = EIGHT_S - 1, EIGHT_S * NS - NS // 2
    script.adopt("1000", (Position(symbol=SYMBOL, size=D(1), entry_price=D(100)),))
    script.links(True)

    script.close_second()

    assert script.engine.funding.is_owed
