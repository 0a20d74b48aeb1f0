"""What follows from a verdict: a mark in the bundle, tags, aliases, and the way back.

    validation   tag of a version: `passed` (trained and backtested on the real market), `passed on paper` (on any other
                 source: never champion of the real one), `refused`. The same word stands in the bundle's field `gate`,
                 which is what live reads; the booster's digest does not cover it.
    champion     alias, for the real market; `champion-paper` for the simulator
    challenger   alias: what live scores beside the champion (`--shadow challenger`); needs no verdict, trades nothing
    before       tag of the registered model, for each champion's alias: the versions that were champion before, oldest
                 first. Promotion appends, rollback takes from its end.

Every judgement is a run of the experiment `crosscut-gate`: a metric for each criterion, the verdict as an artifact.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

from pipelines.gate import tables
from pipelines.gate.criteria import SOURCE_OF, Venue, Verdict
from pipelines.tracking import ALIAS, CHAMPION, MODEL, PAPER_CHAMPION, Tracking, code_commit
from shared import model as bundles
from shared.errors import ModelMismatch, ModelMissing

EXPERIMENT_GATE: Final = "crosscut-gate"
PASSED, PASSED_ON_PAPER, REFUSED = bundles.PASSED, bundles.PASSED_ON_PAPER, "refused"
HISTORY_MAX: Final = 50

ALIAS_OF: Final[dict[Venue, str]] = {"bitget": CHAMPION, "simulator": PAPER_CHAMPION}


def venue_of(source: str) -> Venue:
    """Return the venue that models of a source are for unless told otherwise."""
    return "bitget" if source == SOURCE_OF["bitget"] else "simulator"


def status_of(verdict: Verdict) -> str:
    """Return the word for a verdict. What no real market has taught never gets the real one's."""
    if not verdict.passed:
        return REFUSED
    return PASSED if verdict.source == SOURCE_OF["bitget"] else PASSED_ON_PAPER


def record(tracking: Tracking, version: Any, verdict: Verdict) -> str:
    """Log a verdict and mark version and bundle with it; return the run's id.

    The bundle is marked last: what live reads says `passed` only where MLflow says why.
    """
    status = status_of(verdict)
    name = f"version {verdict.version} for {verdict.venue}"
    tags = {
        "version": str(verdict.version),
        "sha256": verdict.digest,
        "source": verdict.source,
        "venue": verdict.venue,
        "verdict": status,
        "commit": code_commit(),
    }
    with tracking.told(), tracking.run(EXPERIMENT_GATE, name, tags) as run:
        run.log_metrics({c.name.replace(":", ""): c.value for c in verdict.criteria if not math.isinf(c.value)})
        run.log_metrics({"passed": float(verdict.passed), "criteria_failed": float(len(verdict.reasons))})
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "verdict.json").write_bytes(tables.as_json(verdict))
            (folder / "verdict.md").write_text(tables.as_markdown(verdict), encoding="utf-8")
            run.log_folder(folder, "gate")
        for key, value in (
            ("validation", status),
            ("gate_run", run.run_id),
            ("gate_at", now()),
            ("gate_failed", ", ".join(c.name for c in verdict.criteria if not c.passed)[:4_900]),
        ):
            tracking.client.set_model_version_tag(MODEL, str(version.version), key, value)
        mark_bundle(tracking, version, status)
    return run.run_id


def mark_bundle(tracking: Tracking, version: Any, status: str) -> None:
    """Write the field `gate` of a version's bundle where live will read it."""
    folder = tracking.bundle_folder(version)
    parts = urlsplit(version.source)
    if parts.scheme in ("", "file"):
        bundles.write_gate(Path(unquote(parts.path)) / "bundle", status)
        return
    with tempfile.TemporaryDirectory() as temporary:
        draft = Path(temporary)
        (draft / bundles.BUNDLE_FILE).write_bytes((folder / bundles.BUNDLE_FILE).read_bytes())
        bundles.write_gate(draft, status)
        tracking.client.log_artifact(version.run_id, str(draft / bundles.BUNDLE_FILE), "bundle")


class Promoted(msgspec.Struct, frozen=True):
    """What an alias names now, and named before."""

    alias: str
    version: int
    before: int | None  # None: nothing

    def sentence(self) -> str:
        before = f", before it version {self.before}" if self.before is not None else ""
        return f"{self.alias} is version {self.version}{before}"


def promote(tracking: Tracking, wanted: str, venue: Venue) -> Promoted:
    """Make a version champion of a venue; the one before it is remembered.

    Raises:
        ModelMismatch: the gate has not passed it for this venue.
    """
    alias = ALIAS_OF[venue]
    with tracking.told():
        before = alias_version(tracking, alias)
        version = int(tracking.resolve(wanted).version)
        if before is not None and before != version:
            tracking.check_passed(wanted, alias)
            # First remembered, then moved: a crash between leaves an entry that rollback passes over.
            _remember(tracking, alias, [*history(tracking, alias), before])
        tracking.promote(wanted, alias)
        tracking.client.set_model_version_tag(MODEL, str(version), f"{alias}_since", now())
    return Promoted(alias, version, before if before != version else None)


def challenge(tracking: Tracking, wanted: str) -> Promoted:
    """Make a version the challenger, which live scores beside the champion and never trades."""
    with tracking.told():
        before = alias_version(tracking, ALIAS)
        version = int(tracking.resolve(wanted).version)
        tracking.client.set_registered_model_alias(MODEL, ALIAS, str(version))
    return Promoted(ALIAS, version, before if before != version else None)


def rollback(tracking: Tracking, venue: Venue) -> Promoted:
    """Give a venue's champion's alias back to the version that had it before.

    Versions that have not passed any more, or whose files are gone, are passed over: what comes back can be traded.

    Raises:
        ModelMissing: there is no champion, or none before it that could come back.
    """
    alias = ALIAS_OF[venue]
    with tracking.told():
        now_is = alias_version(tracking, alias)
        if now_is is None:
            raise ModelMissing(
                f"{alias} must be set to be rolled back, found no version under that alias: nothing was promoted yet "
                "(python -m pipelines.gate --promote)"
            )
        left = history(tracking, alias)
        passed_over: list[str] = []
        while left:
            version = left.pop()
            if version == now_is:
                continue
            try:
                tracking.check_passed(str(version), alias)
                tracking.bundle_folder(tracking.resolve(str(version)))
            except (ModelMissing, ModelMismatch) as why:
                passed_over.append(f"version {version} ({str(why).split(':')[0]})")
                continue
            tracking.promote(str(version), alias)
            _remember(tracking, alias, left)
            tracking.client.set_model_version_tag(MODEL, str(now_is), f"{alias}_until", now())
            return Promoted(alias, version, now_is)
        over = f", and none of {'; '.join(passed_over)} can come back" if passed_over else ""
        raise ModelMissing(
            f"{alias} must have had a version before {now_is} to be rolled back to, found none{over}: "
            "promote another version, or trade --model rules on paper"
        )


def alias_version(tracking: Tracking, alias: str) -> int | None:
    """Return the version that an alias names; None where it names none."""
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):
        return int(tracking.client.get_model_version_by_alias(MODEL, alias).version)
    return None


def history(tracking: Tracking, alias: str) -> list[int]:
    """Return the versions that an alias named before, oldest first."""
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):
        told = tracking.client.get_registered_model(MODEL).tags.get(f"{alias}_before", "")
        return [int(number) for number in told.split(",") if number.strip().isdecimal()]
    return []


def _remember(tracking: Tracking, alias: str, versions: list[int]) -> None:
    told = ",".join(str(version) for version in versions[-HISTORY_MAX:])
    tracking.client.set_registered_model_tag(MODEL, f"{alias}_before", told)


def now() -> str:
    """Return the time for a tag."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}"


class Standing(msgspec.Struct, frozen=True):
    """One version as `status` shows it."""

    version: int
    source: str
    validation: str
    judged_at: str
    aliases: str
    failed: str


def standings(tracking: Tracking, *, most: int = 20) -> list[Standing]:
    """Return the newest versions, newest first."""
    with tracking.told():
        named: dict[int, list[str]] = {}
        for alias in (CHAMPION, PAPER_CHAMPION, ALIAS):
            version = alias_version(tracking, alias)
            if version is not None:
                named.setdefault(version, []).append(alias)
        known = tracking.client.search_model_versions(f"name='{MODEL}'")
        known = sorted(known, key=lambda found: -int(found.version))
        kept = [found for place, found in enumerate(known) if place < most or int(found.version) in named]
        return [
            Standing(
                version=int(found.version),
                source=found.tags.get("source", ""),
                validation=found.tags.get("validation", "not judged"),
                judged_at=found.tags.get("gate_at", ""),
                aliases=", ".join(named.get(int(found.version), [])),
                failed=found.tags.get("gate_failed", ""),
            )
            for found in kept
        ]
