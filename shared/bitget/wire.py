"""Bitget v2's payloads, both ways and without I/O: WebSocket frames, REST rows, bodies of requests.

The idea: every payload is a struct whose fields are the ones we use, and `IGNORED` names the ones we know and do
not use. Whatever else arrives is tolerated and *named* (`unknown`), so that a field Bitget adds, renames or drops
is noticed on its first payload. A blank (`""` or null) is a missing field: NaN for a market observation, None for
an optional amount, `ProtocolBroken` where the field is required. No default ever stands in for a number.

Hot frames (books, trades, tickers) go through typed decoders that refuse unknown fields; only where one refuses
does the slow path look why. Numbers arrive as strings or as JSON numbers, both are read.

To add a channel: a row struct, an entry in `_CHANNELS`. To add a REST payload: a row struct and `parse_rows`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import msgspec

from shared.errors import ProtocolBroken
from shared.types import (
    CancelOrder,
    Contract,
    Filled,
    FundingPaid,
    Note,
    OrderKind,
    OrderReported,
    OrderStatus,
    PendingOrder,
    PlaceOrder,
    Position,
    Side,
    Universe,
)

PRODUCT_TYPE = "USDT-FUTURES"
MARGIN_COIN = "USDT"
FUNDING_BILL = "contract_settle_fee"
ONE_WAY = "one_way_mode"
CROSSED = "crossed"
NAN = math.nan
MS_NS = 1_000_000
_PLACES_MAX = 100  # decimals of a price: the least of Bitget's have ten

# What cancel and detail answer for an order that the exchange does not know (PROTOCOL §9; the second half are codes
# that clients in production have seen for it).
ORDER_UNKNOWN_CODES = frozenset(
    {"40768", "40109", "43001", "43025", "45057"} | {"22001", "40819", "43020", "43033", "31007", "80011"}
)


# ------------------------------------------------------------------------------------------------- rows, as sent

Ms = Annotated[int, msgspec.Meta(ge=0, le=9_000_000_000_000)]  # in ns it must fit int64: until the year 2255
Int64 = Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)]


class Row(msgspec.Struct, frozen=True, rename="camel"):
    """A payload object: fields are what we use, `IGNORED` what we know and leave, the rest is unknown."""

    IGNORED: ClassVar[str] = ""
    NESTED: ClassVar[dict[str, type[Row]]] = {}


class BookRow(Row, frozen=True, gc=False):
    """Levels best first: asks ascending, bids descending (books5, books15, merge-depth)."""

    IGNORED: ClassVar[str] = "pseq checksum scale precision isMaxPrecision"  # checksum: gone since May 2026

    asks: list[tuple[float, float]]
    bids: list[tuple[float, float]]
    ts: Ms = 0
    seq: Int64 = -1


class DepthRow(BookRow, frozen=True, gc=False):
    """A snapshot or a change of the full book (`books`): size 0 deletes a level, `pseq` is the `seq` it follows."""

    IGNORED: ClassVar[str] = "checksum scale precision isMaxPrecision"

    pseq: Int64 = -1


class TradeRow(Row, frozen=True, gc=False):
    ts: Ms
    price: float
    size: float
    side: Literal["buy", "sell", "Buy", "Sell"]  # the taker's; capitalised in older recordings
    trade_id: Int64


class TickerRow(Row, frozen=True, gc=False):
    """One symbol's ticker, from WebSocket and REST; what Bitget left blank is NaN."""

    IGNORED: ClassVar[str] = (
        "instId open24h high24h low24h change24h openUtc changeUtc24h symbolType usdtVolume open"
        " deliveryPrice deliveryStartTime deliveryTime deliveryStatus"
    )

    last: float = msgspec.field(name="lastPr", default=NAN)
    bid: float = msgspec.field(name="bidPr", default=NAN)
    ask: float = msgspec.field(name="askPr", default=NAN)
    bid_size: float = msgspec.field(name="bidSz", default=NAN)
    ask_size: float = msgspec.field(name="askSz", default=NAN)
    mark: float = msgspec.field(name="markPrice", default=NAN)
    index: float = msgspec.field(name="indexPrice", default=NAN)
    funding_rate: float = NAN
    next_funding_ms: float = msgspec.field(name="nextFundingTime", default=NAN)  # REST never sends it
    open_interest: float = msgspec.field(name="holdingAmount", default=NAN)  # may carry float noise
    base_volume_24h: float = msgspec.field(name="baseVolume", default=NAN)
    quote_volume_24h: float = msgspec.field(name="quoteVolume", default=NAN)
    ts: Ms = 0
    symbol: str = ""


class ContractRow(Row, frozen=True):
    """Bitget v2 -> Contract -> Market -> Get Contract Config."""

    IGNORED: ClassVar[str] = (
        "feeRateUpRatio openCostUpRatio supportMarginCoins volumePlace maxSymbolOrderNum maxProductOrderNum"
        " maxPositionNum limitOpenTime deliveryTime deliveryStartTime deliveryPeriod posLimit maintainTime openTime"
    )

    symbol: str
    base_coin: str
    quote_coin: str
    symbol_status: str
    symbol_type: str
    price_end_step: Decimal
    price_place: int
    size_multiplier: Decimal
    min_trade_num: Decimal
    buy_limit_price_ratio: Decimal
    sell_limit_price_ratio: Decimal
    maker_fee_rate: Decimal
    taker_fee_rate: Decimal
    min_lever: int
    max_lever: int
    fund_interval: int
    is_rwa: str
    min_trade_usdt: Decimal = msgspec.field(name="minTradeUSDT")
    max_order_qty: Decimal | None = None
    max_market_order_qty: Decimal | None = None
    launch_time: int | None = None
    off_time: int | None = None


class AccountRow(Row, frozen=True):
    """The account as one symbol sees it (GET account/account)."""

    IGNORED: ClassVar[str] = (
        "locked crossedMaxAvailable isolatedMaxAvailable maxTransferOut usdtEquity btcEquity crossedRiskRate"
        " isolatedLongLever isolatedShortLever coupon crossedUnrealizedPL isolatedUnrealizedPL grant assetMode"
        " isolatedMargin crossedMargin unionTotalMargin unionAvailable unionMm"
    )

    margin_coin: str
    account_equity: Decimal
    available: Decimal
    crossed_margin_leverage: int
    margin_mode: str
    pos_mode: str
    unrealized_pl: Decimal = msgspec.field(name="unrealizedPL")


class AccountPushRow(Row, frozen=True):
    """The account as the private stream pushes it."""

    IGNORED: ClassVar[str] = (
        "frozen maxOpenPosAvailable maxTransferOut usdtEquity crossedRiskRate unrealizedPL unionTotalMargin"
        " unionAvailable unionMm assetsMode"
    )

    margin_coin: str
    equity: Decimal
    available: Decimal


class PositionRow(Row, frozen=True):
    """A position; REST calls the symbol `symbol`, the private stream calls it `instId`."""

    IGNORED: ClassVar[str] = (
        "posId marginCoin marginSize marginMode available frozen locked openDelegateSize achievedProfits unrealizedPL"
        " unrealizedPLR liquidationPrice keepMarginRate marginRate marginRatio isolatedMarginRate breakEvenPrice"
        " totalFee deductedFee markPrice grant assetMode autoMargin takeProfit stopLoss takeProfitId stopLossId"
        " cashDividend cTime uTime"
    )

    hold_side: str
    pos_mode: str
    total: Decimal
    open_price_avg: Decimal
    leverage: int  # a JSON int on the private stream, a string over REST
    symbol: str = ""
    inst_id: str = ""


class FeeRow(Row, frozen=True):
    IGNORED: ClassVar[str] = "deduction totalDeductionFee"

    fee_coin: str
    total_fee: Decimal  # negative: we paid


class FillRow(Row, frozen=True):
    """One fill; REST sends no clientOid, the private stream does (recordings of 2024 lack it)."""

    IGNORED: ClassVar[str] = "quoteVolume profit enterPointSource tradeSide posMode orderType uTime"
    NESTED: ClassVar[dict[str, type[Row]]] = {"feeDetail": FeeRow}

    trade_id: str
    order_id: str
    symbol: str
    side: Side
    price: Decimal
    base_volume: Decimal
    trade_scope: str  # "taker" or "maker"
    fee_detail: list[FeeRow]
    c_time: Ms
    client_oid: str = ""


class OrderRow(Row, frozen=True):
    """An order, from `detail` (which says `state`), lists (`status`) and the private stream (`instId`)."""

    IGNORED: ClassVar[str] = (
        "totalProfits posSide marginCoin quoteVolume leverage marginMode enterPointSource tradeSide posMode orderSource"
        " newTradeSide presetStopSurplusPrice presetStopSurplusType presetStopSurplusExecutePrice"
        " presetStopSurplusTriggerType presetStopLossPrice presetStopLossType presetStopLossExecutePrice"
        " presetStopLossTriggerType cTime uTime fee priceAvg feeDetail notionalUsd stpMode fillNotionalUsd pnl"
        " posAvg liqPrice"
    )

    order_id: str
    side: Side
    size: Decimal
    order_type: str
    client_oid: str = ""
    symbol: str = ""
    inst_id: str = ""
    status: OrderStatus | None = None
    state: OrderStatus | None = None
    force: str = "gtc"
    price: Decimal | None = None
    reduce_only: str = "no"
    cancel_reason: str = ""
    acc_base_volume: Decimal | None = None  # private stream: filled so far
    base_volume: Decimal | None = None  # REST: filled so far; private stream: size of this fill
    trade_id: str = ""
    fill_price: Decimal | None = None
    fill_fee: Decimal | None = None
    fill_fee_coin: str = ""
    fill_time: Ms = 0
    trade_scope: str = ""  # "T" or "M" here


class PlacedRow(Row, frozen=True):
    order_id: str = ""  # blank on a reduce-only order that first cancels older ones (PROTOCOL §6.2)
    client_oid: str = ""


class FailedRow(Row, frozen=True):
    """One of several orders that was refused."""

    IGNORED: ClassVar[str] = "orderId clientOid symbol"

    error_code: str
    error_msg: str = ""


class ClosedRow(Row, frozen=True):
    IGNORED: ClassVar[str] = "clientOid symbol"

    order_id: str = ""


class ClosePage(Row, frozen=True):
    """What a flash close has sent, and what it could not (POST order/close-positions)."""

    NESTED: ClassVar[dict[str, type[Row]]] = {"successList": ClosedRow, "failureList": FailedRow}

    success_list: list[ClosedRow] = []
    failure_list: list[FailedRow] = []


class LeverageRow(Row, frozen=True):
    IGNORED: ClassVar[str] = "marginCoin longLeverage shortLeverage shortLeveage marginMode"

    symbol: str
    cross_margin_leverage: int | None = None  # None: the symbol's margin is isolated


class ModeRow(Row, frozen=True):
    IGNORED: ClassVar[str] = "symbol marginCoin longLeverage shortLeverage"

    pos_mode: str = ""
    margin_mode: str = ""


class TimeRow(Row, frozen=True):
    server_time: int


class PendingPage(Row, frozen=True):
    NESTED: ClassVar[dict[str, type[Row]]] = {"entrustedList": OrderRow}

    entrusted_list: list[OrderRow] = []  # null when empty; msgspec copies empty list defaults
    end_id: str = ""


class FillPage(Row, frozen=True):
    NESTED: ClassVar[dict[str, type[Row]]] = {"fillList": FillRow}

    fill_list: list[FillRow] = []
    end_id: str = ""


class BillRow(Row, frozen=True):
    """One movement of the wallet (GET account/bill)."""

    IGNORED: ClassVar[str] = "feeByCoupon balance"  # balance: absent in recordings of 2023

    bill_id: str
    business_type: str  # "contract_settle_fee": funding; "buy", "sell": trades; "trans_…": transfers
    coin: str
    amount: Decimal  # > 0 received, without the fee
    fee: Decimal  # negative: we paid
    c_time: Ms
    symbol: str = ""  # blank on transfers


class BillPage(Row, frozen=True):
    NESTED: ClassVar[dict[str, type[Row]]] = {"bills": BillRow}

    bills: list[BillRow] = []
    end_id: str = ""


# ------------------------------------------------------------------------------------- decoding, strict then why

R = TypeVar("R", bound=Row)

_NOT_FINITE = frozenset({"nan", "snan", "inf", "infinity"})  # float() and Decimal() read these words as numbers


def _known(kind: type[Row]) -> frozenset[str]:
    return frozenset(kind.__struct_encode_fields__) | frozenset(kind.IGNORED.split())


def _is_blank(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, str) and value.lstrip("+-").lower() in _NOT_FINITE)


def _sift(payload: Any, kind: type[Row], unknown: set[str], inside: str = "") -> Any:
    """Return the payload with only the fields of `kind` and no blanks; add the names nobody knows to `unknown`."""
    if isinstance(payload, list):
        return [_sift(item, kind, unknown, inside) for item in payload]
    if not isinstance(payload, dict):
        if _is_blank(payload):
            raise ProtocolBroken(f"expected a value in a list, found {payload!r}: Bitget's payload has changed")
        return payload
    unknown.update(inside + name for name in payload.keys() - _known(kind))
    fields = kind.__struct_encode_fields__
    return {
        name: _sift(value, kind.NESTED.get(name, Row), unknown, name + ".") if isinstance(value, list) else value
        for name, value in payload.items()
        if name in fields and not _is_blank(value)
    }


def parse_rows(payload: Any, kind: type[R], where: str) -> tuple[list[R], tuple[str, ...]]:
    """Return the rows of a decoded JSON list, and the fields in them that this code does not know, sorted.

    Raises:
        ProtocolBroken: a required field is missing, blank, or not what the protocol says.
    """
    unknown: set[str] = set()
    sifted = _sift([] if payload is None else payload, kind, unknown)
    try:
        rows: list[R] = msgspec.convert(sifted, list[kind], strict=False)  # type: ignore[valid-type]
    except msgspec.ValidationError as error:
        raise ProtocolBroken(f"{where}: {error}: Bitget's payload has changed, or is not from Bitget") from None
    return rows, tuple(sorted(unknown))


def parse_each(payload: Any, kind: type[R], where: str) -> tuple[list[R], tuple[str, ...], list[tuple[Any, str]]]:
    """Return what `parse_rows` does, and the rows that cannot be read with the reason: the others are worth having.

    Raises:
        ProtocolBroken: there is no list, or none of its rows can be read.
    """
    if not isinstance(payload, list):
        raise ProtocolBroken(f"{where}: expected a list, found {type(payload).__name__}")
    try:
        return *parse_rows(payload, kind, where), []
    except ProtocolBroken as error:
        rows: list[R] = []
        unknown: set[str] = set()
        broken: list[tuple[Any, str]] = []
        for item in payload:
            try:
                found, names = parse_rows([item], kind, where)
            except ProtocolBroken as why:
                broken.append((item, str(why)))
            else:
                rows += found
                unknown.update(names)
        if not rows:
            raise ProtocolBroken(str(error)) from None
        return rows, tuple(sorted(unknown)), broken


class _Channel(Generic[R]):
    """Decoder of one channel's `data`: typed and strict first, then the slower looks at why that refused."""

    def __init__(self, name: str, kind: type[R]) -> None:
        self.name, self.kind = name, kind
        self._known = _known(kind)
        # Money goes the careful way: a typed decoder reads a blank text or Decimal("NaN") where none may be.
        self._is_hot = kind in (BookRow, DepthRow, TradeRow, TickerRow)
        # Books and trades hold digits and keys without an n: an n is "nan", "inf" or an unknown field.
        self._n_is_odd = kind in (BookRow, DepthRow, TradeRow)
        # float() reads a blank as an error and "nan" as what we mean; a recording knows no mark, index or funding.
        self._blank_is_nan = kind is TickerRow
        ignored = [(field, Any, None) for field in kind.IGNORED.split()]
        strict = msgspec.defstruct(
            "Strict" + kind.__name__,
            ignored,
            bases=(kind,),
            forbid_unknown_fields=True,
            frozen=True,
            kw_only=True,
            gc=False,
        )
        self._strict = msgspec.json.Decoder(list[strict], strict=False)  # type: ignore[valid-type]
        self._lenient = msgspec.json.Decoder(list[kind], strict=False)  # type: ignore[valid-type]

    def decode(self, data: msgspec.Raw) -> tuple[list[R], tuple[str, ...]]:
        if not self._is_hot:
            return self._explain(data)
        text = bytes(data)
        if self._blank_is_nan and b'""' in text:
            text = text.replace(b'""', b'"nan"')
        if not (self._n_is_odd and (b"n" in text or b"N" in text)):
            try:
                return self._strict.decode(text), ()
            except (msgspec.DecodeError, UnicodeError):
                pass  # an unknown field, a blank one, or a broken row: the next two tell which
        try:
            rows = self._lenient.decode(text)
            names = {name for row in _NAMES.decode(text) for name in row} - self._known
        except (msgspec.DecodeError, UnicodeError):
            return self._explain(data)
        return (rows, tuple(sorted(names))) if _are_finite(rows) else self._explain(data)

    def _explain(self, data: msgspec.Raw) -> tuple[list[R], tuple[str, ...]]:
        try:
            payload = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise ProtocolBroken(f"channel {self.name}: {error}: the frame is damaged") from None
        return parse_rows(payload, self.kind, f"channel {self.name}")


_NAMES = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def _are_finite(rows: list[Any]) -> bool:
    for row in rows:
        if isinstance(row, BookRow):
            if not all(math.isfinite(value) for level in (*row.asks, *row.bids) for value in level):
                return False
        elif isinstance(row, TradeRow) and not (math.isfinite(row.price) and math.isfinite(row.size)):
            return False
    return True


# ----------------------------------------------------------------------------------------------- frames, decoded


class Pong(enum.Enum):
    PONG = "pong"


class Ack(msgspec.Struct, frozen=True):
    """The server did what one `arg` of our request asked."""

    event: str  # "subscribe", "unsubscribe" or "login"
    channel: str
    symbol: str


class ErrorFrame(msgspec.Struct, frozen=True):
    """The server did not do what we asked. `code` is an int on the wire and text here, as over REST."""

    code: str
    message: str
    op: str
    channel: str
    symbol: str


class BookPush(msgspec.Struct, frozen=True, gc=False):
    channel: str
    symbol: str
    is_snapshot: bool
    rows: list[BookRow]
    unknown: tuple[str, ...]


class DepthPush(msgspec.Struct, frozen=True, gc=False):
    channel: str
    symbol: str
    is_snapshot: bool
    rows: list[DepthRow]
    unknown: tuple[str, ...]


class TradePush(msgspec.Struct, frozen=True, gc=False):
    channel: str
    symbol: str
    is_snapshot: bool  # the subscribe snapshot repeats recent trades
    rows: list[TradeRow]  # newest first, as sent
    unknown: tuple[str, ...]


class TickerPush(msgspec.Struct, frozen=True, gc=False):
    channel: str
    symbol: str
    is_snapshot: bool
    rows: list[TickerRow]
    unknown: tuple[str, ...]


class OrderPush(msgspec.Struct, frozen=True):
    channel: str
    symbol: str
    is_snapshot: bool
    rows: list[OrderRow]
    unknown: tuple[str, ...]


class FillPush(msgspec.Struct, frozen=True):
    channel: str
    symbol: str
    is_snapshot: bool
    rows: list[FillRow]
    unknown: tuple[str, ...]


class PositionPush(msgspec.Struct, frozen=True):
    channel: str
    symbol: str
    is_snapshot: bool
    rows: list[PositionRow]
    unknown: tuple[str, ...]


class AccountPush(msgspec.Struct, frozen=True):
    channel: str
    symbol: str
    is_snapshot: bool
    rows: list[AccountPushRow]
    unknown: tuple[str, ...]


Push = BookPush | DepthPush | TradePush | TickerPush | OrderPush | FillPush | PositionPush | AccountPush
Frame = Push | Ack | ErrorFrame | Pong


class _Arg(msgspec.Struct, frozen=True, gc=False, rename="camel", forbid_unknown_fields=True):
    inst_type: str = ""
    channel: str = ""
    inst_id: str = ""
    coin: str = ""


class _Head(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    arg: _Arg | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    ts: int = 0
    action: str = ""
    event: str = ""
    code: int | str | None = None
    msg: str | None = None
    op: str | None = None


_ARG_FIELDS = frozenset(_Arg.__struct_encode_fields__)
_HEAD_FIELDS = frozenset(_Head.__struct_encode_fields__)
_HEAD = msgspec.json.Decoder(_Head, strict=False)

_CHANNELS: dict[str, tuple[_Channel[Any], Any]] = {
    name: (_Channel(name, kind), push)
    for name, kind, push in (
        ("books15", BookRow, BookPush),
        ("books5", BookRow, BookPush),
        ("books1", BookRow, BookPush),
        ("books", DepthRow, DepthPush),
        ("trade", TradeRow, TradePush),
        ("ticker", TickerRow, TickerPush),
        ("orders", OrderRow, OrderPush),
        ("fill", FillRow, FillPush),
        ("positions", PositionRow, PositionPush),
        ("account", AccountPushRow, AccountPush),
    )
}


class _Heads(msgspec.Struct, frozen=True):
    head: _Head
    unknown: tuple[str, ...]


def _decode_head_slowly(raw: str | bytes) -> _Heads:
    try:
        whole = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ProtocolBroken(f"expected a JSON frame, found {_clip(raw)}: {error}") from None
    if not isinstance(whole, dict):
        raise ProtocolBroken(f"expected a JSON object as frame, found {_clip(raw)}")
    unknown = {name for name in whole if name not in _HEAD_FIELDS}
    kept = {
        name: value for name, value in whole.items() if name in _HEAD_FIELDS and value is not None and name != "data"
    }
    if isinstance(kept.get("arg"), dict):
        unknown.update("arg." + name for name in kept["arg"] if name not in _ARG_FIELDS)
        kept["arg"] = {name: value for name, value in kept["arg"].items() if name in _ARG_FIELDS and value is not None}
    try:
        head = msgspec.convert(kept, _Head, strict=False)
    except msgspec.ValidationError as error:
        raise ProtocolBroken(f"expected a frame of Bitget v2, found {_clip(raw)}: {error}") from None
    if "data" in whole:
        head = msgspec.structs.replace(head, data=msgspec.Raw(msgspec.json.encode(whole["data"])))
    return _Heads(head, tuple(sorted(unknown)))


def decode_push(raw: str | bytes) -> Frame:
    """Return what one WebSocket message says.

    Raises:
        ProtocolBroken: it is not a frame of Bitget v2, of a channel we know, or a row lacks what it must have.
    """
    if raw == "pong" or raw == b"pong":
        return Pong.PONG
    unknown: tuple[str, ...] = ()
    try:
        head = _HEAD.decode(raw)
    except (msgspec.DecodeError, UnicodeError):
        heads = _decode_head_slowly(raw)
        head, unknown = heads.head, heads.unknown
    arg = head.arg
    if head.action:
        if arg is None or not head.data:
            raise ProtocolBroken(f"expected arg and data in a push, found {_clip(raw)}")
        entry = _CHANNELS.get(arg.channel)
        if entry is None or arg.inst_type != PRODUCT_TYPE:
            raise ProtocolBroken(f"expected a channel of {PRODUCT_TYPE} that was asked for, found {_clip(raw)}")
        rows, unknown_in_rows = entry[0].decode(head.data)
        return entry[1](arg.channel, arg.inst_id, head.action == "snapshot", rows, unknown + unknown_in_rows)  # type: ignore[no-any-return]
    channel, symbol = (arg.channel, arg.inst_id or arg.coin) if arg is not None else ("", "")  # account has a coin
    if head.event == "error" or (head.event == "login" and str(head.code or 0) != "0"):
        return ErrorFrame(str(head.code), head.msg or "", head.op or head.event, channel, symbol)
    if head.event in ("subscribe", "unsubscribe", "login"):
        return Ack(head.event, channel, symbol)
    raise ProtocolBroken(f"expected a push, an ack or an error, found {_clip(raw)}")


def _clip(raw: str | bytes, limit: int = 200) -> str:
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    return repr(text if len(text) <= limit else text[:limit] + "…")


# ------------------------------------------------------------------------------------------- rows -> shared.types


def universe(rows: Iterable[ContractRow], source: str, as_of_ns: int) -> Universe:
    """Return the perpetuals among the rows, sorted; delivery contracts are left out, whatever their status.

    Raises:
        ProtocolBroken: two rows tell of one symbol differently, or a number is beyond all reason.
    """
    contracts: dict[str, Contract] = {}
    for row in rows:
        if row.symbol_type == "perpetual":
            contract = _contract(row)
            if contracts.setdefault(row.symbol, contract) != contract:
                raise ProtocolBroken(f"expected one contract of {row.symbol}, found two that differ: ask again")
    return Universe(source=source, as_of_ns=as_of_ns, contracts=tuple(contracts[name] for name in sorted(contracts)))


def _contract(row: ContractRow) -> Contract:
    if not -_PLACES_MAX <= row.price_place <= _PLACES_MAX:
        raise ProtocolBroken(f"expected pricePlace of {row.symbol} within {_PLACES_MAX}, found {row.price_place}")
    return Contract(
        symbol=row.symbol,
        base=row.base_coin,
        quote=row.quote_coin,
        status=row.symbol_status,
        tick=row.price_end_step.scaleb(-row.price_place),
        size_step=row.size_multiplier,
        size_min=row.min_trade_num,
        notional_min_usdt=row.min_trade_usdt,
        size_max_limit=row.max_order_qty,
        size_max_market=row.max_market_order_qty,
        price_band_buy=row.buy_limit_price_ratio,
        price_band_sell=row.sell_limit_price_ratio,
        maker_fee=row.maker_fee_rate,
        taker_fee=row.taker_fee_rate,
        leverage_min=row.min_lever,
        leverage_max=row.max_lever,
        funding_interval_h=row.fund_interval,
        is_rwa=row.is_rwa == "YES",
        launch_ms=row.launch_time,
        off_ms=None if row.off_time is None or row.off_time < 0 else row.off_time,  # "-1": none announced
    )


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The account's money, and its modes as one symbol has them."""

    equity_usdt: Decimal
    available_usdt: Decimal
    unrealized_usdt: Decimal
    leverage: int  # of the symbol asked for, crossed
    margin_mode: str  # "crossed" or "isolated", of the symbol asked for
    position_mode: str  # "one_way_mode" or "hedge_mode"


def account(row: AccountRow) -> Account:
    return Account(
        equity_usdt=row.account_equity,
        available_usdt=row.available,
        unrealized_usdt=row.unrealized_pl,
        leverage=row.crossed_margin_leverage,
        margin_mode=row.margin_mode,
        position_mode=row.pos_mode,
    )


def position(row: PositionRow) -> Position:
    """Return the net position.

    Raises:
        ProtocolBroken: the account is in hedge mode, where one symbol has two positions.
    """
    symbol = row.symbol or row.inst_id
    if row.pos_mode != ONE_WAY or row.hold_side not in ("long", "short"):
        raise ProtocolBroken(
            f"expected a one-way position in {symbol}, found posMode {row.pos_mode} and holdSide {row.hold_side}: "
            "close it and switch the account to one-way mode"
        )
    size = row.total if row.hold_side == "long" else -row.total
    return Position(symbol=symbol, size=size, entry_price=row.open_price_avg)


class OrderState(msgspec.Struct, frozen=True, kw_only=True):
    """One order as the exchange has it."""

    client_oid: str
    order_id: str
    symbol: str
    side: Side
    kind: OrderKind
    size: Decimal
    filled: Decimal
    price: Decimal | None  # None: a market order
    reduce_only: bool
    status: OrderStatus
    reason: str  # Bitget's cancelReason, "" otherwise

    def reported(self, recv_ns: int) -> OrderReported:
        return OrderReported(
            recv_ns=recv_ns,
            client_oid=self.client_oid,
            order_id=self.order_id,
            status=self.status,
            filled=self.filled,
            reason=self.reason,
        )

    def pending(self) -> PendingOrder:
        return PendingOrder(
            client_oid=self.client_oid,
            order_id=self.order_id,
            symbol=self.symbol,
            side=self.side,
            kind=self.kind,
            size=self.size,
            filled=self.filled,
            price=self.price,
            reduce_only=self.reduce_only,
        )


_KINDS = {"gtc": OrderKind.LIMIT, "post_only": OrderKind.POST_ONLY, "ioc": OrderKind.IOC, "fok": OrderKind.FOK}
_FORCES = {kind: force for force, kind in _KINDS.items()}


def order_state(row: OrderRow) -> OrderState:
    """Return the order, whichever of its three dialects the row is in.

    Raises:
        ProtocolBroken: no status, no filled size, or a time in force that Bitget does not document.
    """
    status = row.status or row.state
    filled = row.acc_base_volume if row.acc_base_volume is not None else row.base_volume
    is_market = row.order_type == "market"
    kind = OrderKind.MARKET if is_market else _KINDS.get(row.force.lower())
    if status is None or filled is None or kind is None:
        raise ProtocolBroken(
            f"expected status, filled size and a known force of order {row.order_id}, "
            f"found {status}, {filled} and {row.force!r}: Bitget's payload has changed"
        )
    return OrderState(
        client_oid=row.client_oid,
        order_id=row.order_id,
        symbol=row.symbol or row.inst_id,
        side=row.side,
        kind=kind,
        size=row.size,
        filled=filled,
        price=None if is_market else row.price,
        reduce_only=row.reduce_only.lower() == "yes",  # "YES" over REST, "yes" on the private stream
        status=status,
        reason=row.cancel_reason,
    )


def _fee_usdt(coin: str, fee: Decimal, trade_id: str) -> Decimal:
    if coin != MARGIN_COIN:
        raise ProtocolBroken(
            f"expected the fee of trade {trade_id} in {MARGIN_COIN}, found {coin or 'no coin'}: "
            "switch the payment of fees in other coins off"
        )
    return -fee  # Bitget: negative is what we paid; ours: >= 0 is a cost


def filled(row: FillRow, recv_ns: int, client_oid: str = "") -> Filled:
    """Return the fill; `client_oid` stands in where the row has none (REST).

    Raises:
        ProtocolBroken: the fee was taken in another coin than USDT, or the scope is neither maker nor taker.
    """
    if row.trade_scope not in ("maker", "taker"):
        raise ProtocolBroken(f"expected tradeScope maker or taker of trade {row.trade_id}, found {row.trade_scope!r}")
    fee = sum((_fee_usdt(part.fee_coin, part.total_fee, row.trade_id) for part in row.fee_detail), Decimal(0))
    return Filled(
        recv_ns=recv_ns,
        client_oid=row.client_oid or client_oid,
        order_id=row.order_id,
        trade_id=row.trade_id,
        symbol=row.symbol,
        side=row.side,
        price=row.price,
        size=row.base_volume,
        fee_usdt=fee,
        is_maker=row.trade_scope == "maker",
        exch_ns=row.c_time * MS_NS,
    )


def filled_of_order(row: OrderRow, recv_ns: int) -> Filled | None:
    """Return the fill that an `orders` push carries, None where it carries none (an order was only taken or ended).

    Raises:
        ProtocolBroken: a trade without price, size, fee or scope.
    """
    if not row.trade_id:
        return None
    if row.fill_price is None or row.base_volume is None or row.fill_fee is None or row.trade_scope not in ("T", "M"):
        raise ProtocolBroken(
            f"expected fillPrice, baseVolume, fillFee and tradeScope T or M of trade {row.trade_id}, found "
            f"{row.fill_price}, {row.base_volume}, {row.fill_fee} and {row.trade_scope!r}"
        )
    return Filled(
        recv_ns=recv_ns,
        client_oid=row.client_oid,
        order_id=row.order_id,
        trade_id=row.trade_id,
        symbol=row.inst_id or row.symbol,
        side=row.side,
        price=row.fill_price,
        size=row.base_volume,
        fee_usdt=_fee_usdt(row.fill_fee_coin, row.fill_fee, row.trade_id),
        is_maker=row.trade_scope == "M",
        exch_ns=row.fill_time * MS_NS,
    )


def funding_paid(row: BillRow, recv_ns: int) -> FundingPaid:
    """Return the settlement that a bill of funding tells of.

    Raises:
        ProtocolBroken: it is another kind of bill, names no symbol, or is not in USDT.
    """
    if row.business_type != FUNDING_BILL or row.coin != MARGIN_COIN or not row.symbol:
        raise ProtocolBroken(
            f"expected bill {row.bill_id} to be {FUNDING_BILL} of a symbol in {MARGIN_COIN}, found "
            f"{row.business_type} of {row.symbol or 'none'} in {row.coin}"
        )
    return FundingPaid(
        recv_ns=recv_ns,
        symbol=row.symbol,
        amount_usdt=row.amount + row.fee,  # the fee of such a bill is 0 (PROTOCOL §6.1); if it is not, we paid it
        bill_id=row.bill_id,
        exch_ns=row.c_time * MS_NS,
    )


# --------------------------------------------------------------------------------------------------- what we send


def plain(value: Decimal) -> str:
    """Return the number as Bitget reads it: no exponent, no trailing zeros (checkBDScale counts them, 40808)."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def place_body(order: PlaceOrder) -> dict[str, str]:
    """Return the body of place-order for a one-way, crossed account: no tradeSide there (40774)."""
    is_market = order.kind is OrderKind.MARKET
    assert (order.price is None) == is_market, (order.kind, order.price)
    body = {
        "symbol": order.symbol,
        "productType": PRODUCT_TYPE,
        "marginMode": CROSSED,
        "marginCoin": MARGIN_COIN,
        "size": plain(order.size),
        "side": order.side.value,
        "orderType": "market" if is_market else "limit",
        "clientOid": order.client_oid,
        "reduceOnly": "YES" if order.reduce_only else "NO",
    }
    if order.price is not None:
        body |= {"price": plain(order.price), "force": _FORCES[order.kind]}
    if order.stop_price is not None:
        body["presetStopLossPrice"] = plain(order.stop_price)
    return body


def cancel_body(order: CancelOrder) -> dict[str, str]:
    """Return the body of cancel-order; by clientOid while the ack, and so the orderId, is missing."""
    name, value = ("orderId", order.order_id) if order.order_id else ("clientOid", order.client_oid)
    return {"symbol": order.symbol, "productType": PRODUCT_TYPE, "marginCoin": MARGIN_COIN, name: value}


# ------------------------------------------------------------------------------------------------- what was strange


class Kept(msgspec.Struct, frozen=True):
    """A payload that was not understood."""

    recv_ns: int
    where: str  # "books15 push", or the path of a request
    what: str  # "unknown field rpi", or why it cannot be read
    raw: str


class Quarantine:
    """What arrived and was not understood: counted by kind, the first raw payloads of each kind kept for the lake.

    Bounded: `MAX_KINDS` kinds, `MAX_RAW` characters each, `KEPT_MAX` payloads of a kind between two `take`s; kinds
    beyond are counted under "other".
    """

    MAX_KINDS = 200
    MAX_RAW = 65_536
    KEPT_MAX = 10

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}  # (where, what) -> how often
        self.samples: dict[tuple[str, str], str] = {}  # (where, what) -> first raw payload
        self._kept: list[Kept] = []
        self._new: dict[tuple[str, str], int] = {}  # of `counts`, since the last `take`

    def keep(self, where: str, what: str, raw: str | bytes, recv_ns: int = 0) -> Note | None:
        """Count it; return a note the first time, the tenth, the hundredth …, so that a flood stays readable."""
        kind = (where, what)
        if kind not in self.counts and len(self.counts) >= self.MAX_KINDS:
            kind = ("other", "other")
        count = self.counts[kind] = self.counts.get(kind, 0) + 1
        new = self._new[kind] = self._new.get(kind, 0) + 1
        if new <= self.KEPT_MAX:
            text = (raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw)[: self.MAX_RAW]
            self.samples.setdefault(kind, text)
            self._kept.append(Kept(recv_ns, where, what, text))
        if 10 ** (len(str(count)) - 1) != count:
            return None
        return Note(event="payload.quarantined", fields={"where": kind[0], "what": kind[1], "count": count})

    def take(self) -> tuple[list[Kept], int]:
        """Return what was kept since the last call, and how many more arrived that were not."""
        kept, self._kept = self._kept, []
        more = sum(self._new.values()) - len(kept)
        self._new = {}
        return kept, more
