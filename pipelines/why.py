"""Why a symbol was not traded: the first gate that said no, at a moment or over a whole run.

Run it: python -m pipelines.why [SYMBOL] [--at TIME] [--run RUN]

    python -m pipelines.why BTCUSDT --at 2026-11-22T08:03:20     one decision, and those around it
    python -m pipelines.why BTCUSDT                              a whole run: gates by share, and the nearest miss
    python -m pipelines.why --at 2026-11-22T08:03:20             everybody at that moment, by gate
    python -m pipelines.why                                      everybody, a whole run

RUN is a backtest's run id (its beginning will do), a session's name, or `last`: the youngest of either kind. A session
is replayed from its journal the first time it is asked for; from then on it is in the table, as a backtest is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from pipelines.decisions import store_session
from pipelines.moments import second_of, when
from pipelines.sessions import sessions_of
from shared import entry, journal
from shared import settings as settings_module
from shared.errors import CrosscutError, NotEnoughData, SettingsError, TableEmpty
from shared.lake import read
from shared.lake.layout import paths_below
from shared.strategy.ranking import SAYS, Gate

AROUND_S = 10

_SAYS = {gate.name.lower(): sentence for gate, sentence in SAYS.items()}
_LEAF = "decisions-"


class Found:
    """A run whose decisions are in the table."""

    def __init__(self, source: str, run: str) -> None:
        self.source, self.run = source, run


def find_run(lake: Path, source: str | None, wanted: str) -> Found:
    """Return the run that a person means; a session that is not in the table yet is put there.

    Raises:
        NotEnoughData: nothing was decided yet, or nothing that is called so.
        SettingsError: several runs are called so.
    """
    stored: dict[tuple[str, str], float] = {}
    for path in paths_below(lake / "decisions", f"source={source or '*'}/date=*/hour=*/{_LEAF}*.parquet"):
        found = path.parts[-4].removeprefix("source="), path.stem.removeprefix(_LEAF)
        stored[found] = max(stored.get(found, 0.0), path.stat().st_mtime)
    sessions = {folder.name.removeprefix("session="): folder for folder in sessions_of(lake, source)}
    known = {run for _, run in stored}
    of_run = {run: age for (_, run), age in stored.items()}
    journaled = {name: (folder / journal.FILE_NAME).stat().st_mtime for name, folder in sessions.items()}
    waiting = {name: age for name, age in journaled.items() if age > of_run.get(name, 0.0)}  # or has gone on since
    if wanted == "last":
        ages = of_run | waiting
        names = [max(ages, key=lambda run: (ages[run], run))] if ages else []
    else:
        names = sorted(run for run in known | set(waiting) if run.startswith(wanted))
        names = [wanted] if wanted in names else names
    if not names:
        raise NotEnoughData(
            f"a run must be a backtest or a session of {source or 'any source'} in {lake}, found none "
            f"{'yet' if wanted == 'last' else f'called {wanted}'}: python -m pipelines.backtest makes one"
        )
    if len(names) > 1:
        raise SettingsError(f"a run must be named by what it alone begins with, found {', '.join(names[:4])}: say more")
    [name] = names
    if name in waiting:
        session, of_source, _, difference = store_session(lake, sessions[name])
        if difference is not None:
            print(f"session {session} {difference.sentence()}: nothing is known from there on", file=sys.stderr)
        return Found(of_source, session)
    return Found(next(of_source for of_source, run in stored if run == name), name)


def decisions_of(
    lake: Path, found: Found, *, symbol: str | None = None, start_s: int | None = None, end_s: int | None = None
) -> pl.LazyFrame:
    """Return decisions of a run, in no order.

    Raises:
        NotEnoughData: it has none in that time, or never heard of the symbol.
    """
    symbols = [symbol] if symbol is not None else None
    try:
        scan = read.scan(
            lake, "decisions", found.source, start_s=start_s, end_s=end_s, symbols=symbols, is_sorted=False
        )
        rows = scan.filter(pl.col("run") == found.run)
        is_empty = not read.collect(rows.select(pl.len())).item()
    except TableEmpty:
        is_empty = True
    if is_empty:
        span = f" between {when(start_s)} and {when(end_s)}" if start_s is not None and end_s is not None else ""
        raise NotEnoughData(
            f"run {found.run} must have decided about {symbol or 'something'}{span}, found nothing: "
            "ask for another --at, --run or symbol"
        )
    return rows


def at_moment(rows: pl.LazyFrame, second: int) -> list[str]:
    """Return what a person reads about one symbol at one time: the last decision up to then, and its surroundings."""
    frame = read.collect(rows.sort("second"))
    before = frame.filter(pl.col("second") <= second)
    row = (before if before.height else frame).row(-1 if before.height else 0, named=True)
    lines = [f"{row['symbol']} at {when(row['second'])}: {row['gate']}: {_SAYS[row['gate']]}", "  " + _figures(row)]
    counts = frame["gate"].value_counts(sort=True).sort(["count", "gate"], descending=[True, False])
    around = ", ".join(f"{gate} {n}" for gate, n in counts.iter_rows())
    lines.append(f"  {when(frame['second'][0])} to {when(frame['second'][-1])}: {around}")
    return lines


def _figures(row: dict[str, float]) -> str:
    side = {1: "long", -1: "short", 0: "no side"}[int(row["direction"])]
    if row["edge_bps"] != row["edge_bps"]:
        return "no score"
    return (
        f"score {side}, confidence {row['confidence']:.2f}, edge {row['edge_bps']:+.2f} bps; "
        f"round trip {row['cost_bps']:.2f} bps; net {row['net_bps']:+.2f} bps"
    )


def over_all(rows: pl.LazyFrame) -> list[str]:
    """Return what a person reads about many decisions: gates by share, and who came nearest without being chosen."""
    by_gate = rows.group_by("gate").agg(
        n=pl.len(), first=pl.col("second").min(), last=pl.col("second").max(), symbols=pl.col("symbol").unique()
    )
    counts = read.collect(by_gate).sort(["n", "gate"], descending=[True, False])
    total, symbols = counts["n"].sum(), counts["symbols"].explode().n_unique()
    lines = [
        f"{total:,} decisions about {symbols} symbol{'s' if symbols > 1 else ''}, "
        f"{when(min(counts['first']))} to {when(max(counts['last']))}"
    ]
    width = max(len(gate) for gate in counts["gate"])
    lines += [
        f"  {gate:<{width}}  {n / total:7.2%}  {n:>12,}  {_SAYS[gate]}"
        for gate, n in counts.select("gate", "n").iter_rows()
    ]
    is_missed = (pl.col("gate") != Gate.CHOSEN.name.lower()) & pl.col("net_bps").is_finite()
    nearest = rows.filter(is_missed).sort("net_bps", "second", "symbol", descending=[True, False, False])
    missed = read.collect(nearest.head(1))
    if missed.height:
        row = missed.row(0, named=True)
        lines.append(f"best that was not chosen: {row['symbol']} at {when(row['second'])}: {row['gate']}")
        lines.append("  " + _figures(row))
    return lines


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m pipelines.why",
        description="Say why a symbol was not traded: the first gate that said no, at a moment or over a run.",
    )
    p.add_argument("symbol", nargs="?", help="like BTCUSDT (default: everybody)")
    p.add_argument("--at", metavar="TIME", help="moment, UTC: 2026-11-22T08:03:20 or epoch seconds (default: all)")
    p.add_argument("--run", default="last", help="run id of a backtest, name of a session, or last (default)")
    p.add_argument("--source", help="only runs of this source")
    p.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        lake = settings_module.load(lake_uri=args.lake).lake
        at = second_of(args.at)
        found = find_run(lake, args.source, args.run)
        print(f"run {found.run} on {found.source}")
        if at is not None and args.symbol:
            frame = decisions_of(lake, found, symbol=args.symbol, start_s=at - AROUND_S, end_s=at + AROUND_S + 1)
            lines = at_moment(frame, at)
        elif at is not None:
            lines = over_all(decisions_of(lake, found, start_s=at, end_s=at + 1))
        else:
            lines = over_all(decisions_of(lake, found, symbol=args.symbol))
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    entry.run(main)
