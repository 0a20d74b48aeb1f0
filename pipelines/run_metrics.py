"""The metrics of a run of MLflow that holds a result: of a backtest, its nulls, a configuration of a sweep, a session.

The keys are the same for all of them, so that MLflow compares a session with its backtest and a sweep with both.
"""

from __future__ import annotations

from pipelines import trials
from pipelines.page import Page
from pipelines.simulation import Outcome


def outcome_metrics(outcome: Outcome, start_s: int) -> dict[str, float]:
    """Return what one engine earned: its metrics, net bps, orders, and the moments of its minutes."""
    figures = outcome.metrics | {"net_bps": outcome.net_bps, "orders": float(outcome.orders)}
    return figures | trials.figures_of(trials.returns_of(outcome.equity_usdt, start_s))


def page_metrics(page: Page) -> dict[str, float]:
    """Return what a report says in figures: of its main outcome, its scores, its parity and a session's gap."""
    figures = outcome_metrics(page.main, page.start_s) | {
        "rank_ic": page.skill.ic.mean,
        "rank_ic_se": page.skill.ic.standard_error,
        "parity_decisions": float(page.told.parity.decisions),
        "parity_mismatches": float(page.told.parity.mismatches),
    }
    if page.gap is not None:
        figures["gap_usdt"] = float(page.gap.total_usdt)
        figures |= {f"gap_{name}_usdt": float(value) for name, value in page.gap.parts.items()}
    return figures
