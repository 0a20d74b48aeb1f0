"""Risk: independent of the strategy, latched, and the only way to an order.

An order that skipped risk has the wrong type: the engine places `Approved`, and only `Risk` makes one. A refusal is a
value with its reason. Exits reduce risk and are refused by the order rate alone (and tried again a second later).

Latches: a daily loss holds until the next UTC day, a drawdown or a storm of refusals until a person restarts with a
fresh state. A latch flattens. Days are arithmetic on `recv_ns`: there is no other clock.
"""

from __future__ import annotations

import enum
from collections import deque
from decimal import Decimal

import msgspec

from shared.strategy.config import EngineConfig
from shared.strategy.exact import decimal_of
from shared.strategy.ranking import Gate
from shared.strategy.sizing import Refusal, gross_max_usdt
from shared.types import NS, PlaceOrder

DAY_NS = 86_400 * NS


class Latch(enum.StrEnum):
    DAILY_LOSS = "daily_loss"
    DRAWDOWN = "drawdown"
    REFUSALS = "refusals"


class RiskState(msgspec.Struct, frozen=True, kw_only=True):
    """What must survive a restart: a crash is no way around a limit."""

    day: int  # days since the epoch, UTC
    day_equity_usdt: Decimal  # at the first look of that day
    peak_equity_usdt: Decimal
    latch: Latch | None = None  # None: nothing is latched


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """What we hold and have asked for, at marks."""

    equity_usdt: Decimal
    gross_usdt: Decimal  # positions and working entries, absolute
    symbol_usdt: Decimal  # of the symbol in question


class Approved(msgspec.Struct, frozen=True, kw_only=True):
    """An order that risk has seen. Nothing else is ever placed."""

    order: PlaceOrder


class Risk:
    def __init__(self, config: EngineConfig, state: RiskState | None = None) -> None:
        self._config = config
        self._state = state
        self._daily_loss_limit = decimal_of(config.daily_loss_limit)
        self._drawdown_max = decimal_of(config.drawdown_max)
        self._symbol_share_max = decimal_of(config.symbol_share_max)
        self._rate_second = -1
        self._rate_count = 0
        self._refused_ns: deque[int] = deque(maxlen=config.refusals_per_minute_max + 1)

    def state(self) -> RiskState | None:
        """Return what a restart needs; None before the first look at equity."""
        return self._state

    @property
    def latch(self) -> Latch | None:
        """Return what is latched, None where trading may add risk."""
        return self._state.latch if self._state is not None else None

    def look(self, now_ns: int, equity: Decimal) -> Latch | None:
        """Compare equity with the limits; return a latch exactly when it falls."""
        day = now_ns // DAY_NS
        state = self._state
        if state is None:
            state = RiskState(day=day, day_equity_usdt=equity, peak_equity_usdt=equity)
        elif day > state.day:
            kept = None if state.latch is Latch.DAILY_LOSS else state.latch
            state = msgspec.structs.replace(state, day=day, day_equity_usdt=equity, latch=kept)
        if equity > state.peak_equity_usdt:
            state = msgspec.structs.replace(state, peak_equity_usdt=equity)
        self._state = state
        if state.latch is not None:
            return None
        if equity <= state.peak_equity_usdt * (1 - self._drawdown_max):
            return self._fall(Latch.DRAWDOWN)
        if equity <= state.day_equity_usdt * (1 - self._daily_loss_limit):
            return self._fall(Latch.DAILY_LOSS)
        return None

    def _fall(self, latch: Latch) -> Latch:
        assert self._state is not None
        self._state = msgspec.structs.replace(self._state, latch=latch)
        return latch

    def note_refusal(self, now_ns: int) -> Latch | None:
        """Count an order that the exchange refused; a storm of them latches."""
        self._refused_ns.append(now_ns)
        full = len(self._refused_ns) == self._refused_ns.maxlen
        if full and now_ns - self._refused_ns[0] <= 60 * NS and self._state is not None and self._state.latch is None:
            return self._fall(Latch.REFUSALS)
        return None

    def _spend(self, now_ns: int) -> bool:
        second = now_ns // NS
        if second != self._rate_second:
            self._rate_second, self._rate_count = second, 0
        if self._rate_count >= self._config.orders_per_second_max:
            return False
        self._rate_count += 1
        return True

    def approve_exit(self, order: PlaceOrder, now_ns: int) -> Approved | Refusal:
        """Pass a reduce-only order, unless this second's placements are used up."""
        assert order.reduce_only, f"{order.client_oid} is no exit"
        if not self._spend(now_ns):
            return Refusal(gate=Gate.ORDER_RATE, reason="placements of this second are used up")
        return Approved(order=order)

    def approve_entry(
        self, order: PlaceOrder, now_ns: int, *, price: Decimal, leverage: int, exposure: Exposure
    ) -> Approved | Refusal:
        """Pass an entry that keeps every limit, once it is filled completely.

        Args:
            price: mid at the decision, values the order.
            leverage: as obtained for this symbol.
        """
        assert not order.reduce_only, f"{order.client_oid} is no entry"
        if self.latch is not None:
            return Refusal(gate=Gate.RISK_LATCHED, reason=f"{self.latch} is latched")
        if self._state is None:
            return Refusal(gate=Gate.NOT_ADOPTED, reason="equity has not been seen")
        notional = order.size * price
        gross_max = gross_max_usdt(self._config, exposure.equity_usdt, leverage)
        if exposure.gross_usdt + notional > gross_max:
            return Refusal(
                gate=Gate.EXPOSURE,
                reason=f"gross would be {exposure.gross_usdt + notional:.2f} USDT, limit {gross_max:.2f}",
            )
        symbol_max = gross_max * self._symbol_share_max
        if exposure.symbol_usdt + notional > symbol_max:
            return Refusal(
                gate=Gate.EXPOSURE,
                reason=f"symbol would be {exposure.symbol_usdt + notional:.2f} USDT, limit {symbol_max:.2f}",
            )
        if not self._spend(now_ns):
            return Refusal(gate=Gate.ORDER_RATE, reason="placements of this second are used up")
        return Approved(order=order)
