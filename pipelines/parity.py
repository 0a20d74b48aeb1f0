"""Did live compute what research computes? Every second of a session's journal again, by the code of research.

Run it: python -m pipelines.parity [--session NAME|FOLDER|last] [--hour 2026-11-22T08:00]

    journal -> columns -> features -> scores        whole blocks at once, as tables, training and backtest do
            -> decisions                            second by second through the engine (`shared.replay`)

The journal holds what live was shown (seconds) and a digest of what it made of each at every stage, so that every
second can be compared to the last bit without storing a value. Asked for are 0 mismatches and 0 missing:

    inputs     the running hash over header, events and seconds: was the journal altered after it was written?
    columns    the block itself                          features, scores     what follows from it
    decisions  the actions, byte for byte

Where a stage differs, the second is computed once more as live does it, row by row. If that gives live's digest, both
values are at hand, and the first symbol and feature that differ are named; if not, this code is not the code that
traded, and the journal's list of formulas says which of them have changed.

What the *recorder* saw of the same seconds came over other sockets at other times. Its differences are counted column
by column and told, never asserted (`Beside`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipelines.beside import Beside, Recorder, beside_rows
from pipelines.journaled import Block, Recomputing, as_live
from pipelines.moments import second_of, when
from pipelines.sessions import sessions_of
from pipelines.tables import Table, table_of
from pipelines.told import NOT_CHECKED, Parity, ParityVerdict
from pipelines.verdicts import Verdict
from shared import entry, journal
from shared import settings as settings_module
from shared.errors import CrosscutError, JournalError, ModelError, NotEnoughData
from shared.features.catalog import FEATURES
from shared.features.graph import Features, formulas_of
from shared.lake.layout import HOUR_S, hour_name
from shared.replay import Difference, Replayed, replay
from shared.strategy.engine import digest_of, digest_of_scores
from shared.strategy.scores import Scores
from shared.types import NS

STAGES = ("inputs", "columns", "features", "scores", "decisions")

REPLAY_WITHIN_S = 6 * HOUR_S
"""Decisions depend on everything since the session began, so an hourly check replays all of it: of a session that is
older than this its last hour does. The other stages remember `lookback` seconds, and are compared in every hour."""


class Stage(msgspec.Struct, frozen=True):
    """What was found at one stage, in seconds."""

    name: str
    compared: int
    mismatched: int
    missing: int  # not in the journal, or not to be computed again

    @property
    def is_identical(self) -> bool:
        return not self.mismatched and not self.missing


class First(msgspec.Struct, frozen=True, kw_only=True):
    """The first difference: of the earliest second the earliest stage."""

    stage: str
    second: int | None  # None: before the first
    symbol: str | None = None  # None: it cannot be known, or does not apply
    name: str | None = None  # the feature or score; of changed code all whose formulas differ; None: as above
    live: str
    research: str

    def sentence(self) -> str:
        where = "".join(f", {word}" for word in (self.symbol, self.name) if word)
        at = "before the first second" if self.second is None else f"second {self.second} ({when(self.second)})"
        return f"differs first at stage {self.stage!r}, {at}{where}: live {self.live}, research {self.research}"


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A session, or an hour of one, compared."""

    session: str
    source: str
    start_s: int  # of the seconds that were compared; 0: none
    end_s: int
    seconds: int
    symbols: int
    stages: tuple[Stage, ...]  # those that apply, in the order of `STAGES`
    decisions: int = 0  # of the engine that were made again, byte for byte
    first: First | None  # None: no difference
    troubles: tuple[str, ...] = ()  # why something could not be compared, a sentence each
    is_closed: bool = False
    torn_bytes: int = 0
    beside: tuple[Beside, ...] | None = None  # None: the lake has no seconds of it

    @property
    def rows(self) -> int:
        """Return the symbol-seconds that were compared."""
        return self.seconds * self.symbols

    @property
    def mismatches(self) -> int:
        """Return the seconds of a stage that differ, or cannot be compared; troubles count where nothing else does."""
        return sum(stage.mismatched + stage.missing for stage in self.stages) or len(self.troubles)

    @property
    def is_identical(self) -> bool:
        return not self.troubles and all(stage.is_identical for stage in self.stages)

    def sentence(self) -> str:
        """Return what was found, in words."""
        what = f"session {self.session}: {self.seconds:,} seconds x {self.symbols} symbols, {self.rows:,} rows"
        if self.is_identical and not self.seconds:
            return f"session {self.session}: no second to compare"
        if self.is_identical:
            names = [stage.name for stage in self.stages if stage.compared]
            again = f"; {self.decisions:,} decisions are identical, byte for byte" if self.decisions else ""
            return f"{what}, 0 mismatches in {', '.join(names)}{again}"
        counts = [
            f"{stage.name} {stage.mismatched:,} mismatched, {stage.missing:,} missing"
            for stage in self.stages
            if not stage.is_identical
        ]
        return "; ".join([what, *counts, *([self.first.sentence()] if self.first else []), *self.troubles])


# ---------------------------------------------------------------------------------------------- the comparison


class _Found:
    """Counts, and the first difference of all."""

    def __init__(self) -> None:
        self.compared = dict.fromkeys(STAGES, 0)
        self.mismatched = dict.fromkeys(STAGES, 0)
        self.missing = dict.fromkeys(STAGES, 0)
        self.first: First | None = None
        self.known: tuple[Features | None, tuple[Scores, ...]] = (None, ())  # research's values of the first difference

    def differs(self, stage: str, second: int | None, live: str, research: str) -> bool:
        """Count a mismatch; True where it is the first of all so far."""
        self.mismatched[stage] += 1
        return self._note(First(stage=stage, second=second, live=live, research=research))

    def lacks(self, stage: str, second: int | None, live: str, research: str = "expects them", *, n: int = 1) -> None:
        """Count something that is not there."""
        self.missing[stage] += n
        self._note(First(stage=stage, second=second, live=live, research=research))

    def _note(self, found: First) -> bool:
        if self.first is not None and _order(self.first) <= _order(found):
            return False
        self.first, self.known = found, (None, ())
        return True

    def stages(self) -> tuple[Stage, ...]:
        return tuple(
            Stage(name, self.compared[name], self.mismatched[name], self.missing[name])
            for name in STAGES
            if self.compared[name] or self.mismatched[name] or self.missing[name]
        )


def _order(found: First) -> tuple[int, int]:
    return -1 if found.second is None else found.second, STAGES.index(found.stage)


def check(
    folder: Path,
    *,
    lake: Path | None = None,
    start_s: int | None = None,
    end_s: int | None = None,
    with_decisions: bool | None = None,
    replayed: Replayed | None = None,
) -> Checked:
    """Compare a session with what research makes of its seconds.

    Args:
        lake: where the recorder's seconds lie, None: they are not looked at.
        start_s, end_s: of the seconds to compare; None: all.
        with_decisions: None: as `REPLAY_WITHIN_S` says.
        replayed: what a replay of it has found already; None: nobody has replayed it.

    Raises:
        JournalError: the journal cannot be read at all.
    """
    path = folder / journal.FILE_NAME
    size = _size(path)
    work = Recomputing(folder, start_s, end_s)
    found, troubles = _Found(), [work.trouble] if work.trouble else []
    recorder = None if lake is None else Recorder(lake, work.header.source, work.symbols)
    bounds: list[int] = []  # first and last second
    n_seconds = 0
    try:
        for block in work.blocks():
            if not block.journaled:
                continue
            if bounds and (hole := block.first_second - bounds[-1] - 1):
                found.lacks("columns", bounds[-1] + 1, f"left out {hole} seconds", n=hole)
            bounds = [(bounds or [block.first_second])[0], block.journaled[-1].second]
            n_seconds += len(block.journaled)
            _compare(block, work, found)
            if recorder is not None:
                recorder.take(block)
    except journal.JournalDamaged as damage:
        found.lacks("inputs", bounds[-1] + 1 if bounds else None, "wrote what cannot be read any more")
        troubles.append(str(damage))
    is_last = work.is_at_end and bool(bounds or start_s is None)
    torn_bytes = work.reader.torn_bytes if is_last and _size(path) == size else 0  # else it is being written
    if torn_bytes:
        found.lacks("inputs", bounds[-1] + 1 if bounds else None, f"ends in {torn_bytes} bytes of an unfinished write")
    if with_decisions is None:
        began_s = work.header.started_ns // NS
        with_decisions = is_last or end_s is None or end_s - began_s <= REPLAY_WITHIN_S
    n_decisions = 0
    if with_decisions and bounds:
        try:
            replayed = replay(folder) if replayed is None else replayed
        except (JournalError, ModelError) as error:
            found.missing["decisions"] += n_seconds
            troubles.append(str(error))
        else:
            n_decisions = replayed.decisions
            _compare_decisions(replayed.difference, bounds[0], bounds[-1] + 1, n_seconds, found)
    return Checked(
        session=work.header.session,
        source=work.header.source,
        start_s=bounds[0] if bounds else 0,
        end_s=bounds[-1] + 1 if bounds else 0,
        seconds=n_seconds,
        symbols=len(work.symbols),
        stages=found.stages(),
        decisions=n_decisions,
        first=_named(found, work),
        troubles=tuple(dict.fromkeys(troubles)),
        is_closed=work.reader.is_closed,
        torn_bytes=torn_bytes,
        beside=None if recorder is None else recorder.found(),
    )


def _compare(block: Block, work: Recomputing, found: _Found) -> None:
    for t, one in enumerate(block.journaled):
        if one.stages is None:
            found.lacks("columns", one.second, "wrote no decision after it")
            continue
        found.compared["inputs"] += 1
        if not one.is_as_written:
            found.differs("inputs", one.second, "wrote another journal", "reads what was altered since")
        # Which variant scores a second the bandit decides, and decisions are compared after it: here any of them may.
        computed = {
            "columns": [digest_of(one.columns)],
            "features": [digest_of(block.features[t : t + 1])] if block.features is not None else [],
            "scores": [digest_of_scores(scores.row(t)) for scores in block.scores],
        }
        for stage, research in computed.items():
            live = one.stages.get(stage)
            is_due = stage != "scores" or one.second % work.header.config.decision_seconds == 0
            if live is None and (not research or not is_due):
                continue  # live scores only the seconds in which it decides
            if live is None or not research:
                found.lacks(stage, one.second, f"{'did not compute' if live is None else 'computed'} {stage}")
                continue
            found.compared[stage] += 1
            if live not in research and found.differs(stage, one.second, f"{live[:12]}…", f"{research[0][:12]}…"):
                found.known = (
                    None if block.features is None else block.features[t].copy(),
                    tuple(scores.row(t) for scores in block.scores),
                )


def _compare_decisions(difference: Difference | None, start_s: int, end_s: int, n_seconds: int, found: _Found) -> None:
    """Count what a replay has found."""
    at = None if difference is None else (difference.second if difference.second is not None else start_s - 1)
    if difference is None or at is None or at >= end_s:
        found.compared["decisions"] += n_seconds
        return
    found.compared["decisions"] += max(0, at - start_s)
    if difference.stage == "actions" and at >= start_s:
        found.compared["decisions"] += 1
        found.differs("decisions", difference.second, difference.expected, difference.found)
        at += 1
    left = end_s - max(at, start_s)
    if left > 0:  # what follows a difference follows from it
        what = difference.stage if difference.stage == "actions" else f"other {difference.stage}"
        found.lacks(
            "decisions", max(at, start_s), f"has {what} ({difference.expected})", f"has {difference.found}", n=left
        )


def _named(found: _Found, work: Recomputing) -> First | None:
    """Return the first difference with the symbol and the feature, where they can be known."""
    first = found.first
    if first is None or first.stage not in ("features", "scores") or first.second is None:
        return first
    features, scores = found.known
    if features is None and not scores:
        return first  # something was missing, nothing was computed otherwise
    live_features, live_scores = as_live(work, first.second)
    # With several variants, the one that live scored with is the one whose digest it noted.
    said = [digest_of_scores(one) for one in live_scores] if first.stage == "scores" else []
    if first.stage == "features" and live_features is not None:
        said = [digest_of(live_features[None])]
    which = next((k for k, digest in enumerate(said) if first.live.startswith(digest[:12])), None)
    if which is None:
        changed = [
            name
            for name in {**work.header.formulas, **formulas_of(FEATURES)}
            if work.header.formulas.get(name) != formulas_of(FEATURES).get(name)
        ]
        if work.header.formulas and changed:
            return msgspec.structs.replace(
                first, name=", ".join(changed[:5]) + (" …" if len(changed) > 5 else ""),
                live=f"had other formulas (commit {work.header.commit[:12] or 'unknown'})", research="has these",
            )  # fmt: skip
        return msgspec.structs.replace(
            first,
            live=f"{first.live} (numpy {work.header.numpy})",
            research=f"{first.research} (numpy {np.__version__})",
        )
    if first.stage == "features":
        assert features is not None, "features were compared and are not there"
        assert live_features is not None, "features were compared and are not there"
        n, f = _cell(live_features, features)
        name, live, research = tuple(FEATURES)[f], live_features[n, f], features[n, f]
    else:
        name, n, live, research = _score_cell(live_scores[which], scores[which])
    return msgspec.structs.replace(
        first, symbol=work.symbols[n], name=name, live=f"{float(live)!r}", research=f"{float(research)!r}"
    )


def _cell(one: NDArray[Any], other: NDArray[Any]) -> tuple[int, ...]:
    """Return where the bits of two arrays differ first, () where they do not; NaN is NaN, -0 is not 0."""
    is_same = one == other
    if one.dtype.kind == "f":
        is_same = (is_same & (np.signbit(one) == np.signbit(other))) | (np.isnan(one) & np.isnan(other))
    at = np.argwhere(~is_same)
    return tuple(int(k) for k in at[0]) if len(at) else ()


def _score_cell(live: Scores, research: Scores) -> tuple[str, int, Any, Any]:
    for name in live.__struct_fields__:
        one, other = getattr(live, name), getattr(research, name)
        if at := _cell(one, other):
            return name, at[0], one[at], other[at]
    raise AssertionError("scores of two digests are the same")


# ------------------------------------------------------------------------------------------------- by the hour


def live_parity(lake: Path, source: str, hour: int) -> Verdict:
    """What live sessions computed in this hour is what research computes from the same seconds: 0 mismatches."""
    start_s, end_s = hour * HOUR_S, (hour + 1) * HOUR_S
    checked: list[Checked] = []
    unreadable: list[str] = []
    for folder in _may_hold(lake, source, start_s, end_s):
        try:
            found = check(folder, lake=lake, start_s=start_s, end_s=end_s)
        except CrosscutError as error:
            unreadable.append(str(error))
            continue
        if found.seconds or not found.is_identical:
            checked.append(found)
    if not checked and not unreadable:
        return Verdict(True, {"sessions": 0, "reason": f"no session of {source} traded in {hour_name(hour)}"})
    told: dict[str, Any] = {
        "sessions": len(checked) + len(unreadable),
        "rows": sum(one.rows for one in checked),
        "mismatched": sum(stage.mismatched for one in checked for stage in one.stages),
        "missing": sum(stage.missing for one in checked for stage in one.stages),
        "stages": table_of({"session": one.session, **row} for one in checked for row in stage_rows(one)),
    }
    known = [one for one in checked if one.beside is not None]
    if known:
        told["beside_the_recorder"] = table_of(
            {"session": one.session, **r} for one in known for r in beside_rows(one.beside or ())
        )
    wrong = [one.sentence() for one in checked if not one.is_identical] + unreadable
    if not wrong:
        return Verdict(True, told)
    advice = (
        "run python -m pipelines.parity --session NAME on the machine that traded: where it says identical, this "
        "machine computes otherwise (commit, packages); else trust no backtest of this model until it is explained"
    )
    return Verdict(False, told | {"wrong": "; ".join(wrong), "what_to_do": advice})


def _may_hold(lake: Path, source: str, start_s: int, end_s: int) -> list[Path]:
    """Return the sessions that may have seconds in a window: written after it began, begun before it ended."""
    found = []
    for folder in sessions_of(lake, source):
        path = folder / journal.FILE_NAME
        if path.stat().st_mtime < start_s:
            continue
        try:
            header: journal.Header = next(iter(journal.JournalReader(path))).value
        except JournalError:
            if path.stat().st_mtime < end_s:  # nothing tells its hours but when it was last written
                found.append(folder)
            continue
        if header.started_ns < end_s * NS:
            found.append(folder)
    return found


def stage_rows(checked: Checked) -> list[dict[str, Any]]:
    """Return the stages for a table."""
    return [msgspec.structs.asdict(stage) for stage in checked.stages]


def parity_of(checked: Checked, *, command: str, what: str = "") -> Parity:
    """Return what a report says of a comparison.

    Args:
        command: makes it again.
        what: was compared, where that is not all of it; ends in a space.
    """
    if not checked.seconds and checked.is_identical:
        return NOT_CHECKED
    verdict = ParityVerdict.IDENTICAL if checked.is_identical else ParityVerdict.DIFFERS
    return Parity(
        verdict=verdict,
        sentence=f"{what}{checked.sentence()}.",
        decisions=checked.decisions,
        mismatches=checked.mismatches,
        command=command,
    )


# --------------------------------------------------------------------------------------------------- by hand


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def report(checked: Checked) -> str:
    """Return what a person reads."""
    parts = [table_of(stage_rows(checked)).markdown]
    if checked.beside is not None:
        rows: Table = table_of(beside_rows(checked.beside))
        if any(one.missing < one.cells for one in checked.beside):
            parts += [f"beside the seconds that the recorder of {checked.source} stored:", rows.markdown]
        else:
            parts += [f"nobody recorded {checked.source} in these seconds, so there is nothing to see live beside"]
    ending = "" if checked.is_closed else " (no end mark was read: the session runs, was killed, or goes on after this)"
    return "\n\n".join([*parts, checked.sentence() + ending])


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m pipelines.parity",
        description="Compute a session's seconds, features, scores and decisions again from its journal, by the code "
        "of research, and say what differs; count beside it how the recorder's seconds differ. Ends with 1 where "
        "research does not give what live gave.",
    )
    p.add_argument("--session", default="last", help="folder, name or last (default: last)")
    p.add_argument("--hour", help="only this hour of it, like 2026-11-22T08:00, UTC")
    p.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        lake = settings_module.load(lake_uri=args.lake).lake
        at = second_of(args.hour)
        start_s = None if at is None else at // HOUR_S * HOUR_S
        checked = check(
            journal.find(lake, args.session),
            lake=lake,
            start_s=start_s,
            end_s=None if start_s is None else start_s + HOUR_S,
        )
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if not checked.seconds and checked.is_identical:
        print(f"{checked.sentence()}: choose another hour, or none for all of it", file=sys.stderr)
        return NotEnoughData.exit_code
    print(report(checked))
    return 0 if checked.is_identical else 1


if __name__ == "__main__":
    entry.run(main)
