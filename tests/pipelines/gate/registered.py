"""A registered model with everything that the gate looks for, logged as training and backtest log it: all of it good.

A test takes one thing away, or makes one thing bad, and sees which criterion says no.
"""

from __future__ import annotations

import functools
import math
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from pipelines import trials
from pipelines.gate.choices import choosing
from pipelines.gate.unseen import (
    Evidence,
    Identity,
    Nulls,
    Recomputed,
    Replayed,
    Scored,
    Speed,
    Track,
    TradesSeen,
    Unseen,
    trades_seen,
)
from pipelines.moments import when
from pipelines.tracking import EXPERIMENT, EXPERIMENT_BACKTESTS, Tracking
from pipelines.validation import RankIC
from shared import model as bundles
from shared.features.catalog import FEATURES
from shared.features.graph import definition_hash
from shared.lake.layout import TABLES
from shared.model import Bundle, BundleCosts, Lineage
from shared.types import NS, Floats

FAST = Speed(symbols=800, repeats=1, cpu_p50_ms=1.0, cpu_p99_ms=1.0, wall_p99_ms=1.0)
MINUTES = 60
START_S = 1_760_000_460
END_S = START_S + 60 * MINUTES
LEARNT_TO_S = START_S - 60

FIGURES = {
    "rank_ic": 0.10,
    "rank_ic_se": 0.01,
    "rank_ic_seconds": 3600.0,
    "rank_ic_unseen": 0.09,
    "rank_ic_unseen_se": 0.02,
    "shuffled_rank_ic": 0.005,
    "shuffled_rank_ic_se": 0.01,
    "shifted_rank_ic": -0.005,
    "shifted_rank_ic_se": 0.01,
    "calibration_error": 0.01,
}


@functools.cache
def booster_text() -> str:
    """Return a real booster of three classes, trained on noise."""
    import lightgbm

    rng = np.random.default_rng(7)
    data = lightgbm.Dataset(rng.normal(size=(300, len(FEATURES))), rng.integers(0, 3, 300))
    parameters = {"objective": "multiclass", "num_class": 3, "num_leaves": 4, "verbosity": -1, "num_threads": 1}
    return str(lightgbm.train(parameters, data, num_boost_round=2).model_to_string())


class Made(msgspec.Struct, frozen=True):
    version: int
    training_run: str
    backtest_run: str  # "": none was asked for


def trades(seed: int, mean_bps: float, *, cost_bps: float = 13.0, n: int = 1200) -> pl.DataFrame:
    """Return trades of the table's schema: net of a mean, 15 bps of deviation."""
    rng = np.random.Generator(np.random.Philox(seed))
    entry_ns = np.sort(rng.integers(START_S + 2, END_S - 30, n)) * NS
    net_bps = mean_bps + 15.0 * rng.standard_normal(n)
    notional = np.full(n, 500.0)
    columns: dict[str, object] = {
        "run": ["r"] * n, "trade": np.arange(n), "symbol": ["AUSDT"] * n, "side": [1] * n, "entry_ns": entry_ns,
        "exit_ns": entry_ns + 10 * NS, "entry_price": [100.0] * n, "exit_price": [100.0] * n, "size": [5.0] * n,
        "notional_usdt": notional, "gross_usdt": (net_bps + 12.0) * notional * 1e-4, "fee_usdt": [0.6] * n,
        "funding_usdt": [0.0] * n, "slippage_usdt": [0.0] * n,
        **{f"{way}_spread_usdt": (cost_bps - 12.0) / 2 * notional * 1e-4 for way in ("entry", "exit")},
        "net_usdt": net_bps * notional * 1e-4, "net_bps": net_bps, "cause": ["horizon"] * n,
    }  # fmt: skip
    return pl.DataFrame(columns).select(*TABLES["backtests"].columns).cast(pl.Schema(TABLES["backtests"].columns))


def minutes(seed: int, mean: float = 1.0) -> trials.Returns:
    rng = np.random.Generator(np.random.Philox(seed))
    value: Floats = 1e-4 * (mean + rng.standard_normal(MINUTES))
    return trials.Returns(START_S + 60 * np.arange(MINUTES), value)


def train(
    tracking: Tracking,
    *,
    source: str = "bitget",
    figures: dict[str, float] | None = None,
    learnt_to_s: int = LEARNT_TO_S,
    tags: dict[str, str] | None = None,
) -> Made:
    """Register a model with a training run."""
    with (
        tracking.run(EXPERIMENT, "trained", {"source": source}) as run,
        tempfile.TemporaryDirectory() as temporary,
    ):
        run.log_metrics(FIGURES if figures is None else figures)
        run.log_curve("learning_fit", [0.9, 0.1])
        bundle = Bundle(
            features=tuple(FEATURES),
            definition_hash=definition_hash(FEATURES),
            horizon_s=10,
            class_edge_bps=(0.0, 20.0, -20.0),
            costs=BundleCosts(taker_fee=0.0006, slippage_bps=2.0),
            source=source,
            lineage=Lineage(run_id=run.run_id, trained_from_s=START_S - 7200, trained_to_s=learnt_to_s),
        )
        saved = bundles.save(Path(temporary) / "bundle", booster_text(), bundle)
        run.log_folder(Path(temporary))
        holdout = {"holdout_from_s": str(START_S), "holdout_to_s": str(END_S)}
        told = {"source": source, "validation": bundle.gate, "sha256": saved.booster_sha256}
        version = tracking.register(run, tags=told | (holdout if tags is None else tags))
    return Made(version, run.run_id, "")


def backtest(
    tracking: Tracking,
    made: Made,
    *,
    source: str = "bitget",
    start_s: int = START_S,
    end_s: int = END_S,
    frame: pl.DataFrame | None = None,
    returns: trials.Returns | None = None,
    nulls: bool = True,
    coin_bps: float = -13.0,
) -> Made:
    """Log a backtest of a model, as `pipelines.backtest` does."""
    tags = {"kind": "model", "null": "false", "source": source, "training_run": made.training_run}
    with tracking.run(EXPERIMENT_BACKTESTS, "model", tags) as run, tempfile.TemporaryDirectory() as temporary:
        run.log_params({"start": when(start_s), "end": when(end_s)})
        found = returns if returns is not None else minutes(1)
        run.log_metrics({"rank_ic": 0.10, "rank_ic_se": 0.01} | trials.figures_of(found))
        (frame if frame is not None else trades(1, 4.0)).write_parquet(Path(temporary) / "trades.parquet")
        trials.write_returns(Path(temporary), found)
        run.log_folder(Path(temporary), "backtest")
    for kind, mean in (("coin", coin_bps), ("shuffled", -13.0)) if nulls else ():
        tags = {"kind": kind, "null": "true", "source": source, "mlflow.parentRunId": run.run_id}
        with tracking.run(EXPERIMENT_BACKTESTS, kind, tags) as null, tempfile.TemporaryDirectory() as temporary:
            trades(len(kind), mean).write_parquet(Path(temporary) / "trades.parquet")
            null.log_folder(Path(temporary), "backtest")
    return msgspec.structs.replace(made, backtest_run=run.run_id)


def register(tracking: Tracking, *, source: str = "bitget") -> Made:
    """Return a model that has everything."""
    return backtest(tracking, train(tracking, source=source), source=source)


def evidence() -> Evidence:
    """Return what `gather` finds of a model that has everything, without MLflow."""
    where = Unseen(learnt_to_s=LEARNT_TO_S, horizon_s=10, start_s=START_S, end_s=END_S)
    found = minutes(1)
    known = trials.judge(found.value[:, None], [math.nan], trainings=1, backtests=1, apart=0)
    return Evidence(
        identity=Identity(
            version=1, run_id="r", digest="d", source="bitget", horizon_s=10, backtest_run="b", backtest_source="bitget"
        ),
        holdout=where,
        trades=seen(where, trades(1, 4.0)),
        track=Track(
            where=where,
            found=known.found,
            trainings=1,
            backtests=1,
            effective=known.effective,
            deflated_sharpe=known.deflated_sharpe,
            overfitting=choosing(found.value[:, None]),
        ),
        scored=Scored(
            where=where,
            ic=RankIC(0.10, 0.01, 3600),
            ic_unseen=RankIC(0.09, 0.02, 3600),
            ic_shuffled=RankIC(0.005, 0.01, 3600),
            ic_shifted=RankIC(-0.005, 0.01, 3600),
            calibration_error=0.01,
        ),
        replayed=Replayed(where=where, ic=RankIC(0.10, 0.01, 3600)),
        nulls=Nulls(where=where, coin=seen(where, trades(4, -13.0)), shuffled=seen(where, trades(8, -13.0))),
        recomputed=Recomputed(rows=72, leak=""),
        speed=FAST,
    )


def seen(where: Unseen, frame: pl.DataFrame) -> TradesSeen:
    net_bps = frame["net_bps"].to_numpy()
    return trades_seen(where, (frame["entry_ns"] // NS).to_numpy(), net_bps, net_bps + 13.0)
