"""The engine: events in, actions out, nothing else. Live, the backtest and the replay drive this very class.

Theory of operation

* `on_event` is the only entrance. The engine has no clock but `event.recv_ns`, no randomness but
  Philox(seed, decision), does no I/O, and iterates over nothing unordered: the same events give the same actions.
* It does nothing before the exchange's truth was `Adopted`, and adds risk only while both links are up.
* Between seconds it only keeps its books (fills, reports, answers). It thinks when a second closes:

    1. take the second: marks, freshness, features, scores
    2. keep the orders: time-outs, queries, cancels, the account where we are in doubt
    3. look at risk: equity against the limits; a latch cancels and flattens
    4. exits: at most one order working per symbol, one cause each; a position in doubt waits for the truth
    5. entries, every `decision_seconds`: gates, ranking, size, risk, order; every symbol gets its "why not"

* An order without an answer is UNKNOWN (orders.py): it is asked about, never sent again, and holds its exposure until
  it is resolved. A position that differs from the exchange's is corrected only when two readings agree, since a
  reading can cross a fill on its way.

What the caller owes

* `recv_ns` never decreases; `Adopted` comes first, then `LinkChanged` for "public" and "private".
* One `SecondClosed` per second, without holes, also while nothing is received (its columns are then NaN).
* Every `PlaceOrder` is sent once, within 3 s or not at all (`OrderRefused`, code "expired"), and ends in exactly one of
  `OrderAccepted`, `OrderRefused`, `OrderTimedOut`. `QueryOrder` brings the order's `Filled`s, then `OrderReported` or
  `OrderAbsent`. `QueryAccount` brings the bills of funding that are new (`FundingPaid`), then `Adopted` with the fills
  since the time that was named. Repeats of fills, bills and reports do no harm; a lost one is asked for.
* A fill whose client_oid is not ours is the exchange's own doing (a stop, a liquidation).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared import costs
from shared.errors import SettingsError
from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph
from shared.strategy import orders as life
from shared.strategy import ranking
from shared.strategy.bandit import Bandit, BanditState
from shared.strategy.config import EngineConfig
from shared.strategy.exact import ZERO, decimal_of, exactly, floor_to
from shared.strategy.funding import Funding
from shared.strategy.market import Market
from shared.strategy.orders import Order, Orders, State, Told
from shared.strategy.portfolio import Holding, Portfolio, Quote, Trade
from shared.strategy.ranking import Gate, Gates
from shared.strategy.risk import Approved, Exposure, Risk, RiskState
from shared.strategy.scores import Scorer, Scores
from shared.strategy.sizing import Refusal, entry_size, stop_price
from shared.strategy.truth import Truth
from shared.types import (
    NS,
    Action,
    Adopted,
    CancelOrder,
    CancelRefused,
    Cause,
    Event,
    Filled,
    Floats,
    FundingPaid,
    LinkChanged,
    Note,
    OrderAbsent,
    OrderAccepted,
    OrderKind,
    OrderRefused,
    OrderReported,
    OrderTimedOut,
    PendingOrder,
    PlaceOrder,
    QueryOrder,
    SecondClosed,
    Side,
    StopRequested,
    Universe,
)

__all__ = ["Engine", "EngineConfig", "Memory"]

QUERIES_PER_SECOND_MAX = 5  # Bitget: order/detail 10/s
FILLS_REMEMBERED_MAX = 50_000  # repeats come within seconds; a day at 8 orders a second is far below
NAMELESS_MAX = 1000
REFUSED_COOLDOWN_S = 30
EXIT_BACKOFF_S_MAX = 16
NO_POSITION_TO_CLOSE = "22002"  # Bitget v2, errors: "No position to close"


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What outlives a session: limits and what was learned. Journaled; a replay starts from it."""

    risk: RiskState | None = None
    bandit: BanditState = BanditState()


class Engine:
    """Decide.

    Args:
        universe: its symbols are the N axis of every second; `config.symbols` limits trading, never the axis.
        scorer: used where a second brings no scores of its own.
        session: part of every client_oid: two sessions never share one.
        seed: with the decision's second, the key of all randomness.
        memory: of the session before; None: begin afresh.
    """

    def __init__(
        self,
        config: EngineConfig,
        universe: Universe,
        scorer: Scorer,
        *,
        session: str,
        seed: int,
        memory: Memory | None = None,
    ) -> None:
        config.check(universe)
        if scorer.horizon_s is not None and scorer.horizon_s != config.horizon_s:
            raise SettingsError(
                f"horizon_s must be that of the scores, found {config.horizon_s} against {scorer.horizon_s} of "
                f"{scorer.name}: set horizon_s={scorer.horizon_s}"
            )
        memory = memory if memory is not None else Memory()
        self.config, self.universe, self.scorer = config, universe, scorer
        self.session, self.seed = session, seed
        self.symbols = universe.symbols
        self._at = universe.index()
        n_symbols = len(self.symbols)

        self.portfolio = Portfolio()
        self.orders = Orders()
        self.truth = Truth(self.portfolio, self.orders, lambda action: self._actions.append(action))
        self.market = Market(universe)
        self.funding = Funding(universe, self.portfolio, self.market)
        self.risk = Risk(config, memory.risk)
        self.bandit = Bandit(self.symbols, memory.bandit)
        self.trades: list[Trade] = []  # closed round trips, oldest first; the caller may take them away
        self.graph = FeatureGraph(FEATURES, self.symbols) if scorer.needs_features else None

        wanted = set(config.symbols) if config.symbols else set(self.symbols)
        self._unwanted = np.array([symbol not in wanted for symbol in self.symbols], np.bool_)
        self._untradable = np.array([contract.status != "normal" for contract in universe.contracts], np.bool_)
        self._round_trip_bps = np.array(
            [config.round_trip_bps(float(c.maker_fee), float(c.taker_fee)) for c in universe.contracts]
        )
        self._no_leverage = np.ones(n_symbols, np.bool_)
        self._leverage: dict[str, int] = {}
        self._rests_until = np.full(n_symbols, -(1 << 62), np.int64)  # second, cooldown

        self._now_ns = 0
        self._actions: list[Action] = []
        self._is_adopted = False
        self._adopted_ns = 0
        self._fill_before_adoption = False
        self._links = {"public": False, "private": False}
        self._private_was_lost = False
        self.is_stopping = False
        self._features: NDArray[np.float32] | None = None
        self._scores: Scores | None = None
        self.why: Gates = np.full(n_symbols, Gate.NOT_ADOPTED, np.uint8)
        self.why_second = -1
        self._seen_fills: dict[tuple[str, str, str], None] = {}
        self._nameless: dict[str, Decimal] = {}  # order_id of unknown orders -> filled
        self._exit_waits: dict[str, tuple[int, int]] = {}  # symbol -> (ns until which no exit is tried, tries)
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            Adopted: self._on_adopted,
            SecondClosed: self._on_second,
            OrderAccepted: self._on_accepted,
            OrderRefused: self._on_refused,
            OrderTimedOut: self._on_timed_out,
            OrderReported: self._on_reported,
            OrderAbsent: self._on_absent,
            CancelRefused: self._on_cancel_refused,
            Filled: self._on_filled,
            FundingPaid: self._on_funding,
            LinkChanged: self._on_link,
            StopRequested: self._on_stop,
        }

    # ------------------------------------------------------------------------------------------- what it shows

    @exactly
    def on_event(self, event: Event) -> list[Action]:
        """Take what happened, return what to do about it, in this order."""
        self._now_ns = max(self._now_ns, event.recv_ns)
        self.funding.pass_time(self._now_ns)
        self._handlers[type(event)](event)
        if self.is_stopping and self._is_adopted:
            self.truth.ask_equity(self._now_ns)
        actions, self._actions = self._actions, []
        return actions

    @property
    def is_flat_and_quiet(self) -> bool:
        """Say whether nothing is open, nothing works and nothing is in doubt: safe to leave."""
        is_sure = self._is_adopted and self.truth.is_sure and not self.funding.is_owed
        return is_sure and not self.portfolio.holdings and not self.orders.n_working

    @property
    def memory(self) -> Memory:
        """Return what the next session should start from."""
        return Memory(risk=self.risk.state(), bandit=self.bandit.state())

    @property
    def digests(self) -> dict[str, str]:
        """Return a digest per stage of the last second, first stage first: a replay names the first that differs."""
        stages: dict[str, str] = {}
        if self.market.block is not None:
            stages["columns"] = _digest(self.market.block)
        if self._features is not None:
            stages["features"] = _digest(self._features)
        if self._scores is not None:
            stages["scores"] = _digest(*(getattr(self._scores, name) for name in self._scores.__struct_fields__))
        return stages

    def why_not(self) -> dict[str, str]:
        """Return symbol -> name of the gate that stopped it at the last decision, "chosen" where none did."""
        return {s: Gate(int(w)).name.lower() for s, w in zip(self.symbols, self.why, strict=True)}

    def take_trades(self) -> list[Trade]:
        """Return the round trips closed since the last call, and forget them here."""
        trades, self.trades = self.trades, []
        return trades

    # ---------------------------------------------------------------------------------------------- 1. a second

    def _on_second(self, event: SecondClosed) -> None:
        second = event.second
        self._take(event)
        if not self._is_adopted:
            self._explain(second, Gate.NOT_ADOPTED)
            return
        self._keep_orders()
        latched = self.risk.look(self._now_ns, self.portfolio.equity_usdt)
        if latched is not None:
            self._say_latched(latched)
        is_decision = second % self.config.decision_seconds == 0
        n_exits = self._exits(second, is_decision)
        if is_decision:
            n_entries = self._entries(second)
            self._note(
                "decision.made",
                second=second,
                equity_usdt=float(self.portfolio.equity_usdt),
                gross_usdt=float(self.portfolio.gross_usdt),
                positions=len(self.portfolio.holdings),
                orders_working=self.orders.n_working,
                exits=n_exits,
                entries=n_entries,
                **{f"no_{name}": count for name, count in ranking.counts(self.why).items() if name != "chosen"},
            )
        self.orders.forget(self._now_ns)

    def _take(self, event: SecondClosed) -> None:
        """Remember the second: market, marks, features and scores."""
        self.market.take(event.second, cast(Floats, event.columns))
        for symbol in self.portfolio.holdings:
            mark = self.market.mark(self._at.get(symbol))
            if mark is not None:
                self.portfolio.mark(symbol, mark)
        self._features = self._scores = None
        if event.scores is not None:
            self._scores = cast(Scores, event.scores)
            return
        block = self.market.rows()
        if self.graph is not None:
            self._features = self.graph.step(block, event.second)
        if event.second % self.config.decision_seconds == 0:
            self._scores = self.scorer.score(self._features, block, event.second).row(0)

    # ------------------------------------------------------------------------------------- 2. keep the orders

    def _keep_orders(self) -> None:
        now_ns = self._now_ns
        asked = 0
        for order in list(self.orders.working):
            if order.state is State.SENT and now_ns - order.sent_ns >= life.ANSWER_WITHIN_NS:
                self._note("order.timed_out", client_oid=order.client_oid, symbol=order.symbol, by="engine")
                self.orders.tell(order, Told.TIMED_OUT, now_ns)
            if self._should_cancel(order):
                order.wants_cancel = True
            self._cancel_if_wanted(order)
            if asked < QUERIES_PER_SECOND_MAX and life.is_query_due(order, now_ns):
                self._ask_order(order)
                asked += 1
        self._keep_asking_for_funding()
        self.truth.keep_asking(now_ns)

    def _keep_asking_for_funding(self) -> None:
        """Ask for the account, with which its bills are read, until what is owed has come."""
        lost = self.funding.give_up(self._now_ns)
        if lost:
            self._note("funding.missed", symbols=" ".join(lost))
            self.truth.doubt_equity()
        if self.funding.is_question_due(self._now_ns):
            self.truth.ask("funding was settled", self._now_ns)

    def _should_cancel(self, order: Order) -> bool:
        if not order.rests:
            return False  # a market order fills or ends by itself
        is_ending = self.is_stopping or self.risk.latch is not None
        waited_ns = self._now_ns - order.sent_ns
        return is_ending or order.cause is Cause.ADOPTED or waited_ns >= self.config.entry_wait_s * NS

    def _cancel_if_wanted(self, order: Order) -> None:
        """Cancel what is known to exist: a cancel could overtake a placement that is still unknown."""
        if not order.wants_cancel or order.state not in (State.LIVE, State.PARTIALLY_FILLED):
            return
        if order.cancel_sent_ns and self._now_ns - order.cancel_sent_ns < life.CANCEL_AGAIN_NS:
            return
        order.cancel_sent_ns = self._now_ns
        self._actions.append(CancelOrder(client_oid=order.client_oid, order_id=order.order_id, symbol=order.symbol))

    def _ask_order(self, order: Order) -> None:
        order.asked_ns = self._now_ns
        self._actions.append(QueryOrder(client_oid=order.client_oid, symbol=order.symbol))

    # ------------------------------------------------------------------------------------------------ 4. exits

    def _exits(self, second: int, is_decision: bool) -> int:
        """Send the exits that are due and return how many; the only place from which an exit is ever sent."""
        placed = 0
        for symbol, holding in sorted(self.portfolio.holdings.items()):
            cause = self._exit_cause(symbol, holding, second)
            if cause is None or not (is_decision or cause in (Cause.OPERATOR, Cause.RISK, Cause.STOP)):
                continue
            working = self.orders.working_in(symbol)
            if any(order.reduce_only for order in working) or symbol in self.truth.doubts:
                continue
            if working:  # an entry that is not finished: it could fill behind the exit's back
                for order in working:
                    order.wants_cancel = order.rests
                    self._cancel_if_wanted(order)
                continue
            if self._exit_waits.get(symbol, (0, 0))[0] > self._now_ns:
                continue
            placed += self._place_exit(symbol, holding, cause, second)
        return placed

    def _exit_cause(self, symbol: str, holding: Holding, second: int) -> Cause | None:
        if self.is_stopping:
            return Cause.OPERATOR
        if self.risk.latch is not None:
            return Cause.RISK
        if self._is_beyond_stop(holding, second):
            return Cause.STOP
        n = self._at.get(symbol)
        if n is not None and self._is_target_reached(holding, n):
            return Cause.TARGET
        if second >= holding.entry_second + self.config.horizon_s:
            return Cause.HORIZON
        if n is not None and self._says_other_side(holding, n):
            return Cause.REVERSAL
        return None

    def _is_beyond_stop(self, holding: Holding, second: int) -> bool:
        """Say whether the exchange's own stop should have closed this by now and has not."""
        sign = holding.side.sign
        stop = holding.stop_price
        if stop is None:  # adopted: nothing rides on it that we know of
            stop = holding.entry_price * (1 - sign * decimal_of(self.config.stop_bps) / 10_000)
        if holding.mark is None or sign * (holding.mark - stop) > 0:
            holding.stop_second = 0
            return False
        holding.stop_second = holding.stop_second or second
        return second - holding.stop_second >= self.config.stop_grace_s

    def _is_target_reached(self, holding: Holding, n: int) -> bool:
        if self.config.target_bps is None:
            return False
        quote = self.market.quote(n)
        if quote is None:
            return False
        entry = holding.entry_price
        return holding.side.sign * (quote.mid - entry) * 10_000 >= decimal_of(self.config.target_bps) * entry

    def _says_other_side(self, holding: Holding, n: int) -> bool:
        """Say whether the scores would enter against this position, by the same gates as an entry."""
        scores = self._scores
        if scores is None or self.scorer.is_null or not scores.is_valid[n]:
            return False
        if scores.direction.item(n) != -holding.side.sign or scores.confidence.item(n) < self.config.confidence_min:
            return False
        if not scores.margin_of(n) >= self.config.confidence_margin_min:
            return False
        edge_bps = float(scores.edge_bps[n]) * int(scores.direction[n])
        spread = costs.spread_bps(self.market.value("bid_price_1", n), self.market.value("ask_price_1", n))
        return edge_bps > float(self._round_trip_bps[n]) + self._spread_share * spread

    def _place_exit(self, symbol: str, holding: Holding, cause: Cause, second: int) -> bool:
        n = self._at.get(symbol)
        size = abs(holding.size)
        if n is not None:
            contract = self.universe.contracts[n]
            if contract.size_max_market is not None and size > contract.size_max_market:
                size = floor_to(contract.size_max_market, contract.size_step)
        order = PlaceOrder(
            client_oid=life.client_oid(self.session, second, symbol, "exit"),
            symbol=symbol,
            side=holding.side.opposite,
            kind=OrderKind.MARKET,
            size=size,
            price=None,
            reduce_only=True,
            stop_price=None,
            cause=cause,
        )
        if order.client_oid in self.orders:
            return False  # one order per decision and leg; the next second has its own
        verdict = self.risk.approve_exit(order, self._now_ns)
        if isinstance(verdict, Refusal):
            return False
        self._place(verdict, second, self.market.quote(n))
        return True

    # ---------------------------------------------------------------------------------------------- 5. entries

    def _entries(self, second: int) -> int:
        """Send the entries of this decision and return how many."""
        blanket = self._blanket(second)
        if blanket is not None:
            self._explain(second, blanket)
            return 0
        assert self._scores is not None, f"second {second} is a decision and has no scores"
        scores, config = self._scores, self.config
        spread_bps, depth_usdt = self.market.spread_bps(), self.market.depth_usdt()
        with np.errstate(invalid="ignore"):
            net_bps = scores.edge_bps * scores.direction - (self._round_trip_bps + self._spread_share * spread_bps)
        why = self._ask_gates(second, scores, spread_bps, depth_usdt, net_bps)
        self.why, self.why_second = why, second
        if why.all():
            return 0

        draws = np.random.Generator(np.random.Philox(key=[self.seed, second])).random(len(self.symbols))
        if self.scorer.is_null:
            priority = np.zeros(len(self.symbols))
        else:
            priority = net_bps + config.bandit_weight * self.bandit.bonus_bps()
        n_long, n_short = self._n_sides()
        chosen = ranking.best(
            why, scores.direction, priority, draws, max(config.top_k - n_long, 0), max(config.top_k - n_short, 0)
        )
        placed = 0
        gross_usdt = self.portfolio.gross_usdt + self._reserved_usdt()
        for n in chosen:
            verdict = self._propose(n, second, int(scores.direction[n]), float(depth_usdt[n]), gross_usdt)
            if isinstance(verdict, Refusal):
                why[n] = verdict.gate
                continue
            quote = self.market.quote(n)
            assert quote is not None, f"{self.symbols[n]} passed the gates without a book"
            self._place(verdict, second, quote)
            gross_usdt += verdict.order.size * quote.mid
            placed += 1
        return placed

    def _blanket(self, second: int) -> Gate | None:
        """Return the gate that stops every entry now, None where none does."""
        if self.is_stopping:
            return Gate.STOPPING
        if self.risk.latch is not None:
            return Gate.RISK_LATCHED
        if not all(self._links.values()):
            return Gate.LINK_DOWN
        if self._now_ns - (second + 1) * NS > self.config.lag_s_max * NS:
            return Gate.LATE
        if self.orders.n_unknown > self.config.unknown_orders_max:
            return Gate.UNKNOWN_ORDERS
        return None

    @property
    def _spread_share(self) -> float:
        """Return how much of the quoted spread a round trip pays: a post-only entry earns what the exit pays."""
        return 0.0 if self.config.entry_kind is OrderKind.POST_ONLY else 1.0

    def _ask_gates(self, second: int, scores: Scores, spread_bps: Floats, depth_usdt: Floats, net_bps: Floats) -> Gates:
        config = self.config
        n_symbols = len(self.symbols)
        verdicts = [
            (Gate.NOT_WANTED, self._unwanted),
            (Gate.NOT_TRADABLE, self._untradable),
            (Gate.LEVERAGE_ABSENT, self._no_leverage),
            (Gate.HAS_POSITION, self._mask(self.portfolio.holdings)),
            (Gate.HAS_ORDER, self._mask({order.symbol: None for order in self.orders.working})),
            (Gate.IN_DOUBT, self._mask(self.truth.doubts)),
            (Gate.COOLDOWN, self._rests_until > second),
            (Gate.NO_BOOK, ~np.isfinite(spread_bps)),
            (Gate.STALE_BOOK, self.market.silence_s(second) > config.stale_s_max),
            (Gate.NOT_COVERED, ~np.isfinite(self.market.column("buy_volume_usdt"))),
            (Gate.WARMING_UP, ~scores.is_valid),
            (Gate.SPREAD, ~(spread_bps <= config.spread_bps_max)),
            (Gate.DEPTH, ~(depth_usdt >= config.depth_usdt_min)),
        ]
        if not self.scorer.is_null:
            verdicts += [
                (Gate.CONFIDENCE, ~(scores.confidence >= config.confidence_min)),
                (Gate.MARGIN, ~(scores.margin >= config.confidence_margin_min)),
                (Gate.NET_EDGE, ~(net_bps > 0.0)),
            ]
        return ranking.first_no(n_symbols, verdicts)

    def _mask(self, symbols: Mapping[str, object]) -> NDArray[np.bool_]:
        mask = np.zeros(len(self.symbols), np.bool_)
        for symbol in symbols:
            n = self._at.get(symbol)
            if n is not None:
                mask[n] = True
        return mask

    def _n_sides(self) -> tuple[int, int]:
        """Return how many longs and shorts are held or asked for."""
        signs = {symbol: holding.side.sign for symbol, holding in self.portfolio.holdings.items()}
        for order in self.orders.working:
            sign = life.entry_sign(order)
            if sign:
                signs.setdefault(order.symbol, sign)
        longs = sum(sign > 0 for sign in signs.values())
        return longs, len(signs) - longs

    def _reserved_usdt(self) -> Decimal:
        """Return the notional of entries that may still fill."""
        reserved = ZERO
        for order in self.orders.working:
            if not order.reduce_only and order.mid is not None:
                reserved += order.remaining * order.mid
        return reserved

    def _propose(
        self, n: int, second: int, direction: int, depth_usdt: float, gross_usdt: Decimal
    ) -> Approved | Refusal:
        """Size an entry and bring it before risk."""
        contract, symbol, config = self.universe.contracts[n], self.symbols[n], self.config
        quote = self.market.quote(n)
        if quote is None or quote.half_spread < 0:
            return Refusal(gate=Gate.NO_BOOK, reason="no book")
        equity, leverage = self.portfolio.equity_usdt, self._leverage[symbol]
        size = entry_size(
            config,
            contract,
            equity=equity,
            leverage=leverage,
            price=quote.mid,
            depth_usdt=depth_usdt,
            is_minimum=self.scorer.is_null,
        )
        if isinstance(size, Refusal):
            return size
        side = Side.BUY if direction > 0 else Side.SELL
        mark = self.market.mark(n)
        references = [quote.mid] if mark is None else [quote.mid, mark]
        is_post_only = config.entry_kind is OrderKind.POST_ONLY
        order = PlaceOrder(
            client_oid=life.client_oid(self.session, second, symbol, "entry"),
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
        return self.risk.approve_entry(order, self._now_ns, price=quote.mid, leverage=leverage, exposure=exposure)

    def _place(self, approved: Approved, second: int, quote: Quote | None) -> None:
        place = approved.order
        self.orders.add(
            Order(
                place,
                sent_ns=self._now_ns,
                decision=second,
                mid=quote.mid if quote is not None else None,
                half_spread=quote.half_spread if quote is not None else None,
            )
        )
        self._actions.append(place)

    # ------------------------------------------------------------------------------------- what happened to us

    def _on_accepted(self, event: OrderAccepted) -> None:
        order = self.orders.get(event.client_oid, event.order_id)
        if order is None:
            self._note("order.unexpected", client_oid=event.client_oid, told="accepted")
            return
        self._name(order, event.order_id)
        self._tell(order, Told.ACCEPTED)

    def _on_refused(self, event: OrderRefused) -> None:
        order = self.orders.get(event.client_oid)
        if order is None:
            self._note("order.unexpected", client_oid=event.client_oid, told="refused")
            return
        if not self._tell(order, Told.REFUSED):
            return
        self._note(
            "order.refused",
            client_oid=order.client_oid,
            symbol=order.symbol,
            cause=str(order.cause),
            code=event.code,
            message=event.message,
        )
        if order.reduce_only and event.code == NO_POSITION_TO_CLOSE:
            self.truth.doubt(order.symbol, "the exchange has no position to close", self._now_ns)
            return
        latched = self.risk.note_refusal(self._now_ns)
        if latched is not None:
            self._say_latched(latched)
        if order.reduce_only:
            tries = self._exit_waits.get(order.symbol, (0, 0))[1]
            wait_s = min(1 << tries, EXIT_BACKOFF_S_MAX)
            self._exit_waits[order.symbol] = (self._now_ns + wait_s * NS, min(tries + 1, 10))
        else:
            self._rest(order.symbol, REFUSED_COOLDOWN_S)

    def _on_timed_out(self, event: OrderTimedOut) -> None:
        order = self.orders.get(event.client_oid)
        if order is None:
            self._note("order.unexpected", client_oid=event.client_oid, told="timed_out")
            return
        self._note("order.timed_out", client_oid=order.client_oid, symbol=order.symbol, by="shell")
        self._tell(order, Told.TIMED_OUT)
        if order.state is State.UNKNOWN:
            self._ask_order(order)

    def _on_reported(self, event: OrderReported) -> None:
        order = self.orders.get(event.client_oid, event.order_id)
        if order is None:
            # The exchange's own order (a preset stop), or one that a person sent: its fills tell.
            self._note("order.unexpected", client_oid=event.client_oid, told=str(event.status))
            return
        self._name(order, event.order_id)
        order.reported_filled = max(order.reported_filled, event.filled)
        if self._tell(order, life.told_of(event.status)) and order.state is State.CANCELED and not order.filled:
            self._note("order.canceled", client_oid=order.client_oid, symbol=order.symbol, reason=event.reason)
            if not order.reduce_only and not order.reported_filled:
                self._rest(order.symbol, self.config.cooldown_s)
        self._cancel_if_wanted(order)

    def _on_absent(self, event: OrderAbsent) -> None:
        order = self.orders.get(event.client_oid)
        if order is None or order.is_done:
            return
        if event.recv_ns < order.sent_ns + life.ABSENT_AFTER_NS:
            return  # proves nothing yet: the signed request may still be accepted
        if (order.state, Told.ABSENT) in life.TRANSITIONS:
            self._tell(order, Told.ABSENT)
            self._note("order.absent", client_oid=order.client_oid, symbol=order.symbol)
            return
        self.truth.doubt(order.symbol, "an order that was accepted is not known any more", self._now_ns)

    def _on_cancel_refused(self, event: CancelRefused) -> None:
        order = self.orders.get(event.client_oid)
        if order is None or order.is_done:
            return
        self._note("cancel.refused", client_oid=order.client_oid, symbol=order.symbol, code=event.code)
        self._ask_order(order)

    def _tell(self, order: Order, told: Told) -> bool:
        """Move an order along its table; say so where the table has no such step, or where the dead came alive."""
        before = order.state
        moved = self.orders.tell(order, told, self._now_ns)
        if not moved:
            self._note(
                "order.surprised", client_oid=order.client_oid, symbol=order.symbol, state=str(before), told=str(told)
            )
            self._ask_order(order)
        elif before in (State.REFUSED, State.ABSENT) and order.state is not before:
            self._note(
                "order.revived", client_oid=order.client_oid, symbol=order.symbol, state=str(before), told=str(told)
            )
            order.wants_cancel = order.rests
        if order.is_done and before is not order.state:
            self._say_done(order)
        return moved

    def _on_filled(self, event: Filled) -> None:
        if self._key(event) in self._seen_fills:
            return
        self._see(event)
        if not self._is_adopted:
            self._fill_before_adoption = True  # the truth that is being read may or may not contain it
            return

        order = self.orders.get(event.client_oid, event.order_id)
        n = self._at.get(event.symbol)
        held = self.portfolio.size(event.symbol)
        if order is None:
            reduces = held * event.side.sign < 0
            cause = Cause.STOP if reduces else Cause.ADOPTED
            quote, second = self.market.quote(n), self._now_ns // NS
            self._remember_nameless(event)
            self._note(
                "fill.unexpected",
                symbol=event.symbol,
                order_id=event.order_id,
                side=str(event.side),
                price=str(event.price),
                size=str(event.size),
                reduces=reduces,
            )
            if not reduces or event.size > abs(held):
                self.truth.doubt(event.symbol, "a fill that is not ours opened a position", self._now_ns)
        else:
            cause = order.cause
            # The horizon counts from the decision for a taker, from the fill for an order that waited.
            second = order.decision if not order.rests else max(order.decision, self._now_ns // NS - 1)
            quote = None
            if order.mid is not None and order.half_spread is not None:
                quote = Quote(mid=order.mid, half_spread=order.half_spread)
            self._name(order, event.order_id)
            was_done = order.is_done
            if not self.orders.fill(order, event.size, self._now_ns):
                self.truth.doubt(event.symbol, "fills exceed the order", self._now_ns)
            if order.is_done and not was_done:
                self._say_done(order)
        mark = self.market.mark(n)
        self.funding.before_fill(event)
        closed = self.portfolio.fill(event, cause=cause, second=second, quote=quote, mark=mark)
        self.funding.after_fill(event)
        holding = self.portfolio.holdings.get(event.symbol)
        if holding is not None and order is not None and order.stop_price is not None and holding.stop_price is None:
            holding.stop_price = order.stop_price
        self._close(closed)

    @staticmethod
    def _key(fill: Filled) -> tuple[str, str, str]:
        return fill.symbol, fill.order_id, fill.trade_id

    def _see(self, fill: Filled) -> None:
        self._seen_fills[self._key(fill)] = None
        if len(self._seen_fills) > FILLS_REMEMBERED_MAX:
            del self._seen_fills[next(iter(self._seen_fills))]

    def _remember_nameless(self, fill: Filled) -> None:
        """Keep what an unknown order filled: a placement without an answer learns its exchange's name later."""
        filled = self._nameless.pop(fill.order_id, ZERO)
        self._nameless[fill.order_id] = filled + fill.size
        if len(self._nameless) > NAMELESS_MAX:
            del self._nameless[next(iter(self._nameless))]

    def _name(self, order: Order, order_id: str) -> None:
        """Learn the exchange's name of an order, and count what it filled before we knew."""
        if not self.orders.name(order, order_id) or order_id not in self._nameless:
            return
        self.orders.fill(order, self._nameless.pop(order_id), self._now_ns)
        holding = self.portfolio.holdings.get(order.symbol)
        if holding is not None and holding.stop_price is None:
            holding.stop_price = order.stop_price

    def _close(self, trades: list[Trade]) -> None:
        for trade in trades:
            self.trades.append(trade)
            self._exit_waits.pop(trade.symbol, None)
            if Cause.ADOPTED not in (trade.entry_cause, trade.exit_cause):
                self.bandit.reward(trade.symbol, trade.net_bps)
            self._rest(trade.symbol, self.config.cooldown_s)
            self._note(
                "trade.closed",
                symbol=trade.symbol,
                side=str(trade.side),
                cause=str(trade.exit_cause),
                duration_s=trade.duration_s,
                net_usdt=float(trade.net_usdt),
                net_bps=trade.net_bps,
                fees_usdt=float(trade.fees_usdt),
            )

    def _on_funding(self, event: FundingPaid) -> None:
        is_new = self.funding.take(event)
        # What was booked before the account was read for the first time is in the equity that we began with.
        if is_new and self._is_adopted and event.exch_ns >= self._adopted_ns:
            self.portfolio.pay_funding(event.symbol, event.amount_usdt)
            self._note("funding.paid", symbol=event.symbol, amount_usdt=float(event.amount_usdt), bill_id=event.bill_id)

    def _on_link(self, event: LinkChanged) -> None:
        assert event.link in self._links, f"links are {tuple(self._links)}, found {event.link!r}"
        if event.link == "private" and self._links["private"] and not event.is_up:
            self._private_was_lost = True
        self._links[event.link] = event.is_up
        if event.link == "private" and event.is_up and self._private_was_lost and self._is_adopted:
            # What was pushed meanwhile is lost: ask for everything.
            self._private_was_lost = False
            for order in list(self.orders.working):
                if order.state is not State.SENT:
                    self._ask_order(order)
            self.truth.ask("the private stream was down", self._now_ns)

    def _on_stop(self, event: StopRequested) -> None:
        if not self.is_stopping:
            self.is_stopping = True
            self._note("stop.requested", reason=event.reason)
        if not self._is_adopted:
            return
        self.truth.doubt_equity()  # nobody leaves before the exchange has said that it counts as we do
        for order in list(self.orders.working):
            order.wants_cancel = order.wants_cancel or order.rests
            self._cancel_if_wanted(order)
        self._exits(self._now_ns // NS, is_decision=False)

    # ----------------------------------------------------------------------------------------- the whole truth

    def _on_adopted(self, event: Adopted) -> None:
        self._leverage = dict(event.leverage)
        self._no_leverage = np.array([symbol not in event.leverage for symbol in self.symbols], np.bool_)
        if not self._is_adopted:
            self._begin(event)
        else:
            self._book_missed(event.fills)
            self._close(self.truth.compare(event, self._now_ns, is_funding_owed=self.funding.is_owed))
        self._adopt_orders(event.orders)

    def _book_missed(self, fills: tuple[Filled, ...]) -> None:
        """Book what the private stream has not brought, before the ledger is compared."""
        for fill in fills:
            if self._key(fill) in self._seen_fills or fill.exch_ns < self.truth.complete_until_ns:
                continue
            is_named = self.orders.get(fill.client_oid, fill.order_id) is not None
            if not is_named and any(not order.order_id for order in self.orders.working_in(fill.symbol)):
                continue  # these fills carry no client_oid: it may be the order that waits for its answer
            self._note("fill.missed", symbol=fill.symbol, order_id=fill.order_id, trade_id=fill.trade_id)
            self._on_filled(fill)

    def _begin(self, event: Adopted) -> None:
        self._is_adopted, self._adopted_ns = True, event.recv_ns
        self.truth.begin(self._now_ns)
        for fill in event.fills:
            self._see(fill)  # the positions that were read contain it
        positions = tuple(sorted((p for p in event.positions if p.size != 0), key=lambda p: p.symbol))
        self.portfolio.adopt(event.equity_usdt, positions, self._now_ns, self._now_ns // NS)
        for position in positions:
            self._note(
                "position.adopted",
                symbol=position.symbol,
                size=str(position.size),
                entry_price=str(position.entry_price),
                is_listed=position.symbol in self._at,
            )
        self._note(
            "account.adopted",
            equity_usdt=float(event.equity_usdt),
            positions=len(positions),
            orders=len(event.orders),
            leverages=len(event.leverage),
        )
        if self._fill_before_adoption or event.fills:
            self.truth.ask("a fill came around the first adoption", self._now_ns)

    def _adopt_orders(self, pending: tuple[PendingOrder, ...]) -> None:
        """Cancel what rests at the exchange and is not ours; ask about ours that does not rest there."""
        names = set()
        for found in pending:
            order = self.orders.get(found.client_oid, found.order_id)
            if order is None:
                order = self._take_over(found)
            names.add(order.client_oid)
            self._name(order, found.order_id)
            order.reported_filled = max(order.reported_filled, found.filled)
            self._tell(order, Told.PARTIALLY_FILLED if found.filled else Told.LIVE)
            self._cancel_if_wanted(order)
        for order in list(self.orders.working):
            is_resting = order.rests and order.state in (State.LIVE, State.PARTIALLY_FILLED)
            if is_resting and order.client_oid not in names and self._now_ns - order.news_ns >= life.QUERY_EVERY_NS:
                self._ask_order(order)

    def _take_over(self, found: PendingOrder) -> Order:
        """Own an order that somebody else left resting, in order to cancel it."""
        order = Order(
            PlaceOrder(
                client_oid=found.client_oid or found.order_id,
                symbol=found.symbol,
                side=found.side,
                kind=found.kind,
                size=found.size,
                price=found.price,
                reduce_only=found.reduce_only,
                stop_price=None,
                cause=Cause.ADOPTED,
            ),
            sent_ns=self._now_ns,
            decision=self._now_ns // NS,
            mid=found.price,
            half_spread=None,
        )
        order.filled = found.filled
        order.wants_cancel = True
        self.orders.add(order)
        self._note("order.adopted", client_oid=order.client_oid, symbol=order.symbol, size=str(order.size))
        return order

    # ------------------------------------------------------------------------------------------------ small things

    def _rest(self, symbol: str, seconds: int) -> None:
        n = self._at.get(symbol)
        if n is not None:
            self._rests_until[n] = max(int(self._rests_until[n]), self._now_ns // NS + seconds)

    def _explain(self, second: int, gate: Gate) -> None:
        self.why = np.full(len(self.symbols), gate, np.uint8)
        self.why_second = second

    def _say_latched(self, latch: object) -> None:
        state = self.risk.state()
        self._note(
            "risk.latched",
            latch=str(latch),
            equity_usdt=float(self.portfolio.equity_usdt),
            day_equity_usdt=float(state.day_equity_usdt) if state is not None else None,
            peak_equity_usdt=float(state.peak_equity_usdt) if state is not None else None,
        )

    def _say_done(self, order: Order) -> None:
        """One line per order's life."""
        self._note(
            "order.done",
            client_oid=order.client_oid,
            symbol=order.symbol,
            side=str(order.side),
            kind=str(order.kind),
            cause=str(order.cause),
            state=str(order.state),
            size=str(order.size),
            filled=str(order.filled),
            life_ms=(self._now_ns - order.sent_ns) / 1e6,
        )

    def _note(self, event: str, **fields: str | int | float | bool | None) -> None:
        self._actions.append(Note(event=event, fields=fields))


def _digest(*arrays: NDArray[Any]) -> str:
    """Return a digest of values, with every NaN the same NaN (its payload depends on the CPU)."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        values = np.ascontiguousarray(array)
        if values.dtype.kind == "f":
            values = np.where(np.isnan(values), np.asarray(np.nan, values.dtype), values)
        digest.update(str(values.shape).encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
