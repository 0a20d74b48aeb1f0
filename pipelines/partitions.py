"""Hours of the lake as partitions of Dagster, and sessions; symbol is a column (800 x 8,760 hours would be 7 M)."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

_FORMAT = "%Y-%m-%d-%H:%M"

HOURLY = dg.HourlyPartitionsDefinition(start_date="2025-01-01-00:00", timezone="UTC", end_offset=2, fmt=_FORMAT)
"""`end_offset=2`: the hour that is being collected and the one that a relay run prepares for are partitions too."""

SESSIONS = dg.DynamicPartitionsDefinition(name="sessions")
"""Sessions by their names; `report_sessions` adds those that have ended."""


def hour_of(key: str) -> int:
    """Return the epoch hour (second // 3600) of a partition key."""
    return int(datetime.strptime(key, _FORMAT).replace(tzinfo=UTC).timestamp()) // 3600


def key_of(hour: int) -> str:
    """Return the partition key of an epoch hour."""
    return datetime.fromtimestamp(hour * 3600, UTC).strftime(_FORMAT)
