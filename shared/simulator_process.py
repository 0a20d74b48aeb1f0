"""Start `python -m shared.simulator` as a child and read its ready line.

The simulator is reached by URL, like the exchange; nothing of it is imported here. The child watches its stdin:
when this process dies, however it dies, the pipe closes and the simulator ends.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from shared.errors import CrosscutError, ExchangeError

READY_S_MAX = 60.0
"""A generated market of 600 symbols is ready in seconds; a recording has to be read first."""


class SimulatorProcess:
    """A running simulator: its URLs, the source that its ticks belong to, and the handle to end it."""

    def __init__(self, process: subprocess.Popen[bytes], ready: dict[str, Any]) -> None:
        self.process, self.ready = process, ready
        self.rest: str = ready["rest"]
        self.ws: str = ready["ws"]
        self.source: str = ready["source"]

    def stop(self) -> None:
        """End the child and wait for it."""
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def launch(arguments: Sequence[str] = ()) -> SimulatorProcess:
    """Start a simulator on a free port of loopback and return once it answers; the caller stops it.

    Raises:
        CrosscutError: what it could not do, in its own words and with its exit code.
        ExchangeError: it ended or stayed silent before it was ready.
    """
    command = [sys.executable, "-m", "shared.simulator", "--with-parent", *arguments]
    if "--port" not in arguments:
        command += ["--port", "0"]
    # A group of its own: Ctrl-C stops us first, we cancel and flatten, and only then is the venue taken down.
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": _path()},
    )
    try:
        return SimulatorProcess(process, _ready(process, arguments))
    except BaseException:  # an interrupt, too: a child that nobody knows of is never left behind
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        raise


def _ready(process: subprocess.Popen[bytes], arguments: Sequence[str]) -> dict[str, Any]:
    """Return the child's ready line; what it says in its place becomes our own error."""
    assert process.stdout is not None
    line = b""
    deadline = time.monotonic() + READY_S_MAX
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n") and selector.select(max(0.0, deadline - time.monotonic())):
            byte = os.read(process.stdout.fileno(), 65536)
            if not byte:
                break
            line += byte
    try:
        said = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        how = "nothing yet" if process.poll() is None else f"exit code {process.wait()}"
        raise ExchangeError(
            f"the simulator must print its ready line within {READY_S_MAX:.0f} s, found {how}: "
            f"run `python -m shared.simulator {shlex.join(arguments)}` to see why"
        ) from None
    if not said.get("ready"):
        error = CrosscutError(said["error"])
        error.exit_code = said["exit_code"]
        raise error
    return said


@contextlib.contextmanager
def start(arguments: Sequence[str] = ()) -> Iterator[SimulatorProcess]:
    """Run a simulator for the length of a `with` block."""
    simulator = launch(arguments)
    try:
        yield simulator
    finally:
        simulator.stop()


def _path() -> str:
    """Return a PYTHONPATH that finds this checkout from any working directory."""
    from shared.settings import ROOT

    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
