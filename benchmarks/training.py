"""What a fit and a prediction cost, by size: `python -m benchmarks.training [--rows N] [--features F] [--folder DIR]`.

1. one fit of N rows x F features from a mapped file (as a dataset larger than memory is read), 3 classes x 100 trees x
   31 leaves, stopping switched off: seconds on the wall, CPU seconds, peak memory with and without the file's pages
2. one second's prediction of 800 rows on one thread, as live predicts, by number of trees and leaves: p50, p99

Targets: 2,000,000 x 80 in 300 s on two quiet cores; 20,000,000 x 80 in 8 GiB (`--rounds 5` shows it: memory does not
grow with rounds); 800 rows in 3 ms (p99). On a machine that others use, read CPU seconds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peak import Peak
from pipelines.boosting import fit, params_of, threads_of
from pipelines.rows import Dataset
from shared.labels import HORIZONS_S, Rule
from shared.types import Floats

SYMBOLS = 600
LIVE_ROWS = 800
CALLS = 300
SIZES = ((10, 15), (20, 15), (40, 15), (100, 15), (40, 31), (100, 31))


def made(folder: Path, rows: int, width: int) -> Dataset:
    """Return rows whose outcome follows the first features a little, the features in a file."""
    rng = np.random.Generator(np.random.Philox(1))
    features: NDArray[np.float32] = np.memmap(folder / "features.f32", np.float32, "w+", shape=(rows, width))
    moved = np.empty(rows)
    for start in range(0, rows, 100_000):
        block = rng.standard_normal((min(100_000, rows - start), width), np.float32)
        features[start : start + len(block)] = block
        pull = block[:, 0] + 0.5 * block[:, 1] * block[:, 2]
        moved[start : start + len(block)] = 9.0 * (0.3 * pull + rng.standard_normal(len(block)))
    second = np.arange(rows) // SYMBOLS
    return Dataset(
        source="benchmark",
        symbols=tuple(f"S{n}" for n in range(SYMBOLS)),
        feature_names=tuple(f"f{n}" for n in range(width)),
        absent=(),
        definition_hash="",
        rule=Rule(),
        lookback_s=30,
        second=second,
        symbol=(np.arange(rows) % SYMBOLS).astype(np.int32),
        features=features,
        label=np.select([moved > 13, moved < -13], [1, 2], 0).astype(np.int8),
        mid_bps=moved,
        moves_bps=np.zeros((0, len(HORIZONS_S)), np.float32),
        start_s=0,
        end_s=int(second[-1]) + 1,
        content_hash="",
    )


def fit_time(dataset: Dataset, threads: int, rounds: int) -> None:
    rows = np.arange(dataset.rows)
    stop = rows[-dataset.rows // 20 :]
    params = params_of("multiclass", seed=7, threads=threads) | {"num_leaves": 31}
    wall, cpu = time.perf_counter(), time.process_time()
    with Peak() as peak:
        fitted = fit(dataset, rows[: -dataset.rows // 20], stop, params, rounds_max=rounds, patience=rounds)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"fit        {dataset.rows:,} rows x {len(dataset.feature_names)} features, "
        f"{len(fitted.loss_fit)} rounds x 3 classes x 31 leaves, {threads} threads: {wall:.0f} s, {cpu:.0f} CPU s, "
        f"peak {peak.own_mib:,.0f} MiB of its own, {peak.mapped_mib:,.0f} with pages of the file "
        f"({dataset.features.nbytes / 2**20:,.0f} MiB)"
    )


def predict_times(width: int) -> None:
    import lightgbm

    rng = np.random.Generator(np.random.Philox(2))
    x = rng.standard_normal((20_000, width)).astype(np.float32)
    y = np.digitize(x[:, 0] + x[:, 1] * x[:, 2] + rng.standard_normal(len(x)), [-1.5, 1.5])
    live: NDArray[np.float32] = rng.standard_normal((LIVE_ROWS, width)).astype(np.float32)
    for trees, leaves in SIZES:
        params = {"objective": "multiclass", "num_class": 3, "num_leaves": leaves, "verbosity": -1, "max_bin": 63}
        booster = lightgbm.train(params, lightgbm.Dataset(x, y), trees)
        took = []
        for _ in range(CALLS):
            began = time.thread_time()
            booster.predict(live, num_threads=1)
            took.append(time.thread_time() - began)
        ms: Floats = np.array(took) * 1e3
        print(f"predict    {LIVE_ROWS} rows, 3 x {trees:>3} trees x {leaves} leaves: "
              f"p50 {np.median(ms):.2f} ms, p99 {np.quantile(ms, 0.99):.2f} ms of CPU")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--features", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=100, help="memory is at its largest after the first")
    parser.add_argument("--threads", type=int, default=threads_of(2))
    parser.add_argument("--folder", type=Path, help="where the file lies (default: a temporary folder)")
    args = parser.parse_args()
    predict_times(args.features)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        fit_time(made(Path(folder), args.rows, args.features), args.threads, args.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
