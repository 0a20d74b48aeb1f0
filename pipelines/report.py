"""The report of a backtest or a session: one self-contained HTML page, net after costs first, nulls beside it.

Pictures are SVGs inside the page (no JavaScript, no address outside), in the colours of the reader's light or dark, so
that it can be mailed, read on a phone, and opened in ten years. Beside it: trades.parquet, trades.csv, metrics.csv and
report.json, from which `pipelines.verify` computes it again.

    python -m pipelines.report --session last --out DIR

makes the page of a session from its journal (`pipelines.session_report`), with --mlflow also its run of MLflow; of a
backtest `pipelines.backtest` does.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import polars as pl

from pipelines import charts, page, provenance
from pipelines.capacity import capacity_of
from pipelines.charts import plot
from pipelines.moments import when
from pipelines.numbers import figure, money, of_equity, percent, plus_minus, signed
from pipelines.page import Page, trade_rows, verdict
from pipelines.simulation import Backtest, Outcome
from pipelines.trades import METRICS, net_error_bps, trades_frame, turnover_of, waterfall_of
from shared import entry, journal
from shared import settings as settings_module
from shared.errors import CrosscutError

_LABELS = {
    "total_trades": "trades",
    "avg_duration_s": "mean duration, s",
    "win_rate": "won",
    "profit_factor": "profit factor, won / lost",
    "total_fees_usdt": "fees paid, USDT",
    "total_slippage_usdt": "slippage paid, USDT",
    "total_spread_usdt": "half spreads paid, USDT",
    "total_funding_usdt": "funding received, USDT",
    "net_pnl_usdt": "net, USDT",
    "roi": "return on equity",
    "sharpe": "Sharpe (annualised; needs a day)",
    "sortino": "Sortino (annualised; needs a day)",
    "max_drawdown": "maximum drawdown",
}
assert tuple(_LABELS) == METRICS

FILES = ("report.html", provenance.FILE_NAME, "trades.parquet", "trades.csv", "metrics.csv")
"""What is written of every result."""

_MONEY = tuple(name for name in METRICS if name.endswith("_usdt"))

_SLICES_MAX = 12  # rows of a table of symbols
_CENTS_FROM_USDT = 100.0  # from there on cents say enough: of the largest step of the waterfall


def write_report(path: Path, shown: Page) -> None:
    """Write the page, and beside it what `verify` needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(shown), encoding="utf-8")
    if shown.provenance is not None:
        provenance.write_beside(path.parent, shown.provenance)


def render(shown: Page) -> str:
    """Return the page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "signed": signed, "percent": percent}
    environment.globals["plus_minus"] = plus_minus
    main = shown.main
    waterfall = waterfall_of(main.trades)
    steps = {name: float(value) for name, value in waterfall.steps}
    digits = 2 if max(map(abs, steps.values())) >= _CENTS_FROM_USDT else 4
    environment.filters["usdt"] = partial(money, digits=digits)
    environment.filters["metric"] = partial(metric, digits=digits)
    capacity = capacity_of(main.executions, main.metrics["total_funding_usdt"])
    by_symbol, by_hour, by_cause = (make(main.trades) for make in (page.by_symbol, page.by_hour, page.by_cause))
    by_symbol = extremes = sorted(by_symbol, key=lambda one: one.net_usdt)
    if len(extremes) > _SLICES_MAX:
        extremes = extremes[: _SLICES_MAX // 2] + extremes[-_SLICES_MAX // 2 :]
    pictures = {
        "equity": charts.svg("equity", charts.draw_equity, main, shown.nulls, shown.start_s, size=charts.NARROW),
        "equity_wide": charts.svg("equitywide", charts.draw_equity, main, shown.nulls, shown.start_s, size=charts.WIDE),
        "ic": charts.svg("ic", charts.draw_ic, shown.skill),
        "deciles": charts.svg("deciles", charts.draw_deciles, shown.skill),
        "calibration": charts.svg("calibration", charts.draw_calibration, shown.skill),
    }
    if main.trades:  # of nothing there is no picture
        pictures |= {
            "waterfall": charts.svg("waterfall", charts.draw_waterfall, steps, "net"),
            "nulls": charts.svg("nulls", charts.draw_nulls, shown.outcomes),
            "symbols": charts.svg("symbols", charts.draw_slices, by_symbol, "symbol"),
            "hours": charts.svg("hours", charts.draw_slices, by_hour, "hour of the day, UTC"),
            "causes": charts.svg("causes", charts.draw_slices, by_cause, "closed by"),
            "exposure": charts.svg("exposure", charts.draw_exposure, main, shown.start_s),
            "capacity": charts.svg("capacity", charts.draw_capacity, capacity),
        }
    gap_parts = {} if shown.gap is None else {name: float(value) for name, value in shown.gap.parts.items()}
    if gap_parts:
        pictures["gap"] = charts.svg("gap", charts.draw_waterfall, gap_parts, "gap")
    return environment.get_template("report.html").render(
        page=shown,
        main=main,
        outcomes=shown.outcomes,
        labels=_LABELS,
        start=when(shown.start_s),
        end=when(shown.end_s),
        verdict=verdict(shown),
        gates=page.gates_of(main),
        refusals=sorted(main.refusals.items(), key=lambda item: -item[1])[:8],
        trades=trade_rows(main),
        waterfall=[*steps.items(), ("net", float(waterfall.net_usdt))],
        opened_usdt=float(waterfall.opened_usdt),
        slices=[("symbol", extremes), ("hour, UTC", by_hour), ("closed by", by_cause)],
        arms=page.arm_records(main.trades),
        turnover=turnover_of(main.trades, main.equity_usdt),
        errors={outcome.name: net_error_bps(outcome.trades) for outcome in shown.outcomes},
        held=page.held_of(main),
        settings=page.settings_of(shown),
        capacity=capacity,
        pictures=pictures,
        gap_parts=gap_parts,
        embedded=None if shown.provenance is None else provenance.encoded(shown.provenance),
        element=provenance.ELEMENT,
    )


def metric(value: float, name: str, *, digits: int) -> str:
    """Return a figure of METRICS by what it is: a share, money, or a number."""
    if name in ("roi", "max_drawdown"):
        return of_equity(value)
    if name == "win_rate":
        return percent(value)
    return money(value, digits=digits).removeprefix("+") if name in _MONEY else figure(value)


def write_outputs(folder: Path, outcome: Outcome, run: str) -> None:
    """Write trades.parquet, trades.csv and metrics.csv; an undefined metric is an empty field."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = trades_frame(outcome.trades, run)
    frame.write_parquet(folder / "trades.parquet")
    frame.write_csv(folder / "trades.csv")
    values = {k: None if math.isnan(v) else v for k, v in outcome.metrics.items()}
    pl.DataFrame([values], schema=dict.fromkeys(values, pl.Float64)).write_csv(folder / "metrics.csv")


def equity_markdown(shown: Backtest | Page) -> str:
    """Return the equity plot as Markdown, for Dagster's metadata."""
    return f"![equity]({plot(charts.draw_equity, shown.main, shown.nulls, shown.start_s, size=(7.0, 2.8))})"


def waterfall_markdown(shown: Backtest | Page) -> str:
    """Return where the money went as Markdown, for Dagster's metadata."""
    steps = {name: float(value) for name, value in waterfall_of(shown.main.trades).steps} if shown.main.trades else {}
    return f"![where the money went]({plot(charts.draw_waterfall, steps, 'net', size=(7.0, 2.8))})"


def main(arguments: Sequence[str] | None = None) -> int:
    from pipelines.session_report import report_session
    from pipelines.session_runs import REPORT_FOLDER, report_and_log
    from pipelines.tracking import Tracking

    parser = argparse.ArgumentParser(
        prog="python -m pipelines.report",
        description="Write the report of a session from its journal: the same page and files as a backtest's.",
    )
    parser.add_argument("--session", default="last", help="folder, name, or last (default)")
    parser.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where files go (default: report/ in its folder)")
    parser.add_argument("--mlflow", action="store_true", help="keep it as a run of MLflow, once a session")
    args = parser.parse_args(arguments)
    try:
        settings = settings_module.load(lake_uri=args.lake)
        lake = settings.lake
        found = journal.find(lake, args.session)
        if args.mlflow:
            tracking = Tracking(settings.tracking_uri)
            with tracking.told():
                reported, logged = report_and_log(lake, found, tracking, args.out)
                kept = f"MLflow: {tracking.link(logged.run_id)}" + ("" if logged.is_new else " (logged before)")
        else:
            reported, kept = report_session(lake, found, args.out or found / REPORT_FOLDER), ""
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print("\n".join([reported.summary(), *([kept] if kept else [])]))
    return 0


if __name__ == "__main__":
    entry.run(main)
