"""The engine: events in, actions out, nothing else. Live, the backtest and the replay drive this very class.

Theory of operation

* Its parts share one desk (desk.py: the books, the market, the actions so far) and have one task each: `news` books
  what happened, `exits` leaves, `entries` enters. The order of their turns is here and nowhere else.
* `on_event` is the only entrance. The engine has no clock but `event.recv_ns`, no randomness but
  Philox(seed, decision), does no I/O, and iterates over nothing unordered: the same events give the same actions.
* It does nothing before the exchange's truth was `Adopted`, and adds risk only while both links are up.
* Between seconds it only keeps its books (fills, reports, answers). It thinks when a second closes:

    1. take the second: marks, freshness, features, scores
    2. keep the orders: time-outs, queries, cancels, the account where we are in doubt
    3. look at risk: equity against the limits; a latch cancels and flattens
    4. judge, every `decision_seconds`: what each symbol costs and promises now (pricing.py), and the gates of everybody
    5. exits (exits.py): at most one order working per symbol, one cause each; a position in doubt waits for the truth
    6. entries (entries.py): chases go on (chase.py), then ranking, size, neutrality, risk, order; everyone gets a
       "why not"

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
from collections.abc import Callable
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.errors import SettingsError
from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph
from shared.strategy import orders as life
from shared.strategy import ranking
from shared.strategy.bandit.learner import Bandit
from shared.strategy.bandit.state import BanditState, Permit
from shared.strategy.config import EngineConfig
from shared.strategy.desk import Desk
from shared.strategy.entries import Entries
from shared.strategy.exact import exactly
from shared.strategy.exits import NOBODY, Exits
from shared.strategy.news import News
from shared.strategy.orders import Order, State, Told
from shared.strategy.portfolio import Trade
from shared.strategy.pricing import Pricing, View
from shared.strategy.ranking import Gate, Gates
from shared.strategy.risk import Risk, RiskState
from shared.strategy.scores import Scorer, Scores
from shared.types import (
    NS,
    Action,
    Adopted,
    CancelRefused,
    Cause,
    ClockRead,
    Event,
    Filled,
    Floats,
    FundingPaid,
    LinkChanged,
    OrderAbsent,
    OrderAccepted,
    OrderRefused,
    OrderReported,
    OrderTimedOut,
    SecondClosed,
    StopRequested,
    Universe,
)

__all__ = ["Engine", "EngineConfig", "Memory"]

QUERIES_PER_SECOND_MAX = 5  # Bitget: order/detail 10/s


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What outlives a session: limits and what was learned. Journaled; a replay starts from it."""

    risk: RiskState | None = None
    bandit: BanditState = BanditState()
    permit: Permit | None = None  # None: the bandit may not act


class Engine:
    """Decide.

    Args:
        universe: its symbols are the N axis of every second; `config.symbols` limits trading, never the axis.
        scorer: used where a second brings no scores of its own.
        session: part of every client_oid: two sessions never share one.
        seed: with the decision's second, the key of all randomness.
        memory: of the session before; None: begin afresh.
        alternatives: further scorers; the bandit says which one scores a decision. A second then brings the scores of
            all of them as a tuple, or none.
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
        alternatives: tuple[Scorer, ...] = (),
    ) -> None:
        config.check(universe)
        if scorer.horizon_s is not None and scorer.horizon_s != config.horizon_s:
            raise SettingsError(
                f"horizon_s must be that of the scores, found {config.horizon_s} against {scorer.horizon_s} of "
                f"{scorer.name}: set horizon_s={scorer.horizon_s}"
            )
        self._scorers = (scorer, *alternatives)
        variants = [(variant_name(s, config), s.horizon_s or config.horizon_s) for s in self._scorers]
        if alternatives and (len(set(variants)) < len(variants) or any(s.is_null for s in self._scorers)):
            raise SettingsError(
                f"variants must differ in scorer or horizon and claim an edge, found "
                f"{', '.join(name for name, _ in variants)}: leave out what repeats, and the coin"
            )
        memory = memory if memory is not None else Memory()
        self.config, self.universe, self.scorer = config, universe, scorer
        self.session, self.seed = session, seed
        self.symbols = universe.symbols

        self.risk = Risk(config, memory.risk)
        self.bandit = Bandit(config, universe, seed=seed, variants=variants, state=memory.bandit, permit=memory.permit)
        self._desk = desk = Desk(config, universe, session=session, seed=seed, risk=self.risk, bandit=self.bandit)
        self.portfolio, self.orders, self.truth = desk.portfolio, desk.orders, desk.truth
        self.market, self.funding = desk.market, desk.funding
        pricing = Pricing(config, universe)
        self._pricing = pricing
        self._exits = Exits(desk, is_null=scorer.is_null)
        self._entries = Entries(desk, pricing, is_null=scorer.is_null)
        self._news = News(desk, self._exits)
        needs_features = any(s.needs_features for s in self._scorers)
        self.graph = FeatureGraph(FEATURES, self.symbols) if needs_features else None

        self._private_was_lost = False
        self._features: NDArray[np.float32] | None = None
        self._scores: Scores | None = None
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            Adopted: self._news.adopted,
            SecondClosed: self._on_second,
            OrderAccepted: self._news.accepted,
            OrderRefused: self._news.refused,
            OrderTimedOut: self._news.timed_out,
            OrderReported: self._news.reported,
            OrderAbsent: self._news.absent,
            CancelRefused: self._news.cancel_refused,
            Filled: self._news.filled,
            FundingPaid: self._news.funding_paid,
            LinkChanged: self._on_link,
            ClockRead: self._news.clock_read,
            StopRequested: self._on_stop,
        }

    # ------------------------------------------------------------------------------------------- what it shows

    @exactly
    def on_event(self, event: Event) -> list[Action]:
        """Take what happened, return what to do about it, in this order."""
        desk = self._desk
        desk.now_ns = max(desk.now_ns, event.recv_ns)
        desk.funding.pass_time(desk.now_ns)
        self._handlers[type(event)](event)
        if desk.is_stopping and desk.is_adopted:
            desk.truth.ask_equity(desk.now_ns)
        actions, desk.actions = desk.actions, []
        return actions

    @property
    def is_stopping(self) -> bool:
        return self._desk.is_stopping

    @property
    def is_flat_and_quiet(self) -> bool:
        """Say whether nothing is open, nothing works and nothing is in doubt: safe to leave."""
        is_sure = self._desk.is_adopted and self.truth.is_sure and not self.funding.is_owed
        return is_sure and not self.portfolio.holdings and not self.orders.n_working

    @property
    def memory(self) -> Memory:
        """Return what the next session should start from."""
        return Memory(risk=self.risk.state(), bandit=self.bandit.state(), permit=self.bandit.permit)

    @property
    def features(self) -> NDArray[np.float32] | None:
        """Return the features of the last second, (1, N, F); None where no scorer needs any."""
        return self._features

    @property
    def scores(self) -> Scores | None:
        """Return the scores of the last second, (N,); None where none were due."""
        return self._scores

    @property
    def digests(self) -> dict[str, str]:
        """Return a digest per stage of the last second, first stage first: a replay names the first that differs."""
        stages: dict[str, str] = {}
        if self.market.block is not None:
            stages["columns"] = digest_of(self.market.block)
        if self._features is not None:
            stages["features"] = digest_of(self._features)
        if self._scores is not None:
            stages["scores"] = digest_of_scores(self._scores)
        return stages

    @property
    def why(self) -> Gates:
        """Return the gate that stopped each symbol at the last decision, (N,)."""
        return self._entries.why

    @property
    def view(self) -> View | None:
        """Return what the last decision saw; None before the exchange's truth was adopted."""
        return self._entries.view

    @property
    def why_second(self) -> int:
        """Return the second of that decision, -1 before the first."""
        return self._entries.why_second

    def why_not(self) -> dict[str, str]:
        """Return symbol -> name of the gate that stopped it at the last decision, "chosen" where none did."""
        return {s: Gate(int(w)).name.lower() for s, w in zip(self.symbols, self.why, strict=True)}

    @property
    def trades(self) -> list[Trade]:
        """Return the round trips closed since they were last taken, oldest first."""
        return self._desk.trades

    def take_trades(self) -> list[Trade]:
        """Return the round trips closed since the last call, and forget them here."""
        trades, self._desk.trades = self._desk.trades, []
        return trades

    # ---------------------------------------------------------------------------------------------- 1. a second

    def _on_second(self, event: SecondClosed) -> None:
        desk, second = self._desk, event.second
        self._take(event)
        if not desk.is_adopted:
            self._entries.explain(second, Gate.NOT_ADOPTED)
            return
        self._keep_orders()
        latched = desk.risk.look(desk.now_ns, desk.portfolio.equity_usdt)
        if latched is not None:
            desk.say_latched(latched)
        is_decision = second % self.config.decision_seconds == 0
        view, challengers = None, NOBODY
        if is_decision:
            assert self._scores is not None, f"second {second} is a decision and has no scores"
            view = self._pricing.look(second, self._scores, desk.market)
            challengers = self._entries.judge(second, view)
        n_exits = self._exits.send(second, view, challengers)
        n_entries = self._entries.send(second, view)
        if is_decision:
            desk.note(
                "decision.made",
                second=second,
                equity_usdt=float(desk.portfolio.equity_usdt),
                gross_usdt=float(desk.portfolio.gross_usdt),
                positions=len(desk.portfolio.holdings),
                orders_working=desk.orders.n_working,
                exits=n_exits,
                entries=n_entries,
                **ranking.refusals(self.why),
            )
        desk.orders.forget(desk.now_ns)

    def _take(self, event: SecondClosed) -> None:
        """Remember the second: market, marks, features and scores."""
        desk = self._desk
        desk.market.take(event.second, cast(Floats, event.columns))
        desk.betas.take(event.second, desk.market.column("bid_price_1"), desk.market.column("ask_price_1"))
        desk.forget_entries(event.second)
        desk.portfolio.mark_all(desk.mark_of)
        self._features = self._scores = None
        is_decision = event.second % self.config.decision_seconds == 0
        variant = self.bandit.choose_variant(event.second, desk.now_ns) if is_decision else 0
        if event.scores is not None:
            given = event.scores[variant] if isinstance(event.scores, tuple) else event.scores
            self._scores = cast(Scores, given)
            return
        block = desk.market.rows()
        if self.graph is not None:
            self._features = self.graph.step(block, event.second)
        if is_decision:
            self._scores = self._scorers[variant].score(self._features, block, event.second).row(0)

    # ------------------------------------------------------------------------------------- 2. keep the orders

    def _keep_orders(self) -> None:
        desk = self._desk
        now_ns = desk.now_ns
        asked = 0
        for order in list(desk.orders.working):
            if order.state is State.SENT and now_ns - order.sent_ns >= life.ANSWER_WITHIN_NS:
                desk.note("order.timed_out", client_oid=order.client_oid, symbol=order.symbol, by="engine")
                desk.orders.tell(order, Told.TIMED_OUT, now_ns)
            if self._should_cancel(order):
                order.wants_cancel = True
            desk.cancel_if_wanted(order)
            if asked < QUERIES_PER_SECOND_MAX and life.is_query_due(order, now_ns):
                desk.ask_order(order)
                asked += 1
        self._keep_asking_for_funding()
        desk.truth.keep_asking(now_ns)

    def _keep_asking_for_funding(self) -> None:
        """Ask for the account, with which its bills are read, until what is owed has come."""
        desk = self._desk
        lost = desk.funding.give_up(desk.now_ns)
        if lost:
            desk.note("funding.missed", symbols=" ".join(lost))
            desk.truth.doubt_equity()
        if desk.funding.is_question_due(desk.now_ns):
            desk.truth.ask("funding was settled", desk.now_ns)

    def _should_cancel(self, order: Order) -> bool:
        if not order.rests:
            return False  # a market order fills or ends by itself
        desk = self._desk
        is_ending = desk.is_stopping or desk.risk.latch is not None
        waited_ns = desk.now_ns - order.sent_ns
        return is_ending or order.cause is Cause.ADOPTED or waited_ns >= self.config.entry_wait_s * NS

    # ------------------------------------------------------------------------------------- links, and a clean stop

    def _on_link(self, event: LinkChanged) -> None:
        desk = self._desk
        assert event.link in desk.links, f"links are {tuple(desk.links)}, found {event.link!r}"
        if event.link == "private" and desk.links["private"] and not event.is_up:
            self._private_was_lost = True
        desk.links[event.link] = event.is_up
        if event.link == "private" and event.is_up and self._private_was_lost and desk.is_adopted:
            # What was pushed meanwhile is lost: ask for everything.
            self._private_was_lost = False
            for order in list(desk.orders.working):
                if order.state is not State.SENT:
                    desk.ask_order(order)
            desk.truth.ask("the private stream was down", desk.now_ns)

    def _on_stop(self, event: StopRequested) -> None:
        desk = self._desk
        if not desk.is_stopping:
            desk.is_stopping = True
            desk.note("stop.requested", reason=event.reason)
        if not desk.is_adopted:
            return
        desk.truth.doubt_equity()  # nobody leaves before the exchange has said that it counts as we do
        for order in list(desk.orders.working):
            order.wants_cancel = order.wants_cancel or order.rests
            desk.cancel_if_wanted(order)
        desk.chases.clear()
        self._exits.send(desk.now_ns // NS, None)


def variant_name(scorer: Scorer, config: EngineConfig) -> str:
    """Return what a scorer is remembered by: what scores, and how far it looks ahead."""
    return f"{scorer.name}/{scorer.horizon_s or config.horizon_s}s"


def digest_of(*arrays: NDArray[Any]) -> str:
    """Return a digest of values, with every NaN the same NaN (its payload depends on the CPU)."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        values = np.ascontiguousarray(array)
        if values.dtype.kind == "f":
            values = np.where(np.isnan(values), np.asarray(np.nan, values.dtype), values)
        digest.update(str(values.shape).encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def digest_of_scores(scores: Scores) -> str:
    """Return the digest of the scores of one second."""
    return digest_of(*(getattr(scores, name) for name in scores.__struct_fields__))
