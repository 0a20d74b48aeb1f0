"""What the bandit remembers between sessions, and on whose word it may act.

Everything here is a value: journaled with the header, kept per model by live, compared by tests. Floats come back from
msgpack and JSON as the same bits, so a bandit that is made from its state continues bit for bit.
"""

from __future__ import annotations

import enum

import msgspec


class Mode(enum.StrEnum):
    SHADOW = "shadow"  # it learns, and says what it would have chosen; net edge alone decides
    ACT = "act"  # it weighs in, with a permit


class Policy(enum.StrEnum):
    DISCOUNTED_UCB = "discounted_ucb"  # Garivier & Moulines 2008: older trades count less
    SLIDING_UCB = "sliding_ucb"  # the same authors: the last trades count, older ones do not
    THOMPSON = "thompson"  # a draw from what is believed of every arm, older trades count less


class ArmState(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence about one arm, older trades discounted."""

    trades: int  # ever
    weight: float  # discounted number of trades
    total_bps: float  # discounted sum of net bps
    scatter: float  # discounted sum of squared distances from the arm's own mean, bps²
    scatter_dof: float  # trades that `scatter` speaks for


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The last trades of all arms, oldest first; names are positions in `symbols` and `variants`."""

    symbols: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    symbol: tuple[int, ...] = ()
    variant: tuple[int, ...] = ()
    net_bps: tuple[float, ...] = ()


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What exploration has cost on a day."""

    day: int = -1  # days since the epoch, UTC; -1: nothing was ever explored
    bps: float = 0.0  # of equity


class BanditState(msgspec.Struct, frozen=True, kw_only=True):
    """What a restart needs.

    `count` and `total_bps` are the first format (symbol -> trades, sum of net bps): read, never written.
    """

    arms: dict[str, ArmState] = {}  # symbols that were traded, listed now or not
    variants: dict[str, ArmState] = {}
    window: Window = Window()
    spent: Spent = Spent()
    count: dict[str, int] = {}
    total_bps: dict[str, float] = {}


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """An off-policy estimate that lets the bandit act: made by `python -m pipelines.bandit --grant`, read by live."""

    policy: str  # `policy_digest` of the configuration that was estimated
    model: str  # what scored, as asked for
    source: str  # market that it was estimated on
    gain_low_bps: float  # lower bound of the gain over the logging policy, net bps per entry
    gain_bps: float
    entries: int  # logged ones with an outcome
    sessions: tuple[str, ...]
    made_ns: int
