"""A REST client over aiohttp. With `streams`, its WebSockets, these are the only sockets.

What an order's answer means decides whether money is lost, so the errors are exact:

    ExchangeRefused       Bitget said no: the order does not exist
    ExchangeUnreachable   no connection could be opened, so nothing was sent (DNS, refused, TLS, connect time-out)
    ExchangeSilent        sent, or perhaps sent, and no answer that tells: it may be live; ask, never send again
    ProtocolBroken        an answer that is not Bitget's; from `place` and `cancel` it comes as ExchangeSilent

`ExchangeUnreachable` is an `ExchangeSilent`: whoever does not tell them apart treats an order that was never sent
as unknown, asks, and finds it absent. That is slow and safe; the other way round an order would be lost.

Reads and settings, which may be repeated, are tried three times; orders are sent once. TLS cannot be turned off,
redirects are not followed (they would carry the keys elsewhere), and no message holds a key, a signature or a body.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
import yarl

from shared.bitget import public, rest, wire
from shared.bitget.rest import Keys
from shared.errors import ExchangeRefused, ExchangeSilent, ProtocolBroken, SettingsError
from shared.pace import Pace
from shared.types import (
    NS,
    CancelOrder,
    Filled,
    FundingPaid,
    Note,
    PendingOrder,
    PlaceOrder,
    Position,
    Universe,
)

ATTEMPTS = 3
PAGES_MAX = 100  # of 100 rows: ten times the orders that one account may have pending (maxProductOrderNum 1000)
REST_PER_MIN = 3000  # half of Bitget's 6000 a minute and address, after which it blocks for five minutes
R = TypeVar("R", bound=wire.Row)

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ExchangeUnreachable(ExchangeSilent):
    """No connection could be opened: what was asked for was not even sent."""


def check_url(url: str, scheme: str) -> str:
    """Return the URL without a trailing slash; on any other machine than this one it must be encrypted."""
    parts = urlsplit(url)
    allowed = (scheme, scheme + "s") if parts.hostname in _LOOPBACK else (scheme + "s",)
    if parts.scheme not in allowed or not parts.hostname:
        raise SettingsError(f"expected a URL with {' or '.join(allowed)}://, found {url!r}: keys and orders go there")
    return url.rstrip("/")


class ReceiveClock:
    """Nanoseconds since the epoch that strictly increase within this process, whatever the wall clock does.

    One clock is shared by all sessions of a process, so that the order of receipt is the order of `recv_ns`.
    """

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._last_ns = 0

    def __call__(self) -> int:
        self._last_ns = max(self._now_ns(), self._last_ns + 1)
        return self._last_ns


def backoff_s(failures: int, draw: float) -> float:
    """Return how long to wait before trial `failures` + 1: full jitter under 1, 2, 4 … 30 s, never under 0.2 s.

    Args:
        draw: uniform in [0, 1). Jitter keeps the sockets of a process apart after a common loss: Bitget answers
            a storm of connects with 30006, and allows 300 in five minutes.
    """
    return max(0.2, draw * min(30.0, 2.0 ** min(failures, 5)))


class RestClient:
    """Bitget's REST as typed calls; use as `async with RestClient(…) as client`.

    Args:
        base_url: `https://api.bitget.com`, or a simulator on this machine.
        keys: None allows the public calls only.
        is_demo: send Bitget's header for paper trading with demo keys.
        timeout_s: an answer later than this is `ExchangeSilent`.
        clock: time of signatures and receipts, ns.
        share: of each endpoint's documented limit that is used, at most. Four fifths: the engine places up to eight
            orders at once in a decision second, of Bitget's ten.
    """

    def __init__(
        self,
        base_url: str,
        keys: Keys | tuple[str, str, str] | None,
        *,
        is_demo: bool = False,
        timeout_s: float = 10.0,
        clock: Callable[[], int] | None = None,
        share: float = 0.8,
    ) -> None:
        assert 0 < share <= 1, share
        self.base_url = check_url(base_url, "http")
        self._keys = Keys(*keys) if isinstance(keys, tuple) else keys
        self._is_demo = is_demo
        self._clock = clock or ReceiveClock()
        self._share = share
        self._jitter = random.Random()
        self._offset_ms = 0
        self._paces: dict[str, Pace] = {}
        self._all_pace = Pace(REST_PER_MIN, 60 * NS)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(5.0, timeout_s))
        self._http: aiohttp.ClientSession | None = None
        self.quarantine = wire.Quarantine()
        self._notes: list[Note] = []

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            timeout=self._timeout,
            connector=aiohttp.TCPConnector(limit=32, keepalive_timeout=30),
            auto_decompress=True,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    def take_notes(self) -> list[Note]:
        """Return what a person should read (fields nobody knows), since the last call."""
        notes, self._notes = self._notes, []
        return notes

    # -- public

    async def server_time(self) -> int:
        """Return the exchange's clock, ms."""
        return self._one(await self._send(rest.server_time()), wire.TimeRow, rest.SERVER_TIME).server_time

    async def sync_clock(self) -> int:
        """Sign with the exchange's clock from here on; return how far ours is behind it, ms.

        Half the round trip is taken off; the window of a signature is 30 s, so that a second does not matter.
        """
        before_ns = time.monotonic_ns()
        theirs_ms = await self.server_time()
        half_trip_ms = (time.monotonic_ns() - before_ns) // 2_000_000
        self._offset_ms = theirs_ms + half_trip_ms - self._clock() // wire.MS_NS
        return self._offset_ms

    async def contracts(self, source: str) -> Universe:
        """Return every listed perpetual, whatever its status."""
        rows = self._rows(await self._send(rest.contracts()), wire.ContractRow, rest.CONTRACTS)
        return wire.universe(rows, source, self._clock())

    async def readable_contracts(self, source: str) -> Universe:
        """Return those of them that can be read; a row that cannot is kept in `quarantine`. To record, not to trade."""
        data = await self._send(rest.contracts())
        rows, unknown, broken = wire.parse_each(data, wire.ContractRow, rest.CONTRACTS.path)
        self._keep(unknown, data, rest.CONTRACTS)
        for row, why in broken:
            note = self.quarantine.keep(rest.CONTRACTS.path, why[:120], msgspec.json.encode(row)[:65_536])
            if note is not None:
                self._notes.append(note)
        return wire.universe(rows, source, self._clock())

    async def tickers(self) -> tuple[wire.TickerRow, ...]:
        return tuple(self._rows(await self._send(rest.tickers()), wire.TickerRow, rest.TICKERS))

    async def merge_depth(self, symbol: str, limit: str = "15") -> wire.BookRow:
        """Return the book of one symbol; `limit` is one of 1, 5, 15, 50, max."""
        return self._one(await self._send(rest.merge_depth(symbol, limit)), wire.BookRow, rest.MERGE_DEPTH)

    async def candles(
        self, symbol: str, end_ms: int, granularity: str = "1m", limit: int = public.CANDLES_MAX
    ) -> list[public.CandleRow]:
        """Return the newest candles (at most 1000) that open before `end_ms`, oldest first; about a month is kept.

        An empty answer tells little: beyond what is kept it looks as it does before a listing.
        """
        data = await self._send(rest.candles(symbol, granularity, end_ms, min(limit, public.CANDLES_MAX)))
        return self._candles(data, rest.CANDLES, end_ms)

    async def history_candles(
        self, symbol: str, end_ms: int, granularity: str = "1m", limit: int = public.HISTORY_CANDLES_MAX
    ) -> list[public.CandleRow]:
        """Return the newest closed candles (at most 200) that open before `end_ms`, oldest first."""
        data = await self._send(
            rest.history_candles(symbol, granularity, end_ms, min(limit, public.HISTORY_CANDLES_MAX))
        )
        return self._candles(data, rest.HISTORY_CANDLES, end_ms)

    async def funding_history(self, symbol: str, page: int = 1) -> list[public.FundingRow]:
        """Return a page of 100 settlements, newest first; less than 100 where there are no older ones."""
        data = await self._send(rest.funding_history(symbol, page))
        return self._rows(data, public.FundingRow, rest.FUNDING_HISTORY)

    async def funding_now(self) -> list[public.FundingNowRow]:
        """Return every symbol's next funding; some are no contracts yet, and say nothing."""
        return self._rows(await self._send(rest.funding_now()), public.FundingNowRow, rest.FUNDING_NOW)

    async def open_interest(self, symbol: str) -> public.InterestPage:
        """Return the open interest of one symbol; `tickers` has it of all."""
        data = await self._send(rest.open_interest(symbol))
        return self._one(data, public.InterestPage, rest.OPEN_INTEREST)

    async def position_tiers(self, symbol: str) -> list[public.TierRow]:
        """Return the position tiers of one symbol, smallest first: there is no call for all (10 a second)."""
        data = await self._send(rest.position_tiers(symbol))
        return sorted(self._rows(data, public.TierRow, rest.POSITION_TIERS), key=lambda tier: tier.level)

    # -- account

    async def account(self, symbol: str) -> wire.Account:
        """Return equity and modes; Bitget wants a listed symbol here, and answers with its leverage and mode."""
        return wire.account(self._one(await self._send(rest.account(symbol)), wire.AccountRow, rest.ACCOUNT))

    async def bills(self, *, business_type: str = "", start_ms: int = 0) -> tuple[wire.BillRow, ...]:
        """Return the movements of the wallet since `start_ms`, oldest first: all, or one `business_type` of Bitget's.

        A bill may be listed later than the time that it bears: ask again, from before the last one seen.
        """
        found: list[wire.BillRow] = []
        before_id = ""
        for _ in range(PAGES_MAX):
            data = await self._send(rest.bills(business_type, start_ms, before_id))
            page = self._one(data, wire.BillPage, rest.BILLS)
            found += page.bills
            before_id = page.end_id
            if len(page.bills) < 100 or not before_id:
                return tuple(reversed(found))
        raise ProtocolBroken(f"expected at most {PAGES_MAX} pages of bills, found more: ask from a later start")

    async def funding(self, start_ms: int) -> tuple[FundingPaid, ...]:
        """Return the funding that was booked since `start_ms`, oldest first."""
        rows = await self.bills(business_type=wire.FUNDING_BILL, start_ms=start_ms)
        recv_ns = self._clock()
        return tuple(wire.funding_paid(row, recv_ns) for row in rows)

    async def positions(self) -> tuple[Position, ...]:
        """Return what is held; a flat symbol is absent."""
        rows = self._rows(await self._send(rest.positions()), wire.PositionRow, rest.POSITIONS)
        return tuple(wire.position(row) for row in rows if row.total)

    async def set_leverage(self, symbol: str, leverage: int) -> int:
        """Set the crossed leverage; return the one obtained, from the answer or, where that is blank, the account."""
        row = self._one(await self._send(rest.set_leverage(symbol, leverage)), wire.LeverageRow, rest.SET_LEVERAGE)
        if row.cross_margin_leverage is not None:
            return row.cross_margin_leverage
        return (await self.account(symbol)).leverage

    async def set_margin_mode(self, symbol: str) -> str:
        """Ask for crossed margin; return the mode obtained. 45117 where a position or order is open."""
        row = self._one(await self._send(rest.set_margin_mode(symbol)), wire.ModeRow, rest.SET_MARGIN_MODE)
        return row.margin_mode

    async def set_position_mode(self) -> str:
        """Ask for one-way mode; return the mode obtained. 40920 where any position or order is open."""
        row = self._one(await self._send(rest.set_position_mode()), wire.ModeRow, rest.SET_POSITION_MODE)
        return row.pos_mode

    # -- orders

    async def place(self, order: PlaceOrder) -> str:
        """Send the order once; return its orderId ("" where Bitget leaves it out). An ack is not a fill.

        What the exchange is to close itself (`is_flash`) is a flash close of the symbol.

        Raises:
            ExchangeRefused: the order does not exist.
            ExchangeUnreachable: it was not sent.
            ExchangeSilent: it may be live; find out with `detail`.
        """
        if order.is_flash:
            return await self.flash_close(order.symbol)
        data = await self._send(rest.place(order))
        return self._told(data, rest.PLACE).order_id

    async def cancel(self, order: CancelOrder) -> None:
        """Ask for the cancellation; that it happened is reported by the private stream or `detail`."""
        self._told(await self._send(rest.cancel(order)), rest.CANCEL)

    async def flash_close(self, symbol: str) -> str:
        """Ask the exchange to close a whole position at market: for what no order of ours may close any more.

        A position may be smaller than the step or the minimum that its contract has today. Returns the orderId; its
        clientOid is the exchange's own.

        Raises:
            ExchangeRefused: nothing was sent (22002: there is nothing to close).
            ExchangeSilent: it may be closing; ask for the positions.
        """
        data = await self._send(rest.flash_close(symbol))
        try:
            told = self._one(data, wire.ClosePage, rest.FLASH_CLOSE)
        except ProtocolBroken as error:
            raise ExchangeSilent(f"{error}: it may have happened") from None
        for failed in told.failure_list:
            raise ExchangeRefused(failed.error_code, f"{failed.error_msg} ({rest.FLASH_CLOSE.path})")
        if not told.success_list:
            raise ExchangeSilent(f"{rest.FLASH_CLOSE.path}: expected an order, found none: it may have happened")
        return told.success_list[0].order_id

    async def detail(self, symbol: str, client_oid: str, order_id: str = "") -> wire.OrderState | None:
        """Return the order; None where Bitget does not know it (proof of absence only after SIGNATURE_WINDOW_S).

        Args:
            order_id: asks by the exchange's name instead; "": by ours.
        """
        try:
            data = await self._send(rest.detail(symbol, client_oid, order_id))
        except ExchangeRefused as refusal:
            if refusal.code in wire.ORDER_UNKNOWN_CODES:
                return None
            raise
        if data is None:
            return None
        return wire.order_state(self._one(data, wire.OrderRow, rest.DETAIL))

    async def pending(self) -> tuple[PendingOrder, ...]:
        """Return every order that rests."""
        orders: list[PendingOrder] = []
        before_id = ""
        for _ in range(PAGES_MAX):
            page = self._one(await self._send(rest.pending(before_id)), wire.PendingPage, rest.PENDING)
            orders += [wire.order_state(row).pending() for row in page.entrusted_list]
            before_id = page.end_id
            if len(page.entrusted_list) < 100 or not before_id:
                return tuple(orders)
        raise ProtocolBroken(f"expected at most {PAGES_MAX} pages of pending orders, found more")

    async def fills(
        self, *, symbol: str = "", order_id: str = "", client_oid: str = "", start_ms: int = 0
    ) -> tuple[Filled, ...]:
        """Return the fills, oldest first, of one order, or of one symbol or all since `start_ms`.

        Args:
            client_oid: stands in the result, because Bitget leaves it out here; only with `order_id`.
        """
        assert not client_oid or order_id, "a client_oid names the fills of one order: give its order_id"
        found: list[Filled] = []
        before_id = ""
        for _ in range(PAGES_MAX):
            data = await self._send(rest.fills(symbol, order_id, start_ms, before_id))
            page = self._one(data, wire.FillPage, rest.FILLS)
            recv_ns = self._clock()
            found += [wire.filled(row, recv_ns, client_oid) for row in page.fill_list]
            before_id = page.end_id
            if len(page.fill_list) < 100 or not before_id:
                return tuple(reversed(found))
        raise ProtocolBroken(f"expected at most {PAGES_MAX} pages of fills, found more: ask from a later start")

    # -- one request

    async def _send(self, request: rest.Request) -> Any:
        """Return the answer's data; what may be repeated is repeated where that can help."""
        assert self._keys is not None or not request.endpoint.is_signed, f"{request.endpoint.path} needs keys"
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._send_once(request)
            except (ExchangeSilent, ExchangeRefused, ProtocolBroken) as error:
                # A proxy's page or a torn answer in place of Bitget's is as passing as none.
                is_worth_it = not isinstance(error, ExchangeRefused) or error.code in rest.LATER_CODES
                if isinstance(error, ExchangeRefused) and error.code == rest.EXPIRED_CODE:
                    is_worth_it = await self._follow_clock()
                if attempt == ATTEMPTS or not is_worth_it or not request.endpoint.is_repeatable:
                    raise
            await asyncio.sleep(backoff_s(attempt - 1, self._jitter.random()))
        raise AssertionError("unreachable")

    async def _follow_clock(self) -> bool:
        """Read the exchange's clock anew after it has called a signature old; tell whether it differs from ours.

        The clock of a machine may be set, or stand still while it sleeps. What was refused was not done.
        """
        before_ms = self._offset_ms
        with contextlib.suppress(ExchangeSilent, ExchangeRefused, ProtocolBroken):
            await self.sync_clock()
        moved_ms = self._offset_ms - before_ms
        if abs(moved_ms) < 1000:
            return False
        self._notes.append(Note(event="clock.followed", fields={"moved_ms": moved_ms}))
        return True

    async def _send_once(self, request: rest.Request) -> Any:
        assert self._http is not None, "use the client as `async with RestClient(…)`"
        await self._wait_turn(request.endpoint)
        where = f"{request.endpoint.method} {request.endpoint.path}"
        timestamp_ms = self._clock() // wire.MS_NS + self._offset_ms
        try:
            async with self._http.request(
                request.endpoint.method,
                yarl.URL(self.base_url + request.target, encoded=True),
                data=request.body.encode() if request.body else None,
                headers=request.headers(self._keys, timestamp_ms, is_demo=self._is_demo),
                allow_redirects=False,
            ) as response:
                status, raw = response.status, await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            # Only these two are raised before a byte of the request is written.
            raise ExchangeUnreachable(
                f"{where}: expected a connection to {self.base_url}, found {reason_of(error)}: nothing was sent"
            ) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ExchangeSilent(
                f"{where}: expected an answer, found {reason_of(error)}: it may have happened"
            ) from None
        try:
            return rest.read(status, raw, where)
        except ProtocolBroken as error:
            if request.endpoint.is_repeatable:
                raise
            raise ExchangeSilent(f"{error}: it may have happened") from None

    async def _wait_turn(self, endpoint: rest.Endpoint) -> None:
        """Wait until neither the endpoint's window (at our share of its limit) nor the address's is full."""
        pace = self._paces.get(endpoint.path)
        if pace is None:
            allowed = int(endpoint.per_s * self._share)
            pace = self._paces[endpoint.path] = Pace(allowed) if allowed else Pace(1, int(NS / self._share))
        while (wait_ns := max(pace.ready_ns(), self._all_pace.ready_ns()) - time.monotonic_ns()) > 0:
            await asyncio.sleep(wait_ns / NS)
        now_ns = time.monotonic_ns()
        pace.note(now_ns)
        self._all_pace.note(now_ns)

    # -- one payload

    def _rows(self, data: Any, kind: type[R], endpoint: rest.Endpoint) -> list[R]:
        rows, unknown = wire.parse_rows(data, kind, endpoint.path)
        self._keep(unknown, data, endpoint)
        return rows

    def _keep(self, unknown: Sequence[str], data: Any, endpoint: rest.Endpoint, broken: Sequence[str] = ()) -> None:
        for what in (*(f"unknown field {name}" for name in unknown), *broken):
            note = self.quarantine.keep(endpoint.path, what, msgspec.json.encode(data)[:65_536])
            if note is not None:
                self._notes.append(note)

    def _candles(self, data: Any, endpoint: rest.Endpoint, end_ms: int) -> list[public.CandleRow]:
        try:
            rows, unknown = public.candles(data, endpoint.path)
        except ProtocolBroken as error:
            self._keep((), data, endpoint, [str(error)[:120]])
            raise
        self._keep(unknown, data, endpoint)
        return [row for row in rows if row.open_ms < end_ms]

    def _one(self, data: Any, kind: type[R], endpoint: rest.Endpoint) -> R:
        if not isinstance(data, dict):
            raise ProtocolBroken(f"{endpoint.path}: expected an object, found {type(data).__name__}")
        return self._rows([data], kind, endpoint)[0]

    def _told(self, data: Any, endpoint: rest.Endpoint) -> wire.PlacedRow:
        """Return the ack of an order; an unreadable one leaves open what happened."""
        try:
            return self._one(data, wire.PlacedRow, endpoint)
        except ProtocolBroken as error:
            raise ExchangeSilent(f"{error}: it may have happened") from None


def reason_of(error: BaseException) -> str:
    return f"{type(error).__name__} {error}".strip()
