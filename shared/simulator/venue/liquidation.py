"""Liquidation, in Bitget's steps, and the insurance fund.

The fifth layer of a venue. It is looked at with every mark of a symbol that somebody holds, after stops and targets.

An isolated position is lost once its margin and its profit are down to its own maintenance margin. Its orders are
cancelled and the fund takes it over at its bankruptcy price; nothing else of the account is touched, so it never costs
more than its margin.

What is crossed is lost once its equity is down to the maintenance margin of all of it. Then, until it is not:
  1. Cancel: every order of the account, every plan.
  2. Net: both sides of a hedge close against each other at the mark ("offset").
  3. Reduce: positions above the first step of their risk ladder come down by two steps at a time, at market.
  4. Take over: the fund gets what is left at bankruptcy prices, at which each position loses its share (by value) of
     the equity, the liquidation fee included. The account is left with nothing, or less than a ten-thousandth of a
     tick a contract; never with debt.
Source: Bitget, "Leverage and risk management" (February 2025) and "Announcement on liquidation risk management" (July
2024). Ours where they say nothing: the larger position first, and the fund, which has no limit, closes at once, against
the book within the price band and the resting orders in it, the rest with the market at the mark. What it makes or
loses on that is `insurance_usdt`: the loss beyond a bankruptcy is the fund's, so all cash is accounted for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from decimal import ROUND_CEILING, ROUND_DOWN, Decimal

from shared.simulator.venue.accounts import Account
from shared.simulator.venue.checks import Checks
from shared.simulator.venue.margin import MARGIN_STEP, bankruptcy_price, tier_at
from shared.simulator.venue.orders import ZERO, OrderRequest, Takeover, VenuePosition, VenueRules
from shared.types import Contract, OrderKind, OrderStatus, Side

TAKEOVERS_MAX = 1_000


class Liquidation(Checks):
    """Watches marks and ends what cannot be carried."""

    def __init__(self, contracts: Iterable[Contract], rules: VenueRules) -> None:
        super().__init__(contracts, rules)
        self.insurance_usdt = ZERO
        """What the insurance fund has made (> 0) or lost since the venue was opened."""
        self.takeovers: deque[Takeover] = deque(maxlen=TAKEOVERS_MAX)

    def _watch(self, symbol: str, now_ns: int) -> None:
        for account in sorted(self._holders[symbol]):
            held, has_crossed = self._accounts[account], False
            for position in held.of_symbol(symbol):
                if position.margin_mode == "crossed":
                    has_crossed = True
                elif self._is_isolated_lost(position):
                    self._lose_isolated(account, position, now_ns)
            if has_crossed and self._is_lost(held):
                self._lose_crossed(account, held, now_ns)

    def _watch_all(self, symbols: Sequence[str], now_ns: int) -> bool:
        """Look at everybody who holds one of these, once; return whether anything was liquidated."""
        crossed: dict[str, None] = {}
        is_any = False
        for symbol in symbols:
            for account in sorted(self._holders.get(symbol, ())):
                for position in self._accounts[account].of_symbol(symbol):
                    if position.margin_mode == "crossed":
                        crossed[account] = None
                    elif self._is_isolated_lost(position):
                        self._lose_isolated(account, position, now_ns)
                        is_any = True
        for account in crossed:
            held = self._accounts[account]
            if self._is_lost(held):
                self._lose_crossed(account, held, now_ns)
                is_any = True
        return is_any

    def _is_lost(self, held: Account) -> bool:
        risk = self._risk(held)
        return risk.required > 0 and risk.equity <= risk.required

    # ---------------------------------------------------------------------------------------- isolated

    def _lose_isolated(self, account: str, position: VenuePosition, now_ns: int) -> None:
        for order in list(self._accounts[account].pending_of.get(position.symbol, {}).values()):
            if order.position_side == position.position_side:
                self._close(order, OrderStatus.CANCELED, "liquidation_cancel", now_ns)
        margin = position.margin_usdt
        worth = abs(position.cost) - margin if position.size > 0 else abs(position.cost) + margin
        self._take_over(account, position, worth, now_ns)

    # ----------------------------------------------------------------------------------------- crossed

    def _lose_crossed(self, account: str, held: Account, now_ns: int) -> None:
        for order in list(held.pending.values()):
            self._close(order, OrderStatus.CANCELED, "liquidation_cancel", now_ns)
        self.plans.liquidated(account, now_ns)
        self._net(account, held, now_ns)
        while self._is_lost(held) and self._reduce(account, held, now_ns):
            pass
        if self._is_lost(held):
            for position in self._crossed(held):
                self._take_over(account, position, self._worth_when_bankrupt(held, position), now_ns)

    def _crossed(self, held: Account) -> list[VenuePosition]:
        """Return the crossed positions, the most valuable first."""
        crossed = [position for position in held.positions.values() if position.margin_mode == "crossed"]
        return sorted(crossed, key=self._value, reverse=True)

    def _value(self, position: VenuePosition) -> Decimal:
        return abs(position.size) * self.mark(position.symbol)

    def _net(self, account: str, held: Account, now_ns: int) -> None:
        for symbol in dict.fromkeys(position.symbol for position in self._crossed(held)):
            mine = held.of_symbol(symbol)
            if len(mine) == 2:
                size = min(abs(position.size) for position in mine)
                for position in mine:
                    order = self._create(account, closing_request(position, size), now_ns, "offset")
                    self._fill(
                        order, self.mark(symbol), order.remaining, is_maker=False, now_ns=now_ns, is_public=False
                    )

    def _reduce(self, account: str, held: Account, now_ns: int) -> bool:
        """Bring the most valuable position above the first step down by two; return whether anything traded."""
        for position in self._crossed(held):
            tiers, mark = self.tiers(position.symbol), self.mark(position.symbol)
            level = tier_at(tiers, self._value(position)).level
            if level == 1:
                continue
            target = next(tier for tier in tiers if tier.level == max(1, level - 2)).end_usdt
            step = self.contracts[position.symbol].size_step
            excess = abs(position.size) - target / mark
            size = min(abs(position.size), (excess / step).to_integral_value(ROUND_CEILING) * step)
            worst = self._bankruptcy_price(position, self._worth_when_bankrupt(held, position))
            order = self._create(account, closing_request(position, size), now_ns, "reduction")
            self._take(order, worst, now_ns)
            if not order.status.is_final:
                self._close(order, OrderStatus.CANCELED, "market_cancel", now_ns)
            if order.filled:
                return True
        return False

    def _worth_when_bankrupt(self, held: Account, position: VenuePosition) -> Decimal:
        """Return what closing a crossed position brings (long) or costs (short) when it loses its share of the equity.

        The share goes by value over what is still open, so the last position gets what the others have left.
        """
        value, total = self._value(position), sum((self._value(one) for one in self._crossed(held)), ZERO)
        equity = self._risk(held).equity
        share = equity if value == total else (equity * value / total).quantize(MARGIN_STEP, rounding=ROUND_DOWN)
        return value - share if position.size > 0 else value + share

    # ---------------------------------------------------------------------------------------- the fund

    def _bankruptcy_price(self, position: VenuePosition, worth: Decimal) -> Decimal:
        tick, is_long = self.contracts[position.symbol].tick, position.size > 0
        return bankruptcy_price(worth, abs(position.size), is_long, self.rules.liquidation_fee, tick)

    def _take_over(self, account: str, position: VenuePosition, worth: Decimal, now_ns: int) -> None:
        """Let the fund have a position at its bankruptcy price, and close it."""
        size, price = position.size, self._bankruptcy_price(position, worth)
        order = self._create(account, closing_request(position, abs(size)), now_ns, "liquidation")
        self._fill(
            order, price, order.remaining, is_maker=False, now_ns=now_ns, fee_rate=self.rules.liquidation_fee,
            is_public=False,
        )  # fmt: skip
        taken = Takeover(
            account=account, time_ns=now_ns, symbol=position.symbol, size=size, price=price,
            proceeds_usdt=self._unload(position.symbol, size, now_ns),
        )  # fmt: skip
        self.insurance_usdt += taken.gain_usdt
        self.takeovers.append(taken)

    def _unload(self, symbol: str, size: Decimal, now_ns: int) -> Decimal:
        """Close what the fund holds and return what it brings, < 0 where it costs."""
        side, left, proceeds = Side.SELL if size > 0 else Side.BUY, abs(size), ZERO
        contract, mark = self.contracts[symbol], self.mark(symbol)
        worst = mark * (1 - contract.price_band_sell if size > 0 else 1 + contract.price_band_buy)
        while left > 0:
            best = self._best_offer(symbol, side)
            if best is None or (best[0] - worst) * side.sign > 0:
                proceeds += left * mark
                break
            price, offered, maker = best
            taken = min(offered, left)
            if maker is not None and taken <= 0:
                self._close(maker, OrderStatus.CANCELED, "reduce_only_cancel", now_ns)
                continue
            if maker is None:
                self._books[symbol].opposite(side).take(taken)
            else:
                self._fill(maker, price, taken, is_maker=True, now_ns=now_ns)
            proceeds += taken * price
            left -= taken
        return proceeds if size > 0 else -proceeds


def closing_request(position: VenuePosition, size: Decimal) -> OrderRequest:
    """Return the market order that closes a size of a position."""
    side = Side.SELL if position.size > 0 else Side.BUY
    return OrderRequest(
        symbol=position.symbol, side=side, kind=OrderKind.MARKET, size=size,
        reduce_only=position.position_side == "net", position_side=position.position_side,
        margin_mode=position.margin_mode,
    )  # fmt: skip
