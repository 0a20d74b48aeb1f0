"""Lakes whose truth is known, for the gate at the end of the whole road: features, labels, training, MLflow, backtest, CLI.

The symbols' imbalance is of one sign for half a minute, and while it is, the mid drifts by `edge_bps` in ten seconds.
Everything else is noise. Fees are the contracts' own and the spread is one tick, so that costs are what a test says.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
import polars as pl

from pipelines.seconds import to_frame
from shared.lake import read, write
from shared.lake.layout import HOUR_S
from shared.types import NS, Universe
from tests.pipelines.gate.worlds import names
from tests.pipelines.markets import HOUR, contract, market

SOURCE = "simulator-planted"
SECONDS = 8_400  # the last quarter, 35 minutes, is the holdout; 30 whole ones are the least that the gate looks at
SYMBOLS, HELD_OUT = 20, 4
SIGMA_BPS = 2.75  # of a second: the median symbol's 8.7 bps in ten
STRETCH_S = 15


def write_planted(lake: Path, *, seed: int, edge_bps: float, taker_fee: str = "0.0002", tick: str = "0.01") -> None:
    """Write universe and seconds of a market that begins on an hour."""
    start = HOUR * HOUR_S
    contracts = (
        msgspec.structs.replace(contract(name), taker_fee=Decimal(taker_fee), maker_fee=Decimal(0), tick=Decimal(tick))
        for name in names(SYMBOLS, HELD_OUT)
    )
    listed = Universe(source=SOURCE, as_of_ns=start * NS, contracts=tuple(contracts))
    write.write_universe(lake, listed)
    seconds = market(
        start,
        SECONDS,
        SYMBOLS,
        seed=seed,
        edge_bps=edge_bps,
        sigma_bps=SIGMA_BPS,
        stretch_s=STRETCH_S,
        tick=float(tick),
    )
    frame = to_frame(listed.symbols, seconds)
    for hour in range(HOUR, HOUR + -(-SECONDS // HOUR_S)):
        write.write_table(lake, "seconds", SOURCE, hour, frame.filter(pl.col("second") // HOUR_S == hour), {})


def look_ahead(lake: Path, name: str, lead_s: int) -> None:
    """Store one feature of every second as it will be so much later, in files that say they are what they should be."""
    for hour in read.hours(lake, "features", SOURCE):
        path = read.sealed_file(lake, "features", SOURCE, hour)
        assert path is not None
        rows = read.collect(read.scan(lake, "features", SOURCE, start_s=hour * HOUR_S, end_s=(hour + 1) * HOUR_S))
        later = pl.col(name).shift(-lead_s).over("symbol").fill_null(float("nan"))
        leaking = rows.sort("symbol", "second").with_columns(later)
        write.write_table(lake, "features", SOURCE, hour, leaking, read.footer(path).provenance)
