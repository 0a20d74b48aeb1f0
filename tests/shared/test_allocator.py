"""Freed memory goes back: shown on a process of its own, since the border is the whole process's."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shared import allocator

PROGRAM = """
import sys
import numpy as np
from pathlib import Path
from shared import allocator

def rss_kb():
    return int(next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmRSS")).split()[1])

if sys.argv[1] == "told":
    assert allocator.give_back_large()
np.ones(2 << 20)            # 16 MB, freed at once: glibc takes it as the size that is usual here
before = rss_kb()
kept = []
for k in range(64):         # what stays lies between blocks that go
    block = np.ones(1 << 19)
    kept.append(np.ones(1 << 10))
    more = np.ones(1 << 19)
    kept.append(np.ones(1 << 10))
    held = [block, more] if k == 0 else [*held, block, more]
del held, block, more
print(rss_kb() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the border is glibc's")
def test_large_blocks_go_back_when_they_are_freed() -> None:
    """512 MB are held and freed with small blocks between them: told, the process keeps little of it, else most."""
    if not allocator.give_back_large():
        pytest.skip("this C library has no such border")

    def kept_kb(how: str) -> int:
        run = subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, stdout=subprocess.PIPE, text=True)
        return int(run.stdout)

    assert kept_kb("told") < 32_000
    assert kept_kb("untold") > 10 * max(kept_kb("told"), 1_000)
