"""The closed set of operators that features are made of.

A `Node` is a value per second and symbol, an immutable formula. Elementwise operators work on the second at hand;
`Lag` is the only one that remembers, and every window (`total`, `mean`, `std`, `covariance`, `highest`, `lowest`,
`since`) is a fold of lags and elementwise arithmetic by doubling: O(log w) vector operations, a fixed order of
association, no running sum. Operators across symbols stand in `across`; what they give every symbol alike (a mean, the
value of one symbol, the clock) is a *common* node, computed once a second and not once a symbol.

Exactness. Every operator gives the same bits for any shape and cut and on every CPU: only + − × ÷ sqrt, comparison,
selection and rounding to whole numbers are used; `log` and `sin_turn` are built from them (numpy's own log differs
between AVX2 and AVX-512 in 0.15 % of values).
Minima and maxima add 0.0, because which of −0.0 and 0.0 wins is left open by IEEE 754.

Missing values. NaN means missing, and a NaN poisons exactly the results that it enters: also `where`, comparisons,
minima and maxima are NaN if any input is NaN. An operation without a defined result is missing too: 0 / 0, the log
of nothing. x / 0 stays infinite: divide by `nonzero(y)` where y can be 0.

To add an operator: a function `(*inputs, out)` in OPERATORS that writes `out` last (it may be one of the inputs), a
builder, its polars expression in `expressions`, an oracle in tests/shared/features/test_ops.py. When an operator's
meaning changes, raise VERSION.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.types import Floats

VERSION = 2
"""Raised when the meaning of an operator changes; part of every definition hash."""

LOOKBACK_MAX_S = 3600

ACROSS_COMMON: Final = frozenset({"mean_across", "std_across", "value_of"})
"""Operators across symbols that give every symbol the same."""

ACROSS_CELL: Final = frozenset({"rank"})
"""Operators across symbols that give every symbol its own."""


class Node:
    """A formula. Equal formulas have equal `identity`, wherever they were written."""

    def __init__(self, operator: str, *inputs: Node, parameter: str | int | float | None = None) -> None:
        self.operator, self.inputs, self.parameter = operator, inputs, parameter
        said = parameter.hex() if isinstance(parameter, float) else repr(parameter)
        text = f"{operator}({said}; {', '.join(node.identity for node in inputs)})"
        self.identity: Final[str] = hashlib.sha256(text.encode()).hexdigest()
        own = self.parameter if operator == "lag" else 0
        assert isinstance(own, int)
        self.lookback: Final[int] = own + max((node.lookback for node in inputs), default=0)
        """Seconds of history that the value depends on beyond its own second."""
        self.is_common: Final[bool] = operator in _ALWAYS_COMMON or (
            bool(inputs) and operator not in ACROSS_CELL and all(node.is_common for node in inputs)
        )
        """True: every symbol has the same value."""

    def __add__(self, other: Node | float) -> Node:
        return Node("add", self, _node(other))

    def __radd__(self, other: float) -> Node:
        return Node("add", _node(other), self)

    def __sub__(self, other: Node | float) -> Node:
        return Node("subtract", self, _node(other))

    def __rsub__(self, other: float) -> Node:
        return Node("subtract", _node(other), self)

    def __mul__(self, other: Node | float) -> Node:
        return Node("multiply", self, _node(other))

    def __rmul__(self, other: float) -> Node:
        return Node("multiply", _node(other), self)

    def __truediv__(self, other: Node | float) -> Node:
        return Node("divide", self, _node(other))

    def __rtruediv__(self, other: float) -> Node:
        return Node("divide", _node(other), self)

    def __neg__(self) -> Node:
        return Node("subtract", Constant(0.0), self)

    def __repr__(self) -> str:
        """Return one level only: shared parts make a formula written out grow like 2^depth."""
        what = "" if self.parameter is None else f" {self.parameter}"
        return f"<{self.operator}{what} {self.identity[:8]}>"


_ALWAYS_COMMON: Final = ACROSS_COMMON | {"constant", "second"}


def _node(value: Node | float) -> Node:
    return value if isinstance(value, Node) else Constant(value)


# The sources, and the one operator that remembers, are named like the classes that a reader expects.


def Column(name: str) -> Node:
    """Return a column of the seconds."""
    return Node("column", parameter=name)


def Constant(value: float) -> Node:
    return Node("constant", parameter=float(value))


def Second() -> Node:
    """Return the epoch second of the row."""
    return Node("second")


def Lag(x: Node, seconds: int) -> Node:
    """Return the value `seconds` ago; NaN before the stream began."""
    assert seconds > 0, f"lag of {seconds} s: must be positive, the future has not arrived"
    if x.operator == "lag":
        assert isinstance(x.parameter, int)
        return Lag(x.inputs[0], seconds + x.parameter)
    node = Node("lag", x, parameter=seconds)
    assert node.lookback <= LOOKBACK_MAX_S, f"lookback of {node.lookback} s: at most {LOOKBACK_MAX_S} s are kept"
    return node


# ------------------------------------------------------------------------------------ elementwise builders


def sqrt(x: Node) -> Node:
    return Node("sqrt", x)


def log(x: Node) -> Node:
    """Return the natural logarithm; NaN for x <= 0."""
    return Node("log", x)


def absolute(x: Node) -> Node:
    return Node("absolute", x)


def floor(x: Node) -> Node:
    """Return the largest whole number not above x."""
    return Node("floor", x)


def minimum(x: Node, y: Node | float) -> Node:
    return Node("minimum", x, _node(y))


def maximum(x: Node, y: Node | float) -> Node:
    return Node("maximum", x, _node(y))


def less(x: Node | float, y: Node | float) -> Node:
    """Return 1 where x < y, else 0."""
    return Node("less", _node(x), _node(y))


def equal(x: Node, y: Node | float) -> Node:
    """Return 1 where x == y, else 0."""
    return Node("equal", x, _node(y))


def where(condition: Node, x: Node | float, y: Node | float) -> Node:
    """Return x where the condition is not 0, else y; NaN if any of the three is NaN."""
    return Node("where", condition, _node(x), _node(y))


def notional(price: Node, size: Node) -> Node:
    """Return price x size of a book level; 0 where the level is absent (size 0, whatever the price)."""
    return Node("notional", price, size)


def level_price(price: Node, size: Node, absent: float) -> Node:
    """Return the price of a book level, `absent` where there is none (size 0); NaN where that is not known."""
    return Node("level_price", price, size, _node(absent))


def nonzero(x: Node) -> Node:
    """Return x, NaN where it is 0: a denominator that cannot make infinities."""
    return Node("nonzero", x)


def share(part: Node, whole: Node) -> Node:
    """Return part / whole, and 0 for 0 / 0: nothing of nothing happened, which is known, not missing.

    For sums of non-negative amounts, where whole = 0 implies part = 0.
    """
    return Node("share", part, whole)


def sign(x: Node) -> Node:
    """Return −1, 0 or 1."""
    return less(0.0, x) - less(x, 0.0)


def sin_turn(x: Node) -> Node:
    """Return sin(2 pi x), x in turns: an odd polynomial on a quarter turn, the rest by symmetry.

    The Taylor series to the power 21 leaves 2e-16 at a quarter turn.
    """
    t = x - floor(x + 0.5)  # in [−½, ½)
    quarter = minimum(absolute(t), 0.5 - absolute(t)) * math.tau
    square = quarter * quarter
    series = Constant(_SINE[0])
    for coefficient in _SINE[1:]:
        series = series * square + coefficient
    return sign(t) * (series * quarter)


_SINE: Final = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(10, -1, -1))


# ------------------------------------------------------------------------------------------------ windows


def fold(x: Node, seconds: int, merge: Callable[[Node, Node], Node]) -> Node:
    """Merge the last `seconds` values of x, later values on the left, in a fixed tree: O(log seconds) merges."""
    return _fold((x,), seconds, lambda later, earlier, *_: (merge(later[0], earlier[0]),))[0]


_Parts = tuple[Node, ...]


def _fold(parts: _Parts, seconds: int, merge: Callable[[_Parts, _Parts, int, int], _Parts]) -> _Parts:
    """Fold tuples; `merge` also gets how many values each side stands for."""
    assert seconds > 0, f"a window of {seconds} s: must be positive"
    whole: _Parts | None = None
    covered, power, size = 0, parts, 1
    while True:
        if seconds & size:
            piece = _lag_all(power, covered)
            whole = piece if whole is None else merge(whole, piece, covered, size)
            covered += size
        if 2 * size > seconds:
            assert whole is not None
            return whole
        power = merge(power, _lag_all(power, size), size, size)
        size *= 2


def _lag_all(parts: _Parts, seconds: int) -> _Parts:
    return tuple(Lag(part, seconds) for part in parts) if seconds else parts


def total(x: Node, seconds: int) -> Node:
    """Return the sum over the last `seconds` seconds, this one included."""
    return fold(x, seconds, lambda later, earlier: later + earlier)


def mean(x: Node, seconds: int) -> Node:
    return total(x, seconds) * (1.0 / seconds)


def highest(x: Node, seconds: int) -> Node:
    return fold(x, seconds, maximum)


def lowest(x: Node, seconds: int) -> Node:
    return fold(x, seconds, minimum)


def std(x: Node, seconds: int) -> Node:
    """Return the sample standard deviation (n − 1) over the last `seconds` seconds.

    Pairs (mean, M2), M2 the sum of squared deviations, are merged (Chan, Golub, LeVeque 1979):
    d = mean_b − mean_a, mean = mean_a + d n_b / n, M2 = M2_a + M2_b + d² n_a n_b / n.
    Never E[x²] − E[x]²: that cancels, and can be negative.
    """
    assert seconds > 1, "the standard deviation of one value is not defined"

    def merge(a: _Parts, b: _Parts, n_a: int, n_b: int) -> _Parts:
        n = n_a + n_b
        delta = b[0] - a[0]
        m2 = delta * delta * (n_a * n_b / n)
        for part in (a, b):
            if len(part) > 1:  # a single value has no M2 yet
                m2 = m2 + part[1]
        return a[0] + delta * (n_b / n), m2

    return sqrt(_fold((x,), seconds, merge)[1] * (1.0 / (seconds - 1)))


def covariance(x: Node, y: Node, seconds: int) -> Node:
    """Return the sample covariance (n − 1) over the last `seconds` seconds.

    Triples (mean x, mean y, C) are merged as in `std`: C = C_a + C_b + d_x d_y n_a n_b / n.
    """
    assert seconds > 1, "the covariance of one pair is not defined"

    def merge(a: _Parts, b: _Parts, n_a: int, n_b: int) -> _Parts:
        n = n_a + n_b
        delta_x, delta_y = b[0] - a[0], b[1] - a[1]
        c = delta_x * delta_y * (n_a * n_b / n)
        for part in (a, b):
            if len(part) > 2:
                c = c + part[2]
        return a[0] + delta_x * (n_b / n), a[1] + delta_y * (n_b / n), c

    return _fold((x, y), seconds, merge)[2] * (1.0 / (seconds - 1))


def since(event: Node, seconds: int) -> Node:
    """Return how many seconds ago `event` was last not 0: 0 for now, `seconds` if not within so many rows."""
    age = where(event, 0.0, float(seconds))

    def merge(later: _Parts, earlier: _Parts, n_later: int, n_earlier: int) -> _Parts:
        return (minimum(later[0], earlier[0] + float(n_later)),)

    return minimum(_fold((age,), seconds, merge)[0], float(seconds))


def reject_common(x: Node) -> Node:
    """Return x, which must differ between symbols: a cross-section of one number says nothing."""
    assert not x.is_common, f"{x} is the same for every symbol: it has no cross-section"
    return x


# ---------------------------------------------------------------------------------------------- arithmetic


def _minimum(x: Floats, y: Floats, out: Floats) -> None:
    np.minimum(x, y, out=out)
    np.add(out, 0.0, out=out)


def _maximum(x: Floats, y: Floats, out: Floats) -> None:
    np.maximum(x, y, out=out)
    np.add(out, 0.0, out=out)


def _assign(out: Floats, value: float, mask: NDArray[np.bool_]) -> None:
    if mask.any():  # most blocks have nothing to assign, and looking is cheaper than assigning nothing
        np.copyto(out, value, where=mask)


def _less(x: Floats, y: Floats, out: Floats) -> None:
    is_missing = np.isnan(x) | np.isnan(y)
    np.copyto(out, np.less(x, y))
    _assign(out, np.nan, is_missing)


def _equal(x: Floats, y: Floats, out: Floats) -> None:
    is_missing = np.isnan(x) | np.isnan(y)
    np.copyto(out, np.equal(x, y))
    _assign(out, np.nan, is_missing)


def _where(condition: Floats, x: Floats, y: Floats, out: Floats) -> None:
    is_missing = np.isnan(condition) | np.isnan(x) | np.isnan(y)
    np.copyto(out, np.where(condition != 0.0, x, y))
    _assign(out, np.nan, is_missing)


def _notional(price: Floats, size: Floats, out: Floats) -> None:
    is_absent = size == 0.0
    np.multiply(price, size, out=out)
    _assign(out, 0.0, is_absent)


def _level_price(price: Floats, size: Floats, absent: Floats, out: Floats) -> None:
    is_absent, is_missing = size == 0.0, np.isnan(size)
    np.copyto(out, np.where(is_absent, absent, price) if is_absent.any() else price)
    _assign(out, np.nan, is_missing)


def _zscore(x: Floats, mean: Floats, deviation: Floats, out: Floats) -> None:
    is_alike = deviation == 0.0
    if is_alike.any():
        is_alike = is_alike & (x == x)
    np.divide(np.subtract(x, mean), deviation, out=out)
    _assign(out, 0.0, is_alike)


def _nonzero(x: Floats, out: Floats) -> None:
    is_zero = x == 0.0
    np.copyto(out, x)
    _assign(out, np.nan, is_zero)


def _share(part: Floats, whole: Floats, out: Floats) -> None:
    is_nothing = whole == 0.0
    if is_nothing.any():
        is_nothing = is_nothing & (part == 0.0)  # a NaN part stays missing
    np.divide(part, whole, out=out)
    _assign(out, 0.0, is_nothing)


LN2_HIGH: Final = float.fromhex("0x1.62e42feep-1")  # 33 bits: exponent x high is exact
LN2_LOW: Final = float.fromhex("0x1.a39ef35793c76p-33")
SQRT_HALF: Final = float.fromhex("0x1.6a09e667f3bcdp-1")  # sqrt(1/2), rounded up
_SQRT_HALF_BITS: Final = np.float64(SQRT_HALF).view(np.int64)
_FRACTION_BITS: Final = np.int64((1 << 52) - 1)
ATANH: Final = tuple(2.0 / (2 * k + 1) for k in range(12, 0, -1))


def _log(x: Floats, out: Floats) -> None:
    """Natural logarithm in + − × ÷ and integer shifts, so that every CPU computes the same bits.

    1. x = 2^e m, m in [sqrt(1/2), sqrt(2)), from the bits; subnormals are scaled by 2^54 first.
    2. f = m − 1 (exact), s = f / (2 + f), log m = 2 atanh s = 2 s + s R, R = 2/3 s² + 2/5 s⁴ + … (|s| <= 0.1716,
       terms up to s^24 leave 2^-60).
    3. With h = f²/2: 2 s = f − s f, s f = h − s h, so log m = f − (h − s (h + R)): the leading f is exact.
    4. log x = e ln2_high − ((h − (s (h + R) + e ln2_low)) − f).
    """
    is_ordinary = (x > 0.0) & (x < np.inf)
    result = np.where(is_ordinary, x, 1.0)
    is_subnormal = result < np.finfo(np.float64).tiny
    if is_subnormal.any():
        result *= np.where(is_subnormal, 2.0**54, 1.0)
    bits = result.view(np.int64)
    exponent = bits - _SQRT_HALF_BITS
    exponent >>= 52
    e = exponent.astype(np.float64)
    if is_subnormal.any():
        e -= np.where(is_subnormal, 54.0, 0.0)
    exponent <<= 52
    bits -= exponent  # result is m now

    f = np.subtract(result, 1.0, out=result)
    s = f + 2.0
    np.divide(f, s, out=s)
    z = s * s
    r = z * ATANH[0]
    for coefficient in ATANH[1:]:
        r += coefficient
        r *= z
    h = 0.5 * f
    h *= f
    r += h
    r *= s  # s (h + R)
    r += e * LN2_LOW
    h -= r
    h -= f
    e *= LN2_HIGH
    e -= h
    if not is_ordinary.all():
        e = np.where(is_ordinary, e, np.where(x > 0.0, np.inf, np.nan))
    np.copyto(out, e)


Operation = Callable[..., object]

OPERATORS: Final[dict[str, Operation]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "sqrt": np.sqrt,
    "log": _log,
    "absolute": np.abs,
    "floor": np.floor,
    "minimum": _minimum,
    "maximum": _maximum,
    "less": _less,
    "equal": _equal,
    "where": _where,
    "notional": _notional,
    "level_price": _level_price,
    "zscore": _zscore,
    "nonzero": _nonzero,
    "share": _share,
}
"""Name → function of (R, N) inputs, common ones (R, 1) or 0-d, and `out`, which may be one of the inputs."""
