"""Evaluating formulas over a stream of blocks: one implementation for a live second and for a year.

How it works (`shared.features.plan` says what is computed where, `shared.features.memory` where it lies):

1. Formulas are flattened into a plan, children first; equal formulas (by identity) are computed once.
2. A value that some `Lag` reads is *remembered*: it is computed into a window behind its last H rows (H its longest
   lag). `Lag` itself computes nothing: it is the same window, seen some rows earlier.
3. Other values live in *registers*, freed after their last use and taken again by the next value.
4. A long block is worked in slabs of rows, and each slab in *chunks* of symbols, so that what a chunk's registers and
   windows hold stays in cache. A live second is one row of all symbols, and its windows are rings.
5. Operators across symbols need the whole row. They part the plan into *passes*: chunks up to a cross-section, the
   cross-section over whole rows, chunks again. What crosses a pass lies in buffers as wide as the row. A value is
   computed in the latest pass that will do, so that most are made in the last one, and never leave the cache.
6. A feature is rounded to float32 where it is computed; its NaNs are made one NaN, so that bytes can be compared.

The value at t depends on rows (t − lookback, t] alone, and how the stream is cut changes no bit: operators give the
same bits for any shape, and a window holds the same rows however they came. Nor does the number of threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from shared.errors import ModelMismatch
from shared.features import ops, sampler
from shared.features.across import SYMBOLS_MAX
from shared.features.memory import Features, History, Live, Past, forget
from shared.features.ops import Node
from shared.features.plan import Plan
from shared.types import Floats

if TYPE_CHECKING:
    from shared.features.expressions import Expressions

__all__ = ["FeatureGraph", "Features", "definition_hash", "formulas_of", "lookback_of"]

HISTORY_ROWS_MIN = 24
"""Rows from which a block is worked in slabs instead of second by second: below, windows cost more to move."""


def definition_hash(features: Mapping[str, Node]) -> str:
    """Return a digest of names, order and formulas, and of what operators and columns mean."""
    text = [f"operators {ops.VERSION}, columns {sampler.VERSION}"]
    text += [f"{name} = {node.identity}" for name, node in features.items()]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()


def formulas_of(features: Mapping[str, Node]) -> dict[str, str]:
    """Return name -> identity of each formula, shortened: which differ where `definition_hash` says that some do."""
    return {name: node.identity[:16] for name, node in features.items()}


def lookback_of(features: Mapping[str, Node]) -> int:
    """Return the seconds before a row that its features depend on."""
    return max((node.lookback for node in features.values()), default=0)


class _State(msgspec.Struct, frozen=True):
    """What `FeatureGraph.save` writes."""

    definition_hash: str
    symbols: tuple[str, ...]
    next_second: int | None
    depths: tuple[int, ...]  # rows of each window, in the order of the plan
    rows: bytes  # float64, little-endian, window after window


class FeatureGraph:
    """Compute features of a stream of seconds; the state is what the lags remember.

    Args:
        features: name → formula; their order is the F axis.
        symbols: names on the N axis: the whole recorded universe, whatever part of it is traded.
        threads: how many work on a long block, each on its share of the symbols; a live second is one thread's.
    """

    def __init__(self, features: Mapping[str, Node], symbols: Sequence[str], *, threads: int = 1) -> None:
        assert len(symbols) <= SYMBOLS_MAX, f"{len(symbols)} symbols: at most {SYMBOLS_MAX} are summed exactly"
        assert threads >= 1, f"{threads} threads: at least one is needed"
        self.features: Final = dict(features)
        self.names: Final = tuple(features)
        self.lookback: Final = lookback_of(features)
        """Seconds before a row that its features depend on."""
        self.plan: Final = Plan(features)
        self.inputs: Final = self.plan.inputs
        """Columns that `step` reads."""
        self.symbols = tuple(symbols)
        self.next_second: int | None = None
        """The second that `step` expects; None: any, nothing was given yet."""
        self._threads = threads
        self._memory: Live | History = Live(self.plan, self.symbols)

    @property
    def n_symbols(self) -> int:
        return len(self.symbols)

    def step(self, columns: Mapping[str, Floats], first_second: int, out: Features | None = None) -> Features:
        """Take in the next seconds, any number of them; return their features, (T, N, F), C-contiguous.

        Seconds that were left out since the last call count as seconds of which nothing is known.

        Args:
            columns: name → (T, N) float64, at least every name of `inputs`.
            first_second: epoch second of row 0; not before `next_second`.
            out: where to put them, (T, N, F) float32, C-contiguous; fresh memory costs a tenth of the work.
        """
        inputs = [columns[name] for name in self.inputs]
        rows = len(inputs[0]) if inputs else len(next(iter(columns.values())))
        for name, column in zip(self.inputs, inputs, strict=True):
            assert column.shape == (rows, self.n_symbols), f"{name}: {column.shape}, expected {(rows, self.n_symbols)}"
            assert column.dtype == np.float64, f"{name}: {column.dtype}, expected float64"
        if self.next_second is not None and first_second != self.next_second:
            self._pass_over(first_second)
        shape = (rows, self.n_symbols, len(self.names))
        if out is None:
            out = np.empty(shape, np.float32)
        assert out.shape == shape, f"out: {out.shape}, expected {shape}"
        assert out.dtype == np.float32, f"out: {out.dtype}, expected float32"
        with np.errstate(all="ignore"):
            self._work(inputs, first_second, out)
        self.next_second = first_second + rows
        return out

    def _work(self, inputs: list[Floats], first_second: int, out: Features) -> None:
        is_long = len(out) >= HISTORY_ROWS_MIN and self.n_symbols > 0
        if is_long != isinstance(self._memory, History):
            past = self._memory.past()
            if is_long:
                self._memory = History(self.plan, self.symbols, self._threads)
            else:
                self._memory = Live(self.plan, self.symbols)
            self._memory.remember(past)
        if isinstance(self._memory, Live) or self._threads == 1:
            self._memory.work(inputs, first_second, out, None)
            return
        with ThreadPoolExecutor(self._threads, "features") as pool:
            self._memory.work(inputs, first_second, out, pool)

    def _pass_over(self, second: int) -> None:
        """Take in seconds of which nothing is known, as far as anything still depends on them."""
        assert self.next_second is not None
        missed = second - self.next_second
        assert missed > 0, f"second {second} was already taken in, the next is {self.next_second}"
        rows = min(missed, self.lookback)
        nothing = np.full((rows, self.n_symbols), np.nan)
        unread: Features = np.empty((rows, self.n_symbols, len(self.names)), np.float32)
        with np.errstate(all="ignore"):
            self._work([nothing] * len(self.inputs), second - rows, unread)

    # -------------------------------------------------------------------------------------------- its state

    def follow(self, symbols: Sequence[str]) -> None:
        """Change the N axis in mid-stream: who stays keeps its past, who joins has none, who leaves is forgotten.

        A symbol that joins is one that had been NaN until now, and gives the same bits. One that leaves is out of
        every cross-section at once, also out of those of lagged values, where a NaN would stay as long as the lag.
        """
        assert len(symbols) <= SYMBOLS_MAX, f"{len(symbols)} symbols: at most {SYMBOLS_MAX} are summed exactly"
        position = {symbol: n for n, symbol in enumerate(self.symbols)}
        kept = [position.get(symbol, -1) for symbol in symbols]
        past = self._memory.past()
        self.symbols = tuple(symbols)
        self._memory = Live(self.plan, self.symbols)
        self._memory.remember([rows if rows.shape[1] == 1 and is_common else _taken(rows, kept)
                               for rows, is_common in zip(past, self.plan.is_common_window, strict=True)])  # fmt: skip

    def save(self) -> bytes:
        """Return the state: another graph of the same formulas goes on from it, bit for bit."""
        past = self._memory.past()
        return msgspec.msgpack.encode(
            _State(
                definition_hash=definition_hash(self.features),
                symbols=self.symbols,
                next_second=self.next_second,
                depths=tuple(len(rows) for rows in past),
                rows=b"".join(np.ascontiguousarray(rows, "<f8").tobytes() for rows in past),
            )
        )

    def restore(self, saved: bytes) -> None:
        """Go on from a saved state, symbols and all.

        Raises:
            ModelMismatch: it is none, or belongs to other formulas.
        """
        try:
            state = msgspec.msgpack.decode(saved, type=_State)
        except msgspec.MsgspecError as error:
            raise ModelMismatch(
                f"a saved state of features is needed, found something else ({error}): start without it"
            ) from None
        own = definition_hash(self.features)
        if state.definition_hash != own:
            raise ModelMismatch(
                f"the saved state must be of features {own[:12]}…, found {state.definition_hash[:12]}…: "
                f"start without it and take in {self.lookback} s"
            )
        past: Past = []
        cells = np.frombuffer(state.rows, "<f8")
        widths = [1 if is_common else len(state.symbols) for is_common in self.plan.is_common_window]
        sizes = [depth * width for depth, width in zip(state.depths, widths, strict=True)]
        if sum(sizes) != len(cells) or state.depths != tuple(self.plan.depths):
            raise ModelMismatch(
                f"the saved state must hold {sum(self.plan.depths)} rows of {len(state.symbols)} symbols, found "
                f"{len(cells)} numbers: it was cut short, start without it"
            )
        at = 0
        for depth, width in zip(state.depths, widths, strict=True):
            past.append(cells[at : at + depth * width].reshape(depth, width).astype(np.float64))
            at += depth * width
        self.symbols, self.next_second = state.symbols, state.next_second
        self._memory = Live(self.plan, self.symbols)
        self._memory.remember(past)

    def reset(self) -> None:
        """Forget everything: the next row is the first."""
        self.next_second = None
        self._memory.remember(forget(self.plan, self.n_symbols))

    # ------------------------------------------------------------------------------------------- elsewhere

    def to_polars(self) -> Expressions:
        """Return the same formulas as polars expressions, equal bit for bit; needs polars, which live does without."""
        from shared.features.expressions import Expressions

        return Expressions(self.features)


def _taken(rows: Floats, kept: list[int]) -> Floats:
    """Return the columns of `kept`, NaN for −1."""
    taken = np.full((len(rows), len(kept)), np.nan)
    for n, old in enumerate(kept):
        if old >= 0:
            taken[:, n] = rows[:, old]
    return taken
