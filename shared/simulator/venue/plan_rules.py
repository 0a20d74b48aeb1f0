"""What a trigger order must look like, and when its condition holds: rules without state.

Kinds (Bitget v2, REST -> Trigger orders)
  * `normal_plan` fires when its price crosses the trigger from where it stood at placement, either way.
  * `track_plan` and `moving_plan` trail: they start at the trigger, follow the best price since (the highest for an
    order that sells, the lowest for one that buys) and fire when the price has come back by a ratio of it.
  * `profit_plan` and `loss_plan` close a size of a position, `pos_profit` and `pos_loss` the whole of it.

Codes and messages: Bitget v2, Error codes. Where the list has no number for a rule (how many plans, the smallest
ratio) it is ours, and said so beside it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from shared.simulator.venue.checks import size_refusal, status_refusal, step_refusal, wrong_side
from shared.simulator.venue.orders import OrderRequest, Plan, PlanRequest, PlanType, Refusal
from shared.types import Contract, OrderKind, Side

PROTECTIONS: Final[frozenset[PlanType]] = frozenset(
    {"profit_plan", "loss_plan", "moving_plan", "pos_profit", "pos_loss"}
)
"""Stops and targets: they belong to a position and end with it."""

WHOLE: Final[frozenset[PlanType]] = frozenset({"pos_profit", "pos_loss"})
"""At most one of each a position, for all of it, whatever its size is then."""

TRAILING: Final[frozenset[PlanType]] = frozenset({"track_plan", "moving_plan"})

RATIO_MAX = Decimal(10)
"""Per cent; Bitget v2, Place Trigger Order."""

RATIO_MIN = Decimal("0.01")
"""Per cent; ours, as are the counts: Bitget has codes for too many (40889, 40890, 43071) and publishes no numbers."""

PLANS_PER_SYMBOL_MAX = 100
PROTECTIONS_PER_SYMBOL_MAX = 100
TRIGGERS_PER_SYMBOL_MAX = 150


# ---------------------------------------------------------------------------------------------- conditions


def direction(request: PlanRequest, price: Decimal) -> int:
    """Return how the price must move to reach the trigger: +1 up, -1 down, 0 it stands there.

    A protection and a trailing plan know it from what they are: the stop of a long is below, wherever the price is.

    Args:
        price: where it stands at placement.
    """
    closes_long = request.side is Side.SELL
    match request.plan_type:
        case "normal_plan":
            return (request.trigger_price > price) - (request.trigger_price < price)
        case "loss_plan" | "pos_loss":
            return -1 if closes_long else 1
        case _:
            return 1 if closes_long else -1


def trailing_trigger(request: PlanRequest, peak: Decimal) -> Decimal:
    """Return the price at which a trailing plan fires: best price x (1 - ratio), (1 + ratio) where it buys."""
    assert request.callback_ratio is not None, request
    sign = 1 if request.side is Side.SELL else -1
    return peak * (1 - sign * request.callback_ratio / 100)


def follow(plan: Plan, price: Decimal) -> bool:
    """Move the best price of a trailing plan along, and tell whether the plan's condition holds at `price`."""
    request = plan.request
    if request.plan_type not in TRAILING:
        if plan.direction:
            return price >= request.trigger_price if plan.direction > 0 else price <= request.trigger_price
        return True
    if plan.peak is None and (price - request.trigger_price) * plan.direction < 0:
        return False
    if plan.peak is None or (price - plan.peak) * plan.direction > 0:
        plan.peak = price
    return (price - trailing_trigger(request, plan.peak)) * plan.direction <= 0


# ---------------------------------------------------------------------------------------------- refusals


def start_refusal(request: PlanRequest, price: Decimal) -> Refusal | None:
    """Refuse a protection or a trailing plan whose trigger lies behind the price; a normal plan may lie anywhere."""
    kind, closes_long = request.plan_type, request.side is Side.SELL
    if kind in TRAILING:
        # The messages allow equality; that they mean trailing plans is inferred from their place in the list.
        if closes_long and request.trigger_price < price:
            return Refusal("43035", "The trigger price should be ≥ the current market price")
        if not closes_long and request.trigger_price > price:
            return Refusal("43034", "The trigger price should be ≤ the current market price")
        return None
    if kind in PROTECTIONS:
        return wrong_side(closes_long, kind in ("loss_plan", "pos_loss"), request.trigger_price, price)
    return None


def form_refusal(contract: Contract, request: PlanRequest) -> Refusal | None:
    """Return what is wrong with a plan by the contract's rules alone, None where nothing is."""
    closes = request.plan_type in PROTECTIONS or request.reduce_only
    return (
        status_refusal(contract, closes)
        or _price_refusal(contract, "triggerPrice", request.trigger_price)
        or _price_refusal(contract, "executePrice", request.execute_price)
        or _size_refusal(contract, request)
        or _ratio_refusal(request)
        or _preset_refusal(contract, request)
    )


def _price_refusal(contract: Contract, name: str, price: Decimal | None) -> Refusal | None:
    if price is None:
        return None
    if price <= 0:
        return Refusal("40020", f"Parameter {name} error")
    return step_refusal(name, price, contract.tick, "45115", "The price you enter should be a multiple of {}")


def _size_refusal(contract: Contract, request: PlanRequest) -> Refusal | None:
    if request.plan_type in WHOLE:
        assert request.size == 0, request
        return None
    kind = OrderKind.MARKET if request.execute_price is None else OrderKind.LIMIT
    return size_refusal(contract, OrderRequest(symbol=request.symbol, side=request.side, kind=kind, size=request.size))


def _ratio_refusal(request: PlanRequest) -> Refusal | None:
    ratio = request.callback_ratio
    name = "rangeRate" if request.plan_type in PROTECTIONS else "callbackRatio"
    if request.plan_type not in TRAILING:
        return None if ratio is None else Refusal("40020", f"Parameter {name} error")
    if request.execute_price is not None:  # what trails closes at market
        return Refusal("40020", "Parameter executePrice error")
    if ratio is None:
        return Refusal("40019", f"Parameter {name} cannot be empty")
    if request.plan_type == "moving_plan" and ratio < RATIO_MIN:
        return Refusal("43032", f"rangeRate is smaller than {RATIO_MIN}")
    if not RATIO_MIN <= ratio <= RATIO_MAX:
        return Refusal("40020", f"Parameter {name} error")
    return None


def _preset_refusal(contract: Contract, request: PlanRequest) -> Refusal | None:
    """Refuse protections of the order to be sent that lie on the wrong side of its price."""
    stop, target = request.stop_loss, request.take_profit
    if request.plan_type == "track_plan":  # there they are per cent
        for name, share in (("stopLossTriggerPrice", stop), ("stopSurplusTriggerPrice", target)):
            if share is not None and not Decimal("0.01") <= share <= Decimal("999.99"):
                return Refusal("40020", f"Parameter {name} error")
        return None
    for name, price in (
        ("stopLossTriggerPrice", stop),
        ("stopLossExecutePrice", request.stop_loss_execute),
        ("stopSurplusTriggerPrice", target),
        ("stopSurplusExecutePrice", request.take_profit_execute),
    ):
        refusal = _price_refusal(contract, name, price)
        if refusal is not None:
            return refusal
    price = request.execute_price or request.trigger_price
    at, is_long = _plain(price), request.side is Side.BUY
    if target is not None and is_long and target <= price:
        return Refusal("45064", f"TP price of long position > order price {at}")
    if target is not None and not is_long and target >= price:
        return Refusal("45065", f"TP price of short position < order price {at}")
    if stop is not None and is_long and stop >= price:
        return Refusal("45066", f"SL price of long position < order price {at}")
    if stop is not None and not is_long and stop <= price:
        return Refusal("45067", f"SL price of short position > order price {at}")
    return None


def _plain(value: Decimal) -> str:
    return f"{value.normalize():f}"
