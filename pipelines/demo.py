"""`make demo`: the whole road, from order books to a paper trade, by the commands that a user would type.

1. a simulator (a real server on loopback), with one paper account for the model and one for the coin
2. history that ends now, and beside it a minute of real collection over WebSockets
3. Dagster materialises seconds → features → labels → dataset → model → backtest → report
4. two live paper sessions side by side, the model and the coin; both journals are replayed
5. a summary

Every step is a command of its own, printed before it runs. The demo fails where a step fails, where a replay is not
identical, and where the coin, which always trades, has fewer than `COIN_FILLS_MIN` fills: then parity, ledger and
latency would have been shown on nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import IO, Any

from shared import entry, simulator_process
from shared import settings as settings_module
from shared.errors import CrosscutError, SettingsError
from shared.settings import ROOT
from shared.simulator_process import SimulatorProcess
from shared.types import NS

SYMBOLS, SEED = 40, 7
COIN_FILLS_MIN = 20
FEW_SYMBOLS = 5
"""With fewer the coin trades longer: a round trip in a symbol takes about 13 s, so that two symbols have 20 fills in a
minute, if nothing comes between."""
HURRY_S_MAX = 10.0
"""How long a session that must not wait any more may take to write what is still open."""

MODEL_ACCOUNT, COIN_ACCOUNT = "simulator", "coin"  # key = secret = passphrase, as the simulator's own default


class StepFailed(CrosscutError):
    """A command of the demo ended badly; its own words are above."""


class Demo:
    """One run of the road; `show` prints, `run` runs a command and returns the JSON of its last line."""

    def __init__(self, lake: Path, seconds: int) -> None:
        self.lake, self.live_s = lake, seconds
        self.began_s = time.monotonic()
        self.is_stopping = False
        self._running: dict[subprocess.Popen[str], str] = {}  # -> its module
        # A venue of its own: the demo never touches another, whatever .env says.
        self.environment = os.environ | {
            "LAKE_URI": str(lake),
            "MARKET": "simulator",
            "BITGET_VENUE": "simulator",
            "SANDBOX": "true",
            "SYMBOLS": "",
            "SYMBOL": "",
        }

    def show(self, line: str = "") -> None:
        sys.stdout.write(line + "\n")  # whole lines: two commands may talk at once
        sys.stdout.flush()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        began_s = time.monotonic()
        self.show(f"\n[{began_s - self.began_s:5.0f} s] {title}")
        yield

    def run(self, module: str, *arguments: str, account: str | None = None, quiet: bool = False) -> dict[str, Any]:
        """Run `python -m module …`, its progress indented, and return what its last line of stdout says.

        Raises:
            StepFailed: it ended with another exit code than 0.
        """
        environment = self.environment
        if account is not None:
            environment = environment | dict.fromkeys(
                ("BITGET_API_KEY", "BITGET_API_SECRET", "BITGET_PASSPHRASE"), account
            )
        self.show(f"          $ python -m {module} {' '.join(arguments)}")
        # A group of its own: Ctrl-C stops us, and we stop what runs, once each; a second signal would tell a session
        # not to wait until it is flat.
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        self._running[process] = module
        errors: list[str] = []

        def relay(stream: IO[str]) -> None:
            for line in stream:
                errors.append(line.rstrip())
                if not quiet and not self.is_stopping:
                    self.show(f"            {line.rstrip()}")

        reader = threading.Thread(target=relay, args=(process.stderr,), daemon=True)
        reader.start()
        lines = [line.rstrip() for line in process.stdout if line.strip()]
        code = process.wait()
        reader.join()
        del self._running[process]
        if self.is_stopping:
            if code not in (0, entry.INTERRUPTED, -signal.SIGTERM):
                self.show(f"            {module}: {errors[-1] if errors else f'exit code {code}'}")
            raise StepFailed(f"python -m {module} was stopped")
        if code != 0:
            if quiet:
                self.show("\n".join(f"            {line}" for line in errors[-20:]))
            raise StepFailed(f"python -m {module} must end with exit code 0, found {code}: its own words are above")
        try:
            found: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        except json.JSONDecodeError:
            found = {"text": lines}
        return found

    def stop(self) -> None:
        """End what runs and wait for it: a live session closes its positions first, while its venue still stands."""
        is_first, self.is_stopping = not self.is_stopping, True
        for process in list(self._running):
            process.terminate()
        if is_first and "live.run" in self._running.values():
            self.show("          stopping when the sessions are flat; Ctrl-C again does not wait")

    def side_by_side(self, *jobs: Callable[[], dict[str, Any]]) -> list[dict[str, Any]]:
        """Run jobs at once and return their answers in order; the first failure is raised after all have ended.

        Interrupted, it stops the jobs and returns from none of them: the interrupt goes on when they have ended.
        """
        # Not Thread.join: before Python 3.13 an interrupt in it marks a running thread as ended (bpo-45274).
        pool = futures.ThreadPoolExecutor(len(jobs))
        answers = [pool.submit(job) for job in jobs]
        try:
            _wait(answers)
        except KeyboardInterrupt:
            self.stop()
            try:
                _wait(answers)
            except KeyboardInterrupt:
                self.stop()
                futures.wait(answers, HURRY_S_MAX)
                for process in list(self._running):
                    process.kill()
            raise
        finally:
            pool.shutdown(wait=False)
        return [answer.result() for answer in answers]


def _wait(answers: Sequence[futures.Future[dict[str, Any]]]) -> None:
    # In small pieces: a signal that another thread happens to receive does not wake the main one from a long wait.
    while futures.wait(answers, 0.2).not_done:
        pass


def simulator_arguments(recording: Path | None) -> list[str]:
    """Return the arguments of the demo's simulator: two paper accounts, one for each session."""
    accounts = [f"{name}:{name}:{name}:10000" for name in (MODEL_ACCOUNT, COIN_ACCOUNT)]
    market = ["--recording", str(recording)] if recording else ["--symbols", str(SYMBOLS), "--seed", str(SEED)]
    return [*market, *(part for account in accounts for part in ("--account", account))]


def walk(demo: Demo, simulator: SimulatorProcess, recording: Path | None, hours: float) -> dict[str, Any]:
    """Go the road and return what every step said."""
    said: dict[str, Any] = {"source": simulator.source, "note": simulator.ready.get("note", "")}
    demo.environment |= {"BITGET_REST_URL": simulator.rest, "BITGET_WS_URL": simulator.ws}
    end_ns = simulator.ready.get("history_end_ns") or time.time_ns()
    with demo.step("History that ends now, and beside it a minute of real collection over WebSockets"):
        market = (
            ["--recording", str(recording)]
            if recording
            else ["--hours", f"{hours:g}", "--symbols", str(SYMBOLS), "--seed", str(SEED)]
        )
        said["history"], said["collected"] = demo.side_by_side(
            lambda: demo.run("pipelines.generate", *market, "--end", str(end_ns // NS * NS)),
            lambda: demo.run("pipelines.collect", "--seconds", str(demo.live_s), quiet=True),
        )
        said["collected_s"] = demo.live_s
    with demo.step("Dagster: seconds → features → labels → dataset → model → backtest → report"):
        window = ["--from", str(said["history"]["start_s"])]
        [said["drive"]] = demo.side_by_side(lambda: demo.run("pipelines.drive", "--source", simulator.source, *window))
    with demo.step(f"Live, {demo.live_s} s on paper: the model and, on an account of its own, the coin"):
        is_trained = said["drive"]["model"] is not None
        if not is_trained:
            demo.show(f"          no model to trade: {said['drive']['skipped']}")
        names = ["model", "coin"] if is_trained else ["coin"]
        coin_s = demo.live_s * 3 // 2 if said["history"]["symbols"] < FEW_SYMBOLS else demo.live_s
        lengths = {"model": demo.live_s, "coin": coin_s}
        answers = demo.side_by_side(*(functools.partial(trade, demo, name, lengths[name]) for name in names))
        said["live"] = dict(zip(names, answers, strict=True))
    with demo.step("Replay: the journals again, byte for byte; then into the lake, for queries"):
        for session in said["live"].values():
            replay = functools.partial(demo.run, "live.replay", session["folder"])
            session["replay"] = demo.side_by_side(replay)[0]["text"][-1]
            demo.show(f"            {session['replay']}")
            demo.run("pipelines.sessions", session["folder"])
    return said


def trade(demo: Demo, name: str, seconds: int) -> dict[str, Any]:
    """Run a live session and return what it says of itself."""
    account = COIN_ACCOUNT if name == "coin" else MODEL_ACCOUNT
    model = "coin" if name == "coin" else "latest"
    said = demo.run("live.run", "--model", model, "--seconds", str(seconds), account=account, quiet=True)
    for line in said["text"]:
        demo.show(f"            {line}")
    folder = Path(said["text"][-1].split("live.replay ")[1])
    found: dict[str, Any] = json.loads((folder / "session.json").read_text())
    return found


def summary(said: dict[str, Any], took_s: float) -> list[str]:
    """Return the page that a person reads at the end."""
    drive, history = said["drive"], said["history"]
    dataset = drive["dataset"] or {"flat": 0, "long": 0, "short": 0}
    kind = "generated market" if history["market"] == "generated" else "recorded market, replayed"
    lines = [
        f"SUMMARY · every figure is from a {kind} ({said['source']}) · {took_s:.0f} s",
        f"  {said['note']}",
        "",
        "  lake       "
        + ", ".join(f"{sum_rows(said, table):,} {table.removeprefix('raw/')} rows" for table in history["rows"])
        + f"; {history['symbols']} symbols",
        f"  collected  {sum(said['collected']['rows'].values()):,} rows over WebSockets in {said['collected_s']} s",
        f"  tables     {drive['rows'].get('features', 0):,} seconds × symbols, {drive['features']} features; "
        f"labels {dataset['long']:,} long, {dataset['short']:,} short, {dataset['flat']:,} flat",
    ]
    if drive["model"] is not None:
        lines += model_lines(drive["model"], drive["backtest"] or {})
    else:
        lines.append(f"  model      none: {drive['skipped']}")
    for name, session in said["live"].items():
        lines += live_lines(name, session)
    failed = said["drive"]["checks_failed"]
    lines.append(f"  checks     {len(failed)} of the lake's and the model's own did not pass" + (":" if failed else ""))
    lines += [f"             {check}" for check in failed]
    return lines


def sum_rows(said: dict[str, Any], table: str) -> int:
    return int(said["history"]["rows"][table]) + int(said["collected"]["rows"].get(table, 0))


def model_lines(model: dict[str, Any], backtest: dict[str, Any]) -> list[str]:
    """Return the model's judgement beside its nulls."""

    def ic(prefix: str) -> str:
        value, error = model.get(f"{prefix}rank_ic"), model.get(f"{prefix}rank_ic_se")
        if value is None:
            return "undefined"
        return f"{value:+.3f}" + (f" ± {error:.3f}" if error is not None else "")

    def net(prefix: str) -> str:
        trades, value = backtest.get(f"{prefix}total_trades", 0), backtest.get(f"{prefix}net_bps")
        return f"{value:+.1f} bps in {trades:.0f} trades" if value is not None else "no trade"

    return [
        f"  model      version {model['version']}, rank IC {ic('')} out of sample "
        f"(imbalance alone {ic('ols_')}, ridge {ic('ridge_')}, shuffled labels {ic('shuffled_')})",
        f"  backtest   net of all costs: model {net('')} · coin {net('coin_')} · shuffled {net('shuffled_')}",
    ]


def live_lines(name: str, session: dict[str, Any]) -> list[str]:
    """Return what a live session did, how fast, and whether it can be believed."""
    sent, pnl = session["latency_ms"]["second_closed_to_orders_sent"], session["pnl_usdt"]
    latency = f"p50 {sent['p50']:.1f} ms, p99 {sent['p99']:.1f} ms" if sent else "no order was sent"
    agrees = "equals" if pnl["ledger_equals_venue"] else "DIFFERS FROM"
    return [
        f"  live       {name}: {session['orders']['placed']} orders, {session['fills']} fills, "
        f"net {float(pnl['net']):+.2f} USDT; ledger {agrees} the venue's; flat: {session['flat_at_end']}",
        f"             second closed → orders sent: {latency}; parity: {session['replay']}",
    ]


def verdict(said: dict[str, Any]) -> str | None:
    """Return why the demo must fail, None where it may not."""
    for name, session in said["live"].items():
        if not session["pnl_usdt"]["ledger_equals_venue"] or not session["flat_at_end"]:
            return f"session {name} must end flat with the venue's equity, found: {session['pnl_usdt']}: read its log"
    fills = said["live"]["coin"]["fills"]
    if fills < COIN_FILLS_MIN:
        return (
            f"the coin must have {COIN_FILLS_MIN} fills at least, found {fills}: "
            f"why_not in {said['live']['coin']['folder']}/session.json says what stopped it"
        )
    return None


def where_next(said: dict[str, Any]) -> list[str]:
    page = said["drive"]["report"]
    return [
        "WHERE TO LOOK NEXT",
        *([f"  the report of the backtest   {page}"] if page else []),
        "  runs, models, assets, plots  make ui",
        "  queries on the lake          docs/queries.md",
        f"  a session's own words        {said['live']['coin']['folder']}/session.json",
        "  trade on                     .venv/bin/python -m live.run --model "
        + ("latest" if said["drive"]["model"] is not None else "rules"),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.demo", description="The whole road on the embedded simulator, in one go."
    )
    parser.add_argument("--recording", type=Path, metavar="DIR", help="replay real order books (docs/recordings.md)")
    parser.add_argument("--hours", type=float, default=2.0, help="history of the generated market (default: 2)")
    parser.add_argument("--seconds", type=int, default=60, help="length of collection and live sessions (default: 60)")
    args = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a closed terminal is an end like any other
        signal.signal(number, signal.default_int_handler)
    try:
        if not 0 < args.hours <= 8760:
            raise SettingsError(f"--hours must be above 0 and at most 8760, found {args.hours:g}")
        if args.seconds < 1:
            raise SettingsError(f"--seconds must be 1 at least, found {args.seconds}")
        demo = Demo(settings_module.load().lake, args.seconds)
        with demo.step("A simulator: Bitget's REST and WebSocket on this machine"):
            recording = args.recording.resolve() if args.recording else None
            simulator = simulator_process.launch(simulator_arguments(recording))
            demo.show(f"          {simulator.rest} · {simulator.ready.get('note', '')}")
        try:
            said = walk(demo, simulator, recording, args.hours)
        finally:
            simulator.stop()
        took_s = time.monotonic() - demo.began_s
        for line in ["", *summary(said, took_s), "", *where_next(said)]:
            demo.show(line)
        problem = verdict(said)
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    if problem is not None:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    entry.run(main)
