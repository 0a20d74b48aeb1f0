"""Payloads of Bitget's public REST that no stream pushes: settled funding, open interest, candles, position tiers.

Source: Bitget v2 -> Contract -> Market. The rules are `wire`'s: what we use is a field, what we know and leave is in
`IGNORED`, anything else is named. Here every field is required: history with a hole in it is no history.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

from shared.bitget.wire import MS_NS, Ms, Row, parse_rows
from shared.errors import ProtocolBroken
from shared.types import NS

MINUTE_MS = 60_000
MINUTE_NS = 60 * NS

CANDLES_MAX = 1000
"""Rows of one page of `candles`; a larger limit is an error or silently cut."""

HISTORY_CANDLES_MAX = 200
"""Rows of one page of `history-candles`."""

FUNDING_MAX = 100
"""Rows of one page of `history-fund-rate`; a larger pageSize is silently this."""

CANDLE_COLUMNS = 7


class FundingRow(Row, frozen=True):
    """One settlement (GET market/history-fund-rate)."""

    symbol: str
    funding_rate: float  # [1] of notional; longs pay shorts where it is > 0
    funding_time: Ms


class FundingNowRow(Row, frozen=True):
    """What the next settlement will be (GET market/current-fund-rate); a symbol before its launch has neither."""

    IGNORED: ClassVar[str] = "minFundingRate maxFundingRate"

    symbol: str
    funding_rate: float | None = None
    funding_rate_interval: int | None = None  # hours
    next_update: Ms | None = None


class InterestRow(Row, frozen=True):
    symbol: str
    size: float  # base coin


class InterestPage(Row, frozen=True):
    """Open interest of one symbol (GET market/open-interest)."""

    NESTED: ClassVar[dict[str, type[Row]]] = {"openInterestList": InterestRow}

    open_interest_list: list[InterestRow]
    ts: Ms


class TierRow(Row, frozen=True):
    """One tier of a symbol's positions (GET market/query-position-lever)."""

    symbol: str
    level: int
    start_unit: Decimal  # USDT of notional
    end_unit: Decimal
    leverage: int
    keep_margin_rate: Decimal  # [1] of notional


class CandleRow(Row, frozen=True, array_like=True):
    """One candle of a contract: seven strings in a list (spot and the WebSocket have eight)."""

    open_ms: Ms
    open: float
    high: float
    low: float
    close: float
    base_volume: float
    quote_volume: float


def candles(data: Any, where: str) -> tuple[list[CandleRow], tuple[str, ...]]:
    """Return the candles of a page by time, each once, and what was strange about it.

    Raises:
        ProtocolBroken: a row is no candle, or two rows tell of the same minute differently.
    """
    rows, unknown = parse_rows(data, CandleRow, where)
    if any(len(row) > CANDLE_COLUMNS for row in data or ()):
        unknown = (*unknown, f"column {CANDLE_COLUMNS + 1}")
    found: dict[int, CandleRow] = {}
    for row in rows:
        if row.open_ms % MINUTE_MS:
            raise ProtocolBroken(f"{where}: expected a candle of whole minutes, found {row}: the payload has changed")
        if found.setdefault(row.open_ms, row) != row:
            raise ProtocolBroken(f"{where}: expected one candle of {row.open_ms}, found {found[row.open_ms]} and {row}")
    return [found[open_ms] for open_ms in sorted(found)], unknown


def minute(row: CandleRow) -> int:
    """Return the epoch minute that a candle tells of."""
    return row.open_ms * MS_NS // MINUTE_NS
