"""`python -m pipelines.backtest`: judge a model on what it has not seen, beside its nulls, after all costs.

The window begins at the holdout of the model's run: everything before it was learnt from, or chose when to stop. What
comes out: DIR/trades.parquet, trades.csv, metrics.csv, report.html; in MLflow a run of `crosscut-backtests` for
the model and for each null, with the same metric keys; the trades in the lake, table `backtests`.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from pipelines import parity, provenance, trials
from pipelines.backtest_journal import JournalPlan
from pipelines.choices import changed, choices_of, one_each
from pipelines.exact.exchange import Assumptions, load
from pipelines.exact.session import NOT_EXACT, run_exact
from pipelines.moments import when, window_of_text
from pipelines.page import NOT_SIMULATED, Page, coverage_of, of_backtest, verdict
from pipelines.parity import Checked, parity_of
from pipelines.report import FILES, write_outputs, write_report
from pipelines.resources import resolve_source
from pipelines.run_metrics import outcome_metrics, page_metrics
from pipelines.simulation import Backtest, Outcome, run_backtest
from pipelines.told import NOT_CHECKED, Parity, ParityVerdict, Told
from pipelines.tracking import EXPERIMENT_BACKTESTS, MINUTES_FILE, Run, Tracking, code_commit, lock_hash
from pipelines.trades import trades_frame
from pipelines.trials import Trials
from pipelines.validation import LeakySplit
from shared import entry
from shared import model as bundles
from shared import settings as settings_module
from shared.errors import CrosscutError, SettingsError, TableEmpty
from shared.features.catalog import FEATURES
from shared.features.graph import definition_hash
from shared.journal import FILE_NAME, ModelNote
from shared.lake import read, write
from shared.lake.layout import HOUR_NS, HOUR_S
from shared.limits import config_of
from shared.settings import Settings
from shared.strategy.scores import CoinScorer, ModelScorer, RulesScorer, Scorer
from shared.types import OrderKind

STYLES = (OrderKind.MARKET.value, OrderKind.POST_ONLY.value)
SEED = 7

COMPARED_S = 1200
"""Seconds whose decisions are compared with live's: more than a block, whose border they cross. Of 600 symbols 15 CPU
seconds and, while they are compared, a journal of 45 MB."""

COMPARED_FOLDER = "compared"
"""Beside a report whose comparison failed: the journal, for whoever looks for the reason. One that was identical is not
kept: its SHA-256 is, and `pipelines.verify` writes it again."""

ALL, NONE = "all", "none"

MODEL = "model"
"""The line of the lineage that says what the gate said of the model, which it does after the backtest."""


class Candidate(msgspec.Struct, frozen=True):
    """What is to be judged, and from when on it has seen nothing."""

    scorer: Scorer
    name: str  # model version, "rules" or "coin"
    source: str | None  # what it was trained on; None: nothing was learnt
    holdout_from_s: int | None  # None: nothing was learnt
    training: dict[str, float]  # figures of its training run
    lineage: dict[str, str]
    training_run: str | None = None  # None: nothing was learnt
    digest: str | None = None  # SHA-256 of the booster's text; None: nothing was learnt
    bundle: ModelNote | None = None  # None: nothing was learnt
    bundle_folder: Path | None = None  # None: nothing was learnt


def candidate(wanted: str, tracking: Tracking, *, seed: int) -> Candidate:
    """Return `rules`, `coin`, or the registered model of a version, alias or `latest`.

    Raises:
        ModelMissing: no such version, or its files are gone.
        ModelMismatch: it was trained on other feature definitions, or altered.
    """
    names = tuple(FEATURES)
    if wanted == "rules":
        return Candidate(RulesScorer(names), wanted, None, None, {}, {MODEL: "rules, nothing learnt"})
    if wanted == "coin":
        return Candidate(CoinScorer(seed), wanted, None, None, {}, {MODEL: "coin, nothing learnt"})
    version = tracking.resolve(wanted)
    folder = tracking.bundle_folder(version)
    model = bundles.load(folder, definition_hash=definition_hash(FEATURES), feature_names=names)
    bundle, lineage = model.bundle, model.bundle.lineage
    known_s = version.tags.get("holdout_from_s")
    return Candidate(
        scorer=ModelScorer(model),
        name=str(version.version),
        source=bundle.source,
        holdout_from_s=int(known_s) if known_s else lineage.trained_to_s,
        training=dict(tracking.client.get_run(version.run_id).data.metrics),
        training_run=version.run_id,
        digest=bundle.booster_sha256,
        bundle=ModelNote(
            name=version.name,
            version=int(version.version),
            run_id=version.run_id,
            digest=bundle.booster_sha256,
            folder="model",
        ),
        bundle_folder=folder,
        lineage={
            MODEL: f"crosscut version {version.version}, gate: {bundle.gate}",
            "trained on": f"{bundle.source}, {lineage.rows:,} rows, "
            f"{when(lineage.trained_from_s)} to {when(lineage.trained_to_s)}",
            "training run": lineage.run_id,
            "lake, content hash": lineage.lake_hash,
            "code": lineage.commit,
            "booster, SHA-256": bundle.booster_sha256,
        },
    )


def judge(
    lake: Path,
    source: str,
    judged: Candidate,
    tracking: Tracking,
    *,
    settings: Settings,
    style: str,
    output: Path | None = None,
    start_s: int | None = None,
    end_s: int | None = None,
    seed: int = SEED,
    changes: Mapping[str, Any] | None = None,
    variants: Sequence[str] = (),
    assumptions: Assumptions | None = None,
    compared_s: int | None = COMPARED_S,
) -> tuple[Backtest, Path, str, Trials]:
    """Run the backtest and leave its files, its MLflow runs and its trades.

    Args:
        changes: fields of the configuration that differ from what the settings say; None: none does.
        variants: further scorers among which the bandit chooses, as in live.
        assumptions: of the exact tier; None: the screen tier.
        compared_s: seconds from the first on that are compared with what live would do; None: all, 0: none.

    Returns: (backtest, folder, run id, what was tried before).

    Raises:
        LeakySplit: the window asked for begins before the holdout.
        NotEnoughData, TableEmpty: the window is too short or was not recorded.
    """
    for folder in (lake,) if output is None else (lake, output):
        check_writable(folder)
    start_s, end_s = judged_window(lake, source, judged, start_s, end_s)
    commit = code_commit()  # once: somebody may commit, or check out, while it runs
    config = config_of(settings, horizon_s=judged.scorer.horizon_s, entry_kind=OrderKind(style))
    config = changed(config, {**(changes or {}), "variants": tuple(variants)})
    run_tier = run_backtest if assumptions is None else partial(run_exact, assumptions=assumptions)
    with tempfile.TemporaryDirectory(prefix="crosscut-compared-") as room:
        n_compared = end_s - start_s if compared_s is None else min(compared_s, end_s - start_s)
        plan = plan_of(Path(room), judged, seconds=n_compared, commit=commit)
        backtest = run_tier(
            lake,
            source,
            scorer=judged.scorer,
            config=config,
            start_s=start_s,
            end_s=end_s,
            seed=seed,
            holdout_from_s=judged.holdout_from_s,
            keeps_decisions=True,
            journaled=plan if plan.seconds else None,
        )
        checked = parity.check(plan.folder, lake=lake) if plan.seconds else None
        said = said_of(checked, end_s - start_s)
        params = {
            "model": judged.name,
            "source": source,
            "style": style,
            "start": when(start_s),
            "end": when(end_s),
            "seed": seed,
            "symbols": backtest.symbols,
            "tier": backtest.tier,
            **({"assumptions": backtest.assumptions} if backtest.assumptions else {}),
            **{name: value for name, value in msgspec.structs.asdict(config).items() if name != "symbols"},
        }
        tried = trials.find(
            tracking, source, trials.returns_of(backtest.main.equity_usdt, start_s), training_run=judged.training_run
        )
        run_ids: list[str] = []
        for outcome in (backtest.main, *backtest.nulls):
            is_main = outcome is backtest.main
            name = f"{outcome.name} {judged.name if outcome.name != judged.name else ''} on {source}".replace("  ", " ")
            tags = {
                "kind": outcome.name,
                "null": str(not is_main).lower(),
                "source": source,
                "market": "generated" if backtest.is_generated else "real",
                "commit": commit,
                "tier": backtest.tier,
            }
            if is_main:
                tags["parity"] = said.verdict.value
            if is_main and judged.training_run is not None:
                tags["training_run"] = judged.training_run
            if run_ids:
                tags["mlflow.parentRunId"] = run_ids[0]
            with tracking.run(EXPERIMENT_BACKTESTS, name, tags) as run:
                run_ids.append(run.run_id)
                run.log_params(params | {"kind": outcome.name})
                run.log_curve("equity_usdt", outcome.equity_usdt[::60].tolist())
                if not is_main:
                    run.log_metrics(outcome_metrics(outcome, start_s))
                    log_trades(run, outcome)
                    continue
                folder = output if output is not None else lake / "reports" / f"source={source}" / run.run_id
                noted = provenance.journal_digest(plan.folder) if plan.seconds else ""
                told = Told(
                    run=run.run_id,
                    training={name: provenance.defined(value) for name, value in judged.training.items()},
                    lineage=judged.lineage | {"this run": run.run_id, "code of the backtest": commit},
                    trials=tuple(trials.words(tried)),
                    coverage=coverage_of(lake, source, start_s, end_s),
                    parity=msgspec.structs.replace(said, command=keep_journal(plan.folder, folder, said.verdict)),
                    not_simulated=NOT_SIMULATED if assumptions is None else f"{NOT_EXACT} {backtest.assumptions}.",
                )
                stands_on = provenance.of_backtest(
                    lake,
                    backtest,
                    config,
                    model=judged.name,
                    model_digest=judged.digest,
                    commit=commit,
                    packages=lock_hash(),
                    told=told,
                    noted=noted,
                    compared_s=plan.seconds,
                    assumptions=assumptions,
                )
                run.log_metrics(trials.metrics_of(tried))
                leave(run, lake, folder, of_backtest(backtest, told, stands_on), backtest)
        return backtest, folder, run_ids[0], tried


def leave(run: Run, lake: Path, folder: Path, page: Page, backtest: Backtest) -> None:
    """Write the files of a report into its folder, its run and its trades and decisions into the lake."""
    write_outputs(folder, page.main, run.run_id)
    trials.write_returns(folder, trials.returns_of(page.main.equity_usdt, page.start_s))
    write_report(folder / "report.html", page)
    run.log_metrics(page_metrics(page))
    run.log_files([folder / name for name in (*FILES, MINUTES_FILE)], "backtest")
    write_trades(lake, page.source, page.main, run.run_id)
    if backtest.decisions is not None:
        backtest.decisions.store(lake, backtest.source, run.run_id)
        backtest.decisions.close()


def plan_of(room: Path, judged: Candidate, *, seconds: int, commit: str) -> JournalPlan:
    """Return where and how much of what the engine is told is noted, to be compared with live."""
    return JournalPlan(
        folder=room / COMPARED_FOLDER,
        seconds=seconds,
        model=judged.name,
        bundle=judged.bundle,
        bundle_folder=judged.bundle_folder,
        commit=commit,
    )


def keep_journal(found: Path, folder: Path, verdict: ParityVerdict) -> str:
    """Put a journal whose comparison failed beside the report; one of an earlier report in this folder goes.

    Returns: the command that compares again; "" where nothing was compared.
    """
    kept = folder / COMPARED_FOLDER
    if (kept / FILE_NAME).is_file():
        shutil.rmtree(kept)
    if verdict is ParityVerdict.DIFFERS:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(found, kept)
        return f"python -m pipelines.parity --session {kept}"
    return f"python -m pipelines.verify {folder}" if verdict is ParityVerdict.IDENTICAL else ""


def said_of(checked: Checked | None, window_s: int) -> Parity:
    """Return what the badge says of a comparison, and of how much it was made.

    Unlike a session's, the seconds of a backtest must be the lake's: it read them there.
    """
    if checked is None:
        return NOT_CHECKED
    share = "All" if checked.seconds >= window_s else f"The first {checked.seconds:,}"
    what = (
        f"{share} of {window_s:,} seconds told again to a fresh engine, which computes features and scores second by "
        "second, as live does; research computes them in other blocks: "
    )
    said = parity_of(checked, command="", what=what)
    other = {one.column: one.mismatched + one.missing + one.extra for one in checked.beside or () if one.share}
    if not other:
        return said
    return msgspec.structs.replace(
        said,
        verdict=ParityVerdict.DIFFERS,
        mismatches=said.mismatches + sum(other.values()),
        sentence=f"{said.sentence} Its seconds are not the lake's: {sum(other.values()):,} values differ, most in "
        f"{max(other, key=lambda column: other[column])}.",
    )


def judged_window(
    lake: Path, source: str, judged: Candidate, start_s: int | None, end_s: int | None
) -> tuple[int, int]:
    """Return the seconds that a candidate may be judged on, cut to what was asked for.

    Raises:
        LeakySplit: the window asked for begins before the holdout.
        TableEmpty: nothing is stored.
    """
    boundary = judged.holdout_from_s
    if boundary is not None and start_s is not None and start_s < boundary:
        raise LeakySplit(
            f"a backtest must begin at the holdout, {when(boundary)}, found --from {when(start_s)} "
            f"(model {judged.name} has learnt from what lies before it): leave --from out, or train on less (--to)"
        )
    return window_of(lake, source, start_s if start_s is not None else boundary, end_s)


def check_writable(folder: Path) -> None:
    """Make a folder and see that files can be put there, before anything is computed for it.

    Raises:
        SettingsError: it is a file, or of somebody else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        found = "a file of this name" if isinstance(error, FileExistsError) else error.strerror
        raise SettingsError(
            f"files must be writable in {folder}, found: {found}: free it, or choose other --out or --lake"
        ) from None


def window_of(lake: Path, source: str, start_s: int | None, end_s: int | None) -> tuple[int, int]:
    """Return [first, last + 1) of the seconds stored, cut to what was asked for.

    Raises:
        TableEmpty: there are none, or none in the window.
    """
    hours = read.hours(lake, "seconds", source)
    if not hours:
        raise TableEmpty(
            f"seconds of {source} are needed in {lake}, found none: materialise seconds first (make ui), "
            "after python -m pipelines.generate"
        )
    frame = read.collect(
        pl.concat(
            read.scan(lake, "seconds", source, start_s=hour * HOUR_S, end_s=(hour + 1) * HOUR_S, is_sorted=False)
            for hour in {hours[0], hours[-1]}
        ).select(first=pl.col("second").min(), last=pl.col("second").max())
    )
    first, last = int(frame["first"][0]), int(frame["last"][0]) + 1
    start_s, end_s = first if start_s is None else start_s, last if end_s is None else end_s
    if start_s >= last or end_s <= first:
        raise TableEmpty(
            f"seconds of {source} are needed from {when(start_s)} to {when(end_s)}, found those from {when(first)} to "
            f"{when(last)} in {lake}: choose --from and --to in between, or record that window"
        )
    return max(first, start_s), min(last, end_s)


def log_trades(run: Run, outcome: Outcome) -> None:
    """Keep the trades of a null with its run: the gate asks what it earned before costs."""
    with tempfile.TemporaryDirectory() as temporary:
        trades_frame(outcome.trades, run.run_id).write_parquet(Path(temporary) / "trades.parquet")
        run.log_folder(Path(temporary), "backtest")


def write_trades(lake: Path, source: str, outcome: Outcome, run: str) -> None:
    """Store the trades in the lake's table, one file an hour of exit."""
    frame = trades_frame(outcome.trades, run)
    for (hour,), rows in frame.group_by(pl.col("exit_ns") // HOUR_NS):
        assert isinstance(hour, int)
        write.write_table(lake, "backtests", source, hour, rows, {"run": run}, part=run)


def summary(backtest: Backtest, folder: Path, tried: Trials) -> str:
    """Return what a person reads after a backtest, net after costs first."""
    mark = " (generated market)" if backtest.is_generated else ""
    boundary = f", out of sample from {when(backtest.holdout_from_s)}" if backtest.holdout_from_s is not None else ""
    lines = [
        f"net {backtest.main.metrics['net_pnl_usdt']:+,.2f} USDT after all costs{mark}",
        verdict(backtest),
        f"{backtest.source}, {when(backtest.start_s)} to {when(backtest.end_s)}{boundary}",
    ]
    if not math.isnan(backtest.ic.mean):
        lines.append(f"rank IC {backtest.ic.mean:+.3f} ± {backtest.ic.standard_error:.3f}")
    said = provenance.read_report(folder).told.parity
    lines += [*trials.words(tried), said.sentence if said.verdict is ParityVerdict.DIFFERS else said.badge]
    return "\n".join([*lines, f"report: {folder / 'report.html'}"])


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m pipelines.backtest",
        description="Run a model through the live engine against the simulated venue, on seconds that it has not seen, "
        "with its nulls (coin, shuffled scores) beside it. Writes trades.parquet, trades.csv, metrics.csv and "
        "report.html, and a run per outcome into MLflow.",
    )
    p.add_argument("--model", default="latest", help="latest, a version, an alias, rules or coin (default: latest)")
    p.add_argument("--style", choices=STYLES, default="market", help="how positions are entered (default: market)")
    p.add_argument(
        "--tier", choices=("screen", "exact"), default="screen",
        help="screen: from the lake's seconds, a second of latency; exact: from its raw ticks, with latencies, queues "
        "and impact (docs/backtest.md; default: screen)",
    )  # fmt: skip
    p.add_argument(
        "--assumptions", type=Path, metavar="FILE",
        help="latencies, queue, impact and fee tiers of the exact tier, JSON as python -m pipelines.exact.measured "
        "writes it (default: those of docs/backtest.md)",
    )  # fmt: skip
    p.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    p.add_argument("--source", help="which seconds to run over (default: the model's own source)")
    p.add_argument("--from", dest="start", help="first moment, not before the holdout (default: the holdout)")
    p.add_argument("--to", dest="end", help="end, exclusive (default: the last second)")
    p.add_argument(
        "--out", "--output", dest="output", type=Path, metavar="DIR",
        help="where files go (default: reports/ in the lake)",
    )  # fmt: skip
    p.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="FIELD=VALUE",
        help="a field of the configuration, instead of what the settings say; again for another",
    )  # fmt: skip
    p.add_argument(
        "--variant", dest="variants", action="append", default=[], metavar="SCORER",
        help="a further scorer, rules or rules/30s; again for another: the bandit chooses among them, as in live.run",
    )  # fmt: skip
    p.add_argument(
        "--compare", default=str(COMPARED_S), metavar="SECONDS",
        help="how many of the first seconds are compared with what live would do, all or none (default: "
        f"{COMPARED_S})",
    )  # fmt: skip
    p.add_argument("--seed", type=int, default=SEED, help=f"of the engine and the coin (default: {SEED})")
    return p


def compared_of(text: str) -> int | None:
    """Return how many seconds are to be compared, None for all of them.

    Raises:
        SettingsError: it is no number of them.
    """
    if text in (ALL, NONE):
        return None if text == ALL else 0
    if not text.isdecimal():
        raise SettingsError(
            f"--compare must be a number of seconds, {ALL} or {NONE}, found {text!r}: give one of these"
        )
    return int(text)


def assumptions_of(tier: str, path: Path | None) -> Assumptions | None:
    """Return what the tier takes for granted, None for the screen tier.

    Raises:
        SettingsError: assumptions for a tier that has none, or a file that is none.
    """
    if tier == "exact":
        return Assumptions() if path is None else load(path)
    if path is not None:
        raise SettingsError(f"--assumptions are those of the exact tier, found --tier {tier}: add --tier exact")
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        changes = one_each(choices_of(args.changes))
        settings = settings_module.load(lake_uri=args.lake)
        tracking = Tracking(settings.tracking_uri)
        start_s, end_s = window_of_text(args.start, args.end)
        assumptions = assumptions_of(args.tier, args.assumptions)
        compared_s = compared_of(args.compare)
        with tracking.told():
            judged = candidate(args.model, tracking, seed=args.seed)
            source = resolve_source(settings.lake, args.source or judged.source, settings)
            backtest, folder, _, tried = judge(
                settings.lake,
                source,
                judged,
                tracking,
                settings=settings,
                style=args.style,
                output=args.output,
                start_s=start_s,
                end_s=end_s,
                seed=args.seed,
                changes=changes,
                variants=args.variants,
                assumptions=assumptions,
                compared_s=compared_s,
            )
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(summary(backtest, folder, tried))
    return 0


if __name__ == "__main__":
    entry.run(main)
