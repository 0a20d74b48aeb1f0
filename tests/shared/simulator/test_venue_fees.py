"""Fees by volume, and the two calls for a caller that keeps the queues of resting orders itself."""

from __future__ import annotations

from shared.simulator.venue.orders import FeeTier, Fill, VenueRules
from shared.types import Side
from tests.shared.simulator.venue_made import NOW, D, accept, made, order

DAY = 86_400 * 10**9
TIERS = (FeeTier(D(0), D("0.0002"), D("0.0006")), FeeTier(D(1_000), D("0.0001"), D("0.0004")))


def test_tier_holds_from_midnight_to_midnight() -> None:
    """What is traded today moves the fee tomorrow, and has left it thirty days later."""
    venue = made(VenueRules(fee_tiers=TIERS))

    accept(venue, order(Side.BUY, "20"))

    assert venue.fee_rate("a", "AUSDT", is_maker=False, now_ns=NOW) == D("0.0006")
    for days, taker, maker in ((1, "0.0004", "0.0001"), (30, "0.0004", "0.0001"), (31, "0.0006", "0.0002")):
        then = NOW + days * DAY
        assert venue.fee_rate("a", "AUSDT", is_maker=False, now_ns=then) == D(taker), days
        assert venue.fee_rate("a", "AUSDT", is_maker=True, now_ns=then) == D(maker), days
    assert venue.fee_rate("b", "AUSDT", is_maker=False, now_ns=NOW + DAY) == D("0.0006")


def test_fill_pays_the_tier_of_volume_traded_elsewhere() -> None:
    """Volume that an account brings with it lowers the fee of its very first fill."""
    venue = made(VenueRules(fee_tiers=TIERS))
    venue.note_traded("a", NOW // DAY - 1, D(1_000))
    venue.drain()

    accept(venue, order(Side.BUY, "2"))

    fill = next(event for event in venue.drain() if isinstance(event, Fill))
    assert fill.fee_usdt == D("100.01") * 2 * D("0.0004")


def test_without_tiers_everybody_pays_the_contract() -> None:
    """Without tiers volume changes nothing and is not counted."""
    venue = made()
    venue.note_traded("a", NOW // DAY - 1, D(10**9))

    assert venue.fee_rate("a", "AUSDT", is_maker=False, now_ns=NOW) == D("0.0006")


def test_shown_book_fills_nothing_that_rests() -> None:
    """A book that is shown crosses a resting order without filling it; `fill_resting` fills it at its own price."""
    venue = made()
    resting = accept(venue, order(Side.BUY, "3", "99.98"))
    venue.drain()

    venue.show_book("AUSDT", [(99.90, 5.0)], [(99.95, 5.0)])

    assert venue.drain() == []
    assert venue.fill_resting("a", resting.order_id, D(1), NOW) == D(1)
    assert venue.fill_resting("a", resting.order_id, D(9), NOW) == D(2)
    assert venue.fill_resting("a", resting.order_id, D(1), NOW) == 0
    assert [(fill.price, fill.size, fill.is_maker) for fill in venue.fills("a")] == [
        (D("99.98"), D(1), True),
        (D("99.98"), D(2), True),
    ]
