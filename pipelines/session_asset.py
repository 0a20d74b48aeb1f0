"""The asset of sessions: what was traded live or on paper, a partition a session.

(No `from __future__ import annotations` here, as in `pipelines.assets`.)
"""

from typing import Any

import dagster as dg

from pipelines.assets import Results, attempt, page_metadata
from pipelines.partitions import SESSIONS
from pipelines.resources import LakeResource, TrackingResource


@dg.asset(
    group_name="judgement",
    partitions_def=SESSIONS,
    output_required=False,
    kinds={"mlflow"},
    description="The report of a session that was traded live or on paper, from its journal: the page of a backtest, "
    "the gap to the backtest of its own orders, and whether research computes what it computed. A run of MLflow, once.",
)
def session_report(context: dg.AssetExecutionContext, lake: LakeResource, tracking: TrackingResource) -> Results:
    from pipelines.run_metrics import page_metrics
    from pipelines.session_runs import report_and_log
    from pipelines.tracking import Tracking
    from shared import journal

    def work() -> dict[str, Any]:
        client = Tracking(tracking.address)
        reported, logged = report_and_log(lake.root, journal.find(lake.root, context.partition_key), client)
        return {
            **page_metadata(reported.page, reported.folder / "report.html", client.link(logged.run_id), logged.run_id),
            "parity": reported.page.told.parity.sentence,
            "logged": "now" if logged.is_new else "before",
            **page_metrics(reported.page),
        }

    yield from attempt(context, work)
