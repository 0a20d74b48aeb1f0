"""Evaluating formulas over a stream of blocks: one implementation for a live second and for a year.

How it works:

1. Formulas are flattened into a plan, children first; equal formulas (by identity) are computed once.
2. A node that some `Lag` reads is *remembered*: it is computed into a window that holds its last H rows (H its
   longest lag) before the rows at hand. `Lag` itself computes nothing: it is the same window, seen H' rows earlier.
3. Every other value lives in a *register*, freed after its last use and taken again by the next value.
4. A long block is worked in slices of about `SLICE_CELLS` cells, so that registers and windows stay in cache.
5. A feature is rounded to float32 where it is computed; its NaNs are made one NaN, so that bytes can be compared.

The value at t depends on rows (t − lookback, t] alone, and how the stream is cut changes no bit: operators are
elementwise, and a window holds the same rows however they came.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.features import ops, sampler
from shared.features.ops import OPERATORS, Node
from shared.types import Floats

Features = NDArray[np.float32]

SLICE_CELLS = 16384
"""Rows x symbols of a slice: long enough that a numpy call costs little beside its work, short enough for L2."""

_SPARE_ROWS = 32
"""Rows that a window may advance before its last H rows are moved to its front."""


def definition_hash(features: Mapping[str, Node]) -> str:
    """Return a digest of names, order and formulas, and of what operators and columns mean."""
    text = [f"operators {ops.VERSION}, columns {sampler.VERSION}"]
    text += [f"{name} = {node.identity}" for name, node in features.items()]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()


class FeatureGraph:
    """Compute features of a stream of seconds; the state is what the lags remember.

    Args:
        features: name → formula; their order is the F axis.
        n_symbols: length of the N axis.
    """

    def __init__(self, features: Mapping[str, Node], n_symbols: int) -> None:
        self.names: Final = tuple(features)
        self.n_symbols: Final = n_symbols
        self.lookback: Final = max((node.lookback for node in features.values()), default=0)
        """Seconds before a row that its features depend on."""
        self.plan: Final = _Plan(features)
        self.inputs: Final = tuple(name for _, name in self.plan.columns)
        """Columns that `step` reads."""
        self._slice_rows = max(1, SLICE_CELLS // max(1, n_symbols))
        self._spare = max(_SPARE_ROWS, self._slice_rows)
        self._at = 0  # rows that the windows have advanced
        self._windows = [np.full((depth + self._spare, n_symbols), np.nan) for depth in self.plan.depths]
        self._registers = [np.empty((self._slice_rows, n_symbols)) for _ in range(self.plan.n_registers)]
        self._register_rows = 0  # rows that the values in registers are views of
        # + 16: lines of a power of two bytes apart fall into the same cache set (5 times slower to transpose)
        self._stage = np.empty((len(self.names), self._slice_rows * n_symbols + 16), np.float32)
        self._stage_rows: list[Features] = []
        self._values: list[Floats] = [np.empty(())] * self.plan.n_values
        for v, constant in self.plan.constants:
            self._values[v] = np.array(constant)

    def step(self, columns: Mapping[str, Floats]) -> Features:
        """Take in the next seconds, any number of them; return their features, (T, N, F), C-contiguous.

        Args:
            columns: name → (T, N) float64, at least every name of `inputs`.
        """
        inputs = [np.ascontiguousarray(columns[name]) for name in self.inputs]
        rows = len(inputs[0]) if inputs else 0
        for name, column in zip(self.inputs, inputs, strict=True):
            assert column.shape == (rows, self.n_symbols), f"{name}: {column.shape}, expected {(rows, self.n_symbols)}"
            assert column.dtype == np.float64, f"{name}: {column.dtype}, expected float64"
        out: Features = np.empty((rows, self.n_symbols, len(self.names)), np.float32)
        with np.errstate(all="ignore"):
            for start in range(0, rows, self._slice_rows):
                stop = min(start + self._slice_rows, rows)
                for (v, _), column in zip(self.plan.columns, inputs, strict=True):
                    self._values[v] = column[start:stop]
                self._slice(out[start:stop])
        return out

    def _slice(self, out: Features) -> None:
        rows, values = len(out), self._values
        if self._at + rows > self._spare:
            for window, depth in zip(self._windows, self.plan.depths, strict=True):
                window[:depth] = window[self._at : self._at + depth]
            self._at = 0
        for v, w, back in self.plan.views:
            first = self.plan.depths[w] + self._at - back
            values[v] = self._windows[w][first : first + rows]
        if rows != self._register_rows:
            for v, r in self.plan.registered:
                values[v] = self._registers[r][:rows]
            self._stage_rows = [line[: rows * self.n_symbols].reshape(rows, self.n_symbols) for line in self._stage]
            self._register_rows = rows
        for operation, args, result, features in self.plan.calls:
            if operation is None:  # a feature that is itself a column or a lag
                pass
            elif len(args) == 2:
                operation(values[args[0]], values[args[1]], values[result])
            else:
                operation(*[values[v] for v in args], values[result])
            for f in features:
                np.copyto(self._stage_rows[f], values[result], casting="same_kind")
        np.copyto(out.reshape(-1, len(self.names)), self._stage[:, : rows * self.n_symbols].T)
        missing = np.isnan(out)
        if missing.any():
            out[missing] = np.nan
        self._at += rows


class _Plan:
    """What to compute in which order, and where every value lives; the same for any number of symbols.

    A value is the position of a node in `_in_order`; columns that are remembered have a second one, their source.
    """

    def __init__(self, features: Mapping[str, Node]) -> None:
        nodes = _in_order(features)
        self._value = {node.identity: v for v, node in enumerate(nodes)}
        self._outputs: dict[int, list[int]] = {}  # value -> features that it is
        for f, node in enumerate(features.values()):
            self._outputs.setdefault(self._value[node.identity], []).append(f)
        self._depth = [0] * len(nodes)  # rows to remember
        self._last_use = list(range(len(nodes)))
        for v, node in enumerate(nodes):
            for child in self._children(node):
                self._last_use[child] = v
                if node.operator == "lag":
                    self._depth[child] = max(self._depth[child], _seconds(node))

        self.n_values = len(nodes)
        self.constants: list[tuple[int, float]] = []  # value, number
        self.columns: list[tuple[int, str]] = []  # value, name
        self.views: list[tuple[int, int, int]] = []  # value, window, rows back
        self.registered: list[tuple[int, int]] = []  # value, register
        self.calls: list[tuple[ops.Operation | None, tuple[int, ...], int, tuple[int, ...]]] = []
        """Operation (None: the value is there already), arguments, result, features to emit."""
        self.depths: list[int] = []  # of each window
        self.n_registers = 0
        self._window: dict[int, int] = {}  # value -> window
        self._register: dict[int, int] = {}  # living value -> register
        self._free: list[int] = []
        for v, node in enumerate(nodes):
            self._place(v, node)

    def _children(self, node: Node) -> tuple[int, ...]:
        return tuple(self._value[child.identity] for child in node.inputs)

    def _place(self, v: int, node: Node) -> None:
        children, outputs = self._children(node), tuple(self._outputs.get(v, ()))
        if self._depth[v]:
            self._window[v] = len(self.depths)
            self.views.append((v, self._window[v], 0))
            self.depths.append(self._depth[v])
        if node.operator == "constant":
            assert isinstance(node.parameter, float)
            self.constants.append((v, node.parameter))
        elif node.operator == "lag":
            self.views.append((v, self._window[children[0]], _seconds(node)))
            self._emit(v, outputs)
        elif node.operator == "column" and not self._depth[v]:
            self.columns.append((v, str(node.parameter)))
            self._emit(v, outputs)
        elif node.operator == "column":  # copied into its window
            self.columns.append((self.n_values, str(node.parameter)))
            self.calls.append((np.positive, (self.n_values,), v, outputs))
            self.n_values += 1
        else:
            self._free_after_use(v, children)
            if not self._depth[v]:
                self._take_register(v)
            self.calls.append((OPERATORS[node.operator], children, v, outputs))
            self._free_after_use(v, (v,))  # a feature that nothing else reads

    def _emit(self, v: int, outputs: tuple[int, ...]) -> None:
        if outputs:
            self.calls.append((None, (), v, outputs))

    def _free_after_use(self, v: int, values: tuple[int, ...]) -> None:
        for value in sorted(set(values)):
            if self._last_use[value] == v and value in self._register:
                self._free.append(self._register.pop(value))

    def _take_register(self, v: int) -> None:
        if not self._free:
            self._free.append(self.n_registers)
            self.n_registers += 1
        self._register[v] = self._free.pop()
        self.registered.append((v, self._register[v]))


def _seconds(lag: Node) -> int:
    assert isinstance(lag.parameter, int)
    return lag.parameter


def _in_order(features: Mapping[str, Node]) -> list[Node]:
    """Return every distinct node once, children first."""
    plan: dict[str, Node] = {}

    def visit(node: Node) -> None:
        if node.identity not in plan:
            for child in node.inputs:
                visit(child)
            plan[node.identity] = node

    for node in features.values():
        visit(node)
    return list(plan.values())
