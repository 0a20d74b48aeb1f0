"""Rows -> `shared.types`: what the rest of the project knows of an exchange."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from shared.bitget.wire.rows import (
    FUNDING_BILL,
    MARGIN_COIN,
    MS_NS,
    ONE_WAY,
    AccountRow,
    BillRow,
    ContractRow,
    FillRow,
    OrderRow,
    PositionRow,
)
from shared.errors import ProtocolBroken
from shared.types import (
    Contract,
    Filled,
    FundingPaid,
    OrderKind,
    OrderReported,
    OrderStatus,
    PendingOrder,
    Position,
    Side,
    Universe,
)

_PLACES_MAX = 100  # decimals of a price: the least of Bitget's have ten


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
FORCES = {kind: force for force, kind in _KINDS.items()}


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
