"""One small world for the slow tests: generated history, driven through Dagster once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pipelines.drive import Driven, materialise
from pipelines.generate import generate
from shared.simulator.markets.market import GeneratedMarket
from tests.pipelines.markets import HOUR

MINUTES = 20
SYMBOLS = 12


class World(msgspec.Struct, frozen=True):
    """A lake with raw rows on both sides of an hour's border, and what was made of it."""

    lake: Path
    source: str
    hours: tuple[int, int]
    start_s: int
    end_s: int


class DrivenWorld(msgspec.Struct, frozen=True):
    world: World
    home: Path
    tracking_uri: str
    driven: Driven


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    lake = tmp_path_factory.mktemp("world")
    border_s = (HOUR + 1) * 3600
    start_s, end_s = border_s - MINUTES * 30, border_s + MINUTES * 30
    made = generate(GeneratedMarket(7, SYMBOLS), lake, start_s, end_s)
    return World(lake, made.source, (HOUR, HOUR + 1), start_s, end_s)


@pytest.fixture(scope="session")
def driven_world(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DrivenWorld]:
    """Return the world after every asset was materialised."""
    home = tmp_path_factory.mktemp("dagster")
    tracking_uri = f"sqlite:///{tmp_path_factory.mktemp('mlruns')}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        driven = materialise(world.lake, world.source, world.hours, tracking_uri=tracking_uri)
        yield DrivenWorld(world, home, tracking_uri, driven)
