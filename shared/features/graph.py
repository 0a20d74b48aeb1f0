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
        plan = _in_order(features)
        self.inputs: Final = tuple(str(node.parameter) for node in plan if node.operator == "column")
        """Columns that `step` reads."""
        self._slice_rows = max(1, SLICE_CELLS // max(1, n_symbols))
        self._compile(features, plan)

    def _compile(self, features: Mapping[str, Node], plan: list[Node]) -> None:
        value = {node.identity: v for v, node in enumerate(plan)}
        depth = [0] * len(plan)  # rows to remember
        last_use = list(range(len(plan)))
        for v, node in enumerate(plan):
            for child in node.inputs:
                last_use[value[child.identity]] = v
            if node.operator == "lag":
                assert isinstance(node.parameter, int)
                source = value[node.inputs[0].identity]
                depth[source] = max(depth[source], node.parameter)
        wanted: dict[int, list[int]] = {}
        for f, node in enumerate(features.values()):
            wanted.setdefault(value[node.identity], []).append(f)

        self._values: list[Floats] = [np.empty(())] * len(plan)
        self._columns: list[tuple[int, str]] = []  # value, column name
        self._views: list[tuple[int, int, int]] = []  # value, window, rows back
        self._registered: list[tuple[int, int]] = []  # value, register
        self._calls: list[tuple[ops.Operation | None, tuple[int, ...], int, tuple[int, ...]]] = []
        self._windows: list[Floats] = []
        self._depths: list[int] = []
        spare = max(_SPARE_ROWS, self._slice_rows)
        window: dict[int, int] = {}  # value -> its window
        register: dict[int, int] = {}
        free: list[int] = []
        n_registers = 0
        for v, node in enumerate(plan):
            children = tuple(value[child.identity] for child in node.inputs)
            features_here = tuple(wanted.get(v, ()))
            if node.operator == "constant":
                assert isinstance(node.parameter, float)
                self._values[v] = np.array(node.parameter)
                continue
            if depth[v]:
                window[v] = len(self._windows)
                self._views.append((v, window[v], 0))
                self._windows.append(np.full((depth[v] + spare, self.n_symbols), np.nan))
                self._depths.append(depth[v])
            if node.operator == "lag":
                assert isinstance(node.parameter, int)
                self._views.append((v, window[children[0]], node.parameter))
                if features_here:
                    self._calls.append((None, (), v, features_here))
                continue
            dying = {register.pop(c) for c in set(children) if last_use[c] == v and c in register}
            free += sorted(dying)
            if node.operator == "column":
                if not depth[v]:
                    self._columns.append((v, str(node.parameter)))
                else:  # copied into its window
                    source = len(self._values)
                    self._values.append(np.empty(()))
                    self._columns.append((source, str(node.parameter)))
                    self._calls.append((np.positive, (source,), v, ()))
                if features_here:
                    self._calls.append((None, (), v, features_here))
                continue
            if not depth[v]:
                if not free:
                    free.append(n_registers)
                    n_registers += 1
                register[v] = free.pop()
                self._registered.append((v, register[v]))
            self._calls.append((OPERATORS[node.operator], children, v, features_here))
            if last_use[v] == v and v in register:  # a feature that nothing else reads
                free.append(register.pop(v))
        self._registers = [np.empty((self._slice_rows, self.n_symbols)) for _ in range(n_registers)]
        self._register_rows = 0
        self._at = 0  # rows that the windows have advanced
        self._spare = spare
        # + 16: lines of a power of two bytes apart fall into the same cache set (5 times slower to transpose)
        self._stage = np.empty((len(self.names), self._slice_rows * self.n_symbols + 16), np.float32)
        self._stage_rows: list[Features] = []

    def step(self, columns: Mapping[str, Floats]) -> Features:
        """Take in the next seconds, any number of them; return their features, (T, N, F), C-contiguous.

        Args:
            columns: name → (T, N) float64, at least every name of `inputs`.
        """
        inputs = [np.ascontiguousarray(columns[name]) for _, name in self._columns]
        rows = len(inputs[0]) if inputs else 0
        for (_, name), column in zip(self._columns, inputs, strict=True):
            assert column.shape == (rows, self.n_symbols), f"{name}: {column.shape}, expected {(rows, self.n_symbols)}"
            assert column.dtype == np.float64, f"{name}: {column.dtype}, expected float64"
        out: Features = np.empty((rows, self.n_symbols, len(self.names)), np.float32)
        with np.errstate(all="ignore"):
            for start in range(0, rows, self._slice_rows):
                stop = min(start + self._slice_rows, rows)
                for (v, _), column in zip(self._columns, inputs, strict=True):
                    self._values[v] = column[start:stop]
                self._slice(out[start:stop])
        return out

    def _slice(self, out: Features) -> None:
        rows, values = len(out), self._values
        if self._at + rows > self._spare:
            for window, depth in zip(self._windows, self._depths, strict=True):
                window[:depth] = window[self._at : self._at + depth]
            self._at = 0
        for v, w, back in self._views:
            first = self._depths[w] + self._at - back
            values[v] = self._windows[w][first : first + rows]
        if rows != self._register_rows:
            for v, r in self._registered:
                values[v] = self._registers[r][:rows]
            self._stage_rows = [line[: rows * self.n_symbols].reshape(rows, self.n_symbols) for line in self._stage]
            self._register_rows = rows
        for operation, args, result, features in self._calls:
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
