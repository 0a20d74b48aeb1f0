"""`python -m pipelines.gate.speed BUNDLE`: how long one second's prediction takes, in a process of its own.

One thread, as live predicts; rows of a standard normal distribution, which visit as many leaves as real ones do. The
process is new, so that nothing that Dagster or a test has loaded takes part, and OpenMP has one thread from its start.
CPU time, and of the calmest of a few spells: who else uses the caches meanwhile is no property of the model.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipelines.gate.unseen import Speed
from shared import entry
from shared import model as bundles
from shared.errors import CrosscutError, NotEnoughData
from shared.features.catalog import FEATURES
from shared.features.graph import definition_hash
from shared.settings import ROOT

SYMBOLS: Final = 800
REPEATS: Final = 300
SPELLS: Final = 3
WARM: Final = 50
_WITHIN_S: Final = 300.0


def measure(folder: Path, *, symbols: int = SYMBOLS, repeats: int = REPEATS) -> Speed:
    """Return the speed of the model in a folder.

    Raises:
        NotEnoughData: the process that measures ended without a figure.
    """
    command = [sys.executable, "-m", "pipelines.gate.speed", str(folder), "--symbols", str(symbols),
               "--repeats", str(repeats)]  # fmt: skip
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | threads, capture_output=True, text=True, timeout=_WITHIN_S, check=True
        )
        return msgspec.json.decode(done.stdout, type=Speed)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()
        raise NotEnoughData(
            f"the speed of the model in {folder} must be measurable, found: {said[-1] if said else 'nothing'}: "
            f"run python -m pipelines.gate.speed {folder}"
        ) from None


def timed(folder: Path, *, symbols: int, repeats: int) -> Speed:
    """Return the speed, measured in this process: the spell of so many repeats whose p99 is the lowest."""
    model = bundles.load(folder, definition_hash=definition_hash(FEATURES), feature_names=tuple(FEATURES))
    generator = np.random.Generator(np.random.Philox(7))
    rows = generator.standard_normal((repeats, 1, symbols, len(FEATURES)), np.float32)
    for _ in range(WARM):
        model.predict(rows[0])
    return min((_spell(model, rows) for _ in range(SPELLS)), key=lambda speed: speed.cpu_p99_ms)


def _spell(model: bundles.Model, rows: NDArray[np.float32]) -> Speed:
    repeats, _, symbols, _ = rows.shape
    cpu, wall = np.empty(repeats), np.empty(repeats)
    for n in range(repeats):
        begun_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
        model.predict(rows[n])
        cpu[n], wall[n] = time.process_time_ns() - cpu_ns, time.perf_counter_ns() - begun_ns
    return Speed(
        symbols=symbols,
        repeats=repeats,
        cpu_p50_ms=float(np.quantile(cpu, 0.50)) / 1e6,
        cpu_p99_ms=float(np.quantile(cpu, 0.99)) / 1e6,
        wall_p99_ms=float(np.quantile(wall, 0.99)) / 1e6,
    )


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        prog="python -m pipelines.gate.speed", description="Time one second's prediction on one thread; JSON."
    )
    p.add_argument("folder", type=Path, help="of model.lgb and bundle.json")
    p.add_argument("--symbols", type=int, default=SYMBOLS)
    p.add_argument("--repeats", type=int, default=REPEATS)
    args = p.parse_args(arguments)
    try:
        found = timed(args.folder, symbols=args.symbols, repeats=args.repeats)
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(msgspec.json.encode(found).decode())
    return 0


if __name__ == "__main__":
    entry.run(main)
