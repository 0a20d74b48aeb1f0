"""Scores in files: the same bits, whole passes only, and a disk that refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from pipelines.kept_scores import KeptScores
from shared.strategy.scores import Scores

shapes = st.tuples(st.integers(0, 5), st.integers(0, 7))
numbers = st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def any_scores(draw: st.DrawFn) -> Scores:
    shape = draw(shapes)
    p_long, p_short, p_flat, edge_bps, confidence = (
        draw(some.arrays(np.float64, shape, elements=numbers)) for _ in range(5)
    )
    direction = draw(some.arrays(np.int8, shape, elements=st.integers(-1, 1)))
    return Scores(p_long, p_short, p_flat, edge_bps, direction, confidence, draw(some.arrays(np.bool_, shape)))


def same(one: Scores, other: Scores) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in Scores.__struct_fields__]
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(any_scores(), any_scores()), min_size=1, max_size=3))
def test_what_is_read_is_what_was_written(blocks: list[tuple[Scores, Scores]]) -> None:
    """Any scores of any shape by two scorers come back bit for bit, NaNs included, and in any order."""
    bounds, names = list(range(len(blocks) + 1)), ("", "rules")
    with KeptScores() as kept:
        kept.begin(bounds, names, 1)
        for second, block in enumerate(blocks):
            kept.write(second, block)
        kept.end(bounds, names)

        assert kept.holds(bounds, names)
        for second in reversed(range(len(blocks))):
            read = kept.read(second, 2)
            assert all(same(a, b) for a, b in zip(read, blocks[second], strict=True))


def test_only_a_whole_pass_is_held() -> None:
    """A pass that was given up holds nothing, and ends what was held before it."""
    with KeptScores() as kept:
        kept.begin([0, 5], ("",), 1)
        assert not kept.holds([0, 5], ("",))
        kept.end([0, 5], ("",))
        assert kept.holds([0, 5], ("",))
        assert not kept.holds([0, 5], ("", "rules"))
        assert not kept.holds([0, 3, 5], ("",))

        kept.begin([0, 5], ("",), 1)
        assert not kept.holds([0, 5], ("",))


def test_a_disk_that_refuses_ends_the_keeping_and_not_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are computed again next time; nothing half written is read."""
    zeros = np.zeros((2, 3))
    scores = Scores(zeros, zeros, zeros, zeros, zeros.astype(np.int8), zeros, zeros.astype(np.bool_))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with KeptScores() as kept:
        kept.begin([0, 2, 4], ("",), 3)
        kept.write(0, [scores])
        with monkeypatch.context() as patch:
            patch.setattr(np, "save", full)
            kept.write(2, [scores])
        kept.end([0, 2, 4], ("",))

        assert not kept.holds([0, 2, 4], ("",))
        assert kept.computed == 1


def test_folder_goes_with_the_context() -> None:
    """Nothing is left behind."""
    with KeptScores() as kept:
        folder = kept._path(0).parent
        assert folder.is_dir()
    assert not folder.exists()
