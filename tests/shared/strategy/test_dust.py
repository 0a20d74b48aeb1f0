"""What no order may close: foreseen or learnt, it leaves by the exchange's flash close, once, with the exit's cause."""

from __future__ import annotations

import itertools
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import journal
from shared.strategy.engine import EngineConfig
from shared.strategy.exits import FLASH_EVERY_NS, SIZE_CODES
from shared.strategy.orders import ABSENT_AFTER_NS
from shared.strategy.sizing import is_dust
from shared.types import (
    NS,
    Action,
    Cause,
    Filled,
    OrderAbsent,
    OrderAccepted,
    OrderKind,
    OrderRefused,
    OrderReported,
    OrderStatus,
    OrderTimedOut,
    PlaceOrder,
    Position,
    QueryOrder,
    Side,
    StopRequested,
)
from tests.shared.strategy.made import START_S, D, Script, contract, notes, places, queries, scores, universe

UP = scores([1], edge_bps=40.0)
HORIZON_S = 5


def script_of(n_symbols: int = 1, **changes: object) -> Script:
    """Return an engine that enters as a maker, on contracts whose smallest order is 1 (100 USDT)."""
    config = EngineConfig(
        entry_kind=OrderKind.POST_ONLY, entry_wait_s=2, cooldown_s=0, horizon_s=HORIZON_S, side_band=1.0, beta_band=10.0
    )
    return Script(n_symbols, config, listed=universe(n_symbols, **({"size_min": D(1)} | changes)))


def dusty(script: Script, size: str = "0.4") -> None:
    """Enter everywhere, fill a little of each order and cancel the rest."""
    for entry in places(script.close_second(scores([1] * len(script.symbols), edge_bps=40.0))):
        script.accept(entry)
        script.fill(entry, size=D(size))
        script.report(entry, OrderStatus.CANCELED, D(size))


def exits(script: Script, seconds: int = 1) -> list[PlaceOrder]:
    return [order for order in places(script.pass_seconds(seconds)) if order.reduce_only]


def closed_by_the_exchange(script: Script, order: PlaceOrder, *, answers_first: bool = True) -> list[Action]:
    """Play a flash close: everything bears the exchange's own name."""

    def answer() -> list[Action]:
        return script.tell(OrderAccepted(recv_ns=script.wait(), client_oid=order.client_oid, order_id="77"))

    told = answer() if answers_first else []
    told += script.tell(
        Filled(
            recv_ns=script.wait(), client_oid="1234567", order_id="77", trade_id="t77", symbol=order.symbol,
            side=order.side, price=D("99.99"), size=order.size, fee_usdt=D("0.01"), is_maker=False,
            exch_ns=script.now_ns,
        )
    )  # fmt: skip
    told += script.tell(
        OrderReported(
            recv_ns=script.wait(), client_oid="1234567", order_id="77", status=OrderStatus.FILLED, filled=order.size,
            reason="",
        )
    )  # fmt: skip
    return told if answers_first else told + answer()


@pytest.mark.parametrize("answers_first", [True, False])
def test_dust_of_an_entry_leaves_by_flash_close_with_its_own_cause(answers_first: bool) -> None:
    """A partial fill below the minimum is held to its horizon and flashed then; its fill bears the exchange's name and
    may overtake the answer, and is the exit's all the same."""
    script = script_of()
    dusty(script)

    [leaving] = exits(script, HORIZON_S + 2)
    assert (leaving.is_flash, leaving.size, leaving.cause, leaving.side) == (True, D("0.4"), Cause.HORIZON, Side.SELL)
    told = closed_by_the_exchange(script, leaving, answers_first=answers_first)

    [trade] = script.engine.trades
    assert (trade.entry_cause, trade.exit_cause) == (Cause.ENTRY, Cause.HORIZON)
    assert not notes(told, "fill.unexpected")
    assert not script.engine.orders.n_working
    assert not script.engine.portfolio.holdings


def test_what_an_order_may_close_is_closed_by_an_order() -> None:
    """At the minimum exactly, and worth the minimum, an exit is an ordinary order of ours."""
    script = script_of()
    dusty(script, "1")

    [leaving] = exits(script, HORIZON_S + 2)
    assert not leaving.is_flash


@given(
    size=st.decimals("0.001", "100", places=3),
    step=st.sampled_from(["0.001", "0.01", "0.1", "1"]),
    size_min=st.decimals("0.001", "50", places=3),
    price=st.none() | st.decimals("0.01", "1000", places=2),
)
def test_dust_is_what_a_rule_forbids(size: Decimal, step: str, size_min: Decimal, price: Decimal | None) -> None:
    """Too small, off the step, or worth too little: each alone, and nothing else, makes dust."""
    rules = contract(size_step=D(step), size_min=size_min, notional_min_usdt=D(5))
    fits = (size / D(step)) == (size / D(step)).to_integral_value()
    is_worth_it = price is None or size * price >= 5
    assert is_dust(rules, size, price) is not (size >= size_min and fits and is_worth_it)


def test_flash_closes_keep_the_exchanges_pace() -> None:
    """Bitget closes one position a second for us: six leave one after another, each once."""
    script = script_of(6)
    dusty(script)
    sent: list[tuple[int, str]] = []
    actions = script.tell(StopRequested(recv_ns=script.wait(), reason="test"))
    for _ in range(14):
        for order in places(actions):
            assert order.is_flash
            sent.append((script.now_ns, order.symbol))
            closed_by_the_exchange(script, order)
        actions = script.close_second()

    assert sorted(symbol for _, symbol in sent) == sorted(script.symbols)
    assert min(b - a for (a, _), (b, _) in itertools.pairwise(sent)) >= FLASH_EVERY_NS
    assert not script.engine.portfolio.holdings


@pytest.mark.parametrize("code", sorted(SIZE_CODES | {"45111"}))
def test_exit_refused_for_its_size_is_flashed_next_and_storms_nothing(code: str) -> None:
    """Rules that changed behind our back are learnt from the refusal: no latch, no back-off, one more second."""
    script = Script(1, EngineConfig(cooldown_s=0, horizon_s=HORIZON_S, refusals_per_minute_max=1))
    script.open_position()
    refused = 0
    while not (leaving := exits(script))[:1] or not leaving[0].is_flash:
        for order in leaving:
            refused += 1
            script.tell(OrderRefused(recv_ns=script.wait(), client_oid=order.client_oid, code=code, message="size"))
        assert script.second < START_S + 20

    assert refused == 1
    assert script.engine.risk.latch is None
    closed_by_the_exchange(script, leaving[0])
    assert script.engine.trades[0].exit_cause is Cause.HORIZON


def test_flash_close_that_is_refused_waits_and_goes_by_the_rules_again() -> None:
    """What was learnt may be wrong: after a refused flash close of what an order may close, an order is tried."""
    script = Script(1, EngineConfig(cooldown_s=0, horizon_s=HORIZON_S))
    script.open_position()
    kinds: list[bool] = []
    for _ in range(14):
        for order in exits(script):
            kinds.append(order.is_flash)
            code = "40015" if order.is_flash else "45111"
            script.tell(OrderRefused(recv_ns=script.wait(), client_oid=order.client_oid, code=code, message="no"))

    assert kinds[:4] == [False, True, False, True]
    assert len(kinds) < 10  # it backs off


def test_part_of_a_flash_close_is_asked_for_by_the_exchanges_name() -> None:
    """Half a book is half a close: our name says nothing there, and what is left is flashed again."""
    script = script_of()
    dusty(script)
    [leaving] = exits(script, HORIZON_S + 2)
    script.tell(OrderAccepted(recv_ns=script.wait(), client_oid=leaving.client_oid, order_id="77"))
    asked = queries(script.pass_seconds(4))
    assert asked[0] == QueryOrder(client_oid=leaving.client_oid, symbol=leaving.symbol, order_id="77")

    part = leaving.size / 2
    script.tell(
        Filled(
            recv_ns=script.wait(), client_oid="", order_id="77", trade_id="t1", symbol=leaving.symbol, side=leaving.side,
            price=D("99.99"), size=part, fee_usdt=D("0.01"), is_maker=False, exch_ns=script.now_ns,
        )
    )  # fmt: skip
    script.tell(
        OrderReported(
            recv_ns=script.wait(), client_oid="1234567", order_id="77", status=OrderStatus.CANCELED, filled=part,
            reason="",
        )
    )  # fmt: skip
    [again] = exits(script, 2)
    assert (again.is_flash, again.size) == (True, part)
    closed_by_the_exchange(script, again)
    assert not script.engine.portfolio.holdings


def test_flash_close_without_an_answer_is_never_doubled() -> None:
    """Unknown, it is asked about until it is proven absent, and only then sent again."""
    script = script_of()
    dusty(script)
    [leaving] = exits(script, HORIZON_S + 2)
    script.tell(OrderTimedOut(recv_ns=script.wait(), client_oid=leaving.client_oid))
    sent_ns = script.now_ns
    while script.now_ns - sent_ns < ABSENT_AFTER_NS - 2 * NS:
        actions = script.close_second()
        assert not places(actions)
        for query in queries(actions):
            assert query.order_id == ""
            script.tell(OrderAbsent(recv_ns=script.wait(), client_oid=query.client_oid))
    again: list[PlaceOrder] = []
    for _ in range(8):
        actions = script.close_second()
        again += places(actions)
        for query in queries(actions):
            script.tell(OrderAbsent(recv_ns=script.wait(), client_oid=query.client_oid))

    assert [order.is_flash for order in again] == [True]


def test_stop_that_fires_meanwhile_does_not_pass_for_the_answer() -> None:
    """A flash close without an answer may arrive for half a minute, also when the exchange's own stop has closed the
    position: until then nothing is entered, or the flash close would take it."""
    script = script_of()
    dusty(script)
    [leaving] = exits(script, HORIZON_S + 2)
    script.tell(OrderTimedOut(recv_ns=script.wait(), client_oid=leaving.client_oid))
    sent_ns = script.now_ns
    script.tell(
        Filled(
            recv_ns=script.wait(), client_oid="", order_id="5", trade_id="t5", symbol=leaving.symbol, side=leaving.side,
            price=D("99.5"), size=leaving.size, fee_usdt=D("0.01"), is_maker=False, exch_ns=script.now_ns,
        )
    )  # fmt: skip
    assert not script.engine.portfolio.holdings

    entered_ns = 0
    while not entered_ns and script.now_ns - sent_ns < 2 * ABSENT_AFTER_NS:
        actions = script.close_second(UP)
        if places(actions):
            entered_ns = script.now_ns
        for query in queries(actions):
            script.tell(OrderAbsent(recv_ns=script.wait(), client_oid=query.client_oid))
    assert entered_ns - sent_ns >= ABSENT_AFTER_NS - NS


def test_adopted_dust_is_left_by_flash_close() -> None:
    """A session that finds dust at its start leaves it at its horizon like everything else that it adopts."""
    script = Script(1, EngineConfig(horizon_s=HORIZON_S), listed=universe(1, size_min=D(1)), is_adopted=False)
    script.adopt(positions=(Position(symbol=script.symbols[0], size=D("-0.3"), entry_price=D(100)),))
    script.links(True)

    leaving = exits(script, HORIZON_S + 2)[0]
    assert (leaving.is_flash, leaving.side, leaving.size) == (True, Side.BUY, D("0.3"))


def test_rest_of_the_largest_order_is_flashed() -> None:
    """A position above the largest order leaves in parts; a last part below the minimum is the exchange's."""
    script = Script(
        1,
        EngineConfig(horizon_s=HORIZON_S),
        listed=universe(1, size_min=D(1), size_max_market=D(4)),
        is_adopted=False,
    )
    script.adopt(positions=(Position(symbol=script.symbols[0], size=D("4.5"), entry_price=D(100)),))
    script.links(True)

    whole = exits(script, HORIZON_S + 2)[0]
    assert (whole.is_flash, whole.size) == (False, D(4))
    script.complete(whole)
    [rest] = exits(script, 2)
    assert (rest.is_flash, rest.size) == (True, D("0.5"))


def test_rest_of_a_chase_below_the_minimum_is_not_sent() -> None:
    """A chase that has filled all but dust is over: the exchange would refuse the rest."""
    script = script_of()
    [entry] = places(script.close_second(UP))
    script.accept(entry)
    script.fill(entry, size=entry.size - D("0.5"))
    script.report(entry, OrderStatus.CANCELED, entry.size - D("0.5"))

    for _ in range(HORIZON_S - 2):
        assert not places(script.close_second(UP))
    assert script.engine.portfolio.size(entry.symbol) == entry.size - D("0.5")


def test_orders_of_ours_are_written_as_before() -> None:
    """The journal says of a flash close that it is one, and of anything else not a byte more than it always did."""
    script = script_of()
    [entry] = places(script.close_second(UP))
    query = QueryOrder(client_oid="a", symbol="AAAUSDT")
    plain = msgspec.msgpack.decode(journal.encode_actions([entry, query]))
    assert all("is_flash" not in fields and fields.get("order_id") is None for fields in plain)

    flash = msgspec.structs.replace(entry, is_flash=True)
    asked = msgspec.structs.replace(query, order_id="7")
    assert journal.decode_actions(journal.encode_actions([flash, asked, entry, query])) == [flash, asked, entry, query]
