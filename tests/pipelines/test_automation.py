"""What automation asks for after a change: evaluated as the daemon does, tick by tick, over events of a made-up lake."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import dagster as dg
import pytest

from pipelines import checks
from pipelines.definitions import FOLLOW, HOUR, defs, follow_candles, report_sessions
from pipelines.partitions import HOURLY, hour_of, key_of
from pipelines.verdicts import Verdict

H = 488_000
BLOCKING = {
    "raw_ticks": ("crossed_books", "duplicate_trades", "unknown_payloads", "clock_skew"),
    "coverage": ("coverage_share",),
}
ASKED_TOGETHER = {"coverage", "universe"}


class World:
    """An instance to which things happen, and what automation would run then."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self._made = set[tuple[str, int]]()
        self._cursor: dg.AssetDaemonCursor | None = None
        self.tick()

    def made(self, asset: str, hour: int, *, red: str = "") -> None:
        """Tell of an hour of an asset and of the checks that block, all passed but `red`."""
        self._made.add((asset, hour))
        self.instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=key_of(hour)))
        for name in BLOCKING.get(asset, ()):
            self.instance.report_runless_asset_event(
                checks.evaluation(
                    self.instance,
                    asset,
                    name,
                    key_of(hour),
                    Verdict(name != red, {}),
                    severity=dg.AssetCheckSeverity.ERROR,
                )
            )

    def made_again(self, asset: str, hour: int) -> None:
        """Tell of an hour that is made once more: by a run, because without one a check can only tell once."""
        again = dg.asset(name=asset, partitions_def=HOURLY)(lambda: None)

        def pass_(name: str) -> dg.AssetChecksDefinition:
            @dg.asset_check(asset=again, name=name, partitions_def=HOURLY)
            def check() -> dg.AssetCheckResult:
                return dg.AssetCheckResult(passed=True)

            return check

        dg.materialize(
            [again, *(pass_(name) for name in BLOCKING[asset])],
            instance=self.instance,
            partition_key=key_of(hour),
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            resources={"io_manager": dg.mem_io_manager},
        )

    def tick(self) -> dict[str, list[int]]:
        """Return the hours of each asset that are asked for, a minute after the last hour of these tests."""
        result = dg.evaluate_automation_conditions(
            defs,
            self.instance,
            cursor=self._cursor,
            evaluation_time=dt.datetime.fromtimestamp((H + 8) * 3600 + 60, dt.UTC),
            asset_selection=dg.AssetSelection.assets(*HOUR[1:]),
        )
        self._cursor = result.cursor
        return {
            one.key.to_user_string(): sorted(hour_of(key) for key in result.get_requested_partitions(one.key) if key)
            for one in result.results
            if result.get_num_requested(one.key)
        }

    def follow(self, most: int = 8) -> list[dict[str, list[int]]]:
        """Make everything that is asked for until nothing is; return what was asked for, tick by tick."""
        asked: list[dict[str, list[int]]] = []
        for _ in range(most):
            wanted = self.tick()
            if not wanted:
                return asked
            asked.append(wanted)
            for asset in HOUR[1:]:
                for hour in wanted.get(asset, ()):
                    (self.made_again if (asset, hour) in self._made and asset in BLOCKING else self.made)(asset, hour)
        raise AssertionError(f"automation asks for ever: {asked}")


@pytest.fixture
def world() -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(instance)


def test_sensors_are_stopped_and_cover_every_condition() -> None:
    """Nothing runs by itself, and no other sensor appears beside those that are listed."""
    sensors = {sensor.name: sensor for sensor in defs.get_repository_def().sensor_defs}

    assert set(sensors) == {FOLLOW.name, follow_candles.name, report_sessions.name}
    assert {sensor.default_status for sensor in sensors.values()} == {dg.DefaultSensorStatus.STOPPED}


def test_sealed_hour_is_followed_to_its_labels(world: World) -> None:
    """Coverage and universe first, in one run; seconds once both are there; features and labels then. Then peace."""
    world.made("raw_ticks", H)

    assert world.follow() == [
        {"coverage": [H], "universe": [H]},
        {"seconds": [H]},
        {"features": [H], "labels": [H]},
    ]


def test_missing_hour_holds_up_no_later_one(world: World) -> None:
    """Nobody recorded the hour between: nothing is asked for it, and the next is followed to its end."""
    world.made("raw_ticks", H)
    world.follow()

    world.made("raw_ticks", H + 2)
    asked = world.follow()

    assert asked[-1] == {"features": [H + 2], "labels": [H + 2]}
    assert not [hours for tick in asked for hours in tick.values() if hours != [H + 2]]


def test_next_hour_completes_the_labels_of_the_one_before(world: World) -> None:
    """The last half minute of labels is decided in the next hour; features of an hour never look there."""
    world.made("raw_ticks", H)
    world.follow()

    world.made("raw_ticks", H + 1)

    assert world.follow()[-1] == {"features": [H + 1], "labels": [H, H + 1]}


def test_checks_of_the_recorder_block() -> None:
    """What the conditions ask for is what is declared."""
    specs = [spec for check in checks.CHECKS for spec in check.check_specs if spec.blocking]

    assert {(spec.asset_key.to_user_string(), spec.name) for spec in specs} == {
        (asset, name) for asset, names in BLOCKING.items() for name in names
    }


def test_red_raw_hour_is_not_followed(world: World) -> None:
    """One check is enough; the hour after it goes its way, and a repaired hour is followed."""
    world.made("raw_ticks", H, red="clock_skew")
    assert world.tick() == {}

    world.made("raw_ticks", H + 1)
    assert world.tick() == {"coverage": [H + 1], "universe": [H + 1]}

    world.made_again("raw_ticks", H)
    assert world.tick() == {"coverage": [H], "universe": [H]}


def test_red_coverage_holds_up_its_hour_alone(world: World) -> None:
    """Seconds, features and labels of a badly covered hour wait for a person; the hours beside do not."""
    world.made("raw_ticks", H)
    assert set(world.tick()) == ASKED_TOGETHER
    world.made("universe", H)
    world.made("coverage", H, red="coverage_share")
    assert world.follow() == []

    world.made("raw_ticks", H + 1)
    asked = world.follow()

    assert asked[-1] == {"features": [H + 1], "labels": [H + 1]}
    assert not [hours for tick in asked for hours in tick.values() if H in hours]


def test_rows_that_came_late_are_followed_again(world: World) -> None:
    """A raw hour that is sealed again makes everything on it anew, and the neighbour that looks at it."""
    for hour in (H, H + 1):
        world.made("raw_ticks", hour)
        world.follow()

    world.made_again("raw_ticks", H)
    asked = world.follow()

    made = {(asset, hour) for tick in asked for asset, hours in tick.items() for hour in hours}
    again = {(asset, hour) for asset in ("seconds", "features", "labels") for hour in (H, H + 1)}
    assert made == {("coverage", H), ("universe", H)} | again


def test_what_a_schedule_has_made_is_not_made_again(world: World) -> None:
    """Schedule and sensor may both be on: an hour that a run has made to its end is left alone."""
    for hour in (H, H + 1):
        for asset in HOUR:
            world.made(asset, hour)

    assert world.follow() in ([], [{"labels": [H]}])
    assert world.follow() == []


def test_many_hours_are_asked_for_at_once(world: World) -> None:
    """A day that was imported is a few runs, not some for each hour."""
    hours = [H + n for n in range(6)]
    for hour in hours:
        world.made("raw_ticks", hour)

    asked = world.follow()

    assert asked[0] == {"coverage": hours, "universe": hours}
    assert len(asked) <= 4
