"""Moments as a person reads and types them: UTC, to the second."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from shared.errors import SettingsError

SECOND_MAX: Final = 253_402_300_799
"""The last second of the year 9999; what is larger is no epoch *seconds*, mostly milli- or nanoseconds."""


def when(second: int) -> str:
    """Return an epoch second as a person reads it."""
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M:%S}Z"


def second_of(text: str | None) -> int | None:
    """Return the epoch second of an ISO time (UTC where it names no zone) or of a number of seconds; None of None.

    Raises:
        SettingsError: it is neither.
    """
    if text is None:
        return None
    try:
        if text.isascii() and text.isdigit():
            second = int(text)
        else:
            at = datetime.fromisoformat(text)
            second = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
        if not 0 <= second <= SECOND_MAX:
            raise ValueError(second)
    except ValueError:
        raise SettingsError(f"a time must be like 2026-11-22T08:00 (UTC) or epoch seconds, found {text!r}") from None
    return second


def window_of_text(start: str | None, end: str | None) -> tuple[int | None, int | None]:
    """Return --from and --to as epoch seconds, None where one was not given.

    Raises:
        SettingsError: one is no time, or nothing lies between them.
    """
    start_s, end_s = second_of(start), second_of(end)
    if start_s is not None and end_s is not None and start_s >= end_s:
        raise SettingsError(f"--to must be later than --from, found --from {start} --to {end}: correct one of them")
    return start_s, end_s
