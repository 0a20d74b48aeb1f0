"""Training: what it learns from a planted signal, what it refuses, and that it repeats."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from pipelines.rows import Dataset
from pipelines.training import Trained, expected_edge_bps, figures_of, fit_and_judge, independent_features
from pipelines.validation import LeakySplit, check_gap, gap_s, log_loss, rank_ic, walk_forward
from shared.errors import NotEnoughData
from shared.labels import HORIZONS_S, Rule
from shared.model import FLAT, LONG, SHORT

START = 1_760_000_000


def planted(
    *, seconds: int = 1600, symbols: int = 8, signal: float = 1.0, seed: int = 5, scale: float = 12.0
) -> Dataset:
    """Return rows whose outcome follows the first feature by `signal`; the third is missing, the others are noise."""
    rng = np.random.Generator(np.random.Philox(seed))
    rows = seconds * symbols
    features = rng.standard_normal((rows, 8)).astype(np.float32)
    features[:, 2] = np.nan
    moved = scale * (signal * features[:, 0] + rng.standard_normal(rows))
    label = np.select([moved > 15, moved < -15], [LONG, SHORT], FLAT).astype(np.int8)
    return Dataset(
        source="simulator-test",
        symbols=tuple(f"S{n}USDT" for n in range(symbols)),
        feature_names=tuple("abcdefgh"),
        absent=("c",),
        definition_hash="0" * 64,
        rule=Rule(),
        lookback_s=30,
        second=np.repeat(np.arange(START, START + seconds), symbols),
        symbol=np.tile(np.arange(symbols, dtype=np.int32), seconds),
        features=features,
        label=label,
        mid_bps=moved,
        moves_bps=np.stack([moved] * len(HORIZONS_S), axis=1).astype(np.float32),
        start_s=START,
        end_s=START + seconds,
        content_hash="0" * 64,
    )


@pytest.fixture(scope="module")
def with_signal() -> tuple[Dataset, Trained]:
    dataset = planted()
    return dataset, fit_and_judge(dataset, seed=7, threads=1)


def test_planted_signal_is_found_by_model_and_baseline_and_not_by_the_null(
    with_signal: tuple[Dataset, Trained],
) -> None:
    """A feature that drives the outcome gives a rank IC far above that of shuffled labels, out of sample."""
    _, trained = with_signal

    found = figures_of(trained)

    assert found["rank_ic"] > 0.5
    assert found["ridge_rank_ic"] > 0.5
    assert abs(found["shuffled_rank_ic"]) < 0.15
    assert abs(found["shifted_rank_ic"]) < 0.05
    assert found["spread_bps"] > 20 > 5 > abs(found["shuffled_spread_bps"])
    assert found["log_loss"] < found["log_loss_prior"]
    assert trained.gain["a"] > 0.8


def test_same_rows_and_seed_give_the_same_model_text(with_signal: tuple[Dataset, Trained]) -> None:
    """Training is a function of data and seed: the booster's text repeats byte for byte, also with two threads."""
    dataset, trained = with_signal

    again = fit_and_judge(dataset, seed=7, threads=2)

    assert again.booster == trained.booster
    assert figures_of(again) == figures_of(trained)


def test_future_rows_cannot_change_the_model(with_signal: tuple[Dataset, Trained]) -> None:
    """What lies in the holdout has no way into the registered model: scrambling it changes no byte of it."""
    dataset, trained = with_signal
    holdout = trained.folds[-1].test.of(dataset.second)
    features, label, moved = dataset.features.copy(), dataset.label.copy(), dataset.mid_bps.copy()
    # What says long turns out short: whoever stops early by this stops at once.
    features[holdout], label[holdout], moved[holdout] = 1e3, SHORT, -1e3
    scrambled = Dataset(
        **{f: getattr(dataset, f) for f in dataset.__struct_fields__ if f not in ("features", "label", "mid_bps")},
        features=features,
        label=label,
        mid_bps=moved,
    )

    other = fit_and_judge(scrambled, seed=7, threads=1)

    assert other.booster == trained.booster
    assert other.class_edge_bps == trained.class_edge_bps


def test_class_edge_has_the_sign_of_its_class(with_signal: tuple[Dataset, Trained]) -> None:
    """The mean gross return of rows labelled long is above zero, of short below."""
    _, trained = with_signal

    assert trained.class_edge_bps[LONG] > 15
    assert trained.class_edge_bps[SHORT] < -15
    assert expected_edge_bps(np.array([[0.0, 1.0, 0.0]]), trained.class_edge_bps)[0] == trained.class_edge_bps[LONG]


def test_few_positive_labels_end_in_one_clear_sentence() -> None:
    """A market that moves less than its costs is not trained on, and the message says N and M."""
    with pytest.raises(NotEnoughData, match=r"^\d+ positive labels \(\d+ long, \d+ short\), needs 100: not trained"):
        fit_and_judge(planted(scale=3.0), seed=7, threads=1)


def test_copies_of_a_feature_ask_for_no_more_labels() -> None:
    """What counts is independent features: twenty copies of one, whatever their scale, are one; noise is itself."""
    dataset = planted()
    fold = walk_forward(np.unique(dataset.second), reach_s=11, lookback_s=30)[-1]
    features = np.repeat(dataset.features[:, :1], 20, axis=1) * np.arange(1, 21, dtype=np.float32)
    names = tuple(f"copy_{n}" for n in range(20))
    copies = msgspec.structs.replace(dataset, features=features, feature_names=names, absent=())

    assert independent_features(copies, fold) == pytest.approx(1.0)
    assert independent_features(dataset, fold) == pytest.approx(7.0, rel=0.02)
    constant = msgspec.structs.replace(copies, features=np.ones_like(features))
    assert independent_features(constant, fold) == 0.0


def test_window_shorter_than_its_gaps_is_refused() -> None:
    """A window that the embargo uses up is an honest end, not an index error."""
    with pytest.raises(NotEnoughData, match="not trained"):
        fit_and_judge(planted(seconds=60), seed=7, threads=1)


def test_row_split_is_an_error() -> None:
    """A random split by row puts neighbours on both sides and is refused with both distances named."""
    second = np.arange(START, START + 500)

    with pytest.raises(LeakySplit, match=r"must lie 42 s apart .* found 1 s"):
        check_gap(second[::2], second[1::2], reach_s=11, lookback_s=30)


@given(
    pieces=st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 50_000)), min_size=1, max_size=5),
    reach=st.integers(2, 600),
    lookback=st.integers(0, 3600),
)
def test_folds_keep_their_distance(pieces: list[tuple[int, int]], reach: int, lookback: int) -> None:
    """Fit, stop, calibration and test of every fold lie in time order inside the window, a gap apart, or are empty."""
    gap = gap_s(reach, lookback)
    parts, at = [], START
    for length, hole in pieces:
        parts.append(np.arange(at, at + length))
        at += length + hole
    known = np.concatenate(parts)

    folds = walk_forward(known, reach_s=reach, lookback_s=lookback)

    for fold in folds:
        for span in (*fold.learnt, fold.test):
            assert known[0] <= span.start_s <= known[-1] + 1
        if fold.fit.seconds:
            assert fold.stop.start_s - (fold.fit.end_s - 1) >= gap
        if fold.stop.seconds:
            assert fold.calibrate.start_s - (fold.stop.end_s - 1) >= gap
        for span in fold.learnt:
            if span.seconds:
                assert fold.test.start_s - (span.end_s - 1) >= gap
    assert folds[-1].test.end_s == known[-1] + 1
    assert all(a.test.end_s == b.test.start_s for a, b in pairwise(folds))
    assert abs(folds[-1].test.of(known).sum() - len(known) / 4) <= 1


@given(seed=st.integers(0, 2**32 - 1))
def test_rank_ic_equals_scipy(seed: int) -> None:
    """The mean over seconds of the Spearman correlation is scipy's, ties and missing values included."""
    rng = np.random.Generator(np.random.Philox(seed))
    signal, outcome = rng.integers(0, 6, (12, 9)).astype(float), rng.standard_normal((12, 9))
    signal[rng.random((12, 9)) < 0.2] = np.nan
    second = np.repeat(np.arange(12), 9)
    expected = []
    for row in range(12):
        known = np.isfinite(signal[row])
        if known.sum() >= 3 and len(set(signal[row][known])) > 1:
            expected.append(scipy.stats.spearmanr(signal[row][known], outcome[row][known]).statistic)

    found = rank_ic(second, signal.ravel(), outcome.ravel())

    assert found.seconds == len(expected)
    assert found.mean == pytest.approx(np.mean(expected), abs=1e-12)


def test_standard_error_of_the_rank_ic_covers_its_null() -> None:
    """Where a signal is right or wrong for minutes on end, the error still says how far a mean of nothing strays."""
    rng = np.random.Generator(np.random.Philox(3))
    second = np.repeat(np.arange(3600), 10)
    scores = []
    for _ in range(60):
        drift, view = (np.repeat(rng.standard_normal((18, 10)), 200, axis=0) for _ in range(2))  # of 200 s each
        found = rank_ic(second, view.ravel(), (drift + rng.standard_normal((3600, 10))).ravel())
        scores.append(found.mean / found.standard_error)

    assert 0.6 < np.std(scores) < 1.35  # minutes alone: 1.9


def test_rank_ic_of_two_symbols_is_unknown() -> None:
    """Two symbols have no rank correlation worth the name: NaN, not ±1."""
    found = rank_ic(np.array([1, 1, 2, 2]), np.array([1.0, 2.0, 1.0, 2.0]), np.array([1.0, 2.0, 1.0, 2.0]))

    assert np.isnan(found.mean)
    assert found.seconds == 0


def test_log_loss_of_certainty() -> None:
    """A probability of one on what happened costs nothing, of one third log 3."""
    label = np.array([0, 1, 2], np.int8)

    assert log_loss(label, np.eye(3)) == pytest.approx(0.0)
    assert log_loss(label, np.full((3, 3), 1 / 3)) == pytest.approx(np.log(3))
