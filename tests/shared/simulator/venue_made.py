"""A venue with two accounts and two symbols around 100, and short words for what tests do with it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from shared.simulator.venue.orders import Accepted, Order, OrderRequest, PositionSide, Refusal, VenueRules
from shared.simulator.venue.venue import Venue
from shared.types import Contract, OrderKind, Side, Tier

D = Decimal
NOW = 1_795_330_800_000_000_000
HOUR = 3_600_000_000_000
NAN = float("nan")
BIDS, ASKS = [(99.99, 5.0), (99.98, 10.0), (99.97, 20.0)], [(100.01, 5.0), (100.02, 10.0), (100.03, 20.0)]
ONE_STEP = (
    Tier(level=1, start_usdt=D(0), end_usdt=D(10**7), leverage_max=50, maintenance_rate=D("0.01")),
)  # of a risk ladder


def contract(symbol: str = "AUSDT", **changes: Any) -> Contract:
    made = Contract(
        symbol=symbol, base=symbol[:-4], quote="USDT", status="normal", tick=D("0.01"), size_step=D("0.1"),
        size_min=D("0.1"), notional_min_usdt=D(5), size_max_limit=D(10000), size_max_market=D(1000),
        price_band_buy=D("0.1"), price_band_sell=D("0.1"), maker_fee=D("0.0002"), taker_fee=D("0.0006"),
        leverage_min=1, leverage_max=50, funding_interval_h=1, is_rwa=False, launch_ms=None, off_ms=None,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def made(rules: VenueRules | None = None, *, hedged: bool = False, isolated: bool = False, leverage: int = 10) -> Venue:
    venue = Venue([contract(), contract("BUSDT")], rules)
    venue.settle_funding(NOW)
    for account in ("a", "b"):
        venue.open_account(account, D(10_000))
        if hedged:
            assert venue.set_position_mode(account, "hedge_mode") is None
        for symbol in ("AUSDT", "BUSDT"):
            if isolated:
                assert venue.set_margin_mode(account, symbol, "isolated") is None
            assert venue.set_leverage(account, symbol, leverage) == leverage
    for symbol in ("AUSDT", "BUSDT"):
        venue.set_tiers(symbol, ONE_STEP)
        venue.set_book(symbol, BIDS, ASKS, NOW)
        venue.set_mark(symbol, 100.0, 100.0, 0.0001, NOW)
    return venue


def order(side: Side, size: str, price: str | None = None, **more: Any) -> OrderRequest:
    kind = OrderKind.MARKET if price is None else OrderKind.LIMIT
    fields: dict[str, Any] = {"symbol": "AUSDT", "side": side, "kind": kind, "size": D(size)} | more
    return OrderRequest(**fields, price=None if price is None else D(price))


def accept(venue: Venue, request: OrderRequest, account: str = "a") -> Order:
    """Place an order that must be taken, and return what became of it."""
    answer = venue.place(account, request, NOW)
    assert isinstance(answer, Accepted), answer
    found = venue.order(account, order_id=answer.order_id)
    assert found is not None
    return found


def refuse(venue: Venue, request: OrderRequest, account: str = "a") -> str:
    """Place an order that must be refused and change nothing, and return the code."""
    venue.drain()
    before = venue.pending(account), venue.balance(account), venue.available(account)
    answer = venue.place(account, request, NOW)
    assert isinstance(answer, Refusal), answer
    assert (venue.pending(account), venue.balance(account), venue.available(account)) == before
    assert venue.drain() == []
    return answer.code


def size(venue: Venue, account: str = "a", side: PositionSide = "net", symbol: str = "AUSDT") -> Decimal:
    position = venue.position(account, symbol, side)
    return position.size if position else D(0)


def deep(venue: Venue, bid: float = 99.99, ask: float = 100.01, symbol: str = "AUSDT") -> None:
    """Show a book with more than anybody takes."""
    venue.set_book(symbol, [(bid, 100_000.0)], [(ask, 100_000.0)], NOW)


def mark(venue: Venue, price: float, symbol: str = "AUSDT") -> None:
    venue.set_mark(symbol, price, NAN, NAN, NOW)
