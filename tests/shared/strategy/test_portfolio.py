"""The ledger against a hand calculation and against an independent one in fractions."""

from __future__ import annotations

from decimal import Context, Decimal, localcontext
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from shared.strategy.portfolio import Portfolio, Quote
from shared.types import Cause, Filled, Position, Side
from tests.shared.strategy.made import D

SYMBOLS = ("AUSDT", "BUSDT")

STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("fill"),
            st.sampled_from(SYMBOLS),
            st.sampled_from(Side),
            st.decimals(min_value=1, max_value=70_000, places=4),
            st.decimals(min_value=D("0.001"), max_value=50, places=3),
        ),
        st.tuples(st.just("mark"), st.sampled_from(SYMBOLS), st.decimals(min_value=1, max_value=70_000, places=6)),
        st.tuples(st.just("funding"), st.sampled_from(SYMBOLS), st.decimals(min_value=-5, max_value=5, places=8)),
    ),
    max_size=40,
)


def filled(
    symbol: str, side: Side, price: Decimal, size: Decimal, fee: Decimal | None = None, at_ns: int = 0
) -> Filled:
    cost = fee if fee is not None else (price * size * D("0.0006")).quantize(D("1e-8"))
    return Filled(
        recv_ns=at_ns, client_oid="c", order_id="o", trade_id="t", symbol=symbol, side=side, price=price, size=size,
        fee_usdt=cost, is_maker=False, exch_ns=at_ns,
    )  # fmt: skip


class Naive:
    """The same account in exact fractions, with nothing but the definition: cash and positions at marks."""

    def __init__(self) -> None:
        self.cash = Fraction(10_000)
        self.size = dict.fromkeys(SYMBOLS, Fraction(0))
        self.mark = dict.fromkeys(SYMBOLS, Fraction(0))

    @property
    def equity(self) -> Fraction:
        return self.cash + sum(self.size[s] * self.mark[s] for s in SYMBOLS)


@given(STEPS)
def test_equity_equals_the_definition_and_its_parts(steps: list[tuple[object, ...]]) -> None:
    """After every fill, mark and funding: equity is cash and positions at marks, and start + realised − fees + funding
    + unrealised, both exactly; round trips add up to it when flat."""
    ledger, naive, trades = Portfolio(), Naive(), []
    ledger.adopt(D(10_000), (), 0, 0)
    for step in steps:
        match step:
            case ("fill", str(symbol), Side() as side, Decimal() as price, Decimal() as size):
                event = filled(symbol, side, price, size)
                trades += ledger.fill(event, cause=Cause.ENTRY, second=0, quote=None, mark=price)
                if naive.size[symbol] == 0 or symbol not in ledger.holdings:
                    naive.mark[symbol] = Fraction(price)
                before = naive.size[symbol]
                naive.size[symbol] += side.sign * Fraction(size)
                if before * naive.size[symbol] < 0:
                    naive.mark[symbol] = Fraction(price)  # a flip opens a new position, valued by its fill
                naive.cash -= side.sign * Fraction(price) * Fraction(size) + Fraction(event.fee_usdt)
            case ("mark", str(symbol), Decimal() as price):
                ledger.mark(symbol, price)
                if naive.size[symbol]:
                    naive.mark[symbol] = Fraction(price)
            case ("funding", str(symbol), Decimal() as amount):
                ledger.pay_funding(symbol, amount)
                naive.cash += Fraction(amount)

        assert Fraction(ledger.equity_usdt) == naive.equity
        assert ledger.equity_usdt == ledger.balance_usdt + ledger.unrealised_usdt
        assert {s: Fraction(ledger.size(s)) for s in SYMBOLS} == naive.size

    for trade in trades:
        costs = trade.spread_usdt + trade.slippage_usdt + trade.fees_usdt
        assert abs(trade.gross_usdt - costs + trade.funding_usdt - trade.net_usdt) <= D("1e-15")


@given(STEPS)
def test_ledger_ignores_the_callers_context(steps: list[tuple[object, ...]]) -> None:
    """A thread with three digits of precision books the same money."""

    def book() -> str:
        ledger = Portfolio()
        ledger.adopt(D(10_000), (), 0, 0)
        for step in steps:
            match step:
                case ("fill", str(symbol), Side() as side, Decimal() as price, Decimal() as size):
                    event = filled(symbol, side, price, size, D("0.1"))
                    ledger.fill(event, cause=Cause.ENTRY, second=0, quote=None, mark=None)
                case ("mark", str(symbol), Decimal() as price):
                    ledger.mark(symbol, price)
                case ("funding", str(symbol), Decimal() as amount):
                    ledger.pay_funding(symbol, amount)
        return f"{ledger.equity_usdt} {ledger.balance_usdt} {ledger.unrealised_usdt} {ledger.gross_usdt}"

    rich = book()
    with localcontext(Context(prec=3)):
        assert book() == rich


def test_hand_calculated_long_with_partial_close_flip_and_funding() -> None:
    """Bought 2 at 100 and 1 at 103, sold 1 at 110, then 4 at 90: the averages, realised money and trades by hand."""
    ledger = Portfolio()
    ledger.adopt(D(1000), (), 0, 0)
    quote = Quote(mid=D(100), half_spread=D(0))

    def book(side: Side, price: int, size: int, fee: str) -> list[object]:
        event = filled("AUSDT", side, D(price), D(size), D(fee), at_ns=price)
        return list(ledger.fill(event, cause=Cause.HORIZON, second=1, quote=quote, mark=D(price)))

    book(Side.BUY, 100, 2, "0.12")
    book(Side.BUY, 103, 1, "0.06")
    assert ledger.holdings["AUSDT"].entry_price == D(101)
    book(Side.SELL, 110, 1, "0.066")
    assert ledger.realised_usdt == D(9)
    ledger.pay_funding("AUSDT", D("-0.5"))
    [trade] = ledger.fill(
        filled("AUSDT", Side.SELL, D(90), D(4), D("0.216"), at_ns=90),
        cause=Cause.STOP,
        second=2,
        quote=quote,
        mark=D(90),
    )

    assert ledger.realised_usdt == D(9) + (D(90) - D(101)) * 2
    assert ledger.size("AUSDT") == -2
    assert (trade.size, trade.entry_price, trade.exit_price) == (D(3), D(101), D("96.666666666666666667"))
    assert trade.fees_usdt == D("0.12") + D("0.06") + D("0.066") + D("0.108")  # half of the crossing fill's fee
    assert trade.net_usdt == D(-13) - trade.fees_usdt - D("0.5")
    assert (trade.exit_cause, trade.n_fills) == (Cause.STOP, 4)
    assert ledger.equity_usdt == D(1000) - D(13) - D("0.462") - D("0.5")


def test_waterfall_separates_spread_from_slippage() -> None:
    """Mid 100, touch 100.1, filled at 100.15: half spread .10 and slippage .05 each way, and mid to mid is the rest."""
    ledger = Portfolio()
    ledger.adopt(D(1000), (), 0, 0)
    at_entry, at_exit = Quote(mid=D(100), half_spread=D("0.1")), Quote(mid=D(101), half_spread=D("0.1"))
    ledger.fill(
        filled("AUSDT", Side.BUY, D("100.15"), D(1), D(0)), cause=Cause.ENTRY, second=0, quote=at_entry, mark=None
    )

    [trade] = ledger.fill(
        filled("AUSDT", Side.SELL, D("100.85"), D(1), D(0)), cause=Cause.HORIZON, second=0, quote=at_exit, mark=None
    )

    assert (trade.gross_usdt, trade.spread_usdt, trade.slippage_usdt) == (D(1), D("0.2"), D("0.1"))
    assert trade.net_usdt == D("0.7")
    assert trade.net_bps == 70.0


def test_a_maker_earns_the_half_spread_as_negative_slippage() -> None:
    """A fill at one's own touch pays no spread: counted half spread and slippage cancel twice over."""
    ledger = Portfolio()
    ledger.adopt(D(1000), (), 0, 0)
    quote = Quote(mid=D(100), half_spread=D("0.1"))

    ledger.fill(filled("AUSDT", Side.BUY, D("99.9"), D(1), D(0)), cause=Cause.ENTRY, second=0, quote=quote, mark=None)

    holding = ledger.holdings["AUSDT"]
    assert (holding.spread, holding.slippage) == (D("0.1"), D("-0.2"))


def test_long_and_short_of_a_mirrored_market_earn_the_same() -> None:
    """The same path mirrored around the entry mid gives the same net bps to the opposite side, to the last bit."""
    results = []
    for sign in (1, -1):
        ledger = Portfolio()
        ledger.adopt(D(1000), (), 0, 0)
        enter, leave = (Side.BUY, Side.SELL) if sign > 0 else (Side.SELL, Side.BUY)
        for side, move in ((enter, D("0.1")), (leave, D("0.9"))):
            quote = Quote(mid=100 + (move - D("0.1")) * sign, half_spread=D("0.1"))
            event = filled("AUSDT", side, 100 + move * sign, D(3), D("0.2"))
            trades = ledger.fill(event, cause=Cause.ENTRY, second=0, quote=quote, mark=None)
        results.append((trades[0].net_bps, trades[0].gross_usdt, trades[0].slippage_usdt))

    assert results[0] == results[1]


def test_adopted_position_keeps_equity_continuous() -> None:
    """The first mark after an adoption is the one the exchange's equity was valued at; later ones move it."""
    ledger = Portfolio()
    ledger.adopt(D(1000), (Position(symbol="AUSDT", size=D(-2), entry_price=D(50)),), 0, 0)
    assert ledger.equity_usdt == 1000
    ledger.mark("AUSDT", D(48))
    assert ledger.equity_usdt == 1000
    ledger.mark("AUSDT", D(47))

    assert ledger.equity_usdt == 1002
    assert ledger.unrealised_usdt == 6
    assert ledger.balance_usdt == 996
    [trade] = ledger.fill(
        filled("AUSDT", Side.BUY, D(47), D(2), D(0)), cause=Cause.HORIZON, second=0, quote=None, mark=None
    )
    assert (trade.entry_cause, trade.side, trade.net_usdt) == (Cause.ADOPTED, Side.SELL, D(6))
    assert ledger.equity_usdt == 1002


def test_corrections_keep_the_identity_and_are_counted() -> None:
    """A corrected position closes at our mark, and what equity then differs by is an adjustment, not a profit."""
    ledger = Portfolio()
    ledger.adopt(D(1000), (), 0, 0)
    ledger.fill(filled("AUSDT", Side.BUY, D(100), D(1), D(0)), cause=Cause.ENTRY, second=0, quote=None, mark=D(100))
    ledger.mark("AUSDT", D(99))

    [trade] = ledger.correct_position(Position(symbol="AUSDT", size=D(0), entry_price=D(0)), 5, 1)
    difference = ledger.correct_equity(D("998.4"))

    assert (trade.exit_cause, trade.exit_price) == (Cause.ADOPTED, D(99))
    assert difference == D("-0.6")
    assert ledger.equity_usdt == ledger.balance_usdt == D("998.4")
    assert (ledger.realised_usdt, ledger.adjustments_usdt) == (D(-1), D("-0.6"))
