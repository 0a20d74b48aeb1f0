"""Seeded worlds at the level of returns: what is known of them is exact, and hundreds take minutes.

A world is seconds of twenty symbols: moves with a common factor, volatility that clusters and fat tails, and states of
a minute that a feature shows. While a state is on, the mid drifts with it: by nothing (predictability 0), or by what a
round trip costs and a planted edge more. Everything from there on is the pipeline's own: rows, folds, LightGBM, baselines
and nulls of `pipelines.training`, trades and minutes of the holdout alone, trials, evidence, verdict.

Left out: books, the engine's gates, sizes and orders, the venue, MLflow and the lake (tests of their own drive them).
A signal is traded by one rule: every three seconds the best and the worst few whose expected move exceeds the cost,
held for the horizon, one position a symbol, the same notional each.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipelines import baselines, trials
from pipelines.boosting import Fitted, params_of, predict
from pipelines.evidence import held_out_symbols, moments
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
from pipelines.rows import Dataset
from pipelines.training import Judgement, expected_edge_bps, fit_fold, judge
from pipelines.validation import Fold, RankIC, rank_ic, walk_forward
from shared.labels import HORIZONS_S, Rule
from shared.model import FLAT, LONG, SHORT, Calibration
from shared.types import Floats, Ints

START_S = 1_760_000_400
HORIZON_S = 10
STRIDE_S = 3  # seconds between rows and decisions
SECONDS = 10_800  # the last quarter of them, 45 minutes, is the holdout
NOTIONAL_SHARE = 0.05  # of equity, each trade
TOP_K = 4
TAIL_FREEDOM = 5
BIN_SAMPLE_ROWS = 5_000


def names(n_symbols: int, n_held_out: int) -> tuple[str, ...]:
    """Return names of which so many are held out by their hash, as a large universe has about a tenth of them."""
    every = [f"S{n:03d}USDT" for n in range(400)]
    held = sorted(held_out_symbols(every))
    others = [name for name in every if name not in held]
    return tuple(sorted(held[:n_held_out] + others[: n_symbols - n_held_out]))


class World(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Rows to learn from, and what a trade of each second and symbol earns before costs."""

    dataset: Dataset
    honest: NDArray[np.float32]  # (T · N, F) features as the graph gives them
    gross_bps: Floats  # (T, N) at the rows' seconds
    cost_bps: float


class Trained(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The model of a world, and what it said on the holdout."""

    fold: Fold
    fitted: Fitted
    calibration: Calibration
    class_edge_bps: tuple[float, float, float]
    holdout: Judgement
    shuffled: Judgement  # of the same trees on shuffled labels


def world(
    seed: int,
    *,
    cost_bps: float = 0.0,
    drift_bps: float = 0.0,
    lead_s: int = 0,
    n_symbols: int = 20,
    seconds: int = SECONDS,
) -> World:
    """Return a world.

    Args:
        drift_bps: over the horizon while a state is on; 0: nothing can be predicted.
        lead_s: a planted leak: the stored five-second return is that of so many seconds later. What the graph computes
            from seconds, and the engine is given, is not.
        cost_bps: of a round trip; labels keep the real one of 12 bps whatever it is.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    symbols = names(n_symbols, 4)
    # Volatility of 20 bps over the horizon: an hour's regime, a minute's cluster, a symbol's habit.
    walk = np.cumsum(rng.standard_normal((seconds // 60 + 1, n_symbols)) * 0.1, axis=0)
    habit = np.exp(0.3 * rng.standard_normal(n_symbols))
    sigma = 20.0 / math.sqrt(HORIZON_S) * habit * np.repeat(np.exp(np.clip(walk, -0.5, 0.5)), 60, axis=0)[:seconds]
    tail = rng.standard_t(TAIL_FREEDOM, (seconds, n_symbols)) * math.sqrt((TAIL_FREEDOM - 2) / TAIL_FREEDOM)
    market = rng.standard_t(TAIL_FREEDOM, (seconds, 1)) * math.sqrt((TAIL_FREEDOM - 2) / TAIL_FREEDOM)
    state = _states(rng, seconds, n_symbols)
    moves = sigma * (math.sqrt(0.7) * tail + math.sqrt(0.3) * market) + state * (drift_bps / HORIZON_S)
    mid = np.concatenate([np.zeros((1, n_symbols)), np.cumsum(moves, axis=0)])  # log price in bps
    at = np.arange(60, seconds - HORIZON_S - 1, STRIDE_S)
    # Row s is known at the end of s, entered a second later, left after the horizon.
    gross = mid[at + 1 + 1 + HORIZON_S] - mid[at + 1 + 1]
    past = {span: mid[at + 1] - mid[at + 1 - span] for span in (5, 30, 60)}
    features = np.stack(
        [
            state[at] + 0.3 * rng.standard_normal(gross.shape),
            past[5],
            past[30],
            past[60],
            sigma[at],
            _states(rng, seconds, n_symbols)[at] + 0.3 * rng.standard_normal(gross.shape),
            rng.standard_normal(gross.shape),
            np.repeat(market[at], n_symbols, axis=1),
        ],
        axis=2,
    ).astype(np.float32)
    rows = len(at) * n_symbols
    honest = features.reshape(rows, -1)
    stored = honest.copy()
    if lead_s:
        stored[:, 1] = (mid[at + 1 + lead_s] - mid[at + 1 + lead_s - 5]).ravel()
    label = np.select([gross > 12.0, gross < -12.0], [LONG, SHORT], FLAT).astype(np.int8)
    dataset = Dataset(
        source="bitget",
        symbols=symbols,
        feature_names=("imbalance_1", "r5", "r30", "r60", "sigma", "other", "noise", "market"),
        absent=(),
        definition_hash="0" * 64,
        rule=Rule(horizon_s=HORIZON_S),
        lookback_s=30,
        second=np.repeat(START_S + at, n_symbols),
        symbol=np.tile(np.arange(n_symbols, dtype=np.int32), len(at)),
        features=stored,
        label=label.ravel(),
        mid_bps=gross.ravel(),
        moves_bps=np.repeat(gross.reshape(rows, 1), len(HORIZONS_S), axis=1).astype(np.float32),
        start_s=START_S,
        end_s=START_S + seconds,
        content_hash="0" * 64,
    )
    return World(dataset=dataset, honest=honest, gross_bps=gross, cost_bps=cost_bps)


def _states(rng: np.random.Generator, seconds: int, n_symbols: int) -> Floats:
    """Return −1, 0 or 1 that changes about once a minute."""
    changes = rng.random((seconds, n_symbols)) < 1.0 / 60.0
    changes[0] = True
    drawn = rng.choice([-1.0, 0.0, 0.0, 1.0], (seconds, n_symbols))
    latest = np.maximum.accumulate(np.where(changes, np.arange(seconds)[:, None], 0), axis=0)
    return np.asarray(np.take_along_axis(drawn, latest, axis=0))


def holdout_rows(known: World, trained: Trained) -> tuple[Ints, Floats]:
    """Return seconds (T,) and gross moves (T, N) of the holdout."""
    span = trained.fold.test
    seconds = np.unique(known.dataset.second)
    inside = span.of(seconds)
    return seconds[inside], known.gross_bps[inside]


def trade(second: Ints, gross_bps: Floats, signal_bps: Floats, cost_bps: float) -> tuple[Ints, Floats]:
    """Return seconds of entry and gross results of the trades that a signal leads to."""
    free_s = np.zeros(gross_bps.shape[1], np.int64)
    entries: list[int] = []
    earned: list[float] = []
    for t, now in enumerate(second.tolist()):
        signal = np.where((free_s <= now) & np.isfinite(signal_bps[t]), signal_bps[t], 0.0)
        order = np.argsort(signal, kind="stable")
        for n in order[-TOP_K:][signal[order[-TOP_K:]] > cost_bps]:
            entries.append(now)
            earned.append(float(gross_bps[t, n]))
            free_s[n] = now + HORIZON_S + 1
        for n in order[:TOP_K][signal[order[:TOP_K]] < -cost_bps]:
            entries.append(now)
            earned.append(-float(gross_bps[t, n]))
            free_s[n] = now + HORIZON_S + 1
    return np.array(entries, np.int64), np.array(earned)


def minutes_of(where: Unseen, entry_s: Ints, net_bps: Floats) -> trials.Returns:
    """Return the returns minute by minute: a trade counts when it ends."""
    n = where.seconds // 60
    at = np.minimum((entry_s + HORIZON_S - where.start_s) // 60, n - 1)
    value = np.bincount(at, net_bps * NOTIONAL_SHARE * 1e-4, n).astype(np.float64)
    return trials.Returns(where.start_s + 60 * np.arange(n), value)


def evidence_of(known: World, trained: Trained, *, seed: int, choose: bool) -> tuple[Evidence, float]:
    """Return the evidence of a trained model in its world, and the mean net result of its trades.

    As in the pipeline, what training says of the holdout comes from stored features, and what is traded from those that
    the graph computes.

    Args:
        choose: hand over the luckiest of the model and four other signals as if it were the model: what a person does
            who looks at five backtests. All five are trials either way.
    """
    dataset, fold = known.dataset, trained.fold
    where = Unseen(
        learnt_to_s=fold.calibrate.end_s, horizon_s=HORIZON_S, start_s=fold.test.start_s, end_s=fold.test.end_s
    )
    second, gross = holdout_rows(known, trained)
    shape = gross.shape
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))

    def column(name: str) -> Floats:
        return dataset.column(name, dataset.of(fold.test)).reshape(shape)

    rows = np.arange(*dataset.of(fold.test).indices(dataset.rows))
    seen_live = msgspec.structs.replace(dataset, features=known.honest)
    probability = predict(trained.fitted, seen_live, rows)
    signal = expected_edge_bps(trained.calibration.apply(probability), trained.class_edge_bps).reshape(shape)
    large = 10.0 * (known.cost_bps + 1.0)
    signals = {
        "model": signal,
        "momentum": np.where(column("r30") > 0, large, -large),
        "reversal": np.where(column("r5") > 0, -large, large),
        "imbalance": large * column("imbalance_1"),
        "another": large * column("other"),
    }
    taken = {name: trade(second, gross, signal, known.cost_bps) for name, signal in signals.items()}
    minutes = {name: minutes_of(where, at, earned - known.cost_bps) for name, (at, earned) in taken.items()}
    sharpes = {name: moments(found.value).sharpe for name, found in minutes.items()}
    judged = max(sharpes, key=lambda name: np.nan_to_num(sharpes[name], nan=-9.0)) if choose else "model"
    others = [name for name in signals if name != judged]
    performance = np.stack([minutes[name].value for name in (judged, *others)], axis=1)
    found = trials.judge(performance, [sharpes[n] for n in (judged, *others)], trainings=1, backtests=5, apart=0)
    entry_s, earned = taken[judged]
    trades = trades_seen(where, entry_s, earned - known.cost_bps, earned)
    coin = _null(where, *trade(second, gross, large * rng.standard_normal(shape), known.cost_bps), known.cost_bps)
    half = np.roll(signals[judged], len(second) // 2, axis=0)
    shuffled = _null(where, *trade(second, gross, half, known.cost_bps), known.cost_bps)
    holdout = trained.holdout
    evidence = Evidence(
        identity=Identity(
            version=1, run_id="r", digest="d", source="bitget", horizon_s=HORIZON_S, backtest_source="bitget"
        ),
        holdout=where,
        trades=trades,
        track=Track(
            where=where,
            found=found.found,
            trainings=found.trainings,
            backtests=found.backtests,
            effective=found.effective,
            deflated_sharpe=found.deflated_sharpe,
            overfitting=choosing(performance),
        ),
        scored=Scored(
            where=where,
            ic=holdout.ic,
            ic_unseen=holdout.ic_unseen,
            ic_shuffled=trained.shuffled.ic,
            ic_shifted=_shifted_ic(second, half, gross),
            calibration_error=holdout.calibration_error,
        ),
        replayed=Replayed(
            where=where, ic=rank_ic(np.repeat(second, shape[1]), signals["model"].ravel(), gross.ravel())
        ),
        nulls=Nulls(where=where, coin=coin, shuffled=shuffled),
        recomputed=Recomputed(rows=100, leak=""),
        speed=Speed(symbols=800, repeats=1, cpu_p50_ms=1.0, cpu_p99_ms=1.0, wall_p99_ms=1.0),
    )
    return evidence, float(trades.net_bps.mean()) if len(trades) else math.nan


def _null(where: Unseen, entry_s: Ints, earned: Floats, cost_bps: float) -> TradesSeen:
    return trades_seen(where, entry_s, earned - cost_bps, earned)


def _shifted_ic(second: Ints, half: Floats, gross: Floats) -> RankIC:
    """Return what the signal of half a holdout away says: `baselines.shifted` looks for whole seconds, these are thin."""
    return rank_ic(np.repeat(second, half.shape[1]), half.ravel(), gross.ravel())


def trained_in(known: World, seed: int) -> Trained:
    """Return what `pipelines.training` makes of the last fold: the model that would be registered, and its null.

    Its 63 bins are drawn from a tenth of the usual rows, each of which is a call.
    """
    dataset = known.dataset
    fold = walk_forward(np.unique(dataset.second), reach_s=dataset.rule.reach_s, lookback_s=dataset.lookback_s)[-1]
    params = params_of("multiclass", seed=seed, threads=1) | {"bin_construct_sample_cnt": BIN_SAMPLE_ROWS}
    model = fit_fold(dataset, fold, params, "multiclass")
    null = fit_fold(dataset, fold, params, "multiclass", baselines.shuffled(dataset, fold, seed))
    assert model.calibration is not None, "a multiclass model is calibrated"
    return Trained(
        fold=fold,
        fitted=model.fitted,
        calibration=model.calibration,
        class_edge_bps=model.edge,
        holdout=judge(dataset, fold, model),
        shuffled=judge(dataset, fold, null),
    )
