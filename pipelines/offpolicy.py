"""What another plan would have earned, estimated from what this one did and the probabilities it did it with.

A decision t chose entries i with probability p of each; the other plan would have chosen them with q. Their rewards r
add up, so that probabilities of single entries are all that is needed (Horvitz & Thompson 1952). With w = q / p,
K entries in all, and r̂ what was believed of an arm *before* the trade:

    logged   Σ r / K                                                   what was earned, bps per entry
    IPS      Σ w r / K                                                 unbiased where p > 0 wherever q > 0
    SNIPS    Σ w r / Σ w                                               biased by O(1/K), and calmer
    DR       Σ_t [Σ_candidates q r̂ + Σ_chosen w (r − r̂)] / K          unbiased whatever r̂ is, calm where r̂ is good

Since r̂ comes from earlier trades alone, no cross-fitting is needed. What counts is the *gain* over the logged plan on
the same entries, whose noise is shared: an entry that both plans take for sure cancels out. Where a variant was drawn
first, w has its ratio as a factor.

Intervals: trades that overlap in time move together, so gains are summed over blocks of time, and the error is that
of the ratio Σ gains / Σ entries over blocks, with Student's t. They are two-sided, 95 %.

What this does not see: a choice changes what can be chosen later (slots, cooldown, the market). It is the estimate of
a contextual bandit, not of a Markov decision process; the champion's shadow run is the second opinion.

Sources: Dudík, Langford & Li, "Doubly Robust Policy Evaluation and Learning", ICML 2011; Swaminathan & Joachims, "The
Self-Normalized Estimator", NIPS 2015; Owen, "Monte Carlo theory, methods and examples", ch. 9 (effective sample size).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import msgspec
import numpy as np

from shared.types import Floats, Ints

BLOCK_S = 60
BLOCKS_MIN = 30
CONFIDENCE = 0.95


class Chosen(msgspec.Struct, frozen=True):
    """One entry that was chosen, and what became of it."""

    symbol: str
    p: float  # probability with which the plan that was followed chose it
    q: float  # with which the other would have
    believed_bps: float  # of its arm, before the trade
    net_bps: float  # 0 where the order was not sent or not filled


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """One decision that chose something, outcomes known."""

    second: int
    chosen: tuple[Chosen, ...]
    direct_q_bps: float  # Σ q · believed over all candidates
    unsupported: float = 0.0  # Σ q over candidates whose p is 0
    variant_p: float = 1.0
    variant_q: float = 1.0


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A figure with its 95 % interval, bps per entry."""

    value: float
    low: float
    high: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The other plan against the one that was followed."""

    decisions: int
    entries: int
    blocks: int
    explored: int  # entries that were not certain
    effective: float  # entries that the weighted ones are worth, (Σ w)² / Σ w²
    unsupported: float  # share of the other plan's entries that this one would never make [1]
    logged: Estimate
    ips: Estimate
    snips: Estimate
    dr: Estimate
    ips_gain: Estimate
    snips_gain: Estimate
    dr_gain: Estimate


def compare(decided: Sequence[Decided], *, block_s: int = BLOCK_S) -> Comparison:
    """Return what the other plan is estimated to earn; at least one decision is needed."""
    assert decided, "nothing was decided"
    rows = [(t, d, c) for t, d in enumerate(decided) for c in d.chosen]
    at = np.array([t for t, _, _ in rows])
    ratio = np.array([d.variant_q / d.variant_p for d in decided])
    weight = np.array([c.q / c.p for _, _, c in rows]) * ratio[at]
    reward = np.array([c.net_bps for _, _, c in rows])
    believed = np.array([c.believed_bps for _, _, c in rows])
    n = len(decided)

    def per_decision(values: Floats) -> Floats:
        sums: Floats = np.bincount(at, values, n).astype(np.float64, copy=False)
        return sums

    count = np.bincount(at, minlength=n).astype(np.float64)
    earned = per_decision(reward)
    ips = per_decision(weight * reward)
    dr = ratio * np.array([d.direct_q_bps for d in decided]) + per_decision(weight * (reward - believed))
    total = math.fsum(weight)
    snips = math.fsum(weight * reward) / total if total else 0.0
    logged = math.fsum(reward) / len(rows)
    # The influence of each decision on the two ratios: what makes their difference move (the delta method).
    share = len(rows) / total if total else 0.0
    snips_moves = share * per_decision(weight * (reward - snips))
    gain_moves = snips_moves - per_decision(reward - logged)

    second = np.array([d.second for d in decided], np.int64)
    _, block = np.unique(second // block_s, return_inverse=True)

    def of(values: Floats, shift: float = 0.0) -> Estimate:
        return _ratio(values, count, block, shift)

    return Comparison(
        decisions=n,
        entries=len(rows),
        blocks=int(block.max()) + 1,
        explored=sum(c.p < 1.0 or d.variant_p < 1.0 for _, d, c in rows),
        effective=total * total / float((weight * weight).sum()) if total else 0.0,
        unsupported=math.fsum(d.unsupported for d in decided) / len(rows),
        logged=of(earned),
        ips=of(ips),
        snips=of(snips_moves, snips),
        dr=of(dr),
        ips_gain=of(ips - earned),
        snips_gain=of(gain_moves, snips - logged),
        dr_gain=of(dr - earned),
    )


def _ratio(values: Floats, count: Floats, block: Ints, shift: float) -> Estimate:
    """Return Σ values / Σ count + shift, with the error over blocks of a ratio's linearisation; inf below two."""
    sums, counts = np.bincount(block, values), np.bincount(block, count)
    n, entries = len(sums), math.fsum(counts)
    value = math.fsum(sums) / entries
    if n < 2:
        return Estimate(value=value + shift, low=-math.inf, high=math.inf)
    apart = sums - value * counts
    error = math.sqrt(n / (n - 1) * math.fsum(apart * apart)) / entries
    half = student_quantile(0.5 + CONFIDENCE / 2.0, n - 1) * error
    return Estimate(value=value + shift, low=value + shift - half, high=value + shift + half)


def student_quantile(probability: float, dof: float) -> float:
    """Return a quantile of Student's t by its expansion in 1/ν (Abramowitz & Stegun 26.7.5), good from ν = 5 on."""
    z = NormalDist().inv_cdf(probability)
    g1 = (z**3 + z) / 4.0
    g2 = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    g3 = (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0
    g4 = (79.0 * z**9 + 776.0 * z**7 + 1482.0 * z**5 - 1920.0 * z**3 - 945.0 * z) / 92160.0
    return z + g1 / dof + g2 / dof**2 + g3 / dof**3 + g4 / dof**4


ENTRIES_MIN = 300
EFFECTIVE_MIN = 100.0
UNSUPPORTED_MAX = 0.02


class Check(msgspec.Struct, frozen=True):
    """One condition of acting."""

    name: str
    must_be: str
    found: str
    holds: bool


def checks_of(found: Comparison) -> list[Check]:
    """Return the conditions under which the other plan may be followed, all of which must hold."""
    gain, check = found.dr_gain, found.snips_gain
    return [
        Check("entries with an outcome", f">= {ENTRIES_MIN}", f"{found.entries}", found.entries >= ENTRIES_MIN),
        Check("blocks of time", f">= {BLOCKS_MIN}", f"{found.blocks}", found.blocks >= BLOCKS_MIN),
        Check("entries left to chance", "> 0", f"{found.explored}", found.explored > 0),
        Check(
            "effective entries",
            f">= {EFFECTIVE_MIN:.0f}",
            f"{found.effective:.0f}",
            found.effective >= EFFECTIVE_MIN,
        ),
        Check(
            "what was never tried",
            f"<= {UNSUPPORTED_MAX:.0%} of the other plan",
            f"{found.unsupported:.1%}",
            found.unsupported <= UNSUPPORTED_MAX,
        ),
        Check("gain, doubly robust, lower bound", "> 0 bps", f"{gain.low:+.2f} bps", gain.low > 0.0),
        Check("gain, self-normalised", "> 0 bps", f"{check.value:+.2f} bps", check.value > 0.0),
    ]
