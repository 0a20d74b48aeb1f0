"""What must hold of an hour, or should: plain functions over what is stored. `pipelines.checks` shows them to Dagster.

Each returns a `Verdict`: did it pass, and figures that say how far, with the worst first and, where it did not pass,
what to do. Defined answers where there is little to judge:

    no rows of the hour        TableEmpty, the lake's own sentence
    rows, but none to judge    passed, and the figures say 0
    an import (import-…)       no links and no quarantine were recorded: coverage is not judged, and says so

To add one: a function (lake, source, hour) -> Verdict here, a line in `checks.CHECKS`, a test that turns it red.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from pipelines.seconds import sample, stored
from pipelines.tables import table_of
from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph
from shared.lake import read
from shared.lake.layout import CHANNELS, HOUR_S, MINUTE_S
from shared.types import NS, TickEvent


class Verdict(NamedTuple):
    """Did it pass, and by which figures."""

    passed: bool
    metadata: dict[str, Any]


COVERAGE_MIN = 0.999
"""Share of judged minutes that must be covered (see `coverage_share`)."""

COVERED = ("complete", "stale")
"""States of a minute that was listened to throughout: a symbol that is silent on a living link is no loss."""

LISTING_MINUTES = 2
"""A symbol listed within the hour is judged from here on: its listing is noticed within a minute."""

LAG_MS_MIN = -100
"""Nothing arrives before it was sent: earlier than this our clock is behind. NTP keeps one within 50 ms."""

LAG_MS_MAX_MEDIAN = 1_000
"""Half of the pushes later than this: our clock is ahead, or the link or this machine cannot keep up."""

LAG_MS_MAX_P99 = 5_000
"""`collect.OVERLAP_S`: later pushes are lost where one recorder relieves another."""

POSITIVES_MIN = 0.001
"""Below this share of labels other than flat there is nothing to learn; a major has 0.3 % on a busy day."""

MISSING_MAX = 0.05

_RECORD_ALL = (
    "nothing, if the recorder was started or stopped within the hour; else switch record_hourly on, or run a service"
)
_IMPORT = "import-"
_MINUTES = HOUR_S // MINUTE_S
_WORST = 10

_FUTURE_LOOKED_FOR_S = (5, 45, 120)
"""Seconds after an hour's first row: a leak sits in every row, early ones are cheap to compute again."""


# ------------------------------------------------------------------------------------------------ raw hours


def crossed_books(lake: Path, source: str, hour: int) -> Verdict:
    """No stored book has its best bid at or above its best ask."""
    # NaN is above everything to polars; rows of links have NaN prices.
    bid, ask = (pl.col(name).fill_nan(None) for name in ("bid_price_1", "ask_price_1"))
    is_book = pl.col("event") == int(TickEvent.DATA)
    by_symbol = read.collect(
        rows_of(lake, "raw/book", source, hour)
        .filter(is_book)
        .group_by("symbol")
        .agg(books=pl.len(), crossed=(bid >= ask).sum())
        .filter(pl.col("crossed") > 0)
        .sort("crossed", "symbol", descending=[True, False])
    )
    crossed = int(by_symbol["crossed"].sum())
    if not crossed:
        return Verdict(True, {"crossed": 0})
    return Verdict(
        False,
        {
            "crossed": crossed,
            "symbols": by_symbol.height,
            "worst": table_of(by_symbol.head(_WORST)),
            "what_to_do": "compare the rows with a second recorder: either books were joined wrongly, or the exchange "
            "showed crossed ones. The sampler treats them as unknown, so nothing downstream has seen a price of theirs",
        },
    )


def duplicate_trades(lake: Path, source: str, hour: int) -> Verdict:
    """No trade id is stored twice as flow of one symbol."""
    by_symbol = read.collect(
        rows_of(lake, "raw/trade", source, hour)
        .filter(pl.col("event") == int(TickEvent.DATA))
        .group_by("symbol")
        .agg(rows=pl.len(), trades=pl.col("trade_id").n_unique())
        .with_columns(duplicates=pl.col("rows").cast(pl.Int64) - pl.col("trades").cast(pl.Int64))
        .sort("duplicates", "symbol", descending=[True, False])
    )
    duplicates, trades = int(by_symbol["duplicates"].sum()), int(by_symbol["trades"].sum())
    if not duplicates:
        return Verdict(True, {"duplicates": 0, "trades": trades})
    return Verdict(
        False,
        {
            "duplicates": duplicates,
            "trades": trades,
            "worst": table_of(by_symbol.filter(pl.col("duplicates") > 0).head(_WORST)),
            "what_to_do": "sealing keeps one row of a trade, so something else wrote this file: find out what, then "
            "seal the hour again from its logs or import it anew",
        },
    )


def unknown_payloads(lake: Path, source: str, hour: int) -> Verdict:
    """Everything that arrived was understood: no unknown field, no frame that cannot be read."""
    if hour not in read.hours(lake, "quarantine", source):
        return Verdict(True, {"payloads": 0})
    kinds = read.collect(
        rows_of(lake, "quarantine", source, hour)
        .group_by("where", "what")
        .agg(pl.col("count").sum())
        .sort("count", "where", "what", descending=[True, False, False])
    )
    return Verdict(
        False,
        {
            "payloads": int(kinds["count"].sum()),
            "kinds": kinds.height,
            "worst": table_of(kinds.head(_WORST)),
            "what_to_do": "look at column `raw` of the table quarantine: a new field of Bitget's belongs into "
            "shared/bitget/wire, a torn frame into an issue. Rows of the other tables are not touched by it",
        },
    )


class Lag(NamedTuple):
    """How long pushes of a channel took, receive less exchange time, ms; to the millisecond."""

    channel: str
    pushes: int
    p1_ms: int
    median_ms: int
    p99_ms: int
    max_ms: int


def receive_lags(lake: Path, source: str, hour: int) -> list[Lag]:
    """Return the lag of every raw channel that pushed something in an hour."""
    lags = []
    for channel in CHANNELS:
        if hour not in read.hours(lake, f"raw/{channel}", source):
            continue
        # Counted by the millisecond: an hour of 800 symbols' lags does not fit in memory.
        counts = read.collect(
            rows_of(lake, f"raw/{channel}", source, hour)
            .filter(pl.col("event") == int(TickEvent.DATA))
            .group_by(ms=(pl.col("recv_ns") - pl.col("exch_ns")).floordiv(1_000_000))
            .agg(n=pl.len())
            .sort("ms")
        )
        if counts.is_empty():
            continue
        ms, below = counts["ms"].to_numpy(), np.cumsum(counts["n"].to_numpy())
        p1, median, p99 = (int(ms[np.searchsorted(below, share * below[-1])]) for share in (0.01, 0.5, 0.99))
        lags.append(Lag(channel, int(below[-1]), p1, median, p99, int(ms[-1])))
    return lags


def clock_skew(lake: Path, source: str, hour: int) -> Verdict:
    """Receive less exchange time is neither negative nor large: both clocks can be trusted, and nothing is late."""
    lags = receive_lags(lake, source, hour)
    if not lags:
        return Verdict(True, {"pushes": 0})
    told = {
        "pushes": sum(lag.pushes for lag in lags),
        "median_ms": max(lag.median_ms for lag in lags),
        "p99_ms": max(lag.p99_ms for lag in lags),
        "p1_ms": min(lag.p1_ms for lag in lags),
        "lags": table_of([lag._asdict() for lag in lags]),
    }
    wrong = [
        f"{lag.channel}: 1 % of the pushes came {-lag.p1_ms} ms before they were sent: our clock is behind"
        for lag in lags
        if lag.p1_ms < LAG_MS_MIN
    ] + [
        f"{lag.channel}: half of the pushes took more than {lag.median_ms} ms: our clock is ahead, or the link is slow"
        for lag in lags
        if lag.median_ms > LAG_MS_MAX_MEDIAN
    ]
    wrong += [
        f"{lag.channel}: one push of a hundred took more than {lag.p99_ms} ms: this machine or the link is too busy"
        for lag in lags
        if lag.p99_ms > LAG_MS_MAX_P99 and lag.median_ms <= LAG_MS_MAX_MEDIAN
    ]
    if not wrong:
        return Verdict(True, told)
    advice = "run NTP (chronyc tracking, timedatectl), give the recorder a core of its own, record nearer to Bitget"
    return Verdict(False, told | {"wrong": "; ".join(wrong), "what_to_do": advice})


# ------------------------------------------------------------------------------------------------- coverage


def judged_minutes(lake: Path, source: str, hour: int) -> pl.DataFrame:
    """Return the rows of coverage that are judged: between the first and the last recorded minute, of listed symbols.

    Recorded is a minute that covers more than half of its channels: where a recorder starts or stops, some are covered
    and some are not. What lies before the first and behind the last is no fault of a link: nobody was there, which
    `whole_hour` tells. A symbol that was listed within the hour is judged from its third minute on.
    """
    frame = read.collect(rows_of(lake, "coverage", source, hour)).filter(pl.col("state") != "not_listed")
    shares = frame.group_by("minute").agg(covered=pl.col("state").is_in(COVERED).mean())
    recorded = shares.filter(pl.col("covered") > 0.5)["minute"]
    listed_at = pl.col("minute").min().over("symbol")
    is_settled = (listed_at == hour * _MINUTES) | (pl.col("minute") >= listed_at + LISTING_MINUTES)
    return frame.filter(is_settled & pl.col("minute").is_between(recorded.min(), recorded.max()))


def coverage_share(lake: Path, source: str, hour: int) -> Verdict:
    """Of the minutes between the first and the last recorded one, channel by channel, 99.9 % were listened to.

    See `judged_minutes`. An hour that was recorded for less than a whole minute has none to judge by.
    """
    if source.startswith(_IMPORT):
        return Verdict(True, {"judged": 0, "reason": "an import has no links to judge by"})
    judged = judged_minutes(lake, source, hour)
    if judged.is_empty():
        return Verdict(True, {"judged": 0, "reason": "no whole minute was recorded"})
    is_covered = pl.col("state").is_in(COVERED)
    share = float(judged.select(is_covered.mean()).item())
    told: dict[str, Any] = {
        "share": share,
        "judged": judged.height,
        "minutes": judged["minute"].n_unique(),
        "not_covered": judged.height - int(judged.select(is_covered.sum()).item()),
    }
    is_heard = bool((judged["state"] == "complete").any())
    if share >= COVERAGE_MIN and is_heard:
        return Verdict(True, told)
    worst = (
        judged.filter(~is_covered)
        .group_by("symbol")
        .agg(minutes=pl.len(), reasons=pl.col("reason").unique().sort().str.join(", "))
        .sort("minutes", "symbol", descending=[True, False])
    )
    causes = judged.filter(~is_covered).group_by("reason").agg(minutes=pl.len()).sort("minutes", descending=True)
    advice = (
        "see the heat map and the gaps of the asset. What is missing cannot be recorded again: use the hour all the "
        "same by materialising what stands on it by hand (a run without this check), or record with two copies"
    )
    return Verdict(
        False,
        told
        | {"what_to_do": advice if is_heard else "every link was up and nobody said a word: look at the recorder's log"}
        | ({"causes": table_of(causes), "worst": table_of(worst.head(_WORST))} if worst.height else {}),
    )


def whole_hour(lake: Path, source: str, hour: int) -> Verdict:
    """The hour was recorded from its first minute to its last."""
    if source.startswith(_IMPORT):
        return Verdict(True, {"reason": "an import has no links to judge by"})
    recorded = judged_minutes(lake, source, hour)["minute"].unique() - hour * _MINUTES
    if recorded.is_empty():
        return Verdict(False, {"first_minute": -1, "last_minute": -1, "what_to_do": _RECORD_ALL})
    first, last = int(recorded.min()), int(recorded.max())  # type: ignore[arg-type]
    told = {"first_minute": first, "last_minute": last}
    return (
        Verdict(True, told)
        if (first, last) == (0, _MINUTES - 1)
        else Verdict(False, told | {"what_to_do": _RECORD_ALL})
    )


# ------------------------------------------------------------------------------------------ what is derived


def missing_features(lake: Path, source: str, hour: int) -> Verdict:
    """Few feature values are missing, leaving out those that the source never has."""
    frame = read.collect(rows_of(lake, "features", source, hour).select(pl.exclude("second", "symbol")))
    if frame.is_empty():
        return Verdict(True, {"share": 0.0, "rows": 0})
    shares = frame.select(pl.all().is_nan().mean()).row(0, named=True)
    present = [share for share in shares.values() if share < 1.0]
    worst = max(shares, key=lambda name: shares[name])
    share = sum(present) / len(present) if present else 1.0
    return Verdict(share <= MISSING_MAX, {"share": share, "worst": worst, "absent": len(shares) - len(present)})


def no_future(lake: Path, source: str, hour: int) -> Verdict:
    """Features of a second are, bit for bit, what was received before its end gives: nothing later is in them."""
    rows = read.collect(rows_of(lake, "features", source, hour).select("second"))
    if rows.is_empty():
        return Verdict(True, {"rows": 0, "differing": 0})
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
    return Verdict(differing == 0, {"rows": compared, "differing": differing})


def label_balance(lake: Path, source: str, hour: int) -> Verdict:
    """There are labels of both sides, enough to learn from them some day."""
    counts = dict(read.collect(rows_of(lake, "labels", source, hour))["label"].value_counts().iter_rows())
    labelled = sum(count for label, count in counts.items() if label is not None)
    positives = counts.get(1, 0) + counts.get(2, 0)
    share = positives / labelled if labelled else 0.0
    is_balanced = bool(counts.get(1, 0)) and bool(counts.get(2, 0)) and share >= POSITIVES_MIN
    return Verdict(is_balanced, {"share_positive": share, "long": counts.get(1, 0), "short": counts.get(2, 0)})


# --------------------------------------------------------------------------------------- models and backtests


def model_beats_null(metrics: dict[str, float]) -> Verdict:
    """The model's rank IC on the holdout exceeds that of shuffled labels by two standard errors.

    Trees that found nothing at all in shuffled labels say the same of every symbol: no order, an IC of 0.
    """
    needed = ("rank_ic", "rank_ic_se")
    if any(name not in metrics for name in needed):
        return Verdict(False, {"reason": "no rank IC: fewer than three symbols, or a holdout of a minute"})
    error = (metrics["rank_ic_se"] ** 2 + metrics.get("shuffled_rank_ic_se", 0.0) ** 2) ** 0.5
    excess = metrics["rank_ic"] - metrics.get("shuffled_rank_ic", 0.0)
    return Verdict(excess > 2 * error, {"excess": excess, "standard_error": error})


def coin_loses(metrics: dict[str, float]) -> Verdict:
    """The coin loses its costs: a backtest in which a coin earns is broken."""
    net_bps = metrics.get("net_bps")
    if net_bps is None or net_bps != net_bps:
        return Verdict(False, {"reason": "the coin did not trade"})
    return Verdict(net_bps < 0, {"net_bps": net_bps})


def backtest_parity(metrics: dict[str, float]) -> Verdict:
    """What the newest backtest did is what live would have done with the same seconds: 0 mismatches."""
    decisions, mismatches = (metrics.get(f"parity_{name}", 0.0) for name in ("decisions", "mismatches"))
    if not decisions and not mismatches:
        return Verdict(False, {"reason": "no backtest that was compared with live: run one without --compare none"})
    return Verdict(mismatches == 0, {"decisions": int(decisions), "mismatches": int(mismatches)})


# --------------------------------------------------------------------------------------------------- inside


def rows_of(lake: Path, table: str, source: str, hour: int) -> pl.LazyFrame:
    """Return the rows of one hour, in any order."""
    return read.scan(lake, table, source, start_s=hour * HOUR_S, end_s=(hour + 1) * HOUR_S, is_sorted=False)
