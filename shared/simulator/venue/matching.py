"""Matching: price-time priority against the market's book and the resting orders of every account.

The third layer of a venue. Takers walk the visible levels of the market's book and the resting orders, best price
first, the market before us at the same price; what was taken stays taken until the next book. Resting orders fill as
maker at their own price when the opposite touch reaches them, or when public trades do after the size that was visible
ahead of them at their price has traded (or vanished from the book).

To extend: a new kind of order is a case in `_match`.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from shared.simulator.venue import margin
from shared.simulator.venue.accounts import Account
from shared.simulator.venue.clearing import Clearing
from shared.simulator.venue.levels import Book, Ladder, Levels, Resting, decimal_of
from shared.simulator.venue.orders import ZERO, Order, OrderRequest
from shared.types import OrderKind, OrderStatus, Side


class Matching(Clearing):
    """Makes orders, matches them, and lets them rest."""

    # ------------------------------------------------------------------------------------------ making

    def _create(
        self, account: str, request: OrderRequest, now_ns: int, source: str, cost_price: Decimal = ZERO
    ) -> Order:
        held = self._accounts[account]
        closes = request.closes
        size = self._make_room(held, request, now_ns, source) if closes else request.size
        order_id, mode = self.new_id(now_ns), request.margin_mode or self.margin_mode(account, request.symbol)
        if mode != held.margin_modes.get(request.symbol, "crossed"):
            held.margin_modes[request.symbol] = mode  # nothing else is in use there: checked
        is_long = request.side is Side.BUY if request.position_side == "net" else request.position_side == "long"
        order = Order(
            account=account, order_id=order_id,
            client_oid=request.client_oid or ("" if source != "api" else self.new_id(now_ns)),
            symbol=request.symbol, side=request.side, kind=request.kind, size=size, price=request.price,
            reduce_only=closes, stop_loss=request.stop_loss, take_profit=request.take_profit,
            stop_loss_execute=request.stop_loss_execute, take_profit_execute=request.take_profit_execute,
            stop_loss_type=request.stop_loss_type, take_profit_type=request.take_profit_type,
            stp=request.stp, source=source,
            leverage=self.leverage(account, request.symbol, "long" if is_long else "short", mode),
            created_ns=now_ns, updated_ns=now_ns, position_side=request.position_side, margin_mode=mode,
            cost_price=cost_price,
        )  # fmt: skip
        held.pending[order_id] = order
        held.pending_of.setdefault(order.symbol, {})[order_id] = order
        held.order_margins.pop(order.symbol, None)
        if order.client_oid:
            held.client_oids[order.client_oid] = order_id
        self._report(order, now_ns)
        return order

    def _make_room(self, held: Account, request: OrderRequest, now_ns: int, source: str) -> Decimal:
        """Return how much a closing order may close, after other closing orders have gone for it.

        Bitget v2, close-size rules. One-way: if new + existing reduce-only > position, the oldest go first. Hedge: a
        close gets what limit closes leave over, and cancels them where they leave nothing; what the venue itself
        sends (a stop, a liquidation) always goes first.
        """
        position = held.positions[request.symbol, request.position_side]
        whole = abs(position.size)
        rivals = [
            order
            for order in held.pending_of.get(request.symbol, {}).values()
            if order.reduce_only and order.position_side == request.position_side
        ]
        if not rivals:
            return min(request.size, whole)
        occupied = sum((order.remaining for order in rivals), ZERO)
        if request.position_side != "net" and source == "api":
            if occupied < whole:
                return min(request.size, whole - occupied)
            excess = occupied
        else:
            excess = min(request.size, whole) + occupied - whole
        for rival in rivals:
            if excess <= 0:
                break
            excess -= rival.remaining
            self._close(rival, OrderStatus.CANCELED, "normal_cancel", now_ns)
        return min(request.size, whole)

    # ---------------------------------------------------------------------------------------- matching

    def _match(self, order: Order, now_ns: int) -> None:
        limit = self._worst_price(order)
        rests = order.kind in (OrderKind.LIMIT, OrderKind.POST_ONLY)
        if order.kind is OrderKind.POST_ONLY and limit != order.price:
            self._close(order, OrderStatus.CANCELED, "risk_cancel", now_ns)
            return
        if order.kind is OrderKind.POST_ONLY and next(self._offers(order, limit), None) is not None:
            self._close(order, OrderStatus.CANCELED, "post_only_cancel", now_ns)
            return
        if order.kind is OrderKind.FOK and self._takeable(order, limit) < order.remaining:
            self._close(order, OrderStatus.CANCELED, "fok_cancel", now_ns)
            return
        self._take(order, limit, now_ns)
        if order.status.is_final:
            return
        if rests and limit == order.price:
            self._rest(order)
        else:
            reason = "risk_cancel" if rests else f"{order.kind.value}_cancel"
            self._close(order, OrderStatus.CANCELED, reason, now_ns)

    def _worst_price(self, order: Order) -> Decimal | None:
        """Return the worst price at which an order may take, None for any.

        What closes an isolated position never trades beyond its bankruptcy price, so that the position never costs
        more than its margin (Bitget, "Announcement on liquidation risk management", July 2024, which refuses it).
        """
        if not order.reduce_only or order.margin_mode != "isolated":
            return order.price
        position = self._accounts[order.account].positions.get((order.symbol, order.position_side))
        if position is None:
            return order.price
        contract, is_long = self.contracts[order.symbol], position.size > 0
        worth = abs(position.cost) - position.margin_usdt if is_long else abs(position.cost) + position.margin_usdt
        worst = margin.bankruptcy_price(worth, abs(position.size), is_long, contract.taker_fee, contract.tick)
        if order.price is None:
            return worst
        return max(order.price, worst) if is_long else min(order.price, worst)

    def _offers(self, order: Order, limit: Decimal | None) -> Iterator[tuple[Decimal, Decimal, Order | None]]:
        """Return what could be taken, best first: (price, size, resting order or None for the market's book)."""
        sign, k, m = order.side.sign, 0, 0
        book, resting = self._books.get(order.symbol), self._resting.get(order.symbol)
        levels = book.opposite(order.side) if book is not None else Ladder(())
        makers = list(resting.of(order.side.opposite)) if resting else []
        while True:
            level = levels.level(k)
            maker = makers[m] if m < len(makers) else None
            if level is None and maker is None:
                return
            if maker is None or (level is not None and (level[0] - _price(maker)) * sign <= 0):
                assert level is not None
                offer: tuple[Decimal, Decimal, Order | None] = (level[0], level[1], None)
                k += 1
            else:
                offer = (_price(maker), maker.remaining, maker)
                m += 1
            if limit is not None and (offer[0] - limit) * sign > 0:
                return
            yield offer

    def _takeable(self, order: Order, limit: Decimal | None) -> Decimal:
        """Return how much an order would take at once, up to its size."""
        total, wanted = ZERO, min(order.remaining, self._fillable(order))
        left: dict[tuple[str, str], Decimal] = {}  # what the reduce-only makers of an account can still close together
        for _, size, maker in self._offers(order, limit):
            if maker is not None:
                if maker.account == order.account and order.stp != "none":
                    if order.stp == "cancel_maker":
                        continue
                    break
                if maker.reduce_only:
                    owner = (maker.account, maker.position_side)
                    closable = left.get(owner)
                    if closable is None:
                        position = self._accounts[maker.account].positions[maker.symbol, maker.position_side]
                        closable = abs(position.size)
                    size = min(size, closable)
                    left[owner] = closable - size
            total += size
            if total >= wanted:
                return wanted
        return total

    def _take(self, order: Order, limit: Decimal | None, now_ns: int) -> None:
        sign, m = order.side.sign, 0
        book, resting = self._books.get(order.symbol), self._resting.get(order.symbol)
        levels = book.opposite(order.side) if book is not None else None
        makers = list(resting.of(order.side.opposite)) if resting else ()
        while not order.status.is_final:
            while m < len(makers) and makers[m].status.is_final:
                m += 1
            maker = makers[m] if m < len(makers) else None
            level = levels.level() if levels is not None else None
            if maker is not None and (level is None or (level[0] - _price(maker)) * sign > 0):
                price, offered = _price(maker), self._fillable(maker)
            elif level is not None:
                price, offered, maker = level[0], level[1], None
            else:
                return
            if limit is not None and (price - limit) * sign > 0:
                return
            if maker is not None and maker.account == order.account and order.stp != "none":
                if order.stp in ("cancel_maker", "cancel_both"):
                    self._close(maker, OrderStatus.CANCELED, "stp_cancel", now_ns)
                if order.stp in ("cancel_taker", "cancel_both"):
                    self._close(order, OrderStatus.CANCELED, "stp_cancel", now_ns)
                continue
            size = min(offered, self._fillable(order))
            if size > 0:
                if maker is None:
                    assert levels is not None
                    levels.take(size)
                else:
                    self._fill(maker, price, size, is_maker=True, now_ns=now_ns)
                self._fill(order, price, size, is_maker=False, now_ns=now_ns)
            elif offered > 0:
                self._close(order, OrderStatus.CANCELED, "reduce_only_cancel", now_ns)
            if maker is not None and not maker.status.is_final and self._fillable(maker) <= 0:
                self._close(maker, OrderStatus.CANCELED, "reduce_only_cancel", now_ns)
            if order.reduce_only and not order.status.is_final and self._fillable(order) <= 0:
                self._close(order, OrderStatus.CANCELED, "reduce_only_cancel", now_ns)

    def _best_offer(self, symbol: str, side: Side) -> tuple[Decimal, Decimal, Order | None] | None:
        """Return the best that an order of `side` could take (price, size, maker or None for the market), or None."""
        book, resting = self._books.get(symbol), self._resting.get(symbol)
        level = book.opposite(side).level() if book is not None else None
        makers = resting.of(side.opposite) if resting else ()
        if makers and (level is None or (level[0] - _price(makers[0])) * side.sign > 0):
            return _price(makers[0]), self._fillable(makers[0]), makers[0]
        return None if level is None else (level[0], level[1], None)

    # ----------------------------------------------------------------------------------------- resting

    def _rest(self, order: Order) -> None:
        book = self._books.get(order.symbol)
        if book is not None:
            order.queue_ahead = book.own(order.side).size_at(_price(order))
        resting = self._resting.get(order.symbol)
        if resting is None:
            resting = self._resting[order.symbol] = Resting()
        resting.add(order)

    def _show_book(self, symbol: str, bids: Levels, asks: Levels) -> None:
        is_valued_by_books = symbol not in self._marks and bool(self._holders.get(symbol))
        middle_before = self._books[symbol].middle() if is_valued_by_books and symbol in self._books else None
        self._books[symbol] = Book(bids, asks, middle_before)
        if is_valued_by_books:
            self._moved(symbol)

    def _reach_resting(self, symbol: str, now_ns: int) -> None:
        """Fill what a new book reaches."""
        book, resting = self._books[symbol], self._resting[symbol]
        for side in (Side.BUY, Side.SELL):
            orders = resting.of(side)
            if not orders:
                continue
            own, levels, sign = book.own(side), book.opposite(side), side.sign
            for order in list(orders):
                if order.status.is_final:
                    continue  # a fill before it has taken it along
                price = _price(order)
                if order.queue_ahead:
                    # What vanished from our level was ahead of us or behind us; the kinder half is not assumed: only
                    # a level that has become smaller than our queue proves that we moved up.
                    order.queue_ahead = min(order.queue_ahead, own.size_at(price))
                while not order.status.is_final and (level := levels.level()) is not None:
                    if (level[0] - price) * sign > 0:
                        break
                    size = self._fill_resting(order, level[1], now_ns)
                    if size <= 0:
                        break
                    levels.take(size)

    def _pass_trade(self, symbol: str, price: Any, size: Any, taker_side: Side, now_ns: int) -> None:
        """Fill what a public trade has passed through, or has reached after the size ahead."""
        traded, left = decimal_of(price), decimal_of(size)
        for order in list(self._resting[symbol].of(taker_side.opposite)):
            if order.status.is_final:
                continue
            distance = (_price(order) - traded) * order.side.sign
            if distance < 0:
                break
            if distance == 0:
                ahead = min(order.queue_ahead, left)
                order.queue_ahead -= ahead
                left -= ahead
            left -= self._fill_resting(order, left, now_ns)
            if left <= 0:
                break

    def _fill_resting(self, order: Order, offered: Decimal, now_ns: int) -> Decimal:
        """Fill a resting order as maker at its own price, up to `offered`; return how much."""
        size = min(offered, self._fillable(order))
        if size > 0:
            self._fill(order, _price(order), size, is_maker=True, now_ns=now_ns)
        if not order.status.is_final and self._fillable(order) <= 0:
            self._close(order, OrderStatus.CANCELED, "reduce_only_cancel", now_ns)
        return max(size, ZERO)

    def _fillable(self, order: Order) -> Decimal:
        """Return how much of an order may still trade: a closing one never more than the position."""
        if not order.reduce_only:
            return order.remaining
        position = self._accounts[order.account].positions.get((order.symbol, order.position_side))
        if position is None or (position.size > 0) is (order.side is Side.BUY):
            return ZERO
        return min(order.remaining, abs(position.size))


def _price(order: Order) -> Decimal:
    assert order.price is not None
    return order.price
