"""What a session is told, and how it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from live.shadow import ShadowPlan
from shared import journal
from shared.bitget.rest import Keys
from shared.errors import CrosscutError
from shared.strategy.engine import EngineConfig
from shared.types import BookChannels


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a session is told; nothing below reads settings."""

    model: str  # as asked for
    bundle_folder: Path | None  # None: rules and coin need none
    bundle_note: journal.ModelNote | None
    config: EngineConfig
    seed: int
    seconds: float | None  # None: until a signal
    source: str
    venue: str  # simulator, demo, live
    rest_url: str
    market_ws_url: str
    books: BookChannels
    venue_ws_url: str
    keys: Keys
    lake: Path
    folder: Path | None  # None: below the lake
    is_child_venue: bool  # the venue is our own child: its account begins and ends with it
    forget_risk: bool
    commit: str
    shadow: ShadowPlan | None = None  # None: nobody is scored beside


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a session ended."""

    folder: Path
    summary: dict[str, Any]
    error: CrosscutError | None  # None: it ended as planned, flat
