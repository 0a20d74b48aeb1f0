"""The catalog's own formulas in polars' own words, to measure the graph against: wide frames, and `.over("symbol")`.

The catalog is read once more with other operators: instead of folds of lags they say `rolling_mean`, `rolling_std` and
so on, as somebody who writes polars would. What is shared is computed once here, too. Polars is spared what only our
rules on missing values need: an absent level, a denominator of 0.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl

from shared.settings import ROOT
from shared.types import Floats

_KNOWN: dict[tuple[Any, ...], Formula] = {}


class Formula:
    """An operator and its arguments, formulas or numbers; equal ones are one object."""

    def __new__(cls, operator: str, *arguments: Any) -> Formula:
        key = (operator, *(id(a) if isinstance(a, Formula) else a for a in arguments))
        if key not in _KNOWN:
            _KNOWN[key] = super().__new__(cls)
        return _KNOWN[key]

    def __init__(self, operator: str, *arguments: Any) -> None:
        self.operator, self.arguments = operator, arguments

    def __add__(self, other: Any) -> Formula:
        return Formula("add", self, other)

    def __radd__(self, other: Any) -> Formula:
        return Formula("add", other, self)

    def __sub__(self, other: Any) -> Formula:
        return Formula("subtract", self, other)

    def __rsub__(self, other: Any) -> Formula:
        return Formula("subtract", other, self)

    def __mul__(self, other: Any) -> Formula:
        return Formula("multiply", self, other)

    def __rmul__(self, other: Any) -> Formula:
        return Formula("multiply", other, self)

    def __truediv__(self, other: Any) -> Formula:
        return Formula("divide", self, other)

    @property
    def parts(self) -> list[Formula]:
        return [a for a in self.arguments if isinstance(a, Formula)]


_OPERATORS = [
    *("Column", "Lag", "Second", "absolute", "covariance", "floor", "highest", "less", "level_price", "log", "lowest"),
    *("maximum", "mean", "nonzero", "notional", "share", "sign", "sin_turn", "since", "sqrt", "std", "total"),
]
_ACROSS = ["mean_across", "rank", "std_across", "value_of", "zscore"]


def _operator(name: str) -> Callable[..., Formula]:
    return lambda *arguments: Formula(name, *arguments)


def _module(names: list[str]) -> ModuleType:
    module = ModuleType("operators")
    for name in names:
        setattr(module, name, _operator(name))
    module.__dict__["Node"] = Formula
    return module


def formulas() -> dict[str, Formula]:
    """Return the features of the catalog that look at one symbol alone, and at more than the clock."""
    names = {"shared.features.ops": _module(_OPERATORS), "shared.features.across": _module(_ACROSS)}
    kept = {name: sys.modules.get(name) for name in names}
    namespace: dict[str, Any] = {"__name__": "catalog"}
    sys.modules.update(names)
    try:
        path = ROOT / "shared/features/catalog.py"
        exec(compile(path.read_text(), str(path), "exec"), namespace)  # noqa: S102 - our own catalog
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module

    def all_of(formula: Formula) -> set[str]:
        return {formula.operator}.union(*(all_of(part) for part in formula.parts))

    found: dict[str, Formula] = namespace["FEATURES"]
    said = {name: all_of(formula) for name, formula in found.items()}
    return {name: found[name] for name in found if "Column" in said[name] and not said[name] & set(_ACROSS)}


# ------------------------------------------------------------------------------------------------ expressions

_WINDOWS: dict[str, Callable[[pl.Expr, int], pl.Expr]] = {
    "Lag": lambda x, w: x.shift(w),
    "total": lambda x, w: x.rolling_sum(w),
    "mean": lambda x, w: x.rolling_mean(w),
    "std": lambda x, w: x.rolling_std(w),
    "highest": lambda x, w: x.rolling_max(w),
    "lowest": lambda x, w: x.rolling_min(w),
    "since": lambda x, w: (_row() - pl.when(x != 0.0).then(_row()).forward_fill()).clip(upper_bound=w).fill_null(w),
}

_CELLS: dict[str, Callable[..., pl.Expr]] = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "absolute": lambda x: x.abs(),
    "sqrt": lambda x: x.sqrt(),
    "log": lambda x: x.log(),
    "sign": lambda x: x.sign(),
    "less": lambda x, y: (x < y).cast(pl.Float64),
    "maximum": lambda x, y: pl.max_horizontal(x, y),
    "nonzero": lambda x: x,
    "notional": lambda p, s: p * s,
    "level_price": lambda p, s, a: p,
    "share": lambda p, w: (p / w).fill_nan(0.0),
}


def _row() -> pl.Expr:
    return pl.int_range(pl.len())


def _expression(formula: Formula, arguments: list[Any]) -> pl.Expr:
    if formula.operator in _WINDOWS:
        return _WINDOWS[formula.operator](arguments[0], arguments[1])
    return _CELLS[formula.operator](*arguments)


# ---------------------------------------------------------------------------------------------- wide frames

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: y * -1.0 + x if isinstance(x, float) else x - y,
    "multiply": lambda x, y: y * x if isinstance(x, float) else x * y,
    "divide": lambda x, y: x / y,
    "notional": lambda p, s: p * s,
    "less": lambda x, y: (x < y).cast(pl.Float64),
}


def wide_features(columns: dict[str, pl.DataFrame], wanted: dict[str, Formula]) -> dict[str, pl.DataFrame]:
    """Compute formulas on wide frames, one per column, one column a symbol: nothing has to be grouped."""
    known: dict[int, pl.DataFrame] = {}

    def frame(x: Formula) -> pl.DataFrame:
        if id(x) not in known:
            if x.operator == "Column":
                known[id(x)] = columns[x.arguments[0]]
            else:
                known[id(x)] = _wide(x, [frame(a) if isinstance(a, Formula) else a for a in x.arguments])
        return known[id(x)]

    return {name: frame(formula) for name, formula in wanted.items()}


def _wide(formula: Formula, arguments: list[Any]) -> pl.DataFrame:
    operator = formula.operator
    first: pl.DataFrame = arguments[0]
    if operator in ("nonzero", "level_price"):
        return first
    if operator == "share":
        quotient: pl.DataFrame = first / arguments[1]
        return quotient.select(pl.all().fill_nan(0.0))
    if operator in _ARITHMETIC:
        result: pl.DataFrame = _ARITHMETIC[operator](*arguments)
        return result
    if operator == "maximum" and isinstance(arguments[1], pl.DataFrame):
        return pl.DataFrame([x.zip_with(x > y, y) for x, y in zip(first, arguments[1], strict=True)])
    if operator == "maximum":
        return first.select(pl.all().clip(lower_bound=arguments[1]))
    if operator == "since":
        return first.select(_expression(formula, [pl.col(n), arguments[1]]).alias(n) for n in first.columns)
    return first.select(_expression(formula, [pl.all(), *arguments[1:]]))


def wide_frames(columns: dict[str, Floats]) -> dict[str, pl.DataFrame]:
    return {
        name: pl.DataFrame({str(n): np.ascontiguousarray(column[:, n]) for n in range(column.shape[1])})
        for name, column in columns.items()
    }


# ------------------------------------------------------------------------------------------- .over("symbol")


def long_features(frame: pl.LazyFrame, wanted: dict[str, Formula]) -> pl.LazyFrame:
    """Compute formulas on a long frame sorted by (symbol, second), windows by `.over("symbol")`."""
    readers: dict[int, int] = {}

    def count(x: Formula) -> None:
        readers[id(x)] = readers.get(id(x), 0) + 1
        if readers[id(x)] == 1:
            for part in x.parts:
                count(part)

    for formula in wanted.values():
        count(formula)
    terms: dict[int, tuple[pl.Expr, int]] = {}  # expression, stage of the columns that it reads
    stages: dict[int, list[pl.Expr]] = {}

    def term(x: Any) -> tuple[Any, int]:
        if not isinstance(x, Formula):
            return x, 0
        if id(x) not in terms:
            terms[id(x)] = make(x)
        return terms[id(x)]

    def make(x: Formula) -> tuple[pl.Expr, int]:
        if x.operator == "Column":
            return pl.col(x.arguments[0]), 0
        found = [term(a) for a in x.arguments]
        stage = max(s for _, s in found)
        expression = _expression(x, [e for e, _ in found])
        if x.operator in _WINDOWS:
            expression = expression.over("symbol")
        if readers[id(x)] < 2:
            return expression, stage
        name = f"_{len(terms)}"
        stages.setdefault(stage, []).append(expression.alias(name))
        return pl.col(name), stage + 1

    final = [term(formula)[0].alias(name) for name, formula in wanted.items()]
    for stage in sorted(stages):
        frame = frame.with_columns(stages[stage])
    return frame.select(final)


def long_frame(columns: dict[str, Floats]) -> pl.DataFrame:
    seconds, n_symbols = next(iter(columns.values())).shape
    keys = {"symbol": np.repeat(np.arange(n_symbols), seconds), "second": np.tile(np.arange(seconds), n_symbols)}
    return pl.DataFrame(keys | {name: column.T.ravel() for name, column in columns.items()})
