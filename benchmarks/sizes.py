"""How large rows are on disk, of recorded real books: `python -m benchmarks.sizes FOLDER…`.

A folder is a recording (docs/recordings.md). Its rows are written as the lake writes a raw hour (by the same
writer), as books of 15 and of 5 levels and as trades, and compared with gzip of the frames that bring them on the wire.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from pathlib import Path

import polars as pl

from shared.lake import layout, sealed
from shared.simulator.ids import SNOWFLAKE_EPOCH_MS
from shared.types import BOOK_LEVELS


def book(path: Path, levels: int) -> pl.DataFrame:
    """Return a recording's books as rows of raw/book with so many levels."""
    frame = pl.read_parquet(path)
    columns: list[pl.Expr] = [
        pl.lit(path.name.split(".")[0]).alias("symbol"), pl.col("recv_ns"), pl.col("exch_ns"),
        pl.lit(0, pl.UInt8).alias("event"), pl.lit(123_456_789, pl.Int32).alias("conn"),
        # Bitget's numbers: about 1e12, growing by arbitrary steps.
        (10**12 + pl.int_range(pl.len()) * 1013 + pl.col("exch_ns") % 997).alias("seq"),
    ]  # fmt: skip
    for field in ("bid_price", "bid_size", "ask_price", "ask_size"):
        for k in range(1, BOOK_LEVELS + 1):
            absent = pl.lit(0.0 if field.endswith("size") else float("nan"))
            columns.append((pl.col(f"{field}_{k}") if k <= levels else absent).alias(f"{field}_{k}"))
    return frame.select(columns)


def trade(path: Path) -> pl.DataFrame:
    """Return a recording's trades as rows of raw/trade; ids as Bitget makes them: time and a counter."""
    ids = (pl.col("exch_ns") // 1_000_000 - SNOWFLAKE_EPOCH_MS) * 2**22 + pl.int_range(pl.len()) % 4096
    return pl.read_parquet(path).select(
        pl.lit(path.name.split(".")[0]).alias("symbol"), pl.col("recv_ns"), pl.col("exch_ns"),
        pl.lit(0, pl.UInt8).alias("event"), pl.lit(123_456_789, pl.Int32).alias("conn"),
        ids.alias("trade_id"),
        pl.col("price"), pl.col("size"), pl.col("side").cast(pl.Int8),
    )  # fmt: skip


def gzipped(frame: pl.DataFrame, levels: int) -> float:
    """Return the bytes a row of gzip over the frames on the wire, all in one stream."""
    lines = []
    for row in frame.iter_rows(named=True):
        arg = {"instType": "USDT-FUTURES", "channel": f"books{levels}" if levels else "trade", "instId": row["symbol"]}
        ts = str(row["exch_ns"] // 1_000_000)
        if levels:
            sides = {
                name: [
                    [f"{row[f'{side}_price_{k}']:.10g}", f"{row[f'{side}_size_{k}']:.10g}"]
                    for k in range(1, levels + 1)
                ]
                for name, side in (("asks", "ask"), ("bids", "bid"))
            }
            data = sides | {"ts": ts, "seq": row["seq"], "pseq": 0}
        else:
            data = {
                "ts": ts, "price": f"{row['price']:.10g}", "size": f"{row['size']:.10g}",
                "side": "buy" if row["side"] > 0 else "sell", "tradeId": str(row["trade_id"]),
            }  # fmt: skip
        lines.append(
            json.dumps({"action": "snapshot", "arg": arg, "data": [data], "ts": int(ts)}, separators=(",", ":"))
        )
    return len(gzip.compress("\n".join(lines).encode(), 6)) / frame.height


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folders", type=Path, nargs="*")
    args = p.parse_args()
    if not args.folders:
        print("sizes are measured of recorded real books only: name a folder of them (docs/recordings.md)")
    kinds = (("books15", "book", 15), ("books5", "book", 5), ("trade", "trades", 0))
    for folder in args.folders:
        for name, kind, levels in kinds:
            paths = sorted(folder.glob(f"*.{kind}.parquet"))
            if not paths:
                continue
            rows = pl.concat([book(path, levels) if levels else trade(path) for path in paths])
            table = "raw/book" if levels else "raw/trade"
            rows = rows.cast(pl.Schema(layout.TABLES[table].columns)).sort("symbol", "recv_ns", maintain_order=True)
            with tempfile.TemporaryDirectory() as temporary:
                path = Path(temporary) / "x.parquet"
                began_s = time.perf_counter()
                with sealed.Writer(path, table, rows.schema) as writer:
                    writer.append(rows)
                    writer.finish("recorded", 0, {})
                took_s = time.perf_counter() - began_s
                size = path.stat().st_size / rows.height
            print(
                f"{folder.name:24} {name:8} {rows.height:7,} rows  {size:6.1f} bytes a row, gzip of the frames "
                f"{gzipped(rows, levels):6.1f}; written at {rows.height / took_s / 1e3:,.0f} k rows/s"
            )


if __name__ == "__main__":
    main()
