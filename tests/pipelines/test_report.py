"""The report: net after costs first, the boundary, the nulls, and the mark of a generated market."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pipelines.numbers import figure, money, of_equity, plus_minus, signed
from pipelines.page import held_of, of_backtest, trade_rows, verdict
from pipelines.report import write_report
from pipelines.simulation import Backtest, Outcome
from pipelines.skill import NO_SKILL
from pipelines.told import ChannelCoverage, Told
from pipelines.trades import NO_EXPOSURE, Exposure, metrics_of, net_bps, net_error_bps
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
    told = Told(
        run="run1", training={"rank_ic": 0.05}, lineage={"code": "abc"}, trials=("3 models trained",),
        coverage=(ChannelCoverage("book", 18, 2, 0),),
    )  # fmt: skip
    write_report(tmp_path / "report.html", of_backtest(judged, told))
    return (tmp_path / "report.html").read_text()


D1000 = Decimal(1000)
TRADES = (round_trip("100", "101", "5", fee="0.3"), round_trip("100", "98", "5", fee="0.3"))


def test_net_after_costs_comes_before_everything_else(tmp_path: Path) -> None:
    """The first figure on the page is the net result; boundary, trials and nulls before any plot."""
    text = page(tmp_path, backtest("bitget", TRADES))

    order = [
        text.index(words)
        for words in (
            "−6.20 USDT net after costs",
            "Out of sample from",
            "3 models trained",
            "<svg",
            "<th>coin</th>",
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
    assert "<script" not in text
    assert 'src="' not in text


def test_report_without_a_trade_says_why(tmp_path: Path) -> None:
    """An engine that always said no is reported with its most frequent reason, and no figure is invented."""
    judged = backtest("bitget", ())

    assert verdict(judged).startswith("No trade: the engine said no every time, most often because of confidence")
    assert "no trade" in page(tmp_path, judged).lower()


def test_a_window_of_a_minute_with_nothing_in_it_has_dashes_and_no_zeros(tmp_path: Path) -> None:
    """What is not defined without a trade is a dash: mean duration, wins, bps, Sharpe, capacity; nothing divides by 0."""
    empty = outcome("model", ())
    minute = msgspec.structs.replace(
        empty,
        equity_usdt=np.full(61, 1000.0),
        gates={},
        refusals={},
        metrics=metrics_of((), np.full(61, 1000.0), D1000),
    )
    judged = msgspec.structs.replace(
        backtest("bitget", ()), main=minute, nulls=(), end_s=1_760_000_060, holdout_from_s=None, skill=NO_SKILL
    )

    text = page(tmp_path, judged)

    cells = dict(re.findall(r"<tr><td>([^<]*)</td><td>([^<]*)</td></tr>", text))
    for name in ("won", "profit factor, won / lost", "mean duration, s", "Sharpe (annualised; needs a day)"):
        assert cells[name] == "–"
    assert "<strong>–</strong>" in text  # net bps of what was opened
    assert not re.search(r"\bnan\b", re.sub(r"<[^>]*>", "", text).lower())
    assert "−0.00" not in text
    for heading in ("Where the money went", "By symbol", "By cause", "Exposure", "Capacity", "Largest trades"):
        assert heading not in text, "a picture of nothing"
    assert "Nothing: either nothing was claimed" in text


def test_one_trade_has_a_mean_and_no_error(tmp_path: Path) -> None:
    """Of one trade there is no standard error; the page says one trade, and shows it."""
    text = page(tmp_path, backtest("bitget", TRADES[:1]))

    assert "1 trade earned 4.40 USDT after all costs" in text
    assert "mean +88.00<" in text.replace(" </text>", "</text>").replace(" mean", "mean")


def test_symbols_in_chinese_are_letters_of_the_page(tmp_path: Path) -> None:
    """A picture's letters are the page's own, so a name that no font of the machine has is still written."""
    trades = tuple(msgspec.structs.replace(trade, symbol="币安人生USDT") for trade in TRADES)
    judged = backtest("bitget", trades)

    text = page(tmp_path, judged)

    assert trade_rows(judged.main)[0]["symbol"] == "币安人生USDT"
    assert "<td>币安人生USDT</td>" in text
    assert re.search(r"<text[^>]*>币安人生</text>", text)


def test_pictures_take_the_colours_of_light_and_dark(tmp_path: Path) -> None:
    """No picture holds a colour of its own, identifiers are unique on the page, and the same input gives the same page."""
    judged = backtest("bitget", TRADES)

    text = page(tmp_path, judged)

    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert not re.findall(r"#[0-9a-fA-F]{6}", drawn)
    names = re.findall(r'\sid="([^"]+)"', text)
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', drawn)) <= set(names)
    assert page(tmp_path, judged) == text


def test_waterfall_shows_both_halves_of_the_spread_and_ends_at_net(tmp_path: Path) -> None:
    """The page has a bar and a row for each step, in order; what the rows say adds up to the net above them."""
    text = page(tmp_path, backtest("bitget", TRADES))

    table = text[text.index("<th>where the money went</th>") :]
    rows = re.findall(r"<td>([^<]*)</td><td>([+−][0-9.,]*)</td>", table[: table.index("</table>")])
    values = [float(value.replace("−", "-").replace(",", "")) for _, value in rows]
    names = ["gross, mid to mid", "fees", "half spread in", "half spread out", "slippage", "funding", "net"]
    assert [name for name, _ in rows] == names
    assert sum(values[:-1]) == pytest.approx(values[-1])
    drawn = re.search(r"<h3>Where the money went</h3>(.*?)</svg>", text, re.DOTALL)
    assert drawn is not None
    letters = " ".join(re.sub(r"<[^>]*>", " ", drawn[1]).split())
    for word in ("gross", "fees", "spread in", "spread out", "slippage", "funding", "net"):
        assert word in letters


def test_the_page_says_how_sure_a_win_rate_is(tmp_path: Path) -> None:
    """Win rates stand with Wilson's interval and Sharpe ratios with their error: one win of two is 9 to 91 percent."""
    text = page(tmp_path, backtest("bitget", TRADES))

    row = re.sub(' class="pm"', "", text)
    assert "<td>all</td><td>2</td><td>−62.00</td><td>50.0 % [9.5 %, 90.5 %]</td><td>–</td>" in row


def test_few_trades_are_called_few() -> None:
    """Two trades are no evidence, and the sentence says it."""
    assert "too few trades to say anything" in verdict(backtest("bitget", TRADES))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(math.nan, "–"), (None, "–"), (0.0, "0"), (12345.0, "12,345"), (0.12345, "0.1235"), (-14.567, "−14.57")],
)
def test_figures_as_a_person_reads_them(value: float | None, shown: str) -> None:
    """What is not defined is a dash, never 0."""
    assert figure(value) == shown


def test_money_has_a_sign_and_nothing_no_minus() -> None:
    """A cost of nothing is not -0."""
    assert [signed(value) for value in (-0.0, 1.25, -2.0, -0.0021, math.nan, None)] == [
        "+0.00",
        "+1.25",
        "−2.00",
        "−0.0021",
        "–",
        "–",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.133, "13.3 %"),
        (1.0, "100.0 %"),
        (0.0, "0.0 %"),
        (-0.00152, "−0.152 %"),
        (1.2e-5, "0.0012 %"),
    ],
)
def test_a_small_share_is_not_nothing(value: float, shown: str) -> None:
    """A drawdown of a basis point is 0.010 %, not 0.0 %."""
    assert of_equity(value) == shown


def test_money_of_a_page_has_one_number_of_digits() -> None:
    """Sums of cents have four digits, all of them; what rounds to nothing has no minus."""
    assert [money(value, digits=4) for value in (-0.0889, 1.2, -0.00001, math.nan)] == [
        "−0.0889",
        "+1.2000",
        "+0.0000",
        "–",
    ]


def test_outcome_is_immutable() -> None:
    """A judgement is a value."""
    with pytest.raises(AttributeError):
        backtest("bitget", TRADES).seed = 8  # type: ignore[misc]
    assert msgspec.structs.replace(backtest("bitget", TRADES), seed=8).seed == 8


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (7.14, 0.9997, "7.1 ± 1.0"),
        (14.38, 2.19, "14.4 ± 2.2"),
        (-0.7735, 1.0, "−0.8 ± 1.0"),
        (0.3466, 0.0168, "0.347 ± 0.017"),
        (12345.0, 678.0, "12,345 ± 678"),
        (-0.0001, 0.5, "0.00 ± 0.50"),
        (3.5, math.nan, "3.50"),
        (3.5, None, "3.50"),
        (3.5, 0.0, "3.50"),
        (math.nan, 1.0, "–"),
        (None, None, "–"),
    ],
)
def test_a_value_has_no_more_digits_than_its_error_allows(value: float | None, error: float | None, said: str) -> None:
    """Two digits of the error, and the value to the same place; without an error as many as any figure."""
    assert plus_minus(value, error) == said


def test_every_result_has_its_error_and_every_null_its_distance(tmp_path: Path) -> None:
    """Net bps with an error in the head, in the table beside the nulls and by symbol, and how far it stands above each."""
    minutes = [round_trip("100", str(Decimal("100.9") + n % 3), "5", fee="0.3", n=1 + 61 * n) for n in range(8)]
    judged = backtest("bitget", tuple(minutes))
    coin = tuple(round_trip("100", str(Decimal("99.7") + Decimal(n % 2) / 10), "1", n=1 + 61 * n) for n in range(8))
    judged = msgspec.structs.replace(judged, nulls=(outcome("coin", coin),))

    text = page(tmp_path, judged)

    said = plus_minus(judged.main.net_bps, net_error_bps(minutes), is_signed=True)
    assert " ± " in said
    assert f"{said} bps of what was opened" in text
    assert text.count(said) >= 4  # sentence, card, by symbol, by cause
    above = judged.main.net_bps - judged.nulls[0].net_bps
    error = math.hypot(net_error_bps(minutes), net_error_bps(coin))
    assert plus_minus(above, error, is_signed=True) in text
    assert "model above this null" in text


def test_the_page_says_what_its_figures_mean_and_what_was_held(tmp_path: Path) -> None:
    """Each word that a reader could take otherwise has a definition; exposure is told in multiples of equity."""
    seen = Exposure(
        1_760_000_000 + 10 * np.arange(4), np.array([0.0, 500.0, 1500.0, 0.0]), np.array([0.0, 500.0, -500.0, 0.0]),
        np.array([0, 1, 3, 0]),
    )  # fmt: skip
    judged = backtest("bitget", TRADES)
    judged = msgspec.structs.replace(judged, main=msgspec.structs.replace(judged.main, exposure=seen))

    text = page(tmp_path, judged)

    for term in ("net bps of what was opened", "turnover", "rank IC", "deflated Sharpe", "calibration error", "parity"):
        assert f"<dt>{term}" in text
    assert "<td>gross, × equity at the start</td><td>0.5000</td><td>1.50</td>" in text
    assert "<td>net, × equity at the start</td><td>0</td><td>0.5000</td>" in text
    assert "<td>positions</td><td>1</td><td>3</td>" in text
    assert held_of(msgspec.structs.replace(judged.main, exposure=NO_EXPOSURE)) is None
