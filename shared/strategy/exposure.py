"""Exposure: what is held and asked for, by symbol, side and cluster, and what it would be in the worst case.

Nobody knows which of the working orders will fill. So a limit on a *sum* (gross, margin, a symbol) counts every
position and every entry that may still fill, and no exit; and a limit on a *difference* (net, a cluster's net) is
looked at from the side of the order that is asked for, for the subset of fills that is worst there:

    in direction d:  positions on side d                                whole: their exits may not fill
                   − positions on the other side, without what an exit is working on: that may be gone
                   + working entries on side d                          whole; those on the other side may not fill

Positions are valued at marks; an entry at the mark or at the mid of its decision, whichever is dearer. A pending order
of which neither is known (a stranger's, in a symbol without a market) cannot be valued: nothing is added beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import ROUND_CEILING, Decimal

import msgspec

from shared.strategy.clusters import Cluster
from shared.strategy.exact import ZERO, divided_up
from shared.strategy.orders import Order
from shared.strategy.portfolio import Holding
from shared.types import Side

MARGIN_STEP = Decimal("1e-12")


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """What we hold and have asked for, as an order of one side in one symbol finds it. USDT."""

    equity_usdt: Decimal
    gross_usdt: Decimal  # positions and working entries, absolute
    margin_usdt: Decimal  # that they need, each at its symbol's leverage
    symbol_usdt: Decimal  # of the symbol in question, absolute
    net_usdt: Decimal  # worst case on the order's side; < 0: the other side prevails
    cluster_usdt: Decimal  # likewise, of the symbol's cluster
    unpriced: str = ""  # a symbol in which something works that cannot be valued; "": there is none


def margin_of(notional_usdt: Decimal, leverage: int) -> Decimal:
    """Return the margin that a notional needs, up to whole 1e-12 USDT: sums of it are exact."""
    return divided_up(notional_usdt, Decimal(leverage)).quantize(MARGIN_STEP, rounding=ROUND_CEILING)


class Exposures:
    """The sums, kept up while the orders of one decision are added. Made afresh for every decision.

    Args:
        price_of: mark of a symbol, None where it is not known.
        leverage: as obtained; a symbol without one counts as 1x.
        clusters: of every listed symbol; a position in another one counts as an alt.
    """

    def __init__(
        self,
        equity_usdt: Decimal,
        holdings: Iterable[Holding],
        working: Iterable[Order],
        *,
        price_of: Callable[[str], Decimal | None],
        leverage: Mapping[str, int],
        clusters: Mapping[str, Cluster],
    ) -> None:
        self._equity = equity_usdt
        self._leverage, self._clusters = leverage, clusters
        self._gross = ZERO
        self._at_leverage: dict[int, Decimal] = {}  # notional of the symbols that have it: divided once, at the end
        self._symbol: dict[str, Decimal] = {}
        # Cluster -> worst case when looked at from (the buy side, the sell side).
        self._worst: dict[Cluster, list[Decimal]] = {cluster: [ZERO, ZERO] for cluster in Cluster}
        self._unpriced = ""
        leaving: dict[str, Decimal] = {}
        for order in working:
            if order.reduce_only:
                leaving[order.symbol] = leaving.get(order.symbol, ZERO) + order.remaining
                continue
            known = [price for price in (price_of(order.symbol), order.mid) if price is not None]
            if not known:
                self._unpriced = order.symbol
            else:
                self.add(order.symbol, order.side, order.remaining * max(known))
        self._hold_all(holdings, leaving)

    def add(self, symbol: str, side: Side, notional_usdt: Decimal) -> None:
        """Count an entry that may fill."""
        self._sum(symbol, notional_usdt)
        self._worst[self._cluster(symbol)][0 if side is Side.BUY else 1] += notional_usdt

    def _hold_all(self, holdings: Iterable[Holding], leaving: Mapping[str, Decimal]) -> None:
        """Count positions, less what exits work on where they stand against an order."""
        for holding in holdings:
            symbol, notional = holding.symbol, holding.notional_usdt
            self._sum(symbol, notional)
            stays = notional
            if leaves := leaving.get(symbol):
                size = abs(holding.size)
                stays = notional * max(size - leaves, ZERO) / size
            worst = self._worst[self._cluster(symbol)]
            mine, other = (0, 1) if holding.size > 0 else (1, 0)
            worst[mine] += notional
            worst[other] -= stays

    def _sum(self, symbol: str, notional_usdt: Decimal) -> None:
        self._gross += notional_usdt
        leverage = self._leverage.get(symbol, 1)
        self._at_leverage[leverage] = self._at_leverage.get(leverage, ZERO) + notional_usdt
        self._symbol[symbol] = self._symbol.get(symbol, ZERO) + notional_usdt

    def _cluster(self, symbol: str) -> Cluster:
        return self._clusters.get(symbol, Cluster.ALTS)

    def of(self, symbol: str, side: Side) -> Exposure:
        """Return what an order of this side in this symbol comes on top of."""
        k = 0 if side is Side.BUY else 1
        margin = net = ZERO
        for leverage, usdt in self._at_leverage.items():
            margin += margin_of(usdt, leverage)
        for worst in self._worst.values():
            net += worst[k]
        return Exposure(
            equity_usdt=self._equity,
            gross_usdt=self._gross,
            margin_usdt=margin,
            symbol_usdt=self._symbol.get(symbol, ZERO),
            net_usdt=net,
            cluster_usdt=self._worst[self._cluster(symbol)][k],
            unpriced=self._unpriced,
        )
