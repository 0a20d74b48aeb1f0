"""Replay a session from its journal alone: the same events must lead to the same actions, byte for byte.

    python -m live.replay last

Prints `identical` and exits 0, or names the first stage that differs and exits 1 (`shared.replay`).
"""

from __future__ import annotations

import argparse
import sys

from shared import entry, journal, settings
from shared.errors import CrosscutError
from shared.replay import Difference, Replayed, make_scorer, replay

__all__ = ["Difference", "Replayed", "main", "make_scorer", "replay"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m live.replay", description="Replay a session from its journal.")
    parser.add_argument("session", nargs="?", default="last", help="folder, name, or last (default)")
    options = parser.parse_args(arguments)
    try:
        found = replay(journal.find(settings.load().lake, options.session))
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if found.difference is not None:
        print(f"session {found.session} {found.difference.sentence()}", file=sys.stderr)
        return 1
    ending = (
        "" if found.is_closed else f"; the session ended without its end mark, {found.torn_bytes} torn bytes ignored"
    )
    print(
        f"identical: session {found.session}, {found.seconds} seconds, {found.events} other events, "
        f"{found.actions} actions{ending}"
    )
    return 0


if __name__ == "__main__":
    entry.run(main)
