"""Entries: gates, ranking, size, neutrality, risk, order, once per decision; every symbol gets its "why not".

1. a blanket gate (a latch, a link that is down, a late second) stops everybody
2. the gates of each symbol, as arrays over N (`ranking.first_no`)
3. what passes is ranked by net edge less the penalty for turnover, and the bandit's bps; the best K on each side stay
4. each of the chosen is sized, best first
5. whoever keeps the book neutral within its bands comes before risk; who does not waits for a counterweight among the
   other chosen, and is refused where there is none
6. a post-only entry is followed by its chase, which comes before what is new (chase.py)

Python touches what was chosen, arrays do the rest.
"""

from __future__ import annotations

from decimal import Decimal
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.strategy import orders as life
from shared.strategy import ranking
from shared.strategy.chase import Chases, Next
from shared.strategy.clusters import cluster_of
from shared.strategy.desk import Desk
from shared.strategy.exact import decimal_of
from shared.strategy.exits import NOBODY, Challengers
from shared.strategy.exposure import Exposures
from shared.strategy.neutral import Tilt
from shared.strategy.orders import Order
from shared.strategy.philox import Philox
from shared.strategy.portfolio import Quote
from shared.strategy.pricing import Pricing, View
from shared.strategy.ranking import Gate, Gates
from shared.strategy.risk import Conditions
from shared.strategy.sizing import Refusal, caps, entry_size, gross_max_usdt, sigma_bps, smallest_size, stop_price
from shared.types import NS, Cause, Floats, OrderKind, PlaceOrder, Side

FEW = 8
"""Written to one by one they cost less than a mask over all symbols."""


class _Moment(msgspec.Struct, frozen=True):
    """What all entries of one decision have in common."""

    second: int
    view: View
    equity: Decimal
    exposures: Exposures
    is_linked: bool
    lag_ns: int
    unknown_orders: int


class _Wish(msgspec.Struct, frozen=True):
    """An entry that has a size, as neutrality and risk count it."""

    place: PlaceOrder
    price: Decimal  # what the limits value it at
    notional: Decimal
    sign: int  # +1 long, -1 short
    beta: int  # in hundredths


class Entries:
    def __init__(self, desk: Desk, pricing: Pricing, *, is_null: bool) -> None:
        self._desk, self._is_null = desk, is_null
        self._philox = Philox()
        self._chases = Chases(desk, pricing, is_null=is_null)
        n_symbols = len(desk.symbols)
        wanted = set(desk.config.symbols) if desk.config.symbols else set(desk.symbols)
        self._unwanted = _places([symbol not in wanted for symbol in desk.symbols])
        self._untradable = _places([contract.status != "normal" for contract in desk.universe.contracts])
        self._side_band, self._beta_band = decimal_of(desk.config.side_band), decimal_of(desk.config.beta_band)
        self._clusters = {contract.symbol: cluster_of(contract) for contract in desk.universe.contracts}
        self._less: Floats = np.zeros(n_symbols)  # net edge less the penalty for turnover, of the last decision, bps
        self.why: Gates = np.full(n_symbols, Gate.NOT_ADOPTED, np.uint8)
        self.why_second = -1
        self.view: View | None = None  # of the last decision; None: before the first

    def explain(self, second: int, gate: Gate) -> None:
        """Say one reason for everybody."""
        self.why = np.full(len(self._desk.symbols), gate, np.uint8)
        self.why_second, self.view = second, None

    def judge(self, second: int, view: View) -> Challengers:
        """Ask every gate of every symbol, and return what passes: who wants the places of those whose time is up."""
        blanket = self._blanket(second)
        if blanket is not None:
            self.explain(second, blanket)
            self.view = view
            return NOBODY
        desk, config = self._desk, self._desk.config
        with np.errstate(invalid="ignore"):
            less = view.net_bps - config.turnover_penalty_bps * desk.turnover
        why = self._ask_gates(view, less)
        self.why, self.why_second, self.view = why, second, view
        self._less = less
        if self._is_null:
            return NOBODY
        return Challengers(why, view.scores.direction, desk.bandit.worth_bps(less))

    def send(self, second: int, view: View | None) -> int:
        """Carry chases on, send the entries of this decision, and return how many orders were sent.

        Args:
            view: as it was judged; None: no decision is due, and chases alone go on.
        """
        desk = self._desk
        if self._blanket(second) is not None:
            desk.chases.clear()
            return 0
        following = self._chases.due(view)
        chosen = self._choose(second, view) if view is not None and self.why_second == second else []
        if view is None or not (following or chosen):
            return 0
        moment = self._moment(second, view)
        placed = 0
        for step in following:
            placed += self._carry_on(step, moment)
        wanted = self._wishes(chosen, moment)
        if not wanted:
            return placed
        tilt = self._tilt(moment.equity)
        while (n := _first_allowed(wanted, tilt)) is not None:
            wish = wanted.pop(n)
            if desk.bandit.explores(n) and not desk.bandit.pay(n, desk.now_ns, float(wish.notional / moment.equity)):
                self.why[n] = Gate.BUDGET
                continue
            sent = self._submit(wish.place, n, moment, wish.price)
            if isinstance(sent, Refusal):
                self._refuse(n, sent)
                continue
            desk.bandit.asked(wish.place.symbol)
            tilt.add(wish.sign, wish.notional, wish.beta)
            desk.count_entry(second, n)
            if sent.rests:
                self._chases.begin(sent, n)
            placed += 1
        for left in wanted:
            self.why[left] = Gate.NEUTRAL
        return placed

    # ---------------------------------------------------------------------------------------- gates and ranking

    def _choose(self, second: int, view: View) -> list[int]:
        """Return who may enter, best first; the others' "why not" says that they ranked too low."""
        desk, why = self._desk, self.why
        if np.count_nonzero(why) == len(why):
            return []
        n_long, n_short = self._n_sides()
        top_k = desk.config.top_k
        slots = max(top_k - n_long, 0), max(top_k - n_short, 0)
        if not any(slots):
            ranking.close(why)
            return []
        draws = partial(self._philox.uniforms, desk.seed, second, len(desk.symbols))
        ordered = desk.bandit.order(
            second,
            desk.now_ns,
            net_bps=self._less,
            direction=view.scores.direction,
            is_candidate=why == int(Gate.CHOSEN),
            ties=draws,
            slots=slots,
            is_null=self._is_null,
        )
        chosen = ranking.settle(why, ordered.chosen, ordered.values, draws)
        if chosen:
            desk.note("bandit.chose", **ordered.note)
        return chosen

    def _blanket(self, second: int) -> Gate | None:
        """Return the gate that stops every entry now, None where none does."""
        desk, config = self._desk, self._desk.config
        if desk.is_stopping:
            return Gate.STOPPING
        if desk.risk.latch is not None:
            return Gate.RISK_LATCHED
        if not all(desk.links.values()):
            return Gate.LINK_DOWN
        if desk.now_ns - (second + 1) * NS > config.lag_s_max * NS:
            return Gate.LATE
        if desk.orders.n_unknown > config.unknown_orders_max:
            return Gate.UNKNOWN_ORDERS
        if desk.risk.is_clock_off:
            return Gate.CLOCK_SKEW
        return None

    def _ask_gates(self, view: View, less: Floats) -> Gates:
        desk, config, market = self._desk, self._desk.config, self._desk.market
        busy = [*(order.symbol for order in desk.orders.working), *desk.chases]
        verdicts: list[tuple[Gate, NDArray[np.bool_] | list[int]]] = [  # in the order of `Gate`
            (Gate.NOT_WANTED, self._unwanted),
            (Gate.NOT_TRADABLE, self._untradable),
            (Gate.LEVERAGE_ABSENT, desk.no_leverage),
            (Gate.HAS_POSITION, desk.places_of(desk.portfolio.holdings)),
            (Gate.HAS_ORDER, desk.places_of(busy)),
            (Gate.IN_DOUBT, desk.places_of(desk.truth.doubts)),
            (Gate.COOLDOWN, desk.rests_until > view.second),
            (Gate.NO_BOOK, ~np.isfinite(view.spread_bps)),
            (Gate.STALE_BOOK, market.is_stale(view.second, config.stale_s_max)),
            (Gate.NOT_COVERED, ~np.isfinite(market.column("buy_volume_usdt"))),
            (Gate.WARMING_UP, ~view.scores.is_valid),
            (Gate.SPREAD, ~(view.spread_bps <= config.spread_bps_max)),
            (Gate.DEPTH, ~(view.depth_usdt >= config.depth_usdt_min)),
        ]
        if self._is_null:
            verdicts.append((Gate.CONFIDENCE, view.scores.direction == 0))
        else:
            verdicts += [
                (Gate.CONFIDENCE, view.is_unsure),
                (Gate.MARGIN, view.is_narrow),
                (Gate.NET_EDGE, view.is_dear),
                (Gate.TURNOVER, ~(less > 0.0)),
            ]
        return ranking.first_no(len(desk.symbols), verdicts)

    def _n_sides(self) -> tuple[int, int]:
        """Return how many longs and shorts are held or asked for."""
        signs = {symbol: holding.sign for symbol, holding in self._desk.portfolio.holdings.items()}
        for order in self._desk.orders.working:
            sign = life.entry_sign(order)
            if sign:
                signs.setdefault(order.symbol, sign)
        for symbol, chase in self._desk.chases.items():
            signs.setdefault(symbol, chase.sign)
        longs = sum(sign > 0 for sign in signs.values())
        return longs, len(signs) - longs

    # ------------------------------------------------------------------------------------ size, neutrality, risk

    def _moment(self, second: int, view: View) -> _Moment:
        """Look at what every entry of this decision will be held against."""
        desk = self._desk
        equity = desk.portfolio.equity_usdt
        exposures = Exposures(
            equity,
            desk.portfolio.holdings.values(),
            desk.orders.working,
            price_of=desk.mark_of,
            leverage=desk.leverage,
            clusters=self._clusters,
        )
        return _Moment(
            second,
            view,
            equity,
            exposures,
            all(desk.links.values()),
            desk.now_ns - (second + 1) * NS,
            desk.orders.n_unknown,
        )

    def _dearer(self, n: int, mid: Decimal) -> Decimal:
        """Return mark or mid, whichever counts for more: what the limits value an entry at."""
        mark = self._desk.market.mark(n)
        return mark if mark is not None and mark > mid else mid

    def _tilt(self, equity: Decimal) -> Tilt:
        """Return how far the book leans, and how far it may."""
        desk, config = self._desk, self._desk.config
        gross_max = gross_max_usdt(config, equity, config.leverage)
        tilt = Tilt(gross_max * self._side_band, gross_max * self._beta_band)
        for symbol, holding in desk.portfolio.holdings.items():
            tilt.add(holding.sign, holding.notional_usdt, self._beta(desk.at.get(symbol)))
        for order in desk.orders.working:
            sign = life.entry_sign(order)
            if sign and order.mid is not None:
                tilt.add(sign, order.remaining * order.mid, self._beta(desk.at.get(order.symbol)))
        return tilt

    def _refuse(self, n: int, refusal: Refusal) -> None:
        self.why[n] = refusal.gate
        self._desk.say_refused(self._desk.symbols[n], refusal)

    def _beta(self, n: int | None) -> int:
        return self._desk.betas.hundredths.item(n) if n is not None else 100

    def _wishes(self, chosen: list[int], moment: _Moment) -> dict[int, _Wish]:
        """Size what was chosen, best first; what is too small is refused."""
        wishes: dict[int, _Wish] = {}
        for n in chosen:
            wish = self._wish(n, moment)
            if isinstance(wish, Refusal):
                self._refuse(n, wish)
            else:
                wishes[n] = wish
        return wishes

    def _wish(self, n: int, moment: _Moment) -> _Wish | Refusal:
        """Size an entry."""
        desk, config, view = self._desk, self._desk.config, moment.view
        contract, quote = desk.universe.contracts[n], desk.market.quote(n)
        if quote is None or quote.half_spread < 0:
            return Refusal(gate=Gate.NO_BOOK, reason="no book")
        bounds = None  # a null's orders are the smallest ones
        if not self._is_null:
            sigma = sigma_bps(
                config,
                contract,
                price=quote.mid,
                half_spread=quote.half_spread,
                volatility_bps=desk.market.volatility_bps(n, config.horizon_s),
            )
            bounds = caps(
                config,
                equity=moment.equity,
                leverage=desk.leverage[contract.symbol],
                depth_usdt=view.depth_usdt.item(n),
                sigma_bps=sigma,
                edge_bps=view.net_bps.item(n),
            )
        size = entry_size(config, contract, price=quote.mid, bounds=bounds)
        if isinstance(size, Refusal):
            return size
        side = Side.BUY if view.scores.direction.item(n) > 0 else Side.SELL
        place = self._entry(n, quote, moment.second, side, config.entry_kind, size, leg="entry")
        price = self._dearer(n, quote.mid)
        return _Wish(place, price, size * price, side.sign, self._beta(n))

    def _entry(
        self, n: int, quote: Quote, second: int, side: Side, kind: OrderKind, size: Decimal, *, leg: str
    ) -> PlaceOrder:
        """Return an entry at the touch of its own side, or a market order, with the stop that rides on it."""
        desk, is_long = self._desk, side is Side.BUY
        symbol, mark, reference = desk.symbols[n], desk.market.mark(n), quote.mid
        if mark is not None:  # Bitget refuses a stop on the wrong side of the *mark* (40917)
            reference = min(reference, mark) if is_long else max(reference, mark)
        return PlaceOrder(
            client_oid=life.client_oid(desk.session, second, symbol, leg),
            symbol=symbol,
            side=side,
            kind=kind,
            size=size,
            price=quote.touch(side.opposite) if kind is OrderKind.POST_ONLY else None,
            reduce_only=False,
            stop_price=stop_price(
                desk.universe.contracts[n], is_long=is_long, reference=reference, stop_bps=desk.config.stop_bps
            ),
            cause=Cause.ENTRY,
        )

    def _submit(
        self, place: PlaceOrder, n: int, moment: _Moment, price: Decimal, decided: Quote | None = None
    ) -> Order | Refusal:
        """Bring an entry before risk and send it.

        Args:
            price: what the limits value it at.
            decided: the market when it was decided to enter, against which the fill is measured; None: now.
        """
        desk, view = self._desk, moment.view
        quote = desk.market.quote(n)
        if quote is None or quote.half_spread < 0:
            return Refusal(gate=Gate.NO_BOOK, reason="no book")
        verdict = desk.risk.approve_entry(
            place,
            desk.now_ns,
            price=price,
            leverage=desk.leverage[place.symbol],
            exposure=moment.exposures.of(place.symbol, place.side),
            conditions=Conditions(
                is_linked=moment.is_linked,
                lag_ns=moment.lag_ns,
                unknown_orders=moment.unknown_orders,
                silence_s=desk.market.silence_s(n, moment.second),
                spread_bps=view.spread_bps.item(n),
                depth_usdt=view.depth_usdt.item(n),
                half_spread=quote.half_spread,
                tick=desk.universe.contracts[n].tick,
            ),
        )
        if isinstance(verdict, Refusal):
            return verdict
        order = desk.place(verdict, moment.second, decided if decided is not None else quote)
        moment.exposures.add(order.symbol, order.side, order.size * price)
        return order

    def _carry_on(self, step: Next, moment: _Moment) -> bool:
        """Send the next order of a chase; what is refused ends it, but for a second whose placements are used up."""
        chase, desk = step.chase, self._desk
        contract, n = desk.universe.contracts[chase.n], chase.n
        quote = desk.market.quote(n)
        if quote is None or step.size < smallest_size(contract, quote.mid) or chase.symbol not in desk.leverage:
            self._chases.end(chase)
            return False
        side = Side.BUY if chase.sign > 0 else Side.SELL
        place = self._entry(n, quote, moment.second, side, step.kind, step.size, leg=f"entry-{chase.n_moves + 1}")
        decided = None
        if chase.mid is not None and chase.half_spread is not None:
            decided = Quote(mid=chase.mid, half_spread=chase.half_spread)
        sent = self._submit(place, n, moment, self._dearer(n, quote.mid), decided)
        if isinstance(sent, Refusal):
            if sent.gate is not Gate.ORDER_RATE:
                self._chases.end(chase)
            return False
        self._chases.sent(chase, sent)
        return True


def _first_allowed(wanted: dict[int, _Wish], tilt: Tilt) -> int | None:
    """Return the best of those that keep the book neutral, None where nobody does."""
    for n, wish in wanted.items():
        if tilt.allows(wish.sign, wish.notional, wish.beta):
            return n
    return None


def _places(is_refused: list[bool]) -> NDArray[np.bool_] | list[int]:
    """Return what refuses some symbols for good as a gate takes it: the few that it refuses, or a mask of many."""
    few = [n for n, refused in enumerate(is_refused) if refused]
    return few if len(few) < FEW else np.array(is_refused, np.bool_)
