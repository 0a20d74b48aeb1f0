"""What an account can afford: asked before the first order, so that a small account gets its answer at the start."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from shared.bitget.transport import RestClient
from shared.bitget.wire import TickerRow
from shared.errors import ExchangeError, SettingsError
from shared.strategy.config import EngineConfig
from shared.strategy.exact import decimal_of
from shared.strategy.sizing import Affordable, check_affordable
from shared.types import Adopted, Universe


def prices_of(rows: Iterable[TickerRow]) -> dict[str, Decimal]:
    """Return the last price of every symbol that has one."""
    return {row.symbol: decimal_of(row.last) for row in rows if math.isfinite(row.last) and row.last > 0}


async def ask_affordable(
    client: RestClient, config: EngineConfig, universe: Universe, equity: Decimal, *, is_null: bool
) -> Affordable:
    """Return how many symbols an equity could trade at the prices now.

    Raises:
        SettingsError: it could trade none, with the arithmetic.
        ExchangeError: the tickers cannot be read.
    """
    return check_affordable(config, universe, prices_of(await client.tickers()), equity=equity, is_null=is_null)


async def say_affordable(
    client: RestClient, config: EngineConfig, universe: Universe, found: Adopted, logger: Any, *, is_null: bool
) -> None:
    """Log what the account could trade as a session begins; prices that cannot be read are no reason to stay away.

    Raises:
        SettingsError: it could trade nothing, and nothing is open that a session should close first.
    """
    try:
        answer = await ask_affordable(client, config, universe, found.equity_usdt, is_null=is_null)
    except ExchangeError as error:
        logger.warning("account.unpriced", reason=str(error))
        return
    except SettingsError as error:
        if not found.positions:
            raise
        logger.warning("account.too_small", reason=str(error))
        return
    said = {name: str(value) for name, value in msgspec.structs.asdict(answer).items() if value is not None}
    logger.info("account.affords", **said)
