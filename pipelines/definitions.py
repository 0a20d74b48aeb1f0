"""What Dagster loads: assets, checks, jobs, schedules. Heavy libraries are imported when an asset runs, not here.

Schedules are stopped until somebody switches them on, and mind nothing when all of them run over an empty lake: what
has no data is skipped with the reason.

    record    at minute 59, the next hour: connects shortly before it, so that two runs overlap at the border
    prepare   at minute 3, the hour that has just closed: seal, sample, features, labels
    learn     once a day: dataset, model, backtest, report
"""

import dagster as dg

from pipelines.assets import ASSETS
from pipelines.checks import CHECKS
from pipelines.partitions import key_of
from pipelines.resources import LakeResource, TrackingResource
from shared.lake import read
from shared.lake.layout import HOUR_S, hour_name

RECORD = dg.define_asset_job(
    "record",
    selection=dg.AssetSelection.assets("raw_ticks", "universe", "coverage", "seconds"),
    description="One hour: record or seal it, coverage, seconds.",
)
PREPARE = dg.define_asset_job(
    "prepare",
    selection=dg.AssetSelection.assets("raw_ticks", "universe", "coverage", "seconds", "features", "labels"),
    description="One closed hour: seal it and compute everything that is stored by the hour.",
)
DERIVE = dg.define_asset_job(
    "derive",
    selection=dg.AssetSelection.assets("features", "labels"),
    description="One hour whose neighbours have their seconds: features and labels.",
)
LEARN = dg.define_asset_job(
    "learn",
    selection=dg.AssetSelection.assets("dataset", "model", "backtest", "report"),
    description="Train on the last hours, judge, report.",
)


def hour_at(context: dg.ScheduleEvaluationContext) -> int:
    """Return the epoch hour that a schedule's tick lies in."""
    at = context.scheduled_execution_time
    return int(at.timestamp()) // HOUR_S


@dg.schedule(
    cron_schedule="59 * * * *",
    job=RECORD,
    name="record_hourly",
    description="Record the next hour, whole (MARKET says where from). Needs a free slot of the pool `exchange`.",
)
def record_hourly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    return dg.RunRequest(partition_key=key_of(hour_at(context) + 1))


@dg.schedule(
    cron_schedule="3 * * * *",
    job=PREPARE,
    name="prepare_hourly",
    description="Seal the hour that has just closed and compute seconds, features and labels.",
    required_resource_keys={"lake"},
)
def prepare_hourly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    hour = hour_at(context) - 1
    lake = context.resources.lake
    if hour not in read.hours(lake.root, "raw/book", lake.name):
        return dg.SkipReason(f"nobody recorded {hour_name(hour)} of {lake.name}: switch record_hourly on, or collect")
    return dg.RunRequest(partition_key=key_of(hour))


@dg.schedule(
    cron_schedule="20 0 * * *",
    job=LEARN,
    name="learn_daily",
    description="Train on the last hours, backtest on what was held out, report.",
    required_resource_keys={"lake"},
)
def learn_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    lake = context.resources.lake
    hours = set(read.hours(lake.root, "features", lake.name)) & set(read.hours(lake.root, "labels", lake.name))
    if not hours:
        return dg.SkipReason(f"no hour of {lake.name} has features and labels yet: switch prepare_hourly on")
    return dg.RunRequest(run_key=f"{lake.name}-{hour_at(context)}")


defs = dg.Definitions(
    assets=ASSETS,
    asset_checks=CHECKS,
    jobs=[RECORD, PREPARE, DERIVE, LEARN],
    schedules=[record_hourly, prepare_hourly, learn_daily],
    resources={"lake": LakeResource(), "tracking": TrackingResource()},
    # One process a run: six steps take 0.6 s instead of 12 s, and two cores are few.
    executor=dg.in_process_executor,
)
