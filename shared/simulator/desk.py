"""The venue on the clock: its books follow the market, its events become private pushes.

`advance(now_ns)` brings the venue to the second that clients see (books and marks once a second, public trades as they
happen, funding when due) and is called before anything else is asked of it, so an order never meets an old book.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.simulator import payloads
from shared.simulator.faults.late import LatePositions
from shared.simulator.gate import Credentials
from shared.simulator.markets.market import NS, Market, depth_at
from shared.simulator.venue.orders import (
    ClosedPosition,
    Fill,
    FundingReport,
    OrderReport,
    OrderRequest,
    PlanReport,
    VenuePosition,
)
from shared.simulator.venue.venue import Venue
from shared.types import Contract, Side, Universe

_TRADABLE = ("normal", "limit_open")
"""Statuses of a contract in which it has a market."""

CATCH_UP_S_MAX = 5
"""After a longer stall the venue jumps to now; nobody could have traded in between."""


class Desk:
    """A venue whose market is served.

    Args:
        market: what happens.
        accounts: who trades, and with how much.
    """

    def __init__(self, market: Market, accounts: Iterable[Credentials]) -> None:
        self.market = market
        # Every symbol that ever is, so that the venue knows what it is asked for; who is listed, `_learn` tells it.
        self.venue = Venue(contract_of(row) for row in market.contracts())
        self._rows: dict[str, dict[str, Any]] = {row["symbol"]: row for row in market.contracts()}
        self._known: list[dict[str, Any]] | None = None
        for account in accounts:
            self.venue.open_account(account.key, account.deposit_usdt)
        self._second: int | None = None
        self._listed: NDArray[np.bool_] | None = None
        self._traded_ns = 0
        self._overlay: Mapping[str, dict[str, str]] = {}
        self._late = LatePositions(self.venue)

    def advance(self, now_ns: int) -> None:
        """Bring the venue to `now_ns`; calls must not go back in time."""
        second = now_ns // NS
        if self._second is None or second - self._second > CATCH_UP_S_MAX:
            self._show(second)
        while self._second is not None and self._second < second:
            self._trade_until((self._second + 1) * NS)
            self._show(self._second + 1)
        self._trade_until(now_ns)

    async def ready(self, path: str, params: Mapping[str, Any], account: str) -> None:
        """Return when the venue can do what a private request asks for: here always at once."""

    def pushes(self) -> list[tuple[str, str, str]]:
        """Return what clients are told of since the last call: (account, channel, frame)."""
        frames: list[tuple[str, str, str]] = []
        touched: dict[str, None] = self._late.appeared(self._now_ns)
        for event in self.venue.drain():
            if isinstance(event, PlanReport):  # moves neither positions nor money
                row = payloads.plan_push(self.venue, event.plan)
                frames.append((event.account, "orders-algo", push_text("orders-algo", [row], event.time_ns)))
                continue
            touched[event.account] = None
            if isinstance(event, OrderReport):
                row = payloads.order_push(event.order, event.fill)
                frames.append((event.account, "orders", push_text("orders", [row], event.time_ns)))
            elif isinstance(event, Fill):
                frames.append((event.account, "fill", push_text("fill", [payloads.fill_push(event)], event.time_ns)))
            elif isinstance(event, ClosedPosition):
                row = payloads.closed_push(event)
                frames.append(
                    (event.account, "positions-history", push_text("positions-history", [row], event.time_ns))
                )
            else:
                assert isinstance(event, FundingReport)
        for account in touched:
            self._late.note(account, self._now_ns)
            for channel in ("positions", "account"):
                frames.append((account, channel, self.state(account, channel)))
        return frames

    def state(self, account: str, channel: str) -> str:
        """Return the full snapshot of `positions` or `account`."""
        now_ns = self._now_ns
        if channel == "account":
            return push_text("account", [payloads.account_push(self.venue, account)], now_ns)
        rows = [payloads.position_push(self.venue, account, p) for p in self.positions(account, now_ns)]
        return push_text("positions", rows, now_ns)

    def positions(self, account: str, now_ns: int) -> list[VenuePosition]:
        """Return the positions as clients see them: the venue's, or older ones while they are visible late."""
        return self._late.positions(account, now_ns)

    def shows_position(self, account: str, request: OrderRequest, now_ns: int) -> bool:
        """Tell whether clients see what an order wants to close; True where there is nothing to see at all."""
        return self._late.shows(account, request.symbol, request.position_side, now_ns)

    def show_positions_late(self, delay_ns: int) -> None:
        """Show positions so much later than they are (market time); 0: at once."""
        self._late.delay_ns = delay_ns

    def reject(self, account: str, symbol: str, order_id: str, now_ns: int, *, is_told: bool) -> None:
        """Cancel an accepted order in place of matching it; silently where the client is not told."""
        self.venue.cancel(account, symbol, now_ns, order_id=order_id)
        if is_told:
            return
        for event in self.venue.drain():
            is_news = (
                isinstance(event, OrderReport) and event.order.order_id == order_id and event.order.status.is_final
            )
            if not is_news:
                self.venue.emit(event)

    # ----------------------------------------------------------------------------------- the market

    @property
    def _now_ns(self) -> int:
        return max(self._traded_ns, (self._second or 0) * NS)

    def contract_rows(self, now_ns: int) -> list[dict[str, Any]]:
        """Return the contract rows of a time, with what somebody has changed in them."""
        rows = self.market.contracts(now_ns // NS)
        if not self._overlay:
            return rows
        return [row | self._overlay.get(row["symbol"], {}) for row in rows]

    def overlay(self, changes: Mapping[str, dict[str, str]]) -> None:
        """Change contract rules from now on: symbol -> fields of its row that are different. {}: as the market says."""
        if changes != self._overlay:
            self._overlay, self._known = dict(changes), None
            if self._second is not None:
                self._learn(self._second)

    def _show(self, second: int) -> None:
        """Give the venue the books and marks of a second."""
        # First: who holds at the instant pays the last rate before it (Bitget v2, funding), and no fill of it counts.
        self.venue.settle_funding(second * NS)
        self._learn(second)
        block = self.market.block(second)
        t = second - block.first_second
        depth = depth_at(self.market, second)
        bids = np.stack((depth.bid_price, depth.bid_size), axis=2)
        asks = np.stack((depth.ask_price, depth.ask_size), axis=2)
        now_ns = second * NS
        marks, indices, rates = block.mark[t].tolist(), block.index[t].tolist(), block.funding_rate[t].tolist()
        listed = self.market.is_listed(second)
        went = ~listed if self._listed is None else self._listed & ~listed
        self._listed = listed
        for n, symbol in enumerate(self.market.symbols):
            if block.is_fresh[t, n] or went[n] or self._second is None:
                self.venue.set_book(symbol, bids[n], asks[n], now_ns)
                self.venue.set_mark(symbol, marks[n], indices[n], rates[n], now_ns)
        self._second, self._traded_ns = second, now_ns

    def _learn(self, second: int) -> None:
        """Give the venue the contract rules of a second where they changed; who is no longer listed is off."""
        rows = self.market.contracts(second)
        if rows is self._known:
            return
        self._known = rows
        now = {row["symbol"]: row | self._overlay.get(row["symbol"], {}) for row in rows}
        for symbol, before in self._rows.items():
            row = now.get(symbol) or before | {"symbolStatus": "off"}
            if row != before:
                if row["symbolStatus"] == "off" and before["symbolStatus"] in _TRADABLE:
                    self.venue.delist(symbol, second * NS)
                self.venue.set_contract(contract_of(row))
                self._rows[symbol] = row

    def _trade_until(self, end_ns: int) -> None:
        """Show resting orders and plans the public trades of this second up to `end_ns`."""
        assert self._second is not None
        begin_ns, self._traded_ns = self._traded_ns, max(self._traded_ns, end_ns)
        concerned = {*self.venue.resting_symbols(), *self.venue.plans.symbols()}
        waiting = {self.market.symbols.index(symbol) for symbol in concerned}
        if not waiting:
            return
        block = self.market.block(self._second)
        t, trades = self._second - block.first_second, block.trades
        for i in range(int(trades.start[t]), int(trades.start[t + 1])):
            time_ns = self._second * NS + int(trades.offset_ns[i])
            n = int(trades.symbol[i])
            if n in waiting and begin_ns <= time_ns < end_ns:
                price = int(trades.price_ticks[i]) / float(self.market.price_scale[n])
                size = int(trades.size_steps[i]) / float(self.market.size_scale[n])
                side = Side.BUY if trades.side[i] > 0 else Side.SELL
                self.venue.trade(self.market.symbols[n], price, size, side, time_ns)


def universe_of(market: Market, as_of_ns: int) -> Universe:
    """Return everything that a market ever lists, as somebody who asked at that time would keep it."""
    contracts = sorted(map(contract_of, market.contracts()), key=lambda contract: contract.symbol)
    return Universe(source=market.source, as_of_ns=as_of_ns, contracts=tuple(contracts))


def contract_of(row: dict[str, Any]) -> Contract:
    """Return a contract row as the venue reads it."""

    def optional(value: str) -> Decimal | None:
        return Decimal(value) if value else None

    def moment(value: str) -> int | None:
        return int(value) if value and value != "-1" else None

    return Contract(
        symbol=row["symbol"], base=row["baseCoin"], quote=row["quoteCoin"], status=row["symbolStatus"],
        tick=Decimal(row["priceEndStep"]).scaleb(-int(row["pricePlace"])), size_step=Decimal(row["sizeMultiplier"]),
        size_min=Decimal(row["minTradeNum"]), notional_min_usdt=Decimal(row["minTradeUSDT"]),
        size_max_limit=optional(row["maxOrderQty"]), size_max_market=optional(row["maxMarketOrderQty"]),
        price_band_buy=Decimal(row["buyLimitPriceRatio"]), price_band_sell=Decimal(row["sellLimitPriceRatio"]),
        maker_fee=Decimal(row["makerFeeRate"]), taker_fee=Decimal(row["takerFeeRate"]),
        leverage_min=int(row["minLever"]), leverage_max=int(row["maxLever"]),
        funding_interval_h=int(row["fundInterval"]), is_rwa=row["isRwa"] == "YES",
        launch_ms=moment(row["launchTime"]), off_ms=moment(row["offTime"]),
    )  # fmt: skip


def push_text(channel: str, rows: list[Any], time_ns: int) -> str:
    """Return a private push; the account channel is addressed by coin, the others by instId."""
    where = {"coin": "default"} if channel == "account" else {"instId": "default"}
    body = {
        "action": "snapshot",
        "arg": {"instType": "USDT-FUTURES", "channel": channel} | where,
        "data": rows,
        "ts": time_ns // 1_000_000,
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))
