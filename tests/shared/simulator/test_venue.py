"""The venue: cash to the last digit, positions explained by fills, Bitget's answers to bad orders."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from shared.simulator.venue.orders import Accepted, FundingReport, OrderReport, OrderRequest, Refusal
from shared.simulator.venue.venue import Venue
from shared.types import Contract, OrderKind, OrderStatus, Side, Tier

NOW = 1_795_330_800_000_000_000
HOUR = 3_600_000_000_000
NAN = float("nan")


def contract(symbol: str = "AUSDT", tick: str = "0.01", step: str = "0.1", interval_h: int = 1) -> Contract:
    return Contract(
        symbol=symbol, base=symbol[:-4], quote="USDT", status="normal", tick=Decimal(tick), size_step=Decimal(step),
        size_min=Decimal(step), notional_min_usdt=Decimal(5), size_max_limit=Decimal(10000),
        size_max_market=Decimal(1000), price_band_buy=Decimal("0.1"), price_band_sell=Decimal("0.1"),
        maker_fee=Decimal("0.0002"), taker_fee=Decimal("0.0006"), leverage_min=1, leverage_max=50,
        funding_interval_h=interval_h, is_rwa=False, launch_ms=None, off_ms=None,
    )  # fmt: skip


def order(side: Side, size: str, price: str | None = None, **more: object) -> OrderRequest:
    kind = more.pop("kind", OrderKind.MARKET if price is None else OrderKind.LIMIT)
    fields = {"symbol": "AUSDT", "side": side, "kind": kind, "size": Decimal(size)} | more
    return OrderRequest(**fields, price=None if price is None else Decimal(price))  # type: ignore[arg-type]


BIDS, ASKS = [(99.99, 5.0), (99.98, 10.0), (99.97, 20.0)], [(100.01, 5.0), (100.02, 10.0), (100.03, 20.0)]


@pytest.fixture
def venue() -> Venue:
    made = Venue([contract(), contract("BUSDT")])
    made.open_account("a", Decimal(10_000))
    made.open_account("b", Decimal(10_000))
    made.set_book("AUSDT", BIDS, ASKS, NOW)
    made.set_mark("AUSDT", 100.0, 100.0, 0.0001, NOW)
    return made


def accept(venue: Venue, request: OrderRequest, account: str = "a") -> Accepted:
    answer = venue.place(account, request, NOW)
    assert isinstance(answer, Accepted), answer
    return answer


def refuse(venue: Venue, request: OrderRequest) -> str:
    before = venue.pending("a"), venue.balance("a")
    answer = venue.place("a", request, NOW)
    assert isinstance(answer, Refusal), answer
    assert (venue.pending("a"), venue.balance("a")) == before
    assert venue.drain() == []
    return answer.code


def fills(venue: Venue) -> list[tuple[str, str]]:
    return [(str(fill.price), str(fill.size)) for fill in venue.fills("a")]


def size(venue: Venue, account: str = "a") -> Decimal:
    position = venue.position(account, "AUSDT")
    return position.size if position else Decimal(0)


# ------------------------------------------------------------------------------------------------ matching


def test_market_order_walks_the_visible_levels(venue: Venue) -> None:
    """A taker pays each level its own price, best first."""
    accept(venue, order(Side.BUY, "12"))

    assert fills(venue) == [("100.01", "5.0"), ("100.02", "7.0")]


def test_taken_size_stays_taken_until_the_next_book(venue: Venue) -> None:
    """Two orders in one second do not fill twice against the same size."""
    accept(venue, order(Side.BUY, "5"))
    accept(venue, order(Side.BUY, "5"))
    venue.set_book("AUSDT", BIDS, ASKS, NOW)
    accept(venue, order(Side.BUY, "5"))

    assert [price for price, _ in fills(venue)] == ["100.01", "100.02", "100.01"]


def test_market_order_beyond_the_visible_book_is_cut(venue: Venue) -> None:
    """What the visible book cannot fill is cancelled, not filled at an invented price."""
    ack = accept(venue, order(Side.BUY, "40"))

    found = venue.order("a", order_id=ack.order_id)
    assert found is not None
    assert (found.status, found.filled) == (OrderStatus.CANCELED, Decimal("35.0"))


def test_limit_order_takes_what_it_may_and_rests(venue: Venue) -> None:
    """A marketable limit order takes up to its price and leaves the rest in the book."""
    accept(venue, order(Side.BUY, "8", "100.01"))

    assert fills(venue) == [("100.01", "5.0")]
    assert venue.pending("a")[0].status is OrderStatus.PARTIALLY_FILLED


def test_resting_order_fills_as_maker_at_its_own_price(venue: Venue) -> None:
    """When the opposite touch crosses our price, we trade at ours and pay the maker fee."""
    accept(venue, order(Side.BUY, "2", "99.95", kind=OrderKind.POST_ONLY))

    venue.set_book("AUSDT", [(99.90, 1.0)], [(99.93, 1.5)], NOW)

    fill = venue.fills("a")[0]
    assert (fill.price, fill.size, fill.is_maker) == (Decimal("99.95"), Decimal("1.5"), True)
    assert fill.fee_usdt == Decimal("0.02998500")


def test_resting_order_waits_for_the_size_ahead_of_it(venue: Venue) -> None:
    """Public trades at our price first take what was there before us."""
    accept(venue, order(Side.BUY, "2", "99.99"))

    venue.trade("AUSDT", 99.99, 4.0, Side.SELL, NOW)
    assert size(venue) == 0
    venue.trade("AUSDT", 99.99, 2.0, Side.SELL, NOW)

    assert size(venue) == Decimal("1.0")


def test_trade_beyond_our_price_fills_us_at_our_price(venue: Venue) -> None:
    """A public trade at a worse price must have passed through ours."""
    accept(venue, order(Side.SELL, "2", "100.05"))

    venue.trade("AUSDT", 100.07, 5.0, Side.BUY, NOW)

    assert fills(venue) == [("100.05", "2")]


def test_trades_of_our_own_side_do_not_fill_us(venue: Venue) -> None:
    """A taker that buys meets offers, never our bid."""
    accept(venue, order(Side.BUY, "2", "99.99"))

    venue.trade("AUSDT", 99.90, 50.0, Side.BUY, NOW)

    assert fills(venue) == []


def test_post_only_that_would_take_goes_live_and_is_cancelled(venue: Venue) -> None:
    """Bitget accepts it, reports it live, then cancels it; it never pays a taker fee."""
    accept(venue, order(Side.BUY, "1", "100.01", kind=OrderKind.POST_ONLY))

    reports = [event.order.status for event in venue.drain() if isinstance(event, OrderReport)]
    assert reports == [OrderStatus.LIVE, OrderStatus.CANCELED]
    assert fills(venue) == []


def test_fok_fills_whole_or_not_at_all(venue: Venue) -> None:
    """Fill-or-kill looks before it takes."""
    accept(venue, order(Side.BUY, "16", "100.02", kind=OrderKind.FOK))
    assert fills(venue) == []

    accept(venue, order(Side.BUY, "15", "100.02", kind=OrderKind.FOK))

    assert size(venue) == Decimal("15.0")


def test_ioc_cancels_what_it_could_not_take(venue: Venue) -> None:
    """Immediate-or-cancel never rests."""
    accept(venue, order(Side.BUY, "8", "100.01", kind=OrderKind.IOC))

    assert venue.pending("a") == []
    assert size(venue) == Decimal("5.0")


def test_events_of_an_order_come_in_bitgets_order(venue: Venue) -> None:
    """live first, then for every fill the fill and the order's new state."""
    accept(venue, order(Side.BUY, "12"))

    kinds = [event.order.status.value if isinstance(event, OrderReport) else "fill" for event in venue.drain()]
    assert kinds == ["live", "fill", "partially_filled", "fill", "filled"]


def test_better_price_of_another_account_goes_first(venue: Venue) -> None:
    """Resting orders of all accounts stand in one book with the market's."""
    accept(venue, order(Side.SELL, "1", "100.00"), "b")

    accept(venue, order(Side.BUY, "2"))

    assert fills(venue) == [("100.00", "1"), ("100.01", "1")]
    assert size(venue, "b") == Decimal(-1)


@pytest.mark.parametrize(("stp", "left"), [("cancel_maker", 0), ("cancel_taker", 1), ("cancel_both", 0)])
def test_self_trade_prevention_cancels_what_the_taker_says(venue: Venue, stp: str, left: int) -> None:
    """An account that would trade with itself is stopped in the way its taker asked for."""
    accept(venue, order(Side.SELL, "1", "100.00"))

    accept(venue, order(Side.BUY, "1", "100.00", stp=stp, kind=OrderKind.IOC))

    assert len(venue.pending("a")) == left
    assert fills(venue) == []


# ----------------------------------------------------------------------------------------------- positions


def test_reduce_only_never_opens(venue: Venue) -> None:
    """An oversized reduce-only order closes the position and nothing more."""
    accept(venue, order(Side.BUY, "3"))

    accept(venue, order(Side.SELL, "9", reduce_only=True))

    assert size(venue) == 0
    assert refuse_after_drain(venue, order(Side.SELL, "1", reduce_only=True)) == "22002"


def refuse_after_drain(venue: Venue, request: OrderRequest) -> str:
    venue.drain()
    return refuse(venue, request)


def test_newer_reducer_pushes_the_oldest_out(venue: Venue) -> None:
    """Where reduce-only orders would close more than there is, the oldest is cancelled first."""
    accept(venue, order(Side.BUY, "3"))
    oldest = accept(venue, order(Side.SELL, "2", "101", reduce_only=True))
    accept(venue, order(Side.SELL, "2", "102", reduce_only=True))

    found = venue.order("a", order_id=oldest.order_id)
    assert found is not None
    assert found.status is OrderStatus.CANCELED


def test_flat_position_takes_its_reducers_with_it(venue: Venue) -> None:
    """No reduce-only order outlives the position it was to close."""
    accept(venue, order(Side.BUY, "3"))
    accept(venue, order(Side.SELL, "3", "101", reduce_only=True))

    accept(venue, order(Side.SELL, "3"))

    assert venue.pending("a") == []


def test_order_through_zero_turns_the_position(venue: Venue) -> None:
    """One-way mode: selling five of three long leaves two short at the new price."""
    accept(venue, order(Side.BUY, "3"))
    accept(venue, order(Side.SELL, "5"))

    position = venue.position("a", "AUSDT")
    assert position is not None
    assert (position.size, position.entry_price) == (Decimal(-2), Decimal("99.99"))


def test_one_percent_at_five_times_is_five_dollars_gross(venue: Venue) -> None:
    """The move is paid once, not multiplied by leverage again (a published bot did)."""
    venue.set_leverage("a", "AUSDT", 5)
    venue.set_book("AUSDT", [(99.99, 10.0)], [(100.0, 10.0)], NOW)
    accept(venue, order(Side.BUY, "5"))
    venue.set_book("AUSDT", [(101.0, 10.0)], [(101.01, 10.0)], NOW)
    accept(venue, order(Side.SELL, "5", reduce_only=True))

    _, realised, fees, _ = venue.totals("a")
    assert realised == Decimal("5.0")
    assert fees == Decimal("0.3") + Decimal("0.303")
    assert venue.equity("a") == Decimal(10_000) + realised - fees


@pytest.mark.parametrize(
    ("side", "stop", "mark"), [(Side.BUY, "99", 98.99), (Side.SELL, "101", 101.01)], ids=["long", "short"]
)
def test_protective_stop_closes_on_the_mark(venue: Venue, side: Side, stop: str, mark: float) -> None:
    """A stop that rode on the entry closes the whole position once the mark reaches it."""
    accept(venue, order(side, "3", stop_loss=Decimal(stop)))
    venue.set_mark("AUSDT", 100.0, NAN, NAN, NOW)
    assert size(venue) != 0

    venue.set_mark("AUSDT", mark, NAN, NAN, NOW)

    assert size(venue) == 0
    assert venue.closed("a")[-1].source == "stop_loss"


def test_target_closes_on_the_mark(venue: Venue) -> None:
    """A target that rode on the entry closes the position on the far side."""
    accept(venue, order(Side.BUY, "3", take_profit=Decimal("101")))

    venue.set_mark("AUSDT", 101.0, NAN, NAN, NOW)

    assert size(venue) == 0


def test_stop_waits_for_liquidity(venue: Venue) -> None:
    """Where the book is too thin the rest stays protected and closes with the next one."""
    accept(venue, order(Side.BUY, "3", stop_loss=Decimal("99")))
    venue.set_book("AUSDT", [(98.0, 1.0)], [(99.5, 1.0)], NOW)
    venue.set_mark("AUSDT", 98.5, NAN, NAN, NOW)
    assert size(venue) == Decimal("2.0")

    venue.set_book("AUSDT", [(98.0, 9.0)], [(99.5, 1.0)], NOW)
    venue.set_mark("AUSDT", 98.5, NAN, NAN, NOW)

    assert size(venue) == 0


def test_funding_is_paid_on_each_symbols_grid(venue: Venue) -> None:
    """A long pays size x mark x rate at the hour, once, and nothing between."""
    accept(venue, order(Side.BUY, "3"))
    venue.drain()
    for moment in (NOW, NOW + HOUR - 1, NOW + HOUR, NOW + HOUR + 1):
        venue.settle_funding(moment)

    reports = [event for event in venue.drain() if isinstance(event, FundingReport)]
    assert [report.amount_usdt for report in reports] == [Decimal("-0.03")]
    assert venue.totals("a")[3] == Decimal("-0.03")
    bill = venue.bills("a")[-1]
    assert (bill.bill_id, bill.kind, bill.fee_usdt) == (reports[0].bill_id, "contract_settle_fee", Decimal(0))
    assert bill.balance_usdt == venue.balance("a")


def test_liquidation_leaves_nothing_open(venue: Venue) -> None:
    """Once equity reaches the maintenance margin everything is closed, also beyond the visible book."""
    one_step = Tier(
        level=1, start_usdt=Decimal(0), end_usdt=Decimal(10**6), leverage_max=50, maintenance_rate=Decimal("0.012")
    )
    venue.set_tiers("AUSDT", (one_step,))
    venue.set_leverage("a", "AUSDT", 50)
    venue.set_book("AUSDT", [(99.99, 5000.0)], [(100.0, 5000.0)], NOW)
    for _ in range(4):
        accept(venue, order(Side.BUY, "1000"))
    venue.set_book("AUSDT", [(97.0, 1.0)], [(97.5, 1.0)], NOW)

    venue.set_mark("AUSDT", 97.5, NAN, NAN, NOW)

    assert venue.positions("a") == []
    assert venue.closed("a")[-1].source == "liquidation"


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (order(Side.BUY, "1", symbol="NOPEUSDT"), "40034"),
        (order(Side.BUY, "0"), "40020"),
        (order(Side.BUY, "1.05"), "40808"),
        (order(Side.BUY, "1", "100.001"), "40808"),
        (order(Side.BUY, "1001"), "45112"),
        (order(Side.BUY, "0.1", "10", kind=OrderKind.LIMIT, symbol="BUSDT"), "45110"),
        (order(Side.BUY, "1", "110.01"), "22006"),
        (order(Side.SELL, "1", "89.99"), "22007"),
        (order(Side.BUY, "1", kind=OrderKind.LIMIT), "40019"),
        (order(Side.BUY, "1", client_oid="with space"), "40304"),
        (order(Side.BUY, "1", client_oid="x" * 51), "40304"),
        (order(Side.BUY, "1", stop_loss=Decimal("100.5")), "40917"),
        (order(Side.SELL, "1", stop_loss=Decimal("99.5")), "45122"),
        (order(Side.BUY, "1", take_profit=Decimal("99.5")), "40915"),
        (order(Side.SELL, "1", take_profit=Decimal("100.5")), "40832"),
        (order(Side.SELL, "1", reduce_only=True), "22002"),
        (order(Side.BUY, "1000"), "40762"),
        (order(Side.BUY, "1", symbol="BUSDT"), "40725"),
        (order(Side.BUY, "1e30"), "40020"),
    ],
)
def test_bad_order_gets_bitgets_code(venue: Venue, request_: OrderRequest, code: str) -> None:
    """Each violation has its own code and changes nothing."""
    assert refuse(venue, request_) == code


def test_step_that_is_no_power_of_ten_has_its_own_codes() -> None:
    """Right decimals off the step are 45115 for prices and 22038 for sizes."""
    venue = Venue([contract(tick="0.05", step="0.5")])
    venue.open_account("a", Decimal(10_000))
    venue.set_book("AUSDT", BIDS, ASKS, NOW)

    assert refuse(venue, order(Side.BUY, "1", "99.99")) == "45115"
    assert refuse(venue, order(Side.BUY, "0.7")) == "22038"


def test_client_oid_is_unique_among_pending_orders_only(venue: Venue) -> None:
    """A final order frees its clientOid: a resent market order would fill twice, at Bitget as here."""
    accept(venue, order(Side.BUY, "1", "99.95", client_oid="one"))
    venue.drain()
    assert refuse(venue, order(Side.BUY, "1", "99.95", client_oid="one")) == "40786"

    accept(venue, order(Side.BUY, "1", client_oid="two"))
    accept(venue, order(Side.BUY, "1", client_oid="two"))

    assert size(venue) == Decimal(2)


def test_cancel_of_unknown_and_of_final_orders_differ(venue: Venue) -> None:
    """Unknown is 40768, too late is 22001."""
    done = accept(venue, order(Side.BUY, "1"))

    unknown = venue.cancel("a", "AUSDT", NOW, client_oid="nope")
    late = venue.cancel("a", "AUSDT", NOW, order_id=done.order_id)

    assert isinstance(unknown, Refusal)
    assert isinstance(late, Refusal)
    assert (unknown.code, late.code) == ("40768", "22001")


def test_modes_cannot_change_under_a_position(venue: Venue) -> None:
    """Position mode is 40920 and margin mode 45117 while something is open; repeating a mode succeeds."""
    accept(venue, order(Side.BUY, "1"))

    mode, margin = venue.set_position_mode("a", "hedge_mode"), venue.set_margin_mode("a", "AUSDT", "isolated")

    assert mode is not None
    assert margin is not None
    assert (mode.code, margin.code) == ("40920", "45117")
    assert venue.set_position_mode("a", "one_way_mode") is None


def test_ack_precedes_matching(venue: Venue) -> None:
    """Accepting makes an order live without trading; matching is a step of its own."""
    answer = venue.accept("a", order(Side.BUY, "1"), NOW)
    assert isinstance(answer, Accepted)
    assert fills(venue) == []

    venue.match("a", answer.order_id, NOW)

    assert fills(venue) == [("100.01", "1")]


def test_books_may_be_arrays_with_absent_levels(venue: Venue) -> None:
    """numpy rows with NaN prices or no size are levels that are not there."""
    venue.set_book("AUSDT", np.array([[99.9, 1.0], [NAN, 0.0]]), np.array([[NAN, 0.0], [100.1, 2.0]]), NOW)

    accept(venue, order(Side.BUY, "1"))

    assert fills(venue) == [("100.1", "1")]


def test_what_we_take_does_not_move_what_a_position_is_worth() -> None:
    """Before the first mark the market's own middle values a position: neither our taking nor a thin book moves it."""
    venue = Venue([contract()])
    venue.open_account("a", Decimal(10_000))
    venue.set_book("AUSDT", BIDS, ASKS, NOW)
    accept(venue, order(Side.BUY, "6"))  # takes the whole touch

    assert venue.mark("AUSDT") == 100
    venue.set_book("AUSDT", BIDS, [], NOW)
    assert venue.mark("AUSDT") == 100
    before = venue.cross_equity("a")
    venue.set_book("AUSDT", [(101.0, 1.0)], [(103.0, 1.0)], NOW)
    assert venue.mark("AUSDT") == 102
    assert venue.cross_equity("a") == venue.equity("a") == before + 6 * 2


def test_stop_of_one_account_may_close_another_that_is_looked_at_after_it(venue: Venue) -> None:
    """A stop that trades with the resting order of the next holder leaves that one flat, and the mark goes on."""
    accept(venue, order(Side.BUY, "1", stop_loss=Decimal(95)), "a")
    accept(venue, order(Side.SELL, "1", stop_loss=Decimal(105)), "b")
    venue.set_book("AUSDT", [(90.0, 1.0)], [(96.0, 1.0)], NOW)
    accept(venue, order(Side.BUY, "1", "95"), "b")

    venue.set_mark("AUSDT", 95.0, 95.0, 0.0, NOW)

    assert size(venue, "a") == size(venue, "b") == 0
