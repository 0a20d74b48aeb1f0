"""What an hour lacks, for a person: from when to when, of whom, and why.

Breaks of links are exact, because links are rows. What else coverage marks (silence, volumes that disagree, frozen
connections) is known by the minute. Gaps of many symbols that share a cause and a beginning are one row: a connection
that drops takes fifty symbols and three channels with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from pipelines.verdicts import COVERED, rows_of
from shared.lake import read
from shared.lake.layout import CHANNELS, HOUR_NS, HOUR_S, MINUTE_S
from shared.types import NS, TickEvent

SHORTEST_NS = 1_000_000
"""Shorter breaks do not count, as in coverage: a recorder that ends on the stroke of an hour leaves one of 1 ns."""

_OPENS = (int(TickEvent.SUBSCRIBED), int(TickEvent.CARRIED))
_TOGETHER_NS = NS
"""Links that break within a second broke together."""

SCHEMA = {"from_ns": pl.Int64, "seconds": pl.Float64, "symbol": pl.String, "channel": pl.String, "cause": pl.String}


def gaps(lake: Path, source: str, hour: int) -> pl.DataFrame:
    """Return every gap of an hour, one row a symbol and channel; columns as in `SCHEMA`.

    Raises:
        TableEmpty: the hour has no coverage.
    """
    rows = [row for channel in CHANNELS for row in _breaks(lake, source, hour, channel)]
    return pl.concat([pl.DataFrame(rows, schema=SCHEMA, orient="row"), _marks(lake, source, hour)])


def largest(found: pl.DataFrame, most: int = 15) -> pl.DataFrame:
    """Return the gaps that weigh most, those of one cause and beginning together, for a person to read."""
    together = (
        found.with_columns(begins=pl.col("from_ns") // _TOGETHER_NS)
        .group_by("begins", "cause")
        .agg(
            pl.col("from_ns").min(),
            longest=pl.col("seconds").max().round(1),
            lost_s=pl.col("seconds").sum().round(1),
            symbols=pl.col("symbol").n_unique(),
            such_as=pl.col("symbol").unique().sort().head(3).str.join(", "),
            channels=pl.col("channel").unique().sort().str.join(", "),
        )
        .sort("lost_s", "from_ns", descending=[True, False])
        .head(most)
    )
    return together.select(
        pl.from_epoch("from_ns", time_unit="ns").dt.strftime("%H:%M:%S").alias("from"),
        pl.col("longest").alias("longest, s"),
        "symbols",
        "such_as",
        "channels",
        "cause",
        pl.col("lost_s").alias("of all channels, s"),
    )


def _breaks(lake: Path, source: str, hour: int, channel: str) -> Iterator[tuple[int, float, str, str, str]]:
    """Yield when no connection carried a channel of a listed symbol, and its chains' breaks."""
    if hour not in read.hours(lake, f"raw/{channel}", source):
        return
    start_ns, end_ns = hour * HOUR_NS, (hour + 1) * HOUR_NS
    listed = read.collect(
        rows_of(lake, "coverage", source, hour)
        .filter((pl.col("channel") == channel) & (pl.col("state") != "not_listed"))
        .group_by("symbol")
        .agg(first=pl.col("minute").min(), last=pl.col("minute").max())
    )
    links = read.collect(
        rows_of(lake, f"raw/{channel}", source, hour)
        .filter(pl.col("event") >= int(TickEvent.SUBSCRIBED))
        .select("symbol", "recv_ns", "event", "conn")
        .sort("symbol", "recv_ns", maintain_order=True)
    ).partition_by("symbol", as_dict=True)
    nothing = pl.DataFrame(schema={"symbol": pl.String, "recv_ns": pl.Int64, "event": pl.UInt8, "conn": pl.Int32})
    for symbol, first, last in listed.sort("symbol").iter_rows():
        begin_ns, until_ns = max(start_ns, first * MINUTE_S * NS), min(end_ns, (last + 1) * MINUTE_S * NS)
        up: set[int] = set()
        since_ns: int | None = begin_ns
        cause = "not linked yet"
        for _, recv_ns, event, conn in links.get((symbol,), nothing).iter_rows():
            if event in _OPENS:
                if since_ns is not None and recv_ns - since_ns >= SHORTEST_NS:
                    yield since_ns, (recv_ns - since_ns) / NS, symbol, channel, cause
                since_ns = None
                up.add(conn)
                continue
            up.discard(conn)
            if since_ns is None and not up:
                since_ns = recv_ns
                cause = "lost in the chain" if event == TickEvent.GAP else "link down"
        if since_ns is not None and until_ns - since_ns >= SHORTEST_NS:
            yield (
                since_ns,
                (until_ns - since_ns) / NS,
                symbol,
                channel,
                "never linked" if since_ns == begin_ns else cause,
            )


def _marks(lake: Path, source: str, hour: int) -> pl.DataFrame:
    """Return what coverage marks beside links, runs of minutes joined."""
    marked = read.collect(
        rows_of(lake, "coverage", source, hour).filter(
            ~pl.col("state").is_in([*COVERED, "not_listed"]) & ~pl.col("reason").is_in(["not_linked", "broken"])
        )
    ).sort("symbol", "channel", "reason", "minute")
    run = (pl.col("minute") - pl.int_range(pl.len()).over("symbol", "channel", "reason")).alias("run")
    return (
        marked.with_columns(run)
        .group_by("symbol", "channel", "reason", "run")
        .agg(pl.col("minute").min(), minutes=pl.len())
        .sort("symbol", "channel", "minute")
        .select(
            from_ns=pl.col("minute") * MINUTE_S * NS,
            seconds=(pl.col("minutes") * MINUTE_S).cast(pl.Float64),
            symbol="symbol",
            channel="channel",
            cause="reason",
        )
    )


def by_minute(coverage: pl.DataFrame, hour: int) -> pl.DataFrame:
    """Return what a picture of an hour needs: symbol, minute of the hour, its worst state and the share covered."""
    order = {"not_listed": 0, "complete": 1, "stale": 2}
    rank = pl.col("state").replace_strict(order, default=3, return_dtype=pl.Int8)
    return (
        coverage.with_columns(rank=rank, minute=pl.col("minute") - hour * (HOUR_S // MINUTE_S))
        .group_by("symbol", "minute")
        .agg(pl.col("rank").max(), covered=pl.col("state").is_in(COVERED).mean())
        .sort("symbol", "minute")
    )
