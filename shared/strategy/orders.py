"""Orders: the life of one, as a table of transitions that a reader can check against the exchange's rules.

    SENT ──accepted──> LIVE ──> PARTIALLY_FILLED ──> FILLED
      │                  └────────────┴────────────> CANCELED
      ├──refused──> REFUSED
      └──no answer──> UNKNOWN ──found──> any of the above
                         └──absent, 30 s after sending──> ABSENT

* A timed-out placement is UNKNOWN and never sent again; only news about it resolves it (Bitget v2 checks clientOid
  against *pending* orders only: a market order that was sent twice fills twice).
* `order/detail` not knowing an order proves nothing while its signed request could still be accepted: Bitget takes a
  request up to 30 s after its timestamp (PROTOCOL: code 40008). Until then ABSENT is not in the table's way: the
  caller does not ask it.
* Reports come twice, late and out of order. What is final stays final, except that evidence of life beats a belief of
  death: an order that was REFUSED or ABSENT and is then reported exists, and we own it.
* What the table does not list changes nothing and is said aloud.

A final order is *done* once the fills that its last report counts have arrived; until then it still holds exposure.
"""

from __future__ import annotations

import enum
import hashlib
from collections import deque
from collections.abc import Iterator
from decimal import Decimal

from shared.types import NS, Cause, OrderKind, OrderStatus, PlaceOrder, Side

SIGNATURE_WINDOW_NS = 30 * NS
ABSENT_AFTER_NS = SIGNATURE_WINDOW_NS + 5 * NS
"""5 s beyond the signature window: the executor may send up to 3 s after the action, and clocks may differ by 2 s."""

QUERY_EVERY_NS = 2 * NS - NS // 2
"""Every 2 s, asked on closing seconds: these jitter, and one that closes half a second early is on time."""

ANSWER_WITHIN_NS = 10 * NS
"""Neither ack nor refusal nor time-out for so long: our own shell lost it, which is a time-out too."""

RESTING_QUERY_EVERY_NS = 30 * NS
CANCEL_AGAIN_NS = 5 * NS
KEEP_DONE_NS = 600 * NS
"""A done order is remembered so long, since reports may repeat."""


class State(enum.StrEnum):
    SENT = "sent"
    UNKNOWN = "unknown"
    LIVE = "live"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"
    REFUSED = "refused"
    ABSENT = "absent"

    @property
    def is_final(self) -> bool:
        return self in _FINAL


class Told(enum.StrEnum):
    """What we can be told about an order."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    TIMED_OUT = "timed_out"
    ABSENT = "absent"  # only after ABSENT_AFTER_NS
    LIVE = "live"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"


_FINAL = frozenset({State.FILLED, State.CANCELED, State.REFUSED, State.ABSENT})

_REPORTS = {
    Told.LIVE: State.LIVE,
    Told.PARTIALLY_FILLED: State.PARTIALLY_FILLED,
    Told.FILLED: State.FILLED,
    Told.CANCELED: State.CANCELED,
}

TRANSITIONS: dict[tuple[State, Told], State] = {
    # The placement's own answer.
    (State.SENT, Told.ACCEPTED): State.LIVE,
    (State.SENT, Told.REFUSED): State.REFUSED,
    (State.SENT, Told.TIMED_OUT): State.UNKNOWN,
    (State.UNKNOWN, Told.ACCEPTED): State.LIVE,
    (State.UNKNOWN, Told.REFUSED): State.REFUSED,
    (State.UNKNOWN, Told.TIMED_OUT): State.UNKNOWN,
    # A private push can overtake the answer: the answer then says nothing new.
    **{(s, Told.ACCEPTED): s for s in (State.LIVE, State.PARTIALLY_FILLED, State.FILLED, State.CANCELED)},
    **{(s, Told.TIMED_OUT): s for s in (State.LIVE, State.PARTIALLY_FILLED, State.FILLED, State.CANCELED)},
    # Reports, from before the answer on.
    **{(State.SENT, told): state for told, state in _REPORTS.items()},
    **{(State.UNKNOWN, told): state for told, state in _REPORTS.items()},
    **{(State.LIVE, told): state for told, state in _REPORTS.items()},
    **{(State.PARTIALLY_FILLED, told): state for told, state in _REPORTS.items()},
    (State.PARTIALLY_FILLED, Told.LIVE): State.PARTIALLY_FILLED,  # a late report: fills do not go back
    # Final is final; what comes late repeats the past.
    **{(State.FILLED, told): State.FILLED for told in _REPORTS},
    **{(State.CANCELED, told): State.CANCELED for told in _REPORTS},
    (State.CANCELED, Told.FILLED): State.FILLED,  # the cancel lost the race and its report came first
    # Absence, proven.
    (State.SENT, Told.ABSENT): State.ABSENT,
    (State.UNKNOWN, Told.ABSENT): State.ABSENT,
    (State.ABSENT, Told.ABSENT): State.ABSENT,
    (State.REFUSED, Told.ABSENT): State.REFUSED,
    (State.REFUSED, Told.REFUSED): State.REFUSED,
    # Evidence of life.
    **{(State.ABSENT, told): state for told, state in _REPORTS.items()},
    **{(State.REFUSED, told): state for told, state in _REPORTS.items()},
    (State.ABSENT, Told.ACCEPTED): State.LIVE,
}

_TOLD_OF_STATUS = {
    OrderStatus.LIVE: Told.LIVE,
    OrderStatus.PARTIALLY_FILLED: Told.PARTIALLY_FILLED,
    OrderStatus.FILLED: Told.FILLED,
    OrderStatus.CANCELED: Told.CANCELED,
}


def told_of(status: OrderStatus) -> Told:
    """Return what a report of Bitget's status tells."""
    return _TOLD_OF_STATUS[status]


def client_oid(session: str, decision: int, symbol: str, leg: str) -> str:
    """Return the order's name, 32 hexadecimal digits of a hash: symbols can be Chinese, Bitget's alphabet is not.

    Bitget v2, Place Order -> clientOid: `[0-9A-Za-z-+_#:]`, 32 characters by the strictest of its pages.
    """
    text = "\x1f".join((session, str(decision), symbol, leg))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Order:
    """One order and everything that was said about it."""

    __slots__ = (
        "asked_ns",
        "cancel_sent_ns",
        "cause",
        "client_oid",
        "decision",
        "done_ns",
        "filled",
        "final_ns",
        "half_spread",
        "is_flash",
        "is_waived",
        "kind",
        "mid",
        "news_ns",
        "order_id",
        "price",
        "reduce_only",
        "reported_filled",
        "sent_ns",
        "side",
        "size",
        "state",
        "stop_price",
        "symbol",
        "wants_cancel",
    )

    def __init__(
        self, place: PlaceOrder, *, sent_ns: int, decision: int, mid: Decimal | None, half_spread: Decimal | None
    ) -> None:
        self.client_oid = place.client_oid
        self.order_id = ""
        self.symbol = place.symbol
        self.side = place.side
        self.kind = place.kind
        self.size = place.size
        self.price = place.price  # None: a market order
        self.reduce_only = place.reduce_only
        self.stop_price = place.stop_price
        self.cause = place.cause
        self.is_flash = place.is_flash
        self.decision = decision
        self.mid = mid  # at the decision; None: the book was not known
        self.half_spread = half_spread
        self.state = State.SENT
        self.filled = Decimal(0)  # from fills
        self.reported_filled = Decimal(0)  # from reports
        self.sent_ns = sent_ns
        self.news_ns = sent_ns  # last time anybody told us something
        self.asked_ns = sent_ns  # last time we asked
        self.cancel_sent_ns = 0  # 0: no cancel was sent
        self.wants_cancel = False
        self.is_waived = False  # the ledger was corrected from the exchange's position: missing fills are in it
        self.final_ns = 0  # when its state became final; 0: it is not
        self.done_ns = 0

    @property
    def is_done(self) -> bool:
        return self.state.is_final and (self.filled >= self.reported_filled or self.is_waived)

    @property
    def remaining(self) -> Decimal:
        """Return what may still fill or has filled without our having seen it."""
        if self.is_done:
            return Decimal(0)
        open_size = self.reported_filled if self.state.is_final else self.size
        return max(open_size - self.filled, Decimal(0))

    @property
    def rests(self) -> bool:
        return self.kind in (OrderKind.LIMIT, OrderKind.POST_ONLY)


class Orders:
    """Every order of the session that is not yet forgotten, in the order of sending."""

    def __init__(self) -> None:
        self._orders: dict[str, Order] = {}
        self._sent: deque[Order] = deque()  # the same ones: a dict walks over all that was deleted at its front
        self._by_order_id: dict[str, str] = {}
        self._working: dict[str, Order] = {}

    def add(self, order: Order) -> None:
        assert order.client_oid not in self._orders, f"{order.client_oid} was used before"
        self._orders[order.client_oid] = order
        self._sent.append(order)
        self._working[order.client_oid] = order

    def __contains__(self, oid: str) -> bool:
        return oid in self._orders

    def get(self, oid: str, order_id: str = "") -> Order | None:
        """Return an order by our name or the exchange's; None: not ours, or forgotten."""
        order = self._orders.get(oid) if oid else None
        if order is None and order_id:
            order = self._orders.get(self._by_order_id.get(order_id, ""))
        return order

    def name(self, order: Order, order_id: str) -> bool:
        """Learn the exchange's name of an order; True the first time."""
        if not order_id or order.order_id:
            return False
        order.order_id = order_id
        self._by_order_id[order_id] = order.client_oid
        return True

    def tell(self, order: Order, told: Told, now_ns: int) -> bool:
        """Move an order along the table; False: the table has no such step, nothing changed."""
        after = TRANSITIONS.get((order.state, told))
        if after is None:
            return False
        order.state = after
        order.news_ns = now_ns
        self._settle(order, now_ns)
        return True

    def fill(self, order: Order, size: Decimal, now_ns: int) -> bool:
        """Count a fill; False: it brings the order above its size."""
        order.filled += size
        if order.state not in (State.FILLED, State.CANCELED):
            order.state = State.FILLED if order.filled >= order.size else State.PARTIALLY_FILLED
        order.news_ns = now_ns
        self._settle(order, now_ns)
        return order.filled <= order.size

    def waive(self, order: Order, now_ns: int) -> None:
        """Stop waiting for fills that the corrected ledger already contains."""
        order.is_waived = True
        self._settle(order, now_ns)

    def _settle(self, order: Order, now_ns: int) -> None:
        if not order.state.is_final:
            order.final_ns = 0
        elif not order.final_ns:
            order.final_ns = now_ns
        if order.is_done:
            if self._working.pop(order.client_oid, None) is not None:
                order.done_ns = now_ns
        else:
            self._working[order.client_oid] = order

    @property
    def working(self) -> Iterator[Order]:
        """Yield the orders that are not done. Take a list of it before changing any."""
        return iter(self._working.values())

    @property
    def n_working(self) -> int:
        return len(self._working)

    @property
    def n_unknown(self) -> int:
        return sum(order.state is State.UNKNOWN for order in self._working.values())

    def working_in(self, symbol: str) -> list[Order]:
        return [order for order in self._working.values() if order.symbol == symbol]

    def flash_waiting(self, symbol: str, side: Side) -> Order | None:
        """Return the flash close that a fill of nobody's may be of; None: there is none.

        It bears the exchange's own name, which we learn from its answer, and a fill may overtake that. It stays without
        an answer all the same: were it a stop's fill, the flash close could still arrive, and close what comes next.
        """
        for order in self.working_in(symbol):
            if order.is_flash and not order.order_id and order.side is side:
                return order
        return None

    def forget(self, now_ns: int) -> None:
        """Drop orders that have been done for long; the first ones sent are the first ones looked at."""
        while self._sent:
            order = self._sent[0]
            is_young = now_ns - order.done_ns < KEEP_DONE_NS
            if is_young or order.client_oid in self._working or not order.is_done:
                return
            self._sent.popleft()
            del self._orders[order.client_oid]
            self._by_order_id.pop(order.order_id, None)


def is_query_due(order: Order, now_ns: int) -> bool:
    """Say whether `order/detail` should be asked about a working order now."""
    if now_ns - order.asked_ns < QUERY_EVERY_NS:
        return False
    if order.state is State.UNKNOWN or order.state.is_final:  # final here: fills are missing
        return True
    if order.state is State.SENT:
        return False  # its own answer is still under way
    quiet_ns = now_ns - max(order.news_ns, order.asked_ns, order.cancel_sent_ns)
    is_resting = order.rests and not order.cancel_sent_ns
    return quiet_ns >= (RESTING_QUERY_EVERY_NS if is_resting else QUERY_EVERY_NS)


def entry_sign(order: Order) -> int:
    """Return +1 for an entry that opens a long, -1 for a short, 0 for an exit."""
    if order.reduce_only:
        return 0
    return 1 if order.side is Side.BUY else -1


EXIT_CAUSES = frozenset(set(Cause) - {Cause.ENTRY, Cause.ADOPTED})
