"""Doubt: where the ledger and the exchange differ, who asks, and when the exchange is believed.

Every reading brings the fills that could be missing, and they are booked before anything is compared: what the private
stream lost (a stop that the exchange triggered is no order of ours, nobody could ask for it by name) comes into the
ledger as the fill that it was. Corrections are for what fills do not explain.

A reading of the account can cross a fill on its way, in both directions, and the exchange may list a position seconds
after the fills that made it (Bitget's 43023 comes from that). So one reading proves nothing, nor do two in a row: the
ledger is corrected only where every reading for `LISTED_LATE_NS` says the same, it said the same at all of them, and no
order in the symbol could still fill. A symbol in doubt is neither entered nor left until then; doubts are asked about
every two seconds.

Positions are corrected at our mark; what equity then differs by is taken over while flat, as an adjustment, since
marks do not disturb the comparison there.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from shared.strategy.exact import ZERO
from shared.strategy.orders import Orders
from shared.strategy.portfolio import Portfolio, Trade
from shared.types import NS, Action, Adopted, Note, Position, QueryAccount

ACCOUNT_EVERY_NS = 2 * NS - NS // 2  # every 2 s on jittering seconds; Bitget: all-position 5/s, account 10/s
MISSING_FILLS_PATIENCE_NS = 30 * NS
EQUITY_STEP = Decimal("1e-8")  # Bitget cuts the equity that it publishes to 8 places

LISTED_LATE_NS = 5 * NS
"""A younger difference may be a position that is listed late: a ledger that followed it would be wrong."""

FILLS_RECENT_NS = 120 * NS
"""Always asked for: what a private stream loses before it is noticed as down, and an absent order's 35 s."""

FILLS_MARGIN_NS = 30 * NS
"""Clocks differ by up to 2 s, requests take up to 5 s, and a fill may be listed later than the time it bears."""

FILLS_BEFORE_ADOPTION_NS = 2 * FILLS_MARGIN_NS
"""How far back the first reading lists fills: they are in its positions, and known when a later one repeats them."""


class Truth:
    """Compares; owns the doubts. Acts on the ledger and the orders that it was given."""

    def __init__(self, portfolio: Portfolio, orders: Orders, emit: Callable[[Action], None]) -> None:
        self._portfolio, self._orders, self._emit = portfolio, orders, emit
        self.doubts: dict[str, str] = {}  # symbol -> why
        self._suspects: dict[str, tuple[Decimal, Decimal, int]] = {}  # symbol -> (exchange's, ours), since when
        self._equity_suspect: tuple[Decimal, Decimal] | None = None
        self._is_equity_sure = True  # False after a correction, until equity was compared while flat
        self._asked_ns = -(1 << 62)
        self._adopted_ns = 0
        self._wanted = ""  # why the account should be asked; "": it should not

    @property
    def is_sure(self) -> bool:
        return self._is_equity_sure and not self.doubts

    def begin(self, now_ns: int) -> None:
        """Remember when the exchange's truth became the ledger's."""
        self._adopted_ns = now_ns

    @property
    def complete_until_ns(self) -> int:
        """Return until when no fill can be missing: it is in the adopted positions, or listed with them."""
        return self._adopted_ns - FILLS_MARGIN_NS

    @property
    def _is_flat(self) -> bool:
        return not self._portfolio.holdings and not self._orders.n_working

    def doubt(self, symbol: str, reason: str, now_ns: int) -> None:
        """Stop acting in a symbol until the exchange's truth has been read again."""
        if symbol not in self.doubts:
            self.doubts[symbol] = reason
            self._emit(Note(event="ledger.doubted", fields={"symbol": symbol, "reason": reason}))
        self.ask(f"{symbol}: {reason}", now_ns)

    def ask(self, reason: str, now_ns: int) -> None:
        """Ask for the account, now or when it may be asked again."""
        if now_ns - self._asked_ns < ACCOUNT_EVERY_NS:
            self._wanted = reason
            return
        self._asked_ns, self._wanted = now_ns, ""
        self._emit(QueryAccount(reason=reason, fills_since_ns=self._fills_since_ns(now_ns)))

    def _fills_since_ns(self, now_ns: int) -> int:
        """Return from when on a fill may be missing: for a position in doubt, since it was opened."""
        held = self._portfolio.holdings
        opened = [held[symbol].entry_ns for symbol in self.doubts if symbol in held]
        return max(min([now_ns - FILLS_RECENT_NS, *opened]) - FILLS_MARGIN_NS, self.complete_until_ns)

    def keep_asking(self, now_ns: int) -> None:
        """Ask again about what is still in doubt, once a second closes."""
        for order in self._orders.working:
            if order.state.is_final and now_ns - order.final_ns >= MISSING_FILLS_PATIENCE_NS:
                self.doubt(order.symbol, "fills are missing", now_ns)
        if self._wanted or self.doubts:
            self.ask(self._wanted or next(iter(self.doubts.values())), now_ns)
        else:
            self.ask_equity(now_ns)

    def doubt_equity(self) -> None:
        """Be sure again only after equity was compared while flat."""
        self._is_equity_sure = False

    def ask_equity(self, now_ns: int) -> None:
        """Ask for the account where a doubted equity can be compared now."""
        if self._is_flat and not self._is_equity_sure and now_ns - self._asked_ns >= ACCOUNT_EVERY_NS:
            self.ask("does equity agree?", now_ns)

    def compare(self, event: Adopted, now_ns: int, *, is_funding_owed: bool = False) -> list[Trade]:
        """Compare the ledger with a reading; return the round trips that corrections ended.

        Args:
            is_funding_owed: equity may hold what no bill has told yet, and is not taken over.
        """
        theirs = {position.symbol: position for position in event.positions if position.size != 0}
        ended: list[Trade] = []
        for symbol in sorted({*theirs, *self._portfolio.holdings, *self.doubts, *self._suspects}):
            size = theirs[symbol].size if symbol in theirs else ZERO
            ours = self._portfolio.size(symbol)
            is_moving = any(not order.state.is_final for order in self._orders.working_in(symbol))
            if size == ours:
                self.doubts.pop(symbol, None)
                self._suspects.pop(symbol, None)
                self._waive_missing_fills(symbol, now_ns)
                continue
            suspect = self._suspects.get(symbol)
            if is_moving or suspect is None or suspect[:2] != (size, ours):
                suspect = self._suspects[symbol] = size, ours, now_ns
            if is_moving or now_ns - suspect[2] < LISTED_LATE_NS:
                self.doubt(symbol, f"position is {size} at the exchange, {ours} in the ledger", now_ns)
            else:
                ended += self._correct(symbol, theirs.get(symbol), now_ns)
        if theirs or not self._is_flat:
            self._equity_suspect = None
        else:
            self._compare_equity(event.equity_usdt, now_ns, is_funding_owed)
        return ended

    def _compare_equity(self, theirs: Decimal, now_ns: int, is_funding_owed: bool) -> None:
        ours = self._portfolio.equity_usdt
        if abs(theirs - ours) < EQUITY_STEP:
            self._equity_suspect, self._is_equity_sure = None, True
        elif is_funding_owed:
            self._equity_suspect, self._is_equity_sure = None, False
        elif self._equity_suspect == (theirs, ours):
            difference = self._portfolio.correct_equity(theirs)
            self._equity_suspect, self._is_equity_sure = None, True
            self._emit(Note(event="equity.corrected", fields={"difference_usdt": float(difference)}))
        else:
            self._equity_suspect = (theirs, ours)
            self.ask("equity differs while flat", now_ns)

    def _correct(self, symbol: str, position: Position | None, now_ns: int) -> list[Trade]:
        theirs = position if position is not None else Position(symbol=symbol, size=ZERO, entry_price=ZERO)
        ours = self._portfolio.size(symbol)
        self._emit(
            Note(event="ledger.corrected", fields={"symbol": symbol, "ours": str(ours), "theirs": str(theirs.size)})
        )
        ended = self._portfolio.correct_position(theirs, now_ns, now_ns // NS)
        self._is_equity_sure = False
        self._suspects.pop(symbol, None)
        self.doubts.pop(symbol, None)
        for order in self._orders.working_in(symbol):
            self._orders.waive(order, now_ns)  # all are final: their missing fills are in the correction
        return ended

    def _waive_missing_fills(self, symbol: str, now_ns: int) -> None:
        """Stop waiting for fills of a position that agrees without them."""
        for order in self._orders.working_in(symbol):
            if order.state.is_final and now_ns - order.final_ns >= MISSING_FILLS_PATIENCE_NS:
                missing = str(order.remaining)
                self._emit(
                    Note(
                        event="order.waived",
                        fields={"client_oid": order.client_oid, "symbol": symbol, "missing": missing},
                    )
                )
                self._is_equity_sure = False
                self._orders.waive(order, now_ns)
