"""`python -m pipelines.shadow [SESSION]`: champion and challenger on the very same live seconds.

The session happens again from its journal (`shared.replay`), so the champion's scores are those that it traded on; the
challenger's are read from the file beside it and computed again, and must be the same bits. Both are then asked alike:

    rank IC        Spearman's correlation across symbols of the scores with what followed, of each decision second, over
                   the symbols that both have scored; the difference second by second
    net edge       every second each would enter its best K (`shared.strategy.shadow.wanted`): bought at the ask of the
                   next second, sold at the bid a horizon later, less both fees and slippage; positions of a unit each

Differences are paired, so that what moved both alike is in neither; errors come from blocks of time (`gate.bounds`).
Hypothetical entries overlap, know no depth, no latency but a second and no limits: they compare two signals, and say
nothing about what either would have earned.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import scipy.stats
from numpy.typing import NDArray

from pipelines.gate.bounds import Bound, lower_bound
from pipelines.numbers import NOT_DEFINED
from pipelines.validation import IC_BLOCK_S, IC_SYMBOLS_MIN, RankIC, mean_ic
from shared import entry, journal, replay
from shared import settings as settings_module
from shared import shadow as file
from shared.costs import taker_round_trip_bps
from shared.errors import CrosscutError, JournalError
from shared.features.sampler import COLUMNS
from shared.labels import Rule
from shared.strategy.engine import Engine
from shared.strategy.pricing import Pricing
from shared.strategy.shadow import Said, Shadow, wanted
from shared.types import Action, Event, Floats, SecondClosed

CONFIDENCE = 0.95

_BID, _ASK = COLUMNS.index("bid_price_1"), COLUMNS.index("ask_price_1")


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What one of the two was worth."""

    name: str
    ic: RankIC
    net: Bound  # of one hypothetical entry, bps
    entries: int


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Champion and challenger."""

    session: str
    seconds: int  # that both have scored
    passed_over: int
    champion: Side
    challenger: Side
    ic_difference: RankIC  # challenger less champion, paired by second
    net_difference: Bound  # of what a second's entries add up to, bps a second
    differs_at: int | None  # second at which the challenger's record is not what its model says now; None: nowhere


class _Pending(msgspec.Struct, eq=False):
    """A decision whose outcome is not known yet."""

    second: int
    champion: Said
    challenger: Said
    ask: Floats | None = None  # a second later, when both would have entered
    bid: Floats | None = None


class _Watcher:
    """Lives through the session again and keeps of each second what it was worth."""

    def __init__(self, told: file.Told, folder: Path) -> None:
        self._told, self._folder = told, folder
        self._pending: deque[_Pending] = deque()
        self.seconds: list[int] = []
        self.ic: list[tuple[float, float]] = []
        self.sums: list[tuple[float, float]] = []  # net bps of a second's entries
        self.entries: tuple[list[tuple[int, float]], list[tuple[int, float]]] = ([], [])
        self.differs_at: int | None = None
        self.header: journal.Header

    def begin(self, header: journal.Header, engine: Engine) -> None:
        known = self._told.header
        if known.session != header.session or known.n_symbols != len(engine.symbols):
            raise JournalError(
                f"{self._folder / file.FILE_NAME} must belong to session {header.session} with {len(engine.symbols)} "
                f"symbols, found {known.session} with {known.n_symbols}: restore the folder as the session left it"
            )
        scorer = replay.make_scorer(known.model, known.seed, header.universe, self._folder, known.bundle)
        self._shadow = Shadow(header.config, header.universe, scorer)
        if self._shadow.config.horizon_s != header.config.horizon_s:
            ours_s, theirs_s = header.config.horizon_s, self._shadow.config.horizon_s
            raise JournalError(
                f"champion and challenger must look equally far ahead, found {ours_s} s and {theirs_s} s: "
                f"train the challenger for {ours_s} s"
            )
        self.header, self._engine = header, engine
        self._pricing = Pricing(header.config, header.universe)
        self._reach_s = Rule(horizon_s=header.config.horizon_s).reach_s
        fees = np.array([float(contract.taker_fee) for contract in header.universe.contracts])
        self._costs_bps: Floats = taker_round_trip_bps(0.0 * fees, fees, header.config.slippage_bps)

    def see(self, event: Event, actions: list[Action]) -> None:
        if not isinstance(event, SecondClosed):
            return
        self._settle(event.second, event.columns)
        known = self._told.said.get(event.second)
        if known is None and event.second in self._told.passed_over:
            return
        again = self._shadow.see(event.second, event.columns, self._engine.features)
        scores = self._engine.scores
        if known is None or again is None or scores is None:
            return
        if self.differs_at is None and file.record_of(again) != file.record_of(known):
            self.differs_at = event.second
        view = self._pricing.look(event.second, scores, self._engine.market)
        edge_bps = np.where(scores.is_valid, scores.edge_bps, np.nan).astype(np.float32)
        chosen = wanted(view, self.header.config, is_null=self._engine.scorer.is_null)
        self._pending.append(_Pending(event.second, Said(event.second, edge_bps, chosen), known))

    def _settle(self, second: int, columns: Floats) -> None:
        """Take prices of a second: some enter at them, others leave."""
        bid, ask = columns[_BID], columns[_ASK]
        for waiting in reversed(self._pending):
            if waiting.second == second - 1:
                waiting.bid, waiting.ask = bid, ask
                break
        while self._pending and self._pending[0].second + self._reach_s <= second:
            done = self._pending.popleft()
            if done.second + self._reach_s == second and done.bid is not None and done.ask is not None:
                self._judge(done, done.bid, done.ask, bid, ask)

    def _judge(self, done: _Pending, bid_in: Floats, ask_in: Floats, bid_out: Floats, ask_out: Floats) -> None:
        with np.errstate(invalid="ignore", divide="ignore"):
            moved = ((bid_out + ask_out) / (bid_in + ask_in) - 1.0) * 1e4
            long_bps = (bid_out / ask_in - 1.0) * 1e4 - self._costs_bps
            short_bps = (1.0 - ask_out / bid_in) * 1e4 - self._costs_bps
        both = np.isfinite(done.champion.edge_bps) & np.isfinite(done.challenger.edge_bps) & np.isfinite(moved)
        pair, sums = [], []
        for said, entries in zip((done.champion, done.challenger), self.entries, strict=True):
            pair.append(_spearman(said.edge_bps[both], moved[both]))
            earned = np.where(said.wanted > 0, long_bps, short_bps)[said.wanted != 0]
            earned = earned[np.isfinite(earned)]  # a book that had gone by then: neither side is told what came of it
            entries += [(done.second, float(value)) for value in earned]
            sums.append(float(earned.sum()))
        self.seconds.append(done.second)
        self.ic.append((pair[0], pair[1]))
        self.sums.append((sums[0], sums[1]))


def _spearman(signal: NDArray[np.float32], moved: Floats) -> float:
    """Return the rank correlation; NaN below three symbols or where either side is constant."""
    if len(moved) < IC_SYMBOLS_MIN or np.ptp(signal) == 0 or np.ptp(moved) == 0:
        return math.nan
    a, b = scipy.stats.rankdata(signal), scipy.stats.rankdata(moved)
    return float(np.corrcoef(a, b)[0, 1])


def compare(folder: Path) -> Compared:
    """Return how champion and challenger of a session did.

    Raises:
        JournalError: the session had no shadow, or does not replay.
        ModelMismatch: a model in the session's folder is not the one that spoke.
    """
    told = file.read(folder)
    watcher = _Watcher(told, folder)
    replayed = replay.replay(folder, watcher)
    if replayed.difference is not None:
        raise JournalError(
            f"session {replayed.session} must replay to be compared, found that it {replayed.difference.sentence()}: "
            f"check out commit {watcher.header.commit or 'of the session'}"
        )
    second = np.array(watcher.seconds, np.int64)
    ic = np.array(watcher.ic).reshape(-1, 2)
    known = np.isfinite(ic)  # a coin has none: its scores know no order
    both = known.all(axis=1)
    block_s = max(IC_BLOCK_S, 2 * watcher.header.config.horizon_s)
    sums = np.array(watcher.sums).reshape(-1, 2)
    names = (watcher.header.model, told.header.model)
    sides = [
        Side(
            name=name,
            ic=mean_ic(second[known[:, k]], ic[known[:, k], k], block_s=block_s),
            net=_bound([at for at, _ in watcher.entries[k]], [value for _, value in watcher.entries[k]], second),
            entries=len(watcher.entries[k]),
        )
        for k, name in enumerate(names)
    ]
    return Compared(
        session=replayed.session,
        seconds=len(second),
        passed_over=len(told.passed_over),
        champion=sides[0],
        challenger=sides[1],
        ic_difference=mean_ic(second[both], ic[both, 1] - ic[both, 0], block_s=block_s),
        net_difference=_bound(second.tolist(), (sums[:, 1] - sums[:, 0]).tolist(), second),
        differs_at=watcher.differs_at,
    )


def _bound(at: list[int], value: list[float], window: NDArray[np.int64]) -> Bound:
    start_s, end_s = (int(window[0]), int(window[-1]) + 1) if len(window) else (0, 1)
    return lower_bound(np.array(at, np.int64), np.array(value), start_s, end_s, confidence=CONFIDENCE)


def words(found: Compared) -> list[str]:
    """Return what a person reads."""
    lines = [
        f"session {found.session}: {found.seconds:,} decision seconds of both"
        + (f", {found.passed_over:,} passed over by the challenger" if found.passed_over else "")
    ]
    for role, side in (("champion", found.champion), ("challenger", found.challenger)):
        net = f"{side.net.mean:+.2f} bps ± {side.net.standard_error:.2f}" if side.entries else "no entry"
        lines.append(
            f"  {role:<11} {side.name:<11} rank IC {_with_error(side.ic.mean, side.ic.standard_error, 4)}, "
            f"{side.entries:,} hypothetical entries: {net}"
        )
    ic, net_sum = found.ic_difference, found.net_difference
    lines.append(
        f"  challenger less champion, paired by second: rank IC {_with_error(ic.mean, ic.standard_error, 4)}, "
        f"net {_with_error(net_sum.mean, net_sum.standard_error, 3)} bps a second"
    )
    lines.append(f"  {_verdict(found)}")
    return lines


def _with_error(mean: float, standard_error: float, digits: int) -> str:
    """Return a figure with its error; what is not defined is a dash, as on a report's page."""
    if math.isnan(mean):
        return NOT_DEFINED
    return f"{mean:+.{digits}f}" + ("" if math.isnan(standard_error) else f" ± {standard_error:.{digits}f}")


def _verdict(found: Compared) -> str:
    ic, net = found.ic_difference, found.net_difference
    z = 1.645
    if math.isnan(ic.standard_error) or math.isnan(net.standard_error):
        return "too few seconds to tell them apart"
    better = ic.mean > z * ic.standard_error, net.mean > z * net.standard_error
    worse = ic.mean < -z * ic.standard_error, net.mean < -z * net.standard_error
    if any(better) and not any(worse):
        what = " and ".join(name for name, is_it in zip(("rank IC", "net edge"), better, strict=True) if is_it)
        return f"the challenger is better in {what} (95 %, one-sided): judge it with python -m pipelines.gate"
    if any(worse) and not any(better):
        what = " and ".join(name for name, is_it in zip(("rank IC", "net edge"), worse, strict=True) if is_it)
        return f"the challenger is worse in {what} (95 %, one-sided)"
    return "these seconds do not tell them apart"


def main(arguments: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        prog="python -m pipelines.shadow",
        description="Compare champion and challenger of a session that ran with `live.run --shadow`.",
    )
    p.add_argument("session", nargs="?", default="last", help="folder, name, or last (default)")
    p.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    args = p.parse_args(arguments)
    try:
        found = compare(journal.find(settings_module.load(lake_uri=args.lake).lake, args.session))
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print("\n".join(words(found)))
    if found.differs_at is not None:
        print(
            f"the challenger's record differs from what its model says now, first in second {found.differs_at}: "
            "check out the session's commit",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    entry.run(main)
