"""The published table of the system that this project starts from, from its own trades, and why it is wrong.

    10,000 seconds, 5x leverage: 1,293 trades, 33.18 % wins, profit factor 1.08, average duration 5.4 s,
    fees 383.07 USDT, slippage 127.69 USDT

Its market was a formula (trend, sine, random walk; fixed seed), its model was trained on those seconds. What it traded is
in tests/golden/published_trades.txt; prices, sizes and money follow here from its conventions:

    size       a hundredth of the balance, times leverage, over the mid: 5x is in the size
    PnL        side x (exit − entry) x size x 5 − exit fee − slippage: 5x is in the PnL again
    entry fee  off the balance, and in no trade

The table follows to the last digit, and so does what it leaves out:

    sum of the trades' PnL          +131.91    from which 33.18 % and 1.08 were taken
    entry fees, in no trade         −383.06
    the account                     −251.16    −2.51 %: the table is of trades that pay half of their fees
    leverage once instead of twice  −514.14    four fifths of a gross of 642.67
    the same sizes, counted once    −765.29
    sizes that follow that balance  −745.51    −7.46 %

The last line comes from this project's own ledger, fed with the same fills.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import pytest

from shared.strategy.portfolio import Portfolio, Trade
from shared.types import NS, Cause, Filled, Floats, Side
from tests.shared.strategy.made import D

TRADES = Path(__file__).resolve().parents[2] / "golden" / "published_trades.txt"
SECONDS = 10_000
LEVERAGE = 5
START_USDT = 10_000.0
SHARE = 0.01  # of the balance is margin: a tenth of its daily loss limit of 0.10
TAKER_FEE, SLIPPAGE = 0.0006, 0.0002


def market() -> tuple[Floats, Floats]:
    """Return mid and spread (bps) of every second: 45,000 with 5 % of trend, ten sines of 2 % and a random walk."""
    random = np.random.RandomState(42)  # a frozen stream, and the one that was published
    trend = np.linspace(0, 0.05, SECONDS)
    sine = 0.02 * np.sin(np.linspace(0, 20 * np.pi, SECONDS))
    walk = np.cumsum(random.randn(SECONDS) * 0.0005)
    return 45_000.0 * (1 + trend + sine + walk), 3.0 + 2.0 * np.abs(random.randn(SECONDS))


class Leg(msgspec.Struct, frozen=True):
    """One of its trades: seconds of entry and exit, and what it paid with half the spread on either side."""

    entry_s: int
    exit_s: int
    sign: int
    mid: float  # at the entry
    entry_price: float
    exit_price: float


def legs() -> list[Leg]:
    """Return its trades; each is "wait+hold": seconds since the last exit, side, seconds held."""
    mid, spread_bps = market()
    found: list[Leg] = []
    second = 0
    for word in TRADES.read_text().split():
        sign = 1 if "+" in word else -1
        wait, hold = (int(part) for part in word.replace("-", "+").split("+"))
        entry_s = second + wait
        second = exit_s = entry_s + hold
        half = sign * spread_bps / 20_000
        found.append(
            Leg(
                entry_s,
                exit_s,
                sign,
                float(mid[entry_s]),
                float(mid[entry_s] * (1 + half[entry_s])),
                float(mid[exit_s] * (1 - half[exit_s])),
            )
        )
    return found


class Published(msgspec.Struct):
    """An account kept by its conventions."""

    balance: float = START_USDT
    entry_fees: float = 0.0
    exit_fees: float = 0.0
    slippage: float = 0.0
    gross: float = 0.0
    pnl: list[float] = []

    def trade(self, leg: Leg, notional: float, times: int) -> None:
        """Book one trade; `times`: how often leverage goes into the PnL after it went into the size."""
        size = notional / leg.mid
        gross = leg.sign * (leg.exit_price - leg.entry_price) * size * times
        fee, slip = size * leg.exit_price * TAKER_FEE, size * leg.exit_price * SLIPPAGE
        self.pnl.append(gross - fee - slip)
        self.balance += self.pnl[-1] - notional * TAKER_FEE
        self.entry_fees += notional * TAKER_FEE
        self.exit_fees += fee
        self.slippage += slip
        self.gross += gross


def sizes(times: int) -> tuple[Published, list[float]]:
    """Return the account after all trades, and the notional of each.

    An entry in the second of an exit was sized before that exit was booked.
    """
    account, notionals = Published(), []
    before, last_exit_s = account.balance, -1
    for leg in legs():
        balance = before if leg.entry_s == last_exit_s else account.balance
        notionals.append(min(balance * SHARE, 1000.0) * LEVERAGE)
        # The entry fee leaves the balance at the entry, the PnL comes at the exit.
        before = account.balance - notionals[-1] * TAKER_FEE
        account.trade(leg, notionals[-1], times)
        last_exit_s = leg.exit_s
    return account, notionals


def test_the_published_table_follows_from_its_conventions() -> None:
    """1,293 trades, 33.18 %, 1.08, 5.4 s, 383.07 and 127.69, each to the last digit that was published."""
    account, _ = sizes(times=LEVERAGE)
    won = [pnl for pnl in account.pnl if pnl > 0]
    lost = [pnl for pnl in account.pnl if pnl <= 0]

    assert len(account.pnl) == 1293
    assert round(100 * len(won) / len(account.pnl), 2) == 33.18
    assert round(sum(won) / -sum(lost), 2) == 1.08
    assert round(float(np.mean([leg.exit_s - leg.entry_s for leg in legs()])), 1) == 5.4
    assert round(account.exit_fees, 2) == 383.07
    assert round(account.slippage, 2) == 127.69


def test_the_table_leaves_out_the_entry_fees_and_counts_leverage_twice() -> None:
    """Its trades sum to +131.91 and its account lost 251.16: the entry fees. Four fifths of its gross are leverage that
    was in the size already; without them the same trades lost 765.29."""
    account, _ = sizes(times=LEVERAGE)
    lost = account.balance - START_USDT

    assert round(sum(account.pnl), 2) == 131.91
    assert round(account.entry_fees, 2) == 383.06
    assert lost == pytest.approx(sum(account.pnl) - account.entry_fees, abs=1e-8)
    assert round(100 * lost / START_USDT, 2) == -2.51

    invented = account.gross * (1 - 1 / LEVERAGE)
    assert round(invented, 2) == 514.14
    assert round(lost - invented, 2) == -765.29


def test_our_ledger_counts_the_same_fills_once() -> None:
    """The same entries and exits through this project's ledger: −7.46 %, no trade without its entry fee; 135 of 1,293 win
    (10.4 %, not 33.2) and the profit factor is 0.20."""
    by_hand, notionals = sizes(times=1)
    ledger, trades = Portfolio(), list[Trade]()
    ledger.adopt(D(str(START_USDT)), (), 0, 0)
    for n, (leg, notional) in enumerate(zip(legs(), notionals, strict=True)):
        size = D(repr(notional / leg.mid))
        side = Side.BUY if leg.sign > 0 else Side.SELL
        slipped = leg.exit_price * (1 - leg.sign * SLIPPAGE)
        for name, second, way, price in (
            ("in", leg.entry_s, side, leg.entry_price),
            ("out", leg.exit_s, side.opposite, slipped),
        ):
            at = D(repr(price))
            fill = Filled(
                recv_ns=second * NS, client_oid=name, order_id=name, trade_id=f"{n}-{name}", symbol="BTCUSDT",
                side=way, price=at, size=size, fee_usdt=(at * size * Decimal("0.0006")).quantize(D("1e-8")),
                is_maker=False, exch_ns=second * NS,
            )  # fmt: skip
            trades += ledger.fill(fill, cause=Cause.ENTRY, second=second, quote=None, mark=None)

    net = [float(trade.net_usdt) for trade in trades]
    assert len(net) == 1293
    # Fees on slipped and touched prices instead of touched ones and mids: within two cents.
    assert float(ledger.equity_usdt) == pytest.approx(by_hand.balance, abs=0.02)
    assert round(100 * float(ledger.equity_usdt) / START_USDT - 100, 2) == -7.46
    assert sum(net) == pytest.approx(float(ledger.equity_usdt) - START_USDT, abs=1e-6)
    assert float(ledger.fees_usdt) == pytest.approx(by_hand.entry_fees + by_hand.exit_fees, abs=0.02)
    won = [pnl for pnl in net if pnl > 0]
    assert len(won) == 135
    assert round(sum(won) / -sum(pnl for pnl in net if pnl <= 0), 2) == 0.20
