"""A session again from its journal alone: the same events must lead to the same actions, byte for byte.

`python -m live.replay` asks for that, and the report of a session is made while it happens. The stages, in order:

    inputs -> columns -> features -> scores -> actions

`inputs` differs where the journal was altered after it was written; each later one where this code computes something
else than the code that traded did (another commit, another catalog, another library).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from shared import journal
from shared import model as models
from shared.errors import JournalError, ModelMismatch, SettingsError
from shared.features.catalog import FEATURES
from shared.features.graph import definition_hash
from shared.features.sampler import COLUMNS
from shared.strategy.engine import Engine, EngineConfig
from shared.strategy.scores import CoinScorer, ModelScorer, RulesScorer, Scorer
from shared.types import Action, Event, SecondClosed, Universe


class Difference(msgspec.Struct, frozen=True):
    """The first stage at which a replay left the record."""

    record: int
    stage: str
    expected: str
    found: str
    second: int | None  # None: before the first second

    def sentence(self) -> str:
        when = f" in second {self.second}" if self.second is not None else ""
        return (
            f"differs at stage {self.stage!r}{when} (record {self.record}): the journal says {self.expected}, "
            f"the replay {self.found}"
        )


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay found."""

    session: str
    seconds: int
    events: int
    actions: int
    decisions: int = 0  # records of what the engine made of an event that are the same, byte for byte
    difference: Difference | None  # None: identical
    is_closed: bool
    torn_bytes: int


class Watcher(Protocol):
    """Looks on while a session happens again."""

    def begin(self, header: journal.Header, engine: Engine) -> None:
        """See the fresh engine before its first event."""

    def see(self, event: Event, actions: list[Action]) -> None:
        """See what an event led to; the engine has taken it."""


def replay(folder: Path, watcher: Watcher | None = None) -> Replayed:
    """Drive a fresh engine with the journal's events and compare what it does, up to the first difference.

    Raises:
        JournalError: the journal cannot be read, or its records are not in order.
        ModelMismatch: the model in the session's folder is not the one that traded.
    """
    reader = journal.JournalReader(folder / journal.FILE_NAME)
    inputs = journal.InputDigest()
    engine: Engine | None = None
    header: journal.Header | None = None
    pending: tuple[bytes, dict[str, str]] | None = None  # what the last event led to, not yet compared
    counts = {journal.SECOND: 0, journal.EVENT: 0}
    n_actions, n_decisions, second, difference, last_event = 0, 0, None, None, 0

    for record in reader:
        if record.kind != journal.DECISION and pending is not None:
            # The writer notes every decision that is one: none follows an event that led to nothing.
            return_actions, _ = pending
            if return_actions != _NOTHING:
                difference = Difference(last_event, "actions", "none", _describe(return_actions), second)
                break
            pending = None
        if record.kind == journal.HEADER:
            header = record.value
            inputs.add(record.kind, record.body)
            engine = _engine(folder, record.value)
            if watcher is not None:
                watcher.begin(record.value, engine)
        elif record.kind in (journal.SECOND, journal.EVENT):
            assert engine is not None, "the reader has checked that a header comes first"
            assert header is not None, "the reader has checked that a header comes first"
            inputs.add(record.kind, record.body)
            event: Event = record.value
            if isinstance(event, SecondClosed):
                if event.second < header.warmed_until_s:
                    _warm(engine, event)
                    continue
                second = event.second
            counts[record.kind] += 1
            last_event = record.number
            actions = engine.on_event(event)
            n_actions += len(actions)
            stages = engine.digests if isinstance(event, SecondClosed) else {}
            pending = journal.encode_actions(actions), stages
            if watcher is not None:
                watcher.see(event, actions)
        elif record.kind == journal.DECISION:
            if pending is None:
                raise JournalError(f"record {record.number} must follow an event, found a decision without one")
            difference = _compare(record.number, second, record.value, inputs.value(), *pending)
            if difference is not None:
                break
            n_decisions += 1
            pending = None
    assert header is not None, "the reader has checked that a header comes first"
    if difference is None:
        difference = _check_length(folder, counts, second)
    return Replayed(
        session=header.session,
        seconds=counts[journal.SECOND],
        events=counts[journal.EVENT],
        actions=n_actions,
        decisions=n_decisions,
        difference=difference,
        is_closed=reader.is_closed,
        torn_bytes=reader.torn_bytes,
    )


_NOTHING = journal.encode_actions([])


def _warm(engine: Engine, event: SecondClosed) -> None:
    """Fill the memory of the features with a second that the engine was not told of."""
    if engine.graph is not None:
        engine.graph.step(dict(zip(COLUMNS, event.columns[:, None, :], strict=True)), event.second)


def _compare(
    number: int, second: int | None, record: journal.Decision, inputs: bytes, actions: bytes, stages: dict[str, str]
) -> Difference | None:
    if record.inputs != inputs:
        return Difference(number, "inputs", record.inputs.hex(), inputs.hex(), second)
    for stage in dict.fromkeys([*record.stages, *stages]):
        expected, found = record.stages.get(stage, "nothing"), stages.get(stage, "nothing")
        if expected != found:
            return Difference(number, stage, expected, found, second)
    if record.actions != actions:
        expected, found = _describe(record.actions), _describe(actions)
        if expected == found:  # the same kinds of actions with other contents
            expected, found = _first_difference(record.actions, actions)
        return Difference(number, "actions", expected, found, second)
    return None


def _check_length(folder: Path, counts: dict[int, int], second: int | None) -> Difference | None:
    """Compare with the session's summary, which knows how long the journal was: a cut between frames shows there."""
    summary = folder / "session.json"
    if not summary.is_file():
        return None  # a crash leaves none
    try:
        told = msgspec.json.decode(summary.read_bytes(), type=dict[str, Any])["journal"]
        expected = f"{told['seconds']} seconds and {told['events']} events"
    except (OSError, msgspec.MsgspecError, KeyError, TypeError) as error:
        raise JournalError(
            f"{summary} must be the session's summary, found: {error!r}: restore it, or remove it to replay without it"
        ) from None
    found = f"{counts[journal.SECOND]} seconds and {counts[journal.EVENT]} events"
    if expected == found:
        return None
    return Difference(sum(counts.values()), "inputs", expected, f"{found}: the end is missing", second)


def _describe(actions: bytes) -> str:
    """Say in few words what a list of actions holds."""
    try:
        names = [
            f"{type(action).__name__}({getattr(action, 'symbol', '') or getattr(action, 'event', '')})"
            for action in journal.decode_actions(actions)
        ]
    except msgspec.MsgspecError as error:
        return f"what is no list of actions ({error})"
    return f"{len(names)} actions " + ", ".join(names[:6]) + (" …" if len(names) > 6 else "")


def _first_difference(expected: bytes, found: bytes) -> tuple[str, str]:
    """Return the first action that differs, as the one and as the other list has it."""
    for one, other in zip(journal.decode_actions(expected), journal.decode_actions(found), strict=True):
        if one != other:
            return str(one), str(other)
    return f"{len(expected)} bytes", f"{len(found)} bytes of the same actions"


def _engine(folder: Path, header: journal.Header) -> Engine:
    if header.columns != COLUMNS:
        raise JournalError(
            f"journal of {header.session} must have this code's columns, found others: check out commit {header.commit}"
        )
    return Engine(
        header.config,
        header.universe,
        make_scorer(header.model, header.seed, header.universe, folder, header.bundle),
        session=header.session,
        seed=header.seed,
        memory=header.memory,
        alternatives=alternatives_of(header.config),
    )


def alternatives_of(config: EngineConfig) -> tuple[Scorer, ...]:
    """Return the further scorers of a configuration: `rules`, or `rules/30s` with a horizon of their own.

    Raises:
        SettingsError: one is not known. A second model would need a bundle of its own in the session's folder.
    """
    known = [_RULES.fullmatch(name) for name in config.variants]
    unknown = [name for name, match in zip(config.variants, known, strict=True) if match is None]
    if unknown:
        raise SettingsError(
            f"a further variant must be rules, or rules/30s with seconds of its own, found {', '.join(unknown)}: "
            "leave it out"
        )
    names = tuple(FEATURES)
    return tuple(
        RulesScorer(names, None if match["seconds"] is None else int(match["seconds"]))
        for match in known
        if match is not None
    )


_RULES: Final = re.compile(r"rules(/(?P<seconds>[1-9][0-9]{0,3})s)?")


def make_scorer(selector: str, seed: int, universe: Universe, folder: Path, bundle: journal.ModelNote | None) -> Scorer:
    """Return the scorer that `selector` means, the model loaded from the session's own folder.

    Raises:
        ModelMismatch: the folder holds another model than the journal names.
    """
    if selector == "coin":
        return CoinScorer(seed)
    names = tuple(FEATURES)
    if selector == "rules":
        return RulesScorer(names)
    assert bundle is not None, f"{selector} is a model and has no bundle"
    model = models.load(folder / bundle.folder, definition_hash=definition_hash(FEATURES), feature_names=names)
    if model.digest != bundle.digest:
        raise ModelMismatch(
            f"the session's model must have digest {bundle.digest[:12]}…, found {model.digest[:12]}… in "
            f"{folder / bundle.folder}: restore the folder as the session left it"
        )
    return ModelScorer(model)
