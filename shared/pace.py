"""A sliding window: how long to wait so that no window of `period_ns` ever holds more than `limit` messages.

A leaky bucket of the same rate lets up to twice as many through in the second after a pause (burst plus refill),
and Bitget counts per second: it disconnects a WebSocket for the eleventh message, and answers 429 over REST.
"""

from __future__ import annotations

from collections import deque

from shared.types import NS


class Pace:
    """Count what was sent; the caller brings the clock.

    Args:
        limit: messages per period; the list of times kept is as long.
        period_ns: length of the window, half-open: a message leaves it exactly `period_ns` after it was sent.
    """

    def __init__(self, limit: int, period_ns: int = NS) -> None:
        assert limit > 0, limit
        self.limit, self.period_ns = limit, period_ns
        self._sent_ns: deque[int] = deque(maxlen=limit)

    def ready_ns(self) -> int:
        """Return the first time at which one more may be sent; 0 where none is recent."""
        return self._sent_ns[0] + self.period_ns if len(self._sent_ns) == self.limit else 0

    def note(self, at_ns: int) -> None:
        """Record one message that is sent at `at_ns`, which must not be before `ready_ns()`."""
        assert at_ns >= self.ready_ns(), (at_ns, self.ready_ns())
        self._sent_ns.append(at_ns)


class Bucket:
    """A leaky bucket: `limit` at once, then one each `refill_ns`; a window of length w holds `limit + w / refill_ns`.

    For what should be rare: after a burst it still goes on, slowly, where a sliding window would stand still.
    """

    def __init__(self, limit: int, refill_ns: int) -> None:
        assert limit > 0, limit
        self.limit, self.refill_ns = limit, refill_ns
        self._full_ns = 0  # when it will be full again

    def ready_ns(self) -> int:
        """Return the first time at which one more may be sent."""
        return self._full_ns - (self.limit - 1) * self.refill_ns

    def note(self, at_ns: int) -> None:
        """Record one message that is sent at `at_ns`, which must not be before `ready_ns()`."""
        assert at_ns >= self.ready_ns(), (at_ns, self.ready_ns())
        self._full_ns = max(self._full_ns, at_ns) + self.refill_ns
