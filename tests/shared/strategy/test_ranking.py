"""Gates and order, against a plain reading of the rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.strategy.ranking import Gate, best, first_no, refusals

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
    st.tuples(st.booleans(), st.sampled_from([-1, 1]), st.integers(-3, 3), st.integers(0, 2)), min_size=1, max_size=20
)


@given(CANDIDATES, st.integers(0, 5), st.integers(0, 5))
def test_best_takes_each_sides_first(candidates: list[tuple[bool, int, int, int]], longs: int, shorts: int) -> None:
    """The chosen are each side's best by priority, then draw, then symbol; all others are beyond the rank."""
    why = np.array([Gate.CHOSEN if is_in else Gate.SPREAD for is_in, *_ in candidates], np.uint8)
    direction = np.array([d for _, d, _, _ in candidates], np.int8)
    priority = np.array([float(p) for _, _, p, _ in candidates])
    draws = np.array([float(w) for *_, w in candidates])
    keys = {n: (-priority[n], draws[n], n) for n in range(len(candidates)) if candidates[n][0]}
    wanted = sorted(
        [
            n
            for side, k in ((1, longs), (-1, shorts))
            for n in sorted((n for n in keys if direction[n] == side), key=keys.__getitem__)[:k]
        ],
        key=keys.__getitem__,
    )

    chosen = best(why, direction, priority, draws, longs, shorts)

    assert chosen == wanted
    assert [n for n in keys if why[n] == Gate.RANK] == [n for n in keys if n not in wanted]


@given(CANDIDATES, st.integers(0, 5))
def test_mirrored_directions_choose_the_same_symbols(candidates: list[tuple[bool, int, int, int]], k: int) -> None:
    """Long and short are treated alike: turning every direction around turns the sides and nothing else."""
    why = np.array([Gate.CHOSEN if is_in else Gate.SPREAD for is_in, *_ in candidates], np.uint8)
    direction = np.array([d for _, d, _, _ in candidates], np.int8)
    priority = np.array([float(p) for _, _, p, _ in candidates])
    draws = np.array([float(w) for *_, w in candidates])

    assert best(why.copy(), direction, priority, draws, k, k + 1) == best(
        why.copy(), -direction, priority, draws, k + 1, k
    )


def test_gates_are_asked_in_their_order() -> None:
    """A gate that is asked out of turn would hide the first reason: that is our bug, and said at once."""
    with pytest.raises(AssertionError, match="SPREAD must be asked after NO_BOOK"):
        first_no(1, [(Gate.SPREAD, np.array([True])), (Gate.NO_BOOK, np.array([True]))])


def test_gates_have_names_and_fit_a_byte() -> None:
    """Every gate has a name of its own, and CHOSEN alone is zero."""
    assert [gate for gate in Gate if not gate] == [Gate.CHOSEN]
    assert max(Gate) < 256
