"""`python -m pipelines.sweep`: many configurations over one window, whose features and scores are computed once.

Every configuration is the live engine with a venue of its own (`pipelines.simulation`); what they share are the
features and the scores, which cost most, and the seconds of a pass. Each is a run of MLflow and counts as a trial: what
the best of them is worth is deflated by all of them, and by everything that was tried on the source before.

    --grid top_k=5,10 --grid confidence_min=0.4,0.5,0.6        every combination, in one pass
    --grid confidence_min=0.35..0.7 --trials 24                searched by Optuna, eight configurations a pass

Nothing is chosen for you: the table says what the best one would have earned *after* it was the best of so many. To
look at one closer, give its values to `pipelines.backtest --set`.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from pipelines import trials
from pipelines.backtest import SEED, STYLES, Candidate, candidate, judged_window
from pipelines.choices import Between, Choice, changed, choices_of, grid_of, typed
from pipelines.kept_scores import KeptScores
from pipelines.moments import when, window_of_text
from pipelines.resources import resolve_source
from pipelines.run_metrics import outcome_metrics
from pipelines.simulation import (
    EQUITY_USDT,
    Outcome,
    Run,
    Simulation,
    check_window,
    drive,
    first_prices,
    others_of,
    own_scores,
)
from pipelines.tracking import EXPERIMENT_BACKTESTS, Tracking, code_commit
from pipelines.trades import metrics_of, net_bps, trades_frame
from pipelines.trials import Trials
from shared import entry
from shared import settings as settings_module
from shared.errors import CrosscutError, SettingsError
from shared.lake import read
from shared.limits import config_of
from shared.strategy.config import EngineConfig
from shared.strategy.sizing import check_affordable
from shared.types import NS, OrderKind

AT_ONCE = 8
"""Configurations that Optuna is asked for at a time: each pass reads the window's seconds anew."""


class Tried(msgspec.Struct, frozen=True):
    """One configuration and what became of it."""

    number: int
    changes: dict[str, Any]
    config: EngineConfig | None  # None: refused before it began
    outcome: Outcome | None  # None: it has none
    why: str = ""  # where it has none

    @property
    def worth(self) -> float:
        """Return what configurations are ordered by: Sharpe of a minute; -inf where it is not defined."""
        if self.outcome is None:
            return -math.inf
        sharpe = trials.figures_of(trials.returns_of(self.outcome.equity_usdt, 0))["sharpe_minute"]
        return sharpe if math.isfinite(sharpe) else -math.inf


class Swept(msgspec.Struct, frozen=True):
    """What a sweep ends in."""

    tried: tuple[Tried, ...]  # best first
    best: Trials | None  # of the best; None: none has an outcome
    run_id: str | None  # of the best
    passes: int  # over the window
    scored: int = 1  # of these: computed features and scores

    @property
    def winner(self) -> Tried | None:
        return self.tried[0] if self.tried and self.tried[0].outcome is not None else None


class Window(msgspec.Struct, frozen=True):
    """What all configurations are run over."""

    lake: Path
    source: str
    start_s: int
    end_s: int
    seed: int
    equity_usdt: Decimal = EQUITY_USDT


def run_together(
    window: Window, judged: Candidate, base: EngineConfig, some: Sequence[dict[str, Any]],
    kept: KeptScores | None = None,
) -> list[Tried]:  # fmt: skip
    """Run some configurations in one pass; one that contradicts itself or affords nothing is refused, others go on.

    Args:
        kept: has the scores of an earlier pass, or takes them for a later one; None: there is no other pass.

    Raises:
        NotEnoughData, TableEmpty: the window is too short or was not recorded.
    """
    check_window(window.source, window.start_s, window.end_s)
    universe = read.universe_between(window.lake, window.source, window.start_s * NS, window.end_s * NS, rules="first")
    prices = first_prices(window.lake, window.source, universe, window.start_s)
    tried: list[Tried] = []
    simulations: dict[int, Simulation] = {}
    for number, changes in enumerate(some):
        try:
            config = changed(base, changes)
            check_affordable(config, universe, prices, equity=window.equity_usdt, is_null=judged.scorer.is_null)
            simulations[number] = Simulation(
                f"{judged.scorer.name} {number}", universe, config, judged.scorer, seed=window.seed,
                equity_usdt=window.equity_usdt,
            )  # fmt: skip
            tried.append(Tried(number, changes, config, None))
        except SettingsError as error:
            tried.append(Tried(number, changes, None, None, str(error)))
    if simulations:
        outcomes = drive(
            window.lake, window.source, universe, judged.scorer,
            [Run(simulation, own_scores(simulation.engine.config)) for simulation in simulations.values()],
            start_s=window.start_s, end_s=window.end_s,
            others=others_of(simulation.engine.config for simulation in simulations.values()), kept=kept,
        )  # fmt: skip
        for number, outcome in zip(simulations, outcomes, strict=True):
            tried[number] = msgspec.structs.replace(tried[number], outcome=outcome)
    return tried


def search(
    window: Window, judged: Candidate, base: EngineConfig, choices: Mapping[str, Choice], *, n_trials: int,
    on_progress: Callable[[str], None] = lambda line: None,
) -> tuple[list[Tried], int, int]:  # fmt: skip
    """Let Optuna choose, `AT_ONCE` configurations a pass; scores are computed in the first and kept for the others.

    Returns: (what was tried, passes over the window, passes that computed features and scores: 1 where there is room).
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=window.seed, constant_liar=True)
    )
    tried: list[Tried] = []
    passes = 0
    with KeptScores() as kept:
        while len(tried) < n_trials:
            asked = [study.ask() for _ in range(min(AT_ONCE, n_trials - len(tried)))]
            wanted = [{name: _suggested(trial, name, choice) for name, choice in choices.items()} for trial in asked]
            found = run_together(window, judged, base, wanted, kept if n_trials > AT_ONCE else None)
            passes += 1
            for trial, one in zip(asked, found, strict=True):
                if one.outcome is None:
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
                else:
                    study.tell(trial, max(one.worth, -1e6))  # never traded: worse than any that did
                tried.append(msgspec.structs.replace(one, number=len(tried)))
            on_progress(f"{len(tried)} of {n_trials} configurations")
    return tried, passes, max(1, kept.computed)


def _suggested(trial: Any, name: str, choice: Choice) -> Any:
    if isinstance(choice, Between):
        if choice.is_whole:
            return trial.suggest_int(name, int(choice.low), int(choice.high))
        return trial.suggest_float(name, choice.low, choice.high)
    # Optuna knows plain values only: an enumeration goes by its place.
    return choice[trial.suggest_categorical(name, list(range(len(choice))))]


def sweep(
    window: Window, judged: Candidate, tracking: Tracking, base: EngineConfig, choices: Mapping[str, Choice], *,
    n_trials: int | None = None, on_progress: Callable[[str], None] = lambda line: None,
) -> Swept:  # fmt: skip
    """Run the configurations and log each as a trial, the best one last, deflated by all others.

    Args:
        n_trials: how many Optuna may choose; None: every combination.
    """
    if n_trials is None:
        tried, passes, scored = run_together(window, judged, base, grid_of(choices)), 1, 1
    else:
        tried, passes, scored = search(window, judged, base, choices, n_trials=n_trials, on_progress=on_progress)
    tried.sort(key=lambda one: (one.outcome is None, -one.worth, one.number))
    best, run_id = None, None
    for one in reversed(tried):
        if one.outcome is None:
            continue
        returns = trials.returns_of(one.outcome.equity_usdt, window.start_s)
        best = trials.find(tracking, window.source, returns, training_run=judged.training_run)
        run_id = _log(tracking, window, judged, one, best if one is tried[0] else None)
    return Swept(tuple(tried), best, run_id, passes, scored)


def _log(tracking: Tracking, window: Window, judged: Candidate, one: Tried, worth: Trials | None) -> str:
    assert one.outcome is not None, "only what was run is logged"
    assert one.config is not None, "only what was run is logged"
    tags = {
        "kind": "sweep",
        "null": "false",
        "source": window.source,
        "market": "generated" if window.source.startswith("simulator-g") else "real",
        "commit": code_commit(),
    }
    # Not tagged as a backtest of its training run: the gate judges a model by one that had its nulls beside it.
    if judged.training_run is not None:
        tags["swept_training_run"] = judged.training_run
    returns = trials.returns_of(one.outcome.equity_usdt, window.start_s)
    with tracking.run(EXPERIMENT_BACKTESTS, f"sweep {one.number} on {window.source}", tags) as run:
        config = {name: value for name, value in msgspec.structs.asdict(one.config).items() if name != "symbols"}
        run.log_params(
            {"model": judged.name, "source": window.source, "start": when(window.start_s), "end": when(window.end_s),
             "seed": window.seed, "chosen": typed(one.changes), **config}
        )  # fmt: skip
        run.log_metrics(outcome_metrics(one.outcome, window.start_s))
        if worth is not None:
            run.log_metrics(trials.metrics_of(worth))
        with tempfile.TemporaryDirectory() as temporary:
            trials.write_returns(Path(temporary), returns)
            trades_frame(one.outcome.trades, run.run_id).write_parquet(Path(temporary) / "trades.parquet")
            run.log_folder(Path(temporary), "backtest")
        return run.run_id


def table_of(swept: Swept) -> pl.DataFrame:
    """Return a row a configuration, best first: what was chosen, and what became of it."""
    rows = []
    for one in swept.tried:
        chosen = {name: _plain(value) for name, value in one.changes.items()}
        if one.outcome is None:
            rows.append({"trial": one.number, **chosen, "refused": one.why})
            continue
        metrics = metrics_of(one.outcome.trades, one.outcome.equity_usdt, one.outcome.start_usdt)
        sharpe = one.worth if math.isfinite(one.worth) else None
        rows.append(
            {
                "trial": one.number,
                **chosen,
                "trades": len(one.outcome.trades),
                "net_usdt": metrics["net_pnl_usdt"],
                "net_bps": _defined(net_bps(one.outcome.trades)),
                "win_rate": _defined(metrics["win_rate"]),
                "max_drawdown": metrics["max_drawdown"],
                "sharpe_minute": sharpe,
                "refused": None,
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float) or value is None else str(getattr(value, "value", value))


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _name(judged: Candidate) -> str:
    return judged.name if judged.digest is None else f"model {judged.name}"


def words(swept: Swept, judged: Candidate, window: Window) -> str:
    """Return what a person reads after a sweep."""
    n = len(swept.tried)
    lines = [
        f"{n} configuration{'' if n == 1 else 's'} of {_name(judged)} on {window.source}, {when(window.start_s)} to "
        f"{when(window.end_s)}, features and scores computed {'once' if swept.scored == 1 else f'{swept.scored} times'}"
        + (f", seconds read {swept.passes} times" if swept.passes > 1 else "")
    ]
    with pl.Config(
        tbl_formatting="MARKDOWN", tbl_hide_column_data_types=True, tbl_hide_dataframe_shape=True, tbl_rows=20,
        tbl_cols=30, float_precision=4, fmt_str_lengths=60, tbl_width_chars=200,
    ):  # fmt: skip
        shown = table_of(swept)
        kept = [name for name in shown.columns if name != "refused" or shown["refused"].null_count() < len(shown)]
        lines.append(str(shown.select(kept).head(20)))
    if swept.winner is None or swept.best is None:
        lines.append("no configuration could be run")
        return "\n".join(lines)
    lines += [
        "by the Sharpe ratio of a minute; the first is the best of all of them, and looks better than it is:",
        *(f"  {line}" for line in trials.words(swept.best)),
        f"look closer: python -m pipelines.backtest --model {judged.name} --source {window.source} "
        f"{typed(swept.winner.changes)}",
    ]
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m pipelines.sweep",
        description="Run many configurations of the engine over one window, features and scores computed once. Every "
        "configuration is a run of MLflow and counts as a trial.",
    )
    p.add_argument("--grid", action="append", default=[], metavar="FIELD=A,B", help="values of a field of the "
                   "configuration, again for another field; FIELD=LOW..HIGH with --trials")  # fmt: skip
    p.add_argument("--trials", type=int, help="let Optuna choose so many (default: every combination)")
    p.add_argument("--model", default="latest", help="latest, a version, an alias, rules or coin (default: latest)")
    p.add_argument("--style", choices=STYLES, default="market", help="how positions are entered (default: market)")
    p.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    p.add_argument("--source", help="which seconds to run over (default: the model's own source)")
    p.add_argument("--from", dest="start", help="first moment, not before the holdout (default: the holdout)")
    p.add_argument("--to", dest="end", help="end, exclusive (default: the last second)")
    p.add_argument("--out", type=Path, metavar="DIR", help="where sweep.csv goes (default: nowhere)")
    p.add_argument("--seed", type=int, default=SEED, help=f"of the engines and of Optuna (default: {SEED})")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        choices = choices_of(args.grid)
        if not choices:
            raise SettingsError("--grid must be given at least once, found none: like --grid top_k=5,10")
        if args.trials is not None and args.trials < 1:
            raise SettingsError(f"--trials must be 1 at least, found {args.trials}: correct it")
        if args.trials is None:
            grid_of(choices)  # before anything is read
        settings = settings_module.load(lake_uri=args.lake)
        tracking = Tracking(settings.tracking_uri)
        start_s, end_s = window_of_text(args.start, args.end)
        with tracking.told():
            judged = candidate(args.model, tracking, seed=args.seed)
            source = resolve_source(settings.lake, args.source or judged.source, settings)
            start_s, end_s = judged_window(settings.lake, source, judged, start_s, end_s)
            window = Window(settings.lake, source, start_s, end_s, args.seed)
            base = config_of(settings, horizon_s=judged.scorer.horizon_s, entry_kind=OrderKind(args.style))
            swept = sweep(window, judged, tracking, base, choices, n_trials=args.trials, on_progress=_say)
        if args.out is not None:
            args.out.mkdir(parents=True, exist_ok=True)
            table_of(swept).write_csv(args.out / "sweep.csv")
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(words(swept, judged, window))
    return 0 if swept.winner is not None else SettingsError.exit_code


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    entry.run(main)
