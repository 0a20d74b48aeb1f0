"""From round trips to the figures of a backtest: what was earned, and what each cost took of it.

A trade runs from flat to flat in one symbol (`shared.strategy.portfolio.Trade`, the ledger that live keeps); money is
Decimal and comes from fills alone. Its waterfall, with mid and touch of the decision:

    gross (mid to mid) - fees - half spread in - half spread out - slippage beyond the touch + funding = net

One basis, never leveraged twice: a 1 % move of 500 USDT notional is 5.00 USDT. A maker's half spread is counted as a
cost like a taker's and comes back as negative slippage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal

import msgspec
import numpy as np
import polars as pl

from shared.lake.layout import TABLES
from shared.strategy.exact import exactly
from shared.strategy.portfolio import Trade
from shared.types import NS, Floats, Ints

ZERO = Decimal(0)

MINUTE_S = 60
MINUTES_A_YEAR = 365 * 24 * 60

RATIO_MINUTES_MIN = 24 * 60
"""Below a day `sharpe` and `sortino` are not defined: half an hour of a market printed a Sharpe of 390. The standard
error of an annualised Sharpe is about √(365 / days): 19 after one day, 1 after a year (Lo 2002)."""

ERROR_MINUTES_MIN = 5
"""Minutes with entries below which an error is not told: of two or three it is as uncertain as what it is about."""

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


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """A fill and the visible book that it met."""

    symbol: str
    sign: int  # +1 bought, -1 sold
    time_ns: int
    price: float
    size: float  # base coin
    fee_usdt: float
    is_maker: bool
    bids: Floats  # (LEVELS, 2): price, size, best first, before the fill
    asks: Floats


class Exposure(msgspec.Struct, frozen=True):
    """What was held, look after look."""

    second: Ints
    gross_usdt: Floats
    net_usdt: Floats
    positions: Ints


NO_EXPOSURE = Exposure(np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0, np.int64))


def trades_frame(trades: Sequence[Trade], run: str) -> pl.DataFrame:
    """Return trades as the lake stores them (table backtests), one row each."""
    return pl.DataFrame(
        [
            {
                "run": run,
                "trade": n,
                "symbol": trade.symbol,
                "side": trade.side.sign,
                "entry_ns": trade.entry_ns,
                "exit_ns": trade.exit_ns,
                "entry_price": float(trade.entry_price),
                "exit_price": float(trade.exit_price),
                "size": float(trade.size),
                "notional_usdt": float(trade.entry_price * trade.size),
                "gross_usdt": float(trade.net_usdt + trade.fees_usdt - trade.funding_usdt),
                "fee_usdt": float(trade.fees_usdt),
                "funding_usdt": float(trade.funding_usdt),
                "entry_spread_usdt": float(trade.entry_spread_usdt),
                "exit_spread_usdt": float(trade.exit_spread_usdt),
                "slippage_usdt": float(trade.slippage_usdt),
                "net_usdt": float(trade.net_usdt),
                "net_bps": trade.net_bps,
                "cause": trade.exit_cause.value,
            }
            for n, trade in enumerate(trades)
        ],
        schema=dict(TABLES["backtests"].columns),
    )


def metrics_of(trades: Sequence[Trade], equity_usdt: Floats, start_usdt: Decimal) -> dict[str, float]:
    """Return the figures of METRICS.

    `sharpe` and `sortino` come from equity returns over whole minutes, annualised with √525,600 (crypto never
    closes), from `RATIO_MINUTES_MIN` on. NaN says that a figure is not defined: no trade, no loss, no variance, too
    short a window; it never becomes 0.

    Args:
        trades: all of them; nothing may be open.
        equity_usdt: (1 + T,) at the start and at the end of every second.
        start_usdt: equity before the first second.
    """
    nets = [trade.net_usdt for trade in trades]
    won, lost = sum((n for n in nets if n > 0), ZERO), -sum((n for n in nets if n < 0), ZERO)
    minutes = equity_usdt[::MINUTE_S]
    returns = np.diff(minutes) / minutes[:-1]
    deviation = float(returns.std(ddof=1)) if len(returns) > 1 else math.nan
    downside = float(np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2))) if len(returns) else math.nan
    peak = np.maximum.accumulate(equity_usdt)
    net = sum(nets, ZERO)
    return {
        "total_trades": float(len(trades)),
        "avg_duration_s": float(np.mean([trade.duration_s for trade in trades])) if trades else math.nan,
        "win_rate": float(np.mean([n > 0 for n in nets])) if trades else math.nan,
        "profit_factor": float(won / lost) if lost else math.nan,
        "total_fees_usdt": float(sum((trade.fees_usdt for trade in trades), ZERO)),
        "total_slippage_usdt": float(sum((trade.slippage_usdt for trade in trades), ZERO)),
        "total_spread_usdt": float(sum((trade.spread_usdt for trade in trades), ZERO)),
        "total_funding_usdt": float(sum((trade.funding_usdt for trade in trades), ZERO)),
        "net_pnl_usdt": float(net),
        "roi": float(net / start_usdt),
        "sharpe": _ratio(returns, deviation),
        "sortino": _ratio(returns, downside),
        "max_drawdown": float(np.max((peak - equity_usdt) / peak)),
    }


def net_bps(trades: Sequence[Trade]) -> float:
    """Return the net result in bps of all that was opened (`Trade.opened_usdt`); NaN without a trade."""
    opened = sum((trade.opened_usdt for trade in trades), ZERO)
    return float(sum((trade.net_usdt for trade in trades), ZERO) / opened * 10_000) if opened else math.nan


def net_error_bps(trades: Sequence[Trade]) -> float:
    """Return the standard error of `net_bps`, a ratio of sums over trades; NaN of fewer than `ERROR_MINUTES_MIN`.

    error = √(G / (G − 1) · Σ e²) / Σ opened, e = Σ net − net_bps · Σ opened within each of the G minutes that entries
    fell into (Cochran, Sampling Techniques, 1977, 6.3 and 9A.2). Trades of one moment meet the same market: as if they
    were independent the error would be too small. What moves together for longer than a minute still makes it so.
    """
    groups: dict[int, tuple[float, float]] = {}  # minute -> net, opened
    for trade in trades:
        minute = trade.entry_ns // (MINUTE_S * NS)
        net, opened = groups.get(minute, (0.0, 0.0))
        groups[minute] = net + float(trade.net_usdt), opened + float(trade.opened_usdt)
    if len(groups) < ERROR_MINUTES_MIN:
        return math.nan
    nets, openeds = np.array(list(groups.values())).T
    total = float(openeds.sum())
    apart = nets - nets.sum() / total * openeds
    return math.sqrt(len(groups) / (len(groups) - 1) * float((apart**2).sum())) / total * 1e4


def _ratio(returns: Floats, deviation: float) -> float:
    if len(returns) < RATIO_MINUTES_MIN or not deviation > 0:
        return math.nan
    return float(returns.mean() / deviation) * math.sqrt(MINUTES_A_YEAR)


# ---------------------------------------------------------------------------------------- what a report shows


class Waterfall(msgspec.Struct, frozen=True):
    """Where the money of all trades went: the steps add up to net, to the last digit."""

    steps: tuple[tuple[str, Decimal], ...]  # name, USDT; costs are negative
    net_usdt: Decimal
    opened_usdt: Decimal  # 0: no trade


@exactly
def waterfall_of(trades: Sequence[Trade]) -> Waterfall:
    """Return gross -> fees -> half spread in -> half spread out -> slippage -> funding, in this order."""

    def total(name: str) -> Decimal:
        return sum((getattr(trade, name) for trade in trades), ZERO)

    return Waterfall(
        steps=(
            ("gross, mid to mid", total("gross_usdt")),
            ("fees", -total("fees_usdt")),
            ("half spread in", -total("entry_spread_usdt")),
            ("half spread out", -total("exit_spread_usdt")),
            ("slippage", -total("slippage_usdt")),
            ("funding", total("funding_usdt")),
        ),
        net_usdt=total("net_usdt"),
        opened_usdt=total("opened_usdt"),
    )


class Slice(msgspec.Struct, frozen=True):
    """The trades of one symbol, hour or cause."""

    name: str
    trades: int
    won: float  # [1]
    net_usdt: float
    net_bps: float  # of what was opened
    error_bps: float  # its standard error; NaN: too few minutes
    error_usdt: float  # the same, of net


def slices_of(trades: Sequence[Trade], by: Callable[[Trade], str]) -> list[Slice]:
    """Return the trades in groups, by name."""
    groups: dict[str, list[Trade]] = {}
    for trade in trades:
        groups.setdefault(by(trade), []).append(trade)
    return [_slice(name, some) for name, some in sorted(groups.items())]


def _slice(name: str, trades: Sequence[Trade]) -> Slice:
    error_bps = net_error_bps(trades)
    return Slice(
        name=name,
        trades=len(trades),
        won=sum(trade.net_usdt > 0 for trade in trades) / len(trades),
        net_usdt=float(sum((trade.net_usdt for trade in trades), ZERO)),
        net_bps=net_bps(trades),
        error_bps=error_bps,
        error_usdt=error_bps * 1e-4 * float(sum((trade.opened_usdt for trade in trades), ZERO)),
    )


def turnover_of(trades: Sequence[Trade], equity_usdt: Floats) -> float:
    """Return what was bought and sold, in and out, as multiples of mean equity a day; NaN without a second."""
    seconds = len(equity_usdt) - 1
    if seconds <= 0:
        return math.nan
    traded = sum((trade.size * (trade.entry_price + trade.exit_price) for trade in trades), ZERO)
    return float(traded) / float(equity_usdt.mean()) / seconds * 86_400
