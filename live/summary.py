"""What a session says of itself at its end: `session.json`, and the sentence about what is still open."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from live.plan import Plan
from live.runner import Runner
from live.truth import say_open
from shared import journal
from shared.errors import CrosscutError, ExchangeError
from shared.strategy.engine import Engine
from shared.types import SCHEMA_VERSION, Adopted

EQUITY_STEP: Final = Decimal("1e-8")  # Bitget cuts the equity it publishes to 8 places


class Left(msgspec.Struct, frozen=True):
    """What is open at the end."""

    is_flat: bool
    said: str  # "" where nothing is
    known_by: str


def left_open(engine: Engine, adopted: Adopted | None) -> Left:
    """Return what is open by the exchange's truth; by our ledger where the exchange did not answer."""
    if adopted is not None:
        is_flat = not adopted.positions and not adopted.orders
        return Left(is_flat, say_open(adopted.positions, adopted.orders), "the exchange")
    parts = [f"{symbol} {holding.size:+f}" for symbol, holding in sorted(engine.portfolio.holdings.items())]
    parts += [f"order {order.client_oid} in {order.symbol}" for order in engine.orders.working]
    return Left(not parts, ", ".join(parts), "our ledger, the exchange cannot be asked")


def with_open(error: CrosscutError | None, left: Left, *, is_account_gone: bool = False) -> CrosscutError:
    """Return the error with what is still open in its sentence: an open position is never left unsaid."""
    what_to_do = (
        "the paper account ended with its simulator: start again"
        if is_account_gone
        else "entries carry their protective stop at the exchange: run `python -m live.flatten` to close everything"
    )
    said = f"open at the end: {left.said} (by {left.known_by}); {what_to_do}"
    if error is None:
        return ExchangeError(f"the session must end flat, found {said}")
    told = CrosscutError(f"{error}; {said}")
    told.exit_code = error.exit_code
    return told


def market_note(source: str, venue: str) -> str:
    """Return in words what a session's figures are worth."""
    if source.startswith("simulator-g"):
        return "generated market"
    if venue == "simulator":
        return f"{source} relayed, fills simulated" if source == "bitget" else f"{source}, fills simulated"
    return source


def summarise(
    plan: Plan,
    engine: Engine,
    runner: Runner,
    adopted: Adopted | None,
    left: Left,
    *,
    session: str,
    folder: Path,
    ended_by: str,
    error: CrosscutError | None,
    has_begun: bool,
    n_tradable: int,
    shadow: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return what `session.json` holds.

    Args:
        has_begun: the engine was told what the exchange holds.
        n_tradable: symbols whose leverage was obtained.
    """
    tally, ledger = runner.tally, engine.portfolio
    equity = ledger.equity_usdt
    theirs = adopted.equity_usdt if adopted is not None else None
    return {
        "schema_version": SCHEMA_VERSION,
        "session": session,
        "folder": str(folder),
        "model": plan.model,
        "model_version": plan.bundle_note.version if plan.bundle_note is not None else None,
        "source": plan.source,
        "market_note": market_note(plan.source, plan.venue),
        "venue": plan.venue,
        "commit": plan.commit,
        "seed": plan.seed,
        "ended_by": ended_by,
        "error": str(error) if error is not None else None,
        "exit_code": error.exit_code if error is not None else 0,
        "seconds": tally.seconds,
        "decisions": tally.decisions,
        "orders": {
            "placed": tally.placed,
            "cancels": tally.cancels,
            "timed_out": tally.timed_out,
            "refused": dict(sorted(tally.refused.items())),
        },
        "fills": tally.fills,
        "trades": {
            "closed": tally.trades,
            "won": tally.trades_won,
            "net_usdt": tally.trades_net_usdt,
            "net_bps": tally.net_bps,  # of what was opened, as in a backtest
        },
        "why_not": dict(sorted(tally.why_not.items())),
        "symbols_tradable": n_tradable,
        "pnl_usdt": {
            "equity_start": ledger.start_usdt,
            "equity_end_ledger": equity,
            "equity_end_venue": theirs,
            # None: the exchange was not asked, the session ended before it began, or something is open
            "ledger_equals_venue": abs(theirs - equity) < EQUITY_STEP
            if theirs is not None and left.is_flat and has_begun
            else None,
            "net": equity - ledger.start_usdt,
            "realised": ledger.realised_usdt,
            "fees": ledger.fees_usdt,
            "funding": ledger.funding_usdt,
            "adjustments": ledger.adjustments_usdt,
        },
        "latency_ms": runner.latency.summary(),
        "journal": {
            "path": journal.FILE_NAME,
            "seconds": tally.seconds,
            "events": tally.events,
            "bytes": _size(folder / journal.FILE_NAME),
            "is_complete": runner.journal_error is None,
            "events_dropped": runner.dropped,
        },
        "shadow": shadow,
        "risk_latch": str(engine.risk.latch) if engine.risk.latch is not None else None,
        "bandit": engine.bandit.summary(),
        "flat_at_end": left.is_flat,
        "open_at_end": left.said,
        "open_known_by": left.known_by,
    }


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
