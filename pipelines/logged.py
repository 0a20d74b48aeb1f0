"""From a session's journal to its decisions with their outcomes, as the bandit noted them.

    note bandit.chose     who was chosen, with which probability, by which policy
    PlaceOrder            an entry of it was sent; without one it was refused by size, neutrality or risk: it earned 0
    note order.done       its last order ended; nothing filled: it earned 0
    note trade.closed     with the decision that opened it: what it earned, net, in bps

A decision that left nothing to chance (fewer candidates than slots, no budget to explore with) says nothing about
another plan, and is counted only. What has another end is not known: a position that was corrected or adopted, one
still open when the journal ends. A decision with an entry like that is left out whole, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from pipelines.offpolicy import Chosen, Decided
from shared import journal
from shared.errors import JournalError
from shared.strategy.bandit.state import Mode
from shared.types import Action, Cause, Note, PlaceOrder


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """What a session's bandit decided under one policy."""

    policy: str
    mode: Mode
    decided: tuple[Decided, ...]
    unknown: int  # decisions left out
    sure: int  # decisions in which nothing was left to chance: there is nothing to learn about another plan


class _Ask(msgspec.Struct):
    """An entry on its way."""

    decision: int
    was_sent: bool = False
    is_done: bool = False
    has_filled: bool = False


def actions_of(folder: Path) -> Iterator[Action]:
    """Yield what the engine wanted, in order.

    Raises:
        JournalError: the journal cannot be read.
    """
    for record in journal.JournalReader(folder / journal.FILE_NAME):
        if record.kind == journal.DECISION:
            yield from journal.decode_actions(record.value.actions)


def read_log(actions: Iterable[Action]) -> list[Log]:
    """Return the decisions by (mode, policy), each with what its entries earned."""
    notes: list[dict[str, Any]] = []
    asks: dict[str, _Ask] = {}
    earned: dict[tuple[int, str], float | None] = {}  # (decision, symbol) -> net bps; None: not known

    def end(symbol: str) -> None:
        ask = asks.pop(symbol, None)
        if ask is not None and (ask.decision, symbol) not in earned:
            is_nothing = not ask.was_sent or (ask.is_done and not ask.has_filled)
            earned[ask.decision, symbol] = 0.0 if is_nothing else None

    for action in actions:
        if isinstance(action, PlaceOrder):
            if action.cause is Cause.ENTRY and action.symbol in asks:
                asks[action.symbol].was_sent, asks[action.symbol].is_done = True, False
            continue
        if not isinstance(action, Note):
            continue
        fields = action.fields
        if action.event == "bandit.chose":
            notes.append(fields)
            for symbol in str(fields["symbols"]).split():
                end(symbol)
                asks[symbol] = _Ask(int(fields["second"] or 0))
        elif action.event == "order.done" and fields["cause"] == Cause.ENTRY:
            ask = asks.get(str(fields["symbol"]))
            if ask is not None:
                ask.is_done = True
                ask.has_filled = ask.has_filled or Decimal(str(fields["filled"])) != 0
        elif action.event == "trade.closed" and fields.get("decision") is not None:
            earned[int(fields["decision"] or 0), str(fields["symbol"])] = float(fields["net_bps"] or 0.0)
    for symbol in list(asks):
        end(symbol)
    return _logs(notes, earned)


def _logs(notes: list[dict[str, Any]], earned: dict[tuple[int, str], float | None]) -> list[Log]:
    decided: dict[tuple[str, str], list[Decided]] = {}
    unknown: dict[tuple[str, str], int] = {}
    sure: dict[tuple[str, str], int] = {}
    for note in notes:
        kind = str(note["mode"]), str(note["policy"])
        decided.setdefault(kind, [])
        unknown.setdefault(kind, 0)
        sure.setdefault(kind, 0)
        symbols = str(note["symbols"]).split()
        if not note["is_chance"]:
            sure[kind] += 1
            continue
        outcomes = [earned.get((note["second"], symbol)) for symbol in symbols]
        if any(outcome is None for outcome in outcomes):
            unknown[kind] += 1
            continue
        columns = [[float(value) for value in str(note[name]).split()] for name in ("p", "q", "believed_bps")]
        if any(len(column) != len(symbols) for column in columns):
            raise JournalError(
                f"decision {note['second']} must name a probability per entry, found "
                f"{[len(column) for column in columns]} for {len(symbols)}: the journal was altered"
            )
        decided[kind].append(
            Decided(
                second=int(note["second"]),
                chosen=tuple(
                    Chosen(symbol, p, q, believed, outcome)
                    for symbol, p, q, believed, outcome in zip(symbols, *columns, outcomes, strict=True)
                    if outcome is not None
                ),
                direct_q_bps=float(note["direct_q_bps"]),
                unsupported=float(note["unsupported"]),
                variant_p=float(note["variant_p"]),
                variant_q=float(note["variant_q"]),
            )
        )
    return [
        Log(
            policy=policy, mode=Mode(mode), decided=tuple(found), unknown=unknown[mode, policy], sure=sure[mode, policy]
        )
        for (mode, policy), found in decided.items()
    ]
