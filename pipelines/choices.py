"""Choices of a configuration as a person types them, checked against the typed object before anything runs.

top_k=5                     one value                              --set of pipelines.backtest
top_k=5,10,20               several                                --grid of pipelines.sweep
confidence_min=0.4..0.7     anything between, for a search         --grid with --trials
"""

from __future__ import annotations

import itertools
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from shared.errors import SettingsError
from shared.strategy.config import EngineConfig

NOT_CHOSEN = ("symbols", "horizon_s", "variants")
"""Fields that are no choice of a sweep: what is traded (SYMBOLS), what the scores look ahead, and who scores, which
--variant of pipelines.backtest says."""

_TYPES = {
    name: kind for name, kind in typing.get_type_hints(EngineConfig).items() if name not in (*NOT_CHOSEN, "return")
}

CONFIGURATIONS_MAX = 512
"""Of a grid: each is an engine with a venue, and each is a trial that deflates the others."""


class Between(msgspec.Struct, frozen=True):
    """Everything from `low` to `high`."""

    low: float
    high: float
    is_whole: bool


Choice = tuple[Any, ...] | Between


def choice_of(text: str) -> tuple[str, Choice]:
    """Return the field and what may be chosen for it.

    Raises:
        SettingsError: no such field, or a value that cannot be one of it.
    """
    name, equals, values = text.partition("=")
    name = name.strip()
    if not equals or not values.strip():
        raise SettingsError(f"a choice must be like top_k=5 or top_k=5,10, found {text!r}: correct it")
    if name not in _TYPES:
        raise SettingsError(
            f"a choice must be of a field of the configuration, found {name!r}: choose of {', '.join(sorted(_TYPES))}"
        )
    if ".." in values:
        low, _, high = values.partition("..")
        ends = [_value(name, end.strip()) for end in (low, high)]
        if any(isinstance(end, bool) or not isinstance(end, int | float) for end in ends) or not ends[0] < ends[1]:
            raise SettingsError(f"a range must be of numbers, the lower one first, found {text!r}: correct it")
        return name, Between(ends[0], ends[1], all(isinstance(end, int) for end in ends))
    found = tuple(_value(name, value.strip()) for value in values.split(","))
    return name, tuple(dict.fromkeys(found))


def _value(name: str, text: str) -> Any:
    kind = _TYPES[name]
    try:
        if text.lower() in ("none", "null"):
            return msgspec.convert(None, kind)
        if kind is bool or kind is int or kind is float:
            return msgspec.convert(text.lower(), kind, strict=False)
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{name} must be {_named(kind)}, found {text!r} ({error}): correct it") from None


def _named(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def choices_of(texts: Sequence[str]) -> dict[str, Choice]:
    """Return field -> what may be chosen, in the order given; a field that is named twice is refused."""
    found: dict[str, Choice] = {}
    for text in texts:
        name, choice = choice_of(text)
        if name in found:
            raise SettingsError(f"a field must be chosen once, found {name} twice: give its values in one, like a,b")
        found[name] = choice
    return found


def changed(config: EngineConfig, changes: Mapping[str, Any]) -> EngineConfig:
    """Return the configuration with these values, its bounds checked.

    Raises:
        SettingsError: a value is out of its bounds.
    """
    return msgspec.structs.replace(config, **changes)


def one_each(choices: Mapping[str, Choice]) -> dict[str, Any]:
    """Return the single value of each field, for a run that is one configuration.

    Raises:
        SettingsError: a field has several.
    """
    for name, choice in choices.items():
        if isinstance(choice, Between) or len(choice) != 1:
            raise SettingsError(
                f"--set must give {name} one value, found several: python -m pipelines.sweep takes them"
            )
    return {name: choice[0] for name, choice in choices.items() if not isinstance(choice, Between)}


def grid_of(choices: Mapping[str, Choice]) -> list[dict[str, Any]]:
    """Return every combination, the last field turning fastest.

    Raises:
        SettingsError: a range, which has no end of values; or too many combinations.
    """
    lists: list[tuple[Any, ...]] = []
    for name, choice in choices.items():
        if isinstance(choice, Between):
            raise SettingsError(f"{name} is a range, which a grid cannot enumerate: give --trials, or values like a,b")
        lists.append(choice)
    n = 1
    for values in lists:
        n *= len(values)
    if n > CONFIGURATIONS_MAX:
        raise SettingsError(
            f"a grid must have {CONFIGURATIONS_MAX} configurations at most, found {n}: choose fewer, or give --trials"
        )
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*lists)]


def typed(changes: Mapping[str, Any]) -> str:
    """Return changes as they are typed."""
    return " ".join(f"--set {name}={_text(value)}" for name, value in changes.items())


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(getattr(value, "value", value))
