"""Positions that are seen late: what an account held some time ago, while the venue knows better.

Bitget's order engine and its position service are two, and a client that closes what it has just opened may be told
that there is nothing to close (43023 and its like). Here the lag is exact: a change is seen `delay_ns` after it
happened, in lists and pushes alike, and an order that closes more than what is seen is refused by the caller.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from shared.simulator.venue.orders import VenuePosition

CHANGES_MAX = 10_000
"""Changes that an account may have within one delay; beyond, the oldest are seen at once."""


class LatePositions:
    """Positions as clients see them.

    Args:
        venue: whose positions they are.
    """

    def __init__(self, venue: Any) -> None:
        self._venue = venue
        self._delay_ns = 0
        self._seen: dict[str, list[VenuePosition]] = {}  # account -> what is seen now
        self._to_come: dict[str, deque[tuple[int, list[VenuePosition]]]] = {}  # (when it happened, what was held then)

    @property
    def delay_ns(self) -> int:
        return self._delay_ns

    @delay_ns.setter
    def delay_ns(self, delay_ns: int) -> None:
        if delay_ns > 0 and self._delay_ns == 0:
            self._seen = {account: self._held(account) for account in self._venue.accounts}
        self._delay_ns = delay_ns

    def note(self, account: str, now_ns: int) -> None:
        """Remember what an account holds now; called whenever something has happened to it."""
        if self._delay_ns == 0:
            return
        waiting = self._to_come.setdefault(account, deque())
        if len(waiting) >= CHANGES_MAX:
            self._seen[account] = waiting.popleft()[1]
        waiting.append((now_ns, self._held(account)))

    def appeared(self, now_ns: int) -> dict[str, None]:
        """Return the accounts of which something has become visible since the last call."""
        return {account: None for account in list(self._to_come) if self._look(account, now_ns)}

    def positions(self, account: str, now_ns: int) -> list[VenuePosition]:
        if self._delay_ns == 0 and not self._to_come:
            found: list[VenuePosition] = self._venue.positions(account)
            return found
        self._look(account, now_ns)
        return self._seen.get(account, [])

    def shows(self, account: str, symbol: str, position_side: str, now_ns: int) -> bool:
        """Tell whether a position of the venue's is seen, in whatever size; True where there is none."""
        if self._delay_ns == 0:
            return True
        held, seen = (
            any(one.symbol == symbol and one.position_side == position_side for one in positions)
            for positions in (self._venue.positions(account), self.positions(account, now_ns))
        )
        return seen or not held

    def _held(self, account: str) -> list[VenuePosition]:
        return [msgspec.structs.replace(position) for position in self._venue.positions(account)]

    def _look(self, account: str, now_ns: int) -> bool:
        """Let what is due be seen; tell whether something was."""
        waiting = self._to_come.get(account)
        has_appeared = False
        while waiting and waiting[0][0] + self._delay_ns <= now_ns:
            self._seen[account] = waiting.popleft()[1]
            has_appeared = True
        if waiting is not None and not waiting:
            del self._to_come[account]
        return has_appeared
