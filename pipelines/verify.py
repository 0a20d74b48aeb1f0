"""`python -m pipelines.verify REPORT`: compute a report again and say equal, or the first difference.

A report holds what it was computed from (`pipelines.provenance`). What is named by content must be that content: hours
of the lake, contracts, the booster, a session's journal. Where one of them is another or gone, nothing is computed, and
a sentence says which. Code is different: a commit is a claim that results may differ, the computation is the proof. So
with another commit it goes on, says so, and lets the result decide. Nothing is written, no trial is counted.

Exit codes: 0 equal, 1 different, 3 the lake has changed, 4 the model is gone or another, 7 the journal is.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path

import msgspec

from pipelines import provenance
from pipelines.backtest import candidate
from pipelines.exact.session import run_exact
from pipelines.provenance import Provenance, ResultDigest, read_report
from pipelines.session_report import page_of
from pipelines.simulation import run_backtest
from pipelines.tracking import Tracking, code_commit, lock_hash
from shared import entry, journal
from shared import settings as settings_module
from shared.errors import CrosscutError, JournalError, LakeError, ModelMismatch
from shared.features.catalog import FEATURES
from shared.features.graph import lookback_of


class LakeChanged(LakeError):
    """The lake does not hold what a report was computed from."""


class Verified(msgspec.Struct, frozen=True):
    """What a verification found."""

    difference: str | None  # None: equal
    notes: tuple[str, ...]  # what is not as it was, and did not matter or may explain a difference

    def sentence(self) -> str:
        return "\n".join([self.difference or "equal: every trade, every second of equity, every figure", *self.notes])


def verify(lake: Path, told: Provenance, tracking: Tracking) -> Verified:
    """Compute a report again.

    Raises:
        LakeChanged: hours or contracts are others, or gone.
        ModelMissing, ModelMismatch: the model is.
        JournalError: the session is.
    """
    notes = notes_of(told)
    if told.kind == "session":
        return Verified(_session_difference(lake, told), notes)
    check_lake(lake, told)
    judged = candidate(told.model, tracking, seed=told.seed)
    if judged.digest != told.model_digest:
        raise ModelMismatch(
            f"model {told.model} must have the booster {str(told.model_digest)[:12]}…, found "
            f"{str(judged.digest)[:12]}… in {tracking.uri}: give MLFLOW_TRACKING_URI of the report's database"
        )
    run = run_backtest if told.assumptions is None else partial(run_exact, assumptions=told.assumptions)
    again = run(
        lake,
        told.source,
        scorer=judged.scorer,
        config=told.config,
        start_s=told.start_s,
        end_s=told.end_s,
        seed=told.seed,
        holdout_from_s=told.holdout_from_s,
        equity_usdt=Decimal(told.equity_usdt),
    )
    found = tuple(provenance.result_of(outcome) for outcome in (again.main, *again.nulls))
    difference = difference_of(told.results, found)
    if difference is None and provenance.defined(again.ic.mean) != told.rank_ic:
        difference = _said("rank IC", told.rank_ic, provenance.defined(again.ic.mean))
    return Verified(difference, notes)


def notes_of(told: Provenance) -> tuple[str, ...]:
    """Return what may explain a difference: code and packages are judged by what they compute."""
    notes = []
    commit, packages = code_commit(), lock_hash()
    if told.commit != commit:
        notes.append(f"the report was made by code {told.commit}, this is {commit}")
    elif told.commit.endswith("-dirty") or told.commit == "unknown":
        notes.append(f"the report was made by code {told.commit}: uncommitted changes are not named by it")
    if told.packages != packages:
        notes.append("the report was made with other packages (requirements.lock)")
    return tuple(notes)


def check_lake(lake: Path, told: Provenance) -> None:
    """Refuse a lake that holds other hours than the report was computed from.

    Raises:
        LakeChanged: with the first hour.
    """
    begin = told.start_s - lookback_of(FEATURES)
    for table, start_s, was in (("seconds", begin, told.seconds), ("labels", told.start_s, told.labels)):
        now = provenance.hashes_of(lake, table, told.source, start_s, told.end_s)
        changed = first_changed(was, now)
        if changed is not None:
            raise LakeChanged(
                f"{table} of {told.source} must be what the report was computed from, found {changed} in {lake}: "
                "restore the hour, or make the report again"
            )
    ticks = {} if told.tier == "screen" else provenance.ticks_of(lake, told.source, told.start_s, told.end_s)
    changed = first_changed(told.ticks, ticks)
    if changed is not None:
        raise LakeChanged(
            f"raw rows of {told.source} must be what the report was computed from, found {changed} in {lake}: "
            "restore the hour, or make the report again"
        )
    universe = provenance.universe_digest(lake, told.source, told.start_s, told.end_s)
    if universe != told.universe:
        raise LakeChanged(
            f"the contracts of {told.source} must be {told.universe[:12]}…, found {universe[:12]}… in {lake}: "
            "restore the table universe, or make the report again"
        )


def first_changed(was: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """Return the first hour that differs, in words; None where all are the same."""
    for hour in sorted({*was, *now}):
        if hour not in now:
            return f"{hour} gone"
        if hour not in was:
            return f"{hour}, which was not there"
        if was[hour] != now[hour]:
            return f"{hour} with {now[hour][:12]}… instead of {was[hour][:12]}…"
    return None


def difference_of(was: Sequence[ResultDigest], now: Sequence[ResultDigest]) -> str | None:
    """Return the first difference between results, in words; None where all are the same."""
    if [one.name for one in was] != [one.name for one in now]:
        return _said("outcomes", ", ".join(one.name for one in was), ", ".join(one.name for one in now))
    for before, after in zip(was, now, strict=True):
        for name in dict.fromkeys([*before.metrics, *after.metrics]):
            one, other = before.metrics.get(name), after.metrics.get(name)
            if one != other:
                return _said(f"{name} of {before.name}", one, other)
        for stage, one_digest, other_digest in (
            ("the trades", before.trades, after.trades),
            ("equity by the second", before.equity, after.equity),
        ):
            if one_digest != other_digest:
                return _said(f"{stage} of {before.name} (SHA-256)", f"{one_digest[:12]}…", f"{other_digest[:12]}…")
    return None


def _said(what: str, one: object, other: object) -> str:
    shown = ["undefined" if value is None else str(value) for value in (one, other)]
    return f"different: {what} is {shown[0]} in the report, {shown[1]} computed again"


def _session_difference(lake: Path, told: Provenance) -> str | None:
    folder = journal.find(lake, told.session)
    digest = hashlib.sha256((folder / journal.FILE_NAME).read_bytes()).hexdigest()
    if digest != told.journal:
        raise JournalError(
            f"the journal of {told.session} must be {told.journal[:12]}…, found {digest[:12]}… in {folder}: restore it"
        )
    page, replayed = page_of(folder)
    difference = difference_of(told.results, (provenance.result_of(page.main),))
    if difference is not None and replayed.difference is not None:
        difference += f"; the replay {replayed.difference.sentence()}"
    return difference


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.verify",
        description="Compute a report again from the lake, the model and the seed that it names; say equal, or the "
        "first difference.",
    )
    parser.add_argument("report", type=Path, help="the page, the report.json beside it, or their folder")
    parser.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    args = parser.parse_args(arguments)
    try:
        settings = settings_module.load(lake_uri=args.lake)
        tracking = Tracking(settings.tracking_uri)
        with tracking.told():
            found = verify(settings.lake, read_report(args.report), tracking)
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(found.sentence(), file=sys.stderr if found.difference else sys.stdout)
    return 1 if found.difference else 0


if __name__ == "__main__":
    entry.run(main)
