"""Made-up contracts, seconds and a scripted exchange, for tests that need to say exactly what happens."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from itertools import count

import numpy as np
from numpy.typing import NDArray

from shared.features.sampler import COLUMNS
from shared.strategy.engine import Engine, EngineConfig, Memory
from shared.strategy.scores import Scorer, Scores
from shared.types import (
    NS,
    Action,
    Adopted,
    CancelOrder,
    Contract,
    Event,
    Filled,
    Floats,
    LinkChanged,
    Note,
    OrderAccepted,
    OrderReported,
    OrderStatus,
    PendingOrder,
    PlaceOrder,
    Position,
    QueryAccount,
    QueryOrder,
    SecondClosed,
    Side,
    Universe,
)

START_S = 1_760_000_000
AT = {name: c for c, name in enumerate(COLUMNS)}
D = Decimal


def best_of_sides(
    candidates: Iterable[int], direction: NDArray[np.int8], priority: Floats, draws: Floats, slots: tuple[int, int]
) -> list[int]:
    """Return who gets the slots for longs and for shorts, best first: by priority, then draw, then symbol."""
    keys = {int(n): (-float(priority[n]), float(draws[n]), int(n)) for n in candidates}
    longs, shorts = ([n for n in keys if bool(direction[n] > 0) is is_long] for is_long in (True, False))
    chosen = [n for side, k in zip((longs, shorts), slots, strict=True) for n in sorted(side, key=keys.__getitem__)[:k]]
    return sorted(chosen, key=keys.__getitem__)


def contract(symbol: str = "AAAUSDT", **changes: object) -> Contract:
    """Return a contract with Bitget's usual fees; keywords change what a test is about."""
    fields: dict[str, object] = {
        "symbol": symbol,
        "base": symbol.removesuffix("USDT"),
        "quote": "USDT",
        "status": "normal",
        "tick": D("0.01"),
        "size_step": D("0.01"),
        "size_min": D("0.01"),
        "notional_min_usdt": D(5),
        "size_max_limit": None,
        "size_max_market": None,
        "price_band_buy": D("0.05"),
        "price_band_sell": D("0.05"),
        "maker_fee": D("0.0002"),
        "taker_fee": D("0.0006"),
        "leverage_min": 1,
        "leverage_max": 50,
        "funding_interval_h": 8,
        "is_rwa": False,
        "launch_ms": None,
        "off_ms": None,
    }
    return Contract(**{**fields, **changes})  # type: ignore[arg-type]


def universe(n_symbols: int = 3, **changes: object) -> Universe:
    symbols = [f"{chr(65 + n // 26)}{chr(65 + n % 26)}AUSDT" for n in range(n_symbols)]
    return Universe(source="simulator-made", as_of_ns=0, contracts=tuple(contract(s, **changes) for s in symbols))


def columns(n_symbols: int, mid: float | Floats = 100.0, half_spread: float = 0.01) -> Floats:
    """Return a second in which every symbol has a calm, deep, fresh book around `mid`."""
    block = np.zeros((len(COLUMNS), n_symbols))
    mids = np.broadcast_to(np.asarray(mid, float), (n_symbols,))
    for level in range(1, 6):
        away = half_spread * level
        block[AT[f"bid_price_{level}"]] = np.round(mids - away, 8)
        block[AT[f"ask_price_{level}"]] = np.round(mids + away, 8)
        block[AT[f"bid_size_{level}"]] = block[AT[f"ask_size_{level}"]] = 100.0
    for name in ("bid_depth_5bps_usdt", "ask_depth_5bps_usdt", "bid_depth_10bps_usdt", "ask_depth_10bps_usdt"):
        block[AT[name]] = 50_000.0
    for name in ("last", "mark", "index", "mid_high", "mid_low"):
        block[AT[name]] = mids
    block[AT["quote_volume_24h_usdt"]] = 1e8
    block[AT["funding_rate"]] = 1e-4
    block[AT["book_updates"]] = block[AT["ticker_updates"]] = 1.0
    return block


def scores(direction: Iterable[int], *, edge_bps: float = 40.0, confidence: float = 0.9) -> Scores:
    """Return sure scores: direction per symbol, 0 for no opinion."""
    signs = np.array(list(direction), np.int8)
    p_long = np.where(signs > 0, confidence, np.where(signs < 0, (1 - confidence) / 2, 0.1))
    p_short = np.where(signs < 0, confidence, np.where(signs > 0, (1 - confidence) / 2, 0.1))
    best = np.maximum(p_long, p_short)
    return Scores(
        p_long,
        p_short,
        1 - p_long - p_short,
        edge_bps * signs.astype(np.float64),
        signs,
        best,
        np.ones(len(signs), np.bool_),
    )


class Fixed:
    """A scorer for engines whose seconds bring their own scores."""

    name = "fixed"
    horizon_s: int | None = None
    needs_features = False

    def __init__(self, *, is_null: bool = False) -> None:
        self.is_null = is_null

    def score(self, features: object, columns: object, first_second: int) -> Scores:
        raise AssertionError("this second had to bring its scores")


class Script:
    """An engine and its clock; the test plays the exchange."""

    def __init__(
        self,
        n_symbols: int = 1,
        config: EngineConfig | None = None,
        *,
        scorer: Scorer | None = None,
        memory: Memory | None = None,
        listed: Universe | None = None,
        is_adopted: bool = True,
        seed: int = 7,
    ) -> None:
        self.universe = listed if listed is not None else universe(n_symbols)
        self.symbols = self.universe.symbols
        self.engine = Engine(
            config if config is not None else EngineConfig(),
            self.universe,
            scorer if scorer is not None else Fixed(),
            session="test",
            seed=seed,
            memory=memory,
        )
        self.now_ns = START_S * NS
        self.second = START_S
        self.market = columns(len(self.symbols))
        self.log: list[Action] = []  # everything that the engine wanted, oldest first
        self._ids = count(1)
        if is_adopted:
            self.adopt()
            self.links(True)

    def tell(self, event: Event) -> list[Action]:
        actions = self.engine.on_event(event)
        self.log += actions
        return actions

    def wait(self, ms: int = 1) -> int:
        """Let time pass and return the new now."""
        self.now_ns += ms * 1_000_000
        return self.now_ns

    def adopt(
        self,
        equity: str | Decimal = "10000",
        positions: tuple[Position, ...] = (),
        orders: tuple[PendingOrder, ...] = (),
        leverage: dict[str, int] | None = None,
        fills: tuple[Filled, ...] = (),
    ) -> list[Action]:
        granted = leverage if leverage is not None else dict.fromkeys(self.symbols, 5)
        return self.tell(
            Adopted(
                recv_ns=self.wait(),
                equity_usdt=D(equity),
                available_usdt=D(equity),
                positions=positions,
                orders=orders,
                leverage=granted,
                fills=fills,
            )
        )

    def agree(self) -> list[Action]:
        """Read the account while flat, where it says what the ledger says."""
        return self.adopt(self.engine.portfolio.equity_usdt)

    def links(self, is_up: bool) -> None:
        for link in ("public", "private"):
            self.tell(LinkChanged(recv_ns=self.wait(), link=link, is_up=is_up))

    def close_second(self, said: Scores | None = None, *, market: Floats | None = None) -> list[Action]:
        """Close the second that is under way; scores default to no opinion."""
        if market is not None:
            self.market = market
        self.now_ns = max(self.now_ns, (self.second + 1) * NS)
        said = said if said is not None else scores([0] * len(self.symbols))
        actions = self.tell(
            SecondClosed(recv_ns=self.wait(), second=self.second, columns=self.market.copy(), scores=said)
        )
        self.second += 1
        return actions

    def pass_seconds(self, seconds: int) -> list[Action]:
        """Close so many seconds without an opinion and return all actions."""
        return [action for _ in range(seconds) for action in self.close_second()]

    def accept(self, order: PlaceOrder) -> str:
        order_id = str(next(self._ids))
        self.tell(OrderAccepted(recv_ns=self.wait(), client_oid=order.client_oid, order_id=order_id))
        return order_id

    def fill(
        self,
        order: PlaceOrder,
        price: str | None = None,
        *,
        size: Decimal | None = None,
        order_id: str = "",
        trade_id: str = "",
    ) -> list[Action]:
        """Fill an order, at the touch (at the mark where there is none) and completely if nothing else is said."""
        n = self.symbols.index(order.symbol)
        touch = self.market[AT["ask_price_1" if order.side is Side.BUY else "bid_price_1"], n]
        touch = touch if np.isfinite(touch) else self.market[AT["mark"], n]
        at = D(price) if price is not None else D(repr(float(touch)))
        size = order.size if size is None else size
        return self.tell(
            Filled(
                recv_ns=self.wait(),
                client_oid=order.client_oid,
                order_id=order_id or f"o-{order.client_oid}",
                trade_id=trade_id or str(next(self._ids)),
                symbol=order.symbol,
                side=order.side,
                price=at,
                size=size,
                fee_usdt=(at * size * D("0.0006")).quantize(D("1e-8")),
                is_maker=False,
                exch_ns=self.now_ns,
            )
        )

    def report(self, order: PlaceOrder, status: OrderStatus, filled: Decimal, order_id: str = "") -> list[Action]:
        return self.tell(
            OrderReported(
                recv_ns=self.wait(),
                client_oid=order.client_oid,
                order_id=order_id or f"o-{order.client_oid}",
                status=status,
                filled=filled,
                reason="",
            )
        )

    def complete(self, order: PlaceOrder, price: str | None = None) -> list[Action]:
        """Accept, fill and report an order."""
        self.accept(order)
        return self.fill(order, price) + self.report(order, OrderStatus.FILLED, order.size)

    def open_position(self, direction: int = 1) -> PlaceOrder:
        """Enter in every symbol and return the first entry, filled."""
        placed = places(self.close_second(scores([direction] * len(self.symbols))))
        for order in placed:
            self.complete(order)
        return placed[0]

    @property
    def reasons(self) -> list[str]:
        return list(self.engine.why_not().values())


def places(actions: Iterable[Action]) -> list[PlaceOrder]:
    return [action for action in actions if isinstance(action, PlaceOrder)]


def cancels(actions: Iterable[Action]) -> list[CancelOrder]:
    return [action for action in actions if isinstance(action, CancelOrder)]


def queries(actions: Iterable[Action]) -> list[QueryOrder]:
    return [action for action in actions if isinstance(action, QueryOrder)]


def account_queries(actions: Iterable[Action]) -> list[QueryAccount]:
    return [action for action in actions if isinstance(action, QueryAccount)]


def notes(actions: Iterable[Action], event: str) -> list[Note]:
    return [action for action in actions if isinstance(action, Note) and action.event == event]
