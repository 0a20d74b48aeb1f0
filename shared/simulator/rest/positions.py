"""Bitget's REST v2 for USDT-M futures: positions, and what became of them.

Source: Bitget v2, REST -> Position; payloads recorded in October 2026.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

from shared.simulator import payloads
from shared.simulator.rest.common import HISTORY_DAYS, MIX, Endpoint, Group, Params, margin_coin, paged, text, window
from shared.simulator.venue.orders import VenuePosition


class PositionRest(Group):
    """`/api/v2/mix/position/*`."""

    ENDPOINTS: ClassVar[dict[str, Endpoint]] = {
        MIX + "position/all-position": Endpoint("GET", 5, True, "all_position"),
        MIX + "position/single-position": Endpoint("GET", 10, True, "single_position"),
        MIX + "position/history-position": Endpoint("GET", 20, True, "history_position"),
        MIX + "position/adlRank": Endpoint("GET", 5, True, "adl_rank"),
    }

    def all_position(self, params: Params, key: str) -> Any:
        if not self._is_ours(params) or (text(params, "marginCoin") or "USDT").upper() != "USDT":
            return []
        return [payloads.position_row(self.venue, key, position) for position in self._positions(key)]

    def single_position(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        margin_coin(params)
        return [
            payloads.position_row(self.venue, key, position)
            for position in self._positions(key)
            if position.symbol == symbol
        ]

    def history_position(self, params: Params, key: str) -> Any:
        if text(params, "productType") and not self._is_ours(params):
            return {"list": None, "endId": None}
        window(params, HISTORY_DAYS)
        symbol = text(params, "symbol")
        return paged(
            params,
            (position for position in self.venue.closed_positions(key) if symbol in ("", position.symbol)),
            name="list",
            id_of=lambda position: position.position_id,
            time_ns_of=lambda position: position.time_ns,
            row=payloads.closed_row,
            default=20,
        )

    def adl_rank(self, params: Params, key: str) -> Any:
        """Rank each position among those of its symbol and side: the more profit times leverage, the nearer to 1."""
        if text(params, "productType") and not self._is_ours(params):
            return []
        rows = []
        for position in self._positions(key):
            ours = self._score(key, position)
            scores = [
                self._score(account, other)
                for account in self.venue.accounts
                for other in self.venue.positions(account)
                if (other.symbol, other.hold_side) == (position.symbol, position.hold_side)
            ]
            # Whoever is shown late (a misbehaviour) still ranks among the positions that exist.
            share = Decimal(sum(score <= ours for score in scores)) / max(1, len(scores))
            rank = share.quantize(Decimal("1e-4"))
            rows.append(
                {
                    "symbol": position.symbol, "marginCoin": "USDT", "adlRank": payloads.plain(1 - rank),
                    "rank": payloads.plain(rank), "holdSide": position.hold_side,
                }
            )  # fmt: skip
        return rows

    # ------------------------------------------------------------------------------------ helpers

    def _positions(self, key: str) -> list[VenuePosition]:
        return self.desk.positions(key, self.context.now_ns())

    def _score(self, account: str, position: VenuePosition) -> Decimal:
        profit = position.size * self.venue.mark(position.symbol) - position.cost
        return profit / abs(position.cost) * self.venue.leverage(account, position.symbol, position.hold_side)
