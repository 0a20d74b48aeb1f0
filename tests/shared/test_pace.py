"""Pacing: no window of the period holds more than the limit, and nothing waits longer than that needs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.pace import Bucket, Pace


@given(st.integers(1, 6), st.integers(1, 50), st.lists(st.integers(0, 60), min_size=1, max_size=80))
def test_no_window_holds_more_than_the_limit(limit: int, period: int, gaps: list[int]) -> None:
    """Whenever messages want to go, every half-open window of the period holds at most `limit` of those sent."""
    pace = Pace(limit, period)
    now, sent = 1, []
    for gap in gaps:
        now += gap
        now = max(now, pace.ready_ns())
        pace.note(now)
        sent.append(now)

    for first in sent:
        assert sum(first <= at < first + period for at in sent) <= limit


@given(st.integers(1, 6), st.integers(1, 50))
def test_waiting_is_no_longer_than_needed(limit: int, period: int) -> None:
    """Messages that wait for nothing else go at the full rate: `limit` at once, then `limit` each period."""
    pace = Pace(limit, period)
    now, sent = 1, []
    for _ in range(3 * limit):
        now = max(now, pace.ready_ns())
        pace.note(now)
        sent.append(now)

    assert sent == [1 + period * (i // limit) for i in range(3 * limit)]


def test_sending_too_early_is_our_mistake() -> None:
    """Recording a message before its time is refused, and changes nothing."""
    pace = Pace(1, 10)
    pace.note(5)

    with pytest.raises(AssertionError):
        pace.note(14)

    assert pace.ready_ns() == 15


@given(st.integers(1, 6), st.integers(1, 50), st.lists(st.integers(0, 60), min_size=1, max_size=80))
def test_bucket_lets_a_burst_through_and_then_drips(limit: int, refill: int, gaps: list[int]) -> None:
    """No window of length w holds more than the limit and one for each refill time in it; a full bucket never waits."""
    bucket = Bucket(limit, refill)
    now, sent = 1, []
    for gap in gaps:
        now += gap
        now = max(now, bucket.ready_ns())
        bucket.note(now)
        sent.append(now)

    for i, first in enumerate(sent):
        for n, last in enumerate(sent[i:], 1):
            assert n <= limit + (last - first) / refill
    assert bucket.ready_ns() <= sent[-1] + refill
    fresh = Bucket(limit, refill)
    for _ in range(limit):
        assert fresh.ready_ns() <= 1
        fresh.note(1)
