"""A live second, from its close to its last order at the socket; and what `import live.run` costs.

Run it: python -m benchmarks.latency  (half a minute: a coin trades 40 symbols of a simulator that runs beside it)

The import is timed in the lean environment where there is one (make setup-live), else in this one. What a session
measures of itself: wall time from second + 1.0 to the last order's bytes handed to the socket, journal synced before.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from shared.settings import ROOT

SESSION_S = 30
IMPORTS = 7


def import_s() -> tuple[str, list[float]]:
    """Return which environment was timed, and seconds per start of `import live.run`."""
    lean = ROOT / ".venv-live" / "bin" / "python"
    python = str(lean) if lean.exists() else sys.executable
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}
    took = []
    for _ in range(IMPORTS + 1):
        began_s = time.perf_counter()
        subprocess.run([python, "-c", "import live.run"], cwd=ROOT, env=environment, check=True)
        took.append(time.perf_counter() - began_s)
    return ("lean" if lean.exists() else "full", took[1:])  # the first one compiles


def main() -> None:
    environment, took = import_s()
    print(
        f"import live.run ({environment} environment): median {statistics.median(took):.2f} s, "
        f"min {min(took):.2f} s, max {max(took):.2f} s over {len(took)} starts"
    )
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "live.run", "--model", "coin", "--seconds", str(SESSION_S), "--session-dir", folder],
            cwd=ROOT,
            env=os.environ | {"LAKE_URI": folder, "BITGET_REST_URL": "", "BITGET_WS_URL": ""},
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        latency_ms = json.loads((Path(folder) / "session.json").read_text())["latency_ms"]
    for name, found in latency_ms.items():
        if found is not None:
            print(f"{name}, 40 symbols: p50 {found['p50']:.1f} ms, p99 {found['p99']:.1f} ms over {found['n']} seconds")


if __name__ == "__main__":
    main()
