"""The challenger beside a session: scored on the champion's seconds, written down, never in the way.

It works when the orders of a second are long gone (`SHADOW_AFTER_S`), on the features that the champion has computed.
Its queue is bounded; where it lags, seconds are passed over, and where it is slow, wrong or cannot write, it ends with
one line in the log and the session goes on. No event, no action and no byte of the journal depends on it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from shared import shadow as file
from shared.errors import JournalError
from shared.features.memory import Features
from shared.journal import ModelNote
from shared.model import copy_bundle
from shared.replay import make_scorer
from shared.strategy.config import EngineConfig
from shared.strategy.shadow import Shadow
from shared.types import Floats, Note, Universe

SHADOW_AFTER_S: Final = 0.4
"""After the close of a second: answers to its orders have come, and the next one is not near."""

SECONDS_WAITING_MAX: Final = 5
TOOK_MS_MAX: Final = 100.0
SLOW_MAX: Final = 3
"""So many seconds in a row that take longer end the shadow: an answer of the exchange would wait for it."""

SECONDS_MEASURED: Final = 100_000


class ShadowPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to score beside the model that trades."""

    model: str  # as asked for
    bundle_folder: Path | None  # None: rules and coin need none
    bundle_note: ModelNote | None


class Beside:
    """Runs a shadow between the champion's seconds.

    Args:
        writer: of the file next to the journal; closed by `close`.
        log: gets a Note when the shadow ends before the session.
    """

    def __init__(self, shadow: Shadow, writer: file.Writer, *, log: Callable[[Note], None] = lambda note: None) -> None:
        self._shadow, self._writer, self._log = shadow, writer, log
        self._waiting: deque[tuple[int, Floats, Features | None]] = deque()
        self._slow = 0
        self.seconds = 0
        self.passed_over = 0
        self.ended = ""  # why before the session's end; "": it has not
        self._took_ms: deque[float] = deque(maxlen=SECONDS_MEASURED)

    def add(self, second: int, columns: Floats, features: Features | None) -> None:
        """Take note of a second that the champion has decided on; costs nothing."""
        if not self.ended:
            self._waiting.append((second, columns, features))

    def work(self) -> None:
        """Score what waits."""
        while self._waiting and not self.ended:
            second, columns, features = self._waiting.popleft()
            lags = len(self._waiting) >= SECONDS_WAITING_MAX
            begun = time.perf_counter()
            try:
                self._work_on(second, columns, features, lags=lags)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a challenger, the champion goes on
                self._end(f"{type(error).__name__}: {error}")
                return
            took_ms = (time.perf_counter() - begun) * 1e3
            self._took_ms.append(took_ms)
            self._slow = self._slow + 1 if took_ms > TOOK_MS_MAX else 0
            if self._slow >= SLOW_MAX:
                self._end(f"{SLOW_MAX} seconds in a row took more than {TOOK_MS_MAX:g} ms, the last {took_ms:.0f} ms")

    def close(self) -> None:
        """Score what is left, and close the file."""
        self.work()
        try:
            self._writer.close()
        except OSError as error:
            self._end(f"{error}")

    def summary(self) -> dict[str, Any]:
        """Return what session.json tells."""
        took = sorted(self._took_ms)
        return {
            "path": file.FILE_NAME,
            "seconds": self.seconds,
            "passed_over": self.passed_over,
            "ended": self.ended or None,
            "took_ms": {
                "p50": round(took[len(took) // 2], 3),
                "p99": round(took[min(len(took) - 1, int(0.99 * len(took)))], 3),
            }
            if took
            else None,
        }

    def _work_on(self, second: int, columns: Floats, features: Features | None, *, lags: bool) -> None:
        if lags and features is not None:  # without features its own windows need every second
            self.passed_over += 1
            self._writer.add(file.Record(second, b"", b""))
            return
        said = self._shadow.see(second, columns, features)
        if said is not None:
            self._writer.add(file.record_of(said))
            self.seconds += 1

    def _end(self, why: str) -> None:
        self.ended = why
        self._waiting.clear()
        self._log(Note(event="shadow.ended", fields={"reason": why, "seconds": self.seconds}))


def open_beside(
    plan: ShadowPlan,
    folder: Path,
    config: EngineConfig,
    universe: Universe,
    *,
    session: str,
    seed: int,
    log: Callable[[Note], None],
) -> Beside:
    """Return the shadow of a session that begins.

    Raises:
        ModelMismatch: the model means something else than this code.
        JournalError: its file cannot be written. Who asked for a shadow at the start is told that there is none.
    """
    if plan.bundle_folder is not None and plan.bundle_note is not None:
        copy_bundle(plan.bundle_folder, folder / plan.bundle_note.folder)
    scorer = make_scorer(plan.model, seed, universe, folder, plan.bundle_note)
    header = file.Header(
        version=file.VERSION,
        session=session,
        model=plan.model,
        bundle=plan.bundle_note,
        seed=seed,
        n_symbols=len(universe.symbols),
    )
    try:
        writer = file.Writer(folder, header)
    except OSError as error:
        raise JournalError(
            f"the shadow must be writable at {folder / file.FILE_NAME}, found: {error}: free it, or leave --shadow out"
        ) from None
    return Beside(Shadow(config, universe, scorer), writer, log=log)
