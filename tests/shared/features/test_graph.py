"""The graph: blocks, slices, state, identity."""

from __future__ import annotations

import numpy as np
import pytest

from shared.features import graph as graph_module
from shared.features.graph import FeatureGraph, definition_hash
from shared.features.ops import Column, Lag, Node, mean, std, total
from shared.types import Floats

X, Y = Column("x"), Column("y")

FORMULAS: dict[str, Node] = {
    "sum": total(X, 5) + total(Y, 5),
    "same_sum": total(Column("x"), 5) + total(Column("y"), 5),
    "column": X,
    "lagged_column": Lag(Y, 3),
    "deviation": std(X / Lag(X, 1) - 1.0, 7),
    "reused": mean(X, 5) - mean(X, 5) * 0.5,
}


def columns(rows: int, n: int, seed: int = 0) -> dict[str, Floats]:
    rng = np.random.default_rng(seed)
    return {"x": rng.lognormal(size=(rows, n)), "y": rng.normal(size=(rows, n))}


def test_step_returns_rows_symbols_features_as_float32() -> None:
    """(T, N, F), C-contiguous, in the order of the names; also for no rows at all."""
    graph = FeatureGraph(FORMULAS, 3)

    block, empty = graph.step(columns(11, 3)), graph.step(columns(0, 3))

    assert graph.names == tuple(FORMULAS)
    assert block.shape == (11, 3, 6)
    assert block.dtype == np.float32
    assert block.flags.c_contiguous
    assert empty.shape == (0, 3, 6)


def test_values_are_those_of_plain_numpy() -> None:
    """A feature that is a column, a lag, a shared sum: each is what it says."""
    data = columns(20, 2)

    block = FeatureGraph(FORMULAS, 2).step(data)

    x, y = data["x"], data["y"]
    np.testing.assert_allclose(block[10, :, 0], (x[6:11] + y[6:11]).sum(0), rtol=1e-6)
    np.testing.assert_array_equal(block[..., 0], block[..., 1])
    np.testing.assert_array_equal(block[..., 2], x.astype(np.float32))
    np.testing.assert_array_equal(block[3:, :, 3], y[:-3].astype(np.float32))
    assert np.isnan(block[:3, :, 3]).all()
    np.testing.assert_allclose(block[10, :, 5], 0.5 * x[6:11].mean(0), rtol=1e-6)


def test_shared_parts_are_computed_once_and_values_freed() -> None:
    """Writing a formula twice adds no work, and a chain of a hundred steps lives in two registers."""
    once = FeatureGraph({"a": FORMULAS["sum"]}, 2)
    twice = FeatureGraph({"a": FORMULAS["sum"], "b": FORMULAS["same_sum"]}, 2)
    chain: Node = X
    for step in range(100):
        chain = (chain + float(step)) * (Y + float(step))

    assert len(twice.plan.calls) == len(once.plan.calls)
    assert FeatureGraph({"chain": chain}, 2).plan.n_registers <= 2


def test_only_the_columns_of_the_formulas_are_read() -> None:
    """`inputs` names them; others may be absent."""
    graph = FeatureGraph({"f": X + 1.0}, 2)

    assert graph.inputs == ("x",)
    assert graph.step({"x": np.ones((1, 2))}).tolist() == [[[2.0], [2.0]]]


def test_a_block_of_another_shape_is_refused() -> None:
    """A column that is not (T, N) float64 is our bug, and the message names it."""
    graph = FeatureGraph({"f": X + Y}, 2)

    with pytest.raises(AssertionError, match=r"y: \(3, 2\), expected \(4, 2\)"):
        graph.step({"x": np.ones((4, 2)), "y": np.ones((3, 2))})
    with pytest.raises(AssertionError, match="float32, expected float64"):
        graph.step({"x": np.ones((4, 2), np.float32), "y": np.ones((4, 2))})


@pytest.mark.parametrize("cells", [1, 6, 64, 1 << 20])
def test_the_size_of_a_slice_changes_no_bit(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices are for the cache; blocks longer and shorter than one give the same bytes."""
    data = columns(150, 3)
    expected = FeatureGraph(FORMULAS, 3).step(data)
    monkeypatch.setattr(graph_module, "SLICE_CELLS", cells)
    graph = FeatureGraph(FORMULAS, 3)

    parts = [graph.step({name: x[a:b] for name, x in data.items()}) for a, b in ((0, 1), (1, 90), (90, 90), (90, 150))]

    assert np.concatenate(parts).tobytes() == expected.tobytes()


def test_a_block_is_not_written_to() -> None:
    """Columns belong to the caller: whatever is computed in place, they stay; and so do earlier results."""
    data = columns(40, 2)
    before = {name: x.copy() for name, x in data.items()}
    graph = FeatureGraph({"f": X / (X + Y), "g": X * 2.0, "x": X}, 2)

    first = graph.step(data)
    copy = first.copy()
    graph.step(columns(40, 2, seed=1))

    assert all(np.array_equal(data[name], before[name]) for name in data)
    assert np.array_equal(first, copy)


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
