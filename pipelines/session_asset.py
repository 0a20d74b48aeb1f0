"""The asset of sessions: what was traded live or on paper, a partition a session.

(No `from __future__ import annotations` here, as in `pipelines.assets`.)
"""

from typing import Any

import dagster as dg

from pipelines.assets import Results, attempt
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
    from pipelines.page import verdict
    from pipelines.report import equity_markdown, waterfall_markdown
    from pipelines.session_runs import figures_of, report_and_log
    from pipelines.tracking import Tracking
    from shared import journal

    def work() -> dict[str, Any]:
        client = Tracking(tracking.address)
        reported, logged = report_and_log(lake.root, journal.find(lake.root, context.partition_key), client)
        shown, path = reported.page, reported.folder / "report.html"
        return {
            "verdict": verdict(shown),
            "parity": shown.told.parity.sentence,
            "report": dg.MetadataValue.url(path.as_uri()),
            "path": dg.MetadataValue.path(str(path)),
            "plot": dg.MetadataValue.md(equity_markdown(shown)),
            "waterfall": dg.MetadataValue.md(waterfall_markdown(shown)),
            "mlflow": dg.MetadataValue.url(client.link(logged.run_id)),
            "mlflow_run_id": logged.run_id,
            "logged": "now" if logged.is_new else "before",
            "source": shown.source,
            "rows": (shown.end_s - shown.start_s) * shown.symbols,
            "bytes": path.stat().st_size,
            **figures_of(reported),
        }

    yield from attempt(context, work)
