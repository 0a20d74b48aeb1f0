"""What clients of USDT-M futures ask beside them: other products, which list nothing here, and the other generation.

ccxt loads the currencies and markets of every product before it trades one, and asks the unified (v3) API first whether
the account is unified: a classic one is told so with 40084, whereupon it goes on with v2.
"""

from __future__ import annotations

from typing import Any, ClassVar

from shared.simulator.gate import Refused
from shared.simulator.rest.common import Endpoint, Group, Params, one_of, required, text


class ForeignRest(Group):
    """Spot and margin markets, trading fees, and the generation of an account."""

    ENDPOINTS: ClassVar[dict[str, Endpoint]] = {
        "/api/v2/spot/public/coins": Endpoint("GET", 3, False, "nothing"),
        "/api/v2/spot/public/symbols": Endpoint("GET", 20, False, "nothing"),
        "/api/v2/margin/currencies": Endpoint("GET", 10, False, "nothing"),
        "/api/v2/common/trade-rate": Endpoint("GET", 10, True, "trade_rate"),
        "/api/v3/account/settings": Endpoint("GET", 20, True, "settings", is_classic=False),
    }

    def nothing(self, params: Params, key: str) -> Any:
        return []

    def trade_rate(self, params: Params, key: str) -> Any:
        symbol = required(params, "symbol")
        # The documentation's own example prints `business`.
        one_of({"businessType": text(params, "businessType") or text(params, "business")}, "businessType", ("mix",))
        contract = self.venue.contracts.get(symbol)
        if contract is None:
            raise Refused("40034", f"Parameter {symbol} does not exist")
        return {"makerFeeRate": f"{contract.maker_fee:f}", "takerFeeRate": f"{contract.taker_fee:f}"}

    def settings(self, params: Params, key: str) -> Any:
        return {
            "accountMode": "unified", "assetMode": "single", "holdMode": self.venue.position_mode(key),
            "symbolConfigList": [], "coinConfigList": [],
        }  # fmt: skip
