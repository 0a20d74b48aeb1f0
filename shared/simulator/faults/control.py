"""The part of `/_control` that makes things go wrong: documents in, deeds done, the state out.

    GET  /_control/conditions   every state, what has struck, the seed and how to repeat the run
    POST /_control/conditions   a `Change`: what it names changes, the rest stays
    GET  /_control/script       the script that runs, with its seed: save it, and begin it again with --conditions
    POST /_control/script       a `Script`: begins now, from politeness

A document that cannot be done (a symbol that is not listed, a field that a contract row does not have) is refused as a
whole and changes nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from decimal import InvalidOperation
from typing import Any

import msgspec

from shared.simulator.clock import Clock
from shared.simulator.desk import Desk, contract_of
from shared.simulator.faults.conditions import Change, Script, dump
from shared.simulator.faults.faults import Faults
from shared.simulator.pushes.sockets import Log
from shared.simulator.venue.orders import Refusal


class Control:
    """Does what conditions and scripts ask for beyond `Faults`.

    Args:
        close_sockets: drops clients, "all", "public" or "private".
    """

    def __init__(self, desk: Desk, clock: Clock, close_sockets: Callable[[str], None], log: Log) -> None:
        self.faults = Faults(0, self._act)
        self.command = "python -m shared.simulator"
        """What started us; with seed and script it repeats the run."""
        self.file = "FILE"
        """Where the script is; one that came over HTTP is to be saved first (GET /_control/script)."""
        self._desk, self._clock, self._close_sockets, self._log = desk, clock, close_sockets, log

    @property
    def reproduce(self) -> str:
        """Return the command that repeats the run, given its script in the file."""
        return f"{self.command} --fault-seed {self.faults.seed} --conditions {shlex.quote(self.file)}"

    def state(self) -> dict[str, Any]:
        """Return what holds, what has struck, and how to repeat it."""
        faults = self.faults
        facts = {
            "seed": faults.seed,
            "struck": dict(sorted(faults.struck.items())),
            "steps_left": faults.steps_left,
            "reproduce": self.reproduce,
        }
        shown: dict[str, Any] = dump(faults.conditions)
        return shown | facts

    def script(self) -> dict[str, Any]:
        shown: dict[str, Any] = dump(self.faults.script)
        return shown

    def change(self, raw: bytes) -> dict[str, Any]:
        """Apply a change and return the state.

        Raises:
            ValueError: it is none, or cannot be done; nothing has changed.
        """
        change = _decode(raw, Change)
        self.check(change)
        self.faults.change(change)
        return self.state()

    def begin(self, raw: bytes) -> dict[str, Any]:
        """Begin a script and return the state.

        Raises:
            ValueError: it is none, or one of its changes cannot be done; nothing has changed.
        """
        script = _decode(raw, Script)
        for change in (script.conditions, *(step.change for step in script.steps)):
            self.check(change)
        self.faults.begin(script, self._clock.real_ns())
        self._log.info("script.begun", seed=self.faults.seed, steps=len(script.steps), reproduce=self.reproduce)
        return self.state()

    def check(self, change: Change) -> None:
        """Tell whether a change can be done here.

        Raises:
            ValueError: it names a symbol, a field of a contract or an account that does not exist.
        """
        rows = {row["symbol"]: row for row in self._desk.contract_rows(self._clock.now_ns())}
        for symbol, fields in (change.contracts or {}).items():
            row = rows.get(symbol)
            if row is None:
                raise ValueError(f"contracts must name listed symbols, found {symbol}")
            unknown = sorted(set(fields) - set(row) | set(fields) & {"symbol"})
            if unknown:
                raise ValueError(
                    f"contracts must name fields of a contract row, found {', '.join(unknown)} of {symbol}"
                )
            try:
                contract_of(row | fields)
            except (ValueError, InvalidOperation) as error:
                raise ValueError(
                    f"contracts must hold numbers as Bitget writes them, found {symbol}: {error!r}"
                ) from None
        wanted = change.position_mode
        if wanted is not None and wanted.account and wanted.account not in self._desk.venue.accounts:
            raise ValueError(f"position_mode must name an account's key, found {wanted.account}")

    def _act(self, change: Change) -> None:
        """Do the deeds of a change, and tell its states to those who keep copies."""
        told, venue = self.faults.conditions, self._desk.venue
        venue.plans.is_broken = told.stop_never_triggers
        self._desk.show_positions_late(int(told.position_delay_ms * 1_000_000 * self._clock.speed))
        self._desk.overlay(told.contracts)
        self._clock.skew_ms = int(told.clock_skew_ms)
        if change.drop_sockets:
            self._close_sockets(change.drop_sockets if isinstance(change.drop_sockets, str) else "all")
        if change.position_mode is not None:
            self._switch(change.position_mode.mode, change.position_mode.account)
        self._log.info("conditions.changed", **msgspec.to_builtins(change))

    def _switch(self, mode: str, account: str) -> None:
        """Switch the position mode as somebody else with the same keys would; refused where something is open."""
        venue = self._desk.venue
        for one in (account,) if account else venue.accounts:
            refusal = venue.set_position_mode(one, mode)
            self.faults.strike(f"position mode {refusal.code if isinstance(refusal, Refusal) else 'switched'}")


def _decode(raw: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise ValueError(f"expected fields of {kind.__name__}, found: {error}") from None
