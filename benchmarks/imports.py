"""What an import of Tardis' files costs: `python -m benchmarks.imports [--books 20000]`.

Books ten times a second of one symbol, whose sizes change by a third from one to the next, as book_snapshot_25 and as
incremental_book_L2 of both eras. CPU a book, reading, logging and sealing included; a day of a symbol is 864,000 books.
Memory is the growth of this process's peak over that of an import of a tenth, which is the first to run.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipelines.imports import landing
from pipelines.imports.__main__ import parts_of
from pipelines.imports.tardis import receipts

START_US = 497_000 * 3_600_000_000
STEP_US = 100_000
LEVELS = 15
HEAD = "exchange,symbol,timestamp,local_timestamp"
Book = dict[tuple[str, float], float]  # (side, price) -> amount, best first


def books(n: int) -> Iterator[tuple[int, Book]]:
    """Yield (µs, book) of a price that walks by ticks."""
    rng = np.random.default_rng(1)
    mid, sizes = 10_000, rng.integers(1, 1000, 2 * LEVELS)
    for k in range(n):
        mid += int(rng.integers(-1, 2))
        sizes = np.where(rng.random(2 * LEVELS) < 1 / 3, rng.integers(1, 1000, 2 * LEVELS), sizes)
        sides = [("ask", mid + 1 + level) for level in range(LEVELS)] + [
            ("bid", mid - level) for level in range(LEVELS)
        ]
        yield START_US + k * STEP_US, {(s, p / 10): q / 10 for (s, p), q in zip(sides, sizes.tolist(), strict=True)}


def snapshots(n: int) -> Iterator[str]:
    names = [f"{side}s[{k}].{what}" for k in range(25) for side in ("ask", "bid") for what in ("price", "amount")]
    yield f"{HEAD},{','.join(names)}\n"
    blank = "," * 4 * (25 - LEVELS)
    for us, book in books(n):
        levels = [f"{price},{amount}" for (_, price), amount in book.items()]
        pairs = ",".join(f"{ask},{bid}" for ask, bid in zip(levels[:LEVELS], levels[LEVELS:], strict=True))
        yield f"bitget-futures,XUSDT,{us - 5000},{us},{pairs}{blank}\n"


def levels_of(n: int, *, is_whole: bool) -> Iterator[str]:
    yield f"{HEAD},is_snapshot,side,price,amount\n"
    last: Book = {}
    for us, book in books(n):
        is_first = is_whole or not last
        gone = {} if is_first else dict.fromkeys(last.keys() - book.keys(), 0.0)
        for (side, price), amount in (gone | book).items():
            if is_first or last.get((side, price)) != amount:
                word = "true" if is_first else "false"
                yield f"bitget-futures,XUSDT,{us - 5000},{us},{word},{side},{price},{amount}\n"
        last = book


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--books", type=int, default=20_000)
    n = parser.parse_args().books
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for kind, size, lines in (
            ("warm-up", n // 10, snapshots(n // 10)),
            ("book_snapshot_25", n, snapshots(n)),
            ("incremental_book_L2, whole books", n, levels_of(n, is_whole=True)),
            ("incremental_book_L2, changes", n, levels_of(n, is_whole=False)),
        ):
            path = root / f"{kind.replace(' ', '-')}.csv.gz"
            with gzip.open(path, "wt") as file:
                file.writelines(lines)
            before_mb, began_s, wall_s = peak_mb(), time.process_time(), time.perf_counter()
            landing.land(root / kind, "import-bench", parts_of("tardis", [path]), receipts)
            cpu_s = time.process_time() - began_s
            row = {
                "kind": kind,
                "books": size,
                "books_per_cpu_s": round(size / cpu_s),
                "wall_s": round(time.perf_counter() - wall_s, 1),
                "peak_grew_mb": round(peak_mb() - before_mb),
                "lake_bytes_per_book": round(
                    sum(p.stat().st_size for p in (root / kind).rglob("book.parquet")) / size, 1
                ),
            }
            print(json.dumps(row))


if __name__ == "__main__":
    main()
