"""Position tiers by time: the table `universe_tiers`, which holds what Bitget answered about each symbol, and when.

Tiers are asked for one symbol at a time, so they are dated one symbol at a time. An answer is stored when it differs
from the one before, and once a day (`pipelines.discovery` decides): a reader goes back a day or so, not a year.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec
import polars as pl

from shared.lake import read, write
from shared.lake.layout import HOUR_NS, TABLES
from shared.types import Tier

TABLE = "universe_tiers"


class Ladder(msgspec.Struct, frozen=True):
    """The tiers of one symbol as Bitget told them at one time, smallest positions first."""

    as_of_ns: int
    tiers: tuple[Tier, ...]


def write_ladders(root: Path, source: str, ladders: Mapping[str, Ladder]) -> int:
    """Add the ladders of some symbols and return how many rows are new; written twice they are there once.

    Raises:
        LakeError: the disk refuses, or another process holds the hour.
    """
    columns = TABLES[TABLE].columns
    rows = [
        (ladder.as_of_ns, symbol, tier.level, *_digits(tier), tier.leverage_max, f"{tier.maintenance_rate:f}")
        for symbol, ladder in ladders.items()
        for tier in ladder.tiers
    ]
    frame = pl.DataFrame(rows, schema=dict(columns), orient="row")
    added = 0
    for (hour,), part in sorted(frame.group_by(pl.col("as_of_ns") // HOUR_NS), key=lambda item: item[0]):
        added += write.add_rows(root, TABLE, source, hour, part, {"made_from": "query-position-lever"}).rows
    return added


def tiers_at(root: Path, source: str, ns: int, symbols: Iterable[str] | None = None) -> dict[str, Ladder]:
    """Return the latest ladder of each symbol that is not after a time; one that was never told is absent.

    Args:
        symbols: None: those that were listed at that time.

    Raises:
        TableEmpty: `symbols` is None and no universe is known at that time.
        TableCorrupt: a bit is not what was written.
    """
    missing = set(read.universe_at(root, source, ns).symbols if symbols is None else symbols)
    found: dict[str, Ladder] = {}
    hours = read.hours(root, TABLE, source)
    for hour in reversed([hour for hour in hours if hour * HOUR_NS <= ns]):
        if not missing:
            break
        for symbol, ladder in _ladders(root, source, hour, ns).items():
            if symbol in missing:
                found[symbol] = ladder
        missing -= set(found)
    return found


def _ladders(root: Path, source: str, hour: int, ns: int) -> dict[str, Ladder]:
    """Return the last ladder up to `ns` of every symbol that one hour tells of."""
    path = read.sealed_file(root, TABLE, source, hour)
    if path is None:
        return {}  # removed since it was listed
    rows = read.rows_of(path).filter(pl.col("as_of_ns") <= ns)
    rows = rows.filter(pl.col("as_of_ns") == pl.col("as_of_ns").max().over("symbol")).sort("symbol", "level")
    tiers: dict[str, list[Tier]] = {}
    as_of_ns: dict[str, int] = {}
    for row in rows.iter_rows(named=True):
        as_of_ns[row["symbol"]] = row["as_of_ns"]
        tiers.setdefault(row["symbol"], []).append(
            Tier(
                level=row["level"],
                start_usdt=Decimal(row["start_usdt"]),
                end_usdt=Decimal(row["end_usdt"]),
                leverage_max=row["leverage_max"],
                maintenance_rate=Decimal(row["maintenance_rate"]),
            )
        )
    return {symbol: Ladder(as_of_ns[symbol], tuple(ladder)) for symbol, ladder in tiers.items()}


def _digits(tier: Tier) -> Sequence[str]:
    return f"{tier.start_usdt:f}", f"{tier.end_usdt:f}"
