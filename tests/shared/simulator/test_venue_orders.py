"""Orders beyond the plain ones: what is refused and why, change, flash close, reverse, and who trades with whom."""

from __future__ import annotations

from typing import Any

import pytest

from shared.simulator.venue.orders import (
    Accepted,
    Fill,
    Order,
    OrderReport,
    OrderRequest,
    PlanRequest,
    Refusal,
    VenueRules,
)
from shared.simulator.venue.venue import Venue
from shared.types import OrderKind, OrderStatus, Side
from tests.shared.simulator.venue_made import NOW, D, accept, contract, deep, made, mark, order, refuse, size

POST, IOC, FOK = OrderKind.POST_ONLY, OrderKind.IOC, OrderKind.FOK


@pytest.fixture
def venue() -> Venue:
    return made()


def alone(venue: Venue) -> Venue:
    """Take the market away: only accounts are left to trade with."""
    venue.set_book("AUSDT", [], [], NOW)
    return venue


def modify(venue: Venue, found: Order, **changes: Any) -> Accepted | Refusal:
    return venue.modify("a", "AUSDT", NOW, order_id=found.order_id, **({"new_client_oid": "new"} | changes))


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (order(Side.BUY, "0.05"), "40808"),
        (order(Side.BUY, "NaN"), "40020"),
        (order(Side.BUY, "Infinity"), "40020"),
        (order(Side.BUY, "1", "NaN"), "40020"),
        (order(Side.BUY, "1", "-Infinity"), "40020"),
        (order(Side.BUY, "1", "-1"), "40020"),
        (order(Side.BUY, "1", "1e20"), "40020"),
        (order(Side.BUY, "10000.1", "99"), "45112"),
        (order(Side.BUY, "1000.1"), "45112"),
        (order(Side.BUY, "1", "99", client_oid="龙"), "40304"),
        (order(Side.BUY, "1", "99", stop_loss=D("98.005")), "40808"),
        (order(Side.BUY, "1", "99", stop_loss=D("98"), stop_loss_execute=D("97.001")), "40808"),
        (order(Side.SELL, "1", "101", take_profit=D("101")), "40832"),
    ],
)
def test_form_of_an_order_has_codes(venue: Venue, request_: OrderRequest, code: str) -> None:
    """Numbers that are none, steps, sizes, names and presets."""
    assert refuse(venue, request_) == code


@pytest.mark.parametrize(
    ("status", "opens", "closes"),
    [
        ("normal", None, None), ("limit_open", "45043", None), ("maintain", "40844", "40844"),
        ("listed", "43115", "43115"), ("off", "40309", "40309"), ("restrictedAPI", "45043", "45043"),
    ],
)  # fmt: skip
def test_status_of_a_contract_limits_what_is_taken(
    venue: Venue, status: str, opens: str | None, closes: str | None
) -> None:
    """limit_open lets positions close and nothing open; cancelling works in any."""
    deep(venue)
    accept(venue, order(Side.BUY, "10"))
    resting = accept(venue, order(Side.BUY, "1", "95"))
    venue.set_contract(contract(status=status))

    for request, code in (
        (order(Side.BUY, "1"), opens),
        (order(Side.SELL, "1"), opens),  # no reduce-only: it could open
        (order(Side.SELL, "1", reduce_only=True), closes),
    ):
        if code is None:
            accept(venue, request)
        else:
            assert refuse(venue, request) == code
    assert isinstance(venue.cancel("a", "AUSDT", NOW, order_id=resting.order_id), Accepted)


def test_small_size_is_no_small_notional() -> None:
    """Below the minimum size is 45111, below five dollars 45110; a close may be as small as it likes."""
    venue = made()
    venue.set_contract(contract(size_min=D("0.3")))
    deep(venue)
    assert refuse(venue, order(Side.BUY, "0.2")) == "45111"
    accept(venue, order(Side.BUY, "3"))
    venue.set_contract(contract(notional_min_usdt=D(50)))
    assert refuse(venue, order(Side.BUY, "0.4", "99")) == "45110"

    accept(venue, order(Side.SELL, "0.4"))
    accept(venue, order(Side.SELL, "0.1", reduce_only=True))

    assert size(venue) == D("2.5")


def test_counts_of_orders_and_positions_are_capped() -> None:
    """Orders of a symbol 45118, of all symbols 43005, positions 45116; a cancel makes room again."""
    venue = made(VenueRules(orders_per_symbol_max=2, orders_max=3, positions_max=1))
    deep(venue)
    deep(venue, symbol="BUSDT")
    first = accept(venue, order(Side.BUY, "1", "95"))
    accept(venue, order(Side.BUY, "1", "95"))
    assert refuse(venue, order(Side.BUY, "1", "95")) == "45118"
    accept(venue, order(Side.BUY, "1", "95", symbol="BUSDT"))
    assert refuse(venue, order(Side.BUY, "1", "95", symbol="BUSDT")) == "43005"

    venue.cancel("a", "AUSDT", NOW, order_id=first.order_id)
    accept(venue, order(Side.BUY, "1"))

    assert size(venue) == 1
    venue.cancel("a", "AUSDT", NOW, order_id=venue.pending("a")[0].order_id)
    assert refuse(venue, order(Side.BUY, "1", symbol="BUSDT")) == "45116"
    accept(venue, order(Side.BUY, "1"))  # the position that is there may grow


def test_caps_are_bitgets_by_default() -> None:
    """200 orders a symbol, 1000 in all, 150 positions (contract config, 2026)."""
    rules = VenueRules()

    assert (rules.orders_per_symbol_max, rules.orders_max, rules.positions_max) == (200, 1000, 150)


def test_balance_and_ladder_have_codes_of_their_own(venue: Venue) -> None:
    """More than the balance carries is 40762, more than the ladder allows at the leverage 45120."""
    deep(venue)
    most = venue.max_open("a", "AUSDT", Side.BUY, D("100.01"))
    assert refuse(venue, order(Side.BUY, str(most + D("0.1")), "100.01")) == "40762"
    venue.set_tiers("AUSDT", (venue.tiers("AUSDT")[0].__class__(
        level=1, start_usdt=D(0), end_usdt=D(2000), leverage_max=50, maintenance_rate=D("0.01")
    ),))  # fmt: skip
    assert venue.max_open("a", "AUSDT", Side.BUY, D(100)) == 20
    accept(venue, order(Side.BUY, "12", "99"))
    assert refuse(venue, order(Side.BUY, "10", "99")) == "45120"
    accept(venue, order(Side.BUY, "7"))
    assert refuse(venue, order(Side.BUY, "1")) == "45120"

    accept(venue, order(Side.SELL, "27"))  # closes 7, opens 20

    assert size(venue) == -20


def test_what_can_be_opened_is_opened(venue: Venue) -> None:
    """`max_open` is the largest size that is taken, to the step."""
    deep(venue, 100.0, 100.0)
    venue.set_contract(contract(size_max_limit=None))
    most = venue.max_open("a", "AUSDT", Side.SELL, D(100))
    assert refuse(venue, order(Side.SELL, str(most + D("0.1")), "100")) == "40762"

    accept(venue, order(Side.SELL, str(most), "100"))

    assert size(venue) == -most
    assert venue.available("a") >= 0


def test_accepted_market_order_holds_its_margin_until_it_is_matched(venue: Venue) -> None:
    """Between ack and match a second order cannot spend the same money."""
    deep(venue)
    first = venue.accept("a", order(Side.BUY, "900"), NOW)
    assert isinstance(first, Accepted)

    assert venue.available("a") == 10_000 - 900 * D("100.01") / 10
    assert refuse(venue, order(Side.BUY, "900")) == "40762"
    venue.match("a", first.order_id, NOW)

    assert size(venue) == 900


def test_rules_may_change_between_two_requests(venue: Venue) -> None:
    """A new tick, step or maximum counts from the next order on; what rests, rests."""
    resting = accept(venue, order(Side.BUY, "0.1", "99.99"))
    venue.set_contract(contract(tick=D("0.05"), size_step=D("0.5"), size_max_limit=D(2)))

    assert refuse(venue, order(Side.BUY, "1", "99.99")) == "45115"
    assert refuse(venue, order(Side.BUY, "0.7", "99.95")) == "22038"
    assert refuse(venue, order(Side.BUY, "2.5", "99.95")) == "45112"
    assert resting.status is OrderStatus.LIVE


# ---------------------------------------------------------------------------------------------- matching


def test_price_then_time_decides_among_accounts(venue: Venue) -> None:
    """The better price first, then the older order, whoever sent it."""
    alone(venue)
    late = accept(venue, order(Side.SELL, "1", "100.05"), "b")
    old = accept(venue, order(Side.SELL, "1", "100.04"), "b")
    young = accept(venue, order(Side.SELL, "1", "100.04"), "a")
    best = accept(venue, order(Side.SELL, "1", "100.03"), "a")
    venue.open_account("c", D(1000))

    accept(venue, order(Side.BUY, "2.5", "100.05"), "c")

    assert [str(one.filled) for one in (best, old, young, late)] == ["1", "1", "0.5", "0"]
    assert [str(fill.price) for fill in venue.fills("c")] == ["100.03", "100.04", "100.04"]


def test_market_stands_before_us_at_its_price(venue: Venue) -> None:
    """What the book showed at a price trades before what rests there."""
    ours = accept(venue, order(Side.SELL, "1", "100.01"), "b")

    accept(venue, order(Side.BUY, "5"))
    assert ours.filled == 0
    accept(venue, order(Side.BUY, "1"))

    assert ours.status is OrderStatus.FILLED


def test_fill_or_kill_counts_what_is_really_there(venue: Venue) -> None:
    """Own orders that self-trade prevention removes, and more reduce-only than a position, are no liquidity."""
    alone(venue)
    accept(venue, order(Side.BUY, "3", "100"), "b")
    accept(venue, order(Side.SELL, "3", "100"))
    for lots, price in (("2", "101"), ("1", "102")):
        accept(venue, order(Side.SELL, lots, price, reduce_only=True), "b")
    accept(venue, order(Side.BUY, "1", "99"))
    accept(venue, order(Side.SELL, "1", "99"), "b")  # 3 wait to close 2
    own = accept(venue, order(Side.SELL, "5", "100.5"))

    killed = accept(venue, order(Side.BUY, "3", "102", kind=FOK, stp="cancel_maker"))
    assert (killed.filled, killed.cancel_reason, own.status) == (D(0), "fok_cancel", OrderStatus.LIVE)
    filled = accept(venue, order(Side.BUY, "2", "102", kind=FOK, stp="cancel_maker"))

    assert (filled.filled, own.status) == (D(2), OrderStatus.CANCELED)


def test_fill_or_kill_stops_where_it_would_be_cancelled(venue: Venue) -> None:
    """With cancel_taker the first own order is the end of what can be had."""
    alone(venue)
    accept(venue, order(Side.SELL, "1", "100"), "b")
    accept(venue, order(Side.SELL, "1", "100.5"))
    accept(venue, order(Side.SELL, "5", "101"), "b")

    killed = accept(venue, order(Side.BUY, "2", "101", kind=FOK, stp="cancel_taker"))

    assert (killed.filled, killed.cancel_reason) == (D(0), "fok_cancel")


@pytest.mark.parametrize(
    ("stp", "maker_left", "taker_filled"),
    [
        ("none", "0", "3"),
        ("cancel_maker", "canceled", "1"),
        ("cancel_taker", "2", "0"),
        ("cancel_both", "canceled", "0"),
    ],
)
def test_self_trade_prevention_on_the_way_through_the_book(
    venue: Venue, stp: str, maker_left: str, taker_filled: str
) -> None:
    """The taker meets its own offer first and another's behind it; its own word decides what happens."""
    alone(venue)
    own = accept(venue, order(Side.SELL, "2", "100"))
    accept(venue, order(Side.SELL, "1", "100.5"), "b")

    taker = accept(venue, order(Side.BUY, "3", "101", stp=stp))

    assert str(taker.filled) == taker_filled
    assert maker_left == ("canceled" if own.status is OrderStatus.CANCELED else str(own.remaining))
    if stp in ("cancel_taker", "cancel_both"):
        assert (taker.status, taker.cancel_reason) == (OrderStatus.CANCELED, "stp_cancel")


def test_reduce_only_taker_stops_at_flat(venue: Venue) -> None:
    """A position that has shrunk between ack and match is not turned."""
    deep(venue)
    accept(venue, order(Side.BUY, "5"))
    waiting = venue.accept("a", order(Side.SELL, "5", reduce_only=True), NOW)
    assert isinstance(waiting, Accepted)
    accept(venue, order(Side.SELL, "3"))

    venue.match("a", waiting.order_id, NOW)

    assert size(venue) == 0
    found = venue.order("a", order_id=waiting.order_id)
    assert found is not None
    assert (found.filled, found.status, found.cancel_reason) == (D(2), OrderStatus.CANCELED, "reduce_only_cancel")


def test_trade_between_accounts_is_one_price_and_two_fees(venue: Venue) -> None:
    """Both sides tell of it, maker first; what one wins before fees the other loses."""
    alone(venue)
    accept(venue, order(Side.SELL, "2", "100", client_oid="maker"), "b")
    venue.drain()

    accept(venue, order(Side.BUY, "2", "101"))

    told = [event for event in venue.drain() if isinstance(event, Fill)]
    assert [(fill.account, fill.price, fill.is_maker, fill.fee_usdt) for fill in told] == [
        ("b", D(100), True, D("0.04")),
        ("a", D(100), False, D("0.12")),
    ]
    mark(venue, 107.0)
    assert venue.unrealised("a") == -venue.unrealised("b") == 14


def test_last_price_is_that_of_the_last_trade(venue: Venue) -> None:
    """Public trades and fills of accounts; nothing before the first."""
    assert venue.last_price("AUSDT") is None
    venue.trade("AUSDT", 100.02, 1.0, Side.BUY, NOW)
    assert venue.last_price("AUSDT") == D("100.02")

    accept(venue, order(Side.SELL, "1"))

    assert venue.last_price("AUSDT") == D("99.99")


# ------------------------------------------------------------------------------------------------ modify


def test_new_price_and_size_are_a_new_order_at_the_end_of_the_queue(venue: Venue) -> None:
    """The old one is cancelled, the new one has the new name and loses its place."""
    alone(venue)
    old = accept(venue, order(Side.BUY, "5", "99", client_oid="old", stop_loss=D(95), kind=POST))
    other = accept(venue, order(Side.BUY, "1", "99"), "b")
    venue.drain()

    answer = modify(venue, old, new_size=D(4), new_price=D(99))

    assert isinstance(answer, Accepted)
    assert (answer.client_oid, answer.order_id != old.order_id) == ("new", True)
    assert [
        (event.order.client_oid, event.order.status.value) for event in venue.drain() if isinstance(event, OrderReport)
    ] == [("old", "canceled"), ("new", "live")]
    new = venue.order("a", client_oid="new")
    assert new is not None
    assert (new.kind, new.size, new.stop_loss) == (POST, D(4), D(95))
    venue.trade("AUSDT", 99.0, 1.0, Side.SELL, NOW)
    assert (other.status, new.filled) == (OrderStatus.FILLED, D(0))


def test_new_order_may_wait_for_its_match(venue: Venue) -> None:
    """As with accept, the server answers before the new price takes anything."""
    old = accept(venue, order(Side.BUY, "5", "99"))

    answer = modify(venue, old, new_size=D(5), new_price=D("100.01"), matches=False)

    assert isinstance(answer, Accepted)
    assert size(venue) == 0
    venue.match("a", answer.order_id, NOW)
    assert size(venue) == 5


def test_new_presets_keep_the_order(venue: Venue) -> None:
    """It keeps its ids and its place; a preset of 0 goes away."""
    found = accept(venue, order(Side.BUY, "5", "99", stop_loss=D(95), client_oid="kept"))

    answer = modify(venue, found, new_stop_loss=D(0), new_take_profit=D(120))

    assert answer == Accepted(found.order_id, "kept")
    assert (found.stop_loss, found.take_profit, found.status) == (None, D(120), OrderStatus.LIVE)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"new_size": D(5), "new_price": D(99)}, "40923"),
        ({}, "40923"),
        ({"new_size": D(4)}, "40925"),
        ({"new_price": D(98)}, "40925"),
        ({"new_size": D(4), "new_price": D(98), "new_client_oid": ""}, "22003"),
        ({"new_size": D(4), "new_price": D(98), "new_client_oid": "taken"}, "40786"),
        ({"new_size": D(4), "new_price": D("98.005")}, "40808"),
        ({"new_size": D(10_000), "new_price": D(98)}, "40762"),
        ({"new_size": D(4), "new_price": D(120)}, "22006"),
        ({"new_stop_loss": D(101)}, "40917"),
        ({"new_stop_loss": D("98.001")}, "40808"),
    ],
)
def test_change_that_cannot_be_leaves_the_order(venue: Venue, changes: dict[str, Any], code: str) -> None:
    """A refused change changes nothing: the order still stands with its price, its size and its presets."""
    found = accept(venue, order(Side.BUY, "5", "99", client_oid="old"))
    accept(venue, order(Side.BUY, "1", "95", client_oid="taken"))
    before = venue.pending("a")

    answer = modify(venue, found, **changes)

    assert isinstance(answer, Refusal)
    assert answer.code == code
    assert venue.pending("a") == before


def test_only_live_limit_orders_change(venue: Venue) -> None:
    """A partly filled or a final order is 40922, an unknown one 40768, none named 40924."""
    partly = accept(venue, order(Side.BUY, "8", "100.01"))
    done = accept(venue, order(Side.SELL, "1"))
    asked = {"new_client_oid": "n", "new_size": D(1), "new_price": D(99)}
    answers = [
        venue.modify("a", "AUSDT", NOW, order_id=partly.order_id, **asked),  # type: ignore[arg-type]
        venue.modify("a", "AUSDT", NOW, order_id=done.order_id, **asked),  # type: ignore[arg-type]
        venue.modify("a", "AUSDT", NOW, order_id="1", **asked),  # type: ignore[arg-type]
        venue.modify("a", "BUSDT", NOW, order_id=partly.order_id, **asked),  # type: ignore[arg-type]
        venue.modify("b", "AUSDT", NOW, order_id=partly.order_id, **asked),  # type: ignore[arg-type]
        venue.modify("a", "AUSDT", NOW, **asked),  # type: ignore[arg-type]
    ]

    assert [answer.code for answer in answers if isinstance(answer, Refusal)] == [
        "40922", "40922", "40768", "40768", "40768", "40924",
    ]  # fmt: skip


def test_change_may_use_the_margin_of_the_order_it_replaces(venue: Venue) -> None:
    """An order that holds all of the balance can be moved, and the cap of orders does not stand in its way."""
    capped = made(VenueRules(orders_per_symbol_max=1))
    capped.set_contract(contract(size_max_limit=None))
    most = capped.max_open("a", "AUSDT", Side.BUY, D(99))
    found = accept(capped, order(Side.BUY, str(most), "99"))
    assert capped.available("a") < 100

    assert isinstance(modify(capped, found, new_size=most, new_price=D(98)), Accepted)


# ------------------------------------------------------------------------------------- close and reverse


def test_flash_close_takes_everything_with_it(venue: Venue) -> None:
    """Each position gets a market order of its whole size; what was waiting to close it goes."""
    for symbol, side in (("AUSDT", Side.BUY), ("BUSDT", Side.SELL)):
        deep(venue, symbol=symbol)
        accept(venue, order(side, "5", symbol=symbol))
    waiting = accept(venue, order(Side.SELL, "5", "105", reduce_only=True))

    done, failed = venue.close_at_market("a", NOW)

    assert (len(done), failed, venue.positions("a")) == (2, [], [])
    assert waiting.status is OrderStatus.CANCELED
    assert [found.source for found in venue.closed("a")[-2:]] == ["api", "api"]


def test_flash_close_is_of_one_symbol_or_side() -> None:
    """A named side leaves the other; the acks can be had before the match."""
    venue = made(hedged=True)
    deep(venue)
    accept(venue, order(Side.BUY, "5", position_side="long"))
    accept(venue, order(Side.SELL, "4", position_side="short"))

    done, failed = venue.close_at_market("a", NOW, "AUSDT", "short", matches=False)

    assert (len(done), failed, size(venue, side="short")) == (1, [], D(-4))
    venue.match("a", done[0].order_id, NOW)
    assert (size(venue, side="long"), size(venue, side="short")) == (D(5), D(0))


def test_flash_close_of_nothing_is_refused_by_name_only(venue: Venue) -> None:
    """A named symbol without a position is 22002; an empty account has nothing to say; halted symbols fail alone."""
    assert [refusal.code for _, refusal in venue.close_at_market("a", NOW, "AUSDT")[1]] == ["22002"]
    assert [refusal.code for _, refusal in venue.close_at_market("a", NOW, "NOPEUSDT")[1]] == ["40034"]
    assert venue.close_at_market("a", NOW) == ([], [])
    for symbol in ("AUSDT", "BUSDT"):
        deep(venue, symbol=symbol)
        accept(venue, order(Side.BUY, "5", symbol=symbol))
    venue.set_contract(contract("BUSDT", status="maintain"))

    done, failed = venue.close_at_market("a", NOW)

    assert len(done) == 1
    assert [(symbol, refusal.code) for symbol, refusal in failed] == [("BUSDT", "40844")]


def test_flash_close_may_trade_one_side_against_the_other() -> None:
    """The long is sold into the bid that was to close the short: then there is no short to close."""
    venue = alone(made(hedged=True))
    deep(venue, 100.0, 100.0)
    accept(venue, order(Side.BUY, "5", position_side="long"))
    accept(venue, order(Side.SELL, "5", position_side="short"))
    alone(venue)
    accept(venue, order(Side.BUY, "5", "99", position_side="short"))

    done, failed = venue.close_at_market("a", NOW)

    assert (len(done), failed, venue.positions("a")) == (1, [], [])


def test_flash_close_knows_no_largest_order(venue: Venue) -> None:
    """A position above maxMarketOrderQty closes whole."""
    deep(venue)
    accept(venue, order(Side.BUY, "900"))
    venue.set_contract(contract(size_max_market=D(100)))

    venue.close_at_market("a", NOW, "AUSDT")

    assert size(venue) == 0


def test_reverse_turns_a_one_way_position(venue: Venue) -> None:
    """One market order of twice the size, or of the old and another new size."""
    deep(venue)
    accept(venue, order(Side.BUY, "5"))

    turned = venue.reverse("a", "AUSDT", NOW, client_oid="back")
    assert size(venue) == -5
    assert isinstance(turned, Accepted)
    assert turned.client_oid == "back"
    venue.reverse("a", "AUSDT", NOW, size=D(2))

    assert size(venue) == 2


def test_reverse_of_a_hedge_closes_one_side_and_opens_the_other() -> None:
    """With both sides open it must be told which; the other one grows."""
    venue = made(hedged=True)
    deep(venue)
    accept(venue, order(Side.BUY, "5", position_side="long"))
    accept(venue, order(Side.SELL, "1", position_side="short"))
    unclear = venue.reverse("a", "AUSDT", NOW)
    assert isinstance(unclear, Refusal)
    assert unclear.code == "22002"

    assert isinstance(venue.reverse("a", "AUSDT", NOW, hold_side="long"), Accepted)

    assert (size(venue, side="long"), size(venue, side="short")) == (D(0), D(-6))


def test_reverse_that_cannot_be_carried_changes_nothing() -> None:
    """A new size beyond the balance is refused before the old position is closed; the old margin counts as free."""
    for is_hedged in (False, True):
        venue = made(hedged=is_hedged)
        deep(venue)
        venue.set_contract(contract(size_max_market=None))
        accept(venue, order(Side.BUY, "900", position_side="long" if is_hedged else "net"))

        refused = venue.reverse("a", "AUSDT", NOW, size=D(2000))
        assert isinstance(refused, Refusal)
        assert refused.code == "40762"
        assert len(venue.positions("a")) == 1

        assert isinstance(venue.reverse("a", "AUSDT", NOW), Accepted)
        assert [position.size for position in venue.positions("a")] == [D(-900)]


def test_nothing_to_reverse_is_refused(venue: Venue) -> None:
    """A flat symbol is 22002, an unknown one 40034."""
    answers = [venue.reverse("a", symbol, NOW) for symbol in ("AUSDT", "NOPEUSDT")]

    assert [answer.code for answer in answers if isinstance(answer, Refusal)] == ["22002", "40034"]


def test_removed_symbol_leaves_nothing_behind() -> None:
    """Orders and plans go, and positions settle whole at the last mark, also where the last book was empty."""
    for is_isolated in (False, True):
        venue = made(hedged=True, isolated=is_isolated)
        deep(venue)
        deep(venue, symbol="BUSDT")
        accept(venue, order(Side.BUY, "500", position_side="long"))
        accept(venue, order(Side.SELL, "5", position_side="short"))
        other = accept(venue, order(Side.BUY, "5", symbol="BUSDT", position_side="long"))
        resting = accept(venue, order(Side.BUY, "1", "95", position_side="long"))
        closing = accept(venue, order(Side.SELL, "500", "109", position_side="long"))
        plan = PlanRequest(
            symbol="AUSDT", plan_type="normal_plan", side=Side.BUY, size=D(1), trigger_price=D(99),
            position_side="long",
        )  # fmt: skip
        assert isinstance(venue.plans.place("a", plan, NOW), Accepted)
        mark(venue, 97.5)
        venue.set_book("AUSDT", [], [], NOW)

        venue.delist("AUSDT", NOW)

        assert [position.symbol for position in venue.positions("a")] == ["BUSDT"]
        assert [found.cancel_reason for found in (resting, closing)] == ["delivery_cancel"] * 2
        assert not venue.pending("a")
        assert not venue.plans.pending("a")
        assert [(fill.price, fill.source) for fill in venue.fills("a")[-2:]] == [(D("97.5"), "delivery")] * 2
        assert [bill.kind for bill in venue.bills("a")[-2:]] == ["delivery_close_long", "delivery_close_short"]
        assert other.status is OrderStatus.FILLED


# --------------------------------------------------------------------------------------- queues and books


def test_queue_shrinks_with_the_level_it_stands_in(venue: Venue) -> None:
    """A level that has become smaller than what was ahead proves that we moved up; a larger one proves nothing."""
    resting = accept(venue, order(Side.BUY, "1", "99.98"))
    assert resting.queue_ahead == 10
    for shown, ahead in ((4.0, "4.0"), (30.0, "4.0"), (0.0, "0")):
        bids = [(99.99, 5.0), (99.98, shown)] if shown else [(99.99, 5.0)]
        venue.set_book("AUSDT", bids, [(100.01, 5.0)], NOW)
        assert str(resting.queue_ahead) == ahead


def test_orders_of_one_account_do_not_wait_for_another_symbols_book(venue: Venue) -> None:
    """A book reaches its own symbol's orders alone."""
    here = accept(venue, order(Side.BUY, "1", "99.5"))
    there = accept(venue, order(Side.BUY, "1", "99.5", symbol="BUSDT"))

    venue.set_book("AUSDT", [(99.0, 1.0)], [(99.4, 5.0)], NOW)

    assert (here.status, there.status) == (OrderStatus.FILLED, OrderStatus.LIVE)
