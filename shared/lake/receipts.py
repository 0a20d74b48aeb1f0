"""Batches of receipts as the log handles them: rows that tell of links alone, and cutting and joining of batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.lake import layout
from shared.lake.layout import RECEIPTS, Rows
from shared.types import BOOK_LEVELS, TickEvent


def link_rows(table: str, links: Sequence[tuple[int, int]], event: TickEvent, recv_ns: int) -> Rows:
    """Return rows that tell of links (symbol, connection) and nothing else: NaN prices, 0 sizes."""
    n = len(links)
    given: dict[str, Any] = {
        "symbol": np.array([symbol for symbol, _ in links], np.int32),
        "recv_ns": np.full(n, recv_ns),
        "event": np.full(n, event, np.uint8),
        "conn": np.array([conn for _, conn in links], np.int32),
        "seq": np.full(n, -1),
        "pseq": np.full(n, -1),
        "is_snapshot": np.zeros(n, np.bool_),
        "trade_id": np.full(n, -1),
        "side": np.zeros(n, np.int8),
        "exch_ns": np.zeros(n, np.int64),
        "next_funding_ms": np.zeros(n, np.int64),
    }
    fields: dict[str, Any] = {}
    for field in RECEIPTS[table].__struct_fields__:
        if layout.is_matrix(table, field):
            fields[field] = np.full((n, BOOK_LEVELS), 0.0 if field.endswith("size") else np.nan)
        elif field in given:
            fields[field] = given[field]
        else:
            is_amount = field == "size"  # of a trade or a level; what a ticker did not say is unknown, not 0
            fields[field] = np.full(n, 0.0 if is_amount else np.nan)
    return RECEIPTS[table](**fields)


def join(table: str, parts: Sequence[Rows]) -> Rows:
    """Return batches as one."""
    parts = [link_rows(table, [], TickEvent.CARRIED, 0), *parts]
    return RECEIPTS[table](
        **{name: np.concatenate([getattr(rows, name) for rows in parts]) for name in parts[0].__struct_fields__}
    )


def take(rows: Rows, which: NDArray[np.intp]) -> Rows:
    """Return rows by position."""
    return type(rows)(**{field: getattr(rows, field)[which] for field in rows.__struct_fields__})


def between(rows: Rows, start: int, end: int) -> Rows:
    """Return the rows [start, end), views."""
    if start == 0 and end == len(rows.recv_ns):
        return rows
    return type(rows)(**{field: getattr(rows, field)[start:end] for field in rows.__struct_fields__})
