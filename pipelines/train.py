"""`python -m pipelines.train`: train on what the lake holds, judge it, register the version.

What is registered is the model of the last fold: it has seen nothing of the holdout, so that the backtest on the
holdout judges the very bytes that live loads. (A model that is refitted on everything cannot be judged any more.)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pipelines.boosting import threads_of
from pipelines.dataset import build_dataset, manifest_of
from pipelines.moments import second_of, when
from pipelines.prepare import prepare
from pipelines.resources import resolve_source
from pipelines.rows import Dataset
from pipelines.tracking import ALIAS, EXPERIMENT, MODEL, Run, Tracking, code_commit, lock_hash
from pipelines.training import Trained, figures_of, fit_and_judge
from shared import entry
from shared import model as bundles
from shared import settings as settings_module
from shared.errors import CrosscutError
from shared.lake import read
from shared.model import Bundle, BundleCosts, Lineage
from shared.types import NS

SEED = 7


class Registered(msgspec.Struct, frozen=True):
    """A model version with what was found out about it."""

    version: int
    run_id: str
    digest: str  # SHA-256 of the booster's text
    source: str
    holdout_from_s: int
    holdout_to_s: int
    figures: dict[str, float]
    gain: dict[str, float]  # feature -> share of the total gain [1]


def train_and_register(
    lake: Path, dataset: Dataset, tracking: Tracking, *, seed: int, threads: int, slippage_bps: float, books: str
) -> Registered:
    """Train, judge, log the run, register its bundle.

    Args:
        books: the setting BOOKS, which recorder, trainer and live session share.

    Raises:
        NotEnoughData: too few labels; nothing is logged.
    """
    trained = fit_and_judge(dataset, seed=seed, threads=threads)
    figures = figures_of(trained)
    holdout = trained.folds[-1].test
    universe = read.universe_at(lake, dataset.source, dataset.end_s * NS)
    name = f"{dataset.source} {when(dataset.start_s)}"
    with tracking.run(EXPERIMENT, name, _tags(dataset, trained)) as run:
        run.log_params(_params(dataset, trained, seed))
        run.log_metrics(figures)
        run.log_metrics({f"gain_{feature}": share for feature, share in trained.gain.items()})
        bundle = Bundle(
            features=dataset.feature_names,
            definition_hash=dataset.definition_hash,
            horizon_s=dataset.horizon_s,
            class_edge_bps=trained.class_edge_bps,
            costs=BundleCosts(
                taker_fee=max(float(contract.taker_fee) for contract in universe.contracts), slippage_bps=slippage_bps
            ),
            source=dataset.source,
            absent=dataset.absent,
            calibration=trained.calibration,
            lineage=Lineage(
                run_id=run.run_id,
                commit=code_commit(),
                lake_hash=dataset.content_hash,
                seed=seed,
                rows=sum(trained.label_counts),
                trained_from_s=trained.folds[-1].fit.start_s,
                trained_to_s=trained.folds[-1].calibrate.end_s,
                books=books,
            ),
        )
        bundle = _log_bundle(run, trained, bundle)
        version = tracking.register(
            run,
            tags={
                "source": dataset.source,
                "validation": bundle.gate,
                "sha256": bundle.booster_sha256,
                "holdout_from_s": str(holdout.start_s),
                "holdout_to_s": str(holdout.end_s),
            },
        )
    return Registered(
        version=version,
        run_id=run.run_id,
        digest=bundle.booster_sha256,
        source=dataset.source,
        holdout_from_s=holdout.start_s,
        holdout_to_s=holdout.end_s,
        figures=figures,
        gain=trained.gain,
    )


def _tags(dataset: Dataset, trained: Trained) -> dict[str, str]:
    return {
        "source": dataset.source,
        "market": "generated" if dataset.source.startswith("simulator-g") else "real",
        "commit": code_commit(),
        "lock_sha256": lock_hash(),
        "lake_hash": dataset.content_hash,
        "holdout": f"{when(trained.folds[-1].test.start_s)} to {when(trained.folds[-1].test.end_s)}",
    }


def _params(dataset: Dataset, trained: Trained, seed: int) -> dict[str, object]:
    manifest = manifest_of(dataset)
    return {
        **trained.params,
        "source": dataset.source,
        "start": when(dataset.start_s),
        "end": when(dataset.end_s),
        "rows": dataset.rows,
        "symbols": len(dataset.symbols),
        "features": len(dataset.feature_names),
        "absent": ",".join(dataset.absent) or "none",
        "horizon_s": dataset.horizon_s,
        "lookback_s": dataset.lookback_s,
        "definition_hash": dataset.definition_hash,
        "content_hash": manifest.content_hash,
        "folds": len(trained.folds),
        "seed": seed,
    }


def _log_bundle(run: Run, trained: Trained, bundle: Bundle) -> Bundle:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "bundle"
        bundle = bundles.save(folder, trained.booster, bundle)
        run.log_folder(folder, "bundle")
    return bundle


def summary(registered: Registered) -> str:
    """Return what a person reads after training."""
    f = registered.figures
    mark = " (generated market)" if registered.source.startswith("simulator-g") else ""

    def line(name: str, prefix: str) -> str:
        known = [
            f"{words} {f[prefix + key]:+.{digits}f} ± {f.get(prefix + key + '_se', float('nan')):.{digits}f}"
            for words, key, digits in (("rank IC", "rank_ic", 3), ("top less bottom tenth, bps", "spread_bps", 2))
            if prefix + key in f
        ]
        if f"{prefix}log_loss" in f:
            known.append(f"log loss {f[f'{prefix}log_loss']:.4f}")
        return f"  {name:<16} {', '.join(known) or 'no order of symbols (or fewer than three of them)'}"

    lines = [
        f"registered {MODEL} version {registered.version}, alias {ALIAS}, trained on {registered.source}{mark}",
        f"holdout {when(registered.holdout_from_s)} to {when(registered.holdout_to_s)}, never learnt from"
        + (f" (log loss of the class shares {f['log_loss_prior']:.4f}):" if "log_loss_prior" in f else ":"),
        line("model", ""),
        line("imbalance alone", "ols_"),
        line("ridge", "ridge_"),
        line("shuffled labels", "shuffled_"),
        line("shifted in time", "shifted_"),
    ]
    if "rank_ic_unseen" in f:
        lines.append(
            f"rank IC of symbols never learnt from {f['rank_ic_unseen']:+.3f}, of the others "
            f"{f.get('rank_ic_seen', float('nan')):+.3f}"
        )
    if "calibration_error" in f:
        lines.append(
            f"calibration error {f['calibration_error']:.4f} (of the trees' own probabilities "
            f"{f['calibration_error_raw']:.4f})"
        )
    return "\n".join([*lines, f"judge it after costs: python -m pipelines.backtest --model {registered.version}"])


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m pipelines.train",
        description="Train one pooled model on the features and labels of a source, judge it by purged walk-forward "
        "beside its baselines and nulls, log it to MLflow and register it with the alias 'challenger'. "
        "Seconds, features and labels that are missing or out of date are computed from the raw tables first.",
        epilog="Nothing is registered where there are too few labels: the message says how many there are and are "
        "needed.",
    )
    p.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    p.add_argument("--source", help="which source to learn from (default: that of MARKET, or the only one there is)")
    p.add_argument("--from", dest="start", help="first moment, like 2026-11-22T08:00, UTC (default: the first hour)")
    p.add_argument("--to", dest="end", help="end, exclusive (default: the last hour)")
    p.add_argument("--seed", type=int, default=SEED, help=f"of LightGBM and of the null (default: {SEED})")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        settings = settings_module.load(lake_uri=args.lake)
        source = resolve_source(settings.lake, args.source, settings)
        prepare(settings.lake, source, slippage_bps=settings.slippage_bps, on_progress=_say)
        dataset = build_dataset(settings.lake, source, start_s=second_of(args.start), end_s=second_of(args.end))
        tracking = Tracking(settings.tracking_uri)
        with tracking.told():
            registered = train_and_register(
                settings.lake,
                dataset,
                tracking,
                seed=args.seed,
                threads=threads_of(settings.num_threads),
                slippage_bps=settings.slippage_bps,
                books=str(settings.books),
            )
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(summary(registered))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    entry.run(main)
