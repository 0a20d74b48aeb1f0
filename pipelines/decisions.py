"""Why not: of every symbol and decision the first gate that said no, and what was expected and asked of it then.

`DecisionLog` looks at an engine after each second and keeps its decisions, an hour at a time; the lake's table
`decisions` has one row a symbol and decision, under the run (of a backtest) or the session (of live) that decided:

    gate         first that said no, in the order of `shared.strategy.ranking.Gate`; "chosen" where none did
    direction    of the score; edge_bps is the expected move in it, cost_bps its round trip then, net_bps the difference

A backtest stores them as it runs. Live writes nothing more for it: a session's journal replays to the same decisions,
bit for bit (`store_session`). Figures are rounded to 0.01 bps, which shrinks a day of 600 symbols to a few bytes a row.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shared import journal
from shared.lake import write
from shared.lake.layout import HOUR_S, TABLES
from shared.replay import Difference, replay
from shared.strategy.engine import Engine
from shared.strategy.ranking import Gate
from shared.types import Action, Event, SecondClosed

GATES = tuple(gate.name.lower() for gate in Gate)
_FIGURES = ("confidence", "edge_bps", "cost_bps", "net_bps")


class DecisionLog:
    """Keeps decisions: the hour that is under way in memory, finished ones in files until they are stored."""

    def __init__(self, symbols: tuple[str, ...]) -> None:
        self._symbols = symbols
        self._folder = tempfile.TemporaryDirectory(prefix="crosscut-decisions-")
        self._hour: int | None = None  # None: nothing was decided yet
        self._seconds: list[int] = []
        self._gates: list[NDArray[np.uint8]] = []
        self._directions: list[NDArray[np.int8]] = []
        self._figures: list[NDArray[np.float32]] = []
        self._is_scored: list[NDArray[np.bool_] | None] = []  # None: nothing was looked at
        self._hours: dict[int, NDArray[np.int64]] = {}  # finished ones -> their seconds
        self._last_second = -1

    def look(self, engine: Engine) -> None:
        """Keep the engine's last decision; one that was looked at before is not kept twice."""
        second, view = engine.why_second, engine.view
        if second == self._last_second or second < 0:
            return
        self._last_second = second
        if self._hour is not None and second // HOUR_S != self._hour:
            self._spill()
        self._hour = second // HOUR_S
        figures = np.empty((len(_FIGURES), len(self._symbols)), np.float32)
        direction = np.zeros(len(self._symbols), np.int8)
        if view is not None:
            figures[0], figures[1] = view.scores.confidence, view.edge_bps
            figures[2], figures[3] = view.cost_bps, view.net_bps
            direction = view.scores.direction
        else:  # nothing is looked at before the exchange's truth is known
            figures[:] = np.nan
        self._seconds.append(second)
        self._gates.append(engine.why.copy())
        self._directions.append(direction)
        self._figures.append(figures)
        self._is_scored.append(None if view is None else view.scores.is_valid)

    def _spill(self) -> None:
        """Put the hour under way into a file, symbol after symbol, without words and as it is: 18 bytes a row.

        A tenth of what Parquet costs; compressed by lz4 it would be 11 bytes, and six times as dear.
        """
        if self._hour is None or not self._seconds:
            return
        figures = np.stack(self._figures, axis=2)  # (figures, N, T)
        np.round(figures, 2, out=figures)
        for t, is_scored in enumerate(self._is_scored):
            if is_scored is not None and np.count_nonzero(is_scored) < len(is_scored):
                figures[:2, ~is_scored, t] = np.nan
        frame = pl.DataFrame(
            {
                "gate": np.stack(self._gates, axis=1).ravel(),
                "direction": np.stack(self._directions, axis=1).ravel(),
                **{name: figures[k].ravel() for k, name in enumerate(_FIGURES)},
            }
        )
        frame.write_ipc(self._path(self._hour), compression="uncompressed")
        self._hours[self._hour] = np.array(self._seconds, np.int64)
        for kept in (self._seconds, self._gates, self._directions, self._figures, self._is_scored):
            kept.clear()

    def _read(self, hour: int) -> pl.DataFrame:
        """Return the rows of a finished hour, by symbol and second."""
        seconds, n_symbols = self._hours[hour], len(self._symbols)
        places = np.repeat(np.arange(n_symbols, dtype=np.uint32), len(seconds))
        frame = pl.read_ipc(self._path(hour))
        return frame.with_columns(
            pl.Series("second", np.tile(seconds, n_symbols)),
            pl.Series("symbol", self._symbols).gather(places),
            pl.Series("gate", GATES).gather(frame["gate"]),
        )

    def _path(self, hour: int) -> Path:
        return Path(self._folder.name) / f"{hour}.arrow"

    def store(self, lake: Path, source: str, run: str, provenance: dict[str, str] | None = None) -> int:
        """Write what was kept into the lake's table under a run's name, let go of it, and return the rows.

        Raises:
            LakeError: the disk refuses.
        """
        self._spill()
        n_rows = 0
        for hour in self._hours:
            frame = self._read(hour).with_columns(run=pl.lit(run))
            about = {"run": run, **(provenance or {})}
            n_rows += write.write_table(lake, "decisions", source, hour, frame, about, part=run).rows
            self._path(hour).unlink()
        self._hours.clear()
        return n_rows

    def close(self) -> None:
        """Remove the files of what was not stored."""
        self._folder.cleanup()


class _Looker:
    """Looks on while a session happens again."""

    def __init__(self) -> None:
        self.header: journal.Header | None = None
        self.log: DecisionLog | None = None

    def begin(self, header: journal.Header, engine: Engine) -> None:
        self.header, self.log, self._engine = header, DecisionLog(header.universe.symbols), engine

    def see(self, event: Event, actions: list[Action]) -> None:
        if isinstance(event, SecondClosed) and self.log is not None:
            self.log.look(self._engine)


def store_session(lake: Path, folder: Path) -> tuple[str, str, int, Difference | None]:
    """Write a session's decisions into the table, from its journal.

    Returns: (session, source, rows, where the replay left the record: what was decided from there on is not known).

    Raises:
        JournalError, ModelMismatch: the session cannot be replayed.
        LakeError: the disk refuses.
    """
    looker = _Looker()
    try:
        replayed = replay(folder, looker)
        assert looker.header is not None, "a journal that replays has a header"
        assert looker.log is not None, "likewise"
        header = looker.header
        about = {"session": header.session, "model": header.model, "commit": header.commit}
        rows = looker.log.store(lake, header.source, header.session, about)
        return header.session, header.source, rows, replayed.difference
    finally:
        if looker.log is not None:
            looker.log.close()


assert set(_FIGURES) < set(TABLES["decisions"].columns), "the table has what is kept"
