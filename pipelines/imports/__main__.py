"""`python -m pipelines.imports tardis|bitget FILES…`: history of others into the lake."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.imports import bitget, files, landing, tardis
from pipelines.imports.files import Kind, Part
from shared import entry, settings
from shared.errors import CrosscutError, SettingsError
from shared.lake import layout

_SUFFIXES = (".csv", ".gz", ".zip", ".xlsx")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m pipelines.imports",
        description="Import downloaded history of Bitget's USDT-M futures: Tardis.dev's CSV files of bitget-futures "
        "(trades, book_snapshot_5, book_snapshot_25, incremental_book_L2, quotes, book_ticker, derivative_ticker), or "
        "what Bitget itself offers (trades, depth, 1 minute kline). Files may be gzip, zip or plain; a folder stands "
        "for all below it. Importing the same file again changes nothing. Afterwards everything that runs on "
        "recorded ticks runs on the source that this names. Progress goes to stderr, the last line on stdout is JSON.",
    )
    p.add_argument("format", choices=("tardis", "bitget"))
    p.add_argument("files", nargs="+", type=Path, metavar="FILES")
    p.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    p.add_argument("--source", help="where it goes (default: import-tardis-bitget-futures or import-bitget)")
    p.add_argument("--symbol", default="", help="of Bitget's files whose name does not tell it")
    p.add_argument("--rules", default="", help="a source of the lake whose contracts count, e.g. bitget (default: "
                   "tick and step as the ticks show them)")  # fmt: skip
    return p


def parts_of(format_: str, paths: Sequence[Path], symbol: str = "") -> list[Part]:
    """Return what the files hold; one that is empty, as for a day without data, holds nothing.

    Raises:
        SettingsError: a file is none of the format's.
    """
    found: list[Part] = []
    for path in dict.fromkeys(below for given in paths for below in _below(given)):
        for member in files.members(path):
            columns, row = files.header(path, member)
            if not columns or not row:
                say(f"{path}: empty")
                continue
            name = f"{path}:{member}" if member else str(path)
            kind: Kind
            if format_ == "tardis":
                kind, whose, first = tardis.recognise(name, columns, row)
            else:
                kind, whose, first = bitget.recognise(path, member, columns, row, symbol)
            found.append(Part(path=path, member=member, kind=kind, symbol=whose, first=first))
    return found


def _below(path: Path) -> list[Path]:
    if not path.is_dir():
        if path.is_file() and path.suffix.lower() not in _SUFFIXES:
            raise SettingsError(
                f"{path} must be a file that ends in {', '.join(_SUFFIXES)}, found another ending: "
                "give the publisher's own file"
            )
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES)
    if not found:
        raise SettingsError(f"{path} must hold {', '.join(_SUFFIXES)} files, found none: check the folder")
    return found


def run(args: argparse.Namespace) -> list[landing.Landed]:
    lake = settings.load(lake_uri=args.lake).lake
    source = args.source or {"tardis": f"import-tardis-{tardis.EXCHANGE}", "bitget": "import-bitget"}[args.format]
    if not layout.check_name(source, "source").startswith("import-"):
        raise SettingsError(
            f"--source must begin with import-, found {source}: imports are never mixed with recordings"
        )
    parts = parts_of(args.format, args.files, args.symbol)
    feed = [part for part in parts if part.kind.channel != "candle"]
    done = []
    if feed:
        receipts = tardis.receipts if args.format == "tardis" else bitget.receipts
        done.append(landing.land(lake, source, feed, receipts, rules=args.rules, say=say))
    if len(feed) < len(parts):
        frames = (bitget.candles(part) for part in parts if part.kind.channel == "candle")
        done.append(landing.land_candles(lake, source, itertools.chain.from_iterable(frames), say))
    return done


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        done = run(args)
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        say("stopped: run the same command again, what was read twice is stored once")
        return entry.INTERRUPTED
    rows: dict[str, int] = {}
    for landed in done:
        rows |= landed.rows
    summary = {
        "command": "imports",
        "source": done[0].source if done else None,
        "symbols": sorted({symbol for landed in done for symbol in landed.symbols}),
        "rows": rows,
        "hours": [layout.hour_name(hour) for hour in sorted({hour for landed in done for hour in landed.hours})],
    }
    print(json.dumps(summary, ensure_ascii=False))
    return 0


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    entry.run(main)
