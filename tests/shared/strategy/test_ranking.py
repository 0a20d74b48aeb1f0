"""Gates and order, against a plain reading of the rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.strategy.ranking import Gate, first_no, refusals, settle

N = 12
VERDICTS = st.lists(
    st.tuples(st.sampled_from([g for g in Gate if g]), st.lists(st.booleans(), min_size=N, max_size=N)), max_size=8
)


@given(VERDICTS)
def test_the_first_gate_in_order_is_the_reason(verdicts: list[tuple[Gate, list[bool]]]) -> None:
    """A symbol's reason is the lowest gate that refuses it."""
    verdicts.sort(key=lambda verdict: verdict[0])
    why = first_no(N, [(gate, np.array(refuses)) for gate, refuses in verdicts])

    for n in range(N):
        refusing = [gate for gate, refuses in verdicts if refuses[n]]
        assert why[n] == min(refusing, default=Gate.CHOSEN)
    assert refusals(why) == {
        f"no_{gate.name.lower()}": int((why == gate).sum()) for gate in Gate if gate and (why == gate).any()
    }
    few: list[tuple[Gate, NDArray[np.bool_] | list[int]]] = [
        (gate, np.flatnonzero(refuses).tolist()) for gate, refuses in verdicts
    ]
    assert list(first_no(N, few)) == list(why)


CANDIDATES = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.integers(-3, 3), st.integers(0, 2)), min_size=1, max_size=20
)


@given(CANDIDATES)
def test_the_chosen_come_best_first_and_the_others_ranked_too_low(
    candidates: list[tuple[bool, bool, int, int]],
) -> None:
    """The chosen are ordered by priority, then draw, then symbol; every other candidate is beyond the rank."""
    why = np.array([Gate.CHOSEN if is_in else Gate.SPREAD for is_in, *_ in candidates], np.uint8)
    chosen = [n for n, (is_in, has_slot, _, _) in enumerate(candidates) if is_in and has_slot]
    priority = np.array([float(p) for _, _, p, _ in candidates])
    draws = np.array([float(w) for *_, w in candidates])

    ordered = settle(why, np.array(chosen, np.intp), priority, lambda: draws)

    assert ordered == sorted(chosen, key=lambda n: (-priority[n], draws[n], n))
    for n, (is_in, has_slot, _, _) in enumerate(candidates):
        assert why[n] == (Gate.SPREAD if not is_in else Gate.CHOSEN if has_slot else Gate.RANK)


def test_gates_are_asked_in_their_order() -> None:
    """A gate that is asked out of turn would hide the first reason: that is our bug, and said at once."""
    with pytest.raises(AssertionError, match="SPREAD must be asked after NO_BOOK"):
        first_no(1, [(Gate.SPREAD, np.array([True])), (Gate.NO_BOOK, np.array([True]))])


def test_gates_have_names_and_fit_a_byte() -> None:
    """Every gate has a name of its own, and CHOSEN alone is zero."""
    assert [gate for gate in Gate if not gate] == [Gate.CHOSEN]
    assert max(Gate) < 256
