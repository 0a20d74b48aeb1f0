"""`python -m pipelines.retention`: remove from the lake what is older than a rule allows; without rules, nothing.

    RETENTION=raw=30d,seconds=18mo,features=7d

A rule is `table=age`: a number of h, d, w, mo (31 days: never less than the calendar's) or y (366 days), or `forever`.
`raw` means every raw table that is not named itself. What no rule names is kept: universe, journals, backtests,
funding, candles, and whatever will be added. The order of rules means nothing.

Whole hours are removed, oldest first, under the hour's lock, all tables of an hour at once (`shared.lake.removal`).
Age counts back from the newest recorded hour of the source, or from now where that is earlier: a clock that has gone
wrong removes nothing that a right one would keep, and a source that is no longer recorded keeps its last days. Rules
hold for each source by itself, for imported ones as well; `--source` names one. Logs lie on the machine that records:
thin out a lake in an object store from there.

An hour is held back, however old,

* while it has unsealed logs;
* raw: until its seconds, and those of the hour after it, are stored, whole, and made of the very rows that are there;
* seconds, coverage: where a raw table of the hour is missing; features, labels: where its seconds are missing.
  They could not be built again. Where the missing table has a rule of its own that has run out, the rules say so, and
  the hour goes: `raw=30d,seconds=18mo` removes seconds after 18 months, `seconds=18mo` alone only where raw is there;
* universe, universe_tiers: a snapshot that is in force for an hour of raw, seconds, features or labels that stays.

`!` after an age (`raw=30d!`) removes for good, whether or not anything could bring it back or still tells of it; logs
and snapshots in force stay all the same. What was removed is not rebuilt from less: `prepare` and the footers take
seconds whose raw rows are gone as current; building them anew says that their raw rows are missing.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from pipelines.seconds import is_current
from shared import entry
from shared import settings as settings_module
from shared.errors import CrosscutError, SchemaMismatch, SettingsError, TableCorrupt
from shared.lake import layout, read, removal, write
from shared.lake.layout import HOUR_S, RAW, TABLES, hour_name

NEWEST_HOURS = 3
"""Hours that no rule removes: the open one, the one that is being sealed, and what is being built of the one before."""

REBUILT_FROM: dict[str, tuple[str, ...]] = {
    "seconds": ("raw/book", "raw/trade", "raw/ticker"),
    "coverage": ("raw/book", "raw/trade", "raw/ticker"),
    "features": ("seconds",),
    "labels": ("seconds",),
}
"""Derived table -> what an hour of it is built from; everything else is there once."""

_RAW = tuple(table for table in TABLES if table.startswith("raw/"))  # with those that only some sources have
_DATED = (*_RAW, "seconds", "features", "labels")  # their hours need the universe that was in force
_SNAPSHOTS = tuple(table for table in TABLES if table.startswith("universe"))  # with its leverage tiers

_UNIT_H = {"h": 1, "d": 24, "w": 7 * 24, "mo": 31 * 24, "y": 366 * 24}
_AGE = re.compile(r"([1-9][0-9]{0,5})(h|d|w|mo|y)(!?)")
_DAY_H = 24


class Rule(msgspec.Struct, frozen=True):
    """How long one table is kept."""

    age_h: int
    is_final: bool = False  # remove even what nothing can bring back

    def __str__(self) -> str:
        days, hours = divmod(self.age_h, _DAY_H)
        return (f"{days} d" if not hours else f"{self.age_h} h") + ("!" if self.is_final else "")


Rules = Mapping[str, Rule]  # table -> rule; a table that is not there is kept


def parse(text: str) -> dict[str, Rule]:
    """Return the rules of a RETENTION, for every table that has one.

    Raises:
        SettingsError: it is not table=age, comma separated; the message says which part and what would be right.
    """
    given: dict[str, Rule | None] = {}
    for part in (part.strip() for part in text.split(",")) if text.strip() else ():
        name, equals, age = (word.strip() for word in part.partition("="))
        if not equals or not name:
            raise _wrong(part, "must be table=age, like raw=30d")
        if name != "raw" and name not in TABLES:
            raise _wrong(part, f"must name one of raw, {', '.join(TABLES)}")
        if name in given:
            raise _wrong(part, f"must name {name} once")
        if age == "forever":
            given[name] = None
            continue
        found = _AGE.fullmatch(age)
        if found is None:
            raise _wrong(part, "must have an age like 36h, 30d, 4w, 18mo, 2y (with ! to remove for good) or forever")
        age_h = int(found[1]) * _UNIT_H[found[2]]
        if age_h < NEWEST_HOURS:
            raise _wrong(part, f"must keep at least {NEWEST_HOURS}h, what is still being built")
        given[name] = Rule(age_h, found[3] == "!")
    whole = given.pop("raw", None)
    rules = dict.fromkeys(_RAW, whole) | given
    return {table: rules[table] for table in TABLES if rules.get(table) is not None}  # type: ignore[misc]


def _wrong(part: str, what: str) -> SettingsError:
    return SettingsError(f"RETENTION {what}, found {part!r}: correct it, or unset it to keep everything")


# ------------------------------------------------------------------------------------------------ what is there


class Standing(msgspec.Struct):
    """What one source holds, from which hour ages count back, and which hours are not sealed."""

    source: str
    reference: int  # epoch hour; an hour is as old as it ended before this one began
    sizes: dict[str, dict[int, int]]  # table -> epoch hour -> bytes, hours ascending
    logged: frozenset[int]

    def is_due(self, rules: Rules, table: str, hour: int) -> bool:
        """Tell whether a rule has run out for an hour."""
        rule = rules.get(table)
        return rule is not None and hour < self.reference - max(rule.age_h, NEWEST_HOURS)

    def day_bytes(self, table: str) -> float:
        """Return what a day of a table takes, by the last one; of a source that is younger, by what there is."""
        first = min((min(hours) for hours in self.sizes.values() if hours), default=self.reference)
        span = min(_DAY_H, max(1, self.reference - first))
        last = sum(size for hour, size in self.sizes[table].items() if self.reference - span <= hour < self.reference)
        return last * _DAY_H / span


def standing(lake: Path, source: str, now_s: float) -> Standing:
    """Return what a source holds; hours whose removal was begun are gone."""
    gone = removal.marked(lake, source)
    sizes = {
        table: {
            hour: sum(paths.values())
            for hour, paths in removal.files(lake, table, source).items()
            if (table, hour) not in gone
        }
        for table in TABLES
    }
    logged = frozenset(
        hour for hour in layout.hours_below(lake / ".wal" / f"source={source}") if _has_logs(lake, source, hour)
    )
    recorded = {hour for table in _RAW for hour in sizes[table]} | logged
    newest = max(recorded or {hour for hours in sizes.values() for hour in hours}, default=0)
    return Standing(source, min(int(now_s) // HOUR_S, newest + 1), sizes, logged)


def _has_logs(lake: Path, source: str, hour: int) -> bool:
    return bool(layout.paths_below(layout.log_folder(lake, source, hour), "session=*"))


# ------------------------------------------------------------------------------------------- what may be removed


def why_held(lake: Path, rules: Rules, there: Standing, table: str, hour: int) -> str | None:
    """Return why an hour that is due stays, None where it may go."""
    source, rule = there.source, rules[table]
    if hour in there.logged or _has_logs(lake, source, hour):
        return "it has unsealed logs"
    if table in _SNAPSHOTS:
        needed = [other for name in _DATED for other in there.sizes[name]]
        # In force for the oldest hour is the last snapshot before it, which lies in an earlier hour at the latest.
        last = max((known for known in there.sizes[table] if needed and known < min(needed)), default=None)
        return "hours are left that it is in force for" if needed and (last is None or hour >= last) else None
    if rule.is_final:
        return None
    if table in _RAW and not there.is_due(rules, "seconds", hour):
        is_followed = hour + 1 in there.logged or any(hour + 1 in there.sizes[name] for name in RAW)
        for made in (hour, hour + 1) if is_followed else (hour,):
            whose = "its seconds" if made == hour else "the seconds of the next hour"
            try:
                if not _is_sampled(lake, there, made):
                    return f"{whose} are not made of what is there"
            except (TableCorrupt, SchemaMismatch) as error:
                return f"{whose} cannot be trusted: {error}"
    for name in REBUILT_FROM.get(table, ()):
        if hour not in there.sizes[name] and not there.is_due(rules, name, hour):
            return f"it could not be built again: {name} is missing"
    return None


def _is_sampled(lake: Path, there: Standing, hour: int) -> bool:
    """Tell whether the seconds of an hour are stored and made from the raw rows that are there."""
    if hour not in there.sizes["seconds"]:
        return False
    inputs = {
        f"{table} {known}": read.content_hash(lake, table, there.source, [known])
        for table in RAW
        for known in (hour - 1, hour)
        if known in there.sizes[table]
    }
    return is_current(lake, "seconds", there.source, hour, inputs)


# ---------------------------------------------------------------------------------------------------- doing it


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What a run removed from one source (or would), what it held back, and what that comes to."""

    source: str
    reference: int
    removed: dict[str, dict[int, int]]  # table -> epoch hour -> bytes
    held: dict[str, dict[int, str]]  # table -> epoch hour -> why
    left_bytes: dict[str, int]  # table -> what stays
    day_bytes: dict[str, float]  # table -> what a day takes

    @property
    def bytes(self) -> int:
        return sum(size for hours in self.removed.values() for size in hours.values())


def apply(
    lake: Path,
    rules: Rules,
    *,
    now_s: float | None = None,
    sources: Collection[str] | None = None,
    is_dry_run: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Done]:
    """Remove what is due from each source of a lake, oldest hours first; removals that were cut short are finished.

    Args:
        now_s: epoch seconds; None: the wall clock.
        sources: None: every source.
        is_dry_run: only say what would be removed; seconds are then not read to their last byte.

    Raises:
        LakeError: the disk or the store refuses, or somebody holds an hour. What was removed until then is removed
            as a whole; running it again goes on.
    """
    now_s = time.time() if now_s is None else now_s
    return [
        _apply(lake, rules, source, now_s, is_dry_run=is_dry_run, progress=progress)
        for source in (read.sources(lake) if sources is None else sorted(sources))
    ]


def _apply(
    lake: Path, rules: Rules, source: str, now_s: float, *, is_dry_run: bool, progress: Callable[[str], None]
) -> Done:
    for hour in () if is_dry_run else removal.begun(lake, source):
        with write.hour_lock(lake, source, hour):  # which finishes it
            progress(f"finished the removal of {hour_name(hour)} of {source} that was begun earlier")
    if not is_dry_run and (freed := removal.drop_copies(lake, source)):
        progress(f"removed {gb(freed)} of copies of what another machine has removed from the store")
    there = standing(lake, source, now_s)
    day_bytes = {table: there.day_bytes(table) for table in TABLES}
    removed: dict[str, dict[int, int]] = {}
    held: dict[str, dict[int, str]] = {}
    # What snapshots are needed for is known when everything else has gone.
    for tables in ([table for table in TABLES if table not in _SNAPSHOTS], _SNAPSHOTS):
        due = sorted({hour for table in tables for hour in there.sizes[table] if there.is_due(rules, table, hour)})
        for hour in due:
            assert hour < there.reference - NEWEST_HOURS, (hour, there.reference)
            mine = [t for t in tables if hour in there.sizes[t] and there.is_due(rules, t, hour)]
            if is_dry_run:
                reasons = {table: why_held(lake, rules, there, table, hour) for table in mine}
            else:
                with write.hour_lock(lake, source, hour):
                    reasons = {table: _why_held_now(lake, rules, there, table, hour) for table in mine}
                    going = [table for table in mine if reasons[table] is None]
                    freed = removal.remove(lake, source, hour, going) if going else 0
                    progress(f"{hour_name(hour)} of {source}: {', '.join(going) or 'nothing'}, {gb(freed)}")
            for table, reason in reasons.items():
                if reason is None:
                    removed.setdefault(table, {})[hour] = there.sizes[table].pop(hour)
                else:
                    held.setdefault(table, {})[hour] = reason
    return Done(
        source=source,
        reference=there.reference,
        removed=removed,
        held=held,
        left_bytes={table: sum(hours.values()) for table, hours in there.sizes.items()},
        day_bytes=day_bytes,
    )


def _why_held_now(lake: Path, rules: Rules, there: Standing, table: str, hour: int) -> str | None:
    """Return why an hour stays, as `why_held`; what raw rows live on in is read to its last byte before they go."""
    reason = why_held(lake, rules, there, table, hour)
    if reason is None and table in _RAW and hour in there.sizes["seconds"] and not rules[table].is_final:
        try:
            for path in removal.files(lake, "seconds", there.source, hour)[hour]:
                read.verify(path)
        except (TableCorrupt, SchemaMismatch) as error:
            return f"its seconds cannot be trusted: {error}"
    return reason


# ------------------------------------------------------------------------------------------------ command line


def gb(size: float) -> str:
    """Return bytes as a person reads them."""
    factor, unit = next(((f, u) for f, u in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")) if size >= f), (1e3, "kB"))
    amount = size / factor
    return f"{amount:,.0f} {unit}" if amount >= 100 else f"{amount:.2g} {unit}"


def report(done: Done, rules: Rules, *, is_dry_run: bool) -> str:
    """Return what a run did to a source, and what the lake will weigh, in lines for a person."""
    lines = [f"{done.source}, ages back from {hour_name(done.reference)}"]
    for table, hours in done.removed.items():
        span = f"{hour_name(min(hours))} to {hour_name(max(hours))}"
        verb = "would remove" if is_dry_run else "removed"
        lines.append(f"  {table:13} {verb} {len(hours):,} hours, {span}, {gb(sum(hours.values()))}")
    for table, reasons in done.held.items():
        for reason in sorted(set(reasons.values())):
            hours_held = sorted(hour for hour, why in reasons.items() if why == reason)
            lines.append(f"  {table:13} held back {len(hours_held):,} hours from {hour_name(hours_held[0])}: {reason}")
    lines.append(
        f"  {'would free' if is_dry_run else 'freed'} {gb(done.bytes)}, {gb(sum(done.left_bytes.values()))} left"
    )
    weights = {table: done.day_bytes[table] * rule.age_h / _DAY_H for table, rule in rules.items()}
    if any(weights.values()):
        parts = [f"{table} {gb(size)} ({rules[table]})" for table, size in weights.items() if size]
        lines.append(f"  by the last day's size, in steady state: {gb(sum(weights.values()))}: {', '.join(parts)}")
    kept = {table: size for table, size in done.day_bytes.items() if table not in rules and size}
    if kept:
        parts = [f"{table} {gb(size)}" for table, size in kept.items()]
        lines.append(f"  kept for ever, a day: {gb(sum(kept.values()))}: {', '.join(parts)}")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m pipelines.retention",
        description="Remove from the lake what is older than RETENTION allows (raw=30d,seconds=18mo,features=7d), and "
        "say what the lake will weigh. Without rules it keeps everything. An hour with unsealed logs stays, and so "
        "does what could not be built again, unless the rules say so; the head of pipelines/retention.py says exactly.",
    )
    p.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    p.add_argument("--source", help="only this source (default: every source)")
    p.add_argument("--rules", help="rules in place of RETENTION")
    p.add_argument("--dry-run", action="store_true", help="only list what would be removed")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        config = settings_module.load(lake_uri=args.lake)
        text = config.retention if args.rules is None else args.rules
        rules = parse(text)
        known = read.sources(config.lake)
        if args.source is not None and args.source not in known:
            raise SettingsError(f"--source must be one of {', '.join(known) or 'none'}, found {args.source!r}")
        done = apply(
            config.lake,
            rules,
            sources=None if args.source is None else [args.source],
            is_dry_run=args.dry_run,
            progress=lambda line: print(line, file=sys.stderr),
        )
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    told = f"{text}, the rest for ever" if rules else "everything: RETENTION is not set"
    print(f"{config.lake} keeps {told}" + ("" if done else "; there is nothing in it"))
    for one in done:
        print(report(one, rules, is_dry_run=args.dry_run))
    return 0


if __name__ == "__main__":
    entry.run(main)
