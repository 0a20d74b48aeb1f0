"""Dagster's assets: thin adapters around functions that know nothing of Dagster.

An asset names its inputs, calls one function and says what came out. It holds no rows: everything lies in the lake or
in MLflow, where it can be queried without Dagster. Where there is nothing to do (no data, too few labels) an asset is
*skipped*: an observation with the reason, no failure, and what stands on it is skipped too. What is wrong fails, in the
sentence that the function gave.

    universe  raw_ticks -> coverage
                        -> seconds -> features -> dataset -> model -> backtest, report
                                   -> labels   ->

(No `from __future__ import annotations` here: Dagster reads configuration from the annotations themselves.)
"""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from pipelines.partitions import HOURLY, hour_of
from pipelines.resources import LakeResource, TrackingResource
from shared import settings as settings_module
from shared.errors import CrosscutError, NotEnoughData, TableEmpty
from shared.lake import coverage as coverage_table
from shared.lake import read
from shared.lake.layout import HOUR_S, partition_path
from shared.types import NS

POOL = "exchange"

Results = Iterator[dg.MaterializeResult[Any] | dg.AssetObservation]

with warnings.catch_warnings():
    # The first hour has none before it, the last none after it: beta in 1.13, and said so at every start.
    warnings.simplefilter("ignore", dg.BetaWarning)
    _BEFORE = dg.TimeWindowPartitionMapping(start_offset=-1, allow_nonexistent_upstream_partitions=True)
    _AFTER = dg.TimeWindowPartitionMapping(end_offset=1, allow_nonexistent_upstream_partitions=True)
_EVERY = dg.AllPartitionMapping()


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


def attempt(
    context: dg.AssetExecutionContext, work: Callable[[], dict[str, Any]], *keys: str
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetObservation]:
    """Do the work; yield its metadata as materialisations, or the reason why there was nothing to do.

    Args:
        keys: assets that the work makes; none: the step's only one.
    """
    try:
        # A figure that is not defined is left out: NaN is no JSON, and the UI would not show the rest either.
        metadata = {k: v for k, v in work().items() if not (isinstance(v, float) and math.isnan(v))}
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


@dg.asset(
    partitions_def=HOURLY,
    group_name="market",
    pool=POOL,
    output_required=False,
    kinds={"bitget", "parquet"},
    description="Order books, trades and tickers of an hour, sealed into one file a table. Where nobody has recorded "
    "the hour and it is not over, it is recorded: start the partition of the next hour to lose nothing at its border.",
)
def raw_ticks(context: dg.AssetExecutionContext, config: RawTicksConfig, lake: LakeResource) -> Results:
    from pipelines.ticks import seal_or_record

    def work() -> dict[str, Any]:
        done = seal_or_record(
            lake.root,
            lake.name,
            hour_of(context.partition_key),
            only_seal=config.only_seal,
            seconds_max=config.seconds_max or None,
            on_progress=context.log.info,
        )
        rows = {table.replace("/", "_"): count for table, count in done.rows.items()}
        total = sum(done.rows.values())
        return {
            "dagster/row_count": total,
            "rows": total,
            "bytes": done.bytes,
            "duplicates": done.duplicates,
            "recorded_s": done.recorded_s,
            "source": lake.name,
            **rows,
        }

    yield from attempt(context, work)


@dg.asset(
    partitions_def=HOURLY,
    group_name="market",
    deps=[raw_ticks],
    output_required=False,
    kinds={"bitget"},
    description="What was listed in an hour: the dated table that the recorder writes when it starts.",
)
def universe(context: dg.AssetExecutionContext, lake: LakeResource) -> Results:
    def work() -> dict[str, Any]:
        hour = hour_of(context.partition_key)
        listed = read.universe_between(lake.root, lake.name, hour * HOUR_S * NS, (hour + 1) * HOUR_S * NS)
        tradable = sum(contract.status == "normal" for contract in listed.contracts)
        return {
            "dagster/row_count": len(listed.contracts),
            "rows": len(listed.contracts),
            "tradable": tradable,
            "source": lake.name,
            "symbols": dg.MetadataValue.md(" ".join(listed.symbols)),
        }

    yield from attempt(context, work)


@dg.asset(
    partitions_def=HOURLY,
    group_name="market",
    deps=[raw_ticks],
    output_required=False,
    kinds={"polars"},
    description="For every symbol, channel and minute: complete, gap, stale or not listed. Computed, not guessed.",
)
def coverage(context: dg.AssetExecutionContext, lake: LakeResource) -> Results:
    def work() -> dict[str, Any]:
        hour = hour_of(context.partition_key)
        coverage_table.write_coverage(lake.root, lake.name, hour)
        frame = coverage_frame(lake, hour)
        shares = dict(frame["state"].value_counts(normalize=True).iter_rows())
        return stored(lake, "coverage", hour) | {f"share_{state}": share for state, share in sorted(shares.items())}

    yield from attempt(context, work)


def coverage_frame(lake: LakeResource, hour: int) -> Any:
    """Return the stored coverage of an hour."""
    return read.collect(read.scan(lake.root, "coverage", lake.name, start_s=hour * HOUR_S, end_s=(hour + 1) * HOUR_S))


@dg.asset(
    partitions_def=HOURLY,
    group_name="market",
    deps=[dg.AssetDep(raw_ticks, partition_mapping=_BEFORE), universe],
    output_required=False,
    kinds={"numpy"},
    description="The market sampled once a second on receipt time: books, ticker, flow. The sampler that live runs.",
)
def seconds(context: dg.AssetExecutionContext, lake: LakeResource) -> Results:
    from pipelines.plots import books_by_minute
    from pipelines.seconds import write_seconds

    def work() -> dict[str, Any]:
        hour = hour_of(context.partition_key)
        frame = write_seconds(lake.root, lake.name, hour)
        return stored(lake, "seconds", hour) | {
            "symbols": frame["symbol"].n_unique(),
            "plot": dg.MetadataValue.md(books_by_minute(frame, hour)),
        }

    yield from attempt(context, work)


@dg.asset(
    partitions_def=HOURLY,
    group_name="learning",
    deps=[dg.AssetDep(seconds, partition_mapping=_BEFORE)],
    output_required=False,
    kinds={"numpy"},
    description="Every feature of the catalog, by the graph that live runs, with the lookback of the hour before.",
)
def features(context: dg.AssetExecutionContext, lake: LakeResource) -> Results:
    from pipelines.features import write_features
    from pipelines.plots import missing_by_feature

    def work() -> dict[str, Any]:
        hour = hour_of(context.partition_key)
        frame = write_features(lake.root, lake.name, hour)
        columns = [name for name in frame.columns if name not in ("second", "symbol")]
        return stored(lake, "features", hour) | {
            "features": len(columns),
            "plot": dg.MetadataValue.md(missing_by_feature(frame.select(columns))),
        }

    yield from attempt(context, work)


@dg.asset(
    partitions_def=HOURLY,
    group_name="learning",
    deps=[dg.AssetDep(seconds, partition_mapping=_AFTER)],
    output_required=False,
    kinds={"polars"},
    description="Executable returns after costs in three classes, null where incomplete. The end of an hour needs the "
    "first seconds of the next.",
)
def labels(context: dg.AssetExecutionContext, lake: LakeResource) -> Results:
    from pipelines.features import write_labels
    from pipelines.plots import label_shares

    def work() -> dict[str, Any]:
        hour = hour_of(context.partition_key)
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

    yield from attempt(context, work)


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
    from pipelines.moments import second_of, when

    def work() -> dict[str, Any]:
        start_s, end_s = second_of(config.start or None), second_of(config.end or None)
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
    description="One pooled LightGBM, purged walk-forward, beside a linear baseline and shuffled labels; a run and a "
    "version in MLflow.",
)
def model(
    context: dg.AssetExecutionContext, config: ModelConfig, lake: LakeResource, tracking: TrackingResource
) -> Results:
    from pipelines.dataset import build_dataset, read_manifest
    from pipelines.plots import gain_by_feature
    from pipelines.tracking import Tracking
    from pipelines.train import train_and_register
    from pipelines.training import threads_of

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
    from pipelines.report import equity_markdown, verdict
    from pipelines.tracking import Tracking

    def work() -> dict[str, Any]:
        client = Tracking(tracking.address)
        chosen = candidate(client.latest_of(lake.name), client, seed=config.seed)
        result, folder, run_id = judge(
            lake.root, lake.name, chosen, client, settings=settings_module.load(), style=config.style, seed=config.seed
        )
        page = folder / "report.html"
        nulls = {f"{null.name}_{key}": value for null in result.nulls for key, value in figures(null).items()}
        return {
            "verdict": verdict(result),
            "report": dg.MetadataValue.url(page.as_uri()),
            "path": dg.MetadataValue.path(str(page)),
            "plot": dg.MetadataValue.md(equity_markdown(result)),
            "mlflow": dg.MetadataValue.url(client.link(run_id)),
            "mlflow_run_id": run_id,
            "model_version": chosen.name,
            "source": lake.name,
            "rows": (result.end_s - result.start_s) * result.symbols,
            "bytes": page.stat().st_size,
            **figures(result.main),
            **nulls,
            "rank_ic": result.ic.mean,
        }

    yield from attempt(context, work, "backtest", "report")


def figures(outcome: Any) -> dict[str, float]:
    """Return the metrics of an outcome with its net bps."""
    return {**outcome.metrics, "net_bps": outcome.net_bps}


ASSETS = [raw_ticks, universe, coverage, seconds, features, labels, dataset, model, judged]
