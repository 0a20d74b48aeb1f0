"""Drift: the index by hand and by its properties, the reference that lies with a model, and what turns an hour red."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines import drift
from pipelines.drift import (
    LIMIT,
    ROWS_MIN,
    Bins,
    Moved,
    Reference,
    edges_of,
    feature_drift,
    judged,
    moved,
    read_reference,
    reference_of,
    shares_of,
    stability,
    write_reference,
)
from pipelines.features import write_features
from pipelines.rows import Dataset
from pipelines.seconds import to_frame
from pipelines.validation import Fold, walk_forward
from shared.errors import ModelMismatch, ModelMissing, NotEnoughData
from shared.features.catalog import FEATURES
from shared.features.graph import definition_hash
from shared.lake import read, write
from shared.lake.layout import HOUR_S
from shared.types import NS, Floats
from tests.live.sessions import Rig
from tests.pipelines.markets import HOUR, SOURCE, market, universe
from tests.pipelines.test_training import planted

shares = st.lists(st.floats(1e-3, 1.0), min_size=11, max_size=11).map(lambda x: np.asarray(x) / sum(x))


def test_index_of_a_hand_worked_table() -> None:
    """Three bins of a scorecard, worked on paper: 0.1 ln 2 + 0.1 ln 1.5 = 0.1098612."""
    before, after = np.array([0.1, 0.6, 0.3, 0.0]), np.array([0.2, 0.6, 0.2, 0.0])  # the last: nothing is missing

    assert stability(before, after) == pytest.approx(0.1 * math.log(2) + 0.1 * math.log(1.5), abs=1e-12)
    assert stability(before, after) == pytest.approx(0.1098612, abs=1e-7)


def test_index_of_a_sample_worked_by_hand() -> None:
    """Of 1 … 100 each tenth holds ten; where the lowest two go to the highest, PSI is 1.51."""
    before = np.arange(1, 101, dtype=np.float32)
    after = np.where(before <= 20, 200, before).astype(np.float32)

    edges = edges_of(before)
    p, q = shares_of(before, edges), shares_of(after, edges)

    assert edges.tolist() == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    # A bin holds its lower edge: 9, eight times 10, 11.
    assert (p * 100).round(9).tolist() == [9, 10, 10, 10, 10, 10, 10, 10, 10, 11, 0]
    assert (q * 100).round(9).tolist() == [0, 0, 9, 10, 10, 10, 10, 10, 10, 31, 0]
    # 0.0899 ln 900 + 0.0999 ln 1000 + 0.01 ln (10/9) + 0.2 ln (31/11), an empty bin counting as 0.0001
    by_hand = 0.0899 * math.log(900) + 0.0999 * math.log(1000) + 0.01 * math.log(10 / 9) + 0.2 * math.log(31 / 11)
    assert by_hand == pytest.approx(1.51, abs=5e-4)
    assert stability(p, q) == pytest.approx(by_hand, abs=1e-9)


@given(shares, shares)
def test_index_is_symmetric_and_never_negative(p: Floats, q: Floats) -> None:
    """Which of the two came first does not matter, nothing is nearer than the same, and the same is 0."""
    assert stability(p, q) == pytest.approx(stability(q, p), rel=1e-12)
    assert stability(p, q) >= 0.0
    assert stability(p, p) == 0.0


@given(st.integers(0, 2**32), st.sampled_from(["normal", "lognormal", "few", "constant"]))
def test_same_population_has_next_to_none(seed: int, kind: str) -> None:
    """Two samples of one population are within 0.02 of one another, whatever its shape; a sample and itself are 0."""
    rng = np.random.default_rng(seed)

    def sample() -> NDArray[np.float32]:
        draw = rng.standard_normal(5_000)
        of = {"normal": draw, "lognormal": np.exp(2 * draw), "few": np.rint(draw), "constant": draw * 0 + 3}
        return of[kind].astype(np.float32)

    one, other = sample(), sample()
    edges = edges_of(one)

    assert stability(shares_of(one, edges), shares_of(one, edges)) == 0.0
    assert stability(shares_of(one, edges), shares_of(other, edges)) < 0.02


@given(st.integers(0, 2**32))
def test_index_grows_with_the_shift(seed: int) -> None:
    """The further a population has moved, the larger its index; by one deviation it is far above the limit."""
    before = np.random.default_rng(seed).standard_normal(5_000)
    edges = edges_of(before)
    p = shares_of(before, edges)

    found = [stability(p, shares_of(before + shift, edges)) for shift in (0.1, 0.3, 1.0, 2.0)]

    assert found == sorted(found)
    assert found[0] < 0.1
    assert found[2] > 2 * LIMIT


@pytest.mark.parametrize("change", [-1.0, 1.0, 1e-6])
def test_constant_that_changes_is_seen(change: float) -> None:
    """All rows of a constant lie in one bin of its own: the least step out of it, up or down, is drift."""
    before = np.full(2_000, 0.5, np.float32)
    edges = edges_of(before)

    after = before + np.float32(change)

    assert stability(shares_of(before, edges), shares_of(after, edges)) > 10


def test_missing_values_are_a_bin_of_their_own() -> None:
    """What is missing counts, and only there; a feature that nobody ever had is no drift until it comes."""
    before = np.arange(1_000, dtype=np.float32)
    after = np.where(before % 2 == 0, np.nan, before)
    edges = edges_of(before)
    q = shares_of(after, edges)

    few = np.where(before % 100 == 0, np.nan, before)
    assert stability(shares_of(before, edges), shares_of(few, edges)) < 0.001, "a hundredth is no drift"
    assert q[-1] == 0.5
    assert q.sum() == pytest.approx(1.0)
    assert stability(shares_of(before, edges), q) > LIMIT
    never = np.full(1_000, np.nan)
    assert edges_of(never).tolist() == []
    assert stability(shares_of(never, edges_of(never)), shares_of(never, edges_of(never))) == 0.0
    assert stability(shares_of(never, edges_of(never)), shares_of(before, edges_of(never))) > LIMIT


# ----------------------------------------------------------------------------------------------- the reference


def last_fold(dataset: Dataset) -> Fold:
    return walk_forward(np.unique(dataset.second), reach_s=dataset.rule.reach_s, lookback_s=dataset.lookback_s)[-1]


def test_reference_is_of_the_rows_that_were_learnt(tmp_path: Path) -> None:
    """It holds every feature that the fit saw, shares that sum to one, and comes back from its file as it was."""
    dataset = planted()
    dataset = msgspec.structs.replace(dataset, missing=(0.25, *[0.0] * 7))
    fold = last_fold(dataset)

    reference = reference_of(dataset, fold)
    write_reference(tmp_path, reference)

    assert read_reference(tmp_path) == reference
    assert set(reference.features) == set("abdefgh"), "c is absent"
    begin, end = np.searchsorted(dataset.second, [fold.fit.start_s, fold.fit.end_s])
    assert reference.rows == end - begin, "of the symbols that were held out, too"
    assert (reference.from_s, reference.to_s) == (fold.fit.start_s, fold.fit.end_s)
    assert reference.features["a"].shares[-1] == pytest.approx(0.25)
    assert all(sum(bins.shares) == pytest.approx(1.0) for bins in reference.features.values())
    assert all(bins.limit == LIMIT for bins in reference.features.values()), "noise stays where it is"
    assert reference_of(dataset, fold) == reference, "the same rows give the same reference"


def test_what_always_wanders_has_a_limit_of_its_own() -> None:
    """A feature that climbs through the training rows is allowed to be elsewhere; one that stood still is not."""
    dataset = planted()
    features = dataset.features.copy()
    features[:, 1] = np.linspace(0.0, 1.0, dataset.rows)
    dataset = msgspec.structs.replace(dataset, features=features)

    reference = reference_of(dataset, last_fold(dataset))

    assert reference.features["b"].limit > 2.0
    assert reference.features["a"].limit == LIMIT


def test_reference_that_is_missing_or_broken_is_one_sentence(tmp_path: Path) -> None:
    """An older model has none, a cut file is none: each says what to do."""
    with pytest.raises(ModelMissing, match="train again"):
        read_reference(tmp_path)
    (tmp_path / drift.FILE).write_text('{"format_version": 1')
    with pytest.raises(ModelMismatch, match="altered or cut"):
        read_reference(tmp_path)
    reference = Reference(
        format_version=9, source="s", definition_hash="", from_s=0, to_s=1, rows=0, stretches=1, features={}
    )
    write_reference(tmp_path, reference)
    with pytest.raises(ModelMismatch, match="found 9"):
        read_reference(tmp_path)


def bins(values: NDArray[np.float32]) -> Bins:
    edges = edges_of(values)
    return Bins(edges=tuple(edges.tolist()), shares=tuple(shares_of(values, edges).tolist()), usual=0.0)


def made_reference(**values: NDArray[np.float32]) -> Reference:
    return Reference(
        source=SOURCE, definition_hash=definition_hash(FEATURES), from_s=0, to_s=HOUR_S, rows=1, stretches=6,
        features={name: bins(one) for name, one in values.items()},
    )  # fmt: skip


def test_shifted_feature_is_named_with_what_moved() -> None:
    """One of three features has moved: the verdict is red, names it, and says from where to where."""
    rng = np.random.default_rng(1)
    before = {name: rng.standard_normal(5_000).astype(np.float32) for name in "abc"}
    reference = made_reference(**before)
    after = {name: rng.standard_normal(4_000).astype(np.float32) for name in "abc"}

    same = judged(moved(reference, after), "version 1", reference)
    after["b"] = after["b"] + np.float32(3)
    after["c"][:40] = np.nan
    found = moved(reference, after)
    verdict = judged(found, "version 1", reference)

    assert same.passed
    assert same.metadata["above"] == 0
    assert not verdict.passed
    assert verdict.metadata["features"] == "b"
    assert (verdict.metadata["above"], verdict.metadata["judged"]) == (1, 3)
    assert found[0].feature == "b"
    assert "and above, was 10" in found[0].why
    by_name: dict[str, Moved] = {one.feature: one for one in found}
    assert by_name["c"].missing == pytest.approx(0.01)
    assert "| b |" in verdict.metadata["worst"].markdown


def test_too_few_rows_are_not_judged() -> None:
    """Below a thousand rows nothing can be told from chance."""
    reference = made_reference(a=np.arange(5_000, dtype=np.float32))

    with pytest.raises(NotEnoughData, match=f"{ROWS_MIN} rows at least"):
        moved(reference, {"a": np.zeros(ROWS_MIN - 1, np.float32)})


# ------------------------------------------------------------------------------------------------ by the hour


def write_hour(lake: Path, *, rows: int = 400, n_symbols: int = 4) -> None:
    """Store an hour of features of a made market."""
    listed = universe(n_symbols, HOUR * HOUR_S * NS, SOURCE)
    write.write_universe(lake, listed)
    frame = to_frame(listed.symbols, market(HOUR * HOUR_S, rows, n_symbols, seed=3))
    write.write_table(lake, "seconds", SOURCE, HOUR, frame, {})
    write_features(lake, SOURCE, HOUR)


def test_hour_without_a_model_passes_and_says_so(tmp_path: Path) -> None:
    """Where nothing was trained there is nothing to compare with, and the question makes no database."""
    write_hour(tmp_path, rows=60, n_symbols=2)

    passed, told = feature_drift(f"sqlite:///{tmp_path}/mlflow.db", tmp_path, SOURCE, HOUR)

    assert passed
    assert "found none" in told["reason"]
    assert not (tmp_path / "mlflow.db").exists()


def test_hour_turns_red_when_a_feature_is_shifted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Green on its own rows; red, by name, once two features were shifted; not judged under other formulas."""
    write_hour(tmp_path)
    names = ("imbalance_5", "return_5s", "spread_bps", "funding_rate")
    values = {name: rows.astype(np.float32) for name, rows in drift.of_hour(tmp_path, SOURCE, HOUR, names).items()}
    reference = made_reference(**values)
    monkeypatch.setattr(drift, "in_use", lambda *_: ("version 2", reference))

    def look() -> tuple[bool, dict[str, object]]:
        return feature_drift("sqlite:///", tmp_path, SOURCE, HOUR)

    passed, told = look()
    assert passed
    assert (told["judged"], told["above"], told["psi_max"]) == (4, 0, 0.0)

    held = read.collect(read.scan(tmp_path, "features", SOURCE, start_s=HOUR * HOUR_S, end_s=(HOUR + 1) * HOUR_S))
    other = held.with_columns(pl.col("imbalance_5") + 1.0, pl.col("funding_rate") * 2)
    write.write_table(tmp_path, "features", SOURCE, HOUR, other, {"definition_hash": definition_hash(FEATURES)})
    passed, told = look()
    assert not passed
    assert told["features"] == "funding_rate, imbalance_5"

    write.write_table(tmp_path, "features", SOURCE, HOUR, other, {"definition_hash": "another"})
    passed, told = look()
    assert passed
    assert told["judged"] == 0


def test_of_many_rows_evenly_spaced_seconds_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour of more rows than are needed is thinned by a stride that is in step with no minute."""
    write_hour(tmp_path)
    monkeypatch.setattr(drift, "JUDGED_ROWS", 400)

    values = drift.of_hour(tmp_path, SOURCE, HOUR, ("spread_bps",))

    assert len(values["spread_bps"]) == pytest.approx(400 * 4 / 5, abs=4)


def test_features_of_a_session_can_be_judged(tmp_path: Path) -> None:
    """Those that live computed, from its journal, in every seventh second."""
    rig = Rig(tmp_path, "coin")
    rig.adopt()
    rig.trade(70)
    rig.journal.close()

    values = drift.of_session(tmp_path)

    assert set(values) == set(FEATURES)
    assert {len(rows) for rows in values.values()} == {10 * 4}
    assert np.isfinite(values["return_5s"]).mean() > 0.8
