"""`python -m pipelines.history`: what Bitget tells over REST alone, kept up to date and filled back.

`update` stores what is new, `follow` does so every hour, `backfill` reaches as far back as it is asked. Asked for a
window, it stores all that there is; then either all of it is there, or `NotEnoughData` says what is not. A symbol that
was listed later lacks nothing: a line says since when it is there. A process of its own, so that it never holds up the
recorder; half of every documented limit is left to others. See `filling` for how each table is filled.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from pipelines.filling import (
    CANDLES_KEPT_MS,
    HOUR_MIN,
    HOUR_MS,
    SETTLED_S,
    Filled,
    Say,
    fill_candles,
    fill_funding,
    note_open_interest,
)
from pipelines.universe import source_at
from shared import entry, settings, simulator_process
from shared.bitget.public import MINUTE_MS
from shared.bitget.transport import RestClient
from shared.errors import CrosscutError, ExchangeError, NotEnoughData, ProtocolBroken, SettingsError
from shared.lake import read, write
from shared.lake.layout import HOUR_NS, HOUR_S, TABLES
from shared.types import Contract, Universe

SHARE = 0.5
"""Of each documented limit: 10 requests a second of Bitget's 20."""


def traded(universe: Universe) -> tuple[Contract, ...]:
    """Return what has a history: everything but what is announced or gone."""
    return tuple(contract for contract in universe.contracts if contract.has_market)


async def backfill(
    rest: RestClient,
    lake: Path,
    source: str,
    contracts: Sequence[Contract],
    hours: float,
    *,
    tables: Sequence[str] = ("candles", "funding"),
    say: Say = lambda line: None,
) -> list[Filled]:
    """Store the last `hours` of candles and funding; what is there already is not asked for again.

    Raises:
        NotEnoughData: Bitget does not tell all of it; all that it tells is stored.
        ProtocolBroken: it tells something else than it did; what was stored stays.
    """
    done: list[Filled] = []
    now_ms = await rest.server_time()
    end = (now_ms - SETTLED_S * 1000) // MINUTE_MS
    start = end - round(hours * 60)
    if "candles" in tables:
        done.append(await fill_candles(rest, lake, source, contracts, start, end, say))
    if "funding" in tables:
        done.append(await fill_funding(rest, lake, source, contracts, start * MINUTE_MS, say))
    for filled in done:
        _tell_beginnings(filled, say)
    _check(done, source, hours)
    return done


async def update(
    rest: RestClient,
    lake: Path,
    source: str,
    contracts: Sequence[Contract],
    say: Say = lambda line: None,
    *,
    done: list[Filled] | None = None,
) -> list[Filled]:
    """Store what is new: since the last hour that is stored, at most a month; looked through are 3 h, of funding a day.

    Nothing is demanded: what Bitget does not tell is in the result.

    Args:
        done: what is stored is added to it table by table, so that it is known where the next one fails.
    """
    done = done if done is not None else []
    now_ms = await rest.server_time()
    hour = now_ms // HOUR_MS
    since = {}
    for table, looked_h in (("candles", 3), ("funding", 24)):
        newest = max(read.hours(lake, table, source), default=hour)
        since[table] = max(min(newest, hour - looked_h), hour - CANDLES_KEPT_MS // HOUR_MS)
    done.append(await note_open_interest(rest, lake, source))
    minutes = since["candles"] * HOUR_MIN, now_ms // MINUTE_MS
    done.append(await fill_candles(rest, lake, source, contracts, *minutes, say))
    done.append(await fill_funding(rest, lake, source, contracts, since["funding"] * HOUR_MS, say))
    return done


async def fetch(
    rest_url: str,
    lake: Path,
    source: str,
    *,
    symbols: Sequence[str] = (),
    hours: float | None = None,
    tables: Sequence[str] = ("candles", "funding"),
    say: Say = lambda line: None,
) -> list[Filled]:
    """Do one `backfill` of so many hours, or without them one `update`, with a client of its own: for an asset or cron.

    Raises:
        ExchangeError, NotEnoughData, ProtocolBroken, LakeError, SettingsError: see `backfill` and `chosen`.
    """
    async with RestClient(rest_url, None, share=SHARE) as rest:
        try:
            contracts = chosen(await rest.contracts(source), symbols)
            if hours is not None:
                return await backfill(rest, lake, source, contracts, hours, tables=tables, say=say)
            done = await update(rest, lake, source, contracts, say)
        finally:
            set_aside(rest, lake, source, say)
        _check([msgspec.structs.replace(filled, missing={}) for filled in done], source, 0)
        return done


def set_aside(rest: RestClient, lake: Path, source: str, say: Say = lambda line: None) -> int:
    """Write what of Bitget's answers was not understood to the table `quarantine`; return how much that is."""
    kept, more = rest.quarantine.take()
    rest.take_notes()
    if not kept:
        return 0
    now_ns = time.time_ns()
    session = f"history-{now_ns // 1000}"
    rows = [(row.recv_ns or now_ns, session, row.where, row.what, row.raw, 1) for row in kept]
    if more:
        rows.append((now_ns, session, "other", "more of what is kept above", "", more))
    hour = now_ns // HOUR_NS
    frame = pl.DataFrame(rows, schema=dict(TABLES["quarantine"].columns), orient="row")
    frame = frame.with_columns(pl.col("recv_ns").clip(hour * HOUR_NS, now_ns))
    write.write_table(lake, "quarantine", source, hour, frame, {"session": session}, part=session)
    say(f"{len(kept) + more} payloads were not understood, first {kept[0].where}: {kept[0].what}: see quarantine")
    return len(kept) + more


async def follow(
    rest: RestClient,
    lake: Path,
    source: str,
    contracts: Callable[[], Awaitable[Sequence[Contract]]],
    stop: asyncio.Event,
    *,
    say: Say = lambda line: None,
    every_s: float = HOUR_S,
    interest_s: float = 60.0,
) -> list[Filled]:
    """Store what is new, at once and then after every full hour, and the open interest every minute, until `stop`.

    Returns the rows and requests of each table, in sum.

    An exchange that does not answer is told and asked again at the next turn; nothing is lost by that but open
    interest, which has no history.

    Args:
        contracts: what is listed; asked for anew every hour.

    Raises:
        LakeError: the disk refuses.
    """
    done_at = -1  # number of the period that was stored last
    totals: dict[str, Filled] = {}
    while not stop.is_set():
        now_s = time.time()
        new: list[Filled] = []
        try:
            if (period := int((now_s - SETTLED_S) // every_s)) != done_at:
                await update(rest, lake, source, await contracts(), say, done=new)
                done_at = period
            else:
                new.append(await note_open_interest(rest, lake, source))
        except ExchangeError as error:
            say(f"asked again in {interest_s:g} s: {error}")
        for filled in new:
            _say_strange(filled, say)
            total = totals.setdefault(filled.table, Filled(table=filled.table))
            total.rows, total.requests = total.rows + filled.rows, total.requests + filled.requests
        set_aside(rest, lake, source, say)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(interest_s - time.time() % interest_s):
                await stop.wait()
    return list(totals.values())


def _say_strange(filled: Filled, say: Say) -> None:
    for line in filled.conflicts[:5]:
        say(f"{filled.table}: Bitget now tells {line}, which is not what is stored; that is kept")


def _tell_beginnings(filled: Filled, say: Say) -> None:
    for symbol, at_ms in sorted(filled.since_ms.items()):
        if symbol not in filled.missing:
            say(f"{filled.table} of {symbol} are there since {_utc(at_ms)}: it was not listed before")


def _check(done: Sequence[Filled], source: str, hours: float) -> None:
    conflicts = [line for filled in done for line in filled.conflicts]
    if conflicts:
        raise ProtocolBroken(
            f"Bitget must tell the same history as before, found {len(conflicts)} rows told otherwise, "
            f"first {conflicts[0]}: what was stored first is kept, look at both"
        )
    for filled in done:
        if not filled.missing:
            continue
        worst = sorted(filled.missing, key=lambda symbol: (-filled.missing[symbol], symbol))
        named = ", ".join(
            f"{symbol} {filled.missing[symbol]:,}"
            + (f" (since {_utc(filled.since_ms[symbol])})" if symbol in filled.since_ms else "")
            for symbol in worst[:5]
        )
        unit = "minutes" if filled.table == "candles" else "settlements"
        raise NotEnoughData(
            f"{filled.table} of {source} must reach {hours:g} h back for {filled.symbols} symbols, found "
            f"{sum(filled.missing.values()):,} {unit} missing of {len(worst)} of them, most of {named}: "
            "all that Bitget tells is stored; ask for less, or import older history (python -m pipelines.imports)"
        )


def _utc(at_ms: int) -> str:
    return str(np.datetime64(at_ms, "ms").astype("datetime64[m]")) + "Z"


# ------------------------------------------------------------------------------------------------ command line


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m pipelines.history",
        description="Store one-minute candles, settled funding and open interest, which Bitget tells over REST, in the "
        "lake. Without --hours, --days or --follow: what is new since the last time (for cron). MARKET=bitget asks "
        "Bitget (no keys needed); MARKET=simulator, the default, the simulator at BITGET_REST_URL or, where that is "
        "unset, one that is started for this run. What is stored is not asked for again, so a run that was stopped is "
        "completed by running it again. Progress goes to stderr, the last line on stdout is a JSON summary.",
    )
    far = p.add_mutually_exclusive_group()
    far.add_argument(
        "--hours", type=float, help="fetch the last so many hours of candles and funding, or say what lacks"
    )
    far.add_argument("--days", type=float, help="the same in days")
    far.add_argument(
        "--follow", action="store_true", help="store what is new every hour, open interest every minute, until stopped"
    )
    p.add_argument("--only", choices=("candles", "funding"), help="of --hours and --days (default: both)")
    p.add_argument("--symbols", help="comma separated (default: SYMBOLS, which is everything that is listed)")
    p.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    return p


async def run(args: argparse.Namespace) -> list[Filled]:
    """Do what the command line asks, with a simulator of our own where that is needed."""
    config = settings.load(lake_uri=args.lake, symbols=args.symbols)
    hours = args.hours if args.days is None else args.days * 24
    if hours is not None and not 0 < hours <= 24 * 3650:
        given = f"--hours must be above 0 and at most ten years, found {hours:g}"
        if args.days is not None:
            given = f"--days must be above 0 and at most 3650, found {args.days:g}"
        raise SettingsError(given)
    symbols = config.symbols if args.symbols else config.wanted_symbols
    with contextlib.ExitStack() as stack:
        urls = config.market_urls()
        if urls is None:
            simulator = stack.enter_context(simulator_process.start())
            rest_url, source = simulator.rest, simulator.source
            say(f"started a simulator: {simulator.ready.get('note', source)}")
        else:
            rest_url, source = urls[0], await source_at(urls[0])
        if not args.follow:
            tables = (args.only,) if args.only else ("candles", "funding")
            return await fetch(rest_url, config.lake, source, symbols=symbols, hours=hours, tables=tables, say=say)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        async with RestClient(rest_url, None, share=SHARE) as rest:

            async def contracts() -> Sequence[Contract]:
                return chosen(await rest.contracts(source), symbols)

            return await follow(rest, config.lake, source, contracts, stop, say=say)


def chosen(universe: Universe, symbols: Sequence[str]) -> tuple[Contract, ...]:
    """Return the contracts that trade, of these symbols; () is all.

    Raises:
        SettingsError: a wanted symbol does not trade.
    """
    trading = traded(universe)
    unknown = set(symbols) - {contract.symbol for contract in trading}
    if unknown:
        raise SettingsError(f"SYMBOLS must trade, found {', '.join(sorted(unknown))} not listed: correct the names")
    return tuple(contract for contract in trading if not symbols or contract.symbol in symbols)


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        done = asyncio.run(run(args))
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        say("stopped: what was fetched is stored, run the same command again to complete it")
        return entry.INTERRUPTED
    tables = {filled.table: {"rows": filled.rows, "requests": filled.requests} for filled in done}
    print(json.dumps({"command": "history", "tables": tables}, ensure_ascii=False))
    return 0


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    entry.run(main)
