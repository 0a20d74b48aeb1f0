"""Examine everything that trading needs, before it is needed; nothing is changed and nothing is ordered.

    python -m live.doctor [--model latest]

One line a check: ok, warn or FAIL with what to do. Exits 1 where anything fails.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Literal

import msgspec

from live.account import check_clock, choose_account_symbol
from live.affords import ask_affordable
from live.executor import MeteredClient
from live.run import Where, find_model, run_loop, simulator_arguments, where_of
from live.streams import AccountStream
from live.truth import read_truth, say_open
from shared import entry, log, settings, simulator_process
from shared.bitget.transport import ReceiveClock
from shared.errors import CrosscutError, ExchangeSilent, LakeError, SettingsError
from shared.limits import config_of
from shared.settings import Settings
from shared.types import Universe

DISK_FREE_BYTES_MIN: Final = 5 * 2**30  # a day's journal of 800 symbols is 3 GB
PRIVATE_WITHIN_S: Final = 15.0

State = Literal["ok", "warn", "FAIL"]


class Finding(msgspec.Struct, frozen=True):
    """One check's result, in a sentence."""

    check: str
    state: State
    sentence: str


class Warned(CrosscutError):
    """Something that works, and should be known."""


def examine(check: str, look: Callable[[], str]) -> Finding:
    """Return what a check found; its errors are findings."""
    try:
        return Finding(check, "ok", look())
    except Warned as warning:
        return Finding(check, "warn", str(warning))
    except CrosscutError as error:
        return Finding(check, "FAIL", str(error))


async def examine_later(check: str, look: Callable[[], Awaitable[str]]) -> Finding:
    """Return what a check that waits found."""
    try:
        return Finding(check, "ok", await look())
    except Warned as warning:
        return Finding(check, "warn", str(warning))
    except CrosscutError as error:
        return Finding(check, "FAIL", str(error))


def check_disk(chosen: Settings) -> str:
    """Say whether the journal can be written and how much room it has."""
    folder = chosen.lake
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise LakeError(
            f"the lake must be writable, found {folder} that is not: restore the permission or set LAKE_URI"
        )
    free = shutil.disk_usage(folder).free
    if free < DISK_FREE_BYTES_MIN:
        raise LakeError(
            f"the lake needs {DISK_FREE_BYTES_MIN / 2**30:.0f} GiB free for a day's journal, found "
            f"{free / 2**30:.1f} at {chosen.lake}: make room or set LAKE_URI"
        )
    return f"{free / 2**30:.0f} GiB free at {chosen.lake}"


def check_model(chosen: Settings, selector: str, source: str) -> str:
    """Say which model would trade and whether it may."""
    if selector in ("rules", "coin"):
        return f"{selector} needs none"
    _, note, bundle = find_model(chosen, selector)
    said = f"version {note.version} ({note.digest[:12]}…), horizon {bundle.horizon_s} s, gate {bundle.gate}"
    if bundle.source != source:
        raise Warned(f"{said}: trained on {bundle.source}, would trade on {source}")
    return said


async def check_venue(chosen: Settings, where: Where, selector: str) -> list[Finding]:
    """Examine connection, clock, listing, keys, account and private stream."""
    clock = ReceiveClock()
    async with MeteredClient(where.rest_url, where.keys, is_demo=chosen.bitget_venue == "demo", clock=clock) as client:
        findings: list[Finding] = []
        universe: Universe | None = None

        async def look_at_clock() -> str:
            return f"{where.rest_url} answers, our clock is {-await check_clock(client):+d} ms off"

        async def look_at_listing() -> str:
            nonlocal universe
            universe = await client.contracts(where.source)
            unlisted = sorted(set(chosen.wanted_symbols) - set(universe.symbols))
            if unlisted:
                raise SettingsError(f"SYMBOLS must be listed, found {', '.join(unlisted)}: correct or remove them")
            config_of(chosen, horizon_s=None).check(universe)  # as a session would: contradictions are told here
            return f"{len(universe.contracts)} perpetuals of {where.source}"

        async def look_at_account() -> str:
            assert universe is not None, "looked at the listing before"
            account = await client.account(choose_account_symbol(universe))
            if account.position_mode != "one_way_mode":
                raise Warned(
                    f"position mode is {account.position_mode}: a session switches it to one-way, flat accounts only"
                )
            return f"keys work, equity {account.equity_usdt:f} USDT, one-way, {account.margin_mode}"

        async def look_at_equity() -> str:
            assert universe is not None, "looked at the listing before"
            account = await client.account(choose_account_symbol(universe))
            config = config_of(chosen, horizon_s=None)
            found = await ask_affordable(client, config, universe, account.equity_usdt, is_null=selector == "coin")
            if found.tradable < found.priced:
                raise Warned(str(found))
            return str(found)

        async def look_at_positions() -> str:
            assert universe is not None, "looked at the listing before"
            found = await read_truth(client, choose_account_symbol(universe), {}, clock)
            what = say_open(found.positions, found.orders)
            if what:
                raise Warned(f"open: {what}; a session adopts it, `python -m live.flatten` closes it")
            return "flat"

        async def look_at_private_stream() -> str:
            stream = AccountStream(where.venue_ws_url, where.keys, lambda event: None, clock, lambda note: None)
            stop = asyncio.Event()
            running = asyncio.create_task(stream.run(stop))
            linked = asyncio.create_task(stream.linked.wait())
            try:
                await asyncio.wait({running, linked}, timeout=PRIVATE_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    await running  # raises what ended it
                if not linked.done():
                    raise ExchangeSilent(
                        f"the private stream must be up within {PRIVATE_WITHIN_S:.0f} s, found it down"
                    )
            finally:
                stop.set()
                linked.cancel()
                await asyncio.gather(running, return_exceptions=True)
            return f"{where.venue_ws_url}/private is up"

        for check, look in (
            ("connection and clock", look_at_clock),
            ("listing", look_at_listing),
            ("account", look_at_account),
            ("equity", look_at_equity),
            ("positions", look_at_positions),
            ("private stream", look_at_private_stream),
        ):
            findings.append(await examine_later(check, look))
            if findings[-1].state == "FAIL" and check not in ("equity", "positions"):
                break
        return findings


def findings_of(selector: str) -> Iterator[Finding]:
    """Yield finding after finding; what cannot be examined after a failure is left out."""
    holder: list[Settings] = []

    def load() -> str:
        chosen = settings.load()
        chosen.check(is_armed=True)
        holder.append(chosen)
        return f"MARKET={chosen.market}, BITGET_VENUE={chosen.bitget_venue}, SANDBOX={str(chosen.sandbox).lower()}"

    yield examine("settings", load)
    if not holder:
        return
    chosen = holder[0]
    yield examine("disk", lambda: check_disk(chosen))
    arguments = simulator_arguments(chosen)
    try:
        simulator = simulator_process.launch(arguments) if arguments is not None else None
    except CrosscutError as error:
        yield Finding("simulator", "FAIL", str(error))
        return
    try:
        where = where_of(chosen, simulator)
        yield examine("model", lambda: check_model(chosen, selector, where.source))
        yield from run_loop(check_venue(chosen, where, selector))
    except CrosscutError as error:
        yield Finding("venue", "FAIL", str(error))
    finally:
        if simulator is not None:
            simulator.stop()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m live.doctor", description="Examine what trading needs.")
    parser.add_argument("--model", default="latest", help="latest, a version, an alias, rules or coin (default latest)")
    options = parser.parse_args(arguments)
    log.configure("ERROR")
    n_failed = 0
    for finding in findings_of(options.model):
        print(f"{finding.state:4}  {finding.check}: {finding.sentence}", flush=True)
        n_failed += finding.state == "FAIL"
    return 1 if n_failed else 0


if __name__ == "__main__":
    entry.run(main)
