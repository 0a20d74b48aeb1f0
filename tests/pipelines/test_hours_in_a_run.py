"""A real instance, real runs: many hours in one process, checks that block, retries that go on with the hour."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from pipelines import assets, checks, ticks
from pipelines.definitions import defs
from pipelines.partitions import key_of
from pipelines.resources import LakeResource
from pipelines.ticks import Hour, HourTaken, RecorderFailed
from pipelines.verdicts import Verdict
from shared.errors import TableCorrupt
from shared.lake import coverage, read
from shared.lake.layout import partition_path
from tests.pipelines.conftest import DrivenWorld, World

RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
DERIVED = ("coverage", "seconds", "features", "labels")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        yield instance


def copied(world: World, lake: Path) -> Path:
    """Return a lake with the raw rows of the world alone."""
    for table in ("raw", "universe"):
        shutil.copytree(world.lake / table, lake / table)
    return lake


def run(
    instance: dg.DagsterInstance, lake: Path, source: str, assets: tuple[str, ...], *hours: int, **options: Any
) -> dg.ExecuteInProcessResult:
    """Run assets of one hour, or of all hours from the first to the last in one run."""
    span = dict(zip(RANGE, (key_of(hours[0]), key_of(hours[-1])), strict=True)) if len(hours) > 1 else {}
    return defs.resolve_job_def("prepare").execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(asset) for asset in assets],
        partition_key=None if span else key_of(hours[0]),
        tags=span,
        run_config={
            "resources": {
                "lake": {"config": {"uri": str(lake), "source": source}},
                **({"tracking": {"config": {"uri": f"sqlite:///{lake}/mlflow.db"}}} if "features" in assets else {}),
            },
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        raise_on_error=False,
        **options,
    )


def made(result: dg.ExecuteInProcessResult) -> dict[str, list[str]]:
    """Return asset -> partitions that a run has materialised."""
    found: dict[str, list[str]] = {}
    for event in result.get_asset_materialization_events():
        assert event.asset_key is not None
        found.setdefault(event.asset_key.to_user_string(), []).append(str(event.partition))
    return found


def told(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], dict[str, Any]]:
    """Return (asset, partition) -> what was observed of hours that were not made."""
    observed = [event.asset_observation_data.asset_observation for event in result.get_asset_observation_events()]
    return {
        (one.asset_key.to_user_string(), str(one.partition)): {k: v.value for k, v in one.metadata.items()}
        for one in observed
    }


def turn_red(monkeypatch: pytest.MonkeyPatch, name: str, hour: int) -> None:
    """Let one check of one hour find something."""
    judge = checks._judge

    def judged(check: Any, lake: LakeResource, of_hour: int) -> tuple[Verdict, bool]:
        if (check.__name__, of_hour) == (name, hour):
            return Verdict(False, {"planted": 1}), True
        return judge(check, lake, of_hour)

    monkeypatch.setattr(checks, "_judge", judged)


def test_many_hours_in_a_run_equal_runs_of_one(
    driven_world: DrivenWorld, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """Bit for bit, in every table; an hour that nobody recorded is told and not materialised, and stops nothing."""
    world = driven_world.world
    lake = copied(world, tmp_path / "lake")
    missing, *hours = world.hours[0] - 1, *world.hours

    result = run(instance, lake, world.source, ("universe", *DERIVED), missing, *hours)

    assert result.success
    assert made(result) == {asset: [key_of(hour) for hour in hours] for asset in ("universe", *DERIVED)}
    assert set(told(result)) == {(asset, key_of(missing)) for asset in ("universe", *DERIVED)}
    assert all("found" in reason["skipped"] for reason in told(result).values())
    for table in DERIVED:
        for hour in hours:
            there, here = (partition_path(root, table, world.source, hour) for root in (world.lake, lake))
            assert read.footer(here).content_hash == read.footer(there).content_hash, (table, hour)
    judged = {
        (check.check_name, check.partition): check.passed
        for check in result.get_asset_check_evaluations()
        if check.partition is not None
    }
    assert all(judged["coverage_share", key_of(hour)] for hour in hours)
    assert not judged["coverage_share", key_of(missing)]


def test_red_hour_is_left_out_of_a_run_of_many(
    world: World, tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands on it is not made, the others go on, and the run says which and why."""
    lake = copied(world, tmp_path / "lake")
    turn_red(monkeypatch, "coverage_share", world.hours[0])

    result = run(instance, lake, world.source, ("universe", "coverage", "seconds"), *world.hours)

    first, second = map(key_of, world.hours)
    assert result.success
    assert made(result)["coverage"] == [first, second]
    assert made(result)["seconds"] == [second]
    assert told(result) == {("seconds", first): {"skipped": "not made: coverage.coverage_share is red"}}


def test_hour_that_fails_does_not_stop_the_others(
    world: World, tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file fails its hour in the lake's sentence, and the other hours are made all the same."""
    lake = copied(world, tmp_path / "lake")
    write = coverage.write_coverage

    def damaged(root: Path, source: str, hour: int) -> Any:
        if hour == world.hours[0]:
            raise TableCorrupt(f"{root}/book.parquet must be a file of the lake, found half of one: move it away")
        return write(root, source, hour)

    monkeypatch.setattr(coverage, "write_coverage", damaged)

    result = run(instance, lake, world.source, ("coverage",), *world.hours)

    first, second = map(key_of, world.hours)
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert not result.success
    assert made(result) == {"coverage": [second]}
    assert "book.parquet" in told(result)["coverage", first]["failed"]
    assert failure.step_failure_data.user_failure_data is not None
    assert str(failure.step_failure_data.user_failure_data.description).startswith("1 of 2 hours could not be made")


@pytest.mark.parametrize(
    ("asset", "name", "stopped"),
    [("raw_ticks", "crossed_books", {"universe", "coverage"}), ("coverage", "coverage_share", {"seconds"})],
)
def test_red_check_blocks_what_stands_behind_it(
    asset: str,
    name: str,
    stopped: set[str],
    world: World,
    tmp_path: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the run of an hour nothing behind it starts; a run without the check, by hand, is not held up."""
    lake = copied(world, tmp_path / "lake")
    turn_red(monkeypatch, name, world.hours[0])

    result = run(instance, lake, world.source, ("raw_ticks", "universe", "coverage", "seconds"), world.hours[0])

    assert not result.success
    assert asset in made(result)
    assert not stopped & set(made(result))
    by_hand = run(instance, lake, world.source, (sorted(stopped)[0],), world.hours[0])
    assert made(by_hand) == {sorted(stopped)[0]: [key_of(world.hours[0])]}


def sealed() -> Hour:
    return Hour(rows={}, bytes=0, duplicates=0, torn_bytes=0, died=("hour1-1-1",), recorded_s=1.0)


def test_recorder_that_fails_is_tried_again_in_the_same_run(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exchange that is away for a moment costs a retry, not the hour."""
    tries: list[int] = []

    def seal_or_record(*_: Any, **__: Any) -> Hour:
        tries.append(1)
        if len(tries) < 3:
            raise RecorderFailed("the exchange must answer, found silence: wait", is_transient=True)
        return sealed()

    monkeypatch.setattr(ticks, "seal_or_record", seal_or_record)
    monkeypatch.setattr(assets.raw_ticks.op, "_retry_policy", dg.RetryPolicy(max_retries=assets.RETRY.max_retries))

    result = run(instance, tmp_path / "lake", "simulator-test", ("raw_ticks",), 490_000)

    assert len(tries) == 3
    assert [event.event_type_value for event in result.all_events].count("STEP_RESTARTED") == 2
    assert "raw_ticks" in made(result)


def test_recorder_that_cannot_work_is_not_tried_again(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong settings stay wrong; the run fails in the recorder's own words."""

    def seal_or_record(*_: Any, **__: Any) -> Hour:
        raise RecorderFailed("MARKET must be bitget or simulator, found x: correct it", is_transient=False)

    monkeypatch.setattr(ticks, "seal_or_record", seal_or_record)

    result = run(instance, tmp_path / "lake", "simulator-test", ("raw_ticks",), 490_000)

    assert not result.success
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert failure.step_failure_data.user_failure_data is not None
    assert "MARKET must be" in str(failure.step_failure_data.user_failure_data.description)
    assert not [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]


def test_hour_that_another_run_records_is_skipped(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run of an hour says so and ends well; nothing behind it is made from half an hour."""

    def seal_or_record(*_: Any, **__: Any) -> Hour:
        raise HourTaken("2025-11-24 16:00Z of x must be recorded by one run, found another one at it: look at that one")

    monkeypatch.setattr(ticks, "seal_or_record", seal_or_record)

    result = run(instance, tmp_path / "lake", "simulator-test", ("raw_ticks", "coverage"), 490_000)

    assert result.success
    assert made(result) == {}
    assert "another one at it" in told(result)["raw_ticks", key_of(490_000)]["skipped"]
