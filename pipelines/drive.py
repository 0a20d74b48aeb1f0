"""Materialise the assets in this process, recorded in Dagster's instance: what the UI would start, without the UI.

Run it: python -m pipelines.drive [--source NAME] [--from TIME --to TIME]

An hour takes half a second of Dagster's own, and the runs are there in the UI afterwards (make ui).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipelines.features import inputs_of_features, inputs_of_labels
from pipelines.moments import window_of_text
from pipelines.resources import prepare_dagster_home, resolve_source
from pipelines.seconds import inputs_of_seconds, is_current
from shared import entry
from shared import settings as settings_module
from shared.errors import CrosscutError
from shared.features.catalog import FEATURES
from shared.lake import read
from shared.lake.layout import HOUR_S, hour_name

STEPS = (("raw_ticks",), ("universe", "coverage"), ("seconds",), ("features", "labels"))
"""Runs of an hour: all hours of each before the next, because seconds and features look at the hour before and labels
at the hour after. Apart, a red check is told and blocks nothing: what was recorded for a minute is to be used, too."""

_BLOCKED = "DagsterAssetCheckFailedError"
"""The error of a step whose check is red and blocks what stands behind it."""


class AssetFailed(CrosscutError):
    """An asset's function gave up; its sentence is the message."""


class Driven(msgspec.Struct, frozen=True):
    """What was materialised."""

    source: str
    hours: tuple[int, ...]
    rows: dict[str, int]  # asset -> rows, summed over hours
    metadata: dict[str, dict[str, Any]]  # asset -> metadata of its last materialisation, plain values
    skipped: dict[str, str]  # asset -> why, the first of what was skipped
    checks_failed: tuple[str, ...]  # "asset.check of hour: what was found; what to do"
    run_ids: tuple[str, ...]
    took_s: dict[str, float]  # job or asset -> seconds


def materialise(
    lake: Path,
    source: str,
    hours: Sequence[int],
    *,
    tracking_uri: str,
    learn: bool = True,
    start: str = "",
    end: str = "",
    style: str = "market",
    seed: int = 7,
    on_progress: Callable[[str], None] = lambda line: None,
) -> Driven:
    """Materialise hours of a source, then dataset, model, backtest and report, in this process.

    Args:
        hours: epoch hours; those that are up to date with what they are made from are left alone.
        learn: False leaves the model alone.
        start, end: window to learn from; empty: all of `hours`.

    Raises:
        AssetFailed: an asset failed; the runs until then are recorded.
    """
    os.environ["DAGSTER_HOME"] = str(prepare_dagster_home())
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    import dagster as dg

    from pipelines.definitions import defs
    from pipelines.partitions import key_of

    record = _Record()
    resources = {
        "lake": {"config": {"uri": str(lake), "source": source}},
        "tracking": {"config": {"uri": tracking_uri}},
    }
    loggers = {"console": {"config": {"log_level": "ERROR"}}}
    with dg.DagsterInstance.get() as instance:

        def run(job: str, assets: Sequence[str], ops: dict[str, Any], partition_key: str | None = None) -> None:
            asks_mlflow = job == "learn" or "features" in assets  # an hour of features is compared with the model
            needed = {name: config for name, config in resources.items() if asks_mlflow or name == "lake"}
            began_s = time.monotonic()
            result = defs.resolve_job_def(job).execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey(asset) for asset in assets] or None,
                partition_key=partition_key,
                run_config={"resources": needed, "loggers": loggers, "ops": ops},
                raise_on_error=False,
            )
            record.add(", ".join(assets) or job, result, time.monotonic() - began_s)

        for assets in STEPS:
            for hour in hours:
                if is_done(assets[-1], lake, source, hour, settings_module.load().slippage_bps):
                    continue
                on_progress(f"{', '.join(assets)} {hour_name(hour)}")
                # Whatever the clock says: the last of the hours is often the one that still runs.
                ops = {"raw_ticks": {"config": {"only_seal": True}}} if "raw_ticks" in assets else {}
                run("prepare", assets, ops, key_of(hour))
        if learn:
            window = {
                "hours": max(hours) - min(hours) + 1,
                "start": start or str(min(hours) * HOUR_S),
                "end": end or str((max(hours) + 1) * HOUR_S),
            }
            on_progress("dataset, model, backtest, report, gate")
            run(
                "learn",
                (),
                {
                    "dataset": {"config": window},
                    "model": {"config": {"seed": seed}},
                    "judged": {"config": {"style": style, "seed": seed}},
                },
            )
    return record.driven(source, tuple(hours))


def is_done(asset: str, lake: Path, source: str, hour: int, slippage_bps: float) -> bool:
    """Tell whether a run that ends with an asset would only write again what is there."""
    if asset != "labels":
        return is_current(lake, "seconds", source, hour, inputs_of_seconds(lake, source, hour))
    return is_current(lake, "features", source, hour, inputs_of_features(lake, source, hour)) and is_current(
        lake, "labels", source, hour, inputs_of_labels(lake, source, hour, slippage_bps=slippage_bps)
    )


class _Record:
    """Gathers what the runs left behind."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.metadata: dict[str, dict[str, Any]] = {}
        self.skipped: dict[str, str] = {}
        self.checks_failed: list[str] = []
        self.run_ids: list[str] = []
        self.took_s: dict[str, float] = {}

    def add(self, job: str, result: Any, took_s: float) -> None:
        """Take in one run.

        Raises:
            AssetFailed: one of its steps failed.
        """
        self.run_ids.append(result.run_id)
        self.took_s[job] = self.took_s.get(job, 0.0) + took_s
        for event in result.all_events:
            if event.is_step_success:
                duration_s = event.event_specific_data.duration_ms / 1000
                self.took_s[event.step_key] = self.took_s.get(event.step_key, 0.0) + duration_s
        for event in result.get_asset_materialization_events():
            name = event.asset_key.to_user_string()
            metadata = _plain(event.materialization.metadata)
            self.metadata[name] = metadata
            self.rows[name] = self.rows.get(name, 0) + int(metadata.get("rows", 0))
        for observed in result.get_asset_observation_events():
            data = observed.asset_observation_data.asset_observation
            if "skipped" in data.metadata:
                self.skipped.setdefault(data.asset_key.to_user_string(), str(data.metadata["skipped"].value))
        for check in result.get_asset_check_evaluations():
            if not check.passed:
                name = f"{check.asset_key.to_user_string()}.{check.check_name}"
                self.checks_failed.append(failing(name, check))
        failed = [event for event in result.all_events if event.is_step_failure]
        if not result.success and not (failed and all(_is_blocked(event) for event in failed)):
            raise AssetFailed(_failure(result.all_events))

    def driven(self, source: str, hours: tuple[int, ...]) -> Driven:
        return Driven(
            source=source,
            hours=hours,
            rows=self.rows,
            metadata=self.metadata,
            skipped=self.skipped,
            checks_failed=tuple(self.checks_failed),
            run_ids=tuple(self.run_ids),
            took_s={name: round(seconds, 2) for name, seconds in self.took_s.items()},
        )


def _plain(metadata: Any) -> dict[str, Any]:
    """Return metadata as JSON values; pictures stay in Dagster."""
    return {
        name: value.value
        for name, value in metadata.items()
        if isinstance(value.value, str | int | float | bool) and name != "plot"
    }


def failing(name: str, check: Any) -> str:
    """Return a check that failed as a person reads it: which hour, what was found, what to do."""
    hour = f" of {check.partition}" if check.partition else ""
    kind = "a warning: " if check.severity.value == "WARN" else ""
    told = _plain(check.metadata)
    advice = told.pop("what_to_do", None)
    found = ", ".join(f"{what.replace('_', ' ')} {value}" for what, value in told.items()) or check.description or ""
    return f"{name}{hour}: {kind}{found}" + (f"; {advice}" if advice else "")


def _is_blocked(event: Any) -> bool:
    error = event.step_failure_data.error
    return error is not None and error.cls_name == _BLOCKED


def _failure(events: Iterable[Any]) -> str:
    for event in events:
        if event.is_step_failure:
            data = event.step_failure_data
            described = data.user_failure_data.description if data.user_failure_data else None
            return (
                described
                or f"{event.step_key} failed: {data.error.message.strip() if data.error else 'no reason given'}"
            )
    return "a run failed before its first step: see the Dagster UI (make ui)"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m pipelines.drive",
        description="Materialise seconds, features and labels of the recorded hours of a source, then dataset, model, "
        "backtest and report, by Dagster's own jobs in this process. Progress goes to stderr, the last line on stdout "
        "is a JSON summary. Runs are visible in the Dagster UI afterwards.",
    )
    p.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    p.add_argument("--source", help="which source (default: that of MARKET, or the only one there is)")
    p.add_argument("--from", dest="start", help="first moment, like 2026-11-22T08:00, UTC (default: the first hour)")
    p.add_argument("--to", dest="end", help="end, exclusive (default: the last hour)")
    p.add_argument("--style", choices=("market", "post_only"), default="market", help="entries of the backtest")
    p.add_argument("--seed", type=int, default=7)
    p.add_argument("--no-learn", action="store_true", help="stop after the labels")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        settings = settings_module.load(lake_uri=args.lake)
        source = resolve_source(settings.lake, args.source, settings)
        start_s, end_s = window_of_text(args.start, args.end)
        hours = [
            hour
            for hour in read.hours(settings.lake, "raw/book", source)
            if (start_s is None or (hour + 1) * HOUR_S > start_s) and (end_s is None or hour * HOUR_S < end_s)
        ]
        if not hours:
            raise AssetFailed(
                f"recorded hours of {source} are needed in {settings.lake}, found none in the window: "
                "run python -m pipelines.generate or python -m pipelines.collect first"
            )
        driven = materialise(
            settings.lake,
            source,
            hours,
            tracking_uri=settings.tracking_uri,
            learn=not args.no_learn,
            start=str(start_s or ""),
            end=str(end_s or ""),
            style=args.style,
            seed=args.seed,
            on_progress=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(summary(driven), ensure_ascii=False))
    return 0


def summary(driven: Driven) -> dict[str, Any]:
    """Return what a program that calls us wants to know; `skipped` says why there is no model, "" where one is."""
    backtest = driven.metadata.get("backtest")
    return {
        "command": "drive",
        "source": driven.source,
        "market": "generated" if driven.source.startswith("simulator-g") else "real",
        "hours": [hour_name(hour) for hour in driven.hours],
        "rows": driven.rows,
        "features": len(FEATURES),
        "dataset": driven.metadata.get("dataset"),
        "model": driven.metadata.get("model"),
        "backtest": backtest,
        "report": backtest["path"] if backtest else None,
        "skipped": next(iter(driven.skipped.values()), ""),
        "checks_failed": list(driven.checks_failed),
        "run_ids": list(driven.run_ids),
        "took_s": driven.took_s,
    }


if __name__ == "__main__":
    entry.run(main)
