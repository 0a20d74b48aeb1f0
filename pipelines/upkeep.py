"""Assets that are no hours of ticks: history that Bitget tells over REST, and what retention removes.

(No `from __future__ import annotations` here, as in `pipelines.assets`.)
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from pipelines.assets import shown
from pipelines.resources import LakeResource
from pipelines.tables import table_of
from shared import settings as settings_module
from shared.errors import CrosscutError, ExchangeError, SettingsError

Results = Iterator[dg.MaterializeResult[Any] | dg.AssetObservation]

HISTORY = ("candles", "funding", "open_interest")

RETRY = dg.RetryPolicy(max_retries=3, delay=60, backoff=dg.Backoff.EXPONENTIAL)
"""Nothing is lost by a try that fails but open interest, which has no history; the next hour fetches the rest."""


class HistoryConfig(dg.Config):
    """How far to look back."""

    hours: float = 0.0  # a backfill of so many hours, all of it or a failure that names the shortfall; 0: what is new


@dg.multi_asset(
    name="ask_history",
    specs=[
        dg.AssetSpec(
            table,
            skippable=True,
            group_name="history",
            kinds={"bitget", "parquet"},
            description=f"{what}, of every symbol over REST. What is new since the last time; `hours` in the launchpad "
            "fills back.",
        )
        for table, what in zip(
            HISTORY,
            ("Candles of a minute", "Settled funding rates", "Open interest and mark price of now"),
            strict=True,
        )
    ],
    retry_policy=RETRY,
)
def history(context: dg.AssetExecutionContext, config: HistoryConfig, lake: LakeResource) -> Results:
    import asyncio

    from pipelines.history import fetch

    settings = settings_module.load()
    urls = settings.market_urls()
    if urls is None:
        reason = (
            "an exchange to ask is needed, found the simulator that each recorder starts for itself: "
            "set MARKET=bitget, or BITGET_REST_URL to a simulator that runs"
        )
        context.log.warning(f"skipped: {reason}")
        for table in HISTORY:
            yield dg.AssetObservation(asset_key=table, metadata={"skipped": reason})
        return
    try:
        done = asyncio.run(
            fetch(
                urls[0],
                lake.root,
                lake.name,
                symbols=settings.wanted_symbols,
                hours=config.hours or None,
                say=context.log.info,
            )
        )
    except ExchangeError as error:
        raise dg.Failure(description=str(error)) from None
    except CrosscutError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    for filled in done:
        yield dg.MaterializeResult(
            asset_key=filled.table,
            metadata={
                "dagster/row_count": filled.rows,
                "rows": filled.rows,
                "symbols": filled.symbols,
                "requests": filled.requests,
                "missing": sum(filled.missing.values()),
                "conflicts": len(filled.conflicts),
                "source": lake.name,
            },
        )


@dg.asset(
    group_name="upkeep",
    description="Removes from the lake what is older than RETENTION allows; without rules, nothing. "
    "`python -m pipelines.retention --dry-run` says beforehand what would go.",
)
def retention(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult[Any]:
    from pipelines.retention import apply, parse

    try:
        text = settings_module.load().retention
        done = apply(lake.root, parse(text), progress=context.log.info)
    except SettingsError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    except CrosscutError as error:
        raise dg.Failure(description=str(error)) from None
    rows = [
        {"source": one.source, "table": table, "hours": len(hours), "MB": round(sum(hours.values()) / 1e6, 1)}
        for one in done
        for table, hours in one.removed.items()
    ]
    return dg.MaterializeResult(
        metadata=shown(
            {
                "rules": text or "none: everything is kept",
                "bytes_removed": sum(one.bytes for one in done),
                "bytes_left": sum(sum(one.left_bytes.values()) for one in done),
                "removed": table_of(rows),
                "hours_held_back": sum(len(hours) for one in done for hours in one.held.values()),
            }
        )
    )


UPKEEP = [history, retention]
