"""Where the assets find the lake, the source, MLflow and Dagster's own home; resolved from settings by default."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import dagster as dg

from shared import settings as settings_module
from shared.errors import SettingsError, TableEmpty
from shared.lake import read
from shared.settings import ROOT, Settings

SIMULATOR_SOURCE = "simulator-g7-40"
"""What `python -m shared.simulator` serves by default: the generated market of seed 7 with 40 symbols."""


def default_source(settings: Settings) -> str:
    """Return the source that MARKET stands for."""
    return "bitget" if settings.market == "bitget" else SIMULATOR_SOURCE


def resolve_source(lake: Path, wanted: str | None, settings: Settings) -> str:
    """Return the source to read: the one asked for, else MARKET's, else the only other one that the lake holds.

    Sources are never pooled, so several of them and none asked for is a question back.

    Raises:
        TableEmpty: the lake holds nothing of it.
        SettingsError: the lake holds several others.
    """
    held = read.sources(lake)
    source = wanted or default_source(settings)
    if source in held:
        return source
    names = ", ".join(held) or "none"
    if not held:
        raise TableEmpty(
            f"source {source} is needed in {lake}, found {names}: "
            "run python -m pipelines.generate or python -m pipelines.collect first"
        )
    if wanted:
        raise TableEmpty(f"source {source} is needed in {lake}, found {names}: choose one of these, or record it first")
    if settings.market == "bitget" and all(name.startswith("simulator") for name in held):
        raise TableEmpty(
            f"source bitget is needed in {lake} for MARKET=bitget, found {names}: record it with python -m "
            "pipelines.collect, or choose a simulated market by --source"
        )
    if len(held) > 1:
        raise SettingsError(f"one source to read, found {names} in {lake} and none named {source}: give --source")
    return held[0]


class LakeResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The lake and the source that a run works on. Empty fields mean: as the settings say."""

    uri: str = ""
    source: str = ""

    @property
    def root(self) -> Path:
        return settings_module.load(lake_uri=self.uri or None).lake

    @property
    def name(self) -> str:
        """Return the source's name."""
        return self.source or default_source(settings_module.load())


class TrackingResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The MLflow database. Empty means: as the settings say."""

    uri: str = ""

    @property
    def address(self) -> str:
        return self.uri or settings_module.load().tracking_uri


def prepare_dagster_home(root: Path = ROOT) -> Path:
    """Return DAGSTER_HOME (default .dagster), made ready with our dagster.yaml where it has none.

    Raises:
        SettingsError: DAGSTER_HOME is not absolute, which Dagster refuses.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or root / ".dagster")
    if not home.is_absolute():
        raise SettingsError(f"DAGSTER_HOME must be an absolute path, found {str(home)!r}: correct or unset it")
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        shutil.copyfile(root / "deploy" / "dagster.yaml", home / "dagster.yaml")
    return home
