"""The same graph as polars expressions: for ad-hoc queries on the lake, and as a second opinion in the tests.

    seconds.pipe(FeatureGraph({"flow": flow(10)}, ()).to_polars())

Everything is written a second time here, and equal bit for bit (tests/shared/features/test_expressions.py). What has to
be said where polars differs from IEEE 754 and numpy: it orders NaN above everything and calls it equal to itself, keeps
null beside NaN, and divides by a literal as if multiplying by its reciprocal.

A part that is used twice becomes a column of its own, or the expression would grow like 2^depth; columns are dropped
after their last reader. Seconds that are missing from the frame are filled in as unknown, because a lag counts seconds
and not rows; what comes out has the rows that went in.

This module needs polars, and is the only one here that does: live imports it nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from shared.features import across, ops
from shared.features.ops import Node
from shared.features.plan import in_order

_NAN = pl.lit(math.nan)
_ZERO = "_zero"  # a column: polars would simplify x + 0 away
_AGE = "_age"  # seconds since the first row
_KEYS = ("second", "symbol")


class _Term(NamedTuple):
    """An expression and the columns that it reads."""

    expr: pl.Expr
    reads: frozenset[str]


def _join(build: Callable[..., pl.Expr], *terms: _Term) -> _Term:
    return _Term(build(*(term.expr for term in terms)), frozenset().union(*(term.reads for term in terms)))


class Expressions:
    """Formulas as stages of polars columns; call it with a frame.

    Args:
        features: name → formula.
    """

    def __init__(self, features: Mapping[str, Node]) -> None:
        self.names = tuple(features)
        self._columns: dict[str, tuple[pl.Expr, frozenset[str], int]] = {}  # name -> expression, what it reads, stage
        nodes = in_order(features.values())
        self.inputs = tuple(str(node.parameter) for node in nodes if node.operator == "column")
        readers: dict[str, int] = {node.identity: 0 for node in nodes}
        for node in nodes:
            for child in node.inputs:
                readers[child.identity] += 1
        terms: dict[str, _Term] = {}
        for node in nodes:
            term = self._term(node, [terms[child.identity] for child in node.inputs])
            is_plain = node.operator in ("column", "constant")
            terms[node.identity] = term if is_plain or readers[node.identity] < 2 else self._let(term)
        self._features = {name: self._let(terms[node.identity]) for name, node in features.items()}

    def __call__(self, frame: pl.DataFrame | pl.LazyFrame) -> Any:
        """Return `second`, `symbol` and every feature (float32) of the frame's rows, in their order, lazy as it came.

        Args:
            frame: `second`, `symbol` and the columns of `inputs`; each pair of the first two once.
        """
        whole = self._grid(frame.lazy())
        if isinstance(frame, pl.DataFrame):  # stage by stage: planning all at once takes longer than computing
            for stage in self._stages():
                whole = whole.select(*stage).collect(optimizations=pl.QueryOptFlags.none()).lazy()
        else:
            for stage in self._stages():
                whole = whole.select(*stage)
        rows = frame.lazy().select(pl.col("second").cast(pl.Int64), "symbol")
        result = rows.join(whole, on=list(_KEYS), how="left", maintain_order="left")
        return result.collect() if isinstance(frame, pl.DataFrame) else result

    def _grid(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Return every second of every symbol, symbol by symbol: NaN where the frame says nothing."""
        second = pl.col("second")
        seconds = frame.select(pl.int_range(second.min(), second.max() + 1, dtype=pl.Int64).alias("second"))
        columns = frame.select(
            second.cast(pl.Int64), "symbol", *(pl.col(name).cast(pl.Float64) for name in self.inputs)
        )
        return (
            frame.select(pl.col("symbol").unique())
            .join(seconds, how="cross")
            .join(columns, on=list(_KEYS), how="left")
            .sort("symbol", "second")
            .with_columns(
                *(pl.col(name).fill_null(math.nan) for name in self.inputs),
                (second - second.min()).alias(_AGE),
                (second - second.shift(0)).cast(pl.Float64).alias(_ZERO),  # no literal: polars adds none of 0
            )
        )

    def _stages(self) -> list[list[pl.Expr]]:
        """Return what to select stage by stage: what is new, and what some later stage still reads."""
        last = max((stage for _, _, stage in self._columns.values()), default=0)
        final = {term.expr.meta.output_name() for term in self._features.values()}
        read_until: dict[str, int] = dict.fromkeys(final, last + 1)
        for _, reads, stage in self._columns.values():
            for name in reads:
                read_until[name] = max(read_until.get(name, 0), stage)
        read_until |= {_AGE: last, _ZERO: last}
        made_in = {name: stage for name, (_, _, stage) in self._columns.items()}
        stages = []
        for stage in range(1, last + 1):
            new = [expr.alias(name) for name, (expr, _, own) in self._columns.items() if own == stage]
            kept = [
                pl.col(name)
                for name, until in read_until.items()
                if until > stage and name not in _KEYS and made_in.get(name, 0) < stage
            ]
            stages.append([*(pl.col(key) for key in _KEYS), *kept, *new])
        out = [
            term.expr.fill_nan(math.nan).cast(pl.Float32).alias(name) for name, term in self._features.items()
        ]  # one NaN, as the graph makes them
        stages.append([*(pl.col(key) for key in _KEYS), *out])
        return stages

    def _let(self, term: _Term) -> _Term:
        """Make the term a column."""
        name = f"_{len(self._columns)}"
        stage = 1 + max((self._columns[read][2] for read in term.reads if read in self._columns), default=0)
        self._columns[name] = (term.expr, term.reads, stage)
        return _Term(pl.col(name), frozenset({name}))

    # ------------------------------------------------------------------------------------------- operators

    def _term(self, node: Node, inputs: list[_Term]) -> _Term:
        if node.operator == "column":
            return _Term(pl.col(str(node.parameter)), frozenset({str(node.parameter)}))
        if node.operator == "constant":
            return _Term(pl.lit(node.parameter, pl.Float64), frozenset())
        if node.operator == "second":
            return _Term(pl.col("second").cast(pl.Float64), frozenset())
        if node.operator == "lag":
            assert isinstance(node.parameter, int)
            return self._lag(inputs[0], node.parameter)
        if node.operator == "value_of":
            is_it = pl.col("symbol") == str(node.parameter)
            return _join(lambda x: x.filter(is_it).first().over("second").fill_null(math.nan), self._let(inputs[0]))
        special: dict[str, Callable[..., _Term]] = {
            "mean_across": self._mean_across,
            "std_across": self._std_across,
            "rank": self._rank,
            "log": self._log,
        }
        if node.operator in special:
            return special[node.operator](*(self._let(term) for term in inputs))
        if node.operator == "divide" and node.inputs[1].operator == "constant":
            return _join(lambda x, c: x / (pl.col(_ZERO) + c), *inputs)  # a column of the constant
        assert node.operator in _ELEMENTWISE, f"{node.operator} has no polars expression: write one in {__name__}"
        # What an expression reads more than once becomes a column first.
        used_twice = node.operator not in _ONCE
        return _join(_ELEMENTWISE[node.operator], *(self._settled(term) if used_twice else term for term in inputs))

    def _settled(self, term: _Term) -> _Term:
        return term if term.expr.meta.is_column() or not term.reads else self._let(term)

    def _lag(self, x: _Term, seconds: int) -> _Term:
        # Every symbol has the same seconds: as many rows up is as many seconds ago, or another symbol.
        is_own = pl.col(_AGE) >= seconds
        return _join(lambda x: pl.when(is_own).then(x.shift(seconds)).otherwise(_NAN), self._settled(x))

    def _order_free_sum(self, x: _Term, largest: _Term) -> _Term:
        """Return `across.order_free_sum` of each second, for all its rows; x has no null."""
        q = self._let(_join(lambda m: m * across.SPLIT_UFP, largest))
        sigma = self._let(_join(lambda q: (q - q * across.BELOW_ONE).abs() * across.SPLIT_HIGH, q))
        high = self._let(_join(lambda x, s: (x + s) - s, x, sigma))
        fine = self._let(_join(lambda s: s * across.SPLIT_LOW, sigma))
        low = self._let(_join(lambda x, h, s: ((x - h) + s) - s, x, high, fine))
        return self._let(_join(lambda h, n: h.sum().over("second") + n.sum().over("second"), high, low))

    def _known(self, x: _Term) -> tuple[_Term, _Term]:
        """Return x, null where it is not finite, and how many symbols have a value."""
        known = self._let(_join(lambda x: pl.when(x.is_finite()).then(x), x))
        return known, self._let(_join(lambda k: k.count().over("second").cast(pl.Float64), known))

    def _mean_across(self, x: _Term) -> _Term:
        known, n = self._known(x)
        largest = self._let(_join(lambda k: k.abs().max().over("second").fill_null(0.0), known))
        filled = self._let(_join(lambda k: k.fill_null(0.0), known))
        return _join(lambda total, n: total / n, self._order_free_sum(filled, largest), n)

    def _std_across(self, x: _Term, mean: _Term) -> _Term:
        known, n = self._known(x)
        away = self._let(_join(lambda k, m: (k - m).fill_null(0.0), known, mean))
        squares = self._let(_join(lambda d: d * d, away))
        largest = self._let(_join(lambda s: s.max().over("second"), squares))
        total = self._order_free_sum(squares, largest)
        is_flat = self._let(_join(lambda k: k.max().over("second") == k.min().over("second"), known))
        return _join(
            lambda total, n, is_flat: (
                pl.when(n < 2.0).then(_NAN).when(is_flat).then(0.0).otherwise((total / (n - 1.0)).sqrt())
            ),
            total,
            n,
            is_flat,
        )

    def _rank(self, x: _Term) -> _Term:
        scaled = self._let(_join(lambda x: x * across.SPLIT_RANK, x))
        coarse = self._let(_join(lambda x, s: (s - (s - x)) + pl.col(_ZERO), x, scaled))
        _, n = self._known(x)
        known = self._let(_join(lambda x, c: pl.when(x.is_finite()).then(c), x, coarse))
        place = self._let(_join(lambda k: k.rank("average").over("second"), known))
        return _join(lambda r, n: ((r * 2.0 - n - 1.0) / ((n - 1.0) * 2.0)).fill_null(math.nan), place, n)

    def _log(self, x: _Term) -> _Term:
        """Return `ops.log`, step by step; the exponent comes from a table instead of the bits."""
        is_ordinary = self._let(_join(lambda x: (x > 0.0) & x.is_finite(), x))
        is_tiny = self._let(_join(lambda x, o: o & (x < float(np.finfo(np.float64).tiny)), x, is_ordinary))
        scaled = self._let(
            _join(lambda x, o, t: pl.when(t).then(x * 2.0**54).when(o).then(x).otherwise(1.0), x, is_ordinary, is_tiny)
        )
        above = pl.lit(pl.Series([math.ldexp(ops.SQRT_HALF, k) for k in _EXPONENTS]))
        power = self._let(_join(lambda x: above.search_sorted(x, side="right").cast(pl.Int64) - 1, scaled))
        down = pl.lit(pl.Series([math.ldexp(1.0, -k) for k in _EXPONENTS]))
        m = self._let(_join(lambda x, p: x * down.gather(p), scaled, power))
        e = self._let(
            _join(
                lambda p, t: (p + _EXPONENTS[0]).cast(pl.Float64) - pl.when(t).then(54.0).otherwise(0.0), power, is_tiny
            )
        )
        f = self._let(_join(lambda m: m - 1.0, m))
        s = self._let(_join(lambda f: f / (f + 2.0), f))
        z = self._let(_join(lambda s: s * s, s))
        r = _join(lambda z: z * ops.ATANH[0], z)
        for coefficient in ops.ATANH[1:]:
            r = _join(lambda r, z, c=coefficient: (r + c) * z, r, z)
        h = self._let(_join(lambda f: (f * 0.5) * f, f))
        inner = _join(lambda r, h, s, e: (r + h) * s + e * ops.LN2_LOW, r, h, s, e)
        value = self._let(_join(lambda e, h, i, f: e * ops.LN2_HIGH - ((h - i) - f), e, h, inner, f))
        return _join(
            lambda x, o, v: pl.when(o).then(v).when((x > 0.0) & ~x.is_nan()).then(math.inf).otherwise(_NAN),
            x,
            is_ordinary,
            value,
        )


_EXPONENTS = range(-1022, 1025)
"""Of a double as 2^e m with m in [√½, √2)."""


def _is_nan(*exprs: pl.Expr) -> pl.Expr:
    result = exprs[0].is_nan()
    for expr in exprs[1:]:
        result = result | expr.is_nan()
    return result


def _unless_missing(value: pl.Expr, *inputs: pl.Expr) -> pl.Expr:
    return pl.when(_is_nan(*inputs)).then(_NAN).otherwise(value)


def _extreme(is_first: pl.Expr, x: pl.Expr, y: pl.Expr) -> pl.Expr:
    return _unless_missing(pl.when(is_first).then(x).otherwise(y) + pl.col(_ZERO), x, y)


_ONCE = frozenset({"add", "subtract", "multiply", "divide", "sqrt", "absolute", "floor"})

_ELEMENTWISE: dict[str, Callable[..., pl.Expr]] = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "sqrt": lambda x: x.sqrt(),
    "absolute": lambda x: x.abs(),
    "floor": lambda x: x.floor(),
    "minimum": lambda x, y: _extreme(x < y, x, y),
    "maximum": lambda x, y: _extreme(x > y, x, y),
    "less": lambda x, y: _unless_missing((x < y).cast(pl.Float64), x, y),
    "equal": lambda x, y: _unless_missing((x == y).cast(pl.Float64), x, y),
    "where": lambda c, x, y: _unless_missing(pl.when(c != 0.0).then(x).otherwise(y), c, x, y),
    "notional": lambda p, s: pl.when(s == 0.0).then(0.0).otherwise(p * s),
    "level_price": lambda p, s, a: pl.when(s.is_nan()).then(_NAN).when(s == 0.0).then(a).otherwise(p),
    "zscore": lambda x, m, d: pl.when((d == 0.0) & ~x.is_nan()).then(0.0).otherwise((x - m) / d),
    "nonzero": lambda x: pl.when(x == 0.0).then(_NAN).otherwise(x),
    "share": lambda p, w: pl.when((w == 0.0) & (p == 0.0)).then(0.0).otherwise(p / w),
}
