"""`python -m pipelines.train`: train on what the lake holds, judge it, register the version.

What is registered is the model of the last fold: it has seen nothing of the holdout, so that the backtest on the
holdout judges the very bytes that live loads. (A model that is refitted on everything cannot be judged any more.)
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import polars as pl

from pipelines import drift, findings, pictures
from pipelines.boosting import OBJECTIVES, Objective, threads_of
from pipelines.dataset import build_dataset, manifest_of
from pipelines.moments import when, window_of_text
from pipelines.prepare import prepare
from pipelines.resources import resolve_source
from pipelines.rows import Dataset
from pipelines.tracking import (
    ALIAS,
    EXPERIMENT,
    MINUTES_FILE,
    MODEL,
    Tracking,
    code_commit,
    lock_hash,
    write_signature,
)
from pipelines.training import Trained, figures_of, fit_and_judge
from shared import entry
from shared import model as bundles
from shared import settings as settings_module
from shared.costs import taker_round_trip_bps
from shared.errors import CrosscutError
from shared.lake import read
from shared.model import Bundle, BundleCosts, Lineage
from shared.types import NS

SEED = 7


class Registered(msgspec.Struct, frozen=True):
    """A model version with what was found out about it."""

    version: int | None  # None: research only, not registered
    run_id: str
    digest: str  # SHA-256 of the booster's text
    source: str
    holdout_from_s: int
    holdout_to_s: int
    figures: dict[str, float]
    gain: dict[str, float]  # feature -> share of the total gain [1]
    objective: Objective


def train_and_register(
    lake: Path,
    dataset: Dataset,
    tracking: Tracking,
    *,
    seed: int,
    threads: int,
    slippage_bps: float,
    books: str,
    objective: Objective = "multiclass",
    changes: Mapping[str, str | int | float | bool] | None = None,
) -> Registered:
    """Train, judge, log the run, register its bundle where live could trade it.

    Args:
        books: the setting BOOKS, which recorder, trainer and live session share.
        objective: others than multiclass are logged and compared; they have no probabilities to be traded by, and are
            not registered.
        changes: of LightGBM's parameters.

    Raises:
        NotEnoughData: too few labels; nothing is logged.
    """
    trained = fit_and_judge(dataset, seed=seed, threads=threads, objective=objective, changes=changes)
    found = findings.look(dataset, trained)
    figures = figures_of(trained) | findings.figures_of(found)
    holdout = trained.folds[-1].test
    contracts = read.universe_at(lake, dataset.source, dataset.end_s * NS).contracts
    costs = BundleCosts(taker_fee=max(float(c.taker_fee) for c in contracts), slippage_bps=slippage_bps)
    name = f"{dataset.source} {when(dataset.start_s)}"
    version = None
    with tracking.run(EXPERIMENT, name, _tags(dataset, trained)) as run, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run.log_params(_params(dataset, trained, seed, costs))
        run.log_metrics(figures)
        run.log_metrics({f"gain_{feature}": share for feature, share in trained.gain.items()})
        run.log_curve("learning_fit", list(trained.fitted.loss_fit))
        run.log_curve("learning_stop", list(trained.fitted.loss_stop))
        _write_findings(folder, dataset, trained, found, costs)
        bundle = Bundle(
            features=dataset.feature_names,
            definition_hash=dataset.definition_hash,
            horizon_s=dataset.horizon_s,
            class_edge_bps=trained.class_edge_bps,
            costs=costs,
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
        digest = bundles.sha256(trained.booster)
        if objective == "multiclass":
            bundle = bundles.save(folder / "bundle", trained.booster, bundle)
            write_signature(folder, run.run_id, dataset.feature_names)
            drift.write_reference(folder / "bundle", drift.reference_of(dataset, trained.folds[-1]))
        else:
            (folder / "model.lgb").write_text(trained.booster, encoding="utf-8")
        run.log_folder(folder)
        if objective == "multiclass":
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
        digest=digest,
        source=dataset.source,
        holdout_from_s=holdout.start_s,
        holdout_to_s=holdout.end_s,
        figures=figures,
        gain=trained.gain,
        objective=objective,
    )


def _write_findings(
    folder: Path, dataset: Dataset, trained: Trained, found: findings.Findings, costs: BundleCosts
) -> None:
    """Write what is logged as files: tables, pictures, and the symbols learnt from and held out."""
    tables = folder / "findings"
    tables.mkdir()
    names = dataset.feature_names
    minutes = {"minute": found.minute, "rank_ic": found.ic, "spread_bps": found.spread_bps}
    pl.DataFrame(minutes).write_csv(tables / MINUTES_FILE)
    pl.DataFrame(
        {
            "feature": names,
            "gain": [trained.gain[name] for name in names],
            "shap": [found.shap[name] for name in names],
            "drift": [found.drift.get(name) for name in names],
        }
    ).write_csv(tables / "features.csv")
    universe = {"symbols": dataset.symbols, "held_out": dataset.held_out}
    (tables / "universe.json").write_bytes(msgspec.json.format(msgspec.json.encode(universe)))
    mark = " (generated market)" if dataset.source.startswith("simulator-g") else ""
    title = f"{dataset.source}{mark}, holdout {when(trained.folds[-1].test.start_s)} to {when(dataset.end_s)}"
    cost_bps = float(taker_round_trip_bps(0.0, costs.taker_fee, costs.slippage_bps))
    pictures.draw(folder / "pictures", trained, found, title=title, cost_bps=cost_bps)


def _tags(dataset: Dataset, trained: Trained) -> dict[str, str]:
    return {
        "source": dataset.source,
        "market": "generated" if dataset.source.startswith("simulator-g") else "real",
        "commit": code_commit(),
        "lock_sha256": lock_hash(),
        "lake_hash": dataset.content_hash,
        "universe_sha256": hashlib.sha256(",".join(dataset.symbols).encode()).hexdigest(),
        "objective": trained.objective,
        "kind": "training",
        "holdout": f"{when(trained.folds[-1].test.start_s)} to {when(trained.folds[-1].test.end_s)}",
    }


def _params(dataset: Dataset, trained: Trained, seed: int, costs: BundleCosts) -> dict[str, object]:
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
        "held_out": len(dataset.held_out),
        "unlearnable": ",".join(dataset.unlearnable(trained.folds[-1].fit)) or "none",
        **{f"label_{name}": value for name, value in msgspec.structs.asdict(dataset.rule).items()},
        "taker_fee": costs.taker_fee,
        "slippage_bps": costs.slippage_bps,
        "horizon_s": dataset.horizon_s,
        "lookback_s": dataset.lookback_s,
        "definition_hash": dataset.definition_hash,
        "content_hash": manifest.content_hash,
        "folds": len(trained.folds),
        "seed": seed,
    }


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
        f"registered {MODEL} version {registered.version}, alias {ALIAS}, trained on {registered.source}{mark}"
        if registered.version is not None
        else f"not registered: a model to trade must be multiclass, found {registered.objective}: it has no "
        f"probabilities to size positions by; logged as run {registered.run_id} on {registered.source}{mark}",
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
    if registered.version is not None:
        lines.append(f"judge it after costs: python -m pipelines.backtest --model {registered.version}")
    return "\n".join(lines)


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
    p.add_argument(
        "--objective", choices=OBJECTIVES, default="multiclass",
        help="what is learnt (default: multiclass; the others are logged and compared, and cannot be traded)",
    )  # fmt: skip
    p.add_argument("--seed", type=int, default=SEED, help=f"of LightGBM and of the null (default: {SEED})")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        start_s, end_s = window_of_text(args.start, args.end)
        settings = settings_module.load(lake_uri=args.lake)
        source = resolve_source(settings.lake, args.source, settings)
        prepare(settings.lake, source, slippage_bps=settings.slippage_bps, on_progress=_say)
        dataset = build_dataset(settings.lake, source, start_s=start_s, end_s=end_s)
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
                objective=args.objective,
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
