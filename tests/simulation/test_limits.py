"""No sequence of events gets an order past a limit.

A machine makes the events: markets that jump, widen, thin out and fall silent, wires that lose, delay, repeat and
refuse, links that drop, clocks that drift, seconds that come late, opinions that all say the same, crashes with and
without a pause over midnight, each session starting from the memory of the one before. Beside the engine runs an
oracle that shares no line with it: at every placement it computes every limit anew, in fractions.

Twice it looks at what is held and asked for: as the engine must count it (every entry that may fill, no exit that may
not, and for a net the worst subset of fills), and as it is at the venue, which the engine cannot see: whatever the
wires did, positions there and orders on their way never exceed gross, symbol and margin either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from shared.strategy.engine import Engine, EngineConfig, Memory
from shared.strategy.orders import State
from shared.strategy.scores import Scores
from shared.types import (
    NS,
    Action,
    Adopted,
    ClockRead,
    Event,
    LinkChanged,
    Note,
    OrderKind,
    OrderRefused,
    PlaceOrder,
    SecondClosed,
    Side,
    Universe,
)
from tests.shared.strategy.made import AT, contract
from tests.simulation.world import BAD_WIRES, US, Faults, World, _Opinions

DAY_NS = 86_400 * NS
LATE_AFTER_NS = 31 * NS  # no request arrives later than 30 s after it was sent
STORM = msgspec.structs.replace(BAD_WIRES, refused=0.8, lost_answer=0.05)
DEAF = msgspec.structs.replace(BAD_WIRES, lost_answer=0.5, late_request=0.2, silent_query=0.5, lost_push=0.4)
WIRES = (Faults(), BAD_WIRES, STORM, DEAF)

LISTED = Universe(
    source="simulator-made",
    as_of_ns=0,
    contracts=tuple(
        contract(f"{base}USDT", is_rwa=base.startswith("X"))
        for base in sorted(("BTC", "ETH", "AAA", "BBB", "CCC", "DDD", "XAU", "XTSLA"))
    ),
)
SYMBOLS = LISTED.symbols
GRANTED = dict(zip(SYMBOLS, (5, 5, 2, 5, 3, 5, 5, 1), strict=True))
CLUSTER = {"BTCUSDT": "majors", "ETHUSDT": "majors", "XAUUSDT": "rwa", "XTSLAUSDT": "rwa"}  # the others: alts

TIGHT = EngineConfig(
    horizon_s=8, cooldown_s=0, top_k=3, symbol_share_max=0.25, net_share_max=0.35, cluster_share_max=0.25,
    position_risk_bps=1000.0, kelly_share=1.0, orders_per_second_max=3, refusals_per_minute_max=10,
    daily_loss_limit=0.03, drawdown_max=0.05, depth_usdt_min=5000.0, depth_share_max=1.0, side_band=1.0, beta_band=1.0,
    turnover_penalty_bps=0.0, entry_wait_s=4,
)  # fmt: skip
KINDS = (OrderKind.MARKET, OrderKind.POST_ONLY)


def exact(value: float | Decimal) -> Fraction:
    return Fraction(value) if isinstance(value, Decimal) else Fraction(repr(float(value)))


class Oracle:
    """Every limit, from its definition."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.links = {"public": False, "private": False}
        self.offset_ns = 0
        self.day, self.day_first, self.peak = -1, Fraction(0), Fraction(0)
        self.latched = ""
        self.refused_ns: list[int] = []
        self.per_second: Counter[int] = Counter()
        self.heard: dict[str, int] = {}  # symbol -> second of its last update
        self.judged: Counter[str] = Counter()

    def restarted(self) -> None:
        """Forget what dies with a process: links and clock, and nothing else."""
        self.links = {"public": False, "private": False}
        self.offset_ns = 0
        self.heard = {}

    def saw(self, event: Event, equity: Fraction, is_adopted: bool) -> None:
        """Remember what an event says about the limits."""
        if isinstance(event, LinkChanged):
            self.links[event.link] = event.is_up
        elif isinstance(event, ClockRead):
            self.offset_ns = event.offset_ns
        elif isinstance(event, SecondClosed):
            for n, symbol in enumerate(SYMBOLS):
                if event.columns[AT["book_updates"], n] > 0 or event.columns[AT["ticker_updates"], n] > 0:
                    self.heard[symbol] = event.second
            if is_adopted:
                self.look(event.recv_ns, equity)

    def look(self, now_ns: int, equity: Fraction) -> None:
        if now_ns // DAY_NS > self.day:
            self.day, self.day_first = now_ns // DAY_NS, equity
            self.latched = "" if self.latched == "daily" else self.latched
        self.peak = max(self.peak, equity)
        if not self.latched and equity <= self.peak * (1 - exact(self.config.drawdown_max)):
            self.latched = "drawdown"
        if not self.latched and equity <= self.day_first * (1 - exact(self.config.daily_loss_limit)):
            self.latched = "daily"

    def refused(self, now_ns: int) -> None:
        self.refused_ns.append(now_ns)
        last = self.refused_ns[-self.config.refusals_per_minute_max - 1 :]
        is_storm = len(last) > self.config.refusals_per_minute_max and now_ns - last[0] <= 60 * NS
        if is_storm and not self.latched and self.day >= 0:
            self.latched = "refusals"


class JudgedEngine(Engine):
    """The engine, with somebody who looks at every event and every answer."""

    judge: Callable[[Event, list[Action], bool], None]

    def on_event(self, event: Event) -> list[Action]:
        is_counted = False
        if isinstance(event, OrderRefused):
            order = self.orders.get(event.client_oid)
            is_open = order is not None and order.state in (State.SENT, State.UNKNOWN)
            is_counted = is_open and not (order is not None and order.reduce_only and event.code == "22002")
        actions = super().on_event(event)
        self.judge(event, actions, is_counted)
        return actions


class JudgedWorld(World):
    """A world in which every placement is judged, and in which the process can die."""

    def __init__(self, seed: int, config: EngineConfig = TIGHT) -> None:
        self.n_sessions = 0
        self.is_dead = True  # until the judged engine is here
        self.bias = 0
        self.moves = dict.fromkeys(SYMBOLS, 1.0)
        self.wide: set[str] = set()
        self.thin: set[str] = set()
        self.silent: set[str] = set()
        self.lag_ns = 0
        self.sent_ns: dict[str, int] = {}
        self.arrived: set[str] = set()
        super().__init__(seed, listed=LISTED, config=config, is_coin=False, volatility=5e-4)
        for symbol, leverage in GRANTED.items():
            self.venue.set_leverage(US, symbol, leverage)
        self.oracle = Oracle(config)
        self.begin(Memory())

    # ------------------------------------------------------------------------------------------- lives of a process

    def begin(self, memory: Memory) -> None:
        self.n_sessions += 1
        stored = msgspec.msgpack.decode(msgspec.msgpack.encode(memory), type=Memory)
        name = f"limits-{self.n_sessions}"
        self.engine = engine = JudgedEngine(
            self.engine.config, LISTED, _Opinions(), session=name, seed=7, memory=stored
        )
        engine.judge = self.judge
        self.is_dead = False
        self.oracle.restarted()
        self.tell(self._truth())
        for link in ("public", "private"):
            self.tell(LinkChanged(recv_ns=self.now_ns, link=link, is_up=True))
        self.is_private_up = True

    def crash(self, pause_s: int) -> None:
        """Kill the process; its requests still arrive, what comes back is heard by nobody."""
        memory = self.engine.memory
        self.is_dead = True
        end_ns = self.now_ns + pause_s * NS
        self._until(end_ns)
        self.now_ns = end_ns
        self.second = self.now_ns // NS
        self.venue.settle_funding(self.now_ns)
        self._move_market()
        self.begin(memory)

    def tell(self, event: Event) -> None:
        if not self.is_dead:
            super().tell(event)

    def _truth(self) -> Adopted:
        return msgspec.structs.replace(super()._truth(), leverage=dict(GRANTED))

    def _send(self, order: PlaceOrder) -> None:
        self.sent_ns[order.client_oid] = self.now_ns
        super()._send(order)

    def _arrive(self, order: PlaceOrder, *, is_answered: bool) -> None:
        self.arrived.add(order.client_oid)
        super()._arrive(order, is_answered=is_answered)

    # ---------------------------------------------------------------------------------------------------- the market

    def _move_market(self) -> None:
        self.mid = np.maximum(np.round(self.mid * [self.moves[symbol] for symbol in SYMBOLS], 2), 1.0)
        self.moves = dict.fromkeys(SYMBOLS, 1.0)
        super()._move_market()
        for n, symbol in enumerate(SYMBOLS):
            if symbol in self.wide:
                self.block[AT["ask_price_1"], n] = round(float(self.mid[n]) * 1.01, 2)
            if symbol in self.thin:
                self.block[AT["bid_depth_10bps_usdt"], n] = 100.0
            if symbol in self.silent:
                self.block[AT["book_updates"], n] = self.block[AT["ticker_updates"], n] = 0.0

    def _opinions(self) -> Scores:
        said = super()._opinions()
        if not self.bias:
            return said
        sign = np.full(len(SYMBOLS), self.bias, np.int8)
        sure, unsure = np.full(len(SYMBOLS), 0.9), np.full(len(SYMBOLS), 0.05)
        p_long, p_short = (sure, unsure) if self.bias > 0 else (unsure, sure)
        return Scores(
            p_long, p_short, unsure, 50.0 * sign.astype(np.float64), sign, sure, np.ones(len(SYMBOLS), np.bool_)
        )

    def close_second(self) -> None:
        """Live through one second, whose end is told late where the machine stalls."""
        close_ns = (self.second + 1) * NS
        self._until(close_ns - 1)
        self.now_ns = max(self.now_ns, close_ns + self.lag_ns)
        self.venue.settle_funding(self.now_ns)
        self._move_market()
        said = self._opinions()
        self.tell(SecondClosed(recv_ns=self.now_ns, second=self.second, columns=self.block, scores=said))
        self.second += 1
        if self._happens(self.faults.private_drops) and self.is_private_up:
            self._drop_private()

    # ----------------------------------------------------------------------------------------------------- the judge

    def judge(self, event: Event, actions: list[Action], is_counted: bool) -> None:
        engine, oracle = self.engine, self.oracle
        is_adopted = engine.why_second >= 0 or isinstance(event, Adopted | SecondClosed)
        oracle.saw(event, exact(engine.portfolio.equity_usdt), is_adopted)
        if is_counted:
            oracle.refused(event.recv_ns)
        placed = [action for action in actions if isinstance(action, PlaceOrder)]
        counted = {o.client_oid: o.remaining for o in engine.orders.working}
        for order in placed:
            del counted[order.client_oid]
        for order in placed:
            second = event.recv_ns // NS
            oracle.per_second[second] += 1
            assert oracle.per_second[second] <= oracle.config.orders_per_second_max, "order rate"
            if not order.reduce_only:
                assert isinstance(event, SecondClosed)
                self.judge_world(order, event)
                self.judge_sums(order, event, counted)
                self.judge_truth(event)
                oracle.judged["entry"] += 1
            counted[order.client_oid] = order.size

    def judge_world(self, order: PlaceOrder, event: SecondClosed) -> None:
        """Hold an entry against everything that may forbid all of them, and against its book."""
        oracle, config, n = self.oracle, self.oracle.config, SYMBOLS.index(order.symbol)
        assert not oracle.latched, f"latched: {oracle.latched}"
        assert all(oracle.links.values()), "a link is down"
        assert abs(oracle.offset_ns) <= config.clock_skew_ms_max * 1_000_000, "clocks differ"
        assert event.recv_ns - (event.second + 1) * NS <= config.lag_s_max * NS, "late"
        n_unknown = sum(o.state is State.UNKNOWN for o in self.engine.orders.working)
        assert n_unknown <= config.unknown_orders_max, "unknown orders"
        assert event.second - oracle.heard.get(order.symbol, -(10**9)) <= config.stale_s_max, "silent"
        bid, ask = (exact(event.columns[AT[f"{side}_price_1"], n]) for side in ("bid", "ask"))
        assert (ask - bid) / ((ask + bid) / 2) * 10_000 <= exact(config.spread_bps_max) + Fraction(1, 10**9), "wide"
        assert min(event.columns[AT[f"{s}_depth_10bps_usdt"], n] for s in ("bid", "ask")) >= config.depth_usdt_min
        assert order.stop_price is not None, "no stop"
        away = ((bid + ask) / 2 - exact(order.stop_price)) * (1 if order.side is Side.BUY else -1)
        assert away > ask - bid + exact(LISTED.contracts[n].tick), "a stop within the spread"

    def judge_sums(self, order: PlaceOrder, event: SecondClosed, counted: dict[str, Decimal]) -> None:
        """Hold gross, symbol, margin, net and cluster with this order against their limits, as the engine must count."""
        config, engine = self.oracle.config, self.engine
        long = order.side is Side.BUY
        gross, margin, net, cluster, mine = (Fraction(0) for _ in range(5))

        def count(symbol: str, usdt: Fraction, on_our_side: Fraction) -> None:
            nonlocal gross, margin, net, cluster, mine
            gross += usdt
            margin += usdt / GRANTED[symbol]
            mine += usdt if symbol == order.symbol else 0
            net += on_our_side
            cluster += on_our_side if CLUSTER.get(symbol) == CLUSTER.get(order.symbol) else 0

        leaving: dict[str, Fraction] = {}
        for oid, size in counted.items():
            working = engine.orders.get(oid)
            assert working is not None
            if working.reduce_only:
                leaving[working.symbol] = leaving.get(working.symbol, Fraction(0)) + exact(size)
                continue
            known = [self.mark(working.symbol, event)] + ([exact(working.mid)] if working.mid is not None else [])
            usdt = exact(size) * max(known)
            count(working.symbol, usdt, usdt if (working.side is Side.BUY) is long else Fraction(0))
        for symbol, held in engine.portfolio.holdings.items():
            owned, price = exact(held.size), self.mark(symbol, event)
            left = max(abs(owned) - leaving.get(symbol, Fraction(0)), Fraction(0))
            count(symbol, abs(owned) * price, abs(owned) * price if (owned > 0) is long else -left * price)
        value = exact(order.size) * max(self.mark(order.symbol, event), self.mid_of(order.symbol, event))
        count(order.symbol, value, value)

        equity = exact(engine.portfolio.equity_usdt)
        most = equity * min(config.leverage, GRANTED[order.symbol]) * exact(config.margin_use_max)
        where = f"session {self.n_sessions}, {order.symbol}, gross {float(gross):.2f}, most {float(most):.2f}"
        assert gross <= most, f"gross: {where}"
        assert mine <= most * exact(config.symbol_share_max), f"symbol: {where}"
        assert margin <= equity * exact(config.margin_use_max), f"margin {float(margin):.2f}: {where}"
        assert net <= most * exact(config.net_share_max), f"net {float(net):.2f}: {where}"
        assert cluster <= most * exact(config.cluster_share_max), f"cluster {float(cluster):.2f}: {where}"

    def judge_truth(self, event: SecondClosed) -> None:
        """Hold what is at the venue and on its way there against gross and margin: the wires must not matter."""
        if self.n_sessions > 1:
            return  # what a dead process had sent can arrive later: nobody can know
        config, equity = self.oracle.config, exact(self.engine.portfolio.equity_usdt)
        by_symbol: dict[str, Fraction] = dict.fromkeys(SYMBOLS, Fraction(0))
        for position in self.venue.positions(US):
            by_symbol[position.symbol] += abs(exact(position.size)) * self.mark(position.symbol, event)
        for oid, order in self.placed.items():
            if order.reduce_only:
                continue
            found = self.venue.order(US, client_oid=oid)
            left = Fraction(0)
            if found is not None and not found.status.is_final:
                left = exact(found.size) - exact(found.filled)
            elif oid not in self.arrived and self.now_ns - self.sent_ns[oid] < LATE_AFTER_NS:
                left = exact(order.size)
            by_symbol[order.symbol] += left * self.mark(order.symbol, event)
        most = equity * config.leverage * exact(config.margin_use_max)
        assert sum(by_symbol.values()) <= most, "gross at the venue"
        margin = sum(usdt / GRANTED[symbol] for symbol, usdt in by_symbol.items())
        assert margin <= equity * exact(config.margin_use_max), "margin at the venue"
        self.oracle.judged["truth"] += 1

    @staticmethod
    def mark(symbol: str, event: SecondClosed) -> Fraction:
        return exact(event.columns[AT["mark"], SYMBOLS.index(symbol)])

    @staticmethod
    def mid_of(symbol: str, event: SecondClosed) -> Fraction:
        n = SYMBOLS.index(symbol)
        return (exact(event.columns[AT["bid_price_1"], n]) + exact(event.columns[AT["ask_price_1"], n])) / 2


class Limits(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 1000), wires=st.sampled_from(range(len(WIRES))), kind=st.sampled_from(KINDS))
    def begin(self, seed: int, wires: int, kind: OrderKind) -> None:
        self.world = JudgedWorld(seed, msgspec.structs.replace(TIGHT, entry_kind=kind))
        self.world.faults = WIRES[wires]

    @rule(seconds=st.integers(1, 6))
    def live(self, seconds: int) -> None:
        for _ in range(seconds):
            self.world.close_second()

    @rule(symbol=st.sampled_from(SYMBOLS), share=st.floats(-0.3, 0.4))
    def jump(self, symbol: str, share: float) -> None:
        self.world.moves[symbol] *= 1 + share
        self.world.close_second()

    @rule(share=st.floats(-0.04, 0.04))
    def jump_together(self, share: float) -> None:
        self.world.moves = {symbol: move * (1 + share) for symbol, move in self.world.moves.items()}
        self.world.close_second()

    @rule(symbols=st.sets(st.sampled_from(SYMBOLS), max_size=4), kind=st.sampled_from(["wide", "thin", "silent"]))
    def spoil_books(self, symbols: set[str], kind: str) -> None:
        setattr(self.world, kind, symbols)

    @rule(wires=st.sampled_from(range(len(WIRES))))
    def change_wires(self, wires: int) -> None:
        self.world.faults = WIRES[wires]

    @rule(bias=st.sampled_from([-1, 0, 0, 1]))
    def change_opinions(self, bias: int) -> None:
        self.world.bias = bias

    @rule(seconds=st.integers(3, 12))
    def recover(self, seconds: int) -> None:
        """All is well for a while, so that there is something to go wrong."""
        self.world.wide, self.world.thin, self.world.silent, self.world.lag_ns = set(), set(), set(), 0
        self.world.tell(ClockRead(recv_ns=self.world.now_ns, offset_ns=0))
        for link in ("public", "private"):
            self.world.tell(LinkChanged(recv_ns=self.world.now_ns, link=link, is_up=True))
        self.live(seconds)

    @rule(link=st.sampled_from(["public", "private"]), seconds=st.integers(1, 3))
    def lose_link(self, link: str, seconds: int) -> None:
        self.world.tell(LinkChanged(recv_ns=self.world.now_ns, link=link, is_up=False))
        self.live(seconds)

    @rule(offset_ms=st.sampled_from([0, 0, 2000, -2000, 2001, -2500]))
    def read_clock(self, offset_ms: int) -> None:
        self.world.tell(ClockRead(recv_ns=self.world.now_ns, offset_ns=offset_ms * 1_000_000))

    @rule(lag_s=st.sampled_from([0, 0, 4, 6]))
    def stall(self, lag_s: int) -> None:
        self.world.lag_ns = lag_s * NS

    @rule(pause_s=st.sampled_from([0, 1, 40, 50_000]))
    def crash(self, pause_s: int) -> None:
        self.world.crash(pause_s)


def press(n_examples: int) -> Counter[str]:
    """Let the machine run, and return how often each gate said no and how many entries were judged."""
    met: Counter[str] = Counter()

    class Counted(Limits):
        def teardown(self) -> None:
            met.update(self.world.oracle.judged)
            for action in self.world.actions:
                if isinstance(action, Note) and action.event == "decision.made":
                    met.update({name[3:]: int(n or 0) for name, n in action.fields.items() if name[:3] == "no_"})

    run_state_machine_as_test(Counted, settings=settings(max_examples=n_examples, stateful_step_count=40))
    return met


def test_no_sequence_of_events_gets_an_order_past_a_limit() -> None:
    """Whatever happens in whatever order, at every placement every limit holds, computed by somebody else; and those
    limits have refused something, so that nothing held by chance."""
    met = press(30)

    # What sequences are tried depends on what else is imported (hypothesis takes constants from there): only what is met
    # hundreds of times is asked for here.
    common = "link_down late unknown_orders exposure net cluster"
    assert [name for name in common.split() if not met[name]] == [], met
    assert met["entry"] > 100, met
    assert met["truth"] > 50, met


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_no_long_search_finds_an_order_past_a_limit() -> None:
    """The same with ten times as many sequences, in which the rarer gates have said no, too."""
    met = press(300)

    rare = "clock_skew risk_latched spread depth order_rate"
    assert [name for name in rare.split() if not met[name]] == [], met
