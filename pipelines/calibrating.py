"""From a booster's probabilities to frequencies: the plain numbers of `shared.model.Calibration`.

Fitted on a block of time that neither trees nor their number were chosen on, and that nothing is reported on:

    factors   those that make the mean probability of each class its share: the maximum likelihood of the intercepts of
              a multinomial logistic model (its gradient is that difference), by repeated proportional fitting
    pull      in [0, 1), the maximum likelihood of the mixture with the shares; convex, so halving finds it

Three numbers and one: of a block of minutes, with few labels other than flat, monotone tables would learn the noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared.model import CLASSES, Calibration
from shared.types import Floats

PRIOR_ROWS = 500.0
"""How many rows the shares of the fit are worth beside those of the block. Ten overlapping labels are about one
outcome: fifty outcomes."""

PULL_MAX = 0.99
"""Never all the way to the shares: however faint, an order of symbols remains, and a rank IC that can be judged."""

_STEPS = 100
_HALVINGS = 30


def calibrate(probability: Floats, label: NDArray[np.int8], usual: Floats) -> Calibration:
    """Return the calibration that fits a block of rows.

    Args:
        probability: (R, 3) of the booster, > 0.
        label: (R,).
        usual: (3,) shares of the classes in the fit; they alone count where the block has no rows.
    """
    counts = np.bincount(label, minlength=len(CLASSES)).astype(np.float64)
    # A class may be missing here: no factor of 0, which would call it impossible for ever.
    floor = np.maximum(usual, 1e-6)
    shares = (counts + PRIOR_ROWS * floor / floor.sum()) / (counts.sum() + PRIOR_ROWS)
    if not len(label):
        return Calibration(factors=_plain(shares * len(CLASSES)), pull=0.0, shares=_plain(shares))
    factors = np.ones(len(CLASSES))
    for _ in range(_STEPS):
        said = probability * factors
        said /= said.sum(axis=1, keepdims=True)
        step = shares / said.mean(axis=0)
        factors *= step
        if np.abs(step - 1.0).max() < 1e-9:
            break
    factors /= factors.max()
    said = probability * factors
    said /= said.sum(axis=1, keepdims=True)
    return Calibration(factors=_plain(factors), pull=_pull(said, label, shares), shares=_plain(shares))


def _pull(said: Floats, label: NDArray[np.int8], shares: Floats) -> float:
    """Return the weight of the shares at which the log likelihood is largest."""
    own, usual = said[np.arange(len(label)), label], shares[label]

    def slope(pull: float) -> float:
        return float(((usual - own) / np.maximum((1.0 - pull) * own + pull * usual, 1e-300)).sum())

    if slope(0.0) <= 0.0:
        return 0.0
    if slope(PULL_MAX) >= 0.0:
        return PULL_MAX
    low, high = 0.0, PULL_MAX
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if slope(middle) > 0.0 else (low, middle)
    return (low + high) / 2.0


def _plain(values: Floats) -> tuple[float, float, float]:
    flat, long, short = (float(value) for value in values)
    return flat, long, short
