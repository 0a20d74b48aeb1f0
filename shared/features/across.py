"""Operators across symbols: one row over the whole recorded universe, nothing remembered.

The cross-section of a second is every symbol whose value is finite then. A symbol that is missing takes no part, so an
axis with more symbols that are not there gives the same bits, and so does any order of the axis:

* *Sums are order-free.* Floating-point addition depends on its order because it rounds. Here every summand is first
  split against a power of two that depends on the row's largest magnitude alone (Rump, Ogita, Oishi 2008, "Accurate
  floating-point summation", Algorithm 3.2; Demmel & Nguyen 2013): both parts are multiples of a unit so coarse that
  their sum needs no rounding in any order. What is left is below 2^-81 of the largest magnitude. It takes five passes
  over the row and no Python loop (`math.fsum` of 800 symbols takes 60 times as long).
* *Ties* share the mean of their ranks; values that agree to 40 bits (12 digits) are ties.
* *Missing*: a mean of nothing, and a deviation or rank among fewer than two, is NaN. A symbol's own NaN stays NaN.

All are built of + − × ÷ sqrt and comparison, so that polars computes the same bits (`shared.features.expressions`).

To add one: a function `(*inputs, out)` in ACROSS, its name in ops.ACROSS_CELL or ops.ACROSS_COMMON, a builder below,
its expression, an oracle in tests/shared/features/test_across.py.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from shared.features.ops import Node, Operation, reject_common
from shared.types import Floats, Ints

SYMBOLS_MAX = 4096
"""Summands whose sum is exact; a power of two."""

SPLIT_UFP: Final = 2.0**52 + 1.0
BELOW_ONE: Final = 1.0 - 2.0**-53
SPLIT_HIGH: Final = 1.5 * SYMBOLS_MAX
SPLIT_LOW: Final = SYMBOLS_MAX * 2.0**-53


# ------------------------------------------------------------------------------------------------ builders


def mean_across(x: Node) -> Node:
    """Return the mean over the symbols that have a value; the same for every symbol."""
    return Node("mean_across", reject_common(x))


def std_across(x: Node) -> Node:
    """Return the sample standard deviation (n − 1) over the symbols that have a value; exactly 0 if all are equal."""
    return Node("std_across", reject_common(x), mean_across(x))


def demean(x: Node) -> Node:
    """Return x less the mean over symbols."""
    return x - mean_across(x)


def zscore(x: Node) -> Node:
    """Return (x − mean) / standard deviation over symbols; 0 where all symbols are equal."""
    return Node("zscore", x, mean_across(x), std_across(x))


def rank(x: Node) -> Node:
    """Return the rank among symbols, from −½ (lowest) to ½ (highest), ties sharing their mean rank.

    (rank − (n + 1) / 2) / (n − 1): the sign changes with the order, so that mirrored markets have mirrored ranks.
    """
    return Node("rank", reject_common(x))


def value_of(symbol: str, x: Node) -> Node:
    """Return the value of one symbol, for every symbol; NaN where it is not in the universe."""
    return Node("value_of", reject_common(x), parameter=symbol)


# ---------------------------------------------------------------------------------------------- arithmetic


def order_free_sum(x: Floats, largest: Floats) -> Floats:
    """Return the sum of each row, the same bits for any order of its summands.

    1. u = largest power of two not above `largest` (Rump 2009, "Ultimately fast accurate summation", Algorithm 3.6).
    2. x + σ − σ with σ = 1.5 · SYMBOLS_MAX · u rounds x to multiples of 2^-40 u, ties to even on both sides of zero;
       the sum of SYMBOLS_MAX such multiples, at most 2 u each, has 53 bits: it is exact.
    3. The rest of each x, at most 2^-41 u, is split likewise. Both sums are exact, adding them rounds once.

    Args:
        x: (R, N) finite, N at most SYMBOLS_MAX.
        largest: (R, 1) magnitude of the largest |x| of each row.

    Returns: (R, 1).
    """
    q = largest * SPLIT_UFP
    sigma = np.abs(q - BELOW_ONE * q) * SPLIT_HIGH
    high = x + sigma
    high -= sigma
    low = x - high
    total: Floats = high.sum(axis=1, keepdims=True)
    sigma *= SPLIT_LOW
    low += sigma
    low -= sigma
    total += low.sum(axis=1, keepdims=True)
    return total


def _mean_across(x: Floats, out: Floats) -> None:
    is_known = np.isfinite(x)
    n = is_known.sum(axis=1, keepdims=True)
    known = np.where(is_known, x, 0.0)
    largest = np.maximum(known.max(axis=1, keepdims=True), -known.min(axis=1, keepdims=True))
    np.divide(order_free_sum(known, largest), n, out=out)  # 0 / 0 without symbols


def _std_across(x: Floats, mean: Floats, out: Floats) -> None:
    is_known = np.isfinite(x)
    n = is_known.sum(axis=1, keepdims=True)
    highest = np.where(is_known, x, -np.inf).max(axis=1, keepdims=True)
    lowest = np.where(is_known, x, np.inf).min(axis=1, keepdims=True)
    squares = np.where(is_known, x - mean, 0.0)
    squares *= squares
    variance = order_free_sum(squares, squares.max(axis=1, keepdims=True)) / (n - 1)
    np.sqrt(variance, out=out)
    out[highest == lowest] = 0.0  # a mean that was rounded makes no deviation
    out[n < 2] = np.nan


_INDEX_BITS: Final = 13
_INDEX: Final = np.int64((1 << _INDEX_BITS) - 1)
_MAGNITUDE: Final = np.int64((1 << 63) - 1)
SPLIT_RANK: Final = 2.0**_INDEX_BITS + 1.0


def _rank(x: Floats, out: Floats) -> None:
    """Sort whole numbers that order like the values and carry the position of their symbol in their last bits.

    1. Round to 40 bits (Veltkamp's split), so that the last 13 bits of the double are free.
    2. As a whole number, a positive double orders as it is, a negative one with its other bits turned round.
    3. Sorted, the position says whose rank it is, and equal numbers without their positions are ties. Every key is
       there once, so that no sorting algorithm can give another order. (Half the time of an argsort.)
    """
    rows, n_symbols = x.shape
    is_known = np.isfinite(x)
    scaled = x * SPLIT_RANK
    coarse = scaled - (scaled - x)
    coarse += 0.0  # −0 ties with 0
    keys = coarse.view(np.int64)
    keys ^= (keys >> 63) & _MAGNITUDE
    keys[~is_known] = _MAGNITUDE  # behind all others
    keys &= ~_INDEX
    keys |= np.arange(n_symbols)
    keys.sort(axis=1)
    place = (keys & _INDEX) + (np.arange(rows) * n_symbols)[:, None]
    keys >>= _INDEX_BITS
    n = is_known.sum(axis=1, keepdims=True)
    centred = _summed_ends(keys) - (n - 1.0)  # twice the distance from the middle
    centred /= 2.0 * (n - 1.0)  # 0 / 0 for one symbol
    centred[np.arange(n_symbols) >= n] = np.nan
    ranks = np.empty(x.size)
    ranks[place.ravel()] = centred.ravel()
    np.copyto(out, ranks.reshape(x.shape))


def _summed_ends(keys: Ints) -> Floats:
    """Return first + last position of the run of equal keys that each sorted key lies in: twice its mean rank."""
    n_symbols = keys.shape[1]
    at = np.arange(n_symbols, dtype=np.int32)
    is_tied = keys[:, 1:] == keys[:, :-1]
    first = np.empty(keys.shape, np.int32)
    first[:] = at
    if is_tied.any():
        last = first.copy()
        first[:, 1:][is_tied] = 0
        np.maximum.accumulate(first, axis=1, out=first)
        last[:, :-1][is_tied] = n_symbols
        backwards = np.ascontiguousarray(last[:, ::-1])
        np.minimum.accumulate(backwards, axis=1, out=backwards)
        return np.add(first, backwards[:, ::-1], dtype=np.float64)
    return np.add(first, first, dtype=np.float64)


ACROSS: Final[dict[str, Operation]] = {
    "mean_across": _mean_across,
    "std_across": _std_across,
    "rank": _rank,
}
"""Name → function of an (R, N) input, common (R, 1) inputs, and `out`; `value_of` is a column of its input."""
