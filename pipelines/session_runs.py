"""Sessions as runs of MLflow: the report of each once, with its page, trades and metrics.

A run is known by the session's name and the SHA-256 of its journal: making the report again logs nothing twice, and
one that was made while the session still traded gives way to that of the whole journal. Sessions have an experiment of
their own, so that none is counted as a trial: nobody chose among them.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipelines.moments import when
from pipelines.report import FILES
from pipelines.run_metrics import page_metrics
from pipelines.session_report import Reported, report_session
from pipelines.tracking import Tracking, code_commit
from shared import journal
from shared.types import NS

EXPERIMENT_SESSIONS = "crosscut-sessions"

REPORT_FOLDER = "report"
"""Below a session's folder, and below its run."""


class Logged(msgspec.Struct, frozen=True):
    """Where a session is in MLflow."""

    run_id: str
    is_new: bool  # False: it was there


def report_and_log(lake: Path, folder: Path, tracking: Tracking, output: Path | None = None) -> tuple[Reported, Logged]:
    """Write the report of a session and log it once.

    Args:
        output: where the files go; None: into the session's folder.

    Raises:
        JournalError: the journal cannot be read, or holds no second.
        ModelMismatch: the model in the session's folder is not the one that traded.
    """
    with _alone(folder):
        reported = report_session(lake, folder, output or folder / REPORT_FOLDER)
        return reported, log_session(tracking, folder, reported)


def log_session(tracking: Tracking, folder: Path, reported: Reported) -> Logged:
    """Log a report unless MLflow has the very journal; an older state of the session's gives way to it."""
    page = reported.page
    assert page.provenance is not None, "a session's report says what it was computed from"
    header: journal.Header = next(iter(journal.JournalReader(folder / journal.FILE_NAME))).value
    digest = page.provenance.journal
    named = f"tags.session = '{header.session}' and tags.source = '{page.source}'"
    known = tracking.finished(EXPERIMENT_SESSIONS, named)
    for run in known:
        if run.data.tags.get("journal") == digest:
            return Logged(run.info.run_id, is_new=False)
    tags = {
        "kind": "session",
        "session": header.session,
        "source": page.source,
        "market": "generated" if page.is_generated else "real",
        "model": header.model if header.bundle is None else str(header.bundle.version),
        "model_digest": "" if header.bundle is None else header.bundle.digest,
        "commit": header.commit or "unknown",
        "report_commit": code_commit(),
        "journal": digest,
        "parity": page.told.parity.verdict.value,
    }
    if header.bundle is not None:
        tags["training_run"] = header.bundle.run_id
    parameters = {
        "model": tags["model"],
        "source": page.source,
        "style": page.style,
        "begun": when(header.started_ns // NS),
        "start": when(page.start_s),
        "end": when(page.end_s),
        "seed": header.seed,
        "symbols": page.symbols,
        **{name: value for name, value in msgspec.structs.asdict(header.config).items() if name != "symbols"},
    }
    with tracking.run(EXPERIMENT_SESSIONS, f"session {header.session}", tags) as run:
        run.log_params(parameters)
        run.log_metrics(page_metrics(page))
        run.log_curve("equity_usdt", page.main.equity_usdt[::60].tolist())
        run.log_files([reported.folder / name for name in FILES], REPORT_FOLDER)
    for older in known:
        tracking.client.delete_run(older.info.run_id)
    return Logged(run.run_id, is_new=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a session for one report at a time: a person and the sensor would log it twice."""
    with (folder / ".report.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
