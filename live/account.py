"""What a session asks of its account before it trades and beside it: the clock, one-way mode, leverage, connections."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from live.executor import MeteredClient
from shared.bitget.rest import LATER_CODES
from shared.bitget.transport import RestClient
from shared.errors import ExchangeError, ExchangeRefused, SettingsError
from shared.strategy.config import EngineConfig
from shared.types import Contract, Universe

CLOCK_SKEW_MS_MAX: Final = 2000  # the engine's proof of absence allows clocks to differ by 2 s
CLOCK_READ_WITHIN_S: Final = 1.0  # half a round trip is the error of a reading
LEVERAGE_TOLD_EVERY_S: Final = 2.0
LEVERAGE_AGAIN_S: Final = 2.0  # between tries of what was not answered: until then the symbol is not traded


def choose_account_symbol(universe: Universe) -> str:
    """Return a symbol that the account can be asked with."""
    if not universe.contracts:
        raise ExchangeError("the exchange must list a perpetual, found none: check BITGET_REST_URL")
    return "BTCUSDT" if "BTCUSDT" in universe.symbols else universe.symbols[0]


async def check_clock(client: MeteredClient) -> int:
    """Return how far our clock is behind the exchange's, ms.

    Raises:
        SettingsError: further than orders in doubt allow.
    """
    skew_ms = await client.sync_clock()
    if abs(skew_ms) > CLOCK_SKEW_MS_MAX:
        raise SettingsError(
            f"this machine's clock must be within {CLOCK_SKEW_MS_MAX} ms of the exchange's, found {-skew_ms:+d} ms: "
            "synchronise it (NTP), then start again"
        )
    return skew_ms


async def warm(client: RestClient, n_connections: int) -> int | None:
    """Use so many connections at once; return by how many ms the exchange is ahead, None where nobody said soon."""
    began_s = time.monotonic()
    asks = (client.server_time() for _ in range(n_connections - 1))
    offset_ms, *_ = await asyncio.gather(client.sync_clock(), *asks, return_exceptions=True)
    is_prompt = time.monotonic() - began_s <= CLOCK_READ_WITHIN_S
    return offset_ms if isinstance(offset_ms, int) and is_prompt else None


async def require_one_way(client: MeteredClient, symbol: str) -> None:
    """Bring the account into one-way mode, which is the only one that a session knows.

    Raises:
        SettingsError: it is not, and Bitget does not switch it.
    """
    account = await client.account(symbol)
    if account.position_mode == "one_way_mode":
        return
    try:
        found = await client.set_position_mode()
    except ExchangeRefused as refusal:
        raise SettingsError(
            f"the account must be in one-way mode, found {account.position_mode}, and Bitget refuses to switch "
            f"({refusal.code} {refusal.bitget_message}): close every position and order of this account first"
        ) from None
    if found != "one_way_mode":
        raise SettingsError(f"the account must be in one-way mode, found {found} after switching: switch it by hand")


async def set_leverages(
    client: MeteredClient,
    config: EngineConfig,
    universe: Universe,
    obtained: dict[str, int],
    *,
    told: Callable[[], None],
    logger: Any,
) -> None:
    """Set the leverage of every symbol that may be traded, busiest first; fill `obtained` as they are obtained.

    Args:
        told: called now and then while there is more in `obtained`, and at the end.
    """
    wanted = set(config.symbols) or set(universe.symbols)
    contracts = [c for c in universe.contracts if c.symbol in wanted and c.status == "normal"]
    volumes: dict[str, float] = {}
    with contextlib.suppress(ExchangeError):  # without them all are set all the same, in some order
        volumes = {row.symbol: row.quote_volume_24h for row in await client.tickers()}
    contracts.sort(key=lambda contract: -float(np.nan_to_num(volumes.get(contract.symbol, 0.0))))
    left, told_s = contracts, time.monotonic()
    while left:
        unanswered = []
        for contract in left:
            if not await _set_leverage(client, contract, config.leverage, obtained, logger):
                unanswered.append(contract)
            if time.monotonic() - told_s >= LEVERAGE_TOLD_EVERY_S or contract is left[-1]:
                told_s = time.monotonic()
                told()
        left = unanswered
        if left:
            await asyncio.sleep(LEVERAGE_AGAIN_S)
    logger.info("leverage.set", symbols=len(obtained), of=len(contracts))


async def _set_leverage(
    client: MeteredClient, contract: Contract, leverage: int, leverages: dict[str, int], logger: Any
) -> bool:
    """Set the leverage of one symbol; False: there was no answer, and another try may get one."""
    wanted = max(contract.leverage_min, min(leverage, contract.leverage_max))
    try:
        obtained = await client.set_leverage(contract.symbol, wanted)
        if obtained != wanted:  # the symbol's margin may be isolated, which has leverages of its own
            await client.set_margin_mode(contract.symbol)
            obtained = await client.set_leverage(contract.symbol, wanted)
    except ExchangeError as error:
        logger.warning("leverage.refused", symbol=contract.symbol, wanted=wanted, error=str(error))
        return isinstance(error, ExchangeRefused) and error.code not in LATER_CODES
    if obtained > wanted:
        logger.warning("leverage.differs", symbol=contract.symbol, wanted=wanted, obtained=obtained)
        return True
    leverages[contract.symbol] = obtained
    return True
