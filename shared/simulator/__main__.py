"""`python -m shared.simulator`: Bitget on localhost, one JSON line when ready."""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from shared import entry
from shared.errors import CrosscutError, SettingsError
from shared.simulator.gate import DEFAULT_ACCOUNT, parse_account
from shared.simulator.market import DEFAULT_PREDICTABILITY, GeneratedMarket, Market
from shared.simulator.recorded import RecordedMarket
from shared.simulator.server import Server


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m shared.simulator", description=__doc__)
    p.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine only)")
    p.add_argument("--port", type=_port, default=18080, help="0 lets the system choose (default: 18080)")
    p.add_argument("--symbols", type=int, default=40, help="how many perpetuals the generated market lists (1 to 1000)")
    p.add_argument("--seed", type=int, default=7, help="the generated market's seed")
    p.add_argument(
        "--predictability", type=float, default=DEFAULT_PREDICTABILITY,
        help="10 s R2 that small alts are given; 0: nothing can be predicted",
    )  # fmt: skip
    p.add_argument(
        "--listings-per-day", type=float,
        help="how many perpetuals are listed in a day, and how many removed: 0 none, 1440 one a minute "
        "(default: Bitget's pace for so many symbols, none below 100)",
    )  # fmt: skip
    p.add_argument("--recording", type=Path, help="replay a folder of recorded books instead of a generated market")
    p.add_argument(
        "--anchor-ns", type=int, help="when a recording's history ends and its live part begins (default: now)"
    )
    p.add_argument(
        "--account", action="append", metavar="KEY:SECRET:PASSPHRASE:USDT",
        help="an account and its money; repeatable (default: simulator:simulator:simulator:10000)",
    )  # fmt: skip
    p.add_argument("--with-parent", action="store_true", help="end when stdin is closed, as it is when the parent dies")
    return p


def _port(text: str) -> int:
    # asyncio would wrap 99999 to 34463.
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be a port, 0 to 65535, found {text!r}")
    return int(text)


def market_of(args: argparse.Namespace) -> Market:
    if args.recording is None:
        return GeneratedMarket(args.seed, args.symbols, args.predictability, args.listings_per_day)
    return RecordedMarket(args.recording, time.time_ns() if args.anchor_ns is None else args.anchor_ns)


async def serve(args: argparse.Namespace) -> int:
    accounts = [parse_account(text) for text in args.account or ()] or [DEFAULT_ACCOUNT]
    server = Server(market_of(args), host=args.host, port=args.port, accounts=accounts)
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
    ready = {"ready": True, "rest": server.rest_url, "ws": server.ws_url, "pid": os.getpid(), **server.describe()}
    ready["market"] = ready["kind"]
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
    await server.run_until(stopped)
    await server.stop()
    return 0


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
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
