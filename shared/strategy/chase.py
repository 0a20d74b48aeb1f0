"""Chases: a post-only entry from its first order to its end, through the orders that carry it one after another.

    rests at its own touch ──the touch moved away──> cancel ──gone──> rests at the new touch     (`chases_max` times)
          │                                                   (refused by the exchange because it would have taken: too)
          ├──filled──> over
          └──`entry_wait_s` since the first order──> cancel ──gone──> taken, if the edge pays for a taker *now*; or over

* One order at a time: the next one is sent when the one before is done, its last fill counted, never while it is
  unknown, being cancelled or waits for fills. Each has a name (client_oid) of its own.
* What is followed is asked about again each time: the scores must still want to enter, at the cost of the kind of
  order that comes next. A null scorer claims no edge: it follows, and never takes.
* A latch, a stop, a link that is down, a doubt, an exit, a refusal or an absence end it. What is over never comes back.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from shared.strategy.config import EngineConfig
from shared.strategy.desk import Chase, Desk
from shared.strategy.orders import Order, State
from shared.strategy.pricing import Pricing, View
from shared.types import NS, OrderKind


class Next(msgspec.Struct, frozen=True):
    """The order that should carry a chase on."""

    chase: Chase
    kind: OrderKind  # POST_ONLY at the touch now, or MARKET
    size: Decimal


class Chases:
    """Decides what becomes of every chase; `entries` sizes, asks risk and places."""

    def __init__(self, desk: Desk, pricing: Pricing, *, is_null: bool) -> None:
        self._desk, self._pricing, self._is_null = desk, pricing, is_null

    @property
    def _config(self) -> EngineConfig:
        return self._desk.config

    def begin(self, order: Order, n: int) -> None:
        """Follow a post-only entry that was just sent, in symbol n of the universe."""
        desk = self._desk
        desk.chases[order.symbol] = Chase(order, n, deadline_ns=desk.now_ns + self._config.entry_wait_s * NS)

    def due(self, view: View | None) -> list[Next]:
        """Cancel what should move or end, and return what should be sent next.

        Args:
            view: of this second's decision; None: it is none, so nobody can say what an edge still pays.
        """
        desk, found = self._desk, []
        for chase in list(desk.chases.values()):
            order = desk.orders.get(chase.client_oid)
            if order is None or chase.symbol in desk.truth.doubts:
                self.end(chase)
            elif not order.is_done:
                self._watch(chase, order)
            elif order.state is not State.CANCELED or chase.wanted <= chase.filled + order.filled:
                self.end(chase)  # filled; refused or absent, which is somebody else's cooldown
            else:
                following = self._following(chase, order, view)
                if following is not None:
                    found.append(following)
        return found

    def _watch(self, chase: Chase, order: Order) -> None:
        """Cancel an order that waited for long enough, or whose touch has moved away."""
        is_over = self._desk.now_ns >= chase.deadline_ns
        if not order.wants_cancel and order.rests and (is_over or self._has_moved_away(chase, order)):
            order.wants_cancel = True
            self._desk.cancel_if_wanted(order)

    def _has_moved_away(self, chase: Chase, order: Order) -> bool:
        """Say whether somebody bids more (asks less) than this order does, and it may still follow."""
        quote = self._desk.market.quote(chase.n)
        if quote is None or order.price is None or chase.n_moves >= self._config.chases_max:
            return False
        return order.side.sign * (quote.touch(order.side.opposite) - order.price) > 0

    def _following(self, chase: Chase, order: Order, view: View | None) -> Next | None:
        """Return the next order of an entry whose last one is cancelled and done, None where it waits or is over."""
        is_late = self._desk.now_ns >= chase.deadline_ns
        may_move = not is_late and chase.n_moves < self._config.chases_max
        if view is None:
            return None  # asked again at the next decision
        left = chase.wanted - chase.filled - order.filled
        sign = order.side.sign
        if may_move and (self._is_null or view.is_sure(chase.n, sign)) and self._is_tradable(chase.n, view):
            return Next(chase, OrderKind.POST_ONLY, left)
        if not may_move and order.rests and self._may_take(chase.n, sign, view):
            return Next(chase, OrderKind.MARKET, left)
        self.end(chase)
        self._desk.rest(chase.symbol, self._config.cooldown_s)
        return None

    def _may_take(self, n: int, sign: int, view: View) -> bool:
        if not self._config.entry_fallback or self._is_null or not self._is_tradable(n, view):
            return False
        if not view.is_sure(n, sign):
            return False
        return self._pricing.taker_net_bps(view, n, sign, self._desk.market) > 0.0

    def _is_tradable(self, n: int, view: View) -> bool:
        """Say whether the book is one that an entry may meet; NaN says no."""
        config, market = self._config, self._desk.market
        is_fresh = market.silence_s(n, view.second) <= config.stale_s_max
        is_tight = view.spread_bps.item(n) <= config.spread_bps_max
        return is_fresh and is_tight and view.depth_usdt.item(n) >= config.depth_usdt_min

    def sent(self, chase: Chase, order: Order) -> None:
        """Note the order that carries a chase now."""
        desk = self._desk
        before = desk.orders.get(chase.client_oid)
        chase.filled += before.filled if before is not None else Decimal(0)
        chase.client_oid, chase.n_moves = order.client_oid, chase.n_moves + 1
        desk.note(
            "order.chased",
            client_oid=order.client_oid,
            symbol=order.symbol,
            kind=str(order.kind),
            move=chase.n_moves,
            size=str(order.size),
            price=str(order.price) if order.price is not None else None,
        )

    def end(self, chase: Chase) -> None:
        """Let an entry be what it has become."""
        self._desk.chases.pop(chase.symbol, None)
