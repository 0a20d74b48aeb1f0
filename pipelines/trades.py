"""From fills to trades to the figures of a backtest: what was earned, and what each cost took of it.

A *trade* runs from flat to flat in one symbol. Money is Decimal and comes from fills alone:

    gross  = sum over fills of -side x price x size      fills of one trade add up to no position
    net    = gross - fees + funding

Two costs are parts of gross, told apart by the market at the decision (row s, before the order was sent):

    spread    = side x (touch - mid) x size       a maker's own side is its touch: below zero, earned
    slippage  = side x (fill price - touch) x size      delay of one second and depth beyond the touch

so that gross + spread + slippage is what the decision's mid prices would have earned. One basis, never leveraged twice:
a 1 % move of 500 USDT notional is 5.00 USDT.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

import msgspec
import numpy as np
import polars as pl

from shared.costs import BPS
from shared.lake.layout import TABLES
from shared.types import NS, Filled, Floats, Side

ZERO = Decimal(0)

MINUTE_S = 60
MINUTES_A_YEAR = 365 * 24 * 60

METRICS = (
    "total_trades",
    "avg_duration_s",
    "win_rate",
    "profit_factor",
    "total_fees_usdt",
    "total_slippage_usdt",
    "total_spread_usdt",
    "total_funding_usdt",
    "net_pnl_usdt",
    "roi",
    "sharpe",
    "sortino",
    "max_drawdown",
)
"""Keys of metrics.csv and of the MLflow run, in this order."""


class Decision(msgspec.Struct, frozen=True):
    """The market when an order was decided on: prices of row s, NaN where there was no book."""

    bid: float
    ask: float
    cause: str


class Trade(msgspec.Struct, kw_only=True):
    """A round trip; open until `position` is zero again."""

    symbol: str
    side: int  # +1 long, -1 short
    entry_ns: int
    exit_ns: int = 0
    position: Decimal = ZERO  # base coin, signed
    size: Decimal = ZERO  # base coin bought (long) or sold (short) to open
    opened_usdt: Decimal = ZERO  # notional of the opening fills
    closed_usdt: Decimal = ZERO
    fee_usdt: Decimal = ZERO
    funding_usdt: Decimal = ZERO
    spread_usdt: float = 0.0
    slippage_usdt: float = 0.0
    cause: str = ""  # why it was closed
    is_maker: bool = False  # the first fill added liquidity

    @property
    def gross_usdt(self) -> Decimal:
        return (self.closed_usdt - self.opened_usdt) * self.side

    @property
    def net_usdt(self) -> Decimal:
        return self.gross_usdt - self.fee_usdt + self.funding_usdt

    @property
    def net_bps(self) -> float:
        """Return the net result in bps of the notional at entry."""
        return float(self.net_usdt / self.opened_usdt) * BPS if self.opened_usdt else math.nan

    @property
    def duration_s(self) -> float:
        return (self.exit_ns - self.entry_ns) / NS


class TradeBook:
    """Collects fills and funding into trades; `closed` is in the order of the closing fills."""

    def __init__(self) -> None:
        self.closed: list[Trade] = []
        self._open: dict[str, Trade] = {}
        self._trade_ids: set[str] = set()
        self.unattributed_funding_usdt = ZERO  # paid or received in a symbol that is flat by now

    def on_fill(self, fill: Filled, decision: Decision) -> None:
        """Take in a fill; one that crosses zero closes a trade and opens the next, costs split by size."""
        if fill.trade_id in self._trade_ids:
            return
        self._trade_ids.add(fill.trade_id)
        trade = self._open.get(fill.symbol)
        left, fee_left = fill.size, fill.fee_usdt
        if trade is not None and trade.side != fill.side.sign:
            closing = min(left, abs(trade.position))
            fee = fee_left if closing == left else fill.fee_usdt * closing / fill.size
            self._add(trade, fill, closing, fee, decision)
            left, fee_left = left - closing, fee_left - fee
            if trade.position == 0:
                trade.exit_ns, trade.cause = fill.recv_ns, decision.cause
                self.closed.append(self._open.pop(fill.symbol))
                trade = None
        if left > 0:
            if trade is None:
                trade = Trade(symbol=fill.symbol, side=fill.side.sign, entry_ns=fill.recv_ns, is_maker=fill.is_maker)
                self._open[fill.symbol] = trade
            self._add(trade, fill, left, fee_left, decision)

    def on_funding(self, symbol: str, amount_usdt: Decimal) -> None:
        if symbol in self._open:
            self._open[symbol].funding_usdt += amount_usdt
        else:
            self.unattributed_funding_usdt += amount_usdt

    @property
    def is_flat(self) -> bool:
        return not self._open

    def _add(self, trade: Trade, fill: Filled, size: Decimal, fee: Decimal, decision: Decision) -> None:
        sign = fill.side.sign
        if sign == trade.side:
            trade.size += size
            trade.opened_usdt += fill.price * size
        else:
            trade.closed_usdt += fill.price * size
        trade.position += sign * size
        trade.fee_usdt += fee
        mid = (decision.bid + decision.ask) / 2
        if math.isfinite(mid):
            takes_ask = (fill.side is Side.BUY) != fill.is_maker
            touch = decision.ask if takes_ask else decision.bid
            trade.spread_usdt += sign * (touch - mid) * float(size)
            trade.slippage_usdt += sign * (float(fill.price) - touch) * float(size)


def trades_frame(trades: Sequence[Trade], run: str) -> pl.DataFrame:
    """Return closed trades as the lake stores them, one row each."""
    return pl.DataFrame(
        [
            {
                "run": run,
                "trade": n,
                "symbol": trade.symbol,
                "side": trade.side,
                "entry_ns": trade.entry_ns,
                "exit_ns": trade.exit_ns,
                "entry_price": float(trade.opened_usdt / trade.size),
                "exit_price": float(trade.closed_usdt / trade.size),
                "size": float(trade.size),
                "notional_usdt": float(trade.opened_usdt),
                "gross_usdt": float(trade.gross_usdt),
                "fee_usdt": float(trade.fee_usdt),
                "funding_usdt": float(trade.funding_usdt),
                "spread_usdt": trade.spread_usdt,
                "slippage_usdt": trade.slippage_usdt,
                "net_usdt": float(trade.net_usdt),
                "net_bps": trade.net_bps,
                "cause": trade.cause,
            }
            for n, trade in enumerate(trades)
        ],
        schema=dict(TABLES["backtests"].columns),
    )


def metrics_of(trades: Sequence[Trade], equity_usdt: Floats, start_usdt: Decimal) -> dict[str, float]:
    """Return the figures of METRICS.

    `sharpe` and `sortino` come from equity returns over whole minutes, annualised with √525,600 (crypto never
    closes). NaN says that a figure is not defined: no trade, no loss, no variance; it never becomes 0.

    Args:
        trades: closed ones; nothing may be open.
        equity_usdt: (T,) at the end of every second, after a first element at the start.
        start_usdt: equity before the first second.
    """
    nets = [trade.net_usdt for trade in trades]
    net = sum(nets, ZERO)
    won, lost = sum((n for n in nets if n > 0), ZERO), -sum((n for n in nets if n < 0), ZERO)
    minutes = equity_usdt[::MINUTE_S]
    returns = np.diff(minutes) / minutes[:-1]
    deviation = float(returns.std(ddof=1)) if len(returns) > 1 else math.nan
    downside = float(np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2))) if len(returns) else math.nan
    peak = np.maximum.accumulate(equity_usdt) if len(equity_usdt) else np.array([1.0])
    return {
        "total_trades": float(len(trades)),
        "avg_duration_s": float(np.mean([trade.duration_s for trade in trades])) if trades else math.nan,
        "win_rate": float(np.mean([n > 0 for n in nets])) if trades else math.nan,
        "profit_factor": float(won / lost) if lost else math.nan,
        "total_fees_usdt": float(sum((trade.fee_usdt for trade in trades), ZERO)),
        "total_slippage_usdt": math.fsum(trade.slippage_usdt for trade in trades),
        "total_spread_usdt": math.fsum(trade.spread_usdt for trade in trades),
        "total_funding_usdt": float(sum((trade.funding_usdt for trade in trades), ZERO)),
        "net_pnl_usdt": float(net),
        "roi": float(net / start_usdt),
        "sharpe": _ratio(returns, deviation),
        "sortino": _ratio(
            returns, float(np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2))) if len(returns) else math.nan
        ),
        "max_drawdown": float(np.max((peak - equity_usdt) / peak)) if len(equity_usdt) else 0.0,
    }


def _ratio(returns: Floats, deviation: float) -> float:
    if not len(returns) or not deviation > 0:
        return math.nan
    return float(returns.mean() / deviation) * math.sqrt(MINUTES_A_YEAR)
