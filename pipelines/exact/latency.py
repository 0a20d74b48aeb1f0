"""How long things take between us and the exchange, as distributions that are drawn from by seed and request.

    we send ──answer/2──> accepted or refused ── ... ── answer ──> we know
      └───────── entry ─────────> matched ── push ──> we know what it traded

On Bitget an answer says that an order was taken, not that it was matched (matching comes some 60 ms later), so
`entry` and `answer` are both counted from the sending, and either may be the longer one.

Draws depend on the seed, the request's name and the time of its sending alone, through Philox: another order more or
less changes no other order's latency, and a run repeats bit for bit.

To extend: another distribution is a Struct with `quantile_ms`, added to `Distribution`.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from statistics import NormalDist
from typing import Annotated, Any

import msgspec
import numpy as np

from shared.types import Floats, Ints

MS_NS = 1_000_000
Millis = Annotated[float, msgspec.Meta(ge=0.0, le=60_000.0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]

_normal_quantile = NormalDist().inv_cdf
_Z99 = _normal_quantile(0.99)
_U_MIN = 2.0**-53  # a uniform of 0 has no normal quantile


class Constant(msgspec.Struct, frozen=True, tag="constant", forbid_unknown_fields=True):
    ms: Millis = 0.0

    def quantile_ms(self, u: float) -> float:
        return self.ms


class Lognormal(msgspec.Struct, frozen=True, tag="lognormal", forbid_unknown_fields=True):
    """exp(N(ln p50, (ln(p99 / p50) / 2.326)²)), ms: what network and queue times look like."""

    p50_ms: Annotated[float, msgspec.Meta(gt=0.0, le=60_000.0)]
    p99_ms: Annotated[float, msgspec.Meta(gt=0.0, le=60_000.0)]

    def __post_init__(self) -> None:
        if self.p50_ms > self.p99_ms:
            raise ValueError(f"p50_ms must not exceed p99_ms, found {self.p50_ms:g} and {self.p99_ms:g}")

    def quantile_ms(self, u: float) -> float:
        z = _normal_quantile(min(max(u, _U_MIN), 1.0 - _U_MIN))
        return min(60_000.0, self.p50_ms * math.exp(z * math.log(self.p99_ms / self.p50_ms) / _Z99))


class Empirical(msgspec.Struct, frozen=True, tag="empirical", forbid_unknown_fields=True):
    """What was measured: quantiles at equal steps of probability, from the least (0) to the greatest (1)."""

    quantiles_ms: Annotated[tuple[Millis, ...], msgspec.Meta(min_length=2)]
    samples: int = 0  # that it was made of; 0: unknown

    def __post_init__(self) -> None:
        if list(self.quantiles_ms) != sorted(self.quantiles_ms):
            raise ValueError("quantiles_ms must ascend, found one that is below the one before")

    def quantile_ms(self, u: float) -> float:
        at = u * (len(self.quantiles_ms) - 1)
        k = min(int(at), len(self.quantiles_ms) - 2)
        below, above = self.quantiles_ms[k], self.quantiles_ms[k + 1]
        return below + (at - k) * (above - below)


Distribution = Constant | Lognormal | Empirical
"""`quantile_ms(u)` gives milliseconds for a uniform u in [0, 1)."""


def empirical(samples_ms: Floats, steps: int = 1000) -> Empirical:
    """Return the table of a sample; of few samples every one is in it, of many every step's quantile."""
    values = np.sort(np.maximum(samples_ms, 0.0))
    probabilities = np.linspace(0.0, 1.0, min(steps, max(len(values) - 1, 1)) + 1)
    table = np.quantile(values, probabilities)
    return Empirical(tuple(float(round(ms, 6)) for ms in table), samples=len(values))


class Latencies(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request lives through. The defaults are an assumption, to be replaced by what live sessions measured."""

    decide: Distribution = Constant(15.0)  # from the end of a second until its orders are sent
    entry: Distribution = Lognormal(90.0, 350.0)  # from the sending until matching has it
    answer: Distribution = Lognormal(40.0, 250.0)  # from the sending until its answer is here
    push: Distribution = Lognormal(30.0, 150.0)  # from matching until the private stream has told us
    feed: Distribution | None = None  # from the exchange's time of a tick until its receipt; None: as it was recorded
    lost_share: Share = 0.0  # of placements whose answer never comes: the order may be live all the same


class Trip(msgspec.Struct, frozen=True):
    """What one request will have lived through, ns after its sending."""

    accepted_ns: int
    matched_ns: int
    answered_ns: int
    is_lost: bool  # the answer never comes, where it is a placement's


class Draws:
    """The latencies of a run."""

    def __init__(self, latencies: Latencies, seed: int) -> None:
        self.latencies, self.seed = latencies, seed
        drawn = (latencies.decide, latencies.entry, latencies.answer, latencies.push)
        # Its state is set for every draw: a new one would take 60 us, and a new state 4.
        self._philox, self._state = np.random.Philox(0), _state(seed, "")
        self._is_certain = not latencies.lost_share and all(isinstance(one, Constant) for one in drawn)

    def trip(self, name: str, now_ns: int) -> Trip:
        """Return what a request lives through.

        Args:
            name: of what is asked for, an order's client_oid for one.
        """
        u = self._uniform(f"{name} {now_ns}", 3)
        entry, answer = _ns(self.latencies.entry, u[0]), _ns(self.latencies.answer, u[1])
        is_lost = u[2] < self.latencies.lost_share
        return Trip(min(entry, answer // 2), entry, answer, is_lost)

    def push_ns(self, now_ns: int) -> int:
        """Return how long the private stream takes to tell what happened at a time."""
        return _ns(self.latencies.push, self._uniform(f"push {now_ns}", 1)[0])

    def decide_ns(self, second: int) -> int:
        """Return how long after its end a second has been decided about."""
        return _ns(self.latencies.decide, self._uniform(f"second {second}", 1)[0])

    def _uniform(self, name: str, n: int) -> list[float]:
        if self._is_certain:
            return [0.5] * n
        self._state["state"]["key"][1] = _word(name)
        self._philox.state = self._state
        return [(word >> 11) * 2.0**-53 for word in self._philox.random_raw(n).tolist()]


def feed_ns(distribution: Distribution, seed: int, symbol: str, n_rows: int) -> Ints:
    """Return how long n rows of a symbol took to us, drawn independently, ns."""
    philox = np.random.Philox(0)
    philox.state = _state(seed, f"feed {symbol}")
    uniform = np.random.Generator(philox).random(n_rows)
    if isinstance(distribution, Empirical):
        table = np.asarray(distribution.quantiles_ms)
        ms = np.interp(uniform * (len(table) - 1), np.arange(len(table)), table)
    else:
        ms = np.array([distribution.quantile_ms(float(u)) for u in uniform])
    latency_ns: Ints = np.rint(ms * MS_NS).astype(np.int64)
    return latency_ns


def _state(seed: int, name: str) -> Any:
    """Return the state of a Philox at its beginning, keyed by seed and name."""
    return {
        "bit_generator": "Philox",
        "state": {"counter": np.zeros(4, np.uint64), "key": np.array([seed, _word(name)], np.uint64)},
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }


def _word(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def _ns(distribution: Distribution, u: float) -> int:
    return round(distribution.quantile_ms(u) * MS_NS)
