"""Exits: the one place from which a position is ever left. At most one exit works per symbol, with one cause.

    OPERATOR  a clean stop was asked for
    RISK      a limit is latched
    STOP      the exchange's own stop should have closed it by now, and has not
    TARGET    the mid has come as far as was hoped for
    HORIZON   it was held as long as the scores look ahead
    REVERSAL  the scores would enter against it

The first that applies is the cause. The first three act every second, the others when a decision is due.
"""

from __future__ import annotations

from shared import costs
from shared.strategy import orders as life
from shared.strategy.desk import Desk
from shared.strategy.exact import decimal_of, floor_to
from shared.strategy.portfolio import Holding
from shared.strategy.pricing import Pricing
from shared.strategy.scores import Scores
from shared.strategy.sizing import Refusal
from shared.types import NS, Cause, OrderKind, PlaceOrder

EXIT_BACKOFF_S_MAX = 16
URGENT = (Cause.OPERATOR, Cause.RISK, Cause.STOP)


class Exits:
    def __init__(self, desk: Desk, pricing: Pricing, *, is_null: bool) -> None:
        self._desk, self._pricing, self._is_null = desk, pricing, is_null
        self._waits: dict[str, tuple[int, int]] = {}  # symbol -> (ns until which no exit is tried, tries)

    def send(self, second: int, scores: Scores | None, *, is_decision: bool) -> int:
        """Send the exits that are due and return how many."""
        desk, placed = self._desk, 0
        for symbol, holding in sorted(desk.portfolio.holdings.items()):
            cause = self._cause(symbol, holding, second, scores)
            if cause is None or not (is_decision or cause in URGENT):
                continue
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

    def refused(self, symbol: str) -> None:
        """Wait before the next try: 1, 2, 4 … 16 s."""
        tries = self._waits.get(symbol, (0, 0))[1]
        wait_s = min(1 << tries, EXIT_BACKOFF_S_MAX)
        self._waits[symbol] = (self._desk.now_ns + wait_s * NS, min(tries + 1, 10))

    def closed(self, symbol: str) -> None:
        """Forget the refusals of a position that is gone."""
        self._waits.pop(symbol, None)

    def _cause(self, symbol: str, holding: Holding, second: int, scores: Scores | None) -> Cause | None:
        desk = self._desk
        if desk.is_stopping:
            return Cause.OPERATOR
        if desk.risk.latch is not None:
            return Cause.RISK
        if self._is_beyond_stop(holding, second):
            return Cause.STOP
        n = desk.at.get(symbol)
        if n is not None and self._is_target_reached(holding, n):
            return Cause.TARGET
        if second >= holding.entry_second + desk.config.horizon_s:
            return Cause.HORIZON
        if n is not None and self._says_other_side(holding, n, scores):
            return Cause.REVERSAL
        return None

    def _is_beyond_stop(self, holding: Holding, second: int) -> bool:
        """Say whether the exchange's own stop should have closed this by now and has not."""
        config, sign = self._desk.config, holding.side.sign
        stop = holding.stop_price
        if stop is None:  # adopted: nothing rides on it that we know of
            stop = holding.entry_price * (1 - sign * decimal_of(config.stop_bps) / 10_000)
        if holding.mark is None or sign * (holding.mark - stop) > 0:
            holding.stop_second = 0
            return False
        holding.stop_second = holding.stop_second or second
        return second - holding.stop_second >= config.stop_grace_s

    def _is_target_reached(self, holding: Holding, n: int) -> bool:
        target_bps = self._desk.config.target_bps
        if target_bps is None:
            return False
        quote = self._desk.market.quote(n)
        if quote is None:
            return False
        entry = holding.entry_price
        return holding.side.sign * (quote.mid - entry) * 10_000 >= decimal_of(target_bps) * entry

    def _says_other_side(self, holding: Holding, n: int, scores: Scores | None) -> bool:
        """Say whether the scores would enter against this position, by the same gates as an entry."""
        config, market = self._desk.config, self._desk.market
        if scores is None or self._is_null or not scores.is_valid[n]:
            return False
        if scores.direction.item(n) != -holding.side.sign or scores.confidence.item(n) < config.confidence_min:
            return False
        if not scores.margin_of(n) >= config.confidence_margin_min:
            return False
        edge_bps = float(scores.edge_bps[n]) * int(scores.direction[n])
        spread = costs.spread_bps(market.value("bid_price_1", n), market.value("ask_price_1", n))
        return edge_bps > self._pricing.round_trip_bps_of(n, spread)

    def _place(self, symbol: str, holding: Holding, cause: Cause, second: int) -> bool:
        desk = self._desk
        n = desk.at.get(symbol)
        size = abs(holding.size)
        if n is not None:
            contract = desk.universe.contracts[n]
            if contract.size_max_market is not None and size > contract.size_max_market:
                size = floor_to(contract.size_max_market, contract.size_step)
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
        )
        if order.client_oid in desk.orders:
            return False  # one order per decision and leg; the next second has its own
        verdict = desk.risk.approve_exit(order, desk.now_ns)
        if isinstance(verdict, Refusal):
            return False
        desk.place(verdict, second, desk.market.quote(n))
        return True
