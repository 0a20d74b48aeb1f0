"""The graph: blocks, slices, state, identity."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import ModelMismatch
from shared.features import graph as graph_module
from shared.features import memory
from shared.features.across import mean_across, rank, value_of, zscore
from shared.features.graph import FeatureGraph, definition_hash
from shared.features.ops import Column, Lag, Node, Second, covariance, mean, sin_turn, std, total
from shared.types import Floats
from tests.shared.features.worlds import names

X, Y = Column("x"), Column("y")

FORMULAS: dict[str, Node] = {
    "sum": total(X, 5) + total(Y, 5),
    "same_sum": total(Column("x"), 5) + total(Column("y"), 5),
    "column": X,
    "lagged_column": Lag(Y, 3),
    "deviation": std(X / Lag(X, 1) - 1.0, 7),
    "reused": mean(X, 5) - mean(X, 5) * 0.5,
}

MOVE = X / Lag(X, 1) - 1.0
MARKET = mean_across(MOVE)

EVERYTHING = FORMULAS | {
    "market": MARKET,
    "market_lagged": Lag(MARKET, 3),
    "market_deviation": std(MARKET, 5),
    "beta": covariance(MOVE, MARKET, 9) / covariance(MARKET, MARKET, 9),
    "residual_rank": rank(MOVE - MARKET * covariance(MOVE, MARKET, 9)),
    "lagged_rank": Lag(rank(Y), 4),
    "rank_of_lagged": rank(Lag(Y, 2)),
    "column_long_ago": Lag(X, 70) + Lag(X, 40),
    "rank_of_column": rank(Y),
    "rank_of_rank_change": rank(rank(Y) - Lag(rank(Y), 1)),
    "zscore": zscore(Y),
    "mean_zscore": mean(zscore(Y), 3),
    "leader": value_of("BTCUSDT", MOVE),
    "leader_of_column": value_of("BTCUSDT", Y),
    "leader_long_ago": Lag(value_of("BTCUSDT", X), 70) / X,
    "clock": Second() * 1.0,
    "clock_lagged": Lag(Second(), 2),
    "turn": sin_turn(Second() * (1 / 7)),
    "nobody": value_of("NOBODY", X),
}
"""Every kind of place and pass that a value can have."""


def cut(data: dict[str, Floats], a: int, b: int) -> dict[str, Floats]:
    return {name: x[a:b] for name, x in data.items()}


def n_calls(graph: FeatureGraph) -> int:
    return sum(map(len, graph.plan.cells)) + sum(map(len, graph.plan.rows))


def columns(rows: int, n: int, seed: int = 0) -> dict[str, Floats]:
    rng = np.random.default_rng(seed)
    data = {"x": rng.lognormal(size=(rows, n)), "y": rng.normal(size=(rows, n))}
    data["y"][rng.random((rows, n)) < 0.02] = np.nan
    return data


def test_step_returns_rows_symbols_features_as_float32() -> None:
    """(T, N, F), C-contiguous, in the order of the names; also for no rows at all."""
    graph = FeatureGraph(FORMULAS, names(3))

    block, empty = graph.step(columns(11, 3), 100), graph.step(columns(0, 3), 111)

    assert graph.names == tuple(FORMULAS)
    assert block.shape == (11, 3, 6)
    assert block.dtype == np.float32
    assert block.flags.c_contiguous
    assert empty.shape == (0, 3, 6)


def test_values_are_those_of_plain_numpy() -> None:
    """A feature that is a column, a lag, a shared sum: each is what it says."""
    data = columns(20, 2)

    block = FeatureGraph(FORMULAS, names(2)).step(data, 0)

    x, y = data["x"], data["y"]
    np.testing.assert_allclose(block[10, :, 0], (x[6:11] + y[6:11]).sum(0), rtol=1e-6)
    np.testing.assert_array_equal(block[..., 0], block[..., 1])
    np.testing.assert_array_equal(block[..., 2], x.astype(np.float32))
    np.testing.assert_array_equal(block[3:, :, 3], y[:-3].astype(np.float32))
    assert np.isnan(block[:3, :, 3]).all()
    np.testing.assert_allclose(block[10, :, 5], 0.5 * x[6:11].mean(0), rtol=1e-6)


def test_shared_parts_are_computed_once_and_values_freed() -> None:
    """Writing a formula twice adds no work, and a chain of a hundred steps lives in three registers, a column in one."""
    once = FeatureGraph({"a": FORMULAS["sum"]}, names(2))
    twice = FeatureGraph({"a": FORMULAS["sum"], "b": FORMULAS["same_sum"]}, names(2))
    chain: Node = X
    for step in range(100):
        chain = (chain + float(step)) * (Y + float(step))

    assert n_calls(twice) == n_calls(once)
    assert FeatureGraph({"chain": chain}, names(2)).plan.n_registers <= 3


def test_only_the_columns_of_the_formulas_are_read() -> None:
    """`inputs` names them; others may be absent."""
    graph = FeatureGraph({"f": X + 1.0}, names(2))

    assert graph.inputs == ("x",)
    assert graph.step({"x": np.ones((1, 2))}, 0).tolist() == [[[2.0], [2.0]]]


def test_a_block_of_another_shape_is_refused() -> None:
    """A column that is not (T, N) float64 is our bug, and the message names it."""
    graph = FeatureGraph({"f": X + Y}, names(2))

    with pytest.raises(AssertionError, match=r"y: \(3, 2\), expected \(4, 2\)"):
        graph.step({"x": np.ones((4, 2)), "y": np.ones((3, 2))}, 0)
    with pytest.raises(AssertionError, match="float32, expected float64"):
        graph.step({"x": np.ones((4, 2), np.float32), "y": np.ones((4, 2))}, 0)


@pytest.mark.parametrize("cells", [1, 6, 64, 1 << 12])
@pytest.mark.parametrize("width", [1, 2, 64])
@pytest.mark.parametrize("threads", [1, 2])
def test_slabs_chunks_and_threads_change_no_bit(
    cells: int, width: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are for the cache and for the cores; blocks longer and shorter than a slab give the same bytes."""
    data = columns(150, 5)
    expected = FeatureGraph(EVERYTHING, names(5)).step(data, 50)
    monkeypatch.setattr(memory, "CHUNK_CELLS", cells)
    monkeypatch.setattr(memory, "CHUNK_SYMBOLS", width)
    graph = FeatureGraph(EVERYTHING, names(5), threads=threads)

    parts = [graph.step(cut(data, a, b), 50 + a) for a, b in ((0, 1), (1, 90), (90, 90), (90, 150))]

    assert np.concatenate(parts).tobytes() == expected.tobytes()


@given(st.integers(0, 1000), st.lists(st.integers(0, 130), max_size=8))
@settings(max_examples=20)
def test_every_kind_of_formula_is_cut_invariant(seed: int, cuts: list[int]) -> None:
    """Lags of cross-sections, cross-sections of lags, the clock, and long lags among short ones: the same bytes."""
    data = columns(130, 4, seed)
    expected = FeatureGraph(EVERYTHING, names(4)).step(data, 50)
    graph = FeatureGraph(EVERYTHING, names(4))

    parts = [graph.step(cut(data, a, b), 50 + a) for a, b in itertools.pairwise([0, *sorted(cuts), 130])]

    assert np.concatenate(parts).tobytes() == expected.tobytes()


@given(st.integers(0, 130))
@settings(max_examples=15)
def test_a_restored_graph_goes_on_bit_for_bit(at: int) -> None:
    """What is saved is all that is remembered, whether the graph worked seconds or blocks before."""
    data = columns(131, 3)
    expected = FeatureGraph(EVERYTHING, names(3)).step(data, 50)
    first, second = FeatureGraph(EVERYTHING, names(3)), FeatureGraph(EVERYTHING, ())
    first.step(cut(data, 0, at), 50)

    second.restore(first.save())

    assert second.symbols == names(3)
    assert second.step(cut(data, at, 131), 50 + at).tobytes() == expected[at:].tobytes()


def test_a_state_of_other_formulas_or_half_a_state_is_refused() -> None:
    """A model that goes on from another state would see other features: refused, and nothing has changed."""
    graph = FeatureGraph(FORMULAS, names(3))
    graph.step(columns(20, 3), 0)
    saved, other = graph.save(), FeatureGraph({"f": total(X, 4)}, names(3))
    untouched = other.save()

    with pytest.raises(ModelMismatch, match=r"must be of features .*, found"):
        other.restore(saved)
    with pytest.raises(ModelMismatch, match="saved state of features is needed"):
        other.restore(saved[: len(saved) // 2])
    with pytest.raises(ModelMismatch, match="saved state of features is needed"):
        other.restore(b"")
    assert other.save() == untouched


def test_a_state_that_was_cut_inside_is_refused() -> None:
    """Fewer numbers than the windows hold are no state."""
    graph = FeatureGraph(FORMULAS, names(3))
    state = msgspec.msgpack.decode(graph.save())
    state["rows"] = state["rows"][:-8]

    with pytest.raises(ModelMismatch, match=r"must hold .* rows of 3 symbols"):
        graph.restore(msgspec.msgpack.encode(state))


def test_a_symbol_that_joins_is_one_that_was_missing() -> None:
    """Symbols join, leave and change places in mid-stream: as if they had been NaN before, and after."""
    every = names(5)
    data = columns(120, 5)
    listed = [every[:3], (every[4], every[0], every[2]), every]
    known = {name: x.copy() for name, x in data.items()}
    for t in range(120):
        for n, symbol in enumerate(every):
            if symbol not in listed[t // 40]:
                for x in known.values():
                    x[t, n] = np.nan
    expected = FeatureGraph(EVERYTHING, every).step(known, 50)
    graph = FeatureGraph(EVERYTHING, listed[0])

    for k, symbols in enumerate(listed):
        graph.follow(symbols)
        at = [every.index(symbol) for symbol in symbols]
        own = {name: np.ascontiguousarray(x[40 * k : 40 * k + 40, at]) for name, x in data.items()}
        found = graph.step(own, 50 + 40 * k)
        for f, name in enumerate(graph.names):
            settled = 2 if name == "rank_of_lagged" else 0  # who has left is not ranked by what it was before
            wanted = np.ascontiguousarray(expected[40 * k + settled : 40 * k + 40, at, f])
            assert found[settled:, :, f].tobytes() == wanted.tobytes(), (symbols, name)


@pytest.mark.parametrize("missed", [1, 3, 40, 500])
def test_seconds_that_were_left_out_are_unknown(missed: int) -> None:
    """A hole in the calls is a hole in the data, never a jump in time; a second that comes twice is our bug."""
    data = columns(60, 3)
    hole = {name: np.full((missed, 3), np.nan) for name in data}
    whole = {name: np.concatenate([x[:30], hole[name], x[30:]]) for name, x in data.items()}
    expected = FeatureGraph(EVERYTHING, names(3)).step(whole, 50)
    graph = FeatureGraph(EVERYTHING, names(3))
    graph.step(cut(data, 0, 30), 50)

    found = graph.step(cut(data, 30, 60), 80 + missed)

    assert found.tobytes() == expected[30 + missed :].tobytes()
    with pytest.raises(AssertionError, match="was already taken in"):
        graph.step(cut(data, 0, 1), 79)


def test_more_symbols_that_are_missing_change_nothing() -> None:
    """A cross-section is of those who have a value: an axis with others on it gives the same bytes."""
    data = columns(60, 3)
    wider = {name: np.concatenate([np.full((60, 2), np.nan), x], axis=1) for name, x in data.items()}

    narrow = FeatureGraph(EVERYTHING, names(3)).step(data, 0)
    wide = FeatureGraph(EVERYTHING, ("A", "B", *names(3))).step(wider, 0)

    assert np.ascontiguousarray(wide[:, 2:]).tobytes() == narrow.tobytes()


def test_what_all_symbols_share_is_computed_once() -> None:
    """The market's own windows are one number a second, whatever the number of symbols."""
    graph = FeatureGraph({"f": std(mean_across(X), 30)}, names(500))

    graph.step(columns(40, 500), 0)

    assert all(graph.plan.is_common_window)
    assert len(graph.save()) < 20_000


def test_a_block_is_not_written_to() -> None:
    """Columns belong to the caller: whatever is computed in place, they stay; and so do earlier results."""
    data = columns(40, 2)
    before = {name: x.copy() for name, x in data.items()}
    graph = FeatureGraph({"f": X / (X + Y), "g": X * 2.0, "x": X}, names(2))

    first = graph.step(data, 0)
    copy = first.copy()
    graph.step(columns(40, 2, seed=1), 40)

    assert all(data[name].tobytes() == before[name].tobytes() for name in data)
    assert first.tobytes() == copy.tobytes()


def test_the_definition_hash_says_what_features_mean() -> None:
    """Equal formulas have equal hashes; another name, order, constant, window or version does not."""
    base = {"a": total(X, 10), "b": X * 2.0}
    others = [
        {"a": total(X, 11), "b": X * 2.0},
        {"a": total(X, 10), "b": X * 2.5},
        {"a": total(X, 10), "c": X * 2.0},
        {"b": X * 2.0, "a": total(X, 10)},
        {"a": total(Y, 10), "b": X * 2.0},
        {"a": total(X, 10)},
    ]

    assert definition_hash(base) == definition_hash({"a": total(Column("x"), 10), "b": Column("x") * 2.0})
    assert len({definition_hash(other) for other in [base, *others]}) == 1 + len(others)


@pytest.mark.parametrize("module", ["ops", "sampler"])
def test_the_definition_hash_covers_operators_and_columns(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When an operator or a column changes its meaning, formulas that read the same are not the same."""
    before = definition_hash(FORMULAS)

    monkeypatch.setattr(getattr(graph_module, module), "VERSION", 999)

    assert definition_hash(FORMULAS) != before
