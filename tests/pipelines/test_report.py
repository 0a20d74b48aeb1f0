"""The report: net after costs first, the boundary, the nulls, and the mark of a generated market."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pipelines.report import figure, verdict, write_report
from pipelines.simulation import Backtest, Outcome
from pipelines.skill import NO_SKILL
from pipelines.trades import metrics_of, net_bps
from pipelines.validation import RankIC
from shared.strategy.portfolio import Trade
from tests.pipelines.test_trades import round_trip


def outcome(name: str, trades: tuple[Trade, ...]) -> Outcome:
    equity = np.linspace(1000.0, 1000.0 + float(sum(t.net_usdt for t in trades)), 301)
    return Outcome(
        name=name, trades=trades, equity_usdt=equity, start_usdt=Decimal(1000), orders=2 * len(trades),
        refusals={"40762 <b>balance</b>": 3}, gates={"confidence": 500, "net_edge": 20},
        metrics=metrics_of(trades, equity, Decimal(1000)), net_bps=net_bps(trades),
    )  # fmt: skip


def backtest(source: str, trades: tuple[Trade, ...]) -> Backtest:
    return Backtest(
        source=source, start_s=1_760_000_000, end_s=1_760_000_300, holdout_from_s=1_760_000_000, style="market",
        seed=7, symbols=4, main=outcome("model", trades), nulls=(outcome("coin", (round_trip("100", "99", "1"),)),),
        skill=msgspec.structs.replace(
            NO_SKILL, ic=RankIC(0.05, 0.02, 300), ic_by_minute=np.array([0.1, math.nan, 0.0, 0.05, 0.02])
        ),
    )  # fmt: skip


def page(tmp_path: Path, judged: Backtest) -> str:
    write_report(
        tmp_path / "report.html",
        judged,
        training={"rank_ic": 0.05},
        lineage={"code": "abc"},
        trials=["3 models trained"],
    )
    return (tmp_path / "report.html").read_text()


TRADES = (round_trip("100", "101", "5", fee="0.3"), round_trip("100", "98", "5", fee="0.3"))


def test_net_after_costs_comes_before_everything_else(tmp_path: Path) -> None:
    """The first figure on the page is the net result; boundary, trials and nulls follow before any plot."""
    text = page(tmp_path, backtest("bitget", TRADES))

    order = [
        text.index(words)
        for words in (
            "-6.20 USDT net after costs",
            "Out of sample from",
            "3 models trained",
            "<th>coin</th>",
            "data:image/png",
        )
    ]
    assert order == sorted(order)


def test_generated_market_is_marked_and_a_real_one_is_not(tmp_path: Path) -> None:
    """Every page about a generated market says so; one about real books does not."""
    assert "Generated market." in page(tmp_path, backtest("simulator-g7-40", TRADES))
    assert "Generated market." not in page(tmp_path, backtest("simulator-hyperliquid_20250904", TRADES))


def test_page_stands_alone_and_escapes_what_the_venue_said(tmp_path: Path) -> None:
    """No address is fetched, nothing from outside becomes markup."""
    text = page(tmp_path, backtest("bitget", TRADES))

    assert "http://" not in text
    assert "https://" not in text
    assert "<b>balance</b>" not in text
    assert "&lt;b&gt;balance" in text


def test_report_without_a_trade_says_why(tmp_path: Path) -> None:
    """An engine that always said no is reported with its most frequent reason, and no figure is invented."""
    judged = backtest("bitget", ())

    assert verdict(judged).startswith("No trade: the engine said no every time, most often because of confidence")
    assert "no trade" in page(tmp_path, judged).lower()


def test_few_trades_are_called_few() -> None:
    """Two trades are no evidence, and the sentence says it."""
    assert "too few trades to say anything" in verdict(backtest("bitget", TRADES))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(math.nan, "–"), (None, "–"), (0.0, "0"), (12345.0, "12,345"), (0.12345, "0.1235"), (-14.567, "-14.57")],
)
def test_figures_as_a_person_reads_them(value: float | None, shown: str) -> None:
    """What is not defined is a dash, never 0."""
    assert figure(value) == shown


def test_outcome_is_immutable() -> None:
    """A judgement is a value."""
    with pytest.raises(AttributeError):
        backtest("bitget", TRADES).seed = 8  # type: ignore[misc]
    assert msgspec.structs.replace(backtest("bitget", TRADES), seed=8).seed == 8
