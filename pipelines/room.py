"""Where large arrays lie: in memory while they are small, else in a file that has no name and goes with the process."""

from __future__ import annotations

import tempfile
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def room(lake: Path, shape: tuple[int, int], memory_bytes: int) -> NDArray[np.float32]:
    """Return an array to be filled; beyond `memory_bytes` its pages are of a file beside the lake, which the kernel
    writes out and drops as it needs."""
    if prod(shape) * np.dtype(np.float32).itemsize <= memory_bytes:
        return np.empty(shape, np.float32)
    folder = lake / ".tmp"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, np.float32, "w+", shape=shape)
