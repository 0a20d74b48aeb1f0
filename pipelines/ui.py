"""Start the Dagster UI and the MLflow UI on loopback, print their addresses, stop both on Ctrl-C.

Run it: python -m pipelines.ui [--dagster-port 3000] [--mlflow-port 5000]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines.resources import prepare_dagster_home
from shared import entry
from shared import settings as settings_module
from shared.errors import CrosscutError, SettingsError

READY_S_MAX = 120.0
END_S_MAX = 15.0  # both end in 3 s; with pages open in a browser MLflow takes its time

LANDING = {
    "Dagster": "",
    # MLflow 3 greets a browser that it does not know with its pages for language models.
    "MLflow": "/#/experiments?workflowType=machine_learning",
}


def free_port(wanted: int, *, is_explicit: bool, name: str) -> int:
    """Return `wanted` if it can be bound on loopback; else a free one, or an error if a person asked for it."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                if is_explicit:
                    raise SettingsError(
                        f"{name} must be a free port of 127.0.0.1, found {wanted} taken: "
                        "stop what listens there or choose another"
                    ) from None
                continue
            return int(probe.getsockname()[1])
    raise SettingsError("no free port on 127.0.0.1: stop something that listens")


def commands(home: Path, root: Path, tracking_uri: str, dagster_port: int, mlflow_port: int) -> dict[str, list[str]]:
    """Return what is started, by name."""
    scripts = Path(sys.executable).parent
    return {
        "Dagster": [
            str(scripts / "dagster"), "dev", "-w", str(root / "workspace.yaml"),
            "-h", "127.0.0.1", "-p", str(dagster_port),
        ],
        "MLflow": [
            str(scripts / "mlflow"), "ui", "--backend-store-uri", tracking_uri,
            "--host", "127.0.0.1", "--port", str(mlflow_port), "--workers", "1",
        ],
    }  # fmt: skip


def is_answering(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own loopback address
            return True
    except urllib.error.HTTPError:
        return True  # it answers
    except OSError:
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.ui", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dagster-port", type=_port, help="default 3000, or a free one where that is taken")
    parser.add_argument("--mlflow-port", type=_port, help="default 5000, or a free one where that is taken")
    args = parser.parse_args(arguments)
    try:
        settings = settings_module.load()
        ports = {
            "Dagster": free_port(
                args.dagster_port or 3000, is_explicit=args.dagster_port is not None, name="--dagster-port"
            ),
            "MLflow": free_port(
                args.mlflow_port or 5000, is_explicit=args.mlflow_port is not None, name="--mlflow-port"
            ),
        }
        if ports["Dagster"] == ports["MLflow"]:
            raise SettingsError(
                f"--dagster-port and --mlflow-port must differ, found {ports['MLflow']} twice: choose another"
            )
        home = prepare_dagster_home(settings_module.ROOT)
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    environment = os.environ | {"DAGSTER_HOME": str(home), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    running: dict[str, subprocess.Popen[bytes]] = {}
    # A shell ignores SIGINT for what it starts in the background; a closed terminal is an end like any other.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        started = commands(home, settings_module.ROOT, settings.tracking_uri, ports["Dagster"], ports["MLflow"])
        for name, command in started.items():
            log = home / f"{name.lower()}-ui.log"
            with log.open("wb") as output:
                running[name] = subprocess.Popen(
                    command, cwd=settings_module.ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )  # fmt: skip
            print(f"starting {name} (log: {log})", flush=True)
        deadline = time.monotonic() + READY_S_MAX
        for name, process in running.items():
            url = f"http://127.0.0.1:{ports[name]}"
            while not is_answering(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    print(
                        f"{name} must answer at {url} within {READY_S_MAX:.0f} s, found exit code {process.poll()}: "
                        f"read {home / (name.lower() + '-ui.log')}",
                        file=sys.stderr,
                    )
                    return 1
                time.sleep(0.3)
            print(f"{name:8s} {url}{LANDING[name]}", flush=True)
        print("Ctrl-C stops both.", flush=True)
        while all(process.poll() is None for process in running.values()):
            time.sleep(0.5)
        ended = [name for name, process in running.items() if process.poll() is not None]
        print(f"{' and '.join(ended)} ended by itself: read its log in {home}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        _end(running.values())


def _end(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Interrupt them and wait; kill what does not end, at once where a person asks again."""
    for process in processes:
        _signal(process, signal.SIGINT)
    try:
        for process in processes:
            process.wait(END_S_MAX)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        for process in processes:
            _signal(process, signal.SIGKILL)
            process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"must be a port, 1 to 65535, found {text!r}")
    return int(text)


if __name__ == "__main__":
    entry.run(main)
