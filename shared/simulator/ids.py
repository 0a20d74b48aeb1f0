"""Bitget's ids: 64 bits, milliseconds since an epoch of its own and a counter; measured on four kinds of id."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

SNOWFLAKE_EPOCH_MS: Final = 1_435_725_920_677

_COUNTER_BITS = 22

T = TypeVar("T", int, NDArray[np.signedinteger[Any]])


def snowflake(ms: T, counter: T) -> T:
    """Return the id of a moment; of the counter only the low 22 bits count.

    Args:
        ms: since the Unix epoch; an int or an array of them, as the counter.
    """
    return ((ms - SNOWFLAKE_EPOCH_MS) << _COUNTER_BITS) | (counter & ((1 << _COUNTER_BITS) - 1))


def ms_of(snowflake_id: int) -> int:
    """Return when an id was made, ms since the Unix epoch."""
    return (snowflake_id >> _COUNTER_BITS) + SNOWFLAKE_EPOCH_MS
