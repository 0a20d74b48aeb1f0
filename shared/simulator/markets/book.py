"""Books of the generated market: where levels stand, and how much they hold.

Sizes are lognormal with memory. Pressure (the gap that the price will close, the last move, and a standing part that
tells nothing) thins the side that it works against more than it feeds the other: touches are depleted, and imbalance
is U-shaped. A size that rests stays the same to the last digit until somebody changes it; when the quotes move, sizes
and the distances between levels are drawn anew in part.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared.simulator.markets import noise as streams
from shared.simulator.markets.blocks import BLOCK_S, LEVELS, Floats, Ints
from shared.simulator.markets.noise import Noise
from shared.simulator.markets.path import WARM_UP_S, Quotes, remember
from shared.simulator.markets.temper import Temper

_WARM_UP_S = 40
_SIZE_MEMORY, _SIZE_MEMORY_MOVED = 0.84, 0.35
_GAP_KEPT = 0.5  # [1] of distances that stay while the quotes rest
_SKEW = np.float32(0.15)  # touches run low rather than over
_SWING_MEMORY = 0.65
_DEEP_LEAN = np.array([1.0, 0.8, 0.65, 0.5, 0.4] + [0.08] * (LEVELS - 5), dtype=np.float32)


def levels(noise: Noise, temper: Temper, b: int, quotes: Quotes, depth: int = LEVELS) -> tuple[Ints, Ints]:
    """Return the prices of block b in ticks, (BLOCK_S, N, depth) each, bids and asks, best first."""
    rows = slice(WARM_UP_S - _WARM_UP_S, WARM_UP_S + BLOCK_S)
    bid, ask = quotes.bid[rows], quotes.ask[rows]
    uniform = noise.uniform(streams.DISTANCES, b, (temper.n, 2, LEVELS - 1), _WARM_UP_S)[..., : depth - 1]
    # Geometric distances, 1 tick or more: log u / log q, q = gap / (1 + gap).
    gap = temper.level_gap[:, : depth - 1]
    rate = np.log(gap / (1.0 + gap)).astype(np.float32)[:, None]
    keep = uniform < _GAP_KEPT
    # What is left of the uniform number after that decision is uniform again.
    fresh = np.where(keep, uniform / _GAP_KEPT, (uniform - _GAP_KEPT) / (1.0 - _GAP_KEPT))
    distance = np.minimum(1.0 + np.floor(np.log(np.maximum(fresh, 1e-7)) / rate), 60.0)
    keep &= ~_moved(bid, ask)[:, :, None, None]
    for t in range(1, len(distance)):
        np.copyto(distance[t], distance[t - 1], where=keep[t])
    offset = np.cumsum(distance[_WARM_UP_S:].astype(np.int64), axis=3)
    bid_ticks, ask_ticks = (np.empty((BLOCK_S, temper.n, depth), dtype=np.int64) for _ in range(2))
    bid_ticks[:, :, 0], ask_ticks[:, :, 0] = bid[_WARM_UP_S:], ask[_WARM_UP_S:]
    bid_ticks[:, :, 1:] = np.maximum(bid_ticks[:, :, :1] - offset[:, :, 0], 1)
    ask_ticks[:, :, 1:] = ask_ticks[:, :, :1] + offset[:, :, 1]
    return bid_ticks, ask_ticks


def sizes(noise: Noise, temper: Temper, b: int, quotes: Quotes) -> tuple[Ints, Ints]:
    """Return sizes of block b in steps, (BLOCK_S, N, LEVELS) each, of bids and asks."""
    rows = slice(WARM_UP_S - _WARM_UP_S, WARM_UP_S + BLOCK_S)
    moved = _moved(quotes.bid[rows], quotes.ask[rows])
    state = noise.normal(streams.SIZES, b, (temper.n, 2, LEVELS), _WARM_UP_S)
    memory = np.where(moved, np.float32(_SIZE_MEMORY_MOVED), np.float32(_SIZE_MEMORY))[:, :, None, None]
    state[1:] *= np.sqrt(1.0 - memory[1:] ** 2)
    for t in range(1, len(state)):
        state[t] += memory[t] * state[t - 1]

    pressure = _pressure(noise, temper, b, quotes)
    # Against the pressure: thinned by all of it; with it: fed by a third.
    side = np.stack([pressure, -pressure], axis=2).astype(np.float32)[:, :, :, None]  # (T, N, 2, 1)
    push = np.where(side > 0, np.float32(0.4) * side, np.float32(1.3) * side) * _DEEP_LEAN
    state[..., 0] -= _SKEW * (state[..., 0] * state[..., 0] - np.float32(1.0))
    out = state * temper.size_sd + push
    rests = noise.uniform(streams.RESTS, b, (temper.n, 2, LEVELS), _WARM_UP_S) < temper.stays
    rests &= ~moved[:, :, None, None]
    for t in range(1, len(out)):
        np.copyto(out[t], out[t - 1], where=rests[t])
    steps = np.exp(out[_WARM_UP_S:] + temper.log_size_steps)
    # Whole steps, three significant digits: sizes that people type (and texts that are found again in a cache).
    figures = np.floor(np.log10(np.maximum(steps, np.float32(1.0)))) - np.float32(2.0)
    digits = np.maximum(temper.size_step, np.power(np.float32(10.0), np.maximum(figures, np.float32(0.0))))
    whole = np.maximum(np.rint(steps / digits), np.float32(1.0)).astype(np.int64) * np.rint(digits).astype(np.int64)
    return np.ascontiguousarray(whole[:, :, 0]), np.ascontiguousarray(whole[:, :, 1])


def _moved(bid: Ints, ask: Ints) -> NDArray[np.bool_]:
    moved = np.ones(bid.shape, dtype=np.bool_)
    moved[1:] = (bid[1:] != bid[:-1]) | (ask[1:] != ask[:-1])
    return moved


def _pressure(noise: Noise, temper: Temper, b: int, quotes: Quotes) -> Floats:
    """Return what thins asks (positive) or bids, (_WARM_UP_S + BLOCK_S, N)."""
    white = noise.normal(streams.PRESSURE, b, (temper.n,), WARM_UP_S)
    swing = remember(white, _SWING_MEMORY)
    rows = slice(0, WARM_UP_S + BLOCK_S)
    lean = temper.lean * quotes.fast[rows] + temper.lean_slow * quotes.slow[rows] if temper.has_gap else 0.0
    total = lean + temper.after * quotes.after[rows] + 2.0 * temper.swing * swing
    return np.asarray(total[WARM_UP_S - _WARM_UP_S :])
