"""A server in front of a relay: subscriptions and public REST answers are the exchange's own.

What differs from the server of a market that we know ourselves:

* A subscription is acked when the exchange has acked it, and refused in its words; where the exchange is lost, clients
  that listened are cut off (`relay` says why).
* Public REST requests are passed on, but for the server's time (orders live by our clock) and the contracts (what a
  client reads is what the venue enforces: the rows as they came, a minute old at most).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote, urlencode

from shared.simulator.gate import Gate, Refused
from shared.simulator.pushes.feed import CHANNELS
from shared.simulator.pushes.sessions import Sessions, error_text, topic_of
from shared.simulator.pushes.sockets import Arg, Socket
from shared.simulator.relay.desk import RelayDesk
from shared.simulator.relay.feed import RelayFeed
from shared.simulator.relay.link import Topic
from shared.simulator.rest.common import MIX, Context, Group, JsonNumber, Params, text
from shared.simulator.rest.door import Rest
from shared.simulator.server import Server

MARKET_PATH = MIX + "market/"


class RelaySessions(Sessions):
    """Answers clients' messages once the exchange has answered ours."""

    def __init__(self, relay: RelayFeed, *others: Any) -> None:
        super().__init__(*others)
        self._relay = relay
        self._waiting: dict[Topic, dict[Socket, Arg]] = {}
        self._waits: Counter[Socket] = Counter()

    def follow(self) -> None:
        """Answer those whose topic has become known, cut off those whose topic was lost."""
        for topic in self._relay.take_lost():
            for socket in self._hub.listeners(*topic):
                socket.end("upstream_lost")
        for topic, waiting in list(self._waiting.items()):
            refusal = self._relay.refusal(*topic)
            is_linked = self._relay.is_linked(*topic)
            for socket, arg in list(waiting.items()):
                if socket not in self._hub.sockets:
                    self._forget(socket, topic)
                elif is_linked:
                    self._forget(socket, topic)
                    super()._accept(socket, arg)
                elif refusal is not None:
                    self._forget(socket, topic)
                    socket.send(error_text(*refusal, arg=arg, op="subscribe"))
        self._relay.awaited = self._waiting.keys()

    def _accept(self, socket: Socket, arg: Arg) -> None:
        topic = topic_of(arg)
        is_known = topic[0] not in CHANNELS or topic in socket.topics or self._relay.is_linked(*topic)
        if is_known:
            super()._accept(socket, arg)
        elif len(socket.topics) + self._waits[socket] < socket.limits.channels:
            waiting = self._waiting.setdefault(topic, {})
            self._waits[socket] += socket not in waiting
            waiting[socket] = arg
        else:
            socket.send(error_text(30007, "request over limit, connection close", arg=arg, op="subscribe"))

    def _unsubscribe(self, socket: Socket, args: list[Any]) -> None:
        for arg in args:
            if isinstance(arg, dict) and isinstance(arg.get("channel"), str):
                self._forget(socket, topic_of(arg))
        super()._unsubscribe(socket, args)

    def _forget(self, socket: Socket, topic: Topic) -> None:
        waiting = self._waiting.get(topic, {})
        if waiting.pop(socket, None) is not None:
            self._waits[socket] -= 1
            if not self._waits[socket]:
                del self._waits[socket]
        if not waiting:
            self._waiting.pop(topic, None)


class RelayRest(Rest):
    """Answers public requests with the exchange's answers, private ones from our own venue."""

    def __init__(self, context: Context, gate: Gate, relay: RelayFeed) -> None:
        super().__init__(context, gate)
        self._relay, self._group = relay, Group(context)
        for path, endpoint in self._endpoints.items():
            if endpoint.handler == "contracts":
                self._handlers[path] = self._contracts
            elif not endpoint.is_private and path.startswith(MARKET_PATH):
                self._handlers[path] = self._proxy(path)

    def _contracts(self, params: Params, key: str) -> Any:
        if not self._group._is_ours(params):
            return []
        rows = self._context.desk.contract_rows(self._context.now_ns())
        if not text(params, "symbol"):
            return rows
        symbol = self._group._symbol(params)
        return [row for row in rows if row["symbol"] == symbol]

    def _proxy(self, path: str) -> Callable[[Params, str], Coroutine[Any, Any, Any]]:
        async def proxied(params: Params, key: str) -> Any:
            answer = await self._relay.proxy(path, urlencode(params, quote_via=quote))
            # Numbers keep their digits: the book over REST has prices as JSON numbers.
            envelope = json.loads(answer.body, parse_float=JsonNumber)
            if answer.code != "00000":
                raise Refused(answer.code, str(envelope.get("msg")), answer.status)
            return envelope.get("data")

        return proxied


class RelayServer(Server):
    """A running relay; see `Server` for what else it can be told."""

    def __init__(self, feed: RelayFeed, desk: RelayDesk, **others: Any) -> None:
        self._relay = feed
        super().__init__(feed.market, feed=feed, desk=desk, **others)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"upstream": self._relay.upstream.rest_url}

    def _make_rest(self, context: Context) -> RelayRest:
        return RelayRest(context, self.gate, self._relay)

    def _make_sessions(self) -> RelaySessions:
        self._relayed = RelaySessions(
            self._relay, self.hub, self.feed, self.desk, self.gate, self.clock, self._log, self.faults
        )
        return self._relayed

    async def _warm(self, second: int) -> None:
        """Nothing is computed here."""

    def _ahead(self, second: int) -> None:
        self._relay.raise_failure()
        self._relayed.follow()
