"""What a server needs of where its market comes from.

`feed.PublicFeed` renders a market that is known second by second; `relay.RelayFeed` passes on what somebody else tells.
The venue's side has one class, `desk.Desk`, and a subclass for the relay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

from shared.simulator.markets.market import Market

WireFrame = tuple[int, str, str, bytes]
"""(time_ns, channel, symbol, WebSocket frame)"""


class Feed(Protocol):
    """Public market data: pushes for sockets, the state of now for REST and new subscribers."""

    @property
    def market(self) -> Market: ...

    def knows(self, symbol: str, now_ns: int | None = None) -> bool:
        """Tell whether the symbol is listed; None: whether it ever is."""

    def wire(
        self, start_ns: int, end_ns: int, wanted: Mapping[str, Collection[str]] | None = None
    ) -> Iterator[WireFrame]:
        """Yield the pushes of [start_ns, end_ns) in time order, as whole frames; wanted: channel -> symbols."""

    def snapshot(self, now_ns: int, channel: str, symbol: str) -> str | None:
        """Return what a new subscriber gets first, None where there is nothing yet."""

    def ticker_fields(self, now_ns: int, symbol: str) -> dict[str, str] | None: ...

    def book_rows(self, now_ns: int, symbol: str, depth: int) -> tuple[list[list[str]], list[list[str]]]:
        """Return (asks, bids) as [price, size], best first."""

    def recent_trades(self, now_ns: int, symbol: str, limit: int) -> list[dict[str, str]]:
        """Return the last trades, newest first."""
