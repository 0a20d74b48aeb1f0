"""What to compute in which order, and where every value lies; the same for any number of symbols.

A *value* is the position of a node in `in_order`, or an extra one behind them: the source of a value that is copied
into its window. Its *pass* is one more than the cross-sections that must be known before. Places are:

* constants, and *common* values: (rows, 1), made between passes from the clock and from cross-sections;
* columns: views of the block, copied into a register where several calls of one pass read them (a chunk's part of a
  block lies scattered);
* windows: remembered values, per symbol or common;
* *wide* buffers: values that a cross-section or a later pass reads;
* registers: all others.

A long block would touch every window of every chunk in every slab, far more memory than a cache holds. So a window
whose readers are all in its own pass *floats*: it lies in a register while it is read, its past is put before it, and
only the last rows are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import numpy as np

from shared.features.across import ACROSS
from shared.features.ops import ACROSS_CELL, ACROSS_COMMON, OPERATORS, Node, Operation

FLOATING_MAX: Final = 32
"""Rows of past that a register has room for."""


class Call(NamedTuple):
    """One operation over the cells of a chunk, or over common values."""

    operation: Operation | None  # None: the value is there already, and only emitted
    arguments: tuple[int, ...]
    result: int
    features: tuple[int, ...]  # to emit
    window: int = -1  # that floats: its past has to be there, and its last rows are kept


class Cross(NamedTuple):
    """One operation over whole rows."""

    operation: Operation | None  # None: the value of `symbol`
    arguments: tuple[int, ...]
    result: int
    symbol: str


class Plan:
    """Passes and places of a set of formulas."""

    def __init__(self, features: Mapping[str, Node]) -> None:
        nodes = in_order(features.values())
        self._nodes = nodes
        self._value = {node.identity: v for v, node in enumerate(nodes)}
        self._children = [tuple(self._value[child.identity] for child in node.inputs) for node in nodes]
        self._emitted: dict[int, list[int]] = {}  # value -> features that it is
        for f, node in enumerate(features.values()):
            self._emitted.setdefault(self._value[node.identity], []).append(f)
        self.n_features: Final = len(features)
        self._depth = self._depths()
        self._known = self._known_in()
        self.n_passes: Final = 1 + max(self._known, default=0)
        self._pass = self._latest_passes()

        self.n_values = len(nodes)
        self.constants: list[tuple[int, float]] = []  # value, number
        self.clocks: list[int] = []  # values that are the epoch second
        self.columns: list[tuple[int, str]] = []  # value, name
        self.depths: list[int] = []  # of each window
        self.is_common_window: list[bool] = []
        self.views: list[tuple[int, int, int]] = []  # value, window, rows back
        self.registered: list[tuple[int, int]] = []  # value, register
        self.floating: dict[int, int] = {}  # window -> register
        self.n_registers = 0
        self.wide: list[int] = []  # values with a wide buffer
        self.common: list[int] = []  # values (rows, 1) of their own
        self.cells: list[list[Call]] = [[] for _ in range(self.n_passes)]
        self.rows: list[list[Call | Cross]] = [[] for _ in range(self.n_passes)]
        """Common values and cross-sections to compute before each pass over cells."""
        self._window: dict[int, int] = {}  # value -> window
        for v in range(len(nodes)):
            self._place(v)
        self._assign_registers()
        self.inputs: Final = tuple(name for _, name in self.columns)

    # ------------------------------------------------------------------------------------------ which pass

    def _depths(self) -> list[int]:
        depth = [0] * len(self._nodes)  # rows to remember
        for v, node in enumerate(self._nodes):
            if node.operator == "lag":
                child = self._children[v][0]
                depth[child] = max(depth[child], seconds_of(node))
        return depth

    def _known_in(self) -> list[int]:
        """Return the first pass in which each value is known."""
        known: list[int] = []
        for v, node in enumerate(self._nodes):
            # A cross-section waits for a pass over cells, but not for common values that are made on the way to it.
            waits = [
                known[child] + (is_across(node) and not self._nodes[child].is_common) for child in self._children[v]
            ]
            known.append(max(waits, default=0))
        return known

    def _latest_passes(self) -> list[int]:
        """Return the pass in which each value of a symbol is computed: the latest that its readers allow."""
        latest = [self.n_passes - 1] * len(self._nodes)
        for v in reversed(range(len(self._nodes))):
            node = self._nodes[v]
            if is_across(node) or node.is_common:
                latest[v] = self._known[v]
            wanted = self._known[v] - 1 if is_across(node) else latest[v]
            for child in self._children[v]:
                latest[child] = min(latest[child], wanted)
        return [max(late, known) for late, known in zip(latest, self._known, strict=True)]

    # --------------------------------------------------------------------------------------------- places

    def _place(self, v: int) -> None:
        node = self._nodes[v]
        if self._depth[v]:
            self._window[v] = len(self.depths)
            self.views.append((v, self._window[v], 0))
            self.depths.append(self._depth[v])
            self.is_common_window.append(node.is_common)
        if node.operator == "constant":
            assert isinstance(node.parameter, float)
            self.constants.append((v, node.parameter))
        elif node.operator == "lag":
            self.views.append((v, self._window[self._children[v][0]], seconds_of(node)))
        elif node.operator == "column":
            source = self._source(v) if self._depth[v] or self._is_read_again(v) else v
            self.columns.append((source, str(node.parameter)))
        elif node.operator == "second":
            source = self._source(v, is_common=True) if self._depth[v] else v
            self.clocks.append(source)
            self.common.append(source)
        elif is_across(node):
            self._place_across(v, node)
        elif node.is_common:
            self.rows[self._known[v]].append(Call(OPERATORS[node.operator], self._children[v], v, ()))
            if not self._depth[v]:
                self.common.append(v)
        else:
            self.cells[self._pass[v]].append(Call(OPERATORS[node.operator], self._children[v], v, ()))
        if v in self._emitted:
            self._emit(v)

    def _source(self, v: int, is_common: bool = False) -> int:
        """Return where a value that is not computed arrives, to be copied to where it is read."""
        source, self.n_values = self.n_values, self.n_values + 1
        copy = Call(np.positive, (source,), v, ())
        if is_common:
            self.rows[self._known[v]].append(copy)
        else:
            self.cells[self._pass[v]].append(copy)
        return source

    def _is_read_again(self, v: int) -> bool:
        """Tell whether a column is a feature itself, or several calls of one pass, and no other call, read it."""
        if v in self._emitted:
            return True
        readers = [reader for reader, children in enumerate(self._children) if v in children]
        is_whole = any(is_across(self._nodes[reader]) for reader in readers)
        return not is_whole and len(readers) > 1 and len({self._pass[reader] for reader in readers}) == 1

    def _place_across(self, v: int, node: Node) -> None:
        is_common = node.operator in ACROSS_COMMON
        into = v
        if self._depth[v] and not is_common:  # a rank that is remembered: whole rows are copied into windows by chunk
            into, self.n_values = self.n_values, self.n_values + 1
            self.cells[self._known[v]].append(Call(np.positive, (into,), v, ()))
        symbol = str(node.parameter) if node.operator == "value_of" else ""
        cross = Cross(ACROSS.get(node.operator), self._children[v], into, symbol)
        self.rows[self._known[v]].append(cross)
        if not is_common:
            self.wide.append(into)
        elif not self._depth[v]:
            self.common.append(v)

    def _emit(self, v: int) -> None:
        """Emit a feature in the last pass: where it is computed, or, if that was earlier, from where it lies."""
        features, last = tuple(self._emitted[v]), self.cells[-1]
        if last and last[-1].result == v and last[-1].operation is not None:
            last[-1] = last[-1]._replace(features=features)
        else:
            last.append(Call(None, (), v, features))

    def _assign_registers(self) -> None:
        """Give every remaining value a register from its computation to its last use, or a wide buffer."""
        needs_place = {
            call.result: p
            for p, calls in enumerate(self.cells)
            for call in calls
            if call.operation is not None and call.result not in self._window
        }
        read_across = {a for rows in self.rows for call in rows if isinstance(call, Cross) for a in call.arguments}
        read_later = {
            a
            for p, calls in enumerate(self.cells)
            for call in calls
            for a in (*call.arguments, call.result)
            if needs_place.get(a, p) < p
        }
        for v in sorted(needs_place):
            if v in read_across or v in read_later:
                self.wide.append(v)
        self._copy_columns_for(read_across)
        in_registers = set(needs_place) - set(self.wide)
        may_float = self._may_float()
        for calls in self.cells:
            self._assign_in(calls, in_registers, may_float)

    def _copy_columns_for(self, read_across: set[int]) -> None:
        """Whole rows of a column are those of the block; whole rows of a window have to be copied out of its chunks."""
        for v in sorted(read_across):
            node = self._nodes[v]
            is_in_window = v in self._window or node.operator == "lag"
            if is_in_window and not node.is_common:
                copy, self.n_values = self.n_values, self.n_values + 1
                self.wide.append(copy)
                first = min(p for p, rows in enumerate(self.rows) if any(_reads(call, v) for call in rows)) - 1
                self.cells[first].append(Call(np.positive, (v,), copy, ()))
                self.rows = [[_redirected(call, v, copy) for call in rows] for rows in self.rows]

    def _owner(self, v: int) -> int:
        """Return the value in whose window or register v lies: for a lag, what it lags."""
        if v < len(self._nodes) and self._nodes[v].operator == "lag":
            return self._children[v][0]
        return v

    def _may_float(self) -> set[int]:
        """Return the remembered values of symbols that are read in one pass alone, and not too far back."""
        passes: dict[int, set[int]] = {}
        for p, calls in enumerate(self.cells):
            for call in calls:
                for v in (*call.arguments, call.result):
                    passes.setdefault(self._owner(v), set()).add(p)
        return {
            v
            for v, w in self._window.items()
            if not self.is_common_window[w] and self.depths[w] <= FLOATING_MAX and len(passes[v]) == 1
        }

    def _assign_in(self, calls: list[Call], in_registers: set[int], may_float: set[int]) -> None:
        owned = in_registers | may_float
        last_use: dict[int, int] = {}
        for c, call in enumerate(calls):
            for v in (*call.arguments, call.result):
                if self._owner(v) in owned:
                    last_use[self._owner(v)] = c
        living: dict[int, int] = {}  # value -> register
        free: list[int] = []
        for c, call in enumerate(calls):
            dying = sorted({v for v in map(self._owner, call.arguments) if v in living and last_use[v] == c})
            is_new = call.operation is not None and call.result in owned
            # A result may be written over an argument, but not where one of them stands behind its past.
            is_floating = call.result in may_float
            early = [v for v in dying if not is_floating and v not in may_float]
            free += [living.pop(v) for v in early]
            if is_new:
                if not free:
                    free.append(self.n_registers)
                    self.n_registers += 1
                register = living[call.result] = free.pop()
                if is_floating:
                    self.floating[self._window[call.result]] = register
                    calls[c] = call._replace(window=self._window[call.result])
                else:
                    self.registered.append((call.result, register))
            free += [living.pop(v) for v in dying if v in living]
            if call.result in living and last_use[call.result] == c:  # a feature that nothing else reads
                free.append(living.pop(call.result))


def is_across(node: Node) -> bool:
    return node.operator in ACROSS_COMMON or node.operator in ACROSS_CELL


def seconds_of(lag: Node) -> int:
    assert isinstance(lag.parameter, int)
    return lag.parameter


def in_order(formulas: Iterable[Node]) -> list[Node]:
    """Return every distinct node once, children first."""
    plan: dict[str, Node] = {}

    def visit(node: Node) -> None:
        if node.identity not in plan:
            for child in node.inputs:
                visit(child)
            plan[node.identity] = node

    for node in formulas:
        visit(node)
    return list(plan.values())


def _reads(call: Call | Cross, v: int) -> bool:
    return isinstance(call, Cross) and v in call.arguments


def _redirected(call: Call | Cross, v: int, copy: int) -> Call | Cross:
    if not _reads(call, v):
        return call
    return call._replace(arguments=tuple(copy if a == v else a for a in call.arguments))
