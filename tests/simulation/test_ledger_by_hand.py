"""A ledger calculated by hand: every figure of these tables was worked out on paper, none by the code it judges.

Three accounts are compared after every row, each to the last digit (a stricter bound than 1e-8): the paper's, the
simulator's (`shared.simulator.venue`) and the strategy's (`shared.strategy.portfolio`), which hears the venue's fills
and bills and nothing else.

The rules that the paper follows:

    fee        price x size x 0.0006, cut to 8 decimals
    realised   closed size x (exit - average entry), short the other way round
    funding    - size x mark x rate at each full hour of the contract's interval (UTC), cut to 8 decimals towards zero
    liquidated isolated: margin + profit <= value x (maintenance rate 0.01 + taker fee 0.0006); crossed: the same of all
               that is crossed; taken over at the price that leaves nothing after the liquidation fee of 0.0006
"""

from __future__ import annotations

from decimal import Decimal

import pytest

from shared.simulator.venue.orders import Accepted, Fill, FundingReport, OrderRequest
from shared.simulator.venue.venue import Venue
from shared.strategy.portfolio import Portfolio, Trade
from shared.types import NS, Cause, Filled, OrderKind, Side
from tests.shared.strategy.made import D, contract

MIDNIGHT_S = 1_760_000_000 // 86_400 * 86_400
US = "us"
FINE = {"tick": D("1E-9"), "size_step": D(1), "size_min": D(1)}
LISTED = [
    contract("EIGHTUSDT", funding_interval_h=8),
    contract("FOURUSDT", funding_interval_h=4),
    contract("ONEUSDT", funding_interval_h=1),
    contract("PENNYUSDT", funding_interval_h=1, **FINE),
]


class Paper:
    """One account at the venue and in the ledger, and what the paper says of it."""

    def __init__(self, deposit: str, leverage: int = 10, begins_at: str = "22:30") -> None:
        self.venue = Venue(LISTED)
        self.venue.open_account(US, D(deposit))
        for listed in LISTED:
            self.venue.set_leverage(US, listed.symbol, leverage)
        self.now_ns = 0
        self.at(begins_at, day=-1)
        self.ledger = Portfolio()
        self.ledger.adopt(D(deposit), (), self.now_ns, 0)
        self.deposit = D(deposit)
        self.realised = self.fees = self.funding = D(0)
        self.trades: list[Trade] = []

    def at(self, clock: str, day: int = 0) -> None:
        """Let it be so late (UTC); funding of the hours that have passed is settled."""
        hours, minutes = clock.split(":")
        self.now_ns = (MIDNIGHT_S + day * 86_400 + int(hours) * 3600 + int(minutes) * 60) * NS
        self.venue.settle_funding(self.now_ns)

    def mark(self, symbol: str, price: str, rate: str = "0") -> None:
        """Show a mark and the funding rate that holds with it; what it liquidates is liquidated."""
        self.ledger.mark(symbol, D(price))
        self.venue.set_mark(symbol, D(price), D(price), float(rate), self.now_ns)

    def trade(self, side: Side, symbol: str, size: str, price: str) -> None:
        """Take from a book that holds enough at one price."""
        self.venue.set_book(symbol, [(D(price), D(10**6))], [(D(price), D(10**6))], self.now_ns)
        request = OrderRequest(symbol=symbol, side=side, kind=OrderKind.MARKET, size=D(size))
        assert isinstance(self.venue.place(US, request, self.now_ns), Accepted)

    def says(self, *, realised: str = "0", fee: str = "0", funding: str = "0") -> None:
        """Hold venue and ledger to the paper: by how much each sum has moved since the last row, and equity."""
        self.fold()
        self.realised += D(realised)
        self.fees += D(fee)
        self.funding += D(funding)
        ours = (self.ledger.realised_usdt, self.ledger.fees_usdt, self.ledger.funding_usdt)
        assert ours == (self.realised, self.fees, self.funding)
        assert self.venue.totals(US)[1:] == ours
        wallet = self.deposit + self.realised - self.fees + self.funding
        assert (self.ledger.balance_usdt, self.venue.balance(US)) == (wallet, wallet)
        assert self.ledger.equity_usdt == self.venue.equity(US) == wallet + self.ledger.unrealised_usdt

    def fold(self) -> None:
        for event in self.venue.drain():
            if isinstance(event, Fill):
                self.trades += self.ledger.fill(
                    Filled(
                        recv_ns=event.time_ns, client_oid=event.client_oid, order_id=event.order_id,
                        trade_id=event.trade_id, symbol=event.symbol, side=event.side, price=event.price,
                        size=event.size, fee_usdt=event.fee_usdt, is_maker=event.is_maker, exch_ns=event.time_ns,
                    ),
                    cause=Cause.ENTRY, second=0, quote=None, mark=self.venue.mark(event.symbol),
                )  # fmt: skip
            elif isinstance(event, FundingReport):
                self.ledger.pay_funding(event.symbol, event.amount_usdt)


def test_a_night_in_three_funding_intervals_with_partial_closes_and_a_flip() -> None:
    """From 22:30 to 09:00 with 1 000 USDT, long and short; each hour pays the intervals that divide it.

    UTC     what                      fee                     realised              funding
    22:30   buy  10 ONE   at 20       200 x .0006 = .12
    22:30   sell  5 FOUR  at 40       200 x .0006 = .12
    22:30   buy   2 EIGHT at 150      300 x .0006 = .18
    23:00   ONE at 20.50, +.0001                                                    -10 x 20.50 x .0001  = -.0205
    23:30   sell  4 ONE   at 21        84 x .0006 = .0504     4 x (21-20)   = +4
    00:00   ONE at 21.25, +.0002                                                    - 6 x 21.25 x .0002  = -.0255
            FOUR at 39,   -.0003                                                    + 5 x 39 x -.0003    = -.0585
            EIGHT at 151, +.00015                                                   - 2 x 151 x .00015   = -.0453
    00:30   buy   8 FOUR  at 38.5     308 x .0006 = .1848     5 x (40-38.5) = +7.5  (now long 3 at 38.5)
    01:00   ONE at 21.10, -.0001                                                    - 6 x 21.10 x -.0001 = +.01266
    01:30   sell  6 ONE   at 20.75  124.5 x .0006 = .0747     6 x (20.75-20) = +4.5
    04:00   FOUR at 38,   +.0004                                                    - 3 x 38 x .0004     = -.0456
    05:00   sell  3 FOUR  at 39       117 x .0006 = .0702     3 x (39-38.5) = +1.5
    08:00   EIGHT at 149, -.0002                                                    - 2 x 149 x -.0002   = +.0596
    09:00   sell  2 EIGHT at 148      296 x .0006 = .1776     2 x (148-150) = -4
                                      .9777                   +13.5                 -.12314
    1 000 + 13.5 - .9777 - .12314 = 1 012.39916
    """
    paper = Paper("1000")
    for side, symbol, size, price in (
        (Side.BUY, "ONEUSDT", "10", "20"), (Side.SELL, "FOURUSDT", "5", "40"), (Side.BUY, "EIGHTUSDT", "2", "150"),
    ):  # fmt: skip
        paper.trade(side, symbol, size, price)
    paper.says(fee="0.42")
    paper.mark("ONEUSDT", "20.50", "0.0001")
    paper.mark("FOURUSDT", "41", "0.01")  # no settlement of theirs: these rates pay nothing
    paper.mark("EIGHTUSDT", "152", "0.01")
    paper.says()
    paper.at("23:00", day=-1)
    paper.says(funding="-0.0205")
    paper.at("23:30", day=-1)
    paper.trade(Side.SELL, "ONEUSDT", "4", "21")
    paper.says(fee="0.0504", realised="4")

    paper.mark("ONEUSDT", "21.25", "0.0002")
    paper.mark("FOURUSDT", "39", "-0.0003")
    paper.mark("EIGHTUSDT", "151", "0.00015")
    paper.at("00:00")
    paper.says(funding="-0.1293")  # -.0255 - .0585 - .0453
    paper.at("00:30")
    paper.trade(Side.BUY, "FOURUSDT", "8", "38.5")
    paper.says(fee="0.1848", realised="7.5")
    paper.mark("ONEUSDT", "21.10", "-0.0001")
    paper.at("01:00")
    paper.says(funding="0.01266")
    paper.at("01:30")
    paper.trade(Side.SELL, "ONEUSDT", "6", "20.75")
    paper.says(fee="0.0747", realised="4.5")

    paper.mark("FOURUSDT", "38", "0.0004")
    paper.at("04:00")
    paper.says(funding="-0.0456")
    paper.at("05:00")
    paper.trade(Side.SELL, "FOURUSDT", "3", "39")
    paper.says(fee="0.0702", realised="1.5")
    paper.mark("EIGHTUSDT", "149", "-0.0002")
    paper.at("08:00")
    paper.says(funding="0.0596")
    paper.at("09:00")
    paper.trade(Side.SELL, "EIGHTUSDT", "2", "148")
    paper.says(fee="0.1776", realised="-4")

    assert (paper.realised, paper.fees, paper.funding) == (D("13.5"), D("0.9777"), D("-0.12314"))
    assert paper.ledger.equity_usdt == D("1012.39916")
    four_short, one, four_long, eight = paper.trades
    assert one.net_usdt == D("8.5") - (D("0.12") + D("0.0504") + D("0.0747")) - D("0.0205") - D("0.0255") + D("0.01266")
    # Of the .1848 that the flip cost, 5/8 closed the short and 3/8 opened the long.
    assert four_short.net_usdt == D("7.5") - D("0.12") - D("0.1155") - D("0.0585")
    assert four_long.net_usdt == D("1.5") - D("0.0693") - D("0.0702") - D("0.0456")
    assert eight.net_usdt == -4 - D("0.18") - D("0.1776") - D("0.0453") + D("0.0596")
    assert sum(trade.net_usdt for trade in paper.trades) == D("12.39916")


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_pennies_are_cut_where_the_exchange_cuts_them(side: Side) -> None:
    """70 000 at 0.000123457, funding at 0.0001234 and a rate of .000137, closed at 0.000123999.

    in       70 000 x .000123457 = 8.64199;  x .0006 = .005185194 -> .00518519
    funding  70 000 x .0001234   = 8.638;    x .000137 = .001183406 -> .0011834, paid long, received short
    out      70 000 x .000123999 = 8.67993;  x .0006 = .005207958 -> .00520795
    realised 70 000 x .000000542 = .03794, won long, lost short
    """
    paper, sign = Paper("100"), side.sign
    paper.trade(side, "PENNYUSDT", "70000", "0.000123457")
    paper.says(fee="0.00518519")
    paper.mark("PENNYUSDT", "0.0001234", "0.000137")
    paper.at("23:00", day=-1)
    paper.says(funding=str(-sign * D("0.0011834")))
    paper.trade(side.opposite, "PENNYUSDT", "70000", "0.000123999")
    paper.says(fee="0.00520795", realised=str(sign * D("0.03794")))

    [trade] = paper.trades
    assert trade.net_usdt == sign * (D("0.03794") - D("0.0011834")) - D("0.01039314")


class Isolated:
    """An isolated position of 50 at 20, 10x: value 1 000, margin 100, fee 0.6."""

    def __init__(self, side: Side) -> None:
        self.paper = Paper("1000")
        assert self.paper.venue.set_margin_mode(US, "ONEUSDT", "isolated") is None
        self.paper.mark("ONEUSDT", "20")
        self.paper.trade(side, "ONEUSDT", "50", "20")
        self.paper.says(fee="0.6")
        assert self.paper.venue.isolated_margin(US) == 100


@pytest.mark.parametrize(
    ("side", "holds", "falls", "price", "realised", "fee", "left"),
    [
        (Side.BUY, "18.20", "18.19", "18.010807", "-99.45965", "0.54032421", "899.40002579"),
        (Side.SELL, "21.76", "21.77", "21.986807", "-99.34035", "0.65960421", "899.40004579"),
    ],
)
def test_an_isolated_position_loses_its_margin_and_no_more(
    side: Side, holds: str, falls: str, price: str, realised: str, fee: str, left: str
) -> None:
    """50 at 20 with a margin of 100, in an account of 1 000.

                       long                                    short
    maintenance at m   50 m x .0106 = .53 m                    .53 m
    lost where         100 + 50 (m-20) <= .53 m: m <= 18.1928  100 - 50 (m-20) <= .53 m: m >= 21.7692
    left at the edge   18.20: 10 > 9.646, 18.19: 9.5 < 9.6407  21.76: 12 > 11.5328, 21.77: 11.5 < 11.5381
    worth              1 000 - 100 = 900                       1 000 + 100 = 1 100
    bankrupt at        900 / (50 x .9994) = 18.0108064...      1 100 / (50 x 1.0006) = 21.9868079...
      a ten-thousandth of a tick, so that not less than nothing is left
                       18.010807                               21.986807
    realised           50 x (18.010807-20) = -99.45965         50 x (20-21.986807) = -99.34035
    liquidation fee    900.54035 x .0006 = .54032421           1 099.34035 x .0006 = .65960421
    wallet             1 000 - .6 - 99.45965 - .54032421       1 000 - .6 - 99.34035 - .65960421
                       = 899.40002579                          = 899.40004579
    """
    paper = Isolated(side).paper
    paper.mark("ONEUSDT", holds)
    paper.says()
    assert paper.venue.positions(US)

    paper.mark("ONEUSDT", falls)
    paper.says(realised=realised, fee=fee)

    assert not paper.venue.positions(US)
    assert paper.ledger.equity_usdt == paper.venue.equity(US) == D(left)
    [trade] = paper.trades
    assert trade.exit_price == D(price)
    assert trade.net_usdt == D(realised) - D(fee) - D("0.6")


def test_funding_eats_the_margin_of_an_isolated_position() -> None:
    """At 23:00 the long pays 50 x 20 x .0005 = .5 of its margin: 99.5 are left, and bankruptcy comes earlier.

    worth 1 000 - 99.5 = 900.5;  900.5 / 49.97 = 18.0208124... -> 18.020813
    lost where 99.5 + 50 (m-20) <= .53 m: m <= 18.2029;  18.21: 10 > 9.6513, 18.20: 9.5 < 9.646
    realised 50 x (18.020813-20) = -98.95935;  fee 901.04065 x .0006 = .54062439
    wallet   1 000 - .6 - .5 - 98.95935 - .54062439 = 899.40002561
    """
    paper = Isolated(Side.BUY).paper
    paper.mark("ONEUSDT", "20", "0.0005")
    paper.at("23:00", day=-1)
    paper.says(funding="-0.5")
    paper.mark("ONEUSDT", "18.21")
    assert paper.venue.positions(US)
    paper.mark("ONEUSDT", "18.20")
    paper.says(realised="-98.95935", fee="0.54062439")

    assert paper.ledger.equity_usdt == paper.venue.equity(US) == D("899.40002561")


def test_a_crossed_account_is_lost_as_a_whole_and_owes_nothing() -> None:
    """120 USDT, long 40 ONE at 20 and short 10 FOUR at 40, crossed, 20x.

    in       fees 800 x .0006 = .48 and 400 x .0006 = .24; wallet 119.28
    marks    FOUR 41: -10;  ONE 17.60: -96:  equity 13.28 > (704 + 410) x .0106 = 11.8084
             ONE 17.55: -98: equity 11.28 < (702 + 410) x .0106 = 11.7872: lost
    ONE is the larger and goes first, with its share of the equity by value:
             11.28 x 702 / 1 112 = 7.121007194244...
             worth 702 - 7.121007194244 = 694.878992805756;  / (40 x .9994) = 17.3824042... -> 17.382405
             realised 40 x (17.382405-20) = -104.7038;  fee 695.2962 x .0006 = .41717772
             wallet 119.28 - 104.7038 - .41717772 = 14.15902228
    FOUR gets what is left: 14.15902228 - 10 = 4.15902228
             worth 410 + 4.15902228 = 414.15902228;  / (10 x 1.0006) = 41.3910675... -> 41.391067
             realised 10 x (40-41.391067) = -13.91067;  fee 413.91067 x .0006 = .248346402 -> .2483464
             wallet 14.15902228 - 13.91067 - .2483464 = .00000588
    """
    paper = Paper("120", leverage=20)
    paper.mark("ONEUSDT", "20")
    paper.mark("FOURUSDT", "40")
    paper.trade(Side.BUY, "ONEUSDT", "40", "20")
    paper.trade(Side.SELL, "FOURUSDT", "10", "40")
    paper.says(fee="0.72")
    paper.mark("FOURUSDT", "41")
    paper.mark("ONEUSDT", "17.60")
    paper.says()
    assert len(paper.venue.positions(US)) == 2
    assert paper.ledger.equity_usdt == D("13.28")

    paper.mark("ONEUSDT", "17.55")
    paper.says(realised=str(D("-104.7038") - D("13.91067")), fee=str(D("0.41717772") + D("0.2483464")))

    assert not paper.venue.positions(US)
    assert [trade.exit_price for trade in paper.trades] == [D("17.382405"), D("41.391067")]
    assert paper.ledger.equity_usdt == paper.venue.equity(US) == D("0.00000588")
    assert paper.ledger.equity_usdt == Decimal(120) + sum(trade.net_usdt for trade in paper.trades)
