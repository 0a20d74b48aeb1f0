"""Where the values of a plan lie while it is worked, and how: a second at a time, or a long block in slabs.

`Live` works one row of all symbols: what is remembered lies in rings, and nothing is ever moved. `History` works slabs
of rows in chunks of symbols: what is remembered lies behind the rows of the slab, one window for each chunk.
`past` and `remember` carry the state from one to the other: (H, N) or, where common, (H, 1) rows of each window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.features.plan import FLOATING_MAX, Call, Cross, Plan
from shared.types import Floats

Features = NDArray[np.float32]
Past = list[Floats]

CHUNK_CELLS = 49152
"""Rows x symbols of a chunk: so long that neither a numpy call nor the past that is put before its rows costs much
beside its work. A quarter of it fits into L2, and is slower: 590 ns a symbol-second of 84 features, against 500."""

CHUNK_SYMBOLS = 200
"""A row of a chunk is this wide: narrower, more pages of the block are touched for the same work; wider, more rows of
the past are moved."""

CROSS_CELLS = 32768
"""Rows x symbols that a cross-section is worked at once: its temporary values lie in L2. Of the whole slab of a chunk
of `CHUNK_CELLS`, a rank takes twice as long."""

_BOUND_MAX = 64
"""Positions of rings and windows whose views are kept; formulas that look further back bind them anew."""


def forget(plan: Plan, n_symbols: int) -> Past:
    """Return the state before anything was taken in."""
    return [
        np.full((depth, 1 if is_common else n_symbols), np.nan)
        for depth, is_common in zip(plan.depths, plan.is_common_window, strict=True)
    ]


def _shared_values(plan: Plan, rows: int) -> list[Floats]:
    """Return a list of all values, constants and common buffers filled in."""
    values: list[Floats] = [np.empty(())] * plan.n_values
    for v, constant in plan.constants:
        values[v] = np.array(constant)
    for v in plan.common:
        values[v] = np.empty((rows, 1))
    return values


def _call(call: Call, values: list[Floats]) -> None:
    if call.operation is not None:
        call.operation(*[values[v] for v in call.arguments], values[call.result])


_Bound = tuple[Callable[..., object], tuple[Any, ...]]


def _bound(call: Call, values: list[Floats]) -> _Bound:
    assert call.operation is not None
    return call.operation, (*(values[v] for v in call.arguments), values[call.result])


def _round(line: Features, value: Floats) -> None:
    np.copyto(line, value, casting="same_kind")


def _round_clean(line: Features, value: Floats) -> None:
    np.copyto(line, value, casting="same_kind")
    _clean(line)


def _clean(values: Features) -> None:
    """Make every NaN the same one: which bits a NaN has differs between CPUs."""
    if math.isnan(np.maximum.reduce(values, axis=None)):  # half the cost of a mask; a NaN is above everything
        np.copyto(values, np.nan, where=np.isnan(values))


def _cross(call: Cross, values: list[Floats], position: dict[str, int], rows: slice) -> None:
    arguments = [values[v][rows] for v in call.arguments]
    if call.operation is not None:
        with np.errstate(all="ignore"):  # every thread has its own
            call.operation(*arguments, values[call.result][rows])
        return
    n = position.get(call.symbol)
    values[call.result][rows] = np.nan if n is None else arguments[0][:, n : n + 1]


class Live:
    """One row at a time.

    Everything has its place for good, columns are copied into theirs: so what a second calls, and with which arrays,
    depends on the position of the rings alone, and is looked up once for each position.
    """

    def __init__(self, plan: Plan, symbols: Sequence[str]) -> None:
        self._plan, self._n_symbols = plan, len(symbols)
        self._position: Final = {symbol: n for n, symbol in enumerate(symbols)}
        lengths = [1 << depth.bit_length() for depth in plan.depths]  # powers of two above the depth
        self._period = max(lengths, default=1)
        self._rings = [
            np.full((length, 1 if is_common else self._n_symbols), np.nan)
            for length, is_common in zip(lengths, plan.is_common_window, strict=True)
        ]
        self._at = 0  # ring position of the next row, modulo the period
        values = _shared_values(plan, 1)
        row = (1, self._n_symbols)
        for v in (*plan.wide, *(v for v, _ in plan.columns)):
            values[v] = np.empty(row)
        registers = [np.empty(row) for _ in range(plan.n_registers)]
        for v, r in plan.registered:
            values[v] = registers[r]
        self._values = values
        self._columns = [values[v] for v, _ in plan.columns]
        self._bound: dict[int, list[_Bound]] = {}
        self._stage = np.empty((plan.n_features, 1, self._n_symbols), np.float32)

    def work(self, inputs: Sequence[Floats], first_second: int, out: Features, pool: ThreadPoolExecutor | None) -> None:
        for t in range(len(out)):
            for place, column in zip(self._columns, inputs, strict=True):
                place[0] = column[t]
            for v in self._plan.clocks:
                self._values[v][0, 0] = first_second + t
            for operation, arguments in self._bind():
                operation(*arguments)
            _clean(self._stage)
            np.copyto(out[t], self._stage[:, 0].T)
            self._at = (self._at + 1) % self._period

    def _bind(self) -> list[_Bound]:
        """Return what to call, with what, at this position of the rings."""
        found = self._bound.get(self._at)
        if found is None:
            found = self._look_up()
            if self._period <= _BOUND_MAX:
                self._bound[self._at] = found
        return found

    def _look_up(self) -> list[_Bound]:
        values = self._values.copy()
        for v, w, back in self._plan.views:
            ring = self._rings[w]
            row = (self._at - back) % len(ring)
            values[v] = ring[row : row + 1]
        bound: list[_Bound] = []
        for rows, cells in zip(self._plan.rows, self._plan.cells, strict=True):
            for call in rows:
                if isinstance(call, Cross):
                    bound.append((_cross, (call, values, self._position, slice(0, 1))))
                else:
                    bound.append(_bound(call, values))
            for call in cells:
                if call.operation is not None:
                    bound.append(_bound(call, values))
                bound += [(_round, (self._stage[f], values[call.result])) for f in call.features]
        return bound

    def past(self) -> Past:
        return [
            ring.take(np.arange(self._at - depth, self._at), axis=0, mode="wrap")
            for ring, depth in zip(self._rings, self._plan.depths, strict=True)
        ]

    def remember(self, past: Past) -> None:
        self._at = 0
        for ring, rows in zip(self._rings, past, strict=True):
            ring[len(ring) - len(rows) :] = rows


class _Views(NamedTuple):
    """Where the values of a slab lie, and what to call."""

    whole: list[Floats]  # by value: whole rows
    values: list[list[Floats]]  # of each chunk, by value
    calls: list[list[list[_Bound]]]  # of each chunk and pass
    reading: list[tuple[int, int, Call]]  # pass, position and call of those that read the block itself


class History:
    """Slabs of rows in chunks of symbols, each chunk worked by one of `threads` threads."""

    def __init__(self, plan: Plan, symbols: Sequence[str], threads: int) -> None:
        self._plan = plan
        self._position: Final = {symbol: n for n, symbol in enumerate(symbols)}
        n_symbols = len(symbols)
        wanted = max(1, round(n_symbols / CHUNK_SYMBOLS))
        n_chunks = max(1, min(-(-wanted // threads) * threads, n_symbols))  # as many for each thread
        bounds = [n_symbols * k // n_chunks for k in range(n_chunks + 1)]
        self._chunks = [slice(a, b) for a, b in pairwise(bounds)]
        self._threads = min(threads, n_chunks)
        widest = max(chunk.stop - chunk.start for chunk in self._chunks)
        self.slab: Final = max(1, CHUNK_CELLS // widest)
        # A window may advance as far as it is deep, so that moving its past to the front costs a row a row at most.
        # One that floats holds its past and nothing else.
        self._spare = [
            0 if w in plan.floating else -(-max(depth, 1) // self.slab) * self.slab
            for w, depth in enumerate(plan.depths)
        ]
        self._at = [0] * len(plan.depths)
        self._windows = [self._allocate(chunk.stop - chunk.start) for chunk in self._chunks]
        self._wide = {v: np.empty((self.slab, n_symbols)) for v in plan.wide}
        self._common = _shared_values(plan, self.slab)
        cells = self.slab * widest
        size = (self.slab + FLOATING_MAX) * widest
        self._registers = [np.empty((plan.n_registers, size)) for _ in range(self._threads)]
        # + 16: lines of a power of two bytes apart fall into the same cache set (5 times slower to transpose)
        self._stages = [np.empty((plan.n_features, cells + 16), np.float32) for _ in range(self._threads)]
        self._bound: dict[tuple[int, ...], _Views] = {}  # by rows of the slab and by where the windows have advanced to

    def _allocate(self, width: int) -> list[Floats]:
        return [
            np.full((depth + spare, 1 if is_common else width), np.nan)
            for depth, spare, is_common in zip(self._plan.depths, self._spare, self._plan.is_common_window, strict=True)
        ]

    def past(self) -> Past:
        past: Past = []
        for w, (depth, is_common) in enumerate(zip(self._plan.depths, self._plan.is_common_window, strict=True)):
            at = self._at[w]
            parts = [windows[w][at : at + depth] for windows in (self._windows[:1] if is_common else self._windows)]
            past.append(np.concatenate(parts, axis=1))
        return past

    def remember(self, past: Past) -> None:
        self._at = [0] * len(past)
        for chunk, windows in zip(self._chunks, self._windows, strict=True):
            for window, rows, is_common in zip(windows, past, self._plan.is_common_window, strict=True):
                window[: len(rows)] = rows if is_common else rows[:, chunk]

    def work(self, inputs: Sequence[Floats], first_second: int, out: Features, pool: ThreadPoolExecutor | None) -> None:
        for start in range(0, len(out), self.slab):
            rows = min(self.slab, len(out) - start)
            columns = [column[start : start + rows] for column in inputs]
            self._slab(columns, first_second + start, out[start : start + rows], pool)

    def _slab(self, columns: list[Floats], second: int, out: Features, pool: ThreadPoolExecutor | None) -> None:
        plan, rows = self._plan, len(out)
        views = self._bind(rows)
        for (v, _), column in zip(plan.columns, columns, strict=True):
            views.whole[v] = column
            for chunk, values in zip(self._chunks, views.values, strict=True):
                values[v] = column[:, chunk]
        for values, calls in zip(views.values, views.calls, strict=True):
            for p, k, call in views.reading:
                calls[p][k] = _bound(call, values)
        for v in plan.clocks:
            views.whole[v][:, 0] = np.arange(second, second + rows)
        for p in range(plan.n_passes):
            for row_call in plan.rows[p]:
                self._row_call(row_call, views.whole, rows, pool)
            if pool is None:
                self._cells(0, p, views, out)
            else:
                for _ in pool.map(lambda worker, p=p: self._cells(worker, p, views, out), range(self._threads)):
                    pass
        self._advance(rows)

    def _row_call(self, call: Call | Cross, whole: list[Floats], rows: int, pool: ThreadPoolExecutor | None) -> None:
        if isinstance(call, Call):
            _call(call, whole)
            return
        step = max(1, CROSS_CELLS // len(self._position))
        parts = [slice(a, min(a + step, rows)) for a in range(0, rows, step)]
        for _ in (map if pool is None else pool.map)(lambda part: _cross(call, whole, self._position, part), parts):
            pass

    def _cells(self, worker: int, p: int, views: _Views, out: Features) -> None:
        """Work pass p of every chunk that is this worker's."""
        is_last = p == self._plan.n_passes - 1
        with np.errstate(all="ignore"):  # every thread has its own
            for c in range(worker, len(self._chunks), self._threads):
                for operation, arguments in views.calls[c][p]:
                    operation(*arguments)
                if is_last:
                    chunk = self._chunks[c]
                    shape = (len(out), chunk.stop - chunk.start)
                    lines = self._stages[worker][:, : shape[0] * shape[1]]
                    np.copyto(out[:, chunk], lines.reshape(-1, *shape).transpose(1, 2, 0))

    def _bind(self, rows: int) -> _Views:
        """Return where every value of a slab of so many rows lies now, and what to call with what."""
        key = (rows, *self._at)
        if key not in self._bound:
            if len(self._bound) >= _BOUND_MAX:
                self._bound.clear()
            self._bound[key] = self._look_up(rows)
        return self._bound[key]

    def _look_up(self, rows: int) -> _Views:
        plan = self._plan
        whole = [value[:rows] if value.ndim else value for value in self._common]  # constants have no rows
        for v, wide in self._wide.items():
            whole[v] = wide[:rows]
        for v, w, back in plan.views:
            if plan.is_common_window[w]:
                whole[v] = self._seen(0, w, back, rows)
        found = _Views(whole, [], [], [])
        for c, chunk in enumerate(self._chunks):
            values = whole.copy()
            shape = (rows, chunk.stop - chunk.start)
            registers = self._registers[c % self._threads]
            for v, wide in self._wide.items():
                values[v] = wide[:rows, chunk]
            for v, r in plan.registered:
                values[v] = registers[r, : shape[0] * shape[1]].reshape(shape)
            for v, w, back in plan.views:
                if w in plan.floating:
                    first = (plan.depths[w] - back) * shape[1]
                    values[v] = registers[plan.floating[w], first : first + shape[0] * shape[1]].reshape(shape)
                elif not plan.is_common_window[w]:
                    values[v] = self._seen(c, w, back, rows)
            found.values.append(values)
            found.calls.append([self._calls_of(c, p, values, shape, found.reading) for p in range(plan.n_passes)])
        return found

    def _seen(self, c: int, w: int, back: int, rows: int) -> Floats:
        """Return the rows of a slab in a window, or those so many rows earlier."""
        first = self._plan.depths[w] + self._at[w] - back
        return self._windows[c][w][first : first + rows]

    def _calls_of(
        self, c: int, p: int, values: list[Floats], shape: tuple[int, int], reading: list[tuple[int, int, Call]]
    ) -> list[_Bound]:
        """Return what pass p calls for a chunk; note which calls read the block itself, which is another every time."""
        sources = {v for v, _ in self._plan.columns}
        stage = self._stages[c % self._threads]
        bound: list[_Bound] = []
        for call in self._plan.cells[p]:
            if call.operation is not None:
                if c == 0 and sources & set(call.arguments):
                    reading.append((p, len(bound), call))
                bound.append(_bound(call, values))
            if call.window >= 0:
                before, past, last = self._float(c, call.window, shape[0])
                bound += [(np.copyto, (before, past)), (np.copyto, (past, last))]
            for f in call.features:
                line = stage[f, : shape[0] * shape[1]].reshape(shape)
                bound.append((_round_clean, (line, values[call.result])))
        return bound

    def _float(self, c: int, w: int, rows: int) -> tuple[Floats, Floats, Floats]:
        """Return, of a window that floats, the rows before it in its register, its past, and its last rows."""
        past = self._windows[c][w]
        depth, width = past.shape
        register = self._registers[c % self._threads][self._plan.floating[w]][: (depth + rows) * width]
        whole = register.reshape(depth + rows, width)
        return whole[:depth], past, whole[rows:]

    def _advance(self, rows: int) -> None:
        for w, depth in enumerate(self._plan.depths):
            if w in self._plan.floating:
                continue
            at = self._at[w] + rows
            if at + self.slab > self._spare[w]:
                for windows in self._windows[:1] if self._plan.is_common_window[w] else self._windows:
                    windows[w][:depth] = windows[w][at : at + depth]
                at = 0
            self._at[w] = at
