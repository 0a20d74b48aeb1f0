"""One symbol's market for tests of trigger orders, and short words for what is placed."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from shared.simulator.venue.orders import Accepted, OrderRequest, Plan, PlanRequest, Refusal
from shared.simulator.venue.venue import Venue
from shared.types import Contract, OrderKind, Side

D = Decimal
NOW = 1_795_330_800_000_000_000
NAN = float("nan")


def contract(symbol: str = "AUSDT", **more: Any) -> Contract:
    fields: dict[str, Any] = {
        "symbol": symbol, "base": symbol[:-4], "quote": "USDT", "status": "normal", "tick": D("0.01"),
        "size_step": D("0.1"), "size_min": D("0.1"), "notional_min_usdt": D(5), "size_max_limit": D(10000),
        "size_max_market": D(1000), "price_band_buy": D("0.1"), "price_band_sell": D("0.1"),
        "maker_fee": D("0.0002"), "taker_fee": D("0.0006"), "leverage_min": 1, "leverage_max": 50,
        "funding_interval_h": 8, "is_rwa": False, "launch_ms": None, "off_ms": None,
    }  # fmt: skip
    return Contract(**(fields | more))


class Market:
    """One venue, its clock and its prices; every step is a second later than the one before."""

    def __init__(self) -> None:
        self.venue = Venue([contract(), contract("BUSDT")])
        self.now_ns = NOW
        for account in ("a", "b"):
            self.venue.open_account(account, D(10_000))
        self.price("100")

    @property
    def plans(self) -> Any:
        return self.venue.plans

    def book(self, mid: str, size: float = 1000.0) -> None:
        tick = D("0.01")
        bids = [(float(D(mid) - tick * (i + 1)), size) for i in range(3)]
        asks = [(float(D(mid) + tick * (i + 1)), size) for i in range(3)]
        self.venue.set_book("AUSDT", bids, asks, self.now_ns)

    def price(self, mid: str, size: float = 1000.0) -> None:
        """Show a book and a mark at `mid`."""
        self.now_ns += 1_000_000_000
        self.book(mid, size)
        self.venue.set_mark("AUSDT", float(mid), float(mid), NAN, self.now_ns)

    def trade(self, price: str, taker: Side = Side.BUY) -> None:
        """Let the public trade at a price; the mark stays."""
        self.now_ns += 1_000_000_000
        self.venue.trade("AUSDT", float(price), 1.0, taker, self.now_ns)

    def enter(self, side: Side, size: str, account: str = "a", **more: Any) -> None:
        request = OrderRequest(symbol="AUSDT", side=side, kind=OrderKind.MARKET, size=D(size), **more)
        answer = self.venue.place(account, request, self.now_ns)
        assert isinstance(answer, Accepted), answer

    def place(self, request: PlanRequest, account: str = "a") -> Plan:
        answer = self.venue.plans.place(account, request, self.now_ns)
        assert isinstance(answer, Accepted), answer
        plan = self.venue.plans.plan(account, order_id=answer.order_id)
        assert plan is not None
        assert plan.client_oid == answer.client_oid
        return plan

    def refuse(self, request: PlanRequest, account: str = "a") -> str:
        """Return the code of a refusal, which leaves no trace."""
        self.venue.drain()
        before = self.venue.plans.pending(account)
        answer = self.venue.plans.place(account, request, self.now_ns)
        assert isinstance(answer, Refusal), answer
        assert self.venue.plans.pending(account) == before
        assert self.venue.drain() == []
        return answer.code

    def size(self, account: str = "a") -> Decimal:
        position = self.venue.position(account, "AUSDT")
        return position.size if position is not None else D(0)


def trigger(side: Side, at: str, size: str = "1", **more: Any) -> PlanRequest:
    fields: dict[str, Any] = {"plan_type": "normal_plan", "trigger_type": "mark_price"} | more
    return PlanRequest(symbol="AUSDT", side=side, size=D(size), trigger_price=D(at), **fields)


def trailing(side: Side, at: str, ratio: str, **more: Any) -> PlanRequest:
    return trigger(side, at, callback_ratio=D(ratio), **({"plan_type": "track_plan"} | more))


def whole(side: Side, at: str, plan_type: str, **more: Any) -> PlanRequest:
    return trigger(side, at, "0", plan_type=plan_type, **more)


def status(plan: Plan) -> str:
    """Return the status now: mypy would believe that it stays what an assertion saw."""
    return plan.status
