"""Evidence, as types that only out-of-sample results can make.

Whatever a verdict looks at lies in a window, and a window that touches what the model has learnt from cannot be made:
`Unseen` refuses it, with a distance that it takes from the labels and features themselves and not from its caller.
So no function of this package can be handed an in-sample number by mistake; a test walks over the fields of `Evidence`
and asks of every one that holds figures whether it holds its window, too.

What was not found is None, and a sentence in `Evidence.absent` says why: a criterion without evidence fails.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from pipelines.evidence import Moments, Overfitting
from pipelines.moments import when
from pipelines.validation import LeakySplit, RankIC, gap_s
from shared.errors import NotEnoughData
from shared.features.catalog import FEATURES
from shared.features.graph import lookback_of
from shared.labels import Rule
from shared.types import Floats, Ints

_LOOKBACK_S: Final = lookback_of(FEATURES)


def gap_of(horizon_s: int) -> int:
    """Return the least distance in seconds between what a model learnt from and what it is judged on."""
    return gap_s(Rule(horizon_s=horizon_s).reach_s, _LOOKBACK_S)


class Unseen(msgspec.Struct, frozen=True, kw_only=True):
    """The seconds [start_s, end_s), of which the model has seen nothing.

    Raises:
        LeakySplit: they begin less than labels' reach + features' lookback after what was learnt from.
        NotEnoughData: there are none.
    """

    learnt_to_s: int  # end, exclusive, of everything that had a part in the model: fit, stop and calibrate
    horizon_s: int  # of its labels
    start_s: int
    end_s: int

    def __post_init__(self) -> None:
        if not self.start_s < self.end_s:
            raise NotEnoughData(
                f"a window to judge on must have seconds, found [{self.start_s}, {self.end_s}): choose a later end"
            )
        gap = gap_of(self.horizon_s)
        distance = self.start_s - (self.learnt_to_s - 1)
        if distance < gap:
            raise LeakySplit(
                f"a window to judge on must begin {gap} s after the last second learnt from at least "
                f"({when(self.learnt_to_s - 1)}), found {when(self.start_s)}, {distance} s after it: "
                "judge on later seconds"
            )

    @property
    def seconds(self) -> int:
        return self.end_s - self.start_s


class TradesSeen(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Round trips of one engine in an unseen window."""

    where: Unseen
    entry_s: Ints  # (n,) second of the entry, inside the window
    net_bps: Floats  # (n,) after all costs, of the notional
    gross_bps: Floats  # (n,) mid to mid

    def __post_init__(self) -> None:
        n = len(self.entry_s)
        assert len(self.net_bps) == len(self.gross_bps) == n, (n, len(self.net_bps), len(self.gross_bps))
        if n and not self.where.start_s <= int(self.entry_s.min()) <= int(self.entry_s.max()) < self.where.end_s:
            raise LeakySplit(
                f"trades to judge by must have begun in [{self.where.start_s}, {self.where.end_s}), found entries from "
                f"{int(self.entry_s.min())} to {int(self.entry_s.max())}: run the backtest again"
            )

    def __len__(self) -> int:
        return len(self.entry_s)


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """Returns minute by minute in an unseen window, beside everything that was tried on the source."""

    where: Unseen
    found: Moments  # of the minutes
    trainings: int
    backtests: int
    effective: float  # independent trials
    deflated_sharpe: float  # probability [1]; NaN: not defined
    overfitting: Overfitting


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """What scores said of what followed in an unseen window, and what their nulls said."""

    where: Unseen
    ic: RankIC
    ic_unseen: RankIC  # across the symbols that nothing was learnt from
    ic_shuffled: RankIC  # of trees on shuffled labels
    ic_shifted: RankIC  # of the model's own signal of another moment
    calibration_error: float  # expected calibration error, mean of long and short [1]


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """The rank IC of the scores that the engine was given, computed second by second."""

    where: Unseen
    ic: RankIC


class Nulls(msgspec.Struct, frozen=True, kw_only=True):
    """Trades of engines that cannot know anything, beside the model's."""

    where: Unseen
    coin: TradesSeen
    shuffled: TradesSeen  # the model's own scores of another moment

    def __post_init__(self) -> None:
        assert self.coin.where == self.shuffled.where == self.where, "nulls are judged where the model is"


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """How long one second's prediction takes on this machine with one thread. CPU time: what a neighbour on the machine
    takes is no property of the model."""

    symbols: int
    repeats: int
    cpu_p50_ms: float
    cpu_p99_ms: float
    wall_p99_ms: float


class Recomputed(msgspec.Struct, frozen=True, kw_only=True):
    """Whether features that were stored are those that their formulas give from the past of their second alone."""

    rows: int  # compared, bit for bit
    leak: str  # the sentence that names what differs; "": nothing


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What is judged."""

    version: int
    run_id: str  # of the training
    digest: str  # SHA-256 of the booster's text
    source: str  # that it was trained on
    horizon_s: int
    backtest_run: str = ""  # "": none was found
    backtest_source: str = ""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a verdict is made of. None: not found, and `absent` says under the field's name why."""

    identity: Identity
    holdout: Unseen | None = None  # the seconds that were kept from the training
    trades: TradesSeen | None = None
    track: Track | None = None
    scored: Scored | None = None
    replayed: Replayed | None = None
    nulls: Nulls | None = None
    recomputed: Recomputed | None = None
    speed: Speed | None = None
    absent: dict[str, str] = {}


def trades_seen(where: Unseen, entry_s: Ints, net_bps: Floats, gross_bps: Floats) -> TradesSeen:
    """Return trades in the order of their entries."""
    order = np.argsort(entry_s, kind="stable")
    return TradesSeen(where=where, entry_s=entry_s[order], net_bps=net_bps[order], gross_bps=gross_bps[order])
