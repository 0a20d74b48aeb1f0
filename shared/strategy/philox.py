"""Philox under any key, without what its constructor costs.

`np.random.Philox(key=...)` first asks the operating system for entropy, which the key then replaces: 40 us. One that
exists and is set to a key gives the same stream (a test compares) in 4 us, and a decision may cost 300.
"""

from __future__ import annotations

import numpy as np

from shared.types import Floats


class Philox:
    """One bit generator, set anew for each use. What an earlier use would have drawn next is lost."""

    def __init__(self) -> None:
        self._bits = np.random.Philox(key=[0, 0])
        self._generator = np.random.Generator(self._bits)
        self._fresh = self._bits.state  # counter 0, nothing buffered

    def at(self, seed: int, decision: int, stream: int = 0) -> np.random.Philox:
        """Return the bits of a decision, as `np.random.Philox(key=[seed, decision], counter=[0, 0, 0, stream])`."""
        self._fresh["state"]["key"][:] = seed, decision
        self._fresh["state"]["counter"][3] = stream
        self._bits.state = self._fresh
        return self._bits

    def uniforms(self, seed: int, decision: int, n: int) -> Floats:
        """Return n values in [0, 1), the decision's own."""
        self.at(seed, decision)
        drawn: Floats = self._generator.random(n)
        return drawn
