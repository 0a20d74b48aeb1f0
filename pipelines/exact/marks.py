"""The marks of a held symbol, and which of them could do something.

A mark moves equity, and it can trigger a stop or a liquidation. Whoever holds thirty symbols gets a hundred marks a
second, and nearly none of them triggers anything: only those at or beyond the nearest trigger prices are met one by
one (*alarms*), the others are told together, when somebody needs to know what the account is worth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from pipelines.exact.tape import GONE_NS, NEVER_NS, Block
from shared.simulator.venue.orders import Plan
from shared.types import NS

LOOK_NS = 60 * NS
"""One comparison of a minute's marks costs no more than one of a second's."""

TRAILING = frozenset({"track_plan", "moving_plan"})
"""Plans that follow the mark: every one of its moves matters to them."""


class Marks:
    """Follow the marks of one symbol from a time on."""

    def __init__(self, symbol: str, now_ns: int, rank: int = 0) -> None:
        self.symbol, self.rank = symbol, rank
        self.due_ns = GONE_NS  # kept by who follows it
        self.known_until_ns = now_ns  # before which the venue knows the mark in force
        self.seen_ns = now_ns  # up to and including which alarms were looked for
        self.next_ns = NEVER_NS  # of the next alarm, as far as it was looked for
        self._low, self._high = -math.inf, math.inf
        self._told_ns = -1  # of the mark that the venue knows

    def guard(self, plans: Iterable[Plan], *, is_tight: bool, now_ns: int) -> None:
        """Learn what the marks after now could do.

        Args:
            plans: the symbol's live trigger orders.
            is_tight: the account is so near to its liquidation that every mark counts.
        """
        low, high = -math.inf, math.inf
        for plan in plans:
            price = float(plan.request.trigger_price)
            is_any = plan.request.plan_type in TRAILING or plan.direction == 0
            if plan.direction <= 0 or is_any:
                low = max(low, math.inf if is_any else price)
            if plan.direction >= 0 or is_any:
                high = min(high, -math.inf if is_any else price)
        if is_tight:
            low, high = math.inf, -math.inf
        if (low, high) != (self._low, self._high):
            self._low, self._high = low, high
            self.seen_ns, self.next_ns = now_ns, NEVER_NS

    def wakes_ns(self) -> int:
        """Return when an alarm comes, or when the next must be looked for."""
        if self._low == -math.inf and self._high == math.inf:
            return NEVER_NS
        return min(self.next_ns, self.seen_ns + 1)

    def look(self, block: Block) -> None:
        """Look for an alarm in the next minute.

        Args:
            block: that holds the instant after `seen_ns`.
        """
        until_ns = min(self.seen_ns + LOOK_NS, block.end_ns - 1)
        first, end = block.mark_ns.searchsorted([self.seen_ns, until_ns], side="right").tolist()
        self.seen_ns, self.next_ns = until_ns, NEVER_NS
        if first == end:
            return
        marks = block.mark[first:end]
        alarms = np.flatnonzero((marks <= self._low) | (marks >= self._high))
        if len(alarms):
            self.next_ns = block.mark_ns.item(first + int(alarms[0]))
            self.seen_ns = self.next_ns

    def is_alarm(self, mark: float) -> bool:
        return mark <= self._low or mark >= self._high

    def pass_alarm(self) -> None:
        """Go on behind the alarm."""
        self.next_ns = NEVER_NS

    def news(self, block: Block, now_ns: int) -> tuple[str, float, float, float] | None:
        """Return (symbol, mark, index, funding rate) as of now, None where the venue knows it already."""
        row = block.mark_at(now_ns)
        following = block.mark_ns.item(row + 1) if row + 1 < len(block.mark_ns) else block.end_ns
        self.known_until_ns = min(following, block.end_ns)
        if row < 0 or block.mark_ns.item(row) == self._told_ns:
            return None
        self._told_ns = block.mark_ns.item(row)
        return self.symbol, block.mark.item(row), block.index.item(row), block.rate.item(row)
