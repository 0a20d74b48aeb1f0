"""Close everything: cancel every order that rests, close every position at market, and say what is left.

    python -m live.flatten            asks the exchange of the settings (.env), shows what is open, closes it
    python -m live.flatten --dry-run  only shows it

It needs no model, no journal and no session, so that it works when all of these are broken. Orders are reduce-only:
run it twice, or beside a session that flattens too, and nothing is opened. A closing order without an answer is not
sent again before the exchange was asked what is still open. What no order may close (a position below the minimum or
the step that its contract has today) is left to the exchange's own flash close, as a session leaves it (exits.py), and
so is whatever it refuses to take an order for.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from decimal import Decimal
from typing import Final

from live import memory
from live.account import check_clock, choose_account_symbol
from live.executor import MeteredClient
from live.run import Where, run_loop, where_of
from live.truth import read_truth, say_open
from shared import entry, log, settings
from shared.bitget.transport import ReceiveClock
from shared.errors import CrosscutError, ExchangeError, ExchangeRefused, ExchangeSilent, SettingsError
from shared.settings import Settings
from shared.strategy.orders import client_oid
from shared.strategy.sizing import closing_size, is_dust
from shared.types import (
    Adopted,
    CancelOrder,
    Cause,
    OrderKind,
    PendingOrder,
    PlaceOrder,
    Position,
    Side,
    Universe,
)

ROUNDS_MAX: Final = 20
ROUND_S: Final = 2.0
"""Time for a round's orders to fill before the exchange is asked again; an unanswered one may still fill meanwhile."""

NO_POSITION: Final = "22002"


async def flatten(client: MeteredClient, universe: Universe, clock: ReceiveClock, *, is_dry: bool = False) -> Adopted:
    """Close everything and return the exchange's last word; it may still name what could not be closed."""
    symbol = choose_account_symbol(universe)
    session = f"flatten-{time.time_ns()}"
    logger = log.get("flatten")
    found = await read_truth(client, symbol, {}, clock)
    logger.info(
        "account.read", open=say_open(found.positions, found.orders) or "nothing", equity_usdt=str(found.equity_usdt)
    )
    if is_dry:
        return found
    for round_number in range(ROUNDS_MAX):
        if not found.positions and not found.orders:
            return found
        await asyncio.gather(*(_cancel(client, order) for order in found.orders))
        await asyncio.gather(
            *(_close(client, universe, position, session, round_number) for position in found.positions)
        )
        await asyncio.sleep(ROUND_S if round_number else ROUND_S / 4)
        found = await read_truth(client, symbol, {}, clock)
    return found


async def _cancel(client: MeteredClient, order: PendingOrder) -> None:
    try:
        await client.cancel(CancelOrder(client_oid=order.client_oid, order_id=order.order_id, symbol=order.symbol))
        log.get("flatten").info("order.cancelled", symbol=order.symbol, order_id=order.order_id)
    except ExchangeError as error:
        log.get("flatten").warning("cancel.failed", symbol=order.symbol, order_id=order.order_id, error=str(error))


async def _close(
    client: MeteredClient, universe: Universe, position: Position, session: str, round_number: int
) -> None:
    order = closing_order(universe, position, client_oid(session, round_number, position.symbol, "exit"))
    logger = log.get("flatten")
    try:
        await client.place(order)
        event = "position.flash_closing" if order.is_flash else "position.closing"
        logger.info(event, symbol=position.symbol, size=str(position.size), order=order.client_oid)
    except ExchangeRefused as refusal:
        if refusal.code != NO_POSITION:
            logger.warning("close.refused", symbol=position.symbol, code=refusal.code, message=refusal.bitget_message)
            if not order.is_flash:
                await _flash_close(client, position)
    except ExchangeSilent as error:
        logger.warning("close.unanswered", symbol=position.symbol, error=str(error))


async def _flash_close(client: MeteredClient, position: Position) -> None:
    """Let the exchange close what it does not let us close: the contract's steps or minimum have changed."""
    logger = log.get("flatten")
    try:
        await client.flash_close(position.symbol)
        logger.info("position.flash_closing", symbol=position.symbol, size=str(position.size))
    except ExchangeError as error:
        logger.warning("flash_close.failed", symbol=position.symbol, error=str(error))


def closing_order(universe: Universe, position: Position, name: str) -> PlaceOrder:
    """Return the reduce-only market order that closes a position, or as much of it as one order may.

    What is too little for an order is left to the exchange: its worth as well as it is known, which is what it cost.
    """
    size = abs(position.size)
    contract = {c.symbol: c for c in universe.contracts}.get(position.symbol)
    is_flash = contract is not None and is_dust(contract, size, position.entry_price)
    if contract is not None and not is_flash:  # which is of the whole position, however large
        size = closing_size(contract, size)
    assert size > Decimal(0), position
    return PlaceOrder(
        client_oid=name,
        symbol=position.symbol,
        side=Side.SELL if position.size > 0 else Side.BUY,
        kind=OrderKind.MARKET,
        size=size,
        price=None,
        reduce_only=True,
        stop_price=None,
        cause=Cause.OPERATOR,
        is_flash=is_flash,
    )


def connect_settings(*, is_armed: bool) -> tuple[Settings, Where]:
    """Return the settings and the exchange that they name, for programs that start no simulator of their own."""
    chosen = settings.load()
    chosen.check(is_armed=is_armed)
    if chosen.bitget_venue == "simulator" and chosen.venue_urls() is None:
        raise SettingsError(
            "BITGET_REST_URL and BITGET_WS_URL must name a running simulator, found neither: the simulator that a "
            "session starts for itself ends with the session, and its account with it; set both URLs"
        )
    return chosen, where_of(chosen, None)


async def _main(chosen: Settings, where: Where, *, is_dry: bool) -> Adopted:
    clock = ReceiveClock()
    async with MeteredClient(where.rest_url, where.keys, is_demo=chosen.bitget_venue == "demo", clock=clock) as client:
        await check_clock(client)
        universe = await client.contracts(where.source)
        return await flatten(client, universe, clock, is_dry=is_dry)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m live.flatten", description="Cancel every order, close every position."
    )
    parser.add_argument("--dry-run", action="store_true", help="show what is open, touch nothing")
    options = parser.parse_args(arguments)
    log.configure()
    try:
        # Closing is never refused for want of --arm: it only reduces risk.
        chosen, where = connect_settings(is_armed=True)
        if memory.is_traded(chosen.lake, memory.account_id(where.rest_url, where.keys.key)):
            print(
                "no session should trade this account meanwhile, found one at work on this machine, which may open "
                "again what is closed here: end it with Ctrl-C, which closes its positions, too",
                file=sys.stderr,
            )
        found = run_loop(_main(chosen, where, is_dry=options.dry_run))
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    left = say_open(found.positions, found.orders)
    if left and not options.dry_run:
        print(
            f"the account must be flat after {ROUNDS_MAX} rounds, found {left}: run it again, or close by hand",
            file=sys.stderr,
        )
        return ExchangeError.exit_code
    print(f"open: {left}" if left else f"flat, equity {found.equity_usdt:f} USDT")
    return 0


if __name__ == "__main__":
    entry.run(main)
