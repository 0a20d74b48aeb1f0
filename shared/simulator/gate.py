"""Who may ask what, and how often: refusals, rate limits, signatures.

Codes, messages and the order of the checks: Bitget v2, REST -> Signature and Error codes, as probed in September 2026.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import deque

WINDOW_MS = 30_000


class Refused(Exception):  # noqa: N818 - it is Bitget's answer, not a fault of ours
    """Bitget's answer to a request it does not like: HTTP 400 and a code, unless stated otherwise."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code} {message}")
        self.code, self.message, self.status = code, message, status


class RateLimit:
    """Calls per second and caller, one budget an endpoint (sliding window)."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], deque[float]] = {}

    def take(self, caller: str, endpoint: str, per_s: int, now_s: float) -> int:
        """Spend one call and return how many remain in this second.

        Raises:
            Refused: HTTP 429, nothing remains.
        """
        calls = self._calls.setdefault((caller, endpoint), deque())
        while calls and now_s - calls[0] >= 1.0:
            calls.popleft()
        if len(calls) >= per_s:
            raise Refused("429", "Too Many Requests", 429)
        calls.append(now_s)
        return per_s - len(calls)


def signature(secret: str, prehash: str) -> str:
    """Return base64(HMAC-SHA256(secret, prehash))."""
    return base64.b64encode(hmac.new(secret.encode(), prehash.encode(), hashlib.sha256).digest()).decode()
