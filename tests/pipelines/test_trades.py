"""Fills become trades: the arithmetic that others got wrong, and sums that are exact."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.trades import METRICS, Decision, TradeBook, metrics_of, trades_frame
from shared.lake.layout import TABLES
from shared.types import NS, Filled, Side


def fill(
    n: int, side: Side, price: str, size: str, *, fee: str = "0", maker: bool = False, symbol: str = "AUSDT"
) -> Filled:
    return Filled(
        recv_ns=n * NS,
        client_oid=f"c{n}",
        order_id=f"o{n}",
        trade_id=f"t{n}",
        symbol=symbol,
        side=side,
        price=Decimal(price),
        size=Decimal(size),
        fee_usdt=Decimal(fee),
        is_maker=maker,
        exch_ns=n * NS,
    )


AT_100 = Decision(bid=99.0, ask=101.0, cause="horizon")


def test_one_percent_of_500_usdt_is_five_dollars_less_both_fees() -> None:
    """A 1 % move at 5x on 100 USDT of margin earns 5.00 gross, and both fees are in the trade's result."""
    book = TradeBook()

    book.on_fill(fill(1, Side.BUY, "100", "5", fee="0.30"), AT_100)
    book.on_fill(fill(11, Side.SELL, "101", "5", fee="0.303"), AT_100)

    trade = book.closed[0]
    assert trade.gross_usdt == Decimal("5")
    assert trade.net_usdt == Decimal("4.397")
    assert trade.net_bps == pytest.approx(4.397 / 500 * 1e4)
    assert trade.duration_s == 10


def test_short_earns_when_the_price_falls() -> None:
    """A short's gross is what it sold for less what it bought back for."""
    book = TradeBook()

    book.on_fill(fill(1, Side.SELL, "100", "2"), AT_100)
    book.on_fill(fill(2, Side.BUY, "90", "2"), AT_100)

    assert book.closed[0].side == -1
    assert book.closed[0].gross_usdt == Decimal(20)


def test_fill_through_zero_closes_one_trade_and_opens_the_next() -> None:
    """A fill larger than the position is two trades, its fee split by size."""
    book = TradeBook()
    book.on_fill(fill(1, Side.BUY, "100", "1"), AT_100)

    book.on_fill(fill(2, Side.SELL, "100", "3", fee="0.9"), AT_100)
    book.on_fill(fill(3, Side.BUY, "100", "2"), AT_100)

    assert [trade.side for trade in book.closed] == [1, -1]
    assert [trade.fee_usdt for trade in book.closed] == [Decimal("0.3"), Decimal("0.6")]
    assert book.is_flat


def test_repeated_fill_counts_once() -> None:
    """The same trade id, delivered by stream and by query, is one fill."""
    book = TradeBook()

    for _ in range(2):
        book.on_fill(fill(1, Side.BUY, "100", "1"), AT_100)
    book.on_fill(fill(2, Side.SELL, "100", "1"), AT_100)

    assert len(book.closed) == 1
    assert book.is_flat


def test_taker_pays_the_spread_and_maker_earns_it() -> None:
    """At 99/101 a taker of 1 pays 1 USDT of spread a side, a maker earns it; what lies beyond is slippage."""
    taker, maker = TradeBook(), TradeBook()

    taker.on_fill(fill(1, Side.BUY, "101.5", "1"), AT_100)
    taker.on_fill(fill(2, Side.SELL, "99", "1"), AT_100)
    maker.on_fill(fill(1, Side.BUY, "99", "1", maker=True), AT_100)
    maker.on_fill(fill(2, Side.SELL, "101", "1", maker=True), AT_100)

    assert (taker.closed[0].spread_usdt, taker.closed[0].slippage_usdt) == (2.0, 0.5)
    assert (maker.closed[0].spread_usdt, maker.closed[0].slippage_usdt) == (-2.0, 0.0)


def test_funding_belongs_to_the_open_trade() -> None:
    """Funding is part of the trade that was open when it was paid, and of nothing when flat."""
    book = TradeBook()

    book.on_fill(fill(1, Side.BUY, "100", "1"), AT_100)
    book.on_funding("AUSDT", Decimal("-0.01"))
    book.on_fill(fill(2, Side.SELL, "100", "1"), AT_100)
    book.on_funding("AUSDT", Decimal("0.05"))

    assert book.closed[0].net_usdt == Decimal("-0.01")
    assert book.unattributed_funding_usdt == Decimal("0.05")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Side)),
            st.integers(90, 110),
            st.integers(1, 50),
            st.integers(0, 9),
            st.sampled_from(["AUSDT", "BUSDT"]),
        ),
        max_size=30,
    )
)
def test_trades_add_up_to_the_cash_of_the_fills(fills: list[tuple[Side, int, int, int, str]]) -> None:
    """Whatever the order of fills, once flat the net of all trades is the cash that moved, to the last digit."""
    book, cash, position = TradeBook(), Decimal(0), {"AUSDT": 0, "BUSDT": 0}
    n = 0
    for n, (side, price, size, fee, symbol) in enumerate(fills):
        book.on_fill(fill(n, side, str(price), str(size), fee=f"0.0{fee}", symbol=symbol), AT_100)
        cash -= side.sign * price * size + Decimal(f"0.0{fee}")
        position[symbol] += side.sign * size
    for m, (symbol, held) in enumerate(position.items(), start=n + 1):
        if held:
            side = Side.SELL if held > 0 else Side.BUY
            book.on_fill(fill(m, side, "100", str(abs(held)), symbol=symbol), AT_100)
            cash -= side.sign * 100 * abs(held)

    assert book.is_flat
    total = sum((trade.net_usdt for trade in book.closed), Decimal(0))
    assert abs(total - cash) < Decimal("1e-20")
    assert all(trade.opened_usdt > 0 and trade.position == 0 for trade in book.closed)


def test_metrics_have_the_keys_of_the_issue_and_nan_where_nothing_happened() -> None:
    """Without a trade the sums are 0 and the averages unknown, never 0."""
    metrics = metrics_of([], np.full(181, 1000.0), Decimal(1000))

    assert tuple(metrics) == METRICS
    assert metrics["total_trades"] == metrics["net_pnl_usdt"] == metrics["max_drawdown"] == 0
    assert all(np.isnan(metrics[key]) for key in ("avg_duration_s", "win_rate", "profit_factor", "sharpe", "sortino"))


def test_drawdown_and_sharpe_of_a_known_curve() -> None:
    """Minute returns of +1 %, -1 %, +1 % and a fall from 1010 to 909 are what a pocket calculator says."""
    equity = np.repeat([1000.0, 1010.0, 999.9, 1009.899], 60)[:181]
    equity[100] = 909.0

    metrics = metrics_of([], equity, Decimal(1000))

    returns = np.array([0.01, -0.01, 0.01])
    assert metrics["sharpe"] == pytest.approx(returns.mean() / returns.std(ddof=1) * np.sqrt(525_600))
    assert metrics["sortino"] == pytest.approx(returns.mean() / np.sqrt(0.0001 / 3) * np.sqrt(525_600))
    assert metrics["max_drawdown"] == pytest.approx(0.1)


def test_frame_is_the_lakes_table() -> None:
    """Trades of a backtest have exactly the columns that the lake's table declares."""
    book = TradeBook()
    book.on_fill(fill(1, Side.BUY, "100", "1", fee="0.06"), AT_100)
    book.on_fill(fill(2, Side.SELL, "110", "1", fee="0.066"), AT_100)

    frame = trades_frame(book.closed, "run1")

    assert dict(frame.schema) == dict(TABLES["backtests"].columns)
    assert frame["net_usdt"][0] == pytest.approx(9.874)
