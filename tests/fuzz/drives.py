"""Whole runs of made-up markets through both tiers, watched: what must hold in every world is asked at every step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np

from pipelines.exact.exchange import Assumptions, Change
from pipelines.exact.latency import Constant, Latencies, Lognormal
from pipelines.exact.queues import LogProbability, PowerProbability, RiskAverse
from pipelines.exact.session import ExactSimulation, Market
from pipelines.exact.tape import ArraysTape, Block
from pipelines.simulation import FLATTEN_S, Outcome, Simulation
from pipelines.venue_side import Tape
from shared.errors import CrosscutError
from shared.lake.tiers import Ladder
from shared.replay import alternatives_of
from shared.simulator.venue.orders import FeeTier
from shared.strategy.bandit.learner import policy_digest
from shared.strategy.bandit.state import Mode, Permit
from shared.strategy.config import EngineConfig
from shared.strategy.engine import Engine, Memory
from shared.strategy.exact import EXACT
from shared.strategy.orders import EXIT_CAUSES
from shared.strategy.scores import Scores
from shared.types import NS, Action, Cause, Contract, Event, OrderKind, PlaceOrder, SecondClosed, Side, Tier
from tests.fuzz.draws import (
    AT,
    LEVELS,
    Dice,
    MadeMarket,
    config_of,
    dice_of,
    equity_of,
    market_of,
    one_of,
    opinions_of,
    printed,
    ways_of,
)


class Given:
    """A scorer whose scores come with every second."""

    name = "given"
    horizon_s: int | None = None
    needs_features = False

    def __init__(self, *, is_null: bool = False) -> None:
        self.is_null = is_null

    def score(self, features: object, columns: object, first_second: int) -> Scores:
        raise AssertionError("every second brings its scores")


class Case(msgspec.Struct, frozen=True):
    """Everything that a run is made of."""

    config: EngineConfig
    market: MadeMarket
    scores: Scores
    equity_usdt: Decimal
    is_null: bool
    seed: int
    permit: Permit | None = None  # None: the bandit may not act

    def __str__(self) -> str:
        usual = EngineConfig()
        differs = {
            name: getattr(self.config, name)
            for name in EngineConfig.__struct_fields__
            if getattr(self.config, name) != getattr(usual, name)
        }
        return f"{self.market.ways}\n{differs}\nequity {self.equity_usdt}, null {self.is_null}"


def case_of(seed: int, *, moderate: bool = False, seconds: int | None = None) -> Case:
    dice = dice_of(seed)
    market = market_of(dice, ways_of(dice, seconds=seconds), moderate=moderate)
    config = config_of(dice, market.universe)
    scores = opinions_of(dice, market)
    equity, is_null = equity_of(dice), bool(dice.random() < 0.15)
    if not is_null and dice.random() < 0.2:
        config = msgspec.structs.replace(config, variants=one_of(dice, ("rules/30s",), ("rules", "rules/30s")))
    permit = None
    if dice.random() < 0.3:
        config = msgspec.structs.replace(config, bandit_mode=Mode.ACT)
        permit = Permit(
            policy=policy_digest(config), model="given", source="simulator-made", gain_low_bps=1.0, gain_bps=2.0,
            entries=1000, sessions=(), made_ns=0,
        )  # fmt: skip
    return Case(config, market, scores, equity, is_null, seed, permit)


class Watched:
    """Looks at every event and every answer of an engine; stands where a journal does."""

    def __init__(self, case: Case, simulation: Simulation) -> None:
        self.case, self.simulation = case, simulation
        self.events: list[Event] = []
        self.answers: list[list[Action]] = []
        self.per_second: Counter[int] = Counter()
        self.placed: dict[str, PlaceOrder] = {}
        self.contracts = {contract.symbol: contract for contract in case.market.universe.contracts}
        self.row: Any = None

    def note(self, event: Event, actions: Sequence[Action]) -> None:
        self.events.append(event)
        self.answers.append(list(actions))
        if isinstance(event, SecondClosed):
            self.row = event.columns
        engine = self.simulation.engine
        entries: list[PlaceOrder] = []
        fresh: set[str] = set()
        for action in actions:
            if not isinstance(action, PlaceOrder):
                continue
            assert action.client_oid not in self.placed, f"{action} was sent twice"
            self.placed[action.client_oid] = action
            self.per_second[event.recv_ns // NS] += 1
            self._check_form(action)
            if not action.reduce_only:
                entries.append(action)
                fresh.add(action.client_oid)
        assert self.per_second[event.recv_ns // NS] <= self.case.config.orders_per_second_max
        if entries:
            self._check_limits(engine, entries, fresh)
        for holding in engine.portfolio.holdings.values():
            assert holding.size != 0
        assert engine.portfolio.equity_usdt.is_finite()

    def sees_all(self) -> bool:
        """Claim that everything held has a mark or a book now: both sides value it by that."""
        for symbol in self.simulation.engine.portfolio.holdings:
            n = self.simulation.engine.symbols.index(symbol)
            bid, ask, mark = (self.row.item(AT[name], n) for name in ("bid_price_1", "ask_price_1", "mark"))
            if not math.isfinite(mark) and not math.isfinite(bid + ask):
                return False
        return True

    def _check_form(self, order: PlaceOrder) -> None:
        """Claim that the exchange would have taken it, had it come at once: every rule here is known to the engine."""
        contract: Contract = self.contracts[order.symbol]
        n = self.simulation.engine.symbols.index(order.symbol)
        assert order.size > 0, order
        most = contract.size_max_market if order.kind is OrderKind.MARKET else contract.size_max_limit
        assert most is None or order.size <= most, f"more than {most}: {order}"
        assert EXACT.remainder(order.size, contract.size_step) == 0, f"no multiple of {contract.size_step}: {order}"
        if order.reduce_only:
            assert order.cause in EXIT_CAUSES, order
            return
        assert order.cause is Cause.ENTRY, order
        assert contract.status == "normal", f"{contract.status}: {order}"
        assert order.size >= contract.size_min, f"less than {contract.size_min}: {order}"
        bid, ask, mark = (self.row.item(AT[name], n) for name in ("bid_price_1", "ask_price_1", "mark"))
        touch = Decimal(repr(ask if order.side is Side.BUY else bid))
        price = order.price if order.price is not None else touch
        assert order.size * price >= contract.notional_min_usdt, f"less than {contract.notional_min_usdt}: {order}"
        stop = order.stop_price
        assert stop is not None, order
        assert stop > 0, order
        assert EXACT.remainder(stop, contract.tick) == 0, f"no tick: {order}"
        known = [Decimal(repr(mark))] if math.isfinite(mark) else []
        for reference in (touch, *known):
            assert (reference - stop) * order.side.sign > 0, f"a stop on the wrong side of {reference}: {order}"
        if order.price is not None:
            assert EXACT.remainder(order.price, contract.tick) == 0, f"no tick: {order}"
            assert order.price > 0, order
            own = Decimal(repr(bid if order.side is Side.BUY else ask))
            assert order.price == own, f"not at its own touch {own}: {order}"
            for reference in known:
                if order.side is Side.BUY:
                    assert order.price <= reference * (1 + contract.price_band_buy), f"beyond the band: {order}"
                else:
                    assert order.price >= reference * (1 - contract.price_band_sell), f"beyond the band: {order}"

    def _check_limits(self, engine: Engine, entries: Sequence[PlaceOrder], fresh: set[str]) -> None:
        """Claim that everything held and asked for keeps the limits, whatever of it fills."""
        config, equity = self.case.config, engine.portfolio.equity_usdt
        use = Decimal(repr(config.margin_use_max))
        gross, longs, shorts = Decimal(0), Decimal(0), Decimal(0)
        of: dict[str, Decimal] = {}
        for symbol, holding in engine.portfolio.holdings.items():
            worth = abs(holding.size) * (holding.mark if holding.mark is not None else holding.entry_price)
            of[symbol] = of.get(symbol, Decimal(0)) + worth
            gross += worth
            longs, shorts = (longs + worth, shorts) if holding.size > 0 else (longs, shorts + worth)
        for order in engine.orders.working:
            if order.reduce_only:
                continue
            n = engine.symbols.index(order.symbol)
            quote, mark = engine.market.quote(n), engine.market.mark(n)
            # A chase carries the mid of its first decision: what it would cost now is what counts when it is sent.
            mid = quote.mid if quote is not None and order.client_oid in fresh else order.mid
            worth = order.remaining * max(price for price in (mark, mid) if price is not None)
            of[order.symbol] = of.get(order.symbol, Decimal(0)) + worth
            gross += worth
        for last in entries[-1:]:  # those before it were asked before it was there
            leverage = min(config.leverage, engine._desk.leverage[last.symbol])
            most = equity * leverage * use
            assert gross <= most * (1 + Decimal("1e-12")), f"gross {gross} beyond {most}: {last}"
            share = Decimal(repr(config.symbol_share_max))
            assert of[last.symbol] <= most * share * (1 + Decimal("1e-12")), f"{of[last.symbol]}: {last}"
        n_long = sum(h.size > 0 for h in engine.portfolio.holdings.values())
        n_short = len(engine.portfolio.holdings) - n_long
        asked = {o.symbol: o.side.sign for o in engine.orders.working if not o.reduce_only}
        n_long += sum(s > 0 for name, s in asked.items() if name not in engine.portfolio.holdings)
        n_short += sum(s < 0 for name, s in asked.items() if name not in engine.portfolio.holdings)
        assert max(n_long, n_short) <= config.top_k, f"{n_long} longs and {n_short} shorts, TOP_K {config.top_k}"


class Lived(msgspec.Struct, frozen=True):
    """What came of a run."""

    outcome: Outcome | None  # None: it ended with a refusal
    refusal: str
    watched: Any


def stacked(case: Case, t: int) -> Scores | tuple[Scores, ...]:
    row = case.scores.row(t)
    n_variants = len(case.config.variants)
    return (row, *(row.mirrored() for _ in range(n_variants))) if n_variants else row


def lived(case: Case, simulation: Simulation, *, is_changed: bool = False) -> Lived:
    """Drive a simulation through a case, watched, and ask everything that must hold of its end.

    Args:
        is_changed: contracts change on the way, of which the engine learns nothing.
    """
    watched = Watched(case, simulation)
    simulation.journal = watched  # type: ignore[assignment]
    market = case.market
    tape, first = Tape(market.values), market.first_second
    simulation.start(first)
    stop_at = market.seconds - FLATTEN_S
    is_told_at_once = not isinstance(simulation, ExactSimulation)
    for t in range(market.seconds):
        if t == stop_at:
            simulation.stop(first + t)
        simulation.step(tape, t, first + t, market.values[:, t], stacked(case, t))
        if is_told_at_once and watched.sees_all():
            ours, theirs = simulation.engine.portfolio.equity_usdt, simulation.side.equity_usdt
            assert ours == theirs, f"second {t}: the ledger has {ours}, the venue {theirs}"
    try:
        simulation.overtime(tape, first + market.seconds - 1, market.values[:, -1], stacked(case, market.seconds - 1))
    except CrosscutError as error:
        check_open_end(case, simulation, str(error))
        return Lived(None, str(error), watched)
    simulation.trades += simulation.engine.take_trades()
    outcome = simulation.outcome()
    check_outcome(case, simulation, outcome, is_changed=is_changed)
    return Lived(outcome, "", watched)


def check_open_end(case: Case, simulation: Simulation, said: str) -> None:
    """Claim that what is still open could not be closed: it is not traded, too small an order is left of its orders, or
    nobody to take it was in sight."""
    for held in simulation.side.venue.positions("backtest"):
        assert held.symbol in said, said
        n = simulation.engine.symbols.index(held.symbol)
        contract = simulation.side.venue.contracts[held.symbol]
        side = "bid" if held.size > 0 else "ask"
        prices, sizes = (
            [case.market.values[AT[f"{side}_{what}_{k}"], -1, n] for k in range(1, LEVELS + 1)]
            for what in ("price", "size")
        )
        seen = sum(size for price, size in zip(prices, sizes, strict=True) if math.isfinite(price))
        is_many = contract.size_max_market is not None and abs(held.size) > contract.size_max_market
        is_whole = (
            EXACT.remainder(held.size, contract.size_step) == 0
        )  # else it takes a refusal to learn that it is not
        could = contract.status == "normal" and seen > abs(float(held.size)) and is_whole and not is_many
        assert not could, f"{held.size} {held.symbol} is left, {seen} could be taken: {said}"


OF_THE_FORM = {
    "40808", "22038", "45115", "45111", "45112", "40020", "40019", "40034", "40786", "40304", "40309", "40844", "43115",
    "40774", "45118", "43005", "40762",
}  # fmt: skip
"""What the venue refuses whatever the market does meanwhile: by steps, sizes, names, states and numbers that the
engine knows. Others can follow from a price that has moved since the decision, and 45120 from a ladder it never saw."""


def check_outcome(case: Case, simulation: Simulation, outcome: Outcome, *, is_changed: bool = False) -> None:
    engine, venue = simulation.engine, simulation.side.venue
    assert simulation.side.is_flat
    assert not engine.portfolio.holdings
    portfolio = engine.portfolio
    deposit, realised, fees, funding = venue.totals("backtest")
    assert deposit == case.equity_usdt
    assert (portfolio.realised_usdt, portfolio.fees_usdt, portfolio.funding_usdt) == (realised, fees, funding)
    assert portfolio.adjustments_usdt == 0
    net = sum((trade.net_usdt for trade in outcome.trades), Decimal(0))
    orphaned = portfolio.funding_usdt - sum((trade.funding_usdt for trade in outcome.trades), Decimal(0))
    assert engine.portfolio.equity_usdt == case.equity_usdt + net + orphaned
    # The ledger from the venue's own list of fills.
    cash = case.equity_usdt + funding
    for fill in venue.fills("backtest"):
        cash -= fill.side.sign * fill.price * fill.size + fill.fee_usdt
    assert cash == simulation.side.equity_usdt, f"fills leave {cash}, equity is {simulation.side.equity_usdt}"
    for trade in outcome.trades:
        told = trade.gross_usdt - trade.spread_usdt - trade.slippage_usdt - trade.fees_usdt + trade.funding_usdt
        assert told == trade.net_usdt, f"the waterfall leaves {told}: {trade}"
        assert trade.exit_cause in EXIT_CAUSES, trade
        assert trade.entry_cause is Cause.ENTRY, trade
        assert trade.entry_ns <= trade.exit_ns
        assert math.isfinite(trade.net_bps)
        assert trade.spread_usdt >= trade.entry_spread_usdt >= 0, trade
    known = {refusal.split(" ", 1)[0] for refusal in outcome.refusals} & (OF_THE_FORM if not is_changed else set())
    assert not known, f"refused for what the engine knew: {outcome.refusals}"
    spent = engine.bandit.state().spent.bps
    assert spent <= case.config.explore_bps_per_day, f"{spent} bps were spent on exploring"
    assert np.isfinite(outcome.equity_usdt).all()
    for name, value in outcome.metrics.items():
        is_undefined = math.isnan(value) and (not outcome.trades or name in MAY_BE_UNDEFINED)
        assert math.isfinite(value) or is_undefined, f"{name} is {value}"


MAY_BE_UNDEFINED = frozenset({"sharpe", "sortino", "profit_factor"})
"""No loss, no variance, or too short: figures that are said to be undefined then."""


def replayed(case: Case, watched: Watched) -> None:
    """Claim that a fresh engine does the same to the same events."""
    engine = engine_of(case, watched.simulation.engine.session)
    for k, (event, answers) in enumerate(zip(watched.events, watched.answers, strict=True)):
        assert engine.on_event(event) == answers, f"event {k}: {type(event).__name__}"


# ------------------------------------------------------------------------------------------------- the two tiers


def screen_of(case: Case) -> Simulation:
    simulation = Simulation(
        "given", case.market.universe, case.config, Given(is_null=case.is_null), seed=case.seed,
        equity_usdt=case.equity_usdt, keeps_executions=True,
    )  # fmt: skip
    return permitted(case, simulation)


def engine_of(case: Case, session: str) -> Engine:
    return Engine(
        case.config, case.market.universe, Given(is_null=case.is_null), session=session, seed=case.seed,
        memory=Memory(permit=case.permit), alternatives=alternatives_of(case.config),
    )  # fmt: skip


def permitted(case: Case, simulation: Simulation) -> Simulation:
    """Let the bandit act where the case has a permit: a backtest's engine begins without one."""
    if case.permit is not None:
        simulation.engine = engine_of(case, simulation.engine.session)
    return simulation


def ticks_of(case: Case, dice: Dice, *, is_still: bool = False) -> ArraysTape:
    """Return raw rows that the seconds could have been sampled from: books within a second differ from its last.

    Args:
        is_still: no more rows than the seconds show, each at its second's very end.
    """
    values, first = case.market.values, case.market.first_second
    seconds, blocks = case.market.seconds, {}
    for n, contract in enumerate(case.market.universe.contracts):
        books, trades, marks = [], [], []
        for t in range(seconds):
            end_ns = (first + t + 1) * NS
            shown_ns = end_ns if is_still else end_ns - 1
            row = values[:, t, n]
            sides = [
                np.array([[row[AT[f"{side}_price_{k}"]], row[AT[f"{side}_size_{k}"]]] for k in range(1, LEVELS + 1)])
                for side in ("bid", "ask")
            ]
            if not math.isfinite(row[AT["book_updates"]]) or row[AT["book_updates"]] <= 0:
                continue
            for side in sides:
                side[~np.isfinite(side[:, 0]), 1] = 0.0
            if not is_still and dice.random() < 0.5:
                thinner = [np.column_stack([side[:, 0], side[:, 1] * 0.5]) for side in sides]
                step = float(contract.size_step)
                for side in thinner:
                    side[:, 1] = [float(Decimal(int(size / step)) * contract.size_step) for size in side[:, 1]]
                books.append((end_ns - int(dice.integers(NS // 2, NS)), thinner))
            books.append((shown_ns, sides))
            for name, sign, at in (("buy", 1, "ask"), ("sell", -1, "bid")):
                price = row[AT[f"{at}_price_1"]]
                for _ in range(int(row[AT[f"{name}_count"]]) if math.isfinite(price) else 0):
                    size = float(contract.size_step * int(dice.integers(1, 1000)))
                    trades.append((end_ns - int(dice.integers(1, NS // 2)), price, size, sign))
            if math.isfinite(row[AT["mark"]]):
                marks.append((shown_ns, *(row[AT[name]] for name in ("mark", "index", "funding_rate"))))
        trades.sort()
        books.sort(key=lambda row: row[0])
        none = np.empty((0, LEVELS, 2))
        blocks[contract.symbol] = Block(
            begin_ns=0,
            end_ns=1 << 62,
            book_ns=np.array([at for at, _ in books], np.int64),
            bids=np.array([sides[0] for _, sides in books]) if books else none,
            asks=np.array([sides[1] for _, sides in books]) if books else none,
            trade_ns=np.array([row[0] for row in trades], np.int64),
            trade_price=np.array([row[1] for row in trades], np.float64),
            trade_size=np.array([row[2] for row in trades], np.float64),
            trade_side=np.array([row[3] for row in trades], np.int8),
            mark_ns=np.array([row[0] for row in marks], np.int64),
            mark=np.array([row[1] for row in marks], np.float64),
            index=np.array([row[2] for row in marks], np.float64),
            rate=np.array([row[3] for row in marks], np.float64),
        )
    return ArraysTape(blocks)


class Venue(msgspec.Struct, frozen=True):
    """What an exact exchange is like, and what becomes of its listings."""

    assumptions: Assumptions
    changes: tuple[Change, ...] = ()
    ladders: dict[str, Ladder] = {}


INSTANT = Latencies(decide=Constant(0), entry=Constant(0), answer=Constant(0), push=Constant(0))
_LATENCIES = (
    Latencies(),
    INSTANT,
    Latencies(entry=Lognormal(900, 1500)),
    Latencies(lost_share=0.2),
    Latencies(entry=Constant(2000), answer=Constant(3000), push=Constant(5000)),
    Latencies(push=Lognormal(50, 4000)),
    Latencies(lost_share=0.5, push=Constant(1000)),
)
_STATES = ("off", "off", "maintain", "limit_open", "coarser")


def venue_of(case: Case) -> Venue:
    """Return an exchange for a case: latencies, queues, fee tiers, ladders, delistings and changed rules."""
    dice = dice_of(case.seed, 5)
    assumptions = Assumptions(
        latencies=one_of(dice, *_LATENCIES),
        queue=one_of(dice, RiskAverse(), PowerProbability(), LogProbability()),
        impact_half_life_s=one_of(dice, 0.0, 0.5, 2.0),
        fee_tiers=one_of(dice, (), (), (_fee_tier("0", "0.0006"), _fee_tier("10000", "0.0003"))),
    )
    changes, ladders = [], {}
    is_changing = dice.random() < 0.5
    for contract in case.market.universe.contracts:
        if is_changing and dice.random() < 0.3:
            at_ns = (case.market.first_second + int(dice.integers(case.market.seconds))) * NS + int(dice.integers(NS))
            state = one_of(dice, *_STATES)
            changed = msgspec.structs.replace(contract, status=state)
            if state == "coarser":
                changed = msgspec.structs.replace(contract, tick=contract.tick * 2, size_step=contract.size_step * 2)
            changes.append(Change(at_ns, changed, state == "off"))
        if dice.random() < 0.3:
            ladders[contract.symbol] = _steep(contract)
    changes.sort(key=lambda change: change.at_ns)
    return Venue(assumptions, tuple(changes), ladders)


def _fee_tier(volume: str, taker: str) -> FeeTier:
    return FeeTier(Decimal(volume), Decimal(taker) / 3, Decimal(taker))


def _steep(contract: Contract) -> Ladder:
    """Return a ladder that a small account climbs."""
    ends = [Decimal(0), *(Decimal(1000) * 10**k for k in range(6))]
    tiers = tuple(
        Tier(
            level=k + 1, start_usdt=ends[k], end_usdt=ends[k + 1], leverage_max=max(1, contract.leverage_max // (k + 1)),
            maintenance_rate=Decimal("0.005") * (k + 1),
        )
        for k in range(6)
    )  # fmt: skip
    return Ladder(as_of_ns=0, tiers=tiers)


def exact_of(case: Case, venue: Venue, *, is_still: bool = False) -> ExactSimulation:
    tape = ticks_of(case, dice_of(case.seed, 9), is_still=is_still)
    market = Market(tape, venue.assumptions, changes=venue.changes, ladders=venue.ladders)
    simulation = ExactSimulation(
        "given", case.market.universe, case.config, Given(is_null=case.is_null), seed=case.seed,
        equity_usdt=case.equity_usdt, keeps_executions=True, market=market, start_s=case.market.first_second,
    )  # fmt: skip
    permitted(case, simulation)
    return simulation


# ------------------------------------------------------------------------------------- what two runs have in common


def still(case: Case) -> Case:
    """Return a case in which both tiers meet the same: takers, whole deep books, no funding, no missing marks."""
    market = case.market
    values = market.values.copy()
    values[AT["funding_rate"]] = np.nan
    for side in ("bid", "ask"):
        for k in range(1, LEVELS + 1):
            # Nobody takes all of it: a stop is taken at another instant of the second in each tier.
            values[AT[f"{side}_size_{k}"]] = np.round(values[AT[f"{side}_size_{k}"]]) + 1e9
    config = msgspec.structs.replace(case.config, entry_kind=OrderKind.MARKET)
    return msgspec.structs.replace(case, config=config, market=msgspec.structs.replace(market, values=values))


def facts(outcome: Outcome | None) -> list[tuple[object, ...]]:
    """Return what both tiers must say of every trade."""
    return [
        (t.symbol, t.side, t.entry_second, t.size, t.entry_price, t.exit_price, t.net_usdt, t.exit_cause)
        for t in (outcome.trades if outcome is not None else ())
    ]


def standing(case: Case) -> Case:
    """Return a case whose mids stand still: its spreads breathe, and both sides of a book are of the same sizes."""
    market = case.market
    values = market.values.copy()
    for n, contract in enumerate(market.universe.contracts):
        middle = round(market.values.item(AT["bid_price_1"], 0, n) / float(contract.tick)) + 100
        half = np.maximum(np.arange(market.seconds) % 7 // 2, 1)
        for k in range(1, LEVELS + 1):
            values[AT[f"bid_price_{k}"], :, n] = printed(middle - half - (k - 1), contract.tick)
            values[AT[f"ask_price_{k}"], :, n] = printed(middle + half + (k - 1), contract.tick)
            values[AT[f"ask_size_{k}"], :, n] = values[AT[f"bid_size_{k}"], :, n]
        for name in ("mark", "index", "last"):
            values[AT[name], :, n] = printed(np.array([middle]), contract.tick)[0]
        for width in (5, 10):
            values[AT[f"ask_depth_{width}bps_usdt"], :, n] = values[AT[f"bid_depth_{width}bps_usdt"], :, n]
    values[AT["funding_rate"]] = np.nan
    # Fees go by price: whoever buys first, while the spread is wide, pays others than who sells first.
    free = (msgspec.structs.replace(c, maker_fee=Decimal(0), taker_fee=Decimal(0)) for c in market.universe.contracts)
    universe = msgspec.structs.replace(market.universe, contracts=tuple(free))
    market = msgspec.structs.replace(market, universe=universe)
    return msgspec.structs.replace(case, market=msgspec.structs.replace(market, values=values))


def trades_of(outcome: Outcome | None) -> list[tuple[object, ...]]:
    return [
        (t.symbol, t.side, t.entry_second, t.entry_ns, t.exit_ns, t.size, t.net_usdt, t.exit_cause)
        for t in (outcome.trades if outcome is not None else ())
    ]


def mirrored(outcome: Outcome | None) -> list[tuple[object, ...]]:
    """Return the trades of a market that stands still as those of whoever thinks the opposite of everything."""
    return [(symbol, Side(str(side)).opposite, *rest) for symbol, side, *rest in trades_of(outcome)]
