"""`python -m shared.simulator`: Bitget on localhost, one JSON line when ready."""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import shlex
import signal
import sys
import threading
from pathlib import Path

import msgspec

from shared import entry, log
from shared.errors import CrosscutError, SettingsError
from shared.simulator.clock import Clock
from shared.simulator.faults.conditions import Script, decode_script
from shared.simulator.gate import ACCOUNT_FORM, ACCOUNT_OPTIONS, DEFAULT_ACCOUNT, parse_account
from shared.simulator.markets import chosen as markets
from shared.simulator.pushes.feed import BITGET, CALM
from shared.simulator.pushes.sent import SentLog
from shared.simulator.server import Server

CADENCES = {"bitget": BITGET, "calm": CALM}
DEFAULT_CADENCE = "bitget"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m shared.simulator", description=__doc__)
    p.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine only)")
    p.add_argument("--port", type=_port, default=18080, help="0 lets the system choose (default: 18080)")
    markets.add_arguments(p)
    p.add_argument(
        "--account", action="append", metavar=ACCOUNT_FORM,
        help=f"an account, its money and options: {ACCOUNT_OPTIONS}; repeatable "
        "(default: simulator:simulator:simulator:10000)",
    )  # fmt: skip
    p.add_argument(
        "--speed", type=float, default=1.0,
        help="market seconds per second, 0.01 to 100 (default: 1); limits of clients stay in real time",
    )  # fmt: skip
    p.add_argument(
        "--cadence", choices=sorted(CADENCES), default=DEFAULT_CADENCE,
        help="how often books and tickers are pushed: bitget 8 and 9 times a second, as measured, calm 4 and 2 times "
        f"(default: {DEFAULT_CADENCE})",
    )  # fmt: skip
    p.add_argument(
        "--history-hours", type=float, metavar="H",
        help="how far candles and public trades reach back, 1 to 720, at most 720 days over the number of symbols "
        "(default: 25); computed when asked for, 3 s an hour of 600 symbols",
    )  # fmt: skip
    p.add_argument("--checksum", action="store_true", help="books carry the checksum that Bitget sent until May 2026")
    p.add_argument(
        "--sent", type=Path, metavar="FILE",
        help="append every market frame that is sent to FILE, a JSON line each: connection, market time, text",
    )  # fmt: skip
    p.add_argument(
        "--conditions", type=Path, metavar="FILE",
        help="begin with what FILE lets go wrong, a script as POST /_control/script takes it (docs/simulator.md)",
    )  # fmt: skip
    p.add_argument(
        "--fault-seed", type=int, metavar="N",
        help="of everything that goes wrong by chance (default: the script's, or the market's)",
    )  # fmt: skip
    p.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"),
        help="what stderr tells; info: a line when a client comes, logs in, subscribes and goes "
        "(default: info, with --with-parent warning)",
    )  # fmt: skip
    p.add_argument("--with-parent", action="store_true", help="end when stdin is closed, as it is when the parent dies")
    return p


def _port(text: str) -> int:
    # asyncio would wrap 99999 to 34463.
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be a port, 0 to 65535, found {text!r}")
    return int(text)


def command_of(argv: list[str]) -> str:
    """Return the command that starts the same simulator again; what goes wrong in it is said elsewhere."""
    kept: list[str] = []
    is_value = False
    for word in argv:
        if not is_value and word.split("=")[0] not in _NOT_REPEATED:
            kept.append(word)
        is_value = not is_value and word in _NOT_REPEATED
    return shlex.join(["python", "-m", "shared.simulator", *(word for word in kept if word != "--with-parent")])


_NOT_REPEATED = ("--conditions", "--fault-seed")


def read_script(args: argparse.Namespace) -> Script:
    """Return what goes wrong from the beginning.

    Raises:
        SettingsError: the file cannot be read, is no script, or the seed is no seed.
    """
    script = Script()
    if args.conditions is not None:
        try:
            script = decode_script(args.conditions.read_bytes())
        except OSError as error:
            raise SettingsError(
                f"--conditions must be a file, found {args.conditions}: {error.strerror}: correct the path"
            ) from None
        except msgspec.DecodeError as error:
            raise SettingsError(
                f"--conditions must be a script (docs/simulator.md), found in {args.conditions}: {error}: correct it"
            ) from None
    if args.fault_seed is not None and not 0 <= args.fault_seed < 2**63:
        raise SettingsError(f"--fault-seed must be in [0, 2^63), found {args.fault_seed}: choose another")
    seeds = (args.fault_seed, script.seed, getattr(args, "seed", None), 0)
    return msgspec.structs.replace(script, seed=next(seed for seed in seeds if seed is not None and seed >= 0))


async def serve(args: argparse.Namespace) -> int:
    accounts = [parse_account(text) for text in args.account or ()] or [DEFAULT_ACCOUNT]
    log.configure(args.log_level or ("warning" if args.with_parent else "info"))
    clock = Clock(args.speed)
    if args.history_hours is not None and not 1.0 <= args.history_hours <= 720.0:
        raise SettingsError(f"--history-hours must be in [1, 720], found {args.history_hours:g}: choose in between")
    history_s = None if args.history_hours is None else round(args.history_hours * 3600)
    sent = None if args.sent is None else SentLog(args.sent, clock.now_ns)
    async with markets.server_of(
        args, host=args.host, port=args.port, accounts=accounts, cadence=CADENCES[args.cadence], clock=clock,
        has_checksum=args.checksum, history_s=history_s, sent=sent, log=log.get("simulator"),
    ) as server:  # fmt: skip
        await serve_until_told(server, args)
    return 0


async def serve_until_told(server: Server, args: argparse.Namespace) -> None:
    """Start, say so, and serve until a signal or, with --with-parent, until our parent is gone."""
    script = read_script(args)
    assert script.seed is not None
    server.faults.seed = script.seed
    server.control.command = command_of(args.argv)
    server.control.file = str(args.conditions) if args.conditions is not None else server.control.file
    try:
        await server.start()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise SettingsError(
                f"{args.host}:{args.port} must be an address of this machine that we may listen on, found: "
                f"{error.strerror or error}: choose another --host or --port"
            ) from None
        raise SettingsError(
            f"port {args.port} on {args.host} must be free, found it taken: choose another --port, or 0"
        ) from None
    if args.conditions is not None:
        try:
            server.control.begin(msgspec.json.encode(script))
        except ValueError as error:
            await server.stop()
            raise SettingsError(
                f"--conditions must fit the market, found in {args.conditions}: {error}: correct it"
            ) from None
    ready = {"ready": True, "rest": server.rest_url, "ws": server.ws_url, "pid": os.getpid(), **server.describe()}
    ready["market"] = ready["kind"]
    ready |= {"fault_seed": server.faults.seed, "reproduce": server.control.reproduce}
    print(json.dumps(ready, ensure_ascii=False), flush=True)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    if args.with_parent:

        def watch() -> None:
            # The descriptor itself: a thread that waits inside sys.stdin holds its lock when the interpreter ends.
            while os.read(0, 4096):
                pass
            loop.call_soon_threadsafe(stopped.set)

        threading.Thread(target=watch, daemon=True).start()
    try:
        await server.run_until(stopped)
    finally:
        await server.stop()


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    try:
        if sys.platform == "win32":  # uvloop does not exist there
            return asyncio.run(serve(args))
        import uvloop

        return uvloop.run(serve(args))
    except CrosscutError as error:
        if args.with_parent:  # who started us tells it as its own
            print(json.dumps({"ready": False, "error": str(error), "exit_code": error.exit_code}), flush=True)
        else:
            print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    entry.run(main)
