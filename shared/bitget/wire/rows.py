"""Rows of Bitget's payloads, as sent: the fields that we use, and the names of those that we know and do not use."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Annotated, ClassVar, Literal

import msgspec

from shared.types import OrderStatus, Side

PRODUCT_TYPE = "USDT-FUTURES"
MARGIN_COIN = "USDT"
FUNDING_BILL = "contract_settle_fee"
ONE_WAY = "one_way_mode"
CROSSED = "crossed"
NAN = math.nan
MS_NS = 1_000_000

# What cancel and detail answer for an order that the exchange does not know (PROTOCOL §9; the second half are codes
# that clients in production have seen for it).
ORDER_UNKNOWN_CODES = frozenset(
    {"40768", "40109", "43001", "43025", "45057"} | {"22001", "40819", "43020", "43033", "31007", "80011"}
)

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
