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
from shared.strategy.desk import Desk
from shared.strategy.exact import ZERO
from shared.strategy.pricing import Pricing
from shared.strategy.ranking import Gate, Gates
from shared.strategy.risk import Approved, Exposure
from shared.strategy.scores import Scores
from shared.strategy.sizing import Refusal, entry_size, stop_price
from shared.types import NS, Cause, Floats, OrderKind, PlaceOrder, Side


class Entries:
    def __init__(self, desk: Desk, pricing: Pricing, *, is_null: bool) -> None:
        self._desk, self._pricing, self._is_null = desk, pricing, is_null
        n_symbols = len(desk.symbols)
        wanted = set(desk.config.symbols) if desk.config.symbols else set(desk.symbols)
        self._unwanted = np.array([symbol not in wanted for symbol in desk.symbols], np.bool_)
        self._untradable = np.array([contract.status != "normal" for contract in desk.universe.contracts], np.bool_)
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
        gross_usdt = desk.portfolio.gross_usdt + self._reserved_usdt()
        for n in chosen:
            verdict = self._propose(n, second, int(scores.direction[n]), float(depth_usdt[n]), gross_usdt)
            if isinstance(verdict, Refusal):
                why[n] = verdict.gate
                continue
            quote = desk.market.quote(n)
            assert quote is not None, f"{desk.symbols[n]} passed the gates without a book"
            desk.place(verdict, second, quote)
            gross_usdt += verdict.order.size * quote.mid
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

    def _reserved_usdt(self) -> Decimal:
        """Return the notional of entries that may still fill."""
        reserved = ZERO
        for order in self._desk.orders.working:
            if not order.reduce_only and order.mid is not None:
                reserved += order.remaining * order.mid
        return reserved

    def _propose(
        self, n: int, second: int, direction: int, depth_usdt: float, gross_usdt: Decimal
    ) -> Approved | Refusal:
        """Size an entry and bring it before risk."""
        desk, config = self._desk, self._desk.config
        contract, symbol = desk.universe.contracts[n], desk.symbols[n]
        quote = desk.market.quote(n)
        if quote is None or quote.half_spread < 0:
            return Refusal(gate=Gate.NO_BOOK, reason="no book")
        equity, leverage = desk.portfolio.equity_usdt, desk.leverage[symbol]
        size = entry_size(
            config,
            contract,
            equity=equity,
            leverage=leverage,
            price=quote.mid,
            depth_usdt=depth_usdt,
            is_minimum=self._is_null,
        )
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
        exposure = Exposure(equity_usdt=equity, gross_usdt=gross_usdt, symbol_usdt=ZERO)
        return desk.risk.approve_entry(order, desk.now_ns, price=quote.mid, leverage=leverage, exposure=exposure)
