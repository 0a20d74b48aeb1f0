"""The structural comparison itself: what it must tell apart, and what it must not."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.shared.simulator.structure import differences

THEIRS: dict[str, Any] = {
    "code": "00000", "requestTime": 1791388588054, "none": None, "gap": "", "isIt": True, "empty": [],
    "data": {"list": [{"size": "0.1", "side": "buy", "fees": [{"fee": "-0.5", "extra": None}]}], "endId": "12"},
}  # fmt: skip


def changed(path: str, value: Any) -> Any:
    made = copy.deepcopy(THEIRS)
    *parents, last = path.split(".")
    where: Any = made
    for step in parents:
        where = where[int(step)] if isinstance(where, list) else where[step]
    if value is ...:
        del where[last]
    else:
        where[last] = value
    return made


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("requestTime", 5), ("code", "40404"), ("data.endId", "-0.25"), ("data.list.0.size", "7"),
        ("data.list.0.fees.0.fee", "3"),
    ],
)  # fmt: skip
def test_other_numbers_are_the_same_structure(path: str, value: Any) -> None:
    """Values may differ where a number stands for a number."""
    assert differences(changed(path, value), THEIRS) == []


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        ("requestTime", "1791388588054", "$.requestTime"), ("requestTime", 1.5, "$.requestTime"),
        ("requestTime", True, "$.requestTime"), ("code", 0, "$.code"), ("code", "", "$.code"), ("code", "ok", "$.code"),
        ("none", "", "$.none"), ("none", {}, "$.none"), ("none", ..., "$.none"), ("gap", None, "$.gap"),
        ("gap", "0", "$.gap"), ("isIt", False, "$.isIt"), ("isIt", 1, "$.isIt"), ("empty", None, "$.empty"),
        ("empty", ["x"], "$.empty"), ("new", None, "$.new"), ("data", None, "$.data"), ("data", [], "$.data"),
        ("data.list", [], "$.data.list"), ("data.list.0.side", "sell", "$.data.list[0].side"),
        ("data.list.0.side", ..., "$.data.list[0].side"), ("data.list.0.more", "1", "$.data.list[0].more"),
        ("data.list.0.fees.0.extra", ..., "$.data.list[0].fees[0].extra"),
        ("data.list.0.fees.0.fee", -0.5, "$.data.list[0].fees[0].fee"),
    ],
)  # fmt: skip
def test_every_difference_is_found_where_it_is(path: str, value: Any, where: str) -> None:
    """A key that is missing, extra, of another type, empty, or another word is one difference, with its path."""
    found = differences(changed(path, value), THEIRS)

    assert [sentence.split(":")[0] for sentence in found] == [where]


def test_longer_list_is_held_to_the_most_similar_row() -> None:
    """Recordings hold more or fewer rows than a test makes; each of ours must look like one of theirs."""
    row = THEIRS["data"]["list"][0]
    other = row | {"side": "sell"}

    assert differences([row, other, row], [other, row]) == []
    assert differences([row, row | {"side": "up"}, row], [other, row]) == [
        "$[1].side: expected text like 'sell', found 'up'"
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(value=JSON)
def test_anything_equals_itself(value: Any) -> None:
    """Nothing differs from its own copy."""
    assert differences(json.loads(json.dumps(value)), value) == []


@given(ours=JSON, theirs=JSON)
def test_different_types_never_pass(ours: Any, theirs: Any) -> None:
    """Two values of different JSON types are never of the same structure, either way round."""
    if type(ours) is not type(theirs):
        assert differences(ours, theirs)
        assert differences(theirs, ours)
