"""How a program of Crosscut ends: with an exit code, and never with a traceback for Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, NoReturn

INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it


def run(main: Callable[[], int]) -> NoReturn:
    """Exit with what `main` returns. An interrupt that it does not handle is one word; nothing is lost by it:
    files are replaced whole or not at all, and a log ends behind its last whole batch."""
    try:
        code = main()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)
