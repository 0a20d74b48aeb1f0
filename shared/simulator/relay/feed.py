"""Bitget's public feed behind our own venue: market data as it came, orders on paper.

`RelayFeed` stands where `feed.PublicFeed` stands for a generated market, `RelayDesk` where `desk.Desk` does:

* A public push goes to clients byte for byte as the exchange sent it. Later subscribers get the state as a snapshot:
  the last frame (`ticker`, `books1/5/15`), the book with every update applied (`books`, so that the next update's
  `pseq` fits), the last 50 trades, the candles.
* An ack means "from here on, silence means that nothing happened". So a client is acked when the exchange has acked
  the relay, and where a connection to the exchange is lost, the clients that listened to it are cut off: silence on
  a living connection would be a lie, and an invented push a worse one.
* The paper venue sees `books15`, `trade` and `ticker` of every symbol that an account has used, as they arrive: what
  our takers took is gone until the next book. Without a push for `STALE_NS`, or without a connection, it takes no
  order and says 40725 "service return an error", Bitget's own word for "try again".

What is not modelled: our orders do not move the real market, and queue positions are the venue's estimate.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from decimal import InvalidOperation
from typing import Any, cast
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from shared import log, settings
from shared.errors import ExchangeSilent, ProtocolBroken
from shared.simulator.desk import contract_of
from shared.simulator.gate import Credentials, Refused
from shared.simulator.markets.market import NS, Market
from shared.simulator.ports import WireFrame
from shared.simulator.pushes.feed import Frame
from shared.simulator.pushes.frames import text_frame
from shared.simulator.relay.desk import TRANSIENT, VENUE_CHANNELS, RelayDesk
from shared.simulator.relay.kept import Kept, keeper
from shared.simulator.relay.link import Heard, Kind, Topic
from shared.simulator.relay.upstream import Answer, Upstream

BITGET_REST = "https://api.bitget.com"
BITGET_WS = "wss://ws.bitget.com/v2/ws"
SOURCE = "bitget"

LINGER_NS = 60 * NS
"""What nobody wants any more stays subscribed so long: clients come back, and requests are counted."""

LISTING_S = 60.0
RETRY_S = 1.0
WISH_NS = NS // 20
QUEUE_MAX = 50_000
"""Frames that wait for the pump, about five seconds of 600 symbols; older ones are lost to clients, as when frozen."""

PAUSE_NS = NS
"""A pump that has not come for longer was frozen: what came before is not told late."""

_MIX = "/api/v2/mix/market/"
_OURS = "productType=USDT-FUTURES"


class RelayMarket:
    """What is listed upstream.

    Args:
        source: whose ticks these are: "bitget", or the source of the simulator that is relayed.
    """

    kind = "relayed"
    history_end_ns: int | None = None

    def __init__(self, source: str, host: str) -> None:
        self.source = source
        self.note = f"relayed market: public feed of {host} as it comes; orders are filled on paper against its books"
        self.symbols: tuple[str, ...] = ()
        self._rows: list[dict[str, Any]] = []
        self._log = log.get("relay")
        self._unreadable: set[str] = set()

    def contracts(self, second: int | None = None) -> list[dict[str, Any]]:
        """Return the rows that are listed now, as they came; the same list until one changes."""
        return self._rows

    def seam_after(self, second: int) -> int | None:
        return None

    def learn(self, data: Any) -> bool:
        """Take the rows of an answer; tell whether anything changed. Rows that cannot be traded by are left out."""
        rows = [row for row in data if self._is_readable(row)] if isinstance(data, list) else []
        if not rows or rows == self._rows:
            return False
        self._rows = rows
        self.symbols = tuple(row["symbol"] for row in rows)
        return True

    def _is_readable(self, row: Any) -> bool:
        try:
            contract_of(row)
        except (KeyError, TypeError, ValueError, InvalidOperation) as error:
            symbol = str(row.get("symbol")) if isinstance(row, dict) else repr(row)[:40]
            if symbol not in self._unreadable:
                self._unreadable.add(symbol)
                self._log.warning("contract.unreadable", symbol=symbol, reason=f"{type(error).__name__} {error}")
            return False
        return True


class RelayFeed:
    """The pushes of an upstream; see the module's docstring.

    Args:
        upstream_url: REST and WebSocket base (without /public).
    """

    def __init__(
        self, listed: RelayMarket, rest_url: str, ws_url: str, *, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.listed = listed
        # What is relayed has no seconds to be asked for; who asks is replaced (`RelayDesk`, `RelayServer`).
        self.market = cast(Market, listed)
        self.upstream = Upstream(rest_url, ws_url, self._hear)
        self.awaited: Collection[Topic] = ()
        """Topics that clients wait for: asked for by them, and not yet acked."""
        self.desk: RelayDesk | None = None
        self.tasks: list[asyncio.Task[None]] = []
        self._log = log.get("relay")
        self._monotonic_ns = monotonic_ns
        self._queue: deque[Heard] = deque()
        self._pulled_ns = monotonic_ns()
        self._kept: dict[Topic, Kept] = {}
        self._linked: set[Topic] = set()
        self._lost: set[Topic] = set()
        self._refused: dict[Topic, tuple[int, str]] = {}
        self._last_wanted_ns: dict[Topic, int] = {}
        self._wish_ns = monotonic_ns() - WISH_NS
        self._known: frozenset[str] = frozenset()

    # -------------------------------------------------------------------------------- as PublicFeed

    def knows(self, symbol: str, now_ns: int | None = None) -> bool:
        return symbol in self._known

    def frames(
        self, start_ns: int, end_ns: int, wanted: Mapping[str, Collection[str]] | None = None
    ) -> Iterator[Frame]:
        """Yield what has come since the last call of the wanted topics, in the order it came and as it came.

        The wall clock, which a machine may set back, decides nothing: `start_ns` and `end_ns` are not looked at, the
        time that is told is that of receipt.

        Args:
            wanted: channel -> symbols; what is subscribed upstream follows from it.
        """
        wanted = wanted or {}
        self._wish(wanted)
        now_ns = self._monotonic_ns()
        since_ns = now_ns - PAUSE_NS if now_ns - self._pulled_ns > PAUSE_NS else 0
        self._pulled_ns, wall_ns = now_ns, time.time_ns() - now_ns
        while self._queue:
            heard = self._queue.popleft()
            self._absorb(heard)
            is_told = heard.kind is Kind.FRAME and heard.recv_ns >= since_ns
            if is_told and heard.symbol in wanted.get(heard.channel, ()):
                yield wall_ns + heard.recv_ns, heard.channel, heard.symbol, heard.text

    def wire(
        self, start_ns: int, end_ns: int, wanted: Mapping[str, Collection[str]] | None = None
    ) -> Iterator[WireFrame]:
        """Yield the same as whole WebSocket frames."""
        for time_ns, channel, symbol, text in self.frames(start_ns, end_ns, wanted):
            yield time_ns, channel, symbol, text_frame(text)

    def snapshot(self, now_ns: int, channel: str, symbol: str) -> str | None:
        """Return what a new subscriber is told first; None: the exchange has told nothing yet."""
        kept = self._kept.get((channel, symbol))
        try:
            return kept.snapshot() if kept is not None else None
        except (msgspec.MsgspecError, ValueError) as error:  # texts are looked into as late as possible
            self._log.warning("push.unreadable", channel=channel, symbol=symbol, reason=str(error)[:200])
            return None

    def is_linked(self, channel: str, symbol: str) -> bool:
        """Tell whether the exchange has acked this topic, on a connection that lives."""
        return (channel, symbol) in self._linked

    def refusal(self, channel: str, symbol: str) -> tuple[int, str] | None:
        """Return the error with which the exchange refused this topic."""
        return self._refused.get((channel, symbol))

    def take_lost(self) -> set[Topic]:
        """Return the topics that were lost since the last call."""
        lost, self._lost = self._lost, set()
        return lost

    def is_up(self, symbol: str) -> bool:
        return self.upstream.is_up(symbol)

    def ticker_fields(self, now_ns: int, symbol: str) -> dict[str, str] | None:
        """Return the fields of the last ticker, None where none came."""
        rows = self._rows("ticker", symbol)
        return rows[0] if rows else None

    def book_rows(self, now_ns: int, symbol: str, depth: int) -> tuple[list[list[str]], list[list[str]]]:
        """Return (asks, bids) of the last books15, best first."""
        rows = self._rows("books15", symbol)
        return (rows[0]["asks"][:depth], rows[0]["bids"][:depth]) if rows else ([], [])

    def recent_trades(self, now_ns: int, symbol: str, limit: int) -> list[dict[str, str]]:
        return self._rows("trade", symbol)[:limit]

    def _rows(self, channel: str, symbol: str) -> list[Any]:
        text = self.snapshot(0, channel, symbol)
        return list(json.loads(text)["data"]) if text is not None else []

    async def proxy(self, path: str, query: str) -> Answer:
        """Return the exchange's own answer to a public REST request.

        Raises:
            Refused: there was none (40725), or the relay's half of the limits is used up (429).
        """
        answer = await self.upstream.fetch(path, query)
        if answer is None:
            raise Refused(*TRANSIENT)
        if answer.status == 429:
            raise Refused("429", "Too Many Requests", 429)
        return answer

    # ------------------------------------------------------------------------------------- upstream

    def raise_failure(self) -> None:
        """Raise what ended one of the relay's tasks: only an error of our own does."""
        for task in (*self.tasks, *self.upstream.tasks):
            if task.done() and not task.cancelled():
                task.result()

    def learn(self, data: Any) -> None:
        """Take the rows of `contracts`: who is listed."""
        if self.listed.learn(data):
            self._known = frozenset(self.listed.symbols)
            if self.desk is not None:
                self.desk.learn()

    def _wish(self, wanted: Mapping[str, Collection[str]]) -> None:
        now_ns = self._monotonic_ns()
        if now_ns - self._wish_ns < WISH_NS:
            return
        self._wish_ns = now_ns
        for channel, symbols in wanted.items():
            for symbol in symbols:
                self._last_wanted_ns[channel, symbol] = now_ns
        for topic in self.awaited:
            self._last_wanted_ns[topic] = now_ns
        for symbol in self.desk.used if self.desk is not None else ():
            for channel in VENUE_CHANNELS:
                self._last_wanted_ns[channel, symbol] = now_ns
        for topic, at_ns in list(self._last_wanted_ns.items()):
            if now_ns - at_ns > LINGER_NS:
                del self._last_wanted_ns[topic]
                self._refused.pop(topic, None)
                self._forget(topic)
        self.upstream.want(self._last_wanted_ns)

    def _hear(self, heard: Heard) -> None:
        """Let the venue see what came at once, clients when the pump comes round."""
        if self.desk is not None:
            self.desk.hear(heard)
        self._queue.append(heard)
        if len(self._queue) > QUEUE_MAX:
            self._absorb(self._queue.popleft())

    def _absorb(self, heard: Heard) -> None:
        topic = heard.channel, heard.symbol
        if heard.kind is Kind.FRAME:
            kept = self._kept.get(topic)
            if kept is None:
                if heard.is_update:
                    return  # of a book that is being asked for anew
                kept = self._kept[topic] = keeper(heard.channel)
            try:
                is_whole = kept.take(heard.text, is_update=heard.is_update)
            except (msgspec.MsgspecError, ValueError) as error:
                self._log.warning(
                    "push.unreadable", channel=heard.channel, symbol=heard.symbol, reason=str(error)[:200]
                )
                is_whole = False
            if not is_whole:
                self._forget(topic)
                self.upstream.renew(topic)
        elif heard.kind is Kind.LINKED:
            self._forget(topic)  # what was kept is of a subscription before
            self._linked.add(topic)
            self._refused.pop(topic, None)
        elif heard.kind is Kind.LOST:
            self._forget(topic)
            self._lost.add(topic)
        else:
            self._refused[topic] = heard.code, heard.text

    def _forget(self, topic: Topic) -> None:
        self._kept.pop(topic, None)
        self._linked.discard(topic)


@asynccontextmanager
async def relay(
    rest_url: str, ws_url: str, accounts: Iterable[Credentials], *, listing_s: float = LISTING_S
) -> AsyncIterator[tuple[RelayFeed, RelayDesk]]:
    """Run a relay of a public feed: Bitget's, or that of a simulator on this machine.

    Args:
        rest_url, ws_url: the latter without /public; checked by who read them.
        listing_s: how often is asked who is listed.

    Raises:
        ExchangeSilent: nobody answers there.
        ProtocolBroken: who answers is neither Bitget nor a simulator.
    """
    source = await _source_at(rest_url) if settings.is_loopback(rest_url) else SOURCE
    feed = RelayFeed(RelayMarket(source, urlsplit(rest_url).netloc), rest_url, ws_url)
    async with feed.upstream as upstream:
        contracts = await upstream.fetch(_MIX + "contracts", _OURS)
        if contracts is None:
            raise ExchangeSilent(
                f"{rest_url} must answer as Bitget's public REST, found no answer that can be read "
                f"({upstream.failure}): check the network and --upstream-rest"
            )
        feed.learn(contracts.data)
        if not feed.listed.symbols:
            raise ProtocolBroken(
                f"{rest_url} must list perpetuals as Bitget does, found code {contracts.code!r} and none: "
                "check --upstream-rest"
            )
        await upstream.check()
        desk = feed.desk = RelayDesk(feed, accounts)

        async def climb() -> None:
            while True:
                symbol = await desk.laddered.get()
                tiers = await upstream.fetch(_MIX + "query-position-lever", f"{_OURS}&symbol={quote(symbol)}")
                if tiers is None or tiers.status == 429:
                    desk.laddered.put_nowait(symbol)
                    await asyncio.sleep(RETRY_S)
                elif tiers.data is not None:
                    desk.climb(symbol, tiers.data)

        async def follow() -> None:
            while True:
                tickers = await upstream.fetch(_MIX + "tickers", _OURS)
                if tickers is not None:
                    desk.value(tickers.data)
                await asyncio.sleep(listing_s)
                rows = await upstream.fetch(_MIX + "contracts", _OURS)
                if rows is not None:
                    feed.learn(rows.data)

        tasks = [asyncio.create_task(follow()), asyncio.create_task(climb())]
        feed.tasks += tasks
        try:
            yield feed, desk
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class _Told(msgspec.Struct):
    source: str


async def _source_at(rest_url: str) -> str:
    """Return the source of the simulator at an address of this machine."""
    url, timeout = f"{rest_url}/_control/market", aiohttp.ClientTimeout(total=10)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url) as response:
            return msgspec.json.decode(await response.read(), type=_Told).source
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ExchangeSilent(
            f"an upstream on this machine must be a running simulator, found {type(error).__name__} at {url}: "
            "start `python -m shared.simulator`, or check --upstream-rest"
        ) from None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ProtocolBroken(
            f"an upstream on this machine must be a simulator that names its source, found {error} at {url}: "
            "check --upstream-rest"
        ) from None
