"""The worst case against every case: all subsets of what may fill, counted one by one in fractions."""

from __future__ import annotations

import itertools
from decimal import Decimal
from fractions import Fraction

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.strategy.clusters import Cluster, clusters_of
from shared.strategy.exact import EXACT, exactly
from shared.strategy.exposure import Exposures
from shared.strategy.orders import Order
from shared.strategy.portfolio import Holding
from shared.types import Cause, OrderKind, PlaceOrder, Side, Universe
from tests.shared.strategy.made import D, contract

PRICES = {"BTCUSDT": D(100), "ETHUSDT": D("20.5"), "AAAUSDT": D(3), "GOLDUSDT": D(7)}
LISTED = Universe(source="x", as_of_ns=0, contracts=tuple(contract(s, is_rwa=s == "GOLDUSDT") for s in sorted(PRICES)))
CLUSTERS = dict(zip(LISTED.symbols, clusters_of(LISTED), strict=True))
LEVERAGE = {"BTCUSDT": 5, "ETHUSDT": 3, "AAAUSDT": 1}  # GOLDUSDT was not confirmed: 1x


class Asked(msgspec.Struct, frozen=True):
    """A working order, for the test's own books."""

    symbol: str
    side: Side
    size: Decimal
    is_exit: bool


SYMBOLS = st.sampled_from(sorted(PRICES))
SIZES = st.decimals(min_value=D("0.1"), max_value=50, places=1)
HELD = st.dictionaries(SYMBOLS, st.tuples(st.sampled_from([1, -1]), SIZES), max_size=3)
ENTRIES = st.lists(st.builds(Asked, SYMBOLS, st.sampled_from(Side), SIZES, st.just(False)), max_size=4)


def order(asked: Asked, number: int) -> Order:
    place = PlaceOrder(
        client_oid=str(number), symbol=asked.symbol, side=asked.side, kind=OrderKind.MARKET, size=asked.size,
        price=None, reduce_only=asked.is_exit, stop_price=None,
        cause=Cause.HORIZON if asked.is_exit else Cause.ENTRY,
    )  # fmt: skip
    return Order(place, sent_ns=0, decision=0, mid=PRICES[asked.symbol], half_spread=D("0.01"))


def holding(symbol: str, sign: int, size: Decimal) -> Holding:
    held = Holding(symbol, Side.BUY if sign > 0 else Side.SELL, entry_ns=0, entry_second=0, cause=Cause.ENTRY)
    held.size, held.mark = sign * size, PRICES[symbol]
    return held


@settings(max_examples=60)
@given(HELD, ENTRIES, st.sets(SYMBOLS), SYMBOLS, st.sampled_from(Side))
@exactly
def test_no_subset_of_fills_is_worse_than_the_worst_case(
    held: dict[str, tuple[int, Decimal]], entries: list[Asked], leaving: set[str], symbol: str, side: Side
) -> None:
    """Of all ways in which the working orders can fill or not, none has more net on the order's side, more in its cluster,
    or more gross, margin or notional in a symbol than what the limits are asked with; and one of them has just that."""
    exits = [
        Asked(s, Side.SELL if held[s][0] > 0 else Side.BUY, held[s][1], True) for s in sorted(leaving) if s in held
    ]
    asked = entries + exits
    working = [order(one, k) for k, one in enumerate(asked)]

    found = Exposures(
        D(1000), [holding(s, *h) for s, h in held.items()], working, price_of=PRICES.get, leverage=LEVERAGE,
        clusters=CLUSTERS,
    ).of(symbol, side)  # fmt: skip

    nets, clusters, grosses, margins, symbols = ([] for _ in range(5))  # type: ignore[var-annotated]
    for fills in itertools.product((False, True), repeat=len(asked)):
        # Entries beside positions: an entry against a position is counted as risk, never as relief.
        net, cluster, gross, margin, mine = (Fraction(0) for _ in range(5))
        gone = {one.symbol for one, is_filled in zip(asked, fills, strict=True) if one.is_exit and is_filled}
        parts = [(s, sign, size) for s, (sign, size) in held.items() if s not in gone]
        parts += [
            (one.symbol, one.side.sign, one.size)
            for one, is_filled in zip(asked, fills, strict=True)
            if not one.is_exit and is_filled
        ]
        for where, sign, size in parts:
            usdt = Fraction(size) * Fraction(PRICES[where])
            net += usdt * sign * side.sign
            cluster += usdt * sign * side.sign if CLUSTERS[where] is CLUSTERS[symbol] else 0
            gross += usdt
            margin += usdt / LEVERAGE.get(where, 1)
            mine += usdt if where == symbol else 0
        for row, value in zip(
            (nets, clusters, grosses, margins, symbols), (net, cluster, gross, margin, mine), strict=True
        ):
            row.append(value)
    assert Fraction(found.net_usdt) == max(nets)
    assert Fraction(found.cluster_usdt) == max(clusters)
    assert Fraction(found.gross_usdt) == max(grosses)
    assert Fraction(found.symbol_usdt) == max(symbols)
    assert 0 <= Fraction(found.margin_usdt) - max(margins) <= Fraction(4, 10**12)


@given(HELD, ENTRIES, SYMBOLS, st.sampled_from(Side))
def test_adding_an_entry_is_as_if_it_had_worked_before(
    held: dict[str, tuple[int, Decimal]], entries: list[Asked], symbol: str, side: Side
) -> None:
    """The sums that are kept up within a decision are those that the next decision would find."""
    holdings = [holding(s, *h) for s, h in held.items()]
    with_all, grown = (
        Exposures(D(1000), holdings, working, price_of=PRICES.get, leverage=LEVERAGE, clusters=CLUSTERS)
        for working in ([order(one, k) for k, one in enumerate(entries)], [])
    )

    for one in entries:
        grown.add(one.symbol, one.side, EXACT.multiply(one.size, PRICES[one.symbol]))

    assert grown.of(symbol, side) == with_all.of(symbol, side)


def test_an_order_without_any_price_is_named() -> None:
    """A stranger's market order in a symbol that has no mark cannot be counted: nobody may add to it."""
    stranger = order(Asked("AAAUSDT", Side.BUY, D(1), False), 1)
    stranger.mid = None

    found = Exposures(D(1), [], [stranger], price_of=lambda symbol: None, leverage={}, clusters=CLUSTERS)

    assert found.of("BTCUSDT", Side.BUY).unpriced == "AAAUSDT"


def test_clusters_are_what_the_listing_says() -> None:
    """BTC and ETH lead, stocks and metals are another market, everything else falls together."""
    assert CLUSTERS == {
        "BTCUSDT": Cluster.MAJORS, "ETHUSDT": Cluster.MAJORS, "AAAUSDT": Cluster.ALTS, "GOLDUSDT": Cluster.RWA
    }  # fmt: skip
