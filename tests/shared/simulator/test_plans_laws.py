"""Laws of trigger orders, over any sequence of prices, trades, entries, plans, changes and cancels.

The reference is written down from the definition, in fractions, and knows nothing of the implementation: it keeps the
prices that each plan could have seen and asks of a whole list what the venue decides one price at a time.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shared.simulator.venue.orders import (
    Accepted,
    ClosedPosition,
    Fill,
    OrderRequest,
    Plan,
    PlanChange,
    PlanReport,
    PlanRequest,
    PlanType,
    PositionSide,
    TriggerType,
)
from shared.simulator.venue.venue import Venue
from shared.types import Contract, OrderKind, Side

D = Decimal
NOW = 1_795_330_800_000_000_000
ACCOUNTS = ("a", "b")
PLAN_SOURCES = {"plan", "trailing", "stop_loss", "take_profit"}
SYMBOL = "AUSDT"

CONTRACT = Contract(
    symbol=SYMBOL, base="A", quote="USDT", status="normal", tick=D("0.01"), size_step=D("0.1"), size_min=D("0.1"),
    notional_min_usdt=D(5), size_max_limit=D(10000), size_max_market=D(1000), price_band_buy=D("0.5"),
    price_band_sell=D("0.5"), maker_fee=D("0.0002"), taker_fee=D("0.0006"), leverage_min=1, leverage_max=50,
    funding_interval_h=8, is_rwa=False, launch_ms=None, off_ms=None,
)  # fmt: skip

sides = st.sampled_from(list(Side))
accounts = st.sampled_from(ACCOUNTS)
moves = st.integers(-100, 100).map(lambda cents: D(cents) / 100)
aways = st.integers(-120, 120).map(lambda cents: D(cents) / 100)
sizes = st.integers(1, 40).map(lambda steps: D(steps) / 10)
trigger_types = st.sampled_from(["mark_price", "fill_price"])
ratios = st.sampled_from([D("0.2"), D("0.5"), D(1), D("2.37")])


class Sight:
    """What one plan could have seen since it was placed or given another trigger."""

    def __init__(self, request: PlanRequest, price: Fraction) -> None:
        self.request = request
        self.placed_at = price
        self.held_at: list[Fraction] = [price]  # where prices stood when it was placed: it may fire, and need not yet
        self.seen: list[Fraction] = [price] if request.callback_ratio is not None else []

    def reached(self, prices: list[Fraction]) -> bool:
        """Tell by the definition whether the condition held at any of the prices."""
        trigger, kind = Fraction(self.request.trigger_price), self.request.plan_type
        sells = self.request.side is Side.SELL
        if kind in ("track_plan", "moving_plan"):
            return self.best_and_fired(prices)[1]
        if kind == "normal_plan":
            if trigger == self.placed_at:
                return bool(prices)
            is_above = trigger > self.placed_at
        else:
            is_above = sells is (kind in ("profit_plan", "pos_profit"))
        return any(price >= trigger if is_above else price <= trigger for price in prices)

    def best_and_fired(self, prices: list[Fraction]) -> tuple[Fraction | None, bool]:
        """Return a trailing plan's best price since its start, and whether any price came back far enough."""
        trigger, sells = Fraction(self.request.trigger_price), self.request.side is Side.SELL
        ratio = Fraction(self.request.callback_ratio or 0) / 100
        started = [n for n, price in enumerate(prices) if (price >= trigger if sells else price <= trigger)]
        if not started:
            return None, False
        since = prices[started[0] :]
        for n in range(len(since)):
            best = max(since[: n + 1]) if sells else min(since[: n + 1])
            if since[n] <= best * (1 - ratio) if sells else since[n] >= best * (1 + ratio):
                return best, True
        return (max(since) if sells else min(since)), False


class PlansMachine(RuleBasedStateMachine):
    """One symbol, two accounts, one venue in the given position mode."""

    mode = "one_way_mode"

    def __init__(self) -> None:
        super().__init__()
        self.venue, self.now_ns = Venue([CONTRACT]), NOW
        self.deposits = {account: D(100_000) for account in ACCOUNTS}
        for account in ACCOUNTS:
            self.venue.open_account(account, self.deposits[account])
            self.venue.set_position_mode(account, self.mode)
            self.venue.set_leverage(account, SYMBOL, 5)
        self.sights: dict[str, Sight] = {}
        self.statuses: dict[str, list[str]] = {}
        self.mid = D(100)
        self.show(self.mid)
        self.settle([])

    # ---------------------------------------------------------------------------------- the world

    def show(self, mid: Decimal, size: float = 500.0) -> None:
        bids = [(float(mid - D(i) / 100), size) for i in range(1, 4)]
        asks = [(float(mid + D(i) / 100), size) for i in range(1, 4)]
        self.venue.set_book(SYMBOL, bids, asks, self.now_ns)

    def now_at(self, trigger_type: TriggerType) -> Fraction:
        last = self.venue.last_price(SYMBOL)
        return Fraction(last if trigger_type == "fill_price" and last is not None else self.mark())

    def mark(self) -> Decimal:
        return self.venue.mark(SYMBOL)

    def position_sides(self) -> list[PositionSide]:
        return ["net"] if self.mode == "one_way_mode" else ["long", "short"]

    def settle(self, marks: list[Decimal]) -> None:
        """Let every plan see the marks of a step, then what the step's events tell, in their order."""
        had_last = self.has_last
        for sight in self.sights.values():
            if sight.request.trigger_type == "mark_price" or not had_last:
                sight.seen += [Fraction(mark) for mark in marks]
        events = self.venue.drain()
        self.closed = {(event.account, event.hold_side) for event in events if isinstance(event, ClosedPosition)}
        for event in events:
            if isinstance(event, Fill):
                assert event.source not in ("liquidation", "offset")  # those would be no trades of the market
                self.saw_last(event.price)
            elif isinstance(event, PlanReport):
                self.told(event.plan)
        self.has_last = self.venue.last_price(SYMBOL) is not None

    has_last = False
    last_fill: Fraction | None = None
    cancelling = ""

    def saw_last(self, price: Decimal) -> None:
        self.last_fill = Fraction(price)
        for sight in self.sights.values():
            if sight.request.trigger_type == "fill_price":
                sight.seen.append(Fraction(price))

    def told(self, plan: Plan) -> None:
        """Follow a plan's life by its reports."""
        known = self.statuses.setdefault(plan.order_id, [])
        known.append(plan.status)
        if plan.status == "live":
            sight = self.sights.get(plan.order_id)
            if sight is None:
                sight = self.sights[plan.order_id] = Sight(plan.request, self.now_at(plan.request.trigger_type))
                if plan.request.trigger_type == "fill_price" and self.last_fill is not None:
                    sight.held_at.append(self.last_fill)  # born in the midst of a step, by this fill
            elif (sight.request.trigger_price, sight.request.trigger_type) != (
                plan.request.trigger_price,
                plan.request.trigger_type,
            ):
                self.sights[plan.order_id] = Sight(plan.request, self.now_at(plan.request.trigger_type))
            else:
                sight.request = plan.request
        elif plan.status == "executing":
            sight = self.sights.pop(plan.order_id)
            assert sight.reached(sight.held_at + sight.seen), (plan, sight.held_at, sight.seen)
        elif plan.status == "cancelled":
            self.sights.pop(plan.order_id)
            protected = "long" if plan.request.side is Side.SELL else "short"
            assert plan.order_id == self.cancelling or (plan.account, protected) in self.closed, plan

    # -------------------------------------------------------------------------------------- rules

    @rule(moves=st.lists(moves, min_size=3, max_size=10))
    def move(self, moves: list[Decimal]) -> None:
        """Other books and other marks, a second each."""
        for change in moves:
            self.now_ns += 1_000_000_000
            self.mid_moved(change)

    def mid_moved(self, change: Decimal, size: float = 500.0) -> None:
        mid = min(max(self.mid + change, D(80)), D(120))
        self.mid = mid
        self.show(mid, size)
        self.settle([])
        self.venue.set_mark(SYMBOL, float(mid), float("nan"), float("nan"), self.now_ns)
        self.settle([mid])

    @rule(change=moves, size=st.sampled_from([0.1, 0.5, 2.0]))
    def thin(self, change: Decimal, size: float) -> None:
        """A book that cannot take much."""
        self.mid_moved(change, size)

    @rule(away=aways)
    def print_trade(self, away: Decimal) -> None:
        """A public trade away from the mark."""
        price = self.mark() + away
        for sight in self.sights.values():
            if sight.request.trigger_type == "fill_price":
                sight.seen.append(Fraction(price))
        self.venue.trade(SYMBOL, float(price), 3.0, Side.BUY, self.now_ns)
        self.settle([])

    @rule(
        account=accounts, side=sides, size=sizes, stop=st.none() | st.integers(1, 400), profit=st.none() | st.integers(1, 400),
        limit=st.none() | aways, at=st.integers(0, 1),
    )  # fmt: skip
    def enter(
        self,
        account: str,
        side: Side,
        size: Decimal,
        stop: int | None,
        profit: int | None,
        limit: Decimal | None,
        at: int,
    ) -> None:
        """An order with or without protections; in hedge mode it opens or closes, as it falls."""
        mark = self.mark()
        request = OrderRequest(
            symbol=SYMBOL, side=side, size=size, kind=OrderKind.MARKET if limit is None else OrderKind.LIMIT,
            price=None if limit is None else (mark + limit).quantize(D("0.01")),
            position_side=self.position_sides()[at % len(self.position_sides())],
            stop_loss=None if stop is None else (mark - side.sign * D(stop) / 100).quantize(D("0.01")),
            take_profit=None if profit is None else (mark + side.sign * D(profit) / 100).quantize(D("0.01")),
        )  # fmt: skip
        self.venue.place(account, request, self.now_ns)
        self.settle([])

    @rule(account=accounts)
    def close_everything(self, account: str) -> None:
        for position in self.venue.positions(account):
            side = Side.SELL if position.size > 0 else Side.BUY
            request = OrderRequest(
                symbol=SYMBOL, side=side, kind=OrderKind.MARKET, size=abs(position.size),
                reduce_only=position.position_side == "net", position_side=position.position_side,
            )  # fmt: skip
            self.venue.place(account, request, self.now_ns)
        self.settle([])

    @rule(
        account=accounts, side=sides, size=sizes, away=aways, trigger_type=trigger_types, ratio=st.none() | ratios,
        limit=st.none() | aways, reduce_only=st.booleans(), at=st.integers(0, 1),
    )  # fmt: skip
    def place_plan(
        self, account: str, side: Side, size: Decimal, away: Decimal, trigger_type: TriggerType, ratio: Decimal | None,
        limit: Decimal | None, reduce_only: bool, at: int,
    ) -> None:  # fmt: skip
        """A trigger order anywhere, or a trailing one on its own side."""
        price = D(str(float(self.now_at(trigger_type)))).quantize(D("0.01"))
        if ratio is not None:
            away = abs(away) * -side.sign
        trigger = price + away
        is_hedge = self.mode != "one_way_mode"
        request = PlanRequest(
            symbol=SYMBOL, plan_type="normal_plan" if ratio is None else "track_plan", side=side, size=size,
            trigger_price=trigger, trigger_type=trigger_type, callback_ratio=ratio,
            execute_price=(trigger + limit).quantize(D("0.01")) if limit is not None and ratio is None else None,
            reduce_only=reduce_only and not is_hedge, position_side=self.position_sides()[at % len(self.position_sides())],
        )  # fmt: skip
        self.place(account, request)

    @rule(
        account=accounts, at=st.integers(0, 1), kind=st.sampled_from(["loss", "profit", "moving"]), away=st.integers(1, 120),
        is_whole=st.booleans(), size=sizes, trigger_type=trigger_types, ratio=ratios,
    )  # fmt: skip
    def protect(
        self, account: str, at: int, kind: str, away: int, is_whole: bool, size: Decimal, trigger_type: TriggerType,
        ratio: Decimal,
    ) -> None:  # fmt: skip
        """A stop, a target or a trailing stop for a position that is there."""
        held = self.venue.positions(account)
        if not held:
            position_side = self.position_sides()[at % len(self.position_sides())]
            entry = Side.SELL if position_side == "short" or (position_side == "net" and at) else Side.BUY
            request_ = OrderRequest(
                symbol=SYMBOL, side=entry, kind=OrderKind.MARKET, size=D(2), position_side=position_side
            )
            self.venue.place(account, request_, self.now_ns)
            self.settle([])
            held = self.venue.positions(account)
        if not held:
            return  # the book was too thin
        position = held[at % len(held)]
        side = Side.SELL if position.size > 0 else Side.BUY
        price = D(str(float(self.now_at(trigger_type)))).quantize(D("0.01"))
        distance = D(away) / 100 * -side.sign * (-1 if kind == "loss" else 1)
        is_whole = is_whole and kind != "moving"
        plan_type: PlanType = {
            "loss": "pos_loss" if is_whole else "loss_plan",
            "profit": "pos_profit" if is_whole else "profit_plan",
            "moving": "moving_plan",
        }[kind]
        request = PlanRequest(
            symbol=SYMBOL, plan_type=plan_type, side=side, size=D(0) if is_whole else min(size, abs(position.size)),
            trigger_price=price + distance, trigger_type=trigger_type, position_side=position.position_side,
            callback_ratio=ratio if kind == "moving" else None,
        )  # fmt: skip
        self.place(account, request)

    def place(self, account: str, request: PlanRequest) -> None:
        price = self.now_at(request.trigger_type)
        answer = self.venue.plans.place(account, request, self.now_ns)
        self.settle([])
        if isinstance(answer, Accepted):
            assert self.sights[answer.order_id].placed_at == price

    @precondition(lambda self: self.sights)
    @rule(data=st.data(), away=aways)
    def change(self, data: st.DataObject, away: Decimal) -> None:
        order_id = data.draw(st.sampled_from(sorted(self.sights)))
        account = next(a for a in ACCOUNTS if self.venue.plans.plan(a, order_id=order_id))
        trigger = self.sights[order_id].request.trigger_price + away
        self.venue.plans.modify(account, PlanChange(trigger_price=trigger), self.now_ns, order_id=order_id)
        self.settle([])

    @precondition(lambda self: self.sights)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        order_id = data.draw(st.sampled_from(sorted(self.sights)))
        account = next(a for a in ACCOUNTS if self.venue.plans.plan(a, order_id=order_id))
        assert isinstance(self.venue.plans.cancel(account, self.now_ns, order_id=order_id), Accepted)
        self.cancelling = order_id
        self.settle([])

    # --------------------------------------------------------------------------------------- laws

    @invariant()
    def live_plans_are_those_that_nothing_reached(self) -> None:
        """What is still live saw no price at which its condition held, and what the venue lists is what was told."""
        live = {plan.order_id: plan for a in ACCOUNTS for plan in self.venue.plans.pending(a)}
        assert set(live) == set(self.sights)
        for order_id, sight in self.sights.items():
            assert live[order_id].request == sight.request
            assert not sight.reached(sight.seen), (live[order_id], sight.seen)

    @invariant()
    def trailing_plans_hang_on_the_extreme(self) -> None:
        """The best price that a trailing plan hangs on is exactly the running extreme since its start."""
        for account in ACCOUNTS:
            for plan in self.venue.plans.pending(account, SYMBOL, ("track_plan", "moving_plan")):
                sight = self.sights[plan.order_id]
                best, _ = sight.best_and_fired(sight.seen)
                assert (None if plan.peak is None else Fraction(plan.peak)) == best

    @invariant()
    def each_plan_fires_at_most_once(self) -> None:
        for order_id, statuses in self.statuses.items():
            told = Counter(statuses)
            assert told["executing"] <= 1
            assert told["executed"] + told["fail_execute"] == told["executing"]
            assert statuses[told["live"] :] in (
                [],
                ["cancelled"],
                ["executing", "executed"],
                ["executing", "fail_execute"],
            ), (
                order_id,
                statuses,
            )

    @invariant()
    def one_order_for_each_executed_plan(self) -> None:
        """Every order that a plan sent has its plan, and every executed plan its order."""
        for account in ACCOUNTS:
            orders = [
                o for o in (*self.venue.pending(account), *self.venue.closed(account)) if o.source in PLAN_SOURCES
            ]
            executed = [p for p in self.venue.plans.history(account) if p.status == "executed"]
            assert sorted(o.order_id for o in orders) == sorted(p.execute_order_id for p in executed)

    @invariant()
    def nothing_protects_what_is_not_there(self) -> None:
        """A protection has its position, on the side that it closes; the position says which."""
        kinds: tuple[PlanType, ...] = ("loss_plan", "profit_plan", "moving_plan", "pos_loss", "pos_profit")
        for account in ACCOUNTS:
            for plan in self.venue.plans.pending(account, None, kinds):
                position = self.venue.position(account, SYMBOL, plan.request.position_side)
                assert position is not None, plan
                assert position.size * plan.request.side.sign < 0, plan
            for position in self.venue.positions(account):
                stop, target = self.venue.plans.protection(account, SYMBOL, position.position_side)
                assert position.stop_loss == (stop.request.trigger_price if stop else None)
                assert position.take_profit == (target.request.trigger_price if target else None)

    @invariant()
    def cash_is_conserved(self) -> None:
        """Plans move no money of their own."""
        for account in ACCOUNTS:
            deposit, realised, fees, funding = self.venue.totals(account)
            assert deposit == self.deposits[account]
            expected = deposit + realised - fees + funding + self.venue.unrealised(account)
            assert self.venue.equity(account) == expected


class HedgePlansMachine(PlansMachine):
    """The same laws with a long and a short side by side."""

    mode = "hedge_mode"


PLAN_KINDS: tuple[PlanType, ...] = ("normal_plan", "track_plan", "moving_plan", "loss_plan", "profit_plan")


@given(
    kind=st.sampled_from(PLAN_KINDS), side=sides, away=st.integers(-200, 200), ratio=st.integers(1, 400),
    steps=st.lists(st.integers(-150, 150), min_size=1, max_size=25),
)  # fmt: skip
@settings(max_examples=250)
def test_plan_fires_at_the_first_price_that_the_definition_says(
    kind: PlanType, side: Side, away: int, ratio: int, steps: list[int]
) -> None:
    """One plan, one path of marks: it fires at the first one at which its condition holds, and at no other."""
    venue = Venue([CONTRACT])
    venue.open_account("a", D(100_000))
    venue.set_book(SYMBOL, [(99.99, 500.0)], [(100.01, 500.0)], NOW)
    venue.set_mark(SYMBOL, 100.0, float("nan"), float("nan"), NOW)
    entry = OrderRequest(symbol=SYMBOL, side=side.opposite, kind=OrderKind.MARKET, size=D(1))
    assert isinstance(venue.place("a", entry, NOW), Accepted)
    if kind != "normal_plan":  # each of the others has a side on which it waits
        away = max(1, abs(away)) * -side.sign * (-1 if kind == "loss_plan" else 1)
    request = PlanRequest(
        symbol=SYMBOL, plan_type=kind, side=side, size=D(1), trigger_price=D(100) + D(away) / 100,
        trigger_type="mark_price", callback_ratio=D(ratio) / 100 if kind in ("track_plan", "moving_plan") else None,
    )  # fmt: skip
    answer = venue.plans.place("a", request, NOW)
    assert isinstance(answer, Accepted), answer
    sight = Sight(request, Fraction(100))
    plan = venue.plans.plan("a", order_id=answer.order_id)
    assert plan is not None

    mark = D(100)
    for step in steps:
        mark = max(D(50), mark + D(step) / 100)
        venue.set_mark(SYMBOL, float(mark), float("nan"), float("nan"), NOW)
        sight.seen.append(Fraction(mark))
        is_over = sight.reached(sight.seen)
        assert (plan.status == "executed") is is_over, (sight.seen, plan)
        if is_over:
            break


def _case(machine: type[PlansMachine]) -> Any:
    case = machine.TestCase
    case.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
    return case


TestPlansOneWay = _case(PlansMachine)
TestPlansHedge = _case(HedgePlansMachine)
