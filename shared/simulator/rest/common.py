"""What every group of REST endpoints shares: parameters as Bitget reads them, and what a handler may reach.

A group is a class of handlers with its own `ENDPOINTS`; `rest.Rest` puts the groups behind one door. A handler gets the
parameters (query of a GET, JSON body of a POST) and who asks ("" where public) and returns the `data` of the answer,
or raises `Refused`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, ClassVar, TypeVar

import msgspec

from shared.simulator.clock import MS, Clock
from shared.simulator.desk import Desk
from shared.simulator.faults.conditions import MESSAGES
from shared.simulator.faults.faults import Faults
from shared.simulator.gate import Refused
from shared.simulator.markets.candles import Candles
from shared.simulator.ports import Feed
from shared.simulator.venue.orders import PositionSide, Refusal
from shared.types import Side

DAY_MS = 86_400_000
HISTORY_DAYS = 92
"""Three months, whichever they are: the longest window of most lists."""
MIX = "/api/v2/mix/"
PRODUCT_TYPES = ("USDT-FUTURES", "COIN-FUTURES", "USDC-FUTURES", "SUSDT-FUTURES", "SCOIN-FUTURES", "SUSDC-FUTURES")

Params = Mapping[str, Any]
Answer = TypeVar("Answer")
Item = TypeVar("Item")


class Endpoint(msgspec.Struct, frozen=True):
    method: str
    per_s: int  # per IP where public, per account where private
    is_private: bool
    handler: str  # name of the method of its group
    is_classic: bool = True  # private: not served to unified accounts
    is_in_demo: bool = True  # private: served to demo keys


class Context:
    """What handlers reach: the market as pushed, the venue, the faults, the clock.

    Args:
        after_ms: calls a function so many milliseconds later: matching and pushes follow the ack.
        push: tells private sockets what has happened.
        clock: market time; None: the wall clock.
        candles: those that the pushes have, too; None: its own.
    """

    def __init__(
        self,
        feed: Feed,
        desk: Desk,
        faults: Faults,
        after_ms: Callable[[float, Callable[[], None]], None],
        push: Callable[[], None],
        clock: Clock | None = None,
        candles: Candles | None = None,
    ) -> None:
        self.feed, self.market, self.desk, self.venue = feed, feed.market, desk, desk.venue
        self.faults, self.conditions, self.after_ms, self.push = faults, faults.conditions, after_ms, push
        self.clock = clock or Clock()
        self.candles = candles or Candles(self.market)

    def now_ns(self) -> int:
        return self.clock.now_ns()


class Group:
    """Handlers of one part of the API."""

    ENDPOINTS: ClassVar[dict[str, Endpoint]] = {}

    def __init__(self, context: Context) -> None:
        self.context = context
        self.feed, self.market, self.desk, self.venue = context.feed, context.market, context.desk, context.venue

    def _is_ours(self, params: Params) -> bool:
        product = text(params, "productType")
        if product.upper() not in PRODUCT_TYPES:
            raise Refused("40019", f"Parameter {product or 'productType'} cannot be empty")
        return product.upper() == "USDT-FUTURES"

    def _symbol(self, params: Params) -> str:
        self._is_ours(params)
        symbol = required(params, "symbol")
        if not self.feed.knows(symbol):
            raise Refused("40034", f"Parameter {symbol} does not exist")
        return symbol

    def _mode_is_hedged(self, params: Params, key: str) -> bool:
        """Tell whether the account is hedged; `tradeSide` must be there exactly then."""
        is_hedged = self.venue.position_mode(key) == "hedge_mode"
        if is_hedged != bool(text(params, "tradeSide")):
            # One-way accounts refuse tradeSide, hedge accounts refuse its absence, with the same words (recorded).
            raise Refused("40774", MESSAGES["40774"])
        return is_hedged

    def _sides(self, params: Params, key: str) -> tuple[Side, PositionSide]:
        """Return (economic side, position side) of a request."""
        side = Side(one_of(params, "side", ("buy", "sell")))
        if not self._mode_is_hedged(params, key):
            return side, "net"
        is_close = one_of(params, "tradeSide", ("open", "close")) == "close"
        return side.opposite if is_close else side, "long" if side is Side.BUY else "short"

    def _fields(self, symbol: str) -> dict[str, str]:
        fields = self.feed.ticker_fields(self.context.now_ns(), symbol)
        if fields is None:
            raise Refused("40015", "System is abnormal, please try again later")
        return fields


def text(params: Params, name: str) -> str:
    """Return a parameter, "" where it is absent or null; JSON numbers are as good as strings."""
    value = params.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refused("40020", f"Parameter {name} error")
    return value


def required(params: Params, name: str) -> str:
    value = text(params, name)
    if not value:
        raise Refused("40019", f"Parameter {name} cannot be empty")
    return value


def margin_coin(params: Params) -> None:
    """Check the margin coin, which there is one of."""
    if required(params, "marginCoin").upper() != "USDT":
        raise Refused("40020", "Parameter marginCoin error")


def one_of(params: Params, name: str, allowed: tuple[str, ...], default: str = "") -> str:
    """Return an enumerated parameter in lower case; Bitget does not mind the case."""
    value = (text(params, name) if default else required(params, name)).lower() or default
    if value not in allowed:
        raise Refused("40020", f"Parameter {name} error")
    return value


# Python would also read "1_000", "１" and " 1 ". Beyond the exponents, price x size would not fit into 28 digits.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)
_EXPONENT_MAX = 24


def number(value: Any, name: str) -> Decimal:
    if not isinstance(value, str) or len(value) > 40 or not _NUMBER.fullmatch(value):
        raise Refused("40020", f"Parameter {name} error")
    number = Decimal(value)
    if number and not -_EXPONENT_MAX <= number.adjusted() <= _EXPONENT_MAX:
        raise Refused("40020", f"Parameter {name} error")
    return number


def optional(params: Params, name: str) -> Decimal | None:
    """Return a number, None where it is absent, empty or 0."""
    value = text(params, name)
    return (number(value, name) or None) if value else None


def whole(params: Params, name: str) -> int | None:
    """Return an id or a time in ms, None where it is absent or empty."""
    value = text(params, name)
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 20):
        raise Refused("40020", f"Parameter {name} error")
    return int(value)


def limit(params: Params, default: int = 100, most: int = 100) -> int:
    """Return the page size: more than `most` is silently cut."""
    size = whole(params, "limit")
    if size == 0:
        raise Refused("40020", "Parameter limit error")
    return min(most, default if size is None else size)


def window(params: Params, days_max: int) -> None:
    """Check that startTime and endTime are in order and not too far apart."""
    start, end = whole(params, "startTime"), whole(params, "endTime")
    if start is None or end is None:
        return
    if start > end:
        raise Refused("40707", "Start time is greater than end time")
    if end - start > days_max * DAY_MS:
        raise Refused("00001", f"startTime and endTime interval cannot be greater than {days_max} days")


def paged(
    params: Params,
    items: Iterable[Item],
    *,
    name: str,
    id_of: Callable[[Item], str],
    time_ns_of: Callable[[Item], int],
    row: Callable[[Item], dict[str, Any]],
    default: int = 100,
) -> dict[str, Any]:
    """Return one page, newest id first: what is older than `idLessThan` and between `startTime` and `endTime`.

    An empty list is null in paged answers, and so is its endId (recorded).
    """
    before, start, end = whole(params, "idLessThan"), whole(params, "startTime"), whole(params, "endTime")
    found = [
        (int(id_of(item)), item)
        for item in items
        if (before is None or int(id_of(item)) < before)
        and (start is None or time_ns_of(item) // MS >= start)
        and (end is None or time_ns_of(item) // MS <= end)
    ]
    found.sort(key=lambda pair: pair[0], reverse=True)
    found = found[: limit(params, default)]
    return {name: [row(item) for _, item in found] or None, "endId": str(found[-1][0]) if found else None}


def unless_refused(answer: Answer | Refusal) -> Answer:
    if isinstance(answer, Refusal):
        raise Refused(answer.code, answer.message)
    return answer


class JsonNumber(str):
    """A decimal that is written into JSON as a number, digit for digit (`merge-depth` alone does that)."""

    __slots__ = ()
