"""`python -m pipelines.seal`: turn what recorders have logged into sealed hours, without recording.

Hours that a killed recorder left behind, or that are over while it goes on. The recorder itself calls it so for every
hour that is over: sealing takes the memory of millions of rows, which a process that runs for months should never have
held, and a niced child takes no turn from the sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from shared import entry, settings
from shared.errors import CrosscutError, LakeError
from shared.lake import layout, read, write

NICE = 10
"""The child's: what it does may take minutes, what its parent does may not wait for milliseconds."""


def seal_sources(lake: Path, sources: Sequence[str], progress: Callable[[str], None]) -> list[write.SealReport]:
    """Seal every hour of these sources that has an ended or dead log.

    Raises:
        TableCorrupt, LakeError: an hour cannot be sealed; those before it are.
    """
    reports: list[write.SealReport] = []
    for source in sources:
        for hour in write.unsealed(lake, source):
            report = write.seal(lake, source, hour)
            progress(f"{source}: {told(report)}")
            reports.append(report)
    return reports


def told(report: write.SealReport, whose: str = "") -> str:
    """Return one line about one hour."""
    lost = f", {report.torn_bytes:,} bytes of a killed recorder torn" if report.torn_bytes else ""
    return f"sealed {layout.hour_name(report.hour)}{whose}: {report.rows:,} rows, {report.bytes / 1e6:.1f} MB{lost}"


async def seal_beside(lake: Path, source: str) -> list[write.SealReport]:
    """Seal in a child process, which outlives us: whoever is killed leaves no half-sealed hour to anybody.

    Raises:
        LakeError: it has failed; its own sentence is in the message.
    """
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pipelines.seal", "--lake", str(lake), "--source", source, "--nice", str(NICE)),
        cwd=Path(__file__).resolve().parent.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is the recorder's: it waits for us
    )
    out, errors = await child.communicate()
    if child.returncode:
        raise LakeError(errors.decode(errors="replace").strip().rpartition("\n")[2] or f"exit {child.returncode}")
    return msgspec.json.decode(out, type=list[write.SealReport], dec_hook=lambda kind, value: kind(value))


# ------------------------------------------------------------------------------------------------ command line


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m pipelines.seal",
        description="Seal the hours that recorders have logged and that nobody writes to any more. Progress goes to "
        "stderr, the last line on stdout is JSON: what was sealed.",
    )
    p.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    p.add_argument("--source", help="one source (default: all that are there)")
    p.add_argument("--nice", type=int, default=0, help="how far to stand back from other processes, 0 to 19")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        lake = settings.load(lake_uri=args.lake).lake
        if args.source:
            layout.check_name(args.source, "source")
        os.nice(args.nice)
        reports = seal_sources(lake, [args.source] if args.source else read.sources(lake), _say)
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(msgspec.json.encode(reports, enc_hook=_plain).decode())
    return 0


def _plain(value: Any) -> str:
    assert isinstance(value, Path), type(value)
    return str(value)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    entry.run(main)
