"""Asset checks: the verdicts of `pipelines.verdicts`, hour by hour, as Dagster shows them and acts on them.

They look at what is stored, not at what the asset returned.

    blocks   ERROR: the data are wrong. What stands on the asset is not made in this run, nor by automation.
    errs     ERROR, too late to block anything.
    warns    WARN: the data are what they are, and someone should know.

A run that does not include the check is not blocked by it: whoever wants to use a red hour materialises what stands on
it by hand. In a run of many hours a red one is left out and the others go on (`assets.by_hour`).
"""

import warnings
from collections.abc import Callable, Iterator
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any

import dagster as dg

# Dagster fills it in for a run of one hour, and offers no public name for a run of many (1.13).
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

from pipelines import drift, parity, verdicts
from pipelines.assets import shown
from pipelines.partitions import HOURLY, hour_of, key_of
from pipelines.resources import LakeResource, TrackingResource
from pipelines.verdicts import Verdict
from shared.errors import CrosscutError, TableEmpty
from shared.lake import read

TABLE = {"raw_ticks": "raw/book", "coverage": "coverage", "features": "features", "labels": "labels"}
"""Asset -> the table that says which hours it has."""

_WARN, _ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR

Results = Iterator[dg.AssetCheckResult | dg.AssetCheckEvaluation]


Check = Callable[[Path, str, int], Verdict]


def _judge(check: Check, lake: LakeResource, hour: int) -> tuple[Verdict, bool]:
    """Return the verdict of an hour, and whether it is about rows at all."""
    try:
        return check(lake.root, lake.name, hour), True
    except TableEmpty as nothing:
        return Verdict(False, {"reason": str(nothing)}), False
    except CrosscutError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None


def _hourly(
    asset: str, check: Check, *, severity: dg.AssetCheckSeverity, blocks: bool = False
) -> dg.AssetChecksDefinition:
    def adapter(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> Results:
        yield from _results(context, lake, asset, check.__name__, check, severity)

    return _declared(adapter, asset, check.__name__, check.__doc__, blocks=blocks)


def _hourly_of_model(
    asset: str, check: Callable[[str, Path, str, int], Verdict], *, severity: dg.AssetCheckSeverity
) -> dg.AssetChecksDefinition:
    """Declare a check that asks MLflow for the model in use, too."""

    def adapter(context: dg.AssetCheckExecutionContext, lake: LakeResource, tracking: TrackingResource) -> Results:
        of_model = update_wrapper(partial(check, tracking.address), check)
        yield from _results(context, lake, asset, check.__name__, of_model, severity)

    return _declared(adapter, asset, check.__name__, check.__doc__, blocks=False)


def _declared(
    adapter: Callable[..., Results], asset: str, name: str, description: str | None, *, blocks: bool
) -> dg.AssetChecksDefinition:
    with warnings.catch_warnings():
        # Preview in 1.13, and said so at every start. Without it one red hour would be the state of the whole asset.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.asset_check(asset=asset, name=name, description=description, blocking=blocks, partitions_def=HOURLY)(
            adapter  # type: ignore[arg-type]  # it may yield, too
        )


def _results(
    context: dg.AssetCheckExecutionContext,
    lake: LakeResource,
    asset: str,
    name: str,
    check: Check,
    severity: dg.AssetCheckSeverity,
) -> Results:
    judged = {key: _judge(check, lake, hour_of(key)) for key in _keys(context, lake, TABLE[asset])}
    if len(judged) == 1:
        ((verdict, is_about_rows),) = judged.values()
        yield dg.AssetCheckResult(
            passed=verdict.passed,
            metadata=shown(verdict.metadata),
            severity=severity if is_about_rows else _WARN,
        )
        return
    for key, (verdict, is_about_rows) in judged.items():
        yield evaluation(context.instance, asset, name, key, verdict, severity=severity if is_about_rows else _WARN)
    red = [key for key, (verdict, _) in judged.items() if not verdict.passed]
    yield dg.AssetCheckResult(  # of the run; WARN, because the hours have spoken for themselves
        passed=not red, severity=_WARN, metadata={"hours": len(judged), "red": ", ".join(red) or "none"}
    )


def evaluation(
    instance: dg.DagsterInstance,
    asset: str,
    name: str,
    key: str,
    verdict: Verdict,
    *,
    severity: dg.AssetCheckSeverity,
) -> dg.AssetCheckEvaluation:
    """Return what a check found of one hour, about the newest materialisation of it: else it counts as outdated."""
    asset_key = dg.AssetKey(asset)
    newest = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=asset_key, asset_partitions=[key]), limit=1
    ).records
    target = None
    if newest:
        target = AssetCheckEvaluationTargetMaterializationData(
            storage_id=newest[0].storage_id, run_id=newest[0].run_id, timestamp=newest[0].timestamp
        )
    return dg.AssetCheckEvaluation(
        asset_key=asset_key,
        check_name=name,
        passed=verdict.passed,
        metadata=shown(verdict.metadata),
        target_materialization_data=target,
        severity=severity,
        partition=key,
    )


def _keys(context: dg.AssetCheckExecutionContext, lake: LakeResource, table: str) -> list[str]:
    """Return the hours of the run; of one that is about no hour, the newest that is stored."""
    step = context.op_execution_context
    if step.has_partition_key:
        return [step.partition_key]
    if step.has_partition_key_range:
        return list(step.partition_keys)
    stored = read.hours(lake.root, table, lake.name)
    if not stored:
        raise dg.Failure(
            description=f"an hour of {table} is needed in {lake.root}, found none of {lake.name}: materialise one",
            allow_retries=False,
        )
    return [key_of(stored[-1])]


def _result(verdict: Verdict, *, severity: dg.AssetCheckSeverity) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=verdict.passed, metadata=shown(verdict.metadata), severity=severity)


@dg.asset_check(asset="model", name="model_beats_null", description=verdicts.model_beats_null.__doc__)
def model_check(lake: LakeResource, tracking: TrackingResource) -> dg.AssetCheckResult:
    from pipelines.tracking import Tracking

    client = Tracking(tracking.address)
    run_id = client.resolve(client.latest_of(lake.name)).run_id
    metrics: dict[str, Any] = dict(client.client.get_run(run_id).data.metrics)
    return _result(verdicts.model_beats_null(metrics), severity=_WARN)


@dg.asset_check(asset="backtest", name="coin_loses", description=verdicts.coin_loses.__doc__)
def coin_check(lake: LakeResource, tracking: TrackingResource) -> dg.AssetCheckResult:
    from pipelines.tracking import Tracking

    return _result(verdicts.coin_loses(Tracking(tracking.address).latest_backtest("coin", lake.name)), severity=_ERROR)


@dg.asset_check(asset="backtest", name="backtest_parity", description=verdicts.backtest_parity.__doc__)
def backtest_parity_check(lake: LakeResource, tracking: TrackingResource) -> dg.AssetCheckResult:
    from pipelines.tracking import Tracking

    newest = Tracking(tracking.address).latest_backtest("model", lake.name)
    return _result(verdicts.backtest_parity(newest), severity=_ERROR)


CHECKS = [
    _hourly("raw_ticks", verdicts.crossed_books, severity=_ERROR, blocks=True),
    _hourly("raw_ticks", verdicts.duplicate_trades, severity=_ERROR, blocks=True),
    _hourly("raw_ticks", verdicts.unknown_payloads, severity=_ERROR, blocks=True),
    _hourly("raw_ticks", verdicts.clock_skew, severity=_ERROR, blocks=True),
    _hourly("coverage", verdicts.coverage_share, severity=_ERROR, blocks=True),
    _hourly("coverage", verdicts.whole_hour, severity=_WARN),
    _hourly("features", verdicts.missing_features, severity=_WARN),
    _hourly("features", verdicts.no_future, severity=_ERROR),
    _hourly("features", parity.live_parity, severity=_ERROR),
    _hourly_of_model("features", drift.feature_drift, severity=_ERROR),
    _hourly("labels", verdicts.label_balance, severity=_WARN),
    model_check,
    coin_check,
    backtest_parity_check,
]
