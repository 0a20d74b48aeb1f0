"""The law of the ledger: folded over the venue's own fills, funding and marks it is the venue's account, to the last
digit, after every single event; and worked examples in which a person can follow each cent.

The worlds are seeded: orders of every kind with stops and targets, self-trades, books that thin out and cross resting
orders, public trades, marks that jump into stops and liquidations, funding on each symbol's grid over midnight.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pytest

from shared.simulator.venue.orders import Accepted, Fill, FundingReport, OrderReport, OrderRequest, Refusal, VenueEvent
from shared.simulator.venue.venue import Venue
from shared.strategy.portfolio import Portfolio, Quote, Trade
from shared.types import NS, Cause, Contract, Filled, OrderKind, OrderStatus, Side
from tests.shared.strategy.made import D, contract

NAN = float("nan")
DAY_NS = 86_400 * NS
SEEDS = range(8)
EVENING_NS = (1_760_000_000 // 86_400 * 86_400 + 22 * 3600) * NS  # two hours before midnight, UTC

LISTED = (
    # A usual alt, one whose prices have nine decimals and whose sizes are thousands, and one of large prices.
    (contract("AAAUSDT", tick=D("0.01"), size_step=D("0.1"), size_min=D("0.1"), funding_interval_h=8), 10_000),
    (contract("MEMEUSDT", tick=D("1E-9"), size_step=D(7000), size_min=D(7000), funding_interval_h=1), 12_345),
    (contract("XBTUSDT", tick=D("0.1"), size_step=D("0.0003"), size_min=D("0.0003"), funding_interval_h=4), 971_234),
)
SYMBOLS = tuple(listed.symbol for listed, _ in LISTED)


class _Heard(list[VenueEvent]):
    """The venue's queue, which says when something is put into it."""

    def __init__(self, say: Callable[[], None]) -> None:
        super().__init__()
        self._say = say

    def append(self, event: VenueEvent) -> None:
        super().append(event)
        self._say()


class _LoudVenue(Venue):
    """A venue whose events can be drained the moment they happen, also in the middle of a matching."""

    def __init__(self, contracts: list[Contract], listener: Callable[[], None]) -> None:
        super().__init__(contracts)
        self._listener = listener
        self._events = _Heard(listener)

    def drain(self) -> list[VenueEvent]:
        events = super().drain()
        self._events = _Heard(self._listener)
        return events


class LedgerWorld:
    """A venue that anything may happen to, and one ledger an account, which hears only what the venue says."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = np.random.default_rng(seed)
        self.venue = _LoudVenue([listed for listed, _ in LISTED], self.hear)
        self.now_ns = EVENING_NS
        self.venue.settle_funding(self.now_ns)
        self.ledgers: dict[str, Portfolio] = {}
        self.trades: dict[str, list[Trade]] = {}
        self.deposits: dict[str, Decimal] = {}
        self.mids = {listed.symbol: mid for listed, mid in LISTED}  # in ticks
        self.marked: set[str] = set()
        self.seen: Counter[str] = Counter()
        self.accounts: list[str] = []
        for _ in range(3):
            self.open_account()
        for symbol in SYMBOLS:
            self.show_book(symbol, is_whole=True)

    def open_account(self) -> None:
        name, deposit = f"account-{len(self.ledgers)}", D(int(self.random.integers(150, 900)))
        self.venue.open_account(name, deposit)
        ledger = Portfolio()
        ledger.adopt(deposit, (), self.now_ns, 0)
        self.ledgers[name], self.trades[name], self.deposits[name] = ledger, [], deposit
        self.accounts.append(name)

    # -------------------------------------------------------------------------------------------- what is heard

    def hear(self) -> None:
        """Fold what the venue says into the ledgers, and hold them to it at once."""
        for event in self.venue.drain():
            ledger = self.ledgers[event.account]
            if isinstance(event, Fill):
                self.trades[event.account] += ledger.fill(
                    Filled(
                        recv_ns=event.time_ns, client_oid=event.client_oid, order_id=event.order_id,
                        trade_id=event.trade_id, symbol=event.symbol, side=event.side, price=event.price,
                        size=event.size, fee_usdt=event.fee_usdt, is_maker=event.is_maker, exch_ns=event.time_ns,
                    ),
                    cause=Cause.ENTRY,
                    second=event.time_ns // NS,
                    quote=self.quote(event.symbol),
                    mark=self.venue.mark(event.symbol),
                )  # fmt: skip
                self.seen["maker fill" if event.is_maker else "taker fill"] += 1
                self.seen[f"fill of {event.kind.value}"] += 1
            elif isinstance(event, FundingReport):
                ledger.pay_funding(event.symbol, event.amount_usdt)
                self.seen["funding received" if event.amount_usdt > 0 else "funding paid"] += 1
            elif isinstance(event, OrderReport) and event.order.status.is_final:
                self.seen[event.order.source] += 1
                if event.order.status is OrderStatus.CANCELED:
                    self.seen[event.order.cancel_reason] += 1
            self.compare(event.account, event)

    def compare(self, account: str, after: object) -> None:
        venue, ledger = self.venue, self.ledgers[account]
        held = {position.symbol: position for position in venue.positions(account)}
        where = f"seed {self.seed}, {account}, after {after}"
        assert {s: h.size for s, h in ledger.holdings.items()} == {s: p.size for s, p in held.items()}, where
        assert {s: h.cost for s, h in ledger.holdings.items()} == {s: p.cost for s, p in held.items()}, where
        _, realised, fees, funding = venue.totals(account)
        assert (ledger.realised_usdt, ledger.fees_usdt, ledger.funding_usdt) == (realised, fees, funding), where
        assert ledger.balance_usdt == venue.balance(account), where
        assert ledger.unrealised_usdt == venue.unrealised(account), where
        assert ledger.equity_usdt == venue.equity(account), where
        assert ledger.adjustments_usdt == 0, where
        self.seen["comparison"] += 1

    def compare_all(self, after: object) -> None:
        for account in self.accounts:
            self.compare(account, after)

    # -------------------------------------------------------------------------------------------- what happens

    def step(self) -> None:
        symbol = SYMBOLS[int(self.random.integers(len(SYMBOLS)))]
        match int(self.random.integers(20)):
            case 0 | 1 | 2 | 3:
                self.move(symbol)
            case 4 | 5:
                self.public_trade(symbol)
            case 6:
                self.cancel()
            case 7:
                self.let_time_pass()
            case 8:
                account = self.some_account()
                self.venue.set_leverage(account, symbol, int(self.random.integers(1, 51)))
            case _:
                self.place(symbol)
        self.compare_all("a step")
        for account in list(self.accounts):
            if not self.venue.positions(account) and self.venue.equity(account) < 60:
                self.accounts.remove(account)
                self.open_account()

    def close_everything(self) -> None:
        """Let every account cancel and flatten, against books that are deep enough."""
        for account in self.ledgers:
            for order in self.venue.pending(account):
                self.venue.cancel(account, order.symbol, self.now_ns, order_id=order.order_id)
        for account in self.ledgers:
            for position in self.venue.positions(account):
                price, half = self.mids[position.symbol] * self.tick(position.symbol), self.tick(position.symbol)
                deep = float(2 * abs(position.size))
                sides = [(float(price - half), deep)], [(float(price + half), deep)]
                self.venue.set_book(position.symbol, *sides, self.now_ns)
                self.venue.place(
                    account,
                    OrderRequest(
                        symbol=position.symbol, side=Side.SELL if position.size > 0 else Side.BUY,
                        kind=OrderKind.MARKET, size=abs(position.size), reduce_only=True,
                    ),
                    self.now_ns,
                )  # fmt: skip
        self.compare_all("closing everything")

    def some_account(self) -> str:
        return self.accounts[int(self.random.integers(len(self.accounts)))]

    def tick(self, symbol: str) -> Decimal:
        return self.venue.contracts[symbol].tick

    def quote(self, symbol: str) -> Quote:
        return Quote(mid=self.mids[symbol] * self.tick(symbol), half_spread=self.tick(symbol))

    def show_book(self, symbol: str, *, is_whole: bool = False) -> None:
        tick, step = self.tick(symbol), self.venue.contracts[symbol].size_step
        half = int(self.random.integers(1, 4))
        sides = [
            [
                (float((self.mids[symbol] + sign * (half + k)) * tick), float(int(self.random.integers(1, 40)) * step))
                for k in range(int(self.random.integers(0 if not is_whole and self.random.random() < 0.2 else 1, 6)))
            ]
            for sign in (-1, 1)
        ]
        if symbol not in self.marked and all(sides):
            # Before its first mark a symbol is valued at the middle of its book.
            middle = (D(repr(sides[0][0][0])) + D(repr(sides[1][0][0]))) / 2
            for ledger in self.ledgers.values():
                ledger.mark(symbol, middle)
        self.venue.set_book(symbol, sides[0], sides[1], self.now_ns)
        self.compare_all("a book")

    def move(self, symbol: str) -> None:
        mid, is_jump = self.mids[symbol], self.random.random() < 0.12
        share = self.random.normal(0, 0.15 if is_jump else 0.002)
        self.mids[symbol] = min(max(int(mid * (1 + share)), mid // 2, 2_000), 3_000_000)
        self.show_book(symbol)
        if self.random.random() < 0.8:
            tick = self.tick(symbol)
            mark = float((self.mids[symbol] + int(self.random.integers(-3, 4))) * tick + tick / 4)
            rate = NAN if self.random.random() < 0.1 else round(float(self.random.normal(0, 3e-4)), 6)
            if self.random.random() < 0.1:
                mark = NAN
            else:
                self.marked.add(symbol)
                for ledger in self.ledgers.values():
                    ledger.mark(symbol, D(repr(mark)))
            self.venue.set_mark(symbol, mark, mark, rate, self.now_ns)
            self.compare_all("a mark")

    def public_trade(self, symbol: str) -> None:
        price = float((self.mids[symbol] + int(self.random.integers(-6, 7))) * self.tick(symbol))
        size = float(int(self.random.integers(1, 60)) * self.venue.contracts[symbol].size_step)
        self.venue.trade(symbol, price, size, self.side(), self.now_ns)

    def side(self) -> Side:
        return Side.BUY if self.random.random() < 0.5 else Side.SELL

    def cancel(self) -> None:
        account = self.some_account()
        pending = self.venue.pending(account)
        if pending:
            found = pending[int(self.random.integers(len(pending)))]
            self.venue.cancel(account, found.symbol, self.now_ns, order_id=found.order_id)

    def let_time_pass(self) -> None:
        longest_s = 5400 if self.random.random() < 0.5 else 30
        self.now_ns += int(self.random.integers(1, longest_s)) * NS
        self.venue.settle_funding(self.now_ns)

    def place(self, symbol: str) -> None:
        account, listed, side = self.some_account(), self.venue.contracts[symbol], self.side()
        kind = list(OrderKind)[int(self.random.integers(len(OrderKind)))]
        position = self.venue.position(account, symbol)
        reduce_only = position is not None and self.random.random() < 0.3
        if position is not None and reduce_only:
            side = Side.SELL if position.size > 0 else Side.BUY
        mid, tick = self.mids[symbol], listed.tick
        price = mid + side.sign * int(self.random.integers(-6, 6))
        # A notional of 5 to a few hundred USDT, in odd numbers of steps: costs that no average divides.
        steps = max(int(float(self.random.uniform(6, 2500)) / float(mid * tick * listed.size_step)), 1)
        away = 4 + int(mid * float(self.random.uniform(0.0005, 0.02)))
        has_stop, has_target = self.random.random(2) < 0.3
        answer = self.venue.place(
            account,
            OrderRequest(
                symbol=symbol, side=side, kind=kind, size=steps * listed.size_step, reduce_only=reduce_only,
                price=None if kind is OrderKind.MARKET else price * tick,
                stop_loss=(mid - side.sign * away) * tick if has_stop else None,
                take_profit=(mid + side.sign * away) * tick if has_target else None,
                stp=("none", "none", "cancel_taker", "cancel_maker")[int(self.random.integers(4))],
            ),
            self.now_ns,
        )  # fmt: skip
        self.seen[f"refused {answer.code}" if isinstance(answer, Refusal) else "accepted"] += 1
        if isinstance(answer, Accepted) and reduce_only:
            self.seen["reduce-only"] += 1


@functools.cache
def lived(seed: int) -> LedgerWorld:
    """Return the world of a seed after 800 steps and a clean end; all along its ledgers were held to the venue."""
    world = LedgerWorld(seed)
    for _ in range(800):
        world.step()
    world.close_everything()
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_ledger_is_the_venues_account_after_every_event(seed: int) -> None:
    """Equity, balance, unrealised, positions, their cost, realised, fees and funding: equal after every single event."""
    world = lived(seed)

    assert world.seen["comparison"] > 2_000, f"seed {seed}: {world.seen}"
    assert world.now_ns // DAY_NS > EVENING_NS // DAY_NS, f"seed {seed}: the world must live through midnight"


@pytest.mark.parametrize("seed", SEEDS)
def test_round_trips_and_orphaned_funding_explain_the_equity(seed: int) -> None:
    """Flat again, an account is its deposit, its trades net of both fees, and funding that was paid to no open trade."""
    world = lived(seed)

    for account, ledger in world.ledgers.items():
        trades = world.trades[account]
        for trade in trades:
            costs = trade.spread_usdt + trade.slippage_usdt + trade.fees_usdt
            assert trade.gross_usdt - costs + trade.funding_usdt == trade.net_usdt, f"seed {seed}: {trade}"
        assert not ledger.holdings, f"seed {seed}: {account}"
        orphaned = ledger.funding_usdt - sum(trade.funding_usdt for trade in trades)
        earned = sum((trade.net_usdt for trade in trades), D(0))
        assert ledger.equity_usdt == world.deposits[account] + earned + orphaned, f"seed {seed}: {account}"


def test_the_worlds_see_everything_that_the_law_speaks_of() -> None:
    """Together: every kind of fill, stops, targets, liquidations, funding both ways, bankruptcy."""
    seen = sum((lived(seed).seen for seed in SEEDS), Counter[str]())
    n_trades = sum(len(trades) for seed in SEEDS for trades in lived(seed).trades.values())

    expected = {f"fill of {kind.value}" for kind in OrderKind}
    expected |= {"maker fill", "taker fill", "funding paid", "funding received", "reduce-only"}
    expected |= {"stop_loss", "take_profit", "liquidation", "liquidation_cancel", "reduce_only_cancel"}
    expected |= {"post_only_cancel", "fok_cancel", "ioc_cancel", "market_cancel", "stp_cancel", "normal_cancel"}
    assert {name: seen[name] for name in expected if seen[name] < 5} == {}, seen
    assert n_trades > 300
    assert sum(len(lived(seed).ledgers) - len(lived(seed).accounts) for seed in SEEDS) >= 3


# ------------------------------------------------------------------------------------------------- worked examples


class Example:
    """One account, one symbol with Bitget's usual fees (taker 0.06 %), its ledger, and books as the text says."""

    def __init__(self, deposit: int) -> None:
        self.venue = Venue([contract()])
        self.venue.open_account("us", D(deposit))
        self.venue.set_leverage("us", "AAAUSDT", 5)
        self.now_ns = EVENING_NS
        self.venue.settle_funding(self.now_ns)
        self.ledger = Portfolio()
        self.ledger.adopt(D(deposit), (), self.now_ns, 0)
        self.trades: list[Trade] = []

    def show(self, bid: str, ask: str, mark: str) -> None:
        self.venue.set_book("AAAUSDT", [(D(bid), D(1000))], [(D(ask), D(1000))], self.now_ns)
        self.venue.set_mark("AAAUSDT", D(mark), D(mark), D("0.0001"), self.now_ns)
        self.ledger.mark("AAAUSDT", D(mark))

    def trade(self, side: Side, size: str) -> None:
        request = OrderRequest(symbol="AAAUSDT", side=side, kind=OrderKind.MARKET, size=D(size))
        answer = self.venue.place("us", request, self.now_ns)
        assert isinstance(answer, Accepted), answer
        self.fold()

    def fund(self) -> None:
        self.now_ns += 8 * 3600 * NS
        self.venue.settle_funding(self.now_ns)
        self.fold()

    def fold(self) -> None:
        for event in self.venue.drain():
            if isinstance(event, Fill):
                heard = Filled(
                    recv_ns=event.time_ns, client_oid="", order_id=event.order_id, trade_id=event.trade_id,
                    symbol=event.symbol, side=event.side, price=event.price, size=event.size,
                    fee_usdt=event.fee_usdt, is_maker=event.is_maker, exch_ns=event.time_ns,
                )  # fmt: skip
                mark = self.venue.mark(event.symbol)
                self.trades += self.ledger.fill(heard, cause=Cause.ENTRY, second=0, quote=None, mark=mark)
            elif isinstance(event, FundingReport):
                self.ledger.pay_funding(event.symbol, event.amount_usdt)
        assert self.ledger.equity_usdt == self.venue.equity("us")


@pytest.mark.parametrize(("side", "exit_price"), [(Side.BUY, "101"), (Side.SELL, "99")])
def test_one_percent_at_five_times_on_a_hundred_dollars_is_five_dollars_less_both_fees(
    side: Side, exit_price: str
) -> None:
    """LESSONS: $100 of margin at 5x is 500 USDT, 5 at 100; 1 % our way is $5.00 gross, long and short; both fees count.

    in:  500 x 0.0006 = 0.30;  out: 505 x 0.0006 = 0.303 (long), 495 x 0.0006 = 0.297 (short)
    """
    account = Example(1000)
    account.show("100", "100", "100")
    account.trade(side, "5")
    assert account.venue.margin_used("us") == 100
    account.show(exit_price, exit_price, exit_price)
    assert account.ledger.unrealised_usdt == 5

    account.trade(side.opposite, "5")

    [trade] = account.trades
    fee_out = D("0.303") if side is Side.BUY else D("0.297")
    assert (trade.gross_usdt, trade.fees_usdt) == (D(5), D("0.30") + fee_out)
    assert trade.net_usdt == D(5) - D("0.30") - fee_out
    assert account.ledger.equity_usdt == account.venue.equity("us") == 1000 + trade.net_usdt


def test_a_day_by_hand_with_partial_close_flip_funding_and_fees() -> None:
    """Bought 3 at 100 and 3 at 106, a third sold at 109, funding, flipped short at 97, funding, closed at 95.

                                fee (0.06 %)   realised                       open
    buy  3 at 100               0.18           -                              +3, cost 300
    buy  3 at 106               0.1908         -                              +6, cost 618, average 103
    sell 2 at 109               0.1308         2 x (109 - 103) = +12          +4, cost 412
    funding at mark 105, 0.01 %                -4 x 105 x 0.0001 = -0.042
    sell 7 at 97                0.4074         4 x (97 - 103) = -24           -3, cost -291
    funding at mark 96, 0.01 %                 +3 x 96 x 0.0001 = +0.0288
    buy  3 at 95                0.171          3 x (97 - 95) = +6             flat
    """
    account = Example(1000)
    ledger = account.ledger
    account.show("99", "100", "100")
    account.trade(Side.BUY, "3")
    account.show("105", "106", "106")
    account.trade(Side.BUY, "3")
    assert (ledger.holdings["AAAUSDT"].entry_price, ledger.unrealised_usdt) == (D(103), D(18))
    account.show("109", "110", "109")
    account.trade(Side.SELL, "2")
    assert (ledger.realised_usdt, ledger.unrealised_usdt) == (D(12), D(24))
    account.show("104", "106", "105")
    account.fund()
    assert ledger.funding_usdt == D("-0.042")
    account.show("97", "98", "97")
    account.trade(Side.SELL, "7")
    assert (ledger.size("AAAUSDT"), ledger.realised_usdt) == (D(-3), D(-12))
    assert ledger.equity_usdt == D(1000) - 12 - (D("0.18") + D("0.1908") + D("0.1308") + D("0.4074")) - D("0.042")
    account.show("95", "96", "96")
    account.fund()
    account.show("94", "95", "95")
    account.trade(Side.BUY, "3")

    long, short = account.trades
    assert (long.size, long.entry_price, long.exit_price) == (D(6), D(103), (D(2) * 109 + D(4) * 97) / 6)
    assert long.fees_usdt == D("0.18") + D("0.1908") + D("0.1308") + D("0.2328")  # 4 of the 7 closed it
    assert long.net_usdt == D(-12) - long.fees_usdt - D("0.042")
    assert (short.size, short.entry_price, short.exit_price) == (D(3), D(97), D(95))
    assert short.fees_usdt == D("0.1746") + D("0.171")
    assert short.net_usdt == D(6) - short.fees_usdt + D("0.0288")
    assert (ledger.realised_usdt, ledger.fees_usdt, ledger.funding_usdt) == (D(-6), D("1.08"), D("-0.0132"))
    assert ledger.equity_usdt == ledger.balance_usdt == D("992.9068")
    assert account.venue.totals("us") == (D(1000), D(-6), D("1.08"), D("-0.0132"))
