"""The report of a backtest: one self-contained HTML page, net after costs first, nulls beside it.

Plots are PNGs inside the page (matplotlib, no JavaScript), so that it can be mailed, and opened in ten years.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.moments import when
from pipelines.simulation import Backtest, Outcome
from pipelines.trades import METRICS, MINUTE_S
from shared.types import NS

_INK, _GOOD, _BAD, _NULL = "#1c2733", "#1f7a4d", "#b3362b", "#8a94a0"
_COLOURS = {"coin": _NULL, "shuffled": "#c08a2d"}
_BARS_MAX = 20

TRADES_MIN = 100
"""Below this a mean says nothing: with 15 bps of deviation a trade its standard error is above 1.5 bps."""
_PIXELS_PER_INCH = 110

_LABELS = {
    "total_trades": "trades",
    "avg_duration_s": "mean duration, s",
    "win_rate": "won [1]",
    "profit_factor": "profit factor [1]",
    "total_fees_usdt": "fees, USDT",
    "total_slippage_usdt": "slippage, USDT",
    "total_spread_usdt": "spread, USDT",
    "total_funding_usdt": "funding received, USDT",
    "net_pnl_usdt": "net, USDT",
    "roi": "return on equity [1]",
    "sharpe": "Sharpe (annualised; needs a day)",
    "sortino": "Sortino (annualised; needs a day)",
    "max_drawdown": "maximum drawdown [1]",
}
assert tuple(_LABELS) == METRICS


def write_report(
    path: Path, backtest: Backtest, *, training: Mapping[str, float], lineage: Mapping[str, str], trials: Sequence[str]
) -> None:
    """Write the page.

    Args:
        training: figures of the model's training run (`training.figures_of`); empty for rules and coin.
        lineage: what to say about where it comes from, in order.
        trials: what was tried before this result, and what it is worth after it (`trials.words`).
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure
    outcomes = [backtest.main, *backtest.nulls]
    page = environment.get_template("report.html").render(
        backtest=backtest,
        outcomes=outcomes,
        labels=_LABELS,
        start=when(backtest.start_s),
        end=when(backtest.end_s),
        boundary=None if backtest.holdout_from_s is None else when(backtest.holdout_from_s),
        verdict=verdict(backtest),
        gates=sorted(backtest.main.gates.items(), key=lambda item: -item[1])[:8],
        trades=trade_rows(backtest.main),
        refusals=sorted(backtest.main.refusals.items(), key=lambda item: -item[1])[:8],
        training=training,
        lineage=lineage,
        trials=trials,
        plots=[
            ("Equity and drawdown", plot(_draw_equity, backtest)),
            ("Where the money went", plot(_draw_waterfall, backtest.main)),
            ("By symbol", plot(_draw_symbols, backtest.main)),
            ("Beside its nulls: net bps a trade", plot(_draw_nulls, backtest)),
            ("Rank IC of the scores by minute", plot(_draw_ic, backtest)),
        ],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def verdict(backtest: Backtest) -> str:
    """Return one sentence that says what the figures say, and no more."""
    main = backtest.main
    if not main.trades:
        why = max(main.gates.items(), key=lambda item: item[1], default=("nothing", 0))
        return (
            f"No trade: the engine said no every time, most often because of {why[0].replace('_', ' ')} "
            f"({why[1]:,} symbol-seconds)."
        )
    net = main.metrics["net_pnl_usdt"]
    sentence = (
        f"{len(main.trades):,} trades {'earned' if net > 0 else 'lost'} {abs(net):,.2f} USDT after all costs: "
        f"{main.net_bps:+.2f} bps of what was traded"
    )
    if len(main.trades) < TRADES_MIN:
        sentence += " (too few trades to say anything)"
    beside = [f"{null.name} {null.net_bps:+.2f} bps" for null in backtest.nulls if null.trades]
    return sentence + (f"; beside it: {', '.join(beside)}." if beside else ".")


def figure(value: float | None) -> str:
    """Return a number as a person reads it; what is not defined is a dash, never 0."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:,.4f}" if abs(value) < 1 else f"{value:,.2f}"


def plot(draw: Callable[..., None], *arguments: Any, size: tuple[float, float] = (9.0, 3.4)) -> str:
    """Return a picture as a data URI."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=size, dpi=_PIXELS_PER_INCH, layout="constrained")
    FigureCanvasAgg(picture)
    draw(picture, *arguments)
    for axes in picture.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=_INK, labelsize=8)
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def equity_markdown(backtest: Backtest) -> str:
    """Return the equity plot as Markdown, for Dagster's metadata."""
    return f"![equity]({plot(_draw_equity, backtest, size=(7.0, 2.8))})"


def _draw_equity(picture: Any, backtest: Backtest) -> None:
    above, below = picture.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for outcome in (*backtest.nulls, backtest.main):
        equity = outcome.equity_usdt
        minutes = np.arange(len(equity)) / MINUTE_S
        is_main = outcome is backtest.main
        above.plot(
            minutes,
            (equity / equity[0] - 1) * 1e4,
            label=outcome.name,
            color=_INK if is_main else _COLOURS.get(outcome.name, _NULL),
            linewidth=1.5 if is_main else 1.0,
        )
    above.axhline(0, color=_NULL, linewidth=0.6)
    above.set_ylabel("equity, bps", fontsize=8)
    above.legend(fontsize=8, frameon=False)
    equity = backtest.main.equity_usdt
    fall = (equity / np.maximum.accumulate(equity) - 1) * 1e4
    below.fill_between(np.arange(len(fall)) / MINUTE_S, fall, 0, color=_BAD, alpha=0.5, linewidth=0)
    below.set_ylabel("drawdown, bps", fontsize=8)
    below.set_xlabel(f"minutes after {when(backtest.start_s)} (all out of sample)", fontsize=8)


def _draw_waterfall(picture: Any, outcome: Outcome) -> None:
    axes = picture.subplots()
    gross = float(sum(trade.gross_usdt for trade in outcome.trades))
    steps = [
        ("gross, mid to mid", gross),
        ("spread", -outcome.metrics["total_spread_usdt"]),
        ("slippage", -outcome.metrics["total_slippage_usdt"]),
        ("fees", -outcome.metrics["total_fees_usdt"]),
        ("funding", outcome.metrics["total_funding_usdt"]),
    ]
    level = 0.0
    for at, (_, change) in enumerate(steps):
        axes.bar(at, change, bottom=level, color=_GOOD if change >= 0 else _BAD, width=0.6)
        level += change
    axes.bar(len(steps), level, color=_INK, width=0.6)
    names = [name for name, _ in steps] + ["net"]
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.axhline(0, color=_INK, linewidth=0.6)
    axes.set_ylabel("USDT", fontsize=8)


def _draw_symbols(picture: Any, outcome: Outcome) -> None:
    axes = picture.subplots()
    nets: dict[str, float] = {}
    for trade in outcome.trades:
        nets[trade.symbol] = nets.get(trade.symbol, 0.0) + float(trade.net_usdt)
    shown = sorted(nets.items(), key=lambda item: item[1])
    if len(shown) > _BARS_MAX:
        shown = shown[: _BARS_MAX // 2] + shown[-_BARS_MAX // 2 :]
    axes.bar(range(len(shown)), [net for _, net in shown], color=[_GOOD if net > 0 else _BAD for _, net in shown])
    names = [symbol.removesuffix("USDT") if symbol.isascii() else f"#{at}" for at, (symbol, _) in enumerate(shown)]
    axes.set_xticks(range(len(shown)), names, rotation=60, fontsize=7)
    axes.axhline(0, color=_INK, linewidth=0.6)
    axes.set_ylabel("net, USDT", fontsize=8)
    if not shown:
        axes.text(0.5, 0.5, "no trade", ha="center", transform=axes.transAxes, color=_NULL)


def _draw_nulls(picture: Any, backtest: Backtest) -> None:
    axes = picture.subplots()
    outcomes = [outcome for outcome in (backtest.main, *backtest.nulls) if outcome.trades]
    if not outcomes:
        axes.text(0.5, 0.5, "no trade", ha="center", transform=axes.transAxes, color=_NULL)
        return
    values = [np.array([trade.net_bps for trade in outcome.trades]) for outcome in outcomes]
    axes.boxplot(values, orientation="horizontal", showfliers=False, widths=0.5, medianprops={"color": _INK})
    for at, value in enumerate(values, start=1):
        error = value.std(ddof=1) / math.sqrt(len(value)) if len(value) > 1 else math.nan
        axes.plot(value.mean(), at, "D", color=_BAD if value.mean() < 0 else _GOOD, markersize=5)
        axes.annotate(f" mean {value.mean():+.2f} ± {error:.2f}", (value.mean(), at + 0.3), fontsize=8)
    axes.set_yticks(range(1, len(outcomes) + 1), [f"{o.name} ({len(o.trades)})" for o in outcomes], fontsize=8)
    axes.axvline(0, color=_INK, linewidth=0.6)
    axes.set_xlabel("net bps a trade, after all costs", fontsize=8)


def _draw_ic(picture: Any, backtest: Backtest) -> None:
    axes = picture.subplots()
    values = backtest.skill.ic_by_minute
    axes.bar(np.arange(len(values)), values, color=_NULL, width=0.9)  # a minute without an IC has no bar
    if math.isfinite(backtest.ic.mean):
        axes.axhline(backtest.ic.mean, color=_GOOD if backtest.ic.mean > 0 else _BAD, linewidth=1.2)
        axes.set_title(
            f"mean {backtest.ic.mean:+.3f} ± {backtest.ic.standard_error:.3f} over {backtest.ic.seconds:,} seconds",
            fontsize=9,
            loc="left",
        )
    axes.axhline(0, color=_INK, linewidth=0.6)
    axes.set_xlabel("minute", fontsize=8)


def trade_rows(outcome: Outcome, most: int = 12) -> list[dict[str, object]]:
    """Return the largest trades by absolute result, for the page."""
    largest = sorted(outcome.trades, key=lambda trade: -abs(trade.net_usdt))[:most]
    return [
        {
            "symbol": trade.symbol,
            "side": "long" if trade.side.sign > 0 else "short",
            "entry": when(trade.entry_ns // NS),
            "duration_s": trade.duration_s,
            "net_usdt": float(trade.net_usdt),
            "net_bps": trade.net_bps,
            "cause": trade.exit_cause.value,
        }
        for trade in largest
    ]
