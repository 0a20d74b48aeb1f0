"""Moments as a person reads and types them: UTC, to the second."""

from __future__ import annotations

from datetime import UTC, datetime

from shared.errors import SettingsError


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
    if text.isdigit():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"a time must be like 2026-11-22T08:00 (UTC) or epoch seconds, found {text!r}") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
