"""The relay's connections to the exchange: sockets for the public feed, REST for the rest; no keys, nothing private.

`Upstream.want(topics)` says what is to be subscribed; `on_heard` is told what came of it. Topics are spread over
connections, those of one symbol on the same one; connections are opened at a pace, pinged, closed when they are
silent or say something unreadable, and opened again later each time, with jitter. Nothing that the exchange sends
ends the relay.

`Upstream.fetch` asks REST within half of each endpoint's limit and of the address's 6,000 requests a minute, keeps
answers for a moment (`KEPT_S`), and lets requests for the same thing share one.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import aiohttp
import msgspec
import yarl

from shared import log
from shared.errors import ExchangeSilent
from shared.pace import Pace
from shared.simulator.markets.market import NS
from shared.simulator.relay.link import TOPICS_BOUND, TOPICS_MAX, Heard, Link, Topic, Unreadable

CONNECTS = 150
CONNECTS_PERIOD_NS = 300 * NS
LINKS_MAX = 50
REQUESTS_PER_S = 50
"""Half of 6,000 a minute."""

PER_S_DEFAULT = 5
"""Half of the 10 requests a second that Bitget's slower public endpoints take."""

PER_S = dict.fromkeys(
    (
        "contracts", "ticker", "tickers", "merge-depth", "candles", "history-candles", "history-index-candles",
        "history-mark-candles", "fills", "current-fund-rate", "history-fund-rate", "funding-time", "open-interest",
        "symbol-price",
    ),
    10,
)  # fmt: skip
KEPT_S_DEFAULT = 1.0
KEPT_S = {"merge-depth": 0.2, "ticker": 0.2, "fills": 0.2, "contracts": 0.0, "query-position-lever": 60.0,
          "vip-fee-rate": 600.0, "oi-limit": 60.0}  # fmt: skip
KEPT_MAX = 2_000
TURN_S_MAX = 2.0
"""A request that has not had its turn by then is refused with 429."""

TICK_S = 0.05
CONNECT_S = 10.0
LIVED_S = 60.0  # a connection that lasted this long ends a series of failures
MESSAGE_BYTES_MAX = 16 * 2**20
_FAILURES = (aiohttp.ClientError, OSError, TimeoutError, Unreadable)


class Answer(msgspec.Struct, frozen=True):
    """What the exchange answered over REST, as it came."""

    status: int
    body: bytes
    data: Any  # None where the exchange refused
    code: str


class _Envelope(msgspec.Struct):
    code: str
    msg: str | None = None
    data: Any = None


class Upstream:
    """A public feed that is somewhere else.

    Args:
        rest_url, ws_url: the latter without /public; checked by who read them.
        on_heard: what happened to a topic, in the order of receipt; called in the loop.
        seed: of the jitter.
    """

    def __init__(self, rest_url: str, ws_url: str, on_heard: Callable[[Heard], None], *, seed: int = 0) -> None:
        self.rest_url, self.ws_url, self._on_heard = rest_url, ws_url, on_heard
        self.links: list[Link] = []
        self._link_of: dict[str, Link] = {}  # symbol -> the connection of its next topic
        self._carrier: dict[Topic, Link] = {}  # of every wanted topic
        self.tasks: list[asyncio.Task[None]] = []
        self._connects = Pace(CONNECTS, CONNECTS_PERIOD_NS)
        self._jitter = random.Random(seed)
        self._log = log.get("relay")
        self._http: aiohttp.ClientSession | None = None
        self._windows: dict[str, Pace] = {"": Pace(REQUESTS_PER_S, NS)}
        self._kept: OrderedDict[str, tuple[float, Answer]] = OrderedDict()
        self._asked: dict[str, asyncio.Task[Answer | None]] = {}
        self.failure = ""
        """Why the last request of REST had no answer."""

    async def __aenter__(self) -> Upstream:
        # Proxies of the environment are not used, as everywhere in this project: an address is what it says.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        self._http = aiohttp.ClientSession(timeout=timeout, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (*self.tasks, *self._asked.values()):
            task.cancel()
        await asyncio.gather(*self.tasks, *self._asked.values(), return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    async def check(self) -> None:
        """Open a connection and close it again.

        Raises:
            ExchangeSilent: nobody speaks WebSocket there.
        """
        assert self._http is not None, "use `async with Upstream(…)`"
        try:
            async with asyncio.timeout(CONNECT_S), self._http.ws_connect(f"{self.ws_url}/public", compress=0):
                self._connects.note(time.monotonic_ns())
        except _FAILURES as error:
            raise ExchangeSilent(
                f"{self.ws_url}/public must accept WebSockets, found {type(error).__name__} {error}: "
                "check the network and --upstream-ws"
            ) from None

    # -------------------------------------------------------------------------------------- subscriptions

    def want(self, topics: Iterable[Topic]) -> None:
        """Carry exactly these topics."""
        wanted = set(topics)
        for topic in self._carrier.keys() - wanted:
            self._carrier.pop(topic).drop(topic)
        for topic in sorted(wanted - self._carrier.keys(), key=lambda topic: topic[::-1]):  # a symbol's own together
            link = self._carrier[topic] = self._link(topic[1])
            link.add(topic)

    def renew(self, topic: Topic) -> None:
        """Subscribe a topic anew."""
        link = self._carrier.get(topic)
        if link is not None:
            link.renew(topic)

    def is_up(self, symbol: str) -> bool:
        """Tell whether the symbol's connection is open."""
        link = self._link_of.get(symbol)
        return link is not None and link.is_open

    def _link(self, symbol: str) -> Link:
        link = self._link_of.get(symbol)
        if link is not None and len(link.states) < TOPICS_BOUND:
            return link
        # A symbol's three or four topics should fit, so that it is lost, and found again, as a whole.
        free = [link for link in self.links if len(link.states) <= TOPICS_MAX - 4]
        if not free and len(self.links) < LINKS_MAX:
            link = Link(len(self.links))
            self.links.append(link)
            self.tasks.append(asyncio.create_task(self._keep(link)))
        else:
            link = min(free or self.links, key=lambda link: len(link.states))
        self._link_of[symbol] = link
        return link

    async def _keep(self, link: Link) -> None:
        """Keep one connection open for as long as the relay runs."""
        failures = 0
        while True:
            await self._turn(self._connects)
            began_s, reason = time.monotonic(), "closed by the exchange"
            try:
                await self._converse(link)
            except _FAILURES as error:
                reason = f"{type(error).__name__} {error}".strip()
            if link.is_open:
                self._log.warning("upstream.lost", connection=link.number, reason=link.dead_because or reason)
            elif not failures:
                self._log.warning("upstream.unreachable", connection=link.number, reason=reason, url=self.ws_url)
            for heard in link.closed(time.monotonic_ns()):
                self._on_heard(heard)
            failures = 0 if time.monotonic() - began_s >= LIVED_S else failures + 1
            # Full jitter under 1, 2, 4 ... 30 s: connections that were lost together come back apart.
            await asyncio.sleep(max(0.2, self._jitter.random() * min(30.0, 2.0 ** min(failures, 5))))

    async def _converse(self, link: Link) -> None:
        assert self._http is not None, "use `async with Upstream(…)`"
        async with asyncio.timeout(CONNECT_S):
            socket = await self._http.ws_connect(
                f"{self.ws_url}/public",
                compress=0,
                max_msg_size=MESSAGE_BYTES_MAX,
                timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
            )
        async with socket:
            link.opened(time.monotonic_ns())
            self._log.info("upstream.connected", connection=link.number, topics=len(link.states))

            async def send_due() -> None:
                while not link.dead_because:
                    for text in link.due(time.monotonic_ns()):
                        await socket.send_str(text)
                    await asyncio.sleep(TICK_S)

            sending = asyncio.create_task(send_due())
            reading = asyncio.create_task(self._read(socket, link))
            try:
                await asyncio.wait({sending, reading}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, reading):
                    task.cancel()
                outcomes = await asyncio.gather(sending, reading, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _read(self, socket: aiohttp.ClientWebSocketResponse, link: Link) -> None:
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise Unreadable(f"a {message.type.name} message")
            for heard in link.heard(message.data, time.monotonic_ns()):
                self._on_heard(heard)
            if link.dead_because:
                return

    # ---------------------------------------------------------------------------------------------- REST

    async def fetch(self, path: str, query: str) -> Answer | None:
        """Return the exchange's answer to a GET; None: there was none that can be read, or it is over its limits.

        Args:
            query: as it stands in the URL, encoded.
        """
        key = f"{path}?{query}"
        kept = self._kept.get(key)
        if kept is not None and kept[0] > time.monotonic():
            return kept[1]
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = asyncio.create_task(self._ask(key, path.rsplit("/", 1)[-1]))
            asked.add_done_callback(lambda _: self._asked.pop(key, None))
        return await asyncio.shield(asked)

    async def _ask(self, key: str, name: str) -> Answer | None:
        assert self._http is not None, "use `async with Upstream(…)`"
        own = self._windows.setdefault(name, Pace(PER_S.get(name, PER_S_DEFAULT), NS))
        if not await self._turn(own, self._windows[""], within_s=TURN_S_MAX):
            return Answer(429, b"", None, "429")
        try:
            async with (
                asyncio.timeout(CONNECT_S),
                self._http.get(yarl.URL(self.rest_url + key, encoded=True), allow_redirects=False) as response,
            ):
                status, body = response.status, await response.read()
            envelope = msgspec.json.decode(body, type=_Envelope)
        except (*_FAILURES, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._unanswered(key, f"{type(error).__name__} {error}".strip()[:200])
            return None
        if status >= 500:
            self._unanswered(key, f"HTTP {status}")
            return None
        answer = Answer(status, body, envelope.data, envelope.code)
        if envelope.code == "00000":
            self._kept[key] = time.monotonic() + KEPT_S.get(name, KEPT_S_DEFAULT), answer
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        return answer

    def _unanswered(self, key: str, reason: str) -> None:
        self.failure = reason
        self._log.warning("upstream.unanswered", path=key, reason=reason)

    async def _turn(self, *windows: Pace, within_s: float = math.inf) -> bool:
        """Wait until none of the windows is full, and count one in each; False: it would take too long."""
        deadline_s = time.monotonic() + within_s
        while (wait_s := max(window.ready_ns() for window in windows) / NS - time.monotonic()) > 0:
            if time.monotonic() + wait_s > deadline_s:
                return False
            await asyncio.sleep(wait_s)
        for window in windows:
            window.note(time.monotonic_ns())
        return True
