"""The engine's randomness: a bit generator that is set to a key is one that was made with it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared.strategy.philox import Philox

KEY = st.tuples(st.integers(0, 2**63), st.integers(0, 2**40), st.integers(0, 3))


@given(st.lists(st.tuples(KEY, st.integers(0, 9)), min_size=1, max_size=6))
def test_any_sequence_of_uses_gives_the_streams_of_fresh_generators(
    uses: list[tuple[tuple[int, int, int], int]],
) -> None:
    """Whatever was drawn before, and however much of it, the next use begins where a new generator would."""
    one = Philox()
    for (seed, decision, stream), n in uses:
        fresh = np.random.Philox(key=[seed, decision], counter=[0, 0, 0, stream])
        assert list(one.at(seed, decision, stream).random_raw(n)) == list(fresh.random_raw(n))
        drawn = np.random.Generator(np.random.Philox(key=[seed, decision])).random(n + 1)
        assert list(one.uniforms(seed, decision, n + 1)) == list(drawn)
