"""The figures of a backtest, from trades and an equity curve."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.trades import (
    ERROR_MINUTES_MIN,
    METRICS,
    MINUTE_S,
    RATIO_MINUTES_MIN,
    metrics_of,
    net_bps,
    net_error_bps,
    slices_of,
    trades_frame,
    waterfall_of,
)
from shared.lake.layout import TABLES
from shared.strategy.portfolio import Portfolio, Quote, Trade
from shared.types import NS, Cause, Filled, Floats, Side


def round_trip(entry: str, exit_: str, size: str, *, side: Side = Side.BUY, fee: str = "0", n: int = 1) -> Trade:
    """Return a trade made by the ledger from two fills, ten seconds apart, both fees the same."""
    ledger = Portfolio()
    trades: list[Trade] = []
    for at, (way, price) in enumerate(((side, entry), (side.opposite, exit_))):
        fill = Filled(
            recv_ns=(n + 10 * at) * NS, client_oid=f"c{n}{at}", order_id=f"o{n}{at}", trade_id=f"t{n}{at}",
            symbol="AUSDT", side=way, price=Decimal(price), size=Decimal(size), fee_usdt=Decimal(fee),
            is_maker=False, exch_ns=0,
        )  # fmt: skip
        quote = Quote(mid=Decimal(price), half_spread=Decimal(0))
        trades += ledger.fill(fill, cause=Cause.ENTRY if not at else Cause.HORIZON, second=n, quote=quote, mark=None)
    return trades[0]


def test_one_percent_of_500_usdt_is_five_dollars_less_both_fees() -> None:
    """A 1 % move at 5x on 100 USDT of margin earns 5.00 gross, and both fees are in the net."""
    trade = round_trip("100", "101", "5", fee="0.3015")

    row = trades_frame([trade], "run1").row(0, named=True)
    metrics = metrics_of([trade], np.array([1000.0, 1004.397]), Decimal(1000))

    assert row["gross_usdt"] == 5.0
    assert row["net_usdt"] == metrics["net_pnl_usdt"] == 4.397
    assert metrics["roi"] == pytest.approx(0.004397)
    assert net_bps([trade]) == pytest.approx(4.397 / 500 * 1e4)


def test_metrics_have_the_keys_of_the_issue_and_nan_where_nothing_happened() -> None:
    """Without a trade the sums are 0 and the averages unknown, never 0."""
    metrics = metrics_of([], np.full(181, 1000.0), Decimal(1000))

    assert tuple(metrics) == METRICS
    assert metrics["total_trades"] == metrics["net_pnl_usdt"] == metrics["max_drawdown"] == 0
    assert all(np.isnan(metrics[key]) for key in ("avg_duration_s", "win_rate", "profit_factor", "sharpe", "sortino"))
    assert np.isnan(net_bps([]))


def test_win_rate_and_profit_factor_of_three_trades() -> None:
    """Wins of 10 and 5 against a loss of 6 are two thirds and 2.5, whichever side they were on."""
    trades = [
        round_trip("100", "110", "1", n=1),
        round_trip("100", "95", "1", side=Side.SELL, n=100),
        round_trip("100", "94", "1", n=200),
    ]

    metrics = metrics_of(trades, np.array([1000.0, 1009.0]), Decimal(1000))

    assert metrics["win_rate"] == pytest.approx(2 / 3)
    assert metrics["profit_factor"] == pytest.approx(2.5)
    assert metrics["avg_duration_s"] == 10


def curve(returns: Floats) -> Floats:
    """Return equity at the start and at the end of every second, from returns of minutes."""
    return np.repeat(1000.0 * np.cumprod([1.0, *(1.0 + returns)]), MINUTE_S)[: MINUTE_S * len(returns) + 1]


def test_drawdown_and_sharpe_of_a_known_curve() -> None:
    """A day of minutes at +1 bp, -1 bp, +1 bp and one second at nine tenths are what a pocket calculator says."""
    returns = np.tile([1e-4, -1e-4, 1e-4], RATIO_MINUTES_MIN // 3)
    equity = curve(returns)
    equity[100] = 0.9 * equity[:100].max()

    metrics = metrics_of([], equity, Decimal(1000))

    assert metrics["sharpe"] == pytest.approx(returns.mean() / returns.std(ddof=1) * np.sqrt(525_600))
    assert metrics["sortino"] == pytest.approx(returns.mean() / np.sqrt(1e-8 / 3) * np.sqrt(525_600))
    assert metrics["max_drawdown"] == pytest.approx(0.1)


def test_a_window_below_a_day_has_no_sharpe() -> None:
    """Half an hour that went well is no Sharpe of 390: a minute short of a day the ratios are not defined."""
    lucky = np.tile([2e-4, -1e-4], RATIO_MINUTES_MIN)

    for minutes in (2, 30, RATIO_MINUTES_MIN - 1):
        metrics = metrics_of([], curve(lucky[:minutes]), Decimal(1000))
        assert np.isnan(metrics["sharpe"])
        assert np.isnan(metrics["sortino"])
    assert metrics_of([], curve(lucky[:RATIO_MINUTES_MIN]), Decimal(1000))["sharpe"] > 0


def test_net_bps_is_one_definition() -> None:
    """Of one trade, a backtest's net bps are the trade's; of several, what was opened weighs them."""
    small, large = round_trip("100", "110", "1", n=1), round_trip("100", "99", "9", n=100)

    assert net_bps([small]) == pytest.approx(small.net_bps)
    assert net_bps([small, large]) == pytest.approx((10 - 9) / 1000 * 1e4)


def entered(minutes: list[int], nets: list[str], size: str = "1") -> list[Trade]:
    """Return trades of 100 USDT and so much profit each, entered in these minutes."""
    found = []
    for n, (minute, net) in enumerate(zip(minutes, nets, strict=True)):
        trade = round_trip("100", str(Decimal(100) + Decimal(net)), size, n=60 * minute + n % 50)
        found.append(trade)
    return found


def test_error_of_net_bps_is_that_of_a_mean_where_trades_are_alike() -> None:
    """Trades of one size, one a minute: the textbook's standard error of their mean; twice the money changes nothing."""
    nets = ["0.1", "-0.3", "0.2", "0.5", "-0.1"]
    bps = 1e4 * np.array(nets, float) / 100

    for size in ("1", "2"):
        found = net_error_bps(entered([1, 2, 3, 4, 5], nets, size))
        assert found == pytest.approx(bps.std(ddof=1) / np.sqrt(5))


@given(st.lists(st.tuples(st.integers(0, 30), st.decimals(-2, 2, places=3)), min_size=2, max_size=40))
@settings(max_examples=50, deadline=None)
def test_error_of_net_bps_knows_what_is_one_moment(made: list[tuple[int, Decimal]]) -> None:
    """The same trade twice in its minute is no second observation: the error stays; in minutes of their own it shrinks
    by √2 where minutes are many. Of few minutes there is none."""
    minutes, nets = [minute for minute, _ in made], [str(net) for _, net in made]

    once = net_error_bps(entered(minutes, nets))
    doubled = net_error_bps(entered(minutes * 2, nets * 2))
    apart = net_error_bps(entered(minutes + [minute + 100 for minute in minutes], nets * 2))

    n = len(set(minutes))
    if n < ERROR_MINUTES_MIN:
        assert np.isnan(once)
        assert np.isnan(doubled)
        assert np.isnan(apart) == (2 * n < ERROR_MINUTES_MIN)
        return
    assert doubled == pytest.approx(once, rel=1e-9, abs=1e-12)
    assert apart == pytest.approx(once * np.sqrt((n - 1) / (2 * n - 1)), rel=1e-9, abs=1e-12)


def test_error_of_net_bps_is_near_the_jackknifes() -> None:
    """Of trades of many sizes it is what leaving out each minute in turn says, which knows nothing of the formula."""
    rng = np.random.default_rng(5)
    trades: list[Trade] = []
    for minute in range(60):
        for _ in range(int(rng.integers(1, 5))):
            price = str(round(100 + rng.normal(0.05, 0.3), 2))
            trades.append(round_trip("100", price, str(int(rng.integers(1, 9))), n=60 * minute + int(rng.integers(40))))
    left = [net_bps([t for t in trades if t.entry_ns // (60 * NS) != minute]) for minute in range(60)]

    jackknife = np.sqrt(59 / 60 * np.sum((np.array(left) - np.mean(left)) ** 2))

    assert net_error_bps(trades) == pytest.approx(jackknife, rel=0.05)


def test_frame_is_the_lakes_table() -> None:
    """Trades of a backtest have exactly the columns that the lake's table declares, also when there is none."""
    for trades in ([], [round_trip("100", "110", "1")]):
        assert dict(trades_frame(trades, "run1").schema) == dict(TABLES["backtests"].columns)


def test_a_row_of_the_table_has_every_step_of_the_waterfall() -> None:
    """What a row shows between the mid's move and net are the waterfall's steps, each in a column of its own; gross of
    the fills has the half spreads and the slippage in it."""
    ledger = Portfolio()
    trades: list[Trade] = []
    for n, (side, price, mid, half) in enumerate(
        [(Side.BUY, "100.3", "100", "0.2"), (Side.SELL, "100.8", "101", "0.1")]
    ):
        fill = Filled(
            recv_ns=n * NS, client_oid=f"c{n}", order_id=f"o{n}", trade_id=f"t{n}", symbol="AUSDT", side=side,
            price=Decimal(price), size=Decimal(2), fee_usdt=Decimal("0.05"), is_maker=False, exch_ns=0,
        )  # fmt: skip
        quote = Quote(mid=Decimal(mid), half_spread=Decimal(half))
        trades += ledger.fill(fill, cause=Cause.ENTRY, second=n, quote=quote, mark=None)

    row = trades_frame(trades, "run1").row(0, named=True)

    assert row["entry_spread_usdt"] == pytest.approx(0.4)
    assert row["exit_spread_usdt"] == pytest.approx(0.2)
    assert row["slippage_usdt"] == pytest.approx(0.4)  # 0.1 beyond the touch, twice
    assert row["gross_usdt"] == pytest.approx(2.0 - 0.4 - 0.2 - 0.4)  # the mid rose by 1
    assert row["net_usdt"] == pytest.approx(0.9)


MONEY = st.decimals(min_value="-3", max_value="3", places=4, allow_nan=False)
FILLS = st.lists(
    st.tuples(
        st.sampled_from([Side.BUY, Side.SELL]),
        st.sampled_from(["AUSDT", "币USDT"]),
        st.integers(1, 6),  # size in steps of 0.001: partial closes and flips come by themselves
        st.decimals(min_value="90", max_value="110", places=3),  # mid of the decision
        st.decimals(min_value="0", max_value="0.5", places=4),  # half spread of it
        MONEY,  # of the price beyond the touch; a maker's is -2 half spreads and less
        MONEY,  # fee; a maker may be paid
        MONEY,  # funding after it
    ),
    max_size=30,
)


@given(FILLS)
@settings(max_examples=60, deadline=None)
def test_waterfall_adds_up_to_net_to_the_last_digit(fills: list[Any]) -> None:
    """Long and short, taker and maker, partial closes and flips: the six steps are net, and each half of the spread is
    what its own fills crossed."""
    ledger = Portfolio()
    trades: list[Trade] = []
    crossed: dict[str, dict[str, list[Decimal]]] = {}  # symbol -> of the open round trip: way -> what was crossed
    expected = {"in": Decimal(0), "out": Decimal(0)}  # of the round trips that closed
    for n, (side, symbol, steps, mid, half, beyond, fee, funding) in enumerate(fills):
        size, price = steps * Decimal("0.001"), mid + side.sign * (half + beyond)
        held = ledger.size(symbol)
        closes = min(abs(held), size) if held * side.sign < 0 else Decimal(0)
        fill = Filled(
            recv_ns=n * NS, client_oid=f"c{n}", order_id=f"o{n}", trade_id=f"t{n}", symbol=symbol, side=side,
            price=price, size=size, fee_usdt=fee, is_maker=beyond < 0, exch_ns=0,
        )  # fmt: skip
        quote = Quote(mid=mid, half_spread=half)
        closed = ledger.fill(fill, cause=Cause.ENTRY, second=n, quote=quote, mark=None)
        ledger.pay_funding(symbol, funding)
        open_trip = crossed.setdefault(symbol, {"in": [], "out": []})
        open_trip["out"].append(half * closes)
        if closed:
            for way, amounts in crossed.pop(symbol).items():
                expected[way] += sum(amounts, Decimal(0))
            open_trip = crossed.setdefault(symbol, {"in": [], "out": []})
        open_trip["in"].append(half * (size - closes))
        trades += closed

    found = waterfall_of(trades)

    steps_of = dict(found.steps)
    assert sum(steps_of.values(), Decimal(0)) == found.net_usdt == sum((t.net_usdt for t in trades), Decimal(0))
    assert (steps_of["half spread in"], steps_of["half spread out"]) == (-expected["in"], -expected["out"])
    assert all(t.entry_spread_usdt >= 0 and t.exit_spread_usdt >= 0 for t in trades)


def test_waterfall_by_hand() -> None:
    """A maker in and a taker out of a short, a part of it each: every step is what a pocket calculator says."""
    ledger = Portfolio()
    trades: list[Trade] = []
    for n, (side, size, price, mid, half, fee, is_maker) in enumerate(
        [
            (Side.SELL, "2", "100.1", "100", "0.1", "0.04", True),  # sold at the ask: earns what a taker pays
            (Side.BUY, "0.5", "99.3", "99", "0.2", "0.03", False),  # 0.1 beyond the ask
            (Side.BUY, "1.5", "98.1", "98", "0.1", "0.09", False),  # at the ask
        ]
    ):
        fill = Filled(
            recv_ns=n * NS, client_oid=f"c{n}", order_id=f"o{n}", trade_id=f"t{n}", symbol="AUSDT", side=side,
            price=Decimal(price), size=Decimal(size), fee_usdt=Decimal(fee), is_maker=is_maker, exch_ns=0,
        )  # fmt: skip
        quote = Quote(mid=Decimal(mid), half_spread=Decimal(half))
        trades += ledger.fill(fill, cause=Cause.ENTRY, second=n, quote=quote, mark=None)

    found = waterfall_of(trades)

    assert found.steps == (
        ("gross, mid to mid", Decimal("3.5")),  # 200 - (49.5 + 147)
        ("fees", Decimal("-0.16")),
        ("half spread in", Decimal("-0.2")),
        ("half spread out", Decimal("-0.25")),
        ("slippage", Decimal("0.35")),  # 2 x 0.2 saved, 0.5 x 0.1 lost
        ("funding", Decimal(0)),
    )
    assert found.net_usdt == Decimal("3.24")  # 200.2 - (49.65 + 147.15) - 0.16


def test_slices_have_their_own_errors() -> None:
    """A slice's error is that of its trades alone, in bps and in USDT; of few minutes there is none."""
    trades = entered([1, 2, 3, 3, 4, 5], ["0.1", "-0.3", "0.2", "0.4", "0.1", "0.2"])

    (whole,) = slices_of(trades, lambda _: "all")
    (last,) = slices_of(trades[2:], lambda _: "3")

    assert whole.error_bps == net_error_bps(trades)
    assert whole.error_usdt == pytest.approx(whole.error_bps * 1e-4 * 600)
    assert np.isnan(last.error_bps)
    assert np.isnan(last.error_usdt)
