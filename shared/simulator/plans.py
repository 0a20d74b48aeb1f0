"""Trigger orders of a venue: plan orders, stops and targets, trailing ones. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from typing import TYPE_CHECKING

from shared.simulator.orders import Accepted, Fill, Order, Plan, PlanRequest, PlanType, PositionSide, Refusal

if TYPE_CHECKING:
    from shared.simulator.venue import Venue


class Plans:
    """The trigger orders of every account of one venue.

    Args:
        venue: where prices come from and where triggered orders go.
    """

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self.is_broken = False
        """Stops that never trigger: one of the misbehaviours."""

    # ----------------------------------------------------------------------------------- questions

    def symbols(self) -> Collection[str]:
        """Return the symbols with live plans: others need not be watched."""
        return ()

    def pending(
        self, account: str, symbol: str | None = None, plan_types: Collection[PlanType] | None = None
    ) -> list[Plan]:
        """Return the live plans, oldest first."""
        return []

    def history(
        self, account: str, symbol: str | None = None, plan_types: Collection[PlanType] | None = None
    ) -> list[Plan]:
        """Return the remembered plans that are no longer live, oldest first."""
        return []

    def plan(self, account: str, *, order_id: str | None = None, client_oid: str | None = None) -> Plan | None:
        return None

    def pending_count(self, account: str, symbol: str | None = None) -> int:
        return 0

    def protection(self, account: str, symbol: str, position_side: PositionSide) -> tuple[Plan | None, Plan | None]:
        """Return (stop loss, take profit) of the whole position, None where there is none."""
        return None, None

    # -------------------------------------------------------------------------------------- orders

    def place(self, account: str, request: PlanRequest, now_ns: int) -> Accepted | Refusal:
        return Refusal("40404", "Request URL NOT FOUND")

    def modify(
        self,
        account: str,
        now_ns: int,
        *,
        order_id: str | None = None,
        client_oid: str | None = None,
        size: Decimal | None = None,
        trigger_price: Decimal | None = None,
        execute_price: Decimal | None = None,
    ) -> Accepted | Refusal:
        return Refusal("43025", "Plan order does not exist")

    def cancel(
        self,
        account: str,
        now_ns: int,
        *,
        order_id: str | None = None,
        client_oid: str | None = None,
        symbol: str | None = None,
        plan_types: Collection[PlanType] | None = None,
    ) -> Accepted | Refusal:
        return Refusal("43025", "Plan order does not exist")

    # ------------------------------------------------------------------------- what the venue tells

    def watch(self, symbol: str, now_ns: int) -> None:
        """Look at the mark and the last price of a symbol: trail, and trigger what they reach."""

    def position_closed(self, account: str, symbol: str, position_side: PositionSide, now_ns: int) -> None:
        """Remove the stops and targets of a position that is no more."""

    def order_filled(self, order: Order, fill: Fill, now_ns: int) -> None:
        """Make the presets of an entry the stop and the target of its position."""

    def liquidated(self, account: str, now_ns: int) -> None:
        """Cancel every plan of an account that is being liquidated."""
