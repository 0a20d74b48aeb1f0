"""What a venue refuses, with Bitget's code: the form of an order, its price and size, and what the account can carry.

The fourth layer of a venue. Codes and messages: Bitget v2, Error codes, as recorded where a recording exists. Where
its documents leave the choice open (PROTOCOL: "which code" unknown) ours is: 45112 for too large a size, limit or
market; 22006 and 22007 for a limit beyond the price band; 45118 for orders of a symbol, 43005 for orders in all,
45116 for positions; 45120 for more than the risk ladder allows at the leverage, 40762 for more than the balance does.

To extend: a new rule is a line in `_checked`.
"""

from __future__ import annotations

from decimal import Decimal

from shared.simulator.venue.margin import notional_max
from shared.simulator.venue.matching import Matching
from shared.simulator.venue.orders import ZERO, MarginMode, Order, OrderRequest, Refusal, VenuePosition
from shared.types import Contract, OrderKind, Side

_CLIENT_OID_ALPHABET = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-+_#:")
ABSURD = Decimal("1e15")  # beyond it, Decimal's 28 digits would not hold price x size
MODE_REFUSAL = Refusal("40774", "The order type for unilateral position must also be the unilateral position type.")
_STATUS_REFUSALS = {
    "listed": Refusal("43115", "The current trading pair is opening soon, please refer to the official announcement"),
    "maintain": Refusal("40844", "The contract is under temporary maintenance"),
    "off": Refusal("40309", "The symbol has been removed"),
}


class Checks(Matching):
    """Says no."""

    def _checked(
        self,
        account: str,
        request: OrderRequest,
        source: str = "api",
        *,
        without: Order | None = None,
        credit: Decimal = ZERO,
    ) -> Decimal | Refusal:
        """Return the price at which an order would hold margin, or why Bitget would not take it.

        Args:
            source: what the venue sends itself (a stop) needs no price within the band, and closes any size.
            without: an order that this one is to replace.
            credit: margin that will be free before it is sent, USDT.
        """
        contract = self.contracts.get(request.symbol)
        if contract is None:
            return Refusal("40034", f"Parameter {request.symbol} does not exist")
        held = self._accounts[account]
        if held.is_hedged is (request.position_side == "net"):
            return MODE_REFUSAL
        position = held.positions.get((request.symbol, request.position_side))
        is_against = position is not None and (position.size > 0) is not (request.side is Side.BUY)
        closes = request.closes
        refusal = status_refusal(contract, closes and is_against)
        if refusal is not None:
            return refusal
        is_market = request.kind is OrderKind.MARKET
        if request.client_oid:
            refusal = client_oid_refusal(request.client_oid, self.rules.client_oid_length_max)
            if refusal is not None:
                return refusal
            if request.client_oid in held.client_oids:
                return Refusal("40786", "Duplicate clientOid")
        if not is_market and request.price is None:
            return Refusal("40019", "Parameter price cannot be empty")
        return (
            (None if closes and source != "api" else size_refusal(contract, request))
            or (None if is_market else self._price_refusal(contract, request, source))
            or (self._preset_refusal(contract, request) if source == "api" else None)
            or self._exposed(account, contract, request, position if is_against else None, closes, without, credit)
        )

    def _price_refusal(self, contract: Contract, request: OrderRequest, source: str) -> Refusal | None:
        price = request.price
        assert price is not None
        if not price.is_finite() or price <= 0:
            return Refusal("40020", "Parameter price error")
        refusal = step_refusal("price", price, contract.tick, "45115", "The price you enter should be a multiple of {}")
        if refusal is not None:
            return refusal
        if source == "api" and self.has_price(contract.symbol):
            mark = self.mark(contract.symbol)
            if request.side is Side.BUY and price > mark * (1 + contract.price_band_buy):
                return Refusal("22006", "Limit price > risk price")
            if request.side is Side.SELL and price < mark * (1 - contract.price_band_sell):
                return Refusal("22007", "Limit price < risk price")
        return None

    def _preset_refusal(self, contract: Contract, request: OrderRequest) -> Refusal | None:
        """Return why the stop or target that rides on an order is not taken."""
        if request.stop_loss is None and request.take_profit is None:
            return None
        for price, name in (
            (request.stop_loss, "presetStopLossPrice"),
            (request.take_profit, "presetStopSurplusPrice"),
            (request.stop_loss_execute, "presetStopLossExecutePrice"),
            (request.take_profit_execute, "presetStopSurplusExecutePrice"),
        ):
            if price is not None:
                refusal = step_refusal(
                    name, price, contract.tick, "45115", "The price you enter should be a multiple of {}"
                )
                if refusal is not None:
                    return refusal
        if not self.has_price(contract.symbol):
            return None
        mark, is_long = self.mark(contract.symbol), request.side is Side.BUY
        for trigger, is_stop in ((request.stop_loss, True), (request.take_profit, False)):
            if trigger is not None:
                refusal = wrong_side(is_long, is_stop, trigger, mark)
                if refusal is not None:
                    return refusal
        return None

    def _exposed(
        self,
        account: str,
        contract: Contract,
        request: OrderRequest,
        against: VenuePosition | None,
        closes: bool,
        without: Order | None,
        credit: Decimal,
    ) -> Decimal | Refusal:
        """Return the price at which what the order opens holds margin, or why the account cannot carry it.

        Args:
            against: the position that the order would make smaller, None where there is none.
            closes: it may do nothing else.
        """
        held, symbol, rules = self._accounts[account], contract.symbol, self.rules
        working = held.pending_of.get(symbol, {})
        n_gone = 0 if without is None else 1
        if len(working) - n_gone >= rules.orders_per_symbol_max:
            return Refusal(
                "45118", f"The number of orders of the symbol reached the maximum {rules.orders_per_symbol_max}"
            )
        if len(held.pending) - n_gone >= rules.orders_max:
            return Refusal("43005", f"The number of orders reached the maximum {rules.orders_max}")
        mode = request.margin_mode or self.margin_mode(account, symbol)
        if mode != self.margin_mode(account, symbol) and self._is_in_use(account, symbol):
            return Refusal("45117", "Currently holding positions or orders, the margin mode cannot be adjusted")
        if closes:
            return Refusal("22002", "No position to close") if against is None else ZERO
        price = request.price
        if price is None:
            level = self._books[symbol].opposite(request.side).level() if symbol in self._books else None
            if level is not None:
                price = level[0]
            elif self.has_price(symbol):
                price = self.mark(symbol)
            else:
                return Refusal("40725", "service return an error")
        covering = ZERO if against is None else abs(against.size)
        if request.size * price < contract.notional_min_usdt and request.size > covering:
            return Refusal("45110", f"less than the minimum amount {contract.notional_min_usdt.normalize():f} USDT")
        ahead = ZERO
        for order in working.values():
            if order is not without and _is_rival(order, request):
                ahead += order.remaining
        opening = request.size if ahead >= covering else request.size - covering + ahead
        if opening <= 0:
            return price
        is_new = (symbol, request.position_side) not in held.positions
        if is_new and len(held.positions) >= rules.positions_max:
            return Refusal("45116", f"The number of positions reached the maximum {rules.positions_max}")
        leverage = self._leverage_of(account, request, mode)
        total = (ahead - covering if ahead > covering else ZERO) + opening
        held_already = held.positions.get((symbol, request.position_side)) if against is None else None
        if held_already is not None:
            total += abs(held_already.size)
        tiers = self.tiers(symbol)
        is_small = total * price <= tiers[0].end_usdt and leverage <= tiers[0].leverage_max
        if not is_small and total * price > notional_max(tiers, leverage):
            return Refusal("45120", "size > max can open order size")
        needed = opening * price * (1 / Decimal(leverage) + contract.taker_fee)
        if needed > self.available(account, without) + credit:
            return Refusal("40762", "The order amount exceeds the balance")
        return price

    def _leverage_of(self, account: str, request: OrderRequest, mode: MarginMode) -> int:
        is_long = request.side is Side.BUY if request.position_side == "net" else request.position_side == "long"
        return self.leverage(account, request.symbol, "long" if is_long else "short", mode)

    def max_open(self, account: str, symbol: str, side: Side, price: Decimal) -> Decimal:
        """Return the largest size that could be opened at a price: by the balance and by the risk ladder."""
        contract = self.contracts[symbol]
        if price <= 0:
            return ZERO
        leverage = self.leverage(account, symbol, "long" if side is Side.BUY else "short")
        by_balance = self.available(account) / (price * (1 / Decimal(leverage) + contract.taker_fee))
        taken = ZERO
        for position in self._accounts[account].of_symbol(symbol):
            if (position.size > 0) is (side is Side.BUY):
                taken += abs(position.size)
        by_ladder = notional_max(self.tiers(symbol), leverage) / price - taken
        return max(ZERO, min(by_balance, by_ladder) // contract.size_step * contract.size_step)


def _is_rival(order: Order, request: OrderRequest) -> bool:
    """Tell whether a working order would open on the same side as a new one, or close the same thing before it."""
    return order.side is request.side and order.position_side == request.position_side and not order.reduce_only


def status_refusal(contract: Contract, only_closes: bool) -> Refusal | None:
    """Return why a symbol does not trade now; where only opening is stopped, what closes may pass."""
    if contract.status == "normal" or (contract.status == "limit_open" and only_closes):
        return None
    return _STATUS_REFUSALS.get(contract.status) or Refusal(
        "45043", f"The symbol is {contract.status} and cannot be traded"
    )


def client_oid_refusal(client_oid: str, longest: int) -> Refusal | None:
    """Return why a client's own id is not taken."""
    if len(client_oid) <= longest and set(client_oid) <= _CLIENT_OID_ALPHABET:
        return None
    return Refusal("40304", f"clientOid or orderId must be 1 to {longest} characters of 0-9A-Za-z-+_#:")


def wrong_side(is_long: bool, is_stop: bool, trigger: Decimal, price: Decimal) -> Refusal | None:
    """Refuse a stop or a target of a position on the side where it would fire at once, None where it is right.

    40917 and 45122 as recorded, the other two from the list of codes, which has no price in them.
    """
    if (trigger - price) * (1 if is_long is not is_stop else -1) > 0:
        return None
    at = f"{price.normalize():f}"
    if is_stop:
        if is_long:
            return Refusal("40917", f"Stop price for long positions please < mark price {at}")
        return Refusal("45122", f"Short position stop loss price please > mark price {at}")
    if is_long:
        return Refusal("40915", "Long position take profit price please > mark price")
    return Refusal("40832", "The take profit price of short positions should be less than the current price")


def size_refusal(contract: Contract, request: OrderRequest) -> Refusal | None:
    """Return why a size is not taken: not positive, off the step, too small, too large."""
    size = request.size
    if not size.is_finite() or size <= 0:
        return Refusal("40020", "Parameter size error")
    refusal = step_refusal(
        "size", size, contract.size_step, "22038", "Please enter the quantity as an integral multiple of {}"
    )
    if refusal is not None:
        return refusal
    if size < contract.size_min:
        return Refusal("45111", "less than the minimum order quantity")
    most = contract.size_max_market if request.kind is OrderKind.MARKET else contract.size_max_limit
    if most is not None and size > most:
        return Refusal("45112", "more than the maximum order quantity")
    return None


def step_refusal(name: str, value: Decimal, step: Decimal, code: str, message: str) -> Refusal | None:
    """Return why a value is no multiple of a step: 40808 for too many decimals, else `code`."""
    if not value.is_finite() or abs(value) >= ABSURD:
        return Refusal("40020", f"Parameter {name} error")
    if value % step == 0:
        return None
    places = max(0, -int(step.normalize().as_tuple().exponent))
    if -int(value.normalize().as_tuple().exponent) > places:
        return Refusal(
            "40808", f"Parameter verification exception {name} checkBDScale error value={value} checkScale={places}"
        )
    return Refusal(code, message.format(f"{step.normalize():f}"))
