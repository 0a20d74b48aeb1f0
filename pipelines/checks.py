"""Asset checks: what must hold of an hour, or should. They look at what is stored, not at what the asset returned.

ERROR: the data are wrong. WARN: the data are what they are, and someone should know. To add one: a function that
returns (passed, metadata) and an adapter that names its asset.
"""

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from pipelines.partitions import hour_of
from pipelines.resources import LakeResource, TrackingResource
from pipelines.seconds import sample, stored
from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph
from shared.lake import read
from shared.lake.layout import HOUR_S
from shared.types import NS, TickEvent

Verdict = tuple[bool, dict[str, Any]]

COVERAGE_MIN = 0.95
"""Share of listed minutes, between the first and the last recorded one, that should be complete or stale."""

POSITIVES_MIN = 0.001
"""Below this share of labels other than flat there is nothing to learn; a major has 0.3 % on a busy day."""

MISSING_MAX = 0.05

_FUTURE_LOOKED_FOR_S = (5, 45, 120)
"""Seconds after an hour's first row: a leak sits in every row, early ones are cheap to compute again."""

_PARTITION_TAG = "dagster/partition"


def crossed_books(lake: Path, source: str, hour: int) -> Verdict:
    """No stored book has its best bid at or above its best ask."""
    rows = _rows(lake, "raw/book", source, hour)
    # NaN is above everything to polars; rows of links have NaN prices.
    bid, ask = (pl.col(name).fill_nan(None) for name in ("bid_price_1", "ask_price_1"))
    crossed = rows.filter(bid >= ask)
    count = int(read.collect(crossed.select(pl.len())).item())
    return count == 0, {"crossed": count}


def duplicate_trades(lake: Path, source: str, hour: int) -> Verdict:
    """No trade id is stored twice as flow of one symbol."""
    rows = _rows(lake, "raw/trade", source, hour).filter(pl.col("event") == int(TickEvent.DATA))
    counted = read.collect(rows.select(rows=pl.len(), trades=pl.struct("symbol", "trade_id").n_unique()))
    duplicates = int(counted["rows"][0] - counted["trades"][0])
    return duplicates == 0, {"duplicates": duplicates, "trades": int(counted["trades"][0])}


def unknown_payloads(lake: Path, source: str, hour: int) -> Verdict:
    """Everything that arrived was understood: no unknown field, no frame that cannot be read."""
    if hour not in read.hours(lake, "quarantine", source):
        return True, {"payloads": 0}
    kinds = read.collect(
        _rows(lake, "quarantine", source, hour).group_by("where", "what").agg(pl.col("count").sum()).sort("count")
    )
    worst = kinds.row(-1)
    return False, {"payloads": int(kinds["count"].sum()), "kinds": kinds.height, "most": f"{worst[0]}: {worst[1]}"}


def coverage_share(lake: Path, source: str, hour: int) -> Verdict:
    """Between the first and the last recorded minute, nearly every channel was linked.

    An hour that was recorded for two minutes or less, as at the border of a short run, has no whole minute to judge by.
    """
    frame = read.collect(_rows(lake, "coverage", source, hour)).filter(pl.col("state") != "not_listed")
    linked = pl.col("state").is_in(["complete", "stale"])
    recorded = frame.filter(linked)["minute"]
    if recorded.is_empty():
        received = _rows(lake, "raw/ticker", source, hour).select((pl.col("recv_ns") // (60 * NS)).n_unique())
        touched = int(read.collect(received).item())
        return touched <= 2, {"share": 0.0, "minutes": 0, "touched": touched}
    # The first and the last minute are recorded in part: a session begins and ends somewhere.
    inside = frame.filter(pl.col("minute").is_between(recorded.min(), recorded.max()))
    share = float(inside.select(linked.mean()).item())
    minutes = int(inside["minute"].n_unique())
    return share >= COVERAGE_MIN, {"share": share, "minutes": minutes}


def missing_features(lake: Path, source: str, hour: int) -> Verdict:
    """Few feature values are missing, leaving out those that the source never has."""
    frame = read.collect(_rows(lake, "features", source, hour).select(pl.exclude("second", "symbol")))
    shares = frame.select(pl.all().is_nan().mean()).row(0, named=True)
    present = [share for share in shares.values() if share < 1.0]
    worst = max(shares, key=lambda name: shares[name])
    share = sum(present) / len(present) if present else 1.0
    return share <= MISSING_MAX, {"share": share, "worst": worst, "absent": len(shares) - len(present)}


def no_future(lake: Path, source: str, hour: int) -> Verdict:
    """Features of a second are, bit for bit, what was received before its end gives: nothing later is in them."""
    rows = read.collect(_rows(lake, "features", source, hour).select("second"))
    if rows.is_empty():
        return True, {"rows": 0, "differing": 0}
    first, last = int(rows["second"].min()), int(rows["second"].max())  # type: ignore[arg-type]
    symbols = read.universe_between(lake, source, hour * HOUR_S * NS, (hour + 1) * HOUR_S * NS).symbols
    compared = differing = 0
    for at in sorted({min(first + after, last) for after in _FUTURE_LOOKED_FOR_S}):
        graph = FeatureGraph(FEATURES, symbols)
        graph.step(stored(lake, source, first - graph.lookback, first, symbols).columns, first - graph.lookback)
        _, known = sample(lake, source, first, at + 1, symbols)  # no later row is even read
        features = graph.step(known.columns, first)[-1]
        found = read.collect(read.scan(lake, "features", source, start_s=at, end_s=at + 1, symbols=symbols))
        values = found.select(graph.names).to_numpy()
        expected = features[[symbols.index(symbol) for symbol in found["symbol"]]]
        compared += len(values)
        differing += int((~((values == expected) | (np.isnan(values) & np.isnan(expected)))).any(axis=1).sum())
    return differing == 0, {"rows": compared, "differing": differing}


def label_balance(lake: Path, source: str, hour: int) -> Verdict:
    """There are labels of both sides, enough to learn from them some day."""
    counts = dict(read.collect(_rows(lake, "labels", source, hour))["label"].value_counts().iter_rows())
    labelled = sum(count for label, count in counts.items() if label is not None)
    positives = counts.get(1, 0) + counts.get(2, 0)
    share = positives / labelled if labelled else 0.0
    is_balanced = bool(counts.get(1, 0)) and bool(counts.get(2, 0)) and share >= POSITIVES_MIN
    return is_balanced, {"share_positive": share, "long": counts.get(1, 0), "short": counts.get(2, 0)}


def model_beats_null(metrics: dict[str, float]) -> Verdict:
    """The model's rank IC on the holdout exceeds that of shuffled labels by two standard errors."""
    needed = ("rank_ic", "rank_ic_se", "shuffled_rank_ic", "shuffled_rank_ic_se")
    if any(name not in metrics for name in needed):
        return False, {"reason": "no rank IC: fewer than three symbols, or a holdout of a minute"}
    error = (metrics["rank_ic_se"] ** 2 + metrics["shuffled_rank_ic_se"] ** 2) ** 0.5
    excess = metrics["rank_ic"] - metrics["shuffled_rank_ic"]
    return excess > 2 * error, {"excess": excess, "standard_error": error}


def coin_loses(metrics: dict[str, float]) -> Verdict:
    """The coin loses its costs: a backtest in which a coin earns is broken."""
    net_bps = metrics.get("net_bps")
    if net_bps is None or net_bps != net_bps:
        return False, {"reason": "the coin did not trade"}
    return net_bps < 0, {"net_bps": net_bps}


def _rows(lake: Path, table: str, source: str, hour: int) -> pl.LazyFrame:
    return read.scan(lake, table, source, start_s=hour * HOUR_S, end_s=(hour + 1) * HOUR_S, is_sorted=False)


# -------------------------------------------------------------------------------------------------- adapters


def _result(verdict: Verdict, *, is_error: bool) -> dg.AssetCheckResult:
    passed, metadata = verdict
    severity = dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(passed=passed, metadata=metadata, severity=severity)


def _hour(context: dg.AssetCheckExecutionContext) -> int:
    return hour_of(context.run.tags[_PARTITION_TAG])


def _hourly(name: str, asset: str, check: Any, *, is_error: bool) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset, name=name, description=check.__doc__)
    def adapter(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
        return _result(check(lake.root, lake.name, _hour(context)), is_error=is_error)

    return adapter


@dg.asset_check(asset="model", name="model_beats_null", description=model_beats_null.__doc__)
def model_check(lake: LakeResource, tracking: TrackingResource) -> dg.AssetCheckResult:
    from pipelines.tracking import Tracking

    client = Tracking(tracking.address)
    run_id = client.resolve(client.latest_of(lake.name)).run_id
    return _result(model_beats_null(dict(client.client.get_run(run_id).data.metrics)), is_error=False)


@dg.asset_check(asset="backtest", name="coin_loses", description=coin_loses.__doc__)
def coin_check(lake: LakeResource, tracking: TrackingResource) -> dg.AssetCheckResult:
    from pipelines.tracking import Tracking

    return _result(coin_loses(Tracking(tracking.address).latest_backtest("coin", lake.name)), is_error=False)


CHECKS = [
    _hourly("crossed_books", "raw_ticks", crossed_books, is_error=True),
    _hourly("duplicate_trades", "raw_ticks", duplicate_trades, is_error=True),
    _hourly("unknown_payloads", "raw_ticks", unknown_payloads, is_error=True),
    _hourly("coverage_share", "coverage", coverage_share, is_error=False),
    _hourly("missing_features", "features", missing_features, is_error=False),
    _hourly("no_future", "features", no_future, is_error=True),
    _hourly("label_balance", "labels", label_balance, is_error=False),
    model_check,
    coin_check,
]
