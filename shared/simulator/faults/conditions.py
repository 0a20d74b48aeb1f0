"""What can be made to go wrong, as one document: typed, validated, seeded, and changed while the simulator runs.

`Conditions` is the state that `GET /_control/conditions` shows. `Change` is what a person, a test or a step of a script
wants different; what it does not name stays. `Script` is a whole failure run: a seed, what holds from the beginning,
and steps at a time or after the n-th event. This module says what is wanted; `faults` decides when it strikes.

Times are real ones (a client's patience is), probabilities are in [0, 1], and a rule with a `count` is spent after so
many strikes. A list of rules is replaced as a whole; the first rules of a list are applied first.

To extend: add a field to `Conditions` (it appears in `Change` by itself where its name ends nothing special, see
`Change`), and the place that looks at it.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import msgspec

Chance = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Millis = Annotated[float, msgspec.Meta(ge=0.0, le=3_600_000.0)]
Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=1_000_000.0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Stream = Literal["all", "public", "private"]

Z99 = 2.3263478740408408
"""The standard normal's 99th percentile: ln(p99/p50) of a lognormal is so many sigmas."""

CONTROL_FRAMES = ("ack", "login", "pong", "error")
"""What frames that are no pushes are called in a push rule; patterns match pushes only, these names are exact."""

MESSAGES = {
    "429": "Too Many Requests",
    "40008": "Request timestamp expired",
    "40010": "Request timed out",
    "40015": "System is abnormal, please try again later",
    "40200": "Server upgrade, please try again later",
    "40725": "service return an error",
    "40774": "The order type for unilateral position must also be the unilateral position type.",
    "40808": "Parameter verification exception",
    "43023": "Insufficient position, can not set profit or stop loss",
    "45001": "Unknown error",
}
"""Bitget's words for codes that a rule names without a message (Bitget v2, error codes)."""


class _Rule(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What every rule has: how often, and how many times at most."""

    p: Chance = 1.0
    count: Count | None = None  # None: without end


# ----------------------------------------------------------------------------------------------------- latency


class _Spiked(
    msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True, omit_defaults=True, tag_field="kind"
):
    spike_p: Chance = 0.0
    spike_ms: Millis = 0.0  # is added


class Constant(_Spiked, frozen=True, tag="constant"):
    ms: Millis

    def at(self, u: float, z: float) -> float:
        return self.ms


class Uniform(_Spiked, frozen=True, tag="uniform"):
    ms_min: Millis
    ms_max: Millis

    def __post_init__(self) -> None:
        if self.ms_min > self.ms_max:
            raise ValueError(f"ms_min must not exceed ms_max, found {self.ms_min:g} and {self.ms_max:g}")

    def at(self, u: float, z: float) -> float:
        return self.ms_min + u * (self.ms_max - self.ms_min)


class Lognormal(_Spiked, frozen=True, tag="lognormal"):
    """exp(N(ln p50, (ln(p99/p50)/2.326)^2)), ms: what network and queue times look like."""

    p50_ms: Annotated[float, msgspec.Meta(gt=0.0, le=3_600_000.0)]
    p99_ms: Annotated[float, msgspec.Meta(gt=0.0, le=3_600_000.0)]

    def __post_init__(self) -> None:
        if self.p50_ms > self.p99_ms:
            raise ValueError(f"p50_ms must not exceed p99_ms, found {self.p50_ms:g} and {self.p99_ms:g}")

    def at(self, u: float, z: float) -> float:
        return min(3_600_000.0, self.p50_ms * math.exp(z * math.log(self.p99_ms / self.p50_ms) / Z99))


Latency = Constant | Uniform | Lognormal
"""`at(u, z)` gives milliseconds from a uniform and a standard normal draw."""


# ------------------------------------------------------------------------------------------------------- rules


class Strike(msgspec.Struct, forbid_unknown_fields=True):
    """An answer that the next request to a path gets instead of its own."""

    path: str  # the end of the path, e.g. "order/place-order"
    code: str
    msg: str
    status: int = 400


class RequestFault(_Rule):
    """Something that happens to REST requests; also to a WebSocket's handshake, whose path is "ws/public".

    `when` is before the request is acted on, or after: "silence" before is a request that was lost, after it is one
    that times out *after* it was accepted.

        delay     it takes `delay` longer
        silence   it is never answered
        reset     the connection is reset: before without an answer, after in the middle of it
        refuse    an envelope with `code`, `msg`, HTTP `status` (400; 429 where the code is 429)
        gateway   HTML of a proxy with HTTP `status` (502)
        torn      HTTP 200, complete as HTTP has it, but its JSON is cut
        not_json  HTTP 200, a text that is no JSON
        empty     HTTP 200 without a body
    """

    what: Literal["delay", "silence", "reset", "refuse", "gateway", "torn", "not_json", "empty"]
    path: str = "*"  # patterns of the whole path or its end, with "|" between: "order/place-order|*/position/*"
    when: Literal["before", "after"] = "before"
    delay: Latency | None = None  # exactly with "delay"
    code: str = "40725"
    msg: str = ""  # "": Bitget's words for the code
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] | None = None  # None: 400, 429 or 502

    def __post_init__(self) -> None:
        if (self.what == "delay") != (self.delay is not None):
            raise ValueError(f'"delay" needs a delay and nothing else has one, found {self.what!r}')
        if self.what == "torn" and self.when == "before":
            raise ValueError('"torn" needs an answer to tear: when must be "after"')

    @property
    def message(self) -> str:
        return self.msg or MESSAGES.get(self.code, "Unknown error")

    @property
    def http_status(self) -> int:
        if self.status is not None:
            return self.status
        return 502 if self.what == "gateway" else 429 if self.code == "429" else 400


class PushFault(_Rule):
    """Something that happens to frames of a WebSocket, decided frame by frame and connection by connection.

    lose             it is not sent (p 1: frozen; with a symbol: half-frozen; "pong": pings go unanswered)
    duplicate        it is sent twice
    reorder          it is sent behind up to `window` later frames (within a second at the latest)
    late             it alone is sent `delay` later, and overtaken
    delay            it and all that is behind it are sent `delay` later
    gap              its `pseq` is changed: what came before it seems to be missing
    tear             a text frame whose JSON is cut
    cut              half of a WebSocket frame, and then the end of the connection
    oversize         padded to `size_bytes`
    not_json, not_utf8, binary
    wrong_symbol, unknown_channel, unknown_field, blank_field
    error            an error frame (`code`, `msg`) out of nowhere, before it
    """

    what: Literal[
        "lose", "duplicate", "reorder", "late", "delay", "gap", "tear", "cut", "oversize", "not_json", "not_utf8",
        "binary", "wrong_symbol", "unknown_channel", "unknown_field", "blank_field", "error",
    ]  # fmt: skip
    stream: Stream = "all"
    channel: str = "*"  # patterns of channels with "|" between, or exactly "ack", "login", "pong", "error"
    symbol: str = "*"  # likewise; of a private push: that of its first row
    delay: Latency | None = None  # exactly with "late" and "delay"
    window: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=64 * 2**20)] = 17 * 2**20  # our clients read 16 MiB
    code: int = 30006
    msg: str = "request too many"

    def __post_init__(self) -> None:
        if (self.what in ("delay", "late")) != (self.delay is not None):
            raise ValueError(f'"delay" and "late" need a delay and nothing else has one, found {self.what!r}')


class OrderFault(_Rule):
    """An order that is accepted, and rejected when it is matched: with a push of the cancellation, or in silence."""

    symbol: str = "*"
    is_pushed: bool = True


class Disconnect(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Connections end after exponentially distributed times."""

    every_s: Annotated[float, msgspec.Meta(gt=0.0, le=1_000_000.0)]  # mean
    stream: Stream = "all"
    how: Literal["abort", "close"] = "abort"  # as a broken network does, or with a close frame (1001)


class Slow(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Connections deliver so much and no more; what is behind waits."""

    bytes_per_s: Annotated[int, msgspec.Meta(ge=1)]
    stream: Stream = "all"


# ------------------------------------------------------------------------------------------------------- state


class Conditions(msgspec.Struct, forbid_unknown_fields=True):
    """Everything polite by default."""

    timeout_next_place: Count = 0  # so many placements are accepted and never answered
    lose_next_place: Count = 0  # so many placements are neither accepted nor answered
    latency_ms: Millis = 0.0  # before every private REST request is looked at
    match_ms: Millis = 5.0  # between the ack and the matching of an order
    refuse_next: list[Strike] = []
    is_frozen: bool = False  # public pushes stop, sockets stay up
    is_private_mute: bool = False  # private pushes are lost
    stop_never_triggers: bool = False
    bill_delay_ms: Millis = 0.0  # between a movement of the wallet and the bill that tells of it
    requests: list[RequestFault] = []
    pushes: list[PushFault] = []
    orders: list[OrderFault] = []
    disconnects: list[Disconnect] = []
    slow: list[Slow] = []
    clock_skew_ms: Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)] = 0.0  # the server's clock is ahead by so much
    position_delay_ms: Millis = 0.0  # positions are seen late; a close before that is refused with 43023
    rate_limit_scale: Annotated[float, msgspec.Meta(gt=0.0, le=100.0)] = 1.0  # 0.5: half the calls a second
    refuse_logins: Count = 0  # so many logins to the private stream are refused
    refuse_login_code: int = 30005
    contracts: dict[str, dict[str, str]] = {}  # symbol -> fields of its contract row that are different now


class PositionModeSwitch(msgspec.Struct, forbid_unknown_fields=True):
    """Somebody else switches the position mode of an account."""

    mode: Literal["one_way_mode", "hedge_mode"]
    account: str = ""  # its key; "": every account


class Change(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a person or a test wants changed; what is absent stays as it is.

    Fields with the names of `Conditions` are states. The last two are deeds, done once.
    """

    timeout_next_place: Count | bool | None = None
    lose_next_place: Count | bool | None = None
    latency_ms: Millis | None = None
    match_ms: Millis | None = None
    refuse_next: list[Strike] | None = None
    is_frozen: bool | None = None
    is_private_mute: bool | None = None
    stop_never_triggers: bool | None = None
    bill_delay_ms: Millis | None = None
    requests: list[RequestFault] | None = None
    pushes: list[PushFault] | None = None
    orders: list[OrderFault] | None = None
    disconnects: list[Disconnect] | None = None
    slow: list[Slow] | None = None
    clock_skew_ms: Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)] | None = None
    position_delay_ms: Millis | None = None
    rate_limit_scale: Annotated[float, msgspec.Meta(gt=0.0, le=100.0)] | None = None
    refuse_logins: Count | bool | None = None
    refuse_login_code: int | None = None
    contracts: dict[str, dict[str, str]] | None = None  # an empty row gives a symbol its own rules back
    drop_sockets: bool | Stream | None = None  # at once, without a close frame: true or "all", "public", "private"
    position_mode: PositionModeSwitch | None = None

    def apply(self, conditions: Conditions) -> None:
        """Change the states of `conditions` in place; true counts as 1."""
        for name in conditions.__struct_fields__:
            value = getattr(self, name)
            if value is None:
                continue
            if name == "contracts":
                merged = conditions.contracts | value
                value = {symbol: row for symbol, row in merged.items() if row}
            elif name in _COUNTERS:
                value = int(value)
            elif isinstance(value, list):
                value = [msgspec.structs.replace(rule) for rule in value]  # a step may be taken twice, rules count down
            setattr(conditions, name, value)


_COUNTERS = ("timeout_next_place", "lose_next_place", "refuse_logins")

POLITE = msgspec.to_builtins(Conditions())
"""Every state as it is when nothing is wrong."""


# ------------------------------------------------------------------------------------------------------ script


class After(msgspec.Struct, forbid_unknown_fields=True):
    """The n-th event since the script began: a request to a path, a push of a channel, a connect of a stream."""

    event: Literal["request", "push", "connect"]
    name: str = "*"  # pattern: end of a path, channel, "public" or "private"
    n: Annotated[int, msgspec.Meta(ge=1)] = 1


class Step(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A change at a time, once or again and again, or after an event."""

    change: Change
    at_s: Seconds | None = None  # since the script began
    after: After | None = None
    every_s: Annotated[float, msgspec.Meta(gt=0.0, le=1_000_000.0)] | None = None  # again after so long; with at_s
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None  # None: without end where `every_s` is given

    def __post_init__(self) -> None:
        if (self.at_s is None) == (self.after is None):
            raise ValueError("a step needs at_s or after, and not both")
        if self.every_s is not None and self.at_s is None:
            raise ValueError("every_s needs at_s")
        if self.times is not None and self.every_s is None:
            raise ValueError("times needs every_s")


class Script(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A whole failure run. What `conditions` does not name is polite when it begins."""

    seed: Seed | None = None  # None: the one that the simulator has
    conditions: Change = msgspec.field(default_factory=Change)
    steps: list[Step] = []


def decode_script(raw: bytes) -> Script:
    """Return the script that a JSON document describes.

    Raises:
        msgspec.DecodeError: it is no JSON, or not what a script is; the message says where.
    """
    return msgspec.json.decode(raw, type=Script)


def polite_change() -> Change:
    """Return the change that makes everything polite again."""
    return msgspec.convert(POLITE, Change)


def matches(pattern: str, name: str) -> bool:
    """Tell whether one of the patterns with "|" between them fits the whole name."""
    return any(fnmatchcase(name, one) for one in pattern.split("|"))


def matches_path(pattern: str, path: str) -> bool:
    """Tell whether one of the patterns fits a path or its end."""
    return any(fnmatchcase(path, one) or fnmatchcase(path, "*/" + one) for one in pattern.split("|"))


def dump(value: Any) -> Any:
    """Return what JSON shows of a condition, change or script."""
    return msgspec.to_builtins(value)
