"""Requests and signatures of Bitget's REST, without I/O: what to send, and what an answer means.

A `Request` knows its endpoint's budget and whether it may be sent again; `Reply.of` turns status and bytes into
data or into the error that says whose fault it was.

To add an endpoint: an `Endpoint` with its documented rate, and a function that returns its `Request`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from shared.bitget import public, wire
from shared.errors import ExchangeRefused, ExchangeSilent, ProtocolBroken
from shared.types import CancelOrder, PlaceOrder

SIGNATURE_WINDOW_S = 30
"""Bitget accepts a request signed up to this long ago (40008 afterwards): only then is an unseen order absent."""


class Keys(msgspec.Struct, frozen=True):
    """API key, secret and passphrase; printing it shows none of them."""

    key: str
    secret: str
    passphrase: str

    def __repr__(self) -> str:
        return "Keys([redacted])"

    __str__ = __repr__

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # msgspec's own would show the fields in a rich traceback
        return [("", "[redacted]")]


def sign(secret: str, timestamp: int, method: str, path: str, query: str, body: str) -> str:
    """Return base64(HMAC-SHA256(secret, timestamp METHOD path ?query body)) (Bitget v2 -> Signature).

    Args:
        timestamp: milliseconds for REST, seconds for the WebSocket's login.
        query: without "?", as sent or not percent-encoded; Bitget accepts either.
        body: exactly what is sent, "" for GET.
    """
    text = f"{timestamp}{method.upper()}{path}{'?' + query if query else ''}{body}"
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()).decode()


class Endpoint(msgspec.Struct, frozen=True):
    method: str
    path: str
    per_s: int  # documented limit; per IP where public, per user where private
    is_signed: bool
    is_repeatable: bool  # doing it twice is doing it once


def _public(path: str, per_s: int = 20) -> Endpoint:
    return Endpoint("GET", "/api/v2/" + path, per_s, is_signed=False, is_repeatable=True)


def _private(path: str, per_s: int = 10) -> Endpoint:
    return Endpoint("GET", "/api/v2/mix/" + path, per_s, is_signed=True, is_repeatable=True)


def _setting(path: str) -> Endpoint:
    return Endpoint("POST", "/api/v2/mix/account/" + path, 5, is_signed=True, is_repeatable=True)


def _order(path: str, per_s: int = 10) -> Endpoint:
    return Endpoint("POST", "/api/v2/mix/order/" + path, per_s, is_signed=True, is_repeatable=False)


SERVER_TIME = _public("public/time")
CONTRACTS = _public("mix/market/contracts")
TICKERS = _public("mix/market/tickers")
MERGE_DEPTH = _public("mix/market/merge-depth")
CANDLES = _public("mix/market/candles")
HISTORY_CANDLES = _public("mix/market/history-candles")
FUNDING_HISTORY = _public("mix/market/history-fund-rate")
FUNDING_NOW = _public("mix/market/current-fund-rate")
OPEN_INTEREST = _public("mix/market/open-interest")
POSITION_TIERS = _public("mix/market/query-position-lever", 10)
ACCOUNT = _private("account/account")
BILLS = _private("account/bill")
POSITIONS = _private("position/all-position", 5)
PENDING = _private("order/orders-pending")
DETAIL = _private("order/detail")
FILLS = _private("order/fills")
SET_LEVERAGE = _setting("set-leverage")
SET_MARGIN_MODE = _setting("set-margin-mode")
SET_POSITION_MODE = _setting("set-position-mode")
PLACE = _order("place-order")
CANCEL = _order("cancel-order")
FLASH_CLOSE = _order("close-positions", 1)


class Request(msgspec.Struct, frozen=True):
    endpoint: Endpoint
    query: Mapping[str, str] = {}
    body: str = ""

    @property
    def raw_query(self) -> str:
        """Return the query as it is signed: sorted, not encoded."""
        return "&".join(f"{name}={self.query[name]}" for name in sorted(self.query))

    @property
    def target(self) -> str:
        """Return path and query as they stand in the URL: UTF-8, percent-encoded."""
        pairs = "&".join(f"{name}={quote(self.query[name], safe='')}" for name in sorted(self.query))
        return self.endpoint.path + ("?" + pairs if pairs else "")

    def headers(self, keys: Keys | None, timestamp_ms: int, *, is_demo: bool) -> dict[str, str]:
        """Return the headers; a public request carries no key even where there is one."""
        headers = {"locale": "en-US"}
        if self.body:
            headers["Content-Type"] = "application/json"
        if not self.endpoint.is_signed:
            return headers
        assert keys is not None, f"{self.endpoint.path} needs keys"
        endpoint = self.endpoint
        headers |= {
            "ACCESS-KEY": keys.key,
            "ACCESS-SIGN": sign(keys.secret, timestamp_ms, endpoint.method, endpoint.path, self.raw_query, self.body),
            "ACCESS-TIMESTAMP": str(timestamp_ms),
            "ACCESS-PASSPHRASE": keys.passphrase,
        }
        if is_demo:
            headers["paptrading"] = "1"
        return headers


def _get(endpoint: Endpoint, **query: str) -> Request:
    return Request(endpoint, {"productType": wire.PRODUCT_TYPE, **{k: v for k, v in query.items() if v}})


def _post(endpoint: Endpoint, body: Mapping[str, str]) -> Request:
    return Request(endpoint, body=msgspec.json.encode(body).decode())


def server_time() -> Request:
    return Request(SERVER_TIME)


def contracts() -> Request:
    return _get(CONTRACTS)


def tickers() -> Request:
    return _get(TICKERS)


def merge_depth(symbol: str, limit: str = "15") -> Request:
    return _get(MERGE_DEPTH, symbol=symbol, limit=limit)


def candles(symbol: str, granularity: str, end_ms: int, limit: int) -> Request:
    """Ask for the newest candles that open before `end_ms`, the forming one included where it does."""
    return _candles(CANDLES, symbol, granularity, end_ms, limit)


def history_candles(symbol: str, granularity: str, end_ms: int, limit: int) -> Request:
    """Ask for the newest closed candles that open before `end_ms`; a startTime would be ignored (PROTOCOL §4)."""
    return _candles(HISTORY_CANDLES, symbol, granularity, end_ms, limit)


def _candles(endpoint: Endpoint, symbol: str, granularity: str, end_ms: int, limit: int) -> Request:
    return _get(endpoint, symbol=symbol, granularity=granularity, endTime=str(end_ms), limit=str(limit))


def funding_history(symbol: str, page: int) -> Request:
    """Ask for a page of settlements, newest first, from page 1; there is no window of time."""
    return _get(FUNDING_HISTORY, symbol=symbol, pageSize=str(public.FUNDING_MAX), pageNo=str(page))


def funding_now() -> Request:
    return _get(FUNDING_NOW)


def open_interest(symbol: str) -> Request:
    return _get(OPEN_INTEREST, symbol=symbol)


def position_tiers(symbol: str) -> Request:
    return _get(POSITION_TIERS, symbol=symbol)


def account(symbol: str) -> Request:
    return _get(ACCOUNT, symbol=symbol, marginCoin=wire.MARGIN_COIN)


def bills(business_type: str = "", start_ms: int = 0, before_id: str = "") -> Request:
    start = str(start_ms) if start_ms else ""
    return _get(
        BILLS, coin=wire.MARGIN_COIN, businessType=business_type, startTime=start, idLessThan=before_id, limit="100"
    )


def positions() -> Request:
    return _get(POSITIONS, marginCoin=wire.MARGIN_COIN)


def pending(before_id: str = "") -> Request:
    return _get(PENDING, limit="100", idLessThan=before_id)


def detail(symbol: str, client_oid: str, order_id: str = "") -> Request:
    return _get(DETAIL, symbol=symbol, orderId=order_id, clientOid="" if order_id else client_oid)


def fills(symbol: str = "", order_id: str = "", start_ms: int = 0, before_id: str = "") -> Request:
    start = str(start_ms) if start_ms else ""
    return _get(FILLS, symbol=symbol, orderId=order_id, startTime=start, idLessThan=before_id, limit="100")


def set_leverage(symbol: str, leverage: int) -> Request:
    return _post(SET_LEVERAGE, _of_symbol(symbol) | {"leverage": str(leverage)})


def set_margin_mode(symbol: str) -> Request:
    return _post(SET_MARGIN_MODE, _of_symbol(symbol) | {"marginMode": wire.CROSSED})


def set_position_mode() -> Request:
    return _post(SET_POSITION_MODE, {"productType": wire.PRODUCT_TYPE, "posMode": wire.ONE_WAY})


def place(order: PlaceOrder) -> Request:
    return _post(PLACE, wire.place_body(order))


def cancel(order: CancelOrder) -> Request:
    return _post(CANCEL, wire.cancel_body(order))


def flash_close(symbol: str) -> Request:
    return _post(FLASH_CLOSE, {"symbol": symbol, "productType": wire.PRODUCT_TYPE})


def _of_symbol(symbol: str) -> dict[str, str]:
    return {"symbol": symbol, "productType": wire.PRODUCT_TYPE, "marginCoin": wire.MARGIN_COIN}


# ------------------------------------------------------------------------------------------------------- answers

SUCCESS = "00000"

# The exchange does not know itself what it did (PROTOCOL §9: "transient"): timed out, system abnormal, service
# error, unknown error. A read is asked again; an order with such an answer may be live.
UNDECIDED_CODES = frozenset({"40010", "40015", "40725", "45001"})

# The signature is older than the window, or of the future: our idea of the exchange's clock is wrong.
EXPIRED_CODE = "40008"

# Refusals before anything was done, that another try may not meet: too many requests, system upgrade.
LATER_CODES = frozenset({"429", "40200"})

_ADVICE = {
    "40085": "expected a classic account, found a unified account, which the classic (v2) API cannot use: "
    "create a classic sub-account and its keys",
    "40099": "the key belongs to the other environment: demo keys need BITGET_VENUE=demo, live keys BITGET_VENUE=live",
    "40006": "check BITGET_API_KEY",
    "40037": "check BITGET_API_KEY",
    "40012": "check BITGET_API_KEY and BITGET_PASSPHRASE",
    "40036": "check BITGET_PASSPHRASE",
    "40009": "check BITGET_API_SECRET",
    "40008": "the clock of this machine is off: synchronise it",
    "40014": "give the key permission to trade futures",
    "40018": "add this machine's address to the key's list",
    "40038": "add this machine's address to the key's list",
    "40774": "the account must be in one-way mode",
}


class _Envelope(msgspec.Struct, frozen=True):
    code: str | int
    msg: str | None = None
    data: Any = None


_DECODER = msgspec.json.Decoder(_Envelope)


def read(status: int, raw: bytes, where: str) -> Any:
    """Return `data` of an answer.

    Raises:
        ExchangeRefused: Bitget answered no.
        ExchangeSilent: an answer that leaves open whether it was done: no envelope from a server in trouble
            (HTTP 5xx of a gateway), or a code by which Bitget says that it does not know.
        ProtocolBroken: anything else that is not Bitget's envelope.
    """
    try:
        envelope = _DECODER.decode(raw)
    except msgspec.DecodeError as error:
        if status >= 500:
            raise ExchangeSilent(f"{where}: expected an answer of Bitget, found HTTP {status} of a gateway") from None
        if status == 429:
            raise ExchangeRefused("429", f"Too Many Requests ({where})", status) from None
        raise ProtocolBroken(f"{where}: expected Bitget's envelope, found HTTP {status} and {error}") from None
    code = str(envelope.code)
    if code == SUCCESS and status < 300:
        return envelope.data
    message = f"{envelope.msg or 'no message'} ({where})"
    if code in UNDECIDED_CODES:
        raise ExchangeSilent(f"Bitget does not know what became of it: {code} {message}")
    if code == SUCCESS:
        raise ProtocolBroken(f"{where}: expected HTTP 200 with code {SUCCESS}, found HTTP {status}")
    if code in _ADVICE:
        message += ": " + _ADVICE[code]
    raise ExchangeRefused(code, message, status)
