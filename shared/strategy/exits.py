"""Exits: the one place from which a position is ever left. At most one exit works per symbol, with one cause.

    OPERATOR  a clean stop was asked for
    RISK      a limit is latched
    STOP      the exchange's own stop should have closed it by now, and has not
    TARGET    the mid has come as far as was hoped for
    HORIZON   it was held as long as the scores look ahead, and they do not renew it
    REVERSAL  the scores would enter against it, cost and all
    DECAY     the score that entered is gone: for some decisions in a row its edge did not pay for staying

The first that applies is the cause. The first three act every second, the others when a decision is due.

Hysteresis: to enter, an edge must pay a round trip; to stay, only what staying costs (`stay_edge_bps` and the funding
that falls due), because the exit is paid now or later. A position whose horizon ends while its edge pays to stay is
renewed, unless better ones wait: it must rank within top_k x (1 + `rank_buffer`) of its side, where a newcomer, net of
its own round trip, counts as better only by `newcomer_margin_bps`. What a null scorer or another hand opened is never
renewed and never decays.

What is held may be less than the exchange takes an order of: an entry that was cancelled after its first fill, an exit
that found half a book, a contract whose minimum has grown. Such dust leaves by the exchange's own flash close of the
whole position, one every `FLASH_EVERY_NS`: foreseen where the contract's rules say so (`sizing.is_dust`), learnt where
the exchange refuses an exit for its size. The cause is the exit's own either way.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from shared.strategy import orders as life
from shared.strategy.desk import Desk
from shared.strategy.exact import decimal_of
from shared.strategy.orders import Order
from shared.strategy.portfolio import Holding
from shared.strategy.pricing import View
from shared.strategy.ranking import Gate, Gates
from shared.strategy.sizing import Refusal, closing_size, is_dust
from shared.types import NS, Cause, Floats, OrderKind, PlaceOrder

EXIT_BACKOFF_S_MAX = 16

FLASH_EVERY_S = 2
FLASH_EVERY_NS = FLASH_EVERY_S * NS - NS // 2
"""On seconds whose closing jitters. Bitget: close-positions 1/s, of which the shell uses four fifths."""

SIZE_CODES = frozenset({"22034", "22038", "40808", "43027", "43037", "45110", "45111", "45112", "45114"})
"""Bitget v2, Error codes: an order is too small, too large or off the step. What closes whole has no size."""


class Challengers:
    """The newcomers of a decision: who passed the gates, on which side, and what for, bps net of a round trip."""

    def __init__(self, why: Gates, direction: NDArray[np.int8], worth_bps: Floats) -> None:
        self._why, self._direction, self._worth_bps = why, direction, worth_bps
        self._of_side: dict[int, Floats] = {}  # sign -> what each of them is worth; nobody, until somebody asks

    def n_above(self, sign: int, bps: float) -> int:
        """Return how many would enter on this side for more than so much."""
        worth_bps = self._of_side.get(sign)
        if worth_bps is None:
            is_here = (self._why == int(Gate.CHOSEN)) & (self._direction == sign)
            worth_bps = self._of_side[sign] = self._worth_bps[is_here]
        return int(np.count_nonzero(worth_bps > bps))


NOBODY = Challengers(np.zeros(0, np.uint8), np.zeros(0, np.int8), np.zeros(0))


class Exits:
    def __init__(self, desk: Desk, *, is_null: bool) -> None:
        self._desk, self._is_null = desk, is_null
        self._waits: dict[str, tuple[int, int]] = {}  # symbol -> (ns until which no exit is tried, tries)
        self._misfits: set[str] = set()  # symbols whose exit was refused for its size
        self._flashed_ns = -FLASH_EVERY_NS  # when the last flash close was sent

    def send(self, second: int, view: View | None, challengers: Challengers = NOBODY) -> int:
        """Send the exits that are due and return how many.

        Args:
            view: of this second's decision; None: it is none, and only what is urgent acts.
        """
        desk, placed = self._desk, 0
        leavers = []
        due = self._due(second, view)
        for_all = self._cause_for_all()
        for symbol, holding in sorted(desk.portfolio.holdings.items()):
            cause = for_all
            if cause is None and self._is_beyond_stop(holding, second):
                cause = Cause.STOP
            if cause is None and view is not None:
                cause = self._cause(symbol, holding, second, view, due, challengers)
            if cause is not None:
                leavers.append((symbol, holding, cause))
        for symbol, holding, cause in leavers:
            desk.chases.pop(symbol, None)
            working = desk.orders.working_in(symbol)
            if any(order.reduce_only for order in working) or symbol in desk.truth.doubts:
                continue
            if working:  # an entry that is not finished: it could fill behind the exit's back
                for order in working:
                    order.wants_cancel = order.rests
                    desk.cancel_if_wanted(order)
                continue
            if self._waits.get(symbol, (0, 0))[0] > desk.now_ns:
                continue
            placed += self._place(symbol, holding, cause, second)
        return placed

    def misfits(self, order: Order, code: str) -> bool:
        """Say whether an exit was refused for its size alone: the next one is a flash close then."""
        if order.is_flash or code not in SIZE_CODES:
            return False
        self._misfits.add(order.symbol)
        return True

    def refused(self, symbol: str) -> None:
        """Wait before the next try: 1, 2, 4 … 16 s."""
        self._misfits.discard(symbol)  # what was learnt may be wrong by now: the next one goes by the rules
        tries = self._waits.get(symbol, (0, 0))[1]
        wait_s = min(1 << tries, EXIT_BACKOFF_S_MAX)
        self._waits[symbol] = (self._desk.now_ns + wait_s * NS, min(tries + 1, 10))

    def closed(self, symbol: str) -> None:
        """Forget the refusals of a position that is gone."""
        self._waits.pop(symbol, None)
        self._misfits.discard(symbol)

    # ---------------------------------------------------------------------------------------------- the causes

    def _cause_for_all(self) -> Cause | None:
        """Return why everything must be left now, None where nothing says so."""
        if self._desk.is_stopping:
            return Cause.OPERATOR
        return Cause.RISK if self._desk.risk.latch is not None else None

    def _due(self, second: int, view: View | None) -> dict[str, float]:
        """Return whose horizon ends now, and by how much the edge of each pays more than staying costs, bps."""
        due: dict[str, float] = {}
        if view is None:
            return due
        for symbol, holding in self._desk.portfolio.holdings.items():
            if holding.until_second is None:
                holding.until_second = holding.entry_second + self._desk.bandit.horizon_s(symbol)
            if second >= holding.until_second:
                n = self._desk.at.get(symbol)
                has_opinion = n is not None and not self._is_null and holding.entry_cause is Cause.ENTRY
                due[symbol] = self._stay_bps(holding, n, view) if n is not None and has_opinion else math.nan
        return due

    def _cause(
        self,
        symbol: str,
        holding: Holding,
        second: int,
        view: View,
        due: dict[str, float],
        challengers: Challengers,
    ) -> Cause | None:
        n = self._desk.at.get(symbol)
        if n is not None and self._is_target_reached(holding, n):
            return Cause.TARGET
        if symbol in due:
            if not self._renews(symbol, holding, second, due, challengers):
                return Cause.HORIZON
            holding.until_second = second + self._desk.bandit.horizon_s(symbol)
        if n is None or self._is_null:
            return None
        if view.is_sure(n, -holding.sign):
            return Cause.REVERSAL
        return Cause.DECAY if self._has_decayed(holding, n, view) else None

    def _is_beyond_stop(self, holding: Holding, second: int) -> bool:
        """Say whether the exchange's own stop should have closed this by now and has not."""
        mark, stop, sign = holding.mark, holding.stop_price, holding.sign
        if stop is None:  # adopted: nothing rides on it that we know of
            stop = holding.entry_price * (1 - sign * decimal_of(self._desk.config.stop_bps) / 10_000)
        if mark is None or (mark > stop if sign > 0 else mark < stop):
            holding.stop_second = 0
            return False
        holding.stop_second = holding.stop_second or second
        return second - holding.stop_second >= self._desk.config.stop_grace_s

    def _is_target_reached(self, holding: Holding, n: int) -> bool:
        target_bps = self._desk.config.target_bps
        if target_bps is None:
            return False
        quote = self._desk.market.quote(n)
        if quote is None:
            return False
        entry = holding.entry_price
        return holding.sign * (quote.mid - entry) * 10_000 >= decimal_of(target_bps) * entry

    def _stay_bps(self, holding: Holding, n: int, view: View) -> float:
        """Return by how much the edge pays more than staying costs; NaN where there is no score."""
        sign = holding.sign
        return view.edge_toward(n, sign) - self._desk.config.stay_edge_bps - view.funding_toward(n, sign)

    def _renews(
        self, symbol: str, holding: Holding, second: int, due: dict[str, float], challengers: Challengers
    ) -> bool:
        """Say whether a position whose horizon ends is held for another one."""
        config, stay_bps = self._desk.config, due[symbol]
        if not stay_bps > 0.0:  # NaN: nobody says that it should stay
            return False
        if second - holding.entry_second > (config.horizons_max - 1) * self._desk.bandit.horizon_s(symbol):
            return False
        rank = 1 + challengers.n_above(holding.sign, stay_bps + config.newcomer_margin_bps)
        for name, other in self._desk.portfolio.holdings.items():
            if other.side is holding.side and name != symbol:
                rank += due.get(name, math.inf) > stay_bps  # who is not due is not asked: he stays
        return rank <= config.top_k * (1.0 + config.rank_buffer)

    def _has_decayed(self, holding: Holding, n: int, view: View) -> bool:
        config = self._desk.config
        if not config.decay_decisions or holding.entry_cause is not Cause.ENTRY:
            return False
        holding.faded = holding.faded + 1 if self._stay_bps(holding, n, view) < 0.0 else 0
        return holding.faded >= config.decay_decisions

    # ----------------------------------------------------------------------------------------------- the order

    def _place(self, symbol: str, holding: Holding, cause: Cause, second: int) -> bool:
        desk = self._desk
        n = desk.at.get(symbol)
        size = abs(holding.size)
        is_flash = self._is_dust(symbol, holding, n)
        if is_flash:
            if desk.now_ns - self._flashed_ns < FLASH_EVERY_NS:
                return False
        elif n is not None:
            size = closing_size(desk.universe.contracts[n], size)
        order = PlaceOrder(
            client_oid=life.client_oid(desk.session, second, symbol, "exit"),
            symbol=symbol,
            side=holding.side.opposite,
            kind=OrderKind.MARKET,
            size=size,
            price=None,
            reduce_only=True,
            stop_price=None,
            cause=cause,
            is_flash=is_flash,
        )
        if order.client_oid in desk.orders:
            return False  # one order per decision and leg; the next second has its own
        verdict = desk.risk.approve_exit(order, desk.now_ns)
        if isinstance(verdict, Refusal):
            return False
        if is_flash:
            self._flashed_ns = desk.now_ns
            why = "its exit was refused for its size" if symbol in self._misfits else "no order may be so small"
            desk.note("exit.flashed", symbol=symbol, size=str(size), client_oid=order.client_oid, reason=why)
        desk.place(verdict, second, desk.market.quote(n))
        return True

    def _is_dust(self, symbol: str, holding: Holding, n: int | None) -> bool:
        """Say whether only the exchange itself can close this position."""
        if symbol in self._misfits:
            return True
        if n is None:
            return False  # nobody knows its rules: the exchange will say
        return is_dust(self._desk.universe.contracts[n], abs(holding.size), holding.mark)
