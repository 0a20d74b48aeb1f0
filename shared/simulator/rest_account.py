"""Bitget's REST v2 for USDT-M futures: account and positions.

Source: Bitget v2, REST -> Account, Position; payloads recorded in September and October 2026.
"""

from __future__ import annotations

from typing import Any, ClassVar

from shared.simulator import payloads
from shared.simulator.gate import Refused
from shared.simulator.rest_common import (
    DAY_MS,
    MIX,
    MS,
    Endpoint,
    Group,
    Params,
    in_time,
    limit,
    number,
    one_of,
    required,
    unless_refused,
)

BILL_WINDOW_DAYS = 30


class AccountRest(Group):
    """`/api/v2/mix/account/*` and `/api/v2/mix/position/*`."""

    ENDPOINTS: ClassVar[dict[str, Endpoint]] = {
        MIX + "account/account": Endpoint("GET", 10, True, "account"),
        MIX + "account/accounts": Endpoint("GET", 10, True, "accounts"),
        MIX + "account/bill": Endpoint("GET", 10, True, "bill"),
        MIX + "account/set-leverage": Endpoint("POST", 5, True, "set_leverage"),
        MIX + "account/set-margin-mode": Endpoint("POST", 5, True, "set_margin_mode"),
        MIX + "account/set-position-mode": Endpoint("POST", 5, True, "set_position_mode"),
        MIX + "position/all-position": Endpoint("GET", 5, True, "all_position"),
        MIX + "position/single-position": Endpoint("GET", 10, True, "single_position"),
    }

    def account(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        required(params, "marginCoin")
        return payloads.account_row(self.venue, key, symbol)

    def accounts(self, params: Params, key: str) -> Any:
        return [payloads.account_row(self.venue, key, None)] if self._is_ours(params) else []

    def bill(self, params: Params, key: str) -> Any:
        if not self._is_ours(params):
            return {"bills": None, "endId": None}
        start, end = params.get("startTime"), params.get("endTime")
        if start and end and number(end, "endTime") - number(start, "startTime") > BILL_WINDOW_DAYS * DAY_MS:
            raise Refused("00001", f"startTime and endTime interval cannot be greater than {BILL_WINDOW_DAYS} days")
        listed_ns = self.context.now_ns() - int(self.context.conditions.bill_delay_ms * MS)
        found = [
            bill
            for bill in reversed(self.venue.bills(key))
            if bill.time_ns <= listed_ns
            and params.get("businessType") in (None, "", bill.kind)
            and params.get("symbol") in (None, "", bill.symbol)
            and str(params.get("coin") or "USDT").upper() == "USDT"
            and in_time(params, bill.time_ns)
        ]
        before = params.get("idLessThan")
        if before:
            found = [bill for bill in found if int(bill.bill_id) < int(number(before, "idLessThan"))]
        found = found[: limit(params, default=20)]
        return {
            "bills": [payloads.bill_row(bill) for bill in found] or None,
            "endId": found[-1].bill_id if found else None,
        }

    def set_leverage(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        # Cross: one value a symbol; longLeverage wins where both are sent.
        text = params.get("longLeverage") or params.get("leverage") or params.get("shortLeverage")
        wanted = number(text, "leverage")
        if wanted != wanted.to_integral_value():
            raise Refused("40020", "Parameter leverage error")
        obtained = str(unless_refused(self.venue.set_leverage(key, symbol, int(wanted))))
        is_crossed = self.venue.margin_mode(key, symbol) == "crossed"
        return {
            "symbol": symbol, "marginCoin": "USDT", "longLeverage": obtained, "shortLeverage": obtained,
            "crossMarginLeverage": obtained if is_crossed else "", "marginMode": self.venue.margin_mode(key, symbol),
        }  # fmt: skip

    def set_margin_mode(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        unless_refused(self.venue.set_margin_mode(key, symbol, one_of(params, "marginMode", ("isolated", "crossed"))))
        leverage = str(self.venue.leverage(key, symbol))
        return {
            "symbol": symbol, "marginCoin": "USDT", "longLeverage": leverage, "shortLeverage": leverage,
            "marginMode": self.venue.margin_mode(key, symbol),
        }  # fmt: skip

    def set_position_mode(self, params: Params, key: str) -> Any:
        self._is_ours(params)
        mode = one_of(params, "posMode", ("one_way_mode", "hedge_mode"))
        unless_refused(self.venue.set_position_mode(key, mode))
        return {"posMode": mode}

    # ---------------------------------------------------------------------------------- positions

    def all_position(self, params: Params, key: str) -> Any:
        if not self._is_ours(params):
            return []
        return [payloads.position_row(self.venue, key, p) for p in self.desk.positions(key, self.context.now_ns())]

    def single_position(self, params: Params, key: str) -> Any:
        symbol = self._symbol(params)
        required(params, "marginCoin")
        position = self.venue.position(key, symbol)
        return [payloads.position_row(self.venue, key, position)] if position is not None else []
