"""Parameters as Bitget reads them, and pages that lose nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.simulator.gate import Refused
from shared.simulator.rest.common import limit, number, one_of, optional, paged, required, text, whole, window


def code_of(call: Any, *args: Any) -> str:
    with pytest.raises(Refused) as refused:
        call(*args)
    return refused.value.code


@pytest.mark.parametrize(
    "value", ["0", "1", "-1", "+3", "1.", ".5", "0.00010", "1e5", "1E-5", "9" * 25, "1e24", "1e-24"]
)
def test_numbers_of_every_client_are_read(value: str) -> None:
    """Exactly, digit for digit."""
    assert number(value, "size") == Decimal(value)


@pytest.mark.parametrize(
    "value",
    [
        "", ".", "-", "e5", "1e", "abc", "NaN", "Infinity", "0x10", "1_000", "1,5", " 1", "1 ", "１", "٣", "²", "1e25",
        "1e-25", "9" * 26, "1" * 41, "1e999", "--1", "1.2.3", None, True, 5, 0.5, [], {},
    ],
)  # fmt: skip
def test_what_is_no_number_is_refused(value: Any) -> None:
    """40020 with the parameter's name; nothing that would not fit into 28 digits gets past here."""
    with pytest.raises(Refused, match="40020 Parameter size error"):
        number(value, "size")


@given(value=st.text() | st.integers().map(str) | st.floats().map(str) | st.decimals().map(str))
def test_number_is_finite_and_moderate_or_refused(value: str) -> None:
    """Whatever comes, price x size of two such numbers fits."""
    try:
        found = number(value, "size")
    except Refused:
        return
    assert found == 0 or -24 <= found.adjusted() <= 24


def test_absent_null_and_empty_are_the_same() -> None:
    """Clients send all three for what they do not want."""
    for params in ({}, {"a": None}, {"a": ""}):
        assert text(params, "a") == ""
        assert optional(params, "a") is None
        assert whole(params, "a") is None
        assert limit(params) == 100
        assert one_of(params, "a", ("x", "y"), default="y") == "y"
        assert code_of(required, params, "a") == code_of(one_of, params, "a", ("x",)) == "40019"
    assert optional({"a": "0"}, "a") is None


@pytest.mark.parametrize(("value", "expected"), [("1", 1), ("100", 100), ("101", 100), ("99999999", 100)])
def test_limit_is_cut_silently(value: str, expected: int) -> None:
    """More than the most is the most."""
    assert limit({"limit": value}) == expected


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "x", "²", "1" * 21, ["1"], True])
def test_wrong_limit_is_refused(value: Any) -> None:
    """Nothing, negative, fractional or no number."""
    assert code_of(limit, {"limit": value}) == "40020"


def test_window_is_in_order_and_bounded() -> None:
    """Open ends are never too long."""
    day = 86_400_000
    window({"startTime": "5"}, 1)
    window({"endTime": "5"}, 1)
    window({"startTime": "5", "endTime": str(day + 5)}, 1)
    assert code_of(window, {"startTime": "5", "endTime": str(day + 6)}, 1) == "00001"
    assert code_of(window, {"startTime": "6", "endTime": "5"}, 1) == "40707"


ITEMS = st.lists(st.tuples(st.integers(1, 10**18), st.integers(0, 50)), unique_by=lambda item: item[0], max_size=40)


@given(items=ITEMS, size=st.integers(1, 12), start=st.none() | st.integers(0, 50), end=st.none() | st.integers(0, 50))
def test_pages_partition_what_is_asked_for(
    items: list[tuple[int, int]], size: int, start: int | None, end: int | None
) -> None:
    """Walking with endId gives every item of the window once, the greatest id first, whatever order they come in."""
    window_ = {name: str(value) for name, value in (("startTime", start), ("endTime", end)) if value is not None}
    walked: list[int] = []
    before: dict[str, str] = {}
    while True:
        page = paged(
            window_ | before | {"limit": str(size)}, items, name="rows", id_of=lambda item: str(item[0]),
            time_ns_of=lambda item: item[1] * 1_000_000 + 999_999, row=lambda item: {"id": item[0]},
        )  # fmt: skip
        if page["rows"] is None:
            break
        assert len(page["rows"]) <= size
        walked += [row["id"] for row in page["rows"]]
        before = {"idLessThan": page["endId"]}

    assert page == {"rows": None, "endId": None}
    meant = [id_ for id_, at in items if (start is None or at >= start) and (end is None or at <= end)]
    assert walked == sorted(meant, reverse=True)
