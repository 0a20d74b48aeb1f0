"""The paper venue in front of a relay: somebody else's books, our own fills.

It sees `books15`, `trade` and `ticker` of every symbol that an account has used, as they arrive: what our takers took
is gone until the next book. Without a push for `STALE_NS`, or without a connection, it takes no order. Risk ladders
are the exchange's, asked for once a symbol; until the answer they are the usual ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from shared import log
from shared.simulator.desk import Desk, contract_of
from shared.simulator.gate import Credentials, Refused
from shared.simulator.markets.market import NS, Market
from shared.simulator.relay.link import Heard, Kind
from shared.types import Side, Tier

STALE_NS = 10 * NS
"""A traded perpetual's ticker comes about nine times a second, a dead one's every few seconds."""

FOLLOW_NS = 60 * NS
"""How long the venue is shown every push of a symbol after the last order, or after nothing is open any more.

Most of what a relay carries nobody trades at the moment: a push that the venue reads costs five times one that is only
passed on."""

READY_S_MAX = 5.0
"""How long an order of a symbol that nobody asked for before waits for its first book."""

TRANSIENT = "40725", "service return an error"
VENUE_CHANNELS = ("books15", "trade", "ticker")
_TRADING = (
    "/place-order", "/batch-place-order", "/modify-order", "/click-backhand", "/close-positions", "/place-plan-order",
    "/modify-plan-order", "/place-tpsl-order", "/place-pos-tpsl", "/modify-tpsl-order",
)  # fmt: skip


class Source(Protocol):
    """What a desk asks of the feed it stands behind."""

    @property
    def market(self) -> Market: ...

    def knows(self, symbol: str, now_ns: int | None = None) -> bool: ...

    def is_up(self, symbol: str) -> bool:
        """Tell whether the symbol's connection to the exchange is open."""


class RelayDesk(Desk):
    """A paper venue in front of a relayed market."""

    def __init__(self, feed: Source, accounts: Iterable[Credentials]) -> None:
        super().__init__(feed.market, accounts)
        self._feed = feed
        self._log = log.get("relay")
        self.used: set[str] = set()
        """Symbols that stay subscribed: an account was interested in them once."""
        self._followed_ns: dict[str, int] = {}  # symbols that the venue is shown push by push -> until when
        self._looked_ns = 0
        self._asked: set[str] = set()
        self._books: dict[str, str] = {}  # the last books15 since its topic was linked
        self._tickers: dict[str, str] = {}
        self._heard_ns: dict[str, int] = {}
        self._told: dict[str, asyncio.Event] = {}  # set by a symbol's first book
        self.laddered: asyncio.Queue[str] = asyncio.Queue()
        """Symbols whose risk ladder is to be asked for."""

    def advance(self, now_ns: int) -> None:
        """Settle funding when it is due; books and marks come when they come."""
        self.venue.settle_funding(now_ns)
        self._second, self._traded_ns = now_ns // NS, max(self._traded_ns, now_ns)
        looked_ns = time.monotonic_ns()
        if looked_ns - self._looked_ns >= NS:
            self._looked_ns = looked_ns
            for symbol in self._open_symbols():
                self._followed_ns[symbol] = looked_ns + FOLLOW_NS
            for symbol in [symbol for symbol, until_ns in self._followed_ns.items() if until_ns < looked_ns]:
                del self._followed_ns[symbol]

    def _open_symbols(self) -> set[str]:
        """Return the symbols in which somebody holds, rests or waits for a trigger."""
        held = {position.symbol for account in self.venue.accounts for position in self.venue.positions(account)}
        return held.union(self.venue.resting_symbols(), self.venue.plans.symbols())

    def learn(self) -> None:
        """Bring the venue's contracts to what is listed; what was removed trades no more."""
        for row in self._feed.market.contracts():
            if row["symbol"] not in self._rows:
                self._rows[row["symbol"]] = row
                self.venue.set_contract(contract_of(row))
        self._learn(time.time_ns() // NS)

    def value(self, data: Any) -> None:
        """Take the marks of `tickers` for symbols that the venue is not shown push by push."""
        for row in data if isinstance(data, list) else ():
            try:
                ticker = msgspec.convert(row, _TickerRow)
                if ticker.symbol in self.venue.contracts and ticker.symbol not in self._followed_ns:
                    self._mark(ticker.symbol, ticker, time.time_ns())
            except (msgspec.MsgspecError, ValueError, InvalidOperation) as error:
                self._log.warning("ticker.unreadable", reason=f"{type(error).__name__} {error}"[:200])

    def climb(self, symbol: str, data: Any) -> None:
        """Take the rows of `query-position-lever`: the symbol's risk ladder."""
        try:
            rows = msgspec.convert(data, list[_TierRow])
            tiers = [
                Tier(
                    level=int(row.level), start_usdt=_number(row.startUnit), end_usdt=_number(row.endUnit),
                    leverage_max=int(row.leverage), maintenance_rate=_number(row.keepMarginRate),
                )
                for row in rows
            ]  # fmt: skip
        except (msgspec.MsgspecError, ValueError, InvalidOperation) as error:
            self._log.warning("tiers.unreadable", symbol=symbol, reason=f"{type(error).__name__} {error}"[:200])
            return
        if tiers:
            self.venue.set_tiers(symbol, tuple(sorted(tiers, key=lambda tier: tier.level)))

    async def ready(self, path: str, params: Mapping[str, Any], account: str) -> None:
        """Return once every symbol of a request that may trade has a book to match against.

        Raises:
            Refused: the upstream is down or stale.
        """
        if not path.endswith(_TRADING):
            return
        symbol = params.get("symbol")
        held = (position.symbol for position in self.venue.positions(account))
        await self._follow([symbol] if isinstance(symbol, str) and symbol else held)

    async def _follow(self, symbols: Iterable[str]) -> None:
        for symbol in symbols:
            if not self._feed.knows(symbol):
                continue  # the handler has Bitget's words for it
            if self.is_fresh(symbol):
                self._use(symbol)
                continue
            is_new = symbol not in self.used
            self._use(symbol)
            if is_new:
                try:
                    async with asyncio.timeout(READY_S_MAX):
                        await self._told.setdefault(symbol, asyncio.Event()).wait()
                except TimeoutError:
                    self.used.discard(symbol)  # the next order waits again
            if not self.is_fresh(symbol):
                raise Refused(*TRANSIENT)

    def is_fresh(self, symbol: str) -> bool:
        """Claim that the venue's book of a symbol is what the exchange shows now."""
        at_ns = self._heard_ns.get(symbol)
        is_recent = at_ns is not None and time.monotonic_ns() - at_ns < STALE_NS
        return is_recent and symbol in self._books and self._feed.is_up(symbol)

    def hear(self, heard: Heard) -> None:
        """Show the venue what came."""
        symbol = heard.symbol
        if heard.kind is Kind.LOST:
            self._books.pop(symbol, None)
            self._tickers.pop(symbol, None)
            self._told.pop(symbol, None)
        if heard.kind is not Kind.FRAME:
            return
        self._heard_ns[symbol] = heard.recv_ns
        if heard.channel == "books15":
            self._books[symbol] = heard.text
        elif heard.channel == "ticker":
            self._tickers[symbol] = heard.text
        if symbol in self._followed_ns:
            self._see(heard)

    def _see(self, heard: Heard) -> None:
        symbol, now_ns = heard.symbol, time.time_ns()  # the venue lives by the wall clock, as its clients do
        try:
            if heard.channel == "books15":
                self._book(symbol, _BOOK.decode(heard.text).data[-1], now_ns)
            elif heard.channel == "ticker":
                self._mark(symbol, _TICKER.decode(heard.text).data[-1], now_ns)
            elif heard.channel == "trade" and heard.is_update:  # a snapshot's trades were before we listened
                for row in reversed(_TRADES.decode(heard.text).data):  # newest first on the wire
                    price, size = _number(row.price), _number(row.size)
                    self.venue.trade(symbol, price, size, Side(row.side.lower()), now_ns)
        except (msgspec.MsgspecError, ValueError, InvalidOperation, IndexError) as error:
            reason = f"{type(error).__name__} {error}"[:200]
            self._log.warning("push.unreadable", channel=heard.channel, symbol=symbol, reason=reason)
            if heard.channel == "books15":
                self._books.pop(symbol, None)  # nobody knows what the exchange shows: no order is taken

    def _use(self, symbol: str) -> None:
        """Follow a symbol from here on, beginning with what came last."""
        self.used.add(symbol)
        if symbol not in self._asked:
            self._asked.add(symbol)
            self.laddered.put_nowait(symbol)
        is_followed = symbol in self._followed_ns
        self._followed_ns[symbol] = time.monotonic_ns() + FOLLOW_NS
        if is_followed:
            return
        for channel, texts in (("ticker", self._tickers), ("books15", self._books)):
            if symbol in texts:
                self._see(Heard(Kind.FRAME, channel, symbol, self._heard_ns[symbol], texts[symbol]))

    def _book(self, symbol: str, row: _BookRow, now_ns: int) -> None:
        bids, asks = ([(_number(price), _number(size)) for price, size in side] for side in (row.bids, row.asks))
        self.venue.set_book(symbol, bids, asks, now_ns)
        self._told.setdefault(symbol, asyncio.Event()).set()

    def _mark(self, symbol: str, row: _TickerRow, now_ns: int) -> None:
        mark, index, rate = (_optional(text) for text in (row.markPrice, row.indexPrice, row.fundingRate))
        self.venue.set_mark(symbol, mark, index, rate, now_ns)


class _BookRow(msgspec.Struct):
    asks: list[tuple[str, str]]
    bids: list[tuple[str, str]]


class _TickerRow(msgspec.Struct):
    """Of a push or of REST; names are Bitget's."""

    symbol: str = ""
    markPrice: str | None = None
    indexPrice: str | None = None
    fundingRate: str | None = None


class _TierRow(msgspec.Struct):
    level: str
    startUnit: str
    endUnit: str
    leverage: str
    keepMarginRate: str


class _TradeRow(msgspec.Struct):
    price: str
    size: str
    side: str


Row = TypeVar("Row")


class _Push(msgspec.Struct, Generic[Row]):
    data: list[Row]


_BOOK = msgspec.json.Decoder(_Push[_BookRow])
_TICKER = msgspec.json.Decoder(_Push[_TickerRow])
_TRADES = msgspec.json.Decoder(_Push[_TradeRow])


def _number(text: str) -> Decimal:
    value = Decimal(text)
    if not value.is_finite():
        raise ValueError(f"expected a number, found {text!r}")
    return value


def _optional(text: str | None) -> Decimal | float:
    """Return a number, NaN where the exchange leaves it out."""
    return float("nan") if text in (None, "") else _number(text)
