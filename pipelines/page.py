"""What a report shows, whatever it is about: a backtest, or a session that was traded live or on paper.

`pipelines.report` renders a `Page`; `of_backtest` makes one here, `pipelines.sessions_report` makes one of a journal.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from pipelines.moments import when
from pipelines.numbers import plus_minus
from pipelines.provenance import Provenance
from pipelines.shortfall import Gap
from pipelines.simulation import Backtest, Outcome
from pipelines.skill import NO_SKILL, Skill
from pipelines.told import ChannelCoverage, Told
from pipelines.trades import Slice, net_error_bps, slices_of
from shared.errors import TableEmpty
from shared.lake import read
from shared.lake.layout import MINUTE_S
from shared.limits import by_default
from shared.strategy.bandit.records import Record, record_of
from shared.strategy.config import EngineConfig
from shared.strategy.portfolio import Trade
from shared.types import NS

TRADES_MIN = 100
"""Below this a mean says nothing: with 15 bps of deviation a trade its standard error is above 1.5 bps."""


class Kind(enum.StrEnum):
    BACKTEST = "backtest"
    SESSION = "session"


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A report before it is rendered."""

    kind: Kind
    title: str
    source: str
    start_s: int
    end_s: int
    symbols: int
    style: str
    seed: int
    main: Outcome
    nulls: tuple[Outcome, ...] = ()
    skill: Skill = NO_SKILL
    sample: tuple[str, str]  # what was learnt before, as (heading, sentence)
    told: Told
    gap: Gap | None = None  # of a session; None: nothing to compare with
    provenance: Provenance | None = None  # None: it cannot be recomputed

    @property
    def is_generated(self) -> bool:
        return self.source.startswith("simulator-g")

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        return (self.main, *self.nulls)


NOT_SIMULATED = (
    "Not simulated: latency other than one second, market impact beyond the five visible levels, places in queues, "
    "trades between two seconds."
)


def of_backtest(backtest: Backtest, told: Told, provenance: Provenance | None = None) -> Page:
    """Return the page of a backtest."""
    name = backtest.main.name
    if backtest.holdout_from_s is None:
        sample = ("Nothing was learnt:", f"{name} has no training, every second is out of sample.")
    else:
        sample = (
            f"Out of sample from {when(backtest.holdout_from_s)}.",
            "Nothing after it was learnt from or chosen with; between what the model has seen and this boundary lie "
            f"the reach of labels and the lookback of features. The window begins {when(backtest.start_s)}.",
        )
    return Page(
        kind=Kind.BACKTEST,
        title=f"Backtest of {name} on {backtest.source}",
        source=backtest.source,
        start_s=backtest.start_s,
        end_s=backtest.end_s,
        symbols=backtest.symbols,
        style=backtest.style,
        seed=backtest.seed,
        main=backtest.main,
        nulls=backtest.nulls,
        skill=backtest.skill,
        sample=sample,
        told=told,
        provenance=provenance,
    )


def verdict(judged: Backtest | Page) -> str:
    """Return one sentence that says what the figures say, and no more."""
    main = judged.main
    if not main.trades:
        why = max(main.gates.items(), key=lambda item: item[1], default=("nothing", 0))
        return (
            f"No trade: the engine said no every time, most often because of {why[0].replace('_', ' ')} "
            f"({why[1]:,} symbol-seconds)."
        )
    net = main.metrics["net_pnl_usdt"]
    n = len(main.trades)
    sentence = (
        f"{n:,} trade{'' if n == 1 else 's'} {'earned' if net > 0 else 'lost'} {abs(net):,.2f} USDT after all costs: "
        f"{_bps(main)} of what was opened"
    )
    if n < TRADES_MIN:
        sentence += " (too few trades to say anything)"
    beside = [f"{null.name} {_bps(null)}" for null in judged.nulls if null.trades]
    return sentence + (f"; beside it: {', '.join(beside)}." if beside else ".")


def _bps(outcome: Outcome) -> str:
    return f"{plus_minus(outcome.net_bps, net_error_bps(outcome.trades), is_signed=True)} bps"


def by_symbol(trades: Sequence[Trade]) -> list[Slice]:
    return slices_of(trades, lambda trade: trade.symbol)


def by_hour(trades: Sequence[Trade]) -> list[Slice]:
    """Return trades by the hour of the day (UTC) in which they were closed."""
    return slices_of(trades, lambda trade: f"{datetime.fromtimestamp(trade.exit_ns // NS, UTC):%H}h")


def by_cause(trades: Sequence[Trade]) -> list[Slice]:
    return slices_of(trades, lambda trade: trade.exit_cause.value)


def arm_records(trades: Sequence[Trade], most: int = 12) -> list[Record]:
    """Return how sure the net bps of a trade are: of all trades, and of the symbols traded most, as the bandit sees."""
    if not trades:
        return []
    by_name: dict[str, list[float]] = {}
    for trade in trades:
        by_name.setdefault(trade.symbol, []).append(trade.net_bps)
    busiest = sorted(by_name, key=lambda symbol: (-len(by_name[symbol]), symbol))[:most]
    named = [("all", [trade.net_bps for trade in trades]), *((symbol, by_name[symbol]) for symbol in busiest)]
    return [record_of(name, np.array(net_bps)) for name, net_bps in named]


def coverage_of(lake: Path, source: str, start_s: int, end_s: int) -> tuple[ChannelCoverage, ...] | None:
    """Return what was recorded of a window, channel by channel; None where nobody has judged it."""
    try:
        rows = read.collect(
            read.scan(
                lake, "coverage", source, start_s=start_s // MINUTE_S * MINUTE_S, end_s=end_s, is_sorted=False
            ).select("channel", "state")
        )
    except TableEmpty:
        return None
    counted: dict[str, dict[str, int]] = {}
    for channel, state, n in rows.group_by("channel", "state").agg(pl.len()).sort("channel", "state").iter_rows():
        counted.setdefault(channel, {})[state] = n
    return tuple(
        ChannelCoverage(channel, states.get("complete", 0), states.get("gap", 0), states.get("stale", 0))
        for channel, states in counted.items()
        if set(states) - {"not_listed"}
    )


class Held(msgspec.Struct, frozen=True):
    """What was held, of equity at the start [1], over all looks."""

    gross_mean: float
    gross_most: float
    net_mean: float
    net_most: float  # of its absolute value
    positions_mean: float
    positions_most: int


def held_of(outcome: Outcome) -> Held | None:
    """Return the exposure in a row; None where nobody looked."""
    seen, start_usdt = outcome.exposure, float(outcome.start_usdt)
    if not len(seen.second):
        return None
    gross, net = seen.gross_usdt / start_usdt, seen.net_usdt / start_usdt
    return Held(
        gross_mean=float(gross.mean()),
        gross_most=float(gross.max()),
        net_mean=float(net.mean()),
        net_most=float(np.abs(net).max()),
        positions_mean=float(seen.positions.mean()),
        positions_most=int(seen.positions.max()),
    )


def settings_of(page: Page) -> list[tuple[str, str, bool]]:
    """Return the configuration that traded: field, value, and whether it is another than the default."""
    if page.provenance is None:
        return []
    config, usual = page.provenance.config, by_default()
    fields = msgspec.structs.fields(EngineConfig)
    values = [(one.name, getattr(config, one.name), getattr(usual, one.name)) for one in fields]
    return [(name, _told(value), value != default) for name, value, default in values]


def _told(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none named"
    return "none" if value is None else str(value)


def gates_of(outcome: Outcome) -> list[dict[str, Any]]:
    """Return why not, most frequent first, with the share of all refusals [1]."""
    total = sum(outcome.gates.values())
    ordered = sorted(outcome.gates.items(), key=lambda item: (-item[1], item[0]))
    return [{"name": name.replace("_", " "), "count": count, "share": count / total} for name, count in ordered]


def trade_rows(outcome: Outcome, most: int = 12) -> list[dict[str, object]]:
    """Return the largest trades by absolute result, for the page."""
    largest = sorted(outcome.trades, key=lambda trade: -abs(trade.net_usdt))[:most]
    return [
        {
            "symbol": trade.symbol,
            "side": "long" if trade.side.sign > 0 else "short",
            "entry": f"{datetime.fromtimestamp(trade.entry_ns // NS, UTC):%m-%d %H:%M:%S}",
            "duration_s": trade.duration_s,
            "notional_usdt": float(trade.opened_usdt),
            "net_usdt": float(trade.net_usdt),
            "net_bps": trade.net_bps,
            "cause": trade.exit_cause.value,
        }
        for trade in largest
    ]
