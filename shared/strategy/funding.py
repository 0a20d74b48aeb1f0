"""Funding that is owed: which settlements the ledger has not been told of, and when to ask for them.

Nobody pushes funding: it is a bill, listed when the exchange settles or some time after. Who held a position at a full
hour at which its contract settles is owed one bill, and asks until it has come:

    settlement at T -> owed -> asked at T + 1 s, every 2 s until T + 10 s, every 10 s until T + 60 s -> given up
                          └── its bill comes: booked, whenever that is

Who held at T is decided by the exchange's clock: a fill is counted on the side of T that its own stamp says, whenever
it was received. Bills that nobody expected (an interval that was changed) are booked all the same; they come with every
reading of the account.
"""

from __future__ import annotations

import math

from shared.strategy.market import Market
from shared.strategy.portfolio import Portfolio
from shared.types import NS, Filled, FundingPaid, Universe

HOUR_NS = 3600 * NS
FIRST_ASKED_NS = 1 * NS
ASKED_OFTEN_NS = 10 * NS
AGAIN_NS = (2 * NS - NS // 2, 10 * NS - NS // 2)  # at first, later: every 2 and 10 s on jittering seconds
PATIENCE_NS = 60 * NS  # also the bound of what a stop waits for
EARLY_NS = 60 * NS  # settlements are an hour apart: a bill stamped this much before T still belongs to T
SKEW_NS = 5 * NS  # a stamp further ahead of our clock says nothing about the time
BILLS_REMEMBERED_MAX = 50_000  # two days of 800 symbols held at every full hour


class Funding:
    """Which settlements are owed, and which bills were seen. Reads the ledger, and does not write to it."""

    def __init__(self, universe: Universe, portfolio: Portfolio, market: Market) -> None:
        self._portfolio, self._market = portfolio, market
        self._at = universe.index()
        self._interval_h = {contract.symbol: contract.funding_interval_h for contract in universe.contracts}
        self._hour: int | None = None  # None: no time has passed yet
        self._settled_ns = 0  # the last full hour that we lived through
        self._asked_ns = 0
        self._owed: dict[str, int] = {}  # symbol -> its settlement, ns
        self._paid_ns: dict[str, int] = {}  # symbol -> stamp of its last bill
        self._seen: dict[str, None] = {}  # bill ids

    @property
    def is_owed(self) -> bool:
        return bool(self._owed)

    def pass_time(self, now_ns: int) -> None:
        """Let time come to `now_ns`, before anything that happened then is booked."""
        hour = now_ns // HOUR_NS
        if self._hour is None or hour > self._hour:
            is_first, self._hour = self._hour is None, hour
            if not is_first:
                self._settled_ns, self._asked_ns = hour * HOUR_NS, 0
                for symbol in self._portfolio.holdings:
                    self._owe(symbol)

    def before_fill(self, fill: Filled) -> None:
        """Let time come to what the fill's stamp says: the exchange may have settled by its clock and not by ours."""
        if fill.exch_ns < fill.recv_ns + SKEW_NS:
            self.pass_time(fill.exch_ns)

    def after_fill(self, fill: Filled) -> None:
        """Count a fill from before a settlement that was heard of after it."""
        if fill.exch_ns < self._settled_ns and fill.recv_ns < self._settled_ns + PATIENCE_NS:
            if fill.symbol in self._portfolio.holdings:
                self._owe(fill.symbol)
            else:
                self._owed.pop(fill.symbol, None)

    def _owe(self, symbol: str) -> None:
        n, interval_h = self._at.get(symbol), self._interval_h.get(symbol, 0)
        if n is None or interval_h < 1 or self._settled_ns // HOUR_NS % interval_h:
            return
        # A market without funding (a recording) has no rate, and settles nothing. Before the first second nobody knows:
        # what was adopted just before a full hour is asked about.
        is_funded = self._market.block is None or math.isfinite(self._market.value("funding_rate", n))
        if is_funded and self._paid_ns.get(symbol, 0) < self._settled_ns - EARLY_NS:
            self._owed[symbol] = self._settled_ns

    def take(self, paid: FundingPaid) -> bool:
        """Count a bill; False where it was counted before."""
        if paid.bill_id in self._seen:
            return False
        self._seen[paid.bill_id] = None
        if len(self._seen) > BILLS_REMEMBERED_MAX:
            del self._seen[next(iter(self._seen))]
        self._paid_ns[paid.symbol] = max(paid.exch_ns, self._paid_ns.get(paid.symbol, 0))
        if self._owed.get(paid.symbol, paid.exch_ns) - EARLY_NS <= paid.exch_ns:
            self._owed.pop(paid.symbol, None)
        return True

    def is_question_due(self, now_ns: int) -> bool:
        """Say whether the account should be asked now, and count it as asked."""
        waited_ns = now_ns - self._settled_ns
        is_due = waited_ns >= FIRST_ASKED_NS and now_ns - self._asked_ns >= AGAIN_NS[waited_ns >= ASKED_OFTEN_NS]
        if not self._owed or not is_due:
            return False
        self._asked_ns = now_ns
        return True

    def give_up(self, now_ns: int) -> list[str]:
        """Return what was waited for long enough, and wait no more."""
        lost = sorted(symbol for symbol, settled_ns in self._owed.items() if now_ns - settled_ns >= PATIENCE_NS)
        for symbol in lost:
            del self._owed[symbol]
        return lost
