"""Compare what a server answered with what Bitget answered in the same situation, by structure alone.

Equal structure means: the same keys at every level, none missing and none extra; the same JSON types (an integer is no
float, null is no empty string); a number in text where there is one in text, "" where there is ""; and the same words
("crossed", "buy_single", messages), in which numbers may differ. Lists are both empty or both not; lists of the same
length are compared item by item, others by the most similar item.
"""

from __future__ import annotations

import re
from typing import Any

_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def differences(ours: Any, theirs: Any, at: str = "$") -> list[str]:
    """Return how `ours` differs from `theirs`, one sentence a difference, each with its path; [] means it does not."""
    if type(ours) is not type(theirs):
        return [f"{at}: expected {_named(theirs)}, found {_named(ours)}"]
    if isinstance(theirs, dict):
        found = [f"{at}.{key}: missing" for key in theirs if key not in ours]
        found += [f"{at}.{key}: extra" for key in ours if key not in theirs]
        for key in theirs:
            if key in ours:
                found += differences(ours[key], theirs[key], f"{at}.{key}")
        return found
    if isinstance(theirs, list):
        return _list_differences(ours, theirs, at)
    if isinstance(theirs, str):
        words = _words(ours), _words(theirs)
        return [] if words[0] == words[1] else [f"{at}: expected text like {words[1]!r}, found {words[0]!r}"]
    if isinstance(theirs, bool):
        return [] if ours == theirs else [f"{at}: expected {theirs}, found {ours}"]
    return []


def _list_differences(ours: list[Any], theirs: list[Any], at: str) -> list[str]:
    if bool(ours) != bool(theirs):
        return [f"{at}: expected {len(theirs)} items, found {len(ours)}"]
    if len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [found for i, (our, their) in pairs for found in differences(our, their, f"{at}[{i}]")]
    return [
        found
        for i, our in enumerate(ours)
        for found in min((differences(our, their, f"{at}[{i}]") for their in theirs), key=len)
    ]


def _words(text: str) -> str:
    return _NUMBER.sub("#", text)


def _named(value: Any) -> str:
    return "null" if value is None else f"{type(value).__name__} {str(value)[:60]!r}"
