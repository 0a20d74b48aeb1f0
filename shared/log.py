"""structlog: pretty on a terminal, JSON lines otherwise, secrets redacted. Entry points call `configure` once."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRET_KEY = re.compile(
    r"secret|passphrase|password|api_?key|access[-_]?(key|sign)|sign(ature)?$|token", re.IGNORECASE
)


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the value of every key that names a secret, at any depth."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: "[redacted]" if _SECRET_KEY.search(str(k)) else clean(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(clean(v) for v in value)
        return value

    return clean(event)  # type: ignore[no-any-return]


def configure(level: str = "INFO") -> None:
    """Send log lines to stderr, so that stdout stays for what a program answers."""
    is_terminal = sys.stderr.isatty()
    renderer: Any = (
        structlog.dev.ConsoleRenderer() if is_terminal else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # Of now, not of when this was called: what was stderr then may be closed (a test's, a daemon's).
        logger_factory=lambda *_args: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def get(name: str) -> Any:
    """Return a logger bound to `logger=name`; events are `noun.verb` in the past tense, keys carry units."""
    return structlog.get_logger().bind(logger=name)
