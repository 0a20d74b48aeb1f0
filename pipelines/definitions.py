"""What Dagster loads: assets, checks, jobs, schedules, sensors. Heavy libraries are imported when an asset runs.

Schedules and sensors are stopped until somebody switches them on, and mind nothing when all of them run over an
empty lake: what has no data is skipped with the reason. One switch is enough for the whole chain of an hour:

    record_hourly    at minute 57, the next hour: connects shortly before it, records it, and makes everything of it
    prepare_hourly   at minute 3, the hour that has just closed, where `python -m pipelines.collect` records: the same
    learn_daily      once a day: dataset, model, backtest, report, gate
    history_hourly   at minute 2: candles, settled funding, open interest over REST
    retention_daily  removes what is older than RETENTION allows
    follow_candles   candles that came after their hour was judged: its coverage again, now with the volumes compared
    report_sessions  sessions that have ended, live or on paper: their reports
    follow_changes   whatever changes in an hour (imports, backfills, rows that came late): what stands on it, again
"""

import warnings

import dagster as dg

from pipelines.assets import ASSETS
from pipelines.checks import CHECKS
from pipelines.partitions import SESSIONS, key_of
from pipelines.resources import LakeResource, TrackingResource
from pipelines.session_asset import session_report
from pipelines.sessions import ended, name_of
from pipelines.upkeep import HISTORY, UPKEEP
from shared.lake import coverage, read
from shared.lake.layout import HOUR_S, hour_name

HOUR = ("raw_ticks", "universe", "coverage", "seconds", "features", "labels")

JUDGED_AT_ONCE = 24
REPORTED_AT_ONCE = 8

# A run whose process is killed is started again by the daemon (deploy/dagster.yaml), from the step that it had begun.
RESUME = {"dagster/max_retries": "3", "dagster/retry_strategy": "FROM_FAILURE"}

# A job whose assets differ in how many hours they take in a run takes the smaller number: one, which is what is meant.
warnings.filterwarnings("ignore", message="Asset job .* with varying BackfillPolicies")

PREPARE = dg.define_asset_job(
    "prepare",
    selection=dg.AssetSelection.assets(*HOUR),
    tags=RESUME,
    description="One hour: record it, or seal what was recorded, and make everything that is stored by the hour.",
)
LEARN = dg.define_asset_job(
    "learn",
    selection=dg.AssetSelection.assets("dataset", "model", "backtest", "report", "gate"),
    description="Train on the last hours, judge, report.",
)


REPORT_SESSION = dg.define_asset_job(
    "report_session",
    selection=dg.AssetSelection.assets("session_report"),
    description="The report of one session, and its run of MLflow.",
)
KEEP_HISTORY = dg.define_asset_job(
    "history",
    selection=dg.AssetSelection.assets(*HISTORY),
    description="What is new of candles, funding and open interest, over REST.",
)
JUDGE = dg.define_asset_job(
    "judge",
    selection=dg.AssetSelection.assets("coverage"),
    tags=RESUME,
    description="The coverage of one hour, again.",
)
RETAIN = dg.define_asset_job(
    "retain",
    selection=dg.AssetSelection.assets("retention"),
    description="Remove what is older than RETENTION allows; without rules, nothing.",
)

history_hourly = dg.ScheduleDefinition(
    name="history_hourly",
    job=KEEP_HISTORY,
    cron_schedule="2 * * * *",
    description="Candles of a minute, settled funding and open interest of every symbol (MARKET=bitget).",
)
retention_daily = dg.ScheduleDefinition(
    name="retention_daily",
    job=RETAIN,
    cron_schedule="40 4 * * *",
    description="Remove what is older than RETENTION allows. Without rules it removes nothing.",
)


def hour_at(context: dg.ScheduleEvaluationContext) -> int:
    """Return the epoch hour that a schedule's tick lies in."""
    at = context.scheduled_execution_time
    return int(at.timestamp()) // HOUR_S


@dg.schedule(
    cron_schedule="57 * * * *",
    job=PREPARE,
    name="record_hourly",
    description="Record the next hour, whole (MARKET says where from), then make everything of it, up to the labels.",
)
def record_hourly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    return dg.RunRequest(partition_key=key_of(hour_at(context) + 1))


@dg.schedule(
    cron_schedule="3 * * * *",
    job=PREPARE,
    name="prepare_hourly",
    description="Make everything of the hour that has just closed; for those who record with pipelines.collect.",
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


@dg.sensor(
    job=JUDGE,
    name="follow_candles",
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.STOPPED,
    required_resource_keys={"lake"},
    description="Judge hours again whose candles came after their coverage was computed: a minute whose trades are not "
    "those of its candle is a gap. Looks at the lake, so candles of `python -m pipelines.history` count, too.",
)
def follow_candles(context: dg.SensorEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    lake = context.resources.lake
    late = sorted(coverage.outdated(lake.root, lake.name).items())[-JUDGED_AT_ONCE:]
    if not late:
        return dg.SkipReason(f"every hour of {lake.name} that has coverage was judged by the candles that there are")
    # Of other candles the key is another one: an hour is judged again for each, and once.
    return [dg.RunRequest(run_key=f"{lake.name}-{hour}-{which}", partition_key=key_of(hour)) for hour, which in late]


@dg.sensor(
    job=REPORT_SESSION,
    name="report_sessions",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.STOPPED,
    required_resource_keys={"lake"},
    description="Report every session of the source that has ended, live or on paper, once: a partition and a run of "
    "MLflow each.",
)
def report_sessions(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    lake = context.resources.lake
    known = set(context.instance.get_dynamic_partitions(SESSIONS.name or ""))
    names = [name_of(folder) for folder in ended(lake.root, lake.name)]
    new = [name for name in names if name not in known][:REPORTED_AT_ONCE]
    if not new:
        return dg.SkipReason(f"every session of {lake.name} that has ended was reported")
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=f"{lake.name}-{name}", partition_key=name) for name in new],
        dynamic_partitions_requests=[SESSIONS.build_add_request(new)],
    )


FOLLOW = dg.AutomationConditionSensorDefinition(
    "follow_changes",
    target=dg.AssetSelection.assets(*HOUR[1:]),
    default_status=dg.DefaultSensorStatus.STOPPED,
    run_tags=RESUME,
    description="Make again what stands on an hour that has changed. Hours whose checks are red are left alone, and an "
    "hour that nobody recorded holds up no other.",
)


defs = dg.Definitions(
    assets=[*ASSETS, session_report, *UPKEEP],
    asset_checks=CHECKS,
    jobs=[PREPARE, LEARN, REPORT_SESSION, KEEP_HISTORY, JUDGE, RETAIN],
    schedules=[record_hourly, prepare_hourly, learn_daily, history_hourly, retention_daily],
    sensors=[follow_candles, report_sessions, FOLLOW],
    resources={"lake": LakeResource(), "tracking": TrackingResource()},
    # One process a run: six steps take 0.6 s instead of 12 s, and two cores are few.
    executor=dg.in_process_executor,
)
