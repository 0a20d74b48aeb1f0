"""Random numbers that are the same bits on every CPU: Philox, and normals made of + − × ÷ sqrt and comparison.

Philox gives whole numbers, and `random_raw` is the part of numpy's interface whose stream is promised to stay (NEP 19
lets the methods of `Generator`, `normal` among them, change with any release, and its ziggurat calls libm's exp and
log, which differ between machines). So: 53 bits make a uniform in (0, 1), the inverse of the normal distribution
function makes it a normal. The inverse is a quotient of polynomials (Wichura 1988, AS 241, PPND7: seven digits); its
tails need a logarithm, which is the portable one of the features. A sum of twelve uniforms would be simpler, but it has
thin tails (one draw in 370 should lie beyond three, there one in 490 does), and Thompson explores by its tails.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.features.ops import OPERATORS
from shared.strategy.philox import Philox
from shared.types import Floats

SYMBOLS: Final = 1  # in the counter's last word: the engine's own draws of a decision have 0 there
VARIANTS: Final = 2
_TWO_53: Final = 2.0**-53

# Wichura 1988, AS 241, PPND7: numerator and denominator, highest power first.
_CENTRE: Final = (
    (5.9109374720e01, 1.5929113202e02, 5.0434271938e01, 3.3871327179e00),
    (6.7187563600e01, 7.8757757664e01, 1.7895169469e01, 1.0),
)
_TAIL: Final = (
    (1.7023821103e-01, 1.3067284816e00, 2.7568153900e00, 1.4234372777e00),
    (1.2021132975e-01, 7.3700164250e-01, 1.0),
)
_FAR: Final = (
    (1.7337203997e-02, 4.2868294337e-01, 3.0812263860e00, 6.6579051150e00),
    (1.2258202635e-02, 2.4197894225e-01, 1.0),
)


class Draws:
    """The uniforms of one decision, in order: two engines with the same seed take the same ones.

    Args:
        level: SYMBOLS or VARIANTS, which have streams of their own.
        philox: is set anew, which costs a tenth of a new one (None); what it drew before is over.
    """

    def __init__(self, seed: int, decision: int, level: int = SYMBOLS, philox: Philox | None = None) -> None:
        self._bits = (philox if philox is not None else Philox()).at(seed, decision, level)

    def uniforms(self, *shape: int) -> Floats:
        """Return values in (0, 1), never 0 nor 1: the middles of 2^53 equal cells."""
        return uniforms_of(self._bits.random_raw(shape))

    def normals(self, *shape: int) -> Floats:
        return normal_of(self.uniforms(*shape))


def uniforms_of(raw: NDArray[np.uint64]) -> Floats:
    """Return 64 random bits as a uniform in (0, 1)."""
    cells = (raw >> np.uint64(11)).astype(np.float64)
    # Where the cell is above 2^52 its middle is no double and rounds to the even neighbour, for the last one that is 1.
    uniform: Floats = np.minimum((cells + 0.5) * _TWO_53, 1.0 - _TWO_53)
    return uniform


def normal_of(uniform: Floats) -> Floats:
    """Return the standard normal quantile of values in (0, 1), to seven digits."""
    q = uniform - 0.5
    result = _ratio(_CENTRE, 0.180625 - q * q) * q
    is_tail = np.abs(q) > 0.425
    if is_tail.any():
        tail_q = q[is_tail]
        smaller = np.minimum(uniform[is_tail], 1.0 - uniform[is_tail])
        r = np.sqrt(-log(smaller))
        size = np.where(r <= 5.0, _ratio(_TAIL, r - 1.6), _ratio(_FAR, r - 5.0))
        result[is_tail] = np.where(tail_q < 0.0, -size, size)
    return result


def chi_square_of(normal: Floats, dof: Floats) -> Floats:
    """Return χ² values made of normals: ν (1 − 2/(9ν) + z √(2/(9ν)))³ (Wilson & Hilferty 1931).

    Within 2 % of its quantiles between 1 and 99 % from ν = 10 on; floored far in the lower tail, where the cube would
    turn negative.
    """
    step = 2.0 / (9.0 * dof)
    root = np.maximum(1.0 - step + normal * np.sqrt(step), 0.1)
    value: Floats = dof * root * root * root
    return value


def log(x: Floats) -> Floats:
    """Return the natural logarithm, the same bits on every CPU."""
    out = np.empty_like(x)
    OPERATORS["log"](x, out)
    return out


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], r: Floats) -> Floats:
    numerator, denominator = (_polynomial(part, r) for part in coefficients)
    quotient: Floats = numerator / denominator
    return quotient


def _polynomial(coefficients: tuple[float, ...], r: Floats) -> Floats:
    value = r * coefficients[0]
    for coefficient in coefficients[1:-1]:
        value += coefficient
        value *= r
    value += coefficients[-1]
    return value
