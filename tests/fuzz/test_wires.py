"""Sessions of random configurations over wires that fail, with crashes: nothing is doubled, left or forgotten."""

from __future__ import annotations

import pytest

from tests.fuzz.test_backtests import seeds
from tests.fuzz.wires import happens_again, wired


@pytest.mark.parametrize("seed", seeds(range(16), 400))
def test_session_ends_clean_and_happens_again(seed: int) -> None:
    """Whatever the wires did and however often it died: every placement kept every limit, in the end nothing is open,
    unknown or counted wrongly, and each life of it does the same to the same events."""
    world = wired(seed)

    assert happens_again(world) >= 1
