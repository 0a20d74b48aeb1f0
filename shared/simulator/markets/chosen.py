"""Which market a command line asks for: generated, replayed from a recording or from our lake, or relayed."""

from __future__ import annotations

import argparse
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared import settings
from shared.errors import SettingsError
from shared.simulator.markets import generated
from shared.simulator.markets.market import NS, Market
from shared.simulator.markets.recorded import RecordedMarket
from shared.simulator.relay.feed import BITGET_REST, BITGET_WS, relay
from shared.simulator.relay.server import RelayServer
from shared.simulator.server import Server

_NEEDS = {
    "lake": ("source", "start", "end"),
    "upstream": ("upstream_rest", "upstream_ws"),
}
_FLAGS = {
    "start": "--from", "end": "--to", "upstream_rest": "--upstream-rest", "upstream_ws": "--upstream-ws",
    "source": "--source", "recording": "--recording", "lake": "--lake", "upstream": "--market bitget",
    "anchor_ns": "--anchor-ns",
}  # fmt: skip


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Add what chooses a market."""
    p.add_argument(
        "--market", choices=("generated", "bitget"), default="generated",
        help="bitget: relay Bitget's public feed (no keys) and fill orders on paper against it (default: generated)",
    )  # fmt: skip
    generated.add_arguments(p)
    p.add_argument("--recording", type=Path, help="replay a folder of recorded books (docs/recordings.md)")
    p.add_argument("--lake", metavar="URI", help="replay what a recorder wrote into this lake; needs --source")
    p.add_argument("--source", help="whose ticks of the lake, e.g. bitget or simulator-g7-40")
    p.add_argument(
        "--from", dest="start", type=_second, metavar="TIME",
        help="where the lake's window begins, UTC: 2026-11-22T10:00 or epoch seconds (default: the first row)",
    )  # fmt: skip
    p.add_argument("--to", dest="end", type=_second, metavar="TIME", help="where it ends (default: the last row)")
    p.add_argument("--anchor-ns", type=int, help="when the live part of a replay begins (default: now)")
    p.add_argument(
        "--upstream-rest", metavar="URL", help=f"whose REST is relayed, Bitget or this machine (default: {BITGET_REST})"
    )
    p.add_argument("--upstream-ws", metavar="URL", help=f"its WebSocket, without /public (default: {BITGET_WS})")


def _second(text: str) -> int:
    """Return an epoch second from a UTC time."""
    if text.isascii() and text.isdigit() and len(text) <= 11:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a UTC time such as 2026-11-22T10:00, or epoch seconds, found {text!r}"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


@asynccontextmanager
async def server_of(args: argparse.Namespace, **options: Any) -> AsyncIterator[Server]:
    """Make the server of the market that is asked for, not yet started; what it needs lasts as long as the context.

    Args:
        options: of `Server`.

    Raises:
        CrosscutError: the arguments contradict each other, or there is no such market.
    """
    _check(args)
    if args.market != "bitget":
        yield Server(market_of(args), **options)
        return
    if options["clock"].speed != 1.0:
        raise SettingsError(
            f"--market bitget runs in real time, found --speed {options['clock'].speed:g}: leave it out"
        )
    if options["has_checksum"]:
        raise SettingsError("--market bitget shows books as Bitget sends them, found --checksum: leave it out")
    rest = settings.check_url("--upstream-rest", args.upstream_rest or BITGET_REST, "http")
    ws = settings.check_url("--upstream-ws", args.upstream_ws or BITGET_WS, "ws")
    if settings.is_loopback(rest) != settings.is_loopback(ws):
        raise SettingsError(f"--upstream-rest and --upstream-ws lead to one exchange, found {rest} and {ws}: give both")
    async with relay(rest, ws, options["accounts"]) as (feed, desk):
        yield RelayServer(
            feed, desk, **{k: v for k, v in options.items() if k not in ("cadence", "has_checksum", "history_s")}
        )


def market_of(args: argparse.Namespace) -> Market:
    anchor_ns = time.time_ns() if args.anchor_ns is None else args.anchor_ns
    if args.recording is not None:
        return RecordedMarket(args.recording, anchor_ns)
    if args.lake is not None:
        from shared.simulator.markets.lake import LakeMarket

        lake = settings.load(lake_uri=args.lake).lake
        # The window begins now: its first minute is the past of the first clients.
        return LakeMarket(lake, args.source, anchor_ns // NS * NS, start_s=args.start, end_s=args.end)
    return generated.from_arguments(args)


def _check(args: argparse.Namespace) -> None:
    """Refuse arguments that contradict each other.

    Raises:
        SettingsError: two markets, or arguments of a market that is not asked for.
    """
    is_asked = {
        "recording": args.recording is not None, "lake": args.lake is not None, "upstream": args.market == "bitget"
    }  # fmt: skip
    asked = [name for name, is_it in is_asked.items() if is_it]
    if len(asked) > 1:
        raise SettingsError(f"one market is served, found {' and '.join(_FLAGS[name] for name in asked)}: choose one")
    for name, needed_by in _NEEDS.items():
        stray = [_FLAGS[one] for one in needed_by if getattr(args, one) is not None]
        if stray and not is_asked[name]:
            raise SettingsError(f"{stray[0]} belongs to {_FLAGS[name]}, which is missing: add it or leave it out")
    if args.lake is not None and args.source is None:
        raise SettingsError("--lake needs --source, which is missing: say whose ticks, e.g. --source bitget")
    if args.anchor_ns is not None and not (is_asked["recording"] or is_asked["lake"]):
        raise SettingsError("--anchor-ns belongs to --recording or --lake, which are missing: leave it out")
