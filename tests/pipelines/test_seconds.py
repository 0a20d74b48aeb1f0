"""Hours are cut out of one stream: seconds, features and labels do not know where the borders are."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipelines import seconds as seconds_module
from pipelines.features import RULE, write_features, write_labels
from pipelines.prepare import prepare
from pipelines.seconds import sample, to_frame, write_seconds
from shared.errors import TableEmpty
from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph
from shared.features.sampler import COLUMNS, Sampler
from shared.labels import label_seconds
from shared.lake import read
from shared.limits import HORIZON_S
from shared.types import NS, Seconds
from tests.pipelines.conftest import World


@pytest.fixture(scope="module")
def whole(world: World) -> tuple[tuple[str, ...], Seconds]:
    """Return the seconds of the world sampled in one go, without any border."""
    symbols = read.universe_between(world.lake, world.source, world.start_s * NS, world.end_s * NS).symbols
    ticks = read.read_ticks(world.lake, world.source, world.start_s * NS, world.end_s * NS, symbols)
    return symbols, Sampler(len(symbols), world.start_s).step(ticks, world.end_s)


@pytest.fixture(scope="module")
def prepared(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return a copy of the world with seconds, features and labels written hour by hour."""
    lake = tmp_path_factory.mktemp("prepared") / "lake"
    shutil.copytree(world.lake / "raw", lake / "raw")
    shutil.copytree(world.lake / "universe", lake / "universe")
    prepare(lake, world.source, slippage_bps=2.0)
    return World(lake, world.source, world.hours, world.start_s, world.end_s)


def test_hours_of_seconds_equal_the_uninterrupted_stream(
    prepared: World, whole: tuple[tuple[str, ...], Seconds]
) -> None:
    """Two hours sampled apart, each from its raw rows and 30 s before, are the stream bit for bit."""
    symbols, expected = whole

    found = read.read_seconds(prepared.lake, prepared.source, prepared.start_s, prepared.end_s, symbols)

    for name in COLUMNS:
        if name not in ("book_updates", "ticker_updates"):  # 0 or absent where nothing was heard
            np.testing.assert_array_equal(found.columns[name], expected.columns[name], err_msg=name)


def test_hours_of_features_equal_the_uninterrupted_stream(
    prepared: World, whole: tuple[tuple[str, ...], Seconds]
) -> None:
    """Features stored by the hour, with the lookback of the hour before, are those of one pass, bit for bit."""
    symbols, stream = whole
    graph = FeatureGraph(FEATURES, symbols)
    expected = graph.step(stream.columns, stream.first_second)

    frame = read.collect(read.scan(prepared.lake, "features", prepared.source, end_s=prepared.end_s))
    found = read.to_arrays(frame, prepared.start_s, prepared.end_s, symbols)

    for f, name in enumerate(graph.names):
        np.testing.assert_array_equal(found[name].astype(np.float32), expected[:, :, f], err_msg=name)


def test_labels_look_across_the_border_of_their_hour(prepared: World, whole: tuple[tuple[str, ...], Seconds]) -> None:
    """The last labels of an hour are decided in the next one, as if there were no border."""
    contracts = read.universe_at(prepared.lake, prepared.source, prepared.end_s * NS).contracts
    expected = label_seconds(
        to_frame(*whole),
        RULE,
        taker_fee={contract.symbol: float(contract.taker_fee) for contract in contracts},
        maker_fee={contract.symbol: float(contract.maker_fee) for contract in contracts},
        slippage_bps=2.0,
    ).sort("second", "symbol")

    found = read.collect(read.scan(prepared.lake, "labels", prepared.source, end_s=prepared.end_s))

    for name in expected.columns[2:]:
        horizon_s = int(name.removeprefix("mid_bps_").removesuffix("s")) if name.startswith("mid_bps_") else HORIZON_S
        is_decided = pl.col("second") < prepared.end_s - horizon_s - 1
        got, wanted = (frame.filter(is_decided).select("second", "symbol", name) for frame in (found, expected))
        assert got.equals(wanted), name
        assert len(got) > 0
    found = found.filter(pl.col("second") < prepared.end_s - HORIZON_S - 1)
    assert found["label"].null_count() == 0


def test_labels_are_complete_while_the_next_hour_is_only_raw(prepared: World, tmp_path: Path) -> None:
    """Where the next hour has no seconds yet, the few that are needed are sampled from its raw rows."""
    lake = tmp_path / "lake"
    shutil.copytree(prepared.lake, lake)
    shutil.rmtree(lake / "labels")
    seconds = next(lake.glob(f"seconds/source=*/date=*/hour={(prepared.hours[1] % 24):02d}"))
    shutil.rmtree(seconds)

    frame = write_labels(lake, prepared.source, prepared.hours[0], slippage_bps=2.0)

    stored = read.collect(read.scan(prepared.lake, "labels", prepared.source, end_s=prepared.hours[1] * 3600))
    assert frame.sort("second", "symbol").equals(stored.sort("second", "symbol").select(frame.columns))


def test_slices_of_raw_rows_change_nothing(prepared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many symbols' raw rows are read at once is a matter of memory, not of results."""
    _, expected = sample(prepared.lake, prepared.source, prepared.start_s, prepared.start_s + 200)
    monkeypatch.setattr(seconds_module, "SYMBOL_SECONDS", 3 * 230)

    _, found = sample(prepared.lake, prepared.source, prepared.start_s, prepared.start_s + 200)

    for name in COLUMNS:
        np.testing.assert_array_equal(found.columns[name], expected.columns[name], err_msg=name)


def test_what_is_current_is_left_alone(prepared: World) -> None:
    """A second preparation writes nothing; other costs make other labels, and only labels."""
    again = prepare(prepared.lake, prepared.source, slippage_bps=2.0)
    dearer = prepare(prepared.lake, prepared.source, slippage_bps=3.0)

    assert again == []
    assert {table for table, _ in dearer} == {"labels"}
    prepare(prepared.lake, prepared.source, slippage_bps=2.0)


def test_hour_without_rows_says_what_to_run(prepared: World) -> None:
    """Each step of an hour that nobody recorded ends in a sentence that names the next command."""
    for work in (write_seconds, write_features):
        with pytest.raises(TableEmpty, match=r"pipelines\.generate|materialise"):
            work(prepared.lake, prepared.source, prepared.hours[0] - 40)


def test_silent_rows_are_not_stored() -> None:
    """A second in which a symbol has neither state nor coverage nor updates is absent, not a row of NaN."""
    columns = {name: np.full((2, 2), np.nan) for name in COLUMNS}
    for name in COLUMNS:
        if "_size_" in name or name.endswith("_updates"):
            columns[name][:] = 0.0
    columns["buy_volume_usdt"][1, 0] = 0.0

    frame = to_frame(("AUSDT", "BUSDT"), Seconds(100, columns))

    assert frame.select("second", "symbol").rows() == [(101, "AUSDT")]
