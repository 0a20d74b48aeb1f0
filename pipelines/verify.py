"""`python -m pipelines.verify REPORT`: compute a report again and say equal, or the first difference.

A report holds what it was computed from (`pipelines.provenance`). What is named by content must be that content: hours
of the lake, contracts, the booster, a session's journal. Where one of them is another or gone, nothing is computed, and
a sentence says which. Code is different: a commit is a claim that results may differ, the computation is the proof. So
with another commit it goes on, says so, and lets the result decide. Nothing is written, no trial is counted.

Compared is, in this order: every figure, trade and second of equity; what the report says of its model, its session and
its parity; the files beside it; and the page itself, written again from what was computed. By the code that made the
report it is compared line by line, and its pictures with it where the packages are the same; another commit may lay it
out otherwise, and is asked for every figure that it shows. What was tried before, and what was recorded, is shown as it
was then: more may have been tried and judged since, and what the gate said of the model is told.

Exit codes: 0 equal, 1 different, 3 the lake has changed, 4 the model is gone or another, 7 the journal is.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial
from itertools import zip_longest
from pathlib import Path

import msgspec
import polars as pl

from pipelines import parity, provenance, trials
from pipelines.backtest import COMPARED_FOLDER, MODEL, Candidate, candidate, plan_of, said_of
from pipelines.exact.session import run_exact
from pipelines.page import Page, coverage_of, of_backtest
from pipelines.provenance import Provenance, ReportUnreadable, ResultDigest, read_report
from pipelines.report import render, write_outputs
from pipelines.session_report import page_of
from pipelines.simulation import run_backtest
from pipelines.told import NOT_CHECKED
from pipelines.tracking import Tracking, code_commit, lock_hash
from shared import entry, journal
from shared import settings as settings_module
from shared.errors import CrosscutError, JournalError, LakeError, ModelMismatch
from shared.features.catalog import FEATURES
from shared.features.graph import lookback_of
from shared.lake.layout import HOUR_S, hour_name


class LakeChanged(LakeError):
    """The lake does not hold what a report was computed from."""


class Verified(msgspec.Struct, frozen=True):
    """What a verification found."""

    difference: str | None  # None: equal
    notes: tuple[str, ...]  # what is not as it was, and did not matter or may explain a difference

    def sentence(self) -> str:
        return "\n".join([self.difference or "equal: every trade, every second of equity, every figure", *self.notes])


class Where(msgspec.Struct, frozen=True):
    """Where a report lies."""

    page: Path | None  # None: only what it was computed from is there
    folder: Path | None  # with the files that go with it; None: a page alone, as it was mailed


def locate(path: Path) -> Where:
    """Return what belongs to a report that is given as its page, the file beside it, or their folder."""
    folder = path if path.is_dir() else path.parent
    if not (folder / provenance.FILE_NAME).is_file():
        return Where(path if path.suffix == ".html" else None, None)
    page = path if path.suffix == ".html" else folder / "report.html"
    return Where(page if page.is_file() else None, folder)


def verify(lake: Path, told: Provenance, tracking: Tracking, where: Where) -> Verified:
    """Compute a report again.

    Raises:
        LakeChanged: hours or contracts are others, or gone.
        ModelMissing, ModelMismatch: the model is.
        JournalError: the session is.
    """
    commit = code_commit()
    is_same_code, is_same_lock = told.commit == commit, told.packages == lock_hash()
    notes = list(notes_of(told, commit, is_same_lock=is_same_lock))
    if told.kind == "session":
        page, difference = _session(lake, told)
    else:
        page, difference = _backtest(lake, told, tracking, where, notes, is_same=is_same_code and is_same_lock)
    if difference is None and provenance.defined(page.skill.ic.mean) != told.rank_ic:
        difference = _said("rank IC", told.rank_ic, provenance.defined(page.skill.ic.mean))
    if difference is None and where.folder is not None:
        difference = files_difference(told, page, where, notes)
    if difference is None and where.page is not None:
        if not (is_same_code and is_same_lock):
            notes.append("pictures were not compared: other code and packages draw them otherwise")
        again = render(msgspec.structs.replace(page, told=told.told, provenance=told))
        found = where.page.read_text(encoding="utf-8")
        if is_same_code:
            difference = page_difference(found, again, has_pictures=is_same_lock)
        else:  # which may lay it out otherwise, and in other words
            difference = shown_difference(found, again)
    return Verified(difference, tuple(notes))


def _backtest(
    lake: Path, told: Provenance, tracking: Tracking, where: Where, notes: list[str], *, is_same: bool
) -> tuple[Page, str | None]:
    """Return the page of a backtest that is run again, and the first difference of its results.

    Args:
        is_same: code and packages are those of the report.
    """
    check_lake(lake, told)
    judged = candidate(told.model, tracking, seed=told.seed)
    if judged.digest != told.model_digest:
        raise ModelMismatch(
            f"model {told.model} must have the booster {str(told.model_digest)[:12]}…, found "
            f"{str(judged.digest)[:12]}… in {tracking.uri}: give MLFLOW_TRACKING_URI of the report's database"
        )
    run = run_backtest if told.assumptions is None else partial(run_exact, assumptions=told.assumptions)
    with tempfile.TemporaryDirectory(prefix="crosscut-verify-") as room:
        plan = plan_of(Path(room), judged, seconds=told.compared_s, commit=told.commit)
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
            journaled=plan if told.compared_s else None,
        )
        compared = _compared_difference(lake, told, plan.folder, where, is_same=is_same)
    found = tuple(provenance.result_of(outcome) for outcome in (again.main, *again.nulls))
    if coverage_of(lake, told.source, told.start_s, told.end_s) != told.told.coverage:
        notes.append("the coverage of the window was judged otherwise since: the page shows what was known then")
    if (was := told.told.lineage.get(MODEL)) != (now := judged.lineage.get(MODEL)):
        notes.append(f"the model was {was} when the report was made, and is {now} now")  # the gate comes afterwards
    difference = difference_of(told.results, found) or _model_difference(told, judged) or compared
    return of_backtest(again, told.told), difference


def _model_difference(told: Provenance, judged: Candidate) -> str | None:
    """Return the first thing that a report says otherwise of its model than MLflow does."""
    training = {name: provenance.defined(value) for name, value in judged.training.items()}
    for what, was, now in (
        ("of the training", told.told.training, training),
        ("of where it comes from", {k: v for k, v in told.told.lineage.items() if k in judged.lineage}, judged.lineage),
    ):
        for name in dict.fromkeys([*was, *now]):
            if name != MODEL and was.get(name) != now.get(name):
                return _said(f"{name} {what}", was.get(name), now.get(name))
    return None


def _session(lake: Path, told: Provenance) -> tuple[Page, str | None]:
    """Return the page of a session that is replayed, and the first difference of its results."""
    folder = journal.find(lake, told.session)
    digest = provenance.journal_digest(folder)
    if digest != told.journal:
        raise JournalError(
            f"the journal of {told.session} must be {told.journal[:12]}…, found {digest[:12]}… in {folder}: restore it"
        )
    page, replayed = page_of(folder)
    difference = difference_of(told.results, (provenance.result_of(page.main),))
    if difference is not None and replayed.difference is not None:
        difference += f"; the replay {replayed.difference.sentence()}"
    was, now = (msgspec.to_builtins(one) for one in (told.told, page.told))
    return page, difference or next((_said(name, was[name], now[name]) for name in was if was[name] != now[name]), None)


def _compared_difference(lake: Path, told: Provenance, again: Path, where: Where, *, is_same: bool) -> str | None:
    """Compare the first seconds of a backtest once more with what live would do.

    Args:
        again: the journal of the backtest that was run again.
        is_same: code and packages are those of the report: then it is the same to the last bit.
    """
    if not told.compared_s:
        return None if told.told.parity == NOT_CHECKED else _said("parity", told.told.parity.sentence, "not compared")
    digest = provenance.journal_digest(again)
    kept = None if where.folder is None else where.folder / COMPARED_FOLDER
    if kept is not None and (kept / journal.FILE_NAME).is_file():
        beside = provenance.journal_digest(kept)
        if beside != told.journal:
            return _said(f"{COMPARED_FOLDER}/{journal.FILE_NAME} (SHA-256)", f"{told.journal[:12]}…", f"{beside[:12]}…")
    if digest != told.journal and is_same:
        return _said("the journal of its first seconds (SHA-256)", f"{told.journal[:12]}…", f"{digest[:12]}…")
    found = said_of(parity.check(again, lake=lake), told.end_s - told.start_s)
    was = msgspec.structs.replace(told.told.parity, command="")
    if was == found:
        return None
    if was.sentence == found.sentence:
        return _said("the badge", was.badge, found.badge)
    return _said("parity", was.sentence, found.sentence)


def files_difference(told: Provenance, page: Page, where: Where, notes: list[str]) -> str | None:
    """Write the files of a report again and return the first difference; what is not there is noted."""
    assert where.folder is not None, "files lie in a folder"
    with tempfile.TemporaryDirectory(prefix="crosscut-verify-") as temporary:
        again = Path(temporary)
        write_outputs(again, page.main, told.told.run)
        if told.kind == "backtest":
            trials.write_returns(again, trials.returns_of(page.main.equity_usdt, told.start_s))
        provenance.write_beside(again, told)
        for path in sorted(again.iterdir()):
            found = where.folder / path.name
            if not found.is_file():
                notes.append(f"{path.name} is not there")
                continue
            if path.name == provenance.FILE_NAME and _says(found, told):
                continue  # as another commit may write it
            difference = file_difference(found, path)
            if difference is not None:
                return difference
    return None


def _says(path: Path, told: Provenance) -> bool:
    """Return whether a report.json holds the same as the report that is verified."""
    try:
        return read_report(path) == told
    except ReportUnreadable:
        return False


def file_difference(found: Path, again: Path) -> str | None:
    """Return where a file differs from what was written again: a table by its rows, everything else by its lines."""
    if found.suffix != ".parquet":
        try:
            lines = found.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            return _said(found.name, f"no text ({error.reason})", "text")
        for n, (one, other) in enumerate(zip_longest(lines, again.read_text(encoding="utf-8").splitlines()), start=1):
            if one != other:
                return _said(f"{found.name}, line {n},", one, other)
        return None
    computed = pl.read_parquet(again)
    try:
        told = pl.read_parquet(found)
    except (pl.exceptions.PolarsError, OSError) as error:
        return _said(found.name, f"no table ({str(error).splitlines()[0]})", f"{computed.height} rows")
    if told.schema != computed.schema or told.height != computed.height:
        shapes = [f"{one.height} rows x {one.width} columns" for one in (told, computed)]
        return _said(found.name, *shapes)
    for name in computed.columns:
        is_same = told[name].eq_missing(computed[name])
        if not is_same.all():
            n = int(is_same.not_().arg_true()[0])
            return _said(f"{found.name}, {name} of row {n},", told[name][n], computed[name][n])
    return None


def page_difference(found: str, again: str, *, has_pictures: bool) -> str | None:
    """Return the first line in which a page differs from what was written again."""
    pages = [found, again]
    if not has_pictures:
        pages = [_PICTURE.sub("", one) for one in pages]
    for n, (one, other) in enumerate(zip_longest(*(text.splitlines() for text in pages)), start=1):
        if one != other:
            return _said(f"line {n} of the page", _around(one, other), _around(other, one))
    return None


def shown_difference(found: str, again: str) -> str | None:
    """Return the first figure that a page shows otherwise than one that was written again, whatever is around it."""
    pages = [_FIGURE.findall(_HIDDEN.sub(" ", text)) for text in (found, again)]
    for n, (one, other) in enumerate(zip_longest(*pages), start=1):
        if one != other:
            return _said(f"figure {n} of the page", one, other)
    return None


_HIDDEN = re.compile(r"<svg.*?</svg>|<style.*?</style>|<script.*?</script>|<[^>]*>", re.DOTALL)
_FIGURE = re.compile(r"[+−-]?[0-9][0-9,.]*")
_PICTURE = re.compile(r"<svg.*?</svg>", re.DOTALL)
_SHOWN = 60  # letters of a difference


def _around(one: str | None, other: str | None) -> str | None:
    """Return what stands around the first letter in which two lines differ."""
    if one is None:
        return None
    at = next((k for k, (a, b) in enumerate(zip(one, other or "", strict=False)) if a != b), len(other or ""))
    begin = max(0, at - _SHOWN // 3)
    return f"“{'…' if begin else ''}{one[begin : begin + _SHOWN]}”"


def notes_of(told: Provenance, commit: str, *, is_same_lock: bool) -> tuple[str, ...]:
    """Return what may explain a difference: code and packages are judged by what they compute."""
    notes = []
    if told.commit != commit:
        notes.append(f"the report was made by code {told.commit}, this is {commit}")
    elif told.commit.endswith("-dirty") or told.commit == "unknown":
        notes.append(f"the report was made by code {told.commit}: uncommitted changes are not named by it")
    if not is_same_lock:
        notes.append("the report was made with other packages (requirements.lock)")
    return tuple(notes)


def check_lake(lake: Path, told: Provenance) -> None:
    """Refuse a lake that holds other hours than the report was computed from.

    Raises:
        LakeChanged: with the first hour.
    """
    first, last = (hour_name(second // HOUR_S) for second in (told.start_s, told.end_s - 1))
    if not told.seconds or first < min(told.seconds) or last > max(told.seconds):
        raise ReportUnreadable(
            f"a report must be of hours whose seconds it names, found {first} to {last}: it was altered; restore it"
        )
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
            found = verify(settings.lake, read_report(args.report), tracking, locate(args.report))
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(found.sentence(), file=sys.stderr if found.difference else sys.stdout)
    return 1 if found.difference else 0


if __name__ == "__main__":
    entry.run(main)
