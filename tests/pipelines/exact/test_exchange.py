"""The exchange behind latencies: what is told when, and what orders in flight do to one another."""

from __future__ import annotations

from decimal import Decimal as D

import msgspec
import pytest

from pipelines.exact import marks, resting
from pipelines.exact.exchange import PATIENCE_NS, Assumptions, Change
from pipelines.exact.latency import Constant, Lognormal
from pipelines.exact.queues import PowerProbability, QueueModel, RiskAverse
from pipelines.venue_side import ACCOUNT
from shared.types import (
    NS,
    Adopted,
    CancelOrder,
    CancelRefused,
    Event,
    Filled,
    FundingPaid,
    OrderAbsent,
    OrderAccepted,
    OrderRefused,
    OrderReported,
    OrderStatus,
    OrderTimedOut,
    QueryAccount,
    QueryOrder,
    Side,
)
from tests.oracles.both import Market, rests, through_ours
from tests.oracles.both import contract as rules
from tests.oracles.markets import made
from tests.pipelines.exact.made import (
    ASKS,
    BIDS,
    INSTANT,
    LATENCIES,
    MS,
    START_NS,
    SYMBOL,
    at_ms,
    block,
    events,
    exchange,
    place,
)
from tests.shared.simulator.venue_made import contract


def told(found: list[Event], kind: type[Event]) -> list[Event]:
    return [event for event in found if type(event) is kind]


def fills(found: list[Event]) -> list[tuple[str, D, D, bool]]:
    return [(e.client_oid, e.price, e.size, e.is_maker) for e in found if isinstance(e, Filled)]


def test_request_is_matched_answered_and_pushed_each_in_its_time() -> None:
    """Matching takes 10 ms and meets the book of then; its push takes 20 more, the answer 30 from the sending."""
    later = [(99.0, 5.0)], [(99.5, 50.0)]
    made = exchange(block(books=[(-1, BIDS, ASKS), (10, *later)]))

    made.send(place("a", Side.BUY, "2"), START_NS)
    found = events(made, 1000)

    assert fills(found) == [("a", D("99.5"), D(2), False)]
    filled, accepted = told(found, Filled)[0], told(found, OrderAccepted)[0]
    assert isinstance(filled, Filled)
    assert (filled.exch_ns - START_NS) / MS == 10
    assert (at_ms(filled), at_ms(accepted)) == (30, 30)
    assert at_ms(found[0]) == 30
    assert [event.recv_ns for event in found] == sorted(event.recv_ns for event in found)


def test_taker_walks_the_book_and_what_is_beyond_it_is_cancelled() -> None:
    """Level after level at its price, partly filled where the visible book ends."""
    made = exchange(block(), equity="100000")

    made.send(place("a", Side.BUY, "40"), START_NS)
    found = events(made, 1000)

    assert fills(found) == [
        ("a", D("100.01"), D(5), False), ("a", D("100.02"), D(10), False), ("a", D("100.03"), D(20), False),
    ]  # fmt: skip
    last = told(found, OrderReported)[-1]
    assert isinstance(last, OrderReported)
    assert (last.status, last.filled) == (OrderStatus.CANCELED, D(35))


def test_what_was_taken_comes_back_with_its_half_life() -> None:
    """An order that follows at once meets what the first left; a half-life later half of it is back."""
    assumptions = Assumptions(latencies=INSTANT, impact_half_life_s=10.0)
    made = exchange(block(), assumptions=assumptions, equity="100000")

    for n, at in enumerate((0, 0, 10_000)):
        made.send(place(str(n), Side.BUY, "5"), START_NS + at * MS)
        found = events(made, at)
        # 5 are owed, then 10, of which 5 are left after a half-life.
        assert fills(found)[0][1] == D(("100.01", "100.02", "100.02")[n]), n


def test_without_impact_every_order_meets_the_whole_book() -> None:
    """A half-life of 0 leaves no trace, as in hftbacktest."""
    made = exchange(block(), equity="100000")

    for n in range(3):
        made.send(place(str(n), Side.BUY, "5"), START_NS)

    assert [fill[1] for fill in fills(events(made, 100))] == [D("100.01")] * 3


@pytest.mark.parametrize(("model", "filled"), [(RiskAverse(), "0"), (PowerProbability(1.0), "1.5")])
def test_queue_model_decides_who_trades_first(model: QueueModel, filled: str) -> None:
    """Six of ten ahead leave the level of twelve... all from behind us, or half of it from ahead of us."""
    grown = [(99.99, 20.0), *BIDS[1:]]
    shrunk = [(99.99, 8.0), *BIDS[1:]]
    market = block(
        books=[(-1, [(99.99, 10.0), *BIDS[1:]], ASKS), (100, grown, ASKS), (200, shrunk, ASKS)],
        trades=[(300, 99.99, 5.5, -1)],
    )
    made = exchange(market, assumptions=Assumptions(latencies=LATENCIES, queue=model))

    made.send(place("a", Side.BUY, "5", "99.99"), START_NS)
    found = events(made, 1000)

    assert sum((fill[2] for fill in fills(found)), D(0)) == D(filled)


def test_trade_at_our_price_fills_what_the_queue_leaves_over() -> None:
    """Five are ahead: a trade of 6 leaves 1 for us, the next gives us the rest; buyers' trades do nothing to a bid."""
    market = block(trades=[(100, 99.99, 6.0, -1), (150, 99.99, 50.0, 1), (200, 99.99, 10.0, -1)])
    made = exchange(market)

    made.send(place("a", Side.BUY, "3", "99.99"), START_NS)
    found = events(made, 1000)

    assert fills(found) == [("a", D("99.99"), D(1), True), ("a", D("99.99"), D(2), True)]
    assert [round(at_ms(fill)) for fill in told(found, Filled)] == [120, 220]


def test_order_that_is_matched_after_it_was_accepted_is_followed_from_then_on() -> None:
    """Accepted after 20 ms, in the book after 90: what trades before is not ours, and what trades after is."""
    latencies = msgspec.structs.replace(LATENCIES, entry=Constant(90), answer=Constant(40))
    market = block(trades=[(50, 99.99, 50.0, -1), (100, 99.99, 6.0, -1)])
    made = exchange(market, assumptions=Assumptions(latencies=latencies, impact_half_life_s=0.0))

    made.send(place("a", Side.BUY, "3", "99.99"), START_NS)
    found = events(made, 1000)

    assert fills(found) == [("a", D("99.99"), D(1), True)]
    assert [round(at_ms(fill)) for fill in told(found, Filled)] == [120]


@pytest.mark.parametrize("through", ["trade", "book"])
def test_order_that_is_traded_through_is_filled_whole(through: str) -> None:
    """A trade beyond our price, or the opposite touch at it, has gone through us first."""
    market = (
        block(trades=[(100, 99.98, 0.1, -1)])
        if through == "trade"
        else block(books=[(-1, BIDS, ASKS), (100, [(99.90, 1.0)], [(99.99, 0.1)])])
    )
    made = exchange(market)

    made.send(place("a", Side.BUY, "3", "99.99"), START_NS)

    assert fills(events(made, 1000)) == [("a", D("99.99"), D(3), True)]


def test_post_only_order_that_would_take_is_cancelled_on_arrival() -> None:
    """The book has moved while it was under way: it is answered, and then reported cancelled."""
    made = exchange(block(books=[(-1, BIDS, ASKS), (5, [(99.90, 1.0)], [(99.98, 1.0)])]))

    made.send(place("a", Side.BUY, "1", "99.99"), START_NS)
    found = events(made, 1000)

    assert told(found, OrderAccepted)
    last = told(found, OrderReported)[-1]
    assert isinstance(last, OrderReported)
    assert (last.status, last.reason) == (OrderStatus.CANCELED, "post_only_cancel")


def test_cancel_that_reaches_after_the_fill_is_refused() -> None:
    """The fill happens while the cancel is under way: both are told, the fill first."""
    made = exchange(block(trades=[(105, 99.98, 9.0, -1)]))
    made.send(place("a", Side.BUY, "1", "99.99"), START_NS)
    assert not fills(events(made, 100))

    made.send(CancelOrder(client_oid="a", order_id="", symbol=SYMBOL), START_NS + 100 * MS)
    found = events(made, 1000)

    assert fills(found) == [("a", D("99.99"), D(1), True)]
    refused = told(found, CancelRefused)[0]
    assert isinstance(refused, CancelRefused)
    assert (refused.code, at_ms(refused)) == ("22001", 130)
    assert [type(event) for event in found].index(Filled) < [type(event) for event in found].index(CancelRefused)


def test_cancel_that_comes_first_ends_the_order() -> None:
    """Nothing of it is filled afterwards."""
    made = exchange(block(trades=[(115, 99.98, 9.0, -1)]))
    made.send(place("a", Side.BUY, "1", "99.99"), START_NS)
    events(made, 100)

    made.send(CancelOrder(client_oid="a", order_id="", symbol=SYMBOL), START_NS + 100 * MS)
    found = events(made, 1000)

    assert not fills(found)
    assert isinstance(found[-1], OrderReported)
    assert found[-1].status is OrderStatus.CANCELED


def test_lost_answer_is_a_time_out_and_the_order_lives() -> None:
    """Nobody answers, the fill is pushed all the same, and asking brings it again with the order's state."""
    latencies = msgspec.structs.replace(LATENCIES, lost_share=1.0)
    made = exchange(block(), assumptions=Assumptions(latencies=latencies))

    made.send(place("a", Side.BUY, "1"), START_NS)
    found = events(made, 6_000)

    assert not told(found, OrderAccepted)
    timed_out = told(found, OrderTimedOut)[0]
    assert timed_out.recv_ns - START_NS == PATIENCE_NS
    assert len(fills(found)) == 1
    made.send(QueryOrder(client_oid="a", symbol=SYMBOL), START_NS + 6_000 * MS)
    made.send(QueryOrder(client_oid="nobody", symbol=SYMBOL), START_NS + 6_000 * MS)
    answers = events(made, 7_000)
    assert [type(event) for event in answers] == [Filled, OrderReported, OrderAbsent]
    assert {at_ms(event) for event in answers} == {6_030}
    assert fills(answers) == fills(found)


def test_slow_answer_is_a_time_out_too() -> None:
    """What is answered after the patience of live is not waited for."""
    slow = msgspec.structs.replace(LATENCIES, answer=Constant(6_000))
    made = exchange(block(), assumptions=Assumptions(latencies=slow))

    made.send(place("a", Side.BUY, "1"), START_NS)

    assert [type(event) for event in events(made, 9_000)].count(OrderTimedOut) == 1


def test_refused_order_is_told_with_the_code_of_the_exchange() -> None:
    """More than the account can carry: refused, nothing filled, counted."""
    made = exchange(block(), equity="10")

    made.send(place("a", Side.BUY, "5"), START_NS)
    found = events(made, 1000)

    assert len(found) == 1
    refused = found[0]
    assert isinstance(refused, OrderRefused)
    assert (refused.code, at_ms(refused)) == ("40762", 30)
    assert made.refusals == {"40762 The order amount exceeds the balance": 1}


def test_stop_fires_at_the_first_mark_that_reaches_it() -> None:
    """Between harmless marks, at that mark's instant and against the book of then; its fill has no name of ours."""
    thin = [(98.0, 50.0)], [(98.1, 50.0)]
    marks = [(-1, 100.0), (100, 99.5), (200, 98.9), (300, 100.0)]
    made = exchange(block(books=[(-1, BIDS, ASKS), (150, *thin), (250, BIDS, ASKS)], marks=marks))

    made.send(place("a", Side.BUY, "1", stop_price=D("99.00")), START_NS)
    found = events(made, 1000)

    stopped = [event for event in told(found, Filled) if isinstance(event, Filled) and event.side is Side.SELL]
    assert [(fill.client_oid, fill.price, (fill.exch_ns - START_NS) // MS) for fill in stopped] == [
        ("", D("98.0"), 200)
    ]
    assert made.is_flat


def test_stops_that_one_instant_reaches_meet_the_books_of_then() -> None:
    """Two symbols, each with its stop, one mark for both: neither is closed against a book that has gone."""
    later = [(99.0, 50.0)], [(99.1, 50.0)]
    market = block(books=[(-1, BIDS, ASKS), (100, *later)], marks=[(-1, 100.0), (200, 98.0)])
    made = exchange(market, symbols=("AUSDT", "BUSDT"))

    for symbol in ("AUSDT", "BUSDT"):
        made.send(place(symbol, Side.BUY, "1", symbol=symbol, stop_price=D("98.5")), START_NS)
    found = [event for event in events(made, 1000) if isinstance(event, Filled)]

    assert [(e.symbol, e.side, e.price) for e in found if e.side is Side.SELL] == [
        ("AUSDT", Side.SELL, D("99.0")),
        ("BUSDT", Side.SELL, D("99.0")),
    ]


def test_liquidation_comes_at_the_mark_that_brings_it() -> None:
    """Near the maintenance margin no mark is passed over: one that recovers at once liquidates all the same."""
    marks = [(-1, 100.0), (3_000, 90.9), (5_500, 89.0), (5_600, 100.0)]
    made = exchange(block(marks=marks), equity="52", leverage=10)

    made.send(place("a", Side.BUY, "5"), START_NS)
    for until in range(1_000, 8_000, 1_000):
        found = events(made, until)

    assert made.is_flat
    assert [(fill.exch_ns - START_NS) // MS for fill in made.fills][-1] == 5_500
    assert 0 <= made.equity_usdt < 1
    assert found == []


def test_funding_is_settled_at_the_symbols_own_hour_and_told_with_the_account() -> None:
    """Nobody pushes it: the bill comes with a reading, once; a long pays a positive rate on size times mark."""
    hour_ms = 3_600_000 - (START_NS // MS) % 3_600_000
    made = exchange(block(marks=[(-1, 100.0), (1_000, 110.0)]), rules=contract(SYMBOL, funding_interval_h=1))

    made.send(place("a", Side.BUY, "2"), START_NS)
    before = events(made, hour_ms + 5_000)
    made.send(QueryAccount(reason="funding", fills_since_ns=START_NS), START_NS + (hour_ms + 5_000) * MS)
    answers = events(made, hour_ms + 6_000)

    assert not told(before, FundingPaid)
    assert [type(event) for event in answers] == [FundingPaid, Adopted]
    paid, adopted = answers
    assert isinstance(paid, FundingPaid)
    assert isinstance(adopted, Adopted)
    assert paid.amount_usdt == D("-0.022")
    assert [fill.client_oid for fill in adopted.fills] == ["a"]
    assert adopted.equity_usdt == made.equity_usdt
    made.send(QueryAccount(reason="again", fills_since_ns=0), START_NS + (hour_ms + 7_000) * MS)
    assert not told(events(made, hour_ms + 8_000), FundingPaid)


def test_account_is_read_once_placements_are_answered_and_pushed() -> None:
    """As live does: a reading that crosses an order would raise doubts about it."""
    made = exchange(block())

    made.send(place("a", Side.BUY, "1"), START_NS)
    made.send(QueryAccount(reason="?", fills_since_ns=0), START_NS)
    found = events(made, 1000)

    adopted = found[-1]
    assert isinstance(adopted, Adopted)
    assert at_ms(adopted) == 30 + 200 + 30
    assert adopted.positions[0].size == 1


def test_listing_opens_a_symbol_and_delisting_settles_it() -> None:
    """Refused before it is listed; when it goes, what rests is cancelled and what is held is settled at the mark."""
    rules = contract(SYMBOL)
    changes = [
        Change(START_NS + 1_000 * MS, rules, False),
        Change(START_NS + 5_000 * MS, msgspec.structs.replace(rules, status="off"), True),
    ]
    made = exchange(block(), rules=msgspec.structs.replace(rules, status="listed"), changes=changes)

    made.send(place("early", Side.BUY, "1"), START_NS)
    early = events(made, 1_500)
    made.send(place("a", Side.BUY, "1"), START_NS + 1_500 * MS)
    made.send(place("rests", Side.BUY, "1", "99.97"), START_NS + 1_500 * MS)
    held = events(made, 4_900)
    gone = events(made, 6_000)

    assert [event.code for event in early if isinstance(event, OrderRefused)] == ["43115"]
    assert len(fills(held)) == 1
    assert [(fill.side, fill.price, fill.client_oid) for fill in gone if isinstance(fill, Filled)] == [
        (Side.SELL, D("100.0"), "")
    ]
    reasons = [event.reason for event in gone if isinstance(event, OrderReported) and event.client_oid == "rests"]
    assert reasons == ["delivery_cancel"]
    assert made.is_flat


def test_equity_is_that_of_the_marks_so_far() -> None:
    """A position is worth what the last mark up to now says, also where no mark did anything."""
    made = exchange(block(marks=[(-1, 100.0), (500, 101.0), (900, 99.0)]))
    made.send(place("a", Side.BUY, "1"), START_NS)
    fee = D("100.01") * D("0.0006")

    for until, mark in ((400, 100), (600, 101), (1_000, 99)):
        events(made, until)
        assert made.equity_usdt == 10_000 - fee + mark - D("100.01"), until


def test_another_order_changes_no_latency() -> None:
    """Latencies depend on seed, request and time of sending: runs that differ in one order agree in all others."""
    drawn = msgspec.structs.replace(LATENCIES, entry=Lognormal(90, 350), answer=Lognormal(40, 250))
    times = []
    for extra in (False, True):
        made = exchange(block(), assumptions=Assumptions(latencies=drawn))
        if extra:
            made.send(place("extra", Side.BUY, "1", "99.97"), START_NS)
        for k in range(5):
            made.send(place(f"a{k}", Side.SELL, "0.1"), START_NS + k * MS)
        times.append(
            {
                e.client_oid: e.recv_ns
                for e in events(made, 3_000)
                if isinstance(e, OrderAccepted) and e.client_oid != "extra"
            }
        )

    assert times[0] == times[1]
    assert len(set(times[0].values())) == 5


def test_account_of_the_exchange_is_the_venues() -> None:
    """Money is kept by the venue alone: deposits + realised - fees + funding + unrealised, to the last digit."""
    made = exchange(block(trades=[(100, 99.98, 9.0, -1)], marks=[(-1, 100.0), (500, 100.7)]))
    made.send(place("a", Side.BUY, "3", "99.99"), START_NS)
    events(made, 300)
    made.send(place("b", Side.SELL, "1"), START_NS + 300 * MS)
    events(made, 1_000)

    deposit, realised, fees, funding = made.venue.totals(ACCOUNT)
    assert made.equity_usdt == deposit + realised - fees + funding + made.venue.unrealised(ACCOUNT)
    assert fees == D("299.97") * D("0.0002") + D("99.99") * D("0.0006")


@pytest.mark.parametrize("look_ns", [NS // 10, 3 * NS, 50 * NS])
def test_how_far_is_looked_ahead_changes_nothing(monkeypatch: pytest.MonkeyPatch, look_ns: int) -> None:
    """A hundred orders at once: the same fills in the same order, of one instant the oldest order's first."""
    market = Market(made(seed=2, seconds=60), rules("AUSDT", "0.1", "0.001"))
    requests = rests(market, seed=5, n_orders=150)
    expected = through_ours(market, requests)

    for module in (resting, marks):
        monkeypatch.setattr(module, "LOOK_NS", look_ns)
    found = through_ours(market, requests)

    assert found.fills == expected.fills
    assert len({fill.exch_ns for fill in found.fills}) < len(found.fills), (
        "no two fills of one instant: nothing is seen"
    )
    assert (found.statuses, found.equity) == (expected.statuses, expected.equity)
