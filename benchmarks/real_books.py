"""What the catalog says on real order books: `python -m benchmarks.real_books RECORDING [--train 0.667]`.

RECORDING is a folder of docs/recordings.md. It goes the whole road (decoder, log, sampler, features, labels, dataset)
in a folder that is removed. Then one split in time: what lies before the border is learnt from, less the gap that
labels and features need; what lies behind it is judged once. Returns are those of the mid from the first price that
could be had, a second after the decision, and beside it from the price of the moment, which nobody gets (delay 0); in
units of each symbol's own deviation before the border, so that no symbol is the whole of a panel.

    ols        one feature, the imbalance of the touch, or of the top five levels
    ridge      all features; the penalty is chosen on the last tenth before the border
    trees      regression as training makes it; the number of trees is chosen there, too
    null       trees on outcomes permuted within each symbol

R² is against no opinion; its error is the deviation over 2,000 bootstraps of blocks of 120 s. IC is the rank
correlation across symbols, averaged over seconds, with the error of block means.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from pipelines import baselines
from pipelines.boosting import fit, params_of, predict, threads_of
from pipelines.dataset import build_dataset
from pipelines.generate import generate
from pipelines.prepare import prepare
from pipelines.rows import Dataset
from pipelines.validation import Fold, RankIC, Span, gap_s, rank_ic
from shared.labels import ENTRY_DELAY_S, HORIZONS_S
from shared.lake import read
from shared.simulator.markets.recorded import RecordedMarket
from shared.types import NS, Floats, Ints

ANCHOR_S = 1_757_000_000 // 3600 * 3600 + 1800
BLOCK_S = 120
BOOTSTRAPS = 2_000
STOP_SHARE = 0.1
SEED = 7


def dataset_of(folder: Path, lake: Path) -> tuple[Dataset, Floats]:
    """Return every labelled row of a recording, and the mid of every second and symbol, (T, N) from `start_s` on."""
    market = RecordedMarket(folder, ANCHOR_S * NS)
    end_s = market.first_second + market.length_s
    generate(market, lake, market.first_second, end_s)
    prepare(lake, market.source, slippage_bps=2.0)
    found = build_dataset(lake, market.source)
    quotes = ("bid_price_1", "ask_price_1")
    seconds = read.read_seconds(lake, market.source, found.start_s, end_s, found.symbols, quotes).columns
    return found, (seconds[quotes[0]] + seconds[quotes[1]]) / 2.0


def split(dataset: Dataset, train: float) -> Fold:
    """Return the one fold: learn, stop, judge."""
    gap = gap_s(dataset.rule.reach_s, dataset.lookback_s)
    border = dataset.start_s + round(train * (dataset.end_s - dataset.start_s))
    learnt_s = border - gap - dataset.start_s
    stop = Span(border - gap - round(STOP_SHARE * learnt_s), border - gap)
    empty = Span(border, border)
    return Fold(Span(dataset.start_s, stop.start_s - gap), stop, empty, Span(border, dataset.end_s))


def moves(dataset: Dataset, mid: Floats, horizon_s: int, delay_s: int) -> Floats:
    """Return what each row's mid does over a horizon that begins so long after the row, bps; NaN beyond the end."""
    if delay_s == ENTRY_DELAY_S:
        return dataset.moves_bps[:, HORIZONS_S.index(horizon_s)].astype(np.float64)
    begin = dataset.second - dataset.start_s + delay_s
    end = begin + horizon_s
    is_there = end < len(mid)
    begin, end = np.where(is_there, begin, 0), np.where(is_there, end, 0)
    moved: Floats = np.where(is_there, mid[end, dataset.symbol] / mid[begin, dataset.symbol] - 1.0, np.nan) * 1e4
    return moved


def scaled(dataset: Dataset, fold: Fold, moved: Floats) -> Dataset:
    """Return the dataset with these returns in deviations of each symbol before the border."""
    before = dataset.second < fold.stop.end_s
    width = np.array([np.nanstd(moved[before & (dataset.symbol == n)]) for n in range(len(dataset.symbols))])
    return msgspec.structs.replace(dataset, mid_bps=moved / width[dataset.symbol])


def with_error(second: Ints, signal: Floats, moved: Floats) -> tuple[float, float]:
    """Return R² against zero and its standard error by a bootstrap of blocks."""
    known = np.isfinite(signal) & np.isfinite(moved)
    block = (second[known] - second.min()) // BLOCK_S
    power = np.bincount(block, weights=moved[known] ** 2)
    left = np.bincount(block, weights=(moved[known] - signal[known]) ** 2)
    drawn = np.random.default_rng(SEED).integers(0, len(power), (BOOTSTRAPS, len(power)))
    return 1.0 - float(left.sum() / power.sum()), float((1.0 - left[drawn].sum(1) / power[drawn].sum(1)).std())


def signals(dataset: Dataset, fold: Fold) -> dict[str, Floats]:
    """Return what each method says of the test rows."""
    rows, stop = dataset.learnable(fold.fit), dataset.learnable(fold.stop)
    test = np.arange(*dataset.of(fold.test).indices(dataset.rows))
    rows, stop = (some[np.isfinite(dataset.mid_bps[some])] for some in (rows, stop))
    found = {"ridge, all features": baselines.ridge(dataset, fold)}
    for feature in ("imbalance_1", "imbalance_5"):
        said = baselines.ols(dataset, fold, feature)
        assert said is not None, f"a recording of books has {feature}"
        found[f"ols, {feature}"] = said

    # Deviations of before the border are the scale already: the regression's own would be the second.
    plain = msgspec.structs.replace(dataset, absent=(*dataset.absent, "volatility_30s"))
    params = params_of("regression", seed=SEED, threads=threads_of(2))
    for title, shuffled in (
        ("trees, all features", None),
        ("null: trees, permuted outcomes", baselines.shuffled(dataset, fold, SEED)),
    ):
        fitted = fit(plain, rows, stop, params, objective="regression", shuffled=shuffled)
        found[title] = predict(fitted, plain, test)
    return found


class Judged(NamedTuple):
    """What one method said of what followed the border."""

    horizon_s: int
    delay_s: int
    method: str
    r2: float
    r2_error: float
    ic: RankIC


def judged(dataset: Dataset, mid: Floats, fold: Fold) -> Iterator[Judged]:
    """Yield every method at a second and at ten, without delay and with it."""
    for horizon_s, delay_s in product((1, 10), (0, ENTRY_DELAY_S)):
        of_horizon = scaled(dataset, fold, moves(dataset, mid, horizon_s, delay_s))
        rows = of_horizon.of(fold.test)
        second, moved = of_horizon.second[rows], of_horizon.mid_bps[rows]
        for method, signal in signals(of_horizon, fold).items():
            ic = rank_ic(second, signal, moved, block_s=BLOCK_S)
            yield Judged(horizon_s, delay_s, method, *with_error(second, signal, moved), ic)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("recording", type=Path)
    p.add_argument("--train", type=float, default=2 / 3, help="share of the time before the border (default: 2/3)")
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="books-") as lake:
        dataset, mid = dataset_of(args.recording, Path(lake))
    fold = split(dataset, args.train)
    print(
        f"{', '.join(dataset.symbols)}: {dataset.rows:,} rows; learnt {fold.fit.seconds} s, stopped on "
        f"{fold.stop.seconds} s, judged on {fold.test.seconds} s; never learnt: {', '.join(dataset.held_out) or 'none'}"
    )
    print(f"{'horizon':>8}  {'delay':>6}  {'method':32} {'R²':>15}  {'rank IC':>15}")
    for found in judged(dataset, mid, fold):
        print(
            f"{found.horizon_s:>6} s  {found.delay_s:>4} s  {found.method:32} {found.r2:+.3f} ± {found.r2_error:.3f}  "
            f"{found.ic.mean:+.3f} ± {found.ic.standard_error:.3f}"
        )


if __name__ == "__main__":
    main()
