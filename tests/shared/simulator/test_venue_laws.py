"""Laws of the venue over any sequence of what can happen to it: cash, positions, the book, closing orders, bankruptcy.

Three accounts trade with the market and with one another, in both position modes and both margin modes. The reference
is a ledger folded over the events alone. In one symbol there is no market: whatever trades there, trades between
accounts, so it adds up to nothing.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from shared.simulator.venue.margin import tier_at
from shared.simulator.venue.orders import (
    Accepted,
    ClosedPosition,
    Fill,
    FundingReport,
    Order,
    OrderReport,
    OrderRequest,
    PlanRequest,
    PositionSide,
    Refusal,
    VenuePosition,
    VenueRules,
)
from shared.simulator.venue.venue import Venue
from shared.types import Contract, OrderKind, Side, Tier

D = Decimal
ZERO = D(0)
ULP = D("1e-18")
NOW = 1_795_330_800_000_000_000
HOUR = 3_600_000_000_000
ACCOUNTS = ("a", "b", "c")
AMONG_US = "CUSDT"  # no market there
SYMBOLS = ("BUSDT", AMONG_US)
FORCED = ("liquidation", "reduction", "offset")

accounts = st.sampled_from(ACCOUNTS)
symbols = st.sampled_from(SYMBOLS)
sides = st.sampled_from(Side)
cents = st.integers(9_500, 10_500)
steps = st.integers(1, 2000)
hold_sides = st.sampled_from(["long", "short", None])


def contract(symbol: str) -> Contract:
    return Contract(
        symbol=symbol, base=symbol[:-4], quote="USDT", status="normal", tick=D("0.01"), size_step=D("0.1"),
        size_min=D("0.1"), notional_min_usdt=D(5), size_max_limit=D(10000), size_max_market=D(1000),
        price_band_buy=D("0.3"), price_band_sell=D("0.3"), maker_fee=D("0.0002"), taker_fee=D("0.0006"),
        leverage_min=1, leverage_max=50, funding_interval_h=8 if symbol == AMONG_US else 4, is_rwa=False,
        launch_ms=None, off_ms=None,
    )  # fmt: skip


Key = tuple[str, str, str]  # account, symbol, position side


class Laws(RuleBasedStateMachine):
    """Anything may happen; the invariants hold after each step, most of them after each event."""

    seen: ClassVar[dict[str, int]] = {}

    @initialize()
    def open(self) -> None:
        rules = VenueRules(orders_per_symbol_max=12, orders_max=20, positions_max=3)
        self.venue = Venue([contract(symbol) for symbol in SYMBOLS], rules)
        self.now = NOW
        self.venue.settle_funding(self.now)
        self.cash: dict[str, Decimal] = {}  # by account
        self.sizes: dict[Key, Decimal] = {}
        self.margins: dict[Key, Decimal] = {}  # of isolated positions
        self.among_us = self.outside = ZERO  # cash and size of all accounts in the symbol without a market
        self.insured = ZERO
        self.is_slow = False  # acks come at once, matches when `match` says so
        self.unmatched: list[tuple[str, str]] = []
        for account in ACCOUNTS:
            self.venue.open_account(account, D(1000))
            self.cash[account] = D(1000)
        assert self.venue.set_position_mode("b", "hedge_mode") is None
        ladder = ((1, 0, 2_000, 50, "0.01"), (2, 2_000, 5_000, 50, "0.012"), (3, 5_000, 10**6, 50, "0.015"))
        self.venue.set_tiers(
            "BUSDT",
            tuple(
                Tier(level=level, start_usdt=D(start), end_usdt=D(end), leverage_max=most, maintenance_rate=D(rate))
                for level, start, end, most, rate in ladder
            ),
        )
        for symbol in SYMBOLS:
            assert self.venue.set_margin_mode("c", symbol, "isolated") is None
            for account in ACCOUNTS:
                self.venue.set_leverage(account, symbol, 50)
            self.venue.set_mark(symbol, D(100), D(100), D("0.0001"), self.now)
            self.show(symbol, 10_000, 2, 5)

    # ---------------------------------------------------------------------------------------- the market

    @rule(symbol=symbols, mid=cents, half=st.integers(1, 30), lots=st.integers(1, 1000))
    def show(self, symbol: str, mid: int, half: int, lots: int) -> None:
        if symbol == AMONG_US:
            self.venue.set_book(symbol, [], [], self.now)
            return
        bids = [((mid - half - k) / 100, (lots + k) / 10) for k in range(5)]
        asks = [((mid + half + k) / 100, (lots + 2 * k) / 10) for k in range(5)]
        self.venue.set_book(symbol, bids, asks, self.now)

    @rule(symbol=symbols, mark=st.one_of(cents, st.integers(7_000, 13_000)), rate=st.integers(-30, 30))
    def value(self, symbol: str, mark: int, rate: int) -> None:
        """Move the mark: an isolated position that is lost takes nothing with it but its margin."""
        free = {account: self.free(account) for account in ACCOUNTS}
        n_events = len(self.venue._events)

        self.venue.set_mark(symbol, mark / 100, mark / 100, rate / 10_000, self.now)

        fills = [event for event in self.venue._events[n_events:] if isinstance(event, Fill)]
        for account in ACCOUNTS:
            mine = [fill for fill in fills if fill.account == account]
            if not mine or any(fill.source != "liquidation" for fill in mine):
                continue
            if self.venue.margin_mode(account, symbol) == "isolated":
                self.see("isolated liquidation")
                assert self.free(account) >= free[account]
            elif not any(p.margin_mode == "crossed" for p in self.venue.positions(account)):
                self.see("crossed liquidation")
                assert self.free(account) >= 0

    def free(self, account: str) -> Decimal:
        return self.venue.balance(account) - self.venue.isolated_margin(account)

    @rule(symbol=st.just("BUSDT"), price=cents, lots=st.integers(1, 1500), side=sides)
    def trade(self, symbol: str, price: int, lots: int, side: Side) -> None:
        self.venue.trade(symbol, price / 100, lots / 10, side, self.now)

    @rule(hours=st.integers(1, 9))
    def fund(self, hours: int) -> None:
        self.now += hours * HOUR
        self.venue.settle_funding(self.now)

    @rule(
        symbol=symbols, step=st.sampled_from(["0.1", "0.1", "0.5"]), tick=st.sampled_from(["0.01", "0.01", "0.05"]),
        status=st.sampled_from(["normal", "normal", "normal", "normal", "limit_open", "maintain"]),
        leverage_max=st.sampled_from([25, 50, 75]),
    )  # fmt: skip
    def relist(self, symbol: str, step: str, tick: str, status: str, leverage_max: int) -> None:
        """Change the trading rules between two requests."""
        changed = msgspec.structs.replace(
            contract(symbol), size_step=D(step), tick=D(tick), status=status, leverage_max=leverage_max
        )
        self.venue.set_contract(changed)

    @rule(really=st.sampled_from([False, False, True]))
    def delist(self, really: bool) -> None:
        """End the symbol that has a market; it may come back."""
        if really:
            self.venue.delist("BUSDT", self.now)
            assert not any(p.symbol == "BUSDT" for account in ACCOUNTS for p in self.venue.positions(account))
            self.see("delisted")

    # ------------------------------------------------------------------------------------------ orders

    def sided(self, account: str, side: Side, closes: bool) -> PositionSide:
        if self.venue.position_mode(account) == "one_way_mode":
            return "net"
        return "long" if (side is Side.BUY) is not closes else "short"

    @rule(
        account=accounts, symbol=symbols, side=sides, kind=st.sampled_from(OrderKind), lots=steps, price=cents,
        closes=st.sampled_from([False, False, True]), away=st.integers(-600, 600),
        stp=st.sampled_from(["none", "none", "cancel_maker", "cancel_taker", "cancel_both"]),
        mode=st.sampled_from([None, None, None, "crossed", "isolated"]),
    )  # fmt: skip
    def place(
        self, account: str, symbol: str, side: Side, kind: OrderKind, lots: int, price: int, closes: bool, away: int,
        stp: str, mode: Any,
    ) -> None:  # fmt: skip
        is_one_way = self.venue.position_mode(account) == "one_way_mode"
        request = OrderRequest(
            symbol=symbol, side=side, kind=kind, size=D(lots) / 10, price=None if kind is OrderKind.MARKET else D(price) / 100,
            reduce_only=closes or not is_one_way, position_side=self.sided(account, side, closes), stp=stp, margin_mode=mode,
            stop_loss=D(price - side.sign * away) / 100 if away > 300 and not closes else None,
            take_profit=D(price - side.sign * away) / 100 if away < -300 and not closes else None,
        )  # fmt: skip
        self.send(account, request)

    @rule(
        account=accounts, which=st.integers(0, 3), kind=st.sampled_from(OrderKind), price=cents,
        share=st.sampled_from([20, 50, 70, 100, 130]),
    )  # fmt: skip
    def close(self, account: str, which: int, kind: OrderKind, price: int, share: int) -> None:
        """Close a share of what is open, or wait to."""
        positions = self.venue.positions(account)
        if not positions:
            return
        position = positions[which % len(positions)]
        request = OrderRequest(
            symbol=position.symbol, side=Side.SELL if position.size > 0 else Side.BUY, kind=kind,
            size=max(D("0.1"), abs(position.size) * share // 10 / 10), position_side=position.position_side,
            price=None if kind is OrderKind.MARKET else D(price) / 100, reduce_only=position.position_side == "net",
        )  # fmt: skip
        self.send(account, request)

    @rule(account=accounts, which=st.integers(0, 3), lots=st.integers(-30, 30))
    def cut(self, account: str, which: int, lots: int) -> None:
        """Trade against a position by about its size: in one-way mode that may turn it under what waits to close it."""
        positions = self.venue.positions(account)
        if not positions:
            return
        position = positions[which % len(positions)]
        request = OrderRequest(
            symbol=position.symbol, side=Side.SELL if position.size > 0 else Side.BUY, kind=OrderKind.MARKET,
            size=max(D("0.1"), abs(position.size) + D(lots) / 10), position_side=position.position_side,
        )  # fmt: skip
        self.send(account, request)

    @rule(account=accounts, symbol=symbols, side=sides, price=cents, lots=steps, data=st.data())
    def meet(self, account: str, symbol: str, side: Side, price: int, lots: int, data: st.DataObject) -> None:
        """Let two accounts trade with one another."""
        other = data.draw(st.sampled_from([name for name in ACCOUNTS if name != account]))
        for name, its in ((account, side), (other, side.opposite)):
            self.send(
                name,
                OrderRequest(
                    symbol=symbol, side=its, kind=OrderKind.LIMIT, size=D(lots) / 10, price=D(price) / 100,
                    position_side=self.sided(name, its, False),
                ),
            )  # fmt: skip

    def send(self, account: str, request: OrderRequest) -> None:
        before = msgspec.structs.replace  # a refusal changes nothing: neither orders nor money
        known = [before(order) for order in self.venue.pending(account)], self.venue.balance(account)
        answer = self.venue.accept(account, request, self.now)
        if not isinstance(answer, Accepted):
            self.see(f"refused {answer.code}")
            assert (self.venue.pending(account), self.venue.balance(account)) == known
            return
        order = self.venue.order(account, order_id=answer.order_id)
        assert order is not None
        held = self.venue.position(account, request.symbol, request.position_side)
        covered = held is not None and held.size * request.side.sign < 0
        if not order.reduce_only and not covered:
            assert self.venue.available(account) >= 0
        if self.is_slow:
            self.unmatched.append((account, answer.order_id))
        else:
            self.venue.match(account, answer.order_id, self.now)
        self.see(f"{order.position_side} {order.margin_mode}")

    @rule(is_slow=st.booleans())
    def slow_down(self, is_slow: bool) -> None:
        self.is_slow = is_slow

    @rule(which=st.integers(0, 5))
    def match(self, which: int) -> None:
        """Match an order some time after its ack, whatever has happened to it and its position meanwhile."""
        if self.unmatched:
            self.venue.match(*self.unmatched.pop(which % len(self.unmatched)), self.now)
            self.see("matched later")

    @rule(account=accounts, which=st.integers(0, 5))
    def cancel(self, account: str, which: int) -> None:
        pending = self.venue.pending(account)
        if pending:
            found = pending[which % len(pending)]
            self.venue.cancel(account, found.symbol, self.now, order_id=found.order_id)

    @rule(
        account=accounts, which=st.integers(0, 5), lots=st.one_of(st.none(), steps), price=cents,
        stop=st.one_of(st.none(), st.just(0), cents),
    )  # fmt: skip
    def modify(self, account: str, which: int, lots: int | None, price: int, stop: int | None) -> None:
        pending = self.venue.pending(account)
        if not pending:
            return
        found = pending[which % len(pending)]
        answer = self.venue.modify(
            account, found.symbol, self.now, order_id=found.order_id, new_client_oid=f"m-{self.now}-{len(self.sizes)}",
            new_size=None if lots is None else D(lots) / 10, new_price=None if lots is None else D(price) / 100,
            new_stop_loss=None if stop is None else D(stop) / 100,
        )  # fmt: skip
        if isinstance(answer, Accepted):
            self.see("modified in place" if answer.order_id == found.order_id else "modified")
            assert found.status.is_final is (answer.order_id != found.order_id)

    @rule(account=accounts, symbol=st.one_of(st.none(), symbols), hold_side=hold_sides)
    def flash_close(self, account: str, symbol: str | None, hold_side: str | None) -> None:
        done, _ = self.venue.close_at_market(account, self.now, symbol, hold_side)
        self.see("flash close" if done else "nothing to close")

    @rule(account=accounts, symbol=symbols, hold_side=hold_sides)
    def reverse(self, account: str, symbol: str, hold_side: str | None) -> None:
        if isinstance(self.venue.reverse(account, symbol, self.now, hold_side=hold_side), Accepted):
            self.see("reversed")

    @rule(
        account=accounts, symbol=symbols, side=sides, lots=steps, price=cents,
        plan_type=st.sampled_from(["normal_plan", "track_plan", "profit_plan", "loss_plan", "pos_loss", "pos_profit"]),
        closes=st.booleans(),
    )  # fmt: skip
    def plan(self, account: str, symbol: str, side: Side, lots: int, price: int, plan_type: Any, closes: bool) -> None:
        closes = closes or plan_type not in ("normal_plan", "track_plan")
        is_one_way = self.venue.position_mode(account) == "one_way_mode"
        request = PlanRequest(
            symbol=symbol, plan_type=plan_type, side=side, size=ZERO if plan_type[:3] == "pos" else D(lots) / 10,
            trigger_price=D(price) / 100, trigger_type="mark_price" if lots % 2 else "fill_price",
            callback_ratio=D(1) if plan_type == "track_plan" else None, reduce_only=closes and is_one_way,
            position_side=self.sided(account, side, closes),
        )  # fmt: skip
        if isinstance(self.venue.plans.place(account, request, self.now), Accepted):
            self.see(plan_type)

    # ---------------------------------------------------------------------------------------- settings

    @rule(account=accounts, amount=st.integers(-500, 500))
    def deposit(self, account: str, amount: int) -> None:
        """Pay in, or take out what is free."""
        if amount > 0 or self.venue.available(account) >= -amount:
            self.venue.deposit(account, D(amount))
            self.cash[account] += amount

    @rule(account=accounts, symbol=symbols, leverage=st.integers(0, 60), hold_side=hold_sides)
    def lever(self, account: str, symbol: str, leverage: int, hold_side: str | None) -> None:
        equity, free = self.venue.equity(account), self.venue.available(account)
        margin = self.venue.isolated_margin(account)
        answer = self.venue.set_leverage(account, symbol, leverage, hold_side)
        assert self.venue.equity(account) == equity
        if isinstance(answer, Refusal):
            assert (self.venue.available(account), self.venue.isolated_margin(account)) == (free, margin)
        elif self.venue.available(account) < free:
            assert self.venue.available(account) >= 0
        for position in self.venue.positions(account):
            if position.margin_mode == "isolated":
                self.margins[account, position.symbol, position.position_side] = position.margin_usdt

    @rule(account=accounts, symbol=symbols, hold_side=st.sampled_from(["long", "short"]), amount=st.integers(-200, 200))
    def add_margin(self, account: str, symbol: str, hold_side: str, amount: int) -> None:
        equity, free, margin = (
            ask(account) for ask in (self.venue.equity, self.venue.available, self.venue.isolated_margin)
        )

        refusal = self.venue.set_margin(account, symbol, hold_side, D(amount), self.now)

        moved = ZERO if refusal is not None else D(amount)
        if moved:
            self.margins[account, symbol, self.sided(account, Side.BUY, hold_side == "short")] += moved
        assert self.venue.isolated_margin(account) - margin == moved
        assert self.venue.equity(account) == equity
        assert abs(self.venue.available(account) - free + moved) < ULP
        if moved:
            self.see("margin moved")
            assert moved < 0 or free >= moved

    @rule(account=accounts, symbol=symbols, mode=st.sampled_from(["crossed", "isolated"]))
    def set_margin_mode(self, account: str, symbol: str, mode: str) -> None:
        self.venue.set_margin_mode(account, symbol, mode)

    @rule(account=accounts, mode=st.sampled_from(["one_way_mode", "hedge_mode"]))
    def set_position_mode(self, account: str, mode: str) -> None:
        is_used = bool(
            self.venue.positions(account) or self.venue.pending(account) or self.venue.plans.pending(account)
        )
        before = self.venue.position_mode(account)
        refusal = self.venue.set_position_mode(account, mode)
        assert (refusal is not None) is (is_used and mode != before)

    # -------------------------------------------------------------------------------------- invariants

    @invariant()
    def events_explain_everything(self) -> None:
        """The ledger folded over fills and funding is the account: positions, cash, equity, totals and bills."""
        spent_before, sizes_before = self.among_us, self.total_among_us()
        for event in self.venue.drain():
            if isinstance(event, Fill):
                self.fold(event)
            elif isinstance(event, FundingReport):
                self.cash[event.account] += event.amount_usdt
                is_hedged = self.venue.position_mode(event.account) == "hedge_mode"
                side = "net" if not is_hedged else "long" if event.size > 0 else "short"
                if (event.account, event.symbol, side) in self.margins:
                    self.margins[event.account, event.symbol, side] += event.amount_usdt
            elif isinstance(event, ClosedPosition):
                self.see("closed position")
                assert event.closed_size == event.opened_size > 0
            elif isinstance(event, OrderReport):
                assert event.order.filled <= event.order.size
                if event.fill is not None:
                    self.set_aside(event.order, event.fill)
        for account in ACCOUNTS:
            held = {(account, p.symbol, p.position_side): p for p in self.venue.positions(account)}
            mine = {key: size for key, size in self.sizes.items() if key[0] == account and size}
            assert {key: position.size for key, position in held.items()} == mine
            self.hold_account(account, list(held.values()))
        # Where only accounts trade, cash moves between them; the fund's rest goes to the market at the mark.
        gained, self.insured = self.venue.insurance_usdt - self.insured, self.venue.insurance_usdt
        gained -= sum((t.gain_usdt for t in self.new_takeovers() if t.symbol != AMONG_US), ZERO)
        went = sizes_before - self.total_among_us()
        assert self.among_us - spent_before + gained == went * self.venue.mark(AMONG_US)

    def new_takeovers(self) -> list[Any]:
        taken = list(self.venue.takeovers)
        self.venue.takeovers.clear()
        return taken

    def total_among_us(self) -> Decimal:
        return sum((size for (_, symbol, _), size in self.sizes.items() if symbol == AMONG_US), ZERO)

    def fold(self, fill: Fill) -> None:
        key = fill.account, fill.symbol, fill.position_side
        signed, before = fill.size * fill.side.sign, self.sizes.get(key, ZERO)
        self.sizes[key] = before + signed
        self.cash[fill.account] -= signed * fill.price + fill.fee_usdt
        if fill.symbol == AMONG_US:
            self.among_us -= signed * fill.price
        self.see(f"fill by {fill.source}")
        if fill.closes:  # a closing order never exceeds the position
            assert before * signed < 0
            assert abs(signed) <= abs(before)
        assert fill.position_side != "long" or self.sizes[key] >= 0
        assert fill.position_side != "short" or self.sizes[key] <= 0

    def set_aside(self, order: Order, fill: Fill) -> None:
        """Fold the margin of an isolated position: a fill before this report has moved its size already."""
        key = fill.account, fill.symbol, fill.position_side
        after = self.sizes[key]
        before = after - fill.size * fill.side.sign
        opening = fill.size if before * fill.side.sign >= 0 else max(ZERO, fill.size - abs(before))
        if opening < fill.size and key in self.margins:
            share = self.margins[key] * (fill.size - opening) / abs(before)
            rest = self.margins[key] - share
            self.margins[key] = rest - min(max(ZERO, -fill.realised_usdt - share), max(ZERO, rest))
        if after == 0 or (opening < fill.size and opening):
            self.margins.pop(key, None)
        if opening and order.margin_mode == "isolated":
            self.margins[key] = self.margins.get(key, ZERO) + opening * fill.price / order.leverage

    def hold_account(self, account: str, positions: list[VenuePosition]) -> None:
        venue = self.venue
        worth = sum((p.size * venue.mark(p.symbol) for p in positions), ZERO)
        assert venue.equity(account) == self.cash[account] + worth
        deposits, realised, fees, funding = venue.totals(account)
        assert venue.equity(account) == deposits + realised - fees + funding + venue.unrealised(account)
        moved = ("append_margin", "reduce_margin")
        billed = sum((b.amount_usdt - b.fee_usdt for b in venue.bills(account) if b.kind not in moved), ZERO)
        assert venue.balance(account) == deposits + billed
        isolated = sum((venue.unrealised(account, p.symbol) for p in positions if p.margin_mode == "isolated"), ZERO)
        if venue.position_mode(account) == "one_way_mode":
            assert venue.cross_equity(account) == venue.equity(account) - venue.isolated_margin(account) - isolated
        used = venue.margin_used(account) - venue.isolated_margin(account)
        gap = venue.cross_equity(account) - used - venue.available(account)
        assert abs(gap) < ULP, gap  # a division may not end
        for position in positions:
            key = account, position.symbol, position.position_side
            assert (position.margin_mode == "isolated") is (key in self.margins)
            assert abs(position.margin_usdt - self.margins.get(key, ZERO)) < D("1e-9")
            assert position.cost * position.size > 0
            assert venue.margin_ratio(account, position) > 0
            venue.liquidation_price(account, position)

    @invariant()
    def nothing_is_remembered_that_has_moved(self) -> None:
        """What is at risk and what is free follow from balance, positions, marks and ladders of this very moment."""
        for account in ACCOUNTS:
            equity, required, initial = self.venue.balance(account), ZERO, ZERO
            largest: dict[str, Decimal] = {}  # of the two sides of a hedge
            for position in self.venue.positions(account):
                symbol = position.symbol
                if position.margin_mode == "isolated":
                    equity -= position.margin_usdt
                    continue
                value = position.size * self.venue.mark(symbol)
                equity += value - position.cost
                initial += abs(value) / self.venue.leverage(account, symbol)
                largest[symbol] = max(largest.get(symbol, ZERO), abs(value))
            for symbol, value in largest.items():
                rate = tier_at(self.venue.tiers(symbol), value).maintenance_rate
                required += value * (rate + self.venue.contracts[symbol].taker_fee)
            assert self.venue.cross_equity(account) == equity
            assert self.venue.maintenance(account) == required
            waiting = sum((self.margin_of_orders(account, symbol) for symbol in self.venue.contracts), ZERO)
            assert abs(self.venue.order_margin(account) - waiting) < Decimal("1e-18")
            assert abs(self.venue.available(account) - (equity - initial - waiting)) < Decimal("1e-18")

    def margin_of_orders(self, account: str, symbol: str) -> Decimal:
        """Return what orders hold that would open something: in one-way mode what closes first holds nothing."""
        net, total = self.venue.position(account, symbol), ZERO
        closable = ZERO if net is None else abs(net.size)
        for order in self.venue.pending(account):
            if order.symbol != symbol or order.reduce_only:
                continue
            opens = order.size - order.filled
            if net is not None and net.size * order.side.sign < 0:
                closes = min(closable, opens)
                closable, opens = closable - closes, opens - closes
            total += opens * order.cost_price / order.leverage
        return total

    @invariant()
    def book_never_crosses_itself(self) -> None:
        """No resting bid at or above a resting ask, whoever they belong to."""
        for symbol in SYMBOLS:
            waiting = {order_id for _, order_id in self.unmatched}
            pending = [order for account in ACCOUNTS for order in self.venue.pending(account)]
            rest = [order for order in pending if order.symbol == symbol and order.order_id not in waiting]
            bids = [o.price for o in rest if o.side is Side.BUY and o.price is not None]
            asks = [o.price for o in rest if o.side is Side.SELL and o.price is not None]
            assert not bids or not asks or max(bids) < min(asks)

    @invariant()
    def orders_are_within_their_bounds(self) -> None:
        """No order is filled beyond its size; closing orders wait only beside a position that they close; caps hold."""
        for account in ACCOUNTS:
            pending = self.venue.pending(account)
            assert len(pending) <= 20
            assert len(self.venue.positions(account)) <= 6
            for found in pending:
                assert ZERO <= found.filled < found.size
                assert not found.status.is_final
                assert sum(other.symbol == found.symbol for other in pending) <= 12
                if found.reduce_only:
                    held = self.venue.position(account, found.symbol, found.position_side)
                    assert held is not None
                    assert held.size * found.side.sign < 0

    def see(self, what: str) -> None:
        self.seen[what] = self.seen.get(what, 0) + 1


def test_laws_hold_whatever_happens() -> None:
    """Orders of every kind, both position and margin modes, plans, books, marks, funding, money and rule changes."""
    run_state_machine_as_test(Laws, settings=settings(max_examples=120, stateful_step_count=50, deadline=None))


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_laws_hold_for_long() -> None:
    """The same at length; and it does meet what the laws are about."""
    Laws.seen.clear()

    run_state_machine_as_test(Laws, settings=settings(max_examples=2500, stateful_step_count=80, deadline=None))

    wanted = {"isolated liquidation", "crossed liquidation", "modified", "reversed", "flash close", "margin moved"}
    wanted |= {
        "fill by delivery",
        "net crossed",
        "net isolated",
        "long crossed",
        "long isolated",
        "short isolated",
        "closed position",
    }
    wanted |= {f"fill by {source}" for source in ("api", "plan", "trailing", *FORCED)}
    assert wanted <= set(Laws.seen), wanted - set(Laws.seen)
