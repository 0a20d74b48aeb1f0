"""Sizing: how much of one symbol, in the exchange's own steps.

    notional = the smallest of
        slot         gross / (2 · top K)
        symbol       gross · symbol's share
        volatility   equity · position risk / sigma      one deviation over the horizon moves equity by the risk at most
        kelly        equity · share · edge / sigma²      a fraction of what would grow fastest, if the edge were true
        depth        visible depth of the thinner side · share
    gross    = equity · min(leverage wanted, obtained) · share of equity that may be margin

rounded *down* to the size step. A null scorer gets the smallest order that the exchange takes. What comes out below
the exchange's minimum is refused with the arithmetic, never rounded up: a small account gets an honest answer, and is
told how much equity would be enough.

sigma is `volatility.py`'s, and never less than a tick or half the spread: a price that did not move for two minutes can
still move by one. Where it is not known yet, it is taken for as large as the stop is far away.

What sizes one entry runs inside of the engine's exact context (exact.py), and does not enter it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import lru_cache

import msgspec

from shared.errors import SettingsError
from shared.strategy.config import EngineConfig
from shared.strategy.exact import ZERO, ceil_to, decimal_of, divided_down, divided_up, exactly, floor_to
from shared.strategy.ranking import Gate
from shared.types import Contract, OrderKind, Universe

MINIMUM_HEADROOM = Decimal("1.1")
"""The smallest order is sized above the minimum notional by this, since the price may move before it arrives."""

BPS = Decimal(10_000)
ONE = Decimal(1)
CENT = Decimal("0.01")
MILLIONTH = Decimal("1e-6")


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A decision against, with its reason: a value, not an exception."""

    gate: Gate
    reason: str


class Cap(msgspec.Struct, frozen=True, gc=False):
    """One bound on an order's notional: amount / den. Divided only where somebody is told."""

    name: str
    amount: Decimal  # equity x num, or what equity does not move
    den: Decimal
    num: Decimal | None  # None: equity does not move it
    template: str  # how it came about
    values: tuple[object, ...]

    @property
    def usdt(self) -> Decimal:
        return divided_down(self.amount, self.den)

    @property
    def arithmetic(self) -> str:
        return self.template.format(*self.values)

    @property
    def forbids_all(self) -> bool:
        """Claim that more equity would not loosen it."""
        return not self.num


class _Terms(msgspec.Struct, frozen=True):
    """A configuration's fractions in Decimal."""

    use: Decimal
    share: Decimal
    risk: Decimal
    kelly: Decimal
    depth_share: Decimal
    slots: Decimal


@lru_cache(maxsize=16)
def _terms(config: EngineConfig) -> _Terms:
    return _Terms(
        use=decimal_of(config.margin_use_max),
        share=decimal_of(config.symbol_share_max),
        risk=decimal_of(config.position_risk_bps),
        kelly=decimal_of(config.kelly_share),
        depth_share=decimal_of(config.depth_share_max),
        slots=Decimal(2 * config.top_k),
    )


def gross_max_usdt(config: EngineConfig, equity: Decimal, leverage: int) -> Decimal:
    """Return the largest sum of notionals that this equity may carry."""
    return equity * min(config.leverage, leverage) * _terms(config).use


def smallest_size(contract: Contract, price: Decimal) -> Decimal:
    """Return the smallest order that the exchange takes at this price, base coin."""
    step, unit = contract.size_step, price * contract.size_step
    worth = contract.notional_min_usdt * MINIMUM_HEADROOM
    n_steps = max(worth // unit, contract.size_min // step)
    if n_steps * unit < worth or n_steps * step < contract.size_min:
        n_steps += 1
    return n_steps * step


@exactly
def is_dust(contract: Contract, size: Decimal, price: Decimal | None) -> bool:
    """Claim that no order of ours may close a position of this size: below a minimum, or off the step.

    Bitget documents `minTradeNum` as the minimum of an opening in one place and of every order in another (Get Contract
    Config), and does not say whether `minTradeUSDT` is asked of what closes. Whoever takes both for asked is never
    refused; the flash close has no size that could be.

    Args:
        price: values the position; None: unknown, and its worth is not asked for.
    """
    if size < contract.size_min or size % contract.size_step != 0:
        return True
    return price is not None and size * price < contract.notional_min_usdt


@exactly
def closing_size(contract: Contract, size: Decimal) -> Decimal:
    """Return as much of a position of this size as one market order may close."""
    largest = contract.size_max_market
    return size if largest is None or size <= largest else floor_to(largest, contract.size_step)


def largest_size(contract: Contract, kind: OrderKind) -> Decimal | None:
    """Return the largest order of a kind, in whole steps; None: the exchange states no bound."""
    largest = contract.size_max_market if kind is OrderKind.MARKET else contract.size_max_limit
    return floor_to(largest, contract.size_step) if largest is not None else None


def _largest_entry(config: EngineConfig, contract: Contract) -> Decimal | None:
    """Return the largest entry of a configuration: one that may be taken in the end must be one that can be."""
    largest = largest_size(contract, config.entry_kind)
    if config.entry_kind is OrderKind.POST_ONLY and config.entry_fallback:
        taken = largest_size(contract, OrderKind.MARKET)
        known = [size for size in (largest, taken) if size is not None]
        return min(known) if known else None
    return largest


def sigma_bps(
    config: EngineConfig, contract: Contract, *, price: Decimal, half_spread: Decimal, volatility_bps: float | None
) -> Decimal:
    """Return what one deviation over the horizon is taken for, > 0."""
    if volatility_bps is None:
        return decimal_of(config.stop_bps)
    least = max(contract.tick, half_spread) / price * BPS
    return max(decimal_of(volatility_bps), least)


def caps(
    config: EngineConfig,
    *,
    equity: Decimal,
    leverage: int,
    depth_usdt: float,
    sigma_bps: Decimal,
    edge_bps: float,
) -> tuple[Cap, ...]:
    """Return every bound on the notional of an entry; the smallest holds.

    Args:
        leverage: as obtained from the exchange.
        depth_usdt: thinner side's visible depth within 10 bps.
        sigma_bps: see `sigma_bps`.
        edge_bps: expected after this symbol's costs.
    """
    terms, used = _terms(config), Decimal(min(config.leverage, leverage))
    use, share, risk, kelly, slots = terms.use, terms.share, terms.risk, terms.kelly, terms.slots
    edge, depth = _counted(edge_bps), _counted(depth_usdt)
    gross = used * use
    of_symbol, of_edge = gross * share, kelly * edge * BPS
    return (
        Cap("slot", equity * gross, slots, gross, "{:.2f} x {} x {} / {} slots", (equity, used, use, slots)),
        Cap(
            "symbol", equity * of_symbol, ONE, of_symbol, "{:.2f} x {} x {} x {} a symbol", (equity, used, use, share)
        ),
        Cap(
            "volatility", equity * risk, sigma_bps, risk, "{:.2f} x {} bps of risk / {:.2f} bps of volatility",
            (equity, risk, sigma_bps),
        ),
        Cap(
            "kelly", equity * of_edge, sigma_bps * sigma_bps, of_edge,
            "{:.2f} x {} x {:.2f} bps of edge / ({:.2f} bps of volatility)²", (equity, kelly, edge, sigma_bps),
        ),
        Cap("depth", depth * terms.depth_share, ONE, None, "{:.2f} visible x {}", (depth, terms.depth_share)),
    )  # fmt: skip


def _counted(value: float) -> Decimal:
    """Return an observation in millionths; nothing where it is less, or no number: 1e-300 bps of edge is none."""
    return decimal_of(value).quantize(MILLIONTH, ROUND_FLOOR) if 1e-6 <= value < math.inf else ZERO


def entry_size(
    config: EngineConfig,
    contract: Contract,
    *,
    price: Decimal,
    bounds: tuple[Cap, ...] | None,
) -> Decimal | Refusal:
    """Return the size of an entry in base coin, or why there is none.

    Args:
        price: mid at the decision: the same for a long and a short, so that a mirrored market mirrors sizes.
        bounds: from `caps`; None: the smallest order that the exchange takes (a null claims no edge to size by).
    """
    smallest, largest = smallest_size(contract, price), _largest_entry(config, contract)
    if largest is not None and largest < smallest:
        return Refusal(
            gate=Gate.SIZE,
            reason=f"the smallest order is {smallest} {contract.base}, the largest that may be sent is {largest}",
        )
    if bounds is None:
        return smallest
    unit = price * contract.size_step
    size = min(cap.amount // (cap.den * unit) for cap in bounds) * contract.size_step  # whole steps, nothing rounded
    if size < smallest:
        return Refusal(gate=Gate.SIZE, reason=_too_small(smallest * price, bounds))
    return min(size, largest) if largest is not None else size


def _too_small(needed_usdt: Decimal, bounds: tuple[Cap, ...]) -> str:
    tightest = min(bounds, key=lambda cap: cap.usdt)
    said = (
        f"the smallest order is {needed_usdt:.2f} USDT, {tightest.usdt:.2f} USDT may be used "
        f"({tightest.name}: {tightest.arithmetic})"
    )
    blocking = [cap for cap in bounds if cap.forbids_all and cap.usdt < needed_usdt]
    if blocking:
        return f"{said}: no equity would be enough while {blocking[0].name} allows {blocking[0].usdt:.2f}"
    return f"{said}: {_enough(needed_usdt, bounds):.2f} USDT of equity would be enough"


def _enough(needed_usdt: Decimal, bounds: tuple[Cap, ...]) -> Decimal:
    """Return the equity at which no bound forbids an order of this notional, up to whole cents."""
    return _cents(max(divided_up(needed_usdt * cap.den, cap.num) for cap in bounds if cap.num))


def _cents(value: Decimal) -> Decimal:
    return value.quantize(CENT, rounding=ROUND_CEILING)


@lru_cache(maxsize=16)
def _of_bps(bps: float) -> Decimal:
    """Return a setting in bps as a fraction."""
    return decimal_of(bps) / BPS


def stop_price(contract: Contract, *, is_long: bool, reference: Decimal, stop_bps: float) -> Decimal:
    """Return the protective stop, rounded away from the market to a tick, at least one tick above zero."""
    distance = reference * _of_bps(stop_bps)
    if is_long:
        return max(floor_to(reference - distance, contract.tick), contract.tick)
    return ceil_to(reference + distance, contract.tick)


# ------------------------------------------------------------------------------------- what an account can trade


class Affordable(msgspec.Struct, frozen=True, kw_only=True):
    """What an equity could trade of a universe, by its slots alone: volatility, edge and depth change by the second."""

    equity_usdt: Decimal
    priced: int  # tradable symbols of which a price is known
    tradable: int  # of those, symbols whose smallest order fits into a slot
    smallest_order_usdt: Decimal | None  # of the cheapest symbol; None: no symbol has a price
    equity_for_one_usdt: Decimal | None  # from which on anything could be traded
    equity_for_half_usdt: Decimal | None
    equity_for_all_usdt: Decimal | None

    def __str__(self) -> str:
        """Return it as a person reads it at the start of a session."""
        if self.smallest_order_usdt is None:
            return f"{self.equity_usdt:.2f} USDT: no symbol has a price yet"
        return (
            f"{self.equity_usdt:.2f} USDT could trade {self.tradable} of {self.priced} symbols "
            f"(the smallest order costs {self.smallest_order_usdt:.2f} USDT; one symbol needs "
            f"{self.equity_for_one_usdt:.2f} USDT of equity, half of them {self.equity_for_half_usdt:.2f}, "
            f"all of them {self.equity_for_all_usdt:.2f})"
        )


@exactly
def affordable(
    config: EngineConfig, universe: Universe, prices: Mapping[str, Decimal], *, equity: Decimal, is_null: bool = False
) -> Affordable:
    """Return how many of the wanted symbols this equity could trade at all, and what more would take.

    Args:
        prices: symbol -> any recent price; symbols without one are left out.
        is_null: its orders are the smallest ones, so that a symbol's share of gross bounds them, not a slot.
    """
    wanted = set(config.symbols) if config.symbols else set(universe.symbols)
    needs: list[tuple[Decimal, Decimal]] = []  # (equity that is enough, smallest order)
    share = decimal_of(config.symbol_share_max)
    for contract in universe.contracts:
        price = prices.get(contract.symbol)
        if contract.symbol not in wanted or contract.status != "normal" or price is None or not price > 0:
            continue
        gross = gross_max_usdt(config, ONE, contract.leverage_max)  # for each USDT of equity
        smallest = smallest_size(contract, price) * price
        enough = divided_up(smallest, gross * share)
        if not is_null:
            enough = max(enough, divided_up(smallest * 2 * config.top_k, gross))
        needs.append((enough, smallest))
    if not needs:
        return Affordable(
            equity_usdt=equity, priced=0, tradable=0, smallest_order_usdt=None, equity_for_one_usdt=None,
            equity_for_half_usdt=None, equity_for_all_usdt=None,
        )  # fmt: skip
    equities = sorted(need for need, _ in needs)
    return Affordable(
        equity_usdt=equity,
        priced=len(needs),
        tradable=sum(need <= equity for need in equities),
        smallest_order_usdt=min(smallest for _, smallest in needs),
        equity_for_one_usdt=_cents(equities[0]),
        equity_for_half_usdt=_cents(equities[(len(equities) - 1) // 2]),
        equity_for_all_usdt=_cents(equities[-1]),
    )


@exactly
def check_affordable(
    config: EngineConfig, universe: Universe, prices: Mapping[str, Decimal], *, equity: Decimal, is_null: bool = False
) -> Affordable:
    """Return what an equity could trade, and refuse one that could trade nothing.

    Raises:
        SettingsError: no symbol's smallest order fits, with the arithmetic and what would be enough.
    """
    found = affordable(config, universe, prices, equity=equity, is_null=is_null)
    if found.tradable or found.smallest_order_usdt is None:
        return found
    used, use = config.leverage, decimal_of(config.margin_use_max)
    gross = gross_max_usdt(config, equity, used)
    parts = f"{config.symbol_share_max:g} a symbol" if is_null else f"2 x {config.top_k} TOP_K"
    part = gross * decimal_of(config.symbol_share_max) if is_null else gross / (2 * config.top_k)
    fewer = int(gross / (2 * found.smallest_order_usdt)) if not is_null else 0
    hint = f"set TOP_K={fewer} or less, " if 1 <= fewer < config.top_k else ""
    raise SettingsError(
        f"the account must afford one order, found {equity:.2f} USDT x {used} (LEVERAGE) x {use} (margin_use_max), "
        f"{parts}: {part:.2f} USDT against {found.smallest_order_usdt:.2f} of the cheapest of {found.priced} symbols: "
        f"{hint}raise LEVERAGE, or have {found.equity_for_one_usdt:.2f} USDT"
    )
