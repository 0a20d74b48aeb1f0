"""How many events a second the venue takes, without a socket: orders, books with resting orders, marks with positions.

Run it: python -m benchmarks.venue  (half a minute; CPU time, the best of five rounds each)

Uses nothing but what the venue has had from its beginning, so that the same file measures an older checkout.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal

import numpy as np

from shared.simulator.venue.orders import Accepted, OrderRequest
from shared.simulator.venue.venue import Venue
from shared.types import Contract, OrderKind, Side

ROUNDS = 5
NOW_NS = 1_795_330_800_000_000_000
SYMBOLS = tuple(f"S{n:02d}USDT" for n in range(40))


def contract(symbol: str) -> Contract:
    return Contract(
        symbol=symbol, base=symbol[:-4], quote="USDT", status="normal", tick=Decimal("0.01"),
        size_step=Decimal("0.1"), size_min=Decimal("0.1"), notional_min_usdt=Decimal(5), size_max_limit=None,
        size_max_market=None, price_band_buy=Decimal("0.1"), price_band_sell=Decimal("0.1"),
        maker_fee=Decimal("0.0002"), taker_fee=Decimal("0.0006"), leverage_min=1, leverage_max=50,
        funding_interval_h=8, is_rwa=False, launch_ms=None, off_ms=None,
    )  # fmt: skip


def venue() -> Venue:
    made = Venue([contract(symbol) for symbol in SYMBOLS])
    made.settle_funding(NOW_NS)
    for account in ("a", "b"):
        made.open_account(account, Decimal(10_000_000))
    for symbol in SYMBOLS:
        made.set_book(symbol, *sides(0, 5), NOW_NS)
        made.set_mark(symbol, 100.0, 100.0, 0.0001, NOW_NS)
    return made


def sides(k: int, depth: int) -> tuple[list[list[float]], list[list[float]]]:
    """Return a book around 100 that moves by a few ticks with `k`."""
    mid = 10_000 + k % 5
    bids = [[(mid - 1 - level) / 100, 50.0 + level] for level in range(depth)]
    asks = [[(mid + 1 + level) / 100, 50.0 + level] for level in range(depth)]
    return bids, asks


def request(symbol: str, side: Side, size: str, price: str | None = None, stop: str | None = None) -> OrderRequest:
    return OrderRequest(
        symbol=symbol, side=side, kind=OrderKind.MARKET if price is None else OrderKind.LIMIT, size=Decimal(size),
        price=None if price is None else Decimal(price), stop_loss=None if stop is None else Decimal(stop),
    )  # fmt: skip


def place(made: Venue, account: str, wanted: OrderRequest) -> None:
    answer = made.place(account, wanted, NOW_NS)
    assert isinstance(answer, Accepted), answer


def taken(made: Venue, n: int) -> int:
    """Market orders that take from the market's touch, a new book after each tenth."""
    for k in range(n):
        if k % 10 == 0:
            made.set_book(SYMBOLS[0], *sides(k, 15), NOW_NS)
        place(made, "a", request(SYMBOLS[0], Side.BUY if k % 2 else Side.SELL, "2"))
        made.drain()
    return n


def crossed(made: Venue, n: int) -> int:
    """Limit orders of one account that rest, and limit orders of another that take them."""
    for _ in range(n // 2):
        place(made, "a", request(SYMBOLS[0], Side.BUY, "2", "100.00"))
        place(made, "b", request(SYMBOLS[0], Side.SELL, "2", "100.00"))
        made.drain()
    return n


def rested(made: Venue, n: int) -> int:
    """Books of 50 levels a side that reach none of 100 resting orders."""
    if not made.pending("a"):
        for k in range(50):
            place(made, "a", request(SYMBOLS[0], Side.BUY, "1", str(Decimal(9_990 - k) / 100)))
            place(made, "b", request(SYMBOLS[0], Side.SELL, "1", str(Decimal(10_010 + k) / 100)))
    books = [sides(k, 50) for k in range(5)]
    for k in range(n):
        made.set_book(SYMBOLS[0], *books[k % 5], NOW_NS)
    made.drain()
    return n


def lived(made: Venue, n: int) -> int:
    """Rows of a backtest: 40 held symbols with stops, each with a new book (an array) and mark; an entry or exit."""
    if not made.positions("a"):
        for symbol in SYMBOLS:
            place(made, "a", request(symbol, Side.BUY, "10", stop="90.00"))
    books = [tuple(np.array(side) for side in sides(k, 5)) for k in range(5)]
    for k in range(n):
        bids, asks = books[k % 5]
        for symbol in SYMBOLS:
            made.set_book(symbol, bids, asks, NOW_NS)
            made.set_mark(symbol, 100.0 + k % 5 / 100, 100.0, 0.0001, NOW_NS)
        made.settle_funding(NOW_NS)
        place(made, "a", request(SYMBOLS[k % 40], Side.BUY if k // 40 % 2 else Side.SELL, "1"))
        made.equity("a")
        made.available("a")
        made.drain()
    return n * len(SYMBOLS) * 2 + n


WORK: tuple[tuple[str, Callable[[Venue, int], int], int], ...] = (
    ("orders that take from the market", taken, 3000),
    ("orders between two accounts", crossed, 3000),
    ("books beside 100 resting orders", rested, 1000),
    ("books, marks and orders of a backtest", lived, 60),
)


def main() -> None:
    for name, work, n in WORK:
        made, best = venue(), float("inf")
        for _ in range(ROUNDS):
            began_s = time.process_time()
            done = work(made, n)
            best = min(best, (time.process_time() - began_s) / done)
        print(f"{name:40s} {1 / best:10,.0f}/s   {best * 1e6:7.1f} us each")


if __name__ == "__main__":
    main()
