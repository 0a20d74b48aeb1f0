"""What is listed: discovery over REST into the dated universe table, and which source a URL is.

`contracts` gives the rules, `tickers` what each was worth at that time. Every snapshot is kept: a backtest of last
March trades what was listed last March. How it is followed while a recorder runs: `pipelines.discovery`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec
import polars as pl

from shared.bitget.transport import RestClient
from shared.bitget.wire import TickerRow
from shared.errors import ExchangeSilent, ProtocolBroken
from shared.lake import read, write
from shared.lake.layout import HOUR_NS
from shared.types import Universe

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_TIMEOUT = aiohttp.ClientTimeout(total=10)


async def discover(rest: RestClient, lake: Path, source: str) -> Universe:
    """Return what is listed now; it is written to the universe table where that does not have it in this hour yet.

    Raises:
        ExchangeError: the exchange refuses, is silent, or answers with something else.
        ProtocolBroken: nothing is listed.
    """
    universe = await rest.readable_contracts(source)
    if not universe.contracts:
        raise ProtocolBroken(f"{rest.base_url} must list perpetuals, found none: is it the right address?")
    tickers = await rest.tickers()
    if not _is_known(lake, universe):
        write.write_universe(lake, universe, tickers_frame(tickers))
    return universe


def _is_known(lake: Path, universe: Universe) -> bool:
    """Tell whether this hour has a snapshot, and the latest one says the same."""
    hour = universe.as_of_ns // HOUR_NS
    if hour not in read.hours(lake, "universe", universe.source):
        return False
    return read.universe_at(lake, universe.source, universe.as_of_ns).contracts == universe.contracts


def tickers_frame(rows: Iterable[TickerRow]) -> pl.DataFrame:
    """Return tickers as `write_universe` wants them; what the exchange left out is NaN."""
    columns = ("symbol", *write.TICKER_COLUMNS)
    values = [[row.symbol, *(getattr(row, name) for name in write.TICKER_COLUMNS)] for row in rows]
    schema = {"symbol": pl.String} | dict.fromkeys(write.TICKER_COLUMNS, pl.Float64)
    return pl.DataFrame(values, schema=schema, orient="row").select(columns).unique("symbol", keep="last")


class _Told(msgspec.Struct, frozen=True):
    source: str


async def source_at(rest_url: str) -> str:
    """Return the source that ticks from this REST address belong to: Bitget's, or that of a simulator.

    Raises:
        ExchangeSilent: nobody answers.
        ProtocolBroken: something on this machine answers that is no simulator.
    """
    if urlsplit(rest_url).hostname not in _LOOPBACK:
        return "bitget"
    url = f"{rest_url}/_control/market"
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as http, http.get(url) as response:
            raw = await response.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ExchangeSilent(
            f"{url} must be answered by a running simulator, found {type(error).__name__}: "
            "start `python -m shared.simulator`, or unset BITGET_REST_URL and BITGET_WS_URL"
        ) from None
    try:
        return msgspec.json.decode(raw, type=_Told).source
    except msgspec.MsgspecError as error:
        raise ProtocolBroken(
            f"{url} must tell the source of a simulator, found {error}: is it another program?"
        ) from None
