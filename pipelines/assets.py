"""Dagster's assets: thin adapters around functions that know nothing of Dagster.

An asset names its inputs, calls one function and says what came out. It holds no rows: everything lies in the lake or
in MLflow, where it can be queried without Dagster. Where there is nothing to do (no data, too few labels) an asset is
*skipped*: an observation with the reason, no failure, and what stands on it is skipped too. What is wrong fails, in the
sentence that the function gave.

    raw_ticks -> universe -> seconds -> features -> dataset -> model -> backtest, report
              -> coverage ->         -> labels   ->                            -> gate

An hour is a partition. What is derived takes many hours in one run (a backfill of a day is one process); raw hours are
a run each, because each may last an hour. Between them stand the checks that block: `coverage` is made of raw rows that
passed, `seconds`, `features` and `labels` of hours whose coverage passed.

(No `from __future__ import annotations` here: Dagster reads configuration from the annotations themselves.)
"""

import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from pipelines.partitions import HOURLY, hour_of
from pipelines.resources import LakeResource, TrackingResource
from pipelines.tables import Table, table_of
from shared import settings as settings_module
from shared.errors import CrosscutError, NotEnoughData, TableEmpty
from shared.lake import coverage as coverage_table
from shared.lake import read
from shared.lake.layout import HOUR_S, partition_path
from shared.types import NS

POOL = "exchange"
"""Two slots (deploy/dagster.yaml): the run that records this hour, and the one that has connected for the next."""

Results = Iterator[dg.MaterializeResult[Any] | dg.AssetMaterialization | dg.AssetObservation]

_EVERY = dg.AllPartitionMapping()
with warnings.catch_warnings():
    # Beta in 1.13, and said so at every start.
    warnings.simplefilter("ignore", dg.BetaWarning)
    # The first hour has none before it, the last none after it.
    _BEFORE = dg.TimeWindowPartitionMapping(start_offset=-1, allow_nonexistent_upstream_partitions=True)
    _AFTER = dg.TimeWindowPartitionMapping(end_offset=1, allow_nonexistent_upstream_partitions=True)


def hourly(*, is_alone: bool = False, **options: Any) -> Callable[[Callable[..., Results]], dg.AssetsDefinition]:
    """Declare an asset of hours, as `dg.asset` does.

    Args:
        is_alone: each hour is a run of its own; else a backfill of many is one run.
    """
    policy = dg.BackfillPolicy.multi_run(max_partitions_per_run=1) if is_alone else dg.BackfillPolicy.single_run()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # of the policy
        declare: Callable[[Callable[..., Results]], dg.AssetsDefinition] = dg.asset(
            partitions_def=HOURLY, backfill_policy=policy, output_required=False, **options
        )
        return declare


# An exchange that rests for half an hour is waited for: 5, 10, 15 … s are 39 minutes in all.
RETRY = dg.RetryPolicy(max_retries=30, delay=5, backoff=dg.Backoff.LINEAR, jitter=dg.Jitter.PLUS_MINUS)

_AC = dg.AutomationCondition
_CHANGED = _AC.any_deps_match(_AC.newly_updated()).since_last_handled()
_IS_SETTLED = ~_AC.in_progress() & ~_AC.any_deps_in_progress() & ~_AC.any_deps_match(_AC.will_be_requested())
_PASSED = _AC.all_checks_match(_AC.check_passed(), blocking_only=True)

FOLLOW_RAW = _CHANGED & _IS_SETTLED & _AC.asset_matches("raw_ticks", _PASSED)
"""Something below has changed, nothing of it is being made, and the checks of the very hour passed. `eager()` asks for
more: that no hour before it is missing. One hour that nobody recorded would hold up the next one for ever."""

FOLLOW_JUDGED = _CHANGED & _IS_SETTLED & _AC.asset_matches("coverage", ~_AC.missing() & _PASSED)
"""As `FOLLOW_RAW`, of an hour whose coverage is known: the hours beside it may be missing, the hour itself may not."""


class RawTicksConfig(dg.Config):
    """What to do with an hour that is not over."""

    only_seal: bool = False  # leave it as it is
    seconds_max: float = 0.0  # record no longer than this; 0: to its end


class DatasetConfig(dg.Config):
    """Which hours to learn from. Times as in `python -m pipelines.train`; empty: the last `hours` of the source."""

    hours: int = 24  # of 600 symbols these are 6 GB of features
    start: str = ""
    end: str = ""


class ModelConfig(dg.Config):
    seed: int = 7


class BacktestConfig(dg.Config):
    style: str = "market"
    seed: int = 7


class GateConfig(dg.Config):
    """What follows from a verdict. Nothing is promoted unless somebody says so."""

    promote: bool = False


def attempt(context: dg.AssetExecutionContext, work: Callable[[], dict[str, Any]], *keys: str) -> Results:
    """Do the work; yield its metadata as materialisations, or the reason why there was nothing to do.

    Args:
        keys: assets that the work makes; none: the step's only one.
    """
    try:
        metadata = shown(work())
    except (TableEmpty, NotEnoughData) as reason:
        context.log.warning(f"skipped: {reason}")
        partition = context.partition_key if context.has_partition_key else None
        for key in sorted(context.selected_asset_keys):
            yield dg.AssetObservation(asset_key=key, partition=partition, metadata={"skipped": str(reason)})
        return
    except CrosscutError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    if not keys:
        yield dg.MaterializeResult(metadata=metadata)
        return
    for key in keys:
        yield dg.MaterializeResult(asset_key=key, metadata=metadata)


def by_hour(context: dg.AssetExecutionContext, work: Callable[[int], dict[str, Any]]) -> Results:
    """Do the work of every hour of the run, one after the other; what goes wrong with one does not stop the others.

    Hours that have nothing, or whose checks are red in this run, are skipped. Where one fails the step fails at its
    end and says of each why; those that were made are materialised all the same.
    """
    keys = context.partition_keys
    if len(keys) == 1:
        yield from attempt(context, lambda: work(hour_of(keys[0])))
        return
    made: dict[str, dict[str, Any]] = {}
    left: dict[str, str] = {}
    failed: dict[str, str] = {}
    red = red_hours(context)
    for key in keys:
        if key in red:
            left[key] = f"not made: {red[key]} is red"
            continue
        try:
            made[key] = shown(work(hour_of(key)))
            context.log.info(f"{key}: {made[key].get('rows', 0):,} rows")
        except (TableEmpty, NotEnoughData) as reason:
            left[key] = str(reason)
        except CrosscutError as error:
            failed[key] = str(error)
    for key, why in sorted((left | failed).items()):
        what = "failed" if key in failed else "skipped"
        context.log.warning(f"{key}: {what}: {why}")
        yield dg.AssetObservation(asset_key=context.asset_key, partition=key, metadata={what: why})
    if made and not left and not failed:
        for key, metadata in made.items():
            context.add_asset_metadata(metadata, asset_key=context.asset_key, partition_key=key)
        yield dg.MaterializeResult()
        return
    for key, metadata in made.items():
        yield dg.AssetMaterialization(asset_key=context.asset_key, partition=key, metadata=metadata)
    if failed:
        raise dg.Failure(
            description=f"{len(failed)} of {len(keys)} hours could not be made: "
            + "; ".join(f"{key}: {why}" for key, why in failed.items()),
            allow_retries=False,
        )
    if made:
        yield dg.MaterializeResult(metadata=_ALREADY_TOLD)


_ALREADY_TOLD = {"__source_asset_observation__": True}
"""Lets the steps after this one run without a materialisation of *every* hour of the run: those that were made are told
one by one. Dagster's own key for an output that has reported its events already; it knows no other way in 1.13."""


def red_hours(context: dg.AssetExecutionContext) -> dict[str, str]:
    """Return the hours of this run that failed a check of severity ERROR: partition key -> which.

    In a run of one hour Dagster itself does not start what stands behind a red check. In a run of many it could only
    stop all of them.
    """
    red = {}
    for entry in context.instance.all_logs(context.run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        assert entry.dagster_event is not None
        found = entry.dagster_event.asset_check_evaluation_data
        if found.partition and not found.passed and found.severity == dg.AssetCheckSeverity.ERROR:
            red[found.partition] = f"{found.asset_key.to_user_string()}.{found.check_name}"
    return red


def shown(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata as Dagster shows it: tables as Markdown, and without figures that are not defined.

    NaN is no JSON, and the UI would not show the rest either.
    """
    plain = {k: v for k, v in metadata.items() if not (isinstance(v, float) and math.isnan(v))}
    return {k: dg.MetadataValue.md(v.markdown) if isinstance(v, Table) else v for k, v in plain.items()}


def stored(lake: LakeResource, table: str, hour: int) -> dict[str, Any]:
    """Return what a file of the lake says about itself, as metadata."""
    path = partition_path(lake.root, table, lake.name, hour)
    footer = read.footer(path)
    return {
        "dagster/row_count": footer.rows,
        "rows": footer.rows,
        "bytes": path.stat().st_size,
        "source": lake.name,
        "content_hash": footer.content_hash,
        "path": dg.MetadataValue.path(str(path)),
    }


@hourly(
    group_name="market",
    pool=POOL,
    retry_policy=RETRY,
    is_alone=True,
    kinds={"bitget", "parquet"},
    description="Order books, trades and tickers of an hour, sealed into one file a table. An hour that is not over is "
    "recorded to its end: start the partition of the next hour to lose nothing at its border.",
)
def raw_ticks(context: dg.AssetExecutionContext, config: RawTicksConfig, lake: LakeResource) -> Results:
    from pipelines.ticks import HourTaken, RecorderFailed, seal_or_record
    from pipelines.verdicts import receive_lags

    def work() -> dict[str, Any]:
        hour = hour_of(context.partition_key)
        try:
            done = seal_or_record(
                lake.root,
                lake.name,
                hour,
                only_seal=config.only_seal,
                seconds_max=config.seconds_max or None,
                on_progress=context.log.info,
            )
        except HourTaken as reason:
            raise NotEnoughData(str(reason)) from None
        except RecorderFailed as error:
            raise dg.Failure(description=str(error), allow_retries=error.is_transient) from None
        total = sum(done.rows.values())
        return {
            "dagster/row_count": total,
            "rows": total,
            "bytes": done.bytes,
            "duplicates": done.duplicates,
            "torn_bytes": done.torn_bytes,
            "recorded_s": done.recorded_s,
            "source": lake.name,
            **{table.replace("/", "_"): count for table, count in done.rows.items()},
            "recorders_that_died": ", ".join(done.died) or "none",
            "receive_lag": table_of([lag._asdict() for lag in receive_lags(lake.root, lake.name, hour)]),
            "files": table_of([file_of(lake, table, hour) for table in done.rows]),
        }

    yield from attempt(context, work)


def file_of(lake: LakeResource, table: str, hour: int) -> dict[str, Any]:
    """Return where an hour of a table lies, and how large it is."""
    path = partition_path(lake.root, table, lake.name, hour)
    footer, size = read.footer(path), path.stat().st_size
    per_row = size / footer.rows if footer.rows else 0.0
    return {"table": table, "rows": footer.rows, "bytes": size, "bytes_a_row": round(per_row, 1), "path": str(path)}


@hourly(
    group_name="market",
    deps=[raw_ticks],
    automation_condition=FOLLOW_RAW,
    kinds={"bitget"},
    description="What was listed in an hour: the dated table that the recorder writes when it starts.",
)
def universe(context: dg.AssetExecutionContext, lake: LakeResource) -> Results:
    def work(hour: int) -> dict[str, Any]:
        listed = read.universe_between(lake.root, lake.name, hour * HOUR_S * NS, (hour + 1) * HOUR_S * NS)
        tradable = sum(contract.status == "normal" for contract in listed.contracts)
        return {
            "dagster/row_count": len(listed.contracts),
            "rows": len(listed.contracts),
            "tradable": tradable,
            "source": lake.name,
            "symbols": dg.MetadataValue.md(" ".join(listed.symbols)),
        }

    yield from by_hour(context, work)


@hourly(
    group_name="market",
    deps=[raw_ticks],
    automation_condition=FOLLOW_RAW,
    kinds={"polars"},
    description="For every symbol, channel and minute: complete, gap, stale or not listed. Computed, not guessed.",
)
def coverage(context: dg.AssetExecutionContext, lake: LakeResource) -> Results:
    from pipelines.gaps import gaps, largest
    from pipelines.plots import coverage_map

    def work(hour: int) -> dict[str, Any]:
        coverage_table.write_coverage(lake.root, lake.name, hour)
        frame = coverage_frame(lake, hour)
        shares = dict(frame["state"].value_counts(normalize=True).iter_rows())
        found = gaps(lake.root, lake.name, hour)
        return stored(lake, "coverage", hour) | {
            "plot": dg.MetadataValue.md(coverage_map(frame, hour)),
            "gaps": found.height,
            "largest_gaps": table_of(largest(found)),
            **{f"share_{state}": round(share, 4) for state, share in sorted(shares.items())},
        }

    yield from by_hour(context, work)


def coverage_frame(lake: LakeResource, hour: int) -> Any:
    """Return the stored coverage of an hour."""
    return read.collect(read.scan(lake.root, "coverage", lake.name, start_s=hour * HOUR_S, end_s=(hour + 1) * HOUR_S))


@hourly(
    group_name="market",
    deps=[dg.AssetDep(raw_ticks, partition_mapping=_BEFORE), universe, coverage],
    automation_condition=FOLLOW_JUDGED,
    kinds={"numpy"},
    description="The market sampled once a second on receipt time: books, ticker, flow. The sampler that live runs.",
)
def seconds(context: dg.AssetExecutionContext, lake: LakeResource) -> Results:
    from pipelines.plots import books_by_minute
    from pipelines.seconds import write_seconds

    def work(hour: int) -> dict[str, Any]:
        frame = write_seconds(lake.root, lake.name, hour)
        return stored(lake, "seconds", hour) | {
            "symbols": frame["symbol"].n_unique(),
            "plot": dg.MetadataValue.md(books_by_minute(frame, hour)),
        }

    yield from by_hour(context, work)


@hourly(
    group_name="learning",
    deps=[dg.AssetDep(seconds, partition_mapping=_BEFORE), coverage],
    automation_condition=FOLLOW_JUDGED,
    kinds={"numpy"},
    description="Every feature of the catalog, by the graph that live runs, with the lookback of the hour before.",
)
def features(context: dg.AssetExecutionContext, lake: LakeResource) -> Results:
    from pipelines.features import write_features
    from pipelines.plots import missing_by_feature

    def work(hour: int) -> dict[str, Any]:
        frame = write_features(lake.root, lake.name, hour)
        columns = [name for name in frame.columns if name not in ("second", "symbol")]
        return stored(lake, "features", hour) | {
            "features": len(columns),
            "plot": dg.MetadataValue.md(missing_by_feature(frame.select(columns))),
        }

    yield from by_hour(context, work)


@hourly(
    group_name="learning",
    deps=[dg.AssetDep(seconds, partition_mapping=_AFTER), coverage],
    automation_condition=FOLLOW_JUDGED,
    kinds={"polars"},
    description="Executable returns after costs in three classes, null where incomplete. The end of an hour needs the "
    "first seconds of the next.",
)
def labels(context: dg.AssetExecutionContext, lake: LakeResource) -> Results:
    from pipelines.features import write_labels
    from pipelines.plots import label_shares
    from pipelines.ticks import wait_for_labels

    def work(hour: int) -> dict[str, Any]:
        wait_for_labels(lake.root, lake.name, hour)
        slippage_bps = settings_module.load().slippage_bps
        frame = write_labels(lake.root, lake.name, hour, slippage_bps=slippage_bps)
        counts = dict(frame["label"].value_counts().iter_rows())
        return stored(lake, "labels", hour) | {
            "flat": counts.get(0, 0),
            "long": counts.get(1, 0),
            "short": counts.get(2, 0),
            "incomplete": counts.get(None, 0),
            "plot": dg.MetadataValue.md(label_shares(frame)),
        }

    yield from by_hour(context, work)


@dg.asset(
    group_name="learning",
    deps=[
        dg.AssetDep(features, partition_mapping=_EVERY),
        dg.AssetDep(labels, partition_mapping=_EVERY),
        dg.AssetDep(coverage, partition_mapping=_EVERY),
    ],
    output_required=False,
    description="The rows that a model learns from, pinned by a manifest: window, counts, content hash.",
)
def dataset(context: dg.AssetExecutionContext, config: DatasetConfig, lake: LakeResource) -> Results:
    from pipelines.dataset import build_dataset, manifest_of, write_manifest
    from pipelines.moments import when, window_of_text

    def work() -> dict[str, Any]:
        start_s, end_s = window_of_text(config.start or None, config.end or None)
        known = read.hours(lake.root, "labels", lake.name)
        if start_s is None and known:
            start_s = (known[-1] + 1 - config.hours) * HOUR_S
        built = build_dataset(lake.root, lake.name, start_s=start_s, end_s=end_s)
        manifest = manifest_of(built)
        path = write_manifest(lake.root, manifest)
        return {
            "dagster/row_count": manifest.rows,
            "rows": manifest.rows,
            "bytes": built.features.nbytes,
            "symbols": manifest.symbols,
            "source": manifest.source,
            "start": when(manifest.start_s),
            "end": when(manifest.end_s),
            "content_hash": manifest.content_hash,
            "absent": ", ".join(manifest.absent) or "none",
            **manifest.labels,
            "path": dg.MetadataValue.path(str(path)),
        }

    yield from attempt(context, work)


@dg.asset(
    group_name="learning",
    deps=[dataset],
    output_required=False,
    kinds={"lightgbm", "mlflow"},
    description="One pooled LightGBM, purged walk-forward, beside its baselines and nulls; a run and a "
    "version in MLflow.",
)
def model(
    context: dg.AssetExecutionContext, config: ModelConfig, lake: LakeResource, tracking: TrackingResource
) -> Results:
    from pipelines.boosting import threads_of
    from pipelines.dataset import build_dataset, read_manifest
    from pipelines.plots import gain_by_feature
    from pipelines.tracking import Tracking
    from pipelines.train import train_and_register

    def work() -> dict[str, Any]:
        settings = settings_module.load()
        manifest = read_manifest(lake.root, lake.name)
        built = build_dataset(lake.root, lake.name, start_s=manifest.start_s, end_s=manifest.end_s)
        if built.content_hash != manifest.content_hash:
            raise CrosscutError(
                f"the lake must hold what the dataset pinned ({manifest.content_hash}), found {built.content_hash}: "
                "materialise dataset again"
            )
        client = Tracking(tracking.address)
        done = train_and_register(
            lake.root,
            built,
            client,
            seed=config.seed,
            threads=threads_of(settings.num_threads),
            slippage_bps=settings.slippage_bps,
            books=str(settings.books),
        )
        return {
            "version": done.version,
            "plot": dg.MetadataValue.md(gain_by_feature(done.gain)),
            "mlflow": dg.MetadataValue.url(client.link(done.run_id)),
            "mlflow_run_id": done.run_id,
            "sha256": done.digest,
            "source": done.source,
            "holdout_from_s": done.holdout_from_s,
            "holdout_to_s": done.holdout_to_s,
            **done.figures,
        }

    yield from attempt(context, work)


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            "backtest",
            deps=[model],
            skippable=True,
            group_name="judgement",
            description="The live engine against the simulated venue on seconds that the model has not seen, with its "
            "nulls; a run of MLflow each.",
        ),
        dg.AssetSpec(
            "report",
            deps=["backtest"],
            skippable=True,
            group_name="judgement",
            description="One self-contained page: net after costs first, the out-of-sample boundary, the nulls.",
        ),
    ]
)
def judged(
    context: dg.AssetExecutionContext, config: BacktestConfig, lake: LakeResource, tracking: TrackingResource
) -> Results:
    from pipelines.backtest import candidate, judge
    from pipelines.provenance import read_report
    from pipelines.tracking import Tracking
    from pipelines.trials import words

    def work() -> dict[str, Any]:
        client = Tracking(tracking.address)
        chosen = candidate(client.latest_of(lake.name), client, seed=config.seed)
        result, folder, run_id, tried = judge(
            lake.root, lake.name, chosen, client, settings=settings_module.load(), style=config.style, seed=config.seed
        )
        nulls = {f"{null.name}_{key}": value for null in result.nulls for key, value in figures(null).items()}
        return {
            **page_metadata(result, folder / "report.html", client.link(run_id), run_id),
            "trials": "; ".join(words(tried)),
            "parity": read_report(folder).told.parity.sentence,
            "model_version": chosen.name,
            **figures(result.main),
            **nulls,
            "rank_ic": result.ic.mean,
        }

    yield from attempt(context, work, "backtest", "report")


def page_metadata(shown: Any, page: Path, link: str, run_id: str) -> dict[str, Any]:
    """Return what is shown of a backtest or a session that has a page and a run of MLflow."""
    from pipelines.page import verdict
    from pipelines.report import equity_markdown, waterfall_markdown

    return {
        "verdict": verdict(shown),
        "report": dg.MetadataValue.url(page.as_uri()),
        "path": dg.MetadataValue.path(str(page)),
        "plot": dg.MetadataValue.md(equity_markdown(shown)),
        "waterfall": dg.MetadataValue.md(waterfall_markdown(shown)),
        "mlflow": dg.MetadataValue.url(link),
        "mlflow_run_id": run_id,
        "source": shown.source,
        "rows": (shown.end_s - shown.start_s) * shown.symbols,
        "bytes": page.stat().st_size,
    }


def figures(outcome: Any) -> dict[str, float]:
    """Return the metrics of an outcome with its net bps."""
    return {**outcome.metrics, "net_bps": outcome.net_bps}


@dg.asset(
    group_name="judgement",
    deps=["backtest"],
    output_required=False,
    kinds={"mlflow"},
    description="The honest-edge gate: what the newest model showed on unseen seconds, after costs, beside its nulls "
    "and everything that was tried. Says no with the reasons; promotes only where the launchpad says so.",
)
def gate(
    context: dg.AssetExecutionContext, config: GateConfig, lake: LakeResource, tracking: TrackingResource
) -> Results:
    from pipelines.gate import promotion
    from pipelines.gate.criteria import judge
    from pipelines.gate.gather import gather
    from pipelines.gate.tables import as_table, sentence
    from pipelines.tracking import Tracking

    def work() -> dict[str, Any]:
        client = Tracking(tracking.address)
        evidence, version = gather(client, lake.root, client.latest_of(lake.name))
        verdict = judge(evidence, promotion.venue_of(lake.name))
        run_id = promotion.record(client, version, verdict)
        promoted = "no"
        if config.promote and verdict.passed:
            promoted = promotion.promote(client, str(version.version), verdict.venue).sentence()
        return {
            "verdict": sentence(verdict),
            "passed": verdict.passed,
            "criteria": as_table(verdict),
            "promoted": promoted,
            "mlflow": dg.MetadataValue.url(client.link(run_id)),
            "mlflow_run_id": run_id,
            "model_version": verdict.version,
            "source": lake.name,
        }

    yield from attempt(context, work)


ASSETS = [raw_ticks, universe, coverage, seconds, features, labels, dataset, model, judged, gate]
