"""The private connection: orders, fills and the account, as the engine's events."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from shared.bitget import wire
from shared.bitget.rest import Keys, sign
from shared.bitget.session import ACK_NS, Session
from shared.bitget.states import PRIVATE_LINKS, Link, LinkEvent
from shared.errors import ExchangeRefused, ProtocolBroken
from shared.types import NS, Event, LinkChanged, Position

# Errors of a login (PROTOCOL §7.2) that the same keys will get again.
_LOGIN_REFUSALS = frozenset({"30005", "30011", "30012", "30013", "30014", "30015"})


class AccountSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The account as last pushed. A hint between reconciliations: the ledger is folded from fills."""

    recv_ns: int
    equity_usdt: Decimal
    available_usdt: Decimal


class PrivateSession(Session):
    """Orders and fills of the account, as the engine's events.

    A fill is told twice, by `orders` and by `fill`; both become `Filled`, with the same trade_id. In a push that
    ends an order, its fill comes before the final `OrderReported`. Whatever cannot be read kills the connection:
    it may have been a fill, so the link goes down, and coming up again makes the owner ask for the whole truth.
    """

    TABLE = PRIVATE_LINKS
    NAME = "private"
    NEEDS_ALL = True

    def __init__(self, keys: Keys, conn: int = 0) -> None:
        super().__init__(
            [("orders", "default"), ("fill", "default"), ("positions", "default"), ("account", "default")], conn
        )
        self._keys = keys
        self.account: AccountSeen | None = None  # None: nothing pushed yet
        self.positions: dict[str, Position] = {}
        self._was_linked = False

    def received(self, raw: str | bytes, recv_ns: int) -> list[Event]:
        """Return what happened to us.

        Raises:
            ExchangeRefused: the login was refused, and would be again.
        """
        try:
            frame = wire.decode_push(raw)
            events = self._take(frame, raw, recv_ns)
        except ProtocolBroken as error:
            self._keep("private frame", str(error)[:120], raw, recv_ns)
            self._die(f"unreadable: {error}")
            return []
        if self.is_linked != self._was_linked:
            self._was_linked = self.is_linked
            events.append(LinkChanged(recv_ns=recv_ns, link="private", is_up=self.is_linked))
        return events

    def lost(self, recv_ns: int) -> list[Event]:
        """Return the end of the link, where it was up."""
        self._lose(recv_ns)
        self.account, self.positions = None, {}
        was_linked, self._was_linked = self._was_linked, False
        return [LinkChanged(recv_ns=recv_ns, link="private", is_up=False)] if was_linked else []

    def _opening(self, now_ns: int) -> list[str]:
        self._messages.note(now_ns)
        self._login_due_ns = now_ns + ACK_NS
        return [login_frame(self._keys, now_ns)]

    def _take(self, frame: wire.Frame, raw: str | bytes, recv_ns: int) -> list[Event]:
        events: list[Event] = []
        if isinstance(frame, wire.Pong):
            self._pings_unanswered = 0
        elif isinstance(frame, wire.Ack) and frame.event == "login":
            self._step(LinkEvent.LOGIN_ACKED)
        elif isinstance(frame, wire.ErrorFrame) and self.link is Link.LOGIN:
            if frame.code in _LOGIN_REFUSALS:
                self._step(LinkEvent.LOGIN_REFUSED)
                raise ExchangeRefused(frame.code, f"{frame.message} (private stream's login: check the three keys)")
            self._die(f"{frame.code} {frame.message}")
        elif isinstance(frame, (wire.Ack, wire.ErrorFrame)):
            self._take_answer(frame, raw, recv_ns)
        else:
            self._keep_unknown(frame, raw, recv_ns)
            if isinstance(frame, wire.OrderPush):
                for order in frame.rows:
                    fill = wire.filled_of_order(order, recv_ns)
                    if fill is not None:
                        events.append(fill)
                    events.append(wire.order_state(order).reported(recv_ns))
            elif isinstance(frame, wire.FillPush):
                events.extend(wire.filled(row, recv_ns) for row in reversed(frame.rows))  # newest first, as over REST
            elif isinstance(frame, wire.PositionPush):
                held = [wire.position(row) for row in frame.rows if row.total]
                self.positions = {position.symbol: position for position in held}
            elif isinstance(frame, wire.AccountPush):
                for row in frame.rows:
                    if row.margin_coin == wire.MARGIN_COIN:
                        self.account = AccountSeen(
                            recv_ns=recv_ns, equity_usdt=row.equity, available_usdt=row.available
                        )
            else:
                raise ProtocolBroken(f"expected a private channel, found {frame.channel}")
        return events


def login_frame(keys: Keys, now_ns: int) -> str:
    """Return the login; its timestamp is in seconds (milliseconds, as the prose of the docs says, get no answer)."""
    seconds = now_ns // NS
    signature = sign(keys.secret, seconds, "GET", "/user/verify", "", "")
    arg = {"apiKey": keys.key, "passphrase": keys.passphrase, "timestamp": str(seconds), "sign": signature}
    return msgspec.json.encode({"op": "login", "args": [arg]}).decode()
