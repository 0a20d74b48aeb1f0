"""What it costs to ask whether a formula says anything: `python -m benchmarks.study [--symbols 600] [--hours 1]`.

A random walk whose imbalance drifts the mid lies in a lake of its own, one hour more than is asked about. Measured are
formulas -> rank IC at six horizons with errors, reading included, for one formula and for five; scaled to a day. CPU
seconds of this process beside the clock's: on a machine with other work only the first say something, and they are
somewhat worse, never better. The last line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import polars as pl

from pipelines.seconds import to_frame
from pipelines.study import study
from shared.features.catalog import imbalance, microprice, mid, simple_return
from shared.features.ops import Node
from shared.lake import write
from shared.lake.layout import HOUR_S
from shared.types import NS, Universe
from tests.pipelines.markets import HOUR, SOURCE, contract, market

FORMULAS = {
    "microprice": (microprice - mid) / mid * imbalance(3),
    "imbalance_1": imbalance(1),
    "imbalance_5": imbalance(5),
    "reversal_5s": 0.0 - simple_return(5),
    "reversal_30s": 0.0 - simple_return(30),
}
SYMBOLS_AT_ONCE = 50


def write_hours(lake: Path, n_symbols: int, n_hours: int) -> None:
    symbols = tuple(f"S{n:04d}USDT" for n in range(n_symbols))
    listed = tuple(contract(symbol) for symbol in symbols)
    write.write_universe(lake, Universe(source=SOURCE, as_of_ns=HOUR * HOUR_S * NS, contracts=listed))
    for hour in range(HOUR, HOUR + n_hours):

        def parts(hour: int = hour) -> Iterator[pl.DataFrame]:
            for k in range(0, n_symbols, SYMBOLS_AT_ONCE):
                some = symbols[k : k + SYMBOLS_AT_ONCE]
                seed = hour * n_symbols + k
                yield to_frame(some, market(hour * HOUR_S, HOUR_S, len(some), seed=seed, edge_bps=20.0))

        write.write_parts(lake, "seconds", SOURCE, hour, parts(), {})


class Cost(msgspec.Struct):
    formulas: int
    cpu_s: float
    wall_s: float
    cpu_s_a_day: float
    rank_ic: float  # of the first formula at the first horizon: it must be something


def measure(formulas: dict[str, Node], lake: Path, n_hours: int) -> Cost:
    cpu_s, wall_s = time.process_time(), time.monotonic()
    found = study(formulas, lake, SOURCE, HOUR * HOUR_S, (HOUR + n_hours) * HOUR_S)
    cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
    return Cost(len(formulas), round(cpu_s, 2), round(wall_s, 2), round(cpu_s * 24 / n_hours, 1), found["rank_ic"][0])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--symbols", type=int, default=600)
    p.add_argument("--hours", type=int, default=1)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        lake = Path(temporary)
        write_hours(lake, args.symbols, args.hours + 1)
        some = [dict(list(FORMULAS.items())[:n]) for n in (1, len(FORMULAS))]
        measure(some[0], lake, 1)  # the first reading compiles
        costs = [measure(formulas, lake, args.hours) for formulas in some]
    for cost in costs:
        print(
            f"{cost.formulas} formulas x 6 horizons, {args.symbols} symbols, {args.hours} h: {cost.cpu_s:.2f} CPU s "
            f"({cost.wall_s:.1f} s by the clock), a day {cost.cpu_s_a_day:.0f} CPU s"
        )
    load = os.getloadavg()[0]
    print(f"load average {load:.1f} on {os.cpu_count()} cores")
    print(json.dumps({"load": load, "costs": [msgspec.structs.asdict(cost) for cost in costs]}))


if __name__ == "__main__":
    main()
