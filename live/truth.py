"""The exchange's truth as one `Adopted`: read before anything is done, and again after any doubt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from shared.bitget.wire import Account
from shared.types import Adopted, Filled, PendingOrder, Position


class Truths(Protocol):
    """What must be readable; `RestClient` is one."""

    async def account(self, symbol: str) -> Account: ...

    async def positions(self) -> tuple[Position, ...]: ...

    async def pending(self) -> tuple[PendingOrder, ...]: ...

    async def fills(
        self, *, symbol: str = "", order_id: str = "", client_oid: str = "", start_ms: int = 0
    ) -> tuple[Filled, ...]: ...


async def read_truth(
    venue: Truths,
    symbol: str,
    leverage: Mapping[str, int],
    clock: Callable[[], int],
    *,
    fills_since_ns: int | None = None,
) -> Adopted:
    """Return pending orders, positions, equity and fills, read in this order.

    They are requests of their own, and a fill may come between them: whoever compares must ask twice before believing.
    Fills are read last: all that is in the positions is then among them.

    Args:
        symbol: any listed one; Bitget wants it for the account.
        leverage: obtained so far; a symbol that is absent may not be opened.
        fills_since_ns: None: nobody wants fills.
    """
    orders = await venue.pending()
    positions = await venue.positions()
    account = await venue.account(symbol)
    fills: tuple[Filled, ...] = ()
    if fills_since_ns is not None:
        fills = await venue.fills(start_ms=max(fills_since_ns // 1_000_000, 1))
    return Adopted(
        recv_ns=clock(),
        equity_usdt=account.equity_usdt,
        available_usdt=account.available_usdt,
        positions=positions,
        orders=orders,
        leverage=dict(leverage),
        fills=fills,
    )


def say_open(positions: tuple[Position, ...], orders: tuple[PendingOrder, ...] = ()) -> str:
    """Say what is open, in a few words for a person; "" where nothing is."""
    parts = [f"{position.symbol} {position.size:+f}" for position in positions]
    parts += [f"order {order.client_oid or order.order_id} in {order.symbol}" for order in orders]
    return ", ".join(parts)
