"""`python -m pipelines.search`: look for LightGBM's parameters, and count the looking.

Every trial learns from the first part of what the final fold may learn from (`fit`) and is judged on the last part of
it: the holdout, the stop block and the calibration block take no part, so that choosing among trials costs the holdout
nothing. Each trial is a run of MLflow on the source: `pipelines.trials` finds it there, and deflates by it.

At the end stand the best parameters, how likely it is that they are only the luckiest (CSCV over the minutes that all
trials were judged on), and with --train the model they give, trained and judged like any other.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from pipelines.boosting import Params, params_of, threads_of
from pipelines.dataset import build_dataset
from pipelines.evidence import Overfitting, overfitting
from pipelines.findings import by_minute
from pipelines.moments import when, window_of_text
from pipelines.prepare import prepare
from pipelines.resources import resolve_source
from pipelines.rows import Dataset
from pipelines.tracking import EXPERIMENT, MINUTES_FILE, Tracking, code_commit, lock_hash
from pipelines.train import SEED, summary, train_and_register
from pipelines.training import fit_fold, is_enough, judge_signal, require_labels, said_by
from pipelines.validation import Fold, RankIC, walk_forward
from shared import entry
from shared import settings as settings_module
from shared.errors import CrosscutError
from shared.types import Floats

BLOCKS = 16
TRIALS = 20


class Tried(msgspec.Struct, frozen=True):
    """One trial."""

    number: int
    params: Params
    ic: RankIC  # on the inner test block
    by_minute: Floats  # the same minute by minute
    run_id: str


class Searched(msgspec.Struct, frozen=True):
    """What a search ends in."""

    tried: tuple[Tried, ...]  # best first
    overfitting: Overfitting
    fold: Fold  # what all of them were judged on


def inner_fold(dataset: Dataset) -> Fold:
    """Return the split inside the final fold's fit block that trials are judged on.

    Raises:
        NotEnoughData: too few labels in it.
    """
    seconds = np.unique(dataset.second)
    distances = {"reach_s": dataset.rule.reach_s, "lookback_s": dataset.lookback_s}
    fit = walk_forward(seconds, **distances)[-1].fit
    require_labels(dataset, walk_forward(seconds, **distances)[-1])
    folds = walk_forward(seconds[fit.of(seconds)], **distances)
    usable = [fold for fold in folds if is_enough(dataset, fold)]
    if not usable:
        require_labels(dataset, folds[-1])
    return usable[-1]


def search(
    dataset: Dataset,
    tracking: Tracking,
    *,
    trials: int,
    seed: int,
    threads: int,
    on_progress: Callable[[str], None] = lambda line: None,
) -> Searched:
    """Try parameters, the first those that training uses by default; return them, best first.

    Raises:
        NotEnoughData: too few labels inside the fit block.
    """
    import optuna

    # As a warning it prints the traceback of whatever ends a trial, Ctrl-C too, before it raises it.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    fold = inner_fold(dataset)
    usual = params_of("multiclass", seed=seed, threads=threads)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial({name: usual[name] for name in _suggest(None)})
    tried: list[Tried] = []

    def judged(trial: Any) -> float:
        changes = _suggest(trial)
        model = fit_fold(dataset, fold, usual | changes, "multiclass")
        signal, _, _ = said_by(dataset, fold, model)
        rows = dataset.of(fold.test)
        ic = judge_signal(dataset, fold, signal).ic
        minute, by, spread = by_minute(dataset.second[rows], signal, dataset.mid_bps[rows])
        tags = {
            "source": dataset.source,
            "kind": "search",
            "market": "generated" if dataset.source.startswith("simulator-g") else "real",
            "commit": code_commit(),
            "lock_sha256": lock_hash(),
            "lake_hash": dataset.content_hash,
        }
        name = f"search {trial.number} {dataset.source}"
        with tracking.run(EXPERIMENT, name, tags) as run, tempfile.TemporaryDirectory() as temporary:
            run.log_params(
                usual | changes | {"judged_from": when(fold.test.start_s), "judged_to": when(fold.test.end_s)}
            )
            run.log_metrics(
                {"inner_rank_ic": ic.mean, "inner_rank_ic_se": ic.standard_error, "rounds": model.fitted.rounds}
            )
            frame = pl.DataFrame({"minute": minute, "rank_ic": by, "spread_bps": spread})
            frame.write_csv(Path(temporary) / MINUTES_FILE)
            run.log_folder(Path(temporary), "findings")
        tried.append(Tried(trial.number, changes, ic, by, run.run_id))
        on_progress(f"trial {trial.number}: rank IC {ic.mean:+.4f} ± {ic.standard_error:.4f} {changes}")
        return ic.mean if math.isfinite(ic.mean) else -1.0  # no order of symbols: worse than any

    study.optimize(judged, n_trials=trials)
    tried.sort(key=lambda one: (-one.ic.mean if math.isfinite(one.ic.mean) else math.inf, one.number))
    performance = np.nan_to_num(np.stack([one.by_minute for one in tried], axis=1))
    return Searched(tuple(tried), overfitting(np.unique(performance, axis=1), n_blocks=BLOCKS), fold)


def _suggest(trial: Any) -> Params:
    """Return one choice; of None, the names with any value."""
    if trial is None:
        return dict.fromkeys(("learning_rate", "num_leaves", "min_data_in_leaf", "feature_fraction", "lambda_l2"), 0)
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.3, log=True),
        "num_leaves": trial.suggest_int("num_leaves", 4, 31),
        "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 50, 2000, log=True),
        "feature_fraction": trial.suggest_float("feature_fraction", 0.2, 1.0),
        "lambda_l2": trial.suggest_float("lambda_l2", 0.1, 100.0, log=True),
    }


def words(searched: Searched) -> str:
    """Return what a person reads after a search."""
    best, usual = searched.tried[0], next(one for one in searched.tried if one.number == 0)
    chance = searched.overfitting.probability
    return "\n".join(
        [
            f"{len(searched.tried)} trials, judged on {when(searched.fold.test.start_s)} to "
            f"{when(searched.fold.test.end_s)}, inside what the final fold learns from",
            f"  best     rank IC {best.ic.mean:+.4f} ± {best.ic.standard_error:.4f}: {best.params}",
            f"  default  rank IC {usual.ic.mean:+.4f} ± {usual.ic.standard_error:.4f}",
            "  probability that the best is only the luckiest (CSCV over minutes): "
            + (
                f"{chance:.3f}"
                if math.isfinite(chance)
                else f"undefined (two trials and {2 * BLOCKS} minutes are needed)"
            ),
        ]
    )


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m pipelines.search",
        description="Look for LightGBM's parameters on a split inside what the final fold learns from. Every trial is "
        "a run of MLflow and counts against whatever is chosen afterwards.",
    )
    p.add_argument(
        "--trials", type=int, default=TRIALS, help=f"how many, the default parameters first (default: {TRIALS})"
    )
    p.add_argument("--train", action="store_true", help="train, judge and register a model with the best parameters")
    p.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    p.add_argument("--source", help="which source to learn from (default: that of MARKET, or the only one there is)")
    p.add_argument("--from", dest="start", help="first moment, like 2026-11-22T08:00, UTC (default: the first hour)")
    p.add_argument("--to", dest="end", help="end, exclusive (default: the last hour)")
    p.add_argument("--seed", type=int, default=SEED, help=f"of the search and of LightGBM (default: {SEED})")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    if args.trials < 1:
        print(f"--trials must be 1 at least, found {args.trials}: correct it", file=sys.stderr)
        return 2
    try:
        start_s, end_s = window_of_text(args.start, args.end)
        settings = settings_module.load(lake_uri=args.lake)
        source = resolve_source(settings.lake, args.source, settings)
        prepare(settings.lake, source, slippage_bps=settings.slippage_bps, on_progress=_say)
        dataset = build_dataset(settings.lake, source, start_s=start_s, end_s=end_s)
        tracking = Tracking(settings.tracking_uri)
        threads = threads_of(settings.num_threads)
        with tracking.told():
            searched = search(dataset, tracking, trials=args.trials, seed=args.seed, threads=threads, on_progress=_say)
            print(words(searched))
            if args.train:
                registered = train_and_register(
                    settings.lake,
                    dataset,
                    tracking,
                    seed=args.seed,
                    threads=threads,
                    slippage_bps=settings.slippage_bps,
                    books=str(settings.books),
                    changes=searched.tried[0].params,
                )
                print(summary(registered))
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    entry.run(main)
