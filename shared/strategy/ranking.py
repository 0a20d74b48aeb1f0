"""Ranking: who may be traded now, in which order, and for everyone else the first gate that said no.

1. Gates are asked in the order of `Gate`; the first that says no is the symbol's "why not".
2. What passes is ordered by net edge (expected move in the score's direction less this symbol's round trip now, funding
   included, less the penalty for turnover) and what the bandit makes of it; ties go to Philox(seed, decision), then to
   the symbol.
3. The best K on each side stay, those that are held counted: a holder's place is free only when `exits` gives it up.

All of it is arrays over N; Python touches only what was chosen. A null scorer claims no edge: confidence, margin and
net edge do not apply to it, and its order is Philox's alone, so that it samples the universe and not the cheapest.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from operator import lt

import numpy as np
from numpy.typing import NDArray

from shared.types import Floats


class Gate(enum.IntEnum):
    """Why not, in the order of asking. The first seven concern everybody, the rest one symbol."""

    CHOSEN = 0
    NOT_ADOPTED = 1  # the exchange's truth has not been read yet
    STOPPING = 2  # a clean stop was asked for
    RISK_LATCHED = 3  # daily loss, drawdown or refusals
    LINK_DOWN = 4  # public or private stream
    LATE = 5  # this second was handed over too late to act on
    UNKNOWN_ORDERS = 6  # too many placements without an answer
    CLOCK_SKEW = 7  # our clock and the exchange's differ too much
    NOT_WANTED = 8  # outside SYMBOLS
    NOT_TRADABLE = 9  # contract status other than "normal"
    LEVERAGE_ABSENT = 10  # the exchange has not confirmed a leverage
    HAS_POSITION = 11
    HAS_ORDER = 12
    IN_DOUBT = 13  # our ledger and the exchange disagree
    COOLDOWN = 14
    NO_BOOK = 15
    STALE_BOOK = 16
    NOT_COVERED = 17  # the trade channel was not linked for the whole second
    WARMING_UP = 18  # a feature or score is NaN
    SPREAD = 19
    DEPTH = 20
    CONFIDENCE = 21
    MARGIN = 22
    NET_EDGE = 23  # the expected move does not pay the round trip
    TURNOVER = 24  # it does, but not the penalty for entering this symbol so often
    RANK = 25  # beyond the top K of its side
    NEUTRAL = 26  # would tilt the book to one side, or to the market, beyond the band
    BUDGET = 27  # would explore, and the day's budget for that has not so much left
    ORDER_RATE = 28
    SIZE = 29  # below the exchange's minimum
    EXPOSURE = 30  # gross or symbol limit
    MARGIN_USE = 31  # more of equity would be margin than may be
    NET = 32  # longs and shorts would differ by more than they may
    CLUSTER = 33  # likewise within the symbol's cluster


SAYS = {
    Gate.CHOSEN: "an entry was sent",
    Gate.NOT_ADOPTED: "the exchange's truth had not been read yet",
    Gate.STOPPING: "a clean stop was asked for",
    Gate.RISK_LATCHED: "a risk limit was latched: daily loss, drawdown or refusals",
    Gate.LINK_DOWN: "the public or the private stream was down",
    Gate.LATE: "the second was handed over too late to act on (lag_s_max)",
    Gate.UNKNOWN_ORDERS: "too many placements were without an answer (unknown_orders_max)",
    Gate.CLOCK_SKEW: "our clock and the exchange's differed too much",
    Gate.NOT_WANTED: "it is outside SYMBOLS",
    Gate.NOT_TRADABLE: 'its contract status was not "normal"',
    Gate.LEVERAGE_ABSENT: "the exchange had not confirmed a leverage for it",
    Gate.HAS_POSITION: "a position was open in it",
    Gate.HAS_ORDER: "an order was working in it",
    Gate.IN_DOUBT: "our ledger and the exchange disagreed about it",
    Gate.COOLDOWN: "it rested after a trade or a refusal (cooldown_s)",
    Gate.NO_BOOK: "it had no book",
    Gate.STALE_BOOK: "neither book nor ticker was heard for too long (stale_s_max)",
    Gate.NOT_COVERED: "its trade channel was not linked for the whole second",
    Gate.WARMING_UP: "a feature was not known yet, so there was no score",
    Gate.SPREAD: "its spread was too wide (KILL_SPREAD_BPS_MAX)",
    Gate.DEPTH: "its book was too thin (KILL_DEPTH_USDT_MIN)",
    Gate.CONFIDENCE: "the score was not sure enough (CONFIDENCE_MIN)",
    Gate.MARGIN: "the next class was too close (CONFIDENCE_MARGIN_MIN)",
    Gate.NET_EDGE: "the expected move did not pay the round trip",
    Gate.TURNOVER: "it had been entered too often in the last minute (turnover_penalty_bps)",
    Gate.RANK: "others of its side ranked higher, or its side's places were taken (TOP_K)",
    Gate.NEUTRAL: "it would have tilted the book to one side or to the market (side_band, beta_band)",
    Gate.BUDGET: "the day's budget for exploring was spent",
    Gate.ORDER_RATE: "the placements of that second were used up (orders_per_second_max)",
    Gate.SIZE: "what could be risked was less than the exchange's smallest order",
    Gate.EXPOSURE: "the gross or the symbol's limit",
    Gate.MARGIN_USE: "more of equity would have been margin than may be (margin_use_max)",
    Gate.NET: "longs and shorts would have differed by more than they may (net_share_max)",
    Gate.CLUSTER: "likewise within its cluster (cluster_share_max)",
}
"""What a person is told."""

Gates = NDArray[np.uint8]

_NO = tuple(f"no_{gate.name.lower()}" for gate in Gate)
_CODES = tuple(np.array([gate], np.uint8) for gate in Gate)
"""As arrays: numpy asks an enumeration whether it is one, which takes thrice as long as writing to 600 places."""
assert [*Gate] == [*range(len(Gate))], "gates count from 0 without holes"
assert [*SAYS] == [*Gate], "every gate says something"


def first_no(n_symbols: int, verdicts: list[tuple[Gate, NDArray[np.bool_] | list[int]]]) -> Gates:
    """Return per symbol the first gate that refuses it, CHOSEN where none does.

    Args:
        verdicts: (gate, refuses (N,), or the few symbols that it refuses), in the order of `Gate`.
    """
    why = np.zeros(n_symbols, np.uint8)
    after = len(Gate)
    for gate, refuses in reversed(verdicts):
        assert gate <= after, f"{gate.name} must be asked after {Gate(after).name}"
        if isinstance(refuses, list):
            code = int(gate)  # numpy asks an enumeration whether it is one
            for n in refuses:
                why[n] = code
        else:
            np.putmask(why, refuses, _CODES[gate])
        after = gate
    return why


def close(why: Gates) -> None:
    """Mark every candidate with `Gate.RANK`: there is no place for anybody."""
    np.putmask(why, why == int(Gate.CHOSEN), _CODES[Gate.RANK])


def first_of(values: Floats, ties: Callable[[], Floats], slots: int) -> NDArray[np.intp]:
    """Return the best `slots` of values (n,) in order: by value, then tie, then place.

    Args:
        ties: (n,), asked for only where they decide.
    """
    negated = -values
    order = negated.argsort(kind="stable")
    head = negated[order[: slots + 1]].tolist()
    if all(map(lt, head, head[1:])):  # NaN, which comes last, is less than nobody
        return order[:slots]
    first: NDArray[np.intp] = np.lexsort((ties(), negated))[:slots]
    return first


def only(draws: Callable[[], Floats], at: NDArray[np.intp]) -> Callable[[], Floats]:
    """Return the draws of some symbols, still to be asked for."""
    return lambda: draws()[at]


def settle(why: Gates, chosen: NDArray[np.intp], priority: Floats, draws: Callable[[], Floats]) -> list[int]:
    """Return the chosen, best first (by priority, draw, symbol), and mark the other candidates with `Gate.RANK`.

    Args:
        chosen: those of the candidates that have a slot, ascending.
        draws: (N,), asked for only where they decide.
    """
    close(why)
    why[chosen] = _CODES[Gate.CHOSEN]
    best_first: list[int] = chosen[first_of(priority[chosen], only(draws, chosen), len(chosen))].tolist()
    return best_first


def refusals(why: Gates) -> dict[str, int]:
    """Return how many symbols each gate stopped, in the order of asking, by its name behind a "no_"."""
    found = np.bincount(why).tolist()
    return {_NO[code]: count for code, count in enumerate(found) if count and code}
