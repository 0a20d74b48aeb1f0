"""The verdict: a plain function of evidence. Every criterion must hold, and one without evidence does not.

Why so many: each catches what the others cannot see. A lucky week passes the bound now and then, the best of fifty
tries passes it always (deflated Sharpe, overfitting); a model that knows symbols by name earns on them and on no others
(unseen symbols); a backtest that leaks pays its nulls, too (coin, shuffled scores); a leak in the stored features is
told by the second computation of both features and scores; and what earns on a generated market has earned from its
generator. docs/gate.md says of each where its threshold comes from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, Literal

import msgspec
import numpy as np

from pipelines.gate.bounds import lower_bound
from pipelines.gate.unseen import Evidence, TradesSeen
from pipelines.trials import MINUTES_MIN
from pipelines.validation import RankIC
from shared.lake.layout import MINUTE_S

Venue = Literal["bitget", "simulator"]

SOURCE_OF: Final = {"bitget": "bitget"}
"""Venue -> the only source whose models it takes; the simulator takes those of every source, for paper."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Thresholds. They are arguments of the judgement and constants of the gate: no setting lowers them."""

    trades_min: int = 100
    confidence: float = 0.99  # of the bound of net edge, one-sided
    deflated_sharpe_min: float = 0.95
    overfitting_max: float = 0.20
    loss_max: float = 0.20  # probability that what was best in one half loses in the other
    calibration_error_max: float = 0.05
    unseen_confidence_z: float = 1.645
    null_errors_max: float = 3.0
    null_ic_max: float = 0.02
    null_share_max: float = 1 / 3  # of the model's own rank IC, or of what its trades earn before costs
    null_bps_max: float = 0.25
    replayed_ic_max: float = 0.02
    predict_p99_ms_max: float = 3.0
    predict_symbols: int = 800


class Criterion(msgspec.Struct, frozen=True, kw_only=True):
    """One question and its answer."""

    name: str
    passed: bool
    found: str
    needed: str
    value: float = math.nan  # NaN: no single figure stands for it


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate says of a model for a venue."""

    version: int
    digest: str
    source: str
    venue: Venue
    criteria: tuple[Criterion, ...]

    @property
    def passed(self) -> bool:
        return all(criterion.passed for criterion in self.criteria)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return why not, in the order of asking; () where it passed."""
        return tuple(f"{c.name}: must be {c.needed}, found {c.found}" for c in self.criteria if not c.passed)


def judge(evidence: Evidence, venue: Venue, limits: Limits = Limits()) -> Verdict:  # noqa: B008 - frozen
    """Return the verdict. Deterministic; reads nothing but its arguments."""
    return Verdict(
        version=evidence.identity.version,
        digest=evidence.identity.digest,
        source=evidence.identity.source,
        venue=venue,
        criteria=tuple(_criteria(evidence, venue, limits)),
    )


def _criteria(evidence: Evidence, venue: Venue, limits: Limits) -> Iterator[Criterion]:
    yield _source(evidence, venue)
    yield _window(evidence)
    yield _features(evidence)
    yield _trades(evidence, limits)
    yield _net_edge(evidence, limits)
    yield _deflated(evidence, limits)
    yield _overfitting(evidence, limits)
    yield _calibration(evidence, limits)
    yield _unseen_symbols(evidence, limits)
    for name in ("coin", "shuffled"):
        yield _null_trades(evidence, name, limits)
    for name in ("shuffled", "shifted"):
        yield _null_ic(evidence, name, limits)
    yield _replayed(evidence, limits)
    yield _speed(evidence, limits)


def _absent(evidence: Evidence, field: str, name: str, needed: str) -> Criterion:
    why = evidence.absent.get(field, "nothing was found")
    return Criterion(name=name, passed=False, found=why, needed=needed)


def _source(evidence: Evidence, venue: Venue) -> Criterion:
    known = evidence.identity
    wanted = SOURCE_OF.get(venue, known.source)
    found = f"trained on {known.source}"
    judged = known.backtest_source
    if judged and judged != known.source:
        found += f", backtested on {judged}"
    return Criterion(
        name="source",
        passed=bool(known.source) and known.source == wanted and judged in ("", wanted),
        found=found,
        needed=f"trained and backtested on {wanted} for the venue {venue}",
    )


def _window(evidence: Evidence) -> Criterion:
    """The whole holdout: a slice of it that was chosen by hand is a choice that nobody counts."""
    name, needed = "window", f"all of the holdout, {MINUTES_MIN} minutes at least"
    trades, holdout = evidence.trades, evidence.holdout
    if trades is None or holdout is None:
        return _absent(evidence, "trades" if trades is None else "holdout", name, needed)
    late_s = trades.where.start_s - holdout.start_s
    early_s = holdout.end_s - trades.where.end_s
    minutes = trades.where.seconds // MINUTE_S
    found = f"{minutes} minutes"
    if late_s > 0:
        found += f", begun {late_s} s late"
    if early_s > 0:
        found += f", ended {early_s} s early"
    return Criterion(
        name=name,
        passed=late_s <= MINUTE_S and early_s <= MINUTE_S and minutes >= MINUTES_MIN,
        found=found,
        needed=needed,
        value=float(minutes),
    )


def _features(evidence: Evidence) -> Criterion:
    name, needed = "features", "what their formulas give from the past of their second"
    known = evidence.recomputed
    if known is None:
        return _absent(evidence, "recomputed", name, needed)
    if known.leak:
        return Criterion(name=name, passed=False, found=known.leak, needed=needed, value=float(known.rows))
    found = f"{known.rows:,} rows computed again, all the same bits" if known.rows else "no row to compare"
    return Criterion(name=name, passed=known.rows > 0, found=found, needed=needed, value=float(known.rows))


def _trades(evidence: Evidence, limits: Limits) -> Criterion:
    name, needed = "trades", f"{limits.trades_min} at least"
    if evidence.trades is None:
        return _absent(evidence, "trades", name, needed)
    n = len(evidence.trades)
    return Criterion(name=name, passed=n >= limits.trades_min, found=f"{n:,}", needed=needed, value=float(n))


def _net_edge(evidence: Evidence, limits: Limits) -> Criterion:
    name = "net edge"
    needed = f"above 0 bps a trade with {limits.confidence:.1%} confidence"
    trades = evidence.trades
    if trades is None:
        return _absent(evidence, "trades", name, needed)
    bound = lower_bound(
        trades.entry_s, trades.net_bps, trades.where.start_s, trades.where.end_s, confidence=limits.confidence
    )
    if not bound.is_known:
        mean = f"{bound.mean:+.2f} bps" if math.isfinite(bound.mean) else "undefined"
        why = "too few minutes with trades, or figures that are none" if bound.n else "no trade"
        found = f"{mean}, no bound: {why}"
    else:
        found = (
            f"{bound.mean:+.2f} bps ± {bound.standard_error:.2f}, at least {bound.lower:+.2f} "
            f"({bound.blocks} blocks of {bound.block_s} s)"
        )
    return Criterion(name=name, passed=bound.lower > 0.0, found=found, needed=needed, value=bound.lower)


def _deflated(evidence: Evidence, limits: Limits) -> Criterion:
    name, needed = "deflated Sharpe", f"{limits.deflated_sharpe_min:g} at least"
    track = evidence.track
    if track is None:
        return _absent(evidence, "track", name, needed)
    value = track.deflated_sharpe
    said = "undefined" if math.isnan(value) else f"{value:.3f}"
    return Criterion(
        name=name,
        passed=value >= limits.deflated_sharpe_min,
        found=f"{said} over {track.found.n} minutes and {track.effective:.1f} independent trials "
        f"({track.trainings} trained, {track.backtests} backtested)",
        needed=needed,
        value=value,
    )


def _overfitting(evidence: Evidence, limits: Limits) -> Criterion:
    name = "overfitting"
    needed = f"probability {limits.overfitting_max:g} at most, of a loss {limits.loss_max:g} at most"
    track = evidence.track
    if track is None:
        return _absent(evidence, "track", name, needed)
    known = track.overfitting
    said = (
        f"undefined ({track.found.n} minutes)"
        if math.isnan(known.probability)
        else f"{known.probability:.3f}, of a loss {known.loss:.3f}, among {known.n_trials} ideas and not trading"
    )
    return Criterion(
        name=name,
        passed=known.probability <= limits.overfitting_max and known.loss <= limits.loss_max,
        found=said,
        needed=needed,
        value=known.probability,
    )


def _calibration(evidence: Evidence, limits: Limits) -> Criterion:
    name, needed = "calibration", f"an error of {limits.calibration_error_max:g} at most"
    if evidence.scored is None:
        return _absent(evidence, "scored", name, needed)
    value = evidence.scored.calibration_error
    found = "undefined" if math.isnan(value) else f"{value:.4f}"
    passed = 0.0 <= value <= limits.calibration_error_max
    return Criterion(name=name, passed=passed, found=found, needed=needed, value=value)


def _unseen_symbols(evidence: Evidence, limits: Limits) -> Criterion:
    name, needed = "unseen symbols", "a rank IC above 0 with 95 % confidence on symbols never learnt from"
    if evidence.scored is None:
        return _absent(evidence, "scored", name, needed)
    known = evidence.scored.ic_unseen
    lower = known.mean - limits.unseen_confidence_z * known.standard_error
    found = _ic(known) if known.seconds else "undefined: three symbols at least must have been held out"
    return Criterion(name=name, passed=lower > 0.0, found=found, needed=needed, value=lower)


def _null_trades(evidence: Evidence, name: str, limits: Limits) -> Criterion:
    """Gross, not net: every null loses its costs, and would hide behind them that it earns before them."""
    words = {"coin": "null: coin", "shuffled": "null: shuffled scores"}[name]
    needed = f"within {limits.null_errors_max:g} errors (or {limits.null_bps_max:g} bps) of 0 before costs"
    share = 0.0
    if name == "shuffled":
        # Scores of another moment meet states that last: what counts is how little of the model's own result that is.
        share = limits.null_share_max * abs(_gross_bps(evidence.trades))
        needed += f", or {limits.null_share_max:.0%} of what the model earns"
    if evidence.nulls is None:
        return _absent(evidence, "nulls", words, needed)
    trades: TradesSeen = getattr(evidence.nulls, name)
    bound = lower_bound(
        trades.entry_s, trades.gross_bps, trades.where.start_s, trades.where.end_s, confidence=limits.confidence
    )
    if math.isnan(bound.standard_error):
        return Criterion(name=words, passed=False, found=f"{len(trades)} trades: too few to tell", needed=needed)
    allowed = max(limits.null_errors_max * bound.standard_error, limits.null_bps_max, share)
    return Criterion(
        name=words,
        passed=abs(bound.mean) <= allowed,
        found=f"{bound.mean:+.2f} bps ± {bound.standard_error:.2f} of {bound.n:,} trades",
        needed=needed,
        value=bound.mean,
    )


def _gross_bps(trades: TradesSeen | None) -> float:
    """Return what a trade earned before costs; 0 where that is not known."""
    if trades is None or not len(trades) or not np.isfinite(trades.gross_bps).all():
        return 0.0
    return float(trades.gross_bps.mean())


def _null_ic(evidence: Evidence, name: str, limits: Limits) -> Criterion:
    words = {"shuffled": "null: shuffled labels", "shifted": "null: shifted in time"}[name]
    needed = (
        f"a rank IC within {limits.null_errors_max:g} errors, {limits.null_ic_max:g} or "
        f"{limits.null_share_max:.0%} of the model's own of 0"
    )
    if evidence.scored is None:
        return _absent(evidence, "scored", words, needed)
    known = evidence.scored.ic_shuffled if name == "shuffled" else evidence.scored.ic_shifted
    own = abs(evidence.scored.ic.mean)
    bounds = (limits.null_errors_max * known.standard_error, limits.null_ic_max, limits.null_share_max * own)
    passed = all(map(math.isfinite, bounds)) and abs(known.mean) <= max(bounds)
    return Criterion(name=words, passed=passed, found=_ic(known), needed=needed, value=known.mean)


def _replayed(evidence: Evidence, limits: Limits) -> Criterion:
    """Training scored stored features, the backtest scored what the graph made of seconds: one model, one answer."""
    name = "scored twice"
    needed = f"the same rank IC in training and backtest, to {limits.replayed_ic_max:g} or its error"
    scored, replayed = evidence.scored, evidence.replayed
    if scored is None or replayed is None:
        return _absent(evidence, "scored" if scored is None else "replayed", name, needed)
    difference = scored.ic.mean - replayed.ic.mean
    # Rows differ a little (training needs a complete label), and much where the backtest goes on after the holdout.
    same = abs(scored.where.end_s - replayed.where.end_s) <= MINUTE_S
    joint = math.hypot(scored.ic.standard_error, replayed.ic.standard_error)
    error = scored.ic.standard_error if same else 3.0 * joint
    return Criterion(
        name=name,
        passed=abs(difference) <= max(error, limits.replayed_ic_max),
        found=f"{scored.ic.mean:+.4f} and {replayed.ic.mean:+.4f}",
        needed=needed,
        value=difference,
    )


def _speed(evidence: Evidence, limits: Limits) -> Criterion:
    name = "speed"
    needed = f"{limits.predict_p99_ms_max:g} ms at most for {limits.predict_symbols} symbols (p99, one thread)"
    known = evidence.speed
    if known is None:
        return _absent(evidence, "speed", name, needed)
    return Criterion(
        name=name,
        passed=known.symbols >= limits.predict_symbols and known.cpu_p99_ms <= limits.predict_p99_ms_max,
        found=f"{known.cpu_p99_ms:.2f} ms of CPU (wall {known.wall_p99_ms:.2f} ms) for {known.symbols} symbols",
        needed=needed,
        value=known.cpu_p99_ms,
    )


def _ic(known: RankIC) -> str:
    return f"{known.mean:+.4f} ± {known.standard_error:.4f}"
