"""What every group of REST endpoints shares: parameters as Bitget reads them, and what a handler may reach.

A group is a class of handlers with its own `ENDPOINTS`; `rest.Rest` puts the groups behind one door. A handler gets the
parameters (query of a GET, JSON body of a POST) and who asks ("" where public) and returns the `data` of the answer,
or raises `Refused`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar, TypeVar

import msgspec

from shared.simulator.clock import Clock
from shared.simulator.conditions import Conditions
from shared.simulator.desk import Desk
from shared.simulator.feed import PublicFeed
from shared.simulator.gate import Refused
from shared.simulator.orders import Refusal

MS = 1_000_000
DAY_MS = 86_400_000
MIX = "/api/v2/mix/"
PRODUCT_TYPES = ("USDT-FUTURES", "COIN-FUTURES", "USDC-FUTURES", "SUSDT-FUTURES", "SCOIN-FUTURES", "SUSDC-FUTURES")

Params = Mapping[str, Any]
Answer = TypeVar("Answer")


class Endpoint(msgspec.Struct, frozen=True):
    method: str
    per_s: int  # per IP where public, per account where private
    is_private: bool
    handler: str  # name of the method of its group


class Context:
    """What handlers reach: the market as pushed, the venue, the conditions, the clock.

    Args:
        after_ms: calls a function so many milliseconds later: matching and pushes follow the ack.
        push: tells private sockets what has happened.
        clock: market time; None: the wall clock.
    """

    def __init__(
        self,
        feed: PublicFeed,
        desk: Desk,
        conditions: Conditions,
        after_ms: Callable[[float, Callable[[], None]], None],
        push: Callable[[], None],
        clock: Clock | None = None,
    ) -> None:
        self.feed, self.market, self.desk, self.venue = feed, feed.market, desk, desk.venue
        self.conditions, self.after_ms, self.push = conditions, after_ms, push
        self.clock = clock or Clock()

    def now_ns(self) -> int:
        return self.clock.now_ns()


class Group:
    """Handlers of one part of the API."""

    ENDPOINTS: ClassVar[dict[str, Endpoint]] = {}

    def __init__(self, context: Context) -> None:
        self.context = context
        self.feed, self.market, self.desk, self.venue = context.feed, context.market, context.desk, context.venue

    def _is_ours(self, params: Params) -> bool:
        product = str(params.get("productType", ""))
        if product.upper() not in PRODUCT_TYPES:
            raise Refused("40019", f"Parameter {product or 'productType'} cannot be empty")
        return product.upper() == "USDT-FUTURES"

    def _symbol(self, params: Params) -> str:
        self._is_ours(params)
        symbol = params.get("symbol")
        if not symbol:
            raise Refused("40019", "Parameter symbol cannot be empty")
        if not self.feed.knows(str(symbol)):
            raise Refused("40034", f"Parameter {symbol} does not exist")
        return str(symbol)

    def _fields(self, symbol: str) -> dict[str, str]:
        fields = self.feed.ticker_fields(self.context.now_ns(), symbol)
        if fields is None:
            raise Refused("40015", "System is abnormal, please try again later")
        return fields


def required(params: Params, name: str) -> Any:
    value = params.get(name)
    if value in (None, ""):
        raise Refused("40019", f"Parameter {name} cannot be empty")
    return value


def one_of(params: Params, name: str, allowed: tuple[str, ...]) -> str:
    """Return an enumerated parameter in lower case; Bitget does not mind the case."""
    value = str(required(params, name)).lower()
    if value not in allowed:
        raise Refused("40020", f"Parameter {name} error")
    return value


def number(value: Any, name: str) -> Decimal:
    if not isinstance(value, str) or len(value) > 40:
        raise Refused("40020", f"Parameter {name} error")
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise Refused("40020", f"Parameter {name} error") from None
    if not number.is_finite():
        raise Refused("40020", f"Parameter {name} error")
    return number


def optional(params: Params, name: str) -> Decimal | None:
    value = params.get(name)
    return None if value in (None, "", "0") else number(value, name)


def limit(params: Params, default: int = 100) -> int:
    """Return the page size, 100 at most: more is silently cut."""
    value = str(params.get("limit") or default)
    if not value.isdigit() or int(value) == 0:
        raise Refused("40020", "Parameter limit error")
    return min(100, int(value))


def in_time(params: Params, time_ns: int) -> bool:
    start, end = params.get("startTime"), params.get("endTime")
    at_ms = time_ns // MS
    return (not start or at_ms >= number(start, "startTime")) and (not end or at_ms <= number(end, "endTime"))


def unless_refused(answer: Answer | Refusal) -> Answer:
    if isinstance(answer, Refusal):
        raise Refused(answer.code, answer.message)
    return answer


class JsonNumber(str):
    """A decimal that is written into JSON as a number, digit for digit (`merge-depth` alone does that)."""

    __slots__ = ()
