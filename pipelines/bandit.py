"""`python -m pipelines.bandit`: may the bandit act? Off-policy estimates from the journals of shadow sessions.

    python -m pipelines.bandit [SESSION …] [--model MODEL] [--grant]

Reads the sessions (default: every one of the source and model of the last), estimates what the other plan would have
earned (pipelines.offpolicy), prints the table, and says yes or no with the reasons. Exit code 0: yes, 1: no. With
--grant a yes becomes a permit, without which BANDIT_MODE=act does not start. Sessions that acted are asked the other
question: whether leaving the bandit out would earn more.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pipelines.logged import Log, actions_of, read_log
from pipelines.offpolicy import Comparison, Decided, Estimate, checks_of, compare
from pipelines.sessions import sessions_of
from shared import entry, journal
from shared import settings as settings_module
from shared.errors import CrosscutError, JournalError, NotEnoughData, SchemaMismatch
from shared.permits import key_of, permit_path, save_permit
from shared.strategy.bandit.state import Mode, Permit


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the journals of one model on one source say about one policy."""

    source: str
    model: str  # `shared.permits.key_of`
    mode: Mode
    policy: str
    decided: tuple[Decided, ...]
    unknown: int
    sure: int
    others: int  # decisions under other policies or in the other mode: not counted
    sessions: tuple[str, ...]


def gather(folders: Sequence[Path]) -> Evidence:
    """Return the decisions of the policy that the last session ran under, of all sessions given that ran it.

    Raises:
        NotEnoughData: no session has a decision of the bandit's.
        JournalError: a journal cannot be read.
    """
    headers = [next(iter(journal.JournalReader(folder / journal.FILE_NAME))).value for folder in folders]
    logs: list[tuple[journal.Header, Log]] = []
    for header, folder in zip(headers, folders, strict=True):
        logs += [(header, log) for log in read_log(actions_of(folder))]
    if not logs:
        raise NotEnoughData(
            f"a session must have chosen something, found {len(folders)} that did not: "
            "python -m live.run with EXPLORE_BPS_PER_DAY above 0 and more candidates than TOP_K makes one"
        )
    last_header, last = logs[-1]
    source, model = last_header.source, key_of(last_header)
    same = [
        (header, log)
        for header, log in logs
        if (header.source, key_of(header), log.mode, log.policy) == (source, model, last.mode, last.policy)
    ]
    return Evidence(
        source=source,
        model=model,
        mode=last.mode,
        policy=last.policy,
        decided=tuple(decision for _, log in same for decision in log.decided),
        unknown=sum(log.unknown for _, log in same),
        sure=sum(log.sure for _, log in same),
        others=sum(len(log.decided) for _, log in logs) - sum(len(log.decided) for _, log in same),
        sessions=tuple(dict.fromkeys(header.session for header, _ in same)),
    )


def readable(folders: Sequence[Path]) -> list[Path]:
    """Return the sessions whose journals this code can read; of the others it says why, once each."""
    found = []
    for folder in folders:
        try:
            next(iter(journal.JournalReader(folder / journal.FILE_NAME)))
            found.append(folder)
        except (JournalError, SchemaMismatch) as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def table(found: Comparison) -> list[str]:
    """Return the estimates as lines."""
    rows = [
        ("logged: what was done", found.logged, None),
        ("IPS", found.ips, found.ips_gain),
        ("SNIPS, self-normalised", found.snips, found.snips_gain),
        ("DR, doubly robust", found.dr, found.dr_gain),
    ]
    lines = [f"{'net bps per entry, 95 % interval':34}{'the other plan':>28}{'gain over what was done':>30}"]
    lines += [f"{name:34}{_cell(value):>28}{_cell(gain) if gain else '':>30}" for name, value, gain in rows]
    return lines


def _cell(estimate: Estimate) -> str:
    if math.isinf(estimate.low):
        return f"{estimate.value:+.2f} [unknown]"
    return f"{estimate.value:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]"


def report(evidence: Evidence) -> tuple[list[str], bool, Comparison | None]:
    """Return what a person reads, whether the other plan may be followed, and the figures."""
    question = (
        "may the bandit act, instead of net edge alone?"
        if evidence.mode is Mode.SHADOW
        else "would net edge alone do better than the acting bandit?"
    )
    lines = [
        f"{question}  model {evidence.model} on {evidence.source}, policy {evidence.policy}",
        f"{len(evidence.sessions)} sessions, {len(evidence.decided)} decisions that left something to chance",
        f"not used: {evidence.sure} that did not, {evidence.unknown} without a known outcome, "
        f"{evidence.others} of other policies",
    ]
    if not evidence.decided:
        what_to_do = "set EXPLORE_BPS_PER_DAY above 0 and let more symbols clear their cost than TOP_K takes"
        return (
            [*lines, f"no: nothing was left to chance, so nothing is known of another plan: {what_to_do}"],
            False,
            None,
        )
    found = compare(evidence.decided)
    checks = checks_of(found)
    lines += ["", *table(found), ""]
    lines += [f"{'ok' if check.holds else 'NO':4}{check.name:36}{check.must_be:28}{check.found}" for check in checks]
    is_yes = all(check.holds for check in checks)
    missing = ", ".join(check.name for check in checks if not check.holds)
    return [*lines, "", "yes" if is_yes else f"no: {missing}"], is_yes, found


def grant(lake: Path, evidence: Evidence, found: Comparison) -> Path:
    """Write the permit that an estimate earned."""
    path = permit_path(lake, evidence.source, evidence.model)
    permit = Permit(
        policy=evidence.policy,
        model=evidence.model,
        source=evidence.source,
        gain_low_bps=found.dr_gain.low,
        gain_bps=found.dr_gain.value,
        entries=found.entries,
        sessions=evidence.sessions,
        made_ns=time.time_ns(),
    )
    save_permit(path, permit)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.bandit",
        description="Estimate from journals what the bandit would earn if it acted, and say whether it may.",
    )
    parser.add_argument("sessions", nargs="*", help="folders or names (default: every session of the source)")
    parser.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    parser.add_argument("--source", help="only sessions of this source")
    parser.add_argument("--grant", action="store_true", help="write the permit to act, if the answer is yes")
    args = parser.parse_args(arguments)
    try:
        lake = settings_module.load(lake_uri=args.lake).lake
        folders = [journal.find(lake, name) for name in args.sessions] or readable(sessions_of(lake, args.source))
        if not folders:
            raise NotEnoughData(
                f"a session must be in {lake}, found none: python -m live.run --model rules --seconds 600 makes one"
            )
        evidence = gather(folders)
        lines, is_yes, found = report(evidence)
        print("\n".join(lines))
        if args.grant and evidence.mode is Mode.ACT:
            print("nothing to grant: these sessions acted; remove the permit to go back to net edge alone")
        elif args.grant and is_yes and found is not None:
            print(f"permit: {grant(lake, evidence, found)}")
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0 if is_yes else 1


if __name__ == "__main__":
    entry.run(main)
