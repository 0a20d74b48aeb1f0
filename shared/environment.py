"""Which Python runs: one sentence where it is not one that `make` has prepared, in place of a traceback."""

from __future__ import annotations

import importlib.util
import sys


def need(package: str, made_by: str) -> None:
    """End the program where a package that everything here stands on is not installed."""
    if importlib.util.find_spec(package) is None:
        sys.exit(
            f"a Python with {package} is needed, found {sys.executable} without it: {made_by} prepares one, "
            "run it as .venv/bin/python"
        )
