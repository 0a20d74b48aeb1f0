"""Which changes of a full book no connection brought: holes in its numbers.

A push of `books` names itself (`seq`) and the one it follows (`pseq`), the same on every connection. An update brings
the numbers in (pseq, seq]; a snapshot tells what the book is at its number and brings nothing. So where connections
relieve one another, the chain of each is whole, and yet a change can be missing between the last number of one and the
snapshot of the next: the book is right again at once, and nothing else tells of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared.types import Ints

Span = tuple[int, int]  # ns of receipt


def holes(recv_ns: Ints, exch_ns: Ints, seq: Ints, pseq: Ints, is_snapshot: NDArray[np.bool_]) -> list[Span]:
    """Return [last push before it, first push after it] of each hole in the numbers of one symbol's pushes.

    Numbers that fall while the exchange's time goes on were given anew; nothing is said across that.

    Args:
        recv_ns, exch_ns, seq, pseq, is_snapshot: (P,) each, pushes of any connections in any order.
    """
    order = np.lexsort((seq, exch_ns))
    life = np.cumsum(np.diff(seq[order], prepend=seq[order][:1]) < 0)
    found: list[Span] = []
    for number in range(int(life[-1]) + 1 if len(life) else 0):
        mine = order[life == number]
        first = np.where(is_snapshot[mine], seq[mine], pseq[mine])
        by_first = np.lexsort((seq[mine], first))
        first, last = first[by_first], seq[mine][by_first]
        reached = np.maximum.accumulate(last)
        for at in (np.flatnonzero(first[1:] > reached[:-1]) + 1).tolist():
            before = recv_ns[mine][seq[mine] == reached[at - 1]].min()
            after = recv_ns[mine][seq[mine] > reached[at - 1]].min()
            found.append((int(before), int(after)))
    return found
