"""The desk: what the parts of the engine share, and the few acts that more than one of them does.

The books (orders, ledger, doubts, risk), the market of the last second, the clock of the events and the list of
actions of the event at hand. It decides nothing: `exits`, `entries` and `news` do, and the engine says when.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from decimal import Decimal

import numpy as np

from shared.strategy import orders as life
from shared.strategy.bandit.learner import Bandit
from shared.strategy.betas import Betas
from shared.strategy.config import EngineConfig
from shared.strategy.exact import ZERO
from shared.strategy.funding import Funding
from shared.strategy.market import Market
from shared.strategy.orders import Order, Orders, State
from shared.strategy.portfolio import Portfolio, Quote, Trade
from shared.strategy.ranking import Gate
from shared.strategy.risk import Approved, Risk
from shared.strategy.sizing import Refusal
from shared.strategy.truth import Truth
from shared.types import NS, Action, CancelOrder, Note, QueryOrder, Universe

TURNOVER_S = 60
REFUSED_SAID_EVERY_NS = 60 * NS


class Chase:
    """A post-only entry on its way through the orders that carry it, one at a time (chase.py)."""

    __slots__ = (
        "client_oid",
        "deadline_ns",
        "filled",
        "half_spread",
        "mid",
        "n",
        "n_moves",
        "sign",
        "symbol",
        "wanted",
    )

    def __init__(self, order: Order, n: int, *, deadline_ns: int) -> None:
        self.symbol, self.n, self.sign = order.symbol, n, order.side.sign
        self.wanted = order.size  # in all
        self.filled = ZERO  # by the orders before the one that carries it now
        self.client_oid = order.client_oid
        self.mid, self.half_spread = order.mid, order.half_spread  # at the decision to enter
        self.deadline_ns = deadline_ns
        self.n_moves = 0


class Desk:
    """State without opinions. Its parts are objects that live as long as the session."""

    def __init__(
        self, config: EngineConfig, universe: Universe, *, session: str, seed: int, risk: Risk, bandit: Bandit
    ) -> None:
        self.config, self.universe = config, universe
        self.session, self.seed = session, seed
        self.symbols = universe.symbols
        self.at = universe.index()

        self.portfolio = Portfolio()
        self.orders = Orders()
        self.truth = Truth(self.portfolio, self.orders, lambda action: self.actions.append(action))
        self.market = Market(universe)
        self.betas = Betas(len(self.symbols))
        self.funding = Funding(universe, self.portfolio, self.market)
        self.risk, self.bandit = risk, bandit
        self.chases: dict[str, Chase] = {}  # symbol -> the post-only entry that is on its way in it
        self.trades: list[Trade] = []  # closed round trips, oldest first; the caller may take them away

        self._refused_said_ns: dict[Gate, int] = {}
        self.now_ns = 0
        self.actions: list[Action] = []  # of the event at hand
        self.is_adopted = False
        self.is_stopping = False
        self.links = {"public": False, "private": False}
        self.leverage: dict[str, int] = {}  # as the exchange confirmed it
        self.no_leverage = np.ones(len(self.symbols), np.bool_)
        self.rests_until = np.full(len(self.symbols), -(1 << 62), np.int64)  # second, cooldown
        self.turnover = np.zeros(len(self.symbols))  # entries of the last TURNOVER_S seconds
        self._entered: deque[tuple[int, int]] = deque()  # (second, n) of these, oldest first

    def note(self, event: str, **fields: str | int | float | bool | None) -> None:
        self.actions.append(Note(event=event, fields=fields))

    def places_of(self, symbols: Iterable[str]) -> list[int]:
        """Return where the universe has these symbols, without those that it does not list."""
        return [n for n in map(self.at.get, symbols) if n is not None]

    def mark_of(self, symbol: str) -> Decimal | None:
        """Return the mark of a symbol; None where it has none, or is not listed."""
        return self.market.mark(self.at.get(symbol))

    def grant(self, leverage: Mapping[str, int]) -> None:
        """Remember the leverage that the exchange has confirmed, by symbol."""
        self.leverage = dict(leverage)
        self.no_leverage = np.array([symbol not in leverage for symbol in self.symbols], np.bool_)

    def rest(self, symbol: str, seconds: int) -> None:
        """Enter nothing in a symbol for so long."""
        n = self.at.get(symbol)
        if n is not None:
            self.rests_until[n] = max(int(self.rests_until[n]), self.now_ns // NS + seconds)

    def count_entry(self, second: int, n: int) -> None:
        """Count an entry into a symbol as turnover."""
        self.turnover[n] += 1.0
        self._entered.append((second, n))

    def forget_entries(self, second: int) -> None:
        """Let go of entries that are older than the window."""
        while self._entered and self._entered[0][0] <= second - TURNOVER_S:
            self.turnover[self._entered.popleft()[1]] -= 1.0

    # --------------------------------------------------------------------------------------- acts upon orders

    def place(self, approved: Approved, second: int, quote: Quote | None) -> Order:
        """Send what risk has approved."""
        place = approved.order
        mid: Decimal | None = quote.mid if quote is not None else None
        half_spread = quote.half_spread if quote is not None else None
        assert not self.orders.working_in(place.symbol), f"{place.symbol} has an order that is not done"
        order = Order(place, sent_ns=self.now_ns, decision=second, mid=mid, half_spread=half_spread)
        self.orders.add(order)
        self.actions.append(place)
        return order

    def cancel_if_wanted(self, order: Order) -> None:
        """Cancel what is known to exist: a cancel could overtake a placement that is still unknown."""
        if not order.wants_cancel or order.state not in (State.LIVE, State.PARTIALLY_FILLED):
            return
        if order.cancel_sent_ns:
            # Sent again only on evidence that it lives: what became of a cancel is learnt by asking about its order.
            is_told = order.news_ns > order.cancel_sent_ns
            if not is_told or self.now_ns - order.cancel_sent_ns < life.CANCEL_AGAIN_NS:
                return
        order.cancel_sent_ns = self.now_ns
        self.actions.append(CancelOrder(client_oid=order.client_oid, order_id=order.order_id, symbol=order.symbol))

    def ask_order(self, order: Order) -> None:
        order.asked_ns = self.now_ns
        order_id = order.order_id if order.is_flash else ""
        self.actions.append(QueryOrder(client_oid=order.client_oid, symbol=order.symbol, order_id=order_id))

    # -------------------------------------------------------------------------------------------- what is said

    def say_latched(self, latch: object) -> None:
        state = self.risk.state()
        self.note(
            "risk.latched",
            latch=str(latch),
            equity_usdt=float(self.portfolio.equity_usdt),
            day_equity_usdt=float(state.day_equity_usdt) if state is not None else None,
            peak_equity_usdt=float(state.peak_equity_usdt) if state is not None else None,
        )

    def say_refused(self, symbol: str, refusal: Refusal) -> None:
        """Say why sizing or risk refused an entry, with its arithmetic; each gate once a minute."""
        said_ns = self._refused_said_ns.get(refusal.gate)
        if said_ns is None or self.now_ns - said_ns >= REFUSED_SAID_EVERY_NS:
            self._refused_said_ns[refusal.gate] = self.now_ns
            self.note("entry.refused", symbol=symbol, gate=refusal.gate.name.lower(), reason=refusal.reason)

    def say_done(self, order: Order) -> None:
        """One line per order's life."""
        self.note(
            "order.done",
            client_oid=order.client_oid,
            symbol=order.symbol,
            side=str(order.side),
            kind=str(order.kind),
            cause=str(order.cause),
            state=str(order.state),
            size=str(order.size),
            filled=str(order.filled),
            life_ms=(self.now_ns - order.sent_ns) / 1e6,
        )
