"""When the exchange is believed: equal readings for a while, nothing moving, equity only while flat."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from shared.strategy.orders import Order, Orders, Told
from shared.strategy.portfolio import Portfolio
from shared.strategy.truth import LISTED_LATE_NS, MISSING_FILLS_PATIENCE_NS, Truth
from shared.types import NS, Action, Adopted, Cause, OrderKind, PlaceOrder, Position, QueryAccount, Side
from tests.shared.strategy.made import D

SYMBOL = "AAAUSDT"
READ_EVERY_NS = 2 * NS


class Bench:
    def __init__(self) -> None:
        self.portfolio, self.orders = Portfolio(), Orders()
        self.emitted: list[Action] = []
        self.truth = Truth(self.portfolio, self.orders, self.emitted.append)
        self.now_ns = NS
        self.portfolio.adopt(D(1000), (), 0, 0)

    def read(self, size: Decimal, equity: Decimal = D(1000)) -> None:  # noqa: B008 - a Decimal does not change
        self.now_ns += READ_EVERY_NS
        held = (Position(symbol=SYMBOL, size=size, entry_price=D(10)),) if size else ()
        reading = Adopted(
            recv_ns=self.now_ns, equity_usdt=equity, available_usdt=equity, positions=held, orders=(), leverage={}
        )
        self.truth.compare(reading, self.now_ns)

    def work(self) -> Order:
        place = PlaceOrder(
            client_oid="o", symbol=SYMBOL, side=Side.BUY, kind=OrderKind.MARKET, size=D(2), price=None,
            reduce_only=False, stop_price=None, cause=Cause.ENTRY,
        )  # fmt: skip
        order = Order(place, sent_ns=self.now_ns, decision=1, mid=None, half_spread=None)
        self.orders.add(order)
        return order

    @property
    def asked(self) -> int:
        return sum(isinstance(action, QueryAccount) for action in self.emitted)


@given(st.lists(st.sampled_from([D(0), D(1), D(2), D(-1)]), max_size=12))
def test_the_ledger_follows_only_what_every_reading_said_for_a_while(readings: list[Decimal]) -> None:
    """With nothing working, the ledger takes a size exactly when all readings of five seconds differ from it alike."""
    bench, expected = Bench(), D(0)
    suspect: tuple[Decimal, int] | None = None
    for size in readings:
        now_ns = bench.now_ns + READ_EVERY_NS
        if size == expected:
            suspect = None
        elif suspect is None or suspect[0] != size:
            suspect = size, now_ns
        elif now_ns - suspect[1] >= LISTED_LATE_NS:
            expected, suspect = size, None

        bench.read(size)

        assert bench.portfolio.size(SYMBOL) == expected
        assert (SYMBOL in bench.truth.doubts) == (suspect is not None)


def test_a_position_that_is_listed_late_is_waited_for() -> None:
    """Positions that are seconds behind their fills leave the ledger as the fills made it, and the doubt ends."""
    bench = Bench()
    for _ in range(int(LISTED_LATE_NS // READ_EVERY_NS)):
        bench.read(D(2))
        assert bench.truth.doubts

    bench.read(D(0))

    assert bench.truth.is_sure
    assert bench.portfolio.size(SYMBOL) == 0
    assert bench.portfolio.adjustments_usdt == 0


def test_nothing_is_corrected_while_an_order_could_still_fill() -> None:
    """However often the exchange says otherwise, a working order in the symbol explains it until it is final."""
    bench = Bench()
    order = bench.work()
    for _ in range(5):
        bench.read(D(2))
    assert bench.portfolio.size(SYMBOL) == 0

    order.reported_filled = D(2)
    bench.orders.tell(order, Told.FILLED, bench.now_ns)
    for _ in range(3):
        bench.read(D(2))

    assert bench.portfolio.size(SYMBOL) == 2
    assert not bench.orders.n_working  # what it filled is in the correction
    assert not bench.truth.is_sure


def test_equity_is_corrected_while_flat_after_two_readings() -> None:
    """A difference of equity that stays is taken over as an adjustment once, and said aloud."""
    bench = Bench()
    bench.read(D(0), D("999.5"))
    assert bench.portfolio.equity_usdt == 1000
    bench.read(D(0), D("999.5"))

    assert bench.portfolio.equity_usdt == D("999.5")
    assert bench.portfolio.adjustments_usdt == D("-0.5")


def test_account_is_asked_at_most_every_two_seconds() -> None:
    """Many doubts in one second are one question, and the question is repeated while they last."""
    bench = Bench()
    for name in ("A", "B", "C"):
        bench.truth.doubt(name, "test", bench.now_ns)
    assert bench.asked == 1
    for _ in range(6):
        bench.now_ns += NS
        bench.truth.keep_asking(bench.now_ns)

    assert bench.asked == 4


def test_missing_fills_are_doubted_and_waived_where_the_position_agrees() -> None:
    """A final order whose fills never come is asked about after its patience, and closed once the sizes agree."""
    bench = Bench()
    order = bench.work()
    order.reported_filled = D(1)
    bench.orders.tell(order, Told.CANCELED, bench.now_ns)
    bench.now_ns += MISSING_FILLS_PATIENCE_NS
    bench.truth.keep_asking(bench.now_ns)
    assert SYMBOL in bench.truth.doubts

    bench.read(D(0))

    assert not bench.truth.doubts
    assert not bench.orders.n_working
