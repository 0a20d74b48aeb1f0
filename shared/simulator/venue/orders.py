"""What a venue and its clients say to each other: orders, plans, fills, bills, positions and reports.

Plain values in our words; `payloads` turns them into Bitget's. Both position modes share them: in one-way mode every
`position_side` is "net", in hedge mode it is "long" or "short" and a close is an order whose economic side is against
it (Bitget's own wire says the position's side there: `rest_orders` translates).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec

from shared.types import OrderKind, OrderStatus, Side

ZERO = Decimal(0)

PositionSide = Literal["net", "long", "short"]
MarginMode = Literal["crossed", "isolated"]
TriggerType = Literal["fill_price", "mark_price"]
PlanType = Literal["normal_plan", "track_plan", "profit_plan", "loss_plan", "moving_plan", "pos_profit", "pos_loss"]
PlanStatus = Literal["live", "executing", "executed", "fail_execute", "cancelled"]


class OrderRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks for, in our words."""

    symbol: str
    side: Side
    kind: OrderKind
    size: Decimal
    price: Decimal | None = None  # None exactly for market orders
    reduce_only: bool = False
    client_oid: str = ""  # "": the venue makes one up
    stop_loss: Decimal | None = None  # None: no protective stop rides on it
    take_profit: Decimal | None = None  # None: no target rides on it
    stp: str = "none"  # "cancel_taker", "cancel_maker", "cancel_both": what happens before trading with oneself
    position_side: PositionSide = "net"  # "long" or "short" exactly in hedge mode
    margin_mode: MarginMode | None = None  # None: as the symbol is set
    stop_loss_execute: Decimal | None = None  # limit price of the stop once triggered; None: market
    take_profit_execute: Decimal | None = None
    stop_loss_type: TriggerType = "mark_price"  # what the protections watch
    take_profit_type: TriggerType = "mark_price"

    @property
    def closes(self) -> bool:
        """Tell whether it can only make a position smaller: reduce-only, or in hedge mode against its side.

        reduceOnly is ignored in hedge mode (recorded: an "open" with it opened).
        """
        if self.position_side == "net":
            return self.reduce_only
        return (self.position_side == "long") is not (self.side is Side.BUY)


class PlanRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger order as a client asks for it (Bitget v2, plan and TP/SL orders).

    Args:
        side: of the order that is sent once triggered, economically.
        position_side: "net" in one-way mode, also for a protection there.
        size: 0 exactly for "pos_profit" and "pos_loss", which close the whole position.
        trigger_price: for "track_plan" and "moving_plan" the price that starts the trailing.
        execute_price: limit of the order that is sent; None: market.
        callback_ratio: per cent that the price must come back ("track_plan", "moving_plan"); else None.
    """

    symbol: str
    plan_type: PlanType
    side: Side
    size: Decimal
    trigger_price: Decimal
    trigger_type: TriggerType = "fill_price"
    execute_price: Decimal | None = None
    callback_ratio: Decimal | None = None
    position_side: PositionSide = "net"
    reduce_only: bool = False
    margin_mode: MarginMode | None = None
    client_oid: str = ""
    stop_loss: Decimal | None = None  # trigger prices of the protections that ride on the order it sends
    take_profit: Decimal | None = None
    stop_loss_execute: Decimal | None = None
    take_profit_execute: Decimal | None = None
    stop_loss_type: TriggerType = "mark_price"
    take_profit_type: TriggerType = "mark_price"
    stp: str = "none"


class PlanChange(msgspec.Struct, frozen=True, kw_only=True):
    """New values of a live plan; None leaves a value as it is, 0 takes an optional one away."""

    size: Decimal | None = None
    trigger_price: Decimal | None = None
    trigger_type: TriggerType | None = None
    execute_price: Decimal | None = None  # 0: market
    callback_ratio: Decimal | None = None
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    stop_loss_execute: Decimal | None = None
    take_profit_execute: Decimal | None = None
    stop_loss_type: TriggerType | None = None
    take_profit_type: TriggerType | None = None


class Plan(msgspec.Struct, kw_only=True):
    """A trigger order. The venue's own is mutable; the ones in events are copies."""

    account: str
    order_id: str
    client_oid: str
    request: PlanRequest
    created_ns: int
    updated_ns: int
    status: PlanStatus = "live"
    direction: int = 0  # +1: its price must rise to the trigger, -1: fall to it, 0: it stood there already
    peak: Decimal | None = None  # best price since the trailing has started; None: not started, or no trailing plan
    triggered_ns: int | None = None
    execute_order_id: str = ""  # of the order that it sent
    fail_reason: str = ""  # code and message of the refusal of that order


class FeeTier(msgspec.Struct, frozen=True):
    """Fees of accounts that have traded this much (Bitget v2, Get VIP Fee Rate: `dealAmount`)."""

    volume_usdt_min: Decimal  # notional of the thirty whole UTC days before today
    maker_fee: Decimal  # [1] of notional
    taker_fee: Decimal  # [1] of notional


class VenueRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a venue allows beside its contracts; the defaults are Bitget's (v2, contract config and FAQ, 2026)."""

    orders_per_symbol_max: int = 200  # maxSymbolOrderNum
    orders_max: int = 1000  # maxProductOrderNum
    positions_max: int = 150  # maxPositionNum
    client_oid_length_max: int = 50
    leverage_default: int = 10
    liquidation_fee: Decimal = Decimal("0.0006")  # [1] of notional
    # Fees by volume, the smallest volume first; an account below the first pays the contract's, as all do with ().
    fee_tiers: tuple[FeeTier, ...] = ()
    history_max: int = 5_000  # final orders, fills, bills, positions of an account; Bitget keeps 90 days instead


class Takeover(msgspec.Struct, frozen=True, kw_only=True):
    """A position that the insurance fund took over at its bankruptcy price and closed in the market."""

    account: str
    time_ns: int
    symbol: str
    size: Decimal  # base coin, signed
    price: Decimal
    proceeds_usdt: Decimal  # of closing it: > 0 received for a long, < 0 paid for a short

    @property
    def gain_usdt(self) -> Decimal:
        return self.proceeds_usdt - self.size * self.price


class PlanReport(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a plan after something happened to it."""

    account: str
    time_ns: int
    plan: Plan


class Accepted(msgspec.Struct, frozen=True):
    """An ack: the order exists. It says nothing about fills."""

    order_id: str
    client_oid: str


class Refusal(msgspec.Struct, frozen=True):
    """Bitget's code and message; the order never existed (or the cancel changed nothing)."""

    code: str
    message: str


class Order(msgspec.Struct, kw_only=True):
    """An accepted order. The venue's own is mutable; the ones in events are copies."""

    account: str
    order_id: str
    client_oid: str
    symbol: str
    side: Side
    kind: OrderKind
    size: Decimal
    price: Decimal | None
    reduce_only: bool
    stop_loss: Decimal | None
    take_profit: Decimal | None
    stp: str
    # "api", or who else sent it: "stop_loss", "take_profit", "plan", "trailing"; the risk engine: "offset" (both sides
    # of a hedge netted), "reduction" (down the risk ladder), "liquidation" (taken over by the insurance fund),
    # "delivery" (settled with its symbol)
    source: str
    leverage: int
    created_ns: int
    updated_ns: int
    status: OrderStatus = OrderStatus.LIVE
    filled: Decimal = ZERO
    quote: Decimal = ZERO  # sum of price x size of its fills
    fee_usdt: Decimal = ZERO
    realised_usdt: Decimal = ZERO
    cancel_reason: str = ""
    position_side: PositionSide = "net"
    margin_mode: MarginMode = "crossed"
    stop_loss_execute: Decimal | None = None
    take_profit_execute: Decimal | None = None
    stop_loss_type: TriggerType = "mark_price"
    take_profit_type: TriggerType = "mark_price"
    queue_ahead: Decimal = ZERO  # visible size that trades before us at our price
    cost_price: Decimal = ZERO  # at which what it opens holds margin: its limit, or what a market order met on arrival

    @property
    def remaining(self) -> Decimal:
        return self.size - self.filled

    @property
    def price_average(self) -> Decimal | None:
        """Return the average fill price, None before the first fill."""
        return self.quote / self.filled if self.filled else None


class Fill(msgspec.Struct, frozen=True, kw_only=True):
    """One trade of ours."""

    account: str
    time_ns: int
    order_id: str
    client_oid: str  # "" where the venue itself traded
    trade_id: str
    symbol: str
    side: Side
    kind: OrderKind
    price: Decimal
    size: Decimal
    fee_usdt: Decimal  # >= 0 is a cost
    is_maker: bool
    realised_usdt: Decimal  # before fees
    position_side: PositionSide = "net"
    closes: bool = False  # sent to close: reduce-only, or against its position's side
    source: str = "api"  # of its order


class OrderReport(msgspec.Struct, frozen=True, kw_only=True):
    """The state of an order after something happened to it; `fill` is what happened, None for ack and cancel."""

    account: str
    time_ns: int
    order: Order
    fill: Fill | None = None


class FundingReport(msgspec.Struct, frozen=True, kw_only=True):
    account: str
    time_ns: int
    bill_id: str
    symbol: str
    amount_usdt: Decimal  # > 0 received
    rate: Decimal
    mark: Decimal
    size: Decimal  # of the position, signed


class ClosedPosition(msgspec.Struct, frozen=True, kw_only=True):
    """A position after its last close: a row of the history, and an event."""

    account: str
    time_ns: int  # of the close
    opened_ns: int
    position_id: str
    symbol: str
    hold_side: Literal["long", "short"]
    is_hedged: bool  # position mode it lived in
    margin_mode: MarginMode
    open_average: Decimal
    close_average: Decimal
    opened_size: Decimal  # sum of all that was opened, base coin
    closed_size: Decimal
    realised_usdt: Decimal  # before fees and funding
    funding_usdt: Decimal
    open_fee_usdt: Decimal  # >= 0 is a cost, not cut to 8 decimals
    close_fee_usdt: Decimal


VenueEvent = OrderReport | Fill | FundingReport | PlanReport | ClosedPosition


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """One movement of an account's wallet."""

    time_ns: int
    bill_id: str
    kind: str  # Bitget's businessType: "buy", "sell", "contract_settle_fee" (funding)
    symbol: str
    amount_usdt: Decimal  # realised profit or funding, > 0 received
    fee_usdt: Decimal  # >= 0 is a cost, not in the amount
    balance_usdt: Decimal  # of the wallet, afterwards


class VenuePosition(msgspec.Struct, kw_only=True):
    """A net position with its history since it was opened."""

    symbol: str
    position_id: str
    size: Decimal  # base coin, signed
    cost: Decimal  # USDT, signed: size x average entry price, exactly
    opened_ns: int
    updated_ns: int
    realised_usdt: Decimal = ZERO
    opened_size: Decimal = ZERO  # sum of all that was opened, base coin
    opened_quote: Decimal = ZERO  # sum of price x size of it
    closed_quote: Decimal = ZERO
    open_fee_usdt: Decimal = ZERO  # as Bitget shows fees here: not cut to 8 decimals
    close_fee_usdt: Decimal = ZERO
    funding_usdt: Decimal = ZERO
    is_funded: bool = False  # has lived through a funding time
    position_side: PositionSide = "net"
    margin_mode: MarginMode = "crossed"
    margin_usdt: Decimal = ZERO  # isolated: what is set aside for it, added and reduced margin included; crossed: 0
    stop_loss: Decimal | None = None  # None: unprotected
    take_profit: Decimal | None = None

    @property
    def fees_usdt(self) -> Decimal:
        return self.open_fee_usdt + self.close_fee_usdt

    @property
    def hold_side(self) -> Literal["long", "short"]:
        return "long" if self.size > 0 else "short"

    @property
    def entry_price(self) -> Decimal:
        return self.cost / self.size
