"""What a client may say on a WebSocket, and what it hears back: ping, login, subscribe, unsubscribe, errors.

Answers, codes and their order: Bitget v2, WebSocket; errors as recorded in September 2026 (the code is an int here).
Where the answer to a breach is not recorded it follows the code's own words: 30006 for too many requests, 30007 and
the end for what is over a limit.

A message never ends more than its own connection: it is decoded strictly, echoed only in parts, and bounded.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

import msgspec

from shared.simulator.clock import Clock
from shared.simulator.desk import Desk
from shared.simulator.faults.faults import Faults
from shared.simulator.gate import Gate
from shared.simulator.pushes.candle_streams import CandleStreams
from shared.simulator.pushes.feed import CANDLE_CHANNELS, CHANNELS
from shared.simulator.pushes.frames import compact
from shared.simulator.pushes.sockets import Arg, Hub, Log, Silent, Socket

PRIVATE_CHANNELS = ("orders", "fill", "positions", "account", "orders-algo", "positions-history")
ARG_KEYS = ("instType", "channel", "instId", "coin")
INST_TYPE = "USDT-FUTURES"

_Refusal = tuple[int, str]
_DECODER = msgspec.json.Decoder()


class Snapshots(Protocol):
    """What a subscription asks of a feed."""

    def knows(self, symbol: str, now_ns: int | None = None) -> bool: ...

    def snapshot(self, now_ns: int, channel: str, symbol: str) -> str | None: ...


class Sessions:
    """Answers clients' messages.

    Args:
        feed: gives the first frame of a public subscription.
        desk: gives the first frame of `positions` and `account`.
        candles: begins candle subscriptions once they are computed; None: the feed has them at hand.
    """

    def __init__(
        self,
        hub: Hub,
        feed: Snapshots,
        desk: Desk,
        gate: Gate,
        clock: Clock,
        log: Log | None = None,
        faults: Faults | None = None,
        candles: CandleStreams | None = None,
    ) -> None:
        self._candles = candles
        self._faults = faults or Faults()
        self._hub, self._feed, self._desk, self._gate, self._clock = hub, feed, desk, gate, clock
        self._log: Log = log or Silent()

    def heard(self, socket: Socket, text: str) -> bool:
        """Answer one text message; False: the connection is to be closed, `end_reason` says why."""
        if text == "ping":
            socket.pinged_s = self._clock.monotonic_s()
            socket.send("pong")
            return True
        if len(text) > socket.limits.frame_bytes or len(text.encode()) > socket.limits.frame_bytes:
            socket.send(error_text(30016, "Param error"))
            return True
        try:
            message = _DECODER.decode(text)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            socket.send(error_text(30002, "Illegal request"))
            return True
        op, args = message.get("op"), message.get("args")
        if op not in ("subscribe", "unsubscribe", "login"):
            socket.send(error_text(30003, "Invalid op"))
            return True
        if not isinstance(args, list) or not args:
            socket.send(error_text(30016, "Param error", op=op))
            return True
        if op == "subscribe":
            return self._subscribe(socket, args)
        if op == "unsubscribe":
            self._unsubscribe(socket, args)
            return True
        return self._login(socket, args[0])

    def too_many(self, socket: Socket) -> None:
        """Say that a message was one too many for its second; the connection ends."""
        socket.send(error_text(30006, "request too many"))
        socket.end_reason = "too_many_messages"

    def unreadable(self, socket: Socket) -> None:
        """Answer a binary message: Bitget's protocol has none."""
        socket.send(error_text(30002, "Illegal request"))

    # ------------------------------------------------------------------------------------- subscriptions

    def _subscribe(self, socket: Socket, args: list[Any]) -> bool:
        if not socket.may_subscribe(self._clock.monotonic_s()):
            socket.send(error_text(30006, "request too many", op="subscribe"))
            return True
        accepted: Counter[str] = Counter()
        for arg in args:
            refusal = self._refusal(socket, arg)
            if refusal is None and len(socket.topics) >= socket.limits.channels and topic_of(arg) not in socket.topics:
                socket.send(error_text(30007, "request over limit, connection close", arg=arg, op="subscribe"))
                socket.end_reason = "too_many_channels"
                return False
            if refusal is not None:
                socket.send(error_text(*refusal, arg=arg, op="subscribe"))
                continue
            if arg["instType"] == INST_TYPE:
                self._accept(socket, arg)
                accepted[arg["channel"]] += 1
            else:  # measured: any other type of a real symbol is acked, then silent
                self._ack(socket, arg)
        if accepted:
            self._log.info("client.subscribed", conn=socket.number, channels=dict(accepted))
        return True

    def _ack(self, socket: Socket, arg: Arg) -> None:
        socket.send(compact({"event": "subscribe", "arg": _known(arg)}))

    def _accept(self, socket: Socket, arg: Arg) -> None:
        """Ack a subscription and let it begin."""
        self._ack(socket, arg)
        self._begin(socket, arg)

    def _begin(self, socket: Socket, arg: Arg) -> None:
        """Let an acked subscription stand, and tell what it begins from; one that stood already is only acked."""
        topic = topic_of(arg)
        if topic in socket.topics:
            return
        channel, symbol = topic
        if self._candles is not None and channel in CANDLE_CHANNELS:
            self._candles.begin(socket, topic, _known(arg))
            return
        self._hub.listen(socket, topic, _known(arg), is_public=channel in CHANNELS)
        now_ns = self._clock.now_ns()
        if channel in CHANNELS:
            # What the pump has not told yet comes after the snapshot: so that nothing is missing or told twice.
            told_ns = now_ns if self._hub.told_ns is None else self._hub.told_ns
            text = self._feed.snapshot(told_ns, channel, symbol)
            if text is not None:
                socket.send(text)
        elif channel in ("positions", "account"):
            assert socket.account is not None
            self._desk.advance(now_ns)
            socket.send(self._desk.state(socket.account, channel))

    def _unsubscribe(self, socket: Socket, args: list[Any]) -> None:
        for arg in args:
            if not isinstance(arg, dict) or not isinstance(arg.get("channel"), str):
                socket.send(error_text(30016, "Param error", arg=arg, op="unsubscribe"))
                continue
            if arg.get("instType") == INST_TYPE:
                self._hub.forget(socket, topic_of(arg))
            socket.send(compact({"event": "unsubscribe", "arg": _known(arg)}))

    def _refusal(self, socket: Socket, arg: Any) -> _Refusal | None:
        if not isinstance(arg, dict) or not isinstance(arg.get("instType"), str):
            return 30016, "Param error"
        channel, inst_id = arg.get("channel"), arg.get("instId")
        if channel in PRIVATE_CHANNELS:
            if socket.account is None:
                return 30004, "User needs to log in"
            if channel == "account":
                return None if inst_id in (None, "default") else (30001, _missing(arg))
            is_known = inst_id == "default" or (channel == "fill" and self._is_symbol(inst_id))
            return None if is_known else (30001, _missing(arg))
        if channel not in CHANNELS:
            return 30016, "Param error"
        return None if self._is_symbol(inst_id) else (30001, _missing(arg))

    def _is_symbol(self, inst_id: Any) -> bool:
        return isinstance(inst_id, str) and self._feed.knows(inst_id, self._clock.now_ns())

    # --------------------------------------------------------------------------------------------- login

    def _login(self, socket: Socket, arg: Any) -> bool:
        """Log in, or say why not and close (recorded: a failed login is an error frame, then the end)."""
        clocks_s = (ms // 1000 for ms in self._clock.clocks_ms())
        remote = socket.peer.rpartition(":")[0]
        known = self._gate.check_login(arg, *clocks_s, remote=remote) if isinstance(arg, dict) else (30005, "error")
        if not isinstance(known, tuple) and not socket.is_private:
            known = 30005, "error"
        refused = None if isinstance(known, tuple) else self._faults.login()
        if refused is not None:
            known = refused, "error"
        if isinstance(known, tuple):
            socket.send(error_text(*known))
            socket.end_reason = "login_failed"
            return False
        socket.account = known
        socket.send('{"event":"login","code":0}')
        self._log.info("client.logged_in", conn=socket.number, account=known)
        return True


def error_text(code: int, message: str, *, arg: Any = None, op: str | None = None) -> str:
    """Return an error frame; the code is an int here, a string in REST."""
    body: dict[str, Any] = {"event": "error"}
    if arg is not None:
        body["arg"] = _known(arg) if isinstance(arg, dict) else arg
    body |= {"code": code, "msg": message}
    if op is not None:
        body["op"] = op
    return compact(body)


def topic_of(arg: Arg) -> tuple[str, str]:
    """Return what an argument subscribes to."""
    channel = str(arg["channel"])
    if channel in PRIVATE_CHANNELS:
        return channel, str(arg.get("instId") or "default") if channel == "fill" else "default"
    return channel, str(arg.get("instId"))


def _missing(arg: Arg) -> str:
    found = ((key, arg.get(key)) for key in ("instType", "channel", "instId"))
    where = ",".join(f"{key}:{'null' if value is None else value}" for key, value in found)
    return f"{where},precision:null doesn't exist"


def _known(arg: Arg) -> Arg:
    return {key: arg[key] for key in ARG_KEYS if key in arg}
