"""Risk: independent of the strategy, latched, and the only way to an order.

An order that skipped risk has the wrong type: the desk places `Approved`, and only `Risk` makes one. A refusal is a
value with its reason. Nothing that a gate of the strategy has looked at is taken for granted: links, lag, freshness,
spread, depth, clocks and unknown orders are looked at again here, with what the order would add to each limit. Exits
reduce risk and are refused by the order rate alone (and tried again a second later).

    latched     daily loss, drawdown, refusals: everything is cancelled and closed
    at a time   gross, margin, net, cluster, symbol, order rate, unknown orders, clock skew, links, lag
    of a book   silent too long, too wide, too thin, a stop nearer than the spread

A daily loss holds until the next UTC day, a drawdown or a storm of refusals until a person restarts with a fresh state.
Days are arithmetic on `recv_ns`: there is no other clock. What is counted (refusals, placements) and what is latched is
in `RiskState`: a crash is no way around a limit.
"""

from __future__ import annotations

import enum
from collections import deque
from decimal import Decimal

import msgspec

from shared.strategy.config import EngineConfig
from shared.strategy.exact import decimal_of
from shared.strategy.exposure import Exposure, margin_of
from shared.strategy.ranking import Gate
from shared.strategy.sizing import BPS, Refusal, gross_max_usdt
from shared.types import NS, PlaceOrder

DAY_NS = 86_400 * NS
MS_NS = 1_000_000


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
    refused_ns: tuple[int, ...] = ()  # the last refusals, oldest first
    rate_second: int = -1  # of the last placement
    rate_count: int = 0  # placements in it


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """The world as an entry finds it."""

    is_linked: bool  # both streams are up
    lag_ns: int  # since the end of the second that was decided on
    unknown_orders: int
    silence_s: int  # neither book nor ticker of the symbol for so long
    spread_bps: float  # NaN: there is no book
    depth_usdt: float  # thinner side within 10 bps; NaN: there is no book
    half_spread: Decimal  # USDT
    tick: Decimal


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
        self._net_share_max = decimal_of(config.net_share_max)
        self._cluster_share_max = decimal_of(config.cluster_share_max)
        self._margin_use_max = decimal_of(config.margin_use_max)
        self._rate_second = state.rate_second if state is not None else -1
        self._rate_count = state.rate_count if state is not None else 0
        refused_ns = state.refused_ns if state is not None else ()
        self._refused_ns: deque[int] = deque(refused_ns, maxlen=config.refusals_per_minute_max + 1)
        self._skew_ns = 0

    def state(self) -> RiskState | None:
        """Return what a restart needs; None before the first look at equity."""
        if self._state is None:
            return None
        return msgspec.structs.replace(
            self._state,
            refused_ns=tuple(self._refused_ns),
            rate_second=self._rate_second,
            rate_count=self._rate_count,
        )

    @property
    def latch(self) -> Latch | None:
        """Return what is latched, None where trading may add risk."""
        return self._state.latch if self._state is not None else None

    # ------------------------------------------------------------------------------------------- what it looks at

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

    def read_clock(self, offset_ns: int) -> None:
        """Remember by how much the exchange's clock is ahead of ours, as it was read last."""
        self._skew_ns = offset_ns

    def heard(self, exch_ns: int, recv_ns: int) -> None:
        """Take a stamp that lies in our future for what it proves; one in our past may be delay alone."""
        if exch_ns - recv_ns > self._skew_limit_ns:
            self._skew_ns = max(self._skew_ns, exch_ns - recv_ns)

    @property
    def _skew_limit_ns(self) -> int:
        return self._config.clock_skew_ms_max * MS_NS

    @property
    def is_clock_off(self) -> bool:
        """Claim that our clock and the exchange's differ by more than may be, until a reading says otherwise."""
        return abs(self._skew_ns) > self._skew_limit_ns

    # --------------------------------------------------------------------------------------------- what it decides

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
        self,
        order: PlaceOrder,
        now_ns: int,
        *,
        price: Decimal,
        leverage: int,
        exposure: Exposure,
        conditions: Conditions,
    ) -> Approved | Refusal:
        """Pass an entry that keeps every limit, once it is filled completely.

        Args:
            price: values the order.
            leverage: as obtained for this symbol.
        """
        assert not order.reduce_only, f"{order.client_oid} is no entry"
        refusal = (
            self._refuse_all(conditions)
            or self._refuse_book(order, price, conditions)
            or self._refuse_size(order.size * price, leverage, exposure)
        )
        if refusal is not None:
            return refusal
        if not self._spend(now_ns):
            return Refusal(gate=Gate.ORDER_RATE, reason="placements of this second are used up")
        return Approved(order=order)

    def _refuse_all(self, conditions: Conditions) -> Refusal | None:
        """Return why nothing may be entered now, None where something may."""
        config = self._config
        if self.latch is not None:
            return Refusal(gate=Gate.RISK_LATCHED, reason=f"{self.latch} is latched")
        if self._state is None:
            return Refusal(gate=Gate.NOT_ADOPTED, reason="equity has not been seen")
        if not conditions.is_linked:
            return Refusal(gate=Gate.LINK_DOWN, reason="a stream is down")
        if conditions.lag_ns > config.lag_s_max * NS:
            return Refusal(
                gate=Gate.LATE, reason=f"the second is {conditions.lag_ns / NS:.1f} s old, limit {config.lag_s_max} s"
            )
        if conditions.unknown_orders > config.unknown_orders_max:
            return Refusal(
                gate=Gate.UNKNOWN_ORDERS,
                reason=f"{conditions.unknown_orders} placements without an answer, limit {config.unknown_orders_max}",
            )
        if self.is_clock_off:
            return Refusal(
                gate=Gate.CLOCK_SKEW,
                reason=f"clocks differ by {self._skew_ns / MS_NS:+.0f} ms, limit {config.clock_skew_ms_max} ms",
            )
        return None

    def _refuse_book(self, order: PlaceOrder, price: Decimal, conditions: Conditions) -> Refusal | None:
        """Return why this symbol's book forbids an entry, None where it does not. NaN never passes."""
        config = self._config
        if conditions.silence_s > config.stale_s_max:
            return Refusal(
                gate=Gate.STALE_BOOK, reason=f"silent for {conditions.silence_s} s, limit {config.stale_s_max} s"
            )
        if not conditions.spread_bps <= config.spread_bps_max:
            return Refusal(
                gate=Gate.SPREAD,
                reason=f"the spread is {conditions.spread_bps:.2f} bps, limit {config.spread_bps_max:g}",
            )
        if not conditions.depth_usdt >= config.depth_usdt_min:
            return Refusal(
                gate=Gate.DEPTH,
                reason=f"{conditions.depth_usdt:.0f} USDT are visible, at least {config.depth_usdt_min:g}",
            )
        nearest = 2 * conditions.half_spread + conditions.tick
        away = None if order.stop_price is None else (price - order.stop_price) * order.side.sign
        if away is None or away <= nearest:
            said = "no stop" if away is None else f"its stop {away} away ({away / price * BPS:.1f} bps)"
            return Refusal(gate=Gate.SPREAD, reason=f"an entry needs a stop beyond spread and tick, {nearest}: {said}")
        return None

    def _refuse_size(self, notional: Decimal, leverage: int, exposure: Exposure) -> Refusal | None:
        """Return which limit the order would break once it is filled, None where it breaks none."""
        if exposure.unpriced:
            return Refusal(gate=Gate.EXPOSURE, reason=f"an order works in {exposure.unpriced}, which has no price")
        gross_max = gross_max_usdt(self._config, exposure.equity_usdt, leverage)
        margin = margin_of(notional, leverage)
        for gate, name, before, adds, most in (
            (Gate.EXPOSURE, "gross", exposure.gross_usdt, notional, gross_max),
            (Gate.EXPOSURE, "symbol", exposure.symbol_usdt, notional, gross_max * self._symbol_share_max),
            (Gate.MARGIN_USE, "margin", exposure.margin_usdt, margin, exposure.equity_usdt * self._margin_use_max),
            (Gate.NET, "net", exposure.net_usdt, notional, gross_max * self._net_share_max),
            (Gate.CLUSTER, "cluster", exposure.cluster_usdt, notional, gross_max * self._cluster_share_max),
        ):
            if before + adds > most:
                return Refusal(
                    gate=gate,
                    reason=f"{name} would be {before:.2f} + {adds:.2f} = {before + adds:.2f} USDT, limit {most:.2f}",
                )
        return None
