"""The graph and its polars expressions: written twice, equal bit for bit."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph
from shared.features.ops import OPERATORS, Column, Lag, Node, log, total
from shared.settings import ROOT
from shared.types import Floats
from tests.shared.features import worlds
from tests.shared.features.test_graph import EVERYTHING, columns
from tests.shared.features.test_ops import ARITY

FIRST_S = 1_763_798_000


def frame_of(columns: dict[str, Floats], symbols: tuple[str, ...]) -> pl.DataFrame:
    rows = len(next(iter(columns.values())))
    keys = {
        "second": np.repeat(np.arange(FIRST_S, FIRST_S + rows), len(symbols)),
        "symbol": list(symbols) * rows,
    }
    return pl.DataFrame(keys | {name: column.ravel() for name, column in columns.items()})


def differing(features: dict[str, Node], columns: dict[str, Floats], symbols: tuple[str, ...]) -> list[str]:
    """Return the names of the features that differ in any bit between the graph and polars."""
    graph = FeatureGraph(features, symbols)
    expected = graph.step(columns, FIRST_S)
    frame = frame_of(columns, symbols).pipe(graph.to_polars())
    assert frame.columns == ["second", "symbol", *graph.names]
    return [
        name
        for f, name in enumerate(graph.names)
        if frame[name].to_numpy().tobytes() != np.ascontiguousarray(expected[..., f]).tobytes()
    ]


def test_every_feature_of_the_catalog_is_the_same_in_polars() -> None:
    """Cross-sections, clocks, windows and the portable logarithm, over a world with holes: the same bytes."""
    assert differing(FEATURES, worlds.seconds(3, 5, 70), worlds.names(5)) == []


@given(st.integers(0, 1000), st.integers(1, 5))
@settings(max_examples=6)
def test_every_kind_of_formula_is_the_same_in_polars(seed: int, n_symbols: int) -> None:
    """Lags of ranks, ranks of lags, leaders that are not listed: the same bytes."""
    assert differing(EVERYTHING, columns(90, n_symbols, seed), worlds.names(n_symbols)) == []


SPECIAL = [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 5e-324, 1e-310, 1e308, 0.1]
X, Y, Z = Column("x"), Column("y"), Column("z")


@given(arrays.arrays(np.float64, (3, 6, 2), elements=st.one_of(st.sampled_from(SPECIAL), st.floats())))
@settings(max_examples=30)
def test_every_operator_is_the_same_in_polars(xyz: Floats) -> None:
    """Signed zeros, infinities, subnormals and NaN through every elementwise operator there is."""
    features = {name: Node(name, *(X, Y, Z)[: ARITY.get(name, 2)]) for name in OPERATORS}
    features |= {"by_a_constant": X / 3.0, "constant_by": 3.0 / X}

    assert differing(features, {"x": xyz[0], "y": xyz[1], "z": xyz[2]}, ("A", "B")) == []


def test_the_logarithm_is_the_same_over_all_exponents() -> None:
    """At every power of two, beside sqrt(1/2) of it and among subnormals."""
    powers = np.ldexp(1.0, np.arange(-1074, 1024))
    beside = np.ldexp(np.sqrt(0.5), np.arange(-1073, 1025))
    x = np.concatenate([powers, beside, np.nextafter(beside, 0.0), np.nextafter(powers, 0.0)])[:, None]

    assert differing({"log": log(X)}, {"x": x}, ("A",)) == []


def test_rows_that_are_missing_are_seconds_that_are_unknown() -> None:
    """A lag counts seconds, not rows; what comes back has the rows and the order that went in; null is NaN."""
    data = {"x": np.arange(40.0).reshape(10, 4)}
    symbols = worlds.names(4)
    features = {"lag": Lag(X, 2), "sum": total(X, 3)}
    rng = np.random.default_rng(4)
    kept = rng.permutation(40)[:28]
    frame = frame_of(data, symbols)[kept].with_columns(pl.when(pl.col("x") != 21.0).then("x"))
    holed = np.full(40, np.nan)
    holed[kept] = data["x"].ravel()[kept]
    holed[21] = np.nan
    graph = FeatureGraph(features, symbols)
    expected = graph.step({"x": holed.reshape(10, 4)}, FIRST_S).reshape(40, 2)[kept]

    found = frame.pipe(graph.to_polars())

    assert found.select("second", "symbol").equals(frame.select("second", "symbol"))
    np.testing.assert_array_equal(found.select("lag", "sum").to_numpy(), expected)


def test_a_lazy_frame_stays_lazy() -> None:
    """A query over a day of the lake is collected by whoever asks."""
    frame = frame_of(columns(30, 2), ("A", "B"))
    expressions = FeatureGraph({"f": total(X, 3)}, ()).to_polars()

    lazy = frame.lazy().pipe(expressions)

    assert isinstance(lazy, pl.LazyFrame)
    assert lazy.collect().equals(frame.pipe(expressions))


def test_an_operator_without_an_expression_is_named() -> None:
    """An operator that was added in one place alone says where the other is."""
    with pytest.raises(AssertionError, match="novel has no polars expression"):
        FeatureGraph({"f": X}, ()).to_polars().__class__({"f": Node("novel", X)})


def test_features_need_no_polars_until_somebody_asks() -> None:
    """Live runs where polars may not be installed: catalog and graph import it nowhere."""
    code = "import sys; import shared.features.catalog, shared.features.graph; assert 'polars' not in sys.modules"

    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env={"PYTHONPATH": str(ROOT)})
