"""Bitget's REST v2 for USDT-M futures: account, its settings, estimates and bills.

Source: Bitget v2, REST -> Account; payloads recorded in September and October 2026.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal
from typing import Any, ClassVar

from shared.simulator import payloads
from shared.simulator.clock import MS
from shared.simulator.gate import Refused
from shared.simulator.rest.common import (
    MIX,
    Endpoint,
    Group,
    Params,
    margin_coin,
    number,
    one_of,
    paged,
    required,
    text,
    unless_refused,
    window,
)
from shared.simulator.venue.margin import liquidation_shown, tier_at
from shared.simulator.venue.orders import ZERO, Bill, Refusal
from shared.types import Side

BILL_WINDOW_DAYS = 30
MARGIN_BILLS = frozenset({"append_margin", "adjust_down_lever_append_margin", "reduce_margin", "auto_append_margin"})
"""Left out where `onlyFunding` is "yes" (Bitget v2, Get Account Bills)."""


class AccountRest(Group):
    """`/api/v2/mix/account/*`."""

    ENDPOINTS: ClassVar[dict[str, Endpoint]] = {
        MIX + "account/account": Endpoint("GET", 10, True, "account"),
        MIX + "account/accounts": Endpoint("GET", 10, True, "accounts"),
        MIX + "account/bill": Endpoint("GET", 10, True, "bill"),
        MIX + "account/set-leverage": Endpoint("POST", 5, True, "set_leverage"),
        MIX + "account/set-all-leverage": Endpoint("POST", 5, True, "set_all_leverage"),
        MIX + "account/set-margin-mode": Endpoint("POST", 5, True, "set_margin_mode"),
        MIX + "account/set-position-mode": Endpoint("POST", 5, True, "set_position_mode"),
        MIX + "account/set-margin": Endpoint("POST", 5, True, "set_margin"),
        MIX + "account/set-asset-mode": Endpoint("POST", 2, True, "set_asset_mode"),
        MIX + "account/open-count": Endpoint("GET", 10, True, "open_count"),
        MIX + "account/max-open": Endpoint("GET", 20, True, "max_open"),
        MIX + "account/liq-price": Endpoint("GET", 20, True, "liq_price"),
    }

    # ------------------------------------------------------------------------------------ questions

    def account(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        margin_coin(params)
        return payloads.account_row(self.venue, key, symbol)

    def accounts(self, params: Params, key: str) -> Any:
        return [payloads.account_row(self.venue, key, None)] if self._is_ours(params) else []

    def bill(self, params: Params, key: str) -> Any:
        window(params, BILL_WINDOW_DAYS)
        listed_ns = self.context.now_ns() - int(self.context.conditions.bill_delay_ms * MS)
        kind, symbol = text(params, "businessType"), text(params, "symbol")
        coin = (text(params, "coin") or "USDT").upper()
        leaves_margin_out = one_of(params, "onlyFunding", ("yes", "no"), default="no") == "yes"

        def is_meant(bill: Bill) -> bool:
            return (
                bill.time_ns <= listed_ns
                and kind in ("", bill.kind)
                and symbol in ("", bill.symbol)
                and not (leaves_margin_out and bill.kind in MARGIN_BILLS)
            )

        is_asked = self._is_ours(params) and coin == "USDT"
        return paged(
            params,
            filter(is_meant, self.venue.bills(key)) if is_asked else (),
            name="bills",
            id_of=lambda bill: bill.bill_id,
            time_ns_of=lambda bill: bill.time_ns,
            row=payloads.bill_row,
            default=20,
        )

    # ------------------------------------------------------------------------------------- settings

    def set_leverage(self, params: Params, key: str) -> Any:
        symbol = self._listed(params)
        margin_coin(params)
        is_isolated = self.venue.margin_mode(key, symbol) == "isolated"
        both, long, short = (text(params, name) for name in ("leverage", "longLeverage", "shortLeverage"))
        side = one_of(params, "holdSide", ("long", "short")) if text(params, "holdSide") else None
        wanted: list[tuple[str | None, str]]
        if is_isolated and self.venue.position_mode(key) == "hedge_mode":
            wanted = [("long", long), ("short", short)] if long or short else [(side, both)]
        else:
            # One value a symbol; the long one wins where both are sent (documented for crossed margin).
            wanted = [(None, long or both or short)]
        asked = [(side, self._leverage(leverage)) for side, leverage in wanted if leverage]
        if not asked:
            raise Refused("40019", "Parameter leverage cannot be empty")
        before = self._leverages(key, symbol)
        for side, leverage in asked:
            answer = self.venue.set_leverage(key, symbol, leverage, side)
            if isinstance(answer, Refusal) and side == "short" and len(asked) == 2:
                self.venue.set_leverage(key, symbol, int(before["longLeverage"]), "long")  # both or none
            unless_refused(answer)
        leverages = self._leverages(key, symbol)
        return {
            "symbol": symbol, "marginCoin": "USDT", **leverages,
            "crossMarginLeverage": "" if is_isolated else leverages["longLeverage"],
            "marginMode": self.venue.margin_mode(key, symbol),
        }  # fmt: skip

    def set_all_leverage(self, params: Params, key: str) -> Any:
        """Set the leverage of every symbol with a position: of others it says nothing (documented)."""
        is_ours, leverage = self._is_ours(params), self._leverage(required(params, "leverage"))
        if is_ours:
            for symbol in sorted({position.symbol for position in self.venue.positions(key)}):
                unless_refused(self.venue.set_leverage(key, symbol, leverage))
        return "success"

    def set_margin_mode(self, params: Params, key: str) -> Any:
        symbol = self._listed(params)
        margin_coin(params)
        unless_refused(self.venue.set_margin_mode(key, symbol, one_of(params, "marginMode", ("isolated", "crossed"))))
        return {
            "symbol": symbol, "marginCoin": "USDT", **self._leverages(key, symbol),
            "marginMode": self.venue.margin_mode(key, symbol),
        }  # fmt: skip

    def set_position_mode(self, params: Params, key: str) -> Any:
        self._is_ours(params)
        mode = one_of(params, "posMode", ("one_way_mode", "hedge_mode"))
        unless_refused(self.venue.set_position_mode(key, mode))
        return {"posMode": mode}

    def set_margin(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        margin_coin(params)
        side, amount = one_of(params, "holdSide", ("long", "short")), number(required(params, "amount"), "amount")
        if not amount:
            raise Refused("40020", "Parameter amount error")
        unless_refused(self.venue.set_margin(key, symbol, side, amount, self.context.now_ns()))
        return ""

    def set_asset_mode(self, params: Params, key: str) -> Any:
        self._is_ours(params)
        if one_of(params, "assetMode", ("single", "union")) == "union":
            # One coin is all there is here.
            raise Refused("40805", "Unsupported operation")
        return "success"

    # ------------------------------------------------------------------------------------ estimates

    def open_count(self, params: Params, key: str) -> Any:
        """Return the size that an amount of margin opens at a price, whatever the account holds."""
        symbol = self._listed(params)
        margin_coin(params)
        amount, price = (self._positive(params, name) for name in ("openAmount", "openPrice"))
        leverage = self._leverage(text(params, "leverage") or "20")
        return {"size": payloads.plain(self._size(symbol, amount, price, leverage))}

    def max_open(self, params: Params, key: str) -> Any:
        """Return the size that the account could open now."""
        symbol = self._listed(params)
        margin_coin(params)
        side = Side.BUY if one_of(params, "posSide", ("long", "short")) == "long" else Side.SELL
        most = self.venue.max_open(key, symbol, side, self._open_price(params, symbol))
        return {"maxOpen": payloads.plain(most)}

    def liq_price(self, params: Params, key: str) -> Any:
        """Return where the account would be liquidated after opening with an amount of margin."""
        symbol = self._listed(params)
        margin_coin(params)
        side = one_of(params, "posSide", ("long", "short"))
        price, amount = self._open_price(params, symbol), self._positive(params, "openAmount")
        contract, leverage = self.venue.contracts[symbol], self.venue.leverage(key, symbol, side)
        size = self._size(symbol, amount, price, leverage)
        sizes = {"long": ZERO, "short": ZERO}
        sizes[side] += size
        cost = size * price * (1 if side == "long" else -1)
        if self.venue.margin_mode(key, symbol) == "crossed":
            equity = self.venue.cross_equity(key) - size * price * contract.taker_fee
            for position in self.venue.positions(key):
                if position.symbol == symbol:
                    sizes[position.hold_side] += abs(position.size)
            mark = self.venue.mark(symbol) if self.venue.has_price(symbol) else price
            equity += (size * mark * (1 if side == "long" else -1)) - cost
            worth = equity - (sizes["long"] - sizes["short"]) * mark
        else:
            worth = amount - cost
        larger, net = max(sizes.values()), sizes["long"] - sizes["short"]
        rate = tier_at(self.venue.tiers(symbol), larger * price).maintenance_rate
        distance = larger * (rate + contract.taker_fee) - net
        return {"liqPrice": payloads.plain(liquidation_shown(worth / distance if distance else ZERO))}

    # -------------------------------------------------------------------------------------- helpers

    def _listed(self, params: Params) -> str:
        """Return the symbol, which must not have been removed."""
        symbol = self._symbol(params)
        if self.venue.contracts[symbol].status == "off":
            raise Refused("40309", "The symbol has been removed")
        return symbol

    def _leverage(self, value: str) -> int:
        wanted = number(value, "leverage")
        if wanted != wanted.to_integral_value() or not 0 < wanted < 1000:
            raise Refused("40020", "Parameter leverage error")
        return int(wanted)

    def _leverages(self, key: str, symbol: str) -> dict[str, str]:
        long, short = (self.venue.leverage(key, symbol, side) for side in ("long", "short"))
        return {"longLeverage": str(long), "shortLeverage": str(short)}

    def _positive(self, params: Params, name: str) -> Decimal:
        value = number(required(params, name), name)
        if not Decimal("1e-9") <= value <= Decimal("1e9"):
            raise Refused("40020", f"Parameter {name} error")
        return value

    def _open_price(self, params: Params, symbol: str) -> Decimal:
        if one_of(params, "orderType", ("limit", "market")) == "limit":
            return self._positive(params, "openPrice")
        if not self.venue.has_price(symbol):
            raise Refused("40725", "service return an error")
        return self.venue.mark(symbol)

    def _size(self, symbol: str, amount_usdt: Decimal, price: Decimal, leverage: int) -> Decimal:
        """Return amount / (price (1 / leverage + taker fee)), cut to the size step."""
        contract = self.venue.contracts[symbol]
        size = amount_usdt / (price * (1 / Decimal(leverage) + contract.taker_fee))
        return (size / contract.size_step).quantize(Decimal(1), rounding=ROUND_DOWN) * contract.size_step
