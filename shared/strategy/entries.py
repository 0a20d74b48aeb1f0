"""Entries: gates, ranking, size, risk, order, once per decision; every symbol gets its "why not".

1. a blanket gate (a latch, a link that is down, a late second) stops everybody
2. the gates of each symbol, as arrays over N (`ranking.first_no`)
3. what passes is ranked by net edge and the bandit's bps, the best K on each side stay
4. each of the chosen is sized and brought before risk, best first; a refusal is its "why not"
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from shared.strategy import orders as life
from shared.strategy import ranking
from shared.strategy.clusters import cluster_of
from shared.strategy.desk import Desk
from shared.strategy.exposure import Exposures
from shared.strategy.pricing import Pricing
from shared.strategy.ranking import Gate, Gates
from shared.strategy.risk import Approved, Conditions
from shared.strategy.scores import Scores
from shared.strategy.sizing import Refusal, caps, entry_size, sigma_bps, stop_price
from shared.types import NS, Cause, Floats, OrderKind, PlaceOrder, Side


class Entries:
    def __init__(self, desk: Desk, pricing: Pricing, *, is_null: bool) -> None:
        self._desk, self._pricing, self._is_null = desk, pricing, is_null
        n_symbols = len(desk.symbols)
        wanted = set(desk.config.symbols) if desk.config.symbols else set(desk.symbols)
        self._unwanted = np.array([symbol not in wanted for symbol in desk.symbols], np.bool_)
        self._untradable = np.array([contract.status != "normal" for contract in desk.universe.contracts], np.bool_)
        self._clusters = {contract.symbol: cluster_of(contract) for contract in desk.universe.contracts}
        self.why: Gates = np.full(n_symbols, Gate.NOT_ADOPTED, np.uint8)
        self.why_second = -1

    def explain(self, second: int, gate: Gate) -> None:
        """Say one reason for everybody."""
        self.why = np.full(len(self._desk.symbols), gate, np.uint8)
        self.why_second = second

    def send(self, second: int, scores: Scores | None) -> int:
        """Send the entries of this decision and return how many."""
        desk = self._desk
        blanket = self._blanket(second)
        if blanket is not None:
            self.explain(second, blanket)
            return 0
        assert scores is not None, f"second {second} is a decision and has no scores"
        spread_bps, depth_usdt = desk.market.spread_bps(), desk.market.depth_usdt()
        with np.errstate(invalid="ignore"):
            net_bps = scores.edge_bps * scores.direction - self._pricing.round_trip_bps(spread_bps)
        why = self._ask_gates(second, scores, spread_bps, depth_usdt, net_bps)
        self.why, self.why_second = why, second
        if why.all():
            return 0

        draws = np.random.Generator(np.random.Philox(key=[desk.seed, second])).random(len(desk.symbols))
        if self._is_null:
            priority = np.zeros(len(desk.symbols))
        else:
            priority = net_bps + desk.config.bandit_weight * desk.bandit.bonus_bps()
        n_long, n_short = self._n_sides()
        top_k = desk.config.top_k
        chosen = ranking.best(why, scores.direction, priority, draws, max(top_k - n_long, 0), max(top_k - n_short, 0))
        placed = 0
        exposures, silence_s = self._exposures(), desk.market.silence_s(second)
        for n in chosen:
            conditions = self._conditions(n, second, silence_s.item(n), spread_bps.item(n), depth_usdt.item(n))
            verdict = self._propose(n, second, int(scores.direction[n]), conditions, net_bps.item(n), exposures)
            if isinstance(verdict, Refusal):
                why[n] = verdict.gate
                continue
            quote = desk.market.quote(n)
            assert quote is not None, f"{desk.symbols[n]} passed the gates without a book"
            order = desk.place(verdict, second, quote)
            exposures.add(order.symbol, order.side, order.size * self._dearer(n, quote.mid))
            placed += 1
        return placed

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

    def _ask_gates(self, second: int, scores: Scores, spread_bps: Floats, depth_usdt: Floats, net_bps: Floats) -> Gates:
        desk, config, market = self._desk, self._desk.config, self._desk.market
        verdicts = [
            (Gate.NOT_WANTED, self._unwanted),
            (Gate.NOT_TRADABLE, self._untradable),
            (Gate.LEVERAGE_ABSENT, desk.no_leverage),
            (Gate.HAS_POSITION, desk.mask(desk.portfolio.holdings)),
            (Gate.HAS_ORDER, desk.mask(order.symbol for order in desk.orders.working)),
            (Gate.IN_DOUBT, desk.mask(desk.truth.doubts)),
            (Gate.COOLDOWN, desk.rests_until > second),
            (Gate.NO_BOOK, ~np.isfinite(spread_bps)),
            (Gate.STALE_BOOK, market.silence_s(second) > config.stale_s_max),
            (Gate.NOT_COVERED, ~np.isfinite(market.column("buy_volume_usdt"))),
            (Gate.WARMING_UP, ~scores.is_valid),
            (Gate.SPREAD, ~(spread_bps <= config.spread_bps_max)),
            (Gate.DEPTH, ~(depth_usdt >= config.depth_usdt_min)),
        ]
        if not self._is_null:
            verdicts += [
                (Gate.CONFIDENCE, ~(scores.confidence >= config.confidence_min)),
                (Gate.MARGIN, ~(scores.margin >= config.confidence_margin_min)),
                (Gate.NET_EDGE, ~(net_bps > 0.0)),
            ]
        return ranking.first_no(len(desk.symbols), verdicts)

    def _n_sides(self) -> tuple[int, int]:
        """Return how many longs and shorts are held or asked for."""
        signs = {symbol: holding.side.sign for symbol, holding in self._desk.portfolio.holdings.items()}
        for order in self._desk.orders.working:
            sign = life.entry_sign(order)
            if sign:
                signs.setdefault(order.symbol, sign)
        longs = sum(sign > 0 for sign in signs.values())
        return longs, len(signs) - longs

    def _exposures(self) -> Exposures:
        """Return what is held and asked for, as the limits count it."""
        desk = self._desk
        return Exposures(
            desk.portfolio.equity_usdt,
            desk.portfolio.holdings.values(),
            desk.orders.working,
            price_of=lambda symbol: desk.market.mark(desk.at.get(symbol)),
            leverage=desk.leverage,
            clusters=self._clusters,
        )

    def _dearer(self, n: int, mid: Decimal) -> Decimal:
        """Return mark or mid, whichever counts for more: what the limits value an entry at."""
        mark = self._desk.market.mark(n)
        return mid if mark is None else max(mid, mark)

    def _conditions(
        self, n: int, second: int, silence_s: int, spread_bps: float, depth_usdt: float
    ) -> Conditions | None:
        """Return the world as an entry in this symbol finds it; None: it has no book."""
        desk = self._desk
        quote = desk.market.quote(n)
        if quote is None or quote.half_spread < 0:
            return None
        return Conditions(
            is_linked=all(desk.links.values()),
            lag_ns=desk.now_ns - (second + 1) * NS,
            unknown_orders=desk.orders.n_unknown,
            silence_s=silence_s,
            spread_bps=spread_bps,
            depth_usdt=depth_usdt,
            half_spread=quote.half_spread,
            tick=desk.universe.contracts[n].tick,
        )

    def _propose(
        self, n: int, second: int, direction: int, conditions: Conditions | None, net_bps: float, exposures: Exposures
    ) -> Approved | Refusal:
        """Size an entry and bring it before risk."""
        desk, config = self._desk, self._desk.config
        contract, symbol = desk.universe.contracts[n], desk.symbols[n]
        quote = desk.market.quote(n)
        if quote is None or conditions is None:
            return Refusal(gate=Gate.NO_BOOK, reason="no book")
        leverage = desk.leverage[symbol]
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
                equity=desk.portfolio.equity_usdt,
                leverage=leverage,
                depth_usdt=conditions.depth_usdt,
                sigma_bps=sigma,
                edge_bps=net_bps,
            )
        size = entry_size(config, contract, price=quote.mid, bounds=bounds)
        if isinstance(size, Refusal):
            return size
        side = Side.BUY if direction > 0 else Side.SELL
        mark = desk.market.mark(n)
        references = [quote.mid] if mark is None else [quote.mid, mark]
        is_post_only = config.entry_kind is OrderKind.POST_ONLY
        order = PlaceOrder(
            client_oid=life.client_oid(desk.session, second, symbol, "entry"),
            symbol=symbol,
            side=side,
            kind=config.entry_kind,
            size=size,
            price=quote.touch(side.opposite) if is_post_only else None,
            reduce_only=False,
            # Bitget refuses a stop on the wrong side of the *mark* (40917).
            stop_price=stop_price(
                contract,
                is_long=side is Side.BUY,
                reference=min(references) if side is Side.BUY else max(references),
                stop_bps=config.stop_bps,
            ),
            cause=Cause.ENTRY,
        )
        return desk.risk.approve_entry(
            order,
            desk.now_ns,
            price=self._dearer(n, quote.mid),
            leverage=leverage,
            exposure=exposures.of(symbol, side),
            conditions=conditions,
        )
