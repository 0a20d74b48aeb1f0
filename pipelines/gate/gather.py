"""Evidence of a registered model, from MLflow and the lake. Nothing is told by hand, and nothing is chosen.

    training run    what its holdout said: rank IC (of all symbols, of those never seen, of both nulls), calibration
    backtest        the newest one of the model on its source: trades, minutes, rank IC; its nulls' trades
    trials          everything that was tried on the source, then and since (`pipelines.trials`)
    lake            stored features against what their formulas give
    speed           measured here

Only these figures of a training run are read: learning curves, counts and whatever else it holds of rows that were
learnt from have no name here. What is missing is no error but a criterion that fails, with the sentence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import polars as pl

from pipelines import trials
from pipelines.gate.choices import choosing
from pipelines.gate.speed import measure
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
from pipelines.leaks import LeakyFeatures, check_features
from pipelines.moments import second_of
from pipelines.tracking import EXPERIMENT_BACKTESTS, Tracking
from pipelines.validation import LeakySplit, RankIC
from shared import model as bundles
from shared.errors import CrosscutError, LakeError, NotEnoughData, SettingsError
from shared.features.catalog import FEATURES
from shared.features.graph import definition_hash
from shared.lake import read
from shared.lake.layout import HOUR_S
from shared.model import Bundle
from shared.types import NS

TRADES_FILE: Final = "backtest/trades.parquet"

_HOW: Final = "run python -m pipelines.backtest --model {}"

T = TypeVar("T")


def gather(
    tracking: Tracking, lake: Path, wanted: str, *, speed: Callable[[Path], Speed] | None = None
) -> tuple[Evidence, Any]:
    """Return the evidence of a version, and MLflow's ModelVersion.

    Args:
        wanted: latest, a number or an alias.
        speed: how a prediction is timed; None: in a process of its own.

    Raises:
        ModelMissing: there is no such version, or its files are gone.
        ModelMismatch: its bundle was altered, or was made for other features.
        ModelError: MLflow cannot be read.
    """
    with tracking.told():
        version = tracking.resolve(wanted)
        folder = tracking.bundle_folder(version)
        model = bundles.load(folder, definition_hash=definition_hash(FEATURES), feature_names=tuple(FEATURES))
        found = _Found(tracking, lake, version, model.bundle)
        evidence = found.evidence(speed=lambda: (speed or measure)(folder))
    return evidence, version


class _Absent(Exception):
    """What was looked for is not there; its text becomes the reason."""


class _Found:
    """One look at what is known of a version."""

    def __init__(self, tracking: Tracking, lake: Path, version: Any, bundle: Bundle) -> None:
        self._tracking, self._lake, self._version, self._bundle = tracking, lake, version, bundle
        self._how = _HOW.format(version.version)
        self.absent: dict[str, str] = {}

    def evidence(self, *, speed: Callable[[], Speed]) -> Evidence:
        bundle, backtest = self._bundle, self._backtest()
        holdout = self._try("holdout", self._holdout)
        window = self._try("trades", lambda: self._window(backtest))
        trades = self._try("trades", lambda: self._trades(backtest, window))
        return Evidence(
            identity=Identity(
                version=int(self._version.version),
                run_id=self._version.run_id,
                digest=bundle.booster_sha256,
                source=bundle.source,
                horizon_s=bundle.horizon_s,
                backtest_run=backtest.info.run_id if backtest is not None else "",
                backtest_source=backtest.data.tags.get("source", "unknown") if backtest is not None else "",
            ),
            holdout=holdout,
            trades=trades,
            track=self._try("track", lambda: self._track(backtest, window)),
            scored=self._try("scored", lambda: self._scored(holdout)),
            replayed=self._try("replayed", lambda: self._replayed(backtest, window)),
            nulls=self._try("nulls", lambda: self._nulls(backtest, window)),
            recomputed=self._try("recomputed", lambda: self._recomputed(holdout)),
            speed=self._try("speed", speed),
            absent=self.absent,
        )

    def _try(self, field: str, look: Callable[[], T]) -> T | None:
        """Return what is found; where it is not, or overlaps what was learnt, None, and say why."""
        try:
            return look()
        except (_Absent, LeakySplit, NotEnoughData, LakeError, SettingsError) as why:
            self.absent.setdefault(field, str(why))
            return None

    # ---------------------------------------------------------------------------------------------- the training

    def _holdout(self) -> Unseen:
        tags = self._version.tags
        try:
            start_s, end_s = int(tags["holdout_from_s"]), int(tags["holdout_to_s"])
        except (KeyError, ValueError):
            raise _Absent(
                "the version's tags do not say where its holdout lies: train again (python -m pipelines.train)"
            ) from None
        return self._unseen(start_s, end_s)

    def _unseen(self, start_s: int, end_s: int) -> Unseen:
        return Unseen(
            learnt_to_s=self._bundle.lineage.trained_to_s,
            horizon_s=self._bundle.horizon_s,
            start_s=start_s,
            end_s=end_s,
        )

    def _scored(self, holdout: Unseen | None) -> Scored:
        if holdout is None:
            raise _Absent(self.absent["holdout"])
        known = self._training_figures()

        def ic(prefix: str) -> RankIC:
            mean, error = known.get(f"{prefix}rank_ic", math.nan), known.get(f"{prefix}rank_ic_se", math.nan)
            return RankIC(mean, error, 0 if math.isnan(mean) else int(known.get("rank_ic_seconds", 0)))

        unseen = known.get("rank_ic_unseen", math.nan)
        return Scored(
            where=holdout,
            ic=ic(""),
            ic_unseen=RankIC(
                unseen, known.get("rank_ic_unseen_se", math.nan), 0 if math.isnan(unseen) else ic("").seconds
            ),
            ic_shuffled=ic("shuffled_"),
            ic_shifted=ic("shifted_"),
            calibration_error=known.get("calibration_error", math.nan),
        )

    def _training_figures(self) -> dict[str, float]:
        """Return the metrics of the training run.

        A run that was deleted is marked and still answers; one that was purged does not.
        """
        from mlflow.exceptions import MlflowException

        run_id = self._version.run_id
        try:
            run = self._tracking.client.get_run(run_id)
        except MlflowException:
            run = None
        if run is None or run.info.lifecycle_stage != "active" or run.info.status != "FINISHED":
            found = "nothing" if run is None else f"{run.info.lifecycle_stage}, {run.info.status.lower()}"
            raise _Absent(f"the run of its training, {run_id}, must be finished and kept, found {found}: train again")
        return dict(run.data.metrics)

    # ---------------------------------------------------------------------------------------------- the backtest

    def _backtest(self) -> Any:
        """Return the newest backtest of this very model, on its own source where there is one; None without any."""
        runs = self._tracking.finished(
            EXPERIMENT_BACKTESTS, f"tags.training_run = '{self._version.run_id}' and tags.null = 'false'"
        )
        runs.sort(key=lambda run: -run.info.start_time)
        own = [run for run in runs if run.data.tags.get("source") == self._bundle.source]
        return (own or runs or [None])[0]

    def _window(self, backtest: Any) -> Unseen:
        if backtest is None:
            raise _Absent(f"no finished backtest of version {self._version.version}: {self._how}")
        start_s, end_s = (second_of(backtest.data.params.get(name)) for name in ("start", "end"))
        if start_s is None or end_s is None:
            raise _Absent(f"backtest {backtest.info.run_id} does not say its window: {self._how}")
        return self._unseen(start_s, end_s)

    def _trades(self, backtest: Any, window: Unseen | None) -> TradesSeen:
        if backtest is None or window is None:
            raise _Absent(self.absent["trades"])
        return self._trades_of(backtest.info.run_id, window)

    def _trades_of(self, run_id: str, window: Unseen) -> TradesSeen:
        path = self._tracking.artifact(run_id, TRADES_FILE)
        if path is None:
            raise _Absent(f"backtest {run_id} has kept no {TRADES_FILE}: {self._how}")
        try:
            frame = pl.read_parquet(path)
            mid_to_mid = pl.sum_horizontal(
                "gross_usdt", "entry_spread_usdt", "exit_spread_usdt", "slippage_usdt", ignore_nulls=False
            )
            found = frame.select(
                second=pl.col("entry_ns") // NS,
                net_bps="net_bps",
                gross_bps=mid_to_mid / pl.col("notional_usdt") * 1e4,
            )
        except (OSError, pl.exceptions.PolarsError) as error:
            raise _Absent(f"{path} must be trades of a backtest, found: {error}: {self._how}") from None
        return trades_seen(window, *(found[name].to_numpy() for name in ("second", "net_bps", "gross_bps")))

    def _track(self, backtest: Any, window: Unseen | None) -> Track:
        if backtest is None or window is None:
            raise _Absent(self.absent["trades"])
        run_id = backtest.info.run_id
        returns = trials.stored_returns(self._tracking, run_id)
        if returns is None or not len(returns.value):
            raise _Absent(f"backtest {run_id} has kept no minutes: {self._how}")
        if not window.start_s <= int(returns.second[0]) <= int(returns.second[-1]) < window.end_s:
            raise _Absent(f"minutes of backtest {run_id} must lie in its window, found others: {self._how}")
        tried = trials.collect(
            self._tracking, self._bundle.source, returns, training_run=self._version.run_id, own_run=run_id
        )
        known = trials.judge_tried(tried)
        return Track(
            where=window,
            found=known.found,
            trainings=known.trainings,
            backtests=known.backtests,
            effective=known.effective,
            deflated_sharpe=known.deflated_sharpe,
            overfitting=choosing(tried.performance),
        )

    def _replayed(self, backtest: Any, window: Unseen | None) -> Replayed:
        if backtest is None or window is None:
            raise _Absent(self.absent["trades"])
        known = backtest.data.metrics
        mean, error = known.get("rank_ic", math.nan), known.get("rank_ic_se", math.nan)
        return Replayed(where=window, ic=RankIC(mean, error, window.seconds))

    def _nulls(self, backtest: Any, window: Unseen | None) -> Nulls:
        if backtest is None or window is None:
            raise _Absent(self.absent["trades"])
        children = self._tracking.finished(
            EXPERIMENT_BACKTESTS, f"tags.`mlflow.parentRunId` = '{backtest.info.run_id}' and tags.null = 'true'"
        )
        runs = {run.data.tags.get("kind"): run.info.run_id for run in children}
        missing = [kind for kind in ("coin", "shuffled") if kind not in runs]
        if missing:
            raise _Absent(f"backtest {backtest.info.run_id} has no null {' and '.join(missing)}: {self._how}")
        coin, shuffled = (self._trades_of(runs[kind], window) for kind in ("coin", "shuffled"))
        return Nulls(where=window, coin=coin, shuffled=shuffled)

    # -------------------------------------------------------------------------------------------------- the lake

    def _recomputed(self, holdout: Unseen | None) -> Recomputed:
        """Compute features of the whole window, learnt from and held out, again at a few seconds."""
        source = self._bundle.source
        first = self._bundle.lineage.trained_from_s // HOUR_S
        last = (holdout.end_s - 1 if holdout is not None else self._bundle.lineage.trained_to_s) // HOUR_S
        hours = [hour for hour in read.hours(self._lake, "features", source) if first <= hour <= last]
        if not hours:
            raise _Absent(f"the lake {self._lake} holds no features of {source} any more: give --lake, or restore them")
        try:
            return Recomputed(rows=check_features(self._lake, source, hours), leak="")
        except LeakyFeatures as leak:
            return Recomputed(rows=0, leak=str(leak))
        except CrosscutError as error:
            raise _Absent(str(error)) from None
